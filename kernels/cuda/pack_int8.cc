/* SPDX-License-Identifier: Apache-2.0 */
/* Packing quantises on the host, as the CPU's does (quantise.h). */
#include "kernels/cuda/pack.h"

enum { CHUNK = 16 };

static const uint8_t *row_of(const struct kn_source *source, size_t row)
{
	return static_cast<const uint8_t *>(source->data) + row * kn_row_bytes(source->dtype, source->k);
}

/* Of a group, quantised, or as it is already: q padded with zeros. */
static float quantise(const struct kn_source *source, size_t row, size_t k, size_t count, int8_t q[KN_GROUP])
{
	float scale, values[KN_GROUP];
	if (source->dtype != CAD_DTYPE_Q8) {
		kn_source_values(source, row, k, count, values);
		return kn_quantise_group(values, count, KN_GROUP, KN_RANGE_INT8, q);
	}

	const uint8_t *bytes = row_of(source, row);
	memcpy(&scale, bytes + k / KN_GROUP * sizeof scale, sizeof scale);
	memcpy(q, bytes + kn_row_scale_bytes(source->dtype, source->k) + k, count);
	memset(q + count, 0, KN_GROUP - count);
	return scale;
}

static void put_row(struct kn_int8_block *block, unsigned r, float scale, const int8_t q[KN_GROUP])
{
	block->scales[r] = scale;
	for (int i = 0; i < KN_GROUP; i += CHUNK)
		memcpy(block->q + kn_int8_at(KN_PANEL_ROWS, static_cast<int>(r), i), q + i, CHUNK);
}

static void pack_row(const struct kn_source *source, size_t row, size_t k, size_t count, unsigned r, uint8_t *at)
{
	int8_t q[KN_GROUP];
	const float scale = quantise(source, row, k, count, q);
	put_row(reinterpret_cast<struct kn_int8_block *>(at), r, scale, q);
}

static void unpack_row(const struct kn_source *tensor, size_t row, size_t k, size_t count, unsigned r,
	const uint8_t *at, const struct kn_span *span)
{
	const struct kn_int8_block *block = reinterpret_cast<const struct kn_int8_block *>(at);
	const uint64_t begin = row * kn_row_bytes(CAD_DTYPE_Q8, tensor->k),
		       values = begin + kn_row_scale_bytes(CAD_DTYPE_Q8, tensor->k) + k;

	kn_span_put(span, begin + k / KN_GROUP * sizeof(float), &block->scales[r], sizeof(float));
	for (size_t i = 0; i < count; i += CHUNK)
		kn_span_put(span, values + i,
			block->q + kn_int8_at(KN_PANEL_ROWS, static_cast<int>(r), static_cast<int>(i)),
			count - i < CHUNK ? count - i : size_t{ CHUNK });
}

const struct kn_cuda_form kn_cuda_form_int8 = { CAD_PROFILE_INT8, CAD_DTYPE_Q8, KN_GROUP, sizeof(struct kn_int8_block),
	pack_row, unpack_row };

/* ---- int4 ---- */

/* From an image: what stands there of a group. */
static void read_int4(const struct kn_source *source, size_t row, size_t k, size_t count, struct kn_int4_group *group)
{
	const uint8_t *bytes = row_of(source, row),
		      *pairs = bytes + kn_row_head_bytes(source->dtype, source->k) + k / 2;
	memcpy(&group->scale, bytes + k / KN_GROUP * sizeof group->scale, sizeof group->scale);
	group->subscales = 0;
	memcpy(&group->subscales, bytes + kn_row_scale_bytes(source->dtype, source->k) + k / KN_SUBGROUP / 2,
		kn_int4_subscale_bytes(count));
	for (size_t i = 0; i < count; i++)
		group->u[i] = pairs[i / 2] >> (i % 2 * 4) & 15;
}

static void pack_row_int4(const struct kn_source *source, size_t row, size_t k, size_t count, unsigned r, uint8_t *at)
{
	struct kn_int4_block *block = reinterpret_cast<struct kn_int4_block *>(at);
	struct kn_int4_group group;
	int8_t q[KN_GROUP] = {};
	float values[KN_GROUP];

	if (source->dtype == CAD_DTYPE_Q4)
		read_int4(source, row, k, count, &group);
	else {
		kn_source_values(source, row, k, count, values);
		kn_quantise_int4(values, CAD_DTYPE_F32, count, &group);
	}
	for (size_t i = 0; i < count; i++)
		q[i] = static_cast<int8_t>((group.u[i] - kn_int4_zero(group.subscales, i / KN_SUBGROUP)) *
			kn_int4_subscale(group.subscales, i / KN_SUBGROUP));
	put_row(&block->widened, r, group.scale, q);
	block->subscales[r] = group.subscales;
}

static void unpack_row_int4(const struct kn_source *tensor, size_t row, size_t k, size_t count, unsigned r,
	const uint8_t *at, const struct kn_span *span)
{
	const struct kn_int4_block *block = reinterpret_cast<const struct kn_int4_block *>(at);
	const uint64_t begin = row * kn_row_bytes(CAD_DTYPE_Q4, tensor->k);
	const uint32_t subscales = block->subscales[r];
	uint8_t pairs[KN_GROUP / 2] = {};

	for (size_t i = 0; i < count; i++) {
		const int q = block->widened.q[kn_int8_at(KN_PANEL_ROWS, static_cast<int>(r), static_cast<int>(i))],
			  u = q / kn_int4_subscale(subscales, i / KN_SUBGROUP) +
			kn_int4_zero(subscales, i / KN_SUBGROUP);
		pairs[i / 2] = static_cast<uint8_t>(pairs[i / 2] | u << (i % 2 * 4));
	}
	kn_span_put(span, begin + k / KN_GROUP * sizeof(float), &block->widened.scales[r], sizeof(float));
	kn_span_put(span, begin + kn_row_scale_bytes(CAD_DTYPE_Q4, tensor->k) + k / KN_SUBGROUP / 2, &subscales,
		kn_int4_subscale_bytes(count));
	kn_span_put(span, begin + kn_row_head_bytes(CAD_DTYPE_Q4, tensor->k) + k / 2, pairs, (count + 1) / 2);
}

const struct kn_cuda_form kn_cuda_form_int4 = { CAD_PROFILE_INT4, CAD_DTYPE_Q4, KN_GROUP, sizeof(struct kn_int4_block),
	pack_row_int4, unpack_row_int4 };
