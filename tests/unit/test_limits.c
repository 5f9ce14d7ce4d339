/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cluster of as many nodes as common/base/limits.h allows: they join, their map is made, travels
 * and is taken by a router, which connects to all of them, also when all have moved at once; and
 * the planner plans for them. Messages about processes with the longest addresses may be sent.
 */
#include "cadre/v1/types.pb-c.h"
#include "tests/support/exchange.h"
#include "orchestration/placement/peers.h"
#include "orchestration/placement/publish.h"
#include "tests/support/plans.h"
#include "router-svc/moe/route_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 2, EXPERTS = CAD_NODES_MAX };

static const uint32_t layers[LAYERS] = { 0, 1 };
static const struct pl_shape shape = { layers, LAYERS, EXPERTS };

/* Every node joins from a port of its own and holds one expert of each layer. */
static void join_all(struct pl_registry *registry, struct pl_rollout *rollout, uint32_t first_port)
{
	for (uint32_t n = 0; n < CAD_NODES_MAX; n++) {
		char id[16], address[32];
		snprintf(id, sizeof id, "e%u", n);
		snprintf(address, sizeof address, "127.0.0.1:%u", first_port + n);
		const struct pl_hello hello = {
			.id = id,
			.role = PL_ROLE_EXPERT,
			.exchange_address = address,
			.http_address = "",
			.grpc_address = "",
			.kernels_fingerprint = "k",
			.version = "0",
			.isa = "avx2",
			.memory_bytes = LAYERS * 100,
			.pid = first_port,
		};
		uint32_t slot;
		uint64_t superseded;
		struct cad_error error;
		int known = pl_registry_find(registry, id);
		if (known >= 0)
			pl_registry_leave(registry, (uint32_t)known, 1);
		assert_int_equal(
			pl_registry_join(registry, &hello, first_port + n, 2, &slot, &superseded, &error), CAD_OK);
		if (known >= 0)
			continue;
		assert_int_equal(pl_rollout_add(rollout, slot, hello.memory_bytes), CAD_OK);
		for (uint32_t layer = 0; layer < LAYERS; layer++)
			pl_rollout_restore(rollout, slot, layer * EXPERTS + n);
	}
}

/* As a router gets it: through its message. */
static struct cad_map *published(
	const struct pl_registry *registry, const struct pl_rollout *rollout, uint64_t epoch, size_t unplaced)
{
	struct cad_map *map, *received;
	struct Cadre__V1__Map *message;
	struct cad_error error;

	assert_int_equal(pl_publish_map(registry, rollout, &shape, epoch, &map, &error), CAD_OK);
	assert_int_equal(cad_map_to_message(map, &message), CAD_OK);
	assert_int_equal(cad_map_from_message(message, &received, &error), CAD_OK);
	assert_int_equal(received->nodes_count, CAD_NODES_MAX);
	assert_int_equal(cad_map_unplaced(received), unplaced);
	free(message);
	cad_map_release(map);

	return received;
}

/* Rows for every expert go to its node. */
static void check_choice(struct rt_route_table *table)
{
	for (uint32_t node = 0; node < CAD_NODES_MAX; node++)
		cad_map_set_add(table->node_ready, node);
	rt_route_table_begin(table, EXPERTS);
	for (int32_t expert = 0; expert < EXPERTS; expert++) {
		uint16_t node;
		rt_route_table_choose(table, 1, &expert, 1, &node);
		assert_int_equal(node, cad_map_replicas(table->map, 1, (uint32_t)expert).nodes[0]);
	}
}

static void check_connected(struct rt_route_table *table)
{
	(void)rt_route_table_tick(table);
	for (uint32_t node = 0; node < CAD_NODES_MAX; node++) {
		assert_true(table->node_peer[node] >= 0);
		assert_non_null(table->peers[table->node_peer[node]].connection);
	}
}

