/* SPDX-License-Identifier: Apache-2.0 */
/* Operators on rows, eight lanes at a time; the 16 lanes of a sum are two registers. What is left
 * at the end goes by the reference's steps. */
#include "kernels/cpu/vector_exp.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/forms.h"

/* The 16 lanes of a sum whose first n / 16 * 16 elements are in: adds the rest with `step`, then
 * halves. */
#define LANES_FINISH(low, high, i, n, step) \
	do { \
		float lanes[16]; \
		_mm256_storeu_ps(lanes, low); \
		_mm256_storeu_ps(lanes + 8, high); \
		for (size_t at = (i); at < (n); at++) \
			lanes[at % 16] = step; \
		low = _mm256_loadu_ps(lanes); \
		high = _mm256_loadu_ps(lanes + 8); \
	} while (0)

static float row_max(const float *x, size_t n)
{
	__m256 most8 = _mm256_set1_ps(-INFINITY);
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		most8 = _mm256_max_ps(_mm256_loadu_ps(x + i), most8); /* the second operand when x is NaN */
	float lanes[8], most = -INFINITY;
	_mm256_storeu_ps(lanes, most8);
	for (size_t lane = 0; lane < 8; lane++)
		most = lanes[lane] > most ? lanes[lane] : most;
	for (; i < n; i++)
		most = x[i] > most ? x[i] : most;

	return most;
}

void kn_avx2_softmax(const float *x, size_t n, float *p)
{
	float most = row_max(x, n);
	__m256 low = _mm256_setzero_ps(), high = low, max8 = _mm256_set1_ps(most);
	size_t i = 0;

	for (; i + 16 <= n; i += 16) {
		__m256 a = kn_exp_8(_mm256_sub_ps(_mm256_loadu_ps(x + i), max8)),
		       b = kn_exp_8(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8), max8));
		_mm256_storeu_ps(p + i, a);
		_mm256_storeu_ps(p + i + 8, b);
		low = _mm256_add_ps(low, a);
		high = _mm256_add_ps(high, b);
	}

	LANES_FINISH(low, high, i, n, lanes[at % 16] + (p[at] = kn_exp_1(x[at] - most)));
	float sum = kn_sum_halves_16(low, high);
	for (i = 0; i + 8 <= n; i += 8)
		_mm256_storeu_ps(p + i, _mm256_div_ps(_mm256_loadu_ps(p + i), _mm256_set1_ps(sum)));
	for (; i < n; i++)
		p[i] = p[i] / sum;
}

void kn_avx2_rmsnorm(const float *x, const float *weight, size_t n, float epsilon, float *out)
{
	__m256 low = _mm256_setzero_ps(), high = low;
	size_t i = 0;

	for (; i + 16 <= n; i += 16) {
		__m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
		low = _mm256_fmadd_ps(a, a, low);
		high = _mm256_fmadd_ps(b, b, high);
	}

	LANES_FINISH(low, high, i, n, fmaf(x[at], x[at], lanes[at % 16]));
	float scale = 1.0f / sqrtf(kn_sum_halves_16(low, high) / (float)n + epsilon);
	for (i = 0; i + 8 <= n; i += 8)
		_mm256_storeu_ps(out + i,
			_mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale)),
				_mm256_loadu_ps(weight + i)));
	for (; i < n; i++)
		out[i] = x[i] * scale * weight[i];
}

static void rope_interleaved(float *x, const float *cosines, const float *sines, size_t size)
{
	const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
	size_t i = 0;

	for (; i + 4 <= size / 2; i += 4) {
		__m256 c = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(cosines + i)), twice);
		__m256 s = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(sines + i)), twice);
		__m256 in = _mm256_loadu_ps(x + 2 * i);
		__m256 crossed = _mm256_mul_ps(_mm256_permute_ps(in, 0xb1), s);
		/* even lanes minus, odd lanes plus */
		_mm256_storeu_ps(x + 2 * i, _mm256_fmaddsub_ps(in, c, crossed));
	}

	kn_ref_rope(x + 2 * i, cosines + i, sines + i, size - 2 * i, true);
}

void kn_avx2_rope(float *x, const float *cosines, const float *sines, size_t size, bool interleaved)
{
	if (interleaved) {
		rope_interleaved(x, cosines, sines, size);
		return;
	}

	size_t half = size / 2, i = 0;
	for (; i + 8 <= half; i += 8) {
		__m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + half + i), c = _mm256_loadu_ps(cosines + i),
		       s = _mm256_loadu_ps(sines + i);
		_mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
		_mm256_storeu_ps(x + half + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
	}

	for (; i < half; i++) {
		float a = x[i], b = x[half + i];
		x[i] = fmaf(a, cosines[i], -(b * sines[i]));
		x[half + i] = fmaf(b, cosines[i], a * sines[i]);
	}
}

