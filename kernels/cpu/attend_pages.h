/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of a chunk for a block of queries: what avx2_attend.c and avx512_attend.c share. The
 * includer defines, before it includes this:
 *   PAGES_AT_ONCE   pages whose scores are computed side by side for one query; half for two
 *   scores_of(type, q, size, count, pages, from, s)   scores of the keys of `pages` pages, not
 *       scaled, for the `count` queries at q, at most a tile: row page * count + i of s is query i's
 *   values_of(type, count, out, ldo, size, pages, from, lo, hi, p, alpha)   for as many queries, page
 *       after page (rows of p and alpha as those of s): out = out * alpha, then the chain over the
 *       page's keys lo .. hi - 1 with the weights p
 *   widen_rows(type, from, rows, n, out)   rows of n elements, as f32; room for 32 more is used
 *       (in these three the type is constant: they are inlined)
 *   row_most(s, lo, hi, scale, sk)   s[j] = s[j] * sk[j], unless sk is NULL
 *       -> eight lanes, whose largest is that of s[lo .. hi - 1] * scale
 *   row_weights(s, lo, hi, scale, m, sv)   s[j] = exp(s[j] * scale - m) of those keys; then times
 *       sv[j], unless it is NULL; of others nothing
 *       -> the first two steps of the tree over the exponentials, in eight lanes
 *
 * A prompt has many queries: a page that is not f32 is widened once for all of them. In decode
 * there are few: the inner loops widen what they read and fetch what will be read next, and take
 * several pages at once, because the chains of one query over one page are too few to keep the
 * multipliers busy.
 */
#ifndef CADRE_KERNELS_CPU_ATTEND_PAGES_H
#define CADRE_KERNELS_CPU_ATTEND_PAGES_H

#include "kernels/cpu/transpose.h"

/* ---- what the includer defines, for any type ---- */

static void page_scores(enum cad_kv type, struct kn_attend_block *b, size_t query, size_t count, size_t pages,
	const struct kn_attend_source *from, float (*s)[KN_PAGE_KEYS])
{
	const float *q = kn_attend_q(b, query, 0);
	switch (type) {
	case CAD_KV_F32: scores_of(CAD_KV_F32, q, b->key_size, count, pages, from, s); break;
	case CAD_KV_BF16: scores_of(CAD_KV_BF16, q, b->key_size, count, pages, from, s); break;
	case CAD_KV_INT8: scores_of(CAD_KV_INT8, q, b->key_size, count, pages, from, s); break;
	}
}

static void page_values(enum cad_kv type, struct kn_attend_block *b, size_t query, size_t count, size_t pages,
	const struct kn_attend_source *from, size_t lo, size_t hi, float (*p)[KN_PAGE_KEYS], const float *alpha)
{
	float *out = kn_attend_out(b, query);
	size_t size = b->value_size;
	switch (type) {
	case CAD_KV_F32: values_of(CAD_KV_F32, count, out, b->ldo, size, pages, from, lo, hi, p, alpha); break;
	case CAD_KV_BF16: values_of(CAD_KV_BF16, count, out, b->ldo, size, pages, from, lo, hi, p, alpha); break;
	case CAD_KV_INT8: values_of(CAD_KV_INT8, count, out, b->ldo, size, pages, from, lo, hi, p, alpha); break;
	}
}

static void page_widen(enum cad_kv type, const struct kn_attend_source *from, size_t rows, size_t n, float *out)
{
	if (type == CAD_KV_BF16)
		widen_rows(CAD_KV_BF16, from, rows, n, out);
	else
		widen_rows(CAD_KV_INT8, from, rows, n, out);
}

/* ---- pages ---- */

/* Some pages, and their rows of scores: those of all queries for the first page, then for the
 * next. */
struct kn_attend_step {
	const struct kn_attend_pages *all;
	size_t first, pages;
	size_t lo[KN_ATTEND_QUERIES], hi[KN_ATTEND_QUERIES]; /* keys that the row's query sees */
	float alpha[KN_ATTEND_QUERIES + 16];
	_Alignas(64) float s[KN_ATTEND_QUERIES][KN_PAGE_KEYS];
	_Alignas(64) float widened[KN_KEY_SIZE_MAX * KN_PAGE_KEYS + 32];
	_Alignas(64) float values[KN_PAGE_KEYS * KN_VALUE_SIZE_MAX]; /* that were keys */
};

