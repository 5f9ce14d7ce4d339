/* SPDX-License-Identifier: Apache-2.0 */
/* Generated traces: the same for a seed, of the routing that was asked for, and with a placement
 * that is as good as it says. */
#include "tests/support/must.h"
#include "tests/support/plans.h"

#include <stdlib.h>
#include <string.h>

static const struct pl_synthetic plain = {
	.layers = 2,
	.experts = 64,
	.k = 4,
	.tokens = 4000,
	.seed = 1,
	.communities = 8,
	.strength = 0.9,
	.zipf = 0.5,
	.groups_kept = 1,
	.tasks = 4,
	.task_skew = 1,
	.locality = 0.5,
	.request_tokens = 20,
};

static size_t id_bytes(const struct pl_trace *trace)
{
	return (size_t)trace->layers * trace->tokens * trace->k * sizeof *trace->ids;
}

static void the_same_for_a_seed(void **state)
{
	struct pl_synthetic other = plain;
	other.seed = 2;
	(void)state;
	struct pl_synthetic_trace a = generate(&plain), b = generate(&plain), c = generate(&other);
	assert_memory_equal(a.trace->ids, b.trace->ids, id_bytes(a.trace));
	assert_memory_equal(a.trace->request, b.trace->request, a.trace->tokens * sizeof *a.trace->request);
	assert_memory_not_equal(a.trace->ids, c.trace->ids, id_bytes(a.trace));
	pl_synthetic_fini(&a);
	pl_synthetic_fini(&b);
	pl_synthetic_fini(&c);
}

/* Every cell has k distinct experts, scores fall and add up to 1, requests are as long as asked
 * for. */
static void cells_are_whole(void **state)
{
	struct pl_synthetic settings = plain;
	settings.scores = true;
	settings.drift = 1;
	(void)state;
	struct pl_synthetic_trace made = generate(&settings);
	const struct pl_trace *trace = made.trace;
	for (uint64_t cell = 0; cell < trace->layers * trace->tokens; cell++) {
		const uint16_t *ids = trace->ids + cell * trace->k;
		const float *scores = trace->scores + cell * trace->k;
		float sum = 0;
		for (uint32_t i = 0; i < trace->k; i++) {
			assert_true(ids[i] < trace->experts);
			for (uint32_t j = 0; j < i; j++)
				assert_int_not_equal(ids[i], ids[j]);
			assert_true(i == 0 || scores[i] <= scores[i - 1]);
			sum += scores[i];
		}
		assert_true(sum > 0.9999f && sum < 1.0001f);
	}

	assert_in_range(pl_trace_requests(trace), 150, 250);
	pl_synthetic_fini(&made);
}

static void groups_limit_the_choice(void **state)
{
	struct pl_synthetic settings = plain;
	settings.groups = 8;
	settings.groups_kept = 2;
	(void)state;
	struct pl_synthetic_trace made = generate(&settings);
	for (uint64_t cell = 0; cell < made.trace->layers * made.trace->tokens; cell++) {
		uint32_t groups = 0;
		for (uint32_t i = 0; i < made.trace->k; i++)
			groups |= 1u << made.trace->ids[cell * made.trace->k + i] / 8;
		assert_true(__builtin_popcount(groups) <= 2);
	}

	uint16_t node[2 * 64];
	struct pl_known_cost cost;
	struct cad_error error;
	bool planted;
	settings.communities = 1;
	pl_synthetic_fini(&made);
	made = generate(&settings);
	must(pl_synthetic_place(&settings, &made, 8, node, &planted, &cost, &error), &error);
	assert_false(planted);
	assert_int_equal(node[63], 7);
	assert_true(cost.nodes_per_token > 1 && cost.nodes_per_token <= 2);
	pl_synthetic_fini(&made);
}

/* Tokens that draw from their community alone touch one node, and no more rows go to one node than
 * to another. */
