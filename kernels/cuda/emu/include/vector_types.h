/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA's small structs, under CUDA's names: as far as Cadre's kernels use them. */
#ifndef CADRE_KERNELS_CUDA_EMU_INCLUDE_VECTOR_TYPES_H
#define CADRE_KERNELS_CUDA_EMU_INCLUDE_VECTOR_TYPES_H

struct uint3 {
	unsigned x, y, z;
};
struct dim3 {
	unsigned x, y, z;
	constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) float4 {
	float x, y, z, w;
};
struct alignas(8) float2 {
	float x, y;
};
struct alignas(16) uint4 {
	unsigned x, y, z, w;
};
struct alignas(8) uint2 {
	unsigned x, y;
};

#endif
