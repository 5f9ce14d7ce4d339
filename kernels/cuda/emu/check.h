/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checking build (EMU_CHECK): device code is compiled with -fsanitize=thread and linked without
 * that sanitizer's library; check_hooks.cc answers the calls that the compiler puts before each
 * access. Rules for each byte:
 *   shared memory   read after a write of this block, and not while a cp.async is under way; two
 *                   accesses by different threads, one of them a write, have a barrier between
 *                   them or, inside a warp, a __syncwarp: whatever the order in which the fibers
 *                   happened to run
 *   device memory   inside an allocation; read after it was written; not written by one block and
 *                   touched by another one of the same launch
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

struct emu_marks;

#ifdef EMU_CHECK
emu_marks *emu_marks_create(size_t bytes);
void emu_marks_destroy(emu_marks *marks);

/* Accesses of the thread that runs. */
enum emu_access { EMU_READ, EMU_WRITE };
void emu_check_access(const void *address, size_t bytes, emu_access access, bool aligned, emu_site site);
/* Of cp.async: from now on, and until now, the destination is under way. */
void emu_check_copy_issued(const void *to, size_t bytes, emu_site site);
void emu_check_copy_landed(const void *to, size_t bytes);
/* By a copy or a fill of the runtime. */
void emu_check_host_write(const void *address, size_t bytes);
/* Where kernels find their arguments. */
void emu_check_arguments(const void *arguments, size_t bytes);
#else
enum emu_access { EMU_READ, EMU_WRITE };
inline emu_marks *emu_marks_create(size_t) { return nullptr; }
inline void emu_marks_destroy(emu_marks *) {}
inline void emu_check_access(const void *, size_t, emu_access, bool, emu_site) {}
inline void emu_check_copy_issued(const void *, size_t, emu_site) {}
inline void emu_check_copy_landed(const void *, size_t) {}
inline void emu_check_host_write(const void *, size_t) {}
inline void emu_check_arguments(const void *, size_t) {}
#endif

#endif
