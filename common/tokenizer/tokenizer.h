/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to token ids and back, from a Hugging Face tokenizer.json; ids equal those of the
 * `tokenizers` library.
 *
 * A tokenizer is immutable after opening and may be used by any number of threads at once; each
 * call brings its own output buffer. Encoding takes time linear in the text, whatever the text. A
 * decoder (streaming) belongs to one thread and never emits half a character.
 */
#ifndef CADRE_COMMON_TOKENIZER_TOKENIZER_H
#define CADRE_COMMON_TOKENIZER_TOKENIZER_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct cad_tokenizer;

/* path: the tokenizer.json itself, which alone decides what is encoded and decoded, as in the
 * library; nothing beside it is read. */
CAD_MUST_USE enum cad_status cad_tokenizer_open(
	const char *path, struct cad_tokenizer **tokenizer, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_tokenizer_parse(
	const char *name, const char *json, size_t bytes, struct cad_tokenizer **tokenizer, struct cad_error *error);
void cad_tokenizer_close(struct cad_tokenizer *tokenizer);

uint32_t cad_tokenizer_vocab_size(const struct cad_tokenizer *tokenizer); /* one above the largest id */
/* Models round their vocabulary up, and may generate an id that no token has: below `vocab` such
 * ids stand for nothing. Before the tokenizer is shared. */
void cad_tokenizer_pad(struct cad_tokenizer *tokenizer, uint32_t vocab);

/* A growing array of ids, freed by cad_ids_fini. Zero-initialise. */
struct cad_ids {
	int32_t *ids;
	size_t count, capacity;
};
void cad_ids_fini(struct cad_ids *ids);

/* Appends the ids of text (UTF-8; invalid UTF-8 is CAD_ERR_INVALID with the byte's offset).
 * `special`: let the post-processor add its special tokens.
 * Special tokens that are spelled out in the text become their ids, as in the library. ids_max
 * bounds ids->count: CAD_ERR_RANGE above it, as soon as that is certain: of a text that is much too
 * long little more than the beginning is encoded. */
CAD_MUST_USE enum cad_status cad_tokenizer_encode(const struct cad_tokenizer *tokenizer, const char *text, size_t bytes,
	bool special, size_t ids_max, struct cad_ids *ids, struct cad_error *error);

/* A growing byte string, always terminated once anything was appended. Zero-initialise. */
struct cad_text {
	char *bytes;
	size_t size, capacity;
};
void cad_text_fini(struct cad_text *text);

/* Appends the text of ids. skip_special leaves special tokens out. An id outside the vocabulary is
 * CAD_ERR_RANGE and a sentence. */
CAD_MUST_USE enum cad_status cad_tokenizer_decode(const struct cad_tokenizer *tokenizer, const int32_t *ids,
	size_t count, bool skip_special, struct cad_text *text, struct cad_error *error);

/* Streaming: the concatenation of all that is appended equals cad_tokenizer_decode of all ids;
 * bytes of an unfinished character are held back until finish. */
struct cad_decoder;
CAD_MUST_USE enum cad_status cad_decoder_create(
	const struct cad_tokenizer *tokenizer, bool skip_special, struct cad_decoder **decoder);
void cad_decoder_destroy(struct cad_decoder *decoder);
CAD_MUST_USE enum cad_status cad_decoder_push(
	struct cad_decoder *decoder, int32_t id, struct cad_text *text, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_decoder_finish(
	struct cad_decoder *decoder, struct cad_text *text, struct cad_error *error);

#endif
