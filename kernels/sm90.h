/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a tensor core of Hopper (sm_90) adds up products of bf16, which profile bf16-sm90 is by
 * definition (struct kn_linear): one step, in integers. The reference computes with it, and so does
 * the emulated GPU; docs/decisions/gpu-numerics.md says where it comes from. For C and C++.
 */
#ifndef CADRE_KERNELS_SM90_H
#define CADRE_KERNELS_SM90_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
	KN_SM90_BLOCK = 16,    /* products of a step */
	KN_SM90_FRACTION = 25, /* bits that a term keeps below the largest exponent */
	KN_SM90_BF16_DIGITS = 7,
	KN_SM90_F32_DIGITS = 23,
	KN_SM90_EXPONENT_MIN = -126, /* of subnormals too, in both types */
};

/* A finite term is significand * 2^(exponent - digits). */
struct kn_sm90_term {
	uint64_t significand;
	int exponent;
	bool negative;
};

struct kn_sm90_step {
	struct kn_sm90_term terms[KN_SM90_BLOCK + 1];
	bool nan, infinite[2]; /* of either sign */
};

static inline struct kn_sm90_term kn_sm90_term_of(uint32_t bits, int digits)
{
	int field = (int)(bits >> digits & 0xff);
	struct kn_sm90_term term;
	term.significand = (bits & ((1u << digits) - 1)) | (field > 0 ? 1u << digits : 0);
	term.exponent = (field > 0 ? field : 1) - 127;
	term.negative = bits >> (digits + 8) & 1;
	return term;
}

static inline bool kn_sm90_is_finite(uint32_t bits, int digits) { return (bits >> digits & 0xff) != 0xff; }
static inline bool kn_sm90_is_nan(uint32_t bits, int digits)
{
	return !kn_sm90_is_finite(bits, digits) && (bits & ((1u << digits) - 1)) != 0;
}

/* The exact product of two bf16, with 14 digits. */
static inline struct kn_sm90_term kn_sm90_product(struct kn_sm90_step *step, uint16_t a, uint16_t b)
{
	struct kn_sm90_term x = kn_sm90_term_of(a, KN_SM90_BF16_DIGITS), y = kn_sm90_term_of(b, KN_SM90_BF16_DIGITS);
	bool negative = x.negative != y.negative;

	if (!kn_sm90_is_finite(a, KN_SM90_BF16_DIGITS) || !kn_sm90_is_finite(b, KN_SM90_BF16_DIGITS)) {
		bool is_nan = kn_sm90_is_nan(a, KN_SM90_BF16_DIGITS) || kn_sm90_is_nan(b, KN_SM90_BF16_DIGITS) ||
			x.significand == 0 || y.significand == 0;
		step->nan |= is_nan;
		step->infinite[negative] |= !is_nan;
	}
	x.significand *= y.significand;
	x.exponent += y.exponent;
	x.negative = negative;
	return x;
}

/* The term in units of 2^(top - KN_SM90_FRACTION), cut toward zero. */
static inline int64_t kn_sm90_cut(struct kn_sm90_term term, int digits, int top)
{
	int below = top - term.exponent;
	int64_t cut =
		below < 64 ? (int64_t)(term.significand << (KN_SM90_FRACTION - digits) >> (below > 0 ? below : 0)) : 0;
	return term.negative ? -cut : cut;
}

/* sum * 2^(top - KN_SM90_FRACTION) as f32, toward zero; what is too large is infinite. */
static inline uint32_t kn_sm90_round(int64_t sum, int top)
{
	uint32_t sign = sum < 0 ? 0x80000000u : 0;
	uint64_t magnitude = (uint64_t)(sum < 0 ? -sum : sum);
	int exponent = top - KN_SM90_FRACTION + KN_SM90_F32_DIGITS; /* with 24 digits before the point */

	if (magnitude == 0)
		return 0;
	for (; magnitude >> KN_SM90_F32_DIGITS == 0 && exponent > KN_SM90_EXPONENT_MIN; magnitude <<= 1)
		exponent--;
	for (; magnitude >> KN_SM90_F32_DIGITS > 1 || exponent < KN_SM90_EXPONENT_MIN; magnitude >>= 1)
		exponent++;
	if (exponent > 127)
		return sign | 0x7f800000u;
	if (magnitude >> KN_SM90_F32_DIGITS == 0) /* subnormal or zero */
		return sign | (uint32_t)magnitude;
	return sign | (uint32_t)(exponent + 127) << KN_SM90_F32_DIGITS | ((uint32_t)magnitude & 0x7fffffu);
}

/* acc + a[0] b[0] + .. + a[15] b[15]. */
static inline float kn_sm90_add(float acc, const uint16_t a[KN_SM90_BLOCK], const uint16_t b[KN_SM90_BLOCK])
{
	struct kn_sm90_step step;
	uint32_t bits;
	int top = KN_SM90_EXPONENT_MIN;

	memcpy(&bits, &acc, sizeof bits);
	step.terms[KN_SM90_BLOCK] = kn_sm90_term_of(bits, KN_SM90_F32_DIGITS);
	step.nan = kn_sm90_is_nan(bits, KN_SM90_F32_DIGITS);
	step.infinite[0] = step.infinite[1] = false;
	if (!kn_sm90_is_finite(bits, KN_SM90_F32_DIGITS))
		step.infinite[step.terms[KN_SM90_BLOCK].negative] = true;
	for (int i = 0; i < KN_SM90_BLOCK; i++)
		step.terms[i] = kn_sm90_product(&step, a[i], b[i]);

	if (step.nan || (step.infinite[0] && step.infinite[1])) {
		bits = 0x7fffffffu;
	} else if (step.infinite[0] || step.infinite[1]) {
		bits = step.infinite[1] ? 0xff800000u : 0x7f800000u;
	} else {
		for (int i = 0; i <= KN_SM90_BLOCK; i++)
			if (step.terms[i].significand != 0 && step.terms[i].exponent > top)
				top = step.terms[i].exponent;
		int64_t sum = kn_sm90_cut(step.terms[KN_SM90_BLOCK], KN_SM90_F32_DIGITS, top);
		for (int i = 0; i < KN_SM90_BLOCK; i++)
			sum += kn_sm90_cut(step.terms[i], 2 * KN_SM90_BF16_DIGITS, top);
		bits = kn_sm90_round(sum, top);
	}
	memcpy(&acc, &bits, sizeof bits);
	return acc;
}

#endif
