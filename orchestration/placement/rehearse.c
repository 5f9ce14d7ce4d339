/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/rehearse.h"

#include "orchestration/placement/rollout_internal.h"

#include <stdlib.h>

/* Orders of one turn, which are carried out after it. */
struct stage {
	struct order {
		uint32_t slot, cell;
		bool load;
	} * orders;
	size_t count, capacity;
	bool exhausted;
};

static void note(struct stage *stage, uint32_t slot, const uint32_t *cells, uint32_t count, bool load)
{
	if (stage->count + count > stage->capacity) {
		size_t capacity = 2 * (stage->count + count);
		struct order *grown = realloc(stage->orders, capacity * sizeof *grown);
		if (!grown) {
			stage->exhausted = true;
			return;
		}
		stage->orders = grown;
		stage->capacity = capacity;
	}
	for (uint32_t i = 0; i < count; i++)
		stage->orders[stage->count++] = (struct order){ slot, cells[i], load };
}

static void on_load(void *context, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	note(context, slot, cells, count, true);
}

static void on_free(void *context, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	note(context, slot, cells, count, false);
}

static enum cad_status set_up(struct pl_rollout *rollout, const struct pl_cluster *cluster, const struct pl_plan *held,
	const struct pl_plan *target)
{
	uint32_t *slots = malloc((cluster->nodes_count + 1u) * sizeof *slots);
	enum cad_status status = slots ? CAD_OK : CAD_ERR_MEMORY;

	for (uint32_t n = 0; status == CAD_OK && n < cluster->nodes_count; n++) {
		slots[n] = n;
		status = pl_rollout_add(rollout, n, cluster->nodes[n].memory_bytes);
		rollout->slots[n].reachable = true;
		for (uint32_t cell = 0; status == CAD_OK && cell < rollout->cells; cell++)
			if (pl_plan_holds(held, cell / held->experts, cell % held->experts, n))
				pl_rollout_restore(rollout, n, cell);
	}
	if (status == CAD_OK)
		pl_rollout_target(rollout, target, slots);
	free(slots);
	return status;
}

/* Turns until there is nothing to do. When room gets short and the rollout finds some, it always
 * will: a move leaves as much room as it finds. */
static bool play(struct pl_rollout *rollout, struct stage *stage)
{
	const struct pl_rollout_orders orders = { .load = on_load, .free = on_free, .context = stage };

	for (uint64_t epoch = 1;; epoch++) {
		pl_rollout_published(rollout, epoch, 0);
		stage->count = 0;
		pl_rollout_turn(rollout, UINT64_MAX, 0, &orders);
		if (rollout->acted == 0 || rollout->made_room || stage->exhausted)
			return !rollout->stuck;
		for (size_t i = 0; i < stage->count; i++)
			if (stage->orders[i].load)
				pl_rollout_loaded(rollout, stage->orders[i].slot, stage->orders[i].cell, true, 0);
			else
				pl_rollout_freed(rollout, stage->orders[i].slot, stage->orders[i].cell);
	}
}

enum cad_status pl_rehearse(
	const struct pl_cluster *cluster, const struct pl_plan *held, const struct pl_plan *target, bool *reached)
{
	const struct pl_rollout_options options = {
		.shape = { target->layer, target->layers, target->experts },
		.expert_bytes = cluster->expert_bytes,
		.loads_max = UINT32_MAX,
		.moves_max = UINT32_MAX,
	};
	struct stage stage = { 0 };
	struct pl_rollout *rollout;
	enum cad_status status = pl_rollout_create(&options, &rollout);

	if (status != CAD_OK)
		return status;
	status = set_up(rollout, cluster, held, target);
	if (status == CAD_OK)
		*reached = play(rollout, &stage);
	if (status == CAD_OK && stage.exhausted)
		status = CAD_ERR_MEMORY;
	free(stage.orders);
	pl_rollout_destroy(rollout);
	return status;
}
