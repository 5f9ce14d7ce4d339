/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC around control.h. */
#include "orchestration/placement/service.h"

#include "common/cluster/settings_message.h"
#include "common/rpc/guard.h"
#include "orchestration/placement/service_internal.h"

#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- turns ---- */

static void on_timer(uv_timer_t *timer);

/* Soon, once, however many reports have come until then. */
void pl_service_turn_soon(struct pl_service *service)
{
	if (!service->draining)
		uv_timer_start(&service->timer, on_timer, 0, 0);
}

static void note_ready(struct pl_service *service)
{
	char text[PL_READY_TEXT_BYTES] = "";
	bool ready = pl_control_ready(service->control, text, sizeof text);
	pthread_mutex_lock(&service->ready_lock);
	service->ready = ready;
	memcpy(service->ready_text, text, sizeof text);
	pthread_mutex_unlock(&service->ready_lock);
}

/* The tag of a probe: slot and pid. */
static void on_refused(void *context, uint64_t tag)
{
	struct pl_service *service = context;
	pl_control_gone(service->control, (uint32_t)(tag >> 32), (uint32_t)tag);
	pl_service_turn_soon(service);
}

static void on_timer(uv_timer_t *timer)
{
	struct pl_service *service = timer->data;
	uint64_t deadline_ns = pl_control_turn(service->control), now_ns = cad_clock_now_ns(service->options.clock);
	uint64_t peers_ns = pl_streams_tell_peers(&service->streams, now_ns);
	uint64_t ask_ns = pl_probes_ask_expected(&service->probes, pl_control_registry(service->control), now_ns);
	uint64_t rebalances_ns = pl_service_rebalances_turn(service);

	deadline_ns = rebalances_ns < deadline_ns ? rebalances_ns : deadline_ns;
	deadline_ns = peers_ns < deadline_ns ? peers_ns : deadline_ns;
	deadline_ns = ask_ns < deadline_ns ? ask_ns : deadline_ns;
	note_ready(service);
	pl_status_metrics_update(&service->metrics, service->control);
	uint64_t record_ns = pl_recorder_tick(&service->recorder, now_ns);
	deadline_ns = record_ns < deadline_ns ? record_ns : deadline_ns;
	uint64_t metrics_ns = pl_telemetry_metrics_update(service->telemetry_metrics, service->telemetry, now_ns);
	deadline_ns = metrics_ns < deadline_ns ? metrics_ns : deadline_ns;
	if (deadline_ns == UINT64_MAX)
		return;
	uint64_t wait_ms = deadline_ns > now_ns ? (deadline_ns - now_ns + CAD_NS_PER_MS - 1) / CAD_NS_PER_MS : 0;
	uv_update_time(cad_rpc_reactor_loop(service->options.reactor));
	uv_timer_start(timer, on_timer, wait_ms, 0);
}

/* ---- what control wants ---- */

static void on_load(void *context, uint64_t session, const struct pl_load_order *orders, uint32_t count)
{
	struct pl_service *service = context;
	struct pl_stream *stream = pl_streams_find(&service->streams, session);
	struct pl_shape shape = pl_checkpoint_shape(service->options.checkpoint);
	if (stream)
		pl_stream_loads(stream, &shape, orders, count);
}

static void on_free(void *context, uint64_t session, const uint32_t *cells, uint32_t count)
{
	struct pl_service *service = context;
	struct pl_stream *stream = pl_streams_find(&service->streams, session);
	struct pl_shape shape = pl_checkpoint_shape(service->options.checkpoint);
	if (stream)
		pl_stream_frees(stream, &shape, cells, count);
}

static void on_publish(void *context, struct cad_map *map)
{
	pl_streams_publish(&((struct pl_service *)context)->streams, map);
}

static void on_close(void *context, uint64_t session, const char *text)
{
	struct pl_stream *stream = pl_streams_find(&((struct pl_service *)context)->streams, session);
	if (!stream)
		return;
	stream->session = 0;
	cad_rpc_call_finish(stream->call, CAD_RPC_ABORTED, "%s", text);
}

