/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The automatic mode: looks every so often whether experts had better be elsewhere, and moves them
 * when that is worth it. Off unless an operator turns it on.
 *
 * It never moves experts for noise. A plan is wanted only if what it saves, on tokens that it has
 * not seen, is more than the least that was asked for, and more than twice its own standard error;
 * if moving costs fewer bytes than an hour saves; and if that is within the budget of an hour.
 * After a move it waits for PL_RESERVOIR_TOKENS_MIN other tokens. In its plans moves are dearer
 * than in an operator's, and dearest where they lead back to where the expert was lately. What it
 * decided, and why, is in the history.
 *
 * One thread, that of the service; nothing blocks but the state file.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_AUTO_H
#define CADRE_ORCHESTRATION_PLACEMENT_AUTO_H

#include "orchestration/placement/rebalance.h"

enum { PL_AUTO_TEXT_BYTES = PL_REBALANCE_TEXT_BYTES + 64 };

struct pl_auto {
	struct pl_rebalance_table *table; /* borrowed, as the next ones */
	struct pl_rebalances *rebalances;
	struct pl_history *history;
	const struct cad_clock *clock;
	/* tokens that were sampled since the start; bytes per second that tokens cost now */
	uint64_t (*tokens)(void *context);
	double (*bytes_per_second)(void *context);
	void *context;

	struct pl_auto_settings settings;
	uint64_t next_ns;       /* the next look */
	uint64_t last_ns;       /* 0: there was none */
	uint64_t tokens_before; /* that were sampled when experts moved last */
	char last[PL_AUTO_TEXT_BYTES];
	uint64_t looks, moves; /* for metrics: how often it looked, and moved */
};

/* The caller has filled the first part. */
void pl_auto_init(struct pl_auto *automatic);
/* Of `settings`, zeroes stay as they are. The first look comes after `every`. */
void pl_auto_set(struct pl_auto *automatic, const struct pl_auto_settings *settings);
/* Whether its plan is wanted; the reason is for the rebalance. For struct pl_ground. */
bool pl_auto_judge(
	struct pl_auto *automatic, const struct pl_planning_result *result, char reason[PL_REBALANCE_TEXT_BYTES]);
/* After each turn of the rebalances; returns when the next is due. */
uint64_t pl_auto_turn(struct pl_auto *automatic);

#endif
