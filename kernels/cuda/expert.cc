/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/expert.h"

namespace
{

enum { MATRICES = 3, GATE = 0, UP = 1, DOWN = 2, GATE_BIAS = 3, UP_BIAS = 4, DOWN_BIAS = 5 };

/* Where a matrix lies in the allocation. */
struct matrix {
	size_t n, k, n_pad, k_pad, q, scales;
	size_t groups() const { return k_pad / KN_GROUP; }
};

struct layout {
	matrix matrices[MATRICES];
	size_t bias[MATRICES]; /* 0: none */
	size_t bytes;
};

size_t take(layout *l, size_t bytes)
{
	size_t at = l->bytes;
	l->bytes += kn_round_up(bytes, 256);
	return at;
}

layout layout_of(const struct kn_expert_source *source)
{
	const bool up_biased = source->gate_bias.n > 0 || source->up_bias.n > 0;
	const bool biased[MATRICES] = { up_biased, up_biased, source->down_bias.n > 0 };
	layout l = {};

	for (unsigned i = 0; i < MATRICES; i++) {
		const struct kn_source *tensor = kn_expert_tensor(source, i);
		matrix *m = &l.matrices[i];
		m->n = tensor->n;
		m->k = tensor->k;
		m->n_pad = kn_round_up(m->n, KN_COLUMNS_UNIT);
		m->k_pad = kn_round_up(m->k, KN_GROUP);
		m->q = take(&l, m->n_pad * m->k_pad);
		m->scales = take(&l, m->n_pad * m->groups() * sizeof(float));
		if (biased[i])
			l.bias[i] = take(&l, m->n_pad * sizeof(float));
	}
	return l;
}

template <class T> const T *part(const uint8_t *memory, size_t at) { return reinterpret_cast<const T *>(memory + at); }

struct kn_cuda_view view_of(const layout &l, const uint8_t *memory, const struct cad_ffn_spec *spec)
{
	const float *bias[MATRICES];
	for (unsigned i = 0; i < MATRICES; i++)
		bias[i] = l.bias[i] > 0 ? part<float>(memory, l.bias[i]) : nullptr;
	return {
		part<int8_t>(memory, l.matrices[GATE].q),
		part<int8_t>(memory, l.matrices[UP].q),
		part<int8_t>(memory, l.matrices[DOWN].q),
		part<float>(memory, l.matrices[GATE].scales),
		part<float>(memory, l.matrices[UP].scales),
		part<float>(memory, l.matrices[DOWN].scales),
		bias[GATE],
		bias[UP],
		bias[DOWN],
		spec->activation,
		spec->limit,
	};
}

/* ---- packing ---- */

struct filling {
	const matrix *m;
	const struct kn_source *source;
	uint8_t *staged; /* the whole expert */
};

/* One group of a row, of which `count` values are there: quantised, or as it is already. */
float fill_group(const struct kn_source *source, const uint8_t *row, size_t k, size_t count, int8_t *q)
{
	if (source->dtype != CAD_DTYPE_Q8)
		return kn_quantise_values(
			row + k * cad_dtype_bytes(source->dtype), source->dtype, count, KN_GROUP, KN_RANGE_INT8, q);

	float scale;
	memcpy(&scale, row + k / KN_GROUP * sizeof scale, sizeof scale);
	memcpy(q, row + kn_row_scale_bytes(source->dtype, source->k) + k, count);
	return scale;
}

void fill_rows(void *context, size_t begin, size_t end)
{
	const filling *f = static_cast<const filling *>(context);
	const matrix *m = f->m;
	float *scales = reinterpret_cast<float *>(f->staged + m->scales);
	size_t row_bytes = kn_row_bytes(f->source->dtype, m->k);

	for (size_t r = begin; r < end; r++) {
		const uint8_t *row = static_cast<const uint8_t *>(f->source->data) + r * row_bytes;
		int8_t *q = reinterpret_cast<int8_t *>(f->staged + m->q) + r * m->k_pad;
		for (size_t k = 0; k < m->k; k += KN_GROUP)
			scales[k / KN_GROUP * m->n_pad + r] = fill_group(
				f->source, row, k, m->k - k < KN_GROUP ? m->k - k : size_t{ KN_GROUP }, q + k);
	}
}

/* Of F32, F16 or BF16, to f32. */
void fill_bias(const struct kn_source *source, float *bias)
{
	const uint8_t *bytes = static_cast<const uint8_t *>(source->data);
	for (size_t i = 0; bytes && i < source->n; i++) {
		uint16_t half;
		memcpy(&half, bytes + 2 * i, sizeof half);
		uint32_t bits = static_cast<uint32_t>(half) << 16;
		if (source->dtype == CAD_DTYPE_F32)
			memcpy(&bias[i], bytes + sizeof(float) * i, sizeof(float));
		else if (source->dtype == CAD_DTYPE_F16)
			bias[i] = kn_f32_of_f16(half);
		else
			memcpy(&bias[i], &bits, sizeof bits);
	}
}

void fill(struct kn_device *device, const layout &l, const struct kn_expert_source *source, uint8_t *staged)
{
	enum { ROWS_AT_ONCE = 16 };
	memset(staged, 0, l.bytes);
	for (unsigned i = 0; i < MATRICES; i++) {
		filling f = { &l.matrices[i], kn_expert_tensor(source, i), staged };
		cad_workers_for(device->workers, l.matrices[i].n, ROWS_AT_ONCE, fill_rows, &f);
		if (l.bias[i] > 0)
			fill_bias(
				kn_expert_tensor(source, GATE_BIAS + i), reinterpret_cast<float *>(staged + l.bias[i]));
	}
}

/* The expert as it lies on the device, made in pinned memory and copied. */
enum cad_status upload(
	struct kn_cuda_device *device, const layout &l, const struct kn_expert_source *source, uint8_t *memory)
{
	void *staged;
	if (cudaHostAlloc(&staged, l.bytes, cudaHostAllocPortable) != cudaSuccess) {
		cudaGetLastError();
		return CAD_ERR_MEMORY;
	}

