/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels of this folder are launched and timed by. */
#ifndef CADRE_BENCH_GPU_PROBE_H
#define CADRE_BENCH_GPU_PROBE_H

#include "bench/gpu/ceilings.h"
#include "kernels/cuda/gpu.h"

#include <time.h>

/* Of the GPU and this measurement. */
struct probe {
	unsigned cores; /* multiprocessors */
	bool quick;
	cudaStream_t stream;
	void *memory;
	size_t bytes;
};

inline double probe_now()
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

/* The shortest of some runs, of which the first does not count. Launches are too long for the
 * host's clock to matter. */
template <class F> cudaError_t probe_seconds(const probe &p, F launch, double *best)
{
	enum { REPEATS = 5 };
	*best = 1e30;
	for (int i = 0; i <= REPEATS; i++) {
		const double begin = probe_now();
		cudaError_t error = launch();
		if (error == cudaSuccess)
			error = cudaStreamSynchronize(p.stream);
		if (error != cudaSuccess)
			return error;
		const double took = probe_now() - begin;
		if (i > 0 && took < *best)
			*best = took;
	}
	return cudaSuccess;
}

/* ---- probe_sm90.cu ---- */

/* Hopper's integer tensor cores. */
cudaError_t measure_wgmma(const probe &p, bench_ceilings *ceilings);

#endif
