/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/solve/pull.h"

#include <math.h>

void pl_pull_to_plan(struct pl_site *site, const struct pl_plan *plan, uint32_t layer, double moves)
{
	uint32_t E = site->experts, N = site->nodes;
	for (uint32_t e = 0; e < E; e++)
		for (uint32_t n = 0; n < N; n++)
			if (pl_plan_holds(plan, layer, e, n))
				site->pull[(size_t)e * N + n] += (float)(moves * site->weights->move / E);
}

void pl_pull_by_copies(struct pl_site *site, const struct pl_layer *layer)
{
	uint32_t E = site->experts, N = site->nodes;
	double sum = 0;
	for (int pass = 0; pass < 2; pass++)
		for (uint32_t e = 0; e < E; e++) {
			double idle = pow(1 - (double)pl_layer_uses(layer, e) / layer->tokens, PL_BATCH);
			sum += pass == 0 ? 1 - idle : 0;
			for (uint32_t n = 0; n < N && pass == 1; n++)
				site->pull[(size_t)e * N + n] -= (float)(site->weights->active * (1 - idle) / sum);
		}
}

void pl_pull_to_neighbour(struct pl_site *site, const struct pl_layer *layer, uint32_t stride,
	const struct pl_plan *plan, uint32_t neighbour, struct pl_replicas *scratch)
{
	const struct pl_sample *sample = layer->sample;
	uint32_t k = layer->k, N = site->nodes;
	float each = (float)(site->weights->affinity / ((double)layer->tokens * k));

	pl_replicas_load(scratch, plan, neighbour);
	for (uint32_t t = 0; t < layer->tokens; t++) {
		const uint16_t *ids = pl_trace_row(sample->trace, neighbour, sample->token[(size_t)t * stride]),
			       *own = layer->ids + (size_t)t * k;
		uint16_t home[CAD_TOPK_MAX], touched[CAD_TOPK_MAX];
		pl_replicas_cover(scratch, ids, k, NULL, home);
		uint32_t count = pl_distinct_nodes(home, k, touched);
		for (uint32_t i = 0; i < count; i++)
			for (uint32_t j = 0; j < k && own[j] != PL_TRACE_NONE; j++)
				site->pull[(size_t)own[j] * N + touched[i]] += each;
	}
}
