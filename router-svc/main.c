/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cadre-router: wiring. The main thread serves gRPC, the placement stream and signals; one thread
 * runs the engine; libmicrohttpd has its own.
 * With --local-experts the experts are in this process (embedded/), and there is no placement
 * service.
 */
#include "common/base/address.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/note.h"
#include "common/base/workers.h"
#include "common/cluster/member.h"
#include "common/cluster/own_address.h"
#include "common/cluster/settings_message.h"
#include "common/model/model.h"
#include "common/process/service.h"
#include "common/rpc/reactor.h"
#include "common/rpc/tls.h"
#include "common/transport/ucx.h"
#include "embedded/embedded.h"
#include "router-svc/control.h"
#include "router-svc/engine_metrics.h"
#include "router-svc/frontend/frontend.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READY_POLL_MS = 20 };

enum ready_means { READY_CONNECTED, READY_GENERATING };

struct options {
	struct cad_service_options service; /* the first: cad_service_log */
	bool local_experts;
	enum kn_isa isa;
	uint32_t threads, context_max, step_tokens, chunk, sequences_max, queue_max, streams_per_client, micro_batches;
	uint64_t kv_memory, call_timeout_ns, breaker_p99_ns, stream_stall_ns, drain_delay_ns;
	enum ready_means ready_means;
	enum rt_capacity_policy capacity_policy;
	double step_stretch, capacity_factor, hedge_max;
	enum rt_absent_policy absent_experts;
	struct cad_settings settings;
};

static const struct cad_choice ready_choices[] = { { "connected", READY_CONNECTED }, { "generating", READY_GENERATING },
	{ NULL, 0 } };

static const struct cad_choice policy_choices[] = { { "none", RT_CAPACITY_NONE }, { "drop", RT_CAPACITY_DROP },
	{ "spill", RT_CAPACITY_SPILL }, { NULL, 0 } };

static const struct cad_choice absent_choices[] = { { "wait", RT_ABSENT_WAIT }, { "fail", RT_ABSENT_FAIL },
	{ "renormalise", RT_ABSENT_RENORMALISE }, { NULL, 0 } };

