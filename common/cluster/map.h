/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The map: which node holds which expert, at one epoch. Placement publishes it, and routers follow
 * it.
 *
 * A map is one block of memory, immutable after creation, and reference counted: every holder
 * releases once. Acquire and release may be called from any thread, and so may everything that
 * reads. Looking up the replicas of an expert is two loads and allocates nothing. Creating a map
 * (from parts, or from the protobuf message that came over the network) allocates, checks
 * everything, and may fail with a sentence. A map that exists is consistent: every index in it may
 * be trusted.
 *
 *   layers      6  7  8 ...            the MoE layers, by their index in the model, ascending
 *   offsets     row 0: E entries | row 1: E entries | ... | end
 *   replicas    node, node | node | (none) | node ...      indices into `nodes`, ascending within
 *               an expert
 *   sets        the same as sets of nodes: bits, 64 nodes to a word, node 0 the lowest;
 *               cad_map_words(nodes_count) words per expert
 */
#ifndef CADRE_COMMON_CLUSTER_MAP_H
#define CADRE_COMMON_CLUSTER_MAP_H

#include "common/base/limits.h"
#include "common/base/status.h"
#include "common/process/process.h"

#include <stdbool.h>
#include <stdint.h>

struct Cadre__V1__Map;

enum {
	CAD_MAP_ID_BYTES = CAD_PROCESS_NAME_BYTES,
	CAD_MAP_ADDRESS_BYTES = 256, /* all but exchange addresses: CAD_EXCHANGE_ADDRESS_BYTES */
	CAD_MAP_NONE = -1,           /* "no such row" and "no such node" */
};

struct cad_map_node {
	const char *id;               /* unique; 1 to 63 bytes of [A-Za-z0-9._:-] */
	const char *exchange_address; /* what cad_transport_connect takes */
	const char *http_address;     /* may be "" */
	bool live;                    /* dead: no new calls go there; no expert names it as a replica then */
	float speed;                  /* times the median node; 0: not said, and counts as 1 */
};

/* Read freely; only map.c writes it. */
struct cad_map {
	uint64_t epoch; /* at least 1 */
	uint32_t nodes_count;
	uint32_t layers_count; /* MoE layers; 0 for a dense model */
	uint32_t experts;      /* per layer, the same in each */
	const struct cad_map_node *nodes;
	const uint32_t *layers;  /* [layers_count] */
	const uint32_t *offsets; /* [layers_count * experts + 1] into replicas */
	const uint16_t *replicas;
	const uint64_t *sets;                 /* [layers_count * experts][words] */
	int16_t row_of_layer[CAD_LAYERS_MAX]; /* CAD_MAP_NONE where the layer is dense */
};

/* Words of a set of nodes. */
static inline uint32_t cad_map_words(uint32_t nodes_count) { return (nodes_count + 63) / 64; }
static inline bool cad_map_set_has(const uint64_t *set, uint32_t node) { return set[node / 64] >> node % 64 & 1; }
static inline void cad_map_set_remove(uint64_t *set, uint32_t node) { set[node / 64] &= ~(1ull << node % 64); }
static inline void cad_map_set_add(uint64_t *set, uint32_t node) { set[node / 64] |= 1ull << node % 64; }

/* The nodes that hold an expert: `count` indices into map->nodes, ascending, and as a set. None:
 * calls wait for the next epoch. */
struct cad_map_replicas {
	const uint16_t *nodes;
	const uint64_t *set;
	uint32_t count;
};
extern const struct cad_map_replicas cad_map_nobody; /* with a set that is large enough for any map */

/* `layer` is the index in the model. A layer or expert that the map does
 * not know has no replicas. */
static inline struct cad_map_replicas cad_map_replicas(const struct cad_map *map, uint32_t layer, uint32_t expert)
{
	int row = layer < CAD_LAYERS_MAX ? map->row_of_layer[layer] : CAD_MAP_NONE;
	if (row < 0 || expert >= map->experts)
		return cad_map_nobody;
	size_t cell = (size_t)row * map->experts + expert;
	const uint32_t *at = map->offsets + cell;
	return (struct cad_map_replicas){ map->replicas + at[0], map->sets + cell * cad_map_words(map->nodes_count),
		at[1] - at[0] };
}

/* The parts of a map, in any order; all borrowed for the call. */
struct cad_map_replica {
	uint32_t layer, expert, node;
}; /* layer: the index in the model; node: into nodes */
struct cad_map_source {
	uint64_t epoch;
	const struct cad_map_node *nodes;
	size_t nodes_count;
	const uint32_t *layers; /* the MoE layers, ascending */
	size_t layers_count;
	uint32_t experts;
	const struct cad_map_replica *replicas;
	size_t replicas_count;
};
/* A new map with one reference. CAD_ERR_CORRUPT and a sentence when the parts contradict each
 * other, CAD_ERR_EXHAUSTED above a limit. */
CAD_MUST_USE enum cad_status cad_map_create(
	const struct cad_map_source *source, struct cad_map **map, struct cad_error *error);
/* The same from a message that is not trusted. */
CAD_MUST_USE enum cad_status cad_map_from_message(
	const struct Cadre__V1__Map *message, struct cad_map **map, struct cad_error *error);
/* The message of a map in one block that points into the map: valid while the map is held, freed
 * with free(). */
CAD_MUST_USE enum cad_status cad_map_to_message(const struct cad_map *map, struct Cadre__V1__Map **message);

struct cad_map *cad_map_acquire(struct cad_map *map); /* returns map; NULL stays NULL */
void cad_map_release(struct cad_map *map);            /* NULL is fine */

/* Index into map->nodes or CAD_MAP_NONE. */
int cad_map_node_find(const struct cad_map *map, const char *id);
/* Experts of all layers that a node holds, and experts that no node holds. */
size_t cad_map_node_experts(const struct cad_map *map, uint32_t node);
size_t cad_map_unplaced(const struct cad_map *map);

#endif
