/* SPDX-License-Identifier: Apache-2.0 */
/* What cadrectl asks for and what came of it, to JSON and back. */
#include "orchestration/cli/request.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum cad_status parse(const char *json, struct cl_request *request, struct cad_error *error)
{
	json_t *parsed = json_loads(json, JSON_ALLOW_NUL, NULL);
	assert_non_null(parsed);
	enum cad_status status = cl_request_from_json(parsed, request, error);
	json_decref(parsed);
	return status;
}

static void ids_are_numbers_with_commas(void **state)
{
	(void)state;
	struct cad_ids ids = { 0 };
	struct cad_error error;
	must(cl_request_parse_ids("5,0,2147483647", &ids, &error), &error);
	assert_int_equal(ids.count, 3);
	assert_int_equal(ids.ids[2], INT32_MAX);
	cad_ids_fini(&ids);
	static const char *const wrong[] = { "", ",", "1,", "1,,2", "x", "1;2", "-1", "2147483648", "1 ,2",
		"99999999999999999999" };
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct cad_ids none = { 0 };
		assert_int_equal(cl_request_parse_ids(wrong[i], &none, &error), CAD_ERR_INVALID);
		cad_ids_fini(&none);
	}
}

static void request_survives_json(void **state)
{
	(void)state;
	struct cl_request again;
	struct cad_error error;
	int32_t ids[] = { 3, 1, 4 };
	const struct cl_request requests[] = {
		{
			.text = "a \"quoted\" \n text",
			.max_tokens = UINT32_MAX,
			.ignore_eos = true,
			.temperature = 0.1f,
			.top_p = 0.9f,
			.min_p = 1e-20f,
			.top_k = 40,
			.seed = UINT64_MAX,
			.stop = "\n\n",
		},
		{ .ids = { .ids = ids, .count = 3 }, .seed = INT64_MAX },
	};
	for (size_t i = 0; i < 2; i++) {
		json_t *json = cl_request_to_json(&requests[i]);
		assert_non_null(json);
		must(cl_request_from_json(json, &again, &error), &error);
		json_decref(json);
		if (requests[i].text)
			assert_string_equal(again.text, requests[i].text);
		else
			assert_memory_equal(again.ids.ids, ids, sizeof ids);
		assert_int_equal(again.max_tokens, requests[i].max_tokens);
		assert_int_equal(again.ignore_eos, requests[i].ignore_eos);
		assert_true(again.temperature == requests[i].temperature && again.top_p == requests[i].top_p &&
			again.min_p == requests[i].min_p);
		assert_int_equal(again.top_k, requests[i].top_k);
		assert_true(again.seed == requests[i].seed);
		assert_int_equal(again.stop != NULL, requests[i].stop != NULL);
		cl_request_fini(&again);
	}
}

