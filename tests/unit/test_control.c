/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The placement service on a clock of the test's own, with nodes that are structs: first placement,
 * death, return, restart, wrong weights; and a storm of all of them at random, with invariants
 * checked at every order and every map.
 */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "orchestration/placement/control.h"
#include "tests/support/must.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	LAYERS = 3,
	EXPERTS = 8,
	CELLS = LAYERS * EXPERTS,
	NODES = 5,
	ROUTERS = 2,
	LEASE_MS = 3000,
	GRACE_MS = 200,
	REJOIN_MS = 6000,
	FREE_GRACE_MS = 1000
};
static const uint32_t layers[LAYERS] = { 1, 2, 5 };
static const struct pl_identity identity = { "m", "s", "words" };

struct fake_node {
	char id[16];
	uint64_t session; /* 0: not connected */
	bool alive, hung, corrupt;
	uint32_t pid;
	uint64_t memory; /* in experts */
	uint64_t report_ms, rejoin_ms, gone_ms;
	uint64_t due_ms[CELLS]; /* loading until then; 0: not */
	bool held[CELLS], freeing[CELLS];
};

struct fake_router {
	char id[16];
	uint64_t session, report_ms, rejoin_ms, take_ms;
	bool alive;
	struct cad_map *map, *next; /* works with map; has received next */
};

struct world {
	uint64_t now_ms, last_session, last_epoch, deadline_ns;
	struct cad_clock clock;
	struct pl_state *state;
	struct pl_control *control;
	struct pl_control_options options;
	struct fake_node nodes[NODES];
	struct fake_router routers[ROUTERS];
	unsigned loads, frees, maps, closed;
	size_t unplaced_worst; /* in a map that was told */
	bool checksums_late;
	bool touched; /* something was reported: a turn is due */
	uint32_t late[1024];
	size_t late_count;
};

static uint64_t world_now(void *context) { return ((struct world *)context)->now_ms * CAD_NS_PER_MS; }

static void checksum_of(uint32_t cell, char hex[33]) { snprintf(hex, 33, "%032x", cell * 2654435761u); }

static struct fake_node *node_of(struct world *world, uint64_t session)
{
	for (int i = 0; i < NODES; i++)
		if (world->nodes[i].session == session)
			return &world->nodes[i];
	return NULL;
}

static bool listed(const struct cad_map *map, const char *id, uint32_t cell)
{
	int node = cad_map_node_find(map, id);
	struct cad_map_replicas replicas = cad_map_replicas(map, layers[cell / EXPERTS], cell % EXPERTS);
	for (uint32_t i = 0; i < replicas.count; i++)
		if (replicas.nodes[i] == node)
			return true;
	return false;
}

static void on_load(void *context, uint64_t session, const uint32_t *cells, uint32_t count)
{
	struct world *world = context;
	struct fake_node *node = node_of(world, session);

	assert_non_null(node);
	for (uint32_t i = 0; i < count; i++) {
		node->due_ms[cells[i]] = world->now_ms + 5 + cells[i] % 7;
		world->loads++;
	}

	uint64_t used = 0;
	for (int cell = 0; cell < CELLS; cell++)
		used += node->held[cell] || node->due_ms[cell];
	assert_true(used <= node->memory);
}

static void on_free(void *context, uint64_t session, const uint32_t *cells, uint32_t count)
{
	struct world *world = context;
	struct fake_node *node = node_of(world, session);

	assert_non_null(node);
	for (uint32_t i = 0; i < count; i++) {
		for (int r = 0; r < ROUTERS; r++) /* no router may still work with a map that sends calls there */
			if (world->routers[r].alive && world->routers[r].session && world->routers[r].map)
				assert_false(listed(world->routers[r].map, node->id, cells[i]));
		node->freeing[cells[i]] = true;
		world->frees++;
	}
}

