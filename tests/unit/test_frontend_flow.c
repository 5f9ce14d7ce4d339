/* SPDX-License-Identifier: Apache-2.0 */
/* The router's front end in time: readers that are slow, clients that go, an engine that fails, the
 * end; and an engine in a thread of its own. */
#include "tests/support/fake_router.h"
#include "tests/support/must.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void a_client_that_goes(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open(&router);
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	struct fake_answer answer;

	/* by cancelling */
	struct fake_request *engine = fake_admitted(&router, &request, NULL, &answer);
	fake_token(engine, 5);
	rpc_run_until(&router.rpc, &answer.something);
	cad_rpc_client_cancel(answer.result.call);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_CANCELLED);

	while (rt_frontend_streams(router.frontend) > 0) {
		struct fake_answer probe; /* something that keeps the loop turning */
		cadre__v1__generate_request__init(&request);
		fake_answer_start(&router, &request, NULL, &probe);
		rpc_run_until(&router.rpc, &probe.result.done);
	}

	assert_true(engine->cancelled);
	fake_token(engine, 5); /* was under way */
	fake_fail(engine, CAD_ERR_CANCELLED, "cancelled");

	/* by its deadline, which the engine is told, too */
	fake_request_of_text(&request, "x");
	uint64_t before = cad_clock_now_ns(&cad_clock_system);
	engine = fake_admitted(&router, &request, &(struct cad_rpc_call_options){ .timeout_ms = 100 }, &answer);
	assert_in_range(engine->deadline_ns, before, cad_clock_now_ns(&cad_clock_system) + 200 * CAD_NS_PER_MS);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_DEADLINE_EXCEEDED);
	fake_router_close(&router);
	assert_true(engine->cancelled);
}

static void failures_of_the_engine(void **state)
{
	(void)state;
	static const struct {
		enum cad_status status;
		enum cad_rpc_code code;
	} table[] = {
		{ CAD_ERR_DEADLINE, CAD_RPC_DEADLINE_EXCEEDED },
		{ CAD_ERR_NOT_FINITE, CAD_RPC_INTERNAL },
		{ CAD_ERR_UNREACHABLE, CAD_RPC_UNAVAILABLE },
		{ CAD_ERR_CANCELLED, CAD_RPC_UNAVAILABLE },
		{ CAD_ERR_EXHAUSTED, CAD_RPC_RESOURCE_EXHAUSTED },
	};
	struct fake_router router;
	fake_router_open(&router);
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	struct fake_answer answer;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct fake_request *engine = fake_admitted(&router, &request, NULL, &answer);
		fake_token(engine, 5);
		fake_fail(engine, table[i].status, "what happened, and what to change");
		rpc_run_until(&router.rpc, &answer.result.done);
		assert_int_equal(answer.result.code, table[i].code);
		assert_string_equal(answer.result.text, "what happened, and what to change");
		assert_int_equal(answer.ids_count, 1); /* what there was came first */
	}

	router.fake.limit = router.fake.count;
	fake_answer_start(&router, &request, NULL, &answer);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_RESOURCE_EXHAUSTED);
	assert_non_null(strstr(answer.result.text, "requests are the limit"));
	fake_router_close(&router);
}

static void a_slow_reader_is_paused(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open(&router);
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	request.return_routing = true; /* makes much of little: the reader's windows are large */
	struct fake_answer slow, quick;
	struct fake_request *engine = fake_admitted(&router, &request, NULL, &slow);
	slow.result.read_max = 1; /* from now on it does not read */
	struct fake_request *other = fake_admitted(&router, &request, NULL, &quick);

	/* The reader's windows, the call's queue and the ring fill up; then the sequence is paused,
	 * and stays so while the other goes on. */
	uint64_t sum = 0;
	uint32_t position = 0;
	for (int after = 0; after < 20; after += atomic_load(&engine->paused)) {
		if (!atomic_load(&engine->paused)) {
			fake_routing(engine, position, FAKE_STRIDE, &sum);
			position += FAKE_STRIDE;
			fake_token(engine, (int32_t)(3 + engine->generated % 100));
		}
		quick.something = false;
		fake_token(other, 5);
		rpc_run_until(&router.rpc, &quick.something);
		assert_true(quick.ids_count < 1500);
	}

	fake_token(engine, (int32_t)(3 + engine->generated % 100)); /* the step that was under way */
	assert_int_equal(engine->pauses, 1);
	assert_false(slow.result.done);
	assert_true(slow.ids_count + 64 < engine->generated);

	/* It reads again: the sequence goes on, and nothing was lost. */
	slow.result.read_max = 0;
	cad_rpc_client_read(slow.result.call);
	while (atomic_load(&engine->paused)) {
		slow.something = false;
		rpc_run_until(&router.rpc, &slow.something);
	}

	fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &slow.result.done);
	assert_int_equal(slow.result.code, CAD_RPC_OK);
	assert_int_equal(slow.ids_count, engine->generated);
	for (size_t i = 0; i < slow.ids_count; i++)
		assert_int_equal(slow.ids[i], 3 + i % 100);
	assert_int_equal(slow.routing_rows, position);
	assert_true(slow.routing_sum == sum);
	fake_router_close(&router);
}

