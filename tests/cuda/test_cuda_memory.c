/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts that come and go in the memory of a GPU: slots, staging, and memory that is short. On the
 * emulated GPU, in the order and the build that CADRE_EMU_SEED and CADRE_BACKENDS say.
 */
#include "common/base/clock.h"
#include "kernels/backend.h"
#include "kernels/image.h"
#include "tests/support/expert_calls.h"
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

#include <pthread.h>
#include <stdatomic.h>

/* Experts of several staging buffers, of which a few fit into a chunk (kernels/cuda/tune.h). */
enum { SEED = 77, HIDDEN = 260, FFN = 290, EXPERTS = 5, ROWS = 3, ROUNDS = 6 };

static const struct cad_ffn_spec spec = { .size = FFN, .activation = CAD_ACTIVATION_SILU, .bias = true };

/* An expert, its image, and what the CPU makes of some rows. */
struct made {
	struct kn_expert_source source;
	uint8_t *image;
	float y[ROWS * HIDDEN];
};
static struct made made[EXPERTS];
static struct kn_expert_source form;
static size_t image_bytes;
static float rows[ROWS * HIDDEN];

static struct kn_device *open_device(void)
{
	struct kn_device *device;
	struct cad_error error = { 0 };
	must(kn_backend_open("emu", 0, &device, &error), &error);
	return device;
}

/* ---- a device, a queue, and a step ---- */

/* Memory of a step of all rows through one expert. */
struct step {
	struct kn_queue *queue;
	float *x, *y, *host;
	void *scratch;
	size_t scratch_bytes;
};
enum { LD = 336, STEP_BYTES = ROWS * LD * sizeof(float) };

static void step_fini(struct step *step)
{
	if (!step->queue)
		return;
	const struct kn_ops *ops = step->queue->ops;
	struct kn_device *device = step->queue->device;
	ops->release(device, step->x, STEP_BYTES);
	ops->release(device, step->y, STEP_BYTES);
	ops->release(device, step->scratch, step->scratch_bytes);
	ops->host_release(device, step->host, STEP_BYTES);
	ops->queue_destroy(step->queue);
}

static bool step_init(struct step *step, struct kn_device *device)
{
	const struct kn_ops *ops = device->ops;
	*step = (struct step){ 0 };
	CAD_ASSERT(kn_ld(HIDDEN) == LD);
	if (ops->queue_create(device, 1, &step->queue) != CAD_OK)
		return false;
	step->scratch_bytes = ops->ffn_scratch_bytes(step->queue, ROWS, HIDDEN, FFN, false);
	step->scratch = ops->alloc(device, step->scratch_bytes);
	step->x = ops->alloc(device, STEP_BYTES);
	step->y = ops->alloc(device, STEP_BYTES);
	step->host = ops->host_alloc(device, STEP_BYTES);
	return step->x && step->y && step->host && step->scratch;
}

static bool step_run(struct step *step, const struct kn_expert *expert, float *y)
{
	const struct kn_ops *ops = step->queue->ops;
	static const uint32_t begin[] = { 0, ROWS };
	for (size_t r = 0; r < ROWS; r++)
		memcpy(step->host + r * LD, rows + r * HIDDEN, HIDDEN * sizeof(float));
	ops->copy_in(step->queue, step->x, step->host, STEP_BYTES);
	ops->ffn(step->queue,
		&(struct kn_ffn){
			.experts = &expert,
			.experts_count = 1,
			.begin = begin,
			.x = step->x,
			.ldx = LD,
			.rows = ROWS,
			.hidden = HIDDEN,
			.y = step->y,
			.ldy = LD,
			.scratch = step->scratch,
		});
	if (ops->wait(step->queue) != CAD_OK)
		return false;
	ops->copy_out(step->queue, step->host, step->y, STEP_BYTES);
	if (ops->wait(step->queue) != CAD_OK)
		return false;
	for (size_t r = 0; r < ROWS; r++)
		memcpy(y + r * HIDDEN, step->host + r * LD, HIDDEN * sizeof(float));
	return true;
}

