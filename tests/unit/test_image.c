/* SPDX-License-Identifier: Apache-2.0 */
/* Images of experts: the same whether made from a checkpoint or from a packed expert, of every type
 * and value, and packed again they are the same expert. What odd sizes do to unpacking, tests/ops
 * sees. */
#include "common/base/workers.h"
#include "kernels/image.h"
#include "kernels/source.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FFN = 32, HIDDEN = 1024, VALUES = FFN * HIDDEN };
enum { WIDE_FFN = 700, WIDE_HIDDEN = 2600, WIDE_VALUES = WIDE_FFN * WIDE_HIDDEN };

static struct kn_device *device;

static uint8_t *image_of_packed(const struct kn_expert *packed, const struct kn_expert_source *image)
{
	size_t bytes = (size_t)kn_image_bytes(image);
	uint8_t *out = malloc(bytes);
	assert_non_null(out);
	assert_int_equal(device->ops->expert_unpack(device, packed, image, 0, bytes, out), CAD_OK);
	return out;
}

static bool go_on(void *context, size_t count) { return (void)context, (void)count, true; }

/* From tensors, from what was packed of them, and from what was packed of that. */
static void all_ways_agree(const struct kn_expert_source *source, enum cad_weights weights)
{
	struct kn_expert_source image = kn_image_of(source, weights);
	size_t bytes = (size_t)kn_image_bytes(&image);
	struct kn_expert packed;
	char checksum[33], hex[33];
	uint8_t *first, *again;

	kn_image_checksum(source, weights, checksum);
	uint8_t *made = malloc(bytes);
	assert_non_null(made);
	assert_true(kn_image_checksum_by_pieces(source, weights, made, go_on, NULL, hex));
	assert_string_equal(hex, checksum);
	assert_int_equal(device->ops->expert_create(device, source, weights, &packed), CAD_OK);
	first = image_of_packed(&packed, &image);
	device->ops->expert_destroy(device, &packed);
	kn_image_bytes_checksum(first, bytes, hex);
	assert_string_equal(hex, checksum);
	assert_memory_equal(made, first, bytes);
	free(made);

	struct kn_expert_source moved = kn_image_at(&image, first);
	assert_int_equal(device->ops->expert_create(device, &moved, weights, &packed), CAD_OK);
	assert_int_equal(packed.bytes, device->ops->expert_bytes(device, source, weights));
	again = image_of_packed(&packed, &image);
	device->ops->expert_destroy(device, &packed);
	assert_memory_equal(first, again, bytes);
	free(first);
	free(again);
}

/* All values of 16 bits are in gate and up together; f32 has those, and their neighbours below. But
 * for signalling NaN of f16, which widening makes quiet. */
static void every_value(enum cad_dtype dtype, enum cad_weights weights)
{
	static const struct cad_ffn_spec spec = { .size = FFN };
	uint32_t *wide = malloc(2 * VALUES * sizeof *wide);
	uint16_t *half = malloc(2 * VALUES * sizeof *half);
	assert_true(wide && half);
	for (uint32_t i = 0; i < 2 * VALUES; i++) {
		bool signalling = dtype == CAD_DTYPE_F16 && (i & 0x7c00) == 0x7c00 && (i & 0x3ff) && !(i & 0x200);
		half[i] = (uint16_t)(signalling ? i | 0x200 : i);
		wide[i] = i << 16 | (i * 40503 & 0xffff);
	}
	size_t element = cad_dtype_bytes(dtype);
	const uint8_t *data = dtype == CAD_DTYPE_F32 ? (const uint8_t *)wide : (const uint8_t *)half;
	const struct kn_expert_source source = {
		.gate = kn_source_plain(data, dtype, FFN, HIDDEN),
		.up = kn_source_plain(data + VALUES * element, dtype, FFN, HIDDEN),
		.down = kn_source_plain(data, dtype, HIDDEN, FFN),
		.gate_bias = kn_source_plain(data, dtype, FFN, 1),
		.up_bias = kn_source_plain(data + element, dtype, FFN, 1),
		.down_bias = kn_source_plain(data + element, dtype, HIDDEN, 1),
		.spec = &spec,
	};
	all_ways_agree(&source, weights);
	free(wide);
	free(half);
}

