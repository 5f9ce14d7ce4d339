/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/values.h"

#include "kernels/image.h"

#include <math.h>

const float kn_f4_values[16] = { 0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6 };

float kn_f32_of_f8(uint8_t byte)
{
	uint32_t magnitude = byte & 0x7f, bits;
	float value;

	if (magnitude == 0x7f)
		value = NAN;
	else if (magnitude < 8) /* subnormal: multiples of 2^-9 */
		value = (float)magnitude * 0x1p-9f;
	else {
		bits = (magnitude << 20) + (120u << 23);
		memcpy(&value, &bits, sizeof value);
	}
	return byte & 0x80 ? -value : value;
}

static const uint8_t *row_of(const struct kn_source *source, size_t row)
{
	size_t step = source->row_step ? source->row_step : kn_row_bytes(source->dtype, source->k);
	if (source->scales.data && !source->row_step)
		step = source->dtype == CAD_DTYPE_MXFP4 ? source->k / 2 : source->k;
	return (const uint8_t *)source->data + row * step;
}

/* Bytes of scales at the beginning of a row. */
static size_t head_bytes(const struct kn_source *source)
{
	if (source->scales.data)
		return 0;
	return source->dtype == CAD_DTYPE_MXFP4 ? (source->k + KN_MXFP4_GROUP - 1) / KN_MXFP4_GROUP
						: (source->k + KN_FP8_GROUP - 1) / KN_FP8_GROUP * sizeof(float);
}

const uint8_t *kn_source_bytes_of(const struct kn_source *source, size_t row)
{
	return row_of(source, row) + head_bytes(source);
}

float kn_source_scale(const struct kn_source *source, size_t row, size_t k)
{
	float scale;
	if (source->scales.data)
		return cad_scale_at(&source->scales, row, k);
	memcpy(&scale, row_of(source, row) + k / KN_FP8_GROUP * sizeof scale, sizeof scale);
	return scale;
}

uint8_t kn_source_exponent(const struct kn_source *source, size_t row, size_t k)
{
	const struct cad_scales *scales = &source->scales;
	size_t group = k / KN_MXFP4_GROUP;
	if (scales->data)
		return ((const uint8_t *)scales->data)[(scales->first + row) * scales->ld + group];
	return row_of(source, row)[group];
}

void kn_source_row(const struct kn_source *source, size_t row, uint8_t *out)
{
	size_t k = source->k;
	if (source->dtype == CAD_DTYPE_MXFP4) {
		for (size_t at = 0; at < k; at += KN_MXFP4_GROUP)
			*out++ = kn_source_exponent(source, row, at);
		memcpy(out, kn_source_bytes_of(source, row), (k + 1) / 2);
		return;
	}
	for (size_t at = 0; at < k; at += KN_FP8_GROUP, out += sizeof(float)) {
		float scale = kn_source_scale(source, row, at);
		memcpy(out, &scale, sizeof scale);
	}
	memcpy(out, kn_source_bytes_of(source, row), k);
}

static void widen_f8(const struct kn_source *source, size_t row, size_t k, size_t count, float *out)
{
	const uint8_t *bytes = kn_source_bytes_of(source, row);

	for (size_t at = k; at < k + count;) {
		size_t group_end = (at / KN_FP8_GROUP + 1) * KN_FP8_GROUP,
		       end = group_end < k + count ? group_end : k + count;
		float scale = kn_source_scale(source, row, at);
		for (; at < end; at++)
			out[at - k] = kn_f32_of_f8(bytes[at]) * scale;
	}
}

static void widen_mxfp4(const struct kn_source *source, size_t row, size_t k, size_t count, float *out)
{
	const uint8_t *bytes = kn_source_bytes_of(source, row);

	for (size_t at = k; at < k + count;) {
		size_t group_end = (at / KN_MXFP4_GROUP + 1) * KN_MXFP4_GROUP,
		       end = group_end < k + count ? group_end : k + count;
		float scale = ldexpf(1.0f, kn_source_exponent(source, row, at) - 127);
		for (; at < end; at++)
			out[at - k] = kn_f4_values[bytes[at / 2] >> at % 2 * 4 & 15] * scale;
	}
}

static float widen_one(const uint8_t *bytes, enum cad_dtype dtype)
{
	uint16_t half;
	float value;
	uint32_t bits;

	if (dtype == CAD_DTYPE_F32) {
		memcpy(&value, bytes, sizeof value);
		return value;
	}
	memcpy(&half, bytes, sizeof half);
	if (dtype == CAD_DTYPE_F16)
		return kn_f32_of_f16(half);
	bits = (uint32_t)half << 16;
	memcpy(&value, &bits, sizeof value);
	return value;
}

void kn_source_values(const struct kn_source *source, size_t row, size_t k, size_t count, float *out)
{
	if (source->dtype == CAD_DTYPE_F8_E4M3) {
		widen_f8(source, row, k, count, out);
		return;
	}
	if (source->dtype == CAD_DTYPE_MXFP4) {
		widen_mxfp4(source, row, k, count, out);
		return;
	}
	size_t step = source->value_step ? source->value_step : cad_dtype_bytes(source->dtype);
	const uint8_t *at = row_of(source, row) + k * step;
	for (size_t i = 0; i < count; i++)
		out[i] = widen_one(at + i * step, source->dtype);
}

/* Along what lies side by side: a line of memory is read once. */
#define GATHER(type) \
	for (size_t i = 0; i < count; i++, at += step) \
		for (size_t r = 0; r < rows; r++) \
	memcpy(out + r * ld + i * sizeof(type), at + r * row_step, sizeof(type))

void kn_source_gather(
	const struct kn_source *source, size_t row, size_t rows, size_t k, size_t count, uint8_t *out, size_t ld)
{
	size_t element = cad_dtype_bytes(source->dtype), step = source->value_step ? source->value_step : element,
	       row_step = source->row_step ? source->row_step : source->k * element;
	const uint8_t *at = row_of(source, row) + k * step;

	if (!source->value_step)
		for (size_t r = 0; r < rows; r++)
			memcpy(out + r * ld, at + r * row_step, count * element);
	else if (element == sizeof(float))
		GATHER(float);
	else
		GATHER(uint16_t);
}
