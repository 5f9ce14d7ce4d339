/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-pair encoding of one piece: its characters (or bytes) are symbols, and while any two
 * neighbours have a merge, the merge of the lowest rank, of those the leftmost, is made.
 *
 * A long piece is first cut where no merge can reach across (`crossings`): the parts are
 * independent. A part that is one token as it stands is looked up whole; a short part is scanned
 * for its best merge each time; a long one keeps its merges in a heap, so that the time is n log n
 * however hostile the text.
 */
#include "common/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

enum { SHORT_MAX = 48 }; /* symbols up to which scanning beats the heap */
static const uint32_t NO_RANK = UINT32_MAX;

static uint64_t pair_of(uint32_t left, uint32_t right) { return (uint64_t)left << 32 | right; }

static uint32_t find_merge(const struct tok_bpe *bpe, uint32_t left, uint32_t right, uint32_t *merged)
{
	uint64_t pair = pair_of(left, right);
	size_t mask = bpe->merge_slots - 1, slot = cad_tok_hash_pair(pair) & mask;

	for (; bpe->merges[slot].pair != TOK_NO_PAIR; slot = (slot + 1) & mask)
		if (bpe->merges[slot].pair == pair) {
			*merged = bpe->merges[slot].id;
			return bpe->merges[slot].rank;
		}
	return NO_RANK;
}

static bool may_cross(const struct tok_bpe *bpe, uint32_t left, uint32_t right)
{
	if (bpe->crosses_anywhere)
		return true;
	uint64_t pair = pair_of(left, right);
	size_t mask = bpe->crossing_slots - 1, slot = cad_tok_hash_pair(pair) & mask;
	while (bpe->crossings[slot] != TOK_NO_PAIR && bpe->crossings[slot] != pair)
		slot = (slot + 1) & mask;
	return bpe->crossings[slot] == pair;
}

static int32_t find_character(const struct tok_bpe *bpe, uint32_t character)
{
	size_t mask = bpe->character_slots - 1, slot = cad_tok_hash_pair(character) & mask;
	while (bpe->characters[slot].id >= 0 && bpe->characters[slot].character != character)
		slot = (slot + 1) & mask;
	return bpe->characters[slot].id;
}

/* ---- symbols of a piece ---- */

static enum cad_status reserve_symbols(struct tok_symbols *symbols, size_t count)
{
	enum cad_status status =
		cad_tok_reserve((void **)&symbols->ids, &symbols->ids_capacity, 0, count, sizeof *symbols->ids);
	return status != CAD_OK ? status
				: cad_tok_reserve((void **)&symbols->offsets, &symbols->offsets_capacity, 0, count,
					  sizeof *symbols->offsets);
}

static void add_symbol(struct tok_symbols *symbols, int32_t id, size_t offset)
{
	symbols->ids[symbols->count] = (uint32_t)id;
	symbols->offsets[symbols->count++] = (uint32_t)offset;
}

/* Characters that are not in the vocabulary become bytes, where all of their bytes are, or else the
 * unknown token, several of them in a row one token where `fuse_unknown`. As in the library, an
 * unknown token waits for the next known character: bytes that come in between overtake it. */
static enum cad_status symbols_of_characters(
	const struct tok_bpe *bpe, const char *piece, size_t size, struct tok_symbols *symbols)
{
	bool waiting = false;
	size_t waiting_offset = 0;

	for (size_t i = 0, length; i < size; i += length) {
		int32_t id = find_character(bpe, cad_utf8_get(piece + i, &length));
		if (id >= 0) {
			if (waiting)
				add_symbol(symbols, bpe->unknown, waiting_offset);
			waiting = false;
			add_symbol(symbols, id, i);
			continue;
		}
		bool bytes = bpe->has_byte_fallback;
		for (size_t k = 0; k < length && bytes; k++)
			bytes = bpe->byte_fallback[(unsigned char)piece[i + k]] >= 0;
		if (bytes) {
			for (size_t k = 0; k < length; k++)
				add_symbol(symbols, bpe->byte_fallback[(unsigned char)piece[i + k]], i + k);
			continue;
		}
		if (bpe->unknown_missing.bytes) {
			symbols->unknown_offset = i;
			return CAD_ERR_INVALID;
		}
		if (bpe->unknown < 0 || (waiting && bpe->fuse_unknown))
			continue;
		if (waiting)
			add_symbol(symbols, bpe->unknown, waiting_offset);
		waiting = true;
		waiting_offset = i;
	}

	if (waiting)
		add_symbol(symbols, bpe->unknown, waiting_offset);
	return CAD_OK;
}

