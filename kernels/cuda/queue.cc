/* SPDX-License-Identifier: Apache-2.0 */
/* A stream with its window. */
#include "kernels/cuda/cuda.h"

#include <stdio.h>

enum { ALIGNMENT = 64 };

enum cad_status kn_cuda_queue_create(struct kn_device *device, unsigned, struct kn_queue **queue)
{
	struct kn_cuda_queue *q = static_cast<struct kn_cuda_queue *>(calloc(1, sizeof *q));
	void *window;
	if (!q)
		return CAD_ERR_MEMORY;

	q->base = { device->ops, device };
	if (cudaStreamCreateWithFlags(&q->stream, cudaStreamNonBlocking) != cudaSuccess)
		goto free_queue;
	if (cudaHostAlloc(&window, KN_WINDOW_BYTES, cudaHostAllocPortable) != cudaSuccess)
		goto destroy_stream;
	q->window = static_cast<uint8_t *>(window);
	q->mirror = static_cast<uint8_t *>(kn_cuda_alloc(device, KN_WINDOW_BYTES));
	if (!q->mirror)
		goto free_window;
	if (!kn_cuda_spans_init(&q->spans))
		goto free_spans;
	*queue = &q->base;
	return CAD_OK;

free_spans:
	kn_cuda_spans_fini(&q->spans);
	kn_cuda_release(device, q->mirror, KN_WINDOW_BYTES);
free_window:
	cudaFreeHost(q->window);
destroy_stream:
	cudaStreamDestroy(q->stream);
free_queue:
	cudaGetLastError();
	free(q);

	return CAD_ERR_MEMORY;
}

void kn_cuda_queue_destroy(struct kn_queue *queue)
{
	struct kn_cuda_queue *q = kn_cuda_queue_of(queue);
	kn_cuda_spans_fini(&q->spans);
	kn_cuda_release(queue->device, q->mirror, KN_WINDOW_BYTES);
	cudaFreeHost(q->window);
	cudaStreamDestroy(q->stream);
	free(q);
}

void kn_cuda_note(struct kn_cuda_queue *queue, cudaError_t error)
{
	if (error == cudaSuccess)
		return;
	if (queue->failed == CAD_OK) {
		char stages[80], in[100];
		kn_cuda_spans_text(&queue->spans, stages, sizeof stages);
		snprintf(in, sizeof in, "in %s", *stages ? stages : "a wait");
		kn_cuda_failed(kn_cuda_device_of(queue->base.device), error, in);
	}
	queue->failed = CAD_ERR_INTERNAL;
}

/* ---- the window ---- */

/* Each row after the one before. A poisoned row has width 0, and no data. */
static void deliver(const struct kn_cuda_delivery *d)
{
	size_t bytes = d->first ? 0 : *d->to_bytes;
	memcpy(d->to_heads, d->heads, d->rows * sizeof *d->heads);
	for (size_t r = 0; r < d->rows; r++) {
		if (d->heads[r].poisoned)
			d->to_heads[r].expert = d->pair_expert[d->heads[r].expert];
		memcpy(d->to_data + bytes, d->data + r * d->stride, d->heads[r].width * d->n);
		bytes += d->heads[r].width * d->n;
	}
	*d->to_bytes = bytes;
}

/* Waits for all that the stream was given. */
static void finish(struct kn_cuda_queue *q)
{
	kn_cuda_note(q, kn_cuda_spans_pause(&q->spans, q->stream));
	kn_cuda_note(q, cudaStreamSynchronize(q->stream));
	kn_cuda_note(q, kn_cuda_spans_read(&q->spans, q->stream));
	for (size_t i = 0; i < q->deliveries_count && q->failed == CAD_OK; i++)
		deliver(&q->deliveries[i]);
	q->deliveries_count = q->used = q->sent = 0;
}

void kn_cuda_reserve(struct kn_cuda_queue *queue, size_t bytes)
{
	CAD_ASSERT(bytes <= KN_WINDOW_BYTES);
	if (queue->used + bytes > KN_WINDOW_BYTES || queue->deliveries_count == KN_DELIVERIES_MAX)
		finish(queue);
}

void *kn_cuda_take(struct kn_cuda_queue *queue, size_t bytes)
{
	void *taken = queue->window + queue->used;
	queue->used += kn_round_up(bytes, ALIGNMENT);
	CAD_ASSERT(queue->used <= KN_WINDOW_BYTES);
	return taken;
}

const void *kn_cuda_mirror(const struct kn_cuda_queue *queue, const void *taken)
{
	return queue->mirror + (static_cast<const uint8_t *>(taken) - queue->window);
}

void kn_cuda_send(struct kn_cuda_queue *queue)
{
	kn_cuda_note(queue,
		cudaMemcpyAsync(queue->mirror + queue->sent, queue->window + queue->sent, queue->used - queue->sent,
			cudaMemcpyHostToDevice, queue->stream));
	queue->sent = queue->used;
}

static bool is_pinned(const void *memory)
{
	cudaPointerAttributes attributes;
	return cudaPointerGetAttributes(&attributes, memory) == cudaSuccess && attributes.type == cudaMemoryTypeHost;
}

const void *kn_cuda_bring(struct kn_cuda_queue *queue, const void *host, size_t bytes)
{
	if (bytes < KN_DIRECT_BYTES || !is_pinned(host)) {
		void *taken = kn_cuda_take(queue, bytes);
		memcpy(taken, host, bytes);
		kn_cuda_send(queue);
		return kn_cuda_mirror(queue, taken);
	}

	kn_cuda_send(queue);
	void *to = queue->mirror + queue->used;
	kn_cuda_take(queue, bytes);
	queue->sent = queue->used; /* that part of the window stays as it is */
	kn_cuda_note(queue, cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, queue->stream));
	return to;
}

void kn_cuda_deliver(struct kn_cuda_queue *queue, const struct kn_cuda_delivery *delivery)
{
	queue->deliveries[queue->deliveries_count++] = *delivery;
	queue->sent = queue->used; /* results are not for the mirror */
}

/* ---- copies ---- */

void kn_cuda_copy_in(struct kn_queue *queue, void *device_memory, const void *host, size_t bytes)
{
	struct kn_cuda_queue *q = kn_cuda_queue_of(queue);
	kn_cuda_note(q, cudaMemcpyAsync(device_memory, host, bytes, cudaMemcpyHostToDevice, q->stream));
}

void kn_cuda_copy_out(struct kn_queue *queue, void *host, const void *device_memory, size_t bytes)
{
	struct kn_cuda_queue *q = kn_cuda_queue_of(queue);
	kn_cuda_note(q, cudaMemcpyAsync(host, device_memory, bytes, cudaMemcpyDeviceToHost, q->stream));
}

enum cad_status kn_cuda_wait(struct kn_queue *queue)
{
	struct kn_cuda_queue *q = kn_cuda_queue_of(queue);
	finish(q);
	return q->failed;
}

void kn_cuda_times(struct kn_queue *queue, double seconds[KN_STAGE_COUNT])
{
	struct kn_cuda_queue *q = kn_cuda_queue_of(queue);
	for (unsigned stage = 0; stage < KN_STAGE_COUNT; stage++) {
		seconds[stage] += q->spans.seconds[stage];
		q->spans.seconds[stage] = 0;
	}
}
