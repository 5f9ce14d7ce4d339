/* SPDX-License-Identifier: Apache-2.0 */
/* The states of copies: what is ordered when, what a map may show, and when a copy may go. */
#include "orchestration/placement/rollout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CELLS = 8, BYTES = 10, INTERVAL = 50, FREE_GRACE = 1000, RETRY = 5000 };

static const uint32_t layers[] = { 0, 1 };

struct fixture {
	struct pl_rollout *rollout;
	struct pl_plan *target; /* of nodes in slots 0 to 2 */
	char log[1024];         /* orders as text: "load 0: 1 2; free 1: 3; " */
};

static void note(struct fixture *fixture, const char *what, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	size_t used = strlen(fixture->log);
	used += (size_t)snprintf(fixture->log + used, sizeof fixture->log - used, "%s %u:", what, slot);
	for (uint32_t i = 0; i < count; i++)
		used += (size_t)snprintf(fixture->log + used, sizeof fixture->log - used, " %u", cells[i]);
	snprintf(fixture->log + used, sizeof fixture->log - used, "; ");
}

static void on_load(void *context, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	note(context, "load", slot, cells, count);
}
static void on_free(void *context, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	note(context, "free", slot, cells, count);
}

static const char *turn(struct fixture *fixture, uint64_t routers_epoch, uint64_t now)
{
	const struct pl_rollout_orders orders = { on_load, on_free, fixture };
	fixture->log[0] = 0;
	pl_rollout_turn(fixture->rollout, routers_epoch, now, &orders);
	return fixture->log;
}

/* What one node should hold; others are to hold what they were before. */
static void target(struct fixture *fixture, uint32_t slot, const char *cells)
{
	static const uint32_t slots[] = { 0, 1, 2 };
	struct pl_plan *plan = fixture->target;
	for (uint32_t i = 0; i < CELLS; i++)
		if (cells[i] == '1')
			pl_plan_put(plan, i / plan->experts, i % plan->experts, slot);
		else
			pl_plan_take(plan, i / plan->experts, i % plan->experts, slot);
	pl_rollout_target(fixture->rollout, plan, slots);
}

/* What assign is told of a node: 'h' held, 'f' failed, 'l' leaving, '.' nothing. */
static const char *view(struct fixture *fixture, uint32_t slot)
{
	struct pl_rollout_view plans;
	assert_int_equal(pl_plan_create(2, CELLS / 2, 1, &plans.held), CAD_OK);
	assert_int_equal(pl_plan_create(2, CELLS / 2, 1, &plans.failed), CAD_OK);
	assert_int_equal(pl_plan_create(2, CELLS / 2, 1, &plans.leaving), CAD_OK);
	(void)pl_rollout_view(fixture->rollout, slot, 0, &plans);
	for (uint32_t i = 0; i < CELLS; i++)
		fixture->log[i] = pl_plan_holds(plans.failed, i / 4, i % 4, 0) ? 'f'
			: pl_plan_holds(plans.leaving, i / 4, i % 4, 0)        ? 'l'
			: pl_plan_holds(plans.held, i / 4, i % 4, 0)           ? 'h'
									       : '.';
	fixture->log[CELLS] = 0;
	pl_plan_free(plans.held);
	pl_plan_free(plans.failed);
	pl_plan_free(plans.leaving);
	return fixture->log;
}

static void join(struct fixture *fixture, uint32_t slot, uint64_t memory, const char *cells)
{
	uint8_t held[CELLS];
	for (int i = 0; i < CELLS; i++)
		held[i] = cells[i] == '1';
	assert_int_equal(pl_rollout_add(fixture->rollout, slot, memory), CAD_OK);
	pl_rollout_join(fixture->rollout, slot, held);
}

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof *fixture);
	const struct pl_rollout_options options = {
		.shape = { layers, 2, CELLS / 2 },
		.expert_bytes = BYTES,
		.loads_max = 3,
		.moves_max = 1,
		.publish_interval_ns = INTERVAL,
		.free_grace_ns = FREE_GRACE,
		.retry_ns = RETRY,
	};

	assert_int_equal(pl_rollout_create(&options, &fixture->rollout), CAD_OK);
	assert_int_equal(pl_plan_create(2, CELLS / 2, 3, &fixture->target), CAD_OK);
	*state = fixture;

	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;
	pl_rollout_destroy(fixture->rollout);
	pl_plan_free(fixture->target);
	free(fixture);
	return 0;
}

static void loads_a_few_at_a_time(void **state)
{
	struct fixture *fixture = *state;
	join(fixture, 0, 1000, "00000000");
	target(fixture, 0, "11111000");
	assert_string_equal(turn(fixture, 0, 1), "load 0: 0 1 2; ");
	assert_string_equal(turn(fixture, 0, 2), "");
	pl_rollout_loaded(fixture->rollout, 0, 1, true, 3);
	assert_string_equal(turn(fixture, 0, 3), "load 0: 3; ");
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 1), PL_COPY_READY);
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_LOADING);
}

