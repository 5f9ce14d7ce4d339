/* SPDX-License-Identifier: Apache-2.0 */
/* The door of the gRPC server: what calls may bring along. */
#include "cadre/v1/inference.pb-c.h"
#include "tests/support/rpc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define TOKENIZE "/cadre.v1.Inference/Tokenize"
#define GENERATE "/cadre.v1.Inference/Generate"

struct test {
	struct rpc_fixture rpc;
	struct cad_rpc_service service;
	struct cad_rpc_call *parked; /* a Generate that waits */
	bool parked_flag;
};

static void tokenize_handler(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	(void)message;
	Cadre__V1__TokenizeResponse response = CADRE__V1__TOKENIZE_RESPONSE__INIT;
	cad_rpc_call_reply(call, &response.base);
}

static void generate_handler(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	(void)message;
	struct test *test = cad_rpc_call_context(call);
	test->parked = call;
	test->parked_flag = true;
	cad_rpc_call_send_headers(call);
}

static const struct cad_rpc_method methods[] = {
	{ "Generate", CAD_RPC_SERVER_STREAM, { .message = generate_handler }, CAD_RIGHT_READ },
	{ "Tokenize", CAD_RPC_UNARY, { .message = tokenize_handler }, CAD_RIGHT_READ },
	{ "Detokenize", CAD_RPC_UNARY, { .message = tokenize_handler }, CAD_RIGHT_READ },
	{ "GetModel", CAD_RPC_UNARY, { .message = tokenize_handler }, CAD_RIGHT_READ },
};

static void test_open(struct test *test, const struct cad_rpc_server_config *config)
{
	memset(test, 0, sizeof *test);
	rpc_fixture_open(&test->rpc, config);
	test->service = (struct cad_rpc_service){ &cadre__v1__inference__descriptor, methods, 4, test };
	cad_rpc_server_add(test->rpc.server, &test->service);
	rpc_fixture_start(&test->rpc, NULL, NULL, NULL);
}

static void tokenize(struct test *test, const struct cad_rpc_call_options *options, struct rpc_result *result)
{
	Cadre__V1__TokenizeRequest request = CADRE__V1__TOKENIZE_REQUEST__INIT;
	rpc_call(&test->rpc, TOKENIZE, &request.base, &cadre__v1__tokenize_response__descriptor, options, result);
}

static void generate_start(struct test *test, struct rpc_result *result)
{
	Cadre__V1__GenerateRequest request = CADRE__V1__GENERATE_REQUEST__INIT;
	rpc_start(&test->rpc, GENERATE, &request.base, &cadre__v1__generate_response__descriptor, NULL, result);
	rpc_run_until(&test->rpc, &test->parked_flag);
}

/* One header of that size, or many; every other call of the connection goes on. */
static void long_headers_end_their_own_call_alone(void **state)
{
	(void)state;
	enum { HEADERS = 400, LONG = 300 << 10 };
	struct test test;
	test_open(&test, NULL);
	struct rpc_result neighbour = { 0 }, fits = { 0 }, path = { 0 };
	generate_start(&test, &neighbour);

	static char value[LONG + 1], name[LONG + 1];
	memset(value, 'v', LONG);
	const size_t lengths[] = { 17000, 100000, LONG };
	for (size_t i = 0; i < 3; i++) {
		struct cad_rpc_metadata header = { "note", value + LONG - lengths[i] };
		struct rpc_result refused = { 0 };
		tokenize(&test, &(struct cad_rpc_call_options){ .metadata = &header, .metadata_count = 1 }, &refused);
		assert_int_equal(refused.code, CAD_RPC_RESOURCE_EXHAUSTED);
		assert_non_null(strstr(refused.text, "and this server takes 16384: send less metadata"));
	}

	struct cad_rpc_metadata headers[HEADERS];
	for (size_t i = 0; i < HEADERS; i++)
		headers[i] = (struct cad_rpc_metadata){ "a", "0123456789" };
	struct rpc_result many = { 0 };
	tokenize(&test, &(struct cad_rpc_call_options){ .metadata = headers, .metadata_count = HEADERS }, &many);
	assert_int_equal(many.code, CAD_RPC_RESOURCE_EXHAUSTED);
	tokenize(&test, &(struct cad_rpc_call_options){ .metadata = headers, .metadata_count = 300 }, &fits);
	assert_int_equal(fits.code, CAD_RPC_OK);

	/* the path is a header, too */
	snprintf(name, sizeof name, "/%.20000s", value);
	Cadre__V1__TokenizeRequest request = CADRE__V1__TOKENIZE_REQUEST__INIT;
	rpc_call(&test.rpc, name, &request.base, &cadre__v1__tokenize_response__descriptor, NULL, &path);
	assert_int_equal(path.code, CAD_RPC_RESOURCE_EXHAUSTED);

	assert_false(neighbour.done);
	cad_rpc_call_finish(test.parked, CAD_RPC_OK, NULL);
	rpc_run_until(&test.rpc, &neighbour.done);
	assert_int_equal(neighbour.code, CAD_RPC_OK);
	rpc_fixture_close(&test.rpc);
}

/* Says which token came, and where to. */
static enum cad_rpc_code tell_bearer(void *context, struct cad_rpc_call *call, struct cad_error *why)
{
	(void)context;
	const void *token;
	size_t size;
	enum cad_status status = cad_rpc_call_bearer(call, &token, &size);
	cad_error_set(why, CAD_ERR_REFUSED, "%s %.*s for %s", cad_status_name(status), status == CAD_OK ? (int)size : 0,
		status == CAD_OK ? (const char *)token : "", cad_rpc_call_method(call)->name);
	return CAD_RPC_ABORTED;
}

static void bearer(void **state)
{
	(void)state;
	static const struct {
		const char *header, *says;
	} table[] = {
		{ "Bearer secret", "OK secret for Tokenize" },
		{ "BEARER secret ", "OK secret  for Tokenize" },
		{ "Bearer ", "OK  for Tokenize" },
		{ "Bearer", "ERR_INVALID  for Tokenize" },
		{ "Bearersecret", "ERR_INVALID  for Tokenize" },
		{ "secret", "ERR_INVALID  for Tokenize" },
		{ "", "ERR_INVALID  for Tokenize" },
		{ NULL, "ERR_NOT_FOUND  for Tokenize" },
	};
	struct test test;
	test_open(&test, &(struct cad_rpc_server_config){ .authorize = tell_bearer });
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct cad_rpc_metadata header = { "authorization", table[i].header };
		struct rpc_result result = { 0 };
		tokenize(&test,
			&(struct cad_rpc_call_options){ .metadata = &header, .metadata_count = header.value != NULL },
			&result);
		assert_int_equal(result.code, CAD_RPC_ABORTED);
		assert_string_equal(result.text, table[i].says);
	}
	rpc_fixture_close(&test.rpc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(long_headers_end_their_own_call_alone),
		cmocka_unit_test(bearer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
