/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC layer, server and client in one process over a real port. The services are Cadre's own
 * .proto files with handlers of this test:
 * Tokenize is unary, Generate a server stream, Join bidirectional.
 */
#include "cadre/v1/inference.pb-c.h"
#include "cadre/v1/placement.pb-c.h"
#include "common/rpc/guard.h"
#include "common/rpc/health.h"
#include "tests/support/must.h"
#include "tests/support/rpc_fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>
#include <grpc/grpc.h>

#define TOKENIZE "/cadre.v1.Inference/Tokenize"
#define GENERATE "/cadre.v1.Inference/Generate"
#define JOIN "/cadre.v1.Placement/Join"

enum { FLOOD_MESSAGES = 1000, FLOOD_BYTES = 20000 };

/* What the handlers saw. */
struct seen {
	unsigned sent, writable, done, cancelled, half_closed, hung;
	size_t queued_max;
	bool done_flag, full_flag;
	struct cad_rpc_call *parked; /* a Generate that waits */
	bool parked_flag;
	struct cad_rpc_health *health;
};

/* ---- handlers ---- */

/* "hang" is never answered, "fail" fails, everything else becomes one id per byte. */
static void tokenize(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	const Cadre__V1__TokenizeRequest *request = (const Cadre__V1__TokenizeRequest *)message;
	if (strcmp(request->text, "hang") == 0) {
		((struct seen *)cad_rpc_call_context(call))->hung++;
		return;
	}

	if (strcmp(request->text, "fail") == 0) {
		cad_rpc_call_finish(call, CAD_RPC_FAILED_PRECONDITION, "no: %s €", request->text);
		return;
	}

	size_t count = strlen(request->text);
	int32_t *ids = calloc(count + 1, sizeof *ids);
	for (size_t i = 0; i < count; i++)
		ids[i] = (unsigned char)request->text[i];
	Cadre__V1__TokenizeResponse response = CADRE__V1__TOKENIZE_RESPONSE__INIT;
	response.ids = ids;
	response.n_ids = count;
	cad_rpc_call_reply(call, &response.base);
	free(ids);
}

static void call_done(struct cad_rpc_call *call, bool cancelled)
{
	struct seen *seen = cad_rpc_call_context(call);
	seen->done++;
	seen->cancelled += cancelled;
	seen->done_flag = true;
	if (seen->parked == call)
		seen->parked = NULL;
	assert_false(cad_rpc_call_is_alive(call));

	/* All of these are no-ops now. */
	Cadre__V1__GenerateResponse response = CADRE__V1__GENERATE_RESPONSE__INIT;
	assert_int_equal(cad_rpc_call_send(call, &response.base), CAD_ERR_CANCELLED);
	cad_rpc_call_read(call);
	cad_rpc_call_finish(call, CAD_RPC_OK, NULL);
	cad_rpc_call_abort(call, CAD_RPC_INTERNAL, "x");
}

/* max_tokens messages of FLOOD_BYTES, as fast as the client takes them; 0: none, and no end. */
static void generate_more(struct cad_rpc_call *call)
{
	struct seen *seen = cad_rpc_call_context(call);
	uintptr_t left = (uintptr_t)cad_rpc_call_state(call);
	static char text[FLOOD_BYTES + 1];

	memset(text, 'x', FLOOD_BYTES);
	Cadre__V1__GenerateResponse response = CADRE__V1__GENERATE_RESPONSE__INIT;
	response.text = text;

	while (left > 0) {
		enum cad_status status = cad_rpc_call_send(call, &response.base);
		assert_true(status == CAD_OK || status == CAD_FULL);
		left--;
		seen->sent++;
		if (cad_rpc_call_queued_bytes(call) > seen->queued_max)
			seen->queued_max = cad_rpc_call_queued_bytes(call);
		if (status == CAD_FULL) {
			seen->full_flag = true;
			break;
		}
	}

	cad_rpc_call_set_state(call, (void *)left);
	if (left == 0)
		cad_rpc_call_finish(call, CAD_RPC_OK, NULL);
}

static void generate_writable(struct cad_rpc_call *call)
{
	struct seen *seen = cad_rpc_call_context(call);
	seen->writable++;
	generate_more(call);
}

