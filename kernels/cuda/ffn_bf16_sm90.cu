/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grouped expert ffn in profile bf16-sm90, in three launches: x is rounded to bf16; h = act(x gate^T,
 * x up^T), rounded as it goes out; y = h down^T. Tiles and their shared memory are as in ffn.cu.
 *
 * The tensor core adds 16 products to an accumulator at a time, which is the profile's step: k goes
 * in ascending order into the same accumulator, whatever the tile, and so a row's bits are its own.
 */
#include "kernels/cuda/mma_tile.h"
#include "kernels/sm90.h"

namespace
{

enum {
	CHUNK = 8, /* values that are copied at once */
	CHUNK_BYTES = 16,
	CHUNKS = KN_BF16_STEP / CHUNK,
	BLOCK_CHUNKS = sizeof(struct kn_bf16_block) / CHUNK_BYTES,
	STEPS = KN_BF16_STEP / KN_SM90_BLOCK,
};

/* What the GEMM reads and writes. x [rows][ldx], of which values past k are zero, k a multiple of
 * CHUNK; out [pairs][ldo], bf16 of h and f32 of y. */
struct gemm {
	const kn_cuda_tile *tiles;
	const struct kn_cuda_view *views;
	const uint16_t *x;
	const uint32_t *row_index; /* [pairs]; NULL: pair p reads row p */
	size_t k, ldx, blocks, panels;
	/* up's outputs, and down's */
	uint16_t *h;
	size_t ldh;
	kn_cuda_out out;
};

/* ---- shared memory ---- */

template <class S> struct stage {
	struct kn_bf16_block w[S::panels];
	uint16_t x[S::rows * KN_BF16_STEP];
};
template <class S> struct shared {
	union {
		stage<S> stages[S::stages];
		float y[S::rows][S::panels * KN_PANEL_ROWS + 4]; /* the tile, on its way out */
	};
	int32_t row[S::rows]; /* -1: no such row in this tile */
};
template <class S> constexpr size_t shared_bytes = sizeof(shared<S>);
static_assert(shared_bytes<kn_bf16_few> <= 113 * 1024 && shared_bytes<kn_bf16_up_many> <= 113 * 1024 &&
		shared_bytes<kn_bf16_down_many> <= 113 * 1024,
	"two blocks to a multiprocessor");

/* ---- the GEMM ---- */

/* A panel, a row and values that there are not: no bytes are read of them, and they are zero. */
template <class S>
__device__ __forceinline__ void fetch_stage(
	stage<S> *s, const gemm &g, const struct kn_bf16_block *w, int panels, const int32_t *rows, size_t block)
{
	const int thread = static_cast<int>(threadIdx.x);

#pragma unroll
	for (int p = 0; p < S::panels; p++) {
		const uint16_t *from = w[static_cast<size_t>(p < panels ? p : 0) * g.blocks + block].w;
		for (int i = thread; i < BLOCK_CHUNKS; i += S::threads)
			ptx_cp_async_16(s->w[p].w + i * CHUNK, from + i * CHUNK, p < panels ? CHUNK_BYTES : 0);
	}
	for (int i = thread; i < S::rows * CHUNKS; i += S::threads) {
		const int r = i / CHUNKS, at = i % CHUNKS * CHUNK;
		const size_t k = block * KN_BF16_STEP + static_cast<size_t>(at);
		const bool there = rows[r] >= 0 && k < g.k;
		ptx_cp_async_16(s->x + kn_bf16_at(r, at), there ? g.x + static_cast<size_t>(rows[r]) * g.ldx + k : g.x,
			there ? CHUNK_BYTES : 0);
	}
}

/* The fragments of a step of k: of 16 weights, of two times 8 rows, of 8 rows. */
__device__ __forceinline__ void fragment_a(uint32_t (&a)[4], const uint16_t *w, int first, int step)
{
	const int lane = static_cast<int>(threadIdx.x) % 32;
	ptx_ldmatrix_x4(a, w + kn_bf16_at(first + lane % 16, KN_SM90_BLOCK * step + lane / 16 * CHUNK));
}
__device__ __forceinline__ void fragment_b(uint32_t (&b0)[2], uint32_t (&b1)[2], const uint16_t *x, int first, int step)
{
	const int lane = static_cast<int>(threadIdx.x) % 32;
	uint32_t r[4];
	ptx_ldmatrix_x4(
		r, x + kn_bf16_at(first + lane % 8 + lane / 16 * 8, KN_SM90_BLOCK * step + lane / 8 % 2 * CHUNK));
	b0[0] = r[0], b0[1] = r[1], b1[0] = r[2], b1[1] = r[3];
}
__device__ __forceinline__ void fragment_b(uint32_t (&b)[2], const uint16_t *x, int first, int step)
{
	const int lane = static_cast<int>(threadIdx.x) % 32;
	ptx_ldmatrix_x2(b, x + kn_bf16_at(first + lane % 8, KN_SM90_BLOCK * step + lane / 8 % 2 * CHUNK));
}

/* Steps of k in ascending order, each accumulator by itself. */
template <class S> __device__ __forceinline__ void multiply(const stage<S> *s, kn_mma_accumulators<S> &acc)
{
	const int first_row = static_cast<int>(threadIdx.x) / 32 / S::warps_across * S::down * 8;

#pragma unroll
	for (int step = 0; step < STEPS; step++) {
		uint32_t b[S::down][2];
		if constexpr (S::down == 1)
			fragment_b(b[0], s->x, first_row, step);
		else
#pragma unroll
			for (int d = 0; d < S::down; d += 2)
				fragment_b(b[d], b[d + 1], s->x, first_row + d * 8, step);
#pragma unroll
		for (int a = 0; a < S::across; a++) {
			uint32_t w[4];
			fragment_a(w, s->w[kn_mma_weight<S>(a) / KN_PANEL_ROWS].w, kn_mma_weight<S>(a) % KN_PANEL_ROWS,
				step);
#pragma unroll
			for (int d = 0; d < S::down; d++)
				ptx_mma_bf16(acc[a][d], w, b[d]);
		}
	}
}

/* ---- the way out ---- */

__device__ __forceinline__ uint32_t bf16_pair(float low, float high)
{
	return kn_bf16_of(low) | static_cast<uint32_t>(kn_bf16_of(high)) << 16;
}

/* Four values of a row. */
__device__ __forceinline__ void round_four(uint16_t *out, const float *v)
{
	*reinterpret_cast<uint2 *>(out) = { bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]) };
}

