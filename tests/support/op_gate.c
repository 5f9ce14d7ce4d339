/* SPDX-License-Identifier: Apache-2.0 */
/* gate. variant: a spec of the table below, with the case's experts and topk. flag: logits with
 * many ties. */
#include "op_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct cad_gate_spec specs[] = {
	/* olmoe */
	{ .score = CAD_SCORE_SOFTMAX, .groups = 1, .groups_kept = 1, .scale = 1 },
	/* mixtral, qwen3_moe */
	{
		.score = CAD_SCORE_SOFTMAX,
		.groups = 1,
		.groups_kept = 1,
		.renormalise = true,
		.scale = 1,
	},
	/* deepseek_v2 */
	{
		.score = CAD_SCORE_SOFTMAX,
		.groups = 4,
		.groups_kept = 2,
		.group_score = CAD_GROUP_SCORE_MAX,
		.scale = 16,
	},
	{
		.score = CAD_SCORE_SIGMOID,
		.groups = 4,
		.groups_kept = 2,
		.group_score = CAD_GROUP_SCORE_TOP2,
		.selection_bias = true,
		.renormalise = true,
		/* deepseek_v3 */
		.renormalise_epsilon = 1e-20f,
		.scale = 2.5f,
	},
	/* gpt_oss */
	{
		.score = CAD_SCORE_SOFTMAX,
		.softmax_after_topk = true,
		.groups = 1,
		.groups_kept = 1,
		.scale = 1,
	},
	{ .score = CAD_SCORE_SIGMOID, .groups = 1, .groups_kept = 1, .scale = 1 },
	/* ernie4_5_moe, whose least is 1e-12: here it is reached */
	{
		.score = CAD_SCORE_SOFTMAX,
		.groups = 1,
		.groups_kept = 1,
		.selection_bias = true,
		.renormalise = true,
		.renormalise_least = 0.5f,
		.scale = 1,
	},
	/* no family's: biases make choices that are below 0, which those of dropped groups are above */
	{
		.score = CAD_SCORE_SOFTMAX,
		.groups = 4,
		.groups_kept = 2,
		.group_score = CAD_GROUP_SCORE_TOP2,
		.selection_bias = true,
		.dropped_zero = true,
		.scale = 1,
	},
	/* kolibri1 */
	{
		.score = CAD_SCORE_SIGMOID,
		.groups = 1,
		.groups_kept = 1,
		.selection_bias = true,
		.choice_by_logit = true,
		.scale = 1,
	},
};

struct gate {
	struct op_state state;
	struct cad_gate_spec spec;
	size_t ld;
	float *logits, *logits_host, *bias, *bias_host, *weights;
	int32_t *ids;
};

static struct op_state *gate_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct gate *s = op_need(sizeof *s);
	s->spec = specs[c->variant];
	s->spec.experts = (uint32_t)c->experts;
	s->spec.topk = (uint32_t)c->topk;
	s->ld = kn_ld(c->experts);
	s->logits = op_rows(queue, c->rows, c->experts, &seed, c->data, 1.0f, &s->logits_host);
	if (c->flag)
		for (size_t i = 0; i < c->rows * s->ld; i++)
			s->logits_host[i] = roundf(s->logits_host[i]);
	queue->ops->copy_in(queue, s->logits, s->logits_host, c->rows * s->ld * sizeof *s->logits);
	if (s->spec.selection_bias)
		s->bias = op_rows(queue, 1, c->experts, &seed, OP_DATA_BELL, 0.1f, &s->bias_host);
	s->ids = op_alloc(queue, c->rows * c->topk * sizeof *s->ids);
	s->weights = op_alloc(queue, c->rows * c->topk * sizeof *s->weights);
	size_t bytes = c->topk * (sizeof *s->ids + sizeof *s->weights);
	s->state = (struct op_state){ c, queue, c->rows, bytes, bytes, NULL, op_need(c->rows * bytes) };

	return &s->state;
}

/* Output row: ids, then weights. */
static void gate_run(struct op_state *state, size_t first, size_t rows)
{
	struct gate *s = (struct gate *)state;
	size_t topk = state->c->topk;
	const struct kn_ops *ops = state->queue->ops;

	ops->gate(state->queue,
		&(struct kn_gate){
			.spec = &s->spec,
			.logits = s->logits + first * s->ld,
			.ld = s->ld,
			.rows = rows,
			.bias = s->bias,
			.ids = s->ids + first * topk,
			.weights = s->weights + first * topk,
		});

	for (size_t r = first; r < first + rows; r++) {
		uint8_t *out = (uint8_t *)state->host_output + r * state->stride_bytes;
		ops->copy_out(state->queue, out, s->ids + r * topk, topk * 4);
		ops->copy_out(state->queue, out + topk * 4, s->weights + r * topk, topk * 4);
	}

	CAD_ASSERT(ops->wait(state->queue) == CAD_OK);
}

/* Float64 scores: what the weights come from, and what the choice is made by. */
static void exact_scores(const struct gate *s, const float *logits, double *score, double *choice)
{
	double most = -INFINITY, sum = 0;
	size_t experts = s->spec.experts;

	for (size_t e = 0; e < experts; e++)
		most = fmax(most, (double)logits[e]);
	for (size_t e = 0; e < experts; e++)
		sum += exp((double)logits[e] - most);
	for (size_t e = 0; e < experts; e++) {
		double x = (double)logits[e];
		score[e] = s->spec.softmax_after_topk        ? x
			: s->spec.score == CAD_SCORE_SOFTMAX ? exp(x - most) / sum
							     : 1 / (1 + exp(-x));
		choice[e] = (s->spec.choice_by_logit ? x : score[e]) + (s->bias_host ? (double)s->bias_host[e] : 0);
	}
}

