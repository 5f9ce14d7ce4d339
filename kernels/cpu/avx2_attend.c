/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over pages: four registers hold the 32 keys of a score; four or eight the elements of a
 * value. There are sixteen, so a tile goes in threes; in pairs where keys and values are widened. */
#include "kernels/cpu/attend_source.h"
#include "kernels/cpu/vector_exp.h"

enum { LANES = 8, PAGES_AT_ONCE = 2, ROWS = 3 };
#define ROWS_OF(type) ((type) == CAD_KV_F32 ? 3 : 2)

KN_TILE __m256 widen_int8(__m128i q) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)); }

/* Of elements i .. i + 31 of what the cache keeps: vector v, as f32. */
KN_TILE __m256 widen(const enum cad_kv type, const uint8_t *x, size_t i, const size_t v)
{
	if (type == CAD_KV_F32)
		return _mm256_loadu_ps((const float *)x + i + v * LANES);
	if (type == CAD_KV_INT8)
		return widen_int8(_mm_loadl_epi64((const __m128i *)(x + i + v * LANES)));
	__m256i both = _mm256_loadu_si256((const __m256i *)((const uint16_t *)x + i) + v % 2);
	return _mm256_castsi256_ps(
		v < 2 ? _mm256_slli_epi32(both, 16) : _mm256_and_si256(both, _mm256_set1_epi32((int)0xffff0000)));
}

/* Of the last `count` of a row, less than 32 and a multiple of 4; nothing else is read. */
KN_TILE __m256 widen_last(const enum cad_kv type, const uint8_t *x, size_t i, size_t count, const size_t v)
{
	int rest = (int)count - (int)(v * LANES);
	__m128i fours = _mm_cmpgt_epi32(_mm_set1_epi32(rest), _mm_setr_epi32(0, 4, 8, 8));

	i += v * LANES;
	if (type == CAD_KV_F32) {
		const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
		return _mm256_maskload_ps((const float *)x + i, _mm256_cmpgt_epi32(_mm256_set1_epi32(rest), lanes));
	}
	if (type == CAD_KV_INT8) {
		fours = _mm_move_epi64(fours);
		return widen_int8(_mm_maskload_epi32((const void *)(x + i), fours));
	}
	fours = _mm_unpacklo_epi32(fours, fours);
	__m128i half = _mm_maskload_epi32((const void *)((const uint16_t *)x + i), fours);
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

KN_TILE void tile_scores(const enum cad_kv type, const size_t mr, const size_t pages, const float *q, size_t size,
	const struct kn_attend_source *from, float (*s)[KN_PAGE_KEYS])
{
	__m256 acc[PAGES_AT_ONCE][ROWS][4];

	KN_UNROLL_FOR (size_t p = 0; p < pages; p++)
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
				acc[p][r][v] = _mm256_setzero_ps();

	for (size_t d = 0; d < size; d++, q += KN_ATTEND_TILE) {
		__m256 x[ROWS];
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			x[r] = _mm256_set1_ps(q[r]);
		KN_UNROLL_FOR (size_t p = 0; p < pages; p++) {
			kn_attend_fetch(type, &from[p], d * KN_PAGE_KEYS, KN_PAGE_KEYS);
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++) {
				__m256 k = widen(type, from[p].x, d * KN_PAGE_KEYS, v);
				KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
					acc[p][r][v] = _mm256_fmadd_ps(x[r], k, acc[p][r][v]);
			}
		}
	}

	KN_UNROLL_FOR (size_t p = 0; p < pages; p++)
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
				_mm256_store_ps(s[p * mr + r] + v * LANES, acc[p][r][v]);
}

KN_TILE void scores_of(const enum cad_kv type, const float *q, size_t size, size_t count, size_t pages,
	const struct kn_attend_source *from, float (*s)[KN_PAGE_KEYS])
{
	if (count == 1 && pages == 2)
		tile_scores(type, 1, 2, q, size, from, s);
	else
		for (size_t r = 0; r < count; r += ROWS_OF(type))
			switch (count - r) {
			case 1: tile_scores(type, 1, 1, q + r, size, from, s + r); break;
			case 2: tile_scores(type, 2, 1, q + r, size, from, s + r); break;
			default: tile_scores(type, ROWS_OF(type), 1, q + r, size, from, s + r); break;
			}
}

/* Elements d .. d + 8 * nv - 1 of the values of mr queries; or what a value has less than 32 at
 * its end. */
