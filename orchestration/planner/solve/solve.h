/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The planner: from recorded routing and a cluster to a plan.
 *
 * Work proceeds in rounds; each improves every layer a little, independently of the others. What a
 * round does depends only on the seed, its number and the layer, so the seed and the number of
 * rounds repeat a plan, whatever the number of threads and the speed of the machine. The best so
 * far is kept: more rounds are never worse. pl_solve blocks until the time is up, the rounds are
 * done, or `progress` says stop. It starts threads of its own and joins them; it allocates and
 * frees what it needs.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_SOLVE_SOLVE_H
#define CADRE_ORCHESTRATION_PLANNER_SOLVE_SOLVE_H

#include "common/base/clock.h"
#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/objective.h"
#include "orchestration/planner/objective/plan.h"
#include "orchestration/planner/trace/trace.h"

#include <stdatomic.h>
#include <stdbool.h>

enum { PL_RETURN_MOVES = 10 };

struct pl_progress {
	uint32_t rounds; /* done */
	double seconds;
	double value; /* the objective, mean over layers */
};

struct pl_solve_options {
	const struct pl_trace *trace;
	const struct pl_cluster *cluster;
	struct pl_weights weights;
	/* at most this many copies of a layer's experts, first copies included; below the number of
	 * experts: as many as there are experts */
	uint32_t copies;
	/* the present plan, for the same cluster: a start, and what moves are counted from; NULL:
	 * none */
	const struct pl_plan *present;
	/* where copies were not long ago, for the same cluster: to go back there costs as much as
	 * PL_RETURN_MOVES further moves; NULL: not known */
	const struct pl_plan *recent;
	uint64_t seed;
	uint32_t rounds_max; /* at least 1 */
	/* an unfinished round is discarded, except the first; UINT64_MAX: no limit */
	uint64_t time_limit_ns;
	const struct cad_clock *clock;
	uint32_t threads;    /* 0: one per core */
	uint32_t tokens_max; /* of the trace to use, evenly chosen; 0: all */
	/* after each round, on the calling thread; false: stop. May be NULL */
	bool (*progress)(void *context, const struct pl_progress *progress);
	void *context;
	/* set by any thread, also during the first round: CAD_ERR_CANCELLED before
	 * the next layer. May be NULL */
	const atomic_bool *cancelled;
};

struct pl_solution {
	struct pl_plan *plan;
	uint32_t rounds; /* that repeat it, with the same seed */
	double seconds, value;
	/* how far above `value` the other starts ended, where they did, over value: an estimate of
	 * how far away the best plan may be */
	double gap;
	/* [layers] which start the layer's placement comes from: "contiguous", "spectral", ... */
	const char **start;
};

CAD_MUST_USE enum cad_status pl_solve(
	const struct pl_solve_options *options, struct pl_solution *solution, struct cad_error *error);
void pl_solution_fini(struct pl_solution *solution); /* takes a zeroed one too */

#endif
