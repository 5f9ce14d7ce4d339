/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/trace/rows.h"

#include <stdlib.h>
#include <string.h>

enum cad_status pl_rows_extend(struct pl_rows *rows, uint32_t request, uint64_t count, struct cad_error *error)
{
	size_t cells = (size_t)rows->layers * rows->k;
	uint64_t limit = rows->cells_max / cells < UINT32_MAX ? rows->cells_max / cells : UINT32_MAX;

	if (count > limit - rows->tokens)
		return cad_error_set(
			error, CAD_ERR_EXHAUSTED, "more than %llu tokens; split the trace", (unsigned long long)limit);
	uint64_t wanted = rows->tokens + count;
	if (wanted > rows->capacity) {
		uint64_t capacity = rows->capacity * 2 > wanted ? rows->capacity * 2 : wanted;
		uint16_t *ids = reallocarray(rows->ids, capacity, cells * sizeof *ids);
		if (ids)
			rows->ids = ids;
		uint32_t *requests = reallocarray(rows->request, capacity, sizeof *requests);
		if (requests)
			rows->request = requests;
		if (!ids || !requests)
			return cad_error_set(
				error, CAD_ERR_MEMORY, "no memory for %llu tokens", (unsigned long long)capacity);
		rows->capacity = capacity;
	}

	memset(rows->ids + rows->tokens * cells, 0xff, count * cells * sizeof *rows->ids);
	for (uint64_t token = rows->tokens; token < wanted; token++)
		rows->request[token] = request;
	rows->tokens = wanted;

	return CAD_OK;
}

static uint32_t experts_seen(const struct pl_rows *rows)
{
	uint32_t experts = 1;
	for (size_t i = 0, cells = (size_t)rows->tokens * rows->layers * rows->k; i < cells; i++)
		if (rows->ids[i] != PL_TRACE_NONE && rows->ids[i] >= experts)
			experts = rows->ids[i] + 1u;
	return experts;
}

enum cad_status pl_rows_finish(struct pl_rows *rows, uint32_t experts, struct pl_trace **trace, struct cad_error *error)
{
	struct pl_trace *made;
	enum cad_status status = pl_trace_create(
		rows->layers, experts ? experts : experts_seen(rows), rows->k, rows->tokens, false, &made, error);

	if (status != CAD_OK)
		return status;

	for (uint32_t row = 0; row < rows->layers; row++) {
		made->layer[row] = rows->layer[row];
		for (uint64_t token = 0; token < rows->tokens; token++)
			memcpy(pl_trace_cell(made, row, token), rows->ids + (token * rows->layers + row) * rows->k,
				rows->k * sizeof *rows->ids);
	}

	memcpy(made->request, rows->request, rows->tokens * sizeof *made->request);
	pl_rows_fini(rows);
	*trace = made;

	return CAD_OK;
}

void pl_rows_fini(struct pl_rows *rows)
{
	free(rows->ids);
	free(rows->request);
	*rows = (struct pl_rows){ 0 };
}
