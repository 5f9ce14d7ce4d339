/* SPDX-License-Identifier: Apache-2.0 */
/* Continuous batching over a small KV cache: what is let in, what is chunked, who gives up pages,
 * and that nothing is lost. */
#include "common/base/clock.h"
#include "kernels/source.h"
#include "router-svc/batch/scheduler.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 64, SLOTS = 4, POSITIONS = 512 };

struct fixture {
	struct kn_device *device;
	struct kn_queue *queue;
	struct rt_kv_cache cache;
	struct rt_batch batch;
	struct rt_scheduler scheduler;
	uint64_t next_id;
	double step_us, row_us; /* what steps take on the simulated clock */
	uint64_t took_us;       /* the last one */
};

static void begin(struct fixture *f, uint32_t pages, uint32_t chunk)
{
	struct cad_error error;
	struct cad_layer_spec layer = { 0 };
	struct cad_model_spec spec = {
		.layers_count = 1,
		.layers = &layer,
		.attentions_count = 1,
		.attention = { .heads = 1, .kv_heads = 1, .head_size = 4, .value_size = 4 },
	};

	*f = (struct fixture){ .next_id = 1 };
	must(kn_device_open(&(struct kn_device_options){ .isa = KN_ISA_REF }, &f->device, &error), &error);
	assert_int_equal(f->device->ops->queue_create(f->device, 1, &f->queue), CAD_OK);
	must(rt_kv_cache_init(&f->cache, f->device, f->queue, &spec, CAD_KV_F32,
		     (uint64_t)pages * 32 * 8 * sizeof(float), SLOTS, POSITIONS, &error),
		&error);
	assert_int_equal(f->cache.pages, pages);
	assert_int_equal(rt_batch_init(&f->batch, ROWS, SLOTS), CAD_OK);
	f->scheduler = (struct rt_scheduler){ .cache = &f->cache, .running_max = SLOTS, .chunk_max = chunk };
}

static void end(struct fixture *f)
{
	rt_batch_fini(&f->batch);
	rt_kv_cache_fini(&f->cache);
	f->device->ops->queue_destroy(f->queue);
	f->device->ops->destroy(f->device);
}

/* With a pace, and steps that take step_us + rows * row_us. */
static void begin_paced(
	struct fixture *f, uint32_t pages, uint32_t chunk, double stretch, double step_us, double row_us)
{
	begin(f, pages, chunk);
	f->scheduler.pace.stretch = stretch;
	f->step_us = step_us;
	f->row_us = row_us;
}

static struct rt_sequence *add(struct fixture *f, uint32_t prompt, uint32_t max_tokens)
{
	int32_t tokens[POSITIONS] = { 0 };
	for (uint32_t i = 0; i < prompt; i++)
		tokens[i] = (int32_t)i;
	struct rt_request request = { .prompt = tokens, .prompt_count = prompt, .max_tokens = max_tokens };
	struct rt_sequence *sequence = rt_sequence_create(&request, prompt + max_tokens);
	assert_non_null(sequence);
	sequence->id = f->next_id++;
	rt_list_add(&f->scheduler.waiting, sequence);
	return sequence;
}

/* What the engine does around a step. Returns how many sequences ended. */
static uint32_t step(struct fixture *f)
{
	uint32_t ended = 0;
	rt_schedule(&f->scheduler, &f->batch);
	f->took_us = (uint64_t)(f->step_us + f->row_us * f->batch.rows);
	rt_schedule_took(&f->scheduler, &f->batch, f->took_us * CAD_NS_PER_US);

	for (uint32_t i = 0; i < f->batch.spans_count; i++) {
		struct rt_span *span = &f->batch.spans[i];
		struct rt_sequence *s = span->sequence;
		for (uint32_t r = 0; r < span->rows; r++) {
			assert_int_equal(f->batch.positions[span->first + r], s->computed + r);
			assert_int_equal(f->batch.ids[span->first + r], s->tokens[s->computed + r]);
			assert_ptr_equal(f->batch.row_span[span->first + r], span);
		}
		assert_true(s->kv.count * KN_PAGE_KEYS >= s->computed + span->rows);
		assert_true(!s->paused && s->state == RT_SEQUENCE_RUNNING && s->kv.slot < SLOTS);
		s->computed += span->rows;
		if (!span->chooses)
			continue;
		s->tokens[s->count] = (int32_t)s->count;
		if (++s->count == s->tokens_max) {
			rt_scheduler_remove(&f->scheduler, s);
			rt_sequence_destroy(s);
			ended++;
		}
	}

	return ended;
}

