/* SPDX-License-Identifier: Apache-2.0 */
/* Copies and their states: one byte per node and cell. */
#include "orchestration/placement/rollout.h"

#include <stdlib.h>
#include <string.h>

enum {
	COPY_MASK = 0x07,
	COPY_TARGET = 0x10, /* wanted here */
	COPY_FAILED = 0x20, /* a load failed here */
	COPY_SAVED = 0x40,  /* as READY, in the state file */
};

static const uint64_t SOON = UINT64_MAX;

struct slot {
	uint8_t *copies; /* [cells]; NULL: no such node */
	uint64_t memory_bytes;
	uint32_t used; /* copies that take memory: all but NONE */
	uint32_t loading;
	uint64_t retry_ns;  /* when FAILED is forgotten; 0: nothing failed */
	bool reachable;     /* by orders */
	bool whole, usable; /* by routers */
	/* of a map that does not show what it claims, published after it was gone; SOON: that is still to come */
	uint64_t claims_epoch;
};

/* A copy that left the map. */
struct leaving {
	uint32_t slot, cell;
	uint64_t epoch; /* of the first map without it; 0: not published yet */
	uint64_t since_ns;
};

struct pl_rollout {
	struct pl_rollout_options options;
	uint32_t cells, slots_end; /* slots_end: one past the highest slot in use */
	uint32_t moving;           /* loads in flight of experts that are READY on usable nodes */
	bool lost, changed;        /* since the last map: a READY copy vanished; anything else about READY copies */
	uint64_t published_ns, published_epoch;
	struct leaving *leaving;
	size_t leaving_count, leaving_capacity;
	/* [cells] scratch of a turn: copies that are READY on usable nodes; wanted; wanted, READY and on whole
	 * nodes; READY on whole nodes */
	uint32_t *ready, *wanted, *wanted_ready, *whole_ready;
	uint32_t *list; /* [cells] scratch: the cells of an order */
	/* [cells]: the epoch of the first map with the latest new copy; SOON: it is not published yet */
	uint64_t *gained;
	struct slot slots[CAD_PROCESSES_MAX];
};

enum cad_status pl_rollout_create(const struct pl_rollout_options *options, struct pl_rollout **rollout)
{
	struct pl_rollout *made = calloc(1, sizeof *made);
	if (!made)
		return CAD_ERR_MEMORY;

	made->options = *options;
	made->cells = pl_shape_cells(&options->shape);
	made->ready = calloc(5 * (size_t)made->cells + 1, sizeof *made->ready);
	made->gained = calloc((size_t)made->cells + 1, sizeof *made->gained);
	if (!made->ready || !made->gained) {
		pl_rollout_destroy(made);
		return CAD_ERR_MEMORY;
	}

	made->wanted = made->ready + made->cells;
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
	free(rollout->ready);
	free(rollout->gained);
	free(rollout);
}

static enum pl_copy state_of(const struct slot *slot, uint32_t cell)
{
	return (enum pl_copy)(slot->copies[cell] & COPY_MASK);
}

/* Every change of a state goes through here, so that the counts and the flags for the next map stay
 * true. */
static void become(struct pl_rollout *rollout, uint32_t at, uint32_t cell, enum pl_copy state)
{
	struct slot *slot = &rollout->slots[at];
	enum pl_copy before = state_of(slot, cell);

	if (before == state)
		return;

	slot->copies[cell] = (uint8_t)((slot->copies[cell] & ~COPY_MASK) | (int)state);
	slot->used = slot->used + (state != PL_COPY_NONE) - (before != PL_COPY_NONE);
	slot->loading = slot->loading + (state == PL_COPY_LOADING) - (before == PL_COPY_LOADING);
	rollout->changed = rollout->changed || state == PL_COPY_READY || before == PL_COPY_READY;
	if (state == PL_COPY_READY)
		rollout->gained[cell] = SOON;
	rollout->lost = rollout->lost || (before == PL_COPY_READY && state != PL_COPY_LEAVING);
}

