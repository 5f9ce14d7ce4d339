/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recordings of routing: calls of RecordTrace, each of which gets the samples
 * of all routers as they come.
 *
 * Nothing is kept for a reader: one that does not read fast enough loses tokens, which are counted
 * and told. A recording ends by itself when it has its tokens, or when its time is over.
 *
 * The service's thread; nothing blocks.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_RECORDER_H
#define CADRE_ORCHESTRATION_PLACEMENT_RECORDER_H

#include "cadre/v1/placement.pb-c.h"
#include "common/rpc/server.h"
#include "orchestration/placement/telemetry.h"

enum { PL_RECORDINGS_MAX = 8 };

struct pl_recording;

struct pl_recorder {
	const struct pl_telemetry *telemetry; /* borrowed: shape and names */
	struct pl_recording *recordings[PL_RECORDINGS_MAX];
};

/* A call of RecordTrace; it gets an answer in any case. The recording is the state of the call. */
void pl_recorder_begin(struct pl_recorder *recorder, struct cad_rpc_call *call,
	const Cadre__V1__RecordTraceRequest *request, uint64_t now_ns);
/* The sample of a report (pl_telemetry_options.on_sample). */
void pl_recorder_take(struct pl_recorder *recorder, uint32_t slot, const struct pl_routing_report *report);
/* Ends those whose time is over. Returns when to call again; UINT64_MAX: there is no need. */
uint64_t pl_recorder_tick(struct pl_recorder *recorder, uint64_t now_ns);
/* All of them: the service is stopping. */
void pl_recorder_stop(struct pl_recorder *recorder);
void pl_recorder_writable(struct cad_rpc_call *call);
/* The call is done; its recording is forgotten. */
void pl_recorder_done(struct pl_recorder *recorder, struct cad_rpc_call *call);

#endif