/* Runs until `wanted` sequences have ended. */
static void run(struct fixture *f, uint32_t wanted)
{
	for (uint32_t ended = 0, steps = 0; ended < wanted; steps++) {
		assert_true(steps < 1000);
		ended += step(f);
	}
}

static void finish(struct fixture *f)
{
	run(f, f->scheduler.running.count + f->scheduler.waiting.count);
	end(f);
}

static void prompt_goes_in_chunks(void **state)
{
	(void)state;
	struct fixture f;
	begin(&f, 16, 20);
	add(&f, 50, 1);
	uint32_t rows[] = { 20, 20, 10 };
	for (int i = 0; i < 3; i++) {
		assert_int_equal(step(&f), i == 2);
		assert_int_equal(f.batch.rows, rows[i]);
	}

	assert_int_equal(f.cache.free_count, 16);
	assert_int_equal(f.cache.free_slots_count, SLOTS);
	end(&f);
}

/* What was rotated for 40 tokens is of no use to 41, and what was for 41 is to all that are longer. */
static void outgrown_rotation_is_computed_again(void **state)
{
	(void)state;
	const struct cad_rope_spec rope = { .kind = CAD_ROPE_LONGROPE, .size = 4, .original_positions = 40 };
	struct fixture f;
	begin(&f, 16, 30);
	f.scheduler.rope = &rope;
	struct rt_sequence *s = add(&f, 38, 6);
	while (s->count < 41)
		step(&f);
	assert_int_equal(s->rotation, 0);
	assert_int_equal(s->usage.recomputed_tokens, 0);
	step(&f);
	assert_int_equal(s->rotation, 1);
	assert_int_equal(s->usage.recomputed_tokens, 40);
	assert_int_equal(s->computed, 30);
	step(&f);
	step(&f);
	assert_int_equal(s->count, 43);
	assert_int_equal(s->usage.recomputed_tokens, 40);
	assert_int_equal(step(&f), 1);

	/* a prompt of that length is rotated for it at once; a shorter one beside it is not */
	struct rt_sequence *long_prompt = add(&f, 41, 2), *short_prompt = add(&f, 40, 1);
	step(&f);
	assert_int_equal(long_prompt->rotation, 1);
	assert_int_equal(short_prompt->rotation, 0);
	assert_int_equal(long_prompt->usage.recomputed_tokens, 0);
	run(&f, 2);
	assert_int_equal(f.cache.free_count, 16);
	end(&f);
}

/* A decoding sequence gets its row in every step, however long the prompts beside it are. */
static void decode_does_not_starve(void **state)
{
	(void)state;
	struct fixture f;
	begin(&f, 48, ROWS);
	struct rt_sequence *long_prompt = add(&f, 300, 4);
	struct rt_sequence *short_prompt = add(&f, 3, 20);
	step(&f); /* the long prompt fills the step */
	assert_int_equal(f.batch.rows, ROWS);
	while (short_prompt->state == RT_SEQUENCE_WAITING)
		step(&f);
	for (uint32_t before = short_prompt->count; long_prompt->computed < 300; before = short_prompt->count) {
		step(&f);
		assert_int_equal(short_prompt->count, before + 1);
	}

	for (uint32_t ended = 0; ended < 2;)
		ended += step(&f);
	end(&f);
}

