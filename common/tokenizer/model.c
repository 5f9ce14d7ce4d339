/* SPDX-License-Identifier: Apache-2.0 */
/* Reading "model" of tokenizer.json: vocabulary, merges, and the tables that BPE runs on. */
#include "common/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

static enum cad_status put_token(const struct tok_json *file, const char *key, size_t length, int32_t id,
	struct tok_map *vocab, struct tok_names *names, struct cad_error *error)
{
	struct cad_text token = { 0 };
	struct tok_slice other;
	enum cad_status status = cad_tok_json_key(file, key, length, &token);

	if (status == CAD_OK && cad_tok_names_get(names, id, &other))
		status = cad_error_set(error, CAD_ERR_CORRUPT, "tokens '%.*s' and '%.*s' have the same id %d",
			cad_tok_show(other), other.bytes, cad_tok_show((struct tok_slice){ token.bytes, token.size }),
			token.bytes, id);
	if (status == CAD_OK)
		status = cad_tok_names_put(names, id, token.bytes, token.size);
	if (status == CAD_OK)
		status = cad_tok_map_put(vocab, token.bytes, token.size, id);
	cad_text_fini(&token);

	return status;
}

static enum cad_status read_vocab(const struct tok_json *file, const json_t *model, struct tok_map *vocab,
	struct tok_names *names, struct cad_error *error)
{
	const json_t *tokens = json_object_get(model, "vocab"), *value;
	if (!json_is_object(tokens) || json_object_size(tokens) == 0)
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "\"vocab\" must be a non-empty object of tokens and their ids");
	const char *token;
	size_t length;
	uint32_t count = 0;
	json_object_keylen_foreach((json_t *)tokens, token, length, value)
	{
		if (!json_is_integer(value) || json_integer_value(value) < 0 ||
			json_integer_value(value) >= TOK_ID_LIMIT)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"the id of token '%.*s' must be a whole number below %d",
				cad_tok_show((struct tok_slice){ token, length }), token, TOK_ID_LIMIT);
		if (json_integer_value(value) >= count)
			count = (uint32_t)json_integer_value(value) + 1;
	}
	enum cad_status status = cad_tok_map_init(vocab, json_object_size(tokens));
	if (status == CAD_OK)
		status = cad_tok_names_grow(names, count);
	if (status != CAD_OK)
		return status;
	json_object_keylen_foreach((json_t *)tokens, token, length, value)
	{
		status = put_token(file, token, length, (int32_t)json_integer_value(value), vocab, names, error);
		if (status != CAD_OK)
			return status;
	}

	return CAD_OK;
}

/* ---- merges ---- */

struct merge_reader {
	struct tok_bpe *bpe;
	const struct tok_map *vocab;
	struct cad_text joined;
	struct cad_error *error;
	uint32_t *left, *right, *result; /* by rank */
	size_t count;
};

static enum cad_status find_token(
	const struct merge_reader *reader, size_t rank, const char *bytes, size_t size, uint32_t *id)
{
	int32_t found = cad_tok_map_get(reader->vocab, bytes, size);
	if (found < 0)
		return cad_error_set(reader->error, CAD_ERR_CORRUPT,
			"merge %zu names the token '%.*s', which is not in the vocabulary", rank,
			cad_tok_show((struct tok_slice){ bytes, size }), bytes);
	*id = (uint32_t)found;
	return CAD_OK;
}

static enum cad_status read_merge(
	struct merge_reader *reader, const json_t *merge, struct tok_slice *left, struct tok_slice *right, size_t rank)
{
	const json_t *first = json_array_get(merge, 0), *second = json_array_get(merge, 1);
	if (json_is_array(merge) && json_array_size(merge) == 2 && json_is_string(first) && json_is_string(second)) {
		*left = (struct tok_slice){ json_string_value(first), json_string_length(first) };
		*right = (struct tok_slice){ json_string_value(second), json_string_length(second) };
		return CAD_OK;
	}

	if (json_is_string(merge)) {
		const char *text = json_string_value(merge), *end = text + json_string_length(merge);
		const char *space = memchr(text, ' ', (size_t)(end - text));
		if (space && !memchr(space + 1, ' ', (size_t)(end - space - 1))) {
			*left = (struct tok_slice){ text, (size_t)(space - text) };
			*right = (struct tok_slice){ space + 1, (size_t)(end - space - 1) };
			return CAD_OK;
		}
	}

	return cad_error_set(
		reader->error, CAD_ERR_CORRUPT, "merge %zu must be two tokens: [\"a\", \"b\"] or \"a b\"", rank);
}

