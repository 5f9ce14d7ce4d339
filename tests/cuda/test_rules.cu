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

enum {
	THREADS = 64,
	BYTES = THREADS * 4,
	GROUP = 128, /* threads of a warpgroup */
	OPERAND_BYTES = 64 * 128,
	GROUP_BYTES = OPERAND_BYTES + 1024,
};

struct rule {
	const char *name;
	void (*kernel)(uint32_t *memory, uint32_t *other);
	/* of the fast build, NULL: it does not see it; of the checking one; "": one of several,
	 * which depends on what was first */
	const char *report, *checking;
	unsigned blocks, threads = THREADS, bytes = BYTES;
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

__global__ void atomic_beside_write(uint32_t *memory, uint32_t *)
{
	if (blockIdx.x == 0)
		memory[threadIdx.x] = 1;
	else
		atomicMin(&memory[threadIdx.x], 0);
}

__global__ void atomic_beside_read(uint32_t *memory, uint32_t *other)
{
	if (blockIdx.x == 0)
		other[threadIdx.x] = memory[threadIdx.x];
	else
		atomicMin(&memory[threadIdx.x], 0);
}

__global__ void read_after_atomic(uint32_t *memory, uint32_t *other)
{
	if (blockIdx.x == 0)
		atomicMin(&memory[threadIdx.x], 0);
	else
		other[threadIdx.x] = memory[threadIdx.x];
}

__global__ void atomic_uninitialised(uint32_t *, uint32_t *other) { atomicMin(&other[threadIdx.x], 0); }

__global__ void atomic_shared(uint32_t *, uint32_t *)
{
	uint32_t *shared = kn_shared<uint32_t>();
	shared[threadIdx.x] = 1;
	atomicMin(&shared[threadIdx.x], 0);
}

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

/* ---- of sm_90a ---- */

/* Words that a bulk copy fetches, and its mbarrier; of so many threads that arrive. */
struct fetched {
	uint32_t words[THREADS / 2];
	uint64_t barrier;
};
__device__ fetched *barrier_made(uint32_t arrivals)
{
	fetched *s = kn_shared<fetched>();
	if (threadIdx.x == 0) {
		ptx_mbarrier_init(&s->barrier, arrivals);
		ptx_mbarrier_fence_init();
	}
	__syncthreads();
	return s;
}
__device__ void fetch(fetched *s, const uint32_t *memory)
{
	ptx_mbarrier_arrive_expect(&s->barrier, sizeof s->words);
	ptx_bulk_copy(s->words, memory, sizeof s->words, &s->barrier);
}

__global__ void read_before_it_landed(uint32_t *memory, uint32_t *)
{
	fetched *s = barrier_made(1);
	if (threadIdx.x == 0)
		fetch(s, memory);
	__syncthreads();
	memory[threadIdx.x] = s->words[threadIdx.x / 2];
	ptx_mbarrier_wait(&s->barrier, 0);
}

/* The other warp waits for the copy, and this one reads what it fetched. */
__global__ void another_one_waited(uint32_t *memory, uint32_t *)
{
	fetched *s = barrier_made(1);
	if (threadIdx.x == 0)
		fetch(s, memory);
	if (threadIdx.x >= 32)
		ptx_mbarrier_wait(&s->barrier, 0);
	memory[threadIdx.x] = s->words[threadIdx.x / 2];
}

__global__ void fetched_and_left(uint32_t *memory, uint32_t *)
{
	fetched *s = barrier_made(1);
	if (threadIdx.x == 0)
		fetch(s, memory);
}

__global__ void the_other_parity(uint32_t *memory, uint32_t *)
{
	fetched *s = barrier_made(1);
	if (threadIdx.x == 0)
		fetch(s, memory);
	ptx_mbarrier_wait(&s->barrier, 1);
	memory[threadIdx.x] = s->words[threadIdx.x / 2];
}

__global__ void fetched_again_too_early(uint32_t *memory, uint32_t *)
{
	fetched *s = barrier_made(1);
	for (uint32_t i = 0; i < 2; i++) {
		if (threadIdx.x == 0)
			fetch(s, memory); /* others may still read */
		ptx_mbarrier_wait(&s->barrier, i);
		memory[threadIdx.x] = s->words[threadIdx.x / 2];
	}
}

__global__ void announces_too_much(uint32_t *memory, uint32_t *)
{
	fetched *s = barrier_made(1);
	if (threadIdx.x == 0) {
		ptx_mbarrier_arrive_expect(&s->barrier, sizeof s->words + 16);
		ptx_bulk_copy(s->words, memory, sizeof s->words, &s->barrier);
	}
	ptx_mbarrier_wait(&s->barrier, 0);
}

__global__ void nobody_made_it(uint32_t *, uint32_t *) { ptx_mbarrier_wait(&kn_shared<fetched>()->barrier, 0); }

__global__ void made_without_a_fence(uint32_t *memory, uint32_t *)
{
	fetched *s = kn_shared<fetched>();
	if (threadIdx.x == 0) {
		ptx_mbarrier_init(&s->barrier, 1);
		fetch(s, memory);
	}
	__syncthreads();
	ptx_mbarrier_wait(&s->barrier, 0);
}

__global__ void bulk_misaligned(uint32_t *memory, uint32_t *)
{
	fetched *s = barrier_made(1);
	if (threadIdx.x == 0)
		ptx_bulk_copy(s->words, memory + 1, 64, &s->barrier);
}

/* Lane 0 speaks for all lanes, of which some may still read. */
__global__ void arrives_for_others(uint32_t *memory, uint32_t *)
{
	fetched *s = barrier_made(1);
	if (threadIdx.x < 32)
		memory[threadIdx.x] = 0;
	if (threadIdx.x == 32)
		s->words[0] = 5;
	__syncthreads();
	if (threadIdx.x < 32) {
		memory[threadIdx.x] = s->words[0];
		if (threadIdx.x == 0)
			ptx_mbarrier_arrive(&s->barrier);
	} else {
		ptx_mbarrier_wait(&s->barrier, 0);
		if (threadIdx.x == 32)
			s->words[0] = 6;
	}
}

__global__ void no_named_barrier(uint32_t *memory, uint32_t *)
{
	uint32_t *shared = kn_shared<uint32_t>();
	if (threadIdx.x / 32 == 1)
		shared[threadIdx.x] = threadIdx.x;
	ptx_named_sync(1 + threadIdx.x / 32, 32);
	memory[threadIdx.x] = shared[32 + threadIdx.x % 32];
}

/* A warpgroup multiplies zeros. */
__device__ void fill_operands(bool fenced)
{
	for (uint32_t i = threadIdx.x; i < GROUP_BYTES / 4; i += GROUP)
		kn_shared<uint32_t>()[i] = 0;
	if (fenced)
		ptx_fence_async();
	__syncthreads();
}
__device__ void multiply(int32_t (&d)[4], uint32_t step)
{
	const unsigned char *shared = kn_shared<unsigned char>();
	ptx_wgmma_s8<8>(d, ptx_wgmma_operand(shared) + 2 * step, ptx_wgmma_operand(shared + OPERAND_BYTES), false);
}

__global__ void operands_without_a_fence(uint32_t *, uint32_t *)
{
	int32_t d[4] = {};
	fill_operands(false);
	ptx_wgmma_fence();
	multiply(d, 0);
	ptx_wgmma_commit();
	ptx_wgmma_wait<0>();
}

__global__ void registers_without_a_fence(uint32_t *, uint32_t *)
{
	int32_t d[4] = {};
	fill_operands(true);
	multiply(d, 0);
	ptx_wgmma_commit();
	ptx_wgmma_wait<0>();
}

__global__ void product_never_waited(uint32_t *, uint32_t *)
{
	int32_t d[4] = {};
	fill_operands(true);
	ptx_wgmma_fence();
	multiply(d, 0);
	ptx_wgmma_wait<0>(); /* of no group: it was not committed */
}

__global__ void operand_overwritten(uint32_t *, uint32_t *)
{
	int32_t d[4] = {};
	fill_operands(true);
	ptx_wgmma_fence();
	multiply(d, 0);
	ptx_wgmma_commit();
	kn_shared<uint32_t>()[threadIdx.x] = 1;
	ptx_wgmma_wait<0>();
}

__global__ void warps_disagree(uint32_t *, uint32_t *)
{
	int32_t d[4] = {};
	fill_operands(true);
	ptx_wgmma_fence();
	multiply(d, threadIdx.x / 96);
	ptx_wgmma_commit();
	ptx_wgmma_wait<0>();
}

__global__ void operand_misaligned(uint32_t *, uint32_t *) { ptx_wgmma_operand(kn_shared<unsigned char>() + 128); }

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
	{ "atomic beside another block's write", atomic_beside_write, nullptr, "race between blocks", 2 },
	{ "atomic beside another block's read", atomic_beside_read, nullptr, "race between blocks", 2 },
	{ "read beside another block's atomic", read_after_atomic, nullptr, "race between blocks", 2 },
	{ "atomic on what was never written", atomic_uninitialised, nullptr, "uninitialised memory", 1 },
	{ "atomic on shared memory", atomic_shared, nullptr, "atomic operation", 1 },
	{ "barrier that some threads skip", barrier_under_condition, "divergent barrier", "divergent barrier", 1 },
	{ "two barriers at once", two_barriers, "divergent barrier", "divergent barrier", 1 },
	{ "lane outside of its own mask", lane_not_in_mask, "warp collective", "warp collective", 1 },
	{ "value of a lane that takes no part", shuffle_from_outside, "shuffle", "shuffle", 1 },
	{ "lanes in two places", lanes_apart, "warp collective", "warp collective", 1 },
	{ "everybody waits", waits_for_nobody, "deadlock", "deadlock", 1 },
	{ "what a bulk copy is still fetching", read_before_it_landed, nullptr, "", 1 },
	{ "a bulk copy that others waited for", another_one_waited, nullptr, "", 1 },
	{ "a bulk copy that nobody waits for", fetched_and_left, "bulk copy never waited for",
		"bulk copy never waited for", 1 },
	{ "the phase before", the_other_parity, "", "", 1 },
	{ "a bulk copy over what others read", fetched_again_too_early, nullptr, "", 1 },
	{ "bytes that never land", announces_too_much, "deadlock", "deadlock", 1 },
	{ "an mbarrier that nobody made", nobody_made_it, "mbarrier", "mbarrier", 1 },
	{ "an mbarrier that copies do not see", made_without_a_fence, "mbarrier", "mbarrier", 1 },
	{ "a bulk copy from between", bulk_misaligned, "misaligned", "misaligned", 1 },
	{ "an arrival for others", arrives_for_others, nullptr, "race in shared memory", 1 },
	{ "barriers of others", no_named_barrier, nullptr, "", 1 },
	{ "operands that were not fenced", operands_without_a_fence, nullptr, "no fence", 1, GROUP, GROUP_BYTES },
	{ "registers that were not fenced", registers_without_a_fence, "wgmma", "wgmma", 1, GROUP, GROUP_BYTES },
	{ "a product that nobody waits for", product_never_waited, "wgmma never waited for", "wgmma never waited for",
		1, GROUP, GROUP_BYTES },
	{ "an operand that changes", operand_overwritten, nullptr, "race in shared memory", 1, GROUP, GROUP_BYTES },
	{ "warps that multiply other things", warps_disagree, "wgmma", "wgmma", 1, GROUP, GROUP_BYTES },
	{ "an operand between two lines", operand_misaligned, "misaligned", "misaligned", 1, GROUP, GROUP_BYTES },
};

/* In the child. */
[[noreturn]] void run(const rule *r, uint64_t seed)
{
	emu_set_seed(seed);
	emu_test_memory<uint32_t> memory(std::vector<uint32_t>(THREADS, 1)), other(THREADS);
	KN_LAUNCH(r->kernel, dim3(r->blocks), dim3(r->threads), r->bytes, emu_test_stream(), memory.at, other.at);
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
