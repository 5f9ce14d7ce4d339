/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The quantiser and the GEMMs on integers, form by form: the quantiser beside its definition, and
 * what it promises; products of every count of rows and of sizes around a lane, a line, a panel and
 * a group, against the reference bit for bit.
 */
#include "common/base/clock.h"
#include "kernels/cpu/cpu.h"
#include "kernels/image.h"
#include "tests/support/op_cases.h"
#include "tests/support/twins.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SEED = 4321, GROUPS = 4000, ROWS = 33, K_MAX = 520 };

static const enum kn_isa isas[] = { KN_ISA_REF, KN_ISA_AVX2, KN_ISA_AVXVNNI, KN_ISA_AVX512, KN_ISA_AMX };
enum { ISAS = sizeof isas / sizeof *isas };

static float from_bits(uint32_t bits)
{
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

static uint32_t bits_of(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

/* Any bits at all, within a narrow range of exponents or the whole. */
static void fill_group(float *x, size_t n, struct cad_random *random, size_t round)
{
	uint32_t low = round % 4 == 0 ? 0 : (uint32_t)cad_random_below(random, 255),
		 span = round % 4 == 0 ? 255 : 1 + (uint32_t)cad_random_below(random, round % 4 == 1 ? 3 : 30);
	for (size_t i = 0; i < n; i++) {
		uint32_t exponent = low + (uint32_t)cad_random_below(random, span);
		x[i] = from_bits(
			((uint32_t)cad_random_next(random) & 0x807fffff) | (exponent < 254 ? exponent : 254) << 23);
	}
}

/* One group by its definition. */
static void expect_group(const float *x, size_t n, int range, const int8_t *q, float scale)
{
	float expected = op_scale(x, n, range);
	int largest = 0;

	assert_true(isnan(expected) ? bits_of(scale) == 0xffc00000 : scale == expected);
	for (size_t i = 0; i < n; i++) {
		float inverse = 1.0f / scale;
		assert_int_equal(q[i], scale > 0 ? (int)rintf(x[i] * inverse) : 0);
		largest = abs(q[i]) > largest ? abs(q[i]) : largest;
	}
	for (size_t i = n; i < KN_GROUP; i++)
		assert_int_equal(q[i], 0);
	assert_int_equal(largest, scale > 0 ? range : 0);
}

/* What was quantised is quantised to the same again, and each value is exact in f32. */
static void expect_idempotent(const int8_t *q, float scale, size_t n, int range)
{
	float x[KN_GROUP];
	int8_t again[KN_GROUP];
	for (size_t i = 0; i < n; i++) {
		x[i] = (float)q[i] * scale;
		assert_true((double)x[i] == (double)q[i] * (double)scale);
	}
	assert_true(bits_of(kn_quantise_group(x, n, KN_GROUP, range, again)) == bits_of(scale));
	assert_memory_equal(again, q, n);
}

static void quantiser_keeps_its_promises(void **state)
{
	(void)state;
	struct cad_random random = { SEED };
	float x[KN_GROUP],
		special[] = { 0, -0.0f, 0x1p-149f, 0x1.fffffep-101f, 0x1p-100f, 0x1.fffffep122f, 0x1.fbfffep126f,
			0x1.fffffep126f, 0x1p127f, INFINITY, NAN };
	int8_t q[KN_GROUP];

	for (size_t round = 0; round < GROUPS; round++) {
		size_t n = 1 + cad_random_below(&random, KN_GROUP);
		int range = KN_RANGE_INT8;
		fill_group(x, n, &random, round);
		if (round < sizeof special / sizeof *special) {
			memset(x, 0, sizeof x);
			x[n - 1] = special[round];
		}
		float scale = kn_quantise_group(x, n, KN_GROUP, range, q);
		expect_group(x, n, range, q, scale);
		if (!isnan(scale))
			expect_idempotent(q, scale, n, range);
	}
}

/* One group of int4 weights beside its definition in double. */
static void expect_int4(const float *x, size_t n)
{
	struct kn_int4_group group;
	int u[KN_GROUP], w[KN_GROUP];
	uint32_t subscales;
	float scale = op_int4_group(x, n, &subscales, u, w);

	kn_quantise_int4(x, CAD_DTYPE_F32, n, &group);
	assert_true(isnan(scale) ? bits_of(group.scale) == 0xffc00000 : group.scale == scale);
	assert_int_equal(group.subscales, subscales);
	for (size_t i = 0; i < KN_GROUP; i++) {
		int z = kn_int4_zero(subscales, i / KN_SUBGROUP);
		assert_int_equal(group.u[i], i < n ? u[i] : z);
		if (i < n)
			assert_int_equal((group.u[i] - z) * kn_int4_subscale(subscales, i / KN_SUBGROUP), w[i]);
	}
}

/* Values in the middle between two integers, for a scale of 1: both ends of the range, sub-groups
 * whose largest is in the middle between two sub-scales, or comes twice with either sign. */
static void fill_ties(float *x, struct cad_random *random)
{
	for (size_t i = 0; i < KN_GROUP; i++)
		x[i] = (float)((int)cad_random_below(random, 241) - 120) / (i < KN_SUBGROUP ? 1 : 2);
	x[0] = cad_random_below(random, 2) ? 120 : -120;
	for (size_t j = 1; j < KN_SUBGROUPS; j++) {
		float most = 16.0f * (float)(1 + cad_random_below(random, 3));
		for (size_t i = j * KN_SUBGROUP; i < (j + 1) * KN_SUBGROUP; i++)
			x[i] = fminf(fmaxf(x[i], -most), most);
		x[j * KN_SUBGROUP + cad_random_below(random, KN_SUBGROUP)] = -most;
		x[j * KN_SUBGROUP + cad_random_below(random, KN_SUBGROUP)] = most;
	}
}

static void int4_is_what_its_definition_says(void **state)
{
	(void)state;
	static const float special[] = { 0, -0.0f, 0x1p-149f, 0x1.fffffep-101f, 0x1p-100f, -0x1p-100f, 0x1.dffffep126f,
		0x1.e0p126f, 0x1p127f, INFINITY, -INFINITY, NAN };
	struct cad_random random = { SEED };
	float x[KN_GROUP];

	for (size_t round = 0; round < GROUPS; round++) {
		fill_group(x, KN_GROUP, &random, round);
		expect_int4(x, 1 + cad_random_below(&random, KN_GROUP));
		fill_ties(x, &random);
		expect_int4(x, KN_GROUP);
		for (size_t i = 0; i < KN_GROUP; i++)
			x[i] = op_value(&random.state, OP_DATA_BELL);
		expect_int4(x, KN_GROUP);
	}
	for (size_t i = 0; i < sizeof special / sizeof *special; i++)
		for (size_t n = 1; n <= KN_GROUP; n += 17) {
			memset(x, 0, sizeof x);
			x[n / 2] = special[i];
			expect_int4(x, n);
			for (size_t k = 0; k < n; k++)
				x[k] = k % 3 == 1 ? -special[i] : special[i];
			expect_int4(x, n);
		}
}

static void forms_quantise_alike(void **state)
{
	(void)state;
	struct cad_random random = { SEED };
	float x[KN_GROUP];
	for (size_t round = 0; round < GROUPS; round++) {
		size_t n = 16 * (1 + cad_random_below(&random, KN_GROUP / 16));
		fill_group(x, n, &random, round);
		if (round % 100 == 99)
			x[cad_random_below(&random, n)] = round % 200 == 99 ? NAN : -INFINITY;
		int8_t expected[KN_GROUP], q[KN_GROUP];
		int32_t expected_sums[KN_ROW_SUMS], sums[KN_ROW_SUMS];
		float expected_scale, scale;
		kn_ref_quantise(x, n, expected, &expected_scale, expected_sums);
		for (size_t i = 1; i < ISAS; i++) {
			const struct kn_form *form = kn_form_find(isas[i]);
			if (!form)
				continue;
			form->quantise(x, n, q, &scale, sums);
			assert_memory_equal(q, expected, sizeof q);
			assert_int_equal(bits_of(scale), bits_of(expected_scale));
			assert_memory_equal(sums, expected_sums, sizeof sums);
		}
	}
}

/* ---- GEMM ---- */

static void open_form(enum kn_isa isa, struct kn_device **device, struct kn_queue **queue)
{
	struct cad_error error;
	*device = NULL;
	if (kn_device_open(&(struct kn_device_options){ .isa = isa }, device, &error) == CAD_OK)
		assert_int_equal((*device)->ops->queue_create(*device, 1, queue), CAD_OK);
}

/* y of rows first .. ROWS - 1, every count of them from 1 on when all_counts, else all. */
static void expect_products(struct kn_queue *queue, const struct kn_matrix *w, const float *x, size_t ldx,
	const float *expected, float *y, bool all_counts, const char *what)
{
	size_t ldy = kn_ld(w->n);
	for (size_t rows = all_counts ? 1 : ROWS; rows <= ROWS; rows++) {
		size_t first = ROWS - rows;
		queue->ops->linear(
			queue, &(struct kn_linear){ x + first * ldx, ldx, rows, w, NULL, 0, 0, y + first * ldy, ldy });
		for (size_t r = first; r < ROWS; r++)
			if (memcmp(y + r * ldy, expected + r * ldy, kn_round_up(w->n, 64) * sizeof *y) != 0)
				fail_msg("%s: row %zu of %zu + %zu differs from the reference", what, r, first, rows);
	}
}

static void check_size(struct kn_device *const *devices, struct kn_queue *const *queues, size_t n, size_t k,
	enum cad_weights weights, enum op_data data)
{
	uint64_t seed = SEED + n * 1000 + k;
	struct kn_source source = op_source(n, k, CAD_DTYPE_F32, &seed, data, 1.0f);
	size_t ldx = kn_ld(k), ldy = kn_ld(n);
	float *x = op_need(ROWS * ldx * 4), *expected = op_need(ROWS * ldy * 4), *y = op_need(ROWS * ldy * 4);

	for (size_t r = 0; r < ROWS; r++)
		op_fill(x + r * ldx, k, &seed, data, 1.0f);
	for (size_t i = 0; i < ISAS; i++) {
		struct kn_matrix w;
		char what[96];
		if (!devices[i])
			continue;
		struct kn_device_info info;
		devices[i]->ops->describe(devices[i], &info);
		snprintf(what, sizeof what, "%s, int%d, data %d, n %zu, k %zu", info.isa,
			weights == CAD_WEIGHTS_INT8 ? 8 : 4, (int)data, n, k);
		assert_int_equal(devices[i]->ops->matrix_create(devices[i], &source, weights, &w), CAD_OK);
		if (i == 0)
			queues[0]->ops->linear(
				queues[0], &(struct kn_linear){ x, ldx, ROWS, &w, NULL, 0, 0, expected, ldy });
		expect_products(queues[i], &w, x, ldx, expected, y, i > 0, what);
		devices[i]->ops->matrix_destroy(devices[i], &w);
	}
	free((void *)source.data);
	free(x);
	free(expected);
	free(y);
}

static void forms_multiply_alike(void **state)
{
	(void)state;
	static const size_t ns[] = { 1, 15, 16, 17, 63, 64, 65 },
			    ks[] = { 1, 3, 4, 5, 8, 9, 31, 33, 64, 127, 128, 129, 255, 256, 257, 513 };
	struct kn_device *devices[ISAS];
	struct kn_queue *queues[ISAS];

	for (size_t i = 0; i < ISAS; i++)
		open_form(isas[i], &devices[i], &queues[i]);
	for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
		for (enum op_data data = OP_DATA_BELL; data <= OP_DATA_ONES; data++) {
			check_size(devices, queues, ns[(i + data) % 7], ks[i], CAD_WEIGHTS_INT8, data);
			check_size(devices, queues, ns[(i + 4 + data) % 7], ks[i], CAD_WEIGHTS_INT4, data);
		}
	for (size_t i = 0; i < sizeof ns / sizeof *ns; i++)
		check_size(devices, queues, ns[i], 256, i % 2 ? CAD_WEIGHTS_INT8 : CAD_WEIGHTS_INT4, OP_DATA_BELL);
	for (size_t i = 0; i < ISAS; i++)
		if (devices[i]) {
			devices[i]->ops->queue_destroy(queues[i]);
			devices[i]->ops->destroy(devices[i]);
		}
}

/* The rows of an int4 matrix, widened to rows of int8. */
static struct kn_source widened(const struct kn_source *source)
{
	size_t row_bytes = kn_row_bytes(CAD_DTYPE_Q8, source->k), scales = kn_row_scale_bytes(CAD_DTYPE_Q8, source->k);
	uint8_t *rows = op_need(source->n * row_bytes);

	for (size_t r = 0; r < source->n; r++)
		for (size_t k = 0; k < source->k; k += KN_GROUP) {
			size_t count = source->k - k < KN_GROUP ? source->k - k : KN_GROUP;
			struct kn_int4_group group;
			kn_quantise_int4((const float *)source->data + r * source->k + k, source->dtype, count, &group);
			memcpy(rows + r * row_bytes + k / KN_GROUP * sizeof group.scale, &group.scale,
				sizeof group.scale);
			for (size_t i = 0; i < count; i++)
				rows[r * row_bytes + scales + k + i] =
					(uint8_t)((group.u[i] - kn_int4_zero(group.subscales, i / KN_SUBGROUP)) *
						kn_int4_subscale(group.subscales, i / KN_SUBGROUP));
		}
	return (struct kn_source){ .data = rows, .dtype = CAD_DTYPE_Q8, .n = source->n, .k = source->k };
}

/* An int4 model is an int8 model whose weights compress. */
static void int4_is_int8_of_widened_weights(void **state)
{
	(void)state;
	for (size_t i = 0; i < ISAS; i++) {
		static const size_t ks[] = { 31, 256, 700 };
		struct kn_device *device;
		struct kn_queue *queue;
		open_form(isas[i], &device, &queue);
		if (!device)
			continue;
		for (size_t j = 0; j < sizeof ks / sizeof *ks; j++) {
			size_t n = 70, k = ks[j], ldx = kn_ld(k), ldy = kn_ld(n);
			uint64_t seed = SEED + k;
			struct kn_source source = op_source(n, k, CAD_DTYPE_F32, &seed, (enum op_data)j, 1.0f),
					 wide = widened(&source);
			float *x = op_need(ROWS * ldx * 4), *y4 = op_need(ROWS * ldy * 4),
			      *y8 = op_need(ROWS * ldy * 4);
			struct kn_matrix w4, w8;
			for (size_t r = 0; r < ROWS; r++)
				op_fill(x + r * ldx, k, &seed, (enum op_data)j, 1.0f);
			assert_int_equal(device->ops->matrix_create(device, &source, CAD_WEIGHTS_INT4, &w4), CAD_OK);
			assert_int_equal(device->ops->matrix_create(device, &wide, CAD_WEIGHTS_INT8, &w8), CAD_OK);
			for (size_t rows = 1; rows <= ROWS; rows += 8) {
				queue->ops->linear(
					queue, &(struct kn_linear){ x, ldx, rows, &w4, NULL, 0, 0, y4, ldy });
				queue->ops->linear(
					queue, &(struct kn_linear){ x, ldx, rows, &w8, NULL, 0, 0, y8, ldy });
				assert_memory_equal(y4, y8, rows * ldy * sizeof *y4);
			}
			device->ops->matrix_destroy(device, &w4);
			device->ops->matrix_destroy(device, &w8);
			free((void *)source.data);
			free((void *)wide.data);
			free(x);
			free(y4);
			free(y8);
		}
		device->ops->queue_destroy(queue);
		device->ops->destroy(device);
	}
}

/* ---- forms for other processors ---- */

typedef void gemm_fn(const struct kn_gemm *g);

/* y of `rows` rows, by the form and by the reference, of which those that are not in the call stay.
 * */
static void check_twin(gemm_fn *twin, gemm_fn *reference, struct kn_device *device, size_t rows, size_t panels,
	size_t k, enum cad_weights weights, enum op_data data, const char *what)
{
	size_t n = panels * KN_PANEL_COLS, ldx = kn_ld(k), ldy = kn_ld(n);
	uint64_t seed = SEED + rows * 100 + k;
	struct kn_source source = op_source(n, k, CAD_DTYPE_BF16, &seed, data, 1.0f);
	struct kn_matrix w;
	assert_int_equal(device->ops->matrix_create(device, &source, weights, &w), CAD_OK);
	const struct kn_panels *panel = w.own;
	size_t ldq = kn_row_q_bytes(panel->k_pad);
	float *x = op_need(ldx * sizeof *x), *y[2];
	uint8_t *q = op_need(2 * rows * ldq);
	uint32_t *index = op_need(rows * sizeof *index);

	for (size_t r = 0; r < 2 * rows; r++) {
		op_fill(x, k, &seed, data, 1.0f);
		if (r % 7 == 3)
			x[r % k] = NAN;
		uint8_t *row = q + r * ldq;
		for (size_t g = 0; g < panel->k_pad / KN_GROUP; g++) {
			size_t left = kn_round_up(k, KN_K_UNIT) - g * KN_GROUP;
			kn_ref_quantise(x + g * KN_GROUP, left < KN_GROUP ? left : KN_GROUP,
				(int8_t *)row + g * KN_GROUP, kn_row_q_scales(row, panel->k_pad) + g,
				kn_row_q_sums(row, panel->k_pad, g));
		}
	}
	for (size_t r = 0; r < rows; r++)
		index[r] = (uint32_t)(2 * rows - 1 - 2 * r);
	for (size_t i = 0; i < 2; i++) {
		y[i] = op_need((rows + 1) * ldy * sizeof *y[i]);
		memset(y[i], 0x55, (rows + 1) * ldy * sizeof *y[i]);
		(i == 0 ? reference : twin)(&(struct kn_gemm){
			.q = q,
			.ldq = ldq,
			.index = rows % 2 ? index : NULL,
			.rows = rows,
			.k = panel->k_pad,
			.weights = panel->data,
			.panels = panels,
			.panel_bytes = panel->panel_bytes,
			.y = y[i],
			.ldy = ldy,
		});
	}
	if (memcmp(y[0], y[1], (rows + 1) * ldy * sizeof *y[0]) != 0)
		fail_msg("%s: %zu rows, %zu panels, k %zu differ from the reference", what, rows, panels, k);

	device->ops->matrix_destroy(device, &w);
	free((void *)source.data);
	free(x);
	free(q);
	free(index);
	free(y[0]);
	free(y[1]);
}

static void must_open(struct kn_device **device)
{
	struct cad_error error;
	if (kn_device_open(&(struct kn_device_options){ .isa = KN_ISA_REF }, device, &error) != CAD_OK)
		fail_msg("%s", error.text);
}

static void check_twins(gemm_fn *s8, gemm_fn *u4, const char *what)
{
	static const size_t rows[] = { 1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 95, 96, 97, 113 },
			    ks[] = { 1, 64, 255, 256, 257, 600, 1281 };
	struct kn_device *device;
	must_open(&device);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		enum op_data data = (enum op_data)(i % (OP_DATA_ONES + 1));
		size_t k = ks[i % (sizeof ks / sizeof *ks)], panels = 1 + i % 3;
		check_twin(s8, kn_ref_gemm_s8, device, rows[i], panels, k, CAD_WEIGHTS_INT8, data, what);
		check_twin(u4, kn_ref_gemm_u4, device, rows[i], panels, k, CAD_WEIGHTS_INT4, data, what);
	}
	device->ops->destroy(device);
}

static void amx_over_tiles_in_c(void **state)
{
	(void)state;
	if (!kn_form_find(KN_ISA_AVX512))
		skip();
	check_twins(twin_amx_gemm_s8, twin_amx_gemm_u4, "amx over tiles in C");
}

static void avxvnni_in_other_registers(void **state)
{
	(void)state;
	if (!kn_form_find(KN_ISA_AVX512) || !__builtin_cpu_supports("avx512vnni"))
		skip();
	check_twins(twin_avxvnni_gemm_s8, twin_avxvnni_gemm_u4, "avxvnni in AVX-512's encoding");
}

/* Which forms ran above; the others cannot run here. */
static void forms_of_this_machine(void **state)
{
	(void)state;
	for (size_t i = 1; i < ISAS; i++) {
		const struct kn_form *form = kn_form_find(isas[i]);
		printf("form %s: %s\n", kn_isa_choices[isas[i]].name,
			form ? "runs here" : "skipped, not on this machine");
		if (form)
			assert_string_equal(form->name, kn_isa_choices[isas[i]].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quantiser_keeps_its_promises),
		cmocka_unit_test(int4_is_what_its_definition_says),
		cmocka_unit_test(forms_quantise_alike),
		cmocka_unit_test(forms_multiply_alike),
		cmocka_unit_test(int4_is_int8_of_widened_weights),
		cmocka_unit_test(amx_over_tiles_in_c),
		cmocka_unit_test(avxvnni_in_other_registers),
		cmocka_unit_test(forms_of_this_machine),
	};
	printf("seed %d\n", SEED);
	return cmocka_run_group_tests_name("quantised", tests, NULL, NULL);
}
