/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoders: ids to text. A decoder is a chain of stages; each takes tokens, or the parts of one
 * fused string, and passes on what it is sure of.
 * Decoding a whole list is the same chain, pushed to the end: what streams is therefore what a
 * decoding at once gives, byte for byte.
 */
#include "common/tokenizer/decode.h"

#include "common/base/hex.h"
#include "common/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* ---- reading ---- */

static enum cad_status take_content(struct tok_decoder_stage *stage, const json_t *json, struct cad_error *error)
{
	struct tok_slice content;
	enum cad_status status = cad_tok_json_string(json, "content", &content, error);

	if (status != CAD_OK)
		return status;

	stage->content = malloc(content.size + 1);
	if (!stage->content)
		return CAD_ERR_MEMORY;
	memcpy(stage->content, content.bytes, content.size + 1);
	stage->content_size = content.size;

	return CAD_OK;
}

static enum cad_status take_character(
	struct tok_decoder_stage *stage, const json_t *json, const char *key, struct cad_error *error)
{
	uint32_t character;
	enum cad_status status = cad_tok_json_character(json, key, &character, error);
	if (status == CAD_OK)
		stage->character_size = cad_utf8_put(character, stage->character);
	return status;
}

static enum cad_status parse_strip(struct tok_decoder_stage *stage, const json_t *json, struct cad_error *error)
{
	stage->kind = TOK_DECODE_STRIP;
	int64_t start, stop;
	enum cad_status status = take_character(stage, json, "content", error);
	if (status == CAD_OK)
		status = cad_tok_json_integer(json, "start", 0, INT32_MAX, &start, error);
	if (status == CAD_OK)
		status = cad_tok_json_integer(json, "stop", 0, INT32_MAX, &stop, error);
	if (status != CAD_OK)
		return status;
	stage->start = (size_t)start;
	stage->stop = (size_t)stop;

	return CAD_OK;
}

static enum cad_status parse_metaspace(struct tok_decoder_stage *stage, const json_t *json, struct cad_error *error)
{
	stage->kind = TOK_DECODE_METASPACE;
	bool add_prefix_space;
	enum cad_status status = cad_tok_json_bool(json, "add_prefix_space", true, &add_prefix_space, error);
	const json_t *scheme = json_object_get(json, "prepend_scheme");
	if (status == CAD_OK && scheme && !json_is_string(scheme))
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "\"prepend_scheme\" must be \"always\", \"first\" or \"never\"");
	stage->drop_first = add_prefix_space && !(scheme && strcmp(json_string_value(scheme), "never") == 0);
	return status != CAD_OK ? status : take_character(stage, json, "replacement", error);
}

static enum cad_status parse_one(void *context, const char *type, const json_t *json, struct cad_error *error)
{
	struct tok_decoders *decoders = context;
	if (decoders->count == TOK_STAGES_MAX)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "more than %d decoders", TOK_STAGES_MAX);

	struct tok_decoder_stage *stage = &decoders->items[decoders->count];
	bool fused = decoders->count > 0 &&
		(stage[-1].fused || stage[-1].kind == TOK_DECODE_FUSE || stage[-1].kind == TOK_DECODE_BYTE_LEVEL);
	*stage = (struct tok_decoder_stage){ .fused = fused };
	decoders->count++;
	if (strcmp(type, "Fuse") == 0) {
		stage->kind = TOK_DECODE_FUSE;
		return CAD_OK;
	}

	if (strcmp(type, "Strip") == 0)
		return parse_strip(stage, json, error);
	if (strcmp(type, "Metaspace") == 0)
		return parse_metaspace(stage, json, error);

	if (strcmp(type, "Replace") == 0) {
		stage->kind = TOK_DECODE_REPLACE;
		enum cad_status status = take_content(stage, json, error);
		return status != CAD_OK
			? status
			: cad_tok_pattern_parse(json_object_get(json, "pattern"), &stage->pattern, error);
	}

	stage->kind = TOK_DECODE_BYTE_LEVEL;

	if (strcmp(type, "ByteFallback") == 0)
		stage->kind = TOK_DECODE_BYTE_FALLBACK;
	else if (strcmp(type, "ByteLevel") != 0)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"this decoder is not supported (ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace and Sequence are)");
	if (fused)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"this decoder works on tokens, but comes after one that joins them into one string");
	return CAD_OK;
}

