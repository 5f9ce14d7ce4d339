/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM in the order of profile bf16 by AVX2 and FMA, as avx512_gemm_bf16.c is built. */
#include "kernels/cpu/gemm_nest.h"

enum { ROWS = 6 }; /* 6 rows x 2 half lines: 12 accumulators */

/* One of two values of k of half a line of weights as f32 */
KN_TILE __m256 widen(const bool odd, const uint8_t *at)
{
	__m256i line = _mm256_load_si256((const __m256i *)at);
	return _mm256_castsi256_ps(
		odd ? _mm256_and_si256(line, _mm256_set1_epi32((int)0xffff0000)) : _mm256_slli_epi32(line, 16));
}

/* One chain of mr rows by nv half lines; x is [32][stride] */
KN_TILE void chain(const size_t mr, const size_t nv, const bool odd, const size_t stride, const float *x,
	const uint8_t *lines, __m256 sum[ROWS][8])
{
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			sum[r][v] = _mm256_setzero_ps();

	size_t pairs = KN_K_UNIT / 2;
	KN_HIDE(pairs);
	for (; pairs > 0; pairs--, x += 2 * stride, lines += KN_STEP_BYTES) {
		KN_UNROLL_FOR (size_t v = 0; v < nv; v += 2) {
			__m256 w0 = widen(odd, lines + v * 32), w1 = widen(odd, lines + v * 32 + 32);
			if (!odd)
				kn_tile_fetch(mr > 2, lines + v * 32);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
				__m256 a = _mm256_set1_ps(x[odd ? stride + r : r]);
				sum[r][v] = _mm256_fmadd_ps(a, w0, sum[r][v]);
				sum[r][v + 1] = _mm256_fmadd_ps(a, w1, sum[r][v + 1]);
			}
		}
	}
}

KN_TILE void tile(const size_t mr, const size_t nv, const size_t stride, const float *x, size_t k, const uint8_t *lines,
	bool first, float *y, size_t ldy)
{
	_Alignas(32) float even[ROWS][8][8];
	__m256 sum[ROWS][8];

	KN_UNROLL_FOR (size_t r = 0; r < mr && first; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			_mm256_storeu_ps(y + r * ldy + v * 8, _mm256_setzero_ps());

	for (; k > 0; k -= KN_K_UNIT, x += KN_K_UNIT * stride, lines += KN_K_UNIT / 2 * KN_STEP_BYTES) {
		chain(mr, nv, false, stride, x, lines, sum);
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
				_mm256_store_ps(even[r][v], sum[r][v]);
		__asm__ volatile("" ::"r"(even) : "memory"); /* or they would stay in registers */

		chain(mr, nv, true, stride, x, lines, sum);
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
				float *at = y + r * ldy + v * 8;
				sum[r][v] = _mm256_add_ps(_mm256_load_ps(even[r][v]), sum[r][v]);
				_mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), sum[r][v]));
			}
	}
}

#define TILE(mr, nv, stride) \
	static void tile_bf16_rows_##mr( \
		const float *x, size_t k, const uint8_t *lines, bool first, float *y, size_t ldy) \
	{ \
		for (size_t half = 0; half < 8; half += nv) \
			tile(mr, nv, stride, x, k, lines + half * 32, first, y + half * 8, ldy); \
	}
TILE(1, 8, 1)
TILE(2, 4, 4)
TILE(3, 2, 4)
TILE(4, 2, 4)
TILE(5, 2, 8)
TILE(6, 2, 8)

void kn_avx2_gemm_bf16_rows(const struct kn_gemm *g)
{
	static kn_gemm_tile_fn *const tiles[ROWS] = {
		tile_bf16_rows_1,
		tile_bf16_rows_2,
		tile_bf16_rows_3,
		tile_bf16_rows_4,
		tile_bf16_rows_5,
		tile_bf16_rows_6,
	};
	unsigned csr = kn_mode_begin(KN_MODE_FLUSH);
	kn_gemm_nest(g, tiles, ROWS, KN_PANEL_COLS * 2, true);
	kn_mode_end(csr);
}
