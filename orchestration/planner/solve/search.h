/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One layer's placement while it is being improved: which node holds what, where every token goes,
 * what that costs, and changes that can be tried and undone.
 *
 * A change re-covers the tokens that use the changed experts, and only those. One thread at a time;
 * allocated once, never while searching.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_SOLVE_SEARCH_H
#define CADRE_ORCHESTRATION_PLANNER_SOLVE_SEARCH_H

#include "orchestration/planner/objective/layer.h"
#include "orchestration/planner/solve/site.h"

enum { PL_CHANGES_MAX = 4, PL_NOBODY = 0xffffffff };

struct pl_change {
	uint32_t expert, node;
	bool add; /* else the copy is dropped */
};

struct pl_search {
	const struct pl_layer *layer;
	const struct pl_site *site;
	struct pl_replicas replicas;
	uint32_t copies; /* of all experts */
	uint32_t *used;  /* [nodes] copies */
	uint16_t *home;  /* [tokens][k] */
	float *cost;     /* [tokens] what the nodes that it touches cost */
	uint32_t *busy;  /* [nodes] load in units: what the cover goes by */
	uint32_t *own;   /* [nodes] rows of experts that no other node holds; own_total: of all nodes */
	uint64_t own_total;
	double *ratio, *strain; /* [nodes] load over fair share; and with a margin for chance */
	double tokens_cost;     /* sum of cost */
	/* fourth root of the sum of (excess)^4: nearly the busiest node's, but others count a
	 * little; sum of pulls of the copies */
	double load_cost, pull;
	double load_scale; /* cost in the objective of one unit of load_cost */
	double value;      /* the objective */
	/* what undo needs */
	struct pl_change changes[PL_CHANGES_MAX];
	uint32_t changes_count, touched_count, differing;
	uint32_t *touched; /* [tokens] that were covered again */
	uint16_t *old_home;
	float *old_cost;
	uint32_t *old_busy;
	double old_tokens_cost, old_value, old_pull;
};

CAD_MUST_USE enum cad_status pl_search_init(
	struct pl_search *search, const struct pl_layer *layer, const struct pl_site *site);
void pl_search_fini(struct pl_search *search);

/* After `replicas` was filled: covers every token, in decode order. */
void pl_search_reset(struct pl_search *search);

/* Makes the changes and returns how much the objective grew (below 0: it is better). They last
 * unless undo follows as the next call. */
double pl_search_try(struct pl_search *search, const struct pl_change *changes, uint32_t count);
void pl_search_undo(struct pl_search *search);

/* What a node of this strain costs. */
static inline double pl_excess(double strain, double limit)
{
	double over = strain - limit;
	return over > 0 ? over + 2 * over * over : 0;
}

#endif
