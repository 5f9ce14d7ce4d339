/* SPDX-License-Identifier: Apache-2.0 */
/* The router's engine with experts in the same process: what batching, chunks, micro-batches and
 * lost pages must not change, limits, ends of all kinds, damaged weights. */
#include "common/base/log.h"
#include "embedded/embedded.h"
#include "tests/support/golden_copy.h"
#include "tests/support/must.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GOLDEN CADRE_SOURCE_DIR "/tests/golden/"
enum { RECORDS_MAX = 40, TOKENS_MAX = 64 };

struct record {
	uint64_t id;
	int32_t tokens[TOKENS_MAX];
	uint32_t count, last_routed;
	bool ended, failed, not_text, last; /* not_text: a token that ends the answer came */
	enum cad_status status;
	enum rt_finish_reason reason;
	uint8_t digest[16], digests[TOKENS_MAX][16];
	struct rt_usage usage;
	char text[CAD_ERROR_TEXT_BYTES];
};

static void on_event(void *user, const struct rt_event *event)
{
	(void)user;
	struct record *r = event->context;
	assert_false(r->ended);
	r->usage = event->usage;
	memcpy(r->digest, event->digest, sizeof r->digest);
	switch (event->kind) {
	case RT_EVENT_TOKEN:
		if (r->count < TOKENS_MAX) {
			r->tokens[r->count] = event->token;
			memcpy(r->digests[r->count], event->digest, sizeof event->digest);
		}
		r->count++;
		assert_false(r->last); /* the last token, if any */
		r->not_text = !event->is_text;
		r->last = event->is_last;
		assert_true(r->last || !r->not_text);
		break;
	case RT_EVENT_ROUTING:
		assert_int_equal(event->first_position, r->last_routed); /* every position once, in order */
		r->last_routed += event->rows;
		break;
	case RT_EVENT_LOGITS:
		for (uint32_t i = 0; i < event->rows; i++)
			for (uint32_t token = 0; token < event->logits_stride; token++)
				assert_true(isfinite(event->logits[i * event->logits_stride + token]));
		break;
	case RT_EVENT_FINISHED:
		assert_true(r->last);
		r->ended = true;
		r->reason = event->reason;
		break;
	case RT_EVENT_FAILED:
		r->ended = r->failed = true;
		r->status = event->status;
		snprintf(r->text, sizeof r->text, "%s", event->text);
		break;
	}
}

static struct em_embedded *open_in_profile(
	enum cad_profile profile, const char *model, struct rt_engine_options router, uint32_t nodes)
{
	struct em_embedded *em;
	struct cad_error error = { .text = "" };

	router.on_event = on_event;
	struct em_options options = {
		.model = model,
		.threads = 1,
		.settings = { .profile = profile, .router_profile = CAD_PROFILE_SAME },
		.nodes = nodes,
		.placement_seed = nodes > 1 ? 3 : 0,
		.router = router,
	};
	enum cad_status status = em_create(&options, &em, &error);
	if (status != CAD_OK)
		print_error("%s\n", error.text);
	assert_int_equal(status, CAD_OK);

	return em;
}

static struct em_embedded *open_engine(const char *model, struct rt_engine_options router, uint32_t nodes)
{
	return open_in_profile(CAD_PROFILE_F32, model, router, nodes);
}

static struct rt_request request(struct record *record, const int32_t *prompt, size_t count, uint32_t max_tokens)
{
	*record = (struct record){ 0 };
	return (struct rt_request){
		.prompt = prompt,
		.prompt_count = count,
		.max_tokens = max_tokens,
		.ignore_eos = true,
		.context = record,
	};
}

static void submit(struct em_embedded *em, struct record *record, const struct rt_request *wanted)
{
	struct cad_error error;
	must(rt_engine_submit(em_router(em), wanted, &record->id, &error), &error);
}

static void run_until_ended(struct em_embedded *em, const struct record *records, size_t count)
{
	for (size_t i = 0, turns = 0; i < count; i++)
		for (; !records[i].ended; turns++) {
			assert_true(turns < 100000);
			rt_engine_turn(em_router(em), 0);
		}
}

