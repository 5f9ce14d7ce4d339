/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum cad_status id_check(
	const struct rt_request_limits *limits, const char *what, size_t index, int32_t id, struct cad_error *error)
{
	uint32_t vocab = limits->spec->vocab;
	if (id >= 0 && (uint32_t)id < vocab)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_INVALID,
		"%s[%zu] is %d, but this model's vocabulary has %u ids, from 0 to %u", what, index, id, vocab,
		vocab - 1);
}

static enum cad_status text_read(
	const struct rt_request_limits *limits, const char *text, struct cad_ids *ids, struct cad_error *error)
{
	if (!*text)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the prompt is empty: give at least one character in `text`, or one id in `tokens`");
	if (!limits->tokenizer)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"this model has no tokenizer.json: give the prompt as token ids, in `tokens`");
	enum cad_status status =
		cad_tokenizer_encode(limits->tokenizer, text, strlen(text), true, limits->context_max - 1, ids, error);
	if (status == CAD_ERR_RANGE)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the prompt has more than %u tokens, but prompt and answer together may have at most %u here: shorten it",
			limits->context_max - 1, limits->context_max);

	return status;
}

static enum cad_status prompt_read(const struct rt_request_limits *limits, const Cadre__V1__GenerateRequest *message,
	struct cad_ids *ids, struct rt_request *request, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	switch (message->prompt_case) {
	case CADRE__V1__GENERATE_REQUEST__PROMPT_TEXT:
		status = text_read(limits, message->text, ids, error);
		request->prompt = ids->ids;
		request->prompt_count = ids->count;
		break;
	case CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS:
		request->prompt = message->tokens->ids;
		request->prompt_count = message->tokens->n_ids;
		break;
	default: return cad_error_set(error, CAD_ERR_INVALID, "the request has no prompt: set `text` or `tokens`");
	}
	if (status != CAD_OK)
		return status;
	if (request->prompt_count == 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the prompt is empty: give at least one character in `text`, or one id in `tokens`");
	if (request->prompt_count >= limits->context_max)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the prompt has %zu tokens, but prompt and answer together may have at most %u here: shorten it",
			request->prompt_count, limits->context_max);
	const char *what = message->prompt_case == CADRE__V1__GENERATE_REQUEST__PROMPT_TEXT
		? "tokenizer.json does not fit the model: the text's id"
		: "tokens.ids";
	for (size_t i = 0; status == CAD_OK && i < request->prompt_count; i++)
		status = id_check(limits, what, i, request->prompt[i], error);

	return status;
}

/* Not !(x < low), so that NaN is refused. */
static enum cad_status range_check(const char *name, float value, float max, const char *range, struct cad_error *error)
{
	if (value >= 0 && value <= max && isfinite(value))
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_INVALID, "sampling.%s is %g; it must be %s", name, (double)value, range);
}

static enum cad_status sampling_read(
	const Cadre__V1__Sampling *message, struct kn_sampling *sampling, struct cad_error *error)
{
	*sampling = (struct kn_sampling){ 0 };
	if (!message)
		return CAD_OK;
	enum cad_status status =
		range_check("temperature", message->temperature, INFINITY, "0 (greedy) or a positive number", error);
	if (status == CAD_OK)
		status = range_check("top_p", message->top_p, 1, "from 0 (off) to 1", error);
	if (status == CAD_OK)
		status = range_check("min_p", message->min_p, 1, "from 0 (off) to 1", error);
	if (status == CAD_OK)
		*sampling = (struct kn_sampling){ message->temperature, message->top_p, message->min_p, message->top_k,
			message->seed };

	return status;
}

static enum cad_status stops_check(
	const struct rt_request_limits *limits, const Cadre__V1__GenerateRequest *message, struct cad_error *error)
{
	if (message->n_stop > RT_STOP_STRINGS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "%zu stop strings are more than the limit of %d",
			message->n_stop, RT_STOP_STRINGS_MAX);
	if (message->n_stop > 0 && !limits->tokenizer)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"this model has no tokenizer.json, so stop strings cannot be found: use stop_ids");
	for (size_t i = 0; i < message->n_stop; i++) {
		size_t size = strlen(message->stop[i]);
		if (size == 0 || size > RT_STOP_STRING_BYTES_MAX)
			return cad_error_set(error, CAD_ERR_INVALID,
				"stop[%zu] has %zu bytes; a stop string may have 1 to %d", i, size,
				RT_STOP_STRING_BYTES_MAX);
	}

	if (message->n_stop_ids > RT_STOP_IDS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "%zu stop ids are more than the limit of %d",
			message->n_stop_ids, RT_STOP_IDS_MAX);
	enum cad_status status = CAD_OK;
	for (size_t i = 0; status == CAD_OK && i < message->n_stop_ids; i++)
		status = id_check(limits, "stop_ids", i, message->stop_ids[i], error);

	return status;
}

/* ---- what was received of an answer ---- */

static bool contains(const int32_t *ids, size_t count, int32_t id)
{
	for (size_t i = 0; i < count; i++)
		if (ids[i] == id)
			return true;
	return false;
}

