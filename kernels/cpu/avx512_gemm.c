/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM and activations in AVX-512: one line of weights (16 columns) is one register, 16 columns of
 * one row one accumulator. */
#include "kernels/cpu/vector_exp.h"
#include "kernels/cpu/gemm_stored.h"

enum { ROWS = 7, LINES = 4 }; /* 28 accumulators */

/* One of two values of k of a line of weights as f32 */
KN_TILE __m512 widen_even(const bool bf16, const uint8_t *at)
{
	return bf16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_load_si512(at), 16))
		    : _mm512_load_ps((const float *)at);
}
KN_TILE __m512 widen_odd(const bool bf16, const uint8_t *at)
{
	return bf16 ? _mm512_castsi512_ps(_mm512_and_si512(_mm512_load_si512(at), _mm512_set1_epi32((int)0xffff0000)))
		    : _mm512_load_ps((const float *)(at + 256));
}

/* acc[r][v] += x[r] * a line of weights, for the rows one after the other: with the factors of x from
 * memory, 7 rows by 4 lines leave room for the weights. */
KN_TILE void line_add(const size_t mr, const size_t v, __m512 acc[ROWS][LINES], const float *x, __m512 w)
{
	__asm__ volatile("" : "+r"(x)); /* another x for each line: there are no registers to keep the factors */
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
		acc[r][v] = _mm512_fmadd_ps(_mm512_set1_ps(x[r]), w, acc[r][v]);
		__asm__("" : "+v"(acc[r][v]), "+v"(w)); /* in its place: no copies */
	}
}

/* mr rows, k ascending; x is [k][stride] */
KN_TILE void tile(const size_t mr, const bool bf16, const size_t stride, const float *x, size_t k, const uint8_t *lines,
	bool first, float *y, size_t ldy)
{
	const size_t step_lines = bf16 ? LINES : 2 * LINES; /* of two values of k */
	__m512 acc[ROWS][LINES];

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
			acc[r][v] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(y + r * ldy + v * 16);

	for (size_t i = 0; i < k; i += 2, x += 2 * stride, lines += step_lines * 64) {
		KN_UNROLL_FOR (size_t v = 0; v < step_lines; v++)
			kn_tile_fetch(mr > 2, lines + v * 64);
		KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
			line_add(mr, v, acc, x, widen_even(bf16, lines + v * 64));
		KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
			line_add(mr, v, acc, x + stride, widen_odd(bf16, lines + v * 64));
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
			_mm512_storeu_ps(y + r * ldy + v * 16, acc[r][v]);
}

#define TILE(mr, stride, name, bf16) \
	static void tile_##name##_##mr( \
		const float *x, size_t k, const uint8_t *lines, bool first, float *y, size_t ldy) \
	{ \
		tile(mr, bf16, stride, x, k, lines, first, y, ldy); \
	}
/* clang-format off */
#define TILES(name, bf16) \
	TILE(1, 1, name, bf16) \
	TILE(2, 4, name, bf16) \
	TILE(3, 4, name, bf16) \
	TILE(4, 4, name, bf16) \
	TILE(5, 8, name, bf16) \
	TILE(6, 8, name, bf16) \
	TILE(7, 8, name, bf16) \
	static kn_gemm_tile_fn *const tiles_##name[ROWS] = { \
		tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4, \
		tile_##name##_5, tile_##name##_6, tile_##name##_7, \
	};
/* clang-format on */
TILES(bf16, true)
TILES(f32, false)

void kn_avx512_gemm_bf16(const struct kn_gemm *g) { kn_gemm_nest(g, tiles_bf16, ROWS, KN_PANEL_COLS * 2, false); }
void kn_avx512_gemm_f32(const struct kn_gemm *g) { kn_gemm_nest(g, tiles_f32, ROWS, KN_PANEL_COLS * 4, false); }

/* ---- as stored ---- */

/* Sixteen columns. A byte is the f16 of a 2^-8th of its value: its exponent has a bit less. */
KN_TILE __m512 line_f8(const uint8_t *bytes, const uint8_t *scales, size_t v)
{
	__m256i wide = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(bytes + v * 16)));
	wide = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16((short)0xbfff));
	return _mm512_mul_ps(_mm512_cvtph_ps(wide), _mm512_load_ps((const float *)scales + v * 16));
}

/* Of nibbles, in the low bits of lanes. */
KN_TILE __m512 of_f4(__m512i nibbles, __m512 scales)
{
	const __m512 values = _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6);
	return _mm512_mul_ps(_mm512_permutexvar_ps(nibbles, values), scales);
}
KN_TILE __m512i line_bytes(const uint8_t *bytes, size_t v)
{
	return _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(bytes + v * 16)));
}
/* 2^(byte - 127); of 0 a subnormal */
KN_TILE __m512 line_e8m0(const uint8_t *scales, size_t v)
{
	return _mm512_castsi512_ps(
		_mm512_max_epi32(_mm512_slli_epi32(line_bytes(scales, v), 23), _mm512_set1_epi32(0x00400000)));
}

static void widen_f8(const uint8_t *panel, size_t k, size_t count, float *wide)
{
	const uint8_t *scales = kn_f8_group(panel, k), *step = kn_f8_step(panel, k);
	for (size_t i = 0; i < count; i++, step += KN_PANEL_COLS, wide += KN_PANEL_COLS)
		KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
			_mm512_store_ps(wide + v * 16, line_f8(step, scales, v));
}

