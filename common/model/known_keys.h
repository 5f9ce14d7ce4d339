/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which keys of config.json are known: those that are read, and those that change nothing of what is
 * computed. Whatever else a file says could change it, and is refused.
 *
 * docs/CONFIG.md has the same table, and says how it was made. Constant data; any thread.
 */
#ifndef CADRE_COMMON_MODEL_KNOWN_KEYS_H
#define CADRE_COMMON_MODEL_KNOWN_KEYS_H

#include "common/model/keys.h"

#include <stddef.h>

struct cad_known_key {
	const char *key; /* "rope_scaling.NAME": inside of rope_scaling and rope_parameters */
	/* NULL: all that run; else their names, with a space between; with "-" first: all but those */
	const char *families;
	const char *why;  /* it changes nothing; NULL: it is read */
	const char *only; /* if it has this value, as JSON; NULL: whatever the value */
};
const struct cad_known_key *cad_known_keys(size_t *count);
bool cad_known_key_is_of(const struct cad_known_key *entry, const char *family);

/* Fails at the first key of the object that the family does not know and whose value says something.
 * `inside` is "" or "rope_scaling.". */
void cad_known_keys_check(const struct cad_keys *keys, const char *inside, const char *family);

#endif