/* Eight lanes of each of eight rows, halves of 4, 2, 1 put together by op: row i's in lane i. */
#define KN_ROWS_REDUCE(name, op) \
	static __m256 name(const __m256 rows[8]) \
	{ \
		__m256 four[4], two[2]; \
		for (size_t i = 0; i < 4; i++) \
			four[i] = op(_mm256_permute2f128_ps(rows[i], rows[i + 4], 0x20), \
				_mm256_permute2f128_ps(rows[i], rows[i + 4], 0x31)); \
		for (size_t i = 0; i < 2; i++) \
			two[i] = op(_mm256_shuffle_ps(four[i], four[i + 2], 0x44), \
				_mm256_shuffle_ps(four[i], four[i + 2], 0xee)); \
		__m256 one = op(_mm256_shuffle_ps(two[0], two[1], 0x88), _mm256_shuffle_ps(two[0], two[1], 0xdd)); \
		return _mm256_permutevar8x32_ps(one, _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7)); \
	}
KN_ROWS_REDUCE(rows_largest, _mm256_max_ps)
KN_ROWS_REDUCE(rows_sum, _mm256_add_ps)

/* Of the keys of a row's page, and behind them of its values; NULL when it is not int8. */
static const float *row_scales(const struct kn_attend_block *b, const struct kn_attend_step *t, size_t row)
{
	if (t->all->type != CAD_KV_INT8)
		return NULL;
	return kn_attend_scales(b, t->all->part[t->first + (t->pages > 1 ? row / b->count : 0)]);
}

/* Rows first .. first + count - 1, at most 8 * eights: scores to weights; m, l and alpha of their
 * queries. */
KN_TILE void rows_softmax(
	const size_t eights, struct kn_attend_block *b, struct kn_attend_step *t, size_t first, size_t count)
{
	__m256 lanes[16];
	float most[16], before[16] = { 0 }, m[16] = { 0 }, sum[16];
	const float *scales[16];
	size_t query = first % b->count;

	for (size_t i = 0; i < count; i++)
		scales[i] = row_scales(b, t, first + i);
	for (size_t i = 0; i < 8 * eights; i++)
		lanes[i] = i < count
			? row_most(t->s[first + i], t->lo[first + i], t->hi[first + i], b->scale, scales[i])
			: _mm256_setzero_ps();
	for (size_t i = 0; i < eights; i++)
		_mm256_storeu_ps(most + 8 * i, rows_largest(lanes + 8 * i));
	for (size_t i = 0, at = query; i < count; i++, at = at + 1 < b->count ? at + 1 : 0) {
		before[i] = b->m[at];
		m[i] = most[i] > before[i] ? most[i] : before[i];
		b->m[at] = m[i];
	}

	for (size_t i = 0; i < count; i++)
		lanes[i] = row_weights(t->s[first + i], t->lo[first + i], t->hi[first + i], b->scale, m[i],
			scales[i] ? scales[i] + kn_attend_value_scales(b) : NULL);
	for (size_t i = 0; i < 8 * eights; i += 8) {
		_mm256_storeu_ps(t->alpha + first + i,
			kn_exp_8(_mm256_sub_ps(_mm256_loadu_ps(before + i), _mm256_loadu_ps(m + i))));
		_mm256_storeu_ps(sum + i, rows_sum(lanes + i));
	}
	for (size_t i = 0, at = query; i < count; i++, at = at + 1 < b->count ? at + 1 : 0)
		if (t->lo[first + i] < t->hi[first + i])
			b->l[at] = fmaf(b->l[at], t->alpha[first + i], sum[i]);
}

static void step_softmax(struct kn_attend_block *b, struct kn_attend_step *t)
{
	for (size_t row = 0, rest = t->pages * b->count; rest > 0;) {
		size_t count = rest < 16 ? rest : 16;
		if (count > 8)
			rows_softmax(2, b, t, row, count);
		else
			rows_softmax(1, b, t, row, count);
		row += count;
		rest -= count;
	}
}

/* Which keys each row sees; false when none does. */
static bool step_look(const struct kn_attend_block *b, struct kn_attend_step *t)
{
	size_t row = 0, seen = 0;
	for (size_t page = 0; page < t->pages; page++) {
		uint32_t first = t->all->first + (uint32_t)((t->first + page) * KN_PAGE_KEYS);
		for (size_t i = 0; i < b->count; i++, row++) {
			uint32_t begin = b->begin[i], end = b->end[i];
			bool sees = begin < first + KN_PAGE_KEYS && end > first;
			t->lo[row] = sees && begin > first ? begin - first : 0;
			t->hi[row] = !sees ? 0 : end < first + KN_PAGE_KEYS ? end - first : KN_PAGE_KEYS;
			seen += sees;
		}
	}
	return seen > 0;
}

