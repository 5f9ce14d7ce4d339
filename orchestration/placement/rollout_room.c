/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done when moves wait for room and nothing goes on that would make some, as when full
 * nodes are to exchange experts. Every expert has to be served throughout, so a copy goes only when
 * another is ready. In this order, one step at a time:
 *
 *     1. a copy that is not wanted, on a node that something waits for, goes early if there is
 *        another 2. such a copy that is the only one makes a detour over a node with a free
 *        place: then 1 follows 3. a wanted copy of which there is another goes, and comes back
 *        when the moves are done
 *
 * With one free place, or one expert with two copies, every plan that fits can be reached: moves
 * leave as many places free as they find, and further copies do not take the last one.
 */
#include "orchestration/placement/rollout_internal.h"

/* Is there another copy that all routers reach? */
static bool is_served_elsewhere(const struct pl_rollout *rollout, uint32_t s, uint32_t cell)
{
	return rollout->whole_ready[cell] > (rollout->slots[s].whole ? 1u : 0u);
}

static bool has_ready(const struct pl_rollout_slot *slot, uint32_t cell, bool wanted)
{
	return pl_copy_state(slot, cell) == PL_COPY_READY && ((slot->copies[cell] & PL_MARK_TARGET) != 0) == wanted;
}

static bool leaves_early(struct pl_rollout *rollout, uint32_t s)
{
	for (uint32_t cell = 0; cell < rollout->cells; cell++)
		if (has_ready(&rollout->slots[s], cell, false) && is_served_elsewhere(rollout, s, cell)) {
			pl_copy_leave(rollout, s, cell);
			return true;
		}
	return false;
}

/* The node with the most room that may take the expert for a while; slots_end: none. */
static uint32_t find_detour(const struct pl_rollout *rollout, uint32_t cell)
{
	uint32_t best = rollout->slots_end;
	uint64_t most = 0;

	for (uint32_t s = 0; s < rollout->slots_end; s++) {
		const struct pl_rollout_slot *slot = &rollout->slots[s];
		if (!slot->copies || !slot->reachable || !slot->usable || slot->closed ||
			pl_copy_state(slot, cell) != PL_COPY_NONE || (slot->copies[cell] & PL_MARK_FAILED))
			continue;
		uint64_t places = pl_slot_places_free(rollout, slot);
		best = places > most ? s : best;
		most = places > most ? places : most;
	}
	return best;
}

static bool makes_detour(
	struct pl_rollout *rollout, uint32_t s, uint64_t now_ns, const struct pl_rollout_orders *orders)
{
	for (uint32_t cell = 0; cell < rollout->cells; cell++) {
		uint32_t over =
			has_ready(&rollout->slots[s], cell, false) ? find_detour(rollout, cell) : rollout->slots_end;
		if (over == rollout->slots_end || !pl_copy_load(rollout, over, cell, now_ns))
			continue;
		pl_move_begins(rollout, now_ns);
		orders->load(orders->context, over, &cell, 1);
		return true;
	}
	return false;
}

static bool is_lent(struct pl_rollout *rollout, uint32_t s)
{
	for (uint32_t cell = 0; cell < rollout->cells; cell++)
		if (has_ready(&rollout->slots[s], cell, true) && is_served_elsewhere(rollout, s, cell)) {
			pl_copy_leave(rollout, s, cell);
			rollout->slots[s].copies[cell] |= PL_MARK_LENT;
			return true;
		}
	return false;
}

bool pl_rollout_make_room(struct pl_rollout *rollout, uint64_t now_ns, const struct pl_rollout_orders *orders)
{
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		if (rollout->slots[s].cramped && leaves_early(rollout, s))
			return true;
	for (uint32_t s = 0; s < rollout->slots_end; s++)
		if (rollout->slots[s].cramped && makes_detour(rollout, s, now_ns, orders))
			return true;
	for (int other = 0; other <= 1; other++) /* where something waits, or else anywhere */
		for (uint32_t s = 0; s < rollout->slots_end; s++) {
			const struct pl_rollout_slot *slot = &rollout->slots[s];
			if (slot->copies && slot->usable && slot->cramped == (other == 0) && is_lent(rollout, s))
				return true;
		}
	return false;
}
