/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/image.h"

#include "common/base/digest.h"
#include "common/base/limits.h"
#include "kernels/quantise.h"
#include "kernels/values.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
	MATRICES = 3,
	ROUNDED_VALUES = 4096,
	GATHERED_BYTES = 128 << 10, /* of rows that are brought together */
	/* Quantised rows wait until they are so many bytes; a row of CAD_FFN_MAX values is longer. */
	QUANTISED_PIECE_BYTES = 32 << 10,
	QUANTISED_BYTES = CAD_FFN_MAX + CAD_FFN_MAX / KN_GROUP * sizeof(float),
	SCALED_BYTES = CAD_FFN_MAX + CAD_FFN_MAX / KN_FP8_GROUP * sizeof(float),
};

_Static_assert(CAD_FFN_MAX / CAD_HEAD_SIZE_MAX >= CAD_HEADS_MAX && CAD_FFN_MAX >= CAD_HIDDEN_MAX, "no row is longer");

static struct kn_source *tensor_of(struct kn_expert_source *expert, unsigned i)
{
	struct kn_source *const tensors[KN_EXPERT_TENSORS] = { &expert->gate, &expert->up, &expert->down,
		&expert->gate_bias, &expert->up_bias, &expert->down_bias };
	CAD_ASSERT(i < KN_EXPERT_TENSORS);
	return tensors[i];
}

const struct kn_source *kn_expert_tensor(const struct kn_expert_source *expert, unsigned i)
{
	return tensor_of((struct kn_expert_source *)expert, i);
}

size_t kn_row_scale_bytes(enum cad_dtype dtype, size_t k)
{
	return cad_dtype_quantised(dtype) ? (k + KN_GROUP - 1) / KN_GROUP * sizeof(float) : 0;
}

size_t kn_row_head_bytes(enum cad_dtype dtype, size_t k)
{
	return kn_row_scale_bytes(dtype, k) + (dtype == CAD_DTYPE_Q4 ? kn_int4_subscale_bytes(k) : 0);
}

size_t kn_row_bytes(enum cad_dtype dtype, size_t k)
{
	switch (dtype) {
	case CAD_DTYPE_Q8: return kn_row_head_bytes(dtype, k) + k;
	case CAD_DTYPE_Q4: return kn_row_head_bytes(dtype, k) + (k + 1) / 2;
	case CAD_DTYPE_F8_E4M3:
	case CAD_DTYPE_MXFP4: return cad_dtype_row_bytes(dtype, k);
	default: return k * cad_dtype_bytes(dtype);
	}
}

size_t kn_source_bytes(const struct kn_source *source) { return source->n * kn_row_bytes(source->dtype, source->k); }

enum cadre_image_kind kn_image_kind(enum cad_weights weights)
{
	return cad_weights_quantised(weights) ? CADRE_IMAGE_QUANTISED : CADRE_IMAGE_FLOAT;
}

enum cad_dtype kn_matrix_dtype(enum cad_dtype stored, enum cad_weights weights)
{
	switch (weights) {
	case CAD_WEIGHTS_AS_IS: return stored;
	case CAD_WEIGHTS_BF16:
	case CAD_WEIGHTS_BF16_ROWS:
	case CAD_WEIGHTS_BF16_SM90: return CAD_DTYPE_BF16;
	case CAD_WEIGHTS_INT8: return CAD_DTYPE_Q8;
	case CAD_WEIGHTS_INT4: return CAD_DTYPE_Q4;
	}
	return stored;
}

struct kn_expert_source kn_image_of(const struct kn_expert_source *source, enum cad_weights weights)
{
	struct kn_expert_source image = *source;
	for (unsigned i = 0; i < KN_EXPERT_TENSORS; i++) {
		struct kn_source *tensor = tensor_of(&image, i);
		tensor->data = NULL;
		tensor->row_step = tensor->value_step = 0;
		tensor->scales = (struct cad_scales){ 0 };
		if (i < MATRICES)
			tensor->dtype = kn_matrix_dtype(kn_stored_dtype(tensor), weights);
		tensor->mixed = false;
	}
	return image;
}

struct kn_span kn_image_span(const struct kn_expert_source *image, unsigned i, uint64_t begin, uint64_t end, void *out)
{
	uint64_t at = 0;
	for (unsigned before = 0; before < i; before++)
		at += kn_source_bytes(kn_expert_tensor(image, before));
	uint64_t bytes = kn_source_bytes(kn_expert_tensor(image, i)), first = begin > at ? begin : at,
		 last = at + bytes < end ? at + bytes : end;
	if (first >= last)
		return (struct kn_span){ 0 };
	return (struct kn_span){ first - at, last - at, (uint8_t *)out + (first - begin) };
}

void kn_span_put(const struct kn_span *span, uint64_t at, const void *bytes, size_t count)
{
	uint64_t first = at > span->begin ? at : span->begin, last = at + count < span->end ? at + count : span->end;
	if (first < last)
		memcpy(span->out + (first - span->begin), (const uint8_t *)bytes + (first - at), last - first);
}

