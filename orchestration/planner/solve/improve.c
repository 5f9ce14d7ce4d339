/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/solve/improve.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FILL_BATCH = 16, FAILED_MAX = 32 };

enum cad_status pl_improve_init(struct pl_improve *improve, const struct pl_site *site)
{
	size_t cells = (size_t)site->experts * site->nodes, pairs = (size_t)site->experts * site->experts;
	size_t racks = site->plain ? 0 : (size_t)site->experts * site->cluster->racks_count;
	uint32_t seats = site->copies_max + site->nodes;

	*improve = (struct pl_improve){ .seats_max = seats };
	improve->join = malloc((3 * cells + pairs + racks) * sizeof *improve->join);
	improve->rows = malloc(cells * sizeof *improve->rows);
	improve->seats = malloc(seats * sizeof *improve->seats);
	improve->going = malloc((size_t)seats * site->nodes * sizeof *improve->going);
	improve->proposals = malloc((2 * (size_t)seats + cells) * sizeof *improve->proposals);
	if (!improve->join || !improve->rows || !improve->seats || !improve->going || !improve->proposals) {
		pl_improve_fini(improve);
		return CAD_ERR_MEMORY;
	}

	improve->stay = improve->join + cells;
	improve->leave = improve->stay + cells;
	improve->lone = improve->leave + cells;
	improve->racks = racks ? improve->lone + pairs : NULL;

	return CAD_OK;
}

void pl_improve_fini(struct pl_improve *improve)
{
	free(improve->join);
	free(improve->rows);
	free(improve->seats);
	free(improve->going);
	free(improve->proposals);
	*improve = (struct pl_improve){ 0 };
}

/* The distinct places (nodes or racks) of a token's slots. */
struct places {
	uint16_t of[CAD_TOPK_MAX];
	uint32_t count, alone; /* alone: a bit for each slot that has its place to itself */
};

static void find_places(const uint16_t *place, uint32_t k, struct places *found)
{
	uint32_t first[CAD_TOPK_MAX];
	found->count = found->alone = 0;
	for (uint32_t j = 0; j < k; j++) {
		uint32_t d = 0;
		if (place[j] == CAD_COVER_NONE)
			continue;
		while (d < found->count && found->of[d] != place[j])
			d++;
		if (d == found->count) {
			found->of[found->count] = place[j];
			first[found->count++] = j;
			found->alone |= 1u << j;
		} else {
			found->alone &= ~(1u << first[d]);
		}
	}
}

static void find_racks(const struct pl_site *site, const uint16_t *home, uint32_t k, struct places *found)
{
	uint16_t rack[CAD_TOPK_MAX];
	for (uint32_t j = 0; j < k; j++)
		rack[j] = home[j] == CAD_COVER_NONE ? CAD_COVER_NONE : (uint16_t)site->cluster->nodes[home[j]].rack;
	find_places(rack, k, found);
}

/* A token's share in the tables where all nodes are equal. */
static void count_token(
	struct pl_improve *improve, const struct pl_site *site, const uint16_t *ids, const uint16_t *home, uint32_t k)
{
	size_t experts = site->experts, nodes = site->nodes;
	struct places touched;

	find_places(home, k, &touched);

	for (uint32_t j = 0; j < k; j++) {
		if (home[j] == CAD_COVER_NONE)
			continue;
		size_t row = ids[j] * nodes;
		bool lone = touched.alone >> j & 1;
		float *table = (lone ? improve->join : improve->stay) + row;
		for (uint32_t d = 0; d < touched.count; d++)
			table[touched.of[d]]++;
		improve->rows[row + home[j]]++;
		if (!lone) {
			improve->leave[row + home[j]]++;
			continue;
		}
		table[home[j]]--;
		float *lone_with = improve->lone + ids[j] * experts;
		for (uint32_t i = 0; i < k && ids[i] != PL_TRACE_NONE; i++)
			lone_with[ids[i]]++;
	}
}

/* The same with the cost of each node, and of racks: what a token saves when an expert leaves is
 * its node, if it is alone there, and its rack, if it is alone in it. */
static void weigh_token(
	struct pl_improve *improve, const struct pl_site *site, const uint16_t *ids, const uint16_t *home, uint32_t k)
{
	size_t experts = site->experts, nodes = site->nodes, racks_count = site->cluster->racks_count;
	float rack_cost = (float)site->weights->racks;
	struct places touched, racks;

	find_places(home, k, &touched);
	find_racks(site, home, k, &racks);

