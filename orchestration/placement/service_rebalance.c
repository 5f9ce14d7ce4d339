/* SPDX-License-Identifier: Apache-2.0 */
/* Rebalances over gRPC: what they stand on here, and the methods that
 * start, show and change them. */
#include "orchestration/placement/rebalance_message.h"
#include "orchestration/placement/service_internal.h"
#include "proto/cadre_wire.h"

#include <stdlib.h>
#include <string.h>

#define PL_TEN_MINUTES_NS (600 * CAD_NS_PER_S)
/* most partial sums take as many bytes for each number */
enum { SUM_BYTES = 3 };
enum { RECENT_HALF_LIVES = 15 }; /* after that, hardly one of 20,000 tokens of the sample is as old */
enum { TRACE_BYTES_MAX = 256 << 20, REASON_BYTES_MAX = 512 };
/* of the search: the default, and the most */
#define PL_TIME_LIMIT_NS (5 * CAD_NS_PER_S)
#define PL_TIME_LIMIT_MAX_NS (3600 * CAD_NS_PER_S)

/* ---- the ground ---- */

static enum cad_status situation(void *context, struct pl_situation *found, struct cad_error *error)
{
	return pl_control_situation(((struct pl_service *)context)->control, found, error);
}

static enum cad_status check(
	void *context, const struct pl_cluster *nodes, const struct pl_plan *plan, struct cad_error *error)
{
	return pl_control_check(((struct pl_service *)context)->control, nodes, plan, error);
}

static enum cad_status apply(void *context, const struct pl_cluster *nodes, const struct pl_plan *plan,
	uint64_t bytes_per_second, struct cad_error *error)
{
	struct pl_service *service = context;
	pl_service_turn_soon(service);
	return pl_control_apply(service->control, nodes, plan, bytes_per_second, error);
}

static void pause_moves(void *context, bool paused)
{
	struct pl_service *service = context;
	pl_control_pause(service->control, paused);
	pl_service_turn_soon(service);
}

static enum cad_status stop(void *context, struct cad_error *error)
{
	struct pl_service *service = context;
	pl_service_turn_soon(service);
	return pl_control_stop(service->control, error);
}

static void progress(void *context, struct pl_control_progress *made)
{
	pl_control_progress(((struct pl_service *)context)->control, made);
}

static bool figures(void *context, uint64_t from_ns, uint64_t to_ns, struct pl_point *point)
{
	struct pl_service *service = context;
	struct pl_figures found;

	if (!pl_telemetry_between(service->telemetry, from_ns, to_ns, &found) || found.rows == 0)
		return false;
	*point = (struct pl_point){ found.nodes_per_token, found.bytes_per_token, found.load_max_over_mean };
	return true;
}

static enum cad_status trace(void *context, struct pl_trace **made, struct cad_error *error)
{
	enum cad_status status = pl_telemetry_trace(((struct pl_service *)context)->telemetry, made, error);
	return status == CAD_ERR_NOT_FOUND
		? cad_error_set(error, status,
			  "there is no routing to plan from: routers report once a second, and have reported no tokens yet; send requests and ask again 2 s later, or give --trace")
		: status;
}

/* What a row costs on a node: as in the last minute, or as this model's rows are. */
static void price_rows(struct pl_service *service, struct pl_planning_order *order)
{
	const struct cad_model_spec *spec = cad_model_spec(pl_checkpoint_model(service->options.checkpoint));
	const struct cad_settings *settings = pl_checkpoint_settings(service->options.checkpoint);
	uint64_t now = cad_clock_now_ns(service->options.clock);
	struct pl_point point;

	order->row_bytes =
		(double)(sizeof(struct cadre_wire_row) + cadre_row_bytes((uint8_t)settings->wire, spec->hidden) +
			sizeof(struct cadre_wire_sum) + (size_t)SUM_BYTES * spec->hidden);
	order->token_bytes = (double)(spec->gate.topk * sizeof(struct cadre_wire_pair));
	if (figures(service, now > 60 * CAD_NS_PER_S ? now - 60 * CAD_NS_PER_S : 0, now, &point) &&
		point.nodes_per_token > 0 && point.bytes_per_token > order->token_bytes)
		order->row_bytes = (point.bytes_per_token - order->token_bytes) / point.nodes_per_token;
}

