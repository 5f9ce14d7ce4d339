/* SPDX-License-Identifier: Apache-2.0 */
/* An answer's text without threads and protocols: stop strings across tokens, ids that are no text,
 * what is held back and let go at the end. Stop strings by themselves are in test_stop_text. */
#include "common/tokenizer/text.h"
#include "common/tokenizer/tokenizer.h"
#include "router-svc/frontend/answer.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOKENIZER CADRE_SOURCE_DIR "/tests/golden/mixtral-a/model/tokenizer.json"

static struct cad_tokenizer *tokenizer;

static int open_tokenizer(void **state)
{
	(void)state;
	struct cad_error error;
	must(cad_tokenizer_open(TOKENIZER, &tokenizer, &error), &error);
	return 0;
}

static int close_tokenizer(void **state)
{
	(void)state;
	cad_tokenizer_close(tokenizer);
	return 0;
}

static void ids_of(const char *text, struct cad_ids *ids)
{
	struct cad_error error;
	*ids = (struct cad_ids){ 0 };
	must(cad_tokenizer_encode(tokenizer, text, strlen(text), false, SIZE_MAX, ids, &error), &error);
}

/* Tokens up to a stop string, and the end if there is none; how many tokens it took. */
static size_t run(const char *said, char *const *stops, size_t stops_count, struct cad_text *text, bool *stopped)
{
	struct rt_answer answer;
	struct cad_error error;
	struct cad_ids ids;
	size_t count = 0;

	ids_of(said, &ids);
	must(rt_answer_init(&answer, tokenizer, stops, stops_count), NULL);
	for (*stopped = false; count < ids.count && !*stopped;)
		must(rt_answer_token(&answer, ids.ids[count++], true, text, stopped, &error), &error);
	if (!*stopped)
		must(rt_answer_end(&answer, text, stopped, &error), &error);
	rt_answer_fini(&answer);
	cad_ids_fini(&ids);

	return count;
}

static void stop_strings_lie_across_tokens(void **state)
{
	(void)state;
	static const struct {
		const char *said, *stops[2], *text;
		bool stopped;
	} table[] = {
		{ "and so on, and so much more", { "so much", "never" }, "and so on, and ", true },
		{ "and so on, and so much more", { "never", "nor this" }, "and so on, and so much more", false },
		{ "and so on", { "on and on", "so off" }, "and so on", false }, /* held, and let go at the end */
		{ "the end", { "end", "ending" }, "the ", true },
	};
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		struct cad_text text = { 0 };
		bool stopped;
		run(table[i].said, (char *const *)(uintptr_t)table[i].stops, 2, &text, &stopped);
		const char *got = text.bytes ? text.bytes : "";
		assert_string_equal(got[0] == ' ' ? got + 1 : got, table[i].text);
		assert_int_equal(stopped, table[i].stopped);
		cad_text_fini(&text);
	}
}

/* No more tokens are used than the stop string needs. */
static void a_stop_string_ends_at_its_token(void **state)
{
	(void)state;
	struct cad_text text = { 0 };
	struct cad_ids whole;
	bool stopped;
	ids_of("and so on, and so much more than this", &whole);
	size_t used = run("and so on, and so much more than this", (char *[]){ "so much" }, 1, &text, &stopped);
	assert_true(stopped && used < whole.count);
	cad_text_fini(&text);
	cad_ids_fini(&whole);
}

static void an_id_that_ends_is_no_text(void **state)
{
	(void)state;
	struct rt_answer answer;
	struct cad_text text = { 0 };
	struct cad_error error;
	struct cad_ids ids;
	bool stopped = true;
	ids_of("one two", &ids);
	must(rt_answer_init(&answer, tokenizer, (char *[]){ "two" }, 1), NULL);
	must(rt_answer_token(&answer, ids.ids[ids.count - 1], false, &text, &stopped, &error), &error);
	assert_false(stopped);
	assert_int_equal(text.size, 0);
	must(rt_answer_end(&answer, &text, &stopped, &error), &error);
	assert_true(!stopped && text.size == 0);
	rt_answer_fini(&answer);
	cad_ids_fini(&ids);
}

static void without_a_tokenizer_there_is_no_text(void **state)
{
	(void)state;
	struct rt_answer answer;
	struct cad_text text = { 0 };
	struct cad_error error;
	bool stopped = true;
	must(rt_answer_init(&answer, NULL, NULL, 0), NULL);
	must(rt_answer_token(&answer, 1 << 30, true, &text, &stopped, &error), &error);
	must(rt_answer_end(&answer, &text, &stopped, &error), &error);
	assert_true(!stopped && text.size == 0);
	rt_answer_fini(&answer);
}

static void an_id_outside_the_vocabulary(void **state)
{
	(void)state;
	struct rt_answer answer;
	struct cad_text text = { 0 };
	struct cad_error error;
	bool stopped;
	must(rt_answer_init(&answer, tokenizer, NULL, 0), NULL);
	assert_int_equal(rt_answer_token(&answer, 1 << 30, true, &text, &stopped, &error), CAD_ERR_RANGE);
	assert_false(stopped);
	rt_answer_fini(&answer);
	cad_text_fini(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stop_strings_lie_across_tokens),
		cmocka_unit_test(a_stop_string_ends_at_its_token),
		cmocka_unit_test(an_id_that_ends_is_no_text),
		cmocka_unit_test(without_a_tokenizer_there_is_no_text),
		cmocka_unit_test(an_id_outside_the_vocabulary),
	};
	return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
