/* SPDX-License-Identifier: Apache-2.0 */
/* Assignment: properties over random clusters, and the cases that a reader would ask about. */
#include "common/base/clock.h"
#include "orchestration/placement/assign.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { EXPERT_BYTES = 1000, NODES = 12, CELLS = 8 * 24 };
enum { HELD = 1, FAILED = 2, LEAVING = 4, WANTED = 8 };

struct node {
	uint64_t memory_bytes;
	const uint8_t *cells; /* [cells] of the flags above; NULL: nothing */
};
struct source {
	uint32_t layers_count, experts, nodes_count, copies;
	uint64_t expert_bytes, seed;
	const struct node *nodes;
	bool level, planned; /* planned: there is a plan in force, of the cells that are WANTED */
	bool drained[NODES], fresh[NODES];
	uint64_t node_bytes[NODES]; /* of an expert there; 0: expert_bytes */
	double speed[NODES];        /* 0: 1 */
	const struct pl_cluster_rule *pins;
	uint32_t pins_count;
	const uint16_t *copies_of;
};

static struct pl_plan *plan_of(const struct source *source, int flag)
{
	struct pl_plan *plan;
	assert_int_equal(pl_plan_create(source->layers_count, source->experts, source->nodes_count, &plan), CAD_OK);
	for (uint32_t n = 0; n < source->nodes_count; n++)
		for (uint32_t cell = 0; source->nodes[n].cells && cell < plan->layers * plan->experts; cell++)
			if (source->nodes[n].cells[cell] & flag)
				pl_plan_put(plan, cell / plan->experts, cell % plan->experts, n);
	return plan;
}

static void write_plan(const struct pl_plan *plan, uint8_t *cells)
{
	for (uint32_t n = 0; n < plan->nodes; n++)
		for (uint32_t l = 0; l < plan->layers; l++)
			for (uint32_t e = 0; e < plan->experts; e++)
				*cells++ = pl_plan_holds(plan, l, e, n);
}

/* target: [nodes][layers * experts] of 0 and 1. wanted_after: the same of the plan in force; may be
 * NULL. */
static struct pl_assignment assign_planned(const struct source *source, uint8_t *target, uint8_t *wanted_after)
{
	struct pl_cluster cluster = {
		.nodes = calloc(source->nodes_count + 1, sizeof *cluster.nodes),
		.nodes_count = source->nodes_count,
		.rules = (struct pl_cluster_rule *)source->pins,
		.rules_count = source->pins_count,
		.expert_bytes = source->expert_bytes,
	};
	for (uint32_t n = 0; n < source->nodes_count; n++)
		cluster.nodes[n] = (struct pl_cluster_node){
			.memory_bytes = source->nodes[n].memory_bytes,
			.expert_bytes = source->node_bytes[n],
			.speed = source->speed[n] > 0 ? source->speed[n] : 1,
			.forbidden = source->drained[n],
		};
	struct pl_plan *held = plan_of(source, HELD), *failed = plan_of(source, FAILED),
		       *leaving = plan_of(source, LEAVING), *wanted = plan_of(source, WANTED),
		       *made = plan_of(source, 0);
	const struct pl_assign_source real = {
		.cluster = &cluster,
		.held = held,
		.failed = failed,
		.leaving = leaving,
		.wanted = source->planned ? wanted : NULL,
		.copies = source->copies,
		.copies_of = source->copies_of,
		.level = source->level,
		.fresh = source->fresh,
		.seed = source->seed,
	};
	struct pl_assignment assignment;
	assert_int_equal(pl_assign(&real, made, &assignment), CAD_OK);
	write_plan(made, target);
	if (wanted_after)
		write_plan(wanted, wanted_after);

	pl_plan_free(held);
	pl_plan_free(failed);
	pl_plan_free(leaving);
	pl_plan_free(wanted);
	pl_plan_free(made);
	free(cluster.nodes);
	return assignment;
}

static struct pl_assignment assign(const struct source *source, uint8_t *target)
{
	return assign_planned(source, target, NULL);
}

static uint32_t count(const struct source *source, const uint8_t *target, uint32_t node, uint32_t layer)
{
	uint32_t found = 0;
	for (uint32_t e = 0; e < source->experts; e++)
		found += target[(size_t)node * source->layers_count * source->experts + layer * source->experts + e];
	return found;
}

