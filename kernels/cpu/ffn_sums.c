/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exact combine's part on an expert node (kernels.h, struct kn_ffn): the weighted outputs of a
 * row's pairs as a sum of integers. Pairs come sorted by expert; here they are listed by row, so
 * that a thread makes a row, or some columns of it, in one go.
 */
#include "kernels/cpu/cpu.h"

struct sums_run {
	const struct kn_form *form;
	const struct kn_ffn *a;
	bool weighed; /* y is */
	const float *y;
	size_t ldy;
	double inverse;         /* 1 / quantum */
	uint32_t *begin, *pair; /* [rows + 1], [P]: the pairs of row r, ascending, are pair[begin[r]] ... */
	size_t blocks, jobs;    /* of a row's columns; of all */
	uint32_t *poison;       /* [rows][blocks] */
};

static size_t blocks_of(size_t hidden) { return (hidden + KN_SUM_COLUMNS - 1) / KN_SUM_COLUMNS; }

size_t kn_cpu_ffn_sums_bytes(size_t pairs, size_t hidden)
{
	return (2 * pairs + 1 + pairs * blocks_of(hidden)) * sizeof(uint32_t);
}

static uint32_t row_of(const struct kn_ffn *a, uint32_t pair) { return a->row_index ? a->row_index[pair] : pair; }

static void list_by_row(struct sums_run *run, uint32_t pairs)
{
	const struct kn_ffn *a = run->a;
	uint32_t end = 0;

	memset(run->begin, 0, (a->rows + 1) * sizeof *run->begin);
	for (uint32_t p = 0; p < pairs; p++)
		run->begin[row_of(a, p)]++;
	for (size_t r = 0; r <= a->rows; r++)
		run->begin[r] = end += run->begin[r];
	for (uint32_t p = pairs; p-- > 0;)
		run->pair[--run->begin[row_of(a, p)]] = p;
}

static void sum_block(const struct sums_run *run, size_t row, size_t block)
{
	const struct kn_ffn *a = run->a;
	size_t first = block * KN_SUM_COLUMNS, left = a->hidden - first,
	       n = left < KN_SUM_COLUMNS ? left : KN_SUM_COLUMNS;
	int64_t *sums = a->sums + row * a->hidden + first;
	uint32_t *poison = &run->poison[row * run->blocks + block];

	memset(sums, 0, n * sizeof *sums);
	*poison = UINT32_MAX;
	for (uint32_t i = run->begin[row]; i < run->begin[row + 1]; i++) {
		uint32_t p = run->pair[i];
		float weight = run->weighed ? 1.0f : a->weight[p];
		bool good = run->form->sums_round(sums, run->y + p * run->ldy + first, n, weight, run->inverse);
		if (!good && *poison == UINT32_MAX)
			*poison = p;
	}
}

static void sum_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct sums_run *run = context;
	size_t all = run->a->rows * run->blocks;
	for (size_t i = kn_cpu_range_begin(all, run->jobs, job); i < kn_cpu_range_begin(all, run->jobs, job + 1); i++)
		sum_block(run, i / run->blocks, i % run->blocks);
}

static uint32_t lowest(const uint32_t *values, size_t count)
{
	uint32_t low = UINT32_MAX;
	for (size_t i = 0; i < count; i++)
		low = values[i] < low ? values[i] : low;
	return low;
}

void kn_cpu_ffn_sums(
	struct kn_cpu_queue *queue, const struct kn_ffn *a, bool weighed, const float *y, size_t ldy, void *scratch)
{
	uint32_t pairs = a->begin[a->experts_count];
	struct sums_run run = {
		.form = queue->form,
		.a = a,
		.weighed = weighed,
		.y = y,
		.ldy = ldy,
		.inverse = 1.0 / (double)a->quantum,
		.begin = scratch,
		.blocks = blocks_of(a->hidden),
	};
	CAD_ASSERT(a->quantum > 0.0f);
	if (a->rows == 0)
		return;

	run.pair = run.begin + a->rows + 1;
	run.poison = run.pair + pairs;
	list_by_row(&run, pairs);
	run.jobs = kn_cpu_ranges(queue, a->rows * run.blocks, (pairs / a->rows + 2) * KN_SUM_COLUMNS);
	kn_pool_for(queue->pool, run.jobs, sum_job, &run);
	for (size_t r = 0; r < a->rows; r++)
		a->poison[r] = lowest(run.poison + r * run.blocks, run.blocks);
}
