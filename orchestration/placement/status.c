/* SPDX-License-Identifier: Apache-2.0 */
/* The message of GetStatus, and the metrics. */
#include "common/cluster/settings_message.h"
#include "orchestration/placement/status.h"
#include "orchestration/placement/rebalance_message.h"
#include "orchestration/placement/rules_message.h"
#include "orchestration/placement/status_telemetry.h"

#include "cadre/v1/placement.pb-c.h"

#include <stdlib.h>

struct pl_status {
	Cadre__V1__ClusterStatus message;
	Cadre__V1__Settings settings;
	char router_checksum[33];
	struct cad_settings_storage settings_storage;
	Cadre__V1__NodeStatus nodes[CAD_PROCESSES_MAX];
	Cadre__V1__NodeStatus *list[CAD_PROCESSES_MAX];
	struct pl_reach_view reach[CAD_PROCESSES_MAX];
	Cadre__V1__NodeWork work[CAD_PROCESSES_MAX];
	Cadre__V1__NodeSpeed measured[CAD_PROCESSES_MAX];
	Cadre__V1__RouterWork router_work[CAD_PROCESSES_MAX];
	struct pl_calls_message calls[CAD_PROCESSES_MAX];
	Cadre__V1__DeviceState devices[CAD_PROCESSES_MAX];
	struct pl_status_telemetry telemetry;
	struct pl_rebalance_message rebalance;
	struct pl_rules_message rules;
	Cadre__V1__Refusal refused[PL_REFUSALS_MAX], *refused_list[PL_REFUSALS_MAX];
};

static void fill_node(Cadre__V1__NodeStatus *message, const struct pl_registry *registry, uint32_t slot,
	const struct cad_map *map, uint64_t now_ns)
{
	const struct pl_node *node = &registry->nodes[slot];
	int in_map = map ? cad_map_node_find(map, node->id) : CAD_MAP_NONE;
	cadre__v1__node_status__init(message);
	message->id = (char *)node->id;
	message->role = node->role == PL_ROLE_EXPERT ? CADRE__V1__ROLE__ROLE_EXPERT : CADRE__V1__ROLE__ROLE_ROUTER;
	message->state =
		pl_node_counts(node) ? CADRE__V1__NODE_STATE__NODE_STATE_LIVE : CADRE__V1__NODE_STATE__NODE_STATE_DEAD;
	message->exchange_address = (char *)node->exchange_address;
	message->http_address = (char *)node->http_address;
	message->grpc_address = (char *)node->grpc_address;
	message->experts = in_map >= 0 ? (uint32_t)cad_map_node_experts(map, (uint32_t)in_map) : 0;
	message->memory_bytes = node->memory_bytes;
	message->memory_used_bytes = node->load.memory_used_bytes;
	message->epoch = node->load.epoch;
	message->rows_per_second = node->rows_per_second;
	message->tokens_per_second = node->tokens_per_second;
	message->sequences = node->load.sequences;
	message->queue = node->load.queue;
	message->lease_left_ms = node->presence == PL_LIVE && node->until_ns > now_ns
		? (uint32_t)((node->until_ns - now_ns) / CAD_NS_PER_MS)
		: 0;
	message->isa = (char *)node->isa;
	message->threads = node->threads;
	message->pid = node->pid;
	message->kernels_fingerprint = (char *)node->kernels_fingerprint;
	message->problem = (char *)pl_registry_problem(registry, slot, now_ns);
}

static void fill_speed(Cadre__V1__NodeStatus *message, const struct pl_node *node, Cadre__V1__NodeSpeed *measured)
{
	cadre__v1__node_speed__init(measured);
	measured->read_bytes_per_second = node->measured.read_bytes_per_second;
	measured->multiply_adds_per_second = node->measured.multiply_adds_per_second;
	measured->step_us = node->measured.step_s * 1e6;
	measured->given = node->measured.given;
	message->measured = measured;
	message->speed = node->speed;
	message->expert_bytes = node->expert_bytes;
}

static void fill_reach(Cadre__V1__NodeStatus *message, const struct pl_reach_view *view)
{
	message->reached = view->reached;
	message->reached_of = view->of;
	message->absence = (char *)view->text;
}

static void fill_refusals(struct pl_status *status, const struct pl_door *door, uint64_t now_ns)
{
	status->message.refused = status->refused_list;
	for (int i = 0; door && i < PL_REFUSALS_MAX; i++) {
		const struct pl_refusal *refusal = &door->refusals[i];
		if (!refusal->last_ns || now_ns > refusal->last_ns + PL_REFUSAL_SHOWN_NS)
			continue;
		Cadre__V1__Refusal *message = &status->refused[status->message.n_refused];
		cadre__v1__refusal__init(message);
		message->id = (char *)refusal->id;
		message->why = (char *)refusal->why;
		message->times = refusal->times;
		message->last_ms = (now_ns - refusal->last_ns) / CAD_NS_PER_MS;
		status->refused_list[status->message.n_refused++] = message;
	}
}

