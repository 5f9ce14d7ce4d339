/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of telemetry: telemetry.c counts, telemetry_figures.c computes.
 * Nothing else includes this. */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_TELEMETRY_INTERNAL_H
#define CADRE_ORCHESTRATION_PLACEMENT_TELEMETRY_INTERNAL_H

#include "orchestration/placement/series.h"
#include "orchestration/placement/telemetry.h"
#include "orchestration/planner/trace/reservoir.h"

enum {
	/* of a router, wide */
	PL_R_TOKENS = 0,
	PL_R_SAMPLED,
	PL_R_LOST,
	PL_R_ROWS,
	PL_R_NODES,
	PL_R_SENT,
	PL_R_RECEIVED,
	PL_R_CALLS,
	PL_R_HEDGED,
	PL_R_TOTALS,
	/* of an expert node, wide */
	PL_N_STEPS = 0,
	PL_N_ROWS,
	PL_N_PAIRS,
	PL_N_WAITING,
	PL_N_SERVICE_US,
	PL_N_TOTALS,
	/* and narrow, for each MoE layer */
	PL_L_STEPS = 0,
	PL_L_PAIRS,
	PL_L_ACTIVATED,
	PL_L_TOTALS,
};

/* What the last minute is kept in: tens of seconds, by their number since the service's clock
 * began, the one that runs among them. */
enum { PL_TENS = 7 };
static inline uint64_t pl_ten_of(uint64_t ns) { return ns / (10 * CAD_NS_PER_S) + 1; }

/* Between a router and a node. */
struct pl_link {
	uint32_t node; /* slot */
	struct {
		uint64_t ten, sent, received;
	} tens[PL_TENS];
};

/* One process that has reported. */
struct pl_source {
	char id[CAD_MAP_ID_BYTES]; /* a slot may be given to another one */
	enum pl_role role;
	uint64_t requests; /* what a router's numbers of requests begin with here */
	struct pl_series series;
	struct pl_link *links; /* a router's */
	uint32_t links_count;
};

struct pl_telemetry {
	struct pl_telemetry_options options;
	struct pl_reservoir *reservoir; /* NULL: no token is kept */
	uint64_t tokens, sampled, lost; /* of all routers */
	uint64_t sources_made;
	struct pl_source *sources[CAD_PROCESSES_MAX]; /* by slot; NULL: it has not reported */
	uint32_t links_count;                         /* of all routers */
	/* pairs of each cell in each ten; NULL: routing is only aggregated */
	uint32_t *hot; /* [PL_TENS][cells] */
	uint64_t hot_ten[PL_TENS];
};

/* As series.h wants it. */
static inline uint64_t pl_second_of(uint64_t ns) { return ns / CAD_NS_PER_S + 2; }

#endif
