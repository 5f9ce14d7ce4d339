/* SPDX-License-Identifier: Apache-2.0 */
/* Copies and their states: one byte per node and cell. */
#include "orchestration/placement/rollout_internal.h"

#include <stdlib.h>
#include <string.h>

enum cad_status pl_rollout_create(const struct pl_rollout_options *options, struct pl_rollout **rollout)
{
	struct pl_rollout *made = calloc(1, sizeof *made);
	if (!made)
		return CAD_ERR_MEMORY;

	made->options = *options;
	made->cells = pl_shape_cells(&options->shape);
	made->ready = calloc(6 * (size_t)made->cells + 1, sizeof *made->ready);
	made->gained = calloc((size_t)made->cells + 1, sizeof *made->gained);
	if (!made->ready || !made->gained) {
		pl_rollout_destroy(made);
		return CAD_ERR_MEMORY;
	}

	made->surplus = made->ready + made->cells;
	made->wanted = made->surplus + made->cells;
	made->wanted_ready = made->wanted + made->cells;
	made->whole_ready = made->wanted_ready + made->cells;
	made->list = made->whole_ready + made->cells;
	*rollout = made;

	return CAD_OK;
}

void pl_rollout_destroy(struct pl_rollout *rollout)
{
	if (!rollout)
		return;
	for (uint32_t i = 0; i < CAD_PROCESSES_MAX; i++)
		free(rollout->slots[i].copies);
	free(rollout->leaving);
	free(rollout->loads);
	free(rollout->ready);
	free(rollout->gained);
	free(rollout);
}

static void forget_leaving(struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	for (size_t i = 0; i < rollout->leaving_count; i++)
		if (rollout->leaving[i].slot == slot && rollout->leaving[i].cell == cell) {
			rollout->leaving[i] = rollout->leaving[--rollout->leaving_count];
			return;
		}
}

/* The load in flight of this copy; loads_count: none. */
static size_t find_load(const struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	size_t i = 0;
	while (i < rollout->loads_count && (rollout->loads[i].slot != slot || rollout->loads[i].cell != cell))
		i++;
	return i;
}

/* A load has come on; so have, as far as can be told, those that its node was asked for before. */
static void renew(struct pl_rollout *rollout, size_t load, uint64_t now_ns)
{
	for (size_t i = load; i < rollout->loads_count; i++)
		if (rollout->loads[i].slot == rollout->loads[load].slot)
			rollout->loads[i].moved_ns = now_ns;
}

static void forget_load(struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	size_t i = find_load(rollout, slot, cell);
	if (i == rollout->loads_count)
		return;
	rollout->loads_count--;
	memmove(rollout->loads + i, rollout->loads + i + 1, (rollout->loads_count - i) * sizeof *rollout->loads);
}

void pl_copy_become(struct pl_rollout *rollout, uint32_t at, uint32_t cell, enum pl_copy state)
{
	struct pl_rollout_slot *slot = &rollout->slots[at];
	enum pl_copy before = pl_copy_state(slot, cell);

	if (before == state)
		return;

	if (before == PL_COPY_LEAVING)
		forget_leaving(rollout, at, cell);
	if (before == PL_COPY_LOADING)
		forget_load(rollout, at, cell);
	int gone = state == PL_COPY_NONE || state == PL_COPY_READY ? PL_COPY_MASK | PL_MARK_LENT : PL_COPY_MASK;
	slot->copies[cell] = (uint8_t)((slot->copies[cell] & ~gone) | (int)state);
	slot->used = slot->used + (state != PL_COPY_NONE) - (before != PL_COPY_NONE);
	slot->loading = slot->loading + (state == PL_COPY_LOADING) - (before == PL_COPY_LOADING);
	rollout->changed = rollout->changed || state == PL_COPY_READY || before == PL_COPY_READY;
	if (state == PL_COPY_READY)
		rollout->gained[cell] = PL_ROLLOUT_SOON;
	rollout->lost = rollout->lost || (before == PL_COPY_READY && state != PL_COPY_LEAVING);
}

void pl_copy_fail(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint64_t now_ns)
{
	struct pl_rollout_slot *at = &rollout->slots[slot];
	at->copies[cell] = (uint8_t)((at->copies[cell] | PL_MARK_FAILED) & ~PL_MARK_TARGET);
	at->retry_ns = now_ns + rollout->options.retry_ns;
}