	for (uint32_t j = 0; j < k; j++) {
		if (home[j] == CAD_COVER_NONE)
			continue;
		size_t row = ids[j] * nodes;
		bool lone = touched.alone >> j & 1, lone_in_rack = racks.alone >> j & 1;
		uint32_t own_rack = site->cluster->nodes[home[j]].rack;
		float saved = (lone ? site->touch[home[j]] : 0) + (lone_in_rack ? rack_cost : 0);
		for (uint32_t d = 0; d < touched.count; d++) {
			uint32_t n = touched.of[d];
			if (lone && n == home[j])
				continue;
			improve->join[row + n] += saved;
			improve->stay[row + n] += site->touch[n] - saved;
		}
		for (uint32_t d = 0; d < racks.count; d++)
			improve->racks[ids[j] * racks_count + racks.of[d]] +=
				!(lone_in_rack && racks.of[d] == own_rack);
		improve->rows[row + home[j]]++;
		improve->leave[row + home[j]] += 1 + rack_cost - saved;
		float *lone_with = improve->lone + ids[j] * experts;
		for (uint32_t i = 0; lone && i < k && ids[i] != PL_TRACE_NONE; i++)
			lone_with[ids[i]] += saved;
	}
}

/* One walk over all tokens fills the tables. */
static void count_tokens(struct pl_improve *improve, const struct pl_search *search)
{
	const struct pl_layer *layer = search->layer;
	const struct pl_site *site = search->site;
	size_t cells = (size_t)site->experts * site->nodes, pairs = (size_t)site->experts * site->experts,
	       racks = site->cluster->racks_count;

	memset(improve->join, 0,
		(3 * cells + pairs + (improve->racks ? site->experts * racks : 0)) * sizeof *improve->join);
	memset(improve->rows, 0, cells * sizeof *improve->rows);

	for (uint32_t t = 0; t < layer->tokens; t++) {
		size_t at = (size_t)t * layer->k;
		if (site->plain)
			count_token(improve, site, layer->ids + at, search->home + at, layer->k);
		else
			weigh_token(improve, site, layer->ids + at, search->home + at, layer->k);
	}

	for (size_t i = 0; improve->racks && i < cells; i++)
		improve->stay[i] += (float)site->weights->racks *
			improve->racks[i / site->nodes * racks + site->cluster->nodes[i % site->nodes].rack];
}

static double excess_of(const struct pl_search *search, uint32_t node, double more_rows)
{
	const struct pl_site *site = search->site;
	double pairs = search->layer->pairs ? (double)search->layer->pairs : 1, strain = search->strain[node];
	return pl_excess(
		strain + (more_rows == 0 ? 0 : more_rows / (pairs * site->fair[node])), site->weights->load_max);
}

static double fourth(double x) { return x * x * x * x; }

/* What the objective gains when the sum under the fourth root shrinks by so much. */
static double load_relief(const struct pl_search *search, double less)
{
	double left = fourth(search->load_cost) - less;
	return search->load_scale * (search->load_cost - (left > 0 ? sqrt(sqrt(left)) : 0));
}

/* What the objective gains when so many rows go from one node to another, touches aside. */
static double load_gain(const struct pl_search *search, uint32_t from, uint32_t to, double rows)
{
	double before_from = excess_of(search, from, 0), before_to = excess_of(search, to, 0),
	       after_from = excess_of(search, from, -rows), after_to = excess_of(search, to, rows);
	return load_relief(search, fourth(before_from) + fourth(before_to) - fourth(after_from) - fourth(after_to));
}

static double pull_of(const struct pl_site *site, uint32_t expert, uint32_t node)
{
	return site->pull && expert != PL_NOBODY ? (double)site->pull[(size_t)expert * site->nodes + node] : 0;
}

/* Of the expert's tokens, those that the copy on this node serves. */
static double part_of(const struct pl_improve *improve, const struct pl_search *search, uint32_t expert, uint32_t node)
{
	uint32_t uses = pl_layer_uses(search->layer, expert);
	if (search->replicas.of[expert].count == 1)
		return 1;
	return uses ? (double)improve->rows[(size_t)expert * search->site->nodes + node] / uses : 0;
}

/* What tokens save when the copy on `from` goes to `to` instead. Exact
 * where experts have one copy. */
static double move_gain(
	const struct pl_improve *improve, const struct pl_search *search, uint32_t expert, uint32_t from, uint32_t to)
{
	const struct pl_site *site = search->site;
	size_t row = (size_t)expert * site->nodes;
	double gain = (double)improve->join[row + to] +
		part_of(improve, search, expert, from) * (double)improve->stay[row + to] -
		(double)improve->leave[row + from];
	return site->plain ? gain : gain - ((double)site->touch[to] - 1) * improve->rows[row + from];
}

