/* SPDX-License-Identifier: Apache-2.0 */
/* The state file: a schema of four tables, and one prepared statement for each thing that is done
 * with them. */
#include "orchestration/placement/state.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

static const char schema[] =
	"PRAGMA locking_mode = EXCLUSIVE;"
	"PRAGMA journal_mode = WAL;"
	"PRAGMA synchronous = FULL;"
	"PRAGMA foreign_keys = ON;"
	"BEGIN EXCLUSIVE;"
	"CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS quanta (key TEXT PRIMARY KEY, quanta BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS checksums (layer INTEGER, expert INTEGER, hex TEXT NOT NULL, PRIMARY KEY (layer, expert)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS nodes (id TEXT PRIMARY KEY, role INTEGER NOT NULL, exchange TEXT NOT NULL, http TEXT NOT NULL, grpc TEXT NOT NULL,"
	" kernels TEXT NOT NULL, memory INTEGER NOT NULL, pid INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS held (id TEXT REFERENCES nodes ON DELETE CASCADE, layer INTEGER, expert INTEGER, PRIMARY KEY (id, layer, expert)) WITHOUT ROWID;"
	"COMMIT;";

/* A later schema has another number here, and code that brings an older one up to it. */
#define PL_STATE_FORMAT "cadre-placement-state-1"

#define PL_STATEMENT_LIST(X) \
	X(META_GET, "SELECT value FROM meta WHERE key = ?1") \
	X(META_PUT, "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2") \
	X(QUANTA_GET, "SELECT quanta FROM quanta WHERE key = ?1") \
	X(QUANTA_PUT, "INSERT OR REPLACE INTO quanta VALUES (?1, ?2)") \
	X(CHECKSUM_GET, "SELECT hex FROM checksums WHERE layer = ?1 AND expert = ?2") \
	X(CHECKSUM_PUT, "INSERT OR REPLACE INTO checksums VALUES (?1, ?2, ?3)") \
	X(NODE_ALL, "SELECT id, role, exchange, http, grpc, kernels, memory, pid FROM nodes ORDER BY id") \
	X(NODE_PUT, \
		"INSERT INTO nodes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO UPDATE SET" \
		" role = ?2, exchange = ?3, http = ?4, grpc = ?5, kernels = ?6, memory = ?7, pid = ?8") \
	X(NODE_DELETE, "DELETE FROM nodes WHERE id = ?1") \
	X(NODE_DELETE_ALL, "DELETE FROM nodes") \
	X(HELD_ALL, "SELECT id, layer, expert FROM held ORDER BY id, layer, expert") \
	X(HELD_PUT, "INSERT OR IGNORE INTO held VALUES (?1, ?2, ?3)") \
	X(HELD_DELETE, "DELETE FROM held WHERE id = ?1 AND layer = ?2 AND expert = ?3") \
	X(BEGIN, "BEGIN IMMEDIATE") \
	X(COMMIT, "COMMIT") \
	X(ROLLBACK, "ROLLBACK")

enum statement {
#define X(name, sql) name,
	PL_STATEMENT_LIST(X)
#undef X
		STATEMENT_COUNT
};

static const char *const statement_sql[STATEMENT_COUNT] = {
#define X(name, sql) [name] = sql,
	PL_STATEMENT_LIST(X)
#undef X
};

struct pl_state {
	sqlite3 *database;
	char *path;
	bool failed; /* a change of the present transaction */
	sqlite3_stmt *statements[STATEMENT_COUNT];
};

static enum cad_status state_error(const struct pl_state *state, const char *doing, struct cad_error *error)
{
	int code = sqlite3_errcode(state->database);
	const char *path = state->path[0] ? state->path : "(memory)";

	if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
		return cad_error_set(error, CAD_ERR_IO,
			"state file '%s' is in use: does another cadre-placement run with it?", path);
	if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"'%s' is not a state file of cadre-placement, or a damaged one (%s): move it away to start afresh",
			path, sqlite3_errmsg(state->database));
	int reason = sqlite3_system_errno(state->database);
	bool tells = reason != 0 && (code == SQLITE_CANTOPEN || code == SQLITE_IOERR || code == SQLITE_READONLY);
	return cad_error_set(error, CAD_ERR_IO, "state file '%s': %s: %s%s%s%s", path, doing,
		sqlite3_errmsg(state->database), tells ? " (" : "", tells ? strerror(reason) : "", tells ? ")" : "");
}

