/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA device language as ordinary C++, for kernels that are compiled by g++ or clang++.
 *
 * What is here is what Cadre's kernels use: an intrinsic that is missing is an error of the
 * compiler, not a guess. Arithmetic is that of IEEE with fmaf where it is written (contraction is
 * off on both sides). The approximate functions of CUDA (__expf, rsqrtf, ...) are left out on
 * purpose: no CPU has their bits.
 */
#ifndef CADRE_KERNELS_CUDA_EMU_INCLUDE_DEVICE_LANGUAGE_H
#define CADRE_KERNELS_CUDA_EMU_INCLUDE_DEVICE_LANGUAGE_H

#include "kernels/cuda/emu/atomics.h"
#include "kernels/cuda/emu/block.h"
#include "kernels/cuda/emu/collectives.h"

#include <math.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)

#define threadIdx (emu_thread_now->index)
#define blockIdx (emu_block_now->index)
#define blockDim (emu_block_now->dim)
#define gridDim (emu_block_now->grid)

inline void emu_syncthreads(EMU_HERE_ARGS) { emu_barrier(EMU_HERE); }
#define __syncthreads emu_syncthreads
inline void __syncwarp(uint32_t mask = ~0u, EMU_HERE_ARGS) { emu_warp_sync(mask, EMU_HERE); }

template <class T> inline T __shfl_xor_sync(uint32_t mask, T value, uint32_t distance, EMU_HERE_ARGS)
{
	static_assert(sizeof(T) == 4, "values of 4 bytes");
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	bits = emu_shuffle(mask, bits, emu_thread_now->lane ^ distance, EMU_HERE);
	memcpy(&value, &bits, sizeof bits);
	return value;
}
inline uint32_t __reduce_max_sync(uint32_t mask, uint32_t value, EMU_HERE_ARGS)
{
	return emu_reduce(EMU_REDUCE_MAX, mask, value, EMU_HERE);
}
inline uint32_t __reduce_min_sync(uint32_t mask, uint32_t value, EMU_HERE_ARGS)
{
	return emu_reduce(EMU_REDUCE_MIN, mask, value, EMU_HERE);
}
inline uint32_t __reduce_or_sync(uint32_t mask, uint32_t value, EMU_HERE_ARGS)
{
	return emu_reduce(EMU_REDUCE_OR, mask, value, EMU_HERE);
}

inline unsigned long long atomicAdd(unsigned long long *at, unsigned long long value, EMU_HERE_ARGS)
{
	return emu_atomic_add(at, value, EMU_HERE);
}
inline unsigned atomicMin(unsigned *at, unsigned value, EMU_HERE_ARGS) { return emu_atomic_min(at, value, EMU_HERE); }

inline uint32_t __float_as_uint(float value)
{
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	return bits;
}
inline float __uint_as_float(uint32_t bits)
{
	float value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

#endif
