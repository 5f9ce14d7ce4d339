/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/emu/block.h"

#include "kernels/cuda/emu/check.h"
#include "kernels/cuda/emu/memory.h"
#include "kernels/cuda/emu/ptx90.h"

#include <algorithm>
#include <numeric>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

emu_block *emu_block_now;
emu_thread *emu_thread_now;

namespace
{

const char *const seed_text = getenv("CADRE_EMU_SEED");
uint64_t the_seed = seed_text ? strtoull(seed_text, nullptr, 0) : 0;
uint32_t launches;
const emu_launch *launch_now;
void *scheduler; /* its stack pointer while a fiber runs */

void leave() { emu_fiber_switch(&emu_thread_now->fiber.stack_pointer, scheduler); }

void make_ready(emu_thread *thread)
{
	uint16_t rank = emu_block_now->rank_of[thread->number];
	thread->state = EMU_READY;
	emu_block_now->ready[rank / 64] |= 1ull << (rank % 64);
}

/* A thread that was the last to come goes on; whether others are faster is a matter of the
 * order. */
void go_on(emu_thread *thread)
{
	thread->state = EMU_READY;
	if (emu_block_now->by_lot) {
		make_ready(thread);
		leave();
	}
}

/* ---- threads ---- */

void thread_main()
{
	launch_now->call(launch_now->arguments);

	emu_block *block = emu_block_now;
	emu_thread *thread = emu_thread_now;
	if (!thread->copies.empty())
		emu_fail({}, "cp.async never waited for", "%zu copies are under way at the end of the thread",
			thread->copies.size());
	emu_wgmma_thread_end();
	thread->state = EMU_RETURNED;
	block->warp_returned[thread->warp] |= 1u << thread->lane;
	block->returned++;
	for (uint32_t i = 0; block->at_barrier > 0 && i < block->threads; i++)
		if (block->thread[i].state == EMU_AT_BARRIER)
			emu_fail(block->thread[i].site, "divergent barrier",
				"thread %u waits there, and thread %u has returned", i, thread->number);
	leave();
	abort();
}

/* Static: the checker lets kernels read what is part of the program. */
emu_block the_block;

void map_stacks()
{
	emu_fiber *fibers[EMU_THREADS_MAX];
	for (size_t i = 0; i < EMU_THREADS_MAX; i++)
		fibers[i] = &the_block.thread[i].fiber;
	emu_fibers_map(fibers, EMU_THREADS_MAX);
}

void thread_begin(emu_block *block, uint32_t number)
{
	emu_thread *thread = &block->thread[number];
	thread->index = { number % block->dim.x, number / block->dim.x % block->dim.y,
		number / block->dim.x / block->dim.y };
	thread->number = static_cast<uint16_t>(number);
	thread->warp = static_cast<uint16_t>(number / EMU_LANES);
	thread->lane = static_cast<uint16_t>(number % EMU_LANES);
	thread->copies.clear();
	thread->copy_group = 0;
	emu_fiber_prepare(&thread->fiber, thread_main);
	make_ready(thread);
}

/* ---- the order ---- */

/* Whole warps in a random order, and lanes inside a warp. */
void shuffle_warps(emu_block *block)
{
	uint32_t key[EMU_THREADS_MAX], warp = 0;
	for (uint32_t i = 0; i < block->threads; i++) {
		if (i % EMU_LANES == 0)
			warp = static_cast<uint32_t>(emu_random(&block->random) >> 40) << 8;
		key[i] = warp | static_cast<uint32_t>(emu_random(&block->random) >> 56);
	}
	std::stable_sort(block->thread_at, block->thread_at + block->threads,
		[&key](uint16_t a, uint16_t b) { return key[a] < key[b]; });
}

void order_threads(emu_block *block)
{
	block->random = (the_seed + 1) * 0x9e3779b97f4a7c15 + block->number * 0xd1342543de82ef95 + block->launch;
	block->by_lot = the_seed >= 2 && the_seed % 2 == 0;
	std::iota(block->thread_at, block->thread_at + block->threads, static_cast<uint16_t>(0));
	if (the_seed == 1)
		std::reverse(block->thread_at, block->thread_at + block->threads);
	else if (the_seed >= 2)
		shuffle_warps(block);
	for (uint32_t rank = 0; rank < block->threads; rank++)
		block->rank_of[block->thread_at[rank]] = static_cast<uint16_t>(rank);
}

/* The rank of the thread that runs next; -1: none can. */
int pick(emu_block *block)
{
	const uint32_t words = (block->threads + 63) / 64;
	const uint32_t first = block->by_lot ? static_cast<uint32_t>(emu_random(&block->random) % block->threads) : 0;
	for (uint32_t i = 0; i <= words; i++) {
		uint32_t word = (first / 64 + i) % words;
		uint64_t bits = block->ready[word];
		if (i == 0)
			bits &= ~0ull << (first % 64);
		if (bits)
			return static_cast<int>(word * 64 + static_cast<uint32_t>(__builtin_ctzll(bits)));
	}
	return -1;
}

[[noreturn]] void report_deadlock(const emu_block *block)
{
	enum { SHOWN = 6 };
	int shown = 0;

	for (uint32_t i = 0; i < block->threads && shown < SHOWN; i++) {
		const emu_thread *thread = &block->thread[i];
		if (thread->state == EMU_RETURNED)
			continue;
		fprintf(stderr, "emu:   thread %u waits %s at %s:%d\n", i,
			thread->state == EMU_AT_BARRIER              ? "in a barrier"
				: thread->state == EMU_AT_COLLECTIVE ? "in a warp collective"
								     : "for a barrier or a copy",
			thread->site.file, thread->site.line);
		shown++;
	}
	emu_fail({}, "deadlock", "%u of %u threads have returned, and none of the others can run", block->returned,
		block->threads);
}

/* ---- blocks ---- */

void block_begin(emu_block *block, uint32_t number)
{
	const emu_launch *l = launch_now;
	block->kernel = l->kernel;
	block->grid = l->grid;
	block->dim = l->dim;
	block->index = { number % l->grid.x, number / l->grid.x % l->grid.y, number / l->grid.x / l->grid.y };
	block->number = number;
	block->launch = launches;
	block->threads = l->dim.x * l->dim.y * l->dim.z;
	block->returned = block->at_barrier = 0;
	block->first_epoch = ++block->epoch;
	std::fill(std::begin(block->named), std::end(block->named), emu_named_barrier{});
	block->shared_bytes = l->shared_bytes;
	block->shared = emu_shared_prepare(l->shared_bytes);
	memset(block->ready, 0, sizeof block->ready);
	memset(block->warp_waiting, 0, sizeof block->warp_waiting);
	memset(block->warp_returned, 0, sizeof block->warp_returned);

	order_threads(block);
	emu_block_now = block;
	emu_check_block_begin();
	emu_async_block_begin();
	for (uint32_t i = 0; i < block->threads; i++)
		thread_begin(block, i);
}

/* Bulk copies land when no thread can go on without; by lot, some land before. */
void block_run(uint32_t number)
{
	enum { COPY_LANDS_ONE_IN = 32 };
	emu_block *block = &the_block;
	block_begin(block, number);
	while (block->returned < block->threads) {
		if (block->by_lot && emu_random(&block->random) % COPY_LANDS_ONE_IN == 0)
			emu_bulk_land();
		int rank = pick(block);
		while (rank < 0 && emu_bulk_land())
			rank = pick(block);
		if (rank < 0)
			report_deadlock(block);
		block->ready[rank / 64] &= ~(1ull << (rank % 64));
		emu_thread_now = &block->thread[block->thread_at[rank]];
		emu_fiber_switch(&scheduler, emu_thread_now->fiber.stack_pointer);
	}
	emu_thread_now = nullptr;
	emu_async_block_end();
	emu_block_now = nullptr;
}

}   // namespace

