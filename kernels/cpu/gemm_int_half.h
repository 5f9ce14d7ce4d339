/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Register tiles of integer GEMMs in registers of 256 bits, what avx2_gemm_int.c and
 * avxvnni_gemm.c share: half a line of weights (8 columns, 4 values of k) is one register, 8 columns
 * of one row one accumulator. The includer defines, before it includes this:
 *   S8_ABOVE   what its dots take s8 weights for above their value (u4 is stored + 8)
 *   struct half_line, half_line(s8, line)   half a line, as its dots take it
 *   row_add(s8, dot, w, q, stride)   -> dot + the half line w times the values of a row at *q; the
 *       high halves of u4 times those at q[stride]
 */
#ifndef CADRE_KERNELS_CPU_GEMM_INT_HALF_H
#define CADRE_KERNELS_CPU_GEMM_INT_HALF_H

#include "kernels/cpu/gemm_int_nest.h"

enum { KN_HALF_ROWS = 4 }; /* 4 rows x 2 half lines */

/* y = (float)dot * (the row's scale * the columns') + y, where y counts as `kept` says: all bits,
 * or none. */
static inline void scale_add(__m256i dot, float x_scale, const float *scales, __m256 kept, float *y)
{
	__m256 scale = _mm256_mul_ps(_mm256_set1_ps(x_scale), _mm256_load_ps(scales));
	__m256 acc = _mm256_and_ps(_mm256_loadu_ps(y), kept);
	_mm256_storeu_ps(y, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc));
}

/* mr rows by nv half lines from half line v0 on, over one KN_GROUP of k. A dot starts at what takes
 * away again, exactly, what its weights are above their value. */
KN_TILE void tile(const size_t mr, const size_t nv, const size_t v0, const bool s8, const size_t stride,
	const struct kn_int_tile *t)
{
	const size_t group = s8 ? KN_GROUP : KN_GROUP_INT4;
	const uint8_t *at = t->weights, *fetch = t->fetch + v0 * 32;
	const int32_t *q = t->q;
	size_t steps = group / (s8 ? 4 : 8);

	KN_HIDE(steps);
	for (size_t i = 0; i < KN_GROUP / group; i++) {
		const float *scales = (const float *)at + v0 * 8;
		__m256i dot[KN_HALF_ROWS][8];
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
				dot[r][v] = _mm256_set1_epi32((s8 ? -S8_ABOVE : -8) * t->sums[i * stride + r]);

		at += KN_STEP_BYTES;
		for (size_t s = 0; s < steps; s++, at += KN_STEP_BYTES, q += stride * (s8 ? 1 : 2)) {
			KN_UNROLL_FOR (size_t v = 0; v < nv; v += 2)
				_mm_prefetch((const char *)fetch + v * 32, _MM_HINT_T0);
			fetch += t->fetch_step;
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
				struct half_line w =
					half_line(s8, _mm256_load_si256((const __m256i *)(at + (v0 + v) * 32)));
				KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
					dot[r][v] = row_add(s8, dot[r][v], w, q + r, stride);
			}
		}

		__m256 kept = _mm256_castsi256_ps(_mm256_set1_epi32(t->first && i == 0 ? 0 : -1));
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
				scale_add(dot[r][v], t->scales[r], scales + v * 8, kept,
					t->y + r * t->ldy + (v0 + v) * 8);
	}
}

/* clang-format off */
#define KN_HALF_TILE(mr, nv, stride, name, s8) \
	static void tile_##name##_##mr(const struct kn_int_tile *t) \
	{ \
		KN_UNROLL_FOR (size_t v0 = 0; v0 < 8; v0 += nv) \
			tile(mr, nv, v0, s8, stride, t); \
	}
/* of_NAME; a tile of two rows takes `of_two` half lines at once, one of four `of_four`. */
#define KN_HALF_TILES(name, s8, of_two, of_four) \
	KN_HALF_TILE(1, 8, 1, name, s8) KN_HALF_TILE(2, of_two, KN_HALF_ROWS, name, s8) \
	KN_HALF_TILE(3, 2, KN_HALF_ROWS, name, s8) KN_HALF_TILE(4, of_four, KN_HALF_ROWS, name, s8) \
	static kn_int_tile_fn *const tiles_##name[KN_HALF_ROWS] = { \
		tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4, \
	}; \
	static const struct kn_int_tiles of_##name = { \
		tiles_##name, KN_HALF_ROWS, KN_HALF_ROWS, s8 ? KN_STORAGE_S8 : KN_STORAGE_U4, \
	};
/* clang-format on */

#endif
