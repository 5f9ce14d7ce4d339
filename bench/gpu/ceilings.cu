/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu/probe.h"

namespace
{

enum { THREADS = 512, LOADS = 8 /* of 16 bytes that a thread has under way */, BLOCKS_PER_CORE = 4 };
enum { MMA_THREADS = 256, MMA_TILES = 8 };

/* `fours` is a multiple of LOADS * all threads. Somebody must seem to need the values. */
__global__ void __launch_bounds__(THREADS) read_kernel(const float4 *p, size_t fours, uint32_t *out)
{
	const size_t threads = static_cast<size_t>(gridDim.x) * blockDim.x;
	uint32_t x = 0;

	for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < fours; i += LOADS * threads) {
		float4 v[LOADS];
#pragma unroll
		for (int k = 0; k < LOADS; k++)
			v[k] = p[i + static_cast<size_t>(k) * threads];
#pragma unroll
		for (int k = 0; k < LOADS; k++)
			x ^= __float_as_uint(v[k].x) ^ __float_as_uint(v[k].y) ^ __float_as_uint(v[k].z) ^
				__float_as_uint(v[k].w);
	}
	if (x == 0x12345678u)
		*out = x;
}

/* One A fragment against MMA_TILES B fragments again and again, each with sums of its own. */
__global__ void __launch_bounds__(MMA_THREADS) mma_kernel(int rounds, int32_t *out)
{
	uint32_t a[4], b[MMA_TILES][2];
	int32_t c[MMA_TILES][4] = {};
	for (uint32_t i = 0; i < 4; i++)
		a[i] = (threadIdx.x * 4 + i) * 2654435761u & 0x3f3f3f3fu;
	for (uint32_t i = 0; i < MMA_TILES; i++)
		b[i][0] = b[i][1] = (threadIdx.x * MMA_TILES + i) * 2246822519u & 0x3f3f3f3fu;

	for (int round = 0; round < rounds; round++)
#pragma unroll
		for (int i = 0; i < MMA_TILES; i++)
			ptx_mma_s8(c[i], a, b[i]);

	int32_t sum = 0;
	for (int i = 0; i < MMA_TILES; i++)
		sum ^= c[i][0] ^ c[i][1] ^ c[i][2] ^ c[i][3];
	if (sum == 0x12345678)
		*out = sum;
}

cudaError_t measure_read(const probe &p, bench_ceilings *ceilings)
{
	const unsigned blocks = p.quick ? 1 : p.cores * BLOCKS_PER_CORE;
	const size_t unit = static_cast<size_t>(blocks) * THREADS * LOADS, fours = p.bytes / 16 / unit * unit;
	double seconds;
	cudaError_t error = probe_seconds(
		p,
		[&]() {
			return KN_LAUNCH(read_kernel, dim3(blocks), dim3(THREADS), 0, p.stream,
				static_cast<const float4 *>(p.memory), fours, static_cast<uint32_t *>(p.memory));
		},
		&seconds);
	ceilings->read_gbs = static_cast<double>(fours) * 16 / seconds * 1e-9;
	return error;
}

cudaError_t measure_mma(const probe &p, bench_ceilings *ceilings)
{
	const int rounds = p.quick ? 2 : 100000;
	const unsigned blocks = p.quick ? 1 : p.cores * 2;
	double seconds;
	cudaError_t error = probe_seconds(
		p,
		[&]() {
			return KN_LAUNCH(mma_kernel, dim3(blocks), dim3(MMA_THREADS), 0, p.stream, rounds,
				static_cast<int32_t *>(p.memory));
		},
		&seconds);
	const double products = static_cast<double>(16 * 8 * 32 * MMA_TILES) * rounds * blocks * (MMA_THREADS / 32);
	ceilings->int8_tops = 2 * products / seconds * 1e-12;
	ceilings->int8_by = "mma.sync";
	return error;
}

cudaError_t measure(probe *p, unsigned index, bench_ceilings *ceilings)
{
	int cores = 0, major = 0;
	cudaError_t error = cudaSetDevice(static_cast<int>(index));
	if (error == cudaSuccess)
		error = cudaDeviceGetAttribute(&cores, cudaDevAttrMultiProcessorCount, static_cast<int>(index));
	if (error == cudaSuccess)
		error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, static_cast<int>(index));
	p->cores = static_cast<unsigned>(cores);
	if (error == cudaSuccess)
		error = cudaStreamCreateWithFlags(&p->stream, cudaStreamNonBlocking);
	if (error == cudaSuccess)
		error = cudaMalloc(&p->memory, p->bytes);
	if (error == cudaSuccess)
		error = cudaMemsetAsync(p->memory, 1, p->bytes, p->stream);
	if (error == cudaSuccess)
		error = measure_read(*p, ceilings);
	if (error == cudaSuccess)
		error = major == 9 ? measure_wgmma(*p, ceilings) : measure_mma(*p, ceilings);
	return error;
}

}   // namespace

extern "C" __attribute__((visibility("default"))) const char *bench_ceilings_measure(
	unsigned index, int quick, struct bench_ceilings *ceilings)
{
	probe p = { 0, quick != 0, nullptr, nullptr, quick ? 1u << 18 : 4ull << 30 };
	cudaError_t error = measure(&p, index, ceilings);
	if (p.memory)
		cudaFree(p.memory);
	if (p.stream)
		cudaStreamDestroy(p.stream);
	return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
