/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/staging.h"

static bool init_buffer(struct kn_cuda_buffer *buffer)
{
	void *bytes;
	if (cudaHostAlloc(&bytes, KN_STAGING_BYTES, cudaHostAllocPortable) != cudaSuccess)
		return false;
	buffer->bytes = static_cast<uint8_t *>(bytes);
	return cudaEventCreateWithFlags(&buffer->copied, cudaEventDisableTiming | cudaEventBlockingSync) == cudaSuccess;
}

enum cad_status kn_cuda_staging_init(struct kn_cuda_staging *staging)
{
	*staging = {};
	pthread_mutex_init(&staging->lock, nullptr);
	pthread_cond_init(&staging->given, nullptr);
	bool made = cudaStreamCreateWithFlags(&staging->stream, cudaStreamNonBlocking) == cudaSuccess;
	for (struct kn_cuda_buffer &buffer : staging->buffers) {
		made = made && init_buffer(&buffer);
		staging->idle[staging->count++] = &buffer;
	}
	if (made)
		return CAD_OK;

	cudaGetLastError();
	kn_cuda_staging_fini(staging);
	return CAD_ERR_MEMORY;
}

void kn_cuda_staging_fini(struct kn_cuda_staging *staging)
{
	CAD_ASSERT(staging->count == KN_STAGING_BUFFERS);
	if (staging->stream)
		cudaStreamDestroy(staging->stream);
	for (struct kn_cuda_buffer &buffer : staging->buffers) {
		if (buffer.copied)
			cudaEventDestroy(buffer.copied);
		cudaFreeHost(buffer.bytes);
	}
	pthread_cond_destroy(&staging->given);
	pthread_mutex_destroy(&staging->lock);
}

struct kn_cuda_buffer *kn_cuda_staging_take(struct kn_cuda_staging *staging)
{
	pthread_mutex_lock(&staging->lock);
	while (staging->count == 0)
		pthread_cond_wait(&staging->given, &staging->lock);
	struct kn_cuda_buffer *buffer = staging->idle[staging->first];
	staging->first = (staging->first + 1) % KN_STAGING_BUFFERS;
	staging->count--;
	pthread_mutex_unlock(&staging->lock);

	/* a device that has failed is noticed by the next copy */
	(void)kn_cuda_staging_wait(buffer);
	return buffer;
}

void kn_cuda_staging_give(struct kn_cuda_staging *staging, struct kn_cuda_buffer *buffer)
{
	pthread_mutex_lock(&staging->lock);
	staging->idle[(staging->first + staging->count++) % KN_STAGING_BUFFERS] = buffer;
	pthread_cond_signal(&staging->given);
	pthread_mutex_unlock(&staging->lock);
}

cudaError_t kn_cuda_staging_send(
	struct kn_cuda_staging *staging, struct kn_cuda_buffer *buffer, uint8_t *to, size_t bytes)
{
	cudaError_t error = cudaMemcpyAsync(to, buffer->bytes, bytes, cudaMemcpyHostToDevice, staging->stream);
	return error == cudaSuccess ? cudaEventRecord(buffer->copied, staging->stream) : error;
}

cudaError_t kn_cuda_staging_wait(struct kn_cuda_buffer *buffer) { return cudaEventSynchronize(buffer->copied); }

cudaError_t kn_cuda_staging_fetch(
	struct kn_cuda_staging *staging, struct kn_cuda_buffer *buffer, const uint8_t *from, size_t bytes)
{
	cudaError_t error = cudaMemcpyAsync(buffer->bytes, from, bytes, cudaMemcpyDeviceToHost, staging->stream);
	if (error == cudaSuccess)
		error = cudaEventRecord(buffer->copied, staging->stream);
	return error == cudaSuccess ? kn_cuda_staging_wait(buffer) : error;
}
