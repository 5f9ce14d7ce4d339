/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole cluster in virtual time: real engines, a simulated network that delays, loses, duplicates
 * and reorders, nodes that crash and stall, links that are cut one way.
 * Whatever happens, every request ends, and its digest is that of the request alone. One seed
 * decides everything; the seed of a failure is printed, and replays it.
 */
#include "common/base/log.h"
#include "tests/support/engines.h"
#include "tests/support/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL CADRE_SOURCE_DIR "/tests/golden/qwen3moe-b/model"
enum { REQUESTS = 4, VOCAB = 448, NODES = 3, SEEDS = 40, VIRTUAL_S_MAX = 60 };

static enum cad_status sim_transport(void *context, const struct cad_transport_options *options,
	struct cad_transport **transport, struct cad_error *error)
{
	return cad_transport_sim_create(options, context, transport, error);
}

struct world {
	struct cad_sim *sim;
	struct te_cluster cluster;
	struct te_request requests[REQUESTS];
	struct cad_random random;
	uint32_t victim;
};

static struct te_request expected[REQUESTS];

static int prepare(void **state)
{
	(void)state;
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT); /* lost connections are the point here */
	te_requests(expected, REQUESTS, VOCAB, 7);
	te_expected(MODEL, expected, REQUESTS);
	return 0;
}

static void begin(struct world *world, uint64_t seed, const struct cad_sim_options *network)
{
	*world = (struct world){ .random = { seed } };
	assert_int_equal(cad_sim_create(network, &world->sim), CAD_OK);
	te_create(&world->cluster, MODEL, NODES, 1, seed, false, cad_sim_clock(world->sim), sim_transport, world->sim);
	te_requests(world->requests, REQUESTS, VOCAB, 7);
	for (uint32_t i = 0; i < REQUESTS; i++)
		te_submit(&world->cluster, 0, &world->requests[i]);
}

/* Until all ended; false when virtual time runs out. */
static bool run(struct world *world)
{
	const struct cad_clock *clock = cad_sim_clock(world->sim);
	uint64_t end = cad_clock_now_ns(clock) + VIRTUAL_S_MAX * CAD_NS_PER_S;
	while (!te_all_ended(world->requests, REQUESTS) && cad_clock_now_ns(clock) < end)
		rt_engine_turn(world->cluster.routers[0], cad_clock_now_ns(clock) + 10 * CAD_NS_PER_MS);
	return te_all_ended(world->requests, REQUESTS);
}

static void finish(struct world *world, uint64_t seed)
{
	bool ended = run(world);
	bool same = ended;

	for (uint32_t i = 0; ended && i < REQUESTS; i++)
		same = same && world->requests[i].status == CAD_OK &&
			memcmp(world->requests[i].digest, expected[i].digest, 16) == 0;
	if (!same)
		print_error("seed %llu: %s\n", (unsigned long long)seed,
			ended ? "a digest differs, or a request failed" : "a request did not end");
	te_destroy(&world->cluster);
	cad_sim_destroy(world->sim);
	assert_true(same);
}

static struct cad_sim_options network(uint64_t seed, double trouble)
{
	return (struct cad_sim_options){
		.seed = seed,
		.delay_min_ns = 10 * CAD_NS_PER_US,
		.delay_max_ns = 2 * CAD_NS_PER_MS,
		.loss = trouble,
		.duplicate = trouble,
		.reorder = 4 * trouble,
	};
}

static void a_bad_network(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world world;
		struct cad_sim_options bad = network(seed, 0.01);
		begin(&world, seed, &bad);
		finish(&world, seed);
	}
}

/* What the placement service does when a lease has run out. */
static void notice(void *context)
{
	struct world *world = context;
	te_reassign(&world->cluster, world->victim);
}

static void crash(void *context)
{
	struct world *world = context;
	cad_sim_crash(world->sim, world->cluster.nodes[world->victim].transport);
	assert_int_equal(
		cad_sim_at(world->sim, cad_clock_now_ns(cad_sim_clock(world->sim)) + 80 * CAD_NS_PER_MS, notice, world),
		CAD_OK);
}

static void a_node_crashes(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world world;
		struct cad_sim_options quiet = network(seed, 0);
		begin(&world, seed, &quiet);
		world.victim = (uint32_t)cad_random_below(&world.random, NODES);
		uint64_t when = cad_clock_now_ns(cad_sim_clock(world.sim)) +
			cad_random_below(&world.random, 60 * CAD_NS_PER_MS);
		assert_int_equal(cad_sim_at(world.sim, when, crash, &world), CAD_OK);
		finish(&world, seed);
	}
}

static void stall(void *context)
{
	struct world *world = context;
	cad_sim_stall(world->sim, world->cluster.nodes[world->victim].transport, 40 * CAD_NS_PER_MS);
}

/* Longer than a call may take, or shorter than the heartbeat: either way it comes back, and late
 * answers count for nothing. */
