/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grouped expert ffn of ffn.cu on Hopper's wgmma, with the same bits: x is quantised; h = act(x
 * gate^T, x up^T), quantised; y = h down^T. Weights are A, 64 to an instruction, and rows are B, 8
 * to 128 of them, so that few rows waste little.
 *
 * Everything arrives by bulk copies of bytes that follow each other: weights as they are packed
 * (pack.h), and rows in the same form. Of a tile, rows are padded with zeros to eights, R, and lie
 *
 *   [groups of k] blocks of   s8 [2][R][KN_HALF], in the order of kn_int8_at; scales f32 [R]
 *
 * One thread of a block of threads fetches, stage by stage, as fast as the warpgroups that multiply
 * give stages back. Of each group, 8 instructions give the exact dot product; then acc =
 * fma((float)d, scale_x * scale_w, acc).
 *
 * Where there are enough blocks, each makes all 256 values of h that share a scale, in two passes of
 * 128, and quantises them; else h is f32, and what gathers x gathers and quantises h as well. No block waits for
 * another one.
 */
#include "kernels/cuda/ffn.h"
#include "kernels/cuda/out.h"
#include "kernels/cuda/quantise_warp.h"

namespace
{

enum { LANES = 32, EIGHT = 8, WARPGROUP = 128, STEPS = KN_HALF / 32 };

/* Of one expert; `slot` is where its rows begin among the padded ones of all tiles. */
struct tile {
	uint32_t expert, first, rows, slot;
};
__host__ __device__ constexpr size_t padded(size_t rows) { return (rows + EIGHT - 1) / EIGHT * EIGHT; }
__host__ __device__ constexpr size_t rows_bytes(size_t rows) { return rows * (KN_GROUP + sizeof(float)); }

/* Where a tile's block of rows of a group lies. */
template <class T> __device__ __forceinline__ T *rows_at(T *all, const tile &t, size_t groups, size_t group)
{
	return all + rows_bytes(t.slot) * groups + rows_bytes(padded(t.rows)) * group;
}

/* ---- gathering ---- */

struct gathering {
	const tile *tiles;
	const uint32_t *tile_of; /* [eights of slots] */
	const float *x;          /* [rows][ldx], of which n are read: a multiple of 4, zeros after it */
	size_t ldx, n, groups;
	const uint32_t *row_index; /* [pairs]; NULL: pair p reads row p */
	uint8_t *out;
};

/* Lanes have values 4 lane .. 4 lane + 3 of each half. */
__device__ __forceinline__ void put_group(
	uint8_t *block, size_t rows, uint32_t r, const float (&v)[KN_LANE_VALUES], uint32_t lane)
{
	const struct kn_scale s = kn_warp_scale(v);
	for (int half = 0; half < 2; half++)
		*reinterpret_cast<uint32_t *>(block +
			kn_int8_at(static_cast<int>(rows), static_cast<int>(r),
				half * KN_HALF + 4 * static_cast<int>(lane))) = kn_four_bytes(v, 4 * half, s);
	if (lane == 0)
		reinterpret_cast<float *>(block + rows * KN_GROUP)[r] = s.scale;
}

/* A warp makes a group of a row. grid (eights of slots, groups) */
__global__ void __launch_bounds__(EIGHT *LANES) kn_gather_kernel(gathering g)
{
	const tile t = g.tiles[g.tile_of[blockIdx.x]];
	const uint32_t lane = threadIdx.x % LANES, r = blockIdx.x * EIGHT + threadIdx.x / LANES - t.slot;
	const size_t pair = t.first + static_cast<size_t>(r);
	float v[KN_LANE_VALUES] = {};

	if (r < t.rows) {
		const float *x = g.x + (g.row_index ? g.row_index[pair] : pair) * g.ldx;
		for (int half = 0; half < 2; half++) {
			const size_t k = blockIdx.y * static_cast<size_t>(KN_GROUP) +
				static_cast<size_t>(half * KN_HALF) + 4 * lane;
			const float4 four = k < g.n ? *reinterpret_cast<const float4 *>(x + k) : float4{};
			v[4 * half] = four.x, v[4 * half + 1] = four.y, v[4 * half + 2] = four.z,
			      v[4 * half + 3] = four.w;
		}
	}
	put_group(rows_at(g.out, t, g.groups, blockIdx.y), padded(t.rows), r, v, lane);
}

/* ---- shared memory ---- */

template <class S> struct alignas(1024) stage {
	int8_t w[S::panels][S::halves * KN_HALF_BYTES], x[S::halves][S::rows * KN_HALF];
	float w_scales[S::panels][KN_PANEL_ROWS], x_scales[S::rows];
};

enum way_out { H, H_QUANTISED, Y };

template <class S, way_out OUT> struct alignas(1024) shared {
	stage<S> stages[S::stages];
	float h[OUT == H_QUANTISED ? S::rows : 1][KN_GROUP + 4];
	uint64_t full[S::stages], empty[S::stages];
};
template <way_out OUT> constexpr int passes = OUT == H_QUANTISED ? 2 : 1;

/* Which stage is next, and the parity of its phase. */
template <class S> struct ring {
	uint32_t place = 0, parity = 0;
	__device__ void next()
	{
		place = place + 1 == S::stages ? 0 : place + 1;
		parity ^= place == 0;
	}
};

/* ---- fetching ---- */

struct product {
	const tile *tiles;
	const struct kn_cuda_view *views;
	const uint8_t *rows;
	size_t groups, panels, block_bytes;
	struct kn_cuda_out out; /* y or sums; h, f32, in its place */
	/* or h as the next product's rows, of so many columns and groups */
	uint8_t *h;
	size_t columns, h_groups;
};

/* All stages of a tile. In place of a panel that there is not, the last one. */
template <class S, way_out OUT>
__device__ __forceinline__ void fetch(shared<S, OUT> *s, const product &g, size_t first_panel)
{
	const tile t = g.tiles[blockIdx.x];
	const struct kn_cuda_view *view = &g.views[t.expert];
	const auto *w = static_cast<const uint8_t *>(OUT == Y ? view->down : view->up);
	const size_t rows = padded(t.rows);
	ring<S> at;

	for (size_t pass = 0; pass < passes<OUT>; pass++)
		for (size_t i = 0; i < g.groups * 2 / S::halves; i++, at.next()) {
			const size_t group = i * S::halves / 2, half = S::halves == 2 ? 0 : i % 2;
			const bool last = S::halves == 2 || half == 1; /* of the group: with its scales */
			const size_t scales_bytes = (S::panels * KN_PANEL_ROWS + rows) * sizeof(float);
			stage<S> *to = &s->stages[at.place];
			uint64_t *full = &s->full[at.place];

			ptx_mbarrier_wait(&s->empty[at.place], at.parity ^ 1);
			ptx_mbarrier_arrive_expect(full,
				static_cast<uint32_t>(S::halves * (S::panels * KN_HALF_BYTES + rows * KN_HALF) +
					(last ? scales_bytes : 0)));
#pragma unroll
			for (int p = 0; p < S::panels; p++) {
				const size_t panel = first_panel + pass * S::panels + static_cast<size_t>(p);
				const auto *block = reinterpret_cast<const struct kn_int8_block *>(w +
					((panel < g.panels ? panel : g.panels - 1) * g.groups + group) * g.block_bytes);
				ptx_bulk_copy(
					to->w[p], block->q + half * KN_HALF_BYTES, S::halves * KN_HALF_BYTES, full);
				if (last)
					ptx_bulk_copy(to->w_scales[p], block->scales, sizeof block->scales, full);
			}
			const uint8_t *x = rows_at(g.rows, t, g.groups, group);
#pragma unroll
			for (int h = 0; h < S::halves; h++)
				ptx_bulk_copy(to->x[h], x + (half + static_cast<size_t>(h)) * rows * KN_HALF,
					static_cast<uint32_t>(rows * KN_HALF), full);
			if (last)
				ptx_bulk_copy(to->x_scales, x + rows * KN_GROUP,
					static_cast<uint32_t>(rows * sizeof(float)), full);
		}
}

/* ---- multiplying ---- */

/* Of the panels of a warpgroup: [4 j + i], as wgmma has them. */
template <class S> using accumulators = float[S::panels / S::warpgroups][S::rows / 2];

/* One group more of a panel: |d| < 2^23, so that it is exact as a float. */
template <class S, int ROWS>
__device__ __forceinline__ void scale(
	const stage<S> &from, int panel, const int32_t (&dot)[ROWS / 2], float (&acc)[S::rows / 2])
{
	const int lane = static_cast<int>(threadIdx.x) % LANES, warp = static_cast<int>(threadIdx.x) / LANES % 4;
	const float *w = from.w_scales[panel] + warp * 16 + lane / 4, *x = from.x_scales + lane % 4 * 2;
	const float w0 = w[0], w1 = w[8];

#pragma unroll
	for (int j = 0; j < ROWS / 8; j++) {
		const float2 two = *reinterpret_cast<const float2 *>(x + 8 * j);
		const int32_t *d = dot + 4 * j;
		float *c = acc + 4 * j;
		c[0] = fmaf(static_cast<float>(d[0]), two.x * w0, c[0]);
		c[1] = fmaf(static_cast<float>(d[1]), two.y * w0, c[1]);
		c[2] = fmaf(static_cast<float>(d[2]), two.x * w1, c[2]);
		c[3] = fmaf(static_cast<float>(d[3]), two.y * w1, c[3]);
	}
}

/* All groups, of the first ROWS rows of a stage. Where a stage is half a group, the dot products of
 * all panels are kept between two of them; else those of one panel. */
template <class S, int ROWS, class Shared>
__device__ __forceinline__ void multiply(Shared *s, accumulators<S> &acc, size_t groups, ring<S> *at)
{
	constexpr int OWN = S::panels / S::warpgroups, PARTS = 2 / S::halves;
	const int lane = static_cast<int>(threadIdx.x) % LANES, first = static_cast<int>(threadIdx.x) / WARPGROUP * OWN;

	for (size_t group = 0; group < groups; group++) {
		int32_t dot[S::halves == 2 ? 1 : OWN][ROWS / 2];
#pragma unroll
		for (int part = 0; part < PARTS; part++, at->next()) {
			const stage<S> &from = s->stages[at->place];
			ptx_mbarrier_wait(&s->full[at->place], at->parity);
#pragma unroll
			for (int p = 0; p < OWN; p++) {
				int32_t(&d)[ROWS / 2] = dot[S::halves == 2 ? 0 : p];
				ptx_wgmma_fence();
#pragma unroll
				for (int i = 0; i < S::halves * STEPS; i++)
					ptx_wgmma_s8<ROWS>(d,
						ptx_wgmma_operand(from.w[first + p] + i / STEPS * KN_HALF_BYTES) +
							2 * static_cast<uint64_t>(i % STEPS),
						ptx_wgmma_operand(from.x[i / STEPS]) +
							2 * static_cast<uint64_t>(i % STEPS),
						part > 0 || i > 0);
				ptx_wgmma_commit();
				if constexpr (S::halves == 2) {
					ptx_wgmma_wait<0>();
					scale<S, ROWS>(from, first + p, d, acc[p]);
				}
			}
			if constexpr (S::halves == 1) {
				ptx_wgmma_wait<0>();
#pragma unroll
				for (int p = 0; p < OWN && part == PARTS - 1; p++)
					scale<S, ROWS>(from, first + p, dot[p], acc[p]);
			}
			__syncwarp();
			if (lane == 0)
				ptx_mbarrier_arrive(&s->empty[at->place]);
		}
	}
}

/* By the narrowest instruction that has the tile's rows. */
template <class S, class Shared>
__device__ __forceinline__ void multiply_rows(
	Shared *s, accumulators<S> &acc, size_t groups, ring<S> *at, uint32_t rows)
{
	if constexpr (S::rows < 128)
		multiply<S, S::rows>(s, acc, groups, at);
	else if (rows <= 32)
		multiply<S, 32>(s, acc, groups, at);
	else if (rows <= 64)
		multiply<S, 64>(s, acc, groups, at);
	else if (rows <= 80)
		multiply<S, 80>(s, acc, groups, at);
	else if (rows <= 96)
		multiply<S, 96>(s, acc, groups, at);
	else
		multiply<S, 128>(s, acc, groups, at);
}

/* ---- the way out ---- */

/* Calls f(panel, row, weight, v, u) for what a thread holds of panels and rows that there are: v is of
 * that row and of that weight of the panel, u of the weight 8 further on. */
template <class S, class F>
__device__ __forceinline__ void each_output(
	const accumulators<S> &acc, size_t first_panel, size_t panels, uint32_t rows, F f)
{
	constexpr int OWN = S::panels / S::warpgroups;
	const uint32_t lane = threadIdx.x % LANES, warp = threadIdx.x / LANES % 4;
#pragma unroll
	for (int p = 0; p < OWN; p++) {
		const size_t panel = first_panel + threadIdx.x / WARPGROUP * OWN + static_cast<size_t>(p);
#pragma unroll
		for (int j = 0; j < S::rows / 8 && panel < panels; j++)
#pragma unroll
			for (int i = 0; i < 2; i++) {
				const uint32_t row = static_cast<uint32_t>(8 * j + i) + lane % 4 * 2;
				if (row < rows)
					f(panel, row, warp * 16 + lane / 4, acc[p][4 * j + i], acc[p][4 * j + i + 2]);
			}
	}
}

/* Calls f(row, column, y). */
template <class S, class F>
__device__ __forceinline__ void each_y(const product &g, const tile &t, const struct kn_cuda_view &view,
	const accumulators<S> &acc, size_t first_panel, F f)
{
	each_output<S>(
		acc, first_panel, g.panels, t.rows, [&](size_t panel, uint32_t row, uint32_t weight, float v, float u) {
			const size_t column = panel * KN_PANEL_ROWS + weight;
			f(row, column, view.down_bias ? v + view.down_bias[column] : v);
			f(row, column + 8, view.down_bias ? u + view.down_bias[column + 8] : u);
		});
}

/* Calls f(row, column, h). */
template <class S, class F>
__device__ __forceinline__ void each_h(const product &g, const tile &t, const struct kn_cuda_view &view,
	const accumulators<S> &acc, size_t first_panel, F f)
{
	each_output<S>(
		acc, first_panel, g.panels, t.rows, [&](size_t panel, uint32_t row, uint32_t weight, float v, float u) {
			const size_t column = panel * KN_PANEL_COLUMNS + weight / 16 * 8 + weight % 8;
			const float by = kn_cuda_weigh(view, g.out.weight, t.first + static_cast<size_t>(row));
			v = v * by;
			u = u * by;
			if (view.gate_bias) {
				v = v + view.gate_bias[column];
				u = u + view.up_bias[column];
			}
			f(row, column, kn_cuda_activate(view, v, u));
		});
}

/* A group of h of all rows, from shared memory. */
template <class S, class Shared>
__device__ __forceinline__ void quantise_h(const Shared *s, const product &g, const tile &t, size_t group)
{
	const uint32_t lane = threadIdx.x % LANES, rows = static_cast<uint32_t>(padded(t.rows));
	for (uint32_t r = threadIdx.x / LANES; r < rows; r += S::warpgroups * WARPGROUP / LANES) {
		float v[KN_LANE_VALUES];
		for (int half = 0; half < 2; half++)
			for (int i = 0; i < 4; i++) {
				const uint32_t k = static_cast<uint32_t>(half * KN_HALF + i) + 4 * lane;
				const bool there = r < t.rows && group * KN_GROUP + k < g.columns;
				v[4 * half + i] = there ? s->h[r][k] : 0.0f;
			}
		put_group(rows_at(g.h, t, g.h_groups, group), rows, r, v, lane);
	}
}

/* ---- the kernel ---- */

/* Rows that are not fetched are zero. */
template <class S> __device__ __forceinline__ void clear_rows(stage<S> *s, uint32_t rows)
{
	const uint32_t fours = (S::rows - rows) * KN_HALF / 4;
	for (uint32_t i = threadIdx.x; i < S::halves * fours; i += S::threads)
		reinterpret_cast<uint32_t *>(s->x[i / fours] + rows * KN_HALF)[i % fours] = 0;
	for (uint32_t r = rows + threadIdx.x; r < S::rows; r += S::threads)
		s->x_scales[r] = 0.0f;
}

template <class S, way_out OUT> __device__ __forceinline__ void begin(shared<S, OUT> *s, uint32_t rows)
{
	if (threadIdx.x == 0) {
		for (int i = 0; i < S::stages; i++) {
			ptx_mbarrier_init(&s->full[i], 1);
			ptx_mbarrier_init(&s->empty[i], S::warpgroups * WARPGROUP / LANES);
		}
		ptx_mbarrier_fence_init();
	}
	if (rows < S::rows) {
		for (int i = 0; i < S::stages; i++)
			clear_rows(&s->stages[i], rows);
		ptx_fence_async();
	}
	__syncthreads();
}

template <class S, way_out OUT>
__device__ __forceinline__ void make(shared<S, OUT> *s, const product &g, uint32_t rows, size_t first_panel)
{
	ring<S> at;
#pragma unroll 1
	for (size_t pass = 0; pass < passes<OUT>; pass++) {
		const size_t panel = first_panel + pass * S::panels;
		accumulators<S> acc = {};
		multiply_rows<S>(s, acc, g.groups, &at, rows);
		/* looked up here, so that they take no registers before */
		const tile t = g.tiles[blockIdx.x];
		const struct kn_cuda_view view = g.views[t.expert];
		const auto put = [&](uint32_t row, size_t column, float value) {
			if constexpr (OUT == H_QUANTISED)
				s->h[row][column % KN_GROUP] = value;
			else if constexpr (OUT == H)
				g.out.y[(t.first + static_cast<size_t>(row)) * g.out.ldy + column] = value;
			else
				kn_cuda_put(g.out, t.first + row, column, value);
		};
		if constexpr (OUT == Y)
			each_y<S>(g, t, view, acc, panel, put);
		else
			each_h<S>(g, t, view, acc, panel, put);
	}
	if constexpr (OUT == H_QUANTISED) {
		ptx_named_sync(1, S::warpgroups * WARPGROUP);
		quantise_h<S>(s, g, g.tiles[blockIdx.x], blockIdx.y);
	}
}

/* The warps that multiply, then one that fetches; a warpgroup of its own where registers change
 * hands. grid (tiles, panels / (S::panels * passes)) */
template <class S, way_out OUT> __global__ void __launch_bounds__(S::threads, S::blocks) kn_wgmma_kernel(product g)
{
	shared<S, OUT> *s = kn_shared<shared<S, OUT>>();
	const uint32_t rows = static_cast<uint32_t>(padded(g.tiles[blockIdx.x].rows));
	const size_t first_panel = blockIdx.y * static_cast<size_t>(S::panels * passes<OUT>);

	begin(s, rows);
	if (threadIdx.x < S::warpgroups * WARPGROUP) {
		if constexpr (S::warpgroups > 1)
			ptx_registers_up<232>();
		make(s, g, rows, first_panel);
	} else {
		if constexpr (S::warpgroups > 1)
			ptx_registers_down<40>();
		if (threadIdx.x == S::warpgroups * WARPGROUP)
			fetch(s, g, first_panel);
	}
}

/* ---- launches ---- */

/* Tiles of at most so many rows. Those of an expert share its eights of rows evenly: of 129 rows,
 * one has 72 and one 57, rather than 128 and 1. */
struct plan {
	const tile *tiles;
	const struct kn_cuda_view *views;
	const uint32_t *tile_of;
	size_t tiles_count, slots;
};

size_t tiles_of(size_t rows, size_t most) { return (rows + most - 1) / most; }

/* Rows of expert e; 0: it is not among those. */
size_t rows_of(const struct kn_ffn *a, size_t e, const struct kn_cuda_layout &like)
{
	return kn_cuda_takes_part(a, e, like) ? a->begin[e + 1] - a->begin[e] : 0;
}

plan plan_make(struct kn_cuda_queue *q, const struct kn_ffn *a, const struct kn_cuda_layout &like, size_t rows_most)
{
	size_t experts = 0, tiles_count = 0, slots = 0;
	for (size_t e = 0; e < a->experts_count; e++) {
		const size_t rows = rows_of(a, e, like);
		experts += rows > 0;
		tiles_count += tiles_of(rows, rows_most);
		slots += padded(rows);
	}

	kn_cuda_reserve(q,
		experts * sizeof(struct kn_cuda_view) + tiles_count * sizeof(tile) + slots / EIGHT * sizeof(uint32_t) +
			3 * 64);
	auto *views = static_cast<struct kn_cuda_view *>(kn_cuda_take(q, experts * sizeof(struct kn_cuda_view)));
	auto *tiles = static_cast<tile *>(kn_cuda_take(q, tiles_count * sizeof(tile)));
	auto *tile_of = static_cast<uint32_t *>(kn_cuda_take(q, slots / EIGHT * sizeof(uint32_t)));
	uint32_t busy = 0, slot = 0;
	tiles_count = 0;
	for (size_t e = 0; e < a->experts_count; e++) {
		const uint32_t end = a->begin[e + 1], rows = static_cast<uint32_t>(rows_of(a, e, like)),
			       eights = (rows + EIGHT - 1) / EIGHT,
			       count = static_cast<uint32_t>(tiles_of(rows, rows_most));
		uint32_t first = a->begin[e];
		for (uint32_t i = 0; i < count; i++) {
			const uint32_t own = eights / count + (i < eights % count), most = own * EIGHT;
			tiles[tiles_count] = { busy, first, end - first < most ? end - first : most, slot };
			for (uint32_t j = 0; j < own; j++, slot += EIGHT)
				tile_of[slot / EIGHT] = static_cast<uint32_t>(tiles_count);
			tiles_count++;
			first += most;
		}
		if (rows > 0)
			views[busy++] = static_cast<const struct kn_cuda_expert *>(a->experts[e]->own)->view;
	}
	kn_cuda_send(q);
	return { static_cast<const tile *>(kn_cuda_mirror(q, tiles)),
		static_cast<const struct kn_cuda_view *>(kn_cuda_mirror(q, views)),
		static_cast<const uint32_t *>(kn_cuda_mirror(q, tile_of)), tiles_count, slot };
}

void gather(struct kn_cuda_queue *q, const gathering &g, size_t slots)
{
	kn_cuda_note(q,
		KN_LAUNCH(kn_gather_kernel, dim3(static_cast<unsigned>(slots / EIGHT), static_cast<unsigned>(g.groups)),
			dim3(EIGHT * LANES), 0, q->stream, g));
}

template <class S, way_out OUT> void launch(struct kn_cuda_queue *q, const product &g, size_t tiles)
{
	constexpr size_t panels = S::panels * passes<OUT>;
	static_assert(sizeof(shared<S, OUT>) * S::blocks <= 227 * 1024, "what a multiprocessor of sm_90 has");
	static_assert(OUT != H_QUANTISED || panels * KN_PANEL_COLUMNS == KN_GROUP, "a whole group of h");
	KN_LAUNCH_SHARED(q, (kn_wgmma_kernel<S, OUT>),
		dim3(static_cast<unsigned>(tiles), static_cast<unsigned>((g.panels + panels - 1) / panels)),
		dim3(S::threads), sizeof(shared<S, OUT>), g);
}

struct scratch {
	uint8_t *x, *h;
	float *h_f32;
	size_t ldh, bytes;
};

/* Counts bytes (memory NULL) and hands out pointers. */
scratch lay_out(uint8_t *memory, size_t slots, size_t pairs, size_t hidden, size_t ffn)
{
	const size_t x = rows_bytes(slots) * ((hidden + KN_GROUP - 1) / KN_GROUP),
		     h = rows_bytes(slots) * ((ffn + KN_GROUP - 1) / KN_GROUP), ldh = kn_round_up(ffn, KN_COLUMNS_UNIT),
		     h_at = kn_round_up(x, 256), f32_at = h_at + kn_round_up(h, 256);
	scratch s = {};
	s.ldh = ldh;
	s.bytes = f32_at + pairs * ldh * sizeof(float);
	if (memory) {
		s.x = memory;
		s.h = memory + h_at;
		s.h_f32 = reinterpret_cast<float *>(memory + f32_at);
	}
	return s;
}

int multiprocessors(const struct kn_cuda_queue *q) { return kn_cuda_device_of(q->base.device)->chip.multiprocessors; }

template <class S> void up_with_h(struct kn_cuda_queue *q, const product &up, const gathering &h, const plan &p)
{
	if constexpr (S::quantises)
		if (kn_wgmma_fills(p.tiles_count, up.columns, multiprocessors(q)))
			return launch<S, H_QUANTISED>(q, up, p.tiles_count);
	launch<S, H>(q, up, p.tiles_count);
	gather(q, h, p.slots);
}

template <class S>
void run(struct kn_cuda_queue *q, const struct kn_ffn *a, const struct kn_cuda_layout &like, size_t ffn)
{
	const struct kn_cuda_area &up_area = like.areas[KN_AREA_UP], &down_area = like.areas[KN_AREA_DOWN];
	const plan p = plan_make(q, a, like, S::rows);
	const scratch s =
		lay_out(static_cast<uint8_t *>(a->scratch), p.slots, a->begin[a->experts_count], a->hidden, ffn);
	gathering x = { p.tiles, p.tile_of, a->x, a->ldx, kn_round_up(a->hidden, KN_ROW_UNIT), up_area.blocks,
		a->row_index, s.x };
	gathering h = { p.tiles, p.tile_of, s.h_f32, s.ldh, kn_round_up(ffn, KN_ROW_UNIT), down_area.blocks, nullptr,
		s.h };
	product up = { p.tiles, p.views, s.x, x.groups, kn_cuda_panels(up_area), up_area.piece_bytes, {}, s.h, ffn,
		h.groups };
	up.out.y = s.h_f32;
	up.out.ldy = s.ldh;
	up.out.weight = a->weight;
	const product down = { p.tiles, p.views, s.h, h.groups, kn_cuda_panels(down_area), down_area.piece_bytes,
		kn_cuda_out_of(a, like), nullptr, 0, 0 };

	gather(q, x, p.slots);
	up_with_h<S>(q, up, h, p);
	launch<S, Y>(q, down, p.tiles_count);
}

}   // namespace

