/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Phases, each over all layers: pins, the plan in force, what is held; then compute each node's
 * share of each layer, fill, and when asked to, even out. Counts are in experts, not bytes: all
 * experts of a model are of one size.
 */
#include "orchestration/placement/assign.h"

#include "common/base/clock.h"
#include "common/base/plural.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct work {
	const struct pl_assign_source *source;
	struct pl_plan *target;
	const struct pl_plan *pinned;
	uint32_t nodes, open; /* open: nodes that are not forbidden */
	uint32_t layers, experts, cells, copies_max;
	uint32_t *room;     /* [nodes] experts that still fit */
	uint32_t *capacity; /* [nodes] experts that fit in all */
	uint32_t *held;     /* [layers][nodes] places given in a layer so far */
	uint32_t *share;    /* [layers][nodes] places that a node should have in a layer */
	uint32_t *total;    /* [nodes] scratch: shares given in the layers so far */
	uint32_t *order;    /* [experts] in which experts of a layer are handed out */
	uint32_t *placed;   /* [cells] copies given so far */
	uint32_t *want;     /* [cells] copies wanted */
	bool settled;       /* pins and plan have what they want: what leaves does not come back */
	uint32_t spare;     /* copies beyond the first, of all cells */
	uint32_t levelled;  /* moves for even layers */
};

static double speed(const struct work *work, uint32_t node) { return work->source->cluster->nodes[node].speed; }

static bool has(const struct work *work, const struct pl_plan *plan, uint32_t node, uint32_t cell)
{
	return pl_plan_holds(plan, cell / work->experts, cell % work->experts, node);
}

static uint32_t *at(uint32_t *table, const struct work *work, uint32_t layer, uint32_t node)
{
	return &table[(size_t)layer * work->nodes + node];
}

/* What a node has to do in a layer, with so many experts more than it has been given. */
static double load(const struct work *work, uint32_t layer, uint32_t node, uint32_t more)
{
	return (*at(work->held, work, layer, node) + more) / speed(work, node);
}

static void give(struct work *work, uint32_t node, uint32_t cell)
{
	pl_plan_put(work->target, cell / work->experts, cell % work->experts, node);
	work->room[node]--;
	++*at(work->held, work, cell / work->experts, node);
	work->spare += work->placed[cell]++ > 0;
}

static void take(struct work *work, uint32_t node, uint32_t cell)
{
	pl_plan_take(work->target, cell / work->experts, cell % work->experts, node);
	work->room[node]++;
	--*at(work->held, work, cell / work->experts, node);
	work->spare -= --work->placed[cell] > 0;
}

static bool may_take(const struct work *work, uint32_t node, uint32_t cell)
{
	return work->room[node] > 0 && !has(work, work->target, node, cell) &&
		!has(work, work->source->failed, node, cell) &&
		!(work->settled && has(work, work->source->leaving, node, cell));
}

/* Of the nodes that have the cell in a plan: the one that has least to do in the layer with it. */
static int best_of(const struct work *work, const struct pl_plan *plan, uint32_t cell)
{
	uint32_t layer = cell / work->experts, expert = cell % work->experts;
	int best = -1;
	for (uint32_t node = 0; (node = pl_plan_next(plan, layer, expert, node)) != UINT32_MAX; node++)
		if (may_take(work, node, cell) &&
			(best < 0 || load(work, layer, node, 1) < load(work, layer, (uint32_t)best, 1)))
			best = (int)node;
	return best;
}

/* What a plan says is kept, at most so many copies of each; the first copy of everything before any
 * second; of too many copies the ones that load a layer evenly. */
static void keep(struct work *work, const struct pl_plan *plan, const uint32_t *limit)
{
	for (uint32_t copy = 0; copy < work->nodes; copy++) {
		bool more = false;
		for (uint32_t cell = 0; cell < work->cells; cell++) {
			bool due = work->placed[cell] <= copy && (!limit || work->placed[cell] < limit[cell]);
			int node = due ? best_of(work, plan, cell) : -1;
			if (node >= 0)
				give(work, (uint32_t)node, cell);
			more = more || work->placed[cell] > copy;
		}
		if (!more)
			return;
	}
}