static void on_publish(void *context, struct cad_map *map)
{
	struct world *world = context;
	assert_true(map->epoch > world->last_epoch);
	world->last_epoch = map->epoch;
	world->maps++;
	if (cad_map_unplaced(map) > world->unplaced_worst)
		world->unplaced_worst = cad_map_unplaced(map);
	for (int n = 0; n < NODES; n++) {
		const struct fake_node *node = &world->nodes[n];
		for (uint32_t cell = 0; cell < CELLS; cell++) {
			if (!listed(map, node->id, cell))
				continue;
			bool lost_lately =
				world->now_ms <= node->gone_ms + LEASE_MS || world->now_ms <= node->gone_ms + REJOIN_MS;
			assert_true((node->alive && node->held[cell] && !node->freeing[cell] && !node->corrupt) ||
				lost_lately);
		}
	}

	for (int r = 0; r < ROUTERS; r++)
		if (world->routers[r].alive && world->routers[r].session) {
			cad_map_release(world->routers[r].next);
			world->routers[r].next = cad_map_acquire(map);
			world->routers[r].take_ms = world->now_ms + 3 + 40 * (uint64_t)r;
		}
}

static void on_close(void *context, uint64_t session, const char *text)
{
	struct world *world = context;
	struct fake_node *node = node_of(world, session);

	assert_true(strlen(text) > 0);
	world->closed++;
	if (node)
		node->session = 0;
	for (int r = 0; r < ROUTERS; r++)
		if (world->routers[r].session == session)
			world->routers[r].session = 0;
}

static enum cad_status on_checksum(void *context, uint32_t cell, char hex[33])
{
	struct world *world = context;
	checksum_of(cell, hex);
	if (!world->checksums_late)
		return CAD_OK;
	world->late[world->late_count++ % 1024] = cell;
	return CAD_AGAIN;
}

static void start_service(struct world *world)
{
	struct cad_error error;
	must(pl_control_create(&world->options, &world->control, &error), &error);
	world->deadline_ns = 0;
}

static struct world *world_create(void)
{
	struct world *world = calloc(1, sizeof *world);
	struct cad_error error;

	world->now_ms = 1000;
	world->clock = (struct cad_clock){ world_now, world };
	must(pl_state_open("", &world->state, &error), &error);
	world->options = (struct pl_control_options){
		.shape = { layers, LAYERS, EXPERTS },
		.expert_bytes = 100,
		.identity = identity,
		.state = world->state,
		.clock = &world->clock,
		.events = { on_load, on_free, on_publish, on_close, on_checksum, world },
		.lease_ns = LEASE_MS * CAD_NS_PER_MS,
		.grace_ns = GRACE_MS * CAD_NS_PER_MS,
		.rejoin_ns = REJOIN_MS * CAD_NS_PER_MS,
		.settle_ns = 100 * CAD_NS_PER_MS,
		.forget_ns = 600 * CAD_NS_PER_S,
		.publish_interval_ns = 50 * CAD_NS_PER_MS,
		.free_grace_ns = FREE_GRACE_MS * CAD_NS_PER_MS,
		.retry_ns = 5 * CAD_NS_PER_S,
		.loads_max = 4,
		.moves_max = 2,
		.experts_min = 1,
		.copies = 1,
		.rebalance = true,
	};

	for (int i = 0; i < NODES; i++) {
		snprintf(world->nodes[i].id, sizeof world->nodes[i].id, "node-%d", i);
		world->nodes[i].memory = CELLS;
		world->nodes[i].pid = 100 + (uint32_t)i;
	}

	for (int i = 0; i < ROUTERS; i++)
		snprintf(world->routers[i].id, sizeof world->routers[i].id, "router-%d", i);
	start_service(world);
	return world;
}

static void world_destroy(struct world *world)
{
	for (int i = 0; i < ROUTERS; i++) {
		cad_map_release(world->routers[i].map);
		cad_map_release(world->routers[i].next);
	}
	pl_control_destroy(world->control);
	pl_state_close(world->state);
	free(world);
}

