/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM in the order of profile bf16 by plain FMA, in AVX-512: of each 32 values of k first the even
 * ones, then the odd ones, so that a tile needs registers for one chain at a time. (VDPBF16PS adds
 * each pair of products to one sum, and so cannot give these bits.)
 */
#include "kernels/cpu/gemm_nest.h"

enum { ROWS = 12 }; /* 12 rows x 2 lines (24 accumulators), or 5 x 4 */

/* One chain of mr rows by nv lines goes on by one step; x is [mr] */
KN_TILE void step(
	const size_t mr, const size_t nv, const bool odd, const float *x, const uint8_t *lines, __m512 sum[ROWS][4])
{
	__m512 w[4];

	KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
		__m512i line = _mm512_load_si512(lines + v * 64);
		w[v] = _mm512_castsi512_ps(
			odd ? _mm512_and_si512(line, _mm512_set1_epi32((int)0xffff0000)) : _mm512_slli_epi32(line, 16));
	}
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
		__m512 a = _mm512_set1_ps(x[r]);
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			sum[r][v] = _mm512_fmadd_ps(a, w[v], sum[r][v]);
	}
}

/* The even chains of 32 values of k, the odd ones, or both; x is [32][stride] */
KN_TILE void chains(const size_t mr, const size_t nv, const bool even, const bool odd, const size_t stride,
	const float *x, const uint8_t *lines, __m512 evens[ROWS][4], __m512 odds[ROWS][4])
{
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
			if (even)
				evens[r][v] = _mm512_setzero_ps();
			if (odd)
				odds[r][v] = _mm512_setzero_ps();
		}

	size_t pairs = KN_K_UNIT / 2;
	KN_HIDE(pairs);
	for (; pairs > 0; pairs--, x += 2 * stride, lines += KN_STEP_BYTES) {
		KN_UNROLL_FOR (size_t v = 0; v < nv && even; v++)
			kn_tile_fetch(mr > 2, lines + v * 64);
		if (even)
			step(mr, nv, false, x, lines, evens);
		if (odd)
			step(mr, nv, true, x + stride, lines, odds);
	}
}

KN_TILE void tile(const size_t mr, const size_t nv, const size_t stride, const float *x, size_t k, const uint8_t *lines,
	bool first, float *y, size_t ldy)
{
	const bool room = mr * nv <= 12; /* registers for both chains at once: memory is read as fast as it can be */
	_Alignas(64) float kept[ROWS][4][16];
	__m512 evens[ROWS][4], odds[ROWS][4];

	KN_UNROLL_FOR (size_t r = 0; r < mr && first; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			_mm512_storeu_ps(y + r * ldy + v * 16, _mm512_setzero_ps());

	for (; k > 0; k -= KN_K_UNIT, x += KN_K_UNIT * stride, lines += KN_K_UNIT / 2 * KN_STEP_BYTES) {
		chains(mr, nv, true, room, stride, x, lines, evens, odds);
		if (!room) {
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
				KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
					_mm512_store_ps(kept[r][v], evens[r][v]);
			__asm__ volatile("" ::"r"(kept) : "memory"); /* or they would stay in registers */
			chains(mr, nv, false, true, stride, x, lines, evens, odds);
		}
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
				float *at = y + r * ldy + v * 16;
				__m512 even = room ? evens[r][v] : _mm512_load_ps(kept[r][v]);
				_mm512_storeu_ps(
					at, _mm512_add_ps(_mm512_loadu_ps(at), _mm512_add_ps(even, odds[r][v])));
			}
	}
}

#define TILE(mr, stride) \
	static void tile_bf16_rows_##mr( \
		const float *x, size_t k, const uint8_t *lines, bool first, float *y, size_t ldy) \
	{ \
		if (mr <= 5) { \
			tile(mr, 4, stride, x, k, lines, first, y, ldy); \
		} else { \
			tile(mr, 2, stride, x, k, lines, first, y, ldy); \
			tile(mr, 2, stride, x, k, lines + 128, first, y + 32, ldy); \
		} \
	}
TILE(1, 1)
TILE(2, 4)
TILE(3, 4)
TILE(4, 4)
TILE(5, 8)
TILE(6, 8)
TILE(7, 8)
TILE(8, 8)
TILE(9, 12)
TILE(10, 12)
TILE(11, 12)
TILE(12, 12)

void kn_avx512_gemm_bf16_rows(const struct kn_gemm *g)
{
	static kn_gemm_tile_fn *const tiles[ROWS] = {
		tile_bf16_rows_1,
		tile_bf16_rows_2,
		tile_bf16_rows_3,
		tile_bf16_rows_4,
		tile_bf16_rows_5,
		tile_bf16_rows_6,
		tile_bf16_rows_7,
		tile_bf16_rows_8,
		tile_bf16_rows_9,
		tile_bf16_rows_10,
		tile_bf16_rows_11,
		tile_bf16_rows_12,
	};
	unsigned csr = kn_mode_begin(KN_MODE_FLUSH);
	kn_gemm_nest(g, tiles, ROWS, KN_PANEL_COLS * 2, true);
	kn_mode_end(csr);
}
