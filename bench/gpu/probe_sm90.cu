/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu/probe.h"

namespace
{

enum { GROUPS = 2, THREADS = 128 * GROUPS, ROWS = 64, COLUMNS = 128, SLAB = 128 /* of k */, STEPS = SLAB / 32 };

/* Operands that stay where they are: as kernels/cuda/ptx90.h wants them. */
struct shared {
	alignas(1024) uint32_t a[GROUPS][ROWS * SLAB / 4];
	alignas(1024) uint32_t b[COLUMNS * SLAB / 4];
};

/* Two warpgroups, each with a tile of its own: while one waits, the other's products run. */
__global__ void __launch_bounds__(THREADS, 1) wgmma_kernel(int slabs, int32_t *out)
{
	shared *s = kn_shared<shared>();
	const uint32_t group = threadIdx.x / 128;
	for (uint32_t i = threadIdx.x; i < GROUPS * ROWS * SLAB / 4; i += THREADS)
		s->a[i / (ROWS * SLAB / 4)][i % (ROWS * SLAB / 4)] = i * 2654435761u & 0x3f3f3f3fu;
	for (uint32_t i = threadIdx.x; i < COLUMNS * SLAB / 4; i += THREADS)
		s->b[i] = i * 2246822519u & 0x3f3f3f3fu;
	ptx_fence_async();
	__syncthreads();

	int32_t d[COLUMNS / 2] = {};
	const uint64_t a = ptx_wgmma_operand(s->a[group]), b = ptx_wgmma_operand(s->b);
	for (int slab = 0; slab < slabs; slab++) {
		ptx_wgmma_fence();
#pragma unroll
		for (uint64_t step = 0; step < STEPS; step++)
			ptx_wgmma_s8<COLUMNS>(d, a + 2 * step, b + 2 * step, slab > 0 || step > 0);
		ptx_wgmma_commit();
		ptx_wgmma_wait<0>();
	}

	int32_t sum = 0;
	for (int i = 0; i < COLUMNS / 2; i++)
		sum ^= d[i];
	if (sum == 0x12345678)
		*out = sum;
}

}   // namespace

cudaError_t measure_wgmma(const probe &p, bench_ceilings *ceilings)
{
	const int slabs = p.quick ? 2 : 20000;
	const unsigned blocks = p.quick ? 1 : p.cores;
	double seconds;
	cudaError_t error = probe_seconds(
		p,
		[&]() {
			return KN_LAUNCH(wgmma_kernel, dim3(blocks), dim3(THREADS), sizeof(shared), p.stream, slabs,
				static_cast<int32_t *>(p.memory));
		},
		&seconds);
	const double products = static_cast<double>(ROWS * COLUMNS * SLAB * GROUPS) * slabs * blocks;
	ceilings->int8_tops = 2 * products / seconds * 1e-12;
	ceilings->int8_by = "wgmma";
	return error;
}