/* The part of `left` places that is fair: by speed, `speeds` being that of all who share them. */
static double fair(const struct work *work, uint32_t node, uint64_t left, double speeds)
{
	return (double)left * speed(work, node) / speeds;
}

/* Which nodes are too small for a fair part of everything: they give all that they have, and the
 * others share the rest. Returns the speed of those together. */
static double level(const struct work *work, uint64_t places, bool *small)
{
	double speeds = 0;
	memset(small, 0, work->nodes * sizeof *small);
	for (bool again = true; again;) {
		uint64_t left = places;
		speeds = 0;
		for (uint32_t node = 0; node < work->nodes; node++) {
			speeds += small[node] ? 0 : speed(work, node);
			left -= small[node] ? work->capacity[node] < left ? work->capacity[node] : left : 0;
		}
		again = false;
		for (uint32_t node = 0; node < work->nodes; node++)
			if (!small[node] && work->capacity[node] < fair(work, node, left, speeds))
				small[node] = again = true;
	}
	return speeds;
}

/* What the nodes that are not small share in a layer. */
struct rest {
	uint64_t places;
	double speeds; /* the sum of theirs */
	const bool *small;
};

/* The node that shall have one more of the layer than its fair part in whole experts: one that has
 * it already (sticky), else the one with the smallest total for its speed. */
static uint32_t next_extra(const struct work *work, uint32_t layer, const struct rest *rest, bool sticky)
{
	int best = -1;
	bool best_has = false;
	double best_total = 0;

	for (uint32_t node = 0; node < work->nodes; node++) {
		uint32_t base = rest->small[node] ? 0 : (uint32_t)fair(work, node, rest->places, rest->speeds);
		if (rest->small[node] || *at(work->share, work, layer, node) > base)
			continue;
		bool has = sticky && *at(work->held, work, layer, node) > base;
		double total = work->total[node] / speed(work, node);
		if (best < 0 || (has && !best_has) || (has == best_has && total < best_total)) {
			best = (int)node;
			best_has = has;
			best_total = total;
		}
	}

	CAD_ASSERT(best >= 0);
	return (uint32_t)best;
}

/* Each gets its fair part, and what whole experts leave over goes round. */
static void share_rest(struct work *work, uint32_t layer, const struct rest *rest, bool sticky)
{
	uint64_t left = rest->places;

	for (uint32_t node = 0; node < work->nodes; node++) {
		if (rest->small[node])
			continue;
		uint32_t part = (uint32_t)fair(work, node, rest->places, rest->speeds);
		*at(work->share, work, layer, node) = part;
		work->total[node] += part;
		left -= part;
	}
	for (; left > 0 && rest->speeds > 0; left--) {
		uint32_t node = next_extra(work, layer, rest, sticky);
		++*at(work->share, work, layer, node);
		work->total[node]++;
	}
}

/*
 * Each node's share of each layer. Small nodes spread what they can hold over the layers; the
 * others divide the rest by speed, and who gets one more goes by turns, so that totals of nodes of
 * one speed stay within one of each other, too. `sticky` leaves the odd ones where they are held, at
 * the price of uneven totals. False when those are more than a node has room for.
 */
static bool divide(struct work *work, bool *small, bool sticky)
{
	uint64_t places = 0;

	for (uint32_t cell = 0; cell < work->cells; cell++)
		places += work->want[cell];
	double speeds = level(work, places, small);
	memset(work->total, 0, work->nodes * sizeof *work->total);
	for (uint32_t layer = 0; layer < work->layers; layer++) {
		uint32_t left = 0;
		for (uint32_t expert = 0; expert < work->experts; expert++)
			left += work->want[layer * work->experts + expert];
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
		share_rest(work, layer, &(struct rest){ left, speeds, small }, sticky);
	}

	bool fits = true;
	for (uint32_t node = 0; node < work->nodes; node++)
		fits = fits && work->total[node] <= work->capacity[node];
	return fits;
}

