/* SPDX-License-Identifier: Apache-2.0 */
/* Experts that nobody holds: rows wait for them, fail, or go on without them, by the policy; and
 * which policies a fingerprint names. */
#include "common/base/log.h"
#include "router-svc/moe/absent.h"
#include "tests/support/moe_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t spread[MOE_EXPERTS] = { 1, 1, 2, 2, 4, 4 };
static const uint8_t without_second[MOE_EXPERTS] = { 1, 1, 0, 0, 4, 4 };

/* Every node was connected, and held its experts; rows have experts (row,
 * row + 1), weights 1 and 3. */
static void open_world(struct moe_world *world, enum rt_absent_policy policy)
{
	moe_world_open(world);
	world->exchange.absent = policy;
	for (uint32_t row = 0; row < MOE_ROWS; row++)
		world->weights[row * MOE_TOPK + 1] = 3;
	moe_publish(world, spread);
	moe_connect(world);
}

static void expect_slot(const struct moe_world *world, uint32_t row, uint32_t slot, int32_t expert, float weight)
{
	assert_int_equal(world->ids[row * MOE_TOPK + slot], expert);
	assert_true(world->weights[row * MOE_TOPK + slot] == weight);
}

/* What is left of every row when experts 2 and 3 are absent. */
static void expect_renormalised(const struct moe_world *world)
{
	moe_expect_all(world);
	for (uint32_t row = 0; row < MOE_ROWS; row += MOE_EXPERTS) {
		expect_slot(world, row, 0, 0, 1);
		expect_slot(world, row, 1, 1, 3);
		expect_slot(world, row + 1, 0, 1, 4);
		expect_slot(world, row + 1, 1, -1, 0);
		expect_slot(world, row + 2, 0, -1, 0);
		expect_slot(world, row + 2, 1, -1, 0);
		expect_slot(world, row + 3, 0, -1, 0);
		expect_slot(world, row + 3, 1, 4, 4);
		expect_slot(world, row + 5, 0, 5, 1);

		static const uint32_t slots[MOE_EXPERTS] = { 0, 1, 2, 1, 0, 0 };
		for (uint32_t i = 0; i < MOE_EXPERTS; i++) {
			assert_int_equal(world->sequences[row + i]->usage.absent_slots, slots[i]);
			assert_int_equal(world->sequences[row + i]->usage.absent_rows, i == 2);
		}
	}
	for (uint32_t e = 0; e < MOE_EXPERTS; e++)
		assert_int_equal(
			atomic_load(&world->counts[e].absent), e == 2 || e == 3 ? 2 * MOE_ROWS / MOE_EXPERTS : 0);
}

/* ---- renormalise ---- */

static void rows_go_on_without_what_is_absent(void **state)
{
	(void)state;
	struct moe_world world;
	open_world(&world, RT_ABSENT_RENORMALISE);
	moe_publish(&world, without_second);
	moe_dispatch(&world);
	moe_wait(&world);
	expect_renormalised(&world);
	assert_int_equal(world.nodes[1].calls, 0);
	moe_world_close(&world);
}

static void lose_second(struct moe_world *world)
{
	if (world->nodes[1].kept_count == 0 || world->nodes[0].answered == 0)
		return;
	world->idle = NULL;
	cad_sim_crash(world->sim, world->nodes[1].transport);
	moe_publish(world, without_second);
}

/* The node dies with its rows, when others have answered for the same rows: in the end every sum is
 * what it would be if the experts had been absent from the beginning. */
static void what_was_added_already_is_taken_back(void **state)
{
	(void)state;
	struct moe_world world;
	open_world(&world, RT_ABSENT_RENORMALISE);
	moe_say(&world, 1, MOE_SILENCE, MOE_SCRIPT_MAX);
	world.idle = lose_second;
	moe_dispatch(&world);
	moe_wait(&world);
	assert_null(world.idle);
	assert_true(world.nodes[0].answered >= 2); /* rows 1 and 7 again */
	expect_renormalised(&world);
	moe_world_close(&world);
}

/* The other experts of a row may be under way when the map comes: their answers are waited for. */
static void lose_second_early(struct moe_world *world)
{
	if (world->nodes[1].kept_count == 0 || world->nodes[0].kept_count == 0)
		return;
	world->idle = NULL;
	cad_sim_crash(world->sim, world->nodes[1].transport);
	moe_publish(world, without_second);
}

static void what_is_under_way_is_waited_for(void **state)
{
	(void)state;
	struct moe_world world;
	open_world(&world, RT_ABSENT_RENORMALISE);
	moe_say(&world, 1, MOE_SILENCE, MOE_SCRIPT_MAX);
	moe_say(&world, 0, MOE_SILENCE, 1); /* until the call's deadline */
	world.idle = lose_second_early;
	moe_dispatch(&world);
	moe_wait(&world);
	assert_null(world.idle);
	expect_renormalised(&world);
	moe_world_close(&world);
}

static void what_capacity_dropped_is_not_given_back(void **state)
{
	(void)state;
	struct moe_world world;
	open_world(&world, RT_ABSENT_RENORMALISE);
	world.ids[1 * MOE_TOPK] = world.ids[3 * MOE_TOPK] = -1; /* of the first, what would be left */
	world.weights[1 * MOE_TOPK] = world.weights[3 * MOE_TOPK] = 0;
	moe_publish(&world, without_second);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	expect_slot(&world, 1, 1, -1, 0);
	expect_slot(&world, 3, 1, 4, 3);
	assert_int_equal(world.sequences[1]->usage.absent_slots, 1);
	assert_int_equal(world.sequences[1]->usage.absent_rows, 1);
	assert_int_equal(world.sequences[3]->usage.absent_slots, 0);
	moe_world_close(&world);
}

