/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/recorder.h"

#include <stdlib.h>

struct pl_recording {
	struct cad_rpc_call *call;
	uint64_t tokens_max, until_ns; /* 0: no limit */
	uint64_t seen, sent, lost;     /* tokens: of routers, recorded, left out */
	bool full;                     /* the call's out queue is */
};

static void send_part(struct pl_recording *recording, const Cadre__V1__RecordTraceResponse *response)
{
	recording->full = cad_rpc_call_send(recording->call, &response->base) == CAD_FULL;
}

static void send_head(struct pl_recorder *recorder, struct pl_recording *recording)
{
	const struct pl_telemetry_options *o = pl_telemetry_options(recorder->telemetry);
	const struct cad_caller *caller = cad_rpc_call_caller(recording->call);
	Cadre__V1__RecordTraceResponse response = CADRE__V1__RECORD_TRACE_RESPONSE__INIT;
	Cadre__V1__TraceHead head = CADRE__V1__TRACE_HEAD__INIT;

	head.cluster = (char *)o->cluster;
	head.model = (char *)o->model;
	head.n_layers = o->shape.layers_count;
	head.layers = (uint32_t *)(uintptr_t)o->shape.layers;
	head.experts = o->shape.experts;
	head.experts_per_token = o->topk;
	head.recorded_by = (char *)(uintptr_t)(caller->name[0] ? caller->name : caller->peer);
	response.part_case = CADRE__V1__RECORD_TRACE_RESPONSE__PART_HEAD;
	response.head = &head;
	send_part(recording, &response);
}

static void end(struct pl_recording *recording)
{
	Cadre__V1__RecordTraceResponse response = CADRE__V1__RECORD_TRACE_RESPONSE__INIT;
	Cadre__V1__TraceEnd last = CADRE__V1__TRACE_END__INIT;

	last.seen = recording->seen;
	last.lost = recording->lost;
	response.part_case = CADRE__V1__RECORD_TRACE_RESPONSE__PART_END;
	response.end = &last;
	cad_rpc_call_reply(recording->call, &response.base);
}

static struct pl_recording **free_place(struct pl_recorder *recorder)
{
	for (int i = 0; i < PL_RECORDINGS_MAX; i++)
		if (!recorder->recordings[i])
			return &recorder->recordings[i];
	return NULL;
}

void pl_recorder_begin(struct pl_recorder *recorder, struct cad_rpc_call *call,
	const Cadre__V1__RecordTraceRequest *request, uint64_t now_ns)
{
	const struct pl_telemetry_options *o = pl_telemetry_options(recorder->telemetry);
	struct pl_recording **place = free_place(recorder);

	if (o->aggregate) {
		cad_rpc_call_finish(call, CAD_RPC_FAILED_PRECONDITION,
			"routing is not recorded here: the placement service runs with --routing-detail aggregate");
		return;
	}
	if (o->shape.layers_count == 0) {
		cad_rpc_call_finish(call, CAD_RPC_FAILED_PRECONDITION, "the model has no experts to be routed to");
		return;
	}
	struct pl_recording *recording = place ? calloc(1, sizeof *recording) : NULL;
	if (!recording) {
		cad_rpc_call_finish(call, CAD_RPC_RESOURCE_EXHAUSTED,
			place ? "out of memory for a recording" : "%d recordings run already: wait for one to end",
			PL_RECORDINGS_MAX);
		return;
	}

	recording->call = call;
	recording->tokens_max = request->tokens;
	if (request->duration_ms > 0 && request->duration_ms < UINT64_MAX / CAD_NS_PER_MS - now_ns)
		recording->until_ns = now_ns + request->duration_ms * CAD_NS_PER_MS;
	*place = recording;
	cad_rpc_call_set_state(call, recording);
	send_head(recorder, recording);
}

static void record(struct pl_recorder *recorder, struct pl_recording *recording, uint32_t slot,
	const struct pl_routing_report *report)
{
	const struct pl_telemetry_options *o = pl_telemetry_options(recorder->telemetry);
	uint64_t left = recording->tokens_max ? recording->tokens_max - recording->sent : UINT64_MAX;
	size_t count = report->sampled < left ? report->sampled : (size_t)left;
	Cadre__V1__RecordTraceResponse response = CADRE__V1__RECORD_TRACE_RESPONSE__INIT;
	Cadre__V1__TraceTokens tokens = CADRE__V1__TRACE_TOKENS__INIT;

	recording->seen += report->tokens;
	if (count == 0)
		return;
	if (recording->full) {
		recording->lost += count;
		return;
	}
	tokens.router = (char *)(uintptr_t)o->registry->nodes[slot].id;
	tokens.lost = recording->lost;
	tokens.requests = (uint64_t *)(uintptr_t)report->requests;
	tokens.n_requests = count;
	tokens.experts.data = (uint8_t *)(uintptr_t)report->ids;
	tokens.experts.len = count * o->shape.layers_count * o->topk * sizeof *report->ids;
	response.part_case = CADRE__V1__RECORD_TRACE_RESPONSE__PART_TOKENS;
	response.tokens = &tokens;
	recording->sent += count;
	send_part(recording, &response);
}

void pl_recorder_take(struct pl_recorder *recorder, uint32_t slot, const struct pl_routing_report *report)
{
	for (int i = 0; i < PL_RECORDINGS_MAX; i++) {
		struct pl_recording *recording = recorder->recordings[i];
		if (!recording || !cad_rpc_call_is_alive(recording->call))
			continue;
		record(recorder, recording, slot, report);
		if (recording->tokens_max > 0 && recording->sent == recording->tokens_max)
			end(recording);
	}
}

uint64_t pl_recorder_tick(struct pl_recorder *recorder, uint64_t now_ns)
{
	uint64_t next_ns = UINT64_MAX;

	for (int i = 0; i < PL_RECORDINGS_MAX; i++) {
		struct pl_recording *recording = recorder->recordings[i];
		if (!recording || recording->until_ns == 0 || !cad_rpc_call_is_alive(recording->call))
			continue;
		if (now_ns >= recording->until_ns)
			end(recording);
		else if (recording->until_ns < next_ns)
			next_ns = recording->until_ns;
	}
	return next_ns;
}

void pl_recorder_stop(struct pl_recorder *recorder)
{
	for (int i = 0; i < PL_RECORDINGS_MAX; i++)
		if (recorder->recordings[i] && cad_rpc_call_is_alive(recorder->recordings[i]->call))
			end(recorder->recordings[i]);
}

void pl_recorder_writable(struct cad_rpc_call *call)
{
	struct pl_recording *recording = cad_rpc_call_state(call);
	if (recording)
		recording->full = false;
}

void pl_recorder_done(struct pl_recorder *recorder, struct cad_rpc_call *call)
{
	struct pl_recording *recording = cad_rpc_call_state(call);

	for (int i = 0; recording && i < PL_RECORDINGS_MAX; i++)
		if (recorder->recordings[i] == recording)
			recorder->recordings[i] = NULL;
	cad_rpc_call_set_state(call, NULL);
	free(recording);
}
