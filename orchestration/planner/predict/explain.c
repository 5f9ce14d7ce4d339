/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/predict/explain.h"

#include "orchestration/planner/solve/search.h"

#include <stdlib.h>
#include <string.h>

/* What every function here looks at. */
struct view {
	struct pl_layer layer;
	struct pl_site site;
	struct pl_search search;
	uint32_t expert;
	struct pl_explanation *out;
};

static double busiest(const struct pl_search *search)
{
	double most = 0;
	for (uint32_t n = 0; n < search->site->nodes; n++)
		most = search->ratio[n] > most ? search->ratio[n] : most;
	return most;
}

static int by_lift(const void *a, const void *b)
{
	const struct pl_partner *x = a, *y = b;
	/* tokens beyond chance */
	double i = x->together * (x->lift - 1) / x->lift, j = y->together * (y->lift - 1) / y->lift;
	return i != j ? (i < j ? 1 : -1) : (x->expert > y->expert) - (x->expert < y->expert);
}

static enum cad_status find_partners(struct view *v)
{
	const struct pl_layer *layer = &v->layer;
	uint32_t E = layer->experts, uses = pl_layer_uses(layer, v->expert), count = 0;
	struct pl_partner *all = calloc(E, sizeof *all);

	if (!all)
		return CAD_ERR_MEMORY;

	for (uint32_t e = 0; e < E; e++)
		all[e].expert = e;
	for (uint32_t i = 0; i < uses; i++) {
		const uint16_t *ids = layer->ids + (size_t)layer->uses[layer->start[v->expert] + i] * layer->k;
		for (uint32_t j = 0; j < layer->k && ids[j] != PL_TRACE_NONE; j++)
			all[ids[j]].together += 1.0 / uses;
	}

	for (uint32_t e = 0; e < E; e++) {
		double chance = (double)pl_layer_uses(layer, e) / layer->tokens;
		if (e == v->expert || all[e].together <= 0 || all[e].together <= chance)
			continue;
		struct pl_partner partner = {
			.expert = e,
			.together = all[e].together,
			.lift = all[e].together / chance,
		};
		for (uint32_t r = 0; r < v->search.replicas.of[e].count; r++)
			partner.near = partner.near ||
				pl_replicas_hold(&v->search.replicas, v->expert, v->search.replicas.of[e].nodes[r]);
		all[count++] = partner; /* count <= e: no entry that is still needed is overwritten */
	}

	qsort(all, count, sizeof *all, by_lift);
	v->out->partners_count = count < PL_PARTNERS_MAX ? count : PL_PARTNERS_MAX;
	memcpy(v->out->partners, all, v->out->partners_count * sizeof *all);
	free(all);

	return CAD_OK;
}

static void look_at_copies(struct view *v)
{
	const struct pl_layer *layer = &v->layer;
	uint32_t uses = pl_layer_uses(layer, v->expert);
	struct pl_option *options = v->out->options;

	for (uint32_t i = 0; i < uses; i++) {
		uint32_t t = layer->uses[layer->start[v->expert] + i], here = CAD_COVER_NONE, others = 0;
		const uint16_t *ids = layer->ids + (size_t)t * layer->k, *home = v->search.home + (size_t)t * layer->k;
		for (uint32_t j = 0; j < layer->k; j++)
			here = ids[j] == v->expert ? home[j] : here;
		for (uint32_t j = 0; j < layer->k; j++)
			others += home[j] == here;
		options[here].share += 1.0 / uses;
		options[here].alone += others == 1 ? 1.0 / uses : 0;
	}

	for (uint32_t n = 0; n < v->site.nodes; n++) {
		options[n].holds = pl_replicas_hold(&v->search.replicas, v->expert, n);
		options[n].alone = options[n].share > 0 ? options[n].alone / options[n].share : 0;
		if (options[n].holds &&
			(!options[v->out->home].holds || options[n].share > options[v->out->home].share))
			v->out->home = n;
	}
}

/* What nodes cost, by links and racks, is the search's own matter. */
static uint32_t touched_nodes(const uint16_t *home, uint32_t k)
{
	uint16_t nodes[CAD_TOPK_MAX];
	return pl_distinct_nodes(home, k, nodes);
}

/* What the changes would do to the layer's figures, and how much they would make the objective
 * grow. */