static void on_standing(void *context, uint64_t session, bool counts, const char *why)
{
	struct pl_stream *stream = pl_streams_find(&((struct pl_service *)context)->streams, session);
	if (stream)
		pl_stream_standing(stream, counts, why);
}

static enum cad_status on_checksum_asked(void *context, uint32_t cell, char hex[33])
{
	struct pl_service *service = context;
	return pl_checkpoint_checksum(service->options.checkpoint, cell, hex);
}

static void on_did(void *context, const char *what, const char *why, const char *outcome)
{
	struct pl_service *service = context;
	pl_history_add(service->history,
		&(struct pl_history_entry){ .who = PL_HISTORY_SERVICE, .what = what, .why = why, .outcome = outcome });
}

static enum cad_status on_router_checksum_asked(void *context, char hex[33])
{
	struct pl_service *service = context;
	return pl_checkpoint_router_checksum(service->options.checkpoint, hex);
}

static void on_checksum(void *context, uint32_t cell)
{
	struct pl_service *service = context;
	pl_control_checksum(service->control, cell);
	pl_service_turn_soon(service);
}

/* ---- who may not ---- */

/* One that may not even say hello is known by the name that it showed, or by where it is. */
static void on_call_refused(void *context, struct cad_rpc_call *call, const char *why)
{
	struct pl_service *service = context;
	const struct cad_caller *caller = cad_rpc_call_caller(call);
	char host[CAD_ADDRESS_HOST_BYTES];

	if (cad_rpc_call_method(call)->right != CAD_RIGHT_JOIN)
		return;
	cad_address_host(caller->peer, host);
	(void)pl_door_remember(
		&service->door, caller->name[0] ? caller->name : host, why, cad_clock_now_ns(service->options.clock));
}

/* One that did not prove the secret could be anybody, which is for the audit log, too. */
static void refuse_guest(struct pl_service *service, const struct pl_stream *stream, const char *why)
{
	pl_door_refused(&service->door, stream->guest.id, why, cad_clock_now_ns(service->options.clock));
	if (!stream->guest.stranger)
		return;
	if (service->refused_secret)
		cad_counter_add(service->refused_secret, 1);
	cad_audit_write(service->options.callers.audit, CAD_AUDIT_REFUSED, cad_rpc_call_caller(stream->call), "Join",
		stream->guest.id, why);
}

/* ---- Join ---- */

static enum cad_status take_challenge(struct pl_service *service, struct pl_stream *stream,
	const Cadre__V1__Challenge *theirs, struct cad_error *error)
{
	uint8_t mac[CAD_PROOF_BYTES];
	enum cad_status status = pl_door_challenge(&service->door, &stream->guest, theirs, mac, error);
	if (status == CAD_OK)
		pl_stream_challenge(stream, mac);
	return status;
}

static struct pl_speed speed_of(const Cadre__V1__NodeSpeed *message)
{
	return message ? (struct pl_speed){
		.read_bytes_per_second = message->read_bytes_per_second,
		.multiply_adds_per_second = message->multiply_adds_per_second,
		.step_s = message->step_us * 1e-6,
		.given = message->given > 0 ? fmin(fmax(message->given, 1 / PL_SPEED_MAX), PL_SPEED_MAX) : 0,
	} : (struct pl_speed){ 0 };
}

