/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over one page: two registers hold the 32 keys of a score, or 32 elements of a value. */
#include "kernels/cpu/vector_exp.h"
#include "kernels/cpu/forms.h"
#include "kernels/cpu/tile.h"

/* Elements i .. i + 15 of what the cache keeps, as f32. */
KN_TILE __m512 widen(const enum cad_kv type, const uint8_t *x, size_t i)
{
	if (type == CAD_KV_F32)
		return _mm512_loadu_ps((const float *)x + i);
	__m256i half = _mm256_loadu_si256((const __m256i *)((const uint16_t *)x + i));
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Those of them that `has` names; nothing else is read. */
KN_TILE __m512 widen_some(const enum cad_kv type, const uint8_t *x, size_t i, __mmask16 has)
{
	if (type == CAD_KV_F32)
		return _mm512_maskz_loadu_ps(has, (const float *)x + i);
	__m256i half = _mm256_maskz_loadu_epi16(has, (const uint16_t *)x + i);
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* The lines of 32 elements. */
KN_TILE void fetch(const enum cad_kv type, const uint8_t *x, size_t i)
{
	const char *at = (const char *)x + i * kn_kv_element_bytes(type);
	_mm_prefetch(at, _MM_HINT_T0);
	if (type == CAD_KV_F32)
		_mm_prefetch(at + 64, _MM_HINT_T0);
}

KN_TILE void tile_scores(const enum cad_kv type, const size_t mr, const float *q, size_t size,
	const struct kn_attend_page *page, float s[][KN_PAGE_KEYS])
{
	__m512 acc[KN_ATTEND_TILE][2];
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		acc[r][0] = acc[r][1] = _mm512_setzero_ps();

	for (size_t d = 0; d < size; d++) {
		__m512 k0 = widen(type, page->k, d * KN_PAGE_KEYS), k1 = widen(type, page->k, d * KN_PAGE_KEYS + 16);
		fetch(type, page->v, d * KN_PAGE_KEYS);
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
			__m512 x = _mm512_set1_ps(q[d * KN_ATTEND_TILE + r]);
			acc[r][0] = _mm512_fmadd_ps(x, k0, acc[r][0]);
			acc[r][1] = _mm512_fmadd_ps(x, k1, acc[r][1]);
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
		_mm512_store_ps(s[r], acc[r][0]);
		_mm512_store_ps(s[r] + 16, acc[r][1]);
	}
}

KN_TILE void page_scores(const enum cad_kv type, struct kn_attend_block *b, size_t query, size_t count,
	const struct kn_attend_page *page, float s[][KN_PAGE_KEYS])
{
	const float *q = kn_attend_q(b, query, 0);
	switch (count) {
	case 1: tile_scores(type, 1, q, b->key_size, page, s); break;
	case 2: tile_scores(type, 2, q, b->key_size, page, s); break;
	case 3: tile_scores(type, 3, q, b->key_size, page, s); break;
	case 4: tile_scores(type, 4, q, b->key_size, page, s); break;
	case 5: tile_scores(type, 5, q, b->key_size, page, s); break;
	case 6: tile_scores(type, 6, q, b->key_size, page, s); break;
	}
}

static float row_softmax(
	const float s[KN_PAGE_KEYS], size_t lo, size_t hi, float scale, float *m, float *l, float p[KN_PAGE_KEYS])
{
	uint32_t keys = (uint32_t)((1ull << hi) - (1ull << lo));
	__mmask16 has0 = (__mmask16)keys, has1 = (__mmask16)(keys >> 16);
	__m512 none = _mm512_set1_ps(-INFINITY);
	__m512 s0 = _mm512_mask_mul_ps(none, has0, _mm512_load_ps(s), _mm512_set1_ps(scale));
	__m512 s1 = _mm512_mask_mul_ps(none, has1, _mm512_load_ps(s + 16), _mm512_set1_ps(scale));
	float most = _mm512_reduce_max_ps(_mm512_max_ps(s0, s1)), m_new = most > *m ? most : *m;
	__m512 p0 = _mm512_maskz_mov_ps(has0, kn_exp_16(_mm512_sub_ps(s0, _mm512_set1_ps(m_new))));
	__m512 p1 = _mm512_maskz_mov_ps(has1, kn_exp_16(_mm512_sub_ps(s1, _mm512_set1_ps(m_new))));
	float alpha = kn_exp_1(*m - m_new);
	const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
	__m512 pairs = _mm512_add_ps(_mm512_permutex2var_ps(p0, even, p1),
		_mm512_permutex2var_ps(p0, _mm512_add_epi32(even, _mm512_set1_epi32(1)), p1));
	*l = fmaf(*l, alpha, kn_sum_halves_16(_mm512_castps512_ps256(pairs), _mm512_extractf32x8_ps(pairs, 1)));
	*m = m_new;
	_mm512_store_ps(p, p0);
	_mm512_store_ps(p + 16, p1);

	return alpha;
}

/* Elements d .. d + 31 of the values of mr queries; where the value ends inside, has0 and has1 say
 * which elements there are. */
KN_TILE void tile_values(const enum cad_kv type, const size_t mr, const bool whole, float *out, size_t d,
	const struct kn_attend_page *page, size_t size, size_t lo, size_t hi, float p[][KN_PAGE_KEYS],
	const float *alpha)
{
	uint32_t elements = whole ? UINT32_MAX : (1u << (size - d)) - 1;
	__mmask16 has0 = (__mmask16)elements, has1 = (__mmask16)(elements >> 16);
	__m512 acc[KN_ATTEND_TILE][2];
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
		acc[r][0] = _mm512_mul_ps(_mm512_loadu_ps(out + r * CAD_HEAD_SIZE_MAX + d), _mm512_set1_ps(alpha[r]));
		acc[r][1] =
			_mm512_mul_ps(_mm512_loadu_ps(out + r * CAD_HEAD_SIZE_MAX + d + 16), _mm512_set1_ps(alpha[r]));
	}

	for (size_t j = lo; j < hi; j++) {
		size_t at = j * size + d;
		__m512 v0 = whole ? widen(type, page->v, at) : widen_some(type, page->v, at, has0);
		__m512 v1 = whole ? widen(type, page->v, at + 16) : widen_some(type, page->v, at + 16, has1);
		fetch(type, page->next, (d + j) * 32);
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
			__m512 w = _mm512_set1_ps(p[r][j]);
			acc[r][0] = _mm512_fmadd_ps(w, v0, acc[r][0]);
			acc[r][1] = _mm512_fmadd_ps(w, v1, acc[r][1]);
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
		_mm512_storeu_ps(out + r * CAD_HEAD_SIZE_MAX + d, acc[r][0]);
		_mm512_storeu_ps(out + r * CAD_HEAD_SIZE_MAX + d + 16, acc[r][1]);
	}
}

KN_TILE void tile_values_all(const enum cad_kv type, const size_t mr, float *out, const struct kn_attend_page *page,
	size_t size, size_t lo, size_t hi, float p[][KN_PAGE_KEYS], const float *alpha)
{
	size_t d = 0;
	for (; d + 32 <= size; d += 32)
		tile_values(type, mr, true, out, d, page, size, lo, hi, p, alpha);
	if (d < size)
		tile_values(type, mr, false, out, d, page, size, lo, hi, p, alpha);
}

KN_TILE void page_values(const enum cad_kv type, struct kn_attend_block *b, size_t query, size_t count,
	const struct kn_attend_page *page, size_t lo, size_t hi, float p[][KN_PAGE_KEYS], const float *alpha)
{
	float *out = b->out[query];
	switch (count) {
	case 1: tile_values_all(type, 1, out, page, b->value_size, lo, hi, p, alpha); break;
	case 2: tile_values_all(type, 2, out, page, b->value_size, lo, hi, p, alpha); break;
	case 3: tile_values_all(type, 3, out, page, b->value_size, lo, hi, p, alpha); break;
	case 4: tile_values_all(type, 4, out, page, b->value_size, lo, hi, p, alpha); break;
	case 5: tile_values_all(type, 5, out, page, b->value_size, lo, hi, p, alpha); break;
	case 6: tile_values_all(type, 6, out, page, b->value_size, lo, hi, p, alpha); break;
	}
}

#include "kernels/cpu/attend_page.h"

void kn_avx512_attend_page(struct kn_attend_block *b, const struct kn_attend_page *page) { attend_page_of(b, page); }
