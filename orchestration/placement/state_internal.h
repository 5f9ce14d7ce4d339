/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the state file: state.c opens it and keeps its own tables; others are in files of
 * their own (state.c has the list). Nothing else includes this.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_STATE_INTERNAL_H
#define CADRE_ORCHESTRATION_PLACEMENT_STATE_INTERNAL_H

#include "orchestration/placement/effect.h"
#include "orchestration/placement/state.h"

#include <sqlite3.h>

/* ---- what all of them need (state.c) ---- */

sqlite3 *pl_state_database(struct pl_state *state); /* for their statements */
/* The statements of a file, which finalizes them, also after a failure. */
CAD_MUST_USE enum cad_status pl_state_prepare(
	struct pl_state *state, const char *const *sql, int count, sqlite3_stmt **statements, struct cad_error *error);
void pl_state_fail(struct pl_state *state);                  /* a change of the present transaction */
const char *pl_column_text(sqlite3_stmt *statement, int at); /* "": there is none */
/* False: there is none, and it is unknown. */
bool pl_column_effect(sqlite3_stmt *statement, int at, struct pl_effect *effect);

/* ---- what makes the tables of a file, and what finds values there that are never written ---- */

extern const char pl_state_history_schema[], pl_state_history_nonsense[];
extern const char pl_state_rebalances_schema[], pl_state_rebalances_nonsense[];
extern const char pl_state_wishes_schema[], pl_state_wishes_nonsense[];

#endif