/* Reads nothing for stall_ms: the call ends, and says why, past what the client does not take; the
 * sequence is cancelled. One that has nothing to take may be as quiet as it likes. */
static void a_reader_that_has_stopped(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open_with(&router, (struct rt_frontend_options){ .tokenizer = fake_tokenizer, .stall_ms = 300 });
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	request.return_routing = true;
	struct fake_answer stopped, quiet;
	struct fake_request *other = fake_admitted(&router, &request, NULL, &quiet),
			    *engine = fake_admitted(&router, &request, NULL, &stopped);
	stopped.result.read_max = 1;
	uint64_t sum = 0, began = cad_clock_now_ns(&cad_clock_system);
	for (uint32_t position = 0; !atomic_load(&engine->cancelled);) {
		if (!atomic_load(&engine->paused)) {
			fake_routing(engine, position, FAKE_STRIDE, &sum);
			position += FAKE_STRIDE;
		}
		struct fake_answer probe; /* something that keeps the loop turning */
		cadre__v1__generate_request__init(&request);
		fake_answer_start(&router, &request, NULL, &probe);
		rpc_run_until(&router.rpc, &probe.result.done);
	}
	assert_true(cad_clock_now_ns(&cad_clock_system) - began >= 300 * CAD_NS_PER_MS);
	fake_fail(engine, CAD_ERR_CANCELLED, "cancelled");

	stopped.result.read_max = 0;
	cad_rpc_client_read(stopped.result.call);
	rpc_run_until(&router.rpc, &stopped.result.done);
	assert_int_equal(stopped.result.code, CAD_RPC_RESOURCE_EXHAUSTED);
	assert_non_null(strstr(stopped.result.text, "took nothing for 0.3 s"));

	assert_false(other->cancelled);
	fake_token(other, 5);
	fake_finish(other, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &quiet.result.done);
	assert_int_equal(quiet.result.code, CAD_RPC_OK);
	fake_router_close(&router);
}

/* Whoever waits already is told, too; and when it is no longer refused, it
 * is as if nothing had been. */
static void a_router_that_is_refused(void **state)
{
	(void)state;
	static const char why[] = "not joined; placement service at p:1: 'r' has no cluster secret";
	struct fake_router router;
	fake_router_open(&router);
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	struct fake_answer waiting[2], refused, admitted;
	struct fake_request *engine[] = { fake_admitted(&router, &request, NULL, &waiting[0]),
		fake_admitted(&router, &request, NULL, &waiting[1]) };

	rt_frontend_refuse(router.frontend, why);
	for (size_t i = 0; i < 2; i++) {
		rpc_run_until(&router.rpc, &waiting[i].result.done);
		assert_int_equal(waiting[i].result.code, CAD_RPC_UNAVAILABLE);
		assert_string_equal(waiting[i].result.text, why);
		assert_true(engine[i]->cancelled);
		fake_fail(engine[i], CAD_ERR_CANCELLED, "cancelled");
	}

	fake_answer_start(&router, &request, NULL, &refused);
	rpc_run_until(&router.rpc, &refused.result.done);
	assert_int_equal(refused.result.code, CAD_RPC_UNAVAILABLE);
	assert_string_equal(refused.result.text, why);
	assert_int_equal(router.fake.count, 2);

	rt_frontend_refuse(router.frontend, "");
	struct fake_request *again = fake_admitted(&router, &request, NULL, &admitted);
	fake_token(again, 5);
	fake_finish(again, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &admitted.result.done);
	assert_int_equal(admitted.result.code, CAD_RPC_OK);
	fake_router_close(&router);
}

/* Streams of one client are limited; those that have ended, and those that were refused, make
 * room. */
