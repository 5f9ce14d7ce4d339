/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulation's memory: of the device, of the host for copies (pinned, which kernels may use
 * too), and shared memory. New memory holds poison: bytes of 0xff, a NaN as f32 and -1 as an
 * integer. Every allocation is followed by a page that nobody can read, and addresses that were
 * released are never used again: who goes there is told what he met.
 *
 * Everything here is under the runtime's lock (runtime.cc).
 */
#ifndef CADRE_KERNELS_CUDA_EMU_MEMORY_H
#define CADRE_KERNELS_CUDA_EMU_MEMORY_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

enum { EMU_POISON = 0xff };
enum emu_memory_kind { EMU_DEVICE_MEMORY, EMU_HOST_MEMORY };

struct emu_marks; /* what the checking build knows of each byte (check.h) */

struct emu_range {
	unsigned char *begin, *end;
	emu_memory_kind kind;
	size_t number; /* the how-manieth allocation */
	bool released;
	emu_marks *marks; /* NULL: in the fast build */
};

/* Aligned to 256 bytes; NULL: no memory. */
void *emu_memory_alloc(emu_memory_kind kind, size_t bytes);
/* False: there is no such allocation. */
bool emu_memory_release(emu_memory_kind kind, void *memory);
/* The allocation that an address is in; NULL: in none that lives. */
const emu_range *emu_memory_find(const void *address);
/* The one that it is in or just beside, released ones too. */
const emu_range *emu_memory_near(const void *address);
/* Of the device, in use. */
size_t emu_memory_used();

/* The shared memory of the next block: poisoned, aligned to 128 bytes. */
unsigned char *emu_shared_prepare(size_t bytes);

/* While it lives, a kernel runs, and faults are the kernel's: they are reported. */
struct emu_faults {
	emu_faults();
	~emu_faults();
	struct sigaction before[2];
};

#endif
