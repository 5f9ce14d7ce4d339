/* SPDX-License-Identifier: Apache-2.0 */
/* The turn: what leaves the map, what is freed, what is loaded, and what has taken too long. */
#include "orchestration/placement/rollout_internal.h"

#include "common/base/clock.h"

#include <string.h>

/* ---- stock ---- */

static void take_stock_of(struct pl_rollout *rollout, uint32_t s)
{
	struct pl_rollout_slot *slot = &rollout->slots[s];
	slot->pending = slot->claimed = slot->unwanted = 0;
	for (uint32_t cell = 0; (cell = pl_copy_next(rollout, slot, cell)) < rollout->cells; cell++) {
		enum pl_copy state = pl_copy_state(slot, cell);
		bool ready = state == PL_COPY_READY, wanted = slot->copies[cell] & PL_MARK_TARGET;
		rollout->ready[cell] += ready && slot->usable;
		rollout->surplus[cell] += ready && !wanted;
		rollout->wanted[cell] += wanted;
		rollout->wanted_ready[cell] += ready && wanted && slot->whole;
		rollout->whole_ready[cell] += ready && slot->whole;
		rollout->unsettled += !ready && state != PL_COPY_NONE;
		slot->pending += wanted && state == PL_COPY_NONE;
		slot->claimed += state == PL_COPY_CLAIMED;
		slot->unwanted += (ready && !wanted) || state == PL_COPY_LEAVING;
	}
	slot->cramped = false;
	if (slot->usable && slot->reachable && !slot->closed)
		rollout->places_free += pl_slot_places_free(rollout, slot);
}

static bool is_pending(const struct pl_rollout_slot *slot, uint32_t cell)
{
	return (slot->copies[cell] & PL_MARK_TARGET) && pl_copy_state(slot, cell) == PL_COPY_NONE;
}

/* One sweep over all nodes: who has what, and how many loads are moves. */
static void take_stock(struct pl_rollout *rollout)
{
	memset(rollout->ready, 0, 5 * (size_t)rollout->cells * sizeof *rollout->ready);
	rollout->places_free = rollout->unsettled = 0;
	rollout->moving = rollout->moves_pending = rollout->acted = 0;
	rollout->waiting = rollout->stuck = false;

	for (uint32_t s = 0; s < rollout->slots_end; s++)
		if (rollout->slots[s].copies)
			take_stock_of(rollout, s);
	for (size_t i = 0; i < rollout->loads_count; i++)
		rollout->moving += rollout->ready[rollout->loads[i].cell] > 0;
	for (uint32_t s = 0; s < rollout->slots_end; s++) {
		const struct pl_rollout_slot *slot = &rollout->slots[s];
		if (!slot->copies || slot->pending == 0)
			continue;
		for (uint32_t cell = 0; (cell = pl_copy_next(rollout, slot, cell)) < rollout->cells; cell++)
			rollout->moves_pending +=
				is_pending(slot, cell) && rollout->ready[cell] > 0 && rollout->surplus[cell] > 0;
	}
}

/* ---- out ---- */

/* Copies that are wanted no more leave the map, and copies that are wanted again come back into it;
 * so do those without which nobody is left that all routers reach. */
static void settle_ready(struct pl_rollout *rollout, uint32_t s)
{
	struct pl_rollout_slot *slot = &rollout->slots[s];
	if (slot->unwanted == 0)
		return;
	for (uint32_t cell = 0; (cell = pl_copy_next(rollout, slot, cell)) < rollout->cells; cell++) {
		bool wanted = slot->copies[cell] & PL_MARK_TARGET;
		bool needed = rollout->whole_ready[cell] == 0, lent = slot->copies[cell] & PL_MARK_LENT;
		if (pl_copy_state(slot, cell) == PL_COPY_READY && !wanted && rollout->wanted[cell] > 0 &&
			rollout->wanted_ready[cell] == rollout->wanted[cell]) {
			pl_copy_leave(rollout, s, cell);
			rollout->acted++;
		} else if (pl_copy_state(slot, cell) == PL_COPY_LEAVING && (needed || (wanted && !lent))) {
			pl_copy_become(rollout, s, cell, PL_COPY_READY);
			rollout->acted++;
		}
	}
}

