/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Families of models that people have and that nothing here can compute: what each would take, for
 * whoever gives Cadre such a checkpoint. A family that runs, or whose config.json is read, is in
 * families/ instead, and never in both.
 *
 * docs/MODELS.md has the same list. Constant data; any thread.
 */
#ifndef CADRE_COMMON_MODEL_LACKING_H
#define CADRE_COMMON_MODEL_LACKING_H

#include <stddef.h>

struct cad_lacking {
	const char *name;  /* model_type */
	const char *needs; /* "linear attention (a gated delta net)" */
};
const struct cad_lacking *cad_lacking_all(size_t *count);
const char *cad_lacking_of(const char *name); /* what it needs; NULL: it is not in the list */

#endif
