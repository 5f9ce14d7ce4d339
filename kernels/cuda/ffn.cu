/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grouped expert ffn on integers, in four launches: x is quantised; h = act(x gate^T, x up^T); h is
 * quantised; y = h down^T.
 *
 * A block of the GEMM makes a tile: some panels of weights (pack.h) for some rows of one expert.
 *
 *           rows (gathered)            D[weight][row] = A[weight][k] B[k][row]: weights are A, 16
 *           B: rows x k                to an instruction, and rows are B, 8 of them, so that few
 *          ------------------          rows waste little.
 *   W    |
 *   A    |  D: weights x rows          k advances by whole groups of KN_GROUP, a block of each
 *        |                             panel, one stage of shared memory each, fetched ahead.
 *
 * Of each group, the exact dot product d; then acc = fma((float)d, scale_x * scale_w, acc), groups
 * ascending: the CPU's bits, whatever the tile (|d| < 2^24, so (float)d is exact), and whatever multiplies
 * (units).
 */
#include "kernels/cuda/mma_tile.h"

namespace
{

enum {
	CHUNK_BYTES = 16,
	CHUNKS = KN_GROUP / CHUNK_BYTES,
	BLOCK_CHUNKS = sizeof(struct kn_int8_block) / CHUNK_BYTES,
	STEPS = KN_GROUP / 32, /* of k, to an instruction */
};

/* What the GEMM reads and writes. q [rows][groups * KN_GROUP], scales [rows][groups]. */
struct gemm {
	const kn_cuda_tile *tiles;
	const struct kn_cuda_view *views;
	const int8_t *q;
	const float *scales;
	const uint32_t *row_index;          /* [pairs]; NULL: pair p reads row p */
	size_t groups, panels, block_bytes; /* of a block: int4 has its sub-scales at the end */
	kn_cuda_out out;
};

/* ---- shared memory ---- */

/* Weights as they are packed, and rows in the same order of chunks: ldmatrix reads eight rows from
 * eight different groups of banks. */
template <class S> struct stage {
	struct kn_int8_block w[S::panels];
	int8_t x[S::rows * KN_GROUP];
	float x_scales[S::rows];
};
template <class S> struct shared {
	union {
		stage<S> stages[S::stages];
		float y[S::rows][S::panels * KN_PANEL_ROWS + 4]; /* the tile, on its way out */
	};
	int32_t row[S::rows]; /* -1: no such row in this tile */
};
template <class S> constexpr size_t shared_bytes = sizeof(shared<S>);
static_assert(shared_bytes<kn_up_few> <= 99 * 1024 && shared_bytes<kn_up_many> <= 99 * 1024 &&
		shared_bytes<kn_down_few> <= 99 * 1024 && shared_bytes<kn_down_many> <= 99 * 1024,
	"what every GPU from sm_80 on has");

/* ---- the GEMM ---- */

/* In place of a panel that there is not, the tile's first: nobody reads what that gives. */
template <class S>
__device__ __forceinline__ void fetch_stage(
	stage<S> *s, const gemm &g, const char *w, int panels, const int32_t *rows, size_t group)
{
	const int thread = static_cast<int>(threadIdx.x);

#pragma unroll
	for (int p = 0; p < S::panels; p++) {
		const char *from = w + (static_cast<size_t>(p < panels ? p : 0) * g.groups + group) * g.block_bytes;
		for (int i = thread; i < BLOCK_CHUNKS; i += S::threads)
			ptx_cp_async_16(reinterpret_cast<char *>(&s->w[p]) + i * CHUNK_BYTES, from + i * CHUNK_BYTES,
				CHUNK_BYTES);
	}
	for (int i = thread; i < S::rows * CHUNKS; i += S::threads) {
		const int r = i / CHUNKS, k = i % CHUNKS * CHUNK_BYTES;
		const size_t row = static_cast<size_t>(rows[r] < 0 ? 0 : rows[r]);
		ptx_cp_async_16(s->x + kn_int8_at(S::rows, r, k),
			g.q + (row * g.groups + group) * KN_GROUP + static_cast<size_t>(k),
			rows[r] < 0 ? 0 : CHUNK_BYTES);
	}
	for (int r = thread; r < S::rows; r += S::threads) {
		const size_t row = static_cast<size_t>(rows[r] < 0 ? 0 : rows[r]);
		ptx_cp_async_4(&s->x_scales[r], g.scales + row * g.groups + group, rows[r] < 0 ? 0 : 4);
	}
}

/* The fragments of a step of k: of 16 weights, of two times 8 rows, of 8 rows. */
__device__ __forceinline__ void fragment_a(uint32_t (&a)[4], const int8_t *w, int first, int step)
{
	const int lane = static_cast<int>(threadIdx.x) % 32;
	ptx_ldmatrix_x4(a, w + kn_int8_at(KN_PANEL_ROWS, first + lane % 16, 32 * step + lane / 16 * CHUNK_BYTES));
}
template <int ROWS>
__device__ __forceinline__ void fragment_b(uint32_t (&b0)[2], uint32_t (&b1)[2], const int8_t *x, int first, int step)
{
	const int lane = static_cast<int>(threadIdx.x) % 32;
	uint32_t r[4];
	ptx_ldmatrix_x4(
		r, x + kn_int8_at(ROWS, first + lane % 8 + lane / 16 * 8, 32 * step + lane / 8 % 2 * CHUNK_BYTES));
	b0[0] = r[0], b0[1] = r[1], b1[0] = r[2], b1[1] = r[3];
}
template <int ROWS> __device__ __forceinline__ void fragment_b(uint32_t (&b)[2], const int8_t *x, int first, int step)
{
	const int lane = static_cast<int>(threadIdx.x) % 32;
	ptx_ldmatrix_x2(b, x + kn_int8_at(ROWS, first + lane % 8, 32 * step + lane / 8 % 2 * CHUNK_BYTES));
}

/* ---- units ---- */

/* What multiplies integers, a step of 32 values of k at a time: units for integers ... */
struct integer_units {
	typedef int32_t sum;
	static __device__ __forceinline__ void step(sum (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
	{
		ptx_mma_s8(d, a, b);
	}
};

/* Two bytes as bf16, which has all integers of 8 bits. */
__device__ __forceinline__ uint32_t two_bf16(uint32_t bytes)
{
	const float low = static_cast<int8_t>(bytes), high = static_cast<int8_t>(bytes >> 8);
	return (__float_as_uint(high) & 0xffff0000) | __float_as_uint(low) >> 16;
}

/* ... or, where those are slow, units for bf16, whose sums of a group are exact (probe_bf16.cu). Of
 * each word one instruction has the lower half, and one the upper: so values meet as they should, in
 * another order of k, which is free. */
struct bf16_units {
	typedef float sum;
	static __device__ __forceinline__ void half_step(
		sum (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int shift)
	{
		const uint32_t a16[4] = { two_bf16(a[0] >> shift), two_bf16(a[1] >> shift), two_bf16(a[2] >> shift),
			two_bf16(a[3] >> shift) },
			       b16[2] = { two_bf16(b[0] >> shift), two_bf16(b[1] >> shift) };
		ptx_mma_bf16(d, a16, b16);
	}
	static __device__ __forceinline__ void step(sum (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
	{
		half_step(d, a, b, 0);
		half_step(d, a, b, 16);
	}
};

/* One group: 16 weights at a time, so that few integers are live. */
template <class S, class U> __device__ __forceinline__ void multiply(const stage<S> *s, kn_mma_accumulators<S> &acc)
{
	const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32,
		  first_row = warp / S::warps_across * S::down * 8;
	uint32_t b[STEPS][S::down][2];

#pragma unroll
	for (int step = 0; step < STEPS; step++)
		if constexpr (S::down == 1)
			fragment_b<S::rows>(b[step][0], s->x, first_row, step);
		else
#pragma unroll
			for (int d = 0; d < S::down; d += 2)
				fragment_b<S::rows>(b[step][d], b[step][d + 1], s->x, first_row + d * 8, step);

#pragma unroll
	for (int a = 0; a < S::across; a++) {
		const struct kn_int8_block *w = &s->w[kn_mma_weight<S>(a) / KN_PANEL_ROWS];
		const int first = kn_mma_weight<S>(a) % KN_PANEL_ROWS;
		typename U::sum dot[S::down][4] = {};
#pragma unroll
		for (int step = 0; step < STEPS; step++) {
			uint32_t fragment[4];
			fragment_a(fragment, w->q, first, step);
#pragma unroll
			for (int d = 0; d < S::down; d++)
				U::step(dot[d], fragment, b[step][d]);
		}
#pragma unroll
		for (int d = 0; d < S::down; d++)
#pragma unroll
			for (int i = 0; i < 4; i++) {
				float scale =
					s->x_scales[kn_mma_row<S>(d, i)] * w->scales[first + lane / 4 + 8 * (i / 2)];
				acc[a][d][i] = fmaf(static_cast<float>(dot[d][i]), scale, acc[a][d][i]);
			}
	}
}

/* ---- the way out ---- */

template <class S, bool UP>
__device__ __forceinline__ void store(shared<S> *s, const gemm &g, const kn_cuda_tile &t,
	const struct kn_cuda_view &view, const kn_mma_accumulators<S> &acc)
{
	constexpr int COLUMNS = S::panels * kn_mma_outputs<UP>::columns;
	const size_t first_column = blockIdx.y * static_cast<size_t>(COLUMNS);

	kn_mma_spread<S, UP>(s->y, view, acc, t, g.out.weight, first_column);
	if (UP || g.out.y)
		kn_cuda_store_tile<S::threads, COLUMNS>(g.out, s->y, t.first, t.rows, first_column);
	else
		kn_cuda_add_tile<S::threads, COLUMNS>(g.out, s->y, t.first, t.rows, first_column);
}

/* grid (tiles, panels / S::panels) */
template <class S, bool UP, class U> __global__ void __launch_bounds__(S::threads) kn_gemm_kernel(gemm g)
{
	shared<S> *s = kn_shared<shared<S>>();
	const kn_cuda_tile t = g.tiles[blockIdx.x];
	const struct kn_cuda_view view = g.views[t.expert];
	const size_t panel = blockIdx.y * static_cast<size_t>(S::panels);
	const char *w = static_cast<const char *>(UP ? view.up : view.down) + panel * g.groups * g.block_bytes;
	const int panels = static_cast<int>(g.panels - panel < S::panels ? g.panels - panel : S::panels);
	kn_mma_accumulators<S> acc = {};

	kn_cuda_tile_rows<S>(s->row, t, g.row_index);
	kn_cuda_each_stage<S>(
		s->stages, g.groups,
		[&](stage<S> *to, size_t group) { fetch_stage<S>(to, g, w, panels, s->row, group); },
		[&](const stage<S> *from) { multiply<S, U>(from, acc); });
	__syncthreads();
	store<S, UP>(s, g, t, view, acc);
}

/* ---- launches ---- */

template <class S, bool UP, class U>
void launch_on(struct kn_cuda_queue *q, const gemm &g, const kn_cuda_tile *tiles, size_t count)
{
	if (count == 0)
		return;
	gemm of = g;
	of.tiles = tiles;
	KN_LAUNCH_SHARED(q, (kn_gemm_kernel<S, UP, U>),
		dim3(static_cast<unsigned>(count), static_cast<unsigned>((g.panels + S::panels - 1) / S::panels)),
		dim3(S::threads), shared_bytes<S>, of);
}

/* AS_BF16: the shape where integers are multiplied as bf16. */
template <class S, bool UP, class AS_BF16 = S>
void launch(struct kn_cuda_queue *q, const gemm &g, const kn_cuda_tile *tiles, size_t count)
{
	if (kn_cuda_device_of(q->base.device)->chip.int8_as_bf16)
		launch_on<AS_BF16, UP, bf16_units>(q, g, tiles, count);
	else
		launch_on<S, UP, integer_units>(q, g, tiles, count);
}

static_assert(kn_down_few::panels == 1 && kn_down_many::panels == 1, "y ends where its last panel ends");
static_assert(kn_up_few::rows == kn_up_few_as_bf16::rows && kn_up_few::rows == kn_down_few::rows &&
		kn_up_many::rows == kn_down_many::rows,
	"up and down share tiles");

}   // namespace

void kn_cuda_ffn_int8(struct kn_cuda_queue *q, const struct kn_ffn *a, const struct kn_cuda_layout &like,
	const struct kn_cuda_ffn_scratch &s)
{
	const struct kn_cuda_area &up_area = like.areas[KN_AREA_UP], &down_area = like.areas[KN_AREA_DOWN];
	const struct kn_cuda_plan p = kn_cuda_plan_make(q, a, like, kn_up_few::rows, kn_up_many::rows);

	gemm up = {};
	up.views = p.views;
	up.q = s.xq;
	up.scales = s.x_scales;
	up.row_index = a->row_index;
	up.groups = up_area.blocks;
	up.panels = kn_cuda_panels(up_area);
	up.block_bytes = up_area.piece_bytes;
	up.out.y = s.h;
	up.out.ldy = s.ldh;
	up.out.weight = a->weight;
	gemm down = up;
	down.q = s.hq;
	down.scales = s.h_scales;
	down.row_index = nullptr;
	down.groups = down_area.blocks;
	down.panels = kn_cuda_panels(down_area);
	down.out = kn_cuda_out_of(a, like);

	kn_cuda_quantise(q, a->x, a->ldx, a->rows, kn_round_up(a->hidden, KN_ROW_UNIT), s.xq, s.x_scales, s.hidden_pad);
	launch<kn_up_few, true, kn_up_few_as_bf16>(q, up, p.few, p.few_count);
	launch<kn_up_many, true>(q, up, p.many, p.many_count);
	kn_cuda_quantise(q, s.h, s.ldh, s.pairs, kn_round_up(s.ffn, KN_ROW_UNIT), s.hq, s.h_scales, s.ffn_pad);
	launch<kn_down_few, false>(q, down, p.few, p.few_count);
	launch<kn_down_many, false>(q, down, p.many, p.many_count);
}