enum cad_status cad_tok_decoders_parse(const json_t *json, struct tok_decoders *decoders, struct cad_error *error)
{
	enum cad_status status = cad_tok_json_flatten(json, "decoders", parse_one, decoders, error);
	if (status == CAD_OK && (!json || json_is_null(json)))
		decoders->items[decoders->count++] = (struct tok_decoder_stage){ .kind = TOK_DECODE_SPACES };
	return status;
}

void cad_tok_decoders_fini(struct tok_decoders *decoders)
{
	for (size_t i = 0; i < decoders->count; i++) {
		free(decoders->items[i].content);
		cad_tok_pattern_fini(&decoders->items[i].pattern);
	}
	decoders->count = 0;
}

/* ---- running ---- */

/* What a stage remembers between tokens. */
struct stage_state {
	struct cad_text held; /* bytes that what comes next decides about */
	struct cad_text scratch;
	size_t seen; /* tokens, or characters stripped */
	size_t held_characters;
	bool started; /* something was passed on */
};

struct cad_decoder {
	const struct cad_tokenizer *tokenizer;
	bool skip_special;
	struct cad_text *out;
	struct cad_error *error;
	struct stage_state states[]; /* of the tokenizer's stages: every open stream has a decoder */
};

static enum cad_status feed(struct cad_decoder *decoder, size_t at, const char *bytes, size_t size);

/* The lossy decoding of the library makes one U+FFFD of every longest start of a character that
 * breaks off. */
static enum cad_status put_lossy(struct stage_state *state, const char *bytes, size_t size, struct cad_text *out)
{
	enum cad_status status = CAD_OK;
	for (size_t i = 0; i < size && status == CAD_OK;) {
		struct cad_text *held = &state->held;
		if (held->size > 0 && !cad_utf8_continues(held->bytes[0], held->size, bytes[i])) {
			held->size = 0;
			status = cad_tok_append(out, REPLACEMENT, 3);
			continue;
		}
		size_t want = cad_utf8_expected(held->size > 0 ? held->bytes[0] : bytes[i]);
		i++;
		if (want == 0) {
			status = cad_tok_append(out, REPLACEMENT, 3);
			continue;
		}
		status = cad_tok_append(held, bytes + i - 1, 1);
		if (status == CAD_OK && held->size == want) {
			status = cad_tok_append(out, held->bytes, held->size);
			held->size = 0;
		}
	}
	return status;
}

static enum cad_status feed_byte_level(struct cad_decoder *decoder, size_t at, const char *bytes, size_t size)
{
	struct stage_state *state = &decoder->states[at];
	struct cad_text token = { 0 };
	bool all;

	state->scratch.size = 0;
	enum cad_status status = cad_tok_bytes_of((struct tok_slice){ bytes, size }, &token, &all);
	if (status == CAD_OK)
		status = all ? put_lossy(state, token.bytes, token.size, &state->scratch)
			     : put_lossy(state, bytes, size, &state->scratch);
	cad_text_fini(&token);
	return status != CAD_OK ? status : feed(decoder, at + 1, state->scratch.bytes, state->scratch.size);
}

/* "<0x41>", either case; -1 for anything else. As in the library, the two characters are what a
 * number in base 16 may be, so that "+F" is one. */
static int byte_token(const char *bytes, size_t size)
{
	if (size != 6 || memcmp(bytes, "<0x", 3) != 0 || bytes[5] != '>')
		return -1;

	int value = 0;
	for (size_t i = 3; i < 5; i++) {
		char c = bytes[i];
		int digit = cad_hex_digit(c);
		if (digit < 0 && !(c == '+' && i == 3))
			return -1;
		value = value * 16 + (digit < 0 ? 0 : digit);
	}

	return value;
}

