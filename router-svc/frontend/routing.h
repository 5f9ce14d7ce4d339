/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which experts fired, on its way from the engine's thread to a response: copied out of the event,
 * because the event's arrays live only as long as it does, and written into messages of bounded
 * size.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_ROUTING_H
#define CADRE_ROUTER_SVC_FRONTEND_ROUTING_H

#include "cadre/v1/inference.pb-c.h"
#include "common/rpc/codec.h"
#include "router-svc/request.h"

/* One event's rows; a single block of memory, freed with free(). */
struct rt_routing {
	struct rt_routing *next;
	size_t bytes; /* of the whole block */
	uint32_t first_position, rows, moe_layers, topk;
	uint32_t rows_sent;     /* the reader's own */
	const uint32_t *layers; /* [moe_layers] */
	const int32_t *ids;     /* [rows][moe_layers][topk]; -1: dropped */
	const float *weights;
	const char *const *nodes; /* [rows][moe_layers][topk]; "" for none; into the names of this block */
};

/* The engine's thread. NULL: out of memory. */
struct rt_routing *rt_routing_copy(const struct rt_event *event);

/* Writes up to rows_max rows that have not been sent into arena memory, and counts them as sent. A
 * dropped slot is left out. CAD_ERR_EXHAUSTED: the arena is too small. */
CAD_MUST_USE enum cad_status rt_routing_write(struct rt_routing *routing, uint32_t rows_max,
	struct cad_rpc_arena *arena, Cadre__V1__TokenRouting ***rows, size_t *rows_count);
/* About how many bytes a row takes in a message. */
size_t rt_routing_row_bytes(const struct rt_routing *routing);

#endif
