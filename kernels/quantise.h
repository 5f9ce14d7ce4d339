/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The quantiser of weights and activations, for every device: a row of f32 in groups along k, each
 * with one scale, and integers q such that x is about q * scale.
 *
 * Of a group, a = max |x|, compared as integers, so that NaN is the largest. The scale is fl(a /
 * range) rounded up to 12 significant bits, and q = rne(fl(x * fl(1 / scale))), everything rounded
 * to f32; range is 127 for activations and int8 weights, 120 for int4 weights, which go on from
 * there (below). When a is below 2^-100, the scale is 0 instead, and when the scale would be 2^120
 * or more (infinity and NaN are above that) it is NaN; then every q is 0.
 *
 * Twelve bits, and up, because then
 *   - the largest |q| of a group is the range itself, whatever the data;
 *   - q * scale is exact in f32, and quantising those values again gives the same q and scale: a
 *     row may be quantised, kept or sent as f32, and be quantised again by whoever computes with
 *     it;
 *   - the product of two scales is exact, unless it leaves the range of f32. Below 2^120, range *
 *     scale cannot overflow. The NaN is the one that x86 makes itself, so that sums have one NaN
 *     only.
 *
 * Weights of int4 are weights of int8 that compress: w = (u - z) * s is their integer, with u of 4
 * bits, and z and s of each sub-group of 32 in 4 more. So one arithmetic serves both, and a device
 * may widen what it keeps. Of a sub-group, m is the value of the largest magnitude, compared as
 * integers, and the first of those. Then
 *   z = 8 where m < 0, else 7: m gets the end of the range that reaches farther
 *   s = 2 i + 1, i = rne(fl(|m| * fl(1 / scale)) / 16 - 0.5) within 0 .. 7: |m| is near 8 s scale
 *   u = z + rne(fl(x * fl(1 / (scale * s)))) within 0 .. 15
 * and where the scale is 0 or NaN every u is 7, z 7 and i 0. scale * s is exact. Largest values of
 * a little more than 8 s are cut off: to miss those costs less than a wider step for the others.
 *
 * Pure functions; any thread.
 */
#ifndef CADRE_KERNELS_QUANTISE_H
#define CADRE_KERNELS_QUANTISE_H

#include "common/model/tensor.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	KN_GROUP = 256,   /* values of k that share a scale */
	KN_SUBGROUP = 32, /* of those, of int4 weights, that share z and s */
	KN_SUBGROUPS = KN_GROUP / KN_SUBGROUP,
	KN_RANGE_INT8 = 127,
	KN_RANGE_INT4 = 8 * 15,
};

/* `inverse` is 0 where every q is 0. */
struct kn_scale {
	float scale, inverse;
};

/* From the bits of a = max |x|. */
static inline struct kn_scale kn_scale_of(uint32_t most_bits, int range)
{
	const uint32_t least = 0x0d800000, limit = 0x7b800000, nan = 0xffc00000; /* 2^-100, 2^120 */
	struct kn_scale s = { 0, 0 };
	float most;
	uint32_t bits;

	if (most_bits < least)
		return s;
	memcpy(&most, &most_bits, sizeof most);
	most /= (float)range;
	memcpy(&bits, &most, sizeof bits);
	bits = (bits + 0xfff) & ~(uint32_t)0xfff;
	if (bits >= limit)
		bits = nan;
	memcpy(&s.scale, &bits, sizeof bits);
	s.inverse = bits == nan ? 0.0f : 1.0f / s.scale;
	return s;
}

/* One group of `count` values, the last count - n of which are zero and not read: writes q[count],
 * returns the scale. */
float kn_quantise_group(const float *x, size_t n, size_t count, int range, int8_t *q);
/* The same of n values of F32, F16 or BF16, of any alignment; count is at most KN_GROUP. */
float kn_quantise_values(const void *values, enum cad_dtype dtype, size_t n, size_t count, int range, int8_t *q);

/* A group of int4 weights. */
struct kn_int4_group {
	float scale;
	uint32_t subscales; /* bits 4 j .. 4 j + 3: (z == 8) << 3 | i of sub-group j */
	uint8_t u[KN_GROUP];
};
static inline int kn_int4_zero(uint32_t subscales, size_t subgroup)
{
	return 7 + (int)(subscales >> (4 * subgroup + 3) & 1);
}
static inline int kn_int4_subscale(uint32_t subscales, size_t subgroup)
{
	return 2 * (int)(subscales >> 4 * subgroup & 7) + 1;
}
/* Of so many values: of an odd number of sub-groups, a last half byte is not used. */
static inline size_t kn_int4_subscale_bytes(size_t count) { return ((count + KN_SUBGROUP - 1) / KN_SUBGROUP + 1) / 2; }
/* Of n values of F32, F16 or BF16, of any alignment; those past them are zero, and u their z. */
void kn_quantise_int4(const void *values, enum cad_dtype dtype, size_t n, struct kn_int4_group *group);

#endif
