/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From panels back to rows: the image of a packed expert (kernels/image.h), or any part of it.
 * Sixteen rows that lie side by side in a panel are taken together, a block of each at a time; of
 * what that gives, the bytes that were asked for are kept.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/image.h"

#include <immintrin.h>

enum { LANES = 16, BLOCK_WORDS = 64 };

/* f32 back to the f16 or bf16 that it was widened from: exact. */
static void narrow_back(const float *values, enum cad_dtype dtype, size_t count, uint16_t *halves)
{
	for (size_t i = 0; i < count; i++) {
		uint32_t bits;
		memcpy(&bits, &values[i], sizeof bits);
		halves[i] = (uint16_t)(dtype == CAD_DTYPE_BF16
				? bits >> 16
				: (uint32_t)_mm_cvtsi128_si32(
					  _mm_cvtps_ph(_mm_set_ss(values[i]), _MM_FROUND_TO_NEAREST_INT)));
	}
}

/* Where row r of a tensor lies among the columns of its panels. */
typedef size_t column_fn(size_t row);
static size_t gate_column(size_t row) { return row / 16 * 32 + row % 16; }
static size_t up_column(size_t row) { return gate_column(row) + 16; }
static size_t down_column(size_t row) { return row; }

/* Rows first .. first + 15 of the tensor, as far as it has them; first is a multiple of 16. */
static void unpack_rows(const struct kn_form *form, const struct kn_panels *panels, const struct kn_source *tensor,
	size_t first, size_t column, const struct kn_span *span)
{
	_Alignas(64) uint32_t stage[LANES][BLOCK_WORDS];
	uint16_t halves[BLOCK_WORDS];
	const uint8_t *line =
		panels->data + column / KN_PANEL_COLS * panels->panel_bytes + column % KN_PANEL_COLS * sizeof(uint32_t);
	size_t element = cad_dtype_bytes(tensor->dtype), values = panels->storage == KN_STORAGE_F32 ? 1 : 2;
	size_t rows = tensor->n - first < LANES ? tensor->n - first : LANES;

	for (size_t k = 0; k < tensor->k; k += BLOCK_WORDS * values) {
		size_t left = tensor->k - k, count = left < BLOCK_WORDS * values ? left : BLOCK_WORDS * values;
		size_t from = (first * tensor->k + k) * element,
		       to = ((first + rows - 1) * tensor->k + k + count) * element;
		if (from >= span->end || to <= span->begin)
			continue;
		form->lanes_store(line + k / values * KN_STEP_BYTES, kn_round_up((count + values - 1) / values, 8),
			stage[0], BLOCK_WORDS);
		for (size_t r = 0; r < rows; r++) {
			const void *row = stage[r];
			if (values == 1 && tensor->dtype != CAD_DTYPE_F32) {
				narrow_back((const float *)stage[r], tensor->dtype, count, halves);
				row = halves;
			}
			kn_span_put(span, ((first + r) * tensor->k + k) * element, row, count * element);
		}
	}
}

/* Lanes of u4 as values lie in a row of type Q4; of an odd number the last half is 0. */
static void pair_in_order(const uint8_t *lanes, size_t count, uint8_t *out)
{
	for (size_t i = 0; i < count; i += 2) {
		const uint8_t *at = lanes + i / 8 * 4 + i % 4;
		unsigned shift = i % 8 / 4 * 4, first = at[0] >> shift & 15, second = at[1] >> shift & 15;
		out[i / 2] = (uint8_t)(first | (i + 1 < count ? second << 4 : 0));
	}
}

/* The same of quantised panels, group by group: their scales, sub-scales, values. */
static void unpack_quantised(const struct kn_form *form, const struct kn_panels *panels, const struct kn_source *tensor,
	size_t first, size_t column, const struct kn_span *span)
{
	_Alignas(64) uint32_t stage[LANES][BLOCK_WORDS];
	uint8_t pairs[KN_GROUP / 2];
	size_t row_bytes = kn_row_bytes(tensor->dtype, tensor->k),
	       scale_bytes = kn_row_scale_bytes(tensor->dtype, tensor->k),
	       head_bytes = kn_row_head_bytes(tensor->dtype, tensor->k),
	       rows = tensor->n - first < LANES ? tensor->n - first : LANES;
	const uint8_t *head =
		panels->data + column / KN_PANEL_COLS * panels->panel_bytes + column % KN_PANEL_COLS * sizeof(uint32_t);
	bool s8 = panels->storage == KN_STORAGE_S8;

	for (size_t k = 0; k < tensor->k; k += KN_GROUP, head += kn_group_bytes(panels->storage)) {
		size_t count = tensor->k - k < KN_GROUP ? tensor->k - k : KN_GROUP,
		       subgroups = (count + KN_SUBGROUP - 1) / KN_SUBGROUP;
		form->lanes_store(head + kn_group_head_bytes(panels->storage),
			KN_GROUP / kn_step_values(panels->storage), stage[0], BLOCK_WORDS);
		for (size_t r = 0; r < rows; r++) {
			size_t at = (first + r) * row_bytes;
			const void *values = stage[r];
			if (!s8) {
				pair_in_order((const uint8_t *)stage[r], count, pairs);
				values = pairs;
				kn_span_put(span, at + scale_bytes + k / KN_SUBGROUP / 2,
					head + KN_STEP_BYTES + r * sizeof(uint32_t), (subgroups + 1) / 2);
			}
			kn_span_put(span, at + k / KN_GROUP * sizeof(float), head + r * sizeof(float), sizeof(float));
			kn_span_put(span, at + head_bytes + (s8 ? k : k / 2), values, s8 ? count : (count + 1) / 2);
		}
	}
}