static uint32_t copies(const struct source *source, const uint8_t *target, uint32_t cell)
{
	uint32_t found = 0;
	for (uint32_t node = 0; node < source->nodes_count; node++)
		found += target[(size_t)node * source->layers_count * source->experts + cell];
	return found;
}

/* The widest gap between two nodes in any layer. */
static uint32_t gap(const struct source *source, const uint8_t *target)
{
	uint32_t widest = 0;
	for (uint32_t layer = 0; layer < source->layers_count; layer++) {
		uint32_t least = UINT32_MAX, most = 0;
		for (uint32_t node = 0; node < source->nodes_count; node++) {
			uint32_t here = count(source, target, node, layer);
			least = here < least ? here : least;
			most = here > most ? here : most;
		}
		widest = most - least > widest ? most - least : widest;
	}
	return widest;
}

struct cluster {
	struct source source;
	struct node nodes[NODES];
	uint8_t cells[NODES][CELLS];
	uint8_t target[NODES * CELLS];
	uint64_t capacity; /* experts that fit, at most all on each node */
};

static void random_cluster(struct cluster *cluster, struct cad_random *random, bool even, bool held)
{
	uint32_t layers = 1 + (uint32_t)cad_random_below(random, 8),
		 experts = 1 + (uint32_t)cad_random_below(random, 24),
		 nodes = 1 + (uint32_t)cad_random_below(random, NODES);
	uint64_t room = (layers * experts + nodes - 1) / nodes + cad_random_below(random, 3);

	memset(cluster->cells, 0, sizeof cluster->cells);
	cluster->capacity = 0;

	for (uint32_t n = 0; n < nodes; n++) {
		uint64_t experts_max = even ? room : cad_random_below(random, 2 * room + 1);
		cluster->nodes[n] = (struct node){ experts_max * EXPERT_BYTES + cad_random_below(random, EXPERT_BYTES),
			cluster->cells[n] };
		cluster->capacity += experts_max < layers * experts ? experts_max : layers * experts;
		for (uint32_t cell = 0; held && cell < layers * experts; cell++)
			cluster->cells[n][cell] = cad_random_below(random, nodes) == 0 ? HELD : 0;
	}

	cluster->source = (struct source){
		.layers_count = layers,
		.experts = experts,
		.expert_bytes = EXPERT_BYTES,
		.nodes = cluster->nodes,
		.nodes_count = nodes,
		.copies = 1 + (uint32_t)cad_random_below(random, 3),
		.seed = cad_random_below(random, 2) ? cad_random_next(random) : 0,
	};
}

/* What random_cluster fills, again and again; the caller frees it. */
static struct cluster *random_start(struct cad_random *random, uint64_t seed)
{
	print_message("seed %llu\n", (unsigned long long)seed);
	*random = (struct cad_random){ seed };
	return malloc(sizeof(struct cluster));
}

/* Nodes now hold what they were to hold; `lost` nothing, if there is such a node. */
static void load_target(struct cluster *cluster, uint32_t lost)
{
	const struct source *source = &cluster->source;
	uint32_t cells = source->layers_count * source->experts;

	for (uint32_t n = 0; n < source->nodes_count; n++)
		for (uint32_t cell = 0; cell < cells; cell++)
			cluster->cells[n][cell] = n != lost && cluster->target[n * cells + cell] ? HELD : 0;
}

/* Whatever comes in: never over memory, never more copies than asked, everything placed when it
 * fits, and the answer says what does not. */
static void always_within_memory_and_complete(void **state)
{
	(void)state;
	struct cad_random random;
	struct cluster *cluster = random_start(&random, 77001);
	for (int round = 0; round < 2000; round++) {
		random_cluster(cluster, &random, false, round % 2);
		struct source *source = &cluster->source;
		source->level = cad_random_below(&random, 2);
		struct pl_assignment assignment = assign(source, cluster->target);
		uint32_t cells = source->layers_count * source->experts, unplaced = 0;
		for (uint32_t n = 0; n < source->nodes_count; n++) {
			uint64_t bytes = 0;
			for (uint32_t layer = 0; layer < source->layers_count; layer++)
				bytes += (uint64_t)count(source, cluster->target, n, layer) * EXPERT_BYTES;
			assert_true(bytes <= cluster->nodes[n].memory_bytes);
		}
		for (uint32_t cell = 0; cell < cells; cell++) {
			assert_true(copies(source, cluster->target, cell) <= source->copies);
			unplaced += copies(source, cluster->target, cell) == 0;
		}
		assert_int_equal(unplaced, assignment.unplaced);
		assert_int_equal(unplaced, cluster->capacity >= cells ? 0 : cells - cluster->capacity);
		assert_int_equal(assignment.missing_bytes, (uint64_t)unplaced * EXPERT_BYTES);
		assert_int_equal(unplaced > 0, strlen(assignment.text) > 0);
	}

	free(cluster);
}

