/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The step of an expert node: take, group, run, pack, answer. One thread runs it; it allocates
 * nothing and takes no lock.
 */
#ifndef CADRE_EXPERT_SVC_STEP_H
#define CADRE_EXPERT_SVC_STEP_H

#include "common/process/metrics.h"
#include "common/cluster/settings.h"
#include "expert-svc/serve/exec.h"
#include "expert-svc/work.h"

/* Totals since creation; written by the stepping and the exchange thread, read by any. */
struct ex_counters {
	_Atomic uint64_t calls, rows, pairs, steps, not_held, expired, bad_calls, busy, internal, poisoned_rows;
	_Atomic uint64_t device_ns[KN_STAGE_COUNT]; /* the device's own time */
};

struct ex_step {
	struct ex_inbox *inbox;
	struct ex_store *store;
	struct ex_exec exec;
	struct ex_batch batch;
	const struct cad_model_spec *spec;
	const float *quanta; /* [layers] */
	const struct cad_clock *clock;
	struct ex_counters *counters;
	struct ex_work *work;                                              /* NULL: not kept */
	struct cad_histogram *queue_seconds, *compute_seconds, *step_rows; /* NULL: not kept */
	/* The job is done: its answer may be sent. */
	void (*answer)(void *context, struct ex_job *job);
	void *context;
	/* The device has failed: told once. From then on nothing is computed, and calls are answered
	 * NOT_HELD, with which routers go elsewhere. NULL: calls of a failed step are answered
	 * INTERNAL, which ends their requests. */
	void (*device_failed)(void *context);
	void *device_failed_context;
	bool has_failed;
};

/* One step over the calls that wait. False: there were none. */
bool ex_step_run(struct ex_step *step);

#endif
