/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why an expert is where it is: which experts it is chosen with, what its copies do, and what would
 * change if it moved. One layer of a plan; any thread; allocates and frees.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_PREDICT_EXPLAIN_H
#define CADRE_ORCHESTRATION_PLANNER_PREDICT_EXPLAIN_H

#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/layer.h"
#include "orchestration/planner/objective/objective.h"
#include "orchestration/planner/objective/plan.h"

enum { PL_PARTNERS_MAX = 8 };

struct pl_partner {
	uint32_t expert;
	double together; /* of the expert's tokens, the part that also chooses this one */
	double lift;     /* how many times more often than if choices were independent */
	bool near;       /* they share a node */
};

/* One node: what the copy there does, or what a copy there would change. */
struct pl_option {
	bool holds, allowed; /* allowed: rules and domains would let a copy be here */
	double share;        /* holds: of the expert's rows, those that are served here */
	double alone;        /* holds: of those, the part whose token touches the node for this expert alone */
	/* Otherwise, changes of the layer's figures: */
	/* when the expert moves here from where most of its rows are: nodes per token, busiest node
	 * over the mean */
	double move_nodes, move_load;
	/* in exchange for this expert, which goes there; PL_CLUSTER_ANY: there is room, or no
	 * expert can */
	uint32_t swapped;
	bool movable;
	double copy_nodes, copy_load; /* when a copy is added here, room or not */
};

struct pl_explanation {
	double uses;        /* of all tokens, the part that chooses the expert */
	double rank;        /* uses over the mean of all experts */
	double nodes, load; /* of the layer as it is */
	uint32_t home;      /* the node that serves most of its rows */
	struct pl_partner partners[PL_PARTNERS_MAX];
	uint32_t partners_count;
	struct pl_option *options; /* [nodes] */
};

CAD_MUST_USE enum cad_status pl_explain(const struct pl_sample *sample, const struct pl_plan *plan,
	const struct pl_cluster *cluster, const struct pl_weights *weights, uint32_t layer, uint32_t expert,
	struct pl_explanation *explanation, struct cad_error *error);
void pl_explanation_fini(struct pl_explanation *explanation);

#endif
