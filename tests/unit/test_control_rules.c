/* SPDX-License-Identifier: Apache-2.0 */
/* What operators say about single nodes and experts (drain, pin, copies), and that it all outlives
 * restarts, on a clock of the test's own (tests/support/control_world.h). At the end a storm of
 * everything at once. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/support/control_world.h"
#include "tests/support/must.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The service is killed and started again, and everybody joins it. */
static void restart(struct world *world)
{
	world_stop(world);
	for (int i = 0; i < WORLD_NODES; i++)
		if (!world->nodes[i].alive)
			world->nodes[i].gone_ms = world->now_ms;
	world_start(world);
	for (int i = 0; i < WORLD_NODES; i++)
		if (world->nodes[i].alive)
			assert_int_equal(world_connect_node(world, i), CAD_OK);
	for (int r = 0; r < WORLD_ROUTERS; r++)
		if (world->routers[r].alive)
			world_connect_router(world, r);
}

static enum pl_duty duty(const struct world *world, int index)
{
	int slot = pl_registry_find(pl_control_registry(world->control), world->nodes[index].id);
	return pl_control_duty(world->control, (uint32_t)slot);
}

static struct pl_control_change drain(struct world *world, int index, bool drained, bool dry)
{
	struct pl_control_change change;
	struct cad_error error;
	must(pl_control_drain(world->control, world->nodes[index].id, drained, dry, &change, &error), &error);
	world->touched = true;
	return change;
}

static struct pl_expert expert_of(uint32_t cell)
{
	return (struct pl_expert){ world_layers[cell / WORLD_EXPERTS], cell % WORLD_EXPERTS };
}

static struct pl_control_change pin(struct world *world, uint32_t cell, const char *node, bool dry)
{
	struct pl_control_change change;
	struct cad_error error;
	must(pl_control_pin(world->control, expert_of(cell), node, dry, &change, &error), &error);
	world->touched = true;
	return change;
}

static struct pl_control_change copies(struct world *world, uint32_t cell, uint32_t count, bool dry)
{
	struct pl_control_change change;
	struct cad_error error;
	must(pl_control_copies(world->control, expert_of(cell), count, dry, &change, &error), &error);
	world->touched = true;
	return change;
}

static uint32_t held(const struct world *world, uint32_t cell)
{
	uint32_t count = 0;
	for (int i = 0; i < WORLD_NODES; i++)
		count += world->nodes[i].held[cell];
	return count;
}

static int holder(const struct world *world, uint32_t cell)
{
	int n = 0;
	while (n < WORLD_NODES && !world->nodes[n].held[cell])
		n++;
	return n;
}

/* ---- drain ---- */

static void drained_node_is_emptied_and_stays_so(void **state)
{
	(void)state;
	struct world *world = world_placed(3, WORLD_CELLS);
	assert_int_equal(duty(world, 1), PL_DUTY_ACTIVE);
	struct pl_control_change change = drain(world, 1, true, true);
	assert_int_equal(change.moves, WORLD_CELLS / 3);
	assert_int_equal(change.bytes, WORLD_CELLS / 3 * 80);
	unsigned loads = world->loads;
	world_run(world, 5000);
	assert_int_equal(world->loads, loads); /* that was only tried */

	assert_int_equal(drain(world, 1, true, false).moves, WORLD_CELLS / 3);
	assert_int_equal(duty(world, 1), PL_DUTY_DRAINING);
	assert_int_equal(drain(world, 1, true, false).moves, 0); /* it is so already */
	world_run(world, 20000);
	assert_int_equal(duty(world, 1), PL_DUTY_SAFE_TO_STOP);
	assert_string_equal(world->did, "drain node-1: safe_to_stop: it holds no expert any more");
	assert_int_equal(world->did_count, 1);
	assert_int_equal(world_held_by(world, 1), 0);
	assert_int_equal(world_unplaced(world), 0);
	assert_int_equal(world->unplaced_worst, WORLD_CELLS); /* the very first map */

	/* over restarts of the service, and of itself */
	restart(world);
	world_run(world, 10000);
	assert_int_equal(duty(world, 1), PL_DUTY_SAFE_TO_STOP);
	world_kill_node(world, 1);
	world_run(world, 10000);
	assert_int_equal(duty(world, 1), PL_DUTY_SAFE_TO_STOP);
	assert_int_equal(world_connect_node(world, 1), CAD_OK);
	world_run(world, 10000);
	assert_int_equal(world_held_by(world, 1), 0);
	assert_int_equal(world->did_count, 1); /* that is nothing new */

	assert_true(drain(world, 1, false, false).moves > 0);
	world_run(world, 10000);
	assert_int_equal(duty(world, 1), PL_DUTY_ACTIVE);
	assert_in_range(world_held_by(world, 1), WORLD_CELLS / 4, WORLD_CELLS / 3);
	world_destroy(world);
}

