/* SPDX-License-Identifier: Apache-2.0 */
/* The state file: its schema, and one prepared statement for each thing that is done with the
 * tables of nodes and checksums. Other tables are in files of their own. */
#include "orchestration/placement/state.h"

#include "orchestration/placement/internal.h"
#include "orchestration/placement/state_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char create[] =
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
	"CREATE TABLE quanta (key TEXT PRIMARY KEY, quanta BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE checksums (layer INTEGER, expert INTEGER, hex TEXT NOT NULL, PRIMARY KEY (layer, expert)) WITHOUT ROWID;"
	"CREATE TABLE nodes (id TEXT PRIMARY KEY, role INTEGER NOT NULL, exchange TEXT NOT NULL, http TEXT NOT NULL, grpc TEXT NOT NULL,"
	" kernels TEXT NOT NULL, memory INTEGER NOT NULL, pid INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE held (id TEXT REFERENCES nodes ON DELETE CASCADE, layer INTEGER, expert INTEGER, PRIMARY KEY (id, layer, expert)) WITHOUT ROWID;";

#define TABLES "'meta', 'quanta', 'checksums', 'nodes', 'held'"
enum { TABLES_COUNT = 5 };

/* A well-formed database may still hold nonsense, after a page of another time or file. */
static const char nonsense[] =
	"SELECT EXISTS (SELECT 1 FROM nodes WHERE length(id) NOT BETWEEN 1 AND 63 OR id GLOB '*[^A-Za-z0-9._:-]*' OR role NOT IN (0, 1)"
	"  OR typeof(memory) <> 'integer' OR typeof(pid) <> 'integer')"
	" OR EXISTS (SELECT 1 FROM held WHERE typeof(layer) <> 'integer' OR typeof(expert) <> 'integer' OR id NOT IN (SELECT id FROM nodes))"
	" OR EXISTS (SELECT 1 FROM checksums WHERE length(hex) <> 32 OR hex GLOB '*[^0-9a-f]*')"
	" OR EXISTS (SELECT 1 FROM quanta WHERE typeof(quanta) <> 'blob')"
	" OR EXISTS (SELECT 1 FROM meta WHERE typeof(value) <> CASE key WHEN 'epoch' THEN 'integer' ELSE 'text' END)";

/* Format n at n - 1: what makes it of the one before (a new file goes through all of it), and
 * what finds nonsense in its tables, or NULL. */
static const struct {
	const char *upgrade, *nonsense;
} formats[] = {
	{ create, nonsense },
	{ "ALTER TABLE nodes ADD COLUMN probe TEXT NOT NULL DEFAULT ''",
		NULL }, /* where to see whether its process runs */
	{ pl_state_history_schema, pl_state_history_nonsense },
	{ pl_state_rebalances_schema, pl_state_rebalances_nonsense },
	{ pl_state_wishes_schema, pl_state_wishes_nonsense },
};
#define PL_STATE_FORMAT "cadre-placement-state-"
enum { FORMAT = sizeof formats / sizeof formats[0] };

#define PL_STATEMENT_LIST(X) \
	X(META_GET, "SELECT value FROM meta WHERE key = ?1") \
	X(META_PUT, "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2") \
	X(QUANTA_GET, "SELECT quanta FROM quanta WHERE key = ?1") \
	X(QUANTA_PUT, "INSERT OR REPLACE INTO quanta VALUES (?1, ?2)") \
	X(CHECKSUM_GET, "SELECT hex FROM checksums WHERE layer = ?1 AND expert = ?2") \
	X(CHECKSUM_PUT, "INSERT OR REPLACE INTO checksums VALUES (?1, ?2, ?3)") \
	X(CHECKSUM_DELETE_ALL, "DELETE FROM checksums") \
	X(NODE_ALL, "SELECT id, role, exchange, http, grpc, kernels, memory, pid, probe FROM nodes ORDER BY id") \
	X(NODE_PUT, \
		"INSERT INTO nodes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO UPDATE SET" \
		" role = ?2, exchange = ?3, http = ?4, grpc = ?5, kernels = ?6, memory = ?7, pid = ?8, probe = ?9") \
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

