/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/solve/site.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Experts of this layer that fit on a node: its slots, or its part of all that its memory holds,
 * dealt out over the layers as evenly as whole numbers allow. */
static uint32_t slots_of(
	const struct pl_cluster *cluster, uint32_t n, uint32_t layers, uint32_t layer, uint32_t experts)
{
	const struct pl_cluster_node *node = &cluster->nodes[n];
	uint64_t slots = node->slots;
	if (node->forbidden)
		return 0;
	if (node->memory_bytes) {
		uint64_t all = pl_cluster_room(cluster, n);
		all = all < (uint64_t)experts * layers ? all : (uint64_t)experts * layers;
		slots = all * (layer + 1) / layers - all * layer / layers;
	}
	return (uint32_t)(slots < experts ? slots : experts);
}

static enum cad_status apply_rules(struct pl_site *site, uint32_t layer, struct cad_error *error)
{
	const struct pl_cluster *cluster = site->cluster;
	for (uint32_t i = 0; i < cluster->rules_count; i++) {
		const struct pl_cluster_rule *rule = &cluster->rules[i];
		if (rule->layer != PL_CLUSTER_ANY && rule->layer != layer)
			continue;
		if (rule->expert >= site->experts)
			return cad_error_set(error, CAD_ERR_INVALID,
				"a rule names expert %u: a layer has experts 0 to %u", rule->expert, site->experts - 1);
		uint64_t *set = (rule->forbidden ? site->forbidden : site->pinned) + (size_t)rule->expert * site->words;
		set[rule->node / 64] |= 1ull << rule->node % 64;
	}

	for (uint32_t e = 0; e < site->experts; e++)
		for (uint32_t n = 0; n < site->nodes; n++)
			if (pl_site_pinned(site, e, n) && pl_site_forbidden(site, e, n))
				return cad_error_set(error, CAD_ERR_INVALID,
					"layer %u expert %u is pinned to node '%s', which must not hold it: remove one of the two rules",
					layer, e, cluster->nodes[n].id);
	return CAD_OK;
}

/* One copy of each expert, or as many as it is pinned to nodes. */
static uint32_t copies_needed(const struct pl_site *site)
{
	uint32_t needed = 0;
	for (uint32_t e = 0; e < site->experts; e++) {
		uint32_t pins = 0;
		for (uint32_t n = 0; n < site->nodes; n++)
			pins += pl_site_pinned(site, e, n);
		needed += pins > 1 ? pins : 1;
	}
	return needed;
}

/* standard deviation of what a node's own rows are, over its fair share, from one recording to the
 * next */
#define LOAD_CHANCE 0.075

static void weigh_nodes(struct pl_site *site)
{
	const struct pl_cluster *cluster = site->cluster;
	double speed = 0, cost = 0;
	uint32_t open = 0;

	for (uint32_t n = 0; n < site->nodes; n++) {
		speed += site->slots[n] ? cluster->nodes[n].speed : 0;
		cost += site->slots[n] ? 1 / cluster->nodes[n].link : 0;
		open += site->slots[n] > 0;
	}

	site->plain = cluster->racks_count <= 1 || site->weights->racks <= 0;

	for (uint32_t n = 0; n < site->nodes; n++) {
		site->fair[n] = site->slots[n] ? cluster->nodes[n].speed / speed : 0;
		site->touch[n] = open ? (float)(1 / cluster->nodes[n].link * open / cost) : 1;
		site->plain = site->plain && (site->slots[n] == 0 || cluster->nodes[n].link == cluster->nodes[0].link);
	}

	/* the bracket: nearly the largest of so many independent deviations, in standard ones */
	site->chance = open > 1 ? LOAD_CHANCE * (sqrt(2 * log(open)) - 0.6) : 0;
	site->units = pl_cluster_units(cluster, site->unit);
}

enum cad_status pl_site_init(struct pl_site *site, const struct pl_cluster *cluster, const struct pl_weights *weights,
	struct pl_site_layer of, struct cad_error *error)
{
	uint32_t experts = of.experts, nodes = cluster->nodes_count, words = (nodes + 63) / 64;
	uint64_t room = 0;

	*site = (struct pl_site){
		.cluster = cluster,
		.weights = weights,
		.experts = experts,
		.nodes = nodes,
		.words = words,
	};
	site->slots = calloc(nodes, sizeof *site->slots);
	site->unit = calloc(nodes, sizeof *site->unit);
	site->fair = calloc(nodes, sizeof *site->fair);
	site->touch = calloc(nodes, sizeof *site->touch);
	site->pinned = calloc((size_t)experts * words, sizeof *site->pinned);
	site->forbidden = calloc((size_t)experts * words, sizeof *site->forbidden);
	enum cad_status status = CAD_OK;
	if (!site->slots || !site->unit || !site->fair || !site->touch || !site->pinned || !site->forbidden)
		status = cad_error_set(
			error, CAD_ERR_MEMORY, "out of memory for %u experts on %u nodes", experts, nodes);
	for (uint32_t n = 0; status == CAD_OK && n < nodes; n++)
		room += site->slots[n] = slots_of(cluster, n, of.layers, of.layer, experts);
	if (status == CAD_OK)
		status = apply_rules(site, of.in_model, error);
	if (status == CAD_OK && room < experts)
		status = cad_error_set(error, CAD_ERR_EXHAUSTED,
			"layer %u has %u experts, the nodes have room for %llu of them: add nodes, or give them more slots or memory",
			of.layer, experts, (unsigned long long)room);
	if (status != CAD_OK) {
		pl_site_fini(site);
		return status;
	}