static const struct cad_option table[] = {
	CAD_SERVICE_OPTIONS(struct options, service, ":7101", ""),
	CAD_SERVICE_GRPC_OPTIONS(struct options, service, ":7100"),
	CAD_SERVICE_TLS_OPTIONS(struct options, service,
		", to show to clients, who are then served over TLS, and to the placement service",
		"the certificates of clients, and the placement service's, which is then reached over TLS"),
	CAD_SERVICE_ACCESS_OPTIONS(struct options, service),
	CAD_SERVICE_MEMBER_OPTIONS(struct options, service, ""),
	CAD_SERVICE_PLACEMENT_TLS_OPTIONS(struct options, service),
	CAD_OPTION_BOOL(struct options, local_experts, "local-experts", "false",
		"run the experts in this process, without a placement service"),
	CAD_OPTION_ENUM(struct options, isa, "isa", "auto", kn_isa_choices,
		"instruction set of the kernels; all give the same bits"),
	CAD_OPTION_U32(struct options, threads, "threads", "0", 0, KN_THREADS_MAX,
		"compute threads; 0: the cores of this process, or its CPU quota rounded up if that is less"),
	CAD_OPTION_BYTES(struct options, kv_memory, "kv-memory", "1G", 4096, UINT64_MAX / 2, "memory of the KV cache"),
	CAD_OPTION_U32(struct options, context_max, "context-max", "0", 0, CAD_POSITIONS_MAX,
		"tokens that a prompt and its answer may have together; 0: as many as the model's rotary scaling is meant for, at least max_position_embeddings"),
	CAD_OPTION_U32(struct options, step_tokens, "step-tokens", "512", 1, 65536, "maximum rows of one step"),
	CAD_OPTION_U32(struct options, chunk, "chunk", "0", 0, 65536,
		"maximum rows of one prompt in a step; 0: as many as fit"),
	CAD_OPTION_F64(struct options, step_stretch, "step-stretch", "2.5", 0, 1000,
		"while answers are generated, a step takes on prompts until it takes so many times as long as without, by what steps were measured to take; at least 1; 0: no limit"),
	CAD_OPTION_U32(
		struct options, sequences_max, "sequences-max", "64", 1, 4096, "maximum sequences that run at once"),
	CAD_OPTION_U32(struct options, queue_max, "queue-max", "256", 0, 65536,
		"further sequences that may wait, or are paused because their clients do not read; beyond that, RESOURCE_EXHAUSTED"),
	CAD_OPTION_U32(struct options, micro_batches, "micro-batches", "0", 0, RT_MICRO_BATCHES_MAX,
		"parts of a step, so that attention and experts overlap; 0: when it pays"),
	CAD_OPTION_DURATION(struct options, call_timeout_ns, "call-timeout", "10s", CAD_NS_PER_MS, 3600 * CAD_NS_PER_S,
		"an expert call that takes longer is sent again"),
	CAD_OPTION_DURATION(struct options, breaker_p99_ns, "breaker-p99", "500ms", 0, 3600 * CAD_NS_PER_S,
		"an expert node of whose calls more than 1 of 100 take longer is left out while others have copies; 0s: no time is too long"),
	CAD_OPTION_SHARE(struct options, hedge_max, "hedge-max", "5%", 0, 1,
		"a late expert call is sent to other nodes with copies too, in so many calls more than all others; 0: never"),
	CAD_OPTION_U32(struct options, streams_per_client, "streams-per-client", "32", 0, 65536,
		"answers of one client at a time; beyond that, RESOURCE_EXHAUSTED; a client is its token's name, else its certificate's, else its address: behind a proxy all are one; 0: no limit"),
	CAD_OPTION_DURATION(struct options, stream_stall_ns, "stream-stall", "60s", 0, 24 * 3600 * CAD_NS_PER_S,
		"a call whose client takes nothing for so long while something waits for it ends with RESOURCE_EXHAUSTED; 0s: never"),
	CAD_OPTION_DURATION(struct options, drain_delay_ns, "drain-delay", "0s", 0, 3600 * CAD_NS_PER_S,
		"after SIGTERM or Ctrl-C, take connections and calls for so long, while /readyz already says no: for load balancers; then --drain"),
	CAD_OPTION_ENUM(struct options, ready_means, "ready-means", "connected", ready_choices,
		"what /readyz says; connected: every expert has once been held by a connected node; generating: a token comes out now, as /readyz?generate says in either case"),
	CAD_OPTION_ENUM(struct options, capacity_policy, "capacity-policy", "none", policy_choices,
		"what happens to a row whose expert is full; none: no expert ever is"),
	CAD_OPTION_F64(struct options, capacity_factor, "capacity-factor", "1.0", 0.01, 1000.0,
		"capacity = ceil(factor * rows * k / experts) rows per expert and step"),
	CAD_OPTION_ENUM(struct options, absent_experts, "absent-experts", "wait", absent_choices,
		"what happens to a row whose expert no node holds, on a router that was ready once; wait: for the next map; fail: its request ends with UNAVAILABLE; renormalise: the weights of the experts that are left share its weight, which the answer tells"),
	CAD_SETTINGS_OPTIONS(struct options, settings, "with --local-experts: "),
};

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct options *o = values;
	bool placement = o->service.placement[0] != 0;

	if (o->step_stretch > 0 && o->step_stretch < 1)
		return cad_error_set(error, CAD_ERR_INVALID,
			"--step-stretch %g is between 0 and 1: give 1 or more, or 0 for no limit", o->step_stretch);
	if (!o->local_experts && !placement)
		return cad_error_set(error, CAD_ERR_INVALID,
			"give --placement HOST:PORT, or --local-experts to run without a cluster");
	if (o->local_experts && placement)
		return cad_error_set(error, CAD_ERR_INVALID, "--placement and --local-experts exclude each other");
	struct cad_service_addresses at;
	enum cad_status status = cad_service_check(&o->service, &at, error);
	if (status == CAD_OK)
		status = cad_settings_check(&o->settings, error);
	return status == CAD_OK ? cad_transport_ucx_check(at.exchange, o->service.ucx_devices, error) : status;
}

static enum cad_status read_tokenizer(const char *model, struct cad_tokenizer **tokenizer, struct cad_error *error)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/tokenizer.json", model);
	if (cad_file_exists(path))
		return cad_tokenizer_open(path, tokenizer, error);
	cad_log_warn("router", "no tokenizer: prompts must be given as tokens", CAD_S("path", path));
	return CAD_OK;
}