static void not_drained(struct world *world, const char *node, enum cad_status status, const char *text)
{
	struct pl_control_change change;
	struct cad_error error;
	unsigned loads = world->loads;
	assert_int_equal(pl_control_drain(world->control, node, true, false, &change, &error), status);
	assert_string_equal(error.text, text);
	world_run(world, 10000);
	assert_int_equal(world->loads, loads);
}

static void drain_is_refused_without_room(void **state)
{
	(void)state;
	struct world *world = world_placed(3, 10);
	struct pl_control_change change;
	struct cad_error error;
	not_drained(world, "node-0", CAD_ERR_EXHAUSTED,
		"node 'node-0' cannot be drained: 4 experts of 0.00 MiB each would have no place on the 2 other expert nodes: add nodes, or give them more --memory");
	not_drained(world, "nobody", CAD_ERR_NOT_FOUND, "there is no expert node 'nobody' in this cluster");
	not_drained(world, "router-0", CAD_ERR_NOT_FOUND, "there is no expert node 'router-0' in this cluster");
	assert_int_equal(pl_control_drain(world->control, "node-0", false, false, &change, &error), CAD_ERR_NOT_FOUND);
	assert_string_equal(error.text, "node 'node-0' is not drained");
	world_destroy(world);

	world = world_placed(1, WORLD_CELLS);
	not_drained(world, "node-0", CAD_ERR_EXHAUSTED,
		"node 'node-0' cannot be drained: it is the last expert node that may hold experts: add one, or undrain one");
	world_destroy(world);
}

/* Others die while it is drained: what has no other place stays on it, and goes on when there is
 * room. */
static void draining_node_keeps_what_has_no_other_place(void **state)
{
	(void)state;
	struct world *world = world_placed(3, 12);
	(void)drain(world, 0, true, false);
	world_kill_node(world, 1);
	world_run(world, 20000);
	assert_int_equal(duty(world, 0), PL_DUTY_DRAINING);
	assert_true(world_held_by(world, 0) > 0);
	assert_int_equal(world_connect_node(world, 1), CAD_OK);
	world_run(world, 20000);
	assert_int_equal(duty(world, 0), PL_DUTY_SAFE_TO_STOP);
	assert_int_equal(world_unplaced(world), 0);
	world_destroy(world);
}

/* ---- pins ---- */

static void pinned_expert_moves_and_stays(void **state)
{
	(void)state;
	struct world *world = world_placed(3, WORLD_CELLS);
	int from = holder(world, 5), to = (from + 1) % 3;
	struct pl_control_change change = pin(world, 5, world->nodes[to].id, true);
	assert_int_equal(change.bytes, change.moves * 80);
	assert_true(change.moves >= 1);
	(void)pin(world, 5, world->nodes[to].id, false);
	assert_int_equal(pin(world, 5, world->nodes[to].id, false).moves, 0); /* it is so already */
	world_run(world, 10000);
	assert_true(world->nodes[to].held[5]);
	assert_int_equal(held(world, 5), 1);

	/* the node dies: elsewhere for a while, then back, over a restart of the service too */
	world_kill_node(world, to);
	world_run(world, 5000);
	assert_int_equal(held(world, 5), 1);
	restart(world);
	world_run(world, 3000);
	assert_int_equal(world_connect_node(world, to), CAD_OK);
	world_run(world, 20000);
	assert_true(world->nodes[to].held[5]);
	assert_int_equal(held(world, 5), 1);

	unsigned loads = world->loads;
	(void)pin(world, 5, NULL, false);
	world_run(world, 10000);
	assert_int_equal(world->loads, loads); /* it stays where it is */
	world_destroy(world);
}

