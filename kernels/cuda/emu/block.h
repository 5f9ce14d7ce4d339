/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the blocks of a grid, one at a time, on the CPU thread that waits for the stream. Each
 * thread of a block is a fiber: it runs until it waits (barrier, warp collective) and, in the
 * checking build, until it gives way at an access to memory. Who goes next depends on the seed
 * alone, so that a failure can be repeated:
 *   0     ascending
 *   1     descending
 *   odd   whole warps in a random order: one runs as far ahead as barriers let it
 *   even  by lot at every step
 *
 * Kernels call nothing of this directly; include/device_language.h does it for them. Everything
 * here belongs to whoever holds the runtime's lock (runtime.cc): one kernel runs at a time.
 */
#ifndef CADRE_KERNELS_CUDA_EMU_BLOCK_H
#define CADRE_KERNELS_CUDA_EMU_BLOCK_H

#include "kernels/cuda/emu/fiber.h"
#include "kernels/cuda/emu/include/vector_types.h"
#include "kernels/cuda/emu/report.h"

#include <stddef.h>
#include <stdint.h>
#include <vector>

enum {
	EMU_LANES = 32, /* of a warp */
	EMU_THREADS_MAX = 1024,
	EMU_WARPS_MAX = EMU_THREADS_MAX / EMU_LANES,
	EMU_SHARED_MAX = 227 * 1024, /* bytes of shared memory of a block, of sm_90 */
	EMU_BARRIERS = 16,           /* that have a number, 0 being __syncthreads */
};

/* A cp.async that was issued and has not landed. */
struct emu_copy {
	unsigned char *to;
	const unsigned char *from;
	uint32_t bytes, from_bytes, group;
};

enum emu_thread_state : uint8_t { EMU_READY, EMU_AT_BARRIER, EMU_AT_COLLECTIVE, EMU_PARKED, EMU_RETURNED };

struct emu_thread {
	emu_fiber fiber;
	uint3 index;
	uint16_t number, warp, lane;
	emu_thread_state state;
	/* where it waits, and of a collective: its kind, lanes and arguments */
	emu_site site;
	uint8_t kind;
	uint32_t mask;
	void *arguments;
	/* cp.async: groups committed so far, and copies under way in the order of issue */
	uint32_t copy_group;
	std::vector<emu_copy> copies;
	const void *parked_on; /* what will wake it */
};

/* A barrier with a number: who has come to it in this round. */
struct emu_named_barrier {
	uint32_t threads, arrived;
};

struct emu_block {
	const char *kernel;
	dim3 grid, dim;
	uint3 index;
	uint32_t number, launch; /* in the grid; of all launches */
	uint32_t threads, returned, at_barrier;
	unsigned char *shared; /* the end is followed by a page that nobody can read */
	size_t shared_bytes;
	/* Barriers that were passed. Never set back, so that what the checker knows of earlier
	 * blocks is recognised as such: it is before first_epoch. */
	uint32_t first_epoch, epoch;
	uint32_t warp_waiting[EMU_WARPS_MAX], warp_returned[EMU_WARPS_MAX]; /* lanes */
	/* the order: by rank, or by lot */
	bool by_lot;
	uint64_t random;
	uint16_t rank_of[EMU_THREADS_MAX], thread_at[EMU_THREADS_MAX];
	uint64_t ready[EMU_THREADS_MAX / 64]; /* bit r: the thread of rank r may run */
	emu_named_barrier named[EMU_BARRIERS];
	emu_thread thread[EMU_THREADS_MAX];
};

/* Of the kernel that runs; NULL on the host's side. */
extern emu_block *emu_block_now;
extern emu_thread *emu_thread_now;

struct emu_launch {
	const char *kernel;
	dim3 grid, dim;
	size_t shared_bytes;
	void (*call)(const void *arguments); /* the kernel */
	const void *arguments;
};
void emu_grid_run(const emu_launch *launch);

/* From the environment, CADRE_EMU_SEED, until a test sets another one. */
uint64_t emu_seed();
void emu_set_seed(uint64_t seed);
uint64_t emu_random(uint64_t *state);

void emu_barrier(emu_site site);
/* bar.sync: waits until so many threads, whole warps, have come to the barrier of this number. */
void emu_barrier_named(uint32_t number, uint32_t threads, emu_site site);
/* Waits until somebody wakes those that wait there. */
void emu_park(const void *there, emu_site site);
void emu_wake(const void *there);
/* Waits until all lanes of `mask` have come to a collective of this kind; the last of them runs
 * `finish` over the arguments of all (NULL: lanes that are not in the mask). `orders_memory`: what
 * was written before it may be read after it (__syncwarp). */
typedef void emu_collective_fn(void *const arguments[EMU_LANES], uint32_t mask);
void emu_collective(
	uint8_t kind, uint32_t mask, void *arguments, emu_collective_fn *finish, bool orders_memory, emu_site site);
/* Lets others go first, now and then, where the order is by lot. */
void emu_give_way();

#endif
