/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routers that do not reach nodes which the placement service sees well: bad nodes that
 * join, links that are cut between one router and one node, routers that are themselves
 * the fault; and cuts at random.
 */
#include "common/base/log.h"
#include "tests/support/control_world.h"
#include "tests/support/must.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { COPY_MS = 100 }; /* more than loading takes here, with a map after it */

static void connect_all(struct world *world, int routers, int nodes)
{
	for (int r = 0; r < routers; r++)
		world_connect_router(world, r);
	for (int n = 0; n < nodes; n++)
		assert_int_equal(world_connect_node(world, n), CAD_OK);
	world_run(world, 3000);
	assert_int_equal(world_unplaced(world), 0);
}

/* Cells for which the router has no node that it reaches. */
static unsigned stranded(const struct world *world, int r)
{
	const struct world_router *router = &world->routers[r];
	unsigned count = 0;
	for (uint32_t cell = 0; cell < WORLD_CELLS; cell++) {
		bool reached = false;
		for (int n = 0; n < WORLD_NODES; n++)
			reached = reached ||
				(router->reach[n].reached && world_listed(router->map, world->nodes[n].id, cell));
		count += !reached;
	}
	return count;
}

static void why(const struct world *world, const char *id, struct pl_reach_view *view)
{
	const struct pl_registry *registry = pl_control_registry(world->control);
	pl_reach_view(pl_control_reach(world->control), registry, (uint32_t)pl_registry_find(registry, id),
		world->now_ms * CAD_NS_PER_MS, view);
}

/* The node that took everything down: it is alive, it loads well, and one
 * router, or none, reaches it. */
static void a_node_that_is_not_reached_gets_nothing(void **state)
{
	(void)state;
	struct pl_reach_view view;
	for (int all = 0; all < 2; all++) {
		struct world *world = world_create();
		connect_all(world, 2, 2);
		unsigned loads = world->loads;
		world->cut[1][2] = true;
		world->cut[0][2] = all;
		assert_int_equal(world_connect_node(world, 2), CAD_OK);
		world_run(world, 30000);
		assert_int_equal(world->loads, loads);
		assert_int_equal(world->frees, 0);
		assert_int_equal(stranded(world, 0) + stranded(world, 1), 0);
		assert_true(cad_map_node_find(pl_control_map(world->control), "node-2") >= 0);
		why(world, "node-2", &view);
		assert_int_equal(view.reached, all ? 0 : 1);
		assert_int_equal(view.of, 2);
		assert_non_null(
			strstr(view.text, all ? "not reached by 'router-0' for" : "not reached by 'router-1' for"));

		world->cut[0][2] = world->cut[1][2] = false;
		world_run(world, 20000);
		assert_in_range(world_held_by(world, 2), WORLD_LAYERS * 2, WORLD_LAYERS * 3);
		assert_int_equal(stranded(world, 0) + stranded(world, 1), 0);
		why(world, "node-2", &view);
		assert_string_equal(view.text, "");
		world_destroy(world);
	}
}

/* More bad nodes than good ones: it is not the routers' fault, and they still decide. */
static void many_bad_nodes_discredit_no_router(void **state)
{
	(void)state;
	struct world *world = world_create();
	connect_all(world, 1, 1);
	for (int n = 1; n < WORLD_NODES; n++) {
		world->cut[0][n] = true;
		assert_int_equal(world_connect_node(world, n), CAD_OK);
	}
	world_run(world, 30000);
	assert_false(world->routers[0].discounted);
	assert_int_equal(world_held_by(world, 0), WORLD_CELLS);
	assert_int_equal(world->loads, WORLD_CELLS);
	assert_int_equal(stranded(world, 0), 0);
	world_destroy(world);
}