static enum cad_status connect_node(struct world *world, int index)
{
	struct fake_node *node = &world->nodes[index];
	struct pl_expert held[CELLS];
	size_t count = 0;

	for (uint32_t cell = 0; cell < CELLS; cell++)
		if (node->held[cell])
			held[count++] = (struct pl_expert){ layers[cell / EXPERTS], cell % EXPERTS };
	char address[32];
	snprintf(address, sizeof address, "127.0.0.1:%u", 7000 + node->pid);
	const struct pl_join join = { .hello = { .id = node->id,
					      .role = PL_ROLE_EXPERT,
					      .exchange_address = address,
					      .http_address = "",
					      .grpc_address = "",
					      .kernels_fingerprint = "k",
					      .version = "",
					      .isa = "",
					      .memory_bytes = node->memory * 100 + 5,
					      .pid = node->pid, },
		.identity = identity,
		.epoch = world->last_epoch,
		.held = held,
		.held_count = count, };
	struct cad_error error;
	uint64_t session = ++world->last_session;
	enum cad_status status = pl_control_join(world->control, &join, session, &error);
	if (status != CAD_OK)
		return status;
	node->session = session;
	node->alive = true;
	node->report_ms = world->now_ms;
	memset(node->due_ms, 0, sizeof node->due_ms);
	memset(node->freeing, 0, sizeof node->freeing);

	return CAD_OK;
}

static void connect_router(struct world *world, int index)
{
	struct fake_router *router = &world->routers[index];
	const struct pl_join join = { .hello = { .id = router->id, .role = PL_ROLE_ROUTER, .exchange_address = "", .http_address = "", .grpc_address = "", .kernels_fingerprint = "",
	                                         .version = "", .isa = "", .pid = 500 + (uint32_t)index, },
	                              .identity = identity, .epoch = router->map ? router->map->epoch : 0, };
	struct cad_error error;
	uint64_t session = ++world->last_session;

	if (pl_control_join(world->control, &join, session, &error) != CAD_OK)
		return;

	router->session = session;
	router->alive = true;
	router->report_ms = world->now_ms;

	if (pl_control_map(world->control)) {
		cad_map_release(router->next);
		router->next = cad_map_acquire(pl_control_map(world->control));
		router->take_ms = world->now_ms + 3;
	}
}

/* A process dies: its stream breaks, and what it held is gone. */
static void kill_node(struct world *world, int index)
{
	struct fake_node *node = &world->nodes[index];
	if (node->session)
		pl_control_broken(world->control, node->session);
	node->session = 0;
	node->alive = node->hung = false;
	node->pid += 1000;
	node->gone_ms = world->now_ms;
	memset(node->held, 0, sizeof node->held);
}

static void step_node(struct world *world, struct fake_node *node)
{
	if (!node->session || node->hung)
		return;
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		world->touched = world->touched || (node->due_ms[cell] && world->now_ms >= node->due_ms[cell]) ||
			node->freeing[cell];
		struct pl_expert expert = { layers[cell / EXPERTS], cell % EXPERTS };
		if (node->due_ms[cell] && world->now_ms >= node->due_ms[cell]) {
			char hex[33];
			checksum_of(node->corrupt ? cell + 1 : cell, hex);
			node->due_ms[cell] = 0;
			node->held[cell] = true;
			assert_int_equal(
				pl_control_loaded(world->control, node->session, expert, hex, 100, NULL), CAD_OK);
		}
		if (node->freeing[cell]) {
			node->freeing[cell] = node->held[cell] = false;
			assert_int_equal(pl_control_freed(world->control, node->session, expert, NULL), CAD_OK);
		}
	}
	if (world->now_ms >= node->report_ms + LEASE_MS / 3) {
		node->report_ms = world->now_ms;
		world->touched = true;
		pl_control_load(world->control, node->session, &(struct pl_load){ .epoch = world->last_epoch });
	}
}

