/* SPDX-License-Identifier: Apache-2.0 */
/* How a file with a trace is to be read: what its readers share. */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_SOURCE_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_SOURCE_H

#include <stdint.h>

enum pl_trace_format { PL_TRACE_AUTO, PL_TRACE_OWN, PL_TRACE_CSV, PL_TRACE_JSON, PL_TRACE_EVAL, PL_TRACE_ANSWER };
/* Of requests in JSON: only the first step is the prompt, the others are decoded. Of answers: what
 * the prompt has. */
enum pl_trace_phase { PL_TRACE_PHASE_ALL, PL_TRACE_PHASE_PREFILL, PL_TRACE_PHASE_DECODE };

struct pl_trace_source {
	enum pl_trace_format format; /* PL_TRACE_AUTO: recognised by content */
	enum pl_trace_phase phase;
	/* CSV, JSON and answers do not say how many experts a layer has; 0: the highest id plus one */
	uint32_t experts;
	uint64_t cells_max; /* layers x tokens x k; 0: PL_TRACE_CELLS_MAX */
};

#endif
