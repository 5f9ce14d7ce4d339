/* SPDX-License-Identifier: Apache-2.0 */
/* Rows out to the experts, integer sums back: what proto/WIRE.md says about the data of CALL and
 * ANSWER. */
#include "kernels/cpu/cpu.h"
#include "kernels/exp.h"

#include <math.h>
#include <string.h>

enum {
	FIX16_EXPONENT_MIN = -126,
	/* from here on bf16 and fix16 round to infinity: such a row, or one that is not finite,
	 * goes as f32 */
	ROW_LIMIT_BITS = 0x7f7f8000,
};

_Static_assert((int)CADRE_ROW_GROUP == (int)KN_GROUP, "rows travel as integer GEMMs quantise them");

struct pack_run {
	const struct kn_form *form;
	const struct kn_rows_pack *a;
	size_t jobs;
};

static struct cadre_wire_row row_head(const struct kn_form *form, const float *x, size_t n, enum cadre_row_type type)
{
	struct cadre_wire_row head = { .type = CADRE_ROW_F32 };
	if (type == CADRE_ROW_F32)
		return head;

	struct kn_row_measure m = form->row_measure(x, n);
	if (type == CADRE_ROW_Q8) {
		float scale = kn_scale_of(m.most_bits, KN_RANGE_INT8).scale;
		head.type = isnan(scale) ? CADRE_ROW_F32 : CADRE_ROW_Q8;
		return head;
	}
	bool uneven = m.most * m.most * (float)n > CADRE_ROW_RATIO_MAX * CADRE_ROW_RATIO_MAX * m.squares;
	if (m.most_bits >= ROW_LIMIT_BITS || uneven)
		return head;
	head.type = (uint8_t)type;
	if (type == CADRE_ROW_FIX16) {
		int exponent = m.most_bits == 0 ? FIX16_EXPONENT_MIN : m.exponent - 15;
		head.exponent = (int16_t)(exponent > FIX16_EXPONENT_MIN ? exponent : FIX16_EXPONENT_MIN);
	}

	return head;
}

static void rows_head_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct pack_run *run = context;
	const struct kn_rows_pack *a = run->a;
	for (size_t r = kn_cpu_range_begin(a->rows, run->jobs, job),
		    end = kn_cpu_range_begin(a->rows, run->jobs, job + 1);
		r < end; r++)
		a->heads[r] = row_head(run->form, a->x + a->index[r] * a->ldx, a->n, a->type);
}

static size_t rows_bytes(const struct cadre_wire_row *heads, size_t rows, size_t n)
{
	size_t bytes = 0;
	for (size_t r = 0; r < rows; r++)
		bytes += cadre_row_bytes(heads[r].type, n);
	return bytes;
}

/* The scales of the groups, then their q. x is padded as rows of kernels.h are. */
static void row_to_q8(const struct kn_form *form, const float *x, size_t n, uint8_t *data)
{
	uint8_t *q = data + cadre_row_groups(n) * sizeof(float);
	for (size_t k = 0; k < n; k += KN_GROUP, data += sizeof(float)) {
		size_t count = n - k < KN_GROUP ? n - k : KN_GROUP;
		int8_t values[KN_GROUP];
		int32_t sums[KN_ROW_SUMS];
		float scale;
		form->quantise(x + k, kn_round_up(count, 16), values, &scale, sums);
		memcpy(data, &scale, sizeof scale);
		memcpy(q + k, values, count);
	}
}

static void row_from_q8(const struct kn_form *form, const uint8_t *data, size_t n, float *x)
{
	const uint8_t *q = data + cadre_row_groups(n) * sizeof(float);
	for (size_t k = 0; k < n; k += KN_GROUP, data += sizeof(float)) {
		float scale;
		memcpy(&scale, data, sizeof scale);
		form->row_from_q8(q + k, n - k < KN_GROUP ? n - k : KN_GROUP, scale, x + k);
	}
}

static void rows_data_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct pack_run *run = context;
	const struct kn_rows_pack *a = run->a;
	size_t r = kn_cpu_range_begin(a->rows, run->jobs, job), end = kn_cpu_range_begin(a->rows, run->jobs, job + 1);
	uint8_t *data = a->data + rows_bytes(a->heads, r, a->n);
	for (; r < end; r++) {
		const float *x = a->x + a->index[r] * a->ldx;
		switch (a->heads[r].type) {
		case CADRE_ROW_FIX16:
			run->form->row_to_fix16(x, a->n, ldexpf(1.0f, -a->heads[r].exponent), data);
			break;
		case CADRE_ROW_BF16: run->form->row_to_bf16(x, a->n, data); break;
		case CADRE_ROW_Q8: row_to_q8(run->form, x, a->n, data); break;
		default: memcpy(data, x, a->n * sizeof *x); break;
		}
		data += cadre_row_bytes(a->heads[r].type, a->n);
	}
}

void kn_cpu_rows_pack(struct kn_queue *queue, const struct kn_rows_pack *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	struct pack_run run = { cpu->form, a, kn_cpu_ranges(cpu, a->rows, a->n) };
	kn_pool_for(cpu->pool, run.jobs, rows_head_job, &run);
	kn_pool_for(cpu->pool, run.jobs, rows_data_job, &run);
	*a->data_bytes = rows_bytes(a->heads, a->rows, a->n);
}

struct unpack_run {
	const struct kn_form *form;
	const struct kn_rows_unpack *a;
	size_t jobs;
};

