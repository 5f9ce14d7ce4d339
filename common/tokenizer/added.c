/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Added tokens: found in the text before anything else looks at it, leftmost first, of those the
 * longest. Some are looked for in the text as it came, some in the normalized text. A search takes
 * time text x longest token at worst; the first byte rules out nearly every position. Reading them
 * is in added_read.c.
 */
#include "common/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- the trie ---- */

void cad_tok_trie_init(struct tok_trie *trie)
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

enum cad_status cad_tok_trie_insert(
	struct tok_trie *trie, const char *bytes, size_t size, int32_t token, int32_t *first)
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

	if (trie->nodes[node].token < 0)
		trie->nodes[node].token = token;
	*first = trie->nodes[node].token;
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
