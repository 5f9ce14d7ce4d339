/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the CUDA backend: its device, its queue, and the operators that fill the kn_ops table in
 * device.cc. It computes what an expert node needs, in profiles f32, bf16-sm90, int8 and int4.
 *
 * A queue is a stream. Host arrays that an operator reads are copied by the call into the queue's
 * window, pinned memory that has a mirror on the device, and go there in one copy; what is large and
 * pinned already goes to the mirror by itself. What an operator
 * writes to the host, kernels write into the window, and `wait` takes it to its place. When the
 * window is full, the operator waits for the stream and begins at the front again.
 */
#ifndef CADRE_KERNELS_CUDA_CUDA_H
#define CADRE_KERNELS_CUDA_CUDA_H

#include "kernels/cuda/cadre_c.h"
#include "kernels/cuda/events.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/nvml.h"
#include "kernels/cuda/select.h"
#include "kernels/cuda/slots.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/tune.h"

struct kn_cuda_device {
	struct kn_device base;
	struct kn_cuda_slots slots;
	struct kn_cuda_staging staging;
	struct kn_cuda_chip chip;
	uint64_t others_bytes;          /* of its memory, that others had when it was opened */
	cudaStream_t stream;            /* of what takes a device and no queue; any thread */
	char failure[KN_FAILURE_BYTES]; /* why it has failed; "": it has not (device.cc) */
	struct kn_cuda_nvml nvml;
	char without_sm90[120]; /* as struct kn_device_info has it; "": it computes in bf16-sm90 */
};

struct kn_cuda_queue;

/* Results of an operator in the window: heads, which name the pair of a poisoned row instead of its
 * expert, and the data of row r at data + r * stride. */
struct kn_cuda_delivery {
	const struct cadre_wire_sum *heads;
	const uint8_t *data;
	size_t stride, rows, n;
	/* the caller's */
	struct cadre_wire_sum *to_heads;
	uint8_t *to_data;
	size_t *to_bytes;
	const uint32_t *pair_expert;
	bool first; /* of the call: the others add to its data */
};
enum { KN_DELIVERIES_MAX = 64 };

struct kn_cuda_queue {
	struct kn_queue base;
	cudaStream_t stream;
	enum cad_status failed; /* once the device has failed, for good */
	struct kn_cuda_spans spans;
	/* [KN_WINDOW_BYTES]: taken up to `used`, and of that sent to the mirror up to `sent` */
	uint8_t *window, *mirror;
	size_t used, sent;
	struct kn_cuda_delivery deliveries[KN_DELIVERIES_MAX];
	size_t deliveries_count;
};

static inline struct kn_cuda_queue *kn_cuda_queue_of(struct kn_queue *queue)
{
	return reinterpret_cast<struct kn_cuda_queue *>(queue);
}
static inline struct kn_cuda_device *kn_cuda_device_of(struct kn_device *device)
{
	return reinterpret_cast<struct kn_cuda_device *>(device);
}
static inline const struct kn_cuda_device *kn_cuda_device_of(const struct kn_device *device)
{
	return reinterpret_cast<const struct kn_cuda_device *>(device);
}

/* ---- device.cc ---- */

void *kn_cuda_alloc(struct kn_device *device, size_t bytes);
void kn_cuda_release(struct kn_device *device, void *memory, size_t bytes);
/* Waits for the device's own stream, unless what was put there failed at once: `put`. */
enum cad_status kn_cuda_finish(struct kn_cuda_device *device, cudaError_t put);
/* Of a call that takes memory: whether it did. Other errors than that there is none are failures. */
bool kn_cuda_taken(struct kn_cuda_device *device, cudaError_t error);
/* The device has failed, in something ("in ffn"); the first time counts. Any thread. */
void kn_cuda_failed(struct kn_cuda_device *device, cudaError_t error, const char *in);
/* OK, or it has failed with this error. */
enum cad_status kn_cuda_outcome(struct kn_cuda_device *device, cudaError_t error, const char *in);

/* ---- queue.cc ---- */

enum cad_status kn_cuda_queue_create(struct kn_device *device, unsigned threads, struct kn_queue **queue);
void kn_cuda_queue_destroy(struct kn_queue *queue);
void kn_cuda_copy_in(struct kn_queue *queue, void *device_memory, const void *host, size_t bytes);
void kn_cuda_copy_out(struct kn_queue *queue, void *host, const void *device_memory, size_t bytes);
enum cad_status kn_cuda_wait(struct kn_queue *queue);
void kn_cuda_times(struct kn_queue *queue, double seconds[KN_STAGE_COUNT]);

/* A call on the stream has failed, or not: the queue keeps it. */
void kn_cuda_note(struct kn_cuda_queue *queue, cudaError_t error);
/* Launches a kernel whose shared memory may be more than the 48 KiB that need not be asked for. */
#define KN_LAUNCH_SHARED(queue, kernel, grid, block, shared_bytes, ...) \
	(kn_cuda_note(queue, \
		 cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), \
			 cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes))), \
		kn_cuda_note(queue, KN_LAUNCH(kernel, grid, block, shared_bytes, (queue)->stream, __VA_ARGS__)))
/* Makes sure that so much can be taken of the window, 64 bytes for each piece included. */
void kn_cuda_reserve(struct kn_cuda_queue *queue, size_t bytes);
/* The next bytes of the window, aligned to 64. */
void *kn_cuda_take(struct kn_cuda_queue *queue, size_t bytes);
/* Where the device has what was taken, once it is sent. */
const void *kn_cuda_mirror(const struct kn_cuda_queue *queue, const void *taken);
void kn_cuda_send(struct kn_cuda_queue *queue);
/* Sends what was taken, and then brings these bytes, for which the window has room: by the window,
 * or, when they are many and in pinned memory, straight from there. Where the device has them. */
const void *kn_cuda_bring(struct kn_cuda_queue *queue, const void *host, size_t bytes);
/* After the launch that makes it. */
void kn_cuda_deliver(struct kn_cuda_queue *queue, const struct kn_cuda_delivery *delivery);

/* ---- quantise.cu ---- */

/* Rows of the first n elements of x (n a multiple of 8, and what lies between the row's own size
 * and n is zero) as integers: q [rows][k_pad] and scales [rows][k_pad / KN_GROUP], k_pad a multiple
 * of KN_GROUP. */
void kn_cuda_quantise(struct kn_cuda_queue *queue, const float *x, size_t ldx, size_t rows, size_t n, int8_t *q,
	float *scales, size_t k_pad);

/* ---- probe_bf16.cu ---- */

/* Whether the device, of compute capability 9.0, sums as profile bf16-sm90 does. */
cudaError_t kn_cuda_try_sm90(cudaStream_t stream, bool *good);
/* Whether its sums of bf16 are exact where a group of profile int8 is multiplied as such. */
cudaError_t kn_cuda_try_int8(cudaStream_t stream, bool *good);

/* ---- ffn.cc ---- */

size_t kn_cuda_ffn_scratch_bytes(struct kn_queue *queue, size_t pairs, size_t hidden, size_t ffn, bool sums);
void kn_cuda_ffn(struct kn_queue *queue, const struct kn_ffn *a);

/* ---- rows.cu ---- */

void kn_cuda_rows_unpack(struct kn_queue *queue, const struct kn_rows_unpack *a);
/* Whether this build has code for this thread's device: cudaErrorNoKernelImageForDevice. */
cudaError_t kn_cuda_code_found();

/* ---- combine.cu ---- */

void kn_cuda_combine_pack(struct kn_queue *queue, const struct kn_combine_pack *a);

#endif
