/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which nodes of its map a router does not reach, from the engine's thread to the one that reports it to
 * the placement service.
 *
 * Three views: one that the engine fills, one that the reader has, and the newest between them. Neither
 * waits for the other, and nothing is allocated. Begin and publish are for the engine's thread, look for
 * one other.
 */
#ifndef CADRE_ROUTER_SVC_MOE_REACH_H
#define CADRE_ROUTER_SVC_MOE_REACH_H

#include "common/cluster/map.h"

#include <stdatomic.h>

struct rt_unreached {
	char node[CAD_MAP_ID_BYTES];
	uint64_t heard_ns; /* when something was heard of it last, or when it was first wanted; engine's clock */
};

struct rt_reach_view {
	uint64_t epoch; /* of the map; 0: none yet */
	uint32_t count;
	struct rt_unreached unreached[CAD_NODES_MAX];
};

struct rt_reach {
	struct rt_reach_view views[3];
	unsigned filled, read; /* indices: the engine's, the reader's */
	_Atomic unsigned newest;
};

void rt_reach_init(struct rt_reach *reach);
/* To be filled in whole, then published. */
struct rt_reach_view *rt_reach_begin(struct rt_reach *reach);
void rt_reach_publish(struct rt_reach *reach);
/* The newest; the reader's until the next call. */
const struct rt_reach_view *rt_reach_look(struct rt_reach *reach);

#endif
