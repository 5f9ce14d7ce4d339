/* SPDX-License-Identifier: Apache-2.0 */
/* After start-up the engine's thread neither allocates nor frees: steps with prompts in
 * chunks, lost pages, routing, a capacity policy, sequences that pause, are cancelled, run
 * late and end, and maps that replace each other. Over the in-process link; UCX may
 * allocate inside its own calls. */
#include "common/base/log.h"
#include "embedded/embedded.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MODEL CADRE_SOURCE_DIR "/tests/golden/qwen3moe-a/model"
enum { NODES = 3, REQUESTS = 12, ROUNDS = 6, TURNS_MAX = 20000, REPLICAS_MAX = 1024 };

struct client {
	struct rt_engine *engine;
	uint64_t id;
	uint32_t tokens, cancel_at, routed;
	bool paused, ended;
};

static void on_event(void *user, const struct rt_event *event)
{
	(void)user;
	struct client *client = event->context;
	client->routed += event->kind == RT_EVENT_ROUTING ? event->rows : 0;
	client->ended = client->ended || event->kind == RT_EVENT_FINISHED || event->kind == RT_EVENT_FAILED;
	if (event->kind != RT_EVENT_TOKEN)
		return;
	if (++client->tokens == client->cancel_at)
		rt_engine_cancel(client->engine, client->id);
	if (client->tokens % 3 == 0) {
		client->paused = true;
		rt_engine_pause(client->engine, client->id, true);
	}
}

static void submit(struct client *client, uint32_t number)
{
	int32_t prompt[60];
	struct cad_error error;
	for (uint32_t i = 0; i < 60; i++)
		prompt[i] = (int32_t)((number * 31 + i * 7) % 380);
	*client = (struct client){ .engine = client->engine, .cancel_at = number % 4 == 0 ? 5 : 0 };
	struct rt_request request = {
		.prompt = prompt,
		.prompt_count = 5 + number * 13 % 50,
		.max_tokens = 4 + number % 9,
		.ignore_eos = number % 2,
		.want_routing = true,
		.deadline_ns = number % 7 == 6 ? 1 : 0,
		.context = client,
	};
	must(rt_engine_submit(client->engine, &request, &client->id, &error), &error);
}

/* One turn, and how often it asked the heap. */
static unsigned long turn(struct rt_engine *engine, struct client *clients, bool *all_ended)
{
	unsigned long before = test_heap_calls();
	rt_engine_turn(engine, 0);
	unsigned long calls = test_heap_calls() - before;

	*all_ended = true;
	for (int i = 0; i < REQUESTS; i++) {
		*all_ended = *all_ended && clients[i].ended;
		if (clients[i].paused)
			rt_engine_pause(engine, clients[i].id, clients[i].paused = false);
	}

	return calls;
}

/* What embedded.c has placed, blocks of experts, in another epoch: nobody connects again. */
static void publish(struct em_embedded *em, uint64_t epoch)
{
	static const struct cad_map_node nodes[NODES] = {
		{ .id = "local-0", .exchange_address = "local-0", .http_address = "", .live = true },
		{ .id = "local-1", .exchange_address = "local-1", .http_address = "", .live = true },
		{ .id = "local-2", .exchange_address = "local-2", .http_address = "", .live = true },
	};
	const struct cad_model_spec *spec = cad_model_spec(em_model(em));
	uint32_t experts = spec->gate.experts, layers[CAD_LAYERS_MAX], layers_count = 0;
	struct cad_map_replica replicas[REPLICAS_MAX];
	size_t count = 0;

	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		if (!spec->layers[layer].moe)
			continue;
		layers[layers_count++] = layer;
		for (uint32_t e = 0; e < experts; e++)
			replicas[count++] = (struct cad_map_replica){
				.layer = layer,
				.expert = e,
				.node = e * NODES / experts,
			};
	}

	struct cad_map_source source = {
		.epoch = epoch,
		.nodes = nodes,
		.nodes_count = NODES,
		.layers = layers,
		.layers_count = layers_count,
		.experts = experts,
		.replicas = replicas,
		.replicas_count = count,
	};
	struct cad_error error;
	struct cad_map *map;
	must(cad_map_create(&source, &map, &error), &error);
	rt_engine_map(em_router(em), map);
	cad_map_release(map);
}

static void steps_leave_the_heap_alone(void **state)
{
	(void)state;
	struct cad_error error;
	struct em_embedded *em;
	struct em_options options = {
		.model = MODEL,
		.threads = 2,
		.nodes = NODES,
		.router = {
			.telemetry = true,
			.step_tokens_max = 48,
			.chunk_tokens_max = 20,
			.sequences_max = 6,
			.queue_max = REQUESTS,
			.kv_bytes = 256 << 10,
			.micro_batches = 2,
			.policies = { .capacity = RT_CAPACITY_SPILL, .capacity_factor = 1.0f },
			.on_event = on_event,
		},
	};
	must(em_create(&options, &em, &error), &error);
	struct client clients[REQUESTS];
	for (uint32_t round = 0; round < ROUNDS; round++) {
		unsigned long calls = 0;
		bool all_ended = false;
		for (uint32_t i = 0; i < REQUESTS; i++) {
			clients[i].engine = em_router(em);
			submit(&clients[i], round * REQUESTS + i);
		}
		for (int turns = 0; !all_ended; turns++) {
			assert_true(turns < TURNS_MAX);
			if (turns % 8 == 0)
				publish(em, 2 + round * TURNS_MAX + (uint32_t)turns);
			calls += turn(em_router(em), clients, &all_ended);
		}
		if (round > 0) /* the first one connects */
			assert_int_equal(calls, 0);
	}

	struct rt_engine_stats stats;
	rt_engine_stats(em_router(em), &stats);
	assert_true(stats.preempted > 0 && stats.spilled > 0 && stats.cancelled > 0 && stats.failed > 0);
	assert_true(clients[1].routed > 0);
	em_destroy(em);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(steps_leave_the_heap_alone) };
	cad_log_setup(CAD_LOG_WARN, CAD_LOG_LOGFMT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
