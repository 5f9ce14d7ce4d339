/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State files of every format that was ever released open, and nothing in them is lost. A format
 * that is released stays here word for word: a change of the schema fails here until it has a
 * number of its own (docs/VERSIONS.md), code that brings older files up to it, and its file below.
 */
#include "orchestration/placement/history.h"
#include "orchestration/placement/internal.h"
#include "orchestration/placement/state.h"
#include "orchestration/placement/state_rebalances.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What 0.1.0 writes. */
static const char format_1[] =
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
	"CREATE TABLE quanta (key TEXT PRIMARY KEY, quanta BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE checksums (layer INTEGER, expert INTEGER, hex TEXT NOT NULL, PRIMARY KEY (layer, expert)) WITHOUT ROWID;"
	"CREATE TABLE nodes (id TEXT PRIMARY KEY, role INTEGER NOT NULL, exchange TEXT NOT NULL, http TEXT NOT NULL, grpc TEXT NOT NULL,"
	" kernels TEXT NOT NULL, memory INTEGER NOT NULL, pid INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE held (id TEXT REFERENCES nodes ON DELETE CASCADE, layer INTEGER, expert INTEGER,"
	" PRIMARY KEY (id, layer, expert)) WITHOUT ROWID;"
	"INSERT INTO meta VALUES ('format', 'cadre-placement-state-1'), ('cluster', 'cadre'), ('model', 'm1'), ('settings', 's1'),"
	" ('epoch', 7), ('kernels', 'k1');"
	"INSERT INTO quanta VALUES ('q', X'0000803e0000003f');" /* 0.25, 0.5 */
	"INSERT INTO checksums VALUES (1, 2, '00112233445566778899aabbccddeeff');"
	"INSERT INTO nodes VALUES ('expert-a', 1, '127.0.0.1:7410', '127.0.0.1:7411', '', 'k1', 34359738368, 4242);"
	"INSERT INTO held VALUES ('expert-a', 1, 2), ('expert-a', 3, 4);";

/* What came after it. */
static const char format_2[] = "ALTER TABLE nodes ADD COLUMN probe TEXT NOT NULL DEFAULT '';"
			       "UPDATE meta SET value = 'cadre-placement-state-2' WHERE key = 'format'";

static const char format_3[] =
	"CREATE TABLE history (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, times INTEGER NOT NULL, who TEXT NOT NULL,"
	" what TEXT NOT NULL, why TEXT NOT NULL, outcome TEXT NOT NULL, predicted BLOB, measured BLOB);"
	"CREATE TRIGGER history_limit AFTER INSERT ON history BEGIN DELETE FROM history WHERE id <= new.id - 4000; END;"
	"INSERT INTO history VALUES (1, 1764489600000, 1764489600000, 1, 'alice', 'drain e3', 'disk', 'done', NULL, NULL);"
	"UPDATE meta SET value = 'cadre-placement-state-3' WHERE key = 'format'";

