/* SPDX-License-Identifier: Apache-2.0 */
/* The GPU as a device, and the one symbol of the library. Compiled for the emulation, the device is
 * `emu`. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/expert.h"

#include <mutex>
#include <stdio.h>

#define _Static_assert static_assert
extern "C" {
#include "common/base/version.h"
#include "kernels/backend.h"
}
#undef _Static_assert

static std::mutex failures; /* of every device */

/* The first time counts: what follows comes of it. */
static void keep_failure(struct kn_cuda_device *device, const char *why)
{
	std::lock_guard<std::mutex> hold(failures);
	if (!device->failure[0])
		snprintf(device->failure, sizeof device->failure, "%s", why);
}

void kn_cuda_failed(struct kn_cuda_device *device, cudaError_t error, const char *in)
{
	char why[KN_FAILURE_BYTES];
	snprintf(why, sizeof why, "%s (CUDA's error %d) %s", cudaGetErrorString(error), static_cast<int>(error), in);
	keep_failure(device, why);
}

static bool health(struct kn_device *device, struct kn_health *health, char why[KN_FAILURE_BYTES])
{
	struct kn_cuda_device *d = kn_cuda_device_of(device);
	if (!d->nvml.device && !kn_cuda_nvml_open(&d->nvml, d->chip.pci_bus_id, why))
		return false;
	if (!kn_cuda_nvml_read(&d->nvml, health, why))
		keep_failure(d, why);
	return true;
}

enum cad_status kn_cuda_outcome(struct kn_cuda_device *device, cudaError_t error, const char *in)
{
	if (error == cudaSuccess)
		return CAD_OK;
	kn_cuda_failed(device, error, in);
	return CAD_ERR_INTERNAL;
}

static bool failed(const struct kn_device *device, char text[KN_FAILURE_BYTES])
{
	const struct kn_cuda_device *d = kn_cuda_device_of(device);
	std::lock_guard<std::mutex> hold(failures);
	memcpy(text, d->failure, KN_FAILURE_BYTES);
	return text[0];
}

enum cad_status kn_cuda_finish(struct kn_cuda_device *device, cudaError_t put)
{
	return kn_cuda_outcome(
		device, put == cudaSuccess ? cudaStreamSynchronize(device->stream) : put, "while memory was cleared");
}

bool kn_cuda_taken(struct kn_cuda_device *device, cudaError_t error)
{
	if (error == cudaSuccess)
		return true;
	if (error != cudaErrorMemoryAllocation)
		kn_cuda_failed(device, error, "while memory was taken");
	cudaGetLastError();
	return false;
}

void *kn_cuda_alloc(struct kn_device *device, size_t bytes)
{
	struct kn_cuda_device *d = kn_cuda_device_of(device);
	void *memory;
	if (!kn_cuda_taken(d, cudaMalloc(&memory, bytes > 0 ? bytes : 1)))
		return nullptr;
	if (kn_cuda_finish(d, cudaMemsetAsync(memory, 0, bytes, d->stream)) == CAD_OK)
		return memory;
	cudaFree(memory);
	return nullptr;
}

void kn_cuda_release(struct kn_device *, void *memory, size_t) { cudaFree(memory); }

static void *host_alloc(struct kn_device *device, size_t bytes)
{
	void *memory;
	if (!kn_cuda_taken(
		    kn_cuda_device_of(device), cudaHostAlloc(&memory, bytes > 0 ? bytes : 1, cudaHostAllocPortable)))
		return nullptr;
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
	const struct kn_cuda_device *d = kn_cuda_device_of(device);
	*info = {};
	info->name = d->chip.name;
	info->isa = KN_CUDA_NAME;
	info->chip = d->chip.model;
	info->others_bytes = d->others_bytes;
	info->memory_total_bytes = total_bytes;
	info->queue_bytes = KN_WINDOW_BYTES;
	info->driver_bytes = total_bytes / KN_DRIVER_PART;
	info->memory_bytes = free_bytes;
	info->profiles = 1u << CAD_PROFILE_F32 | 1u << CAD_PROFILE_INT8 | 1u << CAD_PROFILE_INT4;
	if (d->without_sm90[0])
		info->without_sm90 = d->without_sm90;
	else
		info->profiles |= 1u << CAD_PROFILE_BF16_SM90;
}

static void destroy(struct kn_device *device)
{
	struct kn_cuda_device *d = kn_cuda_device_of(device);
	kn_cuda_staging_fini(&d->staging);
	kn_cuda_slots_fini(&d->slots);
	cudaStreamDestroy(d->stream);
	free(d);
}

/* A function of the table, on its device: CUDA has a current one for each thread. */
static void enter(const struct kn_device *device) { cudaSetDevice(kn_cuda_device_of(device)->chip.index); }
static void enter(const struct kn_queue *queue) { enter(queue->device); }

template <auto function> struct on;
template <class R, class D, class... A, R (*function)(D *, A...)> struct on<function> {
	static R device(D *subject, A... arguments)
	{
		enter(subject);
		return function(subject, arguments...);
	}
	/* one whose time is taken */
	template <enum kn_stage stage> static void queue(D *subject, A... arguments)
	{
		struct kn_cuda_queue *q = kn_cuda_queue_of(subject);
		enter(subject);
		kn_cuda_note(q, kn_cuda_spans_begin(&q->spans, stage, q->stream));
		function(subject, arguments...);
		kn_cuda_note(q, kn_cuda_spans_end(&q->spans, q->stream));
	}
};

