/* SPDX-License-Identifier: Apache-2.0 */
/* The plan in force, on a clock of the test's own (tests/support/control_world.h): it is checked,
 * reached, kept to when nodes die, come back and join, paused and stopped. That every expert is
 * served at every instant is checked at every order and every map. */
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

static struct pl_situation look(const struct world *world)
{
	struct pl_situation situation;
	struct cad_error error;
	must(pl_control_situation(world->control, &situation, &error), &error);
	return situation;
}

/* A plan that gives expert e of row l to node (e + l + by) % nodes, and nothing else to anybody. */
static struct pl_plan *turned(const struct pl_situation *situation, uint32_t by, uint32_t nodes)
{
	struct pl_plan *plan;
	assert_int_equal(pl_plan_create(WORLD_LAYERS, WORLD_EXPERTS, situation->cluster.nodes_count, &plan), CAD_OK);
	memcpy(plan->layer, world_layers, sizeof world_layers);
	for (uint32_t l = 0; l < WORLD_LAYERS; l++)
		for (uint32_t e = 0; e < WORLD_EXPERTS; e++)
			pl_plan_put(plan, l, e, (e + l + by) % nodes);
	return plan;
}

static void apply_turned(struct world *world, uint32_t by, uint32_t nodes)
{
	struct pl_situation situation = look(world);
	struct pl_plan *plan = turned(&situation, by, nodes);
	struct cad_error error;
	must(pl_control_apply(world->control, &situation.cluster, plan, 0, &error), &error);
	pl_plan_free(plan);
	pl_situation_fini(&situation);
	world->touched = true;
}

/* Does everybody hold what the turned plan says, and no more? */
static bool holds_turned(const struct world *world, uint32_t by, uint32_t nodes)
{
	for (uint32_t cell = 0; cell < WORLD_CELLS; cell++)
		for (uint32_t n = 0; n < WORLD_NODES; n++)
			if (world->nodes[n].held[cell] !=
				(n == (cell % WORLD_EXPERTS + cell / WORLD_EXPERTS + by) % nodes))
				return false;
	return true;
}

static struct pl_control_progress progress(const struct world *world)
{
	struct pl_control_progress found;
	pl_control_progress(world->control, &found);
	return found;
}

static void situation_shows_who_holds_what(void **state)
{
	(void)state;
	struct world *world = world_placed(3, WORLD_CELLS);
	struct pl_situation situation = look(world);
	assert_int_equal(situation.cluster.nodes_count, 3);
	assert_int_equal(situation.cluster.expert_bytes, 100);
	assert_int_equal(situation.cluster.image_bytes, 80);
	assert_int_equal(situation.epoch, world->last_epoch);
	assert_int_equal(situation.present->layer[2], world_layers[2]);
	for (uint32_t n = 0; n < 3; n++) {
		uint32_t at = pl_cluster_find(&situation.cluster, world->nodes[n].id);
		assert_int_equal(situation.cluster.nodes[at].memory_bytes, WORLD_CELLS * 100 + 5);
		for (uint32_t cell = 0; cell < WORLD_CELLS; cell++)
			assert_int_equal(
				pl_plan_holds(situation.present, cell / WORLD_EXPERTS, cell % WORLD_EXPERTS, at),
				world->nodes[n].held[cell]);
	}
	pl_situation_fini(&situation);
	world_destroy(world);
}

static void plan_is_reached_and_stays(void **state)
{
	(void)state;
	struct world *world = world_placed(4, WORLD_CELLS);
	assert_true(progress(world).settled);
	apply_turned(world, 1, 4);
	assert_false(progress(world).settled);
	world_run(world, 1);
	uint32_t moves = progress(world).moves;
	assert_true(moves > WORLD_CELLS / 2);
	assert_int_equal(progress(world).bytes, moves * 80); /* what moves, not what it takes there */
	world_run(world, 10000);

	assert_true(holds_turned(world, 1, 4));
	struct pl_control_progress now = progress(world);
	assert_true(now.settled);
	assert_int_equal(now.done, moves);
	assert_int_equal(now.moves, moves);
	assert_int_equal(now.bytes_done, now.bytes);
	assert_int_equal(now.failed + now.in_flight, 0);
	assert_true(now.freed_ns > now.moved_ns);
	unsigned loads = world->loads;
	world_run(world, 30000);
	assert_int_equal(world->loads, loads);
	world_destroy(world);
}