static void fill_prompt(int32_t *prompt, size_t count, uint32_t seed)
{
	for (size_t i = 0; i < count; i++)
		prompt[i] = (int32_t)((i * 37 + seed * 101 + 11) % 440);
}

/* The digest of one prompt, however the engine is set up and whoever else is there. */
static void same_bits_in(enum cad_profile profile)
{
	static const char *const models[] = { GOLDEN "qwen3moe-a/model", GOLDEN "mixtral-b/model",
		GOLDEN "olmoe-b/model", GOLDEN "llama-a/model" };
	int32_t prompt[50], other[50];
	fill_prompt(prompt, 50, 1);
	for (int32_t *p = prompt; p < prompt + 50; p++)
		*p %= 380;
	for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
		const struct rt_engine_options settings[] = {
			{
				.step_tokens_max = 512,
			},
			{
				.step_tokens_max = 512,
				.chunk_tokens_max = 1,
			},
			{
				.step_tokens_max = 64,
				.chunk_tokens_max = 7,
			},
			{
				.step_tokens_max = 33,
			},
			{
				.micro_batches = 3,
			},
			{
				.sequences_max = 3,
				.queue_max = 40,
				.kv_bytes = 1 << 20,
			},
		};
		uint8_t digest[16];
		for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
			struct em_embedded *em =
				open_in_profile(profile, models[m], settings[i], 1 + (uint32_t)(i % 3));
			struct record records[12];
			for (size_t r = 0; r < 12; r++) {
				bool mine = r == 7 || i == 0;
				fill_prompt(other, 50, (uint32_t)(r + 2));
				for (int32_t *p = other; p < other + 50; p++)
					*p %= 380;
				struct rt_request wanted = request(
					&records[r], mine ? prompt : other, mine ? 50 : 5 + 4 * r, mine ? 9 : 20);
				submit(em, &records[r], &wanted);
				if (i == 0)
					break; /* alone: what the others are compared with */
			}
			run_until_ended(em, records, i == 0 ? 1 : 12);
			const struct record *mine = &records[i == 0 ? 0 : 7];
			assert_false(mine->failed);
			if (i == 0)
				memcpy(digest, mine->digest, sizeof digest);
			assert_memory_equal(mine->digest, digest, sizeof digest);
			em_destroy(em);
		}
	}
}

static void same_bits_in_every_setting(void **state)
{
	(void)state;
	for (enum cad_profile profile = CAD_PROFILE_F32; profile <= CAD_PROFILE_INT4; profile++)
		same_bits_in(profile);
}

static void limits_get_a_sentence(void **state)
{
	(void)state;
	struct em_embedded *em = open_engine(GOLDEN "olmoe-a/model",
		(struct rt_engine_options){
			.sequences_max = 1,
			.queue_max = 1,
			.kv_bytes = 1 << 20,
		},
		1);
	struct record records[4];
	struct cad_error error;
	uint64_t id;
	int32_t prompt[4] = { 1, 2, 3, 4 }, bad[2] = { 1, 512 };
	struct rt_request wanted = request(&records[0], bad, 2, 4);
	assert_int_equal(rt_engine_submit(em_router(em), &wanted, &id, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "512"));
	wanted = request(&records[0], prompt, 0, 4);
	assert_int_equal(rt_engine_submit(em_router(em), &wanted, &id, &error), CAD_ERR_INVALID);
	int32_t *much = calloc(rt_engine_context_max(em_router(em)), sizeof *much);
	wanted = request(&records[0], much, rt_engine_context_max(em_router(em)), 4);
	assert_int_equal(rt_engine_submit(em_router(em), &wanted, &id, &error), CAD_ERR_INVALID);
	wanted = request(&records[0], prompt, 4, 4);
	wanted.received = much;
	wanted.received_count = rt_engine_context_max(em_router(em)) - 4;
	assert_int_equal(rt_engine_submit(em_router(em), &wanted, &id, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "the prompt has 4 tokens and the answer"));
	free(much);
	wanted.received = bad;
	wanted.received_count = 2;
	assert_int_equal(rt_engine_submit(em_router(em), &wanted, &id, &error), CAD_ERR_INVALID);
	assert_string_equal(error.text, "token 1 of the answer has id 512, but ids go from 0 to 511");
	for (int i = 0; i < 2; i++) {
		wanted = request(&records[i], prompt, 4, 4);
		submit(em, &records[i], &wanted);
	}

	wanted = request(&records[2], prompt, 4, 4);
	assert_int_equal(rt_engine_submit(em_router(em), &wanted, &id, &error), CAD_ERR_EXHAUSTED);
	assert_non_null(strstr(error.text, "2"));
	run_until_ended(em, records, 2);
	submit(em, &records[2], &wanted); /* there is room again */
	run_until_ended(em, records, 3);
	em_destroy(em);
}

