/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/tensor.h"

#include "common/base/status.h"

#include <math.h>
#include <string.h>

static const struct {
	const char *name;
	size_t bits;
} dtypes[CAD_DTYPE_COUNT] = {
	[CAD_DTYPE_F32] = { "f32", 32 },
	[CAD_DTYPE_F16] = { "f16", 16 },
	[CAD_DTYPE_BF16] = { "bf16", 16 },
	[CAD_DTYPE_F8_E4M3] = { "f8_e4m3", 8 },
	[CAD_DTYPE_I64] = { "i64", 64 },
	[CAD_DTYPE_I32] = { "i32", 32 },
	[CAD_DTYPE_U8] = { "u8", 8 },
	[CAD_DTYPE_F64] = { "f64", 64 },
	[CAD_DTYPE_C64] = { "c64", 64 },
	[CAD_DTYPE_BOOL] = { "bool", 8 },
	[CAD_DTYPE_I8] = { "i8", 8 },
	[CAD_DTYPE_I16] = { "i16", 16 },
	[CAD_DTYPE_U16] = { "u16", 16 },
	[CAD_DTYPE_U32] = { "u32", 32 },
	[CAD_DTYPE_U64] = { "u64", 64 },
	[CAD_DTYPE_F8_E5M2] = { "f8_e5m2", 8 },
	[CAD_DTYPE_F8_E8M0] = { "f8_e8m0", 8 },
	[CAD_DTYPE_F8_E4M3FNUZ] = { "f8_e4m3fnuz", 8 },
	[CAD_DTYPE_F8_E5M2FNUZ] = { "f8_e5m2fnuz", 8 },
	[CAD_DTYPE_F6_E2M3] = { "f6_e2m3", 6 },
	[CAD_DTYPE_F6_E3M2] = { "f6_e3m2", 6 },
	[CAD_DTYPE_F4] = { "f4", 4 },
	[CAD_DTYPE_Q8] = { "q8", 0 },
	[CAD_DTYPE_Q4] = { "q4", 0 },
	[CAD_DTYPE_MXFP4] = { "mxfp4", 4 },
};

size_t cad_dtype_bits(enum cad_dtype dtype)
{
	CAD_ASSERT(dtype < CAD_DTYPE_COUNT && dtypes[dtype].bits > 0);
	return dtypes[dtype].bits;
}

size_t cad_dtype_bytes(enum cad_dtype dtype)
{
	CAD_ASSERT(cad_dtype_bits(dtype) % 8 == 0);
	return dtypes[dtype].bits / 8;
}

const char *cad_dtype_name(enum cad_dtype dtype)
{
	CAD_ASSERT(dtype < CAD_DTYPE_COUNT);
	return dtypes[dtype].name;
}

uint64_t cad_dtype_row_bytes(enum cad_dtype dtype, uint64_t k)
{
	enum { FP8_GROUP = 128, MXFP4_GROUP = 32 };
	CAD_ASSERT(cad_dtype_scaled(dtype));
	return dtype == CAD_DTYPE_MXFP4 ? (k + MXFP4_GROUP - 1) / MXFP4_GROUP + (k + 1) / 2
					: (k + FP8_GROUP - 1) / FP8_GROUP * sizeof(float) + k;
}

uint64_t cad_tensor_extent(const struct cad_tensor *tensor)
{
	uint64_t rows = tensor->shape[0], row = rows ? tensor->bytes / rows : 0;

	if (!tensor->row_step && !tensor->value_step)
		return tensor->bytes;
	if (tensor->value_step)
		row = (tensor->shape[1] - 1) * tensor->value_step + cad_dtype_bytes(tensor->dtype);
	return (rows - 1) * tensor->row_step + row;
}

float cad_scale_at(const struct cad_scales *scales, uint64_t row, uint64_t column)
{
	uint64_t index = (scales->first + row) / scales->rows * scales->ld + column / scales->columns;
	size_t element = cad_dtype_bytes(scales->dtype);
	uint32_t bits = 0;
	float value;

	memcpy(&bits, (const uint8_t *)scales->data + index * element, element);
	if (scales->dtype == CAD_DTYPE_F8_E8M0)
		return bits == 0xff ? NAN : ldexpf(1.0f, (int)bits - 127);
	bits <<= scales->dtype == CAD_DTYPE_BF16 ? 16 : 0;
	memcpy(&value, &bits, sizeof value);
	return value;
}
