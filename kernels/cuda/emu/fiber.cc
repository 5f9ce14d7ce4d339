/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/emu/fiber.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { STACK_BYTES = 64 * 1024, PAGE_BYTES = 4096, REGISTERS = 6 };

/* Saves the registers that a call preserves, and the stack pointer, of one side; loads the other's.
 */
#if !defined(__x86_64__)
#error "the emulation knows how x86-64 changes stacks only"
#endif
asm(R"(.text
.globl emu_fiber_switch
.hidden emu_fiber_switch
.type emu_fiber_switch,@function
emu_fiber_switch:
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, (%rdi)
	movq %rsi, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	ret
.size emu_fiber_switch, .-emu_fiber_switch
)");

void emu_fibers_map(emu_fiber *const *fibers, size_t count)
{
	const size_t each = STACK_BYTES + PAGE_BYTES;
	void *mapped = mmap(nullptr, each * count, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (mapped == MAP_FAILED) {
		perror("emu: stacks of threads");
		exit(1);
	}

	for (size_t i = 0; i < count; i++) {
		unsigned char *guard = static_cast<unsigned char *>(mapped) + i * each;
		mprotect(guard, PAGE_BYTES, PROT_NONE);
		fibers[i]->stack = guard + PAGE_BYTES;
		fibers[i]->stack_end = guard + each;
	}
}

void emu_fiber_prepare(emu_fiber *fiber, void (*entry)())
{
	void **at = reinterpret_cast<void **>(fiber->stack_end);
	*--at = nullptr; /* so that the stack is aligned at entry as it is after a call */
	*--at = reinterpret_cast<void *>(entry);
	for (int i = 0; i < REGISTERS; i++)
		*--at = nullptr;
	fiber->stack_pointer = at;
}
