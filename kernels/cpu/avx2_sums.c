/* SPDX-License-Identifier: Apache-2.0 */
/* Integer sums of the exact combine, four 64-bit lanes at a time. */
#include "kernels/cpu/forms.h"

#include <immintrin.h>
#include <string.h>

/* Adding 1.5 * 2^52 leaves the rounded integer in the low bits, for |q| below 2^51; larger ones,
 * and NaN, go by the reference. */
bool kn_avx2_sums_round(int64_t *sums, const float *y, size_t n, float weight, double inverse)
{
	const __m256d magic = _mm256_set1_pd(0x1.8p52), limit = _mm256_set1_pd(0x1p51), w = _mm256_set1_pd(weight),
		      scale = _mm256_set1_pd(inverse);
	bool good = true;
	size_t i = 0;

	for (; i + 4 <= n; i += 4) {
		__m256d q = _mm256_mul_pd(_mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(y + i)), w), scale);
		__m256d small = _mm256_cmp_pd(_mm256_andnot_pd(_mm256_set1_pd(-0.0), q), limit, _CMP_LT_OQ);
		if (_mm256_movemask_pd(small) != 15) {
			good = kn_ref_sums_round(sums + i, y + i, 4, weight, inverse) && good;
			continue;
		}
		__m256i value =
			_mm256_sub_epi64(_mm256_castpd_si256(_mm256_add_pd(q, magic)), _mm256_castpd_si256(magic));
		_mm256_storeu_si256((__m256i *)(sums + i),
			_mm256_add_epi64(_mm256_loadu_si256((const __m256i *)(sums + i)), value));
	}

	return kn_ref_sums_round(sums + i, y + i, n - i, weight, inverse) && good;
}

uint8_t kn_avx2_sums_width(const int64_t *sums, size_t n)
{
	__m256i most = _mm256_setzero_si256();
	size_t i = 0;

	for (; i + 4 <= n; i += 4) {
		__m256i v = _mm256_loadu_si256((const __m256i *)(sums + i));
		most = _mm256_or_si256(most, _mm256_xor_si256(v, _mm256_cmpgt_epi64(_mm256_setzero_si256(), v)));
	}

	int64_t lanes[5] = { 0 };
	_mm256_storeu_si256((__m256i *)lanes, most);
	for (; i < n; i++)
		lanes[4] |= sums[i] ^ sums[i] >> 63;

	return kn_ref_sums_width(lanes, 5);
}

static __m128i low_halves(const int64_t *sums)
{
	const __m256i low = _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0);
	return _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)sums), low));
}

void kn_avx2_sums_store(const int64_t *sums, size_t n, uint8_t width, uint8_t *data)
{
	size_t i = 0;
	if (width == 2)
		for (; i + 8 <= n; i += 8)
			_mm_storeu_si128((__m128i *)(data + 2 * i),
				_mm_packs_epi32(low_halves(sums + i), low_halves(sums + i + 4)));
	else if (width == 3)
		for (; i + 1 < n; i++)
			memcpy(data + 3 * i, sums + i, 4); /* the fourth byte is the next one's first */
	else if (width == 4)
		for (; i + 4 <= n; i += 4)
			_mm_storeu_si128((__m128i *)(data + 4 * i), low_halves(sums + i));
	else
		for (; i + 4 <= n; i += 4)
			_mm256_storeu_si256((__m256i *)(data + 8 * i), _mm256_loadu_si256((const __m256i *)(sums + i)));
	kn_ref_sums_store(sums + i, n - i, width, data + i * width);
}

static void add4(int64_t *sums, __m256i values)
{
	_mm256_storeu_si256((__m256i *)sums, _mm256_add_epi64(_mm256_loadu_si256((const __m256i *)sums), values));
}

void kn_avx2_sums_add(int64_t *sums, const uint8_t *data, size_t n, uint8_t width)
{
	/* 3 bytes to the top of 4 */
	const __m128i spread = _mm_setr_epi8(-1, 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11);
	size_t i = 0;

	if (width == 2)
		for (; i + 4 <= n; i += 4)
			add4(sums + i, _mm256_cvtepi16_epi64(_mm_loadl_epi64((const __m128i *)(data + 2 * i))));
	else if (width == 3)
		for (; i + 6 <= n; i += 4) /* 16 bytes are read for 12 */
			add4(sums + i,
				_mm256_cvtepi32_epi64(_mm_srai_epi32(
					_mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 3 * i)), spread),
					8)));
	else if (width == 4)
		for (; i + 4 <= n; i += 4)
			add4(sums + i, _mm256_cvtepi32_epi64(_mm_loadu_si128((const __m128i *)(data + 4 * i))));
	else
		for (; i + 4 <= n; i += 4)
			add4(sums + i, _mm256_loadu_si256((const __m256i *)(data + 8 * i)));
	kn_ref_sums_add(sums + i, data + i * width, n - i, width);
}

/* AVX2 has no conversion of 64-bit integers. */
void kn_avx2_sums_finish(float *x, int64_t *sums, size_t n, const struct kn_finish *f)
{
	kn_ref_sums_finish(x, sums, n, f);
}
