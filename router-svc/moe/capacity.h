/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capacity policies: what happens to a row when its expert is full. With `none`, the default, the
 * same request gives the same bits; `drop` and `spill` exist to reproduce and study what
 * fixed-capacity systems do: then a request's answer depends on its neighbours.
 *
 * capacity = max(1, ceil(factor * T * K / E)) rows per expert (GShard, Switch Transformer), T =
 * rows of the whole step. First come in batch order: rows ascending, and within a row its slots by
 * descending score, so that a split into micro-batches changes nothing. Weights that stay are not
 * renormalised. Whether a node holds the expert does not matter here: absent.h comes after this.
 */
#ifndef CADRE_ROUTER_SVC_MOE_CAPACITY_H
#define CADRE_ROUTER_SVC_MOE_CAPACITY_H

#include "common/model/spec.h"
#include "kernels/kernels.h"
#include "router-svc/moe/policies.h"

struct rt_capacity {
	enum rt_capacity_policy policy;
	float factor;
	uint32_t limit; /* of this step */
	uint32_t *used; /* [E], of this layer in this step */
};

uint32_t rt_capacity_limit(float factor, uint32_t rows, uint32_t topk, uint32_t experts);

/*
 * One row: a slot that finds its expert full is dropped (ids[k] = -1, weights[k] = 0), or spilled
 * to the row's best expert that has room and is not chosen yet, with the weight scaled by the ratio
 * of the two scores; a slot that cannot spill is dropped. scores: [E], by which the choice was
 * made; ratio = score_new / score_old. Adds to *dropped and *spilled. `logits` and `bias` (NULL:
 * none) are the row's.
 */
void rt_capacity_row(struct rt_capacity *capacity, const struct cad_gate_spec *gate, const float *logits,
	const float *bias, int32_t *ids, float *weights, struct rt_expert_counts *counts, uint32_t *dropped,
	uint32_t *spilled);

#endif
