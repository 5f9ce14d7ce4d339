/* SPDX-License-Identifier: Apache-2.0 */
/* What readers of text share: tokens that arrive one by one, in unknown number. One thread;
 * allocates. */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_ROWS_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_ROWS_H

#include "orchestration/planner/trace/trace.h"

/* Grows by doubling, token after token, each with all its layers. Zeroed before the first use. */
struct pl_rows {
	uint32_t layer[PL_TRACE_LAYERS_MAX];
	uint32_t layers, k;
	uint64_t tokens, capacity, cells_max;
	uint16_t *ids;     /* [tokens][layers][k] */
	uint32_t *request; /* [tokens] */
};

/* Room for `count` further tokens of a request: their ids PL_TRACE_NONE. CAD_ERR_EXHAUSTED above
 * cells_max. */
CAD_MUST_USE enum cad_status pl_rows_extend(
	struct pl_rows *rows, uint32_t request, uint64_t count, struct cad_error *error);
/* Empties the rows into a trace. experts 0: the highest id plus one. */
CAD_MUST_USE enum cad_status pl_rows_finish(
	struct pl_rows *rows, uint32_t experts, struct pl_trace **trace, struct cad_error *error);
void pl_rows_fini(struct pl_rows *rows);

#endif
