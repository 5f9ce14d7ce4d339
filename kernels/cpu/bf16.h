/* SPDX-License-Identifier: Apache-2.0 */
/* What the forms of gemm_bf16_rows and gemm_bf16_sm90 share: rounding to bf16, and the modes they
 * compute in. */
#ifndef CADRE_KERNELS_CPU_BF16_H
#define CADRE_KERNELS_CPU_BF16_H

#include <immintrin.h>
#include <stddef.h>

/* Eight f32 rounded to bf16, to nearest even: the upper halves of the words, whose lower halves say
 * nothing. NaN stays NaN. By integers, for VCVTNEPS2BF16 takes subnormals for zeros. */
static inline __m256i kn_bf16_8(__m256 x)
{
	__m256i bits = _mm256_castps_si256(x),
		odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1)),
		rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
	__m256 quiet = _mm256_or_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x400000)));
	return _mm256_castps_si256(
		_mm256_blendv_ps(_mm256_castsi256_ps(rounded), quiet, _mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}

/* The same of n values, a multiple of 8, as f32; out may be x. */
static inline void kn_bf16_round(const float *x, size_t n, float *out)
{
	const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
	for (size_t i = 0; i < n; i += 8)
		_mm256_storeu_si256((__m256i *)(out + i), _mm256_and_si256(kn_bf16_8(_mm256_loadu_ps(x + i)), upper));
}

/* Subnormals are zeros, as operands and as results (KN_MODE_FLUSH), or sums and conversions are cut
 * toward zero, until kn_mode_end, which takes what this returned. */
enum { KN_MODE_FLUSH = 0x8040, KN_MODE_TOWARD_ZERO = 0x6000 };
static inline unsigned kn_mode_begin(unsigned mode)
{
	unsigned csr = _mm_getcsr();
	_mm_setcsr(csr | mode);
	__asm__ volatile("" ::: "memory"); /* no arithmetic on what is in memory moves out */
	return csr;
}
static inline void kn_mode_end(unsigned csr)
{
	__asm__ volatile("" ::: "memory");
	_mm_setcsr(csr);
}

#endif
