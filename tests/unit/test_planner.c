/* SPDX-License-Identifier: Apache-2.0 */
/* The planner: what it promises of every plan, that more work is never
 * worse, and that planted placements are found again. That plans can be repeated, whatever the
 * number of threads: test_planner_threads.c. */
#include "orchestration/planner/predict/measure.h"
#include "orchestration/planner/predict/moves.h"
#include "orchestration/planner/solve/improve.h"
#include "tests/support/must.h"
#include "tests/support/plans.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- every plan keeps the rules ---- */

enum { DENSE = 3 }; /* layers of the model come before the first one with experts; rules count them */

static bool ruled(const struct pl_cluster *cluster, uint32_t layer, uint32_t expert, uint32_t node, bool forbidden)
{
	for (uint32_t i = 0; i < cluster->rules_count; i++) {
		const struct pl_cluster_rule *rule = &cluster->rules[i];
		if ((rule->layer == layer || rule->layer == PL_CLUSTER_ANY) && rule->expert == expert &&
			rule->node == node && rule->forbidden == forbidden)
			return true;
	}
	return false;
}

static void check_rules(const struct pl_plan *plan, const struct pl_cluster *cluster, uint32_t copies)
{
	for (uint32_t l = 0; l < plan->layers; l++) {
		uint32_t total = 0;
		for (uint32_t n = 0; n < plan->nodes; n++) {
			uint32_t used = pl_plan_used(plan, l, n);
			assert_in_range(used, 0, cluster->nodes[n].forbidden ? 0 : cluster->nodes[n].slots);
			total += used;
		}
		assert_true(total <= copies || total == plan->experts);
		for (uint32_t e = 0; e < plan->experts; e++) {
			bool somewhere = false;
			for (uint32_t n = 0; n < plan->nodes; n++) {
				bool holds = pl_plan_holds(plan, l, e, n);
				somewhere = somewhere || holds;
				assert_false(holds && ruled(cluster, plan->layer[l], e, n, true));
				assert_true(holds || !ruled(cluster, plan->layer[l], e, n, false));
				for (uint32_t o = 0; o < n && holds; o++)
					assert_false(pl_plan_holds(plan, l, e, o) &&
						cluster->nodes[o].domain == cluster->nodes[n].domain &&
						cluster->nodes[n].domain != PL_CLUSTER_ANY);
			}
			assert_true(somewhere);
		}
	}
}

/* A cluster in which a plan exists: one node could hold everything that has no rule; each expert
 * has one rule at most. */
static void make_cluster(struct cad_random *random, uint32_t experts, struct pl_cluster *cluster)
{
	struct cad_error error;
	uint32_t nodes = 1 + (uint32_t)cad_random_below(random, 7), room = 0;

	must(pl_cluster_create(nodes, 0, cluster, &error), &error);
	cluster->racks_count = 1 + (uint32_t)cad_random_below(random, 3);

	for (uint32_t n = 0; n < nodes; n++) {
		struct pl_cluster_node *node = &cluster->nodes[n];
		node->slots = 1 + (uint32_t)cad_random_below(random, experts);
		node->speed = 0.5 + cad_random_unit(random);
		node->link = 0.5 + cad_random_unit(random);
		node->rack = (uint32_t)cad_random_below(random, cluster->racks_count);
		node->domain = cad_random_below(random, 2) ? (uint32_t)cad_random_below(random, 3) : PL_CLUSTER_ANY;
		node->forbidden = n > 0 && cad_random_below(random, 6) == 0;
		room += node->forbidden ? 0 : node->slots;
	}

	if (room < 2 * experts)
		cluster->nodes[0].slots = experts;
	cluster->rules = calloc(experts, sizeof *cluster->rules);
	assert_non_null(cluster->rules);

	for (uint32_t e = 0; e < experts; e++) {
		uint32_t node = (uint32_t)cad_random_below(random, nodes);
		bool forbidden = cad_random_below(random, 2);
		if (cad_random_below(random, 8) || cluster->nodes[0].slots < experts || (!forbidden && node != 0) ||
			(forbidden && node == 0))
			continue;
		cluster->rules[cluster->rules_count++] =
			(struct pl_cluster_rule){ cad_random_below(random, 2) ? PL_CLUSTER_ANY : DENSE, e, node,
				forbidden };
	}
}

