/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers in JSON, one object each, a line or not; of which is read:
 *
 *     {"usage": {"prompt_tokens": 5}, "routing": [{"position": 0,
 *         "layers": [{"layer": 3, "experts": [8, 1]}, {"layer": 4, "experts": [0, 5]}]}, ... ]}
 *
 * Each answer becomes a request. Positions below prompt_tokens are the prompt, the others were
 * decoded. A policy may have left experts out: such a token has fewer than the others.
 */
#include "orchestration/planner/trace/answer.h"

#include "orchestration/planner/trace/rows.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

enum { ANSWER_BYTES_MAX = 256 << 20 };

struct answer_reader {
	const struct pl_trace_source *source;
	struct pl_rows *rows;
	uint32_t requests; /* that gave tokens */
	struct cad_error *error;
};

#define MALFORMED(...) cad_error_set(reader->error, CAD_ERR_CORRUPT, __VA_ARGS__)

/* The layers of the first token; k is what any token of this answer has at most. */
static enum cad_status find_shape(struct answer_reader *reader, const json_t *routing)
{
	struct pl_rows *rows = reader->rows;
	const json_t *layers = json_object_get(json_array_get(routing, 0), "layers");
	size_t k = 0;

	if (json_array_size(layers) == 0 || json_array_size(layers) > PL_TRACE_LAYERS_MAX)
		return MALFORMED("the first token has %zu layers; 1 to %d are supported", json_array_size(layers),
			PL_TRACE_LAYERS_MAX);
	for (size_t i = 0; i < json_array_size(layers); i++) {
		json_int_t layer = json_integer_value(json_object_get(json_array_get(layers, i), "layer"));
		if (layer < 0 || layer > UINT32_MAX || (i > 0 && layer <= rows->layer[i - 1]))
			return MALFORMED("the layers of the first token do not ascend");
		rows->layer[i] = (uint32_t)layer;
	}

	for (size_t t = 0; t < json_array_size(routing); t++) {
		layers = json_object_get(json_array_get(routing, t), "layers");
		for (size_t i = 0; i < json_array_size(layers); i++) {
			size_t experts = json_array_size(json_object_get(json_array_get(layers, i), "experts"));
			k = experts > k ? experts : k;
		}
	}
	if (k == 0 || k > PL_TRACE_TOPK_MAX)
		return MALFORMED("%zu experts per token; 1 to %d are supported", k, PL_TRACE_TOPK_MAX);
	rows->layers = (uint32_t)json_array_size(json_object_get(json_array_get(routing, 0), "layers"));
	rows->k = (uint32_t)k;
	return CAD_OK;
}

/* The experts that one token selected in one layer. */
static enum cad_status read_cell(struct answer_reader *reader, const json_t *experts, uint16_t *ids)
{
	uint32_t k = reader->rows->k;

	if (!json_is_array(experts) || json_array_size(experts) > k)
		return MALFORMED("its experts are not a list of at most %u", k);
	for (size_t i = 0; i < json_array_size(experts); i++) {
		json_int_t id = json_integer_value(json_array_get(experts, i));
		if (!json_is_integer(json_array_get(experts, i)) || id < 0 || id >= PL_TRACE_EXPERTS_MAX)
			return MALFORMED("an expert is not a number from 0 to %d", PL_TRACE_EXPERTS_MAX - 1);
		ids[i] = (uint16_t)id;
	}
	return pl_trace_check_cell(
		ids, k, reader->source->experts ? reader->source->experts : PL_TRACE_EXPERTS_MAX, reader->error);
}

static enum cad_status read_token(struct answer_reader *reader, const json_t *layers)
{
	struct pl_rows *rows = reader->rows;

	if (json_array_size(layers) != rows->layers)
		return MALFORMED(
			"it has %zu layers, but the first token has %u", json_array_size(layers), rows->layers);
	enum cad_status status = pl_rows_extend(rows, reader->requests, 1, reader->error);
	for (uint32_t i = 0; status == CAD_OK && i < rows->layers; i++) {
		const json_t *layer = json_array_get(layers, i), *index = json_object_get(layer, "layer");
		if (!json_is_integer(index) || json_integer_value(index) != rows->layer[i])
			return MALFORMED("its layers are not those of the first token");
		status = read_cell(reader, json_object_get(layer, "experts"),
			rows->ids + ((rows->tokens - 1) * rows->layers + i) * rows->k);
		if (status != CAD_OK)
			return cad_error_prefix(reader->error, "layer %u", rows->layer[i]);
	}
	return status;
}

static enum cad_status read_answer(struct answer_reader *reader, const json_t *answer)
{
	const json_t *routing = json_object_get(answer, "routing");
	json_int_t prompt = json_integer_value(json_object_get(json_object_get(answer, "usage"), "prompt_tokens"));
	uint64_t before = reader->rows->tokens;

	if (!json_is_object(answer) || (routing && !json_is_array(routing)))
		return MALFORMED("it is not what 'cadrectl generate --routing -o json' writes");
	if (json_array_size(routing) == 0)
		return MALFORMED("it has no routing: generate with --routing, a model that has experts");
	enum cad_status status = reader->rows->layers == 0 ? find_shape(reader, routing) : CAD_OK;
	for (size_t t = 0; status == CAD_OK && t < json_array_size(routing); t++) {
		const json_t *token = json_array_get(routing, t);
		bool decoded = json_integer_value(json_object_get(token, "position")) >= prompt;
		if (reader->source->phase == (decoded ? PL_TRACE_PHASE_PREFILL : PL_TRACE_PHASE_DECODE))
			continue;
		status = read_token(reader, json_object_get(token, "layers"));
		if (status != CAD_OK)
			return cad_error_prefix(reader->error, "routing[%zu]", t);
	}

	reader->requests += reader->rows->tokens > before;
	return status;
}

enum cad_status pl_trace_decode_answer(const char *text, size_t size, const struct pl_trace_source *source,
	struct pl_trace **trace, struct cad_error *error)
{
	struct pl_rows rows = { .cells_max = source->cells_max };
	struct answer_reader reader = { .source = source, .rows = &rows, .error = error };
	enum cad_status status = CAD_OK;
	size_t at = 0;
	uint64_t number = 0;

	for (; status == CAD_OK && at < size; number++) {
		json_error_t json_error;
		size_t left = size - at;
		json_t *answer = json_loadb(text + at, left < ANSWER_BYTES_MAX ? left : ANSWER_BYTES_MAX,
			JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &json_error);
		status = answer ? read_answer(&reader, answer)
				: cad_error_set(error, CAD_ERR_CORRUPT, "not JSON, or longer than %d MiB: %s",
					  ANSWER_BYTES_MAX >> 20, json_error.text);
		if (status != CAD_OK)
			(void)cad_error_prefix(error, "byte %zu, answer %" PRIu64, at, number);
		json_decref(answer);
		at += (size_t)json_error.position;
		while (at < size && text[at] && strchr(" \t\r\n", text[at]))
			at++;
	}

	if (status == CAD_OK && rows.tokens == 0)
		status = cad_error_set(error, CAD_ERR_CORRUPT, "there are no tokens in %" PRIu64 " answers", number);
	if (status == CAD_OK)
		status = pl_rows_finish(&rows, source->experts, trace, error);
	pl_rows_fini(&rows);

	return status;
}
