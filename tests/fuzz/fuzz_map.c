/* SPDX-License-Identifier: Apache-2.0 */
/* A map that anybody may have sent: decoded, checked, looked at in every cell, and written again
 * without a difference. */
#include "cadre/v1/types.pb-c.h"
#include "common/cluster/map.h"
#include "common/rpc/codec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void write_and_read(const struct cad_map *map)
{
	Cadre__V1__Map *message;
	struct cad_map *again;

	CAD_ASSERT(cad_map_to_message(map, &message) == CAD_OK);
	CAD_ASSERT(cad_map_from_message(message, &again, NULL) == CAD_OK);
	size_t cells = (size_t)map->layers_count * map->experts;
	CAD_ASSERT(
		again->epoch == map->epoch && again->nodes_count == map->nodes_count && again->experts == map->experts);
	CAD_ASSERT(memcmp(again->offsets, map->offsets, (cells + 1) * sizeof *map->offsets) == 0);
	CAD_ASSERT(memcmp(again->replicas, map->replicas, map->offsets[cells] * sizeof *map->replicas) == 0);
	cad_map_release(again);
	free(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct cad_rpc_arena arena;
	ProtobufCMessage *message;
	struct cad_map *map;
	struct cad_error error;

	cad_rpc_arena_init(&arena, 64 << 20);

	if (cad_rpc_decode(&cadre__v1__map__descriptor, bytes, size, &arena, &message, &error) == CAD_OK &&
		cad_map_from_message((const Cadre__V1__Map *)message, &map, &error) == CAD_OK) {
		for (uint32_t row = 0; row < map->layers_count; row++)
			for (uint32_t expert = 0; expert < map->experts; expert++) {
				struct cad_map_replicas replicas = cad_map_replicas(map, map->layers[row], expert);
				for (uint32_t i = 0; i < replicas.count; i++)
					CAD_ASSERT(replicas.nodes[i] < map->nodes_count &&
						map->nodes[replicas.nodes[i]].live);
			}
		write_and_read(map);
		cad_map_release(map);
	}

	cad_rpc_arena_reset(&arena);
	return 0;
}
