/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attend, with kv_write before it: n value size, k key size. variant 0: the rows are the last ones
 * of one sequence of `keys` keys (prefill); variant 1: each row is a sequence of its own (decode),
 * of `keys` keys or a few less; variant 2: three sequences. window: a sliding one. flag: sinks.
 * Slots of the cache that hold no key are NaN, and so are pages of other layers: a form that lets
 * them in is seen.
 */
#include "op_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES_MAX = 64, LAYERS = 2, LAYER = 1 };

struct attend {
	struct op_state state;
	struct kn_kv kv;
	size_t base_bytes, ldq, ldo, pages_each, sequences, group;
	float *q, *q_host, *sinks, *sinks_host;
	float *keys_host, *values_host; /* [sequence][position][kv_heads * size] */
	uint32_t *pages;                /* [sequence][pages_each] */
	uint32_t begin[4096], end[4096];
	const uint32_t *tables[4096];
	size_t sequence_of[4096], length[SEQUENCES_MAX];
};

static size_t key_row(const struct attend *s) { return s->kv.kv_heads * s->kv.key_size; }
static size_t value_row(const struct attend *s) { return s->kv.kv_heads * s->kv.value_size; }

/* Which sequence row r belongs to, and how many keys it sees. */
static void rows_place(struct attend *s)
{
	const struct op_case *c = s->state.c;
	s->sequences = c->variant == 0 ? 1 : c->variant == 1 ? c->rows : 3;
	CAD_ASSERT(c->rows <= 4096 && s->sequences <= SEQUENCES_MAX && c->keys >= c->rows);
	for (size_t r = 0; r < c->rows; r++) {
		size_t sequence = c->variant == 0 ? 0 : c->variant == 1 ? r : r * 3 / c->rows;
		s->sequence_of[r] = sequence;
		s->end[r] = (uint32_t)(c->variant == 1 ? c->keys - r % 3 : c->keys - c->rows + r + 1);
		s->begin[r] = c->window > 0 && s->end[r] > c->window ? s->end[r] - (uint32_t)c->window : 0;
		s->length[sequence] = s->end[r];
		s->tables[r] = s->pages + sequence * s->pages_each;
	}
}

static void cache_fill(struct attend *s, struct kn_queue *queue, uint64_t *seed)
{
	const struct op_case *c = s->state.c;
	float *nan = op_need(s->base_bytes);

	memset(nan, 0xff, s->base_bytes);
	queue->ops->copy_in(queue, s->kv.base, nan, s->base_bytes);
	free(nan);
	s->keys_host = op_need(s->sequences * c->keys * key_row(s) * sizeof(float));
	s->values_host = op_need(s->sequences * c->keys * value_row(s) * sizeof(float));
	op_fill(s->keys_host, s->sequences * c->keys * key_row(s), seed, OP_DATA_BELL, 1.0f);
	op_fill(s->values_host, s->sequences * c->keys * value_row(s), seed, OP_DATA_BELL, 1.0f);
	int32_t *positions = op_need(c->keys * sizeof *positions);
	const uint32_t **tables = op_need(c->keys * sizeof *tables);
	for (size_t i = 0; i < s->sequences; i++) {
		for (size_t p = 0; p < s->length[i]; p++) {
			positions[p] = (int32_t)p;
			tables[p] = s->pages + i * s->pages_each;
		}
		float *k = op_upload(queue, s->keys_host + i * c->keys * key_row(s), c->keys * key_row(s) * sizeof *k);
		float *v = op_upload(
			queue, s->values_host + i * c->keys * value_row(s), c->keys * value_row(s) * sizeof *v);
		queue->ops->kv_write(queue,
			&(struct kn_kv_write){
				.kv = &s->kv,
				.layer = LAYER,
				.rows = s->length[i],
				.k = k,
				.v = v,
				.ldk = key_row(s),
				.ldv = value_row(s),
				.positions = positions,
				.tables = tables,
			});
		CAD_ASSERT(queue->ops->wait(queue) == CAD_OK);
		queue->ops->release(queue->device, k, c->keys * key_row(s) * sizeof *k);
		queue->ops->release(queue->device, v, c->keys * value_row(s) * sizeof *v);
	}

	free(positions);
	free(tables);
}

