/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM on integers with AVX-512 VNNI: one line of weights (16 columns, 4 values of k) is one
 * register, 16 columns of one row one accumulator.
 *
 * VPDPBUSD wants one side unsigned: s8 weights get + 128 (xor 0x80), u4 weights are stored + 8.
 * Starting a dot at -128 or -8 times the sum of the row's q takes that away again, exactly. The
 * instruction is written out because GCC 12 copies the accumulator of _mm512_dpbusd_epi32, and
 * stores it at every step.
 */
#include "kernels/cpu/gemm_int_nest.h"

enum { ROWS = 6, STRIDE = 8 }; /* 6 rows x 4 lines: 24 accumulators */

#define DOT_ADD(dot, w, x) __asm__("vpdpbusd %2, %1, %0" : "+v"(dot) : "v"(w), "v"(x))

/* One row is read as fast as memory gives it, straight into L1. More rows want L1 for what they
 * have there. */
#define FETCH(at, one_row) \
	do { \
		if (one_row) \
			_mm_prefetch((const char *)(at), _MM_HINT_T0); \
		else \
			_mm_prefetch((const char *)(at), _MM_HINT_T1); \
	} while (0)

/* y = (float)dot * (the row's scale * the columns') + y, where y counts as +0 in lanes that are not
 * kept. */
static inline void scale_add(__m512i dot, float x_scale, const float *scales, __mmask16 kept, float *y)
{
	__m512 scale = _mm512_mul_ps(_mm512_set1_ps(x_scale), _mm512_load_ps(scales));
	__m512 acc = _mm512_maskz_loadu_ps(kept, y);
	_mm512_storeu_ps(y, _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, acc));
}

/* mr rows over one KN_GROUP of k */
KN_TILE void tile(const size_t mr, const bool s8, const size_t stride, const struct kn_int_tile *t)
{
	const size_t group = s8 ? KN_GROUP : KN_GROUP_INT4;
	const __m512i flip = _mm512_set1_epi8((char)0x80), low_bits = _mm512_set1_epi8(0x0f);
	const uint8_t *at = t->weights, *fetch = t->fetch;
	const int32_t *q = t->q;
	size_t steps = group / (s8 ? 4 : 8);

	KN_HIDE(steps);
	for (size_t i = 0; i < KN_GROUP / group; i++) {
		const float *scales = (const float *)at;
		__m512i dot[ROWS][4], w[4];
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
				dot[r][v] = _mm512_set1_epi32((s8 ? -128 : -8) * t->sums[i * stride + r]);

		at += KN_STEP_BYTES;
		for (size_t s = 0; s < steps; s++, at += KN_STEP_BYTES, q += stride * (s8 ? 1 : 2)) {
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++) {
				__m512i line = _mm512_load_si512(at + v * 64);
				FETCH(fetch + v * 64, stride == 1);
				w[v] = s8 ? _mm512_xor_si512(line, flip) : _mm512_and_si512(line, low_bits);
			}
			fetch += t->fetch_step;
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
				__m512i x = _mm512_set1_epi32(q[r]);
				KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
					DOT_ADD(dot[r][v], w[v], x);
			}
			KN_UNROLL_FOR (size_t v = 0; v < 4 && !s8; v++)
				w[v] = _mm512_and_si512(_mm512_srli_epi32(_mm512_load_si512(at + v * 64), 4), low_bits);
			KN_UNROLL_FOR (size_t r = 0; r < mr && !s8; r++) {
				__m512i x = _mm512_set1_epi32(q[stride + r]);
				KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
					DOT_ADD(dot[r][v], w[v], x);
			}
		}

		__mmask16 kept = t->first && i == 0 ? 0 : 0xffff;
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
				scale_add(dot[r][v], t->scales[r], scales + v * 16, kept, t->y + r * t->ldy + v * 16);
	}
}

#define TILE(mr, stride, name, s8) \
	static void tile_##name##_##mr(const struct kn_int_tile *t) { tile(mr, s8, stride, t); }
/* clang-format off */
#define TILES(name, s8) \
	TILE(1, 1, name, s8) TILE(2, STRIDE, name, s8) TILE(3, STRIDE, name, s8) \
	TILE(4, STRIDE, name, s8) TILE(5, STRIDE, name, s8) TILE(6, STRIDE, name, s8) \
	static kn_int_tile_fn *const tiles_##name[ROWS] = { \
		tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4, tile_##name##_5, tile_##name##_6, \
	};
/* clang-format on */
TILES(s8, true)
TILES(u4, false)
static const struct kn_int_tiles of_s8 = { tiles_s8, ROWS, STRIDE, KN_STORAGE_S8 };
static const struct kn_int_tiles of_u4 = { tiles_u4, ROWS, STRIDE, KN_STORAGE_U4 };

/* AVX-512 came before VNNI. */
static bool has_vnni(void) { return __builtin_cpu_supports("avx512vnni"); }

void kn_avx512_gemm_s8(const struct kn_gemm *g)
{
	if (has_vnni())
		kn_gemm_int_nest(g, &of_s8);
	else
		kn_avx2_gemm_s8(g);
}

void kn_avx512_gemm_u4(const struct kn_gemm *g)
{
	if (has_vnni())
		kn_gemm_int_nest(g, &of_u4);
	else
		kn_avx2_gemm_u4(g);
}
