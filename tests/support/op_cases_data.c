/* SPDX-License-Identifier: Apache-2.0 */
/* Seeded inputs of operator cases, and memory for them. */
#include "common/base/clock.h"
#include "kernels/quantise.h"
#include "tests/support/op_cases.h"

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static float from_bits(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

float op_value(uint64_t *state, enum op_data data)
{
	struct cad_random random = { *state };
	uint64_t r = cad_random_next(&random);

	*state = random.state;
	uint32_t sign_mantissa = (uint32_t)r & 0x807fffff;
	if (data == OP_DATA_WIDE)
		return from_bits(sign_mantissa | (uint32_t)(87 + (r >> 40) % 81) << 23);
	if (data == OP_DATA_TINY)
		return (r >> 40) % 8 == 0 ? from_bits(sign_mantissa & 0x80000000)
					  : from_bits(sign_mantissa | (uint32_t)((r >> 44) % 70) << 23);

	if (data == OP_DATA_ONES)
		return r & 1 ? 1.0f : -1.0f;

	/* four uniform numbers: nearly a bell */
	int32_t sum = (int32_t)((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48));
	return (float)(sum - 2 * 0xffff) * (float)(1.7320508 / 65536);
}

void op_fill(float *out, size_t count, uint64_t *state, enum op_data data, float scale)
{
	for (size_t i = 0; i < count; i++)
		out[i] = op_value(state, data) * scale;
}

void *op_need(size_t bytes)
{
	size_t length = kn_round_up(bytes + 1, 64);
	void *p = aligned_alloc(64, length);
	CAD_ASSERT(p);
	return memset(p, 0, length);
}

struct kn_source op_source(size_t n, size_t k, enum cad_dtype dtype, uint64_t *state, enum op_data data, float scale)
{
	size_t element = cad_dtype_bytes(dtype);
	uint8_t *out = op_need(n * k * element);

	for (size_t i = 0; i < n * k; i++) {
		float f = op_value(state, data) * scale;
		if (dtype == CAD_DTYPE_F16) {
			uint16_t half = _cvtss_sh(f, 0);
			memcpy(out + i * 2, &half, 2);
		} else {
			memcpy(out + i * element, (uint8_t *)&f + (4 - element), element);
		}
	}

	return (struct kn_source){ .data = out, .dtype = dtype, .n = n, .k = k };
}

enum cad_dtype op_dtype_of(const struct op_case *c, size_t expert, size_t matrix)
{
	static const enum cad_dtype several[] = { CAD_DTYPE_BF16, CAD_DTYPE_F32, CAD_DTYPE_F16 };
	return c->variant > 0 ? several[(expert + (c->variant == 2 ? matrix : 0)) % 3] : c->dtype;
}

float op_source_f32(const struct kn_source *source, size_t i)
{
	const uint8_t *at = (const uint8_t *)source->data + i * cad_dtype_bytes(source->dtype);
	uint16_t half;
	float f;

	if (source->dtype == CAD_DTYPE_F32) {
		memcpy(&f, at, 4);
		return f;
	}
	memcpy(&half, at, 2);
	return source->dtype == CAD_DTYPE_F16 ? _cvtsh_ss(half) : from_bits((uint32_t)half << 16);
}

float op_scale(const float *x, size_t n, int range)
{
	float most = 0;
	for (size_t i = 0; i < n; i++)
		most = isnan(x[i]) || fabsf(x[i]) > most ? fabsf(x[i]) : most;

	int exponent;
	double digits = frexp((double)(most / (float)range), &exponent) * 4096;
	double rounded = ldexp(ceil(digits), exponent - 12);

	return most < 0x1p-100f ? 0 : rounded < 0x1p120 ? (float)rounded : NAN;
}

void op_quantise(float *x, size_t n, size_t group, int range)
{
	for (size_t begin = 0; begin < n; begin += group) {
		size_t end = n - begin < group ? n : begin + group;
		float scale = op_scale(x + begin, end - begin, range);
		for (size_t i = begin; i < end; i++)
			x[i] = scale > 0 ? rintf(x[i] * (1.0f / scale)) * scale : scale;
	}
}

/* a * b, a / b and so on in double are exact or rounded so finely that to round them to f32 gives
 * what f32 gives. */
static float rounded(double x) { return (float)x; }

/* The weights of a sub-group, in units of the scale: (u - z) * s. Returns its nibble. */
static unsigned int4_subgroup(const float *x, size_t n, float scale, int *u, int *w)
{
	float m = 0, inverse = rounded(1 / (double)scale);
	for (size_t i = 0; i < n; i++)
		if (fabsf(x[i]) > fabsf(m))
			m = x[i];
	double wished = rint((double)rounded((double)fabsf(m) * (double)inverse) / 16 - 0.5);
	int z = m < 0 ? 8 : 7, i = wished < 0 ? 0 : wished > 7 ? 7 : (int)wished, s = 2 * i + 1;
	float fine = rounded(1 / ((double)scale * s));
	for (size_t k = 0; k < n; k++) {
		int v = z + (int)rint((double)rounded((double)x[k] * (double)fine));
		u[k] = v < 0 ? 0 : v > 15 ? 15 : v;
		w[k] = (u[k] - z) * s;
	}
	return (unsigned)i | (z == 8 ? 8u : 0u);
}

float op_int4_group(const float *x, size_t n, uint32_t *subscales, int u[KN_GROUP], int w[KN_GROUP])
{
	float scale = op_scale(x, n, KN_RANGE_INT4);
	*subscales = 0;
	for (size_t k = 0; k < n; k++) {
		u[k] = 7;
		w[k] = 0;
	}
	for (size_t k = 0; k < n && scale > 0; k += KN_SUBGROUP)
		*subscales |= int4_subgroup(x + k, n - k < KN_SUBGROUP ? n - k : KN_SUBGROUP, scale, u + k, w + k)
			<< k / KN_SUBGROUP * 4;
	return scale;
}

/* What int4 keeps of a row. */
static void keep_int4(float *x, size_t n)
{
	for (size_t begin = 0; begin < n; begin += KN_GROUP) {
		size_t count = n - begin < KN_GROUP ? n - begin : KN_GROUP;
		int u[KN_GROUP], w[KN_GROUP];
		uint32_t subscales;
		float scale = op_int4_group(x + begin, count, &subscales, u, w);
		for (size_t i = 0; i < count; i++)
			x[begin + i] = scale > 0 ? (float)w[i] * scale : scale;
	}
}

/* To nearest even: 8 digits, or steps of the smallest subnormal. */
static float to_bf16(float x)
{
	int exponent;
	if (!isfinite(x) || x == 0)
		return x;
	(void)frexp((double)x, &exponent);
	exponent = exponent < -125 ? -125 : exponent;
	return (float)ldexp(nearbyint(ldexp((double)x, 8 - exponent)), exponent - 8);
}

static bool rounds_rows(enum cad_weights weights)
{
	return weights == CAD_WEIGHTS_BF16_ROWS || weights == CAD_WEIGHTS_BF16_SM90;
}

void op_row_kept(float *x, size_t n, enum cad_weights weights)
{
	if (cad_weights_quantised(weights))
		op_quantise(x, n, KN_GROUP, KN_RANGE_INT8);
	for (size_t i = 0; i < n && rounds_rows(weights); i++)
		x[i] = to_bf16(x[i]);
}

struct kn_source op_kept(const struct kn_source *source, enum cad_weights weights)
{
	float *out = op_need(source->n * source->k * sizeof *out);

	for (size_t i = 0; i < source->n * source->k; i++)
		out[i] = op_source_f32(source, i);
	if (rounds_rows(weights))
		op_row_kept(out, source->n * source->k, weights);
	for (size_t r = 0; r < source->n && weights == CAD_WEIGHTS_INT8; r++)
		op_quantise(out + r * source->k, source->k, KN_GROUP, KN_RANGE_INT8);
	for (size_t r = 0; r < source->n && weights == CAD_WEIGHTS_INT4; r++)
		keep_int4(out + r * source->k, source->k);
	return (struct kn_source){ .data = out, .dtype = CAD_DTYPE_F32, .n = source->n, .k = source->k };
}

double op_weight_bytes(const struct op_case *c)
{
	switch (c->weights) {
	case CAD_WEIGHTS_INT8: return 1 + 4.0 / KN_GROUP;
	case CAD_WEIGHTS_INT4: return 0.5 + 0.5 / KN_SUBGROUP + 4.0 / KN_GROUP;
	case CAD_WEIGHTS_BF16:
	case CAD_WEIGHTS_BF16_ROWS:
	case CAD_WEIGHTS_BF16_SM90: return 2;
	case CAD_WEIGHTS_AS_IS: break;
	}
	return c->dtype == CAD_DTYPE_BF16 ? 2 : 4;
}

void *op_alloc(struct kn_queue *queue, size_t bytes)
{
	void *p = queue->ops->alloc(queue->device, bytes);
	CAD_ASSERT(p);
	return p;
}

void *op_upload(struct kn_queue *queue, const void *host, size_t bytes)
{
	void *p = op_alloc(queue, bytes);
	queue->ops->copy_in(queue, p, host, bytes);
	CAD_ASSERT(queue->ops->wait(queue) == CAD_OK);
	return p;
}

float *op_rows(
	struct kn_queue *queue, size_t rows, size_t n, uint64_t *state, enum op_data data, float scale, float **host)
{
	size_t ld = kn_ld(n), bytes = rows * ld * sizeof(float);
	float *h = op_need(bytes);

	for (size_t r = 0; r < rows; r++)
		op_fill(h + r * ld, n, state, data, scale);
	float *device = op_upload(queue, h, bytes);
	if (host)
		*host = h;
	else
		free(h);
	return device;
}
