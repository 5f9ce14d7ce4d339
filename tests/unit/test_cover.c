/* SPDX-License-Identifier: Apache-2.0 */
/* The cover of a token by nodes: valid, few nodes, even load, and nothing from nodes that cannot be
 * used. */
#include "common/base/clock.h"
#include "common/cluster/cover.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { NODES = 6, EXPERTS = 16, K = 4 };

static struct cad_map *make_map(struct cad_random *random, uint32_t replicas_each)
{
	struct cad_map_node nodes[NODES];
	char ids[NODES][8];

	for (uint32_t n = 0; n < NODES; n++) {
		snprintf(ids[n], sizeof ids[n], "n%u", n);
		nodes[n] = (struct cad_map_node){
			.id = ids[n],
			.exchange_address = "x:1",
			.http_address = "",
			.live = true,
		};
	}

	struct cad_map_replica replicas[EXPERTS * NODES];
	size_t count = 0;
	for (uint32_t e = 0; e < EXPERTS; e++) {
		bool used[NODES] = { false };
		for (uint32_t r = 0; r < replicas_each;) {
			uint32_t node = (uint32_t)cad_random_below(random, NODES);
			if (used[node])
				continue;
			used[node] = true;
			replicas[count++] = (struct cad_map_replica){ .layer = 3, .expert = e, .node = node };
			r++;
		}
	}

	uint32_t layers[] = { 3 };
	struct cad_map_source source = {
		.epoch = 1,
		.nodes = nodes,
		.nodes_count = NODES,
		.layers = layers,
		.layers_count = 1,
		.experts = EXPERTS,
		.replicas = replicas,
		.replicas_count = count,
	};
	struct cad_map *map;
	struct cad_error error;
	must(cad_map_create(&source, &map, &error), &error);

	return map;
}

static bool holds(const struct cad_map *map, uint32_t expert, uint16_t node)
{
	struct cad_map_replicas replicas = cad_map_replicas(map, 3, expert);
	for (uint32_t r = 0; r < replicas.count; r++)
		if (replicas.nodes[r] == node)
			return true;
	return false;
}

static uint32_t distinct(const uint16_t *nodes)
{
	uint32_t mask = 0;
	for (int k = 0; k < K; k++)
		if (nodes[k] != CAD_COVER_NONE)
			mask |= 1u << nodes[k];
	return (uint32_t)__builtin_popcount(mask);
}

/* The fewest nodes that hold all experts, by trying every set. */
static uint32_t fewest(const struct cad_map *map, const int32_t *experts, uint64_t usable)
{
	uint32_t best = NODES + 1;
	for (uint32_t set = 0; set < 1u << NODES; set++) {
		bool all = true;
		for (int k = 0; k < K && all; k++) {
			bool any = false;
			for (uint16_t n = 0; n < NODES; n++)
				any = any || ((set & usable) >> n & 1 && holds(map, (uint32_t)experts[k], n));
			all = any;
		}
		if (all && (uint32_t)__builtin_popcount(set) < best)
			best = (uint32_t)__builtin_popcount(set);
	}
	return best;
}

static void random_maps(void **state)
{
	(void)state;
	struct cad_random random = { 20251122 };
	print_message("seed %llu\n", (unsigned long long)random.state);
	uint64_t total = 0, optimal = 0;
	for (int round = 0; round < 500; round++) {
		struct cad_map *map = make_map(&random, 1 + (uint32_t)(round % 3));
		uint64_t usable = 0;
		for (int n = 0; n < NODES; n++)
			usable |= (uint64_t)(cad_random_below(&random, 8) != 0) << n;
		int32_t experts[K];
		for (int k = 0; k < K; k++)
			experts[k] = (int32_t)((cad_random_below(&random, 4) + 4 * (unsigned)k) % EXPERTS);
		uint16_t nodes[K], again[K];
		cad_cover(map, 3, experts, K, &usable, NULL, nodes);
		cad_cover(map, 3, experts, K, &usable, NULL, again);
		assert_memory_equal(nodes, again, sizeof nodes);
		bool whole = true;
		for (int k = 0; k < K; k++) {
			bool possible = false;
			for (uint16_t n = 0; n < NODES; n++)
				possible = possible || (usable >> n & 1 && holds(map, (uint32_t)experts[k], n));
			whole = whole && possible;
			assert_int_equal(possible, nodes[k] != CAD_COVER_NONE);
			if (possible)
				assert_true(usable >> nodes[k] & 1 && holds(map, (uint32_t)experts[k], nodes[k]));
		}
		if (whole) {
			uint32_t best = fewest(map, experts, usable);
			/* greedy over 4 experts misses the best by one node at most */
			assert_in_range(distinct(nodes), best, best + 1);
			total++;
			optimal += distinct(nodes) == best;
		}
		cad_map_release(map);
	}

	assert_true(optimal * 100 >= total * 95);
}

