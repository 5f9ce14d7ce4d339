/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/grpc.h"

#include "common/base/log.h"

#include <stdlib.h>

enum { ARENA_BYTES = 64 << 20 };

/* A call with a stream: the call's state, and the context of the stream's sink. */
struct tie {
	struct rt_grpc *grpc;
	struct cad_rpc_call *call;
	struct rt_stream *stream;
	uint32_t sent_tokens;
};

/* The call and the stream go ways of their own. */
static void untie(struct tie *tie, enum cad_rpc_code code)
{
	cad_counter_add(tie->grpc->ended_by_code[code], 1);
	cad_log_debug("frontend", "a stream has ended", CAD_U("request", rt_stream_id(tie->stream)),
		CAD_S("code", cad_rpc_code_name(code)), CAD_U("tokens", tie->sent_tokens));
	cad_rpc_call_set_state(tie->call, NULL);
	free(tie);
}

/* ---- the sink ---- */

static enum cad_status send(struct tie *tie, const Cadre__V1__GenerateResponse *message)
{
	tie->sent_tokens += (uint32_t)message->n_token_ids;
	enum cad_status status = cad_rpc_call_send(tie->call, &message->base);
	cad_rpc_arena_reset(&tie->grpc->arena);
	return status == CAD_OK ? CAD_OK : CAD_FULL; /* full, or over: then the call's done follows */
}

static enum cad_status sink_piece(void *context, const struct rt_piece *piece, struct cad_error *error)
{
	struct tie *tie = context;
	Cadre__V1__GenerateResponse message;
	enum cad_status status = rt_message_piece(piece, &tie->grpc->arena, &message, error);
	return status == CAD_OK ? send(tie, &message) : status;
}

static enum cad_status sink_end(
	void *context, const struct rt_piece *piece, const struct rt_end *end, struct cad_error *error)
{
	struct tie *tie = context;
	struct rt_message_end parts;
	Cadre__V1__GenerateResponse message;
	enum cad_status status = rt_message_piece(piece, &tie->grpc->arena, &message, error);
	if (status != CAD_OK)
		return status;

	rt_message_end(end, tie->grpc->capacity_policy, tie->grpc->capacity_factor, &parts, &message);
	(void)send(tie, &message);
	cad_rpc_call_finish(tie->call, CAD_RPC_OK, NULL);
	untie(tie, CAD_RPC_OK);

	return CAD_OK;
}

static void sink_fail(void *context, enum cad_status status, const char *sentence)
{
	struct tie *tie = context;
	enum cad_rpc_code code = status == CAD_ERR_CANCELLED ? CAD_RPC_UNAVAILABLE : cad_rpc_code_of_status(status);
	cad_rpc_arena_reset(&tie->grpc->arena);
	cad_rpc_call_finish(tie->call, code, "%s", sentence);
	untie(tie, code);
}

static const struct rt_sink sink = { .piece = sink_piece, .end = sink_end, .fail = sink_fail };

/* ---- calls ---- */

enum cad_status rt_grpc_open(struct rt_grpc *grpc, struct cad_rpc_call *call, const Cadre__V1__GenerateRequest *message,
	struct rt_request *request, struct cad_error *error)
{
	int64_t left_ms = cad_rpc_call_time_left_ms(call);
	if (left_ms >= 0)
		request->deadline_ns =
			cad_clock_now_ns(grpc->hub->options.engine.clock) + (uint64_t)left_ms * CAD_NS_PER_MS;

	struct tie *tie = malloc(sizeof *tie);
	enum cad_status status =
		tie ? CAD_OK : cad_error_set(error, CAD_ERR_MEMORY, "no memory for another stream; try again later");
	if (status == CAD_OK) {
		*tie = (struct tie){ .grpc = grpc, .call = call };
		status = rt_stream_open(
			grpc->hub, request, message->stop, message->n_stop, &sink, tie, &tie->stream, error);
	}
	if (status != CAD_OK) {
		free(tie);
		rt_grpc_refused(grpc, cad_rpc_code_of_status(status));
		return status;
	}

	cad_rpc_call_set_state(call, tie);
	cad_rpc_call_send_headers(call); /* the client learns that it has been admitted */
	return CAD_OK;
}

void rt_grpc_refused(struct rt_grpc *grpc, enum cad_rpc_code code) { cad_counter_add(grpc->ended_by_code[code], 1); }

void rt_grpc_writable(struct cad_rpc_call *call)
{
	struct tie *tie = cad_rpc_call_state(call);
	if (tie)
		rt_stream_writable(tie->stream);
}

void rt_grpc_done(struct cad_rpc_call *call, bool cancelled)
{
	struct tie *tie = cad_rpc_call_state(call);
	if (!tie) /* it has ended as it should, or never began */
		return;
	struct rt_stream *stream = tie->stream;
	/* by a client that does not read; by the client; by a drain */
	untie(tie,
		cad_rpc_call_is_cut(call) ? CAD_RPC_RESOURCE_EXHAUSTED
			: cancelled       ? CAD_RPC_CANCELLED
					  : CAD_RPC_UNAVAILABLE);
	rt_stream_close(stream);
}

/* ---- life ---- */

void rt_grpc_init(struct rt_grpc *grpc, struct rt_stream_hub *hub, enum rt_capacity_policy policy, float factor,
	struct cad_metrics *metrics)
{
	*grpc = (struct rt_grpc){ .hub = hub, .capacity_policy = policy, .capacity_factor = factor };
	for (size_t code = 0; code < sizeof grpc->ended_by_code / sizeof grpc->ended_by_code[0]; code++)
		grpc->ended_by_code[code] = cad_metrics_counter(metrics, "cadre_router_generate_total",
			"Generate calls that have ended, by gRPC status",
			&(struct cad_label){ "code", cad_rpc_code_name((enum cad_rpc_code)code) }, 1);
	cad_rpc_arena_init(&grpc->arena, ARENA_BYTES);
}

void rt_grpc_fini(struct rt_grpc *grpc) { cad_rpc_arena_reset(&grpc->arena); }
