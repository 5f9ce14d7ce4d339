/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading added tokens: those of tokenizer.json, then those that only files beside it name. As in
 * the library, a token may be listed again: it keeps its id, and is what the last listing says;
 * only `special` stays once it was said.
 */
#include "common/base/log.h"
#include "common/tokenizer/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A token, as it was listed so far. */
struct listed {
	struct tok_slice content; /* of the JSON */
	bool normalized;
	bool ever_normalized; /* then it decodes to its normalized form */
};

struct added_reader {
	struct tok_added *added;
	struct listed *listed; /* [added->count] */
	const struct tok_normalizers *normalizers;
	const struct tok_map *vocab;
	struct tok_map places, specials; /* content to its place in the list; those that are special */
	struct tok_names *names;
	struct cad_error *error;
	uint32_t next_id;
};

/* What one listing says. */
struct listing {
	struct tok_slice content;
	int64_t id; /* < 0: it does not say */
	struct tok_added_token flags;
	bool normalized, special;
};

static enum cad_status read_listing(const json_t *json, bool has_id, struct listing *listing, struct cad_error *error)
{
	struct tok_added_token *flags = &listing->flags;
	enum cad_status status = cad_tok_json_string(json, "content", &listing->content, error);

	listing->id = -1;
	if (status == CAD_OK && (has_id || json_object_get(json, "id")))
		status = cad_tok_json_integer(json, "id", 0, TOK_ID_LIMIT - 1, &listing->id, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "single_word", false, &flags->single_word, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "lstrip", false, &flags->left, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "rstrip", false, &flags->right, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "special", false, &listing->special, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "normalized", !listing->special, &listing->normalized, error);
	if (status == CAD_OK && listing->content.size > TOK_ADDED_BYTES_MAX)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "a token of %zu bytes (the limit is %d)",
			listing->content.size, TOK_ADDED_BYTES_MAX);

	return status;
}

/* The library numbers the tokens itself: by the vocabulary, or else onwards from its size. A file
 * that says otherwise contradicts itself; where it is one beside tokenizer.json, that one counts. */
static enum cad_status check_id(
	const struct listing *listing, int32_t id, const char *why, bool tolerant, struct cad_error *error)
{
	struct tok_slice content = listing->content;

	if (listing->id < 0 || listing->id == id)
		return CAD_OK;
	if (tolerant) {
		char name[64];
		snprintf(name, sizeof name, "%.*s", cad_tok_show(content), content.bytes);
		cad_log_warn("tokenizer", "a file beside tokenizer.json has another id for a token: it does not count",
			CAD_S("token", name), CAD_I("id", id), CAD_I("beside", listing->id));
		return CAD_OK;
	}
	return cad_error_set(error, CAD_ERR_CORRUPT, "token '%.*s' says that its id is %lld, but %s %d",
		cad_tok_show(content), content.bytes, (long long)listing->id, why, id);
}

static enum cad_status add_token(struct added_reader *reader, const struct listing *listing, bool beside, size_t *place)
{
	struct tok_slice content = listing->content, other;
	struct cad_error *error = reader->error;
	int32_t id = cad_tok_map_get(reader->vocab, content.bytes, content.size);
	bool in_vocab = id >= 0;

	if (!in_vocab)
		id = (int32_t)reader->next_id;
	enum cad_status status = check_id(
		listing, id, in_vocab ? "the vocabulary has it as" : "the next free id is", in_vocab && beside, error);
	if (status != CAD_OK)
		return status;
	if (id >= TOK_ID_LIMIT)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "more than %d ids", TOK_ID_LIMIT);
	if (!in_vocab && cad_tok_names_get(reader->names, id, &other))
		return cad_error_set(error, CAD_ERR_CORRUPT, "tokens '%.*s' and '%.*s' have the same id %d",
			cad_tok_show(other), other.bytes, cad_tok_show(content), content.bytes, id);

	reader->next_id += !in_vocab;
	*place = reader->added->count++;
	reader->added->tokens[*place].id = id;
	reader->listed[*place] = (struct listed){ .content = content };

	return cad_tok_map_put(&reader->places, content.bytes, content.size, (int32_t)*place);
}

static enum cad_status read_token(struct added_reader *reader, const json_t *json, bool beside)
{
	struct listing listing;
	enum cad_status status = read_listing(json, !beside, &listing, reader->error);

	if (status != CAD_OK || listing.content.size == 0)
		return status;

	int32_t known = cad_tok_map_get(&reader->places, listing.content.bytes, listing.content.size);
	size_t place = (size_t)known;
	if (known < 0)
		status = add_token(reader, &listing, beside, &place);
	else
		status = check_id(
			&listing, reader->added->tokens[place].id, "it was listed before, as", beside, reader->error);
	if (status != CAD_OK)
		return status;

	listing.flags.id = reader->added->tokens[place].id;
	reader->added->tokens[place] = listing.flags;
	reader->listed[place].normalized = listing.normalized;
	reader->listed[place].ever_normalized |= listing.normalized;

