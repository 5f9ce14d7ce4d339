/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts that nobody holds: what happens to the rows that the gate sends to one, where the
 * operator wants them to wait no longer (`wait`, the default, does nothing here). An expert is
 * absent when the map in force names no node for it; one whose nodes are named and not connected
 * is waited for. Until a router was ready once it waits in any case: a cluster that starts is not
 * one that has lost something.
 *
 *   fail         the row's request ends, with a sentence that names layer and expert.
 *   renormalise  the slot is left out, and the weights of the row's other experts grow by one factor
 *                until they sum to what all of them summed to before. A row without any other gets
 *                nothing from routed experts.
 *
 * It comes after the gate and after the capacity policy (capacity.h), because an expert may become
 * absent while rows wait for it: what capacity dropped is not given back. A row of which something
 * was added already with the old weights is cleared, and sent again: its sum is that of a row whose
 * experts were absent from the beginning.
 *
 * The engine's thread; allocates nothing.
 */
#ifndef CADRE_ROUTER_SVC_MOE_ABSENT_H
#define CADRE_ROUTER_SVC_MOE_ABSENT_H

#include "router-svc/moe/exchange.h"

/* Does it to the open pairs of a work, by the map in force; changes ids and weights. Counts in
 * work->counts and in the usage of the rows' sequences. */
void rt_absent_apply(struct rt_exchange *exchange, struct rt_work *work);

#endif
