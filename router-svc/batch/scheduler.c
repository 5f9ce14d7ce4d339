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

static struct rt_sequence_list *list_of(struct rt_scheduler *scheduler, const struct rt_sequence *sequence)
{
	switch (sequence->state) {
	case RT_SEQUENCE_WAITING: return &scheduler->waiting;
	case RT_SEQUENCE_RUNNING: return &scheduler->running;
	case RT_SEQUENCE_PAUSED: return &scheduler->paused;
	case RT_SEQUENCE_ENDED: break;
	}
	return NULL;
}

static void move(struct rt_scheduler *scheduler, struct rt_sequence *sequence, enum rt_sequence_state state)
{
	rt_list_remove(list_of(scheduler, sequence), sequence);
	sequence->state = state;
	rt_list_add(list_of(scheduler, sequence), sequence);
}

/* Out of the batch; its pages stay as long as nobody needs them. */
static void give_up_slot(struct rt_scheduler *scheduler, struct rt_sequence *sequence, enum rt_sequence_state state)
{
	rt_kv_slot_release(scheduler->cache, &sequence->kv);
	move(scheduler, sequence, state);
}

/* Nothing is held any longer; what was computed is forgotten, what was generated is kept. */
static void preempt(struct rt_scheduler *scheduler, struct rt_sequence *sequence)
{
	rt_kv_release(scheduler->cache, &sequence->kv);
	sequence->usage.recomputed_tokens += sequence->computed;
	sequence->computed = 0;
	if (sequence->state == RT_SEQUENCE_RUNNING)
		move(scheduler, sequence, RT_SEQUENCE_WAITING);
	scheduler->preempted++;
}

static struct rt_sequence *youngest_holder(const struct rt_sequence_list *list)
{
	struct rt_sequence *s = list->last;
	while (s && s->kv.count == 0)
		s = s->before;
	return s;
}

/* Whose pages this sequence may have: a paused one's (its reader is slow, and it is not in the
 * batch), else the youngest's, if that is younger. */
