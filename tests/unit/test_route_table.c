/* SPDX-License-Identifier: Apache-2.0 */
/* Where rows can go: maps that replace each other, peers that are kept, closed and reused,
 * connections that are tried again with a growing delay, readiness, and whom rows are booked on. */
#include "common/base/log.h"
#include "common/cluster/cover.h"
#include "tests/support/moe_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t spread[MOE_EXPERTS] = { 1, 1, 2, 2, 4, 4 };
static const uint8_t everywhere[MOE_EXPERTS] = { 7, 7, 7, 7, 7, 7 };
static const uint8_t but_one[MOE_EXPERTS] = { 7, 7, 7, 0, 7, 7 };

static struct rt_route_table *routes_of(struct moe_world *world) { return &world->exchange.routes; }

static struct cad_map *map_of(uint64_t epoch, uint32_t nodes_count)
{
	static const char *const names[MOE_NODES] = { "n0", "n1", "n2" };
	struct cad_map_node nodes[MOE_NODES];
	for (uint32_t n = 0; n < nodes_count; n++)
		nodes[n] = (struct cad_map_node){ names[n], names[n], "", true, 0 };
	struct cad_map_source source = { .epoch = epoch, .nodes = nodes, .nodes_count = nodes_count };
	struct cad_map *map;
	struct cad_error error;
	assert_int_equal(cad_map_create(&source, &map, &error), CAD_OK);
	return map;
}

static void only_newer_maps_are_taken(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	struct cad_map *second = map_of(2, 3), *first = map_of(1, 1), *again = map_of(2, 1), *third = map_of(3, 2);
	assert_null(rt_route_table_map(routes_of(&world), second));
	uint64_t version = routes_of(&world)->version;
	assert_ptr_equal(rt_route_table_map(routes_of(&world), first), first);
	assert_ptr_equal(rt_route_table_map(routes_of(&world), again), again);
	assert_int_equal(routes_of(&world)->version, version);
	assert_ptr_equal(rt_route_table_map(routes_of(&world), third), second);
	assert_true(routes_of(&world)->version > version);
	cad_map_release(first);
	cad_map_release(again);
	cad_map_release(second);
	moe_world_close(&world);
}

static void ready_when_every_expert_is_held_by_a_connected_node(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, spread);
	assert_false(atomic_load(&routes_of(&world)->ready));
	moe_connect(&world);
	assert_true(atomic_load(&routes_of(&world)->ready));
	moe_publish(&world, but_one);
	assert_false(atomic_load(&routes_of(&world)->ready));
	moe_publish(&world, everywhere);
	assert_true(atomic_load(&routes_of(&world)->ready));
	moe_world_close(&world);
}

/* A node that a map no longer names is closed, and its entry is used for another. */
static void a_node_that_is_not_named_is_closed(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, spread);
	moe_connect(&world);
	assert_int_equal(routes_of(&world)->peers_count, MOE_NODES);
	cad_map_release(rt_route_table_map(routes_of(&world), map_of(world.epoch + 1, 1)));
	world.epoch++;
	moe_pass(&world, 50);
	assert_int_equal(rt_route_table_connections(routes_of(&world)), 1);
	assert_null(routes_of(&world)->peers[2].connection);

	moe_publish(&world, spread); /* they are back, in the entries of before */
	moe_connect(&world);
	assert_int_equal(routes_of(&world)->peers_count, MOE_NODES);
	moe_world_close(&world);
}

/* While a shipment is with it, it stays. */
static void a_node_with_shipments_is_not_closed(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, (const uint8_t[MOE_EXPERTS]){ 4, 4, 4, 4, 4, 4 });
	moe_connect(&world);
	moe_say(&world, 2, MOE_SILENCE, 2);
	moe_dispatch(&world);
	assert_int_equal(routes_of(&world)->peers[2].shipments, 2);
	moe_publish(&world, (const uint8_t[MOE_EXPERTS]){ 1, 1, 1, 1, 1, 1 });
	routes_of(&world)->peers[2].wanted = false;
	(void)rt_route_table_tick(routes_of(&world));
	assert_non_null(routes_of(&world)->peers[2].connection);
	assert_int_equal(cad_connection_state(routes_of(&world)->peers[2].connection), CAD_CONNECTION_READY);
	moe_wait(&world); /* the calls' deadlines pass; node 0 has the rows now */
	moe_expect_all(&world);
	assert_int_equal(routes_of(&world)->peers[2].shipments, 0);
	moe_pass(&world, 10);
	assert_null(routes_of(&world)->peers[2].connection);
	moe_world_close(&world);
}

