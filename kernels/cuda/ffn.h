/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grouped ffn: what its profiles share (tiles of rows, memory between launches; in kernels the
 * activation, the rows of a tile, and the way along k), and the function of each.
 */
#ifndef CADRE_KERNELS_CUDA_FFN_H
#define CADRE_KERNELS_CUDA_FFN_H

#include "kernels/cuda/expert.h"

/* One run of pairs that use the same expert. */
struct kn_cuda_tile {
	uint32_t expert, first, rows;
};

/* Which experts have pairs, and their tiles: those of experts with few rows, and the others. Device
 * memory. */
struct kn_cuda_plan {
	const struct kn_cuda_view *views;
	const struct kn_cuda_tile *few, *many;
	size_t few_count, many_count;
};

/* What is read of a row that another operator made, and what is made of h: rows are zero up to it. */
enum { KN_ROW_UNIT = 32 };

/* Whether expert e has pairs, and is kept as `like` is. */
bool kn_cuda_takes_part(const struct kn_ffn *a, size_t e, const struct kn_cuda_layout &like);
/* Of the experts that are kept as one is: in tiles of at most so many rows. */
struct kn_cuda_plan kn_cuda_plan_make(struct kn_cuda_queue *queue, const struct kn_ffn *a,
	const struct kn_cuda_layout &like, uint32_t few_rows, uint32_t many_rows);

/* Device memory, of a->scratch. */
struct kn_cuda_ffn_scratch {
	size_t pairs, ffn;
	float *h; /* [pairs][ldh] */
	size_t ldh;
	/* x and h as integers: rows of hidden_pad and of ffn_pad */
	int8_t *xq, *hq;
	/* the same memory as bf16: rows padded to KN_BF16_STEP */
	uint16_t *x_bf16, *h_bf16;
	float *x_scales, *h_scales;
	size_t hidden_pad, ffn_pad;
	size_t bytes;
};

/* ---- a profile each, of the experts that are kept as one is ---- */

typedef void kn_cuda_ffn_fn(struct kn_cuda_queue *queue, const struct kn_ffn *a, const struct kn_cuda_layout &like,
	const struct kn_cuda_ffn_scratch &scratch);
kn_cuda_ffn_fn kn_cuda_ffn_int8, kn_cuda_ffn_f32, kn_cuda_ffn_bf16_sm90;

/* int8 and int4 on wgmma, with scratch of its own form. */
size_t kn_cuda_wgmma_scratch_bytes(size_t pairs, size_t hidden, size_t ffn);
void kn_cuda_ffn_wgmma(
	struct kn_cuda_queue *queue, const struct kn_ffn *a, const struct kn_cuda_layout &like, size_t ffn);

#if defined(KN_EMU) || defined(__CUDACC__) /* not in files without device code */
/* By what gate and up of a pair are multiplied: its weight, if the expert weighs its input. weight: [P]
 * or NULL. */
static __device__ __forceinline__ float kn_cuda_weigh(const struct kn_cuda_view &view, const float *weight, size_t pair)
{
	return view.weighs_input && weight ? weight[pair] : 1.0f;
}

/* Comparisons written so that NaN stays NaN, as in the CPU's definition. */
static __device__ __forceinline__ float kn_cuda_activate(const struct kn_cuda_view &view, float g, float u)
{
	if (view.activation == CAD_ACTIVATION_SILU)
		return g / (1.0f + kn_exp_1(-g)) * u;
	g = g > view.limit ? view.limit : g;
	u = u > view.limit ? view.limit : u;
	u = u < -view.limit ? -view.limit : u;
	float z = g * 1.702f;
	return (u + 1.0f) * (g / (1.0f + kn_exp_1(-z)));
}

/* Which row each row of the tile reads, negative past its last one; ends with a barrier. */
template <class S>
static __device__ __forceinline__ void kn_cuda_tile_rows(
	int32_t (&row)[S::rows], const kn_cuda_tile &t, const uint32_t *row_index)
{
	for (uint32_t r = threadIdx.x; r < S::rows; r += S::threads) {
		const size_t pair = t.first + r;
		row[r] = r >= t.rows ? -1 : static_cast<int32_t>(row_index ? row_index[pair] : pair);
	}
	__syncthreads();
}

/* The stages of k in ascending order, of which S::stages - 1 are under way by cp.async while one is
 * multiplied: fetch(stage, i), multiply(stage). The last one is not followed by a barrier. */
template <class S, class Stage, class Fetch, class Multiply>
static __device__ __forceinline__ void kn_cuda_each_stage(
	Stage (&stages)[S::stages], size_t count, Fetch fetch, Multiply multiply)
{
	for (size_t i = 0; i < S::stages - 1; i++) {
		if (i < count)
			fetch(&stages[i], i);
		ptx_cp_async_commit();
	}
	for (size_t i = 0; i < count; i++) {
		const size_t next = i + S::stages - 1;
		ptx_cp_async_wait<S::stages - 2>();
		__syncthreads();
		if (next < count)
			fetch(&stages[next % S::stages], next);
		ptx_cp_async_commit();
		multiply(&stages[i % S::stages]);
	}
	ptx_cp_async_wait<0>();
}
#endif

#endif