uint64_t kn_image_bytes(const struct kn_expert_source *image)
{
	uint64_t bytes = 0;
	for (unsigned i = 0; i < KN_EXPERT_TENSORS; i++)
		bytes += kn_source_bytes(kn_expert_tensor(image, i));
	return bytes;
}

struct kn_expert_source kn_image_at(const struct kn_expert_source *image, const void *bytes)
{
	struct kn_expert_source at = *image;
	const uint8_t *next = bytes;
	for (unsigned i = 0; i < KN_EXPERT_TENSORS; i++) {
		struct kn_source *tensor = tensor_of(&at, i);
		tensor->data = tensor->n > 0 ? next : NULL;
		next += kn_source_bytes(tensor);
	}
	return at;
}

/* ---- reading ---- */

typedef bool piece_fn(void *context, const void *bytes, size_t count);

static bool hand_out(const uint8_t *bytes, size_t count, piece_fn *piece, void *context)
{
	for (size_t at = 0; at < count; at += KN_IMAGE_PIECE_BYTES)
		if (!piece(context, bytes + at, count - at < KN_IMAGE_PIECE_BYTES ? count - at : KN_IMAGE_PIECE_BYTES))
			return false;
	return true;
}

/* As stored, of rows or values that lie apart. */
static bool read_apart(const struct kn_source *source, piece_fn *piece, void *context)
{
	uint8_t rows[GATHERED_BYTES];
	size_t element = cad_dtype_bytes(source->dtype), row_bytes = source->k * element,
	       many = sizeof rows / row_bytes, values = many > 0 ? source->k : sizeof rows / element;

	many = many > 0 ? many : 1;
	for (size_t r = 0; r < source->n; r += many)
		for (size_t k = 0; k < source->k; k += values) {
			size_t height = source->n - r < many ? source->n - r : many,
			       width = source->k - k < values ? source->k - k : values;
			kn_source_gather(source, r, height, k, width, rows, width * element);
			if (!piece(context, rows, height * width * element))
				return false;
		}
	return true;
}

/* As f32, or rounded to bf16. */
static bool read_widened(const struct kn_source *source, enum cad_dtype dtype, piece_fn *piece, void *context)
{
	float wide[ROUNDED_VALUES];
	uint16_t rounded[ROUNDED_VALUES];
	bool round = dtype == CAD_DTYPE_BF16;

	size_t used = 0;

	for (size_t r = 0; r < source->n; r++)
		for (size_t k = 0, count; k < source->k; k += count) {
			count = source->k - k < ROUNDED_VALUES - used ? source->k - k : ROUNDED_VALUES - used;
			kn_source_values(source, r, k, count, wide + used);
			used += count;
			bool last = r + 1 == source->n && k + count == source->k;
			if (used < ROUNDED_VALUES && !last)
				continue;
			for (size_t i = 0; i < used && round; i++)
				rounded[i] = kn_bf16_of(wide[i]);
			if (!piece(context, round ? (const void *)rounded : wide,
				    used * (round ? sizeof *rounded : sizeof *wide)))
				return false;
			used = 0;
		}
	return true;
}

/* Two values a byte, low first: 8 at a time while there are as many. */
static void pair_nibbles(const uint8_t *u, size_t count, uint8_t *pairs)
{
	size_t i = 0;
	for (; i + 8 <= count; i += 8) {
		uint64_t v;
		memcpy(&v, u + i, sizeof v);
		v = (v | v >> 4) & 0x00ff00ff00ff00ff;
		v = (v | v >> 8) & 0x0000ffff0000ffff;
		uint32_t word = (uint32_t)(v | v >> 16);
		memcpy(pairs + i / 2, &word, sizeof word);
	}
	for (; i < count; i += 2)
		pairs[i / 2] = (uint8_t)(u[i] | (i + 1 < count ? u[i + 1] : 0) << 4);
}

/* A row of a quantised image. */
static void quantise_row(const struct kn_source *source, size_t row, enum cad_dtype dtype, uint8_t *out)
{
	uint8_t *scales = out, *subscales = out + kn_row_scale_bytes(dtype, source->k),
		*values = out + kn_row_head_bytes(dtype, source->k);

	for (size_t k = 0; k < source->k; k += KN_GROUP, scales += sizeof(float)) {
		size_t count = source->k - k < KN_GROUP ? source->k - k : KN_GROUP;
		struct kn_int4_group group;
		float wide[KN_GROUP];
		kn_source_values(source, row, k, count, wide);
		if (dtype == CAD_DTYPE_Q8) {
			group.scale = kn_quantise_group(wide, count, count, KN_RANGE_INT8, (int8_t *)values + k);
		} else {
			kn_quantise_int4(wide, CAD_DTYPE_F32, count, &group);
			memcpy(subscales + k / KN_SUBGROUP / 2, &group.subscales, kn_int4_subscale_bytes(count));
			pair_nibbles(group.u, count, values + k / 2);
		}
		memcpy(scales, &group.scale, sizeof group.scale);
	}
}

