/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop nest around the register tiles of integer GEMMs, the same for every form but AMX's:
 *
 *   for KN_BLOCK_ROWS rows, for KN_BLOCK_GROUPS groups of k: pack the rows, tile by tile
 *     for the panels of the job, for each of the groups (16 KiB of s8: they stay in L1; u4 is
 *     widened to that where the rows are many)
 *       for each tile of rows: dots, scales, sums in y
 *
 * So each panel is read once and in order, whatever the rows. One row needs no packing.
 */
#ifndef CADRE_KERNELS_CPU_GEMM_INT_NEST_H
#define CADRE_KERNELS_CPU_GEMM_INT_NEST_H

#include "kernels/cpu/forms.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/widen_u4.h"

#include <immintrin.h>

enum { KN_GROUP_WORDS = KN_GROUP / 4 };

/* One KN_GROUP of k of a panel and some rows. Rows are `stride` apart: q [64][stride], 4 values of
 * k each; scales [stride]; sums [KN_ROW_SUMS][stride], for s8 only the first. */
struct kn_int_tile {
	const int32_t *q, *sums;
	const float *scales;
	const uint8_t *weights;
	/* What to fetch ahead: `fetch_step` bytes for each KN_STEP_BYTES of weights. */
	const uint8_t *fetch;
	size_t fetch_step;
	bool first; /* y is written, else added to */
	float *y;
	size_t ldy;
};
typedef void kn_int_tile_fn(const struct kn_int_tile *t);

/* The rows of a tile in one group of k, packed: q, scales, sums. Words of a row, and rows that
 * there is room for. */
enum {
	KN_PACKED_WORDS = KN_GROUP_WORDS + 1 + KN_ROW_SUMS,
	KN_PACKED_ROWS = KN_BLOCK_GROUPS * KN_BLOCK_ROWS * 4 / 3,
};

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
		kn_transpose_4_rows(in, KN_GROUP_WORDS, (float *)packed + four, stride);
	}

	for (size_t r = 0; r < rows; r++) {
		const uint8_t *row = kn_gemm_int_row(g, first + r);
		const int32_t *row_sums = kn_row_q_sums(row, g->k, group);
		scales[r] = kn_row_q_scales(row, g->k)[group];
		for (size_t i = 0; i < sums_count; i++)
			sums[i * stride + r] = row_sums[i];
	}
}

/* What a form brings: tiles[r] handles r + 1 rows, of which tile_rows are a whole tile, a divisor
 * of KN_BLOCK_ROWS. All but tiles[0] read rows at `stride` (a multiple of 4), tiles[0] at 1.
 * `storage`: of the weights that they take. */
struct kn_int_tiles {
	kn_int_tile_fn *const *tiles;
	size_t tile_rows, stride;
	enum kn_storage storage;
};

/* Of a block: rows row .. end - 1, groups of k group .. last - 1. */
struct kn_int_block {
	size_t row, end, group, last;
};

static inline size_t kn_int_sums(const struct kn_int_tiles *of)
{
	return of->storage == KN_STORAGE_U4 ? KN_ROW_SUMS : 1;
}

KN_TILE void kn_gemm_int_pack_block(
	const struct kn_gemm *g, const struct kn_int_tiles *of, const struct kn_int_block *b, int32_t *packed)
{
	for (size_t group = b->group; group < b->last; group++)
		for (size_t row = b->row, rows; row < b->end; row += rows) {
			rows = kn_tile_rows(b->end - row, of->tile_rows);
			if (rows == 1) /* is read where it is */
				continue;
			kn_gemm_int_pack(g, row, rows, group, kn_int_sums(of), of->stride, packed);
			packed += KN_PACKED_WORDS * of->stride;
		}
}

/* Where tile t reads its rows. Returns what comes after them, where they are packed. */
KN_TILE const int32_t *kn_gemm_int_rows(const struct kn_gemm *g, const struct kn_int_tiles *of, size_t row, size_t rows,
	size_t group, const int32_t *packed, struct kn_int_tile *t)
{
	const uint8_t *x = kn_gemm_int_row(g, row);
	if (rows == 1) {
		t->q = (const int32_t *)x + group * KN_GROUP_WORDS;
		t->scales = kn_row_q_scales(x, g->k) + group;
		t->sums = kn_row_q_sums(x, g->k, group);
		return packed;
	}
	t->q = packed;
	t->scales = (const float *)(packed + KN_GROUP_WORDS * of->stride);
	t->sums = packed + (KN_GROUP_WORDS + 1) * of->stride;
	return packed + KN_PACKED_WORDS * of->stride;
}