enum cad_status pl_rollout_add(struct pl_rollout *rollout, uint32_t slot, uint64_t memory_bytes)
{
	CAD_ASSERT(slot < CAD_PROCESSES_MAX);
	struct slot *at = &rollout->slots[slot];
	if (!at->copies) {
		uint8_t *copies = calloc(rollout->cells + 1u, 1);
		if (!copies)
			return CAD_ERR_MEMORY;
		*at = (struct slot){ .copies = copies, .whole = true, .usable = true };
		if (slot >= rollout->slots_end)
			rollout->slots_end = slot + 1;
	}

	at->memory_bytes = memory_bytes;
	return CAD_OK;
}

void pl_rollout_restore(struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	become(rollout, slot, cell, PL_COPY_READY);
	rollout->slots[slot].copies[cell] |= COPY_SAVED;
}

static void forget_leaving(struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	for (size_t i = 0; i < rollout->leaving_count; i++)
		if (rollout->leaving[i].slot == slot && rollout->leaving[i].cell == cell) {
			rollout->leaving[i] = rollout->leaving[--rollout->leaving_count];
			return;
		}
}

void pl_rollout_join(struct pl_rollout *rollout, uint32_t slot, const uint8_t *held)
{
	rollout->slots[slot].reachable = true;
	rollout->slots[slot].claims_epoch = rollout->lost || rollout->changed ? SOON : rollout->published_epoch;
	for (uint32_t cell = 0; cell < rollout->cells; cell++) {
		enum pl_copy state = state_of(&rollout->slots[slot], cell);
		bool stays = held[cell] && (state == PL_COPY_READY || state == PL_COPY_LEAVING);
		if (stays)
			continue;
		if (state == PL_COPY_LEAVING)
			forget_leaving(rollout, slot, cell);
		become(rollout, slot, cell, held[cell] ? PL_COPY_CLAIMED : PL_COPY_NONE);
	}
}

void pl_rollout_unreachable(struct pl_rollout *rollout, uint32_t slot) { rollout->slots[slot].reachable = false; }

void pl_rollout_reach(struct pl_rollout *rollout, uint32_t slot, bool whole, bool usable)
{
	rollout->slots[slot].whole = whole;
	rollout->slots[slot].usable = usable;
}

void pl_rollout_drop(struct pl_rollout *rollout, uint32_t slot)
{
	struct slot *at = &rollout->slots[slot];
	if (!at->copies)
		return;

	for (uint32_t cell = 0; cell < rollout->cells; cell++) {
		if (state_of(at, cell) == PL_COPY_LEAVING)
			forget_leaving(rollout, slot, cell);
		become(rollout, slot, cell, PL_COPY_NONE);
	}

	free(at->copies);
	*at = (struct slot){ 0 };
	while (rollout->slots_end > 0 && !rollout->slots[rollout->slots_end - 1].copies)
		rollout->slots_end--;
}

void pl_rollout_loaded(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, bool good, uint64_t now_ns)
{
	enum pl_copy state = state_of(&rollout->slots[slot], cell);
	if (good) {
		if (state == PL_COPY_NONE || state == PL_COPY_CLAIMED || state == PL_COPY_LOADING)
			become(rollout, slot, cell, PL_COPY_READY);
		return;
	}
	pl_rollout_failed(rollout, slot, cell, now_ns);
	become(rollout, slot, cell, PL_COPY_CLAIMED); /* it is there, and not wanted: the next turn frees it */
}

void pl_rollout_failed(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint64_t now_ns)
{
	struct slot *at = &rollout->slots[slot];
	if (state_of(at, cell) == PL_COPY_LEAVING)
		forget_leaving(rollout, slot, cell);
	become(rollout, slot, cell, PL_COPY_NONE);
	at->copies[cell] = (uint8_t)((at->copies[cell] | COPY_FAILED) & ~COPY_TARGET);
	at->retry_ns = now_ns + rollout->options.retry_ns;
}

