/* SPDX-License-Identifier: Apache-2.0 */
/* Packing quantises on the host, as the CPU's does (quantise.h). */
#include "kernels/cuda/pack.h"

enum { CHUNK = 16 };

/* Of a group, quantised, or as it is already: q padded with zeros. */
static float quantise(const struct kn_source *source, size_t row, size_t k, size_t count, int8_t q[KN_GROUP])
{
	const uint8_t *bytes =
		static_cast<const uint8_t *>(source->data) + row * kn_row_bytes(source->dtype, source->k);
	if (source->dtype != CAD_DTYPE_Q8)
		return kn_quantise_values(
			bytes + k * cad_dtype_bytes(source->dtype), source->dtype, count, KN_GROUP, KN_RANGE_INT8, q);

	float scale;
	memcpy(&scale, bytes + k / KN_GROUP * sizeof scale, sizeof scale);
	memcpy(q, bytes + kn_row_scale_bytes(source->dtype, source->k) + k, count);
	memset(q + count, 0, KN_GROUP - count);
	return scale;
}

static void pack_row(const struct kn_source *source, size_t row, size_t k, size_t count, unsigned r, uint8_t *at)
{
	struct kn_int8_block *block = reinterpret_cast<struct kn_int8_block *>(at);
	int8_t q[KN_GROUP];

	block->scales[r] = quantise(source, row, k, count, q);
	for (int i = 0; i < KN_GROUP; i += CHUNK)
		memcpy(block->q + kn_int8_at(KN_PANEL_ROWS, static_cast<int>(r), i), q + i, CHUNK);
}

static void unpack_row(const struct kn_source *tensor, size_t row, size_t k, size_t count, unsigned r,
	const uint8_t *at, const struct kn_cuda_span *span)
{
	const struct kn_int8_block *block = reinterpret_cast<const struct kn_int8_block *>(at);
	const uint64_t begin = row * kn_row_bytes(CAD_DTYPE_Q8, tensor->k),
		       values = begin + kn_row_scale_bytes(CAD_DTYPE_Q8, tensor->k) + k;

	kn_cuda_span_put(span, begin + k / KN_GROUP * sizeof(float), &block->scales[r], sizeof(float));
	for (size_t i = 0; i < count; i += CHUNK)
		kn_cuda_span_put(span, values + i,
			block->q + kn_int8_at(KN_PANEL_ROWS, static_cast<int>(r), static_cast<int>(i)),
			count - i < CHUNK ? count - i : size_t{ CHUNK });
}

const struct kn_cuda_form kn_cuda_form_int8 = { KN_GROUP, sizeof(struct kn_int8_block), pack_row, unpack_row };
