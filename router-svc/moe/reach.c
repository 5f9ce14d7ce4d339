/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/reach.h"

/* Beside the index in `newest`: nobody has looked at it. */
enum { INDEX = 3, UNSEEN = 4 };

void rt_reach_init(struct rt_reach *reach)
{
	for (int i = 0; i < 3; i++)
		reach->views[i].epoch = reach->views[i].count = 0;
	reach->filled = 0;
	reach->read = 1;
	atomic_init(&reach->newest, 2);
}

struct rt_reach_view *rt_reach_begin(struct rt_reach *reach) { return &reach->views[reach->filled]; }

void rt_reach_publish(struct rt_reach *reach)
{
	reach->filled = atomic_exchange_explicit(&reach->newest, reach->filled | UNSEEN, memory_order_acq_rel) & INDEX;
}

const struct rt_reach_view *rt_reach_look(struct rt_reach *reach)
{
	if (atomic_load_explicit(&reach->newest, memory_order_relaxed) & UNSEEN)
		reach->read = atomic_exchange_explicit(&reach->newest, reach->read, memory_order_acq_rel) & INDEX;
	return &reach->views[reach->read];
}