static void nodes_stall(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world world;
		struct cad_sim_options quiet = network(seed, 0);
		begin(&world, seed, &quiet);
		world.victim = (uint32_t)cad_random_below(&world.random, NODES);
		for (int i = 0; i < 5; i++)
			assert_int_equal(cad_sim_at(world.sim,
						 cad_clock_now_ns(cad_sim_clock(world.sim)) +
							 cad_random_below(&world.random, 200 * CAD_NS_PER_MS),
						 stall, &world),
				CAD_OK);
		finish(&world, seed);
	}
}

/* ---- with copies, late calls are hedged ---- */

/* How long calls take is known after the same requests once. */
static void begin_with_copies(struct world *world, uint64_t seed, const struct cad_sim_options *network)
{
	begin(world, seed, network);
	te_copy(&world->cluster);
	for (int i = 0; i < 3; i++) {
		assert_true(run(world));
		for (uint32_t r = 0; r < REQUESTS; r++)
			te_submit(&world->cluster, 0, &world->requests[r]);
	}
	world->victim = (uint32_t)cad_random_below(&world->random, NODES);
}

static void at_random(struct world *world, uint64_t within_ms, void (*fn)(void *context))
{
	const struct cad_clock *clock = cad_sim_clock(world->sim);
	uint64_t at_ns = cad_clock_now_ns(clock) + cad_random_below(&world->random, within_ms * CAD_NS_PER_MS);
	assert_int_equal(cad_sim_at(world->sim, at_ns, fn, world), CAD_OK);
}

static void add_stats(const struct world *world, struct rt_engine_stats *all)
{
	struct rt_engine_stats stats;
	rt_engine_stats(world->cluster.routers[0], &stats);
	all->calls_hedged += stats.calls_hedged;
	all->hedges_won += stats.hedges_won;
	all->calls_late += stats.calls_late;
}

/* Shorter than the heartbeat: the node comes back and answers what nobody waits for. */
static void hang(void *context)
{
	struct world *world = context;
	cad_sim_stall(world->sim, world->cluster.nodes[world->victim].transport, 300 * CAD_NS_PER_MS);
}

static void slow(void *context)
{
	struct world *world = context;
	cad_sim_stall(world->sim, world->cluster.nodes[world->victim].transport, 25 * CAD_NS_PER_MS);
}

/* Every kind of trouble at once: a node that hangs, nodes that are slow, a network that loses and
 * reorders. Losers are out when the engine goes. */
static void hedges_change_no_bit(void **state)
{
	(void)state;
	struct rt_engine_stats all = { 0 };
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world world;
		struct cad_sim_options bad = network(seed, seed % 2 ? 0 : 0.01);
		begin_with_copies(&world, seed, &bad);
		at_random(&world, 40, hang);
		for (int i = 0; i < 4; i++)
			at_random(&world, 200, slow);
		assert_true(run(&world));
		add_stats(&world, &all);
		finish(&world, seed);
	}
	assert_true(all.calls_hedged > 0 && all.hedges_won > 0);
}

/* Whoever hangs, with copies the requests do not wait for the heartbeat: 1.3 s. */
static void a_hung_node_is_not_waited_for(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world world;
		struct cad_sim_options quiet = network(seed, 0);
		begin_with_copies(&world, seed, &quiet);
		hang(&world);
		uint64_t began = cad_clock_now_ns(cad_sim_clock(world.sim));
		assert_true(run(&world));
		uint64_t took_ms = (cad_clock_now_ns(cad_sim_clock(world.sim)) - began) / CAD_NS_PER_MS;
		if (took_ms > 200)
			fail_msg("seed %llu: %llu ms", (unsigned long long)seed, (unsigned long long)took_ms);
		finish(&world, seed);
	}
}

/* A map that names nobody for some experts: the request waits, and ends at its own deadline, not
 * before. */
static void waiting_ends_at_the_deadline(void **state)
{
	(void)state;
	struct world world;
	struct cad_sim_options quiet = network(5, 0);
	begin(&world, 5, &quiet);
	assert_true(run(&world));
	for (uint32_t i = 0; i < NODES; i++)
		world.cluster.nodes[i].live = false;
	te_publish(&world.cluster);
	uint64_t now = cad_clock_now_ns(cad_sim_clock(world.sim));
	world.requests[0].deadline_ns = now + 700 * CAD_NS_PER_MS;
	te_submit(&world.cluster, 0, &world.requests[0]);
	assert_true(run(&world));
	assert_int_equal(world.requests[0].status, CAD_ERR_DEADLINE);
	assert_non_null(strstr(world.requests[0].text, "deadline"));
	uint64_t took = cad_clock_now_ns(cad_sim_clock(world.sim)) - now;
	assert_in_range(took, 700 * CAD_NS_PER_MS, 900 * CAD_NS_PER_MS);
	te_destroy(&world.cluster);
	cad_sim_destroy(world.sim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bad_network),
		cmocka_unit_test(a_node_crashes),
		cmocka_unit_test(nodes_stall),
		cmocka_unit_test(hedges_change_no_bit),
		cmocka_unit_test(a_hung_node_is_not_waited_for),
		cmocka_unit_test(waiting_ends_at_the_deadline),
	};
	return cmocka_run_group_tests(tests, prepare, NULL);
}
