/* SPDX-License-Identifier: Apache-2.0 */
/* What plans are predicted to do: by the rule written down plainly, layer after layer; bounds that
 * no placement beats; explanations. */
#include "orchestration/planner/predict/bound.h"
#include "orchestration/planner/predict/explain.h"
#include "orchestration/planner/predict/measure.h"
#include "tests/support/must.h"
#include "tests/support/plans.h"

#include <math.h>
#include <stdio.h>

/* The rule of common/cluster/cover.h, written down without any cleverness: returns nodes a token
 * and the busiest node over the mean. */
static void measure_plainly(
	const struct pl_sample *sample, const struct pl_plan *plan, bool guard, double *nodes, double *load)
{
	const struct pl_trace *trace = sample->trace;
	uint64_t touched = 0, rows[64] = { 0 }, total = 0;

	for (uint32_t t = 0; t < sample->tokens; t++) {
		const uint16_t *ids = pl_trace_row(trace, 0, sample->token[t]);
		bool chosen[64] = { false }, done[32] = { false };
		for (uint32_t left = trace->k; left > 0;) {
			uint32_t best = 64;
			float best_score = 0;
			for (uint32_t n = 0; n < plan->nodes; n++) {
				uint32_t count = 0;
				for (uint32_t j = 0; j < trace->k; j++)
					count += !done[j] && pl_plan_holds(plan, 0, ids[j], n);
				if (count == 0)
					continue;
				float mean = (float)total / (float)plan->nodes, over = (float)rows[n] - 1.03f * mean,
				      score = (float)count;
				if (guard && t > 200 && over > 0)
					score -= over / (0.05f * mean);
				if (best == 64 || score > best_score || (score == best_score && rows[n] < rows[best])) {
					best = n;
					best_score = score;
				}
			}
			assert_true(best < 64);
			chosen[best] = true;
			touched++;
			for (uint32_t j = 0; j < trace->k; j++)
				if (!done[j] && pl_plan_holds(plan, 0, ids[j], best)) {
					done[j] = true;
					left--;
				}
		}
		uint64_t before = total;
		for (uint32_t j = 0; j < trace->k; j++) {
			uint32_t best = 64;
			for (uint32_t n = 0; n < plan->nodes; n++)
				if (chosen[n] && pl_plan_holds(plan, 0, ids[j], n) &&
					(best == 64 || rows[n] < rows[best]))
					best = n;
			assert_true(best < 64);
			rows[best]++;
		}
		total = before + trace->k;
	}

	uint64_t most = 0;
	for (uint32_t n = 0; n < plan->nodes; n++)
		most = rows[n] > most ? rows[n] : most;
	*nodes = (double)touched / sample->tokens;
	*load = (double)most * plan->nodes / (double)total;
}

static void prediction_equals_the_plain_rule(void **state)
{
	(void)state;
	struct cad_random random = { 77 };
	struct cad_error error;
	struct pl_trace *trace = make_trace(1, 24, 5, 900, 4, 0.5, 10);
	struct pl_sample *sample;
	assert_int_equal(pl_sample_create(trace, 0, &sample), CAD_OK);

	for (uint32_t round = 0; round < 12; round++) {
		uint32_t nodes = 1 + (uint32_t)cad_random_below(&random, 9);
		struct pl_cluster cluster;
		struct pl_plan *plan;
		must(pl_cluster_create(nodes, 24, &cluster, &error), &error);
		assert_int_equal(pl_plan_create(1, 24, nodes, &plan), CAD_OK);
		for (uint32_t e = 0; e < 24; e++)
			for (uint32_t r = 0; r < 1 + round % 3; r++)
				pl_plan_put(plan, 0, e, (uint32_t)cad_random_below(&random, nodes));
		for (int guard = 0; guard < 2; guard++) {
			struct pl_metrics metrics;
			double expected_nodes, expected_load;
			measure_plainly(sample, plan, guard, &expected_nodes, &expected_load);
			assert_int_equal(pl_measure(sample, plan, &cluster, guard ? PL_ROUTER_GUARD : PL_ROUTER_COVER,
						 1 + round % 2, &metrics),
				CAD_OK);
			assert_float_equal(metrics.nodes_per_token, expected_nodes, 1e-9);
			assert_float_equal(metrics.load_mean, expected_load, 1e-9);
			pl_metrics_fini(&metrics);
		}
		pl_plan_free(plan);
		pl_cluster_fini(&cluster);
	}

	pl_sample_free(sample);
	pl_trace_free(trace);
}

/* The same whatever the threads, though a layer is compared with the one before; and what is
 * compared, by hand. */
