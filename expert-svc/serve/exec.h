/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Execution: a grouped batch through the device. Rows from the wire, the grouped ffn, whose outputs
 * are summed on their way out, and the sums packed into the answers.
 *
 * The activations live in device memory, sized at creation for the largest step. One thread, the
 * stepping one.
 */
#ifndef CADRE_EXPERT_SVC_SERVE_EXEC_H
#define CADRE_EXPERT_SVC_SERVE_EXEC_H

#include "expert-svc/serve/group.h"

/* Shapes: R rows_max, P pairs_max, H hidden, F ffn. */
struct ex_exec {
	struct kn_queue *queue;
	size_t hidden, ld;
	size_t x_bytes, pair_bytes, sums_bytes, poison_bytes, scratch_bytes;
	float *x;           /* [R][ld] */
	uint32_t *pair_row; /* [P], the device's copies */
	float *pair_weight;
	int64_t *sums;    /* [R][H] */
	uint32_t *poison; /* [R] */
	void *scratch;    /* of the ffn */
};

CAD_MUST_USE enum cad_status ex_exec_init(
	struct ex_exec *exec, struct kn_queue *queue, size_t rows_max, size_t pairs_max, size_t hidden, size_t ffn);
/* What it takes of the device's memory. */
uint64_t ex_exec_bytes(const struct ex_exec *exec);
void ex_exec_fini(struct ex_exec *exec);

/* The experts over the rows of x by the pairs that are in pair_row and pair_weight: pairs begin[e] ..
 * begin[e + 1] - 1 are of expert e. Leaves sums and poison, after wait. */
void ex_exec_ffn(const struct ex_exec *exec, const struct kn_expert *const *experts, size_t count,
	const uint32_t *begin, size_t rows, float quantum);
/* Computes the batch and writes each segment's sums into its job's answer; moves the jobs' progress
 * on. Not OK: the device failed, no answer is valid. */
CAD_MUST_USE enum cad_status ex_exec_run(struct ex_exec *exec, const struct ex_batch *batch, float quantum);

#endif
