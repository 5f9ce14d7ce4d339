/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of experts to device memory and back: a few pinned buffers, made once, and a stream of
 * their own. No queue waits for it and it waits for none, so loads go on beside steps.
 *
 * Who loads takes a buffer, fills it and sends it; while it is copied, the next one is filled. Taking
 * waits for the copy that the buffer was sent with last, by its event. The stream keeps the order of
 * sends, so when the last buffer of a load has been copied, all have.
 *
 * Any number of threads; each has one buffer at a time, so all get their turn. One that runs in the
 * background (cad_background) keeps its buffer for as long as others want the core, so fewer of
 * those than there are buffers should load.
 */
#ifndef CADRE_KERNELS_CUDA_STAGING_H
#define CADRE_KERNELS_CUDA_STAGING_H

#include "kernels/cuda/cadre_c.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/tune.h"

#include <pthread.h>

struct kn_cuda_buffer {
	uint8_t *bytes; /* [KN_STAGING_BYTES] */
	cudaEvent_t copied;
};

struct kn_cuda_staging {
	cudaStream_t stream;
	struct kn_cuda_buffer buffers[KN_STAGING_BUFFERS];
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t given;
	struct kn_cuda_buffer *idle[KN_STAGING_BUFFERS]; /* a ring: those that nobody has, longest ago first */
	unsigned first, count;
};

/* CAD_ERR_MEMORY: there is no pinned memory for it. */
enum cad_status kn_cuda_staging_init(struct kn_cuda_staging *staging);
/* Nobody has a buffer. */
void kn_cuda_staging_fini(struct kn_cuda_staging *staging);

/* Waits until there is one, and until what it was sent with last has been copied. */
struct kn_cuda_buffer *kn_cuda_staging_take(struct kn_cuda_staging *staging);
void kn_cuda_staging_give(struct kn_cuda_staging *staging, struct kn_cuda_buffer *buffer);

/* Its first `bytes` go to the device, from now on. */
cudaError_t kn_cuda_staging_send(
	struct kn_cuda_staging *staging, struct kn_cuda_buffer *buffer, uint8_t *to, size_t bytes);
/* All that was sent before this buffer's last copy, and that, is there. It may have been given back. */
cudaError_t kn_cuda_staging_wait(struct kn_cuda_buffer *buffer);
/* `bytes` come from the device, and are there on return. */
cudaError_t kn_cuda_staging_fetch(
	struct kn_cuda_staging *staging, struct kn_cuda_buffer *buffer, const uint8_t *from, size_t bytes);

#endif
