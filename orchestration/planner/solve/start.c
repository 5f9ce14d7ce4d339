/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/solve/start.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * Of independent choices two experts would be together m = u v / tokens times, give or take
 * sqrt(m). What is beyond that, x, is taken for real as far as it stands out:
 * m + x * x^2 / (x^2 + m).
 */
static void shrink(struct pl_pairs *pairs, uint32_t tokens)
{
	uint32_t E = pairs->experts;
	for (uint32_t i = 0; i < E; i++)
		for (uint32_t j = 0; j < E; j++) {
			float *count = &pairs->together[(size_t)i * E + j],
			      mean = tokens ? pairs->uses[i] * pairs->uses[j] / (float)tokens : 0,
			      beyond = *count - mean;
			if (i != j && mean > 0)
				*count = mean + beyond * beyond * beyond / (beyond * beyond + mean);
			pairs->degree[i] += *count;
		}
}

enum cad_status pl_pairs_init(struct pl_pairs *pairs, const struct pl_layer *layer)
{
	size_t E = layer->experts;
	*pairs = (struct pl_pairs){ .experts = layer->experts };
	pairs->together = calloc(E * E, sizeof *pairs->together);
	pairs->degree = calloc(2 * E, sizeof *pairs->degree);
	if (!pairs->together || !pairs->degree) {
		pl_pairs_fini(pairs);
		return CAD_ERR_MEMORY;
	}

	pairs->uses = pairs->degree + E;
	pl_layer_count_pairs(layer, pairs->together);
	for (uint32_t e = 0; e < layer->experts; e++)
		pairs->uses[e] = (float)pl_layer_uses(layer, e);
	shrink(pairs, layer->tokens);

	return CAD_OK;
}

void pl_pairs_fini(struct pl_pairs *pairs)
{
	free(pairs->together);
	free(pairs->degree);
	*pairs = (struct pl_pairs){ 0 };
}

void pl_start_parts(const struct pl_site *site, uint32_t *parts)
{
	uint64_t slots = 0, before = 0, given = 0;
	for (uint32_t n = 0; n < site->nodes; n++)
		slots += site->slots[n];
	for (uint32_t n = 0; n < site->nodes; n++) {
		before += site->slots[n];
		parts[n] = (uint32_t)(before * site->experts / slots - given);
		given += parts[n];
	}
}

void pl_start_contiguous(uint32_t experts, uint32_t nodes, const uint32_t *parts, uint32_t *labels)
{
	uint32_t e = 0;
	for (uint32_t n = 0; n < nodes; n++)
		for (uint32_t i = 0; i < parts[n] && e < experts; i++)
			labels[e++] = n;
}

struct entry {
	float score;
	uint32_t expert, node;
};

static int by_score(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	if (x->score != y->score)
		return x->score < y->score ? 1 : -1;
	return x->expert != y->expert ? (x->expert > y->expert ? 1 : -1) : (x->node > y->node ? 1 : -1);
}

enum cad_status pl_start_balance(
	const float *score, uint32_t experts, uint32_t nodes, const uint32_t *parts, uint32_t *labels)
{
	size_t count = (size_t)experts * nodes;
	struct entry *entries = malloc(count * sizeof *entries);
	uint32_t *left = malloc(nodes * sizeof *left);
	enum cad_status status = entries && left ? CAD_OK : CAD_ERR_MEMORY;

	if (status == CAD_OK) {
		memcpy(left, parts, nodes * sizeof *left);
		for (size_t i = 0; i < count; i++)
			entries[i] = (struct entry){ score[i], (uint32_t)(i / nodes), (uint32_t)(i % nodes) };
		qsort(entries, count, sizeof *entries, by_score);
		for (uint32_t e = 0; e < experts; e++)
			labels[e] = PL_CLUSTER_ANY;
		for (size_t i = 0; i < count; i++) {
			if (labels[entries[i].expert] != PL_CLUSTER_ANY || left[entries[i].node] == 0)
				continue;
			labels[entries[i].expert] = entries[i].node;
			left[entries[i].node]--;
		}
	}

	free(left);
	free(entries);
	return status;
}

enum cad_status pl_start_groups(const struct pl_pairs *pairs, uint32_t nodes, const uint32_t *parts, uint32_t *labels)
{
	uint32_t E = pairs->experts;
	float *bond = malloc(E * sizeof *bond);

	if (!bond)
		return CAD_ERR_MEMORY;