static bool may_move(const struct pl_search *search, uint32_t expert, uint32_t from, uint32_t to)
{
	return expert == PL_NOBODY ||
		(!pl_site_pinned(search->site, expert, from) &&
			pl_site_allows(search->site, &search->replicas, expert, to, from));
}

/* Who sits where, what that serves, and what going elsewhere would gain. */
static uint32_t list_seats(struct pl_improve *improve, const struct pl_search *search)
{
	const struct pl_site *site = search->site;
	uint32_t count = 0, nodes = site->nodes;

	for (uint32_t e = 0; e < site->experts; e++)
		for (uint32_t r = 0; r < search->replicas.of[e].count; r++) {
			uint32_t from = search->replicas.of[e].nodes[r];
			float *going = improve->going + (size_t)count * nodes;
			improve->seats[count++] = (struct pl_seat){ e, from, improve->rows[(size_t)e * nodes + from] };
			for (uint32_t n = 0; n < nodes; n++)
				going[n] = (float)(site->weights->nodes * move_gain(improve, search, e, from, n) /
						search->layer->tokens +
					pull_of(site, e, n) - pull_of(site, e, from));
		}
	for (uint32_t n = 0; n < nodes; n++)
		if (search->used[n] < site->slots[n]) {
			memset(improve->going + (size_t)count * nodes, 0, nodes * sizeof *improve->going);
			improve->seats[count++] = (struct pl_seat){ PL_NOBODY, n, 0 };
		}
	return count;
}

/* What the objective gains when two change places; only what is more than `enough` is of interest.
 * relief [nodes]: the most that less load on it can bring. */
static double swap_gain(const struct pl_improve *improve, const struct pl_search *search, const double *relief,
	uint32_t i, uint32_t j, double enough)
{
	const struct pl_site *site = search->site;
	const struct pl_seat *a = &improve->seats[i], *b = &improve->seats[j];
	double gain = (double)(improve->going[(size_t)i * site->nodes + b->node] +
		improve->going[(size_t)j * site->nodes + a->node]);
	double most = relief[a->node] > relief[b->node] ? relief[a->node] : relief[b->node];

	if (gain + most <= enough)
		return gain;

	if (a->expert != PL_NOBODY && b->expert != PL_NOBODY) {
		float promised = improve->lone[(size_t)a->expert * site->experts + b->expert] +
			improve->lone[(size_t)b->expert * site->experts + a->expert];
		gain -= site->weights->nodes * (double)promised / search->layer->tokens;
	}

	if (gain + most <= enough)
		return gain;
	return gain + load_gain(search, a->node, b->node, a->rows - b->rows);
}

static void propose_swap(struct pl_proposal *proposal, struct pl_seat a, struct pl_seat b, double gain)
{
	*proposal = (struct pl_proposal){ .gain = gain };
	if (a.expert != PL_NOBODY) {
		proposal->changes[proposal->count++] = (struct pl_change){ a.expert, a.node, false };
		proposal->changes[proposal->count++] = (struct pl_change){ a.expert, b.node, true };
	}
	if (b.expert != PL_NOBODY) {
		proposal->changes[proposal->count++] = (struct pl_change){ b.expert, b.node, false };
		proposal->changes[proposal->count++] = (struct pl_change){ b.expert, a.node, true };
	}
}

/* Where most of an expert's rows are served. */
static uint32_t busiest_home(const struct pl_improve *improve, const struct pl_search *search, uint32_t expert)
{
	const uint32_t *rows = improve->rows + (size_t)expert * search->site->nodes;
	struct cad_map_replicas replicas = search->replicas.of[expert];
	uint32_t best = replicas.nodes[0];
	for (uint32_t r = 1; r < replicas.count; r++)
		best = rows[replicas.nodes[r]] > rows[best] ? replicas.nodes[r] : best;
	return best;
}

/* A copy more: the tokens that it saves, and half of the rows of the busiest copy that may come
 * here. */
static double add_gain(const struct pl_improve *improve, const struct pl_search *search, uint32_t expert, uint32_t node)
{
	const struct pl_site *site = search->site;
	uint32_t home = busiest_home(improve, search, expert);
	double rows = (double)improve->rows[(size_t)expert * site->nodes + home] / 2, now_home = search->strain[home],
	       now_node = search->strain[node];
	double gain = site->weights->nodes * (double)improve->join[(size_t)expert * site->nodes + node] /
			(double)search->layer->tokens +
		pull_of(site, expert, node);
	if (now_home > now_node)
		gain += load_gain(search, home, node, rows);
	return gain;
}

