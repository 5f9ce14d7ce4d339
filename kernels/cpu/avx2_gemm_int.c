/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM on integers in AVX2: half a line of weights (8 columns, 4 values of k) is one register, 8
 * columns of one row one accumulator.
 *
 * VPMADDUBSW wants one side unsigned and saturates at 16 bits. s8: |w| times x with w's sign; both
 * are within 127, so a pair of products is at most 32258. u4: w + 8, at most 15, so that two pairs
 * may be added before they are widened; starting the dot at -8 times the sum of the row's q takes
 * the 8 away again.
 */
#include "kernels/cpu/gemm_int_nest.h"

enum { ROWS = 4 }; /* 4 rows x 2 half lines */

static inline __m256i dot_s8(__m256i dot, __m256i magnitude, __m256i w, __m256i x)
{
	__m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w));
	return _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline __m256i dot_u4(__m256i dot, __m256i low, __m256i high, __m256i x0, __m256i x1)
{
	__m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, x0), _mm256_maddubs_epi16(high, x1));
	return _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

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
	const __m256i low_bits = _mm256_set1_epi8(0x0f);
	const uint8_t *at = t->weights, *fetch = t->fetch + v0 * 32;
	const int32_t *q = t->q;
	size_t steps = group / (s8 ? 4 : 8);

	KN_HIDE(steps);
	for (size_t i = 0; i < KN_GROUP / group; i++) {
		const float *scales = (const float *)at + v0 * 8;
		__m256i dot[ROWS][8];
		KN_UNROLL_FOR (size_t r = 0; r < mr; r++)
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++)
				dot[r][v] = _mm256_set1_epi32(s8 ? 0 : -8 * t->sums[i * stride + r]);

		at += KN_STEP_BYTES;
		for (size_t s = 0; s < steps; s++, at += KN_STEP_BYTES, q += stride * (s8 ? 1 : 2)) {
			KN_UNROLL_FOR (size_t v = 0; v < nv; v += 2)
				_mm_prefetch((const char *)fetch + v * 32, _MM_HINT_T0);
			fetch += t->fetch_step;
			KN_UNROLL_FOR (size_t v = 0; v < nv; v++) {
				__m256i line = _mm256_load_si256((const __m256i *)(at + (v0 + v) * 32));
				__m256i magnitude = _mm256_abs_epi8(line), low = _mm256_and_si256(line, low_bits),
					high = _mm256_and_si256(_mm256_srli_epi32(line, 4), low_bits);
				KN_UNROLL_FOR (size_t r = 0; r < mr; r++) {
					__m256i x = _mm256_set1_epi32(q[r]);
					dot[r][v] = s8
						? dot_s8(dot[r][v], magnitude, line, x)
						: dot_u4(dot[r][v], low, high, x, _mm256_set1_epi32(q[stride + r]));
					KN_PIN(dot[r][v]);
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
	TILE(1, 8, 1, name, s8) TILE(2, (s8 ? 4 : 2), ROWS, name, s8) \
	TILE(3, 2, ROWS, name, s8) TILE(4, (s8 ? 2 : 1), ROWS, name, s8) \
	static kn_int_tile_fn *const tiles_##name[ROWS] = { \
		tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4, \
	};
/* clang-format on */
TILES(s8, true)
TILES(u4, false)
static const struct kn_int_tiles of_s8 = { tiles_s8, ROWS, ROWS, KN_STORAGE_S8 };
static const struct kn_int_tiles of_u4 = { tiles_u4, ROWS, ROWS, KN_STORAGE_U4 };

void kn_avx2_gemm_s8(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_s8); }
void kn_avx2_gemm_u4(const struct kn_gemm *g) { kn_gemm_int_nest(g, &of_u4); }

void kn_avx2_quantise(const float *x, size_t n, size_t group, int8_t *q, float *scale, int32_t *sums)
{
	*scale = kn_quantise_group(x, n, KN_GROUP, KN_RANGE_INT8, q);
	const __m256i ones = _mm256_set1_epi8(1);
	for (size_t i = 0; i < KN_GROUP; i += group, sums++) {
		__m256i sum = _mm256_setzero_si256();
		for (size_t j = i; j < i + group; j += 32) {
			__m256i v = _mm256_loadu_si256((const __m256i *)(q + j));
			sum = _mm256_add_epi32(
				sum, _mm256_madd_epi16(_mm256_maddubs_epi16(ones, v), _mm256_set1_epi16(1)));
		}
		__m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
		__m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
		*sums = _mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 1);
	}
}
