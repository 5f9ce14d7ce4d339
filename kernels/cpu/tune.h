/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the CPU's kernels are tuned: how work is cut, how much waits in which cache, what is
 * fetched ahead. None of it changes a bit of any result; tune it with bench/bench_kernels. (What is
 * stored in memory, and so cannot change alone, is in layout.h.)
 */
#ifndef CADRE_KERNELS_CPU_TUNE_H
#define CADRE_KERNELS_CPU_TUNE_H

#include "common/base/limits.h"

enum {
	/* Operators on rows: floats of work that are worth a job, jobs of each thread, and what an
	 * element of some operators costs in such floats. */
	KN_WORK_FLOATS_MIN = 4096,
	KN_JOBS_PER_THREAD = 4,
	KN_FLOATS_PER_ANGLE = 64,
	KN_FLOATS_PER_EXPERT = 16, /* of the gate */
	KN_FLOATS_PER_KV_ELEMENT = 4,

	/* linear: panels of a job (the rows are packed for once), and jobs of each thread, so that
	 * a thread that is held up costs little. */
	KN_LINEAR_PANELS_MAX = 8,
	KN_LINEAR_JOBS_PER_THREAD = 4,

	/* linear_heads: rows of a job, in its second cache, and how far apart they are: whole panels, and
	 * a line more, which spreads them over the sets of a cache. */
	KN_HEADS_ROWS = 16,
	KN_HEADS_LD = CAD_KV_RANK_MAX + 16,

	/* ffn: the same as linear; and rows whose gate_up result waits in scratch (L2) for the activation. */
	KN_FFN_PANELS_MAX = 8,
	KN_FFN_JOBS_PER_THREAD = 8,
	KN_FFN_TILE_ROWS = 96,
	/* and columns of a row that a thread sums, in its L1 cache. */
	KN_SUM_COLUMNS = 1024,

	/* GEMM: rows whose sums and factors stay in L2, floats of x that wait there, packed (the
	 * stack holds them), values of k of a panel that several tiles read in turn; distances of
	 * prefetch in the weights (tile.h). */
	KN_GEMM_ROWS = 48,
	KN_PACKED_FLOATS = 32768,
	KN_BLOCK_K = 512,
	KN_FETCH_NEAR_BYTES = 8192,
	KN_FETCH_FAR_BYTES = 16384,
	/* The same in profile bf16-sm90: rows, and values of k that are packed at once. */
	KN_SM90_ROWS = 32,
	KN_SM90_CHUNK = 128,
	/* GEMM on integers: rows of a block (a multiple of every form's tile), groups of k of them
	 * that are packed at once, distance of prefetch. */
	KN_BLOCK_ROWS = 96,
	KN_BLOCK_GROUPS = 4,
	KN_FETCH_BYTES = 4096,
	/* From how many rows on u4 is widened to s8 for them, where there is VNNI. */
	KN_WIDEN_ROWS_MIN = 10,
	/* From how many rows on AMX, with its tiles of 16 rows, is faster than AVX-512 VNNI (measured
	 * on a Xeon). No other form is chosen by rows: the widest one is the fastest at all of them
	 * (bench_kernels --rows, on a Zen 4 without AMX). */
	KN_AMX_ROWS_MIN = 9,

	/* Attention: queries that walk the pages together, those of a register tile, room for the
	 * chunks that are computed in parallel; with fewer blocks per thread, chunks are split. */
	KN_ATTEND_QUERIES = 48,
	KN_ATTEND_TILE = 8,
	KN_ATTEND_PARTS_BYTES = 4 << 20,
	KN_ATTEND_BLOCKS_PER_THREAD = 2,

	/* Packing: bytes that are worth handing to another thread, and values of a row that are
	 * read in one go (64 rows of a panel in L2). */
	KN_PACK_RANGE_BYTES = 1 << 20,
	KN_PACK_FETCH_VALUES = 2048,

	/* The pool: how long a thread looks for work before it sleeps. To wake up takes some 50 us;
	 * between two operators of a short step are some 10. */
	KN_POOL_SPIN_NS = 20000,
};

#endif
