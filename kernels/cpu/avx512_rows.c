/* Row operators: what AVX2 does until it is worth more. */
#include "kernels/cpu/forms.h"

void kn_avx512_softmax(const float *x, size_t n, float *p) { kn_avx2_softmax(x, n, p); }
void kn_avx512_rmsnorm(const float *x, const float *weight, size_t n, float epsilon, float *out) { kn_avx2_rmsnorm(x, weight, n, epsilon, out); }
void kn_avx512_rope(float *x, const float *cosines, const float *sines, size_t size, bool interleaved) { kn_avx2_rope(x, cosines, sines, size, interleaved); }
void kn_avx512_add(float *x, const float *y, size_t n, float scale) { kn_avx2_add(x, y, n, scale); }
struct kn_row_measure kn_avx512_row_measure(const float *x, size_t n) { return kn_avx2_row_measure(x, n); }
void kn_avx512_row_to_fix16(const float *x, size_t n, float inverse, uint8_t *data) { kn_avx2_row_to_fix16(x, n, inverse, data); }
void kn_avx512_row_from_fix16(const uint8_t *data, size_t n, float scale, float *x) { kn_avx2_row_from_fix16(data, n, scale, x); }
void kn_avx512_row_to_bf16(const float *x, size_t n, uint8_t *data) { kn_avx2_row_to_bf16(x, n, data); }
void kn_avx512_row_from_bf16(const uint8_t *data, size_t n, float *x) { kn_avx2_row_from_bf16(data, n, x); }
bool kn_avx512_sums_round(int64_t *sums, const float *y, size_t n, float weight, double inverse) { return kn_avx2_sums_round(sums, y, n, weight, inverse); }
uint8_t kn_avx512_sums_width(const int64_t *sums, size_t n) { return kn_avx2_sums_width(sums, n); }
void kn_avx512_sums_store(const int64_t *sums, size_t n, uint8_t width, uint8_t *data) { kn_avx2_sums_store(sums, n, width, data); }
void kn_avx512_sums_add(int64_t *sums, const uint8_t *data, size_t n, uint8_t width) { kn_avx2_sums_add(sums, data, n, width); }
void kn_avx512_sums_finish(float *x, int64_t *sums, size_t n, float quantum, const float *shared) { kn_avx2_sums_finish(x, sums, n, quantum, shared); }
