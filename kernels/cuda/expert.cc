/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/expert.h"

/* As many pieces as fit are packed into a buffer, and while that is copied, the next ones. */
static enum cad_status upload(struct kn_cuda_device *device, const struct kn_cuda_layout *l,
	const struct kn_expert_source *source, uint8_t *memory)
{
	struct kn_cuda_staging *staging = &device->staging;
	cudaError_t error = cudaSuccess;

	for (size_t first = 0, next; first < l->pieces && error == cudaSuccess; first = next) {
		next = first + kn_cuda_pieces_in(l, first, KN_STAGING_BYTES);
		const size_t at = kn_cuda_piece_at(l, first), bytes = kn_cuda_piece_at(l, next) - at;
		struct kn_cuda_buffer *buffer = kn_cuda_staging_take(staging);
		kn_cuda_pack(l, source, first, next - first, device->base.workers, buffer->bytes);
		error = kn_cuda_staging_send(staging, buffer, memory + at, bytes);
		if (error == cudaSuccess && next == l->pieces) /* the last of a stream: all are there */
			error = kn_cuda_staging_wait(buffer);
		kn_cuda_staging_give(staging, buffer);
	}
	return kn_cuda_outcome(device, error, "while an expert was loaded");
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

	struct kn_cuda_device *d = kn_cuda_device_of(device);
	e->layout = kn_cuda_layout_of(source, weights);
	e->memory = kn_cuda_slot_take(d, e->layout.bytes);
	enum cad_status status = e->memory ? upload(d, &e->layout, source, e->memory) : CAD_ERR_MEMORY;
	if (status != CAD_OK) {
		kn_cuda_slot_give(d, e->memory);
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
		kn_cuda_slot_give(kn_cuda_device_of(device), e->memory);
	free(e);
	*expert = {};
}

/* The pieces that have the span of tensor i come as far as they fit into a buffer, and are turned around
 * there. */
static enum cad_status unpack_tensor(struct kn_cuda_device *device, const struct kn_cuda_expert *e,
	const struct kn_expert_source *image, unsigned i, const struct kn_span *span)
{
	const struct kn_cuda_pieces all = kn_cuda_pieces_of(&e->layout, image, i, span);
	const size_t end = all.first + all.count;
	cudaError_t error = cudaSuccess;

	for (size_t first = all.first, next; first < end && error == cudaSuccess; first = next) {
		const size_t fit = kn_cuda_pieces_in(&e->layout, first, KN_STAGING_BYTES),
			     at = kn_cuda_piece_at(&e->layout, first);
		next = fit < end - first ? first + fit : end;
		struct kn_cuda_buffer *buffer = kn_cuda_staging_take(&device->staging);
		error = kn_cuda_staging_fetch(
			&device->staging, buffer, e->memory + at, kn_cuda_piece_at(&e->layout, next) - at);
		if (error == cudaSuccess)
			kn_cuda_unpack(&e->layout, image, i, { first, next - first }, buffer->bytes, span);
		kn_cuda_staging_give(&device->staging, buffer);
	}
	return kn_cuda_outcome(device, error, "while an expert was given away");
}

enum cad_status kn_cuda_expert_unpack(struct kn_device *device, const struct kn_expert *expert,
	const struct kn_expert_source *image, uint64_t begin, size_t count, void *out)
{
	const struct kn_cuda_expert *e = static_cast<const struct kn_cuda_expert *>(expert->own);
	const uint64_t end = begin + count;
	enum cad_status status = CAD_OK;

	CAD_ASSERT(end >= begin && end <= kn_image_bytes(image));
	for (unsigned i = 0; i < KN_EXPERT_TENSORS; i++)
		if (cad_dtype_scaled(kn_expert_tensor(image, i)->dtype)) /* its scales are not kept here */
			return CAD_ERR_UNSUPPORTED;
	for (unsigned i = 0; i < KN_EXPERT_TENSORS && status == CAD_OK; i++) {
		const struct kn_span span = kn_image_span(image, i, begin, end, out);
		if (span.begin < span.end)
			status = unpack_tensor(kn_cuda_device_of(device), e, image, i, &span);
	}
	return status;
}
