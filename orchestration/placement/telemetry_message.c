/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/telemetry_message.h"

#include <stdlib.h>
#include <string.h>

/* Above what any process counts between two reports, so that no sum ever overflows. */
static const uint64_t COUNT_MAX = 1ull << 48;

/* Counts of a node are read while steps count: one of them may be ahead of another by this much. */
enum { STEPS_AHEAD = 16, PAIRS_AHEAD = 1 << 20 };

/* ---- routers ---- */

static enum cad_status check_counts(
	const Cadre__V1__RoutingReport *message, struct pl_reported *reported, struct cad_error *error)
{
	uint64_t tokens = message->tokens, lost = message->lost, rows = message->routed_rows,
		 nodes = message->nodes_touched;

	if (tokens > COUNT_MAX || lost > tokens || rows > COUNT_MAX || nodes > COUNT_MAX ||
		message->calls > COUNT_MAX || message->calls_hedged > COUNT_MAX)
		return cad_error_set(error, CAD_ERR_INVALID,
			"it counts %llu tokens, %llu of them lost, %llu rows, %llu nodes and %llu calls, %llu of them hedged, which cannot be",
			(unsigned long long)tokens, (unsigned long long)lost, (unsigned long long)rows,
			(unsigned long long)nodes, (unsigned long long)message->calls,
			(unsigned long long)message->calls_hedged);
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

/* Names come in the order of the map, which is that of the slots, so the search begins behind the
 * last one. A node that is not known any more is left out. */
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

/* CAD_AGAIN: the process was given up, and its stream is about to be closed. */
static enum cad_status find_reporter(const struct pl_registry *registry, uint64_t session, enum pl_role role,
	uint32_t *slot, struct cad_error *error)
{
	int at = pl_registry_find_session(registry, session);

	if (at < 0)
		return CAD_AGAIN;
	*slot = (uint32_t)at;
	if (registry->nodes[at].role == role)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_INVALID,
		role == PL_ROLE_ROUTER ? "'%s' reports routing and is not a router"
				       : "'%s' reports work of experts and is not an expert node",
		registry->nodes[at].id);
}

enum cad_status pl_telemetry_take_routing(struct pl_telemetry *telemetry, uint64_t session,
	struct pl_reported *reported, uint64_t now_ns, const Cadre__V1__RoutingReport *message, struct cad_error *error)
{
	const struct pl_telemetry_options *o = pl_telemetry_options(telemetry);
	struct pl_traffic traffic[CAD_ROUTER_CONNECTIONS_MAX];
	uint32_t slot;
	enum cad_status status = find_reporter(o->registry, session, PL_ROLE_ROUTER, &slot, error);

	if (status != CAD_OK)
		return status == CAD_AGAIN ? CAD_OK : status;
	status = check_counts(message, reported, error);
	if (status == CAD_OK)
		status = check_sample(o, message, error);
	if (status == CAD_OK)
		status = check_traffic(message, error);
	if (status != CAD_OK) {
		(void)cad_error_prefix(error, "a report of routing from '%s'", o->registry->nodes[slot].id);
		return CAD_ERR_INVALID;
	}

	const struct pl_routing_report report = {
		.tokens = message->tokens,
		.lost = message->lost,
		.rows = message->routed_rows,
		.nodes = message->nodes_touched,
		.calls = message->calls,
		.hedged = message->calls_hedged,
		.traffic = traffic,
		.traffic_count = find_nodes(o->registry, message, traffic),
		.share = (double)message->share,
		.requests = message->requests,
		.ids = (const uint16_t *)(const void *)message->experts.data,
		.sampled = message->n_requests,
	};
	pl_telemetry_routing(telemetry, slot, now_ns, &report);
	return CAD_OK;
}

/* ---- expert nodes ---- */

/* The layer's experts, which `experts` has room for. */
static enum cad_status take_layer(const struct pl_shape *shape, const Cadre__V1__LayerWork *message,
	struct pl_work_expert *experts, struct pl_work_layer *layer, struct cad_error *error)
{
	uint32_t cell = pl_shape_cell(shape, message->layer, 0);
	uint64_t pairs = 0;