static struct op_state *attend_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct attend *s = op_need(sizeof *s);
	s->group = c->heads / c->kv_heads;
	s->pages_each = (c->keys + KN_PAGE_KEYS - 1) / KN_PAGE_KEYS;
	s->ldq = kn_ld(c->heads * c->k);
	s->ldo = kn_ld(c->heads * c->n);
	s->state = (struct op_state){ c, queue, c->rows, s->ldo * 4, kn_round_up(c->heads * c->n, 64) * 4,
		op_alloc(queue, c->rows * s->ldo * 4), NULL };
	size_t sequences = c->variant == 0 ? 1 : c->variant == 1 ? c->rows : 3, pages = sequences * s->pages_each + 1;
	s->kv = (struct kn_kv){
		.layers = LAYERS,
		.pages = pages,
		.kv_heads = c->kv_heads,
		.key_size = c->k,
		.value_size = c->n,
	};
	s->base_bytes = LAYERS * pages * kn_kv_page_floats(&s->kv) * sizeof(float);
	s->kv.base = op_alloc(queue, s->base_bytes);
	s->pages = op_need(sequences * s->pages_each * sizeof *s->pages);

	/* scattered, each once: 1 .. pages - 1 backwards, odd ones first */
	for (size_t i = 0; i < sequences * s->pages_each; i++)
		s->pages[i] = (uint32_t)(2 * i + 1 < pages ? 2 * i + 1 : 2 * (i - (pages - 2) / 2));
	rows_place(s);
	cache_fill(s, queue, &seed);
	s->q = op_rows(queue, c->rows, c->heads * c->k, &seed, OP_DATA_BELL, 1.0f, &s->q_host);
	if (c->flag)
		s->sinks = op_rows(queue, 1, c->heads, &seed, OP_DATA_BELL, 2.0f, &s->sinks_host);

	return &s->state;
}

static void attend_run(struct op_state *state, size_t first, size_t rows)
{
	struct attend *s = (struct attend *)state;
	const struct op_case *c = state->c;
	state->queue->ops->attend(state->queue,
		&(struct kn_attend){
			.kv = &s->kv,
			.layer = LAYER,
			.rows = rows,
			.heads = c->heads,
			.q = s->q + first * s->ldq,
			.ldq = s->ldq,
			.scale = (float)(2.0 / sqrt((double)c->k)),
			.begin = s->begin + first,
			.end = s->end + first,
			.tables = s->tables + first,
			.sinks = s->sinks,
			.out = (float *)state->device_output + first * s->ldo,
			.ldo = s->ldo,
		});
}

static const float *key_at(const struct attend *s, size_t row, size_t head, size_t j)
{
	return s->keys_host + (s->sequence_of[row] * s->state.c->keys + j) * key_row(s) +
		head / s->group * s->kv.key_size;
}

static const float *value_at(const struct attend *s, size_t row, size_t head, size_t j)
{
	return s->values_host + (s->sequence_of[row] * s->state.c->keys + j) * value_row(s) +
		head / s->group * s->kv.value_size;
}

static float page_tree(const float *p)
{
	float t[16];
	for (int i = 0; i < 16; i++)
		t[i] = p[2 * i] + p[2 * i + 1];
	for (int half = 8; half >= 1; half /= 2)
		for (int i = 0; i < half; i++)
			t[i] += t[i + half];
	return t[0];
}

/* struct kn_attend's comment, word for word, for one row and head: no pages, no blocks, no threads. */
static void attend_by_the_comment(const struct attend *s, size_t row, size_t head, float *out)
{
	size_t size = s->kv.value_size;
	float m_all = -INFINITY, l_all = 0.0f, scale = (float)(2.0 / sqrt((double)s->kv.key_size));
	const float *q = s->q_host + row * s->ldq + head * s->kv.key_size;

	memset(out, 0, size * sizeof *out);

	for (size_t chunk = 0; chunk < s->end[row] + (s->sinks ? KN_CHUNK_KEYS : 0); chunk += KN_CHUNK_KEYS) {
		float m = -INFINITY, l = 0.0f, sum[CAD_HEAD_SIZE_MAX] = { 0 };
		bool sink = chunk >= s->end[row];
		if (sink) {
			m = s->sinks_host[head];
			l = 1.0f;
		} else if (chunk + KN_CHUNK_KEYS <= s->begin[row]) {
			continue;
		}
		for (size_t page = chunk; page < chunk + KN_CHUNK_KEYS && !sink; page += KN_PAGE_KEYS) {
			float p[KN_PAGE_KEYS] = { 0 }, m_new = m;
			size_t seen = 0;
			for (size_t j = page; j < page + KN_PAGE_KEYS; j++) {
				if (j < s->begin[row] || j >= s->end[row])
					continue;
				for (size_t d = 0; d < s->kv.key_size; d++)
					p[j - page] = fmaf(q[d], key_at(s, row, head, j)[d], p[j - page]);
				p[j - page] *= scale;
				m_new = fmaxf(m_new, p[j - page]);
				seen++;
			}
			if (seen == 0)
				continue;
			float a = kn_exp(m - m_new);
			for (size_t j = page; j < page + KN_PAGE_KEYS; j++)
				if (j >= s->begin[row] && j < s->end[row])
					p[j - page] = kn_exp(p[j - page] - m_new);
			l = fmaf(l, a, page_tree(p));
			for (size_t d = 0; d < size; d++) {
				sum[d] *= a;
				for (size_t j = page; j < page + KN_PAGE_KEYS; j++)
					if (j >= s->begin[row] && j < s->end[row])
						sum[d] = fmaf(p[j - page], value_at(s, row, head, j)[d], sum[d]);
			}
			m = m_new;
		}
		float m_new = fmaxf(m_all, m), a = kn_exp(m_all - m_new), b = kn_exp(m - m_new);
		l_all = fmaf(l_all, a, l * b);
		for (size_t d = 0; d < size; d++)
			out[d] = fmaf(out[d], a, sum[d] * b);
		m_all = m_new;
	}

	for (size_t d = 0; d < size; d++)
		out[d] /= l_all;
}