static void never_loads_beyond_memory(void **state)
{
	struct fixture *fixture = *state;
	join(fixture, 0, 2 * BYTES + 9, "00000000");
	target(fixture, 0, "11100000");
	assert_string_equal(turn(fixture, 0, 1), "load 0: 0 1; ");
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 2);
	assert_string_equal(turn(fixture, 0, 2), "");
	/* experts turn out to be larger: what is there stays, nothing is added */
	assert_true(pl_rollout_expert_bytes(fixture->rollout, BYTES + 1));
	assert_false(pl_rollout_expert_bytes(fixture->rollout, BYTES));
	assert_int_equal(pl_rollout_bytes(fixture->rollout), BYTES + 1);
}

/* Additions wait for each other, within the interval; the last one, and a loss, are published at
 * once. */
static void maps_come_in_batches_but_losses_at_once(void **state)
{
	struct fixture *fixture = *state;
	join(fixture, 0, 1000, "00000000");
	target(fixture, 0, "11000000");
	turn(fixture, 0, 1000);
	assert_false(pl_rollout_publish_due(fixture->rollout, 1000));
	pl_rollout_published(fixture->rollout, 1, 1000);
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 1010);
	assert_false(pl_rollout_publish_due(fixture->rollout, 1010));
	assert_int_equal(pl_rollout_deadline_ns(fixture->rollout, 1010), 1000 + INTERVAL);
	assert_true(pl_rollout_publish_due(fixture->rollout, 1000 + INTERVAL));
	pl_rollout_loaded(fixture->rollout, 0, 1, true, 1020);
	assert_true(pl_rollout_publish_due(fixture->rollout, 1020));
	pl_rollout_published(fixture->rollout, 2, 1020);
	assert_false(pl_rollout_publish_due(fixture->rollout, 5000));
	assert_true(pl_rollout_deadline_ns(fixture->rollout, 5000) == UINT64_MAX);
	pl_rollout_drop(fixture->rollout, 0);
	assert_true(pl_rollout_publish_due(fixture->rollout, 1021));
}

/* A move: load, then out of the map, then wait for routers and the grace, then free. */
static void moves_in_the_safe_order(void **state)
{
	struct fixture *fixture = *state;
	join(fixture, 0, 1000, "00000000");
	target(fixture, 0, "11000000");
	turn(fixture, 0, 1);
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 2);
	pl_rollout_loaded(fixture->rollout, 0, 1, true, 2);
	pl_rollout_published(fixture->rollout, 1, 2);
	join(fixture, 1, 1000, "00000000");
	target(fixture, 0, "00000000");
	target(fixture, 1, "11000000");
	assert_string_equal(turn(fixture, 1, 10), "load 1: 0; "); /* one move at a time */
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_READY);
	pl_rollout_loaded(fixture->rollout, 1, 0, true, 20);
	assert_string_equal(turn(fixture, 1, 20), "load 1: 1; ");
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_LEAVING);
	assert_string_equal(turn(fixture, UINT64_MAX, 1u << 20), ""); /* not in any map yet */
	pl_rollout_published(fixture->rollout, 2, 100);
	assert_int_equal(pl_rollout_deadline_ns(fixture->rollout, 100), 100 + FREE_GRACE);
	assert_string_equal(turn(fixture, 2, 100 + FREE_GRACE - 1), ""); /* the grace */
	assert_string_equal(turn(fixture, 1, 100 + FREE_GRACE), "");     /* a router that works with the old map */
	assert_string_equal(turn(fixture, 2, 100 + FREE_GRACE), "free 0: 0; ");
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_FREEING);
	pl_rollout_freed(fixture->rollout, 0, 0);
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_NONE);
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 1), PL_COPY_READY); /* its move is not done */
}

/* With two copies wanted, the old one stays until both are there. */
static void old_copy_stays_until_all_new_ones_are_ready(void **state)
{
	struct fixture *fixture = *state;
	for (uint32_t slot = 0; slot < 3; slot++)
		join(fixture, slot, 1000, "00000000");
	target(fixture, 0, "10000000");
	turn(fixture, 0, 1);
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 2);
	target(fixture, 0, "00000000");
	target(fixture, 1, "10000000");
	target(fixture, 2, "10000000");
	assert_string_equal(turn(fixture, 0, 3), "load 1: 0; ");
	pl_rollout_loaded(fixture->rollout, 1, 0, true, 4);
	assert_string_equal(turn(fixture, 0, 4), "load 2: 0; ");
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_READY);
	pl_rollout_loaded(fixture->rollout, 2, 0, true, 5);
	turn(fixture, 0, 5);
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_LEAVING);
}