static void none_may_wait(void **state)
{
	(void)state;
	struct em_embedded *em = open_engine(
		GOLDEN "olmoe-a/model", (struct rt_engine_options){ .sequences_max = 1, .queue_max = 0 }, 1);
	struct record running, refused;
	struct cad_error error;
	uint64_t id;
	int32_t prompt[4] = { 1, 2, 3, 4 };
	struct rt_request wanted = request(&running, prompt, 4, 4);
	submit(em, &running, &wanted);

	wanted = request(&refused, prompt, 4, 4);
	assert_int_equal(rt_engine_submit(em_router(em), &wanted, &id, &error), CAD_ERR_EXHAUSTED);
	run_until_ended(em, &running, 1);
	submit(em, &refused, &wanted);
	run_until_ended(em, &refused, 1);
	em_destroy(em);
}

static void ends_of_all_kinds(void **state)
{
	(void)state;
	struct em_embedded *em = open_engine(GOLDEN "qwen3moe-a/model",
		(struct rt_engine_options){
			.kv_bytes = 4 << 20,
		},
		2);
	struct rt_engine *engine = em_router(em);
	struct record free_run, stopped, cancelled, late, paused;
	int32_t prompt[6] = { 9, 8, 7, 6, 5, 4 };
	struct rt_request wanted = request(&free_run, prompt, 6, 20);
	wanted.want_routing = true;
	submit(em, &free_run, &wanted);
	run_until_ended(em, &free_run, 1);
	assert_int_equal(free_run.count, 20);
	assert_int_equal(free_run.reason, RT_FINISH_LENGTH);
	assert_int_equal(free_run.last_routed, 6 + 20 - 1);
	assert_int_equal(free_run.usage.generated_tokens, 20);
	assert_true(free_run.usage.nodes_touched >= free_run.usage.routed_rows && free_run.usage.routed_rows == 25 * 3);

	int32_t stop_ids[1] = { free_run.tokens[5] };
	wanted = request(&stopped, prompt, 6, 20);
	wanted.stop_ids = stop_ids;
	wanted.stop_ids_count = 1;
	submit(em, &stopped, &wanted);
	wanted = request(&cancelled, prompt, 6, 0);
	submit(em, &cancelled, &wanted);
	wanted = request(&late, prompt, 6, 0);
	wanted.deadline_ns = 1; /* long ago */
	submit(em, &late, &wanted);
	wanted = request(&paused, prompt, 6, 20);
	submit(em, &paused, &wanted);
	rt_engine_pause(engine, paused.id, true);
	while (cancelled.count < 3)
		rt_engine_turn(engine, 0);
	rt_engine_cancel(engine, cancelled.id);
	rt_engine_cancel(engine, 123456); /* nobody: ignored */
	while (!stopped.ended || !cancelled.ended || !late.ended)
		rt_engine_turn(engine, 0);
	assert_int_equal(stopped.reason, RT_FINISH_STOP);
	assert_memory_equal(stopped.tokens, free_run.tokens, stopped.count * sizeof *stopped.tokens);
	assert_int_equal(stopped.tokens[stopped.count - 1], stop_ids[0]);
	assert_true(stopped.not_text && !free_run.not_text);
	assert_int_equal(cancelled.status, CAD_ERR_CANCELLED);
	assert_int_equal(late.status, CAD_ERR_DEADLINE);
	assert_int_equal(paused.count, 0);
	rt_engine_pause(engine, paused.id, false);
	run_until_ended(em, &paused, 1);
	assert_memory_equal(paused.digest, free_run.digest, 16);
	struct rt_engine_stats stats;
	rt_engine_turn(engine, 0);
	rt_engine_stats(engine, &stats);
	assert_int_equal(stats.running + stats.waiting, 0);
	assert_int_equal(stats.kv_pages_free, stats.kv_pages);
	assert_int_equal(stats.finished, 3);
	assert_int_equal(stats.failed, 1);
	assert_int_equal(stats.cancelled, 1);
	em_destroy(em);
}

