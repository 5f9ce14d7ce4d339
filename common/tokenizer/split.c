/* SPDX-License-Identifier: Apache-2.0 */
/* Pre-tokenizers: each goes over the pieces of text and cuts them, and some rewrite the text on the
 * way. Added tokens pass untouched. */
#include "common/tokenizer/internal.h"

#include <string.h>

/* ---- reading ---- */

static enum cad_status parse_behavior(const json_t *json, enum tok_behavior *behavior, struct cad_error *error)
{
	static const char *const names[] = { [TOK_ISOLATED] = "Isolated",
		[TOK_REMOVED] = "Removed",
		[TOK_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
		[TOK_MERGED_WITH_NEXT] = "MergedWithNext",
		[TOK_CONTIGUOUS] = "Contiguous" };
	struct tok_slice name;
	enum cad_status status = cad_tok_json_string(json, "behavior", &name, error);

	if (status != CAD_OK)
		return status;

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(name.bytes, names[i]) == 0) {
			*behavior = (enum tok_behavior)i;
			return CAD_OK;
		}
	return cad_error_set(error, CAD_ERR_UNSUPPORTED,
		"\"behavior\" is '%.*s' (Isolated, Removed, MergedWithPrevious, MergedWithNext and Contiguous are known)",
		cad_tok_show(name), name.bytes);
}

static enum cad_status parse_split(struct tok_splitter *splitter, const json_t *json, struct cad_error *error)
{
	splitter->kind = TOK_SPLIT_PATTERN;
	enum cad_status status = parse_behavior(json, &splitter->behavior, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "invert", false, &splitter->invert, error);
	if (status == CAD_OK)
		status = cad_tok_pattern_parse(json_object_get(json, "pattern"), &splitter->pattern, error);
	splitter->has_pattern = status == CAD_OK;
	return status;
}

static enum cad_status parse_byte_level(struct tok_splitter *splitter, const json_t *json, struct cad_error *error)
{
	static const char words[] =
		"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

	splitter->kind = TOK_SPLIT_BYTE_LEVEL;
	bool use_regex = true;
	enum cad_status status = cad_tok_json_bool(json, "add_prefix_space", true, &splitter->add_prefix_space, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "use_regex", true, &use_regex, error);
	if (status != CAD_OK || !use_regex)
		return status;
	status = cad_tok_pattern_compile(words, sizeof words - 1, &splitter->pattern, error);
	splitter->has_pattern = status == CAD_OK;

	return status;
}

static enum cad_status parse_metaspace(struct tok_splitter *splitter, const json_t *json, struct cad_error *error)
{
	splitter->kind = TOK_SPLIT_METASPACE;
	uint32_t replacement;
	bool add_prefix_space = true;
	enum cad_status status = cad_tok_json_character(json, "replacement", &replacement, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "split", true, &splitter->split, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "add_prefix_space", true, &add_prefix_space, error);
	if (status != CAD_OK)
		return status;
	splitter->replacement_size = cad_utf8_put(replacement, splitter->replacement);
	splitter->prepend = TOK_PREPEND_ALWAYS;
	const json_t *scheme = json_object_get(json, "prepend_scheme");
	if (scheme) {
		static const char *const names[] = {
			[TOK_PREPEND_ALWAYS] = "always", [TOK_PREPEND_FIRST] = "first", [TOK_PREPEND_NEVER] = "never"
		};
		size_t i = 0;
		while (i < 3 && !(json_is_string(scheme) && strcmp(json_string_value(scheme), names[i]) == 0))
			i++;
		if (i == 3)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"\"prepend_scheme\" must be \"always\", \"first\" or \"never\"");
		splitter->prepend = (enum tok_prepend)i;
	}

	if (!add_prefix_space && scheme && splitter->prepend != TOK_PREPEND_NEVER)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"\"add_prefix_space\" is false and \"prepend_scheme\" is not \"never\"");
	if (!add_prefix_space)
		splitter->prepend = TOK_PREPEND_NEVER;
	return CAD_OK;
}

