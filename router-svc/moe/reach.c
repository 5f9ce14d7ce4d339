/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/reach.h"

void rt_reach_init(struct rt_reach *reach)
{
	for (int i = 0; i < RT_VIEWS; i++)
		reach->views[i].epoch = reach->views[i].count = 0;
	rt_views_init(&reach->at);
}

struct rt_reach_view *rt_reach_begin(struct rt_reach *reach) { return &reach->views[reach->at.filled]; }

void rt_reach_publish(struct rt_reach *reach) { rt_views_publish(&reach->at); }

const struct rt_reach_view *rt_reach_look(struct rt_reach *reach) { return &reach->views[rt_views_look(&reach->at)]; }