/* A run of byte tokens is text if all of it is; if not, each byte is a U+FFFD. Nothing of it is
 * known before the run ends. */
static enum cad_status flush_bytes(struct cad_decoder *decoder, size_t at)
{
	struct stage_state *state = &decoder->states[at];
	size_t size = state->held.size;

	if (size == 0)
		return CAD_OK;

	state->held.size = 0;
	if (cad_utf8_valid(state->held.bytes, size) == size)
		return feed(decoder, at + 1, state->held.bytes, size);
	enum cad_status status = CAD_OK;
	for (size_t i = 0; i < size && status == CAD_OK; i++)
		status = feed(decoder, at + 1, REPLACEMENT, 3);

	return status;
}

static enum cad_status feed_byte_fallback(struct cad_decoder *decoder, size_t at, const char *bytes, size_t size)
{
	int byte = byte_token(bytes, size);
	if (byte >= 0)
		return cad_tok_append(&decoder->states[at].held, &(char){ (char)byte }, 1);
	enum cad_status status = flush_bytes(decoder, at);
	return status != CAD_OK ? status : feed(decoder, at + 1, bytes, size);
}

static bool is_character(const struct tok_decoder_stage *stage, const char *bytes, size_t size)
{
	return size >= stage->character_size && memcmp(bytes, stage->character, stage->character_size) == 0;
}

/* One token, or a part of the one string: at its very start up to `start` of the character vanish,
 * at its very end up to `stop`. */
static enum cad_status feed_strip(struct cad_decoder *decoder, size_t at, const char *bytes, size_t size)
{
	const struct tok_decoder_stage *stage = &decoder->tokenizer->decoders.items[at];
	struct stage_state *state = &decoder->states[at];
	size_t from = 0, width = stage->character_size;

	while (!state->started && state->seen < stage->start && is_character(stage, bytes + from, size - from)) {
		from += width;
		state->seen++;
	}

	if (from == size)
		return feed(decoder, at + 1, "", 0);
	state->started = true;
	size_t to = size, held = 0;
	while (held < stage->stop && to - from >= width && is_character(stage, bytes + to - width, width)) {
		to -= width;
		held++;
	}

	enum cad_status status = CAD_OK;
	state->scratch.size = 0;

	if (to == from) { /* the held ones stay in question: only the last `stop` of them */
		state->held_characters += held;
		while (state->held_characters > stage->stop && status == CAD_OK) {
			state->held_characters--;
			status = cad_tok_append(&state->scratch, stage->character, width);
		}
	} else {
		for (; state->held_characters > 0 && status == CAD_OK; state->held_characters--)
			status = cad_tok_append(&state->scratch, stage->character, width);
		state->held_characters = held;
		if (status == CAD_OK)
			status = cad_tok_append(&state->scratch, bytes + from, to - from);
	}

	return status != CAD_OK ? status : feed(decoder, at + 1, state->scratch.bytes, state->scratch.size);
}

static enum cad_status replace_all(const struct tok_decoder_stage *stage, const char *bytes, size_t size,
	struct cad_text *out, size_t *done, struct cad_error *error)
{
	struct tok_matches matches;
	size_t start, end;

	*done = 0;
	if (size == 0) /* in an empty string nothing is found, not even nothing */
		return CAD_OK;
	enum cad_status status = cad_tok_matches_init(&matches, &stage->pattern);
	if (status != CAD_OK)
		return status;
	cad_tok_matches_start(&matches, bytes, size);

	while ((status = cad_tok_matches_next(&matches, &start, &end, error)) == CAD_OK) {
		status = cad_tok_append(out, bytes + *done, start - *done);
		if (status == CAD_OK)
			status = cad_tok_append(out, stage->content, stage->content_size);
		if (status != CAD_OK)
			break;
		*done = end;
	}

	cad_tok_matches_fini(&matches);
	return status == CAD_AGAIN ? CAD_OK : status;
}

