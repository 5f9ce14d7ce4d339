/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Profile bf16-sm90: one step of Hopper's tensor cores (kernels/sm90.h) beside the model that was
 * fitted to an H200, written once more in double, and at its corners; products of every count of
 * rows, form by form, against the reference bit for bit.
 */
#include "kernels/sm90.h"
#include "common/base/clock.h"
#include "kernels/cpu/cpu.h"
#include "kernels/image.h"
#include "tests/support/op_cases.h"

#include <immintrin.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SEED = 4711, STEPS = 200000 };

static uint32_t bits_of(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

static float f32_of(uint32_t bits)
{
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

static double value_of(uint16_t half) { return (double)f32_of((uint32_t)half << 16); }

/* ---- one step ---- */

static int exponent_of(double x)
{
	int exponent;
	(void)frexp(x, &exponent);
	return exponent - 1 < -126 ? -126 : exponent - 1;
}

/* Finite operands: sums of at most 17 integers below 2^27, which double holds. */
static float modelled(float acc, const uint16_t *a, const uint16_t *b)
{
	double terms[17], sum = 0;
	int top = exponent_of((double)acc);

	for (int i = 0; i < 16; i++) {
		double x = value_of(a[i]), y = value_of(b[i]);
		terms[i] = x * y;
		if (terms[i] != 0 && exponent_of(x) + exponent_of(y) > top)
			top = exponent_of(x) + exponent_of(y);
	}
	terms[16] = (double)acc;
	for (int i = 0; i <= 16; i++)
		sum += trunc(ldexp(terms[i], 25 - top));
	sum = ldexp(sum, top - 25);

	float rounded = (float)sum;
	if (isinf(rounded))
		return fabs(sum) < 0x1p128 ? copysignf(0x1.fffffep127f, rounded) : rounded;
	return fabs((double)rounded) > fabs(sum) ? nextafterf(rounded, 0) : rounded;
}

/* A bf16 of any sign with an exponent 2^low .. 2^(low + span - 1), now and then zero or subnormal. */
static uint16_t draw(struct cad_random *random, int low, uint32_t span)
{
	uint32_t bits = (uint32_t)cad_random_next(random), kind = bits >> 20 & 63;
	uint32_t exponent = kind < 2 ? 0 : (uint32_t)(127 + low) + (uint32_t)cad_random_below(random, span);
	return (uint16_t)((bits & 0x807f) | exponent << 7) & (kind == 0 ? 0x8000 : 0xffff);
}

static void a_step_is_the_fitted_model(void **state)
{
	(void)state;
	struct cad_random random = { SEED };
	static const struct {
		int low;
		uint32_t span;
		int acc_low;
		uint32_t acc_span;
	} spreads[] = { { 0, 1, 0, 5 }, { -1, 4, 0, 5 }, { -6, 13, 0, 5 }, { -20, 41, 0, 5 }, { -126, 254, -126, 254 },
		{ -70, 8, -126, 10 }, { 60, 4, 120, 8 } };

	for (size_t s = 0; s < sizeof spreads / sizeof *spreads; s++)
		for (size_t i = 0; i < STEPS; i++) {
			uint16_t a[16], b[16];
			for (size_t k = 0; k < 16; k++) {
				a[k] = draw(&random, spreads[s].low, spreads[s].span);
				b[k] = draw(&random, spreads[s].low, spreads[s].span);
			}
			float acc = f32_of((uint32_t)draw(&random, spreads[s].acc_low, spreads[s].acc_span) << 16 |
				((uint32_t)cad_random_next(&random) & 0xffff));
			float got = kn_sm90_add(acc, a, b), expected = modelled(acc, a, b);
			if (got != expected)
				fail_msg("spread %zu, step %zu: %a, not %a", s, i, (double)got, (double)expected);
		}
}

/* acc and `count` pairs of operands, the rest zeros; the sum to the bit. */
static void expect(uint32_t acc, size_t count, const float (*pairs)[2], uint32_t expected)
{
	uint16_t a[16] = { 0 }, b[16] = { 0 };
	for (size_t i = 0; i < count; i++) {
		a[i] = kn_bf16_of(pairs[i][0]);
		b[i] = kn_bf16_of(pairs[i][1]);
	}
	uint32_t got = bits_of(kn_sm90_add(f32_of(acc), a, b));
	if (got != expected)
		fail_msg("%08x + %zu products from %a x %a on: %08x, not %08x", acc, count, (double)pairs[0][0],
			(double)pairs[0][1], got, expected);
}
#define PAIRS(...) \
	sizeof((const float[][2]){ __VA_ARGS__ }) / sizeof(float[2]), (const float[][2]) { __VA_ARGS__ }
#define FOUR(...) __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__

static void terms_are_cut(void **state)
{
	(void)state;
	/* fifteen times 2^-25 beside 1 are 3.75 units of the result; 2^-26 is cut away */
	expect(bits_of(1), PAIRS(FOUR({ 0x1p-25f, 1 }), FOUR({ 0x1p-25f, 1 }), FOUR({ 0x1p-25f, 1 }), { 0x3p-25f, 1 }),
		bits_of(1 + 0x3p-23f));
	expect(bits_of(1), PAIRS(FOUR({ 0x1p-26f, 1 }), FOUR({ 0x1p-26f, 1 }), FOUR({ 0x1p-26f, 1 })), bits_of(1));
	/* each alone, whatever its sign, and then the sum: both toward zero */
	expect(bits_of(1), PAIRS({ 0x1p-25f, -1.75f }), bits_of(1 - 0x1p-24f));
	expect(bits_of(-1), PAIRS({ 0x1p-24f, -1 }), bits_of(-1));
	/* 1.5 x 1.5 has exponent 0: 2^-25 beside it counts */
	expect(0, PAIRS({ 1.5f, 1.5f }, { 1.5f, -1.5f }, { 0x1p-25f, 1 }), bits_of(0x1p-25f));
	/* what is cancelled has cut the rest all the same */
	expect(bits_of(1 + 0x1p-23f), PAIRS({ 0x1p30f, 1 }, { 0x1p30f, -1 }), bits_of(0));
	expect(bits_of(33), PAIRS({ 0x1p30f, 1 }, { 0x1p30f, -1 }), bits_of(32));
	/* sixteen times (2 - 2^-7)^2 and nearly 2 are more than 31 bits of the unit */
	expect(bits_of(0x1.fffffep0f), PAIRS(FOUR(FOUR({ 1.9921875f, 1.9921875f }))),
		bits_of(65.5f + 0x1p-10f - 0x1p-17f));
}

static void ends_of_the_range(void **state)
{
	(void)state;
	/* subnormals are kept, as operands, products and sums; their exponent is -126 */
	expect(0, PAIRS({ 0x1p-133f, 1 }), bits_of(0x1p-133f));
	expect(1, PAIRS({ 0x1p-133f, 0x1p-16f }), 2);
	expect(1, PAIRS({ 0, 0 }), 1);
	expect(0, PAIRS({ 0x1p-75f, 0x1p-76f }, { 0x1p-75f, 0x1p-76f }, { 0x1p-75f, 0x1p-76f }, { 0x1p-75f, 0x1p-76f }),
		1);
	expect(0, PAIRS(FOUR(FOUR({ 0x1p-76f, 0x1p-76f }))), 0);
	/* products may be too large for f32, and sums: those are infinite */
	expect(bits_of(1), PAIRS({ 0x1p100f, 0x1p100f }, { 0x1p100f, -0x1p100f }), 0);
	expect(bits_of(0x1.fffffep127f), PAIRS({ 0x1p102f, 1 }), bits_of(0x1.fffffep127f));
	expect(bits_of(0x1.fffffep127f), PAIRS({ 0x1p104f, 1 }), 0x7f800000);
	expect(0, PAIRS({ 0x1p100f, -0x1p100f }), 0xff800000);
	/* zeros */
	expect(0x80000000, PAIRS({ -0.0f, 1 }), 0);
	expect(0, PAIRS({ 1, 1 }, { -1, 1 }), 0);
}

static void what_is_no_number(void **state)
{
	(void)state;
	const uint32_t none = 0x7fffffff, plus = 0x7f800000, minus = 0xff800000;
	expect(0, PAIRS({ INFINITY, 1 }), plus);
	expect(0, PAIRS({ INFINITY, -1 }), minus);
	expect(minus, PAIRS({ 0x1p100f, 0x1p100f }), minus);
	expect(0, PAIRS({ INFINITY, 0 }), none);
	expect(0, PAIRS({ 0, -INFINITY }), none);
	expect(0, PAIRS({ INFINITY, 1 }, { INFINITY, -1 }), none);
	expect(minus, PAIRS({ INFINITY, 1 }), none);
	expect(0, PAIRS({ NAN, 1 }), none);
	expect(0xffc00001, PAIRS({ 1, 1 }), none);
}

/* ---- forms ---- */

enum { ROWS = 37, ANY_BITS = OP_DATA_ONES + 1, LARGE };

/* Within sixteen powers of two; now and then any bits, a zero or infinity: sums are of everything. */
static float any_bits(struct cad_random *random)
{
	uint32_t bits = (uint32_t)cad_random_next(random);
	switch (bits >> 8 & 127) {
	case 0: return f32_of(bits);
	case 1: return f32_of(bits & 0x80000000);
	case 2: return f32_of((bits & 0x80000000) | (bits % 16 == 0 ? 0x7f800000 : 0x3f800000));
	default: return f32_of((bits & 0x87ffffff) | 0x38000000);
	}
}

/* LARGE, by weights of 0x3fff: a sum just below 2, and then with sixteen products it takes more than 31
 * bits. */
static void fill(float *x, size_t count, uint64_t *seed, int data)
{
	struct cad_random random = { *seed };
	if (data <= OP_DATA_ONES) {
		op_fill(x, count, seed, (enum op_data)data, 1.0f);
		return;
	}
	for (size_t i = 0; i < count; i++)
		x[i] = data == ANY_BITS ? any_bits(&random) : i == 0 ? 1.0f : i < 16 ? 0.0f : 1.9921875f;
	*seed = random.state;
}

/* y of `rows` rows, by the form and by the reference; rows that are not in the call stay. */
static void check_gemm(const struct kn_form *form, size_t rows, size_t panels, size_t k, int data)
{
	size_t k_pad = kn_round_up(k, KN_K_UNIT), ldx = kn_ld(k), ldy = kn_ld(panels * KN_PANEL_COLS),
	       panel_bytes = k_pad / 2 * KN_STEP_BYTES, weights_count = panels * panel_bytes / 2;
	uint64_t seed = SEED + rows * 100 + k;
	float *x = op_need(2 * rows * ldx * sizeof *x), *wide = op_need(weights_count * sizeof *wide), *y[2];
	uint16_t *weights = op_need(panels * panel_bytes);
	uint32_t *index = op_need(rows * sizeof *index);

	for (size_t r = 0; r < 2 * rows; r++)
		fill(x + r * ldx, k, &seed, data);
	fill(wide, weights_count, &seed, data);
	for (size_t i = 0; i < weights_count; i++)
		weights[i] = data == LARGE ? 0x3fff : kn_bf16_of(wide[i]);
	for (size_t r = 0; r < rows; r++)
		index[r] = (uint32_t)(2 * rows - 1 - 2 * r);

	for (size_t i = 0; i < 2; i++) {
		y[i] = op_need((rows + 1) * ldy * sizeof *y[i]);
		memset(y[i], 0x55, (rows + 1) * ldy * sizeof *y[i]);
		(i == 0 ? kn_ref_gemm_bf16_sm90 : form->gemm_bf16_sm90)(&(struct kn_gemm){
			.x = x,
			.ldx = ldx,
			.index = rows % 2 ? index : NULL,
			.rows = rows,
			.k = k_pad,
			.weights = (const uint8_t *)weights,
			.panels = panels,
			.panel_bytes = panel_bytes,
			.y = y[i],
			.ldy = ldy,
		});
	}
	if (memcmp(y[0], y[1], (rows + 1) * ldy * sizeof *y[0]) != 0)
		fail_msg("%s: %zu rows, %zu panels, k %zu, data %d differ from the reference", form->name, rows, panels,
			k, data);

	free(x);
	free(wide);
	free(weights);
	free(index);
	free(y[0]);
	free(y[1]);
}

static void forms_multiply_alike(void **state)
{
	(void)state;
	static const enum kn_isa isas[] = { KN_ISA_AVX2, KN_ISA_AVX512 };
	static const size_t ks[] = { 1, 16, 33, 255, 256, 300 };
	for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
		const struct kn_form *form = kn_form_find(isas[i]);
		if (!form)
			continue;
		for (size_t rows = 1; rows <= ROWS; rows++)
			check_gemm(form, rows, 1 + rows % 2, ks[rows % 6], (int)rows % LARGE);
		for (int data = 0; data <= LARGE; data++)
			check_gemm(form, 2, 2, 1281, data);
		assert_int_equal(_mm_getcsr() & ~0x3fu, 0x1f80); /* but for flags, the default */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_step_is_the_fitted_model),
		cmocka_unit_test(terms_are_cut),
		cmocka_unit_test(ends_of_the_range),
		cmocka_unit_test(what_is_no_number),
		cmocka_unit_test(forms_multiply_alike),
	};
	return cmocka_run_group_tests_name("sm90", tests, NULL, NULL);
}
