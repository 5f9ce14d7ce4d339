/*
 * A trace: which experts each token chose, in every MoE layer; what the planner plans on and what its plans are measured with.
 *
 * Plain data in the heap, immutable once made, freed with pl_trace_free; any thread may read it. Layers are the MoE layers in ascending order, counted from 0.
 * Tokens are in the order in which they were recorded, those of a request one after the other. All functions block on the disk and allocate.
 */
#ifndef CADRE_PLACEMENT_TRACE_H
#define CADRE_PLACEMENT_TRACE_H

#include "common/status.h"

#include <stdint.h>

enum { PL_TRACE_NONE = 0xffff };

struct pl_trace {
	uint32_t layers, experts, k;
	uint64_t tokens;
	uint16_t *ids;               /* [layers][tokens][k], in order of selection; PL_TRACE_NONE: no expert, at the end of a row that chose fewer */
	float *scores;               /* of the same shape, or NULL */
	uint32_t *request;           /* [tokens] ascending from 0: the request that a token belongs to */
	char *model, *provenance;    /* never NULL; "" where nothing is known */
};

/* Reads the own format or CSV, told apart by content. */
CAD_MUST_USE enum cad_status pl_trace_read(const char *path, struct pl_trace **trace, struct cad_error *error);
/* The first requests with at least `share` (0 to 1) of the tokens, and the others; either may be NULL when it is not wanted. Both are copies. */
CAD_MUST_USE enum cad_status pl_trace_split(const struct pl_trace *trace, double share, struct pl_trace **first, struct pl_trace **second, struct cad_error *error);
void pl_trace_free(struct pl_trace *trace);   /* NULL is fine */

/* The choice of one token in one layer: k entries. */
static inline const uint16_t *pl_trace_row(const struct pl_trace *trace, uint32_t layer, uint64_t token)
{
	return trace->ids + ((uint64_t)layer * trace->tokens + token) * trace->k;
}

#endif
