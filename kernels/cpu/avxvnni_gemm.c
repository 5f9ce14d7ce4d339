/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM on integers with AVX-VNNI, for processors that have VNNI but no AVX-512: half a line of
 * weights (8 columns, 4 values of k) is one register, 8 columns of one row one accumulator. See
 * avx512vnni_gemm.c. The tests also build it for the registers of AVX-512 (KN_VEX empty), whose
 * instruction of this width computes the same.
 */
#include "kernels/cpu/gemm_int_nest.h"

#ifndef KN_VEX
#define KN_VEX "%{vex%} "
#endif

enum { ROWS = 4 }; /* 4 rows x 2 half lines */

#define DOT_ADD(dot, w, x) __asm__(KN_VEX "vpdpbusd %2, %1, %0" : "+x"(dot) : "x"(w), "x"(x))

/* y = (float)dot * (the row's scale * the columns') + y, where y counts as `kept` says: all bits,
 * or none. */
static inline void scale_add(__m256i dot, float x_scale, const float *scales, __m256 kept, float *y)
{
	__m256 scale = _mm256_mul_ps(_mm256_set1_ps(x_scale), _mm256_load_ps(scales));
	__m256 acc = _mm256_and_ps(_mm256_loadu_ps(y), kept);
	_mm256_storeu_ps(y, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc));
}

/* mr rows by nv half lines from half line v0 on, over one KN_GROUP of k */
KN_TILE void tile(const size_t mr, const size_t nv, const size_t v0, const bool s8, const size_t stride,
	const struct kn_int_tile *t)
{
	const size_t group = s8 ? KN_GROUP : KN_GROUP_INT4;
	const __m256i flip = _mm256_set1_epi8((char)0x80), low_bits = _mm256_set1_epi8(0x0f);
	const uint8_t *at = t->weights, *fetch = t->fetch + v0 * 32;
	const int32_t *q = t->q;
	size_t steps = group / (s8 ? 4 : 8);

	KN_HIDE(steps);
	for (size_t i = 0; i < KN_GROUP / group; i++) {
		const float *scales = (const float *)at + v0 * 8;
		__m256i dot[ROWS][8];
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
				dot[r][v] = _mm256_set1_epi32((s8 ? -128 : -8) * t->sums[i * stride + r]);

		at += KN_STEP_BYTES;
		for (size_t s = 0; s < steps; s++, at += KN_STEP_BYTES, q += stride * (s8 ? 1 : 2)) {
			KN_UNROLL_FOR (size_t v = 0; v < nv; v += 2)
				_mm_prefetch((const char *)fetch + v * 32, _MM_HINT_T0);
			fetch += t->fetch_step;
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
				__m256i line = _mm256_load_si256((const __m256i *)(at + (v0 + v) * 32));
				__m256i low = s8 ? _mm256_xor_si256(line, flip) : _mm256_and_si256(line, low_bits),
					high = _mm256_and_si256(_mm256_srli_epi32(line, 4), low_bits);
				KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
					DOT_ADD(dot[r][v], low, _mm256_set1_epi32(q[r]));
					if (!s8)
						DOT_ADD(dot[r][v], high, _mm256_set1_epi32(q[stride + r]));
				}
			}
		}

		__m256 kept = _mm256_castsi256_ps(_mm256_set1_epi32(t->first && i == 0 ? 0 : -1));
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
				scale_add(dot[r][v], t->scales[r], scales + v * 8, kept,
					t->y + r * t->ldy + (v0 + v) * 8);
	}
}

#define TILE(mr, nv, stride, name, s8) \
	static void tile_##name##_##mr(const struct kn_int_tile *t) \
	{ \
		KN_UNROLL_FOR (size_t v0 = 0; v0 < 8; v0 += nv) \
			tile(mr, nv, v0, s8, stride, t); \
	}
/* clang-format off */
#define TILES(name, s8) \
	TILE(1, 8, 1, name, s8) TILE(2, 4, ROWS, name, s8) TILE(3, 2, ROWS, name, s8) TILE(4, 2, ROWS, name, s8) \
	static kn_int_tile_fn *const tiles_##name[ROWS] = { \
		tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4, \
	}; \
	static const struct kn_int_tiles of_##name = { tiles_##name, ROWS, ROWS, s8 ? KN_STORAGE_S8 : KN_STORAGE_U4 };
/* clang-format on */
TILES(s8, true)
TILES(u4, false)

void kn_avxvnni_gemm_s8(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_s8); }
void kn_avxvnni_gemm_u4(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_u4); }
