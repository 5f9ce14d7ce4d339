/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/probe.h"

#include "router-svc/moe/dispatch.h"

#include <stdatomic.h>

enum { PROBE_ROWS = 4 };

/* The first rows that have experts on the node, with those pairs. */
static void collect(struct rt_shipment *probe, const struct cad_map *map, uint32_t node, uint32_t rows_max)
{
	const struct rt_work *work = probe->work;
	for (uint32_t row = 0; row < work->rows && probe->rows < rows_max; row++)
		for (uint32_t at = row * work->topk; at < (row + 1) * work->topk; at++)
			if (work->ids[at] >= 0 &&
				cad_map_set_has(cad_map_replicas(map, work->layer, (uint32_t)work->ids[at]).set, node))
				rt_shipment_add(probe, at);
}

static void probe_node(struct rt_exchange *exchange, struct rt_work *work, uint32_t node, struct rt_peer *peer)
{
	uint32_t rows_max = rt_shipment_rows_max(exchange, peer);
	struct rt_shipment *probe = rt_shipment_take(exchange, work, peer);
	if (!probe)
		return;

	collect(probe, exchange->routes.map, node, rows_max < PROBE_ROWS ? rows_max : PROBE_ROWS);
	if (probe->rows == 0 || rt_dispatch_call(probe) != CAD_OK) {
		rt_shipment_give_back(probe);
		return;
	}

	rt_shipment_leave(probe);
	atomic_fetch_add_explicit(&exchange->stats.probes, 1, memory_order_relaxed);
}

void rt_probe(struct rt_exchange *exchange, struct rt_work *work)
{
	struct rt_route_table *routes = &exchange->routes;
	if (routes->breakers == 0 || !routes->map)
		return;

	for (uint32_t node = 0; node < routes->map->nodes_count; node++) {
		if (!cad_map_set_has(routes->node_ready, node))
			continue;
		struct rt_peer *peer = &routes->peers[routes->node_peer[node]];
		bool room = exchange->shipments_used < exchange->shipments_count / 2;
		if (peer->breaker.state == RT_BREAKER_HALF_OPEN && peer->shipments == 0 && room)
			probe_node(exchange, work, node, peer);
	}
}
