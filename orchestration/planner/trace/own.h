/* SPDX-License-Identifier: Apache-2.0 */
/* Cadre's own format: blocks of compressed planes, each with a checksum. own.c draws it. */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_OWN_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_OWN_H

#include "orchestration/planner/trace/source.h"
#include "orchestration/planner/trace/trace.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define PL_TRACE_MAGIC "CADRETR1"
enum { PL_TRACE_MAGIC_BYTES = 8 };

/* Errors name the place, not the file. */
CAD_MUST_USE enum cad_status pl_trace_decode_own(const uint8_t *bytes, size_t size,
	const struct pl_trace_source *source, struct pl_trace **trace, struct cad_error *error);

/* The whole trace in Cadre's own format; the file appears complete or not at all, with mode
 * 0600. */
CAD_MUST_USE enum cad_status pl_trace_write(const char *path, const struct pl_trace *trace, struct cad_error *error);
/* The same to a stream, the caller's. */
CAD_MUST_USE enum cad_status pl_trace_write_to(FILE *stream, const struct pl_trace *trace, struct cad_error *error);

/*
 * Cadre's own format block by block, for recording: shape, names and layers are those of `shape`
 * (its tokens are ignored), and every added trace must have that shape. Requests are counted
 * through: the first request of an added trace is a new one unless `same_request`. One thread at a
 * time.
 */
struct pl_trace_writer;
CAD_MUST_USE enum cad_status pl_trace_writer_create(
	FILE *stream, const struct pl_trace *shape, struct pl_trace_writer **writer, struct cad_error *error);
CAD_MUST_USE enum cad_status pl_trace_writer_add(
	struct pl_trace_writer *writer, const struct pl_trace *trace, bool same_request, struct cad_error *error);
/* Writes the end block: without it the file counts as truncated. The stream stays open, the
 * caller's. */
CAD_MUST_USE enum cad_status pl_trace_writer_finish(struct pl_trace_writer *writer, struct cad_error *error);
void pl_trace_writer_destroy(struct pl_trace_writer *writer);

#endif
