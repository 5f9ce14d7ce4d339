/* SPDX-License-Identifier: Apache-2.0 */
/* What routers say of their calls: kept as it came, cut where it is too
 * much, and silence is not zero. */
#include "orchestration/placement/calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void comes_back_as_it_was(void **state)
{
	(void)state;
	Cadre__V1__ExpertCalls from = CADRE__V1__EXPERT_CALLS__INIT;
	Cadre__V1__Breaker node = CADRE__V1__BREAKER__INIT, copy = CADRE__V1__BREAKER__INIT, *list[] = { &node, &copy };
	Cadre__V1__ExpertId expert = CADRE__V1__EXPERT_ID__INIT;
	struct pl_calls calls;
	struct pl_calls_message message;

	from.late = 1, from.hedged = 2, from.hedges_won = 3, from.rows_diverted = 4, from.p99_us = 5;
	from.breakers_open = 6, from.copies_open = 7;
	node.node = "a", node.why = "12 of 20 calls failed", node.half_open = 1;
	expert.layer = 8, expert.expert = 9;
	copy.node = "b", copy.copy = &expert;
	from.breakers = list, from.n_breakers = 2;
	pl_calls_read(&from, &calls);
	const Cadre__V1__ExpertCalls *to = pl_calls_write(&calls, &message);

	uint8_t before[512], after[512];
	size_t bytes = cadre__v1__expert_calls__pack(&from, before);
	assert_int_equal(cadre__v1__expert_calls__pack(to, after), bytes);
	assert_memory_equal(before, after, bytes);
}

static void what_is_too_much_is_cut(void **state)
{
	(void)state;
	enum { MANY = 20 };
	char text[300];
	Cadre__V1__ExpertCalls from = CADRE__V1__EXPERT_CALLS__INIT;
	Cadre__V1__Breaker breakers[MANY], *list[MANY];
	struct pl_calls calls;
	struct pl_calls_message message;

	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = 0;
	for (int i = 0; i < MANY; i++) {
		cadre__v1__breaker__init(list[i] = &breakers[i]);
		breakers[i].node = breakers[i].why = text;
	}
	from.breakers = list, from.n_breakers = from.breakers_open = MANY;
	pl_calls_read(&from, &calls);
	const Cadre__V1__ExpertCalls *to = pl_calls_write(&calls, &message);
	assert_int_equal(to->n_breakers, PL_BREAKERS_MAX);
	assert_int_equal(to->breakers_open, MANY);
	assert_int_equal(strlen(to->breakers[7]->node), CAD_MAP_ID_BYTES - 1);
	assert_int_equal(strlen(to->breakers[7]->why), PL_BREAKER_TEXT_BYTES - 1);
}

static void silence_is_not_zero(void **state)
{
	(void)state;
	struct pl_calls calls;
	struct pl_calls_message message;
	pl_calls_read(NULL, &calls);
	assert_null(pl_calls_write(&calls, &message));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_back_as_it_was),
		cmocka_unit_test(what_is_too_much_is_cut),
		cmocka_unit_test(silence_is_not_zero),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