static void generate(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	const Cadre__V1__GenerateRequest *request = (const Cadre__V1__GenerateRequest *)message;
	struct seen *seen = cad_rpc_call_context(call);

	if (request->max_tokens == 0) {
		seen->parked = call;
		seen->parked_flag = true;
		cad_rpc_call_send_headers(call);
		return;
	}
	cad_rpc_call_set_state(call, (void *)(uintptr_t)request->max_tokens);
	generate_more(call);
}

static void unused(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	(void)message;
	cad_rpc_call_finish(call, CAD_RPC_UNIMPLEMENTED, "not in this test");
}

static void join(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	const Cadre__V1__NodeReport *report = (const Cadre__V1__NodeReport *)message;
	assert_int_equal(report->report_case, CADRE__V1__NODE_REPORT__REPORT_HELLO);
	Cadre__V1__NodeWelcome welcome = CADRE__V1__NODE_WELCOME__INIT;
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;
	welcome.cluster = report->hello->id;
	order.order_case = CADRE__V1__NODE_ORDER__ORDER_WELCOME;
	order.welcome = &welcome;
	assert_int_equal(cad_rpc_call_send(call, &order.base), CAD_OK);
	cad_rpc_call_read(call);
}

static void join_half_close(struct cad_rpc_call *call)
{
	struct seen *seen = cad_rpc_call_context(call);
	seen->half_closed++;
	cad_rpc_call_finish(call, CAD_RPC_OK, NULL);
}

static const struct cad_rpc_method inference_methods[] = {
	{ "Generate", CAD_RPC_SERVER_STREAM,
		{
			.message = generate,
			.writable = generate_writable,
			.done = call_done,
		},
		CAD_RIGHT_READ },
	{ "Tokenize", CAD_RPC_UNARY, { .message = tokenize, .done = call_done }, CAD_RIGHT_READ },
	{ "Detokenize", CAD_RPC_UNARY, { .message = unused }, CAD_RIGHT_READ },
	{ "GetModel", CAD_RPC_UNARY, { .message = unused }, CAD_RIGHT_READ },
};

static const struct cad_rpc_method placement_methods[] = {
	{ "Join", CAD_RPC_BIDI, { .message = join, .half_close = join_half_close, .done = call_done }, CAD_RIGHT_READ },
};

/* ---- the server of each test ---- */

struct test {
	struct rpc_fixture rpc;
	struct seen seen;
	struct cad_rpc_service inference, placement;
	struct cad_rpc_method placement_methods[RPC_METHODS_MAX];
};

static void test_open(struct test *test, const struct cad_rpc_server_config *config,
	const struct cad_rpc_channel_config *channel_config)
{
	memset(test, 0, sizeof *test);
	rpc_fixture_open(&test->rpc, config);
	test->inference =
		(struct cad_rpc_service){ &cadre__v1__inference__descriptor, inference_methods, 4, &test->seen };
	size_t count =
		rpc_all_methods(&cadre__v1__placement__descriptor, placement_methods, 1, test->placement_methods);
	test->placement = (struct cad_rpc_service){ &cadre__v1__placement__descriptor, test->placement_methods, count,
		&test->seen };
	cad_rpc_server_add(test->rpc.server, &test->inference);
	cad_rpc_server_add(test->rpc.server, &test->placement);
	rpc_fixture_start(&test->rpc, NULL, NULL, channel_config);
}

static void tokenize_call(
	struct test *test, const char *text, const struct cad_rpc_call_options *options, struct rpc_result *result)
{
	Cadre__V1__TokenizeRequest request = CADRE__V1__TOKENIZE_REQUEST__INIT;
	request.text = (char *)(uintptr_t)text;
	rpc_call(&test->rpc, TOKENIZE, &request.base, &cadre__v1__tokenize_response__descriptor, options, result);
}

static void generate_start(
	struct test *test, unsigned messages, const struct cad_rpc_call_options *options, struct rpc_result *result)
{
	Cadre__V1__GenerateRequest request = CADRE__V1__GENERATE_REQUEST__INIT;
	request.max_tokens = messages;
	rpc_start(&test->rpc, GENERATE, &request.base, &cadre__v1__generate_response__descriptor, options, result);
}

/* ---- tests ---- */

