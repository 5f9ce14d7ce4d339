/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a step is divided: into stages, in the order of the data path, by which its time is counted
 * (the metrics use these names); and its rows, into micro-batches.
 *
 * Each stage closes its own scope; it is charged the time since the previous stage closed its own.
 * Scopes close where the host knows that the work is done: after a wait, or, on the CPU, when an
 * operator has returned. For a device that lags behind the host, events would be used here. The
 * engine's thread writes, any thread may read the sums.
 */
#ifndef CADRE_ROUTER_SVC_STAGES_H
#define CADRE_ROUTER_SVC_STAGES_H

#include "common/base/clock.h"

enum { RT_MICRO_BATCHES_MAX = 4 };

enum rt_stage {
	RT_STAGE_EMBED,
	RT_STAGE_ATTENTION,
	RT_STAGE_GATE,
	RT_STAGE_DISPATCH,
	RT_STAGE_SHARED,
	RT_STAGE_WAIT,
	RT_STAGE_COMBINE,
	RT_STAGE_DENSE,
	RT_STAGE_HEAD,
	RT_STAGE_SAMPLE,
	RT_STAGE_COUNT
};
extern const char *const rt_stage_names[RT_STAGE_COUNT];

struct rt_stages {
	const struct cad_clock *clock;
	uint64_t since_ns;
	_Atomic uint64_t ns[RT_STAGE_COUNT];
};

/* A step begins: the time before it is not counted. */
void rt_stages_begin(struct rt_stages *stages);
void rt_stage_end(struct rt_stages *stages, enum rt_stage stage);

#endif
