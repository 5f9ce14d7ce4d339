/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the answer of a stream goes: a gRPC call (grpc.c); another protocol is another sink.
 *
 * Functions run on the reactor's thread, one at a time, in the order of the answer: any number of
 * pieces, then `end` or `fail`, once; or neither, when the client has gone and rt_stream_close was
 * called. After that, the stream no longer uses the sink. They do not block, and may not call the
 * stream's functions.
 *
 * piece and end return CAD_OK; CAD_FULL: taken, but send no more until rt_stream_writable (which
 * may never come, if the client is about to go); or a failure and a sentence: nothing was sent, and
 * `fail` follows. Their arguments belong to the stream, and are valid during the call.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_SINK_H
#define CADRE_ROUTER_SVC_FRONTEND_SINK_H

#include "router-svc/frontend/routing.h"

/* Routing arrives no later than the tokens that it led to. */
struct rt_piece {
	const int32_t *ids; /* [ids_count] */
	size_t ids_count;
	const uint8_t *digest; /* [16] after the ids; NULL: no ids, or the end has it */
	const char *text;      /* [text_size], and terminated; NULL: none is certain yet */
	size_t text_size;
	/* rows routing_first .. routing_first + routing_rows - 1 of a copy; NULL: none */
	const struct rt_routing *routing;
	uint32_t routing_first, routing_rows;
};

struct rt_end {
	enum rt_finish_reason reason;
	struct rt_usage usage;
	uint8_t digest[16];
};

struct rt_sink {
	enum cad_status (*piece)(void *context, const struct rt_piece *piece, struct cad_error *error);
	/* The last piece, which may hold nothing, and how the answer ended. */
	enum cad_status (*end)(
		void *context, const struct rt_piece *piece, const struct rt_end *end, struct cad_error *error);
	/* CAD_ERR_CANCELLED: not by the client, but because the engine stops. */
	void (*fail)(void *context, enum cad_status status, const char *sentence);
};

#endif
