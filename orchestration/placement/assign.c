/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Phases, each over all layers: keep what is held, compute each node's share of each layer, fill,
 * and when asked to, even out.
 * Counts are in experts, not bytes: all experts of a model are of one size.
 */
#include "orchestration/placement/assign.h"

#include "common/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct work {
	const struct pl_assign_source *source;
	uint8_t *target;
	uint32_t nodes, layers, experts, cells, copies;
	uint32_t *room;     /* [nodes] experts that still fit */
	uint32_t *capacity; /* [nodes] experts that fit in all */
	uint32_t *held;     /* [layers][nodes] places given in a layer so far */
	uint32_t *share;    /* [layers][nodes] places that a node should have in a layer */
	uint32_t *total;    /* [nodes] scratch: shares given in the layers so far */
	uint32_t *order;    /* [experts] in which experts of a layer are handed out */
	uint32_t *placed;   /* [cells] copies given so far */
	uint32_t spare;     /* copies beyond the first, of all cells */
};

static uint8_t flags(const struct work *work, uint32_t node, uint32_t cell)
{
	const uint8_t *cells = work->source->nodes[node].cells;
	return cells ? cells[cell] : 0;
}

static uint32_t *at(uint32_t *table, const struct work *work, uint32_t layer, uint32_t node)
{
	return &table[(size_t)layer * work->nodes + node];
}

static void give(struct work *work, uint32_t node, uint32_t cell)
{
	work->target[(size_t)node * work->cells + cell] = 1;
	work->room[node]--;
	++*at(work->held, work, cell / work->experts, node);
	work->spare += work->placed[cell]++ > 0;
}

static void take(struct work *work, uint32_t node, uint32_t cell)
{
	work->target[(size_t)node * work->cells + cell] = 0;
	work->room[node]++;
	--*at(work->held, work, cell / work->experts, node);
	work->spare -= --work->placed[cell] > 0;
}

static bool may_take(const struct work *work, uint32_t node, uint32_t cell)
{
	return work->room[node] > 0 && !work->target[(size_t)node * work->cells + cell] &&
		!(flags(work, node, cell) & PL_ASSIGN_FORBIDDEN);
}

/* Of the nodes that hold the cell: the one with the fewest experts of the layer so far. */
static int best_holder(const struct work *work, uint32_t cell)
{
	int best = -1;
	for (uint32_t node = 0; node < work->nodes; node++)
		if ((flags(work, node, cell) & PL_ASSIGN_HELD) && may_take(work, node, cell) &&
			(best < 0 ||
				*at(work->held, work, cell / work->experts, node) <
					*at(work->held, work, cell / work->experts, (uint32_t)best)))
			best = (int)node;
	return best;
}

/* What is held stays, the first copy of everything before any second; of too many copies the ones
 * that load a layer evenly. */
static void keep(struct work *work)
{
	for (uint32_t copy = 0; copy < work->copies; copy++)
		for (uint32_t cell = 0; cell < work->cells; cell++) {
			int holder = work->placed[cell] == copy ? best_holder(work, cell) : -1;
			if (holder >= 0)
				give(work, (uint32_t)holder, cell);
		}
}

/* Which nodes are too small for an even part of everything: they give all that they have, and the
 * others share the rest. */
static void level(const struct work *work, uint64_t places, bool *small)
{
	memset(small, 0, work->nodes * sizeof *small);
	for (bool again = true; again;) {
		uint32_t others = 0;
		uint64_t left = places;
		for (uint32_t node = 0; node < work->nodes; node++) {
			others += !small[node];
			left -= small[node] ? work->capacity[node] < left ? work->capacity[node] : left : 0;
		}
		uint64_t part = others ? (left + others - 1) / others : 0;
		again = false;
		for (uint32_t node = 0; node < work->nodes; node++)
			if (!small[node] && work->capacity[node] < part)
				small[node] = again = true;
	}
}

/* The node that shall have one more of the layer than the others: one that has it already (sticky),
 * else the one with the smallest total. */
static int next_extra(const struct work *work, uint32_t layer, uint32_t base, const bool *small, bool sticky)
{
	int best = -1;
	bool best_has = false;

	for (uint32_t node = 0; node < work->nodes; node++) {
		if (small[node] || *at(work->share, work, layer, node) > base)
			continue;
		bool has = sticky && *at(work->held, work, layer, node) > base;
		if (best < 0 || (has && !best_has) || (has == best_has && work->total[node] < work->total[best])) {
			best = (int)node;
			best_has = has;
		}
	}

	return best;
}

/*
 * Each node's share of each layer. Small nodes spread what they can hold over the layers; the
 * others divide the rest evenly, and who gets one more goes by turns, so that totals stay within
 * one of each other, too. `sticky` leaves the odd ones where they are held, at the price of uneven
 * totals:
 * false when those are more than a node has room for.
 */
