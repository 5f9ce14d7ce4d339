/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling: against exact probabilities with fixed seeds, and against a plain second statement of
 * the filters. */
#include "common/base/clock.h"
#include "kernels/philox.h"
#include "kernels/sample.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB_MAX = 5000 };

static int32_t sample(struct kn_sampling sampling, const float *logits, size_t vocab, uint64_t position)
{
	void *scratch = malloc(kn_sample_scratch_bytes(vocab));
	assert_non_null(scratch);
	int32_t id = kn_sample(&sampling, logits, vocab, position, scratch);
	free(scratch);
	assert_in_range(id, 0, vocab - 1);
	return id;
}

struct candidate {
	double p;
	float logit;
	size_t id;
};

static int candidate_order(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	return x->logit != y->logit ? (x->logit < y->logit ? 1 : -1) : x->id < y->id ? -1 : 1;
}

/* The definition once more, in double and by sorting everything: p[id], 0
 * for what is filtered out. */
static void exact_probabilities(struct kn_sampling s, const float *logits, size_t vocab, double *p)
{
	struct candidate *list = calloc(vocab, sizeof *list);
	assert_non_null(list);
	double sum = 0;
	for (size_t i = 0; i < vocab; i++)
		list[i] = (struct candidate){ 0, logits[i], i };
	qsort(list, vocab, sizeof *list, candidate_order);
	size_t kept = s.top_k > 0 && s.top_k < vocab ? s.top_k : vocab;
	for (size_t i = 0; i < kept; i++)
		sum += list[i].p = exp(((double)list[i].logit - (double)list[0].logit) / (double)s.temperature);
	if (s.top_p > 0 && s.top_p < 1) {
		double before = 0;
		size_t i = 0;
		for (; i < kept && before < (double)s.top_p * sum; i++)
			before += list[i].p;
		kept = i;
	}

	while (kept > 1 && list[kept - 1].p < (double)s.min_p)
		kept--;
	sum = 0;
	for (size_t i = 0; i < kept; i++)
		sum += list[i].p;
	for (size_t i = 0; i < vocab; i++)
		p[list[i].id] = i < kept ? list[i].p / sum : 0;
	free(list);
}

static void logits_make(struct cad_random *random, size_t vocab, double spread, float *logits)
{
	for (size_t i = 0; i < vocab; i++)
		logits[i] =
			(float)((cad_random_unit(random) + cad_random_unit(random) + cad_random_unit(random) - 1.5) *
				spread);
}

/* Chi-square of n draws; the bound is far out (about six standard
 * deviations), the seeds are fixed. */
static void assert_fits(struct kn_sampling s, const float *logits, size_t vocab, size_t draws)
{
	double p[64], chi = 0;
	size_t seen[64] = { 0 }, cells = 0;

	assert_true(vocab <= 64);
	exact_probabilities(s, logits, vocab, p);
	for (size_t i = 0; i < draws; i++)
		seen[sample(s, logits, vocab, i)]++;
	for (size_t i = 0; i < vocab; i++) {
		double expected = p[i] * (double)draws;
		if (p[i] == 0) {
			assert_int_equal(seen[i], 0);
			continue;
		}
		chi += ((double)seen[i] - expected) * ((double)seen[i] - expected) / expected;
		cells++;
	}

	double freedom = (double)cells - 1;
	if (chi > freedom + 6 * sqrt(2 * freedom) + 6)
		fail_msg("chi-square %.1f with %zu cells (T %.2f k %u p %.2f min %.2f)", chi, cells,
			(double)s.temperature, s.top_k, (double)s.top_p, (double)s.min_p);
}

static void draws_follow_the_probabilities(void **state)
{
	(void)state;
	struct cad_random random = { 7 };
	float logits[40];
	logits_make(&random, 40, 3, logits);
	static const struct kn_sampling settings[] = {
		{
			.temperature = 1,
		},
		{
			.temperature = 0.5f,
		},
		{
			.temperature = 1.7f,
			.top_k = 5,
		},
		{
			.temperature = 1,
			.top_p = 0.8f,
		},
		{
			.temperature = 1,
			.min_p = 0.1f,
		},
		{
			.temperature = 1.3f,
			.top_k = 20,
			.top_p = 0.9f,
			.min_p = 0.05f,
		},
		{
			.temperature = 1,
			.top_k = 1,
		},
	};
	for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
		for (uint64_t seed = 0; seed < 2; seed++) {
			struct kn_sampling s = settings[i];
			s.seed = seed << 40 | 12345;
			assert_fits(s, logits, 40, 20000);
		}
}

