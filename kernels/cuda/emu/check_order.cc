/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens before what in a block, by vector clocks. Each thread has a clock, and knows of each
 * other one up to which value it has waited for it: what that thread did up to then is before what
 * this one does now. A clock goes on when others may learn of it: at a __syncwarp, or an arrival at
 * a barrier. What copies write has a clock of the mbarrier that counts them: its phases.
 *
 * __syncthreads needs none of this, as everything before it is before everything after it: epochs.
 */
#include "kernels/cuda/emu/block.h"
#include "kernels/cuda/emu/check.h"

#include <algorithm>
#include <map>
#include <string.h>

namespace
{

enum { OBJECTS_MAX = 64, CLOCKS = EMU_THREADS_MAX + OBJECTS_MAX };

/* The first threads of a block, then the objects. */
struct knowledge {
	uint32_t clock[CLOCKS];

	void learn(const knowledge &other)
	{
		for (uint32_t i = 0; i < emu_block_now->threads; i++)
			clock[i] = std::max(clock[i], other.clock[i]);
		for (uint32_t i = EMU_THREADS_MAX; i < CLOCKS; i++)
			clock[i] = std::max(clock[i], other.clock[i]);
	}
};

/* Where threads meet: what those know that have arrived, and what the last round taught. */
struct object {
	uint32_t index, rounds;
	knowledge arrived, taught;
};

knowledge threads[EMU_THREADS_MAX];
std::map<const void *, object> objects;

object *object_of(const void *address)
{
	const auto found = objects.find(address);
	if (found != objects.end())
		return &found->second;
	const uint32_t index = static_cast<uint32_t>(objects.size());
	if (index == OBJECTS_MAX)
		emu_fail({}, "barriers", "a block has more than %d", OBJECTS_MAX);
	object *made = &objects[address];
	made->index = EMU_THREADS_MAX + index;
	return made;
}

uint32_t *own_clock(uint32_t thread) { return &threads[thread].clock[thread]; }

}   // namespace

void emu_check_block_begin()
{
	objects.clear();
	for (uint32_t i = 0; i < emu_block_now->threads; i++) {
		memset(threads[i].clock + EMU_THREADS_MAX, 0, OBJECTS_MAX * sizeof *threads[i].clock);
		++*own_clock(i);
	}
}

uint32_t emu_check_clock(uint32_t thread) { return *own_clock(thread); }
uint32_t emu_check_known(uint32_t clock) { return threads[emu_thread_now->number].clock[clock]; }

uint32_t emu_check_landing_clock(const void *mbarrier) { return object_of(mbarrier)->index; }
uint32_t emu_check_landing(const void *mbarrier) { return object_of(mbarrier)->rounds + 1; }

void emu_check_release(const void *where)
{
	object_of(where)->arrived.learn(threads[emu_thread_now->number]);
	++*own_clock(emu_thread_now->number);
}

void emu_check_complete(const void *where)
{
	object *o = object_of(where);
	o->arrived.clock[o->index] = ++o->rounds;
	o->taught = o->arrived;
}

void emu_check_acquire(const void *where) { threads[emu_thread_now->number].learn(object_of(where)->taught); }

void emu_check_warp_sync(uint32_t warp, uint32_t mask)
{
	knowledge all = {};
	uint32_t latest = 0;

	for (uint32_t left = mask; left; left &= left - 1) {
		const uint32_t thread = warp * EMU_LANES + static_cast<uint32_t>(__builtin_ctz(left));
		all.learn(threads[thread]);
		latest = std::max(latest, *own_clock(thread));
	}
	for (uint32_t left = mask; left; left &= left - 1)
		all.clock[warp * EMU_LANES + static_cast<uint32_t>(__builtin_ctz(left))] = latest;
	for (uint32_t left = mask; left; left &= left - 1) {
		const uint32_t thread = warp * EMU_LANES + static_cast<uint32_t>(__builtin_ctz(left));
		threads[thread].learn(all);
		*own_clock(thread) = latest + 1;
	}
}

/* Of copies alone: that one thread has waited for them is enough for all. */
void emu_check_barrier()
{
	const uint32_t used = EMU_THREADS_MAX + static_cast<uint32_t>(objects.size());
	for (uint32_t i = EMU_THREADS_MAX; i < used; i++) {
		uint32_t latest = 0;
		for (uint32_t t = 0; t < emu_block_now->threads; t++)
			latest = std::max(latest, threads[t].clock[i]);
		for (uint32_t t = 0; t < emu_block_now->threads; t++)
			threads[t].clock[i] = latest;
	}
}