static struct rt_sequence *find_victim(const struct rt_scheduler *scheduler, const struct rt_sequence *sequence)
{
	struct rt_sequence *paused = youngest_holder(&scheduler->paused),
			   *waiting = youngest_holder(&scheduler->waiting),
			   *running = youngest_holder(&scheduler->running);
	if (paused)
		return paused;
	struct rt_sequence *youngest = !running || (waiting && waiting->id > running->id) ? waiting : running;
	return youngest && youngest->id > sequence->id ? youngest : NULL;
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

/* It is one token behind. */
static bool decodes(const struct rt_sequence *sequence) { return sequence->count - sequence->computed == 1; }

static void batch_add(struct rt_batch *batch, struct rt_sequence *sequence, uint32_t rows)
{
	struct rt_span *span = &batch->spans[batch->spans_count++];
	batch->decoding += decodes(sequence);
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

/* ---- rotation ---- */

/* Keys that were rotated for a shorter sequence are of no use to a longer one. The pages stay, to be
 * written again. Whether a prompt came at once or grew token by token is then no matter. */
static void turn(const struct rt_scheduler *scheduler, const struct rt_sequence_list *list)
{
	for (struct rt_sequence *s = list->first; s; s = s->after) {
		uint32_t rotation = cad_rope_rotation(scheduler->rope, s->count);
		if (rotation == s->rotation)
			continue;
		s->usage.recomputed_tokens += s->computed;
		s->computed = 0;
		s->rotation = rotation;
	}
}

/* ---- slots ---- */

static void sort_paused(struct rt_scheduler *scheduler)
{
	struct rt_sequence *next;

	for (struct rt_sequence *s = scheduler->paused.first; s; s = next) {
		next = s->after;
		if (!s->paused)
			move(scheduler, s, RT_SEQUENCE_WAITING);
	}
	for (struct rt_sequence *s = scheduler->running.first; s; s = next) {
		next = s->after;
		if (s->paused)
			give_up_slot(scheduler, s, RT_SEQUENCE_PAUSED);
	}
	for (struct rt_sequence *s = scheduler->waiting.first; s; s = next) {
		next = s->after;
		if (s->paused)
			move(scheduler, s, RT_SEQUENCE_PAUSED);
	}
}

/* A sequence that was paused comes back in the order of age, as if it had never been away: before
 * younger ones that run, the youngest of which waits with its pages if there is no other slot.
 * Afterwards all that wait are younger than all that run. */
static void readmit(struct rt_scheduler *scheduler)
{
	for (struct rt_sequence *s; (s = scheduler->waiting.first) != NULL;) {
		struct rt_sequence *youngest = scheduler->running.last;
		if (!youngest || youngest->id < s->id)
			return;
		if (scheduler->running.count == scheduler->running_max)
			give_up_slot(scheduler, youngest, RT_SEQUENCE_WAITING);
		if (!rt_kv_slot_acquire(scheduler->cache, &s->kv))
			return;
		move(scheduler, s, RT_SEQUENCE_RUNNING);
	}
}

/* ---- rows ---- */

static uint32_t count_decoding(const struct rt_scheduler *scheduler)
{
	uint32_t decoding = 0;
	for (const struct rt_sequence *s = scheduler->running.first; s; s = s->after)
		decoding += decodes(s);
	return decoding;
}

/* Rows for a sequence that is so many behind. */
static uint32_t prompt_rows(
	const struct rt_scheduler *scheduler, const struct rt_batch *batch, uint32_t behind, uint32_t prompts_max)
{
	uint32_t prompts = batch->rows - batch->decoding, left = prompts_max > prompts ? prompts_max - prompts : 0;
	behind = behind < scheduler->chunk_max ? behind : scheduler->chunk_max;
	return behind < left ? behind : left;
}

static void serve_running(struct rt_scheduler *scheduler, struct rt_batch *batch, uint32_t prompts_max)
{
	/* A decoding sequence must not starve behind a long prompt: one row of the step is kept for
	 * each. */
	uint32_t decoding = count_decoding(scheduler);
	struct rt_sequence *next;
	for (struct rt_sequence *s = scheduler->running.first; s; s = next) {
		next = s->after;
		uint32_t behind = s->count - s->computed, left = batch->rows_max - batch->rows;
		if (batch->spans_count == batch->spans_max)
			continue;
		if (behind > 1) {
			uint32_t reserved = decoding < left ? decoding : left;
			left -= reserved;
			behind = prompt_rows(scheduler, batch, behind, prompts_max);
		}
		uint32_t rows = behind < left ? behind : left;
		if (rows > 0 && make_room(scheduler, s, s->computed + rows))
			batch_add(batch, s, rows);
		decoding -= decodes(s) && decoding > 0;
		next = s->after; /* make_room may have taken the one behind */
	}
}

/* In order: nobody overtakes one that finds no room. One that has just lost its pages may be older
 * than one that runs; it comes back with the next step, see readmit. */
static void admit_waiting(struct rt_scheduler *scheduler, struct rt_batch *batch, uint32_t prompts_max)
{
	for (struct rt_sequence *s; (s = scheduler->waiting.first) != NULL;) {
		if (scheduler->running.last && scheduler->running.last->id > s->id)
			return;
		uint32_t behind = s->count - s->computed, left = batch->rows_max - batch->rows;
		uint32_t rows = prompt_rows(scheduler, batch, behind, prompts_max);
		rows = rows < left ? rows : left;
		if (rows == 0 || batch->spans_count == batch->spans_max ||
			scheduler->running.count == scheduler->running_max ||
			!rt_kv_slot_acquire(scheduler->cache, &s->kv))
			return;
		if (!make_room(scheduler, s, s->computed + rows)) {
			if (s->computed > 0)
				rt_kv_slot_release(scheduler->cache, &s->kv);
			else
				rt_kv_release(scheduler->cache, &s->kv);
			return;
		}
		move(scheduler, s, RT_SEQUENCE_RUNNING);
		batch_add(batch, s, rows);
	}
}

/* Sequences are served oldest first, so that a victim (paused, or younger than all that were
 * served) is never in the batch already. */
void rt_schedule(struct rt_scheduler *scheduler, struct rt_batch *batch)
{
	batch->rows = batch->spans_count = batch->decoding = 0;

	sort_paused(scheduler);
	if (scheduler->rope && cad_rope_varies(scheduler->rope)) {
		turn(scheduler, &scheduler->running);
		turn(scheduler, &scheduler->waiting);
	}
	readmit(scheduler);
	uint32_t prompts_max = rt_pace_rows(&scheduler->pace, count_decoding(scheduler));
	serve_running(scheduler, batch, prompts_max);
	admit_waiting(scheduler, batch, prompts_max);
	if (batch->rows > 0 || prompts_max == UINT32_MAX)
		return;

	/* what decodes finds no pages; prompts, which hold them, must go on */
	serve_running(scheduler, batch, UINT32_MAX);
	admit_waiting(scheduler, batch, UINT32_MAX);
}

void rt_schedule_took(struct rt_scheduler *scheduler, const struct rt_batch *batch, uint64_t ns)
{
	rt_pace_took(&scheduler->pace, batch->decoding, batch->rows - batch->decoding, ns);
}

void rt_scheduler_remove(struct rt_scheduler *scheduler, struct rt_sequence *sequence)
{
	if (sequence->state == RT_SEQUENCE_ENDED)
		return;
	rt_list_remove(list_of(scheduler, sequence), sequence);
	rt_kv_release(scheduler->cache, &sequence->kv);
	sequence->state = RT_SEQUENCE_ENDED;
}