static void not_pinned(
	struct world *world, struct pl_expert expert, const char *node, enum cad_status status, const char *text)
{
	struct pl_control_change change;
	struct cad_error error;
	assert_int_equal(pl_control_pin(world->control, expert, node, false, &change, &error), status);
	assert_string_equal(error.text, text);
}

static void contradicting_pins_are_refused(void **state)
{
	(void)state;
	struct world *world = world_placed(4, 8);
	not_pinned(world, (struct pl_expert){ 3, 0 }, "node-0", CAD_ERR_NOT_FOUND,
		"layer 3 is no MoE layer of this model: those are 3 in number, from 1 to 5");
	not_pinned(world, (struct pl_expert){ 1, 8 }, "node-0", CAD_ERR_NOT_FOUND,
		"there is no expert 8: a layer has experts 0 to 7");
	not_pinned(
		world, expert_of(0), "nobody", CAD_ERR_NOT_FOUND, "there is no expert node 'nobody' in this cluster");
	not_pinned(world, expert_of(0), NULL, CAD_ERR_NOT_FOUND, "layer 1 expert 0 is pinned to no node");
	(void)pin(world, 0, "node-0", false);
	not_pinned(world, expert_of(0), "node-1", CAD_ERR_INVALID,
		"layer 1 expert 0 has 1 copy and is pinned to as many nodes: unpin it first, or replicate it");
	for (uint32_t cell = 1; cell < 8; cell++)
		(void)pin(world, cell, "node-0", false);
	not_pinned(world, expert_of(8), "node-0", CAD_ERR_EXHAUSTED,
		"node 'node-0' has room for 8 experts, and as many are pinned to it: 0.00 MiB are missing");
	world_run(world, 30000);
	assert_int_equal(world_unplaced(world), 0);
	for (uint32_t cell = 0; cell < 8; cell++)
		assert_true(world->nodes[0].held[cell]);
	(void)drain(world, 3, true, false);
	not_pinned(world, expert_of(9), "node-3", CAD_ERR_INVALID,
		"node 'node-3' is being drained: undrain it, or pin to another");
	world_destroy(world);
}

/* A pin changes the plan in force, and a plan must keep the pins. */
static void plan_in_force_has_the_pins(void **state)
{
	(void)state;
	struct world *world = world_placed(3, WORLD_CELLS);
	struct pl_situation situation;
	struct cad_error error;
	must(pl_control_situation(world->control, &situation, &error), &error);
	must(pl_control_apply(world->control, &situation.cluster, situation.present, 0, &error), &error);
	world_run(world, 2000);
	uint32_t moved = 7, from = (uint32_t)holder(world, moved), to = (from + 1) % 3;
	assert_int_equal(pin(world, moved, world->nodes[to].id, false).moves, 1);
	world_run(world, 10000);
	assert_true(world->nodes[to].held[moved]);
	assert_int_equal(held(world, moved), 1);

	assert_int_equal(
		pl_control_check(world->control, &situation.cluster, situation.present, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "the plan does not give layer 1 expert 7 to node '"));
	pl_situation_fini(&situation);
	must(pl_control_situation(world->control, &situation, &error), &error);
	assert_int_equal(situation.cluster.rules_count, 1);
	assert_int_equal(situation.cluster.rules[0].layer, world_layers[0]);
	assert_int_equal(situation.cluster.rules[0].expert, 7);
	must(pl_control_check(world->control, &situation.cluster, situation.present, &error), &error);

	unsigned loads = world->loads;
	(void)pin(world, moved, NULL, false);
	world_run(world, 10000);
	assert_int_equal(world->loads, loads);
	pl_situation_fini(&situation);
	world_destroy(world);
}

/* ---- copies ---- */

