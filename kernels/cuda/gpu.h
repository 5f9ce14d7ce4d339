/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every .cu file includes. One source, two compilers: nvcc, and with KN_EMU g++ or clang++,
 * for which emu/ plays the GPU.
 *
 * So that both can, a kernel takes its shared memory from kn_shared<T>(), one struct that draws the
 * map; is launched by KN_LAUNCH; uses PTX through ptx.h and ptx90.h alone, and of CUDA what
 * emu/include/device_language.h has.
 */
#ifndef CADRE_KERNELS_CUDA_GPU_H
#define CADRE_KERNELS_CUDA_GPU_H

#ifdef KN_EMU
#include "kernels/cuda/emu/include/cuda_runtime.h"
#include "kernels/cuda/emu/launch.h"
#include "kernels/cuda/emu/ptx.h"
#include "kernels/cuda/emu/ptx90.h"

template <class T> inline T *kn_shared() { return reinterpret_cast<T *>(emu_block_now->shared); }
#define KN_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
	emu_launch_kernel(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#else
#include <cuda_runtime.h>
#ifdef __CUDACC__ /* not in files without device code */
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/ptx90.h"

template <class T> static __device__ __forceinline__ T *kn_shared()
{
	extern __shared__ __align__(1024) unsigned char kn_shared_bytes[];
	return reinterpret_cast<T *>(kn_shared_bytes);
}
#define KN_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
	(kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__), cudaGetLastError())
#endif
#endif

#endif