/* Over many random logits and settings: what can come out is exactly what the sorted definition
 * keeps. */
static void only_kept_tokens_come_out(void **state)
{
	(void)state;
	static float logits[VOCAB_MAX];
	static double p[VOCAB_MAX];
	struct cad_random random = { 99 };
	for (int round = 0; round < 400; round++) {
		size_t vocab = 1 + cad_random_below(&random, round % 8 == 0 ? VOCAB_MAX : 50);
		logits_make(&random, vocab, 1 + 10 * cad_random_unit(&random), logits);
		for (size_t i = 0; i < vocab; i++) /* ties */
			if (cad_random_below(&random, 3) == 0)
				logits[i] = logits[cad_random_below(&random, vocab)];
		struct kn_sampling s = {
			.temperature = (float)(0.2 + 2 * cad_random_unit(&random)),
			.seed = cad_random_next(&random),
		};
		if (cad_random_below(&random, 2))
			s.top_k = (uint32_t)(1 + cad_random_below(&random, vocab + 2));
		if (cad_random_below(&random, 2))
			s.top_p = (float)(0.01 + 0.98 * cad_random_unit(&random));
		if (cad_random_below(&random, 2))
			s.min_p = (float)cad_random_unit(&random);
		exact_probabilities(s, logits, vocab, p);
		for (uint64_t position = 0; position < 20; position++) {
			int32_t id = sample(s, logits, vocab, position);
			/* at the very edge of the nucleus f32 weights may keep one more than double
			 * ones: it is next to nothing there */
			if (p[id] == 0)
				fail_msg("round %d: token %d of %zu is filtered out (T %.3f k %u p %.4f min %.4f)",
					round, id, vocab, (double)s.temperature, s.top_k, (double)s.top_p,
					(double)s.min_p);
		}
	}
}

static void nothing_but_the_arguments_decides(void **state)
{
	(void)state;
	static float logits[VOCAB_MAX];
	struct cad_random random = { 3 };
	logits_make(&random, VOCAB_MAX, 4, logits);
	struct kn_sampling s = { .temperature = 1, .seed = 5 }, all = s;
	all.top_k = VOCAB_MAX;
	size_t differ = 0;
	for (uint64_t position = 0; position < 200; position++) {
		int32_t id = sample(s, logits, VOCAB_MAX, position);
		assert_int_equal(id, sample(s, logits, VOCAB_MAX, position));
		/* a filter that removes nothing changes nothing */
		assert_int_equal(id, sample(all, logits, VOCAB_MAX, position));
		s.seed = 6;
		differ += id != sample(s, logits, VOCAB_MAX, position);
		s.seed = 5;
	}

	assert_true(differ > 150);
}

static void greedy_takes_the_lowest_of_the_largest(void **state)
{
	(void)state;
	float logits[] = { -1, 3, -FLT_MAX, 3, 2.5f };
	struct kn_sampling s = { .temperature = 0, .seed = 1 };
	assert_int_equal(sample(s, logits, 5, 0), 1);
	assert_int_equal(sample(s, logits + 2, 3, 0), 1);
	float least[] = { -FLT_MAX, -FLT_MAX };
	assert_int_equal(sample(s, least, 2, 0), 0);
	float one[] = { -FLT_MAX, 0, -FLT_MAX };
	s.temperature = 1;
	for (uint64_t position = 0; position < 50; position++)
		assert_int_equal(sample(s, one, 3, position), 1);
}

/* Few values, so that many tie, in vocabularies that end anywhere in a vector or block. */
static void greedy_looks_at_every_logit(void **state)
{
	(void)state;
	static const float values[] = { -FLT_MAX, -5, -1, 0, -0.0f, 2, 3, FLT_MAX };
	static float logits[VOCAB_MAX];
	struct cad_random random = { 5 };

	for (size_t trial = 0; trial < 3000; trial++) {
		size_t vocab = 1 + cad_random_below(&random, trial % 2 ? 40 : VOCAB_MAX), best = 0;
		uint64_t kinds = 1 + cad_random_below(&random, 8);
		for (size_t id = 0; id < vocab; id++)
			logits[id] = values[cad_random_below(&random, 50) ? 0 : cad_random_below(&random, kinds)];
		for (size_t id = 1; id < vocab; id++)
			best = logits[id] > logits[best] ? id : best;
		assert_int_equal(sample((struct kn_sampling){ 0 }, logits, vocab, 0), best);
	}
}

