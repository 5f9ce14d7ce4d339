/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Register tiles of integer GEMMs in registers of 256 bits, what avx2_gemm_int.c and
 * avxvnni_gemm.c share: half a line of weights (8 columns, 4 values of k) is one register, 8 columns
 * of one row one accumulator. The includer defines, before it includes this:
 *   S8_ABOVE   what its dots take s8 weights for above their value
 *   struct s8_half, s8_half(line)   half a line of s8, as its dots take it
 *   s8_add(dot, w, x)   -> dot + w times four values of a row, in each lane of x
 *   u4_begin(factors, sum)   what the dot over a sub-group begins with; sum: of the row's q in it
 *   u4_add(dot, w, x)   the same as s8_add, of u, a byte each
 *   u4_end(total, dot, factors, sum)   -> total + the sub-group's dot with (u - z) * s
 */
#ifndef CADRE_KERNELS_CPU_GEMM_INT_HALF_H
#define CADRE_KERNELS_CPU_GEMM_INT_HALF_H

#include "kernels/cpu/gemm_int_nest.h"

enum { KN_HALF_ROWS = 4 }; /* 4 rows x 2 half lines */

/* y = (float)dot * (the row's scale * the columns') + y of row r and half line v, where y counts as
 * +0 at first. */
static inline void scale_add(__m256i dot, const struct kn_int_tile *t, size_t r, size_t v)
{
	float *y = t->y + r * t->ldy + v * 8;
	__m256 scale = _mm256_mul_ps(_mm256_set1_ps(t->scales[r]), _mm256_load_ps((const float *)t->weights + v * 8));
	__m256 kept = _mm256_castsi256_ps(_mm256_set1_epi32(t->first ? 0 : -1));
	__m256 acc = _mm256_and_ps(_mm256_loadu_ps(y), kept);
	_mm256_storeu_ps(y, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc));
}

static inline __m256i half_of(const uint8_t *step, size_t v)
{
	return _mm256_load_si256((const __m256i *)(step + v * 32));
}

static inline struct kn_u4_factors factors_of(const uint8_t *subscales, size_t v, size_t j)
{
	return kn_u4_factors_of(_mm256_srl_epi32(half_of(subscales, v), _mm_cvtsi32_si128(4 * (int)j)));
}

/* mr rows by nv half lines from half line v0 on, over one KN_GROUP of k, of s8. A dot starts at
 * what takes away again, exactly, what its weights are above their value. */
KN_TILE void tile_s8(
	const size_t mr, const size_t nv, const size_t v0, const size_t stride, const struct kn_int_tile *t)
{
	const uint8_t *at = t->weights + KN_STEP_BYTES + v0 * 32, *fetch = t->fetch + v0 * 32;
	const int32_t *q = t->q;
	size_t steps = KN_GROUP / 4;
	__m256i dot[KN_HALF_ROWS][8];

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			dot[r][v] = _mm256_set1_epi32(-S8_ABOVE * t->sums[r]);

	KN_HIDE(steps);
	for (size_t s = 0; s < steps; s++, at += KN_STEP_BYTES, q += stride) {
		KN_UNROLL_FOR (size_t v = 0; v < nv; v += 2)
			_mm_prefetch((const char *)fetch + v * 32, _MM_HINT_T0);
		fetch += t->fetch_step;
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
			struct s8_half w = s8_half(half_of(at, v));
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
				dot[r][v] = s8_add(dot[r][v], w, _mm256_set1_epi32(q[r]));
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			scale_add(dot[r][v], t, r, v0 + v);
}

/* The same of u4: a dot over each sub-group, that factors then multiply. */
KN_TILE void tile_u4(
	const size_t mr, const size_t nv, const size_t v0, const size_t stride, const struct kn_int_tile *t)
{
	const __m256i low_bits = _mm256_set1_epi8(0x0f);
	const uint8_t *subscales = t->weights + KN_STEP_BYTES + v0 * 32, *at = subscales + KN_STEP_BYTES,
		      *fetch = t->fetch + v0 * 32;
	const int32_t *q = t->q;
	__m256i dot[KN_HALF_ROWS][8], total[KN_HALF_ROWS][8];

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			total[r][v] = _mm256_setzero_si256();

	for (size_t j = 0; j < KN_SUBGROUPS; j++) {
		const int32_t *sums = t->sums + (1 + j) * stride;
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
			struct kn_u4_factors f = factors_of(subscales, v, j);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
				dot[r][v] = u4_begin(f, _mm256_set1_epi32(sums[r]));
		}

		size_t steps = KN_SUBGROUP / 8;
		KN_HIDE(steps);
		do {
			KN_UNROLL_FOR (size_t v = 0; v < nv; v += 2)
				_mm_prefetch((const char *)fetch + v * 32, _MM_HINT_T0);
			fetch += t->fetch_step;
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
				__m256i low = _mm256_and_si256(half_of(at, v), low_bits);
				KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
					dot[r][v] = u4_add(dot[r][v], low, _mm256_set1_epi32(q[r]));
			}
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
				__m256i high = _mm256_and_si256(_mm256_srli_epi32(half_of(at, v), 4), low_bits);
				KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
					dot[r][v] = u4_add(dot[r][v], high, _mm256_set1_epi32(q[stride + r]));
			}
			at += KN_STEP_BYTES;
			q += 2 * stride;
		} while (--steps > 0);

		KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
			struct kn_u4_factors f = factors_of(subscales, v, j);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
				total[r][v] = u4_end(total[r][v], dot[r][v], f, _mm256_set1_epi32(sums[r]));
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			scale_add(total[r][v], t, r, v0 + v);
}

/* clang-format off */
#define KN_HALF_TILE(mr, nv, stride, name) \
	static void tile_##name##_##mr(const struct kn_int_tile *t) \
	{ \
		KN_UNROLL_FOR (size_t v0 = 0; v0 < 8; v0 += nv) \
			tile_##name(mr, nv, v0, stride, t); \
	}
/* of_NAME; a tile of two rows takes `of_two` half lines at once, one of four `of_four`. */
#define KN_HALF_TILES(name, of_storage, of_two, of_four) \
	KN_HALF_TILE(1, 8, 1, name) KN_HALF_TILE(2, of_two, KN_HALF_ROWS, name) \
	KN_HALF_TILE(3, 2, KN_HALF_ROWS, name) KN_HALF_TILE(4, of_four, KN_HALF_ROWS, name) \
	static kn_int_tile_fn *const tiles_##name[KN_HALF_ROWS] = { \
		tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4, \
	}; \
	static const struct kn_int_tiles of_##name = { tiles_##name, KN_HALF_ROWS, KN_HALF_ROWS, of_storage };
/* clang-format on */

#endif
