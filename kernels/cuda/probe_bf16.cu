/* SPDX-License-Identifier: Apache-2.0 */
/* How this device's tensor cores sum bf16, by some thousand sums: whether as profile bf16-sm90 is
 * defined (kernels/sm90.h), of which many go beyond what was measured before, numbers alone, no
 * infinities; and whether exactly, when operands are integers of 8 bits. */
#include "kernels/cuda/pack.h"
#include "kernels/sm90.h"

namespace
{

enum { M = 16, N = 8, K = KN_SM90_BLOCK, PROBLEMS = 48, LANES = 32 };

/* What one instruction computes: c[m][n] += a[m] b[n]. */
struct problem {
	uint16_t a[M][K], b[N][K];
	float c[M][N];
};

__device__ __forceinline__ uint32_t pair_at(const uint16_t *k) { return k[0] | static_cast<uint32_t>(k[1]) << 16; }

/* A warp to a problem. */
__global__ void __launch_bounds__(LANES) kn_probe_kernel(problem *problems)
{
	problem *p = problems + blockIdx.x;
	const uint32_t g = threadIdx.x / 4, t = threadIdx.x % 4 * 2;
	const uint32_t a[4] = { pair_at(p->a[g] + t), pair_at(p->a[g + 8] + t), pair_at(p->a[g] + t + 8),
		pair_at(p->a[g + 8] + t + 8) },
		       b[2] = { pair_at(p->b[g] + t), pair_at(p->b[g] + t + 8) };
	float c[4] = { p->c[g][t], p->c[g][t + 1], p->c[g + 8][t], p->c[g + 8][t + 1] };

	ptx_mma_bf16(c, a, b);
	p->c[g][t] = c[0], p->c[g][t + 1] = c[1], p->c[g + 8][t] = c[2], p->c[g + 8][t + 1] = c[3];
}

/* Where exponents of operands and of sums begin, and over how many powers of two they go. */
struct spread {
	int operands, operands_over, sums, sums_over;
};
const spread spreads[] = { { 0, 1, 0, 5 }, { -1, 4, 0, 5 }, { -6, 13, 0, 5 }, { -20, 41, -20, 41 },
	{ -126, 253, -126, 253 }, { -72, 12, -126, 8 }, { -127, 40, -127, 12 }, { 58, 7, 118, 9 } };

uint32_t next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return static_cast<uint32_t>(*state >> 32);
}

/* A number by its upper half: any sign, now and then a zero. */
uint32_t draw(uint64_t *state, int low, int over)
{
	const uint32_t bits = next(state),
		       exponent = static_cast<uint32_t>(127 + low) + next(state) % static_cast<uint32_t>(over);
	return bits % 16 == 0 ? bits & 0x8000 : (bits & 0x8000) | exponent << 7 | (bits >> 16 & 0x7f);
}

/* Of many spreads. */
void fill_numbers(problem *problems)
{
	uint64_t state = 90;
	for (int i = 0; i < PROBLEMS; i++) {
		const spread &s = spreads[i % static_cast<int>(sizeof spreads / sizeof *spreads)];
		problem *p = problems + i;
		for (uint16_t(&row)[K] : p->a)
			for (uint16_t &v : row)
				v = static_cast<uint16_t>(draw(&state, s.operands, s.operands_over));
		for (uint16_t(&row)[K] : p->b)
			for (uint16_t &v : row)
				v = static_cast<uint16_t>(draw(&state, s.operands, s.operands_over));
		for (float(&row)[N] : p->c)
			for (float &v : row) {
				const uint32_t bits = draw(&state, s.sums, s.sums_over) << 16 | (next(&state) & 0xffff);
				memcpy(&v, &bits, sizeof v);
			}
	}
}

/* -127 .. 127; in every other problem only these two; and in some of those b is a's first row, whose
 * sums are then as large as they can be. */
void fill_integers(problem *problems)
{
	uint64_t state = 8;
	for (int i = 0; i < PROBLEMS; i++) {
		const auto integer = [&] {
			const int of = static_cast<int>(next(&state) % 255) - 127;
			return kn_bf16_of(static_cast<float>(i % 2 == 0 ? of : of < 0 ? -127 : 127));
		};
		problems[i] = {};
		for (uint16_t(&row)[K] : problems[i].a)
			for (uint16_t &v : row)
				v = integer();
		for (uint16_t(&row)[K] : problems[i].b)
			for (uint16_t &v : row)
				v = i % 4 == 1 ? problems[i].a[0][&v - row] : integer();
	}
}

/* What one element of a problem is, after the instruction was given it `times` times. */
typedef float expected_fn(const problem *p, int m, int n, int times);

float by_definition(const problem *p, int m, int n, int times)
{
	float c = p->c[m][n];
	for (int i = 0; i < times; i++)
		c = kn_sm90_add(c, p->a[m], p->b[n]);
	return c;
}

float by_integers(const problem *p, int m, int n, int times)
{
	int32_t dot = 0;
	for (int k = 0; k < K; k++)
		dot += static_cast<int32_t>(kn_cuda_f32_of(&p->a[m][k], CAD_DTYPE_BF16)) *
			static_cast<int32_t>(kn_cuda_f32_of(&p->b[n][k], CAD_DTYPE_BF16));
	return static_cast<float>(dot * times);
}

bool is_as_expected(const problem *before, const problem *after, expected_fn *expected, int times)
{
	for (int i = 0; i < PROBLEMS; i++)
		for (int m = 0; m < M; m++)
			for (int n = 0; n < N; n++)
				if (after[i].c[m][n] != expected(&before[i], m, n, times))
					return false;
	return true;
}

/* *good: all came out as expected. */
cudaError_t try_out(cudaStream_t stream, void (*fill)(problem *problems), expected_fn *expected, int times, bool *good)
{
	const size_t bytes = PROBLEMS * sizeof(problem);
	problem *before = static_cast<problem *>(malloc(2 * bytes)), *after = before + PROBLEMS;
	void *device = nullptr;
	cudaError_t error = before ? cudaMalloc(&device, bytes) : cudaErrorMemoryAllocation;

	if (error == cudaSuccess) {
		fill(before);
		error = cudaMemcpyAsync(device, before, bytes, cudaMemcpyHostToDevice, stream);
	}
	for (int i = 0; i < times && error == cudaSuccess; i++)
		error = KN_LAUNCH(
			kn_probe_kernel, dim3(PROBLEMS), dim3(LANES), 0, stream, static_cast<problem *>(device));
	if (error == cudaSuccess)
		error = cudaMemcpyAsync(after, device, bytes, cudaMemcpyDeviceToHost, stream);
	if (error == cudaSuccess)
		error = cudaStreamSynchronize(stream);
	*good = error == cudaSuccess && is_as_expected(before, after, expected, times);
	cudaFree(device);
	free(before);
	return error;
}

}   // namespace

cudaError_t kn_cuda_try_sm90(cudaStream_t stream, bool *good)
{
	return try_out(stream, fill_numbers, by_definition, 1, good);
}

cudaError_t kn_cuda_try_int8(cudaStream_t stream, bool *good)
{
	return try_out(stream, fill_integers, by_integers, KN_GROUP / K, good);
}
