/* UTF-8, character classes, normal forms and case, as the library sees them. */
#include "common/model/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

size_t cad_tok_utf8_valid(const char *bytes, size_t size)
{
	const unsigned char *at = (const unsigned char *)bytes;
	size_t i = 0;
	while (i < size) {
		uint64_t eight;
		if (size - i >= 8 && (memcpy(&eight, at + i, 8), (eight & 0x8080808080808080u) == 0)) {
			i += 8;
			continue;
		}
		unsigned char lead = at[i];
		if (lead < 0x80) {
			i++;
			continue;
		}
		size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
		if (lead < 0xc2 || lead > 0xf4 || size - i < length)
			return i;
		for (size_t k = 1; k < length; k++)
			if ((at[i + k] & 0xc0) != 0x80)
				return i;
		/* overlong forms, surrogates, and what lies above U+10FFFF */
		unsigned char second = at[i + 1];
		if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) || (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f))
			return i;
		i += length;
	}
	return size;
}

size_t cad_tok_utf8_size(char lead)
{
	unsigned char byte = (unsigned char)lead;
	return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

uint32_t cad_tok_utf8_get(const char *bytes, size_t *size)
{
	const unsigned char *at = (const unsigned char *)bytes;
	*size = cad_tok_utf8_size(bytes[0]);
	switch (*size) {
	case 1: return at[0];
	case 2: return (uint32_t)(at[0] & 0x1f) << 6 | (at[1] & 0x3f);
	case 3: return (uint32_t)(at[0] & 0x0f) << 12 | (uint32_t)(at[1] & 0x3f) << 6 | (at[2] & 0x3f);
	default: return (uint32_t)(at[0] & 0x07) << 18 | (uint32_t)(at[1] & 0x3f) << 12 | (uint32_t)(at[2] & 0x3f) << 6 | (at[3] & 0x3f);
	}
}

size_t cad_tok_utf8_put(uint32_t character, char out[4])
{
	return (size_t)utf8proc_encode_char((utf8proc_int32_t)character, (utf8proc_uint8_t *)out);
}

size_t cad_tok_utf8_before(const char *bytes, size_t at)
{
	do
		at--;
	while (at > 0 && ((unsigned char)bytes[at] & 0xc0) == 0x80);
	return at;
}

bool cad_tok_is_space(uint32_t c)
{
	return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
	       c == 0x202f || c == 0x205f || c == 0x3000;
}

static utf8proc_category_t category(uint32_t c)
{
	return utf8proc_category((utf8proc_int32_t)c);
}

bool cad_tok_is_number(uint32_t c)
{
	utf8proc_category_t is = category(c);
	return is == UTF8PROC_CATEGORY_ND || is == UTF8PROC_CATEGORY_NL || is == UTF8PROC_CATEGORY_NO;
}

bool cad_tok_is_punctuation(uint32_t c)
{
	if (c < 0x80)
		return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
	utf8proc_category_t is = category(c);
	return is >= UTF8PROC_CATEGORY_PC && is <= UTF8PROC_CATEGORY_PO;
}

bool cad_tok_is_word(uint32_t c)
{
	utf8proc_category_t is = category(c);
	/* what is Alphabetic without being a letter, a mark or a letter number: letters in circles and squares */
	bool enclosed = (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
	return (is >= UTF8PROC_CATEGORY_LU && is <= UTF8PROC_CATEGORY_NL) || is == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d || enclosed;
}

/* ---- normal forms ---- */

struct characters {
	utf8proc_int32_t *items;
	size_t count, capacity;
};

static bool is_mark(utf8proc_int32_t c)
{
	return c >= 0x300 && utf8proc_get_property(c)->combining_class != 0;
}

/* Brings a run of marks into the order of their classes, equal classes as they came: a counting sort where the run is long, because a
 * text may be one run of marks from end to end. */
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
		utf8proc_int32_t c = (utf8proc_int32_t)cad_tok_utf8_get(bytes + i, &length);
		enum cad_status status = cad_tok_reserve((void **)&out->items, &out->capacity, out->count, 32, sizeof *out->items);
		if (status)
			return status;
		int boundary = 0;
		utf8proc_ssize_t parts = utf8proc_decompose_char(c, out->items + out->count, 32, options, &boundary);
		if (parts < 0 || parts > 32)
			return CAD_ERR_INTERNAL;
		out->count += (size_t)parts;
	}
	for (size_t i = 0; i < out->count;) {
		size_t end = i;
		while (end < out->count && is_mark(out->items[end]))
			end++;
		if (end - i > 1) {
			enum cad_status status = sort_marks(out->items + i, end - i);
			if (status)
				return status;
		}
		i = end + (end == i);
	}
	return CAD_OK;
}

/* Below U+0300 NFC changes nothing, and U+0300 is the first character that composes with what stands before it. */
static size_t plain_prefix(enum tok_form form, const char *bytes, size_t size)
{
	unsigned char limit = form == TOK_NFC ? 0xcc : 0x80;
	size_t i = 0;
	while (i < size && (unsigned char)bytes[i] < limit)
		i++;
	if (i < size && i > 0)
		i = cad_tok_utf8_before(bytes, i);   /* the character before it may compose with it */
	return i;
}

enum cad_status cad_tok_normal_form(enum tok_form form, const char *bytes, size_t size, struct cad_text *out)
{
	size_t plain = plain_prefix(form, bytes, size);
	enum cad_status status = cad_tok_append(out, bytes, plain);
	if (status || plain == size)
		return status;
	bool compose = form == TOK_NFC || form == TOK_NFKC, compatible = form == TOK_NFKC || form == TOK_NFKD;
	utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
	struct characters characters = { 0 };
	status = decompose(bytes + plain, size - plain, options, &characters);
	if (status)
		goto free_characters;
	if (compose)
		characters.count =
		    (size_t)utf8proc_normalize_utf32(characters.items, (utf8proc_ssize_t)characters.count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
	for (size_t i = 0; i < characters.count && !status; i++) {
		char encoded[4];
		status = cad_tok_append(out, encoded, cad_tok_utf8_put((uint32_t)characters.items[i], encoded));
	}
free_characters:
	free(characters.items);
	return status;
}

enum cad_status cad_tok_lowercase(const char *bytes, size_t size, struct cad_text *out)
{
	for (size_t i = 0, length; i < size; i += length) {
		uint32_t c = cad_tok_utf8_get(bytes + i, &length);
		char encoded[4];
		enum cad_status status;
		if (c == 0x130)   /* the one character whose lower case is two */
			status = cad_tok_append(out, "i\xcc\x87", 3);
		else
			status = cad_tok_append(out, encoded, cad_tok_utf8_put((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), encoded));
		if (status)
			return status;
	}
	return CAD_OK;
}

/* ---- bytes as printable characters (GPT-2's encoder.py) ---- */

static bool byte_is_itself(unsigned int byte)
{
	return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

/* The bytes that are not printable, in ascending order, stand at U+0100 and up. */
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
	if (status)
		return status;
	*all = true;
	for (size_t i = 0, length; i < token.size; i += length) {
		int byte = cad_tok_character_to_byte(cad_tok_utf8_get(token.bytes + i, &length));
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
