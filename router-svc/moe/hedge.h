/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Late calls. A call is late when this router has waited for it twice as long as 99 of 100 such
 * calls of its node take (latency.h). Its node is left out of the choice until it has answered, as
 * long as others have copies; and the call is hedged: its pairs go to copies too, and whichever is
 * first counts (exchange.h).
 *
 * A call is hedged whole or not at all: when one of its pairs has no other copy, the work has to
 * wait for it anyway. Hedges have a budget: a share of all other calls, of which no more than half
 * of the shipments can be saved up, so that hedging never is what a cluster is busy with. It is
 * full at the beginning. All of it is spent on calls that are sent, whether they are first or not.
 *
 * The engine's thread; allocates nothing, does not block.
 */
#ifndef CADRE_ROUTER_SVC_MOE_HEDGE_H
#define CADRE_ROUTER_SVC_MOE_HEDGE_H

#include "router-svc/moe/exchange.h"

/* A shipment was sent: from when on it is late. */
void rt_hedge_watch(struct rt_shipment *shipment);
/* A call was sent that is no hedge's: the budget grows. */
void rt_hedge_allow(struct rt_exchange *exchange);
/* Until when nothing of a work is late, by the transport's clock; UINT64_MAX: it never is. */
uint64_t rt_hedge_due_ns(const struct rt_exchange *exchange, const struct rt_work *work, uint64_t now_ns);
/* Everything that has come was read: hedges what is late of a work. */
void rt_hedge_late(struct rt_exchange *exchange, struct rt_work *work);
/* The hedge of a late shipment failed: another one may be tried. */
void rt_hedge_again(struct rt_shipment *shipment);
/* The hedge of a shipment was complete before its own answer: counts it. */
void rt_hedge_won(const struct rt_shipment *shipment);

#endif
