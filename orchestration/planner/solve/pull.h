/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What favours or opposes a copy on a node besides the tokens of its own layer: that it is already
 * there, what it costs decode, and where the same tokens go in the neighbouring layers. Each adds
 * to site->pull [experts][nodes], in the unit of the objective. They allocate nothing.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_SOLVE_PULL_H
#define CADRE_ORCHESTRATION_PLANNER_SOLVE_PULL_H

#include "orchestration/planner/objective/layer.h"
#include "orchestration/planner/solve/site.h"

/* What a copy that is already there saves, as `moves` moves; below 0: what one costs that is not to
 * be there. `layer`: its row in the plan. */
void pl_pull_to_plan(struct pl_site *site, const struct pl_plan *plan, uint32_t layer, double moves);
/* What a copy costs decode: its weights are read for a batch when any of the batch's tokens goes
 * there, at most as often as any of them chooses the expert. */
void pl_pull_by_copies(struct pl_site *site, const struct pl_layer *layer);
/*
 * Draws every expert to the nodes that its tokens touch in the layer `neighbour` of a plan. The
 * experts of a token that share a node save one touch together, not one each: each draws by a k-th.
 * `stride` is that of the layer; `scratch` is filled.
 */
void pl_pull_to_neighbour(struct pl_site *site, const struct pl_layer *layer, uint32_t stride,
	const struct pl_plan *plan, uint32_t neighbour, struct pl_replicas *scratch);

#endif