/* ---- experts ---- */

static enum cad_status create(struct kn_device *device, size_t i, struct kn_expert *expert)
{
	return device->ops->expert_create(device, &made[i].source, CAD_WEIGHTS_INT8, expert);
}

static bool has_image(struct kn_device *device, const struct kn_expert *expert, size_t i)
{
	uint8_t *image = op_need(image_bytes);
	bool good = device->ops->expert_unpack(device, expert, &form, 0, image_bytes, image) == CAD_OK &&
		memcmp(image, made[i].image, image_bytes) == 0;
	free(image);
	return good;
}

static uint64_t free_bytes(struct kn_device *device)
{
	struct kn_device_info info;
	device->ops->describe(device, &info);
	return info.memory_bytes;
}

static uint64_t slot_bytes(struct kn_device *device)
{
	return device->ops->expert_bytes(device, &made[0].source, CAD_WEIGHTS_INT8);
}

/* Of the CPU, by the image that a node would give to another. */
static int make_experts(void **state)
{
	(void)state;
	struct kn_device *cpu;
	struct cad_error error = { 0 };
	struct step step;
	uint64_t seed = SEED;

	must(kn_device_open(&(struct kn_device_options){ 0 }, &cpu, &error), &error);
	assert_true(step_init(&step, cpu));
	struct kn_source x = op_source(ROWS, HIDDEN, CAD_DTYPE_F32, &seed, OP_DATA_BELL, 1.0f);
	memcpy(rows, x.data, sizeof rows);
	free((void *)x.data);
	for (size_t i = 0; i < EXPERTS; i++) {
		struct kn_expert expert;
		made[i].source = (struct kn_expert_source){
			.gate = op_source(FFN, HIDDEN, CAD_DTYPE_BF16, &seed, OP_DATA_BELL, 1.0f),
			.up = op_source(FFN, HIDDEN, CAD_DTYPE_BF16, &seed, OP_DATA_BELL, 1.0f),
			.down = op_source(HIDDEN, FFN, CAD_DTYPE_BF16, &seed, OP_DATA_BELL, 1.0f),
			.down_bias = op_source(HIDDEN, 1, CAD_DTYPE_F32, &seed, OP_DATA_BELL, 1.0f),
			.spec = &spec,
		};
		form = kn_image_of(&made[i].source, CAD_WEIGHTS_INT8);
		image_bytes = (size_t)kn_image_bytes(&form);
		made[i].image = op_need(image_bytes);
		assert_int_equal(create(cpu, i, &expert), CAD_OK);
		assert_int_equal(cpu->ops->expert_unpack(cpu, &expert, &form, 0, image_bytes, made[i].image), CAD_OK);
		assert_true(step_run(&step, &expert, made[i].y));
		cpu->ops->expert_destroy(cpu, &expert);
	}
	step_fini(&step);
	cpu->ops->destroy(cpu);
	return 0;
}

static int free_experts(void **state)
{
	(void)state;
	for (size_t i = 0; i < EXPERTS; i++) {
		for (unsigned t = 0; t < KN_EXPERT_TENSORS; t++)
			free((void *)kn_expert_tensor(&made[i].source, t)->data);
		free(made[i].image);
	}
	return 0;
}

/* ---- slots ---- */

/* Nothing is taken of the device or given back after the slots were reserved: others have all the
 * rest of it. */