/*
 * The tiles of a block, over one panel of `storage`, widened where they do not take that. Of several
 * tiles each fetches its share of the next group, so that memory always has something to do. One
 * tile of some rows of s8 waits for memory, and leaves that to the processor: it has more lines
 * under way by itself than when it is told of them.
 */
KN_TILE void kn_gemm_int_panel(const struct kn_gemm *g, enum kn_storage storage, const struct kn_int_tiles *of,
	const struct kn_int_block *b, size_t panel, const int32_t *packed)
{
	_Alignas(64) uint8_t wide[KN_S8_GROUP_BYTES];
	size_t tiles = (b->end - b->row + of->tile_rows - 1) / of->tile_rows, bytes = kn_group_bytes(storage),
	       steps = kn_group_bytes(of->storage) / KN_STEP_BYTES;
	size_t ahead = g->rows == 1 ? KN_FETCH_BYTES : tiles > 1 || storage == KN_STORAGE_U4 ? bytes : 0;
	const uint8_t *weights = g->weights + panel * g->panel_bytes + b->group * bytes;

	for (size_t group = b->group; group < b->last; group++, weights += bytes) {
		struct kn_int_tile t = {
			.weights = of->storage == storage ? weights : wide,
			.fetch = weights + ahead,
			.fetch_step = bytes / steps / tiles,
			.first = group == 0,
			.ldy = g->ldy,
		};
		if (of->storage != storage)
			kn_widen_u4(weights, wide);
		for (size_t row = b->row, rows; row < b->end; row += rows) {
			rows = kn_tile_rows(b->end - row, of->tile_rows);
			t.y = g->y + row * g->ldy + panel * KN_PANEL_COLS;
			packed = kn_gemm_int_rows(g, of, row, rows, group, packed, &t);
			of->tiles[rows - 1](&t);
			t.fetch += t.fetch_step * steps;
		}
	}
}

KN_TILE void kn_gemm_int_block(const struct kn_gemm *g, enum kn_storage storage, const struct kn_int_tiles *of,
	const struct kn_int_block *b, int32_t *packed)
{
	kn_gemm_int_pack_block(g, of, b, packed);
	for (size_t p = 0; p < g->panels; p++)
		kn_gemm_int_panel(g, storage, of, b, p, packed);
}

/* `of` is constant: it is inlined. `wide`: tiles of s8, which from wide_rows rows on are faster
 * than those of u4; else as `of`. */
KN_TILE void kn_gemm_int_nest(
	const struct kn_gemm *g, const struct kn_int_tiles *of, const struct kn_int_tiles *wide, size_t wide_rows)
{
	_Alignas(64) int32_t packed[KN_PACKED_ROWS * KN_PACKED_WORDS];
	size_t groups = g->k / KN_GROUP;

	CAD_ASSERT(KN_BLOCK_GROUPS * (KN_BLOCK_ROWS / of->tile_rows) * of->stride <= KN_PACKED_ROWS);
	if (g->rows == 1) {
		for (size_t p = 0; p < g->panels; p++)
			kn_gemm_int_panel(g, of->storage, of, &(struct kn_int_block){ 0, 1, 0, groups }, p, packed);
		return;
	}
	for (size_t row = 0; row < g->rows; row += KN_BLOCK_ROWS)
		for (size_t group = 0; group < groups; group += KN_BLOCK_GROUPS) {
			struct kn_int_block b = {
				.row = row,
				.end = g->rows - row < KN_BLOCK_ROWS ? g->rows : row + KN_BLOCK_ROWS,
				.group = group,
				.last = groups - group < KN_BLOCK_GROUPS ? groups : group + KN_BLOCK_GROUPS,
			};
			if (wide != of && b.end - b.row >= wide_rows)
				kn_gemm_int_block(g, of->storage, wide, &b, packed);
			else
				kn_gemm_int_block(g, of->storage, of, &b, packed);
		}
}

#endif
