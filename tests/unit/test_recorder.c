/* SPDX-License-Identifier: Apache-2.0 */
/* RecordTrace over a real connection: what ends a recording, who is too many, and that a reader who
 * does not read costs tokens, never memory. */
#include "orchestration/placement/recorder.h"
#include "tests/support/must.h"
#include "tests/support/rpc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RECORD "/cadre.v1.Placement/RecordTrace"

enum { LAYERS = 32, TOPK = 8, EXPERTS = 16, ROUTER = 3, SAMPLE = 100, NOW_S = 1000 };

struct world {
	struct rpc_fixture fixture;
	struct cad_rpc_service service;
	struct cad_rpc_method methods[RPC_METHODS_MAX];
	struct pl_registry registry;
	struct pl_telemetry *telemetry;
	struct pl_recorder recorder;
	struct cad_rpc_call *call; /* the last that began */
	uint64_t requests[SAMPLE];
	uint16_t ids[SAMPLE * LAYERS * TOPK];
	/* of one reader */
	uint64_t tokens, seen, lost;
	bool has_head, has_end, begun;
};

static void record_begin(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct world *world = cad_rpc_call_context(call);
	world->call = call;
	pl_recorder_begin(&world->recorder, call, (const Cadre__V1__RecordTraceRequest *)message, NOW_S * CAD_NS_PER_S);
	world->begun = true;
}

static void record_done(struct cad_rpc_call *call, bool cancelled)
{
	(void)cancelled;
	pl_recorder_done(&((struct world *)cad_rpc_call_context(call))->recorder, call);
}

static void make_telemetry(struct world *world, bool aggregate)
{
	static uint32_t layers[LAYERS];
	for (uint32_t i = 0; i < LAYERS; i++)
		layers[i] = i + 1;
	const struct pl_telemetry_options options = {
		.shape = { layers, LAYERS, EXPERTS },
		.topk = TOPK,
		.registry = &world->registry,
		.cluster = "test",
		.model = "models/m",
		.aggregate = aggregate,
	};
	struct cad_error error;
	pl_telemetry_destroy(world->telemetry);
	must(pl_telemetry_create(&options, &world->telemetry, &error), &error);
	world->recorder.telemetry = world->telemetry;
}

static int setup(void **state)
{
	static const struct cad_rpc_method record = { "RecordTrace", CAD_RPC_SERVER_STREAM,
		{ .message = record_begin, .writable = pl_recorder_writable, .done = record_done }, CAD_RIGHT_READ };
	struct world *world = calloc(1, sizeof *world);

	make_telemetry(world, false);
	snprintf(world->registry.nodes[ROUTER].id, CAD_MAP_ID_BYTES, "router-a");
	for (uint32_t i = 0; i < SAMPLE * LAYERS * TOPK; i++)
		world->ids[i] = (uint16_t)(i % TOPK);
	rpc_fixture_open(&world->fixture, NULL);
	size_t count = rpc_all_methods(&cadre__v1__placement__descriptor, &record, 1, world->methods);
	world->service = (struct cad_rpc_service){ &cadre__v1__placement__descriptor, world->methods, count, world };
	cad_rpc_server_add(world->fixture.server, &world->service);
	rpc_fixture_start(&world->fixture, NULL, NULL, NULL);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;
	rpc_fixture_close(&world->fixture);
	pl_telemetry_destroy(world->telemetry);
	free(world);
	return 0;
}

static void on_part(struct rpc_result *result, const ProtobufCMessage *message)
{
	struct world *world = result->user;
	const Cadre__V1__RecordTraceResponse *part = (const Cadre__V1__RecordTraceResponse *)message;

	switch (part->part_case) {
	case CADRE__V1__RECORD_TRACE_RESPONSE__PART_HEAD:
		world->has_head = part->head->n_layers == LAYERS && part->head->experts == EXPERTS &&
			strcmp(part->head->cluster, "test") == 0;
		break;
	case CADRE__V1__RECORD_TRACE_RESPONSE__PART_TOKENS:
		world->tokens += part->tokens->n_requests;
		world->lost = part->tokens->lost;
		break;
	case CADRE__V1__RECORD_TRACE_RESPONSE__PART_END:
		world->has_end = true;
		world->seen = part->end->seen;
		world->lost = part->end->lost;
		break;
	default: break;
	}
}