/* ---- statements: bind with these, then step once (or to the end) and reset ---- */

static sqlite3_stmt *use(struct pl_state *state, enum statement statement)
{
	sqlite3_reset(state->statements[statement]);
	sqlite3_clear_bindings(state->statements[statement]);
	return state->statements[statement];
}

static void bind_text(sqlite3_stmt *statement, int at, const char *text)
{
	/* out of memory shows when it is stepped: NOT NULL */
	(void)sqlite3_bind_text(statement, at, text, -1, SQLITE_TRANSIENT);
}

static const char *column_text(sqlite3_stmt *statement, int at)
{
	const unsigned char *text = sqlite3_column_text(statement, at);
	return text ? (const char *)text : "";
}

static bool run(struct pl_state *state, sqlite3_stmt *statement)
{
	int code = sqlite3_step(statement);
	bool fine = code == SQLITE_DONE || code == SQLITE_ROW;
	if (!fine)
		state->failed = true;
	else
		sqlite3_reset(statement);
	return fine;
}

static void put_meta_text(struct pl_state *state, const char *key, const char *value)
{
	sqlite3_stmt *put = use(state, META_PUT);
	bind_text(put, 1, key);
	bind_text(put, 2, value);
	(void)run(state, put);
}

/* "" when there is no such key; cut to size. */
static void get_meta_text(struct pl_state *state, const char *key, char *text, size_t bytes)
{
	sqlite3_stmt *get = use(state, META_GET);
	bind_text(get, 1, key);
	text[0] = 0;
	if (sqlite3_step(get) == SQLITE_ROW) {
		const char *value = column_text(get, 0);
		size_t length = strnlen(value, bytes - 1);
		memcpy(text, value, length);
		text[length] = 0;
	}
	sqlite3_reset(get);
}

/* ---- open and close ---- */

static enum cad_status prepare(struct pl_state *state, struct cad_error *error)
{
	if (sqlite3_exec(state->database, schema, NULL, NULL, NULL) != SQLITE_OK)
		return state_error(state, "preparing it", error);

	for (int i = 0; i < STATEMENT_COUNT; i++)
		if (sqlite3_prepare_v3(state->database, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
			    &state->statements[i], NULL) != SQLITE_OK)
			return state_error(state, "preparing it", error);
	char format[64];
	get_meta_text(state, "format", format, sizeof format);
	if (format[0] && strcmp(format, PL_STATE_FORMAT) != 0)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"state file '%s' has the format '%s', but this program knows '%s': use the program that wrote it, or move the file away",
			state->path, format, PL_STATE_FORMAT);
	if (!format[0]) {
		state->failed = false;
		put_meta_text(state, "format", PL_STATE_FORMAT);
		if (state->failed)
			return state_error(state, "writing to it", error);
	}

	return CAD_OK;
}

enum cad_status pl_state_open(const char *path, struct pl_state **state, struct cad_error *error)
{
	struct pl_state *made = calloc(1, sizeof *made);
	char *copy = strdup(path);

	if (!made || !copy) {
		free(made);
		free(copy);
		return cad_error_set(error, CAD_ERR_MEMORY, "state file '%s': out of memory", path);
	}

	made->path = copy;
	enum cad_status status;
	if (sqlite3_open_v2(path[0] ? path : ":memory:", &made->database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
		    NULL) != SQLITE_OK)
		status = made->database ? state_error(made, "opening it", error)
					: cad_error_set(error, CAD_ERR_MEMORY, "state file '%s': out of memory", path);
	else
		status = prepare(made, error);
	if (status != CAD_OK) {
		pl_state_close(made);
		return status;
	}

	*state = made;
	return CAD_OK;
}

void pl_state_close(struct pl_state *state)
{
	if (!state)
		return;
	for (int i = 0; i < STATEMENT_COUNT; i++)
		sqlite3_finalize(state->statements[i]);
	sqlite3_close(state->database);
	free(state->path);
	free(state);
}