/* Without the copy: its shared tokens touch one node more, and its rows go to another copy. */
static double drop_gain(
	const struct pl_improve *improve, const struct pl_search *search, uint32_t expert, uint32_t node)
{
	const struct pl_site *site = search->site;
	struct cad_map_replicas replicas = search->replicas.of[expert];
	size_t row = (size_t)expert * site->nodes;
	double tokens = -(double)improve->leave[row + node], best = -INFINITY;

	/* to the copy that is nearest by link and rack */
	for (uint32_t r = 0; !site->plain && r < replicas.count; r++) {
		uint32_t other = replicas.nodes[r];
		double known =
			(double)improve
				->racks[(size_t)expert * site->cluster->racks_count + site->cluster->nodes[other].rack];
		double gain = site->weights->racks * part_of(improve, search, expert, node) * known -
			((double)site->touch[other] - 1) * improve->rows[row + node];
		best = other != node && gain > best ? gain : best;
	}

	tokens += site->plain ? 0 : best;
	return site->weights->nodes * tokens / (double)search->layer->tokens - pull_of(site, expert, node);
}

static int by_gain(const void *a, const void *b)
{
	const struct pl_proposal *x = a, *y = b;
	if (x->gain != y->gain)
		return x->gain < y->gain ? 1 : -1;
	if (x->changes[0].expert != y->changes[0].expert)
		return x->changes[0].expert < y->changes[0].expert ? -1 : 1;
	if (x->changes[0].node != y->changes[0].node)
		return x->changes[0].node < y->changes[0].node ? -1 : 1;
	return (x->count > y->count) - (x->count < y->count);
}

/* The best expert to take the place of a copy that is not the only one. */
static void propose_replacement(
	struct pl_improve *improve, const struct pl_search *search, struct pl_seat seat, uint32_t *count)
{
	double lost = drop_gain(improve, search, seat.expert, seat.node), best_gain = 0;
	uint32_t best = PL_NOBODY;

	for (uint32_t e = 0; e < search->site->experts; e++) {
		if (e == seat.expert)
			continue;
		double gain = lost + add_gain(improve, search, e, seat.node);
		if (gain > best_gain && pl_site_allows(search->site, &search->replicas, e, seat.node, PL_CLUSTER_ANY)) {
			best_gain = gain;
			best = e;
		}
	}

	if (best != PL_NOBODY)
		improve->proposals[(*count)++] = (struct pl_proposal){
			.changes = { { seat.expert, seat.node, false }, { best, seat.node, true } },
			.count = 2,
			.gain = best_gain,
		};
}

uint32_t pl_improve_propose(struct pl_improve *improve, struct pl_search *search)
{
	const struct pl_site *site = search->site;
	double relief[CAD_NODES_MAX];

	count_tokens(improve, search);
	uint32_t seats = list_seats(improve, search), count = 0;

	/* as if the other node of a swap had the same excess, and both lost it */
	for (uint32_t n = 0; n < site->nodes; n++)
		relief[n] = load_relief(search, 2 * fourth(excess_of(search, n, 0)));
	for (uint32_t i = 0; i < seats; i++) {
		struct pl_seat a = improve->seats[i];
		double best_gain = 0;
		uint32_t best = PL_NOBODY;
		for (uint32_t j = i + 1; j < seats; j++) {
			struct pl_seat b = improve->seats[j];
			if (a.node == b.node || a.expert == b.expert)
				continue;
			double gain = swap_gain(improve, search, relief, i, j, best_gain);
			if (gain > best_gain && may_move(search, a.expert, a.node, b.node) &&
				may_move(search, b.expert, b.node, a.node)) {
				best_gain = gain;
				best = j;
			}
		}
		if (best != PL_NOBODY)
			propose_swap(&improve->proposals[count++], a, improve->seats[best], best_gain);
		if (a.expert != PL_NOBODY && search->replicas.of[a.expert].count > 1 &&
			!pl_site_pinned(site, a.expert, a.node))
			propose_replacement(improve, search, a, &count);
	}

	qsort(improve->proposals, count, sizeof *improve->proposals, by_gain);
	return count;
}

