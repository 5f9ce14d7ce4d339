/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cadre.v1.Placement over gRPC: Join streams of routers and expert nodes, watchers of the map, and
 * the cluster's status.
 *
 * It translates between messages and control.h, and keeps control's deadlines with a timer.
 * Everything runs on the owner thread of the reactor (common/rpc/rpc.h) and does not block but for
 * the state file, except pl_service_ready, which any thread may ask.
 *
 * Order at the end: pl_service_drain, and when it has called back: destroy the reactor,
 * pl_service_destroy.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_SERVICE_H
#define CADRE_ORCHESTRATION_PLACEMENT_SERVICE_H

#include "common/process/metrics.h"
#include "common/rpc/authorize.h"
#include "common/rpc/server.h"
#include "orchestration/placement/checkpoint.h"
#include "orchestration/placement/control.h"

struct pl_service;

struct pl_service_options {
	struct cad_rpc_reactor *reactor; /* borrowed, as everything here */
	const char *cluster;
	const char *secret; /* the cluster's; NULL: none is asked for, and who has one is refused */
	struct cad_rpc_callers callers;
	struct pl_checkpoint *checkpoint;
	struct cad_metrics *metrics; /* NULL: none */
	/* its times and limits; shape, events, state and the rest are filled in here */
	struct pl_control_options control;
	uint32_t routing_tokens; /* of live routing, kept for plans; 0: none */
	double routing_half_life_s;
	bool routing_aggregate; /* nothing is known of single tokens and experts */
	struct pl_state *state;
	const struct cad_clock *clock;
};

CAD_MUST_USE enum cad_status pl_service_create(
	const struct pl_service_options *options, struct pl_service **service, struct cad_error *error);
/* Before start; see cad_rpc_server_listen. */
CAD_MUST_USE enum cad_status pl_service_listen(struct pl_service *service, const char *address,
	const struct cad_tls_files *tls, uint16_t *port, struct cad_error *error);
void pl_service_start(struct pl_service *service);
/* Ends every stream and call; then done(context). Once. Nodes and routers continue with the last
 * map, and join the next service. */
void pl_service_drain(struct pl_service *service, void (*done)(void *context), void *context);
void pl_service_destroy(struct pl_service *service); /* NULL is fine */

/* cad_admin_options.ready: every expert has a place. Any thread. */
bool pl_service_ready(void *service, char *text, size_t bytes);

#endif
