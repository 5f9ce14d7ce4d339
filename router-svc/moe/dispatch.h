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

/* Packs a shipment's rows and pairs, and starts its call; its pairs' slots are the caller's.
 * CAD_OK: it is out. Anything else: nothing happened; CAD_ERR_INTERNAL: the device failed. */
CAD_MUST_USE enum cad_status rt_dispatch_call(struct rt_shipment *shipment);

#endif
