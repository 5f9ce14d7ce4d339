/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device memory for experts, in slots of one size, taken once: cudaMalloc and cudaFree stop every
 * stream of the device, so neither is for a node that serves. Slots lie side by side in chunks of at
 * most KN_CHUNK_BYTES.
 *
 * What is larger than a slot, as all is that comes before they are reserved, has memory of its own.
 */
#ifndef CADRE_KERNELS_CUDA_SLOTS_H
#define CADRE_KERNELS_CUDA_SLOTS_H

#include "kernels/cuda/cadre_c.h"

#include <pthread.h>

struct kn_cuda_device;

enum { KN_SLOT_ALIGNMENT = 256 };

struct kn_cuda_slots {
	uint64_t bytes; /* of a slot, a multiple of KN_SLOT_ALIGNMENT; 0: none were reserved */
	uint8_t **chunks;
	uint64_t *chunk_bytes;
	size_t chunks_count;
	pthread_mutex_t lock; /* of what follows */
	uint8_t **unused;     /* the last one is taken next */
	size_t unused_count;
};

void kn_cuda_slots_init(struct kn_cuda_slots *slots);
/* Nothing of it may be in use. */
void kn_cuda_slots_fini(struct kn_cuda_slots *slots);

/* kn_ops.expert_reserve. */
enum cad_status kn_cuda_expert_reserve(struct kn_device *device, uint64_t bytes, size_t count);

/* What it holds is anything. NULL: there is no room. Any thread. */
uint8_t *kn_cuda_slot_take(struct kn_cuda_device *device, uint64_t bytes);
/* No stream uses it any more. NULL is allowed. */
void kn_cuda_slot_give(struct kn_cuda_device *device, uint8_t *slot);

#endif