static const char format_4[] =
	"CREATE TABLE rebalances (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, kind INTEGER NOT NULL, who TEXT NOT NULL, reason TEXT NOT NULL,"
	" text TEXT NOT NULL, warning TEXT NOT NULL, measuring INTEGER NOT NULL, undoes INTEGER NOT NULL, undone_by INTEGER NOT NULL,"
	" rate INTEGER NOT NULL, moves INTEGER NOT NULL, moves_done INTEGER NOT NULL, moves_failed INTEGER NOT NULL, bytes INTEGER NOT NULL,"
	" bytes_done INTEGER NOT NULL, seconds REAL NOT NULL, planning_seconds REAL NOT NULL, tokens_planned INTEGER NOT NULL,"
	" tokens_measured INTEGER NOT NULL, started INTEGER NOT NULL, forced INTEGER NOT NULL, settled INTEGER NOT NULL,"
	" predicted BLOB NOT NULL, measured BLOB NOT NULL, before TEXT, after TEXT);"
	"CREATE TRIGGER rebalances_limit AFTER INSERT ON rebalances BEGIN DELETE FROM rebalances WHERE id <= new.id - 200; END;"
	"CREATE TABLE automatic (one INTEGER PRIMARY KEY CHECK (one = 1), is_on INTEGER NOT NULL, every_ms INTEGER NOT NULL,"
	" gain_min REAL NOT NULL, bytes_per_hour INTEGER NOT NULL);"
	"INSERT INTO rebalances VALUES (7, 4, 0, 'alice', 'drift', '', '', 0, 0, 0, 0, 48, 48, 0, 4096, 4096, 1.5, 5, 8000, 2000,"
	" 1764489600000, 1764489605000, 1764489606500, zeroblob(48), zeroblob(48), NULL,"
	" '{\"format\": \"cadre-placement-1\", \"nodes\": 1, \"layers\": {\"1\": {\"0\": [0]}}, \"node_ids\": [\"expert-a\"]}');"
	"INSERT INTO automatic VALUES (1, 1, 60000, 0.05, 1048576);"
	"UPDATE meta SET value = 'cadre-placement-state-4' WHERE key = 'format'";

static const char format_5[] =
	"CREATE TABLE force (one INTEGER PRIMARY KEY CHECK (one = 1), paused INTEGER NOT NULL, rate INTEGER NOT NULL);"
	"CREATE TABLE planned_nodes (id TEXT NOT NULL);"
	"CREATE TABLE planned (layer INTEGER NOT NULL, expert INTEGER NOT NULL, id TEXT NOT NULL);"
	"CREATE TABLE pins (layer INTEGER NOT NULL, expert INTEGER NOT NULL, id TEXT NOT NULL);"
	"CREATE TABLE copies (layer INTEGER NOT NULL, expert INTEGER NOT NULL, copies INTEGER NOT NULL);"
	"CREATE TABLE drained (id TEXT NOT NULL);"
	"INSERT INTO force VALUES (1, 1, 5000000);"
	"INSERT INTO planned_nodes VALUES ('e0'), ('e1');"
	"INSERT INTO planned VALUES (1, 0, 'e0'), (1, 1, 'e1'), (1, 1, 'e0'), (2, 0, 'e1'), (2, 1, 'e1');"
	"INSERT INTO pins VALUES (2, 1, 'e1');"
	"INSERT INTO copies VALUES (1, 0, 3);"
	"INSERT INTO drained VALUES ('e7');"
	"UPDATE meta SET value = 'cadre-placement-state-5' WHERE key = 'format'";

static char path[] = "/tmp/cadre-state-XXXXXX";

static int setup(void **state)
{
	(void)state;
	strcpy(strrchr(path, '-'), "-XXXXXX");
	int fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd) | unlink(path);
}

static int teardown(void **state)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		char name[64];
		snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
		unlink(name);
	}
	return 0;
}

static void write_file(const char *sql)
{
	sqlite3 *database;
	assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
	assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(database), SQLITE_OK);
}

struct seen {
	unsigned nodes, held;
};

static void on_node(void *context, const struct pl_hello *hello)
{
	struct seen *seen = context;
	seen->nodes++;
	assert_string_equal(hello->id, "expert-a");
	assert_int_equal(hello->role, PL_ROLE_EXPERT);
	assert_string_equal(hello->exchange_address, "127.0.0.1:7410");
	assert_string_equal(hello->http_address, "127.0.0.1:7411");
	assert_string_equal(hello->kernels_fingerprint, "k1");
	assert_int_equal(hello->memory_bytes, 34359738368);
	assert_int_equal(hello->pid, 4242);
}

static void on_held(void *context, const char *id, uint32_t layer, uint32_t expert)
{
	struct seen *seen = context;
	seen->held++;
	assert_string_equal(id, "expert-a");
	assert_int_equal(expert, layer + 1);
}

