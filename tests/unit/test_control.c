/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The placement service on a clock of the test's own, with nodes that are structs: first placement,
 * death, return, restart, wrong weights. Invariants are checked at every order and every map.
 */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/support/control_world.h"
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
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static int null_fd;
static const char *known_checksum; /* the checkpoint's, of what routers compute with; "": not yet */

/* ---- the stories ---- */

static void first_placement_waits_for_enough_nodes(void **state)
{
	(void)state;
	struct world *world = world_create();
	char text[200];
	pl_control_destroy(world->control);
	world->options.experts_min = 3;
	world_start(world);
	world_connect_router(world, 0);
	assert_int_equal(world_connect_node(world, 0), CAD_OK);
	assert_int_equal(world_connect_node(world, 1), CAD_OK);
	world_run(world, 10000);
	assert_int_equal(world->loads, 0);
	assert_int_equal(world_unplaced(world), WORLD_CELLS); /* but routers know the nodes already */
	assert_int_equal(pl_control_map(world->control)->nodes_count, 2);
	assert_false(pl_control_ready(world->control, text, sizeof text));
	assert_string_equal(text, "2 of 3 expert nodes have joined");
	assert_int_equal(world_connect_node(world, 2), CAD_OK);
	world_run(world, 99);
	assert_int_equal(world->loads, 0);
	world_run(world, 1000);
	assert_int_equal(world->loads, WORLD_CELLS);
	for (int i = 0; i < 3; i++)
		assert_int_equal(world_held_by(world, i), WORLD_CELLS / 3);
	assert_true(pl_control_ready(world->control, text, sizeof text));
	assert_int_equal(world_unplaced(world), 0);
	assert_true(world->maps < 20);
	world_destroy(world);
}

static void dead_nodes_experts_come_back_elsewhere(void **state)
{
	(void)state;
	struct world *world = world_create();
	world_connect_router(world, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 2000);
	assert_int_equal(world_unplaced(world), 0);
	uint64_t epoch = world->last_epoch;
	world_kill_node(world, 1);
	world_run(world, WORLD_GRACE_MS);
	assert_int_equal(world->last_epoch, epoch);
	world_run(world, 1); /* dead: a map without it at once */
	assert_int_equal(world->last_epoch, epoch + 1);
	assert_int_equal(world_unplaced(world), WORLD_CELLS / 3);
	assert_int_equal(cad_map_node_find(pl_control_map(world->control), "node-1"), CAD_MAP_NONE);
	world_run(world, 200);
	assert_int_equal(world_unplaced(world), 0);
	assert_int_equal(world_held_by(world, 0) + world_held_by(world, 2), WORLD_CELLS);
	assert_int_equal(world->frees, 0);

	/* it returns, empty: layers are evened out again, a few moves at a time */
	assert_int_equal(world_connect_node(world, 1), CAD_OK);
	world_run(world, 20000);

	for (int layer = 0; layer < WORLD_LAYERS; layer++)
		for (int i = 0; i < 3; i++) {
			uint32_t held = 0;
			for (int e = 0; e < WORLD_EXPERTS; e++)
				held += world->nodes[i].held[layer * WORLD_EXPERTS + e];
			assert_in_range(held, WORLD_EXPERTS / 3, WORLD_EXPERTS / 3 + 1);
		}
	assert_int_equal(world_unplaced(world), 0);
	world_destroy(world);
}

static void short_break_changes_nothing(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 2; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 2000);
	unsigned loads = world->loads;
	uint64_t epoch = world->last_epoch;
	pl_control_broken(world->control, world->nodes[0].session);
	world->nodes[0].session = 0;
	world_run(world, WORLD_GRACE_MS - 20);
	assert_int_equal(world_connect_node(world, 0), CAD_OK);
	world_run(world, 5000);
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
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 2000);
	world->nodes[0].hung = true;
	world->nodes[0].gone_ms = world->now_ms;
	world_run(world, WORLD_LEASE_MS + 1000);
	assert_int_equal(world->nodes[0].session, 0);
	assert_int_equal(world->closed, 1);
	assert_int_equal(world_unplaced(world), 0);
	assert_int_equal(world_held_by(world, 1), WORLD_CELLS);
	world->nodes[0].hung = false;
	assert_int_equal(world_connect_node(world, 0), CAD_OK);
	world_run(world, 20000);
	assert_int_equal(world_held_by(world, 0) + world_held_by(world, 1), WORLD_CELLS);
	assert_int_equal(world_unplaced(world), 0);
	world_destroy(world);
}