static void leaving_copy_comes_back_when_it_is_wanted_again(void **state)
{
	struct fixture *fixture = *state;
	join(fixture, 0, 1000, "00000000");
	join(fixture, 1, 1000, "00000000");
	target(fixture, 0, "10000000");
	turn(fixture, 0, 1);
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 2);
	target(fixture, 0, "00000000");
	target(fixture, 1, "10000000");
	turn(fixture, 0, 3);
	pl_rollout_loaded(fixture->rollout, 1, 0, true, 4);
	turn(fixture, 0, 4);
	assert_string_equal(view(fixture, 0), "l.......");
	pl_rollout_published(fixture->rollout, 2, 4);
	pl_rollout_drop(fixture->rollout, 1); /* the node that it moved to dies */
	pl_plan_clear(fixture->target);
	assert_string_equal(view(fixture, 0), "h.......");
	target(fixture, 0, "10000000");
	assert_string_equal(turn(fixture, UINT64_MAX, 1u << 20), "");
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_READY);
	assert_true(pl_rollout_publish_due(fixture->rollout, 5));
}

static void wrong_checksum_is_freed_and_not_asked_for_again(void **state)
{
	struct fixture *fixture = *state;
	join(fixture, 0, 1000, "00000000");
	target(fixture, 0, "11000000");
	turn(fixture, 0, 1);
	pl_rollout_loaded(fixture->rollout, 0, 0, false, 10);
	pl_rollout_failed(fixture->rollout, 0, 1, 10);
	assert_int_not_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_READY);
	assert_string_equal(turn(fixture, 0, 11), "free 0: 0; ");
	pl_rollout_freed(fixture->rollout, 0, 0);
	assert_string_equal(view(fixture, 0), "ff......");
	assert_false(pl_rollout_retry_due(fixture->rollout, 10 + RETRY - 1));
	assert_int_equal(pl_rollout_deadline_ns(fixture->rollout, 20), 10 + RETRY);
	assert_true(pl_rollout_retry_due(fixture->rollout, 10 + RETRY));
	assert_false(pl_rollout_retry_due(fixture->rollout, 10 + RETRY));
	assert_string_equal(view(fixture, 0), "........");
}

/* A node that comes back: verified copies are as they were, unverified ones are asked for, missing
 * ones are lost, unwanted ones are freed. */
static void join_tells_what_is_left(void **state)
{
	struct fixture *fixture = *state;
	join(fixture, 0, 1000, "00000000");
	target(fixture, 0, "11110000");
	turn(fixture, 0, 1);
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 2);
	pl_rollout_loaded(fixture->rollout, 0, 1, true, 2);
	pl_rollout_published(fixture->rollout, 1, 2);
	pl_rollout_unreachable(fixture->rollout, 0);
	assert_string_equal(turn(fixture, 1, 3), "");
	join(fixture, 0, 1000, "10110001");
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_READY);
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 1), PL_COPY_NONE);
	assert_true(pl_rollout_publish_due(fixture->rollout, 4));
	assert_string_equal(turn(fixture, 1, 4), "free 0: 7; load 0: 1 2 3; ");
	assert_int_equal(pl_rollout_in_flight(fixture->rollout), 3);
}

struct saved {
	int held, gone;
};
static void on_saved(void *context, uint32_t cell, bool held)
{
	struct saved *saved = context;
	(void)cell;
	if (held)
		saved->held++;
	else
		saved->gone++;
}

static void tells_what_to_save_once(void **state)
{
	struct fixture *fixture = *state;
	struct saved saved = { 0, 0 };

	join(fixture, 0, 1000, "00000000");
	pl_rollout_restore(fixture->rollout, 0, 5);
	target(fixture, 0, "11000100");
	turn(fixture, 0, 1);
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 2);
	pl_rollout_unsaved(fixture->rollout, 0, on_saved, &saved);
	assert_int_equal(saved.held, 1);
	pl_rollout_unsaved(fixture->rollout, 0, on_saved, &saved);
	assert_int_equal(saved.held, 1);
	pl_rollout_freed(fixture->rollout, 0, 5);
	pl_rollout_unsaved(fixture->rollout, 0, on_saved, &saved);
	assert_int_equal(saved.gone, 1);
}

static void unknown_nodes_hold_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct saved saved = { 0, 0 };
	assert_int_equal(pl_rollout_copy(fixture->rollout, 9, 0), PL_COPY_NONE);
	pl_rollout_drop(fixture->rollout, 9);
	pl_rollout_unsaved(fixture->rollout, 9, on_saved, &saved);
	assert_int_equal(saved.held + saved.gone, 0);
	assert_string_equal(turn(fixture, 0, 0), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(loads_a_few_at_a_time, setup, teardown),
		cmocka_unit_test_setup_teardown(never_loads_beyond_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(maps_come_in_batches_but_losses_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(moves_in_the_safe_order, setup, teardown),
		cmocka_unit_test_setup_teardown(old_copy_stays_until_all_new_ones_are_ready, setup, teardown),
		cmocka_unit_test_setup_teardown(leaving_copy_comes_back_when_it_is_wanted_again, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_checksum_is_freed_and_not_asked_for_again, setup, teardown),
		cmocka_unit_test_setup_teardown(join_tells_what_is_left, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_what_to_save_once, setup, teardown),
		cmocka_unit_test_setup_teardown(unknown_nodes_hold_nothing, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
