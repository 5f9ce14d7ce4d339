/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synthetic traces, and a placement that is known to be good for them, to test planners on.
 *
 * Every token has a topic, and in every layer the experts are split at random into as many
 * communities as there are topics. A token draws k experts without replacement: with probability
 * `strength` from the community of its topic, else, again with that probability, from the neighbour
 * that makes a pair with it, else from the next pair, and so on through a binary tree, at last from
 * anywhere. Inside of what it draws from, an expert's weight is its popularity, (rank + 1)^-zipf.
 * With groups, experts are drawn as DeepSeek's gate does it: the groups of consecutive ids whose
 * two best scores add up highest are kept, and k taken from those.
 * A request is of one task, which prefers some topics; over all tasks every topic is equally
 * frequent. A token keeps the topic of the token before it with probability `locality`. With drift,
 * the mixture of tasks and the popularity of experts change along the trace, by e^(drift x
 * gaussian) in all.
 *
 * Deterministic for its settings (and the C library's log and exp). Plain data, the caller's;
 * allocates, does not block.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_SYNTHETIC_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_SYNTHETIC_H

#include "orchestration/planner/trace/trace.h"

struct pl_synthetic {
	uint32_t layers, experts, k;
	uint64_t tokens, seed;
	uint32_t communities; /* a power of two that divides experts; 1: none */
	double strength;      /* 0 to 1 */
	double zipf;          /* 0: all experts alike */
	/* ranks are over the whole layer, so that communities differ in load; false: within each
	 * community */
	bool zipf_of_layer;
	uint32_t groups, groups_kept; /* 0: no groups */
	uint32_t tasks;               /* 1: every token may have every topic */
	double task_skew;             /* 0: tasks do not differ */
	double locality, drift;
	uint32_t request_tokens; /* on average */
	bool scores;
};

struct pl_synthetic_trace {
	struct pl_trace *trace;
	uint32_t *community; /* [layers][experts] */
};

/* CAD_ERR_RANGE, CAD_ERR_INVALID: the sentence names the setting. */
CAD_MUST_USE enum cad_status pl_synthetic_create(
	const struct pl_synthetic *settings, struct pl_synthetic_trace *made, struct cad_error *error);
void pl_synthetic_fini(struct pl_synthetic_trace *made);

/* What a placement without copies costs on a trace. */
struct pl_known_cost {
	double nodes_per_token;       /* mean over tokens and layers */
	double load_mean, load_worst; /* busiest node over the mean: mean over layers, and of the worst layer */
};

/*
 * The better (fewer nodes per token) of the two placements that the generator knows: neighbouring
 * communities together, and, with groups, neighbouring groups together. node [layers][experts], the
 * caller's. `planted`: it was the first. CAD_ERR_INVALID: `nodes` divides neither communities nor
 * groups. The first is the best when popularity is within communities and nothing drifts (by
 * symmetry; a recorded sample may by chance have a slightly better one); else it is an upper bound.
 */
CAD_MUST_USE enum cad_status pl_synthetic_place(const struct pl_synthetic *settings,
	const struct pl_synthetic_trace *made, uint32_t nodes, uint16_t *node, bool *planted,
	struct pl_known_cost *cost, struct cad_error *error);

#endif
