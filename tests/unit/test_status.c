/* SPDX-License-Identifier: Apache-2.0 */
/* Status names and the sentences of errors. */
#include "common/base/clock.h"
#include "common/base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void names(void **state)
{
	(void)state;
	assert_string_equal(cad_status_name(CAD_ERR_DEADLINE), "ERR_DEADLINE");
	assert_string_equal(cad_status_text(CAD_OK), "ok");
	assert_string_equal(cad_status_name((enum cad_status)77), "UNKNOWN");
}

static void sentence_with_prefix(void **state)
{
	(void)state;
	struct cad_error error;
	assert_int_equal(cad_error_set(&error, CAD_ERR_RANGE, "layer %d", 7), CAD_ERR_RANGE);
	assert_int_equal(cad_error_prefix(&error, "model '%s'", "m"), CAD_ERR_RANGE);
	assert_string_equal(error.text, "model 'm': layer 7");
	assert_int_equal(cad_error_set(NULL, CAD_ERR_IO, "nothing listens"), CAD_ERR_IO);
}

/* A sentence that is too long ends between characters, never inside one. */
static void long_sentence_ends_on_character(void **state)
{
	(void)state;
	for (size_t shift = 0; shift < 4; shift++) {
		char text[2000] = "xxxx";
		size_t at = shift;
		while (at + 4 < sizeof text) {
			memcpy(text + at, "\xe2\x82\xac", 3); /* the euro sign */
			at += 3;
		}
		text[at] = 0;
		struct cad_error error;
		assert_int_equal(cad_error_set(&error, CAD_ERR_INVALID, "%s", text), CAD_ERR_INVALID);
		size_t length = strlen(error.text);
		assert_true(length < CAD_ERROR_TEXT_BYTES && length >= CAD_ERROR_TEXT_BYTES - 4);
		assert_int_equal((length - shift) % 3, 0);
	}
}

static void random_below_stays_below(void **state)
{
	(void)state;
	struct cad_random random = { 1 };
	unsigned seen[5] = { 0 };
	for (int i = 0; i < 5000; i++)
		seen[cad_random_below(&random, 5)]++;
	for (int i = 0; i < 5; i++)
		assert_in_range(seen[i], 800, 1200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(sentence_with_prefix),
		cmocka_unit_test(long_sentence_ends_on_character),
		cmocka_unit_test(random_below_stays_below),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
