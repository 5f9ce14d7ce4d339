/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cadre-expert: holds the experts that the placement service gives it and answers the calls of
 * routers.
 *
 *   exchange thread   polls the transport (UCX): calls to the engine, answers back (exchange.c)
 *   compute thread    runs steps (engine.c), on a queue of --threads threads
 *   load threads      pack experts, from other nodes or the checkpoint (loader.c)
 *   watch thread      looks after a device that can fail (watch.c)
 *   giver thread      unpacks experts for other nodes, in the background (transfer/giver.c)
 *   main thread       the placement service's stream (control.c), signals
 *   HTTP thread       /metrics, /healthz, /readyz
 */
#include "common/base/address.h"
#include "common/base/log.h"
#include "common/base/note.h"
#include "common/base/version.h"
#include "common/base/workers.h"
#include "common/cluster/member.h"
#include "common/cluster/own_address.h"
#include "common/cluster/settings_message.h"
#include "common/model/model.h"
#include "common/process/service.h"
#include "common/rpc/reactor.h"
#include "common/rpc/tls.h"
#include "common/transport/exchange_address.h"
#include "common/transport/ucx.h"
#include "expert-svc/control.h"
#include "expert-svc/engine.h"
#include "expert-svc/exchange.h"
#include "expert-svc/loader.h"
#include "expert-svc/speed.h"
#include "expert-svc/watch.h"
#include "kernels/packed.h"
#include "kernels/source.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
	struct cad_service_options service; /* the first: cad_service_log */
	const char *advertise, *cluster, *device;
	uint64_t memory, spin_ns, credit_bytes;
	uint32_t memory_nodes, threads, load_threads, requests_max, rows_max, step_rows, step_pairs, connections_max,
		credit_calls;
	struct ex_speed speed;
	enum kn_isa isa;
};

static const struct cad_option table[] = {
	CAD_SERVICE_OPTIONS(struct options, service, "", "; empty: port 7401 with --cluster-network, else any"),
	CAD_SERVICE_TLS_OPTIONS(struct options, service, ", to show to the placement service",
		"the placement service's certificate; it is then reached over TLS"),
	CAD_SERVICE_MEMBER_OPTIONS(struct options, service, NULL),
	CAD_OPTION_STRING(struct options, advertise, "advertise", "",
		"no longer used: the exchange itself knows how routers reach it"),
	CAD_OPTION_STRING(
		struct options, cluster, "cluster", "", "refuse to join a cluster with another name; empty: any"),
	CAD_OPTION_BYTES(struct options, memory, "memory", "0", 0, UINT64_MAX,
		"memory for expert weights; 0: four fifths of what is free at start, or what a GPU has but for a reserve"),
	CAD_OPTION_U32(struct options, memory_nodes, "memory-nodes", "1", 1, CAD_NODES_MAX,
		"expert nodes on this machine, or on its GPU, which share that"),
	CAD_OPTION_U32(struct options, threads, "threads", "0", 0, KN_THREADS_MAX,
		"compute threads; 0: the cores of this process, or its CPU quota rounded up if that is less"),
	CAD_OPTION_U32(struct options, load_threads, "load-threads", "1", 1, 16,
		"threads that load experts during serving, when no other thread wants the core"),
	CAD_OPTION_FORM(struct options, device, "device", "cpu", kn_device_forms,
		"what computes: the CPU, or GPU N, from 0, which no GPU has been tested for yet; emu is a GPU that the CPU plays, slowly, for tests; both in all profiles but bf16, and in bf16-sm90 on compute capability 9.0 alone"),
	CAD_OPTION_ENUM(struct options, isa, "isa", "auto", kn_isa_choices,
		"instruction set of the CPU's kernels; all give the same bits"),
	CAD_OPTION_F64(struct options, speed.given, "speed", "0", 0, 512,
		"how fast this node counts as when experts are placed, in times the median node; 0: by what it measures at start"),
	CAD_OPTION_U32(struct options, requests_max, "requests-max", "256", 1, 65536,
		"calls held at once; further ones are refused"),
	CAD_OPTION_U32(struct options, rows_max, "rows-max", "2048", 1, CADRE_ROWS_MAX, "maximum rows of one call"),
	CAD_OPTION_U32(struct options, step_rows, "step-rows", "2048", 1, CADRE_ROWS_MAX,
		"rows computed together; sizes the activations"),
	CAD_OPTION_U32(struct options, step_pairs, "step-pairs", "8192", 1, CADRE_PAIRS_MAX,
		"pairs of row and expert computed together; sizes the activations"),
	CAD_OPTION_U32(struct options, connections_max, "connections-max", "64", 1, CAD_EXPERT_CONNECTIONS_MAX,
		"routers connected at once; beside them there is room for 32 expert nodes"),
	CAD_OPTION_U32(
		struct options, credit_calls, "credit-calls", "16", 1, 4096, "unanswered calls allowed to each router"),
	CAD_OPTION_BYTES(struct options, credit_bytes, "credit-bytes", "64M", 65536, UINT64_MAX,
		"bytes of unanswered calls allowed to each router"),
	CAD_OPTION_DURATION(struct options, spin_ns, "ucx-spin", "0", 0, CAD_NS_PER_S,
		"how long the exchange polls before it sleeps; only for machines with cores to spare"),
};

