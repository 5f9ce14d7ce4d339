/* SPDX-License-Identifier: Apache-2.0 */
/* Rebalances, placements and the automatic mode as messages. Pure; any thread. */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_REBALANCE_MESSAGE_H
#define CADRE_ORCHESTRATION_PLACEMENT_REBALANCE_MESSAGE_H

#include "cadre/v1/operate.pb-c.h"
#include "common/rpc/codec.h"
#include "orchestration/placement/effect_message.h"
#include "orchestration/placement/rebalance.h"

/* A message that points into itself and borrows from the rebalance: do not move it. */
struct pl_rebalance_message {
	Cadre__V1__Rebalance message;
	struct pl_effect_message predicted, measured;
	char what[PL_REBALANCE_WHAT_BYTES];
	char *warnings[1];
};
Cadre__V1__Rebalance *pl_rebalance_to_proto(const struct pl_rebalance *rebalance, struct pl_rebalance_message *message);

/* In the arena, which the message lives as long as; NULL: out of memory. */
Cadre__V1__PlacementMap *pl_situation_to_proto(const struct pl_situation *situation, struct cad_rpc_arena *arena);

/* A map that an operator wants: the ids of nodes, and which of them hold what. Every expert must
 * have a node; CAD_ERR_INVALID and a sentence. */
CAD_MUST_USE enum cad_status pl_plan_from_proto(const Cadre__V1__ApplyMapRequest *request, struct pl_plan **plan,
	struct pl_cluster *nodes, struct cad_error *error);

#endif