static void step_router(struct world *world, struct fake_router *router)
{
	if (!router->session)
		return;
	if (router->next && world->now_ms >= router->take_ms) {
		cad_map_release(router->map);
		router->map = router->next;
		router->next = NULL;
	}
	if (world->now_ms >= router->report_ms + LEASE_MS / 3) {
		router->report_ms = world->now_ms;
		world->touched = true;
		pl_control_load(world->control, router->session,
			&(struct pl_load){
				.epoch = router->map ? router->map->epoch : 0,
			});
	}
}

/* As the service does it: a turn after a report, and when the deadline of the last turn has come. */
static void run(struct world *world, uint64_t ms)
{
	world->touched = true;
	for (uint64_t end = world->now_ms + ms; world->now_ms < end; world->now_ms++) {
		for (int i = 0; i < NODES; i++)
			step_node(world, &world->nodes[i]);
		for (int i = 0; i < ROUTERS; i++)
			step_router(world, &world->routers[i]);
		if (world->touched || world_now(world) >= world->deadline_ns)
			world->deadline_ns = pl_control_turn(world->control);
		world->touched = false;
	}
}

static uint32_t held_by(const struct world *world, int index)
{
	uint32_t count = 0;
	for (int cell = 0; cell < CELLS; cell++)
		count += world->nodes[index].held[cell];
	return count;
}

static size_t unplaced(const struct world *world)
{
	return pl_control_map(world->control) ? cad_map_unplaced(pl_control_map(world->control)) : CELLS;
}

/* ---- the stories ---- */

static void first_placement_waits_for_enough_nodes(void **state)
{
	(void)state;
	struct world *world = world_create();
	char text[200];
	pl_control_destroy(world->control);
	world->options.experts_min = 3;
	start_service(world);
	connect_router(world, 0);
	assert_int_equal(connect_node(world, 0), CAD_OK);
	assert_int_equal(connect_node(world, 1), CAD_OK);
	run(world, 10000);
	assert_int_equal(world->loads, 0);
	assert_null(pl_control_map(world->control));
	assert_false(pl_control_ready(world->control, text, sizeof text));
	assert_string_equal(text, "2 of 3 expert nodes have joined");
	assert_int_equal(connect_node(world, 2), CAD_OK);
	run(world, 99);
	assert_int_equal(world->loads, 0);
	run(world, 1000);
	assert_int_equal(world->loads, CELLS);
	for (int i = 0; i < 3; i++)
		assert_int_equal(held_by(world, i), CELLS / 3);
	assert_true(pl_control_ready(world->control, text, sizeof text));
	assert_int_equal(unplaced(world), 0);
	assert_true(world->maps < 20);
	world_destroy(world);
}

static void dead_nodes_experts_come_back_elsewhere(void **state)
{
	(void)state;
	struct world *world = world_create();
	connect_router(world, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(connect_node(world, i), CAD_OK);
	run(world, 2000);
	assert_int_equal(unplaced(world), 0);
	uint64_t epoch = world->last_epoch;
	kill_node(world, 1);
	run(world, GRACE_MS);
	assert_int_equal(world->last_epoch, epoch);
	run(world, 1); /* dead: a map without it at once */
	assert_int_equal(world->last_epoch, epoch + 1);
	assert_int_equal(unplaced(world), CELLS / 3);
	assert_int_equal(cad_map_node_find(pl_control_map(world->control), "node-1"), CAD_MAP_NONE);
	run(world, 200);
	assert_int_equal(unplaced(world), 0);
	assert_int_equal(held_by(world, 0) + held_by(world, 2), CELLS);
	assert_int_equal(world->frees, 0);

	/* it returns, empty: layers are evened out again, a few moves at a time */
	assert_int_equal(connect_node(world, 1), CAD_OK);
	run(world, 20000);

	for (int layer = 0; layer < LAYERS; layer++)
		for (int i = 0; i < 3; i++) {
			uint32_t held = 0;
			for (int e = 0; e < EXPERTS; e++)
				held += world->nodes[i].held[layer * EXPERTS + e];
			assert_in_range(held, EXPERTS / 3, EXPERTS / 3 + 1);
		}
	assert_int_equal(unplaced(world), 0);
	world_destroy(world);
}

static void short_break_changes_nothing(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 2; i++)
		assert_int_equal(connect_node(world, i), CAD_OK);
	run(world, 2000);
	unsigned loads = world->loads;
	uint64_t epoch = world->last_epoch;
	pl_control_broken(world->control, world->nodes[0].session);
	world->nodes[0].session = 0;
	run(world, GRACE_MS - 20);
	assert_int_equal(connect_node(world, 0), CAD_OK);
	run(world, 5000);
	assert_int_equal(world->last_epoch, epoch);
	assert_int_equal(world->loads, loads);
	world_destroy(world);
}

