/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM on integers with AVX-512 VNNI: one line of weights (16 columns, 4 values of k) is one
 * register, 16 columns of one row one accumulator.
 *
 * VPDPBUSD wants one side unsigned: s8 weights get + 128 (xor 0x80), u4 weights are above by z
 * (quantise.h). Starting a dot at -128 or -z times the sum of the row's q takes that away again,
 * exactly. The instruction is written out because GCC 12 copies the accumulator of
 * _mm512_dpbusd_epi32, and stores it at every step.
 */
#include "kernels/cpu/gemm_int_nest.h"

enum { ROWS = 6, STRIDE = 8 }; /* 6 rows x 4 lines: 24 accumulators */

#define DOT_ADD(dot, w, x) __asm__("vpdpbusd %2, %1, %0" : "+v"(dot) : "v"(w), "v"(x))
/* sum + the low words' products, where the high words of s are 0 */
#define WORDS_ADD(sum, dot, s) __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(dot), "v"(s))

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

/* mr rows over one KN_GROUP of k, of s8 */
KN_TILE void tile_s8(const size_t mr, const size_t stride, const struct kn_int_tile *t)
{
	const __m512i flip = _mm512_set1_epi8((char)0x80);
	const uint8_t *at = t->weights + KN_STEP_BYTES, *fetch = t->fetch + t->fetch_step;
	const int32_t *q = t->q;
	size_t steps = KN_GROUP / 4;
	__m512i dot[ROWS][4], w[4];

	KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
		FETCH(t->fetch + v * 64, stride == 1);
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
			dot[r][v] = _mm512_set1_epi32(-128 * t->sums[r]);

	KN_HIDE(steps);
	for (size_t s = 0; s < steps; s++, at += KN_STEP_BYTES, q += stride) {
		KN_UNROLL_FOR (size_t v = 0; v < 4; v++) {
			FETCH(fetch + v * 64, stride == 1);
			w[v] = _mm512_xor_si512(_mm512_load_si512(at + v * 64), flip);
		}
		fetch += t->fetch_step;
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
			__m512i x = _mm512_set1_epi32(q[r]);
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
				DOT_ADD(dot[r][v], w[v], x);
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
			scale_add(dot[r][v], t->scales[r], (const float *)t->weights + v * 16, t->first ? 0 : 0xffff,
				t->y + r * t->ldy + v * 16);
}

/* The start of a dot over sub-group j: -z times the sum of the row's q. */
KN_TILE void begin_u4(__m512i dot[4], const uint8_t *subscales, size_t j, int32_t sum)
{
	__m512i one = _mm512_set1_epi32(sum), seven = _mm512_sub_epi32(one, _mm512_slli_epi32(one, 3));
	KN_UNROLL_FOR (size_t v = 0; v < 4; v++) {
		__mmask16 eight = _mm512_test_epi32_mask(
			_mm512_load_si512(subscales + v * 64), _mm512_set1_epi32((int)(8u << 4 * j)));
		dot[v] = _mm512_mask_sub_epi32(seven, eight, seven, one);
	}
}

/* The same of u4. The dot over a sub-group, within 8 * 127 * 32 = 32512, is a word; its product
 * with s goes to the sum of the group. */
KN_TILE void tile_u4(const size_t mr, const size_t stride, const struct kn_int_tile *t)
{
	const __m512i low_bits = _mm512_set1_epi8(0x0f),
		      odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15);
	const uint8_t *subscales = t->weights + KN_STEP_BYTES, *at = subscales + KN_STEP_BYTES,
		      *fetch = t->fetch + 2 * t->fetch_step;
	const int32_t *q = t->q;
	__m512i dot[ROWS][4], sum[ROWS][4], w[4];

	KN_UNROLL_FOR (size_t v = 0; v < 4; v++) {
		FETCH(t->fetch + v * 64, stride == 1);
		FETCH(t->fetch + t->fetch_step + v * 64, stride == 1);
	}
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
			sum[r][v] = _mm512_setzero_si512();

	for (size_t j = 0; j < KN_SUBGROUPS; j++) {
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			begin_u4(dot[r], subscales, j, t->sums[(1 + j) * stride + r]);

		size_t steps = KN_SUBGROUP / 8;
		KN_HIDE(steps);
		do {
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++) {
				FETCH(fetch + v * 64, stride == 1);
				w[v] = _mm512_and_si512(_mm512_load_si512(at + v * 64), low_bits);
			}
			fetch += t->fetch_step;
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
				__m512i x = _mm512_set1_epi32(q[r]);
				KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
					DOT_ADD(dot[r][v], w[v], x);
			}
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
				w[v] = _mm512_and_si512(_mm512_srli_epi32(_mm512_load_si512(at + v * 64), 4), low_bits);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
				__m512i x = _mm512_set1_epi32(q[stride + r]);
				KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
					DOT_ADD(dot[r][v], w[v], x);
			}
			at += KN_STEP_BYTES;
			q += 2 * stride;
		} while (--steps > 0);

		/* of an index the low four bits count, and of those the fourth is z's */
		KN_UNROLL_FOR (size_t v = 0; v < 4; v++) {
			__m512i nibbles =
				_mm512_srl_epi32(_mm512_load_si512(subscales + v * 64), _mm_cvtsi32_si128(4 * (int)j));
			__m512i s = _mm512_permutexvar_epi32(nibbles, odd);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
				WORDS_ADD(sum[r][v], dot[r][v], s);
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
			scale_add(sum[r][v], t->scales[r], (const float *)t->weights + v * 16, t->first ? 0 : 0xffff,
				t->y + r * t->ldy + v * 16);
}

#define TILE(mr, stride, name) \
	static void tile_##name##_##mr(const struct kn_int_tile *t) { tile_##name(mr, stride, t); }
/* clang-format off */
#define TILES(name) \
	TILE(1, 1, name) TILE(2, STRIDE, name) TILE(3, STRIDE, name) \
	TILE(4, STRIDE, name) TILE(5, STRIDE, name) TILE(6, STRIDE, name) \
	static kn_int_tile_fn *const tiles_##name[ROWS] = { \
		tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4, tile_##name##_5, tile_##name##_6, \
	};
/* clang-format on */
TILES(s8)
TILES(u4)
static const struct kn_int_tiles of_s8 = { tiles_s8, ROWS, STRIDE, KN_STORAGE_S8 };
static const struct kn_int_tiles of_u4 = { tiles_u4, ROWS, STRIDE, KN_STORAGE_U4 };

/* AVX-512 came before VNNI. */
static bool has_vnni(void) { return __builtin_cpu_supports("avx512vnni"); }

void kn_avx512_gemm_s8(const struct kn_gemm *g)
{
	if (has_vnni())
		kn_gemm_int_nest(g, &of_s8, &of_s8, 0);
	else
		kn_avx2_gemm_s8(g);
}

void kn_avx512_gemm_u4(const struct kn_gemm *g)
{
	if (has_vnni())
		kn_gemm_int_nest(g, &of_u4, &of_s8, KN_WIDEN_ROWS_MIN);
	else
		kn_avx2_gemm_u4(g);
}
