/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which node should hold which expert: a pure function of which nodes there are, how much room they
 * have and what they hold.
 *
 * It promises this: no node gets more than its memory holds; everything is placed if it fits at
 * all; what is held stays where it is, unless `rebalance` asks for even layers; within a layer the
 * nodes differ by at most one expert when memory allows; equal input gives equal output. Experts
 * that were never placed go in runs of consecutive ids (models that route by groups of experts
 * profit), or, with a seed, in an order that the seed shuffles. Deterministic, no clock, no
 * randomness of its own; allocates scratch memory and frees it; any thread.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_ASSIGN_H
#define CADRE_ORCHESTRATION_PLACEMENT_ASSIGN_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	PL_ASSIGN_HELD = 1,      /* the node holds the expert, or is loading it */
	PL_ASSIGN_FORBIDDEN = 2, /* it must not get it: a load has failed there, or it is leaving */
};

struct pl_assign_node {
	uint64_t memory_bytes; /* for experts, what it holds included */
	const uint8_t *cells;  /* [layers_count * experts] of the flags above; NULL: holds nothing */
};

struct pl_assign_source {
	uint32_t layers_count, experts;
	uint64_t expert_bytes; /* of one expert as a node keeps it */
	const struct pl_assign_node *nodes;
	uint32_t nodes_count;
	/* copies wanted of every expert, on different nodes; all first copies come before any
	 * second */
	uint32_t copies;
	bool rebalance; /* move held experts where that evens out a layer and there is room to move */
	uint64_t seed;  /* 0: runs of consecutive experts */
};

struct pl_assignment {
	uint32_t unplaced;      /* experts without a single place */
	uint64_t missing_bytes; /* the memory that would place them */
	uint32_t loads;         /* places that hold nothing yet */
	char text[256];         /* when unplaced > 0: a sentence that says how much is missing */
};

/* target: [nodes_count][layers_count * experts], 1 if the node should hold the expert, else 0. The
 * only failure is CAD_ERR_MEMORY. */
CAD_MUST_USE enum cad_status pl_assign(
	const struct pl_assign_source *source, uint8_t *target, struct pl_assignment *assignment);

#endif
