/* SPDX-License-Identifier: Apache-2.0 */
/* The quantiser of rows (quantise.h) by a warp, whose lanes have 8 values each of a group. */
#ifndef CADRE_KERNELS_CUDA_QUANTISE_WARP_H
#define CADRE_KERNELS_CUDA_QUANTISE_WARP_H

#include "kernels/cuda/cadre_c.h"
#include "kernels/cuda/gpu.h"

enum { KN_LANE_VALUES = KN_GROUP / 32 };

/* |x| compared as integers: NaN is the largest. */
static __device__ __forceinline__ struct kn_scale kn_warp_scale(const float (&v)[KN_LANE_VALUES])
{
	uint32_t most = 0;
	for (int i = 0; i < KN_LANE_VALUES; i++) {
		uint32_t bits = __float_as_uint(v[i]) & 0x7fffffff;
		most = bits > most ? bits : most;
	}
	return kn_scale_of(__reduce_max_sync(~0u, most), KN_RANGE_INT8);
}

/* Adding 3 * 2^22 rounds to an integer, to nearest even, and leaves it in the low bits. */
static __device__ __forceinline__ uint32_t kn_byte_of(float x, float inverse)
{
	return inverse == 0.0f ? 0 : __float_as_uint(x * inverse + 0x1.8p23f) & 0xff;
}
/* Values first .. first + 3, in their order. */
static __device__ __forceinline__ uint32_t kn_four_bytes(
	const float (&v)[KN_LANE_VALUES], int first, const struct kn_scale &s)
{
	uint32_t bytes = 0;
	for (int i = 0; i < 4; i++)
		bytes |= kn_byte_of(v[first + i], s.inverse) << (8 * i);
	return bytes;
}

#endif
