/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which keys of config.json are known: those that are read, and those that change nothing of what is
 * computed. Whatever else a file says could change it, and is refused.
 *
 * Keys of one family are in its row (archs.h). docs/CONFIG.md has the same tables, and says how they
 * were made. Constant data; any thread.
 */
#ifndef CADRE_COMMON_MODEL_KNOWN_KEYS_H
#define CADRE_COMMON_MODEL_KNOWN_KEYS_H

#include "common/model/archs.h"
#include "common/model/keys.h"

#include <stddef.h>

const struct cad_known_key *cad_known_keys(size_t *count);        /* of all families */
const struct cad_known_key *cad_known_expert_keys(size_t *count); /* of those with experts */

/* NULL: the family does not know it. `inside` is "", "rope_scaling." or
 * "quantization_config.". */
const struct cad_known_key *cad_known_key_find(const struct cad_arch *arch, const char *inside, const char *key);

/* Fails at the first key of the object that the family does not know and whose value says something.
 */
void cad_known_keys_check(const struct cad_keys *keys, const char *inside, const struct cad_arch *arch);

#endif
