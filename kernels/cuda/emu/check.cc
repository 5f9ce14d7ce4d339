/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of the checking build. */
#include "kernels/cuda/emu/check.h"

#include "kernels/cuda/emu/block.h"
#include "kernels/cuda/emu/memory.h"

#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

/* Of a byte of memory: the last launch and block that wrote it, and that read it. */
struct mark {
	uint32_t write_launch, write_block, read_launch, read_block;
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

/* Of a byte of shared memory. An epoch before the block's first: not in this block. */
struct cell {
	uint32_t write_epoch, write_warp_epoch, read_epoch, read_warp_epoch;
	uint32_t read_warps; /* in read_epoch */
	uint16_t writer, reader;
	bool many_readers; /* of the reader's warp, since its last __syncwarp */
	bool in_flight;
};

/* By distance from the end, which is the same for every block. */
cell *cell_of(const unsigned char *address)
{
	static cell *cells;
	if (!cells)
		cells = static_cast<cell *>(calloc(EMU_SHARED_MAX + 1, sizeof *cells));
	const emu_block *block = emu_block_now;
	return &cells[block->shared + block->shared_bytes - address];
}

bool in_shared(const unsigned char *address)
{
	return address >= emu_block_now->shared && address < emu_block_now->shared + emu_block_now->shared_bytes;
}

/* Whether what another thread did then is before what this one does now. */
bool is_before(uint16_t other, uint32_t epoch, uint32_t warp_epoch)
{
	const emu_thread *thread = emu_thread_now;
	if (other == thread->number || epoch < emu_block_now->epoch)
		return true;
	return other / EMU_LANES == thread->warp && warp_epoch < emu_block_now->warp_epoch[thread->warp];
}

[[noreturn]] void race(const char *what, const unsigned char *at, uint16_t other, emu_site site)
{
	emu_fail(site, "race in shared memory", "%s at offset %td: threads %u and %u with no barrier between", what,
		at - emu_block_now->shared, emu_thread_now->number, other);
}

void shared_read(const unsigned char *at, emu_site site)
{
	const emu_block *block = emu_block_now;
	const emu_thread *thread = emu_thread_now;
	cell *c = cell_of(at);

	if (c->write_epoch < block->first_epoch)
		emu_fail(site, "uninitialised shared memory", "read at offset %td", at - block->shared);
	if (c->in_flight)
		emu_fail(site, "cp.async in flight", "read at offset %td, which thread %u fetches", at - block->shared,
			c->writer);
	if (!is_before(c->writer, c->write_epoch, c->write_warp_epoch))
		race("read after write", at, c->writer, site);

	uint32_t warp_epoch = block->warp_epoch[thread->warp];
	if (c->read_epoch != block->epoch) {
		c->read_epoch = block->epoch;
		c->read_warps = 0;
		c->many_readers = false;
	} else if (c->reader != thread->number) {
		c->many_readers = c->reader / EMU_LANES == thread->warp && c->read_warp_epoch == warp_epoch;
	}
	c->read_warps |= 1u << thread->warp;
	c->reader = thread->number;
	c->read_warp_epoch = warp_epoch;
}

void shared_write(const unsigned char *at, emu_site site)
{
	const emu_block *block = emu_block_now;
	const emu_thread *thread = emu_thread_now;
	uint32_t warp_epoch = block->warp_epoch[thread->warp];
	cell *c = cell_of(at);
	bool written = c->write_epoch >= block->first_epoch;

	if (written && !is_before(c->writer, c->write_epoch, c->write_warp_epoch))
		race("write after write", at, c->writer, site);
	if (written && c->in_flight)
		emu_fail(site, "cp.async in flight", "write at offset %td", at - block->shared);
	if (c->read_epoch == block->epoch &&
		((c->read_warps & ~(1u << thread->warp)) ||
			(c->read_warp_epoch == warp_epoch && (c->many_readers || c->reader != thread->number))))
		race("write after read", at, c->reader, site);

	c->write_epoch = block->epoch;
	c->write_warp_epoch = warp_epoch;
	c->writer = thread->number;
	c->in_flight = false;
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

void memory_access(const emu_range *range, const unsigned char *at, emu_access access, emu_site site)
{
	const emu_block *block = emu_block_now;
	mark *m = &range->marks->last[at - range->begin];
	bool *written = &range->marks->written[at - range->begin];

	if (access == EMU_READ && !*written && range->kind == EMU_DEVICE_MEMORY)
		emu_fail(site, "uninitialised memory", "read at offset %td of allocation %zu", at - range->begin,
			range->number);
	if (m->write_launch == block->launch && m->write_block != block->number)
		block_race(range, at, m->write_block, site);
	if (access == EMU_WRITE && m->read_launch == block->launch && m->read_block != block->number)
		block_race(range, at, m->read_block, site);

	if (access == EMU_WRITE) {
		*written = true;
		m->write_launch = block->launch;
		m->write_block = block->number;
		return;
	}
	bool others = m->read_launch == block->launch && m->read_block != block->number;
	m->read_launch = block->launch;
	m->read_block = others ? MANY_BLOCKS : block->number;
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
	if (access == EMU_WRITE)
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
		if (in_shared(at)) {
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

void emu_check_copy_issued(const void *to, size_t bytes, emu_site site)
{
	emu_check_access(to, bytes, EMU_WRITE, true, site);
	for (size_t i = 0; i < bytes; i++)
		cell_of(static_cast<const unsigned char *>(to) + i)->in_flight = true;
}

void emu_check_copy_landed(const void *to, size_t bytes)
{
	const emu_block *block = emu_block_now;
	for (size_t i = 0; i < bytes; i++) {
		cell *c = cell_of(static_cast<const unsigned char *>(to) + i);
		c->in_flight = false;
		c->writer = emu_thread_now->number;
		c->write_epoch = block->epoch;
		c->write_warp_epoch = block->warp_epoch[emu_thread_now->warp];
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
