/* SPDX-License-Identifier: Apache-2.0 */
/* What a router samples: every token of a calm second, a fair part of a busy one, and never
 * more than there is room for. */
#include "common/base/log.h"
#include "embedded/embedded.h"
#include "tests/support/must.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 3, TOPK = 2, STRIDE = 4 };

/* The choice of a token is made of its number. */
static void put(struct rt_telemetry *telemetry, uint64_t request, uint32_t position)
{
	int32_t ids[LAYERS * STRIDE * TOPK];
	for (uint32_t layer = 0; layer < LAYERS; layer++) {
		ids[layer * STRIDE * TOPK] = (int32_t)((request + position + layer) % 1000);
		ids[layer * STRIDE * TOPK + 1] = -1;
	}
	rt_telemetry_token(telemetry, request, position, ids, STRIDE);
}

static uint64_t waiting(const struct rt_telemetry *telemetry)
{
	return atomic_load(&telemetry->written) - atomic_load(&telemetry->taken);
}

static void empty(struct rt_telemetry *telemetry) { atomic_store(&telemetry->taken, atomic_load(&telemetry->written)); }

static void test_tokens_come_whole_and_in_order(void **state)
{
	struct rt_telemetry telemetry;

	(void)state;
	assert_int_equal(rt_telemetry_init(&telemetry, LAYERS, TOPK), CAD_OK);
	put(&telemetry, 7, 30);
	assert_true(rt_telemetry_traffic(&telemetry, (const char[CAD_MAP_ID_BYTES]){ "e0" }, 5, 6));
	put(&telemetry, 8, 0);
	assert_int_equal(waiting(&telemetry), 3);

	const struct rt_telemetry_record *record = rt_telemetry_at(&telemetry, 0);
	assert_int_equal(record->kind, RT_TELEMETRY_TOKEN);
	assert_int_equal(record->request, 7);
	assert_true(record->share == 1);
	for (uint32_t layer = 0; layer < LAYERS; layer++) {
		assert_int_equal(rt_telemetry_ids(record)[layer * TOPK], 37 + layer);
		assert_int_equal(rt_telemetry_ids(record)[layer * TOPK + 1], 0xffff);
	}

	record = rt_telemetry_at(&telemetry, 1);
	assert_int_equal(record->kind, RT_TELEMETRY_TRAFFIC);
	assert_string_equal(record->traffic.node, "e0");
	assert_int_equal(record->traffic.received, 6);
	assert_int_equal(rt_telemetry_at(&telemetry, 2)->request, 8);
	rt_telemetry_fini(&telemetry);
}

static void test_a_full_ring_loses_and_counts(void **state)
{
	struct rt_telemetry telemetry;

	(void)state;
	assert_int_equal(rt_telemetry_init(&telemetry, LAYERS, TOPK), CAD_OK);
	for (uint32_t i = 0; i < telemetry.capacity + 10; i++)
		put(&telemetry, 1, i);
	assert_int_equal(waiting(&telemetry), telemetry.capacity);
	assert_int_equal(telemetry.lost, 10);
	assert_int_equal(telemetry.tokens, telemetry.capacity + 10);
	assert_int_equal(telemetry.passed, 0);
	assert_false(rt_telemetry_traffic(&telemetry, (const char[CAD_MAP_ID_BYTES]){ "e0" }, 1, 1));

	empty(&telemetry);
	put(&telemetry, 1, 5000);
	assert_int_equal(waiting(&telemetry), 1);
	assert_int_equal(telemetry.lost, 10);
	rt_telemetry_fini(&telemetry);
}

static void test_the_ring_is_bounded_for_large_models(void **state)
{
	struct rt_telemetry telemetry;

	(void)state;
	assert_int_equal(rt_telemetry_init(&telemetry, CAD_LAYERS_MAX, CAD_TOPK_MAX), CAD_OK);
	assert_true(telemetry.capacity * telemetry.record_bytes <= RT_TELEMETRY_BYTES_MAX);
	assert_true(telemetry.capacity >= 128);
	rt_telemetry_fini(&telemetry);
}

/* Seconds of `requests` requests of 100 tokens each: how many are sampled in
 * the last one, by position. */
static uint64_t sampled_of(uint32_t requests, uint32_t by_position[100])
{
	struct rt_telemetry telemetry;
	uint64_t now_ns = 10 * CAD_NS_PER_S, chosen = 0;

	assert_int_equal(rt_telemetry_init(&telemetry, LAYERS, TOPK), CAD_OK);
	(void)rt_telemetry_turn(&telemetry, now_ns);
	for (uint32_t second = 0; second < 2; second++) {
		empty(&telemetry);
		for (uint32_t r = 0; r < requests; r++)
			for (uint32_t position = 0; position < 100; position++) {
				uint64_t before = waiting(&telemetry);
				put(&telemetry, second * requests + r, position);
				by_position[position] += second == 1 && waiting(&telemetry) > before;
			}
		chosen = waiting(&telemetry);
		assert_false(rt_telemetry_turn(&telemetry, now_ns + CAD_NS_PER_S - 1));
		now_ns += CAD_NS_PER_S;
		assert_true(rt_telemetry_turn(&telemetry, now_ns));
	}
	rt_telemetry_fini(&telemetry);
	return chosen;
}

