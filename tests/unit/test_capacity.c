/* SPDX-License-Identifier: Apache-2.0 */
/* Capacity policies: the limit, who is dropped, where spilled rows go. */
#include "router-svc/moe/capacity.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { E = 4, K = 2 };

static void limit(void **state)
{
	(void)state;
	assert_int_equal(rt_capacity_limit(1.0f, 8, 2, 4), 4);
	assert_int_equal(rt_capacity_limit(1.0f, 9, 2, 4), 5); /* ceil(4.5) */
	assert_int_equal(rt_capacity_limit(1.25f, 8, 2, 4), 5);
	assert_int_equal(rt_capacity_limit(1.0f, 1, 2, 64), 1);   /* never below one */
	assert_int_equal(rt_capacity_limit(1000.0f, 8, 2, 4), 8); /* an expert gets a row at most once */
}

struct fixture {
	struct rt_capacity capacity;
	uint32_t used[E];
	struct cad_gate_spec gate;
	struct rt_expert_counts counts[E];
	uint32_t dropped, spilled;
};

static void begin(struct fixture *f, enum rt_capacity_policy policy, uint32_t capacity)
{
	memset(f, 0, sizeof *f);
	f->capacity = (struct rt_capacity){ .policy = policy, .limit = capacity, .used = f->used };
	f->gate = (struct cad_gate_spec){ .experts = E, .topk = K, .score = CAD_SCORE_SOFTMAX };
}

static void drop_first_come(void **state)
{
	(void)state;
	struct fixture f;
	begin(&f, RT_CAPACITY_DROP, 1);
	float logits[E] = { 3, 2, 1, 0 };
	int32_t first[K] = { 0, 1 }, second[K] = { 0, 2 };
	float first_weights[K] = { 0.75f, 0.25f }, second_weights[K] = { 0.5f, 0.5f };
	rt_capacity_row(&f.capacity, &f.gate, logits, NULL, first, first_weights, f.counts, &f.dropped, &f.spilled);
	assert_int_equal(f.dropped, 0);
	rt_capacity_row(&f.capacity, &f.gate, logits, NULL, second, second_weights, f.counts, &f.dropped, &f.spilled);
	assert_int_equal(f.dropped, 1);
	assert_int_equal(second[0], -1);
	assert_true(second_weights[0] == 0.0f && second_weights[1] == 0.5f); /* what stays is not renormalised */
	assert_int_equal(f.counts[0].dropped, 1);
	assert_int_equal(f.spilled, 0);
}

static void spill_to_the_next_choice(void **state)
{
	(void)state;
	struct fixture f;
	begin(&f, RT_CAPACITY_SPILL, 1);
	float logits[E] = { 3, 2, 1, 0 };
	int32_t first[K] = { 0, 1 }, second[K] = { 0, 1 }, third[K] = { 0, 1 };
	float weights[3][K] = { { 0.7f, 0.3f }, { 0.7f, 0.3f }, { 0.7f, 0.3f } };
	rt_capacity_row(&f.capacity, &f.gate, logits, NULL, first, weights[0], f.counts, &f.dropped, &f.spilled);
	rt_capacity_row(&f.capacity, &f.gate, logits, NULL, second, weights[1], f.counts, &f.dropped, &f.spilled);
	assert_int_equal(f.spilled, 2);
	assert_int_equal(second[0], 2); /* 0 and 1 are full: 2, then 3, by score */
	assert_int_equal(second[1], 3);
	assert_true(fabsf(weights[1][0] - 0.7f * expf(1 - 3)) < 1e-6f);
	assert_true(fabsf(weights[1][1] - 0.3f * expf(0 - 2)) < 1e-6f);
	rt_capacity_row(&f.capacity, &f.gate, logits, NULL, third, weights[2], f.counts, &f.dropped, &f.spilled);
	assert_int_equal(f.dropped, 2); /* everything is full */
	assert_int_equal(third[0], -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limit),
		cmocka_unit_test(drop_first_come),
		cmocka_unit_test(spill_to_the_next_choice),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
