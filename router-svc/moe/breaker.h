/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Circuit breakers: what a router leaves out of its choice because it does not work, as long as
 * there is another copy; the last copy is always used.
 *
 * One for each node: it opens when three calls in a row or half of the last failed, or when they
 * take too long. After a while, longer each time, it is half open: a few rows go there a second
 * time (probe.h), and when three calls in a row end well it is closed.
 *
 *     CLOSED --errors, or slow--> OPEN --time--> HALF_OPEN --three good calls--> CLOSED
 *                                  ^-------one bad call--------|
 *
 * One for each copy that its node says not to hold, although the map does. It is half open after a
 * while, too: the next row that wants it goes there. A new map is news: it closes all of these.
 *
 * Plain data, owned by the route table; times are its clock's. Allocates nothing.
 */
#ifndef CADRE_ROUTER_SVC_MOE_BREAKER_H
#define CADRE_ROUTER_SVC_MOE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum rt_breaker_state { RT_BREAKER_CLOSED, RT_BREAKER_OPEN, RT_BREAKER_HALF_OPEN };
enum rt_breaker_cause { RT_BREAKER_FAILURES, RT_BREAKER_SLOW }; /* why it was opened last */

struct rt_breaker {
	enum rt_breaker_state state;
	enum rt_breaker_cause cause;
	uint32_t calls, failed; /* of the last; halved from time to time */
	uint32_t failed_in_row;
	uint32_t good;         /* half open: calls in a row that ended well */
	uint32_t open_ms;      /* the last time; 0: none for long */
	uint64_t half_open_ns; /* open: until then */
	uint64_t opened;       /* how often */
};

/* A call of the node has ended: failed, too slow (by what such calls may take), or neither. Returns
 * whether its state has changed. */
bool rt_breaker_ended(struct rt_breaker *breaker, bool failed, bool slow, uint64_t now_ns);
/* Time has passed. Returns whether the node may be probed: it is half open. */
bool rt_breaker_half_open(struct rt_breaker *breaker, uint64_t now_ns);

enum { RT_BREAKER_TEXT_BYTES = 80 };
/* Why it was opened last, for people: "12 of 20 calls failed". */
void rt_breaker_text(const struct rt_breaker *breaker, uint64_t p99_ns, char text[RT_BREAKER_TEXT_BYTES]);

/* So many copies can be open at once; one more takes the place of the one that is half open
 * first. */
enum { RT_OPEN_COPIES_MAX = 64 };

struct rt_open_copies {
	uint32_t count;
	uint64_t opened; /* how often */
	struct rt_open_copy {
		uint32_t layer, expert, node; /* node: of the map in force */
		uint32_t open_ms;
		uint64_t half_open_ns;
	} at[RT_OPEN_COPIES_MAX];
};

/* The node says that it does not hold the expert. Returns whether its copy was chosen until now. */
bool rt_open_copies_refused(
	struct rt_open_copies *copies, uint32_t layer, uint32_t expert, uint32_t node, uint64_t now_ns);
/* It has answered for it. */
void rt_open_copies_answered(struct rt_open_copies *copies, uint32_t layer, uint32_t expert, uint32_t node);
/* Whether it is left out. */
bool rt_open_copies_has(
	const struct rt_open_copies *copies, uint32_t layer, uint32_t expert, uint32_t node, uint64_t now_ns);

#endif