void kn_avx2_add(float *x, const float *y, size_t n, float scale)
{
	size_t i = 0;
	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(x + i,
			_mm256_add_ps(
				_mm256_loadu_ps(x + i), _mm256_mul_ps(_mm256_loadu_ps(y + i), _mm256_set1_ps(scale))));
	kn_ref_add(x + i, y + i, n - i, scale);
}

struct kn_row_measure kn_avx2_row_measure(const float *x, size_t n)
{
	struct kn_row_measure m = { 0 };
	__m256i most8 = _mm256_setzero_si256(), magnitude = _mm256_set1_epi32(0x7fffffff);
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		most8 = _mm256_max_epi32(
			most8, _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(x + i)), magnitude));
	uint32_t lanes_most[8];
	_mm256_storeu_si256((__m256i *)lanes_most, most8);
	for (size_t lane = 0; lane < 8; lane++)
		m.most_bits = lanes_most[lane] > m.most_bits ? lanes_most[lane] : m.most_bits;
	for (; i < n; i++) {
		uint32_t bits;
		memcpy(&bits, x + i, sizeof bits);
		bits &= 0x7fffffff;
		m.most_bits = bits > m.most_bits ? bits : m.most_bits;
	}

	if (m.most_bits == 0 || m.most_bits >= 0x7f800000)
		return m;
	float most, scales[2];
	memcpy(&most, &m.most_bits, sizeof most);
	m.most = frexpf(most, &m.exponent);
	kn_row_scales(m.exponent, scales);
	__m256 low = _mm256_setzero_ps(), high = low, s0 = _mm256_set1_ps(scales[0]), s1 = _mm256_set1_ps(scales[1]);
	for (i = 0; i + 16 <= n; i += 16) {
		__m256 a = _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), s0), s1),
		       b = _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), s0), s1);
		low = _mm256_fmadd_ps(a, a, low);
		high = _mm256_fmadd_ps(b, b, high);
	}

	LANES_FINISH(
		low, high, i, n, fmaf(x[at] * scales[0] * scales[1], x[at] * scales[0] * scales[1], lanes[at % 16]));
	m.squares = kn_sum_halves_16(low, high);
	return m;
}

void kn_avx2_row_to_fix16(const float *x, size_t n, float inverse, uint8_t *data)
{
	size_t i = 0;
	for (; i + 16 <= n; i += 16) {
		__m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(inverse)));
		__m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), _mm256_set1_ps(inverse)));
		/* the saturation of packs is the rule's min */
		_mm256_storeu_si256(
			(__m256i *)(data + 2 * i), _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8));
	}
	kn_ref_row_to_fix16(x + i, n - i, inverse, data + 2 * i);
}

void kn_avx2_row_from_fix16(const uint8_t *data, size_t n, float scale, float *x)
{
	size_t i = 0;
	for (; i + 8 <= n; i += 8) {
		__m256i q = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(data + 2 * i)));
		_mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_cvtepi32_ps(q), _mm256_set1_ps(scale)));
	}
	kn_ref_row_from_fix16(data + 2 * i, n - i, scale, x + i);
}

void kn_avx2_row_to_bf16(const float *x, size_t n, uint8_t *data)
{
	size_t i = 0;
	for (; i + 8 <= n; i += 8) {
		__m256i high = _mm256_srli_epi32(kn_bf16_8(_mm256_loadu_ps(x + i)), 16);
		_mm_storeu_si128((__m128i *)(data + 2 * i),
			_mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
	}
	kn_ref_row_to_bf16(x + i, n - i, data + 2 * i);
}

void kn_avx2_row_from_bf16(const uint8_t *data, size_t n, float *x)
{
	size_t i = 0;
	for (; i + 8 <= n; i += 8)
		_mm256_storeu_si256((__m256i *)(x + i),
			_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(data + 2 * i))), 16));
	kn_ref_row_from_bf16(data + 2 * i, n - i, x + i);
}

void kn_avx2_row_from_q8(const uint8_t *q, size_t n, float scale, float *x)
{
	size_t i = 0;
	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(x + i,
			_mm256_mul_ps(
				_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(q + i)))),
				_mm256_set1_ps(scale)));
	kn_ref_row_from_q8(q + i, n - i, scale, x + i);
}
