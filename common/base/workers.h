/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that share loops of long rounds, for loading: from 100 us on a range, so a lock per range
 * costs nothing. (A step's operators are shared by kernels/cpu/pool.h, which spins.)
 *
 * Whoever starts a loop works on it and returns when all of it is done. Loops may be started by any
 * threads, by several at once, and from inside a loop: helpers take ranges of the loop that was
 * started last, so that inner loops end first, and no core idles while any loop has ranges left.
 */
#ifndef CADRE_COMMON_BASE_WORKERS_H
#define CADRE_COMMON_BASE_WORKERS_H

#include "common/base/status.h"

#include <stddef.h>

struct cad_workers;

/* `threads` - 1 helpers, as every loop's own thread works too; 1: none. CAD_ERR_EXHAUSTED: they
 * cannot be started. */
CAD_MUST_USE enum cad_status cad_workers_create(
	unsigned threads, struct cad_workers **workers, struct cad_error *error);
/* No loop may run. NULL is allowed. */
void cad_workers_destroy(struct cad_workers *workers);

/* Rounds begin .. end - 1. */
typedef void cad_rounds_fn(void *context, size_t begin, size_t end);
/* Rounds 0 .. count - 1 in ranges of `grain` at most, in any order. workers NULL: in this thread
 * alone, all at once. */
void cad_workers_for(struct cad_workers *workers, size_t count, size_t grain, cad_rounds_fn *rounds, void *context);

/* From now on helpers take no further range, for good: loops run in the threads that started them.
 * Any thread, also while loops run. */
void cad_workers_retire(struct cad_workers *workers);

#endif