static double try_out(struct view *v, const struct pl_change *changes, uint32_t count, double *nodes, double *load)
{
	const struct pl_search *search = &v->search;
	uint32_t k = v->layer.k;
	int64_t more = 0;
	double grown = pl_search_try(&v->search, changes, count);

	for (uint32_t i = 0; i < search->touched_count; i++)
		more += (int64_t)touched_nodes(search->home + (size_t)search->touched[i] * k, k) -
			touched_nodes(search->old_home + (size_t)i * k, k);
	*nodes = (double)more / v->layer.tokens;
	*load = busiest(&v->search) - v->out->load;
	pl_search_undo(&v->search);

	return grown;
}

/* Moving here: where the node is full, in exchange for the expert that it does best without. */
static void try_move(struct view *v, uint32_t node)
{
	struct pl_option *option = &v->out->options[node];
	uint32_t home = v->out->home;
	double nodes, load, best = 0;
	struct pl_change changes[] = { { v->expert, home, false }, { v->expert, node, true }, { 0, node, false },
		{ 0, home, true } };

	option->swapped = PL_CLUSTER_ANY;
	if (!pl_site_allows(&v->site, &v->search.replicas, v->expert, node, home) ||
		pl_site_pinned(&v->site, v->expert, home))
		return;

	if (v->search.used[node] < v->site.slots[node]) {
		(void)try_out(v, changes, 2, &option->move_nodes, &option->move_load);
		option->movable = true;
		return;
	}

	for (uint32_t e = 0; e < v->site.experts; e++) {
		if (e == v->expert || !pl_replicas_hold(&v->search.replicas, e, node) ||
			pl_site_pinned(&v->site, e, node) ||
			!pl_site_allows(&v->site, &v->search.replicas, e, home, node))
			continue;
		changes[2].expert = changes[3].expert = e;
		double grown = try_out(v, changes, 4, &nodes, &load);
		if (option->movable && grown >= best)
			continue;
		option->movable = true;
		best = grown;
		option->swapped = e;
		option->move_nodes = nodes;
		option->move_load = load;
	}
}

static void try_nodes(struct view *v)
{
	uint64_t nodes = 0;
	for (uint32_t t = 0; t < v->layer.tokens; t++)
		nodes += touched_nodes(v->search.home + (size_t)t * v->layer.k, v->layer.k);
	v->out->nodes = (double)nodes / v->layer.tokens;
	v->out->load = busiest(&v->search);
	for (uint32_t n = 0; n < v->site.nodes; n++) {
		struct pl_option *option = &v->out->options[n];
		if (option->holds)
			continue;
		option->allowed = pl_site_allows(&v->site, &v->search.replicas, v->expert, n, PL_CLUSTER_ANY);
		if (option->allowed)
			(void)try_out(v, &(struct pl_change){ v->expert, n, true }, 1, &option->copy_nodes,
				&option->copy_load);
		try_move(v, n);
	}
}

enum cad_status pl_explain(const struct pl_sample *sample, const struct pl_plan *plan, const struct pl_cluster *cluster,
	const struct pl_weights *weights, uint32_t layer, uint32_t expert, struct pl_explanation *explanation,
	struct cad_error *error)
{
	struct pl_explanation made = { 0 };
	struct view v = { .expert = expert, .out = &made };

	CAD_ASSERT(layer < plan->layers && expert < plan->experts && sample->tokens > 0);
	enum cad_status status = pl_site_init(&v.site, cluster, weights,
		(struct pl_site_layer){ plan->layers, layer, plan->experts, UINT32_MAX, plan->layer[layer] }, error);
	if (status != CAD_OK)
		return status;
	made.options = calloc(plan->nodes, sizeof *made.options);
	status = made.options ? pl_layer_init(&v.layer, sample, layer, 1) : CAD_ERR_MEMORY;
	if (status == CAD_OK)
		status = pl_search_init(&v.search, &v.layer, &v.site);
	if (status == CAD_OK) {
		pl_replicas_load(&v.search.replicas, plan, layer);
		pl_search_reset(&v.search);
		status = find_partners(&v);
	}

	if (status == CAD_OK) {
		made.uses = (double)pl_layer_uses(&v.layer, expert) / sample->tokens;
		made.rank = v.layer.pairs
			? (double)pl_layer_uses(&v.layer, expert) * plan->experts / (double)v.layer.pairs
			: 0;
		look_at_copies(&v);
		try_nodes(&v);
	}

	pl_search_fini(&v.search);
	pl_layer_fini(&v.layer);
	pl_site_fini(&v.site);
	if (status != CAD_OK) {
		free(made.options);
		return cad_error_set(error, status, "out of memory for %u tokens", sample->tokens);
	}

	*explanation = made;
	return CAD_OK;
}

void pl_explanation_fini(struct pl_explanation *explanation)
{
	free(explanation->options);
	*explanation = (struct pl_explanation){ 0 };
}
