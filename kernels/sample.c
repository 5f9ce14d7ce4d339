/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling. Candidates are ranked by (logit descending, id ascending), the one order that ties
 * cannot blur. What is kept is a weight e^((logit - max) / T) per id, 0 for what a filter took out;
 * the draw walks the ids in ascending order, so that a filter that removes nothing changes nothing.
 */
#include "kernels/sample.h"

#include "common/base/status.h"
#include "kernels/exp.h"
#include "kernels/philox.h"

#include <stdbool.h>
#include <xxhash.h>

enum { BLOCK = 1024, LANES = 8 };

struct ranks {
	const float *logits;
	uint32_t *ids; /* a heap, the best on top */
	size_t count;
};

static bool ranks_before(const float *logits, uint32_t a, uint32_t b)
{
	return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
}

static void ranks_sink(struct ranks *ranks, size_t at)
{
	uint32_t id = ranks->ids[at];
	for (size_t child; (child = 2 * at + 1) < ranks->count; at = child) {
		if (child + 1 < ranks->count && ranks_before(ranks->logits, ranks->ids[child + 1], ranks->ids[child]))
			child++;
		if (!ranks_before(ranks->logits, ranks->ids[child], id))
			break;
		ranks->ids[at] = ranks->ids[child];
	}
	ranks->ids[at] = id;
}

static uint32_t ranks_pop(struct ranks *ranks)
{
	uint32_t best = ranks->ids[0];
	ranks->ids[0] = ranks->ids[--ranks->count];
	ranks_sink(ranks, 0);
	return best;
}

/* Up to BLOCK weights: lane i % 8 sums in ascending i, then halves are added. */
static double block_sum(const float *weights, size_t n)
{
	double lanes[LANES] = { 0 };
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		for (size_t lane = 0; lane < LANES; lane++)
			lanes[lane] += (double)weights[i + lane];
	for (size_t lane = 0; i < n; i++, lane++)
		lanes[lane] += (double)weights[i];
	for (size_t half = LANES / 2; half > 0; half /= 2)
		for (size_t lane = 0; lane < half; lane++)
			lanes[lane] += lanes[lane + half];

	return lanes[0];
}

static double weights_sum(const float *weights, size_t n)
{
	double sum = 0;
	for (size_t at = 0; at < n; at += BLOCK)
		sum += block_sum(weights + at, n - at < BLOCK ? n - at : BLOCK);
	return sum;
}

/*
 * Keeps the best tokens: a token stays while what stands before it is below `limit`, each token
 * counting 1 or its weight. Ranking a whole vocabulary is slow, so tokens fall into buckets by (max
 * - logit) / T first; only the bucket in which the limit lies is ranked.
 */
enum { BUCKETS_PER_E = 16, BUCKETS = 86 * BUCKETS_PER_E + 2 }; /* weights are 0 from e^-86 on */

struct field {
	const float *logits;
	size_t vocab;
	float *weights;
	uint32_t *ids;
	uint16_t *buckets;
};

/* Subtraction, division and product are monotonic, and so is the bucket. */
static void field_buckets(struct field *f, float most, float temperature)
{
	for (size_t id = 0; id < f->vocab; id++) {
		float at = (most - f->logits[id]) / temperature * BUCKETS_PER_E;
		f->buckets[id] = (uint16_t)(at < BUCKETS - 1 ? (int)at : BUCKETS - 1);
	}
}

static void field_keep(struct field *f, bool by_weight, double limit)
{
	double loads[BUCKETS] = { 0 }, before = 0;
	size_t edge = 0;

	for (size_t id = 0; id < f->vocab; id++)
		if (f->weights[id] > 0.0f)
			loads[f->buckets[id]] += by_weight ? (double)f->weights[id] : 1.0;
	while (edge < BUCKETS && before + loads[edge] < limit)
		before += loads[edge++];
	struct ranks ranks = { .logits = f->logits, .ids = f->ids };
	for (size_t id = 0; id < f->vocab; id++) {
		if (f->buckets[id] == edge && f->weights[id] > 0.0f)
			ranks.ids[ranks.count++] = (uint32_t)id;
		else if (f->buckets[id] > edge)
			f->weights[id] = 0.0f;
	}

	for (size_t at = ranks.count / 2; at-- > 0;)
		ranks_sink(&ranks, at);
	while (ranks.count > 0 && before < limit) {
		uint32_t id = ranks_pop(&ranks);
		before += by_weight ? (double)f->weights[id] : 1.0;
	}

	for (size_t i = 0; i < ranks.count; i++)
		f->weights[ranks.ids[i]] = 0.0f;
}

/* Uniform in [0, 1), 53 bits. */
static double uniform_at(uint64_t seed, uint64_t position)
{
	philox4x32_ctr_t counter = { { (uint32_t)position, (uint32_t)(position >> 32), 0, 0 } };
	philox4x32_key_t key = { { (uint32_t)seed, (uint32_t)(seed >> 32) } };
	philox4x32_ctr_t random = philox4x32_R(10, counter, key);
	uint64_t bits = (uint64_t)random.v[0] << 32 | random.v[1];
	return (double)(bits >> 11) * 0x1p-53;
}

static int32_t draw(const float *weights, size_t vocab, double target)
{
	double before = 0;
	size_t last = 0;

	for (size_t at = 0; at < vocab; at += BLOCK) {
		size_t end = vocab - at < BLOCK ? vocab : at + BLOCK;
		double sum = block_sum(weights + at, end - at);
		if (before + sum <= target && end < vocab) {
			before += sum;
			continue;
		}
		for (size_t id = at; id < end; id++) {
			if (weights[id] == 0.0f)
				continue;
			before += (double)weights[id];
			last = id;
			if (before > target)
				return (int32_t)id;
		}
	}

	return (int32_t)last; /* the sums of a block and of its elements may differ in the last bit */
}