static void assert_holds_everything(struct pl_state *state)
{
	struct cad_error error;
	struct seen seen = { 0 };
	bool fresh = true;
	float quanta[2];
	char hex[33], kernels[PL_TEXT_BYTES];

	must(pl_state_claim(state, "cadre", "m1", &error), &error);
	must(pl_state_settings(state, "s1", &fresh, &error), &error);
	assert_false(fresh);
	assert_int_equal(pl_state_epoch(state), 7);
	pl_state_kernels(state, kernels);
	assert_string_equal(kernels, "k1");

	assert_int_equal(pl_state_quanta_load(state, "q", quanta, 2), CAD_OK);
	assert_true(quanta[0] == 0.25f && quanta[1] == 0.5f);
	assert_int_equal(pl_state_checksum(state, 1, 2, hex), CAD_OK);
	assert_string_equal(hex, "00112233445566778899aabbccddeeff");

	const struct pl_state_reader reader = { .node = on_node, .held = on_held, .context = &seen };
	must(pl_state_read(state, &reader, &error), &error);
	assert_int_equal(seen.nodes, 1);
	assert_int_equal(seen.held, 2);
}

static void opens_and_keeps_everything(void)
{
	struct pl_state *state;
	struct cad_error error;

	/* twice: what the first one may have changed in the file, the second one reads */
	for (int i = 0; i < 2; i++) {
		must(pl_state_open(path, &state, &error), &error);
		assert_string_equal(pl_state_loss(state), "");
		assert_holds_everything(state);
		pl_state_close(state);
	}
}

static void a_file_of_format_1_opens_and_keeps_everything(void **unused)
{
	(void)unused;
	write_file(format_1);
	opens_and_keeps_everything();
}

static void a_file_of_format_2_opens_and_keeps_everything(void **unused)
{
	(void)unused;
	write_file(format_1);
	write_file(format_2);
	opens_and_keeps_everything();
}

static void count_entry(void *context, const struct pl_history_entry *entry)
{
	(*(unsigned *)context)++;
	assert_string_equal(entry->who, "alice");
	assert_string_equal(entry->what, "drain e3");
	assert_int_equal(entry->at_ms, 1764489600000);
}

static void a_file_of_format_3_opens_and_keeps_everything(void **unused)
{
	struct pl_state *state;
	struct pl_history *history;
	struct cad_error error;
	unsigned entries = 0;

	(void)unused;
	write_file(format_1);
	write_file(format_2);
	write_file(format_3);
	opens_and_keeps_everything();
	must(pl_state_open(path, &state, &error), &error);
	must(pl_history_open(state, &history, &error), &error);
	must(pl_history_read(history, 0, count_entry, &entries, &error), &error);
	assert_int_equal(entries, 1);
	pl_history_close(history);
	pl_state_close(state);
}

static void a_file_of_format_4_opens_and_keeps_everything(void **unused)
{
	struct pl_state *state;
	struct pl_rebalance_table *table;
	struct pl_rebalance r;
	struct pl_auto_settings settings;
	struct pl_plan *plan;
	struct pl_cluster nodes;
	struct cad_error error;

	(void)unused;
	write_file(format_1);
	write_file(format_2);
	write_file(format_3);
	write_file(format_4);
	opens_and_keeps_everything();
	must(pl_state_open(path, &state, &error), &error);
	must(pl_rebalance_table_open(state, &table, &error), &error);
	assert_int_equal(pl_rebalance_table_last(table), 7);
	assert_int_equal(pl_rebalance_table_get(table, 7, &r), CAD_OK);
	assert_true(r.state == PL_REBALANCE_DONE && r.moves_done == 48 && r.settled_ms == 1764489606500);
	must(pl_rebalance_table_plan(table, 7, true, &plan, &nodes, &error), &error);
	assert_true(plan->layer[0] == 1 && pl_plan_holds(plan, 0, 0, 0));
	assert_string_equal(nodes.nodes[0].id, "expert-a");
	assert_int_equal(pl_rebalance_table_plan(table, 7, false, &plan, &nodes, &error), CAD_ERR_NOT_FOUND);
	assert_true(pl_rebalance_table_get_auto(table, &settings));
	assert_true(settings.on && settings.gain_min == 0.05 && settings.bytes_per_hour == 1048576);
	pl_cluster_fini(&nodes);
	pl_plan_free(plan);
	pl_rebalance_table_close(table);
	pl_state_close(state);
}