static void every_plan_keeps_the_rules(void **state)
{
	(void)state;
	struct cad_random random = { 20260705 };
	print_message("seed %llu\n", (unsigned long long)random.state);

	for (int i = 0; i < 60; i++) {
		uint32_t experts = 1 + (uint32_t)cad_random_below(&random, 24),
			 k = 1 + (uint32_t)cad_random_below(&random, experts < 5 ? experts : 5);
		uint64_t tokens = 1 + cad_random_below(&random, 300);
		struct pl_trace *trace = make_trace(
			1 + (uint32_t)cad_random_below(&random, 3), experts, k, tokens, 1, 0, cad_random_next(&random));
		struct pl_cluster cluster;
		for (uint32_t l = 0; l < trace->layers; l++)
			trace->layer[l] = DENSE + l;
		make_cluster(&random, experts, &cluster);
		uint32_t copies = experts + (uint32_t)cad_random_below(&random, experts + 1);
		struct pl_plan *present;
		assert_int_equal(pl_plan_contiguous(trace->layers, experts, cluster.nodes_count, &present), CAD_OK);
		for (uint32_t rounds = 1; rounds < 40; rounds += 19) {
			struct pl_solve_options options = options_for(trace, &cluster, copies, rounds);
			options.present = rounds > 1 ? present : NULL;
			options.weights.affinity = rounds > 1 ? 0.3 : 0;
			struct pl_solution solution = solve(&options);
			check_rules(solution.plan, &cluster, copies);
			pl_solution_fini(&solution);
		}
		pl_plan_free(present);
		pl_cluster_fini(&cluster);
		pl_trace_free(trace);
	}
}