static void attend_exact(const struct attend *s, size_t row, size_t head, double *out)
{
	double scale = (double)(float)(2.0 / sqrt((double)s->kv.key_size)),
	       most = s->sinks ? (double)s->sinks_host[head] : -INFINITY, sum;
	double *score = op_need(s->end[row] * sizeof *score);

	for (size_t j = s->begin[row]; j < s->end[row]; j++) {
		for (size_t d = 0; d < s->kv.key_size; d++)
			score[j] += (double)s->q_host[row * s->ldq + head * s->kv.key_size + d] *
				(double)key_at(s, row, head, j)[d];
		score[j] *= scale;
		most = fmax(most, score[j]);
	}

	sum = s->sinks ? exp((double)s->sinks_host[head] - most) : 0;
	memset(out, 0, s->kv.value_size * sizeof *out);

	for (size_t j = s->begin[row]; j < s->end[row]; j++) {
		double p = exp(score[j] - most);
		sum += p;
		for (size_t d = 0; d < s->kv.value_size; d++)
			out[d] += p * (double)value_at(s, row, head, j)[d];
	}

	for (size_t d = 0; d < s->kv.value_size; d++)
		out[d] /= sum;
	free(score);
}

/* Bits as the comment says; and near float64: a score is a chain of k products of a few units each,
 * its error goes through exp to every weight, then at most keys + 100 roundings; values are below
 * 6. */
static double attend_error(const struct op_state *state, const void *output)
{
	const struct attend *s = (const struct attend *)state;
	double worst = 0, tolerance = 6 * ((double)s->kv.key_size * 0x1p-20 + (double)(state->c->keys + 100) * 0x1p-24);

	for (size_t r = 0; r < state->rows; r++)
		for (size_t h = 0; h < state->c->heads; h++) {
			const float *got = (const float *)output + r * s->ldo + h * s->kv.value_size;
			float literal[CAD_HEAD_SIZE_MAX];
			double exact[CAD_HEAD_SIZE_MAX];
			attend_by_the_comment(s, r, h, literal);
			attend_exact(s, r, h, exact);
			if (memcmp(got, literal, s->kv.value_size * sizeof *got) != 0)
				return INFINITY;
			for (size_t d = 0; d < s->kv.value_size; d++)
				worst = fmax(worst, fabs((double)got[d] - exact[d]) / tolerance);
		}
	return worst;
}

static void attend_teardown(struct op_state *state)
{
	struct attend *s = (struct attend *)state;
	const struct kn_ops *ops = state->queue->ops;
	struct kn_device *device = state->queue->device;

	ops->release(device, s->kv.base, s->base_bytes);
	ops->release(device, s->q, state->rows * s->ldq * 4);
	ops->release(device, state->device_output, state->rows * s->ldo * 4);
	if (s->sinks)
		ops->release(device, s->sinks, kn_ld(state->c->heads) * 4);
	free(s->q_host);
	free(s->sinks_host);
	free(s->keys_host);
	free(s->values_host);
	free(s->pages);
	free(s);
}

/* Pairs of a row and a key that are computed: a prefill row sees on average half of its own chunk. */
static double attend_pairs(const struct op_case *c)
{
	double seen = (double)c->keys - (c->variant == 0 ? (double)(c->rows - 1) / 2 : 0);
	return (double)c->rows * (c->window > 0 ? fmin(seen, (double)c->window) : seen);
}
static double attend_flops(const struct op_case *c)
{
	return 2.0 * attend_pairs(c) * (double)c->heads * (double)(c->n + c->k);
}
static double attend_bytes(const struct op_case *c)
{
	double keys = (double)c->keys * (c->variant == 1 ? (double)c->rows : c->variant == 2 ? 3 : 1);
	return 4.0 * keys * (double)c->kv_heads * (double)(c->n + c->k);
}

const struct op_kind op_attend = { "attend", attend_setup, attend_run, attend_error, attend_teardown, attend_flops,
	attend_bytes };