void pl_copy_leave(struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	if (rollout->leaving_count == rollout->leaving_capacity) {
		size_t capacity = rollout->leaving_capacity ? 2 * rollout->leaving_capacity : 64;
		struct pl_rollout_leaving *grown = realloc(rollout->leaving, capacity * sizeof *grown);
		if (!grown)
			return;
		rollout->leaving = grown;
		rollout->leaving_capacity = capacity;
	}
	rollout->leaving[rollout->leaving_count++] = (struct pl_rollout_leaving){ .slot = slot, .cell = cell };
	pl_copy_become(rollout, slot, cell, PL_COPY_LEAVING);
}

bool pl_copy_load(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint64_t now_ns)
{
	if (rollout->loads_count == rollout->loads_capacity) {
		size_t capacity = rollout->loads_capacity ? 2 * rollout->loads_capacity : 64;
		struct pl_rollout_loading *grown = realloc(rollout->loads, capacity * sizeof *grown);
		if (!grown)
			return false;
		rollout->loads = grown;
		rollout->loads_capacity = capacity;
	}
	rollout->loads[rollout->loads_count++] = (struct pl_rollout_loading){
		.slot = slot,
		.cell = cell,
		.moved_ns = now_ns,
		.source = CAD_PROCESSES_MAX,
		.claim = pl_copy_state(&rollout->slots[slot], cell) == PL_COPY_CLAIMED,
		.move = rollout->ready[cell] > 0,
	};
	pl_copy_become(rollout, slot, cell, PL_COPY_LOADING);
	return true;
}

enum cad_status pl_rollout_add(struct pl_rollout *rollout, uint32_t slot, uint64_t memory_bytes)
{
	CAD_ASSERT(slot < CAD_PROCESSES_MAX);
	struct pl_rollout_slot *at = &rollout->slots[slot];
	if (!at->copies) {
		uint8_t *copies = calloc(rollout->cells + sizeof(uint64_t), 1);
		if (!copies)
			return CAD_ERR_MEMORY;
		*at = (struct pl_rollout_slot){ .copies = copies, .whole = true, .usable = true };
		if (slot >= rollout->slots_end)
			rollout->slots_end = slot + 1;
	}

	at->memory_bytes = memory_bytes;
	at->expert_bytes = 0;
	return CAD_OK;
}

void pl_rollout_restore(struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	pl_copy_become(rollout, slot, cell, PL_COPY_READY);
	rollout->slots[slot].copies[cell] |= PL_MARK_SAVED;
}

void pl_rollout_join(struct pl_rollout *rollout, uint32_t slot, const uint8_t *held)
{
	rollout->slots[slot].reachable = true;
	rollout->slots[slot].claims_epoch =
		rollout->lost || rollout->changed ? PL_ROLLOUT_SOON : rollout->published_epoch;
	for (uint32_t cell = 0; cell < rollout->cells; cell++) {
		enum pl_copy state = pl_copy_state(&rollout->slots[slot], cell);
		bool stays = held[cell] && (state == PL_COPY_READY || state == PL_COPY_LEAVING);
		if (stays)
			continue;
		pl_copy_become(rollout, slot, cell, held[cell] ? PL_COPY_CLAIMED : PL_COPY_NONE);
	}
}

void pl_rollout_unreachable(struct pl_rollout *rollout, uint32_t slot) { rollout->slots[slot].reachable = false; }

void pl_rollout_reach(struct pl_rollout *rollout, uint32_t slot, bool whole, bool usable)
{
	rollout->slots[slot].whole = whole;
	rollout->slots[slot].usable = usable;
}

void pl_rollout_open(struct pl_rollout *rollout, uint32_t slot, bool open) { rollout->slots[slot].closed = !open; }

void pl_rollout_drop(struct pl_rollout *rollout, uint32_t slot)
{
	struct pl_rollout_slot *at = &rollout->slots[slot];
	if (!at->copies)
		return;

	for (uint32_t cell = 0; cell < rollout->cells; cell++)
		pl_copy_become(rollout, slot, cell, PL_COPY_NONE);

	free(at->copies);
	*at = (struct pl_rollout_slot){ 0 };
	while (rollout->slots_end > 0 && !rollout->slots[rollout->slots_end - 1].copies)
		rollout->slots_end--;
}

