/* SPDX-License-Identifier: Apache-2.0 */
/* Late calls in virtual time: rows go to copies too, the first answer counts and the other does
 * not, whichever it is and however late; what fails in part counts for nothing; the budget is
 * kept; a work may be gone while what lost is still out. */
#include "common/base/log.h"
#include "router-svc/moe/hedge.h"
#include "tests/support/moe_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t everywhere[MOE_EXPERTS] = { 7, 7, 7, 7, 7, 7 };
static const uint8_t on_two[MOE_EXPERTS] = { 3, 3, 3, 3, 3, 3 };
/* All rows go to n0, which alone has both of their experts; copies are on two nodes. */
static const uint8_t split[MOE_EXPERTS] = { 3, 5, 3, 5, 3, 5 };
static const uint8_t one_without_copy[MOE_EXPERTS] = { 3, 3, 3, 1, 3, 3 };

enum { WARM_UP = 40, AT_ONCE_MS = 30 };

static uint64_t value(const _Atomic uint64_t *counter) { return atomic_load(counter); }

/* How long calls take is known, and the budget is full. */
static void begin(struct moe_world *world, const uint8_t holders[MOE_EXPERTS])
{
	moe_world_open(world);
	world->exchange.call_timeout_ns = 10 * CAD_NS_PER_S;
	world->exchange.hedge_share = RT_HEDGE_CALL;
	moe_publish(world, holders);
	moe_connect(world);
	for (int i = 0; i < WARM_UP; i++)
		assert_true(moe_run(world) < AT_ONCE_MS);
	assert_int_equal(value(&world->exchange.stats.late), 0);
}

/* What is still out ends, and changes nothing; nothing is in use then. */
static void end(struct moe_world *world)
{
	for (uint32_t n = 0; n < MOE_NODES; n++)
		moe_answer_late(&world->nodes[n]);
	moe_pass(world, 50);
	assert_int_equal(world->exchange.shipments_used, 0);
	assert_int_equal(world->exchange.routes.late, 0);
	moe_expect_all(world);
	moe_world_close(world);
}

/* ---- who is first ---- */

static void a_late_call_is_hedged(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	moe_say(&world, 0, MOE_SILENCE, 1);
	assert_in_range(moe_run(&world), 10, 20);
	assert_int_equal(world.nodes[0].kept_count, 1);
	assert_int_equal(value(&world.exchange.stats.hedged), 1);
	assert_int_equal(value(&world.exchange.stats.hedges_won), 1);
	assert_int_equal(value(&world.exchange.stats.retried), 0);
	assert_int_equal(world.exchange.shipments_used, 1);
	uint64_t hedged = 0, won = 0;
	for (uint32_t row = 0; row < MOE_ROWS; row++) {
		hedged += world.sequences[row]->usage.calls_hedged;
		won += world.sequences[row]->usage.hedges_won;
		assert_string_not_equal(world.node_ids[row * MOE_TOPK], "n0");
	}
	assert_true(hedged > 0 && hedged == won);
	end(&world);
}

/* The late one answers when the hedge has been sent, and before it is answered. */
static void answer_first(struct moe_world *world)
{
	if (world->nodes[0].kept_count == 0 || world->nodes[1].kept_count == 0)
		return;
	world->idle = NULL;
	moe_answer_late(&world->nodes[0]);
}

static void the_late_call_may_be_first_after_all(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, on_two);
	moe_say(&world, 0, MOE_SILENCE, 2);
	moe_say(&world, 1, MOE_SILENCE, 4);
	world.idle = answer_first;
	moe_dispatch(&world);
	moe_clear_sums(&world);
	moe_say(&world, 1, CADRE_WIRE_OK, 0);
	moe_wait(&world);
	moe_say(&world, 1, CADRE_WIRE_OK, 0);
	moe_expect_all(&world);
	end(&world);
}

static struct cad_random order;

static void answer(void *context) { moe_answer_late(context); }

/* All nodes answer within a moment, in any order: each pair is added once. */
static void answer_all_soon(struct moe_world *world)
{
	if (value(&world->exchange.stats.hedged) < 2)
		return;
	world->idle = NULL;
	for (uint32_t n = 0; n < MOE_NODES; n++) {
		uint64_t at_ns = moe_now(world) + CAD_NS_PER_MS + cad_random_below(&order, 200 * CAD_NS_PER_US);
		assert_int_equal(cad_sim_at(world->sim, at_ns, answer, &world->nodes[n]), CAD_OK);
	}
}

