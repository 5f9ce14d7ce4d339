/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cadre-router: wiring. The main thread serves gRPC, the placement stream and signals; one thread
 * runs the engine; libmicrohttpd has its own.
 * With --local-experts the experts are in this process (embedded/), and there is no placement
 * service.
 */
#include "cadre/v1/placement.pb-c.h"
#include "common/base/address.h"
#include "common/process/admin.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/cluster/member.h"
#include "common/process/options.h"
#include "common/process/process.h"
#include "common/rpc/reactor.h"
#include "common/transport/ucx.h"
#include "embedded/embedded.h"
#include "router-svc/engine_metrics.h"
#include "router-svc/frontend/frontend.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum { READY_POLL_MS = 20, DRAIN_MS_DEFAULT = 10000 };

struct options {
	const char *model, *placement, *grpc, *http, *id, *secret_file, *tls_certificate, *tls_key, *tls_authority,
		*token_file, *ucx_devices, *ucx_transports;
	bool local_experts, plaintext_anywhere;
	enum kn_isa isa;
	uint32_t threads, step_tokens, chunk, sequences_max, queue_max, micro_batches;
	uint64_t kv_memory, call_timeout, drain;
	enum rt_capacity_policy capacity_policy;
	double capacity_factor;
	enum cad_weights weights;
	enum cadre_row_type wire;
	enum cad_log_level log_level;
	enum cad_log_format log_format;
};

static const struct cad_choice policy_choices[] = { { "none", RT_CAPACITY_NONE }, { "drop", RT_CAPACITY_DROP },
	{ "spill", RT_CAPACITY_SPILL }, { NULL, 0 } };