static enum cad_status take_hello(struct pl_service *service, struct pl_stream *stream,
	const Cadre__V1__NodeHello *hello, uint64_t session, struct cad_error *error)
{
	char peer[PL_PEER_BYTES], probe[CAD_MAP_ADDRESS_BYTES];

	cad_rpc_call_peer(stream->call, peer, sizeof peer);
	enum cad_status status = pl_door_hello(
		&service->door, &stream->guest, hello, peer, pl_control_registry(service->control), error);
	if (status != CAD_OK)
		return status;

	status = pl_faults_check(
		&service->door.faults, hello->id, hello->isa, cad_clock_now_ns(service->options.clock), error);
	if (status != CAD_OK)
		return status;

	struct pl_expert *held = malloc((hello->n_held + 1) * sizeof *held);
	if (!held)
		return cad_error_set(
			error, CAD_ERR_MEMORY, "out of memory for a hello that names %zu experts", hello->n_held);
	for (size_t i = 0; i < hello->n_held; i++)
		held[i] = (struct pl_expert){ hello->held[i]->layer, hello->held[i]->expert };
	(void)pl_probe_target(peer, hello->http_address, probe);
	const struct pl_join join = {
		.hello = { .id = hello->id,
			.role = hello->role == CADRE__V1__ROLE__ROLE_EXPERT ? PL_ROLE_EXPERT : PL_ROLE_ROUTER,
			.exchange_address = hello->exchange_address,
			.http_address = hello->http_address,
			.grpc_address = hello->grpc_address,
			.probe_address = probe,
			.kernels_fingerprint = hello->kernels_fingerprint,
			.version = hello->version,
			.isa = hello->isa,
			.memory_bytes = hello->memory_bytes,
			.expert_bytes = hello->expert_bytes,
			.speed = speed_of(hello->speed),
			.threads = hello->threads,
			.pid = hello->pid },
		.identity = { hello->model_fingerprint, hello->settings_fingerprint, hello->settings,
			hello->router_checksum },
		.epoch = hello->epoch,
		.held = held,
		.held_count = hello->n_held,
	};
	status = pl_control_join(service->control, &join, session, error);
	free(held);

	return status;
}

static void say_welcome(struct pl_service *service, struct pl_stream *stream)
{
	Cadre__V1__NodeWelcome welcome = CADRE__V1__NODE_WELCOME__INIT;
	Cadre__V1__Settings settings = CADRE__V1__SETTINGS__INIT;
	struct cad_settings_storage storage;

	cad_settings_to_proto(pl_checkpoint_settings(service->options.checkpoint), &storage, &settings);
	welcome.cluster = (char *)service->options.cluster;
	welcome.lease_ms = (uint32_t)(service->options.control.lease_ns / CAD_NS_PER_MS);
	welcome.settings = &settings;
	welcome.routing_detail = service->options.routing_aggregate
		? CADRE__V1__ROUTING_DETAIL__ROUTING_DETAIL_AGGREGATE
		: CADRE__V1__ROUTING_DETAIL__ROUTING_DETAIL_TOKENS;
	pl_stream_welcome(&service->streams, stream, &welcome);
}

static enum cad_status take_expert(
	struct pl_service *service, uint64_t session, const Cadre__V1__ExpertReport *report, struct cad_error *error)
{
	if (!report->id)
		return cad_error_set(error, CAD_ERR_INVALID, "an expert report names no expert");

	const struct pl_expert expert = { report->id->layer, report->id->expert };
	enum cad_status status = CAD_OK;
	if (report->passed_over[0])
		status = pl_control_passed_over(service->control, session, expert, report->passed_over, error);
	if (status != CAD_OK)
		return status;
	switch (report->state) {
	case CADRE__V1__EXPERT_STATE__EXPERT_STATE_LOADING:
		return pl_control_loading(service->control, session, expert, report->read_bytes, error);
	case CADRE__V1__EXPERT_STATE__EXPERT_STATE_LOADED:
		return pl_control_loaded(service->control, session, expert, report->checksum, report->bytes, error);
	case CADRE__V1__EXPERT_STATE__EXPERT_STATE_FREED:
		return pl_control_freed(service->control, session, expert, error);
	case CADRE__V1__EXPERT_STATE__EXPERT_STATE_FAILED:
		return pl_control_failed(service->control, session, expert, report->error, error);
	default:
		return cad_error_set(error, CAD_ERR_INVALID,
			"a report about layer %u expert %u says neither LOADED nor LOADING nor FREED nor FAILED",
			expert.layer, expert.expert);
	}
}

