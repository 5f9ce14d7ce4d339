/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/control.h"

#include "cadre/v1/placement.pb-c.h"
#include "common/base/log.h"
#include "common/base/progress.h"
#include "common/process/options.h"
#include "common/rpc/reactor.h"
#include "expert-svc/health.h"
#include "expert-svc/loader.h"
#include "expert-svc/report.h"
#include "kernels/image.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SAY_AGAIN_S = 60 };

/* Of a kind of trouble that may come again and again: when it was said last, and how often it was
 * not since. */
struct said {
	uint64_t ns, unsaid;
};

struct ex_control {
	struct ex_control_options options;
	const struct cad_model_spec *spec;
	char model_fingerprint[33];
	struct cad_member *member;
	struct ex_loader *loader;
	struct ex_report *report;
	struct cad_rpc_wakeup reports; /* the loader has something to say */
	struct said failed, passed_over;
	struct ex_loader_counts loads_said;
	struct cad_progress loads;  /* since nothing was waiting */
	Cadre__V1__NodeSpeed speed; /* of all hellos */
	Cadre__V1__ExpertId *held;  /* of the last hello: [layers * experts] */
	Cadre__V1__ExpertId **held_list;
	Cadre__V1__DeviceState device; /* of the last report */
	char throttled[EX_THROTTLED_BYTES];
	_Atomic bool joined, ready;
	struct cad_note apart;
	_Atomic uint64_t epoch;
	void (*left)(void *context);
	void *left_context;
};

/* ---- what the stream asks for ---- */

static size_t list_held(struct ex_control *control)
{
	size_t count = 0;
	for (uint32_t layer = 0; layer < control->spec->layers_count; layer++)
		for (uint32_t expert = 0; expert < control->spec->gate.experts; expert++) {
			if (!ex_engine_holds(control->options.engine, layer, expert))
				continue;
			Cadre__V1__ExpertId *id = &control->held[count];
			cadre__v1__expert_id__init(id);
			id->layer = layer;
			id->expert = expert;
			control->held_list[count++] = id;
		}
	return count;
}

static void hello(void *context, Cadre__V1__NodeHello *hello)
{
	struct ex_control *control = context;
	const struct ex_control_options *o = &control->options;

	hello->role = CADRE__V1__ROLE__ROLE_EXPERT;
	hello->model_fingerprint = control->model_fingerprint;
	hello->kernels_fingerprint = (char *)o->kernels_fingerprint;
	hello->memory_bytes = o->memory_bytes;
	hello->expert_bytes = ex_engine_expert_bytes(o->engine);
	hello->speed = &control->speed;
	hello->n_held = list_held(control);
	hello->held = control->held_list;
	hello->epoch = ex_control_epoch(control);
}

static double known(double value) { return isnan(value) ? 0 : value; }

/* NULL: a CPU. */
static Cadre__V1__DeviceState *tell_device(struct ex_control *control)
{
	const struct kn_device_info *device = control->options.device;
	Cadre__V1__DeviceState *message = &control->device;
	struct kn_health health;

	if (!device || !*device->chip)
		return NULL;
	cadre__v1__device_state__init(message);
	message->device = (char *)device->name;
	message->chip = (char *)device->chip;
	if (!ex_watch_health(control->options.watch, &health))
		return message;
	message->memory_used_bytes = (uint64_t)known(health.values[KN_HEALTH_MEMORY_USED]);
	message->memory_bytes = (uint64_t)known(health.values[KN_HEALTH_MEMORY_TOTAL]);
	message->busy = known(health.values[KN_HEALTH_BUSY]);
	message->clock_hz = known(health.values[KN_HEALTH_SM_CLOCK]);
	message->power_w = known(health.values[KN_HEALTH_POWER]);
	message->temperature_c = known(health.values[KN_HEALTH_TEMPERATURE]);
	message->ecc_uncorrected = (uint64_t)known(health.values[KN_HEALTH_ECC_UNCORRECTED]);
	ex_health_throttled_text(&health, control->throttled);
	message->throttled = control->throttled;
	return message;
}

