/* SPDX-License-Identifier: Apache-2.0 */
/* The gate: logits to the ids and weights of K experts. Softmax runs in the form; the choice is the
 * same plain code for all. */
#include "kernels/cpu/cpu.h"
#include "kernels/exp.h"

/* An order of floats as integers: NaN is the lowest, the two zeros are equal. */
static int32_t sort_key(float x)
{
	if (x != x)
		return INT32_MIN;
	x += 0.0f; /* -0 becomes +0 */
	int32_t bits;
	memcpy(&bits, &x, sizeof bits);
	return bits < 0 ? (int32_t)((uint32_t)bits ^ 0x7fffffff) : bits;
}

/* The best `most` so far, in descending order; of equal ones the earlier comes first, so candidates
 * come by ascending id. */
struct best {
	size_t count, most;
	int32_t keys[CAD_EXPERTS_MAX], ids[CAD_EXPERTS_MAX];
};

static void best_offer(struct best *best, int32_t key, int32_t id)
{
	if (best->count == best->most) {
		if (key <= best->keys[best->count - 1])
			return;
		best->count--;
	}

	size_t at = best->count++;
	for (; at > 0 && best->keys[at - 1] < key; at--) {
		best->keys[at] = best->keys[at - 1];
		best->ids[at] = best->ids[at - 1];
	}

	best->keys[at] = key;
	best->ids[at] = id;
}

static float group_score(enum cad_group_score kind, const float *choice, size_t size)
{
	float first = -INFINITY, second = -INFINITY;
	for (size_t i = 0; i < size; i++) {
		if (choice[i] > first) {
			second = first;
			first = choice[i];
		} else if (choice[i] > second) {
			second = choice[i];
		}
	}
	return kind == CAD_GROUP_SCORE_TOP2 && size > 1 ? first + second : first;
}

static void choose(const struct cad_gate_spec *spec, const float *choice, struct best *best)
{
	bool kept[CAD_EXPERTS_MAX] = { false };
	size_t size = spec->experts / spec->groups;

	if (spec->groups_kept < spec->groups) {
		best->count = 0;
		best->most = spec->groups_kept;
		for (uint32_t g = 0; g < spec->groups; g++)
			best_offer(best, sort_key(group_score(spec->group_score, choice + g * size, size)), (int32_t)g);
		for (size_t i = 0; i < best->count; i++)
			kept[best->ids[i]] = true;
	} else {
		memset(kept, true, spec->groups);
	}

	best->count = 0;
	best->most = spec->topk;
	for (uint32_t e = 0; e < spec->experts; e++)
		if (kept[e / size] || spec->dropped_zero)
			best_offer(best, sort_key(kept[e / size] ? choice[e] : 0.0f), (int32_t)e);
}

static void gate_row(
	const struct kn_form *form, const struct kn_gate *a, const float *logits, int32_t *ids, float *weights)
{
	const struct cad_gate_spec *spec = a->spec;
	size_t experts = spec->experts, topk = spec->topk;
	float score[CAD_EXPERTS_MAX] = { 0 }, choice[CAD_EXPERTS_MAX];
	struct best best;

	if (spec->softmax_after_topk) {
		memcpy(score, logits, experts * sizeof *score);
	} else if (spec->score == CAD_SCORE_SOFTMAX) {
		form->softmax(logits, experts, score);
	} else {
		for (size_t e = 0; e < experts; e++)
			score[e] = -logits[e];
		form->exp(score, experts, score);
		for (size_t e = 0; e < experts; e++)
			score[e] = 1.0f / (1.0f + score[e]);
	}

	for (size_t e = 0; e < experts; e++)
		choice[e] = (spec->choice_by_logit ? logits[e] : score[e]) + (a->bias ? a->bias[e] : 0.0f);
	choose(spec, choice, &best);
	float chosen[CAD_TOPK_MAX], total = 0.0f;
	for (size_t k = 0; k < topk; k++) {
		ids[k] = best.ids[k];
		weights[k] = score[best.ids[k]];
	}

	if (spec->softmax_after_topk) {
		memcpy(chosen, weights, topk * sizeof *chosen);
		form->softmax(chosen, topk, weights);
	}

	for (size_t k = 0; k < topk; k++)
		total = total + weights[k];
	total = total + spec->renormalise_epsilon;
	total = spec->renormalise_least > total ? spec->renormalise_least : total;
	for (size_t k = 0; k < topk; k++) {
		if (spec->renormalise)
			weights[k] = weights[k] / total;
		weights[k] = weights[k] * spec->scale;
	}
}

struct gate_run {
	const struct kn_form *form;
	const struct kn_gate *a;
	size_t jobs;
};

static void gate_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct gate_run *run = context;
	const struct kn_gate *a = run->a;
	size_t topk = a->spec->topk;
	for (size_t r = kn_cpu_range_begin(a->rows, run->jobs, job),
		    end = kn_cpu_range_begin(a->rows, run->jobs, job + 1);
		r < end; r++)
		gate_row(run->form, a, a->logits + r * a->ld, a->ids + r * topk, a->weights + r * topk);
}

void kn_cpu_gate(struct kn_queue *queue, const struct kn_gate *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	const struct cad_gate_spec *spec = a->spec;

	CAD_ASSERT(spec->experts >= 1 && spec->experts <= CAD_EXPERTS_MAX && spec->topk >= 1 &&
		spec->topk <= CAD_TOPK_MAX);
	CAD_ASSERT(spec->groups >= 1 && spec->experts % spec->groups == 0 && spec->groups_kept >= 1 &&
		spec->groups_kept <= spec->groups);
	CAD_ASSERT(spec->experts / spec->groups * spec->groups_kept >= spec->topk);
	struct gate_run run = { cpu->form, a, kn_cpu_ranges(cpu, a->rows, spec->experts * KN_FLOATS_PER_EXPERT) };
	kn_pool_for(cpu->pool, run.jobs, gate_job, &run);
}
