/* SPDX-License-Identifier: Apache-2.0 */
/* What operators want, in the state file: the plan in force, by the ids of its nodes; pins, drained
 * nodes, copies of single experts. It is read once, and written whole, so no table has a key. */
#include "orchestration/placement/internal.h"
#include "orchestration/placement/state_internal.h"

#include <stdlib.h>
#include <string.h>

const char pl_state_wishes_schema[] =
	"CREATE TABLE force (one INTEGER PRIMARY KEY CHECK (one = 1), paused INTEGER NOT NULL, rate INTEGER NOT NULL);"
	"CREATE TABLE planned_nodes (id TEXT NOT NULL);"
	"CREATE TABLE planned (layer INTEGER NOT NULL, expert INTEGER NOT NULL, id TEXT NOT NULL);"
	"CREATE TABLE pins (layer INTEGER NOT NULL, expert INTEGER NOT NULL, id TEXT NOT NULL);"
	"CREATE TABLE copies (layer INTEGER NOT NULL, expert INTEGER NOT NULL, copies INTEGER NOT NULL);"
	"CREATE TABLE drained (id TEXT NOT NULL)";

const char pl_state_wishes_nonsense[] =
	"SELECT EXISTS (SELECT 1 FROM force WHERE paused NOT IN (0, 1) OR typeof(rate) <> 'integer')"
	" OR EXISTS (SELECT 1 FROM planned WHERE id NOT IN (SELECT id FROM planned_nodes) OR typeof(layer) <> 'integer' OR typeof(expert) <> 'integer')"
	" OR EXISTS (SELECT 1 FROM (SELECT id FROM planned_nodes UNION SELECT id FROM pins UNION SELECT id FROM drained)"
	"  WHERE length(id) NOT BETWEEN 1 AND 63 OR id GLOB '*[^A-Za-z0-9._:-]*')"
	" OR EXISTS (SELECT 1 FROM pins WHERE typeof(layer) <> 'integer' OR typeof(expert) <> 'integer')"
	" OR EXISTS (SELECT 1 FROM copies WHERE typeof(layer) <> 'integer' OR typeof(expert) <> 'integer' OR copies NOT BETWEEN 2 AND 65535)";

/* ---- writing ---- */

/* A statement that is run for many rows, inside a transaction. */
struct writer {
	struct pl_state *state;
	sqlite3_stmt *statement;
};

static struct writer prepare(struct pl_state *state, const char *sql)
{
	struct writer writer = { .state = state };
	if (sqlite3_prepare_v2(pl_state_database(state), sql, -1, &writer.statement, NULL) != SQLITE_OK)
		pl_state_fail(state);
	return writer;
}

static void write_row(const struct writer *writer, const char *id, uint64_t first, uint64_t second)
{
	sqlite3_bind_int64(writer->statement, 1, (sqlite3_int64)first);
	sqlite3_bind_int64(writer->statement, 2, (sqlite3_int64)second);
	if (id)
		sqlite3_bind_text(writer->statement, 3, id, -1, SQLITE_STATIC);
	if (sqlite3_step(writer->statement) != SQLITE_DONE)
		pl_state_fail(writer->state);
	sqlite3_reset(writer->statement);
}

static void write_plan(struct pl_state *state, const struct pl_force *force)
{
	const struct pl_cluster_node *nodes = force->cluster.nodes;
	const struct pl_plan *plan = force->plan;
	struct writer one = prepare(state, "INSERT INTO force VALUES (1, ?1, ?2)"),
		      node = prepare(state, "INSERT INTO planned_nodes VALUES (?3)"),
		      row = prepare(state, "INSERT INTO planned VALUES (?1, ?2, ?3)");

	write_row(&one, NULL, force->paused, force->bytes_per_second);
	for (uint32_t n = 0; n < force->cluster.nodes_count; n++)
		write_row(&node, nodes[n].id, 0, 0);
	for (uint32_t l = 0; l < plan->layers; l++)
		for (uint32_t e = 0; e < plan->experts; e++)
			for (uint32_t n = 0; (n = pl_plan_next(plan, l, e, n)) != UINT32_MAX; n++)
				write_row(&row, nodes[n].id, plan->layer[l], e);

	sqlite3_finalize(one.statement);
	sqlite3_finalize(node.statement);
	sqlite3_finalize(row.statement);
}

static void write_rules(struct pl_state *state, const struct pl_shape *shape, const struct pl_rules *rules)
{
	struct writer pin = prepare(state, "INSERT INTO pins VALUES (?1, ?2, ?3)"),
		      copies = prepare(state, "INSERT INTO copies VALUES (?1, ?2, ?3)"),
		      drained = prepare(state, "INSERT INTO drained VALUES (?3)");

	for (uint32_t i = 0; i < rules->pins_count; i++)
		write_row(&pin, rules->pins[i].node, pl_cell_layer(shape, rules->pins[i].cell),
			pl_cell_expert(shape, rules->pins[i].cell));
	for (uint32_t i = 0; i < rules->drained_count; i++)
		write_row(&drained, rules->drained[i], 0, 0);
	for (uint32_t cell = 0; rules->copies && cell < pl_shape_cells(shape); cell++) {
		if (rules->copies[cell] < 2)
			continue;
		sqlite3_bind_int(copies.statement, 3, rules->copies[cell]);
		write_row(&copies, NULL, pl_cell_layer(shape, cell), pl_cell_expert(shape, cell));
	}

	sqlite3_finalize(pin.statement);
	sqlite3_finalize(copies.statement);
	sqlite3_finalize(drained.statement);
}

