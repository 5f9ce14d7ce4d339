/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA backend: every operator case that it has (tests/support/op_cases.c) against the CPU's
 * reference, bit for bit; the fingerprint; the table, and what it refuses.
 *
 * On the emulated GPU, where CADRE_EMU_SEED and CADRE_BACKENDS say in which order threads run and
 * in which build; or on a GPU: test_cuda_device cuda, whose exit code is 77 where there is none.
 * `test_cuda_device cuda PATTERN` runs only the cases whose names match.
 */
#include "kernels/backend.h"
#include "kernels/image.h"
#include "tests/support/file_write.h"
#include "tests/support/must.h"
#include "tests/support/op_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { SEED = 1234, SKIPPED = 77 /* exit code */ };

static const struct kn_device_options emu = { .kind = KN_DEVICE_EMU };
static const char *library = "emu";

/* A queue of the library that is tested. */
static struct kn_queue *open_queue(void)
{
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_error error = { 0 };
	must(kn_backend_open(library, 0, &device, &error), &error);
	must(device->ops->queue_create(device, 1, &queue), &error);
	return queue;
}

/* ---- operators ---- */

#define INT8_EXPERTS .dtype = CAD_DTYPE_BF16, .weights = CAD_WEIGHTS_INT8

/* More than what passes through a queue's window at once; and each shape of tune.h, as the emulated GPU
 * with its few multiprocessors chooses them. */
static const struct op_case more[] = {
	{ &op_rows_unpack, OP_TEST, .rows = 1100, .n = 1030 },
	{ &op_combine_pack, OP_TEST, .rows = 600, .n = 2000 },
	{ &op_combine_pack, OP_TEST, "more sums than are packed at once", .rows = 9, .n = 4100 },
	{ &op_ffn, OP_TEST, "tiles of many rows, not full", .rows = 70, .n = 96, .k = 200, .experts = 3, .topk = 2,
		INT8_EXPERTS },
	{ &op_ffn, OP_TEST, "the same in f32", .rows = 70, .n = 96, .k = 200, .experts = 3, .topk = 2,
		.dtype = CAD_DTYPE_F16 },
	{ &op_ffn, OP_TEST, "the same in f32, weights of f32", .rows = 40, .n = 65, .k = 67, .experts = 2, .topk = 2 },
	{ &op_ffn, OP_TEST, "the same by tensor cores", .rows = 70, .n = 97, .k = 200, .experts = 3, .topk = 2,
		.weights = CAD_WEIGHTS_BF16_SM90 },
	{ &op_ffn_sums, OP_TEST, "tiles of many rows, not full", .rows = 70, .n = 96, .k = 200, .experts = 3, .topk = 2,
		INT8_EXPERTS },
	{ &op_ffn_sums, OP_TEST, "the same in f32", .rows = 70, .n = 96, .k = 200, .experts = 3, .topk = 2,
		.dtype = CAD_DTYPE_F16 },
	{ &op_ffn_sums, OP_TEST, "the same by tensor cores", .rows = 70, .n = 97, .k = 200, .experts = 3, .topk = 2,
		.weights = CAD_WEIGHTS_BF16_SM90 },
	{ &op_ffn, OP_TEST, "narrow blocks", .rows = 20, .n = 40, .k = 70, .experts = 1, .topk = 1, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, "8 rows", .rows = 6, .n = 300, .k = 260, .experts = 5, .topk = 2, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, "16 rows, h as it is", .rows = 5, .n = 64, .k = 500, .experts = 2, .topk = 2,
		INT8_EXPERTS },
	{ &op_ffn, OP_TEST, "32 rows, groups", .rows = 30, .n = 600, .k = 540, .experts = 4, .topk = 2, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, "64 rows", .rows = 60, .n = 270, .k = 260, .experts = 4, .topk = 2, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, "64 rows, biases", .rows = 60, .n = 70, .k = 260, .experts = 4, .topk = 2, .bias = true,
		.activation = CAD_ACTIVATION_SWIGLU_CLAMPED, .limit = 7, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, "128 rows", .rows = 128, .n = 300, .k = 800, .experts = 1, .topk = 1, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, "129 rows", .rows = 129, .n = 40, .k = 520, .experts = 1, .topk = 1, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, "96 rows", .rows = 96, .n = 40, .k = 800, .experts = 1, .topk = 1, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, "an expert with many rows, one with few", .rows = 300, .n = 64, .k = 300, .experts = 2,
		.topk = 1, INT8_EXPERTS },
};

