/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where rows can go now: the current map, and a connection to every live node in it. The engine's
 * thread owns it; nothing blocks.
 *
 * A connection that is lost or refused is tried again with a growing, jittered delay, as long as
 * the map calls its node live. The connection to a node that the map no longer names is closed once
 * it has no shipments left (they fail at the latest by their deadlines). Which nodes cannot be
 * reached is told through a reach.h, for the placement service.
 */
#ifndef CADRE_ROUTER_SVC_MOE_ROUTE_TABLE_H
#define CADRE_ROUTER_SVC_MOE_ROUTE_TABLE_H

#include "common/base/address.h"
#include "common/base/clock.h"
#include "common/base/note.h"
#include "common/cluster/map.h"
#include "common/transport/transport.h"
#include "router-svc/moe/breaker.h"
#include "router-svc/moe/latency.h"
#include "router-svc/moe/reach.h"

struct rt_peer {
	char id[CAD_MAP_ID_BYTES], address[CAD_EXCHANGE_ADDRESS_BYTES];
	char place[CAD_ADDRESS_BYTES];     /* the part of the address that is for people */
	struct cad_connection *connection; /* NULL: none now */
	bool wanted;                       /* the current map names it as live */
	bool ready;
	uint32_t shipments, pairs; /* under way */
	uint32_t late;             /* of these */
	uint64_t late_ns;          /* since when one is; clock time */
	struct rt_latency latency;
	struct rt_breaker breaker;
	/* how long a call waits there, by its last answers, at that time; what a pair takes it */
	uint64_t wait_ns, wait_at_ns, pair_ns;
	uint64_t bytes_sent, bytes_received; /* since telemetry was told last */
	uint64_t heard_ns; /* not ready: when something was heard of it last, or when it was first wanted */
	uint64_t retry_at_ns;
	uint32_t delay_ms;
	bool refused;             /* its last connection, by a hello */
	char why[CAD_NOTE_BYTES]; /* it has no connection; empty: none has failed */
};

/* The load of a pair on a node of average speed, and on the slowest that can be told apart. */
enum { RT_LOAD_PAIR = 256, RT_LOAD_PAIR_MAX = 64 * RT_LOAD_PAIR, RT_TIERS = 3 };

struct rt_route_table {
	struct cad_transport *transport;
	struct cad_map *map; /* NULL: none yet */
	size_t unplaced;     /* experts that no node of the map holds */
	/* [CAD_ROUTER_CONNECTIONS_MAX], peers_count used; entries are reused
	 * when nothing refers to them */
	struct rt_peer *peers;
	uint32_t peers_count;
	int16_t *node_peer;   /* [CAD_NODES_MAX]: peer of a node of the map; -1: none */
	uint64_t *node_ready; /* a set of CAD_NODES_MAX nodes */
	/* Of this layer, where `favours`: the ready nodes of which nothing is late, and whose
	 * breaker is closed; those, and others of which something has not been late for long; all.
	 * A later set is for experts that no earlier one has. */
	uint64_t *node_tiers[RT_TIERS];
	bool favours;
	uint64_t now_ns;          /* when they were made */
	uint32_t late;            /* shipments under way that are late, of all nodes */
	uint32_t breakers;        /* of wanted peers, that are not closed */
	uint64_t breakers_opened; /* how often */
	uint64_t breaker_p99_ns;  /* opens one; 0: no time does */
	struct rt_open_copies open_copies;
	struct rt_latency latency; /* of all nodes, for those of which too little is known */
	/* [CAD_NODES_MAX]: node_unit for each pair of this layer, and for each that the node has to
	 * do more than others; in the lower digits, which node has had more to do so far */
	uint32_t *node_load;
	uint32_t *node_unit;         /* [CAD_NODES_MAX]: RT_LOAD_PAIR, more on a slow node */
	uint32_t unit_least;         /* of all of them */
	uint64_t *node_pairs;        /* [CAD_NODES_MAX]: pairs since this map arrived, by their units */
	uint64_t *node_booked;       /* a set: to which rows of this layer go */
	uint64_t pairs;              /* under way to all peers */
	uint64_t waits_until_ns;     /* until then some node may have a queue */
	float load_calm, load_point; /* of this layer (common/cluster/cover.h) */
	struct cad_random random;
	uint64_t version;        /* goes up when something has become possible: look again at what waits */
	_Atomic bool ready;      /* every expert of the map is held by a connected node; read by any thread */
	bool was_ready;          /* once */
	struct cad_note missing; /* what is not there for that, by any thread; empty when ready */
	uint32_t unreached;      /* nodes of the map */
	struct rt_reach *reach;
	/* After reach was published with another map, or because other nodes
	 * are reached. May be NULL. */
	void (*on_reach)(void *context);
	void *on_reach_context;
};