static enum cad_status parse_one(void *context, const char *type, const json_t *json, struct cad_error *error)
{
	struct tok_splitters *splitters = context;
	if (splitters->count == TOK_STAGES_MAX)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "more than %d pre-tokenizers", TOK_STAGES_MAX);

	struct tok_splitter *splitter = &splitters->items[splitters->count++];
	if (strcmp(type, "Split") == 0)
		return parse_split(splitter, json, error);
	if (strcmp(type, "ByteLevel") == 0)
		return parse_byte_level(splitter, json, error);
	if (strcmp(type, "Metaspace") == 0)
		return parse_metaspace(splitter, json, error);
	splitter->kind = TOK_SPLIT_CHARACTERS;

	if (strcmp(type, "Digits") == 0) {
		bool individual;
		enum cad_status status = cad_tok_json_bool(json, "individual_digits", false, &individual, error);
		splitter->is_match = cad_tok_is_number;
		splitter->behavior = status == CAD_OK && individual ? TOK_ISOLATED : TOK_CONTIGUOUS;
		return status;
	}

	if (strcmp(type, "Punctuation") == 0) {
		splitter->is_match = cad_tok_is_punctuation;
		splitter->behavior = TOK_ISOLATED;
		return json_object_get(json, "behavior") ? parse_behavior(json, &splitter->behavior, error) : CAD_OK;
	}

	if (strcmp(type, "WhitespaceSplit") == 0) {
		splitter->is_match = cad_tok_is_space;
		splitter->behavior = TOK_REMOVED;
		return CAD_OK;
	}

	if (strcmp(type, "Whitespace") == 0) {
		splitter->kind = TOK_SPLIT_WORDS;
		return CAD_OK;
	}

	return cad_error_set(error, CAD_ERR_UNSUPPORTED,
		"this pre-tokenizer is not supported (Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit and Sequence are)");
}

enum cad_status cad_tok_splitters_parse(const json_t *json, struct tok_splitters *splitters, struct cad_error *error)
{
	return cad_tok_json_flatten(json, "pretokenizers", parse_one, splitters, error);
}

void cad_tok_splitters_fini(struct tok_splitters *splitters)
{
	for (size_t i = 0; i < splitters->count; i++)
		cad_tok_pattern_fini(&splitters->items[i].pattern);
	splitters->count = 0;
}

bool cad_tok_splitters_end_in_bytes(const struct tok_splitters *splitters)
{
	return splitters->count > 0 && splitters->items[splitters->count - 1].kind == TOK_SPLIT_BYTE_LEVEL;
}

/* ---- cutting ---- */

/* Takes the stretches of one piece in order, each a match or what lies between matches, and makes
 * pieces of them. */
struct cutter {
	enum tok_behavior behavior;
	struct tok_work *work; /* pieces go to `spare` */
	size_t pieces_max;     /* more are an error */
	struct cad_error *error;
	struct tok_piece whole; /* the piece that is cut */
	struct tok_piece held;  /* made, but may still grow */
	bool has_held, before_was_match, held_is_match;
};

static struct tok_piece part(const struct tok_piece *whole, size_t start, size_t end)
{
	uint32_t size = (uint32_t)(end - start), origin = start < whole->origin ? (uint32_t)(whole->origin - start) : 0;
	return (struct tok_piece){
		.start = whole->start + (uint32_t)start,
		.size = size,
		.origin = origin < size ? origin : size,
		.id = -1,
	};
}

static enum cad_status piece_put(struct cutter *cutter, struct tok_piece piece)
{
	enum cad_status status = cad_tok_pieces_push(&cutter->work->spare, piece);
	return status == CAD_OK && cutter->work->spare.count > cutter->pieces_max
		? cad_tok_too_long(cutter->work->ids_max, cutter->error)
		: status;
}

static enum cad_status flush(struct cutter *cutter)
{
	if (!cutter->has_held)
		return CAD_OK;
	cutter->has_held = false;
	uint32_t start = cutter->held.start - cutter->whole.start;
	return piece_put(cutter, part(&cutter->whole, start, start + cutter->held.size));
}

static enum cad_status stretch(struct cutter *cutter, size_t start, size_t end, bool is_match)
{
	bool before = cutter->before_was_match, join = false;
	switch (cutter->behavior) {
	case TOK_ISOLATED: return piece_put(cutter, part(&cutter->whole, start, end));
	case TOK_REMOVED: return is_match ? CAD_OK : piece_put(cutter, part(&cutter->whole, start, end));
	case TOK_CONTIGUOUS: join = is_match == before; break;
	case TOK_MERGED_WITH_PREVIOUS: join = is_match && !before; break;
	case TOK_MERGED_WITH_NEXT: join = !is_match && before; break;
	}
	cutter->before_was_match = is_match;
	if (join && cutter->has_held) {
		cutter->held.size += (uint32_t)(end - start);
		return CAD_OK;
	}

	enum cad_status status = flush(cutter);
	cutter->held = part(&cutter->whole, start, end);
	cutter->has_held = true;

	return status;
}

static enum cad_status cut_by_pattern(
	struct cutter *cutter, struct tok_matches *matches, bool invert, const char *text, struct cad_error *error)
{
	size_t size = cutter->whole.size, done = 0, start, end;
	enum cad_status status;

	cad_tok_matches_start(matches, text + cutter->whole.start, size);

	while ((status = cad_tok_matches_next(matches, &start, &end, error)) == CAD_OK) {
		if (done != start)
			status = stretch(cutter, done, start, invert);
		if (status == CAD_OK)
			status = stretch(cutter, start, end, !invert);
		if (status != CAD_OK)
			return status;
		done = end;
	}

