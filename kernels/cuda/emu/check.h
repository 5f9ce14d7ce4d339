/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checking build (EMU_CHECK): device code is compiled with -fsanitize=thread and linked without
 * that sanitizer's library; check_hooks.cc answers the calls that the compiler puts before each
 * access. Rules for each byte:
 *   shared memory   read after a write of this block, and not while a copy is under way; two
 *                   accesses by different threads, one of them a write, have something between
 *                   them that orders them: __syncthreads, inside a warp __syncwarp, a named
 *                   barrier, an mbarrier on which one arrived and for which the other waited;
 *                   whatever the order in which the fibers happened to run. What a bulk copy wrote
 *                   is read after a wait for the phase that counts it. What wgmma reads, it reads
 *                   until the wait for it, and threads that wrote it have fenced since
 *   device memory   inside an allocation; read after it was written; not written by one block and
 *                   touched by another one of the same launch, unless all that is atomic
 *   pinned memory   the same, but the host may have written it
 *   anything else   the thread's stack, the kernel's arguments, constants of the program: other
 *                   memory of the host is refused
 *   alignment       an access of 2, 4, 8 or 16 bytes is aligned to them
 *
 * In the fast build all of it is empty.
 */
#ifndef CADRE_KERNELS_CUDA_EMU_CHECK_H
#define CADRE_KERNELS_CUDA_EMU_CHECK_H

#include "kernels/cuda/emu/report.h"

#include <stddef.h>
#include <stdint.h>

struct emu_marks;

#ifdef EMU_CHECK
emu_marks *emu_marks_create(size_t bytes);
void emu_marks_destroy(emu_marks *marks);

/* Accesses of the thread that runs. */
enum emu_access { EMU_READ, EMU_WRITE, EMU_ATOMIC };
void emu_check_access(const void *address, size_t bytes, emu_access access, bool aligned, emu_site site);
/* By wgmma of the warp that runs. */
void emu_check_async_read(const void *address, size_t bytes, emu_site site);
/* Of cp.async, and of bulk copies: from now on, and until now, the destination is under way.
 * `mbarrier` counts a bulk copy; NULL: it is a cp.async of the thread that runs. */
void emu_check_copy_issued(const void *to, size_t bytes, bool bulk, emu_site site);
void emu_check_copy_landed(const void *to, size_t bytes, const void *mbarrier);
/* The thread that runs has fenced what it wrote, for wgmma to read. */
void emu_check_fence_async();
/* By a copy or a fill of the runtime. */
void emu_check_host_write(const void *address, size_t bytes);
/* Where kernels find their arguments. */
void emu_check_arguments(const void *arguments, size_t bytes);

/* ---- what is before what (check_order.cc) ---- */

void emu_check_block_begin();
/* All threads have come to a __syncthreads; these lanes to a __syncwarp. */
void emu_check_barrier();
void emu_check_warp_sync(uint32_t warp, uint32_t mask);
/* The thread that runs arrives somewhere; all that had to have done so; it has waited for that. */
void emu_check_release(const void *where);
void emu_check_complete(const void *where);
void emu_check_acquire(const void *where);
/* A thread's clock now; the value of a clock that the thread that runs knows of. */
uint32_t emu_check_clock(uint32_t thread);
uint32_t emu_check_known(uint32_t clock);
/* Of what lands at an mbarrier now: which clock, and its value. */
uint32_t emu_check_landing_clock(const void *mbarrier);
uint32_t emu_check_landing(const void *mbarrier);
#else
enum emu_access { EMU_READ, EMU_WRITE, EMU_ATOMIC };
inline emu_marks *emu_marks_create(size_t) { return nullptr; }
inline void emu_marks_destroy(emu_marks *) {}
inline void emu_check_access(const void *, size_t, emu_access, bool, emu_site) {}
inline void emu_check_async_read(const void *, size_t, emu_site) {}
inline void emu_check_copy_issued(const void *, size_t, bool, emu_site) {}
inline void emu_check_copy_landed(const void *, size_t, const void *) {}
inline void emu_check_fence_async() {}
inline void emu_check_host_write(const void *, size_t) {}
inline void emu_check_arguments(const void *, size_t) {}
inline void emu_check_block_begin() {}
inline void emu_check_barrier() {}
inline void emu_check_warp_sync(uint32_t, uint32_t) {}
inline void emu_check_release(const void *) {}
inline void emu_check_complete(const void *) {}
inline void emu_check_acquire(const void *) {}
#endif

#endif
