/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/objective/cluster.h"

#include "common/base/file.h"
#include "common/cluster/map.h"
#include "common/model/spec.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 16 << 20, RULES_MAX = 1 << 20 };

enum cad_status pl_cluster_create(uint32_t nodes, uint32_t slots, struct pl_cluster *cluster, struct cad_error *error)
{
	if (nodes < 1 || nodes > CAD_NODES_MAX)
		return cad_error_set(
			error, CAD_ERR_INVALID, "%u nodes: the planner takes 1 to %d", nodes, CAD_NODES_MAX);
	struct pl_cluster_node *list = calloc(nodes, sizeof *list);
	if (!list)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %u nodes", nodes);

	for (uint32_t n = 0; n < nodes; n++) {
		list[n] = (struct pl_cluster_node){
			.slots = slots,
			.speed = 1,
			.link = 1,
			.domain = PL_CLUSTER_ANY,
		};
		snprintf(list[n].id, sizeof list[n].id, "n%u", n);
	}

	*cluster = (struct pl_cluster){ .nodes = list, .nodes_count = nodes, .racks_count = 1 };
	return CAD_OK;
}

void pl_cluster_fini(struct pl_cluster *cluster)
{
	free(cluster->nodes);
	free(cluster->rules);
	*cluster = (struct pl_cluster){ 0 };
}

uint32_t pl_cluster_find(const struct pl_cluster *cluster, const char *id)
{
	for (uint32_t n = 0; n < cluster->nodes_count; n++)
		if (strcmp(cluster->nodes[n].id, id) == 0)
			return n;
	return PL_CLUSTER_ANY;
}

uint64_t pl_cluster_expert_bytes(const struct pl_cluster *cluster, uint32_t node)
{
	uint64_t own = cluster->nodes[node].expert_bytes;
	return own ? own : cluster->expert_bytes;
}

uint64_t pl_cluster_image_bytes(const struct pl_cluster *cluster, uint32_t node)
{
	return cluster->image_bytes ? cluster->image_bytes : pl_cluster_expert_bytes(cluster, node);
}

uint64_t pl_cluster_room(const struct pl_cluster *cluster, uint32_t node)
{
	uint64_t bytes = pl_cluster_expert_bytes(cluster, node);
	if (cluster->nodes[node].forbidden)
		return 0;
	return bytes ? cluster->nodes[node].memory_bytes / bytes : UINT64_MAX;
}

/* Whether an object has only keys of the list, which ends with NULL. */
static enum cad_status check_keys(
	const char *name, const char *what, const json_t *object, const char *const *keys, struct cad_error *error)
{
	const char *key;
	json_t *value;

	if (!json_is_object(object))
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s: %s is not an object", name, what);

	json_object_foreach((json_t *)object, key, value)
	{
		size_t i = 0;
		while (keys[i] && strcmp(keys[i], key) != 0)
			i++;
		if (!keys[i])
			return cad_error_set(
				error, CAD_ERR_CORRUPT, "%s: %s has the unknown key \"%.60s\"", name, what, key);
	}
	return CAD_OK;
}

/* A whole number of an object; absent: `value` stays. */
static enum cad_status take_count(const char *name, const json_t *object, const char *key, json_int_t max,
	uint64_t *value, struct cad_error *error)
{
	const json_t *json = json_object_get(object, key);
	if (!json)
		return CAD_OK;
	if (!json_is_integer(json) || json_integer_value(json) < 0 || json_integer_value(json) > max)
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s: \"%s\" must be a whole number from 0 to %lld", name,
			key, (long long)max);
	*value = (uint64_t)json_integer_value(json);
	return CAD_OK;
}

static enum cad_status take_ratio(
	const char *name, const json_t *object, const char *key, double *value, struct cad_error *error)
{
	const json_t *json = json_object_get(object, key);
	*value = json ? json_number_value(json) : 1;
	if ((json && !json_is_number(json)) || !(*value >= 1e-3 && *value <= 1e3))
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "%s: \"%s\" must be a number from 0.001 to 1000", name, key);
	return CAD_OK;
}