static void single_experts_have_more_copies(void **state)
{
	(void)state;
	struct world *world = world_placed(3, 10);
	struct pl_control_change change;
	struct cad_error error;
	assert_int_equal(copies(world, 4, 3, true).moves, 2);
	(void)copies(world, 4, 3, false);
	world_run(world, 10000);
	assert_int_equal(held(world, 4), 3);
	assert_int_equal(held(world, 5), 1);
	restart(world);
	world_run(world, 20000);
	assert_int_equal(held(world, 4), 3);

	assert_int_equal(pl_control_copies(world->control, expert_of(4), 4, false, &change, &error), CAD_ERR_INVALID);
	assert_string_equal(error.text, "4 copies of layer 1 expert 4: there are 3 nodes that may hold one each");
	assert_int_equal(pl_control_copies(world->control, expert_of(4), 0, false, &change, &error), CAD_ERR_INVALID);
	assert_string_equal(error.text, "0 copies: an expert has 1 to 512");
	for (uint32_t cell = 0; cell < 4; cell++)
		(void)copies(world, cell, 2, false);
	world_run(world, 20000);
	assert_int_equal(pl_control_copies(world->control, expert_of(9), 2, false, &change, &error), CAD_ERR_EXHAUSTED);
	assert_string_equal(error.text,
		"there cannot be 2 copies of layer 2 expert 1: no further node has room, 0.00 MiB, for one: add nodes, or give them more --memory");

	(void)copies(world, 4, 1, false);
	world_run(world, 20000);
	assert_int_equal(held(world, 4), 1);
	world_destroy(world);
}

static void second_pin_needs_a_second_copy(void **state)
{
	(void)state;
	struct world *world = world_placed(3, WORLD_CELLS);
	struct pl_control_change change;
	struct cad_error error;
	(void)pin(world, 4, "node-0", false);
	(void)copies(world, 4, 2, false);
	(void)pin(world, 4, "node-2", false);
	world_run(world, 20000);
	assert_true(world->nodes[0].held[4] && world->nodes[2].held[4] && !world->nodes[1].held[4]);
	assert_int_equal(pl_control_copies(world->control, expert_of(4), 1, false, &change, &error), CAD_ERR_INVALID);
	assert_string_equal(error.text, "layer 1 expert 4 is pinned to 2 nodes: unpin it before it has fewer copies");
	world_destroy(world);
}

/* ---- restarts ---- */

/* A plan that moves everything of four nodes by one node. The caller frees it. */
static struct pl_plan *move_on(struct world *world)
{
	static const uint32_t turned[] = { 1, 2, 3, 0 };
	struct pl_situation situation;
	struct pl_plan *plan;
	struct cad_error error;
	must(pl_control_situation(world->control, &situation, &error), &error);
	assert_int_equal(pl_plan_renumber(situation.present, turned, 4, &plan), CAD_OK);
	must(pl_control_apply(world->control, &situation.cluster, plan, 0, &error), &error);
	pl_situation_fini(&situation);
	return plan;
}

static void check_reached(const struct world *world, const struct pl_plan *plan)
{
	for (uint32_t cell = 0; cell < WORLD_CELLS; cell++)
		for (uint32_t n = 0; n < 4; n++)
			assert_int_equal(world->nodes[n].held[cell],
				pl_plan_holds(plan, cell / WORLD_EXPERTS, cell % WORLD_EXPERTS, n));
}

/* Killed at every step of a plan, the service goes on with it. */
static void killed_at_every_step_a_plan_goes_on(void **state)
{
	(void)state;
	for (uint64_t step = 0; step < 60; step++) {
		struct world *world = world_placed(4, 8);
		struct pl_plan *plan = move_on(world);
		world_run(world, step * 25);
		restart(world);
		world_run(world, step % 3 * 5);
		if (step % 2) /* and once more, in the middle of coming back */
			restart(world);
		world_run(world, 60000);
		check_reached(world, plan);
		assert_int_equal(world_unplaced(world), 0);
		pl_plan_free(plan);
		world_destroy(world);
	}
}

