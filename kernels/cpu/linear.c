/* SPDX-License-Identifier: Apache-2.0 */
/* Dense layers: linear, embedding rows, argmax of logits. */
#include "kernels/cpu/cpu.h"

#include <string.h>

enum {
	GROUP_PANELS_MAX = 8, /* of one job: what the rows are packed for once */
	JOBS_PER_THREAD = 4,  /* so that a thread that is held up costs little */
};

struct linear_run {
	const struct kn_form *form;
	const struct kn_linear *a;
	size_t group_panels;
};

static void bias_and_clip(const struct kn_linear *a, size_t begin, size_t end)
{
	for (size_t r = 0; r < a->rows; r++) {
		float *y = a->y + r * a->ldy;
		if (a->bias)
			for (size_t i = begin; i < end; i++)
				y[i] = y[i] + a->bias[i];
		if (a->clip > 0)
			kn_cpu_clamp(y + begin, end - begin, a->clip);
	}
}

static void linear_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct linear_run *run = context;
	const struct kn_linear *a = run->a;
	const struct kn_matrix *w = a->w;
	size_t first = job * run->group_panels,
	       panels = w->panels - first < run->group_panels ? w->panels - first : run->group_panels;
	struct kn_gemm g = {
		.x = a->x,
		.ldx = a->ldx,
		.rows = a->rows,
		.k = w->k_pad,
		.weights = w->data + first * w->panel_bytes,
		.panels = panels,
		.panel_bytes = w->panel_bytes,
		.y = a->y + first * KN_PANEL_COLS,
		.ldy = a->ldy,
	};
	(w->storage == KN_STORAGE_BF16 ? run->form->gemm_bf16 : run->form->gemm_f32)(&g);
	size_t end = (first + panels) * KN_PANEL_COLS;
	bias_and_clip(a, first * KN_PANEL_COLS, end < w->n ? end : w->n);
}

void kn_cpu_linear(struct kn_queue *queue, const struct kn_linear *a)
{
	struct kn_cpu_queue *q = kn_cpu_queue(queue);
	CAD_ASSERT(a->rows == 0 || (a->ldx >= a->w->k_pad && a->ldy >= a->w->panels * KN_PANEL_COLS));
	size_t group = a->w->panels / (kn_pool_threads(q->pool) * JOBS_PER_THREAD);
	struct linear_run run = { q->form, a, group < 1 ? 1 : group > GROUP_PANELS_MAX ? GROUP_PANELS_MAX : group };
	if (a->rows > 0)
		kn_pool_for(q->pool, (a->w->panels + run.group_panels - 1) / run.group_panels, linear_job, &run);
}

struct embed_run {
	const struct kn_table *table;
	const int32_t *ids;
	float *x;
	size_t ldx;
};

static void embed_job(void *context, size_t row, unsigned thread)
{
	(void)thread;
	const struct embed_run *run = context;
	const struct kn_table *t = run->table;
	CAD_ASSERT(run->ids[row] >= 0 && (size_t)run->ids[row] < t->n);
	float *x = run->x + row * run->ldx;
	const uint8_t *source = (const uint8_t *)t->data + (size_t)run->ids[row] * t->k * cad_dtype_bytes(t->dtype);
	kn_widen(source, t->dtype, t->k, x);
	memset(x + t->k, 0, (kn_round_up(t->k, 64) - t->k) * sizeof *x);
}

void kn_cpu_embed(
	struct kn_queue *queue, const struct kn_table *table, const int32_t *ids, size_t rows, float *x, size_t ldx)
{
	struct embed_run run = { table, ids, x, ldx };
	kn_pool_for(kn_cpu_queue(queue)->pool, rows, embed_job, &run);
}

struct argmax_run {
	const float *logits;
	size_t ld, n;
	int32_t *ids;
};

static void argmax_job(void *context, size_t row, unsigned thread)
{
	(void)thread;
	const struct argmax_run *run = context;
	const float *logits = run->logits + row * run->ld;
	size_t best = 0;
	for (size_t i = 1; i < run->n; i++) /* a NaN that is best so far gives way to any number */
		if (logits[i] > logits[best] || (logits[best] != logits[best] && logits[i] == logits[i]))
			best = i;
	run->ids[row] = (int32_t)best;
}

void kn_cpu_argmax(struct kn_queue *queue, const float *logits, size_t ld, size_t rows, size_t n, int32_t *ids)
{
	struct argmax_run run = { logits, ld, n, ids };
	kn_pool_for(kn_cpu_queue(queue)->pool, rows, argmax_job, &run);
}
