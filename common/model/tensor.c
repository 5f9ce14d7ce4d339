/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/tensor.h"

#include "common/base/status.h"

static const struct {
	const char *name;
	size_t bytes;
} dtypes[CAD_DTYPE_COUNT] = {
	[CAD_DTYPE_F32] = { "f32", 4 },
	[CAD_DTYPE_F16] = { "f16", 2 },
	[CAD_DTYPE_BF16] = { "bf16", 2 },
	[CAD_DTYPE_F8_E4M3] = { "f8_e4m3", 1 },
	[CAD_DTYPE_I64] = { "i64", 8 },
	[CAD_DTYPE_I32] = { "i32", 4 },
	[CAD_DTYPE_U8] = { "u8", 1 },
	[CAD_DTYPE_Q8] = { "q8", 0 },
	[CAD_DTYPE_Q4] = { "q4", 0 },
};

size_t cad_dtype_bytes(enum cad_dtype dtype)
{
	CAD_ASSERT(dtype < CAD_DTYPE_COUNT && dtypes[dtype].bytes > 0);
	return dtypes[dtype].bytes;
}

const char *cad_dtype_name(enum cad_dtype dtype)
{
	CAD_ASSERT(dtype < CAD_DTYPE_COUNT);
	return dtypes[dtype].name;
}
