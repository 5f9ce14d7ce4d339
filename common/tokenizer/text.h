/* SPDX-License-Identifier: Apache-2.0 */
/* What grows while texts become ids and ids become texts. The caller's; one thread. */
#ifndef CADRE_COMMON_TOKENIZER_TEXT_H
#define CADRE_COMMON_TOKENIZER_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* A growing array of ids, freed by cad_ids_fini. Zero-initialise. */
struct cad_ids {
	int32_t *ids;
	size_t count, capacity;
};
void cad_ids_fini(struct cad_ids *ids);

/* A growing byte string, always terminated once anything was appended. Zero-initialise. */
struct cad_text {
	char *bytes;
	size_t size, capacity;
};
void cad_text_fini(struct cad_text *text);

#endif
