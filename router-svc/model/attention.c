/* SPDX-License-Identifier: Apache-2.0 */
/* Grouped-query attention of one layer. Source: transformers
 * modeling_{llama,mixtral,olmoe,qwen3_moe}.py; their differences are fields of the spec. */
#include "router-svc/step.h"

#include <math.h>

static void project(struct rt_step *step, const struct kn_matrix *w, const float *bias, float clip, const float *x,
	size_t ldx, uint32_t rows, float *y, size_t ldy)
{
	step->queue->ops->linear(step->queue,
		&(struct kn_linear){
			.x = x,
			.ldx = ldx,
			.rows = rows,
			.w = w,
			.bias = bias,
			.clip = clip,
			.y = y,
			.ldy = ldy,
		});
}

/* Norm (per head, or over the projection) and then the clamp. */
static void norm_heads(struct rt_step *step, const float *weight, uint32_t heads, float *x, size_t ld, uint32_t rows)
{
	const struct cad_attention_spec *a = &step->spec->attention;
	bool per_head = a->qk_norm == CAD_QK_NORM_HEAD;
	step->queue->ops->rmsnorm(step->queue,
		&(struct kn_rmsnorm){
			.x = x,
			.ldx = ld,
			.rows = rows,
			.parts = per_head ? heads : 1,
			.n = per_head ? a->head_size : (size_t)heads * a->head_size,
			.weight = weight,
			.epsilon = step->spec->norm_epsilon,
			.clip = a->clip_qkv,
			.out = x,
			.ldo = ld,
		});
}

static void rotate(struct rt_step *step, float *x, size_t ld, uint32_t heads, uint32_t first, uint32_t rows)
{
	const struct cad_rope_spec *rope = &step->spec->rope;
	step->queue->ops->rope(step->queue,
		&(struct kn_rope){
			.x = x,
			.ldx = ld,
			.rows = rows,
			.heads = heads,
			.head_size = step->spec->attention.head_size,
			.size = rope->size,
			.interleaved = rope->interleaved,
			.table = step->buffers.rope + (size_t)first * rope->size,
		});
}

void rt_attention(struct rt_step *step, const struct rt_work *work)
{
	uint32_t layer = work->layer, first = work->first, rows = work->rows;
	const struct cad_model_spec *spec = step->spec;
	const struct cad_attention_spec *a = &spec->attention;
	const struct rt_layer_weights *w = &step->weights.layers[layer];
	const struct kn_ops *ops = step->queue->ops;
	struct rt_step_buffers *b = &step->buffers;
	size_t ldx = kn_ld(spec->hidden), ldq = kn_ld((size_t)a->heads * a->head_size),
	       ldk = kn_ld((size_t)a->kv_heads * a->head_size);
	size_t ldv = kn_ld((size_t)a->kv_heads * a->value_size), lda = kn_ld((size_t)a->heads * a->value_size);
	float *x = b->x + first * ldx, *normed = b->normed + first * ldx, *q = b->q + first * ldq,
	      *k = b->k + first * ldk, *v = b->v + first * ldv;
	float *attended = b->attended + first * lda, *out = b->shared + first * ldx;
	const struct rt_step_inputs *in = &step->inputs;
	const struct kn_page_tables tables = {
		.pages = step->cache->tables,
		.ld = step->cache->pages_per_sequence_max,
		.slot = in->slots + first,
	};

	ops->rmsnorm(step->queue,
		&(struct kn_rmsnorm){
			.x = x,
			.ldx = ldx,
			.rows = rows,
			.parts = 1,
			.n = spec->hidden,
			.weight = w->attention_norm,
			.epsilon = spec->norm_epsilon,
			.out = normed,
			.ldo = ldx,
		});

	/* with a norm, q and k are clamped after it */
	float clip = a->qk_norm == CAD_QK_NORM_NONE ? a->clip_qkv : 0.0f;
	project(step, &w->q, w->q_bias, clip, normed, ldx, rows, q, ldq);
	project(step, &w->k, w->k_bias, clip, normed, ldx, rows, k, ldk);
	project(step, &w->v, w->v_bias, a->clip_qkv, normed, ldx, rows, v, ldv);
	if (a->qk_norm != CAD_QK_NORM_NONE) {
		norm_heads(step, w->q_norm, a->heads, q, ldq, rows);
		norm_heads(step, w->k_norm, a->kv_heads, k, ldk, rows);
	}

	if (spec->layers[layer].rope) {
		rotate(step, q, ldq, a->heads, first, rows);
		rotate(step, k, ldk, a->kv_heads, first, rows);
	}

	ops->kv_write(step->queue,
		&(struct kn_kv_write){
			.kv = &step->cache->kv,
			.layer = layer,
			.rows = rows,
			.k = k,
			.v = v,
			.ldk = ldk,
			.ldv = ldv,
			.positions = in->positions + first,
			.tables = tables,
		});
	ops->attend(step->queue,
		&(struct kn_attend){
			.kv = &step->cache->kv,
			.layer = layer,
			.rows = rows,
			.heads = a->heads,
			.q = q,
			.ldq = ldq,
			.scale = a->scale,
			.begin = in->begin + (size_t)step->windows.of_layer[layer] * step->batch->rows + first,
			.end = in->end + first,
			.tables = tables,
			.sinks = w->sinks,
			.out = attended,
			.ldo = lda,
		});
	project(step, &w->o, w->o_bias, 0.0f, attended, lda, rows, out, ldx);
	ops->add(step->queue,
		&(struct kn_add){
			.x = x,
			.y = out,
			.ldx = ldx,
			.ldy = ldx,
			.rows = rows,
			.n = spec->hidden,
		});
	rt_stage_end(&step->stages, RT_STAGE_ATTENTION);
}
