/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a GPU gives at best, as bench_cuda's floors take it: bytes read per second by a kernel that
 * does nothing else, and products of 8-bit integers by tensor cores whose operands stay in
 * registers or shared memory. A library of its own for each device, libcadre-ceilings-NAME.so
 * beside bench_cuda: its kernels are no part of the backend.
 */
#ifndef CADRE_BENCH_GPU_CEILINGS_H
#define CADRE_BENCH_GPU_CEILINGS_H

#ifdef __cplusplus
extern "C" {
#endif

struct bench_ceilings {
	double read_gbs;  /* 10^9 bytes per second */
	double int8_tops; /* 10^12 operations per second; a product and its sum are two */
	const char *int8_by;
};

/* Measures them on the device `index`; quick: with little work, whose figures mean nothing. NULL,
 * or what went wrong. */
typedef const char *bench_ceilings_fn(unsigned index, int quick, struct bench_ceilings *ceilings);

#define BENCH_CEILINGS_SYMBOL "bench_ceilings_measure"

#ifdef __cplusplus
}
#endif

#endif