/* A node for the cell: the first, from `from` on, that lacks some of its share; else the one that
 * has least to do in the layer with it; else none (-1). */
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
	double least = 0;
	for (uint32_t node = 0; node < work->nodes; node++) {
		double with = load(work, layer, node, 1);
		if (!may_take(work, node, cell))
			continue;
		if (best < 0 || with < least || (with == least && work->room[node] > work->room[best])) {
			best = (int)node;
			least = with;
		}
	}
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
	for (uint32_t copy = 0; copy < work->copies_max; copy++)
		for (uint32_t layer = 0; layer < work->layers; layer++) {
			for (uint32_t i = 0; i < work->experts; i++)
				work->order[i] = i;
			if (work->source->seed)
				shuffle(work->order, work->experts, &random);
			uint32_t from = 0;
			for (uint32_t i = 0; i < work->experts; i++) {
				uint32_t cell = layer * work->experts + work->order[i];
				bool due = work->placed[cell] <= copy && copy < work->want[cell];
				int node = due ? pick(work, cell, from) : -1;
				if (node < 0)
					continue;
				give(work, (uint32_t)node, cell);
				from = (uint32_t)node;
			}
		}
}

/* A second copy on the node that may be given up, from this cell on; work->cells: none. */
static uint32_t find_spare(const struct work *work, uint32_t node, uint32_t cell)
{
	while (cell < work->cells &&
		!(work->placed[cell] > 1 && has(work, work->target, node, cell) &&
			!has(work, work->pinned, node, cell)))
		cell++;
	return cell;
}

/* Gives up second copies where their room is needed for a first one. Copies only vanish here, so no
 * node is searched twice. */
static void make_room(struct work *work)
{
	uint32_t *searched = work->total;
	memset(searched, 0, work->nodes * sizeof *searched);
	for (uint32_t cell = 0; cell < work->cells && work->spare > 0; cell++)
		for (uint32_t node = 0; node < work->nodes && work->placed[cell] == 0; node++) {
			if (has(work, work->source->failed, node, cell) || has(work, work->source->leaving, node, cell))
				continue;
			searched[node] = find_spare(work, node, searched[node]);
			if (searched[node] == work->cells)
				continue;
			take(work, node, searched[node]);
			give(work, node, cell);
		}
}

/* An expert of the layer that `from` has and `to` may take, the highest id first; UINT32_MAX: none.
 * What stands in for a lost node's place in the plan stays where it is. */
static uint32_t movable(const struct work *work, uint32_t layer, uint32_t from, uint32_t to)
{
	for (uint32_t expert = work->experts; expert-- > 0;) {
		uint32_t cell = layer * work->experts + expert;
		if (has(work, work->target, from, cell) && !has(work, work->pinned, from, cell) &&
			may_take(work, to, cell) &&
			(!work->source->wanted || has(work, work->source->wanted, from, cell)))
			return cell;
	}
	return UINT32_MAX;
}

static void move(struct work *work, uint32_t from, uint32_t to, uint32_t cell)
{
	struct pl_plan *wanted = work->source->wanted;
	work->levelled++;
	take(work, from, cell);
	give(work, to, cell);
	if (wanted) {
		pl_plan_take(wanted, cell / work->experts, cell % work->experts, from);
		pl_plan_put(wanted, cell / work->experts, cell % work->experts, to);
	}
}

/* Moves one expert of the layer from the node that has most to do to one that may take it and has
 * less to do with it; small nodes only up to their share. */
