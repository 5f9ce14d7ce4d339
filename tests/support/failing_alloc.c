/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/failing_alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

enum { NEVER = -1 };
static _Thread_local long countdown = NEVER;
static _Thread_local bool fired, pausing;
static _Thread_local unsigned long heap_calls;
static atomic_long live;
static atomic_size_t asked;

void test_fail_allocation(long n)
{
	fired = false;
	countdown = n;
}

bool test_fail_allocation_end(void)
{
	countdown = NEVER;
	return fired;
}

void test_fail_allocation_pause(bool paused) { pausing = paused; }

long test_allocations_live(void) { return atomic_load(&live); }

unsigned long test_heap_calls(void) { return heap_calls; }

size_t test_allocated_bytes(void) { return atomic_load(&asked); }

#ifdef SANITIZED

bool test_allocations_can_fail(void) { return false; }

#else

bool test_allocations_can_fail(void) { return true; }

/* glibc's allocator under the names that it keeps for those who replace it. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *block, size_t size);
void *aligned_alloc(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size);
int posix_memalign(void **block, size_t alignment, size_t size);
void free(void *block);

static bool fails_now(size_t bytes)
{
	atomic_fetch_add(&asked, bytes);
	heap_calls++;
	if (pausing || countdown == NEVER || countdown-- > 0)
		return false;
	fired = true;
	errno = ENOMEM;
	return true;
}

static void *counted(void *block)
{
	if (block)
		atomic_fetch_add(&live, 1);
	return block;
}

void *malloc(size_t size) { return fails_now(size) ? NULL : counted(__libc_malloc(size)); }

void *calloc(size_t count, size_t size) { return fails_now(count * size) ? NULL : counted(__libc_calloc(count, size)); }

void *realloc(void *block, size_t size)
{
	if (fails_now(size))
		return NULL;
	void *moved = __libc_realloc(block, size);
	if (!block)
		return counted(moved);
	if (size == 0 && !moved)
		atomic_fetch_sub(&live, 1); /* glibc: freed */
	return moved;
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return fails_now(size) ? NULL : counted(__libc_memalign(alignment, size));
}

void *memalign(size_t alignment, size_t size) { return aligned_alloc(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size)
{
	void *made = aligned_alloc(alignment, size);
	if (!made)
		return ENOMEM;
	*block = made;
	return 0;
}

void free(void *block)
{
	heap_calls += block != NULL;
	if (block)
		atomic_fetch_sub(&live, 1);
	__libc_free(block);
}

#endif