static void copies_on_different_domains_and_drained_nodes(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(2, 16, 4, 400, 4, 0.7, 3);
	struct pl_cluster cluster;
	struct cad_error error;
	must(pl_cluster_create(4, 12, &cluster, &error), &error);
	cluster.nodes[0].domain = cluster.nodes[1].domain = 0;
	cluster.nodes[2].domain = 1;
	cluster.nodes[3].forbidden = true;
	struct pl_solve_options options = options_for(trace, &cluster, 32, 20);
	struct pl_solution solution = solve(&options);
	check_rules(solution.plan, &cluster, 32);
	assert_true(pl_plan_copies(solution.plan) > 2 * 16); /* there is room, and copies help */
	pl_solution_fini(&solution);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

static void memory_is_dealt_out_over_layers(void **state)
{
	(void)state;
	struct pl_cluster cluster;
	struct cad_error error;
	struct pl_weights weights = pl_weights_of(PL_WORKLOAD_MIXED);
	must(pl_cluster_create(2, 0, &cluster, &error), &error);
	cluster.expert_bytes = 10;
	cluster.nodes[0].memory_bytes = 10 * 25 + 9; /* 25 experts over 3 layers */
	cluster.nodes[1].memory_bytes = 10 * 1000;
	uint32_t total = 0;
	for (uint32_t l = 0; l < 3; l++) {
		struct pl_site site;
		must(pl_site_init(&site, &cluster, &weights, (struct pl_site_layer){ 3, l, 16, UINT32_MAX, l }, &error),
			&error);
		assert_in_range(site.slots[0], 8, 9);
		assert_int_equal(site.slots[1], 16);
		total += site.slots[0];
		pl_site_fini(&site);
	}

	assert_int_equal(total, 25);
	pl_cluster_fini(&cluster);
}

/* ---- never worse ---- */

enum { ROUNDS = 28 };

static void more_rounds_are_never_worse(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(2, 32, 4, 1500, 8, 0.4, 6);
	struct pl_cluster cluster;
	struct cad_error error;
	must(pl_cluster_create(4, 9, &cluster, &error), &error);
	double last = INFINITY, begun = 0;
	for (uint32_t rounds = 1; rounds <= ROUNDS; rounds++) {
		struct pl_solve_options options = options_for(trace, &cluster, 36, rounds);
		struct pl_solution solution = solve(&options);
		assert_int_equal(solution.rounds, rounds);
		assert_true(solution.value <= last);
		begun = rounds == 1 ? solution.value : begun;
		last = solution.value;
		pl_solution_fini(&solution);
	}

	assert_true(last < begun);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

/* Every look at this clock takes a second. */
static uint64_t slow_now_ns(void *context)
{
	uint64_t *now = context;
	return *now += CAD_NS_PER_S;
}

static bool stop_after_three(void *context, const struct pl_progress *progress)
{
	*(uint32_t *)context = progress->rounds;
	return progress->rounds < 3;
}

static void stops_between_rounds(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(1, 16, 2, 200, 4, 0.5, 8);
	struct pl_cluster cluster;
	struct cad_error error;
	uint64_t now = 0;
	uint32_t seen = 0;
	const struct cad_clock slow = { slow_now_ns, &now };
	must(pl_cluster_create(4, 5, &cluster, &error), &error);
	struct pl_solve_options options = options_for(trace, &cluster, 20, 100);
	options.clock = &slow;
	options.time_limit_ns = 5 * CAD_NS_PER_S;
	struct pl_solution timed = solve(&options);

	/* a look before each layer but in the first round, and one after each round */
	assert_int_equal(timed.rounds, 3);
	options.time_limit_ns = 7 * CAD_NS_PER_S / 2;
	struct pl_solution broken_off = solve(&options);
	assert_int_equal(broken_off.rounds, 2);
	options.time_limit_ns = 0;
	struct pl_solution one = solve(&options);
	assert_int_equal(one.rounds, 1);
	options.time_limit_ns = UINT64_MAX;
	options.progress = stop_after_three;
	options.context = &seen;
	struct pl_solution told = solve(&options);
	assert_int_equal(told.rounds, 3);
	assert_int_equal(seen, 3);
	options.progress = NULL;
	options.rounds_max = timed.rounds;
	struct pl_solution repeated = solve(&options);
	assert_memory_equal(repeated.plan->bits, timed.plan->bits, 16 * sizeof *timed.plan->bits);
	assert_true(repeated.value == timed.value);
	pl_solution_fini(&repeated);
	options.rounds_max = broken_off.rounds;
	repeated = solve(&options);
	assert_memory_equal(repeated.plan->bits, broken_off.plan->bits, 16 * sizeof *broken_off.plan->bits);
	assert_true(repeated.value == broken_off.value);
	pl_solution_fini(&repeated);
	pl_solution_fini(&broken_off);
	pl_solution_fini(&told);
	pl_solution_fini(&one);
	pl_solution_fini(&timed);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

/* ---- good ---- */

static void planted_communities_are_found(void **state)
{
	(void)state;
	const struct pl_synthetic settings = {
		.layers = 2,
		.experts = 64,
		.k = 4,
		.tokens = 6000,
		.seed = 12,
		.communities = 16,
		.strength = 0.8,
		.zipf = 0,
		.tasks = 1,
		.locality = 0.3,
		.request_tokens = 50,
	};
	struct pl_synthetic_trace made = generate(&settings);
	struct cad_error error;
	uint16_t *node = malloc(2 * 64 * sizeof *node);
	assert_non_null(node);

	for (uint32_t nodes = 4; nodes <= 8; nodes *= 2) {
		struct pl_known_cost known;
		struct pl_cluster cluster;
		struct pl_metrics metrics;
		struct pl_sample *sample;
		bool planted;
		must(pl_synthetic_place(&settings, &made, nodes, node, &planted, &known, &error), &error);
		must(pl_cluster_create(nodes, 64 / nodes, &cluster, &error), &error);
		struct pl_solve_options options = options_for(made.trace, &cluster, 64, 22);
		struct pl_solution solution = solve(&options);
		assert_int_equal(pl_sample_create(made.trace, 0, &sample), CAD_OK);
		assert_int_equal(pl_measure(sample, solution.plan, &cluster, PL_ROUTER_COVER, 1, &metrics), CAD_OK);
		print_message("%u nodes: %.4f nodes per token (load %.3f), planted %.4f (%.3f)\n", nodes,
			metrics.nodes_per_token, metrics.load_mean, known.nodes_per_token, known.load_mean);
		assert_true(metrics.nodes_per_token <= 1.01 * known.nodes_per_token);
		pl_metrics_fini(&metrics);
		pl_sample_free(sample);
		pl_solution_fini(&solution);
		pl_cluster_fini(&cluster);
	}

	free(node);
	pl_synthetic_fini(&made);
}

/* A node that is eight times as fast gets about eight times the work, and what is measured of a plan
 * knows that. */
static void fast_nodes_get_more_of_the_work(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(2, 64, 6, 3000, 8, 0.5, 21);
	struct pl_cluster cluster;
	struct pl_sample *sample;
	struct pl_metrics planned, even;
	struct pl_plan *blocks;
	struct cad_error error;
	must(pl_cluster_create(2, 64, &cluster, &error), &error);
	cluster.nodes[1].speed = 8;
	struct pl_solve_options options = options_for(trace, &cluster, 64, 3);
	struct pl_solution solution = solve(&options);
	assert_int_equal(pl_plan_contiguous(2, 64, 2, &blocks), CAD_OK);
	assert_int_equal(pl_sample_create(trace, 0, &sample), CAD_OK);
	assert_int_equal(pl_measure(sample, solution.plan, &cluster, PL_ROUTER_COVER, 1, &planned), CAD_OK);
	assert_int_equal(pl_measure(sample, blocks, &cluster, PL_ROUTER_COVER, 1, &even), CAD_OK);
	print_message("planned %.3f, blocks %.3f\n", planned.load_mean, even.load_mean);
	assert_true(planned.load_mean < 1.15);
	assert_true(even.load_mean > 3); /* half of the rows on a ninth of the speed: 4.5 */
	for (uint32_t l = 0; l < 2; l++)
		assert_in_range(pl_plan_used(solution.plan, l, 0), 2, 12);

	/* a plan that leaves the slow node out is not as bad as a busy one: the fast one has 9 / 8 */
	pl_metrics_fini(&even);
	for (uint32_t e = 0; e < 64; e++) {
		pl_plan_take(blocks, 0, e, 0);
		pl_plan_put(blocks, 0, e, 1);
	}
	assert_int_equal(pl_measure(sample, blocks, &cluster, PL_ROUTER_COVER, 1, &even), CAD_OK);
	assert_true(even.layer[0].load == 9.0 / 8);

	pl_metrics_fini(&even);
	pl_metrics_fini(&planned);
	pl_sample_free(sample);
	pl_plan_free(blocks);
	pl_solution_fini(&solution);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

/* Whatever their one speed is. */
static void nodes_of_equal_speed_are_planned_alike(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(2, 32, 4, 1000, 4, 0.5, 22);
	struct pl_cluster cluster;
	struct cad_error error;
	must(pl_cluster_create(4, 10, &cluster, &error), &error);
	struct pl_solve_options options = options_for(trace, &cluster, 36, 2);
	struct pl_solution before = solve(&options);
	for (uint32_t n = 0; n < 4; n++)
		cluster.nodes[n].speed = 1.25;
	struct pl_solution after = solve(&options);
	assert_memory_equal(before.plan->bits, after.plan->bits, 64 * sizeof *before.plan->bits);
	pl_solution_fini(&before);
	pl_solution_fini(&after);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

/* Groups are nodes, and every token keeps to two groups: blocks are the best there is, and the plan
 * must not be worse. */
static void blocks_stay_where_nothing_beats_them(void **state)
{
	(void)state;
	const struct pl_synthetic settings = {
		.layers = 1,
		.experts = 64,
		.k = 6,
		.tokens = 4000,
		.seed = 21,
		.communities = 1,
		.zipf = 0.2,
		.groups = 8,
		.groups_kept = 2,
		.tasks = 1,
		.locality = 0,
		.request_tokens = 50,
	};
	struct pl_synthetic_trace made = generate(&settings);
	struct cad_error error;
	struct pl_cluster cluster;
	must(pl_cluster_create(8, 9, &cluster, &error), &error);
	struct pl_solve_options options = options_for(made.trace, &cluster, 72, 12);
	struct pl_solution solution = solve(&options);
	struct pl_sample *sample;
	struct pl_metrics metrics;
	assert_int_equal(pl_sample_create(made.trace, 0, &sample), CAD_OK);
	assert_int_equal(pl_measure(sample, solution.plan, &cluster, PL_ROUTER_COVER, 1, &metrics), CAD_OK);
	assert_true(metrics.nodes_per_token <= 2 && metrics.nodes_p99 <= 2);
	pl_metrics_fini(&metrics);
	pl_sample_free(sample);
	pl_solution_fini(&solution);
	pl_cluster_fini(&cluster);
	pl_synthetic_fini(&made);
}

static void what_is_there_stays_when_moving_costs(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(2, 16, 2, 300, 1, 0, 9);
	struct pl_cluster cluster;
	struct cad_error error;
	struct pl_plan *present;
	must(pl_cluster_create(4, 4, &cluster, &error), &error);
	cluster.expert_bytes = 1000;
	assert_int_equal(pl_plan_contiguous(2, 16, 4, &present), CAD_OK);
	struct pl_solve_options options = options_for(trace, &cluster, 16, 10);
	options.present = present;
	options.weights.move = 1e6;
	struct pl_solution stays = solve(&options);
	struct pl_moves none = pl_moves_between(present, stays.plan, &cluster, 1e9);
	assert_int_equal(none.loads + none.frees, 0);
	options.weights.move = 0;
	struct pl_solution moves = solve(&options);
	struct pl_moves some = pl_moves_between(present, moves.plan, &cluster, 1000);
	assert_true(some.loads > 0 && some.loads == some.frees && some.bytes == 1000 * some.loads &&
		some.seconds * 4 >= (double)some.loads);
	pl_solution_fini(&moves);
	pl_solution_fini(&stays);
	pl_plan_free(present);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

/* What an expert takes on a node says what is read to load it only where nothing else does. */
static void moves_are_of_what_is_read(void **state)
{
	(void)state;
	struct pl_cluster cluster;
	struct pl_plan *from, *to;
	struct cad_error error;
	must(pl_cluster_create(3, 4, &cluster, &error), &error);
	assert_int_equal(pl_plan_create(1, 4, 3, &from), CAD_OK);
	assert_int_equal(pl_plan_create(1, 4, 3, &to), CAD_OK);
	for (uint32_t e = 0; e < 4; e++) {
		pl_plan_put(from, 0, e, 0);
		pl_plan_put(to, 0, e, e < 3 ? 1 : 2); /* 3 loads there, 1 there */
	}
	struct pl_moves moves = pl_moves_between(from, to, &cluster, 1000);
	assert_true(moves.loads == 4 && moves.frees == 4 && moves.bytes == 0 && moves.seconds == 0);

	cluster.nodes[1].expert_bytes = 1000;
	cluster.nodes[2].expert_bytes = 4000; /* the same expert, packed otherwise */
	moves = pl_moves_between(from, to, &cluster, 1000);
	assert_true(moves.bytes == 7000 && moves.busiest == 2 && moves.seconds == 4);

	cluster.image_bytes = 500;
	moves = pl_moves_between(from, to, &cluster, 1000);
	assert_true(moves.bytes == 2000 && moves.busiest == 1 && moves.seconds == 1.5);
	cluster.nodes[2].link = 0.25;
	moves = pl_moves_between(from, to, &cluster, 1000);
	assert_true(moves.bytes == 2000 && moves.busiest == 2 && moves.seconds == 2);

	pl_plan_free(to);
	pl_plan_free(from);
	pl_cluster_fini(&cluster);
}

/* It costs as much as several moves to go back. */
static void what_left_does_not_come_back_lightly(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(2, 16, 4, 2000, 4, 0.9, 9);
	struct pl_cluster cluster;
	struct cad_error error;
	struct pl_plan *present;

	must(pl_cluster_create(4, 6, &cluster, &error), &error);
	assert_int_equal(pl_plan_contiguous(2, 16, 4, &present), CAD_OK);
	struct pl_solve_options options = options_for(trace, &cluster, 16, 16);
	options.present = present;
	struct pl_solution best = solve(&options);

	/* all that would move has just been where it would go */
	for (size_t i = 0; i < (size_t)2 * 16 * present->words; i++)
		best.plan->bits[i] &= ~present->bits[i];
	options.recent = best.plan;
	options.weights.move = 0.2;
	struct pl_solution other = solve(&options);
	options.recent = NULL;
	struct pl_solution again = solve(&options);
	uint64_t back[2] = { 0 };
	for (size_t i = 0; i < (size_t)2 * 16 * present->words; i++) {
		back[0] += (uint64_t)__builtin_popcountll(other.plan->bits[i] & best.plan->bits[i]);
		back[1] += (uint64_t)__builtin_popcountll(again.plan->bits[i] & best.plan->bits[i]);
	}
	print_message("of %llu that were there, %llu go back, and %llu where nothing is known\n",
		(unsigned long long)pl_plan_copies(best.plan), (unsigned long long)back[0],
		(unsigned long long)back[1]);
	assert_true(4 * back[0] < back[1]);

	pl_solution_fini(&again);
	pl_solution_fini(&other);
	pl_solution_fini(&best);
	pl_plan_free(present);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

/* Nodes that both layers touch, a token. */
static double overlap(const struct pl_trace *trace, const struct pl_plan *plan)
{
	uint64_t both = 0;
	for (uint64_t t = 0; t < trace->tokens; t++) {
		uint64_t touched[2] = { 0, 0 };
		for (uint32_t l = 0; l < 2; l++)
			for (uint32_t j = 0; j < trace->k; j++)
				touched[l] |= *pl_plan_set(plan, l, pl_trace_row(trace, l, t)[j]);
		both += (uint64_t)__builtin_popcountll(touched[0] & touched[1]);
	}
	return (double)both / (double)trace->tokens;
}

static void affinity_keeps_tokens_where_they_are(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(2, 32, 4, 2000, 8, 0.8, 14);
	struct pl_cluster cluster;
	struct cad_error error;

	/* the second layer does as the first, under other names */
	for (uint64_t i = 0; i < trace->tokens * trace->k; i++)
		trace->ids[trace->tokens * trace->k + i] = (uint16_t)((trace->ids[i] + 7) % 32);
	must(pl_cluster_create(8, 4, &cluster, &error), &error);
	struct pl_solve_options options = options_for(trace, &cluster, 32, 20);
	struct pl_solution alike = solve(&options);

	/* turn the groups of the first layer around: equal layers would find equal places anyway */
	struct pl_cluster_rule pins[8];
	for (uint32_t e = 0; e < 32; e++)
		for (uint32_t n = 0; n < 8; n++)
			if (pl_plan_holds(alike.plan, 0, e, n))
				pins[n] = (struct pl_cluster_rule){ 0, e, (n + 3) % 8, false };
	cluster.rules = pins;
	cluster.rules_count = 8;
	struct pl_solution without = solve(&options);
	options.weights.affinity = 1;
	struct pl_solution with = solve(&options);
	cluster.rules = NULL;
	cluster.rules_count = 0;
	print_message("nodes that both layers touch: %.3f, with affinity %.3f\n", overlap(trace, without.plan),
		overlap(trace, with.plan));
	assert_true(overlap(trace, with.plan) > 1.2 * overlap(trace, without.plan));
	pl_solution_fini(&alike);
	pl_solution_fini(&with);
	pl_solution_fini(&without);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

/* ---- racks and links ---- */

/* Every change is exactly as good as it was estimated, where there are no copies: nodes of unequal
 * links, racks, room that is left. */
static void estimates_know_racks_and_links(void **state)
{
	(void)state;
	struct cad_random random = { 606 };
	struct cad_error error;
	uint32_t tried = 0;
	for (int round = 0; round < 12; round++) {
		struct pl_trace *trace = make_trace(1, 24, 4, 300, 4, 0.6, cad_random_next(&random));
		struct pl_weights weights = pl_weights_of(PL_WORKLOAD_MIXED);
		struct pl_cluster cluster;
		struct scene scene;
		struct pl_improve improve;
		uint32_t labels[24], nodes = 2 + (uint32_t)cad_random_below(&random, 6);
		weights.load = 0;
		weights.racks = 0.1 + cad_random_unit(&random);
		must(pl_cluster_create(nodes, (24 + nodes - 1) / nodes + 1, &cluster, &error), &error);
		cluster.racks_count = round % 4 ? 1 + (uint32_t)cad_random_below(&random, 4) : 1;
		for (uint32_t n = 0; n < nodes; n++) {
			cluster.nodes[n].rack = (uint32_t)cad_random_below(&random, cluster.racks_count);
			cluster.nodes[n].link = round % 3 ? 0.25 + cad_random_unit(&random) : 1;
		}
		for (uint32_t e = 0; e < 24; e++)
			labels[e] = (uint32_t)cad_random_below(&random, nodes);
		scene_init(&scene, trace, &cluster, &weights, 24, labels);
		assert_int_equal(pl_improve_init(&improve, &scene.site), CAD_OK);
		uint32_t count = pl_improve_propose(&improve, &scene.search);
		for (uint32_t i = 0; i < count; i++, tried++) {
			double grown =
				pl_search_try(&scene.search, improve.proposals[i].changes, improve.proposals[i].count);
			assert_float_equal(grown, -improve.proposals[i].gain, 1e-5);
			pl_search_undo(&scene.search);
		}
		pl_improve_fini(&improve);
		scene_fini(&scene);
		pl_cluster_fini(&cluster);
		pl_trace_free(trace);
	}

	assert_true(tried > 100);
}

static double racks_per_token(
	const struct pl_trace *trace, const struct pl_plan *plan, const struct pl_cluster *cluster)
{
	struct pl_sample *sample;
	struct pl_metrics metrics;

	assert_int_equal(pl_sample_create(trace, 0, &sample), CAD_OK);
	assert_int_equal(pl_measure(sample, plan, cluster, PL_ROUTER_COVER, 1, &metrics), CAD_OK);
	double racks = metrics.racks_per_token;
	pl_metrics_fini(&metrics);
	pl_sample_free(sample);
	return racks;
}

/* Neighbouring communities are chosen together, so that the planted map has them in one rack: the
 * plan must find that, wherever the racks are. */
static void communities_that_go_together_share_a_rack(void **state)
{
	(void)state;
	const struct pl_synthetic settings = {
		.layers = 2,
		.experts = 64,
		.k = 6,
		.tokens = 5000,
		.seed = 77,
		.communities = 16,
		.strength = 0.5,
		.zipf = 0.3,
		.tasks = 4,
		.task_skew = 0.5,
		.locality = 0.4,
		.request_tokens = 40,
	};
	struct pl_synthetic_trace made = generate(&settings);
	struct pl_known_cost known;
	struct pl_cluster cluster;
	struct pl_plan *planted;
	struct cad_error error;
	uint16_t node[2 * 64];
	bool found;
	must(pl_synthetic_place(&settings, &made, 8, node, &found, &known, &error), &error);
	must(pl_cluster_create(8, 8, &cluster, &error), &error);
	assert_int_equal(pl_plan_create(2, 64, 8, &planted), CAD_OK);
	for (uint32_t i = 0; i < 2 * 64; i++)
		pl_plan_put(planted, i / 64, i % 64, node[i]);
	for (uint32_t racks = 2; racks <= 4; racks += 2) {
		cluster.racks_count = racks;
		for (uint32_t n = 0; n < 8; n++)
			cluster.nodes[n].rack = n * racks / 8;
		double best = racks_per_token(made.trace, planted, &cluster);
		for (uint32_t n = 0; n < 8; n++)
			cluster.nodes[n].rack = n % racks;
		struct pl_solve_options options = options_for(made.trace, &cluster, 64, 13);
		struct pl_solution with = solve(&options);
		options.weights.racks = 0;
		struct pl_solution without = solve(&options);
		double racks_with = racks_per_token(made.trace, with.plan, &cluster),
		       racks_without = racks_per_token(made.trace, without.plan, &cluster);
		print_message("%u racks: a token touches %.4f, without regard to racks %.4f, planted %.4f\n", racks,
			racks_with, racks_without, best);
		assert_true(racks_with <= 1.02 * best);
		assert_true(racks_without > 1.05 * best);
		pl_solution_fini(&without);
		pl_solution_fini(&with);
	}

	pl_plan_free(planted);
	pl_cluster_fini(&cluster);
	pl_synthetic_fini(&made);
}

/* Of the nodes that a token touches, those behind slow links: every other one. */
static double slow_per_token(const struct pl_trace *trace, const struct pl_plan *plan)
{
	uint64_t sum = 0;
	for (uint64_t t = 0; t < trace->tokens; t++) {
		uint64_t touched = 0;
		for (uint32_t j = 0; j < trace->k; j++)
			touched |= *pl_plan_set(plan, 0, pl_trace_row(trace, 0, t)[j]);
		sum += (uint64_t)__builtin_popcountll(touched & 0x5555);
	}
	return (double)sum / (double)trace->tokens;
}

static void slow_links_are_touched_less(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(1, 64, 4, 4000, 16, 0.3, 15);
	struct pl_cluster cluster;
	struct cad_error error;
	must(pl_cluster_create(8, 8, &cluster, &error), &error);
	struct pl_solve_options options = options_for(trace, &cluster, 64, 13);
	options.weights.load_max = 1.3; /* room to keep rows away from them */
	struct pl_solution without = solve(&options);
	for (uint32_t n = 0; n < 8; n += 2)
		cluster.nodes[n].link = 0.25;
	struct pl_solution with = solve(&options);
	print_message("slow nodes that a token touches: %.3f, without regard to links %.3f\n",
		slow_per_token(trace, with.plan), slow_per_token(trace, without.plan));
	assert_true(slow_per_token(trace, with.plan) < 0.95 * slow_per_token(trace, without.plan));
	pl_solution_fini(&with);
	pl_solution_fini(&without);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

/* ---- what cannot be ---- */

static void impossible_wishes_are_refused(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(1, 16, 2, 100, 1, 0, 9);
	struct pl_cluster cluster;
	struct pl_solution solution;
	struct cad_error error;
	must(pl_cluster_create(4, 3, &cluster, &error), &error);
	struct pl_solve_options options = options_for(trace, &cluster, 16, 3);
	assert_int_equal(pl_solve(&options, &solution, &error), CAD_ERR_EXHAUSTED);
	assert_non_null(strstr(error.text, "room for 12"));
	for (uint32_t n = 0; n < 4; n++)
		cluster.nodes[n].slots = 4;
	struct pl_cluster_rule rules[17];
	cluster.rules = rules;
	cluster.rules_count = 2;
	rules[0] = (struct pl_cluster_rule){ PL_CLUSTER_ANY, 3, 1, false };
	rules[1] = (struct pl_cluster_rule){ 0, 3, 1, true };
	assert_int_equal(pl_solve(&options, &solution, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "pinned to node 'n1'"));
	rules[1].expert = 99;
	assert_int_equal(pl_solve(&options, &solution, &error), CAD_ERR_INVALID);
	cluster.rules_count = 4; /* one expert is forbidden everywhere */
	for (uint32_t n = 0; n < 4; n++)
		rules[n] = (struct pl_cluster_rule){ PL_CLUSTER_ANY, 3, n, true };
	assert_int_equal(pl_solve(&options, &solution, &error), CAD_ERR_EXHAUSTED);
	assert_non_null(strstr(error.text, "expert 3 has no place"));
	for (uint32_t e = 0; e < 5; e++) /* five experts on four slots */
		rules[e] = (struct pl_cluster_rule){ PL_CLUSTER_ANY, e, 0, false };
	cluster.rules_count = 5;
	assert_int_equal(pl_solve(&options, &solution, &error), CAD_ERR_EXHAUSTED);
	cluster.rules = NULL;
	struct pl_plan *present;
	assert_int_equal(pl_plan_contiguous(1, 16, 3, &present), CAD_OK);
	cluster.rules_count = 0;
	options.present = present;
	assert_int_equal(pl_solve(&options, &solution, &error), CAD_ERR_INVALID);
	pl_plan_free(present);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_plan_keeps_the_rules),
		cmocka_unit_test(copies_on_different_domains_and_drained_nodes),
		cmocka_unit_test(memory_is_dealt_out_over_layers),
		cmocka_unit_test(more_rounds_are_never_worse),
		cmocka_unit_test(stops_between_rounds),
		cmocka_unit_test(planted_communities_are_found),
		cmocka_unit_test(fast_nodes_get_more_of_the_work),
		cmocka_unit_test(nodes_of_equal_speed_are_planned_alike),
		cmocka_unit_test(blocks_stay_where_nothing_beats_them),
		cmocka_unit_test(what_is_there_stays_when_moving_costs),
		cmocka_unit_test(moves_are_of_what_is_read),
		cmocka_unit_test(what_left_does_not_come_back_lightly),
		cmocka_unit_test(affinity_keeps_tokens_where_they_are),
		cmocka_unit_test(estimates_know_racks_and_links),
		cmocka_unit_test(communities_that_go_together_share_a_rack),
		cmocka_unit_test(slow_links_are_touched_less),
		cmocka_unit_test(impossible_wishes_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
