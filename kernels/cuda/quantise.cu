/* SPDX-License-Identifier: Apache-2.0 */
/* The quantiser of rows (quantise.h), which integer GEMMs begin with. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/quantise_warp.h"

namespace
{

enum { LANES = 32, LANE_VALUES = KN_LANE_VALUES, WARPS = 4 };

/* A warp makes a group of a row, a lane 8 values of it, of which all or none are before n. grid
 * (groups / WARPS, rows). */
__global__ void __launch_bounds__(WARPS *LANES) kn_quantise_kernel(const float *__restrict__ x, size_t ldx, size_t n,
	int8_t *__restrict__ q, float *__restrict__ scales, size_t k_pad)
{
	const size_t lane = threadIdx.x % LANES, group = blockIdx.x * WARPS + threadIdx.x / LANES, row = blockIdx.y;
	const size_t k = group * KN_GROUP + lane * LANE_VALUES;
	float v[LANE_VALUES] = {};

	if (group >= k_pad / KN_GROUP) /* the whole warp */
		return;
	for (int i = 0; k < n && i < LANE_VALUES; i += 4) {
		float4 four = *reinterpret_cast<const float4 *>(x + row * ldx + k + i);
		v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
	}

	const struct kn_scale s = kn_warp_scale(v);
	const uint2 bytes = { kn_four_bytes(v, 0, s), kn_four_bytes(v, 4, s) };
	*reinterpret_cast<uint2 *>(q + row * k_pad + k) = bytes;
	if (lane == 0)
		scales[row * (k_pad / KN_GROUP) + group] = s.scale;
}

}   // namespace

void kn_cuda_quantise(struct kn_cuda_queue *queue, const float *x, size_t ldx, size_t rows, size_t n, int8_t *q,
	float *scales, size_t k_pad)
{
	enum { ROWS_MAX = 65535 }; /* of a grid */
	const unsigned across = static_cast<unsigned>((k_pad / KN_GROUP + WARPS - 1) / WARPS);
	for (size_t r = 0, part; r < rows; r += part) {
		part = rows - r < ROWS_MAX ? rows - r : size_t{ ROWS_MAX };
		kn_cuda_note(queue,
			KN_LAUNCH(kn_quantise_kernel, dim3(across, static_cast<unsigned>(part)), dim3(WARPS * LANES), 0,
				queue->stream, x + r * ldx, ldx, n, q + r * k_pad, scales + r * (k_pad / KN_GROUP),
				k_pad));
	}
}
