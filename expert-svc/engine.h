/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The expert engine: weights of the experts that this node holds, and the step that answers calls.
 * cadre-expert runs it behind the UCX exchange; the embedded form (cadre-router --local-experts,
 * cadrectl) links it in and reaches it through the in-process link (common/transport/local.h).
 *
 * Two ways to run. INLINE: ex_engine_request computes in the caller's thread and answers before it
 * returns; no threads are started. THREADED: a compute thread takes whatever requests have arrived,
 * from any number of routers, and computes those of one layer together; the exchange thread calls
 * ex_engine_deliver after each poll to send the answers.
 *
 * Threads. ex_engine_request, ex_engine_deliver and ex_engine_connection_lost belong to the thread
 * that polls the transport. Loading and freeing may be done by any threads while requests are
 * served; a step sees an expert either completely or not at all. After creation, only weights are
 * allocated. Model, device, settings, metrics and clock must outlive the engine.
 */
#ifndef CADRE_EXPERT_SVC_ENGINE_H
#define CADRE_EXPERT_SVC_ENGINE_H

#include "common/base/clock.h"
#include "common/base/workers.h"
#include "common/process/metrics.h"
#include "common/model/model.h"
#include "common/cluster/settings.h"
#include "common/transport/transport.h"
#include "expert-svc/store/memory.h"
#include "expert-svc/store/weight_store.h"
#include "expert-svc/work.h"
#include "kernels/kernels.h"

struct ex_engine;

enum ex_engine_mode { EX_ENGINE_INLINE, EX_ENGINE_THREADED };

struct ex_engine_options {
	enum ex_engine_mode mode;
	const struct cad_model *model;
	struct kn_device *device;
	/* INLINE may borrow the caller's queue; NULL: one of `threads` threads is made */
	struct kn_queue *queue;
	unsigned threads;                    /* 0: kn_threads_default() */
	const struct cad_settings *settings; /* weights and quanta; profile and layers are checked */
	uint64_t memory_bytes;               /* room for packed weights; 0: no bound */
	uint32_t requests_max;               /* held at once; further calls are answered BUSY */
	/* of one step: they size the activations; a larger call is computed in several steps */
	uint32_t step_rows_max, step_pairs_max;
	bool telemetry;                /* counts by layer and expert (work.h), for a placement service */
	const struct cad_clock *clock; /* NULL: the system's */
	struct cad_metrics *metrics;   /* NULL: none are kept */
	/* THREADED: answers are waiting, ex_engine_deliver should run (cad_transport_wake); any
	 * thread */
	void (*wake)(void *context);
	void *wake_context;
	/* The device has failed, as step.h has it; in the thread that computes. NULL: there is
	 * nobody to leave for it */
	void (*device_failed)(void *context);
	void *device_failed_context;
};
/* Sensible sizes; model, device, settings and wake are the caller's. */
void ex_engine_options_default(struct ex_engine_options *options);

CAD_MUST_USE enum cad_status ex_engine_create(
	const struct ex_engine_options *options, struct ex_engine **engine, struct cad_error *error);
/* THREADED: no thread runs afterwards, so nobody wakes the exchange any longer, whose transport may
 * go. No request may be held. Once is enough; ex_engine_destroy does it too. */
void ex_engine_stop(struct ex_engine *engine);
/* No request may be held: stop the transport's intake, then poll and deliver until ex_engine_idle.
 * NULL is allowed. */
void ex_engine_destroy(struct ex_engine *engine);

/* How much of the device's memory is for weights (ex_memory_plan), beside what steps take; the log
 * says it. `device` is how it was before the engine was made; memory_bytes and nodes as in struct
 * ex_memory_ask. */
CAD_MUST_USE enum cad_status ex_engine_plan(const struct ex_engine *engine, const struct kn_device_info *device,
	uint64_t memory_bytes, uint32_t nodes, struct ex_memory *memory, struct cad_error *error);
/* Takes the memory that was planned for weights, which bounds them from now on; metrics show the
 * plan. Once, before anything is loaded. CAD_ERR_MEMORY: it is not there any more. */
CAD_MUST_USE enum cad_status ex_engine_reserve(
	struct ex_engine *engine, const struct ex_memory *memory, struct cad_error *error);

/* Packs one expert from the checkpoint; blocks. Loading what is already held is OK.
 * CAD_ERR_EXHAUSTED: no room in memory_bytes; CAD_ERR_RANGE: no such expert. */
CAD_MUST_USE enum cad_status ex_engine_load(
	struct ex_engine *engine, uint32_t layer, uint32_t expert, struct ex_loaded *loaded, struct cad_error *error);
/* The store, for who knows the weights before they are packed, or gives them to other nodes. */
struct ex_store *ex_engine_store(struct ex_engine *engine);
/* Every expert of every MoE layer, each in the engine that is named for it: the embedded form. The
 * log says how far it is. */
struct ex_load_all {
	const struct cad_model *model;
	struct cad_workers *workers;                                                 /* who helps; NULL: nobody */
	struct ex_engine *(*engine)(void *context, uint32_t layer, uint32_t expert); /* from any thread */
	void *engine_context;
};
CAD_MUST_USE enum cad_status ex_engine_load_all(const struct ex_load_all *options, struct cad_error *error);
/* From now on, calls for it are answered NOT_HELD. Returns when no step can touch it any longer and
 * its memory is free. CAD_ERR_NOT_FOUND: not held. */
CAD_MUST_USE enum cad_status ex_engine_free(struct ex_engine *engine, uint32_t layer, uint32_t expert);
bool ex_engine_holds(const struct ex_engine *engine, uint32_t layer, uint32_t expert);
uint32_t ex_engine_held(const struct ex_engine *engine);
uint64_t ex_engine_memory_used(const struct ex_engine *engine);
/* What one expert takes when packed. */
uint64_t ex_engine_expert_bytes(const struct ex_engine *engine);

const struct cad_model *ex_engine_model(const struct ex_engine *engine);

/* The limits that a transport in front of this engine should have. */
void ex_engine_wire_limits(const struct ex_engine *engine, uint32_t rows_max, struct cad_wire_limits *limits);

/* A checked call. Takes the request: it will be answered, here or by ex_engine_deliver. */
void ex_engine_request(struct ex_engine *engine, struct cad_request *request);
/* cad_transport_options.on_request when the transport's `user` is the engine itself. */
void ex_engine_on_request(struct cad_transport *transport, struct cad_request *request);
/* THREADED: sends the answers that are ready. Returns how many. */
size_t ex_engine_deliver(struct ex_engine *engine);
/* The requests of this connection need no longer be computed; they are still answered, which frees
 * them. */
void ex_engine_connection_lost(struct ex_engine *engine, const struct cad_connection *connection);
/* How many requests are held; whether there are none. Any thread. */
uint32_t ex_engine_requests(const struct ex_engine *engine);
bool ex_engine_idle(const struct ex_engine *engine);

/* Totals since creation; any thread. */
struct ex_engine_stats {
	uint64_t calls, rows, pairs, steps, not_held, expired, bad_calls, busy, poisoned_rows;
};
struct ex_engine_stats ex_engine_stats(const struct ex_engine *engine);
/* The same by layer and expert, where there is telemetry; lives as long as the engine. */
const struct ex_work *ex_engine_work(const struct ex_engine *engine);

#endif