/* ---- whose it is ---- */

enum cad_status pl_state_claim(
	struct pl_state *state, const char *cluster, const char *model_fingerprint, struct cad_error *error)
{
	char old_cluster[PL_TEXT_BYTES], old_model[PL_TEXT_BYTES];
	get_meta_text(state, "cluster", old_cluster, sizeof old_cluster);
	get_meta_text(state, "model", old_model, sizeof old_model);
	if (old_cluster[0] && strcmp(old_cluster, cluster) != 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"state file '%s' belongs to cluster '%s', this is cluster '%s': use another --state, or move the file away",
			state->path, old_cluster, cluster);
	if (old_model[0] && strcmp(old_model, model_fingerprint) != 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"state file '%s' belongs to a checkpoint with fingerprint %s, --model has %s: use another --state, or move the file away",
			state->path, old_model, model_fingerprint);
	if (old_cluster[0] && old_model[0])
		return CAD_OK;
	pl_state_begin(state);
	put_meta_text(state, "cluster", cluster);
	put_meta_text(state, "model", model_fingerprint);

	return pl_state_commit(state, error);
}

enum cad_status pl_state_settings(
	struct pl_state *state, const char *settings_fingerprint, bool *fresh, struct cad_error *error)
{
	char old[PL_TEXT_BYTES];
	get_meta_text(state, "settings", old, sizeof old);
	bool changed = strcmp(old, settings_fingerprint) != 0;
	if (changed) {
		pl_state_begin(state);
		(void)run(state, use(state, NODE_DELETE_ALL));
		put_meta_text(state, "settings", settings_fingerprint);
		enum cad_status status = pl_state_commit(state, error);
		if (status != CAD_OK)
			return status;
	}

	*fresh = changed;
	return CAD_OK;
}

/* ---- tables that are computed once ---- */

enum cad_status pl_state_quanta_load(struct pl_state *state, const char *key, float *quanta, uint32_t layers)
{
	sqlite3_stmt *get = use(state, QUANTA_GET);
	bind_text(get, 1, key);
	enum cad_status status = CAD_ERR_NOT_FOUND;
	if (sqlite3_step(get) == SQLITE_ROW && (size_t)sqlite3_column_bytes(get, 0) == layers * sizeof *quanta) {
		memcpy(quanta, sqlite3_column_blob(get, 0), layers * sizeof *quanta);
		status = CAD_OK;
	}
	sqlite3_reset(get);
	return status;
}

enum cad_status pl_state_quanta_store(
	struct pl_state *state, const char *key, const float *quanta, uint32_t layers, struct cad_error *error)
{
	pl_state_begin(state);
	sqlite3_stmt *put = use(state, QUANTA_PUT);
	bind_text(put, 1, key);
	sqlite3_bind_blob(put, 2, quanta, (int)(layers * sizeof *quanta), SQLITE_TRANSIENT);
	(void)run(state, put);
	return pl_state_commit(state, error);
}

enum cad_status pl_state_checksum(struct pl_state *state, uint32_t layer, uint32_t expert, char hex[33])
{
	sqlite3_stmt *get = use(state, CHECKSUM_GET);
	sqlite3_bind_int64(get, 1, layer);
	sqlite3_bind_int64(get, 2, expert);
	enum cad_status status = CAD_ERR_NOT_FOUND;
	if (sqlite3_step(get) == SQLITE_ROW && sqlite3_column_bytes(get, 0) == 32) {
		memcpy(hex, column_text(get, 0), 33);
		status = CAD_OK;
	}
	sqlite3_reset(get);
	return status;
}

/* ---- nodes and what they hold ---- */

uint64_t pl_state_epoch(struct pl_state *state)
{
	sqlite3_stmt *get = use(state, META_GET);
	bind_text(get, 1, "epoch");
	uint64_t epoch = sqlite3_step(get) == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(get, 0) : 0;
	sqlite3_reset(get);
	return epoch;
}

