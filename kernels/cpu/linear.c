/* SPDX-License-Identifier: Apache-2.0 */
/* Dense layers: linear, the same for each head, embedding rows. */
#include "kernels/cpu/cpu.h"

#include <string.h>

struct linear_run {
	const struct kn_form *form;
	const struct kn_linear *a;
	const struct kn_panels *w;
	size_t group_panels;
	/* of a's rows: those that this run computes; quantised when the weights are */
	size_t first, rows;
	const uint8_t *q;
	size_t ldq;
};

/* Columns begin .. end - 1 of the run's rows. */
static void finish(const struct linear_run *run, size_t begin, size_t end)
{
	const struct kn_linear *a = run->a;
	for (size_t r = run->first; r < run->first + run->rows; r++) {
		float *y = a->y + r * a->ldy;
		if (a->bias)
			for (size_t i = begin; i < end; i++)
				y[i] = y[i] + a->bias[i];
		if (a->divisor != 0)
			for (size_t i = begin; i < end; i++)
				y[i] = y[i] / a->divisor;
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
		.x = a->x + run->first * a->ldx,
		.ldx = a->ldx,
		.q = run->q,
		.ldq = run->ldq,
		.rows = run->rows,
		.k = w->k_pad,
		.weights = w->data + first * w->panel_bytes,
		.panels = panels,
		.panel_bytes = w->panel_bytes,
		.y = a->y + run->first * a->ldy + first * KN_PANEL_COLS,
		.ldy = a->ldy,
	};
	kn_cpu_gemm(run->form, w->storage, &g);
	size_t end = (first + panels) * KN_PANEL_COLS;
	finish(run, first * KN_PANEL_COLS, end < w->n ? end : w->n);
}

/* Rows are quantised for as many at a time as the queue's scratch holds. */
static void linear_quantised(struct kn_cpu_queue *q, struct linear_run *run, size_t jobs)
{
	const struct kn_linear *a = run->a;
	run->ldq = kn_row_q_bytes(run->w->k_pad);
	size_t most = KN_ATTEND_PARTS_BYTES / run->ldq;

	CAD_ASSERT(most > 0);
	run->q = (const uint8_t *)q->parts;
	for (; run->first < a->rows; run->first += run->rows) {
		run->rows = a->rows - run->first < most ? a->rows - run->first : most;
		kn_cpu_quantise(
			q, a->x + run->first * a->ldx, a->ldx, run->rows, run->w->k, (uint8_t *)q->parts, run->ldq);
		kn_pool_for(q->pool, jobs, linear_job, run);
	}
}

void kn_cpu_linear(struct kn_queue *queue, const struct kn_linear *a)
{
	struct kn_cpu_queue *q = kn_cpu_queue(queue);
	const struct kn_panels *w = a->w->own;

	CAD_ASSERT(a->rows == 0 || (a->ldx >= kn_round_up(w->k, KN_K_UNIT) && a->ldy >= w->panels * KN_PANEL_COLS));
	size_t group = w->panels / (kn_pool_threads(q->pool) * KN_LINEAR_JOBS_PER_THREAD);
	group = group < 1 ? 1 : group > KN_LINEAR_PANELS_MAX ? KN_LINEAR_PANELS_MAX : group;
	struct linear_run run = { .form = q->form, .a = a, .w = w, .group_panels = group, .rows = a->rows };
	size_t jobs = (w->panels + group - 1) / group;
	if (kn_storage_quantised(w->storage))
		linear_quantised(q, &run, jobs);
	else if (a->rows > 0)
		kn_pool_for(q->pool, jobs, linear_job, &run);
}

/* ---- heads ---- */

struct heads_run {
	const struct kn_form *form;
	const struct kn_linear_heads *a;
	size_t n, k, blocks;
};

/* Some rows of one head. What is behind a head is another's: products are made in rows of their own. */
static void heads_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct heads_run *run = context;
	const struct kn_linear_heads *a = run->a;
	size_t head = job / run->blocks, first = job % run->blocks * KN_HEADS_ROWS,
	       rows = a->rows - first < KN_HEADS_ROWS ? a->rows - first : KN_HEADS_ROWS;
	const struct kn_panels *w = a->w[head].own;
	const float *x = a->x + first * a->ldx + head * (run->k + a->tail);
	float *y = a->y + first * a->ldy + head * (run->n + a->tail);
	_Alignas(64) float in[KN_HEADS_ROWS * KN_HEADS_LD], out[KN_HEADS_ROWS * KN_HEADS_LD];

	CAD_ASSERT(w->n == run->n && w->k == run->k && !kn_storage_quantised(w->storage));
	for (size_t r = 0; r < rows; r++) {
		memcpy(in + r * KN_HEADS_LD, x + r * a->ldx, run->k * sizeof *in);
		memset(in + r * KN_HEADS_LD + run->k, 0, (w->k_pad - run->k) * sizeof *in);
	}
	kn_cpu_gemm(run->form, w->storage,
		&(struct kn_gemm){
			.x = in,
			.ldx = KN_HEADS_LD,
			.rows = rows,
			.k = w->k_pad,
			.weights = w->data,
			.panels = w->panels,
			.panel_bytes = w->panel_bytes,
			.y = out,
			.ldy = KN_HEADS_LD,
		});
	for (size_t r = 0; r < rows; r++) {
		memcpy(y + r * a->ldy, out + r * KN_HEADS_LD, run->n * sizeof *y);
		memcpy(y + r * a->ldy + run->n, x + r * a->ldx + run->k, a->tail * sizeof *y);
		if (head == a->heads - 1)
			kn_cpu_row_end(a->y + (first + r) * a->ldy, a->heads * (run->n + a->tail));
	}
}

void kn_cpu_linear_heads(struct kn_queue *queue, const struct kn_linear_heads *a)
{
	struct kn_cpu_queue *q = kn_cpu_queue(queue);
	struct heads_run run = { q->form, a, a->w[0].n, a->w[0].k, (a->rows + KN_HEADS_ROWS - 1) / KN_HEADS_ROWS };

	CAD_ASSERT(run.n <= KN_VALUE_SIZE_MAX && run.k <= KN_VALUE_SIZE_MAX);
	kn_pool_for(q->pool, a->heads * run.blocks, heads_job, &run);
}

/* ---- the embedding ---- */

static void embed_job(void *context, size_t row, unsigned thread)
{
	(void)thread;
	const struct kn_embed *a = context;
	const struct kn_cpu_table *t = a->table->own;
	size_t id = (size_t)a->ids[row];

	CAD_ASSERT(a->ids[row] >= 0 && id < t->n);
	float *x = a->x + row * a->ldx;
	kn_widen((const uint8_t *)t->data + id * t->k * cad_dtype_bytes(t->dtype), t->dtype, t->k, x);
	for (size_t i = 0; i < t->k && a->scale != 1; i++)
		x[i] *= a->scale;
	kn_cpu_row_end(x, t->k);
}

void kn_cpu_embed(struct kn_queue *queue, const struct kn_embed *a)
{
	kn_pool_for(kn_cpu_queue(queue)->pool, a->rows, embed_job, (void *)a);
}