static void slots_are_used_again(void **state)
{
	(void)state;
	struct kn_device *device = open_device();
	struct kn_expert experts[EXPERTS] = { 0 }, more;
	uint64_t before = free_bytes(device), bytes = slot_bytes(device);
	struct cad_random random = { SEED };

	assert_int_equal(device->ops->expert_reserve(device, bytes, EXPERTS), CAD_OK);
	assert_int_equal(free_bytes(device), before - EXPERTS * bytes);
	setenv("CADRE_EMU_TAKEN", "0xffffffffffff", 1);
	for (size_t i = 0; i < EXPERTS; i++)
		assert_int_equal(create(device, i, &experts[i]), CAD_OK);
	assert_int_equal(create(device, 0, &more), CAD_ERR_MEMORY);
	for (int round = 0; round < 4 * EXPERTS; round++) {
		size_t i = (size_t)cad_random_below(&random, EXPERTS);
		device->ops->expert_destroy(device, &experts[i]);
		assert_int_equal(create(device, i, &experts[i]), CAD_OK);
	}
	for (size_t i = 0; i < EXPERTS; i++) {
		assert_true(has_image(device, &experts[i], i));
		device->ops->expert_destroy(device, &experts[i]);
	}
	unsetenv("CADRE_EMU_TAKEN");
	assert_int_equal(free_bytes(device), before - EXPERTS * bytes);
	device->ops->destroy(device);
}

/* What came before the slots, and what is larger than one, goes back to the device. */
static void what_is_no_slot_has_memory_of_its_own(void **state)
{
	(void)state;
	struct kn_device *device = open_device();
	struct kn_expert early, late, slot;
	uint64_t before = free_bytes(device), bytes = slot_bytes(device), half = kn_round_up(bytes / 2, 256);

	assert_int_equal(create(device, 0, &early), CAD_OK);
	assert_int_equal(device->ops->expert_reserve(device, half, 1), CAD_OK);
	assert_int_equal(create(device, 1, &late), CAD_OK);
	assert_true(has_image(device, &early, 0) && has_image(device, &late, 1));
	device->ops->expert_destroy(device, &early);
	device->ops->expert_destroy(device, &late);
	assert_int_equal(free_bytes(device), before - half);
	device->ops->destroy(device);

	device = open_device();
	assert_int_equal(create(device, 0, &early), CAD_OK);
	assert_int_equal(device->ops->expert_reserve(device, bytes, 1), CAD_OK);
	device->ops->expert_destroy(device, &early); /* of a slot's size, and none */
	assert_int_equal(create(device, 1, &slot), CAD_OK);
	assert_int_equal(create(device, 2, &late), CAD_ERR_MEMORY);
	device->ops->expert_destroy(device, &slot);
	assert_int_equal(free_bytes(device), before - bytes);
	device->ops->destroy(device);
}

static void what_does_not_fit_is_not_half_reserved(void **state)
{
	(void)state;
	struct kn_device *device = open_device();
	uint64_t before = free_bytes(device), bytes = slot_bytes(device);
	char taken[32];

	snprintf(taken, sizeof taken, "%llu", (unsigned long long)(before - 4 * bytes - bytes / 2));
	setenv("CADRE_EMU_TAKEN", taken, 1);
	assert_int_equal(device->ops->expert_reserve(device, bytes, 5), CAD_ERR_MEMORY);
	assert_int_equal(free_bytes(device), 4 * bytes + bytes / 2);
	assert_int_equal(device->ops->expert_reserve(device, bytes, 4), CAD_OK);
	unsetenv("CADRE_EMU_TAKEN");
	device->ops->destroy(device);
}

/* ---- loads beside steps ---- */

struct loader {
	struct kn_device *device;
	size_t expert;
	const char *wrong; /* assertions belong to the main thread */
	pthread_t thread;
};

/* Load, step, give away, free: the step right after the load, on a queue of its own. */
static void *load_and_step(void *argument)
{
	struct loader *loader = argument;
	struct kn_device *device = loader->device;
	struct step step;
	float y[ROWS * HIDDEN];

	loader->wrong = step_init(&step, device) ? NULL : "no memory for steps";
	for (int i = 0; i < ROUNDS && !loader->wrong; i++) {
		struct kn_expert expert;
		size_t which = (loader->expert + (size_t)i) % EXPERTS;
		if (create(device, which, &expert) != CAD_OK) {
			loader->wrong = "not loaded";
			break;
		}
		if (!step_run(&step, &expert, y) || memcmp(y, made[which].y, sizeof y) != 0)
			loader->wrong = "wrong values";
		else if (!has_image(device, &expert, which))
			loader->wrong = "wrong image";
		device->ops->expert_destroy(device, &expert);
	}
	step_fini(&step);
	return NULL;
}

