/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/objective/replicas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum cad_status pl_replicas_init(struct pl_replicas *replicas, uint32_t experts, uint32_t nodes)
{
	*replicas = (struct pl_replicas){ .experts = experts, .nodes = nodes, .words = cad_map_words(nodes) };
	replicas->lists = malloc((size_t)experts * nodes * sizeof *replicas->lists);
	replicas->sets = calloc((size_t)experts * replicas->words, sizeof *replicas->sets);
	replicas->of = calloc(experts, sizeof *replicas->of);
	if (!replicas->lists || !replicas->sets || !replicas->of) {
		pl_replicas_fini(replicas);
		return CAD_ERR_MEMORY;
	}

	for (uint32_t e = 0; e < experts; e++)
		replicas->of[e] = (struct cad_map_replicas){
			.nodes = replicas->lists + (size_t)e * nodes,
			.set = replicas->sets + (size_t)e * replicas->words,
		};
	return CAD_OK;
}

void pl_replicas_fini(struct pl_replicas *replicas)
{
	free(replicas->lists);
	free(replicas->sets);
	free(replicas->of);
	*replicas = (struct pl_replicas){ 0 };
}

void pl_replicas_clear(struct pl_replicas *replicas)
{
	memset(replicas->sets, 0, (size_t)replicas->experts * replicas->words * sizeof *replicas->sets);
	for (uint32_t e = 0; e < replicas->experts; e++)
		replicas->of[e].count = 0;
}

void pl_replicas_load(struct pl_replicas *replicas, const struct pl_plan *plan, uint32_t layer)
{
	for (uint32_t e = 0; e < replicas->experts; e++) {
		uint16_t *list = replicas->lists + (size_t)e * replicas->nodes;
		uint32_t count = 0;
		const uint64_t *set = pl_plan_set(plan, layer, e);
		for (uint32_t w = 0; w < plan->words; w++)
			for (uint64_t bits = set[w]; bits; bits &= bits - 1)
				list[count++] = (uint16_t)(w * 64 + (uint32_t)__builtin_ctzll(bits));
		replicas->of[e].count = count;
	}
	memcpy(replicas->sets, pl_plan_set(plan, layer, 0),
		(size_t)replicas->experts * replicas->words * sizeof *replicas->sets);
}

void pl_replicas_store(const struct pl_replicas *replicas, struct pl_plan *plan, uint32_t layer)
{
	memset(pl_plan_set(plan, layer, 0), 0, (size_t)plan->experts * plan->words * sizeof *plan->bits);
	for (uint32_t e = 0; e < replicas->experts; e++)
		for (uint32_t r = 0; r < replicas->of[e].count; r++)
			pl_plan_put(plan, layer, e, replicas->of[e].nodes[r]);
}

bool pl_replicas_hold(const struct pl_replicas *replicas, uint32_t expert, uint32_t node)
{
	return cad_map_set_has(replicas->of[expert].set, node);
}

void pl_replicas_add(struct pl_replicas *replicas, uint32_t expert, uint32_t node)
{
	uint16_t *list = replicas->lists + (size_t)expert * replicas->nodes;
	uint32_t at = replicas->of[expert].count++;
	for (; at > 0 && list[at - 1] > node; at--)
		list[at] = list[at - 1];
	list[at] = (uint16_t)node;
	cad_map_set_add(replicas->sets + (size_t)expert * replicas->words, node);
}

void pl_replicas_drop(struct pl_replicas *replicas, uint32_t expert, uint32_t node)
{
	uint16_t *list = replicas->lists + (size_t)expert * replicas->nodes;
	uint32_t at = 0, count = --replicas->of[expert].count;
	while (list[at] != node)
		at++;
	for (; at < count; at++)
		list[at] = list[at + 1];
	replicas->sets[(size_t)expert * replicas->words + node / 64] &= ~(1ull << node % 64);
}

uint32_t pl_distinct_nodes(const uint16_t *home, uint32_t k, uint16_t *nodes)
{
	uint32_t count = 0;
	for (uint32_t j = 0; j < k; j++) {
		bool fresh = home[j] != CAD_COVER_NONE;
		for (uint32_t i = 0; i < count; i++)
			fresh = fresh && nodes[i] != home[j];
		if (fresh)
			nodes[count++] = home[j];
	}
	return count;
}

bool pl_cluster_units(const struct pl_cluster *cluster, uint32_t *unit)
{
	double speed = 0;
	bool differ = false;

	for (uint32_t n = 0; n < cluster->nodes_count; n++)
		speed += cluster->nodes[n].speed / cluster->nodes_count;
	for (uint32_t n = 0; n < cluster->nodes_count; n++) {
		double cost = round(PL_UNIT * speed / cluster->nodes[n].speed);
		unit[n] = cost < 1 ? 1 : cost > 65535 ? 65535 : (uint32_t)cost;
		differ = differ || unit[n] != unit[0];
	}
	return differ;
}
