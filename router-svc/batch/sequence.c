/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/batch/sequence.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum cad_status tokens_check(
	const char *what, const int32_t *ids, size_t count, uint32_t vocab, struct cad_error *error)
{
	for (size_t i = 0; i < count; i++)
		if (ids[i] < 0 || (uint32_t)ids[i] >= vocab)
			return cad_error_set(error, CAD_ERR_INVALID,
				"token %zu of the %s has id %d, but ids go from 0 to %u", i, what, ids[i], vocab - 1);
	return CAD_OK;
}

enum cad_status rt_sequence_check(
	const struct rt_request *request, uint32_t context_max, uint32_t vocab, struct cad_error *error)
{
	if (request->prompt_count == 0)
		return cad_error_set(error, CAD_ERR_INVALID, "the prompt has no tokens");
	if (request->prompt_count >= context_max)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the prompt has %zu tokens, but prompt and answer together may have at most %u here",
			request->prompt_count, context_max);
	if (request->received_count >= context_max - request->prompt_count)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the prompt has %zu tokens and the answer %zu already, but together they may have at most %u here",
			request->prompt_count, request->received_count, context_max);
	if (request->stop_ids_count > RT_STOP_IDS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "%zu stop ids are more than the limit of %d",
			request->stop_ids_count, RT_STOP_IDS_MAX);

	enum cad_status status = tokens_check("prompt", request->prompt, request->prompt_count, vocab, error);
	return status == CAD_OK ? tokens_check("answer", request->received, request->received_count, vocab, error)
				: status;
}

static void take_tokens(struct rt_sequence *sequence, const struct rt_request *request)
{
	int32_t *received = sequence->tokens + request->prompt_count;

	memcpy(sequence->tokens, request->prompt, request->prompt_count * sizeof *sequence->tokens);
	sequence->request.prompt = sequence->tokens;
	sequence->count = sequence->given = (uint32_t)(request->prompt_count + request->received_count);
	sequence->usage.prompt_tokens = (uint32_t)request->prompt_count;
	sequence->request.received = received;
	if (request->received_count == 0)
		return;

	memcpy(received, request->received, request->received_count * sizeof *received);
	memcpy(sequence->digest, request->received_digest, sizeof sequence->digest);
	sequence->usage.generated_tokens = (uint32_t)request->received_count;
	sequence->reported = sequence->given - 1; /* a token comes after the routing that led to it */
}

struct rt_sequence *rt_sequence_create(const struct rt_request *request, uint32_t tokens_max)
{
	CAD_ASSERT(request->prompt_count >= 1 && request->prompt_count + request->received_count <= tokens_max &&
		request->stop_ids_count <= RT_STOP_IDS_MAX);
	struct rt_sequence *sequence = calloc(1, sizeof *sequence);
	if (!sequence)
		return NULL;
	int32_t *stop_ids = malloc((request->stop_ids_count + 1) * sizeof *stop_ids);
	sequence->request = *request;
	sequence->request.stop_ids = stop_ids;
	sequence->tokens = malloc(tokens_max * sizeof *sequence->tokens);
	sequence->kv = (struct rt_kv_pages){ .slot = UINT32_MAX, .capacity = rt_kv_pages_for(tokens_max) };
	sequence->kv.pages = malloc(sequence->kv.capacity * sizeof *sequence->kv.pages);
	if (!stop_ids || !sequence->tokens || !sequence->kv.pages) {
		rt_sequence_destroy(sequence);
		return NULL;
	}

	if (request->stop_ids_count > 0)
		memcpy(stop_ids, request->stop_ids, request->stop_ids_count * sizeof *stop_ids);
	take_tokens(sequence, request);
	sequence->tokens_max = tokens_max;

	return sequence;
}

void rt_sequence_destroy(struct rt_sequence *sequence)
{
	if (!sequence)
		return;
	free((void *)(uintptr_t)sequence->request.stop_ids);
	free(sequence->tokens);
	free(sequence->kv.pages);
	free(sequence);
}

void rt_sequence_doom(struct rt_sequence *sequence, enum cad_status status, const char *format, ...)
{
	if (sequence->doomed != CAD_OK)
		return;
	sequence->doomed = status;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(sequence->doom, sizeof sequence->doom, format, arguments);
	va_end(arguments);
}

void rt_list_add(struct rt_sequence_list *list, struct rt_sequence *sequence)
{
	struct rt_sequence *before = list->last;
	while (before && before->id > sequence->id)
		before = before->before;
	sequence->before = before;
	sequence->after = before ? before->after : list->first;
	if (sequence->after)
		sequence->after->before = sequence;
	else
		list->last = sequence;
	if (before)
		before->after = sequence;
	else
		list->first = sequence;
	list->count++;
}

void rt_list_remove(struct rt_sequence_list *list, struct rt_sequence *sequence)
{
	if (sequence->before)
		sequence->before->after = sequence->after;
	else
		list->first = sequence->after;
	if (sequence->after)
		sequence->after->before = sequence->before;
	else
		list->last = sequence->before;
	sequence->before = sequence->after = NULL;
	list->count--;
}