/* One logit that is no number is enough, wherever it is and whichever token would be chosen: there
 * is no choice, greedy or drawn. */
static void nothing_is_chosen_beside_what_is_not_finite(void **state)
{
	(void)state;
	static const float odd[] = { NAN, -NAN, INFINITY, -INFINITY };
	static const struct kn_sampling ways[] = { { .temperature = 0 }, { .temperature = 1 },
		{ .temperature = 1, .top_k = 3 }, { .temperature = 0.5f, .top_p = 0.5f, .min_p = 0.1f } };
	static float logits[VOCAB_MAX];
	struct cad_random random = { 6 };
	void *scratch = malloc(kn_sample_scratch_bytes(VOCAB_MAX));

	assert_non_null(scratch);

	for (size_t trial = 0; trial < 4000; trial++) {
		size_t vocab = 1 + cad_random_below(&random, trial % 2 ? 40 : VOCAB_MAX),
		       at = cad_random_below(&random, vocab);
		logits_make(&random, vocab, 4, logits);
		assert_true(kn_logits_finite(logits, vocab));
		assert_in_range(sample(ways[trial % 4], logits, vocab, trial), 0, vocab - 1);
		logits[at] = odd[trial / 4 % 4];
		assert_false(kn_logits_finite(logits, vocab));
		assert_int_equal(kn_sample(&ways[trial % 4], logits, vocab, trial, scratch), -1);
	}
	free(scratch);
}

static void ties_go_to_the_lower_ids(void **state)
{
	(void)state;
	float logits[30];
	for (size_t i = 0; i < 30; i++)
		logits[i] = 1.0f;
	struct kn_sampling s = { .temperature = 1, .top_k = 3 };
	unsigned seen[30] = { 0 };
	for (uint64_t position = 0; position < 300; position++)
		seen[sample(s, logits, 30, position)]++;
	for (size_t i = 0; i < 30; i++)
		assert_true(i < 3 ? seen[i] > 50 : seen[i] == 0);
}

/* Known answers of Random123 itself (kat_vectors), so that a header of another version would be
 * seen. */
static void philox_known_answers(void **state)
{
	(void)state;
	philox4x32_ctr_t zero = philox4x32_R(10, (philox4x32_ctr_t){ { 0 } }, (philox4x32_key_t){ { 0 } });
	assert_int_equal(zero.v[0], 0x6627e8d5);
	assert_int_equal(zero.v[3], 0x9b00dbd8);
	philox4x32_ctr_t pi = philox4x32_R(10, (philox4x32_ctr_t){ { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 } },
		(philox4x32_key_t){ { 0xa4093822, 0x299f31d0 } });
	assert_int_equal(pi.v[0], 0xd16cfe09);
	assert_int_equal(pi.v[3], 0x24126ea1);
}

static void digest_depends_on_everything(void **state)
{
	(void)state;
	float logits[] = { 1, 2, 3 };
	uint8_t first[16] = { 0 }, again[16] = { 0 }, other[16] = { 0 };
	kn_digest_add(first, 7, logits, 3);
	kn_digest_add(again, 7, logits, 3);
	assert_memory_equal(first, again, 16);
	kn_digest_add(other, 8, logits, 3);
	assert_memory_not_equal(first, other, 16);
	memset(other, 0, 16);
	logits[1] = nextafterf(logits[1], 3);
	kn_digest_add(other, 7, logits, 3);
	assert_memory_not_equal(first, other, 16);
	kn_digest_add(again, 7, logits, 3);
	assert_memory_not_equal(first, again, 16); /* a chain */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(draws_follow_the_probabilities),
		cmocka_unit_test(only_kept_tokens_come_out),
		cmocka_unit_test(nothing_but_the_arguments_decides),
		cmocka_unit_test(greedy_takes_the_lowest_of_the_largest),
		cmocka_unit_test(greedy_looks_at_every_logit),
		cmocka_unit_test(nothing_is_chosen_beside_what_is_not_finite),
		cmocka_unit_test(ties_go_to_the_lower_ids),
		cmocka_unit_test(philox_known_answers),
		cmocka_unit_test(digest_depends_on_everything),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
