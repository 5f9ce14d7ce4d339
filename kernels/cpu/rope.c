/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotary embedding. Cosine and sine are computed here, in plain double arithmetic with fma and no
 * libm, so that their bits are the same on every machine: the angle is reduced by pi/2 in three
 * parts (Cody and Waite; the first step is exact for every f32 angle below 2^31), then two Taylor
 * polynomials on [-pi/4, pi/4] whose error is below 1e-17. Rounding to f32 is then the correct one
 * but for about one angle in 10^8.
 */
#include "kernels/cpu/cpu.h"

#include <math.h>

#define TWO_OVER_PI 0x1.45f306dc9c883p-1
#define HALF_PI_1 0x1.921fb544p+0       /* 33 bits of pi/2 */
#define HALF_PI_2 0x1.0b4611a626331p-34 /* the next 53 */
#define HALF_PI_3 0x1.1701b839a252p-88  /* and the next */

/* r in [-pi/4, pi/4], a little beyond at the borders. Coefficients are 1 / n!. */
static double sin_reduced(double r)
{
	double z = r * r, p = 1.0 / 355687428096000.0;
	p = fma(p, z, -1.0 / 1307674368000.0);
	p = fma(p, z, 1.0 / 6227020800.0);
	p = fma(p, z, -1.0 / 39916800.0);
	p = fma(p, z, 1.0 / 362880.0);
	p = fma(p, z, -1.0 / 5040.0);
	p = fma(p, z, 1.0 / 120.0);
	p = fma(p, z, -1.0 / 6.0);
	return fma(p * z, r, r);
}

static double cos_reduced(double r)
{
	double z = r * r, p = -1.0 / 6402373705728000.0;
	p = fma(p, z, 1.0 / 20922789888000.0);
	p = fma(p, z, -1.0 / 87178291200.0);
	p = fma(p, z, 1.0 / 479001600.0);
	p = fma(p, z, -1.0 / 3628800.0);
	p = fma(p, z, 1.0 / 40320.0);
	p = fma(p, z, -1.0 / 720.0);
	p = fma(p, z, 1.0 / 24.0);
	p = fma(p, z, -0.5);
	return fma(p, z, 1.0);
}

static void sin_cos(float angle, float *sine, float *cosine)
{
	double x = angle, turns = rint(x * TWO_OVER_PI);
	double r = fma(-turns, HALF_PI_1, x);

	r = fma(-turns, HALF_PI_2, r);
	r = fma(-turns, HALF_PI_3, r);
	double s = sin_reduced(r), c = cos_reduced(r);
	switch ((uint64_t)(int64_t)turns & 3) {
	case 0: *sine = (float)s, *cosine = (float)c; break;
	case 1: *sine = (float)c, *cosine = (float)-s; break;
	case 2: *sine = (float)-s, *cosine = (float)-c; break;
	default: *sine = (float)-c, *cosine = (float)s; break;
	}
}

struct rope_run {
	const struct kn_form *form;
	const void *a;
	size_t rows, jobs;
};

static void rope_table_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct rope_run *run = context;
	const struct kn_rope_table *a = run->a;
	size_t half = a->size / 2;
	for (size_t r = kn_cpu_range_begin(run->rows, run->jobs, job),
		    end = kn_cpu_range_begin(run->rows, run->jobs, job + 1);
		r < end; r++) {
		float *cosines = a->out + r * a->size, *sines = cosines + half;
		for (size_t i = 0; i < half; i++) {
			float sine, cosine;
			sin_cos((float)a->positions[r] * a->inv_freq[i], &sine, &cosine);
			cosines[i] = cosine * a->attention_factor;
			sines[i] = sine * a->attention_factor;
		}
	}
}

void kn_cpu_rope_table(struct kn_queue *queue, const struct kn_rope_table *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	CAD_ASSERT(a->size % 2 == 0);
	struct rope_run run = { cpu->form, a, a->rows, kn_cpu_ranges(cpu, a->rows, a->size * KN_FLOATS_PER_ANGLE) };
	kn_pool_for(cpu->pool, run.jobs, rope_table_job, &run);
}

static void rope_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct rope_run *run = context;
	const struct kn_rope *a = run->a;
	for (size_t r = kn_cpu_range_begin(run->rows, run->jobs, job),
		    end = kn_cpu_range_begin(run->rows, run->jobs, job + 1);
		r < end; r++) {
		const float *cosines = a->table + r * a->size, *sines = cosines + a->size / 2;
		for (size_t h = 0; h < a->heads; h++)
			run->form->rope(a->x + r * a->ldx + h * a->head_size, cosines, sines, a->size, a->interleaved);
	}
}

void kn_cpu_rope(struct kn_queue *queue, const struct kn_rope *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	CAD_ASSERT(a->size % 2 == 0 && a->size <= a->head_size);
	struct rope_run run = { cpu->form, a, a->rows, kn_cpu_ranges(cpu, a->rows, a->heads * a->size) };
	kn_pool_for(cpu->pool, run.jobs, rope_job, &run);
}
