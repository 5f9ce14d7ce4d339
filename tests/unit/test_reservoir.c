/* SPDX-License-Identifier: Apache-2.0 */
/* The reservoir: every token has the chance that its weight gives it, memory stays, whole tokens
 * come out in their order. Seeds are fixed: the statistics repeat. */
#include "common/base/clock.h"
#include "orchestration/planner/trace/reservoir.h"
#include "tests/support/must.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 2, K = 2, EXPERTS = 60000, KEPT = 100, STREAM = 1000, CELLS = LAYERS * K };

static struct pl_reservoir *make(uint32_t tokens, double half_life_s, uint64_t seed)
{
	static const uint32_t layer[LAYERS] = { 3, 4 };
	struct pl_reservoir_options options = {
		.layers = LAYERS,
		.experts = EXPERTS,
		.k = K,
		.layer = layer,
		.tokens = tokens,
		.half_life_s = half_life_s,
		.seed = seed,
	};
	struct pl_reservoir *reservoir;
	struct cad_error error;
	must(pl_reservoir_create(&options, &reservoir, &error), &error);

	return reservoir;
}

/* Token i carries its number in every cell, so that it is known again. */
static void add(struct pl_reservoir *reservoir, double time_s, uint64_t request, uint16_t i)
{
	uint16_t ids[CELLS] = { i, PL_TRACE_NONE, PL_TRACE_NONE, i };
	assert_int_equal(pl_reservoir_add(reservoir, time_s, 1, request, ids), CAD_OK);
}

static struct pl_trace *taken(const struct pl_reservoir *reservoir)
{
	struct pl_trace *trace;
	struct cad_error error;
	must(pl_reservoir_trace(reservoir, &trace, &error), &error);
	assert_int_equal(trace->tokens, pl_reservoir_kept(reservoir));
	assert_int_equal(trace->layer[1], 4);
	return trace;
}

/* How often each token of a stream was kept, over many seeds. */
static void count_kept(double half_life_s, uint32_t rounds, uint32_t counts[STREAM])
{
	memset(counts, 0, STREAM * sizeof *counts);
	for (uint32_t round = 0; round < rounds; round++) {
		struct pl_reservoir *reservoir = make(KEPT, half_life_s, 1000 + round);
		for (uint16_t i = 0; i < STREAM; i++)
			add(reservoir, i, i / 10, i);
		assert_int_equal(pl_reservoir_kept(reservoir), KEPT);
		assert_int_equal(pl_reservoir_seen(reservoir), STREAM);
		struct pl_trace *trace = taken(reservoir);
		for (uint64_t token = 0; token < KEPT; token++)
			counts[pl_trace_row(trace, 0, token)[0]]++;
		pl_trace_free(trace);
		pl_reservoir_destroy(reservoir);
	}
}

/* Without ageing every token is as likely as every other: chi-square over 50 bins of 20 tokens, 49
 * degrees of freedom. */
static void uniform_without_ageing(void **state)
{
	enum { ROUNDS = 300, BINS = 50 };
	uint32_t counts[STREAM];
	double chi = 0, expected = (double)ROUNDS * KEPT / BINS;

	(void)state;
	count_kept(0, ROUNDS, counts);

	for (uint32_t bin = 0; bin < BINS; bin++) {
		double sum = 0;
		for (uint32_t i = 0; i < STREAM / BINS; i++)
			sum += counts[bin * (STREAM / BINS) + i];
		chi += (sum - expected) * (sum - expected) / expected;
	}

	print_message("chi-square %.1f\n", chi);

	/* 0.1 % on either side; drawing without replacement makes it a little smaller than 49 */
	assert_true(chi > 23.9 && chi < 85.4);
}

/* While few are kept of many, a token one half-life older is half as likely: what Efraimidis and
 * Spirakis' keys promise. */
static void older_tokens_are_rarer(void **state)
{
	enum { ROUNDS = 400 };
	uint32_t counts[STREAM];
	double by_age[4] = { 0 };

	(void)state;
	count_kept(250, ROUNDS, counts); /* four half-lives */
	for (uint32_t i = 0; i < STREAM; i++)
		by_age[3 - i / 250] += counts[i];

	/* The exact odds are those of the threshold: a token is kept when weight x threshold beats
	 * an exponential time, 1 - exp(-w c), with c such that 100 are kept. */
	double c = 0.01, kept = 0, expected[4];
	for (int step = 0; step < 200; step++) {
		kept = 0;
		for (uint32_t i = 0; i < STREAM; i++)
			kept += 1 - exp(-c * pow(2, ((double)i - STREAM) / 250));
		c *= KEPT / kept;
	}

	memset(expected, 0, sizeof expected);
	for (uint32_t i = 0; i < STREAM; i++)
		expected[3 - i / 250] += ROUNDS * (1 - exp(-c * pow(2, ((double)i - STREAM) / 250)));
	for (int age = 0; age < 4; age++) {
		print_message("age %d to %d half-lives: %.0f kept, %.0f expected\n", age, age + 1, by_age[age],
			expected[age]);
		assert_true(fabs(by_age[age] - expected[age]) < 5 * sqrt(expected[age]));
	}
}