static enum cad_status check_device(const struct options *o, struct cad_error *error)
{
	struct kn_device *device;
	enum cad_status status = kn_device_open(&(struct kn_device_options){ .isa = o->isa }, &device, error);
	if (status == CAD_OK)
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
	struct cad_tokenizer *tokenizer = NULL;
	enum cad_status status = cad_service_check_files(&o->service, error);
	if (status == CAD_OK)
		status = cad_model_check(o->service.model, error);
	if (status == CAD_OK)
		status = read_tokenizer(o->service.model, &tokenizer, error);
	cad_tokenizer_close(tokenizer);
	if (status == CAD_OK)
		status = check_device(o, error);
	return status == CAD_OK && !o->local_experts ? check_exchange(o, error) : status;
}

static const struct cad_options_spec spec = {
	.program = "cadre-router",
	.summary =
		"Serves a Mixture-of-Experts model over gRPC: runs attention and gating, sends rows to expert nodes.",
	.table = table,
	.count = sizeof table / sizeof *table,
	.check = check,
	.check_files = check_files,
	.log = cad_service_log,
};

struct program {
	struct options options;
	struct cad_service service;
	char grpc_address[CAD_ADDRESS_BYTES], settings_fingerprint[33], model_fingerprint[33],
		settings_text[CADRE_TEXT_BYTES];
	uv_timer_t ready_timer; /* until it is ready; then for --drain-delay */
	struct cad_rpc_reactor *reactor;
	struct cad_tokenizer *tokenizer;
	struct rt_frontend *frontend;
	struct rt_engine_metrics *engine_metrics;
	_Atomic(struct rt_control *) control; /* the HTTP thread is there before it */
	struct em_embedded *embedded;
	/* Without --local-experts these are main's own. */
	struct cad_model *own_model;
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_cluster_facts facts;
	struct cad_own_address own_address;
	struct rt_engine *own_engine;
	/* Either way. */
	const struct cad_model *model;
	struct rt_engine *engine;
	const char *isa_name;
	unsigned threads;
	pthread_t engine_thread;
	struct cad_note waits_for; /* before the start is over */
	_Atomic bool started, ready, stopping;
};

/* ---- the engine ---- */

static enum cad_status create_ucx(void *context, const struct cad_transport_options *options,
	struct cad_transport **transport, struct cad_error *error)
{
	const struct program *p = context;
	struct cad_ucx_options ucx = {
		.devices = p->options.service.ucx_devices,
		.transports = p->options.service.ucx_transports,
		.listen = p->service.at.exchange,
	};
	return cad_transport_ucx_create(options, &ucx, transport, error);
}

static void on_exchange_address(void *context, const char *address)
{
	struct program *p = context;
	cad_own_address_set(&p->own_address, address);
}

static struct rt_policies policies(const struct options *o)
{
	return (struct rt_policies){
		.capacity = o->capacity_policy,
		.capacity_factor = (float)o->capacity_factor,
		.absent = o->absent_experts,
	};
}

static void engine_options(const struct program *p, struct rt_engine_options *options)
{
	const struct options *o = &p->options;
	*options = (struct rt_engine_options){
		.step_tokens_max = o->step_tokens,
		.chunk_tokens_max = o->chunk,
		.step_stretch = o->step_stretch,
		.sequences_max = o->sequences_max,
		.queue_max = o->queue_max,
		.kv_bytes = o->kv_memory,
		.context_max = o->context_max,
		.micro_batches = o->micro_batches,
		.call_timeout_ms = (uint32_t)(o->call_timeout_ns / CAD_NS_PER_MS),
		.breaker_p99_ns = p->options.local_experts ? 0 : o->breaker_p99_ns,
		.hedge_max = p->options.local_experts ? 0 : o->hedge_max,
		.policies = policies(o),
		.on_event = rt_frontend_on_event,
	};
}

static enum cad_status create_embedded(struct program *p, struct cad_error *error)
{
	struct em_options options = {
		.model = p->options.service.model,
		.isa = p->options.isa,
		.threads = p->threads,
		.settings = p->options.settings,
	};

