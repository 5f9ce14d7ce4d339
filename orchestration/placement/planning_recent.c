/* SPDX-License-Identifier: Apache-2.0 */
/* Where experts were before the last rebalances. */
#include "orchestration/placement/planning.h"

#include <string.h>

/* Adds what was where in one placement, as far as that is known and of the situation's nodes. */
static enum cad_status add_before(const char *text, const struct pl_situation *situation, struct pl_plan *recent)
{
	struct pl_plan *before, *there = NULL;
	struct pl_cluster nodes;
	struct cad_error error;
	enum cad_status status =
		pl_plan_parse("the placement of the state file", text, strlen(text), &before, &nodes, &error);

	if (status != CAD_OK)
		return status == CAD_ERR_MEMORY ? status : CAD_OK;

	if (before->layers == recent->layers && before->experts == recent->experts &&
		before->nodes == nodes.nodes_count)
		status = pl_plan_translate(before, &nodes, &situation->cluster, &there);
	for (size_t i = 0; there && i < (size_t)there->layers * there->experts * there->words; i++)
		recent->bits[i] |= there->bits[i] & ~situation->present->bits[i];

	pl_plan_free(there);
	pl_plan_free(before);
	pl_cluster_fini(&nodes);
	return status;
}

enum cad_status pl_planning_take_recent(struct pl_planning_order *order, struct cad_error *error)
{
	const struct pl_plan *present = order->situation.present;

	if (!order->befores)
		return CAD_OK;
	enum cad_status status = pl_plan_create(present->layers, present->experts, present->nodes, &order->recent);
	for (char **text = order->befores; status == CAD_OK && *text; text++)
		status = add_before(*text, &order->situation, order->recent);
	return status == CAD_OK ? CAD_OK : cad_error_set(error, status, "out of memory for where experts were");
}