static void a_client_that_asks_too_much(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open_with(
		&router, (struct rt_frontend_options){ .tokenizer = fake_tokenizer, .streams_per_client = 2 });
	Cadre__V1__GenerateRequest request, bad;
	fake_request_of_text(&request, "x");
	cadre__v1__generate_request__init(&bad);
	struct fake_answer answers[2], more;

	fake_answer_start(&router, &bad, NULL, &more); /* counts until it is done, and no longer */
	rpc_run_until(&router.rpc, &more.result.done);
	assert_int_equal(more.result.code, CAD_RPC_INVALID_ARGUMENT);
	struct fake_request *engine[2];
	for (int i = 0; i < 2; i++)
		engine[i] = fake_admitted(&router, &request, NULL, &answers[i]);
	for (int i = 0; i < 3; i++) {
		fake_answer_start(&router, &request, NULL, &more);
		rpc_run_until(&router.rpc, &more.result.done);
		assert_int_equal(more.result.code, CAD_RPC_RESOURCE_EXHAUSTED);
		assert_string_equal(more.result.text,
			"the client at 127.0.0.1 has 2 streams open, which is this router's limit for one client (--streams-per-client): wait until one has ended");
	}
	assert_int_equal(router.fake.count, 2);

	fake_finish(engine[0], RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &answers[0].result.done);
	cad_rpc_client_cancel(answers[1].result.call);
	rpc_run_until(&router.rpc, &answers[1].result.done);
	for (int i = 0; i < 2; i++) {
		/* the router hears of a cancel a moment later */
		do {
			fake_answer_start(&router, &bad, NULL, &more);
			rpc_run_until(&router.rpc, &more.result.done);
		} while (more.result.code == CAD_RPC_RESOURCE_EXHAUSTED);
		engine[i] = fake_admitted(&router, &request, NULL, &answers[i]);
	}
	fake_router_close(&router);
}

/* Two tokens of one name are one client, from wherever they come; a token
 * without a name says nothing. */
static void clients_are_named_by_their_tokens(void **state)
{
	(void)state;
	static const char file[] =
		"0123456789abcdef generate alice\n0123456789ABCDEF generate alice\nbbbbbbbbbbbbbbbb generate bob\ncccccccccccccccc\n";
	static const struct {
		const char *token, *refused; /* NULL: it is admitted */
	} calls[] = {
		{ "Bearer 0123456789abcdef", NULL },
		{ "Bearer 0123456789ABCDEF", "the client 'alice' has 1 stream open" },
		{ "Bearer bbbbbbbbbbbbbbbb", NULL },
		{ "Bearer cccccccccccccccc", NULL },
		{ "Bearer cccccccccccccccc", "the client at 127.0.0.1 has 1 stream open" },
		{ "Bearer bbbbbbbbbbbbbbbb", "the client 'bob' has 1 stream open" },
	};
	struct cad_bearers bearers;
	struct cad_error error;
	must(cad_bearers_parse(file, sizeof file - 1, "test", &bearers, &error), &error);
	struct fake_router router;
	fake_router_open_with(&router,
		(struct rt_frontend_options){
			.tokenizer = fake_tokenizer,
			.streams_per_client = 1,
			.callers.bearers = &bearers,
		});
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	struct fake_answer answers[sizeof calls / sizeof calls[0]];

	for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		struct cad_rpc_metadata header = { "authorization", calls[i].token };
		const struct cad_rpc_call_options options = { .metadata = &header, .metadata_count = 1 };
		if (!calls[i].refused) {
			(void)fake_admitted(&router, &request, &options, &answers[i]);
			continue;
		}
		fake_answer_start(&router, &request, &options, &answers[i]);
		rpc_run_until(&router.rpc, &answers[i].result.done);
		assert_int_equal(answers[i].result.code, CAD_RPC_RESOURCE_EXHAUSTED);
		assert_non_null(strstr(answers[i].result.text, calls[i].refused));
	}
	fake_router_close(&router);
	cad_bearers_fini(&bearers);
}

/* Routing alone can be too much, too: what waits for a reader is bounded in bytes. */
static void routing_that_nobody_reads_is_bounded(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open(&router);
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	request.return_routing = true;
	struct fake_answer slow;
	struct fake_request *engine = fake_admitted(&router, &request, NULL, &slow);
	uint64_t sum = 0;
	uint32_t position = 0;
	for (; !atomic_load(&engine->paused); position += FAKE_STRIDE) {
		/* faster than the reactor, which has no turn here */
		fake_routing(engine, position, FAKE_STRIDE, &sum);
		assert_true(position < 200 * FAKE_STRIDE);
	}

	while (atomic_load(&engine->paused)) {
		slow.something = false;
		rpc_run_until(&router.rpc, &slow.something);
	}

	fake_token(engine, 5);
	fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &slow.result.done);
	assert_int_equal(slow.routing_rows, position);
	assert_true(slow.routing_sum == sum);
	fake_router_close(&router);
}

