/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop nest around the register tiles of integer GEMMs, the same for every form but AMX's:
 *
 *   for KN_BLOCK_ROWS rows, for KN_BLOCK_GROUPS groups of k: pack the rows, tile by tile
 *     for the panels of the job, for each of the groups (16 KiB of s8: they stay in L1)
 *       for each tile of rows: dots, scales, sums in y
 *
 * So each panel is read once and in order, whatever the rows, while the tiles share what is fetched
 * ahead among them. One row needs no packing.
 */
#ifndef CADRE_KERNELS_CPU_GEMM_INT_NEST_H
#define CADRE_KERNELS_CPU_GEMM_INT_NEST_H

#include "kernels/cpu/forms.h"
#include "kernels/cpu/tile.h"

#include <immintrin.h>

enum { KN_GROUP_WORDS = KN_GROUP / 4, KN_GROUP_SUMS_MAX = KN_GROUP / KN_GROUP_INT4 };

/* One KN_GROUP of k of a panel and some rows. Rows are `stride` apart: q [64][stride], 4 values of
 * k each; scales [stride]; sums [groups of the weights][stride]. */
struct kn_int_tile {
	const int32_t *q, *sums;
	const float *scales;
	const uint8_t *weights;
	/* What to fetch ahead: `fetch_step` bytes for each KN_STEP_BYTES of s8 weights. */
	const uint8_t *fetch;
	size_t fetch_step;
	bool first; /* y is written, else added to */
	float *y;
	size_t ldy;
};
typedef void kn_int_tile_fn(const struct kn_int_tile *t);

/* The rows of a tile in one group of k, packed: q, scales, sums. */
enum { KN_PACKED_WORDS = KN_GROUP_WORDS + 1 + KN_GROUP_SUMS_MAX }; /* of a row */

static inline const uint8_t *kn_gemm_int_row(const struct kn_gemm *g, size_t row)
{
	return g->q + (g->index ? g->index[row] : row) * g->ldq;
}

/* Rows first .. first + rows - 1, `group`-th group of k. Works on 4 rows at a time; the last four
 * repeat their last row. */
static inline void kn_gemm_int_pack(const struct kn_gemm *g, size_t first, size_t rows, size_t group,
	const size_t sums_count, const size_t stride, int32_t *packed)
{
	float *scales = (float *)(packed + KN_GROUP_WORDS * stride);
	int32_t *sums = packed + (KN_GROUP_WORDS + 1) * stride;

	for (size_t four = 0; four < rows; four += 4) {
		const float *in[4];
		for (size_t i = 0; i < 4; i++)
			in[i] = (const float *)(kn_gemm_int_row(g, first + (four + i < rows ? four + i : rows - 1)) +
				group * KN_GROUP);
		for (size_t j = 0; j < KN_GROUP_WORDS; j += 4) {
			__m128 a = _mm_load_ps(in[0] + j), b = _mm_load_ps(in[1] + j), c = _mm_load_ps(in[2] + j),
			       d = _mm_load_ps(in[3] + j);
			_MM_TRANSPOSE4_PS(a, b, c, d);
			float *to = (float *)packed + j * stride + four;
			_mm_store_ps(to, a);
			_mm_store_ps(to + stride, b);
			_mm_store_ps(to + 2 * stride, c);
			_mm_store_ps(to + 3 * stride, d);
		}
	}

	for (size_t r = 0; r < rows; r++) {
		const uint8_t *row = kn_gemm_int_row(g, first + r);
		scales[r] = kn_row_q_scales(row, g->k)[group];
		for (size_t i = 0; i < sums_count; i++)
			sums[i * stride + r] = kn_row_q_sums(row, g->k)[group * sums_count + i];
	}
}