/* A process that hangs keeps its stream: the lease finds out, and the stream is closed. It wakes up
 * and joins with what it holds. */
static void hung_node_loses_its_lease(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 2; i++)
		assert_int_equal(connect_node(world, i), CAD_OK);
	run(world, 2000);
	world->nodes[0].hung = true;
	world->nodes[0].gone_ms = world->now_ms;
	run(world, LEASE_MS + 1000);
	assert_int_equal(world->nodes[0].session, 0);
	assert_int_equal(world->closed, 1);
	assert_int_equal(unplaced(world), 0);
	assert_int_equal(held_by(world, 1), CELLS);
	world->nodes[0].hung = false;
	assert_int_equal(connect_node(world, 0), CAD_OK);
	run(world, 20000);
	assert_int_equal(held_by(world, 0) + held_by(world, 1), CELLS);
	assert_int_equal(unplaced(world), 0);
	world_destroy(world);
}

static void stop_service(struct world *world)
{
	pl_control_destroy(world->control);
	for (int i = 0; i < NODES; i++)
		world->nodes[i].session = 0;
	for (int i = 0; i < ROUTERS; i++)
		world->routers[i].session = 0;
}

static void restart_moves_nothing(void **state)
{
	(void)state;
	struct world *world = world_create();
	connect_router(world, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(connect_node(world, i), CAD_OK);
	run(world, 3000);
	struct cad_map *before = cad_map_acquire(pl_control_map(world->control));
	unsigned loads = world->loads, maps = world->maps;
	stop_service(world);
	world->now_ms += 1000;
	start_service(world);
	assert_int_equal(connect_node(world, 2), CAD_OK);
	run(world, 2000);
	assert_int_equal(world->maps, maps); /* not everybody is back: routers go on with the map that they have */
	connect_router(world, 0);
	assert_int_equal(connect_node(world, 0), CAD_OK);
	assert_int_equal(connect_node(world, 1), CAD_OK);
	run(world, 100);
	assert_int_equal(world->maps, maps + 1);
	assert_int_equal(world->last_epoch, before->epoch + 1);
	for (uint32_t cell = 0; cell < CELLS; cell++)
		for (int i = 0; i < 3; i++)
			assert_int_equal(listed(before, world->nodes[i].id, cell),
				listed(pl_control_map(world->control), world->nodes[i].id, cell));
	run(world, 10000);
	assert_int_equal(world->loads, loads);
	assert_int_equal(world->frees, 0);
	cad_map_release(before);
	world_destroy(world);
}

static void node_that_does_not_come_back_after_a_restart_is_dead(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 3; i++)
		assert_int_equal(connect_node(world, i), CAD_OK);
	run(world, 3000);
	unsigned loads = world->loads;
	stop_service(world);
	kill_node(world, 0);
	start_service(world);
	assert_int_equal(connect_node(world, 1), CAD_OK);
	assert_int_equal(connect_node(world, 2), CAD_OK);
	run(world, REJOIN_MS - 10);
	assert_int_equal(world->loads, loads);
	run(world, 1000);
	assert_int_equal(unplaced(world), 0);
	world_destroy(world);
}

