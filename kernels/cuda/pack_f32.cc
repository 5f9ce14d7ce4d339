/* SPDX-License-Identifier: Apache-2.0 */
/* Weights as they are stored, or rounded to bf16. */
#include "kernels/cuda/pack.h"

/* Where value k (of a block) of row r is, in elements. */
static size_t place(unsigned r, size_t k) { return k * KN_PANEL_ROWS + r / 8 % 2 * KN_F32_HALF + r / 16 * 8 + r % 8; }

template <enum cad_dtype DTYPE, class T>
static void pack_row(const struct kn_source *source, size_t row, size_t k, size_t count, unsigned r, uint8_t *block)
{
	const size_t element = cad_dtype_bytes(source->dtype);
	const uint8_t *values = static_cast<const uint8_t *>(source->data) + (row * source->k + k) * element;
	T *out = reinterpret_cast<T *>(block);

	if (source->dtype == DTYPE)
		for (size_t i = 0; i < count; i++)
			memcpy(&out[place(r, i)], values + i * sizeof(T), sizeof(T));
	else
		for (size_t i = 0; i < count; i++)
			out[place(r, i)] = kn_bf16_of(kn_cuda_f32_of(values + i * element, source->dtype));
}

template <enum cad_dtype DTYPE, class T>
static void unpack_row(const struct kn_source *tensor, size_t row, size_t k, size_t count, unsigned r,
	const uint8_t *block, const struct kn_span *span)
{
	T values[KN_F32_STEP];
	for (size_t i = 0; i < count; i++)
		values[i] = reinterpret_cast<const T *>(block)[place(r, i)];
	kn_span_put(span, (row * tensor->k + k) * sizeof(T), values, count * sizeof(T));
}

template <enum cad_dtype DTYPE, class T> static constexpr struct kn_cuda_form form()
{
	return { CAD_PROFILE_F32, DTYPE, KN_F32_STEP, KN_F32_STEP * KN_PANEL_ROWS * sizeof(T), pack_row<DTYPE, T>,
		unpack_row<DTYPE, T> };
}
const struct kn_cuda_form kn_cuda_form_f32 = form<CAD_DTYPE_F32, uint32_t>(),
			  kn_cuda_form_f16 = form<CAD_DTYPE_F16, uint16_t>(),
			  kn_cuda_form_bf16 = form<CAD_DTYPE_BF16, uint16_t>();
