/* SPDX-License-Identifier: Apache-2.0 */
/* What is read of a folder: tokenizer.json in the forms that people have. */
#include "common/tokenizer/decode.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- tokenizer.json ---- */

static struct cad_tokenizer *parse(const char *json)
{
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;
	if (cad_tokenizer_parse("t", json, strlen(json), &tokenizer, &error) != CAD_OK)
		fail_msg("%s\n%s", json, error.text);
	return tokenizer;
}

static void assert_encodes(
	const struct cad_tokenizer *tokenizer, const char *text, size_t size, const int32_t *expected, size_t count)
{
	struct cad_ids ids = { 0 };
	struct cad_text back = { 0 };
	struct cad_error error;
	must(cad_tokenizer_encode(tokenizer, text, size, true, SIZE_MAX, &ids, &error), &error);
	assert_int_equal(ids.count, count);
	assert_memory_equal(ids.ids, expected, count * sizeof *expected);
	must(cad_tokenizer_decode(tokenizer, ids.ids, ids.count, true, &back, &error), &error);
	assert_int_equal(back.size, size);
	assert_memory_equal(back.bytes, text, size);
	cad_text_fini(&back);
	cad_ids_fini(&ids);
}

/* A token with U+0000 is a key that the JSON parser does not take; others hold what looks like it. */
static void zero_in_a_vocabulary(void **state)
{
	(void)state;
	struct cad_tokenizer *tokenizer = parse(
		"{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"vocab\":{\"a\":0,\"\\u0000\":1,\"a\\u0000\" : 2,\"\\\\\":3,"
		"\"u\":4,\"0\":5,\"\\\\u0000\":6,\"\xef\xb7\x90\":7,\"\\uFdD1\":8,\"\\\"\\u0000\":9},"
		"\"merges\":[[\"a\",\"\\u0000\"]]},"
		"\"added_tokens\":[{\"id\":6,\"content\":\"\\\\u0000\"},{\"id\":9,\"content\":\"\\\"\\u0000\"}]}");
	assert_encodes(tokenizer, "a\0\0", 3, (int32_t[]){ 2, 1 }, 2);
	assert_encodes(tokenizer, "\\u0000\\u", 8, (int32_t[]){ 6, 3, 4 }, 3);
	assert_encodes(tokenizer, "\xef\xb7\x90\xef\xb7\x91", 6, (int32_t[]){ 7, 8 }, 2);
	assert_encodes(tokenizer, "\"\0", 2, (int32_t[]){ 9 }, 1);
	cad_tokenizer_close(tokenizer);

	/* all characters that could stand for it are taken */
	char json[1000] = "{\"model\":{\"merges\":[],\"vocab\":{\"\\u0000\":0,\"";
	for (int c = 0xfdd0; c <= 0xfdef; c++)
		snprintf(json + strlen(json), sizeof json - strlen(json), "\\u%04X", c);
	strcat(json, "\":1}}}");
	struct cad_error error;
	assert_int_equal(cad_tokenizer_parse("t", json, strlen(json), &tokenizer, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "a key has U+0000"));
}

/* Python writes what no JSON parser need take, in keys that nothing reads. */
static void json_of_python(void **state)
{
	(void)state;
	struct cad_tokenizer *tokenizer = parse(
		"{\"x\":NaN,\"y\":[Infinity, -Infinity,1,-2.5e3],\"z\":-100000000000000000000000000000000,"
		"\"w\":1000000000000000019884624838656,\"v\":123456789012345678901.5,\"u\":1.00000000000000000000000001,"
		"\"model\":{\"vocab\":{\"NaN\":0,\"1000000000000000000000\":1,\"Infinity\":2},\"merges\":[]},"
		"\"added_tokens\":[{\"id\":0,\"content\":\"NaN\"},{\"id\":1,\"content\":\"1000000000000000000000\"},"
		"{\"id\":2,\"content\":\"Infinity\"}],\"decoder\":{\"type\":\"Fuse\"}}");
	assert_encodes(tokenizer, "NaN1000000000000000000000Infinity", 33, (int32_t[]){ 0, 1, 2 }, 3);
	cad_tokenizer_close(tokenizer);

	static const char *const wrong[] = { "{\"x\":NaN", "{\"x\":Infinit}", "{\"a\\u0000\":", "{\"a\\u0000",
		"{\"x\":99999999999999999999", "-Infinity", "{\"x\":NaNNaN}", "\"\\", "{\"x\":--Infinity}" };
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct cad_error error = { 0 };
		tokenizer = NULL;
		assert_int_equal(
			cad_tokenizer_parse("t", wrong[i], strlen(wrong[i]), &tokenizer, &error), CAD_ERR_CORRUPT);
		assert_null(tokenizer);
	}
}

/* The unknown token counts where a text needs it. */
static void no_unknown_token(void **state)
{
	(void)state;
	struct cad_tokenizer *tokenizer =
		parse("{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"xy\":3},"
		      "\"merges\":[\"a b\"],\"unk_token\":\"<u>\"},\"added_tokens\":[{\"id\":4,\"content\":\"<u>\"}]}");
	assert_encodes(tokenizer, "aab<u>b", 7, (int32_t[]){ 0, 2, 4, 1 }, 4);
	static const char *const texts[] = { "a\xe4\xb8\xad", "xy", "<u>abx" };
	static const char *const shown[] = { "'\xe4\xb8\xad'", "'x'", "'x'" };
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct cad_ids ids = { 0 };
		struct cad_error error;
		assert_int_equal(
			cad_tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), true, SIZE_MAX, &ids, &error),
			CAD_ERR_INVALID);
		if (!strstr(error.text, shown[i]) ||
			!strstr(error.text, "\"unk_token\" '<u>' is not in the vocabulary"))
			fail_msg("%s", error.text);
		assert_int_equal(ids.count, 0);
		cad_ids_fini(&ids);
	}
	cad_tokenizer_close(tokenizer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zero_in_a_vocabulary),
		cmocka_unit_test(json_of_python),
		cmocka_unit_test(no_unknown_token),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