static void file_writes_fail(bool fail)
{
	struct rlimit limit = { fail ? 1 : RLIM_INFINITY, RLIM_INFINITY };
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A state file that cannot be written for a while stops nobody, and has everything again when it
 * can. */
static void unwritable_state_catches_up(void **state)
{
	(void)state;
	struct world *world = world_create();
	struct cad_error error;
	char path[] = "/tmp/cadre-control-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	pl_control_destroy(world->control);
	pl_state_close(world->state);
	must(pl_state_open(path, &world->state, &error), &error);
	world->options.state = world->state;
	start_service(world);
	file_writes_fail(true);
	for (int i = 0; i < 3; i++)
		assert_int_equal(connect_node(world, i), CAD_OK);
	run(world, 2000);
	file_writes_fail(false);
	assert_int_equal(unplaced(world), 0);
	assert_true(pl_control_stats(world->control)->state_errors > 0);
	assert_int_equal(pl_state_epoch(world->state), 0);
	kill_node(world, 1);
	run(world, 1000);
	assert_int_equal(unplaced(world), 0);
	assert_int_equal(pl_state_epoch(world->state), world->last_epoch);
	unsigned loads = world->loads;
	stop_service(world);
	start_service(world);
	assert_int_equal(connect_node(world, 0), CAD_OK);
	assert_int_equal(connect_node(world, 2), CAD_OK);
	run(world, 2000);
	assert_int_equal(unplaced(world), 0);
	assert_int_equal(world->loads, loads);
	world_destroy(world);
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	for (int i = 0; i < 3; i++) {
		char name[64];
		snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
		unlink(name);
	}
}

/* Without the state file, what nodes say decides: they are asked for checksums, nothing is loaded
 * again, epochs go on, and no map is told in which an expert is missing. */
static void lost_state_is_rebuilt_from_the_nodes(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 2; i++)
		assert_int_equal(connect_node(world, i), CAD_OK);
	run(world, 3000);
	uint64_t epoch = world->last_epoch;
	bool held[2][CELLS];
	for (int i = 0; i < 2; i++)
		memcpy(held[i], world->nodes[i].held, sizeof held[i]);
	pl_control_destroy(world->control);
	pl_state_close(world->state);
	struct cad_error error;
	must(pl_state_open("", &world->state, &error), &error);
	world->options.state = world->state;
	world->unplaced_worst = 0;
	start_service(world);
	for (int i = 0; i < 2; i++)
		assert_int_equal(connect_node(world, i), CAD_OK);
	run(world, 3000);
	assert_true(world->last_epoch > epoch);
	assert_int_equal(world->unplaced_worst, 0);
	for (int i = 0; i < 2; i++)
		assert_memory_equal(held[i], world->nodes[i].held, sizeof held[i]);
	world_destroy(world);
}

static void wrong_weights_are_never_in_a_map(void **state)
{
	(void)state;
	struct world *world = world_create();
	world->nodes[1].corrupt = true;
	for (int i = 0; i < 2; i++)
		assert_int_equal(connect_node(world, i), CAD_OK);
	run(world, 4000);
	assert_int_equal(unplaced(world), 0);
	assert_int_equal(held_by(world, 0), CELLS);
	assert_true(pl_control_stats(world->control)->checksums_wrong > 0);
	world_destroy(world);
}

/* Checksums that take their time hold a copy back, and nothing else. */
static void late_checksums_are_waited_for(void **state)
{
	(void)state;
	struct world *world = world_create();
	world->checksums_late = true;
	assert_int_equal(connect_node(world, 0), CAD_OK);
	run(world, 2000);
	assert_int_equal(unplaced(world), CELLS);
	assert_true(world->late_count > 0);
	world->checksums_late = false;
	for (size_t i = 0; i < world->late_count; i++)
		pl_control_checksum(world->control, world->late[i]);
	run(world, 1000);
	assert_int_equal(unplaced(world), 0);
	world_destroy(world);
}