static void load(void *context, Cadre__V1__NodeLoad *load)
{
	struct ex_control *control = context;
	struct ex_engine_stats stats = ex_engine_stats(control->options.engine);
	load->epoch = ex_control_epoch(control);
	load->rows = stats.rows;
	load->calls = stats.calls;
	load->memory_used_bytes = ex_engine_memory_used(control->options.engine);
	load->queue = ex_engine_requests(control->options.engine);
	load->device = tell_device(control);
}

static void welcome(void *context, const Cadre__V1__NodeWelcome *welcome)
{
	struct ex_control *control = context;
	ex_report_begin(
		control->report, welcome->routing_detail != CADRE__V1__ROUTING_DETAIL__ROUTING_DETAIL_AGGREGATE);
}

static void report_work(void *context)
{
	struct ex_control *control = context;
	if (control->member)
		ex_report_send(control->report, control->member);
}

static void take_map(void *context, struct cad_map *map)
{
	struct ex_control *control = context;
	atomic_store(&control->epoch, map->epoch); /* the node serves what it holds; the epoch is only reported */
	cad_map_release(map);
}

static void will_load(struct ex_control *control, const Cadre__V1__ExpertId *id)
{
	struct kn_expert_source image = ex_store_image(ex_engine_store(control->options.engine), id->layer, id->expert);
	control->loads.total_bytes += kn_image_bytes(&image);
}

/* Without orders there is nothing to wait for. */
static void ordered(struct ex_control *control, const char *what, size_t count)
{
	if (count > 0)
		cad_log_info("control", what, CAD_U("experts", count));
	if (ex_loader_waiting(control->loader) == 0)
		atomic_store(&control->ready, true);
}

static void order_load(void *context, const Cadre__V1__LoadOrder *orders)
{
	struct ex_control *control = context;
	if (ex_loader_waiting(control->loader) == 0)
		cad_progress_begin(&control->loads, &cad_clock_system, "control", 0);
	for (size_t i = 0; i < orders->n_experts; i++) {
		const Cadre__V1__ExpertSource *source = i < orders->n_sources ? orders->sources[i] : NULL;
		bool from_node = source && source->node[0] && source->exchange_address[0];
		const struct ex_load load = {
			.node = from_node ? source->node : NULL,
			.address = from_node ? source->exchange_address : NULL,
			.checksum = from_node ? source->checksum : NULL,
			.bytes_per_second = source ? source->bytes_per_second : 0,
		};
		will_load(control, orders->experts[i]);
		ex_loader_load(control->loader, orders->experts[i]->layer, orders->experts[i]->expert, &load);
	}
	ordered(control, "ordered to load", orders->n_experts);
}

static void order_free(void *context, const Cadre__V1__FreeOrder *orders)
{
	struct ex_control *control = context;
	for (size_t i = 0; i < orders->n_experts; i++)
		ex_loader_free(control->loader, orders->experts[i]->layer, orders->experts[i]->expert);
	ordered(control, "ordered to free", orders->n_experts);
}

static void order_peers(void *context, const Cadre__V1__Peers *peers)
{
	struct ex_control *control = context;
	const char **addresses = malloc((peers->n_peers + 1) * sizeof *addresses);
	if (!addresses) {
		cad_log_error("control", "no memory for the addresses of who may connect");
		return;
	}
	for (size_t i = 0; i < peers->n_peers; i++)
		addresses[i] = peers->peers[i]->exchange_address;
	control->options.peers(control->options.context, addresses, peers->n_peers);
	free(addresses);
}

static void joined(void *context, enum cad_membership membership, const char *why)
{
	struct ex_control *control = context;
	cad_note_put(&control->apart, membership == CAD_JOINED ? "" : why);
	atomic_store(&control->joined, membership == CAD_JOINED);
}

/* ---- what the loader reports ---- */

