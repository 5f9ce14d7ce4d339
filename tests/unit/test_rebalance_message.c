/* SPDX-License-Identifier: Apache-2.0 */
/* Placements and maps as messages: there and back without a difference, and what is no map is
 * refused with a sentence. */
#include "orchestration/placement/rebalance_message.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 2, EXPERTS = 3, NODES = 3 };

struct world {
	struct pl_situation situation;
	struct cad_rpc_arena arena;
	Cadre__V1__PlacementMap *map;
	Cadre__V1__ApplyMapRequest request; /* of the same placement */
	char *names[NODES];
};

static int setup(void **state)
{
	static struct world world;
	struct cad_error error;

	world = (struct world){ .map = NULL };
	must(pl_cluster_create(NODES, 0, &world.situation.cluster, &error), &error);
	world.situation.cluster.rules = calloc(1, sizeof *world.situation.cluster.rules);
	world.situation.cluster.rules[0] = (struct pl_cluster_rule){ 7, 1, 2, false };
	world.situation.cluster.rules_count = 1;
	world.situation.cluster.nodes[1].forbidden = true;
	assert_int_equal(pl_plan_create(LAYERS, EXPERTS, NODES, &world.situation.present), CAD_OK);
	world.situation.present->layer[1] = 7;
	for (uint32_t l = 0; l < LAYERS; l++)
		for (uint32_t e = 0; e < EXPERTS; e++)
			for (uint32_t n = 0; n <= l; n++)
				pl_plan_put(world.situation.present, l, e, (e + n) % NODES);
	cad_rpc_arena_init(&world.arena, 1 << 20);
	world.map = pl_situation_to_proto(&world.situation, &world.arena);
	assert_non_null(world.map);
	cadre__v1__apply_map_request__init(&world.request);
	for (uint32_t n = 0; n < NODES; n++)
		world.names[n] = world.map->nodes[n]->id;
	world.request.nodes = world.names;
	world.request.n_nodes = NODES;
	world.request.layers = world.map->layers;
	world.request.n_layers = LAYERS;
	*state = &world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;
	cad_rpc_arena_reset(&world->arena);
	pl_situation_fini(&world->situation);
	return 0;
}

static void a_placement_goes_there_and_back(void **state)
{
	struct world *world = *state;
	const struct pl_plan *present = world->situation.present;
	struct pl_plan *plan;
	struct pl_cluster nodes;
	struct cad_error error;

	assert_true(world->map->nodes[1]->forbidden && !world->map->nodes[0]->forbidden);
	assert_int_equal(world->map->n_rules, 1);
	assert_true(world->map->rules[0]->layer == 7 && world->map->rules[0]->node == 2);
	must(pl_plan_from_proto(&world->request, &plan, &nodes, &error), &error);
	assert_int_equal(plan->layer[1], 7);
	assert_memory_equal(plan->bits, present->bits, (size_t)LAYERS * EXPERTS * present->words * sizeof *plan->bits);
	assert_string_equal(nodes.nodes[2].id, "n2");
	pl_cluster_fini(&nodes);
	pl_plan_free(plan);
}

static void no_memory_is_no_message(void **state)
{
	struct world *world = *state;
	struct cad_rpc_arena little;

	for (size_t bytes = 0; bytes < 256; bytes += 16) {
		cad_rpc_arena_init(&little, bytes);
		assert_null(pl_situation_to_proto(&world->situation, &little));
		cad_rpc_arena_reset(&little);
	}
}

static void expect_refusal(struct world *world, const char *says)
{
	struct pl_plan *plan;
	struct pl_cluster nodes;
	struct cad_error error;

	assert_int_equal(pl_plan_from_proto(&world->request, &plan, &nodes, &error), CAD_ERR_INVALID);
	if (!strstr(error.text, says))
		fail_msg("'%s' does not say '%s'", error.text, says);
}

static void what_is_no_map_is_refused(void **state)
{
	struct world *world = *state;
	Cadre__V1__LayerMap *layer = world->request.layers[1];
	Cadre__V1__Replicas *expert = layer->experts[2];

	expert->nodes[1] = NODES;
	expect_refusal(world, "layer 7 expert 2 on node number 3, which is not in its list");
	expert->nodes[1] = expert->nodes[0];
	expect_refusal(world, "which is there twice");
	expert->n_nodes = 0;
	expect_refusal(world, "the map leaves layer 7 expert 2 without a copy");
	layer->n_experts = EXPERTS - 1;
	expect_refusal(world, "layer 7 of the map has 2 experts, the first one 3");
	layer->layer = 0;
	expect_refusal(world, "the layers of the map must ascend");
	world->names[1] = world->names[0];
	expect_refusal(world, "the map names node 'n0' twice");
	world->names[1] = (char *)"a b";
	expect_refusal(world, "node 1 of the map has no id");
	world->request.n_layers = 0;
	expect_refusal(world, "this one has 3, 0 and 0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_placement_goes_there_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(no_memory_is_no_message, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_map_is_refused, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