void pl_state_kernels(struct pl_state *state, char text[PL_TEXT_BYTES])
{
	get_meta_text(state, "kernels", text, PL_TEXT_BYTES);
}

enum cad_status pl_state_read(struct pl_state *state, const struct pl_state_reader *reader, struct cad_error *error)
{
	int code;
	sqlite3_stmt *get = use(state, NODE_ALL);

	while ((code = sqlite3_step(get)) == SQLITE_ROW) {
		const struct pl_hello hello = {
			.id = column_text(get, 0),
			.role = sqlite3_column_int(get, 1) == PL_ROLE_EXPERT ? PL_ROLE_EXPERT : PL_ROLE_ROUTER,
			.exchange_address = column_text(get, 2),
			.http_address = column_text(get, 3),
			.grpc_address = column_text(get, 4),
			.kernels_fingerprint = column_text(get, 5),
			.version = "",
			.isa = "",
			.memory_bytes = (uint64_t)sqlite3_column_int64(get, 6),
			.pid = (uint32_t)sqlite3_column_int64(get, 7),
		};
		reader->node(reader->context, &hello);
	}

	if (code != SQLITE_DONE)
		return state_error(state, "reading the nodes", error);
	sqlite3_reset(get);
	get = use(state, HELD_ALL);
	while ((code = sqlite3_step(get)) == SQLITE_ROW)
		reader->held(reader->context, column_text(get, 0), (uint32_t)sqlite3_column_int64(get, 1),
			(uint32_t)sqlite3_column_int64(get, 2));
	if (code != SQLITE_DONE)
		return state_error(state, "reading what nodes hold", error);
	sqlite3_reset(get);

	return CAD_OK;
}

void pl_state_begin(struct pl_state *state)
{
	state->failed = false;
	(void)run(state, use(state, BEGIN));
}

void pl_state_put_epoch(struct pl_state *state, uint64_t epoch)
{
	sqlite3_stmt *put = use(state, META_PUT);
	bind_text(put, 1, "epoch");
	sqlite3_bind_int64(put, 2, (sqlite3_int64)epoch);
	(void)run(state, put);
}

void pl_state_put_kernels(struct pl_state *state, const char *text) { put_meta_text(state, "kernels", text); }

void pl_state_put_node(struct pl_state *state, const struct pl_node *node)
{
	sqlite3_stmt *put = use(state, NODE_PUT);
	bind_text(put, 1, node->id);
	sqlite3_bind_int(put, 2, (int)node->role);
	bind_text(put, 3, node->exchange_address);
	bind_text(put, 4, node->http_address);
	bind_text(put, 5, node->grpc_address);
	bind_text(put, 6, node->kernels_fingerprint);
	sqlite3_bind_int64(put, 7, (sqlite3_int64)node->memory_bytes);
	sqlite3_bind_int64(put, 8, node->pid);
	(void)run(state, put);
}

void pl_state_delete_node(struct pl_state *state, const char *id)
{
	sqlite3_stmt *put = use(state, NODE_DELETE);
	bind_text(put, 1, id);
	(void)run(state, put);
}

void pl_state_put_held(struct pl_state *state, const char *id, uint32_t layer, uint32_t expert, bool held)
{
	sqlite3_stmt *put = use(state, held ? HELD_PUT : HELD_DELETE);
	bind_text(put, 1, id);
	sqlite3_bind_int64(put, 2, layer);
	sqlite3_bind_int64(put, 3, expert);
	(void)run(state, put);
}

void pl_state_put_checksum(struct pl_state *state, uint32_t layer, uint32_t expert, const char *hex)
{
	sqlite3_stmt *put = use(state, CHECKSUM_PUT);
	sqlite3_bind_int64(put, 1, layer);
	sqlite3_bind_int64(put, 2, expert);
	bind_text(put, 3, hex);
	(void)run(state, put);
}

enum cad_status pl_state_commit(struct pl_state *state, struct cad_error *error)
{
	if (!state->failed && run(state, use(state, COMMIT)))
		return CAD_OK;
	enum cad_status status = state_error(state, "writing to it", error);
	if (!sqlite3_get_autocommit(state->database))
		(void)run(state, use(state, ROLLBACK));
	return status;
}