/* The same as a GPU with many chooses them. */
static const struct op_case wide[] = {
	{ &op_ffn, OP_TEST, .rows = 16, .n = 300, .k = 4096, .experts = 8, .topk = 1, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, .rows = 64, .n = 300, .k = 4096, .experts = 8, .topk = 1, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, .rows = 128, .n = 300, .k = 4096, .experts = 8, .topk = 1, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, .rows = 240, .n = 300, .k = 4096, .experts = 8, .topk = 1, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, .rows = 800, .n = 300, .k = 4096, .experts = 8, .topk = 1, INT8_EXPERTS },
	{ &op_ffn, OP_TEST, .rows = 16, .n = 4096, .k = 4096, .experts = 8, .topk = 1, INT8_EXPERTS },
};

static bool computes(enum cad_weights weights)
{
	static struct kn_device_info info;
	if (info.profiles == 0) {
		struct kn_queue *queue = open_queue();
		queue->ops->describe(queue->device, &info);
		op_queue_close(queue);
	}
	return info.profiles >> cad_weights_profile(weights) & 1;
}

static bool has(const struct op_case *c)
{
	if (c->kind == &op_ffn || c->kind == &op_ffn_sums || c->kind == &op_unpack)
		return computes(c->weights);
	return c->kind == &op_rows_unpack || c->kind == &op_combine_pack;
}

static void gives_the_bits_of_the_cpu(void **state)
{
	const struct op_case *c = *state;
	struct kn_queue *reference = op_queue_open(&(struct kn_device_options){ .isa = KN_ISA_REF }, 1),
			*queue = open_queue();
	assert_non_null(reference);

	struct op_state *expected_state = c->kind->setup(reference, c, SEED), *s = c->kind->setup(queue, c, SEED);
	uint8_t *expected = op_need(s->rows * s->stride_bytes), *got = op_need(s->rows * s->stride_bytes);
	c->kind->run(expected_state, 0, s->rows);
	op_get_output(expected_state, expected);
	op_check_part(s, expected, got, 0, s->rows, "emu");
	op_check_part(s, expected, got, 0, s->rows / 2, "emu");
	op_check_part(s, expected, got, s->rows / 2, s->rows - s->rows / 2, "emu");
	for (size_t r = 0; r < s->rows; r += 1 + s->rows / 4)
		op_check_part(s, expected, got, r, 1, "emu");

	c->kind->teardown(expected_state);
	c->kind->teardown(s);
	free(expected);
	free(got);
	op_queue_close(reference);
	op_queue_close(queue);
}

static const enum cad_weights kept[] = { CAD_WEIGHTS_AS_IS, CAD_WEIGHTS_BF16, CAD_WEIGHTS_BF16_SM90, CAD_WEIGHTS_INT8,
	CAD_WEIGHTS_INT4 };
enum { KEPT = sizeof kept / sizeof *kept };