static void both_answers_at_once(void **state)
{
	(void)state;
	uint64_t first = 0, hedge = 0;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct moe_world world;
		begin(&world, split);
		order = (struct cad_random){ seed };
		for (uint32_t n = 0; n < MOE_NODES; n++)
			moe_say(&world, n, MOE_SILENCE, 2);
		world.idle = answer_all_soon;
		assert_in_range(moe_run(&world), 10, 20);
		first += value(&world.exchange.stats.hedged) - value(&world.exchange.stats.hedges_won);
		hedge += value(&world.exchange.stats.hedges_won);
		end(&world);
	}
	assert_true(first > 0 && hedge > 0); /* or the test does not test what it says */
}

/* ---- a hedge over two nodes counts as a whole ---- */

static void a_hedge_over_two_nodes(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, split);
	uint32_t before[2] = { world.nodes[1].answered, world.nodes[2].answered };
	moe_say(&world, 0, MOE_SILENCE, 2);
	assert_in_range(moe_run(&world), 10, 20);
	assert_int_equal(value(&world.exchange.stats.hedges_won), 2);
	assert_int_equal(value(&world.exchange.stats.hedge_calls), 4);
	assert_int_equal(world.nodes[1].answered - before[0], 2);
	assert_int_equal(world.nodes[2].answered - before[1], 2);
	end(&world);
}

static void answer_first_when_half_of_the_hedge_is_there(struct moe_world *world)
{
	if (world->nodes[2].kept_count < 2)
		return;
	world->idle = NULL;
	moe_answer_late(&world->nodes[0]);
}

/* n1 has answered its half, n2 has not: the late call's own answer comes, and n1's counts for
 * nothing. */
static void half_a_hedge_counts_for_nothing(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, split);
	moe_say(&world, 0, MOE_SILENCE, 2);
	moe_say(&world, 2, MOE_SILENCE, 2);
	world.idle = answer_first_when_half_of_the_hedge_is_there;
	assert_in_range(moe_run(&world), 10, 30);
	assert_int_equal(value(&world.exchange.stats.hedged), 2);
	assert_int_equal(value(&world.exchange.stats.hedges_won), 0);
	end(&world);
}

/* ---- failures ---- */

/* The hedge is refused; the next one is not. */
static void a_refused_hedge_is_tried_again(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, on_two);
	moe_say(&world, 0, MOE_SILENCE, 1);
	moe_say(&world, 1, CADRE_WIRE_BUSY, 0);
	moe_dispatch(&world);
	moe_clear_sums(&world);
	moe_say(&world, 1, CADRE_WIRE_BUSY, 2); /* three in a row would open its breaker */
	moe_wait(&world);
	for (int i = 0; i < 2; i++)
		assert_in_range(moe_run(&world), 0, 60);
	assert_true(value(&world.exchange.stats.hedges_won) > 0);
	end(&world);
}

static void cut_first(struct moe_world *world)
{
	struct rt_route_table *routes = &world->exchange.routes;
	if (world->nodes[1].kept_count == 0 || world->nodes[2].kept_count == 0)
		return;
	world->idle = NULL;
	cad_connection_close(routes->peers[routes->node_peer[0]].connection, CAD_ERR_CANCELLED, "cut by the test");
}

static void answer_hedges_when_first_is_lost(struct moe_world *world)
{
	cut_first(world);
	if (world->idle || world->exchange.routes.peers[world->exchange.routes.node_peer[0]].shipments > 0) {
		world->idle = answer_hedges_when_first_is_lost;
		return;
	}
	moe_answer_late(&world->nodes[1]);
	moe_answer_late(&world->nodes[2]);
}

/* The late call's node is lost while the hedge is out: the hedge goes on alone, and nothing is
 * sent a third time. */