/* The same of panels that are as stored: each row's scales, then its bytes. */
static void unpack_stored(const struct kn_form *form, const struct kn_panels *panels, const struct kn_source *tensor,
	size_t first, size_t column, const struct kn_span *span)
{
	const uint8_t *panel = panels->data + column / KN_PANEL_COLS * panels->panel_bytes;
	size_t k = tensor->k, row_bytes = kn_row_bytes(tensor->dtype, k), c = column % KN_PANEL_COLS,
	       rows = tensor->n - first < LANES ? tensor->n - first : LANES;
	bool f8 = panels->storage == KN_STORAGE_F8;
	size_t group = f8 ? KN_FP8_GROUP : KN_MXFP4_GROUP, head = f8 ? sizeof(float) : 1, each = f8 ? 1 : 2,
	       head_bytes = (k + group - 1) / group * head;
	uint8_t bytes[KN_FP8_GROUP];

	(void)form;
	for (size_t r = 0; r < rows; r++, c++) {
		size_t at = (first + r) * row_bytes;
		if (at >= span->end || at + row_bytes <= span->begin)
			continue;
		for (size_t i = 0; i < k; i += group) {
			size_t count = (k - i < group ? k - i : group) / each;
			const uint8_t *step = f8 ? kn_f8_step(panel, i) : kn_mxfp4_step(panel, i),
				      *scales = f8 ? kn_f8_group(panel, i) : kn_mxfp4_group(panel, i);
			float scale = f8 ? ((const float *)scales)[c] / KN_F8_SCALE : 0;
			kn_span_put(span, at + i / group * head, f8 ? (const void *)&scale : scales + c, head);
			for (size_t b = 0; b < count; b++)
				bytes[b] = step[b * KN_PANEL_COLS + c];
			kn_span_put(span, at + head_bytes + i / each, bytes, count);
		}
	}
}

static void unpack_matrix(const struct kn_form *form, const struct kn_panels *panels, const struct kn_source *tensor,
	column_fn *column, const struct kn_span *span)
{
	size_t row_bytes = kn_row_bytes(tensor->dtype, tensor->k);
	for (size_t row = span->begin / row_bytes / LANES * LANES; row * row_bytes < span->end; row += LANES)
		(cad_dtype_scaled(tensor->dtype) ? unpack_stored
				: cad_dtype_quantised(tensor->dtype)
				? unpack_quantised
				: unpack_rows)(form, panels, tensor, row, column(row), span);
}

/* A bias, f32 at column(i). */
static void unpack_bias(
	const float *values, const struct kn_source *tensor, column_fn *column, const struct kn_span *span)
{
	size_t element = cad_dtype_bytes(tensor->dtype);
	for (size_t i = span->begin / element; i * element < span->end; i++) {
		const float *value = &values[column(i)];
		uint16_t half;
		if (tensor->dtype != CAD_DTYPE_F32)
			narrow_back(value, tensor->dtype, 1, &half);
		kn_span_put(span, i * element, tensor->dtype == CAD_DTYPE_F32 ? (const void *)value : &half, element);
	}
}

static void unpack_tensor(const struct kn_form *form, const struct kn_cpu_expert *e, unsigned index,
	const struct kn_source *tensor, const struct kn_span *span)
{
	switch (index) {
	case 0: unpack_matrix(form, &e->gate_up, tensor, gate_column, span); break;
	case 1: unpack_matrix(form, &e->gate_up, tensor, up_column, span); break;
	case 2: unpack_matrix(form, &e->down, tensor, down_column, span); break;
	case 3: unpack_bias(e->gate_up_bias, tensor, gate_column, span); break;
	case 4: unpack_bias(e->gate_up_bias, tensor, up_column, span); break;
	default: unpack_bias(e->down_bias, tensor, down_column, span); break;
	}
}

enum cad_status kn_cpu_expert_unpack(struct kn_device *device, const struct kn_expert *expert,
	const struct kn_expert_source *image, uint64_t begin, size_t count, void *out)
{
	const struct kn_form *form = ((const struct kn_cpu_device *)device)->form;
	uint64_t end = begin + count;

	CAD_ASSERT(end >= begin && end <= kn_image_bytes(image));
	for (unsigned i = 0; i < KN_EXPERT_TENSORS; i++) {
		const struct kn_span span = kn_image_span(image, i, begin, end, out);
		if (span.begin < span.end)
			unpack_tensor(form, expert->own, i, kn_expert_tensor(image, i), &span);
	}
	return CAD_OK;
}
