/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replicas of one layer's experts, in the form that the cover takes, and what nodes cost.
 *
 * Owned by its creator; only the owner changes it.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_OBJECTIVE_REPLICAS_H
#define CADRE_ORCHESTRATION_PLANNER_OBJECTIVE_REPLICAS_H

#include "common/cluster/cover.h"
#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/plan.h"
#include "orchestration/planner/trace/trace.h"

enum { PL_REPLICAS_WORDS = CAD_NODES_MAX / 64 };

struct pl_replicas {
	uint32_t experts, nodes, words;
	uint16_t *lists;             /* [experts][nodes] ascending */
	uint64_t *sets;              /* [experts][words] */
	struct cad_map_replicas *of; /* [experts] into lists and sets */
};

CAD_MUST_USE enum cad_status pl_replicas_init(struct pl_replicas *replicas, uint32_t experts, uint32_t nodes);
void pl_replicas_fini(struct pl_replicas *replicas);
/* No node holds any expert. */
void pl_replicas_clear(struct pl_replicas *replicas);
void pl_replicas_load(struct pl_replicas *replicas, const struct pl_plan *plan, uint32_t layer);
void pl_replicas_store(const struct pl_replicas *replicas, struct pl_plan *plan, uint32_t layer);
bool pl_replicas_hold(const struct pl_replicas *replicas, uint32_t expert, uint32_t node);
/* add: the copy must not be there; remove: it must be. */
void pl_replicas_add(struct pl_replicas *replicas, uint32_t expert, uint32_t node);
void pl_replicas_drop(struct pl_replicas *replicas, uint32_t expert, uint32_t node);

/* Where the router's cover sends a token: ids [k] as in a trace, home [k] the nodes. `load` as in
 * common/cluster/cover.h. */
static inline void pl_replicas_cover(const struct pl_replicas *replicas, const uint16_t *ids, uint32_t k,
	const struct cad_cover_load *load, uint16_t *home)
{
	struct cad_map_replicas of[CAD_TOPK_MAX];
	for (uint32_t j = 0; j < k; j++)
		of[j] = ids[j] == PL_TRACE_NONE ? cad_map_nobody : replicas->of[ids[j]];
	cad_cover_replicas(of, k, replicas->nodes, NULL, load, home);
}
/* The nodes that a token touches, each once, in the order of its slots; returns their number. */
uint32_t pl_distinct_nodes(const uint16_t *home, uint32_t k, uint16_t *nodes);

/* The units of common/cluster/cover.h: a row on a node of average speed is 64. */
enum { PL_UNIT = 64 };
/* [nodes] the cost of a row on each node, and whether they differ at all. */
bool pl_cluster_units(const struct pl_cluster *cluster, uint32_t *unit);

#endif