/* Nothing to share it among by: no NaN. */
static void what_is_left_may_weigh_nothing(void **state)
{
	(void)state;
	struct moe_world world;
	open_world(&world, RT_ABSENT_RENORMALISE);
	world.weights[1 * MOE_TOPK] = 0;
	moe_publish(&world, without_second);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	expect_slot(&world, 1, 0, 1, 0);
	assert_int_equal(world.sequences[1]->usage.absent_rows, 0);
	moe_world_close(&world);
}

/* ---- fail, and wait ---- */

static void requests_fail_at_once_with_a_sentence(void **state)
{
	(void)state;
	struct moe_world world;
	open_world(&world, RT_ABSENT_FAIL);
	moe_publish(&world, without_second);
	uint64_t began = moe_now(&world);
	moe_dispatch(&world);
	moe_wait(&world);
	assert_true(moe_now(&world) - began < 10 * CAD_NS_PER_MS);
	for (uint32_t row = 0; row < MOE_ROWS; row++) {
		bool fails = row % MOE_EXPERTS >= 1 && row % MOE_EXPERTS <= 3;
		assert_int_equal(world.sequences[row]->doomed, fails ? CAD_ERR_UNREACHABLE : CAD_OK);
		if (!fails)
			moe_expect_row(&world, row);
	}
	assert_non_null(strstr(world.sequences[1]->doom, "no node holds expert 2 of layer 1"));
	assert_non_null(strstr(world.sequences[3]->doom, "no node holds expert 3 of layer 1"));
	assert_int_equal(atomic_load(&world.counts[2].absent), 4);
	assert_int_equal(atomic_load(&world.counts[3].absent), 2);
	moe_world_close(&world);
}

static void publish_all(struct moe_world *world)
{
	world->idle = NULL;
	moe_publish(world, spread);
}

static void by_default_rows_wait(void **state)
{
	(void)state;
	struct moe_world world;
	open_world(&world, RT_ABSENT_WAIT);
	moe_publish(&world, without_second);
	world.idle = publish_all;
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_int_equal(world.nodes[1].answered, 1);
	expect_slot(&world, 1, 0, 1, 1);
	moe_world_close(&world);
}

/* A cluster that starts has lost nothing. */
static void a_router_that_was_never_ready_waits(void **state)
{
	(void)state;
	for (enum rt_absent_policy policy = RT_ABSENT_WAIT; policy <= RT_ABSENT_RENORMALISE; policy++) {
		struct moe_world world;
		moe_world_open(&world);
		world.exchange.absent = policy;
		moe_publish(&world, without_second);
		moe_connect(&world);
		world.idle = publish_all;
		moe_dispatch(&world);
		moe_wait(&world);
		moe_expect_all(&world);
		assert_int_equal(world.nodes[1].answered, 1);
		moe_world_close(&world);
	}
}

/* Its connection is lost, but the map names it: it, or the map, will come. */
static void a_node_that_is_named_is_waited_for(void **state)
{
	(void)state;
	struct moe_world world;
	open_world(&world, RT_ABSENT_RENORMALISE);
	struct rt_route_table *routes = &world.exchange.routes;
	cad_connection_close(routes->peers[routes->node_peer[1]].connection, CAD_ERR_CANCELLED, "cut by the test");
	cad_transport_poll(world.exchange.transport, moe_now(&world) + CAD_NS_PER_MS);
	assert_int_equal(rt_route_table_connections(routes), MOE_NODES - 1);
	moe_dispatch(&world);
	moe_wait(&world);
	moe_expect_all(&world);
	assert_int_equal(world.nodes[1].answered, 1);
	moe_world_close(&world);
}

/* ---- names ---- */

static void a_fingerprint_names_what_changes_bits(void **state)
{
	(void)state;
	static const struct {
		struct rt_policies policies;
		const char *text;
	} table[] = {
		{ { RT_CAPACITY_NONE, 1.0f, RT_ABSENT_WAIT }, "" },
		{ { RT_CAPACITY_NONE, 2.0f, RT_ABSENT_FAIL }, "" },
		{ { RT_CAPACITY_DROP, 1.25f, RT_ABSENT_WAIT }, "/drop:1.25" },
		{ { RT_CAPACITY_SPILL, 1000.0f, RT_ABSENT_RENORMALISE }, "/spill:1000/renormalise" },
	};
	char text[RT_POLICIES_BYTES];
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		rt_policies_text(&table[i].policies, text);
		assert_string_equal(text, table[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_go_on_without_what_is_absent),
		cmocka_unit_test(what_was_added_already_is_taken_back),
		cmocka_unit_test(what_is_under_way_is_waited_for),
		cmocka_unit_test(what_capacity_dropped_is_not_given_back),
		cmocka_unit_test(what_is_left_may_weigh_nothing),
		cmocka_unit_test(requests_fail_at_once_with_a_sentence),
		cmocka_unit_test(by_default_rows_wait),
		cmocka_unit_test(a_router_that_was_never_ready_waits),
		cmocka_unit_test(a_node_that_is_named_is_waited_for),
		cmocka_unit_test(a_fingerprint_names_what_changes_bits),
	};
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT); /* lost connections are the point here */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