/* ---- answers that go on elsewhere ---- */

enum { ANSWER = 24, PROMPT = 20 };

/* After `received` tokens of `whole`, as another engine would go on. */
static void go_on(struct em_embedded *em, const struct rt_request *first, const struct record *whole, uint32_t received,
	const uint8_t *digest, struct record *rest)
{
	*rest = (struct record){ .last_routed = PROMPT + received - 1 };
	struct rt_request wanted = *first;
	wanted.context = rest;
	wanted.received = whole->tokens;
	wanted.received_count = received;
	wanted.max_tokens = ANSWER - received;
	memcpy(wanted.received_digest, digest, sizeof wanted.received_digest);
	submit(em, rest, &wanted);
}

/* At every joint, sampled and greedy, in chunks, with others beside it and with too few pages: the
 * tokens that were missing, the digest and the usage of the whole answer, each position's routing
 * once. */
static void an_answer_goes_on_elsewhere(void **state)
{
	(void)state;
	static const struct rt_engine_options settings[] = { { .chunk_tokens_max = 7 }, { .kv_bytes = 1 << 19 } };
	int32_t prompt[PROMPT];
	fill_prompt(prompt, PROMPT, 5);
	for (size_t i = 0; i < 4; i++) {
		struct em_embedded *em = open_engine(GOLDEN "qwen3moe-a/model", (struct rt_engine_options){ 0 }, 1),
				   *other = open_engine(GOLDEN "qwen3moe-a/model", settings[i / 2], 2);
		struct record whole, rest[ANSWER];
		struct rt_request first = request(&whole, prompt, PROMPT, ANSWER);
		first.want_routing = true;
		first.sampling = (struct kn_sampling){ .temperature = i % 2 ? 1.0f : 0, .seed = 9 };
		submit(em, &whole, &first);
		run_until_ended(em, &whole, 1);
		assert_int_equal(whole.count, ANSWER);

		for (uint32_t received = 1; received < ANSWER; received++)
			go_on(other, &first, &whole, received, whole.digests[received - 1], &rest[received]);
		run_until_ended(other, rest + 1, ANSWER - 1);
		struct rt_engine_stats stats;
		rt_engine_stats(em_router(other), &stats);
		for (uint32_t received = 1; received < ANSWER; received++) {
			const struct record *r = &rest[received];
			assert_false(r->failed);
			assert_int_equal(r->count, ANSWER - received);
			assert_memory_equal(r->tokens, whole.tokens + received, r->count * sizeof *r->tokens);
			assert_memory_equal(r->digest, whole.digest, sizeof r->digest);
			assert_int_equal(r->last_routed, whole.last_routed);
			assert_int_equal(r->usage.prompt_tokens, PROMPT);
			assert_int_equal(r->usage.generated_tokens, ANSWER);
			assert_true(r->usage.first_token_us > 0);
			if (i < 2) /* nothing was computed twice */
				assert_int_equal(r->usage.routed_rows, whole.usage.routed_rows);
		}
		em_destroy(other);
		em_destroy(em);
	}
}

enum { SLOW = 64, SLOW_TOKENS = 40 };

static void submit_slow(struct em_embedded *em, struct record *records, int32_t (*prompts)[8])
{
	for (uint32_t i = 0; i < SLOW; i++) {
		fill_prompt(prompts[i], 8, i);
		struct rt_request wanted = request(&records[i], prompts[i], 8, SLOW_TOKENS);
		submit(em, &records[i], &wanted);
	}
}

