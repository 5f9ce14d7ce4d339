/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/solve/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MARGIN 0.05

enum cad_status pl_search_init(struct pl_search *search, const struct pl_layer *layer, const struct pl_site *site)
{
	size_t pairs = (size_t)layer->tokens * layer->k, nodes = site->nodes;
	*search = (struct pl_search){ .layer = layer, .site = site };
	enum cad_status status = pl_replicas_init(&search->replicas, site->experts, site->nodes);
	search->used = calloc(nodes, sizeof *search->used);
	search->home = calloc(pairs + 1, sizeof *search->home);
	search->cost = calloc(layer->tokens + 1, sizeof *search->cost);
	search->busy = calloc(2 * nodes, sizeof *search->busy);
	search->ratio = calloc(2 * nodes, sizeof *search->ratio);
	search->touched = calloc(layer->tokens + 1, sizeof *search->touched);
	search->old_home = calloc(pairs + 1, sizeof *search->old_home);
	search->old_cost = calloc(layer->tokens + 1, sizeof *search->old_cost);
	search->old_busy = calloc(nodes, sizeof *search->old_busy);

	if (status != CAD_OK || !search->used || !search->home || !search->cost || !search->busy || !search->ratio ||
		!search->touched || !search->old_home || !search->old_cost || !search->old_busy) {
		pl_search_fini(search);
		return CAD_ERR_MEMORY;
	}

	search->own = search->busy + nodes;
	search->strain = search->ratio + nodes;
	return CAD_OK;
}

void pl_search_fini(struct pl_search *search)
{
	pl_replicas_fini(&search->replicas);
	free(search->used);
	free(search->home);
	free(search->cost);
	free(search->busy);
	free(search->ratio);
	free(search->touched);
	free(search->old_home);
	free(search->old_cost);
	free(search->old_busy);
	*search = (struct pl_search){ 0 };
}

/* What the nodes (and racks) that a token touches cost. */
static float token_cost(const struct pl_site *site, const uint16_t *home, uint32_t k)
{
	uint64_t seen[PL_REPLICAS_WORDS] = { 0 }, racks[PL_REPLICAS_WORDS];
	uint32_t nodes = 0, distinct_racks = 0;
	float cost = 0;

	if (site->plain && site->nodes <= 64) { /* the usual case, and the search's innermost loop */
		for (uint32_t j = 0; j < k; j++)
			seen[0] |= (uint64_t)(home[j] != CAD_COVER_NONE) << home[j] % 64;
		return (float)__builtin_popcountll(seen[0]);
	}

	if (!site->plain)
		memset(racks, 0, sizeof racks);
	for (uint32_t j = 0; j < k; j++) {
		uint32_t n = home[j];
		if (n == CAD_COVER_NONE)
			continue;
		bool again = cad_map_set_has(seen, n);
		cad_map_set_add(seen, n);
		nodes += !again;
		if (site->plain || again)
			continue;
		uint32_t rack = site->cluster->nodes[n].rack;
		cost += site->touch[n];
		distinct_racks += !cad_map_set_has(racks, rack);
		cad_map_set_add(racks, rack);
	}

	if (site->plain)
		return (float)nodes;
	return cost + (float)site->weights->racks * (float)(distinct_racks ? distinct_racks - 1 : 0);
}

static void cover_token(struct pl_search *search, uint32_t token)
{
	const struct pl_layer *layer = search->layer;
	const struct pl_site *site = search->site;
	const uint16_t *ids = layer->ids + (size_t)token * layer->k;
	uint16_t *home = search->home + (size_t)token * layer->k;
	const struct cad_cover_load load = { .node = search->busy, .unit = site->units ? site->unit : NULL };
	pl_replicas_cover(&search->replicas, ids, layer->k, &load, home);
	search->cost[token] = token_cost(site, home, layer->k);
	search->tokens_cost += search->cost[token];
}

static void uncover_token(struct pl_search *search, uint32_t token)
{
	const struct pl_layer *layer = search->layer;
	const struct pl_site *site = search->site;
	const uint16_t *home = search->home + (size_t)token * layer->k;
	for (uint32_t j = 0; j < layer->k; j++)
		if (home[j] != CAD_COVER_NONE)
			search->busy[home[j]] -= site->units ? site->unit[home[j]] : 1;
	search->tokens_cost -= search->cost[token];
}

/*
 * A node's strain is its rows over its fair share, and a margin for chance. Rows that only this
 * node can serve, its own, get a margin that grows with the number of nodes, as does the largest of
 * several deviations; the others go elsewhere when that node is busy. Where all rows are somebody's
 * own, the margin stays so small that even nodes cost nothing.
 */
static void weigh_load(struct pl_search *search)
{
	const struct pl_site *site = search->site;
	double pairs = search->layer->pairs ? (double)search->layer->pairs : 1, limit = site->weights->load_max,
	       own_mean = (double)search->own_total / pairs;
	double chance = site->chance < limit - own_mean ? site->chance : limit - own_mean, sum = 0;

	for (uint32_t n = 0; n < site->nodes; n++) {
		double rows = (double)search->busy[n] / (site->units ? site->unit[n] : 1), fair = pairs * site->fair[n];
		search->ratio[n] = fair > 0 ? rows / fair : 0;
		double all = search->ratio[n] + ROWS_MARGIN,
		       own = fair > 0 ? (double)search->own[n] / fair + chance : 0;
		search->strain[n] = all > own ? all : own;
		double excess = pl_excess(search->strain[n], limit);
		sum += excess * excess * excess * excess;
	}

	search->load_cost = sqrt(sqrt(sum));
}

