/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that walk rows: each row on its own, so the cut into jobs decides nothing but speed. */
#include "kernels/cpu/cpu.h"

struct vector_run {
	const struct kn_form *form;
	const void *a;
	size_t rows, jobs;
};

static void rmsnorm_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct vector_run *run = context;
	const struct kn_rmsnorm *a = run->a;
	for (size_t r = kn_cpu_range_begin(run->rows, run->jobs, job),
		    end = kn_cpu_range_begin(run->rows, run->jobs, job + 1);
		r < end; r++) {
		const float *x = a->x + (a->index ? a->index[r] : r) * a->ldx;
		float *out = a->out + r * a->ldo;
		for (size_t part = 0; part < a->parts; part++)
			run->form->rmsnorm(x + part * a->n, a->weight, a->n, a->epsilon, out + part * a->n);
		if (a->clip > 0)
			kn_cpu_clamp(out, a->parts * a->n, a->clip);
		if (out != x)
			kn_cpu_row_end(out, a->parts * a->n);
	}
}

void kn_cpu_rmsnorm(struct kn_queue *queue, const struct kn_rmsnorm *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	CAD_ASSERT(a->n > 0 && a->parts > 0);
	struct vector_run run = { cpu->form, a, a->rows, kn_cpu_ranges(cpu, a->rows, a->parts * a->n) };
	kn_pool_for(cpu->pool, run.jobs, rmsnorm_job, &run);
}

static void add_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct vector_run *run = context;
	const struct kn_add *a = run->a;
	for (size_t r = kn_cpu_range_begin(run->rows, run->jobs, job),
		    end = kn_cpu_range_begin(run->rows, run->jobs, job + 1);
		r < end; r++)
		run->form->add(a->x + r * a->ldx, a->y + r * a->ldy, a->n, a->scale);
}

void kn_cpu_add(struct kn_queue *queue, const struct kn_add *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	struct vector_run run = { cpu->form, a, a->rows, kn_cpu_ranges(cpu, a->rows, a->n) };
	kn_pool_for(cpu->pool, run.jobs, add_job, &run);
}

/* One product, rounded once: the same bits in any form. */
static void scale_rows_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct vector_run *run = context;
	const struct kn_scale_rows *a = run->a;
	for (size_t r = kn_cpu_range_begin(run->rows, run->jobs, job),
		    end = kn_cpu_range_begin(run->rows, run->jobs, job + 1);
		r < end; r++) {
		float *x = a->x + r * a->ldx, scale = a->scale[r];
		for (size_t i = 0; i < a->n; i++)
			x[i] = x[i] * scale;
	}
}

void kn_cpu_scale_rows(struct kn_queue *queue, const struct kn_scale_rows *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	struct vector_run run = { cpu->form, a, a->rows, kn_cpu_ranges(cpu, a->rows, a->n) };
	kn_pool_for(cpu->pool, run.jobs, scale_rows_job, &run);
}
