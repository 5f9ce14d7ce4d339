/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint: a spec, and every tensor of it mapped and checked.
 *
 * `cad_model_open` reads config.json, maps the safetensors files (one, or shards with an index),
 * and checks that every tensor that the spec calls for is there with the right shape and a known
 * type, and that nothing else is. Afterwards nothing can fail and nothing is copied:
 * a tensor is a pointer into a read-only mapping, valid until `cad_model_close`. Immutable after
 * opening; any thread may read it.
 *
 * A file that shrinks while it is mapped raises SIGBUS in any program that maps files;
 * docs/OPERATIONS.md says not to overwrite a checkpoint in place.
 */
#ifndef CADRE_COMMON_MODEL_MODEL_H
#define CADRE_COMMON_MODEL_MODEL_H

#include "common/model/spec.h"

/* What a tensor is for; the name that each architecture gives it is data (tensors.c). [n][k]: n
 * outputs of k inputs, row-major, as published. */
enum cad_role {
	CAD_ROLE_EMBED,      /* [V][H] */
	CAD_ROLE_FINAL_NORM, /* [H] */
	CAD_ROLE_LM_HEAD,    /* [V][H]; with tied embeddings this is EMBED */
	/* per layer */
	CAD_ROLE_ATTENTION_NORM, /* [H] */
	CAD_ROLE_Q,
	CAD_ROLE_Q_BIAS, /* [heads * D][H] */
	CAD_ROLE_K,
	CAD_ROLE_K_BIAS, /* [kv_heads * D][H] */
	CAD_ROLE_V,
	CAD_ROLE_V_BIAS,
	CAD_ROLE_O,
	CAD_ROLE_O_BIAS, /* [H][heads * D] */
	CAD_ROLE_Q_NORM,
	CAD_ROLE_K_NORM, /* [D], or [heads * D], [kv_heads * D] */
	CAD_ROLE_SINKS,  /* [heads] */
	/* latent attention */
	CAD_ROLE_Q_DOWN,
	CAD_ROLE_Q_DOWN_NORM,
	CAD_ROLE_Q_UP,
	CAD_ROLE_KV_DOWN,
	CAD_ROLE_KV_DOWN_NORM,
	CAD_ROLE_KV_UP,
	CAD_ROLE_FFN_NORM, /* [H] */
	CAD_ROLE_FFN_GATE,
	CAD_ROLE_FFN_UP,
	CAD_ROLE_FFN_DOWN, /* dense: [F][H], [F][H], [H][F] */
	CAD_ROLE_GATE,
	CAD_ROLE_GATE_BIAS,
	CAD_ROLE_SELECTION_BIAS, /* [E][H], [E], [E] */
	/* shared expert and its sigmoid gate [1][H] */
	CAD_ROLE_SHARED_GATE,
	CAD_ROLE_SHARED_UP,
	CAD_ROLE_SHARED_DOWN,
	CAD_ROLE_SHARED_SCORE,
	/* per layer and expert */
	CAD_ROLE_EXPERT_GATE,
	CAD_ROLE_EXPERT_UP,
	CAD_ROLE_EXPERT_DOWN, /* [F][H], [F][H], [H][F] */
	CAD_ROLE_EXPERT_GATE_BIAS,
	CAD_ROLE_EXPERT_UP_BIAS,
	CAD_ROLE_EXPERT_DOWN_BIAS,
	CAD_ROLE_COUNT
};

struct cad_tensor {
	const void *data; /* NULL: the model has no such tensor. Aligned to the element only */
	enum cad_dtype dtype;
	uint32_t rank;
	uint64_t shape[4];
	uint64_t bytes;
	const char *name; /* as published; lives as long as the model */
};

struct cad_model;

CAD_MUST_USE enum cad_status cad_model_open(const char *directory, struct cad_model **model, struct cad_error *error);
void cad_model_close(struct cad_model *model);

const struct cad_model_spec *cad_model_spec(const struct cad_model *model);
const char *cad_model_directory(const struct cad_model *model);
/* `layer` and `expert` are ignored where the role has none. Absent tensors (no bias, dense layer)
 * have data == NULL. */
struct cad_tensor cad_model_tensor(const struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert);

/* XXH3-128 over config.json and the safetensors headers in order of file name: what two processes
 * compare to know that they mean the same files. 32 hex digits. */
void cad_model_fingerprint(const struct cad_model *model, char hex[33]);
/* XXH3-128 over the bytes of the expert's tensors in order of role: what replicas and moves are
 * checked against. Reads them all. */
void cad_model_expert_checksum(const struct cad_model *model, uint32_t layer, uint32_t expert, char hex[33]);

/* Sizes in bytes as stored in the checkpoint: one expert of a MoE layer; everything that is not a
 * routed expert; the whole. */
struct cad_model_sizes {
	uint64_t expert, router, total, files;
	uint64_t parameters, active_parameters; /* per token */
};
struct cad_model_sizes cad_model_sizes(const struct cad_model *model);

#endif
