/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of one layer. On the engine's thread; queues work of the device and waits for none. */
#ifndef CADRE_ROUTER_SVC_MODEL_ATTENTION_H
#define CADRE_ROUTER_SVC_MODEL_ATTENTION_H

#include "router-svc/batch/kv_cache.h"
#include "router-svc/model/weights.h"

/* The rows of a micro-batch in one layer. Device memory, rows of kn_ld(row) floats. */
struct rt_attention {
	struct kn_queue *queue;
	const struct cad_model_spec *spec;
	const struct rt_layer_weights *weights;
	const struct rt_kv_cache *cache;
	uint32_t layer, rows;
	float *x;                    /* [rows][H]: the residual stream, in and out */
	float *normed, *projected;   /* [rows][H]: scratch */
	float *q, *k, *v, *attended; /* [rows][heads * D], [rows][kv_heads * D], ... * Dv]: scratch */
	const float *rope;           /* [rows][rope size], of the layer's rope */
	const int32_t *positions;    /* [rows] */
	const uint32_t *slots;       /* [rows]: of the KV cache */
	const uint32_t *begin, *end; /* [rows]: the keys that the row sees */
};

/* Norm, q, k, v, rotation, KV cache, attention, output projection, residual. */
void rt_attend(const struct rt_attention *a);

#endif
