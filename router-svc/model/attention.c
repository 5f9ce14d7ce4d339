/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of one layer, and grouped-query attention; latent attention is in latent.c. Source: transformers
 * modeling_{llama,mixtral,olmoe,qwen3_moe}.py; their differences are fields of the spec. */
#include "router-svc/model/latent.h"

size_t rt_scratch_row(const struct cad_attention_spec *spec, enum rt_scratch what)
{
	bool latent = spec->kind == CAD_ATTENTION_LATENT;
	size_t heads = spec->heads, key = spec->kv_rank + spec->rope_size;

	switch (what) {
	case RT_SCRATCH_Q: return heads * spec->head_size;
	case RT_SCRATCH_K: return latent ? key : (size_t)spec->kv_heads * spec->head_size;
	case RT_SCRATCH_V: return latent ? 0 : (size_t)spec->kv_heads * spec->value_size;
	case RT_SCRATCH_OUT: return heads * spec->value_size;
	case RT_SCRATCH_Q_DOWN: return latent ? spec->q_rank : 0;
	case RT_SCRATCH_ABSORBED: return latent ? heads * key : 0;
	case RT_SCRATCH_LATENT: return latent ? heads * spec->kv_rank : 0;
	case RT_SCRATCH_COUNT: break;
	}
	return 0;
}

static void project(const struct rt_attention *a, const struct kn_matrix *w, const float *bias, float divisor,
	float clip, const float *x, float *y)
{
	a->queue->ops->linear(a->queue,
		&(struct kn_linear){
			.x = x,
			.ldx = kn_ld(w->k),
			.rows = a->rows,
			.w = w,
			.bias = bias,
			.divisor = divisor,
			.clip = clip,
			.y = y,
			.ldy = kn_ld(w->n),
		});
}

void rt_project(const struct rt_attention *a, const struct kn_matrix *w, const float *bias, float clip, const float *x,
	float *y)
{
	project(a, w, bias, 0.0f, clip, x, y);
}

/* Norm (per head, or over the projection) and then the clamp. */
static void norm_heads(const struct rt_attention *a, const float *weight, uint32_t heads, float *x)
{
	const struct cad_attention_spec *spec = cad_attention_of(a->spec, a->layer);
	bool per_head = spec->qk_norm == CAD_QK_NORM_HEAD;
	size_t ld = kn_ld((size_t)heads * spec->head_size);

	a->queue->ops->rmsnorm(a->queue,
		&(struct kn_rmsnorm){
			.x = x,
			.ldx = ld,
			.rows = a->rows,
			.parts = per_head ? heads : 1,
			.n = per_head ? spec->head_size : (size_t)heads * spec->head_size,
			.weight = weight,
			.epsilon = a->spec->norm_epsilon,
			.clip = spec->clip_qkv,
			.out = x,
			.ldo = ld,
		});
}

void rt_rotate(const struct rt_attention *a, float *x, size_t ld, uint32_t heads, uint32_t head_size)
{
	const struct cad_rope_spec *rope = cad_rope_of(a->spec, a->layer);

	if (!a->spec->layers[a->layer].rope)
		return;
	a->queue->ops->rope(a->queue,
		&(struct kn_rope){
			.x = x,
			.ldx = ld,
			.rows = a->rows,
			.heads = heads,
			.head_size = head_size,
			.size = rope->size,
			.interleaved = rope->interleaved,
			.table = a->rope,
		});
}

void rt_look(const struct rt_attention *a, const float *q, const float *k, const float *v, float *out)
{
	const struct cad_attention_spec *spec = cad_attention_of(a->spec, a->layer);
	const struct kn_ops *ops = a->queue->ops;
	const struct rt_kv_place *place = &a->cache->places[a->layer];
	const struct kn_kv *kv = &a->cache->kvs[place->kv];
	const struct kn_page_tables tables = {
		.pages = a->cache->tables,
		.ld = a->cache->pages_per_sequence_max,
		.slot = a->slots,
	};

	ops->kv_write(a->queue,
		&(struct kn_kv_write){
			.kv = kv,
			.layer = place->layer,
			.rows = a->rows,
			.k = k,
			.v = v,
			.ldk = kn_ld(kv->kv_heads * kv->key_size),
			.ldv = kn_ld(kv->kv_heads * kv->value_size),
			.positions = a->positions,
			.tables = tables,
		});
	ops->attend(a->queue,
		&(struct kn_attend){
			.kv = kv,
			.layer = place->layer,
			.rows = a->rows,
			.heads = spec->heads,
			.q = q,
			.ldq = kn_ld(spec->heads * kv->key_size),
			.scale = spec->scale,
			.begin = a->begin,
			.end = a->end,
			.tables = tables,
			.sinks = a->weights->sinks,
			.out = out,
			.ldo = kn_ld(spec->heads * kv->value_size),
		});
}