/* Every slot's reader has stopped reading: one more request runs to its end all the same. When they
 * all go on, all go on at once, and with the same bits. */
static void sequences_that_pause_stop_nobody(void **state)
{
	(void)state;
	static struct record undisturbed[SLOW], slow[SLOW], other[SLOW];
	int32_t prompts[SLOW][8];
	struct rt_engine_stats stats;
	struct em_embedded *em = open_engine(
		GOLDEN "olmoe-a/model", (struct rt_engine_options){ .sequences_max = SLOW, .queue_max = SLOW }, 2);
	submit_slow(em, undisturbed, prompts);
	run_until_ended(em, undisturbed, SLOW);

	submit_slow(em, slow, prompts);
	while (slow[SLOW - 1].count < 3)
		rt_engine_turn(em_router(em), 0);
	for (uint32_t i = 0; i < SLOW; i++)
		rt_engine_pause(em_router(em), slow[i].id, true);
	uint32_t count = slow[0].count;
	submit_slow(em, other, prompts);
	run_until_ended(em, other, SLOW);
	rt_engine_turn(em_router(em), 0);
	rt_engine_stats(em_router(em), &stats);
	assert_int_equal(stats.paused, SLOW);
	assert_int_equal(stats.running + stats.waiting, 0);
	assert_int_equal(slow[0].count, count);

	for (uint32_t i = 0; i < SLOW; i++)
		rt_engine_pause(em_router(em), slow[i].id, false);
	for (int turns = 0; turns < 5; turns++)
		rt_engine_turn(em_router(em), 0);
	for (uint32_t i = 0; i < SLOW; i++)
		assert_int_equal(slow[i].count, slow[0].count);
	assert_int_equal(slow[0].count, count + 5);
	run_until_ended(em, slow, SLOW);
	for (uint32_t i = 0; i < SLOW; i++) {
		assert_int_equal(slow[i].usage.recomputed_tokens, 0);
		assert_memory_equal(slow[i].digest, undisturbed[i].digest, 16);
		assert_memory_equal(other[i].digest, undisturbed[i].digest, 16);
	}
	em_destroy(em);
}

/* Live requests at the end are told. */
/* It is computed like everything, with the same bits, and counts as nobody's. */
static void a_trial_is_no_request(void **state)
{
	(void)state;
	struct em_embedded *em =
		open_engine(GOLDEN "qwen3moe-a/model", (struct rt_engine_options){ .kv_bytes = 4 << 20 }, 2);
	struct rt_engine *engine = em_router(em);
	struct record trial, late, asked;
	struct rt_engine_stats stats;
	const int32_t prompt[1] = { 3 };

	assert_int_equal(rt_engine_advanced_ns(engine), 0);
	struct rt_request wanted = request(&late, prompt, 1, 1);
	wanted.trial = true;
	wanted.deadline_ns = 1; /* long ago */
	submit(em, &late, &wanted);
	run_until_ended(em, &late, 1);
	assert_int_equal(late.status, CAD_ERR_DEADLINE);
	assert_int_equal(rt_engine_advanced_ns(engine), 0); /* nothing came out */

	uint64_t before = cad_clock_now_ns(rt_engine_clock(engine));
	wanted = request(&trial, prompt, 1, 1);
	wanted.trial = true;
	submit(em, &trial, &wanted);
	run_until_ended(em, &trial, 1);
	assert_int_equal(trial.count, 1);
	assert_true(rt_engine_advanced_ns(engine) >= before);
	rt_engine_stats(engine, &stats);
	assert_int_equal(stats.requests + stats.finished + stats.failed + stats.cancelled, 0);
	assert_int_equal(stats.tokens_prefilled, 1);

	wanted = request(&asked, prompt, 1, 1);
	submit(em, &asked, &wanted);
	run_until_ended(em, &asked, 1);
	assert_memory_equal(asked.digest, trial.digest, sizeof trial.digest);
	rt_engine_stats(engine, &stats);
	assert_int_equal(stats.requests, 1);
	assert_int_equal(stats.finished, 1);
	em_destroy(em);
}

