/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device memory of the CPU: zeroed, and in huge pages, because a weight stream is TLB-bound without
 * (a fifth of the bandwidth). Blocks of medium size lie side by side in extents, so that experts
 * whose matrices are no multiple of a huge page do not each waste half of one; larger blocks have
 * mappings of their own, smaller ones come from the heap.
 *
 * Any thread; a lock is held for microseconds, and while a block that goes is cleared.
 */
#ifndef CADRE_KERNELS_CPU_MEMORY_H
#define CADRE_KERNELS_CPU_MEMORY_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct kn_memory {
	pthread_mutex_t lock;
	struct kn_extent *extents;
};
void kn_memory_init(struct kn_memory *memory);
/* Every block is gone. */
void kn_memory_fini(struct kn_memory *memory);

/* 64-byte aligned and zeroed; NULL: there is no room. */
void *kn_memory_alloc(struct kn_memory *memory, size_t bytes);
/* block NULL is allowed; else with the bytes that it was allocated with. */
void kn_memory_free(struct kn_memory *memory, void *block, size_t bytes);

/* What a block of this many bytes takes. */
uint64_t kn_cpu_allocated(size_t bytes);

#endif
