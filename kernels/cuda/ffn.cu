/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grouped expert ffn on integers, in four launches: x is quantised; h = act(x gate^T, x up^T); h is
 * quantised; y = h down^T.
 *
 * A block of the GEMM makes a tile: some output columns for some rows of one expert.
 *
 *           rows (gathered)            D[column][row] = A[column][k] B[k][row]: weights are A, 16
 *           B: rows x k                columns to an instruction, and rows are B, 8 of them, so that
 *          ------------------          few rows waste little.
 *   W    |
 *   A    |  D: columns x rows          k advances by whole groups of KN_GROUP, one stage of shared
 *        |                             memory each, fetched ahead.
 *
 * Of each group, the exact dot product d; then acc = fma((float)d, scale_x * scale_w, acc), groups
 * ascending: the CPU's bits, whatever the tile (|d| < 2^24, so (float)d is exact).
 */
#include "kernels/cuda/ffn.h"

namespace
{

enum { CHUNK_BYTES = 16, CHUNKS = KN_GROUP / CHUNK_BYTES, STEPS = KN_GROUP / 32 /* of k, to an instruction */ };

/* What the GEMM reads and writes. q [rows][k_pad], scales [rows][groups]; y [pairs][ldy]. */
struct gemm {
	const kn_cuda_tile *tiles;
	const struct kn_cuda_view *views;
	const int8_t *q;
	const float *scales;
	const uint32_t *row_index; /* [pairs]; NULL: pair p reads row p */
	size_t k_pad, n_pad;
	float *y;
	size_t ldy;
};

/* ---- shared memory ---- */

/* A row of a stage is a group, KN_GROUP bytes; its chunk c lies at c ^ (row % 8), so that ldmatrix
 * reads eight rows from eight different groups of banks. */
template <class S> struct stage {
	int8_t w[S::matrices][S::columns][KN_GROUP], x[S::rows][KN_GROUP];
	float w_scales[S::matrices][S::columns], x_scales[S::rows];
};
template <class S> struct shared {
	union {
		stage<S> stages[S::stages];
		float y[S::rows][S::columns + 4]; /* the tile, on its way out */
	};
	int32_t row[S::rows]; /* -1: no such row in this tile */
};
template <class S> constexpr size_t shared_bytes = sizeof(shared<S>);
static_assert(shared_bytes<kn_up_few> <= 99 * 1024 && shared_bytes<kn_up_many> <= 99 * 1024 &&
		shared_bytes<kn_down_few> <= 99 * 1024 && shared_bytes<kn_down_many> <= 99 * 1024,
	"what every GPU from sm_80 on has");

__device__ __forceinline__ int8_t *chunk_at(int8_t (*rows)[KN_GROUP], int row, int chunk)
{
	return rows[row] + (chunk ^ (row & 7)) * CHUNK_BYTES;
}

/* One group of `count` rows: of row index_of(r) at base + that * pitch; negative: zeros. */
template <class S, class Index>
__device__ __forceinline__ void fetch_rows(
	int8_t (*rows)[KN_GROUP], int count, const int8_t *base, size_t pitch, Index index_of)
{
	for (int i = static_cast<int>(threadIdx.x); i < count * CHUNKS; i += S::threads) {
		const int index = index_of(i / CHUNKS);
		const int8_t *row = base + static_cast<size_t>(index < 0 ? 0 : index) * pitch;
		ptx_cp_async_16(chunk_at(rows, i / CHUNKS, i % CHUNKS), row + i % CHUNKS * CHUNK_BYTES,
			index < 0 ? 0 : CHUNK_BYTES);
	}
}

/* ---- the GEMM ---- */

struct weights {
	const int8_t *q; /* from the tile's first column on */
	const float *scales;
};

template <class S>
__device__ __forceinline__ void fetch_stage(
	stage<S> *s, const gemm &g, const weights (&w)[S::matrices], const int32_t *rows, size_t group)
{
	const size_t k = group * KN_GROUP, groups = g.k_pad / KN_GROUP;
	const int thread = static_cast<int>(threadIdx.x);

	for (int m = 0; m < S::matrices; m++) {
		const float *scales = w[m].scales + group * g.n_pad;
		fetch_rows<S>(s->w[m], S::columns, w[m].q + k, g.k_pad, [](int r) { return r; });
		for (int c = 4 * thread; c < S::columns; c += 4 * S::threads)
			ptx_cp_async_16(&s->w_scales[m][c], scales + c, 16);
	}
	fetch_rows<S>(s->x, S::rows, g.q + k, g.k_pad, [rows](int r) { return rows[r]; });
	for (int r = thread; r < S::rows; r += S::threads) {
		const size_t row = static_cast<size_t>(rows[r] < 0 ? 0 : rows[r]);
		ptx_cp_async_4(&s->x_scales[r], g.scales + row * groups + group, rows[r] < 0 ? 0 : 4);
	}
}

/* The fragments of a step of k: of 16 columns, of two times 8 rows, of 8 rows. */
__device__ __forceinline__ void fragment_a(uint32_t (&a)[4], int8_t (*rows)[KN_GROUP], int first, int step)
{
	const int lane = static_cast<int>(threadIdx.x) % 32;
	ptx_ldmatrix_x4(a, chunk_at(rows, first + lane % 16, 2 * step + lane / 16));
}
__device__ __forceinline__ void fragment_b(
	uint32_t (&b0)[2], uint32_t (&b1)[2], int8_t (*rows)[KN_GROUP], int first, int step)
{
	const int lane = static_cast<int>(threadIdx.x) % 32;
	uint32_t r[4];
	ptx_ldmatrix_x4(r, chunk_at(rows, first + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2));
	b0[0] = r[0], b0[1] = r[1], b1[0] = r[2], b1[1] = r[3];
}
__device__ __forceinline__ void fragment_b(uint32_t (&b)[2], int8_t (*rows)[KN_GROUP], int first, int step)
{
	const int lane = static_cast<int>(threadIdx.x) % 32;
	ptx_ldmatrix_x2(b, chunk_at(rows, first + lane % 8, 2 * step + lane / 8 % 2));
}

/* The column and row of the tile that element i of a warp's piece (a, d) is. */
template <class S> __device__ __forceinline__ int column_of(int a, int i)
{
	const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
	return (warp % S::warps_across * S::across + a) * 16 + lane / 4 + 8 * (i / 2);
}
template <class S> __device__ __forceinline__ int row_of(int d, int i)
{
	const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
	return (warp / S::warps_across * S::down + d) * 8 + lane % 4 * 2 + i % 2;
}

template <class S> using accumulators = float[S::matrices][S::across][S::down][4];

/* One group: 16 columns at a time, so that few integers are live. */
template <class S> __device__ __forceinline__ void multiply(stage<S> *s, accumulators<S> &acc)
{
	const int warp = static_cast<int>(threadIdx.x) / 32, first_column = warp % S::warps_across * S::across * 16,
		  first_row = warp / S::warps_across * S::down * 8;
	uint32_t b[STEPS][S::down][2];

#pragma unroll
	for (int step = 0; step < STEPS; step++)
		if constexpr (S::down == 1)
			fragment_b(b[step][0], s->x, first_row, step);
		else
#pragma unroll
			for (int d = 0; d < S::down; d += 2)
				fragment_b(b[step][d], b[step][d + 1], s->x, first_row + d * 8, step);

#pragma unroll
	for (int m = 0; m < S::matrices; m++)
#pragma unroll
		for (int a = 0; a < S::across; a++) {
			int32_t dot[S::down][4] = {};
#pragma unroll
			for (int step = 0; step < STEPS; step++) {
				uint32_t w[4];
				fragment_a(w, s->w[m], first_column + a * 16, step);
#pragma unroll
				for (int d = 0; d < S::down; d++)
					ptx_mma_s8(dot[d], w, b[step][d]);
			}
#pragma unroll
			for (int d = 0; d < S::down; d++)
#pragma unroll
				for (int i = 0; i < 4; i++) {
					float scale = s->x_scales[row_of<S>(d, i)] * s->w_scales[m][column_of<S>(a, i)];
					acc[m][a][d][i] = fmaf(static_cast<float>(dot[d][i]), scale, acc[m][a][d][i]);
				}
		}
}

/* ---- the way out ---- */

/* An output column of the expert: of h from its gate and up, or of y. */
template <class S>
__device__ __forceinline__ float finish(
	const struct kn_cuda_view &view, const accumulators<S> &acc, size_t column, int a, int d, int i)
{
	float v = acc[0][a][d][i];
	if constexpr (S::matrices == 1)
		return view.down_bias ? v + view.down_bias[column] : v;

	float u = acc[S::matrices - 1][a][d][i];
	if (view.gate_bias) {
		v = v + view.gate_bias[column];
		u = u + view.up_bias[column];
	}
	return kn_cuda_activate(view, v, u);
}

/* Through shared memory, so that stores are 16 bytes wide. */
template <class S>
__device__ __forceinline__ void store(
	shared<S> *s, const gemm &g, const kn_cuda_tile &t, const struct kn_cuda_view &view, const accumulators<S> &acc)
{
	enum { FOURS = S::columns / 4 };
	const size_t first_column = blockIdx.y * static_cast<size_t>(S::columns);

#pragma unroll
	for (int a = 0; a < S::across; a++)
#pragma unroll
		for (int d = 0; d < S::down; d++)
#pragma unroll
			for (int i = 0; i < 4; i++) {
				int column = column_of<S>(a, i);
				s->y[row_of<S>(d, i)][column] =
					finish<S>(view, acc, first_column + static_cast<size_t>(column), a, d, i);
			}
	__syncthreads();
	for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(t.rows) * FOURS; i += S::threads) {
		const int row = i / FOURS, column = i % FOURS * 4;
		float *y =
			g.y + (t.first + static_cast<size_t>(row)) * g.ldy + first_column + static_cast<size_t>(column);
		*reinterpret_cast<float4 *>(y) = *reinterpret_cast<const float4 *>(&s->y[row][column]);
	}
}