static void ids_are_abc(struct rpc_result *result, const ProtobufCMessage *message)
{
	(void)result;
	const Cadre__V1__TokenizeResponse *response = (const Cadre__V1__TokenizeResponse *)message;
	assert_int_equal(response->n_ids, 3);
	assert_int_equal(response->ids[0], 'a');
	assert_int_equal(response->ids[2], 'c');
}

static void unary(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);
	struct rpc_result result = { .on_message = ids_are_abc };
	tokenize_call(&test, "abc", NULL, &result);
	assert_int_equal(result.code, CAD_RPC_OK);
	assert_int_equal(result.messages, 1);

	/* a reply that is not what the client expects */
	struct rpc_result wrong = { 0 };
	Cadre__V1__TokenizeRequest request = CADRE__V1__TOKENIZE_REQUEST__INIT;
	request.text = (char[]){ "\x7f\x7f" };
	rpc_call(&test.rpc, TOKENIZE, &request.base, &cadre__v1__map__descriptor, NULL, &wrong);
	assert_int_equal(wrong.code, CAD_RPC_INTERNAL);
	assert_int_equal(wrong.messages, 0);
	rpc_fixture_close(&test.rpc);
	assert_int_equal(test.seen.done, 2);
}

static void status_and_sentence(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);
	struct rpc_result failed = { 0 }, unknown = { 0 };
	tokenize_call(&test, "fail", NULL, &failed);
	assert_int_equal(failed.code, CAD_RPC_FAILED_PRECONDITION);
	assert_string_equal(failed.text, "no: fail €");
	Cadre__V1__GetModelRequest request = CADRE__V1__GET_MODEL_REQUEST__INIT;
	rpc_call(&test.rpc, "/cadre.v1.Inference/Nonsense", &request.base, &cadre__v1__get_model_response__descriptor,
		NULL, &unknown);
	assert_int_equal(unknown.code, CAD_RPC_UNIMPLEMENTED);
	assert_string_equal(unknown.text, "this server has no method /cadre.v1.Inference/Nonsense");

	/* headers that HTTP/2 does not allow never leave */
	struct cad_rpc_metadata bad = { "Upper", "x" };
	struct rpc_result never = { 0 };
	assert_int_equal(cad_rpc_stream(test.rpc.channel, GENERATE, &cadre__v1__generate_response__descriptor,
				 &(struct cad_rpc_call_options){
					 .metadata = &bad,
					 .metadata_count = 1,
				 },
				 &rpc_result_handler, &never, &never.call),
		CAD_ERR_INVALID);
	rpc_fixture_close(&test.rpc);
}

static void slow_reader_stalls_the_stream_alone(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);
	struct rpc_result slow = { .read_max = 1 }, other = { 0 };
	generate_start(&test, FLOOD_MESSAGES, NULL, &slow);
	rpc_run_until(&test.rpc, &test.seen.full_flag);
	tokenize_call(&test, "abc", NULL, &other); /* others go on */
	assert_int_equal(other.code, CAD_RPC_OK);
	assert_false(slow.done);
	assert_true(test.seen.sent < FLOOD_MESSAGES);
	assert_true(test.seen.queued_max < (256u << 10) + FLOOD_BYTES + 64);
	slow.read_max = 0;
	cad_rpc_client_read(slow.call);
	rpc_run_until(&test.rpc, &slow.done);
	assert_int_equal(slow.code, CAD_RPC_OK);
	assert_int_equal(slow.messages, FLOOD_MESSAGES);
	assert_true(slow.bytes >= (size_t)FLOOD_MESSAGES * FLOOD_BYTES);
	assert_true(test.seen.writable > 0);
	rpc_fixture_close(&test.rpc);
	assert_int_equal(test.seen.cancelled, 0);
}

struct pings {
	unsigned sent, received;
	bool done;
	enum cad_rpc_code code;
};

static void ping(struct cad_rpc_client_call *call, struct pings *pings)
{
	char id[16];
	snprintf(id, sizeof id, "n%u", pings->sent++);
	Cadre__V1__NodeHello hello = CADRE__V1__NODE_HELLO__INIT;
	Cadre__V1__NodeReport report = CADRE__V1__NODE_REPORT__INIT;
	hello.id = id;
	report.report_case = CADRE__V1__NODE_REPORT__REPORT_HELLO;
	report.hello = &hello;
	assert_int_equal(cad_rpc_client_send(call, &report.base), CAD_OK);
}