/* Routers work with a map without it, and reach another copy, which is in their map. */
static bool is_free_now(const struct pl_rollout *rollout, const struct pl_rollout_leaving *leaving,
	uint64_t routers_epoch, uint64_t now_ns)
{
	return leaving->epoch > 0 && routers_epoch >= leaving->epoch && rollout->whole_ready[leaving->cell] > 0 &&
		rollout->gained[leaving->cell] != PL_ROLLOUT_SOON && routers_epoch >= rollout->gained[leaving->cell] &&
		now_ns >= leaving->since_ns + rollout->options.free_grace_ns;
}

/* What a node claims is asked for when it is wanted there; or for as long as nobody else has
 * what is wanted elsewhere. */
static bool is_of_use(const struct pl_rollout *rollout, const struct pl_rollout_slot *slot, uint32_t cell)
{
	return (slot->copies[cell] & PL_MARK_TARGET) ||
		(rollout->ready[cell] == 0 && rollout->wanted[cell] > 0 && !(slot->copies[cell] & PL_MARK_FAILED));
}

/* The cells of a node that shall be freed now, into the list: left long enough; or claimed and of
 * no use, when routers reach the node: until then nobody has asked whether they are wanted; and no
 * router has a map any more from before the node was lost. */
static uint32_t list_frees(struct pl_rollout *rollout, uint32_t s, uint64_t routers_epoch, uint64_t now_ns)
{
	uint32_t count = 0;
	for (size_t i = 0; i < rollout->leaving_count;) {
		const struct pl_rollout_leaving *leaving = &rollout->leaving[i];
		if (leaving->slot == s && is_free_now(rollout, leaving, routers_epoch, now_ns)) {
			rollout->list[count++] = leaving->cell;
			pl_copy_become(rollout, s, leaving->cell, PL_COPY_FREEING); /* takes it off the list */
		} else {
			i++;
		}
	}

	bool settled = rollout->slots[s].usable && routers_epoch >= rollout->slots[s].claims_epoch;
	for (uint32_t cell = 0; settled && rollout->slots[s].claimed && cell < rollout->cells; cell++)
		if (pl_copy_state(&rollout->slots[s], cell) == PL_COPY_CLAIMED &&
			!is_of_use(rollout, &rollout->slots[s], cell))
			rollout->list[count++] = cell;
	for (uint32_t i = 0; i < count; i++)
		pl_copy_become(rollout, s, rollout->list[i], PL_COPY_FREEING);
	return count;
}

/* ---- in ---- */

/*
 * Whether a load may begin. What nobody serves is needed at once. A move takes its turn, at the
 * rate. A further copy of what stays where it is does so too, but not in the last free place of all
 * while moves are to come: with one place they can all be made, by turns (rollout_room.c).
 */
static bool may_begin(struct pl_rollout *rollout, struct pl_rollout_slot *slot, uint32_t cell, uint64_t now_ns)
{
	bool move = rollout->ready[cell] > 0, further = move && rollout->surplus[cell] == 0;

	if (further && rollout->moves_pending > 0 && rollout->places_free <= 1)
		return false;
	if (pl_slot_places_free(rollout, slot) == 0) {
		slot->cramped = true;
		return false;
	}
	if (slot->loading < rollout->options.loads_max && (!move || pl_move_may_begin(rollout, now_ns)))
		return true;
	rollout->waiting = true;
	return false;
}

void pl_move_begins(struct pl_rollout *rollout, uint64_t now_ns)
{
	uint64_t rate = rollout->options.bytes_per_second, from_ns = rollout->next_move_ns;
	rollout->moving++;
	if (rate == 0)
		return;
	double needs_ns = (double)rollout->options.image_bytes / (double)rate * (double)CAD_NS_PER_S;
	rollout->next_move_ns = (from_ns > now_ns ? from_ns : now_ns) + (uint64_t)needs_ns;
}

