/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every instruction that CUDA C++ has no name for and that exists from sm_80 on, and nothing else;
 * ptx90.h has those of sm_90a. emu/ptx.h has their twins, with the same names and meanings, and
 * draws the fragments.
 */
#ifndef CADRE_KERNELS_CUDA_PTX_H
#define CADRE_KERNELS_CUDA_PTX_H

#include <stdint.h>

#define KN_PTX static __device__ __forceinline__

KN_PTX uint32_t ptx_shared_address(const void *address)
{
	return static_cast<uint32_t>(__cvta_generic_to_shared(address));
}

/* Copies 16 or 4 bytes from global to shared memory without a register: the first from_bytes of
 * them, zeros after. Both are aligned to the size. It lands by the wait that covers it. */
KN_PTX void ptx_cp_async_16(void *to, const void *from, uint32_t from_bytes)
{
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ptx_shared_address(to)), "l"(from),
		     "r"(from_bytes)
		     : "memory");
}
KN_PTX void ptx_cp_async_4(void *to, const void *from, uint32_t from_bytes)
{
	asm volatile(
		"cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(ptx_shared_address(to)), "l"(from), "r"(from_bytes)
		: "memory");
}
KN_PTX void ptx_cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Returns when at most N of this thread's groups are under way. Those of other threads need a
 * barrier too. */
template <int N> KN_PTX void ptx_cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* Matrices of 8 x 8 elements of 2 bytes (here: 8 rows of 16 bytes); lane l gives the address of row
 * l % 8 of matrix l / 8. */
KN_PTX void ptx_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
		     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
		     : "r"(ptx_shared_address(row))
		     : "memory");
}
KN_PTX void ptx_ldmatrix_x2(uint32_t (&r)[2], const void *row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
		     : "=r"(r[0]), "=r"(r[1])
		     : "r"(ptx_shared_address(row))
		     : "memory");
}

/* c[16][8] += a[16][32] b[32][8], exact. */
KN_PTX void ptx_mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
	asm volatile(
		"mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
		: "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Exact. */
KN_PTX float ptx_f32_of_f16(uint16_t bits)
{
	float value;
	asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
	return value;
}

/* c[16][8] += a[16][16] b[16][8] of bf16, summed as the device sums: profile bf16-sm90 on Hopper. */
KN_PTX void ptx_mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
	asm volatile(
		"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
		: "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
