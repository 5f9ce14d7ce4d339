/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node has done, by layer and by expert, since its creation. The thread that steps writes,
 * any thread reads; each number is right by itself. Memory is taken at init.
 */
#ifndef CADRE_EXPERT_SVC_WORK_H
#define CADRE_EXPERT_SVC_WORK_H

#include "common/base/status.h"

#include <stdatomic.h>
#include <stdint.h>

struct ex_layer_work {
	_Atomic uint64_t steps, rows, pairs;
	_Atomic uint64_t activated; /* distinct experts, summed over steps */
	_Atomic uint64_t waiting;   /* calls of the layer that waited when a step began, summed over steps */
	_Atomic uint64_t service_ns;
};

struct ex_work {
	uint32_t layers, experts;
	struct ex_layer_work *layer; /* [layers]; of the model, dense ones too */
	_Atomic uint64_t *pairs;     /* [layers][experts] */
};

CAD_MUST_USE enum cad_status ex_work_init(struct ex_work *work, uint32_t layers, uint32_t experts);
void ex_work_fini(struct ex_work *work); /* zeroed is fine */

/* By the one thread that writes. */
static inline void ex_work_add(_Atomic uint64_t *counter, uint64_t amount)
{
	uint64_t before = atomic_load_explicit(counter, memory_order_relaxed);
	atomic_store_explicit(counter, before + amount, memory_order_relaxed);
}
static inline uint64_t ex_work_read(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif
