/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/expert.h"

/* The expert as it lies on the device, made in pinned memory and copied. */
static enum cad_status upload(struct kn_cuda_device *device, const struct kn_cuda_layout *l,
	const struct kn_expert_source *source, uint8_t *memory)
{
	void *staged;
	if (cudaHostAlloc(&staged, l->bytes, cudaHostAllocPortable) != cudaSuccess) {
		cudaGetLastError();
		return CAD_ERR_MEMORY;
	}

	kn_cuda_pack(l, source, 0, l->pieces, device->base.workers, static_cast<uint8_t *>(staged));
	cudaError_t error = cudaMemcpyAsync(memory, staged, l->bytes, cudaMemcpyHostToDevice, device->stream);
	enum cad_status status = kn_cuda_finish(device, error);
	cudaFreeHost(staged);
	return status;
}

uint64_t kn_cuda_expert_bytes(const struct kn_device *, const struct kn_expert_source *source, enum cad_weights weights)
{
	return kn_cuda_layout_of(source, weights).bytes;
}

enum cad_status kn_cuda_expert_create(struct kn_device *device, const struct kn_expert_source *source,
	enum cad_weights weights, struct kn_expert *expert)
{
	struct kn_cuda_expert *e = static_cast<struct kn_cuda_expert *>(calloc(1, sizeof *e));
	if (!e)
		return CAD_ERR_MEMORY;

	e->layout = kn_cuda_layout_of(source, weights);
	e->memory = static_cast<uint8_t *>(kn_cuda_alloc(device, e->layout.bytes));
	enum cad_status status =
		e->memory ? upload(kn_cuda_device_of(device), &e->layout, source, e->memory) : CAD_ERR_MEMORY;
	if (status != CAD_OK) {
		kn_cuda_release(device, e->memory, e->layout.bytes);
		free(e);
		return status;
	}
	e->view = kn_cuda_view_of(&e->layout, e->memory, source->spec);
	*expert = { source->gate.k, source->spec->size, e->layout.bytes, e };
	return CAD_OK;
}

void kn_cuda_expert_destroy(struct kn_device *device, struct kn_expert *expert)
{
	struct kn_cuda_expert *e = static_cast<struct kn_cuda_expert *>(expert->own);
	if (e)
		kn_cuda_release(device, e->memory, e->layout.bytes);
	free(e);
	*expert = {};
}

/* The pieces that have the span of tensor i are copied, and turned around on the host. */
static enum cad_status unpack_tensor(struct kn_cuda_device *device, const struct kn_cuda_expert *e,
	const struct kn_expert_source *image, unsigned i, const struct kn_cuda_span *span)
{
	const struct kn_cuda_pieces pieces = kn_cuda_pieces_of(&e->layout, image, i, span);
	const size_t at = kn_cuda_piece_at(&e->layout, pieces.first),
		     bytes = kn_cuda_piece_at(&e->layout, pieces.first + pieces.count) - at;
	uint8_t *packed = static_cast<uint8_t *>(malloc(bytes));
	if (!packed)
		return CAD_ERR_MEMORY;

	cudaError_t error = cudaMemcpyAsync(packed, e->memory + at, bytes, cudaMemcpyDeviceToHost, device->stream);
	enum cad_status status = kn_cuda_finish(device, error);
	if (status == CAD_OK)
		kn_cuda_unpack(&e->layout, image, i, pieces, packed, span);
	free(packed);
	return status;
}

enum cad_status kn_cuda_expert_unpack(struct kn_device *device, const struct kn_expert *expert,
	const struct kn_expert_source *image, uint64_t begin, size_t count, void *out)
{
	const struct kn_cuda_expert *e = static_cast<const struct kn_cuda_expert *>(expert->own);
	uint8_t *next = static_cast<uint8_t *>(out);
	uint64_t at = 0, end = begin + count;
	enum cad_status status = CAD_OK;

	CAD_ASSERT(end >= begin && end <= kn_image_bytes(image));
	for (unsigned i = 0; i < KN_EXPERT_TENSORS && at < end && status == CAD_OK; i++) {
		const uint64_t bytes = kn_source_bytes(kn_expert_tensor(image, i)), first = begin > at ? begin - at : 0,
			       last = end - at < bytes ? end - at : bytes;
		const struct kn_cuda_span span = { first, last, next };
		if (first < last) {
			status = unpack_tensor(kn_cuda_device_of(device), e, image, i, &span);
			next += last - first;
		}
		at += bytes;
	}
	return status;
}