void pl_rollout_loaded(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, bool good, uint64_t now_ns)
{
	enum pl_copy state = pl_copy_state(&rollout->slots[slot], cell);
	size_t load = find_load(rollout, slot, cell);

	if (load < rollout->loads_count)
		renew(rollout, load, now_ns);
	if (good) {
		if (state == PL_COPY_NONE || state == PL_COPY_CLAIMED || state == PL_COPY_LOADING)
			pl_copy_become(rollout, slot, cell, PL_COPY_READY);
		return;
	}
	pl_rollout_failed(rollout, slot, cell, now_ns);
	pl_copy_become(rollout, slot, cell, PL_COPY_CLAIMED); /* it is there, and not wanted: the next turn frees it */
}

bool pl_rollout_loading(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint64_t bytes, uint64_t now_ns)
{
	size_t load = find_load(rollout, slot, cell);
	if (load == rollout->loads_count || bytes <= rollout->loads[load].bytes)
		return false;
	rollout->loads[load].bytes = bytes;
	renew(rollout, load, now_ns);
	return true;
}

void pl_rollout_set_source(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint32_t source)
{
	/* from the end, unlike find_load: what is being ordered came last */
	size_t i = rollout->loads_count;
	while (i > 0 && (rollout->loads[i - 1].slot != slot || rollout->loads[i - 1].cell != cell))
		i--;
	if (i > 0)
		rollout->loads[i - 1].source = source;
}

uint32_t pl_rollout_source(const struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	size_t load = find_load(rollout, slot, cell);
	return load < rollout->loads_count ? rollout->loads[load].source : CAD_PROCESSES_MAX;
}

void pl_rollout_asked(const struct pl_rollout *rollout, uint32_t asked[CAD_PROCESSES_MAX])
{
	memset(asked, 0, CAD_PROCESSES_MAX * sizeof *asked);
	for (size_t i = 0; i < rollout->loads_count; i++)
		if (rollout->loads[i].source < CAD_PROCESSES_MAX)
			asked[rollout->loads[i].source]++;
}

void pl_rollout_failed(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint64_t now_ns)
{
	pl_copy_become(rollout, slot, cell, PL_COPY_NONE);
	pl_copy_fail(rollout, slot, cell, now_ns);
}

void pl_rollout_freed(struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	pl_copy_become(rollout, slot, cell, PL_COPY_NONE);
}

void pl_rollout_expert_bytes(struct pl_rollout *rollout, uint32_t slot, uint64_t bytes)
{
	rollout->slots[slot].expert_bytes = bytes;
}

void pl_rollout_target(struct pl_rollout *rollout, const struct pl_plan *target, const uint32_t *slots)
{
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		for (uint32_t cell = 0; rollout->slots[s].copies && cell < rollout->cells; cell++)
			rollout->slots[s].copies[cell] &= (uint8_t)~PL_MARK_TARGET;

	uint32_t experts = rollout->options.shape.experts;
	for (uint32_t cell = 0; cell < rollout->cells; cell++)
		for (uint32_t n = 0; (n = pl_plan_next(target, cell / experts, cell % experts, n)) != UINT32_MAX; n++)
			rollout->slots[slots[n]].copies[cell] |= PL_MARK_TARGET;
}

void pl_rollout_work(const struct pl_rollout *rollout, struct pl_rollout_work *work)
{
	*work = (struct pl_rollout_work){ .stuck = rollout->stuck };
	for (size_t i = 0; i < rollout->loads_count; i++)
		work->loading_bytes += rollout->loads[i].bytes;
	work->loading = (uint32_t)rollout->loads_count;
	for (uint32_t s = 0; s < rollout->slots_end; s++) {
		const struct pl_rollout_slot *slot = &rollout->slots[s];
		for (uint32_t cell = 0; slot->copies && (cell = pl_copy_next(rollout, slot, cell)) < rollout->cells;
			cell++) {
			enum pl_copy state = pl_copy_state(slot, cell);
			bool wanted = slot->copies[cell] & PL_MARK_TARGET;
			work->pending += wanted && state != PL_COPY_LOADING && state != PL_COPY_READY;
			work->leaving += !wanted && state != PL_COPY_LOADING && state != PL_COPY_NONE;
		}
	}
}

void pl_rollout_rate(struct pl_rollout *rollout, uint64_t bytes_per_second)
{
	rollout->options.bytes_per_second = bytes_per_second;
	rollout->next_move_ns = 0;
}

uint64_t pl_rollout_rate_of(const struct pl_rollout *rollout, uint32_t cell)
{
	return rollout->ready[cell] > 0 ? rollout->options.bytes_per_second : 0;
}

uint32_t pl_rollout_in_flight(const struct pl_rollout *rollout) { return (uint32_t)rollout->loads_count; }