static void insert_merge(struct tok_bpe *bpe, uint64_t pair, uint32_t rank, uint32_t id)
{
	size_t mask = bpe->merge_slots - 1, slot = cad_tok_hash_pair(pair) & mask;
	while (bpe->merges[slot].pair != TOK_NO_PAIR && bpe->merges[slot].pair != pair)
		slot = (slot + 1) & mask;
	/* of a merge that is there twice, the later rank counts */
	bpe->merges[slot] = (struct tok_merge){ pair, rank, id };
}

static enum cad_status read_merges(struct merge_reader *reader, const json_t *model)
{
	const json_t *list = json_object_get(model, "merges"), *merge;
	if (!json_is_array(list))
		return cad_error_set(reader->error, CAD_ERR_CORRUPT, "\"merges\" must be a list");

	size_t size = json_array_size(list), at;
	struct tok_bpe *bpe = reader->bpe;
	bpe->merge_slots = cad_tok_slots_for(size);
	bpe->merges = calloc(bpe->merge_slots, sizeof *bpe->merges);
	reader->left = calloc(size + 1, sizeof *reader->left);
	reader->right = calloc(size + 1, sizeof *reader->right);
	reader->result = calloc(size + 1, sizeof *reader->result);
	if (!bpe->merges || !reader->left || !reader->right || !reader->result)
		return CAD_ERR_MEMORY;
	for (size_t i = 0; i < bpe->merge_slots; i++)
		bpe->merges[i].pair = TOK_NO_PAIR;
	json_array_foreach((json_t *)list, at, merge)
	{
		if (json_is_string(merge) && strncmp(json_string_value(merge), "#version", 8) == 0)
			continue;
		struct tok_slice left = { 0 }, right = { 0 };
		size_t rank = reader->count;
		enum cad_status status = read_merge(reader, merge, &left, &right, rank);
		if (status == CAD_OK)
			status = find_token(reader, rank, left.bytes, left.size, &reader->left[rank]);
		if (status == CAD_OK)
			status = find_token(reader, rank, right.bytes, right.size, &reader->right[rank]);
		reader->joined.size = 0;
		if (status == CAD_OK)
			status = cad_tok_append(&reader->joined, left.bytes, left.size);
		if (status == CAD_OK)
			status = cad_tok_append(&reader->joined, right.bytes, right.size);
		if (status == CAD_OK)
			status = find_token(
				reader, rank, reader->joined.bytes, reader->joined.size, &reader->result[rank]);
		if (status != CAD_OK)
			return status;
		insert_merge(bpe, (uint64_t)reader->left[rank] << 32 | reader->right[rank], (uint32_t)rank,
			reader->result[rank]);
		reader->count++;
	}

	return CAD_OK;
}

/* ---- symbols ---- */

static void put_character(struct tok_bpe *bpe, uint32_t character, int32_t id)
{
	size_t mask = bpe->character_slots - 1, slot = cad_tok_hash_pair(character) & mask;
	while (bpe->characters[slot].id >= 0)
		slot = (slot + 1) & mask;
	bpe->characters[slot].character = character;
	bpe->characters[slot].id = id;
}

/* The tokens that are one character, those that are one byte, and those that represent one. */
static enum cad_status collect_symbols(struct tok_bpe *bpe, const struct tok_map *vocab, const struct tok_names *names)
{
	size_t count = 0, length;
	struct tok_slice name;

	for (uint32_t id = 0; id < names->count; id++)
		count += cad_tok_names_get(names, (int32_t)id, &name) && name.size > 0 &&
			cad_utf8_size(name.bytes[0]) == name.size;
	bpe->character_slots = cad_tok_slots_for(count);
	bpe->characters = calloc(bpe->character_slots, sizeof *bpe->characters);
	if (!bpe->characters)
		return CAD_ERR_MEMORY;
	for (size_t i = 0; i < bpe->character_slots; i++)
		bpe->characters[i].id = -1;
	for (uint32_t id = 0; id < names->count; id++)
		if (cad_tok_names_get(names, (int32_t)id, &name) && name.size > 0 &&
			cad_utf8_size(name.bytes[0]) == name.size)
			put_character(bpe, cad_utf8_get(name.bytes, &length), (int32_t)id);
	for (unsigned int byte = 0; byte < 256; byte++) {
		char text[8], character[4];
		snprintf(text, sizeof text, "<0x%02X>", byte);
		bpe->byte_fallback[byte] = cad_tok_map_get(vocab, text, 6);
		bpe->byte_symbol[byte] = cad_tok_map_get(
			vocab, character, cad_utf8_put(cad_tok_byte_to_character((unsigned char)byte), character));
	}

	return CAD_OK;
}

/* Finds the first symbols that may stand on the two sides of a merge. first[t] and last[t] are the
 * outermost symbols of token t. */