static void destroy_ends_what_is_left(void **state)
{
	(void)state;
	struct em_embedded *em = open_engine(GOLDEN "olmoe-a/model", (struct rt_engine_options){ 0 }, 1);
	struct record running, waiting, paused;
	int32_t prompt[3] = { 1, 2, 3 };
	struct rt_request wanted = request(&running, prompt, 3, 0);
	submit(em, &running, &wanted);
	wanted = request(&paused, prompt, 3, 0);
	submit(em, &paused, &wanted);
	rt_engine_pause(em_router(em), paused.id, true);
	rt_engine_turn(em_router(em), 0);
	wanted = request(&waiting, prompt, 3, 0);
	submit(em, &waiting, &wanted);
	em_destroy(em);
	assert_int_equal(running.status, CAD_ERR_CANCELLED);
	assert_int_equal(waiting.status, CAD_ERR_CANCELLED);
	assert_int_equal(paused.status, CAD_ERR_CANCELLED);
}

enum bf16 { BF16_NAN = 0x7fc0, BF16_INFINITE = 0x7f80, BF16_MINUS_INFINITE = 0xff80, BF16_LARGE = 0x7f60 };

/* Writes a value to the elements [first, first + count) of a tensor, which is bf16; count 0: to all. */
static void damage(const struct golden_copy *copy, const char *tensor, size_t first, size_t count, enum bf16 value)
{
	FILE *file = fopen(golden_copy_path(copy, "model.safetensors"), "r+b");

	assert_non_null(file);
	uint64_t header_bytes;
	assert_int_equal(fread(&header_bytes, sizeof header_bytes, 1, file), 1);
	char *header = malloc(header_bytes + 1);
	assert_int_equal(fread(header, 1, header_bytes, file), header_bytes);
	header[header_bytes] = 0;
	const char *entry = strstr(header, tensor);
	assert_non_null(entry);
	unsigned long begin, end;
	assert_int_equal(sscanf(strstr(entry, "data_offsets"), "data_offsets\":[%lu,%lu", &begin, &end), 2);
	begin += 2 * first;
	end = count > 0 ? begin + 2 * count : end;
	uint16_t bits = (uint16_t)value;
	assert_int_equal(fseek(file, (long)(8 + header_bytes + begin), SEEK_SET), 0);
	for (unsigned long at = begin; at < end; at += 2)
		assert_int_equal(fwrite(&bits, 2, 1, file), 1);
	fclose(file);
	free(header);
}

/* Requests fail with a sentence that has the word, whatever they want, and the engine goes on. */
static void all_fail(enum cad_profile profile, const struct golden_copy *copy, const char *word)
{
	struct em_embedded *em =
		open_in_profile(profile, copy->directory, (struct rt_engine_options){ .keep_logits = true }, 2);
	struct record record;
	int32_t prompt[40];

	fill_prompt(prompt, 40, 2);
	for (int i = 0; i < 4; i++) {
		struct rt_request wanted = request(&record, prompt, 40, 4);
		wanted.sampling = (struct kn_sampling){ .temperature = (float)(i % 2), .seed = 3 };
		wanted.want_logits = i > 1;
		submit(em, &record, &wanted);
		run_until_ended(em, &record, 1);
		assert_true(record.failed);
		assert_int_equal(record.status, CAD_ERR_NOT_FINITE);
		assert_non_null(strstr(record.text, word));
		assert_int_equal(record.count, 0);
	}

	em_destroy(em);
}

/* In every profile; but threads do the same in each, and ThreadSanitizer takes seconds for one. */
static void damaged_weights(const char *tensor, size_t first, size_t count, enum bf16 value, const char *word)
{
	static const enum cad_profile profiles[] = {
		CAD_PROFILE_F32,
#ifndef __SANITIZE_THREAD__
		CAD_PROFILE_BF16,
		CAD_PROFILE_INT8,
		CAD_PROFILE_INT4,
#endif
	};
	struct golden_copy copy = golden_copy_create("olmoe-a");

	damage(&copy, tensor, first, count, value);
	for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++)
		all_fail(profiles[i], &copy, word);
	golden_copy_remove(&copy);
}