static void pong(struct cad_rpc_client_call *call, const ProtobufCMessage *message)
{
	struct pings *pings = cad_rpc_client_context(call);
	const Cadre__V1__NodeOrder *order = (const Cadre__V1__NodeOrder *)message;
	char id[16];

	snprintf(id, sizeof id, "n%u", pings->received++);
	assert_string_equal(order->welcome->cluster, id);
	if (pings->received == 50)
		cad_rpc_client_close_send(call);
	else
		ping(call, pings);
	cad_rpc_client_read(call);
}

static void pings_done(struct cad_rpc_client_call *call, enum cad_rpc_code code, const char *text)
{
	(void)text;
	struct pings *pings = cad_rpc_client_context(call);
	pings->code = code;
	pings->done = true;
}

static void bidi(void **state)
{
	(void)state;
	static const struct cad_rpc_client_handler handler = { .message = pong, .done = pings_done };
	struct test test;
	test_open(&test, NULL, NULL);
	struct pings pings = { 0 };
	struct cad_rpc_client_call *call;
	assert_int_equal(cad_rpc_stream(test.rpc.channel, JOIN, &cadre__v1__node_order__descriptor, NULL, &handler,
				 &pings, &call),
		CAD_OK);
	ping(call, &pings);
	rpc_run_until(&test.rpc, &pings.done);
	assert_int_equal(pings.code, CAD_RPC_OK);
	assert_int_equal(pings.received, 50);
	assert_int_equal(test.seen.half_closed, 1);
	rpc_fixture_close(&test.rpc);
}

static void cancel_is_noticed(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);

	/* while the server waits */
	struct rpc_result parked = { 0 };
	generate_start(&test, 0, NULL, &parked);
	rpc_run_until(&test.rpc, &test.seen.parked_flag);
	cad_rpc_client_cancel(parked.call);
	rpc_run_until(&test.rpc, &test.seen.done_flag);
	rpc_run_until(&test.rpc, &parked.done);
	assert_int_equal(parked.code, CAD_RPC_CANCELLED);
	assert_int_equal(test.seen.cancelled, 1);

	/* while its queue is full */
	test.seen.done_flag = false;
	struct rpc_result flooded = { .cancel_at = 2 };
	generate_start(&test, 1000000, NULL, &flooded);
	rpc_run_until(&test.rpc, &test.seen.done_flag);
	rpc_run_until(&test.rpc, &flooded.done);
	assert_int_equal(flooded.code, CAD_RPC_CANCELLED);
	assert_int_equal(flooded.messages, 2);
	assert_int_equal(test.seen.cancelled, 2);
	assert_true(test.seen.sent < 1000);

	/* before it has left */
	struct rpc_result early = { 0 };
	generate_start(&test, 0, NULL, &early);
	cad_rpc_client_cancel(early.call);
	rpc_run_until(&test.rpc, &early.done);
	assert_int_equal(early.code, CAD_RPC_CANCELLED);
	rpc_fixture_close(&test.rpc);
}

static void deadline(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);

	/* on a busy machine the time may be over before the server hears of the call */
	for (int64_t timeout_ms = 50; test.seen.hung == 0; timeout_ms *= 2) {
		struct rpc_result result = { 0 };
		tokenize_call(&test, "hang", &(struct cad_rpc_call_options){ .timeout_ms = timeout_ms }, &result);
		assert_int_equal(result.code, CAD_RPC_DEADLINE_EXCEEDED);
	}

	rpc_run_until(&test.rpc, &test.seen.done_flag);
	assert_true(test.seen.cancelled > 0);
	struct rpc_result parked = { 0 };
	generate_start(&test, 0, &(struct cad_rpc_call_options){ .timeout_ms = 60000 }, &parked);
	rpc_run_until(&test.rpc, &test.seen.parked_flag);
	assert_in_range(cad_rpc_call_time_left_ms(test.seen.parked), 30000, 61000);
	cad_rpc_call_finish(test.seen.parked, CAD_RPC_OK, NULL);
	rpc_run_until(&test.rpc, &parked.done);
	rpc_fixture_close(&test.rpc);
}

