/* SPDX-License-Identifier: Apache-2.0 */
/* Loops that compilers turn into vector code; what they compute, cpu/ref/integers.c says plainly.
 * */
#include "kernels/quantise.h"

#include "kernels/image.h"

static struct kn_scale scale_of(const float *x, size_t n, int range)
{
	uint32_t most = 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;
		memcpy(&bits, &x[i], sizeof bits);
		bits &= 0x7fffffff;
		most = bits > most ? bits : most;
	}
	return kn_scale_of(most, range);
}

float kn_quantise_group(const float *x, size_t n, size_t count, int range, int8_t *q)
{
	struct kn_scale s = scale_of(x, n, range);
	if (s.inverse == 0.0f) {
		memset(q, 0, count);
		return s.scale;
	}
	/* Adding 3 * 2^22 rounds to an integer, to nearest even, and leaves it in the low bits. */
	for (size_t i = 0; i < n; i++) {
		float moved = x[i] * s.inverse + 0x1.8p23f;
		uint32_t bits;
		memcpy(&bits, &moved, sizeof bits);
		q[i] = (int8_t)bits;
	}
	memset(q + n, 0, count - n);
	return s.scale;
}

/* ---- of a checkpoint's types ---- */

static void widen(const void *values, enum cad_dtype dtype, size_t n, float x[KN_GROUP])
{
	uint16_t halves[KN_GROUP];
	CAD_ASSERT(n <= KN_GROUP);
	CAD_ASSERT(dtype == CAD_DTYPE_F32 || dtype == CAD_DTYPE_F16 || dtype == CAD_DTYPE_BF16);
	if (dtype == CAD_DTYPE_F32) {
		memcpy(x, values, n * sizeof *x);
		return;
	}

	memcpy(halves, values, n * sizeof *halves);
	if (dtype == CAD_DTYPE_F16) {
		for (size_t i = 0; i < n; i++)
			x[i] = kn_f32_of_f16(halves[i]);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		uint32_t bits = (uint32_t)halves[i] << 16;
		memcpy(&x[i], &bits, sizeof bits);
	}
}

float kn_quantise_values(const void *values, enum cad_dtype dtype, size_t n, size_t count, int range, int8_t *q)
{
	float x[KN_GROUP];
	widen(values, dtype, n, x);
	return kn_quantise_group(x, n, count, range, q);
}

float kn_quantise_scale(const void *values, enum cad_dtype dtype, size_t n, int range)
{
	float x[KN_GROUP];
	widen(values, dtype, n, x);
	return scale_of(x, n, range).scale;
}