uint64_t emu_seed() { return the_seed; }
void emu_set_seed(uint64_t seed) { the_seed = seed; }

uint64_t emu_random(uint64_t *state) /* splitmix64 */
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* Blocks in an order of the seed, too. */
void emu_grid_run(const emu_launch *launch)
{
	std::vector<uint32_t> order(static_cast<size_t>(launch->grid.x) * launch->grid.y * launch->grid.z);
	uint64_t random = the_seed * 0x2545f4914f6cdd1d + ++launches;

	std::iota(order.begin(), order.end(), 0u);
	if (the_seed == 1)
		std::reverse(order.begin(), order.end());
	for (size_t i = order.size(); the_seed >= 2 && i > 1; i--)
		std::swap(order[i - 1], order[emu_random(&random) % i]);

	if (!the_block.thread[0].fiber.stack)
		map_stacks();
	const emu_faults faults;
	launch_now = launch;
	for (uint32_t number : order)
		block_run(number);
}

/* ---- waits ---- */

static bool same_site(const emu_site &a, const emu_site &b) { return a.line == b.line && strcmp(a.file, b.file) == 0; }

void emu_barrier(emu_site site)
{
	emu_block *block = emu_block_now;
	emu_thread *thread = emu_thread_now;
	if (block->returned > 0)
		emu_fail(site, "divergent barrier", "thread %u waits, and %u threads have returned", thread->number,
			block->returned);
	thread->state = EMU_AT_BARRIER;
	thread->site = site;
	if (++block->at_barrier < block->threads) {
		leave();
		return;
	}

	for (uint32_t i = 0; i < block->threads; i++) {
		emu_thread *other = &block->thread[i];
		if (!same_site(other->site, site))
			emu_fail(site, "divergent barrier", "thread %u is here, thread %u at %s:%d", thread->number, i,
				other->site.file, other->site.line);
		if (other != thread)
			make_ready(other);
	}
	block->at_barrier = 0;
	emu_check_barrier();
	block->epoch++;
	go_on(thread);
}