static const struct cad_option_alias aliases[] = {
	{ "drain-timeout", "drain", NULL },
	{ "listen", "exchange", NULL },
};

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct options *o = values;
	if (*o->advertise)
		return cad_error_set(error, CAD_ERR_INVALID,
			"--advertise %s: the exchange cannot be reached at another address than its own; leave --advertise out, and name the address of this machine with --exchange HOST:PORT",
			o->advertise);
	struct cad_service_addresses at;
	struct kn_device_options device;
	enum cad_status status = kn_device_parse("device", o->device, &device, error);
	if (status == CAD_OK)
		status = cad_service_check(&o->service, &at, error);
	return status == CAD_OK ? cad_transport_ucx_check(at.exchange, o->service.ucx_devices, error) : status;
}

/* The profile is the cluster's, and not known here: in the one that takes least. */
static enum cad_status check_room(
	const struct options *o, struct kn_device *device, const struct cad_model *model, struct cad_error *error)
{
	static const struct {
		enum cad_profile profile;
		enum cad_weights weights;
	} ways[] = { { CAD_PROFILE_F32, CAD_WEIGHTS_AS_IS }, { CAD_PROFILE_F32, CAD_WEIGHTS_BF16 },
		{ CAD_PROFILE_BF16, CAD_WEIGHTS_BF16_ROWS }, { CAD_PROFILE_BF16_SM90, CAD_WEIGHTS_BF16_SM90 },
		{ CAD_PROFILE_INT8, CAD_WEIGHTS_INT8 }, { CAD_PROFILE_INT4, CAD_WEIGHTS_INT4 } };
	struct kn_device_info info;
	uint64_t least = UINT64_MAX;
	size_t best = 0;

	device->ops->describe(device, &info);
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		struct cad_error ignored;
		if (!(info.profiles >> ways[i].profile & 1) ||
			kn_packed_check_experts(model, ways[i].weights, &ignored) != CAD_OK)
			continue;
		uint64_t bytes = kn_expert_bytes(device, model, ways[i].weights);
		best = bytes < least ? i : best;
		least = bytes < least ? bytes : least;
	}

	if (o->memory == 0 || least == UINT64_MAX || o->memory >= least)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_INVALID,
		"--memory is %llu bytes, and one expert of this model takes %llu, in profile %s, or more: give this node more",
		(unsigned long long)o->memory, (unsigned long long)least, cad_profile_name(ways[best].profile));
}

