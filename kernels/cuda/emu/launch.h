/* SPDX-License-Identifier: Apache-2.0 */
/* kernel<<<grid, block, shared, stream>>>(arguments...): the arguments are copied by the launch,
 * and the kernel runs when its stream does (runtime.cc). */
#ifndef CADRE_KERNELS_CUDA_EMU_LAUNCH_H
#define CADRE_KERNELS_CUDA_EMU_LAUNCH_H

#include "kernels/cuda/emu/include/cuda_runtime.h"

#include <tuple>
#include <type_traits>

/* `launch` but for its arguments, which are copied. */
cudaError_t emu_launch_on(cudaStream_t stream, const void *kernel, const emu_launch &launch, const void *arguments,
	size_t arguments_bytes);

template <class... P, class... A>
cudaError_t emu_launch_kernel(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
	cudaStream_t stream, A... arguments)
{
	static_assert((std::is_trivially_copyable<P>::value && ...), "arguments are copied as bytes");
	struct bound {
		void (*kernel)(P...);
		std::tuple<P...> arguments;
	};
	const bound b = { kernel, std::tuple<P...>(static_cast<P>(arguments)...) };
	const auto call = [](const void *bytes) {
		const bound *kept = static_cast<const bound *>(bytes);
		std::apply(kept->kernel, kept->arguments);
	};
	return emu_launch_on(stream, reinterpret_cast<const void *>(kernel),
		{ name, grid, block, shared_bytes, call, nullptr }, &b, sizeof b);
}

#endif
