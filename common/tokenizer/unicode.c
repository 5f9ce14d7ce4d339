/* SPDX-License-Identifier: Apache-2.0 */
/* Character classes, normal forms and case, as the library sees them. */
#include "common/tokenizer/internal.h"
#include "common/tokenizer/unicode_data.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

bool cad_tok_is_space(uint32_t c)
{
	return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
		(c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool in_ranges(const struct unicode_range *ranges, size_t count, uint32_t c)
{
	size_t low = 0;
	while (low < count) {
		size_t middle = (low + count) / 2;
		if (c > ranges[middle].last)
			low = middle + 1;
		else if (c < ranges[middle].first)
			count = middle;
		else
			return true;
	}
	return false;
}

#define IN(ranges, c) in_ranges(ranges, sizeof(ranges) / sizeof *(ranges), c)

bool cad_tok_is_number(uint32_t c) { return IN(unicode_numbers, c); }

bool cad_tok_is_punctuation(uint32_t c) { return IN(unicode_punctuation, c); }

bool cad_tok_is_word(uint32_t c) { return IN(unicode_words, c); }

/* Letters that have no other case may get one in a Unicode that is newer than utf8proc's. */
bool cad_tok_is_caseless(uint32_t c)
{
	const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)c);
	utf8proc_int32_t same = (utf8proc_int32_t)c;

	switch (property->category) {
	case UTF8PROC_CATEGORY_CN:
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME: return false;
	default: break;
	}
	return utf8proc_toupper(same) == same && utf8proc_tolower(same) == same && utf8proc_totitle(same) == same &&
		property->casefold_seqindex == UINT16_MAX;
}

const char *cad_tok_category_additions(const char *category, size_t size)
{
	for (size_t i = 0; i < sizeof unicode_additions / sizeof *unicode_additions; i++)
		if (strlen(unicode_additions[i].category) == size &&
			memcmp(unicode_additions[i].category, category, size) == 0)
			return unicode_additions[i].more;
	return NULL;
}

/* ---- normal forms ---- */

struct characters {
	utf8proc_int32_t *items;
	size_t count, capacity;
};

bool cad_tok_is_mark(uint32_t c)
{
	return c >= 0x300 && utf8proc_get_property((utf8proc_int32_t)c)->combining_class != 0 && !IN(unicode_inert, c);
}

/* Brings a run of marks into the order of their classes, equal classes as they came: a counting
 * sort where the run is long, because a text may be one run of marks from end to end. */
static enum cad_status sort_marks(utf8proc_int32_t *marks, size_t count)
{
	if (count < 32) {
		for (size_t i = 1; i < count; i++) {
			utf8proc_int32_t mark = marks[i];
			utf8proc_propval_t rank = utf8proc_get_property(mark)->combining_class;
			size_t at = i;
			for (; at > 0 && utf8proc_get_property(marks[at - 1])->combining_class > rank; at--)
				marks[at] = marks[at - 1];
			marks[at] = mark;
		}
		return CAD_OK;
	}

	utf8proc_int32_t *sorted = reallocarray(NULL, count, sizeof *sorted);
	if (!sorted)
		return CAD_ERR_MEMORY;
	size_t starts[257] = { 0 };
	for (size_t i = 0; i < count; i++)
		starts[utf8proc_get_property(marks[i])->combining_class + 1]++;
	for (size_t c = 1; c < 257; c++)
		starts[c] += starts[c - 1];
	for (size_t i = 0; i < count; i++)
		sorted[starts[utf8proc_get_property(marks[i])->combining_class]++] = marks[i];
	memcpy(marks, sorted, count * sizeof *sorted);
	free(sorted);

	return CAD_OK;
}

static enum cad_status decompose(const char *bytes, size_t size, utf8proc_option_t options, struct characters *out)
{
	for (size_t i = 0, length; i < size; i += length) {
		utf8proc_int32_t c = (utf8proc_int32_t)cad_utf8_get(bytes + i, &length);
		enum cad_status status =
			cad_tok_reserve((void **)&out->items, &out->capacity, out->count, 32, sizeof *out->items);
		if (status != CAD_OK)
			return status;
		int boundary = 0;
		utf8proc_ssize_t parts = utf8proc_decompose_char(c, out->items + out->count, 32, options, &boundary);
		if (parts < 0 || parts > 32)
			return CAD_ERR_INTERNAL;
		out->count += (size_t)parts;
	}
	for (size_t i = 0; i < out->count;) {
		size_t end = i;
		while (end < out->count && cad_tok_is_mark((uint32_t)out->items[end]))
			end++;
		if (end - i > 1) {
			enum cad_status status = sort_marks(out->items + i, end - i);
			if (status != CAD_OK)
				return status;
		}
		i = end + (end == i);
	}
	return CAD_OK;
}