static bool read_quantised(const struct kn_source *source, enum cad_dtype dtype, piece_fn *piece, void *context)
{
	uint8_t rows[QUANTISED_BYTES];
	size_t used = 0, bytes = kn_row_bytes(dtype, source->k);

	CAD_ASSERT(bytes <= sizeof rows);
	for (size_t r = 0; r < source->n; r++) {
		if (used > 0 && used + bytes > QUANTISED_PIECE_BYTES) {
			if (!hand_out(rows, used, piece, context))
				return false;
			used = 0;
		}
		quantise_row(source, r, dtype, rows + used);
		used += bytes;
	}
	return hand_out(rows, used, piece, context);
}

/* Of a matrix whose columns lie side by side, as many rows as fit are brought together first: row by row,
 * every value would be a line of memory. */
static bool read_turned(const struct kn_source *source, enum cad_dtype dtype, piece_fn *piece, void *context)
{
	uint8_t rows[GATHERED_BYTES];
	size_t row_bytes = source->k * cad_dtype_bytes(source->dtype), many = sizeof rows / row_bytes;

	for (size_t r = 0; r < source->n; r += many) {
		struct kn_source plain = {
			.data = rows,
			.dtype = source->dtype,
			.n = source->n - r < many ? source->n - r : many,
			.k = source->k,
		};
		kn_source_gather(source, r, plain.n, 0, plain.k, rows, row_bytes);
		if (!kn_source_read(&plain, dtype, piece, context))
			return false;
	}
	return true;
}

/* As stored, each row with its scales. */
static bool read_scaled(const struct kn_source *source, piece_fn *piece, void *context)
{
	uint8_t rows[SCALED_BYTES];
	size_t used = 0, bytes = kn_row_bytes(source->dtype, source->k);

	CAD_ASSERT(bytes <= sizeof rows);
	for (size_t r = 0; r < source->n; r++) {
		if (used > 0 && used + bytes > QUANTISED_PIECE_BYTES) {
			if (!hand_out(rows, used, piece, context))
				return false;
			used = 0;
		}
		kn_source_row(source, r, rows + used);
		used += bytes;
	}
	return hand_out(rows, used, piece, context);
}

bool kn_source_read(const struct kn_source *source, enum cad_dtype dtype, piece_fn *piece, void *context)
{
	if (dtype == source->dtype && source->scales.data)
		return read_scaled(source, piece, context);
	if (dtype == source->dtype)
		return !source->row_step && !source->value_step
			? hand_out(source->data, kn_source_bytes(source), piece, context)
			: read_apart(source, piece, context);
	if (source->value_step && source->k * cad_dtype_bytes(source->dtype) <= GATHERED_BYTES)
		return read_turned(source, dtype, piece, context);
	return cad_dtype_quantised(dtype) ? read_quantised(source, dtype, piece, context)
					  : read_widened(source, dtype, piece, context);
}

bool kn_image_read(const struct kn_expert_source *source, enum cad_weights weights, piece_fn *piece, void *context)
{
	struct kn_expert_source image = kn_image_of(source, weights);
	for (unsigned i = 0; i < KN_EXPERT_TENSORS; i++)
		if (!kn_source_read(kn_expert_tensor(source, i), kn_expert_tensor(&image, i)->dtype, piece, context))
			return false;
	return true;
}

/* ---- checksums ---- */

static void hex_of(XXH128_hash_t hash, char hex[33]) { cad_digest_text(hash.high64, hash.low64, hex); }

struct hashing {
	XXH3_state_t state;
	uint8_t *next; /* where the image goes; NULL: nowhere */
	bool (*read)(void *context, size_t count);
	void *context;
};

static bool hash_piece(void *context, const void *bytes, size_t count)
{
	struct hashing *hashing = context;
	XXH3_128bits_update(&hashing->state, bytes, count);
	if (hashing->next)
		hashing->next = (uint8_t *)memcpy(hashing->next, bytes, count) + count;
	return hashing->read(hashing->context, count);
}

bool kn_image_checksum_by_pieces(const struct kn_expert_source *source, enum cad_weights weights, void *image,
	bool (*read)(void *context, size_t count), void *context, char hex[33])
{
	struct hashing hashing = { .next = image, .read = read, .context = context };
	XXH3_INITSTATE(&hashing.state);
	XXH3_128bits_reset(&hashing.state);
	if (!kn_image_read(source, weights, hash_piece, &hashing))
		return false;
	hex_of(XXH3_128bits_digest(&hashing.state), hex);
	return true;
}

static bool go_on(void *context, size_t count) { return (void)context, (void)count, true; }

void kn_image_checksum(const struct kn_expert_source *source, enum cad_weights weights, char hex[33])
{
	(void)kn_image_checksum_by_pieces(source, weights, NULL, go_on, NULL, hex);
}

void kn_image_bytes_checksum(const void *bytes, size_t count, char hex[33]) { hex_of(XXH3_128bits(bytes, count), hex); }
