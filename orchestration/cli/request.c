/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/request.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- requests ---- */

void cl_request_fini(struct cl_request *request)
{
	free(request->text);
	free(request->stop);
	cad_ids_fini(&request->ids);
}

static enum cad_status ids_add(struct cad_ids *ids, int32_t id, struct cad_error *error)
{
	if (ids->count == ids->capacity) {
		size_t capacity = ids->capacity ? 2 * ids->capacity : 64;
		int32_t *grown = realloc(ids->ids, capacity * sizeof *grown);
		if (!grown)
			return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %zu token ids", capacity);
		ids->ids = grown;
		ids->capacity = capacity;
	}
	ids->ids[ids->count++] = id;
	return CAD_OK;
}

enum cad_status cl_request_parse_ids(const char *text, struct cad_ids *ids, struct cad_error *error)
{
	for (const char *at = text;; at++) {
		char *end;
		errno = 0;
		long long id = strtoll(at, &end, 10);
		if (end == at || errno || id < 0 || id > INT32_MAX || (*end && *end != ','))
			return cad_error_set(error, CAD_ERR_INVALID,
				"'%.40s' does not begin with a token id: --tokens takes numbers separated by commas, 1,2,3",
				at);
		enum cad_status status = ids_add(ids, (int32_t)id, error);
		if (status != CAD_OK || !*end)
			return status;
		at = end;
	}
}

static enum cad_status string_member(const json_t *json, const char *key, char **text, struct cad_error *error)
{
	const json_t *member = json_object_get(json, key);
	if (!member || json_is_null(member))
		return CAD_OK;
	if (!json_is_string(member))
		return cad_error_set(error, CAD_ERR_CORRUPT, "request: \"%s\" is not a string", key);
	if (strlen(json_string_value(member)) != json_string_length(member))
		return cad_error_set(error, CAD_ERR_CORRUPT, "request: \"%s\" has U+0000, which no request may", key);
	*text = strdup(json_string_value(member));
	return *text ? CAD_OK : cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a request");
}

/* A whole number, up to 2^64 - 1: above 2^63 - 1 it is written as a string, which JSON readers do
 * not round. */
static enum cad_status number_member(
	const json_t *json, const char *key, uint64_t max, uint64_t *value, struct cad_error *error)
{
	const json_t *member = json_object_get(json, key);
	if (!member || json_is_null(member))
		return CAD_OK;

	uint64_t number = (uint64_t)json_integer_value(member);
	bool fine = json_is_integer(member) && json_integer_value(member) >= 0;
	if (json_is_string(member)) {
		char *end;
		errno = 0;
		number = strtoull(json_string_value(member), &end, 10);
		fine = !errno && end != json_string_value(member) && !*end;
	}

	if (!fine || number > max)
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "request: \"%s\" is not a number from 0 to %" PRIu64, key, max);
	*value = number;
	return CAD_OK;
}

static enum cad_status real_member(const json_t *json, const char *key, float *value, struct cad_error *error)
{
	const json_t *member = json_object_get(json, key);
	if (!member || json_is_null(member))
		return CAD_OK;
	if (!json_is_number(member))
		return cad_error_set(error, CAD_ERR_CORRUPT, "request: \"%s\" is not a number", key);
	*value = (float)json_number_value(member);
	return CAD_OK;
}

static enum cad_status ids_member(const json_t *json, struct cad_ids *ids, struct cad_error *error)
{
	const json_t *tokens = json_object_get(json, "tokens"), *id;
	size_t index;
	enum cad_status status = CAD_OK;

	json_array_foreach(tokens, index, id)
	{
		json_int_t value = json_integer_value(id);
		if (!json_is_integer(id) || value < 0 || value > INT32_MAX)
			return cad_error_set(error, CAD_ERR_CORRUPT, "request: tokens[%zu] is not a token id", index);
		status = ids_add(ids, (int32_t)value, error);
		if (status != CAD_OK)
			break;
	}
	return status;
}

enum cad_status cl_request_from_json(const json_t *json, struct cl_request *request, struct cad_error *error)
{
	struct cl_request made = { 0 };
	uint64_t max_tokens = 0, top_k = 0;

	if (!json_is_object(json))
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"it has no \"request\": the output of 'cadrectl generate -o json' is needed");
	enum cad_status status = string_member(json, "text", &made.text, error);
	if (status == CAD_OK)
		status = string_member(json, "stop", &made.stop, error);
	if (status == CAD_OK)
		status = ids_member(json, &made.ids, error);
	if (status == CAD_OK)
		status = number_member(json, "max_tokens", UINT32_MAX, &max_tokens, error);
	if (status == CAD_OK)
		status = number_member(json, "top_k", UINT32_MAX, &top_k, error);
	if (status == CAD_OK)
		status = number_member(json, "seed", UINT64_MAX, &made.seed, error);
	if (status == CAD_OK)
		status = real_member(json, "temperature", &made.temperature, error);
	if (status == CAD_OK)
		status = real_member(json, "top_p", &made.top_p, error);
	if (status == CAD_OK)
		status = real_member(json, "min_p", &made.min_p, error);
	if (status == CAD_OK && !made.text && made.ids.count == 0)
		status = cad_error_set(error, CAD_ERR_CORRUPT, "request: neither \"text\" nor \"tokens\" is given");
	if (status != CAD_OK) {
		cl_request_fini(&made);
		return status;
	}

	made.max_tokens = (uint32_t)max_tokens;
	made.top_k = (uint32_t)top_k;
	made.ignore_eos = json_is_true(json_object_get(json, "ignore_eos"));
	*request = made;

	return CAD_OK;
}