static void empty_nodes_of_one_size_get_even_layers(void **state)
{
	(void)state;
	struct cad_random random;
	struct cluster *cluster = random_start(&random, 77002);
	for (int round = 0; round < 1000; round++) {
		random_cluster(cluster, &random, true, false);
		cluster->source.copies = 1;
		assert_int_equal(assign(&cluster->source, cluster->target).unplaced, 0);
		assert_true(gap(&cluster->source, cluster->target) <= 1);
	}

	free(cluster);
}

/* Rebalancing makes any start even; and what is even (or as even as memory allows) is left
 * alone. */
static void rebalancing_evens_out_once(void **state)
{
	(void)state;
	struct cad_random random;
	struct cluster *cluster = random_start(&random, 77003);
	uint8_t *again = malloc(sizeof cluster->target);
	for (int round = 0; round < 1000; round++) {
		random_cluster(cluster, &random, round % 2, true);
		struct source *source = &cluster->source;
		source->copies = 1;
		source->level = true;
		uint32_t cells = source->layers_count * source->experts;
		for (uint32_t n = 0; n < source->nodes_count && round % 2; n++) /* room to move in */
			cluster->nodes[n].memory_bytes = (uint64_t)cells * EXPERT_BYTES;
		(void)assign(source, cluster->target);
		if (round % 2)
			assert_true(gap(source, cluster->target) <= 1);
		load_target(cluster, UINT32_MAX);
		struct pl_assignment second = assign(source, again);
		assert_int_equal(second.loads, 0);
		assert_memory_equal(cluster->target, again, (size_t)source->nodes_count * cells);
	}

	free(again);
	free(cluster);
}

/* Without rebalancing, nothing that is the only copy moves. */
static void held_experts_stay(void **state)
{
	(void)state;
	struct cad_random random;
	struct cluster *cluster = random_start(&random, 77004);
	for (int round = 0; round < 1000; round++) {
		random_cluster(cluster, &random, false, false);
		struct source *source = &cluster->source;
		source->copies = 1;
		uint32_t cells = source->layers_count * source->experts,
			 lost = (uint32_t)cad_random_below(&random, source->nodes_count);
		(void)assign(source, cluster->target);
		load_target(cluster, lost);
		cluster->nodes[lost].memory_bytes = 0;
		(void)assign(source, cluster->target);
		for (uint32_t n = 0; n < source->nodes_count; n++)
			for (uint32_t cell = 0; cell < cells; cell++)
				if (cluster->cells[n][cell])
					assert_true(cluster->target[n * cells + cell]);
	}

	free(cluster);
}

static void equal_input_gives_equal_output(void **state)
{
	(void)state;
	struct cad_random random = { 77005 };
	struct cluster *cluster = malloc(sizeof *cluster);
	uint8_t *again = malloc(sizeof cluster->target);
	for (int round = 0; round < 200; round++) {
		random_cluster(cluster, &random, false, true);
		(void)assign(&cluster->source, cluster->target);
		(void)assign(&cluster->source, again);
		assert_memory_equal(cluster->target, again,
			(size_t)cluster->source.nodes_count * cluster->source.layers_count * cluster->source.experts);
	}

	free(again);
	free(cluster);
}

static void first_placement_is_in_runs(void **state)
{
	(void)state;
	const struct node nodes[] = { { 100, NULL }, { 100, NULL }, { 100, NULL } };
	struct source source = {
		.layers_count = 2,
		.experts = 8,
		.expert_bytes = 1,
		.nodes = nodes,
		.nodes_count = 3,
		.copies = 1,
	};
	uint8_t target[3 * 16], shuffled[3 * 16];
	(void)assign(&source, target);
	static const uint8_t expected[3][16] = { { 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0 },
		{ 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0 },
		{ 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1 } };
	assert_memory_equal(target, expected, sizeof expected);
	source.seed = 3;
	(void)assign(&source, shuffled);
	assert_memory_not_equal(target, shuffled, sizeof target);
	assert_true(gap(&source, shuffled) <= 1);
}

