/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the present placement to the target, one expert at a time, while routers continue: the state
 * of every copy of every expert on every node.
 *
 *     NONE -> LOADING -> READY -> LEAVING -> FREEING -> NONE
 *              |  ^                             ^
 *              v  |                             |
 *            (failed) CLAIMED ------------------+
 *
 *     LOADING   a load was ordered; READY when the node has reported it with the checkpoint's
 *               checksum
 *     CLAIMED   a node that joined says that it holds the expert, but its checksum has not been
 *               compared yet: it is ordered again, which costs a report
 *     READY     in the map, as of the next one that is published
 *     LEAVING   out of the map; kept until every router has moved on to a map without it, and
 *               then for a grace period
 *     FREEING   the node was ordered to free it
 *
 * The order of a move follows from the states: the copy on the source leaves the map only when
 * those on the targets are READY and routers reach them, and is freed only when every router works
 * with a map without it and reaches another, so that every expert that had a live copy has one at
 * every instant.
 *
 * Slots are those of registry.h. Times are given by the caller. One thread; nothing blocks; memory
 * is allocated when a node is added, and for lists of copies that leave or are being loaded, which
 * only grow.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_ROLLOUT_H
#define CADRE_ORCHESTRATION_PLACEMENT_ROLLOUT_H

#include "common/base/status.h"
#include "orchestration/placement/shape.h"
#include "orchestration/planner/objective/plan.h"

#include <stdbool.h>

enum pl_copy { PL_COPY_NONE, PL_COPY_CLAIMED, PL_COPY_LOADING, PL_COPY_READY, PL_COPY_LEAVING, PL_COPY_FREEING };

struct pl_rollout_options {
	struct pl_shape shape;
	uint64_t expert_bytes; /* of one, on a node of which nothing else is said */
	uint64_t image_bytes;  /* of one as it moves, to any node */
	uint32_t loads_max;    /* in flight on one node */
	/* loads in flight of experts that are served elsewhere, in the whole cluster */
	uint32_t moves_max;
	uint64_t publish_interval_ns; /* during loads, maps that only add copies are published no faster */
	uint64_t free_grace_ns;       /* after the map moved on */
	uint64_t retry_ns;            /* a failed load is not tried again on the same node before */
	uint64_t stall_ns;            /* a load that has not come on for so long is given up; 0: never */
	uint64_t bytes_per_second;    /* of all moves together; 0: as fast as it goes */
};

/* Orders go out through these, during pl_rollout_turn. `cells` is borrowed. */
struct pl_rollout_orders {
	void (*load)(void *context, uint32_t slot, const uint32_t *cells, uint32_t count);
	void (*free)(void *context, uint32_t slot, const uint32_t *cells, uint32_t count);
	/* A load was given up: it is not wanted there for a while. `free` was called for it. */
	void (*stalled)(void *context, uint32_t slot, uint32_t cell);
	void *context;
};

struct pl_rollout;

CAD_MUST_USE enum cad_status pl_rollout_create(const struct pl_rollout_options *options, struct pl_rollout **rollout);
void pl_rollout_destroy(struct pl_rollout *rollout); /* NULL is fine */

/* A node that may hold experts: everything NONE, out of reach. Adding an existing node changes its
 * memory. */
CAD_MUST_USE enum cad_status pl_rollout_add(struct pl_rollout *rollout, uint32_t slot, uint64_t memory_bytes);
/* Known from before a restart: READY, and already saved. */
void pl_rollout_restore(struct pl_rollout *rollout, uint32_t slot, uint32_t cell);
/* The node has joined and says what it holds: held[cells]. What was READY and is held stays READY;
 * what is not held is gone; what else is held is CLAIMED. */
void pl_rollout_join(struct pl_rollout *rollout, uint32_t slot, const uint8_t *held);
/* Its stream broke: no orders until it joins again. */
void pl_rollout_unreachable(struct pl_rollout *rollout, uint32_t slot);
/* How routers reach the node (reach.h): all that count do, and it may be given experts. A node is
 * added with both. Copies on one that is not usable help nobody: those elsewhere are not moves but
 * needed. */
void pl_rollout_reach(struct pl_rollout *rollout, uint32_t slot, bool whole, bool usable);
/* Whether it may be given anything that is not its target: not when it is drained. */
void pl_rollout_open(struct pl_rollout *rollout, uint32_t slot, bool open);
/* It is dead. */
void pl_rollout_drop(struct pl_rollout *rollout, uint32_t slot);