enum cad_status pl_status_create(const struct pl_status_source *source, struct pl_status **status)
{
	struct pl_status *made = malloc(sizeof *made);
	if (!made)
		return CAD_ERR_MEMORY;

	const struct pl_registry *registry = pl_control_registry(source->control);
	const struct cad_map *map = pl_control_map(source->control);
	struct pl_shape shape = pl_checkpoint_shape(source->checkpoint);
	Cadre__V1__ClusterStatus *message = &made->message;
	cadre__v1__cluster_status__init(message);
	cadre__v1__settings__init(&made->settings);
	cad_settings_to_proto(pl_checkpoint_settings(source->checkpoint), &made->settings_storage, &made->settings);
	(void)pl_checkpoint_router_checksum((void *)(uintptr_t)source->checkpoint, made->router_checksum);
	message->cluster = (char *)source->cluster;
	message->epoch = map ? map->epoch : 0;
	message->model_directory = (char *)cad_model_directory(pl_checkpoint_model(source->checkpoint));
	message->model_fingerprint = (char *)pl_checkpoint_fingerprint(source->checkpoint);
	message->architecture = (char *)cad_model_spec(pl_checkpoint_model(source->checkpoint))->architecture;
	message->moe_layers = shape.layers_count;
	message->experts_per_layer = shape.experts;
	message->settings = &made->settings;
	message->experts_unplaced = map ? (uint32_t)cad_map_unplaced(map) : pl_shape_cells(&shape);
	message->uptime_ms = (source->now_ns - source->started_ns) / CAD_NS_PER_MS;
	message->router_checksum = made->router_checksum;
	message->state_loss = (char *)pl_state_loss(source->state);
	message->nodes = made->list;

	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		if (registry->nodes[slot].presence == PL_FREE)
			continue;
		fill_node(&made->nodes[message->n_nodes], registry, slot, map, source->now_ns);
		pl_reach_view(pl_control_reach(source->control), registry, slot, source->now_ns, &made->reach[slot]);
		fill_reach(&made->nodes[message->n_nodes], &made->reach[slot]);
		made->nodes[message->n_nodes].work = pl_status_telemetry_work(
			source->telemetry, slot, source->now_ns, &made->work[message->n_nodes]);
		made->nodes[message->n_nodes].router_work = pl_status_telemetry_router(
			source->telemetry, slot, source->now_ns, &made->router_work[message->n_nodes]);
		made->nodes[message->n_nodes].expert_calls =
			pl_calls_write(&registry->nodes[slot].load.expert_calls, &made->calls[message->n_nodes]);
		made->nodes[message->n_nodes].device =
			pl_device_write(&registry->nodes[slot].load.device, &made->devices[message->n_nodes]);
		if (registry->nodes[slot].role == PL_ROLE_EXPERT) {
			made->nodes[message->n_nodes].duty = pl_duty_to_proto(pl_control_duty(source->control, slot));
			fill_speed(&made->nodes[message->n_nodes], &registry->nodes[slot],
				&made->measured[message->n_nodes]);
		}
		made->list[message->n_nodes] = &made->nodes[message->n_nodes];
		message->n_nodes++;
	}
	pl_rules_to_proto(pl_control_rules(source->control), &shape, &made->rules, message);
	fill_refusals(made, source->door, source->now_ns);
	pl_status_telemetry_fill(&made->telemetry, source->telemetry, source->fine, source->now_ns, message);
	if (source->rebalance)
		message->rebalance = pl_rebalance_to_proto(source->rebalance, &made->rebalance);
	message->auto_on = source->auto_on;

	*status = made;
	return CAD_OK;
}

const Cadre__V1__ClusterStatus *pl_status_message(const struct pl_status *status) { return &status->message; }

void pl_status_destroy(struct pl_status *status) { free(status); }

