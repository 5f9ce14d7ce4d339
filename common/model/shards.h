/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors files of a checkpoint: model.safetensors, or the shards that
 * model.safetensors.index.json names, and every tensor in them by name.
 *
 * Internal to common/model. Opening blocks on the disk; afterwards immutable, any thread may read.
 */
#ifndef CADRE_COMMON_MODEL_SHARDS_H
#define CADRE_COMMON_MODEL_SHARDS_H

#include "common/model/safetensors.h"

struct cad_shard {
	char *path;
	struct cad_safetensors *file;
};

struct cad_shard_tensor {
	struct cad_tensor tensor;
	uint32_t shard;
};

struct cad_shards {
	struct cad_shard *list; /* [count], ascending by file name */
	size_t count;
	struct cad_shard_tensor *tensors; /* [tensors_count], ascending by name, all different */
	size_t tensors_count;
	char *names; /* of tensors that were called something else in their file (nested.h); else NULL */
	struct {
		size_t count;
		uint64_t bytes;
		const char *first; /* by name; NULL: none */
	} outside;                 /* of the language model (nested.h); they are not in the list */
};

CAD_MUST_USE enum cad_status cad_shards_open(const char *directory, struct cad_shards *shards, struct cad_error *error);
void cad_shards_close(struct cad_shards *shards);
/* NULL: no shard has a tensor of this name. */
const struct cad_shard_tensor *cad_shards_find(const struct cad_shards *shards, const char *name);

#endif
