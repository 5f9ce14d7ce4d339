/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to token ids, from a Hugging Face tokenizer.json; ids equal those of the `tokenizers`
 * library. decode.h leads back.
 *
 * A tokenizer is immutable after opening and may be used by any number of threads at once; each
 * call brings its own output buffer. Encoding takes time linear in the text, whatever the text.
 */
#ifndef CADRE_COMMON_TOKENIZER_TOKENIZER_H
#define CADRE_COMMON_TOKENIZER_TOKENIZER_H

#include "common/base/status.h"
#include "common/tokenizer/text.h"

#include <stdbool.h>
#include <stdint.h>

struct cad_tokenizer;

/* path: the tokenizer.json itself, which decides what is encoded and decoded, as in the library. If it
 * has that name, tokens that only the files beside it name (tokenizer_config.json,
 * special_tokens_map.json, added_tokens.json) are added, as AutoTokenizer does. What is added, and
 * what is not followed, is logged. */
CAD_MUST_USE enum cad_status cad_tokenizer_open(
	const char *path, struct cad_tokenizer **tokenizer, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_tokenizer_parse(
	const char *name, const char *json, size_t bytes, struct cad_tokenizer **tokenizer, struct cad_error *error);
void cad_tokenizer_close(struct cad_tokenizer *tokenizer);

uint32_t cad_tokenizer_vocab_size(const struct cad_tokenizer *tokenizer); /* one above the largest id */
/* Models round their vocabulary up, and may generate an id that no token has: below `vocab`, such
 * ids decode to nothing. Call it before the tokenizer is shared. */
void cad_tokenizer_pad(struct cad_tokenizer *tokenizer, uint32_t vocab);

/* Appends the ids of text (UTF-8; invalid UTF-8 is CAD_ERR_INVALID with the byte's offset).
 * `special`: let the post-processor add its special tokens. Special tokens that are spelled out in
 * the text become their ids, as in the library. ids_max limits ids->count: CAD_ERR_RANGE above it,
 * as soon as that is certain. Of a text that is much too long, little more than the beginning is
 * encoded. */
CAD_MUST_USE enum cad_status cad_tokenizer_encode(const struct cad_tokenizer *tokenizer, const char *text, size_t bytes,
	bool special, size_t ids_max, struct cad_ids *ids, struct cad_error *error);

#endif