/* grid (tiles, n_pad / columns) */
template <class S> __global__ void __launch_bounds__(S::threads) kn_gemm_kernel(gemm g)
{
	shared<S> *s = kn_shared<shared<S>>();
	const kn_cuda_tile t = g.tiles[blockIdx.x];
	const struct kn_cuda_view view = g.views[t.expert];
	const size_t groups = g.k_pad / KN_GROUP, column = blockIdx.y * static_cast<size_t>(S::columns);
	weights w[S::matrices];
	accumulators<S> acc = {};

	if constexpr (S::matrices == 2) {
		w[0] = { view.gate + column * g.k_pad, view.gate_scales + column };
		w[1] = { view.up + column * g.k_pad, view.up_scales + column };
	} else {
		w[0] = { view.down + column * g.k_pad, view.down_scales + column };
	}
	for (uint32_t r = threadIdx.x; r < S::rows; r += S::threads) {
		const size_t pair = t.first + r;
		s->row[r] = r >= t.rows ? -1 : static_cast<int32_t>(g.row_index ? g.row_index[pair] : pair);
	}
	__syncthreads();

	for (size_t i = 0; i < S::stages - 1; i++) {
		if (i < groups)
			fetch_stage<S>(&s->stages[i], g, w, s->row, i);
		ptx_cp_async_commit();
	}
	for (size_t group = 0; group < groups; group++) {
		ptx_cp_async_wait<S::stages - 2>();
		__syncthreads();
		if (group + S::stages - 1 < groups)
			fetch_stage<S>(
				&s->stages[(group + S::stages - 1) % S::stages], g, w, s->row, group + S::stages - 1);
		ptx_cp_async_commit();
		multiply<S>(&s->stages[group % S::stages], acc);
	}
	ptx_cp_async_wait<0>();
	__syncthreads();
	store<S>(s, g, t, view, acc);
}