void pl_rollout_freed(struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	if (state_of(&rollout->slots[slot], cell) == PL_COPY_LEAVING)
		forget_leaving(rollout, slot, cell);
	become(rollout, slot, cell, PL_COPY_NONE);
}

bool pl_rollout_expert_bytes(struct pl_rollout *rollout, uint64_t bytes)
{
	if (bytes <= rollout->options.expert_bytes)
		return false;
	rollout->options.expert_bytes = bytes;
	return true;
}

void pl_rollout_target(struct pl_rollout *rollout, const struct pl_plan *target, const uint32_t *slots)
{
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		for (uint32_t cell = 0; rollout->slots[s].copies && cell < rollout->cells; cell++)
			rollout->slots[s].copies[cell] &= (uint8_t)~COPY_TARGET;

	uint32_t experts = rollout->options.shape.experts;
	for (uint32_t cell = 0; cell < rollout->cells; cell++)
		for (uint32_t n = 0; (n = pl_plan_next(target, cell / experts, cell % experts, n)) != UINT32_MAX; n++)
			rollout->slots[slots[n]].copies[cell] |= COPY_TARGET;
}

/* One sweep over all nodes: who has what, and how many loads are moves. */
static void take_stock(struct pl_rollout *rollout)
{
	memset(rollout->ready, 0, 4 * (size_t)rollout->cells * sizeof *rollout->ready);
	for (uint32_t s = 0; s < rollout->slots_end; s++) {
		const uint8_t *copies = rollout->slots[s].copies;
		for (uint32_t cell = 0; copies && cell < rollout->cells; cell++) {
			bool ready = (copies[cell] & COPY_MASK) == PL_COPY_READY, wanted = copies[cell] & COPY_TARGET;
			rollout->ready[cell] += ready && rollout->slots[s].usable;
			rollout->wanted[cell] += wanted;
			rollout->wanted_ready[cell] += ready && wanted && rollout->slots[s].whole;
			rollout->whole_ready[cell] += ready && rollout->slots[s].whole;
		}
	}

	rollout->moving = 0;
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		for (uint32_t cell = 0; rollout->slots[s].loading && cell < rollout->cells; cell++)
			rollout->moving +=
				state_of(&rollout->slots[s], cell) == PL_COPY_LOADING && rollout->ready[cell] > 0;
}

/* Out of the map, as of the next one. Without memory to remember it the copy stays where it is:
 * harmless, and tried again. */
static void leave(struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	if (rollout->leaving_count == rollout->leaving_capacity) {
		size_t capacity = rollout->leaving_capacity ? 2 * rollout->leaving_capacity : 64;
		struct leaving *grown = realloc(rollout->leaving, capacity * sizeof *grown);
		if (!grown)
			return;
		rollout->leaving = grown;
		rollout->leaving_capacity = capacity;
	}
	rollout->leaving[rollout->leaving_count++] = (struct leaving){ .slot = slot, .cell = cell };
	become(rollout, slot, cell, PL_COPY_LEAVING);
}

/* Copies that are wanted no more leave the map, and copies that are wanted again come back into it. */
static void settle_ready(struct pl_rollout *rollout, uint32_t s)
{
	struct slot *slot = &rollout->slots[s];
	for (uint32_t cell = 0; cell < rollout->cells; cell++) {
		bool wanted = slot->copies[cell] & COPY_TARGET;
		if (state_of(slot, cell) == PL_COPY_READY && !wanted && rollout->wanted[cell] > 0 &&
			rollout->wanted_ready[cell] == rollout->wanted[cell]) {
			leave(rollout, s, cell);
		} else if (state_of(slot, cell) == PL_COPY_LEAVING && wanted) {
			forget_leaving(rollout, s, cell);
			become(rollout, s, cell, PL_COPY_READY);
		}
	}
}

/* Routers work with a map without it, and reach another copy, which is in their map. */
static bool is_free_now(
	const struct pl_rollout *rollout, const struct leaving *leaving, uint64_t routers_epoch, uint64_t now_ns)
{
	return leaving->epoch > 0 && routers_epoch >= leaving->epoch && rollout->whole_ready[leaving->cell] > 0 &&
		rollout->gained[leaving->cell] != SOON && routers_epoch >= rollout->gained[leaving->cell] &&
		now_ns >= leaving->since_ns + rollout->options.free_grace_ns;
}

