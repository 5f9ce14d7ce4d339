/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes of nodes whose breaker is half open: a few rows of a work go there a second time, and
 * nobody waits for the answer, which counts for nothing but the breaker (breaker.h). So a node that
 * still does not work costs no request anything. One at a time for each node, and within the half
 * of the shipments that may be out for nothing (exchange.h).
 *
 * The engine's thread; allocates nothing, does not block.
 */
#ifndef CADRE_ROUTER_SVC_MOE_PROBE_H
#define CADRE_ROUTER_SVC_MOE_PROBE_H

#include "router-svc/moe/exchange.h"

/* A work was dispatched: sends what probes its rows are good for. */
void rt_probe(struct rt_exchange *exchange, struct rt_work *work);

#endif
