/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/emu/ptx90.h"

#include "kernels/cuda/emu/block.h"
#include "kernels/cuda/emu/check.h"
#include "kernels/cuda/emu/collectives.h"
#include "kernels/cuda/emu/memory.h"

#include <algorithm>
#include <string.h>
#include <vector>

namespace
{

enum { M = 64, WARP_M = 16, N_MAX = 256, K = 32, GROUP_WARPS = 4, ROW_BYTES = 128, ATOM_BYTES = 8 * ROW_BYTES };

struct mbarrier {
	const uint64_t *at;
	uint32_t arrivals, to_come;
	int64_t bytes;                    /* announced and not landed */
	uint32_t phase, fetching, waited; /* complete; that copies are for; that was waited for */
	uint16_t initialiser;
	bool fenced;
};
struct bulk_copy {
	unsigned char *to;
	const unsigned char *from;
	uint32_t bytes;
	mbarrier *barrier;
};

/* Of one lane: `saved` is what the accumulators held when the first operation on them was issued. */
struct operation {
	uint32_t n, group;
	int32_t *d;
	uint64_t a, b;
	bool add, first;
	emu_site site;
	std::vector<int32_t> saved;
};
struct lane {
	std::vector<operation> pending;
	uint32_t group; /* that the next operation is in */
	bool fenced;
};
/* What all four warps of a warpgroup must issue alike. */
struct issued {
	uint32_t n;
	uint64_t a, b;
	bool add;
};

/* Of the block that runs. */
std::vector<mbarrier *> mbarriers;
std::vector<bulk_copy> copies;
lane lanes[EMU_THREADS_MAX];
std::vector<issued> log_of_group[EMU_WARPS_MAX / GROUP_WARPS];
size_t done_by_warp[EMU_WARPS_MAX];

/* ---- mbarriers ---- */

mbarrier *find(const uint64_t *at)
{
	for (mbarrier *barrier : mbarriers)
		if (barrier->at == at)
			return barrier;
	return nullptr;
}

mbarrier *need(const uint64_t *at, emu_site site)
{
	mbarrier *barrier = find(at);
	if (!barrier)
		emu_fail(site, "mbarrier", "it was not initialised");
	emu_check_access(at, sizeof *at, EMU_READ, true, site);
	return barrier;
}

void complete_if_due(mbarrier *barrier)
{
	if (barrier->to_come > 0 || barrier->bytes != 0)
		return;
	barrier->to_come = barrier->arrivals;
	barrier->phase++;
	emu_check_complete(barrier->at);
	emu_wake(barrier->at);
}

/* ---- wgmma ---- */

/* Where row `row` of an operand begins, and the chunk of 16 bytes of it: bits 4 to 6 of an address
 * are changed by bits 7 to 9. */
const unsigned char *chunk_of(uint64_t operand, uint32_t row, uint32_t chunk, emu_site site)
{
	const emu_block *block = emu_block_now;
	const uint32_t start = static_cast<uint32_t>(operand & 0x3fff) << 4,
		       stride = static_cast<uint32_t>(operand >> 32 & 0x3fff) << 4;
	if (operand >> 62 != 1 || stride != ATOM_BYTES || (operand >> 49 & 7) != 0)
		emu_fail(site, "wgmma", "operand %016llx is not one of rows of 128 bytes, swizzled",
			static_cast<unsigned long long>(operand));

	uint32_t at = start + row / 8 * stride + row % 8 * ROW_BYTES + chunk * 16;
	at ^= (at >> 7 & 7) << 4;
	if (at + 16 > block->shared_bytes)
		emu_fail(site, "outside of shared memory", "wgmma at offset %u of %zu bytes", at, block->shared_bytes);
	return block->shared + at;
}

void load(uint64_t operand, uint32_t first_row, uint32_t rows, int16_t (*values)[K], emu_site site)
{
	for (uint32_t r = 0; r < rows; r++)
		for (uint32_t chunk = 0; chunk < K / 16; chunk++) {
			const unsigned char *from = chunk_of(operand, first_row + r, chunk, site);
			emu_check_async_read(from, 16, site);
			for (uint32_t i = 0; i < 16; i++)
				values[r][chunk * 16 + i] = static_cast<int8_t>(from[i]);
		}
}

/* The warp's 16 rows of one operation; of each lane, the same. */
void multiply(operation *const all[EMU_LANES], uint32_t warp)
{
	static int16_t a[WARP_M][K], b[N_MAX][K];
	static int32_t d[WARP_M][N_MAX];
	const operation *o = all[0];

	load(o->a, warp % GROUP_WARPS * WARP_M, WARP_M, a, o->site);
	load(o->b, 0, o->n, b, o->site);
	for (uint32_t m = 0; m < WARP_M; m++)
		for (uint32_t n = 0; n < o->n; n++) {
			int32_t dot = 0;
			for (uint32_t k = 0; k < K; k++)
				dot += a[m][k] * b[n][k];
			d[m][n] = dot;
		}
	for (uint32_t l = 0; l < EMU_LANES; l++)
		for (uint32_t i = 0; i < o->n / 2; i++) {
			const int32_t dot = d[l / 4 + i / 2 % 2 * 8][i / 4 * 8 + l % 4 * 2 + i % 2];
			all[l]->d[i] = all[l]->add ? all[l]->d[i] + dot : dot;
		}
}

void check_alike(const operation *o, uint32_t warp)
{
	std::vector<issued> *log = &log_of_group[warp / GROUP_WARPS];
	const size_t index = done_by_warp[warp]++;
	if (index == log->size())
		log->push_back({ o->n, o->a, o->b, o->add });
	const issued *other = &(*log)[index];
	if (other->n != o->n || other->a != o->a || other->b != o->b || other->add != o->add)
		emu_fail(o->site, "wgmma", "the warps of a warpgroup issue different operations");
}

struct waiting {
	uint32_t in_flight_max;
};

/* Those of groups that are waited for, in order; lanes issue alike. */
void finish_wait(void *const arguments[EMU_LANES], uint32_t mask)
{
	const uint32_t warp = emu_thread_now->warp, in_flight_max = static_cast<waiting *>(arguments[0])->in_flight_max;
	lane *first = &lanes[warp * EMU_LANES];
	size_t count = 0;

	if (mask != ~0u)
		emu_fail(emu_thread_now->site, "wgmma", "not all lanes wait");
	while (count < first->pending.size() && first->pending[count].group + in_flight_max < first->group)
		count++;
	for (size_t i = 0; i < count; i++) {
		operation *all[EMU_LANES];
		for (uint32_t l = 0; l < EMU_LANES; l++) {
			if (first[l].pending.size() != first->pending.size() ||
				first[l].pending[i].a != first->pending[i].a ||
				first[l].pending[i].b != first->pending[i].b)
				emu_fail(emu_thread_now->site, "wgmma", "lanes issue different operations");
			all[l] = &first[l].pending[i];
			if (all[l]->first)
				std::copy(all[l]->saved.begin(), all[l]->saved.end(), all[l]->d);
		}
		check_alike(all[0], warp);
		multiply(all, warp);
	}
	for (uint32_t l = 0; l < EMU_LANES; l++) {
		first[l].pending.erase(
			first[l].pending.begin(), first[l].pending.begin() + static_cast<ptrdiff_t>(count));
		first[l].fenced = false;
	}
}

}   // namespace

