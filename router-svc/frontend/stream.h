/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One Generate: between the engine's thread, which writes tokens, and the reactor's thread, which
 * sends them.
 *
 *     engine's thread                                          reactor's thread
 *     TOKEN ----> ring (RT_STREAM_RING) ------------------+
 *     ROUTING --> list of copies (bounded in bytes) ------+--> GenerateResponse --> the call's
 *     queue --> client FINISHED, FAILED --> end ---------------------------+
 *
 * A stream whose call's queue is full leaves its tokens in the ring. At RT_STREAM_PAUSE_AT the
 * engine's thread pauses the sequence, and the reactor's thread lets it go on when the ring has
 * drained: only the one pauses and only the other resumes, and each sees what the other did before,
 * so that no order of events leaves a sequence asleep.
 *
 * A stream lives until its call is over and the engine's last event for it is in. That event comes
 * over a list of its own, taken before the list of streams that have something: when a stream is
 * known to have ended, neither list nor the engine knows it any more.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_STREAM_H
#define CADRE_ROUTER_SVC_FRONTEND_STREAM_H

#include "router-svc/frontend/frontend.h"
#include "router-svc/frontend/routing.h"
#include "router-svc/frontend/stop_text.h"

enum {
	RT_STREAM_RING = 128,
	RT_STREAM_PAUSE_AT = 64, /* a paused engine may finish the step that it is in, so there is room to spare */
	RT_STREAM_RESUME_AT = 16,
	RT_STREAM_ROUTING_PAUSE_BYTES = 4 << 20,
	RT_STREAM_ROUTING_RESUME_BYTES = 1 << 20,
	RT_STREAM_ROUTING_MESSAGE_BYTES = 256 << 10, /* about; one message of a response */
};

struct rt_stream;

/* What all streams share. Embedded by the front end; does not move. */
struct rt_stream_hub {
	struct rt_frontend_engine engine;
	const struct cad_tokenizer *tokenizer; /* NULL: answers have no text */
	const int32_t *eos_ids;
	uint32_t eos_ids_count;
	const char *capacity_policy;
	float capacity_factor;
	struct cad_counter *ended_by_code[17]; /* by gRPC status */
	struct cad_histogram *first_token_seconds, *total_seconds;

	struct cad_rpc_wakeup wakeup;
	_Atomic(struct rt_stream *) ready; /* have something new; written by the engine's thread */
	_Atomic(struct rt_stream *) ended; /* ... and will have nothing any more */
	_Atomic uint32_t open;             /* with a call */
	uint32_t alive;                    /* not freed yet */
	struct cad_rpc_arena arena;        /* of the response that is being built */
};

/* Reactor's thread. The other fields are filled by the caller. */
void rt_stream_hub_init(struct rt_stream_hub *hub, struct cad_rpc_reactor *reactor);
/* Takes what the engine's thread has left and sends it. Also the last thing before fini, when that
 * thread is gone. */
void rt_stream_hub_collect(struct rt_stream_hub *hub);
void rt_stream_hub_fini(struct rt_stream_hub *hub); /* every stream must be gone */

/* Hands the request to the engine and ties the stream to the call (its state). On failure the call
 * is as before. */
CAD_MUST_USE enum cad_status rt_stream_open(struct rt_stream_hub *hub, struct cad_rpc_call *call,
	const Cadre__V1__GenerateRequest *message, struct rt_request *request, struct cad_error *error);
/* The call's callbacks. `code`: how a call ended that the stream did not end. */
void rt_stream_writable(struct rt_stream *stream);
void rt_stream_call_done(struct rt_stream *stream, enum cad_rpc_code code);

/* The engine's thread. */
void rt_stream_event(const struct rt_event *event);

#endif
