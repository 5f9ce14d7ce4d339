/* SPDX-License-Identifier: Apache-2.0 */
/* Grouped-query attention of one layer. Source: transformers
 * modeling_{llama,mixtral,olmoe,qwen3_moe}.py; their differences are fields of the spec. */
#include "router-svc/model/attention.h"

static void project(const struct rt_attention *a, const struct kn_matrix *w, const float *bias, float clip,
	const float *x, float *y)
{
	a->queue->ops->linear(a->queue,
		&(struct kn_linear){
			.x = x,
			.ldx = kn_ld(w->k),
			.rows = a->rows,
			.w = w,
			.bias = bias,
			.clip = clip,
			.y = y,
			.ldy = kn_ld(w->n),
		});
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

static void rotate(const struct rt_attention *a, float *x, uint32_t heads)
{
	const struct cad_rope_spec *rope = cad_rope_of(a->spec, a->layer);
	uint32_t head_size = cad_attention_of(a->spec, a->layer)->head_size;

	a->queue->ops->rope(a->queue,
		&(struct kn_rope){
			.x = x,
			.ldx = kn_ld((size_t)heads * head_size),
			.rows = a->rows,
			.heads = heads,
			.head_size = head_size,
			.size = rope->size,
			.interleaved = rope->interleaved,
			.table = a->rope,
		});
}

/* q, k and v of the rows: projected, normed, clamped, rotated. */
static void make_heads(const struct rt_attention *a)
{
	const struct cad_attention_spec *spec = cad_attention_of(a->spec, a->layer);
	const struct rt_layer_weights *w = a->weights;

	/* with a norm, q and k are clamped after it */
	float clip = spec->qk_norm == CAD_QK_NORM_NONE ? spec->clip_qkv : 0.0f;
	project(a, &w->q, w->q_bias, clip, a->normed, a->q);
	project(a, &w->k, w->k_bias, clip, a->normed, a->k);
	project(a, &w->v, w->v_bias, spec->clip_qkv, a->normed, a->v);
	if (spec->qk_norm != CAD_QK_NORM_NONE) {
		norm_heads(a, w->q_norm, spec->heads, a->q);
		norm_heads(a, w->k_norm, spec->kv_heads, a->k);
	}

	if (a->spec->layers[a->layer].rope) {
		rotate(a, a->q, spec->heads);
		rotate(a, a->k, spec->kv_heads);
	}
}

/* k and v go into the cache, and the rows look at what is there. */
static void look(const struct rt_attention *a)
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
			.k = a->k,
			.v = a->v,
			.ldk = kn_ld((size_t)spec->kv_heads * spec->head_size),
			.ldv = kn_ld((size_t)spec->kv_heads * spec->value_size),
			.positions = a->positions,
			.tables = tables,
		});
	ops->attend(a->queue,
		&(struct kn_attend){
			.kv = kv,
			.layer = place->layer,
			.rows = a->rows,
			.heads = spec->heads,
			.q = a->q,
			.ldq = kn_ld((size_t)spec->heads * spec->head_size),
			.scale = spec->scale,
			.begin = a->begin,
			.end = a->end,
			.tables = tables,
			.sinks = a->weights->sinks,
			.out = a->attended,
			.ldo = kn_ld((size_t)spec->heads * spec->value_size),
		});
}

void rt_attend(const struct rt_attention *a)
{
	size_t ldx = kn_ld(a->spec->hidden);
	const struct kn_ops *ops = a->queue->ops;

	ops->rmsnorm(a->queue,
		&(struct kn_rmsnorm){
			.x = a->x,
			.ldx = ldx,
			.rows = a->rows,
			.parts = 1,
			.n = a->spec->hidden,
			.weight = a->weights->attention_norm,
			.epsilon = a->spec->norm_epsilon,
			.out = a->normed,
			.ldo = ldx,
		});
	make_heads(a);
	look(a);
	project(a, &a->weights->o, a->weights->o_bias, 0.0f, a->attended, a->projected);
	ops->add(a->queue,
		&(struct kn_add){
			.x = a->x,
			.y = a->projected,
			.ldx = ldx,
			.ldy = ldx,
			.rows = a->rows,
			.n = a->spec->hidden,
			.scale = a->spec->branch_scale,
		});
}