static bool divide(struct work *work, bool *small, bool sticky)
{
	uint64_t places = (uint64_t)work->cells * work->copies;
	uint32_t others = 0;

	level(work, places, small);
	memset(work->total, 0, work->nodes * sizeof *work->total);
	for (uint32_t node = 0; node < work->nodes; node++)
		others += !small[node];
	for (uint32_t layer = 0; layer < work->layers; layer++) {
		uint32_t left = work->experts * work->copies;
		for (uint32_t node = 0; node < work->nodes; node++) {
			if (!small[node])
				continue;
			uint32_t due = (uint32_t)((uint64_t)work->capacity[node] * (layer + 1) / work->layers) -
				work->total[node];
			uint32_t part = due < left ? due : left;
			part = part < work->experts ? part : work->experts;
			*at(work->share, work, layer, node) = part;
			work->total[node] += part;
			left -= part;
		}
		for (uint32_t node = 0; others && node < work->nodes; node++)
			if (!small[node]) {
				*at(work->share, work, layer, node) = left / others;
				work->total[node] += left / others;
			}
		for (uint32_t extra = others ? left % others : 0; extra > 0; extra--) {
			int node = next_extra(work, layer, left / others, small, sticky);
			++*at(work->share, work, layer, (uint32_t)node);
			work->total[node]++;
		}
	}

	bool fits = true;
	for (uint32_t node = 0; node < work->nodes; node++)
		fits = fits && work->total[node] <= work->capacity[node];
	return fits;
}

/* A node for the cell: the first, from `from` on, that lacks some of its share; else the one with
 * the fewest of the layer; else none (-1). */
static int pick(const struct work *work, uint32_t cell, uint32_t from)
{
	uint32_t layer = cell / work->experts;
	for (uint32_t i = 0; i < work->nodes; i++) {
		uint32_t node = (from + i) % work->nodes;
		if (may_take(work, node, cell) &&
			*at(work->held, work, layer, node) < *at(work->share, work, layer, node))
			return (int)node;
	}

	int best = -1;
	for (uint32_t node = 0; node < work->nodes; node++)
		if (may_take(work, node, cell) &&
			(best < 0 ||
				*at(work->held, work, layer, node) < *at(work->held, work, layer, (uint32_t)best) ||
				(*at(work->held, work, layer, node) == *at(work->held, work, layer, (uint32_t)best) &&
					work->room[node] > work->room[best])))
			best = (int)node;
	return best;
}

static void shuffle(uint32_t *order, uint32_t count, struct cad_random *random)
{
	for (uint32_t i = count; i > 1; i--) {
		uint32_t j = (uint32_t)cad_random_below(random, i), swapped = order[i - 1];
		order[i - 1] = order[j];
		order[j] = swapped;
	}
}

static void fill(struct work *work)
{
	struct cad_random random = { work->source->seed };
	for (uint32_t copy = 0; copy < work->copies; copy++)
		for (uint32_t layer = 0; layer < work->layers; layer++) {
			for (uint32_t i = 0; i < work->experts; i++)
				work->order[i] = i;
			if (work->source->seed)
				shuffle(work->order, work->experts, &random);
			uint32_t from = 0;
			for (uint32_t i = 0; i < work->experts; i++) {
				uint32_t cell = layer * work->experts + work->order[i];
				int node = work->placed[cell] <= copy ? pick(work, cell, from) : -1;
				if (node < 0)
					continue;
				give(work, (uint32_t)node, cell);
				from = (uint32_t)node;
			}
		}
}

/* Gives up second copies that are held where their room is needed for a first one. Copies only
 * vanish here, so no node is searched twice. */
static void make_room(struct work *work)
{
	uint32_t *searched = work->total;
	memset(searched, 0, work->nodes * sizeof *searched);
	for (uint32_t cell = 0; cell < work->cells && work->spare > 0; cell++)
		for (uint32_t node = 0; node < work->nodes && work->placed[cell] == 0; node++) {
			if (flags(work, node, cell) & PL_ASSIGN_FORBIDDEN)
				continue;
			const uint8_t *target = work->target + (size_t)node * work->cells;
			while (searched[node] < work->cells &&
				!(target[searched[node]] && work->placed[searched[node]] > 1))
				searched[node]++;
			if (searched[node] == work->cells)
				continue;
			take(work, node, searched[node]);
			give(work, node, cell);
		}
}

/* An expert of the layer that `from` has and `to` may take, the highest id first; UINT32_MAX: none. */
static uint32_t movable(const struct work *work, uint32_t layer, uint32_t from, uint32_t to)
{
	for (uint32_t expert = work->experts; expert-- > 0;) {
		uint32_t cell = layer * work->experts + expert;
		if (work->target[(size_t)from * work->cells + cell] && may_take(work, to, cell))
			return cell;
	}
	return UINT32_MAX;
}