CAD_MUST_USE enum cad_status rt_route_table_init(struct rt_route_table *table, struct cad_transport *transport);
void rt_route_table_fini(struct rt_route_table *table); /* before the transport is destroyed */

/* Takes the reference. Returns the reference that is no longer needed, for the caller to release:
 * to the previous map, or to this one if its epoch is not higher; NULL: none. */
CAD_MUST_USE struct cad_map *rt_route_table_map(struct rt_route_table *table, struct cad_map *map);
/* What the transport reports; `peer` is the connection's user pointer. */
void rt_route_table_connection(struct rt_route_table *table, struct rt_peer *peer, enum cad_connection_state state,
	enum cad_status status, const char *text);
/* Starts what is due. Returns when to call again (clock time); UINT64_MAX: not before something
 * happens. */
uint64_t rt_route_table_tick(struct rt_route_table *table);

/* Begins a layer, with this many (row, expert) pairs to choose for. Needs a map. */
void rt_route_table_begin(struct rt_route_table *table, uint32_t pairs);
/* Chooses a node for each expert of a row (common/cluster/cover.h) and books the row on it. A
 * node that is not favoured is taken for the experts that no favoured one holds. Returns whether
 * the row has an expert of which a node that is not favoured holds a copy, and a favoured one
 * was taken. */
bool rt_route_table_choose(
	struct rt_route_table *table, uint32_t layer, const int32_t *experts, uint32_t k, uint16_t *nodes);
/* The same among favoured nodes only. Returns whether they hold all of the experts. */
bool rt_route_table_choose_copies(
	struct rt_route_table *table, uint32_t layer, const int32_t *experts, uint32_t k, uint16_t *nodes);
/* A call to a node was sent, with so many pairs. */
void rt_route_table_sent(struct rt_route_table *table, struct rt_peer *peer, uint32_t pairs);
/* How it ended. */
struct rt_call_end {
	bool failed, took, answered; /* took: `ns` says something about such calls */
	uint32_t rows, pairs;
	uint64_t now_ns;
	uint64_t ns, queue_ns, compute_ns; /* here; answered in time: waiting and computing, there */
};
void rt_route_table_ended(struct rt_route_table *table, struct rt_peer *peer, const struct rt_call_end *end);
/* A node says that it does not hold an expert which the map gives it. Returns whether somebody
 * else may be asked at once. */
bool rt_route_table_not_held(struct rt_route_table *table, struct rt_peer *peer, uint32_t layer, uint32_t expert);
/* A node has answered for an expert. */
void rt_route_table_held(struct rt_route_table *table, struct rt_peer *peer, uint32_t layer, uint32_t expert);
/* After so long a call is late; UINT64_MAX: not known. */
uint64_t rt_route_table_late_ns(const struct rt_route_table *table, const struct rt_peer *peer, uint32_t rows);
/* So many more (or fewer) of the shipments under way to a node are late. */
void rt_route_table_late(struct rt_route_table *table, struct rt_peer *peer, int more);
/* Whether a row of this layer was booked on the node. */
static inline bool rt_route_table_booked(const struct rt_route_table *table, uint32_t node)
{
	return cad_map_set_has(table->node_booked, node);
}
/* What 99 of 100 calls to the slowest node of the map do not exceed; 0: not known of any. */
uint64_t rt_route_table_p99_ns(const struct rt_route_table *table);
uint32_t rt_route_table_connections(const struct rt_route_table *table);

#endif