static bool even_out(struct work *work, uint32_t layer, const bool *small)
{
	const uint32_t *held = at(work->held, work, layer, 0), *share = at(work->share, work, layer, 0);
	uint32_t most = 0;

	for (uint32_t node = 1; node < work->nodes; node++)
		most = load(work, layer, node, 0) > load(work, layer, most, 0) ? node : most;
	int best = -1;
	uint32_t best_cell = UINT32_MAX;
	double least = load(work, layer, most, 0);
	for (uint32_t node = 0; node < work->nodes; node++) {
		if (work->room[node] == 0 || load(work, layer, node, 1) >= least ||
			(work->source->wanted && !work->source->fresh[node]) ||
			(small[node] && held[node] >= share[node]))
			continue;
		uint32_t cell = movable(work, layer, most, node);
		if (cell == UINT32_MAX)
			continue;
		best = (int)node;
		best_cell = cell;
		least = load(work, layer, node, 1);
	}

	if (best < 0)
		return false;
	move(work, most, (uint32_t)best, best_cell);
	return true;
}

/* Again and again over all layers, because a move makes room for others. Each one evens a layer
 * out, so there is an end. */
static void even_all_out(struct work *work, const bool *small)
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
	uint64_t room = 0, bytes = work->source->cluster->expert_bytes;

	*assignment = (struct pl_assignment){ .levelled = work->levelled };
	for (uint32_t cell = 0; cell < work->cells; cell++) {
		uint32_t placed = work->placed[cell], layer = cell / work->experts, expert = cell % work->experts;
		assignment->unplaced += placed == 0;
		assignment->lacking += placed < work->want[cell] ? work->want[cell] - placed : 0;
		for (uint32_t n = 0; (n = pl_plan_next(work->target, layer, expert, n)) != UINT32_MAX; n++)
			assignment->loads += !has(work, work->source->held, n, cell);
	}
	for (uint32_t node = 0; node < work->nodes; node++)
		room += work->room[node];

	if (assignment->unplaced == 0)
		return;
	assignment->missing_bytes = assignment->unplaced > room ? (assignment->unplaced - room) * bytes : 0;
	double mib = 1.0 / (1 << 20);
	const char *have = cad_plural(assignment->unplaced, "has", "have");
	if (work->open == 0)
		snprintf(assignment->text, sizeof assignment->text,
			"%u %s of %.2f MiB each %s no place: there is no expert node", assignment->unplaced,
			cad_plural(assignment->unplaced, "expert", "experts"), (double)bytes * mib, have);
	else if (assignment->missing_bytes)
		snprintf(assignment->text, sizeof assignment->text,
			"%u of %u experts %s not fit on %u expert %s: %.1f MiB are missing (an expert takes %.2f MiB); add nodes, or give them more --memory",
			assignment->unplaced, work->cells, cad_plural(assignment->unplaced, "does", "do"), work->open,
			cad_plural(work->open, "node", "nodes"), (double)assignment->missing_bytes * mib,
			(double)bytes * mib);
	else
		snprintf(assignment->text, sizeof assignment->text,
			"%u of %u experts %s no place: loading %s has failed on every node with room",
			assignment->unplaced, work->cells, have, cad_plural(assignment->unplaced, "it", "them"));
}

/* How many copies, and how much room there is for them. */
static void measure(struct work *work)
{
	const struct pl_assign_source *source = work->source;
	const struct pl_cluster *cluster = source->cluster;

	for (uint32_t node = 0; node < work->nodes; node++) {
		uint64_t fits = pl_cluster_room(cluster, node);
		work->room[node] = work->capacity[node] = (uint32_t)(fits < work->cells ? fits : work->cells);
		work->open += !cluster->nodes[node].forbidden;
	}
	for (uint32_t cell = 0; cell < work->cells; cell++) {
		uint32_t more = source->copies_of ? source->copies_of[cell] : 0;
		uint32_t want = more > source->copies ? more : source->copies;
		work->want[cell] = want < work->open ? want : work->open;
		work->copies_max = work->copies_max > work->want[cell] ? work->copies_max : work->want[cell];
	}
}

