/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the router generates: for /readyz?generate. A trial is one token that nobody asked for,
 * through everything that a client's goes through: streams, engine, expert nodes, sampling.
 *
 * Whoever asks costs little. Rows that went through within the last RT_TRIAL_KEEP_MS, of a trial or
 * of a client's request, are answer enough; so is a trial that failed within that time. Else one
 * trial runs for all who ask. It ends after RT_TRIAL_MS; when nobody has said so RT_TRIAL_LATE_MS
 * later, something hangs. It is no request: it has a place of its own, and is counted in
 * cadre_router_trials_total alone.
 *
 * rt_trial_ask is for any thread, and never waits: neither the engine's thread nor
 * the reactor's is needed for its answer, so that it says when one of them hangs. The
 * rest is the reactor's thread's.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_TRIAL_H
#define CADRE_ROUTER_SVC_FRONTEND_TRIAL_H

#include "common/base/note.h"
#include "common/rpc/reactor.h"
#include "router-svc/frontend/stream.h"

#include <pthread.h>

enum { RT_TRIAL_MS = 2000, RT_TRIAL_KEEP_MS = 1000, RT_TRIAL_LATE_MS = 1000 };

/* Embedded by its owner; does not move. */
struct rt_trial {
	struct rt_stream_hub *hub;
	uint32_t vocab;
	struct cad_rpc_wakeup begin;
	struct cad_counter *passed, *failed;
	bool over;       /* the reactor's thread: no other is begun */
	uint32_t serial; /* the reactor's thread; others take another token, and so other experts */
	pthread_mutex_t mutex;
	/* Under the mutex. */
	bool running;
	uint64_t begun_ns, ended_ns; /* of the last one; 0: none */
	enum cad_status status;      /* of the last that ended */
	char why[CAD_NOTE_BYTES];
};

void rt_trial_init(struct rt_trial *trial, struct rt_stream_hub *hub, uint32_t vocab, struct cad_rpc_reactor *reactor,
	struct cad_metrics *metrics);
void rt_trial_fini(struct rt_trial *trial);
/* Before the engine goes: none is begun after this. */
void rt_trial_stop(struct rt_trial *trial);

/* CAD_OK: it generates. CAD_AGAIN: a trial is running; ask again soon. Else not, and why. */
CAD_MUST_USE enum cad_status rt_trial_ask(struct rt_trial *trial, char why[CAD_NOTE_BYTES]);

#endif
