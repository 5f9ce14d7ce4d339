/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/state_rebalances.h"

#include "common/base/log.h"
#include "orchestration/placement/internal.h"
#include "orchestration/placement/state_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(PL_REBALANCES_KEPT == 200, "the trigger of the schema says so");
_Static_assert(PL_REBALANCE_PAUSED == 3 && PL_REBALANCE_UNDONE == 7 && PL_REBALANCE_AUTO == 3,
	"statements have these numbers");

const char pl_state_rebalances_schema[] =
	"CREATE TABLE rebalances (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, kind INTEGER NOT NULL, who TEXT NOT NULL, reason TEXT NOT NULL,"
	" text TEXT NOT NULL, warning TEXT NOT NULL, measuring INTEGER NOT NULL, undoes INTEGER NOT NULL, undone_by INTEGER NOT NULL,"
	" rate INTEGER NOT NULL, moves INTEGER NOT NULL, moves_done INTEGER NOT NULL, moves_failed INTEGER NOT NULL, bytes INTEGER NOT NULL,"
	" bytes_done INTEGER NOT NULL, seconds REAL NOT NULL, planning_seconds REAL NOT NULL, tokens_planned INTEGER NOT NULL,"
	" tokens_measured INTEGER NOT NULL, started INTEGER NOT NULL, forced INTEGER NOT NULL, settled INTEGER NOT NULL,"
	" predicted BLOB NOT NULL, measured BLOB NOT NULL, before TEXT, after TEXT);"
	"CREATE TRIGGER rebalances_limit AFTER INSERT ON rebalances BEGIN DELETE FROM rebalances WHERE id <= new.id - 200; END;"
	"CREATE TABLE automatic (one INTEGER PRIMARY KEY CHECK (one = 1), is_on INTEGER NOT NULL, every_ms INTEGER NOT NULL,"
	" gain_min REAL NOT NULL, bytes_per_hour INTEGER NOT NULL)";
const char pl_state_rebalances_nonsense[] =
	"SELECT EXISTS (SELECT 1 FROM rebalances WHERE state NOT BETWEEN 1 AND 7 OR kind NOT BETWEEN 0 AND 3 OR typeof(who) <> 'text'"
	" OR typeof(moves) <> 'integer' OR typeof(forced) <> 'integer' OR typeof(predicted) <> 'blob' OR typeof(measured) <> 'blob'"
	" OR typeof(before) NOT IN ('text', 'null') OR typeof(after) NOT IN ('text', 'null'))"
	" OR EXISTS (SELECT 1 FROM automatic WHERE every_ms <= 0 OR typeof(gain_min) <> 'real' OR typeof(bytes_per_hour) <> 'integer')";

#define PL_REBALANCE_STATEMENT_LIST(X) \
	X(LAST, "SELECT max(id) FROM rebalances") \
	X(PENDING, "SELECT min(id) FROM rebalances WHERE id > ?1 AND (state <= 3 OR measuring <> 0)") \
	X(PUT, \
		"INSERT INTO rebalances VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22," \
		" ?23, ?24, ?25, NULL, NULL) ON CONFLICT (id) DO UPDATE SET state = ?2, text = ?6, warning = ?7, measuring = ?8, undone_by = ?10," \
		" moves = ?12, moves_done = ?13, moves_failed = ?14, bytes = ?15, bytes_done = ?16, seconds = ?17, planning_seconds = ?18," \
		" tokens_planned = ?19, tokens_measured = ?20, forced = ?22, settled = ?23, predicted = ?24, measured = ?25") \
	X(PUT_PLANS, "UPDATE rebalances SET before = ?2, after = ?3 WHERE id = ?1") \
	X(GET, \
		"SELECT id, state, kind, who, reason, text, warning, measuring, undoes, undone_by, rate, moves, moves_done, moves_failed, bytes," \
		" bytes_done, seconds, planning_seconds, tokens_planned, tokens_measured, started, forced, settled, predicted, measured" \
		" FROM rebalances WHERE id = ?1") \
	X(GET_PLANS, "SELECT before, after FROM rebalances WHERE id = ?1") \
	X(LATER, "SELECT min(id) FROM rebalances WHERE id > ?1 AND forced > 0 AND state <> 7 AND undoes = 0") \
	X(FORCED, "SELECT min(id) FROM rebalances WHERE id > ?1 AND forced > 0 AND forced >= ?2") \
	X(GET_AUTO, "SELECT is_on, every_ms, gain_min, bytes_per_hour FROM automatic") \
	X(PUT_AUTO, "INSERT OR REPLACE INTO automatic VALUES (1, ?1, ?2, ?3, ?4)") \
	X(AUTO_BYTES, "SELECT total(bytes_done) FROM rebalances WHERE kind = 3 AND forced >= ?1 AND id <> ?2")

enum statement {
#define X(name, sql) name,
	PL_REBALANCE_STATEMENT_LIST(X)
#undef X
		STATEMENT_COUNT
};

static const char *const statement_sql[STATEMENT_COUNT] = {
#define X(name, sql) [name] = sql,
	PL_REBALANCE_STATEMENT_LIST(X)
#undef X
};

