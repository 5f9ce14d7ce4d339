/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/latency.h"

#include "common/base/clock.h"

/* `FRESH` calls change the quantiles that are kept; with KNOWN there are some at all. */
enum { FIRST_BIT = 15, WINDOW = 1024, KNOWN = 16, FRESH = 16, ROWS_OF_A_CLASS = 4 };
/* A call is late after twice what 99 of 100 take, plus what a scheduler may well take. */
enum { LATE_FACTOR = 2, DEADLINE_FACTOR = 20 };
static const uint64_t LATE_MARGIN_NS = 5 * CAD_NS_PER_MS, LATE_LEAST_NS = 10 * CAD_NS_PER_MS;
/* Above what heartbeats take to find a dead node, so that a deadline is for those that live. */
static const uint64_t DEADLINE_LEAST_NS = 2 * CAD_NS_PER_S;

static uint32_t class_of(uint32_t rows)
{
	uint32_t class = 0;
	for (uint32_t most = ROWS_OF_A_CLASS; rows > most && class + 1 < RT_LATENCY_CLASSES; most *= ROWS_OF_A_CLASS)
		class ++;
	return class;
}

static uint32_t bucket_of(uint64_t ns)
{
	if (ns >> FIRST_BIT == 0)
		return 0;
	uint32_t bit = 63 - (uint32_t)__builtin_clzll(ns),
		 bucket = (bit - FIRST_BIT) * 4 + (uint32_t)(ns >> (bit - 2) & 3);
	return bucket < RT_LATENCY_BUCKETS ? bucket : RT_LATENCY_BUCKETS - 1;
}

/* Where a bucket ends. */
static uint64_t end_of(uint32_t bucket) { return (uint64_t)(bucket % 4 + 5) << (FIRST_BIT + bucket / 4 - 2); }

static uint64_t quantile(const struct rt_latency_class *class, uint32_t percent)
{
	uint32_t above = class->calls - (uint32_t)((uint64_t) class->calls * percent / 100),
		 bucket = RT_LATENCY_BUCKETS;
	for (uint32_t seen = 0; bucket > 0 && seen <= above; bucket--)
		seen += class->counts[bucket - 1];
	return end_of(bucket);
}

static void halve(struct rt_latency_class *class)
{
	class->calls = 0;
	for (uint32_t i = 0; i < RT_LATENCY_BUCKETS; i++)
		class->calls += class->counts[i] /= 2;
}

void rt_latency_add(struct rt_latency *latency, uint32_t rows, uint64_t ns)
{
	struct rt_latency_class *class = &latency->classes[class_of(rows)];

	class->counts[bucket_of(ns)]++;
	class->fresh++;
	if (++class->calls >= WINDOW)
		halve(class);
	if (class->calls < KNOWN || class->fresh < FRESH)
		return;

	class->fresh = 0;
	class->p50_ns = quantile(class, 50);
	class->p99_ns = quantile(class, 99);
}

uint64_t rt_latency_p99_ns(const struct rt_latency *latency, uint32_t rows)
{
	const struct rt_latency_class *classes = latency->classes;
	uint32_t own = class_of(rows);
	uint64_t factor = 1;

	for (uint32_t below = own + 1; below > 0; below--, factor *= ROWS_OF_A_CLASS)
		if (classes[below - 1].p99_ns > 0)
			return classes[below - 1].p99_ns * factor;
	for (uint32_t above = own + 1; above < RT_LATENCY_CLASSES; above++)
		if (classes[above].p99_ns > 0)
			return classes[above].p99_ns;
	return 0;
}

uint64_t rt_latency_late_ns(const struct rt_latency *latency, uint32_t rows)
{
	uint64_t p99_ns = rt_latency_p99_ns(latency, rows), late_ns = LATE_FACTOR * p99_ns + LATE_MARGIN_NS;
	if (p99_ns == 0)
		return UINT64_MAX;
	return late_ns > LATE_LEAST_NS ? late_ns : LATE_LEAST_NS;
}

uint64_t rt_latency_deadline_ns(const struct rt_latency *latency, uint32_t rows, uint64_t most_ns)
{
	uint64_t p99_ns = rt_latency_p99_ns(latency, rows), ns = DEADLINE_FACTOR * p99_ns;
	if (p99_ns == 0)
		return most_ns;
	ns = ns > DEADLINE_LEAST_NS ? ns : DEADLINE_LEAST_NS;
	return ns < most_ns ? ns : most_ns;
}

/* The smallest size of which something is known. */
static const struct rt_latency_class *usual(const struct rt_latency *latency)
{
	uint32_t class = 0;
	while (class + 1 < RT_LATENCY_CLASSES && latency->classes[class].p99_ns == 0)
		class ++;
	return &latency->classes[class];
}

uint64_t rt_latency_usual_p50_ns(const struct rt_latency *latency) { return usual(latency)->p50_ns; }

uint64_t rt_latency_usual_p99_ns(const struct rt_latency *latency) { return usual(latency)->p99_ns; }
