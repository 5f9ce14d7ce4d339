/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/control_world.h"

#include "common/base/clock.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const uint32_t world_layers[WORLD_LAYERS] = { 1, 2, 5 };
const struct pl_identity world_identity = { "m", "s", "words", NULL };

static uint64_t now(void *context) { return ((struct world *)context)->now_ms * CAD_NS_PER_MS; }

static void checksum_of(uint32_t cell, char hex[33]) { snprintf(hex, 33, "%032x", cell * 2654435761u); }

static struct world_node *node_of(struct world *world, uint64_t session)
{
	for (int i = 0; i < WORLD_NODES; i++)
		if (world->nodes[i].session == session)
			return &world->nodes[i];
	return NULL;
}

bool world_listed(const struct cad_map *map, const char *id, uint32_t cell)
{
	int node = cad_map_node_find(map, id);
	struct cad_map_replicas replicas =
		cad_map_replicas(map, world_layers[cell / WORLD_EXPERTS], cell % WORLD_EXPERTS);
	for (uint32_t i = 0; i < replicas.count; i++)
		if (replicas.nodes[i] == node)
			return true;
	return false;
}

/* Another node, that holds the expert, or has lately been lost. */
static int check_source(struct world *world, const struct world_node *target, const struct pl_load_order *order)
{
	char hex[33];
	checksum_of(order->cell, hex);
	assert_string_equal(order->checksum, hex);
	assert_true(strlen(order->exchange_address) > 0 && strcmp(order->node, target->id) != 0);
	for (int n = 0; n < WORLD_NODES; n++) {
		struct world_node *node = &world->nodes[n];
		if (strcmp(node->id, order->node) != 0)
			continue;
		assert_true((node->held[order->cell] && !node->freeing[order->cell]) || !node->session ||
			world->now_ms <= node->gone_ms + WORLD_LEASE_MS);
		node->given++;
		return n;
	}
	fail_msg("'%s' is no node", order->node);
	return -1;
}

static void on_load(void *context, uint64_t session, const struct pl_load_order *orders, uint32_t count)
{
	struct world *world = context;
	struct world_node *node = node_of(world, session);

	assert_non_null(node);
	for (uint32_t i = 0; i < count; i++) {
		node->due_ms[orders[i].cell] = world->now_ms + 5 + orders[i].cell % 7;
		world->loads++;
		node->from[orders[i].cell] = orders[i].node ? check_source(world, node, &orders[i]) : -1;
	}

	uint64_t used = 0;
	for (int cell = 0; cell < WORLD_CELLS; cell++)
		used += node->held[cell] || node->due_ms[cell];
	assert_true(used <= node->memory);
}

/* A copy that was in a map goes only when every router that counts reaches another. */
static void check_reached_elsewhere(const struct world *world, const struct world_node *node, uint32_t cell)
{
	for (int r = 0; r < WORLD_ROUTERS && node->served[cell]; r++) {
		const struct world_router *router = &world->routers[r];
		bool reached = false;
		if (!router->alive || !router->session || !router->map || router->discounted)
			continue;
		for (int n = 0; n < WORLD_NODES; n++)
			reached = reached ||
				(router->reach[n].reached && world_listed(router->map, world->nodes[n].id, cell));
		assert_true(reached);
	}
}

static void on_free(void *context, uint64_t session, const uint32_t *cells, uint32_t count)
{
	struct world *world = context;
	struct world_node *node = node_of(world, session);

	assert_non_null(node);
	for (uint32_t i = 0; i < count; i++) {
		for (int r = 0; r < WORLD_ROUTERS; r++) /* no router may still work with a map that sends calls there */
			if (world->routers[r].alive && world->routers[r].session && world->routers[r].map)
				assert_false(world_listed(world->routers[r].map, node->id, cells[i]));
		check_reached_elsewhere(world, node, cells[i]);
		node->freeing[cells[i]] = true;
		world->frees++;
	}
}

/* An expert of the map before, with a node that has it still and was not away since, has a node in
 * this one. */
static void check_still_served(const struct world *world, const struct cad_map *map)
{
	for (int n = 0; world->last && n < WORLD_NODES; n++) {
		const struct world_node *node = &world->nodes[n];
		bool there =
			node->alive && node->session && !node->hung && !node->corrupt && node->gone_ms < world->last_ms;
		for (uint32_t cell = 0; there && cell < WORLD_CELLS; cell++)
			if (node->held[cell] && !node->freeing[cell] && world_listed(world->last, node->id, cell))
				assert_true(
					cad_map_replicas(map, world_layers[cell / WORLD_EXPERTS], cell % WORLD_EXPERTS)
						.count > 0);
	}
}

