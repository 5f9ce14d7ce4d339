/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl status`: show the processes of the cluster and their state. */
#include "cadre/v1/placement.pb-c.h"
#include "common/base/bytes.h"
#include "common/base/plural.h"
#include "common/transport/exchange_address.h"
#include "orchestration/cli/duty.h"
#include "orchestration/cli/figures.h"
#include "orchestration/cli/follow.h"
#include "orchestration/cli/operate.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
	struct cl_placement placement;
};

static const struct cad_option table[] = { CL_PLACEMENT_OPTIONS(struct options, placement) };

static const struct cad_options_spec spec = {
	.program = "cadrectl status",
	.summary =
		"Shows nodes, the experts that each holds, the map's epoch, rates and memory, and what the cluster's routing costs: nodes and bytes per token, load. Exits with 3 when experts are on no node.",
	.table = table,
	.count = sizeof table / sizeof *table,
	.check = cl_placement_check,
	.check_files = cl_placement_check_files,
};

static const char *role_name(Cadre__V1__Role role)
{
	return role == CADRE__V1__ROLE__ROLE_EXPERT ? "expert" : role == CADRE__V1__ROLE__ROLE_ROUTER ? "router" : "?";
}

static const char *state_name(Cadre__V1__NodeState state)
{
	return state == CADRE__V1__NODE_STATE__NODE_STATE_LIVE ? "live" : "dead";
}

/* Expert nodes first, then by name. */
static int compare_nodes(const void *a, const void *b)
{
	const Cadre__V1__NodeStatus *x = *(Cadre__V1__NodeStatus *const *)a, *y = *(Cadre__V1__NodeStatus *const *)b;
	return x->role != y->role ? (int)y->role - (int)x->role : strcmp(x->id, y->id);
}

/* What a router leaves out of its choice of nodes, as far as it has named it. */
static void print_breakers(const Cadre__V1__NodeStatus *node)
{
	const Cadre__V1__ExpertCalls *calls = node->expert_calls;
	uint32_t open = calls ? calls->breakers_open + calls->copies_open : 0;

	for (size_t i = 0; calls && i < calls->n_breakers; i++)
		cl_line(stdout, "ATTENTION: %s leaves %s out while others have copies: %s%s", node->id,
			calls->breakers[i]->node, calls->breakers[i]->why,
			calls->breakers[i]->half_open ? "; it is being tried again" : "");
	if (calls && open > calls->n_breakers)
		cl_line(stdout, "ATTENTION: %s leaves out %zu more %s", node->id, (size_t)open - calls->n_breakers,
			cad_plural(open - calls->n_breakers, "node or copy", "nodes and copies"));
}

static void print_rebalance(const Cadre__V1__ClusterStatus *status)
{
	const Cadre__V1__Rebalance *r = status->rebalance;
	const char *automatic = status->auto_on ? "; auto is on" : "";
	char done[CAD_BYTES_TEXT_BYTES], all[CAD_BYTES_TEXT_BYTES];

	if (r && r->measuring)
		cl_line(stdout, "%s (%llu): done, its effect is being measured%s", r->what, (unsigned long long)r->id,
			automatic);
	else if (r)
		cl_line(stdout, "%s (%llu): %s, %u of %u %s, %s of %s%s", r->what, (unsigned long long)r->id,
			cl_rebalance_state_name(r->state), r->moves_done, r->moves,
			cad_plural(r->moves, "move", "moves"), cad_bytes_text(r->bytes_done, done),
			cad_bytes_text(r->bytes, all), automatic);
	else if (status->auto_on)
		cl_line(stdout, "auto is on: experts move by themselves ('cadrectl auto status')");
}

static void print_rules(const Cadre__V1__ClusterStatus *status)
{
	for (size_t i = 0; i < status->n_nodes; i++)
		if (status->nodes[i]->duty > CADRE__V1__DUTY__DUTY_ACTIVE)
			cl_line(stdout, "%s: %s", status->nodes[i]->id, cl_duty_name(status->nodes[i]->duty));
	if (status->n_pins || status->n_copies)
		printf("experts that are pinned to a node: %zu; with a number of copies of their own: %zu\n",
			status->n_pins, status->n_copies);
}

static void print_attention(const Cadre__V1__ClusterStatus *status)
{
	for (size_t i = 0; i < status->n_nodes; i++) {
		if (status->nodes[i]->problem[0])
			cl_line(stdout, "ATTENTION: %s: %s", status->nodes[i]->id, status->nodes[i]->problem);
		if (status->nodes[i]->absence[0])
			cl_line(stdout, "ATTENTION: %s: %s", status->nodes[i]->id, status->nodes[i]->absence);
	}
	for (size_t i = 0; i < status->n_nodes; i++)
		print_breakers(status->nodes[i]);
	for (size_t i = 0; i < status->n_refused; i++)
		cl_line(stdout, "ATTENTION: refused %.0f s ago: %s", (double)status->refused[i]->last_ms * 1e-3,
			status->refused[i]->why);
}

static void print_table(const Cadre__V1__ClusterStatus *status)
{
	const Cadre__V1__Settings *settings = status->settings;
	cl_line(stdout, "cluster %s, epoch %llu, up %.0f s", status->cluster, (unsigned long long)status->epoch,
		(double)status->uptime_ms * 1e-3);
	cl_line(stdout, "model   %s (%s, %u MoE layers of %u experts, fingerprint %s)", status->model_directory,
		status->architecture, status->moe_layers, status->experts_per_layer, status->model_fingerprint);
	if (settings)
		cl_line(stdout, "settings profile %s, routers %s, wire %s, weights %s, kv %s (%s)", settings->profile,
			settings->router_profile, settings->wire, settings->weights, settings->kv,
			settings->fingerprint);
	if (status->state_loss[0])
		cl_line(stdout, "ATTENTION: %s", status->state_loss);
	if (status->experts_unplaced)
		printf("ATTENTION: no node holds %u of %u experts\n", status->experts_unplaced,
			status->moe_layers * status->experts_per_layer);
	print_rebalance(status);
	print_rules(status);
	print_attention(status);
	putchar('\n');
	cl_figures_print(stdout, status);
	cl_line(stdout, "%-20s %-6s %-5s %7s %22s %6s %7s %9s %9s %5s %8s %7s %7s  %s", "NODE", "ROLE", "STATE",
		"EXPERTS", "MEMORY", "SPEED", "EPOCH", "ROWS/S", "TOKENS/S", "SEQS", "LEASE", "REACH", "PID",
		"ADDRESS");

	for (size_t i = 0; i < status->n_nodes; i++) {
		const Cadre__V1__NodeStatus *node = status->nodes[i];
		bool expert = node->role == CADRE__V1__ROLE__ROLE_EXPERT;
		char used[CAD_BYTES_TEXT_BYTES], all[CAD_BYTES_TEXT_BYTES], memory[52], speed[16], experts[16],
			lease[16], reach[32], exchange[CAD_ADDRESS_BYTES];
		snprintf(memory, sizeof memory, expert ? "%s of %s" : "-",
			cad_bytes_text(node->memory_used_bytes, used), cad_bytes_text(node->memory_bytes, all));
		snprintf(speed, sizeof speed, expert && node->speed > 0 ? "%.4g" : "-", node->speed);
		snprintf(experts, sizeof experts, expert ? "%u" : "-", node->experts);
		snprintf(lease, sizeof lease, node->lease_left_ms ? "%u ms" : "-", node->lease_left_ms);
		snprintf(reach, sizeof reach, node->reached_of ? "%u/%u" : "-", node->reached, node->reached_of);
		cad_exchange_address_host(node->exchange_address, exchange);
		cl_line(stdout, "%-20s %-6s %-5s %7s %22s %6s %7llu %9.1f %9.1f %5u %8s %7s %7u  %s", node->id,
			role_name(node->role), state_name(node->state), experts, memory, speed,
			(unsigned long long)node->epoch, node->rows_per_second, node->tokens_per_second,
			node->sequences, lease, reach, node->pid, expert ? exchange : node->grpc_address);
	}
}

/* What a node measured of itself; null: nothing, or it was given. */
static json_t *measured_to_json(const Cadre__V1__NodeSpeed *measured)
{
	if (!measured || measured->read_bytes_per_second <= 0)
		return json_null();
	return json_pack("{s:f, s:f, s:f}", "read_bytes_per_second", measured->read_bytes_per_second,
		"multiply_adds_per_second", measured->multiply_adds_per_second, "step_us", measured->step_us);
}

/* NULL: the node computes on a CPU. */
static json_t *device_to_json(const Cadre__V1__DeviceState *device)
{
	if (!device)
		return NULL;
	return json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:s}", "device", device->device, "chip",
		device->chip, "memory_used_bytes", (json_int_t)device->memory_used_bytes, "memory_bytes",
		(json_int_t)device->memory_bytes, "busy", device->busy, "clock_hz", device->clock_hz, "power_w",
		device->power_w, "temperature_c", device->temperature_c, "ecc_uncorrected",
		(json_int_t)device->ecc_uncorrected, "throttled", device->throttled);
}

static json_t *node_to_json(const Cadre__V1__NodeStatus *node)
{
	char exchange[CAD_ADDRESS_BYTES];

	cad_exchange_address_host(node->exchange_address, exchange);
	return json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:s, s:I, s:I, s:s, s:s, s:I, s:I, s:s, s:I, s:o, s:s, s:o*, s:I, s:f, s:o, s:o*}",
		"id", node->id, "role", role_name(node->role), "state", state_name(node->state), "exchange_address",
		exchange, "http_address", node->http_address, "grpc_address", node->grpc_address, "experts",
		(json_int_t)node->experts, "memory_bytes", (json_int_t)node->memory_bytes, "memory_used_bytes",
		(json_int_t)node->memory_used_bytes, "epoch", (json_int_t)node->epoch, "rows_per_second",
		node->rows_per_second, "tokens_per_second", node->tokens_per_second, "sequences",
		(json_int_t)node->sequences, "lease_left_ms", (json_int_t)node->lease_left_ms, "isa", node->isa,
		"threads", (json_int_t)node->threads, "pid", (json_int_t)node->pid, "kernels_fingerprint",
		node->kernels_fingerprint, "problem", node->problem, "reached", (json_int_t)node->reached, "reached_of",
		(json_int_t)node->reached_of, "absence", node->absence, "queue", (json_int_t)node->queue, "work",
		cl_work_to_json(node), "duty", cl_duty_name(node->duty), "expert_calls",
		cl_calls_to_json(node->expert_calls), "expert_bytes", (json_int_t)node->expert_bytes, "speed",
		node->speed, "measured", measured_to_json(node->measured), "device", device_to_json(node->device));
}

static json_t *settings_to_json(const Cadre__V1__Settings *settings)
{
	json_t *quanta = json_array();
	for (size_t i = 0; i < settings->n_quanta; i++)
		(void)json_array_append_new(quanta, json_real((double)settings->quanta[i]));
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "profile", settings->profile, "router_profile",
		settings->router_profile, "wire", settings->wire, "weights", settings->weights, "kv", settings->kv,
		"fingerprint", settings->fingerprint, "quanta", quanta);
}

static void rules_to_json(const Cadre__V1__ClusterStatus *status, json_t *json)
{
	json_t *pins = json_array(), *copies = json_array();

	for (size_t i = 0; i < status->n_pins; i++)
		(void)json_array_append_new(pins,
			json_pack("{s:I, s:I, s:s}", "layer", (json_int_t)status->pins[i]->layer, "expert",
				(json_int_t)status->pins[i]->expert, "node", status->pins[i]->node));
	for (size_t i = 0; i < status->n_copies; i++)
		(void)json_array_append_new(copies,
			json_pack("{s:I, s:I, s:I}", "layer", (json_int_t)status->copies[i]->layer, "expert",
				(json_int_t)status->copies[i]->expert, "copies",
				(json_int_t)status->copies[i]->copies));
	(void)json_object_set_new(json, "pins", pins);
	(void)json_object_set_new(json, "copies", copies);
}

static void print_json(const Cadre__V1__ClusterStatus *status)
{
	json_t *nodes = json_array(), *refused = json_array();
	for (size_t i = 0; i < status->n_refused; i++)
		(void)json_array_append_new(refused,
			json_pack("{s:s, s:s, s:I, s:I}", "id", status->refused[i]->id, "why", status->refused[i]->why,
				"times", (json_int_t)status->refused[i]->times, "last_ms",
				(json_int_t)status->refused[i]->last_ms));
	for (size_t i = 0; i < status->n_nodes; i++)
		(void)json_array_append_new(nodes, node_to_json(status->nodes[i]));
	json_t *json = json_pack("{s:s, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:o*, s:o, s:o}", "cluster",
		status->cluster, "epoch", (json_int_t)status->epoch, "model_directory", status->model_directory,
		"model_fingerprint", status->model_fingerprint, "architecture", status->architecture, "moe_layers",
		(json_int_t)status->moe_layers, "experts_per_layer", (json_int_t)status->experts_per_layer,
		"experts_unplaced", (json_int_t)status->experts_unplaced, "uptime_ms", (json_int_t)status->uptime_ms,
		"state_loss", status->state_loss, "router_checksum", status->router_checksum, "settings",
		status->settings ? settings_to_json(status->settings) : NULL, "nodes", nodes, "refused", refused);
	(void)json_object_set_new(
		json, "rebalance", status->rebalance ? cl_rebalance_to_json(status->rebalance) : json_null());
	(void)json_object_set_new(json, "auto", json_boolean(status->auto_on));
	rules_to_json(status, json);
	cl_figures_to_json(status, json);
	(void)json_dumpf(json, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(json);
}

struct answer {
	const struct options *options;
	bool unplaced; /* experts that no node holds */
};

static bool on_status(void *context, const ProtobufCMessage *message)
{
	struct answer *answer = context;
	const Cadre__V1__ClusterStatus *status = (const Cadre__V1__ClusterStatus *)message;

	if (status->n_nodes > 1)
		qsort(status->nodes, status->n_nodes, sizeof *status->nodes, compare_nodes);
	if (answer->options->placement.format == CL_FORMAT_JSON)
		print_json(status);
	else
		print_table(status);
	answer->unplaced = status->experts_unplaced > 0;
	return true;
}

int cl_status(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	Cadre__V1__GetStatusRequest request = CADRE__V1__GET_STATUS_REQUEST__INIT;
	struct answer answer = { .options = &options };
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	exit_code = cl_placement_ask("status", &options.placement, CL_PLACEMENT_METHOD("GetStatus"), &request.base,
		&cadre__v1__cluster_status__descriptor, on_status, &answer);
	cad_options_destroy(parsed);
	return exit_code == CL_EXIT_OK && answer.unplaced ? CL_EXIT_NOT_READY : exit_code;
}
