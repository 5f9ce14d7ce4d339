/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/route_table.h"

#include "common/base/log.h"
#include "common/transport/exchange_address.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAST_TIER = RT_TIERS - 1 };
enum { DELAY_FIRST_MS = 20, DELAY_LAST_MS = 2000 };

enum cad_status rt_route_table_init(struct rt_route_table *table, struct cad_transport *transport)
{
	*table = (struct rt_route_table){
		.transport = transport,
		.random = { cad_transport_now_ns(transport) },
	};
	cad_note_put(&table->missing, "no map has come yet");
	table->peers = calloc(CAD_ROUTER_CONNECTIONS_MAX, sizeof *table->peers);
	table->node_peer = malloc(CAD_NODES_MAX * sizeof *table->node_peer);
	table->node_ready = calloc(CAD_NODES_MAX / 64, sizeof *table->node_ready);
	for (uint32_t tier = 0; tier < LAST_TIER; tier++)
		table->node_tiers[tier] = calloc(CAD_NODES_MAX / 64, sizeof **table->node_tiers);
	table->node_tiers[LAST_TIER] = table->node_ready;
	table->node_load = calloc(CAD_NODES_MAX, sizeof *table->node_load);
	table->node_unit = calloc(CAD_NODES_MAX, sizeof *table->node_unit);
	table->node_pairs = calloc(CAD_NODES_MAX, sizeof *table->node_pairs);
	table->node_booked = calloc(CAD_NODES_MAX / 64, sizeof *table->node_booked);
	table->reach = malloc(sizeof *table->reach);

	if (!table->peers || !table->node_peer || !table->node_ready || !table->node_tiers[0] ||
		!table->node_tiers[1] || !table->node_load || !table->node_unit || !table->node_pairs ||
		!table->node_booked || !table->reach) {
		rt_route_table_fini(table);
		return CAD_ERR_MEMORY;
	}

	rt_reach_init(table->reach);
	return CAD_OK;
}

void rt_route_table_fini(struct rt_route_table *table)
{
	cad_map_release(table->map);
	free(table->peers);
	free(table->node_peer);
	free(table->node_ready);
	for (uint32_t tier = 0; tier < LAST_TIER; tier++)
		free(table->node_tiers[tier]);
	free(table->node_load);
	free(table->node_unit);
	free(table->node_pairs);
	free(table->node_booked);
	free(table->reach);
	*table = (struct rt_route_table){ 0 };
}

/* The one to name: who was refused will be so until somebody does something about it. */
static const struct rt_peer *missing_peer(const struct rt_route_table *table)
{
	const struct rt_peer *first = NULL;
	for (uint32_t i = 0; i < table->peers_count; i++) {
		const struct rt_peer *peer = &table->peers[i];
		if (peer->wanted && !peer->ready && (!first || (peer->refused && !first->refused)))
			first = peer;
	}
	return first;
}

static void tell_missing(struct rt_route_table *table)
{
	const struct rt_peer *peer = missing_peer(table);
	struct cad_error text;
	uint32_t wanted = 0;

	for (uint32_t i = 0; i < table->peers_count; i++)
		wanted += table->peers[i].wanted;

	if (peer)
		cad_error_set(&text, CAD_AGAIN, "%u of %u are connected; '%s' at %s: %s",
			rt_route_table_connections(table), wanted, peer->id, peer->place,
			peer->why[0] ? peer->why : "connecting");
	else
		cad_error_set(&text, CAD_AGAIN, wanted ? "experts are on none of the %u" : "none lives", wanted);
	cad_note_put(&table->missing, text.text);
}

/* For whoever reports it. Times of silence alone are no news. */
static void tell_reach(struct rt_route_table *table, bool news)
{
	const struct cad_map *map = table->map;
	struct rt_reach_view *view = rt_reach_begin(table->reach);

	view->epoch = map->epoch;
	view->count = 0;
	for (uint32_t node = 0; node < map->nodes_count; node++) {
		int peer = table->node_peer[node];
		if (!map->nodes[node].live || cad_map_set_has(table->node_ready, node))
			continue;
		struct rt_unreached *unreached = &view->unreached[view->count++];
		snprintf(unreached->node, sizeof unreached->node, "%s", map->nodes[node].id);
		unreached->heard_ns = peer >= 0 ? table->peers[peer].heard_ns : cad_transport_now_ns(table->transport);
	}

	table->unreached = view->count;
	rt_reach_publish(table->reach);
	if (news && table->on_reach)
		table->on_reach(table->on_reach_context);
}