static double group_value(const struct gate *s, const double *choice, size_t group)
{
	size_t size = s->spec.experts / s->spec.groups;
	double first = -INFINITY, second = -INFINITY;
	for (size_t e = group * size; e < (group + 1) * size; e++) {
		second = fmax(second, fmin(first, choice[e]));
		first = fmax(first, choice[e]);
	}
	return s->spec.group_score == CAD_GROUP_SCORE_TOP2 && size > 1 ? first + second : first;
}

/* The choice by counting who is before whom, with `slack` against roundings: an expert (or group)
 * may be chosen unless `most` others are better by more than that; it must not come before one that
 * is better by more. Equal ones come in ascending order. */
static bool choice_valid(const struct gate *s, double *choice, const int32_t *ids)
{
	const double slack = 1e-6;
	size_t size = s->spec.experts / s->spec.groups, topk = s->spec.topk;
	double groups[CAD_EXPERTS_MAX];
	bool open[CAD_EXPERTS_MAX], sure[CAD_EXPERTS_MAX]; /* the group may be kept; is kept for sure */

	for (size_t g = 0; g < s->spec.groups; g++)
		groups[g] = group_value(s, choice, g);
	for (size_t g = 0; g < s->spec.groups; g++) {
		size_t better = 0, near = 0;
		for (size_t h = 0; h < s->spec.groups; h++) {
			better += groups[h] > groups[g] + slack;
			near += h != g && groups[h] > groups[g] - slack;
		}
		open[g] = better < s->spec.groups_kept;
		sure[g] = near < s->spec.groups_kept;
	}

	for (size_t e = 0; e < s->spec.experts && s->spec.dropped_zero; e++)
		choice[e] = open[e / size] ? choice[e] : 0;
	for (size_t g = 0; g < s->spec.groups && s->spec.dropped_zero; g++) {
		sure[g] = sure[g] || !open[g];
		open[g] = true;
	}

	for (size_t k = 0; k < topk; k++) {
		size_t id = (size_t)ids[k], better = 0;
		if (id >= s->spec.experts || !open[id / size])
			return false;
		for (size_t e = 0; e < s->spec.experts; e++)
			better += sure[e / size] && choice[e] > choice[id] + slack;
		if (better > k)
			return false;
		if (k > 0 &&
			(choice[id] > choice[ids[k - 1]] + slack ||
				(choice[id] == choice[ids[k - 1]] && ids[k] <= ids[k - 1])))
			return false;
	}

	return true;
}

/* exp is good to 1 ulp, sums of up to 1024 positive terms in 64 + 4 steps, three more roundings;
 * logits are differences of a few units, so x - max rounds by 2^-22. */
static double gate_error(const struct op_state *state, const void *output)
{
	const struct gate *s = (const struct gate *)state;
	size_t topk = state->c->topk;
	double worst = 0;

	for (size_t r = 0; r < state->rows; r++) {
		const int32_t *ids = (const void *)((const uint8_t *)output + r * state->stride_bytes);
		const float *weights = (const float *)(ids + topk);
		double score[CAD_EXPERTS_MAX], choice[CAD_EXPERTS_MAX], chosen[CAD_TOPK_MAX], total = 0;
		exact_scores(s, s->logits_host + r * s->ld, score, choice);
		if (!choice_valid(s, choice, ids))
			return INFINITY;
		for (size_t k = 0; k < topk; k++) {
			chosen[k] = s->spec.softmax_after_topk ? exp(score[ids[k]] - score[ids[0]]) : score[ids[k]];
			total += chosen[k];
		}
		total = fmax(total, (double)s->spec.renormalise_least);
		for (size_t k = 0; k < topk; k++) {
			bool divided = s->spec.renormalise || s->spec.softmax_after_topk;
			double exact = (divided ? chosen[k] / total : chosen[k]) * (double)s->spec.scale;
			worst = fmax(
				worst, fabs((double)weights[k] - exact) / (fabs(exact) * 100 * 0x1p-23 + 0x1p-120));
		}
	}

	return worst;
}

static void gate_teardown(struct op_state *state)
{
	struct gate *s = (struct gate *)state;
	const struct kn_ops *ops = state->queue->ops;
	struct kn_device *device = state->queue->device;

	ops->release(device, s->logits, state->rows * s->ld * 4);
	ops->release(device, s->ids, state->rows * state->c->topk * 4);
	ops->release(device, s->weights, state->rows * state->c->topk * 4);
	if (s->bias)
		ops->release(device, s->bias, s->ld * 4);
	free(s->logits_host);
	free(s->bias_host);
	free(state->host_output);
	free(s);
}

static double gate_flops(const struct op_case *c) { return 20.0 * (double)c->rows * (double)c->experts; }
static double gate_bytes(const struct op_case *c) { return 4.0 * (double)c->rows * (double)c->experts; }

const struct op_kind op_gate = { "gate", gate_setup, gate_run, gate_error, gate_teardown, gate_flops, gate_bytes };
