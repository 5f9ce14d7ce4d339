/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The placement service without its network: joins and reports go in, orders and maps come out, and
 * tests supply the clock. It ties registry, assignment, rollout and state together; service.c puts
 * gRPC around it.
 *
 *     join, load, loaded, failed, freed, broken, gone, leave, checksum -> what happened is recorded
 *     turn -> dead nodes are removed, a plan is made if something changed, orders go out, a map is
 *             published
 *
 * Until the first placement (enough expert nodes, and they have settled), and after a restart until
 * every known node has come back, is known to be gone, or its time to do so is over, turn gives no
 * orders and publishes nothing: routers continue with the map they have.
 *
 * When no expert node was left, the next plan waits as well: for each, at most a lease after the
 * first is back, unless it is known to be gone. Time in which turn was not called is nobody's
 * silence.
 *
 * The map lists every expert node that lives, so that routers connect to it; it is given experts
 * when they have (reach.h). What only nodes hold that some router misses is copied to others first,
 * and then leaves these; where there is no room for that, it stays.
 *
 * One thread. Callbacks come only from turn (close: also from join), must not block and must not
 * call back in. turn and join write to the state file.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_CONTROL_H
#define CADRE_ORCHESTRATION_PLACEMENT_CONTROL_H

#include "common/base/clock.h"
#include "common/cluster/map.h"
#include "orchestration/placement/reach.h"
#include "orchestration/placement/registry.h"
#include "orchestration/placement/rollout.h"
#include "orchestration/placement/rules.h"
#include "orchestration/placement/state.h"
#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/plan.h"

/* An expert to be loaded, and how. Strings are borrowed. */
struct pl_load_order {
	uint32_t cell;
	const char *node, *exchange_address; /* from there; NULL: from the checkpoint */
	char checksum[33];                   /* with a node */
	uint64_t bytes_per_second;           /* 0: as fast as it goes */
};

struct pl_control_events {
	/* Orders for the node behind a session. */
	void (*load)(void *context, uint64_t session, const struct pl_load_order *orders, uint32_t count);
	void (*free)(void *context, uint64_t session, const uint32_t *cells, uint32_t count);
	/* A new map, for everybody. Borrowed; acquire it to keep it. */
	void (*publish)(void *context, struct cad_map *map);
	/* This stream is over: its lease ran out, or its process now uses another one. */
	void (*close)(void *context, uint64_t session, const char *text);
	/* Whether a router counts (reach.h), when that has changed; and why not. */
	void (*standing)(void *context, uint64_t session, bool counts, const char *why);
	/* The checkpoint's checksum of an expert. CAD_AGAIN: it is being computed, and
	 * pl_control_checksum will be called when it is ready. */
	enum cad_status (*checksum)(void *context, uint32_t cell, char hex[33]);
	/* The checkpoint's checksum of what routers compute with. CAD_AGAIN: it is being computed,
	 * and routers have to ask again. NULL: they are not compared. */
	enum cad_status (*router_checksum)(void *context, char hex[33]);
	/* What the service did by itself, for the history. NULL: nobody keeps it. */
	void (*did)(void *context, const char *what, const char *why, const char *outcome);
	void *context;
};

/* What every process of a cluster must have in common: the checkpoint, and the numeric settings
 * with the same in words. Borrowed. */
struct pl_identity {
	const char *model_fingerprint, *settings_fingerprint, *settings;
	const char *router_checksum; /* of a router's hello; NULL: none */
};

struct pl_control_options {
	struct pl_shape shape;
	uint64_t expert_bytes; /* of one expert as a CPU keeps it; of a node that reports more, that */
	uint64_t image_bytes;  /* of one expert as it moves */
	struct pl_identity identity;
	struct pl_state *state; /* borrowed, already claimed */
	const struct cad_clock *clock;
	struct pl_control_events events;
	uint64_t lease_ns;
	uint64_t grace_ns;  /* after a broken stream */
	uint64_t rejoin_ns; /* for known nodes, after a restart */
	uint64_t settle_ns; /* after the last join, before the first placement, and after all were lost */
	uint64_t forget_ns; /* how long the dead are shown */
	uint64_t publish_interval_ns, free_grace_ns, retry_ns; /* rollout.h */
	uint64_t stall_ns, bytes_per_second;                   /* rollout.h */
	uint32_t loads_max, moves_max;                         /* rollout.h */
	struct pl_speed_work work;                             /* of a layer; zeroed: nodes are of one speed */
	uint32_t experts_min;                                  /* expert nodes before the first placement */
	uint32_t copies_min;                                   /* of each expert */
	uint64_t seed;                                         /* assign.h */
	bool level_on_join;                                    /* move experts when nodes join, for even layers */
	bool mixed_kernels; /* nodes whose kernels give other bits may hold experts too */
};