static enum cad_status plan(void *context, struct pl_planning_order *order, struct cad_error *error)
{
	struct pl_service *service = context;

	order->shape = pl_checkpoint_shape(service->options.checkpoint);
	order->topk = cad_model_spec(pl_checkpoint_model(service->options.checkpoint))->gate.topk;
	order->threads = pl_plan_threads();
	price_rows(service, order);
	return pl_plan_thread_start(&service->plan_thread, order, error);
}

static void plan_cancel(void *context) { pl_plan_thread_cancel(&((struct pl_service *)context)->plan_thread); }

static bool judge(void *context, const struct pl_planning_result *result, char reason[PL_REBALANCE_TEXT_BYTES])
{
	return pl_auto_judge(&((struct pl_service *)context)->automatic, result, reason);
}

static void on_planned(void *context, struct pl_planning_result *result)
{
	struct pl_service *service = context;
	pl_rebalances_planned(service->rebalances, result);
	pl_service_turn_soon(service);
}

static uint64_t tokens_sampled(void *context)
{
	struct pl_telemetry_state state;
	pl_telemetry_state(((struct pl_service *)context)->telemetry, &state);
	return state.tokens_sampled;
}

static double bytes_per_second(void *context)
{
	struct pl_service *service = context;
	uint64_t now = cad_clock_now_ns(service->options.clock);
	struct pl_figures found;

	if (!pl_telemetry_between(
		    service->telemetry, now > PL_TEN_MINUTES_NS ? now - PL_TEN_MINUTES_NS : 0, now, &found) ||
		found.seconds <= 0)
		return 0;
	return found.bytes_per_token * (double)found.tokens / found.seconds *
		pl_checkpoint_shape(service->options.checkpoint).layers_count;
}

/* ---- life ---- */

enum cad_status pl_service_rebalances_create(struct pl_service *service, struct cad_error *error)
{
	enum cad_status status = pl_rebalance_table_open(service->options.state, &service->rebalance_table, error);
	if (status != CAD_OK)
		return status;

	double half_life_s = service->options.routing_half_life_s;
	const struct pl_rebalances_options options = {
		.table = service->rebalance_table,
		.history = service->history,
		.clock = service->options.clock,
		.unix_ms = cad_unix_ms(),
		.recent_ms = half_life_s > 0 ? (uint64_t)(RECENT_HALF_LIVES * half_life_s * 1000) : UINT64_MAX,
		.ground = { situation, check, apply, pause_moves, stop, progress, figures, trace, plan, plan_cancel,
			judge, service },
	};
	status = pl_rebalances_create(&options, &service->rebalances, error);
	if (status != CAD_OK)
		return status;

	service->automatic = (struct pl_auto){
		.table = service->rebalance_table,
		.rebalances = service->rebalances,
		.history = service->history,
		.clock = service->options.clock,
		.tokens = tokens_sampled,
		.bytes_per_second = bytes_per_second,
		.context = service,
	};
	pl_auto_init(&service->automatic);
	return CAD_OK;
}

void pl_service_rebalances_begin(struct pl_service *service)
{
	pl_plan_thread_init(&service->plan_thread, cad_rpc_reactor_loop(service->options.reactor), on_planned, service);
	pl_rebalance_metrics_create(&service->rebalance_metrics, service->options.metrics);
}

uint64_t pl_service_rebalances_turn(struct pl_service *service)
{
	uint64_t due_ns = pl_rebalances_turn(service->rebalances), auto_ns = pl_auto_turn(&service->automatic);

	pl_rebalance_metrics_update(&service->rebalance_metrics, service->rebalances, &service->automatic);
	return due_ns < auto_ns ? due_ns : auto_ns;
}

void pl_service_rebalances_destroy(struct pl_service *service)
{
	pl_rebalances_destroy(service->rebalances);
	pl_rebalance_table_close(service->rebalance_table);
}

/* ---- answers ---- */

static void refuse(struct cad_rpc_call *call, enum cad_status status, const struct cad_error *error)
{
	cad_rpc_call_finish(call, pl_service_code(status), "%s", error->text);
}

