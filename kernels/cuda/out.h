/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the down projection leaves its outputs: in y, or added up as integers (kernels.h, struct
 * kn_ffn). Every GEMM ends with it.
 *
 * Sums are made by atomics, since other blocks add to the same rows: integers have no order. A
 * pair's row is read by one block of the launch alone, so threads of a warp rarely meet.
 */
#ifndef CADRE_KERNELS_CUDA_OUT_H
#define CADRE_KERNELS_CUDA_OUT_H

#include "kernels/cuda/cuda.h"

struct kn_cuda_out {
	float *y; /* [pairs][ldy]; NULL: sums */
	size_t ldy;
	const uint32_t *row_index; /* [pairs]; NULL: pair p's row is p */
	const float *weight;       /* [pairs] */
	bool weighed;              /* y is already */
	double inverse;            /* 1 / quantum */
	int64_t *sums;             /* [rows][n] */
	uint32_t *poison;          /* [rows] */
	size_t n;
};

static inline struct kn_cuda_out kn_cuda_out_of(const struct kn_ffn *a, const struct kn_cuda_layout &like)
{
	return { a->y, a->ldy, a->row_index, a->weight, like.weighs_input,
		a->y ? 0.0 : 1.0 / static_cast<double>(a->quantum), a->sums, a->poison, a->hidden };
}

#if defined(KN_EMU) || defined(__CUDACC__) /* not in files without device code */
/* Adds a column of a pair's output to its row. Padding is not added. */
static __device__ __forceinline__ void kn_cuda_add(const kn_cuda_out &out, uint32_t pair, size_t column, float y)
{
	if (column >= out.n)
		return;
	const uint32_t row = out.row_index ? out.row_index[pair] : pair;
	/* 48 bits, then a power of two: exact until rint */
	const double q =
		rint(static_cast<double>(out.weighed ? 1.0f : out.weight[pair]) * static_cast<double>(y) * out.inverse);
	if (fabs(q) < 0x1p53)
		atomicAdd(reinterpret_cast<unsigned long long *>(&out.sums[row * out.n + column]),
			static_cast<unsigned long long>(static_cast<int64_t>(q)));
	else /* NaN too */
		atomicMin(&out.poison[row], pair);
}

/* The columns from `column` on of some pairs, which lie in shared memory: neighbours at once. */
template <int THREADS, int COLUMNS, int LD>
static __device__ __forceinline__ void kn_cuda_add_tile(
	const kn_cuda_out &out, const float (*tile)[LD], uint32_t first_pair, uint32_t pairs, size_t column)
{
	for (uint32_t i = threadIdx.x; i < pairs * COLUMNS; i += THREADS)
		kn_cuda_add(out, first_pair + i / COLUMNS, column + i % COLUMNS, tile[i / COLUMNS][i % COLUMNS]);
}

/* The same as y, padding too, 16 bytes at a time. */
template <int THREADS, int COLUMNS, int LD>
static __device__ __forceinline__ void kn_cuda_store_tile(
	const kn_cuda_out &out, const float (*tile)[LD], uint32_t first_pair, uint32_t pairs, size_t column)
{
	constexpr uint32_t FOURS = COLUMNS / 4;
	for (uint32_t i = threadIdx.x; i < pairs * FOURS; i += THREADS) {
		const uint32_t pair = i / FOURS, at = i % FOURS * 4;
		float *y = out.y + (first_pair + pair) * out.ldy + column + at;
		*reinterpret_cast<float4 *>(y) = *reinterpret_cast<const float4 *>(&tile[pair][at]);
	}
}

/* A column of a pair, added or as y. */
static __device__ __forceinline__ void kn_cuda_put(const kn_cuda_out &out, uint32_t pair, size_t column, float y)
{
	if (out.y)
		out.y[pair * out.ldy + column] = y;
	else
		kn_cuda_add(out, pair, column, y);
}
#endif

#endif