/* A plan for uneven layers, which levelling would even out. */
static void levelling_does_not_undo_a_plan(void **state)
{
	(void)state;
	struct world *world = world_placed(4, WORLD_CELLS);
	apply_turned(world, 0, 2);
	world_run(world, 10000);
	assert_true(holds_turned(world, 0, 2));
	world_run(world, 30000);
	assert_true(holds_turned(world, 0, 2));
	world_destroy(world);
}

static void what_is_lost_comes_back_and_then_the_plan(void **state)
{
	(void)state;
	struct world *world = world_placed(4, WORLD_CELLS);
	apply_turned(world, 1, 4);
	world_run(world, 10000);
	world_kill_node(world, 2);
	world_run(world, 3000);
	assert_int_equal(world_unplaced(world), 0);
	assert_int_equal(world_held_by(world, 0) + world_held_by(world, 1) + world_held_by(world, 3), WORLD_CELLS);
	assert_true(progress(world).settled);

	assert_int_equal(world_connect_node(world, 2), CAD_OK);
	world_run(world, 10000);
	assert_true(holds_turned(world, 1, 4));
	world_destroy(world);
}

/* Experts move to it from the others, as many as are even, and never between those. */
static void new_node_is_filled_once(void **state)
{
	(void)state;
	struct world *world = world_placed(4, WORLD_CELLS);
	apply_turned(world, 1, 4);
	world_run(world, 10000);
	bool before[4][WORLD_CELLS];
	for (int n = 0; n < 4; n++)
		memcpy(before[n], world->nodes[n].held, sizeof before[n]);

	assert_int_equal(world_connect_node(world, 4), CAD_OK);
	world_run(world, 15000);
	assert_in_range(world_held_by(world, 4), WORLD_LAYERS, WORLD_CELLS / 4);
	bool filled[WORLD_CELLS];
	memcpy(filled, world->nodes[4].held, sizeof filled);
	for (int n = 0; n < 4; n++)
		for (int cell = 0; cell < WORLD_CELLS; cell++)
			assert_int_equal(world->nodes[n].held[cell], before[n][cell] && !filled[cell]);

	/* now it is of the plan: what it loses comes back to it */
	world_kill_node(world, 4);
	world_run(world, 3000);
	assert_int_equal(world_unplaced(world), 0);
	assert_int_equal(world_connect_node(world, 4), CAD_OK);
	world_run(world, 15000);
	assert_memory_equal(world->nodes[4].held, filled, sizeof filled);
	world_destroy(world);
}

static void new_node_is_not_filled_unless_asked_for(void **state)
{
	(void)state;
	struct world *world = world_create();
	pl_control_destroy(world->control);
	world->options.level_on_join = false;
	world_start(world);
	for (int i = 0; i < 4; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 5000);
	apply_turned(world, 1, 4);
	world_run(world, 10000);
	assert_int_equal(world_connect_node(world, 4), CAD_OK);
	world_run(world, 15000);
	assert_true(holds_turned(world, 1, 4));
	world_destroy(world);
}

static void pause_holds_moves_but_not_what_is_needed(void **state)
{
	(void)state;
	struct world *world = world_placed(4, WORLD_CELLS);
	apply_turned(world, 1, 4);
	world_run(world, 20);
	pl_control_pause(world->control, true);
	world_run(world, 5000);
	assert_int_equal(progress(world).in_flight, 0);
	unsigned loads = world->loads;
	world_run(world, 5000);
	assert_int_equal(world->loads, loads);
	assert_false(holds_turned(world, 1, 4));

	world_kill_node(world, 3);
	world_run(world, 3000);
	assert_int_equal(world_unplaced(world), 0);
	assert_true(world->loads > loads);

	assert_int_equal(world_connect_node(world, 3), CAD_OK);
	pl_control_pause(world->control, false);
	world_run(world, 15000);
	assert_true(holds_turned(world, 1, 4));
	world_destroy(world);
}

static void stop_leaves_everything_where_it_is(void **state)
{
	(void)state;
	struct world *world = world_placed(4, WORLD_CELLS);
	struct cad_error error;
	assert_int_equal(pl_control_stop(world->control, &error), CAD_ERR_NOT_FOUND);
	assert_string_equal(error.text, "there is no plan in force");
	apply_turned(world, 1, 4);
	world_run(world, 20);
	must(pl_control_stop(world->control, &error), &error);
	world_run(world, 10000);
	assert_true(progress(world).settled);
	assert_false(holds_turned(world, 1, 4));
	uint32_t held = 0;
	for (int n = 0; n < 4; n++)
		held += world_held_by(world, n);
	assert_int_equal(held, WORLD_CELLS);
	unsigned loads = world->loads;
	world_run(world, 20000);
	assert_int_equal(world->loads, loads);
	world_destroy(world);
}

