/* SPDX-License-Identifier: Apache-2.0 */
/* Maps that somebody sends to be put in force: what is taken must be whole. */
#include "common/rpc/codec.h"
#include "orchestration/placement/rebalance_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct cad_rpc_arena arena;
	ProtobufCMessage *message;
	struct pl_plan *plan;
	struct pl_cluster nodes;
	struct cad_error error = { 0 };

	cad_rpc_arena_init(&arena, 64 << 20);
	if (cad_rpc_decode(&cadre__v1__apply_map_request__descriptor, bytes, size, &arena, &message, &error) ==
		CAD_OK) {
		if (pl_plan_from_proto((const Cadre__V1__ApplyMapRequest *)message, &plan, &nodes, &error) == CAD_OK) {
			CAD_ASSERT(plan->nodes == nodes.nodes_count && plan->layers > 0 && plan->experts > 0);
			for (uint32_t l = 0; l < plan->layers; l++)
				for (uint32_t e = 0; e < plan->experts; e++)
					CAD_ASSERT(pl_plan_count(plan, l, e) > 0);
			for (uint32_t n = 0; n < nodes.nodes_count; n++)
				CAD_ASSERT(pl_cluster_find(&nodes, nodes.nodes[n].id) == n);
			pl_plan_free(plan);
			pl_cluster_fini(&nodes);
		} else {
			CAD_ASSERT(error.text[0]);
		}
	}
	cad_rpc_arena_reset(&arena);
	return 0;
}