static void answer(struct pl_service *service, struct cad_rpc_call *call, uint64_t id)
{
	struct pl_rebalance rebalance;
	struct pl_rebalance_message message;
	struct cad_error error;
	enum cad_status status = pl_rebalances_get(service->rebalances, id, &rebalance, &error);

	if (status != CAD_OK)
		refuse(call, status, &error);
	else
		cad_rpc_call_reply(call, &pl_rebalance_to_proto(&rebalance, &message)->base);
}

enum cad_status pl_service_change(
	const Cadre__V1__Change *change, bool *dry_run, const char **reason, struct cad_error *error)
{
	*dry_run = change && change->dry_run;
	*reason = change ? change->reason : "";
	return strlen(*reason) <= REASON_BYTES_MAX
		? CAD_OK
		: cad_error_set(error, CAD_ERR_INVALID, "the reason has %zu bytes; at most %d are kept",
			  strlen(*reason), REASON_BYTES_MAX);
}

/* ---- StartRebalance: options, then a trace in parts ---- */

struct upload {
	struct pl_wish wish;
	char who[PL_WHO_BYTES], reason[REASON_BYTES_MAX + 1];
	bool begun, has_trace;
	size_t capacity;
};

static enum cad_status take_options(
	struct upload *upload, const Cadre__V1__RebalanceOptions *options, struct cad_error *error)
{
	const char *reason;
	struct pl_wish *wish = &upload->wish;
	enum cad_status status = pl_service_change(options->change, &wish->dry_run, &reason, error);

	if (status != CAD_OK)
		return status;
	if (options->limit_copies && !(options->copies >= 0 && options->copies <= CAD_NODES_MAX))
		return cad_error_set(
			error, CAD_ERR_INVALID, "%g is no share of extra copies: give 0 or more", options->copies);
	if (options->time_limit_ms > PL_TIME_LIMIT_MAX_NS / CAD_NS_PER_MS)
		return cad_error_set(error, CAD_ERR_INVALID, "a search may take an hour at most");

	snprintf(upload->reason, sizeof upload->reason, "%s", reason);
	wish->who = upload->who;
	wish->reason = upload->reason;
	wish->workload = options->workload == CADRE__V1__WORKLOAD__WORKLOAD_DECODE ? PL_WORKLOAD_DECODE
		: options->workload == CADRE__V1__WORKLOAD__WORKLOAD_PREFILL       ? PL_WORKLOAD_PREFILL
										   : PL_WORKLOAD_MIXED;
	wish->copies = options->limit_copies ? options->copies : -1;
	wish->time_limit_ns = options->time_limit_ms ? options->time_limit_ms * CAD_NS_PER_MS : PL_TIME_LIMIT_NS;
	wish->bytes_per_second = options->bytes_per_second;
	upload->has_trace = options->has_trace;
	upload->begun = true;
	return CAD_OK;
}

static enum cad_status take_trace(struct upload *upload, const ProtobufCBinaryData *part, struct cad_error *error)
{
	struct pl_wish *wish = &upload->wish;

	if (!upload->has_trace)
		return cad_error_set(error, CAD_ERR_INVALID, "a trace comes that the options did not announce");
	if (part->len > TRACE_BYTES_MAX - wish->encoded_bytes)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"the trace has more than %d MiB: cut it with 'cadrectl trace split'", TRACE_BYTES_MAX >> 20);
	if (wish->encoded_bytes + part->len > upload->capacity) {
		size_t capacity = 2 * upload->capacity > wish->encoded_bytes + part->len
			? 2 * upload->capacity
			: wish->encoded_bytes + part->len;
		void *grown = realloc(wish->encoded, capacity);
		if (!grown)
			return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the trace");
		wish->encoded = grown;
		upload->capacity = capacity;
	}
	memcpy((char *)wish->encoded + wish->encoded_bytes, part->data, part->len);
	wish->encoded_bytes += part->len;
	return CAD_OK;
}

void pl_service_start_rebalance_start(struct cad_rpc_call *call)
{
	struct pl_service *service = cad_rpc_call_context(call);
	struct upload *upload = service->uploading ? NULL : calloc(1, sizeof *upload);

	if (!upload) {
		cad_rpc_call_finish(call, CAD_RPC_RESOURCE_EXHAUSTED, "%s",
			service->uploading ? "another rebalance is being sent: try again in a moment"
					   : "the placement service is out of memory");
		return;
	}
	upload->wish.kind = PL_REBALANCE_SEARCH;
	pl_service_who(call, upload->who);
	service->uploading = true;
	cad_rpc_call_set_state(call, upload);
	cad_rpc_call_read(call);
}

