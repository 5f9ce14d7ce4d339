/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of experts find their nodes: those that tokens use together come into one rack. */
#include "orchestration/planner/solve/start.h"

#include <stdlib.h>
#include <string.h>

/* with many groups, fewer beginnings: each looks at all pairs of them */
enum { SWEEPS_MAX = 32, BEGINNINGS_MAX = 16, BEGINNINGS_PAIRS = 1 << 16 };

/* What the objective sums up over tokens is counted group by group here: three and more of a
 * token's groups in a rack save a little less than their pairs promise. */
struct arrangement {
	const struct pl_site *site;
	uint32_t groups; /* as many as nodes */
	uint32_t *node;  /* [groups] */
	float *both;     /* [groups][groups] tokens that use both */
	float *uses;     /* [groups] tokens */
	float *near;     /* [groups][racks] sum of `both` with the groups that are in the rack */
	float *pull;     /* [groups][nodes] the pulls of its experts, in tokens */
};

static uint32_t rack_of(const struct arrangement *a, uint32_t group)
{
	return a->site->cluster->nodes[a->node[group]].rack;
}

static void count_groups(struct arrangement *a, const struct pl_layer *layer, const uint32_t *labels)
{
	uint32_t G = a->groups, racks = a->site->cluster->racks_count;
	for (uint32_t t = 0; t < layer->tokens; t++) {
		const uint16_t *ids = layer->ids + (size_t)t * layer->k;
		uint32_t used[CAD_TOPK_MAX], count = 0;
		for (uint32_t j = 0; j < layer->k && ids[j] != PL_TRACE_NONE; j++) {
			uint32_t group = labels[ids[j]], i = 0;
			while (i < count && used[i] != group)
				i++;
			if (i < count || group >= G)
				continue;
			for (; i-- > 0;) {
				a->both[(size_t)group * G + used[i]]++;
				a->both[(size_t)used[i] * G + group]++;
			}
			a->uses[group]++;
			used[count++] = group;
		}
	}

	for (uint32_t g = 0; g < G; g++)
		for (uint32_t o = 0; o < G; o++)
			a->near[(size_t)g * racks + rack_of(a, o)] += a->both[(size_t)g * G + o];
	for (uint32_t e = 0; e < layer->experts && a->site->pull; e++)
		for (uint32_t n = 0; n < G && labels[e] < G; n++)
			a->pull[(size_t)labels[e] * G + n] += a->site->pull[(size_t)e * G + n] * (float)layer->tokens;
}

/* What the objective gains, times the tokens, when two groups change places. */
static double exchange_gain(const struct arrangement *a, uint32_t g, uint32_t o)
{
	const struct pl_site *site = a->site;
	uint32_t G = a->groups, racks = site->cluster->racks_count, from = a->node[g], to = a->node[o],
		 rack_g = rack_of(a, g), rack_o = rack_of(a, o);
	const float *near_g = a->near + (size_t)g * racks, *near_o = a->near + (size_t)o * racks,
		    *pull_g = a->pull + (size_t)g * G, *pull_o = a->pull + (size_t)o * G;
	double tokens = (double)((site->touch[from] - site->touch[to]) * (a->uses[g] - a->uses[o]));

	if (rack_g != rack_o)
		tokens += site->weights->racks *
			(double)(near_g[rack_o] - near_g[rack_g] + near_o[rack_g] - near_o[rack_o] -
				2 * a->both[(size_t)g * G + o]);
	return site->weights->nodes * tokens + (double)(pull_g[to] - pull_g[from] + pull_o[from] - pull_o[to]);
}

static void exchange(struct arrangement *a, uint32_t g, uint32_t o)
{
	uint32_t racks = a->site->cluster->racks_count, rack_g = rack_of(a, g), rack_o = rack_of(a, o),
		 node = a->node[g];

	for (uint32_t other = 0; other < a->groups; other++) {
		float difference = a->both[(size_t)other * a->groups + g] - a->both[(size_t)other * a->groups + o];
		a->near[(size_t)other * racks + rack_g] -= difference;
		a->near[(size_t)other * racks + rack_o] += difference;
	}
	a->node[g] = a->node[o];
	a->node[o] = node;
}

static bool may_exchange(const struct arrangement *a, uint32_t g, uint32_t o)
{
	return a->site->slots[a->node[g]] == a->site->slots[a->node[o]];
}

static void shuffle(struct arrangement *a, struct cad_random *random)
{
	for (uint32_t g = 0; g < a->groups; g++) {
		uint32_t o = (uint32_t)cad_random_below(random, a->groups);
		if (may_exchange(a, g, o))
			exchange(a, g, o);
	}
}

/* Exchanges groups while that gains. Returns what the objective gains in comparison with one rack
 * of average links, times the tokens. */
static double improve(struct arrangement *a)
{
	const struct pl_site *site = a->site;
	bool changed = true;

	for (uint32_t sweep = 0; changed && sweep < SWEEPS_MAX; sweep++) {
		changed = false;
		for (uint32_t g = 0; g < a->groups; g++)
			for (uint32_t o = g + 1; o < a->groups; o++)
				if (may_exchange(a, g, o) && exchange_gain(a, g, o) > 0.5) {
					exchange(a, g, o);
					changed = true;
				}
	}

	double gain = 0;
	for (uint32_t g = 0; g < a->groups; g++) {
		double near = (double)a->near[(size_t)g * site->cluster->racks_count + rack_of(a, g)] / 2;
		gain += site->weights->nodes *
				(site->weights->racks * near - (double)(site->touch[a->node[g]] * a->uses[g])) +
			(double)a->pull[(size_t)g * a->groups + a->node[g]];
	}

	return gain;
}

enum cad_status pl_start_arrange(
	const struct pl_site *site, const struct pl_layer *layer, struct cad_random random, uint32_t *labels)
{
	size_t G = site->nodes, racks = site->cluster->racks_count;
	struct arrangement a = { .site = site, .groups = site->nodes };

	a.node = malloc(2 * G * sizeof *a.node);
	a.both = calloc(G * (2 * G + 1 + racks), sizeof *a.both);
	enum cad_status status = a.node && a.both ? CAD_OK : CAD_ERR_MEMORY;
	if (status == CAD_OK) {
		a.pull = a.both + G * G;
		a.uses = a.pull + G * G;
		a.near = a.uses + G;
		for (uint32_t g = 0; g < G; g++)
			a.node[g] = g;
		count_groups(&a, layer, labels);
		uint32_t *best = a.node + G;
		double best_gain = 0;
		size_t beginnings = BEGINNINGS_PAIRS / (G * G);
		for (size_t i = 0; i == 0 || (i < beginnings && i < BEGINNINGS_MAX); i++) {
			if (i > 0)
				shuffle(&a, &random);
			double gain = improve(&a);
			if (i > 0 && gain <= best_gain)
				continue;
			best_gain = gain;
			memcpy(best, a.node, G * sizeof *best);
		}
		for (uint32_t e = 0; e < layer->experts; e++)
			labels[e] = labels[e] < G ? best[labels[e]] : labels[e];
	}

	free(a.both);
	free(a.node);
	return status;
}