/* An expert from its image is the one from its tensors: nodes give each other images. */
static void packs_images_of(struct kn_queue *queue, const struct kn_expert_source *source, enum cad_weights weights)
{
	struct kn_expert_source form = kn_image_of(source, weights);
	size_t bytes = (size_t)kn_image_bytes(&form);
	uint8_t *image = op_need(bytes), *again = op_need(bytes);
	struct kn_expert expert;
	const struct kn_ops *ops = queue->ops;

	assert_int_equal(ops->expert_create(queue->device, source, weights, &expert), CAD_OK);
	assert_int_equal(ops->expert_unpack(queue->device, &expert, &form, 0, bytes, image), CAD_OK);
	ops->expert_destroy(queue->device, &expert);
	struct kn_expert_source packed = kn_image_at(&form, image);
	assert_int_equal(ops->expert_create(queue->device, &packed, weights, &expert), CAD_OK);
	assert_int_equal(ops->expert_unpack(queue->device, &expert, &form, 0, bytes, again), CAD_OK);
	assert_memory_equal(image, again, bytes);
	char hex[33], direct[33];
	kn_image_checksum(source, weights, direct);
	kn_image_bytes_checksum(image, bytes, hex);
	assert_string_equal(hex, direct);

	ops->expert_destroy(queue->device, &expert);
	ops->expert_destroy(queue->device, &expert); /* a zeroed one may be destroyed */
	free(image);
	free(again);
}

static void packs_images(void **state)
{
	(void)state;
	struct kn_queue *queue = open_queue();
	uint64_t seed = SEED;
	struct cad_ffn_spec spec = { .size = 70, .activation = CAD_ACTIVATION_SILU, .bias = true };
	struct kn_expert_source source = {
		.gate = op_source(70, 300, CAD_DTYPE_BF16, &seed, OP_DATA_BELL, 1.0f),
		.up = op_source(70, 300, CAD_DTYPE_BF16, &seed, OP_DATA_BELL, 1.0f),
		.down = op_source(300, 70, CAD_DTYPE_F16, &seed, OP_DATA_BELL, 1.0f),
		.up_bias = op_source(70, 1, CAD_DTYPE_F16, &seed, OP_DATA_TINY, 1.0f),
		.spec = &spec,
	};

	for (size_t i = 0; i < KEPT; i++)
		packs_images_of(queue, &source, kept[i]);

	for (unsigned i = 0; i < KN_EXPERT_TENSORS; i++)
		free((void *)kn_expert_tensor(&source, i)->data);
	op_queue_close(queue);
}

static void has_the_fingerprints_of_the_cpu(void **state)
{
	(void)state;
	struct kn_queue *cpu = op_queue_open(&(struct kn_device_options){ 0 }, 1), *queue = open_queue();
	char expected[33], hex[33];
	struct cad_error error;
	for (size_t i = 0; i < KEPT; i++) {
		if (!computes(kept[i]))
			continue;
		must(kn_fingerprint(cpu, kept[i], expected, &error), &error);
		must(kn_fingerprint(queue, kept[i], hex, &error), &error);
		assert_string_equal(hex, expected);
	}
	op_queue_close(cpu);
	op_queue_close(queue);
}

/* ---- the device ---- */

static void says_what_it_has(void **state)
{
	(void)state;
	struct kn_queue *queue = open_queue();
	struct kn_device_info info;
	queue->ops->describe(queue->device, &info);
	assert_memory_equal(info.name, library, strlen(library));
	assert_string_equal(info.name + strlen(library), ":0");
	assert_true(*info.chip);
	assert_int_equal(info.profiles,
		1u << CAD_PROFILE_F32 | (info.without_sm90 ? 0 : 1u << CAD_PROFILE_BF16_SM90) | 1u << CAD_PROFILE_INT8 |
			1u << CAD_PROFILE_INT4);
	assert_false(info.complete);
	assert_null(queue->ops->attend);
	assert_null(queue->ops->linear);

	assert_null(queue->ops->alloc(queue->device, info.memory_bytes + 1));
	queue->ops->release(queue->device, NULL, 0);
	op_queue_close(queue);
}