/* Stays as it is in this form, whatever stands before it. What follows it may still be joined to
 * it. */
static bool is_settled(enum tok_form form, uint32_t c)
{
	if (form == TOK_NFC)
		return c < 0x300 || !IN(unicode_unstable, c);
	return c < 0x80 || IN(unicode_inert, c);
}

/* The normal form of a stretch that begins with a settled character or with the text, and holds no
 * inert one. */
static enum cad_status put_stretch(
	enum tok_form form, const char *bytes, size_t size, struct characters *characters, struct cad_text *out)
{
	utf8proc_option_t options =
		UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (form == TOK_NFKC || form == TOK_NFKD ? UTF8PROC_COMPAT : 0);
	characters->count = 0;
	enum cad_status status = decompose(bytes, size, options, characters);
	if (status != CAD_OK)
		return status;
	if (form == TOK_NFC || form == TOK_NFKC)
		characters->count = (size_t)utf8proc_normalize_utf32(
			characters->items, (utf8proc_ssize_t)characters->count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
	for (size_t i = 0; i < characters->count && status == CAD_OK; i++) {
		char encoded[4];
		status = cad_tok_append(out, encoded, cad_utf8_put((uint32_t)characters->items[i], encoded));
	}

	return status;
}

enum cad_status cad_tok_normal_form(enum tok_form form, const char *bytes, size_t size, struct cad_text *out)
{
	struct characters characters = { 0 };
	enum cad_status status = CAD_OK;
	size_t done = 0, length;

	for (size_t i = 0; i < size && status == CAD_OK;) {
		if (is_settled(form, cad_utf8_get(bytes + i, &length))) {
			i += length;
			continue;
		}
		size_t start = i > done ? cad_utf8_before(bytes, i) : i;
		if (IN(unicode_inert, cad_utf8_get(bytes + start, &length)))
			start = i;
		while (i < size && !is_settled(form, cad_utf8_get(bytes + i, &length)))
			i += length;
		status = cad_tok_append(out, bytes + done, start - done);
		if (status == CAD_OK)
			status = put_stretch(form, bytes + start, i - start, &characters, out);
		done = i;
	}

	free(characters.items);
	return status != CAD_OK ? status : cad_tok_append(out, bytes + done, size - done);
}

static uint32_t lower(uint32_t c)
{
	for (size_t i = 0; c >= unicode_lowercase[0].first && i < sizeof unicode_lowercase / sizeof *unicode_lowercase;
		i++)
		if (c >= unicode_lowercase[i].first && c <= unicode_lowercase[i].last)
			return (uint32_t)((int64_t)c + unicode_lowercase[i].add);
	return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

enum cad_status cad_tok_lowercase(const char *bytes, size_t size, struct cad_text *out)
{
	for (size_t i = 0, length; i < size; i += length) {
		uint32_t c = cad_utf8_get(bytes + i, &length);
		char encoded[4];
		enum cad_status status;
		if (c == 0x130) /* the one character whose lower case is two */
			status = cad_tok_append(out, "i\xcc\x87", 3);
		else
			status = cad_tok_append(out, encoded, cad_utf8_put(lower(c), encoded));
		if (status != CAD_OK)
			return status;
	}
	return CAD_OK;
}

/* ---- bytes as printable characters (GPT-2's encoder.py) ---- */

static bool byte_is_itself(unsigned int byte)
{
	return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

/* The bytes that are not printable, in ascending order, are at U+0100 and up. */
uint32_t cad_tok_byte_to_character(unsigned char byte)
{
	if (byte_is_itself(byte))
		return byte;
	return byte <= 0x20 ? 0x100u + byte : byte <= 0xa0 ? 0x121u + byte - 0x7f : 0x143u;
}

int cad_tok_character_to_byte(uint32_t c)
{
	if (c < 0x100)
		return byte_is_itself(c) ? (int)c : -1;
	if (c <= 0x120)
		return (int)(c - 0x100);
	if (c <= 0x142)
		return (int)(c - 0x121 + 0x7f);
	return c == 0x143 ? 0xad : -1;
}

enum cad_status cad_tok_bytes_of(struct tok_slice token, struct cad_text *out, bool *all)
{
	size_t start = out->size;
	enum cad_status status = cad_tok_reserve((void **)&out->bytes, &out->capacity, out->size, token.size + 1, 1);

	if (status != CAD_OK)
		return status;

	*all = true;

	for (size_t i = 0, length; i < token.size; i += length) {
		int byte = cad_tok_character_to_byte(cad_utf8_get(token.bytes + i, &length));
		if (byte < 0) {
			out->size = start;
			*all = false;
			break;
		}
		out->bytes[out->size++] = (char)byte;
	}

	out->bytes[out->size] = 0;
	return CAD_OK;
}
