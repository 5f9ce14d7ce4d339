/* SPDX-License-Identifier: Apache-2.0 */
/* Operators on rows wait for memory or for chains of additions: sixteen lanes bring nothing, so
 * these are AVX2's. */
#include "kernels/cpu/forms.h"

void kn_avx512_softmax(const float *x, size_t n, float *p) { kn_avx2_softmax(x, n, p); }
void kn_avx512_rmsnorm(const float *x, const float *weight, size_t n, float epsilon, float *out)
{
	kn_avx2_rmsnorm(x, weight, n, epsilon, out);
}
void kn_avx512_rope(float *x, const float *cosines, const float *sines, size_t size, bool interleaved)
{
	kn_avx2_rope(x, cosines, sines, size, interleaved);
}
void kn_avx512_add(float *x, const float *y, size_t n, float scale) { kn_avx2_add(x, y, n, scale); }
struct kn_row_measure kn_avx512_row_measure(const float *x, size_t n) { return kn_avx2_row_measure(x, n); }
void kn_avx512_row_to_fix16(const float *x, size_t n, float inverse, uint8_t *data)
{
	kn_avx2_row_to_fix16(x, n, inverse, data);
}
void kn_avx512_row_from_fix16(const uint8_t *data, size_t n, float scale, float *x)
{
	kn_avx2_row_from_fix16(data, n, scale, x);
}
void kn_avx512_row_to_bf16(const float *x, size_t n, uint8_t *data) { kn_avx2_row_to_bf16(x, n, data); }
void kn_avx512_row_from_bf16(const uint8_t *data, size_t n, float *x) { kn_avx2_row_from_bf16(data, n, x); }
void kn_avx512_row_from_q8(const uint8_t *q, size_t n, float scale, float *x) { kn_avx2_row_from_q8(q, n, scale, x); }
void kn_avx512_quantise(const float *x, size_t n, int8_t *q, float *scale, int32_t *sums)
{
	kn_avx2_quantise(x, n, q, scale, sums);
}