static const struct cad_option table[] = {
	CAD_OPTION_STRING(struct options, model, "model", NULL, "directory of the checkpoint"),
	CAD_OPTION_STRING(struct options, placement, "placement", "", "host:port of the placement service"),
	CAD_OPTION_BOOL(struct options, local_experts, "local-experts", "false",
		"run the experts in this process, without a placement service"),
	CAD_OPTION_STRING(struct options, grpc, "grpc", "127.0.0.1:7100", "where clients connect: gRPC, host:port"),
	CAD_OPTION_STRING(struct options, http, "http", "127.0.0.1:7101",
		"where to serve /metrics, /healthz and /readyz, host:port"),
	CAD_OPTION_STRING(
		struct options, id, "id", "", "name of this router in the cluster; empty: host name and process id"),
	CAD_OPTION_ENUM(struct options, isa, "isa", "auto", kn_isa_choices,
		"instruction set of the kernels; all give the same bits"),
	CAD_OPTION_U32(struct options, threads, "threads", "0", 0, KN_THREADS_MAX, "compute threads; 0: all cores"),
	CAD_OPTION_BYTES(struct options, kv_memory, "kv-memory", "1G", 4096, UINT64_MAX / 2, "memory of the KV cache"),
	CAD_OPTION_U32(struct options, step_tokens, "step-tokens", "512", 1, 65536, "maximum rows of one step"),
	CAD_OPTION_U32(struct options, chunk, "chunk", "0", 0, 65536,
		"maximum rows of one prompt in a step; 0: as many as fit"),
	CAD_OPTION_U32(
		struct options, sequences_max, "sequences-max", "64", 1, 4096, "maximum sequences that run at once"),
	CAD_OPTION_U32(struct options, queue_max, "queue-max", "256", 0, 65536,
		"further sequences that may wait; beyond that, RESOURCE_EXHAUSTED"),
	CAD_OPTION_U32(struct options, micro_batches, "micro-batches", "0", 0, RT_MICRO_BATCHES_MAX,
		"parts of a step, so that attention and experts overlap; 0: when it pays"),
	CAD_OPTION_DURATION(struct options, call_timeout, "call-timeout", "10s", CAD_NS_PER_MS, 3600 * CAD_NS_PER_S,
		"an expert call that takes longer is sent again"),
	CAD_OPTION_ENUM(struct options, capacity_policy, "capacity-policy", "none", policy_choices,
		"what happens to a row whose expert is full; none: no expert ever is"),
	CAD_OPTION_F64(struct options, capacity_factor, "capacity-factor", "1.0", 0.01, 1000.0,
		"capacity = ceil(factor * rows * k / experts) rows per expert and step"),
	CAD_OPTION_ENUM(struct options, weights, "weights", "f32", cad_weights_choices,
		"with --local-experts; f32: as stored, lossless; bf16: rounded"),
	CAD_OPTION_ENUM(struct options, wire, "wire", "fix16", cad_wire_choices,
		"with --local-experts: how rows go to the experts"),
	CAD_OPTION_STRING(struct options, secret_file, "secret-file", "", "file with the cluster secret; empty: none"),
	CAD_OPTION_STRING(struct options, ucx_devices, "ucx-devices", "",
		"network devices of the exchange (UCX_NET_DEVICES); empty: loopback"),
	CAD_OPTION_STRING(struct options, ucx_transports, "ucx-transports", "",
		"transports of the exchange (UCX_TLS); empty: tcp"),
	CAD_OPTION_STRING(struct options, tls_certificate, "tls-certificate", "",
		"PEM file with the certificate of the gRPC server"),
	CAD_OPTION_STRING(struct options, tls_key, "tls-key", "", "PEM file with its private key"),
	CAD_OPTION_STRING(struct options, tls_authority, "tls-authority", "",
		"PEM file of a certificate authority; clients must present a certificate signed by it"),
	CAD_OPTION_STRING(struct options, token_file, "token-file", "",
		"file with the bearer token that clients must send; empty: none"),
	CAD_OPTION_BOOL(struct options, plaintext_anywhere, "grpc-plaintext-anywhere", "false",
		"allow gRPC without TLS on addresses other than loopback"),
	CAD_OPTION_DURATION(struct options, drain, "drain", "10s", 0, 3600 * CAD_NS_PER_S,
		"how long running requests may continue after SIGTERM"),
	CAD_OPTION_ENUM(
		struct options, log_level, "log-level", "info", cad_log_level_choices, "lowest level that is logged"),
	CAD_OPTION_ENUM(
		struct options, log_format, "log-format", "logfmt", cad_log_format_choices, "format of log lines"),
};

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct options *o = values;
	if (!o->local_experts && o->placement[0] == 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"give --placement HOST:PORT, or --local-experts to run without a cluster");
	if (o->local_experts && o->placement[0] != 0)
		return cad_error_set(error, CAD_ERR_INVALID, "--placement and --local-experts exclude each other");
	if (o->placement[0] && !cad_address_is_complete(o->placement))
		return cad_error_set(
			error, CAD_ERR_INVALID, "--placement '%s' is not an address: give HOST:PORT", o->placement);
	if (!cad_address_is_complete(o->grpc))
		return cad_error_set(error, CAD_ERR_INVALID,
			"--grpc '%s' is not an address to listen on: give HOST:PORT, for example 127.0.0.1:7100",
			o->grpc);
	if (o->id[0] && !cad_process_name_is_legal(o->id))
		return cad_error_set(error, CAD_ERR_INVALID,
			"--id is '%.80s'; a node's name has at most %d letters, digits and . _ : -", o->id,
			CAD_MAP_ID_BYTES - 1);
	if ((o->tls_certificate[0] != 0) != (o->tls_key[0] != 0))
		return cad_error_set(error, CAD_ERR_INVALID, "--tls-certificate and --tls-key go together");
	if (o->tls_certificate[0] == 0 && !o->plaintext_anywhere && !cad_address_is_loopback(o->grpc))
		return cad_error_set(error, CAD_ERR_INVALID,
			"--grpc %s is not a loopback address: give --tls-certificate and --tls-key, or ask for plaintext with --grpc-plaintext-anywhere",
			o->grpc);

	return CAD_OK;
}

