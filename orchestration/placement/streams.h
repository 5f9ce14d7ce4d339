/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streams that are open, of processes (Join) and of watchers of the map (WatchMap), and what is
 * sent over them.
 *
 * Orders are queued, however many there are. Maps and lists of peers may be skipped, because each
 * is whole: who reads slowly gets the newest when there is room again.
 *
 * Embedded by the service. One thread, that of the reactor; nothing blocks. A stream is the state
 * of its call, and ends with it.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_STREAMS_H
#define CADRE_ORCHESTRATION_PLACEMENT_STREAMS_H

#include "cadre/v1/placement.pb-c.h"
#include "common/cluster/map.h"
#include "common/rpc/server.h"
#include "orchestration/placement/control.h"
#include "orchestration/placement/door.h"
#include "orchestration/placement/peers.h"
#include "orchestration/placement/shape.h"
#include "orchestration/placement/telemetry_message.h"

struct pl_stream {
	struct pl_stream *next, *previous;
	struct cad_rpc_call *call;
	uint64_t session; /* of a Join stream that has said hello; 0: none, or no longer */
	bool watches;     /* WatchMap: maps are sent bare */
	bool expert;      /* hears of peers */
	bool full;        /* its out queue is */
	bool map_due, peers_due;
	struct pl_guest guest;
	struct pl_reported reported;
};

struct pl_streams {
	struct pl_stream *first;
	const struct pl_registry *registry; /* whose processes expert nodes hear of */
	struct cad_map *map;                /* what map_message points into */
	Cadre__V1__Map *map_message;        /* NULL before the first map */
	struct pl_peers peers;              /* as expert nodes were told of them */
	bool peers_due;
	uint64_t peers_ns; /* when they were told last */
};

void pl_streams_init(struct pl_streams *streams, const struct pl_registry *registry);
void pl_streams_fini(struct pl_streams *streams); /* zeroed is fine */

/* A call's stream, from its first message on; NULL: there is no memory, and the call is
 * finished. */
struct pl_stream *pl_streams_add(struct pl_streams *streams, struct cad_rpc_call *call, bool watches);
/* The call is done. */
void pl_streams_remove(struct pl_streams *streams, struct pl_stream *stream);
struct pl_stream *pl_streams_find(const struct pl_streams *streams, uint64_t session); /* NULL: none */

/* To everybody. */
void pl_streams_publish(struct pl_streams *streams, struct cad_map *map);
/* Tells expert nodes who may connect when that has changed. Returns when to call again. */
uint64_t pl_streams_tell_peers(struct pl_streams *streams, uint64_t now_ns);
void pl_streams_abort(struct pl_streams *streams, const char *text);

/* To one. There is room again: what is due. */
void pl_stream_writable(struct pl_streams *streams, struct pl_stream *stream);
/* The map of now, if there is one. */
void pl_stream_map(struct pl_streams *streams, struct pl_stream *stream);
void pl_stream_challenge(struct pl_stream *stream, uint8_t mac[CAD_PROOF_BYTES]);
/* And then what a process hears first: the map, and an expert node its peers. */
void pl_stream_welcome(struct pl_streams *streams, struct pl_stream *stream, Cadre__V1__NodeWelcome *welcome);
/* To load experts, or to free them. */
void pl_stream_loads(
	struct pl_stream *stream, const struct pl_shape *shape, const struct pl_load_order *orders, uint32_t count);
void pl_stream_frees(struct pl_stream *stream, const struct pl_shape *shape, const uint32_t *cells, uint32_t count);
void pl_stream_standing(struct pl_stream *stream, bool counts, const char *why);

#endif
