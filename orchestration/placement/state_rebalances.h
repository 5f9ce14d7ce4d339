/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rebalances in the state file: a row each, the newest PL_REBALANCES_KEPT; and what the automatic
 * mode is told. One thread; a write waits for the disk.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_STATE_REBALANCES_H
#define CADRE_ORCHESTRATION_PLACEMENT_STATE_REBALANCES_H

#include "orchestration/placement/effect.h"
#include "orchestration/placement/state.h"
#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/plan.h"

/* The numbers are those of the state file and of RebalanceState in proto/cadre/v1/operate.proto. */
enum pl_rebalance_state {
	PL_REBALANCE_NONE,
	PL_REBALANCE_PLANNING,
	PL_REBALANCE_RUNNING,
	PL_REBALANCE_PAUSED,
	PL_REBALANCE_DONE,
	PL_REBALANCE_CANCELLED,
	PL_REBALANCE_FAILED,
	PL_REBALANCE_UNDONE,
};
enum pl_rebalance_kind {
	PL_REBALANCE_SEARCH, /* an operator wants a plan to be searched for */
	PL_REBALANCE_MAP,    /* an operator gave the plan */
	PL_REBALANCE_UNDO,   /* back to the placement before another one */
	PL_REBALANCE_AUTO,   /* the automatic mode wants it */
};
enum { PL_REBALANCES_KEPT = 200, PL_REBALANCE_WHO_BYTES = 256, PL_REBALANCE_TEXT_BYTES = 513 };

struct pl_rebalance {
	uint64_t id;
	enum pl_rebalance_state state;
	enum pl_rebalance_kind kind;
	char who[PL_REBALANCE_WHO_BYTES], reason[PL_REBALANCE_TEXT_BYTES];
	char text[PL_REBALANCE_TEXT_BYTES];    /* why it is as it is; "" */
	char warning[PL_REBALANCE_TEXT_BYTES]; /* "" */
	bool dry_run;                          /* never in the file */
	bool measuring;                        /* it is done, and its effect is being measured */
	uint64_t undoes, undone_by;            /* ids; 0: none */
	uint64_t bytes_per_second;             /* 0: the service's own */
	uint32_t moves, moves_done, moves_failed, moves_in_flight;
	uint64_t bytes, bytes_done;
	double seconds, planning_seconds;
	uint64_t tokens_planned, tokens_measured;
	uint64_t started_ms, forced_ms, settled_ms; /* since 1970; 0: not yet */
	struct pl_effect predicted, measured;
};

struct pl_rebalance_table;

/* Keeps `state` until it is closed. */
CAD_MUST_USE enum cad_status pl_rebalance_table_open(
	struct pl_state *state, struct pl_rebalance_table **table, struct cad_error *error);
void pl_rebalance_table_close(struct pl_rebalance_table *table); /* before the state file's; NULL is fine */

uint64_t pl_rebalance_table_last(struct pl_rebalance_table *table); /* the greatest id; 0: none */
/* Of those that are under way or being measured, the first after `id`; 0: none. */
uint64_t pl_rebalance_table_pending(struct pl_rebalance_table *table, uint64_t id);
/* A failed write is said in the log. */
void pl_rebalance_table_put(struct pl_rebalance_table *table, const struct pl_rebalance *rebalance);
/* The placement before and after it, with the ids of their nodes; the row must be there. */
void pl_rebalance_table_put_plans(struct pl_rebalance_table *table, uint64_t id, const struct pl_cluster *nodes,
	const struct pl_plan *before, const struct pl_plan *after);
/* CAD_ERR_NOT_FOUND: no such row. */
CAD_MUST_USE enum cad_status pl_rebalance_table_get(
	struct pl_rebalance_table *table, uint64_t id, struct pl_rebalance *rebalance);
/* One of the two plans and its nodes. CAD_ERR_NOT_FOUND: it was never put in force. */
CAD_MUST_USE enum cad_status pl_rebalance_table_plan(struct pl_rebalance_table *table, uint64_t id, bool after,
	struct pl_plan **plan, struct pl_cluster *nodes, struct cad_error *error);
/* The placement before it as text, the caller's; NULL: it was never put in
 * force, or there is no memory. */
char *pl_rebalance_table_before(struct pl_rebalance_table *table, uint64_t id);
/* The first later one that is still what the placement comes from: in force once, neither undone
 * nor an undo; 0: there is none. */
uint64_t pl_rebalance_table_later(struct pl_rebalance_table *table, uint64_t id);
/* The first after `id` that was put in force then or later; 0: there is none. */
uint64_t pl_rebalance_table_forced(struct pl_rebalance_table *table, uint64_t id, uint64_t since_ms);
/* Bytes that the automatic mode moved since then, but for one of its rebalances (0: with all). */
uint64_t pl_rebalance_table_auto_bytes(struct pl_rebalance_table *table, uint64_t since_ms, uint64_t but);

/* ---- the automatic mode ---- */

struct pl_auto_settings {
	bool on;
	uint64_t every_ns;
	double gain_min; /* a share */
	uint64_t bytes_per_hour;
};
/* False: nothing was put yet. */
bool pl_rebalance_table_get_auto(struct pl_rebalance_table *table, struct pl_auto_settings *settings);
void pl_rebalance_table_put_auto(struct pl_rebalance_table *table, const struct pl_auto_settings *settings);

#endif