	for (uint32_t e = 0; e < E; e++)
		labels[e] = PL_CLUSTER_ANY;
	for (uint32_t n = 0; n < nodes; n++) {
		memset(bond, 0, E * sizeof *bond);
		for (uint32_t i = 0; i < parts[n]; i++) {
			uint32_t best = PL_CLUSTER_ANY;
			for (uint32_t e = 0; e < E; e++) {
				if (labels[e] != PL_CLUSTER_ANY)
					continue;
				float value = i == 0 ? pairs->uses[e] : bond[e],
				      best_value = best == PL_CLUSTER_ANY ? 0
					: i == 0                          ? pairs->uses[best]
									  : bond[best];
				if (best == PL_CLUSTER_ANY || value > best_value)
					best = e;
			}
			if (best == PL_CLUSTER_ANY)
				break;
			labels[best] = n;
			for (uint32_t e = 0; e < E; e++)
				bond[e] += pairs->together[(size_t)best * E + e] /
					sqrtf((pairs->degree[e] + 1) * (pairs->degree[best] + 1));
		}
	}

	free(bond);
	return CAD_OK;
}

struct item {
	double rows;
	uint32_t expert, node; /* node: PL_CLUSTER_ANY until it has one */
};

static int by_rows(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	if (x->rows != y->rows)
		return x->rows < y->rows ? 1 : -1;
	return (x->expert > y->expert) - (x->expert < y->expert);
}

/* An item for every copy: one each, and the others where they help most. */
static uint32_t list_items(
	const struct pl_site *site, const struct pl_layer *layer, struct item *items, uint32_t *copies)
{
	uint32_t E = site->experts, open = 0, count = 0;
	for (uint32_t n = 0; n < site->nodes; n++)
		open += site->slots[n] > 0;
	for (uint32_t e = 0; e < E; e++)
		copies[e] = 1;
	for (uint32_t given = E; given < site->copies_max; given++) {
		uint32_t best = PL_CLUSTER_ANY;
		for (uint32_t e = 0; e < E; e++)
			if (copies[e] < open &&
				(best == PL_CLUSTER_ANY ||
					(double)pl_layer_uses(layer, e) / copies[e] >
						(double)pl_layer_uses(layer, best) / copies[best]))
				best = e;
		if (best == PL_CLUSTER_ANY)
			break;
		copies[best]++;
	}

	for (uint32_t e = 0; e < E; e++)
		for (uint32_t r = 0; r < copies[e]; r++)
			items[count++] =
				(struct item){ (double)pl_layer_uses(layer, e) / copies[e], e, PL_CLUSTER_ANY };
	qsort(items, count, sizeof *items, by_rows);
	return count;
}

enum cad_status pl_start_even(
	const struct pl_site *site, const struct pl_layer *layer, struct pl_replicas *replicas, struct cad_error *error)
{
	double rows[CAD_NODES_MAX] = { 0 };
	uint32_t used[CAD_NODES_MAX] = { 0 }, *labels = malloc(2 * site->experts * sizeof *labels);
	struct item *items = malloc((site->copies_max + 1) * sizeof *items);
	enum cad_status status = labels && items
		? CAD_OK
		: cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %u experts", site->experts);

	if (status != CAD_OK)
		goto free_items;

	uint32_t count = list_items(site, layer, items, labels + site->experts);
	pl_replicas_clear(replicas);
	for (uint32_t e = 0; e < site->experts; e++)
		labels[e] = PL_CLUSTER_ANY;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t best = PL_CLUSTER_ANY, e = items[i].expert;
		for (uint32_t n = 0; n < site->nodes; n++)
			if (used[n] < site->slots[n] && pl_site_allows(site, replicas, e, n, PL_CLUSTER_ANY) &&
				(best == PL_CLUSTER_ANY || rows[n] / site->fair[n] < rows[best] / site->fair[best]))
				best = n;
		if (best == PL_CLUSTER_ANY)
			continue;
		items[i].node = best;
		rows[best] += items[i].rows;
		used[best]++;
		pl_replicas_add(replicas, e, best);
		labels[e] = labels[e] == PL_CLUSTER_ANY ? best : labels[e];
	}

	status = pl_site_settle(site, labels, replicas, error); /* pins, and experts for which no room was left */
	uint32_t placed = 0;
	memset(used, 0, sizeof used);
	for (uint32_t e = 0; e < site->experts; e++)
		for (uint32_t r = 0; r < replicas->of[e].count; r++, placed++)
			used[replicas->of[e].nodes[r]]++;
	for (uint32_t i = 0; status == CAD_OK && i < count && placed < site->copies_max; i++) {
		uint32_t n = items[i].node;
		if (n == PL_CLUSTER_ANY || used[n] >= site->slots[n] ||
			!pl_site_allows(site, replicas, items[i].expert, n, PL_CLUSTER_ANY))
			continue;
		pl_replicas_add(replicas, items[i].expert, n);
		used[n]++;
		placed++;
	}

free_items:
	free(items);
	free(labels);

	return status;
}