void emu_async_block_begin()
{
	for (mbarrier *barrier : mbarriers)
		delete barrier;
	mbarriers.clear();
	copies.clear();
	for (uint32_t i = 0; i < emu_block_now->threads; i++)
		lanes[i] = {};
	for (std::vector<issued> &log : log_of_group)
		log.clear();
	std::fill(std::begin(done_by_warp), std::end(done_by_warp), 0);
}

void emu_async_block_end()
{
	for (const mbarrier *barrier : mbarriers)
		if (barrier->fetching > barrier->waited)
			emu_fail({}, "bulk copy never waited for", "it may be under way at the end of the block");
	for (uint32_t warp = 0; warp * EMU_LANES < emu_block_now->threads; warp++)
		if (done_by_warp[warp] != log_of_group[warp / GROUP_WARPS].size())
			emu_fail({}, "wgmma", "the warps of a warpgroup issue different operations");
}

/* ---- mbarriers ---- */

void emu_mbarrier_init(uint64_t *at, uint32_t arrivals, emu_site site)
{
	emu_check_access(at, sizeof *at, EMU_WRITE, true, site);
	if (find(at))
		emu_fail(site, "mbarrier", "it is initialised twice");
	mbarriers.push_back(new mbarrier{ at, arrivals, arrivals, 0, 0, 0, 0, emu_thread_now->number, false });
}

