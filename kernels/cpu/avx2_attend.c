/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over one page: four registers hold the 32 keys of a score, or 32 elements of a value; a
 * tile of six goes as three and three. */
#include "kernels/cpu/vector_exp.h"
#include "kernels/cpu/forms.h"
#include "kernels/cpu/tile.h"

enum { HALF = KN_ATTEND_TILE / 2 };

/* Elements i .. i + 7 of what the cache keeps, as f32. */
KN_TILE __m256 widen(const enum cad_kv type, const uint8_t *x, size_t i)
{
	if (type == CAD_KV_F32)
		return _mm256_loadu_ps((const float *)x + i);
	__m128i half = _mm_loadu_si128((const __m128i *)((const uint16_t *)x + i));
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* For widen_some: the first `count` of eight, a multiple of 4 or any number from 8 on. bf16 is read by fours. */
KN_TILE __m256i lanes_below(const enum cad_kv type, int count)
{
	if (type == CAD_KV_F32)
		return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
	return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 4, 8, 12));
}

/* Those of them that `has` names; nothing else is read. */
KN_TILE __m256 widen_some(const enum cad_kv type, const uint8_t *x, size_t i, __m256i has)
{
	if (type == CAD_KV_F32)
		return _mm256_maskload_ps((const float *)x + i, has);
	__m128i half = _mm_maskload_epi64((const void *)((const uint16_t *)x + i), _mm256_castsi256_si128(has));
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
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
	__m256 acc[HALF][4];
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t i = 0; i < 4; i++)
			acc[r][i] = _mm256_setzero_ps();

	for (size_t d = 0; d < size; d++) {
		fetch(type, page->v, d * KN_PAGE_KEYS);
		__m256 x[HALF];
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			x[r] = _mm256_set1_ps(q[d * KN_ATTEND_TILE + r]);
		KN_UNROLL_FOR (size_t i = 0; i < 4; i++) {
			__m256 in = widen(type, page->k, d * KN_PAGE_KEYS + i * 8);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
				acc[r][i] = _mm256_fmadd_ps(x[r], in, acc[r][i]);
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t i = 0; i < 4; i++)
			_mm256_store_ps(s[r] + i * 8, acc[r][i]);
}

KN_TILE void page_scores(const enum cad_kv type, struct kn_attend_block *b, size_t query, size_t count,
	const struct kn_attend_page *page, float s[][KN_PAGE_KEYS])
{
	for (size_t r = 0; r < count; r += HALF) {
		const float *q = kn_attend_q(b, query + r, 0);
		switch (count - r) {
		case 1: tile_scores(type, 1, q, b->key_size, page, s + r); break;
		case 2: tile_scores(type, 2, q, b->key_size, page, s + r); break;
		default: tile_scores(type, 3, q, b->key_size, page, s + r); break;
		}
	}
}

static float row_softmax(
	const float s[KN_PAGE_KEYS], size_t lo, size_t hi, float scale, float *m, float *l, float p[KN_PAGE_KEYS])
{
	const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	__m256 in[4], keep[4], out[4];

	for (int i = 0; i < 4; i++) {
		__m256i from = _mm256_cmpgt_epi32(
			_mm256_add_epi32(lanes, _mm256_set1_epi32(8 * i + 1)), _mm256_set1_epi32((int)lo));
		__m256i to = _mm256_cmpgt_epi32(
			_mm256_set1_epi32((int)hi), _mm256_add_epi32(lanes, _mm256_set1_epi32(8 * i)));
		keep[i] = _mm256_castsi256_ps(_mm256_and_si256(from, to));
		in[i] = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY),
			_mm256_mul_ps(_mm256_load_ps(s + 8 * i), _mm256_set1_ps(scale)), keep[i]);
	}

	__m256 most8 = _mm256_max_ps(_mm256_max_ps(in[0], in[1]), _mm256_max_ps(in[2], in[3]));
	__m128 most4 = _mm_max_ps(_mm256_castps256_ps128(most8), _mm256_extractf128_ps(most8, 1));
	most4 = _mm_max_ps(most4, _mm_movehl_ps(most4, most4));
	float most = _mm_cvtss_f32(_mm_max_ss(most4, _mm_movehdup_ps(most4))), m_new = most > *m ? most : *m;
	for (int i = 0; i < 4; i++) {
		out[i] = _mm256_and_ps(keep[i], kn_exp_8(_mm256_sub_ps(in[i], _mm256_set1_ps(m_new))));
		_mm256_store_ps(p + 8 * i, out[i]);
	}

	float alpha = kn_exp_1(*m - m_new);

	/* hadd leaves the pairs of both halves interleaved; the permutation puts them in order */
	__m256 low = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_hadd_ps(out[0], out[1])), 0xd8));
	__m256 high = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_hadd_ps(out[2], out[3])), 0xd8));
	*l = fmaf(*l, alpha, kn_sum_halves_16(low, high));
	*m = m_new;

	return alpha;
}

/* Elements d .. d + 31 of the values of mr queries; a value that ends inside is read through masks. */
KN_TILE void tile_values(const enum cad_kv type, const size_t mr, const bool whole, float *out, size_t d,
	const struct kn_attend_page *page, size_t size, size_t lo, size_t hi, float p[][KN_PAGE_KEYS],
	const float *alpha)
{
	__m256 acc[HALF][4];
	__m256i has[4];

	KN_UNROLL_FOR (size_t i = 0; i < 4; i++)
		has[i] = lanes_below(type, (int)(size - d) - 8 * (int)i);
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t i = 0; i < 4; i++)
			acc[r][i] = _mm256_mul_ps(
				_mm256_loadu_ps(out + r * CAD_HEAD_SIZE_MAX + d + i * 8), _mm256_set1_ps(alpha[r]));

	for (size_t j = lo; j < hi; j++) {
		size_t at = j * size + d;
		fetch(type, page->next, (d + j) * 32);
		__m256 w[HALF];
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			w[r] = _mm256_set1_ps(p[r][j]);
		KN_UNROLL_FOR (size_t i = 0; i < 4; i++) {
			__m256 value = whole ? widen(type, page->v, at + i * 8)
					     : widen_some(type, page->v, at + i * 8, has[i]);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
				acc[r][i] = _mm256_fmadd_ps(w[r], value, acc[r][i]);
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t i = 0; i < 4; i++)
			_mm256_storeu_ps(out + r * CAD_HEAD_SIZE_MAX + d + i * 8, acc[r][i]);
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
	for (size_t r = 0; r < count; r += HALF)
		switch (count - r) {
		case 1:
			tile_values_all(type, 1, b->out[query + r], page, b->value_size, lo, hi, p + r, alpha + r);
			break;
		case 2:
			tile_values_all(type, 2, b->out[query + r], page, b->value_size, lo, hi, p + r, alpha + r);
			break;
		default:
			tile_values_all(type, 3, b->out[query + r], page, b->value_size, lo, hi, p + r, alpha + r);
			break;
		}
}

#include "kernels/cpu/attend_page.h"

void kn_avx2_attend_page(struct kn_attend_block *b, const struct kn_attend_page *page) { attend_page_of(b, page); }
