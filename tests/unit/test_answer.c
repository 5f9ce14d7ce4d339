/* SPDX-License-Identifier: Apache-2.0 */
/* An answer's text without threads and protocols: stop strings across tokens, ids that are no text,
 * what is held back and let go at the end. Stop strings by themselves are in test_stop_text. */
#include "common/tokenizer/text.h"
#include "common/tokenizer/tokenizer.h"
#include "common/base/clock.h"
#include "router-svc/frontend/answer.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

/* A token may be the character U+0000: it is part of the text, and no stop string has it. */
static void a_zero_is_a_character(void **state)
{
	(void)state;
	enum { ZERO = 3 }; /* the token <0x00> */
	for (size_t stops_count = 0; stops_count < 2; stops_count++) {
		struct rt_answer answer;
		struct cad_text text = { 0 };
		struct cad_error error;
		struct cad_ids ids;
		bool stopped = false;
		ids_of("one two", &ids);
		must(rt_answer_init(&answer, tokenizer, (char *[]){ "two one" }, stops_count), NULL);
		for (size_t i = 0; i < 3 * ids.count + 1 && !stopped; i++)
			must(rt_answer_token(&answer,
				     i == ids.count ? ZERO : ids.ids[(i - (i > ids.count)) % ids.count], true, &text,
				     &stopped, &error),
				&error);
		assert_int_equal(stopped, stops_count);
		if (!stopped)
			must(rt_answer_end(&answer, &text, &stopped, &error), &error);
		/* of the three times, the stop string is between the second and the third */
		static const char whole[] = "one two\0 one two one two";
		size_t size = stops_count ? 13 : sizeof whole - 1;
		assert_int_equal(text.size, size);
		assert_memory_equal(text.bytes, whole, size);
		rt_answer_fini(&answer);
		cad_text_fini(&text);
		cad_ids_fini(&ids);
	}
}

/* ---- tokens that were sent before ---- */

enum { TOKENS_MAX = 100 };

/* Answers token by token, from token `from` on, those before it having been sent before. */
struct course {
	char pieces[TOKENS_MAX + 1][200]; /* what each token made certain; last: the end */
	size_t count;                     /* tokens that were used */
	bool stopped, stopped_at_end;
};

static void follow(
	const struct cad_ids *ids, size_t from, char *const *stops, size_t stops_count, struct course *course)
{
	struct rt_answer answer;
	struct cad_error error;
	struct cad_text text = { 0 };
	size_t skipped;

	memset(course, 0, sizeof *course);
	must(rt_answer_init(&answer, tokenizer, stops, stops_count), NULL);
	must(rt_answer_skip(&answer, ids->ids, from, &skipped, &error), &error);
	assert_int_equal(skipped, from);
	for (size_t i = course->count = from; i < ids->count && !course->stopped; i = ++course->count) {
		text.size = 0;
		must(rt_answer_token(&answer, ids->ids[i], true, &text, &course->stopped, &error), &error);
		snprintf(course->pieces[i], sizeof course->pieces[i], "%.*s", (int)text.size,
			text.bytes ? text.bytes : "");
	}
	text.size = 0;
	if (!course->stopped)
		must(rt_answer_end(&answer, &text, &course->stopped_at_end, &error), &error);
	snprintf(course->pieces[TOKENS_MAX], sizeof course->pieces[0], "%.*s", (int)text.size,
		text.bytes ? text.bytes : "");
	cad_text_fini(&text);
	rt_answer_fini(&answer);
}

/* At every joint, each token gives what it gives in one stream; past the
 * stop string, there is none. */
static void check_joints(const struct cad_ids *ids, char *const *stops, size_t stops_count)
{
	static struct course whole, rest;
	struct rt_answer answer;
	struct cad_error error;
	size_t skipped;

	follow(ids, 0, stops, stops_count, &whole);
	for (size_t joint = 0; joint < whole.count + !whole.stopped; joint++) {
		follow(ids, joint, stops, stops_count, &rest);
		assert_int_equal(rest.count, whole.count);
		assert_true(rest.stopped == whole.stopped && rest.stopped_at_end == whole.stopped_at_end);
		for (size_t i = joint; i <= TOKENS_MAX; i++)
			assert_string_equal(rest.pieces[i], whole.pieces[i]);
	}
	if (!whole.stopped)
		return;
	must(rt_answer_init(&answer, tokenizer, stops, stops_count), NULL);
	must(rt_answer_skip(&answer, ids->ids, ids->count, &skipped, &error), &error);
	assert_int_equal(skipped, whole.count - 1); /* this one completes it */
	rt_answer_fini(&answer);
}

static bool begins_character(char byte) { return ((unsigned char)byte & 0xc0) != 0x80; }

/* Some characters of a text, which then stop it there or earlier. */
static void part_of(const char *text, struct cad_random *random, char *part, size_t size)
{
	size_t length = strlen(text), from = cad_random_below(random, (uint32_t)length),
	       to = from + 1 + cad_random_below(random, 12);
	while (from > 0 && !begins_character(text[from]))
		from--;
	to = to < length ? to : length;
	while (to < length && !begins_character(text[to]))
		to++;
	snprintf(part, size, "%.*s", (int)(to - from), text + from);
}

static void a_joint_is_not_seen(void **state)
{
	(void)state;
	static const char *const said[] = {
		"and so on, and so much more than this",
		"\xf0\x9f\x98\x80\xf0\x9f\xa6\x84 and \xe4\xbd\xa0\xe5\xa5\xbd, w\xc3\xb6rld \xe2\x82\xac 5",
		"aaaabaaab aab \xf0\x9f\xa6\x84\xf0\x9f\xa6\x84\xf0\x9f\xa6\x84 aab",
	};
	uint64_t seed = (uint64_t)time(NULL);
	print_message("seed %llu\n", (unsigned long long)seed);
	struct cad_random random = { seed };
	size_t split = 0; /* characters that lie across tokens */
	for (int round = 0; round < 300; round++) {
		const char *text = said[round % 3];
		char first[40], second[40];
		struct cad_ids ids;
		ids_of(text, &ids);
		assert_true(ids.count <= TOKENS_MAX);
		if (round % 4 == 3) /* torn characters, bytes that are none */
			for (size_t i = 0; i < ids.count; i++)
				if (cad_random_below(&random, 3) == 0)
					ids.ids[i] =
						(int32_t)cad_random_below(&random, cad_tokenizer_vocab_size(tokenizer));
		part_of(text, &random, first, sizeof first);
		part_of(text, &random, second, sizeof second);
		strcat(second, "?"); /* only begins */
		check_joints(&ids, (char *[]){ second, first }, (size_t)round % 3);

		static struct course plain;
		follow(&ids, 0, NULL, 0, &plain);
		for (size_t i = 0; i < ids.count; i++)
			split += plain.pieces[i][0] == 0;
		cad_ids_fini(&ids);
	}
	assert_true(split > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stop_strings_lie_across_tokens),
		cmocka_unit_test(a_stop_string_ends_at_its_token),
		cmocka_unit_test(an_id_that_ends_is_no_text),
		cmocka_unit_test(without_a_tokenizer_there_is_no_text),
		cmocka_unit_test(an_id_outside_the_vocabulary),
		cmocka_unit_test(a_zero_is_a_character),
		cmocka_unit_test(a_joint_is_not_seen),
	};
	return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