void emu_mbarrier_fence_init()
{
	for (mbarrier *barrier : mbarriers)
		barrier->fenced |= barrier->initialiser == emu_thread_now->number;
}

void emu_mbarrier_arrive(uint64_t *at, uint32_t bytes, emu_site site)
{
	mbarrier *barrier = need(at, site);
	if (barrier->to_come == 0)
		emu_fail(site, "mbarrier", "more than %u threads arrive in a phase", barrier->arrivals);
	emu_check_release(at);
	barrier->bytes += bytes;
	barrier->to_come--;
	complete_if_due(barrier);
	emu_give_way();
}

void emu_mbarrier_wait(uint64_t *at, uint32_t parity, emu_site site)
{
	mbarrier *barrier = need(at, site);
	while (barrier->phase % 2 == parity)
		emu_park(at, site);
	barrier->waited = barrier->phase;
	emu_check_acquire(at);
}

/* ---- bulk copies ---- */

void emu_bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *at, emu_site site)
{
	const emu_block *block = emu_block_now;
	unsigned char *destination = static_cast<unsigned char *>(to);
	mbarrier *barrier = need(at, site);

	if (!barrier->fenced)
		emu_fail(site, "mbarrier", "it was initialised without a fence: copies may not see it");
	if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16 || bytes % 16 || bytes == 0)
		emu_fail(site, "misaligned", "bulk copy of %u bytes from %p to %p: all are multiples of 16", bytes,
			from, to);
	if (destination < block->shared || destination + bytes > block->shared + block->shared_bytes)
		emu_fail(site, "outside of shared memory", "bulk copy to offset %td of %zu bytes",
			destination - block->shared, block->shared_bytes);

	emu_check_access(from, bytes, EMU_READ, false, site);
	emu_check_copy_issued(to, bytes, true, site);
	memset(to, EMU_POISON, bytes);
	barrier->fetching = barrier->phase + 1;
	copies.push_back({ destination, static_cast<const unsigned char *>(from), bytes, barrier });
}

bool emu_bulk_land()
{
	if (copies.empty())
		return false;
	const size_t index = emu_random(&emu_block_now->random) % copies.size();
	const bulk_copy c = copies[index];
	copies.erase(copies.begin() + static_cast<ptrdiff_t>(index));
	memcpy(c.to, c.from, c.bytes);
	emu_check_copy_landed(c.to, c.bytes, c.barrier->at);
	c.barrier->bytes -= c.bytes;
	complete_if_due(c.barrier);
	return true;
}

void emu_fence_async() { emu_check_fence_async(); }

/* ---- wgmma ---- */

uint64_t emu_wgmma_operand(const void *shared, emu_site site)
{
	const unsigned char *at = static_cast<const unsigned char *>(shared);
	if (reinterpret_cast<uintptr_t>(at) % ATOM_BYTES != 0)
		emu_fail(site, "misaligned", "operand of wgmma at %p, which is not aligned to %d bytes", shared,
			ATOM_BYTES);
	return static_cast<uint64_t>(at - emu_block_now->shared) >> 4 | 1ull << 16 |
		static_cast<uint64_t>(ATOM_BYTES >> 4) << 32 | 1ull << 62;
}

void emu_wgmma_fence() { lanes[emu_thread_now->number].fenced = true; }

void emu_wgmma_s8(uint32_t n, int32_t *d, uint64_t a, uint64_t b, bool add, emu_site site)
{
	lane *l = &lanes[emu_thread_now->number];
	if (!l->fenced)
		emu_fail(site, "wgmma", "registers were used since the last wgmma.fence");

	operation o = { n, l->group, d, a, b, add, true, site, {} };
	for (const operation &other : l->pending)
		if (other.d == d)
			o.first = false;
	if (o.first)
		o.saved.assign(d, d + n / 2);
	std::fill(d, d + n / 2, -1); /* poison */
	l->pending.push_back(o);
}

void emu_wgmma_commit() { lanes[emu_thread_now->number].group++; }

void emu_wgmma_wait(uint32_t in_flight_max, emu_site site)
{
	waiting w = { in_flight_max };
	emu_collective(EMU_WGMMA_WAIT, ~0u, &w, finish_wait, false, site);
}

void emu_wgmma_thread_end()
{
	const size_t pending = lanes[emu_thread_now->number].pending.size();
	if (pending > 0)
		emu_fail({}, "wgmma never waited for", "%zu are under way at the end of the thread", pending);
}