/* The index of a name among the nodes before, or `fresh` when it is the first of its kind. */
static uint32_t same_as(
	const json_t *nodes, size_t at, const char *key, const char *value, const uint32_t *known, uint32_t fresh)
{
	for (size_t i = 0; i < at; i++) {
		const char *other = json_string_value(json_object_get(json_array_get(nodes, i), key));
		if (other && strcmp(other, value) == 0)
			return known[i];
	}
	return fresh;
}

static enum cad_status take_node(
	const char *name, const json_t *json, struct pl_cluster_node *node, struct cad_error *error)
{
	static const char *const keys[] = { "id", "slots", "memory_bytes", "expert_bytes", "speed", "link", "domain",
		"rack", "forbidden", NULL };
	enum cad_status status = check_keys(name, "a node", json, keys, error);
	const char *id = json_string_value(json_object_get(json, "id"));
	const json_t *forbidden = json_object_get(json, "forbidden");
	uint64_t slots = 0;

	if (status == CAD_OK && (!id || !cad_process_name_is_legal(id)))
		status = cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: every node needs an \"id\" of 1 to %d letters, digits and ._:-", name,
			PL_CLUSTER_ID_BYTES - 1);
	if (status == CAD_OK)
		status = take_count(name, json, "slots", CAD_EXPERTS_MAX, &slots, error);
	if (status == CAD_OK)
		status = take_count(name, json, "memory_bytes", INT64_MAX, &node->memory_bytes, error);
	if (status == CAD_OK)
		status = take_count(name, json, "expert_bytes", INT64_MAX, &node->expert_bytes, error);
	if (status == CAD_OK)
		status = take_ratio(name, json, "speed", &node->speed, error);
	if (status == CAD_OK)
		status = take_ratio(name, json, "link", &node->link, error);
	if (status != CAD_OK)
		return status;
	node->slots = (uint32_t)slots;
	node->forbidden = json_is_true(forbidden);
	snprintf(node->id, sizeof node->id, "%s", id);
	if (forbidden && !json_is_boolean(forbidden))
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "%s: node '%s': \"forbidden\" must be true or false", name, id);
	if (!node->forbidden && (slots != 0) == (node->memory_bytes != 0))
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: node '%s': give it either \"slots\" or \"memory_bytes\"", name, id);

	return CAD_OK;
}

static enum cad_status take_nodes(
	const char *name, const json_t *nodes, struct pl_cluster *cluster, struct cad_error *error)
{
	size_t count = json_array_size(nodes);
	uint32_t domain[CAD_NODES_MAX], rack[CAD_NODES_MAX], domains = 0;

	if (count < 1 || count > CAD_NODES_MAX)
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "%s: \"nodes\" must list 1 to %d nodes", name, CAD_NODES_MAX);
	cluster->nodes = calloc(count, sizeof *cluster->nodes);
	if (!cluster->nodes)
		return cad_error_set(error, CAD_ERR_MEMORY, "%s: out of memory for %zu nodes", name, count);

	for (size_t i = 0; i < count; i++) {
		const json_t *json = json_array_get(nodes, i), *domain_name = json_object_get(json, "domain"),
			     *rack_name = json_object_get(json, "rack");
		struct pl_cluster_node *node = &cluster->nodes[i];
		enum cad_status status = take_node(name, json, node, error);
		if (status != CAD_OK)
			return status;
		if (pl_cluster_find(cluster, node->id) != PL_CLUSTER_ANY)
			return cad_error_set(error, CAD_ERR_CORRUPT, "%s: two nodes have the id '%s'", name, node->id);
		if ((domain_name && !json_is_string(domain_name)) || (rack_name && !json_is_string(rack_name)))
			return cad_error_set(error, CAD_ERR_CORRUPT, "%s: node '%s': \"domain\" and \"rack\" are names",
				name, node->id);
		const char *rack_text = rack_name ? json_string_value(rack_name) : NULL;
		node->domain = domain[i] = domain_name
			? same_as(nodes, i, "domain", json_string_value(domain_name), domain, domains)
			: PL_CLUSTER_ANY;
		domains += node->domain == domains;
		node->rack = rack[i] = rack_text ? same_as(nodes, i, "rack", rack_text, rack, cluster->racks_count)
						 : cluster->racks_count;
		cluster->racks_count += node->rack == cluster->racks_count && rack_text;
		cluster->nodes_count++;
		if (!rack_text && cluster->racks_count > 0)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: node '%s' has no \"rack\", but others do: give one to all or to none", name,
				node->id);
		if (rack_text && cluster->racks_count > 0 && i > 0 &&
			!json_object_get(json_array_get(nodes, 0), "rack"))
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: node '%s' has a \"rack\", but others do not: give one to all or to none", name,
				node->id);
	}

	cluster->racks_count += cluster->racks_count == 0;
	return CAD_OK;
}

