/* SPDX-License-Identifier: Apache-2.0 */
/* The routing that `cadrectl eval` writes beside its logits: safetensors. */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_EVAL_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_EVAL_H

#include "orchestration/planner/trace/source.h"
#include "orchestration/planner/trace/trace.h"

#include <stddef.h>
#include <stdint.h>

/* Errors name the place, not the file. */
CAD_MUST_USE enum cad_status pl_trace_decode_eval(const uint8_t *bytes, size_t size,
	const struct pl_trace_source *source, struct pl_trace **trace, struct cad_error *error);

#endif
