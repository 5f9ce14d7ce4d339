/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a router says of its calls to expert nodes: kept with its last report, and shown.
 * Plain data; the service's thread.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_CALLS_H
#define CADRE_ORCHESTRATION_PLACEMENT_CALLS_H

#include "cadre/v1/placement.pb-c.h"
#include "common/cluster/map.h"

enum { PL_BREAKERS_MAX = 8, PL_BREAKER_TEXT_BYTES = 80 };

struct pl_breaker {
	char node[CAD_MAP_ID_BYTES], why[PL_BREAKER_TEXT_BYTES];
	bool half_open, of_copy;
	uint32_t layer, expert; /* of a copy */
};

struct pl_calls {
	bool told; /* a router that says nothing is of an older version */
	uint64_t late, hedged, hedges_won, rows_diverted, p99_us;
	uint32_t breakers_open, copies_open;
	uint32_t breakers_count;
	struct pl_breaker breakers[PL_BREAKERS_MAX];
};

/* From a report; NULL: it says nothing. What is too much is left out, what is too long cut. */
void pl_calls_read(const Cadre__V1__ExpertCalls *message, struct pl_calls *calls);

/* A message that points to `calls` and to its own parts. */
struct pl_calls_message {
	Cadre__V1__ExpertCalls calls;
	Cadre__V1__Breaker breakers[PL_BREAKERS_MAX], *list[PL_BREAKERS_MAX];
	Cadre__V1__ExpertId copies[PL_BREAKERS_MAX];
};
/* NULL: there is nothing to say. */
Cadre__V1__ExpertCalls *pl_calls_write(const struct pl_calls *calls, struct pl_calls_message *message);

#endif