static void every_type(void **state)
{
	(void)state;
	for (enum cad_dtype dtype = CAD_DTYPE_F32; dtype <= CAD_DTYPE_BF16; dtype++) {
		for (enum cad_weights weights = CAD_WEIGHTS_AS_IS; weights <= CAD_WEIGHTS_INT4; weights++)
			every_value(dtype, weights);
	}
}

/* Panels that several threads pack, and rows that are longer than what is read in one go: the image
 * that comes back is made of the same values. */
static void packed_by_several_threads(void **state)
{
	(void)state;
	static const struct cad_ffn_spec spec = { .size = WIDE_FFN };
	struct cad_error error;
	uint16_t *half = malloc(2 * WIDE_VALUES * sizeof *half);
	assert_non_null(half);
	for (uint32_t i = 0; i < 2 * WIDE_VALUES; i++)
		half[i] = (uint16_t)(i * 2654435761u >> 15);
	const struct kn_expert_source source = {
		.gate = kn_source_plain(half, CAD_DTYPE_BF16, WIDE_FFN, WIDE_HIDDEN),
		.up = kn_source_plain(half + WIDE_VALUES, CAD_DTYPE_BF16, WIDE_FFN, WIDE_HIDDEN),
		.down = kn_source_plain(half + 1, CAD_DTYPE_BF16, WIDE_HIDDEN, WIDE_FFN),
		.spec = &spec,
	};

	must(cad_workers_create(3, &device->workers, &error), &error);
	all_ways_agree(&source, CAD_WEIGHTS_AS_IS);
	cad_workers_destroy(device->workers);
	device->workers = NULL;
	free(half);
}

/* Without rounding it is the tensors as stored, whatever is missing among them. */
static void stored_tensors(void **state)
{
	(void)state;
	static const char *const names[] = { "mixtral-a", "mixtral-b", "olmoe-a", "qwen3moe-b" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct cad_model *model;
		struct cad_error error;
		char directory[512], checksum[33], hex[33];
		snprintf(directory, sizeof directory, CADRE_SOURCE_DIR "/tests/golden/%s/model", names[i]);
		must(cad_model_open(directory, &model, &error), &error);
		const struct cad_model_spec *spec = cad_model_spec(model);
		uint32_t layer = spec->layers_count - 1, expert = spec->gate.experts - 1;
		struct kn_expert_source source = kn_expert_source_of(model, layer, expert);
		uint8_t *bytes = malloc((size_t)kn_image_bytes(&source)), *next = bytes;
		assert_non_null(bytes);
		for (enum cad_role role = CAD_ROLE_EXPERT_GATE; role < CAD_ROLE_COUNT; role++) {
			struct cad_tensor tensor = cad_model_tensor(model, role, layer, expert);
			if (tensor.data)
				memcpy(next, tensor.data, tensor.bytes);
			next += tensor.bytes;
		}
		assert_int_equal(next - bytes, kn_image_bytes(&source));
		kn_image_bytes_checksum(bytes, (size_t)(next - bytes), hex);
		kn_expert_checksum(model, layer, expert, CAD_WEIGHTS_AS_IS, checksum);
		assert_string_equal(hex, checksum);
		for (enum cad_weights weights = CAD_WEIGHTS_AS_IS; weights <= CAD_WEIGHTS_INT4; weights++)
			all_ways_agree(&source, weights);
		free(bytes);
		cad_model_close(model);
	}
}