/* One row needs no packing. */
KN_TILE void kn_gemm_int_alone(const struct kn_gemm *g, kn_int_tile_fn *tile, size_t row, size_t group,
	const size_t sums_count, struct kn_int_tile *t)
{
	const uint8_t *x = kn_gemm_int_row(g, row);
	t->q = (const int32_t *)x + group * KN_GROUP_WORDS;
	t->scales = kn_row_q_scales(x, g->k) + group;
	t->sums = kn_row_q_sums(x, g->k) + group * sums_count;
	tile(t);
}

/* The tiles of rows block .. end - 1 over groups begin .. last - 1 of one panel. */
KN_TILE void kn_gemm_int_panel(const struct kn_gemm *g, kn_int_tile_fn *const *tiles, const size_t tile_rows,
	const size_t sums_count, const size_t group_bytes, size_t block, size_t end, size_t begin, size_t last,
	size_t panel, const int32_t *packed)
{
	size_t tiles_count = (end - block + tile_rows - 1) / tile_rows, step = KN_STEP_BYTES / tiles_count;
	const uint8_t *weights = g->weights + panel * g->panel_bytes + begin * group_bytes;

	for (size_t group = begin; group < last; group++, weights += group_bytes) {
		struct kn_int_tile t = {
			.weights = weights,
			.fetch = weights + (tiles_count > 1 ? group_bytes : KN_FETCH_BYTES),
			.fetch_step = step,
			.first = group == 0,
			.ldy = g->ldy,
		};
		for (size_t row = block, rows; row < end; row += rows) {
			rows = kn_tile_rows(end - row, tile_rows);
			t.y = g->y + row * g->ldy + panel * KN_PANEL_COLS;
			if (rows == 1) {
				kn_gemm_int_alone(g, tiles[0], row, group, sums_count, &t);
			} else {
				t.q = packed;
				t.scales = (const float *)(packed + KN_GROUP_WORDS * tile_rows);
				t.sums = packed + (KN_GROUP_WORDS + 1) * tile_rows;
				tiles[rows - 1](&t);
				packed += KN_PACKED_WORDS * tile_rows;
			}
			t.fetch += KN_GROUP_WORDS * step;
		}
	}
}

/* tiles[r] handles r + 1 rows; all but tiles[0] read rows at a stride of tile_rows (a multiple of 4
 * that divides KN_BLOCK_ROWS), tiles[0] at 1. Constant arguments: it is inlined. */
KN_TILE void kn_gemm_int_nest(
	const struct kn_gemm *g, kn_int_tile_fn *const *tiles, const size_t tile_rows, const enum kn_storage storage)
{
	const size_t sums_count = KN_GROUP / kn_storage_group(storage),
		     group_bytes = sums_count * kn_group_bytes(storage), groups = g->k / KN_GROUP;
	_Alignas(64) int32_t packed[KN_BLOCK_GROUPS * KN_BLOCK_ROWS * KN_PACKED_WORDS];

	if (g->rows == 1) {
		for (size_t p = 0; p < g->panels; p++)
			kn_gemm_int_panel(g, tiles, tile_rows, sums_count, group_bytes, 0, 1, 0, groups, p, packed);
		return;
	}
	for (size_t block = 0; block < g->rows; block += KN_BLOCK_ROWS) {
		size_t end = g->rows - block < KN_BLOCK_ROWS ? g->rows : block + KN_BLOCK_ROWS;
		for (size_t begin = 0; begin < groups; begin += KN_BLOCK_GROUPS) {
			size_t last = groups - begin < KN_BLOCK_GROUPS ? groups : begin + KN_BLOCK_GROUPS;
			int32_t *to = packed;
			for (size_t group = begin; group < last; group++)
				for (size_t row = block, rows; row < end; row += rows) {
					rows = kn_tile_rows(end - row, tile_rows);
					if (rows == 1)
						continue;
					kn_gemm_int_pack(g, row, rows, group, sums_count, tile_rows, to);
					to += KN_PACKED_WORDS * tile_rows;
				}
			for (size_t p = 0; p < g->panels; p++)
				kn_gemm_int_panel(g, tiles, tile_rows, sums_count, group_bytes, block, end, begin, last,
					p, packed);
		}
	}
}

#endif