/* What is on its way out still takes room. */
static void settle(struct work *work)
{
	const struct pl_plan *leaving = work->source->leaving;
	for (uint32_t cell = 0; cell < work->cells; cell++) {
		uint32_t layer = cell / work->experts, expert = cell % work->experts;
		for (uint32_t n = 0; (n = pl_plan_next(leaving, layer, expert, n)) != UINT32_MAX; n++) {
			bool takes = !has(work, work->target, n, cell);
			work->room[n] -= takes && work->room[n] > 0;
			work->capacity[n] -= takes && work->capacity[n] > 0;
		}
	}
	work->settled = true;
}

static void assign(struct work *work, bool *small)
{
	measure(work);
	keep(work, work->pinned, NULL);
	if (work->source->wanted)
		keep(work, work->source->wanted, NULL);
	settle(work);
	keep(work, work->source->held, work->want);
	if (!divide(work, small, true))
		(void)divide(work, small, false);
	fill(work);
	make_room(work);
	if (work->source->level)
		even_all_out(work, small);
}

/* The pins as a plan. */
static enum cad_status gather_pins(
	const struct pl_cluster *cluster, const struct pl_plan *like, struct pl_plan **pinned)
{
	enum cad_status status = pl_plan_create(like->layers, like->experts, like->nodes, pinned);
	for (uint32_t i = 0; status == CAD_OK && i < cluster->rules_count; i++) {
		const struct pl_cluster_rule *rule = &cluster->rules[i];
		for (uint32_t l = 0; l < like->layers && !rule->forbidden; l++)
			if (rule->layer == like->layer[l] || rule->layer == PL_CLUSTER_ANY)
				pl_plan_put(*pinned, l, rule->expert, rule->node);
	}
	return status;
}

enum cad_status pl_assign(
	const struct pl_assign_source *source, struct pl_plan *target, struct pl_assignment *assignment)
{
	struct work work = {
		.source = source,
		.target = target,
		.nodes = target->nodes,
		.layers = target->layers,
		.experts = target->experts,
		.cells = target->layers * target->experts,
	};
	struct pl_plan *pinned = NULL;
	size_t table = (size_t)work.layers * work.nodes;
	bool *small = calloc(work.nodes + 1, sizeof *small);
	enum cad_status status = gather_pins(source->cluster, target, &pinned);

	work.room = calloc(
		3 * (size_t)work.nodes + 2 * table + work.experts + 2 * (size_t)work.cells + 1, sizeof *work.room);
	if (!work.room || !small)
		status = CAD_ERR_MEMORY;
	if (status == CAD_OK) {
		work.pinned = pinned;
		work.capacity = work.room + work.nodes;
		work.total = work.capacity + work.nodes;
		work.held = work.total + work.nodes;
		work.share = work.held + table;
		work.order = work.share + table;
		work.placed = work.order + work.experts;
		work.want = work.placed + work.cells;
		pl_plan_clear(target);
		assign(&work, small);
		summarise(&work, assignment);
	}

	pl_plan_free(pinned);
	free(small);
	free(work.room);
	return status;
}

bool pl_assign_reaches(const struct pl_cluster *cluster, const struct pl_plan *held, const struct pl_plan *target)
{
	bool loads = false, spare = false;

	for (uint32_t l = 0; l < held->layers; l++)
		for (uint32_t e = 0; e < held->experts; e++) {
			const uint64_t *has = pl_plan_set(held, l, e), *wants = pl_plan_set(target, l, e);
			for (uint32_t w = 0; w < held->words; w++)
				loads = loads || (wants[w] & ~has[w]);
			spare = spare || pl_plan_count(held, l, e) > 1;
		}
	for (uint32_t n = 0; n < cluster->nodes_count && !spare; n++)
		spare = pl_cluster_room(cluster, n) > pl_plan_copies_on(held, n);

	return spare || !loads;
}
