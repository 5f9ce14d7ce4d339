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
	/* those that nothing computes with; a file may hold them all the same */
	CAD_DTYPE_F64,
	CAD_DTYPE_C64,
	CAD_DTYPE_BOOL,
	CAD_DTYPE_I8,
	CAD_DTYPE_I16,
	CAD_DTYPE_U16,
	CAD_DTYPE_U32,
	CAD_DTYPE_U64,
	CAD_DTYPE_F8_E5M2,
	CAD_DTYPE_F8_E8M0,
	CAD_DTYPE_F8_E4M3FNUZ,
	CAD_DTYPE_F8_E5M2FNUZ,
	CAD_DTYPE_F6_E2M3,
	CAD_DTYPE_F6_E3M2,
	CAD_DTYPE_F4,
	/* rows of a quantised matrix (kernels/image.h); elements have no size of their own */
	CAD_DTYPE_Q8,
	CAD_DTYPE_Q4,
	/* pairs of F4 (E2M1) in a byte, the first in the low half, which 32 at a time share a scale */
	CAD_DTYPE_MXFP4,
	CAD_DTYPE_COUNT
};
static inline bool cad_dtype_scaled(enum cad_dtype dtype)
{
	return dtype == CAD_DTYPE_F8_E4M3 || dtype == CAD_DTYPE_MXFP4;
}
static inline bool cad_dtype_quantised(enum cad_dtype dtype) { return dtype == CAD_DTYPE_Q8 || dtype == CAD_DTYPE_Q4; }

/* Of an element; not of a quantised type. */
size_t cad_dtype_bits(enum cad_dtype dtype);
/* The same; not of one whose elements have no whole bytes. */
size_t cad_dtype_bytes(enum cad_dtype dtype);
const char *cad_dtype_name(enum cad_dtype dtype); /* "f32", ... */

/* By what the values of a matrix of F8_E4M3 or MXFP4 are multiplied: that at row r and column c by the
 * scale in row (first + r) / rows and column c / columns. */
struct cad_scales {
	const void *data;       /* NULL: it has none */
	enum cad_dtype dtype;   /* F32, BF16 or F8_E8M0 */
	uint64_t rows, columns; /* of a block of values that share one */
	uint64_t first;
	uint64_t ld;    /* from a row of scales to the next one, in scales */
	uint64_t count; /* of that row that are the tensor's */
	uint64_t bytes; /* of the file, which are the tensor's alone */
	const char *name;
};

struct cad_tensor {
	const void *data; /* NULL: the model has no such tensor. Of any alignment */
	enum cad_dtype dtype;
	uint32_t rank;     /* a file may hold tensors of more dimensions than shape has */
	uint64_t shape[4]; /* the first of them */
	uint64_t bytes;    /* of its values */
	const char *name;  /* as published; lives as long as the model */
	/* Of a matrix that is a part of a fused tensor: from a row to the next one, and from a value of a row
	 * to the next one, in bytes; 0: there is nothing between. */
	uint64_t row_step, value_step;
	/* Of FP8 and MXFP4. In a packed model they stand in the rows, and there are none here. */
	struct cad_scales scales;
	/* Of gate or up, which lie side by side in memory: the other one is of another type, so that neither can
	 * be kept as it is stored. */
	bool mixed;
};
/* Bytes of a row of k values of a scaled type with its scales before them, as images (kernels/image.h) and
 * packed models have it. */
uint64_t cad_dtype_row_bytes(enum cad_dtype dtype, uint64_t k);
/* From its first byte to its last, whatever is between. */
uint64_t cad_tensor_extent(const struct cad_tensor *tensor);
/* One scale. */
float cad_scale_at(const struct cad_scales *scales, uint64_t row, uint64_t column);

#endif
