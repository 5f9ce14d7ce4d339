/* SPDX-License-Identifier: Apache-2.0 */
/* The map: building it from parts, to and from protobuf. */
#include "common/cluster/map.h"

#include "cadre/v1/types.pb-c.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The map and everything that it points to, in one block. */
struct map_block {
	struct cad_map map;
	atomic_uint references;
};

const struct cad_map_replicas cad_map_nobody = { NULL, (const uint64_t[CAD_NODES_MAX / 64]){ 0 }, 0 };

static int compare_ids(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum cad_status check_nodes(const struct cad_map_node *nodes, size_t count, struct cad_error *error)
{
	if (count > CAD_NODES_MAX)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "map: %zu nodes, the limit is %d", count, CAD_NODES_MAX);
	if (count == 0)
		return CAD_OK;
	const char **ids = malloc(count * sizeof *ids);
	if (!ids)
		return cad_error_set(error, CAD_ERR_MEMORY, "map: out of memory for %zu nodes", count);
	enum cad_status status = CAD_OK;
	for (size_t i = 0; i < count && status == CAD_OK; i++) {
		ids[i] = nodes[i].id;
		if (!cad_process_name_is_legal(nodes[i].id))
			status = cad_error_set(error, CAD_ERR_CORRUPT,
				"map: node %zu has the id '%.80s': 1 to %d letters, digits and ._:- are allowed", i,
				nodes[i].id, CAD_MAP_ID_BYTES - 1);
		else if (strlen(nodes[i].exchange_address) >= CAD_EXCHANGE_ADDRESS_BYTES ||
			strlen(nodes[i].http_address) >= CAD_MAP_ADDRESS_BYTES)
			status = cad_error_set(error, CAD_ERR_CORRUPT,
				"map: node '%s' has an exchange address of more than %d bytes, or another of more than %d",
				nodes[i].id, CAD_EXCHANGE_ADDRESS_BYTES - 1, CAD_MAP_ADDRESS_BYTES - 1);
		else if (nodes[i].live && !nodes[i].exchange_address[0])
			status = cad_error_set(
				error, CAD_ERR_CORRUPT, "map: live node '%s' has no exchange address", nodes[i].id);
		else if (nodes[i].speed != 0 && !(nodes[i].speed >= 1e-3f && nodes[i].speed <= 1e3f))
			status = cad_error_set(error, CAD_ERR_CORRUPT,
				"map: node '%s' has speed %g: it must be from 0.001 to 1000", nodes[i].id,
				(double)nodes[i].speed);
	}

	if (status == CAD_OK)
		qsort(ids, count, sizeof *ids, compare_ids);
	for (size_t i = 1; i < count && status == CAD_OK; i++)
		if (strcmp(ids[i - 1], ids[i]) == 0)
			status = cad_error_set(error, CAD_ERR_CORRUPT, "map: two nodes have the id '%s'", ids[i]);
	free(ids);

	return status;
}

static enum cad_status check_layers(const struct cad_map_source *source, struct cad_error *error)
{
	if (source->epoch == 0)
		return cad_error_set(error, CAD_ERR_CORRUPT, "map: epoch 0, the first one is 1");

	if (source->layers_count > CAD_LAYERS_MAX)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "map: %zu MoE layers, the limit is %d",
			source->layers_count, CAD_LAYERS_MAX);
	if (source->experts > CAD_EXPERTS_MAX)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "map: %u experts per layer, the limit is %d",
			source->experts, CAD_EXPERTS_MAX);
	if ((source->layers_count == 0) != (source->experts == 0))
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"map: %zu MoE layers of %u experts: both or neither must be 0", source->layers_count,
			source->experts);
	for (size_t i = 0; i < source->layers_count; i++) {
		if (source->layers[i] >= CAD_LAYERS_MAX)
			return cad_error_set(error, CAD_ERR_CORRUPT, "map: layer %u, the limit is %d",
				source->layers[i], CAD_LAYERS_MAX - 1);
		if (i > 0 && source->layers[i] <= source->layers[i - 1])
			return cad_error_set(error, CAD_ERR_CORRUPT, "map: layer %u follows layer %u, they must ascend",
				source->layers[i], source->layers[i - 1]);
	}

	return CAD_OK;
}

