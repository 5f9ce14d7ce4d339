/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/batch/scheduler.h"

#include <stdlib.h>

enum cad_status rt_batch_init(struct rt_batch *batch, uint32_t rows_max, uint32_t spans_max)
{
	*batch = (struct rt_batch){ .rows_max = rows_max, .spans_max = spans_max };
	batch->spans = malloc(spans_max * sizeof *batch->spans);
	batch->row_span = malloc(rows_max * sizeof *batch->row_span);
	batch->ids = malloc(rows_max * sizeof *batch->ids);
	batch->positions = malloc(rows_max * sizeof *batch->positions);
	batch->slots = malloc(rows_max * sizeof *batch->slots);
	if (batch->spans && batch->row_span && batch->ids && batch->positions && batch->slots)
		return CAD_OK;
	rt_batch_fini(batch);
	return CAD_ERR_MEMORY;
}

void rt_batch_fini(struct rt_batch *batch)
{
	free(batch->spans);
	free(batch->row_span);
	free(batch->ids);
	free(batch->positions);
	free(batch->slots);
	*batch = (struct rt_batch){ 0 };
}

/* Back to the waiting list with nothing held; what was computed is forgotten, what was generated is
 * kept. */
static void preempt(struct rt_scheduler *scheduler, struct rt_sequence *sequence)
{
	rt_list_remove(&scheduler->running, sequence);
	rt_kv_release(scheduler->cache, &sequence->kv);
	sequence->usage.recomputed_tokens += sequence->computed;
	sequence->computed = 0;
	sequence->state = RT_SEQUENCE_WAITING;
	rt_list_add(&scheduler->waiting, sequence);
	scheduler->preempted++;
}

/* Whose pages this sequence may have: a paused one's (its reader is slow, and it is not in the
 * batch), else the youngest's, if that is younger. */
static struct rt_sequence *find_victim(const struct rt_scheduler *scheduler, const struct rt_sequence *sequence)
{
	for (struct rt_sequence *s = scheduler->running.last; s; s = s->before)
		if (s->paused)
			return s;
	return scheduler->running.last->id > sequence->id ? scheduler->running.last : NULL;
}

static bool make_room(struct rt_scheduler *scheduler, struct rt_sequence *sequence, uint32_t tokens)
{
	while (!rt_kv_grow(scheduler->cache, &sequence->kv, tokens)) {
		struct rt_sequence *victim = find_victim(scheduler, sequence);
		if (!victim)
			return false;
		preempt(scheduler, victim);
	}
	return true;
}

static void batch_add(struct rt_batch *batch, struct rt_sequence *sequence, uint32_t rows)
{
	struct rt_span *span = &batch->spans[batch->spans_count++];
	*span = (struct rt_span){
		.sequence = sequence,
		.first = batch->rows,
		.rows = rows,
		.chooses = sequence->computed + rows == sequence->count,
	};
	for (uint32_t i = 0; i < rows; i++) {
		uint32_t row = batch->rows++, position = sequence->computed + i;
		batch->row_span[row] = span;
		batch->ids[row] = sequence->tokens[position];
		batch->positions[row] = (int32_t)position;
		batch->slots[row] = sequence->kv.slot;
	}
}

/* Sequences are served oldest first, so that a victim (paused, or younger than all that were
 * served) is never in the batch already. */
void rt_schedule(struct rt_scheduler *scheduler, struct rt_batch *batch)
{
	batch->rows = batch->spans_count = 0;

	/* A decoding sequence must not starve behind a long prompt: one row of the step is kept for
	 * each. */
	uint32_t decoding = 0;
	for (struct rt_sequence *s = scheduler->running.first; s; s = s->after)
		decoding += !s->paused && s->count - s->computed == 1;
	struct rt_sequence *next;
	for (struct rt_sequence *s = scheduler->running.first; s; s = next) {
		next = s->after;
		uint32_t behind = s->count - s->computed, left = batch->rows_max - batch->rows;
		if (s->paused || batch->spans_count == batch->spans_max)
			continue;
		if (behind > 1) {
			uint32_t reserved = decoding < left ? decoding : left;
			left -= reserved;
			behind = behind < scheduler->chunk_max ? behind : scheduler->chunk_max;
		}
		uint32_t rows = behind < left ? behind : left;
		bool decodes = s->count - s->computed == 1;
		if (rows > 0 && make_room(scheduler, s, s->computed + rows))
			batch_add(batch, s, rows);
		decoding -= decodes && decoding > 0;
		next = s->after; /* make_room may have taken the one behind */
	}

	for (struct rt_sequence *s = scheduler->waiting.first; s && scheduler->running.count < scheduler->running_max;
		s = next) {
		next = s->after;
		uint32_t rows = s->count < scheduler->chunk_max ? s->count : scheduler->chunk_max,
			 left = batch->rows_max - batch->rows;
		rows = rows < left ? rows : left;
		if (s->paused)
			continue;
		if (rows == 0 || batch->spans_count == batch->spans_max)
			break;
		if (!rt_kv_slot_acquire(scheduler->cache, &s->kv))
			break;
		if (!rt_kv_grow(scheduler->cache, &s->kv, rows)) { /* new sequences push no other out */
			rt_kv_release(scheduler->cache, &s->kv);
			break;
		}
		rt_list_remove(&scheduler->waiting, s);
		s->state = RT_SEQUENCE_RUNNING;
		rt_list_add(&scheduler->running, s);
		batch_add(batch, s, rows);
	}
}

void rt_scheduler_remove(struct rt_scheduler *scheduler, struct rt_sequence *sequence)
{
	if (sequence->state == RT_SEQUENCE_ENDED)
		return;
	rt_list_remove(sequence->state == RT_SEQUENCE_RUNNING ? &scheduler->running : &scheduler->waiting, sequence);
	rt_kv_release(scheduler->cache, &sequence->kv);
	sequence->state = RT_SEQUENCE_ENDED;
}
