/* SPDX-License-Identifier: Apache-2.0 */
/* Which tensors a model needs, of what shape, and what they are called.
 * Internal to common/model. */
#ifndef CADRE_COMMON_MODEL_TENSORS_H
#define CADRE_COMMON_MODEL_TENSORS_H

#include "common/model/archs.h"
#include "common/model/roles.h"
#include "common/model/spec.h"

#include <stddef.h>

/* What the spec calls for. Expert roles are requested once per layer. */
struct cad_tensor_want {
	bool wanted;
	uint32_t rank;
	uint64_t shape[2];
};
struct cad_tensor_want cad_tensor_wanted(const struct cad_model_spec *spec, enum cad_role role, uint32_t layer);
/* Writes the published name; false when the architecture has no such tensor. */
bool cad_tensor_name(
	const struct cad_arch *arch, enum cad_role role, uint32_t layer, uint32_t expert, char *name, size_t bytes);
/* Tensors that published checkpoints contain but nothing needs. */
bool cad_tensor_is_harmless(const struct cad_model_spec *spec, const char *name);

#endif