/* What check says of a plan that `spoil` has changed. */
static void refused(struct world *world, void (*spoil)(struct pl_situation *, struct pl_plan *), enum cad_status status,
	const char *text)
{
	struct pl_situation situation = look(world);
	struct pl_plan *plan = turned(&situation, 1, 4);
	struct cad_error error;
	spoil(&situation, plan);
	assert_int_equal(pl_control_check(world->control, &situation.cluster, plan, &error), status);
	assert_string_equal(error.text, text);
	assert_int_equal(pl_control_apply(world->control, &situation.cluster, plan, 0, &error), status);
	pl_plan_free(plan);
	pl_situation_fini(&situation);
}
static void spoil_layers(struct pl_situation *situation, struct pl_plan *plan)
{
	(void)situation;
	plan->layers--;
}
static void spoil_layer(struct pl_situation *situation, struct pl_plan *plan)
{
	(void)situation;
	plan->layer[1] = 3;
}
static void spoil_count(struct pl_situation *situation, struct pl_plan *plan)
{
	(void)plan;
	situation->cluster.nodes_count--;
}
static void spoil_id(struct pl_situation *situation, struct pl_plan *plan)
{
	(void)plan;
	memcpy(situation->cluster.nodes[2].id, "stranger", sizeof "stranger");
}
static void spoil_expert(struct pl_situation *situation, struct pl_plan *plan)
{
	(void)situation;
	for (uint32_t n = 0; n < plan->nodes; n++)
		pl_plan_take(plan, 2, 5, n);
}

static void bad_plans_are_refused(void **state)
{
	(void)state;
	struct world *world = world_placed(4, WORLD_CELLS);
	refused(world, spoil_layers, CAD_ERR_INVALID,
		"the plan is for 2 layers of 8 experts, the model has 3 MoE layers of 8: plan for this model");
	refused(world, spoil_layer, CAD_ERR_INVALID,
		"the plan is for layer 3, which is no MoE layer of the model: plan for this model");
	refused(world, spoil_count, CAD_ERR_INVALID, "the plan is for 4 nodes, but 3 are named");
	refused(world, spoil_id, CAD_ERR_INVALID,
		"the plan gives 6 experts to node 'stranger', which is no expert node of this cluster now: plan for the nodes that there are");
	refused(world, spoil_expert, CAD_ERR_INVALID, "the plan leaves layer 5 expert 5 without a node");
	unsigned loads = world->loads;
	world_run(world, 10000);
	assert_int_equal(world->loads, loads);
	world_destroy(world);
}

static void plan_beyond_a_nodes_room_is_refused(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 4; i++)
		world->nodes[i].memory = 10;
	for (int i = 0; i < 4; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 5000);
	struct pl_situation situation = look(world);
	struct pl_plan *plan = turned(&situation, 0, 2);
	struct cad_error error;
	assert_int_equal(pl_control_check(world->control, &situation.cluster, plan, &error), CAD_ERR_EXHAUSTED);
	assert_string_equal(
		error.text, "the plan gives 12 experts to node 'node-0', which has room for 10: 0.0 MiB are missing");
	pl_plan_free(plan);
	pl_situation_fini(&situation);
	world_destroy(world);
}

/* A node whose experts are larger is given as many as fit there, first and by a plan. */
static void room_is_counted_by_each_nodes_own_size(void **state)
{
	(void)state;
	struct world *world = world_create();
	world->nodes[0].memory = 3;
	world->nodes[0].expert_bytes = 250;
	for (int i = 0; i < 4; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 5000);
	assert_int_equal(world_held_by(world, 0), 3);
	assert_int_equal(cad_map_unplaced(pl_control_map(world->control)), 0);
	struct pl_situation situation = look(world);
	struct pl_plan *plan = turned(&situation, 0, 2);
	struct cad_error error;
	assert_int_equal(pl_control_check(world->control, &situation.cluster, plan, &error), CAD_ERR_EXHAUSTED);
	assert_non_null(strstr(error.text, "to node 'node-0', which has room for 3"));
	pl_plan_free(plan);
	pl_situation_fini(&situation);
	world_destroy(world);
}

