/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reservoir: a sample of whole tokens of a running cluster, in memory that never grows, in
 * which old tokens give way to new ones. Plans are made from it while the cluster serves.
 *
 * A token that arrived at time t and was chosen with the chance p stands for 1 / p tokens, and has
 * weight 2^(t / half-life) / p. The reservoir keeps the tokens with the greatest keys u^(1/weight),
 * u uniform: a weighted sample without replacement of all tokens so far (Efraimidis and Spirakis,
 * "Weighted random sampling with a reservoir", 2006). The keys are kept as their double logarithm,
 * ln 2 x t / half-life - ln p - ln(-ln u), which orders them alike and never overflows.
 * Deterministic for its seed and what is added.
 *
 * One owner thread. `create` allocates everything: layers x k x 2 + 36 bytes per token (10,000
 * tokens of 58 layers and k = 8: 9.6 MB); `add` allocates nothing and takes constant time for a
 * token that is not kept, else the copy and the logarithm of the size.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_RESERVOIR_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_RESERVOIR_H

#include "orchestration/planner/trace/trace.h"

/* fewer tokens than the first make plans that do not hold */
enum { PL_RESERVOIR_TOKENS_MIN = 10000, PL_RESERVOIR_TOKENS_MAX = 10000000 };

struct pl_reservoir;

struct pl_reservoir_options {
	uint32_t layers, experts, k;
	const uint32_t *layer; /* [layers]: index in the model; NULL: 0 to n-1. Copied */
	uint32_t tokens;       /* kept at most */
	double half_life_s;    /* 0: tokens do not age */
	uint64_t seed;
};

CAD_MUST_USE enum cad_status pl_reservoir_create(
	const struct pl_reservoir_options *options, struct pl_reservoir **reservoir, struct cad_error *error);
void pl_reservoir_destroy(struct pl_reservoir *reservoir);

/*
 * A token that was routed at `time_s` (any clock, ascending) and chosen with the chance `share`,
 * above 0 and at most 1: ids [layers][k], PL_TRACE_NONE where nothing was selected. `request` is
 * any number that differs from other requests'; the tokens of a request arrive in order.
 * CAD_ERR_INVALID: an id that is not an expert, or occurs twice in a cell; the token is left out.
 */
CAD_MUST_USE enum cad_status pl_reservoir_add(
	struct pl_reservoir *reservoir, double time_s, double share, uint64_t request, const uint16_t *ids);

uint64_t pl_reservoir_seen(const struct pl_reservoir *reservoir); /* tokens that were added, kept or not */
uint32_t pl_reservoir_kept(const struct pl_reservoir *reservoir);
/* When the oldest and the newest token arrived of those that are kept; false: none is. */
bool pl_reservoir_age(const struct pl_reservoir *reservoir, double *oldest_s, double *newest_s);

/* What is kept now, requests in the order in which their first kept token arrived.
 * CAD_ERR_NOT_FOUND: nothing. The reservoir is unchanged. */
CAD_MUST_USE enum cad_status pl_reservoir_trace(
	const struct pl_reservoir *reservoir, struct pl_trace **trace, struct cad_error *error);

#endif