/* Which nodes can be used, and whether that covers every expert. */
static void refresh(struct rt_route_table *table, bool new_map)
{
	const struct cad_map *map = table->map;
	uint64_t before[CAD_NODES_MAX / 64];
	if (!map)
		return;

	memcpy(before, table->node_ready, sizeof before);
	memset(table->node_ready, 0, CAD_NODES_MAX / 64 * sizeof *table->node_ready);

	for (uint32_t node = 0; node < map->nodes_count; node++) {
		int peer = table->node_peer[node];
		if (map->nodes[node].live && peer >= 0 && table->peers[peer].ready)
			cad_map_set_add(table->node_ready, node);
	}

	bool whole = true;
	size_t experts = (size_t)map->layers_count * map->experts;
	for (size_t at = 0; at < experts && whole; at++) {
		whole = false;
		for (uint32_t r = map->offsets[at]; r < map->offsets[at + 1]; r++)
			whole = whole || cad_map_set_has(table->node_ready, map->replicas[r]);
	}

	atomic_store(&table->ready, whole);
	table->was_ready = table->was_ready || whole;
	if (whole)
		cad_note_put(&table->missing, "");
	else
		tell_missing(table);
	table->version++;
	tell_reach(table, new_map || memcmp(before, table->node_ready, sizeof before) != 0);
}

/* Of a node that the map does not name: nobody would ever probe it. */
static void forget_breaker(struct rt_route_table *table, struct rt_peer *peer)
{
	table->breakers -= peer->breaker.state != RT_BREAKER_CLOSED;
	peer->breaker = (struct rt_breaker){ 0 };
}

static struct rt_peer *peer_find(struct rt_route_table *table, const struct cad_map_node *node)
{
	struct rt_peer *unused = NULL;
	for (uint32_t i = 0; i < table->peers_count; i++) {
		struct rt_peer *peer = &table->peers[i];
		if (strcmp(peer->id, node->id) == 0 && strcmp(peer->address, node->exchange_address) == 0)
			return peer;
		if (!peer->wanted && !peer->connection && peer->shipments == 0)
			unused = peer;
	}

	if (!unused && table->peers_count < CAD_ROUTER_CONNECTIONS_MAX)
		unused = &table->peers[table->peers_count++];
	if (!unused)
		return NULL;
	*unused = (struct rt_peer){ .delay_ms = DELAY_FIRST_MS, .heard_ns = cad_transport_now_ns(table->transport) };
	memcpy(unused->id, node->id, strlen(node->id) + 1); /* lengths are checked by map.c */
	memcpy(unused->address, node->exchange_address, strlen(node->exchange_address) + 1);
	cad_exchange_address_host(node->exchange_address, unused->place);

	return unused;
}

/* Whether a map has the same process of a node. */
static bool was_wanted(const struct cad_map *map, const struct cad_map_node *node)
{
	int at = map ? cad_map_node_find(map, node->id) : CAD_MAP_NONE;
	return at >= 0 && map->nodes[at].live && strcmp(map->nodes[at].exchange_address, node->exchange_address) == 0;
}

/* What a pair costs on each node: the inverse of its speed, as the planner has it. */
static void take_speeds(struct rt_route_table *table, const struct cad_map *map)
{
	float speeds = 0;

	for (uint32_t node = 0; node < map->nodes_count; node++)
		speeds += map->nodes[node].speed;
	table->unit_least = RT_LOAD_PAIR_MAX;
	for (uint32_t node = 0; node < map->nodes_count; node++) {
		float unit = roundf(RT_LOAD_PAIR * speeds / (float)map->nodes_count / map->nodes[node].speed);
		table->node_unit[node] = (uint32_t)fminf(fmaxf(unit, 1), RT_LOAD_PAIR_MAX);
		if (table->node_unit[node] < table->unit_least)
			table->unit_least = table->node_unit[node];
	}
}

struct cad_map *rt_route_table_map(struct rt_route_table *table, struct cad_map *map)
{
	struct cad_map *before = table->map;
	if (before && map->epoch <= before->epoch)
		return map;