/* The service itself was stopped for two leases. When it continues, its timer is first, and the
 * reports of that time come after it. One that hung as well is found a lease later, also after an
 * hour. */
static void own_pause_is_not_silence(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 3; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 3000);
	uint64_t epoch = world->last_epoch;

	world->now_ms += 2 * (uint64_t)WORLD_LEASE_MS;
	world->deadline_ns = pl_control_turn(world->control);
	world_run(world, 2 * (uint64_t)WORLD_LEASE_MS);
	assert_int_equal(world->closed, 0);
	assert_int_equal(world->last_epoch, epoch);

	world->now_ms += 3600 * 1000;
	world_run(world, 1); /* here reports are first */
	world->nodes[1].hung = true;
	world->nodes[1].gone_ms = world->now_ms;
	world_run(world, WORLD_LEASE_MS + 500);
	assert_int_equal(world->closed, 1);
	assert_int_equal(world_unplaced(world), 0);
	world_destroy(world);
}

/* Three nodes, all placed; then nobody hears of any of them for longer than a lease. */
static struct world *world_after_a_cut(void)
{
	struct world *world = world_create();
	for (int i = 0; i < 3; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 3000);
	assert_int_equal(world_unplaced(world), 0);

	for (int i = 0; i < 3; i++) {
		world->nodes[i].hung = true;
		world->nodes[i].gone_ms = world->now_ms;
	}
	world_run(world, WORLD_LEASE_MS + 1000);
	assert_int_equal(world->closed, 3);
	assert_int_equal(world_unplaced(world), WORLD_CELLS);
	for (int i = 0; i < 3; i++)
		world->nodes[i].hung = false;

	return world;
}

/* Two of them are back a little earlier than the third: what it holds is not loaded elsewhere. */
static void after_a_cut_the_last_is_waited_for(void **state)
{
	(void)state;
	struct world *world = world_after_a_cut();
	bool held[3][WORLD_CELLS];
	for (int i = 0; i < 3; i++)
		memcpy(held[i], world->nodes[i].held, sizeof held[i]);
	unsigned loads = world->loads;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(world_connect_node(world, i), CAD_OK);
		world_run(world, i < 2 ? 400 : 200);
	}
	assert_int_equal(world_unplaced(world), 0);
	world_run(world, 10000);
	assert_int_equal(world->loads, loads + WORLD_CELLS); /* each is asked for its checksums */
	assert_int_equal(world->frees, 0);
	for (int i = 0; i < 3; i++)
		assert_memory_equal(held[i], world->nodes[i].held, sizeof held[i]);
	world_destroy(world);
}

static void after_a_cut_the_missing_have_a_lease(void **state)
{
	(void)state;
	struct world *world = world_after_a_cut();
	char text[200];
	unsigned loads = world->loads;

	for (int i = 0; i < 2; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, WORLD_LEASE_MS);
	assert_int_equal(world->loads, loads);
	assert_false(pl_control_ready(world->control, text, sizeof text));
	assert_string_equal(text, "2 expert nodes are back after all were lost; the others have a moment");
	world_run(world, 500);
	assert_true(pl_control_ready(world->control, text, sizeof text));
	assert_int_equal(world_unplaced(world), 0);
	world_destroy(world);
}