static void new_memory_is_zero(void **state)
{
	(void)state;
	enum { BYTES = 5000 };
	struct kn_queue *queue = open_queue();
	const struct kn_ops *ops = queue->ops;
	uint8_t *memory = ops->alloc(queue->device, BYTES), *host = ops->host_alloc(queue->device, BYTES);
	for (size_t i = 0; i < BYTES; i++)
		assert_int_equal(host[i], 0);
	memset(host, 1, BYTES);
	ops->copy_out(queue, host, memory, BYTES);
	assert_int_equal(ops->wait(queue), CAD_OK);
	for (size_t i = 0; i < BYTES; i++)
		assert_int_equal(host[i], 0);
	ops->release(queue->device, memory, BYTES);
	ops->host_release(queue->device, host, BYTES);
	ops->host_release(queue->device, NULL, 0);
	op_queue_close(queue);
}

/* What the queue did since the last time, by the device's own clock; only what was waited for. */
static void takes_the_time_of_its_stages(void **state)
{
	(void)state;
	enum { BYTES = 1 << 20 };
	struct kn_queue *queue = open_queue();
	const struct kn_ops *ops = queue->ops;
	double seconds[KN_STAGE_COUNT] = { 0 };
	char text[KN_FAILURE_BYTES];
	uint8_t *memory = ops->alloc(queue->device, BYTES), *host = ops->host_alloc(queue->device, BYTES);

	ops->copy_in(queue, memory, host, BYTES);
	ops->times(queue, seconds);
	assert_true(seconds[KN_STAGE_COPY] == 0);
	assert_int_equal(ops->wait(queue), CAD_OK);
	ops->times(queue, seconds);
	double once = seconds[KN_STAGE_COPY];
	assert_true(once > 0 && once < 10);
	assert_true(seconds[KN_STAGE_FFN] == 0 && seconds[KN_STAGE_UNPACK] == 0 && seconds[KN_STAGE_COMBINE] == 0);
	ops->times(queue, seconds);
	assert_true(seconds[KN_STAGE_COPY] == once);
	assert_false(ops->failed(queue->device, text));

	ops->release(queue->device, memory, BYTES);
	ops->host_release(queue->device, host, BYTES);
	op_queue_close(queue);
}

/* What the environment says is read once: each in a process of its own, which must end well. */
static void in_a_child(const char *name, const char *value, bool (*good)(void))
{
	int code;
	pid_t child = fork();
	if (child == 0) {
		setenv(name, value, 1);
		_exit(good() ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &code, 0), child);
	assert_true(WIFEXITED(code) && WEXITSTATUS(code) == 0);
}

static bool says_in_what_it_failed(const struct kn_queue *queue)
{
	char text[KN_FAILURE_BYTES];
	return queue->ops->failed(queue->device, text) &&
		strcmp(text, "unspecified launch failure (CUDA's error 719) in a copy") == 0;
}

/* Opening a device and a queue waits a few times; some calls later the device has failed. */
static bool stays_failed(void)
{
	struct kn_queue *queue = open_queue();
	uint32_t word = 5, *memory = queue->ops->alloc(queue->device, sizeof word);
	int waits = 0;
	if (!memory)
		return false;
	do
		queue->ops->copy_in(queue, memory, &word, sizeof word);
	while (queue->ops->wait(queue) == CAD_OK && ++waits < 10);
	bool good = waits > 0 && waits < 10;
	for (int i = 0; i < 3; i++)
		good &= queue->ops->wait(queue) == CAD_ERR_INTERNAL;
	return good && !queue->ops->alloc(queue->device, 1) && says_in_what_it_failed(queue);
}

static void a_failed_device_stays_failed(void **state)
{
	(void)state;
	in_a_child("CADRE_EMU_FAIL_AFTER", "6", stays_failed);
}

static bool has_no_room(void)
{
	struct kn_queue *queue = open_queue();
	uint64_t seed = SEED;
	struct cad_ffn_spec spec = { .size = 1024, .activation = CAD_ACTIVATION_SILU };
	struct kn_expert_source source = {
		.gate = op_source(1024, 1024, CAD_DTYPE_BF16, &seed, OP_DATA_ONES, 1.0f),
		.up = op_source(1024, 1024, CAD_DTYPE_BF16, &seed, OP_DATA_ONES, 1.0f),
		.down = op_source(1024, 1024, CAD_DTYPE_BF16, &seed, OP_DATA_ONES, 1.0f),
		.spec = &spec,
	};
	struct kn_expert first, second;
	return queue->ops->expert_create(queue->device, &source, CAD_WEIGHTS_INT8, &first) == CAD_OK &&
		queue->ops->expert_create(queue->device, &source, CAD_WEIGHTS_INT8, &second) == CAD_ERR_MEMORY;
}

