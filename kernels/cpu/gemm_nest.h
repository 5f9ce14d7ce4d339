/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop nest around the register tiles of a form, the same for AVX2 and AVX-512:
 *
 *   for KN_GEMM_ROWS rows of y
 *     for as many values of k as KN_PACKED_FLOATS hold: pack x, each tile to [k][stride] (L2; this is
 *         also where rows are gathered)
 *       for the panels of the job
 *         for KN_BLOCK_K values of k (64 columns of them are 64 KiB of bf16): tile by tile
 *
 * So weights are read from memory in one stream from the first panel to the last, and when there are
 * several tiles, the others find them in L2. Between blocks of k the sums wait in y: the chain over k
 * goes on from where it was, so blocking changes no bit. One row is neither packed nor blocked,
 * unless it is rounded.
 */
#ifndef CADRE_KERNELS_CPU_GEMM_NEST_H
#define CADRE_KERNELS_CPU_GEMM_NEST_H

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/forms.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/transpose.h"

#include <immintrin.h>

/* y[r][0..64) (+)= x[k][r] * panel, for the rows that the function handles; first: the chains start
 * from +0, else from y. */
typedef void kn_gemm_tile_fn(const float *x, size_t k, const uint8_t *lines, bool first, float *y, size_t ldy);

/* Floats for each value of k of a tile of so many rows, packed. */
static inline size_t kn_gemm_stride(size_t rows) { return (rows + 3) / 4 * 4; }

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

/* The tiles of a block of rows; x of a tile is packed from `offset` floats for each value of k on. */
struct kn_gemm_block {
	size_t count, floats;
	struct {
		size_t row, rows, offset;
	} tile[KN_GEMM_ROWS / 2];
};

static inline struct kn_gemm_block kn_gemm_block(size_t row, size_t end, size_t tile_rows)
{
	struct kn_gemm_block b = { 0 };
	for (size_t rows; row < end; row += rows) {
		rows = kn_tile_rows(end - row, tile_rows);
		b.tile[b.count].row = row;
		b.tile[b.count].rows = rows;
		b.tile[b.count++].offset = b.floats;
		b.floats += kn_gemm_stride(rows);
	}
	return b;
}

/* The values k1 .. k1 + k - 1 of a block's rows: packed, then all panels. */
KN_TILE void kn_gemm_run(const struct kn_gemm *g, kn_gemm_tile_fn *const *tiles, const size_t k_bytes, const bool round,
	const struct kn_gemm_block *b, size_t k1, size_t k, float *packed)
{
	for (size_t t = 0; t < b->count; t++)
		kn_gemm_pack(g, b->tile[t].row, b->tile[t].rows, k1, k, packed + b->tile[t].offset * k,
			kn_gemm_stride(b->tile[t].rows));
	if (round)
		kn_bf16_round(packed, k * b->floats, packed);

	for (size_t p = 0; p < g->panels; p++)
		for (size_t at = 0; at < k; at += KN_BLOCK_K)
			for (size_t t = 0; t < b->count; t++) {
				size_t row = b->tile[t].row, rows = b->tile[t].rows;
				tiles[rows - 1](packed + b->tile[t].offset * k + at * kn_gemm_stride(rows),
					k - at < KN_BLOCK_K ? k - at : KN_BLOCK_K,
					g->weights + p * g->panel_bytes + (k1 + at) * k_bytes, k1 + at == 0,
					g->y + row * g->ldy + p * KN_PANEL_COLS, g->ldy);
			}
}

KN_TILE void kn_gemm_one(
	const struct kn_gemm *g, kn_gemm_tile_fn *tile, const size_t k_bytes, const bool round, float *packed)
{
	const float *x = g->x + (g->index ? g->index[0] : 0) * g->ldx;
	size_t most = round ? KN_PACKED_FLOATS : g->k;

	for (size_t k1 = 0; k1 < g->k; k1 += most) {
		size_t k = g->k - k1 < most ? g->k - k1 : most;
		if (round)
			kn_bf16_round(x + k1, k, packed);
		for (size_t p = 0; p < g->panels; p++)
			tile(round ? packed : x, k, g->weights + p * g->panel_bytes + k1 * k_bytes, k1 == 0,
				g->y + p * KN_PANEL_COLS, g->ldy);
	}
}

/* tiles[r] handles r + 1 rows; all but tiles[0] read x at kn_gemm_stride floats per value of k,
 * tiles[0] at 1. round: x is rounded to bf16. Constant arguments: it is inlined. */
KN_TILE void kn_gemm_nest(const struct kn_gemm *g, kn_gemm_tile_fn *const *tiles, const size_t tile_rows,
	const size_t k_bytes, const bool round)
{
	_Alignas(64) float packed[KN_PACKED_FLOATS];

	if (g->rows == 1) {
		kn_gemm_one(g, tiles[0], k_bytes, round, packed);
		return;
	}

	for (size_t row = 0, rows; row < g->rows; row += rows) {
		rows = kn_tile_rows(g->rows - row, KN_GEMM_ROWS); /* never one row alone */
		struct kn_gemm_block b = kn_gemm_block(row, row + rows, tile_rows);
		size_t most = KN_PACKED_FLOATS / b.floats / KN_BLOCK_K * KN_BLOCK_K;
		CAD_ASSERT(most > 0);
		for (size_t k1 = 0; k1 < g->k; k1 += most)
			kn_gemm_run(g, tiles, k_bytes, round, &b, k1, g->k - k1 < most ? g->k - k1 : most, packed);
	}
}

#endif
