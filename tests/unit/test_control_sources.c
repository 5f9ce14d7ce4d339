/* SPDX-License-Identifier: Apache-2.0 */
/* From whom nodes are ordered to get experts, on a clock of the test's own
 * (tests/support/control_world.h, which checks that a source holds what it should give). */
#include "common/base/clock.h"
#include "tests/support/control_world.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static struct world *placed_world(int nodes)
{
	struct world *world = world_create();
	world_connect_router(world, 0);
	for (int i = 0; i < nodes; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 5000);
	assert_int_equal(world_unplaced(world), 0);
	return world;
}

static unsigned given(const struct world *world)
{
	unsigned sum = 0;
	for (int i = 0; i < WORLD_NODES; i++)
		sum += world->nodes[i].given;
	return sum;
}

/* Nobody has anything at first. Who joins gets what he is given from those who have it, all of whom
 * are asked; what was lost with a node is nowhere but in the checkpoint. */
static void from_those_who_have_it(void **state)
{
	(void)state;
	struct world *world = placed_world(2);
	assert_int_equal(given(world), 0);

	unsigned loads = world->loads;
	assert_int_equal(world_connect_node(world, 2), CAD_OK);
	world_run(world, 20000);
	assert_true(world->loads > loads);
	assert_int_equal(given(world), world->loads - loads);
	assert_true(world->nodes[0].given > 0 && world->nodes[1].given > 0);

	unsigned before = given(world);
	world_kill_node(world, 1);
	world_run(world, WORLD_GRACE_MS + 1);
	assert_true(world_unplaced(world) > 0);
	loads = world->loads;
	world_run(world, 200);
	assert_int_equal(world_unplaced(world), 0);
	assert_true(world->loads > loads);
	assert_int_equal(given(world), before);
	world_destroy(world);
}

/* With two copies, those of a lost node come from the other one. */
static void second_copies(void **state)
{
	(void)state;
	struct world *world = world_create();
	world->options.copies_min = 2;
	world_stop(world);
	world_start(world);
	world_connect_router(world, 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 5000);
	unsigned loads = world->loads, before = given(world);
	world_kill_node(world, 3);
	world_run(world, 20000);
	assert_true(world->loads > loads);
	assert_int_equal(given(world) - before, world->loads - loads);
	world_destroy(world);
}

static int first_from(const struct world_node *node, uint32_t *cell)
{
	for (*cell = 0; *cell < WORLD_CELLS; ++*cell)
		if (node->due_ms[*cell] && node->from[*cell] >= 0)
			return node->from[*cell];
	fail_msg("nothing is on its way from a node");
	return -1;
}

/* A source that failed is not asked for a minute, and then again. */
static void a_source_that_failed_is_not_asked(void **state)
{
	(void)state;
	struct world *world = placed_world(2);
	struct world_node *node = &world->nodes[2];
	struct cad_error error;
	uint32_t cell;
	assert_int_equal(world_connect_node(world, 2), CAD_OK);
	while (world->nodes[0].given + world->nodes[1].given == 0)
		world_run(world, 1);
	int bad = first_from(node, &cell);
	const struct pl_expert expert = { world_layers[cell / WORLD_EXPERTS], cell % WORLD_EXPERTS };
	must(pl_control_passed_over(world->control, node->session, expert, "it gave wrong bytes", &error), &error);
	assert_int_equal(pl_control_stats(world->control)->sources_failed, 1);

	unsigned then = world->nodes[bad].given;
	world_run(world, 20000);
	assert_int_equal(world->nodes[bad].given, then);
	world_run(world, 60000);
	assert_int_equal(world_connect_node(world, 3), CAD_OK);
	world_run(world, 20000);
	assert_true(world->nodes[bad].given > then);

	/* of an expert that the model does not have, and of somebody who is not known */
	const struct pl_expert none = { 99, 99 };
	assert_int_equal(pl_control_passed_over(world->control, node->session, none, "why", &error), CAD_ERR_INVALID);
	assert_int_equal(pl_control_passed_over(world->control, 987654, expert, "why", &error), CAD_OK);
	assert_int_equal(pl_control_stats(world->control)->sources_failed, 1);
	world_destroy(world);
}

/* What cannot be checked on arrival does not come from a node. */
static void without_a_checksum_from_the_checkpoint(void **state)
{
	(void)state;
	struct world *world = placed_world(2);
	unsigned loads = world->loads;
	world->checksums_late = true;
	assert_int_equal(world_connect_node(world, 2), CAD_OK);
	world_run(world, 3000);
	assert_true(world->loads > loads);
	assert_int_equal(given(world), 0);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(from_those_who_have_it),
		cmocka_unit_test(second_copies),
		cmocka_unit_test(a_source_that_failed_is_not_asked),
		cmocka_unit_test(without_a_checksum_from_the_checkpoint),
	};
	return cmocka_run_group_tests_name("control_sources", tests, NULL, NULL);
}