static const struct cad_options_spec spec = {
	.program = "cadre-router",
	.summary =
		"Serves a Mixture-of-Experts model over gRPC: runs attention and gating, sends rows to expert nodes.",
	.table = table,
	.count = sizeof table / sizeof *table,
	.check = check,
};

struct program {
	struct options options;
	char id[CAD_MAP_ID_BYTES], grpc_address[CAD_MAP_ADDRESS_BYTES], settings_fingerprint[33], model_fingerprint[33];
	char *secret, *token;
	uv_loop_t loop;
	uv_timer_t ready_timer;
	struct cad_rpc_reactor *reactor;
	struct cad_signals *signals;
	struct cad_metrics *metrics;
	struct cad_admin *admin;
	struct cad_tokenizer *tokenizer;
	struct rt_frontend *frontend;
	struct rt_engine_metrics *engine_metrics;
	struct cad_member *member;
	struct em_embedded *embedded;
	/* Without --local-experts these are main's own. */
	struct cad_model *own_model;
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_cluster_facts facts;
	struct rt_engine *own_engine;
	/* Either way. */
	const struct cad_model *model;
	struct rt_engine *engine;
	const char *isa_name;
	unsigned threads;
	pthread_t engine_thread;
	bool engine_runs, member_gone, frontend_gone;
	_Atomic bool started, ready, stopping;
};

/* ---- the engine ---- */

static bool interrupted(void *context)
{
	(void)context;
	return cad_signals_pending();
}

static enum cad_status create_ucx(void *context, const struct cad_transport_options *options,
	struct cad_transport **transport, struct cad_error *error)
{
	const struct program *p = context;
	struct cad_ucx_options ucx = {
		.devices = p->options.ucx_devices[0] ? p->options.ucx_devices : NULL,
		.transports = p->options.ucx_transports[0] ? p->options.ucx_transports : NULL,
	};
	return cad_transport_ucx_create(options, &ucx, transport, error);
}

static void engine_options(const struct program *p, struct rt_engine_options *options)
{
	const struct options *o = &p->options;
	*options = (struct rt_engine_options){
		.step_tokens_max = o->step_tokens,
		.chunk_tokens_max = o->chunk,
		.sequences_max = o->sequences_max,
		.queue_max = o->queue_max,
		.kv_bytes = o->kv_memory,
		.micro_batches = o->micro_batches,
		.call_timeout_ms = (uint32_t)(o->call_timeout / CAD_NS_PER_MS),
		.capacity_policy = o->capacity_policy,
		.capacity_factor = (float)o->capacity_factor,
		.on_event = rt_frontend_on_event,
	};
}

static enum cad_status create_embedded(struct program *p, struct cad_error *error)
{
	struct em_options options = {
		.model = p->options.model,
		.isa = p->options.isa,
		.threads = p->threads,
		.weights = p->options.weights,
		.wire = p->options.wire,
	};

	engine_options(p, &options.router);
	enum cad_status status = em_create(&options, &p->embedded, error);
	if (status != CAD_OK)
		return status;
	p->model = em_model(p->embedded);
	p->engine = em_router(p->embedded);
	p->isa_name = em_isa_name(p->embedded);
	cad_settings_fingerprint(em_settings(p->embedded), p->settings_fingerprint);

	return CAD_OK;
}

static enum cad_status create_member_engine(struct program *p, struct cad_error *error)
{
	enum cad_status status = cad_model_open(p->options.model, &p->own_model, error);
	if (status != CAD_OK)
		return status;

