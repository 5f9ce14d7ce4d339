/* SPDX-License-Identifier: Apache-2.0 */
/* Stop strings against a plain definition: the text up to the earliest match, however it was cut
 * into pieces. */
#include "common/base/clock.h"
#include "router-svc/frontend/stop_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* Feeds pieces whose sizes `random` draws; returns what came out and whether a stop string was
 * found. */
static bool feed(char *const *stops, size_t stops_count, const char *text, struct cad_random *random, char *result,
	size_t result_size)
{
	struct rt_stop_text stop;
	struct cad_text out = { 0 };
	bool found = false;

	assert_int_equal(rt_stop_text_init(&stop, stops, stops_count), CAD_OK);
	size_t size = strlen(text);
	for (size_t at = 0; at < size && !found;) {
		size_t piece = 1 + cad_random_below(random, 5);
		if (piece > size - at)
			piece = size - at;
		assert_int_equal(rt_stop_text_add(&stop, text + at, piece, &out, &found), CAD_OK);
		at += piece;
		/* What is out can never be taken back: it is a prefix of the answer, and what is
		 * held is short. */
		assert_true(out.size <= size && memcmp(out.size ? out.bytes : "", text, out.size) == 0);
		size_t longest = 0;
		for (size_t i = 0; i < stops_count; i++)
			longest = strlen(stops[i]) > longest ? strlen(stops[i]) : longest;
		assert_true(found || stop.held.size < longest + (longest == 0));
	}

	if (!found)
		assert_int_equal(rt_stop_text_flush(&stop, &out), CAD_OK);
	snprintf(result, result_size, "%s", out.bytes ? out.bytes : "");
	rt_stop_text_fini(&stop);
	cad_text_fini(&out);

	return found;
}

/* The definition. Pieces arrive one by one, so among matches the one that ends first wins; the text
 * ends where that one begins. */
static void cases(void **state)
{
	(void)state;
	static const struct {
		const char *stops[3];
		const char *text, *expected;
		bool found;
	} table[] = {
		{ { NULL }, "hello", "hello", false },
		{ { "x" }, "", "", false },
		{ { "lo" }, "hello", "hel", true },
		{ { "h" }, "hello", "", true },
		{ { "hello" }, "hello", "", true },
		{ { "hello!" }, "hello", "hello", false },
		{ { "aab" }, "aaaab", "aa", true },
		{ { "abcabd" }, "abcabcabd", "abc", true },
		{ { "\n\n", "END" }, "a\nb\n\nc END", "a\nb", true },
		{ { "\n\n", "END" }, "a\nb END \n\n", "a\nb ", true },
		{ { "\xe2\x82\xac" }, "1 \xe2\x82\xad 2 \xe2\x82\xac", "1 \xe2\x82\xad 2 ", true },
	};
	struct cad_random random = { 1 };
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
		for (int repeat = 0; repeat < 50; repeat++) {
			char *stops[3], result[100];
			size_t count = 0;
			while (count < 3 && table[i].stops[count]) {
				stops[count] = (char *)(uintptr_t)table[i].stops[count];
				count++;
			}
			bool found = feed(stops, count, table[i].text, &random, result, sizeof result);
			assert_string_equal(result, table[i].expected);
			assert_int_equal(found, table[i].found);
		}
}

static void random_texts(void **state)
{
	(void)state;
	uint64_t seed = (uint64_t)time(NULL);
	print_message("seed %llu\n", (unsigned long long)seed);
	struct cad_random random = { seed };
	for (int round = 0; round < 5000; round++) {
		char stop[6], text[60], result[60], expected[60];
		size_t stop_size = 1 + cad_random_below(&random, 5), text_size = cad_random_below(&random, 50);
		for (size_t i = 0; i < stop_size; i++)
			stop[i] = (char)('a' + cad_random_below(&random, 2));
		for (size_t i = 0; i < text_size; i++)
			text[i] = (char)('a' + cad_random_below(&random, 2));
		stop[stop_size] = text[text_size] = 0;
		strcpy(expected, text);
		char *match = strstr(expected, stop);
		if (match)
			*match = 0;
		bool found = feed((char *[]){ stop }, 1, text, &random, result, sizeof result);
		assert_int_equal(found, match != NULL);
		assert_string_equal(result, expected);
	}
}

static void what_strings_show(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t size;
		const char *shown;
	} table[] = { { "", 0, "" }, { "ab", 2, "ab" }, { "\0", 1, "\xef\xbf\xbd" },
		{ "\0a\0\0b", 5,
			"\xef\xbf\xbd"
			"a\xef\xbf\xbd\xef\xbf\xbd"
			"b" } };
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		char shown[32];
		assert_int_equal(rt_text_shown_bytes(table[i].text, table[i].size), strlen(table[i].shown) + 1);
		memset(shown, 'x', sizeof shown);
		rt_text_show(table[i].text, table[i].size, shown);
		assert_string_equal(shown, table[i].shown);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cases),
		cmocka_unit_test(random_texts),
		cmocka_unit_test(what_strings_show),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