static bool tile_sees(const struct kn_attend_step *t, size_t row, size_t count)
{
	for (size_t i = row; i < row + count; i++)
		if (t->lo[i] < t->hi[i])
			return true;
	return false;
}

/* The values of one page for one tile, whose rows begin at `row`. They need not see the same keys:
 * those that all see go through the tile, what stands before and after row by row, ascending. */
static void tile_add(enum cad_kv type, struct kn_attend_block *b, struct kn_attend_step *t, size_t query, size_t count,
	size_t row, const struct kn_attend_source *from)
{
	size_t lo = 0, hi = KN_PAGE_KEYS;
	bool together = true;

	for (size_t i = row; i < row + count; i++) {
		together = together && t->lo[i] < t->hi[i];
		lo = t->lo[i] > lo ? t->lo[i] : lo;
		hi = t->hi[i] < hi ? t->hi[i] : hi;
	}
	together = together && lo < hi;

	for (size_t i = 0; i < count; i++) {
		size_t at = row + i, end = together ? lo : t->hi[at];
		if (t->lo[at] >= end)
			continue;
		page_values(type, b, query + i, 1, 1, from, t->lo[at], end, &t->s[at], &t->alpha[at]);
		t->alpha[at] = 1.0f;
	}

	if (!together)
		return;
	page_values(type, b, query, count, 1, from, lo, hi, &t->s[row], &t->alpha[row]);
	for (size_t i = 0; i < count; i++) {
		t->alpha[row + i] = 1.0f;
		if (hi < t->hi[row + i])
			page_values(
				type, b, query + i, 1, 1, from, hi, t->hi[row + i], &t->s[row + i], &t->alpha[row + i]);
	}
}

static struct kn_attend_source source_keys(
	const struct kn_attend_block *b, const struct kn_attend_pages *pages, size_t page)
{
	const uint8_t *part = pages->part[page];
	const uint8_t *next = b->latent ? pages->part[page + 1] : part + kn_kv_values_offset(pages->type, b->key_size);
	return (struct kn_attend_source){ part, next, 0 };
}

/* The keys that are read after these values are `step` pages further on. */
static struct kn_attend_source source_values(
	const struct kn_attend_block *b, const struct kn_attend_pages *pages, size_t page, size_t step)
{
	const uint8_t *next = pages->part[page + step < pages->count ? page + step : pages->count];
	if (pages->type == CAD_KV_INT8)
		for (size_t i = 0; i < 2 * KN_PAGE_KEYS; i += 16)
			_mm_prefetch((const char *)(kn_attend_scales(b, next) + i), _MM_HINT_T0);
	return (struct kn_attend_source){ pages->part[page] + kn_kv_values_offset(pages->type, b->key_size), next, 0 };
}

/* What all tiles read of a page, rows of n elements: widened, if it is not f32. */
static enum cad_kv widen_for_all(
	enum cad_kv type, struct kn_attend_step *t, struct kn_attend_source *from, size_t rows, size_t n)
{
	if (type == CAD_KV_F32)
		return type;
	page_widen(type, from, rows, n, t->widened);
	from->x = (const uint8_t *)t->widened;
	from->slower = type == CAD_KV_BF16 ? 1 : 2;
	return CAD_KV_F32;
}

/* Of several tiles that read `bytes` of f32 one after the other, four fetch a quarter each of what
 * comes next, or two a half. */
static struct kn_attend_source source_share(struct kn_attend_source from, size_t tiles, size_t tile, size_t bytes)
{
	unsigned parts = tiles > 3 ? 2 : tiles > 1 ? 1 : 0;
	from.slower += parts;
	from.ahead = tile >> parts == 0 ? from.ahead + tile * (bytes >> from.slower) : from.x;
	return from;
}

