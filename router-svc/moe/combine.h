/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums back: an answer is added as a whole, a failed call returns its pairs. The engine's thread;
 * allocates nothing.
 */
#ifndef CADRE_ROUTER_SVC_MOE_COMBINE_H
#define CADRE_ROUTER_SVC_MOE_COMBINE_H

#include "router-svc/moe/exchange.h"

/* The shipments of its hedge leave, those that have answered and those that have not. */
void rt_combine_drop_hedge(struct rt_shipment *shipment);
/* A hedge that fails in part fails as a whole. What it hedged goes on, if it is still under way,
 * and may be hedged again; else its pairs are open. */
void rt_combine_hedge_failed(struct rt_shipment *hedged);
/* cad_call_done_fn; context: the shipment. */
void rt_combine_done(
	void *context, struct cad_call *handle, enum cad_status status, const struct cad_answer_view *view);

#endif
