/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of activations, quantised for integer GEMMs: every row once, whatever reads it. */
#include "kernels/cpu/cpu.h"

struct quantise_run {
	const struct kn_form *form;
	const float *x;
	size_t ldx, rows, n, k_pad, jobs;
	uint8_t *q;
	size_t ldq;
};

void kn_cpu_quantise_group(
	const struct kn_form *form, const float *x, size_t n, size_t group, size_t k_pad, uint8_t *row)
{
	size_t left = n - group * KN_GROUP;
	form->quantise(x, left < KN_GROUP ? left : KN_GROUP, (int8_t *)row + group * KN_GROUP,
		kn_row_q_scales(row, k_pad) + group, kn_row_q_sums(row, k_pad, group));
}

static void quantise_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct quantise_run *run = context;
	for (size_t r = kn_cpu_range_begin(run->rows, run->jobs, job),
		    end = kn_cpu_range_begin(run->rows, run->jobs, job + 1);
		r < end; r++)
		for (size_t g = 0; g < run->k_pad / KN_GROUP; g++)
			kn_cpu_quantise_group(run->form, run->x + r * run->ldx + g * KN_GROUP, run->n, g, run->k_pad,
				run->q + r * run->ldq);
}

void kn_cpu_quantise(
	struct kn_cpu_queue *queue, const float *x, size_t ldx, size_t rows, size_t n, uint8_t *q, size_t ldq)
{
	struct quantise_run run = {
		.form = queue->form,
		.x = x,
		.ldx = ldx,
		.rows = rows,
		.n = kn_round_up(n, KN_K_UNIT),
		.k_pad = kn_round_up(n, KN_GROUP),
		.jobs = kn_cpu_ranges(queue, rows, n),
		.q = q,
		.ldq = ldq,
	};
	kn_pool_for(queue->pool, run.jobs, quantise_job, &run);
}