	cad_model_fingerprint(p->own_model, p->model_fingerprint);
	status = cad_cluster_ask(p->options.placement, interrupted, NULL, &p->facts, error);
	if (status != CAD_OK)
		return status;
	if (strcmp(p->model_fingerprint, p->facts.model_fingerprint) != 0)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"the checkpoint in '%s' (fingerprint %s) is not the one that cluster '%s' serves (%s): use the same files",
			p->options.model, p->model_fingerprint, p->facts.cluster, p->facts.model_fingerprint);
	if (p->facts.settings.layers != cad_model_spec(p->own_model)->layers_count)
		return cad_error_set(error, CAD_ERR_PROTOCOL,
			"the placement service's quantum table has %u layers, the model %u", p->facts.settings.layers,
			cad_model_spec(p->own_model)->layers_count);
	status = kn_device_open(&(struct kn_device_options){ .isa = p->options.isa }, &p->device, error);
	if (status != CAD_OK)
		return status;
	if (p->device->ops->queue_create(p->device, p->threads, &p->queue) != CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY, "cannot start %u compute threads", p->threads);
	struct rt_engine_options options;
	engine_options(p, &options);
	options.model = p->own_model;
	options.device = p->device;
	options.queue = p->queue;
	options.weights = p->facts.settings.weights;
	options.wire = p->facts.settings.wire;
	options.quanta = p->facts.settings.quanta;
	options.transport_create = create_ucx;
	options.transport_context = p;
	cad_transport_options_default(&options.transport);
	options.transport.secret = p->secret;
	cad_identity_fill(
		&options.transport.identity, p->facts.cluster, p->id, p->model_fingerprint, &p->facts.settings);
	status = rt_engine_create(&options, &p->own_engine, error);
	p->model = p->own_model;
	p->engine = p->own_engine;
	struct kn_device_info info;
	p->device->ops->describe(p->device, &info);
	p->isa_name = info.isa;
	cad_settings_fingerprint(&p->facts.settings, p->settings_fingerprint);

	return status;
}

static void *run_engine(void *context)
{
	rt_engine_run(context);
	return NULL;
}

/* ---- the placement service ---- */

static void fill_hello(void *context, Cadre__V1__NodeHello *hello)
{
	struct program *p = context;
	struct rt_engine_stats stats;

	rt_engine_stats(p->engine, &stats);
	hello->id = p->id;
	hello->role = CADRE__V1__ROLE__ROLE_ROUTER;
	hello->exchange_address = "";
	hello->http_address = (char *)(uintptr_t)cad_admin_address(p->admin);
	hello->grpc_address = p->grpc_address;
	hello->model_fingerprint = p->model_fingerprint;
	hello->version = (char *)(uintptr_t)cad_version;
	hello->isa = (char *)(uintptr_t)p->isa_name;
	hello->threads = p->threads;
	hello->pid = (uint32_t)getpid();
	hello->epoch = stats.epoch;
}

static void fill_load(void *context, Cadre__V1__NodeLoad *load)
{
	struct program *p = context;
	struct rt_engine_stats stats;

	rt_engine_stats(p->engine, &stats);
	load->epoch = stats.epoch;
	load->rows = stats.routed_rows;
	load->calls = stats.calls;
	load->tokens = stats.tokens_generated + stats.tokens_prefilled;
	load->sequences = stats.running;
	load->queue = stats.waiting;
}

static void take_map(void *context, struct cad_map *map)
{
	struct program *p = context;
	rt_engine_map(p->engine, map);
	cad_map_release(map);
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
	cad_log_info("router", "ready", CAD_S("grpc", p->grpc_address), CAD_S("http", cad_admin_address(p->admin)),
		CAD_S("model", p->options.model), CAD_S("isa", p->isa_name), CAD_U("threads", p->threads));
}

static bool admin_ready(void *context, char *text, size_t text_bytes)
{
	struct program *p = context;
	bool stopping = atomic_load(&p->stopping), ready = atomic_load(&p->ready), started = atomic_load(&p->started);

	snprintf(text, text_bytes, "%s",
		stopping          ? "stopping"
			: ready   ? "ready"
			: started ? "waiting for expert nodes"
				  : "starting: the model has not been read yet");
	return ready && !stopping;
}

