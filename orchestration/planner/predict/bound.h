/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lower bound: what no plan can beat. The maths is in docs/PLANNER.md.
 *
 * Pure but for the memory that it allocates and frees; any thread. For a layer of E experts it
 * takes some 100 E^2 steps.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_PREDICT_BOUND_H
#define CADRE_ORCHESTRATION_PLANNER_PREDICT_BOUND_H

#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/layer.h"

/*
 * The fewest nodes that these tokens can touch, mean over tokens and layers, however the experts
 * are placed in the cluster's room and whatever the router does. copies: of a layer's experts at
 * most, the first ones counted, as in struct pl_solve_options. Errors are those of pl_solve.
 */
CAD_MUST_USE enum cad_status pl_bound(const struct pl_sample *sample, const struct pl_cluster *cluster, uint32_t copies,
	double *nodes_per_token, struct cad_error *error);

#endif