static void take_load(struct pl_service *service, uint64_t session, const Cadre__V1__NodeLoad *message)
{
	struct pl_unreached unreached[CAD_NODES_MAX];
	struct pl_load load = {
		.epoch = message->epoch,
		.rows = message->rows,
		.calls = message->calls,
		.tokens = message->tokens,
		.memory_used_bytes = message->memory_used_bytes,
		.sequences = message->sequences,
		.queue = message->queue,
	};
	size_t count = message->n_unreached < CAD_NODES_MAX ? message->n_unreached : CAD_NODES_MAX;

	for (size_t i = 0; i < count; i++)
		unreached[i] = (struct pl_unreached){ message->unreached[i]->node,
			message->unreached[i]->silent_ms * CAD_NS_PER_MS };
	pl_calls_read(message->expert_calls, &load.expert_calls);
	pl_device_read(message->device, &load.device);
	pl_control_load(service->control, session, &load);
	pl_control_unreached(service->control, session, unreached, count);
}

static void take_device_failure(struct pl_service *service, uint64_t session, const char *why)
{
	const struct pl_registry *registry = pl_control_registry(service->control);
	int slot = pl_registry_find_session(registry, session);

	if (slot < 0)
		return;
	pl_faults_add(&service->door.faults, &registry->nodes[slot], cad_clock_now_ns(service->options.clock));
	pl_control_device_failed(service->control, (uint32_t)slot, why);
}

/* The first message must be a hello, and no other may be one. */
static enum cad_status take_report(struct pl_service *service, struct pl_stream *stream,
	const Cadre__V1__NodeReport *report, struct cad_error *error)
{
	bool hello = report->report_case == CADRE__V1__NODE_REPORT__REPORT_HELLO;
	if (report->report_case == CADRE__V1__NODE_REPORT__REPORT_CHALLENGE && stream->session == 0)
		return take_challenge(service, stream, report->challenge, error);
	if (hello != (stream->session == 0))
		return cad_error_set(error, CAD_ERR_INVALID,
			hello ? "a second hello on one stream" : "the first message of a Join stream must be a hello");
	switch (report->report_case) {
	case CADRE__V1__NODE_REPORT__REPORT_HELLO: {
		uint64_t session = ++service->sessions;
		enum cad_status status = take_hello(service, stream, report->hello, session, error);
		if (status != CAD_OK)
			return status;
		stream->session = session;
		pl_door_forget(&service->door, stream->guest.id);
		cad_audit_write(service->options.callers.audit, CAD_AUDIT_JOINED, cad_rpc_call_caller(stream->call),
			"Join", stream->guest.id, "");
		stream->expert = report->hello->role == CADRE__V1__ROLE__ROLE_EXPERT;
		say_welcome(service, stream);
		return CAD_OK;
	}
	case CADRE__V1__NODE_REPORT__REPORT_LOAD: take_load(service, stream->session, report->load); return CAD_OK;
	case CADRE__V1__NODE_REPORT__REPORT_EXPERT: return take_expert(service, stream->session, report->expert, error);
	case CADRE__V1__NODE_REPORT__REPORT_EXCHANGE_ADDRESS: {
		enum cad_status status = pl_door_exchange_address(&stream->guest, report->exchange_address, error);
		return status == CAD_OK
			? pl_control_address(service->control, stream->session, report->exchange_address, error)
			: status;
	}
	case CADRE__V1__NODE_REPORT__REPORT_ROUTING:
		return pl_telemetry_take_routing(service->telemetry, stream->session, &stream->reported,
			cad_clock_now_ns(service->options.clock), report->routing, error);
	case CADRE__V1__NODE_REPORT__REPORT_WORK:
		return pl_telemetry_take_work(service->telemetry, stream->session,
			cad_clock_now_ns(service->options.clock), report->work, error);
	case CADRE__V1__NODE_REPORT__REPORT_DEVICE_FAILURE:
		take_device_failure(service, stream->session, report->device_failure);
		return CAD_OK;
	default: return CAD_OK; /* a newer process may say more */
	}
}