static void send_report(struct ex_control *control, const struct ex_load_report *report)
{
	static const Cadre__V1__ExpertState states[] = {
		[EX_LOAD_LOADED] = CADRE__V1__EXPERT_STATE__EXPERT_STATE_LOADED,
		[EX_LOAD_FREED] = CADRE__V1__EXPERT_STATE__EXPERT_STATE_FREED,
		[EX_LOAD_FAILED] = CADRE__V1__EXPERT_STATE__EXPERT_STATE_FAILED,
		[EX_LOAD_UNDER_WAY] = CADRE__V1__EXPERT_STATE__EXPERT_STATE_LOADING,
	};
	Cadre__V1__ExpertId id = CADRE__V1__EXPERT_ID__INIT;
	Cadre__V1__ExpertReport expert = CADRE__V1__EXPERT_REPORT__INIT;
	Cadre__V1__NodeReport message = CADRE__V1__NODE_REPORT__INIT;

	id.layer = report->layer;
	id.expert = report->expert;
	expert.id = &id;
	expert.state = states[report->outcome];
	if (report->outcome == EX_LOAD_LOADED) {
		expert.checksum = (char *)report->loaded.checksum;
		expert.bytes = report->loaded.bytes;
	}

	expert.error = (char *)report->text;
	expert.source = (char *)report->source;
	expert.read_bytes = report->read_bytes;
	expert.passed_over = (char *)report->passed_over;
	message.report_case = CADRE__V1__NODE_REPORT__REPORT_EXPERT;
	message.expert = &expert;
	if (cad_member_report(control->member, &message) != CAD_OK)
		cad_log_debug("control", "not joined; the next hello will report it", CAD_U("layer", id.layer),
			CAD_U("expert", id.expert));
}

/* With a bad disk one expert fails after the other, and again and again. Whether to say it, and how
 * often it was not said before. */
static bool may_say(struct said *said, uint64_t *unsaid)
{
	uint64_t now_ns = cad_clock_now_ns(&cad_clock_system);
	if (said->ns && now_ns < said->ns + SAY_AGAIN_S * CAD_NS_PER_S) {
		said->unsaid++;
		return false;
	}
	*unsaid = said->unsaid;
	*said = (struct said){ .ns = now_ns };
	return true;
}

static void say_failure(struct ex_control *control, const struct ex_load_report *report)
{
	uint64_t unsaid;
	if (may_say(&control->failed, &unsaid))
		cad_log_error("control", "an expert could not be loaded; of further ones, one a minute is told",
			CAD_U("layer", report->layer), CAD_U("expert", report->expert), CAD_S("why", report->text),
			CAD_U("not_told", unsaid));
}

static void say_passed_over(struct ex_control *control, const struct ex_load_report *report)
{
	uint64_t unsaid;
	if (may_say(&control->passed_over, &unsaid))
		cad_log_warn("control",
			"an expert did not come from another node, but from the checkpoint; of further ones, one a minute is told",
			CAD_U("layer", report->layer), CAD_U("expert", report->expert),
			CAD_S("why", report->passed_over), CAD_U("not_told", unsaid));
}

/* Where experts have come from since this was said last. */
static void say_loaded(struct ex_control *control)
{
	struct ex_loader_counts counts = ex_loader_counts(control->loader), *said = &control->loads_said;
	if (counts.from_nodes + counts.from_checkpoint == said->from_nodes + said->from_checkpoint)
		return;
	cad_log_info("control", "loaded", CAD_U("from_nodes", counts.from_nodes - said->from_nodes),
		CAD_U("from_checkpoint", counts.from_checkpoint - said->from_checkpoint),
		CAD_U("bytes_per_second", cad_progress_rate(&control->loads)));
	*said = counts;
}

static void drain_reports(void *context)
{
	struct ex_control *control = context;
	struct ex_load_report *report;

	if (!control->member)
		return; /* it has left */

	while ((report = ex_loader_take(control->loader))) {
		if (report->outcome == EX_LOAD_FAILED)
			say_failure(control, report);
		if (report->passed_over[0] && report->outcome != EX_LOAD_UNDER_WAY)
			say_passed_over(control, report);
		if (report->outcome == EX_LOAD_LOADED)
			cad_progress_add(&control->loads, report->read_bytes);
		send_report(control, report);
		free(report);
	}

	if (ex_loader_waiting(control->loader) == 0)
		say_loaded(control);
	if (ex_loader_waiting(control->loader) == 0 && atomic_load(&control->joined) &&
		!atomic_exchange(&control->ready, true))
		cad_log_info("control", "ready", CAD_U("experts", ex_engine_held(control->options.engine)),
			CAD_U("weights_bytes", ex_engine_memory_used(control->options.engine)));
}

