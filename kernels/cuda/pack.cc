/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/pack.h"

namespace
{

enum { GATE, UP, DOWN, MATRICES };

const struct kn_cuda_form *const forms[] = { &kn_cuda_form_int8, &kn_cuda_form_int4, &kn_cuda_form_f32,
	&kn_cuda_form_f16, &kn_cuda_form_bf16, &kn_cuda_form_bf16_sm90 };

/* Of a matrix that is stored in one type. NULL: there is none. */
const struct kn_cuda_form *form_of(enum cad_dtype stored, enum cad_weights weights)
{
	/* no kernel widens those that are stored with scales: FP8 is kept as f32, and MXFP4 as bf16, which is exact */
	enum cad_dtype kept = kn_matrix_dtype(stored, weights);
	if (cad_dtype_scaled(kept))
		kept = kept == CAD_DTYPE_MXFP4 ? CAD_DTYPE_BF16 : CAD_DTYPE_F32;
	for (const struct kn_cuda_form *form : forms)
		if (form->profile == cad_weights_profile(weights) && form->dtype == kept)
			return form;
	return nullptr;
}

void add_area(struct kn_cuda_layout *l, enum kn_cuda_area_index index, size_t piece_bytes, size_t pieces, size_t blocks)
{
	CAD_ASSERT(piece_bytes % KN_PIECE_UNIT == 0);
	l->areas[index] = { nullptr, l->bytes, piece_bytes, pieces, blocks };
	l->pieces += pieces;
	l->bytes += pieces * piece_bytes;
	if (pieces > 0 && piece_bytes > l->piece_bytes_max)
		l->piece_bytes_max = piece_bytes;
}

void add_matrix(struct kn_cuda_layout *l, enum kn_cuda_area_index index, const struct kn_cuda_form *form,
	size_t columns, size_t unit, size_t k)
{
	CAD_ASSERT(form);
	const size_t panels = (columns + unit - 1) / unit, blocks = (k + form->k - 1) / form->k;
	add_area(l, index, form->bytes, panels * blocks, blocks);
	l->areas[index].form = form;
}

/* The area that a piece is in; *i becomes its number there. */
enum kn_cuda_area_index area_of(const struct kn_cuda_layout *l, size_t *i)
{
	unsigned area = 0;
	while (*i >= l->areas[area].pieces)
		*i -= l->areas[area++].pieces;
	return static_cast<enum kn_cuda_area_index>(area);
}

/* ---- matrices ---- */

/* Of which tensor row r of a panel is, and which row of it. */
struct place {
	unsigned tensor;
	size_t row;
};

place place_of(enum kn_cuda_area_index area, size_t panel, unsigned r)
{
	if (area == KN_AREA_DOWN)
		return { DOWN, panel * KN_PANEL_ROWS + r };
	return { r / 8 % 2 == 0 ? GATE : UP, panel * KN_PANEL_COLUMNS + r / 16 * 8 + r % 8 };
}

/* Calls f(tensor, place, r, k, count) for each row that block i of the area has of the expert. */
template <class F>
void each_row(const struct kn_cuda_layout *l, const struct kn_expert_source *source, enum kn_cuda_area_index area,
	size_t i, F f)
{
	const size_t blocks = l->areas[area].blocks, step = l->areas[area].form->k, k = i % blocks * step;
	for (unsigned r = 0; r < KN_PANEL_ROWS; r++) {
		const place p = place_of(area, i / blocks, r);
		const struct kn_source *tensor = kn_expert_tensor(source, p.tensor);
		if (p.row < tensor->n)
			f(tensor, p, r, k, tensor->k - k < step ? tensor->k - k : step);
	}
}

/* ---- biases ---- */

void pack_bias(const struct kn_source *source, float *bias)
{
	for (size_t i = 0; source->data && i < source->n; i++)
		kn_source_values(source, i, 0, 1, &bias[i]);
}

/* f32 back to the f16 that it was widened from: exact. */
uint16_t f16_of(float value)
{
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	uint32_t sign = bits >> 16 & 0x8000, exponent = bits >> 23 & 0xff, mantissa = bits >> 13 & 0x3ff;
	if (exponent < 113)
		return static_cast<uint16_t>(sign | static_cast<uint32_t>(fabsf(value) * 0x1p24f));
	return static_cast<uint16_t>(sign | (exponent == 0xff ? 31 : exponent - 112) << 10 | mantissa);
}

void unpack_bias(const struct kn_source *tensor, const float *bias, const struct kn_span *span)
{
	const size_t element = cad_dtype_bytes(tensor->dtype);
	for (size_t i = 0; i < tensor->n; i++) {
		uint8_t value[sizeof(float)];
		kn_cuda_f32_to(bias[i], tensor->dtype, value);
		kn_span_put(span, i * element, value, element);
	}
}

/* ---- pieces ---- */

struct packing {
	const struct kn_cuda_layout *layout;
	const struct kn_expert_source *source;
	size_t first;
	uint8_t *out;
};

void pack_piece(const struct kn_cuda_layout *l, const struct kn_expert_source *source, size_t i, uint8_t *out)
{
	const enum kn_cuda_area_index area = area_of(l, &i);
	memset(out, 0, l->areas[area].piece_bytes);
	if (area >= KN_AREA_GATE_BIAS)
		return pack_bias(
			kn_expert_tensor(source, MATRICES + area - KN_AREA_GATE_BIAS), reinterpret_cast<float *>(out));
	each_row(l, source, area, i, [&](const struct kn_source *tensor, place p, unsigned r, size_t k, size_t count) {
		l->areas[area].form->pack_row(tensor, p.row, k, count, r, out);
	});
}

void pack_pieces(void *context, size_t begin, size_t end)
{
	const packing *p = static_cast<const packing *>(context);
	const size_t at = kn_cuda_piece_at(p->layout, p->first);
	for (size_t i = p->first + begin; i < p->first + end; i++)
		pack_piece(p->layout, p->source, i, p->out + (kn_cuda_piece_at(p->layout, i) - at));
}

}   // namespace