/* A node that does not answer is tried again, less and less often, until it is back. */
static void connecting_again_grows_slower(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, spread);
	moe_connect(&world);
	struct rt_peer *peer = &routes_of(&world)->peers[0];
	uint32_t first = peer->delay_ms, before = 0;
	cad_sim_cut(world.sim, world.exchange.transport, world.nodes[0].transport, true);
	cad_connection_close(peer->connection, CAD_ERR_CANCELLED, "cut by the test");
	for (uint32_t grown = 0; grown < 4;) {
		moe_pass(&world, 20);
		assert_true(peer->delay_ms >= before); /* it only grows */
		grown += before != 0 && peer->delay_ms > before;
		before = peer->delay_ms;
	}
	assert_true(before > first && before <= 2000);
	assert_false(atomic_load(&routes_of(&world)->ready));

	cad_sim_cut(world.sim, world.exchange.transport, world.nodes[0].transport, false);
	for (int i = 0; i < 1000 && !peer->ready; i++)
		moe_pass(&world, 20);
	assert_true(peer->ready);
	assert_int_equal(peer->delay_ms, first);
	assert_true(atomic_load(&routes_of(&world)->ready));
	moe_world_close(&world);
}

static void says(const struct rt_route_table *routes, const char *want)
{
	char text[CAD_NOTE_BYTES];
	cad_note_get(&routes->missing, text);
	if (strcmp(text, want) != 0)
		fail_msg("'%s' and not '%s'", text, want);
}

/* What is missing is said, and of several reasons the one that waiting does not cure. */
static void what_is_missing_is_said(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	struct rt_route_table *routes = routes_of(&world);
	says(routes, "no map has come yet");
	moe_publish(&world, spread);
	says(routes, "0 of 3 are connected; 'n0' at n0: connecting");
	moe_connect(&world);
	says(routes, "");

	cad_connection_close(routes->peers[0].connection, CAD_ERR_PEER_LOST, "lost");
	cad_connection_close(routes->peers[2].connection, CAD_ERR_REFUSED, "no secret");
	while (routes->peers[0].ready || routes->peers[2].ready)
		cad_transport_poll(world.exchange.transport, moe_now(&world) + CAD_NS_PER_MS);
	says(routes, "1 of 3 are connected; 'n2' at n2: no secret");
	for (int i = 0; i < 1000 && !(routes->peers[0].ready && routes->peers[2].ready); i++)
		moe_pass(&world, 20);
	says(routes, "");

	moe_publish(&world, but_one);
	says(routes, "experts are on none of the 3");
	moe_world_close(&world);
}

static void count_news(void *context) { ++*(unsigned *)context; }

/* Each map, and each node that is found or lost, is news at once; that one is still missing is
 * none. A cut is found by its silence, and that began when something was heard last. */
static void what_is_not_reached_is_told(void **state)
{
	(void)state;
	struct moe_world world;
	unsigned news = 0;
	moe_world_open(&world);
	struct rt_route_table *table = routes_of(&world);
	table->on_reach = count_news;
	table->on_reach_context = &news;
	assert_int_equal(rt_reach_look(table->reach)->epoch, 0);

	moe_publish(&world, spread);
	const struct rt_reach_view *view = rt_reach_look(table->reach);
	assert_int_equal(view->epoch, world.epoch);
	assert_int_equal(view->count, MOE_NODES);
	assert_string_equal(view->unreached[1].node, table->map->nodes[1].id);
	assert_int_equal(view->unreached[1].heard_ns, moe_now(&world));
	assert_int_equal(news, 1);
	moe_connect(&world);
	assert_int_equal(news, 1 + MOE_NODES);
	assert_int_equal(rt_reach_look(table->reach)->count, 0);
	assert_int_equal(table->unreached, 0);

	uint64_t cut_ns = moe_now(&world);
	cad_sim_cut(world.sim, world.exchange.transport, world.nodes[0].transport, true);
	for (int i = 0; i < 10000 && table->unreached == 0; i++)
		moe_pass(&world, 1);
	view = rt_reach_look(table->reach);
	assert_int_equal(view->count, 1);
	assert_string_equal(view->unreached[0].node, table->peers[0].id);
	assert_true(moe_now(&world) >= cut_ns + CAD_NS_PER_S);
	assert_true(view->unreached[0].heard_ns <= cut_ns + CAD_NS_PER_S / 2);
	assert_int_equal(news, 2 + MOE_NODES);
	uint64_t heard_ns = view->unreached[0].heard_ns;
	moe_pass(&world, 20000); /* it is tried again and again */
	assert_int_equal(news, 2 + MOE_NODES);
	assert_int_equal(rt_reach_look(table->reach)->unreached[0].heard_ns, heard_ns);

	cad_sim_cut(world.sim, world.exchange.transport, world.nodes[0].transport, false);
	for (int i = 0; i < 10000 && table->unreached > 0; i++)
		moe_pass(&world, 1);
	assert_int_equal(rt_reach_look(table->reach)->count, 0);
	assert_int_equal(news, 3 + MOE_NODES);
	moe_world_close(&world);
}

