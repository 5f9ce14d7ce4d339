/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One load, in the calling thread, which blocks: an expert from the node that its order names, or
 * from the checkpoint. From a node the whole image is taken into memory first, and is packed when
 * its checksum is right; whatever goes wrong with the node, the checkpoint follows.
 */
#ifndef CADRE_EXPERT_SVC_TRANSFER_LOAD_H
#define CADRE_EXPERT_SVC_TRANSFER_LOAD_H

#include "expert-svc/engine.h"
#include "expert-svc/transfer/asker.h"

/* How an expert is to be loaded. */
struct ex_load {
	const char *node, *address; /* from there; NULL: from the checkpoint */
	const char *checksum;       /* of its image, if it comes from a node */
	uint64_t bytes_per_second;  /* of this load; 0: as fast as it goes */
};

struct ex_load_run {
	struct ex_engine *engine;
	ex_ask_fn *ask; /* NULL: experts come from the checkpoint alone */
	void *asker;
	uint32_t layer, expert;
	const struct ex_load *load;
	/* So many more bytes of the image were read, from a node (its id) or the checkpoint ("").
	 * It may sleep; false: give up. */
	bool (*read)(void *context, const char *node, uint64_t bytes);
	void *context;
};

struct ex_load_result {
	struct ex_loaded loaded;
	const char *node;               /* the order's; "": the checkpoint; NULL: it was held already */
	uint64_t image_bytes;           /* that were read from there */
	enum ex_source_failure failure; /* of the order's node; FINE: none */
	char passed_over[256];          /* the same as a sentence */
};
/* CAD_ERR_CANCELLED: given up. Else as ex_store_load; `failure` and `passed_over` are set in any
 * case. */
CAD_MUST_USE enum cad_status ex_load_run(
	const struct ex_load_run *run, struct ex_load_result *result, struct cad_error *error);

#endif