/* What computes, and whether an expert of the model fits there. */
static enum cad_status check_device(const struct options *o, struct cad_error *error)
{
	struct kn_device_options asked = { .isa = o->isa };
	struct cad_model *model;
	struct kn_device *device;
	enum cad_status status = kn_device_parse("device", o->device, &asked, error);

	if (status == CAD_OK)
		status = kn_device_open(&asked, &device, error);
	if (status != CAD_OK)
		return status;
	status = cad_model_open(o->service.model, &model, error);
	if (status == CAD_OK) {
		status = check_room(o, device, model, error);
		cad_model_close(model);
	}
	device->ops->destroy(device);
	return status;
}

static enum cad_status check_exchange(const struct options *o, struct cad_error *error)
{
	struct cad_service_addresses at;
	enum cad_status status = cad_service_addresses(&o->service, &at, error);
	const struct cad_ucx_options ucx = {
		.devices = o->service.ucx_devices,
		.transports = o->service.ucx_transports,
		.listen = at.exchange,
	};
	return status == CAD_OK ? cad_transport_ucx_try(&ucx, error) : status;
}

static enum cad_status check_files(const void *values, struct cad_error *error)
{
	const struct options *o = values;
	enum cad_status status = cad_service_check_files(&o->service, error);
	if (status == CAD_OK)
		status = cad_model_check(o->service.model, error);
	if (status == CAD_OK)
		status = check_exchange(o, error);
	return status == CAD_OK ? check_device(o, error) : status;
}

static const struct cad_options_spec spec = {
	.program = "cadre-expert",
	.summary = "Holds experts of a model for a Cadre cluster and answers the calls of its routers.",
	.table = table,
	.count = sizeof table / sizeof table[0],
	.aliases = aliases,
	.aliases_count = sizeof aliases / sizeof aliases[0],
	.check = check,
	.check_files = check_files,
	.log = cad_service_log,
};

struct program {
	struct options options;
	struct cad_service service;
	char kernels_fingerprint[33];
	struct cad_model *model;
	struct kn_device *device;
	struct kn_device_info device_info;
	struct ex_watch *watch;
	struct cad_note failure; /* of the device; empty: none */
	struct cad_rpc_wakeup device_failed;
	struct cad_cluster_facts facts;
	struct ex_engine *engine;
	struct ex_memory memory;
	struct ex_exchange exchange;
	struct cad_rpc_reactor *reactor;
	_Atomic(struct ex_control *) control; /* the HTTP thread is there before it */
	uv_timer_t drain_timer;
	struct cad_note waits_for; /* before there is a control */
	/* the way out */
	_Atomic bool draining;
	bool left;
	bool broken; /* the device has failed */
	uint64_t drain_until_ns, quiet_since_ns, calls_seen;
};

enum { DRAIN_TICK_MS = 20, EXCHANGE_STUCK_S = 10 };
static const uint64_t QUIET_NS = 500 * CAD_NS_PER_MS; /* no call for this long: routers have gone elsewhere */

static uint64_t now_ns(void) { return cad_clock_now_ns(&cad_clock_system); }

/* ---- HTTP ---- */

static void say_apart(const struct program *p, const struct ex_control *control, char *text, size_t bytes)
{
	char why[CAD_NOTE_BYTES] = "";

	if (control) {
		ex_control_apart(control, why);
		snprintf(text, bytes, "not joined; placement service at %s: %s", p->options.service.placement,
			why[0] ? why : "no answer yet");
	} else {
		cad_note_get(&p->waits_for, why);
		snprintf(text, bytes, "not joined: %s", why[0] ? why : "starting");
	}
}

static void say_loading(const struct ex_control *control, char *text, size_t bytes)
{
	uint32_t waiting = ex_control_waiting(control);
	if (waiting > 0)
		snprintf(text, bytes, "loading experts: %u left", waiting);
	else
		snprintf(text, bytes, "joined, and has been given no experts yet");
}

