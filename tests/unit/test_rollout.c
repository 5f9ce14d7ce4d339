/* SPDX-License-Identifier: Apache-2.0 */
/* The states of copies: what is ordered when, what a map may show, and when a copy may go. */
#include "common/base/clock.h"
#include "orchestration/placement/assign.h"
#include "orchestration/placement/rollout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CELLS = 8, BYTES = 10, IMAGE_BYTES = 4, INTERVAL = 50, FREE_GRACE = 1000, RETRY = 5000, STALL = 5000000 };

static const uint32_t layers[] = { 0, 1 };

struct fixture {
	struct pl_rollout *rollout;
	struct pl_plan *target; /* of nodes in slots 0 to 2 */
	uint32_t cells;         /* experts 0 to cells - 1 had a copy at the start */
	bool served_all;        /* and have had one ever since */
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

static void on_stalled(void *context, uint32_t slot, uint32_t cell) { note(context, "stalled", slot, &cell, 1); }

static const char *turn(struct fixture *fixture, uint64_t routers_epoch, uint64_t now)
{
	const struct pl_rollout_orders orders = { on_load, on_free, on_stalled, fixture };
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

static int setup_with(void **state, uint32_t moves_max)
{
	struct fixture *fixture = calloc(1, sizeof *fixture);
	const struct pl_rollout_options options = {
		.shape = { layers, 2, CELLS / 2 },
		.expert_bytes = BYTES,
		.image_bytes = IMAGE_BYTES,
		.loads_max = 3,
		.moves_max = moves_max,
		.publish_interval_ns = INTERVAL,
		.free_grace_ns = FREE_GRACE,
		.retry_ns = RETRY,
		.stall_ns = STALL,
	};

	assert_int_equal(pl_rollout_create(&options, &fixture->rollout), CAD_OK);
	assert_int_equal(pl_plan_create(2, CELLS / 2, 3, &fixture->target), CAD_OK);
	*state = fixture;

	return 0;
}

static int setup(void **state) { return setup_with(state, 1); }
static int setup_four(void **state) { return setup_with(state, 4); }

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
	/* experts turn out to be larger there: what is there stays, nothing is added */
	pl_rollout_expert_bytes(fixture->rollout, 0, 2 * BYTES);
	assert_int_equal(pl_rollout_bytes(fixture->rollout, 0), 2 * BYTES);
	assert_int_equal(pl_rollout_bytes(fixture->rollout, 1), BYTES);
	pl_rollout_failed(fixture->rollout, 0, 1, 3);
	assert_string_equal(turn(fixture, 0, 4), "");
	pl_rollout_expert_bytes(fixture->rollout, 0, BYTES);
	assert_string_equal(turn(fixture, 0, 5), "load 0: 2; ");
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

/* It is not wanted here, but where it is wanted it is not ready: nobody else can serve it. */
static void leaving_copy_comes_back_when_nobody_else_is_left(void **state)
{
	struct fixture *fixture = *state;
	join(fixture, 0, 1000, "00000000");
	join(fixture, 1, 1000, "00000000");
	join(fixture, 2, 1000, "00000000");
	target(fixture, 0, "10000000");
	turn(fixture, 0, 1);
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 2);
	target(fixture, 0, "00000000");
	target(fixture, 1, "10000000");
	turn(fixture, 0, 3);
	pl_rollout_loaded(fixture->rollout, 1, 0, true, 4);
	turn(fixture, 0, 4);
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_LEAVING);
	pl_rollout_drop(fixture->rollout, 1);
	pl_plan_clear(fixture->target);
	target(fixture, 2, "10000000");
	assert_string_equal(turn(fixture, 0, 5), "load 2: 0; ");
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_READY);
	pl_rollout_loaded(fixture->rollout, 2, 0, true, 6);
	turn(fixture, 0, 6);
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_LEAVING);
}

/* What a node claims serves as long as nobody else has it, wherever it is wanted. */
static void claims_serve_until_the_wanted_copy_is_ready(void **state)
{
	struct fixture *fixture = *state;
	join(fixture, 0, 1000, "11000000");
	join(fixture, 1, 1000, "00000000");
	target(fixture, 1, "10000000");
	pl_rollout_published(fixture->rollout, 1, 1);
	assert_string_equal(turn(fixture, 1, 2), "free 0: 1; load 0: 0; load 1: 0; ");
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 3);
	turn(fixture, 1, 3);
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_READY);
	pl_rollout_loaded(fixture->rollout, 1, 0, true, 4);
	turn(fixture, 1, 4);
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 0), PL_COPY_LEAVING);
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

