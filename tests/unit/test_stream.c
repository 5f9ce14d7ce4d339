/* SPDX-License-Identifier: Apache-2.0 */
/* An answer between the engine's thread and a sink that the test plays, without gRPC: when a
 * sequence is paused and goes on, order of routing and tokens, ends of all kinds, and an engine's
 * thread that leaves the heap alone. */
#include "router-svc/frontend/stream.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/must.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 3, TOPK = 2, ROWS = 50 };

/* ---- the engine and the sink that the test plays ---- */

struct world {
	struct rt_stream_hub hub;
	struct rt_stream *stream;
	/* the engine */
	void *context;
	uint32_t generated, position, pauses, wakes;
	_Atomic bool paused, cancelled;
	enum cad_status submit;
	/* the sink */
	bool full;            /* says so to each piece */
	enum cad_status says; /* instead, when it is a failure */
	uint32_t tokens, routing_rows, pieces, ends, fails;
	struct rt_end end;
	uint8_t digest[16]; /* of the last piece that had one */
	enum cad_status failed;
	char sentence[100], text[4000];
};

static enum cad_status engine_submit(
	void *engine, const struct rt_request *request, uint64_t *id, struct cad_error *error)
{
	struct world *world = engine;
	*id = 77;
	world->context = request->context;
	return world->submit == CAD_OK ? CAD_OK : cad_error_set(error, world->submit, "no room here");
}

static void engine_cancel(void *engine, uint64_t id)
{
	assert_int_equal(id, 77);
	atomic_store(&((struct world *)engine)->cancelled, true);
}

static void engine_pause(void *engine, uint64_t id, bool paused)
{
	struct world *world = engine;
	assert_int_equal(id, 77);
	world->pauses += paused;
	atomic_store(&world->paused, paused);
}

static void wake(void *context) { ((struct world *)context)->wakes++; }

static enum cad_status sink_piece(void *context, const struct rt_piece *piece, struct cad_error *error)
{
	struct world *world = context;
	assert_true(world->ends + world->fails == 0);
	if (world->says != CAD_OK)
		return cad_error_set(error, world->says, "the sink has no memory");
	world->pieces++;
	if (piece->routing) {
		assert_int_equal(piece->routing->first_position + piece->routing_first, world->routing_rows);
		world->routing_rows += piece->routing_rows;
	}
	assert_true(piece->ids_count > 0 || !piece->digest);
	if (piece->digest)
		memcpy(world->digest, piece->digest, sizeof world->digest);
	for (size_t i = 0; i < piece->ids_count; i++)
		assert_int_equal(piece->ids[i], world->tokens++);
	if (piece->text)
		strncat(world->text, piece->text, sizeof world->text - strlen(world->text) - 1);
	return world->full ? CAD_FULL : CAD_OK;
}

static enum cad_status sink_end(
	void *context, const struct rt_piece *piece, const struct rt_end *end, struct cad_error *error)
{
	struct world *world = context;
	enum cad_status status = sink_piece(context, piece, error);
	world->ends++;
	world->end = *end;
	return status == CAD_FULL ? CAD_OK : status;
}

static void sink_fail(void *context, enum cad_status status, const char *sentence)
{
	struct world *world = context;
	assert_true(world->ends + world->fails++ == 0);
	world->failed = status;
	snprintf(world->sentence, sizeof world->sentence, "%s", sentence);
}

static const struct rt_sink sink = { sink_piece, sink_end, sink_fail };

static enum cad_status stream_open(struct world *world, bool routing, struct cad_error *error)
{
	struct rt_stream_hub_options options = {
		.engine = { world, engine_submit, engine_cancel, engine_pause, NULL, &cad_clock_system, 1000, ROWS },
		.moe_layers = LAYERS,
		.topk = TOPK,
		.wake = wake,
		.wake_context = world,
	};
	must(rt_stream_hub_init(&world->hub, &options), NULL);
	struct rt_request request = { .want_routing = routing };
	struct rt_answer answer;
	must(rt_answer_init(&answer, NULL, NULL, 0), NULL);
	return rt_stream_open(&world->hub, &request, &answer, &sink, world, &world->stream, error);
}

static void open_stream(struct world *world, bool routing)
{
	struct cad_error error;
	*world = (struct world){ .submit = CAD_OK };
	must(stream_open(world, routing, &error), &error);
	assert_int_equal(world->hub.open, 1);
	assert_int_equal(rt_stream_id(world->stream), 77);
}

static void close_hub(struct world *world)
{
	assert_int_equal(world->hub.open, 0);
	rt_stream_hub_fini(&world->hub); /* asserts that no stream is left */
}

/* ---- events ---- */

static void event(struct world *world, struct rt_event what)
{
	what.context = world->context;
	what.usage.generated_tokens = world->generated;
	memset(what.digest, (int)world->generated, sizeof what.digest);
	rt_stream_event(&what);
}