static bool is_ready(void *context, char *text, size_t bytes)
{
	struct program *p = context;
	struct ex_control *control = atomic_load(&p->control);
	bool has_been = control && ex_control_ready(control);
	char why[CAD_NOTE_BYTES];

	cad_note_get(&p->failure, why);
	if (why[0]) {
		snprintf(text, bytes, "its device has failed, and it leaves: %s", why);
	} else if (atomic_load(&p->draining)) {
		snprintf(text, bytes, "draining");
	} else if (!has_been && (!control || !ex_control_joined(control))) {
		say_apart(p, control, text, bytes);
	} else if (ex_exchange_shunned(&p->exchange, why)) {
		snprintf(text, bytes, "no router is connected, and the last that tried was refused: %s", why);
	} else if (!has_been) {
		say_loading(control, text, bytes);
	} else {
		return true;
	}
	return false;
}

static bool is_healthy(void *context, char *text, size_t bytes)
{
	struct program *p = context;
	uint64_t silent_ns = ex_exchange_silent_ns(&p->exchange);
	if (silent_ns < EXCHANGE_STUCK_S * CAD_NS_PER_S)
		return true;
	snprintf(text, bytes, "the exchange thread has done nothing for %llu s",
		(unsigned long long)(silent_ns / CAD_NS_PER_S));
	return false;
}

/* ---- the way out ---- */

static void after_leaving(void *context) { ((struct program *)context)->left = true; }

/* Stops when the placement service is left and routers have gone elsewhere, or when time is up. */
static void on_drain_tick(uv_timer_t *timer)
{
	struct program *p = timer->data;
	uint64_t now = now_ns(), calls = ex_engine_stats(p->engine).calls;

	if (calls != p->calls_seen || !ex_engine_idle(p->engine)) {
		p->calls_seen = calls;
		p->quiet_since_ns = now;
	}

	if (!p->left || (now < p->drain_until_ns && now - p->quiet_since_ns < QUIET_NS))
		return;
	uv_close((uv_handle_t *)timer, NULL);
	cad_service_unwatch(&p->service);
	cad_rpc_reactor_stop(p->reactor);
}

static void drain(struct program *p)
{
	p->drain_until_ns = now_ns() + p->options.service.drain_ns;
	p->quiet_since_ns = now_ns();
	uv_timer_start(&p->drain_timer, on_drain_tick, DRAIN_TICK_MS, DRAIN_TICK_MS);
	ex_control_leave(p->control, after_leaving, p);
}

static void on_signal(void *context, int number)
{
	struct program *p = context;
	if (atomic_exchange(&p->draining, true)) {
		cad_log_warn("expert", "second signal: stopping now");
		p->drain_until_ns = 0;
		return;
	}

	cad_log_info("expert", "draining", CAD_S("signal", strsignal(number)),
		CAD_F("seconds", (double)p->options.service.drain_ns * 1e-9));
	drain(p);
}

/* On the reactor's thread. */
static void leave_broken(void *context)
{
	struct program *p = context;
	char why[CAD_NOTE_BYTES];

	cad_note_get(&p->failure, why);
	cad_log_error("expert", "the device has failed: this node computes nothing any more, and leaves",
		CAD_S("device", p->device_info.name), CAD_S("chip", p->device_info.chip), CAD_S("why", why));
	p->broken = true;
	if (atomic_exchange(&p->draining, true))
		return;
	ex_control_device_failed(p->control, why);
	drain(p);
}

/* In the watch's thread. */
static void on_device_failed(void *context, const char *why)
{
	struct program *p = context;
	cad_note_put(&p->failure, why);
	cad_rpc_wakeup_send(&p->device_failed);
}

/* ---- beginning ---- */

static enum cad_status open_model(struct program *p, struct cad_error *error)
{
	enum cad_status status = cad_model_open(p->options.service.model, &p->model, error);
	if (status != CAD_OK)
		return status;

