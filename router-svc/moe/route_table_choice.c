/* SPDX-License-Identifier: Apache-2.0 */
/* Whom rows go to: what speaks against nodes and copies, and the cover among the others. */
#include "common/base/log.h"
#include "common/cluster/cover.h"
#include "router-svc/moe/route_table.h"

#include <stdio.h>
#include <string.h>

enum { LAST_TIER = RT_TIERS - 1 };
/* Waits below this are those of idle nodes; one that is not renewed is forgotten after some halves;
 * of so many calls each counts as one part; and what one may weigh at most. */
enum {
	WAIT_LEAST_MS = 2,
	WAIT_HALF_MS = 50,
	WAIT_HALVES = 16,
	WAIT_CALLS = 4,
	WAIT_LOAD_MAX = RT_LOAD_PAIR << 16,
	PAIR_LEAST_NS = 1000
};
enum { LATE_FOR_LONG_MS = 50 }; /* a node may take this for want of a core; longer, and it hangs */
/* The guard of the cover: from so many (row, expert) pairs per node on, a node may have 3 % more
 * than the mean; each 5 % above that weighs as much as one expert. */
enum { GUARDED_PAIRS_MIN = 256 };
#define GUARD_CALM 1.03f
#define GUARD_POINT 0.05f

static const struct rt_peer *peer_of(const struct rt_route_table *table, uint32_t node)
{
	return &table->peers[table->node_peer[node]];
}

/* ---- how busy nodes are ---- */

static uint32_t under_way(const struct rt_route_table *table, uint32_t node)
{
	return peer_of(table, node)->pairs * table->node_unit[node];
}

/* What is under way to nodes: of this router's other micro-batches, and what nobody waits for. Only
 * what a node has more than the others counts. */
static void add_in_flight(struct rt_route_table *table)
{
	uint32_t least = UINT32_MAX;
	if (table->pairs == 0)
		return;

	for (uint32_t node = 0; node < table->map->nodes_count; node++)
		if (cad_map_set_has(table->node_ready, node) && under_way(table, node) < least)
			least = under_way(table, node);
	for (uint32_t node = 0; node < table->map->nodes_count; node++)
		if (cad_map_set_has(table->node_ready, node))
			table->node_load[node] += under_way(table, node) - least;
}

/* How long calls to a node wait there now: what its last calls said, halved every WAIT_HALF_MS. */
static uint64_t wait_ns(const struct rt_peer *peer, uint64_t now_ns)
{
	uint64_t halves = (now_ns - peer->wait_at_ns) / (WAIT_HALF_MS * CAD_NS_PER_MS);
	return halves < 64 ? peer->wait_ns >> halves : 0;
}

/* A node where calls wait for longer than anywhere else has so many pairs more to do as
 * it could compute in that time. Returns the sum, in the unit of loads. Waits that an
 * idle node has, too, are none. */
static uint64_t add_waits(struct rt_route_table *table)
{
	uint64_t least = UINT64_MAX, sum = 0;
	uint64_t now_ns = table->waits_until_ns > 0 ? cad_transport_now_ns(table->transport) : 0;
	if (now_ns >= table->waits_until_ns)
		return 0;

	for (uint32_t node = 0; node < table->map->nodes_count; node++) {
		uint64_t ns = cad_map_set_has(table->node_ready, node) ? wait_ns(peer_of(table, node), now_ns) : least;
		least = ns < least ? ns : least;
	}

	for (uint32_t node = 0; node < table->map->nodes_count; node++) {
		if (!cad_map_set_has(table->node_ready, node))
			continue;
		const struct rt_peer *peer = peer_of(table, node);
		uint64_t ns = wait_ns(peer, now_ns),
			 pairs = ns / (peer->pair_ns > PAIR_LEAST_NS ? peer->pair_ns : PAIR_LEAST_NS);
		if (ns < WAIT_LEAST_MS * CAD_NS_PER_MS || ns < 2 * least)
			continue;
		uint64_t load = pairs * table->node_unit[node];
		load = load < WAIT_LOAD_MAX ? load : WAIT_LOAD_MAX;
		table->node_load[node] += (uint32_t)load;
		sum += load;
	}
	return sum;
}

/* What an answer says of its node: what its calls wait for, and what a pair takes. A wait that
 * grows is believed at once. */
