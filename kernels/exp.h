/*
 * e^x, one polynomial for every form: n = rint(x * log2 e) by the magic number, r = x - n ln 2 in two steps (Cody and Waite), then degree 7 (Cephes expf).
 *
 * Largest error 0.97 ulp on (-85, 87); 0 below -86, so that there are no subnormal results; exp(88) above 88. A NaN that arithmetic made stays NaN.
 * The scalar form is here; avx2_math.h and avx512_math.h hold the same operations on 8 and 16 lanes, with equal bits.
 */
#ifndef CADRE_KERNELS_EXP_H
#define CADRE_KERNELS_EXP_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define KN_EXP_LOG2E 0x1.715476p+0f
#define KN_EXP_MAGIC 0x1.8p+23f
#define KN_EXP_LN2_HI 0x1.63p-1f
#define KN_EXP_LN2_LO -0x1.bd0106p-13f
#define KN_EXP_C7 1.9875691500e-4f
#define KN_EXP_C6 1.3981999507e-3f
#define KN_EXP_C5 8.3334519073e-3f
#define KN_EXP_C4 4.1665795894e-2f
#define KN_EXP_C3 1.6666665459e-1f
#define KN_EXP_C2 5.0000001201e-1f
#define KN_EXP_MIN -86.0f
#define KN_EXP_MAX 88.0f

static inline uint32_t kn_f32_bits(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

static inline float kn_f32_from_bits(uint32_t bits)
{
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

static inline float kn_exp_scalar(float x)
{
	float in = x > KN_EXP_MAX ? KN_EXP_MAX : x;   /* false for NaN, which goes on */
	float t = fmaf(in, KN_EXP_LOG2E, KN_EXP_MAGIC);
	float n = t - KN_EXP_MAGIC;
	float r = fmaf(n, -KN_EXP_LN2_HI, in);
	r = fmaf(n, -KN_EXP_LN2_LO, r);
	float p = fmaf(KN_EXP_C7, r, KN_EXP_C6);
	p = fmaf(p, r, KN_EXP_C5);
	p = fmaf(p, r, KN_EXP_C4);
	p = fmaf(p, r, KN_EXP_C3);
	p = fmaf(p, r, KN_EXP_C2);
	p = fmaf(p, r * r, r);
	p = p + 1.0f;
	return in < KN_EXP_MIN ? 0.0f : kn_f32_from_bits(kn_f32_bits(p) + (kn_f32_bits(t) << 23));
}

static inline float kn_sigmoid_scalar(float x) { return 1.0f / (1.0f + kn_exp_scalar(-x)); }

#endif
