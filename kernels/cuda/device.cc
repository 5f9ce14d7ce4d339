/* SPDX-License-Identifier: Apache-2.0 */
/* The GPU as a device, and the one symbol of the library. Compiled for the emulation, the device is
 * `emu`. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/expert.h"

#define _Static_assert static_assert
extern "C" {
#include "common/base/version.h"
#include "kernels/backend.h"
}
#undef _Static_assert

#ifdef KN_EMU
#define NAME "emu"
#else
#define NAME "cuda"
#endif

enum cad_status kn_cuda_finish(struct kn_cuda_device *device)
{
	return cudaStreamSynchronize(device->stream) == cudaSuccess ? CAD_OK : CAD_ERR_INTERNAL;
}

void *kn_cuda_alloc(struct kn_device *device, size_t bytes)
{
	struct kn_cuda_device *d = kn_cuda_device_of(device);
	void *memory;
	if (cudaMalloc(&memory, bytes > 0 ? bytes : 1) != cudaSuccess) {
		cudaGetLastError();
		return nullptr;
	}
	if (cudaMemsetAsync(memory, 0, bytes, d->stream) == cudaSuccess && kn_cuda_finish(d) == CAD_OK)
		return memory;
	cudaFree(memory);
	return nullptr;
}

void kn_cuda_release(struct kn_device *, void *memory, size_t) { cudaFree(memory); }

static void *host_alloc(struct kn_device *, size_t bytes)
{
	void *memory;
	if (cudaHostAlloc(&memory, bytes > 0 ? bytes : 1, cudaHostAllocPortable) != cudaSuccess) {
		cudaGetLastError();
		return nullptr;
	}
	return memset(memory, 0, bytes);
}

static void host_release(struct kn_device *, void *memory, size_t)
{
	if (memory)
		cudaFreeHost(memory);
}

static void describe(const struct kn_device *device, struct kn_device_info *info)
{
	size_t free_bytes = 0, total_bytes = 0;
	cudaMemGetInfo(&free_bytes, &total_bytes);
	*info = {};
	info->name = device->ops->name;
	info->isa = NAME;
	info->memory_bytes = free_bytes;
	info->profiles = 1u << CAD_PROFILE_INT8;
}

static void destroy(struct kn_device *device)
{
	struct kn_cuda_device *d = kn_cuda_device_of(device);
	cudaStreamDestroy(d->stream);
	free(d);
}

/* Everything else is NULL: a router needs it, and an expert node does not. */
static struct kn_ops table()
{
	struct kn_ops ops = {};
	ops.name = NAME;
	ops.describe = describe;
	ops.destroy = destroy;
	ops.alloc = kn_cuda_alloc;
	ops.release = kn_cuda_release;
	ops.host_alloc = host_alloc;
	ops.host_release = host_release;
	ops.queue_create = kn_cuda_queue_create;
	ops.queue_destroy = kn_cuda_queue_destroy;
	ops.copy_in = kn_cuda_copy_in;
	ops.copy_out = kn_cuda_copy_out;
	ops.wait = kn_cuda_wait;
	ops.expert_bytes = kn_cuda_expert_bytes;
	ops.expert_create = kn_cuda_expert_create;
	ops.expert_destroy = kn_cuda_expert_destroy;
	ops.expert_unpack = kn_cuda_expert_unpack;
	ops.ffn_scratch_bytes = kn_cuda_ffn_scratch_bytes;
	ops.ffn = kn_cuda_ffn;
	ops.rows_unpack = kn_cuda_rows_unpack;
	ops.combine_pack = kn_cuda_combine_pack;
	return ops;
}

static enum cad_status open_device(struct kn_device **device, struct cad_error *error)
{
	static const struct kn_ops ops = table();
	int count = 0;
	cudaError_t found = cudaGetDeviceCount(&count);
	if (found != cudaSuccess || count == 0)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"device '" NAME "': there is no GPU that can be used: %s", cudaGetErrorString(found));

	struct kn_cuda_device *d = static_cast<struct kn_cuda_device *>(calloc(1, sizeof *d));
	if (!d)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a device");
	d->base.ops = &ops;
	cudaError_t created = cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking);
	if (created != cudaSuccess) {
		free(d);
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "device '" NAME "' cannot be used: %s",
			cudaGetErrorString(created));
	}
	*device = &d->base;
	return CAD_OK;
}

extern "C" __attribute__((visibility("default")))
const struct kn_backend kn_backend = { cad_version, sizeof(struct kn_ops), open_device };
