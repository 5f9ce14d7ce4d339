/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes and copies that are left out of the choice, in virtual time: breakers that open, probes
 * that cost no request anything, what closes them, and last copies, which are always used. */
#include "common/base/log.h"
#include "router-svc/moe/health.h"
#include "tests/support/moe_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t everywhere[MOE_EXPERTS] = { 7, 7, 7, 7, 7, 7 };
static const uint8_t on_two[MOE_EXPERTS] = { 3, 3, 3, 3, 3, 3 };
static const uint8_t on_others[MOE_EXPERTS] = { 6, 6, 6, 6, 6, 6 };
static const uint8_t on_first[MOE_EXPERTS] = { 1, 1, 1, 1, 1, 1 };

static struct rt_route_table *routes(struct moe_world *world) { return &world->exchange.routes; }

static struct rt_peer *peer(struct moe_world *world, uint32_t node)
{
	return &routes(world)->peers[routes(world)->node_peer[node]];
}

static void begin(struct moe_world *world, const uint8_t holders[MOE_EXPERTS])
{
	moe_world_open(world);
	moe_publish(world, holders);
	moe_connect(world);
}

/* Until half of the last calls of the first node were refused. */
static void open_first(struct moe_world *world)
{
	for (int i = 0; i < 20 && peer(world, 0)->breaker.state == RT_BREAKER_CLOSED; i++) {
		moe_say(world, 0, CADRE_WIRE_BUSY, MOE_SCRIPT_MAX);
		moe_run(world);
	}
	moe_say(world, 0, CADRE_WIRE_OK, 0);
	assert_int_equal(peer(world, 0)->breaker.state, RT_BREAKER_OPEN);
	assert_int_equal(routes(world)->breakers, 1);
}

static void a_node_that_refuses_is_left_out(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	open_first(&world);
	uint32_t calls = world.nodes[0].calls;
	for (int i = 0; i < 10; i++)
		assert_true(moe_run(&world) < 2);
	assert_int_equal(world.nodes[0].calls, calls);
	assert_true(world.sequences[0]->usage.rows_diverted >= 10);

	/* after a second, three probes beside three works, and it is one of them again */
	moe_pass(&world, 1000);
	for (int i = 0; i < 3; i++) {
		assert_true(moe_run(&world) < 2);
		moe_pass(&world, 2);
		assert_int_equal(world.nodes[0].calls, calls + (uint32_t)i + 1);
	}
	assert_int_equal(atomic_load(&world.exchange.stats.probes), 3);
	assert_int_equal(peer(&world, 0)->breaker.state, RT_BREAKER_CLOSED);
	assert_int_equal(routes(&world)->breakers, 0);
	for (int i = 0; i < 5; i++)
		moe_run(&world);
	assert_true(world.nodes[0].calls > calls + 4);
	assert_int_equal(world.exchange.shipments_used, 0);
	moe_world_close(&world);
}

/* The node does not answer its probe: nobody waits for it, there is one at a time, and
 * it is left out for longer. */
static void a_probe_costs_no_request_anything(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	open_first(&world);
	moe_pass(&world, 1000);
	uint32_t calls = world.nodes[0].calls;
	moe_say(&world, 0, MOE_SILENCE, 1);
	for (int i = 0; i < 10; i++)
		assert_true(moe_run(&world) < 2);
	assert_int_equal(world.nodes[0].calls, calls + 1);
	moe_pass(&world, 1000);
	assert_int_equal(peer(&world, 0)->breaker.state, RT_BREAKER_OPEN);
	assert_int_equal(peer(&world, 0)->breaker.open_ms, 2000);
	moe_answer_late(&world.nodes[0]);
	moe_pass(&world, 10);
	assert_int_equal(world.exchange.shipments_used, 0);
	moe_expect_all(&world);
	moe_world_close(&world);
}

/* A call of the first node. */
static void ended(struct moe_world *world, const struct rt_call_end *end)
{
	struct rt_call_end now = *end;
	now.now_ns = moe_now(world);
	rt_route_table_sent(routes(world), peer(world, 0), end->pairs);
	rt_route_table_ended(routes(world), peer(world, 0), &now);
}

static void calls_that_take_long_open_it(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	const struct rt_call_end slow = { .took = true, .rows = 2, .ns = 600 * CAD_NS_PER_MS },
				 fast = { .took = true, .rows = 2, .ns = CAD_NS_PER_MS };
	for (int i = 0; i < 100; i++)
		ended(&world, &slow);
	assert_int_equal(routes(&world)->breakers, 0); /* no limit was set */
	routes(&world)->breaker_p99_ns = 500 * CAD_NS_PER_MS;
	ended(&world, &slow);
	assert_int_equal(peer(&world, 0)->breaker.cause, RT_BREAKER_SLOW);
	assert_int_equal(routes(&world)->breakers, 1);

	struct rt_health *health = malloc(sizeof *health);
	rt_health_init(health);
	rt_health_fill(health, routes(&world));
	const struct rt_health_view *view = rt_health_look(health);
	assert_int_equal(view->count, 1);
	assert_string_equal(view->breakers[0].node, "n0");
	assert_string_equal(view->breakers[0].why, "99 of 100 calls take up to 671 ms");
	assert_false(view->breakers[0].half_open || view->breakers[0].of_copy);
	free(health);

	moe_pass(&world, 1000);
	moe_run(&world); /* half open */
	moe_pass(&world, 2);
	for (int i = 0; i < 2; i++)
		ended(&world, &fast);
	assert_int_equal(routes(&world)->breakers, 0);
	ended(&world, &fast); /* what it took before is forgotten */
	assert_int_equal(routes(&world)->breakers, 0);
	moe_world_close(&world);
}