static void learn_wait(struct rt_route_table *table, struct rt_peer *peer, const struct rt_call_end *end)
{
	uint64_t now_ns = end->now_ns, before_ns = wait_ns(peer, now_ns),
		 elsewhere_ns = end->ns > end->compute_ns ? end->ns - end->compute_ns : 0,
		 waited_ns = elsewhere_ns > end->queue_ns ? elsewhere_ns : end->queue_ns,
		 pair_ns = end->compute_ns / end->pairs;

	peer->wait_ns = waited_ns > before_ns ? waited_ns : before_ns - (before_ns - waited_ns) / WAIT_CALLS;
	peer->wait_at_ns = now_ns;
	peer->pair_ns =
		peer->pair_ns == 0 ? pair_ns : peer->pair_ns - peer->pair_ns / WAIT_CALLS + pair_ns / WAIT_CALLS;
	if (waited_ns >= WAIT_LEAST_MS * CAD_NS_PER_MS)
		table->waits_until_ns = now_ns + WAIT_HALF_MS * CAD_NS_PER_MS * WAIT_HALVES;
}

void rt_route_table_sent(struct rt_route_table *table, struct rt_peer *peer, uint32_t pairs)
{
	peer->shipments++;
	peer->pairs += pairs;
	table->pairs += pairs;
}

/* ---- what speaks against nodes ---- */

static void favour(struct rt_route_table *table)
{
	table->favours = table->late > 0 || table->breakers > 0 || table->open_copies.count > 0;
	if (!table->favours)
		return;

	table->now_ns = cad_transport_now_ns(table->transport);
	for (uint32_t tier = 0; tier < LAST_TIER; tier++)
		memcpy(table->node_tiers[tier], table->node_ready, CAD_NODES_MAX / 64 * sizeof *table->node_ready);
	for (uint32_t node = 0; node < table->map->nodes_count; node++) {
		if (!cad_map_set_has(table->node_ready, node))
			continue;
		struct rt_peer *peer = &table->peers[table->node_peer[node]];
		bool open = rt_breaker_half_open(&peer->breaker, table->now_ns) ||
			peer->breaker.state == RT_BREAKER_OPEN,
		     hangs = peer->late > 0 && table->now_ns - peer->late_ns >= LATE_FOR_LONG_MS * CAD_NS_PER_MS;
		if (open || peer->late > 0)
			cad_map_set_remove(table->node_tiers[0], node);
		if (open || hangs)
			cad_map_set_remove(table->node_tiers[1], node);
	}
}

static int node_of(const struct rt_route_table *table, const struct rt_peer *peer)
{
	for (uint32_t node = 0; table->map && node < table->map->nodes_count; node++)
		if (table->node_peer[node] == peer - table->peers)
			return (int)node;
	return CAD_MAP_NONE;
}

static void tell_breaker(const struct rt_route_table *table, const struct rt_peer *peer)
{
	const struct rt_breaker *breaker = &peer->breaker;
	char why[RT_BREAKER_TEXT_BYTES];

	rt_breaker_text(breaker, rt_latency_usual_p99_ns(&peer->latency), why);
	if (breaker->state == RT_BREAKER_CLOSED)
		cad_log_info("exchange", "breaker closed", CAD_S("node", peer->id));
	else
		cad_log_warn("exchange", "breaker open: only what nobody else has goes there", CAD_S("node", peer->id),
			CAD_S("why", why), CAD_U("ms", breaker->open_ms), CAD_U("open", table->breakers));
}

void rt_route_table_ended(struct rt_route_table *table, struct rt_peer *peer, const struct rt_call_end *end)
{
	struct rt_breaker *breaker = &peer->breaker;
	bool was_closed = breaker->state == RT_BREAKER_CLOSED;

	peer->shipments--;
	peer->pairs -= end->pairs;
	table->pairs -= end->pairs;
	if (end->answered)
		learn_wait(table, peer, end);
	if (end->took) {
		rt_latency_add(&peer->latency, end->rows, end->ns);
		rt_latency_add(&table->latency, end->rows, end->ns);
	}
	if (!peer->wanted)
		return;

	uint64_t ns = was_closed ? rt_latency_usual_p99_ns(&peer->latency) : end->ns;
	if (!rt_breaker_ended(
		    breaker, end->failed, table->breaker_p99_ns > 0 && ns > table->breaker_p99_ns, end->now_ns))
		return;

	table->breakers += was_closed;
	table->breakers -= breaker->state == RT_BREAKER_CLOSED;
	table->breakers_opened += was_closed;
	if (was_closed || breaker->state == RT_BREAKER_CLOSED)
		tell_breaker(table, peer);
	if (breaker->state == RT_BREAKER_CLOSED && breaker->cause == RT_BREAKER_SLOW)
		peer->latency = (struct rt_latency){ 0 }; /* what it took before would open it again */
}