size_t kn_cuda_wgmma_scratch_bytes(size_t pairs, size_t hidden, size_t ffn)
{
	return lay_out(nullptr, pairs + (EIGHT - 1) * (pairs < CAD_EXPERTS_MAX ? pairs : size_t{ CAD_EXPERTS_MAX }),
		pairs, hidden, ffn)
		.bytes;
}

void kn_cuda_ffn_wgmma(struct kn_cuda_queue *q, const struct kn_ffn *a, const struct kn_cuda_layout &like, size_t ffn)
{
	size_t experts = 0, pairs = 0, tiles = 0;
	for (size_t e = 0; e < a->experts_count; e++) {
		experts += rows_of(a, e, like) > 0;
		pairs += rows_of(a, e, like);
	}
	const size_t rows = kn_wgmma_rows(pairs / experts);
	for (size_t e = 0; e < a->experts_count; e++)
		tiles += tiles_of(rows_of(a, e, like), rows);
	if (!kn_wgmma_fills(tiles, a->hidden, multiprocessors(q)))
		return run<kn_narrow_8>(q, a, like, ffn);

	switch (rows) {
	case 8: return run<kn_wide_8>(q, a, like, ffn);
	case 16: return run<kn_wide_16>(q, a, like, ffn);
	case 32: return run<kn_wide_32>(q, a, like, ffn);
	case 64: return run<kn_wide_64>(q, a, like, ffn);
	default: return run<kn_wide_128>(q, a, like, ffn);
	}
}