static void start(struct world *world, uint64_t tokens, uint64_t duration_ms, struct rpc_result *result)
{
	Cadre__V1__RecordTraceRequest request = CADRE__V1__RECORD_TRACE_REQUEST__INIT;

	request.tokens = tokens;
	request.duration_ms = duration_ms;
	result->on_message = on_part;
	result->user = world;
	world->begun = false;
	rpc_start(&world->fixture, RECORD, &request.base, &cadre__v1__record_trace_response__descriptor, NULL, result);
	rpc_run_until(&world->fixture, &world->begun);
}

/* A second's report: `sampled` of twice as many tokens. */
static void flow(struct world *world, size_t sampled)
{
	const struct pl_routing_report report = {
		.tokens = 2 * sampled,
		.share = 0.5,
		.requests = world->requests,
		.ids = world->ids,
		.sampled = sampled,
	};
	pl_recorder_take(&world->recorder, ROUTER, &report);
}

static void test_tokens_end_it(void **state)
{
	struct world *world = *state;
	struct rpc_result result = { 0 };

	start(world, 250, 0, &result);
	for (int i = 0; i < 5; i++)
		flow(world, SAMPLE);
	rpc_run_until(&world->fixture, &result.done);
	assert_int_equal(result.code, CAD_RPC_OK);
	assert_true(world->has_head && world->has_end);
	assert_int_equal(world->tokens, 250);
	assert_int_equal(world->seen, 600);
	assert_int_equal(world->lost, 0);
}

static void test_time_ends_it(void **state)
{
	struct world *world = *state;
	struct rpc_result result = { 0 };

	start(world, 0, 3000, &result);
	flow(world, SAMPLE);
	assert_int_equal(pl_recorder_tick(&world->recorder, (NOW_S + 2) * CAD_NS_PER_S), (NOW_S + 3) * CAD_NS_PER_S);
	flow(world, 0);
	assert_int_equal(pl_recorder_tick(&world->recorder, (NOW_S + 3) * CAD_NS_PER_S), UINT64_MAX);
	flow(world, SAMPLE); /* too late */
	rpc_run_until(&world->fixture, &result.done);
	assert_int_equal(result.code, CAD_RPC_OK);
	assert_int_equal(world->tokens, SAMPLE);
	assert_int_equal(world->seen, 2 * SAMPLE);
}

/* 51 KB a report, and nobody has a turn to read them. */
static void test_who_does_not_read_loses_tokens(void **state)
{
	enum { REPORTS = 400 };
	struct world *world = *state;
	struct rpc_result result = { 0 };

	start(world, 0, 1000, &result);
	for (int i = 0; i < REPORTS; i++) {
		flow(world, SAMPLE);
		assert_true(cad_rpc_call_queued_bytes(world->call) < 512 << 10); /* of 20 MB */
	}
	pl_recorder_stop(&world->recorder);
	rpc_run_until(&world->fixture, &result.done);
	assert_int_equal(result.code, CAD_RPC_OK);
	assert_true(world->has_end);
	assert_true(world->lost > 0 && world->tokens > 0);
	assert_int_equal(world->tokens + world->lost, REPORTS * SAMPLE);
	assert_int_equal(world->seen, 2 * REPORTS * SAMPLE);
}

static void test_so_many_at_once(void **state)
{
	struct world *world = *state;
	struct rpc_result results[PL_RECORDINGS_MAX + 1] = { 0 };

	for (int i = 0; i <= PL_RECORDINGS_MAX; i++)
		start(world, 0, 1000, &results[i]);
	rpc_run_until(&world->fixture, &results[PL_RECORDINGS_MAX].done);
	assert_int_equal(results[PL_RECORDINGS_MAX].code, CAD_RPC_RESOURCE_EXHAUSTED);
	assert_string_equal(results[PL_RECORDINGS_MAX].text, "8 recordings run already: wait for one to end");
	pl_recorder_stop(&world->recorder);
	for (int i = 0; i < PL_RECORDINGS_MAX; i++)
		rpc_run_until(&world->fixture, &results[i].done);
}

static void test_aggregates_are_not_recorded(void **state)
{
	struct world *world = *state;
	struct rpc_result result = { 0 };

	make_telemetry(world, true);
	start(world, 1, 0, &result);
	rpc_run_until(&world->fixture, &result.done);
	assert_int_equal(result.code, CAD_RPC_FAILED_PRECONDITION);
	assert_non_null(strstr(result.text, "--routing-detail aggregate"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_tokens_end_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_time_ends_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_who_does_not_read_loses_tokens, setup, teardown),
		cmocka_unit_test_setup_teardown(test_so_many_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_aggregates_are_not_recorded, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