static void widen_mxfp4(const uint8_t *panel, size_t k, size_t count, float *wide)
{
	for (size_t i = 0; i < count; i += KN_MXFP4_GROUP)
		for (size_t v = 0; v < LINES; v++) {
			__m512 scales = line_e8m0(kn_mxfp4_group(panel, k + i), v);
			const uint8_t *step = kn_mxfp4_step(panel, k + i);
			float *out = wide + i * KN_PANEL_COLS + v * 16;
			for (size_t j = 0; j < KN_MXFP4_GROUP / 2;
				j++, step += KN_PANEL_COLS, out += 2 * KN_PANEL_COLS) {
				__m512i both = line_bytes(step, v);
				_mm512_store_ps(out, of_f4(both, scales));
				_mm512_store_ps(out + KN_PANEL_COLS, of_f4(_mm512_srli_epi32(both, 4), scales));
			}
		}
}

static void one_f8(const float *x, size_t k, const uint8_t *panel, float *y)
{
	__m512 acc[LINES];
	KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
		acc[v] = _mm512_setzero_ps();
	for (size_t i = 0; i < k; i++) {
		const uint8_t *scales = kn_f8_group(panel, i), *step = kn_f8_step(panel, i);
		__m512 a = _mm512_set1_ps(x[i]);
		kn_tile_fetch(false, step);
		KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
			acc[v] = _mm512_fmadd_ps(a, line_f8(step, scales, v), acc[v]);
	}
	KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
		_mm512_storeu_ps(y + v * 16, acc[v]);
}

static void one_mxfp4(const float *x, size_t k, const uint8_t *panel, float *y)
{
	__m512 acc[LINES], scales[LINES];
	KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
		acc[v] = _mm512_setzero_ps();
	for (size_t group = 0; group < k; group += KN_MXFP4_GROUP) {
		const uint8_t *step = kn_mxfp4_step(panel, group);
		KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
			scales[v] = line_e8m0(kn_mxfp4_group(panel, group), v);
		for (size_t i = group; i < group + KN_MXFP4_GROUP; i += 2, step += KN_PANEL_COLS) {
			__m512 a = _mm512_set1_ps(x[i]), b = _mm512_set1_ps(x[i + 1]);
			kn_tile_fetch(false, step);
			KN_UNROLL_FOR (size_t v = 0; v < LINES; v++) {
				__m512i both = line_bytes(step, v);
				acc[v] = _mm512_fmadd_ps(a, of_f4(both, scales[v]), acc[v]);
				acc[v] = _mm512_fmadd_ps(b, of_f4(_mm512_srli_epi32(both, 4), scales[v]), acc[v]);
			}
		}
	}
	KN_UNROLL_FOR (size_t v = 0; v < LINES; v++)
		_mm512_storeu_ps(y + v * 16, acc[v]);
}

void kn_avx512_gemm_f8(const struct kn_gemm *g) { kn_gemm_stored(g, tiles_f32, ROWS, widen_f8, one_f8); }
void kn_avx512_gemm_mxfp4(const struct kn_gemm *g) { kn_gemm_stored(g, tiles_f32, ROWS, widen_mxfp4, one_mxfp4); }

/* Sign flips are by xor, as -x is. max(min()) takes its second operand when either is NaN: the
 * value goes second. */
static inline __m512 negate(__m512 x)
{
	return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MIN)));
}

KN_TILE void act(const bool clamped, const struct kn_act *a)
{
	const __m512 one = _mm512_set1_ps(1.0f), limit = _mm512_set1_ps(a->limit);
	for (size_t r = 0; r < a->rows; r++)
		for (size_t v = 0; v < a->panels * 2; v++) {
			const float *t = a->t + r * a->ldt + v * 32;
			__m512 g = _mm512_loadu_ps(t), u = _mm512_loadu_ps(t + 16), h;
			if (a->bias) {
				g = _mm512_add_ps(g, _mm512_loadu_ps(a->bias + v * 32));
				u = _mm512_add_ps(u, _mm512_loadu_ps(a->bias + v * 32 + 16));
			}
			if (clamped) {
				g = _mm512_min_ps(limit, g);
				u = _mm512_max_ps(negate(limit), _mm512_min_ps(limit, u));
				__m512 e = kn_exp_16(negate(_mm512_mul_ps(g, _mm512_set1_ps(1.702f))));
				h = _mm512_mul_ps(_mm512_add_ps(u, one), _mm512_div_ps(g, _mm512_add_ps(one, e)));
			} else {
				h = _mm512_mul_ps(_mm512_div_ps(g, _mm512_add_ps(one, kn_exp_16(negate(g)))), u);
			}
			_mm512_storeu_ps(a->h + r * a->ldh + v * 16, h);
		}
}

void kn_avx512_silu(const struct kn_act *a) { act(false, a); }
void kn_avx512_swiglu_clamped(const struct kn_act *a) { act(true, a); }

void kn_avx512_exp(const float *x, size_t n, float *y)
{
	for (size_t i = 0; i < n; i += 16) {
		__mmask16 lanes = n - i < 16 ? _cvtu32_mask16((1u << (n - i)) - 1) : 0xffff;
		_mm512_mask_storeu_ps(y + i, lanes, kn_exp_16(_mm512_maskz_loadu_ps(lanes, x + i)));
	}
}
