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
#include "orchestration/placement/auto.h"
#include "orchestration/placement/door.h"
#include "orchestration/placement/history.h"
#include "orchestration/placement/plan_thread.h"
#include "orchestration/placement/probe.h"
#include "orchestration/placement/rebalance.h"
#include "orchestration/placement/recorder.h"
#include "orchestration/placement/rebalance_metrics.h"
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
	struct pl_recorder recorder;
	struct pl_history *history;
	struct pl_rebalance_table *rebalance_table;
	struct pl_rebalances *rebalances;
	struct pl_plan_thread plan_thread;
	struct pl_auto automatic;
	struct pl_rebalance_metrics rebalance_metrics;
	bool uploading; /* a rebalance is being sent: one at a time */
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
	bool draining, server_gone, timer_gone, probes_gone, plan_thread_gone;
	void (*drained)(void *context);
	void *drained_context;
	pthread_mutex_t ready_lock;
	bool ready; /* under the lock, as the text */
	char ready_text[PL_READY_TEXT_BYTES];
};

/* ---- turns (service.c) ---- */

/* Soon, once, however many reports have come until then. */
void pl_service_turn_soon(struct pl_service *service);

/* The code of an answer that says no. */
enum cad_rpc_code pl_service_code(enum cad_status status);

/* ---- the history (service_history.c) ---- */

enum { PL_WHO_BYTES = CAD_ADDRESS_HOST_BYTES };
/* Who calls, for the history: a name, or where the call comes from. */
void pl_service_who(const struct cad_rpc_call *call, char who[PL_WHO_BYTES]);
void pl_service_get_history(struct cad_rpc_call *call, const ProtobufCMessage *message);

/* ---- rebalances (service_rebalance.c) ---- */

CAD_MUST_USE enum cad_status pl_service_rebalances_create(struct pl_service *service, struct cad_error *error);
/* Last, when nothing can fail any more; its end is pl_plan_thread_close. */
void pl_service_rebalances_begin(struct pl_service *service);
/* After control's turn; returns when it is due again. */
uint64_t pl_service_rebalances_turn(struct pl_service *service);
void pl_service_rebalances_destroy(struct pl_service *service);
/* What every change has: CAD_ERR_INVALID when the reason is too long. change may be NULL. */
CAD_MUST_USE enum cad_status pl_service_change(
	const Cadre__V1__Change *change, bool *dry_run, const char **reason, struct cad_error *error);
void pl_service_start_rebalance_start(struct cad_rpc_call *call);
void pl_service_start_rebalance_message(struct cad_rpc_call *call, const ProtobufCMessage *message);
void pl_service_start_rebalance_half_close(struct cad_rpc_call *call);
void pl_service_start_rebalance_done(struct cad_rpc_call *call, bool cancelled);
void pl_service_get_rebalance(struct cad_rpc_call *call, const ProtobufCMessage *message);
void pl_service_change_rebalance(struct cad_rpc_call *call, const ProtobufCMessage *message);
void pl_service_apply_map(struct cad_rpc_call *call, const ProtobufCMessage *message);
void pl_service_get_placement(struct cad_rpc_call *call, const ProtobufCMessage *message);
void pl_service_get_auto(struct cad_rpc_call *call, const ProtobufCMessage *message);
void pl_service_set_auto(struct cad_rpc_call *call, const ProtobufCMessage *message);

/* ---- single nodes and experts (service_rules.c) ---- */

void pl_service_drain_node(struct cad_rpc_call *call, const ProtobufCMessage *message);
void pl_service_set_pin(struct cad_rpc_call *call, const ProtobufCMessage *message);
void pl_service_set_copies(struct cad_rpc_call *call, const ProtobufCMessage *message);

/* ---- recordings (service_record.c) ---- */

void pl_service_record_begin(struct cad_rpc_call *call, const ProtobufCMessage *message);
void pl_service_record_done(struct cad_rpc_call *call, bool cancelled);

#endif
