/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop nest around the register tiles of a form, the same for AVX2 and AVX-512:
 *
 *   for KN_BLOCK_ROWS rows of y (they stay in L2)
 *     for KN_BLOCK_K values of k (64 columns of them are 32 KiB of bf16)
 *       for a tile of rows: pack x to [k][stride] (L1; this is also where rows are gathered)
 *         for the panels of the job: tile
 *
 * Between blocks of k the sums wait in y: the chain over k goes on from where it was, so blocking
 * changes no bit. One row needs no packing and no blocking: it streams each panel from end to end.
 */
#ifndef CADRE_KERNELS_CPU_GEMM_NEST_H
#define CADRE_KERNELS_CPU_GEMM_NEST_H

#include "kernels/cpu/forms.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/transpose.h"

#include <immintrin.h>

/* y[r][0..64) (+)= x[k][r] * panel, for the rows that the function handles; first: the chains start
 * from +0, else from y. */
typedef void kn_gemm_tile_fn(const float *x, size_t k, const uint8_t *lines, bool first, float *y, size_t ldy);

/* out[k][stride]: rows first .. first + rows - 1 of g from k0 on. Works on groups of 4 rows; the
 * last group repeats its last row. */
static inline void kn_gemm_pack(
	const struct kn_gemm *g, size_t first, size_t rows, size_t k0, size_t k, float *out, size_t stride)
{
	for (size_t group = 0; group < rows; group += 4) {
		const float *in[4];
		for (size_t i = 0; i < 4; i++) {
			size_t row = first + (group + i < rows ? group + i : rows - 1);
			in[i] = g->x + (g->index ? g->index[row] : row) * g->ldx + k0;
		}
		kn_transpose_4_rows(in, k, out + group, stride);
	}
}

/* tiles[r] handles r + 1 rows; all but tiles[0] read x at `stride` floats per value of k, tiles[0]
 * at 1. Constant arguments: it is inlined. */
KN_TILE void kn_gemm_nest(const struct kn_gemm *g, kn_gemm_tile_fn *const *tiles, const size_t tile_rows,
	const size_t stride, const size_t k_bytes)
{
	CAD_ASSERT(stride <= KN_TILE_ROWS_MAX);
	if (g->rows == 1) {
		const float *x = g->x + (g->index ? g->index[0] : 0) * g->ldx;
		for (size_t p = 0; p < g->panels; p++)
			tiles[0](x, g->k, g->weights + p * g->panel_bytes, true, g->y + p * KN_PANEL_COLS, g->ldy);
		return;
	}
	_Alignas(64) float packed[KN_BLOCK_K * KN_TILE_ROWS_MAX];
	for (size_t block = 0; block < g->rows; block += KN_BLOCK_ROWS) {
		size_t end = g->rows - block < KN_BLOCK_ROWS ? g->rows : block + KN_BLOCK_ROWS;
		for (size_t k0 = 0; k0 < g->k; k0 += KN_BLOCK_K) {
			size_t k = g->k - k0 < KN_BLOCK_K ? g->k - k0 : KN_BLOCK_K;
			for (size_t row = block, rows; row < end; row += rows) {
				rows = kn_tile_rows(end - row, tile_rows);
				const float *x = packed;
				if (rows == 1)
					x = g->x + (g->index ? g->index[row] : row) * g->ldx + k0;
				else
					kn_gemm_pack(g, row, rows, k0, k, packed, stride);
				for (size_t p = 0; p < g->panels; p++)
					tiles[rows - 1](x, k, g->weights + p * g->panel_bytes + k0 * k_bytes, k0 == 0,
						g->y + row * g->ldy + p * KN_PANEL_COLS, g->ldy);
			}
		}
	}
}

#endif