/* Equal replicas: rows go where fewer went; and to one node of two that
 * both have the row's experts. */
static void rows_are_spread_and_stay_whole(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, everywhere);
	moe_connect(&world);
	const int32_t experts[MOE_TOPK] = { 1, 4 };
	uint32_t rows[MOE_NODES] = { 0 };
	for (int layer = 0; layer < 30; layer++) {
		uint16_t nodes[MOE_TOPK];
		rt_route_table_begin(routes_of(&world), MOE_TOPK);
		rt_route_table_choose(routes_of(&world), 0, experts, MOE_TOPK, nodes);
		assert_int_equal(nodes[0], nodes[1]);
		assert_true(rt_route_table_booked(routes_of(&world), nodes[0]));
		rows[nodes[0]]++;
	}
	for (uint32_t n = 0; n < MOE_NODES; n++)
		assert_int_equal(rows[n], 10);

	moe_publish(&world, but_one);
	const int32_t absent[MOE_TOPK] = { 3, -1 };
	uint16_t nodes[MOE_TOPK];
	rt_route_table_begin(routes_of(&world), 1);
	rt_route_table_choose(routes_of(&world), 0, absent, MOE_TOPK, nodes);
	assert_true(nodes[0] == CAD_COVER_NONE && nodes[1] == CAD_COVER_NONE);
	moe_world_close(&world);
}

/* A call of a node that was answered: so long it waited there, and so long it computed. */
static void answered(struct moe_world *world, uint32_t node, uint64_t queue_us, uint64_t compute_us)
{
	struct rt_route_table *routes = routes_of(world);
	struct rt_peer *peer = &routes->peers[routes->node_peer[node]];
	const struct rt_call_end end = {
		.now_ns = moe_now(world),
		.answered = true,
		.took = true,
		.rows = 4,
		.pairs = 8,
		.ns = (queue_us + compute_us) * CAD_NS_PER_US,
		.queue_ns = queue_us * CAD_NS_PER_US,
		.compute_ns = compute_us * CAD_NS_PER_US,
	};
	rt_route_table_sent(routes, peer, end.pairs);
	rt_route_table_ended(routes, peer, &end);
}

enum { CHOICES = 90 };

/* Rows that any node could take: how many each gets. */
static void choose(struct moe_world *world, uint32_t rows[MOE_NODES], uint16_t chosen[CHOICES])
{
	const int32_t experts[MOE_TOPK] = { 1, 4 };
	memset(rows, 0, MOE_NODES * sizeof *rows);
	rt_route_table_begin(routes_of(world), CHOICES * MOE_TOPK);
	for (uint32_t i = 0; i < CHOICES; i++) {
		uint16_t nodes[MOE_TOPK];
		rt_route_table_choose(routes_of(world), 0, experts, MOE_TOPK, nodes);
		rows[nodes[0]]++;
		chosen[i] = nodes[0];
	}
}

/* One answer that says so is enough; and when none says it any longer, it is over. */
static void a_node_with_a_queue_gets_fewer_rows(void **state)
{
	(void)state;
	struct moe_world world;
	uint32_t rows[MOE_NODES];
	uint16_t chosen[CHOICES];
	moe_world_open(&world);
	moe_publish(&world, everywhere);
	moe_connect(&world);
	for (uint32_t n = 0; n < MOE_NODES; n++)
		answered(&world, n, 100, 800); /* 100 us a pair */
	choose(&world, rows, chosen);
	assert_true(rows[0] == CHOICES / MOE_NODES && rows[1] == rows[0]);

	answered(&world, 0, 3000, 800); /* as long as 30 pairs take: 15 rows */
	choose(&world, rows, chosen);
	assert_in_range(rows[0], 18, 22);
	answered(&world, 0, 20000, 800);
	choose(&world, rows, chosen);
	assert_int_equal(rows[0], 0);

	moe_pass(&world, 100); /* twice halved: 5 ms */
	choose(&world, rows, chosen);
	assert_in_range(rows[0], 1, 20);
	moe_pass(&world, 1000);
	for (uint32_t n = 0; n < MOE_NODES; n++) /* the digits that say who had more are not of interest here */
		routes_of(&world)->node_pairs[n] = 0;
	choose(&world, rows, chosen);
	assert_true(rows[0] == CHOICES / MOE_NODES && rows[1] == rows[0]);
	moe_world_close(&world);
}