/* Bytes of moves are spread over time; what nobody serves is loaded at once. */
static void moves_keep_to_the_rate(void **state)
{
	struct fixture *fixture = *state;
	pl_rollout_rate(fixture->rollout, IMAGE_BYTES * CAD_NS_PER_S / 100); /* one in 100 ns */
	join(fixture, 0, 1000, "00000000");
	join(fixture, 1, 1000, "00000000");
	target(fixture, 0, "11100000");
	assert_string_equal(turn(fixture, 0, 1), "load 0: 0 1 2; ");
	assert_int_equal(pl_rollout_rate_of(fixture->rollout, 0), 0);
	for (uint32_t cell = 0; cell < 3; cell++)
		pl_rollout_loaded(fixture->rollout, 0, cell, true, 2);
	target(fixture, 0, "00000000");
	target(fixture, 1, "11100000");
	assert_string_equal(turn(fixture, 0, 10), "load 1: 0; ");
	assert_int_equal(pl_rollout_rate_of(fixture->rollout, 0), IMAGE_BYTES * CAD_NS_PER_S / 100);
	pl_rollout_published(fixture->rollout, 1, 10);
	pl_rollout_loaded(fixture->rollout, 1, 0, true, 20);
	assert_string_equal(turn(fixture, 0, 109), "");
	pl_rollout_published(fixture->rollout, 2, 109);
	assert_int_equal(pl_rollout_deadline_ns(fixture->rollout, 109), 110);
	assert_string_equal(turn(fixture, 0, 110), "load 1: 1; ");
}

/* The node that serves the expert is lost: the move is ordered again, once, without a rate. */
static void a_move_becomes_needed(void **state)
{
	struct fixture *fixture = *state;
	pl_rollout_rate(fixture->rollout, IMAGE_BYTES * CAD_NS_PER_S / 100);
	join(fixture, 0, 1000, "00000000");
	join(fixture, 1, 1000, "00000000");
	target(fixture, 0, "10000000");
	assert_string_equal(turn(fixture, 0, 1), "load 0: 0; ");
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 2);
	target(fixture, 0, "00000000");
	target(fixture, 1, "10000000");
	assert_string_equal(turn(fixture, 0, 10), "load 1: 0; ");
	assert_string_equal(turn(fixture, 0, 11), "");
	pl_rollout_drop(fixture->rollout, 0);
	assert_string_equal(turn(fixture, 0, 12), "load 1: 0; ");
	assert_int_equal(pl_rollout_rate_of(fixture->rollout, 0), 0);
	assert_string_equal(turn(fixture, 0, 13), "");
	pl_rollout_loaded(fixture->rollout, 1, 0, true, 14);
	assert_int_equal(pl_rollout_copy(fixture->rollout, 1, 0), PL_COPY_READY);
}

/* The source of a load is known for as long as it is in flight: the last one that was named. */
static void source_of_a_load(void **state)
{
	struct fixture *fixture = *state;
	uint32_t asked[CAD_PROCESSES_MAX];
	join(fixture, 0, 1000, "00000000");
	target(fixture, 0, "11000000");
	assert_string_equal(turn(fixture, 0, 1), "load 0: 0 1; ");
	assert_int_equal(pl_rollout_source(fixture->rollout, 0, 0), CAD_PROCESSES_MAX);
	pl_rollout_set_source(fixture->rollout, 0, 0, 2);
	pl_rollout_set_source(fixture->rollout, 0, 1, 2);
	pl_rollout_set_source(fixture->rollout, 0, 1, 1);
	pl_rollout_set_source(fixture->rollout, 0, 5, 1); /* nobody asked for it */
	assert_int_equal(pl_rollout_source(fixture->rollout, 0, 1), 1);
	assert_int_equal(pl_rollout_source(fixture->rollout, 0, 5), CAD_PROCESSES_MAX);
	pl_rollout_asked(fixture->rollout, asked);
	assert_int_equal(asked[0], 0);
	assert_int_equal(asked[1], 1);
	assert_int_equal(asked[2], 1);
	pl_rollout_loaded(fixture->rollout, 0, 1, true, 2);
	assert_int_equal(pl_rollout_source(fixture->rollout, 0, 1), CAD_PROCESSES_MAX);
	pl_rollout_asked(fixture->rollout, asked);
	assert_int_equal(asked[1], 0);
}

/* A load that does not come on is given up; one that a node has not begun, because it is busy with
 * one ordered before, is not. */
