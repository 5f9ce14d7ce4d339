/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grouped expert ffn in profile f32, in two launches: h = act(x gate^T, x up^T); y = h down^T.
 *
 * Each output is one chain: acc = fma(x[k], w[k], acc), k ascending over k rounded up to KN_F32_STEP,
 * from +0. So no tensor core can make it, and none shares k with others: what a GPU has is many
 * outputs at once. A block makes a tile, some panels of weights (pack.h) for some rows of one expert;
 * a thread makes a few columns for a few rows, and reads each x and each weight once for all of
 * them: columns c and KN_F32_HALF + c of a panel, which are gate and up of one column of h. k
 * advances by KN_F32_STEP, a block of each panel, one stage of shared memory each, fetched ahead.
 *
 * Weights are f32, f16 or bf16, widened when they are used, which is exact. Subnormals are kept.
 */
#include "kernels/cuda/ffn.h"
#include "kernels/cuda/out.h"

namespace
{

struct f16 {
	uint16_t bits;
};
struct bf16 {
	uint16_t bits;
};
__device__ __forceinline__ float widen(float w) { return w; }
__device__ __forceinline__ float widen(f16 w) { return ptx_f32_of_f16(w.bits); }
__device__ __forceinline__ float widen(bf16 w) { return __uint_as_float(static_cast<uint32_t>(w.bits) << 16); }

/* What is loaded and stored at once. */
template <class T, int N> struct alignas(N * sizeof(T)) several {
	T v[N];
};
template <class T, int N> __device__ __forceinline__ several<T, N> load(const T *at)
{
	return *reinterpret_cast<const several<T, N> *>(at);
}

/* What the GEMM reads and writes. */
struct gemm {
	const kn_cuda_tile *tiles;
	const struct kn_cuda_view *views;
	const float *x; /* [rows][ldx] */
	size_t ldx;
	const uint32_t *row_index; /* [pairs]; NULL: pair p reads row p */
	size_t blocks, panels;
	kn_cuda_out out;
};

/* ---- shared memory ---- */

/* Weights as they are packed. Rows of x are four words longer than they need be, so that those of
 * the threads of a warp begin in different banks. */
template <class T> struct block {
	T w[KN_F32_STEP][2][KN_F32_HALF];
};
template <class S, class T> struct stage {
	alignas(16) block<T> w[S::panels];
	alignas(16) float x[S::rows][KN_F32_STEP + 4];
};
template <class S, class T> struct shared {
	stage<S, T> stages[S::stages];
	int32_t row[S::rows]; /* -1: no such row in this tile */
};
static_assert(sizeof(shared<kn_f32_few, float>) <= 99 * 1024 && sizeof(shared<kn_f32_many, float>) <= 99 * 1024,
	"what every GPU from sm_80 on has");

/* ---- the GEMM ---- */

/* A panel that there is not: no bytes are read of it, and its weights are zero. */
template <class S, class T>
__device__ __forceinline__ void fetch_stage(
	stage<S, T> *s, const gemm &g, const block<T> *w, int panels, const int32_t *rows, size_t step)
{
	constexpr int PIECES = sizeof(block<T>) / 16, FOURS = KN_F32_STEP / 4;

#pragma unroll
	for (int p = 0; p < S::panels; p++) {
		const char *from =
			reinterpret_cast<const char *>(w + static_cast<size_t>(p < panels ? p : 0) * g.blocks + step);
		for (int i = static_cast<int>(threadIdx.x); i < PIECES; i += S::threads)
			ptx_cp_async_16(
				reinterpret_cast<char *>(&s->w[p]) + i * 16, from + i * 16, p < panels ? 16 : 0);
	}
	for (int i = static_cast<int>(threadIdx.x); i < S::rows * FOURS; i += S::threads) {
		const int r = i / FOURS, k = i % FOURS * 4;
		const size_t row = static_cast<size_t>(rows[r] < 0 ? 0 : rows[r]);
		ptx_cp_async_16(&s->x[r][k], g.x + row * g.ldx + step * KN_F32_STEP + static_cast<size_t>(k),
			rows[r] < 0 ? 0 : 16);
	}
}

/* Of this thread: its panel of the tile, the first of its columns in a half of that, and the first
 * of its rows, which are S::down apart. */
template <class S> __device__ __forceinline__ int panel_of()
{
	return static_cast<int>(threadIdx.x) % S::across * S::thread_columns / KN_F32_HALF;
}
template <class S> __device__ __forceinline__ int column_of()
{
	return static_cast<int>(threadIdx.x) % S::across * S::thread_columns % KN_F32_HALF;
}
template <class S> __device__ __forceinline__ int row_of() { return static_cast<int>(threadIdx.x) / S::across; }

template <class S> using accumulators = float[S::thread_rows][2][S::thread_columns];

/* KN_F32_STEP links of every chain. */
template <class S, class T> __device__ __forceinline__ void multiply(const stage<S, T> *s, accumulators<S> &acc)
{
	const block<T> *w = &s->w[panel_of<S>()];

#pragma unroll 2
	for (int k = 0; k < KN_F32_STEP; k += 4) {
		several<float, 4> x[S::thread_rows];
#pragma unroll
		for (int r = 0; r < S::thread_rows; r++)
			x[r] = load<float, 4>(&s->x[row_of<S>() + r * S::down][k]);
#pragma unroll
		for (int i = 0; i < 4; i++)
#pragma unroll
			for (int half = 0; half < 2; half++) {
				const several<T, S::thread_columns> v =
					load<T, S::thread_columns>(&w->w[k + i][half][column_of<S>()]);
#pragma unroll
				for (int c = 0; c < S::thread_columns; c++) {
					const float wide = widen(v.v[c]);
#pragma unroll
					for (int r = 0; r < S::thread_rows; r++)
						acc[r][half][c] = fmaf(x[r].v[i], wide, acc[r][half][c]);
				}
			}
	}
}

/* ---- the way out ---- */

/* `column` is h's, or the first half's of y, whose other half is 8 columns on. */
template <class S>
__device__ __forceinline__ void store_up(const struct kn_cuda_view &view, const float (&acc)[2][S::thread_columns],
	size_t column, float weight, float *h)
{
	several<float, S::thread_columns> out;
#pragma unroll
	for (int c = 0; c < S::thread_columns; c++) {
		float g = acc[0][c] * weight, u = acc[1][c] * weight;
		if (view.gate_bias) {
			g = g + view.gate_bias[column + static_cast<size_t>(c)];
			u = u + view.up_bias[column + static_cast<size_t>(c)];
		}
		out.v[c] = kn_cuda_activate(view, g, u);
	}
	*reinterpret_cast<several<float, S::thread_columns> *>(h + column) = out;
}
template <class S>
__device__ __forceinline__ void store_down(const kn_cuda_out &out, const struct kn_cuda_view &view,
	const float (&acc)[2][S::thread_columns], uint32_t pair, size_t first)
{
#pragma unroll
	for (int half = 0; half < 2; half++)
#pragma unroll
		for (int c = 0; c < S::thread_columns; c++) {
			const size_t column = first + static_cast<size_t>(8 * half + c);
			kn_cuda_put(out, pair, column,
				view.down_bias ? acc[half][c] + view.down_bias[column] : acc[half][c]);
		}
}

template <class S, bool UP>
__device__ __forceinline__ void store(
	const gemm &g, const kn_cuda_tile &t, const struct kn_cuda_view &view, size_t panel, const accumulators<S> &acc)
{
	const size_t c = static_cast<size_t>(column_of<S>()),
		     column = UP ? panel * KN_PANEL_COLUMNS + c : panel * KN_PANEL_ROWS + c / 8 * 16 + c % 8;

#pragma unroll
	for (int r = 0; r < S::thread_rows; r++) {
		const uint32_t row = static_cast<uint32_t>(row_of<S>() + r * S::down), pair = t.first + row;
		if (row >= t.rows)
			break;
		if constexpr (UP)
			store_up<S>(view, acc[r], column, kn_cuda_weigh(view, g.out.weight, pair),
				g.out.y + pair * g.out.ldy);
		else
			store_down<S>(g.out, view, acc[r], pair, column);
	}
}

/* grid (tiles, panels / S::panels) */
template <class S, class T, bool UP> __global__ void __launch_bounds__(S::threads) kn_gemm_f32_kernel(gemm g)
{
	shared<S, T> *s = kn_shared<shared<S, T>>();
	const kn_cuda_tile t = g.tiles[blockIdx.x];
	const struct kn_cuda_view view = g.views[t.expert];
	const size_t panel = blockIdx.y * static_cast<size_t>(S::panels);
	const block<T> *w = static_cast<const block<T> *>(UP ? view.up : view.down) + panel * g.blocks;
	const int panels = static_cast<int>(g.panels - panel < S::panels ? g.panels - panel : S::panels);
	accumulators<S> acc = {};

	kn_cuda_tile_rows<S>(s->row, t, g.row_index);
	kn_cuda_each_stage<S>(
		s->stages, g.blocks,
		[&](stage<S, T> *to, size_t step) { fetch_stage<S>(to, g, w, panels, s->row, step); },
		[&](const stage<S, T> *from) { multiply<S>(from, acc); });
	if (panel_of<S>() < panels)
		store<S, UP>(g, t, view, panel + static_cast<size_t>(panel_of<S>()), acc);
}

/* ---- launches ---- */

template <class S, class T, bool UP>
void launch(struct kn_cuda_queue *q, const gemm &g, const kn_cuda_tile *tiles, size_t count)
{
	if (count == 0)
		return;
	gemm of = g;
	of.tiles = tiles;
	KN_LAUNCH_SHARED(q, (kn_gemm_f32_kernel<S, T, UP>),
		dim3(static_cast<unsigned>(count), static_cast<unsigned>((g.panels + S::panels - 1) / S::panels)),
		dim3(S::threads), sizeof(shared<S, T>), of);
}

/* Tiles of few rows, and of many. */
template <class T, bool UP> void launch_both(struct kn_cuda_queue *q, const gemm &g, const kn_cuda_plan &p)
{
	launch<kn_f32_few, T, UP>(q, g, p.few, p.few_count);
	launch<kn_f32_many, T, UP>(q, g, p.many, p.many_count);
}
template <bool UP>
void launch_of(struct kn_cuda_queue *q, const gemm &g, const kn_cuda_plan &p, const struct kn_cuda_area &area)
{
	switch (area.form->dtype) {
	case CAD_DTYPE_F16: return launch_both<f16, UP>(q, g, p);
	case CAD_DTYPE_BF16: return launch_both<bf16, UP>(q, g, p);
	default: return launch_both<float, UP>(q, g, p);
	}
}

}   // namespace

void kn_cuda_ffn_f32(struct kn_cuda_queue *q, const struct kn_ffn *a, const struct kn_cuda_layout &like,
	const struct kn_cuda_ffn_scratch &s)
{
	const struct kn_cuda_area &up_area = like.areas[KN_AREA_UP], &down_area = like.areas[KN_AREA_DOWN];
	const struct kn_cuda_plan p = kn_cuda_plan_make(q, a, like, kn_f32_few::rows, kn_f32_many::rows);

	gemm up = {};
	up.views = p.views;
	up.x = a->x;
	up.ldx = a->ldx;
	up.row_index = a->row_index;
	up.blocks = up_area.blocks;
	up.panels = kn_cuda_panels(up_area);
	up.out.y = s.h;
	up.out.ldy = s.ldh;
	up.out.weight = a->weight;
	gemm down = up;
	down.x = s.h;
	down.ldx = s.ldh;
	down.row_index = nullptr;
	down.blocks = down_area.blocks;
	down.panels = kn_cuda_panels(down_area);
	down.out = kn_cuda_out_of(a, like);

	launch_of<true>(q, up, p, up_area);
	launch_of<false>(q, down, p, down_area);
}