static void the_largest_cluster_is_served(void **state)
{
	(void)state;
	struct pl_registry *registry = malloc(sizeof *registry);
	struct pl_rollout *rollout;
	const struct pl_rollout_options rollout_options = {
		.shape = shape,
		.expert_bytes = 100,
		.loads_max = 1,
		.moves_max = 1,
	};
	assert_non_null(registry);
	pl_registry_init(registry, 1000, 100, 1000);
	assert_int_equal(pl_rollout_create(&rollout_options, &rollout), CAD_OK);
	join_all(registry, rollout, 10000);

	struct exchange exchange;
	struct cad_transport_options options;
	exchange_init(&exchange, EXCHANGE_LOCAL);
	exchange_options(&options, "router", false);
	options.connections_max = CAD_ROUTER_CONNECTIONS_MAX;
	struct exchange_node *router = exchange_node_create(&exchange, &options);
	struct rt_route_table table;
	assert_int_equal(rt_route_table_init(&table, router->transport), CAD_OK);
	cad_map_release(rt_route_table_map(&table, published(registry, rollout, 1, 0)));
	check_connected(&table);
	check_choice(&table);

	/* Shipments are still with the old ones, so those stay connected. */
	for (uint32_t i = 0; i < table.peers_count; i++)
		table.peers[i].shipments = 1;
	join_all(registry, rollout, 20000);
	cad_map_release(rt_route_table_map(&table, published(registry, rollout, 2, 0)));
	check_connected(&table);
	assert_int_equal(table.peers_count, CAD_ROUTER_CONNECTIONS_MAX);

	rt_route_table_fini(&table);
	exchange_fini(&exchange);
	pl_rollout_destroy(rollout);
	free(registry);
}

/* Nodes and routers with the longest addresses: their map, and the list of peers, fit the 16 MiB of
 * a message. */
static void the_longest_addresses_can_be_told(void **state)
{
	(void)state;
	struct pl_registry *registry = malloc(sizeof *registry);
	struct pl_rollout *rollout;
	struct pl_peers *peers = calloc(1, sizeof *peers);
	const struct pl_rollout_options options = { .shape = shape, .expert_bytes = 1, .loads_max = 1, .moves_max = 1 };
	static char exchange[CAD_EXCHANGE_ADDRESS_BYTES], other[CAD_MAP_ADDRESS_BYTES];

	assert_non_null(registry);
	assert_non_null(peers);
	pl_registry_init(registry, 1000, 100, 1000);
	assert_int_equal(pl_rollout_create(&options, &rollout), CAD_OK);
	memset(exchange, 'x', sizeof exchange - 1);
	memset(other, 'x', sizeof other - 1);
	for (uint32_t n = 0; n < CAD_PROCESSES_MAX; n++) {
		char id[16];
		snprintf(id, sizeof id, "p%u", n);
		const struct pl_hello hello = {
			.id = id,
			.role = n < CAD_NODES_MAX ? PL_ROLE_EXPERT : PL_ROLE_ROUTER,
			.exchange_address = exchange,
			.http_address = other,
			.grpc_address = other,
			.kernels_fingerprint = "",
			.version = "",
			.isa = "",
		};
		uint32_t slot;
		uint64_t superseded;
		struct cad_error error;
		assert_int_equal(pl_registry_join(registry, &hello, n + 1, 1, &slot, &superseded, &error), CAD_OK);
	}

	struct cad_map *map = published(registry, rollout, 1, LAYERS * EXPERTS);
	struct Cadre__V1__Map *message;
	assert_int_equal(cad_map_to_message(map, &message), CAD_OK);
	assert_true(cadre__v1__map__get_packed_size(message) < 16 << 20);
	assert_true(pl_peers_changed(peers, registry));
	assert_int_equal(pl_peers_message(peers, registry)->n_peers, CAD_PROCESSES_MAX);
	assert_true(cadre__v1__peers__get_packed_size(&peers->message) < 16 << 20);

	free(message);
	cad_map_release(map);
	pl_rollout_destroy(rollout);
	free(peers);
	free(registry);
}

static void the_largest_cluster_is_planned(void **state)
{
	(void)state;
	struct pl_cluster cluster;
	struct cad_error error;
	struct pl_trace *trace = make_trace(1, EXPERTS, 4, 500, 64, 0.8, 11);
	assert_int_equal(pl_cluster_create(CAD_NODES_MAX + 1, 2, &cluster, &error), CAD_ERR_INVALID);
	assert_string_equal(error.text, "513 nodes: the planner takes 1 to 512");
	assert_int_equal(pl_cluster_create(CAD_NODES_MAX, 2, &cluster, &error), CAD_OK);

	const struct pl_solve_options options = options_for(trace, &cluster, EXPERTS + 64, 1);
	struct pl_solution solution = solve(&options);
	assert_int_equal(solution.plan->nodes, CAD_NODES_MAX);

	pl_solution_fini(&solution);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_largest_cluster_is_served),
		cmocka_unit_test(the_longest_addresses_can_be_told),
		cmocka_unit_test(the_largest_cluster_is_planned),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
