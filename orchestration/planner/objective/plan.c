/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/objective/plan.h"

#include "common/base/file.h"
#include "common/model/spec.h"
#include "orchestration/planner/objective/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "cadre-placement-1"

enum { FILE_BYTES_MAX = 256 << 20 };

enum cad_status pl_plan_create(uint32_t layers, uint32_t experts, uint32_t nodes, struct pl_plan **plan)
{
	struct pl_plan *made = calloc(1, sizeof *made);
	if (!made)
		return CAD_ERR_MEMORY;

	*made = (struct pl_plan){
		.layers = layers,
		.experts = experts,
		.nodes = nodes,
		.words = (nodes + 63) / 64,
	};
	made->bits = calloc((size_t)layers * experts * made->words + 1, sizeof *made->bits);
	made->layer = malloc((layers + 1) * sizeof *made->layer);
	if (!made->bits || !made->layer) {
		pl_plan_free(made);
		return CAD_ERR_MEMORY;
	}

	for (uint32_t l = 0; l < layers; l++)
		made->layer[l] = l;
	*plan = made;
	return CAD_OK;
}

void pl_plan_free(struct pl_plan *plan)
{
	if (plan) {
		free(plan->bits);
		free(plan->layer);
	}
	free(plan);
}

void pl_plan_clear(struct pl_plan *plan)
{
	memset(plan->bits, 0, (size_t)plan->layers * plan->experts * plan->words * sizeof *plan->bits);
}

uint32_t pl_plan_count(const struct pl_plan *plan, uint32_t layer, uint32_t expert)
{
	const uint64_t *set = pl_plan_set(plan, layer, expert);
	uint32_t count = 0;
	for (uint32_t w = 0; w < plan->words; w++)
		count += (uint32_t)__builtin_popcountll(set[w]);
	return count;
}

uint32_t pl_plan_next(const struct pl_plan *plan, uint32_t layer, uint32_t expert, uint32_t from)
{
	const uint64_t *set = pl_plan_set(plan, layer, expert);
	for (uint32_t w = from / 64; w < plan->words; w++) {
		uint64_t left = w == from / 64 ? set[w] & ~0ull << from % 64 : set[w];
		if (left)
			return w * 64 + (uint32_t)__builtin_ctzll(left);
	}
	return UINT32_MAX;
}

enum cad_status pl_plan_renumber(const struct pl_plan *from, const uint32_t *to, uint32_t nodes, struct pl_plan **plan)
{
	struct pl_plan *made;
	enum cad_status status = pl_plan_create(from->layers, from->experts, nodes, &made);
	if (status != CAD_OK)
		return status;

	memcpy(made->layer, from->layer, from->layers * sizeof *from->layer);
	for (uint32_t l = 0; l < from->layers; l++)
		for (uint32_t e = 0; e < from->experts; e++)
			for (uint32_t n = 0; (n = pl_plan_next(from, l, e, n)) != UINT32_MAX; n++)
				if (to[n] != UINT32_MAX)
					pl_plan_put(made, l, e, to[n]);

	*plan = made;
	return CAD_OK;
}

enum cad_status pl_plan_translate(const struct pl_plan *plan, const struct pl_cluster *from,
	const struct pl_cluster *to, struct pl_plan **translated)
{
	uint32_t *nodes = malloc((from->nodes_count + 1u) * sizeof *nodes);
	if (!nodes)
		return CAD_ERR_MEMORY;
	for (uint32_t n = 0; n < from->nodes_count; n++)
		nodes[n] = pl_cluster_find(to, from->nodes[n].id);
	enum cad_status status = pl_plan_renumber(plan, nodes, to->nodes_count, translated);
	free(nodes);
	return status;
}

uint32_t pl_plan_used(const struct pl_plan *plan, uint32_t layer, uint32_t node)
{
	uint32_t used = 0;
	for (uint32_t e = 0; e < plan->experts; e++)
		used += pl_plan_holds(plan, layer, e, node);
	return used;
}

uint32_t pl_plan_used_max(const struct pl_plan *plan)
{
	uint32_t most = 0;
	for (uint32_t l = 0; l < plan->layers; l++)
		for (uint32_t n = 0; n < plan->nodes; n++) {
			uint32_t used = pl_plan_used(plan, l, n);
			most = used > most ? used : most;
		}
	return most;
}

uint32_t pl_plan_copies_on(const struct pl_plan *plan, uint32_t node)
{
	uint32_t copies = 0;
	for (uint32_t l = 0; l < plan->layers; l++)
		copies += pl_plan_used(plan, l, node);
	return copies;
}