static void wrong_requests_name_the_member(void **state)
{
	(void)state;
	static const struct {
		const char *json, *says;
	} cases[] = {
		{ "[]", "no \"request\"" },
		{ "{}", "neither \"text\" nor \"tokens\"" },
		{ "{\"text\": 5}", "\"text\" is not a string" },
		{ "{\"text\": \"a\", \"max_tokens\": -1}", "\"max_tokens\" is not a number from 0 to 4294967295" },
		{ "{\"text\": \"a\", \"max_tokens\": 4294967296}", "\"max_tokens\"" },
		{ "{\"text\": \"a\", \"seed\": \"12x\"}", "\"seed\"" },
		{ "{\"text\": \"a\", \"seed\": 1.5}", "\"seed\"" },
		{ "{\"text\": \"a\", \"temperature\": \"hot\"}", "\"temperature\" is not a number" },
		{ "{\"tokens\": [1, \"b\"]}", "tokens[1] is not a token id" },
		{ "{\"tokens\": [1, -2]}", "tokens[1] is not a token id" },
		{ "{\"text\": \"a\\u0000b\"}", "\"text\" has U+0000" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct cl_request request;
		struct cad_error error;
		assert_int_equal(parse(cases[i].json, &request, &error), CAD_ERR_CORRUPT);
		if (!strstr(error.text, cases[i].says))
			fail_msg("%s: '%s'", cases[i].json, error.text);
	}
}

static void message_borrows_from_the_request(void **state)
{
	(void)state;
	struct cl_request_message message;
	int32_t ids[] = { 7, 8 };
	const struct cl_request tokens = { .ids = { .ids = ids, .count = 2 },
		.temperature = 0.5f,
		.stop = "x",
		.routing = true },
				text = { .text = "hi" };
	cl_request_to_message(&tokens, &message);
	assert_int_equal(message.message.prompt_case, CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS);
	assert_int_equal(message.message.tokens->n_ids, 2);
	assert_true(message.message.sampling->temperature == 0.5f);
	assert_int_equal(message.message.n_stop, 1);
	assert_true(message.message.return_routing);
	assert_true(protobuf_c_message_get_packed_size(&message.message.base) > 0);
	cl_request_to_message(&text, &message);
	assert_int_equal(message.message.prompt_case, CADRE__V1__GENERATE_REQUEST__PROMPT_TEXT);
	assert_int_equal(message.message.n_stop, 0);
}

static void result_adds_up_messages(void **state)
{
	(void)state;
	struct cl_result result = { 0 };
	struct cad_error error;
	const struct cl_request request = { .text = "p" };
	int32_t first[] = { 1, 2 }, second[] = { 3 };
	Cadre__V1__GenerateResponse response = CADRE__V1__GENERATE_RESPONSE__INIT;
	Cadre__V1__Usage usage = CADRE__V1__USAGE__INIT;
	Cadre__V1__Capacity capacity = CADRE__V1__CAPACITY__INIT;
	Cadre__V1__Absent absent = CADRE__V1__ABSENT__INIT;
	Cadre__V1__LayerRouting layer = CADRE__V1__LAYER_ROUTING__INIT, *layers[] = { &layer };
	Cadre__V1__TokenRouting token = CADRE__V1__TOKEN_ROUTING__INIT, *routing[] = { &token };
	uint32_t experts[] = { 4 };
	float weights[] = { 0.25f };
	char *nodes[] = { "n" };
	layer.layer = 2, layer.experts = experts, layer.n_experts = 1, layer.weights = weights, layer.n_weights = 1,
	layer.nodes = nodes, layer.n_nodes = 1;
	token.position = 9, token.layers = layers, token.n_layers = 1;
	response.token_ids = first, response.n_token_ids = 2, response.text = "ab";
	must(cl_result_add(&result, &response, &error), &error);
	assert_false(result.finished);
	usage.generated_tokens = 3;
	usage.calls_hedged = 7, usage.hedges_won = 2, usage.rows_diverted = 1;
	capacity.policy = "drop", capacity.dropped = 5;
	absent.policy = "renormalise", absent.slots = 6, absent.rows = 1;
	response.token_ids = second, response.n_token_ids = 1, response.text = "c",
	response.finish_reason = CADRE__V1__FINISH_REASON__FINISH_REASON_STOP;
	response.digest = "d1", response.settings = "profile=int8", response.usage = &usage,
	response.capacity = &capacity, response.absent = &absent, response.routing = routing, response.n_routing = 1;
	must(cl_result_add(&result, &response, &error), &error);
	assert_true(result.finished);
	/* as a router that continues does: positions that came before, and new ones */
	Cadre__V1__TokenRouting next = CADRE__V1__TOKEN_ROUTING__INIT, *both[] = { &token, &next };
	Cadre__V1__GenerateResponse more = CADRE__V1__GENERATE_RESPONSE__INIT;
	next.position = 10;
	more.routing = both, more.n_routing = 2;
	must(cl_result_add(&result, &more, &error), &error);
	result.resumed = 2, result.gap_us = 1500;
	json_t *json = cl_result_to_json(&result, &request, "here");
	char *text = json_dumps(json, JSON_COMPACT);
	assert_non_null(text);
	assert_non_null(strstr(text,
		"\"token_ids\":[1,2,3],\"text\":\"abc\",\"finish_reason\":\"stop\",\"digest\":\"d1\",\"settings\":\"profile=int8\""));
	assert_non_null(strstr(text, "\"calls_hedged\":7,\"hedges_won\":2,\"rows_diverted\":1}"));
	assert_non_null(strstr(text, "\"dropped\":5"));
	assert_non_null(strstr(text, "\"absent\":{\"policy\":\"renormalise\",\"slots\":6,\"rows\":1}"));
	assert_non_null(strstr(text,
		"\"routing\":[{\"position\":9,\"layers\":[{\"layer\":2,\"experts\":[4],\"weights\":[0.25],\"nodes\":[\"n\"]}]},{\"position\":10,\"layers\":[]}]"));
	assert_non_null(strstr(text, "\"resumed\":2,\"resume_gap_us\":1500"));
	free(text);
	json_decref(json);
	cl_result_fini(&result);
}

/* The text is what the bytes say, U+0000 included; a router that does not send them has only the
 * string. */
static void a_zero_is_kept(void **state)
{
	(void)state;
	struct cl_result result = { 0 };
	struct cad_error error;
	Cadre__V1__GenerateResponse response = CADRE__V1__GENERATE_RESPONSE__INIT;
	response.text = "a\xef\xbf\xbd";
	response.text_bytes.data = (uint8_t *)"a\0";
	response.text_bytes.len = 2;
	must(cl_result_add(&result, &response, &error), &error);
	response.text = "b";
	response.text_bytes.len = 0;
	must(cl_result_add(&result, &response, &error), &error);
	assert_int_equal(result.text.size, 3);
	assert_memory_equal(result.text.bytes, "a\0b", 4);
	json_t *json = cl_result_to_json(&result, &(struct cl_request){ .text = "p" }, "here");
	char *text = json_dumps(json, JSON_COMPACT);
	assert_non_null(strstr(text, "\"text\":\"a\\u0000b\""));
	free(text);
	json_decref(json);
	cl_result_fini(&result);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_are_numbers_with_commas),
		cmocka_unit_test(request_survives_json),
		cmocka_unit_test(wrong_requests_name_the_member),
		cmocka_unit_test(message_borrows_from_the_request),
		cmocka_unit_test(result_adds_up_messages),
		cmocka_unit_test(a_zero_is_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
