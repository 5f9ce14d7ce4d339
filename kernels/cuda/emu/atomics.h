/* SPDX-License-Identifier: Apache-2.0 */
/* Atomic operations on device memory, whose threads run one at a time here. In the checking build,
 * those of other blocks are no race, and plain accesses beside them are. */
#ifndef CADRE_KERNELS_CUDA_EMU_ATOMICS_H
#define CADRE_KERNELS_CUDA_EMU_ATOMICS_H

#include "kernels/cuda/emu/report.h"

/* What was there before. */
unsigned long long emu_atomic_add(unsigned long long *at, unsigned long long value, emu_site site);
unsigned emu_atomic_min(unsigned *at, unsigned value, emu_site site);

#endif
