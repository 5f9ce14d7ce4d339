/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One answer on its way: between the engine's thread, which writes tokens, and the reactor's
 * thread, which gives them to a sink (sink.h). Knows neither gRPC nor protobuf.
 *
 *     engine's thread                                    reactor's thread
 *     TOKEN ----> ring of tokens (RT_STREAM_RING) ---+--> text, stop strings (answer.h) --> sink
 *     ROUTING --> ring of copies (routing.h) --------+
 *     FINISHED, FAILED --> end ----------------------+
 *
 * A stream whose sink is full leaves its tokens in the ring. At RT_STREAM_PAUSE_AT the engine's
 * thread pauses the sequence, and the reactor's thread resumes it when the ring has drained: only
 * the one pauses and only the other resumes, and each sees what the other did before, so that no
 * order of events leaves a sequence asleep. A paused sequence computes nothing from the next step
 * on, so neither ring can overflow.
 *
 * A stream lives until its sink has the end, or is gone, and the engine's last event for it has
 * arrived. That event comes over a list of its own, taken before the list of streams that have
 * something: when a stream is known to have ended, neither list nor the engine knows it any longer.
 *
 * The last token waits for the end, which follows at once, and goes with it: whoever has all tokens
 * of an answer has its end.
 *
 * The engine's thread allocates nothing here: a stream's memory is taken when it is opened.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_STREAM_H
#define CADRE_ROUTER_SVC_FRONTEND_STREAM_H

#include "common/base/clock.h"
#include "common/process/metrics.h"
#include "router-svc/frontend/answer.h"
#include "router-svc/frontend/sink.h"

enum {
	RT_STREAM_RING = 64,
	RT_STREAM_PAUSE_AT = 32, /* a paused engine may finish the step that it is in, so there is room to spare */
	RT_STREAM_RESUME_AT = 8,
	RT_STREAM_ROUTING_PAUSE_BYTES = 4 << 20,
	RT_STREAM_ROUTING_RESUME_BYTES = 1 << 20,
	RT_STREAM_ROUTING_MESSAGE_BYTES = 256 << 10, /* about; one piece of an answer */
};

/* What streams need from an engine (engine.h); tests replace it. */
struct rt_stream_engine {
	void *engine;
	enum cad_status (*submit)(
		void *engine, const struct rt_request *request, uint64_t *id, struct cad_error *error);
	void (*cancel)(void *engine, uint64_t id);
	void (*pause)(void *engine, uint64_t id, bool paused);
	/* When it computed last, for anybody (rt_engine_advanced_ns); NULL: unknown. Any thread. */
	uint64_t (*advanced_ns)(void *engine);
	const struct cad_clock *clock;
	uint32_t context_max;
	uint32_t rows_max; /* of one ROUTING event */
};

struct rt_stream;

struct rt_stream_hub_options {
	struct rt_stream_engine engine;
	uint32_t moe_layers, topk;   /* of ROUTING events */
	void (*wake)(void *context); /* any thread: rt_stream_hub_collect is due */
	void *wake_context;
	/* Observed for completed answers; may be NULL. */
	struct cad_histogram *first_token_seconds, *total_seconds;
};

/* What all streams share. Embedded by its owner; does not move. */
struct rt_stream_hub {
	struct rt_stream_hub_options options;
	struct rt_routing_names *names;
	_Atomic(struct rt_stream *) ready; /* have something new; written by the engine's thread */
	_Atomic(struct rt_stream *) ended; /* ... and will get nothing more */
	_Atomic uint32_t open;             /* with a sink; trials are not counted */
	uint32_t alive;                    /* not freed yet */
	uint32_t alive_most;               /* since memory was given back last */
};

/* Reactor's thread. CAD_ERR_MEMORY. */
CAD_MUST_USE enum cad_status rt_stream_hub_init(struct rt_stream_hub *hub, const struct rt_stream_hub_options *options);
/* Takes what the engine's thread has added and gives it to the sinks. Also the last thing before
 * fini, when that thread is gone. */
void rt_stream_hub_collect(struct rt_stream_hub *hub);
void rt_stream_hub_fini(struct rt_stream_hub *hub); /* every stream must be gone */

/* Hands the request to the engine. Takes what `answer` holds, which is zeroed; `sink` is kept until
 * it has the end, or rt_stream_close; request->context is the stream's. */
CAD_MUST_USE enum cad_status rt_stream_open(struct rt_stream_hub *hub, struct rt_request *request,
	struct rt_answer *answer, const struct rt_sink *sink, void *context, struct rt_stream **stream,
	struct cad_error *error);
uint64_t rt_stream_id(const struct rt_stream *stream); /* the engine's id of the request */
/* The sink has room again. */
void rt_stream_writable(struct rt_stream *stream);
/* The sink is gone: further events of the engine are discarded. */
void rt_stream_close(struct rt_stream *stream);

/* The engine's thread, for requests that were opened here. */
void rt_stream_event(const struct rt_event *event);

#endif
