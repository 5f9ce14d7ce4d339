/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that plans: one order at a time, so that the service's own thread never waits for a
 * search. It runs with lower priority than everything else on the machine.
 *
 * All functions belong to the thread of the loop, and none blocks but close, which waits for the
 * search to notice (one layer's step at most).
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_PLAN_THREAD_H
#define CADRE_ORCHESTRATION_PLACEMENT_PLAN_THREAD_H

#include "orchestration/placement/planning.h"

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

struct pl_plan_thread {
	uv_async_t ready;
	pthread_t thread;
	bool running, silent; /* silent: cancelled, and nobody waits for the result */
	bool waiting;         /* an order that begins when what was cancelled has ended */
	_Atomic bool finished;
	atomic_bool cancelled;
	struct pl_planning_order order, next;
	struct pl_planning_result result;
	/* The result is borrowed. */
	void (*done)(void *context, struct pl_planning_result *result);
	void *context;
	void (*closed)(void *context);
	void *closed_context;
};

void pl_plan_thread_init(struct pl_plan_thread *plan, uv_loop_t *loop,
	void (*done)(void *context, struct pl_planning_result *result), void *context);
/* Nothing may be running, but for what was cancelled. Takes what the order points to, in any case.
 * CAD_ERR_EXHAUSTED: no thread can be made. */
CAD_MUST_USE enum cad_status pl_plan_thread_start(
	struct pl_plan_thread *plan, struct pl_planning_order *order, struct cad_error *error);
/* done will not be called for what runs now. */
void pl_plan_thread_cancel(struct pl_plan_thread *plan);
void pl_plan_thread_close(struct pl_plan_thread *plan, void (*closed)(void *context), void *context);

/* How many threads a search may have: a quarter of the cores, since others work there, too. */
uint32_t pl_plan_threads(void);

#endif