bool rt_route_table_not_held(struct rt_route_table *table, struct rt_peer *peer, uint32_t layer, uint32_t expert)
{
	uint64_t now_ns = cad_transport_now_ns(table->transport);
	int node = node_of(table, peer);
	if (node == CAD_MAP_NONE)
		return true; /* the map is a newer one */

	const struct cad_map_replicas replicas = cad_map_replicas(table->map, layer, expert);
	return cad_map_set_has(replicas.set, (uint32_t)node) &&
		rt_open_copies_refused(&table->open_copies, layer, expert, (uint32_t)node, now_ns) &&
		replicas.count > 1;
}

void rt_route_table_held(struct rt_route_table *table, struct rt_peer *peer, uint32_t layer, uint32_t expert)
{
	int node = node_of(table, peer);
	if (node != CAD_MAP_NONE)
		rt_open_copies_answered(&table->open_copies, layer, expert, (uint32_t)node);
}

uint64_t rt_route_table_late_ns(const struct rt_route_table *table, const struct rt_peer *peer, uint32_t rows)
{
	uint64_t own_ns = rt_latency_late_ns(&peer->latency, rows);
	return own_ns < UINT64_MAX ? own_ns : rt_latency_late_ns(&table->latency, rows);
}

void rt_route_table_late(struct rt_route_table *table, struct rt_peer *peer, int more)
{
	if (more > 0 && peer->late == 0)
		peer->late_ns = cad_transport_now_ns(table->transport);
	peer->late = (uint32_t)((int)peer->late + more);
	table->late = (uint32_t)((int)table->late + more);
}

/* ---- the choice ---- */

/*
 * A layer's time is its busiest node's, so the pairs of this layer count first. Where those are
 * equal, as they are for the first row, the node that had less to do so far is taken. In a large
 * batch the busiest node's arithmetic is what takes time, and a row may touch one node more to
 * spare it; in a small one each call costs more than that.
 */
void rt_route_table_begin(struct rt_route_table *table, uint32_t pairs)
{
	uint32_t nodes = table->map->nodes_count, usable = 0;
	uint64_t least = UINT64_MAX, most = 0;

	for (uint32_t node = 0; node < nodes; node++) {
		if (!cad_map_set_has(table->node_ready, node))
			continue;
		usable++;
		least = table->node_pairs[node] < least ? table->node_pairs[node] : least;
		most = table->node_pairs[node] > most ? table->node_pairs[node] : most;
	}

	for (uint32_t node = 0; node < nodes; node++)
		table->node_load[node] = cad_map_set_has(table->node_ready, node) && most > least
			? (uint32_t)((table->node_pairs[node] - least) * (table->unit_least - 1) / (most - least))
			: 0;
	memset(table->node_booked, 0, cad_map_words(nodes) * sizeof *table->node_booked);
	favour(table);
	add_in_flight(table);
	uint64_t waiting = add_waits(table);
	float mean = usable ? ((float)pairs * RT_LOAD_PAIR + (float)waiting) / (float)usable : 0,
	      point = GUARD_POINT * mean;
	table->load_calm = GUARD_CALM * mean;
	table->load_point = waiting > 0               ? (point > RT_LOAD_PAIR ? point : RT_LOAD_PAIR)
		: pairs >= GUARDED_PAIRS_MIN * usable ? point
						      : 0;
}

/* The row goes there. */
static void book(struct rt_route_table *table, uint32_t k, const uint16_t *nodes)
{
	for (uint32_t slot = 0; slot < k; slot++) {
		if (nodes[slot] == CAD_COVER_NONE)
			continue;
		cad_map_set_add(table->node_booked, nodes[slot]);
		table->node_pairs[nodes[slot]] += table->node_unit[nodes[slot]];
	}
}