static char *copy_text(char **text, const char *from)
{
	size_t bytes = strlen(from) + 1;
	char *to = memcpy(*text, from, bytes);
	*text += bytes;
	return to;
}

/* One block with room for everything; nodes and layers filled in, offsets zero, replicas not yet.
 * Pointers in order of alignment. */
static struct map_block *block_create(const struct cad_map_source *source)
{
	size_t text_bytes = 0;
	for (size_t i = 0; i < source->nodes_count; i++)
		text_bytes += strlen(source->nodes[i].id) + strlen(source->nodes[i].exchange_address) +
			strlen(source->nodes[i].http_address) + 3;
	size_t cells = source->layers_count * source->experts;
	size_t nodes_bytes = source->nodes_count * sizeof(struct cad_map_node),
	       layers_bytes = source->layers_count * sizeof(uint32_t);
	size_t sets_bytes = cells * cad_map_words((uint32_t)source->nodes_count) * sizeof(uint64_t);
	size_t offsets_bytes = (cells + 1) * sizeof(uint32_t),
	       replicas_bytes = source->replicas_count * sizeof(uint16_t);
	struct map_block *block = calloc(1,
		sizeof *block + nodes_bytes + sets_bytes + layers_bytes + offsets_bytes + replicas_bytes + text_bytes);
	if (!block)
		return NULL;
	struct cad_map_node *nodes = (struct cad_map_node *)(block + 1);
	uint64_t *sets = (uint64_t *)(nodes + source->nodes_count);
	uint32_t *layers = (uint32_t *)((char *)sets + sets_bytes), *offsets = layers + source->layers_count;
	uint16_t *replicas = (uint16_t *)(offsets + cells + 1);
	char *text = (char *)(replicas + source->replicas_count);
	for (size_t i = 0; i < source->nodes_count; i++)
		nodes[i] = (struct cad_map_node){ copy_text(&text, source->nodes[i].id),
			copy_text(&text, source->nodes[i].exchange_address),
			copy_text(&text, source->nodes[i].http_address), source->nodes[i].live,
			source->nodes[i].speed > 0 ? source->nodes[i].speed : 1 };
	struct cad_map *map = &block->map;
	*map = (struct cad_map){
		.epoch = source->epoch,
		.nodes_count = (uint32_t)source->nodes_count,
		.layers_count = (uint32_t)source->layers_count,
		.experts = source->experts,
		.nodes = nodes,
		.layers = layers,
		.offsets = offsets,
		.replicas = replicas,
		.sets = sets,
	};
	for (size_t i = 0; i < CAD_LAYERS_MAX; i++)
		map->row_of_layer[i] = CAD_MAP_NONE;
	for (size_t i = 0; i < source->layers_count; i++) {
		layers[i] = source->layers[i];
		map->row_of_layer[layers[i]] = (int16_t)i;
	}

	atomic_init(&block->references, 1);
	return block;
}

static enum cad_status check_replica(
	const struct cad_map *map, const struct cad_map_replica *replica, struct cad_error *error)
{
	if (replica->layer >= CAD_LAYERS_MAX || map->row_of_layer[replica->layer] < 0)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"map: a replica in layer %u, which is not an MoE layer of the map", replica->layer);
	if (replica->expert >= map->experts)
		return cad_error_set(error, CAD_ERR_CORRUPT, "map: layer %u has %u experts, a replica names expert %u",
			replica->layer, map->experts, replica->expert);
	if (replica->node >= map->nodes_count)
		return cad_error_set(error, CAD_ERR_CORRUPT, "map: layer %u expert %u names node %u of %u",
			replica->layer, replica->expert, replica->node, map->nodes_count);
	if (!map->nodes[replica->node].live)
		return cad_error_set(error, CAD_ERR_CORRUPT, "map: layer %u expert %u names node '%s', which is dead",
			replica->layer, replica->expert, map->nodes[replica->node].id);

	return CAD_OK;
}

