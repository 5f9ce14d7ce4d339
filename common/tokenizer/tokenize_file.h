/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of texts through a tokenizer: what `cadrectl tokenize` does. Blocks.
 */
#ifndef CADRE_COMMON_TOKENIZER_TOKENIZE_FILE_H
#define CADRE_COMMON_TOKENIZER_TOKENIZE_FILE_H

#include "common/base/status.h"

/* Reads lines {"text": "..."} and writes, for each, {"ids": [...], "decoded": "..."} in ASCII: the
 * ids with the special tokens of the post-processor, and the text of the ids without special
 * tokens. An empty line is left out. The output is written to a temporary file and renamed at the
 * end, so that it is complete or absent; a wrong line is an error that names it. "-" is standard
 * input or output. */
CAD_MUST_USE enum cad_status cad_tokenize_file(
	const char *tokenizer_path, const char *input_path, const char *output_path, struct cad_error *error);

#endif