	struct kn_device_options device = { .isa = p->options.isa };
	status = kn_device_parse("device", p->options.device, &device, error);
	if (status == CAD_OK)
		status = kn_device_open(&device, &p->device, error);
	if (status != CAD_OK)
		return status;
	p->device->ops->describe(p->device, &p->device_info);
	if (p->device_info.others_bytes > 0)
		cad_log_warn("expert",
			"other processes have some of this device's memory, and may take its time: give each node a GPU of its own",
			CAD_S("device", p->device_info.name), CAD_S("chip", p->device_info.chip),
			CAD_U("bytes", p->device_info.others_bytes));
	return CAD_OK;
}

/* Of the host's memory, which a process can use too much of. */
static enum cad_status check_memory(struct program *p, struct cad_error *error)
{
	(void)error;
	uint64_t memory = p->options.memory, free_bytes = p->device_info.memory_bytes;
	if (p->device_info.memory_total_bytes == 0 && memory > free_bytes)
		cad_log_warn("expert",
			"--memory exceeds the free memory: this node may be killed before it has used that much",
			CAD_U("memory_bytes", memory), CAD_U("free_bytes", free_bytes));
	return CAD_OK;
}

/* Learns the cluster's settings, and that this is the same model. */
static enum cad_status ask_cluster(struct program *p, struct cad_error *error)
{
	char fingerprint[33];
	enum cad_status status = cad_cluster_ask(p->options.service.placement, &p->service.placement, &p->waits_for,
		cad_service_interrupted, NULL, &p->facts, error);

	if (status != CAD_OK)
		return status;

	cad_model_fingerprint(p->model, fingerprint);
	if (*p->options.cluster && strcmp(p->options.cluster, p->facts.cluster) != 0)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"the placement service at %s belongs to cluster '%s', not to '%s' as --cluster says",
			p->options.service.placement, p->facts.cluster, p->options.cluster);
	if (strcmp(fingerprint, p->facts.model_fingerprint) != 0)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"the checkpoint in '%s' has fingerprint %s, but the cluster serves %s: give --model the same files everywhere",
			p->options.service.model, fingerprint, p->facts.model_fingerprint);

	return CAD_OK;
}

/* All cores pack until the first call comes. */
static enum cad_status start_workers(struct program *p, struct cad_error *error)
{
	return cad_workers_create(kn_threads_default(), &p->device->workers, error);
}

/* Before the engine takes the device's memory. */
static enum cad_status measure_speed(struct program *p, struct cad_error *error)
{
	return ex_speed_find(p->device, p->model, cad_settings_expert_weights(&p->facts.settings), p->options.threads,
		p->service.metrics, &p->options.speed, error);
}

/* Of the kernels that the cluster's settings ask for. */
static enum cad_status fingerprint_kernels(struct program *p, struct cad_error *error)
{
	struct kn_queue *queue;
	enum cad_status status = p->device->ops->queue_create(p->device, 1, &queue);

	if (status != CAD_OK)
		return cad_error_set(error, status, "cannot create a compute queue");

	status = kn_fingerprint(queue, cad_settings_expert_weights(&p->facts.settings), p->kernels_fingerprint, error);
	p->device->ops->queue_destroy(queue);

	return status;
}

static enum cad_status create_watch(struct program *p, struct cad_error *error)
{
	const struct ex_watch_options options = {
		.device = p->device,
		.metrics = p->service.metrics,
		.failed = on_device_failed,
		.context = p,
	};
	cad_rpc_wakeup_init(&p->device_failed, p->reactor, leave_broken, p);
	return ex_watch_create(&options, &p->watch, error);
}

/* In the thread that computes. */
static void on_step_failed(void *context) { ex_watch_look(((struct program *)context)->watch); }

