/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generate over gRPC: calls on one side, streams (stream.h) on the other; the sink of an answer is
 * its call. The reactor's thread.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_GRPC_H
#define CADRE_ROUTER_SVC_FRONTEND_GRPC_H

#include "common/rpc/server.h"
#include "router-svc/frontend/clients.h"
#include "router-svc/frontend/message.h"
#include "router-svc/frontend/stream.h"

struct rt_tie;

/* What all calls share. Embedded by the front end; does not move. */
struct rt_grpc {
	struct rt_stream_hub *hub;
	struct rt_clients clients;
	const char *fingerprint;               /* rt_request_limits.fingerprint, for the first message; borrowed */
	const char *settings;                  /* in words, for the answers; borrowed */
	struct rt_policies policies;           /* the engine's, for the answers */
	struct cad_counter *ended_by_code[17]; /* by gRPC status */
	struct cad_counter *refused_clients;   /* at their limit of streams */
	struct cad_counter *resumed;
	struct cad_rpc_arena arena; /* of the message that is being built */
	struct rt_tie *ties;        /* calls that were admitted */
	char refusal[CAD_ERROR_TEXT_BYTES];
};

/* streams_per_client 0: no limit. */
void rt_grpc_init(struct rt_grpc *grpc, struct rt_stream_hub *hub, const char *fingerprint, const char *settings,
	const struct rt_policies *policies, uint32_t streams_per_client, struct cad_metrics *metrics);
void rt_grpc_fini(struct rt_grpc *grpc);

/* The first thing that a call does: it counts as a stream of its client until it is done. On failure
 * it is counted as ended. */
CAD_MUST_USE enum cad_status rt_grpc_admit(struct rt_grpc *grpc, struct cad_rpc_call *call, struct cad_error *error);
/* Opens a stream for a call that was admitted. On failure the call is as before, and counted as
 * ended. Takes what `answer` holds. */
CAD_MUST_USE enum cad_status rt_grpc_open(struct rt_grpc *grpc, struct cad_rpc_call *call, struct rt_request *request,
	struct rt_answer *answer, struct cad_error *error);
/* No call is admitted from now on, and those with a stream end: UNAVAILABLE and `why`; "": no longer. */
void rt_grpc_refuse(struct rt_grpc *grpc, const char *why);
/* The call ends without a stream. */
void rt_grpc_refused(struct rt_grpc *grpc, enum cad_rpc_code code);
/* The call's callbacks; it may have no stream, or no longer one. */
void rt_grpc_writable(struct cad_rpc_call *call);
void rt_grpc_done(struct cad_rpc_call *call, bool cancelled);

#endif
