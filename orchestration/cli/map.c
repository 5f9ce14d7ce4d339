/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `cadrectl map show|diff|apply`: the placement as a file, in the JSON that `cadrectl plan` prints.
 *
 * A file names its nodes ("node_ids"), or it says only how many they are, as after `plan --nodes
 * N`: then its node 0 is the first of the cluster's, by id, and so on.
 */
#include "common/base/bytes.h"
#include "common/base/plural.h"
#include "common/rpc/codec.h"
#include "orchestration/cli/follow.h"
#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/plan.h"
#include "orchestration/planner/predict/moves.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
	struct cl_change change;
	struct cl_follow follow;
	bool cluster;
};

static const struct cad_option show_table[] = {
	CAD_OPTION_BOOL(struct options, cluster, "cluster", "false",
		"the nodes instead, as 'cadrectl plan --cluster' reads them"),
	CL_PLACEMENT_OPTIONS(struct options, change.placement),
};
static const struct cad_option diff_table[] = { CL_PLACEMENT_OPTIONS(struct options, change.placement) };
static const struct cad_option apply_table[] = {
	CL_FOLLOW_OPTIONS(struct options, follow),
	CL_CHANGE_OPTIONS(struct options, change),
};

static const struct cad_options_spec show_spec = {
	.program = "cadrectl map show",
	.summary =
		"Prints which node holds which expert, as JSON that 'cadrectl map apply' and 'cadrectl plan --present' read.",
	.table = show_table,
	.count = sizeof show_table / sizeof *show_table,
	.check = cl_placement_check,
	.check_files = cl_placement_check_files,
};
static const struct cad_options_spec diff_spec = {
	.program = "cadrectl map diff",
	.summary = "Says what would move if a map were put in force.",
	.positional = "FILE",
	.positional_names = CAD_OPTION_NAMES_FILE,
	.positional_max = 1,
	.table = diff_table,
	.count = sizeof diff_table / sizeof *diff_table,
	.check = cl_placement_check,
	.check_files = cl_placement_check_files,
};
static const struct cad_options_spec apply_spec = {
	.program = "cadrectl map apply",
	.summary =
		"Puts a map in force, as 'cadrectl plan -o json' or 'cadrectl map show' prints it: it is checked first, and experts move while tokens flow. The cluster keeps to it.",
	.positional = "FILE",
	.positional_names = CAD_OPTION_NAMES_FILE,
	.positional_max = 1,
	.table = apply_table,
	.count = sizeof apply_table / sizeof *apply_table,
	.check = cl_change_check,
	.check_files = cl_placement_check_files,
};

/* ---- what is there ---- */

/* The present placement; nodes ascend by id. */
struct present {
	struct pl_cluster cluster;
	struct pl_plan *plan;
	struct cad_error error;
	enum cad_status status;
};

static void present_fini(struct present *present)
{
	pl_cluster_fini(&present->cluster);
	pl_plan_free(present->plan);
}

static int by_id(const void *a, const void *b, void *context)
{
	const Cadre__V1__PlacementMap *map = context;
	return strcmp(map->nodes[*(const uint32_t *)a]->id, map->nodes[*(const uint32_t *)b]->id);
}

/* `rank`: where each of the message's nodes goes. */
static enum cad_status take_nodes(
	const Cadre__V1__PlacementMap *map, struct pl_cluster *cluster, uint32_t *rank, struct cad_error *error)
{
	uint32_t order[CAD_NODES_MAX], count = (uint32_t)map->n_nodes;
	enum cad_status status = pl_cluster_create(count, 0, cluster, error);
	if (status != CAD_OK)
		return status;

	for (uint32_t n = 0; n < count; n++)
		order[n] = n;
	qsort_r(order, count, sizeof *order, by_id, (void *)(uintptr_t)map);
	for (uint32_t i = 0; i < count; i++) {
		const Cadre__V1__PlacementNode *node = map->nodes[order[i]];
		struct pl_cluster_node *made = &cluster->nodes[i];
		snprintf(made->id, sizeof made->id, "%s", node->id);
		made->memory_bytes = node->memory_bytes;
		made->expert_bytes = node->expert_bytes;
		made->speed = node->speed;
		made->link = node->link;
		made->forbidden = node->forbidden;
		rank[order[i]] = i;
	}
	cluster->expert_bytes = map->expert_bytes;
	cluster->image_bytes = map->image_bytes;

	cluster->rules = calloc(map->n_rules + 1, sizeof *cluster->rules);
	for (size_t i = 0; cluster->rules && i < map->n_rules; i++) {
		const Cadre__V1__PlacementRule *rule = map->rules[i];
		if (rule->node < count)
			cluster->rules[cluster->rules_count++] =
				(struct pl_cluster_rule){ rule->every_layer ? PL_CLUSTER_ANY : rule->layer,
					rule->expert, rank[rule->node], rule->forbidden };
	}
	return CAD_OK;
}

