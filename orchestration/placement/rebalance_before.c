/* SPDX-License-Identifier: Apache-2.0 */
/* Where experts were before the last rebalances, as the state file has it. */
#include "orchestration/placement/rebalance_internal.h"

/* Adds what was where before one rebalance, as far as that is known and of these nodes. */
static enum cad_status add_before(
	struct pl_rebalance_table *table, uint64_t id, const struct pl_situation *situation, struct pl_plan *recent)
{
	struct pl_plan *before;
	struct pl_cluster nodes;
	struct cad_error error;
	uint32_t to[CAD_NODES_MAX];
	enum cad_status status = pl_rebalance_table_plan(table, id, false, &before, &nodes, &error);

	if (status != CAD_OK)
		return status == CAD_ERR_MEMORY ? status : CAD_OK;

	for (uint32_t n = 0; n < nodes.nodes_count; n++)
		to[n] = pl_cluster_find(&situation->cluster, nodes.nodes[n].id);
	bool alike = before->layers == recent->layers && before->experts == recent->experts &&
		before->nodes == nodes.nodes_count;
	for (uint32_t l = 0; alike && l < before->layers; l++)
		for (uint32_t e = 0; e < before->experts; e++)
			for (uint32_t n = 0; (n = pl_plan_next(before, l, e, n)) != UINT32_MAX; n++)
				if (to[n] != PL_CLUSTER_ANY && !pl_plan_holds(situation->present, l, e, to[n]))
					pl_plan_put(recent, l, e, to[n]);

	pl_plan_free(before);
	pl_cluster_fini(&nodes);
	return CAD_OK;
}

enum cad_status pl_rebalances_recent(struct pl_rebalances *rebalances, const struct pl_situation *situation,
	struct pl_plan **recent, struct cad_error *error)
{
	const struct pl_plan *present = situation->present;
	uint64_t since_ms = pl_rebalances_ago_ms(rebalances, rebalances->options.recent_ms), id = 0;
	struct pl_plan *made = NULL;
	enum cad_status status = pl_plan_create(present->layers, present->experts, present->nodes, &made);

	while (status == CAD_OK && (id = pl_rebalance_table_forced(rebalances->table, id, since_ms)) != 0)
		status = add_before(rebalances->table, id, situation, made);
	if (status != CAD_OK) {
		pl_plan_free(made);
		return cad_error_set(error, status, "out of memory for where experts were");
	}
	*recent = made;
	return CAD_OK;
}
