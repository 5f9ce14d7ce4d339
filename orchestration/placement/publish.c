/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/publish.h"

#include <stdlib.h>

static bool holds_experts(const struct pl_node *node) { return node->role == PL_ROLE_EXPERT && pl_node_counts(node); }

enum cad_status pl_publish_map(const struct pl_registry *registry, const struct pl_rollout *rollout,
	const struct pl_shape *shape, uint64_t epoch, struct cad_map **map, struct cad_error *error)
{
	struct cad_map_node nodes[CAD_PROCESSES_MAX];
	uint32_t cells = pl_shape_cells(shape), count = 0;
	size_t replicas_count = 0, replicas_max = 0;

	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		replicas_max += holds_experts(&registry->nodes[slot]) ? cells : 0;
	struct cad_map_replica *replicas = malloc((replicas_max + 1) * sizeof *replicas);
	if (!replicas)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a map");

	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		const struct pl_node *node = &registry->nodes[slot];
		if (!holds_experts(node))
			continue;
		for (uint32_t cell = 0; cell < cells; cell++)
			if (pl_rollout_copy(rollout, slot, cell) == PL_COPY_READY)
				replicas[replicas_count++] = (struct cad_map_replica){ pl_cell_layer(shape, cell),
					pl_cell_expert(shape, cell), count };
		nodes[count++] = (struct cad_map_node){ node->id, node->exchange_address, node->http_address, true,
			(float)node->speed };
	}

	const struct cad_map_source source = {
		.epoch = epoch,
		.nodes = nodes,
		.nodes_count = count,
		.layers = shape->layers,
		.layers_count = shape->layers_count,
		.experts = shape->experts,
		.replicas = replicas,
		.replicas_count = replicas_count,
	};
	enum cad_status status = cad_map_create(&source, map, error);
	free(replicas);

	return status;
}

struct saving {
	const struct pl_shape *shape;
	struct pl_state *state;
	const char *id;
	bool count_only; /* everything is written anyway */
};

static void save_one(void *context, uint32_t cell, bool held)
{
	const struct saving *saving = context;
	if (!saving->count_only)
		pl_state_put_held(saving->state, saving->id, pl_cell_layer(saving->shape, cell),
			pl_cell_expert(saving->shape, cell), held);
}

static void save_whole_node(
	const struct pl_node *node, const struct pl_rollout *rollout, uint32_t slot, const struct saving *saving)
{
	pl_state_delete_node(saving->state, node->id);
	if (!pl_node_counts(node))
		return;
	pl_state_put_node(saving->state, node);
	for (uint32_t cell = 0; cell < pl_shape_cells(saving->shape); cell++)
		if (pl_rollout_copy(rollout, slot, cell) == PL_COPY_READY)
			pl_state_put_held(saving->state, node->id, pl_cell_layer(saving->shape, cell),
				pl_cell_expert(saving->shape, cell), true);
}

void pl_publish_save(const struct pl_registry *registry, struct pl_rollout *rollout, const struct pl_shape *shape,
	uint64_t epoch, const char *all_kernels, struct pl_state *state)
{
	pl_state_put_epoch(state, epoch);
	if (all_kernels)
		pl_state_put_kernels(state, all_kernels);
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		const struct pl_node *node = &registry->nodes[slot];
		if (node->presence == PL_FREE)
			continue;
		struct saving saving = { shape, state, node->id, all_kernels != NULL };
		pl_rollout_unsaved(rollout, slot, save_one, &saving);
		if (all_kernels)
			save_whole_node(node, rollout, slot, &saving);
	}
}