/* Its connection is well, but it answers no call: late, given up, and then its breaker, so that it
 * is asked seldom and no work waits for it. */
static void a_node_that_never_answers(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	world.exchange.call_timeout_ns = 10 * CAD_NS_PER_S;
	world.exchange.hedge_share = RT_HEDGE_CALL;
	for (int i = 0; i < 40; i++)
		moe_run(&world);
	uint32_t calls = world.nodes[0].calls;
	moe_say(&world, 0, MOE_SILENCE, MOE_SCRIPT_MAX);
	for (int i = 0; i < 200; i++) {
		assert_true(moe_run(&world) <= 25);
		moe_pass(&world, 100);
	}
	assert_in_range(world.nodes[0].calls - calls, 3, MOE_SCRIPT_MAX);
	assert_int_not_equal(peer(&world, 0)->breaker.state, RT_BREAKER_CLOSED);
	assert_true(peer(&world, 0)->ready);
	moe_world_close(&world);
}

/* A node whose breaker is open goes, and calls that were under way are lost after that:
 * neither counts any longer, and the others are chosen as if it had never been there. When
 * it is back it begins anew. */
static void a_node_that_is_gone_leaves_no_breaker(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	open_first(&world);
	struct rt_peer *gone = peer(&world, 0);
	for (int i = 0; i < 3; i++)
		rt_route_table_sent(routes(&world), gone, MOE_TOPK);

	moe_publish_live(&world, on_others, 6);
	assert_int_equal(routes(&world)->breakers, 0);
	moe_run(&world);
	assert_false(routes(&world)->favours);

	const struct rt_call_end lost = { .failed = true, .rows = 1, .pairs = MOE_TOPK, .now_ns = moe_now(&world) };
	for (int i = 0; i < 3; i++)
		rt_route_table_ended(routes(&world), gone, &lost);
	assert_int_equal(routes(&world)->breakers, 0);

	moe_publish(&world, everywhere);
	moe_connect(&world);
	assert_int_equal(peer(&world, 0)->breaker.state, RT_BREAKER_CLOSED);
	assert_int_equal(routes(&world)->breakers_opened, 1);
	moe_world_close(&world);
}

static void the_last_copy_is_always_used(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, on_first);
	open_first(&world);
	uint32_t calls = world.nodes[0].calls;
	assert_true(moe_run(&world) < 2);
	assert_int_equal(world.nodes[0].calls, calls + 2);
	assert_int_equal(world.sequences[0]->usage.rows_diverted, 0);
	moe_world_close(&world);
}

/* ---- copies ---- */

/* A node that does not hold an expert is not asked for it again, and for
 * others it is; nobody waits. */
static void a_copy_that_is_not_there_is_left_out(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, on_two);
	for (uint32_t i = 0; i < MOE_ROWS * MOE_TOPK; i++)
		world.ids[i] = 4 + (int32_t)(i % MOE_TOPK);
	moe_say(&world, 0, CADRE_WIRE_NOT_HELD, 1);
	assert_true(moe_run(&world) < 2);
	assert_int_equal(routes(&world)->open_copies.count, 1);
	assert_int_equal(routes(&world)->open_copies.at[0].expert, 4);
	assert_int_equal(routes(&world)->breakers, 0);

	for (int i = 0; i < 5; i++) {
		assert_true(moe_run(&world) < 2);
		for (uint32_t row = 0; row < MOE_ROWS; row++)
			assert_string_equal(world.node_ids[row * MOE_TOPK], "n1");
	}

	/* after a second it is asked again, and has it now */
	moe_pass(&world, 1000);
	for (int i = 0; i < 5; i++)
		assert_true(moe_run(&world) < 2);
	assert_int_equal(routes(&world)->open_copies.count, 0);
	moe_world_close(&world);
}

/* Both say so: the last copy is used, as before, with a pause. A new map is news. */
static void copies_that_are_nowhere(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, on_two);
	for (uint32_t i = 0; i < MOE_ROWS * MOE_TOPK; i++)
		world.ids[i] = 4 + (int32_t)(i % MOE_TOPK);
	moe_say(&world, 0, CADRE_WIRE_NOT_HELD, 8);
	moe_say(&world, 1, CADRE_WIRE_NOT_HELD, 8);
	assert_in_range(moe_run(&world), 5, 60);
	assert_true(routes(&world)->open_copies.opened > 0);
	assert_int_equal(routes(&world)->open_copies.count, 0); /* all have answered in the end */
	assert_true(rt_route_table_not_held(routes(&world), peer(&world, 0), 1, 4));
	assert_false(rt_route_table_not_held(routes(&world), peer(&world, 0), 1, 4));
	assert_false(rt_route_table_not_held(routes(&world), peer(&world, 2), 1, 4)); /* the map says no more */
	assert_false(rt_route_table_not_held(routes(&world), peer(&world, 0), 1, 777));
	assert_int_equal(routes(&world)->open_copies.count, 1);
	moe_publish(&world, on_two);
	assert_int_equal(routes(&world)->open_copies.count, 0);
	assert_true(moe_run(&world) < 2);
	moe_world_close(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_node_that_refuses_is_left_out),
		cmocka_unit_test(a_probe_costs_no_request_anything),
		cmocka_unit_test(calls_that_take_long_open_it),
		cmocka_unit_test(a_node_that_never_answers),
		cmocka_unit_test(a_node_that_is_gone_leaves_no_breaker),
		cmocka_unit_test(the_last_copy_is_always_used),
		cmocka_unit_test(a_copy_that_is_not_there_is_left_out),
		cmocka_unit_test(copies_that_are_nowhere),
	};
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT); /* breakers are the point here */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
