/* SPDX-License-Identifier: Apache-2.0 */
/* Reports of routing and of work that anybody may have sent, to a service that knows
 * a router and an expert node: what is accepted can be asked for in every way, and
 * gives a trace that is whole. */
#include "common/rpc/codec.h"
#include "orchestration/placement/telemetry_message.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { LAYERS = 2, EXPERTS = 4, TOPK = 2, TOKENS = 8 };
static struct pl_registry registry;

static void fill_node(uint32_t slot, const char *id, enum pl_role role)
{
	struct pl_node *node = &registry.nodes[slot];
	node->presence = PL_LIVE;
	node->role = role;
	node->session = slot + 1;
	snprintf(node->id, sizeof node->id, "%s", id);
}

static void look(const struct pl_telemetry *telemetry, uint64_t now_ns)
{
	struct pl_figures figures;
	struct pl_node_figures node;
	struct pl_hot_expert hottest[4];
	struct pl_link_figures links[4];
	struct pl_telemetry_state state;
	struct pl_trace *trace;

	if (pl_telemetry_between(telemetry, 0, now_ns, &figures))
		CAD_ASSERT(isfinite(figures.nodes_per_token) && isfinite(figures.load_max_over_mean) &&
			isfinite(figures.activated_max_over_mean));
	(void)pl_telemetry_node(telemetry, 1, 0, now_ns, &node);
	CAD_ASSERT(isfinite(node.busy) && isfinite(node.waiting));
	CAD_ASSERT(pl_telemetry_hottest(telemetry, now_ns, hottest, 4) <= 4);
	(void)pl_telemetry_links(telemetry, now_ns, links, 4);
	pl_telemetry_state(telemetry, &state);
	CAD_ASSERT(state.tokens_sampled + state.tokens_lost <= state.tokens_seen && state.tokens_kept <= TOKENS);
	if (pl_telemetry_trace(telemetry, &trace, NULL) != CAD_OK)
		return;
	for (uint32_t layer = 0; layer < LAYERS; layer++)
		for (uint64_t token = 0; token < trace->tokens; token++)
			CAD_ASSERT(
				pl_trace_check_cell(pl_trace_cell(trace, layer, token), TOPK, EXPERTS, NULL) == CAD_OK);
	pl_trace_free(trace);
}

/* Reports one after another, each behind its size in two bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const uint32_t layers[LAYERS] = { 1, 3 };
	const struct pl_telemetry_options options = {
		.shape = { layers, LAYERS, EXPERTS },
		.topk = TOPK,
		.registry = &registry,
		.cluster = "c",
		.model = "m",
		.tokens = TOKENS,
		.half_life_s = 1,
	};
	struct pl_telemetry *telemetry;
	struct pl_reported reported = { 0 };
	uint64_t now_ns = CAD_NS_PER_S;

	fill_node(0, "r", PL_ROLE_ROUTER);
	fill_node(1, "e", PL_ROLE_EXPERT);
	CAD_ASSERT(pl_telemetry_create(&options, &telemetry, NULL) == CAD_OK);
	for (size_t part; size >= 2; bytes += part, size -= part) {
		part = bytes[0] | (size_t)bytes[1] << 8;
		bytes += 2;
		size -= 2;
		part = part < size ? part : size;
		struct cad_rpc_arena arena;
		ProtobufCMessage *message;
		struct cad_error error;
		cad_rpc_arena_init(&arena, 1 << 20);
		if (cad_rpc_decode(&cadre__v1__node_report__descriptor, bytes, part, &arena, &message, &error) ==
			CAD_OK) {
			const Cadre__V1__NodeReport *report = (const Cadre__V1__NodeReport *)message;
			enum cad_status status = CAD_OK;
			if (report->report_case == CADRE__V1__NODE_REPORT__REPORT_ROUTING)
				status = pl_telemetry_take_routing(
					telemetry, 1, &reported, now_ns, report->routing, &error);
			else if (report->report_case == CADRE__V1__NODE_REPORT__REPORT_WORK)
				status = pl_telemetry_take_work(telemetry, 2, now_ns, report->work, &error);
			if (status != CAD_OK) /* its stream ends */
				reported = (struct pl_reported){ 0 };
		}
		cad_rpc_arena_reset(&arena);
		now_ns += 3 * CAD_NS_PER_S / 2;
	}

	look(telemetry, now_ns);
	pl_telemetry_destroy(telemetry);
	return 0;
}
