/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The quantiser of weights and activations, for every device: a row of f32 in groups along k, each
 * with one scale, and integers q such that x is about q * scale.
 *
 * Of a group, a = max |x|, compared as integers, so that NaN is the largest. The scale is fl(a /
 * range) rounded up to 12 significant bits, and q = rne(x * fl(1 / scale)), both quotients rounded
 * to f32; range is 127 for activations and int8 weights, 7 for int4 weights. When a is below
 * 2^-100, the scale is 0 instead, and when the scale would be 2^120 or more (infinity and NaN are
 * above that) it is NaN; then every q is 0.
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
 * Pure functions; any thread.
 */
#ifndef CADRE_KERNELS_QUANTISE_H
#define CADRE_KERNELS_QUANTISE_H

#include "common/model/tensor.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	KN_GROUP = 256,      /* values of k of a group: of activations and int8 weights */
	KN_GROUP_INT4 = 128, /* of int4 weights; divides KN_GROUP */
	KN_RANGE_INT8 = 127,
	KN_RANGE_INT4 = 7,
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
/* The scale alone. */
float kn_quantise_scale(const void *values, enum cad_dtype dtype, size_t n, int range);

#endif