/* One line each: the member, the metric's name, what it says. */
#define PL_GAUGE_LIST(X) \
	X(state_lost, "cadre_placement_state_lost", "1: the state file was damaged at the start, and set aside") \
	X(epoch, "cadre_placement_epoch", "Epoch of the current map") \
	X(unplaced, "cadre_placement_experts_unplaced", "Experts that no node holds at the current epoch") \
	X(experts_live, "cadre_placement_expert_nodes", "Live expert nodes") \
	X(routers_live, "cadre_placement_routers", "Live routers") \
	X(nodes_absent, "cadre_placement_nodes_absent", "Live expert nodes that some router does not reach") \
	X(routers_discounted, "cadre_placement_routers_discounted", \
		"Live routers that reach fewer than half of the expert nodes, and so do not count") \
	X(nodes_drained, "cadre_placement_nodes_drained", \
		"Expert nodes that are given no experts, by an operator's word") \
	X(rows_per_second, "cadre_placement_rows_per_second", "Rows per second that expert nodes report") \
	X(tokens_per_second, "cadre_placement_tokens_per_second", "Tokens per second that routers report")

#define PL_COUNTER_LIST(X) \
	X(joins, "cadre_placement_joins_total", "Processes that joined") \
	X(refusals, "cadre_placement_refusals_total", "Processes that were refused") \
	X(absences, "cadre_placement_absences_total", "Expert nodes in use that a router did not reach any more") \
	X(deaths, "cadre_placement_deaths_total", "Processes that died or left") \
	X(loads_ordered, "cadre_placement_loads_ordered_total", "Experts that nodes were told to load") \
	X(frees_ordered, "cadre_placement_frees_ordered_total", "Experts that nodes were told to free") \
	X(loads_failed, "cadre_placement_loads_failed_total", "Loads that failed") \
	X(devices_failed, "cadre_placement_devices_failed_total", "Nodes that left since their device had failed") \
	X(loads_stalled, "cadre_placement_loads_stalled_total", \
		"Loads that were given up, since they did not come on") \
	X(sources_failed, "cadre_placement_sources_failed_total", \
		"Loads that did not come from the node that they should have come from") \
	X(checksums_wrong, "cadre_placement_checksums_wrong_total", \
		"Loaded experts whose checksum was not the checkpoint's") \
	X(maps_published, "cadre_placement_maps_total", "Maps that were published") \
	X(state_errors, "cadre_placement_state_errors_total", "Writes of the state file that failed")

void pl_status_metrics_create(
	struct pl_status_metrics *status, struct cad_metrics *metrics, const struct pl_state *state)
{
	*status = (struct pl_status_metrics){ 0 };
	if (!metrics)
		return;
#define X(member, name, help) status->member = cad_metrics_gauge(metrics, name, help, NULL, 0);
	PL_GAUGE_LIST(X)
#undef X
#define X(member, name, help) status->member = cad_metrics_counter(metrics, name, help, NULL, 0);
	PL_COUNTER_LIST(X)
#undef X
	cad_gauge_set(status->state_lost, pl_state_loss(state)[0] ? 1 : 0);
}

void pl_status_metrics_update(struct pl_status_metrics *status, const struct pl_control *control)
{
	if (!status->epoch)
		return;
	const struct pl_registry *registry = pl_control_registry(control);
	const struct cad_map *map = pl_control_map(control);
	double rows = 0, tokens = 0, absent = 0, discounted = 0;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		rows += registry->nodes[slot].role == PL_ROLE_EXPERT ? registry->nodes[slot].rows_per_second : 0;
		tokens += registry->nodes[slot].role == PL_ROLE_ROUTER ? registry->nodes[slot].tokens_per_second : 0;
		if (registry->nodes[slot].presence != PL_LIVE)
			continue;
		absent += registry->nodes[slot].role == PL_ROLE_EXPERT &&
			!pl_reach_usable(pl_control_reach(control), slot);
		discounted += registry->nodes[slot].role == PL_ROLE_ROUTER &&
			!pl_reach_counts(pl_control_reach(control), slot);
	}
	cad_gauge_set(status->epoch, map ? (double)map->epoch : 0);
	cad_gauge_set(status->unplaced, map ? (double)cad_map_unplaced(map) : 0);
	cad_gauge_set(status->experts_live, pl_registry_count(registry, PL_ROLE_EXPERT, PL_LIVE));
	cad_gauge_set(status->routers_live, pl_registry_count(registry, PL_ROLE_ROUTER, PL_LIVE));
	cad_gauge_set(status->nodes_absent, absent);
	cad_gauge_set(status->nodes_drained, pl_control_rules(control)->drained_count);
	cad_gauge_set(status->routers_discounted, discounted);
	cad_gauge_set(status->rows_per_second, rows);
	cad_gauge_set(status->tokens_per_second, tokens);
	const struct pl_control_stats *stats = pl_control_stats(control);
#define X(member, name, help) cad_counter_add(status->member, stats->member - status->seen.member);
	PL_COUNTER_LIST(X)
#undef X
	status->seen = *stats;
}