static void test_calm_seconds_are_sampled_whole(void **state)
{
	uint32_t by_position[100] = { 0 };

	(void)state;
	assert_int_equal(sampled_of(10, by_position), 1000);
}

/* 100,000 tokens per second: one in a hundred, whatever its position; the deviation of a
 * binomial. */
static void test_busy_seconds_are_sampled_fairly(void **state)
{
	uint32_t by_position[100] = { 0 };

	(void)state;
	uint64_t chosen = sampled_of(1000, by_position);
	assert_in_range(chosen, 1000 - 4 * 32, 1000 + 4 * 32);
	for (uint32_t half = 0; half < 2; half++) {
		uint32_t sum = 0;
		for (uint32_t position = 0; position < 50; position++)
			sum += by_position[half * 50 + position];
		assert_in_range(sum, 500 - 4 * 23, 500 + 4 * 23);
	}
}

/* The same tokens are chosen in whatever order, and so in whatever steps, they are computed. */
static void test_the_choice_does_not_depend_on_the_batch(void **state)
{
	struct rt_telemetry telemetry;
	uint64_t sums[2] = { 0 };

	(void)state;
	assert_int_equal(rt_telemetry_init(&telemetry, LAYERS, TOPK), CAD_OK);
	telemetry.bound = UINT64_MAX / 10;
	for (uint32_t order = 0; order < 2; order++) {
		empty(&telemetry);
		for (uint32_t i = 0; i < 10000; i++) {
			uint32_t request = order ? i % 100 : i / 100, position = order ? 99 - i / 100 : i % 100;
			uint64_t before = waiting(&telemetry);
			put(&telemetry, request, position);
			sums[order] += waiting(&telemetry) > before ? (uint64_t)request * 1000003 + position : 0;
		}
	}
	assert_int_equal(sums[0], sums[1]);
	assert_true(sums[0] > 0);
	rt_telemetry_fini(&telemetry);
}

static void test_aggregates_sample_nothing(void **state)
{
	struct rt_telemetry telemetry;

	(void)state;
	assert_int_equal(rt_telemetry_init(&telemetry, LAYERS, TOPK), CAD_OK);
	atomic_store(&telemetry.aggregate, true);
	put(&telemetry, 1, 1);
	assert_int_equal(waiting(&telemetry), 0);
	assert_int_equal(telemetry.tokens, 1);
	assert_int_equal(telemetry.passed, 1);
	assert_int_equal(telemetry.lost, 0);
	rt_telemetry_fini(&telemetry);
}

/* ---- two threads ---- */

enum { RACED = 200000 };

static void *put_many(void *context)
{
	for (uint32_t i = 0; i < RACED; i++)
		put(context, i, 0);
	return NULL;
}

static void test_two_threads_lose_only_what_is_counted(void **state)
{
	struct rt_telemetry telemetry;
	pthread_t engine;
	uint64_t taken = 0, position = 0, last = 0;

	(void)state;
	assert_int_equal(rt_telemetry_init(&telemetry, LAYERS, TOPK), CAD_OK);
	assert_int_equal(pthread_create(&engine, NULL, put_many, &telemetry), 0);
	for (bool over = false; !over;) {
		over = atomic_load(&telemetry.tokens) == RACED;
		uint64_t written = atomic_load_explicit(&telemetry.written, memory_order_acquire);
		for (; position < written; position++) {
			const struct rt_telemetry_record *record = rt_telemetry_at(&telemetry, position);
			assert_true(taken == 0 || record->request > last);
			last = record->request;
			for (uint32_t layer = 0; layer < LAYERS; layer++)
				assert_int_equal(rt_telemetry_ids(record)[layer * TOPK], (last + layer) % 1000);
			taken++;
		}
		atomic_store_explicit(&telemetry.taken, position, memory_order_release);
	}
	pthread_join(engine, NULL);
	taken += waiting(&telemetry);
	assert_int_equal(taken + atomic_load(&telemetry.lost), RACED);
	rt_telemetry_fini(&telemetry);
}

/* ---- in the engine ---- */

#define MODEL CADRE_SOURCE_DIR "/tests/golden/qwen3moe-a/model"
enum { REQUESTS = 12, PROMPT = 30, ANSWER = 20 };

struct answer {
	bool ended;
	struct rt_usage usage;
	uint8_t digest[16];
	int32_t tokens[ANSWER];
	uint32_t count;
};

static void on_event(void *user, const struct rt_event *event)
{
	struct answer *answer = event->context;

	(void)user;
	answer->ended = event->kind == RT_EVENT_FINISHED;
	answer->usage = event->usage;
	assert_int_not_equal(event->kind, RT_EVENT_FAILED);
	if (event->kind != RT_EVENT_TOKEN)
		return;
	answer->tokens[answer->count++] = event->token;
	if (answer->count == ANSWER / 2)
		memcpy(answer->digest, event->digest, sizeof answer->digest);
}

