/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attend, with kv_write before it: n value size, k key size; latent: a value is the first n elements of its key. variant 0: the rows are the last ones
 * of one sequence of `keys` keys (prefill); variant 1: each row is a sequence of its own (decode),
 * of `keys` keys or a few less; variant 2: three sequences. window: a sliding one. flag: sinks.
 * Slots of the cache that hold no key are NaN, and so are pages of other layers: a form that lets
 * them in is seen.
 */
#include "kernels/exp.h"
#include "kernels/image.h"
#include "kernels/quantise.h"
#include "op_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES_MAX = 64, ROWS_MAX = 4096, LAYERS = 2, LAYER = 1 };

struct attend {
	struct op_state state;
	struct kn_kv kv;
	size_t ldq, ldo, pages_each, sequences, group;
	float *q, *q_host, *sinks, *sinks_host;
	/* [sequence][position][kv_heads * size], rounded as the cache does, of int8 the integers;
	 * and the scales, [sequence][position][kv_heads], 1 of others */
	float *keys_host, *values_host, *key_scales, *value_scales;
	uint32_t *pages, pages_count; /* device, [sequence][pages_each], then all pages in order */
	/* what each row sees, and which sequence it belongs to: on the host, and on the device */
	struct attend_rows {
		uint32_t begin[ROWS_MAX], end[ROWS_MAX], sequence[ROWS_MAX];
	} rows, *device_rows;
	size_t length[SEQUENCES_MAX];
};

static size_t key_row(const struct attend *s) { return s->kv.kv_heads * s->kv.key_size; }
/* with latent values, what stands for them is not read */
static size_t value_row(const struct attend *s) { return s->kv.kv_heads * s->kv.value_size; }

/* Which sequence row r belongs to, and how many keys it sees. */
static void rows_place(struct attend *s)
{
	const struct op_case *c = s->state.c;
	s->sequences = c->variant == 0 ? 1 : c->variant == 1 ? c->rows : 3;
	CAD_ASSERT(c->rows <= ROWS_MAX && s->sequences <= SEQUENCES_MAX && c->keys >= c->rows);
	for (size_t r = 0; r < c->rows; r++) {
		size_t sequence = c->variant == 0 ? 0 : c->variant == 1 ? r : r * 3 / c->rows;
		s->rows.sequence[r] = (uint32_t)sequence;
		s->rows.end[r] = (uint32_t)(c->variant == 1 ? c->keys - r % 3 : c->keys - c->rows + r + 1);
		s->rows.begin[r] =
			c->window > 0 && s->rows.end[r] > c->window ? s->rows.end[r] - (uint32_t)c->window : 0;
		s->length[sequence] = s->rows.end[r];
	}
}

/* Keys and values at the positions 0 .. count - 1 of the sequence in that slot of the page
 * tables. */
static void cache_write(struct attend *s, struct kn_queue *queue, size_t layer, const struct kn_page_tables *table,
	uint32_t slot, size_t count, const float *keys, const float *values)
{
	int32_t *positions = op_need(count * sizeof *positions);
	uint32_t *slots = op_need(count * sizeof *slots);

	for (size_t p = 0; p < count; p++) {
		positions[p] = (int32_t)p;
		slots[p] = slot;
	}

	size_t keys_bytes = count * key_row(s) * sizeof *keys, values_bytes = count * value_row(s) * sizeof *values,
	       word_bytes = count * sizeof(uint32_t);
	float *k = op_upload(queue, keys, keys_bytes), *v = op_upload(queue, values, values_bytes);
	int32_t *device_positions = op_upload(queue, positions, word_bytes);
	uint32_t *device_slots = op_upload(queue, slots, word_bytes);
	queue->ops->kv_write(queue,
		&(struct kn_kv_write){
			.kv = &s->kv,
			.layer = layer,
			.rows = count,
			.k = k,
			.v = v,
			.ldk = key_row(s),
			.ldv = value_row(s),
			.positions = device_positions,
			.tables = { table->pages, table->ld, device_slots },
		});
	CAD_ASSERT(queue->ops->wait(queue) == CAD_OK);
	queue->ops->release(queue->device, k, keys_bytes);
	queue->ops->release(queue->device, v, values_bytes);
	queue->ops->release(queue->device, device_positions, word_bytes);
	queue->ops->release(queue->device, device_slots, word_bytes);
	free(positions);
	free(slots);
}

/* Vectors of `size` as the cache keeps them: of int8 the integers. Their
 * scales, 1 of other types. */