static void put_token(struct world *world)
{
	int32_t id = (int32_t)world->generated++;
	event(world, (struct rt_event){ .kind = RT_EVENT_TOKEN, .token = id, .is_text = true });
}

static void put_routing(struct world *world, uint32_t rows)
{
	static const uint32_t layers[LAYERS] = { 0, 1, 2 };
	static int32_t ids[LAYERS * ROWS * TOPK];
	static float weights[LAYERS * ROWS * TOPK];
	static const char *nodes[LAYERS * ROWS * TOPK];
	static char names[5][8] = { "a", "b", "c", "d", "e" };
	for (uint32_t i = 0; i < LAYERS * ROWS * TOPK; i++)
		nodes[i] = i % 6 == 5 ? NULL : names[i % 6];
	event(world,
		(struct rt_event){
			.kind = RT_EVENT_ROUTING,
			.first_position = world->position,
			.rows = rows,
			.layer_stride = ROWS,
			.moe_layers = LAYERS,
			.topk = TOPK,
			.layers = layers,
			.ids = ids,
			.weights = weights,
			.nodes = nodes,
		});
	world->position += rows;
}

static void put_end(struct world *world, enum cad_status status)
{
	event(world,
		(struct rt_event){
			.kind = status == CAD_OK ? RT_EVENT_FINISHED : RT_EVENT_FAILED,
			.reason = RT_FINISH_LENGTH,
			.status = status,
			.text = "what happened",
		});
}

/* ---- pausing ---- */

static void a_full_sink_pauses_and_goes_on(void **state)
{
	(void)state;
	struct world world;
	open_stream(&world, false);
	world.full = true;
	put_token(&world);
	rt_stream_hub_collect(&world.hub); /* one piece, and no more until writable */
	for (uint32_t i = 0; i < RT_STREAM_PAUSE_AT; i++) {
		assert_false(world.paused);
		put_token(&world);
		rt_stream_hub_collect(&world.hub);
	}
	assert_true(world.paused);
	put_token(&world); /* the step that was under way; it asks for no second pause */
	assert_int_equal(world.pauses, 1);
	assert_int_equal(world.tokens, 1);

	world.full = false;
	rt_stream_writable(world.stream);
	assert_false(world.paused);
	assert_int_equal(world.tokens, RT_STREAM_PAUSE_AT + 2);
	put_end(&world, CAD_OK);
	rt_stream_hub_collect(&world.hub);
	assert_int_equal(world.ends, 1);
	assert_int_equal(world.end.usage.generated_tokens, world.generated);
	assert_false(world.cancelled);
	close_hub(&world);
}

/* Thousands of them may wait. */
static void an_open_stream_takes_little(void **state)
{
	(void)state;
	struct world world;
	open_stream(&world, false);
	assert_in_range(malloc_usable_size(world.stream), 1, 3 * 1024);
	put_end(&world, CAD_OK);
	rt_stream_hub_collect(&world.hub);
	close_hub(&world);
}

/* A reader that takes one piece and is full again: below RESUME_AT the sequence goes on, but not
 * while the sink is full. */
static void a_full_sink_does_not_resume(void **state)
{
	(void)state;
	struct world world;
	open_stream(&world, false);
	world.full = true;
	for (uint32_t i = 0; i < RT_STREAM_PAUSE_AT; i++)
		put_token(&world);
	assert_true(world.paused);
	rt_stream_hub_collect(&world.hub);
	assert_int_equal(world.tokens, RT_STREAM_PAUSE_AT); /* drained, but full */
	assert_true(world.paused);
	rt_stream_writable(world.stream);
	assert_false(world.paused);
	rt_stream_close(world.stream);
	assert_true(world.cancelled);
	put_end(&world, CAD_ERR_CANCELLED);
	rt_stream_hub_collect(&world.hub);
	assert_int_equal(world.ends + world.fails, 0);
	close_hub(&world);
}

static void routing_pauses_by_its_bytes(void **state)
{
	(void)state;
	struct world world;
	open_stream(&world, true);
	uint32_t copies = 0;
	for (; !world.paused; copies++)
		put_routing(&world, ROWS);
	assert_true(copies > 1000);
	put_routing(&world, ROWS); /* there is room for the step that was under way */
	put_token(&world);
	rt_stream_hub_collect(&world.hub);
	assert_false(world.paused);
	assert_int_equal(world.routing_rows, world.position);
	assert_int_equal(world.tokens, 1);
	put_end(&world, CAD_OK);
	rt_stream_hub_collect(&world.hub);
	close_hub(&world);
}

/* ---- order and ends ---- */