float kn_cuda_f32_of(const void *value, enum cad_dtype dtype)
{
	uint32_t bits = 0;
	memcpy(&bits, value, cad_dtype_bytes(dtype));
	if (dtype == CAD_DTYPE_F16)
		return kn_f32_of_f16(static_cast<uint16_t>(bits));
	bits <<= dtype == CAD_DTYPE_BF16 ? 16 : 0;
	float widened;
	memcpy(&widened, &bits, sizeof widened);
	return widened;
}

void kn_cuda_f32_to(float value, enum cad_dtype dtype, void *out)
{
	const uint16_t half = f16_of(value);
	if (dtype == CAD_DTYPE_F32)
		memcpy(out, &value, sizeof value);
	else if (dtype == CAD_DTYPE_BF16)
		memcpy(out, reinterpret_cast<const uint8_t *>(&value) + 2, 2);
	else
		memcpy(out, &half, sizeof half);
}

struct kn_cuda_layout kn_cuda_layout_of(const struct kn_expert_source *source, enum cad_weights weights)
{
	const bool up_biased = source->gate_bias.n > 0 || source->up_bias.n > 0, down_biased = source->down_bias.n > 0;
	const size_t hidden = source->gate.k, ffn = source->gate.n;
	struct kn_cuda_layout l = {};

	add_matrix(&l, KN_AREA_UP, form_of(kn_gate_up_dtype(source), weights), ffn, KN_PANEL_COLUMNS, hidden);
	add_matrix(&l, KN_AREA_DOWN, form_of(kn_stored_dtype(&source->down), weights), hidden, KN_PANEL_ROWS, ffn);
	const size_t up_bytes = kn_round_up(ffn, KN_COLUMNS_UNIT) * sizeof(float),
		     down_bytes = kn_round_up(hidden, KN_COLUMNS_UNIT) * sizeof(float);
	add_area(&l, KN_AREA_GATE_BIAS, up_bytes, up_biased, 1);
	add_area(&l, KN_AREA_UP_BIAS, up_bytes, up_biased, 1);
	add_area(&l, KN_AREA_DOWN_BIAS, down_bytes, down_biased, 1);
	l.weighs_input = source->spec && source->spec->weighs_input;
	return l;
}

