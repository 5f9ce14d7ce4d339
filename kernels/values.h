/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of a checkpoint's matrices, however they are stored: what packing, images and quantising
 * read.
 *
 * A value of F8_E4M3 is widened to f32, which is exact, and multiplied by its scale, rounded to f32; so
 * is one of MXFP4, where only overflow is inexact. That is the weight that is computed with. Pure
 * functions; any thread.
 */
#ifndef CADRE_KERNELS_VALUES_H
#define CADRE_KERNELS_VALUES_H

#include "kernels/kernels.h"

enum {
	KN_FP8_GROUP = 128,  /* values of a row of F8_E4M3 that share a scale, but for those that all do */
	KN_MXFP4_GROUP = 32, /* the same of MXFP4 */
};

/* F4 is E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6, then the same negative. */
extern const float kn_f4_values[16];
/* Of a byte of F8_E4M3. */
float kn_f32_of_f8(uint8_t byte);

/* Whether values are stored one after the other as they are. */
static inline bool kn_source_is_plain(const struct kn_source *source)
{
	return !source->row_step && !source->value_step && !cad_dtype_scaled(source->dtype);
}

/* Of a matrix of a scaled type: the bytes of a row's values, and its scale of the group that k is in: f32,
 * or of MXFP4 a byte. */
const uint8_t *kn_source_bytes_of(const struct kn_source *source, size_t row);
float kn_source_scale(const struct kn_source *source, size_t row, size_t k);
uint8_t kn_source_exponent(const struct kn_source *source, size_t row, size_t k);
/* Such a row as images have it: kn_row_bytes. */
void kn_source_row(const struct kn_source *source, size_t row, uint8_t *out);

/* Values k .. k + count - 1 of a row as f32. */
void kn_source_values(const struct kn_source *source, size_t row, size_t k, size_t count, float *out);
/* The same of `rows` rows from `row` on, as stored: F32, F16 or BF16. Rows of `out` are ld bytes apart. */
void kn_source_gather(
	const struct kn_source *source, size_t row, size_t rows, size_t k, size_t count, uint8_t *out, size_t ld);

#endif
