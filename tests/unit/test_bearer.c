/* SPDX-License-Identifier: Apache-2.0 */
/* Token files: what they may say, and the sentence about those that say something else. */
#include "common/process/bearer.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define A "aaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbb"

static enum cad_status parse(const char *text, struct cad_bearers *bearers, struct cad_error *error)
{
	return cad_bearers_parse(text, strlen(text), "file", bearers, error);
}

static const struct cad_bearer *find(const struct cad_bearers *bearers, const char *token)
{
	return cad_bearers_find(bearers, token, strlen(token));
}

static void lines_are_read(void **state)
{
	(void)state;
	static const char text[] =
		"# rotated in May\n\n  " A "  \r\n" B
		"\tinspect\n0123456789abcdef generate alice\n0123456789ABCDEF inspect alice\n"
		"\t# the end\n~!@#$%^&*()_+{}|= client a.b:c-1\n0123456789abcdeN node rack\n0123456789abcdeO operator";
	struct cad_bearers bearers;
	struct cad_error error;

	must(parse(text, &bearers, &error), &error);
	assert_int_equal(bearers.count, 7);
	assert_string_equal(bearers.entries[0].token, A);
	assert_int_equal(bearers.entries[0].role, CAD_CALLER_CLIENT);
	assert_string_equal(bearers.entries[0].name, "");
	assert_int_equal(bearers.entries[1].role, CAD_CALLER_INSPECT);
	assert_string_equal(bearers.entries[2].name, "alice");
	assert_string_equal(bearers.entries[3].name, "alice");
	assert_int_equal(bearers.entries[3].role, CAD_CALLER_INSPECT);
	assert_int_equal(bearers.entries[4].role, CAD_CALLER_CLIENT);
	assert_string_equal(bearers.entries[4].name, "a.b:c-1");
	assert_int_equal(bearers.entries[5].role, CAD_CALLER_NODE);
	assert_int_equal(bearers.entries[6].role, CAD_CALLER_OPERATOR);

	assert_ptr_equal(find(&bearers, B), &bearers.entries[1]);
	assert_ptr_equal(find(&bearers, "0123456789abcdef"), &bearers.entries[2]);
	assert_ptr_equal(find(&bearers, "0123456789ABCDEF"), &bearers.entries[3]);
	assert_null(find(&bearers, ""));
	assert_null(find(&bearers, "aaaaaaaaaaaaaaa"));
	assert_null(find(&bearers, A "a"));
	assert_null(find(&bearers, "alice"));
	cad_bearers_fini(&bearers);
	assert_int_equal(bearers.count, 0);
	assert_null(find(&bearers, A));
}

static void wrong_lines_get_sentences(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "the token file 'file' has no token" },
		{ "# " A "\n \n", "the token file 'file' has no token" },
		{ "aaaaaaaaaaaaaaa", "token file 'file', line 1: the token has 15 bytes, and must have 16 to 4096" },
		{ A "\nshort generate", "token file 'file', line 2: the token has 5 bytes" },
		{ "aaaaaaaaaaaaaaa\xc3\xa4", "line 1: byte 16 of the token is not a printable character of ASCII" },
		{ A " admin",
			"line 1: the role after the token is not one of 'client', 'node', 'operator' and 'inspect'" },
		{ A " Generate", "line 1: the role after the token is not one of" },
		{ A " none", "line 1: the role after the token is not one of" },
		{ A " generate a/b", "line 1: the name after the role must be 1 to 63 letters" },
		{ A " generate 0123456789012345678901234567890123456789012345678901234567890123",
			"line 1: the name after the role must be 1 to 63 letters" },
		{ A " generate a b", "line 1: there is something after the name" },
		{ A "\n" B "\n" A " inspect", "line 3: this token is there already" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct cad_bearers bearers;
		struct cad_error error = { .text = "" };
		assert_int_equal(parse(cases[i].text, &bearers, &error), CAD_ERR_INVALID);
		if (!strstr(error.text, cases[i].says))
			fail_msg("'%s' does not say '%s'", error.text, cases[i].says);
		assert_null(strstr(error.text, "aaa")); /* no sentence shows a token */
	}

	struct cad_error error;
	struct cad_bearers bearers;
	assert_int_equal(cad_bearers_parse(A "\0b", sizeof A + 1, "file", &bearers, &error), CAD_ERR_INVALID);
}

static void there_are_limits(void **state)
{
	(void)state;
	enum { LINE = 17 };
	static char text[(CAD_BEARERS_MAX + 1) * LINE + 1], longest[CAD_BEARER_BYTES_MAX + 2];
	struct cad_bearers bearers;
	struct cad_error error;

	for (size_t i = 0; i <= CAD_BEARERS_MAX; i++)
		snprintf(text + i * LINE, LINE + 1, "%016zu\n", i);
	assert_int_equal(parse(text, &bearers, &error), CAD_ERR_INVALID);
	assert_string_equal(error.text, "token file 'file', line 1025: there are more than 1024 tokens");
	text[CAD_BEARERS_MAX * LINE] = 0;
	must(parse(text, &bearers, &error), &error);
	assert_int_equal(bearers.count, CAD_BEARERS_MAX);
	assert_ptr_equal(find(&bearers, "0000000000001023"), &bearers.entries[1023]);
	cad_bearers_fini(&bearers);

	memset(longest, 'x', CAD_BEARER_BYTES_MAX + 1);
	assert_int_equal(parse(longest, &bearers, &error), CAD_ERR_INVALID);
	longest[CAD_BEARER_BYTES_MAX] = 0;
	must(parse(longest, &bearers, &error), &error);
	cad_bearers_fini(&bearers);
}

static void files_are_read(void **state)
{
	(void)state;
	char path[] = "/tmp/cadre-tokens-XXXXXX";
	struct cad_bearers bearers;
	struct cad_error error;
	int fd = mkstemp(path);

	assert_int_equal(write(fd, A "\n" B, 33), 33);
	must(cad_bearers_read(path, &bearers, &error), &error);
	assert_int_equal(bearers.count, 2);
	cad_bearers_fini(&bearers);
	assert_int_equal(ftruncate(fd, (1 << 20) + 1), 0);
	assert_int_equal(cad_bearers_read(path, &bearers, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "is longer than 1048576 bytes"));
	close(fd);
	unlink(path);
	assert_int_equal(cad_bearers_read(path, &bearers, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, "cannot open the token file '/tmp/cadre-tokens-"));
	assert_int_equal(cad_bearers_read("/", &bearers, &error), CAD_ERR_IO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_are_read),
		cmocka_unit_test(wrong_lines_get_sentences),
		cmocka_unit_test(there_are_limits),
		cmocka_unit_test(files_are_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