static void planted_placement(void **state)
{
	struct pl_synthetic settings = plain;
	uint16_t node[2 * 64];
	uint32_t held[8] = { 0 };
	struct pl_known_cost cost, weaker;
	struct cad_error error;
	bool planted;

	(void)state;
	settings.strength = 1;
	settings.tasks = 1;
	settings.locality = 0;
	settings.tokens = 20000;
	struct pl_synthetic_trace made = generate(&settings);
	for (uint32_t nodes = 1; nodes <= 8; nodes *= 2) {
		must(pl_synthetic_place(&settings, &made, nodes, node, &planted, &cost, &error), &error);
		assert_true(planted);
		assert_true(cost.nodes_per_token == 1);
		assert_true(cost.load_worst < 1.06);
	}

	for (uint32_t expert = 0; expert < 64; expert++)
		held[node[expert]]++;
	for (uint32_t n = 0; n < 8; n++)
		assert_int_equal(held[n], 8);
	assert_int_equal(pl_synthetic_place(&settings, &made, 3, node, &planted, &cost, &error), CAD_ERR_INVALID);
	assert_int_equal(pl_synthetic_place(&settings, &made, 0, node, &planted, &cost, &error), CAD_ERR_INVALID);
	pl_synthetic_fini(&made);
	settings.strength = 0.5;
	made = generate(&settings);
	must(pl_synthetic_place(&settings, &made, 8, node, &planted, &weaker, &error), &error);
	assert_true(weaker.nodes_per_token > 1.5 && weaker.nodes_per_token < 3);
	pl_synthetic_fini(&made);
}

/* Share of a token's experts that the token before it in its request selected, too. */
static double repeated(const struct pl_trace *trace)
{
	uint64_t same = 0, all = 0;
	for (uint64_t token = 1; token < trace->tokens; token++) {
		const uint16_t *ids = pl_trace_row(trace, 0, token);
		if (trace->request[token] != trace->request[token - 1])
			continue;
		for (uint32_t i = 0; i < trace->k * trace->k; i++)
			same += ids[i / trace->k] == ids[(int64_t)(i % trace->k) - trace->k];
		all += trace->k;
	}
	return (double)same / (double)all;
}

/* Half the sum of differences of the experts' shares between the halves of the trace. */
static double drifted(const struct pl_trace *trace)
{
	double share[64] = { 0 }, sum = 0;
	for (uint64_t cell = 0; cell < trace->tokens * trace->k; cell++)
		share[trace->ids[cell]] +=
			(cell < trace->tokens * trace->k / 2 ? 2.0 : -2.0) / (double)(trace->tokens * trace->k);
	for (uint32_t expert = 0; expert < 64; expert++)
		sum += share[expert] > 0 ? share[expert] : -share[expert];
	return sum / 2;
}

static void locality_and_drift(void **state)
{
	struct pl_synthetic settings = plain;
	double locality[2], drift[2];

	(void)state;
	settings.request_tokens = 5;

	for (int i = 0; i < 2; i++) {
		settings.locality = i * 0.9;
		settings.drift = i;
		struct pl_synthetic_trace made = generate(&settings);
		locality[i] = repeated(made.trace);
		drift[i] = drifted(made.trace);
		pl_synthetic_fini(&made);
	}

	print_message("repeated %.3f, %.3f; drift %.3f, %.3f\n", locality[0], locality[1], drift[0], drift[1]);
	assert_true(locality[1] > 1.5 * locality[0]);
	assert_true(drift[1] > 2 * drift[0]);
}

static void small_and_wrong(void **state)
{
	struct pl_synthetic settings = {
		.layers = 1,
		.experts = 1,
		.k = 1,
		.tokens = 1,
		.communities = 1,
		.tasks = 1,
		.request_tokens = 1,
	};
	struct pl_synthetic_trace made = generate(&settings);
	struct cad_error error;

	(void)state;
	assert_int_equal(made.trace->ids[0], 0);
	pl_synthetic_fini(&made);
	struct pl_synthetic wrong[9];
	for (int i = 0; i < 9; i++)
		wrong[i] = plain;
	wrong[0].k = 65;
	wrong[1].communities = 6;
	wrong[2].experts = 60;
	wrong[3].strength = 1.5;
	wrong[4].groups = 7;
	wrong[5].groups = 64; /* one group kept has one expert, but k is 4 */
	wrong[6].tasks = 0;
	wrong[7].request_tokens = 0;
	wrong[8].tokens = 0;
	for (int i = 0; i < 9; i++) {
		enum cad_status status = pl_synthetic_create(&wrong[i], &made, &error);
		assert_true(status == CAD_ERR_INVALID || status == CAD_ERR_RANGE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_for_a_seed),
		cmocka_unit_test(cells_are_whole),
		cmocka_unit_test(groups_limit_the_choice),
		cmocka_unit_test(planted_placement),
		cmocka_unit_test(locality_and_drift),
		cmocka_unit_test(small_and_wrong),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
