/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM in the order of profile bf16-sm90 (kernels/sm90.h) in vectors, for AVX2 and AVX-512, which
 * say before what a vector is. A step of k is 16 values; for each row and each vector of columns:
 *
 *   exponents: a sum of two fields for each product, in 16 bits, and their maximum, t with acc's
 *   terms: trunc(x * w * 2^(25 - t)) as integers of 32 bits; products of bf16 are exact in f32
 *   acc = the integers' sum, toward zero (by the mode), * 2^(t - 25)
 *
 * That holds while no product of consequence leaves the exponents of f32 and no sum 32 bits. A column
 * for which it may not gets its step from kn_sm90_add.
 *
 *   for KN_SM90_ROWS rows, for KN_SM90_CHUNK values of k: round the rows, and take their exponents
 *     for the panels of the job, step by step: widen the weights and take their exponents, and all rows
 */
#ifndef CADRE_KERNELS_CPU_GEMM_SM90_H
#define CADRE_KERNELS_CPU_GEMM_SM90_H

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/forms.h"
#include "kernels/cpu/tile.h"
#include "kernels/sm90.h"

enum {
	KN_SM90_STEPS = KN_SM90_CHUNK / KN_SM90_BLOCK,
	KN_SM90_PAIRS = KN_SM90_BLOCK / 2,
	KN_SM90_VECTORS = KN_PANEL_COLS / LANES, /* of a row of y */
	/* exponents that are none, in fields: of zero, and of infinity and NaN, which is larger than any
	 * sum with a zero's */
	KN_SM90_NOTHING = -8192,
	KN_SM90_TOO_LARGE = 16000,
	/* t as a field of f32, where all factors and results are normal numbers: 2^-100 .. 2^120 */
	KN_SM90_TOP_MIN = 27,
	KN_SM90_TOP_MAX = 247,
};
_Static_assert(KN_K_UNIT % KN_SM90_BLOCK == 0, "rows are whole steps");

/* A step of a row: values rounded to bf16, and exponents as kn_sm90's, two and two. */
struct kn_sm90_row {
	float x[KN_SM90_BLOCK];
	uint32_t exponents[KN_SM90_PAIRS];
};

/* A step of a panel: weights as f32, and their exponents; the bias of a field is the rows'. */
struct kn_sm90_weights {
	_Alignas(64) float w[KN_SM90_BLOCK][KN_PANEL_COLS];
	vector exponents[KN_SM90_PAIRS][KN_SM90_VECTORS];
};

/* Pairs of bf16 to their fields, where subnormals have that of 2^-126. */
KN_TILE vector fields(vector pairs)
{
	vector magnitude = v_and(pairs, v_all(0x7fff7fff));
	vector field = v_max_16(v_shift_right_16(magnitude, KN_SM90_BF16_DIGITS), v_all(0x00010001));
	field = v_add_16(field, v_and(v_equal_16(magnitude, v_all(0)), v_all_16(KN_SM90_NOTHING)));
	return v_add_16(field, v_and(v_greater_16(magnitude, v_all_16(0x7f7f)), v_all_16(KN_SM90_TOO_LARGE)));
}

static void sm90_weights(const uint8_t *lines, struct kn_sm90_weights *to)
{
	for (size_t i = 0; i < KN_SM90_PAIRS; i++, lines += KN_STEP_BYTES)
		for (size_t v = 0; v < KN_SM90_VECTORS; v++) {
			vector pairs = v_load(lines + v * sizeof pairs);
			v_store(&to->w[2 * i][v * LANES], v_shift_left(pairs, 16));
			v_store(&to->w[2 * i + 1][v * LANES], v_and(pairs, v_all((int)0xffff0000)));
			to->exponents[i][v] = fields(pairs);
		}
}

/* A step of one row; its exponents without the bias, so that a sum of two is a field of f32. */
static void sm90_row(const float *x, struct kn_sm90_row *to)
{
	_Alignas(64) int16_t exponents[KN_SM90_BLOCK];

	kn_bf16_round(x, KN_SM90_BLOCK, to->x);
	for (size_t i = 0; i < KN_SM90_BLOCK; i++) {
		uint32_t bits;
		memcpy(&bits, &to->x[i], sizeof bits);
		int field = (int)(bits >> KN_SM90_F32_DIGITS & 0xff);
		exponents[i] = (int16_t)((field > 0 ? field : 1) - 127 + (field == 0xff ? KN_SM90_TOO_LARGE : 0) +
			(bits << 1 == 0 ? KN_SM90_NOTHING : 0));
	}
	memcpy(to->exponents, exponents, sizeof exponents);
}

static uint16_t bf16_of(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	return (uint16_t)(bits >> 16);
}

/* The columns in `lanes`, from what acc was before. */
static void __attribute__((noinline, cold)) sm90_by_definition(unsigned lanes, const struct kn_sm90_row *row,
	const struct kn_sm90_weights *step, size_t column, vector acc, float *y)
{
	uint16_t a[KN_SM90_BLOCK], b[KN_SM90_BLOCK];
	float before[LANES];

	v_store(before, acc);
	for (size_t i = 0; i < KN_SM90_BLOCK; i++)
		a[i] = bf16_of(row->x[i]);
	for (; lanes != 0; lanes &= lanes - 1) {
		size_t lane = (size_t)__builtin_ctz(lanes);
		for (size_t i = 0; i < KN_SM90_BLOCK; i++)
			b[i] = bf16_of(step->w[i][column + lane]);
		y[lane] = kn_sm90_add(before[lane], a, b);
	}
}