/* All were killed, and their hosts say so: who is back settles, and nobody else is waited for. */
static void the_killed_are_not_waited_for(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 3; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 3000);
	for (int i = 0; i < 3; i++) {
		uint32_t pid = world->nodes[i].pid;
		world_kill_node(world, i);
		int slot = pl_registry_find(pl_control_registry(world->control), world->nodes[i].id);
		pl_control_gone(world->control, (uint32_t)slot, pid);
	}
	world_run(world, 10);
	assert_int_equal(world_unplaced(world), WORLD_CELLS);
	unsigned loads = world->loads;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(world_connect_node(world, i), CAD_OK);
		world_run(world, 50);
	}
	assert_int_equal(world->loads, loads);
	world_run(world, 300);
	assert_int_equal(world_unplaced(world), 0);
	assert_int_equal(world->loads, loads + WORLD_CELLS);
	assert_int_equal(world_held_by(world, 0), WORLD_CELLS / 2);
	world_destroy(world);
}

static void restart_moves_nothing(void **state)
{
	(void)state;
	struct world *world = world_create();
	world_connect_router(world, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 3000);
	struct cad_map *before = cad_map_acquire(pl_control_map(world->control));
	unsigned loads = world->loads, maps = world->maps;
	world_stop(world);
	world->now_ms += 1000;
	world_start(world);
	assert_int_equal(world_connect_node(world, 2), CAD_OK);
	world_run(world, 2000);
	assert_int_equal(world->maps, maps); /* not everybody is back: routers go on with the map that they have */
	world_connect_router(world, 0);
	assert_int_equal(world_connect_node(world, 0), CAD_OK);
	assert_int_equal(world_connect_node(world, 1), CAD_OK);
	world_run(world, 100);
	assert_int_equal(world->maps, maps + 1);
	assert_int_equal(world->last_epoch, before->epoch + 1);
	for (uint32_t cell = 0; cell < WORLD_CELLS; cell++)
		for (int i = 0; i < 3; i++)
			assert_int_equal(world_listed(before, world->nodes[i].id, cell),
				world_listed(pl_control_map(world->control), world->nodes[i].id, cell));
	world_run(world, 10000);
	assert_int_equal(world->loads, loads);
	assert_int_equal(world->frees, 0);
	cad_map_release(before);
	world_destroy(world);
}

/* At first, when a fast node comes later, when a slow one is lost, and over a restart. */
static void fast_nodes_hold_more(void **state)
{
	(void)state;
	struct world *world = world_create();
	world->nodes[0].speed = 6;
	world->nodes[3].speed = 4;
	for (int i = 0; i < 3; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 3000);
	assert_int_equal(world_held_by(world, 0), 18);
	assert_int_equal(world_held_by(world, 1), 3);
	assert_int_equal(world_held_by(world, 2), 3);

	assert_int_equal(world_connect_node(world, 3), CAD_OK);
	world_run(world, 20000);
	assert_in_range(world_held_by(world, 0), 12, 15);
	assert_in_range(world_held_by(world, 3), 8, 9);
	world_kill_node(world, 1);
	world_run(world, 20000);
	assert_int_equal(world_held_by(world, 1), 0);
	assert_int_equal(world_unplaced(world), 0);

	unsigned loads = world->loads, frees = world->frees;
	world_stop(world);
	world->now_ms += 1000;
	world_start(world);
	for (int i = 3; i >= 0; i--) { /* the fastest comes last */
		if (i != 1)
			assert_int_equal(world_connect_node(world, i), CAD_OK);
		world_run(world, 1500);
	}
	world_run(world, 10000);
	assert_int_equal(world->loads, loads);
	assert_int_equal(world->frees, frees);
	world_destroy(world);
}

static void node_that_does_not_come_back_after_a_restart_is_dead(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 3; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 3000);
	unsigned loads = world->loads;
	world_stop(world);
	world_kill_node(world, 0);
	world_start(world);
	assert_int_equal(world_connect_node(world, 1), CAD_OK);
	assert_int_equal(world_connect_node(world, 2), CAD_OK);
	world_run(world, WORLD_REJOIN_MS - 10);
	assert_int_equal(world->loads, loads);
	world_run(world, 1000);
	assert_int_equal(world_unplaced(world), 0);
	world_destroy(world);
}

/* The others are back, and the host of the missing one says that its process is gone: not that of
 * another one that had its slot or its name. */