static void ring(void *context) { cad_rpc_wakeup_send(context); }

/* ---- life ---- */

void ex_control_destroy(struct ex_control *control)
{
	if (!control)
		return;
	ex_loader_destroy(control->loader);
	ex_report_destroy(control->report);
	free(control->held);
	free(control->held_list);
	free(control);
}

enum cad_status ex_control_create(
	const struct ex_control_options *options, struct ex_control **control, struct cad_error *error)
{
	struct ex_control *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the control part");

	made->options = *options;
	made->spec = cad_model_spec(ex_engine_model(options->engine));
	cadre__v1__node_speed__init(&made->speed);
	made->speed.read_bytes_per_second = options->speed.read_bytes_per_second;
	made->speed.multiply_adds_per_second = options->speed.multiply_adds_per_second;
	made->speed.step_us = options->speed.step_s * 1e6;
	made->speed.given = options->speed.given;
	cad_model_fingerprint(ex_engine_model(options->engine), made->model_fingerprint);
	size_t experts = (size_t)made->spec->layers_count * made->spec->gate.experts;
	made->held = calloc(experts, sizeof *made->held);
	made->held_list = calloc(experts, sizeof *made->held_list);
	enum cad_status status = made->held && made->held_list &&
			ex_report_create(ex_engine_work(options->engine), &made->report) == CAD_OK
		? CAD_OK
		: cad_error_set(error, CAD_ERR_MEMORY, "no memory for the control part");
	cad_rpc_wakeup_init(&made->reports, options->self.reactor, drain_reports, made);
	if (status == CAD_OK)
		status = ex_loader_create(
			&(struct ex_loader_options){
				.engine = options->engine,
				.threads = options->load_threads,
				.ask = options->ask,
				.asker = options->asker,
				.metrics = options->metrics,
				.changed = ring,
				.context = &made->reports,
			},
			&made->loader, error);
	if (status == CAD_OK)
		status = cad_member_create(
			&(struct cad_member_options){
				.self = options->self,
				.context = made,
				.hello = hello,
				.load = load,
				.map = take_map,
				.order_load = order_load,
				.order_free = order_free,
				.order_peers = order_peers,
				.welcome = welcome,
				.second = report_work,
				.joined = joined,
			},
			&made->member, error);
	if (status != CAD_OK) {
		ex_control_destroy(made);
		return status;
	}

	*control = made;
	return CAD_OK;
}

static void member_closed(void *context)
{
	struct ex_control *control = context;
	control->left(control->left_context);
}

void ex_control_device_failed(struct ex_control *control, const char *why)
{
	Cadre__V1__NodeReport report = CADRE__V1__NODE_REPORT__INIT;
	report.report_case = CADRE__V1__NODE_REPORT__REPORT_DEVICE_FAILURE;
	report.device_failure = (char *)why;
	if (!control->member || cad_member_report(control->member, &report) != CAD_OK)
		cad_log_debug("control", "not joined: the placement service is not told of the device");
}

void ex_control_leave(struct ex_control *control, void (*left)(void *context), void *context)
{
	struct cad_member *member = control->member;
	control->left = left;
	control->left_context = context;
	control->member = NULL;
	cad_member_leave(member, member_closed, control); /* first: others may begin to load */
	ex_loader_stop(control->loader);                  /* nothing rings after this */
}

bool ex_control_joined(const struct ex_control *control) { return atomic_load(&control->joined); }
bool ex_control_ready(const struct ex_control *control) { return atomic_load(&control->ready); }
void ex_control_apart(const struct ex_control *control, char text[CAD_NOTE_BYTES])
{
	cad_note_get(&control->apart, text);
}
uint64_t ex_control_epoch(const struct ex_control *control) { return atomic_load(&control->epoch); }
uint32_t ex_control_waiting(const struct ex_control *control) { return ex_loader_waiting(control->loader); }