static struct em_embedded *open_engine(uint64_t kv_bytes)
{
	const struct em_options options = {
		.model = MODEL,
		.threads = 1,
		.nodes = 2,
		.router = { .telemetry = true, .kv_bytes = kv_bytes, .on_event = on_event },
	};
	struct em_embedded *em;
	struct cad_error error;
	must(em_create(&options, &em, &error), &error);
	return em;
}

static void run(struct em_embedded *em, const struct rt_request *requests, struct answer *answers, uint32_t count)
{
	struct cad_error error;
	uint64_t id;

	for (uint32_t i = 0; i < count; i++)
		must(rt_engine_submit(em_router(em), &requests[i], &id, &error), &error);
	for (uint32_t i = 0; i < count; i++)
		while (!answers[i].ended)
			rt_engine_turn(em_router(em), 0);
}

/* What lost its pages is computed again, and is one token still. What is in the ring is the routing
 * of the model's own layers. */
static void test_tokens_that_are_computed_again_count_once(void **state)
{
	struct em_embedded *em = open_engine(1 << 19);
	struct rt_telemetry *telemetry = rt_engine_telemetry(em_router(em));
	struct rt_request requests[REQUESTS];
	struct answer answers[REQUESTS] = { 0 };
	int32_t prompt[PROMPT];
	uint32_t again = 0;

	(void)state;
	for (int32_t i = 0; i < PROMPT; i++)
		prompt[i] = i * 7;
	for (uint32_t i = 0; i < REQUESTS; i++)
		requests[i] = (struct rt_request){
			.prompt = prompt,
			.prompt_count = PROMPT,
			.max_tokens = ANSWER,
			.ignore_eos = true,
			.context = &answers[i],
		};
	run(em, requests, answers, REQUESTS);
	for (uint32_t i = 0; i < REQUESTS; i++)
		again += answers[i].usage.recomputed_tokens;
	assert_true(again > 0);
	/* the last token of an answer is never computed */
	assert_int_equal(telemetry->tokens, REQUESTS * (PROMPT + ANSWER - 1));
	assert_int_equal(telemetry->layers, cad_model_spec_moe_layers(cad_model_spec(em_model(em))));
	uint64_t sampled = 0;
	for (uint64_t at = 0; at < telemetry->written; at++) {
		const struct rt_telemetry_record *record = rt_telemetry_at(telemetry, at);
		if (record->kind != RT_TELEMETRY_TOKEN) /* traffic, once a second */
			continue;
		sampled++;
		for (uint32_t i = 0; i < telemetry->layers * telemetry->topk; i++)
			assert_true(rt_telemetry_ids(record)[i] < cad_model_spec(em_model(em))->gate.experts);
	}
	assert_int_equal(sampled, telemetry->tokens);
	em_destroy(em);
}

/* An answer that goes on here was counted where it began; a trial is nobody's. */
static void test_tokens_of_others_do_not_count(void **state)
{
	struct em_embedded *em = open_engine(0);
	struct rt_telemetry *telemetry = rt_engine_telemetry(em_router(em));
	struct answer whole = { 0 }, rest = { 0 }, trial = { 0 };
	const int32_t prompt[3] = { 5, 6, 7 };
	struct rt_request request = {
		.prompt = prompt,
		.prompt_count = 3,
		.max_tokens = ANSWER,
		.ignore_eos = true,
		.context = &whole,
	};

	(void)state;
	run(em, &request, &whole, 1);
	assert_int_equal(telemetry->tokens, 3 + ANSWER - 1);

	request.received = whole.tokens;
	request.received_count = ANSWER / 2;
	memcpy(request.received_digest, whole.digest, sizeof whole.digest);
	request.max_tokens = ANSWER / 2;
	request.context = &rest;
	uint64_t before = telemetry->tokens;
	run(em, &request, &rest, 1);
	assert_int_equal(telemetry->tokens - before, ANSWER / 2); /* from the last that was received */

	request = (struct rt_request){
		.prompt = prompt,
		.prompt_count = 3,
		.max_tokens = 1,
		.ignore_eos = true,
		.trial = true,
		.context = &trial,
	};
	before = telemetry->tokens;
	run(em, &request, &trial, 1);
	assert_int_equal(telemetry->tokens, before);
	em_destroy(em);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tokens_come_whole_and_in_order),
		cmocka_unit_test(test_a_full_ring_loses_and_counts),
		cmocka_unit_test(test_the_ring_is_bounded_for_large_models),
		cmocka_unit_test(test_calm_seconds_are_sampled_whole),
		cmocka_unit_test(test_busy_seconds_are_sampled_fairly),
		cmocka_unit_test(test_the_choice_does_not_depend_on_the_batch),
		cmocka_unit_test(test_aggregates_sample_nothing),
		cmocka_unit_test(test_two_threads_lose_only_what_is_counted),
		cmocka_unit_test(test_tokens_that_are_computed_again_count_once),
		cmocka_unit_test(test_tokens_of_others_do_not_count),
	};
	cad_log_setup(CAD_LOG_WARN, CAD_LOG_LOGFMT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
