/* SPDX-License-Identifier: Apache-2.0 */
/* The exact combine (kernels.h, struct kn_combine_pack): integer sums of weighted outputs, each row
 * in the narrowest width that holds it. */
#include "kernels/cuda/cuda.h"

namespace
{

enum { WARPS = KN_ROW_THREADS / 32, NONE = -1 };

/* Of a row, in the order in which they are summed. */
struct pair {
	uint32_t index, expert;
	float weight;
};

struct combine {
	const float *y;
	size_t ldy, n;
	const pair *pairs;
	const uint32_t *begin; /* [rows + 1]: of a row's pairs */
	double inverse;        /* 1 / quantum */
	int64_t *sums;         /* [rows][n] */
	/* results, memory of the host: the data of a row at data + row * 8 n */
	struct cadre_wire_sum *heads;
	uint8_t *data;
};

struct shared {
	uint32_t poison[WARPS], high[WARPS], low[WARPS];
};

/* Adds the row's pairs to element i. The lowest pair that has no integer there goes to *poison. */
__device__ int64_t sum_element(const combine &c, uint32_t begin, uint32_t end, size_t i, uint32_t *poison)
{
	int64_t sum = 0;
	for (uint32_t p = begin; p < end; p++) {
		const float y = c.y[c.pairs[p].index * c.ldy + i];
		/* 48 bits, then a power of two: exact until rint */
		const double q = rint(static_cast<double>(c.pairs[p].weight) * static_cast<double>(y) * c.inverse);
		if (fabs(q) < 0x1p53)
			sum += static_cast<int64_t>(q);
		else if (c.pairs[p].index < *poison) /* NaN too */
			*poison = c.pairs[p].index;
	}
	return sum;
}

__device__ uint8_t width_of(uint64_t most)
{
	return most < 1u << 15 ? 2 : most < 1u << 23 ? 3 : most < 1ull << 31 ? 4 : 8;
}

/* Over the block; every thread gets it. */
__device__ void reduce(shared *s, uint32_t *poison, uint64_t *most)
{
	const uint32_t warp = threadIdx.x / 32, high = __reduce_or_sync(~0u, static_cast<uint32_t>(*most >> 32)),
		       low = __reduce_or_sync(~0u, static_cast<uint32_t>(*most));
	*poison = __reduce_min_sync(~0u, *poison);
	if (threadIdx.x % 32 == 0) {
		s->poison[warp] = *poison;
		s->high[warp] = high;
		s->low[warp] = low;
	}
	__syncthreads();
	for (uint32_t w = 0; w < WARPS; w++) {
		*poison = s->poison[w] < *poison ? s->poison[w] : *poison;
		*most |= static_cast<uint64_t>(s->high[w]) << 32 | s->low[w];
	}
}

__device__ uint32_t expert_of(const combine &c, uint32_t begin, uint32_t end, uint32_t index)
{
	for (uint32_t p = begin; p < end; p++)
		if (c.pairs[p].index == index)
			return c.pairs[p].expert;
	return 0;
}

/* A block makes a row; a thread reads back only the sums that it wrote. */
__global__ void __launch_bounds__(KN_ROW_THREADS) kn_combine_kernel(combine c)
{
	const uint32_t row = blockIdx.x, begin = c.begin[row], end = c.begin[row + 1];
	int64_t *sums = c.sums + row * c.n;
	uint32_t poison = static_cast<uint32_t>(NONE);
	uint64_t most = 0;

	for (size_t i = threadIdx.x; i < c.n; i += KN_ROW_THREADS) {
		sums[i] = sum_element(c, begin, end, i, &poison);
		/* as many bits below the sign as the value needs */
		most |= static_cast<uint64_t>(sums[i] ^ sums[i] >> 63);
	}
	reduce(kn_shared<shared>(), &poison, &most);

	const bool poisoned = poison != static_cast<uint32_t>(NONE);
	const uint8_t width = poisoned ? 0 : width_of(most);
	if (threadIdx.x == 0) {
		struct cadre_wire_sum head = {};
		head.expert = poisoned ? expert_of(c, begin, end, poison) : 0;
		head.width = width;
		head.poisoned = poisoned;
		c.heads[row] = head;
	}
	uint8_t *data = c.data + row * c.n * sizeof(int64_t);
	for (size_t i = threadIdx.x; i < c.n; i += KN_ROW_THREADS)
		for (uint8_t b = 0; b < width; b++)
			data[i * width + b] = static_cast<uint8_t>(sums[i] >> (8 * b));
}

/* The pairs of these rows, one row after another; *pairs: how many. */
const pair *take_pairs(
	struct kn_cuda_queue *q, const struct kn_combine_pack *a, size_t first, size_t rows, const uint32_t **begin)
{
	const uint32_t from = a->pair_begin[first], count = a->pair_begin[first + rows] - from;
	pair *pairs = static_cast<pair *>(kn_cuda_take(q, count * sizeof *pairs));
	uint32_t *begins = static_cast<uint32_t *>(kn_cuda_take(q, (rows + 1) * sizeof *begins));

