/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/serve/group.h"

#include <stdlib.h>
#include <string.h>

static void *take(uint8_t *block, size_t *at, size_t bytes)
{
	void *taken = block ? block + *at : NULL;
	*at += kn_round_up(bytes, 64);
	return taken;
}

/* Counts the bytes of what the device reads, and hands it out (block NULL: counts only). */
static size_t lay_out(struct ex_batch *b, uint8_t *block)
{
	size_t at = 0;
	b->active = take(block, &at, b->experts * sizeof *b->active);
	b->begin = take(block, &at, (b->experts + 1u) * sizeof *b->begin);
	b->pair_row = take(block, &at, b->pairs_max * sizeof *b->pair_row);
	b->pair_expert = take(block, &at, b->pairs_max * sizeof *b->pair_expert);
	b->pair_weight = take(block, &at, b->pairs_max * sizeof *b->pair_weight);
	return at;
}

enum cad_status ex_batch_init(struct ex_batch *batch, struct kn_device *device, uint32_t rows_max, uint32_t pairs_max,
	uint32_t segments_max, uint32_t experts, uint32_t call_rows_max)
{
	CAD_ASSERT(rows_max >= 1 && pairs_max >= experts); /* so that at least one row always fits */
	uint32_t cursor_count = experts > call_rows_max ? experts : call_rows_max;
	*batch = (struct ex_batch){
		.device = device,
		.rows_max = rows_max,
		.pairs_max = pairs_max,
		.segments_max = segments_max,
		.experts = experts,
		.cursor_count = cursor_count,
	};
	batch->segments = calloc(segments_max, sizeof *batch->segments);
	batch->found = calloc(experts, sizeof *batch->found);
	batch->cursor = calloc(cursor_count + 1u, sizeof *batch->cursor);
	batch->block_bytes = lay_out(batch, NULL);
	batch->block = device->ops->host_alloc(device, batch->block_bytes);
	if (batch->segments && batch->found && batch->cursor && batch->block) {
		lay_out(batch, batch->block);
		return CAD_OK;
	}
	ex_batch_fini(batch);

	return CAD_ERR_MEMORY;
}

void ex_batch_fini(struct ex_batch *batch)
{
	free(batch->segments);
	free(batch->found);
	free(batch->cursor);
	if (batch->block)
		batch->device->ops->host_release(batch->device, batch->block, batch->block_bytes);
	*batch = (struct ex_batch){ 0 };
}

void ex_batch_begin(struct ex_batch *batch, uint32_t layer)
{
	batch->layer = layer;
	batch->segments_count = batch->rows = batch->pairs = batch->active_count = 0;
}

/* How many rows of a call, from `from` on, fit into a step of their own; *pairs: theirs. */
static uint32_t rows_that_fit(struct ex_batch *batch, const struct cad_call_view *call, uint32_t from, uint32_t *pairs)
{
	uint32_t *counts = batch->cursor, rows = 0;
	CAD_ASSERT(call->call.rows <= batch->cursor_count);
	memset(counts, 0, call->call.rows * sizeof *counts);
	for (uint32_t p = 0; p < call->call.pairs; p++)
		counts[call->pairs[p].row]++;
	*pairs = 0;
	while (from + rows < call->call.rows && rows < batch->rows_max &&
		*pairs + counts[from + rows] <= batch->pairs_max) {
		*pairs += counts[from + rows];
		rows++;
	}

	return rows;
}

bool ex_batch_add(struct ex_batch *batch, struct ex_job *job)
{
	const struct cadre_wire_call *call = &job->call->call;
	uint32_t rows = call->rows, pairs = call->pairs;
	bool whole = job->rows_done == 0 && rows <= batch->rows_max - batch->rows &&
		pairs <= batch->pairs_max - batch->pairs;

	if (batch->segments_count == batch->segments_max || (!whole && batch->segments_count > 0))
		return false;

	if (!whole)
		rows = rows_that_fit(batch, job->call, job->rows_done, &pairs);
	CAD_ASSERT(rows > 0);
	batch->segments[batch->segments_count++] = (struct ex_segment){
		.job = job,
		.row_begin = job->rows_done,
		.rows = rows,
		.base = batch->rows,
	};
	batch->rows += rows;
	batch->pairs += pairs;

	return true;
}

/* The first of pairs[0 .. count) whose row is not below `row`; rows ascend. */
static uint32_t lower_bound(const struct cadre_wire_pair *pairs, uint32_t count, uint32_t row)
{
	uint32_t low = 0;
	while (low < count) {
		uint32_t middle = low + (count - low) / 2;
		if (pairs[middle].row < row)
			low = middle + 1;
		else
			count = middle;
	}
	return low;
}

/* Walks the pairs of all segments in the order segment, expert, row. `place` NULL: counts them by
 * expert; else writes them where place[expert] says. */
static void walk(struct ex_batch *batch, uint32_t *count, uint32_t *place)
{
	for (uint32_t s = 0; s < batch->segments_count; s++) {
		const struct ex_segment *segment = &batch->segments[s];
		const struct cad_call_view *call = segment->job->call;
		const struct cadre_wire_pair *pairs = call->pairs;
		for (uint32_t g = 0; g < call->call.groups; g++) {
			uint32_t expert = call->groups[g].expert, all = call->groups[g].pairs;
			uint32_t from = lower_bound(pairs, all, segment->row_begin),
				 to = lower_bound(pairs, all, segment->row_begin + segment->rows);
			if (!place)
				count[expert] += to - from;
			for (uint32_t i = from; place && i < to; i++) {
				uint32_t p = place[expert]++;
				batch->pair_row[p] = segment->base + pairs[i].row - segment->row_begin;
				batch->pair_weight[p] = pairs[i].weight;
				batch->pair_expert[p] = expert;
			}
			pairs += all;
		}
	}
}

void ex_batch_group(struct ex_batch *batch)
{
	uint32_t *place = batch->cursor, at = 0;
	memset(place, 0, batch->experts * sizeof *place);
	walk(batch, place, NULL);
	batch->active_count = 0;

	for (uint32_t e = 0; e < batch->experts; e++) {
		uint32_t count = place[e];
		place[e] = at;
		if (count == 0)
			continue;
		batch->active[batch->active_count] = batch->found[e];
		CAD_ASSERT(batch->active[batch->active_count]);
		batch->begin[batch->active_count++] = at;
		at += count;
	}

	batch->begin[batch->active_count] = at;
	CAD_ASSERT(at == batch->pairs);
	walk(batch, NULL, place);
}
