/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/telemetry_message.h"

#include <string.h>

/* Above what any process counts between two reports, so that no sum ever overflows. */
static const uint64_t COUNT_MAX = 1ull << 48;

static enum cad_status check_counts(
	const Cadre__V1__RoutingReport *message, struct pl_reported *reported, struct cad_error *error)
{
	uint64_t tokens = message->tokens, lost = message->lost, rows = message->routed_rows,
		 nodes = message->nodes_touched;

	if (tokens > COUNT_MAX || lost > tokens || rows > COUNT_MAX || nodes > COUNT_MAX)
		return cad_error_set(error, CAD_ERR_INVALID,
			"it counts %llu tokens, %llu of them lost, %llu rows and %llu nodes, which cannot be",
			(unsigned long long)tokens, (unsigned long long)lost, (unsigned long long)rows,
			(unsigned long long)nodes);
	reported->tokens += tokens;
	reported->accounted += lost + message->n_requests;
	if (reported->accounted > reported->tokens)
		return cad_error_set(error, CAD_ERR_INVALID, "it samples %llu of %llu tokens",
			(unsigned long long)reported->accounted, (unsigned long long)reported->tokens);
	return CAD_OK;
}

static enum cad_status check_sample(
	const struct pl_telemetry_options *o, const Cadre__V1__RoutingReport *message, struct cad_error *error)
{
	size_t row = o->topk, cells = message->n_requests * o->shape.layers_count;
	uint16_t ids[CAD_TOPK_MAX];

	if (message->n_requests > message->experts.len || message->experts.len != cells * row * sizeof *ids)
		return cad_error_set(error, CAD_ERR_INVALID,
			"%zu bytes of experts for %zu tokens of %u layers and %u experts per token",
			message->experts.len, message->n_requests, o->shape.layers_count, o->topk);
	if (message->n_requests > 0 && !(message->share > 0 && message->share <= 1))
		return cad_error_set(error, CAD_ERR_INVALID, "a sample with a share of %g, not above 0 and at most 1",
			(double)message->share);
	for (size_t i = 0; i < cells; i++) {
		memcpy(ids, message->experts.data + i * row * sizeof *ids, row * sizeof *ids);
		enum cad_status status = pl_trace_check_cell(ids, o->topk, o->shape.experts, error);
		if (status != CAD_OK)
			return cad_error_prefix(error, "token %zu of the sample, layer %u", i / o->shape.layers_count,
				o->shape.layers[i % o->shape.layers_count]);
	}
	return CAD_OK;
}

/* Names come in the order of the map, which is that of the slots, so the search begins behind the last one.
 * A node that is not known any more is left out. */
static size_t find_nodes(const struct pl_registry *registry, const Cadre__V1__RoutingReport *message,
	struct pl_traffic traffic[CAD_ROUTER_CONNECTIONS_MAX])
{
	uint32_t slot = 0;
	size_t count = 0;

	for (size_t i = 0; i < message->n_traffic; i++)
		for (uint32_t tried = 0; tried < CAD_PROCESSES_MAX; tried++) {
			slot = slot + 1 < CAD_PROCESSES_MAX ? slot + 1 : 0;
			const struct pl_node *node = &registry->nodes[slot];
			if (node->presence == PL_FREE || node->role != PL_ROLE_EXPERT ||
				strcmp(node->id, message->traffic[i]->node) != 0)
				continue;
			traffic[count++] = (struct pl_traffic){ slot, message->traffic[i]->bytes_sent,
				message->traffic[i]->bytes_received };
			break;
		}
	return count;
}

static enum cad_status check_traffic(const Cadre__V1__RoutingReport *message, struct cad_error *error)
{
	if (message->n_traffic > CAD_ROUTER_CONNECTIONS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "traffic with %zu nodes, and a router has at most %d",
			message->n_traffic, CAD_ROUTER_CONNECTIONS_MAX);
	for (size_t i = 0; i < message->n_traffic; i++)
		if (message->traffic[i]->bytes_sent > COUNT_MAX || message->traffic[i]->bytes_received > COUNT_MAX)
			return cad_error_set(error, CAD_ERR_INVALID, "traffic of more bytes than there can be");
	return CAD_OK;
}

static int slot_of(const struct pl_registry *registry, uint64_t session)
{
	for (int slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		if (registry->nodes[slot].session == session && registry->nodes[slot].presence == PL_LIVE)
			return slot;
	return -1;
}

enum cad_status pl_telemetry_take_routing(struct pl_telemetry *telemetry, uint64_t session,
	struct pl_reported *reported, uint64_t now_ns, const Cadre__V1__RoutingReport *message, struct cad_error *error)
{
	const struct pl_telemetry_options *o = pl_telemetry_options(telemetry);
	struct pl_traffic traffic[CAD_ROUTER_CONNECTIONS_MAX];
	int slot = slot_of(o->registry, session);

	if (slot < 0)
		return CAD_OK; /* given up; its stream is about to be closed */
	const struct pl_node *node = &o->registry->nodes[slot];
	if (node->role != PL_ROLE_ROUTER)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' reports routing and is not a router", node->id);
	enum cad_status status = check_counts(message, reported, error);
	if (status == CAD_OK)
		status = check_sample(o, message, error);
	if (status == CAD_OK)
		status = check_traffic(message, error);
	if (status != CAD_OK) {
		(void)cad_error_prefix(error, "a report of routing from '%s'", node->id);
		return CAD_ERR_INVALID;
	}

	const struct pl_routing_report report = {
		.tokens = message->tokens,
		.lost = message->lost,
		.rows = message->routed_rows,
		.nodes = message->nodes_touched,
		.traffic = traffic,
		.traffic_count = find_nodes(o->registry, message, traffic),
		.share = (double)message->share,
		.requests = message->requests,
		.ids = (const uint16_t *)(const void *)message->experts.data,
		.sampled = message->n_requests,
	};
	pl_telemetry_routing(telemetry, (uint32_t)slot, now_ns, &report);
	return CAD_OK;
}
