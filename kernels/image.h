/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An expert's image: its weights as bytes that mean the same on every node, however each packs
 * them. It is what moves from node to node, and what checksums of experts are over.
 *
 * Version 1, kind FLOAT (proto/cadre_wire.h): the tensors gate, up, down, then their biases, as far
 * as the model has them, one after another without gaps; each row by row; elements in the
 * checkpoint's type, little-endian. Where the cluster rounds weights (CAD_WEIGHTS_BF16, BF16_ROWS),
 * the three matrices are bf16, rounded as packing rounds. So without rounding the image is the
 * tensors as stored.
 *
 * Matrices that are stored in FP8 or MXFP4, and are not rounded, have their scales in their rows: of
 * F8_E4M3 first those of each KN_FP8_GROUP of k, f32, then its k bytes; of MXFP4 those of each
 * KN_MXFP4_GROUP, a byte, then k / 2 bytes of pairs, the first in the low half. Where of gate and up
 * one is stored so and the other otherwise, it is f32.
 *
 * Kind QUANTISED, of weights that are quantised (quantise.h): the rows of the three matrices are of
 * type Q8 or Q4. Such a row is the scales of its groups, f32, then its k values. Of Q8 those are
 * s8. Of Q4 they are u in half a byte each, and before them stand the sub-scales of the sub-groups
 * that the row has, half a byte each too; the first is in the low half, and the last half is 0
 * where their number is odd. Packing from an image quantises nothing, and gives what packing from
 * the tensors gives.
 *
 * A struct kn_expert_source describes it: types and shapes, data NULL, or where the bytes are.
 * Pure functions; any thread.
 */
#ifndef CADRE_KERNELS_IMAGE_H
#define CADRE_KERNELS_IMAGE_H

#include "kernels/kernels.h"

#include <string.h>

enum { KN_EXPERT_TENSORS = 6 };
/* The i-th in the order above; n 0: the expert has none. */
const struct kn_source *kn_expert_tensor(const struct kn_expert_source *expert, unsigned i);
size_t kn_source_bytes(const struct kn_source *source);
/* Of a row of k elements; of those, the bytes of scales, and of all that is before the values. */
size_t kn_row_bytes(enum cad_dtype dtype, size_t k);
size_t kn_row_scale_bytes(enum cad_dtype dtype, size_t k);
size_t kn_row_head_bytes(enum cad_dtype dtype, size_t k);

/* How a matrix that is stored in one type is kept, in memory and in images. */
enum cad_dtype kn_matrix_dtype(enum cad_dtype stored, enum cad_weights weights);
/* The type that a matrix counts as stored in: one that is mixed cannot stay scaled. */
static inline enum cad_dtype kn_stored_dtype(const struct kn_source *source)
{
	return source->mixed && cad_dtype_scaled(source->dtype) ? CAD_DTYPE_F32 : source->dtype;
}
/* Whether its rows, in images and packed models, hold scales too: it is U8 in a file. */
static inline bool kn_dtype_in_rows(enum cad_dtype dtype)
{
	return cad_dtype_quantised(dtype) || cad_dtype_scaled(dtype);
}
/* Gate and up lie side by side on a device: the type that both are stored in; f32 where one is
 * stored in another than the other, which changes no value. */
static inline enum cad_dtype kn_gate_up_dtype(const struct kn_expert_source *source)
{
	enum cad_dtype gate = kn_stored_dtype(&source->gate), up = kn_stored_dtype(&source->up);
	return gate == up ? gate : CAD_DTYPE_F32;
}
enum cadre_image_kind kn_image_kind(enum cad_weights weights);
/* The image of an expert that is packed from these tensors; data NULL. */
struct kn_expert_source kn_image_of(const struct kn_expert_source *source, enum cad_weights weights);
uint64_t kn_image_bytes(const struct kn_expert_source *image);
/* The same with data in an image in memory: what expert_create packs. */
struct kn_expert_source kn_image_at(const struct kn_expert_source *image, const void *bytes);

/* Bytes begin .. end - 1 of one tensor of an image, to `out`. */
struct kn_span {
	uint64_t begin, end;
	uint8_t *out;
};
/* What bytes begin .. end - 1 of an image, which go to `out`, have of its tensor i; begin == end of
 * the span: nothing. */
struct kn_span kn_image_span(const struct kn_expert_source *image, unsigned i, uint64_t begin, uint64_t end, void *out);
/* What of [at, at + count) of the tensor is in the span goes to its place. */
void kn_span_put(const struct kn_span *span, uint64_t at, const void *bytes, size_t count);

/* Rounded to nearest even; NaN stays NaN. Packing rounds the same. */
static inline uint16_t kn_bf16_of(float value)
{
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	bool nan = (bits & 0x7fffffff) > 0x7f800000;
	return (uint16_t)(nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float kn_f32_of_f16(uint16_t half)
{
	uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff, bits;
	if (exponent == 0) { /* zero, or mantissa * 2^-24, which is exact */
		float small = (float)mantissa * 0x1p-24f;
		memcpy(&bits, &small, sizeof bits);
	} else {
		bits = (exponent == 0x1f ? 0xffu : exponent + 112) << 23 | mantissa << 13;
	}
	bits |= sign;
	float value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

/* Makes the image of a checkpoint's tensors, and hands it out piece by piece, in order. The pieces
 * are valid during the call; `piece` returns false to end it there. True: that was all of it. */
enum { KN_IMAGE_PIECE_BYTES = 256 << 10 }; /* at most */
bool kn_image_read(const struct kn_expert_source *source, enum cad_weights weights,
	bool (*piece)(void *context, const void *bytes, size_t count), void *context);
/* The same of one tensor, in its own type or one of kn_matrix_dtype. */
bool kn_source_read(const struct kn_source *source, enum cad_dtype dtype,
	bool (*piece)(void *context, const void *bytes, size_t count), void *context);

/* XXH3-128 over an image, as 32 hex digits: of tensors, which are read for it, or of the image
 * itself. `read` is told of each piece, and may take its time; false: it ended there, and there is
 * no checksum. `image`: where the image goes too, so that who packs it does not quantise again;
 * NULL: nowhere. */
bool kn_image_checksum_by_pieces(const struct kn_expert_source *source, enum cad_weights weights, void *image,
	bool (*read)(void *context, size_t count), void *context, char hex[33]);
void kn_image_checksum(const struct kn_expert_source *source, enum cad_weights weights, char hex[33]);
void kn_image_bytes_checksum(const void *bytes, size_t count, char hex[33]);

#endif
