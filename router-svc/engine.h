/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The router's engine: sequences in, tokens out. It owns the batch, the KV cache, the gate, the
 * exchange with expert nodes and sampling; it knows nothing of gRPC, text or tokenizers.
 *
 * Threads. One thread runs the engine (`rt_engine_run`, or `rt_engine_turn` in a loop of the
 * caller's). Submit, cancel, pause and stop may be called from any thread, an event's handler among
 * them; map too, but by one thread at a time. They do not wait for the engine (inbox.h). Events
 * come on the engine's thread, inside run or turn, through `on_event`; the handler must not block.
 *
 * Memory. All of the step's memory is allocated at creation. Submit allocates for its request, on
 * the thread that calls it, which also frees what ended before. The engine's thread itself
 * allocates and frees nothing; allocations there can come only from the handler of events, the
 * transport's link while it connects (UCX: at any time), and the log's C library.
 *
 * Same bits: the logits of a sequence depend on its tokens alone. A sequence that loses its KV
 * pages to others is computed again, with equal bits.
 */
#ifndef CADRE_ROUTER_SVC_ENGINE_H
#define CADRE_ROUTER_SVC_ENGINE_H

#include "common/base/note.h"
#include "common/cluster/map.h"
#include "common/model/model.h"
#include "common/transport/transport.h"
#include "kernels/kernels.h"
#include "router-svc/moe/policies.h"
#include "router-svc/moe/health.h"
#include "router-svc/moe/reach.h"
#include "router-svc/request.h"
#include "router-svc/stages.h"
#include "router-svc/telemetry.h"

struct rt_engine;

struct rt_engine_options {
	const struct cad_model *model; /* borrowed, outlives the engine */
	struct kn_device *device;      /* borrowed */
	struct kn_queue *queue;        /* borrowed; used by the engine's thread only */
	enum cad_weights weights;
	enum cad_kv kv;
	enum cadre_row_type wire;
	const float *quanta; /* [layers]; copied */
	/* identity, secret, clock; the engine fills limits, sizes and callbacks */
	struct cad_transport_options transport;
	/* Creates the transport from those options; the caller chooses its link. */
	enum cad_status (*transport_create)(void *context, const struct cad_transport_options *options,
		struct cad_transport **transport, struct cad_error *error);
	void *transport_context;
	/* The transport's address, at creation and whenever it has changed; on the engine's thread,
	 * with transport_context. May be NULL. */
	void (*on_exchange_address)(void *context, const char *address);
	uint32_t step_tokens_max;  /* rows of one step; 0: 512 */
	uint32_t chunk_tokens_max; /* rows of one sequence in a step; 0: step_tokens_max */
	double step_stretch;       /* of a step by prompts, while others decode (batch/pace.h); 0: no limit */
	uint32_t sequences_max;    /* that run at once; 0: 64 */
	uint32_t queue_max;        /* besides: that wait or are paused; may be 0. Above: CAD_ERR_EXHAUSTED */
	uint32_t context_max;      /* tokens of one sequence; 0: as the model is meant for (cad_model_spec) */
	bool keep_logits;          /* requests may want logits: room for those of the gates is kept */
	bool telemetry;            /* routing is sampled, for a placement service */
	uint64_t kv_bytes;         /* 0: 1 GiB */
	uint32_t micro_batches;    /* 0: two when measured to pay, else one */
	uint32_t call_timeout_ms;  /* an expert call that takes longer is sent again; 0: 10000 */
	uint64_t breaker_p99_ns;   /* a node whose calls take longer is left out (moe/breaker.h); 0: never */
	double hedge_max;          /* extra calls for late ones, as a part of all others (moe/hedge.h); 0: none */
	struct rt_policies policies;
	rt_event_fn *on_event;
	/* On the engine's thread: what rt_engine_reach gives has changed. NULL: nobody asks. */
	void (*on_reach)(void *user);
	void *user;
};

CAD_MUST_USE enum cad_status rt_engine_create(
	const struct rt_engine_options *options, struct rt_engine **engine, struct cad_error *error);
/* Nothing may run or call the engine any longer. Live requests get RT_EVENT_FAILED,
 * ERR_CANCELLED. */
void rt_engine_destroy(struct rt_engine *engine);

/* Any thread; allocates. The sentence says which limit. On OK, exactly one FINISHED or FAILED event
 * follows. `id` is written before any event. */
CAD_MUST_USE enum cad_status rt_engine_submit(
	struct rt_engine *engine, const struct rt_request *request, uint64_t *id, struct cad_error *error);
/* Any thread. The request's pages are free at the next turn, its memory goes with the next submit;
 * FAILED with ERR_CANCELLED follows unless it ended before. Unknown ids are ignored. */
void rt_engine_cancel(struct rt_engine *engine, uint64_t id);
/* Any thread. A paused sequence computes nothing, for slow readers: others have its slot, and its
 * pages when they need them; it comes back in the order of age. From an event's handler it takes
 * effect before the next step. */
void rt_engine_pause(struct rt_engine *engine, uint64_t id, bool paused);
/* Any thread, one at a time. Takes its own reference to the map; an epoch older than the current
 * one is ignored. */
void rt_engine_map(struct rt_engine *engine, struct cad_map *map);
/* Any thread. run returns soon; calls in flight are not waited for. */
void rt_engine_stop(struct rt_engine *engine);

void rt_engine_run(struct rt_engine *engine);
/* One turn: commands, then one step if there is anything to compute; else waits for the exchange or
 * a command until `until_ns`. Returns whether it computed. */
bool rt_engine_turn(struct rt_engine *engine, uint64_t until_ns);

/* The longest prompt + continuation that one sequence may have: as the options say, or what the KV
 * cache holds. */
uint32_t rt_engine_context_max(const struct rt_engine *engine);
/* The most rows of one sequence in a step, and so of one ROUTING event. */
uint32_t rt_engine_rows_max(const struct rt_engine *engine);
/* Over the router's part of the checkpoint, as it was loaded (cad_model_router_checksum). */
const char *rt_engine_weights_checksum(const struct rt_engine *engine);
const struct cad_clock *rt_engine_clock(const struct rt_engine *engine);
/* True when every expert of the current map is held by a connected node. Any thread. */
bool rt_engine_ready(const struct rt_engine *engine);
/* When rows went through all layers the last time, by the engine's clock; 0: never. Any thread. */
uint64_t rt_engine_advanced_ns(const struct rt_engine *engine);
/* What is not there for that, of the expert nodes: "2 of 3 are connected; 'b' at ...: ...". Any
 * thread. */
void rt_engine_missing(const struct rt_engine *engine, char text[CAD_NOTE_BYTES]);

/* NULL: there is none, or the model has no MoE layer. Lives as long as the engine. */
struct rt_telemetry *rt_engine_telemetry(struct rt_engine *engine);

/* Which nodes of the map have no finished hello with this router. One thread at a time; valid until
 * its next call. Times are rt_engine_clock's. */
const struct rt_reach_view *rt_engine_reach(struct rt_engine *engine);
/* What it leaves out of its choice of nodes; the same. */
const struct rt_health_view *rt_engine_health(struct rt_engine *engine);

/* Counters for metrics, status and benchmarks; any thread may read them, each is consistent by
 * itself. */
struct rt_engine_stats {
	uint64_t steps, tokens_prefilled, tokens_generated, requests, finished, failed, cancelled, preempted;
	uint64_t calls, calls_retried, bytes_sent, bytes_received, nodes_touched, routed_rows, dropped, spilled, absent;
	uint64_t stage_ns[RT_STAGE_COUNT];
	uint64_t calls_late, calls_hedged, hedges_won, hedges_refused, hedge_calls, probes, rows_diverted,
		breakers_opened; /* moe/exchange.h */
	uint64_t call_p99_ns;    /* of the node with the slowest calls; 0: not known */
	uint32_t running, waiting, paused, kv_pages, kv_pages_free, connections, unreached, breakers, open_copies;
	uint64_t epoch;
};
void rt_engine_stats(const struct rt_engine *engine, struct rt_engine_stats *stats);
/* [layers][experts]. Any thread; the arrays live as long as the engine. */
const struct rt_expert_counts *rt_engine_expert_counts(const struct rt_engine *engine);

#endif
