/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/emu/memory.h"

#include "kernels/cuda/emu/block.h"
#include "kernels/cuda/emu/check.h"
#include "kernels/cuda/emu/report.h"

#include <algorithm>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

namespace
{

constexpr size_t PAGE_BYTES = 4096, ALIGNMENT = 256, SHARED_ALIGNMENT = 128;
std::vector<emu_range> ranges; /* ascending */
size_t allocations, used;
unsigned char *shared_end;

size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

/* A page that nobody can read, memory, and such a page right after its end. */
unsigned char *map_guarded(size_t bytes, size_t alignment)
{
	size_t body = round_up(std::max<size_t>(bytes, 1), PAGE_BYTES);
	void *mapped =
		mmap(nullptr, body + 2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mapped == MAP_FAILED)
		return nullptr;

	unsigned char *begin = static_cast<unsigned char *>(mapped) + PAGE_BYTES;
	if (mprotect(begin, body, PROT_READ | PROT_WRITE) != 0) {
		munmap(mapped, body + 2 * PAGE_BYTES);
		return nullptr;
	}
	memset(begin, EMU_POISON, body);
	return begin + body - round_up(bytes, alignment);
}

std::vector<emu_range>::iterator first_ending_after(const unsigned char *address)
{
	return std::lower_bound(ranges.begin(), ranges.end(), address,
		[](const emu_range &range, const unsigned char *a) { return range.end <= a; });
}

}   // namespace

void *emu_memory_alloc(emu_memory_kind kind, size_t bytes)
{
	unsigned char *begin = map_guarded(bytes, ALIGNMENT);
	if (!begin)
		return nullptr;

	emu_range range = { begin, begin + bytes, kind, ++allocations, false, emu_marks_create(bytes) };
	ranges.insert(first_ending_after(begin), range);
	if (kind == EMU_DEVICE_MEMORY)
		used += bytes;
	return begin;
}

bool emu_memory_release(emu_memory_kind kind, void *memory)
{
	auto range = std::find_if(ranges.begin(), ranges.end(),
		[&](const emu_range &r) { return r.begin == memory && r.kind == kind && !r.released; });
	if (range == ranges.end())
		return false;

	size_t bytes = static_cast<size_t>(range->end - range->begin);
	unsigned char *page = range->begin - reinterpret_cast<uintptr_t>(range->begin) % PAGE_BYTES;
	mmap(page, round_up(std::max<size_t>(static_cast<size_t>(range->end - page), 1), PAGE_BYTES), PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	emu_marks_destroy(range->marks);
	range->marks = nullptr;
	range->released = true;
	if (kind == EMU_DEVICE_MEMORY)
		used -= bytes;
	return true;
}

const emu_range *emu_memory_find(const void *address)
{
	const unsigned char *at = static_cast<const unsigned char *>(address);
	auto range = first_ending_after(at);
	return range != ranges.end() && at >= range->begin && !range->released ? &*range : nullptr;
}

const emu_range *emu_memory_near(const void *address)
{
	const unsigned char *at = static_cast<const unsigned char *>(address);
	for (const emu_range &range : ranges)
		if (at >= range.begin - PAGE_BYTES && at < range.end + PAGE_BYTES)
			return &range;
	return nullptr;
}

size_t emu_memory_used() { return used; }

unsigned char *emu_shared_prepare(size_t bytes)
{
	if (!shared_end) {
		unsigned char *begin = map_guarded(EMU_SHARED_MAX, SHARED_ALIGNMENT);
		if (!begin)
			emu_fail({}, "memory", "there is none for a block's shared memory");
		shared_end = begin + EMU_SHARED_MAX;
	}
	unsigned char *begin = shared_end - round_up(bytes, SHARED_ALIGNMENT);
	memset(begin, EMU_POISON, bytes);
	return begin;
}

/* ---- faults ---- */

static void on_fault(int, siginfo_t *info, void *context)
{
	const unsigned char *at = static_cast<unsigned char *>(info->si_addr);
	const emu_site site = { nullptr, 0,
		reinterpret_cast<void *>(static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP]) };

	if (const emu_range *range = emu_memory_near(at))
		emu_fail(site, range->released ? "released memory" : "outside of an allocation",
			"offset %td of allocation %zu (%td bytes)", at - range->begin, range->number,
			range->end - range->begin);
	if (at >= shared_end - EMU_SHARED_MAX && at < shared_end + PAGE_BYTES)
		emu_fail(site, "outside of shared memory", "offset %td of %zu bytes", at - emu_block_now->shared,
			emu_block_now->shared_bytes);
	emu_fail(site, "fault", "address %p: a wild pointer", static_cast<const void *>(at));
}

emu_faults::emu_faults()
{
	struct sigaction action = {};
	action.sa_sigaction = on_fault;
	action.sa_flags = SA_SIGINFO;
	sigaction(SIGSEGV, &action, &before[0]);
	sigaction(SIGBUS, &action, &before[1]);
}

emu_faults::~emu_faults()
{
	sigaction(SIGSEGV, &before[0], nullptr);
	sigaction(SIGBUS, &before[1], nullptr);
}
