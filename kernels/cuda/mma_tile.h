/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tile of a GEMM by mma.sync, whatever its operands: which outputs each thread holds, and their way
 * to shared memory. Weights are A, 16 to an instruction, and rows are B, 8 to it; S is a kn_tile_shape.
 */
#ifndef CADRE_KERNELS_CUDA_MMA_TILE_H
#define CADRE_KERNELS_CUDA_MMA_TILE_H

#include "kernels/cuda/ffn.h"
#include "kernels/cuda/out.h"

/* Of a warp's pieces (a, d), as mma.sync has them. */
template <class S> using kn_mma_accumulators = float[S::across][S::down][4];

/* The first weight of piece a in the tile. */
template <class S> static __device__ __forceinline__ int kn_mma_weight(int a)
{
	const int warp = static_cast<int>(threadIdx.x) / 32;
	return (warp % S::warps_across * S::across + a) * 16;
}
/* The row of the tile that element i of piece d is. */
template <class S> static __device__ __forceinline__ int kn_mma_row(int d, int i)
{
	const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
	return (warp / S::warps_across * S::down + d) * 8 + lane % 4 * 2 + i % 2;
}

/* What a piece gives: of up, gate and up of 8 columns are 8 of h; of down, 16 columns of y. */
template <bool UP> struct kn_mma_outputs {
	static constexpr int weights = UP ? 2 : 1, columns = KN_PANEL_ROWS / weights;
};

template <bool UP>
static __device__ __forceinline__ float kn_mma_finish(
	const struct kn_cuda_view &view, const float (&acc)[4], float weight, size_t column, int i)
{
	if constexpr (!UP)
		return view.down_bias ? acc[i] + view.down_bias[column] : acc[i];

	float g = acc[i] * weight, u = acc[(i + 2) % 4] * weight;
	if (view.gate_bias) {
		g = g + view.gate_bias[column];
		u = u + view.up_bias[column];
	}
	return kn_cuda_activate(view, g, u);
}

/* All outputs of the tile, whose first column is given, to y in shared memory: from there stores are wide,
 * and sums are of neighbours. weight: of the pairs, or NULL. Ends with a barrier. */
template <class S, bool UP, int LD>
static __device__ __forceinline__ void kn_mma_spread(float (*y)[LD], const struct kn_cuda_view &view,
	const kn_mma_accumulators<S> &acc, const kn_cuda_tile &t, const float *weight, size_t first_column)
{
	const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
	for (int a = 0; a < S::across; a++)
#pragma unroll
		for (int d = 0; d < S::down; d++)
#pragma unroll
			for (int i = 0; i < 4 / kn_mma_outputs<UP>::weights; i++) {
				const int column =
					kn_mma_weight<S>(a) / kn_mma_outputs<UP>::weights + lane / 4 + 8 * (i / 2);
				const int row = kn_mma_row<S>(d, i);
				const bool there = UP && static_cast<uint32_t>(row) < t.rows;
				const float by =
					there ? kn_cuda_weigh(view, weight, t.first + static_cast<size_t>(row)) : 1.0f;
				y[row][column] = kn_mma_finish<UP>(
					view, acc[a][d], by, first_column + static_cast<size_t>(column), i);
			}
	__syncthreads();
}

#endif
