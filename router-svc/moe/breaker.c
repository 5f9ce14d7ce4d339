/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/breaker.h"

#include "common/base/clock.h"

#include <stddef.h>
#include <stdio.h>

enum {
	CALLS_LEAST = 8, /* fewer say nothing about failures */
	WINDOW = 64,     /* after so many calls the counts are halved */
	FAILED_IN_ROW = 3,
	GOOD_CALLS = 3, /* close it */
	OPEN_FIRST_MS = 1000,
	OPEN_LAST_MS = 30000,
};

static uint32_t longer(uint32_t open_ms)
{
	if (open_ms == 0)
		return OPEN_FIRST_MS;
	return open_ms * 2 < OPEN_LAST_MS ? open_ms * 2 : OPEN_LAST_MS;
}

/* ---- of nodes ---- */

static bool opens(struct rt_breaker *breaker, enum rt_breaker_cause cause, uint64_t now_ns)
{
	breaker->opened += breaker->state == RT_BREAKER_CLOSED;
	breaker->state = RT_BREAKER_OPEN;
	breaker->cause = cause;
	breaker->open_ms = longer(breaker->open_ms);
	breaker->half_open_ns = now_ns + breaker->open_ms * CAD_NS_PER_MS;
	breaker->good = 0;
	return true;
}

static bool probed(struct rt_breaker *breaker, bool failed, bool slow, uint64_t now_ns)
{
	if (failed || slow)
		return opens(breaker, failed ? RT_BREAKER_FAILURES : RT_BREAKER_SLOW, now_ns);
	if (++breaker->good < GOOD_CALLS)
		return false;

	breaker->state = RT_BREAKER_CLOSED;
	breaker->calls = breaker->failed = breaker->failed_in_row = 0;
	return true;
}

bool rt_breaker_ended(struct rt_breaker *breaker, bool failed, bool slow, uint64_t now_ns)
{
	if (breaker->state == RT_BREAKER_OPEN)
		return false; /* it was sent for want of another copy, or before */
	if (breaker->state == RT_BREAKER_HALF_OPEN)
		return probed(breaker, failed, slow, now_ns);

	breaker->calls++;
	breaker->failed += failed;
	breaker->failed_in_row = failed ? breaker->failed_in_row + 1 : 0;
	if (slow)
		return opens(breaker, RT_BREAKER_SLOW, now_ns);
	if (breaker->failed_in_row >= FAILED_IN_ROW ||
		(breaker->calls >= CALLS_LEAST && breaker->failed * 2 >= breaker->calls))
		return opens(breaker, RT_BREAKER_FAILURES, now_ns);
	if (breaker->calls < WINDOW)
		return false;

	breaker->calls /= 2;
	breaker->failed /= 2;
	if (breaker->failed == 0)
		breaker->open_ms = 0; /* well for a whole window: the next time is a first one */
	return false;
}

bool rt_breaker_half_open(struct rt_breaker *breaker, uint64_t now_ns)
{
	if (breaker->state == RT_BREAKER_OPEN && now_ns >= breaker->half_open_ns)
		breaker->state = RT_BREAKER_HALF_OPEN;
	return breaker->state == RT_BREAKER_HALF_OPEN;
}

void rt_breaker_text(const struct rt_breaker *breaker, uint64_t p99_ns, char text[RT_BREAKER_TEXT_BYTES])
{
	if (breaker->cause == RT_BREAKER_SLOW)
		snprintf(text, RT_BREAKER_TEXT_BYTES, "99 of 100 calls take up to %llu ms",
			(unsigned long long)(p99_ns / CAD_NS_PER_MS));
	else
		snprintf(text, RT_BREAKER_TEXT_BYTES, "%u of %u calls failed", breaker->failed, breaker->calls);
}

/* ---- of copies ---- */

static struct rt_open_copy *find(struct rt_open_copies *copies, uint32_t layer, uint32_t expert, uint32_t node)
{
	for (struct rt_open_copy *copy = copies->at; copy < copies->at + copies->count; copy++)
		if (copy->layer == layer && copy->expert == expert && copy->node == node)
			return copy;
	return NULL;
}

static struct rt_open_copy *place(struct rt_open_copies *copies)
{
	struct rt_open_copy *first = copies->at;
	if (copies->count < RT_OPEN_COPIES_MAX)
		return &copies->at[copies->count++];
	for (struct rt_open_copy *copy = copies->at; copy < copies->at + copies->count; copy++)
		first = copy->half_open_ns < first->half_open_ns ? copy : first;
	return first;
}

bool rt_open_copies_refused(
	struct rt_open_copies *copies, uint32_t layer, uint32_t expert, uint32_t node, uint64_t now_ns)
{
	struct rt_open_copy *copy = find(copies, layer, expert, node);
	if (copy && now_ns < copy->half_open_ns)
		return false; /* it was sent for want of another copy, or before */

	if (!copy) {
		copy = place(copies);
		*copy = (struct rt_open_copy){ .layer = layer, .expert = expert, .node = node };
		copies->opened++;
	}
	copy->open_ms = longer(copy->open_ms);
	copy->half_open_ns = now_ns + copy->open_ms * CAD_NS_PER_MS;
	return true;
}

void rt_open_copies_answered(struct rt_open_copies *copies, uint32_t layer, uint32_t expert, uint32_t node)
{
	struct rt_open_copy *copy = find(copies, layer, expert, node);
	if (copy)
		*copy = copies->at[--copies->count];
}

bool rt_open_copies_has(
	const struct rt_open_copies *copies, uint32_t layer, uint32_t expert, uint32_t node, uint64_t now_ns)
{
	const struct rt_open_copy *copy = find((struct rt_open_copies *)(uintptr_t)copies, layer, expert, node);
	return copy && now_ns < copy->half_open_ns;
}
