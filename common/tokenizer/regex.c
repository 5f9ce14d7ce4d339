/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns of Split and Replace. The library runs them through Oniguruma (Ruby syntax), Cadre
 * through PCRE2: what both read alike is passed on, what they read differently is written out (\s,
 * \d), and what is left is refused with a sentence, so that no pattern is ever run with another
 * meaning.
 */
#include "common/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* White_Space, and everything else. PCRE2's own \s has U+180E too. */
#define SPACES \
	"\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACES \
	"\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}" \
	"\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

struct reader {
	const char *at, *end;
	bool in_class;
	unsigned int depth, ignores_from; /* groups that are open; the outermost (?i:, 0: none */
	uint64_t parts;                   /* by depth: a group that ends another way than its last character */
	char last;                        /* a letter whose case is ignored, right before `at`; 0: none */
	struct cad_text out;
	struct cad_error *error;
};

static enum cad_status put(struct reader *reader, const char *text)
{
	return cad_tok_append(&reader->out, text, strlen(text));
}

static enum cad_status copy(struct reader *reader, size_t size)
{
	enum cad_status status = cad_tok_append(&reader->out, reader->at, size);
	reader->at += size;
	return status;
}

static enum cad_status refuse(struct reader *reader, size_t size)
{
	size_t left = (size_t)(reader->end - reader->at);
	return cad_error_set(reader->error, CAD_ERR_UNSUPPORTED,
		"the regular expression uses '%.*s', which Cadre does not support", (int)(size < left ? size : left),
		reader->at);
}

static bool starts_with(const struct reader *reader, const char *text)
{
	size_t size = strlen(text);
	return (size_t)(reader->end - reader->at) >= size && memcmp(reader->at, text, size) == 0;
}

/* ---- letters whose case is ignored ---- */

/* Oniguruma folds one character to several (U+FB01 is "fi") and folds what a category in brackets
 * has; PCRE2 does neither. */
static enum cad_status refuse_case(struct reader *reader, size_t size)
{
	size_t left = (size_t)(reader->end - reader->at);
	return cad_error_set(reader->error, CAD_ERR_UNSUPPORTED,
		"the regular expression ignores case at '%.*s', whose case is not that of single characters: Cadre does not support that",
		(int)(size < left ? size : left), reader->at);
}

static bool has_quantifier(const struct reader *reader, size_t size)
{
	return reader->at + size < reader->end && memchr("*+?{", reader->at[size], 4);
}

/* The letters that one character folds to begin with one of these. */
static bool is_folded_pair(char first, char second)
{
	static const char pairs[][2] = { { 's', 's' }, { 's', 't' }, { 'f', 'f' }, { 'f', 'i' }, { 'f', 'l' } };
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
		if (pairs[i][0] == first && pairs[i][1] == second)
			return true;
	return false;
}

/* A character of `size` bytes of the pattern that stands for itself. */
static enum cad_status check_case(struct reader *reader, uint32_t character, size_t size)
{
	char last = reader->last;
	reader->last = 0;
	if (!reader->ignores_from)
		return CAD_OK;
	bool next_is_dash = reader->at + size < reader->end && reader->at[size] == '-',
	     in_range = reader->in_class && (reader->at[-1] == '-' || next_is_dash);
	if (character >= 0x80)
		return in_range || !cad_tok_is_caseless(character) ? refuse_case(reader, size) : CAD_OK;
	if (reader->in_class || !((character | 0x20) >= 'a' && (character | 0x20) <= 'z'))
		return CAD_OK;
	if (has_quantifier(reader, size)) /* it is repeated by itself */
		return CAD_OK;
	reader->last = (char)(character | 0x20);

	return is_folded_pair(last, reader->last) ? refuse_case(reader, size) : CAD_OK;
}

static enum cad_status character(struct reader *reader)
{
	size_t size;
	uint32_t value = cad_utf8_get(reader->at, &size);
	enum cad_status status = check_case(reader, value, size);
	return status != CAD_OK ? status : copy(reader, size);
}

/* ---- the parts of a pattern ---- */

/* A class in square brackets, or what stands inside of one. */
static enum cad_status put_set(struct reader *reader, const char *inside)
{
	if (reader->in_class)
		return put(reader, inside);
	enum cad_status status = put(reader, "[");
	if (status == CAD_OK)
		status = put(reader, inside);
	return status != CAD_OK ? status : put(reader, "]");
}

/* \p{Lu}: general categories alone, to which the characters are added that the library knows and
 * PCRE2 may not. */
static enum cad_status property(struct reader *reader)
{
	const char *close = memchr(reader->at, '}', (size_t)(reader->end - reader->at));
	if (!close || reader->at[2] != '{')
		return refuse(reader, 3);

