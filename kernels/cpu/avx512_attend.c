/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over pages: two registers hold the 32 keys of a score; two, four or eight the elements
 * of a value. */
#include "kernels/cpu/attend_source.h"
#include "kernels/cpu/vector_exp.h"

enum { LANES = 16, PAGES_AT_ONCE = 4 };

/* queries of a tile */
#define EACH_COUNT(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)

KN_TILE __m512 widen_int8(__m128i q) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)); }

/* Elements i .. i + 31 of what the cache keeps, as f32. */
KN_TILE void widen(const enum cad_kv type, const uint8_t *x, size_t i, __m512 out[2])
{
	if (type == CAD_KV_F32) {
		out[0] = _mm512_loadu_ps((const float *)x + i);
		out[1] = _mm512_loadu_ps((const float *)x + i + LANES);
	} else if (type == CAD_KV_BF16) {
		__m512i both = _mm512_loadu_si512((const uint16_t *)x + i);
		out[0] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
		out[1] = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000)));
	} else {
		out[0] = widen_int8(_mm_loadu_si128((const __m128i *)(x + i)));
		out[1] = widen_int8(_mm_loadu_si128((const __m128i *)(x + i + LANES)));
	}
}

/* The last `count` of a row, less than 32; nothing else is read. */
KN_TILE void widen_last(const enum cad_kv type, const uint8_t *x, size_t i, size_t count, __m512 out[2])
{
	uint32_t elements = (1u << count) - 1;
	KN_UNROLL_FOR (size_t v = 0; v < 2; v++, i += LANES) {
		__mmask16 has = (__mmask16)(elements >> v * LANES);
		if (type == CAD_KV_F32) {
			out[v] = _mm512_maskz_loadu_ps(has, (const float *)x + i);
		} else if (type == CAD_KV_BF16) {
			__m256i half = _mm256_maskz_loadu_epi16(has, (const uint16_t *)x + i);
			out[v] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
		} else {
			out[v] = widen_int8(_mm_maskz_loadu_epi8(has, x + i));
		}
	}
}

KN_TILE void tile_scores(const enum cad_kv type, const size_t mr, const size_t pages, const float *q, size_t size,
	const struct kn_attend_source *from, float (*s)[KN_PAGE_KEYS])
{
	__m512 acc[PAGES_AT_ONCE][KN_ATTEND_TILE][2];

	KN_UNROLL_FOR (size_t p = 0; p < pages; p++)
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			acc[p][r][0] = acc[p][r][1] = _mm512_setzero_ps();

	for (size_t d = 0; d < size; d++, q += KN_ATTEND_TILE)
		KN_UNROLL_FOR (size_t p = 0; p < pages; p++) {
			__m512 k[2];
			widen(type, from[p].x, d * KN_PAGE_KEYS, k);
			kn_attend_fetch(type, &from[p], d * KN_PAGE_KEYS, KN_PAGE_KEYS);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
				__m512 x = _mm512_set1_ps(q[r]);
				acc[p][r][0] = _mm512_fmadd_ps(x, k[0], acc[p][r][0]);
				acc[p][r][1] = _mm512_fmadd_ps(x, k[1], acc[p][r][1]);
			}
		}

	KN_UNROLL_FOR (size_t p = 0; p < pages; p++)
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
			_mm512_store_ps(s[p * mr + r], acc[p][r][0]);
			_mm512_store_ps(s[p * mr + r] + LANES, acc[p][r][1]);
		}
}

KN_TILE void scores_of(const enum cad_kv type, const float *q, size_t size, size_t count, size_t pages,
	const struct kn_attend_source *from, float (*s)[KN_PAGE_KEYS])
{
	if (count == 1 && pages == 4)
		tile_scores(type, 1, 4, q, size, from, s);
	else if (count == 2 && pages == 2)
		tile_scores(type, 2, 2, q, size, from, s);
	else
		switch (count) {
#define CASE(n) \
	case n: tile_scores(type, n, 1, q, size, from, s); break;
			EACH_COUNT(CASE)
#undef CASE
		}
}

/* Elements d .. d + 16 * nv - 1 of the values of mr queries; or what a value has less than 32 at
 * its end. The sums stay in registers from page to page. */
