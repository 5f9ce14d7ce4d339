/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/utf8.h"

#include <string.h>

static bool is_continuation(char byte) { return ((unsigned char)byte & 0xc0) == 0x80; }

size_t cad_utf8_expected(char lead)
{
	unsigned char byte = (unsigned char)lead;
	return byte < 0x80 ? 1 : byte < 0xc2 ? 0 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : byte < 0xf5 ? 4 : 0;
}

/* The second byte keeps overlong forms, surrogates and what lies above U+10FFFF out. */
bool cad_utf8_continues(char lead, size_t position, char byte)
{
	unsigned char first = (unsigned char)lead, at = (unsigned char)byte, low = 0x80, high = 0xbf;
	if (position == 1) {
		low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
		high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
	}
	return at >= low && at <= high;
}

size_t cad_utf8_valid(const char *bytes, size_t size)
{
	size_t i = 0;
	while (i < size) {
		uint64_t eight;
		if (size - i >= 8 && (memcpy(&eight, bytes + i, 8), (eight & 0x8080808080808080u) == 0)) {
			i += 8;
			continue;
		}
		size_t length = cad_utf8_expected(bytes[i]);
		if (length == 0 || size - i < length)
			return i;
		for (size_t k = 1; k < length; k++)
			if (!cad_utf8_continues(bytes[i], k, bytes[i + k]))
				return i;
		i += length;
	}

	return size;
}

size_t cad_utf8_whole(const char *bytes, size_t size)
{
	size_t start = size;
	while (start > 0 && size - start < 4 && is_continuation(bytes[start - 1]))
		start--;
	if (start == 0 || is_continuation(bytes[start - 1]))
		return size; /* not text: there is no character to be cut */
	return 1 + size - start < cad_utf8_size(bytes[start - 1]) ? start - 1 : size;
}

/* The first character, or the first byte when that is part of none; *size are its bytes, of
 * `left` > 0. */
static bool first_is_printable(const char *bytes, size_t left, size_t *size)
{
	size_t length = cad_utf8_expected(bytes[0]);

	*size = 1;
	if (length == 0 || length > left || cad_utf8_valid(bytes, length) < length)
		return false;
	uint32_t c = cad_utf8_get(bytes, size);
	bool control = c < 0x20 || (c >= 0x7f && c < 0xa0), line_or_turn = c >= 0x2028 && c <= 0x202e,
	     isolate = c >= 0x2066 && c <= 0x2069;
	return !control && !line_or_turn && !isolate;
}

bool cad_utf8_is_printable(const char *bytes, size_t size)
{
	for (size_t i = 0, taken; i < size; i += taken)
		if (!first_is_printable(bytes + i, size - i, &taken))
			return false;
	return true;
}

void cad_utf8_make_printable(char *text)
{
	size_t size = strlen(text), out = 0;

	for (size_t i = 0, taken; i < size; i += taken) {
		bool printable = first_is_printable(text + i, size - i, &taken);
		if (printable)
			memmove(text + out, text + i, taken);
		else
			text[out] = '?';
		out += printable ? taken : 1;
	}
	text[out] = 0;
}

void cad_utf8_copy(char *out, size_t bytes, const char *text)
{
	size_t size = strnlen(text, bytes - 1);

	if (text[size])
		size = cad_utf8_whole(text, size);
	memcpy(out, text, size);
	out[size] = 0;
	cad_utf8_make_printable(out);
}

size_t cad_utf8_size(char lead)
{
	unsigned char byte = (unsigned char)lead;
	return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

uint32_t cad_utf8_get(const char *bytes, size_t *size)
{
	const unsigned char *at = (const unsigned char *)bytes;
	*size = cad_utf8_size(bytes[0]);
	switch (*size) {
	case 1: return at[0];
	case 2: return (uint32_t)(at[0] & 0x1f) << 6 | (at[1] & 0x3f);
	case 3: return (uint32_t)(at[0] & 0x0f) << 12 | (uint32_t)(at[1] & 0x3f) << 6 | (at[2] & 0x3f);
	default:
		return (uint32_t)(at[0] & 0x07) << 18 | (uint32_t)(at[1] & 0x3f) << 12 | (uint32_t)(at[2] & 0x3f) << 6 |
			(at[3] & 0x3f);
	}
}

size_t cad_utf8_before(const char *bytes, size_t at)
{
	do
		at--;
	while (at > 0 && is_continuation(bytes[at]));
	return at;
}

size_t cad_utf8_put(uint32_t character, char out[4])
{
	if (character < 0x80) {
		out[0] = (char)character;
		return 1;
	}

	static const unsigned char leads[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	size_t length = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
	for (size_t i = length - 1; i > 0; i--, character >>= 6)
		out[i] = (char)(0x80 | (character & 0x3f));
	out[0] = (char)(leads[length] | character);
	return length;
}