	return listing.special ? cad_tok_map_put(&reader->specials, listing.content.bytes, listing.content.size, 0)
			       : CAD_OK;
}

/* ---- the tables ---- */

static enum cad_status enter(struct added_reader *reader, size_t place, struct cad_text *form)
{
	const struct listed *listed = &reader->listed[place];
	struct tok_slice content = listed->content;
	struct tok_added *added = reader->added;
	size_t origin = 0;

	form->size = 0;
	enum cad_status status = listed->ever_normalized
		? cad_tok_normalize(reader->normalizers, content.bytes, content.size, form, &origin, reader->error)
		: cad_tok_append(form, content.bytes, content.size);
	if (status == CAD_OK && form->size == 0)
		status = cad_error_set(reader->error, CAD_ERR_CORRUPT, "token '%.*s' is empty when normalized",
			cad_tok_show(content), content.bytes);
	if (status != CAD_OK)
		return status;
	int32_t first;
	status = listed->normalized
		? cad_tok_trie_insert(&added->normalized, form->bytes, form->size, (int32_t)place, &first)
		: cad_tok_trie_insert(&added->plain, content.bytes, content.size, (int32_t)place, &first);
	if (status != CAD_OK)
		return status;
	if (first != (int32_t)place) /* the library takes either, by chance */
		cad_log_warn("tokenizer", "two added tokens are equal when normalized: the first counts",
			CAD_S("token", form->bytes), CAD_I("first", added->tokens[first].id),
			CAD_I("second", added->tokens[place].id));

	return cad_tok_names_put(reader->names, added->tokens[place].id, form->bytes, form->size);
}

static enum cad_status enter_all(struct added_reader *reader)
{
	struct tok_added *added = reader->added;
	struct cad_text form = { 0 };
	enum cad_status status = CAD_OK;

	for (size_t i = 0; i < added->count && status == CAD_OK; i++)
		status = cad_tok_names_grow(reader->names, (uint32_t)added->tokens[i].id + 1);
	for (size_t i = 0; i < added->count && status == CAD_OK; i++)
		status = enter(reader, i, &form);
	cad_text_fini(&form);
	if (status != CAD_OK)
		return status;

	added->is_special = calloc(reader->names->count + 1, sizeof *added->is_special);
	if (!added->is_special)
		return CAD_ERR_MEMORY;
	for (size_t i = 0; i < added->count; i++) {
		struct tok_slice name;
		if (cad_tok_names_get(reader->names, added->tokens[i].id, &name))
			added->is_special[added->tokens[i].id] =
				cad_tok_map_get(&reader->specials, name.bytes, name.size) >= 0;
	}

	return CAD_OK;
}

/* ---- the whole of it ---- */

static enum cad_status read_tokens(struct added_reader *reader, const json_t *json, const json_t *beside)
{
	size_t count = json_array_size(json) + json_array_size(beside), at;
	const json_t *item;

	reader->added->tokens = calloc(count + 1, sizeof *reader->added->tokens);
	reader->listed = calloc(count + 1, sizeof *reader->listed);
	enum cad_status status = reader->added->tokens && reader->listed ? CAD_OK : CAD_ERR_MEMORY;
	if (status == CAD_OK)
		status = cad_tok_map_init(&reader->places, count);
	if (status == CAD_OK)
		status = cad_tok_map_init(&reader->specials, count);
	if (status != CAD_OK)
		return status;

	json_array_foreach((json_t *)json, at, item)
	{
		status = read_token(reader, item, false);
		if (status != CAD_OK)
			return status;
	}
	json_array_foreach((json_t *)beside, at, item)
	{
		status = read_token(reader, item, true);
		if (status != CAD_OK)
			return status == CAD_ERR_MEMORY ? status
							: cad_error_prefix(reader->error, "beside tokenizer.json");
	}

	return enter_all(reader);
}

enum cad_status cad_tok_added_parse(const json_t *json, const json_t *beside, const struct tok_normalizers *normalizers,
	const struct tok_map *vocab, struct tok_added *added, struct tok_names *names, struct cad_error *error)
{
	cad_tok_trie_init(&added->plain);
	cad_tok_trie_init(&added->normalized);
	if (json && !json_is_null(json) && !json_is_array(json))
		return cad_error_set(error, CAD_ERR_CORRUPT, "\"added_tokens\" must be a list");
	struct added_reader reader = {
		.added = added,
		.normalizers = normalizers,
		.vocab = vocab,
		.names = names,
		.error = error,
		.next_id = (uint32_t)vocab->count,
	};

	enum cad_status status = read_tokens(&reader, json, beside);
	cad_tok_map_fini(&reader.places);
	cad_tok_map_fini(&reader.specials);
	free(reader.listed);
	if (status == CAD_ERR_MEMORY)
		return cad_error_set(error, status, "added_tokens: out of memory");
	return status != CAD_OK ? cad_error_prefix(error, "added_tokens") : CAD_OK;
}
