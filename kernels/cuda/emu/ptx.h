/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The twins of kernels/cuda/ptx.h. Fragments of m16n8k32 with elements of one byte, as the PTX
 * manual draws them; g = lane / 4, t = lane % 4:
 *
 *   A (16 x 32, by rows)             B (32 x 8, by columns)        C and D (16 x 8)
 *   a[0] row g,     k 4t .. 4t+3     b[0] column g, k 4t .. 4t+3   c[0], c[1] row g,
 *   a[1] row g + 8, k 4t .. 4t+3     b[1] column g, k 16 + 4t ..     columns 2t, 2t + 1
 *   a[2] row g,     k 16 + 4t ..                                   c[2], c[3] row g + 8,
 *   a[3] row g + 8, k 16 + 4t ..                                     columns 2t, 2t + 1
 *
 * Those of m16n8k16 with elements of two bytes are the same words: k 2t, 2t + 1 for 4t .. 4t + 3,
 * and k 8 + 2t, 9 + 2t for the others. Their sums are Hopper's (kernels/sm90.h), whichever device
 * is played, unless CADRE_EMU_OTHER_SUMS is 1 (a step takes its products from the last on) or 2
 * (sums have 16 bits).
 *
 * cp.async is as hostile as the manual allows: its destination is poison from the issue on (the
 * copy may land at once), and holds the data only after the wait that must have them (it may land
 * as late as that).
 */
#ifndef CADRE_KERNELS_CUDA_EMU_PTX_H
#define CADRE_KERNELS_CUDA_EMU_PTX_H

#include "kernels/cuda/emu/report.h"

#include <math.h>
#include <stdint.h>

void emu_cp_async(void *to, const void *from, uint32_t bytes, uint32_t from_bytes, emu_site site);
void emu_cp_async_commit();
void emu_cp_async_wait(uint32_t in_flight_max);
void emu_ldmatrix(uint32_t *registers, uint32_t matrices, const void *row, emu_site site);
void emu_mma_s8(int32_t *c, const uint32_t *a, const uint32_t *b, emu_site site);
void emu_mma_bf16(float *c, const uint32_t *a, const uint32_t *b, emu_site site);

inline void ptx_cp_async_16(void *to, const void *from, uint32_t from_bytes, EMU_HERE_ARGS)
{
	emu_cp_async(to, from, 16, from_bytes, EMU_HERE);
}
inline void ptx_cp_async_4(void *to, const void *from, uint32_t from_bytes, EMU_HERE_ARGS)
{
	emu_cp_async(to, from, 4, from_bytes, EMU_HERE);
}
inline void ptx_cp_async_commit() { emu_cp_async_commit(); }
template <int N> inline void ptx_cp_async_wait() { emu_cp_async_wait(N); }

inline void ptx_ldmatrix_x4(uint32_t (&r)[4], const void *row, EMU_HERE_ARGS) { emu_ldmatrix(r, 4, row, EMU_HERE); }
inline void ptx_ldmatrix_x2(uint32_t (&r)[2], const void *row, EMU_HERE_ARGS) { emu_ldmatrix(r, 2, row, EMU_HERE); }

inline void ptx_mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_HERE_ARGS)
{
	emu_mma_s8(c, a, b, EMU_HERE);
}
inline void ptx_mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_HERE_ARGS)
{
	emu_mma_bf16(c, a, b, EMU_HERE);
}

inline float ptx_f32_of_f16(uint16_t bits)
{
	const int exponent = bits >> 10 & 31, fraction = bits & 1023;
	const float infinite = fraction ? NAN : INFINITY,
		    finite = exponent == 0 ? static_cast<float>(fraction) * 0x1p-24f
					   : ldexpf(static_cast<float>(1024 + fraction), exponent - 25);
	return copysignf(exponent == 31 ? infinite : finite, bits >> 15 ? -1.0f : 1.0f);
}

#endif