void pl_service_start_rebalance_message(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct upload *upload = cad_rpc_call_state(call);
	const Cadre__V1__StartRebalanceRequest *request = (const Cadre__V1__StartRebalanceRequest *)message;
	bool options = request->part_case == CADRE__V1__START_REBALANCE_REQUEST__PART_OPTIONS;
	struct cad_error error;
	enum cad_status status;

	if (!upload)
		return;
	if (options == upload->begun)
		status =
			cad_error_set(&error, CAD_ERR_INVALID, "the first message must have options, and no other may");
	else if (options)
		status = take_options(upload, request->options, &error);
	else
		status = take_trace(upload, &request->trace, &error);
	if (status == CAD_OK)
		cad_rpc_call_read(call);
	else
		refuse(call, status, &error);
}

void pl_service_start_rebalance_half_close(struct cad_rpc_call *call)
{
	struct pl_service *service = cad_rpc_call_context(call);
	struct upload *upload = cad_rpc_call_state(call);
	struct cad_error error;
	uint64_t id;

	if (!upload)
		return;
	enum cad_status status = CAD_OK;
	if (!upload->begun)
		status = cad_error_set(&error, CAD_ERR_INVALID, "the stream ended before its options");
	else if (upload->has_trace && upload->wish.encoded_bytes == 0)
		status = cad_error_set(&error, CAD_ERR_INVALID, "the trace that the options announced did not come");
	else
		status = pl_rebalances_start(service->rebalances, &upload->wish, &id, &error);
	if (status == CAD_OK)
		answer(service, call, id);
	else
		refuse(call, status, &error);
}

void pl_service_start_rebalance_done(struct cad_rpc_call *call, bool cancelled)
{
	struct pl_service *service = cad_rpc_call_context(call);
	struct upload *upload = cad_rpc_call_state(call);

	(void)cancelled;
	if (!upload)
		return;
	free(upload->wish.encoded);
	free(upload);
	service->uploading = false;
}

/* ---- the other methods ---- */

void pl_service_get_rebalance(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	answer(cad_rpc_call_context(call), call, ((const Cadre__V1__GetRebalanceRequest *)message)->id);
}

void pl_service_change_rebalance(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	const Cadre__V1__ChangeRebalanceRequest *request = (const Cadre__V1__ChangeRebalanceRequest *)message;
	struct cad_error error;
	char who[PL_WHO_BYTES];
	const char *reason;
	bool dry_run;
	uint64_t id = request->id;
	enum cad_status status = pl_service_change(request->change, &dry_run, &reason, &error);

	pl_service_who(call, who);
	if (status == CAD_OK &&
		(request->action < CADRE__V1__CHANGE_REBALANCE_REQUEST__ACTION__ACTION_PAUSE ||
			request->action > CADRE__V1__CHANGE_REBALANCE_REQUEST__ACTION__ACTION_UNDO))
		status = cad_error_set(&error, CAD_ERR_INVALID, "say what to do with the rebalance");
	if (status == CAD_OK)
		status = pl_rebalances_change(service->rebalances, id,
			(enum pl_rebalance_action)(
				request->action - CADRE__V1__CHANGE_REBALANCE_REQUEST__ACTION__ACTION_PAUSE),
			who, reason, dry_run, &id, &error);
	if (status == CAD_OK)
		answer(service, call, id);
	else
		refuse(call, status, &error);
}

void pl_service_apply_map(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	const Cadre__V1__ApplyMapRequest *request = (const Cadre__V1__ApplyMapRequest *)message;
	struct cad_error error;
	char who[PL_WHO_BYTES];
	struct pl_wish wish = {
		.kind = PL_REBALANCE_MAP,
		.who = who,
		.workload = PL_WORKLOAD_MIXED,
		.bytes_per_second = request->bytes_per_second,
	};
	uint64_t id;
	enum cad_status status = pl_service_change(request->change, &wish.dry_run, &wish.reason, &error);

	pl_service_who(call, who);
	if (status == CAD_OK)
		status = pl_plan_from_proto(request, &wish.given, &wish.given_nodes, &error);
	if (status == CAD_OK)
		status = pl_rebalances_start(service->rebalances, &wish, &id, &error);
	if (status == CAD_OK)
		answer(service, call, id);
	else
		refuse(call, status, &error);
}