static void weigh(struct pl_search *search)
{
	const struct pl_weights *weights = search->site->weights;
	double tokens = search->layer->tokens ? search->layer->tokens : 1;
	weigh_load(search);
	search->load_scale = weights->load * search->tokens_cost / tokens;
	search->value =
		search->tokens_cost / tokens * (weights->nodes + weights->load * search->load_cost) - search->pull;
}

static double pull_of(const struct pl_site *site, uint32_t expert, uint32_t node)
{
	return site->pull ? (double)site->pull[(size_t)expert * site->nodes + node] : 0;
}

/* Its rows are its node's own when it is nowhere else. */
static void count_own(struct pl_search *search, uint32_t expert, bool add)
{
	struct cad_map_replicas replicas = search->replicas.of[expert];
	uint32_t uses = pl_layer_uses(search->layer, expert);
	if (replicas.count != 1)
		return;
	search->own[replicas.nodes[0]] += add ? uses : -uses;
	search->own_total += add ? (uint64_t)uses : -(uint64_t)uses;
}

void pl_search_reset(struct pl_search *search)
{
	const struct pl_site *site = search->site;
	memset(search->busy, 0, site->nodes * sizeof *search->busy);
	memset(search->used, 0, site->nodes * sizeof *search->used);
	search->copies = 0;
	search->tokens_cost = search->pull = 0;

	for (uint32_t e = 0; e < site->experts; e++)
		for (uint32_t r = 0; r < search->replicas.of[e].count; r++) {
			search->used[search->replicas.of[e].nodes[r]]++;
			search->copies++;
			search->pull += pull_of(site, e, search->replicas.of[e].nodes[r]);
		}
	memset(search->own, 0, site->nodes * sizeof *search->own);
	search->own_total = 0;
	for (uint32_t e = 0; e < site->experts; e++)
		count_own(search, e, true);
	for (uint32_t t = 0; t < search->layer->tokens; t++)
		cover_token(search, t);
	weigh(search);
}

static void make(struct pl_search *search, const struct pl_change *change, bool add)
{
	count_own(search, change->expert, false);
	if (add)
		pl_replicas_add(&search->replicas, change->expert, change->node);
	else
		pl_replicas_drop(&search->replicas, change->expert, change->node);
	count_own(search, change->expert, true);
	search->used[change->node] += add ? 1u : -1u;
	search->copies += add ? 1u : -1u;
	search->pull += add ? pull_of(search->site, change->expert, change->node)
			    : -pull_of(search->site, change->expert, change->node);
}

/* The tokens that use any of the changed experts, ascending. */
static uint32_t collect_tokens(
	const struct pl_layer *layer, const struct pl_change *changes, uint32_t count, uint32_t *tokens)
{
	const uint32_t *at[PL_CHANGES_MAX], *end[PL_CHANGES_MAX];
	uint32_t lists = 0, found = 0;

	for (uint32_t i = 0; i < count; i++) {
		bool known = false;
		for (uint32_t o = 0; o < i; o++)
			known = known || changes[o].expert == changes[i].expert;
		if (known || pl_layer_uses(layer, changes[i].expert) == 0)
			continue;
		at[lists] = layer->uses + layer->start[changes[i].expert];
		end[lists++] = layer->uses + layer->start[changes[i].expert + 1];
	}

	while (lists > 0) {
		uint32_t next = *at[0];
		for (uint32_t i = 1; i < lists; i++)
			next = *at[i] < next ? *at[i] : next;
		tokens[found++] = next;
		for (uint32_t i = 0; i < lists;) {
			at[i] += *at[i] == next;
			if (at[i] == end[i]) {
				at[i] = at[--lists];
				end[i] = end[lists];
			} else {
				i++;
			}
		}
	}

	return found;
}

double pl_search_try(struct pl_search *search, const struct pl_change *changes, uint32_t count)
{
	uint32_t k = search->layer->k;
	CAD_ASSERT(count <= PL_CHANGES_MAX);
	memcpy(search->changes, changes, count * sizeof *changes);
	search->changes_count = count;
	search->old_tokens_cost = search->tokens_cost;
	search->old_value = search->value;
	search->old_pull = search->pull;
	memcpy(search->old_busy, search->busy, search->site->nodes * sizeof *search->busy);
	uint32_t touched = search->touched_count = collect_tokens(search->layer, changes, count, search->touched);
	for (uint32_t i = 0; i < touched; i++) {
		uint32_t t = search->touched[i];
		memcpy(search->old_home + (size_t)i * k, search->home + (size_t)t * k, k * sizeof *search->home);
		search->old_cost[i] = search->cost[t];
		uncover_token(search, t);
	}

	for (uint32_t i = 0; i < count; i++)
		make(search, &changes[i], changes[i].add);
	search->differing = 0;
	for (uint32_t i = 0; i < touched; i++) {
		cover_token(search, search->touched[i]);
		search->differing += search->cost[search->touched[i]] != search->old_cost[i];
	}

	weigh(search);
	return search->value - search->old_value;
}

void pl_search_undo(struct pl_search *search)
{
	uint32_t k = search->layer->k;
	for (uint32_t i = search->changes_count; i-- > 0;)
		make(search, &search->changes[i], !search->changes[i].add);
	memcpy(search->busy, search->old_busy, search->site->nodes * sizeof *search->busy);

	for (uint32_t i = 0; i < search->touched_count; i++) {
		memcpy(search->home + (size_t)search->touched[i] * k, search->old_home + (size_t)i * k,
			k * sizeof *search->home);
		search->cost[search->touched[i]] = search->old_cost[i];
	}

	weigh_load(search);
	search->tokens_cost = search->old_tokens_cost;
	search->pull = search->old_pull;
	search->load_scale =
		search->site->weights->load * search->tokens_cost / (search->layer->tokens ? search->layer->tokens : 1);
	search->value = search->old_value;
}