	if (cell == UINT32_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "layer %u, which has no experts", message->layer);
	if (message->steps > COUNT_MAX || message->rows > COUNT_MAX || message->pairs > COUNT_MAX ||
		message->waiting_calls > COUNT_MAX || message->service_us > COUNT_MAX ||
		message->activated / shape->experts > message->steps + STEPS_AHEAD)
		return cad_error_set(error, CAD_ERR_INVALID, "layer %u: counts that cannot be", message->layer);
	if (message->n_experts != message->n_expert_pairs || message->n_experts > shape->experts)
		return cad_error_set(error, CAD_ERR_INVALID, "layer %u: %zu experts with %zu counts of pairs",
			message->layer, message->n_experts, message->n_expert_pairs);
	for (size_t i = 0; i < message->n_experts; i++) {
		if (message->experts[i] >= shape->experts || (i > 0 && message->experts[i] <= message->experts[i - 1]))
			return cad_error_set(error, CAD_ERR_INVALID, "layer %u: expert %u, out of range or order",
				message->layer, message->experts[i]);
		experts[i] = (struct pl_work_expert){ message->experts[i], message->expert_pairs[i] };
		pairs += message->expert_pairs[i];
	}
	if (pairs > message->pairs + PAIRS_AHEAD)
		return cad_error_set(error, CAD_ERR_INVALID, "layer %u: %llu pairs of experts among %llu",
			message->layer, (unsigned long long)pairs, (unsigned long long)message->pairs);

	*layer = (struct pl_work_layer){
		.row = cell / shape->experts,
		.steps = message->steps,
		.rows = message->rows,
		.pairs = message->pairs,
		.activated = message->activated,
		.waiting = message->waiting_calls,
		.service_us = message->service_us,
		.experts = experts,
		.experts_count = message->n_experts,
	};
	return CAD_OK;
}

static enum cad_status take_layers(const struct pl_shape *shape, const Cadre__V1__WorkReport *message,
	struct pl_work_expert *experts, struct pl_work_layer *layers, struct cad_error *error)
{
	enum cad_status status = CAD_OK;

	for (size_t i = 0; status == CAD_OK && i < message->n_layers; i++) {
		if (i > 0 && message->layers[i]->layer <= message->layers[i - 1]->layer)
			return cad_error_set(error, CAD_ERR_INVALID, "layer %u after layer %u",
				message->layers[i]->layer, message->layers[i - 1]->layer);
		status = take_layer(shape, message->layers[i], experts + i * shape->experts, &layers[i], error);
	}
	return status;
}

enum cad_status pl_telemetry_take_work(struct pl_telemetry *telemetry, uint64_t session, uint64_t now_ns,
	const Cadre__V1__WorkReport *message, struct cad_error *error)
{
	const struct pl_telemetry_options *o = pl_telemetry_options(telemetry);
	uint32_t slot;
	enum cad_status status = find_reporter(o->registry, session, PL_ROLE_EXPERT, &slot, error);

	if (status != CAD_OK)
		return status == CAD_AGAIN ? CAD_OK : status;
	if (message->n_layers > o->shape.layers_count)
		return cad_error_set(error, CAD_ERR_INVALID, "a report of work from '%s': %zu layers, and there are %u",
			o->registry->nodes[slot].id, message->n_layers, o->shape.layers_count);
	struct pl_work_layer layers[CAD_LAYERS_MAX];
	struct pl_work_expert *experts = malloc((message->n_layers * o->shape.experts + 1) * sizeof *experts);
	if (!experts)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a report of work");

	status = take_layers(&o->shape, message, experts, layers, error);
	if (status == CAD_OK)
		pl_telemetry_work(telemetry, slot, now_ns, layers, message->n_layers);
	else
		(void)cad_error_prefix(error, "a report of work from '%s'", o->registry->nodes[slot].id);
	free(experts);
	return status;
}
