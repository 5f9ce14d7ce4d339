/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that plans: results come on the loop's thread, a search that is cancelled is not heard
 * of, the next one waits for its end, and closing never waits for the time limit. */
#include "orchestration/placement/plan_thread.h"
#include "orchestration/planner/trace/synthetic.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

enum { LAYERS = 4, EXPERTS = 16, NODES = 4, K = 4 };

static const uint32_t layers[] = { 0, 1, 2, 3 };

struct world {
	uv_loop_t loop;
	struct pl_plan_thread thread;
	unsigned done;
	uint64_t tokens; /* of the last result */
	bool closed, owner;
	pthread_t self;
};

static void on_done(void *context, struct pl_planning_result *result)
{
	struct world *world = context;
	must(result->status, &result->error);
	world->done++;
	world->tokens = result->tokens_planned;
	world->owner = pthread_equal(world->self, pthread_self()) != 0;
}

static void on_closed(void *context) { ((struct world *)context)->closed = true; }

static int setup(void **state)
{
	static struct world world;
	world = (struct world){ .self = pthread_self() };
	assert_int_equal(uv_loop_init(&world.loop), 0);
	pl_plan_thread_init(&world.thread, &world.loop, on_done, &world);
	*state = &world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;
	pl_plan_thread_close(&world->thread, on_closed, world);
	uv_run(&world->loop, UV_RUN_DEFAULT);
	return world->closed ? uv_loop_close(&world->loop) : -1;
}

/* As many rounds as `rounds`, whatever time they take; 0: without end. */
static struct pl_planning_order order_for(uint64_t tokens, uint32_t rounds)
{
	struct cad_error error;
	struct pl_synthetic_trace made;
	const struct pl_synthetic settings = { .layers = LAYERS,
		.experts = EXPERTS,
		.k = K,
		.tokens = tokens,
		.seed = 1,
		.communities = 4,
		.strength = 0.9,
		.tasks = 1,
		.request_tokens = 20 };
	struct pl_planning_order order = {
		.shape = { .layers = layers, .layers_count = LAYERS, .experts = EXPERTS },
		.topk = K,
		.copies = -1,
		.time_limit_ns = UINT64_MAX,
		.rounds_max = rounds,
		.threads = 2,
	};

	must(pl_synthetic_create(&settings, &made, &error), &error);
	order.trace = made.trace;
	made.trace = NULL;
	pl_synthetic_fini(&made);
	must(pl_cluster_create(NODES, 6, &order.situation.cluster, &error), &error);
	assert_int_equal(pl_plan_contiguous(LAYERS, EXPERTS, NODES, &order.situation.present), CAD_OK);
	return order;
}

static void begin(struct world *world, uint64_t tokens, uint32_t rounds)
{
	struct cad_error error;
	struct pl_planning_order order = order_for(tokens, rounds);
	must(pl_plan_thread_start(&world->thread, &order, &error), &error);
	assert_null(order.trace); /* taken */
}

static void run_until_done(struct world *world, unsigned done)
{
	uv_ref((uv_handle_t *)&world->thread.ready);
	while (world->done < done)
		uv_run(&world->loop, UV_RUN_ONCE);
	uv_unref((uv_handle_t *)&world->thread.ready);
}

static void results_come_on_the_loops_thread(void **state)
{
	struct world *world = *state;

	for (unsigned i = 1; i <= 3; i++) {
		begin(world, 500 * i, 2);
		run_until_done(world, i);
		assert_int_equal(world->tokens, 500 * i);
		assert_true(world->owner);
		assert_false(world->thread.running);
	}
}

static void what_was_cancelled_is_not_heard_of_and_the_next_one_waits(void **state)
{
	struct world *world = *state;

	begin(world, 500, 0);
	pl_plan_thread_cancel(&world->thread);
	begin(world, 600, 0); /* waits, and is given up */
	pl_plan_thread_cancel(&world->thread);
	begin(world, 700, 2);
	run_until_done(world, 1);
	assert_int_equal(world->tokens, 700);
	assert_int_equal(world->done, 1);
}

static void closing_ends_a_search_without_end(void **state)
{
	struct world *world = *state;

	begin(world, 500, 0);
	pl_plan_thread_cancel(&world->thread);
	begin(world, 600, 2); /* is never begun */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(results_come_on_the_loops_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_was_cancelled_is_not_heard_of_and_the_next_one_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(closing_ends_a_search_without_end, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