enum cad_rpc_code pl_service_code(enum cad_status status)
{
	return status == CAD_AGAIN          ? CAD_RPC_UNAVAILABLE
		: status == CAD_ERR_REFUSED ? CAD_RPC_FAILED_PRECONDITION
					    : cad_rpc_code_of_status(status);
}

static void join_message(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	struct pl_stream *stream = cad_rpc_call_state(call);
	struct cad_error error;

	if (!stream) {
		if (service->draining)
			cad_rpc_call_finish(call, CAD_RPC_UNAVAILABLE, "the placement service is stopping");
		else
			stream = pl_streams_add(&service->streams, call, false);
		if (!stream)
			return;
	}

	enum cad_status status = take_report(service, stream, (const Cadre__V1__NodeReport *)message, &error);
	if (status != CAD_OK) {
		if (status != CAD_AGAIN)
			refuse_guest(service, stream, error.text);
		cad_rpc_call_finish(call, pl_service_code(status), "%s", error.text);
		return;
	}

	cad_rpc_call_read(call);
	pl_service_turn_soon(service);
}

/* A process that closes its side leaves in good order: no grace. */
static void join_half_close(struct cad_rpc_call *call)
{
	struct pl_service *service = cad_rpc_call_context(call);
	struct pl_stream *stream = cad_rpc_call_state(call);

	if (stream && stream->session) {
		pl_control_leave(service->control, stream->session);
		stream->session = 0;
		pl_service_turn_soon(service);
	}
	cad_rpc_call_finish(call, CAD_RPC_OK, NULL);
}

/* A stream breaks when a process dies and when a connection does; its host can tell which it
 * was. */
static void look_after(struct pl_service *service, const struct pl_stream *stream)
{
	const struct pl_registry *registry = pl_control_registry(service->control);
	int slot = pl_registry_find_session(registry, stream->session);

	if (slot >= 0)
		pl_probes_ask_node(&service->probes, registry, (uint32_t)slot, registry->grace_ns / CAD_NS_PER_MS);
}

static void stream_done(struct cad_rpc_call *call, bool cancelled)
{
	struct pl_service *service = cad_rpc_call_context(call);
	struct pl_stream *stream = cad_rpc_call_state(call);

	(void)cancelled;
	if (!stream)
		return;

	if (stream->session && !service->draining) {
		look_after(service, stream);
		pl_control_broken(service->control, stream->session);
		pl_service_turn_soon(service);
	}

	pl_streams_remove(&service->streams, stream);
}

static void stream_writable(struct cad_rpc_call *call)
{
	struct pl_service *service = cad_rpc_call_context(call);
	struct pl_stream *stream = cad_rpc_call_state(call);
	if (stream)
		pl_stream_writable(&service->streams, stream);
}

/* ---- the other methods ---- */

static void watch_map(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	const Cadre__V1__WatchMapRequest *request = (const Cadre__V1__WatchMapRequest *)message;
	struct pl_stream *stream = pl_streams_add(&service->streams, call, true);

	if (!stream)
		return;
	cad_rpc_call_send_headers(call);
	if (service->streams.map && service->streams.map->epoch > request->after_epoch)
		pl_stream_map(&service->streams, stream);
}

static void get_map(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	char text[PL_READY_TEXT_BYTES] = "";

	(void)message;
	if (service->streams.map_message) {
		cad_rpc_call_reply(call, &service->streams.map_message->base);
		return;
	}
	(void)pl_control_ready(service->control, text, sizeof text);
	cad_rpc_call_finish(call, CAD_RPC_UNAVAILABLE, "there is no map yet: %s", text);
}

static void get_status(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	const struct pl_status_source source = {
		.cluster = service->options.cluster,
		.checkpoint = service->options.checkpoint,
		.control = service->control,
		.door = &service->door,
		.state = service->options.state,
		.telemetry = service->telemetry,
		.fine = cad_caller_may(cad_rpc_call_caller(call), CAD_RIGHT_OPERATE),
		.rebalance = pl_rebalances_current(service->rebalances),
		.auto_on = service->automatic.settings.on,
		.now_ns = cad_clock_now_ns(service->options.clock),
		.started_ns = service->started_ns,
	};
	struct pl_status *status;

	(void)message;
	if (pl_status_create(&source, &status) != CAD_OK) {
		cad_rpc_call_finish(call, CAD_RPC_RESOURCE_EXHAUSTED, "the placement service is out of memory");
		return;
	}

	cad_rpc_call_reply(call, &pl_status_message(status)->base);
	pl_status_destroy(status);
}

