/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The quantum of each MoE layer: the power of two that every weighted expert output is rounded to
 * before exact integer summation.
 *
 * A pure function of checkpoint and settings: 64 Philox rows with the statistics of a normalised
 * row (ffn norm weight times unit-rms noise) through a fixed sample of at most 8 of the layer's
 * experts (equally spaced ids). Where experts read the residual stream as it is, without a norm
 * before them, its size in a channel takes the weight's place: squares of a sample of embeddings and
 * of the weights of all norms that something was added behind until then, summed. The median over (row, expert) of the output's rms, times the
 * typical gate weight 1 / K (or scale / K when renormalised), rounded down to a power of two, times
 * 2^-10 (2^-21 with wire f32).
 * The bits do not depend on form or thread count, because no operator's do.
 */
#ifndef CADRE_KERNELS_QUANTUM_H
#define CADRE_KERNELS_QUANTUM_H

#include "common/model/model.h"
#include "kernels/kernels.h"

/* quanta[layers_count]; dense layers get 0. Takes a moment on a large checkpoint (reads 8 experts
 * per layer). */
CAD_MUST_USE enum cad_status kn_quantum_table(struct kn_queue *queue, const struct cad_model *model,
	enum cad_weights weights, enum cadre_row_type wire, float *quanta, struct cad_error *error);

#endif