static void the_killed_are_not_waited_for_after_a_restart(void **state)
{
	(void)state;
	struct world *world = world_create();
	for (int i = 0; i < 3; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 3000);
	uint32_t pid = world->nodes[0].pid;
	world_stop(world);
	world_kill_node(world, 0);
	world_start(world);
	assert_int_equal(world_connect_node(world, 1), CAD_OK);
	assert_int_equal(world_connect_node(world, 2), CAD_OK);
	uint32_t slot = (uint32_t)pl_registry_find(pl_control_registry(world->control), world->nodes[0].id);
	pl_control_gone(world->control, slot, pid + 1);
	world_run(world, 100);
	assert_null(pl_control_map(world->control));
	pl_control_gone(world->control, slot, pid);
	world_run(world, 300);
	assert_int_equal(world_unplaced(world), 0);
	assert_int_equal(world_held_by(world, 1) + world_held_by(world, 2), WORLD_CELLS);
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
	unlink(path);
	pl_control_destroy(world->control);
	pl_state_close(world->state);
	must(pl_state_open(path, &world->state, &error), &error);
	world->options.state = world->state;
	world_start(world);
	file_writes_fail(true);
	for (int i = 0; i < 3; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 2000);
	file_writes_fail(false);
	assert_int_equal(world_unplaced(world), 0);
	assert_true(pl_control_stats(world->control)->state_errors > 0);
	assert_int_equal(pl_state_epoch(world->state), 0);
	world_kill_node(world, 1);
	world_run(world, 1000);
	assert_int_equal(world_unplaced(world), 0);
	assert_int_equal(pl_state_epoch(world->state), world->last_epoch);
	unsigned loads = world->loads;
	world_stop(world);
	world_start(world);
	assert_int_equal(world_connect_node(world, 0), CAD_OK);
	assert_int_equal(world_connect_node(world, 2), CAD_OK);
	world_run(world, 2000);
	assert_int_equal(world_unplaced(world), 0);
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
static void rebuild_lost_state(int router_comes, uint64_t checksums_ms)
{
	struct world *world = world_create();
	for (int i = 0; i < 2; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_connect_router(world, 0);
	world_run(world, 3000);
	uint64_t epoch = world->last_epoch;
	bool held[2][WORLD_CELLS];
	for (int i = 0; i < 2; i++)
		memcpy(held[i], world->nodes[i].held, sizeof held[i]);
	world_stop(world);
	pl_state_close(world->state);
	struct cad_error error;
	must(pl_state_open("", &world->state, &error), &error);
	world->options.state = world->state;
	world->unplaced_worst = 0;
	world_start(world);
	unsigned loads = world->loads;
	world->checksums_late = checksums_ms > 0;
	for (int i = 0; i < 3; i++) {
		if (i == router_comes) {
			world_connect_router(world, 0);
			world->routers[0].report_ms += 700; /* as under a lease of 5 s: the second one after 1.7 s */
		}
		if (i < 2)
			assert_int_equal(world_connect_node(world, i), CAD_OK);
		world_run(world, 50);
	}
	world_run(world, checksums_ms);
	world->checksums_late = false;
	for (size_t i = 0; i < world->late_count; i++)
		pl_control_checksum(world->control, world->late[i]);
	world_run(world, 3000);
	assert_true(world->last_epoch > epoch);
	assert_int_equal(world->unplaced_worst, 0);
	assert_int_equal(world->loads, loads + WORLD_CELLS); /* each is asked for its checksum */
	assert_int_equal(world->frees, 0);
	for (int i = 0; i < 2; i++)
		assert_memory_equal(held[i], world->nodes[i].held, sizeof held[i]);
	world_destroy(world);
}

/* Before the nodes, between them, or after them. */
static void lost_state_is_rebuilt_from_the_nodes(void **state)
{
	(void)state;
	for (int router_comes = 0; router_comes < 3; router_comes++) {
		rebuild_lost_state(router_comes, 0);
		rebuild_lost_state(router_comes, 1300); /* the map comes after the second in which routers must reach */
	}
}

static void wrong_weights_are_never_in_a_map(void **state)
{
	(void)state;
	struct world *world = world_create();
	world->nodes[1].corrupt = true;
	for (int i = 0; i < 2; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 4000);
	assert_int_equal(world_unplaced(world), 0);
	assert_int_equal(world_held_by(world, 0), WORLD_CELLS);
	assert_true(pl_control_stats(world->control)->checksums_wrong > 0);
	world_destroy(world);
}

/* How often the service has said something. */
static unsigned lines_with(int log, const char *text)
{
	static char all[1 << 20];
	ssize_t size = pread(log, all, sizeof all - 1, 0);
	unsigned count = 0;
	assert_true(size >= 0);
	all[size] = 0;
	for (const char *at = all; (at = strstr(at, text)); at++)
		count++;
	return count;
}

static const struct pl_problem *problem_of(const struct world *world, int index)
{
	const struct pl_registry *registry = pl_control_registry(world->control);
	return &registry->nodes[pl_registry_find(registry, world->nodes[index].id)].problem;
}

/* A node with wrong weights is asked again and again: one line says so, and its status; so with one
 * that cannot load. */
static void a_bad_node_is_said_once(void **state)
{
	(void)state;
	struct world *world = world_create();
	int log = memfd_create("log", MFD_CLOEXEC);
	assert_true(log >= 0);
	cad_log_set_fd(log);
	world->nodes[1].corrupt = true;
	for (int i = 0; i < 2; i++)
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	world_run(world, 30000);
	assert_true(pl_control_stats(world->control)->checksums_wrong > 10);
	assert_int_equal(lines_with(log, "wrong weights"), 1);
	assert_string_equal(problem_of(world, 0)->text, "");
	assert_non_null(strstr(problem_of(world, 1)->text, "wrong weights, "));
	assert_non_null(strstr(problem_of(world, 1)->text, "start it with the same --model files"));

	/* its stream breaks, and it comes back as it was: known already */
	pl_control_broken(world->control, world->nodes[1].session);
	world->nodes[1].session = 0;
	assert_int_equal(world_connect_node(world, 1), CAD_OK);
	world_run(world, 30000);
	assert_int_equal(lines_with(log, "wrong weights"), 1);
	assert_true(problem_of(world, 1)->times > 20);

	struct cad_error error;
	must(pl_control_loaded(
		     world->control, world->nodes[1].session, (struct pl_expert){ 2, 3 }, "\x1b[31m\n", 100, &error),
		&error);
	assert_non_null(strstr(problem_of(world, 1)->text, "layer 2 expert 3 has checksum ?[31m?, in the"));

	/* another process, with the right files */
	world_kill_node(world, 1);
	world->nodes[1].corrupt = false;
	world_run(world, 1000);
	assert_int_equal(world_connect_node(world, 1), CAD_OK);
	assert_string_equal(problem_of(world, 1)->text, "");
	world_run(world, 10000);
	assert_true(world_held_by(world, 1) > 0);

	for (uint32_t e = 0; e < 20; e++)
		must(pl_control_failed(world->control, world->nodes[1].session,
			     (struct pl_expert){ 2, e % WORLD_EXPERTS }, "no such disk", &error),
			&error);
	assert_int_equal(lines_with(log, "loading failed"), 1);
	assert_string_equal(problem_of(world, 1)->text, "loading failed, 20 times: layer 2 expert 3: no such disk");
	must(pl_control_failed(world->control, world->nodes[1].session, (struct pl_expert){ 2, 3 },
		     "no\x1b[31m\nATTENTION: disk", &error),
		&error);
	assert_string_equal(
		problem_of(world, 1)->text, "loading failed, 21 times: layer 2 expert 3: no?[31m?ATTENTION: disk");
	const struct pl_registry *registry = pl_control_registry(world->control);
	uint32_t slot = (uint32_t)pl_registry_find(registry, "node-1");
	uint64_t now_ns = world->now_ms * CAD_NS_PER_MS;
	assert_true(pl_registry_problem(registry, slot, now_ns + 600 * CAD_NS_PER_S)[0] != 0);
	assert_string_equal(pl_registry_problem(registry, slot, now_ns + 601 * CAD_NS_PER_S), "");
	char right[33];
	snprintf(right, sizeof right, "%032x", (WORLD_EXPERTS + 3) * 2654435761u); /* as the world computes them */
	must(pl_control_loaded(world->control, world->nodes[1].session, (struct pl_expert){ 2, 3 }, right, 100, &error),
		&error);
	assert_string_equal(problem_of(world, 1)->text, "");
	assert_int_equal(lines_with(log, "right again"), 1);
	cad_log_set_fd(null_fd);
	close(log);
	world_destroy(world);
}

/* Checksums that take their time hold a copy back, and nothing else. */
static void late_checksums_are_waited_for(void **state)
{
	(void)state;
	struct world *world = world_create();
	world->checksums_late = true;
	assert_int_equal(world_connect_node(world, 0), CAD_OK);
	world_run(world, 2000);
	assert_int_equal(world_unplaced(world), WORLD_CELLS);
	assert_true(world->late_count > 0);
	world->checksums_late = false;
	for (size_t i = 0; i < world->late_count; i++)
		pl_control_checksum(world->control, world->late[i]);
	world_run(world, 1000);
	assert_int_equal(world_unplaced(world), 0);
	world_destroy(world);
}

static void shortage_is_told(void **state)
{
	(void)state;
	struct world *world = world_create();
	char text[256];
	for (int i = 0; i < 2; i++) {
		world->nodes[i].memory = WORLD_CELLS / 2 - 2;
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	}

	world_run(world, 2000);
	assert_int_equal(world_unplaced(world), 4);
	assert_false(pl_control_ready(world->control, text, sizeof text));
	assert_non_null(strstr(text, "4 of 24 experts do not fit on 2 expert nodes"));
	assert_int_equal(world_connect_node(world, 2), CAD_OK);
	world_run(world, 4000);
	assert_true(pl_control_ready(world->control, text, sizeof text));
	world_destroy(world);
}

static void strangers_are_refused(void **state)
{
	(void)state;
	struct world *world = world_create();
	struct cad_error error;
	struct pl_join join = { .hello = { .id = "a",
					.role = PL_ROLE_EXPERT,
					.exchange_address = "x:1",
					.http_address = "",
					.grpc_address = "",
					.kernels_fingerprint = "",
					.version = "",
					.isa = "" },
		.identity = { "other", "s", "words", NULL } };
	assert_int_equal(pl_control_join(world->control, &join, 1, &error), CAD_ERR_REFUSED);
	assert_string_equal(error.text,
		"node 'a' has a checkpoint with fingerprint 'other', but this cluster serves 'm': start it with the same --model files");
	join.identity = (struct pl_identity){ "m", "t", "other words", NULL };
	assert_int_equal(pl_control_join(world->control, &join, 1, &error), CAD_ERR_REFUSED);
	assert_string_equal(error.text,
		"node 'a' runs with the settings 'other words' (t), but this cluster with 'words' (s): restart it, and it takes the cluster's settings");
	join.identity = world_identity;
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

static enum cad_status router_checksum(void *context, char hex[33])
{
	(void)context;
	snprintf(hex, 33, "%s", known_checksum);
	return hex[0] ? CAD_OK : CAD_AGAIN;
}

/* The placement service's own files say which weights are right; until it has read them, routers
 * wait. */
static void routers_with_other_weights_are_refused(void **state)
{
	(void)state;
	struct world *world = world_create();
	struct cad_error error;
	struct pl_join join = {
		.hello = { .id = "r",
			.role = PL_ROLE_ROUTER,
			.exchange_address = "",
			.http_address = "",
			.grpc_address = "",
			.kernels_fingerprint = "",
			.version = "",
			.isa = "" },
		.identity = world_identity,
	};
	pl_control_destroy(world->control);
	world->options.events.router_checksum = router_checksum;
	world_start(world);

	join.identity.router_checksum = "0123456789abcdef0123456789abcdef";
	known_checksum = "";
	assert_int_equal(pl_control_join(world->control, &join, 1, &error), CAD_AGAIN);
	assert_non_null(strstr(error.text, "router 'r' has to wait"));
	assert_int_equal(pl_control_stats(world->control)->refusals, 0);
	known_checksum = "fedcba9876543210fedcba9876543210";
	assert_int_equal(pl_control_join(world->control, &join, 2, &error), CAD_ERR_REFUSED);
	assert_string_equal(error.text,
		"router 'r' has other weights than this cluster: all but routed experts has the checksum '0123456789abcdef0123456789abcdef', in the placement service's files 'fedcba9876543210fedcba9876543210': start it with the same --model files");
	join.identity.router_checksum = NULL;
	assert_int_equal(pl_control_join(world->control, &join, 3, &error), CAD_ERR_REFUSED);
	assert_int_equal(pl_control_stats(world->control)->refusals, 2);
	join.identity.router_checksum = known_checksum;
	must(pl_control_join(world->control, &join, 4, &error), &error);
	assert_int_equal(world_connect_node(world, 0), CAD_OK); /* a node computes with none of it */
	world_destroy(world);
}

/* A node whose operators give other bits holds nothing, until it is the only kind left. */
static void other_operators_hold_nothing(void **state)
{
	(void)state;
	struct world *world = world_create();
	struct cad_error error;
	assert_int_equal(world_connect_node(world, 0), CAD_OK);
	const struct pl_join join = { .hello = { .id = "odd",
					      .role = PL_ROLE_EXPERT,
					      .exchange_address = "x:1",
					      .http_address = "",
					      .grpc_address = "",
					      .kernels_fingerprint = "other",
					      .version = "",
					      .isa = "",
					      .memory_bytes = 1 << 20 },
		.identity = world_identity };
	must(pl_control_join(world->control, &join, 999, &error), &error);
	world_run(world, 2000);
	assert_int_equal(world_held_by(world, 0), WORLD_CELLS);
	assert_int_equal(world_unplaced(world), 0);
	world_destroy(world);
}

static void dense_model_has_a_map_at_once(void **state)
{
	(void)state;
	struct world *world = world_create();
	char text[64];
	pl_control_destroy(world->control);
	world->options.shape = (struct pl_shape){ NULL, 0, 0 };
	world_start(world);
	(void)pl_control_turn(world->control);
	assert_non_null(pl_control_map(world->control));
	assert_true(pl_control_ready(world->control, text, sizeof text));
	world_destroy(world);
}

int main(void)
{
	/* what the service logs about nodes that die here is nobody's worry */
	null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	cad_log_set_fd(null_fd);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_placement_waits_for_enough_nodes),
		cmocka_unit_test(dead_nodes_experts_come_back_elsewhere),
		cmocka_unit_test(short_break_changes_nothing),
		cmocka_unit_test(hung_node_loses_its_lease),
		cmocka_unit_test(own_pause_is_not_silence),
		cmocka_unit_test(after_a_cut_the_last_is_waited_for),
		cmocka_unit_test(after_a_cut_the_missing_have_a_lease),
		cmocka_unit_test(the_killed_are_not_waited_for),
		cmocka_unit_test(restart_moves_nothing),
		cmocka_unit_test(fast_nodes_hold_more),
		cmocka_unit_test(node_that_does_not_come_back_after_a_restart_is_dead),
		cmocka_unit_test(the_killed_are_not_waited_for_after_a_restart),
		cmocka_unit_test(unwritable_state_catches_up),
		cmocka_unit_test(lost_state_is_rebuilt_from_the_nodes),
		cmocka_unit_test(wrong_weights_are_never_in_a_map),
		cmocka_unit_test(a_bad_node_is_said_once),
		cmocka_unit_test(late_checksums_are_waited_for),
		cmocka_unit_test(shortage_is_told),
		cmocka_unit_test(strangers_are_refused),
		cmocka_unit_test(routers_with_other_weights_are_refused),
		cmocka_unit_test(other_operators_hold_nothing),
		cmocka_unit_test(dense_model_has_a_map_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
