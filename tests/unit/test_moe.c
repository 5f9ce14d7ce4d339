/* SPDX-License-Identifier: Apache-2.0 */
/* Dispatch: rows and pairs go once to each node, in messages of bounded size, when there is
 * somebody to go to. Combine: each answer is added once, whoever gives it and however late; each
 * refusal of a node is taken for what it is. */
#include "common/base/log.h"
#include "tests/support/moe_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t everywhere[MOE_EXPERTS] = { 7, 7, 7, 7, 7, 7 };
static const uint8_t spread[MOE_EXPERTS] = { 1, 1, 2, 2, 4, 4 };
static const uint8_t on_two[MOE_EXPERTS] = { 3, 3, 3, 3, 3, 3 };
static const uint8_t on_first[MOE_EXPERTS] = { 1, 1, 1, 1, 1, 1 };
static const uint8_t on_second[MOE_EXPERTS] = { 2, 2, 2, 2, 2, 2 };
static const uint8_t nowhere[MOE_EXPERTS] = { 0 };

static uint32_t calls(const struct moe_world *world)
{
	uint32_t count = 0;
	for (uint32_t n = 0; n < MOE_NODES; n++)
		count += world->nodes[n].calls;
	return count;
}

static uint64_t retried(const struct moe_world *world) { return atomic_load(&world->exchange.stats.retried); }

/* ---- dispatch ---- */

static void a_row_goes_once_to_each_node(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, spread);
	moe_connect(&world);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);

	/* Experts r and r + 1: every other row has both on one node. */
	uint32_t rows = 0;
	for (uint32_t n = 0; n < MOE_NODES; n++) {
		assert_int_equal(world.nodes[n].calls, 1);
		rows += world.nodes[n].rows;
	}
	assert_int_equal(rows, MOE_ROWS + MOE_ROWS / 2);
	assert_int_equal(world.sequences[0]->usage.nodes_touched, 1);
	assert_int_equal(world.sequences[1]->usage.nodes_touched, 2);
	assert_string_equal(world.node_ids[1 * MOE_TOPK], "n0");
	assert_string_equal(world.node_ids[1 * MOE_TOPK + 1], "n1");
	assert_int_equal(retried(&world), 0);
	moe_world_close(&world);
}

static void more_rows_than_a_call_carries(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, on_first);
	moe_connect(&world);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_int_equal(world.nodes[0].calls, 2); /* 8 rows and 4 */
	assert_int_equal(world.nodes[0].rows, MOE_ROWS);
	moe_world_close(&world);
}

static void dropped_slots_are_owed_nothing(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	for (uint32_t i = 0; i < MOE_ROWS * MOE_TOPK; i += 3)
		world.ids[i] = -1;
	world.ids[2 * MOE_TOPK] = world.ids[2 * MOE_TOPK + 1] = -1; /* a row with none left goes nowhere */
	moe_publish(&world, on_first);
	moe_connect(&world);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_int_equal(world.nodes[0].rows, MOE_ROWS - 1);
	assert_null(world.node_ids[2 * MOE_TOPK]);
	moe_world_close(&world);
}

static void publish_on_first(struct moe_world *world)
{
	world->idle = NULL;
	moe_publish(world, on_first);
}

/* Nobody holds the experts: the wait goes on until a map says who does. */
static void rows_wait_for_a_map(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, nowhere);
	moe_connect(&world);
	moe_dispatch(&world);
	assert_int_equal(world.work.open, MOE_ROWS * MOE_TOPK);
	world.idle = publish_on_first;
	moe_wait(&world);
	moe_expect_all(&world);
	assert_null(world.idle);
	assert_int_equal(calls(&world), 2);
	moe_world_close(&world);
}

/* ---- refusals ---- */

/* BUSY: the rows are sent again, after a pause; here somebody else has them, too. */
static void busy_rows_are_sent_again(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, on_first);
	moe_connect(&world);
	moe_say(&world, 0, CADRE_WIRE_BUSY, 4); /* both calls, twice */
	uint64_t began = moe_now(&world);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_int_equal(retried(&world), 4);
	assert_int_equal(world.nodes[0].answered, 2);
	uint64_t took = moe_now(&world) - began;
	assert_true(took >= 2 * 2 * CAD_NS_PER_MS && took < MOE_TIMEOUT_MS * CAD_NS_PER_MS);
	moe_world_close(&world);
}

