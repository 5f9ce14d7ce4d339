/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the emulation share: cmocka from C++, device memory of exactly so many
 * elements, and every order of threads. */
#ifndef CADRE_TESTS_CUDA_EMU_TEST_H
#define CADRE_TESTS_CUDA_EMU_TEST_H

#include "kernels/cuda/gpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <vector>

extern "C" {
#include <cmocka.h>
}

enum { EMU_TEST_SEEDS = 6 };

inline cudaStream_t emu_test_stream()
{
	static cudaStream_t stream;
	if (!stream)
		assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
	return stream;
}

inline void emu_test_wait() { assert_int_equal(cudaStreamSynchronize(emu_test_stream()), cudaSuccess); }

/* Device memory; what is read of it has been waited for. */
template <class T> struct emu_test_memory {
	T *at;
	size_t count;

	explicit emu_test_memory(size_t n) : count(n)
	{
		void *memory;
		assert_int_equal(cudaMalloc(&memory, n * sizeof(T)), cudaSuccess);
		at = static_cast<T *>(memory);
	}
	explicit emu_test_memory(const std::vector<T> &values) : emu_test_memory(values.size())
	{
		assert_int_equal(cudaMemcpyAsync(at, values.data(), count * sizeof(T), cudaMemcpyHostToDevice,
					 emu_test_stream()),
			cudaSuccess);
	}
	emu_test_memory(const emu_test_memory &) = delete;
	~emu_test_memory() { cudaFree(at); }

	std::vector<T> read() const
	{
		std::vector<T> values(count);
		assert_int_equal(cudaMemcpyAsync(values.data(), at, count * sizeof(T), cudaMemcpyDeviceToHost,
					 emu_test_stream()),
			cudaSuccess);
		emu_test_wait();
		return values;
	}
};

/* Runs `body` once for each order. */
template <class F> void emu_test_orders(F body)
{
	for (uint64_t seed = 0; seed < EMU_TEST_SEEDS; seed++) {
		emu_set_seed(seed);
		body();
	}
	emu_set_seed(0);
}

#endif
