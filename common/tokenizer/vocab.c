/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary: strings to ids through an open-addressing table, ids to
 * strings through an array. */
#include "common/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

size_t cad_tok_slots_for(size_t count)
{
	size_t slots = 16;
	while (slots < count * 2)
		slots *= 2;
	return slots;
}

size_t cad_tok_hash_pair(uint64_t pair)
{
	pair *= 0x9e3779b97f4a7c15u;
	return (size_t)(pair ^ pair >> 32);
}

enum cad_status cad_tok_map_init(struct tok_map *map, size_t count_max)
{
	*map = (struct tok_map){ .slot_count = cad_tok_slots_for(count_max) };
	map->slots = calloc(map->slot_count, sizeof *map->slots);
	if (!map->slots)
		return CAD_ERR_MEMORY;
	for (size_t i = 0; i < map->slot_count; i++)
		map->slots[i].id = -1;
	return CAD_OK;
}

void cad_tok_map_fini(struct tok_map *map)
{
	cad_text_fini(&map->arena);
	free(map->slots);
	*map = (struct tok_map){ 0 };
}

/* Where the string is, or the free slot where it would be. There is one: the table is at most half
 * full. */
static size_t find_slot(const struct tok_map *map, const char *bytes, size_t size)
{
	size_t mask = map->slot_count - 1, slot = XXH3_64bits(bytes, size) & mask;
	while (map->slots[slot].id >= 0 &&
		!(map->slots[slot].size == size &&
			memcmp(map->arena.bytes + map->slots[slot].offset, bytes, size) == 0))
		slot = (slot + 1) & mask;
	return slot;
}

int32_t cad_tok_map_get(const struct tok_map *map, const char *bytes, size_t size)
{
	return map->slot_count ? map->slots[find_slot(map, bytes, size)].id : -1;
}

enum cad_status cad_tok_map_put(struct tok_map *map, const char *bytes, size_t size, int32_t id)
{
	size_t slot = find_slot(map, bytes, size);
	if (map->slots[slot].id < 0) {
		CAD_ASSERT(map->count < map->slot_count / 2);
		map->slots[slot].offset = map->arena.size;
		map->slots[slot].size = (uint32_t)size;
		enum cad_status status = cad_tok_append(&map->arena, bytes, size);
		if (status != CAD_OK)
			return status;
		map->count++;
	}

	map->slots[slot].id = id;
	return CAD_OK;
}

enum cad_status cad_tok_names_grow(struct tok_names *names, uint32_t count)
{
	if (count <= names->count)
		return CAD_OK;
	void *grown = reallocarray(names->items, count, sizeof *names->items);
	if (!grown)
		return CAD_ERR_MEMORY;
	names->items = grown;
	for (; names->count < count; names->count++)
		names->items[names->count].size = -1;
	return CAD_OK;
}

void cad_tok_names_fini(struct tok_names *names)
{
	cad_text_fini(&names->arena);
	free(names->items);
	*names = (struct tok_names){ 0 };
}

enum cad_status cad_tok_names_put(struct tok_names *names, int32_t id, const char *bytes, size_t size)
{
	CAD_ASSERT(id >= 0 && (uint32_t)id < names->count);
	uint64_t offset = names->arena.size;
	enum cad_status status = cad_tok_append(&names->arena, bytes, size);
	if (status != CAD_OK)
		return status;
	names->items[id].offset = offset;
	names->items[id].size = (int64_t)size;
	return CAD_OK;
}

bool cad_tok_names_get(const struct tok_names *names, int32_t id, struct tok_slice *name)
{
	if (id < 0 || (uint32_t)id >= names->count || names->items[id].size < 0)
		return false;
	*name = (struct tok_slice){ names->arena.bytes + names->items[id].offset, (size_t)names->items[id].size };
	return true;
}