static void a_busy_node_is_not_the_only_one(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, on_two);
	moe_connect(&world);
	moe_say(&world, 0, CADRE_WIRE_BUSY, MOE_SCRIPT_MAX);
	moe_say(&world, 1, CADRE_WIRE_BUSY, 1);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_true(retried(&world) >= 2 && world.nodes[1].answered > 0);
	moe_world_close(&world);
}

static void publish_on_second(struct moe_world *world)
{
	if (world->nodes[0].said < 2)
		return;
	world->idle = NULL;
	moe_publish(world, on_second);
}

/* NOT_HELD: the expert has moved; the map that says so comes meanwhile, and is looked at. */
static void not_held_rows_follow_the_map(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, on_first);
	moe_connect(&world);
	moe_say(&world, 0, CADRE_WIRE_NOT_HELD, MOE_SCRIPT_MAX);
	world.idle = publish_on_second;
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_true(world.nodes[0].calls == 2 && world.nodes[0].answered == 0);
	assert_int_equal(world.nodes[1].answered, 2);
	assert_string_equal(world.node_ids[0], "n1");
	moe_world_close(&world);
}

/* Without a new map the node is asked again, but not at once. */
static void not_held_and_no_new_map(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, on_first);
	moe_connect(&world);
	moe_say(&world, 0, CADRE_WIRE_NOT_HELD, 2);
	uint64_t began = moe_now(&world);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_true(moe_now(&world) - began >= 5 * CAD_NS_PER_MS);
	moe_world_close(&world);
}

static void an_expired_call_is_made_again(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, on_first);
	moe_connect(&world);
	moe_say(&world, 0, CADRE_WIRE_EXPIRED, 1);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_int_equal(retried(&world), 1);
	assert_int_equal(world.nodes[0].calls, 3);
	moe_world_close(&world);
}

/* A node that says that it cannot: the rows' requests fail with a sentence, and no others. */
static void a_node_that_fails_dooms_its_rows_alone(void **state)
{
	(void)state;
	static const struct {
		uint8_t status;
		const char *sentence;
	} table[] = {
		{ CADRE_WIRE_BAD_CALL, "layer 1 on node 'n0': the node says that the call does not fit its model (7)" },
		{ CADRE_WIRE_INTERNAL, "layer 1 on node 'n0': the node failed (7)" },
	};
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		struct moe_world world;
		moe_world_open(&world);
		moe_publish(&world, on_first);
		moe_connect(&world);
		moe_say(&world, 0, table[i].status, 1); /* the first call: rows 0 to 7 */
		moe_dispatch(&world);
		moe_wait(&world);
		for (uint32_t row = 0; row < MOE_ROWS; row++) {
			bool doomed = row < MOE_ROWS_OF_A_CALL;
			assert_int_equal(world.sequences[row]->doomed, doomed ? CAD_ERR_INTERNAL : CAD_OK);
			if (doomed)
				assert_string_equal(world.sequences[row]->doom, table[i].sentence);
			if (doomed)
				moe_expect_nothing(&world, row);
			else
				moe_expect_row(&world, row);
		}
		assert_int_equal(world.nodes[0].calls, 2);
		moe_world_close(&world);
	}
}

/* ---- silence and loss ---- */

/* The call's deadline passes; its rows go out again, and the answer that comes in
 * the end counts for nothing. */
static void a_late_answer_counts_for_nothing(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, on_first);
	moe_connect(&world);
	moe_say(&world, 0, MOE_SILENCE, 1);
	uint64_t began = moe_now(&world);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_true(moe_now(&world) - began >= MOE_TIMEOUT_MS * CAD_NS_PER_MS);
	assert_int_equal(retried(&world), 1);
	moe_answer_late(&world.nodes[0]);
	cad_transport_poll(world.exchange.transport, moe_now(&world) + 20 * CAD_NS_PER_MS);
	assert_int_equal(world.nodes[0].answered, 3);
	moe_expect_all(&world);
	moe_world_close(&world);
}

/* From its dispatch until nothing is owed for it. */
static uint64_t time_of_a_work(struct moe_world *world)
{
	uint64_t began = moe_now(world);
	moe_dispatch(world);
	moe_wait(world);
	return moe_now(world) - began;
}

/* What the node's calls have taken so far decides when one is given up: long before the timeout,
 * and the next call for the same rows has all of it. */
