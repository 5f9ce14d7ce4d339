/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/calls.h"

#include <stdio.h>

void pl_calls_read(const Cadre__V1__ExpertCalls *message, struct pl_calls *calls)
{
	*calls = (struct pl_calls){ .told = message };
	if (!message)
		return;

	calls->late = message->late;
	calls->hedged = message->hedged;
	calls->hedges_won = message->hedges_won;
	calls->rows_diverted = message->rows_diverted;
	calls->p99_us = message->p99_us;
	calls->breakers_open = message->breakers_open;
	calls->copies_open = message->copies_open;

	for (size_t i = 0; i < message->n_breakers && i < PL_BREAKERS_MAX; i++) {
		const Cadre__V1__Breaker *from = message->breakers[i];
		struct pl_breaker *breaker = &calls->breakers[calls->breakers_count++];
		snprintf(breaker->node, sizeof breaker->node, "%s", from->node);
		snprintf(breaker->why, sizeof breaker->why, "%s", from->why);
		breaker->half_open = from->half_open;
		breaker->of_copy = from->copy;
		breaker->layer = from->copy ? from->copy->layer : 0;
		breaker->expert = from->copy ? from->copy->expert : 0;
	}
}

Cadre__V1__ExpertCalls *pl_calls_write(const struct pl_calls *calls, struct pl_calls_message *message)
{
	Cadre__V1__ExpertCalls *to = &message->calls;
	if (!calls->told)
		return NULL;

	cadre__v1__expert_calls__init(to);
	to->late = calls->late;
	to->hedged = calls->hedged;
	to->hedges_won = calls->hedges_won;
	to->rows_diverted = calls->rows_diverted;
	to->p99_us = calls->p99_us;
	to->breakers_open = calls->breakers_open;
	to->copies_open = calls->copies_open;
	to->breakers = message->list;
	to->n_breakers = calls->breakers_count;

	for (uint32_t i = 0; i < calls->breakers_count; i++) {
		const struct pl_breaker *breaker = &calls->breakers[i];
		cadre__v1__breaker__init(&message->breakers[i]);
		cadre__v1__expert_id__init(&message->copies[i]);
		message->breakers[i].node = (char *)(uintptr_t)breaker->node;
		message->breakers[i].why = (char *)(uintptr_t)breaker->why;
		message->breakers[i].half_open = breaker->half_open;
		message->copies[i].layer = breaker->layer;
		message->copies[i].expert = breaker->expert;
		message->breakers[i].copy = breaker->of_copy ? &message->copies[i] : NULL;
		message->list[i] = &message->breakers[i];
	}
	return to;
}
