/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the file of a packed model says of itself (docs/decisions/packed-models.md): texts in the
 * __metadata__ of its model.safetensors. Each checksum is XXH3-128, as 32 hex digits.
 *
 *   format        cadre-packed
 *   version       of this form: CAD_PACKED_VERSION
 *   model         the fingerprint of the checkpoint that was packed
 *   config        of config.json's bytes
 *   experts       how weights are kept (cad_weights_name): those of routed experts,
 *   router        and all others
 *   head          own, where the checkpoint stores an output matrix apart, although config.json says
 *                 that it is the embedding; else there is none
 *   expert.L.E    of the image of an expert (kernels/image.h), which its tensors are
 *   tensor.NAME   of the bytes of any other tensor
 *   part.P        of a part of what routers compute with, as the checkpoint has it
 *                 (cad_model_router_part), so that both forms have one checksum
 *   quanta        only with quantised experts: the table of kernels/quantum.h, each a power of two,
 *                 as its exponent, with a space between two; "-" for a dense layer
 *
 * Pure functions; any thread.
 */
#ifndef CADRE_COMMON_MODEL_PACKED_H
#define CADRE_COMMON_MODEL_PACKED_H

#include "common/model/safetensors.h"
#include "common/model/spec.h"

enum { CAD_PACKED_VERSION = 1, CAD_PACKED_KEY_BYTES = 272 };
#define CAD_PACKED_FORMAT "cadre-packed"

struct cad_packed {
	enum cad_weights experts, router;
};

bool cad_packed_is(const struct cad_safetensors *file);
/* Of a packed file; CAD_ERR_UNSUPPORTED: one of another version. `path` is what errors call it. */
CAD_MUST_USE enum cad_status cad_packed_read(
	const struct cad_safetensors *file, const char *path, struct cad_packed *packed, struct cad_error *error);
/* A checksum, valid as long as the file. */
CAD_MUST_USE enum cad_status cad_packed_checksum(const struct cad_safetensors *file, const char *path, const char *key,
	const char **hex, struct cad_error *error);

/* quanta[layers]; CAD_AGAIN: the file has none. */
CAD_MUST_USE enum cad_status cad_packed_quanta(const struct cad_safetensors *file, const char *path,
	const struct cad_model_spec *spec, float *quanta, struct cad_error *error);
/* That text, which the caller frees; NULL: no memory. */
char *cad_packed_quanta_text(const float *quanta, uint32_t layers);

const char *cad_packed_expert_key(uint32_t layer, uint32_t expert, char key[CAD_PACKED_KEY_BYTES]);
const char *cad_packed_tensor_key(const char *name, char key[CAD_PACKED_KEY_BYTES]);
const char *cad_packed_part_key(uint32_t part, char key[CAD_PACKED_KEY_BYTES]);

#endif