/* At the very start as well: one of three is bad, and the other two serve. */
static void first_placement_without_the_bad_one(void **state)
{
	(void)state;
	struct world *world = world_create();
	char text[256];
	pl_control_destroy(world->control);
	world->options.experts_min = 3;
	world_start(world);
	world->cut[0][1] = true;
	world_connect_router(world, 0);
	for (int n = 0; n < 3; n++)
		assert_int_equal(world_connect_node(world, n), CAD_OK);
	world_run(world, 500);
	assert_int_equal(world->loads, 0);
	assert_false(pl_control_ready(world->control, text, sizeof text));
	assert_string_equal(text, "3 expert nodes have joined; routers are connecting to them");
	world_run(world, 1500);
	assert_int_equal(stranded(world, 0), 0);
	assert_int_equal(world_held_by(world, 1), 0);
	world_destroy(world);
}

/* Nobody but the router can tell. What only the node behind the cut had is loaded
 * elsewhere as soon as its silence is noticed, is freed there after that, and moves back
 * in peace when the cut is over. */
static void a_cut_between_one_router_and_one_node(void **state)
{
	(void)state;
	struct world *world = world_create();
	connect_all(world, 2, 3);
	world->cut[0][1] = true;
	world_run(world, WORLD_HEARTBEAT_MS - 10);
	assert_int_equal(stranded(world, 0), 0);
	assert_int_equal(world->loads, WORLD_CELLS);
	world_run(world, 20);
	assert_int_equal(stranded(world, 0), WORLD_CELLS / 3);
	world_run(world, COPY_MS);
	assert_int_equal(stranded(world, 0) + stranded(world, 1), 0);
	world_run(world, 10000);
	assert_int_equal(world_held_by(world, 1), 0);
	assert_int_equal(stranded(world, 0) + stranded(world, 1), 0);
	assert_int_equal(pl_control_stats(world->control)->deaths, 0);
	assert_int_equal(pl_control_stats(world->control)->absences, 1);

	world->cut[0][1] = false;
	world_run(world, 20000);
	assert_in_range(world_held_by(world, 1), WORLD_LAYERS * 2, WORLD_LAYERS * 3);
	world_destroy(world);
}

/* With two copies nothing is ever missing, and there are two again. */
static void a_cut_with_two_copies(void **state)
{
	(void)state;
	struct world *world = world_create();
	pl_control_destroy(world->control);
	world->options.copies_min = 2;
	world_start(world);
	connect_all(world, 1, 3);
	world_run(world, 5000);
	world->cut[0][1] = true;
	for (int i = 0; i < 10000; i++) {
		world_run(world, 1);
		assert_int_equal(stranded(world, 0), 0);
	}
	assert_int_equal(world_held_by(world, 0) + world_held_by(world, 2), 2 * WORLD_CELLS);
	world_destroy(world);
}

/* A link that comes and goes moves experts less and less often. */
static void a_link_that_flaps(void **state)
{
	(void)state;
	struct world *world = world_create();
	connect_all(world, 1, 2);
	uint64_t absences = 0;
	for (int second = 0; second < 600; second++) {
		world->cut[0][1] = second % 4 < 2;
		world_run(world, 1000);
		absences = pl_control_stats(world->control)->absences;
	}
	assert_in_range(absences, 2, 20); /* of 150 */
	assert_int_equal(stranded(world, 0), 0);
	world->cut[0][1] = false;
	world_run(world, 90000);
	assert_int_equal(world_held_by(world, 1), WORLD_CELLS / 2);
	world_destroy(world);
}

/* One that is in its hold-off is used all the same when the only other one dies. */
static void a_hold_off_ends_when_it_must(void **state)
{
	(void)state;
	struct world *world = world_create();
	connect_all(world, 1, 2);
	for (int i = 0; i < 6; i++) {
		world->cut[0][1] = true;
		world_run(world, 2000);
		world->cut[0][1] = false;
		world_run(world, i < 5 ? 3000 : 100);
	}
	assert_int_equal(world_held_by(world, 0), WORLD_CELLS);
	world_kill_node(world, 0);
	world_run(world, WORLD_GRACE_MS + COPY_MS);
	assert_int_equal(stranded(world, 0), 0);
	assert_int_equal(world_held_by(world, 1), WORLD_CELLS);
	world_destroy(world);
}

/* A router that has lost most nodes is itself behind the cut: nothing moves for it, and it hears
 * so. */
