/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums back: an answer is added as a whole, a failed call returns its pairs. The engine's thread;
 * allocates nothing.
 */
#ifndef CADRE_ROUTER_SVC_MOE_COMBINE_H
#define CADRE_ROUTER_SVC_MOE_COMBINE_H

#include "router-svc/moe/exchange.h"

/* Waits for the device, when shipments are spent, and makes them free. */
void rt_combine_reclaim(struct rt_exchange *exchange);
/* cad_call_done_fn; context: the shipment. */
void rt_combine_done(
	void *context, struct cad_call *handle, enum cad_status status, const struct cad_answer_view *view);

#endif