/* All of them have queues: that is load, and nobody's fault. Waits of idle nodes change no
 * choice. */
static void equal_nodes_are_chosen_as_if_nothing_was_known(void **state)
{
	(void)state;
	struct moe_world world;
	uint32_t rows[MOE_NODES];
	uint16_t expected[3][CHOICES], chosen[CHOICES];
	moe_world_open(&world);
	moe_publish(&world, everywhere);
	moe_connect(&world);
	for (int i = 0; i < 3; i++)
		choose(&world, rows, expected[i]);
	memset(routes_of(&world)->node_pairs, 0, MOE_NODES * sizeof *routes_of(&world)->node_pairs);
	for (int i = 0; i < 3; i++) {
		for (uint32_t n = 0; n < MOE_NODES; n++)
			answered(&world, n, i == 2 ? 20000 + 3000 * n : (uint64_t)i * 600 * n, 800);
		choose(&world, rows, chosen);
		assert_memory_equal(chosen, expected[i], sizeof chosen);
	}
	moe_world_close(&world);
}

/* What is under way to a node counts like rows of this layer. */
static void what_is_under_way_counts(void **state)
{
	(void)state;
	struct moe_world world;
	uint32_t rows[MOE_NODES];
	uint16_t chosen[CHOICES];
	moe_world_open(&world);
	moe_publish(&world, everywhere);
	moe_connect(&world);
	struct rt_route_table *routes = routes_of(&world);
	struct rt_peer *peer = &routes->peers[routes->node_peer[1]];
	rt_route_table_sent(routes, peer, 30);
	choose(&world, rows, chosen);
	assert_int_equal(rows[1], 20); /* and 35 for the others, with the 15 that are under way */
	rt_route_table_ended(routes, peer, &(struct rt_call_end){ .pairs = 30, .rows = 1 });
	moe_world_close(&world);
}

/* By their speed, as the map says it; and what is under way to a fast one counts for less. */
static void fast_nodes_get_more_rows(void **state)
{
	(void)state;
	struct moe_world world;
	uint32_t rows[MOE_NODES];
	uint16_t chosen[CHOICES];
	moe_world_open(&world);
	world.nodes[1].speed = 8;
	moe_publish(&world, everywhere);
	moe_connect(&world);
	for (int i = 0; i < 3; i++) {
		choose(&world, rows, chosen);
		assert_in_range(rows[1], CHOICES * 8 / 10 - 2, CHOICES * 8 / 10 + 2);
		assert_in_range(rows[0], CHOICES / 10 - 1, CHOICES / 10 + 1);
	}
	struct rt_route_table *routes = routes_of(&world);
	struct rt_peer *peer = &routes->peers[routes->node_peer[1]];
	rt_route_table_sent(routes, peer, 30); /* of 120 pairs in all, 96 are its part */
	choose(&world, rows, chosen);
	assert_in_range(rows[1], CHOICES * 8 / 10 - 5, CHOICES * 8 / 10 - 1);
	rt_route_table_ended(routes, peer, &(struct rt_call_end){ .pairs = 30, .rows = 1 });

	world.nodes[1].speed = 0; /* nobody says so any longer */
	moe_publish(&world, everywhere);
	choose(&world, rows, chosen);
	assert_int_equal(rows[1], CHOICES / MOE_NODES);
	moe_world_close(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_newer_maps_are_taken),
		cmocka_unit_test(ready_when_every_expert_is_held_by_a_connected_node),
		cmocka_unit_test(a_node_that_is_not_named_is_closed),
		cmocka_unit_test(a_node_with_shipments_is_not_closed),
		cmocka_unit_test(connecting_again_grows_slower),
		cmocka_unit_test(what_is_missing_is_said),
		cmocka_unit_test(what_is_not_reached_is_told),
		cmocka_unit_test(rows_are_spread_and_stay_whole),
		cmocka_unit_test(a_node_with_a_queue_gets_fewer_rows),
		cmocka_unit_test(equal_nodes_are_chosen_as_if_nothing_was_known),
		cmocka_unit_test(what_is_under_way_counts),
		cmocka_unit_test(fast_nodes_get_more_rows),
	};
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT); /* lost connections are the point here */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