/* ---- merging ---- */

static enum cad_status merge_short(
	const struct tok_bpe *bpe, const uint32_t *symbols, size_t count, struct cad_ids *out)
{
	uint32_t ids[SHORT_MAX], ranks[SHORT_MAX], merged[SHORT_MAX];
	memcpy(ids, symbols, count * sizeof *ids);
	for (size_t i = 0; i + 1 < count; i++)
		ranks[i] = find_merge(bpe, ids[i], ids[i + 1], &merged[i]);
	while (count > 1) {
		size_t best = 0;
		for (size_t i = 1; i + 1 < count; i++)
			if (ranks[i] < ranks[best])
				best = i;
		if (ranks[best] == NO_RANK)
			break;
		ids[best] = merged[best];
		count--;
		memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof *ids);
		if (best + 1 < count) {
			memmove(ranks + best + 1, ranks + best + 2, (count - best - 1) * sizeof *ranks);
			memmove(merged + best + 1, merged + best + 2, (count - best - 1) * sizeof *merged);
			ranks[best] = find_merge(bpe, ids[best], ids[best + 1], &merged[best]);
		}
		if (best > 0)
			ranks[best - 1] = find_merge(bpe, ids[best - 1], ids[best], &merged[best - 1]);
	}

	enum cad_status status =
		cad_tok_reserve((void **)&out->ids, &out->capacity, out->count, count, sizeof *out->ids);
	if (status != CAD_OK)
		return status;
	memcpy(out->ids + out->count, ids, count * sizeof *ids);
	out->count += count;

	return CAD_OK;
}