static void second_copies_go_to_other_nodes(void **state)
{
	(void)state;
	const struct node nodes[] = { { 100, NULL }, { 100, NULL }, { 100, NULL }, { 100, NULL } };
	const struct source source = {
		.layers_count = 3,
		.experts = 8,
		.expert_bytes = 1,
		.nodes = nodes,
		.nodes_count = 4,
		.copies = 2,
	};
	uint8_t target[4 * 24];
	(void)assign(&source, target);
	for (uint32_t cell = 0; cell < 24; cell++)
		assert_int_equal(copies(&source, target, cell), 2);
	assert_int_equal(gap(&source, target), 0);
}

/* A held second copy gives way to an expert that would have no place. */
static void first_copies_come_before_second_ones(void **state)
{
	(void)state;
	static const uint8_t a[] = { 1, 1, 0 }, b[] = { 1, 1, 0 };
	const struct node nodes[] = { { 2, a }, { 2, b } };
	const struct source source = {
		.layers_count = 1,
		.experts = 3,
		.expert_bytes = 1,
		.nodes = nodes,
		.nodes_count = 2,
		.copies = 2,
	};
	uint8_t target[6];
	assert_int_equal(assign(&source, target).unplaced, 0);
}

static void says_what_is_missing(void **state)
{
	(void)state;
	static const uint8_t failed[] = { FAILED, 0, 0, 0 };
	const struct node nodes[] = { { 5 << 20, failed } };
	struct source source = {
		.layers_count = 2,
		.experts = 2,
		.expert_bytes = 2 << 20,
		.nodes = nodes,
		.nodes_count = 1,
		.copies = 1,
	};
	uint8_t target[4];
	struct pl_assignment assignment = assign(&source, target);
	assert_int_equal(assignment.unplaced, 2);
	assert_string_equal(assignment.text,
		"2 of 4 experts do not fit on 1 expert node: 4.0 MiB are missing (an expert takes 2.00 MiB); add nodes, or give them more --memory");
	source.expert_bytes = 1 << 20;
	assignment = assign(&source, target);
	assert_int_equal(assignment.unplaced, 1);
	assert_string_equal(
		assignment.text, "1 of 4 experts has no place: loading it has failed on every node with room");
	source.nodes_count = 0;
	assignment = assign(&source, target);
	assert_int_equal(assignment.unplaced, 4);
	assert_string_equal(assignment.text, "4 experts of 1.00 MiB each have no place: there is no expert node");
}

/* Three nodes with room for three each: the plan in force comes first, wherever things are now. */
static void the_plan_in_force_is_kept(void **state)
{
	(void)state;
	static const uint8_t a[] = { HELD | WANTED, HELD, WANTED, 0 }, b[] = { 0, WANTED, HELD, HELD | WANTED },
			     c[] = { 0, 0, WANTED, HELD };
	const struct node nodes[] = { { 3, a }, { 3, b }, { 3, c } };
	const struct source source = {
		.layers_count = 1,
		.experts = 4,
		.expert_bytes = 1,
		.nodes = nodes,
		.nodes_count = 3,
		.copies = 1,
		.planned = true,
		.level = true,
	};
	static const uint8_t expected[] = { 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0 };
	uint8_t target[12], wanted[12];
	assert_int_equal(assign_planned(&source, target, wanted).loads, 3);
	assert_memory_equal(target, expected, sizeof target);
	assert_memory_equal(wanted, expected, sizeof wanted);
}

