/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Profile bf16, form by form: how values are rounded, the order of sums, subnormals, and the mode
 * that threads are left in; products of every count of rows against the reference bit for bit.
 * (Operators, their tolerances and threads: test_ops.c.)
 */
#include "kernels/cpu/bf16.h"
#include "common/base/clock.h"
#include "kernels/cpu/cpu.h"
#include "kernels/image.h"
#include "tests/support/op_cases.h"
#include "tests/support/twins.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SEED = 777, ROUNDED = 1 << 20, ROWS = 37, THREADS = 3 };

static const enum kn_isa isas[] = { KN_ISA_REF, KN_ISA_AVX2, KN_ISA_AVXVNNI, KN_ISA_AVX512, KN_ISA_AMX };
enum { ISAS = sizeof isas / sizeof *isas };

static uint32_t bits_of(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

static void rounding_is_the_images(void **state)
{
	(void)state;
	struct cad_random random = { SEED };
	float in[8], out[8];
	for (size_t i = 0; i < ROUNDED; i += 8) {
		for (size_t j = 0; j < 8; j++) {
			uint32_t bits = (uint32_t)cad_random_next(&random);
			bits = i % 64 == 0 ? (bits & 0x80ffffff) | 0x7f000000 : bits; /* around infinity */
			memcpy(&in[j], &bits, sizeof bits);
		}
		kn_bf16_round(in, 8, out);
		for (size_t j = 0; j < 8; j++)
			assert_int_equal(bits_of(out[j]), (uint32_t)kn_bf16_of(in[j]) << 16);
		kn_bf16_round(out, 8, in);
		assert_memory_equal(in, out, sizeof in);
	}
}

/* ---- the order ---- */

/* One output of one row, in every form and many threads; w and x as they are given, the rest 0. */
static void expect_sum(const float *x, const float *w, size_t k, float expected)
{
	struct kn_source source = { .data = w, .dtype = CAD_DTYPE_F32, .n = 1, .k = k };
	struct cad_error error;
	float *row = op_need(kn_ld(k) * sizeof *row), *y = op_need(kn_ld(1) * sizeof *y);

	memcpy(row, x, k * sizeof *x);
	for (size_t i = 0; i < ISAS; i++) {
		struct kn_device *device;
		struct kn_queue *queue;
		struct kn_matrix m;
		if (kn_device_open(&(struct kn_device_options){ .isa = isas[i] }, &device, &error) != CAD_OK)
			continue;
		assert_int_equal(device->ops->queue_create(device, 1, &queue), CAD_OK);
		assert_int_equal(device->ops->matrix_create(device, &source, CAD_WEIGHTS_BF16_ROWS, &m), CAD_OK);
		queue->ops->linear(queue, &(struct kn_linear){ row, kn_ld(k), 1, &m, NULL, 0, 0, y, kn_ld(1) });
		assert_int_equal(queue->ops->wait(queue), CAD_OK);
		if (bits_of(y[0]) != bits_of(expected))
			fail_msg("%s: %a, not %a", kn_isa_choices[isas[i]].name, (double)y[0], (double)expected);
		device->ops->matrix_destroy(device, &m);
		queue->ops->queue_destroy(queue);
		device->ops->destroy(device);
	}
	free(row);
	free(y);
}

static void sums_are_in_the_declared_order(void **state)
{
	(void)state;
	const float ones[64] = { [0 ... 63] = 1 };
	/* even: 2^24 + 1 is 2^24 again, and then 0; odd: 1. Any chain over all of k gives 0. */
	expect_sum((const float[]){ 0x1p24f, 1, 1, 0, -0x1p24f }, ones, 5, 1);
	/* odd ones likewise */
	expect_sum((const float[]){ 1, 0x1p24f, 0, 1, 0, -0x1p24f }, ones, 6, 1);
	/* the two are added up before the block joins: 2^24 + (1 + 1) */
	expect_sum((const float[33]){ [0] = 0x1p24f, [32] = 1 }, ones, 33, 0x1p24f);
	expect_sum((const float[34]){ [0] = 0x1p24f, [32] = 1, [33] = 1 }, ones, 34, 0x1p24f + 2);
	/* each block begins from 0: chains that went on would stay at 2^24 */
	expect_sum((const float[35]){ [0] = 0x1p24f, [32] = 1, [34] = 1 }, ones, 35, 0x1p24f + 2);
	/* fused: (1 + 2^-7)^2 - (1 + 2^-6) is 2^-14, which a product rounded to bf16 has not */
	expect_sum((const float[]){ -1, 0, 1 + 0x1p-7f }, (const float[]){ 1 + 0x1p-6f, 0, 1 + 0x1p-7f }, 3, 0x1p-14f);
	/* rows and weights are rounded, to nearest even */
	expect_sum((const float[]){ 1 + 0x1p-8f }, (const float[]){ 1 + 0x3p-8f }, 1, 1 + 0x1p-6f);
}

static void subnormals_are_zeros(void **state)
{
	(void)state;
	/* operands: rows and weights */
	expect_sum((const float[]){ 0x1p-127f }, (const float[]){ 0x1p20f }, 1, 0);
	expect_sum((const float[]){ 0x1p20f }, (const float[]){ 0x1p-130f }, 1, 0);
	/* a subnormal that is rounded to a number is that number */
	expect_sum((const float[]){ 0x1.fffffcp-127f }, (const float[]){ 0x1p20f }, 1, 0x1p-106f);
	/* products and sums, and a zero of either sign ends as +0 */
	expect_sum((const float[]){ -0x1p-63f }, (const float[]){ 0x1p-64f }, 1, 0);
	expect_sum((const float[]){ 0x1.8p-126f, 0, -0x1p-126f }, (const float[]){ 1, 1, 1 }, 3, 0);
	/* the smallest number stays */
	expect_sum((const float[]){ 0x1p-63f }, (const float[]){ 0x1p-63f }, 1, 0x1p-126f);
}

/* Products in profile f32 keep subnormals, before and after those of bf16, in every thread. */
static void threads_are_left_as_they_were(void **state)
{
	(void)state;
	enum { N = 64 * 8 * THREADS, K = 32 };
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_error error;
	float *weights = op_need(N * K * sizeof *weights), *y = op_need(kn_ld(N) * sizeof *y), x[K] = { 0x1p-100f };
	struct kn_source source = { .data = weights, .dtype = CAD_DTYPE_F32, .n = N, .k = K };

	for (size_t n = 0; n < N; n++)
		weights[n * K] = 0x1p-30f;
	for (size_t i = 0; i < ISAS; i++) {
		struct kn_matrix m[2];
		if (kn_device_open(&(struct kn_device_options){ .isa = isas[i] }, &device, &error) != CAD_OK)
			continue;
		assert_int_equal(device->ops->queue_create(device, THREADS, &queue), CAD_OK);
		for (size_t j = 0; j < 2; j++)
			assert_int_equal(device->ops->matrix_create(device, &source,
						 j == 0 ? CAD_WEIGHTS_BF16_ROWS : CAD_WEIGHTS_BF16, &m[j]),
				CAD_OK);
		for (size_t round = 0; round < 8; round++) {
			queue->ops->linear(
				queue, &(struct kn_linear){ x, K, 1, &m[round % 2], NULL, 0, 0, y, kn_ld(N) });
			assert_int_equal(queue->ops->wait(queue), CAD_OK);
			for (size_t n = 0; n < N; n++)
				assert_true(y[n] == (round % 2 ? 0x1p-130f : 0.0f));
		}
		assert_int_equal(_mm_getcsr() & ~0x3fu, 0x1f80); /* but for flags, the default */
		for (size_t j = 0; j < 2; j++)
			device->ops->matrix_destroy(device, &m[j]);
		queue->ops->queue_destroy(queue);
		device->ops->destroy(device);
	}
	free(weights);
	free(y);
}

/* ---- forms ---- */

typedef void gemm_fn(const struct kn_gemm *g);

/* y of `rows` rows, by the form and by the reference; rows that are not in the call stay. */
static void check_gemm(gemm_fn *gemm, size_t rows, size_t panels, size_t k, enum op_data data, const char *what)
{
	size_t k_pad = kn_round_up(k, KN_K_UNIT), ldx = kn_ld(k), ldy = kn_ld(panels * KN_PANEL_COLS),
	       panel_bytes = k_pad / 2 * KN_STEP_BYTES;
	uint64_t seed = SEED + rows * 100 + k;
	float *x = op_need(2 * rows * ldx * sizeof *x), *y[2];
	uint16_t *weights = op_need(panels * panel_bytes);
	uint32_t *index = op_need(rows * sizeof *index);

	for (size_t r = 0; r < 2 * rows; r++)
		op_fill(x + r * ldx, k, &seed, data, 1.0f);
	for (size_t i = 0; i < panels * panel_bytes / 2; i++)
		weights[i] = kn_bf16_of(op_value(&seed, data));
	for (size_t r = 0; r < rows; r++)
		index[r] = (uint32_t)(2 * rows - 1 - 2 * r);

	for (size_t i = 0; i < 2; i++) {
		y[i] = op_need((rows + 1) * ldy * sizeof *y[i]);
		memset(y[i], 0x55, (rows + 1) * ldy * sizeof *y[i]);
		(i == 0 ? kn_ref_gemm_bf16_rows : gemm)(&(struct kn_gemm){
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
		fail_msg("%s: %zu rows, %zu panels, k %zu differ from the reference", what, rows, panels, k);

	free(x);
	free(weights);
	free(index);
	free(y[0]);
	free(y[1]);
}

static void check_form(gemm_fn *gemm, const char *what)
{
	static const size_t ks[] = { 1, 32, 33, 255, 256, 257, 600, 1281 },
			    many[] = { 47, 48, 63, 64, 65, 96, 97, 113 };
	for (size_t rows = 1; rows <= ROWS; rows++)
		check_gemm(gemm, rows, 1 + rows % 3, ks[rows % 8], (enum op_data)(rows % (OP_DATA_ONES + 1)), what);
	for (size_t i = 0; i < sizeof many / sizeof *many; i++)
		check_gemm(gemm, many[i], 1 + i % 2, ks[i], OP_DATA_BELL, what);
	check_gemm(gemm, 1, 2, 6500, OP_DATA_BELL, what);
	check_gemm(gemm, 1, 1, 100, OP_DATA_TINY, what);
}

static void forms_multiply_alike(void **state)
{
	(void)state;
	for (size_t i = 1; i < ISAS; i++) {
		const struct kn_form *form = kn_form_find(isas[i]);
		if (form)
			check_form(form->gemm_bf16_rows, form->name);
	}
}

static void amx_over_tiles_in_c(void **state)
{
	(void)state;
	if (!kn_form_find(KN_ISA_AVX512))
		skip();
	check_form(twin_amx_gemm_bf16_rows, "amx over tiles in C");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rounding_is_the_images),
		cmocka_unit_test(sums_are_in_the_declared_order),
		cmocka_unit_test(subnormals_are_zeros),
		cmocka_unit_test(threads_are_left_as_they_were),
		cmocka_unit_test(forms_multiply_alike),
		cmocka_unit_test(amx_over_tiles_in_c),
	};
	return cmocka_run_group_tests_name("bf16", tests, NULL, NULL);
}