static enum cad_status collect_crossings(struct merge_reader *reader, const struct tok_names *names)
{
	enum { PASSES_MAX = 8 };
	static const uint32_t NONE = UINT32_MAX;
	struct tok_bpe *bpe = reader->bpe;
	enum cad_status status = CAD_ERR_MEMORY;
	uint32_t *first = calloc(names->count, sizeof *first), *last = calloc(names->count, sizeof *last);

	bpe->crossing_slots = cad_tok_slots_for(reader->count);
	bpe->crossings = malloc(bpe->crossing_slots * sizeof *bpe->crossings);
	if (!first || !last || !bpe->crossings)
		goto free_ends;
	status = CAD_OK;
	memset(bpe->crossings, 0xff, bpe->crossing_slots * sizeof *bpe->crossings);
	for (uint32_t id = 0; id < names->count; id++)
		first[id] = last[id] = NONE;
	for (size_t i = 0; i < bpe->character_slots; i++)
		if (bpe->characters[i].id >= 0)
			first[bpe->characters[i].id] = last[bpe->characters[i].id] = (uint32_t)bpe->characters[i].id;
	for (size_t byte = 0; byte < 256 && bpe->has_byte_fallback; byte++)
		if (bpe->byte_fallback[byte] >= 0)
			first[bpe->byte_fallback[byte]] = last[bpe->byte_fallback[byte]] =
				(uint32_t)bpe->byte_fallback[byte];
	if (bpe->unknown >= 0)
		first[bpe->unknown] = last[bpe->unknown] = (uint32_t)bpe->unknown;
	bool changed = true;
	for (int pass = 0; changed; pass++) {
		changed = false;
		bpe->crosses_anywhere = pass == PASSES_MAX;
		for (size_t i = 0; i < reader->count && !bpe->crosses_anywhere; i++) {
			uint32_t left = first[reader->left[i]], right = last[reader->right[i]],
				 result = reader->result[i];
			if (left == NONE || right == NONE)
				continue;
			bpe->crosses_anywhere =
				first[result] != NONE && (first[result] != left || last[result] != right);
			changed |= first[result] == NONE;
			first[result] = left;
			last[result] = right;
		}
		if (bpe->crosses_anywhere)
			goto free_ends;
	}

	for (size_t i = 0; i < reader->count; i++) {
		uint32_t left = last[reader->left[i]], right = first[reader->right[i]];
		if (left == NONE || right == NONE)
			continue;
		uint64_t pair = (uint64_t)left << 32 | right;
		size_t mask = bpe->crossing_slots - 1, slot = cad_tok_hash_pair(pair) & mask;
		while (bpe->crossings[slot] != TOK_NO_PAIR && bpe->crossings[slot] != pair)
			slot = (slot + 1) & mask;
		bpe->crossings[slot] = pair;
	}

free_ends:
	free(first);
	free(last);

	return status;
}

/* Tokens that the merges lead to from their own text, or all tokens where the merges are to be
 * ignored for them: these need no merging at all. */
static enum cad_status collect_whole(struct tok_bpe *bpe, const struct tok_names *names)
{
	struct tok_symbols symbols = { 0 };
	struct cad_ids ids = { 0 };
	struct cad_text bytes = { 0 };
	struct tok_map whole;
	enum cad_status status = cad_tok_map_init(&whole, names->count);

	for (uint32_t id = 0; id < names->count && status == CAD_OK; id++) {
		struct tok_slice text;
		if (!cad_tok_names_get(names, (int32_t)id, &text) || text.size == 0)
			continue;
		if (bpe->bytes) {
			bool all;
			bytes.size = 0;
			status = cad_tok_bytes_of(text, &bytes, &all);
			if (status != CAD_OK || !all)
				continue;
			text = (struct tok_slice){ bytes.bytes, bytes.size };
		}
		ids.count = 0;
		if (!bpe->ignore_merges)
			status = cad_tok_bpe_encode(bpe, text.bytes, text.size, &symbols, SIZE_MAX, &ids);
		if (status == CAD_ERR_INVALID) { /* it has an unknown character itself */
			status = CAD_OK;
			continue;
		}
		if (status == CAD_OK && (bpe->ignore_merges || (ids.count == 1 && ids.ids[0] == (int32_t)id)))
			status = cad_tok_map_put(&whole, text.bytes, text.size, (int32_t)id);
	}

	cad_tok_symbols_fini(&symbols);
	cad_ids_fini(&ids);
	cad_text_fini(&bytes);
	bpe->whole = whole;

	return status;
}

/* Every part of a piece becomes some id, unless characters are left out or run together as one
 * unknown token. */