struct pl_rebalance_table {
	sqlite3 *database;
	sqlite3_stmt *statements[STATEMENT_COUNT];
};

enum cad_status pl_rebalance_table_open(
	struct pl_state *state, struct pl_rebalance_table **table, struct cad_error *error)
{
	struct pl_rebalance_table *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for rebalances");

	made->database = pl_state_database(state);
	enum cad_status status = pl_state_prepare(state, statement_sql, STATEMENT_COUNT, made->statements, error);
	if (status != CAD_OK) {
		pl_rebalance_table_close(made);
		return status;
	}

	*table = made;
	return CAD_OK;
}

void pl_rebalance_table_close(struct pl_rebalance_table *table)
{
	if (!table)
		return;
	for (int i = 0; i < STATEMENT_COUNT; i++)
		sqlite3_finalize(table->statements[i]);
	free(table);
}

static sqlite3_stmt *use(struct pl_rebalance_table *table, enum statement statement, uint64_t first)
{
	sqlite3_stmt *used = table->statements[statement];
	sqlite3_reset(used);
	sqlite3_clear_bindings(used);
	if (sqlite3_bind_parameter_count(used) > 0)
		sqlite3_bind_int64(used, 1, (sqlite3_int64)first);
	return used;
}

static void finish_write(struct pl_rebalance_table *table, sqlite3_stmt *write)
{
	if (sqlite3_step(write) != SQLITE_DONE)
		cad_log_error(PL_COMPONENT, "a rebalance cannot be written to the state file",
			CAD_S("error", sqlite3_errmsg(table->database)));
	sqlite3_reset(write);
}

static uint64_t finish_number(sqlite3_stmt *get)
{
	uint64_t value = sqlite3_step(get) == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(get, 0) : 0;
	sqlite3_reset(get);
	return value;
}

static uint64_t number(struct pl_rebalance_table *table, enum statement statement, uint64_t first)
{
	return finish_number(use(table, statement, first));
}

uint64_t pl_rebalance_table_last(struct pl_rebalance_table *table) { return number(table, LAST, 0); }

uint64_t pl_rebalance_table_pending(struct pl_rebalance_table *table, uint64_t id)
{
	return number(table, PENDING, id);
}

uint64_t pl_rebalance_table_later(struct pl_rebalance_table *table, uint64_t id) { return number(table, LATER, id); }

uint64_t pl_rebalance_table_forced(struct pl_rebalance_table *table, uint64_t id, uint64_t since_ms)
{
	sqlite3_stmt *get = use(table, FORCED, id);
	sqlite3_bind_int64(get, 2, (sqlite3_int64)since_ms);
	return finish_number(get);
}

uint64_t pl_rebalance_table_auto_bytes(struct pl_rebalance_table *table, uint64_t since_ms, uint64_t but)
{
	sqlite3_stmt *get = use(table, AUTO_BYTES, since_ms);
	sqlite3_bind_int64(get, 2, (sqlite3_int64)but);
	return finish_number(get);
}

/* ---- rows ---- */

void pl_rebalance_table_put(struct pl_rebalance_table *table, const struct pl_rebalance *r)
{
	sqlite3_stmt *put = use(table, PUT, r->id);
	const char *const texts[] = { r->who, r->reason, r->text, r->warning };
	const uint64_t numbers[] = { r->measuring, r->undoes, r->undone_by, r->bytes_per_second, r->moves,
		r->moves_done, r->moves_failed, r->bytes, r->bytes_done };
	int at = 2;

	sqlite3_bind_int(put, at++, (int)r->state);
	sqlite3_bind_int(put, at++, (int)r->kind);
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		sqlite3_bind_text(put, at++, texts[i], -1, SQLITE_STATIC);
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		sqlite3_bind_int64(put, at++, (sqlite3_int64)numbers[i]);
	sqlite3_bind_double(put, at++, r->seconds);
	sqlite3_bind_double(put, at++, r->planning_seconds);
	const uint64_t more[] = { r->tokens_planned, r->tokens_measured, r->started_ms, r->forced_ms, r->settled_ms };
	for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
		sqlite3_bind_int64(put, at++, (sqlite3_int64)more[i]);
	sqlite3_bind_blob(put, at++, &r->predicted, sizeof r->predicted, SQLITE_STATIC);
	sqlite3_bind_blob(put, at++, &r->measured, sizeof r->measured, SQLITE_STATIC);
	finish_write(table, put);
}

static void take_text(sqlite3_stmt *get, int at, char *text, size_t bytes)
{
	snprintf(text, bytes, "%s", pl_column_text(get, at));
}

enum cad_status pl_rebalance_table_get(struct pl_rebalance_table *table, uint64_t id, struct pl_rebalance *r)
{
	sqlite3_stmt *get = use(table, GET, id);
	if (sqlite3_step(get) != SQLITE_ROW) {
		sqlite3_reset(get);
		return CAD_ERR_NOT_FOUND;
	}

