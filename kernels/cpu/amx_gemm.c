/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM on integers with AMX: 16 lines of a panel, a step apart, are the weights of a tile (64
 * values of k, 16 columns), 64 values of k of 16 rows the activations. Few rows go to AVX-512,
 * which reads as fast and wastes nothing.
 *
 *   for KN_BLOCK_ROWS rows, for each KN_GROUP of k: pack the rows to tiles of 1 KiB
 *     for the panels of the job (u4 becomes s8 first)
 *       for two tiles of rows and two lines of columns: dots in tiles, then scales in registers
 *
 * Rows past the end are zero in their tile, and their sums are dropped.
 */
#include "kernels/cpu/forms.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/widen_u4.h"

#ifndef KN_AMX_TWIN
#include "kernels/cpu/amx_tile.h"
#endif

enum {
	TILE_ROWS = 16,
	TILE_VALUES = 64, /* of k */
	ROW_TILES = KN_BLOCK_ROWS / TILE_ROWS,
	GROUP_TILES = KN_GROUP / TILE_VALUES,
};
_Static_assert(KN_BLOCK_ROWS % TILE_ROWS == 0, "a block is whole tiles");

/* A block of rows in one KN_GROUP of k. */
struct packed_rows {
	_Alignas(64) int8_t q[ROW_TILES][GROUP_TILES][TILE_ROWS][TILE_VALUES];
	float scales[KN_BLOCK_ROWS];
	size_t rows;
};

static void pack_rows(const struct kn_gemm *g, size_t first, size_t group, struct packed_rows *to)
{
	to->rows = g->rows - first < KN_BLOCK_ROWS ? g->rows - first : KN_BLOCK_ROWS;
	for (size_t r = 0; r < kn_round_up(to->rows, TILE_ROWS); r++) {
		size_t row = first + r;
		const uint8_t *x = r < to->rows ? g->q + (g->index ? g->index[row] : row) * g->ldq : NULL;
		for (size_t i = 0; i < GROUP_TILES; i++) {
			int8_t *out = to->q[r / TILE_ROWS][i][r % TILE_ROWS];
			if (x)
				memcpy(out, x + group * KN_GROUP + i * TILE_VALUES, TILE_VALUES);
			else
				memset(out, 0, TILE_VALUES);
		}
		to->scales[r] = x ? kn_row_q_scales(x, g->k)[group] : 0.0f;
	}
}

/* Where sums go: y of row r, and the columns of two lines. */
struct sums {
	float *y;
	size_t ldy, rows;
	const float *row_scales, *scales;
	bool first;
};

/* y (+)= (float)dot * (the row's scale * the columns'), of 32 columns */
static void scale_add(const struct sums *s, int32_t (*dots)[32])
{
	__mmask16 kept = s->first ? 0 : 0xffff;
	for (size_t r = 0; r < s->rows; r++)
		KN_UNROLL_FOR (size_t v = 0; v < 2; v++) {
			float *y = s->y + r * s->ldy + v * 16;
			__m512 scale =
				_mm512_mul_ps(_mm512_set1_ps(s->row_scales[r]), _mm512_loadu_ps(s->scales + v * 16));
			__m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots[r] + v * 16));
			_mm512_storeu_ps(y, _mm512_fmadd_ps(dot, scale, _mm512_maskz_loadu_ps(kept, y)));
		}
}

/* One group: two lines of columns at `lines` by one or two tiles of rows. Tiles 0 .. 3 are sums, 4
 * and 5 rows, 6 and 7 columns. */
static void dots_1x2(int8_t (*x)[TILE_ROWS][TILE_VALUES], const uint8_t *lines, int32_t (*dots)[32])
{
	KN_AMX_ZERO(0);
	KN_AMX_ZERO(1);
	for (size_t i = 0; i < GROUP_TILES; i++, lines += TILE_VALUES / 4 * KN_STEP_BYTES) {
		KN_AMX_LOAD(4, x[i], TILE_VALUES);
		KN_AMX_LOAD(6, lines, KN_STEP_BYTES);
		KN_AMX_LOAD(7, lines + 64, KN_STEP_BYTES);
		KN_AMX_DOT(0, 4, 6);
		KN_AMX_DOT(1, 4, 7);
	}
	KN_AMX_STORE(0, dots[0], sizeof dots[0]);
	KN_AMX_STORE(1, dots[0] + 16, sizeof dots[0]);
}

