/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions of sm_90a that CUDA C++ has no name for: mbarriers, bulk copies, wgmma. emu/ptx90.h
 * has their twins. Kernels that use them stand in files *_sm90.cu, which nvcc compiles for sm_90a
 * alone.
 */
#ifndef CADRE_KERNELS_CUDA_PTX90_H
#define CADRE_KERNELS_CUDA_PTX90_H

#include "kernels/cuda/ptx.h"

/* ---- mbarriers ---- */

/* A barrier in shared memory whose phases follow each other: one is complete when so many threads
 * have arrived and all bytes that were announced have landed. The thread that makes it fences, and
 * the others meet it after a __syncthreads. */
KN_PTX void ptx_mbarrier_init(uint64_t *barrier, uint32_t arrivals)
{
	asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(ptx_shared_address(barrier)), "r"(arrivals)
		     : "memory");
}
KN_PTX void ptx_mbarrier_fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
KN_PTX void ptx_mbarrier_arrive(uint64_t *barrier)
{
	asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(ptx_shared_address(barrier)) : "memory");
}
/* And announces bytes. */
KN_PTX void ptx_mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes)
{
	asm volatile(
		"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(ptx_shared_address(barrier)), "r"(bytes)
		: "memory");
}
/* Until the phase of this parity is complete: 0 for the first, 1 for the second. The one before the
 * first counts as complete. */
KN_PTX void ptx_mbarrier_wait(uint64_t *barrier, uint32_t parity)
{
	asm volatile(
		"{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra again;\n}" ::
			"r"(ptx_shared_address(barrier)),
		"r"(parity)
		: "memory");
}

/* ---- bulk copies ---- */

/* By the copy engine, from global to shared memory, counted by a barrier. Addresses and bytes are
 * multiples of 16. */
KN_PTX void ptx_bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *barrier)
{
	asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
			     ptx_shared_address(to)),
		     "l"(from), "r"(bytes), "r"(ptx_shared_address(barrier))
		     : "memory");
}
/* What this thread wrote to shared memory may be read by wgmma, after a barrier. */
KN_PTX void ptx_fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* ---- threads ---- */

/* A __syncthreads of so many threads, whole warps, at barrier 1 to 15. */
KN_PTX void ptx_named_sync(uint32_t number, uint32_t threads)
{
	asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}
/* All threads of a warpgroup may have so many registers from now on. */
template <int N> KN_PTX void ptx_registers_up() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> KN_PTX void ptx_registers_down() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }

/* ---- wgmma ---- */

/* An operand in shared memory: rows of 128 bytes along k, in which the chunk c of 16 bytes of row r
 * lies at c ^ (r % 8); aligned to 1024 bytes. 32 values of k further on: 2 more. */
KN_PTX uint64_t ptx_wgmma_operand(const void *shared)
{
	return (ptx_shared_address(shared) >> 4 & 0x3fff) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
/* Before the first operation, and after other uses of the registers. */
KN_PTX void ptx_wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/* Ends a group of operations. */
KN_PTX void ptx_wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Until at most N groups are under way: then operands have been read, and registers hold results. */
template <int N> KN_PTX void ptx_wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

/* d[64][N] = a[64][32] b[N][32]^T, exact, plus d where `add`: by a warpgroup, whose warp w has rows
 * 16 w .. 16 w + 15. d[4 j + i] of lane l is row l / 4 + 8 (i / 2), column 8 j + 2 (l % 4) + i % 2.
 * Inline assembly has every register spelled out. */
template <int N> struct ptx_wgmma;
#define KN_WGMMA(n, registers, a_at, b_at, add_at, ...) \
	template <> struct ptx_wgmma<n> { \
		static __device__ __forceinline__ void run(int32_t (&d)[n / 2], uint64_t a, uint64_t b, bool add) \
		{ \
			asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add_at \
				     ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k32.s32.s8.s8 {" registers \
				     "}, " a_at ", " b_at ", p;\n}" \
				     : __VA_ARGS__ \
				     : "l"(a), "l"(b), "r"(static_cast<int32_t>(add)) \
				     : "memory"); \
		} \
	};
#define KN_D4(i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define KN_D8(i) KN_D4(i), KN_D4(i + 4)
#define KN_D16(i) KN_D8(i), KN_D8(i + 8)
#define KN_D32(i) KN_D16(i), KN_D16(i + 16)
#define KN_R16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define KN_R32 KN_R16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define KN_R40 KN_R32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define KN_R48 KN_R40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define KN_R64 KN_R48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
KN_WGMMA(8, "%0,%1,%2,%3", "%4", "%5", "%6", KN_D4(0))
KN_WGMMA(16, "%0,%1,%2,%3,%4,%5,%6,%7", "%8", "%9", "%10", KN_D8(0))
KN_WGMMA(32, KN_R16, "%16", "%17", "%18", KN_D16(0))
KN_WGMMA(64, KN_R32, "%32", "%33", "%34", KN_D32(0))
KN_WGMMA(80, KN_R40, "%40", "%41", "%42", KN_D32(0), KN_D8(32))
KN_WGMMA(96, KN_R48, "%48", "%49", "%50", KN_D32(0), KN_D16(32))
KN_WGMMA(128, KN_R64, "%64", "%65", "%66", KN_D32(0), KN_D32(32))

template <int N> KN_PTX void ptx_wgmma_s8(int32_t (&d)[N / 2], uint64_t a, uint64_t b, bool add)
{
	ptx_wgmma<N>::run(d, a, b, add);
}

#endif
