/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processes that expert nodes are told of, so that a node knows who may connect to it: all that
 * have joined and are not forgotten, those that live first.
 *
 * One thread, that of control.h. Nothing allocates; a message borrows from the registry that it was
 * made from.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_PEERS_H
#define CADRE_ORCHESTRATION_PLACEMENT_PEERS_H

#include "orchestration/placement/registry.h"

#include "cadre/v1/placement.pb-c.h"

struct pl_peers {
	uint64_t hash; /* of those that were looked at last */
	Cadre__V1__Peers message;
	Cadre__V1__Peer peers[CAD_PROCESSES_MAX], *list[CAD_PROCESSES_MAX];
};

/* Whether they are others than at the last call. */
bool pl_peers_changed(struct pl_peers *peers, const struct pl_registry *registry);
/* Valid until the registry changes, or the next call. */
const Cadre__V1__Peers *pl_peers_message(struct pl_peers *peers, const struct pl_registry *registry);

#endif
