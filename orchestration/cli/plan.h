/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `cadrectl plan`: what its parts share. plan.c calls the planner, plan_print.c prints the result,
 * plan_explain.c says why. One thread; everything here blocks.
 */
#ifndef CADRE_ORCHESTRATION_CLI_PLAN_H
#define CADRE_ORCHESTRATION_CLI_PLAN_H

#include "orchestration/cli/command.h"
#include "orchestration/planner/predict/bound.h"
#include "orchestration/planner/predict/measure.h"
#include "orchestration/planner/predict/moves.h"
#include "orchestration/planner/solve/solve.h"

struct cl_plan_options {
	const char *trace, *measure, *cluster, *present, *copies, *what_if;
	uint32_t nodes, slots, rounds, threads, tokens_max, experts;
	enum pl_workload workload;
	enum pl_router router;
	uint64_t time_limit_ns, seed, expert_bytes, rate;
	double holdout, load_max, weight_nodes, weight_racks, weight_load, weight_active, weight_move, weight_affinity;
	enum cl_format format;
};

/* The cluster to plan for, and the trace to plan on. */
struct cl_plan_case {
	struct pl_cluster cluster;
	struct pl_trace *trace;  /* to plan on */
	struct pl_trace *held;   /* to measure on; NULL: nothing was held out */
	struct pl_plan *present; /* NULL: none */
	struct pl_weights weights;
	uint32_t copies; /* of a layer's experts in all */
};

/* The result. */
struct cl_plan_result {
	struct pl_solution solution;
	struct pl_plan *before;                     /* the present plan, or blocks of consecutive experts */
	struct pl_metrics old_metrics, new_metrics; /* on what was held out, or else on what was planned on */
	struct pl_metrics planned_on;    /* the new plan on what it was planned on, where something was held out */
	struct pl_busiest_load expected; /* where something was held out */
	double bound;                    /* lower bound of nodes per token, for any plan, on what was planned on */
	struct pl_moves moves;           /* from the present plan */
};

CAD_MUST_USE enum cad_status cl_plan_prepare(
	const struct cl_plan_options *options, struct cl_plan_case *c, struct cad_error *error);
void cl_plan_case_fini(struct cl_plan_case *c);
CAD_MUST_USE enum cad_status cl_plan_run(const struct cl_plan_options *options, const struct cl_plan_case *c,
	struct cl_plan_result *result, struct cad_error *error);
void cl_plan_result_fini(struct cl_plan_result *result);

/* what_if: NULL, or the same for a case that differs, called `what`. */
void cl_plan_print_table(const struct cl_plan_options *options, const struct cl_plan_case *c,
	const struct cl_plan_result *result, const char *what, const struct cl_plan_case *other,
	const struct cl_plan_result *what_if);
CAD_MUST_USE enum cad_status cl_plan_print_json(const struct cl_plan_options *options, const struct cl_plan_case *c,
	const struct cl_plan_result *result, const char *what, const struct cl_plan_case *other,
	const struct cl_plan_result *what_if, struct cad_error *error);

/* What makes a plan worth little, on stderr: few tokens, more nodes than experts. */
void cl_plan_warn(const struct cl_plan_options *options, const struct cl_plan_case *c);

/* The option table, which `plan explain` shares. */
extern const struct cad_option cl_plan_table[];
extern const size_t cl_plan_table_count;
extern const struct cad_option_alias cl_plan_alias; /* the only one */
CAD_MUST_USE enum cad_status cl_plan_check(const void *options, struct cad_error *error);

#endif