void rt_scale_by_position(const struct rt_attention *a, float *q, size_t n)
{
	if (!cad_attention_of(a->spec, a->layer)->position_scaled)
		return;
	a->queue->ops->scale_rows(a->queue,
		&(struct kn_scale_rows){
			.x = q,
			.ldx = kn_ld(n),
			.rows = a->rows,
			.n = n,
			.scale = a->position_scale,
		});
}

/* ---- grouped queries ---- */

static void norm_q_and_k(const struct rt_attention *a, float *q, float *k)
{
	const struct cad_attention_spec *spec = cad_attention_of(a->spec, a->layer);

	if (spec->qk_norm == CAD_QK_NORM_NONE)
		return;
	norm_heads(a, spec->qk_norm_plain ? a->ones : a->weights->q_norm, spec->heads, q);
	norm_heads(a, spec->qk_norm_plain ? a->ones : a->weights->k_norm, spec->kv_heads, k);
}

/* Queries, keys and values of the rows: projected, normed, clamped, rotated; or normed after that. */
static void attend_grouped(const struct rt_attention *a)
{
	const struct cad_attention_spec *spec = cad_attention_of(a->spec, a->layer);
	const struct rt_layer_weights *w = a->weights;
	float *q = a->scratch[RT_SCRATCH_Q], *k = a->scratch[RT_SCRATCH_K], *v = a->scratch[RT_SCRATCH_V];
	size_t ldq = kn_ld((size_t)spec->heads * spec->head_size),
	       ldk = kn_ld((size_t)spec->kv_heads * spec->head_size);

	/* with a norm, q and k are clamped after it */
	float clip = spec->qk_norm == CAD_QK_NORM_NONE ? spec->clip_qkv : 0.0f;
	rt_project(a, &w->q, w->q_bias, clip, a->normed, q);
	rt_project(a, &w->k, w->k_bias, clip, a->normed, k);
	project(a, &w->v, w->v_bias, spec->value_divisor, spec->clip_qkv, a->normed, v);
	if (!spec->qk_norm_last)
		norm_q_and_k(a, q, k);
	rt_rotate(a, q, ldq, spec->heads, spec->head_size);
	rt_rotate(a, k, ldk, spec->kv_heads, spec->head_size);
	if (spec->qk_norm_last)
		norm_q_and_k(a, q, k);
	rt_scale_by_position(a, q, (size_t)spec->heads * spec->head_size);
	rt_look(a, q, k, v, a->scratch[RT_SCRATCH_OUT]);
}

/* ---- any attention ---- */

void rt_norm_rows(struct kn_queue *queue, const struct cad_model_spec *spec, uint32_t rows, const float *weight,
	const float *x, float *out)
{
	size_t ld = kn_ld(spec->hidden);

	queue->ops->rmsnorm(queue,
		&(struct kn_rmsnorm){
			.x = x,
			.ldx = ld,
			.rows = rows,
			.parts = 1,
			.n = spec->hidden,
			.weight = weight,
			.epsilon = spec->norm_epsilon,
			.out = out,
			.ldo = ld,
		});
}

void rt_add_branch(struct kn_queue *queue, const struct cad_model_spec *spec, uint32_t rows, const float *weight,
	float *branch, float *x)
{
	size_t ld = kn_ld(spec->hidden);

	if (weight)
		rt_norm_rows(queue, spec, rows, weight, branch, branch);
	queue->ops->add(queue,
		&(struct kn_add){
			.x = x,
			.y = branch,
			.ldx = ld,
			.ldy = ld,
			.rows = rows,
			.n = spec->hidden,
			.scale = spec->branch_scale,
		});
}

void rt_attend(const struct rt_attention *a)
{
	const struct rt_layer_weights *w = a->weights;

	if (w->attention_norm)
		rt_norm_rows(a->queue, a->spec, a->rows, w->attention_norm, a->x, a->normed);
	if (cad_attention_of(a->spec, a->layer)->kind == CAD_ATTENTION_LATENT)
		rt_attend_latent(a);
	else
		attend_grouped(a);
	rt_project(a, &w->o, w->o_bias, 0.0f, a->scratch[RT_SCRATCH_OUT], a->projected);
	rt_add_branch(a->queue, a->spec, a->rows, w->attention_after, a->projected, a->x);
}
