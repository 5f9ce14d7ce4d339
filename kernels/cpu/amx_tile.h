/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tile operations of AMX that amx_gemm*.c use. Every tile has 16 rows of 64 bytes. The tests
 * have a twin of this header in plain C (tests/support/twins_amx.c), so that what is built on it is
 * tested on machines without AMX.
 */
#ifndef CADRE_KERNELS_CPU_AMX_TILE_H
#define CADRE_KERNELS_CPU_AMX_TILE_H

#include <immintrin.h>
#include <stdint.h>

/* GCC 12's tile intrinsics do not say that they read and write memory: this stands between them and
 * other code that touches it. */
#define KN_AMX_FENCE() __asm__ volatile("" ::: "memory")

static inline void kn_amx_begin(void)
{
	struct {
		uint8_t palette, start_row, reserved[14];
		uint16_t row_bytes[16];
		uint8_t rows[16];
	} config = { .palette = 1 };
	_Static_assert(sizeof config == 64, "the tile configuration is 64 bytes");

	for (int i = 0; i < 8; i++) {
		config.row_bytes[i] = 64;
		config.rows[i] = 16;
	}
	__asm__ volatile("" ::"r"(&config) : "memory"); /* or the stores above would be dropped */
	_tile_loadconfig(&config);
}
static inline void kn_amx_end(void) { _tile_release(); }

#define KN_AMX_ZERO(tile) _tile_zero(tile)
#define KN_AMX_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define KN_AMX_STORE(tile, to, stride) _tile_stored(tile, to, stride)
/* sum += the dot products of 4 values: rows of signed bytes by columns of them */
#define KN_AMX_DOT(sum, rows, columns) _tile_dpbssd(sum, rows, columns)
/* sum += rows of bf16 by columns of them, in the order of profile bf16 */
#define KN_AMX_DOT_BF16(sum, rows, columns) _tile_dpbf16ps(sum, rows, columns)

#endif