KN_TILE void tile_values(const enum cad_kv type, const size_t mr, const size_t nv, const bool whole, float *out,
	size_t ldo, size_t d, size_t size, const struct kn_attend_source *from, size_t lo, size_t hi,
	float (*p)[KN_PAGE_KEYS], const float *alpha)
{
	__m256 acc[ROWS][8];

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			acc[r][v] =
				_mm256_mul_ps(_mm256_loadu_ps(out + r * ldo + d + v * LANES), _mm256_set1_ps(alpha[r]));

	for (size_t j = lo; j < hi; j++) {
		size_t at = j * size + d;
		__m256 w[ROWS];
		kn_attend_fetch(type, from, at, nv * LANES);
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			w[r] = _mm256_set1_ps(p[r][j]);
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
			size_t block = at + v / 4 * KN_PAGE_KEYS;
			__m256 in = whole ? widen(type, from->x, block, v % 4)
					  : widen_last(type, from->x, block, size - d, v);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
				acc[r][v] = _mm256_fmadd_ps(w[r], in, acc[r][v]);
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			_mm256_storeu_ps(out + r * ldo + d + v * LANES, acc[r][v]);
}

/* As many sums at a time as keep the multipliers busy. */
KN_TILE void tile_all_values(const enum cad_kv type, const size_t mr, float *out, size_t ldo, size_t size,
	const struct kn_attend_source *from, size_t lo, size_t hi, float (*p)[KN_PAGE_KEYS], const float *alpha)
{
	size_t d = 0;
	if (mr == 1)
		for (; d + 8 * LANES <= size; d += 8 * LANES)
			tile_values(type, mr, 8, true, out, ldo, d, size, from, lo, hi, p, alpha);
	for (; d + 4 * LANES <= size; d += 4 * LANES)
		tile_values(type, mr, 4, true, out, ldo, d, size, from, lo, hi, p, alpha);
	if (d < size)
		tile_values(type, mr, 4, false, out, ldo, d, size, from, lo, hi, p, alpha);
}

KN_TILE void values_of(const enum cad_kv type, size_t count, float *out, size_t ldo, size_t size, size_t pages,
	const struct kn_attend_source *from, size_t lo, size_t hi, float (*p)[KN_PAGE_KEYS], const float *alpha)
{
	for (size_t page = 0; page < pages; page++, from++, p += count, alpha += count)
		for (size_t r = 0; r < count; r += ROWS_OF(type)) {
			float *to = out + r * ldo;
			switch (count - r) {
			case 1: tile_all_values(type, 1, to, ldo, size, from, lo, hi, p + r, alpha + r); break;
			case 2: tile_all_values(type, 2, to, ldo, size, from, lo, hi, p + r, alpha + r); break;
			default:
				tile_all_values(type, ROWS_OF(type), to, ldo, size, from, lo, hi, p + r, alpha + r);
				break;
			}
		}
}

KN_TILE void widen_rows(const enum cad_kv type, const struct kn_attend_source *from, size_t rows, size_t n, float *out)
{
	for (size_t r = 0; r < rows; r++)
		for (size_t i = 0; i < n; i += 4 * LANES) {
			size_t at = r * n + i;
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++) /* what is past a row, the next one overwrites */
				_mm256_storeu_ps(out + at + v * LANES,
					n - i >= 4 * LANES ? widen(type, from->x, at, v)
							   : widen_last(type, from->x, at, n - i, v));
		}
}

/* All bits of the lanes of s[8 i ..] that stand for the keys lo .. hi - 1. */
static inline __m256 keys_mask(size_t i, size_t lo, size_t hi)
{
	__m256i key = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32((int)(i * LANES)));
	__m256i before = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)lo), key);
	return _mm256_castsi256_ps(_mm256_andnot_si256(before, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)hi), key)));
}

static inline __m256 row_most(float s[KN_PAGE_KEYS], size_t lo, size_t hi, float scale, const float *sk)
{
	__m256 in[4], by = _mm256_set1_ps(scale), none = _mm256_set1_ps(-INFINITY);
	bool whole = hi - lo == KN_PAGE_KEYS;
	for (size_t i = 0; i < 4; i++) {
		__m256 score = _mm256_load_ps(s + i * LANES);
		if (sk) {
			score = _mm256_mul_ps(score, _mm256_loadu_ps(sk + i * LANES));
			_mm256_store_ps(s + i * LANES, score);
		}
		in[i] = _mm256_mul_ps(score, by);
		if (!whole)
			in[i] = _mm256_blendv_ps(none, in[i], keys_mask(i, lo, hi));
	}
	return _mm256_max_ps(_mm256_max_ps(in[0], in[1]), _mm256_max_ps(in[2], in[3]));
}

static inline __m256 row_weights(float s[KN_PAGE_KEYS], size_t lo, size_t hi, float scale, float m, const float *sv)
{
	__m256 p[4], pairs[2], by = _mm256_set1_ps(scale), most = _mm256_set1_ps(m);
	bool whole = hi - lo == KN_PAGE_KEYS;

	for (size_t i = 0; i < 4; i++) {
		p[i] = kn_exp_8(_mm256_sub_ps(_mm256_mul_ps(_mm256_load_ps(s + i * LANES), by), most));
		if (!whole)
			p[i] = _mm256_and_ps(p[i], keys_mask(i, lo, hi));
		_mm256_store_ps(s + i * LANES, sv ? _mm256_mul_ps(p[i], _mm256_loadu_ps(sv + i * LANES)) : p[i]);
	}

	/* hadd leaves the pairs of both halves interleaved; the permutation puts them in order */
	for (size_t i = 0; i < 2; i++)
		pairs[i] = _mm256_castpd_ps(
			_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_hadd_ps(p[2 * i], p[2 * i + 1])), 0xd8));
	return _mm256_add_ps(pairs[0], pairs[1]);
}

#include "kernels/cpu/attend_pages.h"

void kn_avx2_attend_pages(struct kn_attend_block *b, const struct kn_attend_pages *pages) { attend_pages(b, pages); }
