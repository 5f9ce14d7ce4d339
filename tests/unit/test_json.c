/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as Python writes it: what jansson alone would refuse, and that all else stays as it was. */
#include "common/base/clock.h"
#include "common/base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What it parses to, written again; or why it does not. */
static void parses_to(const char *text, const char *expected)
{
	json_error_t problem;
	json_t *value = cad_json_parse(text, strlen(text), &problem);
	if (!value)
		fail_msg("%s: %s", text, problem.text);
	char *written = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
	assert_non_null(written);
	if (strcmp(written, expected) != 0)
		fail_msg("%s: %s; wanted %s", text, written, expected);
	free(written);
	json_decref(value);
}

static void as_python_writes_it(void **state)
{
	(void)state;
	parses_to("NaN", "{\"__float__\":\"NaN\"}");
	parses_to("{\"time_limit\": [0.0,Infinity], \"note\":NaN}",
		"{\"note\":{\"__float__\":\"NaN\"},\"time_limit\":[0.0,{\"__float__\":\"Infinity\"}]}");
	parses_to("[-Infinity]", "[{\"__float__\":\"-Infinity\"}]");
	parses_to("[1e999,-1e999,1e308]", "[{\"__float__\":\"Infinity\"},{\"__float__\":\"-Infinity\"},1e308]");
	parses_to("[1000000000000000019884624838656]", "[1e30]");
	parses_to("[9223372036854775807,9223372036854775808,-9223372036854775808,-9223372036854775809]",
		"[9223372036854775807,9.2233720368547758e18,-9223372036854775808,-9.2233720368547758e18]");
	parses_to("{\"a\":1,\"b\":0,\"a\":2}", "{\"a\":2,\"b\":0}");
	parses_to("[\"\\ud800\",\"\\udc00\\ud83d\\ude00\",\"\\ud83dx\",\"a\\u0000b\"]",
		"[\"\\uFFFD\",\"\\uFFFD\\uD83D\\uDE00\",\"\\uFFFDx\",\"a\\uFFFDb\"]");
	parses_to("{\"\\u0000\":1}", "{\"\\uFFFD\":1}");

	char digits[602] = "[";
	memset(digits + 1, '9', 500);
	strcpy(digits + 501, "]");
	parses_to(digits, "[{\"__float__\":\"Infinity\"}]");
	digits[1] = '-';
	parses_to(digits, "[{\"__float__\":\"-Infinity\"}]");
}

/* Texts as they stand: a tokenizer's are what it is made of. */
static void exact_texts(void **state)
{
	(void)state;
	static const char text[] = "{\"a\":\"x\\u0000\\ud83d\\ude00\",\"b\":[NaN,1000000000000000019884624838656]}";
	json_error_t problem;
	json_t *value = cad_json_parse_exact(text, sizeof text - 1, &problem);
	assert_non_null(value);
	assert_int_equal(json_string_length(json_object_get(value, "a")), 6);
	assert_memory_equal(json_string_value(json_object_get(value, "a")), "x\0\xf0\x9f\x98\x80", 6);
	const json_t *list = json_object_get(value, "b");
	assert_string_equal(cad_json_not_finite(json_array_get(list, 0)), "NaN");
	assert_true(json_is_real(json_array_get(list, 1)));
	json_decref(value);

	static const char *const wrong[] = { "[\"\\ud800\"]", "{\"\\u0000\":1}" };
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		assert_null(cad_json_parse_exact(wrong[i], strlen(wrong[i]), &problem));
		assert_true(problem.text[0] != 0);
	}
}

/* Nothing in a text counts, and nothing that only looks like one of those. */
static void all_else_is_as_it_was(void **state)
{
	(void)state;
	parses_to("{\"Infinity\":\"NaN, 1e999 \\\" NaN\",\"\\\\\":[1.5e3,-0.0,0,true,null]}",
		"{\"Infinity\":\"NaN, 1e999 \\\" NaN\",\"\\\\\":[1500.0,-0.0,0,true,null]}");
	static const char *const refused[] = { "[nan]", "[NaNs]", "[+Infinity]", "[--Infinity]", "[Inf]", "[infinity]",
		"[Infinity0]", "[1e999x]", "[01]", "[99999999999999999999.]", "[.5]", "[1e]", "[-]", "[\"\\u12\"]",
		"[\"\\ud83d\\u12\"]", "[\"\\x\"]", "\"", "\"\\", "\"\\u", "\"NaN", "{\"a\":NaN", "[\"\t\"]", "",
		"NaN NaN", "\xef\xbb\xbf[]", "[\"\xff\"]", "[1,]", "{NaN:1}" };
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		json_error_t problem;
		if (cad_json_parse(refused[i], strlen(refused[i]), &problem))
			fail_msg("'%s' was taken", refused[i]);
		assert_true(problem.text[0] != 0);
	}
}

/* What jansson takes, it takes here, with the same meaning: random texts of pieces of JSON. */
static void what_jansson_takes(void **state)
{
	(void)state;
	static const char *const pieces[] = { "{", "}", "[", "]", ",", ":", "\"a\"", "\"b\\\"\"", "\"\\ud83d\\ude00\"",
		"1", "-2.5e-3", "0", "123456789012345678", "true", "null", " ", "\n", "1e999", "NaN", "\\", "\"" };
	struct cad_random random = { 5 };
	uint32_t taken = 0;

	for (uint32_t i = 0; i < 200000; i++) {
		char text[128] = "[";
		for (uint32_t n = (uint32_t)cad_random_below(&random, 8); n > 0; n--)
			strcat(text, pieces[cad_random_below(&random, sizeof pieces / sizeof *pieces)]);
		strcat(text, "]");
		json_error_t problem;
		json_t *plain = json_loads(text, 0, &problem), *value = cad_json_parse(text, strlen(text), &problem);
		taken += plain != NULL;
		if (plain && (!value || !json_equal(plain, value)))
			fail_msg("%s", text);
		json_decref(plain);
		json_decref(value);
	}
	assert_true(taken > 10000);
}

static void not_finite(void **state)
{
	(void)state;
	static const struct {
		const char *text, *name;
	} cases[] = {
		{ "NaN", "NaN" },
		{ "-1e999", "-Infinity" },
		{ "{\"__float__\": \"Infinity\"}", "Infinity" },
		{ "{\"__float__\": \"1\"}", NULL },
		{ "{\"__float__\": 1}", NULL },
		{ "{\"__float__\": \"NaN\", \"a\": 1}", NULL },
		{ "{}", NULL },
		{ "\"NaN\"", NULL },
		{ "1", NULL },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		json_error_t problem;
		json_t *value = cad_json_parse(cases[i].text, strlen(cases[i].text), &problem);
		assert_non_null(value);
		const char *name = cad_json_not_finite(value);
		if (!cases[i].name)
			assert_null(name);
		else
			assert_string_equal(name, cases[i].name);
		json_decref(value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_python_writes_it),
		cmocka_unit_test(exact_texts),
		cmocka_unit_test(all_else_is_as_it_was),
		cmocka_unit_test(what_jansson_takes),
		cmocka_unit_test(not_finite),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
