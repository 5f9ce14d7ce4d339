/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of threads that share the jobs of one operator at a time. The calling thread is thread 0
 * and works too; one thread at a time may call. It is for steps, whose jobs take microseconds.
 * (Loading, whose loops are long and start others, is shared by common/base/workers.h.)
 *
 * Workers spin for some microseconds after a run and then sleep (futex). A worker that wakes late
 * finds the run closed and is not waited for: with fewer cores than threads nothing stalls on a
 * thread that has no core. All threads compute with the default MXCSR; the caller's is put back
 * after.
 */
#ifndef CADRE_KERNELS_CPU_POOL_H
#define CADRE_KERNELS_CPU_POOL_H

#include "common/base/status.h"

#include <stddef.h>

struct kn_pool;

/* Runs job `job`; `thread` is below kn_pool_threads and no two jobs run under the same number at
 * once: for per-thread scratch. */
typedef void kn_job_fn(void *context, size_t job, unsigned thread);

/* threads: 1 .. KN_THREADS_MAX */
CAD_MUST_USE enum cad_status kn_pool_create(unsigned threads, struct kn_pool **pool);
void kn_pool_destroy(struct kn_pool *pool);
unsigned kn_pool_threads(const struct kn_pool *pool);

/* Runs fn(context, 0 .. jobs - 1), and returns when all are done. Each thread begins with a range of
 * its own, the same one for as many jobs, so that what it wrote in one run is near it in the next;
 * then it helps others with theirs. What a run wrote is visible to the next one: phases of an
 * operator are runs one after another. Not to be called from inside a job. */
void kn_pool_for(struct kn_pool *pool, size_t jobs, kn_job_fn *fn, void *context);

#endif