template <class S, int COLUMNS>
__device__ __forceinline__ void store_h(const shared<S> *s, const gemm &g, const kn_cuda_tile &t, size_t first_column)
{
	constexpr uint32_t FOURS = COLUMNS / 4;
	for (uint32_t i = threadIdx.x; i < t.rows * FOURS; i += S::threads) {
		const uint32_t row = i / FOURS, column = i % FOURS * 4;
		round_four(g.h + (t.first + row) * g.ldh + first_column + column, &s->y[row][column]);
	}
}

template <class S, bool UP>
__device__ __forceinline__ void store(shared<S> *s, const gemm &g, const kn_cuda_tile &t,
	const struct kn_cuda_view &view, const kn_mma_accumulators<S> &acc)
{
	constexpr int COLUMNS = S::panels * kn_mma_outputs<UP>::columns;
	const size_t first_column = blockIdx.y * static_cast<size_t>(COLUMNS);

	kn_mma_spread<S, UP>(s->y, view, acc, t, g.out.weight, first_column);
	if constexpr (UP)
		store_h<S, COLUMNS>(s, g, t, first_column);
	else if (g.out.y)
		kn_cuda_store_tile<S::threads, COLUMNS>(g.out, s->y, t.first, t.rows, first_column);
	else
		kn_cuda_add_tile<S::threads, COLUMNS>(g.out, s->y, t.first, t.rows, first_column);
}

