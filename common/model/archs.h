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
#include "common/model/model.h"

/* `{l}` stands for the layer and `{e}` for the expert. */
struct cad_tensor_name {
	enum cad_role role;
	const char *pattern;
};

struct cad_arch {
	const char *name;  /* model_type */
	bool runs;         /* false: the config parses, but the engine has no code for it yet */
	double rope_theta; /* where the config says nothing */
	/* Fills what only this family has: attention, gate, ffn sizes, layers. The common part of
	 * the spec is there. */
	void (*read)(const struct cad_keys *keys, struct cad_model_spec *spec);
	const struct cad_tensor_name *names; /* looked at before the common names (tensors.c); may be NULL */
	size_t names_count;
};

const struct cad_arch *cad_arch_find(const char *name); /* NULL: unknown */
/* "mixtral, olmoe, ...": those that run. */
const char *cad_arch_list(char *text, size_t bytes);

/* config.c: the texts of DIR/config.json and DIR/generation_config.json, read once for spec and
 * fingerprint. */
struct cad_model_config {
	char *path;                /* of config.json */
	char *config, *generation; /* generation is NULL where there is none */
	size_t config_bytes, generation_bytes;
};
CAD_MUST_USE enum cad_status cad_model_config_read(
	const char *directory, struct cad_model_config *config, struct cad_error *error);
void cad_model_config_fini(struct cad_model_config *config);

/* config_rope.c */
void cad_config_read_rope(const struct cad_keys *keys, const struct cad_arch *arch, struct cad_model_spec *spec);

/* tensors.c: what the spec calls for. Expert roles are asked for once a layer. */
struct cad_tensor_want {
	bool wanted;
	uint32_t rank;
	uint64_t shape[2];
};
struct cad_tensor_want cad_tensor_wanted(const struct cad_model_spec *spec, enum cad_role role, uint32_t layer);
static inline bool cad_role_is_expert(enum cad_role role) { return role >= CAD_ROLE_EXPERT_GATE; }
static inline bool cad_role_is_layer(enum cad_role role) { return role >= CAD_ROLE_ATTENTION_NORM; }
/* Writes the published name; false when the architecture has no such tensor. */
bool cad_tensor_name(
	const struct cad_arch *arch, enum cad_role role, uint32_t layer, uint32_t expert, char *name, size_t bytes);
/* Tensors that published checkpoints carry and nothing needs. */
bool cad_tensor_is_harmless(const struct cad_model_spec *spec, const char *name);

#endif
