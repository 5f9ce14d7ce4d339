/* SPDX-License-Identifier: Apache-2.0 */
/* Words turned around: between the rows of a matrix and the columns of a panel, and of rows for a
 * register tile. */
#ifndef CADRE_KERNELS_CPU_TRANSPOSE_H
#define CADRE_KERNELS_CPU_TRANSPOSE_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* rows[i][j] = in[j][i] of 8 x 8 words; every row of `in` is 32-byte aligned */
static inline void kn_transpose_rows(const uint32_t *in, size_t ld_in, __m256 rows[8])
{
	__m256 a[8], b[8];
	for (size_t i = 0; i < 8; i++)
		a[i] = _mm256_load_ps((const float *)(in + i * ld_in));
	for (size_t i = 0; i < 8; i += 2) {
		b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
		b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
	}

	for (size_t i = 0; i < 8; i += 4)
		for (size_t j = 0; j < 2; j++) {
			a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
			a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0xee);
		}
	for (size_t i = 0; i < 4; i++) {
		rows[i] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
		rows[i + 4] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
	}
}

/* The same to `out`, whose rows are 32-byte aligned too. */
static inline void kn_transpose_8(const uint32_t *in, size_t ld_in, uint32_t *out, size_t ld_out)
{
	__m256 rows[8];
	kn_transpose_rows(in, ld_in, rows);
	for (size_t i = 0; i < 8; i++)
		_mm256_store_ps((float *)(out + i * ld_out), rows[i]);
}

/* The same past the caches, without reading what was there; others see it after an sfence. */
static inline void kn_transpose_8_stream(const uint32_t *in, size_t ld_in, uint32_t *out, size_t ld_out)
{
	__m256 rows[8];
	kn_transpose_rows(in, ld_in, rows);
	for (size_t i = 0; i < 8; i++)
		_mm256_stream_ps((float *)(out + i * ld_out), rows[i]);
}

/* out[j * stride + i] = in[i][j] of 4 rows, j < words, a multiple of 4; `out` is 16-byte aligned, and
 * stride a multiple of 4. */
static inline void kn_transpose_4_rows(const float *const in[4], size_t words, float *out, size_t stride)
{
	for (size_t j = 0; j < words; j += 4, out += 4 * stride) {
		__m128 a = _mm_loadu_ps(in[0] + j), b = _mm_loadu_ps(in[1] + j), c = _mm_loadu_ps(in[2] + j),
		       d = _mm_loadu_ps(in[3] + j);
		_MM_TRANSPOSE4_PS(a, b, c, d);
		_mm_store_ps(out, a);
		_mm_store_ps(out + stride, b);
		_mm_store_ps(out + 2 * stride, c);
		_mm_store_ps(out + 3 * stride, d);
	}
}

#endif