	engine_options(p, &options.router);
	enum cad_status status = em_create(&options, &p->embedded, error);
	if (status != CAD_OK)
		return status;
	p->model = em_model(p->embedded);
	p->engine = em_router(p->embedded);
	p->isa_name = em_isa_name(p->embedded);
	cad_settings_fingerprint(em_settings(p->embedded), p->settings_fingerprint);
	cad_settings_text(em_settings(p->embedded), p->settings_text);

	return CAD_OK;
}

/* The model, and that it is the one that the cluster serves. */
static enum cad_status open_model(struct program *p, struct cad_error *error)
{
	const struct cad_service_options *o = &p->options.service;
	enum cad_status status = cad_model_open(o->model, &p->own_model, error);
	if (status != CAD_OK)
		return status;

	p->model = p->own_model;
	cad_model_fingerprint(p->model, p->model_fingerprint);
	status = cad_cluster_ask(
		o->placement, &p->service.placement, &p->waits_for, cad_service_interrupted, NULL, &p->facts, error);
	if (status != CAD_OK)
		return status;

	uint32_t layers = cad_model_spec(p->model)->layers_count;
	if (strcmp(p->model_fingerprint, p->facts.model_fingerprint) != 0)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"the checkpoint in '%s' (fingerprint %s) is not the one that cluster '%s' serves (%s): use the same files",
			o->model, p->model_fingerprint, p->facts.cluster, p->facts.model_fingerprint);
	if (p->facts.settings.layers != layers)
		return cad_error_set(error, CAD_ERR_PROTOCOL,
			"the placement service's quantum table has %u layers, the model %u", p->facts.settings.layers,
			layers);

	cad_settings_fingerprint(&p->facts.settings, p->settings_fingerprint);
	cad_settings_text(&p->facts.settings, p->settings_text);
	return CAD_OK;
}

static enum cad_status open_device(struct program *p, struct cad_error *error)
{
	enum cad_status status =
		kn_device_open(&(struct kn_device_options){ .isa = p->options.isa }, &p->device, error);
	if (status != CAD_OK)
		return status;

	struct kn_device_info info;
	p->device->ops->describe(p->device, &info);
	p->isa_name = info.isa;
	enum cad_profile profile = p->facts.settings.router_profile;
	if (!(info.profiles >> profile & 1))
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"device '%s' (%s) does not compute in profile '%s', which is that of the cluster's routers",
			info.name, info.isa, cad_profile_name(profile));
	status = p->device->ops->queue_create(p->device, p->threads, &p->queue);
	return status == CAD_OK ? CAD_OK : cad_error_set(error, status, "cannot start %u compute threads", p->threads);
}

/* Its thread starts after control is there. */
static void on_reach(void *user)
{
	struct program *p = user;
	rt_control_reach_changed(atomic_load(&p->control));
}

static enum cad_status create_engine(struct program *p, struct cad_error *error)
{
	const struct cad_settings *settings = &p->facts.settings;
	struct rt_engine_options options;

	engine_options(p, &options);
	options.model = p->model;
	options.device = p->device;
	options.queue = p->queue;
	options.weights = cad_settings_router_weights(settings);
	options.kv = settings->kv;
	options.wire = settings->wire;
	options.quanta = settings->quanta;
	options.transport_create = create_ucx;
	options.transport_context = p;
	options.on_reach = on_reach;
	options.telemetry = true;
	options.user = p;
	options.on_exchange_address = on_exchange_address;
	cad_own_address_init(&p->own_address);
	cad_transport_options_default(&options.transport);
	options.transport.secret = p->service.secret;
	cad_identity_fill(&options.transport.identity, p->facts.cluster, p->service.id, p->model_fingerprint, settings);
	enum cad_status status = cad_workers_create(kn_threads_default(), &p->device->workers, error);
	if (status == CAD_OK)
		status = rt_engine_create(&options, &p->own_engine, error);
	p->engine = p->own_engine;
	cad_workers_destroy(p->device->workers); /* it is loaded */
	p->device->workers = NULL;

	return status;
}

static void *run_engine(void *context)
{
	rt_engine_run(context);
	return NULL;
}

/* ---- readiness and the end ---- */

/* Becomes ready when every expert is reachable and stays ready: if a node dies later, requests wait
 * for its experts instead of being refused. */
