/* SPDX-License-Identifier: Apache-2.0 */
/* Loops that compilers turn into vector code; what they compute, cpu/ref/integers.c says plainly.
 * */
#include "kernels/quantise.h"

#include "kernels/image.h"

#include <math.h>

static uint32_t bits_of(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

static uint32_t most_bits(const float *x, size_t n)
{
	uint32_t most = 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t bits = bits_of(x[i]) & 0x7fffffff;
		most = bits > most ? bits : most;
	}
	return most;
}

static struct kn_scale scale_of(const float *x, size_t n, int range) { return kn_scale_of(most_bits(x, n), range); }

/* To an integer below 2^22, to nearest even: adding 3 * 2^22 leaves it in the low bits. */
static int32_t rounded(float x) { return (int32_t)(bits_of(x + 0x1.8p23f) - bits_of(0x1.8p23f)); }

float kn_quantise_group(const float *x, size_t n, size_t count, int range, int8_t *q)
{
	struct kn_scale s = scale_of(x, n, range);
	if (s.inverse == 0.0f) {
		memset(q, 0, count);
		return s.scale;
	}
	for (size_t i = 0; i < n; i++)
		q[i] = (int8_t)rounded(x[i] * s.inverse);
	memset(q + n, 0, count - n);
	return s.scale;
}

/* One sub-group: its nibble of subscales, and u. */
static uint32_t quantise_subgroup(const float x[KN_SUBGROUP], struct kn_scale s, uint8_t u[KN_SUBGROUP])
{
	uint32_t most = most_bits(x, KN_SUBGROUP), first = KN_SUBGROUP;
	for (uint32_t i = 0; i < KN_SUBGROUP; i++) {
		uint32_t here = (bits_of(x[i]) & 0x7fffffff) == most ? i : KN_SUBGROUP;
		first = here < first ? here : first;
	}

	int32_t z = x[first] < 0 ? 8 : 7, i = rounded(fabsf(x[first]) * s.inverse / 16 - 0.5f);
	i = i < 0 ? 0 : i > 7 ? 7 : i;
	float inverse = 1.0f / (s.scale * (float)(2 * i + 1));
	for (size_t k = 0; k < KN_SUBGROUP; k++) {
		int32_t v = z + rounded(x[k] * inverse);
		u[k] = (uint8_t)(v < 0 ? 0 : v > 15 ? 15 : v);
	}
	return (uint32_t)(z == 8) << 3 | (uint32_t)i;
}

static void quantise_int4(const float x[KN_GROUP], struct kn_int4_group *group)
{
	struct kn_scale s = scale_of(x, KN_GROUP, KN_RANGE_INT4);
	group->scale = s.scale;
	group->subscales = 0;
	if (s.inverse == 0.0f) {
		memset(group->u, 7, sizeof group->u);
		return;
	}
	for (size_t j = 0; j < KN_SUBGROUPS; j++)
		group->subscales |= quantise_subgroup(x + j * KN_SUBGROUP, s, group->u + j * KN_SUBGROUP) << 4 * j;
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

void kn_quantise_int4(const void *values, enum cad_dtype dtype, size_t n, struct kn_int4_group *group)
{
	float x[KN_GROUP] = { 0 };
	if (n > 0)
		widen(values, dtype, n, x);
	quantise_int4(x, group);
}
