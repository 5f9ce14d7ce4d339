/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of rebalances: rebalance.c begins them and keeps them, rebalance_change.c does what
 * operators want with them, rebalance_turn.c follows them. Nothing else includes this.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_REBALANCE_INTERNAL_H
#define CADRE_ORCHESTRATION_PLACEMENT_REBALANCE_INTERNAL_H

#include "orchestration/placement/rebalance.h"

struct pl_rebalances {
	struct pl_rebalances_options options;
	uint64_t epoch_ms;                /* the time of day when the clock was 0 */
	struct pl_rebalance_table *table; /* of the options */
	uint64_t last_id;
	struct pl_rebalance next;    /* PLANNING, or NONE */
	struct pl_rebalance current; /* what was in force last: RUNNING, PAUSED, or over; or NONE */
	struct pl_rebalance dry;     /* the last dry run; or NONE */
	bool auto_planning;
	/* of current, by the clock; settled_ns 0: before the clock began */
	uint64_t forced_ns, settled_ns;
	uint64_t regain_until_ns; /* it was in force before a restart, and is to be again; 0: it is */
	uint32_t moves_before;    /* that were done before the restart; UINT32_MAX: not known yet */
	struct pl_rebalances_stats stats;
};

/* ---- what all of them need (rebalance.c) ---- */

uint64_t pl_rebalances_now(const struct pl_rebalances *rebalances);
uint64_t pl_rebalances_unix_ms(const struct pl_rebalances *rebalances, uint64_t at_ns);
bool pl_rebalance_moves(const struct pl_rebalance *r); /* RUNNING or PAUSED */
void pl_rebalance_save(struct pl_rebalances *rebalances, const struct pl_rebalance *r);
void pl_rebalance_tell(struct pl_rebalances *rebalances, const struct pl_rebalance *r, const char *outcome);
void pl_rebalance_append(char text[PL_REBALANCE_TEXT_BYTES], const char *more);
/* It is over: saved, told, and counted. */
void pl_rebalance_end(
	struct pl_rebalances *rebalances, struct pl_rebalance *r, enum pl_rebalance_state state, const char *why);
CAD_MUST_USE enum cad_status pl_rebalances_refuse_second(
	const struct pl_rebalances *rebalances, struct cad_error *error);
void pl_wish_fini(struct pl_wish *wish);

/* ---- measuring (rebalance_turn.c) ---- */

/* What the current one did until `to_ns`; or why that is not known. */
void pl_rebalance_measure(struct pl_rebalances *rebalances, uint64_t to_ns, const char *otherwise);

#endif