/* The cells of a node that shall be freed now, into the list: left long enough; or claimed and not
 * wanted, when routers reach the node: until then nobody has asked whether they are; and no router has a
 * map any more from before the node was lost. */
static uint32_t list_frees(struct pl_rollout *rollout, uint32_t s, uint64_t routers_epoch, uint64_t now_ns)
{
	uint32_t count = 0;
	for (size_t i = 0; i < rollout->leaving_count;) {
		const struct leaving *leaving = &rollout->leaving[i];
		if (leaving->slot == s && is_free_now(rollout, leaving, routers_epoch, now_ns)) {
			rollout->list[count++] = leaving->cell;
			rollout->leaving[i] = rollout->leaving[--rollout->leaving_count];
		} else {
			i++;
		}
	}

	bool settled = rollout->slots[s].usable && routers_epoch >= rollout->slots[s].claims_epoch;
	for (uint32_t cell = 0; settled && cell < rollout->cells; cell++)
		if (state_of(&rollout->slots[s], cell) == PL_COPY_CLAIMED &&
			!(rollout->slots[s].copies[cell] & COPY_TARGET))
			rollout->list[count++] = cell;
	for (uint32_t i = 0; i < count; i++)
		become(rollout, s, rollout->list[i], PL_COPY_FREEING);
	return count;
}

/* The cells of a node that shall be loaded now: as many as may be in flight and as there is room
 * for. Claimed ones are there already. */
static uint32_t list_loads(struct pl_rollout *rollout, uint32_t s)
{
	struct slot *slot = &rollout->slots[s];
	uint32_t count = 0;

	for (uint32_t cell = 0; cell < rollout->cells; cell++) {
		enum pl_copy state = state_of(slot, cell);
		if (!(slot->copies[cell] & COPY_TARGET) || (state != PL_COPY_NONE && state != PL_COPY_CLAIMED))
			continue;
		if (state == PL_COPY_NONE) {
			bool move = rollout->ready[cell] > 0;
			if (slot->loading >= rollout->options.loads_max ||
				(slot->used + 1) * rollout->options.expert_bytes > slot->memory_bytes ||
				(move && rollout->moving >= rollout->options.moves_max))
				continue;
			rollout->moving += move;
		}
		become(rollout, s, cell, PL_COPY_LOADING);
		rollout->list[count++] = cell;
	}

	return count;
}

void pl_rollout_turn(
	struct pl_rollout *rollout, uint64_t routers_epoch, uint64_t now_ns, const struct pl_rollout_orders *orders)
{
	take_stock(rollout);
	for (uint32_t s = 0; s < rollout->slots_end; s++) {
		struct slot *slot = &rollout->slots[s];
		if (!slot->copies)
			continue;
		settle_ready(rollout, s);
		if (!slot->reachable)
			continue;
		uint32_t count = list_frees(rollout, s, routers_epoch, now_ns);
		if (count)
			orders->free(orders->context, s, rollout->list, count);
		count = list_loads(rollout, s);
		if (count)
			orders->load(orders->context, s, rollout->list, count);
	}
}

void pl_rollout_work(const struct pl_rollout *rollout, struct pl_rollout_work *work)
{
	*work = (struct pl_rollout_work){ 0 };
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		for (uint32_t cell = 0; rollout->slots[s].copies && cell < rollout->cells; cell++) {
			enum pl_copy state = state_of(&rollout->slots[s], cell);
			bool wanted = rollout->slots[s].copies[cell] & COPY_TARGET;
			work->loading += state == PL_COPY_LOADING;
			work->pending += wanted && state != PL_COPY_LOADING && state != PL_COPY_READY;
			work->leaving += !wanted && state != PL_COPY_LOADING && state != PL_COPY_NONE;
		}
}

