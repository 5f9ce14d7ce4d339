/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU as a device: memory, names, destroying what is empty, one fingerprint for all forms. */
#include "common/process/memory.h"
#include "kernels/kernels.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct kn_device *device_of(enum kn_isa isa)
{
	struct kn_device *device = NULL;
	struct cad_error error;
	enum cad_status status = kn_device_open(&(struct kn_device_options){ .isa = isa }, &device, &error);

	if (status != CAD_OK) { /* only a form that this machine lacks may be refused, with a reason */
		assert_int_equal(status, CAD_ERR_UNSUPPORTED);
		assert_true(isa >= KN_ISA_AVXVNNI);
		assert_non_null(strstr(error.text,
			isa == KN_ISA_AVXVNNI          ? "AVX-VNNI"
				: isa == KN_ISA_AVX512 ? "AVX-512"
						       : "AMX"));
	}
	return device;
}

static struct kn_device_info described(const struct kn_device *device)
{
	struct kn_device_info info;
	device->ops->describe(device, &info);
	return info;
}

static void a_device_says_what_it_is(void **state)
{
	(void)state;
	struct kn_device *device = device_of(KN_ISA_AUTO);
	struct kn_device_info info = described(device);
	assert_string_equal(info.name, "cpu");
	/* asked twice, and others take and give memory in between */
	assert_in_range(info.memory_bytes, cad_memory_free_bytes("") / 2, 2 * cad_memory_free_bytes(""));
	assert_int_equal(info.profiles,
		1 << CAD_PROFILE_F32 | 1 << CAD_PROFILE_BF16 | 1 << CAD_PROFILE_BF16_SM90 | 1 << CAD_PROFILE_INT8 |
			1 << CAD_PROFILE_INT4);
	assert_int_equal(info.head_size_max, CAD_HEAD_SIZE_MAX);
	device->ops->destroy(device);

	struct cad_error error;
	assert_int_equal(
		kn_device_open(&(struct kn_device_options){ .kind = 77 }, &device, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "77"));
}

/* A published shape whose down projection (3 MiB) is no whole number of huge pages takes
 * what it is; what has a mapping of its own is rounded. */
static void huge_pages_are_counted(void **state)
{
	(void)state;
	static const struct {
		size_t n, k;
		uint64_t bytes;
	} shapes[] = {
		{ 2 * 768, 2048, 6 << 20 },
		{ 2048, 768, 3 << 20 },
		{ 65536, 288, 36 << 20 },
		{ 65600, 288, 38 << 20 },
		{ 2048, 511, 2 << 20 },
		{ 1984, 511, 1984 * 1024 },
	};
	struct kn_device *device = device_of(KN_ISA_AUTO);
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		const struct kn_source source = { .dtype = CAD_DTYPE_BF16, .n = shapes[i].n, .k = shapes[i].k };
		assert_int_equal(device->ops->matrix_bytes(device, &source, CAD_WEIGHTS_AS_IS), shapes[i].bytes);
	}
	device->ops->destroy(device);
}

static void memory_is_zero_and_aligned(void **state)
{
	(void)state;
	static const size_t sizes[] = { 0, 1, 63, 64, 65, (2u << 20) - 1, 2u << 20, (2u << 20) + 1, 5u << 20 };
	struct kn_device *device = device_of(KN_ISA_AUTO);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		for (unsigned again = 0; again < 2; again++) { /* memory that comes back dirty is cleaned */
			uint8_t *p = device->ops->alloc(device, sizes[i]);
			assert_non_null(p);
			assert_int_equal((uintptr_t)p % 64, 0);
			for (size_t j = 0; j < sizes[i]; j++)
				if (p[j] != 0)
					fail_msg("byte %zu of %zu is %d", j, sizes[i], p[j]);
			memset(p, 0xff, sizes[i]);
			device->ops->release(device, p, sizes[i]);
		}
	assert_null(device->ops->alloc(device, (size_t)1 << 60));
	device->ops->destroy(device);
}

static void names_of_forms(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		enum kn_isa isa;
	} names[] = {
		{ "auto", KN_ISA_AUTO },
		{ "ref", KN_ISA_REF },
		{ "avx2", KN_ISA_AVX2 },
		{ "avxvnni", KN_ISA_AVXVNNI },
		{ "avx512", KN_ISA_AVX512 },
		{ "amx", KN_ISA_AMX },
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		enum kn_isa isa = KN_ISA_REF;
		assert_int_equal(kn_isa_parse(names[i].name, &isa), CAD_OK);
		assert_int_equal(isa, names[i].isa);
		struct kn_device *device = device_of(isa);
		if (!device)
			continue;
		if (isa != KN_ISA_AUTO)
			assert_string_equal(described(device).isa, names[i].name);
		device->ops->destroy(device);
	}

	enum kn_isa isa = KN_ISA_AVX2;
	assert_int_equal(kn_isa_parse("sse2", &isa), CAD_ERR_INVALID);
	assert_int_equal(kn_isa_parse("", &isa), CAD_ERR_INVALID);
	assert_int_equal(isa, KN_ISA_AVX2);
}