enum { LOSS_BYTES = 640 };

struct pl_state {
	sqlite3 *database;
	char *path;
	bool failed;           /* a change of the present transaction */
	char loss[LOSS_BYTES]; /* what pl_state_loss says */
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
		return cad_error_set(error, CAD_ERR_CORRUPT, "state file '%s' is damaged (%s)", path,
			sqlite3_errmsg(state->database));
	/* the header says so, not the file system */
	if (code == SQLITE_READONLY && access(path, W_OK) == 0)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"state file '%s' is damaged (its header is of an unknown version)", path);
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

const char *pl_column_text(sqlite3_stmt *statement, int at)
{
	const unsigned char *text = sqlite3_column_text(statement, at);
	return text ? (const char *)text : "";
}

bool pl_column_effect(sqlite3_stmt *statement, int at, struct pl_effect *effect)
{
	*effect = PL_EFFECT_UNKNOWN;
	if (sqlite3_column_bytes(statement, at) != sizeof *effect)
		return false;
	memcpy(effect, sqlite3_column_blob(statement, at), sizeof *effect);
	return true;
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
		const char *value = pl_column_text(get, 0);
		size_t length = strnlen(value, bytes - 1);
		memcpy(text, value, length);
		text[length] = 0;
	}
	sqlite3_reset(get);
}

/* ---- open and close ---- */

static enum cad_status run_sql(struct pl_state *state, const char *sql, const char *doing, struct cad_error *error)
{
	return sqlite3_exec(state->database, sql, NULL, NULL, NULL) == SQLITE_OK ? CAD_OK
										 : state_error(state, doing, error);
}

static enum cad_status damaged(const struct pl_state *state, const char *why, struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_CORRUPT, "state file '%s' is damaged (%s)", state->path, why);
}

/* The first column of the first row, as text; "" if there is none. A statement that this file has
 * no tables for is damage, too. */
static enum cad_status ask(
	struct pl_state *state, const char *sql, char *text, size_t bytes, const char *doing, struct cad_error *error)
{
	sqlite3_stmt *get = NULL;
	int code = sqlite3_prepare_v2(state->database, sql, -1, &get, NULL);

	text[0] = 0;
	if (code == SQLITE_OK)
		code = sqlite3_step(get);
	if (code == SQLITE_ROW)
		snprintf(text, bytes, "%s", pl_column_text(get, 0));
	enum cad_status status = CAD_OK;
	if (code == SQLITE_ERROR)
		status = damaged(state, sqlite3_errmsg(state->database), error);
	else if (code != SQLITE_ROW && code != SQLITE_DONE)
		status = state_error(state, doing, error);
	sqlite3_finalize(get);

	return status;
}

/* The number of the file's format; 0: there is nothing in it. */
static enum cad_status read_format(struct pl_state *state, unsigned *format, struct cad_error *error)
{
	static const char doing[] = "reading its format";
	char text[64];
	enum cad_status status = ask(state, "SELECT count(*) FROM sqlite_master", text, sizeof text, doing, error);

	*format = 0;
	if (status != CAD_OK || strcmp(text, "0") == 0)
		return status;

	status = ask(state, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (" TABLES ")", text,
		sizeof text, doing, error);
	unsigned long tables = status == CAD_OK ? strtoul(text, NULL, 10) : TABLES_COUNT;
	if (tables < TABLES_COUNT && tables > TABLES_COUNT / 2)
		return damaged(state, "a table is missing", error);
	if (tables < TABLES_COUNT)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"'%s' is a database of another program: give --state the name of a file of its own",
			state->path);
	if (status == CAD_OK)
		status = ask(state, "SELECT value FROM meta WHERE key = 'format'", text, sizeof text, doing, error);
	if (status != CAD_OK)
		return status;

	*format = 1; /* 0.2.0 and before wrote it last */
	if (!text[0])
		return CAD_OK;
	size_t prefix = strlen(PL_STATE_FORMAT);
	*format = strncmp(text, PL_STATE_FORMAT, prefix) == 0 ? (unsigned)strtoul(text + prefix, NULL, 10) : 0;
	if (*format == 0 || *format > FORMAT)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"state file '%s' has the format '%s', but this program knows '" PL_STATE_FORMAT
			"%d': use the program that wrote it, or move the file away",
			state->path, text, FORMAT);

	return CAD_OK;
}