static void dots_2x2(int8_t (*x0)[TILE_ROWS][TILE_VALUES], int8_t (*x1)[TILE_ROWS][TILE_VALUES], const uint8_t *lines,
	int32_t (*dots)[32])
{
	KN_AMX_ZERO(0);
	KN_AMX_ZERO(1);
	KN_AMX_ZERO(2);
	KN_AMX_ZERO(3);
	for (size_t i = 0; i < GROUP_TILES; i++, lines += TILE_VALUES / 4 * KN_STEP_BYTES) {
		KN_AMX_LOAD(4, x0[i], TILE_VALUES);
		KN_AMX_LOAD(6, lines, KN_STEP_BYTES);
		KN_AMX_DOT(0, 4, 6);
		KN_AMX_LOAD(7, lines + 64, KN_STEP_BYTES);
		KN_AMX_DOT(1, 4, 7);
		KN_AMX_LOAD(5, x1[i], TILE_VALUES);
		KN_AMX_DOT(2, 5, 6);
		KN_AMX_DOT(3, 5, 7);
	}
	KN_AMX_STORE(0, dots[0], sizeof dots[0]);
	KN_AMX_STORE(1, dots[0] + 16, sizeof dots[0]);
	KN_AMX_STORE(2, dots[TILE_ROWS], sizeof dots[0]);
	KN_AMX_STORE(3, dots[TILE_ROWS] + 16, sizeof dots[0]);
}

/* One group of a panel of s8 by all rows of the block; y is the panel's. */
static void group_add(struct packed_rows *x, const uint8_t *weights, bool first, float *y, size_t ldy)
{
	const float *scales = (const float *)weights;
	const uint8_t *lines = weights + KN_STEP_BYTES;
	_Alignas(64) int32_t dots[2 * TILE_ROWS][32];

	for (size_t row = 0, rows; row < x->rows; row += rows) {
		rows = x->rows - row < 2 * TILE_ROWS ? x->rows - row : 2 * TILE_ROWS;
		size_t tile = row / TILE_ROWS;
		for (size_t half = 0; half < 2; half++) {
			KN_AMX_FENCE();
			if (rows > TILE_ROWS)
				dots_2x2(x->q[tile], x->q[tile + 1], lines + half * 128, dots);
			else
				dots_1x2(x->q[tile], lines + half * 128, dots);
			KN_AMX_FENCE();
			scale_add(
				&(struct sums){
					.y = y + row * ldy + half * 32,
					.ldy = ldy,
					.rows = rows,
					.row_scales = x->scales + row,
					.scales = scales + half * 32,
					.first = first,
				},
				dots);
		}
	}
}

static void gemm(const struct kn_gemm *g, enum kn_storage storage)
{
	_Alignas(64) uint8_t wide[KN_S8_GROUP_BYTES];
	struct packed_rows x;

	kn_amx_begin();
	for (size_t row = 0; row < g->rows; row += KN_BLOCK_ROWS)
		for (size_t group = 0; group < g->k / KN_GROUP; group++) {
			pack_rows(g, row, group, &x);
			for (size_t p = 0; p < g->panels; p++) {
				const uint8_t *weights =
					g->weights + p * g->panel_bytes + group * kn_group_bytes(storage);
				if (storage == KN_STORAGE_U4)
					kn_widen_u4(weights, wide);
				group_add(&x, storage == KN_STORAGE_U4 ? wide : weights, group == 0,
					g->y + row * g->ldy + p * KN_PANEL_COLS, g->ldy);
			}
		}
	kn_amx_end();
}

void kn_amx_gemm_s8(const struct kn_gemm *g)
{
	if (g->rows < KN_AMX_ROWS_MIN)
		kn_avx512_gemm_s8(g);
	else
		gemm(g, KN_STORAGE_S8);
}

void kn_amx_gemm_u4(const struct kn_gemm *g)
{
	if (g->rows < KN_AMX_ROWS_MIN)
		kn_avx512_gemm_u4(g);
	else
		gemm(g, KN_STORAGE_U4);
}
