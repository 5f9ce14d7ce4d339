/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what is to what should be, one expert at a time, while routers go on: the state of every
 * copy of every expert on every node.
 *
 *     NONE -> LOADING -> READY -> LEAVING -> FREEING -> NONE
 *              |  ^                             ^
 *              v  |                             |
 *            (failed) CLAIMED ------------------+
 *
 *     LOADING   a load was ordered; READY when the node has reported it with the checkpoint's
 *               checksum
 *     CLAIMED   a node that joined says that it holds the expert, and nobody has compared its
 *               checksum yet: it is ordered again, which costs a report
 *     READY     in the map, as of the next one that is published
 *     LEAVING   out of the map; kept until every router has moved on to a map without it, and for a
 *               grace beyond that
 *     FREEING   the node was told to free it
 *
 * The order of a move follows from the states: the copy on the source leaves the map only when
 * those on the targets are READY, and is freed only when every router works with a map without it,
 * so that every expert that had a live copy has one at every instant.
 *
 * Slots are those of registry.h. Times are given by the caller. One thread; nothing blocks; memory
 * is allocated when a node is added.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_ROLLOUT_H
#define CADRE_ORCHESTRATION_PLACEMENT_ROLLOUT_H

#include "common/base/status.h"
#include "orchestration/placement/shape.h"

#include <stdbool.h>

enum pl_copy { PL_COPY_NONE, PL_COPY_CLAIMED, PL_COPY_LOADING, PL_COPY_READY, PL_COPY_LEAVING, PL_COPY_FREEING };

struct pl_rollout_options {
	struct pl_shape shape;
	uint64_t expert_bytes; /* may be corrected by pl_rollout_expert_bytes */
	uint32_t loads_max;    /* in flight on one node */
	/* loads in flight of experts that are served elsewhere, in the whole cluster */
	uint32_t moves_max;
	uint64_t publish_interval_ns; /* while loads go on, maps that only add copies come no faster */
	uint64_t free_grace_ns;       /* after the map moved on */
	uint64_t retry_ns;            /* a failed load is not tried on the same node before */
};

/* Orders go out through these, during pl_rollout_turn. `cells` is borrowed. */
struct pl_rollout_orders {
	void (*load)(void *context, uint32_t slot, const uint32_t *cells, uint32_t count);
	void (*free)(void *context, uint32_t slot, const uint32_t *cells, uint32_t count);
	void *context;
};

struct pl_rollout;

CAD_MUST_USE enum cad_status pl_rollout_create(const struct pl_rollout_options *options, struct pl_rollout **rollout);
void pl_rollout_destroy(struct pl_rollout *rollout); /* NULL is fine */

/* A node that may hold experts: everything NONE, out of reach. Adding a node that is there changes
 * its memory. */
CAD_MUST_USE enum cad_status pl_rollout_add(struct pl_rollout *rollout, uint32_t slot, uint64_t memory_bytes);
/* Known from before a restart: READY, and saved already. */
void pl_rollout_restore(struct pl_rollout *rollout, uint32_t slot, uint32_t cell);
/* The node is there and says what it holds: held[cells]. What was READY and is held stays so; what
 * is not held is gone; what is held beyond that is CLAIMED. */
void pl_rollout_join(struct pl_rollout *rollout, uint32_t slot, const uint8_t *held);
/* Its stream broke: no orders until it joins again. */
void pl_rollout_unreachable(struct pl_rollout *rollout, uint32_t slot);
/* It is dead. */
void pl_rollout_drop(struct pl_rollout *rollout, uint32_t slot);

/* Reports. `good`: the checksum is the checkpoint's; if not, the node is told to free the expert
 * and is not asked again for a while. */
void pl_rollout_loaded(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, bool good, uint64_t now_ns);
void pl_rollout_failed(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint64_t now_ns);
void pl_rollout_freed(struct pl_rollout *rollout, uint32_t slot, uint32_t cell);
/* Experts turned out to be larger: what a node has room for is counted anew. Returns whether that
 * is news. */
bool pl_rollout_expert_bytes(struct pl_rollout *rollout, uint64_t bytes);

/* What the node shall hold: target[cells] of 0 and 1. */
void pl_rollout_target(struct pl_rollout *rollout, uint32_t slot, const uint8_t *target);

/* Moves every copy on as far as it goes now and gives the orders. routers_epoch: the lowest epoch
 * that a live router works with, UINT64_MAX without routers. */
void pl_rollout_turn(
	struct pl_rollout *rollout, uint64_t routers_epoch, uint64_t now_ns, const struct pl_rollout_orders *orders);
/* When turn or publish_due should be asked again although nothing happened; UINT64_MAX: never. */
uint64_t pl_rollout_deadline_ns(const struct pl_rollout *rollout, uint64_t now_ns);
/* Whether a new map is due: at once when a copy is lost, else when loads are over or the interval
 * is. */
bool pl_rollout_publish_due(const struct pl_rollout *rollout, uint64_t now_ns);
void pl_rollout_published(struct pl_rollout *rollout, uint64_t epoch, uint64_t now_ns);

/* Reading. Slots that were not added hold nothing. */
enum pl_copy pl_rollout_copy(const struct pl_rollout *rollout, uint32_t slot, uint32_t cell);
/* The flags of assign.h for a node, and the bytes that experts on their way out still take: room
 * that cannot be given away. */
void pl_rollout_view(const struct pl_rollout *rollout, uint32_t slot, uint8_t *flags, uint64_t *leaving_bytes);
uint32_t pl_rollout_in_flight(const struct pl_rollout *rollout); /* loads */
uint64_t pl_rollout_bytes(const struct pl_rollout *rollout);     /* of one expert */
/* True once after a load that failed may be tried again: plan anew. */
bool pl_rollout_retry_due(struct pl_rollout *rollout, uint64_t now_ns);

/* Reports copies whose READY state (`held`) has changed since the last save, and marks them as
 * saved. */
void pl_rollout_unsaved(
	struct pl_rollout *rollout, uint32_t slot, void (*fn)(void *context, uint32_t cell, bool held), void *context);

#endif