static float *round_all(enum cad_kv type, float *x, size_t vectors, size_t size)
{
	float *scales = op_need(vectors * sizeof *scales);
	int8_t q[KN_KEY_SIZE_MAX];

	for (size_t v = 0; v < vectors; v++, x += size) {
		scales[v] = type == CAD_KV_INT8 ? kn_quantise_group(x, size, size, KN_RANGE_INT8, q) : 1.0f;
		for (size_t i = 0; i < size; i++) {
			uint32_t bits = (uint32_t)kn_bf16_of(x[i]) << 16;
			if (type == CAD_KV_INT8)
				x[i] = (float)q[i];
			else if (type == CAD_KV_BF16)
				memcpy(&x[i], &bits, sizeof bits);
		}
	}
	return scales;
}

/* NaN to every slot of the cache, by a sequence that has all pages; then the keys that there
 * are. */
static void cache_fill(struct attend *s, struct kn_queue *queue, uint64_t *seed)
{
	const struct op_case *c = s->state.c;
	size_t slots = s->kv.pages * KN_PAGE_KEYS, row = key_row(s) > value_row(s) ? key_row(s) : value_row(s);
	const struct kn_page_tables all = { s->pages + s->sequences * s->pages_each, s->kv.pages, NULL },
				    own = { s->pages, s->pages_each, NULL };
	float *nan = op_need(slots * row * sizeof *nan);

	memset(nan, 0xff, slots * row * sizeof *nan);
	for (size_t layer = 0; layer < LAYERS; layer++)
		cache_write(s, queue, layer, &all, 0, slots, nan, nan);
	free(nan);

	s->keys_host = op_need(s->sequences * c->keys * key_row(s) * sizeof(float));
	s->values_host = op_need(s->sequences * c->keys * value_row(s) * sizeof(float));
	op_fill(s->keys_host, s->sequences * c->keys * key_row(s), seed, OP_DATA_BELL, 1.0f);
	op_fill(s->values_host, s->sequences * c->keys * value_row(s), seed, OP_DATA_BELL, 1.0f);
	for (size_t i = 0; i < s->sequences; i++)
		cache_write(s, queue, LAYER, &own, (uint32_t)i, s->length[i], s->keys_host + i * c->keys * key_row(s),
			s->values_host + i * c->keys * value_row(s));
	s->key_scales = round_all(c->kv, s->keys_host, s->sequences * c->keys * c->kv_heads, c->k);
	s->value_scales = round_all(c->kv, s->values_host, s->sequences * c->keys * c->kv_heads, c->n);
}

/* The pages of the sequences are scattered, each once: 1 .. pages - 1 backwards, odd ones first.
 * Behind them stands the table of a sequence that has every page. */
static void pages_place(struct attend *s, struct kn_queue *queue)
{
	size_t own = s->sequences * s->pages_each, pages = s->kv.pages;
	uint32_t *table = op_need((own + pages) * sizeof *table);

	for (size_t i = 0; i < own; i++)
		table[i] = (uint32_t)(2 * i + 1 < pages ? 2 * i + 1 : 2 * (i - (pages - 2) / 2));
	for (size_t i = 0; i < pages; i++)
		table[own + i] = (uint32_t)i;
	s->pages_count = (uint32_t)(own + pages);
	s->pages = op_upload(queue, table, s->pages_count * sizeof *table);
	free(table);
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
	rows_place(s);
	s->kv = (struct kn_kv){
		.type = c->kv,
		.layers = LAYERS,
		.pages = s->sequences * s->pages_each + 1,
		.kv_heads = c->kv_heads,
		.key_size = c->k,
		.value_size = c->n,
		.latent = c->latent,
	};
	CAD_ASSERT(queue->ops->kv_create(queue->device, &s->kv) == CAD_OK);
	pages_place(s, queue);
	s->device_rows = op_upload(queue, &s->rows, sizeof s->rows);
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
			.begin = s->device_rows->begin + first,
			.end = s->device_rows->end + first,
			.tables = { s->pages, s->pages_each, s->device_rows->sequence + first },
			.sinks = s->sinks,
			.out = (float *)state->device_output + first * s->ldo,
			.ldo = s->ldo,
		});
}

static const float *key_at(const struct attend *s, size_t row, size_t head, size_t j)
{
	return s->keys_host + (s->rows.sequence[row] * s->state.c->keys + j) * key_row(s) +
		head / s->group * s->kv.key_size;
}

static const float *value_at(const struct attend *s, size_t row, size_t head, size_t j)
{
	if (s->kv.latent)
		return key_at(s, row, head, j);
	return s->values_host + (s->rows.sequence[row] * s->state.c->keys + j) * value_row(s) +
		head / s->group * s->kv.value_size;
}

static float key_scale(const struct attend *s, const float *key)
{
	return s->key_scales[(size_t)(key - s->keys_host) / s->kv.key_size];
}