/* grid (tiles, panels / S::panels) */
template <class S, bool UP> __global__ void __launch_bounds__(S::threads) kn_bf16_kernel(gemm g)
{
	shared<S> *s = kn_shared<shared<S>>();
	const kn_cuda_tile t = g.tiles[blockIdx.x];
	const struct kn_cuda_view view = g.views[t.expert];
	const size_t panel = blockIdx.y * static_cast<size_t>(S::panels);
	const struct kn_bf16_block *w =
		static_cast<const struct kn_bf16_block *>(UP ? view.up : view.down) + panel * g.blocks;
	const int panels = static_cast<int>(g.panels - panel < S::panels ? g.panels - panel : S::panels);
	kn_mma_accumulators<S> acc = {};

	kn_cuda_tile_rows<S>(s->row, t, g.row_index);
	kn_cuda_each_stage<S>(
		s->stages, g.blocks,
		[&](stage<S> *to, size_t block) { fetch_stage<S>(to, g, w, panels, s->row, block); },
		[&](const stage<S> *from) { multiply<S>(from, acc); });
	__syncthreads();
	store<S, UP>(s, g, t, view, acc);
}

/* Rows of n values, a multiple of CHUNK, rounded; ldr values from row to row. */
__global__ void __launch_bounds__(KN_ROW_THREADS) kn_round_kernel(
	const float *__restrict__ x, size_t ldx, size_t rows, size_t n, uint16_t *__restrict__ out, size_t ldo)
{
	const size_t i = blockIdx.x * static_cast<size_t>(KN_ROW_THREADS) + threadIdx.x, row = i / (n / 4),
		     at = i % (n / 4) * 4;
	if (row < rows)
		round_four(out + row * ldo + at, x + row * ldx + at);
}

/* ---- launches ---- */

template <class S, bool UP> void launch(struct kn_cuda_queue *q, const gemm &g, const kn_cuda_tile *tiles, size_t count)
{
	if (count == 0)
		return;
	gemm of = g;
	of.tiles = tiles;
	KN_LAUNCH_SHARED(q, (kn_bf16_kernel<S, UP>),
		dim3(static_cast<unsigned>(count), static_cast<unsigned>((g.panels + S::panels - 1) / S::panels)),
		dim3(S::threads), shared_bytes<S>, of);
}

static_assert(kn_bf16_up_many::rows == kn_bf16_down_many::rows, "up and down share tiles");

}   // namespace

void kn_cuda_ffn_bf16_sm90(struct kn_cuda_queue *q, const struct kn_ffn *a, const struct kn_cuda_layout &like,
	const struct kn_cuda_ffn_scratch &s)
{
	const struct kn_cuda_area &up_area = like.areas[KN_AREA_UP], &down_area = like.areas[KN_AREA_DOWN];
	const struct kn_cuda_plan p = kn_cuda_plan_make(q, a, like, kn_bf16_few::rows, kn_bf16_up_many::rows);

	gemm up = {};
	up.views = p.views;
	up.x = s.x_bf16;
	up.row_index = a->row_index;
	up.k = kn_round_up(a->hidden, KN_ROW_UNIT);
	up.ldx = kn_round_up(a->hidden, KN_BF16_STEP);
	up.blocks = up_area.blocks;
	up.panels = kn_cuda_panels(up_area);
	up.out.weight = a->weight;
	up.h = s.h_bf16;
	up.ldh = kn_round_up(s.ffn, KN_BF16_STEP);
	gemm down = up;
	down.x = s.h_bf16;
	down.row_index = nullptr;
	down.k = kn_round_up(s.ffn, KN_ROW_UNIT);
	down.ldx = up.ldh;
	down.blocks = down_area.blocks;
	down.panels = kn_cuda_panels(down_area);
	down.out = kn_cuda_out_of(a, like);

	const size_t fours = a->rows * (up.k / 4);
	kn_cuda_note(q,
		KN_LAUNCH(kn_round_kernel, dim3(static_cast<unsigned>((fours + KN_ROW_THREADS - 1) / KN_ROW_THREADS)),
			dim3(KN_ROW_THREADS), 0, q->stream, a->x, a->ldx, a->rows, up.k, s.x_bf16, up.ldx));
	launch<kn_bf16_few, true>(q, up, p.few, p.few_count);
	launch<kn_bf16_up_many, true>(q, up, p.many, p.many_count);
	launch<kn_bf16_few, false>(q, down, p.few, p.few_count);
	launch<kn_bf16_down_many, false>(q, down, p.many, p.many_count);
}