static void a_router_that_is_the_fault(void **state)
{
	(void)state;
	struct world *world = world_create();
	struct pl_reach_view view;
	connect_all(world, 2, 3);
	world->cut[0][0] = world->cut[0][2] = true;
	world_run(world, 10000);
	assert_true(world->routers[0].discounted);
	assert_false(world->routers[1].discounted);
	assert_int_equal(world->loads, WORLD_CELLS);
	assert_int_equal(stranded(world, 1), 0);
	why(world, "router-0", &view);
	assert_string_equal(view.text, "does not count: it reaches 1 of the 3 expert nodes that routers reach");
	world->cut[0][0] = world->cut[0][2] = false;
	world_run(world, 1000);
	assert_false(world->routers[0].discounted);
	assert_int_equal(stranded(world, 0), 0);
	world_destroy(world);
}

/* Where memory does not allow a copy elsewhere, the one that some reach
 * stays, and users hear why. */
static void without_room_a_copy_stays(void **state)
{
	(void)state;
	struct world *world = world_create();
	char text[256];
	for (int n = 0; n < 2; n++)
		world->nodes[n].memory = WORLD_CELLS / 2;
	connect_all(world, 2, 2);
	world->cut[0][1] = true;
	world_run(world, 10000);
	assert_int_equal(world->loads, WORLD_CELLS);
	assert_int_equal(world->frees, 0);
	assert_int_equal(world_unplaced(world), 0);
	assert_int_equal(stranded(world, 1), 0);
	assert_true(pl_control_ready(world->control, text, sizeof text));

	assert_int_equal(world_connect_node(world, 2), CAD_OK); /* now there is room */
	world_run(world, 2000);
	assert_int_equal(stranded(world, 0) + stranded(world, 1), 0);
	world_destroy(world);
}

/* The new holder is lost before the old copy is freed: that one comes back, and nothing is
 * loaded. */
static void an_old_copy_comes_back(void **state)
{
	(void)state;
	struct world *world = world_create();
	connect_all(world, 1, 1);
	assert_int_equal(world_connect_node(world, 1), CAD_OK);
	while (world_held_by(world, 1) < 2)
		world_run(world, 1);
	world->cut[0][1] = true; /* in the middle of moving half of them */
	world_run(world, WORLD_HEARTBEAT_MS + COPY_MS);
	assert_int_equal(stranded(world, 0), 0);
	world_run(world, 10000);
	assert_int_equal(stranded(world, 0), 0);
	assert_int_equal(world_held_by(world, 0), WORLD_CELLS);
	world_destroy(world);
}

/* A node's exchange is made anew: it has another address, which routers hear of and
 * connect to. What it holds is not loaded elsewhere in that moment; if they do not reach
 * it, it is, a second later. */
static void a_new_address_is_given_a_moment(void **state)
{
	(void)state;
	for (int cut = 0; cut < 2; cut++) {
		struct world *world = world_create();
		connect_all(world, 2, 3);
		uint64_t epoch = world->last_epoch;
		world->nodes[1].worker++;
		world->cut[0][1] = cut;
		pl_control_broken(world->control, world->nodes[1].session);
		assert_int_equal(world_connect_node(world, 1), CAD_OK);
		world_run(world, 900);
		assert_int_equal(world->loads, WORLD_CELLS);
		assert_true(world->last_epoch > epoch);
		world_run(world, 600);
		assert_int_equal(world->loads, cut ? WORLD_CELLS + WORLD_CELLS / 3 : WORLD_CELLS);
		assert_int_equal(stranded(world, 0) + stranded(world, 1), 0);
		world_destroy(world);
	}
}

/* The service was stopped while a link was away for a moment, and hears of
 * both ends of it afterwards. */
static void own_pause_makes_nobody_absent(void **state)
{
	(void)state;
	struct world *world = world_create();
	connect_all(world, 1, 2);
	world->cut[0][0] = true;
	world->routers[0].reach[0] = (struct world_reach){ world->nodes[0].pid, 0, .heard_ms = world->now_ms };
	world_run(world, 100);
	world->cut[0][0] = false;
	world->now_ms += 8000;
	world->deadline_ns = pl_control_turn(world->control);
	world->routers[0].reach[0].way_ms = 100; /* it has connected since */
	world_run(world, 1000);
	assert_int_equal(pl_control_stats(world->control)->absences, 0);
	assert_int_equal(world->loads, WORLD_CELLS);
	world_destroy(world);
}

