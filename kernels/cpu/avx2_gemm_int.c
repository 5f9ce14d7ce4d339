/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM on integers in AVX2.
 *
 * VPMADDUBSW wants one side unsigned and saturates at 16 bits. s8: |w| times x with w's sign; both
 * are within 127, so a pair of products is at most 32258. u4: u is at most 15, so that words hold
 * the sums of a whole sub-group, 16 products each; what u is above its value is subtracted after
 * that.
 */
#include "kernels/cpu/gemm_int_nest.h"

enum { S8_ABOVE = 0 };

struct s8_half {
	__m256i line, magnitude;
};

KN_TILE struct s8_half s8_half(__m256i line) { return (struct s8_half){ line, _mm256_abs_epi8(line) }; }

KN_TILE __m256i s8_add(__m256i dot, struct s8_half w, __m256i x)
{
	__m256i pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x, w.line));
	dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
	KN_PIN(dot);
	return dot;
}

KN_TILE __m256i u4_begin(struct kn_u4_factors f, __m256i sum) { return (void)f, (void)sum, _mm256_setzero_si256(); }

KN_TILE __m256i u4_add(__m256i dot, __m256i w, __m256i x)
{
	dot = _mm256_add_epi16(dot, _mm256_maddubs_epi16(w, x));
	KN_PIN(dot);
	return dot;
}

/* sum is a word, of which the upper half of a lane has the sign: no product of that counts. */
KN_TILE __m256i u4_end(__m256i total, __m256i dot, struct kn_u4_factors f, __m256i sum)
{
	__m256i zs = _mm256_and_si256(f.zs, _mm256_set1_epi32(0xff));
	return _mm256_sub_epi32(_mm256_add_epi32(total, _mm256_madd_epi16(dot, f.s)), _mm256_madd_epi16(sum, zs));
}

#include "kernels/cpu/gemm_int_half.h"

/* clang-format off */
KN_HALF_TILES(s8, KN_STORAGE_S8, 4, 2)
KN_HALF_TILES(u4, KN_STORAGE_U4, 4, 2)
/* clang-format on */

void kn_avx2_gemm_s8(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_s8, &of_s8, 0); }
void kn_avx2_gemm_u4(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_u4, &of_u4, 0); }

void kn_avx2_quantise(const float *x, size_t n, int8_t *q, float *scale, int32_t *sums)
{
	const __m256i flip = _mm256_set1_epi8((char)0x80);

	*scale = kn_quantise_group(x, n, KN_GROUP, KN_RANGE_INT8, q);
	sums[0] = 0;
	for (size_t i = 0; i < KN_SUBGROUPS; i++) {
		__m256i v = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(q + i * KN_SUBGROUP)), flip),
			eights = _mm256_sad_epu8(v, _mm256_setzero_si256());
		__m128i two = _mm_add_epi64(_mm256_castsi256_si128(eights), _mm256_extracti128_si256(eights, 1));
		sums[1 + i] = _mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 2) - KN_SUBGROUP * 128;
		sums[0] += sums[1 + i];
	}
}