/* As wide as the baseline's registers; wider ones are taken apart badly. */
enum { MOST_LANES = 4, MOST_CHAINS = 4 };
typedef float most_floats __attribute__((vector_size(4 * MOST_LANES)));
typedef int32_t most_bits __attribute__((vector_size(4 * MOST_LANES)));

/* The largest of n logits; NaN when one of them is not finite: there is no largest then, even if
 * the others are fine. x - x is 0 for what is finite and NaN for what is not, and stays that in a
 * sum. Written in vectors, because compilers do not put a choice side by side. */
static float block_most(const float *logits, size_t n)
{
	float most = -INFINITY, odd = 0;
	most_floats lanes[MOST_CHAINS], zero[MOST_CHAINS];
	size_t i = 0;

	for (size_t c = 0; c < MOST_CHAINS; c++) {
		lanes[c] = most - (most_floats){ 0 };
		zero[c] = (most_floats){ 0 };
	}
	for (; i + MOST_LANES * MOST_CHAINS <= n; i += MOST_LANES * MOST_CHAINS)
		for (size_t c = 0; c < MOST_CHAINS; c++) {
			most_floats next;
			memcpy(&next, logits + i + c * MOST_LANES, sizeof next);
			most_bits above = next > lanes[c];
			lanes[c] = (most_floats)((above & (most_bits)next) | (~above & (most_bits)lanes[c]));
			zero[c] += next - next;
		}
	for (; i < n; i++) {
		most = logits[i] > most ? logits[i] : most;
		odd += logits[i] - logits[i];
	}
	for (size_t c = 0; c < MOST_CHAINS; c++)
		for (size_t lane = 0; lane < MOST_LANES; lane++) {
			most = lanes[c][lane] > most ? lanes[c][lane] : most;
			odd += zero[c][lane];
		}

	return odd == 0 ? most : NAN;
}

/* The first of the largest logits; false when one is not finite. */
static bool best_id(const float *logits, size_t vocab, size_t *best)
{
	float most = -INFINITY;

	*best = 0;

	for (size_t block = 0; block < vocab; block += BLOCK) {
		float here = block_most(logits + block, vocab - block < BLOCK ? vocab - block : BLOCK);
		if (isnan(here))
			return false;
		if (here > most) {
			most = here;
			*best = block;
		}
	}
	while (logits[*best] != most)
		++*best;

	return true;
}

bool kn_logits_finite(const float *logits, size_t vocab)
{
	size_t best;
	return best_id(logits, vocab, &best);
}

/* In blocks of as many as the compiler puts side by side: a loop over all of them it would not. */
static void weights_make(
	const float *restrict logits, size_t vocab, float most, float temperature, float *restrict weights)
{
	size_t id = 0;
	for (; id + LANES <= vocab; id += LANES)
		for (size_t lane = 0; lane < LANES; lane++)
			weights[id + lane] = kn_exp_1((logits[id + lane] - most) / temperature);
	for (; id < vocab; id++)
		weights[id] = kn_exp_1((logits[id] - most) / temperature);
}

enum { SCRATCH_ALIGN = 64 };

size_t kn_sample_scratch_bytes(size_t vocab)
{
	return vocab * (sizeof(float) + sizeof(uint32_t) + sizeof(uint16_t)) + SCRATCH_ALIGN;
}

int32_t kn_sample(
	const struct kn_sampling *sampling, const float *logits, size_t vocab, uint64_t position, void *scratch)
{
	CAD_ASSERT(vocab > 0 && vocab <= INT32_MAX && sampling->temperature >= 0.0f);
	size_t best;
	if (!best_id(logits, vocab, &best))
		return -1;
	if (sampling->temperature == 0.0f)
		return (int32_t)best;
	float *weights = (float *)(((uintptr_t)scratch + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN);
	uint32_t *ids = (uint32_t *)(weights + vocab);
	struct field field = { logits, vocab, weights, ids, (uint16_t *)(ids + vocab) };
	bool has_top_k = sampling->top_k > 0 && sampling->top_k < vocab;
	bool has_top_p = sampling->top_p > 0.0f && sampling->top_p < 1.0f;
	weights_make(logits, vocab, logits[best], sampling->temperature, weights);
	if (has_top_k || has_top_p)
		field_buckets(&field, logits[best], sampling->temperature);
	if (has_top_k)
		field_keep(&field, false, sampling->top_k);
	if (has_top_p)
		field_keep(&field, true, (double)sampling->top_p * weights_sum(weights, vocab));
	if (sampling->min_p > 0.0f) /* the best has weight 1, whatever the sum is */
		for (size_t id = 0; id < vocab; id++)
			weights[id] = weights[id] < sampling->min_p ? 0.0f : weights[id];

	return draw(weights, vocab, uniform_at(sampling->seed, position) * weights_sum(weights, vocab));
}

void kn_digest_add(uint8_t digest[16], int32_t token, const float *logits, size_t vocab)
{
	struct {
		uint8_t before[16];
		int32_t token;
		uint8_t logits[16];
	} link;

	_Static_assert(sizeof link == 36, "hashed as it lies");
	XXH128_canonical_t canonical;
	XXH128_canonicalFromHash(&canonical, XXH3_128bits(logits, vocab * sizeof *logits));
	memcpy(link.before, digest, sizeof link.before);
	link.token = token;
	memcpy(link.logits, canonical.digest, sizeof link.logits);
	XXH128_canonicalFromHash(&canonical, XXH3_128bits(&link, sizeof link));
	memcpy(digest, canonical.digest, 16);
}