static enum cad_status create_engine(struct program *p, struct cad_error *error)
{
	struct ex_engine_options options;
	ex_engine_options_default(&options);
	options.mode = EX_ENGINE_THREADED;
	options.model = p->model;
	options.device = p->device;
	options.threads = p->options.threads;
	options.settings = &p->facts.settings;
	options.requests_max = p->options.requests_max;
	options.step_rows_max = p->options.step_rows;
	options.step_pairs_max = p->options.step_pairs;
	options.metrics = p->service.metrics;
	options.wake = ex_exchange_wake;
	options.wake_context = &p->exchange;
	options.device_failed = on_step_failed;
	options.device_failed_context = p;

	return ex_engine_create(&options, &p->engine, error);
}

/* What is free counts as it was at start: since then, this process alone has taken any. */
static enum cad_status plan_memory(struct program *p, struct cad_error *error)
{
	return ex_engine_plan(
		p->engine, &p->device_info, p->options.memory, p->options.memory_nodes, &p->memory, error);
}

/* When the probe of the kernels has given back what it took. */
static enum cad_status reserve_memory(struct program *p, struct cad_error *error)
{
	return ex_engine_reserve(p->engine, &p->memory, error);
}

static enum cad_status create_exchange(struct program *p, struct cad_error *error)
{
	const struct options *o = &p->options;
	struct cad_transport_options transport;
	const struct cad_ucx_options ucx = {
		.devices = o->service.ucx_devices,
		.transports = o->service.ucx_transports,
		.listen = p->service.at.exchange,
		.spin_us = (uint32_t)(o->spin_ns / CAD_NS_PER_US),
	};
	char fingerprint[33];

	cad_transport_options_default(&transport);
	cad_model_fingerprint(p->model, fingerprint);
	cad_identity_fill(&transport.identity, p->facts.cluster, p->service.id, fingerprint, &p->facts.settings);
	ex_engine_wire_limits(p->engine, o->rows_max, &transport.limits);
	transport.secret = p->service.secret;
	transport.connections_max = o->connections_max;
	transport.calls_max = o->requests_max;
	transport.credit_calls = o->credit_calls;
	transport.credit_bytes = o->credit_bytes;

	const struct ex_exchange_options options = {
		.engine = p->engine,
		.device = p->device,
		.metrics = p->service.metrics,
		.load_threads = o->load_threads,
		.transport = &transport,
		.ucx = &ucx,
	};
	return ex_exchange_create(&p->exchange, &options, error);
}

static enum cad_status create_http(struct program *p, struct cad_error *error)
{
	ex_exchange_metrics(&p->exchange, p->service.metrics);
	const struct cad_service_health health = { .ready = is_ready, .healthy = is_healthy, .context = p };
	return cad_service_http(&p->service, &health, error);
}

static enum cad_status create_reactor(struct program *p, struct cad_error *error)
{
	uv_timer_init(&p->service.loop, &p->drain_timer);
	p->drain_timer.data = p;
	return cad_rpc_reactor_create(&p->service.loop, &p->reactor, error);
}

/* On the reactor's thread. */
static void on_peers(void *context, const char *const *addresses, size_t count)
{
	struct program *p = context;
	ex_exchange_peers(&p->exchange, addresses, count);
}

static enum cad_status create_control(struct program *p, struct cad_error *error)
{
	struct ex_control_options options = {
		.self = {
			.reactor = p->reactor,
			.placement = p->options.service.placement,
			.access = &p->service.placement,
			.id = p->service.id,
			.http_address = cad_admin_address(p->service.admin),
			.isa = p->device_info.isa,
			.threads = p->options.threads,
			.cluster = p->facts.cluster,
			.secret = p->service.secret,
			.settings = &p->facts.settings,
			.own_address = &p->exchange.own_address,
		},
		.engine = p->engine,
		.load_threads = p->options.load_threads,
		.ask = ex_asker_get,
		.asker = p->exchange.asker,
		.metrics = p->service.metrics,
		.memory_bytes = p->memory.weights_bytes,
		.speed = p->options.speed,
		.kernels_fingerprint = p->kernels_fingerprint,
		.device = &p->device_info,
		.watch = p->watch,
		.peers = on_peers,
		.context = p,
	};
	struct ex_control *control;
	enum cad_status status = ex_control_create(&options, &control, error);
	if (status == CAD_OK)
		atomic_store(&p->control, control);

