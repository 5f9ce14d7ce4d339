/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/late_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE_BYTES = 4096, ALIGNMENT = 64 };
static const size_t RANGE_BYTES = (size_t)1 << 36;

struct late_device *late_of(const struct kn_device *device) { return (struct late_device *)(uintptr_t)device; }

void late_breach(const char *operation, const char *what)
{
	fprintf(stderr, "late device: %s: %s\n", operation, what);
	abort();
}

bool late_is_shown(const struct late_device *d, const void *memory)
{
	const uint8_t *p = memory;
	return p >= d->shown && p < d->shown + RANGE_BYTES;
}

void *late_real_of(const struct late_device *d, const char *operation, const void *memory)
{
	if (!memory)
		return NULL;
	if (!late_is_shown(d, memory))
		late_breach(operation, "host memory stands where device memory is due");
	return d->real + ((const uint8_t *)memory - d->shown);
}

static uint8_t *reserve(void)
{
	void *p = mmap(NULL, RANGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

/* The block ends at a page, so that whoever runs over the end is seen. */
void *late_alloc(struct kn_device *device, size_t bytes)
{
	struct late_device *d = late_of(device);
	size_t length = kn_round_up(bytes > 0 ? bytes : 1, ALIGNMENT), pages = kn_round_up(length, PAGE_BYTES);
	void *shown = NULL;

	pthread_mutex_lock(&d->lock);
	if (length >= bytes && pages < RANGE_BYTES && pages + PAGE_BYTES <= RANGE_BYTES - d->used &&
		mprotect(d->real + d->used, pages, PROT_READ | PROT_WRITE) == 0) {
		shown = d->shown + d->used + pages - length;
		d->used += pages + PAGE_BYTES;
		atomic_fetch_add(&d->live, 1);
	}
	pthread_mutex_unlock(&d->lock);

	return shown;
}

void late_release(struct kn_device *device, void *memory, size_t bytes)
{
	struct late_device *d = late_of(device);
	if (!memory)
		return;

	size_t length = kn_round_up(bytes > 0 ? bytes : 1, ALIGNMENT), pages = kn_round_up(length, PAGE_BYTES);
	uint8_t *real = late_real_of(d, "release", memory);
	real -= pages - length;
	if (((uintptr_t)real & (PAGE_BYTES - 1)) != 0)
		late_breach("release", "it has another size than was allocated");
	if (mmap(real, pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		late_breach("release", "the memory cannot be given back");
	atomic_fetch_sub(&d->live, 1);
}

void *late_host_alloc(struct kn_device *device, size_t bytes)
{
	struct late_device *d = late_of(device);
	struct host_block *block = malloc(sizeof *block);
	uint8_t *at = block ? d->inner->ops->host_alloc(d->inner, bytes) : NULL;

	if (!at) {
		free(block);
		return NULL;
	}
	pthread_mutex_lock(&d->lock);
	*block = (struct host_block){ d->host_blocks, at, bytes };
	d->host_blocks = block;
	pthread_mutex_unlock(&d->lock);
	return at;
}

void late_host_release(struct kn_device *device, void *memory, size_t bytes)
{
	struct late_device *d = late_of(device);
	struct host_block *found = NULL;
	if (!memory)
		return;

	pthread_mutex_lock(&d->lock);
	for (struct host_block **at = &d->host_blocks; *at && !found; at = &(*at)->next)
		if ((*at)->at == memory) {
			found = *at;
			*at = found->next;
			break;
		}
	pthread_mutex_unlock(&d->lock);
	if (!found || found->bytes != bytes)
		late_breach("host_release", "it was not allocated so");
	free(found);
	d->inner->ops->host_release(d->inner, memory, bytes);
}

bool late_is_host_block(struct late_device *d, const void *memory)
{
	const uint8_t *p = memory;
	bool found = false;
	pthread_mutex_lock(&d->lock);
	for (const struct host_block *b = d->host_blocks; b && !found; b = b->next)
		found = p >= b->at && p < b->at + b->bytes;
	pthread_mutex_unlock(&d->lock);
	return found;
}

bool late_memory_init(struct late_device *d)
{
	d->shown = reserve();
	d->real = reserve();
	pthread_mutex_init(&d->lock, NULL);
	return d->shown && d->real;
}

void late_memory_fini(struct late_device *d)
{
	if (atomic_load(&d->live) != 0 || d->host_blocks)
		late_breach("destroy", "memory was not released");
	if (d->shown)
		munmap(d->shown, RANGE_BYTES);
	if (d->real)
		munmap(d->real, RANGE_BYTES);
	pthread_mutex_destroy(&d->lock);
}
