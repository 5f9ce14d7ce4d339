/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model is made of, for the files that it is spread over: model.c (opening and reading),
 * model_bare.c, model_checksum.c, model_packed.c. Internal to common/model.
 */
#ifndef CADRE_COMMON_MODEL_INTERNAL_H
#define CADRE_COMMON_MODEL_INTERNAL_H

#include "common/model/archs.h"
#include "common/model/config.h"
#include "common/model/model.h"
#include "common/model/shards.h"

#define CAD_SLOT_ABSENT UINT32_MAX

enum { CAD_USE_NONE, CAD_USE_VALUES, CAD_USE_SCALES, CAD_NAME_BYTES = 256 };

struct cad_model {
	struct cad_model_spec spec;
	const struct cad_arch *arch;
	char *directory;
	struct cad_shards shards;
	/* by role, layer and expert (slot_of in model.c): index into shards.tensors, or
	 * CAD_SLOT_ABSENT */
	uint32_t *slots;
	uint8_t *used; /* [shards.tensors_count], of CAD_USE_* */
	bool has_own_head;
	size_t unread;
	const char *unread_first;
	struct cad_unread_tensors unread_kinds[CAD_UNREAD_COUNT];
	bool is_bare; /* there are no files */
	struct cad_model_sizes sizes;
	char fingerprint[33], config_checksum[33];
	bool is_packed;
	struct cad_packed packed;
};

/* The output matrix is the embedding, in the very same bytes. */
static inline bool cad_model_is_twin(const struct cad_model *model, enum cad_role role)
{
	return role == CAD_ROLE_LM_HEAD && model->spec.tied_embeddings && model->slots[role] == CAD_SLOT_ABSENT;
}

/* ---- model_bare.c ---- */

struct cad_tensor cad_model_bare_tensor(const struct cad_model *model, enum cad_role role, uint32_t layer);

/* ---- model.c ---- */

/* "2, 3", as errors say it */
const char *cad_model_shape_text(uint32_t rank, const uint64_t *shape, char text[96]);
/* The tensor of that name, or of the other one that it may have; NULL: there is none. */
struct cad_shard_tensor *cad_model_find(const struct cad_model *model, const char *name);

/* ---- model_scales.c ---- */

/* The tensor, if it is FP8, gets its scales, which must be there and fit. */
CAD_MUST_USE enum cad_status cad_model_find_scales(
	struct cad_model *model, struct cad_shard_tensor *tensor, struct cad_error *error);
/* "..._blocks" becomes a tensor of MXFP4 with its scales. NULL: there is no such tensor. */
struct cad_shard_tensor *cad_model_find_blocks(const struct cad_model *model, const char *name);
CAD_MUST_USE enum cad_status cad_model_unfold_blocks(
	struct cad_model *model, struct cad_shard_tensor *tensor, struct cad_error *error);

/* ---- model_checksum.c ---- */

/* Of the checkpoint that the files are, packed or not, and of config.json. */
void cad_model_hash_config(struct cad_model *model, const struct cad_model_config *config);
void cad_model_hash_headers(struct cad_model *model, const struct cad_model_config *config);
void cad_model_tensor_checksum(const struct cad_tensor *tensor, char hex[33]);

/* ---- model_packed.c ---- */

/* After the files, before any tensor is looked for: whether it is packed, and for what. */
CAD_MUST_USE enum cad_status cad_model_packed_open(struct cad_model *model, struct cad_error *error);
/* After all tensors are found: a checksum is recorded of each. */
CAD_MUST_USE enum cad_status cad_model_packed_check(const struct cad_model *model, struct cad_error *error);
/* It had an output matrix of its own before. */
bool cad_model_packed_has_own_head(const struct cad_model *model);
/* A packed model's quantised matrix is in its file as [n][bytes of a row]; it becomes [n][k]. */
void cad_model_packed_unfold(const struct cad_model *model, enum cad_role role, uint64_t k, struct cad_tensor *tensor);

#endif