/* More than the pages hold: the youngest gives way, everybody ends, every page comes back. */
static void random_load(double stretch)
{
	struct cad_random random = { 99 };
	print_message("seed %llu\n", (unsigned long long)random.state);
	struct fixture f;
	begin_paced(&f, 12, 32, stretch, 100, 10);
	uint32_t submitted = 0, ended = 0, steps = 0;
	while (ended < 60) {
		if (submitted < 60 && cad_random_below(&random, 3) == 0) {
			add(&f, 1 + (uint32_t)cad_random_below(&random, 200),
				1 + (uint32_t)cad_random_below(&random, 150));
			submitted++;
		}
		struct rt_sequence *paused = f.scheduler.running.first;
		if (paused)
			paused->paused = cad_random_below(&random, 10) == 0;
		ended += step(&f);
		for (struct rt_sequence *s = f.scheduler.running.first; s; s = s->after)
			if (s != paused)
				s->paused = false;
		for (struct rt_sequence *s = f.scheduler.waiting.first; s; s = s->after)
			s->paused = false;
		for (struct rt_sequence *s = f.scheduler.paused.first; s; s = s->after)
			s->paused = s == paused;
		assert_true(++steps < 100000);
	}

	assert_true(f.scheduler.preempted > 0);
	assert_int_equal(f.cache.free_count, 12);
	assert_int_equal(f.cache.free_slots_count, SLOTS);
	end(&f);
}

static void random_load_on_few_pages(void **state)
{
	(void)state;
	random_load(0);
	random_load(2);
}

/* ---- prompts beside sequences that decode ---- */

/* Three sequences that decode, and prompts of 200 rows, one after another, for so many steps; then
 * all end. Returns the rows of prompts in the last step that could have had more of them. */
static uint32_t prompts_beside_decoding(struct fixture *f, uint32_t steps)
{
	uint32_t rows = 0;

	for (int i = 0; i < 3; i++)
		add(f, 1, steps + 10);
	step(f);
	for (uint32_t i = 0; i < steps; i++) {
		if (f->scheduler.running.count + f->scheduler.waiting.count < SLOTS)
			add(f, 200, 1);
		step(f);
		if (f->batch.rows > 3 && !f->batch.spans[f->batch.spans_count - 1].chooses)
			rows = f->batch.rows - 3;
	}
	run(f, f->scheduler.running.count + f->scheduler.waiting.count);

	return rows;
}

/* Whatever a machine is like, the step takes `stretch` times one without prompts, or all rows that
 * there are, or as many as decode. */
static void prompts_stretch_a_step_so_far(void **state)
{
	(void)state;
	static const struct {
		double stretch, step_us, row_us;
		uint32_t rows;
	} cases[] = {
		{ 2.5, 100, 10, 19 },  /* 130 without, 325 with */
		{ 2.5, 1000, 10, 61 }, /* all that fit */
		{ 2.5, 1000, 0, 61 },  /* rows cost nothing */
		{ 2.5, 0, 1000, 4 },   /* 3,000 without, 7,500 with */
		{ 1, 100, 10, 3 },     /* as many as decode */
		{ 4, 100, 10, 39 },    /* 130 without, 520 with */
		{ 0, 0, 1000, 61 },    /* no limit */
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct fixture f;
		begin_paced(&f, 64, ROWS, cases[i].stretch, cases[i].step_us, cases[i].row_us);
		assert_int_equal(prompts_beside_decoding(&f, 150), cases[i].rows);
		end(&f);
	}
}

/* Nothing is known at first, and no step may take longer than the limit for that. */
static void the_first_prompt_is_careful(void **state)
{
	(void)state;
	struct fixture f;
	begin_paced(&f, 64, ROWS, 2.5, 100, 10);
	for (int i = 0; i < 3; i++)
		add(&f, 1, 100);
	step(&f);
	add(&f, 300, 1);
	for (uint32_t i = 0, rows[] = { 0, 3, 6, 12, 19, 19 }; i < sizeof rows / sizeof *rows; i++) {
		step(&f);
		assert_int_equal(f.batch.decoding, 3);
		assert_int_equal(f.batch.rows, 3 + rows[i]);
	}
	finish(&f);
}

/* An explicit chunk is a limit too, for one prompt, and prompts share what the step may have. */
static void chunks_limit_one_prompt(void **state)
{
	(void)state;
	struct fixture f;
	begin_paced(&f, 64, 12, 2.5, 100, 10);
	for (int i = 0; i < 2; i++)
		add(&f, 1, 200);
	for (int i = 0; i < 10; i++)
		step(&f);
	add(&f, 200, 1);
	add(&f, 200, 1);
	for (int i = 0; i < 12; i++)
		step(&f);
	assert_int_equal(f.batch.spans_count, 4);
	assert_int_equal(f.batch.spans[2].rows, 12);
	assert_int_equal(f.batch.spans[3].rows, 6); /* 120 without, 300 with 18 */
	finish(&f);
}

