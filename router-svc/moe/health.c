/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/health.h"

#include <stdio.h>

void rt_health_init(struct rt_health *health)
{
	for (int i = 0; i < RT_VIEWS; i++)
		health->views[i].count = 0;
	rt_views_init(&health->at);
}

static struct rt_health_breaker *add(struct rt_health_view *view, const char *node)
{
	struct rt_health_breaker *breaker = &view->breakers[view->count++];
	*breaker = (struct rt_health_breaker){ .of_copy = false };
	snprintf(breaker->node, sizeof breaker->node, "%s", node);
	return breaker;
}

void rt_health_fill(struct rt_health *health, const struct rt_route_table *routes)
{
	struct rt_health_view *view = &health->views[health->at.filled];
	const struct rt_open_copies *copies = &routes->open_copies;
	uint64_t now_ns = cad_transport_now_ns(routes->transport);

	view->count = 0;
	for (uint32_t i = 0; routes->breakers > 0 && i < routes->peers_count; i++) {
		const struct rt_peer *peer = &routes->peers[i];
		if (!peer->wanted || peer->breaker.state == RT_BREAKER_CLOSED || view->count == RT_HEALTH_BREAKERS_MAX)
			continue;
		struct rt_health_breaker *breaker = add(view, peer->id);
		breaker->half_open = peer->breaker.state == RT_BREAKER_HALF_OPEN;
		rt_breaker_text(&peer->breaker, rt_latency_usual_p99_ns(&peer->latency), breaker->why);
	}

	for (uint32_t i = 0; i < copies->count && view->count < RT_HEALTH_BREAKERS_MAX; i++) {
		struct rt_health_breaker *breaker = add(view, routes->map->nodes[copies->at[i].node].id);
		breaker->half_open = now_ns >= copies->at[i].half_open_ns;
		breaker->of_copy = true;
		breaker->layer = copies->at[i].layer;
		breaker->expert = copies->at[i].expert;
		snprintf(breaker->why, sizeof breaker->why, "it says that it does not hold expert %u of layer %u",
			copies->at[i].expert, copies->at[i].layer);
	}
	rt_views_publish(&health->at);
}

const struct rt_health_view *rt_health_look(struct rt_health *health)
{
	return &health->views[rt_views_look(&health->at)];
}