	for (uint32_t i = 0; i < count; i++) {
		const uint32_t p = a->pair_index[from + i];
		pairs[i] = { p, a->pair_expert[p], a->pair_weight[p] };
	}
	for (size_t r = 0; r <= rows; r++)
		begins[r] = a->pair_begin[first + r] - from;
	*begin = static_cast<const uint32_t *>(kn_cuda_mirror(q, begins));
	return static_cast<const pair *>(kn_cuda_mirror(q, pairs));
}

/* What rows first .. first + rows - 1 take of the window. */
size_t window_bytes(const struct kn_combine_pack *a, size_t first, size_t rows)
{
	return (a->pair_begin[first + rows] - a->pair_begin[first]) * sizeof(pair) + (rows + 1) * sizeof(uint32_t) +
		rows * (sizeof(struct cadre_wire_sum) + a->n * sizeof(int64_t)) + 4 * 64;
}

void combine_rows(struct kn_cuda_queue *q, const struct kn_combine_pack *a, size_t first, size_t rows)
{
	combine c = {};
	c.y = a->y;
	c.ldy = a->ldy;
	c.n = a->n;
	c.pairs = take_pairs(q, a, first, rows, &c.begin);
	c.inverse = 1.0 / static_cast<double>(a->quantum);
	c.sums = a->scratch + first * a->n;
	kn_cuda_send(q);
	c.heads = static_cast<struct cadre_wire_sum *>(kn_cuda_take(q, rows * sizeof *c.heads));
	c.data = static_cast<uint8_t *>(kn_cuda_take(q, rows * a->n * sizeof(int64_t)));
	kn_cuda_note(q,
		KN_LAUNCH(kn_combine_kernel, dim3(static_cast<unsigned>(rows)), dim3(KN_ROW_THREADS), sizeof(shared),
			q->stream, c));
	const struct kn_cuda_delivery delivery = { c.heads, c.data, a->n * sizeof(int64_t), rows, a->n,
		a->heads + first, a->data, a->data_bytes, first == 0 };
	kn_cuda_deliver(q, &delivery);
}

}   // namespace

/* As many rows at once as a quarter of the window holds. */
void kn_cuda_combine_pack(struct kn_queue *queue, const struct kn_combine_pack *a)
{
	enum { PART_BYTES = KN_WINDOW_BYTES / 4 };
	struct kn_cuda_queue *q = kn_cuda_queue_of(queue);

	CAD_ASSERT(a->quantum > 0.0f);
	*a->data_bytes = 0;
	for (size_t first = 0, rows; first < a->rows; first += rows) {
		for (rows = 1; first + rows < a->rows && window_bytes(a, first, rows + 1) <= PART_BYTES;)
			rows++;
		kn_cuda_reserve(q, window_bytes(a, first, rows));
		combine_rows(q, a, first, rows);
	}
}
