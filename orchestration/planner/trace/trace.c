/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/trace/trace.h"

#include <stdlib.h>
#include <string.h>

enum cad_status pl_trace_create(uint32_t layers, uint32_t experts, uint32_t k, uint64_t tokens, bool scores,
	struct pl_trace **trace, struct cad_error *error)
{
	if (layers == 0 || layers > PL_TRACE_LAYERS_MAX)
		return cad_error_set(
			error, CAD_ERR_RANGE, "a trace has 1 to %d layers, not %u", PL_TRACE_LAYERS_MAX, layers);
	if (experts == 0 || experts > PL_TRACE_EXPERTS_MAX)
		return cad_error_set(
			error, CAD_ERR_RANGE, "a trace has 1 to %d experts, not %u", PL_TRACE_EXPERTS_MAX, experts);
	if (k == 0 || k > PL_TRACE_TOPK_MAX)
		return cad_error_set(
			error, CAD_ERR_RANGE, "a token selects 1 to %d experts, not %u", PL_TRACE_TOPK_MAX, k);
	if (tokens == 0 || tokens > UINT32_MAX || tokens > PL_TRACE_CELLS_MAX / layers / k)
		return cad_error_set(error, CAD_ERR_RANGE,
			"%llu tokens of %u layers x %u experts: a trace has 1 to %llu of them",
			(unsigned long long)tokens, layers, k, (unsigned long long)(PL_TRACE_CELLS_MAX / layers / k));
	size_t cells = (size_t)layers * tokens * k;
	struct pl_trace *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a trace");
	*made = (struct pl_trace){
		.layers = layers,
		.experts = experts,
		.k = k,
		.tokens = tokens,
		.ids = malloc(cells * sizeof *made->ids),
		.scores = scores ? calloc(cells, sizeof *made->scores) : NULL,
		.request = calloc(tokens, sizeof *made->request),
		.layer = calloc(layers, sizeof *made->layer),
		.model = strdup(""),
		.provenance = strdup(""),
	};

	if (!made->ids || !made->request || !made->layer || !made->model || !made->provenance ||
		(scores && !made->scores)) {
		pl_trace_free(made);
		return cad_error_set(error, CAD_ERR_MEMORY,
			"no memory for a trace of %llu tokens, %u layers and %u experts per token",
			(unsigned long long)tokens, layers, k);
	}

	memset(made->ids, 0xff, cells * sizeof *made->ids);
	for (uint32_t row = 0; row < layers; row++)
		made->layer[row] = row;
	*trace = made;

	return CAD_OK;
}

void pl_trace_free(struct pl_trace *trace)
{
	if (!trace)
		return;
	free(trace->ids);
	free(trace->scores);
	free(trace->request);
	free(trace->layer);
	free(trace->model);
	free(trace->provenance);
	free(trace);
}

static enum cad_status set_name(char **name, const char *text, const char *what, struct cad_error *error)
{
	if (!text)
		return CAD_OK;

	if (strlen(text) > PL_TRACE_NAME_BYTES_MAX)
		return cad_error_set(
			error, CAD_ERR_RANGE, "the %s of a trace has at most %d bytes", what, PL_TRACE_NAME_BYTES_MAX);
	char *copy = strdup(text);
	if (!copy)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the %s of a trace", what);
	free(*name);
	*name = copy;

	return CAD_OK;
}

enum cad_status pl_trace_set_names(
	struct pl_trace *trace, const char *model, const char *provenance, struct cad_error *error)
{
	enum cad_status status = set_name(&trace->model, model, "model", error);
	return status == CAD_OK ? set_name(&trace->provenance, provenance, "provenance", error) : status;
}

enum cad_status pl_trace_check_cell(uint16_t *ids, uint32_t k, uint32_t experts, struct cad_error *error)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < k; i++) {
		if (ids[i] == PL_TRACE_NONE)
			continue;
		if (ids[i] >= experts)
			return cad_error_set(error, CAD_ERR_CORRUPT, "expert %u, but there are %u", ids[i], experts);
		for (uint32_t j = 0; j < count; j++)
			if (ids[j] == ids[i])
				return cad_error_set(error, CAD_ERR_CORRUPT, "expert %u is selected twice", ids[i]);
		ids[count++] = ids[i];
	}

	while (count < k)
		ids[count++] = PL_TRACE_NONE;
	return CAD_OK;
}

/* ---- parts ---- */

/* Tokens [begin, begin + count) of `from` to token `at` of `to`, whose requests go on from
 * `request`. */
