/* SPDX-License-Identifier: Apache-2.0 */
/* A sentence between threads is whole, or the one before. */
#include "common/base/note.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

static void what_was_put_last_is_got(void **state)
{
	(void)state;
	static struct cad_note note;
	char text[CAD_NOTE_BYTES], longer[2 * CAD_NOTE_BYTES];

	cad_note_get(&note, text);
	assert_string_equal(text, "");
	cad_note_put(&note, "a longer sentence than the next");
	cad_note_put(&note, "short");
	cad_note_get(&note, text);
	assert_string_equal(text, "short");

	memset(longer, 'x', sizeof longer);
	memcpy(longer + CAD_NOTE_BYTES - 2, "\xc3\xa9", 3); /* the border goes through it */
	cad_note_put(&note, longer);
	cad_note_get(&note, text);
	assert_int_equal(strlen(text), CAD_NOTE_BYTES - 2);
	cad_note_put(&note, "");
	cad_note_get(&note, text);
	assert_string_equal(text, "");
}

enum { PUTS = 20000 };
static struct cad_note shared;
static _Atomic bool over;

static void *put(void *unused)
{
	char text[CAD_NOTE_BYTES] = "";
	(void)unused;
	for (int i = 0; i < PUTS; i++) {
		memset(text, 'a' + i % 26, CAD_NOTE_BYTES - 1);
		cad_note_put(&shared, text);
	}
	atomic_store(&over, true);
	return NULL;
}

static void a_reader_never_gets_parts_of_two(void **state)
{
	(void)state;
	pthread_t thread;
	char text[CAD_NOTE_BYTES];

	assert_int_equal(pthread_create(&thread, NULL, put, NULL), 0);
	while (!atomic_load(&over)) {
		cad_note_get(&shared, text);
		char letter[] = { text[0], 0 };
		assert_int_equal(strspn(text, letter), strlen(text));
		assert_true(text[0] == 0 || strlen(text) == CAD_NOTE_BYTES - 1);
	}
	pthread_join(thread, NULL);
	cad_note_get(&shared, text);
	assert_int_equal(text[0], 'a' + (PUTS - 1) % 26);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_put_last_is_got),
		cmocka_unit_test(a_reader_never_gets_parts_of_two),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
