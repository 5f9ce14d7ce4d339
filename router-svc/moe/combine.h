/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums back: an answer is added as a whole, a failed call returns its pairs, and a wait ends when
 * nothing is owed any longer. The engine's thread; allocates nothing.
 */
#ifndef CADRE_ROUTER_SVC_MOE_COMBINE_H
#define CADRE_ROUTER_SVC_MOE_COMBINE_H

#include "router-svc/moe/exchange.h"

/* Until every pair has its answer, or belongs to a sequence that is doomed. Waits for the transport,
 * and runs `idle` between its polls. */
void rt_combine_wait(struct rt_exchange *exchange, struct rt_work *work);
/* Waits for the device, when shipments are spent, and makes them free. */
void rt_combine_reclaim(struct rt_exchange *exchange);
/* cad_call_done_fn; context: the shipment. */
void rt_combine_done(
	void *context, struct cad_call *handle, enum cad_status status, const struct cad_answer_view *view);

#endif
