/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/emu/atomics.h"

#include "kernels/cuda/emu/check.h"

#include <algorithm>

unsigned long long emu_atomic_add(unsigned long long *at, unsigned long long value, emu_site site)
{
	emu_check_access(at, sizeof *at, EMU_ATOMIC, true, site);
	unsigned long long before = *at;
	*at += value;
	return before;
}

unsigned emu_atomic_min(unsigned *at, unsigned value, emu_site site)
{
	emu_check_access(at, sizeof *at, EMU_ATOMIC, true, site);
	unsigned before = *at;
	*at = std::min(before, value);
	return before;
}
