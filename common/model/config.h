/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a Hugging Face config.json to a spec: config.c reads what all architectures have,
 * config_rope.c the rotary embedding, families/ the rest.
 */
#ifndef CADRE_COMMON_MODEL_CONFIG_H
#define CADRE_COMMON_MODEL_CONFIG_H

#include "common/model/archs.h"
#include "common/model/spec.h"

/* The texts of DIR/config.json and DIR/generation_config.json, read once for spec and
 * fingerprint. */
struct cad_model_config {
	char *path;                /* of config.json */
	char *config, *generation; /* generation is NULL where there is none */
	size_t config_bytes, generation_bytes;
};
CAD_MUST_USE enum cad_status cad_model_config_read(
	const char *directory, struct cad_model_config *config, struct cad_error *error);
void cad_model_config_fini(struct cad_model_config *config);

/* What these texts say. Errors call them `name` and name the key; `generation`, for the
 * end-of-sequence ids, may be NULL. */
CAD_MUST_USE enum cad_status cad_model_spec_parse(const char *name, const char *config, size_t config_bytes,
	const char *generation, size_t generation_bytes, struct cad_model_spec *spec, struct cad_error *error);

#endif
