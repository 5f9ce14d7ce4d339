/* exp on 16 lanes, with the bits of kernels/exp.h. Only for files built with AVX-512. */
#ifndef CADRE_KERNELS_CPU_AVX512_MATH_H
#define CADRE_KERNELS_CPU_AVX512_MATH_H

#include "kernels/cpu/avx2_math.h"

static inline __m512 kn_exp_16(__m512 x)
{
	__m512 in = _mm512_min_ps(_mm512_set1_ps(KN_EXP_MAX), x);   /* the second operand when either is NaN */
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
	return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(in, _mm512_set1_ps(KN_EXP_MIN), _CMP_NLT_UQ), _mm512_castsi512_ps(e));
}

#endif
