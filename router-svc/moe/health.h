/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a router leaves out of its choice, from the engine's thread to the one that reports it to
 * the placement service, as views (views.h): fill is for the engine's thread, look for one other.
 */
#ifndef CADRE_ROUTER_SVC_MOE_HEALTH_H
#define CADRE_ROUTER_SVC_MOE_HEALTH_H

#include "router-svc/moe/route_table.h"
#include "router-svc/moe/views.h"

enum { RT_HEALTH_BREAKERS_MAX = 8 };

struct rt_health_view {
	uint32_t count; /* nodes first, then copies; what is more is left out */
	struct rt_health_breaker {
		char node[CAD_MAP_ID_BYTES], why[RT_BREAKER_TEXT_BYTES];
		bool half_open, of_copy;
		uint32_t layer, expert; /* of a copy */
	} breakers[RT_HEALTH_BREAKERS_MAX];
};

struct rt_health {
	struct rt_health_view views[RT_VIEWS];
	struct rt_views at;
};

void rt_health_init(struct rt_health *health);
void rt_health_fill(struct rt_health *health, const struct rt_route_table *routes);
/* The newest; the reader's until the next call. */
const struct rt_health_view *rt_health_look(struct rt_health *health);

#endif
