/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM in the order of profile bf16-sm90 by AVX-512. */
#include <immintrin.h>

typedef __m512i vector; /* of integers, or of the bits of f32 */
enum { LANES = 16, AT_ONCE = 2 };

#define F32(v) _mm512_castsi512_ps(v)
#define BITS(v) _mm512_castps_si512(v)
#define v_load(at) _mm512_loadu_si512((const __m512i *)(at))
#define v_store(at, v) _mm512_storeu_si512((__m512i *)(at), v)
#define v_all(value) _mm512_set1_epi32(value)
#define v_all_16(value) _mm512_set1_epi16(value)
#define v_all_f32(value) BITS(_mm512_set1_ps(value))
#define v_and(a, b) _mm512_and_si512(a, b)
#define v_and_not(a, b) _mm512_andnot_si512(a, b)
#define v_or(a, b) _mm512_or_si512(a, b)
#define v_xor(a, b) _mm512_xor_si512(a, b)
#define v_add(a, b) _mm512_add_epi32(a, b)
#define v_sub(a, b) _mm512_sub_epi32(a, b)
#define v_min(a, b) _mm512_min_epi32(a, b)
#define v_max(a, b) _mm512_max_epi32(a, b)
#define v_less(a, b) _mm512_movm_epi32(_mm512_cmpgt_epi32_mask(b, a))
#define v_equal(a, b) _mm512_movm_epi32(_mm512_cmpeq_epi32_mask(a, b))
#define v_shift_left(v, by) _mm512_slli_epi32(v, by)
#define v_shift_right(v, by) _mm512_srli_epi32(v, by)
#define v_shift_right_signed(v, by) _mm512_srai_epi32(v, by)
#define v_add_16(a, b) _mm512_add_epi16(a, b)
#define v_max_16(a, b) _mm512_max_epi16(a, b)
#define v_equal_16(a, b) _mm512_movm_epi16(_mm512_cmpeq_epi16_mask(a, b))
#define v_greater_16(a, b) _mm512_movm_epi16(_mm512_cmpgt_epi16_mask(a, b))
#define v_shift_right_16(v, by) _mm512_srli_epi16(v, by)
#define v_mul(a, b) BITS(_mm512_mul_ps(F32(a), F32(b)))
#define v_cut(v) _mm512_cvttps_epi32(F32(v))
#define v_to_f32(v) BITS(_mm512_cvtepi32_ps(v))
#define v_signs(v) ((unsigned)_mm512_movepi32_mask(v))

#include "kernels/cpu/gemm_sm90.h"

void kn_avx512_gemm_bf16_sm90(const struct kn_gemm *g) { gemm_sm90(g); }