uint32_t pl_rollout_used(const struct pl_rollout *rollout, uint32_t slot)
{
	return rollout->slots[slot].copies ? rollout->slots[slot].used : 0;
}

bool pl_rollout_empty(const struct pl_rollout *rollout)
{
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		if (rollout->slots[s].copies && rollout->slots[s].used)
			return false;
	return true;
}

bool pl_rollout_publish_due(const struct pl_rollout *rollout, uint64_t now_ns)
{
	if (rollout->lost)
		return true;
	return rollout->changed &&
		(now_ns >= rollout->published_ns + rollout->options.publish_interval_ns ||
			pl_rollout_in_flight(rollout) == 0);
}

void pl_rollout_published(struct pl_rollout *rollout, uint64_t epoch, uint64_t now_ns)
{
	rollout->lost = rollout->changed = false;
	rollout->published_ns = now_ns;
	rollout->published_epoch = epoch;
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		if (rollout->slots[s].claims_epoch == PL_ROLLOUT_SOON)
			rollout->slots[s].claims_epoch = epoch;
	for (uint32_t cell = 0; cell < rollout->cells; cell++)
		if (rollout->gained[cell] == PL_ROLLOUT_SOON)
			rollout->gained[cell] = epoch;
	for (size_t i = 0; i < rollout->leaving_count; i++)
		if (rollout->leaving[i].epoch == 0) {
			rollout->leaving[i].epoch = epoch;
			rollout->leaving[i].since_ns = now_ns;
		}
}

enum pl_copy pl_rollout_copy(const struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	return rollout->slots[slot].copies ? pl_copy_state(&rollout->slots[slot], cell) : PL_COPY_NONE;
}

/* A copy on its way out counts as held when it is the last one that is of use: then it may come
 * back. */
static bool last_copy(const struct pl_rollout *rollout, uint32_t cell)
{
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		if (rollout->slots[s].copies && rollout->slots[s].usable &&
			pl_copy_state(&rollout->slots[s], cell) == PL_COPY_READY)
			return false;
	return true;
}

uint32_t pl_rollout_view(
	const struct pl_rollout *rollout, uint32_t slot, uint32_t n, const struct pl_rollout_view *view)
{
	const struct pl_rollout_slot *at = &rollout->slots[slot];
	uint32_t experts = rollout->options.shape.experts;

	for (uint32_t cell = 0; cell < rollout->cells; cell++) {
		enum pl_copy state = pl_copy_state(at, cell);
		bool failed = at->copies[cell] & PL_MARK_FAILED;
		bool out = state == PL_COPY_FREEING || (state == PL_COPY_LEAVING && !last_copy(rollout, cell));
		if (failed)
			pl_plan_put(view->failed, cell / experts, cell % experts, n);
		if (out)
			pl_plan_put(view->leaving, cell / experts, cell % experts, n);
		else if (!failed && state != PL_COPY_NONE)
			pl_plan_put(view->held, cell / experts, cell % experts, n);
	}

	return at->used;
}

uint64_t pl_rollout_bytes(const struct pl_rollout *rollout, uint32_t slot)
{
	uint64_t own = rollout->slots[slot].expert_bytes;
	return own ? own : rollout->options.expert_bytes;
}

bool pl_rollout_retry_due(struct pl_rollout *rollout, uint64_t now_ns)
{
	bool due = false;
	for (uint32_t s = 0; s < rollout->slots_end; s++) {
		struct pl_rollout_slot *slot = &rollout->slots[s];
		if (!slot->retry_ns || now_ns < slot->retry_ns)
			continue;
		slot->retry_ns = 0;
		for (uint32_t cell = 0; slot->copies && cell < rollout->cells; cell++)
			slot->copies[cell] = (uint8_t)(slot->copies[cell] & ~PL_MARK_FAILED);
		due = true;
	}
	return due;
}

void pl_rollout_unsaved(
	struct pl_rollout *rollout, uint32_t slot, void (*fn)(void *context, uint32_t cell, bool held), void *context)
{
	uint8_t *copies = rollout->slots[slot].copies;
	for (uint32_t cell = 0; copies && cell < rollout->cells; cell++) {
		bool ready = (copies[cell] & PL_COPY_MASK) == PL_COPY_READY, saved = copies[cell] & PL_MARK_SAVED;
		if (ready == saved)
			continue;
		copies[cell] = (uint8_t)(copies[cell] ^ PL_MARK_SAVED);
		fn(context, cell, ready);
	}
}