static json_t *ids_to_json(const struct cad_ids *ids)
{
	json_t *array = json_array();
	for (size_t i = 0; array && i < ids->count; i++)
		(void)json_array_append_new(array, json_integer(ids->ids[i]));
	return array;
}

static json_t *seed_to_json(uint64_t seed)
{
	char text[24];
	if (seed <= INT64_MAX)
		return json_integer((json_int_t)seed);
	snprintf(text, sizeof text, "%" PRIu64, seed);
	return json_string(text);
}

/* The shortest decimal that is this float again: 0.8, not 0.800000011920929. */
static json_t *float_to_json(float value)
{
	char text[32];
	for (int digits = 6; digits <= 9; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, (double)value);
		if (strtof(text, NULL) == value)
			break;
	}
	return json_real(strtod(text, NULL));
}

json_t *cl_request_to_json(const struct cl_request *request)
{
	json_t *json = json_object();
	if (!json)
		return NULL;

	int failed = request->text ? json_object_set_new(json, "text", json_string(request->text))
				   : json_object_set_new(json, "tokens", ids_to_json(&request->ids));
	failed |= json_object_set_new(json, "max_tokens", json_integer(request->max_tokens));
	failed |= json_object_set_new(json, "ignore_eos", json_boolean(request->ignore_eos));
	failed |= json_object_set_new(json, "temperature", float_to_json(request->temperature));
	failed |= json_object_set_new(json, "top_k", json_integer(request->top_k));
	failed |= json_object_set_new(json, "top_p", float_to_json(request->top_p));
	failed |= json_object_set_new(json, "min_p", float_to_json(request->min_p));
	failed |= json_object_set_new(json, "seed", seed_to_json(request->seed));
	if (request->stop)
		failed |= json_object_set_new(json, "stop", json_string(request->stop));
	if (!failed)
		return json;
	json_decref(json);

	return NULL;
}

void cl_request_to_message(const struct cl_request *request, struct cl_request_message *message)
{
	cadre__v1__generate_request__init(&message->message);
	cadre__v1__tokens__init(&message->tokens);
	cadre__v1__sampling__init(&message->sampling);

	if (request->text) {
		message->message.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TEXT;
		message->message.text = request->text;
	} else {
		message->tokens.ids = request->ids.ids;
		message->tokens.n_ids = request->ids.count;
		message->message.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS;
		message->message.tokens = &message->tokens;
	}

	message->message.max_tokens = request->max_tokens;
	message->message.ignore_eos = request->ignore_eos;
	message->message.return_routing = request->routing;
	message->sampling.temperature = request->temperature;
	message->sampling.top_k = request->top_k;
	message->sampling.top_p = request->top_p;
	message->sampling.min_p = request->min_p;
	message->sampling.seed = request->seed;
	message->message.sampling = &message->sampling;
	message->stop[0] = request->stop;
	message->message.stop = message->stop;
	message->message.n_stop = request->stop ? 1 : 0;
}

/* ---- results ---- */

void cl_result_fini(struct cl_result *result)
{
	cad_ids_fini(&result->ids);
	cad_text_fini(&result->text);
	json_decref(result->routing);
}

/* Routers of version 0.2.0 do not send the bytes. */
const char *cl_response_text(const Cadre__V1__GenerateResponse *response, size_t *size)
{
	*size = response->text_bytes.len;
	if (*size > 0)
		return (const char *)response->text_bytes.data;
	*size = strlen(response->text);
	return response->text;
}

static enum cad_status text_add(struct cad_text *text, const char *piece, size_t bytes, struct cad_error *error)
{
	if (text->size + bytes + 1 > text->capacity) {
		size_t capacity = 2 * text->capacity + bytes + 256;
		char *grown = realloc(text->bytes, capacity);
		if (!grown)
			return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the text");
		text->bytes = grown;
		text->capacity = capacity;
	}

	memcpy(text->bytes + text->size, piece, bytes);
	text->size += bytes;
	text->bytes[text->size] = 0;
	return CAD_OK;
}

static json_t *layer_to_json(const Cadre__V1__LayerRouting *layer)
{
	json_t *experts = json_array(), *weights = json_array(), *nodes = json_array();
	for (size_t i = 0; i < layer->n_experts; i++)
		(void)json_array_append_new(experts, json_integer(layer->experts[i]));
	for (size_t i = 0; i < layer->n_weights; i++)
		(void)json_array_append_new(weights, json_real((double)layer->weights[i]));
	for (size_t i = 0; i < layer->n_nodes; i++)
		(void)json_array_append_new(nodes, json_string(layer->nodes[i]));
	return json_pack("{s:i, s:o, s:o, s:o}", "layer", (int)layer->layer, "experts", experts, "weights", weights,
		"nodes", nodes);
}

