/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated runtime: streams that run when somebody waits, copies, limits, failures. */
#include "tests/cuda/emu_test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace
{

enum { COUNT = 100 };

__global__ void add(const uint32_t *x, uint32_t *y, uint32_t what, uint32_t n)
{
	uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		y[i] = x[i] + what;
}

uint32_t *pinned(size_t count)
{
	void *memory;
	assert_int_equal(cudaHostAlloc(&memory, count * 4, cudaHostAllocPortable), cudaSuccess);
	return static_cast<uint32_t *>(memory);
}

cudaError_t launch_add(const uint32_t *x, uint32_t *y, uint32_t what, cudaStream_t stream)
{
	return KN_LAUNCH(add, dim3((COUNT + 31) / 32), dim3(32), 0, stream, x, y, what, COUNT);
}

void nothing_runs_before_it_is_waited_for(void **)
{
	uint32_t *in = pinned(COUNT), *out = pinned(COUNT);
	emu_test_memory<uint32_t> x(COUNT), y(COUNT);

	for (uint32_t i = 0; i < COUNT; i++)
		in[i] = i;
	memset(out, 0, COUNT * 4);
	cudaMemcpyAsync(x.at, in, COUNT * 4, cudaMemcpyHostToDevice, emu_test_stream());
	assert_int_equal(launch_add(x.at, y.at, 5, emu_test_stream()), cudaSuccess);
	cudaMemcpyAsync(out, y.at, COUNT * 4, cudaMemcpyDeviceToHost, emu_test_stream());
	assert_int_equal(out[COUNT - 1], 0);
	in[0] = 1000; /* too early: the copy has not run, and takes what is there then */
	emu_test_wait();

	assert_int_equal(out[0], 1005);
	for (uint32_t i = 1; i < COUNT; i++)
		assert_int_equal(out[i], i + 5);
	cudaFreeHost(in);
	cudaFreeHost(out);
}

/* From memory that is not pinned a copy has read all when it returns; to such memory it has
 * written. */
void pageable_copies_are_done_at_once(void **)
{
	std::vector<uint32_t> values(COUNT, 7), back(COUNT);
	emu_test_memory<uint32_t> x(COUNT), y(COUNT);
	cudaMemcpyAsync(x.at, values.data(), COUNT * 4, cudaMemcpyHostToDevice, emu_test_stream());
	values.assign(COUNT, 0);
	assert_int_equal(launch_add(x.at, y.at, 1, emu_test_stream()), cudaSuccess);
	cudaMemcpyAsync(back.data(), y.at, COUNT * 4, cudaMemcpyDeviceToHost, emu_test_stream());
	assert_true(back == std::vector<uint32_t>(COUNT, 8));
}

void streams_know_nothing_of_each_other(void **)
{
	cudaStream_t other;
	uint32_t *out = pinned(1);
	unsigned early = 0, rounds = 64;

	assert_int_equal(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
	for (unsigned i = 0; i < rounds; i++) {
		emu_test_memory<uint32_t> x(std::vector<uint32_t>(COUNT, i)), y(COUNT);
		emu_test_wait();
		assert_int_equal(launch_add(x.at, y.at, 1, other), cudaSuccess);
		cudaMemcpyAsync(out, y.at, 4, cudaMemcpyDeviceToHost, emu_test_stream());
		emu_test_wait();
		early += *out == 0xffffffff;
		assert_int_equal(cudaStreamSynchronize(other), cudaSuccess);
	}
	assert_in_range(early, 1, rounds - 1); /* sometimes the other was first, sometimes not */

	assert_int_equal(cudaStreamDestroy(other), cudaSuccess);
	assert_int_equal(cudaStreamSynchronize(other), cudaErrorInvalidResourceHandle);
	cudaGetLastError();
	cudaFreeHost(out);
}

/* A wait for an event runs what its stream was given before, and not always what came after. */
void events_are_places_in_a_stream(void **)
{
	uint32_t *out = pinned(2);
	emu_test_memory<uint32_t> x(std::vector<uint32_t>{ 7, 8 });
	cudaStream_t stream, other;
	cudaEvent_t event;
	unsigned late = 0, rounds = 64;

	emu_test_wait();
	assert_int_equal(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
	assert_int_equal(cudaEventQuery(event), cudaSuccess); /* never recorded */
	assert_int_equal(cudaEventSynchronize(event), cudaSuccess);
	assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
	assert_int_equal(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
	for (unsigned i = 0; i < rounds; i++) {
		out[0] = out[1] = 0;
		cudaMemcpyAsync(out, x.at, 4, cudaMemcpyDeviceToHost, stream);
		assert_int_equal(cudaEventRecord(event, stream), cudaSuccess);
		cudaMemcpyAsync(out + 1, x.at + 1, 4, cudaMemcpyDeviceToHost, i % 2 ? stream : other);
		assert_int_equal(cudaEventQuery(event), cudaErrorNotReady);
		assert_int_equal(cudaEventSynchronize(event), cudaSuccess);
		assert_int_equal(cudaEventQuery(event), cudaSuccess);
		assert_int_equal(out[0], 7);
		assert_true(i % 2 == 0 || out[1] == 0);
		late += i % 2 == 0 && out[1] == 0;
		assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
		assert_int_equal(cudaStreamSynchronize(other), cudaSuccess);
	}
	assert_in_range(late, 1, rounds / 2 - 1);

	assert_int_equal(cudaEventRecord(event, stream), cudaSuccess);
	assert_int_equal(cudaEventDestroy(event), cudaSuccess); /* before the stream has come to it */
	assert_int_equal(cudaStreamDestroy(stream), cudaSuccess);
	assert_int_equal(cudaStreamDestroy(other), cudaSuccess);
	cudaFreeHost(out);
}

/* What another process has cannot be taken, and comes back when it ends. */
void others_take_memory(void **)
{
	char path[] = "/tmp/cadre-test-taken-XXXXXX";
	int file = mkstemp(path);
	size_t before, now, total_bytes;
	void *memory;

	assert_true(file >= 0);
	cudaMemGetInfo(&before, &total_bytes);
	setenv("CADRE_EMU_TAKEN", path, 1);
	cudaMemGetInfo(&now, &total_bytes);
	assert_int_equal(now, before);
	assert_int_equal(write(file, "1000000\n", 8), 8);
	cudaMemGetInfo(&now, &total_bytes);
	assert_int_equal(now, before - 1000000);
	assert_int_equal(cudaMalloc(&memory, before), cudaErrorMemoryAllocation);
	cudaGetLastError();

	close(file);
	unlink(path);
	cudaMemGetInfo(&now, &total_bytes);
	assert_int_equal(now, before);
	setenv("CADRE_EMU_TAKEN", "1000000000000", 1);
	cudaMemGetInfo(&now, &total_bytes);
	assert_int_equal(now, 0);
	unsetenv("CADRE_EMU_TAKEN");
}

void rows_are_copied_at_a_pitch(void **)
{
	std::vector<uint32_t> values = { 1, 2, 3, 4, 5, 6 }, back(4);
	emu_test_memory<uint32_t> x(values);
	/* the first two of each three */
	cudaMemcpy2DAsync(back.data(), 8, x.at, 12, 8, 2, cudaMemcpyDeviceToHost, emu_test_stream());
	assert_true(back == (std::vector<uint32_t>{ 1, 2, 4, 5 }));
}

void memory_has_an_end(void **)
{
	void *memory;
	size_t free_bytes, total_bytes;
	assert_int_equal(cudaMemGetInfo(&free_bytes, &total_bytes), cudaSuccess);
	assert_int_equal(cudaMalloc(&memory, free_bytes + 1), cudaErrorMemoryAllocation);
	assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
	assert_int_equal(cudaGetLastError(), cudaSuccess);
	assert_int_equal(cudaMalloc(&memory, 1000), cudaSuccess);
	size_t less;
	cudaMemGetInfo(&less, &total_bytes);
	assert_int_equal(less, free_bytes - 1000);
	assert_int_equal(cudaFree(memory), cudaSuccess);
	assert_int_equal(cudaFree(memory), cudaErrorInvalidValue);
	cudaGetLastError();
}

__global__ void touch_shared(uint32_t *out)
{
	kn_shared<uint32_t>()[threadIdx.x] = threadIdx.x;
	__syncthreads();
	out[threadIdx.x] = kn_shared<uint32_t>()[blockDim.x - 1 - threadIdx.x];
}

void launches_have_limits(void **)
{
	emu_test_memory<uint32_t> out(64);
	cudaStream_t stream = emu_test_stream();
	assert_int_equal(
		KN_LAUNCH(touch_shared, dim3(1), dim3(1025), 8192, stream, out.at), cudaErrorInvalidConfiguration);
	assert_int_equal(
		KN_LAUNCH(touch_shared, dim3(1), dim3(64), 48 * 1024 + 1, stream, out.at), cudaErrorInvalidValue);
	assert_int_equal(cudaFuncSetAttribute(reinterpret_cast<const void *>(touch_shared),
				 cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024),
		cudaSuccess);
	assert_int_equal(KN_LAUNCH(touch_shared, dim3(1), dim3(64), 100 * 1024, stream, out.at), cudaSuccess);
	cudaGetLastError();
	std::vector<uint32_t> got = out.read();
	for (uint32_t i = 0; i < 64; i++)
		assert_int_equal(got[i], 63 - i);
}

}   // namespace

int main()
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_runs_before_it_is_waited_for),
		cmocka_unit_test(pageable_copies_are_done_at_once),
		cmocka_unit_test(streams_know_nothing_of_each_other),
		cmocka_unit_test(events_are_places_in_a_stream),
		cmocka_unit_test(others_take_memory),
		cmocka_unit_test(rows_are_copied_at_a_pitch),
		cmocka_unit_test(memory_has_an_end),
		cmocka_unit_test(launches_have_limits),
	};
	return cmocka_run_group_tests_name("runtime", tests, nullptr, nullptr);
}
