/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/image.h"

#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { MATRICES = 3, ROUNDED_VALUES = 4096 };

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

size_t kn_source_bytes(const struct kn_source *source)
{
	return source->n * source->k * cad_dtype_bytes(source->dtype);
}

struct kn_expert_source kn_image_of(const struct kn_expert_source *source, enum cad_weights weights)
{
	struct kn_expert_source image = *source;
	for (unsigned i = 0; i < KN_EXPERT_TENSORS; i++) {
		tensor_of(&image, i)->data = NULL;
		if (i < MATRICES && weights == CAD_WEIGHTS_BF16)
			tensor_of(&image, i)->dtype = CAD_DTYPE_BF16;
	}
	return image;
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

/* ---- rounding ---- */

static float f32_of_f16(uint16_t half)
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

static void round_values(const uint8_t *data, enum cad_dtype dtype, size_t count, uint16_t *out)
{
	for (size_t i = 0; i < count; i++) {
		uint16_t half;
		float value;
		if (dtype == CAD_DTYPE_F16) {
			memcpy(&half, data + i * sizeof half, sizeof half);
			value = f32_of_f16(half);
		} else {
			memcpy(&value, data + i * sizeof value, sizeof value);
		}
		out[i] = kn_bf16_of(value);
	}
}

/* ---- reading ---- */

typedef bool piece_fn(void *context, const void *bytes, size_t count);

static bool read_stored(const struct kn_source *source, piece_fn *piece, void *context)
{
	size_t bytes = kn_source_bytes(source);
	for (size_t at = 0; at < bytes; at += KN_IMAGE_PIECE_BYTES)
		if (!piece(context, (const uint8_t *)source->data + at,
			    bytes - at < KN_IMAGE_PIECE_BYTES ? bytes - at : KN_IMAGE_PIECE_BYTES))
			return false;
	return true;
}

static bool read_rounded(const struct kn_source *source, piece_fn *piece, void *context)
{
	uint16_t rounded[ROUNDED_VALUES];
	size_t values = source->n * source->k, element = cad_dtype_bytes(source->dtype);

	for (size_t at = 0; at < values; at += ROUNDED_VALUES) {
		size_t count = values - at < ROUNDED_VALUES ? values - at : ROUNDED_VALUES;
		round_values((const uint8_t *)source->data + at * element, source->dtype, count, rounded);
		if (!piece(context, rounded, count * sizeof *rounded))
			return false;
	}
	return true;
}

bool kn_image_read(const struct kn_expert_source *source, enum cad_weights weights, piece_fn *piece, void *context)
{
	struct kn_expert_source image = kn_image_of(source, weights);
	for (unsigned i = 0; i < KN_EXPERT_TENSORS; i++) {
		const struct kn_source *tensor = kn_expert_tensor(source, i);
		bool stored = kn_expert_tensor(&image, i)->dtype == tensor->dtype;
		if (!(stored ? read_stored : read_rounded)(tensor, piece, context))
			return false;
	}
	return true;
}

/* ---- checksums ---- */

static void hex_of(XXH128_hash_t hash, char hex[33])
{
	XXH128_canonical_t canonical;
	XXH128_canonicalFromHash(&canonical, hash);
	for (size_t i = 0; i < sizeof canonical.digest; i++)
		snprintf(hex + 2 * i, 3, "%02x", canonical.digest[i]);
}

struct hashing {
	XXH3_state_t state;
	bool (*read)(void *context, size_t count);
	void *context;
};

static bool hash_piece(void *context, const void *bytes, size_t count)
{
	struct hashing *hashing = context;
	XXH3_128bits_update(&hashing->state, bytes, count);
	return hashing->read(hashing->context, count);
}

bool kn_image_checksum_by_pieces(const struct kn_expert_source *source, enum cad_weights weights,
	bool (*read)(void *context, size_t count), void *context, char hex[33])
{
	struct hashing hashing = { .read = read, .context = context };
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
	(void)kn_image_checksum_by_pieces(source, weights, go_on, NULL, hex);
}

void kn_image_bytes_checksum(const void *bytes, size_t count, char hex[33]) { hex_of(XXH3_128bits(bytes, count), hex); }
