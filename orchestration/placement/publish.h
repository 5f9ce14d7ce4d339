/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is published and what is saved, both made from the same two sources: which nodes there are
 * (registry.h) and what is READY (rollout.h).
 *
 * Functions of their arguments, except that pl_publish_save marks what it writes as saved
 * (pl_rollout_unsaved). The thread of the rollout.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_PUBLISH_H
#define CADRE_ORCHESTRATION_PLACEMENT_PUBLISH_H

#include "common/cluster/map.h"
#include "orchestration/placement/registry.h"
#include "orchestration/placement/rollout.h"
#include "orchestration/placement/state.h"

/* A map of what is READY on nodes that count as alive. */
CAD_MUST_USE enum cad_status pl_publish_map(const struct pl_registry *registry, const struct pl_rollout *rollout,
	const struct pl_shape *shape, uint64_t epoch, struct cad_map **map, struct cad_error *error);

/* Inside a transaction of the caller's: the epoch and what changed since the last call. all_kernels
 * not NULL: the file missed a change, so everything is written again, this fingerprint of the
 * kernels too. */
void pl_publish_save(const struct pl_registry *registry, struct pl_rollout *rollout, const struct pl_shape *shape,
	uint64_t epoch, const char *all_kernels, struct pl_state *state);

#endif
