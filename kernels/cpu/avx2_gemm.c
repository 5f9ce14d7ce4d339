/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM and activations in AVX2 and FMA: half a line of weights (8 columns) is one register, 8
 * columns of one row one accumulator. */
#include "kernels/cpu/vector_exp.h"
#include "kernels/cpu/gemm_stored.h"

enum { ROWS = 6 }; /* 6 rows x 2 half lines: 12 accumulators */

/* One of two values of k of half a line of weights as f32 */
KN_TILE __m256 widen_even(const bool bf16, const uint8_t *at)
{
	return bf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256((const __m256i *)at), 16))
		    : _mm256_load_ps((const float *)at);
}
KN_TILE __m256 widen_odd(const bool bf16, const uint8_t *at)
{
	return bf16 ? _mm256_castsi256_ps(_mm256_and_si256(
			      _mm256_load_si256((const __m256i *)at), _mm256_set1_epi32((int)0xffff0000)))
		    : _mm256_load_ps((const float *)(at + 256));
}

/* mr rows by nv half lines, k ascending; x is [k][stride] */
KN_TILE void tile(const size_t mr, const size_t nv, const bool bf16, const size_t stride, const float *x, size_t k,
	const uint8_t *lines, bool first, float *y, size_t ldy)
{
	__m256 acc[ROWS][8];
	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			acc[r][v] = first ? _mm256_setzero_ps() : _mm256_loadu_ps(y + r * ldy + v * 8);

	for (size_t i = 0; i < k; i += 2, x += 2 * stride, lines += bf16 ? 256 : 512) {
		KN_UNROLL_FOR (size_t v = 0; v < nv; v += 2) {
			kn_tile_fetch(mr > 1, lines + v * 32);
			if (!bf16)
				kn_tile_fetch(mr > 1, lines + v * 32 + 256);
		}
		KN_UNROLL_FOR (size_t v = 0; v < nv; v += 2) {
			__m256 w0 = widen_even(bf16, lines + v * 32), w1 = widen_even(bf16, lines + v * 32 + 32);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
				__m256 a = _mm256_set1_ps(x[r]);
				acc[r][v] = _mm256_fmadd_ps(a, w0, acc[r][v]);
				acc[r][v + 1] = _mm256_fmadd_ps(a, w1, acc[r][v + 1]);
			}
		}
		KN_UNROLL_FOR (size_t v = 0; v < nv; v += 2) {
			__m256 w0 = widen_odd(bf16, lines + v * 32), w1 = widen_odd(bf16, lines + v * 32 + 32);
			KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
				__m256 a = _mm256_set1_ps(x[stride + r]);
				acc[r][v] = _mm256_fmadd_ps(a, w0, acc[r][v]);
				acc[r][v + 1] = _mm256_fmadd_ps(a, w1, acc[r][v + 1]);
			}
		}
	}

	KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
		KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
			_mm256_storeu_ps(y + r * ldy + v * 8, acc[r][v]);
}

#define TILE(mr, nv, stride, name, bf16) \
	static void tile_##name##_##mr( \
		const float *x, size_t k, const uint8_t *lines, bool first, float *y, size_t ldy) \
	{ \
		for (size_t half = 0; half < 8; half += nv) \
			tile(mr, nv, bf16, stride, x, k, lines + half * 32, first, y + half * 8, ldy); \
	}
/* clang-format off */
#define TILES(name, bf16) \
	TILE(1, 8, 1, name, bf16) TILE(2, 4, 4, name, bf16) TILE(3, 2, 4, name, bf16) \
	TILE(4, 2, 4, name, bf16) TILE(5, 2, 8, name, bf16) TILE(6, 2, 8, name, bf16) \
	static kn_gemm_tile_fn *const tiles_##name[ROWS] = { \
		tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4, tile_##name##_5, tile_##name##_6, \
	};
/* clang-format on */
TILES(bf16, true)
TILES(f32, false)

