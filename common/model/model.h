/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint: a spec, and every tensor of it mapped and checked.
 *
 * `cad_model_open` reads config.json, maps the safetensors files (one, or shards with an index),
 * and checks that every tensor that the spec calls for is present with the right shape and a known
 * type, and that nothing else stands in what the model computes with. Afterwards nothing can fail
 * and nothing is copied: a tensor is a pointer into a read-only mapping, valid until
 * `cad_model_close`. Immutable after opening; any thread may read it.
 *
 * Experts may each have tensors of their own, or a layer's experts share one, of which a tensor is
 * then a part.
 *
 * A packed model (packed.h) opens the same: its matrices may be of the types Q8 and Q4, in rows
 * whose length kernels/packed.h checks before anybody reads them.
 *
 * A file that shrinks while it is mapped raises SIGBUS in any program that maps files;
 * docs/OPERATIONS.md says not to overwrite a checkpoint in place.
 */
#ifndef CADRE_COMMON_MODEL_MODEL_H
#define CADRE_COMMON_MODEL_MODEL_H

#include "common/base/digest.h"
#include "common/model/packed.h"
#include "common/model/roles.h"
#include "common/model/spec.h"
#include "common/model/tensor.h"

struct cad_model;

CAD_MUST_USE enum cad_status cad_model_open(const char *directory, struct cad_model **model, struct cad_error *error);
/*
 * A model by its config.json alone, a file or in a directory: for whoever asks for sizes, of models that nobody
 * has here, and of families that do not run. Tensors have shapes and config.json's dtype; their data is
 * not NULL and must not be read. There are no files: of all that is told of a model, only spec, tensors
 * and sizes.
 */
CAD_MUST_USE enum cad_status cad_model_open_config(const char *path, struct cad_model **model, struct cad_error *error);
void cad_model_close(struct cad_model *model);
/* Whether it can be opened. */
CAD_MUST_USE enum cad_status cad_model_check(const char *directory, struct cad_error *error);

const struct cad_model_spec *cad_model_spec(const struct cad_model *model);
const char *cad_model_directory(const struct cad_model *model);
/* `layer` and `expert` are ignored where the role has none. Absent tensors (no bias, dense layer)
 * have data == NULL. */
struct cad_tensor cad_model_tensor(const struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert);

/* The output matrix is stored apart from the embedding, though config.json says that they are tied:
 * then the spec says that they are not. */
bool cad_model_has_own_head(const struct cad_model *model);
/* How many tensors of the files nothing reads though they could belong to it, and the first of them by
 * name; 0, NULL. */
size_t cad_model_unread(const struct cad_model *model, const char **first);

/* All tensors that nothing reads, by what they are. */
enum cad_unread {
	CAD_UNREAD_FURTHER,  /* of layers that predict further tokens */
	CAD_UNREAD_OUTSIDE,  /* of what is beside the language model */
	CAD_UNREAD_COMPUTED, /* not learned, but computed */
	CAD_UNREAD_OTHER,
	CAD_UNREAD_COUNT
};
struct cad_unread_tensors {
	size_t count;
	uint64_t bytes;
	const char *first; /* by name; NULL: there are none */
};
struct cad_unread_tensors cad_model_unread_tensors(const struct cad_model *model, enum cad_unread kind);

/* The expert's tensors have been read: what they take of this process's memory goes. Who reads them
 * again waits for page faults, no more. */
void cad_model_forget_expert(const struct cad_model *model, uint32_t layer, uint32_t expert);

/* The published name of a tensor of this role; false: the family has none. */
bool cad_model_tensor_name(
	const struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert, char *name, size_t bytes);

/* The scales of an expert's tensors, or of those of a part of what routers compute with, are numbers;
 * they are read for it. CAD_ERR_CORRUPT: one is not. At once where tensors have no scales. */
CAD_MUST_USE enum cad_status cad_model_expert_check(
	const struct cad_model *model, uint32_t layer, uint32_t expert, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_model_router_check(
	const struct cad_model *model, uint32_t part, struct cad_error *error);

/* What it was packed for; NULL: it is a checkpoint as published. */
const struct cad_packed *cad_model_packed(const struct cad_model *model);
/* What was recorded of an expert's image when it was packed; NULL: it is not packed. */
const char *cad_model_expert_recorded(const struct cad_model *model, uint32_t layer, uint32_t expert);
/* CAD_ERR_CORRUPT: the model is packed, and this is not what was recorded. */
CAD_MUST_USE enum cad_status cad_model_expert_verify(const struct cad_model *model, uint32_t layer, uint32_t expert,
	const char checksum[33], struct cad_error *error);
/* The same for all tensors of a part of what routers compute with, which are read for it if the
 * model is packed. */
CAD_MUST_USE enum cad_status cad_model_router_verify(
	const struct cad_model *model, uint32_t part, struct cad_error *error);

/* The quantum table of a packed model with quantised experts; CAD_AGAIN: there is none, and it is
 * computed. quanta[layers] */
CAD_MUST_USE enum cad_status cad_model_quanta_recorded(
	const struct cad_model *model, float *quanta, struct cad_error *error);

/* XXH3-128 over config.json and the safetensors headers in order of file name: two processes
 * compare it to know that they use the same files. 32 hex digits. A packed model has that of the
 * checkpoint that was packed. */
void cad_model_fingerprint(const struct cad_model *model, char hex[33]);
void cad_model_config_checksum(const struct cad_model *model, char hex[33]); /* XXH3-128 over config.json */
/*
 * XXH3-128 over the bytes of everything that is not a routed expert's: what a router computes with.
 * It is made of parts, one for each layer and the last for what is in no layer (embeddings, final
 * norm, head), so that who loads a layer can hash it while it is in memory. Each part reads its
 * tensors, and forgets them as cad_model_forget_expert does; of a packed model it was recorded, and
 * nothing is read.
 */
uint32_t cad_model_router_parts(const struct cad_model *model); /* layers + 1 */
/* A tensor of a part; data NULL: none of this role is in it. */
struct cad_tensor cad_model_part_tensor(const struct cad_model *model, uint32_t part, enum cad_role role);
/* Returns how many bytes the part has. */
uint64_t cad_model_router_part(const struct cad_model *model, uint32_t part, uint8_t digest[CAD_DIGEST_BYTES]);
/* digests[parts] */
void cad_model_router_checksum(const struct cad_model *model, const uint8_t (*digests)[CAD_DIGEST_BYTES], char hex[33]);

/* XXH3-128 over the identities of the safetensors files (common/base/file.h), not of their bytes:
 * while it is the same, checksums that were taken before still hold. Another copy has another
 * one. */
void cad_model_files(const struct cad_model *model, char hex[33]);

/* Sizes in bytes as stored in the checkpoint: one expert of an MoE layer; everything that is not a
 * routed expert; the whole. */
struct cad_model_sizes {
	uint64_t expert, router, total, files;
	uint64_t parameters, active_parameters; /* per token */
	uint64_t routed_parameters;             /* of routed experts, all of them */
	uint64_t looked_up; /* the embedding's, of which a token reads a row; 0: it is the head too */
};
struct cad_model_sizes cad_model_sizes(const struct cad_model *model);

#endif