/* More threads than staging buffers, and a slot for each. */
static void loads_run_beside_steps(void **state)
{
	(void)state;
	enum { LOADERS = 5 };
	struct kn_device *device = open_device();
	struct loader loaders[LOADERS];

	assert_int_equal(device->ops->expert_reserve(device, slot_bytes(device), LOADERS), CAD_OK);
	for (size_t i = 0; i < LOADERS; i++) {
		loaders[i] = (struct loader){ .device = device, .expert = i };
		assert_int_equal(pthread_create(&loaders[i].thread, NULL, load_and_step, &loaders[i]), 0);
	}
	for (size_t i = 0; i < LOADERS; i++)
		pthread_join(loaders[i].thread, NULL);
	for (size_t i = 0; i < LOADERS; i++)
		if (loaders[i].wrong)
			fail_msg("thread %zu: %s", i, loaders[i].wrong);
	device->ops->destroy(device);
}

/* ---- a node's engine ---- */

static struct ex_engine *engine_on(struct kn_device *device, struct expert_world *world)
{
	struct ex_engine_options options;
	struct ex_engine *engine;
	struct cad_error error = { 0 };

	world->settings.profile = CAD_PROFILE_INT8;
	world->settings.weights = CAD_WEIGHTS_INT8;
	ex_engine_options_default(&options);
	options.model = world->model;
	options.device = device;
	options.settings = &world->settings;
	options.step_rows_max = options.step_pairs_max = 64;
	must(ex_engine_create(&options, &engine, &error), &error);
	return engine;
}

/* Another process has taken all but some of it. */
static void take_all_but(struct kn_device *device, uint64_t bytes)
{
	char taken[32];
	snprintf(taken, sizeof taken, "%llu", (unsigned long long)(free_bytes(device) - bytes));
	setenv("CADRE_EMU_TAKEN", taken, 1);
}

/* Between the look and the taking. */
static void memory_that_went_meanwhile_is_not_half_taken(void **state)
{
	(void)state;
	struct kn_device *device = open_device();
	struct expert_world world;
	struct ex_memory memory;
	struct ex_loaded loaded;
	struct cad_error error = { 0 };
	struct kn_device_info info;

	expert_world_init(&world, "qwen3moe-a");
	device->ops->describe(device, &info);
	struct ex_engine *engine = engine_on(device, &world);
	must(ex_engine_plan(engine, &info, 0, 1, &memory, &error), &error);
	assert_int_equal(memory.slots, 48);

	take_all_but(device, memory.weights_bytes - 1);
	uint64_t before = free_bytes(device);
	assert_int_equal(ex_engine_reserve(engine, &memory, &error), CAD_ERR_MEMORY);
	assert_non_null(strstr(error.text, "for the weights of 48 experts cannot be had: device 'emu:0' has "));
	assert_non_null(strstr(error.text, "another process has taken it"));
	assert_int_equal(free_bytes(device), before);
	unsetenv("CADRE_EMU_TAKEN");

	must(ex_engine_reserve(engine, &memory, &error), &error);
	setenv("CADRE_EMU_TAKEN", "0xffffffffffff", 1); /* from now on, that is nothing to this node */
	for (uint32_t expert = 0; expert < 8; expert++)
		must(ex_engine_load(engine, 1, expert, &loaded, &error), &error);
	unsetenv("CADRE_EMU_TAKEN");
	ex_engine_destroy(engine);
	expert_world_fini(&world);
	device->ops->destroy(device);
}