static void stalled_load_is_backed_out(void **state)
{
	struct fixture *fixture = *state;
	join(fixture, 0, 1000, "00000000");
	target(fixture, 0, "11000000");
	assert_string_equal(turn(fixture, 0, 1), "load 0: 0 1; ");
	assert_true(pl_rollout_loading(fixture->rollout, 0, 0, 5, 100));
	assert_false(pl_rollout_loading(fixture->rollout, 0, 0, 5, 200)); /* no news */
	assert_false(pl_rollout_loading(fixture->rollout, 0, 7, 5, 200)); /* nobody asked for it */
	assert_int_equal(pl_rollout_deadline_ns(fixture->rollout, 200), 100 + STALL);
	assert_string_equal(turn(fixture, 0, 100 + STALL - 1), "");
	pl_rollout_loaded(fixture->rollout, 0, 0, true, 100 + STALL - 1);
	assert_string_equal(turn(fixture, 0, 100 + STALL), "");
	assert_string_equal(turn(fixture, 0, 99 + 2 * STALL), "free 0: 1; stalled 0: 1; ");
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 1), PL_COPY_FREEING);
	pl_rollout_loaded(fixture->rollout, 0, 1, true, 2 * STALL + 100); /* too late */
	assert_int_equal(pl_rollout_copy(fixture->rollout, 0, 1), PL_COPY_FREEING);
	pl_rollout_freed(fixture->rollout, 0, 1);
	assert_string_equal(view(fixture, 0), "hf......");
}

/* Everything that is ordered is done, everything that is published is used; until nothing
 * happens. */
static void carry_on(struct fixture *fixture, uint32_t nodes)
{
	uint64_t now = 1000, epoch = 100;
	for (int quiet = 0; quiet < 4; now += 2 * FREE_GRACE) {
		quiet = turn(fixture, epoch, now)[0] ? 0 : quiet + 1;
		for (uint32_t s = 0; s < nodes; s++)
			for (uint32_t cell = 0; cell < CELLS; cell++)
				if (pl_rollout_copy(fixture->rollout, s, cell) == PL_COPY_LOADING)
					pl_rollout_loaded(fixture->rollout, s, cell, true, now);
				else if (pl_rollout_copy(fixture->rollout, s, cell) == PL_COPY_FREEING)
					pl_rollout_freed(fixture->rollout, s, cell);
		for (uint32_t cell = 0; cell < CELLS; cell++) {
			uint32_t ready = 0;
			for (uint32_t s = 0; s < nodes; s++)
				ready += pl_rollout_copy(fixture->rollout, s, cell) == PL_COPY_READY;
			fixture->served_all = fixture->served_all && (ready > 0 || cell >= fixture->cells);
		}
		pl_rollout_published(fixture->rollout, ++epoch, now);
	}
}

/* Nodes 0 to 2 hold what is said, and are to hold something else. */
static void rearrange(struct fixture *fixture, const char *const *held, const char *const *wanted, const uint64_t *room)
{
	for (uint32_t s = 0; s < 3; s++) {
		assert_int_equal(pl_rollout_add(fixture->rollout, s, room[s] * BYTES), CAD_OK);
		uint8_t cells[CELLS];
		for (uint32_t i = 0; i < CELLS; i++) {
			cells[i] = held[s][i] == '1';
			if (cells[i])
				pl_rollout_restore(fixture->rollout, s, i);
			fixture->cells = cells[i] && i >= fixture->cells ? i + 1 : fixture->cells;
		}
		pl_rollout_join(fixture->rollout, s, cells);
	}
	for (uint32_t s = 0; s < 3; s++)
		target(fixture, s, wanted[s]);
	fixture->served_all = true;
	carry_on(fixture, 3);
	assert_true(fixture->served_all);
}

static bool reached(struct fixture *fixture, const char *const *wanted)
{
	for (uint32_t s = 0; s < 3; s++)
		for (uint32_t i = 0; i < CELLS; i++)
			if ((pl_rollout_copy(fixture->rollout, s, i) == PL_COPY_READY) != (wanted[s][i] == '1'))
				return false;
	return true;
}

static void full_nodes_swap_over_a_third(void **state)
{
	struct fixture *fixture = *state;
	static const char *const held[] = { "11000000", "00110000", "00001000" };
	static const char *const wanted[] = { "00110000", "11000000", "00001000" };
	rearrange(fixture, held, wanted, (const uint64_t[]){ 2, 2, 2 });
	assert_true(reached(fixture, wanted));
}

static void full_nodes_swap_while_a_second_copy_is_away(void **state)
{
	struct fixture *fixture = *state;
	static const char *const held[] = { "11000000", "00110000", "10001000" };
	static const char *const wanted[] = { "10010000", "01100000", "10001000" };
	rearrange(fixture, held, wanted, (const uint64_t[]){ 2, 2, 2 });
	assert_true(reached(fixture, wanted));
}

/* The last free place is not taken by a further copy before the moves that need it are done. */
static void further_copies_come_last(void **state)
{
	struct fixture *fixture = *state;
	static const char *const held[] = { "11000000", "00110000", "00001000" };
	static const char *const wanted[] = { "01100000", "10010000", "01001000" };
	rearrange(fixture, held, wanted, (const uint64_t[]){ 2, 2, 2 });
	assert_true(reached(fixture, wanted));
}

