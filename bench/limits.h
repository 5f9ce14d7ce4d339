/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine can do at best, measured beside every timing, because neighbours and clock
 * speeds change it from minute to minute: bytes read per second by all threads of a pool together,
 * f32 fused multiply-adds, and products of 8-bit integers. A timing is reported as a ratio to its
 * limit.
 */
#ifndef CADRE_BENCH_LIMITS_H
#define CADRE_BENCH_LIMITS_H

#include "kernels/cpu/pool.h"

#include <stdbool.h>
#include <stdint.h>

enum limit {
	LIMIT_READ,     /* GB/s, from memory */
	LIMIT_FMA_256,  /* GFLOP/s in AVX2 */
	LIMIT_FMA_512,  /* GFLOP/s in AVX-512 */
	LIMIT_INT8_256, /* GOP/s, a product and its sum are two, in AVX2 (vpmaddubsw, vpmaddwd, vpaddd) */
	LIMIT_VNNI_256, /* GOP/s in AVX-VNNI */
	LIMIT_VNNI_512, /* GOP/s in AVX-512 VNNI */
	LIMIT_COUNT,
};

/* Whether this machine has the instructions. */
bool limit_exists(enum limit limit);

/* What bounds the arithmetic of a form of the kernels ("avx2") here, in f32 or in integers. (For
 * AMX it is that of VNNI: a ratio above 1 is what tiles bring.) */
enum limit limit_of_form(const char *form, bool integers);

/* The best of some windows of a few milliseconds, after one that starts the threads; the value in
 * the unit above. `buffer` is 64-byte aligned, larger than the caches, and filled; only LIMIT_READ
 * looks at it. The limit must exist. */
double limit_probe(struct kn_pool *pool, enum limit limit, const uint8_t *buffer, size_t bytes);

/* "intel-xeon-2.50ghz-2": names the machine in CSV files: model and number of cores, letters,
 * digits and dashes. */
const char *limit_machine(char name[64]);

#endif
