/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/rebalance_message.h"

#include "common/process/process.h"

#include <stdio.h>
#include <string.h>

_Static_assert(PL_REBALANCE_UNDONE == (int)CADRE__V1__REBALANCE_STATE__REBALANCE_STATE_UNDONE,
	"the states have the numbers of the message");

Cadre__V1__Rebalance *pl_rebalance_to_proto(const struct pl_rebalance *r, struct pl_rebalance_message *message)
{
	Cadre__V1__Rebalance *m = &message->message;

	cadre__v1__rebalance__init(m);
	pl_rebalance_what(r, message->what);
	message->warnings[0] = (char *)r->warning;
	m->id = r->id;
	m->state = (Cadre__V1__RebalanceState)r->state;
	m->what = message->what;
	m->who = (char *)r->who;
	m->reason = (char *)r->reason;
	m->text = (char *)r->text;
	m->warnings = message->warnings;
	m->n_warnings = r->warning[0] ? 1 : 0;
	m->dry_run = r->dry_run;
	m->measuring = r->measuring;
	m->predicted = pl_effect_to_proto(&r->predicted, &message->predicted);
	m->measured = pl_effect_to_proto(&r->measured, &message->measured);
	m->moves = r->moves;
	m->moves_done = r->moves_done;
	m->moves_failed = r->moves_failed;
	m->moves_in_flight = r->moves_in_flight;
	m->bytes = r->bytes;
	m->bytes_done = r->bytes_done;
	m->seconds = r->seconds;
	m->planning_seconds = r->planning_seconds;
	m->tokens_planned_on = r->tokens_planned;
	m->tokens_measured_on = r->tokens_measured;
	m->started_ms = r->started_ms;
	m->undoes = r->undoes;
	m->undone_by = r->undone_by;
	return m;
}

/* ---- placements ---- */

/* `count` of them, each `bytes`, and the list that points to them. */
static void *make_list(struct cad_rpc_arena *arena, size_t count, size_t bytes, void ***list)
{
	char *items = cad_rpc_arena_alloc(arena, count * bytes + 1);
	*list = cad_rpc_arena_alloc(arena, (count + 1) * sizeof **list);
	for (size_t i = 0; items && *list && i < count; i++)
		(*list)[i] = items + i * bytes;
	return *list ? items : NULL;
}

static bool fill_nodes(Cadre__V1__PlacementMap *message, const struct pl_cluster *cluster, struct cad_rpc_arena *arena)
{
	void **list;
	Cadre__V1__PlacementNode *nodes = make_list(arena, cluster->nodes_count, sizeof *nodes, &list);
	if (!nodes)
		return false;

	for (uint32_t n = 0; n < cluster->nodes_count; n++) {
		const struct pl_cluster_node *node = &cluster->nodes[n];
		cadre__v1__placement_node__init(&nodes[n]);
		nodes[n].id = (char *)node->id;
		nodes[n].memory_bytes = node->memory_bytes;
		nodes[n].expert_bytes = node->expert_bytes;
		nodes[n].speed = node->speed;
		nodes[n].link = node->link;
		nodes[n].forbidden = node->forbidden;
	}
	message->nodes = (Cadre__V1__PlacementNode **)list;
	message->n_nodes = cluster->nodes_count;

	Cadre__V1__PlacementRule *rules = make_list(arena, cluster->rules_count, sizeof *rules, &list);
	if (!rules)
		return false;
	for (uint32_t i = 0; i < cluster->rules_count; i++) {
		const struct pl_cluster_rule *rule = &cluster->rules[i];
		cadre__v1__placement_rule__init(&rules[i]);
		rules[i].every_layer = rule->layer == PL_CLUSTER_ANY;
		rules[i].layer = rules[i].every_layer ? 0 : rule->layer;
		rules[i].expert = rule->expert;
		rules[i].node = rule->node;
		rules[i].forbidden = rule->forbidden;
	}
	message->rules = (Cadre__V1__PlacementRule **)list;
	message->n_rules = cluster->rules_count;

	return true;
}

static bool fill_expert(
	Cadre__V1__Replicas *replicas, const struct pl_plan *plan, uint32_t l, uint32_t e, struct cad_rpc_arena *arena)
{
	uint32_t count = pl_plan_count(plan, l, e);
	uint32_t *nodes = cad_rpc_arena_alloc(arena, (count + 1) * sizeof *nodes);
	if (!nodes)
		return false;

	cadre__v1__replicas__init(replicas);
	replicas->nodes = nodes;
	for (uint32_t n = 0; (n = pl_plan_next(plan, l, e, n)) != UINT32_MAX; n++)
		nodes[replicas->n_nodes++] = n;
	return true;
}

static bool fill_layers(Cadre__V1__PlacementMap *message, const struct pl_plan *plan, struct cad_rpc_arena *arena)
{
	void **list;
	Cadre__V1__LayerMap *layers = make_list(arena, plan->layers, sizeof *layers, &list);
	if (!layers)
		return false;
	message->layers = (Cadre__V1__LayerMap **)list;
	message->n_layers = plan->layers;

	for (uint32_t l = 0; l < plan->layers; l++) {
		Cadre__V1__Replicas *experts = make_list(arena, plan->experts, sizeof *experts, &list);
		cadre__v1__layer_map__init(&layers[l]);
		if (!experts)
			return false;
		layers[l].layer = plan->layer[l];
		layers[l].experts = (Cadre__V1__Replicas **)list;
		layers[l].n_experts = plan->experts;
		for (uint32_t e = 0; e < plan->experts; e++)
			if (!fill_expert(&experts[e], plan, l, e, arena))
				return false;
	}

	return true;
}

