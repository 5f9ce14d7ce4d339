/* SPDX-License-Identifier: Apache-2.0 */
/* Growing arrays, and the two kinds of them that callers see. */
#include "common/tokenizer/text.h"

#include "common/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

enum cad_status cad_tok_reserve(void **items, size_t *capacity, size_t count, size_t more, size_t item_bytes)
{
	if (more <= *capacity - count)
		return CAD_OK;

	size_t want;
	if (__builtin_add_overflow(count, more, &want))
		return CAD_ERR_MEMORY;
	if (want < *capacity + *capacity / 2)
		want = *capacity + *capacity / 2;
	if (want < 16)
		want = 16;
	void *grown = reallocarray(*items, want, item_bytes);
	if (!grown)
		return CAD_ERR_MEMORY;
	*items = grown;
	*capacity = want;

	return CAD_OK;
}

enum cad_status cad_tok_append(struct cad_text *text, const char *bytes, size_t size)
{
	enum cad_status status = cad_tok_reserve((void **)&text->bytes, &text->capacity, text->size, size + 1, 1);
	if (status != CAD_OK)
		return status;
	if (size)
		memcpy(text->bytes + text->size, bytes, size);
	text->size += size;
	text->bytes[text->size] = 0;
	return CAD_OK;
}

enum cad_status cad_tok_push_id(struct cad_ids *ids, int32_t id)
{
	enum cad_status status = cad_tok_reserve((void **)&ids->ids, &ids->capacity, ids->count, 1, sizeof *ids->ids);
	if (status != CAD_OK)
		return status;
	ids->ids[ids->count++] = id;
	return CAD_OK;
}

enum cad_status cad_tok_pieces_push(struct tok_pieces *pieces, struct tok_piece piece)
{
	if (piece.id < 0 && piece.size == 0)
		return CAD_OK;
	enum cad_status status =
		cad_tok_reserve((void **)&pieces->items, &pieces->capacity, pieces->count, 1, sizeof *pieces->items);
	if (status != CAD_OK)
		return status;
	pieces->items[pieces->count++] = piece;
	return CAD_OK;
}

int cad_tok_show(struct tok_slice string)
{
	enum { SHOWN_MAX = 60 };
	size_t size = string.size;
	if (size > SHOWN_MAX)
		size = cad_utf8_before(string.bytes, SHOWN_MAX + 1);
	return (int)size;
}

void cad_text_fini(struct cad_text *text)
{
	free(text->bytes);
	*text = (struct cad_text){ 0 };
}

void cad_ids_fini(struct cad_ids *ids)
{
	free(ids->ids);
	*ids = (struct cad_ids){ 0 };
}
