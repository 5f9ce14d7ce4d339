/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/routing.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

enum { NAMES_MAX = CAD_NODES_MAX + 1, SEATS = 4 * CAD_NODES_MAX };
_Static_assert((SEATS & (SEATS - 1)) == 0, "seats are found by a mask");

/* A hash table by pointer: an event's pointers repeat, and equal pointers are equal names. */
struct rt_routing_names {
	uint32_t event; /* seats of earlier events are free */
	struct seat {
		const char *name;
		uint32_t event;
		uint16_t index;
	} seats[SEATS];
};

enum cad_status rt_routing_names_create(struct rt_routing_names **out)
{
	struct rt_routing_names *names = calloc(1, sizeof *names);
	if (!names)
		return CAD_ERR_MEMORY;
	*out = names;
	return CAD_OK;
}

void rt_routing_names_destroy(struct rt_routing_names *names) { free(names); }

static void names_begin(struct rt_routing_names *names)
{
	if (++names->event == 0) { /* once in four thousand million events */
		memset(names->seats, 0, sizeof names->seats);
		names->event = 1;
	}
}

/* The index of a name in `texts`, where it is put when it is new. */
static uint16_t name_index(
	struct rt_routing_names *names, const char *name, char (*texts)[CAD_MAP_ID_BYTES], uint32_t *count)
{
	uint64_t mixed = (uint64_t)(uintptr_t)name * 0x9e3779b97f4a7c15u;
	for (uint32_t at = (uint32_t)(mixed >> 40);; at++) {
		struct seat *seat = &names->seats[at & (SEATS - 1)];
		if (seat->event == names->event && seat->name == name)
			return seat->index;
		if (seat->event == names->event)
			continue;
		CAD_ASSERT(*count < NAMES_MAX);
		*seat = (struct seat){ .name = name, .event = names->event, .index = (uint16_t)*count };
		size_t size = strnlen(name, CAD_MAP_ID_BYTES - 1);
		memcpy(texts[*count], name, size);
		texts[*count][size] = 0;
		return (uint16_t)(*count)++;
	}
}

/* ---- the ring ---- */

static size_t aligned(size_t bytes)
{
	size_t to = alignof(struct rt_routing);
	return (bytes + to - 1) / to * to;
}

/* Without names, which come last. */
static size_t arrays_bytes(size_t slots, uint32_t moe_layers)
{
	return sizeof(struct rt_routing) + slots * (sizeof(int32_t) + sizeof(float) + sizeof(uint16_t)) +
		moe_layers * sizeof(uint32_t);
}

static size_t bytes_max(size_t slots, uint32_t moe_layers)
{
	size_t names = slots + 1 < NAMES_MAX ? slots + 1 : NAMES_MAX;
	return aligned(arrays_bytes(slots, moe_layers) + names * CAD_MAP_ID_BYTES);
}

enum cad_status rt_routing_ring_init(struct rt_routing_ring *ring, struct rt_routing_names *names, uint32_t rows_max,
	uint32_t moe_layers, uint32_t topk, size_t waiting_bytes_max)
{
	*ring = (struct rt_routing_ring){ .names = names };
	ring->copy_bytes_max = bytes_max((size_t)rows_max * moe_layers * topk, moe_layers);
	ring->capacity = aligned(waiting_bytes_max) + 2 * ring->copy_bytes_max;
	ring->bytes = malloc(ring->capacity);
	return ring->bytes ? CAD_OK : CAD_ERR_MEMORY;
}

void rt_routing_ring_fini(struct rt_routing_ring *ring)
{
	free(ring->bytes);
	*ring = (struct rt_routing_ring){ 0 };
}

size_t rt_routing_waiting_bytes(const struct rt_routing_ring *ring)
{
	return atomic_load_explicit(&ring->written, memory_order_acquire) -
		atomic_load_explicit(&ring->taken, memory_order_acquire);
}

static struct rt_routing *at(const struct rt_routing_ring *ring, size_t position)
{
	return (struct rt_routing *)(void *)(ring->bytes + position % ring->capacity);
}

/* Where a copy of at most `bytes` can be written in one piece; what is left at the end of the ring
 * becomes a gap. */
