/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine can do at best, measured beside every timing, because neighbours and clock
 * speeds change it from minute to minute: bytes read per second by all threads of a pool together,
 * and f32 fused multiply-adds. A timing is reported as a ratio to its limit.
 */
#ifndef CADRE_BENCH_LIMITS_H
#define CADRE_BENCH_LIMITS_H

#include "kernels/cpu/pool.h"

#include <stdint.h>

enum limit {
	LIMIT_READ,    /* GB/s, from memory */
	LIMIT_FMA_256, /* GFLOP/s in AVX2 */
	LIMIT_FMA_512, /* GFLOP/s in AVX-512; only where there is AVX-512 */
	LIMIT_COUNT,
};

/* One window of some milliseconds, the value in the unit above. `buffer` is 64-byte aligned, larger
 * than the caches, and filled; only LIMIT_READ looks at it. */
double limit_probe(struct kn_pool *pool, enum limit limit, const uint8_t *buffer, size_t bytes);

/* "intel-xeon-2.50ghz-2": names the machine in CSV files: model and number of cores, letters,
 * digits and dashes. */
const char *limit_machine(char name[64]);

#endif