KN_TILE void tile_values(const enum cad_kv type, const size_t mr, const size_t nv, const bool whole, float *out,
	size_t ldo, size_t d, size_t size, size_t pages, const struct kn_attend_source *from, size_t lo, size_t hi,
	float (*p)[KN_PAGE_KEYS], const float *alpha)
{
	__m512 acc[KN_ATTEND_TILE][8];

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			acc[r][v] = _mm512_loadu_ps(out + r * ldo + d + v * LANES);

	for (size_t page = 0; page < pages; page++, from++, p += mr, alpha += mr) {
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
				acc[r][v] = _mm512_mul_ps(acc[r][v], _mm512_set1_ps(alpha[r]));
		for (size_t j = lo; j < hi; j++) {
			size_t at = j * size + d;
			__m512 in[8];
			kn_attend_fetch(type, from, at, nv * LANES);
			KN_UNROLL_FOR (size_t v = 0; v < nv; v += 2)
				if (whole)
					widen(type, from->x, at + v * LANES, &in[v]);
				else
					widen_last(type, from->x, at, size - d, in);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
				__m512 w = _mm512_set1_ps(p[r][j]);
				KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
					acc[r][v] = _mm512_fmadd_ps(w, in[v], acc[r][v]);
			}
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			_mm512_storeu_ps(out + r * ldo + d + v * LANES, acc[r][v]);
}

/* As many sums at a time as keep the multipliers busy. */
KN_TILE void tile_all_values(const enum cad_kv type, const size_t mr, float *out, size_t ldo, size_t size, size_t pages,
	const struct kn_attend_source *from, size_t lo, size_t hi, float (*p)[KN_PAGE_KEYS], const float *alpha)
{
	size_t d = 0;
	if (mr == 1)
		for (; d + 8 * LANES <= size; d += 8 * LANES)
			tile_values(type, mr, 8, true, out, ldo, d, size, pages, from, lo, hi, p, alpha);
	if (mr <= 4)
		for (; d + 4 * LANES <= size; d += 4 * LANES)
			tile_values(type, mr, 4, true, out, ldo, d, size, pages, from, lo, hi, p, alpha);
	for (; d + 2 * LANES <= size; d += 2 * LANES)
		tile_values(type, mr, 2, true, out, ldo, d, size, pages, from, lo, hi, p, alpha);
	if (d < size)
		tile_values(type, mr, 2, false, out, ldo, d, size, pages, from, lo, hi, p, alpha);
}

KN_TILE void values_of(const enum cad_kv type, size_t count, float *out, size_t ldo, size_t size, size_t pages,
	const struct kn_attend_source *from, size_t lo, size_t hi, float (*p)[KN_PAGE_KEYS], const float *alpha)
{
	switch (count) {
#define CASE(n) \
	case n: tile_all_values(type, n, out, ldo, size, pages, from, lo, hi, p, alpha); break;
		EACH_COUNT(CASE)
#undef CASE
	}
}

KN_TILE void widen_rows(const enum cad_kv type, const struct kn_attend_source *from, size_t rows, size_t n, float *out)
{
	__m512 in[2];
	for (size_t r = 0; r < rows; r++)
		for (size_t i = 0; i < n; i += 2 * LANES) {
			size_t at = r * n + i;
			if (n - i >= 2 * LANES)
				widen(type, from->x, at, in);
			else
				widen_last(type, from->x, at, n - i, in);
			_mm512_storeu_ps(out + at, in[0]); /* what is past a row, the next one overwrites */
			_mm512_storeu_ps(out + at + LANES, in[1]);
		}
}

KN_TILE void keys_masks(size_t lo, size_t hi, __mmask16 has[2])
{
	uint32_t keys = (uint32_t)((1ull << hi) - (1ull << lo));
	has[0] = (__mmask16)keys;
	has[1] = (__mmask16)(keys >> LANES);
}

static inline __m256 row_most(float s[KN_PAGE_KEYS], size_t lo, size_t hi, float scale, const float *sk)
{
	__mmask16 has[2];
	__m512 most[2], none = _mm512_set1_ps(-INFINITY), by = _mm512_set1_ps(scale);

	keys_masks(lo, hi, has);
	for (int i = 0; i < 2; i++) {
		__m512 score = _mm512_load_ps(s + i * LANES);
		if (sk) {
			score = _mm512_mul_ps(score, _mm512_loadu_ps(sk + i * LANES));
			_mm512_store_ps(s + i * LANES, score);
		}
		most[i] = _mm512_mask_mul_ps(none, has[i], score, by);
	}
	most[0] = _mm512_max_ps(most[0], most[1]);
	return _mm256_max_ps(_mm512_castps512_ps256(most[0]), _mm512_extractf32x8_ps(most[0], 1));
}

static inline __m256 row_weights(float s[KN_PAGE_KEYS], size_t lo, size_t hi, float scale, float m, const float *sv)
{
	const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
		      odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
	__mmask16 has[2];
	__m512 p[2], by = _mm512_set1_ps(scale), most = _mm512_set1_ps(m);

	keys_masks(lo, hi, has);
	for (int i = 0; i < 2; i++) {
		__m512 scaled = _mm512_mul_ps(_mm512_load_ps(s + i * LANES), by);
		p[i] = _mm512_maskz_mov_ps(has[i], kn_exp_16(_mm512_sub_ps(scaled, most)));
		_mm512_store_ps(s + i * LANES, sv ? _mm512_mul_ps(p[i], _mm512_loadu_ps(sv + i * LANES)) : p[i]);
	}
	__m512 pairs = _mm512_add_ps(_mm512_permutex2var_ps(p[0], even, p[1]), _mm512_permutex2var_ps(p[0], odd, p[1]));
	return _mm256_add_ps(_mm512_castps512_ps256(pairs), _mm512_extractf32x8_ps(pairs, 1));
}

#include "kernels/cpu/attend_pages.h"

void kn_avx512_attend_pages(struct kn_attend_block *b, const struct kn_attend_pages *pages) { attend_pages(b, pages); }
