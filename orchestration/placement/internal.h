/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of control: control.c is told what happened, control_turn.c acts on it,
 * control_order.c gives the orders, control_target.c says which node should hold which
 * expert, control_force.c keeps the plan in force, control_rules.c takes what operators
 * say about single nodes and experts; and, with state_internal.h, the inside of the state
 * file. Nothing else includes this.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_INTERNAL_H
#define CADRE_ORCHESTRATION_PLACEMENT_INTERNAL_H

#include "orchestration/placement/assign.h"
#include "orchestration/placement/control.h"
#include "orchestration/placement/rules.h"

#include <sys/stat.h>

#define PL_COMPONENT "placement"

/* A report of a loaded expert that waits for the checkpoint's checksum. */
struct pl_claim {
	uint64_t session;
	uint32_t cell;
	char hex[33];
};

/* The plan in force: what was applied last, as changed since by nodes that were filled. */
struct pl_force {
	struct pl_cluster cluster; /* the ids of its nodes; they may be dead by now */
	struct pl_plan *plan;      /* NULL: there is none */
	bool paused, unsaved;      /* unsaved: the state file does not have the latest change */
	uint64_t bytes_per_second; /* 0: the service's own rate */
	struct pl_control_progress
		progress; /* since it was applied; what can be counted at any time is not kept here */
};

/* What a target is made from: expert nodes, by their place in the arrays, those with `forbidden`
 * after all others, and which pins are those of which nodes. */
struct pl_scene {
	struct pl_cluster cluster;
	uint32_t *slots; /* [nodes_count] of the registry */
	uint32_t usable; /* so many are given experts; the others at most keep what they hold */
	struct pl_plan *held, *failed, *leaving, *wanted, *target;
	bool *fresh; /* [nodes_count] not of the plan in force yet */
};

struct pl_control {
	struct pl_control_options options;
	uint32_t cells;
	struct pl_rollout *rollout;
	struct pl_reach *reach;
	bool counts_told[CAD_PROCESSES_MAX]; /* whether a router was told last that it counts */
	struct cad_map *map;
	uint64_t epoch;
	uint64_t turn_ns;   /* when the next turn is due, so as to notice that this process did not run; 0: none */
	uint64_t joined_ns; /* when an expert node joined last */
	uint64_t began_ns;  /* when the waiting at the start was over; 0: it is not */
	bool placed;        /* the first placement was made, now or before a restart */
	bool all_lost;      /* no expert node was left, and nothing was planned since */
	uint64_t back_ns;   /* when the first of them was back; 0: none is */
	bool target_due, publish_forced;
	bool list_due;               /* the map does not list the expert nodes that there are */
	bool save_all;               /* the state file missed something: write everything next time */
	char kernels[PL_TEXT_BYTES]; /* the operators' fingerprint that experts are placed under */
	char shortage[256];          /* what the last target could not do; "" */
	struct pl_claim *claims;
	size_t claims_count, claims_capacity;
	uint64_t shunned_ns[CAD_PROCESSES_MAX]; /* until then a node is no source */
	bool draining[CAD_PROCESSES_MAX];       /* the history is to say when it is safe to stop */
	struct pl_force force;
	struct pl_rules rules;
	uint64_t levelled_ns; /* the join that the history says experts were moved for */
	struct pl_control_stats stats;
	struct pl_registry registry;
};

static inline uint64_t pl_control_now(const struct pl_control *control)
{
	return cad_clock_now_ns(control->options.clock);
}

/* ---- what nodes report (control.c) ---- */

/* OK with *slot set; AGAIN when the session is not (or no longer) known, or is a router's; or the
 * sentence. */
enum cad_status pl_control_find_report(struct pl_control *control, uint64_t session, struct pl_expert expert,
	uint32_t *slot, uint32_t *cell, struct cad_error *error);

/* ---- orders (control_order.c) ---- */

/* For pl_rollout_turn; `control` is the context. */
void pl_order_load(void *control, uint32_t slot, const uint32_t *cells, uint32_t count);
void pl_order_free(void *control, uint32_t slot, const uint32_t *cells, uint32_t count);

/* ---- the state file (control.c) ---- */

/* The state file helps but is not required: when it cannot be written, the cluster continues and
 * everything is written again next time. */
void pl_control_commit(struct pl_control *control);
/* What operators want has changed. */
void pl_control_save_wishes(struct pl_control *control);

/* ---- what operators want (state_wishes.c) ---- */

/* Inside a transaction. All of it is written each time. */
void pl_state_put_wishes(struct pl_state *state, const struct pl_shape *shape, const struct pl_force *force,
	const struct pl_rules *rules);
/* Into an empty plan in force, and rules without any. */
CAD_MUST_USE enum cad_status pl_state_read_wishes(struct pl_state *state, const struct pl_shape *shape,
	struct pl_force *force, struct pl_rules *rules, struct cad_error *error);

/* ---- the target (control_target.c) ---- */

/* The scene of now, with the rules that there are or might be; finished with pl_scene_fini. */
CAD_MUST_USE enum cad_status pl_scene_init(
	const struct pl_control *control, const struct pl_rules *rules, struct pl_scene *scene);
/* Its target, and how many experts have a place only where they are, on nodes that are given
 * none. */
CAD_MUST_USE enum cad_status pl_scene_assign(const struct pl_control *control, const struct pl_rules *rules,
	struct pl_scene *scene, struct pl_assignment *assignment, uint32_t *kept);
void pl_scene_fini(struct pl_scene *scene); /* takes a zeroed one too */
/* Makes a new target from the scene, and gives it to the rollout. Without memory for it the old one
 * stays, and the next turn tries again. */
void pl_control_set_target(struct pl_control *control, uint64_t now_ns);
void pl_control_tell_rollout(const struct pl_control *control);

/* ---- the plan in force (control_force.c) ---- */

/* A load is done. */
void pl_force_moved(struct pl_control *control);
/* A load was given up (rollout.h). */
void pl_force_stalled(void *control, uint32_t slot, uint32_t cell);
void pl_force_fini(struct pl_force *force);
/* The plan in force for the nodes of a scene, into scene->wanted, and which nodes it does not
 * know. */
CAD_MUST_USE enum cad_status pl_force_show(const struct pl_force *force, struct pl_scene *scene);
/* What has become of it: nodes that were filled are now nodes of it. */
CAD_MUST_USE enum cad_status pl_force_take(struct pl_force *force, const struct pl_scene *scene, bool *changed);
/* An expert is pinned to a node: that takes the place of another copy. */
void pl_plan_pin(struct pl_plan *plan, const struct pl_cluster *cluster, const struct pl_rules *rules, uint32_t cell,
	uint32_t node);
CAD_MUST_USE enum cad_status pl_force_pin(
	struct pl_force *force, const struct pl_rules *rules, uint32_t cell, const char *node);

/* Says that there is no way to a target, for lack of room to move in. */
enum cad_status pl_refuse_full(const struct pl_scene *scene, struct cad_error *error);

/* ---- a damaged state file (state_aside.c) ---- */

enum { PL_ASIDE_BYTES = 4096 };

/* Renames it, and what SQLite keeps beside it, to F.damaged-TIME. `found` is the file that was
 * found damaged: another one is left alone. `error` holds what is wrong with it, and is completed
 * if that fails. */
CAD_MUST_USE enum cad_status pl_state_set_aside(
	const char *path, const struct stat *found, char name[PL_ASIDE_BYTES], struct cad_error *error);

#endif
