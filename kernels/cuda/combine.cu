/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums for the wire (kernels.h, struct kn_combine_pack): each row in the narrowest width that holds
 * it. A block makes a row: it goes straight to memory of the host, 16 bytes at a time, and nothing
 * but what the answer has.
 */
#include "kernels/cuda/cuda.h"

namespace
{

enum { WARPS = KN_ROW_THREADS / 32, CHUNK_BYTES = 16, PART = 2048 /* sums that are packed at once */ };
enum : uint32_t { NONE = UINT32_MAX };

struct packing {
	const int64_t *sums;    /* [rows][n] */
	const uint32_t *poison; /* [rows] */
	size_t n;
	/* results, memory of the host: the data of a row at data + row * stride */
	struct cadre_wire_sum *heads;
	uint8_t *data;
	size_t stride;
};

struct alignas(CHUNK_BYTES) chunk {
	uint32_t words[CHUNK_BYTES / sizeof(uint32_t)];
};

struct shared {
	chunk chunks[PART * sizeof(int64_t) / CHUNK_BYTES];
	uint32_t high[WARPS], low[WARPS];
};

/* As many bits below the sign as the block's values need, of all threads. */
__device__ uint64_t reduce(shared *s, uint64_t most)
{
	const uint32_t warp = threadIdx.x / 32, high = __reduce_or_sync(~0u, static_cast<uint32_t>(most >> 32)),
		       low = __reduce_or_sync(~0u, static_cast<uint32_t>(most));
	if (threadIdx.x % 32 == 0) {
		s->high[warp] = high;
		s->low[warp] = low;
	}
	__syncthreads();
	most = 0;
	for (uint32_t w = 0; w < WARPS; w++)
		most |= static_cast<uint64_t>(s->high[w]) << 32 | s->low[w];
	return most;
}

__device__ uint8_t width_of(shared *s, const int64_t *sums, size_t n)
{
	uint64_t most = 0;
	for (size_t i = threadIdx.x; i < n; i += KN_ROW_THREADS)
		most |= static_cast<uint64_t>(sums[i] ^ sums[i] >> 63);
	most = reduce(s, most);
	return most < 1u << 15 ? 2 : most < 1u << 23 ? 3 : most < 1ull << 31 ? 4 : 8;
}

__device__ void put(uint8_t *data, size_t i, int64_t sum, uint8_t width)
{
	switch (width) {
	case 2: reinterpret_cast<int16_t *>(data)[i] = static_cast<int16_t>(sum); break;
	case 4: reinterpret_cast<int32_t *>(data)[i] = static_cast<int32_t>(sum); break;
	case 8: reinterpret_cast<int64_t *>(data)[i] = sum; break;
	default:
		for (size_t b = 0; b < 3; b++)
			data[3 * i + b] = static_cast<uint8_t>(sum >> (8 * b));
	}
}

/* At most PART sums; the last chunk ends with zeros. */
__device__ void pack(shared *s, const int64_t *sums, size_t count, uint8_t width, chunk *out)
{
	for (size_t i = threadIdx.x; i < kn_round_up(count, CHUNK_BYTES); i += KN_ROW_THREADS)
		put(reinterpret_cast<uint8_t *>(s->chunks), i, i < count ? sums[i] : 0, width);
	__syncthreads();
	for (size_t i = threadIdx.x; i * CHUNK_BYTES < count * width; i += KN_ROW_THREADS)
		out[i] = s->chunks[i];
	__syncthreads();
}

__global__ void __launch_bounds__(KN_ROW_THREADS) kn_combine_kernel(packing p)
{
	shared *s = kn_shared<shared>();
	const size_t row = blockIdx.x;
	const int64_t *sums = p.sums + row * p.n;
	const uint32_t poison = p.poison[row];
	const uint8_t width = poison == NONE ? width_of(s, sums, p.n) : 0;

	if (threadIdx.x == 0) {
		struct cadre_wire_sum head = {};
		head.expert = poison == NONE ? 0 : poison; /* the pair: deliver knows its expert */
		head.width = width;
		head.poisoned = poison != NONE;
		p.heads[row] = head;
	}
	for (size_t first = 0; width > 0 && first < p.n; first += PART)
		pack(s, sums + first, p.n - first < PART ? p.n - first : size_t{ PART }, width,
			reinterpret_cast<chunk *>(p.data + row * p.stride + first * width));
}

/* Rows first .. first + rows - 1. */
void pack_rows(struct kn_cuda_queue *q, const struct kn_combine_pack *a, size_t first, size_t rows, size_t stride)
{
	packing p = {};
	p.sums = a->sums + first * a->n;
	p.poison = a->poison + first;
	p.n = a->n;
	p.heads = static_cast<struct cadre_wire_sum *>(kn_cuda_take(q, rows * sizeof *p.heads));
	p.data = static_cast<uint8_t *>(kn_cuda_take(q, rows * stride));
	p.stride = stride;
	kn_cuda_note(q,
		KN_LAUNCH(kn_combine_kernel, dim3(static_cast<unsigned>(rows)), dim3(KN_ROW_THREADS), sizeof(shared),
			q->stream, p));
	const struct kn_cuda_delivery delivery = { p.heads, p.data, stride, rows, a->n, a->heads + first, a->data,
		a->data_bytes, a->pair_expert, first == 0 };
	kn_cuda_deliver(q, &delivery);
}

}   // namespace

/* As many rows at once as a quarter of the window holds. */
void kn_cuda_combine_pack(struct kn_queue *queue, const struct kn_combine_pack *a)
{
	enum { PART_BYTES = KN_WINDOW_BYTES / 4 };
	struct kn_cuda_queue *q = kn_cuda_queue_of(queue);
	const size_t stride = kn_round_up(a->n * sizeof(int64_t), CHUNK_BYTES),
		     row_bytes = sizeof(struct cadre_wire_sum) + stride,
		     most = row_bytes < PART_BYTES ? PART_BYTES / row_bytes : 1;

	*a->data_bytes = 0;
	for (size_t first = 0, rows; first < a->rows; first += rows) {
		rows = a->rows - first < most ? a->rows - first : most;
		kn_cuda_reserve(q, rows * row_bytes + 2 * 64);
		pack_rows(q, a, first, rows, stride);
	}
}