/* The same, with a node or a router that dies at every step of it and comes back a while later; a
 * plan that was joined in the middle by another node. */
static void whoever_dies_at_any_step_a_plan_goes_on(void **state)
{
	(void)state;
	for (int step = 0; step < 60; step++) {
		struct world *world = world_placed(4, WORLD_CELLS);
		struct pl_plan *plan = move_on(world);
		world_run(world, (uint64_t)step * 37);
		if (step % 5 == 4) { /* a router: its connections and its map are gone */
			struct world_router *router = &world->routers[0];
			pl_control_broken(world->control, router->session);
			cad_map_release(router->map);
			cad_map_release(router->next);
			*router = (struct world_router){ .id = "router-0" };
		} else {
			world_kill_node(world, step % 5);
		}
		world_run(world, 7 * (uint64_t)step);
		if (step % 5 == 4)
			world_connect_router(world, 0);
		else
			assert_int_equal(world_connect_node(world, step % 5), CAD_OK);
		world_run(world, 30000);
		check_reached(world, plan);
		pl_plan_free(plan);
		world_destroy(world);
	}
}

static void node_joins_while_experts_move(void **state)
{
	(void)state;
	struct world *world = world_placed(4, WORLD_CELLS);
	struct pl_plan *plan = move_on(world);
	world_run(world, 60);
	assert_int_equal(world_connect_node(world, 4), CAD_OK);
	world_run(world, 60000);
	for (uint32_t cell = 0; cell < WORLD_CELLS; cell++)
		for (uint32_t n = 0; n < 4; n++)
			assert_int_equal(world->nodes[n].held[cell],
				!world->nodes[4].held[cell] &&
					pl_plan_holds(plan, cell / WORLD_EXPERTS, cell % WORLD_EXPERTS, n));
	assert_in_range(world_held_by(world, 4), WORLD_LAYERS, WORLD_CELLS / 4);
	pl_plan_free(plan);
	world_destroy(world);
}

static void pause_outlives_a_restart(void **state)
{
	(void)state;
	struct world *world = world_placed(4, WORLD_CELLS);
	struct pl_plan *plan = move_on(world);
	pl_control_pause(world->control, true);
	unsigned loads = world->loads;
	world_run(world, 5000);
	restart(world);
	world_run(world, 20000);
	assert_int_equal(world->loads, loads);
	pl_control_pause(world->control, false);
	world_run(world, 20000);
	assert_true(world->loads >= loads + WORLD_CELLS);
	pl_plan_free(plan);
	world_destroy(world);
}

/* ---- everything at once ---- */

static void random_plan(struct world *world, struct cad_random *random)
{
	struct pl_situation situation;
	struct pl_plan *plan;
	struct cad_error error;
	must(pl_control_situation(world->control, &situation, &error), &error);
	assert_int_equal(pl_plan_create(WORLD_LAYERS, WORLD_EXPERTS, situation.cluster.nodes_count, &plan), CAD_OK);
	memcpy(plan->layer, world_layers, sizeof world_layers);
	for (uint32_t cell = 0; cell < WORLD_CELLS && situation.cluster.nodes_count; cell++)
		for (uint64_t n = 1 + (cad_random_below(random, 5) == 0); n > 0; n--)
			pl_plan_put(plan, cell / WORLD_EXPERTS, cell % WORLD_EXPERTS,
				(uint32_t)cad_random_below(random, situation.cluster.nodes_count));
	(void)!pl_control_apply(world->control, &situation.cluster, plan, 0, &error); /* it may not fit */
	pl_plan_free(plan);
	pl_situation_fini(&situation);
}