static int compare_nodes(const void *a, const void *b) { return *(const uint16_t *)a - *(const uint16_t *)b; }

/* A counting sort by (row, expert): count, sum up, place. `offsets` is one entry behind while
 * placing, and right at the end. */
static enum cad_status fill_replicas(struct cad_map *map, uint32_t *offsets, uint16_t *replicas, uint64_t *sets,
	const struct cad_map_source *source, struct cad_error *error)
{
	size_t cells = source->layers_count * source->experts;
	for (size_t i = 0; i < source->replicas_count; i++) {
		enum cad_status status = check_replica(map, &source->replicas[i], error);
		if (status != CAD_OK)
			return status;
		offsets[(size_t)map->row_of_layer[source->replicas[i].layer] * map->experts +
			source->replicas[i].expert]++;
	}

	uint32_t end = 0;
	for (size_t cell = 0; cell <= cells; cell++) {
		uint32_t count = offsets[cell];
		offsets[cell] = end;
		end += count;
	}

	for (size_t i = 0; i < source->replicas_count; i++) {
		const struct cad_map_replica *replica = &source->replicas[i];
		replicas[offsets[(size_t)map->row_of_layer[replica->layer] * map->experts + replica->expert]++] =
			(uint16_t)replica->node;
	}

	memmove(offsets + 1, offsets, cells * sizeof *offsets);
	offsets[0] = 0;

	for (size_t cell = 0; cell < cells; cell++) {
		uint16_t *nodes = replicas + offsets[cell];
		uint64_t *set = sets + cell * cad_map_words(map->nodes_count);
		uint32_t count = offsets[cell + 1] - offsets[cell];
		if (count > 1)
			qsort(nodes, count, sizeof *nodes, compare_nodes);
		for (uint32_t i = 1; i < count; i++)
			if (nodes[i - 1] == nodes[i])
				return cad_error_set(error, CAD_ERR_CORRUPT,
					"map: layer %u expert %zu names node '%s' twice",
					map->layers[cell / map->experts], cell % map->experts, map->nodes[nodes[i]].id);
		for (uint32_t i = 0; i < count; i++)
			cad_map_set_add(set, nodes[i]);
	}

	return CAD_OK;
}

enum cad_status cad_map_create(const struct cad_map_source *source, struct cad_map **map, struct cad_error *error)
{
	enum cad_status status = check_layers(source, error);
	if (status == CAD_OK)
		status = check_nodes(source->nodes, source->nodes_count, error);
	if (status != CAD_OK)
		return status;
	if (source->replicas_count > source->layers_count * source->experts * source->nodes_count)
		return cad_error_set(error, CAD_ERR_CORRUPT, "map: %zu replicas are more than there are places for",
			source->replicas_count);
	struct map_block *block = block_create(source);
	if (!block)
		return cad_error_set(
			error, CAD_ERR_MEMORY, "map: out of memory for %zu replicas", source->replicas_count);

	/* The block is still ours alone, so the arrays that its readers see as const may be written
	 * through their places in it. */
	status = fill_replicas(&block->map, (uint32_t *)block->map.offsets, (uint16_t *)block->map.replicas,
		(uint64_t *)block->map.sets, source, error);
	if (status != CAD_OK) {
		free(block);
		return status;
	}

	*map = &block->map;
	return CAD_OK;
}

