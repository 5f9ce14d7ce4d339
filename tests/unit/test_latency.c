/* SPDX-License-Identifier: Apache-2.0 */
/* How long calls take: quantiles near those of sorted samples, what is forgotten, sizes that were
 * never seen, and from when on a call is late or given up. */
#include "common/base/clock.h"
#include "router-svc/moe/latency.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void add(struct rt_latency *latency, uint32_t rows, uint64_t ns, uint32_t times)
{
	for (uint32_t i = 0; i < times; i++)
		rt_latency_add(latency, rows, ns);
}

static void nothing_is_known_at_first(void **state)
{
	(void)state;
	struct rt_latency latency = { 0 };
	assert_int_equal(rt_latency_p99_ns(&latency, 1), 0);
	assert_int_equal(rt_latency_late_ns(&latency, 1), UINT64_MAX);
	assert_int_equal(rt_latency_deadline_ns(&latency, 1, 77), 77);
	add(&latency, 1, CAD_NS_PER_MS, 15);
	assert_int_equal(rt_latency_late_ns(&latency, 1), UINT64_MAX);
	add(&latency, 1, CAD_NS_PER_MS, 1);
	assert_int_not_equal(rt_latency_late_ns(&latency, 1), UINT64_MAX);
}

static int ascending(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

/* Never below the sorted sample's, and at most a bucket above. */
static void quantiles_are_those_of_the_samples(void **state)
{
	(void)state;
	enum { SAMPLES = 800 };
	for (uint64_t seed = 1; seed <= 50; seed++) {
		struct cad_random random = { seed };
		struct rt_latency latency = { 0 };
		uint64_t samples[SAMPLES];
		for (uint32_t i = 0; i < SAMPLES; i++) {
			samples[i] = (uint64_t)1 << (16 + cad_random_below(&random, 18));
			samples[i] += cad_random_below(&random, samples[i]);
			rt_latency_add(&latency, 3, samples[i]);
		}
		qsort(samples, SAMPLES, sizeof *samples, ascending);
		uint64_t exact = samples[SAMPLES * 99 / 100 - 1], given = rt_latency_p99_ns(&latency, 3);
		if (given < exact || given > exact * 3 / 2)
			fail_msg("seed %llu: %llu, not %llu", (unsigned long long)seed, (unsigned long long)given,
				(unsigned long long)exact);
	}
}

static void old_calls_are_forgotten(void **state)
{
	(void)state;
	struct rt_latency latency = { 0 };
	add(&latency, 1, 100 * CAD_NS_PER_MS, 1000);
	assert_true(rt_latency_p99_ns(&latency, 1) >= 100 * CAD_NS_PER_MS);
	add(&latency, 1, CAD_NS_PER_MS, 8000);
	assert_true(rt_latency_p99_ns(&latency, 1) < 2 * CAD_NS_PER_MS);
	for (uint32_t i = 0; i < 100000; i++) /* no count overflows */
		rt_latency_add(&latency, 1, UINT64_MAX);
	assert_true(rt_latency_p99_ns(&latency, 1) > 30 * CAD_NS_PER_S);
}

static void sizes_have_their_own_times(void **state)
{
	(void)state;
	struct rt_latency latency = { 0 };
	add(&latency, 4, CAD_NS_PER_MS, 100);
	uint64_t small = rt_latency_p99_ns(&latency, 1);
	assert_int_equal(rt_latency_p99_ns(&latency, 5), 4 * small); /* by its rows, until it is measured */
	assert_int_equal(rt_latency_p99_ns(&latency, 1000), 64 * small);
	add(&latency, 65, 2 * CAD_NS_PER_MS, 100);
	assert_true(rt_latency_p99_ns(&latency, 1000) < 3 * CAD_NS_PER_MS);
	assert_int_equal(rt_latency_p99_ns(&latency, 64), 16 * small);
	assert_int_equal(rt_latency_p99_ns(&latency, 4), small);
	struct rt_latency large = { 0 };
	add(&large, 17, 3 * CAD_NS_PER_MS, 100);
	assert_int_equal(rt_latency_p99_ns(&large, 1), rt_latency_p99_ns(&large, 17));
	assert_int_equal(rt_latency_usual_p99_ns(&latency), small);
	assert_in_range(rt_latency_usual_p50_ns(&latency), CAD_NS_PER_MS, small);
}

/* Nothing below what a scheduler takes is late, and nothing waits longer than it may. */
static void late_and_given_up(void **state)
{
	(void)state;
	struct rt_latency fast = { 0 }, slow = { 0 };
	add(&fast, 1, 100 * CAD_NS_PER_US, 100);
	assert_int_equal(rt_latency_late_ns(&fast, 1), 10 * CAD_NS_PER_MS);
	assert_int_equal(rt_latency_deadline_ns(&fast, 1, 10 * CAD_NS_PER_S), 2 * CAD_NS_PER_S);
	assert_int_equal(rt_latency_deadline_ns(&fast, 1, CAD_NS_PER_S), CAD_NS_PER_S);
	add(&slow, 1, 200 * CAD_NS_PER_MS, 100);
	assert_in_range(rt_latency_late_ns(&slow, 1), 405 * CAD_NS_PER_MS, 500 * CAD_NS_PER_MS);
	assert_in_range(rt_latency_deadline_ns(&slow, 1, 10 * CAD_NS_PER_S), 4 * CAD_NS_PER_S, 5 * CAD_NS_PER_S);
	add(&slow, 1, 20 * CAD_NS_PER_S, 1000);
	assert_int_equal(rt_latency_deadline_ns(&slow, 1, 10 * CAD_NS_PER_S), 10 * CAD_NS_PER_S);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_known_at_first),
		cmocka_unit_test(quantiles_are_those_of_the_samples),
		cmocka_unit_test(old_calls_are_forgotten),
		cmocka_unit_test(sizes_have_their_own_times),
		cmocka_unit_test(late_and_given_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
