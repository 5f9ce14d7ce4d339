/* SPDX-License-Identifier: Apache-2.0 */
/* The placement service on a clock of the test's own (tests/support/control_world.h): a storm of
 * deaths, pauses, broken streams and restarts at random, with invariants checked at every order and
 * every map; in the end all is well. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/support/control_world.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void something_happens(struct world *world, struct cad_random *random)
{
	int n = (int)cad_random_below(random, WORLD_NODES), r = (int)cad_random_below(random, WORLD_ROUTERS);
	struct world_node *node = &world->nodes[n];

	switch (cad_random_below(random, 8)) {
	case 0: world_kill_node(world, n); break;
	case 1:
		node->hung = node->session && !node->hung;
		if (node->hung)
			node->gone_ms = world->now_ms;
		break;
	case 2:
		if (node->session) { /* its stream breaks, the process lives */
			pl_control_broken(world->control, node->session);
			node->session = 0;
			node->gone_ms = world->now_ms;
		}
		break;
	case 3:
		if (world->routers[r].session)
			pl_control_broken(world->control, world->routers[r].session);
		world->routers[r].session = 0;
		world->routers[r].alive = false; /* crashed: its map is nobody's any more */
		cad_map_release(world->routers[r].map);
		cad_map_release(world->routers[r].next);
		world->routers[r].map = world->routers[r].next = NULL;
		break;
	case 4:
		if (cad_random_below(random, 4) == 0) {
			world_stop(world);
			for (int i = 0; i < WORLD_NODES; i++)
				world->nodes[i].gone_ms = world->now_ms;
			world_start(world);
		}
		break;
	default:
		if (!node->session && !node->hung)
			(void)world_connect_node(world, n);
		if (!world->routers[r].session)
			world_connect_router(world, r);
		break;
	}
}

static void storm(void **state)
{
	(void)state;
	uint64_t seed = 4711;
	print_message("seed %llu\n", (unsigned long long)seed);
	struct cad_random random = { seed };
	for (int round = 0; round < 12; round++) {
		struct world *world = world_create();
		pl_control_destroy(world->control);
		world->options.copies_min = 1 + (uint32_t)(round % 2);
		world_start(world);
		for (int i = 0; i < WORLD_NODES; i++)
			world->nodes[i].memory = 8 + cad_random_below(&random, WORLD_CELLS);
		for (int event = 0; event < 60; event++) {
			something_happens(world, &random);
			world_run(world, 1 + cad_random_below(&random, cad_random_below(&random, 4) ? 300 : 4000));
		}
		/* calm: everybody back, and all is well in the end */
		for (int i = 0; i < WORLD_NODES; i++) {
			world->nodes[i].hung = false;
			if (!world->nodes[i].session)
				assert_int_equal(world_connect_node(world, i), CAD_OK);
		}
		for (int i = 0; i < WORLD_ROUTERS; i++)
			if (!world->routers[i].session)
				world_connect_router(world, i);
		world_run(world, 60000);
		for (int i = 0; i < WORLD_NODES; i++) /* a hung node that woke up after its lease must join once more */
			if (!world->nodes[i].session)
				assert_int_equal(world_connect_node(world, i), CAD_OK);
		world_run(world, 60000);
		assert_int_equal(world_unplaced(world), 0);
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
	/* what the service logs about nodes that die here is nobody's worry */
	cad_log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	const struct CMUnitTest tests[] = { cmocka_unit_test(storm) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
