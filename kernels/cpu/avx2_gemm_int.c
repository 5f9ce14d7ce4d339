/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM on integers in AVX2.
 *
 * VPMADDUBSW wants one side unsigned and saturates at 16 bits. s8: |w| times x with w's sign; both
 * are within 127, so a pair of products is at most 32258. u4: w + 8, at most 15, so that two pairs
 * may be added before they are widened; starting the dot at -8 times the sum of the row's q takes
 * the 8 away again.
 */
#include "kernels/cpu/gemm_int_nest.h"

enum { S8_ABOVE = 0 };

static inline __m256i dot_s8(__m256i dot, __m256i magnitude, __m256i w, __m256i x)
{
	__m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w));
	return _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline __m256i dot_u4(__m256i dot, __m256i low, __m256i high, __m256i x0, __m256i x1)
{
	__m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, x0), _mm256_maddubs_epi16(high, x1));
	return _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

struct half_line {
	__m256i line, magnitude, low, high;
};

KN_TILE struct half_line half_line(const bool s8, __m256i line)
{
	const __m256i low_bits = _mm256_set1_epi8(0x0f);
	if (s8)
		return (struct half_line){ .line = line, .magnitude = _mm256_abs_epi8(line) };
	return (struct half_line){
		.low = _mm256_and_si256(line, low_bits),
		.high = _mm256_and_si256(_mm256_srli_epi32(line, 4), low_bits),
	};
}

KN_TILE __m256i row_add(const bool s8, __m256i dot, struct half_line w, const int32_t *q, const size_t stride)
{
	__m256i x = _mm256_set1_epi32(*q);
	dot = s8 ? dot_s8(dot, w.magnitude, w.line, x) : dot_u4(dot, w.low, w.high, x, _mm256_set1_epi32(q[stride]));
	KN_PIN(dot);
	return dot;
}

#include "kernels/cpu/gemm_int_half.h"

/* clang-format off */
KN_HALF_TILES(s8, true, 4, 2)
KN_HALF_TILES(u4, false, 2, 1)
/* clang-format on */

void kn_avx2_gemm_s8(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_s8); }
void kn_avx2_gemm_u4(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_u4); }

void kn_avx2_quantise(const float *x, size_t n, size_t group, int8_t *q, float *scale, int32_t *sums)
{
	*scale = kn_quantise_group(x, n, KN_GROUP, KN_RANGE_INT8, q);
	const __m256i ones = _mm256_set1_epi8(1);
	for (size_t i = 0; i < KN_GROUP; i += group, sums++) {
		__m256i sum = _mm256_setzero_si256();
		for (size_t j = i; j < i + group; j += 32) {
			__m256i v = _mm256_loadu_si256((const __m256i *)(q + j));
			sum = _mm256_add_epi32(
				sum, _mm256_madd_epi16(_mm256_maddubs_epi16(ones, v), _mm256_set1_epi16(1)));
		}
		__m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
		__m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
		*sums = _mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 1);
	}
}