	return status;
}

static enum cad_status watch(struct program *p, struct cad_error *error)
{
	p->service.tls = &cad_rpc_service_tls;
	return cad_service_watch(&p->service, on_signal, p, error);
}

static enum cad_status start_exchange(struct program *p, struct cad_error *error)
{
	return ex_exchange_start(&p->exchange, error);
}

/* In this order. The HTTP port comes before the wait for the placement service: a node that waits
 * is seen to be alive. The engine refuses a device that lacks the cluster's profile; what is left
 * has weights to count and kernels to fingerprint. */
static enum cad_status (*const startup[])(struct program *p, struct cad_error *error) = {
	open_model,
	check_memory,
	create_reactor,
	create_http,
	ask_cluster,
	start_workers,
	create_watch,
	measure_speed,
	create_engine,
	plan_memory,
	fingerprint_kernels,
	reserve_memory,
	create_exchange,
	create_control,
	watch,
	start_exchange,
};

static enum cad_status start(struct program *p, struct cad_error *error)
{
	if (p->options.threads == 0)
		p->options.threads = kn_threads_default();
	for (size_t i = 0; i < sizeof startup / sizeof startup[0]; i++) {
		enum cad_status status = startup[i](p, error);
		if (status != CAD_OK) {
			if (p->device)
				kn_device_blame(p->device, error);
			return status;
		}
	}
	return CAD_OK;
}

/* After the reactor has run. */
static void stop_serving(struct program *p)
{
	cad_service_unhttp(&p->service);
	ex_exchange_stop(&p->exchange);
}

static void finish(struct program *p)
{
	ex_watch_destroy(p->watch);
	cad_rpc_reactor_destroy(p->reactor);
	ex_control_destroy(atomic_load(&p->control));
	ex_engine_stop(p->engine); /* its thread wakes the exchange */
	ex_exchange_fini(&p->exchange);
	ex_engine_destroy(p->engine);
	cad_workers_destroy(p->device->workers);
	cad_service_fini(&p->service);
	cad_settings_fini(&p->facts.settings);
	p->device->ops->destroy(p->device);
	cad_model_close(p->model);
}

int main(int argc, char **argv)
{
	static struct program program;
	struct program *p = &program;
	struct cad_options *parsed;
	struct cad_error error;
	int exit_code;

	cad_transport_ucx_environment(argv);
	if (!cad_options_main(&spec, argc, argv, &p->options, &parsed, &exit_code))
		return exit_code;
	if (cad_service_init(&p->service, "expert", &p->options.service, parsed, &error) != CAD_OK ||
		start(p, &error) != CAD_OK)
		/* The process ends here, and with it everything that was made so far. */
		_exit(cad_service_failed(&p->service, &error));

	char address[CAD_EXCHANGE_ADDRESS_BYTES], exchange[CAD_ADDRESS_BYTES];
	cad_own_address_get(&p->exchange.own_address, address);
	cad_exchange_address_host(address, exchange);
	cad_log_info("expert", "serving", CAD_S("id", p->service.id), CAD_S("exchange", exchange),
		CAD_S("http", cad_admin_address(p->service.admin)), CAD_S("device", p->device_info.name),
		CAD_S("chip", p->device_info.chip), CAD_S("isa", p->device_info.isa),
		CAD_U("threads", p->options.threads), CAD_U("memory_bytes", p->memory.weights_bytes),
		CAD_S("version", cad_version));
	cad_rpc_reactor_run(p->reactor);
	stop_serving(p);
	if (p->broken) { /* what is left to do asks the device */
		cad_log_error("expert", "stopped: the device has failed");
		_exit(EXIT_FAILURE);
	}
	finish(p);
	cad_options_destroy(parsed);
	cad_log_info("expert", "stopped");

	return 0;
}
