/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the CPU backend: its device, its queue, and the operators that fill the `kn_ops` table in
 * device.c.
 *
 * An operator here is the *driver*: it cuts the work into jobs for the queue's pool and calls the
 * form's inner kernels (forms.h). Drivers are shared by all forms, so what can differ between forms
 * is only what forms.h lists. Every driver runs its arithmetic inside kn_pool_for, which sees to
 * the default MXCSR in all threads; gemm_bf16_rows and gemm_bf16_sm90 alone leave it meanwhile. Nothing here allocates
 * but create and pack functions.
 */
#ifndef CADRE_KERNELS_CPU_CPU_H
#define CADRE_KERNELS_CPU_CPU_H

#include "kernels/cpu/forms.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/pool.h"
#include "kernels/kernels.h"

#include <string.h>

struct kn_cpu_device {
	struct kn_device base;
	const struct kn_form *form;
	struct kn_memory memory;
};

struct kn_cpu_queue {
	struct kn_queue base;
	const struct kn_form *form;
	struct kn_pool *pool;
	/* [KN_ATTEND_PARTS_BYTES / 4]: chunks of attention before they are merged; rows of
	 * linear, quantised */
	float *parts;
};

static inline struct kn_cpu_queue *kn_cpu_queue(struct kn_queue *queue) { return (struct kn_cpu_queue *)queue; }

/* Operators are cut into contiguous ranges of rows: enough work for each, at most a few per thread.
 * Range `job` of `jobs` begins at kn_cpu_range_begin and ends where the next one begins. */
static inline size_t kn_cpu_ranges(const struct kn_cpu_queue *queue, size_t rows, size_t row_floats)
{
	size_t by_work = (rows * row_floats + KN_WORK_FLOATS_MIN - 1) / KN_WORK_FLOATS_MIN,
	       most = KN_JOBS_PER_THREAD * (size_t)kn_pool_threads(queue->pool);
	size_t jobs = by_work < most ? by_work : most;
	return jobs < rows ? (jobs > 0 ? jobs : 1) : rows;
}
static inline size_t kn_cpu_range_begin(size_t rows, size_t jobs, size_t job)
{
	return rows / jobs * job + (rows % jobs < job ? rows % jobs : job);
}

/* Operators that make new rows of n elements write the zeros up to the next multiple of 64 too. */
static inline void kn_cpu_row_end(float *row, size_t n) { memset(row + n, 0, (kn_round_up(n, 64) - n) * sizeof *row); }

/* The GEMM for panels of this storage. */
static inline void kn_cpu_gemm(const struct kn_form *form, enum kn_storage storage, const struct kn_gemm *g)
{
	switch (storage) {
	case KN_STORAGE_BF16: form->gemm_bf16(g); break;
	case KN_STORAGE_BF16_ROWS: form->gemm_bf16_rows(g); break;
	case KN_STORAGE_BF16_SM90: form->gemm_bf16_sm90(g); break;
	case KN_STORAGE_F32: form->gemm_f32(g); break;
	case KN_STORAGE_S8: form->gemm_s8(g); break;
	case KN_STORAGE_U4: form->gemm_u4(g); break;
	case KN_STORAGE_F8: form->gemm_f8(g); break;
	case KN_STORAGE_MXFP4: form->gemm_mxfp4(g); break;
	case KN_STORAGE_COUNT: break;
	}
}

/* To [-bound, bound], by comparisons that keep NaN. */
static inline void kn_cpu_clamp(float *y, size_t n, float bound)
{
	for (size_t i = 0; i < n; i++) {
		float v = y[i] > bound ? bound : y[i];
		y[i] = v < -bound ? -bound : v;
	}
}

/* ---- device.c ---- */

/* The CPU with this form. */
enum cad_status kn_cpu_open(enum kn_isa isa, struct kn_device **device, struct cad_error *error);
/* 64-byte aligned and zeroed, in huge pages (memory.h). */
void *kn_cpu_alloc(struct kn_device *device, size_t bytes);
void kn_cpu_release(struct kn_device *device, void *memory, size_t bytes);

/* ---- pack.c ---- */

/* out[i] = source[i] as f32, exactly; the source is F32, F16 or BF16 of any alignment. */
void kn_widen(const void *source, enum cad_dtype dtype, size_t n, float *out);
uint64_t kn_cpu_matrix_bytes(const struct kn_device *device, const struct kn_source *source, enum cad_weights weights);
uint64_t kn_cpu_table_bytes(const struct kn_device *device, const struct kn_source *source, enum cad_weights weights);
uint64_t kn_cpu_expert_bytes(
	const struct kn_device *device, const struct kn_expert_source *source, enum cad_weights weights);
