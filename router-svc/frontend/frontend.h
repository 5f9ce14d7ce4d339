/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The router's gRPC front end: cadre.v1.Inference, health and reflection.
 *
 * It checks requests, turns text into tokens and tokens into text, finds stop strings, and holds
 * the streams between the engine and the clients. It computes nothing. Functions run on the
 * reactor's owner thread (common/rpc/rpc.h) and do not block, except rt_frontend_on_event, which
 * the engine calls on its own thread.
 *
 * Each stream has a bounded ring of tokens between the two threads: a client that reads slowly
 * fills its gRPC queue, then the ring, and then its sequence is paused in the engine until it reads
 * again; no other stream notices. A client that cancels, disconnects or runs into its deadline
 * releases everything at the engine's next turn.
 *
 * Order at the end: rt_frontend_drain, and when it is done: stop and destroy the engine, destroy
 * the reactor, rt_frontend_destroy.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_FRONTEND_H
#define CADRE_ROUTER_SVC_FRONTEND_FRONTEND_H

#include "common/process/metrics.h"
#include "common/model/model.h"
#include "common/tokenizer/tokenizer.h"
#include "common/rpc/authorize.h"
#include "common/rpc/server.h"
#include "router-svc/engine.h"
#include "router-svc/frontend/stream.h"

struct rt_frontend;

struct rt_stream_engine rt_frontend_engine(struct rt_engine *engine);

struct rt_frontend_options {
	struct cad_rpc_reactor *reactor;       /* borrowed */
	struct rt_stream_engine engine;        /* its on_event is rt_frontend_on_event */
	const struct cad_model *model;         /* borrowed */
	const struct cad_tokenizer *tokenizer; /* borrowed; NULL: text is refused, tokens are served */
	const char *settings_fingerprint;      /* copied, as the next */
	const char *settings;                  /* cad_settings_text, for the answers */
	struct rt_policies policies;           /* the engine's, for the answers */
	struct cad_rpc_callers callers;
	uint32_t stall_ms;           /* a call whose client takes nothing for so long ends; 0: never */
	uint32_t streams_per_client; /* Generate calls of one client at a time; 0: no limit */
	uint32_t calls_max;          /* concurrent gRPC calls, all methods; 0: 10000 */
	struct cad_metrics *metrics; /* borrowed, not rendered after destroy; NULL: none */
};

CAD_MUST_USE enum cad_status rt_frontend_create(
	const struct rt_frontend_options *options, struct rt_frontend **frontend, struct cad_error *error);
/* Before start; see cad_rpc_server_listen. */
CAD_MUST_USE enum cad_status rt_frontend_listen(struct rt_frontend *frontend, const char *address,
	const struct cad_tls_files *tls, uint16_t *port, struct cad_error *error);
void rt_frontend_start(struct rt_frontend *frontend);
/* What health says about "" and "cadre.v1.Inference"; false at first. */
void rt_frontend_set_serving(struct rt_frontend *frontend, bool serving);
/* From now on Generate ends with UNAVAILABLE and this sentence, also where it waits already; "": no
 * longer. */
void rt_frontend_refuse(struct rt_frontend *frontend, const char *why);
/* From now on requests for return_routing are refused, or no longer; those that run go on. */
void rt_frontend_aggregate(struct rt_frontend *frontend, bool aggregate);
/* Whether tokens come out: rt_trial_ask (trial.h). Any thread, until the reactor is destroyed. */
CAD_MUST_USE enum cad_status rt_frontend_generates(struct rt_frontend *frontend, char why[CAD_NOTE_BYTES]);
/* Streams that are open now. */
uint32_t rt_frontend_streams(const struct rt_frontend *frontend);
/* No new calls; running ones have grace_ms, then they end with UNAVAILABLE; then done(context).
 * Once. */
void rt_frontend_drain(struct rt_frontend *frontend, unsigned grace_ms, void (*done)(void *context), void *context);
/* After drain has called back and the engine is gone. NULL is allowed. */
void rt_frontend_destroy(struct rt_frontend *frontend);

/* The engine's on_event (`user` is ignored): for requests that this front end submitted. The
 * engine's thread. */
void rt_frontend_on_event(void *user, const struct rt_event *event);

#endif