/* One that waited for a node that died says nothing about others, whether it had prompts or not. */
static void a_step_that_was_held_up_counts_little(void **state)
{
	(void)state;
	for (uint32_t prompt = 0; prompt <= 200; prompt += 200) {
		struct fixture f;
		begin_paced(&f, 64, ROWS, 2.5, 100, 10);
		assert_int_equal(prompts_beside_decoding(&f, 150), 19);
		for (int i = 0; i < 3; i++)
			add(&f, 1, 20);
		step(&f);
		if (prompt > 0)
			add(&f, prompt, 1);

		f.step_us = 1e6;
		step(&f);
		assert_int_equal(f.batch.rows, prompt > 0 ? 22 : 3);
		f.step_us = 100;
		add(&f, 200, 1);
		step(&f);
		assert_in_range(f.batch.rows - f.batch.decoding, 14, 29);
		finish(&f);
	}
}

/* The one that decodes finds no page in the step that is to measure decoding: the prompt that has
 * them goes on. */
static void a_prompt_that_holds_the_pages_goes_on(void **state)
{
	(void)state;
	struct fixture f;
	begin_paced(&f, 3, 30, 2.5, 100, 10);
	add(&f, 90, 2);
	add(&f, 32, 4);
	step(&f);
	step(&f);
	step(&f);
	assert_int_equal(f.batch.rows, 30);
	assert_int_equal(f.scheduler.preempted, 1);
	finish(&f);
}

static void the_pace_follows_the_machine(void **state)
{
	(void)state;
	struct fixture f;
	begin_paced(&f, 64, ROWS, 2.5, 100, 10);
	assert_int_equal(prompts_beside_decoding(&f, 150), 19);

	f.row_us = 100; /* 400 without, 1,000 with 6 */
	assert_in_range(prompts_beside_decoding(&f, 400), 5, 6);
	f.row_us = 10;
	assert_in_range(prompts_beside_decoding(&f, 400), 18, 20);
	end(&f);
}

/* ---- readers that are slow ---- */

static void add_all(struct fixture *f, struct rt_sequence **sequences, uint32_t prompt, uint32_t max_tokens)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		sequences[i] = add(f, prompt, max_tokens);
}

static void pause_all(struct rt_sequence **sequences, bool paused)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		sequences[i]->paused = paused;
}

static void paused_sequences_leave_their_slots(void **state)
{
	(void)state;
	struct fixture f;
	struct rt_sequence *slow[SLOTS];
	begin(&f, 32, ROWS);
	add_all(&f, slow, 5, 20);
	step(&f);
	pause_all(slow, true);
	for (uint32_t i = 0; i < 2 * SLOTS; i++)
		add(&f, 7, 10);
	run(&f, 2 * SLOTS);

	/* nobody needed their pages */
	assert_int_equal(f.scheduler.paused.count, SLOTS);
	assert_int_equal(f.cache.free_slots_count, SLOTS);
	assert_int_equal(f.scheduler.preempted, 0);
	for (uint32_t i = 0; i < SLOTS; i++)
		assert_int_equal(slow[i]->computed, 5);

	pause_all(slow, false);
	step(&f);
	assert_int_equal(f.batch.rows, SLOTS); /* one token each, nothing again */
	run(&f, SLOTS);
	assert_int_equal(f.cache.free_count, 32);
	end(&f);
}

/* Before those that are younger, which wait with their pages until there is a slot again. */
static void they_come_back_in_the_order_of_age(void **state)
{
	(void)state;
	struct fixture f;
	struct rt_sequence *slow[SLOTS], *others[SLOTS];
	begin(&f, 32, ROWS);
	add_all(&f, slow, 5, 20);
	step(&f);
	pause_all(slow, true);
	add_all(&f, others, 7, 20);
	for (int i = 0; i < 3; i++)
		step(&f);
	slow[1]->paused = slow[2]->paused = false;
	step(&f);
	struct rt_sequence *const expected[SLOTS] = { slow[1], slow[2], others[0], others[1] };
	assert_int_equal(f.batch.spans_count, SLOTS);
	for (uint32_t i = 0; i < SLOTS; i++)
		assert_ptr_equal(f.batch.spans[i].sequence, expected[i]);
	assert_int_equal(f.scheduler.waiting.count, 2);
	assert_int_equal(others[3]->computed, 9);

	pause_all(slow, false);
	run(&f, 2 * SLOTS);
	assert_int_equal(f.scheduler.preempted, 0);
	assert_int_equal(f.cache.free_count, 32);
	end(&f);
}