	fill(&device->base, l, source, static_cast<uint8_t *>(staged));
	cudaError_t error = cudaMemcpyAsync(memory, staged, l.bytes, cudaMemcpyHostToDevice, device->stream);
	enum cad_status status = error == cudaSuccess ? kn_cuda_finish(device) : CAD_ERR_INTERNAL;
	cudaFreeHost(staged);
	return status;
}

/* ---- back to an image ---- */

/* Bytes begin .. end - 1 of one tensor of the image, to `out`. */
struct span {
	size_t begin, end;
	uint8_t *out;
};

/* What of [at, at + count) is in the span goes to its place. */
void span_put(const span &s, size_t at, const void *bytes, size_t count)
{
	size_t first = at > s.begin ? at : s.begin, last = at + count < s.end ? at + count : s.end;
	if (first < last)
		memcpy(s.out + (first - s.begin), static_cast<const uint8_t *>(bytes) + (first - at), last - first);
}

/* The rows that the span meets, with the scales of their groups. */
enum cad_status unpack_matrix(struct kn_cuda_device *device, const matrix &m, const uint8_t *memory, const span &s)
{
	const size_t row_bytes = kn_row_bytes(CAD_DTYPE_Q8, m.k), scale_bytes = kn_row_scale_bytes(CAD_DTYPE_Q8, m.k);
	const size_t first = s.begin / row_bytes, rows = (s.end - 1) / row_bytes + 1 - first;
	const float *device_scales = part<float>(memory, m.scales) + first;
	int8_t *q = static_cast<int8_t *>(malloc(rows * m.k_pad + rows * m.groups() * sizeof(float)));
	if (!q)
		return CAD_ERR_MEMORY;

	float *scales = reinterpret_cast<float *>(q + rows * m.k_pad); /* [groups][rows] */
	cudaError_t error = cudaMemcpyAsync(
		q, memory + m.q + first * m.k_pad, rows * m.k_pad, cudaMemcpyDeviceToHost, device->stream);
	if (error == cudaSuccess)
		error = cudaMemcpy2DAsync(scales, rows * sizeof(float), device_scales, m.n_pad * sizeof(float),
			rows * sizeof(float), m.groups(), cudaMemcpyDeviceToHost, device->stream);
	enum cad_status status = error == cudaSuccess ? kn_cuda_finish(device) : CAD_ERR_INTERNAL;
	for (size_t r = 0; r < rows && status == CAD_OK; r++) {
		size_t at = (first + r) * row_bytes;
		for (size_t g = 0; g < m.groups(); g++)
			span_put(s, at + g * sizeof(float), &scales[g * rows + r], sizeof(float));
		span_put(s, at + scale_bytes, q + r * m.k_pad, m.k);
	}
	free(q);
	return status;
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

enum cad_status unpack_bias(
	struct kn_cuda_device *device, const struct kn_source *tensor, const float *device_bias, const span &s)
{
	float *bias = static_cast<float *>(malloc(tensor->n * sizeof *bias));
	if (!bias)
		return CAD_ERR_MEMORY;

