/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the calls to one node take, by size, and from when on one is late. Owned by whoever owns
 * the node; allocates nothing.
 *
 * Times are those that the router waited: what it computes between its polls does not count, as it
 * does not count as silence of a peer (common/transport/transport.h).
 *
 * A histogram for each class of sizes, four buckets for a factor of two, so that a
 * quantile is at most 19 % too high. When a class has WINDOW calls its counts are
 * halved: the last ones weigh most.
 */
#ifndef CADRE_ROUTER_SVC_MOE_LATENCY_H
#define CADRE_ROUTER_SVC_MOE_LATENCY_H

#include <stdint.h>

enum {
	RT_LATENCY_CLASSES = 4,  /* rows: 1 to 4, 5 to 16, 17 to 64, more */
	RT_LATENCY_BUCKETS = 80, /* from 32 us to 34 s */
};

struct rt_latency {
	struct rt_latency_class {
		uint32_t calls, fresh;   /* in the counts; of these, since the quantiles were looked up */
		uint64_t p50_ns, p99_ns; /* 0: too few calls so far */
		uint16_t counts[RT_LATENCY_BUCKETS];
	} classes[RT_LATENCY_CLASSES];
};

/* A call with so many rows took so long. */
void rt_latency_add(struct rt_latency *latency, uint32_t rows, uint64_t ns);
/* What 99 of 100 calls of this size do not exceed. Of a size that is not known, what a smaller one
 * suggests, in proportion to its rows, else what a larger one takes. 0: nothing is known. */
uint64_t rt_latency_p99_ns(const struct rt_latency *latency, uint32_t rows);
/* What half of the smallest calls do not exceed, and 99 of 100: comparable from
 * node to node. 0: not known. */
uint64_t rt_latency_usual_p50_ns(const struct rt_latency *latency);
uint64_t rt_latency_usual_p99_ns(const struct rt_latency *latency);
/* After so long a call of this size is late: it may be hedged. UINT64_MAX: not known. */
uint64_t rt_latency_late_ns(const struct rt_latency *latency, uint32_t rows);
/* After so long it is given up: at most `most_ns`, which it also is as long as nothing is known. */
uint64_t rt_latency_deadline_ns(const struct rt_latency *latency, uint32_t rows, uint64_t most_ns);

#endif
