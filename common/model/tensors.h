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
	uint64_t shape[3];
};
struct cad_tensor_want cad_tensor_wanted(const struct cad_model_spec *spec, enum cad_role role, uint32_t layer);
/* Writes the published name; false when the architecture has no such tensor. */
bool cad_tensor_name(
	const struct cad_arch *arch, enum cad_role role, uint32_t layer, uint32_t expert, char *name, size_t bytes);
/* The other name that a tensor of this name may have; false: there is none. */
bool cad_tensor_other_name(const struct cad_arch *arch, const char *name, char *other, size_t bytes);

/* The tensor that has an expert role for all experts of a layer, where a file has it fused: its name;
 * false when the architecture fuses none. */
bool cad_tensor_fused_name(const struct cad_arch *arch, enum cad_role role, uint32_t layer, char *name, size_t bytes);
/* Its shape, from what one expert wants; of blocks of MXFP4 (model_scales.c) when `blocks`. */
struct cad_tensor_want cad_tensor_fused_wanted(const struct cad_arch *arch, const struct cad_model_spec *spec,
	enum cad_role role, struct cad_tensor_want one, bool blocks);
/* One expert's part of it. */
struct cad_tensor cad_tensor_fused_part(
	const struct cad_arch *arch, const struct cad_tensor *fused, enum cad_role role, uint32_t expert);

/* Whether a tensor is computed, not learned: old checkpoints carry it. */
bool cad_tensor_is_computed(const char *name);
/* Whether it is of a layer that predicts further tokens. */
bool cad_tensor_is_further(const struct cad_model_spec *spec, const char *name);
/* Whether another one that nothing reads would be missed: one of real numbers, in what the model
 * computes with. Buffers, masks, other heads and other models in a file would not, nor layers that
 * predict further tokens. */
bool cad_tensor_is_missed(const struct cad_model_spec *spec, const struct cad_tensor *tensor);

#endif