static const struct cad_rpc_method methods[] = {
	{ "Join", CAD_RPC_BIDI,
		{
			.message = join_message,
			.half_close = join_half_close,
			.writable = stream_writable,
			.done = stream_done,
		},
		CAD_RIGHT_JOIN },
	{ "WatchMap", CAD_RPC_SERVER_STREAM,
		{
			.message = watch_map,
			.writable = stream_writable,
			.done = stream_done,
		},
		CAD_RIGHT_READ },
	{ "GetMap", CAD_RPC_UNARY, { .message = get_map }, CAD_RIGHT_READ },
	{ "GetStatus", CAD_RPC_UNARY, { .message = get_status }, CAD_RIGHT_READ },
	{ "RecordTrace", CAD_RPC_SERVER_STREAM,
		{
			.message = pl_service_record_begin,
			.writable = pl_recorder_writable,
			.done = pl_service_record_done,
		},
		CAD_RIGHT_OPERATE },
	{ "GetHistory", CAD_RPC_UNARY, { .message = pl_service_get_history }, CAD_RIGHT_READ },
	{ "StartRebalance", CAD_RPC_CLIENT_STREAM,
		{
			.start = pl_service_start_rebalance_start,
			.message = pl_service_start_rebalance_message,
			.half_close = pl_service_start_rebalance_half_close,
			.done = pl_service_start_rebalance_done,
		},
		CAD_RIGHT_OPERATE },
	{ "GetRebalance", CAD_RPC_UNARY, { .message = pl_service_get_rebalance }, CAD_RIGHT_READ },
	{ "ChangeRebalance", CAD_RPC_UNARY, { .message = pl_service_change_rebalance }, CAD_RIGHT_OPERATE },
	{ "ApplyMap", CAD_RPC_UNARY, { .message = pl_service_apply_map }, CAD_RIGHT_OPERATE },
	{ "GetPlacement", CAD_RPC_UNARY, { .message = pl_service_get_placement }, CAD_RIGHT_READ },
	{ "Drain", CAD_RPC_UNARY, { .message = pl_service_drain_node }, CAD_RIGHT_OPERATE },
	{ "SetPin", CAD_RPC_UNARY, { .message = pl_service_set_pin }, CAD_RIGHT_OPERATE },
	{ "SetCopies", CAD_RPC_UNARY, { .message = pl_service_set_copies }, CAD_RIGHT_OPERATE },
	{ "GetAuto", CAD_RPC_UNARY, { .message = pl_service_get_auto }, CAD_RIGHT_READ },
	{ "SetAuto", CAD_RPC_UNARY, { .message = pl_service_set_auto }, CAD_RIGHT_OPERATE },
};

/* ---- life ---- */

static double refused_read(void *none) { return (void)none, (double)cad_rpc_refused_connections(); }

static enum cad_status make_server(struct pl_service *service, struct cad_error *error)
{
	const struct cad_rpc_authorizer_options authorizer = {
		.callers = service->options.callers,
		.server = "placement service",
		.token_advice =
			"give cadrectl --token-file, routers and expert nodes --placement-token-file, and others the header 'authorization: Bearer TOKEN'",
		.refused = on_call_refused,
		.context = service,
	};
	const struct cad_rpc_server_config config = {
		.authorize = cad_rpc_authorize,
		.authorize_context = &service->authorizer,
	};
	cad_rpc_authorizer_init(&service->authorizer, &authorizer, service->options.metrics);
	enum cad_status status = cad_rpc_server_create(service->options.reactor, &config, &service->server, error);
	if (status != CAD_OK)
		return status;