static void a_file_of_format_5_opens_and_keeps_everything(void **unused)
{
	static const uint32_t layers[] = { 1, 2 };
	const struct pl_shape shape = { layers, 2, 2 };
	struct pl_state *state;
	struct pl_force force = { 0 };
	struct pl_rules rules;
	struct cad_error error;

	(void)unused;
	write_file(format_1);
	write_file(format_2);
	write_file(format_3);
	write_file(format_4);
	write_file(format_5);
	opens_and_keeps_everything();
	for (int again = 0; again < 2; again++) { /* also when it is written by this version */
		must(pl_state_open(path, &state, &error), &error);
		assert_int_equal(pl_rules_init(&rules, 4), CAD_OK);
		must(pl_state_read_wishes(state, &shape, &force, &rules, &error), &error);
		assert_true(force.paused);
		assert_int_equal(force.bytes_per_second, 5000000);
		assert_int_equal(force.cluster.nodes_count, 2);
		assert_string_equal(force.cluster.nodes[1].id, "e1");
		assert_int_equal(pl_plan_copies(force.plan), 5);
		assert_int_equal(pl_plan_count(force.plan, 0, 1), 2);
		assert_true(pl_plan_holds(force.plan, 1, 0, 1));
		assert_true(pl_rules_pinned(&rules, 3, "e1"));
		assert_int_equal(rules.copies[0], 3);
		assert_true(pl_rules_drained(&rules, "e7"));
		assert_int_equal(rules.pins_count + rules.drained_count, 2);
		pl_state_begin(state);
		pl_state_put_wishes(state, &shape, &force, &rules);
		must(pl_state_commit(state, &error), &error);
		pl_force_fini(&force);
		pl_rules_fini(&rules);
		pl_state_close(state);
	}
}

/* A service of 0.2.0 or before that was killed between its tables and its format. */
static void a_file_of_format_1_without_its_format_opens(void **unused)
{
	(void)unused;
	write_file(format_1);
	write_file("DELETE FROM meta WHERE key = 'format'");
	opens_and_keeps_everything();
}

/* sqlite_master without white space, so that only a change of the schema is one. */
static void read_schema(char *text, size_t bytes)
{
	sqlite3 *database;
	sqlite3_stmt *all;
	size_t length = 0;

	assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(database,
				 "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name", -1, &all, NULL),
		SQLITE_OK);
	while (sqlite3_step(all) == SQLITE_ROW)
		for (const char *c = (const char *)sqlite3_column_text(all, 0); *c && length + 1 < bytes; c++)
			if (*c != ' ')
				text[length++] = *c;
	text[length] = 0;
	sqlite3_finalize(all);
	sqlite3_close(database);
}

static void a_new_file_has_the_newest_format(void **unused)
{
	struct pl_state *state;
	struct cad_error error;
	char written[16384], wanted[16384];

	(void)unused;
	must(pl_state_open(path, &state, &error), &error);
	pl_state_close(state);
	read_schema(written, sizeof written);
	teardown(NULL);
	write_file(format_1);
	write_file(format_2);
	write_file(format_3);
	write_file(format_4);
	write_file(format_5);
	read_schema(wanted, sizeof wanted);
	assert_string_equal(written, wanted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_file_of_format_1_opens_and_keeps_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_of_format_2_opens_and_keeps_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_of_format_3_opens_and_keeps_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_of_format_4_opens_and_keeps_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_of_format_5_opens_and_keeps_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_of_format_1_without_its_format_opens, setup, teardown),
		cmocka_unit_test_setup_teardown(a_new_file_has_the_newest_format, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
