/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fibers: stacks that one CPU thread changes between. A stack that overflows meets a page that
 * nobody can read. One CPU thread at a time.
 */
#ifndef CADRE_KERNELS_CUDA_EMU_FIBER_H
#define CADRE_KERNELS_CUDA_EMU_FIBER_H

#include <stddef.h>

struct emu_fiber {
	void *stack_pointer; /* while it does not run */
	unsigned char *stack, *stack_end;
};

/* Maps stacks for `count` fibers; exits when there is no memory. */
void emu_fibers_map(emu_fiber *const *fibers, size_t count);
/* The next switch to it calls `entry`, which must not return. */
void emu_fiber_prepare(emu_fiber *fiber, void (*entry)());
/* Leaves whoever runs, whose stack pointer goes to *from, for whoever has left at `to`. */
extern "C" void emu_fiber_switch(void **from, void *to);

#endif