	cad_rpc_server_add(service->server, &service->rpc);
	status = cad_rpc_health_create(service->server, &service->health, error);
	if (status == CAD_OK)
		status = cad_rpc_reflection_create(service->server, &service->reflection, error);
	if (status != CAD_OK)
		cad_rpc_server_drain(service->server, 0, NULL, NULL); /* it frees itself */
	return status;
}

static void on_sample(void *context, uint32_t slot, const struct pl_routing_report *report)
{
	pl_recorder_take(&((struct pl_service *)context)->recorder, slot, report);
}

static enum cad_status make_telemetry(struct pl_service *service, struct cad_error *error)
{
	const struct pl_service_options *o = &service->options;
	const struct cad_model *model = pl_checkpoint_model(o->checkpoint);
	const struct pl_telemetry_options options = {
		.shape = pl_checkpoint_shape(o->checkpoint),
		.topk = cad_model_spec(model)->gate.topk,
		.registry = pl_control_registry(service->control),
		.cluster = o->cluster,
		.model = cad_model_directory(model),
		.tokens = o->routing_tokens,
		.half_life_s = o->routing_half_life_s,
		.aggregate = o->routing_aggregate,
		.seed = service->started_ns,
		.now_ns = service->started_ns,
		.on_sample = on_sample,
		.context = service,
	};
	enum cad_status status = pl_telemetry_create(&options, &service->telemetry, error);
	service->recorder.telemetry = service->telemetry;
	return status;
}

static struct pl_speed_work work_of(const struct cad_model_spec *spec)
{
	return (struct pl_speed_work){
		.experts = spec->gate.experts,
		.topk = spec->gate.topk,
		.multiply_adds = 3.0 * (double)spec->hidden * (double)spec->expert.size,
	};
}

enum cad_status pl_service_create(
	const struct pl_service_options *options, struct pl_service **service, struct cad_error *error)
{
	struct pl_service *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the service");

	made->options = *options;
	made->door = (struct pl_door){ .secret = options->secret, .cluster = options->cluster };
	made->started_ns = cad_clock_now_ns(options->clock);
	made->rpc = (struct cad_rpc_service){ &cadre__v1__placement__descriptor, methods,
		sizeof methods / sizeof methods[0], made };
	pthread_mutex_init(&made->ready_lock, NULL);
	struct pl_control_options control = options->control;
	control.shape = pl_checkpoint_shape(options->checkpoint);
	control.expert_bytes = pl_checkpoint_expert_bytes(options->checkpoint);
	control.image_bytes = pl_checkpoint_image_bytes(options->checkpoint);
	control.work = work_of(cad_model_spec(pl_checkpoint_model(options->checkpoint)));
	cad_settings_fingerprint(pl_checkpoint_settings(options->checkpoint), made->settings_fingerprint);
	cad_settings_text(pl_checkpoint_settings(options->checkpoint), made->settings_text);
	control.identity = (struct pl_identity){
		.model_fingerprint = pl_checkpoint_fingerprint(options->checkpoint),
		.settings_fingerprint = made->settings_fingerprint,
		.settings = made->settings_text,
	};
	control.state = options->state;
	control.clock = options->clock;
	control.events = (struct pl_control_events){
		.load = on_load,
		.free = on_free,
		.publish = on_publish,
		.close = on_close,
		.standing = on_standing,
		.checksum = on_checksum_asked,
		.context = made,
		.router_checksum = on_router_checksum_asked,
		.did = on_did,
	};
	enum cad_status status = pl_history_open(options->state, &made->history, error);
	if (status == CAD_OK)
		status = pl_control_create(&control, &made->control, error);
	if (status == CAD_OK)
		status = make_telemetry(made, error);
	if (status == CAD_OK)
		status = pl_service_rebalances_create(made, error);
	if (status == CAD_OK)
		status = make_server(made, error);
	if (status != CAD_OK) {
		pl_service_rebalances_destroy(made);
		pl_telemetry_destroy(made->telemetry);
		pl_control_destroy(made->control);
		pl_history_close(made->history);
		pthread_mutex_destroy(&made->ready_lock);
		free(made);
		return status;
	}

	pl_streams_init(&made->streams, pl_control_registry(made->control));
	uv_timer_init(cad_rpc_reactor_loop(options->reactor), &made->timer);
	made->timer.data = made;
	pl_probes_init(&made->probes, cad_rpc_reactor_loop(options->reactor), on_refused, made);
	pl_service_rebalances_begin(made);
	pl_checkpoint_on_checksum(options->checkpoint, on_checksum, made);
	pl_status_metrics_create(&made->metrics, options->metrics, options->state);
	made->telemetry_metrics = pl_telemetry_metrics_create(options->metrics);
	if (options->metrics) {
		cad_metrics_counter_read(options->metrics, "cadre_placement_connections_refused_total",
			"gRPC connections refused for want of file descriptors", NULL, 0, refused_read, NULL);
		made->refused_secret = cad_metrics_counter(options->metrics, CAD_CALLS_REFUSED, CAD_CALLS_REFUSED_HELP,
			&(struct cad_label){ "reason", "wrong_secret" }, 1);
	}
	note_ready(made);
	*service = made;

	return CAD_OK;
}