void kn_avx2_gemm_bf16(const struct kn_gemm *g) { kn_gemm_nest(g, tiles_bf16, ROWS, KN_PANEL_COLS * 2, false); }
void kn_avx2_gemm_f32(const struct kn_gemm *g) { kn_gemm_nest(g, tiles_f32, ROWS, KN_PANEL_COLS * 4, false); }

/* ---- as stored ---- */

/* Eight columns. A byte is the f16 of a 2^-8th of its value: its exponent has a bit less. */
KN_TILE __m256 half_f8(const uint8_t *bytes, const uint8_t *scales, size_t v)
{
	__m128i wide = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(bytes + v * 8)));
	wide = _mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16((short)0xbfff));
	return _mm256_mul_ps(_mm256_cvtph_ps(wide), _mm256_load_ps((const float *)scales + v * 8));
}

/* Of nibbles, in the low bits of lanes. */
KN_TILE __m256 of_f4(__m256i nibbles, __m256 scales)
{
	const __m256 magnitudes = _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6);
	__m256i signs = _mm256_and_si256(_mm256_slli_epi32(nibbles, 28), _mm256_set1_epi32(INT32_MIN));
	__m256 values = _mm256_permutevar8x32_ps(magnitudes, nibbles);
	return _mm256_mul_ps(_mm256_xor_ps(values, _mm256_castsi256_ps(signs)), scales);
}
KN_TILE __m256i half_bytes(const uint8_t *bytes, size_t v)
{
	return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(bytes + v * 8)));
}
/* 2^(byte - 127); of 0 a subnormal */
KN_TILE __m256 half_e8m0(const uint8_t *scales, size_t v)
{
	return _mm256_castsi256_ps(
		_mm256_max_epi32(_mm256_slli_epi32(half_bytes(scales, v), 23), _mm256_set1_epi32(0x00400000)));
}

static void widen_f8(const uint8_t *panel, size_t k, size_t count, float *wide)
{
	const uint8_t *scales = kn_f8_group(panel, k), *step = kn_f8_step(panel, k);
	for (size_t i = 0; i < count; i++, step += KN_PANEL_COLS, wide += KN_PANEL_COLS)
		KN_UNROLL_FOR (size_t v = 0; v < 8; v++)
			_mm256_store_ps(wide + v * 8, half_f8(step, scales, v));
}

static void widen_mxfp4(const uint8_t *panel, size_t k, size_t count, float *wide)
{
	for (size_t i = 0; i < count; i += KN_MXFP4_GROUP)
		for (size_t v = 0; v < 8; v++) {
			__m256 scales = half_e8m0(kn_mxfp4_group(panel, k + i), v);
			const uint8_t *step = kn_mxfp4_step(panel, k + i);
			float *out = wide + i * KN_PANEL_COLS + v * 8;
			for (size_t j = 0; j < KN_MXFP4_GROUP / 2;
				j++, step += KN_PANEL_COLS, out += 2 * KN_PANEL_COLS) {
				__m256i both = half_bytes(step, v);
				_mm256_store_ps(out, of_f4(both, scales));
				_mm256_store_ps(out + KN_PANEL_COLS, of_f4(_mm256_srli_epi32(both, 4), scales));
			}
		}
}

static void one_f8(const float *x, size_t k, const uint8_t *panel, float *y)
{
	__m256 acc[8];
	KN_UNROLL_FOR (size_t v = 0; v < 8; v++)
		acc[v] = _mm256_setzero_ps();
	for (size_t i = 0; i < k; i++) {
		const uint8_t *scales = kn_f8_group(panel, i), *step = kn_f8_step(panel, i);
		__m256 a = _mm256_set1_ps(x[i]);
		kn_tile_fetch(false, step);
		KN_UNROLL_FOR (size_t v = 0; v < 8; v++)
			acc[v] = _mm256_fmadd_ps(a, half_f8(step, scales, v), acc[v]);
	}
	KN_UNROLL_FOR (size_t v = 0; v < 8; v++)
		_mm256_storeu_ps(y + v * 8, acc[v]);
}