static void layers_are_compared_with_the_one_before(void **state)
{
	(void)state;
	struct cad_error error;
	struct pl_trace *trace = make_trace(5, 24, 4, 700, 4, 0.5, 44);
	struct pl_cluster cluster;
	struct pl_plan *plan;
	struct pl_sample *sample;
	must(pl_cluster_create(6, 24, &cluster, &error), &error);
	assert_int_equal(pl_plan_contiguous(5, 24, 6, &plan), CAD_OK);
	assert_int_equal(pl_sample_create(trace, 0, &sample), CAD_OK);
	uint64_t fresh = 0;
	for (uint32_t l = 1; l < 5; l++)
		for (uint64_t t = 0; t < trace->tokens; t++) {
			uint64_t touched[2] = { 0, 0 };
			for (uint32_t j = 0; j < trace->k; j++) {
				touched[0] |= *pl_plan_set(plan, l - 1, pl_trace_row(trace, l - 1, t)[j]);
				touched[1] |= *pl_plan_set(plan, l, pl_trace_row(trace, l, t)[j]);
			}
			fresh += (uint64_t)__builtin_popcountll(touched[1] & ~touched[0]);
		}
	for (uint32_t threads = 1; threads <= 7; threads += 2) {
		struct pl_metrics metrics;
		assert_int_equal(pl_measure(sample, plan, &cluster, PL_ROUTER_COVER, threads, &metrics), CAD_OK);
		assert_true(fabs(metrics.fresh_nodes_per_token - (double)fresh / 4 / (double)trace->tokens) < 1e-9);
		assert_true(metrics.layer[0].fresh == 0 && metrics.fresh_nodes_per_token < metrics.nodes_per_token);
		pl_metrics_fini(&metrics);
	}

	pl_sample_free(sample);
	pl_plan_free(plan);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

/* Chance that goes with few tokens is taken off, layer by layer; what differs on as many tokens is
 * believed. */
static void expected_load_allows_for_few_tokens(void **state)
{
	(void)state;
	struct pl_layer_metrics planned_layers[] = { {
							     .load = 1.0,
						     },
		{
			.load = 1.2,
		} },
				held_layers[] = { {
							  .load = 1.5,
						  },
					{
						.load = 1.2,
					} };
	const struct pl_metrics planned = { .layers = 2, .layer = planned_layers },
				held = { .layers = 2, .layer = held_layers };

	/* the square root of 2 / (1 + 7) is a half */
	struct pl_busiest_load load = pl_expected_load(&planned, 7000, &held, 1000);
	assert_true(fabs(load.mean - 1.225) < 1e-12 && fabs(load.worst - 1.25) < 1e-12);
	load = pl_expected_load(&planned, 5000, &held, 5000);
	assert_true(fabs(load.mean - 1.35) < 1e-12 && fabs(load.worst - 1.5) < 1e-12);
}

/* Nodes that the sample's tokens touch with replicas [5], at best: by trying all sets of nodes. */
static double fewest_nodes(const struct pl_sample *sample, const uint32_t *replicas, uint32_t nodes)
{
	uint32_t sum = 0;
	for (uint32_t t = 0; t < sample->tokens; t++) {
		const uint16_t *ids = pl_trace_row(sample->trace, 0, sample->token[t]);
		uint32_t fewest = nodes;
		for (uint32_t set = 1; set < 1u << nodes; set++) {
			bool all = true;
			for (uint32_t j = 0; j < sample->trace->k; j++)
				all = all && (ids[j] == PL_TRACE_NONE || (replicas[ids[j]] & set));
			fewest = all && (uint32_t)__builtin_popcount(set) < fewest ? (uint32_t)__builtin_popcount(set)
										   : fewest;
		}
		sum += fewest;
	}
	return (double)sum / sample->tokens;
}

/* All placements of five experts on three nodes are tried: none goes below the bound, with and
 * without copies, and rooms of different size. */
static void no_placement_is_below_the_bound(void **state)
{
	(void)state;
	struct cad_random random = { 4242 };
	struct cad_error error;
	for (uint32_t round = 0; round < 10; round++) {
		struct pl_trace *trace = make_trace(1, 5, 2 + round % 3, 25, 1, 0, cad_random_next(&random));
		struct pl_cluster cluster;
		struct pl_sample *sample;
		double bound, best = 3;
		uint32_t copies = 5 + (uint32_t)cad_random_below(&random, 3);
		must(pl_cluster_create(3, 2, &cluster, &error), &error);
		cluster.nodes[1].slots += (uint32_t)cad_random_below(&random, 2);
		cluster.nodes[2].slots += (uint32_t)cad_random_below(&random, 2);
		assert_int_equal(pl_sample_create(trace, 0, &sample), CAD_OK);
		must(pl_bound(sample, &cluster, copies, &bound, &error), &error);
		for (uint32_t code = 0; code < 7 * 7 * 7 * 7 * 7; code++) {
			uint32_t replicas[5], used[3] = { 0 }, placed = 0;
			for (uint32_t e = 0, rest = code; e < 5; e++, rest /= 7) {
				replicas[e] = 1 + rest % 7;
				for (uint32_t n = 0; n < 3; n++) {
					used[n] += replicas[e] >> n & 1;
					placed += replicas[e] >> n & 1;
				}
			}
			if (placed > copies || used[0] > cluster.nodes[0].slots || used[1] > cluster.nodes[1].slots ||
				used[2] > cluster.nodes[2].slots)
				continue;
			double nodes = fewest_nodes(sample, replicas, 3);
			best = nodes < best ? nodes : best;
		}
		print_message("bound %.3f, best %.3f\n", bound, best);
		assert_true(bound >= 1 && bound <= best + 1e-9);
		pl_sample_free(sample);
		pl_cluster_fini(&cluster);
		pl_trace_free(trace);
	}
}

/* Where every token keeps to a community, the bound is what the communities cost; with a node for
 * each expert, it is as many nodes as experts. */
static void the_bound_is_reached(void **state)
{
	(void)state;
	struct cad_error error;
	struct pl_trace *trace = make_trace(2, 32, 4, 2000, 8, 1, 45);
	struct pl_cluster cluster;
	struct pl_sample *sample;
	double bound;
	assert_int_equal(pl_sample_create(trace, 0, &sample), CAD_OK);

	for (uint32_t nodes = 1; nodes <= 32; nodes = nodes == 1 ? 8 : 4 * nodes) {
		must(pl_cluster_create(nodes, 32 / nodes, &cluster, &error), &error);
		must(pl_bound(sample, &cluster, 32, &bound, &error), &error);
		assert_true(fabs(bound - (nodes == 32 ? 4 : 1)) < 1e-9);
		pl_cluster_fini(&cluster);
	}

	must(pl_cluster_create(4, 7, &cluster, &error), &error);
	assert_int_equal(pl_bound(sample, &cluster, 32, &bound, &error), CAD_ERR_EXHAUSTED);
	pl_cluster_fini(&cluster);
	pl_sample_free(sample);
	pl_trace_free(trace);
}

static void explanations_add_up(void **state)
{
	(void)state;
	struct cad_error error;
	struct pl_trace *trace = make_trace(1, 16, 3, 500, 4, 0.9, 30);
	struct pl_cluster cluster;
	struct pl_sample *sample;
	struct pl_explanation x;
	struct pl_weights weights = pl_weights_of(PL_WORKLOAD_MIXED);
	must(pl_cluster_create(4, 5, &cluster, &error), &error);
	cluster.racks_count = 2;
	cluster.nodes[1].rack = cluster.nodes[2].rack = 1;
	cluster.nodes[3].link = 0.5;
	struct pl_solve_options options = options_for(trace, &cluster, 18, 12);
	struct pl_solution solution = solve(&options);
	assert_int_equal(pl_sample_create(trace, 0, &sample), CAD_OK);
	struct pl_metrics metrics;
	assert_int_equal(pl_measure(sample, solution.plan, &cluster, PL_ROUTER_COVER, 1, &metrics), CAD_OK);

	for (uint32_t e = 0; e < 16; e++) {
		must(pl_explain(sample, solution.plan, &cluster, &weights, 0, e, &x, &error), &error);
		double share = 0;
		/* nodes, not what they cost by link and rack */
		assert_true(fabs(x.nodes - metrics.nodes_per_token) < 1e-9);
		for (uint32_t n = 0; n < 4; n++) {
			share += x.options[n].share;
			assert_int_equal(x.options[n].holds, pl_plan_holds(solution.plan, 0, e, n));
			assert_true(x.options[n].holds || x.options[n].movable);
		}
		assert_true(fabs(share - 1) < 1e-9 || x.uses <= 0);
		assert_true(pl_plan_holds(solution.plan, 0, e, x.home));
		assert_true(x.uses <= 0 || (x.partners_count > 0 && x.partners[0].lift > 1));
		pl_explanation_fini(&x);
	}

	pl_metrics_fini(&metrics);
	pl_sample_free(sample);
	pl_solution_fini(&solution);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prediction_equals_the_plain_rule),
		cmocka_unit_test(layers_are_compared_with_the_one_before),
		cmocka_unit_test(expected_load_allows_for_few_tokens),
		cmocka_unit_test(no_placement_is_below_the_bound),
		cmocka_unit_test(the_bound_is_reached),
		cmocka_unit_test(explanations_add_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