static size_t place(struct rt_routing_ring *ring, size_t bytes)
{
	size_t position = atomic_load_explicit(&ring->written, memory_order_relaxed),
	       left = ring->capacity - position % ring->capacity,
	       taken = atomic_load_explicit(&ring->taken, memory_order_acquire);
	size_t gap = left < bytes ? left : 0;

	CAD_ASSERT(position + gap + bytes - taken <= ring->capacity); /* a paused sequence computes nothing */
	if (gap >= sizeof(struct rt_routing))
		*at(ring, position) = (struct rt_routing){ .bytes = gap };
	return position + gap;
}

void rt_routing_put(struct rt_routing_ring *ring, const struct rt_event *event)
{
	size_t layers = event->moe_layers, rows = event->rows, topk = event->topk, slots = layers * rows * topk;
	if (slots == 0)
		return;

	CAD_ASSERT(bytes_max(slots, event->moe_layers) <= ring->copy_bytes_max);
	size_t position = place(ring, bytes_max(slots, event->moe_layers));
	struct rt_routing *copy = at(ring, position);
	int32_t *ids = (int32_t *)(copy + 1);
	float *weights = (float *)(ids + slots);
	uint32_t *layer_indices = (uint32_t *)(weights + slots), names_count = 1;
	uint16_t *nodes = (uint16_t *)(layer_indices + layers);
	char(*names)[CAD_MAP_ID_BYTES] = (char(*)[CAD_MAP_ID_BYTES])(nodes + slots);

	memcpy(layer_indices, event->layers, layers * sizeof *layer_indices);
	names[0][0] = 0;
	names_begin(ring->names);

	for (size_t row = 0, to = 0; row < rows; row++)
		for (size_t layer = 0; layer < layers; layer++)
			for (size_t k = 0; k < topk; k++, to++) {
				size_t from = (layer * event->layer_stride + row) * topk + k;
				const char *node = event->nodes[from];
				ids[to] = event->ids[from];
				weights[to] = event->weights[from];
				nodes[to] = node ? name_index(ring->names, node, names, &names_count) : 0;
			}

	*copy = (struct rt_routing){
		.bytes = aligned(arrays_bytes(slots, event->moe_layers) + names_count * CAD_MAP_ID_BYTES),
		.first_position = event->first_position,
		.rows = event->rows,
		.moe_layers = event->moe_layers,
		.topk = event->topk,
		.layers = layer_indices,
		.ids = ids,
		.weights = weights,
		.nodes = nodes,
		.names = (const char(*)[CAD_MAP_ID_BYTES])names,
	};
	atomic_store_explicit(&ring->written, position + copy->bytes, memory_order_release);
}

/* The position of the first copy, beyond a gap. */
static size_t first_position(const struct rt_routing_ring *ring, size_t taken)
{
	size_t left = ring->capacity - taken % ring->capacity;
	return left < sizeof(struct rt_routing) || at(ring, taken)->rows == 0 ? taken + left : taken;
}

const struct rt_routing *rt_routing_first(const struct rt_routing_ring *ring)
{
	size_t taken = atomic_load_explicit(&ring->taken, memory_order_relaxed);
	if (atomic_load_explicit(&ring->written, memory_order_acquire) == taken)
		return NULL;
	return at(ring, first_position(ring, taken));
}

/* Where the first copy ends. */
static size_t first_end(const struct rt_routing_ring *ring)
{
	size_t position = first_position(ring, atomic_load_explicit(&ring->taken, memory_order_relaxed));
	return position + at(ring, position)->bytes;
}

bool rt_routing_more(const struct rt_routing_ring *ring)
{
	return atomic_load_explicit(&ring->written, memory_order_acquire) != first_end(ring);
}

void rt_routing_drop(struct rt_routing_ring *ring)
{
	atomic_store_explicit(&ring->taken, first_end(ring), memory_order_release);
}

size_t rt_routing_row_bytes(const struct rt_routing *routing)
{
	enum { LAYER_BYTES = 16, SLOT_BYTES = 24 };
	return 16 + (size_t)routing->moe_layers * (LAYER_BYTES + (size_t)routing->topk * SLOT_BYTES);
}