static void dropped_slots_and_unknown_layers_have_no_node(void **state)
{
	(void)state;
	struct cad_random random = { 7 };
	struct cad_map *map = make_map(&random, 2);
	int32_t experts[K] = { 1, -1, 2, -1 };
	uint16_t nodes[K];
	cad_cover(map, 3, experts, K, NULL, NULL, nodes);
	assert_int_equal(nodes[1], CAD_COVER_NONE);
	assert_int_equal(nodes[3], CAD_COVER_NONE);
	assert_int_not_equal(nodes[0], CAD_COVER_NONE);
	cad_cover(map, 4, experts, K, NULL, NULL, nodes);
	assert_int_equal(nodes[0], CAD_COVER_NONE);
	cad_map_release(map);
}

static void ties_go_to_the_lighter_node(void **state)
{
	(void)state;
	struct cad_random random = { 11 };
	struct cad_map *map = make_map(&random, 3);
	struct cad_map_replicas replicas = cad_map_replicas(map, 3, 5);
	int32_t experts[K] = { 5, -1, -1, -1 };
	uint16_t nodes[K];
	for (uint32_t light = 0; light < replicas.count; light++) {
		uint32_t load[NODES] = { 9, 9, 9, 9, 9, 9 };
		load[replicas.nodes[light]] = 1;
		const struct cad_cover_load at = { .node = load };
		cad_cover(map, 3, experts, K, NULL, &at, nodes);
		assert_int_equal(nodes[0], replicas.nodes[light]);
		assert_int_equal(load[nodes[0]], 2);
	}

	cad_map_release(map);
}

/* ---- the rule, as the header tells it, beside the code that is fast ---- */

enum { WIDE = CAD_NODES_MAX, WORDS = (WIDE + 63) / 64, LISTED = 20 };

struct world {
	uint32_t nodes, experts;
	uint16_t lists[LISTED][WIDE];
	uint64_t sets[LISTED][WORDS], some[WORDS];
	const uint64_t *usable; /* some, or NULL */
	struct cad_map_replicas of[LISTED];
	uint32_t load[WIDE], unit[WIDE];
};

static bool serves(const struct world *world, const struct cad_map_replicas *replicas, uint32_t node)
{
	return cad_map_set_has(replicas->set, node) && (!world->usable || cad_map_set_has(world->usable, node));
}

/* Whether `node` comes before `other`, which may be none. */
static bool lighter(const struct cad_cover_load *load, uint32_t node, uint32_t other)
{
	return other == CAD_COVER_NONE || (load && load->node[node] < load->node[other]) ||
		((!load || load->node[node] == load->node[other]) && node < other);
}

static void cover_by_the_book(const struct world *world, const struct cad_map_replicas *replicas, uint32_t k,
	const struct cad_cover_load *load, uint16_t *nodes)
{
	bool chosen[WIDE] = { false }, covered[CAD_TOPK_MAX] = { false };
	for (;;) {
		uint32_t best = CAD_COVER_NONE;
		float best_score = 0;
		for (uint32_t n = 0; n < world->nodes; n++) {
			uint32_t experts = 0;
			for (uint32_t slot = 0; slot < k; slot++)
				experts += !covered[slot] && serves(world, &replicas[slot], n);
			if (experts == 0)
				continue;
			float score = (float)experts;
			if (load && load->point > 0 && (float)load->node[n] > load->calm)
				score -= ((float)load->node[n] - load->calm) / load->point;
			if (best == CAD_COVER_NONE || score > best_score ||
				(score == best_score && lighter(load, n, best))) {
				best = n;
				best_score = score;
			}
		}
		if (best == CAD_COVER_NONE)
			break;
		chosen[best] = true;
		for (uint32_t slot = 0; slot < k; slot++)
			covered[slot] = covered[slot] || serves(world, &replicas[slot], best);
	}
	for (uint32_t slot = 0; slot < k; slot++) {
		uint32_t best = CAD_COVER_NONE;
		for (uint32_t n = 0; n < world->nodes; n++)
			if (chosen[n] && serves(world, &replicas[slot], n) && lighter(load, n, best))
				best = n;
		nodes[slot] = (uint16_t)best;
		if (load && best != CAD_COVER_NONE)
			load->node[best] += load->unit ? load->unit[best] : 1;
	}
}

