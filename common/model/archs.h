/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of architectures: which exist, which run, how each one's config.json becomes a
 * spec, and how each names its tensors.
 *
 * Internal to common/model. Constant data; any thread may read it.
 */
#ifndef CADRE_COMMON_MODEL_ARCHS_H
#define CADRE_COMMON_MODEL_ARCHS_H

#include "common/model/keys.h"
#include "common/model/roles.h"
#include "common/model/spec.h"

#include <stddef.h>

/* `{l}` is the layer, `{e}` the expert. */
struct cad_tensor_name {
	enum cad_role role;
	const char *pattern;
};

struct cad_arch {
	const char *name;  /* model_type */
	bool runs;         /* false: the config parses, but the engine has no code for it yet */
	double rope_theta; /* if the config does not say */
	/* Fills what only this family has: attention, gate, ffn sizes, layers. The common part of
	 * the spec is filled already. */
	void (*read)(const struct cad_keys *keys, struct cad_model_spec *spec);
	const struct cad_tensor_name *names; /* looked at before the common names (tensors.c); may be NULL */
	size_t names_count;
};

const struct cad_arch *cad_arch_find(const char *name); /* NULL: unknown */
/* "mixtral, olmoe, ...": those that run. */
const char *cad_arch_list(char *text, size_t bytes);

#endif