enum cad_status pl_service_listen(struct pl_service *service, const char *address, const struct cad_tls_files *tls,
	uint16_t *port, struct cad_error *error)
{
	return cad_rpc_server_listen(service->server, address, tls, port, error);
}

void pl_service_start(struct pl_service *service)
{
	cad_rpc_server_start(service->server);
	cad_rpc_health_set(service->health, "", true);
	cad_rpc_health_set(service->health, "cadre.v1.Placement", true);
	pl_service_turn_soon(service);
}

static void drained(struct pl_service *service)
{
	if (service->server_gone && service->timer_gone && service->probes_gone && service->plan_thread_gone &&
		service->drained)
		service->drained(service->drained_context);
}

static void on_server_gone(void *context)
{
	struct pl_service *service = context;
	service->server_gone = true;
	drained(service);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct pl_service *service = handle->data;
	service->timer_gone = true;
	drained(service);
}

static void on_probes_closed(void *context)
{
	struct pl_service *service = context;
	service->probes_gone = true;
	drained(service);
}

static void on_plan_thread_closed(void *context)
{
	struct pl_service *service = context;
	service->plan_thread_gone = true;
	drained(service);
}

void pl_service_drain(struct pl_service *service, void (*done)(void *context), void *context)
{
	service->draining = true;
	service->drained = done;
	service->drained_context = context;
	pl_checkpoint_on_checksum(service->options.checkpoint, NULL, NULL);
	uv_close((uv_handle_t *)&service->timer, on_timer_closed);
	pl_probes_close(&service->probes, on_probes_closed);
	pl_plan_thread_close(&service->plan_thread, on_plan_thread_closed, service);
	cad_rpc_health_shutdown(service->health);
	pl_streams_abort(&service->streams, "the placement service is stopping");
	pl_recorder_stop(&service->recorder);
	cad_rpc_server_drain(service->server, 1000, on_server_gone, service);
}

void pl_service_destroy(struct pl_service *service)
{
	if (!service)
		return;
	cad_rpc_reflection_destroy(service->reflection);
	cad_rpc_health_destroy(service->health);
	pl_telemetry_metrics_destroy(service->telemetry_metrics);
	pl_service_rebalances_destroy(service);
	pl_telemetry_destroy(service->telemetry);
	pl_control_destroy(service->control);
	pl_history_close(service->history);
	pl_streams_fini(&service->streams);
	cad_rpc_authorizer_fini(&service->authorizer);
	pthread_mutex_destroy(&service->ready_lock);
	free(service);
}

bool pl_service_ready(void *context, char *text, size_t bytes)
{
	struct pl_service *service = context;
	pthread_mutex_lock(&service->ready_lock);
	bool ready = service->ready;
	snprintf(text, bytes, "%s", service->ready_text);
	pthread_mutex_unlock(&service->ready_lock);
	return ready;
}
