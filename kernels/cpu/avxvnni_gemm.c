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
#define WORDS_ADD(sum, dot, s) __asm__(KN_VEX "vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(dot), "x"(s))

struct s8_half {
	__m256i above;
};

KN_TILE struct s8_half s8_half(__m256i line)
{
	return (struct s8_half){ _mm256_xor_si256(line, _mm256_set1_epi8((char)0x80)) };
}

KN_TILE __m256i s8_add(__m256i dot, struct s8_half w, __m256i x)
{
	DOT_ADD(dot, w.above, x);
	return dot;
}

/* -z sum: of z * s, s odd, the lowest bit is z's. */
KN_TILE __m256i u4_begin(struct kn_u4_factors f, __m256i sum)
{
	__m256i seven = _mm256_sub_epi32(sum, _mm256_slli_epi32(sum, 3)),
		odd = _mm256_srai_epi32(_mm256_slli_epi32(f.zs, 31), 31);
	return _mm256_sub_epi32(seven, _mm256_andnot_si256(odd, sum));
}

KN_TILE __m256i u4_add(__m256i dot, __m256i w, __m256i x)
{
	DOT_ADD(dot, w, x);
	return dot;
}

/* The dot is within 8 * 127 * 32: a word, of which the upper half of a lane has the sign. */
KN_TILE __m256i u4_end(__m256i total, __m256i dot, struct kn_u4_factors f, __m256i sum)
{
	(void)sum;
	WORDS_ADD(total, dot, _mm256_srli_epi32(f.s, 16));
	return total;
}

#include "kernels/cpu/gemm_int_half.h"

/* clang-format off */
KN_HALF_TILES(s8, KN_STORAGE_S8, 4, 2)
KN_HALF_TILES(u4, KN_STORAGE_U4, 4, 2)
/* clang-format on */

void kn_avxvnni_gemm_s8(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_s8, &of_s8, 0); }
void kn_avxvnni_gemm_u4(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_u4, &of_s8, KN_WIDEN_ROWS_MIN); }
