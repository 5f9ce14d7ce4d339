/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the service: service.c has its life and its streams, and files of their own have
 * what operators ask. Nothing else includes this.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_SERVICE_INTERNAL_H
#define CADRE_ORCHESTRATION_PLACEMENT_SERVICE_INTERNAL_H

#include "cadre/v1/placement.pb-c.h"
#include "common/rpc/health.h"
#include "common/rpc/reflection.h"
#include "orchestration/placement/door.h"
#include "orchestration/placement/history.h"
#include "orchestration/placement/probe.h"
#include "orchestration/placement/service.h"
#include "orchestration/placement/status.h"
#include "orchestration/placement/status_telemetry.h"
#include "orchestration/placement/streams.h"

#include <pthread.h>
#include <uv.h>

enum { PL_READY_TEXT_BYTES = 320, PL_PEER_BYTES = 128 };

struct pl_service {
	struct pl_service_options options;
	struct cad_rpc_server *server;
	struct cad_rpc_health *health;
	struct cad_rpc_reflection *reflection;
	struct cad_rpc_service rpc;
	struct pl_control *control;
	struct pl_telemetry *telemetry;
	struct pl_telemetry_metrics *telemetry_metrics;
	struct pl_history *history;
	struct pl_door door;
	struct cad_rpc_authorizer authorizer;
	struct cad_counter *refused_secret; /* NULL: no metrics */
	uv_timer_t timer;                   /* the next turn */
	struct pl_probes probes; /* of hosts whose streams broke, or that have not come back after a restart */
	struct pl_streams streams;
	uint64_t sessions; /* that were given out */
	uint64_t started_ns;
	char settings_fingerprint[33], settings_text[CADRE_TEXT_BYTES];
	struct pl_status_metrics metrics;
	bool draining, server_gone, timer_gone, probes_gone;
	void (*drained)(void *context);
	void *drained_context;
	pthread_mutex_t ready_lock;
	bool ready; /* under the lock, as the text */
	char ready_text[PL_READY_TEXT_BYTES];
};

/* ---- turns (service.c) ---- */

/* Soon, once, however many reports have come until then. */
void pl_service_turn_soon(struct pl_service *service);

/* ---- the history (service_history.c) ---- */

enum { PL_WHO_BYTES = CAD_ADDRESS_HOST_BYTES };
/* Who calls, for the history: a name, or where the call comes from. */
void pl_service_who(const struct cad_rpc_call *call, char who[PL_WHO_BYTES]);
void pl_service_get_history(struct cad_rpc_call *call, const ProtobufCMessage *message);

#endif