/* Counts the replicas of a message, after checking that its layers have one number of experts. */
static enum cad_status message_shape(const Cadre__V1__Map *message, size_t *replicas, struct cad_error *error)
{
	size_t total = 0;
	if (message->n_nodes > CAD_NODES_MAX)
		return cad_error_set(
			error, CAD_ERR_EXHAUSTED, "map: %zu nodes, the limit is %d", message->n_nodes, CAD_NODES_MAX);
	if (message->n_layers > CAD_LAYERS_MAX)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "map: %zu MoE layers, the limit is %d",
			message->n_layers, CAD_LAYERS_MAX);
	for (size_t i = 0; i < message->n_layers; i++) {
		const Cadre__V1__LayerMap *layer = message->layers[i];
		if (layer->n_experts > CAD_EXPERTS_MAX)
			return cad_error_set(error, CAD_ERR_EXHAUSTED, "map: layer %u has %zu experts, the limit is %d",
				layer->layer, layer->n_experts, CAD_EXPERTS_MAX);
		if (layer->n_experts != message->layers[0]->n_experts)
			return cad_error_set(error, CAD_ERR_CORRUPT, "map: layer %u has %zu experts, layer %u has %zu",
				layer->layer, layer->n_experts, message->layers[0]->layer,
				message->layers[0]->n_experts);
		for (size_t e = 0; e < layer->n_experts; e++) {
			if (layer->experts[e]->n_nodes > message->n_nodes)
				return cad_error_set(error, CAD_ERR_CORRUPT,
					"map: layer %u expert %zu has %zu replicas on %zu nodes", layer->layer, e,
					layer->experts[e]->n_nodes, message->n_nodes);
			total += layer->experts[e]->n_nodes;
		}
	}

	*replicas = total;
	return CAD_OK;
}

enum cad_status cad_map_from_message(const Cadre__V1__Map *message, struct cad_map **map, struct cad_error *error)
{
	size_t replicas_count = 0;
	enum cad_status status = message_shape(message, &replicas_count, error);

	if (status != CAD_OK)
		return status;

	struct cad_map_node *nodes = malloc((message->n_nodes + 1) * sizeof *nodes);
	uint32_t *layers = malloc((message->n_layers + 1) * sizeof *layers);
	struct cad_map_replica *replicas = malloc((replicas_count + 1) * sizeof *replicas), *end = replicas;
	if (!nodes || !layers || !replicas) {
		status = cad_error_set(error, CAD_ERR_MEMORY, "map: out of memory for %zu replicas", replicas_count);
		goto free_parts;
	}

	for (size_t i = 0; i < message->n_nodes; i++) {
		const Cadre__V1__Node *node = message->nodes[i];
		nodes[i] = (struct cad_map_node){ node->id, node->exchange_address, node->http_address,
			node->state == CADRE__V1__NODE_STATE__NODE_STATE_LIVE, node->speed };
	}

	for (size_t i = 0; i < message->n_layers; i++) {
		const Cadre__V1__LayerMap *layer = message->layers[i];
		layers[i] = layer->layer;
		for (size_t e = 0; e < layer->n_experts; e++)
			for (size_t r = 0; r < layer->experts[e]->n_nodes; r++)
				*end++ = (struct cad_map_replica){ layer->layer, (uint32_t)e,
					layer->experts[e]->nodes[r] };
	}

	const struct cad_map_source source = {
		.epoch = message->epoch,
		.nodes = nodes,
		.nodes_count = message->n_nodes,
		.layers = layers,
		.layers_count = message->n_layers,
		.experts = message->n_layers ? (uint32_t)message->layers[0]->n_experts : 0,
		.replicas = replicas,
		.replicas_count = replicas_count,
	};
	status = cad_map_create(&source, map, error);

free_parts:
	free(replicas);
	free(layers);
	free(nodes);

	return status;
}

/* Everything that a message needs, one after the other in one block; arrays of pointers first, then
 * the messages, then the indices. */
enum cad_status cad_map_to_message(const struct cad_map *map, Cadre__V1__Map **message)
{
	size_t cells = (size_t)map->layers_count * map->experts, replicas_count = map->offsets[cells];
	size_t pointers = map->nodes_count + map->layers_count + cells;
	char *block = malloc(sizeof(Cadre__V1__Map) + pointers * sizeof(void *) +
		map->nodes_count * sizeof(Cadre__V1__Node) + map->layers_count * sizeof(Cadre__V1__LayerMap) +
		cells * sizeof(Cadre__V1__Replicas) + replicas_count * sizeof(uint32_t));

