/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cpu/amx_tile.h once more, in plain C, by the instruction manual. */
#ifndef CADRE_TESTS_SUPPORT_TWINS_AMX_H
#define CADRE_TESTS_SUPPORT_TWINS_AMX_H

#include "kernels/cpu/bf16.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static _Thread_local union {
	int8_t s8[16][64];
	int32_t s32[16][16];
	float f32[16][16];
} twin[8];

static inline void kn_amx_begin(void) { memset(twin, 0x5a, sizeof twin); }
static inline void kn_amx_end(void) { memset(twin, 0xa5, sizeof twin); }

static inline void tile_load(int tile, const void *from, size_t stride)
{
	for (size_t r = 0; r < 16; r++)
		memcpy(twin[tile].s8[r], (const uint8_t *)from + r * stride, 64);
}

static inline void tile_store(int tile, void *to, size_t stride)
{
	for (size_t r = 0; r < 16; r++)
		memcpy((uint8_t *)to + r * stride, twin[tile].s8[r], 64);
}

/* TDPBSSD */
static inline void tile_dot(int sum, int rows, int columns)
{
	for (size_t m = 0; m < 16; m++)
		for (size_t k = 0; k < 16; k++)
			for (size_t n = 0; n < 16; n++)
				for (size_t i = 0; i < 4; i++)
					twin[sum].s32[m][n] +=
						twin[rows].s8[m][4 * k + i] * twin[columns].s8[k][4 * n + i];
}

static inline float f32_of_bf16(const int8_t *at)
{
	float f = 0;
	memcpy((uint8_t *)&f + 2, at, 2);
	return f;
}

/* TDPBF16PS: its products of even k and of odd k, each added up by fma, and then the two sums */
static inline void tile_dot_bf16(int sum, int rows, int columns)
{
	unsigned csr = kn_mode_begin(KN_MODE_FLUSH);
	for (size_t m = 0; m < 16; m++)
		for (size_t n = 0; n < 16; n++) {
			float sums[2] = { 0, 0 };
			for (size_t k = 0; k < 32; k++)
				sums[k % 2] = fmaf(f32_of_bf16(&twin[rows].s8[m][2 * k]),
					f32_of_bf16(&twin[columns].s8[k / 2][4 * n + k % 2 * 2]), sums[k % 2]);
			twin[sum].f32[m][n] = twin[sum].f32[m][n] + (sums[0] + sums[1]);
		}
	kn_mode_end(csr);
}

#define KN_AMX_TWIN
#define KN_AMX_FENCE() __asm__ volatile("" ::: "memory")
#define KN_AMX_ZERO(tile) memset(&twin[tile], 0, sizeof twin[tile])
#define KN_AMX_LOAD(tile, from, stride) tile_load(tile, from, stride)
#define KN_AMX_STORE(tile, to, stride) tile_store(tile, to, stride)
#define KN_AMX_DOT(sum, rows, columns) tile_dot(sum, rows, columns)
#define KN_AMX_DOT_BF16(sum, rows, columns) tile_dot_bf16(sum, rows, columns)

#endif
