/* SPDX-License-Identifier: Apache-2.0 */
/* Integer sums of the exact combine, eight 64-bit lanes at a time. */
#include "kernels/cpu/forms.h"

#include <immintrin.h>

bool kn_avx512_sums_round(int64_t *sums, const float *y, size_t n, float weight, double inverse)
{
	const __m512d w = _mm512_set1_pd(weight), scale = _mm512_set1_pd(inverse);
	__mmask8 good = 0xff;
	size_t i = 0;
	for (; i + 8 <= n; i += 8) {
		__m512d q = _mm512_mul_pd(_mm512_mul_pd(_mm512_cvtps_pd(_mm256_loadu_ps(y + i)), w), scale);
		/* rounds to nearest even; what is out of range is out of bounds below too */
		__m512i value = _mm512_cvtpd_epi64(q);
		good &= _mm512_cmp_pd_mask(
			_mm512_abs_pd(_mm512_roundscale_pd(q, 0)), _mm512_set1_pd(0x1p53), _CMP_LT_OQ);
		_mm512_storeu_si512(sums + i, _mm512_add_epi64(_mm512_loadu_si512(sums + i), value));
	}

	return kn_ref_sums_round(sums + i, y + i, n - i, weight, inverse) && good == 0xff;
}

uint8_t kn_avx512_sums_width(const int64_t *sums, size_t n)
{
	__m512i most = _mm512_setzero_si512();
	size_t i = 0;

	for (; i + 8 <= n; i += 8) {
		__m512i v = _mm512_loadu_si512(sums + i);
		most = _mm512_or_si512(most, _mm512_xor_si512(v, _mm512_srai_epi64(v, 63)));
	}
	int64_t lanes[2] = { (int64_t)_mm512_reduce_or_epi64(most), 0 };
	for (; i < n; i++)
		lanes[1] |= sums[i] ^ sums[i] >> 63;
	return kn_ref_sums_width(lanes, 2);
}

void kn_avx512_sums_store(const int64_t *sums, size_t n, uint8_t width, uint8_t *data)
{
	size_t i = 0;
	if (width == 2)
		for (; i + 8 <= n; i += 8)
			_mm_storeu_si128(
				(__m128i *)(data + 2 * i), _mm512_cvtepi64_epi16(_mm512_loadu_si512(sums + i)));
	else if (width == 4)
		for (; i + 8 <= n; i += 8)
			_mm256_storeu_si256(
				(__m256i *)(data + 4 * i), _mm512_cvtepi64_epi32(_mm512_loadu_si512(sums + i)));
	kn_avx2_sums_store(sums + i, n - i, width, data + i * width);
}

void kn_avx512_sums_add(int64_t *sums, const uint8_t *data, size_t n, uint8_t width)
{
	kn_avx2_sums_add(sums, data, n, width);
}

void kn_avx512_sums_finish(float *x, int64_t *sums, size_t n, const struct kn_finish *f)
{
	struct kn_finish rest = *f;
	size_t i = 0;
	for (; i + 8 <= n; i += 8) {
		__m256 sum =
			_mm256_mul_ps(_mm512_cvtepi64_ps(_mm512_loadu_si512(sums + i)), _mm256_set1_ps(f->quantum));
		if (f->shared)
			sum = _mm256_add_ps(
				sum, _mm256_mul_ps(_mm256_set1_ps(f->share), _mm256_loadu_ps(f->shared + i)));
		sum = _mm256_mul_ps(_mm256_set1_ps(f->scale), sum);
		_mm256_storeu_ps(x + i, f->apart ? sum : _mm256_add_ps(_mm256_loadu_ps(x + i), sum));
		_mm512_storeu_si512(sums + i, _mm512_setzero_si512());
	}
	if (f->shared)
		rest.shared += i;
	kn_ref_sums_finish(x + i, sums + i, n - i, &rest);
}
