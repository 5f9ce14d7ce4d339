/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows out: pairs are grouped by node, each node gets each row once, its pairs sorted by expert.
 * The engine's thread; allocates nothing, does not block.
 */
#ifndef CADRE_ROUTER_SVC_MOE_DISPATCH_H
#define CADRE_ROUTER_SVC_MOE_DISPATCH_H

#include "router-svc/moe/exchange.h"

/* Begins a work: ids, weights, rows and so on are filled in, the rest is set here. Sends what can
 * be sent now. */
void rt_dispatch(struct rt_exchange *exchange, struct rt_work *work);
/* Sends what is open and has a node. */
void rt_dispatch_open(struct rt_exchange *exchange, struct rt_work *work);

#endif