static void rows_unpack_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct unpack_run *run = context;
	const struct kn_rows_unpack *a = run->a;
	size_t r = kn_cpu_range_begin(a->rows, run->jobs, job), end = kn_cpu_range_begin(a->rows, run->jobs, job + 1);
	const uint8_t *data = a->data + rows_bytes(a->heads, r, a->n);
	for (; r < end; r++) {
		float *x = a->x + r * a->ldx;
		switch (a->heads[r].type) {
		case CADRE_ROW_FIX16:
			run->form->row_from_fix16(data, a->n, ldexpf(1.0f, a->heads[r].exponent), x);
			break;
		case CADRE_ROW_BF16: run->form->row_from_bf16(data, a->n, x); break;
		case CADRE_ROW_Q8: row_from_q8(run->form, data, a->n, x); break;
		default: memcpy(x, data, a->n * sizeof *x); break;
		}
		kn_cpu_row_end(x, a->n);
		data += cadre_row_bytes(a->heads[r].type, a->n);
	}
}

void kn_cpu_rows_unpack(struct kn_queue *queue, const struct kn_rows_unpack *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	struct unpack_run run = { cpu->form, a, kn_cpu_ranges(cpu, a->rows, a->n) };
	kn_pool_for(cpu->pool, run.jobs, rows_unpack_job, &run);
}

struct combine_run {
	const struct kn_form *form;
	const struct kn_combine_pack *a;
	size_t jobs;
};

static void combine_head_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct combine_run *run = context;
	const struct kn_combine_pack *a = run->a;
	for (size_t r = kn_cpu_range_begin(a->rows, run->jobs, job),
		    end = kn_cpu_range_begin(a->rows, run->jobs, job + 1);
		r < end; r++)
		if (a->poison[r] == UINT32_MAX)
			a->heads[r] =
				(struct cadre_wire_sum){ .width = run->form->sums_width(a->sums + r * a->n, a->n) };
		else
			a->heads[r] = (struct cadre_wire_sum){ .expert = a->pair_expert[a->poison[r]], .poisoned = 1 };
}

static size_t sums_bytes(const struct cadre_wire_sum *heads, size_t rows, size_t n)
{
	size_t bytes = 0;
	for (size_t r = 0; r < rows; r++)
		bytes += heads[r].width * n;
	return bytes;
}

static void combine_store_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct combine_run *run = context;
	const struct kn_combine_pack *a = run->a;
	size_t r = kn_cpu_range_begin(a->rows, run->jobs, job), end = kn_cpu_range_begin(a->rows, run->jobs, job + 1);
	uint8_t *data = a->data + sums_bytes(a->heads, r, a->n);
	for (; r < end; data += a->heads[r].width * a->n, r++)
		if (!a->heads[r].poisoned)
			run->form->sums_store(a->sums + r * a->n, a->n, a->heads[r].width, data);
}

void kn_cpu_combine_pack(struct kn_queue *queue, const struct kn_combine_pack *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	struct combine_run run = { cpu->form, a, kn_cpu_ranges(cpu, a->rows, a->n * 2) };
	kn_pool_for(cpu->pool, run.jobs, combine_head_job, &run);
	kn_pool_for(cpu->pool, run.jobs, combine_store_job, &run);
	*a->data_bytes = sums_bytes(a->heads, a->rows, a->n);
}

struct combine_add_run {
	const struct kn_form *form;
	const struct kn_combine_add *a;
	size_t jobs;
};

/* index may name a row twice only in different calls: rows of one answer are different rows. */
static void combine_add_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct combine_add_run *run = context;
	const struct kn_combine_add *a = run->a;
	size_t r = kn_cpu_range_begin(a->rows, run->jobs, job), end = kn_cpu_range_begin(a->rows, run->jobs, job + 1);
	const uint8_t *data = a->data + sums_bytes(a->heads, r, a->n);
	for (; r < end; data += a->heads[r].width * a->n, r++)
		run->form->sums_add(a->sums + a->index[r] * a->n, data, a->n, a->heads[r].width);
}

void kn_cpu_combine_add(struct kn_queue *queue, const struct kn_combine_add *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	struct combine_add_run run = { cpu->form, a, kn_cpu_ranges(cpu, a->rows, a->n) };
	kn_pool_for(cpu->pool, run.jobs, combine_add_job, &run);
}

struct combine_finish_run {
	const struct kn_form *form;
	const struct kn_combine_finish *a;
	size_t jobs;
};

static void combine_finish_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct combine_finish_run *run = context;
	const struct kn_combine_finish *a = run->a;
	for (size_t r = kn_cpu_range_begin(a->rows, run->jobs, job),
		    end = kn_cpu_range_begin(a->rows, run->jobs, job + 1);
		r < end; r++) {
		struct kn_finish finish = {
			.quantum = a->quantum,
			.share = a->score ? kn_sigmoid_1(a->score[r * a->ld_score]) : 1.0f,
			.scale = a->scale,
			.apart = a->apart,
			.shared = a->shared ? a->shared + r * a->lds : NULL,
		};
		run->form->sums_finish(a->x + r * a->ldx, a->sums + r * a->n, a->n, &finish);
	}
}

void kn_cpu_combine_finish(struct kn_queue *queue, const struct kn_combine_finish *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	struct combine_finish_run run = { cpu->form, a, kn_cpu_ranges(cpu, a->rows, a->n * 2) };
	kn_pool_for(cpu->pool, run.jobs, combine_finish_job, &run);
}
