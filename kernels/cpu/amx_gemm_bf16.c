/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM in the order of profile bf16 with AMX: 16 lines of a panel, a step apart, are the weights of
 * a tile (32 values of k, 16 columns), 32 values of k of 16 rows the activations: one TDPBF16PS is
 * one step of the order. Few rows go to AVX-512.
 *
 *   for KN_BLOCK_ROWS rows, for BLOCK_VALUES of k: round the rows, and pack them to tiles of 1 KiB
 *     for the panels of the job, for two tiles of rows and two lines of columns: sums
 *
 * Between blocks of k the sums wait in y. Rows past the end are zero in their tile, and their sums
 * are dropped.
 */
#include "kernels/cpu/forms.h"
#include "kernels/cpu/tile.h"

#ifndef KN_AMX_TWIN
#include "kernels/cpu/amx_tile.h"
#endif

enum {
	TILE_ROWS = 16,
	TILE_VALUES = KN_K_UNIT, /* of k */
	TILE_BYTES_OF_PANEL = TILE_VALUES / 2 * KN_STEP_BYTES,
	ROW_TILES = KN_BLOCK_ROWS / TILE_ROWS,
	BLOCK_VALUES = 512,
};
_Static_assert(KN_BLOCK_ROWS % TILE_ROWS == 0, "a block is whole tiles");
_Static_assert(BLOCK_VALUES % TILE_VALUES == 0, "a block is whole tiles");

struct packed_rows {
	_Alignas(64) uint8_t x[ROW_TILES][BLOCK_VALUES / TILE_VALUES][TILE_ROWS][2 * TILE_VALUES];
	size_t rows, tiles; /* tiles of k */
};

static void pack_rows(const struct kn_gemm *g, size_t first, size_t k, struct packed_rows *to)
{
	to->rows = g->rows - first < KN_BLOCK_ROWS ? g->rows - first : KN_BLOCK_ROWS;
	to->tiles = (g->k - k < BLOCK_VALUES ? g->k - k : BLOCK_VALUES) / TILE_VALUES;
	for (size_t r = 0; r < kn_round_up(to->rows, TILE_ROWS); r++) {
		size_t row = first + r;
		const float *x = r < to->rows ? g->x + (g->index ? g->index[row] : row) * g->ldx + k : NULL;
		for (size_t i = 0; i < to->tiles; i++) {
			uint8_t *out = to->x[r / TILE_ROWS][i][r % TILE_ROWS];
			if (x)
				kn_avx512_row_to_bf16(x + i * TILE_VALUES, TILE_VALUES, out);
			else
				memset(out, 0, 2 * TILE_VALUES);
		}
	}
}

/* Adds one or two tiles of rows by two lines of columns at `lines` to y, rows of which are `stride`
 * bytes apart. Tiles 0 .. 3 are sums, 4 and 5 rows, 6 and 7 columns. */
KN_TILE void sums(const bool two, const struct packed_rows *p, size_t tile, const uint8_t *lines, bool first, float *y,
	size_t stride)
{
	uint8_t *below = (uint8_t *)y + TILE_ROWS * stride;

	KN_AMX_FENCE();
	if (first) {
		KN_AMX_ZERO(0);
		KN_AMX_ZERO(1);
		KN_AMX_ZERO(2);
		KN_AMX_ZERO(3);
	} else {
		KN_AMX_LOAD(0, y, stride);
		KN_AMX_LOAD(1, y + 16, stride);
		if (two) {
			KN_AMX_LOAD(2, below, stride);
			KN_AMX_LOAD(3, below + 64, stride);
		}
	}
	for (size_t i = 0; i < p->tiles; i++, lines += TILE_BYTES_OF_PANEL) {
		KN_AMX_LOAD(4, p->x[tile][i], 2 * TILE_VALUES);
		KN_AMX_LOAD(6, lines, KN_STEP_BYTES);
		KN_AMX_DOT_BF16(0, 4, 6);
		KN_AMX_LOAD(7, lines + 64, KN_STEP_BYTES);
		KN_AMX_DOT_BF16(1, 4, 7);
		if (two) {
			KN_AMX_LOAD(5, p->x[tile + 1][i], 2 * TILE_VALUES);
			KN_AMX_DOT_BF16(2, 5, 6);
			KN_AMX_DOT_BF16(3, 5, 7);
		}
	}
	KN_AMX_STORE(0, y, stride);
	KN_AMX_STORE(1, y + 16, stride);
	if (two) {
		KN_AMX_STORE(2, below, stride);
		KN_AMX_STORE(3, below + 64, stride);
	}
	KN_AMX_FENCE();
}

/* Rows of a tile that is not full: y has no room for the others. */
static void sums_of_few(
	const struct packed_rows *p, size_t row, size_t rows, const uint8_t *lines, bool first, float *y, size_t ldy)
{
	_Alignas(64) float all[2 * TILE_ROWS][32] = { 0 };

	for (size_t r = 0; r < rows && !first; r++)
		memcpy(all[r], y + r * ldy, sizeof all[r]);
	if (rows > TILE_ROWS)
		sums(true, p, row / TILE_ROWS, lines, first, all[0], sizeof all[0]);
	else
		sums(false, p, row / TILE_ROWS, lines, first, all[0], sizeof all[0]);
	for (size_t r = 0; r < rows; r++)
		memcpy(y + r * ldy, all[r], sizeof all[r]);
}

/* All rows of the block by one panel, whose lines of this block of k and columns of y are given. */
static void panel_add(const struct packed_rows *p, const uint8_t *lines, bool first, float *y, size_t ldy)
{
	for (size_t row = 0, rows; row < p->rows; row += rows) {
		rows = p->rows - row < 2 * TILE_ROWS ? p->rows - row : 2 * TILE_ROWS;
		for (size_t half = 0; half < 2; half++) {
			float *at = y + row * ldy + half * 32;
			if (rows == 2 * TILE_ROWS)
				sums(true, p, row / TILE_ROWS, lines + half * 128, first, at, ldy * sizeof *y);
			else
				sums_of_few(p, row, rows, lines + half * 128, first, at, ldy);
		}
	}
}

void kn_amx_gemm_bf16_rows(const struct kn_gemm *g)
{
	struct packed_rows p;

	if (g->rows < KN_AMX_ROWS_MIN) {
		kn_avx512_gemm_bf16_rows(g);
		return;
	}
	kn_amx_begin();
	for (size_t row = 0; row < g->rows; row += KN_BLOCK_ROWS)
		for (size_t k = 0; k < g->k; k += BLOCK_VALUES) {
			pack_rows(g, row, k, &p);
			for (size_t panel = 0; panel < g->panels; panel++)
				panel_add(&p, g->weights + panel * g->panel_bytes + k / 2 * KN_STEP_BYTES, k == 0,
					g->y + row * g->ldy + panel * KN_PANEL_COLS, g->ldy);
		}
	kn_amx_end();
}
