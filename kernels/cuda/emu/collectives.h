/* SPDX-License-Identifier: Apache-2.0 */
/* What the lanes of a warp do together: votes, shuffles, sums. The calls wait (block.h). */
#ifndef CADRE_KERNELS_CUDA_EMU_COLLECTIVES_H
#define CADRE_KERNELS_CUDA_EMU_COLLECTIVES_H

#include "kernels/cuda/emu/report.h"

#include <stdint.h>

/* The kinds of collectives; those of ptx.h too. Lanes that meet in two of them are a mistake. */
enum emu_collective_kind : uint8_t {
	EMU_WARP_SYNC,
	EMU_SHUFFLE,
	EMU_REDUCE_MAX,
	EMU_REDUCE_MIN,
	EMU_REDUCE_OR,
	EMU_LDMATRIX,
	EMU_MMA_S8,
	EMU_MMA_BF16,
	EMU_WGMMA_WAIT,
};

void emu_warp_sync(uint32_t mask, emu_site site);
/* The value of lane `source`. Reading from a lane outside of the mask is undefined in CUDA; here it
 * is a mistake. */
uint32_t emu_shuffle(uint32_t mask, uint32_t value, uint32_t source, emu_site site);
uint32_t emu_reduce(emu_collective_kind kind, uint32_t mask, uint32_t value, emu_site site);

#endif
