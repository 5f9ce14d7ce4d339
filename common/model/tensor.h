/* SPDX-License-Identifier: Apache-2.0 */
/* A tensor of a checkpoint, where the file is mapped. Any thread may read it. */
#ifndef CADRE_COMMON_MODEL_TENSOR_H
#define CADRE_COMMON_MODEL_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cad_dtype {
	CAD_DTYPE_F32,
	CAD_DTYPE_F16,
	CAD_DTYPE_BF16,
	CAD_DTYPE_F8_E4M3,
	CAD_DTYPE_I64,
	CAD_DTYPE_I32,
	CAD_DTYPE_U8,
	/* rows of a quantised matrix (kernels/image.h); elements have no size of their own */
	CAD_DTYPE_Q8,
	CAD_DTYPE_Q4,
	CAD_DTYPE_COUNT
};
static inline bool cad_dtype_quantised(enum cad_dtype dtype) { return dtype == CAD_DTYPE_Q8 || dtype == CAD_DTYPE_Q4; }

size_t cad_dtype_bytes(enum cad_dtype dtype);     /* of an element; not of a quantised type */
const char *cad_dtype_name(enum cad_dtype dtype); /* "f32", ... */

struct cad_tensor {
	const void *data; /* NULL: the model has no such tensor. Aligned to the element only */
	enum cad_dtype dtype;
	uint32_t rank;
	uint64_t shape[4];
	uint64_t bytes;
	const char *name; /* as published; lives as long as the model */
};

#endif
