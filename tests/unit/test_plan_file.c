/* SPDX-License-Identifier: Apache-2.0 */
/* Plans and clusters as files: written and read without a difference, and refused with a sentence
 * when they are not what they should be. */
#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/plan.h"

#include "common/base/clock.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_plan_survives_its_file(void **state)
{
	(void)state;
	struct cad_random random = { 4 };
	struct cad_error error;
	for (uint32_t nodes = 1; nodes <= 130; nodes += 43) {
		struct pl_plan *plan, *again;
		assert_int_equal(pl_plan_create(3, 9, nodes, &plan), CAD_OK);
		for (uint32_t l = 0; l < 3; l++) {
			plan->layer[l] = 2 + 3 * l;
			for (uint32_t e = 0; e < 9; e++)
				for (int r = 0; r < 3; r++)
					pl_plan_put(plan, l, e, (uint32_t)cad_random_below(&random, nodes));
		}
		struct pl_cluster named, read;
		must(pl_cluster_create(nodes, 0, &named, &error), &error);
		json_t *json = pl_plan_to_json(plan, nodes > 1 ? &named : NULL, "test", 9, 0.5);
		assert_non_null(json);
		char *text = json_dumps(json, 0);
		must(pl_plan_parse("plan", text, strlen(text), &again, &read, &error), &error);
		assert_int_equal(read.nodes_count, nodes > 1 ? nodes : 0);
		for (uint32_t n = 0; n < read.nodes_count; n++)
			assert_string_equal(read.nodes[n].id, named.nodes[n].id);
		pl_cluster_fini(&named);
		pl_cluster_fini(&read);
		assert_int_equal(again->layers, 3);
		assert_int_equal(again->nodes, nodes);
		assert_memory_equal(again->layer, plan->layer, 3 * sizeof *plan->layer);
		assert_memory_equal(again->bits, plan->bits, 3 * 9 * (size_t)plan->words * sizeof *plan->bits);
		assert_int_equal(pl_plan_copies(again), pl_plan_copies(plan));
		free(text);
		json_decref(json);
		pl_plan_free(again);
		pl_plan_free(plan);
	}
}

struct wrong {
	const char *text, *says;
};

#define NAMED(ids) \
	"{\"format\": \"cadre-placement-1\", \"nodes\": 2, \"layers\": {\"0\": {\"0\": [0]}}, \"node_ids\": " ids "}"
#define PLAN(nodes, layers) "{\"format\": \"cadre-placement-1\", \"nodes\": " nodes ", \"layers\": " layers "}"

static void wrong_plans_are_refused(void **state)
{
	(void)state;
	static const struct wrong list[] = {
		{ "", "line 1: '[' or '{' expected near end of file: this is not JSON" },
		{ "[]", "not a placement" },
		{ "{\"format\": \"other\"}", "not a placement" },
		{ PLAN("0", "{}"), "\"nodes\" must be" },
		{ PLAN("100000", "{}"), "\"nodes\" must be" },
		{ PLAN("2", "{}"), "1 to" },
		{ PLAN("2", "[]"), "1 to" },
		{ PLAN("2", "{\"0\": {}}"), "1 to" },
		{ PLAN("2", "{\"x\": {\"0\": [0]}}"), "layer 'x'" },
		{ PLAN("2", "{\"00\": {\"0\": [0]}}"), "layer '00'" },
		{ PLAN("2", "{\"0\": {\"1\": [0]}}"), "expert '1'" },
		{ PLAN("2", "{\"0\": {\"0\": []}}"), "no list of nodes" },
		{ PLAN("2", "{\"0\": {\"0\": 1}}"), "no list of nodes" },
		{ PLAN("2", "{\"0\": {\"0\": [2]}}"), "not a node from 0 to 1" },
		{ PLAN("2", "{\"0\": {\"0\": [-1]}}"), "not a node" },
		{ PLAN("2", "{\"0\": {\"0\": [1, 1]}}"), "twice" },
		{ PLAN("2", "{\"0\": {\"0\": [1]}, \"1\": {\"0\": [1], \"1\": [0]}}"),
			"layer 1 does not have the 1 experts" },
		{ PLAN("2", "{\"0\": {\"0\": [1], \"0\": [0]}}"), "line" },
		{ NAMED("1"), "must be a list of as many ids" },
		{ NAMED("[\"a\"]"), "must be a list of as many ids" },
		{ NAMED("[\"a\", 1]"), "entry 1 is not an id" },
		{ NAMED("[\"a\", \"b c\"]"), "entry 1 is not an id" },
		{ NAMED("[\"a\", \"a\"]"), "names 'a' twice" },
	};
	for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
		struct pl_plan *plan;
		struct pl_cluster nodes;
		struct cad_error error;
		assert_int_equal(pl_plan_parse("plan.json", list[i].text, strlen(list[i].text), &plan, &nodes, &error),
			CAD_ERR_CORRUPT);
		if (!strstr(error.text, list[i].says) || strncmp(error.text, "plan.json: ", 11) != 0)
			fail_msg("'%s' is answered with '%s', not with '%s'", list[i].text, error.text, list[i].says);
	}
}

