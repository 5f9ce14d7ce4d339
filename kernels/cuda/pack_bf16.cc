/* SPDX-License-Identifier: Apache-2.0 */
/* Weights as bf16, rounded on the host where they are not yet. */
#include "kernels/cuda/pack.h"

static void pack_row(const struct kn_source *source, size_t row, size_t k, size_t count, unsigned r, uint8_t *at)
{
	struct kn_bf16_block *block = reinterpret_cast<struct kn_bf16_block *>(at);
	uint16_t halves[KN_BF16_STEP];
	float values[KN_BF16_STEP];

	if (source->dtype == CAD_DTYPE_BF16)
		kn_source_gather(source, row, 1, k, count, reinterpret_cast<uint8_t *>(halves), sizeof halves);
	else
		kn_source_values(source, row, k, count, values);
	for (size_t i = 0; i < count; i++)
		block->w[kn_bf16_at(static_cast<int>(r), static_cast<int>(i))] =
			source->dtype == CAD_DTYPE_BF16 ? halves[i] : kn_bf16_of(values[i]);
}

static void unpack_row(const struct kn_source *tensor, size_t row, size_t k, size_t count, unsigned r,
	const uint8_t *at, const struct kn_span *span)
{
	const struct kn_bf16_block *block = reinterpret_cast<const struct kn_bf16_block *>(at);
	uint16_t values[KN_BF16_STEP];

	for (size_t i = 0; i < count; i++)
		values[i] = block->w[kn_bf16_at(static_cast<int>(r), static_cast<int>(i))];
	kn_span_put(span, (row * tensor->k + k) * sizeof *values, values, count * sizeof *values);
}

const struct kn_cuda_form kn_cuda_form_bf16_sm90 = { CAD_PROFILE_BF16_SM90, CAD_DTYPE_BF16, KN_BF16_STEP,
	sizeof(struct kn_bf16_block), pack_row, unpack_row };