static void nan_in_the_gate(void **state)
{
	(void)state;
	damaged_weights("\"model.layers.2.mlp.gate.weight\"", 0, 0, BF16_NAN, "gate of layer 2");
}

static void nan_in_the_head(void **state)
{
	(void)state;
	damaged_weights("\"lm_head.weight\"", 0, 0, BF16_NAN, "logits");
}

/* Of all the logits, one token's, which nobody would choose. */
static void one_weight_of_the_head(void **state)
{
	(void)state;
	damaged_weights("\"lm_head.weight\"", 511 * 64 + 63, 1, BF16_NAN, "logits");
	damaged_weights("\"lm_head.weight\"", 5 * 64, 1, BF16_INFINITE, "logits");
	damaged_weights("\"lm_head.weight\"", 300 * 64 + 7, 1, BF16_MINUS_INFINITE, "logits");
}

/* Expert 3 is not among those that a start looks at. */
static void one_weight_of_an_expert(void **state)
{
	(void)state;
	damaged_weights("\"model.layers.1.mlp.experts.3.gate_proj.weight\"", 70, 1, BF16_NAN, "expert 3");
	damaged_weights("\"model.layers.2.mlp.experts.3.up_proj.weight\"", 5, 1, BF16_INFINITE, "expert 3");
	damaged_weights("\"model.layers.3.mlp.experts.3.down_proj.weight\"", 9, 1, BF16_MINUS_INFINITE, "expert 3");
}

/* A weight so large that one logit is infinite for some rows: who has such a row fails, and whoever
 * is in the same batch has the answer that it has alone. */
static void only_who_meets_it_fails(void **state)
{
	(void)state;
	enum { PROMPTS = 24, LENGTH = 6 };
	struct golden_copy copy = golden_copy_create("olmoe-a");
	struct record alone[PROMPTS], together[PROMPTS];
	int32_t prompts[PROMPTS][LENGTH];
	unsigned failed = 0;

	damage(&copy, "\"lm_head.weight\"", 200 * 64 + 11, 1, BF16_LARGE);
	struct em_embedded *em = open_engine(copy.directory, (struct rt_engine_options){ 0 }, 1);
	for (uint32_t i = 0; i < PROMPTS; i++) {
		fill_prompt(prompts[i], LENGTH, i);
		struct rt_request wanted = request(&alone[i], prompts[i], LENGTH, 1);
		submit(em, &alone[i], &wanted);
		run_until_ended(em, &alone[i], 1);
		failed += alone[i].failed;
	}
	assert_in_range(failed, 1, PROMPTS - 1);

	for (uint32_t i = 0; i < PROMPTS; i++) {
		struct rt_request wanted = request(&together[i], prompts[i], LENGTH, 1);
		submit(em, &together[i], &wanted);
	}
	run_until_ended(em, together, PROMPTS);
	for (uint32_t i = 0; i < PROMPTS; i++) {
		assert_int_equal(together[i].failed, alone[i].failed);
		assert_int_equal(together[i].count, alone[i].failed ? 0 : 1);
		assert_memory_equal(together[i].digest, alone[i].digest, sizeof alone[i].digest);
	}

	em_destroy(em);
	golden_copy_remove(&copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_bits_in_every_setting),
		cmocka_unit_test(limits_get_a_sentence),
		cmocka_unit_test(none_may_wait),
		cmocka_unit_test(ends_of_all_kinds),
		cmocka_unit_test(an_answer_goes_on_elsewhere),
		cmocka_unit_test(sequences_that_pause_stop_nobody),
		cmocka_unit_test(a_trial_is_no_request),
		cmocka_unit_test(destroy_ends_what_is_left),
		cmocka_unit_test(nan_in_the_gate),
		cmocka_unit_test(nan_in_the_head),
		cmocka_unit_test(one_weight_of_the_head),
		cmocka_unit_test(one_weight_of_an_expert),
		cmocka_unit_test(only_who_meets_it_fails),
	};
	cad_log_setup(CAD_LOG_WARN, CAD_LOG_LOGFMT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