/* Whether all of it can still be done, after other changes of the sweep. */
static bool still_possible(const struct pl_search *search, const struct pl_proposal *proposal)
{
	for (uint32_t i = 0; i < proposal->count; i++) {
		const struct pl_change *change = &proposal->changes[i];
		bool held = pl_replicas_hold(&search->replicas, change->expert, change->node);
		if (!change->add &&
			(!held ||
				(search->replicas.of[change->expert].count < 2 &&
					!(i + 1 < proposal->count &&
						proposal->changes[i + 1].expert == change->expert))))
			return false;
		if (change->add) {
			bool moved = i > 0 && proposal->changes[i - 1].expert == change->expert;
			bool freed = false; /* a drop on this node in the same proposal makes room */
			for (uint32_t o = 0; o < proposal->count; o++)
				freed = freed ||
					(!proposal->changes[o].add && proposal->changes[o].node == change->node);
			if (!freed && (search->used[change->node] >= search->site->slots[change->node]))
				return false;
			if (!pl_site_allows(search->site, &search->replicas, change->expert, change->node,
				    moved ? proposal->changes[i - 1].node : PL_CLUSTER_ANY))
				return false;
		}
	}
	return true;
}

/* Tries it; it stays when it gains more than chance explains. */
static bool attempt(struct pl_search *search, const struct pl_change *changes, uint32_t count, double doubt)
{
	double grown = pl_search_try(search, changes, count), tokens = search->layer->tokens;
	if (grown + search->site->weights->nodes * doubt * sqrt((double)search->differing) / tokens < -1e-12)
		return true;
	pl_search_undo(search);
	return false;
}

uint32_t pl_improve_polish(struct pl_improve *improve, struct pl_search *search, uint32_t tries, double doubt)
{
	uint32_t stayed = 0;
	while (tries > 0) {
		uint32_t count = pl_improve_propose(improve, search), kept = 0, failed = 0;
		for (uint32_t i = 0; i < count && tries > 0 && failed < FAILED_MAX; i++) {
			if (!still_possible(search, &improve->proposals[i]))
				continue;
			tries--;
			bool stays = attempt(search, improve->proposals[i].changes, improve->proposals[i].count, doubt);
			kept += stays;
			failed = stays ? 0 : failed + 1;
		}
		stayed += kept;
		if (kept == 0)
			break;
	}
	return stayed;
}

void pl_improve_fill(struct pl_improve *improve, struct pl_search *search)
{
	const struct pl_site *site = search->site;
	while (search->copies < site->copies_max) {
		uint32_t count = 0, kept = 0;
		count_tokens(improve, search);
		for (uint32_t e = 0; e < site->experts; e++)
			for (uint32_t n = 0; n < site->nodes; n++)
				if (search->used[n] < site->slots[n] &&
					pl_site_allows(site, &search->replicas, e, n, PL_CLUSTER_ANY))
					improve->proposals[count++] = (struct pl_proposal){
						.changes = { { e, n, true } },
						.count = 1,
						.gain = add_gain(improve, search, e, n),
					};
		qsort(improve->proposals, count, sizeof *improve->proposals, by_gain);
		for (uint32_t i = 0; i < count && i < FILL_BATCH && search->copies < site->copies_max; i++) {
			if (!still_possible(search, &improve->proposals[i]))
				continue;
			kept += attempt(search, improve->proposals[i].changes, 1, 0);
		}
		if (kept == 0)
			break;
	}
}

void pl_improve_fill_hottest(struct pl_search *search)
{
	const struct pl_site *site = search->site;
	struct pl_replicas *replicas = &search->replicas;
	double rows[CAD_NODES_MAX];
	uint32_t used[CAD_NODES_MAX] = { 0 }, copies = 0;

	for (uint32_t e = 0; e < site->experts; e++)
		for (uint32_t r = 0; r < replicas->of[e].count; r++, copies++)
			used[replicas->of[e].nodes[r]]++;
	bool stuck[CAD_EXPERTS_MAX] = { false };
	for (uint32_t left = site->experts; copies < site->copies_max && left > 0;) {
		uint32_t hottest = PL_NOBODY, best = PL_NOBODY;
		memset(rows, 0, sizeof rows);
		for (uint32_t e = 0; e < site->experts; e++) {
			double each = (double)pl_layer_uses(search->layer, e) / replicas->of[e].count;
			for (uint32_t r = 0; r < replicas->of[e].count; r++)
				rows[replicas->of[e].nodes[r]] += each;
			if (!stuck[e] &&
				(hottest == PL_NOBODY ||
					each > (double)pl_layer_uses(search->layer, hottest) /
							replicas->of[hottest].count))
				hottest = e;
		}
		for (uint32_t n = 0; n < site->nodes; n++)
			if (used[n] < site->slots[n] && pl_site_allows(site, replicas, hottest, n, PL_CLUSTER_ANY) &&
				(best == PL_NOBODY || rows[n] / site->fair[n] < rows[best] / site->fair[best]))
				best = n;
		if (best == PL_NOBODY) {
			stuck[hottest] = true;
			left--;
			continue;
		}
		pl_replicas_add(replicas, hottest, best);
		used[best]++;
		copies++;
	}
}
