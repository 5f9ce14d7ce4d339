/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in JSON, one value each, a line or not, as published with "Patterns behind Chaos:
 * Forecasting Data Movement for Efficient Large-Scale MoE LLM Inference" (arXiv 2510.05497; dataset
 * core12345/MoE_expert_selection_trace, one request a file):
 *
 *     [ {"0": null, "3": [[8 ids], [8 ids], ...], "4": ...},  {"0": null, "3": [[8 ids]], ...},
 *     ... ]
 *
 * a list of steps; of a step, the layers by their index in the model; of a layer, the selected
 * experts of each token of the step. The first step is the prompt, the others have one token each.
 * Dense layers are null or left out. The layers of the first request are those of all.
 */
#include "orchestration/planner/trace/json.h"

#include "orchestration/planner/trace/rows.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_REQUEST_BYTES_MAX = 256 << 20 };

struct json_reader {
	const struct pl_trace_source *source;
	struct pl_rows *rows;
	uint32_t requests; /* that gave tokens */
	struct cad_error *error;
};

#define MALFORMED(...) cad_error_set(reader->error, CAD_ERR_CORRUPT, __VA_ARGS__)

static bool read_layer(const char *key, uint32_t *layer)
{
	char *end;
	unsigned long value = strtoul(key, &end, 10);
	*layer = (uint32_t)value;
	return key[0] >= '0' && key[0] <= '9' && *end == 0 && value <= UINT32_MAX;
}

static int by_value(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
	return (left > right) - (left < right);
}

/* Layers and k, from the first step that has any. */
static enum cad_status find_shape(struct json_reader *reader, const json_t *step)
{
	struct pl_rows *rows = reader->rows;
	uint32_t layers = 0, k = 0;
	const char *key;
	json_t *tokens;

	json_object_foreach((json_t *)(uintptr_t)step, key, tokens)
	{
		if (!json_is_array(tokens) || json_array_size(tokens) == 0)
			continue;
		if (layers == PL_TRACE_LAYERS_MAX)
			return cad_error_set(
				reader->error, CAD_ERR_EXHAUSTED, "more than %d layers", PL_TRACE_LAYERS_MAX);
		if (!read_layer(key, &rows->layer[layers]))
			return MALFORMED("'%.40s' where the index of a layer should be", key);
		layers++;
		size_t experts = json_array_size(json_array_get(tokens, 0));
		if (experts == 0 || experts > PL_TRACE_TOPK_MAX)
			return MALFORMED("layer '%s': %zu experts per token; 1 to %d are supported", key, experts,
				PL_TRACE_TOPK_MAX);
		k = experts > k ? (uint32_t)experts : k;
	}
	qsort(rows->layer, layers, sizeof *rows->layer, by_value);
	for (uint32_t i = 1; i < layers; i++)
		if (rows->layer[i] == rows->layer[i - 1])
			return MALFORMED("layer %u occurs twice", rows->layer[i]);
	rows->layers = layers;
	rows->k = k;

	return CAD_OK;
}

/* The experts that one token selected in one layer. */
static enum cad_status read_cell(struct json_reader *reader, const json_t *selected, uint16_t *ids)
{
	uint32_t k = reader->rows->k;
	if (!json_is_array(selected) || json_array_size(selected) > k)
		return MALFORMED("it is not a list of at most %u experts", k);

	for (size_t i = 0; i < json_array_size(selected); i++) {
		json_int_t id = json_integer_value(json_array_get(selected, i));
		if (!json_is_integer(json_array_get(selected, i)) || id < -1 || id >= PL_TRACE_EXPERTS_MAX)
			return MALFORMED("an expert is not a number from 0 to %d (or -1)", PL_TRACE_EXPERTS_MAX - 1);
		ids[i] = id < 0 ? PL_TRACE_NONE : (uint16_t)id;
	}

	return pl_trace_check_cell(
		ids, k, reader->source->experts ? reader->source->experts : PL_TRACE_EXPERTS_MAX, reader->error);
}

static enum cad_status read_step(struct json_reader *reader, const json_t *step)
{
	struct pl_rows *rows = reader->rows;
	enum cad_status status = CAD_OK;

	if (!json_is_object(step))
		return MALFORMED("it is not an object of layers");

