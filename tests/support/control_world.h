/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The placement service on a clock of the test's own, with nodes and routers that are structs.
 * Every order and every map is checked as it comes: nothing is loaded without room, nothing is
 * freed while a router may send calls there, no map names a copy that nobody has.
 */
#ifndef CADRE_TESTS_SUPPORT_CONTROL_WORLD_H
#define CADRE_TESTS_SUPPORT_CONTROL_WORLD_H

#include "orchestration/placement/control.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WORLD_LAYERS = 3,
	WORLD_EXPERTS = 8,
	WORLD_CELLS = WORLD_LAYERS * WORLD_EXPERTS,
	WORLD_NODES = 5,
	WORLD_ROUTERS = 2,
	WORLD_LEASE_MS = 3000,
	WORLD_GRACE_MS = 200,
	WORLD_REJOIN_MS = 6000,
	WORLD_FREE_GRACE_MS = 1000,
	WORLD_HEARTBEAT_MS = 1500,
};
extern const uint32_t world_layers[WORLD_LAYERS];
extern const struct pl_identity world_identity;

struct world_node {
	char id[16];
	uint64_t session; /* 0: not connected */
	bool alive, hung, corrupt;
	uint32_t pid;
	uint32_t worker;       /* of its exchange; another one has another address */
	uint64_t memory;       /* in experts */
	uint64_t expert_bytes; /* of one, as it says; 0: it says nothing, and it is 100 */
	uint64_t loaded_bytes; /* that it reports of an expert when it is loaded; 0: 100 */
	double speed;          /* as it says; 0: nothing */
	unsigned given;        /* experts that others were ordered to get from it */
	int from[WORLD_CELLS]; /* where it was ordered to load from last: a node, or -1, the checkpoint */
	uint64_t report_ms, rejoin_ms, gone_ms;
	uint64_t due_ms[WORLD_CELLS]; /* loading until then; 0: not */
	bool stuck;                   /* its loads do not come on */
	bool held[WORLD_CELLS], freeing[WORLD_CELLS];
	bool served[WORLD_CELLS]; /* was in a map, since the process joined last */
};

/* A router's connection to a node. */
struct world_reach {
	uint32_t pid, worker; /* of the process at the other end */
	bool reached;
	uint64_t heard_ms, way_ms; /* way_ms: for how long it could have connected */
};

struct world_router {
	char id[16];
	uint64_t session, report_ms, rejoin_ms, take_ms;
	bool alive;
	bool discounted;            /* it was told that it does not count */
	struct cad_map *map, *next; /* works with map; has received next */
	struct world_reach reach[WORLD_NODES];
};

struct world {
	uint64_t now_ms, last_session, last_epoch, deadline_ns;
	struct cad_clock clock;
	struct pl_state *state;
	struct pl_control *control;
	struct pl_control_options options;
	struct world_node nodes[WORLD_NODES];
	struct world_router routers[WORLD_ROUTERS];
	bool cut[WORLD_ROUTERS][WORLD_NODES]; /* no way between these two */
	unsigned loads, frees, maps, closed;
	char did[320]; /* what the service did by itself, last, and how often */
	unsigned did_count;
	size_t unplaced_worst; /* in a map that was told */
	struct cad_map *last;  /* told last, at */
	uint64_t last_ms;
	bool checksums_late;
	bool touched; /* something was reported: a turn is due */
	uint32_t late[1024];
	size_t late_count;
};

/* Five nodes, each with room for everything, and two routers; nobody is connected. */
struct world *world_create(void);
void world_destroy(struct world *world);

/* The service starts, or starts again, over world->options; and ends, which everybody notices. */
void world_start(struct world *world);
void world_stop(struct world *world);

enum cad_status world_connect_node(struct world *world, int index);
void world_connect_router(struct world *world, int index);
/* A process dies: its stream breaks, and what it held is gone. */
void world_kill_node(struct world *world, int index);
/* As the service does it: a turn after a report, and when the deadline of the last turn has
 * come. */
void world_run(struct world *world, uint64_t ms);

/* A world in which the first nodes, with room for so many experts each, hold everything,
 * evenly, and all routers work. */
struct world *world_placed(int nodes, uint64_t room);

uint32_t world_held_by(const struct world *world, int index);
/* Experts without a copy in the last map. */
size_t world_unplaced(const struct world *world);
/* Is the node named for this expert? */
bool world_listed(const struct cad_map *map, const char *id, uint32_t cell);

#endif
