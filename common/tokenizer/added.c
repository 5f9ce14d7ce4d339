/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Added tokens: found in the text before anything else looks at it, leftmost first, of those the
 * longest. Some are looked for in the text as it came, some in the normalized text. A search takes
 * time text x longest token at worst; the first byte rules out nearly every position.
 */
#include "common/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- the trie ---- */

static void trie_init(struct tok_trie *trie)
{
	*trie = (struct tok_trie){ 0 };
	for (size_t i = 0; i < 256; i++)
		trie->first[i] = -1;
}

static int32_t find_child(const struct tok_trie *trie, int32_t node, unsigned char byte)
{
	int32_t child = trie->nodes[node].child;
	while (child >= 0 && trie->nodes[child].byte != byte)
		child = trie->nodes[child].sibling;
	return child;
}

static enum cad_status trie_insert(struct tok_trie *trie, const char *bytes, size_t size, int32_t token)
{
	int32_t node = -1;
	for (size_t i = 0; i < size; i++) {
		unsigned char byte = (unsigned char)bytes[i];
		int32_t child = node < 0 ? trie->first[byte] : find_child(trie, node, byte);
		if (child < 0) {
			enum cad_status status = cad_tok_reserve(
				(void **)&trie->nodes, &trie->capacity, trie->count, 1, sizeof *trie->nodes);
			if (status != CAD_OK)
				return status;
			child = (int32_t)trie->count++;
			trie->nodes[child] = (struct tok_trie_node){
				.child = -1,
				.sibling = node < 0 ? -1 : trie->nodes[node].child,
				.token = -1,
				.byte = byte,
			};
			if (node < 0)
				trie->first[byte] = child;
			else
				trie->nodes[node].child = child;
		}
		node = child;
	}

	if (trie->nodes[node].token < 0) /* of two that are equal when normalized, the first */
		trie->nodes[node].token = token;
	return CAD_OK;
}

/* The longest token that starts at `at`, or -1. */
static int32_t trie_longest(const struct tok_trie *trie, const char *text, size_t at, size_t end, size_t *match_end)
{
	int32_t found = -1, node = trie->first[(unsigned char)text[at]];
	for (size_t i = at + 1; node >= 0; i++) {
		if (trie->nodes[node].token >= 0) {
			found = trie->nodes[node].token;
			*match_end = i;
		}
		node = i < end ? find_child(trie, node, (unsigned char)text[i]) : -1;
	}
	return found;
}

/* ---- reading ---- */

struct added_reader {
	struct tok_added *added;
	const struct tok_normalizers *normalizers;
	const struct tok_map *vocab;
	struct tok_map contents, specials;
	struct tok_names *names;
	struct cad_error *error;
	uint32_t next_id;
};

static enum cad_status read_token(struct added_reader *reader, const json_t *json)
{
	struct tok_slice content;
	struct tok_added_token token = { 0 };
	bool is_normalized, special;
	int64_t id;
	struct cad_error *error = reader->error;
	enum cad_status status = cad_tok_json_string(json, "content", &content, error);

	if (status == CAD_OK)
		status = cad_tok_json_integer(json, "id", 0, TOK_ID_LIMIT - 1, &id, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "single_word", false, &token.single_word, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "lstrip", false, &token.left, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "rstrip", false, &token.right, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "special", false, &special, error);
	if (status == CAD_OK)
		status = cad_tok_json_bool(json, "normalized", !special, &is_normalized, error);
	if (status != CAD_OK || content.size == 0)
		return status;
	if (content.size > TOK_ADDED_BYTES_MAX)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "a token of %zu bytes (the limit is %d)", content.size,
			TOK_ADDED_BYTES_MAX);

	/* The library numbers the tokens itself: by the vocabulary, or else onwards from its size.
	 * A file that says otherwise contradicts itself. */
	token.id = cad_tok_map_get(reader->vocab, content.bytes, content.size);
	bool in_vocab = token.id >= 0;
	if (!in_vocab) {
		token.id = cad_tok_map_get(&reader->contents, content.bytes, content.size);
		if (token.id < 0)
			token.id = (int32_t)reader->next_id++;
	}

	if (token.id != id)
		return cad_error_set(error, CAD_ERR_CORRUPT, "token '%.*s' says that its id is %lld, but %s %d",
			cad_tok_show(content), content.bytes, (long long)id,
			in_vocab ? "the vocabulary has it as" : "the next free id is", token.id);

	struct cad_text form = { 0 };
	size_t origin = 0;
	status = is_normalized
		? cad_tok_normalize(reader->normalizers, content.bytes, content.size, &form, &origin, error)
		: cad_tok_append(&form, content.bytes, content.size);
	if (status == CAD_OK && form.size == 0)
		status = cad_error_set(error, CAD_ERR_CORRUPT, "token '%.*s' is empty when normalized",
			cad_tok_show(content), content.bytes);
	if (status == CAD_OK)
		status = trie_insert(is_normalized ? &reader->added->normalized : &reader->added->plain, form.bytes,
			form.size, (int32_t)reader->added->count);
	if (status == CAD_OK)
		status = cad_tok_map_put(&reader->contents, content.bytes, content.size, token.id);
	if (status == CAD_OK && special)
		status = cad_tok_map_put(&reader->specials, content.bytes, content.size, token.id);
	if (status == CAD_OK)
		status = cad_tok_names_grow(reader->names, (uint32_t)token.id + 1);
	struct tok_slice other;
	if (status == CAD_OK && !in_vocab && cad_tok_names_get(reader->names, token.id, &other) &&
		cad_tok_map_get(reader->vocab, other.bytes, other.size) == token.id)
		status = cad_error_set(error, CAD_ERR_CORRUPT, "tokens '%.*s' and '%.*s' have the same id %d",
			cad_tok_show(other), other.bytes, cad_tok_show(content), content.bytes, token.id);
	if (status == CAD_OK)
		status = cad_tok_names_put(reader->names, token.id, form.bytes, form.size);
	if (status == CAD_OK)
		reader->added->tokens[reader->added->count++] = token;
	cad_text_fini(&form);

	return status;
}

