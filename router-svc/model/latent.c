/* SPDX-License-Identifier: Apache-2.0 */
/* Source: transformers modeling_deepseek_{v2,v3}.py, and section 2.1 of arXiv 2405.04434 for the
 * absorption. */
#include "router-svc/model/latent.h"

/* The first n elements of rows that are `ld` apart. */
static void norm_latent(const struct rt_attention *a, float *x, size_t ld, size_t n, const float *weight)
{
	a->queue->ops->rmsnorm(a->queue,
		&(struct kn_rmsnorm){
			.x = x,
			.ldx = ld,
			.rows = a->rows,
			.parts = 1,
			.n = n,
			.weight = weight,
			.epsilon = cad_attention_of(a->spec, a->layer)->latent_epsilon,
			.out = x,
			.ldo = ld,
		});
}

/* The end of each head, of nope_size + rope_size elements, rotates. */
static void make_queries(const struct rt_attention *a)
{
	const struct cad_attention_spec *spec = cad_attention_of(a->spec, a->layer);
	const struct rt_latent_weights *w = &a->weights->latent;
	float *q = a->scratch[RT_SCRATCH_Q], *down = a->scratch[RT_SCRATCH_Q_DOWN];

	if (spec->q_rank > 0) {
		rt_project(a, &w->q_down, w->q_down_bias, 0.0f, a->normed, down);
		norm_latent(a, down, kn_ld(spec->q_rank), spec->q_rank, w->q_down_norm);
		rt_project(a, &w->q_up, NULL, 0.0f, down, q);
	} else {
		rt_project(a, &a->weights->q, NULL, 0.0f, a->normed, q);
	}
	rt_rotate(a, q + spec->nope_size, kn_ld((size_t)spec->heads * spec->head_size), spec->heads, spec->head_size);
	rt_scale_by_position(a, q, (size_t)spec->heads * spec->head_size);
}

/* One key for all heads: the latent, which is the value too, and behind it what rotates. */
static void make_key(const struct rt_attention *a)
{
	const struct cad_attention_spec *spec = cad_attention_of(a->spec, a->layer);
	const struct rt_latent_weights *w = &a->weights->latent;
	float *key = a->scratch[RT_SCRATCH_K];
	size_t ld = kn_ld(spec->kv_rank + spec->rope_size);

	rt_project(a, &w->kv_down, w->kv_down_bias, 0.0f, a->normed, key);
	norm_latent(a, key, ld, spec->kv_rank, w->kv_down_norm);
	rt_rotate(a, key + spec->kv_rank, ld, 1, spec->rope_size);
}

static void each_head(const struct rt_attention *a, const struct kn_matrix *w, size_t tail, const float *x, float *y)
{
	uint32_t heads = cad_attention_of(a->spec, a->layer)->heads;

	a->queue->ops->linear_heads(a->queue,
		&(struct kn_linear_heads){
			.x = x,
			.ldx = kn_ld(heads * (w->k + tail)),
			.rows = a->rows,
			.heads = heads,
			.tail = tail,
			.w = w,
			.y = y,
			.ldy = kn_ld(heads * (w->n + tail)),
		});
}

void rt_attend_latent(const struct rt_attention *a)
{
	const struct cad_attention_spec *spec = cad_attention_of(a->spec, a->layer);
	const struct rt_latent_weights *w = &a->weights->latent;
	float *const *s = a->scratch;

	make_queries(a);
	make_key(a);
	each_head(a, w->keys, spec->rope_size, s[RT_SCRATCH_Q], s[RT_SCRATCH_ABSORBED]);
	rt_look(a, s[RT_SCRATCH_ABSORBED], s[RT_SCRATCH_K], NULL, s[RT_SCRATCH_LATENT]);
	each_head(a, w->values, 0, s[RT_SCRATCH_LATENT], s[RT_SCRATCH_OUT]);
}
