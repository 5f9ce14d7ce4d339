/* SPDX-License-Identifier: Apache-2.0 */
/* The late device's state and its memory: late_device.h says what it is for. */
#ifndef CADRE_TESTS_SUPPORT_LATE_MEMORY_H
#define CADRE_TESTS_SUPPORT_LATE_MEMORY_H

#include "kernels/kernels.h"

#include <pthread.h>
#include <stdatomic.h>

/*
 * Two ranges of addresses of one size. What users hold lies in `shown`, which nobody may touch;
 * `real` has the memory, at the same offset. Addresses are not used twice, and a page that nobody
 * may touch lies between two allocations, in `real` too.
 */
struct host_block {
	struct host_block *next;
	uint8_t *at;
	size_t bytes;
};

struct late_device {
	struct kn_device base;
	struct kn_ops ops;
	struct kn_device *inner;
	uint8_t *shown, *real;
	pthread_mutex_t lock; /* of what follows */
	size_t used;
	struct host_block *host_blocks;
	_Atomic int64_t live; /* allocations of device memory */
	_Atomic int64_t waits_left;
	_Atomic uint64_t copies_in, copies_out, operators, waits;
};

/* Ends the process, with a line about the operation. */
_Noreturn void late_breach(const char *operation, const char *what);

struct late_device *late_of(const struct kn_device *device);
bool late_is_shown(const struct late_device *d, const void *memory);
/* The memory behind an address that a caller gave; NULL for NULL. */
void *late_real_of(const struct late_device *d, const char *operation, const void *memory);
/* Whether it came from host_alloc. */
bool late_is_host_block(struct late_device *d, const void *memory);

/* False: no addresses. */
bool late_memory_init(struct late_device *d);
/* Everything was released. */
void late_memory_fini(struct late_device *d);

/* Of struct kn_ops. */
void *late_alloc(struct kn_device *device, size_t bytes);
void late_release(struct kn_device *device, void *memory, size_t bytes);
void *late_host_alloc(struct kn_device *device, size_t bytes);
void late_host_release(struct kn_device *device, void *memory, size_t bytes);

#endif