/* ---- launches ---- */

template <class S> void launch(struct kn_cuda_queue *q, const gemm &g, const kn_cuda_tile *tiles, size_t count)
{
	if (count == 0)
		return;
	gemm of = g;
	of.tiles = tiles;
	kn_cuda_note(q,
		cudaFuncSetAttribute(reinterpret_cast<const void *>(kn_gemm_kernel<S>),
			cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes<S>)));
	kn_cuda_note(q,
		KN_LAUNCH(kn_gemm_kernel<S>,
			dim3(static_cast<unsigned>(count), static_cast<unsigned>(g.n_pad / S::columns)),
			dim3(S::threads), shared_bytes<S>, q->stream, of));
}

static_assert(
	kn_up_few::rows == kn_down_few::rows && kn_up_many::rows == kn_down_many::rows, "up and down share tiles");

}   // namespace

void kn_cuda_ffn_int8(struct kn_cuda_queue *q, const struct kn_ffn *a, const struct kn_cuda_ffn_scratch &s)
{
	enum { ROW_UNIT = 32 }; /* what is read of a row that another operator made */
	const struct kn_cuda_plan p = kn_cuda_plan_make(q, a, kn_up_few::rows, kn_up_many::rows);

	gemm up = {};
	up.views = p.views;
	up.q = s.xq;
	up.scales = s.x_scales;
	up.row_index = a->row_index;
	up.k_pad = s.hidden_pad;
	up.n_pad = s.ldh;
	up.y = s.h;
	up.ldy = s.ldh;
	gemm down = up;
	down.q = s.hq;
	down.scales = s.h_scales;
	down.row_index = nullptr;
	down.k_pad = s.ffn_pad;
	down.n_pad = kn_round_up(a->hidden, KN_COLUMNS_UNIT);
	down.y = a->y;
	down.ldy = a->ldy;

	kn_cuda_quantise(q, a->x, a->ldx, a->rows, kn_round_up(a->hidden, ROW_UNIT), s.xq, s.x_scales, s.hidden_pad);
	launch<kn_up_few>(q, up, p.few, p.few_count);
	launch<kn_up_many>(q, up, p.many, p.many_count);
	kn_cuda_quantise(q, s.h, s.ldh, s.pairs, kn_round_up(s.ffn, ROW_UNIT), s.hq, s.h_scales, s.ffn_pad);
	launch<kn_down_few>(q, down, p.few, p.few_count);
	launch<kn_down_many>(q, down, p.many, p.many_count);
}