	int at = 7;
	*r = (struct pl_rebalance){
		.id = id,
		.state = (enum pl_rebalance_state)sqlite3_column_int(get, 1),
		.kind = (enum pl_rebalance_kind)sqlite3_column_int(get, 2),
	};
	take_text(get, 3, r->who, sizeof r->who);
	take_text(get, 4, r->reason, sizeof r->reason);
	take_text(get, 5, r->text, sizeof r->text);
	take_text(get, 6, r->warning, sizeof r->warning);
	r->measuring = sqlite3_column_int64(get, at++) != 0;
	r->undoes = (uint64_t)sqlite3_column_int64(get, at++);
	r->undone_by = (uint64_t)sqlite3_column_int64(get, at++);
	r->bytes_per_second = (uint64_t)sqlite3_column_int64(get, at++);
	r->moves = (uint32_t)sqlite3_column_int64(get, at++);
	r->moves_done = (uint32_t)sqlite3_column_int64(get, at++);
	r->moves_failed = (uint32_t)sqlite3_column_int64(get, at++);
	r->bytes = (uint64_t)sqlite3_column_int64(get, at++);
	r->bytes_done = (uint64_t)sqlite3_column_int64(get, at++);
	r->seconds = sqlite3_column_double(get, at++);
	r->planning_seconds = sqlite3_column_double(get, at++);
	r->tokens_planned = (uint64_t)sqlite3_column_int64(get, at++);
	r->tokens_measured = (uint64_t)sqlite3_column_int64(get, at++);
	r->started_ms = (uint64_t)sqlite3_column_int64(get, at++);
	r->forced_ms = (uint64_t)sqlite3_column_int64(get, at++);
	r->settled_ms = (uint64_t)sqlite3_column_int64(get, at++);
	(void)pl_column_effect(get, at++, &r->predicted);
	(void)pl_column_effect(get, at, &r->measured);
	sqlite3_reset(get);

	return CAD_OK;
}

/* ---- plans ---- */

static char *plan_text(const struct pl_plan *plan, const struct pl_cluster *nodes)
{
	json_t *json = pl_plan_to_json(plan, nodes, "cadre", pl_plan_used_max(plan), 0);
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return text;
}

void pl_rebalance_table_put_plans(struct pl_rebalance_table *table, uint64_t id, const struct pl_cluster *nodes,
	const struct pl_plan *before, const struct pl_plan *after)
{
	sqlite3_stmt *put = use(table, PUT_PLANS, id);
	char *texts[] = { plan_text(before, nodes), plan_text(after, nodes) };

	for (int i = 0; i < 2; i++)
		if (texts[i])
			sqlite3_bind_text(put, 2 + i, texts[i], -1, SQLITE_STATIC);
	finish_write(table, put);
	free(texts[0]);
	free(texts[1]);
}

enum cad_status pl_rebalance_table_plan(struct pl_rebalance_table *table, uint64_t id, bool after,
	struct pl_plan **plan, struct pl_cluster *nodes, struct cad_error *error)
{
	sqlite3_stmt *get = use(table, GET_PLANS, id);
	const char *text =
		sqlite3_step(get) == SQLITE_ROW ? (const char *)sqlite3_column_text(get, after ? 1 : 0) : NULL;
	enum cad_status status = text
		? pl_plan_parse("the placement of the state file", text, strlen(text), plan, nodes, error)
		: cad_error_set(
			  error, CAD_ERR_NOT_FOUND, "rebalance %llu was never put in force", (unsigned long long)id);
	sqlite3_reset(get);
	return status;
}

char *pl_rebalance_table_before(struct pl_rebalance_table *table, uint64_t id)
{
	sqlite3_stmt *get = use(table, GET_PLANS, id);
	const char *text = sqlite3_step(get) == SQLITE_ROW ? (const char *)sqlite3_column_text(get, 0) : NULL;
	char *copy = text ? strdup(text) : NULL;
	sqlite3_reset(get);
	return copy;
}

/* ---- the automatic mode ---- */

bool pl_rebalance_table_get_auto(struct pl_rebalance_table *table, struct pl_auto_settings *settings)
{
	sqlite3_stmt *get = use(table, GET_AUTO, 0);
	bool there = sqlite3_step(get) == SQLITE_ROW;

	if (there)
		*settings = (struct pl_auto_settings){
			.on = sqlite3_column_int(get, 0) != 0,
			.every_ns = (uint64_t)sqlite3_column_int64(get, 1) * CAD_NS_PER_MS,
			.gain_min = sqlite3_column_double(get, 2),
			.bytes_per_hour = (uint64_t)sqlite3_column_int64(get, 3),
		};
	sqlite3_reset(get);
	return there;
}

void pl_rebalance_table_put_auto(struct pl_rebalance_table *table, const struct pl_auto_settings *settings)
{
	sqlite3_stmt *put = use(table, PUT_AUTO, settings->on);

	sqlite3_bind_int64(put, 2, (sqlite3_int64)(settings->every_ns / CAD_NS_PER_MS));
	sqlite3_bind_double(put, 3, settings->gain_min);
	sqlite3_bind_int64(put, 4, (sqlite3_int64)settings->bytes_per_hour);
	finish_write(table, put);
}