/* How many of the last bytes may be the start of a match that is not all there yet. */
static size_t undecided(const struct tok_pattern *pattern, const char *bytes, size_t size)
{
	if (!pattern->literal)
		return size;
	size_t count = pattern->literal_size - 1 < size ? pattern->literal_size - 1 : size;
	while (count > 0 && memcmp(bytes + size - count, pattern->literal, count) != 0)
		count--;
	return count;
}

static enum cad_status feed_replace(struct cad_decoder *decoder, size_t at, const char *bytes, size_t size, bool last)
{
	const struct tok_decoder_stage *stage = &decoder->tokenizer->decoders.items[at];
	struct stage_state *state = &decoder->states[at];
	struct cad_text *held = &state->held;
	enum cad_status status = cad_tok_append(held, bytes, size);

	if (status != CAD_OK || (!last && !stage->pattern.literal))
		return status;

	size_t done;
	state->scratch.size = 0;
	status = replace_all(stage, held->bytes, held->size, &state->scratch, &done, decoder->error);
	if (status != CAD_OK)
		return status;
	size_t keep = last ? 0 : undecided(&stage->pattern, held->bytes + done, held->size - done);
	status = cad_tok_append(&state->scratch, held->bytes + done, held->size - done - keep);
	if (status != CAD_OK)
		return status;
	memmove(held->bytes, held->bytes + held->size - keep, keep);
	held->size = keep;

	return feed(decoder, at + 1, state->scratch.bytes, state->scratch.size);
}

static enum cad_status feed_metaspace(struct cad_decoder *decoder, size_t at, const char *bytes, size_t size)
{
	const struct tok_decoder_stage *stage = &decoder->tokenizer->decoders.items[at];
	struct stage_state *state = &decoder->states[at];
	bool drop = stage->drop_first && (stage->fused || state->seen == 0);

	state->seen++;
	state->scratch.size = 0;
	enum cad_status status = CAD_OK;
	for (size_t i = 0, length; i < size && status == CAD_OK; i += length) {
		length = cad_utf8_size(bytes[i]);
		if (!is_character(stage, bytes + i, size - i))
			status = cad_tok_append(&state->scratch, bytes + i, length);
		else if (!drop)
			status = cad_tok_append(&state->scratch, " ", 1);
	}

	return status != CAD_OK ? status : feed(decoder, at + 1, state->scratch.bytes, state->scratch.size);
}

static enum cad_status feed(struct cad_decoder *decoder, size_t at, const char *bytes, size_t size)
{
	const struct tok_decoders *decoders = &decoder->tokenizer->decoders;
	if (at == decoders->count)
		return cad_tok_append(decoder->out, bytes, size);

	const struct tok_decoder_stage *stage = &decoders->items[at];
	struct stage_state *state = &decoder->states[at];
	enum cad_status status;
	switch (stage->kind) {
	case TOK_DECODE_BYTE_LEVEL: return feed_byte_level(decoder, at, bytes, size);
	case TOK_DECODE_BYTE_FALLBACK: return feed_byte_fallback(decoder, at, bytes, size);
	case TOK_DECODE_FUSE: return feed(decoder, at + 1, bytes, size);
	case TOK_DECODE_METASPACE: return feed_metaspace(decoder, at, bytes, size);
	case TOK_DECODE_REPLACE: return feed_replace(decoder, at, bytes, size, !stage->fused);
	case TOK_DECODE_STRIP:
		status = feed_strip(decoder, at, bytes, size);
		if (!stage->fused) {
			state->started = false;
			state->seen = state->held_characters = 0;
		}
		return status;
	case TOK_DECODE_SPACES:
		status = state->seen++ > 0 ? feed(decoder, at + 1, " ", 1) : CAD_OK;
		return status != CAD_OK ? status : feed(decoder, at + 1, bytes, size);
	}

	return CAD_ERR_INTERNAL;
}

static enum cad_status finish(struct cad_decoder *decoder)
{
	const struct tok_decoders *decoders = &decoder->tokenizer->decoders;
	enum cad_status status = CAD_OK;

