/* SPDX-License-Identifier: Apache-2.0 */
/* What a search keeps up to date from change to change, against what its replicas say: who holds
 * what, whose rows are nobody else's, and how strained nodes are. */
#include "orchestration/planner/solve/search.h"
#include "tests/support/must.h"
#include "tests/support/plans.h"

#include <math.h>

/* The rule of docs/PLANNER.md, written down once more. */
static void check(const struct pl_search *search)
{
	const struct pl_site *site = search->site;
	uint32_t used[8] = { 0 }, copies = 0;
	double own[8] = { 0 }, own_all = 0, rows_all = (double)search->layer->pairs;

	for (uint32_t e = 0; e < site->experts; e++) {
		struct cad_map_replicas replicas = search->replicas.of[e];
		for (uint32_t r = 0; r < replicas.count; r++, copies++)
			used[replicas.nodes[r]]++;
		own[replicas.nodes[0]] += replicas.count == 1 ? pl_layer_uses(search->layer, e) : 0;
		own_all += replicas.count == 1 ? pl_layer_uses(search->layer, e) : 0;
	}

	assert_int_equal(search->copies, copies);
	double chance = fmin(0.075 * (sqrt(2 * log(site->nodes)) - 0.6), site->weights->load_max - own_all / rows_all),
	       sum = 0;
	for (uint32_t n = 0; n < site->nodes; n++) {
		double fair = rows_all * site->cluster->nodes[n].speed / 6, rows = 0;
		for (size_t i = 0; i < (size_t)search->layer->tokens * search->layer->k; i++)
			rows += search->home[i] == n;
		double over = fmax(fmax(rows / fair + 0.05, own[n] / fair + chance) - site->weights->load_max, 0);
		assert_int_equal(search->used[n], used[n]);
		assert_int_equal(search->own[n], (uint32_t)own[n]);
		assert_true(fabs(search->ratio[n] - rows / fair) < 1e-9);
		sum += pow(over + 2 * over * over, 4);
	}

	assert_true(fabs(search->load_cost - pow(sum, 0.25)) < 1e-9);
}

static void changes_and_their_undoing_leave_no_trace(void **state)
{
	(void)state;
	struct cad_random random = { 707 };
	struct cad_error error;
	struct pl_trace *trace = make_trace(1, 24, 4, 300, 4, 0.6, 9);
	struct pl_weights weights = pl_weights_of(PL_WORKLOAD_MIXED);
	struct pl_cluster cluster;
	struct scene scene;
	uint32_t labels[24], own_changed = 0;
	must(pl_cluster_create(5, 24, &cluster, &error), &error);
	cluster.nodes[2].speed = 2;
	for (uint32_t e = 0; e < 24; e++)
		labels[e] = e % 5;
	scene_init(&scene, trace, &cluster, &weights, 48, labels);
	struct pl_search *search = &scene.search;
	check(search);

	for (int i = 0; i < 400; i++) {
		uint32_t expert = (uint32_t)cad_random_below(&random, 24),
			 node = (uint32_t)cad_random_below(&random, 5);
		bool held = pl_replicas_hold(&search->replicas, expert, node);
		if (held && search->replicas.of[expert].count == 1)
			continue;
		uint64_t own = search->own_total;
		double value = search->value;
		const struct pl_change change = { expert, node, !held };
		double grown = pl_search_try(search, &change, 1);
		assert_true(fabs(search->value - (value + grown)) < 1e-9);
		own_changed += search->own_total != own;
		check(search);
		if (cad_random_below(&random, 2)) {
			pl_search_undo(search);
			assert_true(fabs(search->value - value) < 1e-9);
			assert_int_equal(search->own_total, own);
			check(search);
		}
	}

	assert_true(own_changed > 20);
	scene_fini(&scene);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(changes_and_their_undoing_leave_no_trace) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