static void malformed_requests(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);

	/* ids as packed bytes 80 01 are no UTF-8 in the place of `text` */
	struct rpc_result not_utf8 = { 0 }, other_type = { 0 }, after = { 0 };
	int32_t id = 128;
	Cadre__V1__DetokenizeRequest bytes = CADRE__V1__DETOKENIZE_REQUEST__INIT;
	bytes.ids = &id;
	bytes.n_ids = 1;
	rpc_call(&test.rpc, TOKENIZE, &bytes.base, &cadre__v1__tokenize_response__descriptor, NULL, &not_utf8);
	assert_int_equal(not_utf8.code, CAD_RPC_INVALID_ARGUMENT);
	assert_string_equal(not_utf8.text, "cadre.v1.TokenizeRequest.text: byte 0 is not valid UTF-8, or a NUL");

	/* a number in the place of `text` */
	Cadre__V1__Usage number = CADRE__V1__USAGE__INIT;
	number.prompt_tokens = 1;
	rpc_call(&test.rpc, TOKENIZE, &number.base, &cadre__v1__tokenize_response__descriptor, NULL, &other_type);
	assert_int_equal(other_type.code, CAD_RPC_INVALID_ARGUMENT);

	/* the connection is as good as before, and no handler saw any of it */
	tokenize_call(&test, "abc", NULL, &after);
	assert_int_equal(after.code, CAD_RPC_OK);
	rpc_fixture_close(&test.rpc);
	assert_int_equal(test.seen.done, 1);
}

static void no_message_or_two(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);
	struct rpc_result none = { 0 };
	assert_int_equal(cad_rpc_stream(test.rpc.channel, TOKENIZE, &cadre__v1__tokenize_response__descriptor, NULL,
				 &rpc_result_handler, &none, &none.call),
		CAD_OK);
	cad_rpc_client_close_send(none.call);
	rpc_run_until(&test.rpc, &none.done);
	assert_int_not_equal(none.code, CAD_RPC_OK);
	assert_int_equal(test.seen.done, 0);
	rpc_fixture_close(&test.rpc);
}

static void too_large(void **state)
{
	(void)state;
	struct test test;
	test_open(&test,
		&(struct cad_rpc_server_config){
			.receive_bytes_max = 1000,
		},
		&(struct cad_rpc_channel_config){
			.receive_bytes_max = 100,
		});
	char text[2000];
	memset(text, 'x', sizeof text);
	text[1999] = 0;
	struct rpc_result request = { 0 }, reply = { 0 }, fits = { 0 };
	tokenize_call(&test, text, NULL, &request);
	assert_int_equal(request.code, CAD_RPC_RESOURCE_EXHAUSTED);
	text[150] = 0;
	tokenize_call(&test, text, NULL, &reply);
	assert_int_equal(reply.code, CAD_RPC_RESOURCE_EXHAUSTED);
	text[50] = 0;
	tokenize_call(&test, text, NULL, &fits);
	assert_int_equal(fits.code, CAD_RPC_OK);
	rpc_fixture_close(&test.rpc);
}

static void limit_of_calls(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, &(struct cad_rpc_server_config){ .calls_max = 1 }, NULL);
	struct rpc_result parked = { 0 }, refused = { 0 }, later = { 0 };
	generate_start(&test, 0, NULL, &parked);
	rpc_run_until(&test.rpc, &test.seen.parked_flag);
	tokenize_call(&test, "abc", NULL, &refused);
	assert_int_equal(refused.code, CAD_RPC_RESOURCE_EXHAUSTED);
	assert_non_null(strstr(refused.text, "limit of 1 concurrent calls"));
	cad_rpc_call_finish(test.seen.parked, CAD_RPC_OK, NULL);
	rpc_run_until(&test.rpc, &parked.done);

	/* The slot is free when the server's own events have run; the client may be faster. */
	do {
		memset(&later, 0, sizeof later);
		tokenize_call(&test, "abc", NULL, &later);
	} while (later.code == CAD_RPC_RESOURCE_EXHAUSTED);
	assert_int_equal(later.code, CAD_RPC_OK);
	rpc_fixture_close(&test.rpc);
}

static void flag_set(void *context) { *(bool *)context = true; }

