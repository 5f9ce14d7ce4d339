/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The twins of instructions against layouts that are stated elsewhere: operands are placed by the
 * strides that CuTe gives for these instructions (mma_traits_sm80.hpp), and not by the drawing that
 * the twins were written from.
 */
#include "kernels/sm90.h"
#include "tests/cuda/emu_test.h"

#include <math.h>
#include <string.h>

namespace
{

uint32_t next(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

/* CuTe: element v of lane l is at l % 4 * s0 + l / 4 * s1 + (the digits of v) * (their strides), in
 * a matrix stored by columns: a[m + 16 k], b[n + 8 k], c[m + 16 n]. */
__device__ int place_of_c(int lane, int i) { return lane % 4 * 32 + lane / 4 + i % 2 * 16 + i / 2 * 8; }

__global__ void probe_mma(const int8_t *a, const int8_t *b, int32_t *c)
{
	const int lane = static_cast<int>(threadIdx.x);
	uint32_t ra[4] = {}, rb[2] = {};
	int32_t rc[4];

	for (int i = 0; i < 4; i++)
		for (int q = 0; q < 4; q++) {
			int place = lane % 4 * 64 + lane / 4 + q * 16 + i % 2 * 8 + i / 2 * 256;
			ra[i] |= (static_cast<uint32_t>(a[place]) & 255u) << (8 * q);
		}
	for (int i = 0; i < 2; i++)
		for (int q = 0; q < 4; q++) {
			int place = lane % 4 * 32 + lane / 4 + q * 8 + i * 128;
			rb[i] |= (static_cast<uint32_t>(b[place]) & 255u) << (8 * q);
		}
	for (int i = 0; i < 4; i++)
		rc[i] = c[place_of_c(lane, i)];
	ptx_mma_s8(rc, ra, rb);
	for (int i = 0; i < 4; i++)
		c[place_of_c(lane, i)] = rc[i];
}

void mma_multiplies(void **)
{
	uint32_t random = 9;
	std::vector<int8_t> a(16 * 32), b(8 * 32);
	std::vector<int32_t> c(16 * 8);
	for (int8_t &v : a)
		v = static_cast<int8_t>(next(&random) >> 24);
	for (int8_t &v : b)
		v = static_cast<int8_t>(next(&random) >> 24);
	for (int32_t &v : c)
		v = static_cast<int32_t>(next(&random)) >> 8;

	std::vector<int32_t> expected = c;
	for (size_t m = 0; m < 16; m++)
		for (size_t n = 0; n < 8; n++)
			for (size_t k = 0; k < 32; k++)
				expected[m + 16 * n] += a[m + 16 * k] * b[n + 8 * k];

	emu_test_memory<int8_t> da(a), db(b);
	emu_test_orders([&] {
		emu_test_memory<int32_t> dc(c);
		assert_int_equal(KN_LAUNCH(probe_mma, dim3(1), dim3(32), 0, emu_test_stream(), da.at, db.at, dc.at), 0);
		assert_true(dc.read() == expected);
	});
}

__global__ void probe_mma_bf16(const uint16_t *a, const uint16_t *b, float *c)
{
	const int lane = static_cast<int>(threadIdx.x);
	uint32_t ra[4] = {}, rb[2] = {};
	float rc[4];

	for (int i = 0; i < 4; i++)
		for (int q = 0; q < 2; q++) {
			int place = lane % 4 * 32 + lane / 4 + q * 16 + i % 2 * 8 + i / 2 * 128;
			ra[i] |= static_cast<uint32_t>(a[place]) << (16 * q);
		}
	for (int i = 0; i < 2; i++)
		for (int q = 0; q < 2; q++) {
			int place = lane % 4 * 16 + lane / 4 + q * 8 + i * 64;
			rb[i] |= static_cast<uint32_t>(b[place]) << (16 * q);
		}
	for (int i = 0; i < 4; i++)
		rc[i] = c[place_of_c(lane, i)];
	ptx_mma_bf16(rc, ra, rb);
	for (int i = 0; i < 4; i++)
		c[place_of_c(lane, i)] = rc[i];
}

/* Integers from -255 to 255, whose sums are exact in any order, and others, which are in one. */
void mma_bf16_multiplies(void **)
{
	uint32_t random = 7;
	std::vector<uint16_t> a(16 * 16), b(8 * 16);
	std::vector<float> c(16 * 8), exact, defined;
	for (uint32_t wide = 0; wide < 2; wide++) {
		const auto draw = [&] {
			const float f = static_cast<float>(static_cast<int32_t>(next(&random)) >> 23) *
				(wide ? powf(2, static_cast<float>(next(&random) >> 28)) : 1.0f);
			uint32_t bits;
			memcpy(&bits, &f, sizeof bits);
			return bits;
		};
		for (uint16_t &v : a)
			v = static_cast<uint16_t>(draw() >> 16);
		for (uint16_t &v : b)
			v = static_cast<uint16_t>(draw() >> 16);
		for (float &v : c)
			v = static_cast<float>(static_cast<int32_t>(next(&random)) >> 16);

		exact = defined = c;
		for (size_t m = 0; m < 16; m++)
			for (size_t n = 0; n < 8; n++) {
				uint16_t row[16], column[16];
				for (size_t k = 0; k < 16; k++) {
					row[k] = a[m + 16 * k], column[k] = b[n + 8 * k];
					const uint32_t bits[2] = { static_cast<uint32_t>(row[k]) << 16,
						static_cast<uint32_t>(column[k]) << 16 };
					float x, y;
					memcpy(&x, &bits[0], sizeof x);
					memcpy(&y, &bits[1], sizeof y);
					exact[m + 16 * n] += x * y;
				}
				defined[m + 16 * n] = kn_sm90_add(c[m + 16 * n], row, column);
			}

		emu_test_memory<uint16_t> da(a), db(b);
		emu_test_orders([&] {
			emu_test_memory<float> dc(c);
			assert_int_equal(
				KN_LAUNCH(probe_mma_bf16, dim3(1), dim3(32), 0, emu_test_stream(), da.at, db.at, dc.at),
				0);
			assert_true(dc.read() == defined);
			assert_true((dc.read() == exact) == !wide);
		});
	}
}

/* m[32][8] of 2 bytes: four matrices, one below the other; x2 takes the first two. */
__global__ void probe_ldmatrix(const uint16_t *m, uint32_t *four, uint32_t *two)
{
	uint16_t *shared = kn_shared<uint16_t>();
	const uint32_t lane = threadIdx.x;
	uint32_t r4[4], r2[2];

	for (uint32_t i = 0; i < 8; i++)
		shared[lane * 8 + i] = m[lane * 8 + i];
	__syncwarp();
	ptx_ldmatrix_x4(r4, shared + lane * 8);
	ptx_ldmatrix_x2(r2, shared + lane % 16 * 8);
	for (uint32_t i = 0; i < 4; i++)
		four[lane * 4 + i] = r4[i];
	for (uint32_t i = 0; i < 2; i++)
		two[lane * 2 + i] = r2[i];
}

void ldmatrix_deals_rows(void **)
{
	std::vector<uint16_t> m(32 * 8);
	for (size_t i = 0; i < m.size(); i++)
		m[i] = static_cast<uint16_t>(i);
	emu_test_memory<uint16_t> dm(m);
	emu_test_orders([&] {
		emu_test_memory<uint32_t> d4(128), d2(64);
		assert_int_equal(
			KN_LAUNCH(probe_ldmatrix, dim3(1), dim3(32), 512, emu_test_stream(), dm.at, d4.at, d2.at), 0);
		std::vector<uint32_t> four = d4.read(), two = d2.read();
		for (uint32_t lane = 0; lane < 32; lane++)
			for (uint32_t i = 0; i < 4; i++) {
				/* thread 4 r + c of matrix i has elements 2 c and 2 c + 1 of its
				 * row r */
				uint32_t first = i * 64 + lane / 4 * 8 + lane % 4 * 2;
				assert_int_equal(four[lane * 4 + i], first | (first + 1) << 16);
				if (i < 2)
					assert_int_equal(two[lane * 2 + i], first | (first + 1) << 16);
			}
	});
}

/* Each thread fetches 16 bytes, then 4, of which the last are left out, in two groups. */
__global__ void probe_cp_async(const uint32_t *from, uint32_t *early, uint32_t *late)
{
	uint32_t *shared = kn_shared<uint32_t>();
	const uint32_t thread = threadIdx.x, wide = thread * 4, narrow = 4 * blockDim.x + thread;

	ptx_cp_async_16(shared + wide, from + wide, thread == 1 ? 8 : 16);
	ptx_cp_async_commit();
	ptx_cp_async_4(shared + narrow, from + narrow, thread == 2 ? 0 : 4);
	ptx_cp_async_commit();
	ptx_cp_async_wait<1>();
	for (uint32_t i = 0; i < 4; i++)
		early[wide + i] = shared[wide + i];
	ptx_cp_async_wait<0>();
	late[thread] = shared[narrow];
}

void cp_async_fetches(void **)
{
	enum { THREADS = 64 };
	std::vector<uint32_t> from(THREADS * 5);
	for (size_t i = 0; i < from.size(); i++)
		from[i] = static_cast<uint32_t>(i + 1);
	emu_test_memory<uint32_t> d(from);
	emu_test_orders([&] {
		emu_test_memory<uint32_t> early(THREADS * 4), late(THREADS);
		assert_int_equal(KN_LAUNCH(probe_cp_async, dim3(1), dim3(THREADS), THREADS * 20, emu_test_stream(),
					 d.at, early.at, late.at),
			0);
		std::vector<uint32_t> expected(from.begin(), from.begin() + THREADS * 4),
			expected_late(from.begin() + THREADS * 4, from.end());
		expected[6] = expected[7] = expected_late[2] = 0;
		assert_true(early.read() == expected);
		assert_true(late.read() == expected_late);
	});
}

__global__ void probe_f16(float *values)
{
	const uint32_t bits = blockIdx.x * blockDim.x + threadIdx.x;
	values[bits] = ptx_f32_of_f16(static_cast<uint16_t>(bits));
}

/* All of them, by the fields of the format. */
void f16_is_widened(void **)
{
	enum { COUNT = 1 << 16, THREADS = 256 };
	emu_test_memory<float> d(COUNT);
	assert_int_equal(KN_LAUNCH(probe_f16, dim3(COUNT / THREADS), dim3(THREADS), 0, emu_test_stream(), d.at), 0);
	std::vector<float> values = d.read();
	for (uint32_t bits = 0; bits < COUNT; bits++) {
		const int exponent = bits >> 10 & 31, fraction = bits & 1023;
		const float sign = bits >> 15 ? -1.0f : 1.0f,
			    most = exponent == 0 ? ldexpf(static_cast<float>(fraction), -24)
						 : ldexpf(static_cast<float>(1024 + fraction), exponent - 25);
		if (exponent < 31)
			assert_true(values[bits] == sign * most && signbit(values[bits]) == signbit(sign));
		else
			assert_true(fraction ? isnan(values[bits]) : values[bits] == sign * INFINITY);
	}
}

}   // namespace

int main()
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mma_multiplies),
		cmocka_unit_test(mma_bf16_multiplies),
		cmocka_unit_test(ldmatrix_deals_rows),
		cmocka_unit_test(cp_async_fetches),
		cmocka_unit_test(f16_is_widened),
	};
	return cmocka_run_group_tests_name("ptx", tests, nullptr, nullptr);
}
