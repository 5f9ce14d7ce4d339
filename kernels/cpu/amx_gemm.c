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

#ifndef KN_AMX_TWIN
#include "kernels/cpu/amx_tile.h"
#endif

enum {
	TILE_ROWS = 16,
	TILE_VALUES = 64, /* of k */
	ROW_TILES = KN_BLOCK_ROWS / TILE_ROWS,
	GROUP_STEPS = KN_GROUP / 4, /* of s8 */
};
_Static_assert(KN_BLOCK_ROWS % TILE_ROWS == 0, "a block is whole tiles");
_Static_assert(KN_GROUP_INT4 % TILE_VALUES == 0, "a group is whole tiles");

/* A block of rows in one KN_GROUP of k. */
struct packed_rows {
	_Alignas(64) int8_t q[ROW_TILES][KN_GROUP / TILE_VALUES][TILE_ROWS][TILE_VALUES];
	float scales[KN_BLOCK_ROWS];
	size_t rows;
};

static void pack_rows(const struct kn_gemm *g, size_t first, size_t group, struct packed_rows *to)
{
	to->rows = g->rows - first < KN_BLOCK_ROWS ? g->rows - first : KN_BLOCK_ROWS;
	for (size_t r = 0; r < kn_round_up(to->rows, TILE_ROWS); r++) {
		size_t row = first + r;
		const uint8_t *x = r < to->rows ? g->q + (g->index ? g->index[row] : row) * g->ldq : NULL;
		for (size_t i = 0; i < KN_GROUP / TILE_VALUES; i++) {
			int8_t *out = to->q[r / TILE_ROWS][i][r % TILE_ROWS];
			if (x)
				memcpy(out, x + group * KN_GROUP + i * TILE_VALUES, TILE_VALUES);
			else
				memset(out, 0, TILE_VALUES);
		}
		to->scales[r] = x ? kn_row_q_scales(x, g->k)[group] : 0.0f;
	}
}

/* The steps of u4 that hold `group` values of k, as steps of s8. */
static void steps_of_u4(const uint8_t *lines, size_t group, uint8_t *out)
{
	const __m512i low_bits = _mm512_set1_epi8(0x0f), bias = _mm512_set1_epi8(8);
	for (size_t step = 0; step < group / 8; step++)
		for (size_t v = 0; v < 4; v++) {
			__m512i line = _mm512_load_si512(lines + step * KN_STEP_BYTES + v * 64);
			__m512i low = _mm512_and_si512(line, low_bits),
				high = _mm512_and_si512(_mm512_srli_epi32(line, 4), low_bits);
			uint8_t *to = out + 2 * step * KN_STEP_BYTES + v * 64;
			_mm512_store_si512(to, _mm512_sub_epi8(low, bias));
			_mm512_store_si512(to + KN_STEP_BYTES, _mm512_sub_epi8(high, bias));
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

/* One group of the weights, `tiles` of k from tile `from` of the rows on: two lines of columns at
 * `lines` by one or two tiles of rows. Tiles 0 .. 3 are sums, 4 and 5 rows, 6 and 7 columns. */
static void dots_1x2(int8_t (*x)[TILE_ROWS][TILE_VALUES], size_t tiles, const uint8_t *lines, int32_t (*dots)[32])
{
	KN_AMX_ZERO(0);
	KN_AMX_ZERO(1);
	for (size_t i = 0; i < tiles; i++, lines += TILE_VALUES / 4 * KN_STEP_BYTES) {
		KN_AMX_LOAD(4, x[i], TILE_VALUES);
		KN_AMX_LOAD(6, lines, KN_STEP_BYTES);
		KN_AMX_LOAD(7, lines + 64, KN_STEP_BYTES);
		KN_AMX_DOT(0, 4, 6);
		KN_AMX_DOT(1, 4, 7);
	}
	KN_AMX_STORE(0, dots[0], sizeof dots[0]);
	KN_AMX_STORE(1, dots[0] + 16, sizeof dots[0]);
}

static void dots_2x2(int8_t (*x0)[TILE_ROWS][TILE_VALUES], int8_t (*x1)[TILE_ROWS][TILE_VALUES], size_t tiles,
	const uint8_t *lines, int32_t (*dots)[32])
{
	KN_AMX_ZERO(0);
	KN_AMX_ZERO(1);
	KN_AMX_ZERO(2);
	KN_AMX_ZERO(3);
	for (size_t i = 0; i < tiles; i++, lines += TILE_VALUES / 4 * KN_STEP_BYTES) {
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

/* One group of the weights, s8 lines, by all rows of the block; y is the panel's. */
static void group_add(struct packed_rows *x, size_t from, size_t group, const float *scales, const uint8_t *lines,
	bool first, float *y, size_t ldy)
{
	_Alignas(64) int32_t dots[2 * TILE_ROWS][32];

	for (size_t row = 0, rows; row < x->rows; row += rows) {
		rows = x->rows - row < 2 * TILE_ROWS ? x->rows - row : 2 * TILE_ROWS;
		size_t tile = row / TILE_ROWS;
		for (size_t half = 0; half < 2; half++) {
			KN_AMX_FENCE();
			if (rows > TILE_ROWS)
				dots_2x2(x->q[tile] + from, x->q[tile + 1] + from, group / TILE_VALUES,
					lines + half * 128, dots);
			else
				dots_1x2(x->q[tile] + from, group / TILE_VALUES, lines + half * 128, dots);
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
	_Alignas(64) uint8_t unpacked[GROUP_STEPS * KN_STEP_BYTES];
	struct packed_rows x;
	size_t group = kn_storage_group(storage), group_bytes = kn_group_bytes(storage);

	kn_amx_begin();
	for (size_t row = 0; row < g->rows; row += KN_BLOCK_ROWS)
		for (size_t k = 0; k < g->k; k += KN_GROUP) {
			pack_rows(g, row, k / KN_GROUP, &x);
			for (size_t p = 0; p < g->panels; p++) {
				const uint8_t *at = g->weights + p * g->panel_bytes + k / group * group_bytes;
				float *y = g->y + row * g->ldy + p * KN_PANEL_COLS;
				for (size_t i = 0; i < KN_GROUP; i += group, at += group_bytes) {
					const uint8_t *lines = at + KN_STEP_BYTES;
					if (storage == KN_STORAGE_U4)
						steps_of_u4(lines, group, unpacked);
					group_add(&x, i / TILE_VALUES, group, (const float *)at,
						storage == KN_STORAGE_U4 ? unpacked : lines, k + i == 0, y, g->ldy);
				}
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