static void the_hedge_goes_on_alone(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, split);
	moe_say(&world, 0, MOE_SILENCE, 2);
	moe_say(&world, 1, MOE_SILENCE, 2);
	moe_say(&world, 2, MOE_SILENCE, 2);
	world.idle = answer_hedges_when_first_is_lost;
	assert_in_range(moe_run(&world), 10, 40);
	assert_int_equal(value(&world.exchange.stats.hedges_won), 2);
	assert_int_equal(value(&world.exchange.stats.retried), 0);
	end(&world);
}

/* Both are lost: the rows are open again, and go where there is a connection. */
static void crash_two(struct moe_world *world)
{
	if (world->nodes[1].kept_count == 0)
		return;
	world->idle = NULL;
	cad_sim_crash(world->sim, world->nodes[0].transport);
	cad_sim_crash(world->sim, world->nodes[1].transport);
}

static void a_hedge_that_is_late_is_hedged_elsewhere(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	for (uint32_t n = 0; n < MOE_NODES - 1; n++)
		moe_say(&world, n, MOE_SILENCE, MOE_SCRIPT_MAX);
	world.idle = crash_two;
	assert_in_range(moe_run(&world), 10, 60);
	assert_null(world.idle);
	for (int i = 0; i < 3; i++)
		assert_true(moe_run(&world) < AT_ONCE_MS);
	moe_pass(&world, 3000); /* heartbeats */
	assert_int_equal(world.exchange.shipments_used, 0);
	moe_expect_all(&world);
	moe_world_close(&world);
}

/* ---- the node ---- */

/* It gets nothing until it has answered, and then again. */
static void a_late_node_is_left_out_until_it_answers(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	moe_say(&world, 0, MOE_SILENCE, 1);
	moe_run(&world);
	uint32_t calls = world.nodes[0].calls;
	for (int i = 0; i < 10; i++)
		assert_true(moe_run(&world) < 5);
	assert_int_equal(world.nodes[0].calls, calls);
	assert_int_equal(world.sequences[0]->usage.rows_diverted, 10);
	moe_answer_late(&world.nodes[0]);
	moe_pass(&world, 5);
	for (int i = 0; i < 10; i++)
		assert_true(moe_run(&world) < 5);
	assert_true(world.nodes[0].calls > calls);
	end(&world);
}

static void publish_two(struct moe_world *world)
{
	world->idle = NULL;
	moe_publish(world, on_two);
}

/* An expert that only the late node has goes there all the same, and so do rows that cannot be
 * hedged. */
static void without_a_copy_there_is_no_hedge(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, one_without_copy);
	world.exchange.call_timeout_ns = 300 * CAD_NS_PER_MS;
	for (uint32_t i = 0; i < MOE_ROWS * MOE_TOPK; i++)
		world.ids[i] = 2 + (int32_t)(i % MOE_TOPK); /* 2 and 3 */
	moe_say(&world, 0, MOE_SILENCE, 2);
	assert_in_range(moe_run(&world), 300, 320);
	assert_int_equal(value(&world.exchange.stats.late), 2);
	assert_int_equal(value(&world.exchange.stats.hedged), 0);

	/* a map that comes meanwhile has a copy */
	moe_say(&world, 0, MOE_SILENCE, 2);
	world.idle = publish_two;
	assert_in_range(moe_run(&world), 10, 40);
	assert_int_equal(value(&world.exchange.stats.hedged), 2);
	end(&world);
}

/* ---- the budget ---- */

static void the_budget_is_kept(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	world.exchange.call_timeout_ns = 100 * CAD_NS_PER_MS;
	world.exchange.hedge_share = RT_HEDGE_CALL / 20;
	world.exchange.hedge_budget = 0;
	uint64_t calls = value(&world.exchange.stats.calls);
	for (int i = 0; i < 300; i++) {
		if (i % 2 == 0)
			moe_say(&world, (uint32_t)i / 2 % MOE_NODES, MOE_SILENCE, 1);
		moe_run(&world);
		for (uint32_t n = 0; n < MOE_NODES; n++)
			moe_answer_late(&world.nodes[n]);
		moe_pass(&world, 2);
	}
	uint64_t hedges = value(&world.exchange.stats.hedge_calls),
		 others = value(&world.exchange.stats.calls) - calls - hedges;
	assert_true(hedges > 0 && hedges <= others / 20);
	assert_true(value(&world.exchange.stats.hedges_refused) > 0);
	end(&world);
}

