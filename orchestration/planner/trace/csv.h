/* SPDX-License-Identifier: Apache-2.0 */
/* Traces as CSV. */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_CSV_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_CSV_H

#include "orchestration/planner/trace/source.h"
#include "orchestration/planner/trace/trace.h"

#include <stddef.h>
#include <stdio.h>

/* Errors name the place, not the file. */
CAD_MUST_USE enum cad_status pl_trace_decode_csv(const char *text, size_t size, const struct pl_trace_source *source,
	struct pl_trace **trace, struct cad_error *error);

/* To a stream whose errors the caller looks at. */
void pl_trace_print_csv(const struct pl_trace *trace, FILE *stream);

#endif