	for (size_t at = 0; at < decoders->count && status == CAD_OK; at++) {
		struct stage_state *state = &decoder->states[at];
		const struct tok_decoder_stage *stage = &decoders->items[at];
		if (stage->kind == TOK_DECODE_BYTE_LEVEL && state->held.size > 0) {
			state->held.size = 0;
			status = feed(decoder, at + 1, REPLACEMENT, 3);
		} else if (stage->kind == TOK_DECODE_BYTE_FALLBACK) {
			status = flush_bytes(decoder, at);
		} else if (stage->kind == TOK_DECODE_REPLACE && stage->fused) {
			status = feed_replace(decoder, at, "", 0, true);
		}
	}

	return status;
}

static enum cad_status push(struct cad_decoder *decoder, int32_t id)
{
	const struct cad_tokenizer *tokenizer = decoder->tokenizer;
	struct tok_slice name;

	if (id < 0 || ((uint32_t)id >= tokenizer->names.count && (uint32_t)id >= tokenizer->padded_size))
		return cad_error_set(decoder->error, CAD_ERR_RANGE, "token id %d is outside the vocabulary of %u ids",
			id, tokenizer->names.count);
	if (!cad_tok_names_get(&tokenizer->names, id, &name))
		return CAD_OK; /* a hole in the vocabulary, or its padding, decodes to nothing */
	if (decoder->skip_special && tokenizer->added.is_special[id])
		return CAD_OK;
	return feed(decoder, 0, name.bytes, name.size);
}

/* Runs one step with the caller's text; what was appended before a failure is taken back. */
static enum cad_status run(struct cad_decoder *decoder, struct cad_text *text, struct cad_error *error,
	const int32_t *ids, size_t count, bool last)
{
	size_t size = text->size;
	decoder->out = text;
	decoder->error = error;
	enum cad_status status = cad_tok_append(text, "", 0);
	for (size_t i = 0; i < count && status == CAD_OK; i++)
		status = push(decoder, ids[i]);
	if (status == CAD_OK && last)
		status = finish(decoder);
	if (status == CAD_OK)
		return CAD_OK;
	if (text->bytes) {
		text->size = size;
		text->bytes[size] = 0;
	}

	return status == CAD_ERR_MEMORY ? cad_error_set(error, status, "out of memory while decoding") : status;
}

enum cad_status cad_tokenizer_decode(const struct cad_tokenizer *tokenizer, const int32_t *ids, size_t count,
	bool skip_special, struct cad_text *text, struct cad_error *error)
{
	struct cad_decoder *decoder;
	enum cad_status status = cad_decoder_create(tokenizer, skip_special, &decoder);
	if (status != CAD_OK)
		return cad_error_set(error, status, "out of memory while decoding");
	status = run(decoder, text, error, ids, count, true);
	cad_decoder_destroy(decoder);
	return status;
}

enum cad_status cad_decoder_create(
	const struct cad_tokenizer *tokenizer, bool skip_special, struct cad_decoder **decoder)
{
	struct cad_decoder *created =
		calloc(1, sizeof *created + tokenizer->decoders.count * sizeof created->states[0]);
	if (!created)
		return CAD_ERR_MEMORY;
	created->tokenizer = tokenizer;
	created->skip_special = skip_special;
	*decoder = created;
	return CAD_OK;
}

void cad_decoder_destroy(struct cad_decoder *decoder)
{
	if (!decoder)
		return;
	for (size_t at = 0; at < decoder->tokenizer->decoders.count; at++) {
		cad_text_fini(&decoder->states[at].held);
		cad_text_fini(&decoder->states[at].scratch);
	}
	free(decoder);
}

enum cad_status cad_decoder_push(
	struct cad_decoder *decoder, int32_t id, struct cad_text *text, struct cad_error *error)
{
	return run(decoder, text, error, &id, 1, false);
}

enum cad_status cad_decoder_finish(struct cad_decoder *decoder, struct cad_text *text, struct cad_error *error)
{
	return run(decoder, text, error, NULL, 0, true);
}