/* Four half lines at a time, whose scales and sums are in registers. */
static void one_mxfp4(const float *x, size_t k, const uint8_t *panel, float *y)
{
	for (size_t half = 0; half < 8; half += 4) {
		__m256 acc[4], scales[4];
		KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
			acc[v] = _mm256_setzero_ps();
		for (size_t group = 0; group < k; group += KN_MXFP4_GROUP) {
			const uint8_t *step = kn_mxfp4_step(panel, group);
			KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
				scales[v] = half_e8m0(kn_mxfp4_group(panel, group), half + v);
			for (size_t i = group; i < group + KN_MXFP4_GROUP; i += 2, step += KN_PANEL_COLS) {
				__m256 a = _mm256_set1_ps(x[i]), b = _mm256_set1_ps(x[i + 1]);
				kn_tile_fetch(false, step);
				KN_UNROLL_FOR (size_t v = 0; v < 4; v++) {
					__m256i both = half_bytes(step, half + v);
					acc[v] = _mm256_fmadd_ps(a, of_f4(both, scales[v]), acc[v]);
					acc[v] = _mm256_fmadd_ps(
						b, of_f4(_mm256_srli_epi32(both, 4), scales[v]), acc[v]);
				}
			}
		}
		KN_UNROLL_FOR (size_t v = 0; v < 4; v++)
			_mm256_storeu_ps(y + (half + v) * 8, acc[v]);
	}
}

void kn_avx2_gemm_f8(const struct kn_gemm *g) { kn_gemm_stored(g, tiles_f32, ROWS, widen_f8, one_f8); }
void kn_avx2_gemm_mxfp4(const struct kn_gemm *g) { kn_gemm_stored(g, tiles_f32, ROWS, widen_mxfp4, one_mxfp4); }

/* Sign flips are by xor, as -x is. max(min()) takes its second operand when either is NaN: the
 * value goes second. */
static inline __m256 negate(__m256 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }

KN_TILE void act(const bool clamped, const struct kn_act *a)
{
	const __m256 one = _mm256_set1_ps(1.0f), limit = _mm256_set1_ps(a->limit);
	for (size_t r = 0; r < a->rows; r++)
		for (size_t v = 0; v < a->panels * 4; v++) {
			size_t at = v / 2 * 32 + v % 2 * 8;
			const float *t = a->t + r * a->ldt + at;
			__m256 g = _mm256_loadu_ps(t), u = _mm256_loadu_ps(t + 16), h;
			if (a->bias) {
				g = _mm256_add_ps(g, _mm256_loadu_ps(a->bias + at));
				u = _mm256_add_ps(u, _mm256_loadu_ps(a->bias + at + 16));
			}
			if (clamped) {
				g = _mm256_min_ps(limit, g);
				u = _mm256_max_ps(negate(limit), _mm256_min_ps(limit, u));
				__m256 e = kn_exp_8(negate(_mm256_mul_ps(g, _mm256_set1_ps(1.702f))));
				h = _mm256_mul_ps(_mm256_add_ps(u, one), _mm256_div_ps(g, _mm256_add_ps(one, e)));
			} else {
				h = _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(one, kn_exp_8(negate(g)))), u);
			}
			_mm256_storeu_ps(a->h + r * a->ldh + v * 8, h);
		}
}

void kn_avx2_silu(const struct kn_act *a) { act(false, a); }
void kn_avx2_swiglu_clamped(const struct kn_act *a) { act(true, a); }

void kn_avx2_exp(const float *x, size_t n, float *y)
{
	size_t i = 0;
	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(y + i, kn_exp_8(_mm256_loadu_ps(x + i)));
	for (; i < n; i++)
		y[i] = kn_exp_1(x[i]);
}