/* What experts turn out to take on a node is what is counted there, and shown. */
static void a_node_whose_experts_are_larger_than_it_said(void **state)
{
	(void)state;
	struct world *world = world_create();
	world->nodes[0].memory = 6;
	world->nodes[0].loaded_bytes = 250;
	world->nodes[1].expert_bytes = 120;
	for (int i = 0; i < 4; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 5000);
	const struct pl_registry *registry = pl_control_registry(world->control);
	struct pl_situation situation = look(world);
	for (int i = 0; i < 4; i++) {
		int slot = pl_registry_find(registry, world->nodes[i].id);
		uint32_t n = pl_cluster_find(&situation.cluster, world->nodes[i].id);
		uint64_t bytes = i == 0 ? 250 : i == 1 ? 120 : 100;
		assert_true(slot >= 0);
		assert_int_equal(registry->nodes[slot].expert_bytes, bytes);
		assert_int_equal(pl_cluster_expert_bytes(&situation.cluster, n), bytes);
	}
	pl_situation_fini(&situation);
	world_destroy(world);
}

/* A node whose loads do not come on: they are given up, and the plan keeps what is where. */
static void stalled_moves_are_backed_out(void **state)
{
	(void)state;
	struct world *world = world_placed(4, WORLD_CELLS);
	world->nodes[2].stuck = true;
	apply_turned(world, 1, 4);
	world_run(world, 29000);
	assert_int_equal(progress(world).failed, 0);
	world_run(world, 200 * 1000);
	struct pl_control_progress now = progress(world);
	assert_true(now.settled);
	assert_in_range(now.failed, 4, 6);
	assert_int_equal(now.done + now.failed, now.moves);
	assert_int_equal(pl_control_stats(world->control)->loads_stalled, now.failed);
	assert_non_null(strstr(
		now.text, "did not come on for 30 s on node 'node-2', which was told to free it; it stays on node '"));
	assert_non_null(strstr(world->did, now.text));
	assert_int_equal(world_unplaced(world), 0);

	/* what it could not load it is not asked for again, in vain */
	world->nodes[2].stuck = false;
	unsigned loads = world->loads;
	world_run(world, 60000);
	assert_int_equal(world->loads, loads);
	world_destroy(world);
}

/* Full nodes: experts change places over the only free one. Without any that is refused. */
static void full_nodes_exchange_experts(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 4; i++)
		world->nodes[i].memory = 6 + (i == 3);
	for (int i = 0; i < 4; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	for (int r = 0; r < WORLD_ROUTERS; r++)
		world_connect_router(world, r);
	world_run(world, 5000);
	apply_turned(world, 1, 4);
	world_run(world, 120000);
	assert_true(holds_turned(world, 1, 4));
	assert_true(progress(world).settled);
	assert_int_equal(progress(world).failed, 0);
	world_destroy(world);
}

static void full_nodes_without_any_room_are_refused(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 4; i++)
		world->nodes[i].memory = 6;
	for (int i = 0; i < 4; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 5000);
	struct pl_situation situation = look(world);
	struct pl_plan *plan = turned(&situation, 1, 4);
	struct cad_error error;
	assert_int_equal(pl_control_apply(world->control, &situation.cluster, plan, 0, &error), CAD_ERR_EXHAUSTED);
	assert_string_equal(error.text,
		"the nodes are so full that experts cannot change places while every one of them is served: room for one more expert, 0.00 MiB, is missing on any of the 4 nodes");
	pl_plan_free(plan);
	pl_situation_fini(&situation);
	world_destroy(world);
}

int main(void)
{
	/* what the service logs about nodes that die here is nobody's worry */
	cad_log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(situation_shows_who_holds_what),
		cmocka_unit_test(plan_is_reached_and_stays),
		cmocka_unit_test(levelling_does_not_undo_a_plan),
		cmocka_unit_test(what_is_lost_comes_back_and_then_the_plan),
		cmocka_unit_test(new_node_is_filled_once),
		cmocka_unit_test(new_node_is_not_filled_unless_asked_for),
		cmocka_unit_test(pause_holds_moves_but_not_what_is_needed),
		cmocka_unit_test(stop_leaves_everything_where_it_is),
		cmocka_unit_test(stalled_moves_are_backed_out),
		cmocka_unit_test(full_nodes_exchange_experts),
		cmocka_unit_test(full_nodes_without_any_room_are_refused),
		cmocka_unit_test(bad_plans_are_refused),
		cmocka_unit_test(plan_beyond_a_nodes_room_is_refused),
		cmocka_unit_test(room_is_counted_by_each_nodes_own_size),
		cmocka_unit_test(a_node_whose_experts_are_larger_than_it_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