/* Most experts on one node, some on a few, some on most. */
static void fill_world(struct world *world, struct cad_random *random, uint32_t nodes)
{
	*world = (struct world){ .nodes = nodes };
	for (uint32_t n = 0; n < nodes; n++) {
		world->some[n / 64] |= (uint64_t)(cad_random_below(random, 8) != 0) << n % 64;
		world->unit[n] = 1 + (uint32_t)cad_random_below(random, 3);
	}
	for (uint32_t e = 0; e < LISTED; e++) {
		const uint64_t one_in[] = { nodes, nodes, nodes / 3 + 1, 2, 1 }; /* the last: on every node */
		uint64_t odds = one_in[cad_random_below(random, 5)];
		uint32_t count = 0;
		for (uint32_t n = 0; n < nodes; n++)
			if (cad_random_below(random, odds) == 0) {
				world->lists[e][count++] = (uint16_t)n;
				world->sets[e][n / 64] |= 1ull << n % 64;
			}
		world->of[e] = (struct cad_map_replicas){ world->lists[e], world->sets[e], count };
	}
}

static void every_choice_is_the_rule_s(void **state)
{
	(void)state;
	static const uint32_t nodes_counts[] = { 1, 2, 5, 16, 63, 64, 65, 128, 129, 320, 500, WIDE };
	static struct world world;
	struct cad_random random = { 20251123 };
	print_message("seed %llu\n", (unsigned long long)random.state);

	for (uint32_t round = 0; round < 8000; round++) {
		if (round % 20 == 0)
			fill_world(&world, &random,
				nodes_counts[round / 20 % (sizeof nodes_counts / sizeof *nodes_counts)]);
		struct cad_map_replicas replicas[CAD_TOPK_MAX];
		uint32_t k = (uint32_t)cad_random_below(&random, round % 4 == 0 ? CAD_TOPK_MAX + 1 : 9), again[WIDE];
		uint16_t nodes[CAD_TOPK_MAX], expected[CAD_TOPK_MAX];
		for (uint32_t slot = 0; slot < k; slot++)
			replicas[slot] = cad_random_below(&random, 12) == 0
				? cad_map_nobody
				: world.of[cad_random_below(&random, LISTED)];
		/* many ties, or loads that a float does not tell apart */
		uint64_t high = cad_random_below(&random, 3) == 0 ? 1ull << 31 : 6;
		for (uint32_t n = 0; n < world.nodes; n++)
			again[n] = world.load[n] =
				(uint32_t)(cad_random_below(&random, 2) ? high - cad_random_below(&random, 6)
									: cad_random_below(&random, high));
		const float points[] = { 0, 1, 0.4f, 1e-9f, 1e9f };
		struct cad_cover_load load = { world.load, cad_random_below(&random, 2) ? world.unit : NULL,
			(float)cad_random_below(&random, high), points[cad_random_below(&random, 5)] };
		bool loaded = cad_random_below(&random, 4) != 0;
		world.usable = cad_random_below(&random, 2) ? world.some : NULL;
		cad_cover_replicas(replicas, k, world.nodes, world.usable, loaded ? &load : NULL, nodes);
		load.node = again;
		cover_by_the_book(&world, replicas, k, loaded ? &load : NULL, expected);
		assert_memory_equal(nodes, expected, k * sizeof *nodes);
		if (loaded)
			assert_memory_equal(world.load, again, world.nodes * sizeof *again);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_maps),
		cmocka_unit_test(dropped_slots_and_unknown_layers_have_no_node),
		cmocka_unit_test(ties_go_to_the_lighter_node),
		cmocka_unit_test(every_choice_is_the_rule_s),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
