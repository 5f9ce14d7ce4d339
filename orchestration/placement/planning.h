/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Planning for a live cluster: from what is where, and what tokens choose, to another placement and
 * what it would do. A plan that is given is only looked at.
 *
 * Works on what it is given and knows nothing of the service: any thread. Blocks for seconds, and
 * allocates. With enough tokens, a part of them is held out: the plan is made without them, and
 * what it is said to do is measured on them, with the router's own rule.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_PLANNING_H
#define CADRE_ORCHESTRATION_PLACEMENT_PLANNING_H

#include "orchestration/placement/control.h"
#include "orchestration/placement/effect.h"
#include "orchestration/planner/objective/objective.h"
#include "orchestration/planner/predict/moves.h"
#include "orchestration/planner/trace/trace.h"

#include <stdatomic.h>

/* With fewer tokens nothing is held out. */
enum { PL_PLANNING_HOLD_FROM = 2000 };

/* The pointers belong to the order, and go with pl_planning_order_fini. */
struct pl_planning_order {
	struct pl_shape shape; /* of the model; borrowed layers */
	uint32_t topk;
	struct pl_situation situation;
	/* the placements before the last rebalances, as a file has them (plan.h), and NULL after
	 * the last of them; NULL: not known */
	char **befores;
	struct pl_plan *recent; /* filled in by pl_planning_take_recent */
	/* what tokens choose: as a trace, or as one in Cadre's own format; both NULL: not known */
	struct pl_trace *trace;
	void *encoded;
	size_t encoded_bytes;
	/* a plan to look at instead of searching for one, and the ids of its nodes; NULL: search */
	struct pl_plan *given;
	struct pl_cluster given_nodes;
	enum pl_workload workload;
	double copies; /* extra ones, as a share of the experts; below 0: as many as there are now */
	double move;   /* the price of moves, as the weight of that name in the objective; 0: the planner's own */
	uint64_t time_limit_ns;
	uint32_t rounds_max; /* 0: as many as there is time for */
	uint32_t threads;
	double row_bytes;   /* that a row costs on each node that it goes to, both ways */
	double token_bytes; /* that it costs besides */
};
void pl_planning_order_fini(struct pl_planning_order *order); /* takes a zeroed one too */

struct pl_planning_result {
	enum cad_status status; /* of the whole; the rest is there with CAD_OK */
	struct cad_error error;
	struct pl_cluster nodes; /* that the plans are for */
	struct pl_plan *before, *plan;
	struct pl_effect predicted; /* with a trace; else not known */
	/* What the plan saves of the cost, as a share, and the standard error of that;
	 * INFINITY: not known. The cost is nodes per token x (1 + w x (load - what is free)),
	 * as in the planner's objective. */
	double gain, gain_error;
	struct pl_moves moves;                    /* to get there; seconds are not known */
	double seconds;                           /* of the search */
	uint64_t tokens_planned, tokens_measured; /* measured 0: on those that were planned on */
};
/* Takes what the order points to. */
void pl_planning_run(struct pl_planning_order *order, const atomic_bool *cancelled, struct pl_planning_result *result);
void pl_planning_result_fini(struct pl_planning_result *result); /* takes a zeroed one too */

/* Where copies were in those placements, and are not in the situation: a plan for its nodes; none
 * if they are not known. A part of pl_planning_run. */
CAD_MUST_USE enum cad_status pl_planning_take_recent(struct pl_planning_order *order, struct cad_error *error);

/* Whether there is room for that many extra copies: CAD_ERR_EXHAUSTED and a sentence that
 * says how much is missing. */
CAD_MUST_USE enum cad_status pl_planning_room(
	const struct pl_situation *situation, double copies, struct cad_error *error);

#endif