struct pl_control;

CAD_MUST_USE enum cad_status pl_control_create(
	const struct pl_control_options *options, struct pl_control **control, struct cad_error *error);
void pl_control_destroy(struct pl_control *control); /* NULL is fine */

struct pl_expert {
	uint32_t layer, expert;
};
struct pl_join {
	struct pl_hello hello;
	struct pl_identity identity;
	uint64_t epoch; /* of the last map that the process has seen */
	const struct pl_expert *held;
	size_t held_count;
};
/* session: any number but 0, new for each stream. CAD_AGAIN: not yet, ask again. CAD_ERR_REFUSED:
 * an id in use, another checkpoint, a router with other weights, or other settings;
 * CAD_ERR_INVALID, CAD_ERR_EXHAUSTED as in registry.h. */
CAD_MUST_USE enum cad_status pl_control_join(
	struct pl_control *control, const struct pl_join *join, uint64_t session, struct cad_error *error);

/* Reports of the process behind a session; from one that is no longer known they are ignored.
 * CAD_ERR_INVALID: there is no such expert. */
void pl_control_load(struct pl_control *control, uint64_t session, const struct pl_load *load);
/* With a router's load, after it: the nodes of its map, of load's epoch, that it does not reach. */
struct pl_unreached {
	const char *node;
	uint64_t silent_ns; /* since it was heard of last */
};
void pl_control_unreached(
	struct pl_control *control, uint64_t session, const struct pl_unreached *unreached, size_t count);
/* Its exchange address is another one now. CAD_ERR_INVALID: too long. */
CAD_MUST_USE enum cad_status pl_control_address(
	struct pl_control *control, uint64_t session, const char *exchange_address, struct cad_error *error);
CAD_MUST_USE enum cad_status pl_control_loaded(struct pl_control *control, uint64_t session, struct pl_expert expert,
	const char *checksum, uint64_t bytes, struct cad_error *error);
/* So many bytes of an expert that is being loaded are there. */
CAD_MUST_USE enum cad_status pl_control_loading(
	struct pl_control *control, uint64_t session, struct pl_expert expert, uint64_t bytes, struct cad_error *error);
/* The node that the expert was ordered from was not its source in the end: `why`. Before what
 * became of the load. */
CAD_MUST_USE enum cad_status pl_control_passed_over(struct pl_control *control, uint64_t session,
	struct pl_expert expert, const char *why, struct cad_error *error);
CAD_MUST_USE enum cad_status pl_control_failed(struct pl_control *control, uint64_t session, struct pl_expert expert,
	const char *why, struct cad_error *error);
/* The node's device has failed, it says; it is about to leave. */
void pl_control_device_failed(struct pl_control *control, uint32_t slot, const char *why);
CAD_MUST_USE enum cad_status pl_control_freed(
	struct pl_control *control, uint64_t session, struct pl_expert expert, struct cad_error *error);
void pl_control_broken(struct pl_control *control, uint64_t session); /* the stream broke */
void pl_control_leave(struct pl_control *control, uint64_t session);  /* the process said goodbye */
/* The process of a slot (control's registry), whose stream broke or that has not come back after a
 * restart, is known to be gone: it is not waited for. Ignored if another process has that slot by
 * now, or it is back. */
void pl_control_gone(struct pl_control *control, uint32_t slot, uint32_t pid);
/* The checksum of a cell is now known. */
void pl_control_checksum(struct pl_control *control, uint32_t cell);

/* ---- the plan in force ---- */

/* What a plan is made for and from: the expert nodes that may hold experts, their room, and what is
 * where now, or is being loaded there. `present` is a plan for `cluster`. Freed with
 * pl_situation_fini; nothing in it belongs to control. */
struct pl_situation {
	struct pl_cluster cluster;
	struct pl_plan *present;
	uint64_t epoch; /* of the present map */
};
CAD_MUST_USE enum cad_status pl_control_situation(
	const struct pl_control *control, struct pl_situation *situation, struct cad_error *error);
void pl_situation_fini(struct pl_situation *situation); /* takes a zeroed one too */
/*
 * Could this plan, for these nodes (by id), be put in force now? CAD_ERR_INVALID: it is of another
 * shape, leaves an expert without a node, or gives experts to a node that is not there or gets
 * none. CAD_ERR_EXHAUSTED: more than a node has room for, or the nodes are so full that it cannot
 * be reached while every expert is served. CAD_AGAIN: nothing is placed yet.
 */
