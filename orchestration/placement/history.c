/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/history.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/utf8.h"
#include "orchestration/placement/internal.h"
#include "orchestration/placement/state_internal.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(PL_HISTORY_MAX == 4000, "the trigger of the schema says so");

const char pl_state_history_schema[] =
	"CREATE TABLE history (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, times INTEGER NOT NULL, who TEXT NOT NULL,"
	" what TEXT NOT NULL, why TEXT NOT NULL, outcome TEXT NOT NULL, predicted BLOB, measured BLOB);"
	"CREATE TRIGGER history_limit AFTER INSERT ON history BEGIN DELETE FROM history WHERE id <= new.id - 4000; END";

const char pl_state_history_nonsense[] =
	"SELECT EXISTS (SELECT 1 FROM history WHERE typeof(first) <> 'integer' OR typeof(last) <> 'integer' OR typeof(times) <> 'integer'"
	" OR typeof(who) <> 'text' OR typeof(what) <> 'text' OR typeof(why) <> 'text' OR typeof(outcome) <> 'text'"
	" OR typeof(predicted) NOT IN ('null', 'blob') OR typeof(measured) NOT IN ('null', 'blob'))";

#define PL_HISTORY_STATEMENT_LIST(X) \
	X(AGAIN, \
		"UPDATE history SET last = ?1, times = times + 1 WHERE id = (SELECT max(id) FROM history) AND who = ?2 AND what = ?3" \
		" AND why = ?4 AND outcome = ?5 AND predicted IS ?6 AND measured IS ?7") \
	X(ADD, "INSERT INTO history VALUES (NULL, ?1, ?1, 1, ?2, ?3, ?4, ?5, ?6, ?7)") \
	X(SINCE, \
		"SELECT id, first, last, times, who, what, why, outcome, predicted, measured FROM history WHERE last >= ?1 ORDER BY id")

enum statement {
#define X(name, sql) name,
	PL_HISTORY_STATEMENT_LIST(X)
#undef X
		STATEMENT_COUNT
};

static const char *const statement_sql[STATEMENT_COUNT] = {
#define X(name, sql) [name] = sql,
	PL_HISTORY_STATEMENT_LIST(X)
#undef X
};

struct pl_history {
	sqlite3 *database;
	sqlite3_stmt *statements[STATEMENT_COUNT];
};

enum cad_status pl_history_open(struct pl_state *state, struct pl_history **history, struct cad_error *error)
{
	struct pl_history *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the history");

	made->database = pl_state_database(state);
	enum cad_status status = pl_state_prepare(state, statement_sql, STATEMENT_COUNT, made->statements, error);
	if (status != CAD_OK) {
		pl_history_close(made);
		return status;
	}

	*history = made;
	return CAD_OK;
}

void pl_history_close(struct pl_history *history)
{
	if (!history)
		return;
	for (int i = 0; i < STATEMENT_COUNT; i++)
		sqlite3_finalize(history->statements[i]);
	free(history);
}

/* ---- adding ---- */

static void bind_text(sqlite3_stmt *statement, int at, const char *text)
{
	size_t size = text ? strnlen(text, PL_HISTORY_TEXT_BYTES) : 0;
	if (size == PL_HISTORY_TEXT_BYTES)
		size = cad_utf8_whole(text, size);
	/* out of memory shows when it is stepped: NOT NULL */
	(void)sqlite3_bind_text(statement, at, text ? text : "", (int)size, SQLITE_STATIC);
}

static int run(sqlite3_stmt *statement, const struct pl_history_entry *entry, uint64_t at_ms)
{
	sqlite3_bind_int64(statement, 1, (sqlite3_int64)at_ms);
	bind_text(statement, 2, entry->who);
	bind_text(statement, 3, entry->what);
	bind_text(statement, 4, entry->why);
	bind_text(statement, 5, entry->outcome);
	if (entry->has_predicted)
		sqlite3_bind_blob(statement, 6, &entry->predicted, sizeof entry->predicted, SQLITE_STATIC);
	if (entry->has_measured)
		sqlite3_bind_blob(statement, 7, &entry->measured, sizeof entry->measured, SQLITE_STATIC);

	int code = sqlite3_step(statement);
	sqlite3_reset(statement);
	sqlite3_clear_bindings(statement);
	return code;
}

void pl_history_add(struct pl_history *history, const struct pl_history_entry *entry)
{
	if (!history)
		return;

	uint64_t at_ms = entry->at_ms ? entry->at_ms : cad_unix_ms();
	bool may_repeat = entry->who && strcmp(entry->who, PL_HISTORY_SERVICE) == 0;
	int code = may_repeat ? run(history->statements[AGAIN], entry, at_ms) : SQLITE_DONE;

	if (code == SQLITE_DONE && (!may_repeat || sqlite3_changes(history->database) == 0))
		code = run(history->statements[ADD], entry, at_ms);
	if (code != SQLITE_DONE)
		cad_log_error(PL_COMPONENT, "the history cannot be written",
			CAD_S("error", sqlite3_errmsg(history->database)),
			CAD_S("what", entry->what ? entry->what : ""));
}

/* ---- reading ---- */

enum cad_status pl_history_read(struct pl_history *history, uint64_t since_ms,
	void (*on_entry)(void *context, const struct pl_history_entry *entry), void *context, struct cad_error *error)
{
	sqlite3_stmt *since = history->statements[SINCE];
	int code;

	sqlite3_bind_int64(since, 1, (sqlite3_int64)since_ms);
	while ((code = sqlite3_step(since)) == SQLITE_ROW) {
		struct pl_history_entry entry = {
			.id = (uint64_t)sqlite3_column_int64(since, 0),
			.first_ms = (uint64_t)sqlite3_column_int64(since, 1),
			.at_ms = (uint64_t)sqlite3_column_int64(since, 2),
			.times = (uint64_t)sqlite3_column_int64(since, 3),
			.who = pl_column_text(since, 4),
			.what = pl_column_text(since, 5),
			.why = pl_column_text(since, 6),
			.outcome = pl_column_text(since, 7),
		};
		entry.has_predicted = pl_column_effect(since, 8, &entry.predicted);
		entry.has_measured = pl_column_effect(since, 9, &entry.measured);
		on_entry(context, &entry);
	}
	sqlite3_reset(since);

	return code == SQLITE_DONE ? CAD_OK
				   : cad_error_set(error, CAD_ERR_IO, "state file: reading the history: %s",
					     sqlite3_errmsg(history->database));
}
