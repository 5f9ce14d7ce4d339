/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which nodes of its map a router does not reach, from the engine's thread to the one that
 * reports it to the placement service, as views (views.h): begin and publish are for the
 * engine's thread, look for one other.
 */
#ifndef CADRE_ROUTER_SVC_MOE_REACH_H
#define CADRE_ROUTER_SVC_MOE_REACH_H

#include "common/cluster/map.h"
#include "router-svc/moe/views.h"

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
	struct rt_reach_view views[RT_VIEWS];
	struct rt_views at;
};

void rt_reach_init(struct rt_reach *reach);
/* To be filled in whole, then published. */
struct rt_reach_view *rt_reach_begin(struct rt_reach *reach);
void rt_reach_publish(struct rt_reach *reach);
/* The newest; the reader's until the next call. */
const struct rt_reach_view *rt_reach_look(struct rt_reach *reach);

#endif
