/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan: which nodes hold which expert of which layer.
 *
 * Plain data in the heap, freed with pl_plan_free; any thread may read it. As a file it is this
 * JSON:
 *   {"format": "cadre-placement-1", "planner": "cadre", "nodes": 8, "slots_per_node": 36,
 *   "seconds": 1.25, "layers": {"0": {"0": [3], "1": [0, 5]}}, "node_ids": ["e0", "e1", ...]}
 * "node_ids" says which nodes are meant; without it they are numbers.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_OBJECTIVE_PLAN_H
#define CADRE_ORCHESTRATION_PLANNER_OBJECTIVE_PLAN_H

#include "common/cluster/map.h"
#include "common/base/status.h"
#include "orchestration/planner/objective/cluster.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct pl_plan {
	uint32_t layers, experts, nodes;
	uint32_t words; /* 64-bit words of a set of nodes */
	uint64_t *bits; /* [layers][experts][words] */
	/* [layers] the index of each in the model, ascending; 0, 1, ... unless set */
	uint32_t *layer;
};

CAD_MUST_USE enum cad_status pl_plan_create(uint32_t layers, uint32_t experts, uint32_t nodes, struct pl_plan **plan);
void pl_plan_free(struct pl_plan *plan); /* NULL is fine */

static inline uint64_t *pl_plan_set(const struct pl_plan *plan, uint32_t layer, uint32_t expert)
{
	return plan->bits + ((size_t)layer * plan->experts + expert) * plan->words;
}
static inline bool pl_plan_holds(const struct pl_plan *plan, uint32_t layer, uint32_t expert, uint32_t node)
{
	return cad_map_set_has(pl_plan_set(plan, layer, expert), node);
}
static inline void pl_plan_put(struct pl_plan *plan, uint32_t layer, uint32_t expert, uint32_t node)
{
	cad_map_set_add(pl_plan_set(plan, layer, expert), node);
}
static inline void pl_plan_take(struct pl_plan *plan, uint32_t layer, uint32_t expert, uint32_t node)
{
	cad_map_set_remove(pl_plan_set(plan, layer, expert), node);
}
void pl_plan_clear(struct pl_plan *plan);
/* The nodes that hold an expert; of them the first from `from` on, UINT32_MAX: none. */
uint32_t pl_plan_count(const struct pl_plan *plan, uint32_t layer, uint32_t expert);
uint32_t pl_plan_next(const struct pl_plan *plan, uint32_t layer, uint32_t expert, uint32_t from);
/* Copies of a layer on a node; their maximum over layers and nodes; of all layers on a node; all
 * copies of all layers. */
uint32_t pl_plan_used(const struct pl_plan *plan, uint32_t layer, uint32_t node);
uint32_t pl_plan_used_max(const struct pl_plan *plan);
uint32_t pl_plan_copies_on(const struct pl_plan *plan, uint32_t node);
uint64_t pl_plan_copies(const struct pl_plan *plan);

/* Blocks of consecutive experts: a plan without any knowledge of routing. */
CAD_MUST_USE enum cad_status pl_plan_contiguous(
	uint32_t layers, uint32_t experts, uint32_t nodes, struct pl_plan **plan);

/* The same plan for `nodes` other nodes: node n becomes to[n], or is left out (UINT32_MAX). */
CAD_MUST_USE enum cad_status pl_plan_renumber(
	const struct pl_plan *from, const uint32_t *to, uint32_t nodes, struct pl_plan **plan);

/* The same by the ids of nodes: a plan of one cluster for another; what is on nodes that it
 * does not have is left out. */
CAD_MUST_USE enum cad_status pl_plan_translate(const struct pl_plan *plan, const struct pl_cluster *from,
	const struct pl_cluster *to, struct pl_plan **translated);

/* The file. Every expert must have a node, every node must be in range, and all layers must have
 * the same experts. `nodes` may be NULL; it gets the ids, and is zeroed if the file has none. */
CAD_MUST_USE enum cad_status pl_plan_read(
	const char *path, struct pl_plan **plan, struct pl_cluster *nodes, struct cad_error *error);
CAD_MUST_USE enum cad_status pl_plan_parse(const char *name, const char *text, size_t bytes, struct pl_plan **plan,
	struct pl_cluster *nodes, struct cad_error *error);
/* nodes NULL: they have no ids. Returns NULL when out of memory. */
json_t *pl_plan_to_json(const struct pl_plan *plan, const struct pl_cluster *nodes, const char *planner,
	uint32_t slots_per_node, double seconds);

#endif
