/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/emu/collectives.h"

#include "kernels/cuda/emu/block.h"

#include <algorithm>

namespace
{

struct shuffle {
	uint32_t value, source, result;
};
struct reduction {
	emu_collective_kind kind;
	uint32_t value, result;
};

/* Calls f(lane, its arguments) for every lane of the mask. */
template <class A, class F> void each(void *const arguments[EMU_LANES], uint32_t mask, F f)
{
	for (; mask; mask &= mask - 1) {
		uint32_t lane = static_cast<uint32_t>(__builtin_ctz(mask));
		f(lane, static_cast<A *>(arguments[lane]));
	}
}

void finish_shuffle(void *const arguments[EMU_LANES], uint32_t mask)
{
	each<shuffle>(arguments, mask, [&](uint32_t lane, shuffle *s) {
		if (s->source >= EMU_LANES || !(mask >> s->source & 1))
			emu_fail(emu_thread_now->site, "shuffle", "lane %u reads lane %u, which is not in mask %08x",
				lane, s->source, mask);
		s->result = static_cast<shuffle *>(arguments[s->source])->value;
	});
}

uint32_t reduce_two(emu_collective_kind kind, uint32_t a, uint32_t b)
{
	switch (kind) {
	case EMU_REDUCE_MAX: return std::max(a, b);
	case EMU_REDUCE_MIN: return std::min(a, b);
	default: return a | b;
	}
}

void finish_reduction(void *const arguments[EMU_LANES], uint32_t mask)
{
	uint32_t all = static_cast<reduction *>(arguments[__builtin_ctz(mask)])->value;
	each<reduction>(arguments, mask, [&](uint32_t, reduction *r) { all = reduce_two(r->kind, all, r->value); });
	each<reduction>(arguments, mask, [&](uint32_t, reduction *r) { r->result = all; });
}

}   // namespace

void emu_warp_sync(uint32_t mask, emu_site site) { emu_collective(EMU_WARP_SYNC, mask, nullptr, nullptr, true, site); }

uint32_t emu_shuffle(uint32_t mask, uint32_t value, uint32_t source, emu_site site)
{
	shuffle s = { value, source, 0 };
	emu_collective(EMU_SHUFFLE, mask, &s, finish_shuffle, false, site);
	return s.result;
}

uint32_t emu_reduce(emu_collective_kind kind, uint32_t mask, uint32_t value, emu_site site)
{
	reduction r = { kind, value, 0 };
	emu_collective(kind, mask, &r, finish_reduction, false, site);
	return r.result;
}