/* It has sent so few calls that 5 % of them are not yet the four that its hedges take. */
static void a_router_that_has_just_started_hedges(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	world.exchange.call_timeout_ns = 10 * CAD_NS_PER_S;
	world.exchange.hedge_share = RT_HEDGE_CALL / 20;
	moe_publish(&world, split);
	moe_connect(&world);
	while (rt_latency_late_ns(&world.exchange.routes.latency, 1) == UINT64_MAX)
		moe_run(&world);
	assert_true(value(&world.exchange.stats.calls) < 4 * 20);
	moe_say(&world, 0, MOE_SILENCE, 2);
	assert_in_range(moe_run(&world), 10, 20);
	assert_int_equal(value(&world.exchange.stats.hedge_calls), 4);
	end(&world);
}

static void no_budget_no_hedge(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	world.exchange.call_timeout_ns = 100 * CAD_NS_PER_MS;
	world.exchange.hedge_share = world.exchange.hedge_budget = 0;
	moe_say(&world, 0, MOE_SILENCE, 1);
	assert_in_range(moe_run(&world), 100, 120);
	assert_int_equal(value(&world.exchange.stats.late), 1);
	assert_int_equal(value(&world.exchange.stats.hedge_calls), 0);
	end(&world);
}

/* ---- memory ---- */

/* The work is over and its memory is somebody else's while what lost is still out. */
static void nothing_of_a_work_is_touched_after_its_end(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	moe_say(&world, 0, MOE_SILENCE, 1);
	moe_run(&world);
	struct rt_work work = world.work;
	memset(&world.work, 0xee, sizeof world.work);
	memset(world.slots, 0xee, sizeof world.slots);
	memset(world.node_ids, 0xee, sizeof world.node_ids);
	moe_answer_late(&world.nodes[0]);
	moe_pass(&world, 20);
	for (size_t i = 0; i < sizeof world.slots; i++)
		assert_int_equal(world.slots[i], 0xee);
	world.work = work;
	end(&world);
}

/* The router stops with losers out, and nobody answers them. */
static void stops_with_losers_out(void **state)
{
	(void)state;
	struct moe_world world;
	begin(&world, everywhere);
	moe_say(&world, 0, MOE_SILENCE, 1);
	moe_run(&world);
	assert_int_equal(world.exchange.shipments_used, 1);
	moe_world_close(&world);
}

/* Never more than half of the shipments are out for nothing, whatever is silent. */
static void half_of_the_shipments_stay(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct moe_world world;
		struct cad_random random = { seed };
		begin(&world, everywhere);
		world.exchange.call_timeout_ns = 400 * CAD_NS_PER_MS;
		for (int i = 0; i < 100; i++) {
			uint32_t node = (uint32_t)cad_random_below(&random, MOE_NODES);
			if (world.nodes[node].kept_count < MOE_SCRIPT_MAX - 2)
				moe_say(&world, node, MOE_SILENCE, (uint32_t)cad_random_below(&random, 3));
			moe_run(&world);
			assert_true(world.exchange.shipments_used <= world.exchange.shipments_count / 2);
			if (cad_random_below(&random, 4) == 0)
				moe_answer_late(&world.nodes[node]);
		}
		end(&world);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_late_call_is_hedged),
		cmocka_unit_test(the_late_call_may_be_first_after_all),
		cmocka_unit_test(both_answers_at_once),
		cmocka_unit_test(a_hedge_over_two_nodes),
		cmocka_unit_test(half_a_hedge_counts_for_nothing),
		cmocka_unit_test(a_refused_hedge_is_tried_again),
		cmocka_unit_test(the_hedge_goes_on_alone),
		cmocka_unit_test(a_hedge_that_is_late_is_hedged_elsewhere),
		cmocka_unit_test(a_late_node_is_left_out_until_it_answers),
		cmocka_unit_test(without_a_copy_there_is_no_hedge),
		cmocka_unit_test(the_budget_is_kept),
		cmocka_unit_test(a_router_that_has_just_started_hedges),
		cmocka_unit_test(no_budget_no_hedge),
		cmocka_unit_test(nothing_of_a_work_is_touched_after_its_end),
		cmocka_unit_test(stops_with_losers_out),
		cmocka_unit_test(half_of_the_shipments_stay),
	};
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT); /* lost connections are the point here */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