uint32_t pl_rollout_in_flight(const struct pl_rollout *rollout)
{
	uint32_t loading = 0;
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		loading += rollout->slots[s].loading;
	return loading;
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
		if (rollout->slots[s].claims_epoch == SOON)
			rollout->slots[s].claims_epoch = epoch;
	for (uint32_t cell = 0; cell < rollout->cells; cell++)
		if (rollout->gained[cell] == SOON)
			rollout->gained[cell] = epoch;
	for (size_t i = 0; i < rollout->leaving_count; i++)
		if (rollout->leaving[i].epoch == 0) {
			rollout->leaving[i].epoch = epoch;
			rollout->leaving[i].since_ns = now_ns;
		}
}

uint64_t pl_rollout_deadline_ns(const struct pl_rollout *rollout, uint64_t now_ns)
{
	uint64_t deadline = UINT64_MAX;
	if (rollout->lost || rollout->changed)
		deadline = pl_rollout_publish_due(rollout, now_ns)
			? now_ns
			: rollout->published_ns + rollout->options.publish_interval_ns;
	for (size_t i = 0; i < rollout->leaving_count; i++) {
		uint64_t due = rollout->leaving[i].since_ns + rollout->options.free_grace_ns;
		/* past: it waits for a router's report */
		if (rollout->leaving[i].epoch && due > now_ns && due < deadline)
			deadline = due;
	}

	for (uint32_t s = 0; s < rollout->slots_end; s++)
		if (rollout->slots[s].retry_ns && rollout->slots[s].retry_ns < deadline)
			deadline = rollout->slots[s].retry_ns;
	return deadline;
}

enum pl_copy pl_rollout_copy(const struct pl_rollout *rollout, uint32_t slot, uint32_t cell)
{
	return rollout->slots[slot].copies ? state_of(&rollout->slots[slot], cell) : PL_COPY_NONE;
}

/* A copy on its way out counts as held when it is the last one that is of use: then it may come back. */
static bool last_copy(const struct pl_rollout *rollout, uint32_t cell)
{
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		if (rollout->slots[s].copies && rollout->slots[s].usable &&
			state_of(&rollout->slots[s], cell) == PL_COPY_READY)
			return false;
	return true;
}

uint32_t pl_rollout_view(
	const struct pl_rollout *rollout, uint32_t slot, uint32_t n, const struct pl_rollout_view *view)
{
	const struct slot *at = &rollout->slots[slot];
	uint32_t experts = rollout->options.shape.experts;

	for (uint32_t cell = 0; cell < rollout->cells; cell++) {
		enum pl_copy state = state_of(at, cell);
		bool failed = at->copies[cell] & COPY_FAILED;
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

uint64_t pl_rollout_bytes(const struct pl_rollout *rollout) { return rollout->options.expert_bytes; }

bool pl_rollout_retry_due(struct pl_rollout *rollout, uint64_t now_ns)
{
	bool due = false;
	for (uint32_t s = 0; s < rollout->slots_end; s++) {
		struct slot *slot = &rollout->slots[s];
		if (!slot->retry_ns || now_ns < slot->retry_ns)
			continue;
		slot->retry_ns = 0;
		for (uint32_t cell = 0; slot->copies && cell < rollout->cells; cell++)
			slot->copies[cell] = (uint8_t)(slot->copies[cell] & ~COPY_FAILED);
		due = true;
	}
	return due;
}

void pl_rollout_unsaved(
	struct pl_rollout *rollout, uint32_t slot, void (*fn)(void *context, uint32_t cell, bool held), void *context)
{
	uint8_t *copies = rollout->slots[slot].copies;
	for (uint32_t cell = 0; copies && cell < rollout->cells; cell++) {
		bool ready = (copies[cell] & COPY_MASK) == PL_COPY_READY, saved = copies[cell] & COPY_SAVED;
		if (ready == saved)
			continue;
		copies[cell] = (uint8_t)(copies[cell] ^ COPY_SAVED);
		fn(context, cell, ready);
	}
}
