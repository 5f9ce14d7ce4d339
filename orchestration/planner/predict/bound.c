/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/predict/bound.h"

#include "orchestration/planner/solve/site.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ITERATIONS = 100, COST_MAX = CAD_TOPK_MAX * CAD_TOPK_MAX / 2 };

struct priced {
	double price;
	uint32_t expert;
};

/* One layer. */
struct bound {
	uint32_t experts, room, nodes; /* room: of the largest node */
	uint32_t spare;                /* copies beyond one of each */
	float *together;               /* [experts][experts] tokens that choose both */
	double *price;                 /* [experts] of one that shares a node with the expert */
	double *partners;              /* [experts] how many would, at these prices, beyond those that can */
	struct priced *order;          /* [experts] scratch */
	uint64_t steps[COST_MAX + 1];  /* tokens that save a node when they have so many pairs more on one node */
	uint64_t pairs;                /* (token, expert) */
};

static void bound_fini(struct bound *b)
{
	free(b->together);
	free(b->price);
	free(b->order);
}

static enum cad_status bound_init(struct bound *b, const struct pl_site *site)
{
	size_t E = site->experts;
	*b = (struct bound){ .experts = site->experts, .spare = site->copies_max - site->experts };
	for (uint32_t n = 0; n < site->nodes; n++) {
		b->room = site->slots[n] > b->room ? site->slots[n] : b->room;
		b->nodes += site->slots[n] > 0;
	}

	b->together = calloc(E * E, sizeof *b->together);
	b->price = calloc(2 * E, sizeof *b->price);
	b->order = calloc(E, sizeof *b->order);
	if (!b->together || !b->price || !b->order) {
		bound_fini(b);
		return CAD_ERR_MEMORY;
	}

	b->partners = b->price + E;
	return CAD_OK;
}

/* The fewest pairs on one node that k experts on so many nodes have: when they are spread
 * evenly. */
static uint32_t fewest_pairs(uint32_t k, uint32_t nodes)
{
	uint32_t each = k / nodes, more = k % nodes;
	return nodes * (each * (each - 1) / 2) + more * each;
}

static void count_tokens(struct bound *b, const struct pl_layer *layer)
{
	uint64_t sizes[CAD_TOPK_MAX + 1] = { 0 };
	for (uint32_t t = 0; t < layer->tokens; t++) {
		const uint16_t *ids = layer->ids + (size_t)t * layer->k;
		uint32_t k = 0;
		while (k < layer->k && ids[k] != PL_TRACE_NONE)
			k++;
		sizes[k]++;
	}

	pl_layer_count_pairs(layer, b->together);
	b->pairs = layer->pairs;
	for (uint32_t k = 1; k <= layer->k; k++)
		for (uint32_t nodes = k; nodes > (k + b->room - 1) / b->room; nodes--)
			b->steps[fewest_pairs(k, nodes - 1) - fewest_pairs(k, nodes)] += sizes[k];
}

static int by_price(const void *a, const void *b)
{
	const struct priced *x = a, *y = b;
	if (x->price != y->price)
		return x->price < y->price ? 1 : -1;
	return (x->expert > y->expert) - (x->expert < y->expert);
}

/*
 * The pairs on one node at most, by these prices: what all experts that can share a node pay,
 * copies given to those who pay most, and what pairs are worth beyond both prices. Fills
 * `partners`, along which the prices go down.
 */
static double weigh(struct bound *b)
{
	uint32_t E = b->experts, spare = b->spare;
	double sum = 0, beyond = 0;

	memset(b->partners, 0, E * sizeof *b->partners);

	for (uint32_t e = 0; e < E; e++) {
		const float *row = b->together + (size_t)e * E;
		for (uint32_t o = 0; o < e; o++) {
			double left = (double)row[o] - b->price[e] - b->price[o], wanted = left > 0;
			beyond += wanted * left;
			b->partners[e] += wanted;
			b->partners[o] += wanted;
		}
		b->order[e] = (struct priced){ b->price[e], e };
	}

	qsort(b->order, E, sizeof *b->order, by_price);

	for (uint32_t i = 0; i < E; i++) {
		uint32_t more = spare < b->nodes - 1 ? spare : b->nodes - 1;
		double can = (double)(b->room - 1) * (1 + more);
		spare -= more;
		sum += can * b->order[i].price;
		b->partners[b->order[i].expert] -= can;
	}

	return sum + beyond;
}

/* The best of the bounds that a hundred steps of a subgradient search come by: each is valid. */
static double most_pairs(struct bound *b)
{
	uint32_t E = b->experts;
	double best = 0;

	for (uint32_t e = 0; e < E; e++) {
		double sum = 0;
		for (uint32_t o = 0; o < E; o++)
			sum += (double)b->together[(size_t)e * E + o];
		b->price[e] = E > 1 ? sum / (2 * (E - 1)) : 0;
	}

	for (uint32_t i = 0; i < ITERATIONS; i++) {
		double pairs = weigh(b), prices = 0, off = 0;
		best = i == 0 || pairs < best ? pairs : best;
		for (uint32_t e = 0; e < E; e++) {
			prices += b->price[e];
			off += fabs(b->partners[e]);
		}
		if (off <= 0)
			break;
		double step = 0.5 / (1 + 0.3 * i) * prices / off;
		for (uint32_t e = 0; e < E; e++)
			b->price[e] = fmax(0, b->price[e] + step * b->partners[e]);
	}

	return best;
}

/* Every expert of a token on a node of its own, less what so many pairs can save, the cheapest
 * first. */
static double fewest_nodes(const struct bound *b, double pairs)
{
	double nodes = (double)b->pairs;
	for (uint32_t cost = 1; cost <= COST_MAX && pairs > 0; cost++) {
		double steps = fmin((double)b->steps[cost], pairs / cost);
		nodes -= steps;
		pairs -= steps * cost;
	}
	return nodes;
}

enum cad_status pl_bound(const struct pl_sample *sample, const struct pl_cluster *cluster, uint32_t copies,
	double *nodes_per_token, struct cad_error *error)
{
	const struct pl_trace *trace = sample->trace;
	const struct pl_weights weights = pl_weights_of(PL_WORKLOAD_MIXED);
	double sum = 0;

	for (uint32_t l = 0; l < trace->layers; l++) {
		struct pl_site site;
		struct pl_layer layer;
		struct bound b;
		enum cad_status status = pl_site_init(&site, cluster, &weights,
			(struct pl_site_layer){ trace->layers, l, trace->experts, copies, trace->layer[l] }, error);
		if (status != CAD_OK)
			return status;
		status = bound_init(&b, &site);
		pl_site_fini(&site);
		if (status == CAD_OK) {
			status = pl_layer_init(&layer, sample, l, 1);
			if (status == CAD_OK) {
				count_tokens(&b, &layer);
				sum += fewest_nodes(&b, most_pairs(&b));
				pl_layer_fini(&layer);
			}
			bound_fini(&b);
		}
		if (status != CAD_OK)
			return cad_error_set(error, status, "out of memory for the bound of layer %u", l);
	}

	*nodes_per_token = sum / trace->layers / (sample->tokens ? sample->tokens : 1);
	return CAD_OK;
}