/* AT_ONCE vectors of columns, from the vector `first` of the panel on, which y holds. */
KN_TILE void sm90_columns(const struct kn_sm90_row *row, const struct kn_sm90_weights *step, size_t first, float *y)
{
	vector acc[AT_ONCE], largest[AT_ONCE], scale[AT_ONCE], sum[AT_ONCE], inverse[AT_ONCE], wrong[AT_ONCE];

	KN_UNROLL_FOR (size_t v = 0; v < AT_ONCE; v++)
		largest[v] = v_all_16(2 * KN_SM90_NOTHING);
	KN_UNROLL_FOR (size_t i = 0; i < KN_SM90_PAIRS; i++) {
		vector x = v_all((int)row->exponents[i]);
		KN_UNROLL_FOR (size_t v = 0; v < AT_ONCE; v++)
			largest[v] = v_max_16(largest[v], v_add_16(x, step->exponents[i][first + v]));
	}

	KN_UNROLL_FOR (size_t v = 0; v < AT_ONCE; v++) {
		acc[v] = v_load(y + v * LANES);
		vector products = v_max(v_shift_right_signed(v_shift_left(largest[v], 16), 16),
			       v_shift_right_signed(largest[v], 16)),
		       field = v_and(v_shift_right(acc[v], KN_SM90_F32_DIGITS), v_all(0xff)),
		       top = v_max(products, field),
		       nothing = v_and(v_less(products, v_all(KN_SM90_NOTHING / 2)), v_equal(acc[v], v_all(0)));
		wrong[v] = v_or(
			v_less(v_all(KN_SM90_TOP_MAX), top), v_and_not(nothing, v_less(top, v_all(KN_SM90_TOP_MIN))));
		top = v_min(v_max(top, v_all(KN_SM90_TOP_MIN)), v_all(KN_SM90_TOP_MAX));
		scale[v] = v_shift_left(v_sub(v_all(127 + KN_SM90_FRACTION + 127), top), KN_SM90_F32_DIGITS);
		inverse[v] = v_shift_left(v_sub(top, v_all(KN_SM90_FRACTION)), KN_SM90_F32_DIGITS);
		sum[v] = v_all(0);
	}

	KN_UNROLL_FOR (size_t i = 0; i < KN_SM90_BLOCK; i++) {
		vector x = v_all_f32(row->x[i]);
		KN_UNROLL_FOR (size_t v = 0; v < AT_ONCE; v++)
			sum[v] = v_add(
				sum[v], v_cut(v_mul(v_mul(x, v_load(&step->w[i][(first + v) * LANES])), scale[v])));
	}

	KN_UNROLL_FOR (size_t v = 0; v < AT_ONCE; v++) {
		vector term = v_cut(v_mul(acc[v], scale[v])), all = v_add(sum[v], term);
		/* of 17 terms below 2^27 the sum may just be more than 31 bits: its sign is then neither's */
		unsigned lanes = v_signs(v_or(wrong[v], v_and(v_xor(sum[v], all), v_xor(term, all))));
		v_store(y + v * LANES, v_mul(v_to_f32(all), inverse[v]));
		if (__builtin_expect(lanes != 0, 0))
			sm90_by_definition(lanes, row, step, (first + v) * LANES, acc[v], y + v * LANES);
	}
}

/* The rows of a block by one panel, for `steps` steps of k. */
static void sm90_panel(struct kn_sm90_row (*rows)[KN_SM90_STEPS], size_t count, const uint8_t *lines, size_t steps,
	bool first, float *y, size_t ldy)
{
	struct kn_sm90_weights step;

	for (size_t r = 0; r < count && first; r++)
		memset(y + r * ldy, 0, KN_PANEL_COLS * sizeof *y);
	for (size_t s = 0; s < steps; s++, lines += KN_SM90_PAIRS * KN_STEP_BYTES) {
		sm90_weights(lines, &step);
		for (size_t r = 0; r < count; r++)
			for (size_t v = 0; v < KN_SM90_VECTORS; v += AT_ONCE)
				sm90_columns(&rows[r][s], &step, v, y + r * ldy + v * LANES);
	}
}

static void gemm_sm90(const struct kn_gemm *g)
{
	struct kn_sm90_row rows[KN_SM90_ROWS][KN_SM90_STEPS];
	unsigned csr = kn_mode_begin(KN_MODE_TOWARD_ZERO);

	for (size_t row = 0, count; row < g->rows; row += count) {
		count = g->rows - row < KN_SM90_ROWS ? g->rows - row : KN_SM90_ROWS;
		for (size_t k = 0, steps; k < g->k; k += steps * KN_SM90_BLOCK) {
			steps = (g->k - k < KN_SM90_CHUNK ? g->k - k : KN_SM90_CHUNK) / KN_SM90_BLOCK;
			for (size_t r = 0; r < count; r++) {
				const float *x = g->x + (g->index ? g->index[row + r] : row + r) * g->ldx + k;
				for (size_t s = 0; s < steps; s++)
					sm90_row(x + s * KN_SM90_BLOCK, &rows[r][s]);
			}
			for (size_t p = 0; p < g->panels; p++)
				sm90_panel(rows, count, g->weights + p * g->panel_bytes + k / 2 * KN_STEP_BYTES, steps,
					k == 0, g->y + row * g->ldy + p * KN_PANEL_COLS, g->ldy);
		}
	}
	kn_mode_end(csr);
}

#endif
