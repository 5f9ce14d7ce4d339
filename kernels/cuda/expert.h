/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an expert lies in device memory: one allocation, which holds for gate, up and down
 *   q       s8 [n_pad][k_pad], row by row: n padded to KN_COLUMNS_UNIT, k to KN_GROUP, with zeros
 *   scales  f32 [k_pad / KN_GROUP][n_pad]
 * and the biases, f32 [n_pad], where the expert has them: gate and up both or none.
 *
 * Packing quantises on the host, as the CPU's does (quantise.h), and copies once.
 */
#ifndef CADRE_KERNELS_CUDA_EXPERT_H
#define CADRE_KERNELS_CUDA_EXPERT_H

#include "kernels/cuda/cuda.h"

enum { KN_COLUMNS_UNIT = 64 };

/* What kernels see of an expert: device memory. */
struct kn_cuda_view {
	const int8_t *gate, *up, *down;
	const float *gate_scales, *up_scales, *down_scales;
	const float *gate_bias, *up_bias, *down_bias; /* NULL: none */
	enum cad_activation activation;
	float limit;
};

/* `own` of struct kn_expert. */
struct kn_cuda_expert {
	uint8_t *memory;
	size_t bytes;
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