static void drain_lets_calls_finish(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);
	struct rpc_result running = { 0 }, late = { 0 };
	generate_start(&test, 0, NULL, &running);
	rpc_run_until(&test.rpc, &test.seen.parked_flag);
	bool gone = false;
	cad_rpc_server_drain(test.rpc.server, 60000, flag_set, &gone);
	cad_rpc_server_drain(test.rpc.server, 0, flag_set, NULL); /* ignored */
	tokenize_call(&test, "abc", NULL, &late);
	assert_int_not_equal(late.code, CAD_RPC_OK); /* UNAVAILABLE, or CANCELLED when it crosses the news */
	assert_false(gone);
	cad_rpc_call_finish(test.seen.parked, CAD_RPC_OK, NULL);
	rpc_run_until(&test.rpc, &gone);
	rpc_run_until(&test.rpc, &running.done);
	assert_int_equal(running.code, CAD_RPC_OK);
	test.rpc.server = NULL;
	rpc_fixture_close(&test.rpc);
}

static void drain_cuts_what_does_not_end(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);
	struct rpc_result running = { 0 };
	generate_start(&test, 0, NULL, &running);
	rpc_run_until(&test.rpc, &test.seen.parked_flag);
	bool gone = false;
	cad_rpc_server_drain(test.rpc.server, 20, flag_set, &gone);
	rpc_run_until(&test.rpc, &gone);
	rpc_run_until(&test.rpc, &running.done);
	assert_int_equal(running.code, CAD_RPC_UNAVAILABLE);
	assert_string_equal(running.text, "the server is stopping; ask another one, or again later");
	assert_int_equal(test.seen.done, 1);
	assert_int_equal(test.seen.cancelled, 0);
	test.rpc.server = NULL;
	rpc_fixture_close(&test.rpc);
}

/* It cannot be told anything, and holds nobody up. */
static void drain_leaves_who_reads_nothing(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);
	struct rpc_result slow = { .read_max = 1 };
	generate_start(&test, FLOOD_MESSAGES, NULL, &slow);
	rpc_run_until(&test.rpc, &test.seen.full_flag);
	bool gone = false;
	cad_rpc_server_drain(test.rpc.server, 0, flag_set, &gone);
	rpc_run_until(&test.rpc, &gone);
	assert_int_equal(test.seen.done, 1);
	rpc_run_until(&test.rpc, &slow.done);
	assert_int_not_equal(slow.code, CAD_RPC_OK);
	test.rpc.server = NULL;
	rpc_fixture_close(&test.rpc);
}

static void never_started(void **state)
{
	(void)state;
	struct rpc_fixture rpc;
	rpc_fixture_open(&rpc, NULL);
	rpc_fixture_close(&rpc);
}

static void server_goes_and_comes_back(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL,
		&(struct cad_rpc_channel_config){
			.backoff_ms_max = 100,
			.wait_for_ready = true,
			.own_connection = true,
		});
	struct rpc_result before = { 0 }, after = { 0 };
	tokenize_call(&test, "abc", NULL, &before);
	bool gone = false;
	cad_rpc_server_drain(test.rpc.server, 0, flag_set, &gone);
	rpc_run_until(&test.rpc, &gone);
	struct cad_error error;
	must(cad_rpc_server_create(test.rpc.reactor, NULL, &test.rpc.server, &error), &error);
	cad_rpc_server_add(test.rpc.server, &test.inference);
	must(cad_rpc_server_listen(test.rpc.server, test.rpc.target, NULL, NULL, &error), &error);
	cad_rpc_server_start(test.rpc.server);

	/* The first may still go to the connection that is gone. */
	do {
		memset(&after, 0, sizeof after);
		tokenize_call(&test, "abc", NULL, &after);
	} while (after.code == CAD_RPC_UNAVAILABLE);
	assert_int_equal(after.code, CAD_RPC_OK);
	rpc_fixture_close(&test.rpc);
}

