/* SPDX-License-Identifier: Apache-2.0 */
/* Experts in device memory, a slot each (slots.h); pack.h says how they lie there. */
#ifndef CADRE_KERNELS_CUDA_EXPERT_H
#define CADRE_KERNELS_CUDA_EXPERT_H

#include "kernels/cuda/pack.h"

/* `own` of struct kn_expert. */
struct kn_cuda_expert {
	uint8_t *memory; /* a slot */
	struct kn_cuda_layout layout;
	struct kn_cuda_view view;
};

uint64_t kn_cuda_expert_bytes(
	const struct kn_device *device, const struct kn_expert_source *source, enum cad_weights weights);
enum cad_status kn_cuda_expert_create(struct kn_device *device, const struct kn_expert_source *source,
	enum cad_weights weights, struct kn_expert *expert);
void kn_cuda_expert_destroy(struct kn_device *device, struct kn_expert *expert);
enum cad_status kn_cuda_expert_unpack(struct kn_device *device, const struct kn_expert *expert,
	const struct kn_expert_source *image, uint64_t begin, size_t count, void *out);

#endif