static void shortage_is_told(void **state)
{
	(void)state;
	struct world *world = world_create();
	char text[256];
	for (int i = 0; i < 2; i++) {
		world->nodes[i].memory = CELLS / 2 - 2;
		assert_int_equal(connect_node(world, i), CAD_OK);
	}

	run(world, 2000);
	assert_int_equal(unplaced(world), 4);
	assert_false(pl_control_ready(world->control, text, sizeof text));
	assert_non_null(strstr(text, "4 of 24 experts do not fit on 2 expert nodes"));
	assert_int_equal(connect_node(world, 2), CAD_OK);
	run(world, 4000);
	assert_true(pl_control_ready(world->control, text, sizeof text));
	world_destroy(world);
}

static void strangers_are_refused(void **state)
{
	(void)state;
	struct world *world = world_create();
	struct cad_error error;
	struct pl_join join = { .hello = { .id = "a", .role = PL_ROLE_EXPERT, .exchange_address = "x:1", .http_address = "", .grpc_address = "", .kernels_fingerprint = "", .version = "",
	                                   .isa = "", },
	                        .identity = { "other", "s", "words" }, };
	assert_int_equal(pl_control_join(world->control, &join, 1, &error), CAD_ERR_REFUSED);
	assert_string_equal(error.text,
		"node 'a' has a checkpoint with fingerprint 'other', this cluster serves 'm': start it with the same --model files");
	join.identity = (struct pl_identity){ "m", "t", "other words" };
	assert_int_equal(pl_control_join(world->control, &join, 1, &error), CAD_ERR_REFUSED);
	assert_string_equal(error.text,
		"node 'a' runs with the settings 'other words' (t), this cluster with 'words' (s): start it again, it takes over the cluster's");
	join.identity = identity;
	must(pl_control_join(world->control, &join, 1, &error), &error);
	assert_int_equal(
		pl_control_loaded(world->control, 1, (struct pl_expert){ 3, 0 }, "", 0, &error), CAD_ERR_INVALID);
	assert_string_equal(error.text, "node 'a' reports layer 3 expert 0, which the model does not have");

	/* a stream that is over says nothing any more */
	pl_control_leave(world->control, 1);
	must(pl_control_loaded(world->control, 1, (struct pl_expert){ 3, 0 }, "", 0, &error), &error);
	assert_int_equal(pl_control_stats(world->control)->refusals, 2);
	world_destroy(world);
}

/* A node whose operators give other bits holds nothing, until it is the only kind left. */
static void other_operators_hold_nothing(void **state)
{
	(void)state;
	struct world *world = world_create();
	struct cad_error error;
	assert_int_equal(connect_node(world, 0), CAD_OK);
	const struct pl_join join = { .hello = { .id = "odd", .role = PL_ROLE_EXPERT, .exchange_address = "x:1", .http_address = "", .grpc_address = "", .kernels_fingerprint = "other",
	                                         .version = "", .isa = "", .memory_bytes = 1 << 20, },
	                              .identity = identity, };
	must(pl_control_join(world->control, &join, 999, &error), &error);
	run(world, 2000);
	assert_int_equal(held_by(world, 0), CELLS);
	assert_int_equal(unplaced(world), 0);
	world_destroy(world);
}

static void dense_model_has_a_map_at_once(void **state)
{
	(void)state;
	struct world *world = world_create();
	char text[64];
	pl_control_destroy(world->control);
	world->options.shape = (struct pl_shape){ NULL, 0, 0 };
	start_service(world);
	(void)pl_control_turn(world->control);
	assert_non_null(pl_control_map(world->control));
	assert_true(pl_control_ready(world->control, text, sizeof text));
	world_destroy(world);
}

/* ---- everything at once ---- */

