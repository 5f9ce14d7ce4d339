/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rebalances: from the wish of an operator, or of the automatic mode, to a placement that is in
 * force and measured; one at a time.
 *
 *     start -> PLANNING -> RUNNING <-> PAUSED -> DONE, and its effect is measured
 *                 |           |          |          |
 *               FAILED     CANCELLED <---+        undo -> another one leads back -> UNDONE
 *
 * Every step is in the state file before it is done. After a restart, one that was planning has
 * failed, one that was running goes on, and what can still be measured is measured.
 *
 * It knows the cluster through struct pl_ground, which tests replace. One thread, that of the
 * service; nothing blocks but the state file.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_REBALANCE_H
#define CADRE_ORCHESTRATION_PLACEMENT_REBALANCE_H

#include "orchestration/placement/control.h"
#include "orchestration/placement/history.h"
#include "orchestration/placement/planning.h"
#include "orchestration/placement/state_rebalances.h"

/* What a rebalance stands on: control.h, telemetry.h, plan_thread.h. */
struct pl_ground {
	enum cad_status (*situation)(void *context, struct pl_situation *situation, struct cad_error *error);
	enum cad_status (*check)(
		void *context, const struct pl_cluster *nodes, const struct pl_plan *plan, struct cad_error *error);
	enum cad_status (*apply)(void *context, const struct pl_cluster *nodes, const struct pl_plan *plan,
		uint64_t bytes_per_second, struct cad_error *error);
	void (*pause)(void *context, bool paused);
	enum cad_status (*stop)(void *context, struct cad_error *error);
	void (*progress)(void *context, struct pl_control_progress *progress);
	/* measured from one time of the clock to another; false: nothing was */
	bool (*figures)(void *context, uint64_t from_ns, uint64_t to_ns, struct pl_point *point);
	/* what routers report, for planning; CAD_ERR_NOT_FOUND: nothing yet */
	enum cad_status (*trace)(void *context, struct pl_trace **trace, struct cad_error *error);
	/* Fills in what is known of the model and plans in the background: pl_rebalances_planned
	 * follows unless it fails. Takes what the order points to. */
	enum cad_status (*plan)(void *context, struct pl_planning_order *order, struct cad_error *error);
	void (*plan_cancel)(void *context); /* pl_rebalances_planned will not be called */
	/* Whether the automatic mode wants the plan that it asked for; it says why in the
	 * history. */
	bool (*judge)(void *context, const struct pl_planning_result *result, char reason[PL_REBALANCE_TEXT_BYTES]);
	void *context;
};

struct pl_rebalances_options {
	struct pl_rebalance_table *table; /* borrowed, as everything here */
	struct pl_history *history;       /* NULL: none is kept */
	const struct cad_clock *clock;
	uint64_t unix_ms;   /* the time of day now */
	uint64_t recent_ms; /* so long the automatic mode does not lightly take experts back to where they were */
	struct pl_ground ground;
};

struct pl_rebalances;

CAD_MUST_USE enum cad_status pl_rebalances_create(
	const struct pl_rebalances_options *options, struct pl_rebalances **rebalances, struct cad_error *error);
void pl_rebalances_destroy(struct pl_rebalances *rebalances); /* NULL is fine */

/* The pointers are taken, whatever becomes of the wish. */
struct pl_wish {
	enum pl_rebalance_kind kind;
	const char *who, *reason;
	bool dry_run;
	enum pl_workload workload;
	double copies, move; /* planning.h */
	uint64_t time_limit_ns, bytes_per_second;
	void *encoded; /* a trace in Cadre's own format; NULL: what routers report */
	size_t encoded_bytes;
	struct pl_plan *given; /* of PL_REBALANCE_MAP and PL_REBALANCE_UNDO */
	struct pl_cluster given_nodes;
	uint64_t undoes;
};
/* CAD_ERR_REFUSED: another one is under way. Others: what the ground says. `id` is 0 of the
 * automatic mode's, which gets one when its plan is wanted. */
CAD_MUST_USE enum cad_status pl_rebalances_start(
	struct pl_rebalances *rebalances, struct pl_wish *wish, uint64_t *id, struct cad_error *error);
/* Planning has ended; the result is borrowed. */
void pl_rebalances_planned(struct pl_rebalances *rebalances, struct pl_planning_result *result);

enum pl_rebalance_action { PL_REBALANCE_PAUSE, PL_REBALANCE_RESUME, PL_REBALANCE_CANCEL, PL_REBALANCE_GO_BACK };
/* `answer`: the id of the rebalance that this is about now: another one after PL_REBALANCE_GO_BACK.
 * dry_run: only says whether it could be done. CAD_ERR_NOT_FOUND: there is none of that id;
 * CAD_ERR_REFUSED: its state does not allow it. */
CAD_MUST_USE enum cad_status pl_rebalances_change(struct pl_rebalances *rebalances, uint64_t id,
	enum pl_rebalance_action action, const char *who, const char *reason, bool dry_run, uint64_t *answer,
	struct cad_error *error);

/* id 0: the last one. CAD_ERR_NOT_FOUND and a sentence. */
CAD_MUST_USE enum cad_status pl_rebalances_get(
	const struct pl_rebalances *rebalances, uint64_t id, struct pl_rebalance *rebalance, struct cad_error *error);
/* The one that is under way, else the one that is being measured; NULL: none is. */
const struct pl_rebalance *pl_rebalances_current(const struct pl_rebalances *rebalances);
/* Planning, running or paused: no other may begin. The automatic mode's planning does not count. */
bool pl_rebalances_busy(const struct pl_rebalances *rebalances);
/* What the automatic mode has moved within the last hour. */
uint64_t pl_rebalances_auto_bytes(const struct pl_rebalances *rebalances);
/* "rebalance", "undo of rebalance 3", ... */
enum { PL_REBALANCE_WHAT_BYTES = 64 };
void pl_rebalance_what(const struct pl_rebalance *rebalance, char what[PL_REBALANCE_WHAT_BYTES]);
const char *pl_rebalance_state_name(enum pl_rebalance_state state);

/* After each turn of control; returns when the next is due (UINT64_MAX: with control's). */
uint64_t pl_rebalances_turn(struct pl_rebalances *rebalances);

/* For metrics. Dry runs do not count. */
struct pl_rebalances_stats {
	uint64_t ended[PL_REBALANCE_UNDONE + 1]; /* by state */
	uint64_t moves, bytes;
	double planning_seconds;
};
const struct pl_rebalances_stats *pl_rebalances_stats(const struct pl_rebalances *rebalances);

#endif