void pl_service_get_placement(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	struct cad_rpc_arena arena;
	struct pl_situation found;
	struct cad_error error;
	enum cad_status status = pl_control_situation(service->control, &found, &error);

	(void)message;
	if (status != CAD_OK) {
		refuse(call, status, &error);
		return;
	}
	cad_rpc_arena_init(&arena, 64 << 20);
	Cadre__V1__PlacementMap *map = pl_situation_to_proto(&found, &arena);
	if (map)
		cad_rpc_call_reply(call, &map->base);
	else
		cad_rpc_call_finish(call, CAD_RPC_RESOURCE_EXHAUSTED, "the placement service is out of memory");
	cad_rpc_arena_reset(&arena);
	pl_situation_fini(&found);
}

/* ---- the automatic mode ---- */

static void answer_auto(struct pl_service *service, struct cad_rpc_call *call)
{
	const struct pl_auto *automatic = &service->automatic;
	uint64_t now = cad_clock_now_ns(service->options.clock);
	Cadre__V1__AutoSettings settings = CADRE__V1__AUTO_SETTINGS__INIT;
	Cadre__V1__AutoStatus status = CADRE__V1__AUTO_STATUS__INIT;

	settings.on = automatic->settings.on;
	settings.every_ms = automatic->settings.every_ns / CAD_NS_PER_MS;
	settings.gain_min = automatic->settings.gain_min;
	settings.bytes_per_hour = automatic->settings.bytes_per_hour;
	status.settings = &settings;
	status.last = (char *)automatic->last;
	status.last_ms = automatic->last_ns ? (now - automatic->last_ns) / CAD_NS_PER_MS : 0;
	status.next_ms = settings.on && automatic->next_ns > now ? (automatic->next_ns - now) / CAD_NS_PER_MS : 0;
	status.bytes_moved = pl_rebalances_auto_bytes(service->rebalances);
	cad_rpc_call_reply(call, &status.base);
}

void pl_service_get_auto(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	(void)message;
	answer_auto(cad_rpc_call_context(call), call);
}

void pl_service_set_auto(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	const Cadre__V1__SetAutoRequest *request = (const Cadre__V1__SetAutoRequest *)message;
	const Cadre__V1__AutoSettings *wanted = request->settings;
	struct cad_error error;
	char who[PL_WHO_BYTES], what[128];
	const char *reason;
	bool dry_run;
	enum cad_status status = pl_service_change(request->change, &dry_run, &reason, &error);

	if (status == CAD_OK && !wanted)
		status = cad_error_set(&error, CAD_ERR_INVALID, "say whether the automatic mode is to be on");
	if (status == CAD_OK && !(wanted->gain_min >= 0 && wanted->gain_min < 1))
		status = cad_error_set(&error, CAD_ERR_INVALID,
			"%g is no share of the cost that can be gained: give one from 0 to 1", wanted->gain_min);
	if (status == CAD_OK && wanted->every_ms && (wanted->every_ms < 1000 || wanted->every_ms > 24 * 3600 * 1000))
		status = cad_error_set(
			&error, CAD_ERR_INVALID, "it may look once a second at most, and once a day at least");
	if (status != CAD_OK) {
		refuse(call, status, &error);
		return;
	}

	if (!dry_run) {
		const struct pl_auto_settings settings = { wanted->on, wanted->every_ms * CAD_NS_PER_MS,
			wanted->gain_min, wanted->bytes_per_hour };
		const struct pl_auto_settings *now = &service->automatic.settings;
		pl_auto_set(&service->automatic, &settings);
		pl_service_who(call, who);
		snprintf(what, sizeof what, "auto %s: every %.0f s, gain at least %.4g %%, %.4g GiB within an hour",
			now->on ? "on" : "off", (double)now->every_ns / CAD_NS_PER_S, 100 * now->gain_min,
			(double)now->bytes_per_hour / (1 << 30));
		const struct pl_history_entry entry = { .who = who, .what = what, .why = reason, .outcome = "done" };
		pl_history_add(service->history, &entry);
		pl_service_turn_soon(service);
	}
	answer_auto(service, call);
}