static void without_any_room_nothing_is_given_up(void **state)
{
	struct fixture *fixture = *state;
	static const char *const held[] = { "11000000", "00110000", "00001100" };
	static const char *const wanted[] = { "01100000", "10010000", "00001100" };
	struct pl_rollout_work work;
	rearrange(fixture, held, wanted, (const uint64_t[]){ 2, 2, 2 });
	assert_true(reached(fixture, held));
	pl_rollout_work(fixture->rollout, &work);
	assert_true(work.stuck);
	assert_int_equal(work.pending, 2);
}

static bool is_said_to_be_reached(const struct fixture *fixture, const char *const *held, const uint64_t *room)
{
	struct pl_cluster_node nodes[3] = { 0 };
	const struct pl_cluster cluster = { .nodes = nodes, .nodes_count = 3, .expert_bytes = BYTES };
	struct pl_plan *plan;
	assert_int_equal(pl_plan_create(2, CELLS / 2, 3, &plan), CAD_OK);
	for (uint32_t s = 0; s < 3; s++) {
		nodes[s].memory_bytes = room[s] * BYTES;
		for (uint32_t i = 0; i < CELLS; i++)
			if (held[s][i] == '1')
				pl_plan_put(plan, i / plan->experts, i % plan->experts, s);
	}
	bool found = pl_assign_reaches(&cluster, plan, fixture->target);
	pl_plan_free(plan);
	return found;
}

/* Any plan that fits is reached from any other, if only one place is free, or one expert has two
 * copies; and that is what assign says. */
static void any_plan_is_reached_with_one_free_place(void **state)
{
	uint64_t seed = 4242;
	print_message("seed %llu\n", (unsigned long long)seed);
	struct cad_random random = { seed };
	int refused = 0;
	for (int round = 0; round < 3000; round++) {
		teardown(state);
		setup(state);
		struct fixture *fixture = *state;
		char held[3][CELLS + 1], wanted[3][CELLS + 1];
		uint64_t room[3] = { 0 }, most = 0;
		for (char(*plan)[CELLS + 1] = held; plan; plan = plan == held ? wanted : NULL) {
			uint64_t used[3] = { 0 };
			memset(plan, '0', sizeof held);
			for (uint32_t s = 0; s < 3; s++)
				plan[s][CELLS] = 0;
			for (uint32_t i = 0; i < CELLS; i++)
				for (uint64_t copies = 1 + (cad_random_below(&random, 4) == 0); copies > 0; copies--) {
					uint32_t s = (uint32_t)cad_random_below(&random, 3);
					used[s] += plan[s][i] == '0';
					plan[s][i] = '1';
				}
			for (uint32_t s = 0; s < 3; s++)
				room[s] = used[s] > room[s] ? used[s] : room[s];
		}
		for (uint32_t s = 0; s < 3; s++)
			for (uint32_t i = 0; i < CELLS; i++)
				most += held[s][i] == '1';
		bool place = room[0] + room[1] + room[2] > most;
		if (!place && round % 2)
			place = ++room[cad_random_below(&random, 3)];
		const char *const from[] = { held[0], held[1], held[2] },
				  *const to[] = { wanted[0], wanted[1], wanted[2] };
		rearrange(fixture, from, to, room);
		if (place)
			assert_true(reached(fixture, to));
		assert_int_equal(is_said_to_be_reached(fixture, from, room), reached(fixture, to));
		refused += !reached(fixture, to);
	}
	assert_true(refused > 0);
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
		cmocka_unit_test_setup_teardown(leaving_copy_comes_back_when_nobody_else_is_left, setup, teardown),
		cmocka_unit_test_setup_teardown(claims_serve_until_the_wanted_copy_is_ready, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_checksum_is_freed_and_not_asked_for_again, setup, teardown),
		cmocka_unit_test_setup_teardown(join_tells_what_is_left, setup, teardown),
		cmocka_unit_test_setup_teardown(moves_keep_to_the_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(moves_keep_to_the_rate, setup_four, teardown),
		cmocka_unit_test_setup_teardown(a_move_becomes_needed, setup, teardown),
		cmocka_unit_test_setup_teardown(source_of_a_load, setup, teardown),
		cmocka_unit_test_setup_teardown(stalled_load_is_backed_out, setup, teardown),
		cmocka_unit_test_setup_teardown(full_nodes_swap_over_a_third, setup, teardown),
		cmocka_unit_test_setup_teardown(full_nodes_swap_while_a_second_copy_is_away, setup, teardown),
		cmocka_unit_test_setup_teardown(further_copies_come_last, setup, teardown),
		cmocka_unit_test_setup_teardown(without_any_room_nothing_is_given_up, setup, teardown),
		cmocka_unit_test_setup_teardown(any_plan_is_reached_with_one_free_place, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_what_to_save_once, setup, teardown),
		cmocka_unit_test_setup_teardown(unknown_nodes_hold_nothing, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