/* A drained node gets nothing, one on which a load has failed not that; others stand in. */
static void others_stand_in_for_the_plan(void **state)
{
	(void)state;
	static const uint8_t a[] = { HELD | WANTED, HELD | WANTED, 0, 0 }, b[] = { 0, 0, WANTED | FAILED, WANTED },
			     c[] = { 0, 0, HELD, 0 };
	const struct node nodes[] = { { 4, a }, { 4, b }, { 4, c } };
	struct source source = {
		.layers_count = 1,
		.experts = 4,
		.expert_bytes = 1,
		.nodes = nodes,
		.nodes_count = 3,
		.copies = 1,
		.planned = true,
		.drained = { true },
	};
	uint8_t target[12], wanted[12];
	struct pl_assignment assignment = assign_planned(&source, target, wanted);
	assert_int_equal(assignment.unplaced, 0);
	for (int cell = 0; cell < 4; cell++)
		assert_int_equal(target[cell], 0);
	assert_int_equal(target[8 + 2], 1);         /* where it is held */
	assert_int_equal(target[4 + 3], 1);         /* as planned */
	assert_int_equal(wanted[0] + wanted[1], 2); /* the plan stays as it is */
	assert_int_equal(wanted[4 + 2] + wanted[4 + 3], 2);
}

/* Only a fresh node is filled, only from the plan's own places, and the plan knows. */
static void a_fresh_node_is_filled_from_the_plan(void **state)
{
	(void)state;
	static const uint8_t a[] = { HELD | WANTED, HELD | WANTED, HELD | WANTED, HELD | WANTED, HELD, 0 },
			     b[] = { 0, 0, 0, 0, 0, HELD | WANTED };
	const struct node nodes[] = { { 6, a }, { 6, b }, { 6, NULL } };
	const struct source source = {
		.layers_count = 1,
		.experts = 6,
		.expert_bytes = 1,
		.nodes = nodes,
		.nodes_count = 3,
		.copies = 1,
		.planned = true,
		.level = true,
		.fresh = { false, false, true },
	};
	uint8_t target[18], wanted[18];
	struct pl_assignment assignment = assign_planned(&source, target, wanted);
	assert_int_equal(assignment.levelled, 2);
	assert_int_equal(count(&source, target, 0, 0), 3);
	assert_int_equal(count(&source, target, 1, 0), 1);
	assert_int_equal(count(&source, target, 2, 0), 2);
	assert_int_equal(target[4], 1); /* it only stands in: it stays */
	assert_int_equal(count(&source, wanted, 2, 0), 2);
	assert_int_equal(count(&source, wanted, 0, 0), 2);
}

static void pins_come_before_everything(void **state)
{
	(void)state;
	static const uint8_t a[] = { HELD, HELD, HELD, HELD }, b[] = { 0, 0, 0, 0 };
	static const struct pl_cluster_rule pins[] = { { .layer = 0, .expert = 1, .node = 1 },
		{ .layer = 0, .expert = 3, .node = 1 } };
	static const uint16_t copies_of[] = { 2, 0, 0, 0 };
	const struct node nodes[] = { { 4, a }, { 3, b } };
	struct source source = {
		.layers_count = 1,
		.experts = 4,
		.expert_bytes = 1,
		.nodes = nodes,
		.nodes_count = 2,
		.copies = 1,
		.pins = pins,
		.pins_count = 2,
		.copies_of = copies_of,
		.level = true,
	};
	static const uint8_t expected[] = { 1, 0, 1, 0, 1, 1, 0, 1 };
	uint8_t target[8];
	(void)assign(&source, target);
	assert_memory_equal(target, expected, sizeof target);
	source.drained[1] = true; /* then they wait */
	(void)assign(&source, target);
	assert_int_equal(count(&source, target, 0, 0), 4);
}

/* A GPU packs experts in another way than a CPU: room is counted by each node's own. */
static void experts_have_another_size_on_each_node(void **state)
{
	(void)state;
	const struct node nodes[] = { { 600, NULL }, { 599, NULL } };
	const struct source source = {
		.layers_count = 1,
		.experts = 8,
		.expert_bytes = 100,
		.nodes = nodes,
		.nodes_count = 2,
		.node_bytes = { 0, 200 },
		.copies = 1,
	};
	uint8_t target[16];
	assert_int_equal(assign(&source, target).unplaced, 0);
	assert_int_equal(count(&source, target, 0, 0), 6);
	assert_int_equal(count(&source, target, 1, 0), 2);
}

