/* SPDX-License-Identifier: Apache-2.0 */
/* How work is cut for GPUs: what may be changed without changing a bit. Nothing of it has been
 * measured yet. */
#ifndef CADRE_KERNELS_CUDA_TUNE_H
#define CADRE_KERNELS_CUDA_TUNE_H

#include <stddef.h>

enum {
	/* of a queue: what an operator's host arrays and results pass through; more is several
	 * goes */
	KN_WINDOW_BYTES = 8 << 20,
	/* what experts pass through on their way to the device: pinned memory */
	KN_STAGING_BUFFERS = 4,
#ifdef KN_EMU /* so that small experts take several */
	KN_STAGING_BYTES = 64 << 10,
	KN_CHUNK_BYTES = 1 << 20,
#else
	KN_STAGING_BYTES = 4 << 20, /* each */
	KN_CHUNK_BYTES = 1 << 30,   /* of device memory for experts, taken at once */
#endif
	/* one part of so many of the device's memory is left to its driver, and to what rounding
	 * takes */
	KN_DRIVER_PART = 128,
	KN_ROW_THREADS = 256, /* of a block that makes one row */
	/* an expert with fewer rows than this has tiles of few rows */
	KN_MANY_ROWS = 16,
	/* so many bytes of pinned memory are worth a copy of their own; fewer go by the window */
	KN_DIRECT_BYTES = 64 << 10,
};

/*
 * A block of the expert GEMM makes `panels` panels of 64 weight rows for `rows` rows, in
 * warps_across x warps_down warps; `stages` groups of k are under way at once.
 */
template <int PANELS, int ROWS, int WARPS_ACROSS, int WARPS_DOWN, int STAGES> struct kn_tile_shape {
	static constexpr int panels = PANELS, rows = ROWS, warps_across = WARPS_ACROSS, warps_down = WARPS_DOWN,
			     stages = STAGES, threads = 32 * WARPS_ACROSS * WARPS_DOWN;
	/* of a warp: pieces of 16 weight rows, of 8 rows */
	static constexpr int across = 64 * PANELS / 16 / WARPS_ACROSS, down = ROWS / 8 / WARPS_DOWN;
	static_assert(64 * PANELS % (16 * WARPS_ACROSS) == 0 && ROWS % (8 * WARPS_DOWN) == 0, "warps share the tile");
	static_assert(down == 1 || down % 2 == 0, "rows are fetched by eights or sixteens");
};
/* At most 99 KB of shared memory, which every GPU from sm_80 on has. */
using kn_up_few = kn_tile_shape<1, 8, 2, 1, 4>;
using kn_up_few_as_bf16 = kn_tile_shape<1, 8, 4, 1, 4>; /* to convert takes registers */
using kn_up_many = kn_tile_shape<2, 64, 2, 4, 2>;
using kn_down_few = kn_tile_shape<1, 8, 4, 1, 4>;
using kn_down_many = kn_tile_shape<1, 64, 2, 4, 3>;

/*
 * The same in profile f32, where a thread makes thread_rows rows of thread_columns columns of a
 * panel's first half, and as many of its second; KN_F32_STEP values of k are a stage, and what k is
 * padded to.
 */
enum { KN_F32_STEP = 32 };
template <int PANELS, int ROWS, int THREAD_COLUMNS, int THREAD_ROWS, int STAGES> struct kn_f32_shape {
	static constexpr int panels = PANELS, rows = ROWS, thread_columns = THREAD_COLUMNS, thread_rows = THREAD_ROWS,
			     stages = STAGES;
	static constexpr int across = 32 * PANELS / THREAD_COLUMNS, down = ROWS / THREAD_ROWS, threads = across * down;
	static_assert(
		8 % THREAD_COLUMNS == 0 && ROWS % THREAD_ROWS == 0 && threads % 32 == 0, "threads share the tile");
};
using kn_f32_few = kn_f32_shape<1, 8, 1, 4, 4>;
using kn_f32_many = kn_f32_shape<2, 64, 4, 8, 3>;

/* In profile bf16-sm90 a stage is KN_BF16_STEP values of k. Two blocks to a multiprocessor of Hopper. */
using kn_bf16_few = kn_tile_shape<1, 8, 4, 1, 6>;
using kn_bf16_up_many = kn_tile_shape<2, 64, 4, 2, 4>;
using kn_bf16_down_many = kn_tile_shape<1, 64, 2, 4, 6>;

/*
 * A block of the expert GEMM on wgmma makes `panels` panels for up to `rows` rows, in warpgroups
 * that have as many of the panels each; `stages` of `halves` halves of a group of k are under way at
 * once; `blocks` of them are on a multiprocessor. `quantises`: of h it makes whole groups.
 */
template <int ROWS, int PANELS, int WARPGROUPS, int HALVES, int STAGES, int BLOCKS, bool QUANTISES>
struct kn_wgmma_shape {
	static constexpr int rows = ROWS, panels = PANELS, warpgroups = WARPGROUPS, halves = HALVES, stages = STAGES,
			     blocks = BLOCKS, threads = 128 * WARPGROUPS + (WARPGROUPS > 1 ? 128 : 32);
	static constexpr bool quantises = QUANTISES;
};
using kn_narrow_8 = kn_wgmma_shape<8, 1, 1, 2, 5, 2, false>;
using kn_wide_8 = kn_wgmma_shape<8, 4, 2, 1, 6, 1, true>;
using kn_wide_16 = kn_wgmma_shape<16, 4, 2, 1, 5, 1, true>;
using kn_wide_32 = kn_wgmma_shape<32, 4, 2, 1, 5, 1, true>;
using kn_wide_64 = kn_wgmma_shape<64, 4, 2, 1, 5, 1, false>;
using kn_wide_128 = kn_wgmma_shape<128, 4, 2, 2, 2, 1, false>;

/* Of a tile, by the rows that an expert has on average. */
inline size_t kn_wgmma_rows(size_t mean)
{
	return mean <= 3 ? 8 : mean <= 10 ? 16 : mean <= 22 ? 32 : mean <= 44 ? 64 : 128;
}
/* Whether there are about as many blocks as multiprocessors, when each has 256 of a product's columns:
 * then the down projection's are wide, and up quantises what it makes. */
inline bool kn_wgmma_fills(size_t tiles, size_t columns, int multiprocessors)
{
	return tiles * ((columns + 255) / 256) * 10 >= static_cast<size_t>(multiprocessors) * 9;
}

#endif
