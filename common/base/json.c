/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/json.h"

#include "common/base/hex.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char KEY[] = "__float__";
enum { DIGITS_MAX = 400 }; /* longer numbers are beyond every double, or have zeros before or behind */

/* What is read, and the text for jansson that comes of it; out NULL: its bytes are only counted. */
struct rewrite {
	const char *at, *end;
	bool exact; /* escapes stay */
	char *out;
	size_t bytes;
};

static void put(struct rewrite *rewrite, const char *text, size_t bytes)
{
	if (rewrite->out)
		memcpy(rewrite->out + rewrite->bytes, text, bytes);
	rewrite->bytes += bytes;
}

static void put_text(struct rewrite *rewrite, const char *text) { put(rewrite, text, strlen(text)); }

/* ---- texts ---- */

/* The number of "\uXXXX"; -1: it is something else. */
static int32_t unit_at(const char *at, const char *end)
{
	int32_t unit = 0;

	if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++) {
		int digit = cad_hex_digit(at[i]);
		if (digit < 0)
			return -1;
		unit = unit * 16 + digit;
	}
	return unit;
}

static void take_escape(struct rewrite *rewrite)
{
	enum { UNIT = 6 }; /* "\uXXXX" */
	int32_t unit = rewrite->exact ? -1 : unit_at(rewrite->at, rewrite->end);
	size_t bytes = unit >= 0 ? UNIT : rewrite->end - rewrite->at < 2 ? 1 : 2;

	if (unit >= 0xd800 && unit < 0xdc00) {
		int32_t second = unit_at(rewrite->at + UNIT, rewrite->end);
		if (second >= 0xdc00 && second < 0xe000)
			bytes = 2 * UNIT;
		else
			unit = 0xdc00;
	}
	if (unit == 0 || (unit >= 0xdc00 && unit < 0xe000))
		put_text(rewrite, "\\ufffd");
	else
		put(rewrite, rewrite->at, bytes);
	rewrite->at += bytes;
}

static void take_string(struct rewrite *rewrite)
{
	put(rewrite, rewrite->at++, 1);
	while (rewrite->at < rewrite->end) {
		const char *from = rewrite->at;
		while (rewrite->at < rewrite->end && *rewrite->at != '"' && *rewrite->at != '\\')
			rewrite->at++;
		put(rewrite, from, (size_t)(rewrite->at - from));
		if (rewrite->at == rewrite->end)
			return;
		if (*rewrite->at == '"') {
			put(rewrite, rewrite->at++, 1);
			return;
		}
		take_escape(rewrite);
	}
}

/* ---- words and numbers ---- */

static bool is_word(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' || c == '-' ||
		c == '.' || c == '_';
}

static void put_not_finite(struct rewrite *rewrite, const char *name)
{
	put_text(rewrite, "{\"");
	put_text(rewrite, KEY);
	put_text(rewrite, "\":\"");
	put_text(rewrite, name);
	put_text(rewrite, "\"}");
}

/* Whether it is a number by JSON's rules, and whether a whole one. */
static bool is_number(const char *text, bool *whole)
{
	size_t digits;

	*whole = true;
	text += *text == '-';
	digits = strspn(text, "0123456789");
	if (digits == 0 || (text[0] == '0' && digits > 1))
		return false;
	text += digits;
	if (*text == '.') {
		*whole = false;
		digits = strspn(++text, "0123456789");
		if (digits == 0)
			return false;
		text += digits;
	}
	if (*text == 'e' || *text == 'E') {
		*whole = false;
		text++;
		text += *text == '+' || *text == '-';
		digits = strspn(text, "0123456789");
		if (digits == 0)
			return false;
		text += digits;
	}
	return *text == 0;
}

static bool is_all_digits(const char *text, size_t bytes)
{
	for (size_t i = *text == '-'; i < bytes; i++)
		if (text[i] < '0' || text[i] > '9')
			return false;
	return true;
}

/* strtod and strtoll need a copy with an end. What does not fit in it is beyond every double, or left to
 * jansson. */
static void take_number(struct rewrite *rewrite, const char *from, size_t bytes)
{
	char copy[DIGITS_MAX + 1];
	bool whole;

	if (bytes <= DIGITS_MAX) {
		memcpy(copy, from, bytes);
		copy[bytes] = 0;
	}
	bool long_number = bytes > DIGITS_MAX && is_all_digits(from, bytes);
	if (!long_number && (bytes > DIGITS_MAX || !is_number(copy, &whole))) {
		put(rewrite, from, bytes);
		return;
	}

	if (long_number || isinf(strtod(copy, NULL))) {
		put_not_finite(rewrite, *from == '-' ? "-Infinity" : "Infinity");
		return;
	}
	put(rewrite, from, bytes);
	errno = 0;
	if (whole && (strtoll(copy, NULL, 10), errno == ERANGE))
		put_text(rewrite, "e0");
	errno = 0;
}

static void take_word(struct rewrite *rewrite)
{
	static const char *const names[] = { "NaN", "Infinity", "-Infinity" };
	const char *from = rewrite->at;

	while (rewrite->at < rewrite->end && is_word(*rewrite->at))
		rewrite->at++;
	size_t bytes = (size_t)(rewrite->at - from);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (bytes == strlen(names[i]) && memcmp(from, names[i], bytes) == 0) {
			put_not_finite(rewrite, names[i]);
			return;
		}
	take_number(rewrite, from, bytes);
}

static size_t run(const char *text, size_t bytes, bool exact, char *out)
{
	struct rewrite rewrite = { .at = text, .end = text + bytes, .exact = exact, .out = out };

	while (rewrite.at < rewrite.end)
		if (*rewrite.at == '"')
			take_string(&rewrite);
		else if (is_word(*rewrite.at))
			take_word(&rewrite);
		else
			put(&rewrite, rewrite.at++, 1);
	return rewrite.bytes;
}

/* ---- the whole ---- */

static json_t *parse(const char *text, size_t bytes, bool exact, json_error_t *problem)
{
	size_t rewritten_bytes = run(text, bytes, exact, NULL);
	char *rewritten = malloc(rewritten_bytes + 1);

	if (!rewritten) {
		*problem = (json_error_t){ .line = -1 };
		return NULL;
	}
	run(text, bytes, exact, rewritten);
	json_t *value = json_loadb(rewritten, rewritten_bytes, JSON_DECODE_ANY | (exact ? JSON_ALLOW_NUL : 0), problem);
	free(rewritten);
	return value;
}

json_t *cad_json_parse(const char *text, size_t bytes, json_error_t *problem)
{
	return parse(text, bytes, false, problem);
}

json_t *cad_json_parse_exact(const char *text, size_t bytes, json_error_t *problem)
{
	return parse(text, bytes, true, problem);
}

const char *cad_json_not_finite(const json_t *value)
{
	const char *name = json_object_size(value) == 1 ? json_string_value(json_object_get(value, KEY)) : NULL;
	bool known =
		name && (strcmp(name, "NaN") == 0 || strcmp(name, "Infinity") == 0 || strcmp(name, "-Infinity") == 0);

	return known ? name : NULL;
}
