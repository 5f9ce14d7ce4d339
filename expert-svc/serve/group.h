/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grouping: the rows and pairs of several calls of one layer, sorted so that each expert runs once
 * over all its rows.
 *
 * A batch holds segments: a segment is a run of rows of one job, all of them unless the call is
 * larger than a step. Rows are numbered through the batch.
 * Pairs are sorted by expert, then by row (counting sort): what the grouped ffn wants.
 * All arrays are sized at creation. One thread uses a batch; nothing here allocates after creation,
 * blocks, or fails.
 */
#ifndef CADRE_EXPERT_SVC_SERVE_GROUP_H
#define CADRE_EXPERT_SVC_SERVE_GROUP_H

#include "expert-svc/serve/inbox.h"
#include "expert-svc/store/weight_store.h"

struct ex_segment {
	struct ex_job *job;
	uint32_t row_begin, rows; /* rows of the call */
	uint32_t base;            /* number of its first row in the batch */
	size_t answer_bytes;      /* of its sums, once computed */
};

struct ex_batch {
	uint32_t rows_max, pairs_max, segments_max, experts;
	uint32_t layer;
	struct ex_segment *segments; /* [segments_max] */
	uint32_t segments_count, rows, pairs;
	/* [experts]: the layer's experts as they were when the batch began, NULL: not held. Looked
	 * up once: one that is freed during the step stays usable until the step is over, but
	 * cannot be found again */
	const struct kn_expert **found;
	/* made by ex_batch_group; the device reads them, so they are its host memory, one block */
	void *block;
	size_t block_bytes;
	struct kn_device *device;
	const struct kn_expert **active; /* [experts]: those that have pairs, ascending by id */
	uint32_t active_count;
	/* [experts + 1]: pairs of active expert i are begin[i] .. begin[i + 1] - 1 */
	uint32_t *begin;
	uint32_t *pair_row, *pair_expert; /* [pairs_max] */
	float *pair_weight;               /* [pairs_max] */
	/* and for itself */
	uint32_t *cursor; /* scratch, [max(experts, rows of a call) + 1] */
	uint32_t cursor_count;
};

/* Keeps the device. call_rows_max: of one call, which may be larger than rows_max. */
CAD_MUST_USE enum cad_status ex_batch_init(struct ex_batch *batch, struct kn_device *device, uint32_t rows_max,
	uint32_t pairs_max, uint32_t segments_max, uint32_t experts, uint32_t call_rows_max);
void ex_batch_fini(struct ex_batch *batch);

void ex_batch_begin(struct ex_batch *batch, uint32_t layer);
/* Adds the rows of the job that are not done. False: they do not fit beside what is there. An empty
 * batch takes as many rows as fit, at least one. */
bool ex_batch_add(struct ex_batch *batch, struct ex_job *job);
/* Sorts. Every expert of every call is in `found`, between enter and leave of the store. */
void ex_batch_group(struct ex_batch *batch);

#endif
