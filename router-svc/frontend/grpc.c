/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/grpc.h"

#include "common/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_BYTES = 64 << 20 };

/* A call that was admitted: its state until it is done, and the context of its stream's sink. */
struct rt_tie {
	struct rt_grpc *grpc;
	struct cad_rpc_call *call;
	struct rt_client *client;
	struct rt_stream *stream; /* NULL: not yet, or no longer */
	uint32_t sent_tokens, sent_messages;
	struct rt_tie *next, **link; /* of the ties; what points to it */
};

/* The call and the stream go ways of their own. */
static void untie(struct rt_tie *tie, enum cad_rpc_code code)
{
	cad_counter_add(tie->grpc->ended_by_code[code], 1);
	cad_log_debug("frontend", "a stream has ended", CAD_U("request", rt_stream_id(tie->stream)),
		CAD_S("code", cad_rpc_code_name(code)), CAD_U("tokens", tie->sent_tokens));
	tie->stream = NULL;
}

/* ---- the sink ---- */

static enum cad_status send(struct rt_tie *tie, Cadre__V1__GenerateResponse *message)
{
	if (tie->sent_messages++ == 0)
		message->fingerprint = (char *)(uintptr_t)tie->grpc->fingerprint;
	tie->sent_tokens += (uint32_t)message->n_token_ids;
	enum cad_status status = cad_rpc_call_send(tie->call, &message->base);
	cad_rpc_arena_reset(&tie->grpc->arena);
	return status == CAD_OK ? CAD_OK : CAD_FULL; /* full, or over: then the call's done follows */
}

static enum cad_status sink_piece(void *context, const struct rt_piece *piece, struct cad_error *error)
{
	struct rt_tie *tie = context;
	Cadre__V1__GenerateResponse message;
	enum cad_status status = rt_message_piece(piece, &tie->grpc->arena, &message, error);
	return status == CAD_OK ? send(tie, &message) : status;
}

static enum cad_status sink_end(
	void *context, const struct rt_piece *piece, const struct rt_end *end, struct cad_error *error)
{
	struct rt_tie *tie = context;
	struct rt_message_end parts;
	Cadre__V1__GenerateResponse message;
	enum cad_status status = rt_message_piece(piece, &tie->grpc->arena, &message, error);
	if (status != CAD_OK)
		return status;

	rt_message_end(end, &tie->grpc->policies, tie->grpc->settings, &parts, &message);
	(void)send(tie, &message);
	cad_rpc_call_finish(tie->call, CAD_RPC_OK, NULL);
	untie(tie, CAD_RPC_OK);

	return CAD_OK;
}

static void sink_fail(void *context, enum cad_status status, const char *sentence)
{
	struct rt_tie *tie = context;
	enum cad_rpc_code code = status == CAD_ERR_CANCELLED ? CAD_RPC_UNAVAILABLE : cad_rpc_code_of_status(status);
	cad_rpc_arena_reset(&tie->grpc->arena);
	cad_rpc_call_finish(tie->call, code, "%s", sentence);
	untie(tie, code);
}

static const struct rt_sink sink = { .piece = sink_piece, .end = sink_end, .fail = sink_fail };

/* ---- clients ---- */

/* By the name that it showed, else by the host that its call comes from. */
static void name_client(const struct cad_rpc_call *call, char *text, size_t size)
{
	const struct cad_caller *caller = cad_rpc_call_caller(call);
	char host[CAD_ADDRESS_HOST_BYTES];

	cad_address_host(caller->peer, host);
	if (caller->name[0])
		snprintf(text, size, "the client '%s'", caller->name);
	else
		snprintf(text, size, "the client at %s", host);
}

/* ---- who is admitted ---- */

static void link_in(struct rt_tie *tie)
{
	struct rt_tie **first = &tie->grpc->ties;
	tie->link = first;
	tie->next = *first;
	if (tie->next)
		tie->next->link = &tie->next;
	*first = tie;
}

static void link_out(struct rt_tie *tie)
{
	*tie->link = tie->next;
	if (tie->next)
		tie->next->link = tie->link;
}

/* Also of a call whose text has been read meanwhile. */
static enum cad_status check_refusal(const struct rt_grpc *grpc, struct cad_error *error)
{
	return grpc->refusal[0] ? cad_error_set(error, CAD_ERR_UNREACHABLE, "%s", grpc->refusal) : CAD_OK;
}

enum cad_status rt_grpc_admit(struct rt_grpc *grpc, struct cad_rpc_call *call, struct cad_error *error)
{
	char name[300];
	struct rt_client *client;

	enum cad_status status = check_refusal(grpc, error);
	if (status != CAD_OK)
		goto refused;
	name_client(call, name, sizeof name);
	status = rt_clients_enter(&grpc->clients, name, &client, error);
	if (status == CAD_ERR_EXHAUSTED)
		cad_counter_add(grpc->refused_clients, 1);
	if (status != CAD_OK)
		goto refused;