	if (status != CAD_AGAIN)
		return status;
	status = done != size ? stretch(cutter, done, size, invert) : CAD_OK;
	return status != CAD_OK ? status : flush(cutter);
}

static enum cad_status cut_by_character(struct cutter *cutter, bool (*is_match)(uint32_t), const char *text)
{
	const char *bytes = text + cutter->whole.start;
	size_t size = cutter->whole.size, done = 0;
	enum cad_status status = CAD_OK;

	for (size_t i = 0, length; i < size && status == CAD_OK; i += length) {
		if (!is_match(cad_utf8_get(bytes + i, &length)))
			continue;
		if (done < i)
			status = stretch(cutter, done, i, false);
		if (status == CAD_OK)
			status = stretch(cutter, i, i + length, true);
		done = i + length;
	}

	if (status == CAD_OK && done < size)
		status = stretch(cutter, done, size, false);
	return status != CAD_OK ? status : flush(cutter);
}

/* Runs of word characters and runs of neither word nor space; spaces vanish. */
static enum cad_status cut_words(struct cutter *cutter, const char *text)
{
	const char *bytes = text + cutter->whole.start;
	size_t size = cutter->whole.size, start = 0;
	enum class { SPACE, WORD, OTHER } run = SPACE;
	enum cad_status status = CAD_OK;

	for (size_t i = 0, length; i < size && status == CAD_OK; i += length) {
		uint32_t c = cad_utf8_get(bytes + i, &length);
		enum class is = cad_tok_is_word(c) ? WORD : cad_tok_is_space(c) ? SPACE : OTHER;
		if (is == run)
			continue;
		if (run != SPACE)
			status = piece_put(cutter, part(&cutter->whole, start, i));
		start = i;
		run = is;
	}

	return status != CAD_OK || run == SPACE ? status : piece_put(cutter, part(&cutter->whole, start, size));
}

/* Cuts every piece of text; the list of pieces is replaced. */
static enum cad_status cut_all(const struct tok_splitter *splitter, enum tok_behavior behavior, size_t pieces_max,
	struct tok_work *work, struct cad_error *error)
{
	struct tok_matches matches = { 0 };
	enum cad_status status = splitter->has_pattern ? cad_tok_matches_init(&matches, &splitter->pattern) : CAD_OK;

	work->spare.count = 0;

	for (size_t i = 0; i < work->pieces.count && status == CAD_OK; i++) {
		struct tok_piece piece = work->pieces.items[i];
		struct cutter cutter = {
			.behavior = behavior,
			.work = work,
			.pieces_max = pieces_max,
			.error = error,
			.whole = piece,
		};
		if (piece.id >= 0)
			status = piece_put(&cutter, piece);
		else if (splitter->has_pattern)
			status = cut_by_pattern(&cutter, &matches, splitter->invert, work->text, error);
		else if (splitter->kind == TOK_SPLIT_WORDS)
			status = cut_words(&cutter, work->text);
		else
			status = cut_by_character(&cutter, splitter->is_match, work->text);
	}

	cad_tok_matches_fini(&matches);
	struct tok_pieces pieces = work->pieces;
	work->pieces = work->spare;
	work->spare = pieces;

	return status;
}

/* ---- rewriting ---- */

/* Appends the new text of a piece, and keeps piece->origin right. */
typedef enum cad_status put_piece(
	const struct tok_splitter *splitter, struct tok_piece *piece, struct cad_text *out, const char *bytes);

static enum cad_status put_metaspaces(
	const struct tok_splitter *splitter, struct tok_piece *piece, struct cad_text *out, const char *bytes)
{
	const char *mark = splitter->replacement;
	size_t mark_size = splitter->replacement_size, size = piece->size, at = out->size, origin = piece->origin;
	bool starts = bytes[0] == ' ' || (size >= mark_size && memcmp(bytes, mark, mark_size) == 0);
	bool prepend = !starts &&
		(splitter->prepend == TOK_PREPEND_ALWAYS ||
			(splitter->prepend == TOK_PREPEND_FIRST && piece->origin > 0));
	enum cad_status status = prepend ? cad_tok_append(out, mark, mark_size) : CAD_OK;

	for (size_t i = 0; i < size && status == CAD_OK;) {
		const char *space = memchr(bytes + i, ' ', size - i);
		size_t end = space ? (size_t)(space - bytes) : size;
		status = cad_tok_append(out, bytes + i, end - i);
		if (status == CAD_OK && space)
			status = cad_tok_append(out, mark, mark_size);
		if (space && end < origin)
			piece->origin += (uint32_t)mark_size - 1;
		i = end + 1;
	}

	if (prepend && origin > 0)
		piece->origin += (uint32_t)mark_size;
	piece->size = (uint32_t)(out->size - at);
	return status;
}

