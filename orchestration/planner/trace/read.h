/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading traces of any format. Functions that take a path block on the disk. Files may come from
 * strangers: they are answered with a sentence that names file and place.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_READ_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_READ_H

#include "orchestration/planner/trace/source.h"
#include "orchestration/planner/trace/trace.h"

#include <stddef.h>

/* Cadre's own format, CSV, JSON, or what `cadrectl eval` or `generate --routing` writes. */
CAD_MUST_USE enum cad_status pl_trace_read(const char *path, struct pl_trace **trace, struct cad_error *error);
CAD_MUST_USE enum cad_status pl_trace_read_as(
	const char *path, const struct pl_trace_source *source, struct pl_trace **trace, struct cad_error *error);
/* From memory; `name` is for sentences. */
CAD_MUST_USE enum cad_status pl_trace_parse(const char *name, const void *bytes, size_t size,
	const struct pl_trace_source *source, struct pl_trace **trace, struct cad_error *error);

#endif
