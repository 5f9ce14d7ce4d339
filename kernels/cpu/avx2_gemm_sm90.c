/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM in the order of profile bf16-sm90 by AVX2. */
#include <immintrin.h>

typedef __m256i vector; /* of integers, or of the bits of f32 */
enum { LANES = 8, AT_ONCE = 2 };

#define F32(v) _mm256_castsi256_ps(v)
#define BITS(v) _mm256_castps_si256(v)
#define v_load(at) _mm256_loadu_si256((const __m256i *)(at))
#define v_store(at, v) _mm256_storeu_si256((__m256i *)(at), v)
#define v_all(value) _mm256_set1_epi32(value)
#define v_all_16(value) _mm256_set1_epi16(value)
#define v_all_f32(value) BITS(_mm256_set1_ps(value))
#define v_and(a, b) _mm256_and_si256(a, b)
#define v_and_not(a, b) _mm256_andnot_si256(a, b)
#define v_or(a, b) _mm256_or_si256(a, b)
#define v_xor(a, b) _mm256_xor_si256(a, b)
#define v_add(a, b) _mm256_add_epi32(a, b)
#define v_sub(a, b) _mm256_sub_epi32(a, b)
#define v_min(a, b) _mm256_min_epi32(a, b)
#define v_max(a, b) _mm256_max_epi32(a, b)
#define v_less(a, b) _mm256_cmpgt_epi32(b, a)
#define v_equal(a, b) _mm256_cmpeq_epi32(a, b)
#define v_shift_left(v, by) _mm256_slli_epi32(v, by)
#define v_shift_right(v, by) _mm256_srli_epi32(v, by)
#define v_shift_right_signed(v, by) _mm256_srai_epi32(v, by)
#define v_add_16(a, b) _mm256_add_epi16(a, b)
#define v_max_16(a, b) _mm256_max_epi16(a, b)
#define v_equal_16(a, b) _mm256_cmpeq_epi16(a, b)
#define v_greater_16(a, b) _mm256_cmpgt_epi16(a, b)
#define v_shift_right_16(v, by) _mm256_srli_epi16(v, by)
#define v_mul(a, b) BITS(_mm256_mul_ps(F32(a), F32(b)))
#define v_cut(v) _mm256_cvttps_epi32(F32(v))
#define v_to_f32(v) BITS(_mm256_cvtepi32_ps(v))
#define v_signs(v) ((unsigned)_mm256_movemask_ps(F32(v)))

#include "kernels/cpu/gemm_sm90.h"

void kn_avx2_gemm_bf16_sm90(const struct kn_gemm *g) { gemm_sm90(g); }
