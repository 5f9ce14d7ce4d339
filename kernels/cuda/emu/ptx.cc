/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/emu/ptx.h"

#include "kernels/cuda/emu/block.h"
#include "kernels/cuda/emu/check.h"
#include "kernels/cuda/emu/collectives.h"
#include "kernels/cuda/emu/machine.h"
#include "kernels/cuda/emu/memory.h"
#include "kernels/sm90.h"

#include <string.h>

namespace
{

enum { M = 16, N = 8, K = 32 };

void expect_aligned(const void *address, size_t to, const char *what, emu_site site)
{
	if (reinterpret_cast<uintptr_t>(address) % to != 0)
		emu_fail(site, "misaligned", "%s at %p, which is not aligned to %zu bytes", what, address, to);
}

void expect_shared(const void *address, size_t bytes, const char *what, emu_site site)
{
	const emu_block *block = emu_block_now;
	const unsigned char *at = static_cast<const unsigned char *>(address);
	if (at < block->shared || at + bytes > block->shared + block->shared_bytes)
		emu_fail(site, "outside of shared memory", "%s at offset %td of %zu bytes", what, at - block->shared,
			block->shared_bytes);
}

struct ldmatrix {
	uint32_t *registers;
	const unsigned char *row; /* of matrix lane / 8, row lane % 8: 8 elements of 2 bytes */
	uint32_t matrices;
};

void finish_ldmatrix(void *const arguments[EMU_LANES], uint32_t)
{
	for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
		const ldmatrix *l = static_cast<ldmatrix *>(arguments[lane]);
		for (uint32_t m = 0; m < l->matrices; m++)
			memcpy(&l->registers[m],
				static_cast<ldmatrix *>(arguments[m * 8 + lane / 4])->row + lane % 4 * 4, 4);
	}
}

struct mma {
	void *c; /* [4] of the type that sums have */
	const uint32_t *a, *b;
};

int8_t byte_of(uint32_t word, uint32_t i) { return static_cast<int8_t>(word >> (8 * i)); }

void finish_mma_s8(void *const arguments[EMU_LANES], uint32_t)
{
	int16_t a[M][K], b[N][K];
	for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
		const mma *m = static_cast<mma *>(arguments[lane]);
		const uint32_t g = lane / 4, t = lane % 4;
		for (uint32_t i = 0; i < 4; i++)
			for (uint32_t q = 0; q < 4; q++)
				a[g + i % 2 * 8][i / 2 * 16 + 4 * t + q] = byte_of(m->a[i], q);
		for (uint32_t i = 0; i < 2; i++)
			for (uint32_t q = 0; q < 4; q++)
				b[g][i * 16 + 4 * t + q] = byte_of(m->b[i], q);
	}

	for (uint32_t lane = 0; lane < EMU_LANES; lane++)
		for (uint32_t i = 0; i < 4; i++) {
			const int16_t *row = a[lane / 4 + i / 2 * 8], *column = b[lane % 4 * 2 + i % 2];
			int32_t dot = 0;
			for (int k = 0; k < K; k++)
				dot += row[k] * column[k];
			static_cast<int32_t *>(static_cast<mma *>(arguments[lane])->c)[i] += dot;
		}
}

/* A device whose tensor cores sum in another order: none is known that goes from the last to the first. */
float from_the_last(float sum, const uint16_t *a, const uint16_t *b)
{
	for (int k = KN_SM90_BLOCK; k-- > 0;) {
		const uint16_t one_a[KN_SM90_BLOCK] = { a[k] }, one_b[KN_SM90_BLOCK] = { b[k] };
		sum = kn_sm90_add(sum, one_a, one_b);
	}
	return sum;
}

/* One whose sums are coarse: not even integers of 8 bits are summed exactly. */
float in_16_bits(float sum, const uint16_t *a, const uint16_t *b)
{
	sum = kn_sm90_add(sum, a, b);
	uint32_t bits;
	memcpy(&bits, &sum, sizeof bits);
	bits &= 0xffffff00;
	memcpy(&sum, &bits, sizeof sum);
	return sum;
}