static void something_happens(struct world *world, struct cad_random *random)
{
	int n = (int)cad_random_below(random, NODES), r = (int)cad_random_below(random, ROUTERS);
	struct fake_node *node = &world->nodes[n];

	switch (cad_random_below(random, 8)) {
	case 0: kill_node(world, n); break;
	case 1:
		node->hung = node->session && !node->hung;
		if (node->hung)
			node->gone_ms = world->now_ms;
		break;
	case 2:
		if (node->session) { /* its stream breaks, the process lives */
			pl_control_broken(world->control, node->session);
			node->session = 0;
			node->gone_ms = world->now_ms;
		}
		break;
	case 3:
		if (world->routers[r].session)
			pl_control_broken(world->control, world->routers[r].session);
		world->routers[r].session = 0;
		world->routers[r].alive = false; /* crashed: its map is nobody's any more */
		cad_map_release(world->routers[r].map);
		cad_map_release(world->routers[r].next);
		world->routers[r].map = world->routers[r].next = NULL;
		break;
	case 4:
		if (cad_random_below(random, 4) == 0) {
			stop_service(world);
			for (int i = 0; i < NODES; i++)
				world->nodes[i].gone_ms = world->now_ms;
			start_service(world);
		}
		break;
	default:
		if (!node->session && !node->hung)
			(void)connect_node(world, n);
		if (!world->routers[r].session)
			connect_router(world, r);
		break;
	}
}

static void storm(void **state)
{
	(void)state;
	uint64_t seed = 4711;
	print_message("seed %llu\n", (unsigned long long)seed);
	struct cad_random random = { seed };
	for (int round = 0; round < 12; round++) {
		struct world *world = world_create();
		pl_control_destroy(world->control);
		world->options.copies = 1 + (uint32_t)(round % 2);
		start_service(world);
		for (int i = 0; i < NODES; i++)
			world->nodes[i].memory = 8 + cad_random_below(&random, CELLS);
		for (int event = 0; event < 60; event++) {
			something_happens(world, &random);
			run(world, 1 + cad_random_below(&random, cad_random_below(&random, 4) ? 300 : 4000));
		}
		/* calm: everybody back, and all is well in the end */
		for (int i = 0; i < NODES; i++) {
			world->nodes[i].hung = false;
			if (!world->nodes[i].session)
				assert_int_equal(connect_node(world, i), CAD_OK);
		}
		for (int i = 0; i < ROUTERS; i++)
			if (!world->routers[i].session)
				connect_router(world, i);
		run(world, 60000);
		for (int i = 0; i < NODES; i++) /* a hung node that woke up after its lease must join once more */
			if (!world->nodes[i].session)
				assert_int_equal(connect_node(world, i), CAD_OK);
		run(world, 60000);
		assert_int_equal(unplaced(world), 0);
		unsigned loads = world->loads, frees = world->frees, maps = world->maps;
		run(world, 20000);
		assert_int_equal(world->loads, loads);
		assert_int_equal(world->frees, frees);
		assert_int_equal(world->maps, maps);
		world_destroy(world);
	}
}

int main(void)
{
	/* what the service logs about nodes that die here is nobody's worry */
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	cad_log_set_fd(null);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_placement_waits_for_enough_nodes),
		cmocka_unit_test(dead_nodes_experts_come_back_elsewhere),
		cmocka_unit_test(short_break_changes_nothing),
		cmocka_unit_test(hung_node_loses_its_lease),
		cmocka_unit_test(restart_moves_nothing),
		cmocka_unit_test(node_that_does_not_come_back_after_a_restart_is_dead),
		cmocka_unit_test(unwritable_state_catches_up),
		cmocka_unit_test(lost_state_is_rebuilt_from_the_nodes),
		cmocka_unit_test(wrong_weights_are_never_in_a_map),
		cmocka_unit_test(late_checksums_are_waited_for),
		cmocka_unit_test(shortage_is_told),
		cmocka_unit_test(strangers_are_refused),
		cmocka_unit_test(other_operators_hold_nothing),
		cmocka_unit_test(dense_model_has_a_map_at_once),
		cmocka_unit_test(storm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