static void heap_push(struct tok_symbols *symbols, uint64_t entry)
{
	uint64_t *heap = symbols->heap;
	size_t at = symbols->heap_count++;
	while (at > 0 && heap[(at - 1) / 2] > entry) {
		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap[at] = entry;
}

static uint64_t heap_pop(struct tok_symbols *symbols)
{
	uint64_t *heap = symbols->heap, top = heap[0], last = heap[--symbols->heap_count];
	size_t at = 0, count = symbols->heap_count;

	for (size_t child = 1; child < count; child = 2 * at + 1) {
		child += child + 1 < count && heap[child + 1] < heap[child];
		if (heap[child] >= last)
			break;
		heap[at] = heap[child];
		at = child;
	}

	heap[at] = last;
	return top;
}

static enum cad_status reserve_links(struct tok_symbols *symbols, size_t count)
{
	/* every merge takes an entry from the heap and puts at most two in */
	enum cad_status status =
		cad_tok_reserve((void **)&symbols->heap, &symbols->heap_capacity, 0, 2 * count, sizeof *symbols->heap);

	if (status != CAD_OK || count <= symbols->links_capacity)
		return status;

	uint32_t **const arrays[] = { &symbols->prev, &symbols->next, &symbols->ranks, &symbols->merged };
	for (size_t i = 0; i < 4; i++) {
		uint32_t *grown = reallocarray(*arrays[i], count, sizeof *grown);
		if (!grown)
			return CAD_ERR_MEMORY;
		*arrays[i] = grown;
	}

	symbols->links_capacity = count;
	return CAD_OK;
}

/* The merge of the symbol at `at` with its next one, into the heap if there is one. */
static void offer(
	const struct tok_bpe *bpe, struct tok_symbols *symbols, const uint32_t *ids, uint32_t at, uint32_t end)
{
	uint32_t next = symbols->next[at];
	symbols->ranks[at] = next == end ? NO_RANK : find_merge(bpe, ids[at], ids[next], &symbols->merged[at]);
	if (symbols->ranks[at] != NO_RANK)
		heap_push(symbols, (uint64_t)symbols->ranks[at] << 32 | at);
}

/* `ids` is merged in place. An entry of the heap counts as long as its symbol still has that rank:
 * a rank names one pair. */
static enum cad_status merge_long(
	const struct tok_bpe *bpe, uint32_t *ids, size_t count, struct tok_symbols *symbols, struct cad_ids *out)
{
	enum cad_status status = reserve_links(symbols, count);
	if (status != CAD_OK)
		return status;

	uint32_t end = (uint32_t)count;
	symbols->heap_count = 0;

	for (uint32_t i = 0; i < end; i++) {
		symbols->prev[i] = i - 1; /* wraps for the first one, which has none */
		symbols->next[i] = i + 1;
		offer(bpe, symbols, ids, i, end);
	}

	while (symbols->heap_count > 0) {
		uint64_t top = heap_pop(symbols);
		uint32_t at = (uint32_t)top;
		if (symbols->ranks[at] != (uint32_t)(top >> 32))
			continue;
		uint32_t gone = symbols->next[at], next = symbols->next[gone];
		ids[at] = symbols->merged[at];
		symbols->ranks[gone] = NO_RANK;
		symbols->next[at] = next;
		if (next != end)
			symbols->prev[next] = at;
		offer(bpe, symbols, ids, at, end);
		if (symbols->prev[at] != UINT32_MAX)
			offer(bpe, symbols, ids, symbols->prev[at], end);
	}

	for (uint32_t i = 0; i < end && status == CAD_OK; i = symbols->next[i])
		status = cad_tok_push_id(out, (int32_t)ids[i]);
	return status;
}

static enum cad_status merge(
	const struct tok_bpe *bpe, uint32_t *ids, size_t count, struct tok_symbols *symbols, struct cad_ids *out)
{
	return count <= SHORT_MAX ? merge_short(bpe, ids, count, out) : merge_long(bpe, ids, count, symbols, out);
}

enum cad_status cad_tok_bpe_encode(const struct tok_bpe *bpe, const char *piece, size_t size,
	struct tok_symbols *symbols, size_t ids_max, struct cad_ids *ids)
{
	int32_t whole = cad_tok_map_get(&bpe->whole, piece, size);
	if (whole >= 0)
		return cad_tok_push_id(ids, whole);

	enum cad_status status = reserve_symbols(symbols, size);
	if (status != CAD_OK)
		return status;
	symbols->count = 0;

	if (bpe->bytes)
		for (size_t i = 0; i < size; i++)
			add_symbol(symbols, bpe->byte_symbol[(unsigned char)piece[i]], i);
	else
		status = symbols_of_characters(bpe, piece, size, symbols);
	for (size_t start = 0, end; start < symbols->count && ids->count <= ids_max && status == CAD_OK; start = end) {
		end = start + 1;
		while (end < symbols->count && may_cross(bpe, symbols->ids[end - 1], symbols->ids[end]))
			end++;
		if (end == start + 1) {
			status = cad_tok_push_id(ids, (int32_t)symbols->ids[start]);
			continue;
		}
		/* a part that is a token of its own; where unknown characters were moved about,
		 * offsets are no measure, and fall out here */
		size_t from = symbols->offsets[start], to = end < symbols->count ? symbols->offsets[end] : size;
		whole = !bpe->ignore_merges && (start > 0 || end < symbols->count) && from < to
			? cad_tok_map_get(&bpe->whole, piece + from, to - from)
			: -1;
		status = whole >= 0 ? cad_tok_push_id(ids, whole)
				    : merge(bpe, symbols->ids + start, end - start, symbols, ids);
	}

	return status;
}

void cad_tok_symbols_fini(struct tok_symbols *symbols)
{
	free(symbols->ids);
	free(symbols->offsets);
	free(symbols->prev);
	free(symbols->next);
	free(symbols->ranks);
	free(symbols->merged);
	free(symbols->heap);
	*symbols = (struct tok_symbols){ 0 };
}

void cad_tok_bpe_fini(struct tok_bpe *bpe)
{
	free(bpe->merges);
	free(bpe->crossings);
	free(bpe->characters);
	cad_tok_map_fini(&bpe->whole);
	cad_text_fini(&bpe->unknown_missing);
}