static bool digest_read(const char *text, uint8_t digest[16])
{
	if (strlen(text) != 32 || strspn(text, "0123456789abcdefABCDEF") != 32)
		return false;
	for (size_t i = 0; i < 16; i++) {
		char pair[3] = { text[2 * i], text[2 * i + 1] };
		digest[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return true;
}

/* What counts the tokens that are left. */
static enum cad_status left_check(const Cadre__V1__GenerateRequest *message, struct cad_error *error)
{
	if (message->max_tokens == 0 && !message->resume->no_limit)
		return cad_error_set(error, CAD_ERR_INVALID,
			"max_tokens is 0, but with `resume` it counts what is left of the answer: if the first request had 0, set resume.no_limit");
	if (message->max_tokens > 0 && message->resume->no_limit)
		return cad_error_set(error, CAD_ERR_INVALID,
			"max_tokens is %u, but resume.no_limit says that the first request had 0: leave one of them out",
			message->max_tokens);
	return CAD_OK;
}

/* Nothing may come after a token that ends an answer. */
static enum cad_status received_check(
	const struct rt_request_limits *limits, const Cadre__V1__GenerateRequest *message, struct cad_error *error)
{
	const Cadre__V1__Resume *resume = message->resume;
	enum cad_status status = CAD_OK;

	for (size_t i = 0; status == CAD_OK && i < resume->n_token_ids; i++) {
		int32_t id = resume->token_ids[i];
		status = id_check(limits, "resume.token_ids", i, id, error);
		if (status == CAD_OK &&
			(contains(message->stop_ids, message->n_stop_ids, id) ||
				(!message->ignore_eos &&
					contains(limits->spec->eos_ids, limits->spec->eos_ids_count, id))))
			status = cad_error_set(error, CAD_ERR_INVALID,
				"resume.token_ids[%zu] is %d, which ends the answer: nothing is left to resume", i, id);
	}
	return status;
}

static enum cad_status resume_read(const struct rt_request_limits *limits, const Cadre__V1__GenerateRequest *message,
	struct rt_request *request, struct cad_error *error)
{
	const Cadre__V1__Resume *resume = message->resume;
	if (!resume)
		return CAD_OK;
	if (resume->n_token_ids == 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"resume has no token_ids: to ask from the beginning, leave `resume` out");
	if (resume->fingerprint[0] && limits->fingerprint && strcmp(resume->fingerprint, limits->fingerprint) != 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the answer comes from model/settings '%.120s', but this router computes with '%s': resume it on a router of the same cluster, with the same policies",
			resume->fingerprint, limits->fingerprint);
	if (!digest_read(resume->digest, request->received_digest))
		return cad_error_set(error, CAD_ERR_INVALID,
			"resume.digest is '%.40s', but must be 32 hex digits: digest_so_far of the last message that had tokens",
			resume->digest);
	if (resume->n_token_ids >= limits->context_max - request->prompt_count)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the prompt has %zu tokens and resume.token_ids %zu, but prompt and answer together may have at most %u here: nothing is left to resume",
			request->prompt_count, resume->n_token_ids, limits->context_max);
	request->received = resume->token_ids;
	request->received_count = resume->n_token_ids;

	enum cad_status status = left_check(message, error);
	return status == CAD_OK ? received_check(limits, message, error) : status;
}

/* ---- a request ---- */

static enum cad_status room_check(
	const struct rt_request_limits *limits, const struct rt_request *request, struct cad_error *error)
{
	uint32_t room = limits->context_max - (uint32_t)(request->prompt_count + request->received_count);
	char received[64] = "";

	if (request->max_tokens <= room)
		return CAD_OK;
	if (request->received_count > 0)
		snprintf(received, sizeof received, " and %zu of the answer", request->received_count);
	return cad_error_set(error, CAD_ERR_INVALID,
		"max_tokens is %u, but after a prompt of %zu tokens%s only %u of the %u that prompt and answer may have together are left",
		request->max_tokens, request->prompt_count, received, room, limits->context_max);
}

enum cad_status rt_request_read(const struct rt_request_limits *limits, const Cadre__V1__GenerateRequest *message,
	struct cad_ids *ids, struct rt_request *request, struct cad_error *error)
{
	struct rt_request read = {
		.max_tokens = message->max_tokens,
		.ignore_eos = message->ignore_eos,
		.want_routing = message->return_routing,
	};

	/* What is cheap to check comes before the tokenizer. */
	enum cad_status status = sampling_read(message->sampling, &read.sampling, error);

	if (status == CAD_OK)
		status = stops_check(limits, message, error);
	if (status == CAD_OK)
		status = prompt_read(limits, message, ids, &read, error);
	if (status == CAD_OK)
		status = resume_read(limits, message, &read, error);
	if (status == CAD_OK)
		status = room_check(limits, &read, error);
	if (status != CAD_OK)
		return status;
	read.stop_ids = message->stop_ids;
	read.stop_ids_count = message->n_stop_ids;
	*request = read;

	return CAD_OK;
}

enum cad_status rt_request_answer(const struct rt_request_limits *limits, const Cadre__V1__GenerateRequest *message,
	struct rt_answer *answer, struct cad_error *error)
{
	const Cadre__V1__Resume *resume = message->resume;
	struct rt_answer made;

	enum cad_status status = rt_answer_init(&made, limits->tokenizer, message->stop, message->n_stop);
	if (status != CAD_OK)
		return cad_error_set(error, status, "no memory for the text of the answer; try again later");

	if (resume) {
		size_t skipped;
		status = rt_answer_skip(&made, resume->token_ids, resume->n_token_ids, &skipped, error);
		if (status == CAD_OK && skipped < resume->n_token_ids)
			status = cad_error_set(error, CAD_ERR_INVALID,
				"the text of resume.token_ids[%zu] completes a stop string, which ends the answer: nothing is left to resume",
				skipped);
	}
	if (status != CAD_OK) {
		rt_answer_fini(&made);
		return status;
	}

	*answer = made;
	return CAD_OK;
}
