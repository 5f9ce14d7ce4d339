/* SPDX-License-Identifier: Apache-2.0 */
/* Circuit breakers: what opens them, for how long, and what closes them again. */
#include "common/base/clock.h"
#include "router-svc/moe/breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const uint64_t S = CAD_NS_PER_S;

static void end(struct rt_breaker *breaker, uint32_t good, uint32_t failed)
{
	for (uint32_t i = 0; i < good; i++)
		rt_breaker_ended(breaker, false, false, 0);
	for (uint32_t i = 0; i < failed; i++)
		rt_breaker_ended(breaker, true, false, 0);
}

static void failures_open_it(void **state)
{
	(void)state;
	static const struct {
		const char *calls; /* g: good, f: failed */
		uint32_t times;
		bool opens;
	} table[] = { { "ff", 1, false }, { "fff", 1, true }, { "ffg", 2, false }, { "ffg", 3, true },
		{ "gf", 3, false }, { "gf", 4, true }, { "ggf", 1000, false }, { "gfggf", 1000, false },
		{ "gffgf", 1000, true } };
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		struct rt_breaker breaker = { 0 };
		for (uint32_t t = 0; t < table[i].times; t++)
			for (const char *call = table[i].calls; *call; call++)
				rt_breaker_ended(&breaker, *call == 'f', false, 0);
		assert_int_equal(breaker.state, table[i].opens ? RT_BREAKER_OPEN : RT_BREAKER_CLOSED);
		assert_int_equal(breaker.opened, table[i].opens);
	}
}

static void one_slow_verdict_opens_it(void **state)
{
	(void)state;
	struct rt_breaker breaker = { 0 };
	end(&breaker, 100, 0);
	assert_true(rt_breaker_ended(&breaker, false, true, 5 * S));
	assert_true(breaker.state == RT_BREAKER_OPEN && breaker.cause == RT_BREAKER_SLOW);
	assert_int_equal(breaker.half_open_ns, 6 * S);
}

static void three_good_calls_close_it(void **state)
{
	(void)state;
	struct rt_breaker breaker = { 0 };
	end(&breaker, 0, 8);
	assert_false(rt_breaker_half_open(&breaker, S - 1));
	assert_false(rt_breaker_ended(&breaker, false, false, S / 2)); /* what comes while it is open */
	assert_true(rt_breaker_half_open(&breaker, S));
	assert_false(rt_breaker_ended(&breaker, false, false, S));
	assert_false(rt_breaker_ended(&breaker, false, false, S));
	assert_true(rt_breaker_ended(&breaker, false, false, S));
	assert_int_equal(breaker.state, RT_BREAKER_CLOSED);
	end(&breaker, 0, 2); /* counted anew */
	assert_int_equal(breaker.state, RT_BREAKER_CLOSED);
}

static void one_bad_call_opens_it_for_longer(void **state)
{
	(void)state;
	struct rt_breaker breaker = { 0 };
	uint64_t now = 0;
	end(&breaker, 0, 8);
	for (uint32_t seconds = 1; seconds < 100; seconds = seconds * 2 < 30 ? seconds * 2 : 30) {
		assert_int_equal(breaker.half_open_ns - now, seconds * S);
		now = breaker.half_open_ns;
		assert_true(rt_breaker_half_open(&breaker, now));
		assert_false(rt_breaker_ended(&breaker, false, false, now));
		assert_true(rt_breaker_ended(&breaker, seconds % 2, !(seconds % 2), now));
		assert_int_equal(breaker.state, RT_BREAKER_OPEN);
		if (now > 200 * S)
			break;
	}
	assert_int_equal(breaker.opened, 1); /* it was never closed */
	rt_breaker_half_open(&breaker, now += 30 * S);
	end(&breaker, 3 + 64, 0);
	end(&breaker, 0, 64);
	assert_int_equal(breaker.open_ms, 1000); /* after a good time, a first one again */
}

static void a_copy_is_left_out_for_a_while(void **state)
{
	(void)state;
	struct rt_open_copies copies = { 0 };
	assert_false(rt_open_copies_has(&copies, 1, 2, 3, 0));
	assert_true(rt_open_copies_refused(&copies, 1, 2, 3, 0));
	assert_false(rt_open_copies_refused(&copies, 1, 2, 3, S / 2));
	assert_true(rt_open_copies_has(&copies, 1, 2, 3, S - 1));
	assert_false(rt_open_copies_has(&copies, 1, 2, 4, 0) || rt_open_copies_has(&copies, 1, 3, 3, 0) ||
		rt_open_copies_has(&copies, 2, 2, 3, 0));
	assert_false(rt_open_copies_has(&copies, 1, 2, 3, S)); /* half open */
	assert_true(rt_open_copies_refused(&copies, 1, 2, 3, S));
	assert_true(rt_open_copies_has(&copies, 1, 2, 3, 3 * S - 1));
	assert_int_equal(copies.opened, 1);
	rt_open_copies_answered(&copies, 1, 2, 3);
	assert_int_equal(copies.count, 0);
	rt_open_copies_answered(&copies, 1, 2, 3);
}

static void only_so_many_copies(void **state)
{
	(void)state;
	struct rt_open_copies copies = { 0 };
	for (uint32_t i = 0; i < RT_OPEN_COPIES_MAX + 10; i++)
		assert_true(rt_open_copies_refused(&copies, 0, i, 0, i));
	assert_int_equal(copies.count, RT_OPEN_COPIES_MAX);
	assert_false(rt_open_copies_has(&copies, 0, 9, 0, 0)); /* the oldest have gone */
	assert_true(rt_open_copies_has(&copies, 0, 10, 0, 0));
	assert_true(rt_open_copies_has(&copies, 0, RT_OPEN_COPIES_MAX + 9, 0, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failures_open_it),
		cmocka_unit_test(one_slow_verdict_opens_it),
		cmocka_unit_test(three_good_calls_close_it),
		cmocka_unit_test(one_bad_call_opens_it_for_longer),
		cmocka_unit_test(a_copy_is_left_out_for_a_while),
		cmocka_unit_test(only_so_many_copies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
