/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is allowed and what it costs in one layer: room, pins, failure domains, fair shares, links,
 * racks, and what favours a place before the search.
 *
 * Made from the cluster, and immutable while a search uses it (except `pull`, which its owner fills
 * between searches).
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_SOLVE_SITE_H
#define CADRE_ORCHESTRATION_PLANNER_SOLVE_SITE_H

#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/objective.h"
#include "orchestration/planner/objective/replicas.h"

struct pl_site {
	const struct pl_cluster *cluster;
	const struct pl_weights *weights;
	uint32_t experts, nodes, words;
	uint32_t copies_max; /* copies of all experts of the layer, the first ones counted */
	uint32_t *slots;     /* [nodes] */
	uint32_t *unit;      /* [nodes] (replicas.h) */
	bool units;
	double *fair;                 /* [nodes] share of the load that is fair: by speed */
	double chance;                /* what chance adds to the busiest node, over its fair share */
	float *touch;                 /* [nodes] what touching a node costs: by link, 1 on average */
	bool plain;                   /* all touches cost 1, and there is one rack */
	uint64_t *pinned, *forbidden; /* [experts][words] */
	/* [experts][nodes] what a copy is worth beyond the tokens, in the unit of the objective;
	 * NULL: nothing */
	float *pull;
};

/* One of `layers` layers, and how many copies of its experts there may be, first ones counted. */
struct pl_site_layer {
	uint32_t layers, layer, experts, copies;
	uint32_t in_model; /* the layer's index there, which rules go by */
};
/* CAD_ERR_INVALID and a sentence when rules contradict each other. */
CAD_MUST_USE enum cad_status pl_site_init(struct pl_site *site, const struct pl_cluster *cluster,
	const struct pl_weights *weights, struct pl_site_layer of, struct cad_error *error);
void pl_site_fini(struct pl_site *site);

static inline bool pl_site_pinned(const struct pl_site *site, uint32_t expert, uint32_t node)
{
	return cad_map_set_has(site->pinned + (size_t)expert * site->words, node);
}
static inline bool pl_site_forbidden(const struct pl_site *site, uint32_t expert, uint32_t node)
{
	return site->slots[node] == 0 || cad_map_set_has(site->forbidden + (size_t)expert * site->words, node);
}
/* Whether a copy of the expert may be on the node, when the one on `except` (or PL_CLUSTER_ANY)
 * goes away: rules and domains, not room. */
bool pl_site_allows(const struct pl_site *site, const struct pl_replicas *replicas, uint32_t expert, uint32_t node,
	uint32_t except);

/*
 * Turns a wish, a node for each expert (PL_CLUSTER_ANY: none), into replicas that obey room and
 * rules: pins are added, and an expert without a place is put where there is room, if necessary by
 * moving others. CAD_ERR_EXHAUSTED and a sentence when that is impossible.
 */
CAD_MUST_USE enum cad_status pl_site_settle(
	const struct pl_site *site, const uint32_t *wish, struct pl_replicas *replicas, struct cad_error *error);

#endif