static enum cad_status put_prefix_space(
	const struct tok_splitter *splitter, struct tok_piece *piece, struct cad_text *out, const char *bytes)
{
	(void)splitter;
	bool prepend = bytes[0] != ' ';
	enum cad_status status = prepend ? cad_tok_append(out, " ", 1) : CAD_OK;
	if (status == CAD_OK)
		status = cad_tok_append(out, bytes, piece->size);
	piece->origin += prepend && piece->origin > 0;
	piece->size += prepend;
	return status;
}

static enum cad_status put_byte_characters(
	const struct tok_splitter *splitter, struct tok_piece *piece, struct cad_text *out, const char *bytes)
{
	(void)splitter;
	size_t at = out->size, origin = 0;
	enum cad_status status = CAD_OK;
	for (size_t i = 0; i < piece->size && status == CAD_OK; i++) {
		char encoded[4];
		status = cad_tok_append(
			out, encoded, cad_utf8_put(cad_tok_byte_to_character((unsigned char)bytes[i]), encoded));
		if (i < piece->origin)
			origin = out->size - at;
	}

	piece->origin = (uint32_t)origin;
	piece->size = (uint32_t)(out->size - at);
	return status;
}

/* Rewrites the text of all pieces, into the buffer that does not hold it now. */
static enum cad_status rewrite(
	const struct tok_splitter *splitter, put_piece *put, struct tok_work *work, struct cad_error *error)
{
	struct cad_text *out = &work->buffers[work->text == work->buffers[0].bytes];
	out->size = 0;
	enum cad_status status = cad_tok_append(out, "", 0);
	for (size_t i = 0; i < work->pieces.count && status == CAD_OK; i++) {
		struct tok_piece *piece = &work->pieces.items[i];
		if (piece->id >= 0)
			continue;
		const char *bytes = work->text + piece->start;
		piece->start = (uint32_t)out->size;
		status = put(splitter, piece, out, bytes);
		if (out->size > TOK_TEXT_BYTES_MAX)
			return cad_error_set(error, CAD_ERR_RANGE, "the pre-tokenized text is longer than %d bytes",
				TOK_TEXT_BYTES_MAX);
	}

	work->text = out->bytes;
	return status;
}

static enum cad_status run_byte_level(const struct tok_splitter *splitter, bool keep_bytes, size_t pieces_max,
	struct tok_work *work, struct cad_error *error)
{
	enum cad_status status = splitter->add_prefix_space ? rewrite(splitter, put_prefix_space, work, error) : CAD_OK;
	if (status == CAD_OK && splitter->has_pattern)
		status = cut_all(splitter, TOK_ISOLATED, pieces_max, work, error);
	if (status == CAD_OK && !keep_bytes)
		status = rewrite(splitter, put_byte_characters, work, error);
	return status;
}

static enum cad_status run_metaspace(
	const struct tok_splitter *splitter, size_t pieces_max, struct tok_work *work, struct cad_error *error)
{
	enum cad_status status = rewrite(splitter, put_metaspaces, work, error);
	if (status != CAD_OK || !splitter->split)
		return status;
	struct tok_splitter at_mark = {
		.has_pattern = true,
		.pattern = { .literal = (char *)splitter->replacement, .literal_size = splitter->replacement_size },
	};
	return cut_all(&at_mark, TOK_MERGED_WITH_NEXT, pieces_max, work, error);
}

/* Whether a piece may be left out. Otherwise each becomes one piece or more. */
static bool removes(const struct tok_splitter *splitter)
{
	return splitter->behavior == TOK_REMOVED || splitter->kind == TOK_SPLIT_WORDS;
}

enum cad_status cad_tok_split(const struct tok_splitters *splitters, struct tok_work *work, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	size_t removed_until = 0;

	for (size_t i = 0; i < splitters->count; i++)
		if (removes(&splitters->items[i]))
			removed_until = i;
	for (size_t i = 0; i < splitters->count && status == CAD_OK; i++) {
		const struct tok_splitter *splitter = &splitters->items[i];
		size_t pieces_max = i < removed_until ? SIZE_MAX : work->pieces_max;
		switch (splitter->kind) {
		case TOK_SPLIT_PATTERN:
		case TOK_SPLIT_CHARACTERS:
		case TOK_SPLIT_WORDS: status = cut_all(splitter, splitter->behavior, pieces_max, work, error); break;
		case TOK_SPLIT_BYTE_LEVEL:
			status = run_byte_level(
				splitter, splitters->keep_bytes && i + 1 == splitters->count, pieces_max, work, error);
			break;
		case TOK_SPLIT_METASPACE: status = run_metaspace(splitter, pieces_max, work, error); break;
		}
	}

	return status;
}
