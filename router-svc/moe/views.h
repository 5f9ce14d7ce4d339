/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three views of something: one that a writer fills, one that a reader has, and the newest
 * between them. Neither waits for the other, and nothing is allocated. Here are the indices;
 * whoever has the views uses them as `views[filled]` and `views[rt_views_look()]`. One
 * writer, and one reader at a time.
 */
#ifndef CADRE_ROUTER_SVC_MOE_VIEWS_H
#define CADRE_ROUTER_SVC_MOE_VIEWS_H

#include <stdatomic.h>

struct rt_views {
	unsigned filled, read; /* the writer's, the reader's */
	_Atomic unsigned newest;
};

/* Beside the index in `newest`: nobody has looked at it. */
enum { RT_VIEWS = 3, RT_VIEW_INDEX = 3, RT_VIEW_UNSEEN = 4 };

static inline void rt_views_init(struct rt_views *views)
{
	views->filled = 0;
	views->read = 1;
	atomic_init(&views->newest, 2);
}

/* What was filled in is the newest. */
static inline void rt_views_publish(struct rt_views *views)
{
	views->filled = RT_VIEW_INDEX &
		atomic_exchange_explicit(&views->newest, views->filled | RT_VIEW_UNSEEN, memory_order_acq_rel);
}

/* The index of the newest; the reader's until its next call. */
static inline unsigned rt_views_look(struct rt_views *views)
{
	if (atomic_load_explicit(&views->newest, memory_order_relaxed) & RT_VIEW_UNSEEN)
		views->read =
			atomic_exchange_explicit(&views->newest, views->read, memory_order_acq_rel) & RT_VIEW_INDEX;
	return views->read;
}

#endif
