/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole sequences through the embedded engine, and all their results: what `cadrectl eval` writes,
 * and what the golden test compares.
 *
 * One thread. `cl_evaluation_run` blocks until every sequence has ended; arrays belong to the
 * evaluation until the next run or `cl_evaluation_fini`.
 */
#ifndef CADRE_ORCHESTRATION_CLI_EVALUATION_H
#define CADRE_ORCHESTRATION_CLI_EVALUATION_H

#include "embedded/embedded.h"

/* One sequence and its results. n: count; the last three arrays by MoE layer (dense layers are not
 * counted). */
struct cl_sequence {
	int32_t *tokens; /* [n] */
	uint32_t count;
	float *logits;   /* [n][vocab] */
	int32_t *greedy; /* [greedy_tokens]: the greedy continuation, end of sequence ignored */
	uint32_t greedy_count;
	float *router_logits; /* [layers][n][experts]: raw, before any bias, softmax or sigmoid */
	int32_t *experts;     /* [layers][n][topk], ascending */
	float *weights;       /* [layers][n][topk]: the factors of the combine, in the order of `experts` */
};

struct cl_evaluation {
	struct cl_sequence *sequences;
	size_t count, ended;
	uint32_t greedy_tokens, vocab, layers, experts, topk; /* of the model, after a run; layers: MoE layers */
	enum cad_status status;                               /* of the first sequence that failed */
	struct cad_error error;
};

/* Fills a zeroed evaluation from {"sequences": [[token ids], ...], "greedy_tokens": N}. After a
 * failure fini is still the caller's. */
CAD_MUST_USE enum cad_status cl_evaluation_read(
	const char *path, struct cl_evaluation *evaluation, struct cad_error *error);
/* Computes all sequences, in one batch. `options` without on_event and user, which are the
 * evaluation's own. May be called again, with other options. */
CAD_MUST_USE enum cad_status cl_evaluation_run(
	struct cl_evaluation *evaluation, const struct em_options *options, struct cad_error *error);
void cl_evaluation_fini(struct cl_evaluation *evaluation);

#endif
