/* SPDX-License-Identifier: Apache-2.0 */
/* Weights as they are stored, rounded to bf16, or, where gate and up are stored in two types, widened
 * to f32. */
#include "kernels/cuda/pack.h"

/* Where value k (of a block) of row r is, in elements. */
static size_t place(unsigned r, size_t k) { return k * KN_PANEL_ROWS + r / 8 % 2 * KN_F32_HALF + r / 16 * 8 + r % 8; }

template <enum cad_dtype DTYPE, class T>
static void pack_row(const struct kn_source *source, size_t row, size_t k, size_t count, unsigned r, uint8_t *block)
{
	T stored[KN_F32_STEP], *out = reinterpret_cast<T *>(block);
	float values[KN_F32_STEP];

	if (source->dtype == DTYPE)
		kn_source_gather(source, row, 1, k, count, reinterpret_cast<uint8_t *>(stored), sizeof stored);
	else
		kn_source_values(source, row, k, count, values);
	for (size_t i = 0; i < count; i++) {
		T *at = &out[place(r, i)];
		if (source->dtype == DTYPE)
			*at = stored[i];
		else if (DTYPE == CAD_DTYPE_F32)
			memcpy(at, &values[i], sizeof(T));
		else
			*at = kn_bf16_of(values[i]);
	}
}

template <enum cad_dtype DTYPE, class T>
static void unpack_row(const struct kn_source *tensor, size_t row, size_t k, size_t count, unsigned r,
	const uint8_t *block, const struct kn_span *span)
{
	const size_t element = cad_dtype_bytes(tensor->dtype);
	uint8_t values[KN_F32_STEP * sizeof(float)];

	for (size_t i = 0; i < count; i++) {
		const T *at = &reinterpret_cast<const T *>(block)[place(r, i)];
		if (tensor->dtype == DTYPE)
			memcpy(values + i * element, at, sizeof(T));
		else
			kn_cuda_f32_to(kn_cuda_f32_of(at, DTYPE), tensor->dtype, values + i * element);
	}
	kn_span_put(span, (row * tensor->k + k) * element, values, count * element);
}

template <enum cad_dtype DTYPE, class T> static constexpr struct kn_cuda_form form()
{
	return { CAD_PROFILE_F32, DTYPE, KN_F32_STEP, KN_F32_STEP * KN_PANEL_ROWS * sizeof(T), pack_row<DTYPE, T>,
		unpack_row<DTYPE, T> };
}
const struct kn_cuda_form kn_cuda_form_f32 = form<CAD_DTYPE_F32, uint32_t>(),
			  kn_cuda_form_f16 = form<CAD_DTYPE_F16, uint16_t>(),
			  kn_cuda_form_bf16 = form<CAD_DTYPE_BF16, uint16_t>();