/* Reads all of it: what is damaged shall be noticed now, not when it is needed. */
static enum cad_status examine(struct pl_state *state, unsigned format, struct cad_error *error)
{
	char text[128];
	enum cad_status status = ask(state, "PRAGMA integrity_check(1)", text, sizeof text, "examining it", error);
	if (status == CAD_OK && strcmp(text, "ok") != 0) {
		const char *heading = strchr(text, '\n'); /* the first line names the database */
		return damaged(state, heading ? heading + 1 : text, error);
	}
	for (unsigned i = 0; i < format && status == CAD_OK; i++) {
		if (!formats[i].nonsense)
			continue;
		status = ask(state, formats[i].nonsense, text, sizeof text, "examining it", error);
		if (status == CAD_OK && strcmp(text, "0") != 0)
			return damaged(state, "it holds values that were never written", error);
	}
	return status;
}

/* Tables that are not those of the format that the file names are damage. */
static enum cad_status upgrade(struct pl_state *state, const char *sql, struct cad_error *error)
{
	enum cad_status status = run_sql(state, sql, "bringing it up to date", error);
	return status != CAD_OK && sqlite3_errcode(state->database) == SQLITE_ERROR
		? damaged(state, sqlite3_errmsg(state->database), error)
		: status;
}

/* In one transaction, which also tells whether another service has the file. */
static enum cad_status bring_up(struct pl_state *state, bool empty, struct cad_error *error)
{
	unsigned format;
	enum cad_status status = run_sql(state, "BEGIN EXCLUSIVE", "opening it", error);

	if (status == CAD_OK)
		status = read_format(state, &format, error);
	if (status == CAD_OK && format > 0)
		status = examine(state, format, error);
	else if (status == CAD_OK && empty)
		status = damaged(state, "it is empty", error);
	if (status != CAD_OK)
		return status;

	for (unsigned i = format; i < FORMAT && status == CAD_OK; i++)
		status = upgrade(state, formats[i].upgrade, error);
	if (status == CAD_OK && format < FORMAT) {
		char sql[128];
		snprintf(sql, sizeof sql, "INSERT OR REPLACE INTO meta VALUES ('format', '" PL_STATE_FORMAT "%d')",
			FORMAT);
		status = run_sql(state, sql, "bringing it up to date", error);
	}

	return status == CAD_OK ? run_sql(state, "COMMIT", "bringing it up to date", error) : status;
}

enum cad_status pl_state_prepare(
	struct pl_state *state, const char *const *sql, int count, sqlite3_stmt **statements, struct cad_error *error)
{
	for (int i = 0; i < count; i++)
		if (sqlite3_prepare_v3(state->database, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &statements[i], NULL) !=
			SQLITE_OK)
			return state_error(state, "preparing it", error);
	return CAD_OK;
}