static void look_ready(uv_timer_t *timer)
{
	struct program *p = timer->data;
	if (!rt_engine_ready(p->engine))
		return;
	uv_timer_stop(timer);
	atomic_store(&p->ready, true);
	rt_frontend_set_serving(p->frontend, true);
	rt_frontend_refuse(p->frontend, "");
	cad_log_info("router", "ready", CAD_S("grpc", p->grpc_address),
		CAD_S("http", cad_admin_address(p->service.admin)), CAD_S("model", p->options.service.model),
		CAD_S("isa", p->isa_name), CAD_U("threads", p->threads));
}

/* What a router waits for that is not ready; a refusal is said in the words of who refuses. */
static void say_waiting(struct program *p, char *text, size_t text_bytes)
{
	struct rt_control *control = atomic_load(&p->control);
	char why[CAD_NOTE_BYTES] = "";

	if (!atomic_load(&p->started)) {
		cad_note_get(&p->waits_for, why);
		snprintf(text, text_bytes, "%s", why);
		return;
	}

	if (control)
		rt_control_apart(control, why);
	if (why[0]) {
		snprintf(
			text, text_bytes, "not joined; placement service at %s: %s", p->options.service.placement, why);
		return;
	}
	rt_engine_missing(p->engine, why);
	snprintf(text, text_bytes, "waiting for expert nodes: %s", why);
}

/* Whoever is refused from the start on never serves, so that clients do better elsewhere. One that was
 * ready goes on with the last map. */
static void on_refused(void *context, bool refused)
{
	struct program *p = context;
	char why[CAD_ERROR_TEXT_BYTES] = "";

	if (refused && !atomic_load(&p->ready))
		say_waiting(p, why, sizeof why);
	rt_frontend_refuse(p->frontend, why);
}

/* As the cluster was told to: at the start by its facts, later whenever this router joins. */
static void on_routing(void *context, bool aggregate)
{
	struct program *p = context;
	rt_frontend_aggregate(p->frontend, aggregate);
	rt_engine_metrics_aggregate(p->engine_metrics, aggregate);
}

static bool admin_ready(void *context, char *text, size_t text_bytes)
{
	struct program *p = context;
	bool stopping = atomic_load(&p->stopping), ready = atomic_load(&p->ready);
	struct rt_control *control = atomic_load(&p->control);
	char discounted[CAD_NOTE_BYTES] = "";

	if (control)
		rt_control_discounted(control, discounted);
	if (stopping || (ready && !discounted[0]))
		snprintf(text, text_bytes, "%s", stopping ? "stopping" : "ready");
	else if (discounted[0])
		snprintf(text, text_bytes, "%s", discounted);
	else
		say_waiting(p, text, text_bytes);
	return ready && !stopping && !discounted[0];
}

/* More than having been connected once: tokens come out. */
static enum cad_status admin_generates(void *context, char *text, size_t text_bytes)
{
	struct program *p = context;
	char why[CAD_NOTE_BYTES], missing[CAD_NOTE_BYTES];

	if (!admin_ready(context, text, text_bytes))
		return CAD_ERR_REFUSED;
	enum cad_status status = rt_frontend_generates(p->frontend, why);
	rt_engine_missing(p->engine, missing);
	if (status == CAD_OK)
		snprintf(text, text_bytes, "generating");
	else if (missing[0])
		snprintf(text, text_bytes, "%s; expert nodes: %s", why, missing);
	else
		snprintf(text, text_bytes, "%s", why);
	return status;
}

static void stop_loop(void *context)
{
	struct program *p = context;
	cad_service_unwatch(&p->service);
	cad_rpc_reactor_stop(p->reactor);
}

static void frontend_gone(void *context)
{
	struct program *p = context;
	struct rt_control *control = atomic_load(&p->control);
	if (control)
		rt_control_leave(control, stop_loop, p); /* maps are wanted until the last request is done */
	else
		stop_loop(p);
}

static void drain(uv_timer_t *timer)
{
	struct program *p = timer->data;
	unsigned drain_ms = (unsigned)(p->options.service.drain_ns / CAD_NS_PER_MS);

	cad_log_info("router", "stopping; running requests may finish",
		CAD_U("requests", rt_frontend_streams(p->frontend)), CAD_U("drain_ms", drain_ms));
	uv_close((uv_handle_t *)timer, NULL);
	rt_frontend_drain(p->frontend, drain_ms, frontend_gone, p);
}