/* A node that is eight times as fast has eight times as many, as far as its memory goes. */
static void fast_nodes_get_more_within_memory(void **state)
{
	(void)state;
	struct node nodes[] = { { 1000, NULL }, { 1000, NULL } };
	struct source source = {
		.layers_count = 9,
		.experts = 16,
		.expert_bytes = 1,
		.nodes = nodes,
		.nodes_count = 2,
		.speed = { 1, 8 },
		.copies = 1,
	};
	uint8_t target[2 * 144];
	uint32_t slow = 0;
	assert_int_equal(assign(&source, target).unplaced, 0);
	for (uint32_t layer = 0; layer < 9; layer++) {
		assert_in_range(count(&source, target, 0, layer), 1, 2);
		slow += count(&source, target, 0, layer);
	}
	assert_int_equal(slow, 144 / 9);

	nodes[1].memory_bytes = 90;
	assert_int_equal(assign(&source, target).unplaced, 0);
	for (uint32_t layer = 0; layer < 9; layer++)
		assert_int_equal(count(&source, target, 1, layer), 10);

	/* one copy on each: speed is no reason to leave one out */
	nodes[1].memory_bytes = 1000;
	source.copies = 2;
	assert_int_equal(assign(&source, target).lacking, 0);
}

/* One that comes later is filled as far as that helps, and then everything stays. */
static void levelling_knows_speeds(void **state)
{
	(void)state;
	uint8_t all[2 * 18], none[2 * 18] = { 0 }, target[2 * 36], again[2 * 36];
	memset(all, HELD, sizeof all);
	const struct node nodes[] = { { 1000, all }, { 1000, none } };
	struct source source = {
		.layers_count = 2,
		.experts = 18,
		.expert_bytes = 1,
		.nodes = nodes,
		.nodes_count = 2,
		.speed = { 1, 8 },
		.copies = 1,
		.level = true,
	};
	assert_int_equal(assign(&source, target).levelled, 32);
	for (uint32_t layer = 0; layer < 2; layer++)
		assert_int_equal(count(&source, target, 1, layer), 16);

	memcpy(all, target, sizeof all);
	memcpy(none, target + 36, sizeof none);
	assert_int_equal(assign(&source, again).levelled, 0);
	assert_memory_equal(target, again, sizeof target);
}

/* Whatever their one speed is, the plan is that of nodes whose speed nobody knows. */
static void nodes_of_equal_speed_are_placed_as_before(void **state)
{
	(void)state;
	struct cad_random random;
	struct cluster *cluster = random_start(&random, 77005);
	uint8_t *before = malloc(sizeof cluster->target);
	for (int round = 0; round < 500; round++) {
		random_cluster(cluster, &random, false, round % 2);
		struct source *source = &cluster->source;
		source->level = round % 3 == 0;
		(void)assign(source, before);
		double speed = (double)(4 + cad_random_below(&random, 4)) / (double)(1 << cad_random_below(&random, 8));
		for (uint32_t n = 0; n < source->nodes_count; n++)
			source->speed[n] = speed;
		(void)assign(source, cluster->target);
		assert_memory_equal(
			cluster->target, before, (size_t)source->nodes_count * source->layers_count * source->experts);
	}
	free(before);
	free(cluster);
}

static void nothing_to_place(void **state)
{
	(void)state;
	const struct node nodes[] = { { 100, NULL } };
	const struct source source = { .nodes = nodes, .nodes_count = 1, .copies = 1 };
	uint8_t target[1];
	assert_int_equal(assign(&source, target).unplaced, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(always_within_memory_and_complete),
		cmocka_unit_test(empty_nodes_of_one_size_get_even_layers),
		cmocka_unit_test(rebalancing_evens_out_once),
		cmocka_unit_test(held_experts_stay),
		cmocka_unit_test(equal_input_gives_equal_output),
		cmocka_unit_test(first_placement_is_in_runs),
		cmocka_unit_test(second_copies_go_to_other_nodes),
		cmocka_unit_test(first_copies_come_before_second_ones),
		cmocka_unit_test(says_what_is_missing),
		cmocka_unit_test(the_plan_in_force_is_kept),
		cmocka_unit_test(others_stand_in_for_the_plan),
		cmocka_unit_test(a_fresh_node_is_filled_from_the_plan),
		cmocka_unit_test(pins_come_before_everything),
		cmocka_unit_test(experts_have_another_size_on_each_node),
		cmocka_unit_test(fast_nodes_get_more_within_memory),
		cmocka_unit_test(levelling_knows_speeds),
		cmocka_unit_test(nodes_of_equal_speed_are_placed_as_before),
		cmocka_unit_test(nothing_to_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