uint64_t pl_plan_copies(const struct pl_plan *plan)
{
	uint64_t copies = 0;
	for (size_t i = 0; i < (size_t)plan->layers * plan->experts * plan->words; i++)
		copies += (uint64_t)__builtin_popcountll(plan->bits[i]);
	return copies;
}

enum cad_status pl_plan_contiguous(uint32_t layers, uint32_t experts, uint32_t nodes, struct pl_plan **plan)
{
	enum cad_status status = pl_plan_create(layers, experts, nodes, plan);
	for (uint32_t l = 0; status == CAD_OK && l < layers; l++)
		for (uint32_t e = 0; e < experts; e++)
			pl_plan_put(*plan, l, e, (uint32_t)((uint64_t)e * nodes / experts));
	return status;
}

/* The index that a key of the file gives: "0", "17"; UINT32_MAX for anything else. */
static uint32_t index_of(const char *key)
{
	uint32_t value = 0;
	size_t digits = strspn(key, "0123456789");
	if (digits == 0 || digits > 6 || key[digits] != 0 || (digits > 1 && key[0] == '0'))
		return UINT32_MAX;
	for (size_t i = 0; i < digits; i++)
		value = value * 10 + (uint32_t)(key[i] - '0');
	return value;
}

static enum cad_status fill_expert(const char *name, struct pl_plan *plan, uint32_t layer, uint32_t expert,
	const json_t *nodes, struct cad_error *error)
{
	size_t i;
	json_t *node;

	if (!json_is_array(nodes) || json_array_size(nodes) == 0)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: layer %u expert %u has no list of nodes: give at least one", name, plan->layer[layer],
			expert);
	json_array_foreach(nodes, i, node)
	{
		json_int_t value = json_is_integer(node) ? json_integer_value(node) : -1;
		if (value < 0 || value >= plan->nodes)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: layer %u expert %u: entry %zu is not a node from 0 to %u", name,
				plan->layer[layer], expert, i, plan->nodes - 1);
		if (pl_plan_holds(plan, layer, expert, (uint32_t)value))
			return cad_error_set(error, CAD_ERR_CORRUPT, "%s: layer %u expert %u names node %u twice", name,
				plan->layer[layer], expert, (unsigned)value);
		pl_plan_put(plan, layer, expert, (uint32_t)value);
	}

	return CAD_OK;
}

static enum cad_status fill_layer(
	const char *name, struct pl_plan *plan, uint32_t layer, const json_t *experts, struct cad_error *error)
{
	const char *key;
	json_t *nodes;

	if (!json_is_object(experts) || json_object_size(experts) != plan->experts)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: layer %u does not have the %u experts of the first layer", name, plan->layer[layer],
			plan->experts);
	json_object_foreach((json_t *)experts, key, nodes)
	{
		uint32_t e = index_of(key);
		if (e >= plan->experts)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: layer %u expert '%.20s': %u experts must be called 0 to %u", name,
				plan->layer[layer], key, plan->experts, plan->experts - 1);
		enum cad_status status = fill_expert(name, plan, layer, e, nodes, error);
		if (status != CAD_OK)
			return status;
	}

	return CAD_OK;
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static enum cad_status fill(const char *name, struct pl_plan *plan, const json_t *layers, struct cad_error *error)
{
	const char *key;
	char text[16];
	json_t *layer;
	uint32_t count = 0;

	json_object_foreach((json_t *)layers, key, layer)
	{
		plan->layer[count] = index_of(key);
		if (plan->layer[count++] >= CAD_LAYERS_MAX)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: layer '%.20s': a number from 0 to %d is expected", name, key, CAD_LAYERS_MAX - 1);
	}
	qsort(plan->layer, count, sizeof *plan->layer, ascending);

	for (uint32_t l = 0; l < count; l++) {
		snprintf(text, sizeof text, "%u", plan->layer[l]);
		enum cad_status status = fill_layer(name, plan, l, json_object_get(layers, text), error);
		if (status != CAD_OK)
			return status;
	}

	return CAD_OK;
}

/* "node_ids", which a file may have. */
static enum cad_status take_ids(
	const char *name, const json_t *json, uint32_t count, struct pl_cluster *nodes, struct cad_error *error)
{
	const json_t *ids = json_object_get(json, "node_ids");

	if (!ids)
		return CAD_OK;
	if (!json_is_array(ids) || json_array_size(ids) != count)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: \"node_ids\" must be a list of as many ids as there are nodes, %u", name, count);
	enum cad_status status = pl_cluster_create(count, 0, nodes, error);
	if (status != CAD_OK)
		return status;

	nodes->nodes_count = 0;
	for (uint32_t n = 0; n < count; n++) {
		const char *id = json_string_value(json_array_get(ids, n));
		if (!id || !cad_process_name_is_legal(id))
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: \"node_ids\" entry %u is not an id of 1 to %d letters, digits and ._:-", name, n,
				PL_CLUSTER_ID_BYTES - 1);
		if (pl_cluster_find(nodes, id) != PL_CLUSTER_ANY)
			return cad_error_set(error, CAD_ERR_CORRUPT, "%s: \"node_ids\" names '%s' twice", name, id);
		snprintf(nodes->nodes[nodes->nodes_count++].id, PL_CLUSTER_ID_BYTES, "%s", id);
	}

	return CAD_OK;
}

