/* SPDX-License-Identifier: Apache-2.0 */
/* Grouped-query attention of one layer. Source: transformers
 * modeling_{llama,mixtral,olmoe,qwen3_moe}.py; their differences are fields of the spec. */
#include "router-svc/model/attention.h"

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

/* The rows of one micro-batch, between the projections and attention. */
struct heads {
	float *q, *k, *v, *attended;
	size_t ldq, ldk, ldv, lda;
};

static struct heads heads_of(const struct rt_step *step, uint32_t first)
{
	const struct cad_attention_spec *a = &step->spec->attention;
	const struct rt_step_buffers *b = &step->buffers;
	struct heads h = {
		.ldq = kn_ld((size_t)a->heads * a->head_size),
		.ldk = kn_ld((size_t)a->kv_heads * a->head_size),
		.ldv = kn_ld((size_t)a->kv_heads * a->value_size),
		.lda = kn_ld((size_t)a->heads * a->value_size),
	};

	h.q = b->q + first * h.ldq;
	h.k = b->k + first * h.ldk;
	h.v = b->v + first * h.ldv;
	h.attended = b->attended + first * h.lda;
	return h;
}

/* q, k and v of the rows: projected, normed, clamped, rotated. */
static void make_heads(struct rt_step *step, const struct rt_work *work, const float *normed, const struct heads *h)
{
	const struct cad_attention_spec *a = &step->spec->attention;
	const struct rt_layer_weights *w = &step->weights.layers[work->layer];
	uint32_t first = work->first, rows = work->rows;
	size_t ldx = kn_ld(step->spec->hidden);

	/* with a norm, q and k are clamped after it */
	float clip = a->qk_norm == CAD_QK_NORM_NONE ? a->clip_qkv : 0.0f;
	project(step, &w->q, w->q_bias, clip, normed, ldx, rows, h->q, h->ldq);
	project(step, &w->k, w->k_bias, clip, normed, ldx, rows, h->k, h->ldk);
	project(step, &w->v, w->v_bias, a->clip_qkv, normed, ldx, rows, h->v, h->ldv);
	if (a->qk_norm != CAD_QK_NORM_NONE) {
		norm_heads(step, w->q_norm, a->heads, h->q, h->ldq, rows);
		norm_heads(step, w->k_norm, a->kv_heads, h->k, h->ldk, rows);
	}

	if (step->spec->layers[work->layer].rope) {
		rotate(step, h->q, h->ldq, a->heads, first, rows);
		rotate(step, h->k, h->ldk, a->kv_heads, first, rows);
	}
}

/* k and v go into the cache, and the rows look at what is there. */
static void attend(struct rt_step *step, const struct rt_work *work, const struct heads *h)
{
	const struct cad_attention_spec *a = &step->spec->attention;
	const struct rt_step_inputs *in = &step->inputs;
	uint32_t layer = work->layer, first = work->first;
	const struct kn_page_tables tables = {
		.pages = step->cache->tables,
		.ld = step->cache->pages_per_sequence_max,
		.slot = in->slots + first,
	};

	step->queue->ops->kv_write(step->queue,
		&(struct kn_kv_write){
			.kv = &step->cache->kv,
			.layer = layer,
			.rows = work->rows,
			.k = h->k,
			.v = h->v,
			.ldk = h->ldk,
			.ldv = h->ldv,
			.positions = in->positions + first,
			.tables = tables,
		});
	step->queue->ops->attend(step->queue,
		&(struct kn_attend){
			.kv = &step->cache->kv,
			.layer = layer,
			.rows = work->rows,
			.heads = a->heads,
			.q = h->q,
			.ldq = h->ldq,
			.scale = a->scale,
			.begin = in->begin + (size_t)step->windows.of_layer[layer] * step->batch->rows + first,
			.end = in->end + first,
			.tables = tables,
			.sinks = step->weights.layers[layer].sinks,
			.out = h->attended,
			.ldo = h->lda,
		});
}

void rt_attention(struct rt_step *step, const struct rt_work *work)
{
	const struct cad_model_spec *spec = step->spec;
	const struct rt_layer_weights *w = &step->weights.layers[work->layer];
	const struct kn_ops *ops = step->queue->ops;
	const struct rt_step_buffers *b = &step->buffers;
	const struct heads h = heads_of(step, work->first);
	size_t ldx = kn_ld(spec->hidden);
	float *x = b->x + work->first * ldx, *normed = b->normed + work->first * ldx,
	      *out = b->shared + work->first * ldx;

	ops->rmsnorm(step->queue,
		&(struct kn_rmsnorm){
			.x = x,
			.ldx = ldx,
			.rows = work->rows,
			.parts = 1,
			.n = spec->hidden,
			.weight = w->attention_norm,
			.epsilon = spec->norm_epsilon,
			.out = normed,
			.ldo = ldx,
		});
	make_heads(step, work, normed, &h);
	attend(step, work, &h);
	project(step, &w->o, w->o_bias, 0.0f, h.attended, h.lda, work->rows, out, ldx);
	ops->add(step->queue,
		&(struct kn_add){
			.x = x,
			.y = out,
			.ldx = ldx,
			.ldy = ldx,
			.rows = work->rows,
			.n = spec->hidden,
		});
	rt_stage_end(&step->stages, RT_STAGE_ATTENTION);
}