static float value_scale(const struct attend *s, const float *value)
{
	if (s->kv.latent)
		return key_scale(s, value);
	return s->value_scales[(size_t)(value - s->values_host) / s->kv.value_size];
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

/* struct kn_attend's comment, word for word, for one row and head: no
 * pages, no blocks, no threads. */
static void attend_by_the_comment(const struct attend *s, size_t row, size_t head, float *out)
{
	size_t size = s->kv.value_size;
	float m_all = -INFINITY, l_all = 0.0f, scale = (float)(2.0 / sqrt((double)s->kv.key_size));
	const float *q = s->q_host + row * s->ldq + head * s->kv.key_size;

	memset(out, 0, size * sizeof *out);

	for (size_t chunk = 0; chunk < s->rows.end[row] + (s->sinks ? KN_CHUNK_KEYS : 0); chunk += KN_CHUNK_KEYS) {
		float m = -INFINITY, l = 0.0f, sum[KN_VALUE_SIZE_MAX] = { 0 };
		bool sink = chunk >= s->rows.end[row];
		if (sink) {
			m = s->sinks_host[head];
			l = 1.0f;
		} else if (chunk + KN_CHUNK_KEYS <= s->rows.begin[row]) {
			continue;
		}
		for (size_t page = chunk; page < chunk + KN_CHUNK_KEYS && !sink; page += KN_PAGE_KEYS) {
			float p[KN_PAGE_KEYS] = { 0 }, m_new = m;
			size_t seen = 0;
			for (size_t j = page; j < page + KN_PAGE_KEYS; j++) {
				if (j < s->rows.begin[row] || j >= s->rows.end[row])
					continue;
				for (size_t d = 0; d < s->kv.key_size; d++)
					p[j - page] = fmaf(q[d], key_at(s, row, head, j)[d], p[j - page]);
				p[j - page] *= key_scale(s, key_at(s, row, head, j));
				p[j - page] *= scale;
				m_new = fmaxf(m_new, p[j - page]);
				seen++;
			}
			if (seen == 0)
				continue;
			float a = kn_exp(m - m_new);
			for (size_t j = page; j < page + KN_PAGE_KEYS; j++)
				if (j >= s->rows.begin[row] && j < s->rows.end[row])
					p[j - page] = kn_exp(p[j - page] - m_new);
			l = fmaf(l, a, page_tree(p));
			for (size_t d = 0; d < size; d++) {
				sum[d] *= a;
				for (size_t j = page; j < page + KN_PAGE_KEYS; j++)
					if (j >= s->rows.begin[row] && j < s->rows.end[row])
						sum[d] = fmaf(p[j - page] * value_scale(s, value_at(s, row, head, j)),
							value_at(s, row, head, j)[d], sum[d]);
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
	double *score = op_need(s->rows.end[row] * sizeof *score);

	for (size_t j = s->rows.begin[row]; j < s->rows.end[row]; j++) {
		for (size_t d = 0; d < s->kv.key_size; d++)
			score[j] += (double)s->q_host[row * s->ldq + head * s->kv.key_size + d] *
				(double)key_at(s, row, head, j)[d];
		score[j] *= scale * (double)key_scale(s, key_at(s, row, head, j));
		most = fmax(most, score[j]);
	}

	sum = s->sinks ? exp((double)s->sinks_host[head] - most) : 0;
	memset(out, 0, s->kv.value_size * sizeof *out);

	for (size_t j = s->rows.begin[row]; j < s->rows.end[row]; j++) {
		double p = exp(score[j] - most);
		sum += p;
		for (size_t d = 0; d < s->kv.value_size; d++)
			out[d] += p * (double)value_scale(s, value_at(s, row, head, j)) *
				(double)value_at(s, row, head, j)[d];
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
			float literal[KN_VALUE_SIZE_MAX];
			double exact[KN_VALUE_SIZE_MAX];
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

	ops->kv_destroy(device, &s->kv);
	ops->release(device, s->pages, s->pages_count * sizeof *s->pages);
	ops->release(device, s->device_rows, sizeof *s->device_rows);
	ops->release(device, s->q, state->rows * s->ldq * 4);
	ops->release(device, state->device_output, state->rows * s->ldo * 4);
	if (s->sinks)
		ops->release(device, s->sinks, kn_ld(state->c->heads) * 4);
	free(s->q_host);
	free(s->sinks_host);
	free(s->keys_host);
	free(s->values_host);
	free(s->key_scales);
	free(s->value_scales);
	free(s);
}

/* Pairs of a row and a key that are computed: a prefill row sees on average half of its own
 * chunk. */
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
	double elements = (double)(c->latent ? c->k : c->n + c->k);
	return keys * (double)c->kv_heads *
		(c->kv == CAD_KV_F32                   ? 4 * elements
				: c->kv == CAD_KV_BF16 ? 2 * elements
						       : elements + (c->latent ? 4 : 8));
}

const struct op_kind op_attend = { "attend", attend_setup, attend_run, attend_error, attend_teardown, attend_flops,
	attend_bytes };
