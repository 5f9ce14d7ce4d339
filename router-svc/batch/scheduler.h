/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Continuous batching: which rows the next step computes. Every running sequence that is one token
 * behind gets its row first (decode); then prompts fill the rest of the step in chunks, oldest
 * first; then waiting sequences are admitted while slots and pages last. While any sequence
 * decodes, prompts get as many rows as its pace allows (pace.h).
 *
 * A paused sequence (its reader is slow) gives up its slot, so that others run, and keeps its pages
 * as long as nobody needs them. When it resumes, it comes back in the order of age; a younger one
 * that runs then waits, with its pages, if there is no other slot.
 *
 * Where the rotary embedding depends on the length of a sequence, one that has outgrown its rotation
 * is computed again from its first token.
 *
 * When pages run out, a paused sequence, else the youngest, gives up its pages; it is computed
 * again later, with the same bits. What a step holds never changes the bits of a sequence, so the
 * choice is free. Engine's thread only; allocates nothing after init.
 */
#ifndef CADRE_ROUTER_SVC_BATCH_SCHEDULER_H
#define CADRE_ROUTER_SVC_BATCH_SCHEDULER_H

#include "router-svc/batch/pace.h"
#include "router-svc/batch/sequence.h"

/* Rows first .. first + rows - 1 of the batch belong to one sequence, for ascending positions. */
struct rt_span {
	struct rt_sequence *sequence;
	uint32_t first, rows;
	bool chooses; /* the last row's logits choose the sequence's next token */
};

/* One step's rows. Host arrays. */
struct rt_batch {
	uint32_t rows, spans_count, rows_max, spans_max;
	uint32_t decoding; /* rows of sequences that were one token behind; all others are of prompts */
	struct rt_span *spans;
	struct rt_span **row_span; /* [rows] */
	int32_t *ids, *positions;  /* [rows] */
	uint32_t *slots;           /* [rows]: of the KV cache, where the page table is */
};
CAD_MUST_USE enum cad_status rt_batch_init(struct rt_batch *batch, uint32_t rows_max, uint32_t spans_max);
void rt_batch_fini(struct rt_batch *batch);

struct rt_scheduler {
	struct rt_kv_cache *cache;
	const struct cad_rope_spec *rope; /* NULL: it does not depend on the length of a sequence */
	struct rt_sequence_list running, waiting, paused;
	uint32_t running_max, chunk_max;
	struct rt_pace pace;
	uint64_t preempted;
};

/* Fills the batch; zero rows when nothing can be computed now. */
void rt_schedule(struct rt_scheduler *scheduler, struct rt_batch *batch);
/* What the batch took, for those to come. */
void rt_schedule_took(struct rt_scheduler *scheduler, const struct rt_batch *batch, uint64_t ns);
/* Takes a sequence out of its list and gives back what it holds. */
void rt_scheduler_remove(struct rt_scheduler *scheduler, struct rt_sequence *sequence);

#endif