static void copy_tokens(
	struct pl_trace *to, uint64_t at, const struct pl_trace *from, uint64_t begin, uint64_t count, uint32_t request)
{
	for (uint32_t row = 0; row < to->layers; row++) {
		size_t cells = count * to->k;
		memcpy(pl_trace_cell(to, row, at), pl_trace_row(from, row, begin), cells * sizeof *to->ids);
		if (to->scores)
			memcpy(to->scores + (row * to->tokens + at) * to->k,
				from->scores + (row * from->tokens + begin) * from->k, cells * sizeof *to->scores);
	}
	for (uint64_t i = 0; i < count; i++)
		to->request[at + i] = request + from->request[begin + i] - from->request[begin];
}

enum cad_status pl_trace_create_like(const struct pl_trace *shape, uint32_t experts, uint64_t tokens,
	struct pl_trace **trace, struct cad_error *error)
{
	struct pl_trace *made;
	enum cad_status status =
		pl_trace_create(shape->layers, experts, shape->k, tokens, shape->scores != NULL, &made, error);

	if (status != CAD_OK)
		return status;

	memcpy(made->layer, shape->layer, shape->layers * sizeof *made->layer);
	status = pl_trace_set_names(made, shape->model, shape->provenance, error);
	if (status != CAD_OK)
		pl_trace_free(made);
	else
		*trace = made;

	return status;
}

enum cad_status pl_trace_join(
	struct pl_trace *const *parts, size_t count, struct pl_trace **trace, struct cad_error *error)
{
	uint64_t tokens = 0;
	uint32_t experts = 0;

	for (size_t i = 0; i < count; i++) {
		const struct pl_trace *part = parts[i], *first = parts[0];
		if (part->layers != first->layers || part->k != first->k ||
			memcmp(part->layer, first->layer, first->layers * sizeof *first->layer) != 0 ||
			!part->scores != !first->scores)
			return cad_error_set(error, CAD_ERR_INVALID,
				"part %zu has %u layers, %u experts per token and %s scores, but part 1 has %u, %u and %s, or other layers",
				i + 1, part->layers, part->k, part->scores ? "its" : "no", first->layers, first->k,
				first->scores ? "its" : "no");
		tokens += part->tokens;
		experts = part->experts > experts ? part->experts : experts;
	}

	if (count == 0)
		return cad_error_set(error, CAD_ERR_INVALID, "there is nothing to join");
	struct pl_trace *made;
	enum cad_status status = pl_trace_create_like(parts[0], experts, tokens, &made, error);
	if (status != CAD_OK)
		return status;
	uint64_t at = 0;
	uint32_t request = 0;
	for (size_t i = 0; i < count; i++) {
		copy_tokens(made, at, parts[i], 0, parts[i]->tokens, request);
		at += parts[i]->tokens;
		request += pl_trace_requests(parts[i]);
	}

	*trace = made;
	return CAD_OK;
}

/* The first token of the request whose begin comes nearest to `wanted`; never the first or last
 * border. 0: there is none. */
static uint64_t cut_near(const struct pl_trace *trace, double wanted)
{
	uint64_t best = 0;
	for (uint64_t token = 1; token < trace->tokens; token++) {
		double miss = (double)token - wanted, best_miss = (double)best - wanted;
		if (trace->request[token] != trace->request[token - 1] &&
			(best == 0 || miss * miss < best_miss * best_miss))
			best = token;
	}
	return best;
}

static enum cad_status copy_part(
	const struct pl_trace *trace, uint64_t begin, uint64_t count, struct pl_trace **part, struct cad_error *error)
{
	enum cad_status status = pl_trace_create_like(trace, trace->experts, count, part, error);
	if (status == CAD_OK)
		copy_tokens(*part, 0, trace, begin, count, 0);
	return status;
}

enum cad_status pl_trace_split(const struct pl_trace *trace, double share, struct pl_trace **first,
	struct pl_trace **second, struct cad_error *error)
{
	uint64_t cut = cut_near(trace, share * (double)trace->tokens);
	struct pl_trace *head = NULL, *tail = NULL;

	if (cut == 0)
		return cad_error_set(
			error, CAD_ERR_INVALID, "the trace has only one request, and a split goes between two");
	enum cad_status status = first ? copy_part(trace, 0, cut, &head, error) : CAD_OK;
	if (status == CAD_OK && second)
		status = copy_part(trace, cut, trace->tokens - cut, &tail, error);
	if (status != CAD_OK) {
		pl_trace_free(head);
		return status;
	}

	if (first)
		*first = head;
	if (second)
		*second = tail;
	return CAD_OK;
}