static enum cad_status take_rules(const char *name, const char *key, const json_t *rules, bool forbidden,
	struct pl_cluster *cluster, struct cad_error *error)
{
	static const char *const keys[] = { "layer", "expert", "node", NULL };
	size_t count = json_array_size(rules);

	if (!rules)
		return CAD_OK;

	if (!json_is_array(rules) || count > RULES_MAX)
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "%s: \"%s\" must be a list of at most %d rules", name, key, RULES_MAX);
	struct pl_cluster_rule *grown = realloc(cluster->rules, (cluster->rules_count + count + 1) * sizeof *grown);
	if (!grown)
		return cad_error_set(error, CAD_ERR_MEMORY, "%s: out of memory for %zu rules", name, count);
	cluster->rules = grown;

	for (size_t i = 0; i < count; i++) {
		const json_t *json = json_array_get(rules, i);
		uint64_t layer = PL_CLUSTER_ANY, expert = UINT64_MAX;
		enum cad_status status = check_keys(name, key, json, keys, error);
		if (status == CAD_OK)
			status = take_count(name, json, "layer", CAD_LAYERS_MAX - 1, &layer, error);
		if (status == CAD_OK)
			status = take_count(name, json, "expert", CAD_EXPERTS_MAX - 1, &expert, error);
		if (status != CAD_OK)
			return status;
		const char *id = json_string_value(json_object_get(json, "node"));
		uint32_t node = id ? pl_cluster_find(cluster, id) : PL_CLUSTER_ANY;
		if (expert == UINT64_MAX || node == PL_CLUSTER_ANY)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: entry %zu of \"%s\" needs an \"expert\" and a \"node\" from the list", name, i,
				key);
		cluster->rules[cluster->rules_count++] =
			(struct pl_cluster_rule){ (uint32_t)layer, (uint32_t)expert, node, forbidden };
	}

	return CAD_OK;
}

enum cad_status pl_cluster_parse(
	const char *name, const char *text, size_t bytes, struct pl_cluster *cluster, struct cad_error *error)
{
	static const char *const keys[] = { "expert_bytes", "image_bytes", "nodes", "pin", "forbid", NULL };
	json_error_t problem;
	json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
	if (!json)
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s: line %d: %s", name, problem.line, problem.text);
	struct pl_cluster made = { 0 };
	enum cad_status status = check_keys(name, "the file", json, keys, error);
	if (status == CAD_OK)
		status = take_count(name, json, "expert_bytes", INT64_MAX, &made.expert_bytes, error);
	if (status == CAD_OK)
		status = take_count(name, json, "image_bytes", INT64_MAX, &made.image_bytes, error);
	if (status == CAD_OK)
		status = take_nodes(name, json_object_get(json, "nodes"), &made, error);
	if (status == CAD_OK)
		status = take_rules(name, "pin", json_object_get(json, "pin"), false, &made, error);
	if (status == CAD_OK)
		status = take_rules(name, "forbid", json_object_get(json, "forbid"), true, &made, error);
	for (uint32_t n = 0; status == CAD_OK && n < made.nodes_count; n++)
		if (made.nodes[n].memory_bytes && !pl_cluster_expert_bytes(&made, n))
			status = cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: node '%s' has \"memory_bytes\": give the size of an expert with \"expert_bytes\"",
				name, made.nodes[n].id);
	json_decref(json);
	if (status == CAD_OK)
		*cluster = made;
	else
		pl_cluster_fini(&made);

	return status;
}

enum cad_status pl_cluster_read(const char *path, struct pl_cluster *cluster, struct cad_error *error)
{
	char *text;
	size_t bytes;
	enum cad_status status = cad_file_read(path, FILE_BYTES_MAX, &text, &bytes, error);

	if (status != CAD_OK)
		return status;
	status = pl_cluster_parse(path, text, bytes, cluster, error);
	free(text);
	return status;
}