static void something_is_wanted(struct world *world, struct cad_random *random)
{
	struct pl_control_change change;
	struct cad_error error;
	const char *node = world->nodes[cad_random_below(random, WORLD_NODES)].id;
	struct pl_expert expert = expert_of((uint32_t)cad_random_below(random, WORLD_CELLS));
	enum cad_status ignored = CAD_OK;

	switch (cad_random_below(random, 8)) {
	case 0: ignored = pl_control_drain(world->control, node, true, false, &change, &error); break;
	case 1:
	case 2: ignored = pl_control_drain(world->control, node, false, false, &change, &error); break;
	case 3: ignored = pl_control_pin(world->control, expert, node, false, &change, &error); break;
	case 4: ignored = pl_control_pin(world->control, expert, NULL, false, &change, &error); break;
	case 5:
		ignored = pl_control_copies(
			world->control, expert, 1 + (uint32_t)cad_random_below(random, 3), false, &change, &error);
		break;
	case 6:
		pl_control_pause(world->control, cad_random_below(random, 2));
		if (cad_random_below(random, 2))
			ignored = pl_control_stop(world->control, &error);
		break;
	default: random_plan(world, random); break;
	}
	(void)ignored;
	world->touched = true;
}

static void something_happens(struct world *world, struct cad_random *random)
{
	int n = (int)cad_random_below(random, WORLD_NODES), r = (int)cad_random_below(random, WORLD_ROUTERS);
	struct world_node *node = &world->nodes[n];

	switch (cad_random_below(random, 12)) {
	case 0: world_kill_node(world, n); break;
	case 1: node->stuck = !node->stuck; break;
	case 2:
		if (node->session) { /* its stream breaks, the process lives */
			pl_control_broken(world->control, node->session);
			node->session = 0;
			node->gone_ms = world->now_ms;
		}
		break;
	case 3: restart(world); break;
	case 4:
	case 5:
	case 6:
		if (!node->session)
			assert_int_equal(world_connect_node(world, n), CAD_OK);
		if (!world->routers[r].session)
			world_connect_router(world, r);
		break;
	default: something_is_wanted(world, random); break;
	}
}

static void storm_of_wishes(void **state)
{
	(void)state;
	uint64_t seed = 1313;
	print_message("seed %llu\n", (unsigned long long)seed);
	struct cad_random random = { seed };
	for (int round = 0; round < 12; round++) {
		struct world *world = world_placed(WORLD_NODES, 7 + cad_random_below(&random, 8));
		for (int event = 0; event < 60; event++) {
			something_happens(world, &random);
			world_run(world, 1 + cad_random_below(&random, cad_random_below(&random, 4) ? 300 : 4000));
		}
		/* calm: everybody is back, and all is well in the end */
		for (int i = 0; i < WORLD_NODES; i++) {
			world->nodes[i].stuck = false;
			if (!world->nodes[i].session)
				assert_int_equal(world_connect_node(world, i), CAD_OK);
		}
		pl_control_pause(world->control, false);
		world_run(world, 180000);
		assert_int_equal(world_unplaced(world), 0);
		struct pl_control_progress progress;
		pl_control_progress(world->control, &progress);
		assert_true(progress.settled);
		unsigned loads = world->loads, frees = world->frees;
		world_run(world, 20000);
		assert_int_equal(world->loads, loads);
		assert_int_equal(world->frees, frees);
		for (int i = 0; i < WORLD_NODES; i++)
			if (duty(world, i) != PL_DUTY_ACTIVE)
				assert_int_equal(duty(world, i), PL_DUTY_SAFE_TO_STOP);
		world_destroy(world);
	}
}

int main(void)
{
	/* what the service logs about nodes that die here is nobody's worry */
	cad_log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(drained_node_is_emptied_and_stays_so),
		cmocka_unit_test(drain_is_refused_without_room),
		cmocka_unit_test(draining_node_keeps_what_has_no_other_place),
		cmocka_unit_test(pinned_expert_moves_and_stays),
		cmocka_unit_test(contradicting_pins_are_refused),
		cmocka_unit_test(plan_in_force_has_the_pins),
		cmocka_unit_test(single_experts_have_more_copies),
		cmocka_unit_test(second_pin_needs_a_second_copy),
		cmocka_unit_test(killed_at_every_step_a_plan_goes_on),
		cmocka_unit_test(whoever_dies_at_any_step_a_plan_goes_on),
		cmocka_unit_test(node_joins_while_experts_move),
		cmocka_unit_test(pause_outlives_a_restart),
		cmocka_unit_test(storm_of_wishes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