static void stop_when_gone(struct program *p)
{
	if (!p->member_gone || !p->frontend_gone)
		return;
	cad_signals_close(p->signals);
	cad_rpc_reactor_stop(p->reactor);
}

static void member_gone(void *context)
{
	struct program *p = context;
	p->member_gone = true;
	stop_when_gone(p);
}

static void frontend_gone(void *context)
{
	struct program *p = context;
	p->frontend_gone = true;
	if (p->member)
		cad_member_leave(p->member, member_gone, p); /* maps are wanted until the last request is done */
	else
		member_gone(p);
}

static void on_signal(void *context, int number)
{
	struct program *p = context;
	if (atomic_exchange(&p->stopping, true)) {
		cad_log_warn("router", "second signal: stopping now");
		_exit(128 + number);
	}
	cad_log_info("router", "stopping; running requests may finish",
		CAD_U("requests", rt_frontend_streams(p->frontend)),
		CAD_U("drain_ms", p->options.drain / CAD_NS_PER_MS));
	uv_close((uv_handle_t *)&p->ready_timer, NULL);
	rt_frontend_drain(p->frontend, (unsigned)(p->options.drain / CAD_NS_PER_MS), frontend_gone, p);
}

/* ---- main ---- */

static enum cad_status open_tokenizer(struct program *p, struct cad_error *error)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/tokenizer.json", p->options.model);
	if (cad_file_exists(path))
		return cad_tokenizer_open(path, &p->tokenizer, error);
	cad_log_warn("router", "no tokenizer: prompts must be given as tokens", CAD_S("path", path));
	return CAD_OK;
}

static enum cad_status create_server(struct program *p, struct cad_error *error)
{
	const struct options *o = &p->options;
	const char *tokens[] = { p->token };
	struct rt_frontend_options frontend = {
		.reactor = p->reactor,
		.engine = rt_frontend_engine(p->engine),
		.model = p->model,
		.tokenizer = p->tokenizer,
		.settings_fingerprint = p->settings_fingerprint,
		.capacity_policy = o->capacity_policy,
		.capacity_factor = (float)o->capacity_factor,
		.bearer_tokens = tokens,
		.bearer_tokens_count = p->token != NULL,
		.metrics = p->metrics,
	};
	enum cad_status status = rt_frontend_create(&frontend, &p->frontend, error);
	struct cad_rpc_tls tls = {
		.certificate = o->tls_certificate,
		.key = o->tls_key,
		.authority = o->tls_authority[0] ? o->tls_authority : NULL,
	};
	uint16_t port = 0;

	if (status == CAD_OK)
		status = rt_frontend_listen(p->frontend, o->grpc, o->tls_certificate[0] ? &tls : NULL, &port, error);
	if (status != CAD_OK)
		return status;
	cad_address_taken(o->grpc, port, p->grpc_address, sizeof p->grpc_address);
	status = rt_engine_metrics_create(
		p->metrics, p->engine, cad_model_spec(p->model), o->capacity_policy, &p->engine_metrics);
	if (status == CAD_OK)
		status = cad_metrics_status(p->metrics);

	return status == CAD_OK ? CAD_OK : cad_error_set(error, status, "no memory for metrics");
}

/* First of all, so that a router that reads a large model, or waits for the placement service, is
 * seen to be alive. */
static enum cad_status create_http(struct program *p, struct cad_error *error)
{
	if (cad_metrics_create(&p->metrics) != CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for metrics");
	struct cad_admin_options admin = {
		.address = p->options.http,
		.metrics = p->metrics,
		.ready = admin_ready,
		.context = p,
	};
	return cad_admin_create(&admin, &p->admin, error);
}

static enum cad_status start(struct program *p, struct cad_error *error)
{
	const struct options *o = &p->options;
	enum cad_status status = CAD_OK;