static void routing_comes_before_its_tokens(void **state)
{
	(void)state;
	struct world world;
	open_stream(&world, true);
	put_routing(&world, 3);
	put_routing(&world, 1);
	put_token(&world);
	world.full = true;
	rt_stream_hub_collect(&world.hub);
	assert_int_equal(world.routing_rows, 3);
	assert_int_equal(world.tokens, 0);
	rt_stream_writable(world.stream);
	assert_int_equal(world.routing_rows, 4);
	assert_int_equal(world.tokens, 1); /* with the last of it, in one piece */
	assert_int_equal(world.pieces, 2);
	put_end(&world, CAD_OK);
	world.full = false;
	rt_stream_writable(world.stream);
	rt_stream_hub_collect(&world.hub);
	close_hub(&world);
}

/* Whoever has the last token has the end, even if the two reach this thread apart. */
static void the_last_token_comes_with_the_end(void **state)
{
	(void)state;
	struct world world;
	open_stream(&world, false);
	put_token(&world);
	int32_t id = (int32_t)world.generated++;
	event(&world, (struct rt_event){ .kind = RT_EVENT_TOKEN, .token = id, .is_text = true, .is_last = true });
	rt_stream_hub_collect(&world.hub);
	assert_int_equal(world.tokens, 1);
	assert_int_equal(world.digest[0], 1);
	put_end(&world, CAD_OK);
	rt_stream_hub_collect(&world.hub);
	assert_true(world.tokens == 2 && world.ends == 1);
	assert_int_equal(world.pieces, 2);
	close_hub(&world);
}

static void a_failure_comes_after_what_there_was(void **state)
{
	(void)state;
	struct world world;
	open_stream(&world, false);
	put_token(&world);
	put_token(&world);
	put_end(&world, CAD_ERR_NOT_FINITE);
	rt_stream_hub_collect(&world.hub);
	assert_int_equal(world.tokens, 2);
	assert_int_equal(world.failed, CAD_ERR_NOT_FINITE);
	assert_string_equal(world.sentence, "what happened");
	assert_false(world.cancelled);
	close_hub(&world);
}

static void a_sink_that_cannot(void **state)
{
	(void)state;
	struct world world;
	open_stream(&world, false);
	world.says = CAD_ERR_EXHAUSTED;
	put_token(&world);
	rt_stream_hub_collect(&world.hub);
	assert_int_equal(world.failed, CAD_ERR_EXHAUSTED);
	assert_string_equal(world.sentence, "the sink has no memory");
	assert_true(world.cancelled);
	put_token(&world); /* thrown away */
	put_end(&world, CAD_ERR_CANCELLED);
	rt_stream_hub_collect(&world.hub);
	assert_int_equal(world.fails, 1);
	close_hub(&world);
}

static void an_engine_that_refuses(void **state)
{
	(void)state;
	struct world world = { .submit = CAD_ERR_EXHAUSTED };
	struct cad_error error;
	assert_int_equal(stream_open(&world, true, &error), CAD_ERR_EXHAUSTED);
	assert_string_equal(error.text, "no room here");
	close_hub(&world);
}

/* ---- two threads ---- */

enum { THREAD_TOKENS = 20000 };

struct engine_thread {
	struct world *world;
	unsigned long heap_calls;
};

static void *run_engine(void *argument)
{
	struct engine_thread *thread = argument;
	struct world *world = thread->world;
	unsigned long before = test_heap_calls();
	while (world->generated < THREAD_TOKENS) {
		if (atomic_load(&world->paused)) {
			sched_yield();
			continue;
		}
		put_routing(world, 1 + world->generated % ROWS);
		put_token(world);
	}
	put_end(world, CAD_OK);
	thread->heap_calls = test_heap_calls() - before;
	return NULL;
}

/* The reader is sometimes full; nothing is lost, nobody sleeps for ever, and the engine's thread
 * does not touch the heap. */
static void an_engine_in_its_own_thread(void **state)
{
	(void)state;
	struct world world;
	open_stream(&world, true);
	struct engine_thread engine = { .world = &world };
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, run_engine, &engine), 0);
	for (uint32_t turn = 0; world.ends == 0; turn++) {
		world.full = turn % 3 != 0;
		rt_stream_hub_collect(&world.hub);
		if (turn % 5 == 0 && world.ends == 0)
			rt_stream_writable(world.stream);
		sched_yield();
	}
	pthread_join(thread, NULL);
	assert_int_equal(world.tokens, THREAD_TOKENS);
	assert_int_equal(world.routing_rows, world.position);
	assert_int_equal(engine.heap_calls, 0);
	close_hub(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_full_sink_pauses_and_goes_on),
		cmocka_unit_test(an_open_stream_takes_little),
		cmocka_unit_test(a_full_sink_does_not_resume),
		cmocka_unit_test(routing_pauses_by_its_bytes),
		cmocka_unit_test(routing_comes_before_its_tokens),
		cmocka_unit_test(the_last_token_comes_with_the_end),
		cmocka_unit_test(a_failure_comes_after_what_there_was),
		cmocka_unit_test(a_sink_that_cannot),
		cmocka_unit_test(an_engine_that_refuses),
		cmocka_unit_test(an_engine_in_its_own_thread),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
