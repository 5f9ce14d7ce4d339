/* SPDX-License-Identifier: Apache-2.0 */
/* Plans and clusters that anybody wrote. The first byte says which; what is taken must be whole,
 * and a plan must be the same after writing and reading. */
#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/plan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void try_plan(const char *text, size_t size)
{
	struct pl_plan *plan, *again;
	struct pl_cluster nodes, nodes_again;
	struct cad_error error = { 0 };

	if (pl_plan_parse("plan", text, size, &plan, &nodes, &error) != CAD_OK) {
		CAD_ASSERT(error.text[0]);
		return;
	}

	size_t cells = (size_t)plan->layers * plan->experts;
	for (size_t i = 0; i < cells; i++) {
		uint64_t any = 0;
		for (uint32_t w = 0; w < plan->words; w++)
			any |= plan->bits[i * plan->words + w];
		CAD_ASSERT(any);
	}

	json_t *json = pl_plan_to_json(plan, nodes.nodes_count ? &nodes : NULL, "fuzz", 1, 0);
	char *written = json_dumps(json, 0);
	CAD_ASSERT(written && pl_plan_parse("again", written, strlen(written), &again, &nodes_again, &error) == CAD_OK);
	CAD_ASSERT(memcmp(again->bits, plan->bits, cells * plan->words * sizeof *plan->bits) == 0 &&
		memcmp(again->layer, plan->layer, plan->layers * sizeof *plan->layer) == 0);
	CAD_ASSERT(nodes_again.nodes_count == nodes.nodes_count &&
		(nodes.nodes_count == 0 || nodes.nodes_count == plan->nodes));
	for (uint32_t n = 0; n < nodes.nodes_count; n++)
		CAD_ASSERT(strcmp(nodes.nodes[n].id, nodes_again.nodes[n].id) == 0);
	free(written);
	json_decref(json);
	pl_cluster_fini(&nodes);
	pl_cluster_fini(&nodes_again);
	pl_plan_free(again);
	pl_plan_free(plan);
}

static void try_cluster(const char *text, size_t size)
{
	struct pl_cluster cluster;
	struct cad_error error = { 0 };

	if (pl_cluster_parse("cluster", text, size, &cluster, &error) != CAD_OK) {
		CAD_ASSERT(error.text[0]);
		return;
	}

	CAD_ASSERT(cluster.nodes_count >= 1 && cluster.nodes_count <= CAD_NODES_MAX && cluster.racks_count >= 1);
	for (uint32_t n = 0; n < cluster.nodes_count; n++)
		CAD_ASSERT(cluster.nodes[n].rack < cluster.racks_count && cluster.nodes[n].speed > 0 &&
			cluster.nodes[n].link > 0 && pl_cluster_find(&cluster, cluster.nodes[n].id) == n);
	for (uint32_t i = 0; i < cluster.rules_count; i++)
		CAD_ASSERT(cluster.rules[i].node < cluster.nodes_count);
	pl_cluster_fini(&cluster);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	if (size == 0)
		return 0;

	char *text = malloc(size);
	CAD_ASSERT(text);
	memcpy(text, bytes + 1, size - 1);
	if (bytes[0] & 1)
		try_plan(text, size - 1);
	else
		try_cluster(text, size - 1);
	free(text);

	return 0;
}