	cudaError_t error =
		cudaMemcpyAsync(bias, device_bias, tensor->n * sizeof *bias, cudaMemcpyDeviceToHost, device->stream);
	enum cad_status status = error == cudaSuccess ? kn_cuda_finish(device) : CAD_ERR_INTERNAL;
	for (size_t i = 0; i < tensor->n && status == CAD_OK; i++) {
		uint16_t half = f16_of(bias[i]);
		if (tensor->dtype == CAD_DTYPE_F32)
			span_put(s, i * sizeof(float), &bias[i], sizeof(float));
		else if (tensor->dtype == CAD_DTYPE_BF16)
			span_put(s, i * 2, reinterpret_cast<uint8_t *>(&bias[i]) + 2, 2);
		else
			span_put(s, i * 2, &half, 2);
	}
	free(bias);
	return status;
}

}   // namespace

uint64_t kn_cuda_expert_bytes(const struct kn_device *, const struct kn_expert_source *source, enum cad_weights)
{
	return layout_of(source).bytes;
}

enum cad_status kn_cuda_expert_create(struct kn_device *device, const struct kn_expert_source *source,
	enum cad_weights weights, struct kn_expert *expert)
{
	CAD_ASSERT(weights == CAD_WEIGHTS_INT8);
	const layout l = layout_of(source);
	struct kn_cuda_expert *e = static_cast<struct kn_cuda_expert *>(calloc(1, sizeof *e));
	if (!e)
		return CAD_ERR_MEMORY;

	e->bytes = l.bytes;
	e->memory = static_cast<uint8_t *>(kn_cuda_alloc(device, l.bytes));
	enum cad_status status = e->memory ? upload(kn_cuda_device_of(device), l, source, e->memory) : CAD_ERR_MEMORY;
	if (status != CAD_OK) {
		kn_cuda_release(device, e->memory, l.bytes);
		free(e);
		return status;
	}
	e->view = view_of(l, e->memory, source->spec);
	*expert = { source->gate.k, source->spec->size, l.bytes, e };
	return CAD_OK;
}

void kn_cuda_expert_destroy(struct kn_device *device, struct kn_expert *expert)
{
	struct kn_cuda_expert *e = static_cast<struct kn_cuda_expert *>(expert->own);
	if (e)
		kn_cuda_release(device, e->memory, e->bytes);
	free(e);
	*expert = {};
}

enum cad_status kn_cuda_expert_unpack(struct kn_device *device, const struct kn_expert *expert,
	const struct kn_expert_source *image, uint64_t begin, size_t count, void *out)
{
	const struct kn_cuda_expert *e = static_cast<const struct kn_cuda_expert *>(expert->own);
	const layout l = layout_of(image);
	uint8_t *next = static_cast<uint8_t *>(out);
	uint64_t at = 0, end = begin + count;
	enum cad_status status = CAD_OK;

	CAD_ASSERT(end >= begin && end <= kn_image_bytes(image));
	for (unsigned i = 0; i < KN_EXPERT_TENSORS && at < end && status == CAD_OK; i++) {
		const struct kn_source *tensor = kn_expert_tensor(image, i);
		uint64_t bytes = kn_source_bytes(tensor), first = begin > at ? begin - at : 0,
			 last = end - at < bytes ? end - at : bytes;
		const span s = { first, last, next };
		if (first < last) {
			status = i < MATRICES ? unpack_matrix(kn_cuda_device_of(device), l.matrices[i], e->memory, s)
					      : unpack_bias(kn_cuda_device_of(device), tensor,
							part<float>(e->memory, l.bias[i - MATRICES]), s);
			next += last - first;
		}
		at += bytes;
	}
	return status;
}