static void a_cluster_is_read(void **state)
{
	(void)state;
	static const char text[] =
		"{\"expert_bytes\": 100, \"image_bytes\": 90, \"nodes\": [{\"id\": \"a\", \"slots\": 4, \"domain\": \"p\", \"rack\": \"r1\"},"
		"{\"id\": \"b\", \"memory_bytes\": 5000, \"expert_bytes\": 300, \"speed\": 2, \"link\": 0.5, \"domain\": \"q\", \"rack\": \"r2\"},"
		"{\"id\": \"c\", \"forbidden\": true, \"domain\": \"p\", \"rack\": \"r1\"}],"
		"\"pin\": [{\"layer\": 3, \"expert\": 7, \"node\": \"b\"}], \"forbid\": [{\"expert\": 1, \"node\": \"a\"}]}";
	struct pl_cluster cluster;
	struct cad_error error;
	must(pl_cluster_parse("cluster", text, strlen(text), &cluster, &error), &error);
	assert_int_equal(cluster.nodes_count, 3);
	assert_int_equal(cluster.racks_count, 2);
	assert_int_equal(cluster.nodes[0].slots, 4);
	assert_int_equal(cluster.nodes[1].memory_bytes, 5000);
	assert_int_equal(pl_cluster_expert_bytes(&cluster, 0), 100);
	assert_int_equal(pl_cluster_image_bytes(&cluster, 0), 90);
	assert_int_equal(pl_cluster_image_bytes(&cluster, 1), 90);
	assert_int_equal(pl_cluster_room(&cluster, 1), 16);
	assert_int_equal(pl_cluster_room(&cluster, 2), 0);
	assert_true(cluster.nodes[1].speed == 2 && cluster.nodes[1].link == 0.5 && cluster.nodes[0].speed == 1);
	assert_true(cluster.nodes[0].domain == cluster.nodes[2].domain &&
		cluster.nodes[0].domain != cluster.nodes[1].domain);
	assert_true(cluster.nodes[0].rack == cluster.nodes[2].rack && cluster.nodes[0].rack != cluster.nodes[1].rack);
	assert_true(cluster.nodes[2].forbidden && !cluster.nodes[0].forbidden);
	assert_int_equal(cluster.rules_count, 2);
	assert_true(cluster.rules[0].layer == 3 && cluster.rules[0].expert == 7 && cluster.rules[0].node == 1 &&
		!cluster.rules[0].forbidden);
	assert_true(
		cluster.rules[1].layer == PL_CLUSTER_ANY && cluster.rules[1].node == 0 && cluster.rules[1].forbidden);
	assert_int_equal(pl_cluster_find(&cluster, "c"), 2);
	assert_int_equal(pl_cluster_find(&cluster, "d"), PL_CLUSTER_ANY);
	pl_cluster_fini(&cluster);
}

static void wrong_clusters_are_refused(void **state)
{
	(void)state;
	static const struct wrong list[] = {
		{ "", "line" },
		{ "[]", "not an object" },
		{ "{}", "\"nodes\" must list" },
		{ "{\"nodes\": [], \"x\": 1}", "unknown key \"x\"" },
		{ "{\"nodes\": [1]}", "not an object" },
		{ "{\"nodes\": [{\"slots\": 1}]}", "needs an \"id\"" },
		{ "{\"nodes\": [{\"id\": \"a b\", \"slots\": 1}]}", "needs an \"id\"" },
		{ "{\"nodes\": [{\"id\": \"a\"}]}", "either \"slots\" or" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1, \"memory_bytes\": 2}]}", "either \"slots\" or" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": -1}]}", "whole number" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1, \"speed\": 0}]}", "\"speed\" must be" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1, \"link\": \"x\"}]}", "\"link\" must be" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1, \"forbidden\": 1}]}", "true or false" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1, \"rack\": 1}]}", "are names" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1}, {\"id\": \"a\", \"slots\": 1}]}", "two nodes" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1, \"rack\": \"r\"}, {\"id\": \"b\", \"slots\": 1}]}",
			"no \"rack\"" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1}, {\"id\": \"b\", \"slots\": 1, \"rack\": \"r\"}]}",
			"but others do not" },
		{ "{\"nodes\": [{\"id\": \"a\", \"memory_bytes\": 1}]}", "the size of an expert" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1}], \"pin\": 1}", "list" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1}], \"pin\": [{\"expert\": 1}]}",
			"a \"node\" from the list" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1}], \"forbid\": [{\"expert\": 1, \"node\": \"b\"}]}",
			"a \"node\" from the list" },
		{ "{\"nodes\": [{\"id\": \"a\", \"slots\": 1}], \"forbid\": [{\"expert\": 1.5, \"node\": \"a\"}]}",
			"whole number" },
	};
	for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
		struct pl_cluster cluster;
		struct cad_error error;
		assert_int_equal(pl_cluster_parse("c.json", list[i].text, strlen(list[i].text), &cluster, &error),
			CAD_ERR_CORRUPT);
		if (!strstr(error.text, list[i].says) || strncmp(error.text, "c.json: ", 8) != 0)
			fail_msg("'%s' is answered with '%s', not with '%s'", list[i].text, error.text, list[i].says);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plan_survives_its_file),
		cmocka_unit_test(wrong_plans_are_refused),
		cmocka_unit_test(a_cluster_is_read),
		cmocka_unit_test(wrong_clusters_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
