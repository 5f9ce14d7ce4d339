/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The twins of sm_90a's instructions against what CuTe states of them: the bits of a descriptor
 * (GmmaDescriptor of mma_sm90_desc.hpp), the swizzle of an operand (Swizzle<3,4,3> of
 * mma_traits_sm90_gmma.hpp), and where results are (CLayout_64xN, there).
 */
#include "tests/cuda/emu_test.h"

namespace
{

enum { M = 64, K = 128, STEPS = K / 32, THREADS = 128 };

uint32_t next(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

/* Swizzle<3,4,3>: of an offset in bytes, 3 bits from bit 4 on are changed by those 3 higher. */
__device__ uint32_t swizzled(uint32_t offset) { return offset ^ (offset & 7u << 7) >> 3; }

/* The descriptor by its fields: start address / 16 at bit 0, leading offset at 16, stride between
 * groups of eight rows / 16 at 32, base offset at 49, kind of layout at 62: 1 is SWIZZLE_128B. */
__device__ uint64_t described(const int8_t *shared, uint32_t offset)
{
	const uint64_t whole = ptx_wgmma_operand(shared);
	return (whole & 0x3fff) + (offset >> 4) + (1ull << 16) + (1024ull / 16 << 32) + (1ull << 62);
}

/* a[64][128], b[N][128], c and d [64 + 64 n]: by columns, as CLayout_64xN has them. */
template <int N> __global__ void probe_wgmma(const int8_t *a, const int8_t *b, const int32_t *c, int32_t *d)
{
	int8_t *shared = kn_shared<int8_t>(), *shared_b = shared + M * K;
	const uint32_t thread = threadIdx.x;
	int32_t r[N / 2];

	for (uint32_t i = thread; i < (M + N) * K; i += THREADS)
		shared[i < M * K ? swizzled(i) : M * K + swizzled(i - M * K)] = i < M * K ? a[i] : b[i - M * K];
	ptx_fence_async();
	__syncthreads();

	/* ((4, 8, 4), (2, 2, N / 8)) : ((128, 1, 16), (64, 8, 512)) */
	const uint32_t place = thread % 4 * 128 + thread / 4 % 8 + thread / 32 * 16;
	for (uint32_t v = 0; v < N / 2; v++)
		r[v] = c[place + v % 2 * 64 + v / 2 % 2 * 8 + v / 4 * 512];
	ptx_wgmma_fence();
	for (uint32_t step = 0; step < STEPS; step++)
		ptx_wgmma_s8<N>(r, described(shared, 32 * step), described(shared_b, 32 * step), true);
	ptx_wgmma_commit();
	ptx_wgmma_wait<0>();
	for (uint32_t v = 0; v < N / 2; v++)
		d[place + v % 2 * 64 + v / 2 % 2 * 8 + v / 4 * 512] = r[v];
}

template <int N> void wgmma_multiplies(void **)
{
	uint32_t random = N;
	std::vector<int8_t> a(M * K), b(N * K);
	std::vector<int32_t> c(M * N);
	for (int8_t &v : a)
		v = static_cast<int8_t>(next(&random) >> 24);
	for (int8_t &v : b)
		v = static_cast<int8_t>(next(&random) >> 24);
	for (int32_t &v : c)
		v = static_cast<int32_t>(next(&random)) >> 8;

	std::vector<int32_t> expected = c;
	for (size_t m = 0; m < M; m++)
		for (size_t n = 0; n < N; n++)
			for (size_t k = 0; k < K; k++)
				expected[m + M * n] += a[m * K + k] * b[n * K + k];

	emu_test_memory<int8_t> da(a), db(b);
	emu_test_memory<int32_t> dc(c);
	emu_test_orders([&] {
		emu_test_memory<int32_t> dd(M * N);
		assert_int_equal(KN_LAUNCH(probe_wgmma<N>, dim3(1), dim3(THREADS), (M + N) * K, emu_test_stream(),
					 da.at, db.at, dc.at, dd.at),
			0);
		assert_true(dd.read() == expected);
	});
}

/* One thread fetches eight blocks through two places, and 64 others add them up: both wait for each
 * other. */
enum { BLOCKS = 8, PLACES = 2, WORDS = 64 };
struct ring {
	uint32_t words[PLACES][WORDS];
	uint64_t full[PLACES], empty[PLACES];
	uint32_t sums[WORDS];
};

__global__ void probe_ring(const uint32_t *from, uint32_t *to)
{
	ring *s = kn_shared<ring>();
	const uint32_t thread = threadIdx.x;

	if (thread == 0) {
		for (int i = 0; i < PLACES; i++) {
			ptx_mbarrier_init(&s->full[i], 1);
			ptx_mbarrier_init(&s->empty[i], WORDS / 32);
		}
		ptx_mbarrier_fence_init();
	}
	__syncthreads();
	if (thread == WORDS)
		for (uint32_t i = 0; i < BLOCKS; i++) {
			ptx_mbarrier_wait(&s->empty[i % PLACES], (i / PLACES & 1) ^ 1);
			ptx_mbarrier_arrive_expect(&s->full[i % PLACES], WORDS * 4);
			ptx_bulk_copy(s->words[i % PLACES], from + i * WORDS, WORDS * 2, &s->full[i % PLACES]);
			ptx_bulk_copy(s->words[i % PLACES] + WORDS / 2, from + i * WORDS + WORDS / 2, WORDS * 2,
				&s->full[i % PLACES]);
		}
	if (thread >= WORDS)
		return;

	uint32_t sum = 0;
	for (uint32_t i = 0; i < BLOCKS; i++) {
		ptx_mbarrier_wait(&s->full[i % PLACES], i / PLACES & 1);
		sum += s->words[i % PLACES][thread];
		__syncwarp();
		if (thread % 32 == 0)
			ptx_mbarrier_arrive(&s->empty[i % PLACES]);
	}
	s->sums[thread] = sum;
	ptx_named_sync(1, WORDS);
	to[thread] = s->sums[WORDS - 1 - thread];
}

void bulk_copies_arrive(void **)
{
	std::vector<uint32_t> from(BLOCKS * WORDS), expected(WORDS);
	for (size_t i = 0; i < from.size(); i++) {
		from[i] = static_cast<uint32_t>(i * i);
		expected[WORDS - 1 - i % WORDS] += from[i];
	}
	emu_test_memory<uint32_t> d(from);
	emu_test_orders([&] {
		emu_test_memory<uint32_t> to(WORDS);
		assert_int_equal(
			KN_LAUNCH(probe_ring, dim3(1), dim3(WORDS + 32), sizeof(ring), emu_test_stream(), d.at, to.at),
			0);
		assert_true(to.read() == expected);
	});
}

}   // namespace

int main()
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wgmma_multiplies<8>),
		cmocka_unit_test(wgmma_multiplies<16>),
		cmocka_unit_test(wgmma_multiplies<32>),
		cmocka_unit_test(wgmma_multiplies<64>),
		cmocka_unit_test(wgmma_multiplies<80>),
		cmocka_unit_test(wgmma_multiplies<96>),
		cmocka_unit_test(wgmma_multiplies<128>),
		cmocka_unit_test(bulk_copies_arrive),
	};
	return cmocka_run_group_tests_name("ptx90", tests, nullptr, nullptr);
}
