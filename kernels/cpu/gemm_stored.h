/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop nest of GEMMs on panels of F8 and MXFP4, the same for AVX2 and AVX-512. One row meets weights
 * that are widened in registers. Of several rows, KN_WIDE_K values of k of a panel are widened to f32,
 * which stay in L1, for the tiles of panels of f32: so each weight is widened once for KN_GEMM_ROWS rows.
 */
#ifndef CADRE_KERNELS_CPU_GEMM_STORED_H
#define CADRE_KERNELS_CPU_GEMM_STORED_H

#include "kernels/cpu/gemm_nest.h"

enum { KN_WIDE_K = 64 }; /* whole groups of MXFP4, halves of one of F8 */
_Static_assert(KN_FP8_GROUP % KN_WIDE_K == 0 && KN_WIDE_K % KN_MXFP4_GROUP == 0 && KN_BLOCK_K % KN_WIDE_K == 0,
	"what is widened does not end within a group");

/* Values k .. k + count - 1 of all columns of a panel, to [count][KN_PANEL_COLS]. */
typedef void kn_widen_fn(const uint8_t *panel, size_t k, size_t count, float *wide);
/* y[64] of one panel and one row. */
typedef void kn_stored_one_fn(const float *x, size_t k, const uint8_t *panel, float *y);

KN_TILE void kn_gemm_stored_run(const struct kn_gemm *g, kn_gemm_tile_fn *const *tiles, kn_widen_fn *widen,
	const struct kn_gemm_block *b, size_t k1, size_t k, float *packed, float *wide)
{
	for (size_t t = 0; t < b->count; t++)
		kn_gemm_pack(g, b->tile[t].row, b->tile[t].rows, k1, k, packed + b->tile[t].offset * k,
			kn_gemm_stride(b->tile[t].rows));

	for (size_t p = 0; p < g->panels; p++)
		for (size_t at = 0; at < k; at += KN_WIDE_K) {
			size_t count = k - at < KN_WIDE_K ? k - at : KN_WIDE_K;
			widen(g->weights + p * g->panel_bytes, k1 + at, count, wide);
			for (size_t t = 0; t < b->count; t++) {
				size_t row = b->tile[t].row, rows = b->tile[t].rows;
				tiles[rows - 1](packed + b->tile[t].offset * k + at * kn_gemm_stride(rows), count,
					(const uint8_t *)wide, k1 + at == 0, g->y + row * g->ldy + p * KN_PANEL_COLS,
					g->ldy);
			}
		}
}

/* tiles: those of panels of f32 (kn_gemm_nest). */
KN_TILE void kn_gemm_stored(const struct kn_gemm *g, kn_gemm_tile_fn *const *tiles, const size_t tile_rows,
	kn_widen_fn *widen, kn_stored_one_fn *one)
{
	_Alignas(64) float packed[KN_PACKED_FLOATS], wide[KN_WIDE_K * KN_PANEL_COLS];

	if (g->rows == 1) {
		for (size_t p = 0; p < g->panels; p++)
			one(g->x + (g->index ? g->index[0] : 0) * g->ldx, g->k, g->weights + p * g->panel_bytes,
				g->y + p * KN_PANEL_COLS);
		return;
	}

	for (size_t row = 0, rows; row < g->rows; row += rows) {
		rows = kn_tile_rows(g->rows - row, KN_GEMM_ROWS); /* never one row alone */
		struct kn_gemm_block b = kn_gemm_block(row, row + rows, tile_rows);
		size_t most = KN_PACKED_FLOATS / b.floats / KN_BLOCK_K * KN_BLOCK_K;
		CAD_ASSERT(most > 0);
		for (size_t k1 = 0; k1 < g->k; k1 += most)
			kn_gemm_stored_run(g, tiles, widen, &b, k1, g->k - k1 < most ? g->k - k1 : most, packed, wide);
	}
}

#endif