static enum cad_status prepare(struct pl_state *state, bool empty, struct cad_error *error)
{
	enum cad_status status =
		run_sql(state, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA foreign_keys = ON;", "opening it", error);
	if (status == CAD_OK)
		status = bring_up(state, empty, error);
	if (status == CAD_OK)
		status = run_sql(state, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;", "opening it", error);

	if (status == CAD_OK)
		status = pl_state_prepare(state, statement_sql, STATEMENT_COUNT, state->statements, error);

	/* what is not opened is left as it is, with its -wal */
	if (status != CAD_OK)
		sqlite3_db_config(state->database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	return status;
}

/* `empty`: the file was there before, without a byte, which no service leaves behind. */
static enum cad_status open_file(const char *path, bool empty, struct pl_state **state, struct cad_error *error)
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
		status = prepare(made, empty, error);
	if (status != CAD_OK) {
		pl_state_close(made);
		return status;
	}

	*state = made;
	return CAD_OK;
}

/* SQLite takes a file of one byte for empty, too. */
static bool is_empty(const struct stat *file) { return file->st_size <= 1; }

/* A damaged file is set aside, and another one begun. */
static enum cad_status begin_again(
	const char *path, const struct stat *before, struct pl_state **state, struct cad_error *error)
{
	char name[PL_ASIDE_BYTES], why[CAD_ERROR_TEXT_BYTES];
	snprintf(why, sizeof why, "%s", error->text);

	enum cad_status status = pl_state_set_aside(path, before, name, error);
	bool keep = status != CAD_OK && is_empty(before); /* there is nothing in it to be kept */
	if (status == CAD_OK || keep)
		status = open_file(path, false, state, error);
	if (status != CAD_OK)
		return status;
	if (keep)
		snprintf((*state)->loss, sizeof(*state)->loss, "%s", why);
	else
		snprintf((*state)->loss, sizeof(*state)->loss, "%.300s; it is now '%.200s'", why, name);

	return CAD_OK;
}

enum cad_status pl_state_open(const char *path, struct pl_state **state, struct cad_error *error)
{
	struct stat before;
	struct cad_error why;
	bool there = path[0] && stat(path, &before) == 0 && S_ISREG(before.st_mode);
	enum cad_status status = open_file(path, there && is_empty(&before), state, &why);

	if (status == CAD_ERR_CORRUPT && there)
		status = begin_again(path, &before, state, &why);
	if (status != CAD_OK && error)
		*error = why;
	return status;
}

void pl_state_fail(struct pl_state *state) { state->failed = true; }

sqlite3 *pl_state_database(struct pl_state *state) { return state->database; }

const char *pl_state_loss(const struct pl_state *state) { return state->loss; }

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

bool pl_state_has_files(struct pl_state *state, const char *files)
{
	char known[PL_TEXT_BYTES];
	get_meta_text(state, "files", known, sizeof known);
	return !known[0] || strcmp(known, files) == 0;
}

enum cad_status pl_state_put_files(struct pl_state *state, const char *files, struct cad_error *error)
{
	pl_state_begin(state);
	if (!pl_state_has_files(state, files))
		(void)run(state, use(state, CHECKSUM_DELETE_ALL));
	put_meta_text(state, "files", files);
	return pl_state_commit(state, error);
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
		memcpy(hex, pl_column_text(get, 0), 33);
		status = CAD_OK;
	}
	sqlite3_reset(get);
	return status;
}

enum cad_status pl_state_router_checksum(struct pl_state *state, char hex[33])
{
	get_meta_text(state, "router", hex, 33);
	return strlen(hex) == 32 ? CAD_OK : CAD_ERR_NOT_FOUND;
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
			.id = pl_column_text(get, 0),
			.role = sqlite3_column_int(get, 1) == PL_ROLE_EXPERT ? PL_ROLE_EXPERT : PL_ROLE_ROUTER,
			.exchange_address = pl_column_text(get, 2),
			.http_address = pl_column_text(get, 3),
			.grpc_address = pl_column_text(get, 4),
			.kernels_fingerprint = pl_column_text(get, 5),
			.version = "",
			.isa = "",
			.memory_bytes = (uint64_t)sqlite3_column_int64(get, 6),
			.pid = (uint32_t)sqlite3_column_int64(get, 7),
			.probe_address = pl_column_text(get, 8),
		};
		reader->node(reader->context, &hello);
	}

	if (code != SQLITE_DONE)
		return state_error(state, "reading the nodes", error);
	sqlite3_reset(get);
	get = use(state, HELD_ALL);
	while ((code = sqlite3_step(get)) == SQLITE_ROW)
		reader->held(reader->context, pl_column_text(get, 0), (uint32_t)sqlite3_column_int64(get, 1),
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
	bind_text(put, 9, node->probe_address);
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

void pl_state_put_router_checksum(struct pl_state *state, const char *hex) { put_meta_text(state, "router", hex); }

enum cad_status pl_state_commit(struct pl_state *state, struct cad_error *error)
{
	if (!state->failed && run(state, use(state, COMMIT)))
		return CAD_OK;
	enum cad_status status = state_error(state, "writing to it", error);
	if (!sqlite3_get_autocommit(state->database))
		(void)run(state, use(state, ROLLBACK));
	return status;
}