/* Whoever distributes the clients sees it in time, and sends none that would be refused. */
static void announce_stop(struct program *p)
{
	uint64_t delay_ms = p->options.drain_delay_ns / CAD_NS_PER_MS;

	cad_log_info(
		"router", "about to stop: not ready any more, but still serving", CAD_U("drain_delay_ms", delay_ms));
	rt_frontend_set_serving(p->frontend, false);
	uv_update_time(&p->service.loop);
	uv_timer_start(&p->ready_timer, drain, delay_ms, 0);
}

static void on_signal(void *context, int number)
{
	struct program *p = context;
	if (atomic_exchange(&p->stopping, true)) {
		cad_log_warn("router", "second signal: stopping now");
		_exit(128 + number);
	}
	if (atomic_load(&p->ready) && p->options.drain_delay_ns > 0)
		announce_stop(p);
	else
		drain(&p->ready_timer);
}

/* ---- main ---- */

static enum cad_status open_tokenizer(struct program *p, struct cad_error *error)
{
	return read_tokenizer(p->options.service.model, &p->tokenizer, error);
}

static enum cad_status create_server(struct program *p, struct cad_error *error)
{
	const struct options *o = &p->options;
	const struct rt_frontend_options frontend = {
		.reactor = p->reactor,
		.engine = rt_frontend_engine(p->engine),
		.model = p->model,
		.tokenizer = p->tokenizer,
		.settings_fingerprint = p->settings_fingerprint,
		.settings = p->settings_text,
		.policies = policies(o),
		.callers = {
			.bearers = &p->service.bearers,
			.certificates = o->service.tls_authority[0],
			.audit = &p->service.audit,
		},
		.streams_per_client = o->streams_per_client,
		.stall_ms = (uint32_t)((o->stream_stall_ns + CAD_NS_PER_MS - 1) / CAD_NS_PER_MS),
		.metrics = p->service.metrics,
	};
	if (p->tokenizer)
		cad_tokenizer_pad(p->tokenizer, cad_model_spec(p->model)->vocab);
	enum cad_status status = rt_frontend_create(&frontend, &p->frontend, error);
	if (status != CAD_OK)
		return status;

	rt_frontend_aggregate(p->frontend, p->facts.routing_aggregate); /* of no cluster: false */
	status = rt_engine_metrics_create(p->service.metrics, p->engine, cad_model_spec(p->model), &frontend.policies,
		!p->facts.routing_aggregate, &p->engine_metrics);
	return status == CAD_OK ? CAD_OK : cad_error_set(error, status, "no memory for metrics");
}

static enum cad_status listen_for_clients(struct program *p, struct cad_error *error)
{
	uint16_t port = 0;
	enum cad_status status =
		rt_frontend_listen(p->frontend, p->service.at.grpc, cad_service_tls(&p->service), &port, error);

	if (status == CAD_OK)
		cad_address_taken(p->service.at.grpc, port, p->grpc_address, sizeof p->grpc_address);
	return status;
}

static enum cad_status create_http(struct program *p, struct cad_error *error)
{
	cad_note_put(&p->waits_for, "starting: the model has not been read yet");
	const struct cad_service_health health = {
		.ready = admin_ready,
		.generates = admin_generates,
		.ready_generates = p->options.ready_means == READY_GENERATING,
		.context = p,
	};
	return cad_service_http(&p->service, &health, error);
}

static enum cad_status create_reactor(struct program *p, struct cad_error *error)
{
	return cad_rpc_reactor_create(&p->service.loop, &p->reactor, error);
}

static enum cad_status start_engine(struct program *p, struct cad_error *error)
{
	if (pthread_create(&p->engine_thread, NULL, run_engine, p->engine) != 0)
		return cad_error_set(error, CAD_ERR_MEMORY, "cannot start the engine's thread");
	return CAD_OK;
}

