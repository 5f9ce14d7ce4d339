/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM on integers with AVX-VNNI, for processors that have VNNI but no AVX-512: the instruction and
 * what it wants are avx512vnni_gemm.c's. The tests also build it for the registers of AVX-512
 * (KN_VEX empty), whose instruction of this width computes the same.
 */
#include "kernels/cpu/gemm_int_nest.h"

#ifndef KN_VEX
#define KN_VEX "%{vex%} "
#endif

enum { S8_ABOVE = 128 };

#define DOT_ADD(dot, w, x) __asm__(KN_VEX "vpdpbusd %2, %1, %0" : "+x"(dot) : "x"(w), "x"(x))

struct half_line {
	__m256i low, high;
};

KN_TILE struct half_line half_line(const bool s8, __m256i line)
{
	const __m256i flip = _mm256_set1_epi8((char)0x80), low_bits = _mm256_set1_epi8(0x0f);
	return (struct half_line){
		s8 ? _mm256_xor_si256(line, flip) : _mm256_and_si256(line, low_bits),
		_mm256_and_si256(_mm256_srli_epi32(line, 4), low_bits),
	};
}

KN_TILE __m256i row_add(const bool s8, __m256i dot, struct half_line w, const int32_t *q, const size_t stride)
{
	DOT_ADD(dot, w.low, _mm256_set1_epi32(*q));
	if (!s8)
		DOT_ADD(dot, w.high, _mm256_set1_epi32(q[stride]));
	return dot;
}

#include "kernels/cpu/gemm_int_half.h"

/* clang-format off */
KN_HALF_TILES(s8, true, 4, 2)
KN_HALF_TILES(u4, false, 4, 2)
/* clang-format on */

void kn_avxvnni_gemm_s8(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_s8); }
void kn_avxvnni_gemm_u4(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_u4); }