	if (rows->layers == 0)
		status = find_shape(reader, step);
	uint64_t begin = rows->tokens;
	size_t count = 0, listed = 0;
	for (uint32_t i = 0; status == CAD_OK && i < rows->layers; i++) {
		char key[16];
		snprintf(key, sizeof key, "%u", rows->layer[i]);
		const json_t *tokens = json_object_get(step, key);
		size_t size = json_array_size(tokens);
		if (i == 0) {
			count = size;
			status = count ? pl_rows_extend(rows, reader->requests, count, reader->error) : CAD_OK;
		}
		if (status == CAD_OK && size != count)
			return MALFORMED("layer %u has %zu tokens, but layer %u has %zu", rows->layer[i], size,
				rows->layer[0], count);
		for (size_t token = 0; status == CAD_OK && token < count; token++) {
			status = read_cell(reader, json_array_get(tokens, token),
				rows->ids + ((begin + token) * rows->layers + i) * rows->k);
			if (status != CAD_OK)
				return cad_error_prefix(reader->error, "layer %u, token %zu", rows->layer[i], token);
		}
		listed += json_is_array(tokens);
	}

	if (status != CAD_OK)
		return status;
	const char *key;
	json_t *tokens;
	size_t lists = 0;
	json_object_foreach((json_t *)(uintptr_t)step, key, tokens) lists += json_array_size(tokens) > 0;

	return lists > listed ? MALFORMED("it has layers that the first request does not have") : CAD_OK;
}

static enum cad_status read_request(struct json_reader *reader, const json_t *request)
{
	uint64_t before = reader->rows->tokens;
	if (!json_is_array(request))
		return MALFORMED("it is not a list of steps");

	for (size_t i = 0; i < json_array_size(request); i++) {
		if (reader->source->phase == (i == 0 ? PL_TRACE_PHASE_DECODE : PL_TRACE_PHASE_PREFILL))
			continue;
		enum cad_status status = read_step(reader, json_array_get(request, i));
		if (status != CAD_OK)
			return cad_error_prefix(reader->error, "step %zu", i);
	}

	reader->requests += reader->rows->tokens > before;
	return CAD_OK;
}

static size_t skip_space(const char *text, size_t at, size_t size)
{
	while (at < size && strchr(" \t\r\n", text[at]) && text[at])
		at++;
	return at;
}

enum cad_status pl_trace_decode_json(const char *text, size_t size, const struct pl_trace_source *source,
	struct pl_trace **trace, struct cad_error *error)
{
	struct pl_rows rows = { .cells_max = source->cells_max };
	struct json_reader reader = { .source = source, .rows = &rows, .error = error };
	enum cad_status status = CAD_OK;
	uint64_t number = 0;

	for (size_t at = skip_space(text, 0, size); status == CAD_OK && at < size; number++) {
		json_error_t json_error;
		size_t left = size - at;
		json_t *request = json_loadb(text + at, left < JSON_REQUEST_BYTES_MAX ? left : JSON_REQUEST_BYTES_MAX,
			JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &json_error);
		status = request ? read_request(&reader, request)
				 : cad_error_set(error, CAD_ERR_CORRUPT, "not JSON, or longer than %d MiB: %s",
					   JSON_REQUEST_BYTES_MAX >> 20, json_error.text);
		if (status != CAD_OK)
			(void)cad_error_prefix(error, "byte %zu, request %" PRIu64, at, number);
		json_decref(request);
		at = skip_space(text, at + (size_t)json_error.position, size);
	}

	if (status == CAD_OK && rows.tokens == 0)
		status = cad_error_set(error, CAD_ERR_CORRUPT, "there are no tokens in %" PRIu64 " requests", number);
	if (status == CAD_OK)
		status = pl_rows_finish(&rows, source->experts, trace, error);
	pl_rows_fini(&rows);

	return status;
}

/* One line a request, with one step that has all its tokens. */
void pl_trace_print_json(const struct pl_trace *trace, FILE *stream)
{
	for (uint64_t begin = 0, end; begin < trace->tokens; begin = end) {
		for (end = begin + 1; end < trace->tokens && trace->request[end] == trace->request[begin];)
			end++;
		for (uint32_t layer = 0; layer < trace->layers; layer++) {
			fprintf(stream, "%s\"%u\": [", layer ? ", " : "[{", trace->layer[layer]);
			for (uint64_t token = begin; token < end; token++) {
				const uint16_t *ids = pl_trace_row(trace, layer, token);
				for (uint32_t i = 0; i < trace->k; i++)
					fprintf(stream,
						i                       ? ", %d"
							: token > begin ? ", [%d"
									: "[%d",
						ids[i] == PL_TRACE_NONE ? -1 : ids[i]);
				fputc(']', stream);
			}
			fputc(']', stream);
		}
		fputs("}]\n", stream);
	}
}