	site->copies_max = room < of.copies ? (uint32_t)room : of.copies;
	site->copies_max = site->copies_max > copies_needed(site) ? site->copies_max : copies_needed(site);
	weigh_nodes(site);

	return CAD_OK;
}

void pl_site_fini(struct pl_site *site)
{
	free(site->slots);
	free(site->unit);
	free(site->fair);
	free(site->touch);
	free(site->pinned);
	free(site->forbidden);
	free(site->pull);
	*site = (struct pl_site){ 0 };
}

bool pl_site_allows(
	const struct pl_site *site, const struct pl_replicas *replicas, uint32_t expert, uint32_t node, uint32_t except)
{
	const struct pl_cluster_node *nodes = site->cluster->nodes;
	if (pl_site_forbidden(site, expert, node))
		return false;

	for (uint32_t r = 0; r < replicas->of[expert].count; r++) {
		uint16_t other = replicas->of[expert].nodes[r];
		if (other == node ||
			(other != except && nodes[other].domain == nodes[node].domain &&
				nodes[node].domain != PL_CLUSTER_ANY))
			return false;
	}

	return true;
}

/* ---- from a wish to replicas ---- */

struct settling {
	const struct pl_site *site;
	struct pl_replicas *replicas;
	uint32_t *used; /* [nodes] */
	/* [experts] the place of an expert that is not pinned; PL_CLUSTER_ANY: none yet, or it is
	 * pinned */
	uint32_t *first;
	bool *visited; /* [nodes] by the search for one expert */
};

/* Finds a node for the expert, moving others on where all are full: an augmenting path, each node
 * visited once. */
static bool place(struct settling *s, uint32_t expert, uint32_t wish)
{
	const struct pl_site *site = s->site;

	/* first where there is room, the wish before the others; then where somebody must go */
	for (uint32_t i = 0; i < 2 * site->nodes; i++) {
		uint32_t n = wish == PL_CLUSTER_ANY ? i % site->nodes : (i + wish) % site->nodes;
		if (s->visited[n] || pl_site_forbidden(site, expert, n))
			continue;
		if (s->used[n] < site->slots[n]) {
			s->used[n]++;
			s->first[expert] = n;
			return true;
		}
		if (i < site->nodes)
			continue;
		s->visited[n] = true;
		for (uint32_t other = 0; other < site->experts; other++) {
			if (s->first[other] != n)
				continue;
			s->used[n]--;
			s->first[other] = PL_CLUSTER_ANY;
			if (place(s, other, PL_CLUSTER_ANY)) {
				s->used[n]++;
				s->first[expert] = n;
				return true;
			}
			s->used[n]++;
			s->first[other] = n;
		}
	}

	return false;
}

static enum cad_status settle(struct settling *s, const uint32_t *wish, struct cad_error *error)
{
	const struct pl_site *site = s->site;
	pl_replicas_clear(s->replicas);

	for (uint32_t e = 0; e < site->experts; e++) {
		s->first[e] = PL_CLUSTER_ANY;
		for (uint32_t n = 0; n < site->nodes; n++)
			if (pl_site_pinned(site, e, n)) {
				pl_replicas_add(s->replicas, e, n);
				if (++s->used[n] > site->slots[n])
					return cad_error_set(error, CAD_ERR_EXHAUSTED,
						"more experts are pinned to node '%s' than it has room for",
						site->cluster->nodes[n].id);
			}
	}

	/* wishes first, so that no expert loses its place to one without a wish */
	for (uint32_t pass = 0; pass < 2; pass++)
		for (uint32_t e = 0; e < site->experts; e++) {
			if (s->replicas->of[e].count > 0 || s->first[e] != PL_CLUSTER_ANY)
				continue;
			uint32_t n = wish[e];
			if (pass == 0 &&
				(n >= site->nodes || pl_site_forbidden(site, e, n) || s->used[n] >= site->slots[n]))
				continue;
			memset(s->visited, 0, site->nodes * sizeof *s->visited);
			if (!place(s, e, n < site->nodes ? n : PL_CLUSTER_ANY))
				return cad_error_set(error, CAD_ERR_EXHAUSTED,
					"expert %u has no place: the nodes that may hold it are full of experts that can go nowhere else",
					e);
		}
	for (uint32_t e = 0; e < site->experts; e++)
		if (s->first[e] != PL_CLUSTER_ANY)
			pl_replicas_add(s->replicas, e, s->first[e]);

	return CAD_OK;
}

enum cad_status pl_site_settle(
	const struct pl_site *site, const uint32_t *wish, struct pl_replicas *replicas, struct cad_error *error)
{
	struct settling s = { .site = site, .replicas = replicas };
	s.used = calloc(site->nodes, sizeof *s.used);
	s.first = calloc(site->experts, sizeof *s.first);
	s.visited = calloc(site->nodes, sizeof *s.visited);
	enum cad_status status = s.used && s.first && s.visited
		? settle(&s, wish, error)
		: cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %u experts", site->experts);
	free(s.visited);
	free(s.first);
	free(s.used);
	return status;
}