/* Nor do they keep the pages from a newcomer. */
static void paused_sequences_give_up_their_pages(void **state)
{
	(void)state;
	struct fixture f;
	struct rt_sequence *slow[SLOTS];
	begin(&f, 8, ROWS);
	add_all(&f, slow, 40, 20); /* two pages each: all */
	while (slow[SLOTS - 1]->computed < 40)
		step(&f);
	assert_int_equal(f.cache.free_count, 0);
	pause_all(slow, true);
	add(&f, 100, 10);
	run(&f, 1);
	assert_int_equal(f.scheduler.preempted, 2); /* the youngest ones' */
	assert_int_equal(slow[1]->computed >= 40, true);
	assert_int_equal(slow[2]->computed + slow[3]->computed, 0);

	pause_all(slow, false);
	run(&f, SLOTS);
	assert_int_equal(f.cache.free_count, 8);
	end(&f);
}

/* Anybody may pause and resume at any time, with few pages: everybody ends. */
static void random_pauses(void **state)
{
	(void)state;
	struct cad_random random = { 7 };
	print_message("seed %llu\n", (unsigned long long)random.state);
	struct fixture f;
	begin(&f, 14, 32);
	uint32_t submitted = 0, ended = 0, steps = 0;

	while (ended < 200) {
		if (submitted < 200 && cad_random_below(&random, 3) == 0) {
			add(&f, 1 + (uint32_t)cad_random_below(&random, 200),
				1 + (uint32_t)cad_random_below(&random, 150));
			submitted++;
		}
		struct rt_sequence_list *lists[] = { &f.scheduler.running, &f.scheduler.waiting, &f.scheduler.paused };
		for (size_t i = 0; i < 3; i++)
			for (struct rt_sequence *s = lists[i]->first; s; s = s->after)
				if (cad_random_below(&random, 4) == 0)
					s->paused = cad_random_below(&random, 3) == 0;
		ended += step(&f);
		assert_true(f.scheduler.running.count <= SLOTS);
		assert_int_equal(f.cache.free_slots_count, SLOTS - f.scheduler.running.count);
		assert_true(++steps < 100000);
	}

	assert_true(f.scheduler.preempted > 0);
	assert_int_equal(f.cache.free_count, 14);
	end(&f);
}

static void too_small_a_cache_is_refused_with_a_sentence(void **state)
{
	(void)state;
	struct cad_error error;
	struct rt_kv_cache cache;
	struct cad_layer_spec layers[2] = { 0 };
	struct cad_model_spec spec = {
		.layers_count = 2,
		.layers = layers,
		.attentions_count = 1,
		.attention = { .heads = 1, .kv_heads = 1, .head_size = 4, .value_size = 4 },
	};
	struct kn_device *device;
	struct kn_queue *queue;
	must(kn_device_open(&(struct kn_device_options){ .isa = KN_ISA_REF }, &device, &error), &error);
	assert_int_equal(device->ops->queue_create(device, 1, &queue), CAD_OK);
	assert_int_equal(rt_kv_cache_init(&cache, device, queue, &spec, CAD_KV_F32, 1000, SLOTS, POSITIONS, &error),
		CAD_ERR_MEMORY);
	assert_non_null(strstr(error.text, "--kv-memory"));
	assert_non_null(strstr(error.text, "at least 4096, for 2 pages of 32 tokens"));

	/* one page is enough where no sequence can fill it, and asked for where it is */
	must(rt_kv_cache_init(&cache, device, queue, &spec, CAD_KV_F32, 2048, 1, 32, &error), &error);
	assert_int_equal(cache.pages, 1);
	rt_kv_cache_fini(&cache);
	assert_int_equal(
		rt_kv_cache_init(&cache, device, queue, &spec, CAD_KV_F32, 2047, 1, 32, &error), CAD_ERR_MEMORY);
	assert_non_null(strstr(error.text, "at least 2048, for 1 page of 32 tokens"));

	/* half the bytes hold as many keys; so do a quarter and two scales for each */
	must(rt_kv_cache_init(&cache, device, queue, &spec, CAD_KV_BF16, 1024, 1, 32, &error), &error);
	assert_int_equal(cache.pages, 1);
	rt_kv_cache_fini(&cache);
	must(rt_kv_cache_init(&cache, device, queue, &spec, CAD_KV_INT8, 512 + 2 * 32 * 8, 1, 32, &error), &error);
	assert_int_equal(cache.pages, 1);
	rt_kv_cache_fini(&cache);
	device->ops->queue_destroy(queue);
	device->ops->destroy(device);
}

