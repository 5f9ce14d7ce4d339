/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of the checking build. */
#include "kernels/cuda/emu/check.h"

#include "kernels/cuda/emu/block.h"
#include "kernels/cuda/emu/memory.h"

#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

/* Of a byte of memory: the last launch and block that wrote it, that read it, and that did so in
 * one atomic operation. */
struct mark {
	uint32_t write_launch, write_block, read_launch, read_block, atomic_launch, atomic_block;
};
enum : uint32_t { MANY_BLOCKS = UINT32_MAX };

struct emu_marks {
	mark *last;    /* most of it is never touched */
	bool *written; /* by anybody */
};

emu_marks *emu_marks_create(size_t bytes)
{
	emu_marks *marks = new emu_marks{ static_cast<mark *>(calloc(bytes + 1, sizeof(mark))),
		static_cast<bool *>(calloc(bytes + 1, 1)) };
	if (!marks->last || !marks->written)
		emu_fail({}, "memory", "there is none to check %zu bytes", bytes);
	return marks;
}

void emu_marks_destroy(emu_marks *marks)
{
	free(marks->last);
	free(marks->written);
	delete marks;
}

namespace
{

/* ---- shared memory ---- */

enum in_flight : uint8_t { LANDED, CP_ASYNC, BULK_COPY };
const char *const in_flight_texts[] = { "", "cp.async in flight", "bulk copy in flight" };

/* Of a byte of shared memory. An epoch before the block's first: not in this block. */
struct cell {
	uint32_t write_epoch, write_clock, read_epoch;
	uint32_t read_warps; /* in read_epoch */
	uint32_t fences;     /* of its writer, before it wrote */
	uint16_t writer;     /* whose clock: of a thread, or of an mbarrier */
	in_flight copy;
};
/* By a warp, since its last read that is known to whoever read after it: the latest clock. */
struct reads {
	uint32_t clock, lanes;
};
uint32_t fences[EMU_THREADS_MAX]; /* that each thread has executed */

/* By distance from the end, which is the same for every block. */
size_t index_of(const unsigned char *address)
{
	const emu_block *block = emu_block_now;
	return static_cast<size_t>(block->shared + block->shared_bytes - address);
}

cell *cell_of(const unsigned char *address)
{
	static cell *cells;
	if (!cells)
		cells = static_cast<cell *>(calloc(EMU_SHARED_MAX + 1, sizeof *cells));
	return &cells[index_of(address)];
}

/* [warps of the block] */
reads *reads_of(const unsigned char *address)
{
	static reads *all;
	if (!all)
		all = static_cast<reads *>(calloc((EMU_SHARED_MAX + 1) * EMU_WARPS_MAX, sizeof *all));
	return &all[index_of(address) * ((emu_block_now->threads + EMU_LANES - 1) / EMU_LANES)];
}

bool in_shared(const unsigned char *address)
{
	return address >= emu_block_now->shared && address < emu_block_now->shared + emu_block_now->shared_bytes;
}

bool is_written(const cell *c) { return c->write_epoch >= emu_block_now->first_epoch; }

/* Whether what was written then is before what this thread does now. */
bool write_is_before(const cell *c)
{
	if (c->writer >= EMU_THREADS_MAX)
		return emu_check_known(c->writer) >= c->write_clock;
	return c->writer == emu_thread_now->number || c->write_epoch < emu_block_now->epoch ||
		emu_check_known(c->writer) >= c->write_clock;
}

/* A lane whose read then may be after what this thread does now; -1: none. */
int read_after(const reads *r, uint32_t warp)
{
	for (uint32_t left = r->lanes; left; left &= left - 1) {
		const uint32_t thread = warp * EMU_LANES + static_cast<uint32_t>(__builtin_ctz(left));
		if (thread != emu_thread_now->number && emu_check_known(thread) < r->clock)
			return static_cast<int>(thread);
	}
	return -1;
}

[[noreturn]] void race(const char *what, const unsigned char *at, uint32_t other, emu_site site)
{
	if (other >= EMU_THREADS_MAX)
		emu_fail(site, "race in shared memory", "%s at offset %td: thread %u has not waited for the mbarrier",
			what, at - emu_block_now->shared, emu_thread_now->number);
	emu_fail(site, "race in shared memory", "%s at offset %td: threads %u and %u with no barrier between", what,
		at - emu_block_now->shared, emu_thread_now->number, other);
}

void note_read(const unsigned char *at, cell *c, uint32_t clock, uint32_t lanes)
{
	const uint32_t warp = emu_thread_now->warp;
	reads *r = &reads_of(at)[warp];

	if (c->read_epoch != emu_block_now->epoch) {
		c->read_epoch = emu_block_now->epoch;
		c->read_warps = 0;
	}
	const bool first = !(c->read_warps >> warp & 1);
	if (first || (clock > r->clock && read_after(r, warp) < 0))
		*r = { clock, lanes };
	else
		*r = { clock > r->clock ? clock : r->clock, r->lanes | lanes };
	c->read_warps |= 1u << warp;
}

cell *readable(const unsigned char *at, emu_site site)
{
	cell *c = cell_of(at);
	if (!is_written(c))
		emu_fail(site, "uninitialised shared memory", "read at offset %td", at - emu_block_now->shared);
	if (c->copy != LANDED)
		emu_fail(site, in_flight_texts[c->copy], "read at offset %td, which thread %u fetches",
			at - emu_block_now->shared, c->writer);
	if (!write_is_before(c))
		race("read after write", at, c->writer, site);
	return c;
}

void shared_read(const unsigned char *at, emu_site site)
{
	const emu_thread *thread = emu_thread_now;
	note_read(at, readable(at, site), emu_check_clock(thread->number), 1u << thread->lane);
}

void shared_write(const unsigned char *at, emu_site site)
{
	const emu_block *block = emu_block_now;
	const uint16_t number = emu_thread_now->number;
	cell *c = cell_of(at);

	if (is_written(c) && c->copy != LANDED)
		emu_fail(site, in_flight_texts[c->copy], "write at offset %td", at - block->shared);
	if (is_written(c) && !write_is_before(c))
		race("write after write", at, c->writer, site);
	for (uint32_t left = c->read_epoch == block->epoch ? c->read_warps : 0; left; left &= left - 1) {
		const uint32_t warp = static_cast<uint32_t>(__builtin_ctz(left));
		const int reader = read_after(&reads_of(at)[warp], warp);
		if (reader >= 0)
			race("write after read", at, static_cast<uint32_t>(reader), site);
	}
	*c = { block->epoch, emu_check_clock(number), 0, 0, fences[number], number, LANDED };
}

/* ---- memory ---- */

[[noreturn]] void block_race(const emu_range *range, const unsigned char *at, uint32_t other, emu_site site)
{
	if (other == MANY_BLOCKS)
		emu_fail(site, "race between blocks", "offset %td of allocation %zu: block %u and several others",
			at - range->begin, range->number, emu_block_now->number);
	emu_fail(site, "race between blocks", "offset %td of allocation %zu: blocks %u and %u", at - range->begin,
		range->number, emu_block_now->number, other);
}

/* One of several blocks, in this launch. */
void note(uint32_t *launch, uint32_t *block)
{
	const bool others = *launch == emu_block_now->launch && *block != emu_block_now->number;
	*launch = emu_block_now->launch;
	*block = others ? MANY_BLOCKS : emu_block_now->number;
}

void memory_access(const emu_range *range, const unsigned char *at, emu_access access, emu_site site)
{
	const emu_block *block = emu_block_now;
	mark *m = &range->marks->last[at - range->begin];
	bool *written = &range->marks->written[at - range->begin];

	if (access != EMU_WRITE && !*written && range->kind == EMU_DEVICE_MEMORY)
		emu_fail(site, "uninitialised memory", "read at offset %td of allocation %zu", at - range->begin,
			range->number);
	if (m->write_launch == block->launch && m->write_block != block->number)
		block_race(range, at, m->write_block, site);
	if (access != EMU_READ && m->read_launch == block->launch && m->read_block != block->number)
		block_race(range, at, m->read_block, site);
	if (access != EMU_ATOMIC && m->atomic_launch == block->launch && m->atomic_block != block->number)
		block_race(range, at, m->atomic_block, site);

	switch (access) {
	case EMU_READ: note(&m->read_launch, &m->read_block); break;
	case EMU_WRITE: note(&m->write_launch, &m->write_block); break;
	case EMU_ATOMIC: note(&m->atomic_launch, &m->atomic_block); break;
	}
	*written |= access != EMU_READ;
}

/* ---- all else ---- */

struct span {
	const unsigned char *begin, *end;
	bool has(const unsigned char *at) const { return at >= begin && at < end; }
};
span arguments;

/* What is loaded of programs and libraries. */
const std::vector<span> &images()
{
	static std::vector<span> found;
	if (found.empty())
		dl_iterate_phdr(
			[](dl_phdr_info *info, size_t, void *) {
				for (int i = 0; i < info->dlpi_phnum; i++) {
					auto begin = reinterpret_cast<const unsigned char *>(
						info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
					if (info->dlpi_phdr[i].p_type == PT_LOAD)
						found.push_back({ begin, begin + info->dlpi_phdr[i].p_memsz });
				}
				return 0;
			},
			nullptr);
	return found;
}

bool may_touch(const unsigned char *at, emu_access access)
{
	const emu_fiber *fiber = &emu_thread_now->fiber;
	if (span{ fiber->stack, fiber->stack_end }.has(at))
		return true;
	if (access != EMU_READ)
		return false;
	if (arguments.has(at))
		return true;
	for (const span &image : images())
		if (image.has(at))
			return true;
	return false;
}

[[noreturn]] void refuse(const unsigned char *at, emu_access access, emu_site site)
{
	const char *what = access == EMU_READ ? "read" : "write";
	const emu_block *block = emu_block_now;
	if (at >= block->shared - EMU_SHARED_MAX && at < block->shared + block->shared_bytes + EMU_SHARED_MAX)
		emu_fail(site, "outside of shared memory", "%s at offset %td of %zu bytes", what, at - block->shared,
			block->shared_bytes);
	if (const emu_range *range = emu_memory_near(at))
		emu_fail(site, range->released ? "released memory" : "outside of an allocation",
			"%s at offset %td of allocation %zu (%td bytes)", what, at - range->begin, range->number,
			range->end - range->begin);
	emu_fail(site, "memory of the host", "%s at %p", what, static_cast<const void *>(at));
}

}   // namespace

void emu_check_access(const void *address, size_t bytes, emu_access access, bool aligned, emu_site site)
{
	const unsigned char *at = static_cast<const unsigned char *>(address), *end = at + bytes;
	if (!emu_thread_now) /* the host's part of a file that has device code too */
		return;
	if (aligned && reinterpret_cast<uintptr_t>(at) % bytes != 0 && !may_touch(at, access))
		emu_fail(site, "misaligned", "%s of %zu bytes at %p", access == EMU_READ ? "read" : "write", bytes,
			address);

	while (at < end) {
		const emu_range *range;
		if (in_shared(at) && access == EMU_ATOMIC) {
			emu_fail(site, "atomic operation", "on shared memory, which the emulation has none for");
		} else if (in_shared(at)) {
			access == EMU_READ ? shared_read(at, site) : shared_write(at, site);
			at++;
		} else if ((range = emu_memory_find(at))) {
			for (; at < end && at < range->end; at++)
				memory_access(range, at, access, site);
		} else if (may_touch(at, access)) {
			return;
		} else {
			refuse(at, access, site);
		}
	}
	emu_give_way();
}

void emu_check_async_read(const void *address, size_t bytes, emu_site site)
{
	const unsigned char *at = static_cast<const unsigned char *>(address);
	const uint32_t first = emu_thread_now->number / EMU_LANES * EMU_LANES;
	uint32_t latest = 0;

	for (uint32_t lane = 0; lane < EMU_LANES; lane++)
		latest = latest > emu_check_clock(first + lane) ? latest : emu_check_clock(first + lane);
	for (const unsigned char *end = at + bytes; at < end; at++) {
		cell *c = readable(at, site);
		if (c->writer < EMU_THREADS_MAX && fences[c->writer] == c->fences)
			emu_fail(site, "no fence", "wgmma reads offset %td, which thread %u wrote and did not fence",
				at - emu_block_now->shared, c->writer);
		note_read(at, c, latest, ~0u);
	}
}

void emu_check_fence_async() { fences[emu_thread_now->number]++; }

void emu_check_copy_issued(const void *to, size_t bytes, bool bulk, emu_site site)
{
	emu_check_access(to, bytes, EMU_WRITE, !bulk, site);
	for (size_t i = 0; i < bytes; i++)
		cell_of(static_cast<const unsigned char *>(to) + i)->copy = bulk ? BULK_COPY : CP_ASYNC;
}

void emu_check_copy_landed(const void *to, size_t bytes, const void *mbarrier)
{
	const uint32_t number = emu_thread_now ? emu_thread_now->number : 0,
		       clock = mbarrier ? emu_check_landing(mbarrier) : emu_check_clock(number),
		       writer = mbarrier ? emu_check_landing_clock(mbarrier) : number;
	for (size_t i = 0; i < bytes; i++) {
		cell *c = cell_of(static_cast<const unsigned char *>(to) + i);
		c->copy = LANDED;
		c->writer = static_cast<uint16_t>(writer);
		c->write_epoch = emu_block_now->epoch;
		c->write_clock = clock;
	}
}

void emu_check_host_write(const void *address, size_t bytes)
{
	if (const emu_range *range = emu_memory_find(address))
		memset(range->marks->written + (static_cast<const unsigned char *>(address) - range->begin), 1, bytes);
}

void emu_check_arguments(const void *where, size_t bytes)
{
	arguments.begin = static_cast<const unsigned char *>(where);
	arguments.end = arguments.begin + bytes;
}