/* Moves one expert of the layer from the node with the most to one that has at least two fewer and
 * may take it; small nodes only up to their share. */
static bool even_out(struct work *work, uint32_t layer, const bool *small)
{
	const uint32_t *held = at(work->held, work, layer, 0), *share = at(work->share, work, layer, 0);
	uint32_t most = 0;

	for (uint32_t node = 1; node < work->nodes; node++)
		most = held[node] > held[most] ? node : most;
	int best = -1;
	uint32_t best_cell = UINT32_MAX;
	for (uint32_t node = 0; node < work->nodes; node++) {
		if (work->room[node] == 0 || held[node] + 2 > held[most] ||
			(small[node] && held[node] >= share[node]) || (best >= 0 && held[node] >= held[best]))
			continue;
		uint32_t cell = movable(work, layer, most, node);
		if (cell == UINT32_MAX)
			continue;
		best = (int)node;
		best_cell = cell;
	}

	if (best < 0)
		return false;
	take(work, most, best_cell);
	give(work, (uint32_t)best, best_cell);

	return true;
}

/* Again and again over all layers, because a move makes room for others. Each one evens a layer
 * out, so there is an end. */
static void rebalance(struct work *work, const bool *small)
{
	for (bool moved = true; moved;) {
		moved = false;
		for (uint32_t layer = 0; layer < work->layers; layer++)
			while (even_out(work, layer, small))
				moved = true;
	}
}

static void summarise(const struct work *work, struct pl_assignment *assignment)
{
	const struct pl_assign_source *source = work->source;
	uint64_t room = 0;

	*assignment = (struct pl_assignment){ 0 };
	for (uint32_t cell = 0; cell < work->cells; cell++)
		assignment->unplaced += work->placed[cell] == 0;
	for (uint32_t node = 0; node < work->nodes; node++) {
		room += work->room[node];
		for (uint32_t cell = 0; cell < work->cells; cell++)
			assignment->loads += work->target[(size_t)node * work->cells + cell] &&
				!(flags(work, node, cell) & PL_ASSIGN_HELD);
	}

	if (assignment->unplaced == 0)
		return;
	assignment->missing_bytes =
		assignment->unplaced > room ? (assignment->unplaced - room) * source->expert_bytes : 0;
	double mib = 1.0 / (1 << 20);
	if (work->nodes == 0)
		snprintf(assignment->text, sizeof assignment->text,
			"%u experts of %.2f MiB each have no place: there is no expert node", assignment->unplaced,
			(double)source->expert_bytes * mib);
	else if (assignment->missing_bytes)
		snprintf(assignment->text, sizeof assignment->text,
			"%u of %u experts do not fit on %u expert nodes: %.1f MiB are missing (an expert takes %.2f MiB); add nodes, or give them more --memory",
			assignment->unplaced, work->cells, work->nodes, (double)assignment->missing_bytes * mib,
			(double)source->expert_bytes * mib);
	else
		snprintf(assignment->text, sizeof assignment->text,
			"%u of %u experts have no place: loading them has failed on every node with room",
			assignment->unplaced, work->cells);
}

enum cad_status pl_assign(const struct pl_assign_source *source, uint8_t *target, struct pl_assignment *assignment)
{
	struct work work = {
		.source = source,
		.target = target,
		.nodes = source->nodes_count,
		.layers = source->layers_count,
		.experts = source->experts,
		.cells = source->layers_count * source->experts,
	};

	work.copies = source->copies < work.nodes ? source->copies : work.nodes;
	memset(target, 0, (size_t)work.nodes * work.cells);
	size_t table = (size_t)work.layers * work.nodes;
	work.room = calloc(3 * (size_t)work.nodes + 2 * table + work.experts + work.cells + 1, sizeof *work.room);
	bool *small = calloc(work.nodes + 1, sizeof *small);
	enum cad_status status = work.room && small ? CAD_OK : CAD_ERR_MEMORY;
	if (status == CAD_OK) {
		work.capacity = work.room + work.nodes;
		work.total = work.capacity + work.nodes;
		work.held = work.total + work.nodes;
		work.share = work.held + table;
		work.order = work.share + table;
		work.placed = work.order + work.experts;
		for (uint32_t node = 0; node < work.nodes; node++) {
			uint64_t fits = source->expert_bytes ? source->nodes[node].memory_bytes / source->expert_bytes
							     : work.cells;
			work.room[node] = work.capacity[node] = (uint32_t)(fits < work.cells ? fits : work.cells);
		}
		keep(&work);
		if (!divide(&work, small, true))
			(void)divide(&work, small, false);
		fill(&work);
		make_room(&work);
		if (source->rebalance)
			rebalance(&work, small);
		summarise(&work, assignment);
	}

	free(small);
	free(work.room);
	return status;
}
