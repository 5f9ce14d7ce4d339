/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed models (docs/decisions/packed-models.md): checkpoints whose matrices are in the rows of
 * images (image.h) already, so that loading quantises nothing.
 */
#ifndef CADRE_KERNELS_PACKED_H
#define CADRE_KERNELS_PACKED_H

#include "common/base/workers.h"
#include "common/model/model.h"

/*
 * Whether a model's routed experts, or all the rest, may be used with weights that are kept so.
 * Always, if it is not packed; else if it was packed for them and every matrix has the length that
 * its rows need. Nobody may read the tensors before. Pure; any thread.
 */
CAD_MUST_USE enum cad_status kn_packed_check_experts(
	const struct cad_model *model, enum cad_weights weights, struct cad_error *error);
CAD_MUST_USE enum cad_status kn_packed_check_router(
	const struct cad_model *model, enum cad_weights weights, struct cad_error *error);

/* The expert's checksum is the recorded one; reads it. Of a model that is not packed, its scales are numbers,
 * if it has any. */
CAD_MUST_USE enum cad_status kn_packed_verify_expert(
	const struct cad_model *model, uint32_t layer, uint32_t expert, struct cad_error *error);

struct kn_packing {
	const struct cad_model *model; /* not packed */
	struct cad_packed weights;     /* what to pack it for */
	const float *quanta;           /* [layers] of kn_quantum_table to record; NULL: none */
	const char *path;              /* of the file; it must not exist */
	struct cad_workers *workers;   /* NULL: this thread alone */
	/* Bytes that are written so far; false: no more. Called by all threads, often. */
	bool (*go_on)(void *context, uint64_t done, uint64_t total);
	void *context;
};
/*
 * Writes the model.safetensors of a packed model: the same bytes from the same model, by however
 * many threads, and in pieces, so that memory stays small. Until the last byte is on the disk the
 * file begins with zeros, and is none that opens. On failure there is no file. Blocks.
 */
CAD_MUST_USE enum cad_status kn_packed_write(const struct kn_packing *packing, struct cad_error *error);

#endif