static enum cad_status read_tokens(struct added_reader *reader, const json_t *json)
{
	const json_t *item;
	size_t at;
	enum cad_status status = CAD_OK;

	json_array_foreach((json_t *)json, at, item)
	{
		status = read_token(reader, item);
		if (status != CAD_OK)
			return status;
	}
	struct tok_added *added = reader->added;
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

enum cad_status cad_tok_added_parse(const json_t *json, const struct tok_normalizers *normalizers,
	const struct tok_map *vocab, struct tok_added *added, struct tok_names *names, struct cad_error *error)
{
	trie_init(&added->plain);
	trie_init(&added->normalized);
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
	size_t count = json_array_size(json);
	added->tokens = calloc(count + 1, sizeof *added->tokens);
	enum cad_status status = added->tokens ? CAD_OK : CAD_ERR_MEMORY;
	if (status == CAD_OK)
		status = cad_tok_map_init(&reader.contents, count);
	if (status == CAD_OK)
		status = cad_tok_map_init(&reader.specials, count);
	if (status == CAD_OK)
		status = read_tokens(&reader, json);
	cad_tok_map_fini(&reader.contents);
	cad_tok_map_fini(&reader.specials);
	if (status == CAD_ERR_MEMORY)
		return cad_error_set(error, status, "added_tokens: out of memory");
	return status != CAD_OK ? cad_error_prefix(error, "added_tokens") : CAD_OK;
}

void cad_tok_added_fini(struct tok_added *added)
{
	free(added->tokens);
	free(added->plain.nodes);
	free(added->normalized.nodes);
	free(added->is_special);
}

/* ---- cutting ---- */

static bool stands_alone(const char *text, size_t first, size_t end, size_t match, size_t match_end)
{
	size_t length;
	bool left = match == first || !cad_tok_is_word(cad_utf8_get(text + cad_utf8_before(text, match), &length));
	return left && (match_end == end || !cad_tok_is_word(cad_utf8_get(text + match_end, &length)));
}

/* The end of the spaces that start at `at`. `known` is the end of the run that was looked at last,
 * so that no run is walked twice. */
static size_t spaces_end(const char *text, size_t at, size_t end, size_t *known)
{
	if (at < *known)
		return *known;
	size_t length;
	while (at < end && cad_tok_is_space(cad_utf8_get(text + at, &length)))
		at += length;
	*known = at;
	return at;
}

static size_t spaces_start(const char *text, size_t at, size_t limit)
{
	while (at > limit) {
		size_t length, before = cad_utf8_before(text, at);
		if (before < limit || !cad_tok_is_space(cad_utf8_get(text + before, &length)))
			break;
		at = before;
	}
	return at;
}

static struct tok_piece text_piece(size_t start, size_t end, size_t origin_end)
{
	size_t origin = origin_end > start ? origin_end - start : 0;
	return (struct tok_piece){
		.start = (uint32_t)start,
		.size = (uint32_t)(end - start),
		.origin = (uint32_t)(origin < end - start ? origin : end - start),
		.id = -1,
	};
}

enum cad_status cad_tok_added_cut(const struct tok_added *added, const struct tok_trie *trie, const char *text,
	size_t start, size_t size, size_t origin, struct tok_pieces *pieces)
{
	size_t end = start + size, done = start, spaces_known = 0, match_end = 0;
	enum cad_status status = CAD_OK;

	for (size_t i = start; i < end && trie->count > 0 && status == CAD_OK;) {
		int32_t found = trie_longest(trie, text, i, end, &match_end);
		if (found < 0) {
			i++;
			continue;
		}
		const struct tok_added_token *token = &added->tokens[found];
		size_t match = i;
		i = match_end;
		if (token->single_word && !stands_alone(text, start, end, match, match_end))
			continue;
		if (token->left)
			match = match > done ? spaces_start(text, match, done) : done;
		if (token->right)
			match_end = spaces_end(text, match_end, end, &spaces_known);
		if (match >= match_end) /* spaces that the token before it took already were all there was of it */
			continue;
		if (done < match)
			status = cad_tok_pieces_push(pieces, text_piece(done, match, start + origin));
		if (status == CAD_OK)
			status = cad_tok_pieces_push(pieces, (struct tok_piece){ .id = token->id });
		done = match_end;
	}

	return status != CAD_OK || done >= end ? status
					       : cad_tok_pieces_push(pieces, text_piece(done, end, start + origin));
}
