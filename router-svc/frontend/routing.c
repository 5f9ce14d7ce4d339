/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/routing.h"

#include <stdlib.h>
#include <string.h>

/* The distinct names of an event's nodes. Pointers repeat, so equal pointers are looked for before
 * equal texts. */
struct names {
	const char **from; /* the event's pointer */
	size_t count, capacity, text_bytes;
};

static bool name_find(const struct names *names, const char *name, size_t *index)
{
	for (size_t i = 0; i < names->count; i++)
		if (names->from[i] == name) {
			*index = i;
			return true;
		}
	return false;
}

static bool name_add(struct names *names, const char *name)
{
	size_t index;
	if (!name || name_find(names, name, &index))
		return true;

	if (names->count == names->capacity) {
		size_t capacity = names->capacity * 2 + 16;
		const char **grown = realloc(names->from, capacity * sizeof *grown);
		if (!grown)
			return false;
		names->from = grown;
		names->capacity = capacity;
	}

	names->from[names->count++] = name;
	names->text_bytes += strlen(name) + 1;
	return true;
}

struct rt_routing *rt_routing_copy(const struct rt_event *event)
{
	size_t layers = event->moe_layers, rows = event->rows, topk = event->topk, slots = layers * rows * topk;
	struct names names = { .text_bytes = 1 }; /* the empty name, for none */
	struct rt_routing *routing = NULL;

	for (size_t layer = 0; layer < layers; layer++)
		for (size_t slot = 0; slot < rows * topk; slot++)
			if (!name_add(&names, event->nodes[layer * event->layer_stride * topk + slot]))
				goto free_names;
	size_t bytes = sizeof *routing +
		slots * (sizeof *routing->nodes + sizeof *routing->ids + sizeof *routing->weights) +
		layers * sizeof *routing->layers + names.count * sizeof(char *) + names.text_bytes;
	routing = malloc(bytes);
	if (!routing)
		goto free_names;

	const char **nodes = (const char **)(routing + 1), **copies = nodes + slots;
	int32_t *ids = (int32_t *)(copies + names.count);
	float *weights = (float *)(ids + slots);
	uint32_t *layer_indices = (uint32_t *)(weights + slots);
	char *text = (char *)(layer_indices + layers), *none = text;
	*text++ = 0;

	for (size_t i = 0; i < names.count; i++) {
		size_t size = strlen(names.from[i]) + 1;
		copies[i] = memcpy(text, names.from[i], size);
		text += size;
	}

	memcpy(layer_indices, event->layers, layers * sizeof *layer_indices);

	for (size_t row = 0, to = 0; row < rows; row++)
		for (size_t layer = 0; layer < layers; layer++)
			for (size_t k = 0; k < topk; k++, to++) {
				size_t from = (layer * event->layer_stride + row) * topk + k, name = 0;
				ids[to] = event->ids[from];
				weights[to] = event->weights[from];
				nodes[to] = event->nodes[from] && name_find(&names, event->nodes[from], &name)
					? copies[name]
					: none;
			}
	*routing = (struct rt_routing){
		.bytes = bytes,
		.first_position = event->first_position,
		.rows = event->rows,
		.moe_layers = event->moe_layers,
		.topk = event->topk,
		.layers = layer_indices,
		.ids = ids,
		.weights = weights,
		.nodes = nodes,
	};

free_names:
	free(names.from);
	return routing;
}

size_t rt_routing_row_bytes(const struct rt_routing *routing)
{
	enum { LAYER_BYTES = 16, SLOT_BYTES = 24 };
	return 16 + (size_t)routing->moe_layers * (LAYER_BYTES + (size_t)routing->topk * SLOT_BYTES);
}

static void *array(struct cad_rpc_arena *arena, size_t count, size_t size)
{
	return cad_rpc_arena_alloc(arena, (count ? count : 1) * size);
}

static bool layer_write(const struct rt_routing *routing, uint32_t row, uint32_t layer, struct cad_rpc_arena *arena,
	Cadre__V1__LayerRouting *message)
{
	size_t from = ((size_t)row * routing->moe_layers + layer) * routing->topk, count = 0;
	cadre__v1__layer_routing__init(message);
	message->layer = routing->layers[layer];
	message->experts = array(arena, routing->topk, sizeof *message->experts);
	message->weights = array(arena, routing->topk, sizeof *message->weights);
	message->nodes = array(arena, routing->topk, sizeof *message->nodes);
	if (!message->experts || !message->weights || !message->nodes)
		return false;

	for (size_t slot = from; slot < from + routing->topk; slot++) {
		if (routing->ids[slot] < 0)
			continue;
		message->experts[count] = (uint32_t)routing->ids[slot];
		message->weights[count] = routing->weights[slot];
		message->nodes[count++] = (char *)(uintptr_t)routing->nodes[slot];
	}

	message->n_experts = message->n_weights = message->n_nodes = count;
	return true;
}

static Cadre__V1__TokenRouting *row_write(const struct rt_routing *routing, uint32_t row, struct cad_rpc_arena *arena)
{
	Cadre__V1__TokenRouting *message = array(arena, 1, sizeof *message);
	Cadre__V1__LayerRouting *layers = array(arena, routing->moe_layers, sizeof *layers);
	Cadre__V1__LayerRouting **pointers = array(arena, routing->moe_layers, sizeof *pointers);

	if (!message || !layers || !pointers)
		return NULL;

	cadre__v1__token_routing__init(message);
	message->position = routing->first_position + row;
	message->n_layers = routing->moe_layers;
	message->layers = pointers;

	for (uint32_t layer = 0; layer < routing->moe_layers; layer++) {
		pointers[layer] = &layers[layer];
		if (!layer_write(routing, row, layer, arena, pointers[layer]))
			return NULL;
	}

	return message;
}

enum cad_status rt_routing_write(struct rt_routing *routing, uint32_t rows_max, struct cad_rpc_arena *arena,
	Cadre__V1__TokenRouting ***rows, size_t *rows_count)
{
	uint32_t left = routing->rows - routing->rows_sent, count = left < rows_max ? left : rows_max;
	Cadre__V1__TokenRouting **pointers = array(arena, count, sizeof *pointers);

	for (uint32_t i = 0; pointers && i < count; i++) {
		pointers[i] = row_write(routing, routing->rows_sent + i, arena);
		if (!pointers[i])
			return CAD_ERR_EXHAUSTED;
	}

	if (!pointers)
		return CAD_ERR_EXHAUSTED;
	routing->rows_sent += count;
	*rows = pointers;
	*rows_count = count;

	return CAD_OK;
}
