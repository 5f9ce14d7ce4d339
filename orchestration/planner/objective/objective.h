/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What makes a placement good: the terms, their weights, and the one figure that the solver
 * minimises. The maths is in docs/PLANNER.md.
 *
 * Everything is per layer and per token, in nodes that a token touches:
 *
 *   cost = touched * (nodes + load * L) + active * A + move * M + affinity * F
 *
 *   touched   nodes, each by its link (1 on average), and `racks` for every rack beyond the first;
 *             with the router's own cover (common/cluster/cover.h)
 *   L         fourth root of the sum over nodes of excess^4;  excess = x + 2 x^2,  x = max(0,
 *             strain - load_max),
 *             strain = max(rows + 0.05, own rows + 0.075 (sqrt(2 ln nodes) - 0.6)), rows over the
 *             fair share; own: of experts that are nowhere else
 *   A         copies of used experts for a batch of 64 tokens, over the used experts: what decode
 *             reads at most, over the least that it could
 *   M         copies of the layer that must be loaded, over its experts
 *   F         nodes that the neighbouring layers do not touch for the same token
 *
 * Plain data and pure functions; any thread.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_OBJECTIVE_OBJECTIVE_H
#define CADRE_ORCHESTRATION_PLANNER_OBJECTIVE_OBJECTIVE_H

#include "common/process/options.h"
#include "common/base/status.h"

struct pl_weights {
	double nodes, racks, load, active, move, affinity;
	double load_max; /* load of the busiest node over its fair share that costs nothing, on other tokens like these */
};

enum pl_workload { PL_WORKLOAD_DECODE, PL_WORKLOAD_PREFILL, PL_WORKLOAD_MIXED };
extern const struct cad_choice pl_workload_choices[];

struct pl_weights pl_weights_of(enum pl_workload workload);

#endif
