/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels that break a rule, each in a process of its own, which must end with a report that names
 * the mistake. What only the checking build can see, the fast one runs to its end.
 */
#include "tests/cuda/emu_test.h"

#include <stdio.h>
#include <string.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

namespace
{

enum { THREADS = 64, BYTES = THREADS * 4 };

struct rule {
	const char *name;
	void (*kernel)(uint32_t *memory, uint32_t *other);
	const char *report, *checking; /* of the fast build, NULL: it does not see it; of the checking one */
	unsigned blocks;
};

/* memory: [THREADS], written; other: [THREADS], never written */

__global__ void race_read(uint32_t *memory, uint32_t *)
{
	uint32_t *shared = kn_shared<uint32_t>();
	shared[threadIdx.x] = 0;
	__syncthreads();
	shared[threadIdx.x] = threadIdx.x;
	memory[threadIdx.x] = shared[(threadIdx.x + 32) % THREADS];
}

__global__ void race_in_warp(uint32_t *memory, uint32_t *)
{
	uint32_t *shared = kn_shared<uint32_t>(), thread = threadIdx.x;
	shared[thread] = thread;
	__syncwarp();
	uint32_t value = shared[thread ^ 1];
	shared[thread] = value; /* before the neighbour may have read it */
	memory[thread] = value;
}

__global__ void uninitialised_shared(uint32_t *memory, uint32_t *)
{
	memory[threadIdx.x] = kn_shared<uint32_t>()[threadIdx.x];
}

__global__ void uninitialised_memory(uint32_t *memory, uint32_t *other) { memory[threadIdx.x] = other[threadIdx.x]; }

__global__ void in_flight(uint32_t *memory, uint32_t *)
{
	uint32_t *shared = kn_shared<uint32_t>();
	ptx_cp_async_4(shared + threadIdx.x, memory + threadIdx.x, 4);
	ptx_cp_async_commit();
	memory[threadIdx.x] = shared[threadIdx.x];
	ptx_cp_async_wait<0>();
}

__global__ void never_waited(uint32_t *memory, uint32_t *)
{
	ptx_cp_async_4(kn_shared<uint32_t>() + threadIdx.x, memory + threadIdx.x, 4);
	ptx_cp_async_commit();
}

__global__ void past_shared(uint32_t *, uint32_t *) { kn_shared<uint32_t>()[threadIdx.x + 1] = 0; }
__global__ void past_memory(uint32_t *memory, uint32_t *) { memory[threadIdx.x + 1] = 0; }

__global__ void wild(uint32_t *memory, uint32_t *)
{
	uintptr_t address = memory[threadIdx.x] * 8;
	memory[threadIdx.x] = *reinterpret_cast<uint32_t *>(address);
}

uint32_t *const of_the_host = new uint32_t[THREADS];
__global__ void host_memory(uint32_t *, uint32_t *) { of_the_host[threadIdx.x] = 1; }

__global__ void misaligned(uint32_t *memory, uint32_t *)
{
	*reinterpret_cast<uint32_t *>(reinterpret_cast<char *>(memory) + 2) = threadIdx.x;
}

__global__ void blocks_race(uint32_t *memory, uint32_t *) { memory[threadIdx.x] = blockIdx.x; }

__global__ void barrier_under_condition(uint32_t *, uint32_t *)
{
	if (threadIdx.x < 32)
		__syncthreads();
}

__global__ void two_barriers(uint32_t *, uint32_t *)
{
	if (threadIdx.x < 32)
		__syncthreads();
	else
		__syncthreads();
}

__global__ void lane_not_in_mask(uint32_t *memory, uint32_t *)
{
	memory[threadIdx.x] = __reduce_max_sync(0x0000ffff, threadIdx.x);
}

__global__ void shuffle_from_outside(uint32_t *memory, uint32_t *)
{
	if (threadIdx.x % 32 < 16)
		memory[threadIdx.x] = __shfl_xor_sync(0x0000ffff, threadIdx.x, 16);
}

__global__ void lanes_apart(uint32_t *memory, uint32_t *)
{
	if (threadIdx.x % 2)
		memory[threadIdx.x] = __reduce_max_sync(~0u, 1);
	else
		__syncwarp();
}

__global__ void waits_for_nobody(uint32_t *, uint32_t *)
{
	if (threadIdx.x % 32 == 0)
		__syncwarp();
	else
		__syncthreads();
}

const struct rule rules[] = {
	{ "read before a barrier", race_read, nullptr, "race in shared memory", 1 },
	{ "write before others have read", race_in_warp, nullptr, "race in shared memory", 1 },
	{ "shared memory before it is written", uninitialised_shared, nullptr, "uninitialised shared memory", 1 },
	{ "memory before it is written", uninitialised_memory, nullptr, "uninitialised memory", 1 },
	{ "what a copy is still fetching", in_flight, nullptr, "cp.async in flight", 1 },
	{ "a copy that nobody waits for", never_waited, "cp.async never waited for", "cp.async never waited for", 1 },
	{ "past the end of shared memory", past_shared, "outside of shared memory", "outside of shared memory", 1 },
	{ "past the end of an allocation", past_memory, "outside of an allocation", "outside of an allocation", 1 },
	{ "nowhere", wild, "fault", "memory of the host", 1 },
	{ "memory of the host", host_memory, nullptr, "memory of the host", 1 },
	{ "an address between two words", misaligned, nullptr, "misaligned", 1 },
	{ "two blocks, one word", blocks_race, nullptr, "race between blocks", 2 },
	{ "barrier that some threads skip", barrier_under_condition, "divergent barrier", "divergent barrier", 1 },
	{ "two barriers at once", two_barriers, "divergent barrier", "divergent barrier", 1 },
	{ "lane outside of its own mask", lane_not_in_mask, "warp collective", "warp collective", 1 },
	{ "value of a lane that takes no part", shuffle_from_outside, "shuffle", "shuffle", 1 },
	{ "lanes in two places", lanes_apart, "warp collective", "warp collective", 1 },
	{ "everybody waits", waits_for_nobody, "deadlock", "deadlock", 1 },
};

/* In the child. */
[[noreturn]] void run(const rule *r, uint64_t seed)
{
	emu_set_seed(seed);
	emu_test_memory<uint32_t> memory(std::vector<uint32_t>(THREADS, 1)), other(THREADS);
	KN_LAUNCH(r->kernel, dim3(r->blocks), dim3(THREADS), BYTES, emu_test_stream(), memory.at, other.at);
	cudaStreamSynchronize(emu_test_stream());
	_exit(0);
}

void expect_report(const rule *r, uint64_t seed)
{
#ifdef EMU_CHECK
	const char *expected = r->checking;
#else
	const char *expected = r->report;
#endif
	int ends[2], code;
	assert_int_equal(pipe(ends), 0);
	pid_t child = fork();
	if (child == 0) {
		dup2(ends[1], STDERR_FILENO);
		run(r, seed);
	}

	close(ends[1]);
	std::vector<char> text(1, '\0');
	char part[512];
	for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;)
		text.insert(text.end() - 1, part, part + n);
	close(ends[0]);
	assert_int_equal(waitpid(child, &code, 0), child);

	bool good = expected ? WIFEXITED(code) && WEXITSTATUS(code) == EMU_EXIT_CODE &&
			strstr(text.data(), (std::string("emu: ") + expected).c_str())
			     : WIFEXITED(code) && WEXITSTATUS(code) == 0;
	if (!good)
		fail_msg("seed %llu: expected '%s', got code %d and: %s", static_cast<unsigned long long>(seed),
			expected ? expected : "no report", code, text.data());
}

void is_reported(void **state)
{
	for (uint64_t seed = 0; seed < 4; seed++)
		expect_report(static_cast<const rule *>(*state), seed);
}

}   // namespace

int main()
{
	std::vector<CMUnitTest> tests;
	for (const rule &r : rules)
		tests.push_back({ r.name, is_reported, nullptr, nullptr, const_cast<rule *>(&r) });
	return _cmocka_run_group_tests("rules of kernels", tests.data(), tests.size(), nullptr, nullptr);
}
