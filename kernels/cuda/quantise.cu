/* SPDX-License-Identifier: Apache-2.0 */
/* The quantiser of rows (quantise.h), which integer GEMMs begin with. */
#include "kernels/cuda/cuda.h"

namespace
{

enum { LANES = 32, LANE_VALUES = KN_GROUP / LANES, WARPS = 4 };

/* |x| compared as integers: NaN is the largest. */
__device__ uint32_t bits_most(const float *x, int count)
{
	uint32_t most = 0;
	for (int i = 0; i < count; i++) {
		uint32_t bits = __float_as_uint(x[i]) & 0x7fffffff;
		most = bits > most ? bits : most;
	}
	return most;
}

/* Adding 3 * 2^22 rounds to an integer, to nearest even, and leaves it in the low bits. */
__device__ uint32_t byte_of(float x, float inverse)
{
	return inverse == 0.0f ? 0 : __float_as_uint(x * inverse + 0x1.8p23f) & 0xff;
}

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

	uint32_t most = __reduce_max_sync(~0u, bits_most(v, LANE_VALUES));
	const struct kn_scale s = kn_scale_of(most, KN_RANGE_INT8);
	uint2 bytes = {};
	for (int i = 0; i < 4; i++) {
		bytes.x |= byte_of(v[i], s.inverse) << (8 * i);
		bytes.y |= byte_of(v[i + 4], s.inverse) << (8 * i);
	}
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
