/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/memory.h"

#include "kernels/kernels.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
	ALIGNMENT = 64,
	PAGE = 4096,
	HUGE_PAGE = 2 << 20,
	MEDIUM_MIN = 32 << 10, /* from here on a block lies in an extent */
	LARGE_MIN = 32 << 20,  /* from here on it has a mapping of its own */
	EXTENT_BYTES = 64 << 20,
};

/* A piece of an extent; what is not used is zero. Two pieces side by side are not both free. */
struct piece {
	size_t begin, bytes;
	bool used;
	struct piece *next; /* ascending, without gaps */
};

struct kn_extent {
	uint8_t *memory;
	struct piece *pieces;
	struct kn_extent *next;
};

/* Whole huge pages straight from the kernel, zero already. */
static void *map_huge(size_t length)
{
	uint8_t *p = mmap(NULL, length + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;

	uint8_t *aligned = (uint8_t *)kn_round_up((size_t)p, HUGE_PAGE);
	size_t before = (size_t)(aligned - p);
	if (before > 0)
		munmap(p, before);
	munmap(aligned + length, HUGE_PAGE - before);
	madvise(aligned, length, MADV_HUGEPAGE); /* a wish: without huge pages it is slower, not wrong */

	return aligned;
}

/* ---- extents ---- */

static struct piece *piece_create(size_t begin, size_t bytes, struct piece *next)
{
	struct piece *piece = malloc(sizeof *piece);
	if (piece)
		*piece = (struct piece){ .begin = begin, .bytes = bytes, .next = next };
	return piece;
}

static struct kn_extent *extent_create(struct kn_extent *next)
{
	struct kn_extent *extent = malloc(sizeof *extent);
	if (!extent)
		return NULL;

	*extent = (struct kn_extent){ map_huge(EXTENT_BYTES), piece_create(0, EXTENT_BYTES, NULL), next };
	if (extent->memory && extent->pieces)
		return extent;
	if (extent->memory)
		munmap(extent->memory, EXTENT_BYTES);
	free(extent->pieces);
	free(extent);
	return NULL;
}

static void extent_destroy(struct kn_extent *extent)
{
	munmap(extent->memory, EXTENT_BYTES);
	for (struct piece *piece = extent->pieces, *next; piece; piece = next) {
		next = piece->next;
		free(piece);
	}
	free(extent);
}

/* The first free piece of an extent that is large enough, cut to size; NULL: there is none, or no
 * memory for what is left of it. */
static void *extent_alloc(struct kn_extent *extent, size_t bytes)
{
	struct piece *piece = extent->pieces;
	while (piece && (piece->used || piece->bytes < bytes))
		piece = piece->next;
	if (!piece)
		return NULL;

	if (piece->bytes > bytes) {
		struct piece *rest = piece_create(piece->begin + bytes, piece->bytes - bytes, piece->next);
		if (!rest)
			return NULL;
		piece->next = rest;
		piece->bytes = bytes;
	}
	piece->used = true;
	return extent->memory + piece->begin;
}

/* Bytes begin .. end - 1, which were used, become zero; those of free .. free_end - 1 around them are.
 * Huge pages that are free as a whole go back to the system. */
static void clear(uint8_t *memory, size_t begin, size_t end, size_t free_begin, size_t free_end)
{
	size_t first = begin / HUGE_PAGE * HUGE_PAGE, last = kn_round_up(end, HUGE_PAGE);
	if (first < free_begin)
		first += HUGE_PAGE;
	if (last > free_end)
		last -= HUGE_PAGE;

	if (first >= last) { /* none */
		memset(memory + begin, 0, end - begin);
		return;
	}
	if (begin < first)
		memset(memory + begin, 0, first - begin);
	madvise(memory + first, last - first, MADV_DONTNEED);
	if (last < end)
		memset(memory + last, 0, end - last);
}

static void merge_next(struct piece *piece)
{
	struct piece *next = piece->next;
	piece->bytes += next->bytes;
	piece->next = next->next;
	free(next);
}

static void extent_free(struct kn_extent *extent, size_t begin)
{
	struct piece *before = NULL, *piece = extent->pieces;
	while (piece->begin != begin) {
		before = piece;
		piece = piece->next;
	}

	size_t end = begin + piece->bytes;
	piece->used = false;
	if (piece->next && !piece->next->used)
		merge_next(piece);
	if (before && !before->used) {
		merge_next(before);
		piece = before;
	}
	clear(extent->memory, begin, end, piece->begin, piece->begin + piece->bytes);
}

/* ---- memory ---- */

void kn_memory_init(struct kn_memory *memory)
{
	*memory = (struct kn_memory){ .extents = NULL };
	pthread_mutex_init(&memory->lock, NULL);
}

void kn_memory_fini(struct kn_memory *memory)
{
	CAD_ASSERT(!memory->extents);
	pthread_mutex_destroy(&memory->lock);
}

static void *medium_alloc(struct kn_memory *memory, size_t bytes)
{
	void *block = NULL;

	pthread_mutex_lock(&memory->lock);
	for (struct kn_extent *extent = memory->extents; extent && !block; extent = extent->next)
		block = extent_alloc(extent, bytes);
	if (!block) {
		struct kn_extent *extent = extent_create(memory->extents);
		block = extent ? extent_alloc(extent, bytes) : NULL;
		if (block)
			memory->extents = extent;
		else if (extent) /* it is not there without a block */
			extent_destroy(extent);
	}
	pthread_mutex_unlock(&memory->lock);

	return block;
}

static void medium_free(struct kn_memory *memory, const uint8_t *block)
{
	pthread_mutex_lock(&memory->lock);
	struct kn_extent **at = &memory->extents;
	while (block < (*at)->memory || block >= (*at)->memory + EXTENT_BYTES)
		at = &(*at)->next;
	struct kn_extent *extent = *at;
	extent_free(extent, (size_t)(block - extent->memory));
	if (!extent->pieces->used && !extent->pieces->next) {
		*at = extent->next;
		extent_destroy(extent);
	}
	pthread_mutex_unlock(&memory->lock);
}

void *kn_memory_alloc(struct kn_memory *memory, size_t bytes)
{
	if (bytes >= LARGE_MIN)
		return map_huge(kn_cpu_allocated(bytes));
	if (bytes >= MEDIUM_MIN)
		return medium_alloc(memory, kn_cpu_allocated(bytes));
	size_t length = kn_round_up(bytes > 0 ? bytes : 1, ALIGNMENT);
	void *block = aligned_alloc(ALIGNMENT, length);
	return block ? memset(block, 0, length) : NULL;
}

void kn_memory_free(struct kn_memory *memory, void *block, size_t bytes)
{
	if (!block || bytes < MEDIUM_MIN)
		free(block);
	else if (bytes < LARGE_MIN)
		medium_free(memory, block);
	else
		munmap(block, kn_cpu_allocated(bytes));
}

uint64_t kn_cpu_allocated(size_t bytes)
{
	return bytes < MEDIUM_MIN ? bytes : kn_round_up(bytes, bytes < LARGE_MIN ? PAGE : HUGE_PAGE);
}