	if (!block)
		return CAD_ERR_MEMORY;

	Cadre__V1__Map *out = (Cadre__V1__Map *)block;
	Cadre__V1__Node **node_pointers = (Cadre__V1__Node **)(out + 1);
	Cadre__V1__LayerMap **layer_pointers = (Cadre__V1__LayerMap **)(node_pointers + map->nodes_count);
	Cadre__V1__Replicas **cell_pointers = (Cadre__V1__Replicas **)(layer_pointers + map->layers_count);
	Cadre__V1__Node *nodes = (Cadre__V1__Node *)(cell_pointers + cells);
	Cadre__V1__LayerMap *layers = (Cadre__V1__LayerMap *)(nodes + map->nodes_count);
	Cadre__V1__Replicas *replicas = (Cadre__V1__Replicas *)(layers + map->layers_count);
	uint32_t *indices = (uint32_t *)(replicas + cells);

	for (uint32_t i = 0; i < map->nodes_count; i++) {
		cadre__v1__node__init(&nodes[i]);
		nodes[i].id = (char *)map->nodes[i].id;
		nodes[i].exchange_address = (char *)map->nodes[i].exchange_address;
		nodes[i].http_address = (char *)map->nodes[i].http_address;
		nodes[i].state = map->nodes[i].live ? CADRE__V1__NODE_STATE__NODE_STATE_LIVE
						    : CADRE__V1__NODE_STATE__NODE_STATE_DEAD;
		nodes[i].speed = map->nodes[i].speed;
		node_pointers[i] = &nodes[i];
	}

	for (size_t i = 0; i < replicas_count; i++)
		indices[i] = map->replicas[i];
	for (size_t cell = 0; cell < cells; cell++) {
		cadre__v1__replicas__init(&replicas[cell]);
		replicas[cell].n_nodes = map->offsets[cell + 1] - map->offsets[cell];
		replicas[cell].nodes = indices + map->offsets[cell];
		cell_pointers[cell] = &replicas[cell];
	}

	for (uint32_t i = 0; i < map->layers_count; i++) {
		cadre__v1__layer_map__init(&layers[i]);
		layers[i].layer = map->layers[i];
		layers[i].n_experts = map->experts;
		layers[i].experts = cell_pointers + (size_t)i * map->experts;
		layer_pointers[i] = &layers[i];
	}

	cadre__v1__map__init(out);
	out->epoch = map->epoch;
	out->n_nodes = map->nodes_count;
	out->nodes = node_pointers;
	out->n_layers = map->layers_count;
	out->layers = layer_pointers;
	*message = out;

	return CAD_OK;
}

struct cad_map *cad_map_acquire(struct cad_map *map)
{
	if (map)
		atomic_fetch_add_explicit(&((struct map_block *)map)->references, 1, memory_order_relaxed);
	return map;
}

void cad_map_release(struct cad_map *map)
{
	struct map_block *block = (struct map_block *)map;
	if (block && atomic_fetch_sub_explicit(&block->references, 1, memory_order_acq_rel) == 1)
		free(block);
}

int cad_map_node_find(const struct cad_map *map, const char *id)
{
	for (uint32_t i = 0; i < map->nodes_count; i++)
		if (strcmp(map->nodes[i].id, id) == 0)
			return (int)i;
	return CAD_MAP_NONE;
}

size_t cad_map_node_experts(const struct cad_map *map, uint32_t node)
{
	size_t count = 0;
	for (size_t i = 0; i < map->offsets[(size_t)map->layers_count * map->experts]; i++)
		count += map->replicas[i] == node;
	return count;
}

size_t cad_map_unplaced(const struct cad_map *map)
{
	size_t count = 0;
	for (size_t cell = 0; cell < (size_t)map->layers_count * map->experts; cell++)
		count += map->offsets[cell] == map->offsets[cell + 1];
	return count;
}
