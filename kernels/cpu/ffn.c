/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grouped expert ffn in two runs over the pool: h = act(x gate_up^T), then y = h down^T. A job is
 * one expert and some panels of columns, over all rows of that expert, so that weights come from
 * memory once; it writes columns that no other job writes. Jobs are expert-major: uneven experts
 * even out.
 *
 * With quantised weights a run before these quantises x, each row once, whatever its pairs; and of
 * the jobs that make a group of h's columns, the last to end quantises them. Where sums are asked
 * for, y lies in scratch, and a run after these adds it up (ffn_sums.c).
 */
#include "kernels/cpu/cpu.h"

#include <stdatomic.h>

enum { TILE_LD = KN_FFN_PANELS_MAX * KN_PANEL_COLS + 16, GROUP_PANELS = KN_GROUP / 32 };
_Static_assert(GROUP_PANELS % KN_FFN_PANELS_MAX == 0, "jobs end where groups of h end");

struct ffn_run {
	const struct kn_form *form;
	const struct kn_ffn *a;
	struct cut {
		size_t panels, blocks; /* of a job; jobs of one expert */
	} gate_up, down;
	uint32_t *busy; /* experts that have rows, ascending */
	float *h, *y, *tiles;
	size_t ldh, ldy;
	bool quantised;
	size_t groups;          /* of h's columns */
	_Atomic uint32_t *done; /* [busy experts][groups]: panels of gate_up that are done */
	uint8_t *xq, *hq;
	size_t ldxq, ldhq;
	void *sums; /* scratch of kn_cpu_ffn_sums */
};

static void *take(uint8_t *scratch, size_t *used, size_t bytes)
{
	void *p = scratch ? scratch + *used : NULL;
	*used += kn_round_up(bytes, 64);
	return p;
}

/* Counts bytes (scratch NULL) and hands out pointers; counts what quantised weights need always.
 * pairs: or rows, where there are more of them. */
static size_t lay_out(
	uint8_t *scratch, size_t pairs, size_t hidden, size_t ffn, bool sums, unsigned threads, struct ffn_run *run)
{
	size_t used = 0;

	run->ldh = kn_ld(ffn);
	run->groups = (ffn + KN_GROUP - 1) / KN_GROUP;
	run->ldxq = kn_row_q_bytes(kn_round_up(hidden, KN_GROUP));
	run->ldhq = kn_row_q_bytes(run->groups * KN_GROUP);
	run->busy = take(scratch, &used, pairs * sizeof *run->busy);
	run->tiles = take(scratch, &used, threads * KN_FFN_TILE_ROWS * TILE_LD * sizeof *run->tiles);
	run->h = take(scratch, &used, pairs * run->ldh * sizeof *run->h);
	run->done = take(scratch, &used, pairs * run->groups * sizeof *run->done);
	run->hq = take(scratch, &used, pairs * run->ldhq);
	run->xq = take(scratch, &used, pairs * run->ldxq);
	if (sums) {
		run->ldy = kn_ld(hidden);
		run->y = take(scratch, &used, pairs * run->ldy * sizeof *run->y);
		run->sums = take(scratch, &used, kn_cpu_ffn_sums_bytes(pairs, hidden));
	}
	return used;
}

size_t kn_cpu_ffn_scratch_bytes(struct kn_queue *queue, size_t pairs, size_t hidden, size_t ffn, bool sums)
{
	struct ffn_run run;
	return lay_out(NULL, pairs, hidden, ffn, sums, kn_pool_threads(kn_cpu_queue(queue)->pool), &run);
}

static void gemm(const struct kn_form *form, const struct kn_panels *w, struct kn_gemm g, size_t panel)
{
	g.k = w->k_pad;
	g.weights = w->data + panel * w->panel_bytes;
	g.panel_bytes = w->panel_bytes;
	kn_cpu_gemm(form, w->storage, &g);
}

/* The columns of one group of h, of the pairs of one expert. */
static void quantise_h(const struct ffn_run *run, const struct kn_cpu_expert *expert, size_t e, size_t group)
{
	size_t n = kn_round_up(expert->ffn, KN_K_UNIT);
	for (size_t p = run->a->begin[e]; p < run->a->begin[e + 1]; p++)
		kn_cpu_quantise_group(run->form, run->h + p * run->ldh + group * KN_GROUP, n, group, expert->down.k_pad,
			run->hq + p * run->ldhq);
}

/* A job has made `panels` panels of gate_up, from `panel` on, all of one group of h. */
static void group_part_done(
	const struct ffn_run *run, const struct kn_cpu_expert *expert, size_t job, size_t panel, size_t panels)
{
	size_t busy = job / run->gate_up.blocks, group = panel / GROUP_PANELS,
	       left = expert->gate_up.panels - group * GROUP_PANELS;
	size_t before = atomic_fetch_add(&run->done[busy * run->groups + group], (uint32_t)panels);
	if (before + panels == (left < GROUP_PANELS ? left : GROUP_PANELS))
		quantise_h(run, expert, run->busy[busy], group);
}

/* What x W^T gives for w x instead. */
static void weigh(float *tile, size_t rows, size_t columns, const float *weight)
{
	for (size_t r = 0; r < rows; r++)
		for (size_t i = 0; i < columns; i++)
			tile[r * TILE_LD + i] = tile[r * TILE_LD + i] * weight[r];
}