static enum cad_status routing_add(
	struct cl_result *result, const Cadre__V1__GenerateResponse *response, struct cad_error *error)
{
	if (response->n_routing > 0 && !result->routing)
		result->routing = json_array();
	for (size_t i = 0; i < response->n_routing; i++) {
		const Cadre__V1__TokenRouting *token = response->routing[i];
		if (token->position < result->routed)
			continue;
		json_t *layers = json_array();
		for (size_t l = 0; l < token->n_layers; l++)
			(void)json_array_append_new(layers, layer_to_json(token->layers[l]));
		if (json_array_append_new(result->routing,
			    json_pack("{s:i, s:o}", "position", (int)token->position, "layers", layers)) != 0)
			return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the routing of %zu tokens",
				response->n_routing);
		result->routed = token->position + 1;
	}
	return CAD_OK;
}

enum cad_status cl_result_add(
	struct cl_result *result, const Cadre__V1__GenerateResponse *response, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	for (size_t i = 0; status == CAD_OK && i < response->n_token_ids; i++)
		status = ids_add(&result->ids, response->token_ids[i], error);
	size_t size;
	const char *text = cl_response_text(response, &size);
	if (status == CAD_OK)
		status = text_add(&result->text, text, size, error);
	if (status == CAD_OK)
		status = routing_add(result, response, error);
	if (status != CAD_OK || response->finish_reason == CADRE__V1__FINISH_REASON__FINISH_REASON_UNSPECIFIED)
		return status;
	result->finished = true;
	result->finish_reason = response->finish_reason;
	snprintf(result->digest, sizeof result->digest, "%s", response->digest);
	snprintf(result->settings, sizeof result->settings, "%s", response->settings);

	if (response->usage) {
		result->prompt_tokens = response->usage->prompt_tokens;
		result->generated_tokens = response->usage->generated_tokens;
		result->first_token_us = response->usage->first_token_us;
		result->total_us = response->usage->total_us;
		result->nodes_touched = response->usage->nodes_touched;
		result->routed_rows = response->usage->routed_rows;
		result->bytes_sent = response->usage->bytes_sent;
		result->bytes_received = response->usage->bytes_received;
		result->calls_hedged = response->usage->calls_hedged;
		result->hedges_won = response->usage->hedges_won;
		result->rows_diverted = response->usage->rows_diverted;
	}

	if (response->capacity) {
		snprintf(result->policy, sizeof result->policy, "%s", response->capacity->policy);
		result->factor = (double)response->capacity->factor;
		result->dropped = response->capacity->dropped;
		result->spilled = response->capacity->spilled;
	}

	if (response->absent) {
		snprintf(result->absent_policy, sizeof result->absent_policy, "%s", response->absent->policy);
		result->absent_slots = response->absent->slots;
		result->absent_rows = response->absent->rows;
	}

	return CAD_OK;
}

const char *cl_finish_name(Cadre__V1__FinishReason reason)
{
	return reason == CADRE__V1__FINISH_REASON__FINISH_REASON_STOP ? "stop" : "length";
}

json_t *cl_result_to_json(const struct cl_result *result, const struct cl_request *request, const char *where)
{
	json_t *json = json_pack(
		"{s:o, s:s%, s:s, s:s, s:s, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:{s:s, s:f, s:I, s:I}, s:{s:s, s:I, s:I}, s:s, s:I, s:I, s:o}",
		"token_ids", ids_to_json(&result->ids), "text", result->text.bytes ? result->text.bytes : "",
		result->text.size, "finish_reason", cl_finish_name(result->finish_reason), "digest", result->digest,
		"settings", result->settings, "usage", "prompt_tokens", (json_int_t)result->prompt_tokens,
		"generated_tokens", (json_int_t)result->generated_tokens, "first_token_us",
		(json_int_t)result->first_token_us, "total_us", (json_int_t)result->total_us, "nodes_touched",
		(json_int_t)result->nodes_touched, "routed_rows", (json_int_t)result->routed_rows, "bytes_sent",
		(json_int_t)result->bytes_sent, "bytes_received", (json_int_t)result->bytes_received, "calls_hedged",
		(json_int_t)result->calls_hedged, "hedges_won", (json_int_t)result->hedges_won, "rows_diverted",
		(json_int_t)result->rows_diverted, "capacity", "policy", result->policy, "factor", result->factor,
		"dropped", (json_int_t)result->dropped, "spilled", (json_int_t)result->spilled, "absent", "policy",
		result->absent_policy, "slots", (json_int_t)result->absent_slots, "rows",
		(json_int_t)result->absent_rows, "computed_by", where, "resumed", (json_int_t)result->resumed,
		"resume_gap_us", (json_int_t)result->gap_us, "request", cl_request_to_json(request));
	if (json && result->routing && json_object_set(json, "routing", result->routing) != 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}
