/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which node should hold which expert: a pure function of which nodes there are, how much room they
 * have, what they hold, and what the plan in force says.
 *
 * It promises this: no node gets more than its memory holds; everything is placed if it fits at
 * all; pins are kept, and then the plan; an expert that has fewer places than wanted stays where it
 * is held, or gets one where there is room; equal input gives equal output. Without a plan in force
 * what is held stays where it is, unless `level` asks for even layers: then, when memory allows,
 * nodes have experts of each in proportion to their speed, and those of equal speed differ by at
 * most one. Experts that were never placed go in runs of
 * consecutive ids (models that route by groups of experts profit), or, with a seed, in an order
 * that the seed shuffles. Deterministic, no clock, no randomness of its own; allocates scratch
 * memory and frees it; any thread.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_ASSIGN_H
#define CADRE_ORCHESTRATION_PLACEMENT_ASSIGN_H

#include "common/base/status.h"
#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/plan.h"

#include <stdbool.h>
#include <stdint.h>

struct pl_assign_source {
	/* The nodes, each with its memory for experts, what it holds included: a forbidden one gets
	 * nothing. Its pins; those to forbidden nodes do not count. expert_bytes is set. */
	const struct pl_cluster *cluster;
	/* Of these nodes: who holds what, or is loading it; who must not get it, because a load has
	 * failed there; and what is on its way out: it takes room for a while, and comes back only
	 * where it is pinned or planned. */
	const struct pl_plan *held, *failed, *leaving;
	/* The plan in force, of these nodes; NULL: there is none. When nodes are filled, so is
	 * it. */
	struct pl_plan *wanted;
	/* copies wanted of every expert at least, on different nodes; all first copies come before
	 * any second */
	uint32_t copies;
	const uint16_t *copies_of; /* [layers * experts] of single ones, where that is more; NULL: of none */
	bool level;                /* move experts where that evens out a layer and there is room to move */
	const bool *fresh;         /* [nodes] with `wanted`: only to these */
	uint64_t seed;             /* 0: runs of consecutive experts */
};

struct pl_assignment {
	uint32_t unplaced;      /* experts without a single place */
	uint32_t lacking;       /* copies that are wanted and have no place */
	uint64_t missing_bytes; /* the memory that would place the experts without a place */
	uint32_t loads;         /* places that hold nothing yet */
	uint32_t levelled;      /* experts that were moved for even layers */
	char text[256];         /* when unplaced > 0: a sentence that says how much is missing */
};

/* target: a plan of the same layers, experts and nodes, which is overwritten. The only failure is
 * CAD_ERR_MEMORY. */
CAD_MUST_USE enum cad_status pl_assign(
	const struct pl_assign_source *source, struct pl_plan *target, struct pl_assignment *assignment);

/*
 * Can the target be reached from what is held while every expert is served throughout? Both fit.
 * Yes, if there is nothing to load, or one free place on a node that is given experts, or one
 * expert with two copies: rollout_room.c makes all moves with that.
 */
bool pl_assign_reaches(const struct pl_cluster *cluster, const struct pl_plan *held, const struct pl_plan *target);

#endif