	size_t size = (size_t)(close - reader->at) + 1;
	const char *additions = cad_tok_category_additions(reader->at + 3, size - 4);
	bool negated = reader->at[1] == 'P';
	if (!additions || (negated && reader->in_class && *additions))
		return refuse(reader, size);
	bool has_case = size == 6 && reader->at[3] == 'L' && memchr("ult&", reader->at[4], 4);
	if (reader->ignores_from && (reader->in_class || has_case))
		return refuse_case(reader, size);
	if (!*additions)
		return copy(reader, size);
	enum cad_status status = reader->in_class ? CAD_OK : put(reader, negated ? "[^\\p" : "[\\p");
	if (status == CAD_OK && reader->in_class)
		status = put(reader, "\\p");
	if (status == CAD_OK)
		status = cad_tok_append(&reader->out, reader->at + 2, size - 2);
	if (status == CAD_OK)
		status = put(reader, additions);
	reader->at += size;

	return status != CAD_OK || reader->in_class ? status : put(reader, "]");
}

/* \x{3000}, \x20, \u3000 */
static enum cad_status code_point(struct reader *reader)
{
	char digits[9] = "", text[16];
	bool braces = starts_with(reader, "\\x{"), is_u = reader->at[1] == 'u';
	size_t from = braces ? 3 : 2, count = 0,
	       want = is_u ? 4
		: braces   ? 8
			   : 2,
	       left = (size_t)(reader->end - reader->at);

	while (count < want && from + count < left && strchr("0123456789abcdefABCDEF", reader->at[from + count]) &&
		reader->at[from + count]) {
		digits[count] = reader->at[from + count];
		count++;
	}

	unsigned long value = strtoul(digits, NULL, 16);
	size_t size = from + count + braces;
	if (count == 0 || (braces && (from + count >= left || reader->at[from + count] != '}')) ||
		(is_u && count != 4) || value > 0x10ffff || (!braces && !is_u && value > 0x7f))
		return refuse(reader, size);
	snprintf(text, sizeof text, "\\x{%lx}", value);
	enum cad_status status = check_case(reader, (uint32_t)value, size);
	reader->at += size;

	return status != CAD_OK ? status : put(reader, text);
}

static enum cad_status digit(struct reader *reader, bool negated)
{
	if (negated && reader->in_class)
		return refuse(reader, 2);
	enum cad_status status =
		reader->in_class ? put(reader, "\\p{Nd}") : put(reader, negated ? "[^\\p{Nd}" : "[\\p{Nd}");
	if (status == CAD_OK)
		status = put(reader, cad_tok_category_additions("Nd", 2));
	return status != CAD_OK || reader->in_class ? status : put(reader, "]");
}

static enum cad_status escape(struct reader *reader)
{
	if (reader->end - reader->at < 2)
		return cad_error_set(reader->error, CAD_ERR_CORRUPT, "the regular expression ends in a backslash");

	enum cad_status status;
	char last = reader->last;
	reader->last = 0;
	switch (reader->at[1]) {
	case 's': status = put_set(reader, SPACES); break;
	case 'S': status = put_set(reader, NOT_SPACES); break;
	case 'd':
	case 'D': status = digit(reader, reader->at[1] == 'D'); break;
	case 'v': status = put(reader, "\\x{b}"); break;
	case 'p':
	case 'P': return reader->end - reader->at < 4 ? refuse(reader, 3) : property(reader);
	case 'x':
	case 'u': reader->last = last; return code_point(reader);
	case 'r':
	case 'n':
	case 't':
	case 'f':
	case 'e':
	case 'a': return copy(reader, 2);
	default: {
		unsigned char c = (unsigned char)reader->at[1];
		bool alphanumeric =
			(c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c >= 0x80;
		return alphanumeric ? refuse(reader, 1 + cad_utf8_size((char)c)) : copy(reader, 2);
	}
	}
	reader->at += 2;

	return status;
}

/* {3}, {1,3}, {2,}; in Ruby {,3} is a quantifier too, and a + behind the brace is one of its
 * own. */
static enum cad_status quantifier(struct reader *reader)
{
	const char *at = reader->at + 1;
	while (at < reader->end && *at >= '0' && *at <= '9')
		at++;
	if (at == reader->at + 1)
		return refuse(reader, 2);
	bool range = at < reader->end && *at == ',';
	if (range)
		at++;
	while (at < reader->end && *at >= '0' && *at <= '9')
		at++;
	if (at == reader->end || *at != '}')
		return refuse(reader, 2);
	at++;
	if (at < reader->end && (*at == '+' || (*at == '?' && !range)))
		return refuse(reader, (size_t)(at - reader->at) + 1);
	return copy(reader, (size_t)(at - reader->at));
}

static enum cad_status group(struct reader *reader)
{
	static const char *const known[] = { "(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:" };
	enum { DEPTH_MAX = 63 };

