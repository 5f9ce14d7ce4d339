/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wait for the sums of a work: it ends when nothing is owed any longer. The engine's thread;
 * allocates nothing.
 */
#ifndef CADRE_ROUTER_SVC_MOE_AWAIT_H
#define CADRE_ROUTER_SVC_MOE_AWAIT_H

#include "router-svc/moe/exchange.h"

/* Until every pair has its answer; those of doomed sequences that are not under way are forgotten.
 * Waits for the transport, sends again what came back, hedges what is late, and runs `idle` between
 * its polls. No shipment refers to the work any longer then. */
void rt_await_sums(struct rt_exchange *exchange, struct rt_work *work);

#endif
