/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The experts that this node holds, packed, by (layer, expert).
 *
 * One thread reads (the one that runs steps), any number of threads load and free at the same time.
 * The reader takes no lock: it brackets each step with ex_store_enter and ex_store_leave, and what
 * ex_store_find gave it in between stays until it leaves. A writer first makes an expert
 * unreachable, then waits until the reader has left every step that may have seen it, then frees
 * (the grace period of RCU, for one reader). Who copies an expert out for another node
 * (ex_store_read) is counted on it, and waited for as well; the reader notices nothing of that.
 *
 * Model and device are borrowed until destroy. Only load allocates; load and free block.
 */
#ifndef CADRE_EXPERT_SVC_STORE_WEIGHT_STORE_H
#define CADRE_EXPERT_SVC_STORE_WEIGHT_STORE_H

#include "common/model/model.h"
#include "kernels/kernels.h"

struct ex_store;

struct ex_store_options {
	const struct cad_model *model;
	struct kn_device *device;
	enum cad_weights weights;
	uint64_t memory_bytes; /* 0: no bound */
};

/* How one expert was loaded. */
struct ex_loaded {
	uint64_t bytes;    /* packed */
	char checksum[33]; /* of its image (kernels/image.h) */
};

CAD_MUST_USE enum cad_status ex_store_create(
	const struct ex_store_options *options, struct ex_store **store, struct cad_error *error);
/* No reader and no writer may be left. NULL is allowed. */
void ex_store_destroy(struct ex_store *store);

/* Memory for so many experts of the largest size, taken now as far as the device has memory of its
 * own, and the bound from now on. Once, before anything is loaded. CAD_ERR_MEMORY: it is not there. */
CAD_MUST_USE enum cad_status ex_store_reserve(struct ex_store *store, uint64_t memory_bytes, struct cad_error *error);

/* What an expert is packed from, when that is known already. */
struct ex_weights {
	const void *image; /* NULL: the checkpoint's tensors */
	const char *checksum;
};
/* `weights` NULL: from the checkpoint, whose image is hashed here (and quantised a second time for
 * that, where it is; ex_load_run does it once). Loading what is held is OK. CAD_ERR_RANGE: the
 * model has no such expert. CAD_ERR_EXHAUSTED: it does not fit into memory_bytes. */
CAD_MUST_USE enum cad_status ex_store_load(struct ex_store *store, uint32_t layer, uint32_t expert,
	const struct ex_weights *weights, struct ex_loaded *loaded, struct cad_error *error);
/* CAD_ERR_NOT_FOUND: not held. */
CAD_MUST_USE enum cad_status ex_store_free(struct ex_store *store, uint32_t layer, uint32_t expert);

/* Any thread. Bytes begin .. begin + count - 1 of the image of an expert that is held.
 * CAD_ERR_NOT_FOUND: it is not; CAD_ERR_RANGE: the image has no such bytes, or the model no such
 * expert. */
CAD_MUST_USE enum cad_status ex_store_read(
	struct ex_store *store, uint32_t layer, uint32_t expert, uint64_t begin, size_t count, void *out);
/* Types and shapes of an expert's image, whether it is held or not; zeros for one that the model
 * does not have. */
struct kn_expert_source ex_store_image(const struct ex_store *store, uint32_t layer, uint32_t expert);

enum cad_weights ex_store_weights(const struct ex_store *store);

/* Any thread. */
bool ex_store_holds(const struct ex_store *store, uint32_t layer, uint32_t expert);
uint64_t ex_store_memory_used(const struct ex_store *store);
uint32_t ex_store_count(const struct ex_store *store);
/* What one expert of this model takes when packed. */
uint64_t ex_store_expert_bytes(const struct ex_store *store);

/* The reader. */
void ex_store_enter(struct ex_store *store);
void ex_store_leave(struct ex_store *store);
/* Between enter and leave; layer and expert in range. NULL: not held. */
const struct kn_expert *ex_store_find(const struct ex_store *store, uint32_t layer, uint32_t expert);

#endif