	if (starts_with(reader, "(*") || reader->depth == DEPTH_MAX)
		return refuse(reader, 2);
	reader->depth++;
	reader->parts &= ~(UINT64_C(1) << reader->depth);
	if (!starts_with(reader, "(?"))
		return copy(reader, 1);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (!starts_with(reader, known[i]))
			continue;
		char kind = known[i][2];
		if (kind == 'i' && !reader->ignores_from)
			reader->ignores_from = reader->depth;
		if (kind != 'i' && kind != ':') { /* what stands in there is not joined to what stands before */
			reader->last = 0;
			reader->parts |= UINT64_C(1) << reader->depth;
		}
		return copy(reader, strlen(known[i]));
	}
	return refuse(reader, 4);
}

static enum cad_status group_end(struct reader *reader)
{
	if ((reader->parts >> reader->depth & 1) || has_quantifier(reader, 1))
		reader->last = 0;
	if (reader->depth == reader->ignores_from)
		reader->ignores_from = 0;
	if (reader->depth > 0)
		reader->depth--;
	return copy(reader, 1);
}

static enum cad_status alternative(struct reader *reader)
{
	reader->parts |= UINT64_C(1) << reader->depth;
	reader->last = 0;
	return copy(reader, 1);
}

static enum cad_status in_class(struct reader *reader)
{
	if (*reader->at == ']') {
		reader->in_class = false;
		return copy(reader, 1);
	}
	if (*reader->at == '[' || starts_with(reader, "&&"))
		return refuse(reader, 2);
	return *reader->at == '\\' ? escape(reader) : character(reader);
}

static enum cad_status outside_class(struct reader *reader)
{
	switch (*reader->at) {
	case '\\': return escape(reader);
	case '(': return group(reader);
	case ')': return group_end(reader);
	case '|': return alternative(reader);
	case '{': return quantifier(reader);
	case '^':
	case '$': return refuse(reader, 1);
	case '[': {
		size_t open = starts_with(reader, "[^") ? 2 : 1;
		if (reader->end - reader->at > (ptrdiff_t)open && reader->at[open] == ']')
			return refuse(reader, open + 1);
		reader->in_class = true;
		reader->last = 0;
		return copy(reader, open);
	}
	default: return character(reader);
	}
}

static enum cad_status translate(struct reader *reader)
{
	enum cad_status status = put(reader, "");
	while (status == CAD_OK && reader->at < reader->end)
		status = reader->in_class ? in_class(reader) : outside_class(reader);
	return status;
}

enum cad_status cad_tok_pattern_compile(
	const char *regex, size_t size, struct tok_pattern *pattern, struct cad_error *error)
{
	struct reader reader = { .at = regex, .end = regex + size, .error = error };
	enum cad_status status = translate(&reader);

	if (status != CAD_OK)
		goto free_out;

	int code;
	PCRE2_SIZE offset;
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	if (!context) {
		status = CAD_ERR_MEMORY;
		goto free_out;
	}

	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)reader.out.bytes, reader.out.size,
		PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, context);
	pcre2_compile_context_free(context);

	if (!compiled) {
		char text[128];
		pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
		status = code == PCRE2_ERROR_HEAP_FAILED
			? CAD_ERR_MEMORY
			: cad_error_set(error, CAD_ERR_CORRUPT, "the regular expression cannot be compiled: %s", text);
		goto free_out;
	}

	/* without it (no JIT here, or no memory for it) matching is slower and no different */
	*pattern = (struct tok_pattern){
		.code = compiled,
		.is_native = pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE) == 0,
	};

free_out:
	cad_text_fini(&reader.out);
	return status;
}

enum cad_status cad_tok_pattern_parse(const json_t *json, struct tok_pattern *pattern, struct cad_error *error)
{
	const json_t *literal = json_object_get(json, "String"), *regex = json_object_get(json, "Regex");
	if (json_is_string(regex))
		return cad_tok_pattern_compile(json_string_value(regex), json_string_length(regex), pattern, error);

	if (!json_is_string(literal))
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "\"pattern\" must be {\"String\": ...} or {\"Regex\": ...}");
	if (json_string_length(literal) == 0)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "\"pattern\" is an empty string");
	char *copied = malloc(json_string_length(literal));
	if (!copied)
		return CAD_ERR_MEMORY;
	memcpy(copied, json_string_value(literal), json_string_length(literal));
	*pattern = (struct tok_pattern){ .literal = copied, .literal_size = json_string_length(literal) };

	return CAD_OK;
}