static void nothing_can_be_destroyed(void **state)
{
	(void)state;
	struct kn_device *device = device_of(KN_ISA_REF);
	struct kn_matrix matrix = { 0 };
	struct kn_expert expert = { 0 };
	struct kn_table table = { 0 };
	device->ops->matrix_destroy(device, &matrix);
	device->ops->expert_destroy(device, &expert);
	device->ops->table_destroy(device, &table);
	device->ops->vector_destroy(device, NULL, 0);
	device->ops->destroy(device);
}

/* Too large for any machine: a status, nothing written, nothing kept. */
static void no_room_is_a_status(void **state)
{
	(void)state;
	struct kn_device *device = device_of(KN_ISA_REF);
	const struct kn_source huge = { .data = "", .dtype = CAD_DTYPE_F32, .n = (size_t)1 << 40, .k = 1 << 18 };
	struct kn_matrix matrix = { .n = 77 };
	struct kn_table table = { .n = 77 };
	float *vector = NULL;
	assert_int_equal(device->ops->matrix_create(device, &huge, CAD_WEIGHTS_AS_IS, &matrix), CAD_ERR_MEMORY);
	assert_int_equal(device->ops->table_create(device, &huge, CAD_WEIGHTS_AS_IS, &table), CAD_ERR_MEMORY);
	assert_int_equal(device->ops->vector_create(device, &huge, &vector), CAD_ERR_MEMORY);
	assert_int_equal(matrix.n + table.n, 2 * 77);
	assert_null(vector);
	device->ops->destroy(device);
}

static void vector_is_widened_and_padded(void **state)
{
	(void)state;
	struct kn_device *device = device_of(KN_ISA_AUTO);
	static const uint16_t bf16[] = { 0x3f80, 0xc000, 0x7fc0 }, f16[] = { 0x3c00, 0x0001 };
	float *v;
	uint8_t odd[7];
	memcpy(odd + 1, bf16, 6); /* a checkpoint promises no alignment */
	assert_int_equal(device->ops->vector_create(device,
				 &(struct kn_source){ .data = odd + 1, .dtype = CAD_DTYPE_BF16, .n = 3, .k = 1 }, &v),
		CAD_OK);
	assert_true(v[0] == 1.0f && v[1] == -2.0f && v[2] != v[2]);
	for (size_t i = 3; i < 64; i++)
		assert_true(v[i] == 0.0f);
	device->ops->vector_destroy(device, v, 3);
	assert_int_equal(device->ops->vector_create(device,
				 &(struct kn_source){ .data = f16, .dtype = CAD_DTYPE_F16, .n = 2, .k = 1 }, &v),
		CAD_OK);
	assert_true(v[0] == 1.0f && v[1] == 0x1p-24f);
	device->ops->vector_destroy(device, v, 2);
	device->ops->destroy(device);
}

static void fingerprint_is(enum cad_weights weights, const char *expected)
{
	static const enum kn_isa isas[] = { KN_ISA_REF, KN_ISA_AVX2, KN_ISA_AVXVNNI, KN_ISA_AVX512, KN_ISA_AMX };
	for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
		for (unsigned threads = 1; threads <= 2; threads++) {
			struct kn_device *device = device_of(isas[i]);
			if (!device)
				continue;
			struct kn_queue *queue;
			struct cad_error error;
			char hex[33];
			assert_int_equal(device->ops->queue_create(device, threads, &queue), CAD_OK);
			must(kn_fingerprint(queue, weights, hex, &error), &error);
			assert_string_equal(hex, expected);
			device->ops->queue_destroy(queue);
			device->ops->destroy(device);
		}
}

/* The declared order itself: a change of it, of padding, of exp or of the quantiser must be meant,
 * because nodes of both kinds are then no replicas of each other. */
static void forms_have_one_fingerprint(void **state)
{
	(void)state;
	fingerprint_is(CAD_WEIGHTS_AS_IS, "379a6ebe70447000d749982272f5d067");
	fingerprint_is(CAD_WEIGHTS_BF16_ROWS, "86ed3583d300d4f80b9de1dbf6e4f05c");
	fingerprint_is(CAD_WEIGHTS_BF16_SM90, "62edd3613d868f8b27337009eac8783c");
	fingerprint_is(CAD_WEIGHTS_INT8, "5abde70b295d8f479f5c94940322b936");
	fingerprint_is(CAD_WEIGHTS_INT4, "856a16ddd424ff4e998dc3e15065d97d");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_says_what_it_is),
		cmocka_unit_test(huge_pages_are_counted),
		cmocka_unit_test(memory_is_zero_and_aligned),
		cmocka_unit_test(names_of_forms),
		cmocka_unit_test(nothing_can_be_destroyed),
		cmocka_unit_test(no_room_is_a_status),
		cmocka_unit_test(vector_is_widened_and_padded),
		cmocka_unit_test(forms_have_one_fingerprint),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
