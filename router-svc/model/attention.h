/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of one layer. On the engine's thread; queues work of the device and waits for none. */
#ifndef CADRE_ROUTER_SVC_MODEL_ATTENTION_H
#define CADRE_ROUTER_SVC_MODEL_ATTENTION_H

#include "router-svc/batch/kv_cache.h"
#include "router-svc/model/weights.h"

/* What attention makes of a row on its way; rt_scratch_row says how long each is. */
enum rt_scratch {
	RT_SCRATCH_Q,   /* queries */
	RT_SCRATCH_K,   /* keys, as the cache gets them */
	RT_SCRATCH_V,   /* values; of latent attention none */
	RT_SCRATCH_OUT, /* what the output projection gets */
	/* of latent attention alone */
	RT_SCRATCH_Q_DOWN,   /* queries, compressed */
	RT_SCRATCH_ABSORBED, /* queries that latent keys are multiplied with */
	RT_SCRATCH_LATENT,   /* what was attended, before it becomes values */
	RT_SCRATCH_COUNT
};
/* In elements; 0: this attention has none. */
size_t rt_scratch_row(const struct cad_attention_spec *spec, enum rt_scratch what);

/* The rows of a micro-batch in one layer. Device memory, rows of kn_ld(row) floats. */
struct rt_attention {
	struct kn_queue *queue;
	const struct cad_model_spec *spec;
	const struct rt_layer_weights *weights;
	const float *ones; /* rt_weights.ones */
	const struct rt_kv_cache *cache;
	uint32_t layer, rows;
	float *x;                  /* [rows][H]: the residual stream, in and out */
	float *normed, *projected; /* [rows][H]: scratch; normed is x where no norm is before attention */
	float *scratch[RT_SCRATCH_COUNT];
	const float *rope;           /* [rows][rope size], of the layer's rope */
	const int32_t *positions;    /* [rows] */
	const float *position_scale; /* [rows], of queries; NULL: none */
	const uint32_t *slots;       /* [rows]: of the KV cache */
	const uint32_t *begin, *end; /* [rows]: the keys that the row sees */
};

/* Norm, q, k, v, rotation, KV cache, attention, output projection, residual. */
void rt_attend(const struct rt_attention *a);

/* ---- rows of the residual stream, for the ffn too ---- */

/* out = the norm of x, whole rows [rows][H]; out may be x. */
void rt_norm_rows(struct kn_queue *queue, const struct cad_model_spec *spec, uint32_t rows, const float *weight,
	const float *x, float *out);
/* x += what attention, ffn or experts gave: its norm, where there is one behind (weight not NULL). */
void rt_add_branch(struct kn_queue *queue, const struct cad_model_spec *spec, uint32_t rows, const float *weight,
	float *branch, float *x);

/* ---- its parts, for kinds of attention in files of their own ---- */

/* y = x W^T + bias, clamped to [-clip, clip] where clip > 0. */
void rt_project(const struct rt_attention *a, const struct kn_matrix *w, const float *bias, float clip, const float *x,
	float *y);
/* The rotated part of `heads` heads that are `head_size` elements apart, in rows that are `ld` apart; x is where
 * the first one's begins. In a layer that does not rotate, nothing. */
void rt_rotate(const struct rt_attention *a, float *x, size_t ld, uint32_t heads, uint32_t head_size);
/* k and v go into the cache, and the rows look at what is there with their queries q. */
void rt_look(const struct rt_attention *a, const float *q, const float *k, const float *v, float *out);

/* Queries of n elements a row, by the position's factor where the layer has one. */
void rt_scale_by_position(const struct rt_attention *a, float *q, size_t n);

#endif