static void on_publish(void *context, struct cad_map *map)
{
	struct world *world = context;
	assert_true(map->epoch > world->last_epoch);
	world->last_epoch = map->epoch;
	world->maps++;
	check_still_served(world, map);
	cad_map_release(world->last);
	world->last = cad_map_acquire(map);
	world->last_ms = world->now_ms;
	if (cad_map_unplaced(map) > world->unplaced_worst)
		world->unplaced_worst = cad_map_unplaced(map);
	for (int n = 0; n < WORLD_NODES; n++) {
		struct world_node *node = &world->nodes[n];
		for (uint32_t cell = 0; cell < WORLD_CELLS; cell++) {
			if (!world_listed(map, node->id, cell))
				continue;
			node->served[cell] = true;
			bool lost_lately = world->now_ms <= node->gone_ms + WORLD_LEASE_MS ||
				world->now_ms <= node->gone_ms + WORLD_REJOIN_MS;
			assert_true((node->alive && node->held[cell] && !node->freeing[cell] && !node->corrupt) ||
				lost_lately);
		}
	}

	for (int r = 0; r < WORLD_ROUTERS; r++)
		if (world->routers[r].alive && world->routers[r].session) {
			cad_map_release(world->routers[r].next);
			world->routers[r].next = cad_map_acquire(map);
			world->routers[r].take_ms = world->now_ms + 3 + 40 * (uint64_t)r;
		}
}

static void on_close(void *context, uint64_t session, const char *text)
{
	struct world *world = context;
	struct world_node *node = node_of(world, session);

	assert_true(strlen(text) > 0);
	world->closed++;
	if (node)
		node->session = 0;
	for (int r = 0; r < WORLD_ROUTERS; r++)
		if (world->routers[r].session == session)
			world->routers[r].session = 0;
}

static void on_standing(void *context, uint64_t session, bool counts, const char *why)
{
	struct world *world = context;
	for (int r = 0; r < WORLD_ROUTERS; r++)
		if (world->routers[r].session == session) {
			world->routers[r].discounted = !counts;
			assert_true(counts == (why[0] == 0));
		}
}