struct kn_cuda_view kn_cuda_view_of(
	const struct kn_cuda_layout *layout, const uint8_t *memory, const struct cad_ffn_spec *spec)
{
	const struct kn_cuda_area *areas = layout->areas;
	const auto bias = [&](enum kn_cuda_area_index i) {
		return areas[i].pieces > 0 ? reinterpret_cast<const float *>(memory + areas[i].at) : nullptr;
	};
	return { memory + areas[KN_AREA_UP].at, memory + areas[KN_AREA_DOWN].at, bias(KN_AREA_GATE_BIAS),
		bias(KN_AREA_UP_BIAS), bias(KN_AREA_DOWN_BIAS), spec->activation, spec->limit, spec->weighs_input };
}

size_t kn_cuda_piece_at(const struct kn_cuda_layout *layout, size_t i)
{
	if (i == layout->pieces)
		return layout->bytes;
	const struct kn_cuda_area *area = &layout->areas[area_of(layout, &i)];
	return area->at + i * area->piece_bytes;
}

size_t kn_cuda_pieces_in(const struct kn_cuda_layout *layout, size_t first, size_t bytes)
{
	const size_t at = kn_cuda_piece_at(layout, first);
	size_t end = first;

	CAD_ASSERT(bytes >= layout->piece_bytes_max);
	while (end < layout->pieces && kn_cuda_piece_at(layout, end + 1) - at <= bytes)
		end++;
	return end - first;
}

void kn_cuda_pack(const struct kn_cuda_layout *layout, const struct kn_expert_source *source, size_t first,
	size_t count, struct cad_workers *workers, uint8_t *out)
{
	enum { PIECES_AT_ONCE = 8 }; /* worth a lock */
	packing p = { layout, source, first, out };
	CAD_ASSERT(first + count <= layout->pieces);
	cad_workers_for(workers, count, PIECES_AT_ONCE, pack_pieces, &p);
}

struct kn_cuda_pieces kn_cuda_pieces_of(const struct kn_cuda_layout *layout, const struct kn_expert_source *image,
	unsigned i, const struct kn_span *span)
{
	const struct kn_source *tensor = kn_expert_tensor(image, i);
	const unsigned index = i > UP ? i - 1 : 0; /* gate and up share one; then in the order of tensors */
	size_t before = 0;
	for (unsigned area = 0; area < index; area++)
		before += layout->areas[area].pieces;
	if (i >= MATRICES)
		return { before, 1 };

	const size_t blocks = layout->areas[index].blocks, unit = i == DOWN ? KN_PANEL_ROWS : KN_PANEL_COLUMNS,
		     row_bytes = kn_row_bytes(tensor->dtype, tensor->k), first = span->begin / row_bytes / unit,
		     last = (span->end - 1) / row_bytes / unit;
	return { before + first * blocks, (last + 1 - first) * blocks };
}

void kn_cuda_unpack(const struct kn_cuda_layout *layout, const struct kn_expert_source *image, unsigned i,
	struct kn_cuda_pieces pieces, const uint8_t *packed, const struct kn_span *span)
{
	const size_t at = kn_cuda_piece_at(layout, pieces.first);
	for (size_t p = 0; p < pieces.count; p++) {
		size_t number = pieces.first + p;
		const uint8_t *piece = packed + (kn_cuda_piece_at(layout, number) - at);
		const enum kn_cuda_area_index area = area_of(layout, &number);
		if (area >= KN_AREA_GATE_BIAS) {
			unpack_bias(kn_expert_tensor(image, i), reinterpret_cast<const float *>(piece), span);
			continue;
		}
		each_row(layout, image, area, number,
			[&](const struct kn_source *tensor, place of, unsigned r, size_t k, size_t count) {
				if (of.tensor == i)
					layout->areas[area].form->unpack_row(tensor, of.row, k, count, r, piece, span);
			});
	}
}