	table->map = map;
	table->unplaced = cad_map_unplaced(map);
	table->open_copies.count = 0; /* the map says anew who holds what */
	memset(table->node_pairs, 0, map->nodes_count * sizeof *table->node_pairs);
	take_speeds(table, map);
	for (uint32_t i = 0; i < table->peers_count; i++)
		table->peers[i].wanted = false;
	for (uint32_t node = 0; node < map->nodes_count; node++) {
		table->node_peer[node] = -1;
		if (!map->nodes[node].live || map->nodes[node].exchange_address[0] == 0)
			continue;
		struct rt_peer *peer = peer_find(table, &map->nodes[node]);
		if (!peer) {
			cad_log_warn("exchange", "more expert nodes than this router has room for",
				CAD_S("node", map->nodes[node].id), CAD_U("peers_max", CAD_ROUTER_CONNECTIONS_MAX));
			continue;
		}
		if (!peer->wanted && !peer->ready && !was_wanted(before, &map->nodes[node]))
			peer->heard_ns = cad_transport_now_ns(table->transport);
		peer->wanted = true;
		table->node_peer[node] = (int16_t)(peer - table->peers);
	}

	for (uint32_t i = 0; i < table->peers_count; i++)
		if (!table->peers[i].wanted)
			forget_breaker(table, &table->peers[i]);

	refresh(table, true);
	return before;
}

void rt_route_table_connection(struct rt_route_table *table, struct rt_peer *peer, enum cad_connection_state state,
	enum cad_status status, const char *text)
{
	bool was_ready = peer->ready;

	peer->ready = state == CAD_CONNECTION_READY;
	if (was_ready && !peer->ready) {
		uint64_t now_ns = cad_transport_now_ns(table->transport),
			 silent_ns = peer->connection ? cad_connection_silent_ns(peer->connection) : 0;
		peer->heard_ns = now_ns > silent_ns ? now_ns - silent_ns : 0;
	}
	if (peer->ready) {
		peer->delay_ms = DELAY_FIRST_MS;
		peer->refused = false;
		peer->why[0] = 0;
		cad_log_info("exchange", "connected", CAD_S("node", peer->id), CAD_S("address", peer->place));
	}

	if (state == CAD_CONNECTION_CLOSED) {
		uint64_t jitter = cad_random_below(&table->random, peer->delay_ms + 1);
		peer->connection = NULL;
		peer->refused = status == CAD_ERR_REFUSED;
		snprintf(peer->why, sizeof peer->why, "%s", text);
		peer->retry_at_ns = cad_transport_now_ns(table->transport) + (peer->delay_ms + jitter) * CAD_NS_PER_MS;
		peer->delay_ms = peer->delay_ms * 2 < DELAY_LAST_MS ? peer->delay_ms * 2 : DELAY_LAST_MS;
		if (peer->wanted)
			cad_log_warn("exchange", "no connection", CAD_S("node", peer->id),
				CAD_S("address", peer->place), CAD_S("status", cad_status_text(status)),
				CAD_S("why", text));
	}

	refresh(table, false);
}

uint64_t rt_route_table_tick(struct rt_route_table *table)
{
	uint64_t now = cad_transport_now_ns(table->transport), next = UINT64_MAX;
	for (uint32_t i = 0; i < table->peers_count; i++) {
		struct rt_peer *peer = &table->peers[i];
		if (!peer->wanted && peer->connection && peer->shipments == 0)
			cad_connection_close(peer->connection, CAD_ERR_CANCELLED, "the map no longer names this node");
		if (!peer->wanted || peer->connection)
			continue;
		if (peer->retry_at_ns > now) {
			next = peer->retry_at_ns < next ? peer->retry_at_ns : next;
			continue;
		}
		struct cad_error error;
		enum cad_status status =
			cad_transport_connect(table->transport, peer->address, peer, &peer->connection, &error);
		if (status != CAD_OK) {
			peer->connection = NULL;
			rt_route_table_connection(table, peer, CAD_CONNECTION_CLOSED, status, error.text);
			next = peer->retry_at_ns < next ? peer->retry_at_ns : next;
		}
	}
	return next;
}

uint32_t rt_route_table_connections(const struct rt_route_table *table)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < table->peers_count; i++)
		count += table->peers[i].ready;
	return count;
}

uint64_t rt_route_table_p99_ns(const struct rt_route_table *table)
{
	uint64_t most_ns = 0;
	for (uint32_t i = 0; i < table->peers_count; i++) {
		uint64_t p99_ns = table->peers[i].wanted ? rt_latency_usual_p99_ns(&table->peers[i].latency) : 0;
		most_ns = p99_ns > most_ns ? p99_ns : most_ns;
	}
	return most_ns;
}
