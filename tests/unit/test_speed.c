/* SPDX-License-Identifier: Apache-2.0 */
/* How fast nodes count as, by what they measured. */
#include "common/base/clock.h"
#include "orchestration/placement/speed.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* 64 tokens with 2 of 8 experts of a megabyte: all eight are used, with 16 rows each. */
static const struct pl_speed_work work = { .experts = 8, .topk = 2, .multiply_adds = 1e6 };

static bool takes(const struct pl_speed *speed, double seconds)
{
	return fabs(1 / pl_speed_rate(speed, &work, 1000000) - seconds) < 1e-6;
}

static void a_step_reads_or_multiplies(void **state)
{
	(void)state;
	struct pl_speed speed = { .read_bytes_per_second = 1e9, .multiply_adds_per_second = 1e15 };
	assert_true(takes(&speed, 8e-3));
	speed.step_s = 2e-3;
	assert_true(takes(&speed, 10e-3));
	speed.multiply_adds_per_second = 4e9; /* 16 rows take 4 ms, which is longer than reading */
	assert_true(takes(&speed, 34e-3));
}

static void what_is_not_said_is_not_known(void **state)
{
	(void)state;
	const struct pl_speed_work none = { 0 };
	const struct pl_speed good = { .read_bytes_per_second = 1e9, .multiply_adds_per_second = 1e12 };
	const double bad[] = { 0, -1, NAN, INFINITY };
	assert_true(pl_speed_rate(&good, &none, 1000) == 0);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct pl_speed speed = good;
		speed.read_bytes_per_second = bad[i];
		assert_true(pl_speed_rate(&speed, &work, 1000) == 0);
		speed = good;
		speed.multiply_adds_per_second = bad[i];
		assert_true(pl_speed_rate(&speed, &work, 1000) == 0);
		speed = good;
		speed.step_s = -1;
		assert_true(pl_speed_rate(&speed, &work, 1000) > 0);
	}

	const double rates[] = { 0, 0 };
	double speeds[2];
	pl_speed_compare(rates, 2, speeds);
	assert_true(speeds[0] == 1 && speeds[1] == 1);
}

/* Equal machines measure between 1 and 1.4 times the slowest: all count as 1, in every order. */
static void noise_makes_no_difference(void **state)
{
	(void)state;
	struct cad_random random = { 5 };
	for (int round = 0; round < 1000; round++) {
		double rates[CAD_NODES_MAX], speeds[CAD_NODES_MAX];
		uint32_t count = 1 + (uint32_t)cad_random_below(&random, 32);
		for (uint32_t i = 0; i < count; i++)
			rates[i] = 700 * (1 + 0.4 * cad_random_unit(&random));
		pl_speed_compare(rates, count, speeds);
		for (uint32_t i = 0; i < count; i++)
			assert_true(speeds[i] == 1);
	}
}

static void a_gpu_among_cpus(void **state)
{
	(void)state;
	const double rates[] = { 110, 0, 100, 3000, 140, 2500 }, changed[] = { 140, 0, 101, 2600, 104, 3100 };
	const double expected[] = { 1, 1, 1, 24, 1, 24 };
	double speeds[6];
	pl_speed_compare(rates, 6, speeds);
	assert_memory_equal(speeds, expected, sizeof expected);
	pl_speed_compare(changed, 6, speeds); /* measured again */
	assert_memory_equal(speeds, expected, sizeof expected);
}

static void the_median_is_one(void **state)
{
	(void)state;
	const double rates[] = { 1, 10, 10, 10, 1e9 }, expected[] = { 0.09375, 1, 1, 1, 512 };
	double speeds[5];
	pl_speed_compare(rates, 5, speeds);
	assert_memory_equal(speeds, expected, sizeof expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_step_reads_or_multiplies),
		cmocka_unit_test(what_is_not_said_is_not_known),
		cmocka_unit_test(noise_makes_no_difference),
		cmocka_unit_test(a_gpu_among_cpus),
		cmocka_unit_test(the_median_is_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