void emu_barrier_named(uint32_t number, uint32_t threads, emu_site site)
{
	emu_named_barrier *barrier = &emu_block_now->named[number];
	if (number == 0 || number >= EMU_BARRIERS || threads % EMU_LANES != 0)
		emu_fail(site, "named barrier", "number %u, of %u threads", number, threads);
	if (barrier->arrived > 0 && barrier->threads != threads)
		emu_fail(site, "named barrier", "number %u is waited for by %u threads, and by %u", number,
			barrier->threads, threads);

	barrier->threads = threads;
	emu_check_release(barrier);
	if (++barrier->arrived < threads) {
		emu_park(barrier, site);
	} else {
		barrier->arrived = 0;
		emu_check_complete(barrier);
		emu_wake(barrier);
	}
	emu_check_acquire(barrier);
	emu_give_way();
}

void emu_park(const void *there, emu_site site)
{
	emu_thread_now->state = EMU_PARKED;
	emu_thread_now->site = site;
	emu_thread_now->parked_on = there;
	leave();
}

void emu_wake(const void *there)
{
	for (uint32_t i = 0; i < emu_block_now->threads; i++) {
		emu_thread *thread = &emu_block_now->thread[i];
		if (thread->state == EMU_PARKED && thread->parked_on == there)
			make_ready(thread);
	}
}

/* Those that wait already agree with each other: one of them is compared with this one. */
static void check_collective(const emu_thread *thread, const emu_thread *lanes)
{
	const emu_block *block = emu_block_now;
	if (!(thread->mask >> thread->lane & 1))
		emu_fail(thread->site, "warp collective", "lane %u is not in its own mask %08x", thread->lane,
			thread->mask);
	if (uint32_t gone = thread->mask & block->warp_returned[thread->warp])
		emu_fail(thread->site, "warp collective", "lane %d of mask %08x has returned", __builtin_ctz(gone),
			thread->mask);

	uint32_t there = thread->mask & block->warp_waiting[thread->warp];
	const emu_thread *other = there ? &lanes[__builtin_ctz(there)] : thread;
	if (other->kind != thread->kind || other->mask != thread->mask || !same_site(other->site, thread->site))
		emu_fail(thread->site, "warp collective",
			"lane %u is here with mask %08x, lane %u at %s:%d with mask %08x", thread->lane, thread->mask,
			other->lane, other->site.file, other->site.line, other->mask);
}

void emu_collective(
	uint8_t kind, uint32_t mask, void *arguments, emu_collective_fn *finish, bool orders_memory, emu_site site)
{
	emu_block *block = emu_block_now;
	emu_thread *thread = emu_thread_now;
	emu_thread *lanes = &block->thread[thread->warp * EMU_LANES];
	uint32_t count = std::min<uint32_t>(EMU_LANES, block->threads - thread->warp * EMU_LANES);

	thread->state = EMU_AT_COLLECTIVE;
	thread->kind = kind;
	thread->mask = mask & (count == EMU_LANES ? ~0u : (1u << count) - 1);
	thread->arguments = arguments;
	thread->site = site;
	check_collective(thread, lanes);

	uint32_t *waiting = &block->warp_waiting[thread->warp];
	*waiting |= 1u << thread->lane;
	if (thread->mask & ~*waiting) {
		leave();
		return;
	}
	*waiting &= ~thread->mask;
	void *all[EMU_LANES] = {};
	for (uint32_t left = thread->mask; left; left &= left - 1)
		all[__builtin_ctz(left)] = lanes[__builtin_ctz(left)].arguments;
	if (finish)
		finish(all, thread->mask);
	if (orders_memory)
		emu_check_warp_sync(thread->warp, thread->mask);
	for (uint32_t left = thread->mask; left; left &= left - 1)
		if (&lanes[__builtin_ctz(left)] != thread)
			make_ready(&lanes[__builtin_ctz(left)]);
	go_on(thread);
}

void emu_give_way()
{
	enum { ONE_IN = 16 };
	if (emu_block_now->by_lot && emu_random(&emu_block_now->random) % ONE_IN == 0) {
		make_ready(emu_thread_now);
		leave();
	}
}