/* Reports. `good`: the checksum is the checkpoint's; if not, the node is ordered to free the
 * expert, and not asked for it again for a while. */
void pl_rollout_loaded(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, bool good, uint64_t now_ns);
/* So many bytes of a load in flight are there. Whether that is news. */
bool pl_rollout_loading(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint64_t bytes, uint64_t now_ns);
void pl_rollout_failed(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint64_t now_ns);
void pl_rollout_freed(struct pl_rollout *rollout, uint32_t slot, uint32_t cell);
/* What an expert takes on a node: what it has room for is counted again. */
void pl_rollout_expert_bytes(struct pl_rollout *rollout, uint32_t slot, uint64_t bytes);

/* The slot that a load in flight was ordered from; CAD_PROCESSES_MAX: from none,
 * or there is no such load. */
void pl_rollout_set_source(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint32_t source);
uint32_t pl_rollout_source(const struct pl_rollout *rollout, uint32_t slot, uint32_t cell);
/* How many loads in flight were ordered from each slot. */
void pl_rollout_asked(const struct pl_rollout *rollout, uint32_t asked[CAD_PROCESSES_MAX]);

/* What every node should hold: node n of the target is the one at slots[n], others should hold
 * nothing. The target's layers are those of the shape, one after the other. */
void pl_rollout_target(struct pl_rollout *rollout, const struct pl_plan *target, const uint32_t *slots);

/* The rate of moves from now on (options). */
void pl_rollout_rate(struct pl_rollout *rollout, uint64_t bytes_per_second);
/* For a load that is being ordered: the bytes per second that it may take; 0: as many as it can,
 * since nobody serves the expert, or there is no limit. A move may take the whole rate: the next
 * one begins when it has had its time, and a node loads one after the other. */
uint64_t pl_rollout_rate_of(const struct pl_rollout *rollout, uint32_t cell);

/* Advances every copy as far as possible now, and gives the orders. routers_epoch: the lowest epoch
 * that a live router works with, UINT64_MAX without routers. */
void pl_rollout_turn(
	struct pl_rollout *rollout, uint64_t routers_epoch, uint64_t now_ns, const struct pl_rollout_orders *orders);
/* When to call turn or publish_due again even if nothing happens; UINT64_MAX: never. */
uint64_t pl_rollout_deadline_ns(const struct pl_rollout *rollout, uint64_t now_ns);
/* Whether a new map is due: at once when a copy is lost, else when loads or the interval are
 * over. */
bool pl_rollout_publish_due(const struct pl_rollout *rollout, uint64_t now_ns);
void pl_rollout_published(struct pl_rollout *rollout, uint64_t epoch, uint64_t now_ns);

/* Reading. Slots that were not added hold nothing. */
enum pl_copy pl_rollout_copy(const struct pl_rollout *rollout, uint32_t slot, uint32_t cell);
/* What assign.h asks about a node, which is node n of these plans: what it holds or is loading;
 * what has failed to load; what is on its way out and still takes room. Returns how many experts
 * take room. */
struct pl_rollout_view {
	struct pl_plan *held, *failed, *leaving;
};
uint32_t pl_rollout_view(
	const struct pl_rollout *rollout, uint32_t slot, uint32_t n, const struct pl_rollout_view *view);
/* What is to be done until every node holds what it should and nothing else. */
struct pl_rollout_work {
	uint32_t pending, loading, leaving; /* copies to be loaded; in flight; that go, or should */
	uint64_t loading_bytes;             /* that are there, of those in flight */
	bool stuck;                         /* moves wait for room, and nothing will make any */
};
void pl_rollout_work(const struct pl_rollout *rollout, struct pl_rollout_work *work);
uint32_t pl_rollout_in_flight(const struct pl_rollout *rollout);            /* loads */
uint32_t pl_rollout_used(const struct pl_rollout *rollout, uint32_t slot);  /* copies that take room on a node */
bool pl_rollout_empty(const struct pl_rollout *rollout);                    /* no node has anything */
uint64_t pl_rollout_bytes(const struct pl_rollout *rollout, uint32_t slot); /* that an expert takes there */
/* True once when a failed load may be tried again: make a new plan. */
bool pl_rollout_retry_due(struct pl_rollout *rollout, uint64_t now_ns);

/* Reports copies whose READY state (`held`) has changed since the last save, and marks them as
 * saved. */
void pl_rollout_unsaved(
	struct pl_rollout *rollout, uint32_t slot, void (*fn)(void *context, uint32_t cell, bool held), void *context);

#endif
