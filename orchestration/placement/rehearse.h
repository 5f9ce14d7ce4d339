/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can the target be reached while every expert is served throughout? The rollout itself plays it,
 * without time. Pure; allocates and frees; any thread.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_REHEARSE_H
#define CADRE_ORCHESTRATION_PLACEMENT_REHEARSE_H

#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/plan.h"

#include <stdbool.h>

/* `held` and `target` are plans for the cluster, and both fit there. */
CAD_MUST_USE enum cad_status pl_rehearse(
	const struct pl_cluster *cluster, const struct pl_plan *held, const struct pl_plan *target, bool *reached);

#endif
