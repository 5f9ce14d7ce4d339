/* SPDX-License-Identifier: Apache-2.0 */
/* The AMX form over tiles in plain C: kernels/cpu/amx_tile.h once more, by the instruction manual.
 * */
#include <stdint.h>
#include <string.h>

static _Thread_local union {
	int8_t s8[16][64];
	int32_t s32[16][16];
} twin[8];

static inline void kn_amx_begin(void) { memset(twin, 0x5a, sizeof twin); }
static inline void kn_amx_end(void) { memset(twin, 0xa5, sizeof twin); }

static void tile_load(int tile, const void *from, size_t stride)
{
	for (size_t r = 0; r < 16; r++)
		memcpy(twin[tile].s8[r], (const uint8_t *)from + r * stride, 64);
}

static void tile_store(int tile, void *to, size_t stride)
{
	for (size_t r = 0; r < 16; r++)
		memcpy((uint8_t *)to + r * stride, twin[tile].s8[r], 64);
}

/* TDPBSSD */
static void tile_dot(int sum, int rows, int columns)
{
	for (size_t m = 0; m < 16; m++)
		for (size_t k = 0; k < 16; k++)
			for (size_t n = 0; n < 16; n++)
				for (size_t i = 0; i < 4; i++)
					twin[sum].s32[m][n] +=
						twin[rows].s8[m][4 * k + i] * twin[columns].s8[k][4 * n + i];
}

#define KN_AMX_TWIN
#define KN_AMX_FENCE() __asm__ volatile("" ::: "memory")
#define KN_AMX_ZERO(tile) memset(&twin[tile], 0, sizeof twin[tile])
#define KN_AMX_LOAD(tile, from, stride) tile_load(tile, from, stride)
#define KN_AMX_STORE(tile, to, stride) tile_store(tile, to, stride)
#define KN_AMX_DOT(sum, rows, columns) tile_dot(sum, rows, columns)
#define kn_amx_gemm_s8 twins_amx_s8
#define kn_amx_gemm_u4 twins_amx_u4
#include "tests/support/twins.h"

#include <immintrin.h>

#include "kernels/cpu/amx_gemm.c"

void twin_amx_gemm_s8(const struct kn_gemm *g) { kn_amx_gemm_s8(g); }
void twin_amx_gemm_u4(const struct kn_gemm *g) { kn_amx_gemm_u4(g); }
