/* SPDX-License-Identifier: Apache-2.0 */
/* From ids to text, at once or id by id. A decoder belongs to one thread and never emits half a
 * character; the tokenizer is everybody's. */
#ifndef CADRE_COMMON_TOKENIZER_DECODE_H
#define CADRE_COMMON_TOKENIZER_DECODE_H

#include "common/base/status.h"
#include "common/tokenizer/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cad_tokenizer;

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
