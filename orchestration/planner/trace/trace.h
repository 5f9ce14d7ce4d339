/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trace: which experts each token selected, in every MoE layer, token by token and request by
 * request. Plans are made from traces, and measured on them.
 *
 * A `struct pl_trace` is the caller's (`pl_trace_free`), plain arrays, immutable once it is made:
 * any thread may read it. Every trace that is read or made is whole: at least one token and one
 * layer, ids below `experts` or PL_TRACE_NONE and no id twice in a cell (PL_TRACE_NONE only after
 * them), requests ascending from 0 without a gap, layers ascending. read.h reads traces of any
 * format; own.h, csv.h and json.h write them.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_TRACE_TRACE_H
#define CADRE_ORCHESTRATION_PLANNER_TRACE_TRACE_H

#include "common/base/limits.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	PL_TRACE_NONE = 0xffff,
	PL_TRACE_LAYERS_MAX = 1024,
	PL_TRACE_EXPERTS_MAX = 0xffff,
	PL_TRACE_TOPK_MAX = CAD_TOPK_MAX,
	PL_TRACE_NAME_BYTES_MAX = 4096, /* model and provenance, each */
	PL_TRACE_BLOCK_TOKENS_MAX = 4096,
};
#define PL_TRACE_CELLS_MAX (1ull << 32) /* layers x tokens x k: 8 GiB of ids */

struct pl_trace {
	uint32_t layers, experts, k;
	uint64_t tokens;
	/* [layers][tokens][k], in order of selection; PL_TRACE_NONE: no expert, at the end of a row
	 * that chose fewer */
	uint16_t *ids;
	float *scores;            /* the same shape, or NULL */
	uint32_t *request;        /* [tokens]: index of the token's request */
	uint32_t *layer;          /* [layers]: the layer's index in the model, as in maps and plans */
	char *model, *provenance; /* never NULL; "" if not known */
};

/* An empty trace of this shape: ids PL_TRACE_NONE, requests 0, layers 0 to n-1, names "".
 * CAD_ERR_RANGE: a size out of its limits. */
CAD_MUST_USE enum cad_status pl_trace_create(uint32_t layers, uint32_t experts, uint32_t k, uint64_t tokens,
	bool scores, struct pl_trace **trace, struct cad_error *error);
void pl_trace_free(struct pl_trace *trace); /* NULL: nothing */
/* Replaces the names; NULL leaves one as it is. */
CAD_MUST_USE enum cad_status pl_trace_set_names(
	struct pl_trace *trace, const char *model, const char *provenance, struct cad_error *error);

/* The choice of one token in one layer: k entries. `layer` is counted from 0 here. */
static inline const uint16_t *pl_trace_row(const struct pl_trace *trace, uint32_t layer, uint64_t token)
{
	return trace->ids + ((uint64_t)layer * trace->tokens + token) * trace->k;
}
static inline uint32_t pl_trace_requests(const struct pl_trace *trace) { return trace->request[trace->tokens - 1] + 1; }

/* ---- parts ---- */

/* One trace from several, their requests one after another. Layers, k and scores must agree;
 * experts is the greatest, the names are the first's. */
CAD_MUST_USE enum cad_status pl_trace_join(
	struct pl_trace *const *parts, size_t count, struct pl_trace **trace, struct cad_error *error);

/*
 * Cuts between two requests, where the first part comes nearest to `share` of the tokens; both
 * parts are copies with at least one request. Either pointer may be NULL when that part is not
 * wanted. CAD_ERR_INVALID: there is only one request.
 */
CAD_MUST_USE enum cad_status pl_trace_split(const struct pl_trace *trace, double share, struct pl_trace **first,
	struct pl_trace **second, struct cad_error *error);

/* ---- making traces ---- */

/* The choice of a token, to be written. */
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

#endif