CAD_MUST_USE enum cad_status pl_control_check(const struct pl_control *control, const struct pl_cluster *cluster,
	const struct pl_plan *plan, struct cad_error *error);
/*
 * Checks it and puts it in force: from now on turns move experts towards it, and keep to it. A node
 * that it does not name is filled from the others when it joins, once, and then belongs to the
 * plan. bytes_per_second 0: the service's own rate. A pause is over.
 */
CAD_MUST_USE enum cad_status pl_control_apply(struct pl_control *control, const struct pl_cluster *cluster,
	const struct pl_plan *plan, uint64_t bytes_per_second, struct cad_error *error);
/* No further move of the plan begins; those in flight are finished, and what is lost is loaded
 * elsewhere. */
void pl_control_pause(struct pl_control *control, bool paused);
/* The plan in force becomes what is where now; moves in flight are finished. CAD_ERR_NOT_FOUND:
 * none is in force. */
CAD_MUST_USE enum cad_status pl_control_stop(struct pl_control *control, struct cad_error *error);

struct pl_control_progress {
	uint32_t moves, done, failed,
		in_flight; /* loads since the plan is in force; moves: all, those to come included */
	uint64_t bytes, bytes_done;
	uint64_t moved_ns, freed_ns; /* when a load came on last, and when a copy was freed last; 0: never */
	bool in_force;               /* there is a plan; it outlives a restart, and these numbers do not */
	bool settled;                /* all that can be done is done */
	char text[256];              /* why a move was backed out, the last one */
};
void pl_control_progress(const struct pl_control *control, struct pl_control_progress *progress);

/* ---- what operators say about single nodes and experts ---- */

/* What a change makes the service do. */
struct pl_control_change {
	uint32_t moves;
	uint64_t bytes;
};

/*
 * All of these can be tried (dry): then nothing changes, but `change` says what would be done. What
 * is so already is done with 0 moves. What cannot be done is refused with a sentence, and nothing
 * changes: CAD_ERR_NOT_FOUND: there is no such node, layer or expert, or nothing to undo.
 * CAD_ERR_INVALID: it contradicts what was said before. CAD_ERR_EXHAUSTED: there is no room.
 * CAD_AGAIN: nothing is placed yet.
 */

/* The node is emptied, and gets nothing until this is undone, whatever restarts; or that is
 * undone. */
CAD_MUST_USE enum cad_status pl_control_drain(struct pl_control *control, const char *node, bool drained, bool dry,
	struct pl_control_change *change, struct cad_error *error);
/* One copy of the expert is on this node from now on: it takes the place of another copy. Two pins
 * need two copies. NULL: it is pinned nowhere any more, and stays where it is. */
CAD_MUST_USE enum cad_status pl_control_pin(struct pl_control *control, struct pl_expert expert, const char *node,
	bool dry, struct pl_control_change *change, struct cad_error *error);
/* So many copies of the expert are wanted, at least; 1: as of everybody. */
CAD_MUST_USE enum cad_status pl_control_copies(struct pl_control *control, struct pl_expert expert, uint32_t copies,
	bool dry, struct pl_control_change *change, struct cad_error *error);

enum pl_duty { PL_DUTY_ACTIVE, PL_DUTY_DRAINING, PL_DUTY_SAFE_TO_STOP };
/* Safe to stop: it is drained, holds nothing, and no router works with a map that says
 * otherwise. */
enum pl_duty pl_control_duty(const struct pl_control *control, uint32_t slot);
uint32_t pl_control_copies_on(const struct pl_control *control, uint32_t slot); /* those that leave it, too */

/* Call it after any of the above, and when the clock reaches what it returned last (UINT64_MAX:
 * nothing is planned). */
uint64_t pl_control_turn(struct pl_control *control);

/* The present map, borrowed; NULL before the first. */
struct cad_map *pl_control_map(const struct pl_control *control);
/* Every expert has a place and a map says so; if not, one line that says what is missing. */
bool pl_control_ready(const struct pl_control *control, char *text, size_t bytes);

/* For status and metrics. */
struct pl_control_stats {
	uint64_t joins, refusals, deaths, loads_ordered, frees_ordered, loads_failed, devices_failed, checksums_wrong,
		maps_published, state_errors, absences, loads_stalled, sources_failed;
};
const struct pl_control_stats *pl_control_stats(const struct pl_control *control);
const struct pl_registry *pl_control_registry(const struct pl_control *control);
const struct pl_rules *pl_control_rules(const struct pl_control *control);
const struct pl_reach *pl_control_reach(const struct pl_control *control);
/* experts in the map, or about to be */
uint32_t pl_control_held(const struct pl_control *control, uint32_t slot);

#endif
