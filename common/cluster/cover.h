/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cover of a token: which replica of each of its experts serves it, so that the whole token
 * stays on few nodes and the load stays even.
 * Shared by the router, which routes by it, and by the planner, which predicts what the router will
 * do. Allocates nothing, never blocks; any thread, as long as the load is its own.
 *
 * The rule: repeatedly take the node that holds most of the remaining experts; ties go to the
 * smaller load, then to the lower index. Then each expert runs on the least loaded of the chosen
 * nodes that hold it, in the order of the slots. With a guard, a node that is busier than `calm`
 * loses one expert's worth for every `point` of load above that, so that a token may touch one node
 * more to spare a busy one.
 */
#ifndef CADRE_COMMON_CLUSTER_COVER_H
#define CADRE_COMMON_CLUSTER_COVER_H

#include "common/cluster/map.h"

enum { CAD_COVER_NONE = 0xffff };

struct cad_cover_load {
	/* [nodes] load of each so far, in any unit; grows by one unit for each expert that a call
	 * assigns to it */
	uint32_t *node;
	const uint32_t
		*unit;     /* [nodes] what one expert of a call costs there (a slow node: more); NULL: 1 everywhere */
	float calm, point; /* the guard, in the unit of `node`; point 0: none */
};

/*
 * nodes[i] = the node that serves the expert with replicas[i], or CAD_COVER_NONE where no usable
 * node holds it (count 0: a dropped slot).
 * `usable` is a set of nodes (common/cluster/map.h), NULL: all are; load may be NULL. k <=
 * CAD_TOPK_MAX, every node below nodes_count <= CAD_NODES_MAX.
 */
void cad_cover_replicas(const struct cad_map_replicas *replicas, uint32_t k, uint32_t nodes_count,
	const uint64_t *usable, const struct cad_cover_load *load, uint16_t *nodes);

/* The same for experts[0..k) of a layer of a map; expert -1: a dropped slot. */
void cad_cover(const struct cad_map *map, uint32_t layer, const int32_t *experts, uint32_t k, const uint64_t *usable,
	const struct cad_cover_load *load, uint16_t *nodes);

#endif