	struct rt_tie *tie = malloc(sizeof *tie);
	if (!tie) {
		rt_clients_leave(&grpc->clients, client);
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory for another stream; try again later");
		goto refused;
	}
	*tie = (struct rt_tie){ .grpc = grpc, .call = call, .client = client };
	link_in(tie);
	cad_rpc_call_set_state(call, tie);
	return CAD_OK;

refused:
	rt_grpc_refused(grpc, cad_rpc_code_of_status(status));
	return status;
}

/* ---- calls ---- */

enum cad_status rt_grpc_open(struct rt_grpc *grpc, struct cad_rpc_call *call, struct rt_request *request,
	struct rt_answer *answer, struct cad_error *error)
{
	int64_t left_ms = cad_rpc_call_time_left_ms(call);
	if (left_ms >= 0)
		request->deadline_ns =
			cad_clock_now_ns(grpc->hub->options.engine.clock) + (uint64_t)left_ms * CAD_NS_PER_MS;

	struct rt_tie *tie = cad_rpc_call_state(call);
	enum cad_status status = check_refusal(grpc, error);
	if (status == CAD_OK)
		status = rt_stream_open(grpc->hub, request, answer, &sink, tie, &tie->stream, error);
	if (status != CAD_OK) {
		rt_grpc_refused(grpc, cad_rpc_code_of_status(status));
		return status;
	}

	if (request->received_count > 0)
		cad_counter_add(grpc->resumed, 1);
	cad_rpc_call_send_headers(call); /* the client learns that it has been admitted */
	return CAD_OK;
}

void rt_grpc_refuse(struct rt_grpc *grpc, const char *why)
{
	snprintf(grpc->refusal, sizeof grpc->refusal, "%s", why);
	if (!why[0])
		return;
	for (struct rt_tie *tie = grpc->ties, *next; tie; tie = next) {
		struct rt_stream *stream = tie->stream;
		next = tie->next;
		if (!stream)
			continue;
		untie(tie, CAD_RPC_UNAVAILABLE);
		rt_stream_close(stream);
		cad_rpc_call_finish(tie->call, CAD_RPC_UNAVAILABLE, "%s", why);
	}
}

void rt_grpc_refused(struct rt_grpc *grpc, enum cad_rpc_code code) { cad_counter_add(grpc->ended_by_code[code], 1); }

void rt_grpc_writable(struct cad_rpc_call *call)
{
	struct rt_tie *tie = cad_rpc_call_state(call);
	if (tie && tie->stream)
		rt_stream_writable(tie->stream);
}

static enum cad_rpc_code code_of_done(const struct cad_rpc_call *call, bool cancelled)
{
	if (cad_rpc_call_is_cut(call))
		return CAD_RPC_RESOURCE_EXHAUSTED;                  /* its client does not read */
	return cancelled ? CAD_RPC_CANCELLED : CAD_RPC_UNAVAILABLE; /* by the client; by a drain */
}

void rt_grpc_done(struct cad_rpc_call *call, bool cancelled)
{
	struct rt_tie *tie = cad_rpc_call_state(call);
	if (!tie) /* it was not admitted */
		return;

	struct rt_stream *stream = tie->stream;
	if (stream) {
		untie(tie, code_of_done(call, cancelled));
		rt_stream_close(stream);
	}
	cad_rpc_call_set_state(call, NULL);
	rt_clients_leave(&tie->grpc->clients, tie->client);
	link_out(tie);
	free(tie);
}

/* ---- life ---- */

void rt_grpc_init(struct rt_grpc *grpc, struct rt_stream_hub *hub, const char *fingerprint, const char *settings,
	const struct rt_policies *policies, uint32_t streams_per_client, struct cad_metrics *metrics)
{
	*grpc = (struct rt_grpc){
		.hub = hub,
		.fingerprint = fingerprint,
		.settings = settings,
		.clients = { .streams_max = streams_per_client },
		.policies = *policies,
	};
	grpc->refused_clients = cad_metrics_counter(metrics, "cadre_router_streams_refused_total",
		"Generate calls refused because their client had --streams-per-client open", NULL, 0);
	grpc->resumed = cad_metrics_counter(metrics, "cadre_router_resumed_total",
		"Generate calls that continued an answer whose stream had broken", NULL, 0);
	for (size_t code = 0; code < sizeof grpc->ended_by_code / sizeof grpc->ended_by_code[0]; code++)
		grpc->ended_by_code[code] = cad_metrics_counter(metrics, "cadre_router_generate_total",
			"Generate calls that have ended, by gRPC status",
			&(struct cad_label){ "code", cad_rpc_code_name((enum cad_rpc_code)code) }, 1);
	cad_rpc_arena_init(&grpc->arena, ARENA_BYTES);
}

void rt_grpc_fini(struct rt_grpc *grpc) { cad_rpc_arena_reset(&grpc->arena); }