static void listen_errors(void **state)
{
	(void)state;
	struct test test;
	test_open(&test, NULL, NULL);
	struct cad_rpc_server *second;
	struct cad_error error;
	must(cad_rpc_server_create(test.rpc.reactor, NULL, &second, &error), &error);
	assert_int_equal(cad_rpc_server_listen(second, test.rpc.target, NULL, NULL, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, test.rpc.target));
	assert_non_null(strstr(error.text, "Address already in use"));
	assert_int_equal(cad_rpc_server_listen(second, "nonsense", NULL, NULL, &error), CAD_ERR_IO);
	assert_int_equal(cad_rpc_server_listen(second, "127.0.0.1:0",
				 &(struct cad_tls_files){
					 .certificate = "/nonexistent.pem",
					 .key = "/nonexistent.key",
				 },
				 NULL, &error),
		CAD_ERR_IO);
	assert_string_equal(
		error.text, "cannot read the certificate of TLS from '/nonexistent.pem': No such file or directory");
	cad_rpc_server_drain(second, 0, NULL, NULL);
	rpc_fixture_close(&test.rpc);
}

static void nobody_listens(void **state)
{
	(void)state;
	struct rpc_fixture rpc;
	rpc_fixture_open(&rpc, NULL);
	struct cad_error error;
	uint16_t port;
	must(cad_rpc_server_listen(rpc.server, "127.0.0.1:0", NULL, &port, &error), &error);
	bool gone = false;
	cad_rpc_server_drain(rpc.server, 0, flag_set, &gone);
	rpc_run_until(&rpc, &gone);
	rpc.server = NULL;
	char target[32];
	snprintf(target, sizeof target, "127.0.0.1:%u", port);
	must(cad_rpc_channel_create(rpc.reactor, target, NULL, NULL, &rpc.channel, &error), &error);
	struct rpc_result result = { 0 };
	Cadre__V1__GetModelRequest request = CADRE__V1__GET_MODEL_REQUEST__INIT;
	rpc_call(&rpc, "/cadre.v1.Inference/GetModel", &request.base, &cadre__v1__get_model_response__descriptor, NULL,
		&result);
	assert_int_equal(result.code, CAD_RPC_UNAVAILABLE);
	rpc_fixture_close(&rpc);
}

/* Near the limit of file descriptors new connections are refused and counted; gRPC 1.51 would stop
 * listening for good when it ran into the limit itself. The last test: the limit is the whole
 * process's. */
static void descriptors_run_out(void **state)
{
	(void)state;
	if (strncmp(grpc_version_string(), "29.", 3) != 0)
		skip(); /* only that version is guarded */

	enum { LIMIT = 128 };
	struct rlimit before, low;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	low = (struct rlimit){ LIMIT, before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	struct test test;
	test_open(&test, NULL, NULL);
	struct rpc_result admitted = { 0 }, refused = { 0 };
	tokenize_call(&test, "abc", NULL, &admitted);
	assert_int_equal(admitted.code, CAD_RPC_OK);
	assert_int_equal(cad_rpc_refused_connections(), 0);

	int taken[LIMIT], count = 0;
	do
		taken[count] = dup(STDERR_FILENO);
	while (taken[count++] < LIMIT / 2);
	struct cad_rpc_channel *first = test.rpc.channel; /* keeps its descriptors meanwhile */
	rpc_fixture_connect(&test.rpc, test.rpc.port, NULL, &(struct cad_rpc_channel_config){ .own_connection = true });
	tokenize_call(&test, "abc", &(struct cad_rpc_call_options){ .timeout_ms = 20000 }, &refused);
	assert_int_equal(refused.code, CAD_RPC_UNAVAILABLE);
	assert_true(cad_rpc_refused_connections() > 0);

	while (count > 0)
		close(taken[--count]);
	cad_rpc_channel_destroy(first);
	rpc_fixture_close(&test.rpc);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unary),
		cmocka_unit_test(status_and_sentence),
		cmocka_unit_test(slow_reader_stalls_the_stream_alone),
		cmocka_unit_test(bidi),
		cmocka_unit_test(cancel_is_noticed),
		cmocka_unit_test(deadline),
		cmocka_unit_test(malformed_requests),
		cmocka_unit_test(no_message_or_two),
		cmocka_unit_test(too_large),
		cmocka_unit_test(limit_of_calls),
		cmocka_unit_test(drain_lets_calls_finish),
		cmocka_unit_test(drain_cuts_what_does_not_end),
		cmocka_unit_test(drain_leaves_who_reads_nothing),
		cmocka_unit_test(never_started),
		cmocka_unit_test(server_goes_and_comes_back),
		cmocka_unit_test(listen_errors),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(descriptors_run_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