/* A row by hand: 257 values in two groups, in Q4 of nine sub-groups. */
static void quantised_rows_by_hand(void **state)
{
	(void)state;
	enum { K = 257 };
	static const struct cad_ffn_spec spec = { .size = 1 };
	float row[K];
	for (size_t i = 0; i < K; i++)
		row[i] = i == 256 ? 0.5f : (float)((int)(i % 255) - 127) * 0.25f;
	const struct kn_expert_source source = {
		.gate = kn_source_plain(row, CAD_DTYPE_F32, 1, K),
		.up = kn_source_plain(row, CAD_DTYPE_F32, 1, K),
		.down = kn_source_plain(row, CAD_DTYPE_F32, K, 1),
		.spec = &spec,
	};

	struct kn_expert_source image = kn_image_of(&source, CAD_WEIGHTS_INT8);
	assert_int_equal(kn_row_bytes(CAD_DTYPE_Q8, K), 2 * 4 + K);
	assert_int_equal(kn_image_bytes(&image), 2 * (2 * 4 + K) + K * 5);
	struct kn_expert packed;
	assert_int_equal(device->ops->expert_create(device, &source, CAD_WEIGHTS_INT8, &packed), CAD_OK);
	uint8_t *bytes = image_of_packed(&packed, &image);
	float scales[2];
	memcpy(scales, bytes, sizeof scales);
	assert_true(scales[0] == 0.25f);
	assert_true(scales[1] >= 0.5f / 127 && scales[1] <= 0.5f / 127 * (1 + 0x1p-11f));
	for (size_t i = 0; i < 256; i++)
		assert_int_equal((int8_t)bytes[8 + i], (int)(i % 255) - 127);
	assert_int_equal((int8_t)bytes[8 + 256], 127);
	free(bytes);
	device->ops->expert_destroy(device, &packed);

	image = kn_image_of(&source, CAD_WEIGHTS_INT4);
	assert_int_equal(kn_row_bytes(CAD_DTYPE_Q4, K), 2 * 4 + 5 + 129);
	assert_int_equal(device->ops->expert_create(device, &source, CAD_WEIGHTS_INT4, &packed), CAD_OK);
	bytes = image_of_packed(&packed, &image);
	memcpy(scales, bytes, sizeof scales);
	assert_true(scales[0] >= 127 * 0.25f / 120 && scales[0] <= 127 * 0.25f / 120 * (1 + 0x1p-11f));
	assert_int_equal(bytes[8] & 15, 8 | 7);        /* the first largest is -127: z 8, s 15 */
	assert_int_equal(bytes[11] >> 4, 7);           /* 127 before -127: z 7, s 15 */
	assert_int_equal(bytes[12], 7);                /* 0.5 alone, and no sub-group beside it */
	assert_int_equal(bytes[13], 0);                /* -127 and -126: -8 and -8 */
	assert_int_equal(bytes[13 + 127 / 2] >> 4, 8); /* the zero in the middle */
	assert_int_equal(bytes[13 + 254 / 2], 15);     /* 127: 8; -127, cut off: -7 */
	assert_int_equal(bytes[13 + 128], 15);         /* 8, and nothing beside it */
	free(bytes);
	device->ops->expert_destroy(device, &packed);
}

/* Who reads can stop. */
static bool stop_at_once(void *context, const void *bytes, size_t count)
{
	(void)bytes;
	assert_in_range(count, 1, KN_IMAGE_PIECE_BYTES);
	++*(int *)context;
	return false;
}

static void reading_ends_when_told(void **state)
{
	(void)state;
	static const uint16_t values[4] = { 0 };
	const struct kn_expert_source source = { .gate = kn_source_plain(values, CAD_DTYPE_F16, 2, 2),
		.up = kn_source_plain(values, CAD_DTYPE_F16, 2, 2) };
	int pieces = 0;
	assert_false(kn_image_read(&source, CAD_WEIGHTS_AS_IS, stop_at_once, &pieces));
	assert_false(kn_image_read(&source, CAD_WEIGHTS_BF16, stop_at_once, &pieces));
	assert_false(kn_image_read(&source, CAD_WEIGHTS_INT8, stop_at_once, &pieces));
	assert_int_equal(pieces, 3);
}

static int create(void **state)
{
	(void)state;
	return kn_device_open(&(struct kn_device_options){ 0 }, &device, NULL);
}

static int destroy(void **state)
{
	(void)state;
	device->ops->destroy(device);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type),
		cmocka_unit_test(packed_by_several_threads),
		cmocka_unit_test(stored_tensors),
		cmocka_unit_test(quantised_rows_by_hand),
		cmocka_unit_test(reading_ends_when_told),
	};
	return cmocka_run_group_tests_name("image", tests, create, destroy);
}
