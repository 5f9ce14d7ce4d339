/* SPDX-License-Identifier: Apache-2.0 */
/* Traces in what `cadrectl generate --routing -o json` (or --save) wrote. */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_ANSWER_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_ANSWER_H

#include "orchestration/planner/trace/source.h"
#include "orchestration/planner/trace/trace.h"

#include <stddef.h>

/* Errors name the place, not the file. */
CAD_MUST_USE enum cad_status pl_trace_decode_answer(const char *text, size_t size, const struct pl_trace_source *source,
	struct pl_trace **trace, struct cad_error *error);

#endif