Cadre__V1__PlacementMap *pl_situation_to_proto(const struct pl_situation *situation, struct cad_rpc_arena *arena)
{
	Cadre__V1__PlacementMap *message = cad_rpc_arena_alloc(arena, sizeof *message);
	if (!message)
		return NULL;

	cadre__v1__placement_map__init(message);
	message->expert_bytes = situation->cluster.expert_bytes;
	message->image_bytes = situation->cluster.image_bytes;
	return fill_nodes(message, &situation->cluster, arena) && fill_layers(message, situation->present, arena)
		? message
		: NULL;
}

/* ---- maps from outside ---- */

static enum cad_status take_nodes(
	const Cadre__V1__ApplyMapRequest *request, struct pl_cluster *nodes, struct cad_error *error)
{
	enum cad_status status = pl_cluster_create((uint32_t)request->n_nodes, 0, nodes, error);
	if (status != CAD_OK)
		return status;

	nodes->nodes_count = 0;
	for (size_t n = 0; n < request->n_nodes; n++) {
		if (!cad_process_name_is_legal(request->nodes[n]))
			return cad_error_set(
				error, CAD_ERR_INVALID, "node %zu of the map has no id of letters, digits and ._:-", n);
		if (pl_cluster_find(nodes, request->nodes[n]) != PL_CLUSTER_ANY)
			return cad_error_set(
				error, CAD_ERR_INVALID, "the map names node '%s' twice", request->nodes[n]);
		snprintf(nodes->nodes[nodes->nodes_count++].id, PL_CLUSTER_ID_BYTES, "%s", request->nodes[n]);
	}
	return CAD_OK;
}

static enum cad_status take_expert(
	struct pl_plan *plan, uint32_t l, uint32_t e, const Cadre__V1__Replicas *replicas, struct cad_error *error)
{
	if (replicas->n_nodes == 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the map leaves layer %u expert %u without a copy: give it a node", plan->layer[l], e);
	for (size_t i = 0; i < replicas->n_nodes; i++) {
		uint32_t node = replicas->nodes[i];
		if (node >= plan->nodes || pl_plan_holds(plan, l, e, node))
			return cad_error_set(error, CAD_ERR_INVALID,
				"the map has layer %u expert %u on node number %u, which is %s", plan->layer[l], e,
				node, node >= plan->nodes ? "not in its list" : "there twice");
		pl_plan_put(plan, l, e, node);
	}
	return CAD_OK;
}

static enum cad_status take_layers(
	const Cadre__V1__ApplyMapRequest *request, struct pl_plan *plan, struct cad_error *error)
{
	for (uint32_t l = 0; l < plan->layers; l++) {
		const Cadre__V1__LayerMap *layer = request->layers[l];
		plan->layer[l] = layer->layer;
		if (l > 0 && plan->layer[l] <= plan->layer[l - 1])
			return cad_error_set(error, CAD_ERR_INVALID, "the layers of the map must ascend");
		if (layer->n_experts != plan->experts)
			return cad_error_set(error, CAD_ERR_INVALID,
				"layer %u of the map has %zu experts, the first one %u", layer->layer, layer->n_experts,
				plan->experts);
		for (uint32_t e = 0; e < plan->experts; e++) {
			enum cad_status status = take_expert(plan, l, e, layer->experts[e], error);
			if (status != CAD_OK)
				return status;
		}
	}
	return CAD_OK;
}

enum cad_status pl_plan_from_proto(const Cadre__V1__ApplyMapRequest *request, struct pl_plan **plan,
	struct pl_cluster *nodes, struct cad_error *error)
{
	struct pl_plan *made = NULL;
	struct pl_cluster named = { 0 };
	size_t experts = request->n_layers ? request->layers[0]->n_experts : 0;

	if (request->n_nodes == 0 || request->n_nodes > CAD_NODES_MAX || request->n_layers == 0 ||
		request->n_layers > CAD_LAYERS_MAX || experts == 0 || experts > CAD_EXPERTS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID,
			"a map has 1 to %d nodes, and 1 to %d layers of 1 to %d experts; this one has %zu, %zu and %zu",
			CAD_NODES_MAX, CAD_LAYERS_MAX, CAD_EXPERTS_MAX, request->n_nodes, request->n_layers, experts);

	enum cad_status status = take_nodes(request, &named, error);
	if (status == CAD_OK &&
		pl_plan_create((uint32_t)request->n_layers, (uint32_t)experts, (uint32_t)request->n_nodes, &made) !=
			CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the map");
	if (status == CAD_OK)
		status = take_layers(request, made, error);
	if (status != CAD_OK) {
		pl_plan_free(made);
		pl_cluster_fini(&named);
		return status;
	}

	*plan = made;
	*nodes = named;
	return CAD_OK;
}
