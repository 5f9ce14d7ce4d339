/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's side of the token exchange: its transport (UCX), the thread that polls it, and what
 * arrives there: calls, which go to the engine, and parts of experts, which are asked for (asker.h)
 * and given (giver.h).
 *
 * Zeroed by its owner, for whom it can be woken, looked at and ended before it is created.
 */
#ifndef CADRE_EXPERT_SVC_EXCHANGE_H
#define CADRE_EXPERT_SVC_EXCHANGE_H

#include "common/base/note.h"
#include "common/cluster/own_address.h"
#include "common/transport/ucx.h"
#include "expert-svc/engine.h"
#include "expert-svc/peers.h"
#include "expert-svc/transfer/asker.h"
#include "expert-svc/transfer/giver.h"

#include <pthread.h>
#include <stdatomic.h>

struct ex_exchange {
	struct cad_transport *transport;
	struct ex_engine *engine; /* borrowed */
	struct kn_device *device; /* borrowed */
	struct ex_asker *asker;
	struct ex_giver *giver;
	struct ex_peers peers;
	struct cad_own_address own_address;
	/* the thread */
	pthread_t thread;
	_Atomic bool stop;
	bool has_served; /* the thread's */
	_Atomic uint64_t beat_ns;
	_Atomic uint32_t connected; /* processes, to this one */
	struct cad_note refusal;    /* of the last router whose hello failed */
	_Atomic uint64_t refused_ns;
	_Atomic uint64_t stats[sizeof(struct cad_transport_stats) / sizeof(uint64_t)];
};

struct ex_exchange_options {
	struct ex_engine *engine;
	struct kn_device *device; /* its workers retire when the first call comes */
	struct cad_metrics *metrics;
	uint32_t load_threads; /* --load-threads */
	/* identity, limits, secret, credits; connections_max: routers. The rest is set here. */
	struct cad_transport_options *transport;
	const struct cad_ucx_options *ucx;
};

/* Counters, which read zero until it is created. */
void ex_exchange_metrics(struct ex_exchange *exchange, struct cad_metrics *metrics);
CAD_MUST_USE enum cad_status ex_exchange_create(
	struct ex_exchange *exchange, const struct ex_exchange_options *options, struct cad_error *error);
CAD_MUST_USE enum cad_status ex_exchange_start(struct ex_exchange *exchange, struct cad_error *error);
/* Answers what was accepted, and ends the thread. */
void ex_exchange_stop(struct ex_exchange *exchange);
/* When nobody wakes it any more. */
void ex_exchange_fini(struct ex_exchange *exchange);

/* Any thread; of an engine: wake, with its exchange. */
void ex_exchange_wake(void *exchange);
/* The processes that may connect. Any thread. */
void ex_exchange_peers(struct ex_exchange *exchange, const char *const *addresses, size_t count);

/* Lately only routers came that it refused, or that refused it: another secret, another cluster.
 * Any thread. */
bool ex_exchange_shunned(struct ex_exchange *exchange, char why[CAD_NOTE_BYTES]);
/* How long its thread has done nothing; 0: it has not begun. Any thread. */
uint64_t ex_exchange_silent_ns(const struct ex_exchange *exchange);

#endif