static size_t longest_id(const struct tok_bpe *bpe, const struct tok_names *names)
{
	size_t longest = 4; /* an unknown character */
	struct tok_slice name;
	bool all_bytes = bpe->has_byte_fallback;

	for (size_t byte = 0; byte < 256; byte++)
		all_bytes &= bpe->byte_fallback[byte] >= 0;
	bool refused = bpe->unknown_missing.bytes != NULL;
	if (!bpe->bytes && !all_bytes && !refused && (bpe->unknown < 0 || bpe->fuse_unknown))
		return 0;
	for (uint32_t id = 0; id < names->count; id++)
		if (cad_tok_names_get(names, (int32_t)id, &name) && name.size > longest)
			longest = name.size;

	return longest;
}

/* ---- the whole of it ---- */

static bool absent(const json_t *model, const char *key)
{
	const json_t *value = json_object_get(model, key);
	return !value || json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0) ||
		(json_is_number(value) && json_number_value(value) == 0);
}

static enum cad_status read_settings(
	const json_t *model, struct tok_bpe *bpe, const struct tok_map *vocab, struct cad_error *error)
{
	static const char *const unsupported[] = { "dropout", "continuing_subword_prefix", "end_of_word_suffix" };
	for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
		if (!absent(model, unsupported[i]))
			return cad_error_set(error, CAD_ERR_UNSUPPORTED, "\"%s\" is set, which Cadre does not support",
				unsupported[i]);
	enum cad_status status = cad_tok_json_bool(model, "fuse_unk", false, &bpe->fuse_unknown, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(model, "byte_fallback", false, &bpe->has_byte_fallback, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(model, "ignore_merges", false, &bpe->ignore_merges, error);
	bpe->unknown = -1;
	const json_t *unknown = json_object_get(model, "unk_token");
	if (status != CAD_OK || !unknown || json_is_null(unknown))
		return status;
	if (!json_is_string(unknown))
		return cad_error_set(error, CAD_ERR_CORRUPT, "\"unk_token\" must be a token or null");
	bpe->unknown = cad_tok_map_get(vocab, json_string_value(unknown), json_string_length(unknown));
	if (bpe->unknown >= 0)
		return CAD_OK;

	/* only a text with an unknown character needs it, and most vocabularies know them all */
	return cad_tok_append(&bpe->unknown_missing, json_string_value(unknown), json_string_length(unknown));
}

static enum cad_status parse_model(const struct tok_json *file, bool bytes_wanted, struct merge_reader *reader,
	struct tok_map *vocab, struct tok_names *names)
{
	const json_t *model = json_object_get(file->root, "model");
	struct tok_bpe *bpe = reader->bpe;
	struct cad_error *error = reader->error;

	if (!json_is_object(model))
		return cad_error_set(error, CAD_ERR_CORRUPT, "there is no \"model\"");

	const json_t *type = json_object_get(model, "type");
	struct tok_slice name = { "BPE", 3 }; /* old files do not say */
	enum cad_status status = type ? cad_tok_json_string(model, "type", &name, error) : CAD_OK;
	if (status != CAD_OK)
		return status;
	if (strcmp(name.bytes, "BPE") != 0)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "the model '%.*s' is not supported (BPE is)",
			cad_tok_show(name), name.bytes);
	status = read_vocab(file, model, vocab, names, error);
	if (status == CAD_OK)
		status = read_settings(model, bpe, vocab, error);
	if (status == CAD_OK)
		status = read_merges(reader, model);
	if (status == CAD_OK)
		status = collect_symbols(bpe, vocab, names);
	if (status != CAD_OK)
		return status;
	bpe->bytes = bytes_wanted;
	for (size_t byte = 0; byte < 256; byte++)
		bpe->bytes &= bpe->byte_symbol[byte] >= 0;
	bpe->id_bytes_max = longest_id(bpe, names);
	status = collect_crossings(reader, names);

	return status != CAD_OK ? status : collect_whole(bpe, names);
}

enum cad_status cad_tok_bpe_parse(const struct tok_json *file, bool bytes_wanted, struct tok_bpe *bpe,
	struct tok_map *vocab, struct tok_names *names, struct cad_error *error)
{
	struct merge_reader reader = { .bpe = bpe, .vocab = vocab, .error = error };
	enum cad_status status = parse_model(file, bytes_wanted, &reader, vocab, names);

	cad_text_fini(&reader.joined);
	free(reader.left);
	free(reader.right);
	free(reader.result);
	if (status == CAD_ERR_MEMORY)
		return cad_error_set(error, status, "model: out of memory");
	return status != CAD_OK ? cad_error_prefix(error, "model") : CAD_OK;
}
