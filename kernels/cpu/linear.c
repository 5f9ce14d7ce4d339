/* SPDX-License-Identifier: Apache-2.0 */
/* Dense layers: linear, embedding rows. */
#include "kernels/cpu/cpu.h"

#include <string.h>

struct linear_run {
	const struct kn_form *form;
	const struct kn_linear *a;
	const struct kn_panels *w;
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
	const struct kn_panels *w = run->w;
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
	const struct kn_panels *w = a->w->own;

	CAD_ASSERT(a->rows == 0 || (a->ldx >= w->k_pad && a->ldy >= w->panels * KN_PANEL_COLS));
	size_t group = w->panels / (kn_pool_threads(q->pool) * KN_LINEAR_JOBS_PER_THREAD);
	group = group < 1 ? 1 : group > KN_LINEAR_PANELS_MAX ? KN_LINEAR_PANELS_MAX : group;
	struct linear_run run = { q->form, a, w, group };
	if (a->rows > 0)
		kn_pool_for(q->pool, (w->panels + group - 1) / group, linear_job, &run);
}

static void embed_job(void *context, size_t row, unsigned thread)
{
	(void)thread;
	const struct kn_embed *a = context;
	const struct kn_cpu_table *t = a->table->own;
	size_t id = (size_t)a->ids[row];

	CAD_ASSERT(a->ids[row] >= 0 && id < t->n);
	float *x = a->x + row * a->ldx;
	kn_widen((const uint8_t *)t->data + id * t->k * cad_dtype_bytes(t->dtype), t->dtype, t->k, x);
	kn_cpu_row_end(x, t->k);
}

void kn_cpu_embed(struct kn_queue *queue, const struct kn_embed *a)
{
	kn_pool_for(kn_cpu_queue(queue)->pool, a->rows, embed_job, (void *)a);
}