/* ---- at random ---- */

static bool all_reach(const struct world *world, int n)
{
	for (int r = 0; r < WORLD_ROUTERS; r++)
		if (world->cut[r][n] && !world->routers[r].discounted)
			return false;
	return true;
}

static void something_happens(struct world *world, struct cad_random *random)
{
	int n = (int)cad_random_below(random, WORLD_NODES), r = (int)cad_random_below(random, WORLD_ROUTERS);
	switch (cad_random_below(random, 8)) {
	case 0: world_kill_node(world, n); break;
	case 1:
		if (world->nodes[n].session) { /* its stream breaks, the process lives */
			pl_control_broken(world->control, world->nodes[n].session);
			world->nodes[n].session = 0;
			world->nodes[n].gone_ms = world->now_ms;
		}
		break;
	case 2: world->cut[r][n] = false; break;
	case 3:
	case 4: world->cut[r][n] = true; break;
	default: break;
	}
	if (cad_random_below(random, 2))
		for (int i = 0; i < WORLD_NODES; i++)
			if (!world->nodes[i].session)
				(void)world_connect_node(world, i);
}

static void storm_of_cuts(void **state)
{
	(void)state;
	uint64_t seed = 815;
	print_message("seed %llu\n", (unsigned long long)seed);
	struct cad_random random = { seed };
	for (int round = 0; round < 16; round++) {
		struct world *world = world_create();
		pl_control_destroy(world->control);
		world->options.copies_min = 1 + (uint32_t)(round % 2);
		world_start(world);
		for (int r = 0; r < WORLD_ROUTERS; r++)
			world_connect_router(world, r);
		for (int n = 0; n < WORLD_NODES; n++)
			world->nodes[n].memory = 8 + cad_random_below(&random, WORLD_CELLS);
		world->nodes[0].memory = WORLD_CELLS;
		for (int event = 0; event < 60; event++) {
			something_happens(world, &random);
			world_run(world, 1 + cad_random_below(&random, cad_random_below(&random, 4) ? 300 : 4000));
		}

		/* what is cut stays cut, but for one node with room for everything */
		for (int r = 0; r < WORLD_ROUTERS; r++)
			world->cut[r][0] = false;
		for (int n = 0; n < WORLD_NODES; n++)
			if (!world->nodes[n].session)
				assert_int_equal(world_connect_node(world, n), CAD_OK);
		world_run(world, 120000);
		for (uint32_t cell = 0; cell < WORLD_CELLS; cell++) {
			bool placed = false;
			for (int n = 0; n < WORLD_NODES; n++)
				placed = placed ||
					(all_reach(world, n) &&
						world_listed(pl_control_map(world->control), world->nodes[n].id, cell));
			assert_true(placed);
		}
		unsigned loads = world->loads, frees = world->frees, maps = world->maps;
		world_run(world, 20000);
		assert_int_equal(world->loads, loads);
		assert_int_equal(world->frees, frees);
		assert_int_equal(world->maps, maps);
		world_destroy(world);
	}
}

int main(void)
{
	cad_log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC)); /* what is lost here is meant to be */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_node_that_is_not_reached_gets_nothing),
		cmocka_unit_test(many_bad_nodes_discredit_no_router),
		cmocka_unit_test(first_placement_without_the_bad_one),
		cmocka_unit_test(a_cut_between_one_router_and_one_node),
		cmocka_unit_test(a_cut_with_two_copies),
		cmocka_unit_test(a_link_that_flaps),
		cmocka_unit_test(a_hold_off_ends_when_it_must),
		cmocka_unit_test(a_router_that_is_the_fault),
		cmocka_unit_test(without_room_a_copy_stays),
		cmocka_unit_test(an_old_copy_comes_back),
		cmocka_unit_test(a_new_address_is_given_a_moment),
		cmocka_unit_test(own_pause_makes_nobody_absent),
		cmocka_unit_test(storm_of_cuts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
