/* What the readers share: tokens that come one by one, of which nobody knows how many there will
 * be. One thread; allocates. */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_INTERNAL_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_INTERNAL_H

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
/* Empties the rows into a trace. experts 0: the highest id and one. */
CAD_MUST_USE enum cad_status pl_rows_finish(
	struct pl_rows *rows, uint32_t experts, struct pl_trace **trace, struct cad_error *error);
void pl_rows_fini(struct pl_rows *rows);

static inline uint16_t *pl_trace_cell(struct pl_trace *trace, uint32_t layer, uint64_t token)
{
	return trace->ids + ((uint64_t)layer * trace->tokens + token) * trace->k;
}

/* A trace of `tokens` tokens with everything else as in `shape`. */
CAD_MUST_USE enum cad_status pl_trace_create_like(const struct pl_trace *shape, uint32_t experts, uint64_t tokens,
	struct pl_trace **trace, struct cad_error *error);

/* The k ids of a cell: below `experts` or none, and no expert twice; the sentence says which. Moves
 * PL_TRACE_NONE to the end. */
CAD_MUST_USE enum cad_status pl_trace_check_cell(uint16_t *ids, uint32_t k, uint32_t experts, struct cad_error *error);

/* The readers. Their sentences name the place, not the file. */
CAD_MUST_USE enum cad_status pl_trace_decode_own(const uint8_t *bytes, size_t size,
	const struct pl_trace_source *source, struct pl_trace **trace, struct cad_error *error);
CAD_MUST_USE enum cad_status pl_trace_decode_csv(const char *text, size_t size, const struct pl_trace_source *source,
	struct pl_trace **trace, struct cad_error *error);
CAD_MUST_USE enum cad_status pl_trace_decode_json(const char *text, size_t size, const struct pl_trace_source *source,
	struct pl_trace **trace, struct cad_error *error);
CAD_MUST_USE enum cad_status pl_trace_decode_eval(const uint8_t *bytes, size_t size,
	const struct pl_trace_source *source, struct pl_trace **trace, struct cad_error *error);

#define PL_TRACE_MAGIC "CADRETR1"
enum { PL_TRACE_MAGIC_BYTES = 8 };

#endif