static void cover(struct rt_route_table *table, uint32_t layer, const int32_t *experts, uint32_t k,
	const uint64_t *usable, uint16_t *nodes)
{
	const struct cad_cover_load load = { table->node_load, table->node_unit, table->load_calm, table->load_point };
	cad_cover(table->map, layer, experts, k, usable, &load, nodes);
}

static bool is_open(const struct rt_route_table *table, uint32_t layer, int32_t expert, uint32_t node)
{
	return rt_open_copies_has(&table->open_copies, layer, (uint32_t)expert, node, table->now_ns);
}

/* An expert whose copy on the chosen node is open: to the lightest other node that is favoured.
 * Returns whether each such expert has one. */
static bool leave_open_copies(
	struct rt_route_table *table, uint32_t layer, const int32_t *experts, uint32_t k, uint16_t *nodes)
{
	bool all = true;
	for (uint32_t slot = 0; slot < k; slot++) {
		if (nodes[slot] == CAD_COVER_NONE || !is_open(table, layer, experts[slot], nodes[slot]))
			continue;
		const struct cad_map_replicas replicas = cad_map_replicas(table->map, layer, (uint32_t)experts[slot]);
		uint32_t best = CAD_COVER_NONE;
		for (uint32_t r = 0; r < replicas.count; r++) {
			uint32_t node = replicas.nodes[r];
			if (cad_map_set_has(table->node_tiers[0], node) &&
				!is_open(table, layer, experts[slot], node) &&
				(best == CAD_COVER_NONE || table->node_load[node] < table->node_load[best]))
				best = node;
		}
		all = all && best != CAD_COVER_NONE;
		if (best == CAD_COVER_NONE)
			continue;
		nodes[slot] = (uint16_t)best;
		table->node_load[best] += table->node_unit[best];
	}
	return all;
}

bool rt_route_table_choose_copies(
	struct rt_route_table *table, uint32_t layer, const int32_t *experts, uint32_t k, uint16_t *nodes)
{
	bool all = true;
	cover(table, layer, experts, k, table->favours ? table->node_tiers[0] : table->node_ready, nodes);
	for (uint32_t slot = 0; slot < k; slot++)
		all = all && (experts[slot] < 0 || nodes[slot] != CAD_COVER_NONE);
	all = (table->open_copies.count == 0 || leave_open_copies(table, layer, experts, k, nodes)) && all;
	book(table, k, nodes);
	return all;
}

/* Whether a node that is ready holds the expert, and is not the one that was chosen because
 * something speaks against it. */
static bool is_diverted(const struct rt_route_table *table, uint32_t layer, int32_t expert, uint32_t chosen)
{
	const struct cad_map_replicas replicas = cad_map_replicas(table->map, layer, (uint32_t)expert);
	for (uint32_t r = 0; r < replicas.count; r++) {
		uint32_t node = replicas.nodes[r];
		if (node != chosen && cad_map_set_has(table->node_ready, node) &&
			(!cad_map_set_has(table->node_tiers[0], node) || is_open(table, layer, expert, node)))
			return true;
	}
	return false;
}

/* Fills in what is CAD_COVER_NONE, by one more tier. */
static void choose_tier(struct rt_route_table *table, uint32_t tier, uint32_t layer, const int32_t *experts, uint32_t k,
	uint16_t *nodes)
{
	int32_t left[CAD_TOPK_MAX];
	uint16_t found[CAD_TOPK_MAX];

	for (uint32_t slot = 0; slot < k; slot++)
		left[slot] = nodes[slot] == CAD_COVER_NONE ? experts[slot] : -1;
	cover(table, layer, left, k, table->node_tiers[tier], found);
	book(table, k, found);
	for (uint32_t slot = 0; slot < k; slot++)
		nodes[slot] = nodes[slot] == CAD_COVER_NONE ? found[slot] : nodes[slot];
}

bool rt_route_table_choose(
	struct rt_route_table *table, uint32_t layer, const int32_t *experts, uint32_t k, uint16_t *nodes)
{
	bool all = rt_route_table_choose_copies(table, layer, experts, k, nodes), diverted = false;
	if (!table->favours)
		return false;

	for (uint32_t slot = 0; slot < k && !diverted; slot++)
		diverted = nodes[slot] != CAD_COVER_NONE && is_diverted(table, layer, experts[slot], nodes[slot]);
	for (uint32_t tier = 1; tier < RT_TIERS && !all; tier++)
		choose_tier(table, tier, layer, experts, k, nodes);
	return diverted;
}