static void step_scores(struct kn_attend_block *b, struct kn_attend_step *t)
{
	enum cad_kv type = t->all->type;
	size_t tiles = (b->count + KN_ATTEND_TILE - 1) / KN_ATTEND_TILE;
	struct kn_attend_source from[PAGES_AT_ONCE];
	for (size_t i = 0; i < t->pages; i++)
		from[i] = source_keys(b, t->all, t->first + i);

	if (tiles == 1) {
		page_scores(type, b, 0, b->count, t->pages, from, t->s);
		return;
	}

	type = widen_for_all(type, t, from, b->key_size, KN_PAGE_KEYS);
	for (size_t tile = 0; tile < tiles; tile++) {
		size_t query = tile * KN_ATTEND_TILE, rest = b->count - query,
		       count = rest < KN_ATTEND_TILE ? rest : KN_ATTEND_TILE;
		struct kn_attend_source shared =
			source_share(from[0], tiles, tile, b->key_size * KN_PAGE_KEYS * sizeof(float));
		if (tile_sees(t, query, count))
			page_scores(type, b, query, count, 1, &shared, t->s + query);
	}
}

/* Whether every row sees all keys of its page. */
static bool step_whole(const struct kn_attend_block *b, const struct kn_attend_step *t)
{
	for (size_t row = 0; row < t->pages * b->count; row++)
		if (t->hi[row] - t->lo[row] < KN_PAGE_KEYS)
			return false;
	return true;
}

/* The values that are in the keys of a page, a row each; those of one page serve all queries. Elements
 * past a key are zeros. */
static struct kn_attend_source values_of_keys(struct kn_attend_block *b, struct kn_attend_step *t, size_t page)
{
	struct kn_attend_source keys = source_keys(b, t->all, page);
	size_t size = b->value_size, d = 0;

	widen_for_all(t->all->type, t, &keys, size < b->key_size ? size : b->key_size, KN_PAGE_KEYS);
	const float *k = (const float *)keys.x;
	for (; d + 4 <= size && d + 4 <= b->key_size; d += 4) {
		const float *const rows[4] = { k + d * KN_PAGE_KEYS, k + (d + 1) * KN_PAGE_KEYS,
			k + (d + 2) * KN_PAGE_KEYS, k + (d + 3) * KN_PAGE_KEYS };
		kn_transpose_4_rows(rows, KN_PAGE_KEYS, t->values + d, size);
	}
	for (; d < size; d++)
		for (size_t j = 0; j < KN_PAGE_KEYS; j++)
			t->values[j * size + d] = d < b->key_size ? k[d * KN_PAGE_KEYS + j] : 0.0f;
	return (struct kn_attend_source){ (const uint8_t *)t->values, (const uint8_t *)t->values, 0 };
}

static void step_values(struct kn_attend_block *b, struct kn_attend_step *t)
{
	if (t->pages > 1 && !b->latent && step_whole(b, t)) {
		struct kn_attend_source from[PAGES_AT_ONCE];
		for (size_t i = 0; i < t->pages; i++)
			from[i] = source_values(b, t->all, t->first + i, t->pages);
		page_values(t->all->type, b, 0, b->count, t->pages, from, 0, KN_PAGE_KEYS, t->s, t->alpha);
		return;
	}

	size_t tiles = (b->count + KN_ATTEND_TILE - 1) / KN_ATTEND_TILE;
	for (size_t page = 0; page < t->pages; page++) {
		enum cad_kv type = t->all->type;
		struct kn_attend_source from = b->latent ? values_of_keys(b, t, t->first + page)
							 : source_values(b, t->all, t->first + page, t->pages);
		if (b->latent)
			type = CAD_KV_F32;
		else if (tiles > 1)
			type = widen_for_all(type, t, &from, KN_PAGE_KEYS, b->value_size);
		for (size_t tile = 0; tile < tiles; tile++) {
			size_t query = tile * KN_ATTEND_TILE, rest = b->count - query,
			       count = rest < KN_ATTEND_TILE ? rest : KN_ATTEND_TILE;
			struct kn_attend_source shared =
				source_share(from, tiles, tile, KN_PAGE_KEYS * b->value_size * sizeof(float));
			tile_add(type, b, t, query, count, page * b->count + query, &shared);
		}
	}
}

static void attend_pages(struct kn_attend_block *b, const struct kn_attend_pages *pages)
{
	struct kn_attend_step t; /* no zeros: it is large */
	size_t at_once = b->count < PAGES_AT_ONCE ? PAGES_AT_ONCE / b->count : 1;

	t.all = pages;
	for (t.first = 0; t.first < pages->count; t.first += t.pages) {
		t.pages = pages->count - t.first >= at_once ? at_once : 1;
		if (!step_look(b, &t))
			continue;
		step_scores(b, &t);
		step_softmax(b, &t);
		step_values(b, &t);
	}
}

#endif
