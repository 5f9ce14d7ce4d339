/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens in the order in which a serving cluster would meet them, and one layer of them, ready to
 * be walked.
 *
 * A sample belongs to its creator and is immutable: any number of layers may be made from it, in
 * any thread. It borrows the trace.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_OBJECTIVE_LAYER_H
#define CADRE_ORCHESTRATION_PLANNER_OBJECTIVE_LAYER_H

#include "common/cluster/map.h"
#include "orchestration/planner/trace/trace.h"

enum { PL_LANES = 64, PL_BATCH = 64 };

struct pl_sample {
	const struct pl_trace *trace;
	uint32_t tokens;
	/* [tokens] in the trace, in decode order: requests go to 64 lanes; a lane runs its requests
	 * one after another, one token per step */
	uint64_t *token;
};

/* At most tokens_max of the trace's tokens, evenly from all of it; 0: all. */
CAD_MUST_USE enum cad_status pl_sample_create(
	const struct pl_trace *trace, uint32_t tokens_max, struct pl_sample **sample);
void pl_sample_free(struct pl_sample *sample);

struct pl_layer {
	const struct pl_sample *sample;
	uint32_t experts, k, tokens;
	uint16_t *ids;   /* [tokens][k] in decode order */
	uint32_t *start; /* [experts + 1] into uses */
	uint32_t *uses;  /* the tokens of each expert, ascending */
	uint64_t pairs;  /* (token, expert) pairs: the whole load */
};

/* stride: take every stride-th token of the sample; 1: all. Odd numbers keep the lanes mixed. */
CAD_MUST_USE enum cad_status pl_layer_init(
	struct pl_layer *layer, const struct pl_sample *sample, uint32_t index, uint32_t stride);
void pl_layer_fini(struct pl_layer *layer);

/* together [experts][experts], zero at first: tokens that choose both. Symmetric; the diagonal
 * stays 0. */
void pl_layer_count_pairs(const struct pl_layer *layer, float *together);

static inline uint32_t pl_layer_uses(const struct pl_layer *layer, uint32_t expert)
{
	return layer->start[expert + 1] - layer->start[expert];
}

#endif
