/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who changed what, and why: a table of the state file, for `cadrectl history`.
 *
 * What operators did is an entry each time; what the service does by itself, again and again
 * for the same reason, is one entry that counts. Old entries make room for new ones. One
 * thread; an entry is written at once (inside the transaction of pl_state_begin, if one is
 * open), and waits for the disk.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_HISTORY_H
#define CADRE_ORCHESTRATION_PLACEMENT_HISTORY_H

#include "common/base/status.h"
#include "orchestration/placement/effect.h"
#include "orchestration/placement/state.h"

#define PL_HISTORY_SERVICE "the service"
/* entries that are kept; bytes of a text, cut to that */
enum { PL_HISTORY_MAX = 4000, PL_HISTORY_TEXT_BYTES = 512 };

/* Strings are borrowed; NULL: "". */
struct pl_history_entry {
	const char *who;     /* a caller's name, or PL_HISTORY_SERVICE */
	const char *what;    /* "drain e3": which of its own things this is about */
	const char *why;     /* the reason that was given, or the one that the service had */
	const char *outcome; /* "done", "refused: ..."; "" while it is not known */
	struct pl_effect predicted, measured;
	bool has_predicted, has_measured;
	uint64_t at_ms; /* since 1970; 0: now */
	/* of an entry that is read */
	uint64_t id, first_ms, times; /* at_ms: the last time */
};

struct pl_history;

/* Keeps `state` until it is closed. */
CAD_MUST_USE enum cad_status pl_history_open(
	struct pl_state *state, struct pl_history **history, struct cad_error *error);
void pl_history_close(struct pl_history *history); /* before the state file's; NULL is fine */

/* An entry that cannot be written is said in the log. history NULL: nothing is kept. */
void pl_history_add(struct pl_history *history, const struct pl_history_entry *entry);
/* Entries since then, the oldest first; an entry's strings live during the call. */
CAD_MUST_USE enum cad_status pl_history_read(struct pl_history *history, uint64_t since_ms,
	void (*on_entry)(void *context, const struct pl_history_entry *entry), void *context, struct cad_error *error);

#endif
