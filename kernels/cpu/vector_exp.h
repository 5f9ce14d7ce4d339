/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/exp.h on 8 and 16 lanes, with the same bits; and the sum of 16 lanes, because softmax wants
 * both. */
#ifndef CADRE_KERNELS_CPU_VECTOR_EXP_H
#define CADRE_KERNELS_CPU_VECTOR_EXP_H

#include "kernels/exp.h"

#include <immintrin.h>

static inline __m256 kn_exp_8(__m256 x)
{
	__m256 in = _mm256_min_ps(_mm256_set1_ps(KN_EXP_MAX), x); /* the second operand when either is NaN */
	__m256 t = _mm256_fmadd_ps(in, _mm256_set1_ps(KN_EXP_LOG2E), _mm256_set1_ps(KN_EXP_MAGIC));
	__m256 n = _mm256_sub_ps(t, _mm256_set1_ps(KN_EXP_MAGIC));
	__m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-KN_EXP_LN2_HI), in);

	r = _mm256_fmadd_ps(n, _mm256_set1_ps(-KN_EXP_LN2_LO), r);
	__m256 p = _mm256_fmadd_ps(_mm256_set1_ps(KN_EXP_C7), r, _mm256_set1_ps(KN_EXP_C6));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KN_EXP_C5));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KN_EXP_C4));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KN_EXP_C3));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KN_EXP_C2));
	p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r);
	p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));
	__m256i e = _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23));
	return _mm256_andnot_ps(_mm256_cmp_ps(in, _mm256_set1_ps(KN_EXP_MIN), _CMP_LT_OQ), _mm256_castsi256_ps(e));
}

/* Halves of 8, 4, 2, 1 lanes are added: the 16 lanes are low, then high. */
static inline float kn_sum_halves_16(__m256 low, __m256 high)
{
	__m256 s8 = _mm256_add_ps(low, high);
	__m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
	__m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
	return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

#ifdef __AVX512F__
static inline __m512 kn_exp_16(__m512 x)
{
	__m512 in = _mm512_min_ps(_mm512_set1_ps(KN_EXP_MAX), x); /* the second operand when either is NaN */
	__m512 t = _mm512_fmadd_ps(in, _mm512_set1_ps(KN_EXP_LOG2E), _mm512_set1_ps(KN_EXP_MAGIC));
	__m512 n = _mm512_sub_ps(t, _mm512_set1_ps(KN_EXP_MAGIC));
	__m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-KN_EXP_LN2_HI), in);

	r = _mm512_fmadd_ps(n, _mm512_set1_ps(-KN_EXP_LN2_LO), r);
	__m512 p = _mm512_fmadd_ps(_mm512_set1_ps(KN_EXP_C7), r, _mm512_set1_ps(KN_EXP_C6));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KN_EXP_C5));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KN_EXP_C4));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KN_EXP_C3));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KN_EXP_C2));
	p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
	p = _mm512_add_ps(p, _mm512_set1_ps(1.0f));
	__m512i e = _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23));
	return _mm512_maskz_mov_ps(
		_mm512_cmp_ps_mask(in, _mm512_set1_ps(KN_EXP_MIN), _CMP_NLT_UQ), _mm512_castsi512_ps(e));
}
#endif

#endif