/* A window's mirror, and one expert of 3 MiB and its scales. */
static void experts_need_room(void **state)
{
	(void)state;
	in_a_child("CADRE_EMU_BYTES", "13000000", has_no_room);
}

static bool is_without_sm90(const char *why)
{
	struct kn_queue *queue = open_queue();
	struct kn_device_info info;
	queue->ops->describe(queue->device, &info);
	return !(info.profiles >> CAD_PROFILE_BF16_SM90 & 1) && (info.profiles >> CAD_PROFILE_INT8 & 1) &&
		strcmp(info.without_sm90, why) == 0;
}
static bool is_hopper(void) { return computes(CAD_WEIGHTS_BF16_SM90); }
static bool is_another_family(void)
{
	return is_without_sm90("it is the order of compute capability 9.0, and that of 8.9 is not established");
}
static bool sums_otherwise(void)
{
	setenv("CADRE_EMU_SM", "90", 1);
	return is_without_sm90("its tensor cores do not sum as an H200's did");
}

static void an_order_that_is_not_known_is_not_offered(void **state)
{
	(void)state;
	in_a_child("CADRE_EMU_SM", "90", is_hopper);
	in_a_child("CADRE_EMU_SM", "89", is_another_family);
	in_a_child("CADRE_EMU_OTHER_SUMS", "1", sums_otherwise);
}

static bool is_not_there(void)
{
	struct kn_device *device;
	struct cad_error error = { 0 };
	return kn_device_open(&emu, &device, &error) == CAD_ERR_NOT_FOUND &&
		strstr(error.text, "/nowhere/libcadre-emu.so is not there") && strstr(error.text, "./cadre build");
}

static bool cannot_be_opened(void)
{
	struct kn_device *device;
	struct cad_error error = { 0 };
	return kn_device_open(&emu, &device, &error) == CAD_ERR_UNSUPPORTED &&
		strstr(error.text, "its library cannot be opened");
}

static void a_library_that_is_missing_or_broken_is_named(void **state)
{
	(void)state;
	in_a_child("CADRE_BACKENDS", "/nowhere", is_not_there);

	char folder[] = "/tmp/cadre-test-backend-XXXXXX", path[64];
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/libcadre-emu.so", folder);
	file_write(path, "not a library\n");
	in_a_child("CADRE_BACKENDS", folder, cannot_be_opened);
	unlink(path);
	rmdir(folder);
}

/* Nothing may have opened the library in this process yet. */
static int test_emulation(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_library_that_is_missing_or_broken_is_named),
		cmocka_unit_test(a_failed_device_stays_failed),
		cmocka_unit_test(experts_need_room),
		cmocka_unit_test(an_order_that_is_not_known_is_not_offered),
	};
	return cmocka_run_group_tests_name("emulation", tests, NULL, NULL);
}

/*
 * What is done at the call and what later, seen by breaking the contract (M2): the data change
 * before the wait. The emulated device runs nothing before that, so what is copied by the call has
 * the old ones, and what the device copies by itself has the new ones.
 */
