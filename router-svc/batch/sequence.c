/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/batch/sequence.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rt_sequence *rt_sequence_create(const struct rt_request *request, uint32_t tokens_max)
{
	CAD_ASSERT(request->prompt_count >= 1 && request->prompt_count <= tokens_max &&
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
	memcpy(sequence->tokens, request->prompt, request->prompt_count * sizeof *sequence->tokens);
	sequence->request.prompt = sequence->tokens;
	sequence->count = (uint32_t)request->prompt_count;
	sequence->tokens_max = tokens_max;
	sequence->usage.prompt_tokens = sequence->count;

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