static void small_streams(void **state)
{
	struct pl_reservoir *reservoir = make(3, 10, 1);
	struct pl_trace *trace;
	struct cad_error error;

	(void)state;
	assert_int_equal(pl_reservoir_trace(reservoir, &trace, &error), CAD_ERR_NOT_FOUND);
	add(reservoir, 0, 50, 1);
	trace = taken(reservoir);
	assert_int_equal(trace->tokens, 1);
	pl_trace_free(trace);
	add(reservoir, 1, 40, 2); /* requests come out in the order of their first token, not of their number */
	add(reservoir, 2, 50, 3);
	trace = taken(reservoir);
	static const uint16_t order[] = { 1, 3, 2 };
	for (uint64_t i = 0; i < 3; i++) {
		assert_int_equal(pl_trace_row(trace, 0, i)[0], order[i]);
		assert_int_equal(pl_trace_row(trace, 0, i)[1], PL_TRACE_NONE);
		assert_int_equal(pl_trace_row(trace, 1, i)[0], order[i]); /* what is behind an empty slot moves up */
		assert_int_equal(trace->request[i], i / 2);
	}

	pl_trace_free(trace);
	assert_int_equal(pl_reservoir_add(reservoir, 1e9, 1, 1, (uint16_t[]){ 1, 1, 2, 3 }), CAD_ERR_INVALID);
	assert_int_equal(pl_reservoir_add(reservoir, 1e9, 1, 1, (uint16_t[]){ 1, 2, EXPERTS, 3 }), CAD_ERR_INVALID);
	assert_int_equal(pl_reservoir_seen(reservoir), 3);

	/* 1e8 half-lives later nothing old is left, and no number overflows */
	for (uint16_t i = 10; i < 13; i++)
		add(reservoir, 1e9 + i, 60, i);
	trace = taken(reservoir);
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(pl_trace_row(trace, 0, i)[0], 10 + i);
	pl_trace_free(trace);
	pl_reservoir_destroy(reservoir);
}

static void the_same_for_a_seed(void **state)
{
	struct pl_reservoir *a = make(KEPT, 100, 7), *b = make(KEPT, 100, 7), *c = make(KEPT, 100, 8);
	(void)state;

	for (uint16_t i = 0; i < STREAM; i++) {
		add(a, i, i / 10, i);
		add(b, i, i / 10, i);
		add(c, i, i / 10, i);
	}

	struct pl_trace *traces[] = { taken(a), taken(b), taken(c) };
	size_t bytes = (size_t)KEPT * CELLS * sizeof(uint16_t);
	assert_memory_equal(traces[0]->ids, traces[1]->ids, bytes);
	assert_memory_not_equal(traces[0]->ids, traces[2]->ids, bytes);
	for (int i = 0; i < 3; i++)
		pl_trace_free(traces[i]);
	pl_reservoir_destroy(a);
	pl_reservoir_destroy(b);
	pl_reservoir_destroy(c);
}

static void options_out_of_range(void **state)
{
	static const struct pl_reservoir_options wrong[] = {
		{
			.layers = 0,
			.experts = 8,
			.k = 2,
			.tokens = 10,
		},
		{
			.layers = 1,
			.experts = 0,
			.k = 2,
			.tokens = 10,
		},
		{
			.layers = 1,
			.experts = 8,
			.k = 33,
			.tokens = 10,
		},
		{
			.layers = 1,
			.experts = 8,
			.k = 2,
			.tokens = 0,
		},
		{
			.layers = 1,
			.experts = 8,
			.k = 2,
			.tokens = PL_RESERVOIR_TOKENS_MAX + 1,
		},
		{
			.layers = 1,
			.experts = 8,
			.k = 2,
			.tokens = 10,
			.half_life_s = -1,
		},
		{
			.layers = 1,
			.experts = 8,
			.k = 2,
			.tokens = 10,
			.half_life_s = NAN,
		},
	};
	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct pl_reservoir *reservoir;
		struct cad_error error;
		assert_int_equal(pl_reservoir_create(&wrong[i], &reservoir, &error), CAD_ERR_RANGE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uniform_without_ageing),
		cmocka_unit_test(older_tokens_are_rarer),
		cmocka_unit_test(small_streams),
		cmocka_unit_test(the_same_for_a_seed),
		cmocka_unit_test(options_out_of_range),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