void pl_state_put_wishes(struct pl_state *state, const struct pl_shape *shape, const struct pl_force *force,
	const struct pl_rules *rules)
{
	if (sqlite3_exec(pl_state_database(state),
		    "DELETE FROM force; DELETE FROM planned; DELETE FROM planned_nodes; DELETE FROM pins; DELETE FROM copies; DELETE FROM drained",
		    NULL, NULL, NULL) != SQLITE_OK)
		pl_state_fail(state);
	if (force->plan)
		write_plan(state, force);
	write_rules(state, shape, rules);
}

/* ---- reading ---- */

struct reader {
	struct pl_state *state;
	const struct pl_shape *shape;
	struct pl_force *force;
	struct pl_rules *rules;
};

/* Calls `row` for each; stops when it fails. */
static enum cad_status read_all(const struct reader *reader, const char *sql,
	enum cad_status (*row)(const struct reader *reader, sqlite3_stmt *statement), struct cad_error *error)
{
	sqlite3 *database = pl_state_database(reader->state);
	sqlite3_stmt *statement = NULL;
	enum cad_status status = CAD_OK;
	int code = sqlite3_prepare_v2(database, sql, -1, &statement, NULL);

	while (code == SQLITE_OK && status == CAD_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
		status = row(reader, statement);
		code = SQLITE_OK;
	}
	if (status != CAD_OK)
		status = cad_error_set(error, status, "out of memory for what the state file holds");
	else if (code != SQLITE_DONE)
		status = cad_error_set(
			error, CAD_ERR_IO, "state file: reading what operators want: %s", sqlite3_errmsg(database));
	sqlite3_finalize(statement);

	return status;
}

static const char *id_of(sqlite3_stmt *statement, int at) { return (const char *)sqlite3_column_text(statement, at); }

/* UINT32_MAX: the model has no such expert. */
static uint32_t cell_of(const struct reader *reader, sqlite3_stmt *statement)
{
	return pl_shape_cell(reader->shape, (uint32_t)sqlite3_column_int64(statement, 0),
		(uint32_t)sqlite3_column_int64(statement, 1));
}

static enum cad_status on_node(const struct reader *reader, sqlite3_stmt *statement)
{
	struct pl_cluster *cluster = &reader->force->cluster;
	struct pl_cluster_node *grown = realloc(cluster->nodes, (cluster->nodes_count + 1u) * sizeof *grown);
	if (!grown)
		return CAD_ERR_MEMORY;
	cluster->nodes = grown;
	grown[cluster->nodes_count] = (struct pl_cluster_node){ 0 };
	strncpy(grown[cluster->nodes_count++].id, id_of(statement, 0), sizeof grown->id - 1);
	return CAD_OK;
}

static enum cad_status on_force(const struct reader *reader, sqlite3_stmt *statement)
{
	const struct pl_shape *shape = reader->shape;
	struct pl_force *force = reader->force;
	enum cad_status status =
		pl_plan_create(shape->layers_count, shape->experts, force->cluster.nodes_count, &force->plan);
	if (status != CAD_OK)
		return status;
	memcpy(force->plan->layer, shape->layers, shape->layers_count * sizeof *shape->layers);
	force->paused = sqlite3_column_int(statement, 0);
	force->bytes_per_second = (uint64_t)sqlite3_column_int64(statement, 1);
	return CAD_OK;
}

static enum cad_status on_planned(const struct reader *reader, sqlite3_stmt *statement)
{
	uint32_t cell = cell_of(reader, statement), experts = reader->shape->experts;
	uint32_t n = pl_cluster_find(&reader->force->cluster, id_of(statement, 2));
	if (reader->force->plan && cell != UINT32_MAX && n != PL_CLUSTER_ANY)
		pl_plan_put(reader->force->plan, cell / experts, cell % experts, n);
	return CAD_OK;
}

static enum cad_status on_pin(const struct reader *reader, sqlite3_stmt *statement)
{
	uint32_t cell = cell_of(reader, statement);
	return cell == UINT32_MAX ? CAD_OK : pl_rules_pin(reader->rules, cell, id_of(statement, 2));
}

static enum cad_status on_copies(const struct reader *reader, sqlite3_stmt *statement)
{
	uint32_t cell = cell_of(reader, statement);
	if (cell != UINT32_MAX)
		reader->rules->copies[cell] = (uint16_t)sqlite3_column_int(statement, 2);
	return CAD_OK;
}

static enum cad_status on_drained(const struct reader *reader, sqlite3_stmt *statement)
{
	return pl_rules_drain(reader->rules, id_of(statement, 0));
}

enum cad_status pl_state_read_wishes(struct pl_state *state, const struct pl_shape *shape, struct pl_force *force,
	struct pl_rules *rules, struct cad_error *error)
{
	static const struct {
		const char *sql;
		enum cad_status (*row)(const struct reader *reader, sqlite3_stmt *statement);
	} tables[] = {
		{ "SELECT id FROM planned_nodes ORDER BY id", on_node },
		{ "SELECT paused, rate FROM force", on_force },
		{ "SELECT layer, expert, id FROM planned", on_planned },
		{ "SELECT layer, expert, id FROM pins", on_pin },
		{ "SELECT layer, expert, copies FROM copies", on_copies },
		{ "SELECT id FROM drained", on_drained },
	};
	const struct reader reader = { state, shape, force, rules };
	enum cad_status status = CAD_OK;

	for (size_t i = 0; i < sizeof tables / sizeof tables[0] && status == CAD_OK; i++)
		status = read_all(&reader, tables[i].sql, tables[i].row, error);
	return status;
}