static void gate_up_job(void *context, size_t job, unsigned thread)
{
	const struct ffn_run *run = context;
	const struct kn_ffn *a = run->a;
	size_t e = run->busy[job / run->gate_up.blocks], panel = job % run->gate_up.blocks * run->gate_up.panels,
	       end = a->begin[e + 1];
	const struct kn_cpu_expert *expert = a->experts[e]->own;
	size_t panels = expert->gate_up.panels - panel < run->gate_up.panels ? expert->gate_up.panels - panel
									     : run->gate_up.panels;
	float *tile = run->tiles + (size_t)thread * KN_FFN_TILE_ROWS * TILE_LD;
	for (size_t row = a->begin[e], rows; row < end; row += rows) {
		rows = end - row < KN_FFN_TILE_ROWS ? end - row : KN_FFN_TILE_ROWS;
		gemm(run->form, &expert->gate_up,
			(struct kn_gemm){
				.x = a->row_index ? a->x : a->x + row * a->ldx,
				.ldx = a->ldx,
				.q = a->row_index ? run->xq : run->xq + row * run->ldxq,
				.ldq = run->ldxq,
				.index = a->row_index ? a->row_index + row : NULL,
				.rows = rows,
				.panels = panels,
				.y = tile,
				.ldy = TILE_LD,
			},
			panel);
		if (expert->weighs_input && a->weight)
			weigh(tile, rows, panels * KN_PANEL_COLS, a->weight + row);
		struct kn_act act = {
			.t = tile,
			.ldt = TILE_LD,
			.rows = rows,
			.panels = panels,
			.bias = expert->gate_up_bias ? expert->gate_up_bias + panel * KN_PANEL_COLS : NULL,
			.limit = expert->limit,
			.h = run->h + row * run->ldh + panel * 32,
			.ldh = run->ldh,
		};
		(expert->activation == CAD_ACTIVATION_SILU ? run->form->silu : run->form->swiglu_clamped)(&act);
	}
	if (run->quantised)
		group_part_done(run, expert, job, panel, panels);
}

static void down_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct ffn_run *run = context;
	const struct kn_ffn *a = run->a;
	size_t e = run->busy[job / run->down.blocks], panel = job % run->down.blocks * run->down.panels,
	       row = a->begin[e];
	const struct kn_cpu_expert *expert = a->experts[e]->own;
	const struct kn_panels *w = &expert->down;
	size_t panels = w->panels - panel < run->down.panels ? w->panels - panel : run->down.panels;
	float *y = run->y + row * run->ldy + panel * KN_PANEL_COLS;
	gemm(run->form, w,
		(struct kn_gemm){
			.x = run->h + row * run->ldh,
			.ldx = run->ldh,
			.q = run->hq + row * run->ldhq,
			.ldq = run->ldhq,
			.rows = a->begin[e + 1] - row,
			.panels = panels,
			.y = y,
			.ldy = run->ldy,
		},
		panel);
	size_t begin = panel * KN_PANEL_COLS,
	       end = begin + panels * KN_PANEL_COLS < w->n ? begin + panels * KN_PANEL_COLS : w->n;
	if (expert->down_bias)
		for (size_t r = row; r < a->begin[e + 1]; r++)
			for (size_t i = begin; i < end; i++)
				run->y[r * run->ldy + i] = run->y[r * run->ldy + i] + expert->down_bias[i];
}

/* Wide jobs, since rows are packed once per job, but enough of them that threads end together; a
 * power of two, so that none meets two groups of h. */
static struct cut cut_panels(size_t panels, size_t experts, unsigned threads)
{
	size_t each = 1;
	while (each < KN_FFN_PANELS_MAX && 2 * each * threads * KN_FFN_JOBS_PER_THREAD <= experts * panels)
		each *= 2;
	return (struct cut){ each, (panels + each - 1) / each };
}

/* y of every pair. There are some. */
static void make_y(struct kn_cpu_queue *q, struct ffn_run *run)
{
	const struct kn_ffn *a = run->a;
	unsigned threads = kn_pool_threads(q->pool);
	size_t busy = 0;

	for (uint32_t e = 0; e < a->experts_count; e++)
		if (a->begin[e + 1] > a->begin[e])
			run->busy[busy++] = e;
	const struct kn_cpu_expert *expert = a->experts[run->busy[0]]->own;
	CAD_ASSERT(a->begin[0] == 0 && a->ldx >= kn_round_up(expert->gate_up.k, KN_K_UNIT) &&
		run->ldy >= expert->down.panels * KN_PANEL_COLS);
	run->quantised = kn_storage_quantised(expert->gate_up.storage);
	if (run->quantised) {
		memset(run->done, 0, busy * run->groups * sizeof *run->done);
		kn_cpu_quantise(q, a->x, a->ldx, a->rows, a->hidden, run->xq, run->ldxq);
	}
	run->gate_up = cut_panels(expert->gate_up.panels, busy, threads);
	run->down = cut_panels(expert->down.panels, busy, threads);
	kn_pool_for(q->pool, busy * run->gate_up.blocks, gate_up_job, run);
	kn_pool_for(q->pool, busy * run->down.blocks, down_job, run);
}

static bool weighs_input(const struct kn_expert *expert)
{
	return ((const struct kn_cpu_expert *)expert->own)->weighs_input;
}

void kn_cpu_ffn(struct kn_queue *queue, const struct kn_ffn *a)
{
	struct kn_cpu_queue *q = kn_cpu_queue(queue);
	size_t pairs = a->begin[a->experts_count], most = pairs > a->rows ? pairs : a->rows, e = 0;
	struct ffn_run run = { .form = q->form, .a = a, .y = a->y, .ldy = a->ldy };

	while (e < a->experts_count && a->begin[e + 1] == 0)
		e++;
	lay_out(a->scratch, most, a->hidden, pairs > 0 ? a->experts[e]->ffn : 0, !a->y, kn_pool_threads(q->pool), &run);
	if (pairs > 0)
		make_y(q, &run);
	if (!a->y)
		kn_cpu_ffn_sums(q, a, pairs > 0 && weighs_input(a->experts[e]), run.y, run.ldy, run.sums);
}
