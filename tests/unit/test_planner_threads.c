/* SPDX-License-Identifier: Apache-2.0 */
/* The planner on several threads: plans can be repeated, whatever their number. */
#include "tests/support/must.h"
#include "tests/support/plans.h"

static void equal_for_a_seed_and_rounds_whatever_the_threads(void **state)
{
	(void)state;
	struct pl_trace *trace = make_trace(5, 32, 4, 1500, 8, 0.6, 4);
	struct pl_cluster cluster;
	struct cad_error error;
	must(pl_cluster_create(4, 10, &cluster, &error), &error);
	struct pl_solve_options options = options_for(trace, &cluster, 40, 21);
	struct pl_solution first = solve(&options);
	size_t bytes = (size_t)first.plan->layers * first.plan->experts * first.plan->words * sizeof *first.plan->bits;
	for (uint32_t threads = 2; threads <= 5; threads += 3) {
		options.threads = threads;
		struct pl_solution again = solve(&options);
		assert_memory_equal(again.plan->bits, first.plan->bits, bytes);
		assert_true(again.value == first.value && again.rounds == first.rounds);
		pl_solution_fini(&again);
	}

	pl_solution_fini(&first);
	pl_cluster_fini(&cluster);
	pl_trace_free(trace);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_for_a_seed_and_rounds_whatever_the_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