static float unpacked_late(struct kn_queue *queue, size_t rows, bool pinned)
{
	enum { N = 512 };
	const struct kn_ops *ops = queue->ops;
	size_t values = rows * N, ld = kn_ld(N);
	struct cadre_wire_row *heads = op_need(rows * sizeof *heads);
	float *data = pinned ? ops->host_alloc(queue->device, values * sizeof *data) : op_need(values * sizeof *data),
	      *x = ops->alloc(queue->device, rows * ld * sizeof *x),
	      *out = ops->host_alloc(queue->device, rows * ld * sizeof *out);
	memset(heads, 0, rows * sizeof *heads);
	for (size_t r = 0; r < rows; r++)
		heads[r].type = CADRE_ROW_F32;
	memset(data, 0, values * sizeof *data);

	ops->rows_unpack(queue, &(struct kn_rows_unpack){ heads, (const uint8_t *)data, rows, N, x, ld });
	for (size_t i = 0; i < values; i++)
		data[i] = 1.0f;
	ops->copy_out(queue, out, x, rows * ld * sizeof *x);
	assert_int_equal(ops->wait(queue), CAD_OK);
	float first = out[0];
	for (size_t r = 0; r < rows; r++)
		for (size_t i = 0; i < N; i++)
			assert_true(out[r * ld + i] == first);

	ops->host_release(queue->device, out, rows * ld * sizeof *out);
	ops->release(queue->device, x, rows * ld * sizeof *x);
	if (pinned)
		ops->host_release(queue->device, data, values * sizeof *data);
	else
		free(data);
	free(heads);
	return first;
}

static void many_pinned_rows_are_not_copied_by_the_host(void **state)
{
	(void)state;
	struct kn_queue *queue = open_queue();
	assert_true(unpacked_late(queue, 2000, true) == 1.0f);
	assert_true(unpacked_late(queue, 2000, false) == 0.0f);
	assert_true(unpacked_late(queue, 4, true) == 0.0f);
	op_queue_close(queue);
}

static int test_copies(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(many_pinned_rows_are_not_copied_by_the_host) };
	return cmocka_run_group_tests_name("copies", tests, NULL, NULL);
}

static int test_cases(const char *name, const struct op_case *cases, size_t cases_count)
{
	struct CMUnitTest *tests = op_need(cases_count * sizeof *tests);
	char(*names)[160] = op_need(cases_count * sizeof *names);
	size_t count = 0;

	for (size_t i = 0; i < cases_count; i++) {
		const struct op_case *c = &cases[i];
		if (c->use & OP_TEST && has(c)) {
			tests[count] = (struct CMUnitTest){ op_case_text(c, names[count]), gives_the_bits_of_the_cpu,
				NULL, NULL, (void *)c };
			count++;
		}
	}
	int failures = _cmocka_run_group_tests(name, tests, count, NULL, NULL);
	free(tests);
	free(names);
	return failures;
}

/* 0, or why not, and the exit code: a GPU that is there and cannot be used is a failure. */
static int without_gpu(void)
{
	struct kn_device *device;
	struct cad_error error = { 0 };
	enum cad_status status = kn_backend_open(library, 0, &device, &error);
	if (status == CAD_OK)
		device->ops->destroy(device);
	else
		printf("%s: %s\n", status == CAD_ERR_NOT_FOUND ? "skipped" : "FAIL", error.text);
	return status == CAD_OK ? 0 : status == CAD_ERR_NOT_FOUND ? SKIPPED : 1;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packs_images),
		cmocka_unit_test(has_the_fingerprints_of_the_cpu),
		cmocka_unit_test(says_what_it_has),
		cmocka_unit_test(new_memory_is_zero),
		cmocka_unit_test(takes_the_time_of_its_stages),
	};
	int failures = 0, without;

	if (argc > 1)
		library = argv[1];
	if (argc > 2)
		cmocka_set_test_filter(argv[2]);
	if (strcmp(library, "emu") == 0)
		failures += test_emulation() + test_copies();
	else if ((without = without_gpu()) != 0)
		return without;
	failures += cmocka_run_group_tests_name("device", tests, NULL, NULL);
	failures += test_cases("operators", op_cases, op_cases_count);
	failures += test_cases("more operators", more, sizeof more / sizeof *more);
	if (strcmp(library, "emu") != 0)
		failures += test_cases("wide operators", wide, sizeof wide / sizeof *wide);
	return failures;
}
