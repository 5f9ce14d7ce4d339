/* SPDX-License-Identifier: Apache-2.0 */
/* Rows from the wire (proto/WIRE.md), of every type. */
#include "kernels/cuda/cuda.h"

namespace
{

/* A row of a message, as kernels find it. */
struct wire_row {
	uint32_t offset, type; /* of the data that go with it */
	float scale;           /* of FIX16 */
};

/* Rows lie at any address. */
__device__ uint32_t load_u16(const uint8_t *at) { return at[0] | static_cast<uint32_t>(at[1]) << 8; }
__device__ float load_f32(const uint8_t *at) { return __uint_as_float(load_u16(at) | load_u16(at + 2) << 16); }

__device__ float element(const wire_row &row, const uint8_t *data, size_t n, size_t i)
{
	switch (row.type) {
	case CADRE_ROW_FIX16: return static_cast<float>(static_cast<int16_t>(load_u16(data + 2 * i))) * row.scale;
	case CADRE_ROW_BF16: return __uint_as_float(load_u16(data + 2 * i) << 16);
	case CADRE_ROW_Q8: {
		const size_t groups = (n + CADRE_ROW_GROUP - 1) / CADRE_ROW_GROUP;
		const int8_t q = static_cast<int8_t>(data[groups * sizeof(float) + i]);
		return static_cast<float>(q) * load_f32(data + i / CADRE_ROW_GROUP * sizeof(float));
	}
	default: return load_f32(data + 4 * i);
	}
}

/* A block makes a row, with the zeros after it. */
__global__ void __launch_bounds__(KN_ROW_THREADS) kn_rows_unpack_kernel(
	const wire_row *rows, const uint8_t *__restrict__ data, size_t n, float *__restrict__ x, size_t ldx)
{
	const wire_row row = rows[blockIdx.x];
	const size_t padded = (n + 63) / 64 * 64;
	for (size_t i = threadIdx.x; i < padded; i += KN_ROW_THREADS)
		x[blockIdx.x * ldx + i] = i < n ? element(row, data + row.offset, n, i) : 0.0f;
}

/* Rows first .. first + rows - 1, whose data are `bytes` at `data`. */
void unpack(struct kn_cuda_queue *q, const struct kn_rows_unpack *a, size_t first, size_t rows, const uint8_t *data,
	size_t bytes)
{
	wire_row *taken = static_cast<wire_row *>(kn_cuda_take(q, rows * sizeof *taken));
	uint32_t offset = 0;

	for (size_t r = 0; r < rows; r++) {
		const struct cadre_wire_row *head = &a->heads[first + r];
		taken[r] = { offset, head->type, ldexpf(1.0f, head->exponent) };
		offset += static_cast<uint32_t>(cadre_row_bytes(head->type, a->n));
	}
	const uint8_t *brought = static_cast<const uint8_t *>(kn_cuda_bring(q, data, bytes));
	kn_cuda_note(q,
		KN_LAUNCH(kn_rows_unpack_kernel, dim3(static_cast<unsigned>(rows)), dim3(KN_ROW_THREADS), 0, q->stream,
			static_cast<const wire_row *>(kn_cuda_mirror(q, taken)), brought, a->n, a->x + first * a->ldx,
			a->ldx));
}

}   // namespace

cudaError_t kn_cuda_code_found()
{
	cudaFuncAttributes attributes;
	return cudaFuncGetAttributes(&attributes, kn_rows_unpack_kernel);
}

/* As many rows at once as a quarter of the window holds. */
void kn_cuda_rows_unpack(struct kn_queue *queue, const struct kn_rows_unpack *a)
{
	enum { PART_BYTES = KN_WINDOW_BYTES / 4 };
	struct kn_cuda_queue *q = kn_cuda_queue_of(queue);
	const uint8_t *data = a->data;

	for (size_t first = 0, rows; first < a->rows; first += rows) {
		size_t bytes = 0, staged = 128;
		for (rows = 0; first + rows < a->rows; rows++) {
			size_t row = cadre_row_bytes(a->heads[first + rows].type, a->n);
			if (rows > 0 && staged + row + sizeof(wire_row) > PART_BYTES)
				break;
			bytes += row;
			staged += row + sizeof(wire_row);
		}
		kn_cuda_reserve(q, staged);
		unpack(q, a, first, rows, data, bytes);
		data += bytes;
	}
}