static enum cad_status take_placement(
	const Cadre__V1__PlacementMap *map, struct present *present, struct cad_error *error)
{
	uint32_t rank[CAD_NODES_MAX];
	size_t experts = map->n_layers ? map->layers[0]->n_experts : 0;

	if (map->n_nodes == 0)
		return cad_error_set(error, CAD_ERR_NOT_FOUND, "the cluster has no expert nodes that hold experts now");
	if (map->n_nodes > CAD_NODES_MAX || map->n_layers > CAD_LAYERS_MAX || experts > CAD_EXPERTS_MAX)
		return cad_error_set(error, CAD_ERR_PROTOCOL, "the placement is larger than this program can take");
	enum cad_status status = take_nodes(map, &present->cluster, rank, error);
	if (status != CAD_OK)
		return status;
	if (pl_plan_create((uint32_t)map->n_layers, (uint32_t)experts, (uint32_t)map->n_nodes, &present->plan) !=
		CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the placement");

	for (uint32_t l = 0; l < map->n_layers; l++) {
		present->plan->layer[l] = map->layers[l]->layer;
		for (uint32_t e = 0; e < experts && e < map->layers[l]->n_experts; e++) {
			const Cadre__V1__Replicas *replicas = map->layers[l]->experts[e];
			for (size_t i = 0; i < replicas->n_nodes; i++)
				if (replicas->nodes[i] < map->n_nodes)
					pl_plan_put(present->plan, l, e, rank[replicas->nodes[i]]);
		}
	}
	return CAD_OK;
}

static bool on_placement(void *context, const ProtobufCMessage *message)
{
	struct present *present = context;
	present->status = take_placement((const Cadre__V1__PlacementMap *)message, present, &present->error);
	return true;
}

static enum cad_status get_present(struct cl_session *session, struct present *present, struct cad_error *error)
{
	Cadre__V1__GetPlacementRequest request = CADRE__V1__GET_PLACEMENT_REQUEST__INIT;
	enum cad_status status = cl_session_call(session, CL_PLACEMENT_METHOD("GetPlacement"), &request.base,
		&cadre__v1__placement_map__descriptor, on_placement, present, NULL, error);

	if (status == CAD_OK && present->status != CAD_OK) {
		*error = present->error;
		status = present->status;
	}
	return status;
}

/* ---- show ---- */

static json_t *rules_to_json(const struct pl_cluster *cluster, bool forbidden)
{
	json_t *rules = json_array();
	for (uint32_t i = 0; i < cluster->rules_count; i++) {
		const struct pl_cluster_rule *rule = &cluster->rules[i];
		if (rule->forbidden != forbidden)
			continue;
		json_t *json = json_pack(
			"{s:I, s:s}", "expert", (json_int_t)rule->expert, "node", cluster->nodes[rule->node].id);
		if (json && rule->layer != PL_CLUSTER_ANY)
			(void)json_object_set_new(json, "layer", json_integer(rule->layer));
		(void)json_array_append_new(rules, json);
	}
	return rules;
}

static json_t *cluster_to_json(const struct pl_cluster *cluster)
{
	json_t *nodes = json_array();
	for (uint32_t n = 0; n < cluster->nodes_count; n++) {
		const struct pl_cluster_node *node = &cluster->nodes[n];
		(void)json_array_append_new(nodes,
			json_pack("{s:s, s:I, s:I, s:f, s:f, s:b}", "id", node->id, "memory_bytes",
				(json_int_t)node->memory_bytes, "expert_bytes",
				(json_int_t)pl_cluster_expert_bytes(cluster, n), "speed", node->speed, "link",
				node->link, "forbidden", node->forbidden));
	}
	return json_pack("{s:I, s:I, s:o, s:o, s:o}", "expert_bytes", (json_int_t)cluster->expert_bytes, "image_bytes",
		(json_int_t)cluster->image_bytes, "nodes", nodes, "pin", rules_to_json(cluster, false), "forbid",
		rules_to_json(cluster, true));
}

int cl_map_show(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct cl_session session;
	struct present present = { .status = CAD_OK };
	struct cad_error error;
	int exit_code;

	if (!cad_options_main(&show_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	enum cad_status status = cl_session_open(&session, &options.change.placement, &error);
	if (status == CAD_OK)
		status = get_present(&session, &present, &error);
	if (status == CAD_OK && options.cluster)
		cl_print_json(cluster_to_json(&present.cluster));
	else if (status == CAD_OK)
		cl_print_json(
			pl_plan_to_json(present.plan, &present.cluster, "cadre", pl_plan_used_max(present.plan), 0));
	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_session_fail(&session, "map show", status, &error);

	cl_session_close(&session);
	present_fini(&present);
	cad_options_destroy(parsed);
	return exit_code;
}

/* ---- a map of a file ---- */

/* The map, and the ids of its nodes: those of the file, or in their order those of the cluster. */
static enum cad_status read_map(const char *path, const struct present *present, struct pl_plan **plan,
	struct pl_cluster *nodes, struct cad_error *error)
{
	const struct pl_plan *now = present->plan;
	enum cad_status status = pl_plan_read(path, plan, nodes, error);
	if (status != CAD_OK)
		return status;

	const struct pl_plan *read = *plan;
	if (read->layers != now->layers || read->experts != now->experts)
		return cad_error_set(error, CAD_ERR_INVALID,
			"%s is of %u %s of %u %s, the cluster's model has %u of %u: it is of another model", path,
			read->layers, cad_plural(read->layers, "layer", "layers"), read->experts,
			cad_plural(read->experts, "expert", "experts"), now->layers, now->experts);
	for (uint32_t n = 0; n < nodes->nodes_count; n++)
		if (pl_cluster_find(&present->cluster, nodes->nodes[n].id) == PL_CLUSTER_ANY)
			return cad_error_set(error, CAD_ERR_INVALID,
				"%s is for node '%s', which holds no experts in this cluster: plan for the nodes that 'cadrectl map show --cluster' lists",
				path, nodes->nodes[n].id);
	if (nodes->nodes_count > 0)
		return CAD_OK;

	if (read->nodes != present->cluster.nodes_count)
		return cad_error_set(error, CAD_ERR_INVALID,
			"%s is for %u nodes and does not say which, and the cluster has %u: plan for the nodes that 'cadrectl map show --cluster' lists",
			path, read->nodes, present->cluster.nodes_count);
	status = pl_cluster_create(read->nodes, 0, nodes, error);
	for (uint32_t n = 0; status == CAD_OK && n < read->nodes; n++)
		snprintf(nodes->nodes[n].id, PL_CLUSTER_ID_BYTES, "%s", present->cluster.nodes[n].id);
	if (status == CAD_OK)
		cl_line(stderr, "%s names no nodes: its node 0 is taken for '%s', and so on by id", path,
			nodes->nodes[0].id);
	return status;
}

/* ---- diff ---- */

static json_t *names_to_json(const struct pl_plan *has, const struct pl_plan *lacks, uint32_t l, uint32_t e,
	const struct pl_cluster *cluster)
{
	json_t *names = json_array();
	for (uint32_t n = 0; n < cluster->nodes_count; n++)
		if (pl_plan_holds(has, l, e, n) && !pl_plan_holds(lacks, l, e, n))
			(void)json_array_append_new(names, json_string(cluster->nodes[n].id));
	return names;
}

static void print_names(const struct pl_plan *plan, uint32_t l, uint32_t e, const struct pl_cluster *cluster)
{
	for (uint32_t n = 0; n < cluster->nodes_count; n++)
		if (pl_plan_holds(plan, l, e, n))
			printf(" %s", cluster->nodes[n].id);
}

static void print_diff(const struct present *present, const struct pl_plan *wanted, enum cl_format format)
{
	const struct pl_cluster *cluster = &present->cluster;
	const struct pl_plan *now = present->plan;
	const struct pl_moves moves = pl_moves_between(now, wanted, cluster, 0);
	json_t *list = json_array();
	char bytes[CAD_BYTES_TEXT_BYTES];

	for (uint32_t l = 0; l < now->layers; l++)
		for (uint32_t e = 0; e < now->experts; e++) {
			if (memcmp(pl_plan_set(now, l, e), pl_plan_set(wanted, l, e), now->words * sizeof *now->bits) ==
				0)
				continue;
			if (format == CL_FORMAT_JSON) {
				(void)json_array_append_new(list,
					json_pack("{s:I, s:I, s:o, s:o}", "layer", (json_int_t)now->layer[l], "expert",
						(json_int_t)e, "load", names_to_json(wanted, now, l, e, cluster),
						"free", names_to_json(now, wanted, l, e, cluster)));
				continue;
			}
			printf("layer %u expert %u:", now->layer[l], e);
			print_names(now, l, e, cluster);
			printf(" ->");
			print_names(wanted, l, e, cluster);
			putchar('\n');
		}

	if (format == CL_FORMAT_JSON) {
		cl_print_json(json_pack("{s:I, s:I, s:I, s:o}", "loads", (json_int_t)moves.loads, "frees",
			(json_int_t)moves.frees, "bytes", (json_int_t)moves.bytes, "moves", list));
		return;
	}
	json_decref(list);
	printf("%llu %s to load, %llu to free, %s\n", (unsigned long long)moves.loads,
		cad_plural(moves.loads, "copy", "copies"), (unsigned long long)moves.frees,
		cad_bytes_text(moves.bytes, bytes));
}

/* The plan for the cluster's nodes in their order. */
static enum cad_status renumber(const struct present *present, const struct pl_plan *plan,
	const struct pl_cluster *nodes, struct pl_plan **matched, struct cad_error *error)
{
	return pl_plan_translate(plan, nodes, &present->cluster, matched) == CAD_OK
		? CAD_OK
		: cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the map");
}

/* The one FILE; NULL: it was not given, and that was said. */
static const char *take_file(const char *command, const struct cad_options *parsed)
{
	if (cad_options_positional_count(parsed) == 1)
		return cad_options_positional(parsed, 0);
	fprintf(stderr, "cadrectl %s: give the FILE with the map\n", command);
	return NULL;
}

int cl_map_diff(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct cl_session session = { .address = NULL };
	struct present present = { .status = CAD_OK };
	struct pl_plan *plan = NULL, *matched = NULL;
	struct pl_cluster nodes = { 0 };
	struct cad_error error;
	int exit_code;

	if (!cad_options_main(&diff_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	const char *path = take_file("map diff", parsed);
	exit_code = CL_EXIT_USAGE;
	if (path) {
		enum cad_status status = cl_session_open(&session, &options.change.placement, &error);
		if (status == CAD_OK)
			status = get_present(&session, &present, &error);
		if (status == CAD_OK)
			status = read_map(path, &present, &plan, &nodes, &error);
		if (status == CAD_OK)
			status = renumber(&present, plan, &nodes, &matched, &error);
		if (status == CAD_OK)
			print_diff(&present, matched, options.change.placement.format);
		exit_code = status == CAD_OK ? CL_EXIT_OK : cl_session_fail(&session, "map diff", status, &error);
	}

	cl_session_close(&session);
	pl_plan_free(matched);
	pl_plan_free(plan);
	pl_cluster_fini(&nodes);
	present_fini(&present);
	cad_options_destroy(parsed);
	return exit_code;
}

/* ---- apply ---- */

/* The request; everything in it is in the arena or borrowed. */
static enum cad_status make_request(const struct pl_plan *plan, const struct pl_cluster *nodes,
	struct cad_rpc_arena *arena, Cadre__V1__ApplyMapRequest *request, struct cad_error *error)
{
	char **ids = cad_rpc_arena_alloc(arena, nodes->nodes_count * sizeof *ids);
	Cadre__V1__LayerMap *layers = cad_rpc_arena_alloc(arena, plan->layers * sizeof *layers),
			    **layer_list = cad_rpc_arena_alloc(arena, plan->layers * sizeof *layer_list);
	size_t cells = (size_t)plan->layers * plan->experts;
	Cadre__V1__Replicas *experts = cad_rpc_arena_alloc(arena, cells * sizeof *experts),
			    **expert_list = cad_rpc_arena_alloc(arena, cells * sizeof *expert_list);
	uint32_t *holders = cad_rpc_arena_alloc(arena, (pl_plan_copies(plan) + 1) * sizeof *holders);

	if (!ids || !layers || !layer_list || !experts || !expert_list || !holders)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the map");
	for (uint32_t n = 0; n < nodes->nodes_count; n++)
		ids[n] = nodes->nodes[n].id;
	for (uint32_t l = 0; l < plan->layers; l++) {
		cadre__v1__layer_map__init(&layers[l]);
		layers[l].layer = plan->layer[l];
		layers[l].experts = expert_list + (size_t)l * plan->experts;
		layers[l].n_experts = plan->experts;
		layer_list[l] = &layers[l];
		for (uint32_t e = 0; e < plan->experts; e++) {
			Cadre__V1__Replicas *expert = &experts[(size_t)l * plan->experts + e];
			cadre__v1__replicas__init(expert);
			expert->nodes = holders;
			for (uint32_t n = 0; (n = pl_plan_next(plan, l, e, n)) != UINT32_MAX; n++)
				expert->nodes[expert->n_nodes++] = n;
			holders += expert->n_nodes;
			layers[l].experts[e] = expert;
		}
	}
	request->nodes = ids;
	request->n_nodes = nodes->nodes_count;
	request->layers = layer_list;
	request->n_layers = plan->layers;

	return CAD_OK;
}

static bool on_applied(void *context, const ProtobufCMessage *message)
{
	*(uint64_t *)context = ((const Cadre__V1__Rebalance *)message)->id;
	return true;
}

static enum cad_status apply(struct cl_session *session, const struct options *options, const char *path, uint64_t *id,
	struct cad_error *error)
{
	struct present present = { .status = CAD_OK };
	struct pl_plan *plan = NULL;
	struct pl_cluster nodes = { 0 };
	struct cad_rpc_arena arena;
	Cadre__V1__ApplyMapRequest request = CADRE__V1__APPLY_MAP_REQUEST__INIT;
	Cadre__V1__Change change;
	enum cad_status status = get_present(session, &present, error);

	cad_rpc_arena_init(&arena, SIZE_MAX);
	if (status == CAD_OK)
		status = read_map(path, &present, &plan, &nodes, error);
	if (status == CAD_OK)
		status = make_request(plan, &nodes, &arena, &request, error);
	if (status == CAD_OK) {
		request.change = cl_change_to_proto(&options->change, &change);
		request.bytes_per_second = options->follow.bytes_per_second;
		status = cl_session_call(session, CL_PLACEMENT_METHOD("ApplyMap"), &request.base,
			&cadre__v1__rebalance__descriptor, on_applied, id, NULL, error);
	}
	cad_rpc_arena_reset(&arena);
	pl_plan_free(plan);
	pl_cluster_fini(&nodes);
	present_fini(&present);

	return status;
}

int cl_map_apply(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct cl_session session = { .address = NULL };
	struct cad_error error;
	uint64_t id;
	int exit_code;

	if (!cad_options_main(&apply_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	const char *path = take_file("map apply", parsed);
	exit_code = CL_EXIT_USAGE;
	if (path) {
		enum cad_status status = cl_session_open(&session, &options.change.placement, &error);
		if (status == CAD_OK)
			status = apply(&session, &options, path, &id, &error);
		exit_code = status == CAD_OK
			? cl_follow(&session, "map apply", &options.follow, options.change.placement.format, id)
			: cl_session_fail(&session, "map apply", status, &error);
	}

	cl_session_close(&session);
	cad_options_destroy(parsed);
	return exit_code;
}