typedef float sum_fn(float sum, const uint16_t *a, const uint16_t *b);
sum_fn *sum_of_device()
{
	sum_fn *const others[] = { kn_sm90_add, from_the_last, in_16_bits };
	return others[emu_environment("CADRE_EMU_OTHER_SUMS", 0) % 3];
}

void finish_mma_bf16(void *const arguments[EMU_LANES], uint32_t)
{
	static sum_fn *const sum = sum_of_device();
	uint16_t a[M][KN_SM90_BLOCK], b[N][KN_SM90_BLOCK];
	for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
		const mma *m = static_cast<mma *>(arguments[lane]);
		const uint32_t g = lane / 4, t = lane % 4;
		for (uint32_t i = 0; i < 4; i++)
			memcpy(&a[g + i % 2 * 8][i / 2 * 8 + 2 * t], &m->a[i], sizeof m->a[i]);
		for (uint32_t i = 0; i < 2; i++)
			memcpy(&b[g][i * 8 + 2 * t], &m->b[i], sizeof m->b[i]);
	}

	for (uint32_t lane = 0; lane < EMU_LANES; lane++)
		for (uint32_t i = 0; i < 4; i++) {
			float *c = static_cast<float *>(static_cast<mma *>(arguments[lane])->c) + i;
			*c = sum(*c, a[lane / 4 + i / 2 * 8], b[lane % 4 * 2 + i % 2]);
		}
}

}   // namespace

void emu_cp_async(void *to, const void *from, uint32_t bytes, uint32_t from_bytes, emu_site site)
{
	expect_shared(to, bytes, "destination of cp.async", site);
	expect_aligned(to, bytes, "destination of cp.async", site);
	if (from_bytes > 0)
		expect_aligned(from, bytes, "source of cp.async", site);
	if (from_bytes > bytes)
		emu_fail(site, "cp.async", "%u bytes of %u", from_bytes, bytes);

	if (from_bytes > 0)
		emu_check_access(from, from_bytes, EMU_READ, false, site);
	emu_check_copy_issued(to, bytes, false, site);
	memset(to, EMU_POISON, bytes);
	emu_thread_now->copies.push_back({ static_cast<unsigned char *>(to), static_cast<const unsigned char *>(from),
		bytes, from_bytes, emu_thread_now->copy_group });
}

void emu_cp_async_commit() { emu_thread_now->copy_group++; }

void emu_cp_async_wait(uint32_t in_flight_max)
{
	emu_thread *thread = emu_thread_now;
	size_t kept = 0;
	for (const emu_copy &copy : thread->copies) {
		if (copy.group + in_flight_max >= thread->copy_group) {
			thread->copies[kept++] = copy;
			continue;
		}
		if (copy.from_bytes > 0)
			memcpy(copy.to, copy.from, copy.from_bytes);
		memset(copy.to + copy.from_bytes, 0, copy.bytes - copy.from_bytes);
		emu_check_copy_landed(copy.to, copy.bytes, nullptr);
	}
	thread->copies.resize(kept);
}

/* Of the lanes past the matrices' rows, addresses are not looked at. */
void emu_ldmatrix(uint32_t *registers, uint32_t matrices, const void *row, emu_site site)
{
	if (emu_thread_now->lane < matrices * 8) {
		expect_aligned(row, 16, "ldmatrix", site);
		expect_shared(row, 16, "ldmatrix", site);
		emu_check_access(row, 16, EMU_READ, false, site);
	}
	ldmatrix l = { registers, static_cast<const unsigned char *>(row), matrices };
	emu_collective(EMU_LDMATRIX, ~0u, &l, finish_ldmatrix, false, site);
}

void emu_mma_s8(int32_t *c, const uint32_t *a, const uint32_t *b, emu_site site)
{
	mma m = { c, a, b };
	emu_collective(EMU_MMA_S8, ~0u, &m, finish_mma_s8, false, site);
}

void emu_mma_bf16(float *c, const uint32_t *a, const uint32_t *b, emu_site site)
{
	mma m = { c, a, b };
	emu_collective(EMU_MMA_BF16, ~0u, &m, finish_mma_bf16, false, site);
}