/* Their keys have other sizes: a page has room for those of every layer, and no more. */
static void layers_differ_and_share_pages(void **state)
{
	(void)state;
	struct cad_error error;
	struct rt_kv_cache cache;
	struct cad_layer_spec layers[] = { { .attention_at = 1 }, { 0 }, { .attention_at = 1 } };
	struct cad_model_spec spec = {
		.layers_count = 3,
		.layers = layers,
		.attentions_count = 3,
		.attentions = {
			{ .heads = 4, .kv_heads = 1, .head_size = 6, .value_size = 4 },
			{ .heads = 4, .kv_heads = 2, .head_size = 4, .value_size = 4 },
			{ .heads = 4, .kv_heads = 4, .head_size = 8, .value_size = 8 }, /* of no layer */
		},
	};
	const uint64_t floats = 10 + 2 * 2 * 8, page = floats * 32 * sizeof(float);
	struct kn_device *device;
	struct kn_queue *queue;

	must(kn_device_open(&(struct kn_device_options){ .isa = KN_ISA_REF }, &device, &error), &error);
	assert_int_equal(device->ops->queue_create(device, 1, &queue), CAD_OK);
	assert_int_equal(kn_kv_page_bytes(device, &spec, CAD_KV_F32), page);
	must(rt_kv_cache_init(&cache, device, queue, &spec, CAD_KV_F32, 3 * page, SLOTS, POSITIONS, &error), &error);
	assert_int_equal(cache.pages, 3);
	assert_int_equal(cache.kvs[0].layers, 1);
	assert_int_equal(cache.kvs[0].key_size, 6);
	assert_int_equal(cache.kvs[0].value_size, 4);
	assert_int_equal(cache.kvs[1].layers, 2);
	assert_int_equal(cache.kvs[1].kv_heads, 2);
	assert_int_equal(cache.kvs[0].bytes + cache.kvs[1].bytes, 3 * page);
	assert_int_equal(cache.kvs[0].pages, cache.kvs[1].pages);
	static const struct rt_kv_place places[] = { { 1, 0 }, { 0, 0 }, { 1, 1 } };
	assert_memory_equal(cache.places, places, sizeof places);
	rt_kv_cache_fini(&cache);
	device->ops->queue_destroy(queue);
	device->ops->destroy(device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prompt_goes_in_chunks),
		cmocka_unit_test(outgrown_rotation_is_computed_again),
		cmocka_unit_test(decode_does_not_starve),
		cmocka_unit_test(random_load_on_few_pages),
		cmocka_unit_test(prompts_stretch_a_step_so_far),
		cmocka_unit_test(the_first_prompt_is_careful),
		cmocka_unit_test(chunks_limit_one_prompt),
		cmocka_unit_test(a_step_that_was_held_up_counts_little),
		cmocka_unit_test(a_prompt_that_holds_the_pages_goes_on),
		cmocka_unit_test(the_pace_follows_the_machine),
		cmocka_unit_test(paused_sequences_leave_their_slots),
		cmocka_unit_test(they_come_back_in_the_order_of_age),
		cmocka_unit_test(paused_sequences_give_up_their_pages),
		cmocka_unit_test(random_pauses),
		cmocka_unit_test(too_small_a_cache_is_refused_with_a_sentence),
		cmocka_unit_test(layers_differ_and_share_pages),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
