/* SPDX-License-Identifier: Apache-2.0 */
/* What register tiles share: functions with constant row and vector counts that the compiler
 * unrolls fully, and a split of rows into near-equal tiles. */
#ifndef CADRE_KERNELS_CPU_TILE_H
#define CADRE_KERNELS_CPU_TILE_H

#include "kernels/cpu/tune.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KN_TILE static inline __attribute__((always_inline))

/* Loops over constant counts; without full unrolling the accumulators would live in memory. */
#if defined(__clang__)
#define KN_UNROLL_FOR(...) _Pragma("clang loop unroll(full)") for (__VA_ARGS__)
#else
#define KN_UNROLL_FOR(...) _Pragma("GCC unroll 16") for (__VA_ARGS__)
#endif

/* Hides a number from the compiler. In a loop whose count it knows, GCC 12 copies accumulators of
 * inline assembly to other registers and back, or to the stack, at every step. */
#define KN_HIDE(number) __asm__("" : "+r"(number))

/* Makes an accumulator that is up to date before the next one is begun: GCC 12 would begin all at
 * once, and run out of registers. */
#define KN_PIN(accumulator) __asm__ volatile("" : "+x"(accumulator))

/* Fetches what a tile will read of its weights: near, into the first cache, for a tile that waits for
 * memory alone; far, into the second, for one that also computes: the first cache's few misses at a
 * time would hold up its loop. */
KN_TILE void kn_tile_fetch(const bool far, const uint8_t *line)
{
	if (far)
		_mm_prefetch((const char *)line + KN_FETCH_FAR_BYTES, _MM_HINT_T1);
	else
		_mm_prefetch((const char *)line + KN_FETCH_NEAR_BYTES, _MM_HINT_T0);
}

/* Rows of the next tile: `rest` rows in the fewest tiles of at most `max`, as even as can be (13
 * rows of 12 are 7 + 6, not 12 + 1). */
static inline size_t kn_tile_rows(size_t rest, size_t max)
{
	size_t tiles = (rest + max - 1) / max;
	return (rest + tiles - 1) / tiles;
}

#endif
