/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What gcc and clang call before each access in code that is compiled with -fsanitize=thread. The
 * names are their interface; the Linux kernel's KCSAN is built on the same ones. This file itself
 * is compiled without it.
 *
 * The unaligned ones are of types that promise less alignment than they have bytes.
 */
#include "kernels/cuda/emu/check.h"

#include <string.h>

#define BEFORE \
	(emu_site{ nullptr, 0, \
		static_cast<const char *>(__builtin_extract_return_addr(__builtin_return_address(0))) - 1 })
#define HOOK(name, bytes, access, aligned) \
	void __tsan_##name##bytes(void *at); \
	void __tsan_##name##bytes(void *at) { emu_check_access(at, bytes, access, aligned, BEFORE); }
#define HOOKS(bytes) \
	HOOK(read, bytes, EMU_READ, true) \
	HOOK(write, bytes, EMU_WRITE, true) \
	HOOK(volatile_read, bytes, EMU_READ, true) \
	HOOK(volatile_write, bytes, EMU_WRITE, true) \
	HOOK(unaligned_read, bytes, EMU_READ, false) \
	HOOK(unaligned_write, bytes, EMU_WRITE, false)

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

void __tsan_read_range(void *at, size_t bytes);
void __tsan_read_range(void *at, size_t bytes) { emu_check_access(at, bytes, EMU_READ, false, BEFORE); }
void __tsan_write_range(void *at, size_t bytes);
void __tsan_write_range(void *at, size_t bytes) { emu_check_access(at, bytes, EMU_WRITE, false, BEFORE); }

void *__tsan_memcpy(void *to, const void *from, size_t bytes);
void *__tsan_memcpy(void *to, const void *from, size_t bytes)
{
	emu_check_access(from, bytes, EMU_READ, false, BEFORE);
	emu_check_access(to, bytes, EMU_WRITE, false, BEFORE);
	return memcpy(to, from, bytes);
}
void *__tsan_memset(void *at, int value, size_t bytes);
void *__tsan_memset(void *at, int value, size_t bytes)
{
	emu_check_access(at, bytes, EMU_WRITE, false, BEFORE);
	return memset(at, value, bytes);
}

void __tsan_func_entry(void *);
void __tsan_func_entry(void *) {}
void __tsan_func_exit();
void __tsan_func_exit() {}
void __tsan_init();
void __tsan_init() {}
}
