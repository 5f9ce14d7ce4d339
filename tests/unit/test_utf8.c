/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8: every character there is, every pair of bytes before every border, and cuts at any
 * place. */
#include "common/base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static bool is_character(uint32_t c) { return c <= 0x10ffff && (c < 0xd800 || c > 0xdfff); }

static void every_character(void **state)
{
	(void)state;
	for (uint32_t c = 0; c <= 0x10ffff; c++) {
		char bytes[4];
		size_t size = cad_utf8_put(c, bytes), got;
		bool good = cad_utf8_get(bytes, &got) == c && got == size && cad_utf8_size(bytes[0]) == size &&
			cad_utf8_before(bytes, size) == 0 && (cad_utf8_valid(bytes, size) == size) == is_character(c);
		for (size_t cut = 1; cut < size; cut++)
			good &= cad_utf8_valid(bytes, cut) == 0 && cad_utf8_whole(bytes, cut) == 0;
		if (!good || cad_utf8_whole(bytes, size) != size)
			fail_msg("U+%04X", c);
	}
}

/* What the bytes are by the definition: the character they encode must encode to them. */
static size_t valid_by_definition(const char *bytes, size_t size)
{
	size_t at = 0;
	while (at < size) {
		char again[4];
		size_t length = cad_utf8_size(bytes[at]);
		if (size - at < length)
			return at;
		uint32_t c = cad_utf8_get(bytes + at, &length);
		if (!is_character(c) || cad_utf8_put(c, again) != length || memcmp(again, bytes + at, length) != 0)
			return at;
		at += length;
	}
	return size;
}

static void every_sequence(void **state)
{
	(void)state;
	static const unsigned char borders[] = { 0, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff };
	enum { BORDERS = sizeof borders };

	for (uint32_t n = 0; n < 0x10000 * BORDERS * BORDERS; n++) {
		char bytes[4] = { (char)(n >> 8), (char)n, (char)borders[(n >> 16) % BORDERS],
			(char)borders[(n >> 16) / BORDERS] };
		for (size_t size = 1; size <= 4; size++)
			if (cad_utf8_valid(bytes, size) != valid_by_definition(bytes, size))
				fail_msg("%02x %02x %02x %02x, the first %zu", (unsigned char)bytes[0],
					(unsigned char)bytes[1], (unsigned char)bytes[2], (unsigned char)bytes[3],
					size);
	}
}

static void first_fault(void **state)
{
	(void)state;
	static const char text[] = "0123456789abcdef \xc3\xa4 0123456789abcdef";
	char bytes[sizeof text];

	assert_int_equal(cad_utf8_valid(text, sizeof text - 1), sizeof text - 1);
	for (size_t at = 0; at < sizeof text - 1; at++) {
		memcpy(bytes, text, sizeof text);
		bytes[at] = (char)0xff;
		size_t fault = at == 18 ? 17 : at; /* the second byte of a character spoils the first */
		assert_int_equal(cad_utf8_valid(bytes, sizeof text - 1), fault);
	}
}

static void bytes_that_follow(void **state)
{
	(void)state;
	for (int lead = 0; lead < 256; lead++) {
		bool begins = false;
		for (int second = 0; second < 256; second++) {
			char bytes[4] = { (char)lead, (char)second, (char)0x80, (char)0x80 };
			size_t size = cad_utf8_expected((char)lead);
			bool good = size > 1 && cad_utf8_continues((char)lead, 1, (char)second);
			assert_int_equal(good, size > 1 && cad_utf8_valid(bytes, size) == size);
			begins |= good;
		}
		assert_int_equal(begins || lead<0x80, cad_utf8_expected((char)lead)> 0);
	}

	assert_true(cad_utf8_continues((char)0xf4, 2, (char)0xbf));
	assert_false(cad_utf8_continues((char)0xe0, 2, (char)0xc0));
}

static void cuts(void **state)
{
	(void)state;
	static const char text[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z";
	static const size_t whole[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11 };
	for (size_t size = 0; size < sizeof text; size++)
		assert_int_equal(cad_utf8_whole(text, size), whole[size]);
	assert_int_equal(cad_utf8_whole("\x80\x80\x80\x80\x80\x80", 6), 6);
	assert_int_equal(cad_utf8_whole("\x80", 1), 1);
}

static void copies(void **state)
{
	(void)state;
	static const struct {
		const char *text, *copy; /* into 6 bytes */
	} table[] = {
		{ "", "" },
		{ "abc", "abc" },
		{ "abcde", "abcde" },
		{ "abcdefgh", "abcde" },
		{ "abc\xc3\xa4", "abc\xc3\xa4" },
		{ "abcd\xc3\xa4", "abcd" },
		{ "ab\xf0\x9f\x98\x80", "ab" },
		{ "a\xf0\x9f\x98\x80", "a\xf0\x9f\x98\x80" },
		{ "a\xc3z\xff", "a?z?" },
		{ "\x80\x80\x80\x80\x80\x80", "?????" },
		{ "a\x1b[1m", "a?[1m" },
		{ "a\xe2\x80\xae"
		  "b",
			"a?b" },
	};
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		char copy[6];
		cad_utf8_copy(copy, sizeof copy, table[i].text);
		assert_string_equal(copy, table[i].copy);
	}
}

static void what_can_be_shown(void **state)
{
	(void)state;
	static const struct {
		const char *text, *shown;
	} table[] = {
		{ "", "" },
		{ "a b ~ \xc3\xa4 \xe2\x80\x94 \xf0\x9f\x98\x80", NULL },
		{ "\xc2\xa0\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa", NULL }, /* those beside what cannot */
		{ "\x1b[32mX\n\r\t\x01\x1f\x7f", "?[32mX??????" },
		{ "\xc2\x80z\xc2\x9b"
		  "31m\xc2\x9f",
			"?z?31m?" },
		{ "\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa\xe2\x80\xae\xe2\x81\xa6\xe2\x81\xa9!",
			"?????"
			"?!" },
		{ "a\xc3", "a?" },
		{ "\xff\xe2\x80z\xc0\x9b", "???z??" },
	};

	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		char text[64];
		const char *shown = table[i].shown ? table[i].shown : table[i].text;
		snprintf(text, sizeof text, "%s", table[i].text);
		assert_int_equal(cad_utf8_is_printable(text, strlen(text)), strcmp(text, shown) == 0);
		cad_utf8_make_printable(text);
		assert_string_equal(text, shown);
		assert_true(cad_utf8_is_printable(text, strlen(text)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_character),
		cmocka_unit_test(every_sequence),
		cmocka_unit_test(first_fault),
		cmocka_unit_test(bytes_that_follow),
		cmocka_unit_test(cuts),
		cmocka_unit_test(copies),
		cmocka_unit_test(what_can_be_shown),
	};
	return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