static void deadlines_are_measured(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	world.exchange.call_timeout_ns = 10 * CAD_NS_PER_S;
	moe_publish(&world, on_first);
	moe_connect(&world);
	for (int i = 0; i < 40; i++)
		assert_true(time_of_a_work(&world) < 5 * CAD_NS_PER_MS);
	assert_in_range(rt_route_table_p99_ns(&world.exchange.routes), 20 * CAD_NS_PER_US, 2 * CAD_NS_PER_MS);
	moe_say(&world, 0, MOE_SILENCE, 2); /* both calls of a work */
	assert_in_range(time_of_a_work(&world), 2 * CAD_NS_PER_S, 3 * CAD_NS_PER_S);
	assert_int_equal(retried(&world), 2);
	moe_say(&world, 0, MOE_SILENCE, 4); /* the same two again, and the two that follow */
	assert_in_range(time_of_a_work(&world), 12 * CAD_NS_PER_S, 13 * CAD_NS_PER_S);
	moe_world_close(&world);
}

static void crash_first(struct moe_world *world)
{
	if (world->nodes[0].kept_count == 0)
		return;
	world->idle = NULL;
	cad_sim_crash(world->sim, world->nodes[0].transport);
}

static void a_peer_that_is_lost_in_the_middle(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, everywhere);
	moe_connect(&world);
	for (uint32_t n = 0; n < MOE_NODES; n++)
		moe_say(&world, n, n == 0 ? MOE_SILENCE : CADRE_WIRE_OK, MOE_SCRIPT_MAX);
	world.idle = crash_first;
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_true(world.nodes[0].kept_count > 0 && world.nodes[0].answered == 0);
	moe_world_close(&world);
}

/* What a lost connection had under way is open again, by the map and the connections of then. */
static void cut_first(struct moe_world *world)
{
	struct rt_route_table *routes = &world->exchange.routes;
	if (world->nodes[0].kept_count == 0)
		return;
	world->idle = NULL;
	cad_connection_close(routes->peers[routes->node_peer[0]].connection, CAD_ERR_CANCELLED, "cut by the test");
}

static void a_connection_that_is_closed_in_the_middle(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, on_first); /* nobody else: it must connect again */
	moe_connect(&world);
	moe_say(&world, 0, MOE_SILENCE, 2);
	world.idle = cut_first;
	uint64_t began = moe_now(&world);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_int_equal(retried(&world), 2);
	assert_true(moe_now(&world) - began < 2000 * CAD_NS_PER_MS);
	moe_world_close(&world);
}

/* ---- requests that end while they wait ---- */

static void doom_first(struct moe_world *world)
{
	world->idle = NULL;
	for (uint32_t row = 1; row < MOE_ROWS; row++)
		rt_sequence_doom(world->sequences[row], CAD_ERR_CANCELLED, "cancelled");
}

static void doomed_rows_are_not_waited_for(void **state)
{
	(void)state;
	struct moe_world world;
	moe_world_open(&world);
	moe_publish(&world, nowhere);
	moe_connect(&world);
	world.sequences[0]->request.deadline_ns = moe_now(&world) + 300 * CAD_NS_PER_MS;
	world.idle = doom_first;
	moe_dispatch(&world);
	moe_wait(&world);
	assert_int_equal(world.sequences[0]->doomed, CAD_ERR_DEADLINE);
	assert_non_null(strstr(world.sequences[0]->doom, "waiting for experts of layer 1"));
	assert_int_equal(world.sequences[1]->doomed, CAD_ERR_CANCELLED);
	assert_int_equal(calls(&world), 0);
	moe_world_close(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_row_goes_once_to_each_node),
		cmocka_unit_test(more_rows_than_a_call_carries),
		cmocka_unit_test(dropped_slots_are_owed_nothing),
		cmocka_unit_test(rows_wait_for_a_map),
		cmocka_unit_test(busy_rows_are_sent_again),
		cmocka_unit_test(a_busy_node_is_not_the_only_one),
		cmocka_unit_test(not_held_rows_follow_the_map),
		cmocka_unit_test(not_held_and_no_new_map),
		cmocka_unit_test(an_expired_call_is_made_again),
		cmocka_unit_test(a_node_that_fails_dooms_its_rows_alone),
		cmocka_unit_test(a_late_answer_counts_for_nothing),
		cmocka_unit_test(deadlines_are_measured),
		cmocka_unit_test(a_peer_that_is_lost_in_the_middle),
		cmocka_unit_test(a_connection_that_is_closed_in_the_middle),
		cmocka_unit_test(doomed_rows_are_not_waited_for),
	};
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT); /* lost connections are the point here */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
