/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/capacity.h"

#include "kernels/exp.h"

#include <math.h>
#include <stdatomic.h>

uint32_t rt_capacity_limit(float factor, uint32_t rows, uint32_t topk, uint32_t experts)
{
	double exact = ceil((double)factor * rows * topk / experts);
	/* an expert gets a row at most once: above `rows` nothing is ever full */
	return exact < 1 ? 1 : exact >= rows ? rows : (uint32_t)exact;
}

static float sigmoid(float x) { return 1.0f / (1.0f + kn_exp(-x)); }

/* What the choice goes by: monotone in the score, and enough to rank. */
static float choice_score(const struct cad_gate_spec *gate, const float *logits, const float *bias, uint32_t expert)
{
	bool by_logit = gate->score != CAD_SCORE_SIGMOID || gate->choice_by_logit;
	float score = by_logit ? logits[expert] : sigmoid(logits[expert]);
	return bias ? score + bias[expert] : score;
}

static float score_ratio(const struct cad_gate_spec *gate, const float *logits, uint32_t to, uint32_t from)
{
	return gate->score == CAD_SCORE_SIGMOID ? sigmoid(logits[to]) / sigmoid(logits[from])
						: kn_exp(logits[to] - logits[from]);
}

static bool chosen(const struct cad_gate_spec *gate, const int32_t *ids, uint32_t expert)
{
	for (uint32_t k = 0; k < gate->topk; k++)
		if (ids[k] == (int32_t)expert)
			return true;
	return false;
}

/* The best expert with room that the row has not chosen; -1: none. */
static int32_t next_choice(const struct rt_capacity *capacity, const struct cad_gate_spec *gate, const float *logits,
	const float *bias, const int32_t *ids)
{
	int32_t best = -1;
	float best_score = 0;

	for (uint32_t e = 0; e < gate->experts; e++) {
		if (capacity->used[e] >= capacity->limit || chosen(gate, ids, e))
			continue;
		float score = choice_score(gate, logits, bias, e);
		if (best < 0 || score > best_score) {
			best = (int32_t)e;
			best_score = score;
		}
	}

	return best;
}

void rt_capacity_row(struct rt_capacity *capacity, const struct cad_gate_spec *gate, const float *logits,
	const float *bias, int32_t *ids, float *weights, struct rt_expert_counts *counts, uint32_t *dropped,
	uint32_t *spilled)
{
	for (uint32_t k = 0; k < gate->topk; k++) {
		if (ids[k] < 0)
			continue;
		uint32_t expert = (uint32_t)ids[k];
		if (capacity->used[expert] < capacity->limit) {
			capacity->used[expert]++;
			continue;
		}
		int32_t other =
			capacity->policy == RT_CAPACITY_SPILL ? next_choice(capacity, gate, logits, bias, ids) : -1;
		if (other >= 0) {
			weights[k] *= score_ratio(gate, logits, (uint32_t)other, expert);
			ids[k] = other;
			capacity->used[other]++;
			atomic_fetch_add_explicit(&counts[expert].spilled, 1, memory_order_relaxed);
			++*spilled;
		} else {
			weights[k] = 0.0f;
			ids[k] = -1;
			atomic_fetch_add_explicit(&counts[expert].dropped, 1, memory_order_relaxed);
			++*dropped;
		}
	}
}