static enum cad_status from_json(
	const char *name, const json_t *json, struct pl_plan **plan, struct pl_cluster *ids, struct cad_error *error)
{
	const char *format = json_string_value(json_object_get(json, "format"));
	const json_t *nodes = json_object_get(json, "nodes"), *layers = json_object_get(json, "layers");

	if (!format || strcmp(format, FORMAT) != 0)
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "%s: \"format\" is not \"" FORMAT "\": this is not a placement", name);
	if (!json_is_integer(nodes) || json_integer_value(nodes) < 1 || json_integer_value(nodes) > CAD_NODES_MAX)
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "%s: \"nodes\" must be a number from 1 to %d", name, CAD_NODES_MAX);
	size_t count = json_object_size(layers);
	size_t experts = count ? json_object_size(json_object_iter_value(json_object_iter((json_t *)layers))) : 0;
	if (count == 0 || count > CAD_LAYERS_MAX || experts == 0 || experts > CAD_EXPERTS_MAX)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: \"layers\" must have 1 to %d layers of 1 to %d experts", name, CAD_LAYERS_MAX,
			CAD_EXPERTS_MAX);
	struct pl_plan *made;
	enum cad_status status =
		pl_plan_create((uint32_t)count, (uint32_t)experts, (uint32_t)json_integer_value(nodes), &made);
	if (status != CAD_OK)
		return cad_error_set(error, status, "%s: out of memory for %zu layers", name, count);
	struct pl_cluster named = { 0 };
	status = fill(name, made, layers, error);
	if (status == CAD_OK)
		status = take_ids(name, json, made->nodes, &named, error);
	if (status != CAD_OK || !ids)
		pl_cluster_fini(&named);
	if (status != CAD_OK) {
		pl_plan_free(made);
		return status;
	}

	*plan = made;
	if (ids)
		*ids = named;
	return CAD_OK;
}

enum cad_status pl_plan_parse(const char *name, const char *text, size_t bytes, struct pl_plan **plan,
	struct pl_cluster *nodes, struct cad_error *error)
{
	json_error_t problem;
	json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
	if (!json)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: line %d: %s: this is not JSON, as 'cadrectl plan' and 'cadrectl map show' print placements",
			name, problem.line, problem.text);
	enum cad_status status = from_json(name, json, plan, nodes, error);
	json_decref(json);
	return status;
}

enum cad_status pl_plan_read(const char *path, struct pl_plan **plan, struct pl_cluster *nodes, struct cad_error *error)
{
	char *text;
	size_t bytes;
	enum cad_status status = cad_file_read(path, FILE_BYTES_MAX, &text, &bytes, error);

	if (status != CAD_OK)
		return status;
	status = pl_plan_parse(path, text, bytes, plan, nodes, error);
	free(text);
	return status;
}

json_t *pl_plan_to_json(const struct pl_plan *plan, const struct pl_cluster *nodes, const char *planner,
	uint32_t slots_per_node, double seconds)
{
	char key[16];
	json_t *layers = json_object(), *ids = nodes ? json_array() : NULL;

	for (uint32_t n = 0; nodes && n < nodes->nodes_count; n++)
		(void)json_array_append_new(ids, json_string(nodes->nodes[n].id));

	for (uint32_t l = 0; l < plan->layers; l++) {
		json_t *layer = json_object();
		for (uint32_t e = 0; e < plan->experts; e++) {
			json_t *holders = json_array();
			for (uint32_t n = 0; n < plan->nodes; n++)
				if (pl_plan_holds(plan, l, e, n))
					(void)json_array_append_new(holders, json_integer(n));
			snprintf(key, sizeof key, "%u", e);
			(void)json_object_set_new(layer, key, holders);
		}
		snprintf(key, sizeof key, "%u", plan->layer[l]);
		(void)json_object_set_new(layers, key, layer);
	}

	return json_pack("{s:s, s:s, s:I, s:I, s:f, s:o, s:o*}", "format", FORMAT, "planner", planner, "nodes",
		(json_int_t)plan->nodes, "slots_per_node", (json_int_t)slots_per_node, "seconds", seconds, "layers",
		layers, "node_ids", ids);
}