static enum cad_status join_cluster(struct program *p, struct cad_error *error)
{
	const struct rt_control_options options = {
		.self = {
			.reactor = p->reactor,
			.placement = p->options.service.placement,
			.access = &p->service.placement,
			.id = p->service.id,
			.http_address = cad_admin_address(p->service.admin),
			.isa = p->isa_name,
			.threads = p->threads,
			.cluster = p->facts.cluster,
			.secret = p->service.secret,
			.settings = &p->facts.settings,
			.own_address = &p->own_address,
		},
		.engine = p->engine,
		.grpc_address = p->grpc_address,
		.model_fingerprint = p->model_fingerprint,
		.refused = on_refused,
		.routing = on_routing,
		.context = p,
	};
	struct rt_control *control;
	enum cad_status status = rt_control_create(&options, &control, error);
	if (status == CAD_OK)
		atomic_store(&p->control, control);

	return status;
}

static enum cad_status watch(struct program *p, struct cad_error *error)
{
	p->service.tls = &cad_rpc_service_tls;
	return cad_service_watch(&p->service, on_signal, p, error);
}

typedef enum cad_status startup_fn(struct program *p, struct cad_error *error);

/* In this order. The HTTP port comes first: a router that reads a large model, or waits for the
 * placement service, is seen to be alive. */
static const struct {
	startup_fn *in_cluster, *alone;
} startup[] = {
	{ create_reactor, create_reactor },
	{ create_http, create_http },
	{ open_tokenizer, open_tokenizer },
	{ open_model, create_embedded },
	{ open_device, NULL },
	{ create_engine, NULL },
	{ create_server, create_server },
	{ listen_for_clients, listen_for_clients },
	{ join_cluster, NULL },
	{ start_engine, start_engine },
	{ watch, watch },
};

static enum cad_status start(struct program *p, struct cad_error *error)
{
	p->threads = p->options.threads > 0 ? p->options.threads : kn_threads_default();
	for (size_t i = 0; i < sizeof startup / sizeof startup[0]; i++) {
		startup_fn *make = p->options.local_experts ? startup[i].alone : startup[i].in_cluster;
		enum cad_status status = make ? make(p, error) : CAD_OK;
		if (status != CAD_OK)
			return status;
	}

	rt_frontend_start(p->frontend);
	atomic_store(&p->started, true);
	uv_timer_init(&p->service.loop, &p->ready_timer);
	p->ready_timer.data = p;
	uv_timer_start(&p->ready_timer, look_ready, 0, READY_POLL_MS);

	return CAD_OK;
}

/* After the reactor has stopped: everything else, users before what they use. */
static void finish(struct program *p)
{
	rt_engine_stop(p->engine);
	pthread_join(p->engine_thread, NULL);
	cad_service_unhttp(&p->service);
	if (p->embedded)
		em_destroy(p->embedded);
	rt_engine_destroy(p->own_engine);
	cad_rpc_reactor_destroy(p->reactor);
	rt_control_destroy(atomic_load(&p->control));
	rt_frontend_destroy(p->frontend);
	cad_service_fini(&p->service);
	rt_engine_metrics_destroy(p->engine_metrics);
	if (p->queue)
		p->device->ops->queue_destroy(p->queue);
	if (p->device)
		p->device->ops->destroy(p->device);
	cad_settings_fini(&p->facts.settings);
	if (p->own_model)
		cad_model_close(p->own_model);
	cad_tokenizer_close(p->tokenizer);
}

/* In a cluster the placement service says them, to every process alike. */
static void warn_of_settings(const struct cad_options *options)
{
	static const char *const names[] = { "wire", "numerics", "router-numerics", "weights", "kv" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(cad_options_source(options, names[i]), "default") != 0)
			cad_log_warn("router", "an option has no effect: in a cluster the placement service says this",
				CAD_S("option", names[i]), CAD_S("from", cad_options_source(options, names[i])));
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
	enum cad_status status = cad_service_init(&p->service, "router", &p->options.service, parsed, &error);
	if (status == CAD_OK && !p->options.local_experts)
		warn_of_settings(parsed);
	if (status == CAD_OK)
		status = start(p, &error);
	if (status != CAD_OK)
		/* The process ends here, and with it everything that was made so far. */
		_exit(cad_service_failed(&p->service, &error));

	cad_rpc_reactor_run(p->reactor);
	finish(p);
	cad_options_destroy(parsed);
	cad_log_info("router", "stopped");

	return 0;
}