/* The cells of a node that shall be loaded now, into the list. Claimed ones are there already. */
static uint32_t list_loads(struct pl_rollout *rollout, uint32_t s, uint64_t now_ns)
{
	struct pl_rollout_slot *slot = &rollout->slots[s];
	uint32_t count = 0;

	if (slot->pending + slot->claimed == 0)
		return 0;
	for (uint32_t cell = 0; (cell = pl_copy_next(rollout, slot, cell)) < rollout->cells; cell++) {
		bool claimed = pl_copy_state(slot, cell) == PL_COPY_CLAIMED && is_of_use(rollout, slot, cell);
		if (!claimed && !is_pending(slot, cell))
			continue;
		bool move = !claimed && rollout->ready[cell] > 0;
		if ((!claimed && !may_begin(rollout, slot, cell, now_ns)) || !pl_copy_load(rollout, s, cell, now_ns))
			continue;
		if (move)
			pl_move_begins(rollout, now_ns);
		rollout->places_free -= !claimed && slot->usable;
		rollout->list[count++] = cell;
	}

	return count;
}

/* Moves whose experts nobody serves any more do not keep to the rate, nor to a source that is gone:
 * they are ordered again, which replaces the order before. */
static void hurry(struct pl_rollout *rollout, const struct pl_rollout_orders *orders)
{
	for (size_t i = 0; i < rollout->loads_count; i++) {
		struct pl_rollout_loading *load = &rollout->loads[i];
		if (!load->move || rollout->ready[load->cell] > 0 || !rollout->slots[load->slot].reachable)
			continue;
		load->move = false;
		orders->load(orders->context, load->slot, &load->cell, 1);
		rollout->acted++;
	}
}

/* Loads that do not come on are given up, and tried again elsewhere, or here after a while. */
static void back_out(struct pl_rollout *rollout, uint64_t now_ns, const struct pl_rollout_orders *orders)
{
	for (size_t i = 0; i < rollout->loads_count;) {
		struct pl_rollout_loading load = rollout->loads[i];
		bool late =
			!load.claim && rollout->options.stall_ns && now_ns >= load.moved_ns + rollout->options.stall_ns;
		if (!late || !rollout->slots[load.slot].reachable) {
			i++;
			continue;
		}
		pl_copy_become(rollout, load.slot, load.cell, PL_COPY_FREEING); /* takes it off the list */
		pl_copy_fail(rollout, load.slot, load.cell, now_ns);
		orders->free(orders->context, load.slot, &load.cell, 1);
		orders->stalled(orders->context, load.slot, load.cell);
		rollout->acted++;
	}
}

/* ---- the turn ---- */

void pl_rollout_turn(
	struct pl_rollout *rollout, uint64_t routers_epoch, uint64_t now_ns, const struct pl_rollout_orders *orders)
{
	take_stock(rollout);
	back_out(rollout, now_ns, orders);
	hurry(rollout, orders);
	for (uint32_t s = 0; s < rollout->slots_end; s++) {
		struct pl_rollout_slot *slot = &rollout->slots[s];
		if (!slot->copies)
			continue;
		settle_ready(rollout, s);
		if (!slot->reachable)
			continue;
		uint32_t frees = list_frees(rollout, s, routers_epoch, now_ns);
		if (frees)
			orders->free(orders->context, s, rollout->list, frees);
		uint32_t loads = list_loads(rollout, s, now_ns);
		if (loads)
			orders->load(orders->context, s, rollout->list, loads);
		rollout->acted += frees + loads;
	}

	bool cramped = false;
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		cramped = cramped || rollout->slots[s].cramped;
	if (cramped && rollout->acted + rollout->unsettled == 0 && !rollout->waiting && !rollout->changed &&
		!rollout->lost) {
		rollout->stuck = !pl_rollout_make_room(rollout, now_ns, orders);
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

	for (size_t i = 0; i < rollout->loads_count && rollout->options.stall_ns; i++) {
		uint64_t due = rollout->loads[i].moved_ns + rollout->options.stall_ns;
		if (!rollout->loads[i].claim && due > now_ns && due < deadline)
			deadline = due;
	}
	if (rollout->next_move_ns > now_ns && rollout->next_move_ns < deadline)
		deadline = rollout->next_move_ns;

	for (uint32_t s = 0; s < rollout->slots_end; s++)
		if (rollout->slots[s].retry_ns && rollout->slots[s].retry_ns < deadline)
			deadline = rollout->slots[s].retry_ns;
	return deadline;
}