/* Without slots: what does not fit is refused with what there is, and what is there stays. */
static void a_load_without_memory_is_refused(void **state)
{
	(void)state;
	struct kn_device *device = open_device();
	struct expert_world world;
	struct ex_loaded loaded;
	struct cad_error error = { 0 };

	expert_world_init(&world, "qwen3moe-a");
	struct ex_engine *engine = engine_on(device, &world);
	uint64_t bytes = ex_engine_expert_bytes(engine);
	take_all_but(device, 2 * bytes + bytes / 2);
	must(ex_engine_load(engine, 1, 0, &loaded, &error), &error);
	must(ex_engine_load(engine, 1, 1, &loaded, &error), &error);
	assert_int_equal(ex_engine_load(engine, 1, 2, &loaded, &error), CAD_ERR_MEMORY);
	assert_non_null(strstr(error.text, "no memory for expert 2 of layer 1, which takes "));
	assert_non_null(strstr(error.text, "of 4.0 GiB free; end what else uses it"));
	assert_int_equal(ex_engine_held(engine), 2);
	assert_int_equal(ex_engine_memory_used(engine), 2 * bytes);
	unsetenv("CADRE_EMU_TAKEN");
	must(ex_engine_load(engine, 1, 2, &loaded, &error), &error);
	ex_engine_destroy(engine);
	expert_world_fini(&world);
	device->ops->destroy(device);
}

/* ---- no memory ---- */

/* From opening on; false: something failed, and all that was there goes in order. */
static bool use_all(void)
{
	struct kn_device *device;
	struct cad_error error = { 0 };
	struct step step;
	struct kn_expert expert = { 0 };
	float y[ROWS * HIDDEN];

	if (kn_backend_open("emu", 0, &device, &error) != CAD_OK) {
		CAD_ASSERT(strstr(error.text, "memory"));
		return false;
	}
	uint64_t before = free_bytes(device);
	bool good = step_init(&step, device) &&
		device->ops->expert_reserve(device, slot_bytes(device), EXPERTS) == CAD_OK &&
		create(device, 0, &expert) == CAD_OK && step_run(&step, &expert, y);
	device->ops->expert_destroy(device, &expert);
	step_fini(&step);
	uint64_t after = free_bytes(device);
	CAD_ASSERT(good ? before > after : before == after);
	device->ops->destroy(device);
	return good;
}

/* 0: the first use failed and the second went well; 1: neither failed. */
static int use_twice(const char *fails)
{
	setenv("CADRE_EMU_NO_MEMORY", fails, 1);
	if (use_all())
		return 1;
	return use_all() ? 0 : 2;
}

/* Each in a process of its own, which reads the environment once. */
static void no_memory_at_each_allocation(void **state)
{
	(void)state;
	int code = 0, failed = 0;
	for (int n = 1; code == 0; n++) {
		char fails[16];
		snprintf(fails, sizeof fails, "%d", n);
		pid_t child = fork();
		if (child == 0)
			_exit(use_twice(fails));
		assert_int_equal(waitpid(child, &code, 0), child);
		assert_true(WIFEXITED(code));
		code = WEXITSTATUS(code);
		failed += code == 0;
	}
	assert_int_equal(code, 1);
	assert_in_range(failed, 10, 30); /* buffers, a window and its mirror, a step, chunks */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_memory_at_each_allocation), /* before the library is opened here */
		cmocka_unit_test(slots_are_used_again),
		cmocka_unit_test(what_is_no_slot_has_memory_of_its_own),
		cmocka_unit_test(what_does_not_fit_is_not_half_reserved),
		cmocka_unit_test(loads_run_beside_steps),
		cmocka_unit_test(memory_that_went_meanwhile_is_not_half_taken),
		cmocka_unit_test(a_load_without_memory_is_refused),
	};
	return cmocka_run_group_tests_name("memory", tests, make_experts, free_experts);
}
