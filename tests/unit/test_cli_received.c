/* SPDX-License-Identifier: Apache-2.0 */
/* What cadrectl keeps of an answer, and the requests that it makes of that. */
#include "orchestration/cli/received.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DIGEST "00112233445566778899aabbccddeeff"

static Cadre__V1__GenerateRequest request_of(uint32_t max_tokens)
{
	Cadre__V1__GenerateRequest request = CADRE__V1__GENERATE_REQUEST__INIT;
	request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TEXT;
	request.text = "once";
	request.max_tokens = max_tokens;
	request.ignore_eos = true;
	return request;
}

static enum cad_status add(struct cl_received *received, const int32_t *ids, size_t count, const char *digest,
	const char *fingerprint, struct cad_error *error)
{
	Cadre__V1__GenerateResponse response = CADRE__V1__GENERATE_RESPONSE__INIT;
	response.token_ids = (int32_t *)(uintptr_t)ids;
	response.n_token_ids = count;
	response.digest_so_far = (char *)(uintptr_t)digest;
	response.fingerprint = (char *)(uintptr_t)fingerprint;
	return cl_received_add(received, &response, error);
}

/* Two breaks: each request is the first one, but for what is left and what has come. */
static void the_rest_is_asked_for(void **state)
{
	(void)state;
	struct cl_received received = { .finished = false };
	struct cl_rest rest;
	struct cad_error error;
	const int32_t ids[] = { 4, 5, 6, 7, 8 };
	Cadre__V1__GenerateRequest request = request_of(9);

	must(cl_received_begin(&received, &request, &rest, &error), &error);
	assert_true(!rest.message.resume && rest.message.max_tokens == 9);
	must(add(&received, ids, 0, "", "model", &error), &error); /* routing alone */
	must(cl_received_begin(&received, &request, &rest, &error), &error);
	assert_null(rest.message.resume); /* nothing has come: from the beginning */
	must(add(&received, ids, 2, "first", "model", &error), &error);
	must(add(&received, ids + 2, 1, DIGEST, "", &error), &error);
	must(add(&received, ids, 0, "", "", &error), &error);

	must(cl_received_begin(&received, &request, &rest, &error), &error);
	assert_string_equal(rest.message.text, "once");
	assert_true(rest.message.ignore_eos && rest.message.max_tokens == 6);
	assert_int_equal(rest.resume.n_token_ids, 3);
	assert_memory_equal(rest.resume.token_ids, ids, 3 * sizeof *ids);
	assert_string_equal(rest.resume.digest, DIGEST);
	assert_string_equal(rest.resume.fingerprint, "model");
	assert_false(rest.resume.no_limit);

	must(add(&received, ids + 3, 2, "later", "model", &error), &error);
	must(cl_received_begin(&received, &request, &rest, &error), &error);
	assert_int_equal(rest.message.max_tokens, 4);
	assert_memory_equal(rest.message.resume->token_ids, ids, sizeof ids);
	assert_string_equal(rest.message.resume->digest, "later");
	cl_received_fini(&received);
}

static void no_limit_stays_no_limit(void **state)
{
	(void)state;
	struct cl_received received = { .finished = false };
	struct cl_rest rest;
	struct cad_error error;
	Cadre__V1__GenerateRequest request = request_of(0);
	must(cl_received_begin(&received, &request, &rest, &error), &error);
	must(add(&received, (int32_t[]){ 4 }, 1, DIGEST, "model", &error), &error);
	must(cl_received_begin(&received, &request, &rest, &error), &error);
	assert_true(rest.message.resume->no_limit && rest.message.max_tokens == 0);
	cl_received_fini(&received);
}

/* Routers from before `resume`: at the one end, and at the other. */
static void what_cannot_be_resumed(void **state)
{
	(void)state;
	struct cl_received received = { .finished = false };
	struct cl_rest rest;
	struct cad_error error;
	Cadre__V1__GenerateRequest request = request_of(3);
	must(cl_received_begin(&received, &request, &rest, &error), &error);
	must(add(&received, (int32_t[]){ 4 }, 1, "", "", &error), &error);
	assert_int_equal(cl_received_begin(&received, &request, &rest, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "did not say how its answer can be resumed"));

	cl_received_fini(&received);

	received = (struct cl_received){ .finished = false };
	must(cl_received_begin(&received, &request, &rest, &error), &error);
	must(add(&received, (int32_t[]){ 4 }, 1, DIGEST, "model", &error), &error);
	must(cl_received_begin(&received, &request, &rest, &error), &error);
	assert_int_equal(add(&received, (int32_t[]){ 4 }, 1, DIGEST, "", &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "does not know how to resume"));
	assert_int_equal(received.ids.count, 1); /* it began again: not added */

	must(cl_received_begin(&received, &request, &rest, &error), &error);
	must(add(&received, (int32_t[]){ 5, 6 }, 2, DIGEST, "model", &error), &error);
	assert_int_equal(cl_received_begin(&received, &request, &rest, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "all 3 tokens have come"));
	cl_received_fini(&received);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_rest_is_asked_for),
		cmocka_unit_test(no_limit_stays_no_limit),
		cmocka_unit_test(what_cannot_be_resumed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
