/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which experts fired, passed from the engine's thread to the answer: copied out of the event,
 * because the event's arrays live only as long as it does, into a ring that was allocated when the
 * stream was opened.
 *
 *     engine's thread: rt_routing_put --> ring of bytes --> reader's thread: first, drop
 *
 * The ring has room for `waiting_bytes_max` and the two largest copies: if the sequence is paused
 * when that many bytes are waiting, there is always room for the copy of the current step.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_ROUTING_H
#define CADRE_ROUTER_SVC_FRONTEND_ROUTING_H

#include "common/cluster/map.h"
#include "router-svc/request.h"

#include <stdatomic.h>

/* One event's rows, and everything that it points to, in one piece of the ring. */
struct rt_routing {
	size_t bytes;
	uint32_t first_position, rows, moe_layers, topk; /* rows 0: a gap at the end of the ring */
	const uint32_t *layers;                          /* [moe_layers] */
	const int32_t *ids;                              /* [rows][moe_layers][topk]; -1: dropped */
	const float *weights;                            /* the same */
	const uint16_t *nodes;                           /* the same: into names; 0: none */
	const char (*names)[CAD_MAP_ID_BYTES];
};

/* The engine's thread's scratch: which of an event's names have been seen. One for all rings. */
struct rt_routing_names;
CAD_MUST_USE enum cad_status rt_routing_names_create(struct rt_routing_names **names);
void rt_routing_names_destroy(struct rt_routing_names *names); /* NULL is allowed */

struct rt_routing_ring {
	struct rt_routing_names *names;
	uint8_t *bytes; /* NULL: nothing may be put */
	size_t capacity, copy_bytes_max;
	_Atomic size_t written, taken; /* positions that only grow */
};

/* For events of at most rows_max rows. `names` is kept until fini. */
CAD_MUST_USE enum cad_status rt_routing_ring_init(struct rt_routing_ring *ring, struct rt_routing_names *names,
	uint32_t rows_max, uint32_t moe_layers, uint32_t topk, size_t waiting_bytes_max);
void rt_routing_ring_fini(struct rt_routing_ring *ring); /* also takes a zeroed struct */
/* Either thread. */
size_t rt_routing_waiting_bytes(const struct rt_routing_ring *ring);

/* The engine's thread. Allocates nothing. */
void rt_routing_put(struct rt_routing_ring *ring, const struct rt_event *event);
/* The reader's thread. NULL: none waits. Valid until it is dropped. */
const struct rt_routing *rt_routing_first(const struct rt_routing_ring *ring);
/* Whether another is waiting after the first. */
bool rt_routing_more(const struct rt_routing_ring *ring);
void rt_routing_drop(struct rt_routing_ring *ring);

/* The approximate bytes of a row in a message. */
size_t rt_routing_row_bytes(const struct rt_routing *routing);

#endif
