/* SPDX-License-Identifier: Apache-2.0 */
/* What it takes to get from one plan to another. Pure; any thread. */
#ifndef CADRE_ORCHESTRATION_PLANNER_PREDICT_MOVES_H
#define CADRE_ORCHESTRATION_PLANNER_PREDICT_MOVES_H

#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/plan.h"

struct pl_moves {
	uint64_t loads, frees; /* copies that must be loaded, and that go away */
	uint64_t bytes;        /* that the loads read; 0 when the size of an expert is unknown */
	uint32_t busiest;      /* the node that reads most, for its link */
	double seconds;        /* that it needs, at `rate` bytes per second over a link of 1 */
};

/* Both plans are of the same layers, experts and nodes. */
struct pl_moves pl_moves_between(
	const struct pl_plan *from, const struct pl_plan *to, const struct pl_cluster *cluster, double rate);

#endif