static void streams_at_the_end(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open(&router);
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	struct fake_answer finishing, endless;
	struct fake_request *first = fake_admitted(&router, &request, NULL, &finishing),
			    *second = fake_admitted(&router, &request, NULL, &endless);
	rt_frontend_drain(router.frontend, 100, fake_router_gone, &router);
	fake_token(first, 5);
	fake_finish(first, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &finishing.result.done);
	assert_int_equal(finishing.result.code, CAD_RPC_OK);
	rpc_run_until(&router.rpc, &router.gone);
	assert_true(second->cancelled);
	rpc_run_until(&router.rpc, &endless.result.done);
	assert_int_equal(endless.result.code, CAD_RPC_UNAVAILABLE);
	assert_string_equal(endless.result.text, "the router is stopping; ask another router, or again later");

	/* The engine stops, and says so for each request that it still has. */
	fake_fail(second, CAD_ERR_CANCELLED, "the engine stops");
	rpc_fixture_close(&router.rpc);
	rt_frontend_destroy(router.frontend);
}

/* ---- an engine in a thread of its own ---- */

struct crowd {
	struct fake_router router;
	atomic_bool stop;
	struct cad_random random;
};

static void *crowd_engine(void *argument)
{
	struct crowd *crowd = argument;
	struct fake *fake = &crowd->router.fake;
	bool busy = true;

	while (busy || !atomic_load(&crowd->stop)) {
		busy = false;
		for (uint32_t i = 0; i < atomic_load(&fake->count); i++) {
			struct fake_request *request = &fake->requests[i];
			if (request->over)
				continue;
			busy = true;
			if (atomic_load(&request->cancelled))
				fake_fail(request, CAD_ERR_CANCELLED, "cancelled");
			else if (request->generated == request->max_tokens)
				fake_finish(request, RT_FINISH_LENGTH);
			else if (!atomic_load(&request->paused))
				fake_token(request, (int32_t)(10 + request->generated));
		}
		sched_yield();
	}

	return NULL;
}

static void an_engine_in_its_own_thread(void **state)
{
	(void)state;
	enum { CLIENTS = 40 };
	uint64_t seed = (uint64_t)time(NULL);
	print_message("seed %llu\n", (unsigned long long)seed);
	static struct crowd crowd;
	static struct fake_answer answers[CLIENTS];
	memset(&crowd, 0, sizeof crowd);
	crowd.random.state = seed;
	fake_router_open(&crowd.router);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, crowd_engine, &crowd), 0);
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");

	for (int i = 0; i < CLIENTS; i++) {
		request.max_tokens = 1 + (uint32_t)cad_random_below(&crowd.random, 250);
		fake_answer_start(&crowd.router, &request, NULL, &answers[i]);
		if (cad_random_below(&crowd.random, 4) == 0)
			answers[i].result.cancel_at = 1 + (unsigned)cad_random_below(&crowd.random, 10);
	}

	for (int i = 0; i < CLIENTS; i++) {
		rpc_run_until(&crowd.router.rpc, &answers[i].result.done);
		for (size_t j = 0; j < answers[i].ids_count; j++)
			assert_int_equal(answers[i].ids[j], 10 + j);
		if (answers[i].result.cancel_at == 0 || answers[i].result.messages < answers[i].result.cancel_at) {
			assert_int_equal(answers[i].result.code, CAD_RPC_OK);
			assert_int_equal(answers[i].generated_tokens, answers[i].ids_count);
		}
	}

	rt_frontend_drain(crowd.router.frontend, 0, fake_router_gone, &crowd.router);
	rpc_run_until(&crowd.router.rpc, &crowd.router.gone);
	atomic_store(&crowd.stop, true);
	pthread_join(thread, NULL);
	rpc_fixture_close(&crowd.router.rpc);
	rt_frontend_destroy(crowd.router.frontend);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_client_that_goes),
		cmocka_unit_test(failures_of_the_engine),
		cmocka_unit_test(a_slow_reader_is_paused),
		cmocka_unit_test(a_reader_that_has_stopped),
		cmocka_unit_test(a_router_that_is_refused),
		cmocka_unit_test(a_client_that_asks_too_much),
		cmocka_unit_test(clients_are_named_by_their_tokens),
		cmocka_unit_test(routing_that_nobody_reads_is_bounded),
		cmocka_unit_test(streams_at_the_end),
		cmocka_unit_test(an_engine_in_its_own_thread),
	};
	return cmocka_run_group_tests(tests, fake_model_open, fake_model_close);
}