uint64_t kn_cpu_vector_bytes(const struct kn_device *device, size_t n);
enum cad_status kn_cpu_matrix_create(
	struct kn_device *device, const struct kn_source *source, enum cad_weights weights, struct kn_matrix *matrix);
void kn_cpu_matrix_destroy(struct kn_device *device, struct kn_matrix *matrix);
enum cad_status kn_cpu_table_create(
	struct kn_device *device, const struct kn_source *source, enum cad_weights weights, struct kn_table *table);
void kn_cpu_table_destroy(struct kn_device *device, struct kn_table *table);
enum cad_status kn_cpu_expert_create(struct kn_device *device, const struct kn_expert_source *source,
	enum cad_weights weights, struct kn_expert *expert);
void kn_cpu_expert_destroy(struct kn_device *device, struct kn_expert *expert);
enum cad_status kn_cpu_vector_create(struct kn_device *device, const struct kn_source *source, float **vector);
void kn_cpu_vector_destroy(struct kn_device *device, float *vector, size_t n);

/* ---- unpack.c ---- */

enum cad_status kn_cpu_expert_unpack(struct kn_device *device, const struct kn_expert *expert,
	const struct kn_expert_source *image, uint64_t begin, size_t count, void *out);

/* ---- linear.c ---- */

void kn_cpu_linear(struct kn_queue *queue, const struct kn_linear *a);
void kn_cpu_linear_heads(struct kn_queue *queue, const struct kn_linear_heads *a);
void kn_cpu_embed(struct kn_queue *queue, const struct kn_embed *a);

/* ---- rows_q.c ---- */

/* Rows of n elements, padded as all activations are, as quantised rows (layout.h), ldq bytes apart.
 */
void kn_cpu_quantise(
	struct kn_cpu_queue *queue, const float *x, size_t ldx, size_t rows, size_t n, uint8_t *q, size_t ldq);
/* One group of a row of n elements; x begins there. */
void kn_cpu_quantise_group(
	const struct kn_form *form, const float *x, size_t n, size_t group, size_t k_pad, uint8_t *row);

/* ---- ffn.c ---- */

size_t kn_cpu_ffn_scratch_bytes(struct kn_queue *queue, size_t pairs, size_t hidden, size_t ffn, bool sums);
void kn_cpu_ffn(struct kn_queue *queue, const struct kn_ffn *a);

/* ---- ffn_sums.c ---- */

/* What kn_cpu_ffn_sums needs. */
size_t kn_cpu_ffn_sums_bytes(size_t pairs, size_t hidden);
/* The sums of `a`, whose pairs have given y [P][ldy]. */
void kn_cpu_ffn_sums(
	struct kn_cpu_queue *queue, const struct kn_ffn *a, bool weighed, const float *y, size_t ldy, void *scratch);

/* ---- vector.c ---- */

void kn_cpu_rmsnorm(struct kn_queue *queue, const struct kn_rmsnorm *a);
void kn_cpu_add(struct kn_queue *queue, const struct kn_add *a);
void kn_cpu_scale_rows(struct kn_queue *queue, const struct kn_scale_rows *a);

/* ---- rope.c ---- */

void kn_cpu_rope_table(struct kn_queue *queue, const struct kn_rope_table *a);
void kn_cpu_rope(struct kn_queue *queue, const struct kn_rope *a);

/* ---- attend.c ---- */

void kn_cpu_kv_write(struct kn_queue *queue, const struct kn_kv_write *a);
void kn_cpu_attend(struct kn_queue *queue, const struct kn_attend *a);

/* ---- gate.c ---- */

void kn_cpu_gate(struct kn_queue *queue, const struct kn_gate *a);

/* ---- exchange.c ---- */

void kn_cpu_rows_pack(struct kn_queue *queue, const struct kn_rows_pack *a);
void kn_cpu_rows_unpack(struct kn_queue *queue, const struct kn_rows_unpack *a);
void kn_cpu_combine_pack(struct kn_queue *queue, const struct kn_combine_pack *a);
void kn_cpu_combine_add(struct kn_queue *queue, const struct kn_combine_add *a);
void kn_cpu_combine_finish(struct kn_queue *queue, const struct kn_combine_finish *a);

#endif