/* Everything else is NULL: a router needs it, and an expert node does not. */
static struct kn_ops table()
{
	struct kn_ops ops = {};
	ops.name = KN_CUDA_NAME;
	ops.describe = on<describe>::device;
	ops.destroy = on<destroy>::device;
	ops.alloc = on<kn_cuda_alloc>::device;
	ops.release = on<kn_cuda_release>::device;
	ops.host_alloc = on<host_alloc>::device;
	ops.host_release = on<host_release>::device;
	ops.queue_create = on<kn_cuda_queue_create>::device;
	ops.queue_destroy = on<kn_cuda_queue_destroy>::device;
	ops.copy_in = on<kn_cuda_copy_in>::queue<KN_STAGE_COPY>;
	ops.copy_out = on<kn_cuda_copy_out>::queue<KN_STAGE_COPY>;
	ops.wait = on<kn_cuda_wait>::device;
	ops.failed = failed;
	ops.health = health;
	ops.times = kn_cuda_times;
	ops.expert_bytes = on<kn_cuda_expert_bytes>::device;
	ops.expert_reserve = on<kn_cuda_expert_reserve>::device;
	ops.expert_create = on<kn_cuda_expert_create>::device;
	ops.expert_destroy = on<kn_cuda_expert_destroy>::device;
	ops.expert_unpack = on<kn_cuda_expert_unpack>::device;
	ops.ffn_scratch_bytes = on<kn_cuda_ffn_scratch_bytes>::device;
	ops.ffn = on<kn_cuda_ffn>::queue<KN_STAGE_FFN>;
	ops.rows_unpack = on<kn_cuda_rows_unpack>::queue<KN_STAGE_UNPACK>;
	ops.combine_pack = on<kn_cuda_combine_pack>::queue<KN_STAGE_COMBINE>;
	return ops;
}

/* What somebody else has of the memory, besides what CUDA itself takes for a process. */
static uint64_t others_bytes()
{
	const size_t own_bytes_max = size_t{ 1 } << 30;
	size_t free_bytes = 0, total_bytes = 0;
	cudaMemGetInfo(&free_bytes, &total_bytes);
	return total_bytes - free_bytes > own_bytes_max ? total_bytes - free_bytes : 0;
}

/* The profile is the order of one family, and a device of it must show that it has it. */
static cudaError_t try_sm90(struct kn_cuda_device *d)
{
	const int capability = d->chip.capability;
	bool good = false;
	if (capability != 90) {
		snprintf(d->without_sm90, sizeof d->without_sm90,
			"it is the order of compute capability 9.0, and that of %d.%d is not established",
			capability / 10, capability % 10);
		return cudaSuccess;
	}
	cudaError_t error = kn_cuda_try_sm90(d->stream, &good);
	if (!good)
		snprintf(d->without_sm90, sizeof d->without_sm90, "its tensor cores do not sum as an H200's did");
	return error;
}

/* Where integers are multiplied as bf16, which must be exact; else by units for integers, slowly. */
static cudaError_t try_int8(struct kn_cuda_device *d)
{
	return d->chip.int8_as_bf16 ? kn_cuda_try_int8(d->stream, &d->chip.int8_as_bf16) : cudaSuccess;
}

static enum cad_status cannot_be_used(const struct kn_cuda_chip &chip, cudaError_t why, struct cad_error *error)
{
	size_t free_bytes = 0, total_bytes = 0;
	cudaMemGetInfo(&free_bytes, &total_bytes);
	if (why == cudaErrorMemoryAllocation)
		return cad_error_set(error, CAD_ERR_MEMORY,
			"device '%s' (%s) has no memory to begin with: %zu of %zu MiB are free; end what else uses it",
			chip.name, chip.model, free_bytes >> 20, total_bytes >> 20);
	return cad_error_set(error, CAD_ERR_UNSUPPORTED, "device '%s' (%s) cannot be used: %s", chip.name, chip.model,
		cudaGetErrorString(why));
}

static enum cad_status open_device(unsigned index, struct kn_device **device, struct cad_error *error)
{
	static const struct kn_ops ops = table();
	struct kn_cuda_chip chip;
	enum cad_status status = kn_cuda_select(index, &chip, error);
	if (status != CAD_OK)
		return status;

	struct kn_cuda_device *d = static_cast<struct kn_cuda_device *>(calloc(1, sizeof *d));
	if (!d)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a device");
	d->base.ops = &ops;
	d->chip = chip;
	d->others_bytes = others_bytes();
	cudaError_t tried = cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking);
	if (tried != cudaSuccess) {
		status = cannot_be_used(chip, tried, error);
		goto free_device;
	}
	tried = try_sm90(d);
	if (tried == cudaSuccess)
		tried = try_int8(d);
	if (tried != cudaSuccess) {
		status = cannot_be_used(chip, tried, error);
		goto destroy_stream;
	}
	if (kn_cuda_staging_init(&d->staging) != CAD_OK) {
		status = cad_error_set(error, CAD_ERR_MEMORY,
			"device '%s': there is no pinned memory for experts to pass through, %d bytes: free memory on this machine",
			chip.name, KN_STAGING_BUFFERS * KN_STAGING_BYTES);
		goto destroy_stream;
	}
	kn_cuda_slots_init(&d->slots);
	*device = &d->base;
	return CAD_OK;

destroy_stream:
	cudaStreamDestroy(d->stream);
free_device:
	free(d);
	return status;
}

extern "C" __attribute__((visibility("default")))
const struct kn_backend kn_backend = { cad_version, sizeof(struct kn_ops), open_device };