static void on_did(void *context, const char *what, const char *why, const char *outcome)
{
	struct world *world = context;
	snprintf(world->did, sizeof world->did, "%s: %s: %s", what, outcome, why);
	world->did_count++;
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

void world_start(struct world *world)
{
	struct cad_error error;
	must(pl_control_create(&world->options, &world->control, &error), &error);
	world->deadline_ns = 0;
}

struct world *world_create(void)
{
	struct world *world = calloc(1, sizeof *world);
	struct cad_error error;

	world->now_ms = 1000;
	world->clock = (struct cad_clock){ now, world };
	must(pl_state_open("", &world->state, &error), &error);
	world->options = (struct pl_control_options){
		.shape = { world_layers, WORLD_LAYERS, WORLD_EXPERTS },
		.expert_bytes = 100,
		.image_bytes = 80,
		.identity = world_identity,
		.state = world->state,
		.clock = &world->clock,
		.events = {
			.load = on_load,
			.free = on_free,
			.publish = on_publish,
			.close = on_close,
			.standing = on_standing,
			.checksum = on_checksum,
			.did = on_did,
			.context = world,
		},
		.lease_ns = WORLD_LEASE_MS * CAD_NS_PER_MS,
		.grace_ns = WORLD_GRACE_MS * CAD_NS_PER_MS,
		.rejoin_ns = WORLD_REJOIN_MS * CAD_NS_PER_MS,
		.settle_ns = 100 * CAD_NS_PER_MS,
		.forget_ns = 600 * CAD_NS_PER_S,
		.publish_interval_ns = 50 * CAD_NS_PER_MS,
		.free_grace_ns = WORLD_FREE_GRACE_MS * CAD_NS_PER_MS,
		.retry_ns = 5 * CAD_NS_PER_S,
		.stall_ns = 30 * CAD_NS_PER_S,
		.loads_max = 4,
		.moves_max = 2,
		.experts_min = 1,
		.copies_min = 1,
		.level_on_join = true,
	};

	for (int i = 0; i < WORLD_NODES; i++) {
		snprintf(world->nodes[i].id, sizeof world->nodes[i].id, "node-%d", i);
		world->nodes[i].memory = WORLD_CELLS;
		world->nodes[i].pid = 100 + (uint32_t)i;
	}

	for (int i = 0; i < WORLD_ROUTERS; i++)
		snprintf(world->routers[i].id, sizeof world->routers[i].id, "router-%d", i);
	world_start(world);
	return world;
}

void world_destroy(struct world *world)
{
	for (int i = 0; i < WORLD_ROUTERS; i++) {
		cad_map_release(world->routers[i].map);
		cad_map_release(world->routers[i].next);
	}
	cad_map_release(world->last);
	pl_control_destroy(world->control);
	pl_state_close(world->state);
	free(world);
}

enum cad_status world_connect_node(struct world *world, int index)
{
	struct world_node *node = &world->nodes[index];
	struct pl_expert held[WORLD_CELLS];
	size_t count = 0;

	for (uint32_t cell = 0; cell < WORLD_CELLS; cell++)
		if (node->held[cell])
			held[count++] = (struct pl_expert){ world_layers[cell / WORLD_EXPERTS], cell % WORLD_EXPERTS };
	char address[32];
	snprintf(address, sizeof address, "127.0.0.1:%u/%u", 7000 + node->pid, node->worker);
	const struct pl_join join = {
		.hello = {
			.id = node->id,
			.role = PL_ROLE_EXPERT,
			.exchange_address = address,
			.http_address = "",
			.grpc_address = "",
			.kernels_fingerprint = "k",
			.version = "",
			.isa = "",
			.memory_bytes = node->memory * (node->expert_bytes ? node->expert_bytes : 100) + 5,
			.expert_bytes = node->expert_bytes,
			.speed.given = node->speed,
			.pid = node->pid,
		},
		.identity = world_identity,
		.epoch = world->last_epoch,
		.held = held,
		.held_count = count,
	};
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
	memset(node->served, 0, sizeof node->served);

	return CAD_OK;
}

static void report_router(struct world *world, int r);

void world_connect_router(struct world *world, int index)
{
	struct world_router *router = &world->routers[index];
	const struct pl_join join = {
		.hello = {
			.id = router->id,
			.role = PL_ROLE_ROUTER,
			.exchange_address = "",
			.http_address = "",
			.grpc_address = "",
			.kernels_fingerprint = "",
			.version = "",
			.isa = "",
			.pid = 500 + (uint32_t)index,
		},
		.identity = world_identity,
		.epoch = router->map ? router->map->epoch : 0,
	};
	struct cad_error error;
	uint64_t session = ++world->last_session;

	if (pl_control_join(world->control, &join, session, &error) != CAD_OK)
		return;

	router->session = session;
	router->alive = true;
	router->discounted = false;
	router->report_ms = world->now_ms;

	if (pl_control_map(world->control)) {
		cad_map_release(router->next);
		router->next = cad_map_acquire(pl_control_map(world->control));
		router->take_ms = world->now_ms + 3;
	}
	report_router(world, index); /* as a member does */
}

void world_kill_node(struct world *world, int index)
{
	struct world_node *node = &world->nodes[index];
	if (node->session)
		pl_control_broken(world->control, node->session);
	node->session = 0;
	node->alive = node->hung = false;
	node->pid += 1000;
	node->gone_ms = world->now_ms;
	memset(node->held, 0, sizeof node->held);
}

static void step_node(struct world *world, struct world_node *node)
{
	if (!node->session || node->hung)
		return;
	for (uint32_t cell = 0; cell < WORLD_CELLS; cell++) {
		world->touched = world->touched || (node->due_ms[cell] && world->now_ms >= node->due_ms[cell]) ||
			node->freeing[cell];
		struct pl_expert expert = { world_layers[cell / WORLD_EXPERTS], cell % WORLD_EXPERTS };
		if (node->stuck)
			node->due_ms[cell] += node->due_ms[cell] != 0 && !node->freeing[cell];
		if (node->freeing[cell])
			node->due_ms[cell] = 0;
		if (node->due_ms[cell] && world->now_ms >= node->due_ms[cell]) {
			char hex[33];
			checksum_of(node->corrupt ? cell + 1 : cell, hex);
			node->due_ms[cell] = 0;
			node->held[cell] = true;
			uint64_t bytes = node->loaded_bytes ? node->loaded_bytes : 100;
			assert_int_equal(
				pl_control_loaded(world->control, node->session, expert, hex, bytes, NULL), CAD_OK);
		}
		if (node->freeing[cell]) {
			node->freeing[cell] = node->held[cell] = node->served[cell] = false;
			assert_int_equal(pl_control_freed(world->control, node->session, expert, NULL), CAD_OK);
		}
	}
	if (world->now_ms >= node->report_ms + WORLD_LEASE_MS / 3) {
		node->report_ms = world->now_ms;
		world->touched = true;
		pl_control_load(world->control, node->session, &(struct pl_load){ .epoch = world->last_epoch });
	}
}

/* What the exchange would find out: a process that is gone at once, a silent one by the heartbeat;
 * a way that is there within some ms. Whether anything changed. */
static bool feel(struct world *world, int r, int n)
{
	struct world_router *router = &world->routers[r];
	struct world_reach *reach = &router->reach[n];
	const struct world_node *node = &world->nodes[n];
	bool listed = router->map && cad_map_node_find(router->map, node->id) != CAD_MAP_NONE;
	bool answers = node->alive && !node->hung && !world->cut[r][n];

	if (reach->pid != node->pid || reach->worker != node->worker) { /* nothing of before is left */
		bool changed = reach->reached;
		*reach = (struct world_reach){ node->pid, node->worker, .heard_ms = world->now_ms };
		if (changed)
			return true;
	}
	if (reach->reached && answers)
		reach->heard_ms = world->now_ms;
	if (reach->reached && (!listed || !node->alive || world->now_ms >= reach->heard_ms + WORLD_HEARTBEAT_MS)) {
		reach->reached = false;
		return true;
	}
	reach->way_ms = listed && answers && !reach->reached ? reach->way_ms + 1 : 0;
	if (reach->way_ms < 3 + (uint64_t)n)
		return false;
	reach->reached = true;
	reach->heard_ms = world->now_ms;
	return true;
}

static void report_router(struct world *world, int r)
{
	struct world_router *router = &world->routers[r];
	struct pl_unreached unreached[WORLD_NODES];
	size_t count = 0;

	for (int n = 0; n < WORLD_NODES; n++) {
		const struct world_reach *reach = &router->reach[n];
		if (router->map && cad_map_node_find(router->map, world->nodes[n].id) != CAD_MAP_NONE &&
			!reach->reached)
			unreached[count++] = (struct pl_unreached){ world->nodes[n].id,
				(world->now_ms - reach->heard_ms) * CAD_NS_PER_MS };
	}

	router->report_ms = world->now_ms;
	world->touched = true;
	pl_control_load(world->control, router->session,
		&(struct pl_load){
			.epoch = router->map ? router->map->epoch : 0,
		});
	pl_control_unreached(world->control, router->session, unreached, count);
}

static void step_router(struct world *world, int r)
{
	struct world_router *router = &world->routers[r];
	bool news = false;

	if (!router->alive)
		return;
	if (router->session && router->next && world->now_ms >= router->take_ms) {
		cad_map_release(router->map);
		router->map = router->next;
		router->next = NULL;
		news = true;
	}
	for (int n = 0; n < WORLD_NODES; n++)
		news = feel(world, r, n) || news;
	if (router->session && (news || world->now_ms >= router->report_ms + WORLD_LEASE_MS / 3))
		report_router(world, r);
}

void world_run(struct world *world, uint64_t ms)
{
	world->touched = true;
	for (uint64_t end = world->now_ms + ms; world->now_ms < end; world->now_ms++) {
		for (int i = 0; i < WORLD_NODES; i++)
			step_node(world, &world->nodes[i]);
		for (int i = 0; i < WORLD_ROUTERS; i++)
			step_router(world, i);
		if (world->touched || now(world) >= world->deadline_ns)
			world->deadline_ns = pl_control_turn(world->control);
		world->touched = false;
	}
}

uint32_t world_held_by(const struct world *world, int index)
{
	uint32_t count = 0;
	for (int cell = 0; cell < WORLD_CELLS; cell++)
		count += world->nodes[index].held[cell];
	return count;
}

size_t world_unplaced(const struct world *world)
{
	return pl_control_map(world->control) ? cad_map_unplaced(pl_control_map(world->control)) : WORLD_CELLS;
}

void world_stop(struct world *world)
{
	pl_control_destroy(world->control);
	for (int i = 0; i < WORLD_NODES; i++)
		world->nodes[i].session = 0;
	for (int i = 0; i < WORLD_ROUTERS; i++)
		world->routers[i].session = 0;
}

struct world *world_placed(int nodes, uint64_t room)
{
	struct world *world = world_create();
	for (int r = 0; r < WORLD_ROUTERS; r++)
		world_connect_router(world, r);
	for (int i = 0; i < nodes; i++) {
		world->nodes[i].memory = room;
		assert_int_equal(world_connect_node(world, i), CAD_OK);
	}
	world_run(world, 5000);
	assert_int_equal(world_unplaced(world), 0);
	return world;
}