void cad_tok_pattern_fini(struct tok_pattern *pattern)
{
	free(pattern->literal);
	pcre2_code_free(pattern->code);
	*pattern = (struct tok_pattern){ 0 };
}

/* PCRE2 says so of some that always match something, of lookarounds alone, and of none that can
 * match nothing. */
bool cad_tok_pattern_matches_nothing(const struct tok_pattern *pattern)
{
	uint32_t matches_nothing = 0;
	return pattern->code && pcre2_pattern_info(pattern->code, PCRE2_INFO_MATCHEMPTY, &matches_nothing) == 0 &&
		matches_nothing != 0;
}

/* ---- matching ---- */

/* Steps that one match may take before the pattern is given up as hostile: the published patterns
 * need about one per byte of the match. */
enum { STEPS_MIN = 1 << 20, STEPS_PER_BYTE = 16, BYTES_COUNTED_MAX = 1 << 27, HEAP_KIB_MAX = 1 << 20 };

enum cad_status cad_tok_matches_init(struct tok_matches *matches, const struct tok_pattern *pattern)
{
	*matches = (struct tok_matches){ .pattern = pattern };
	if (!pattern->code)
		return CAD_OK;
	matches->match_data = pcre2_match_data_create(1, NULL);
	matches->context = pcre2_match_context_create(NULL);
	if (!matches->match_data || !matches->context) {
		cad_tok_matches_fini(matches);
		return CAD_ERR_MEMORY;
	}
	pcre2_set_heap_limit(matches->context, HEAP_KIB_MAX);
	return CAD_OK;
}

void cad_tok_matches_fini(struct tok_matches *matches)
{
	pcre2_match_data_free(matches->match_data);
	pcre2_match_context_free(matches->context);
	matches->match_data = NULL;
	matches->context = NULL;
}

void cad_tok_matches_start(struct tok_matches *matches, const char *text, size_t size)
{
	matches->text = text;
	matches->size = size;
	matches->from = 0;
	matches->any = false;
	if (matches->context)
		pcre2_set_match_limit(matches->context,
			(uint32_t)(STEPS_MIN + STEPS_PER_BYTE * (size < BYTES_COUNTED_MAX ? size : BYTES_COUNTED_MAX)));
}

/* Machine code works on a small stack; where that runs out, the interpreter, which takes its memory
 * from the heap, does the match again. */
static int find(const struct tok_matches *matches)
{
	const struct tok_pattern *pattern = matches->pattern;
	PCRE2_SPTR text = (PCRE2_SPTR)matches->text;
	int found = PCRE2_ERROR_JIT_STACKLIMIT;

	if (pattern->is_native)
		found = pcre2_jit_match(
			pattern->code, text, matches->size, matches->from, 0, matches->match_data, matches->context);
	if (found == PCRE2_ERROR_JIT_STACKLIMIT)
		found = pcre2_match(pattern->code, text, matches->size, matches->from,
			PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, matches->match_data, matches->context);
	return found;
}

static enum cad_status next_regex(struct tok_matches *matches, size_t *start, size_t *end, struct cad_error *error)
{
	while (matches->from <= matches->size) {
		int found = find(matches);
		if (found == PCRE2_ERROR_NOMATCH)
			return CAD_AGAIN;
		if (found == PCRE2_ERROR_NOMEMORY)
			return CAD_ERR_MEMORY;
		if (found < 0) {
			char text[128];
			pcre2_get_error_message(found, (PCRE2_UCHAR *)text, sizeof text);
			return cad_error_set(error, CAD_ERR_EXHAUSTED,
				"a regular expression of the tokenizer gave up on the text: %s", text);
		}
		const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(matches->match_data);
		*start = bounds[0];
		*end = bounds[1];
		/* an empty match right behind the last one is passed over, or the search would
		 * stand still */
		if (*start == *end && matches->any && matches->last_end == *end) {
			matches->from +=
				matches->from < matches->size ? cad_utf8_size(matches->text[matches->from]) : 1;
			continue;
		}
		matches->from = matches->last_end = *end;
		matches->any = true;
		return CAD_OK;
	}
	return CAD_AGAIN;
}

enum cad_status cad_tok_matches_next(struct tok_matches *matches, size_t *start, size_t *end, struct cad_error *error)
{
	if (matches->pattern->code)
		return next_regex(matches, start, end, error);

	size_t size = matches->pattern->literal_size;
	const char *found =
		memmem(matches->text + matches->from, matches->size - matches->from, matches->pattern->literal, size);
	if (!found)
		return CAD_AGAIN;
	*start = (size_t)(found - matches->text);
	*end = matches->from = *start + size;
	return CAD_OK;
}