	if (o->id[0])
		snprintf(p->id, sizeof p->id, "%s", o->id);
	else
		cad_process_name(p->id, sizeof p->id);
	p->threads = o->threads > 0 ? o->threads : kn_threads_default();
	if (o->secret_file[0])
		status = cad_secret_read(o->secret_file, "cluster secret", &p->secret, error);
	if (status == CAD_OK && o->token_file[0])
		status = cad_secret_read(o->token_file, "bearer token", &p->token, error);
	if (status == CAD_OK)
		status = create_http(p, error);
	if (status == CAD_OK)
		status = open_tokenizer(p, error);
	if (status == CAD_OK)
		status = o->local_experts ? create_embedded(p, error) : create_member_engine(p, error);
	if (status == CAD_OK && p->tokenizer)
		cad_tokenizer_pad(p->tokenizer, cad_model_spec(p->model)->vocab);
	if (status == CAD_OK)
		status = create_server(p, error);
	if (status == CAD_OK && pthread_create(&p->engine_thread, NULL, run_engine, p->engine) != 0)
		status = cad_error_set(error, CAD_ERR_MEMORY, "cannot start the engine's thread");
	if (status != CAD_OK)
		return status;
	p->engine_runs = true;
	struct cad_member_options member = {
		.reactor = p->reactor,
		.placement = o->placement,
		.settings = &p->facts.settings,
		.context = p,
		.hello = fill_hello,
		.load = fill_load,
		.map = take_map,
	};
	if (!o->local_experts)
		status = cad_member_create(&member, &p->member, error);
	if (status == CAD_OK)
		status = cad_signals_create(&p->loop, on_signal, p, &p->signals, error);
	if (status != CAD_OK)
		return status;
	rt_frontend_start(p->frontend);
	atomic_store(&p->started, true);
	uv_timer_init(&p->loop, &p->ready_timer);
	p->ready_timer.data = p;
	uv_timer_start(&p->ready_timer, look_ready, 0, READY_POLL_MS);

	return CAD_OK;
}

/* After the reactor has stopped (or nothing ever ran on it): everything else, in the order of use. */
static void finish(struct program *p)
{
	if (p->engine_runs) {
		rt_engine_stop(p->engine);
		pthread_join(p->engine_thread, NULL);
	}

	cad_admin_destroy(p->admin);
	if (p->embedded)
		em_destroy(p->embedded);
	rt_engine_destroy(p->own_engine);
	cad_rpc_reactor_destroy(p->reactor);
	rt_frontend_destroy(p->frontend);
	uv_run(&p->loop, UV_RUN_NOWAIT);
	uv_loop_close(&p->loop);
	if (p->metrics)
		cad_metrics_destroy(p->metrics);
	rt_engine_metrics_destroy(p->engine_metrics);
	if (p->queue)
		p->device->ops->queue_destroy(p->queue);
	if (p->device)
		p->device->ops->destroy(p->device);
	cad_settings_fini(&p->facts.settings);
	if (p->own_model)
		cad_model_close(p->own_model);
	cad_tokenizer_close(p->tokenizer);
	free(p->secret);
	free(p->token);
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
	cad_log_setup(p->options.log_level, p->options.log_format);
	enum cad_status status = cad_process_init(&error);
	uv_loop_init(&p->loop);
	if (status == CAD_OK)
		status = cad_rpc_reactor_create(&p->loop, &p->reactor, &error);
	if (status == CAD_OK)
		status = start(p, &error);
	if (status != CAD_OK) {
		fprintf(stderr, "cadre-router: %s\n", error.text);
		/* threads may be running that cannot be stopped in order at this point */
		_exit(status == CAD_ERR_CANCELLED ? 0 : 1);
	}

	cad_rpc_reactor_run(p->reactor);
	finish(p);
	cad_options_destroy(parsed);
	cad_log_info("router", "stopped");

	return 0;
}
