/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The twins of kernels/cuda/ptx90.h, as hostile as the manual allows:
 *
 *   mbarriers     their words in shared memory are not used: a kernel has nothing to look for there
 *   bulk copies   the destination is poison from the issue on. They land one by one, in any order,
 *                 when no thread can go on without them (block.h); by lot, some before
 *   wgmma         accumulators are poison from the issue to the wait, which is where operands are
 *                 read: warp by warp, as each holds 16 of the 64 rows and does not wait for others
 *
 * Without a fence, a commit or a wait that the manual asks for, the kernel ends with a report or
 * has poison for a result.
 */
#ifndef CADRE_KERNELS_CUDA_EMU_PTX90_H
#define CADRE_KERNELS_CUDA_EMU_PTX90_H

#include "kernels/cuda/emu/block.h"

#include <stdint.h>

void emu_mbarrier_init(uint64_t *barrier, uint32_t arrivals, emu_site site);
void emu_mbarrier_fence_init();
void emu_mbarrier_arrive(uint64_t *barrier, uint32_t bytes, emu_site site);
void emu_mbarrier_wait(uint64_t *barrier, uint32_t parity, emu_site site);
void emu_bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *barrier, emu_site site);
void emu_fence_async();

uint64_t emu_wgmma_operand(const void *shared, emu_site site);
void emu_wgmma_fence();
void emu_wgmma_s8(uint32_t n, int32_t *d, uint64_t a, uint64_t b, bool add, emu_site site);
void emu_wgmma_commit();
void emu_wgmma_wait(uint32_t in_flight_max, emu_site site);

/* What the block's threads are run by. False: no copy is under way. */
bool emu_bulk_land();
void emu_async_block_begin();
void emu_async_block_end();
void emu_wgmma_thread_end();

inline void ptx_mbarrier_init(uint64_t *barrier, uint32_t arrivals, EMU_HERE_ARGS)
{
	emu_mbarrier_init(barrier, arrivals, EMU_HERE);
}
inline void ptx_mbarrier_fence_init() { emu_mbarrier_fence_init(); }
inline void ptx_mbarrier_arrive(uint64_t *barrier, EMU_HERE_ARGS) { emu_mbarrier_arrive(barrier, 0, EMU_HERE); }
inline void ptx_mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes, EMU_HERE_ARGS)
{
	emu_mbarrier_arrive(barrier, bytes, EMU_HERE);
}
inline void ptx_mbarrier_wait(uint64_t *barrier, uint32_t parity, EMU_HERE_ARGS)
{
	emu_mbarrier_wait(barrier, parity, EMU_HERE);
}

inline void ptx_bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *barrier, EMU_HERE_ARGS)
{
	emu_bulk_copy(to, from, bytes, barrier, EMU_HERE);
}
inline void ptx_fence_async() { emu_fence_async(); }

inline void ptx_named_sync(uint32_t number, uint32_t threads, EMU_HERE_ARGS)
{
	emu_barrier_named(number, threads, EMU_HERE);
}
template <int N> inline void ptx_registers_up() { static_assert(N % 8 == 0 && N >= 24 && N <= 256, "setmaxnreg"); }
template <int N> inline void ptx_registers_down() { static_assert(N % 8 == 0 && N >= 24 && N <= 256, "setmaxnreg"); }

inline uint64_t ptx_wgmma_operand(const void *shared, EMU_HERE_ARGS) { return emu_wgmma_operand(shared, EMU_HERE); }
inline void ptx_wgmma_fence() { emu_wgmma_fence(); }
inline void ptx_wgmma_commit() { emu_wgmma_commit(); }
template <int N> inline void ptx_wgmma_wait(EMU_HERE_ARGS) { emu_wgmma_wait(N, EMU_HERE); }
template <int N> inline void ptx_wgmma_s8(int32_t (&d)[N / 2], uint64_t a, uint64_t b, bool add, EMU_HERE_ARGS)
{
	emu_wgmma_s8(N, d, a, b, add, EMU_HERE);
}

#endif
