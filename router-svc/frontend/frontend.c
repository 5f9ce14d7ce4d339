/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/frontend.h"

#include "common/rpc/guard.h"
#include "common/rpc/health.h"
#include "common/rpc/reflection.h"
#include "common/tokenizer/decode.h"
#include "router-svc/frontend/grpc.h"
#include "router-svc/frontend/request.h"
#include "router-svc/frontend/trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* A response's text is small, and the ring behind it holds more: a short queue pauses a slow
 * reader's sequence early. */
enum { CLIENT_PING_MS_MIN = 200 }; /* clients find out that a router hangs; cadrectl pings after 0.4 s */
enum { OUT_HIGH_BYTES = 64 << 10, RECEIVE_BYTES_MAX = 4 << 20, SEND_BYTES_MAX = 64 << 20 };
/* About half a millisecond of tokenizing. */
enum { TEXT_BYTES_AT_ONCE = 4096 };

struct rt_frontend {
	struct cad_rpc_server *server;
	struct cad_rpc_health *health;
	struct cad_rpc_reflection *reflection;
	struct cad_rpc_service service;
	struct rt_stream_hub hub;
	struct rt_trial trial;
	struct rt_grpc grpc;
	struct cad_rpc_wakeup wakeup;
	const struct cad_model *model;
	const struct cad_tokenizer *tokenizer;
	char fingerprint[33];
	char computes_with[128]; /* model, settings and policies */
	char *settings_fingerprint;
	char settings[CADRE_TEXT_BYTES];
	struct cad_rpc_authorizer authorizer;
	struct cad_counter *stalled;
	struct cad_metrics *own_metrics; /* where the program has none */
	bool aggregate;                  /* nobody is told of the routing of single tokens */
	bool started, gone;
	void (*done)(void *context);
	void *done_context;
};

/* ---- the engine ---- */

static enum cad_status engine_submit(
	void *engine, const struct rt_request *request, uint64_t *id, struct cad_error *error)
{
	return rt_engine_submit(engine, request, id, error);
}
static void engine_cancel(void *engine, uint64_t id) { rt_engine_cancel(engine, id); }
static void engine_pause(void *engine, uint64_t id, bool paused) { rt_engine_pause(engine, id, paused); }
static uint64_t engine_advanced_ns(void *engine) { return rt_engine_advanced_ns(engine); }

struct rt_stream_engine rt_frontend_engine(struct rt_engine *engine)
{
	return (struct rt_stream_engine){
		.engine = engine,
		.submit = engine_submit,
		.cancel = engine_cancel,
		.pause = engine_pause,
		.advanced_ns = engine_advanced_ns,
		.clock = rt_engine_clock(engine),
		.context_max = rt_engine_context_max(engine),
		.rows_max = rt_engine_rows_max(engine),
	};
}

void rt_frontend_on_event(void *user, const struct rt_event *event)
{
	(void)user;
	rt_stream_event(event);
}

/* ---- texts ---- */

/*
 * A long text takes long to tokenize, and must not block the reactor's thread: above
 * TEXT_BYTES_AT_ONCE it goes to a thread of libuv's pool. The job holds a reference to its call,
 * which keeps the message and the server; if the client goes in that time, the result is thrown
 * away.
 */

struct text_job {
	uv_work_t work;
	const struct text_steps *steps;
	struct rt_frontend *frontend;
	struct cad_rpc_call *call;
	const ProtobufCMessage *message;
	/* results of `compute` */
	struct cad_ids ids;
	struct cad_text text;
	char *shown; /* the text, as a string of a message */
	struct rt_request request;
	struct rt_answer answer;
	enum cad_status status;
	struct cad_error error;
};

struct text_steps {
	void (*compute)(struct text_job *job); /* any thread; sets status */
	void (*answer)(struct text_job *job);  /* the reactor's thread, if that went well */
	void (*refused)(struct text_job *job); /* ... and if not, before the client is told; may be NULL */
};

static void text_compute(uv_work_t *work)
{
	struct text_job *job = work->data;
	job->steps->compute(job);
}

static void text_answer(struct text_job *job)
{
	if (job->status == CAD_OK) {
		job->steps->answer(job);
	} else {
		if (job->steps->refused)
			job->steps->refused(job);
		cad_rpc_call_finish(job->call, cad_rpc_code_of_status(job->status), "%s", job->error.text);
	}
	cad_ids_fini(&job->ids);
	cad_text_fini(&job->text);
	free(job->shown);
	rt_answer_fini(&job->answer);
}

static void text_computed(uv_work_t *work, int cancelled)
{
	(void)cancelled; /* nobody does */
	struct text_job *job = work->data;
	struct cad_rpc_call *call = job->call;
	if (!cad_rpc_call_is_alive(call))
		job->status = CAD_ERR_CANCELLED;
	text_answer(job);
	free(job);
	cad_rpc_call_release(call);
}

static void text_start(
	struct cad_rpc_call *call, const ProtobufCMessage *message, const struct text_steps *steps, size_t bytes)
{
	struct rt_frontend *frontend = cad_rpc_call_context(call);
	struct text_job now = { .steps = steps, .frontend = frontend, .call = call, .message = message };

	if (bytes <= TEXT_BYTES_AT_ONCE) {
		steps->compute(&now);
		text_answer(&now);
		return;
	}

	struct text_job *job = malloc(sizeof *job);
	if (!job) {
		cad_rpc_call_finish(call, CAD_RPC_RESOURCE_EXHAUSTED, "no memory for another text; try again later");
		return;
	}

	*job = now;
	job->work.data = job;
	cad_rpc_call_acquire(call);
	CAD_ASSERT(uv_queue_work(cad_rpc_reactor_loop(cad_rpc_call_reactor(call)), &job->work, text_compute,
			   text_computed) == 0);
}

/* ---- Generate ---- */

static void generate_compute(struct text_job *job)
{
	const struct rt_frontend *frontend = job->frontend;
	const struct rt_request_limits limits = {
		.spec = cad_model_spec(frontend->model),
		.context_max = frontend->hub.options.engine.context_max,
		.tokenizer = frontend->tokenizer,
		.fingerprint = frontend->computes_with,
	};
	const Cadre__V1__GenerateRequest *message = (const Cadre__V1__GenerateRequest *)job->message;

	job->status = rt_request_read(&limits, message, &job->ids, &job->request, &job->error);
	if (job->status == CAD_OK)
		job->status = rt_request_answer(&limits, message, &job->answer, &job->error);
}

static void generate_refused(struct text_job *job)
{
	rt_grpc_refused(&job->frontend->grpc, cad_rpc_code_of_status(job->status));
}

static void generate_answer(struct text_job *job)
{
	job->status = rt_grpc_open(&job->frontend->grpc, job->call, &job->request, &job->answer, &job->error);
	if (job->status == CAD_OK)
		cad_rpc_call_forget_message(job->call); /* the engine has a copy, and an answer may take long */
	else
		cad_rpc_call_finish(job->call, cad_rpc_code_of_status(job->status), "%s", job->error.text);
}

static void generate(struct cad_rpc_call *call, const ProtobufCMessage *received)
{
	static const struct text_steps steps = { generate_compute, generate_answer, generate_refused };
	const Cadre__V1__GenerateRequest *message = (const Cadre__V1__GenerateRequest *)received;
	struct rt_frontend *frontend = cad_rpc_call_context(call);
	struct cad_error error;
	enum cad_status status = rt_grpc_admit(&frontend->grpc, call, &error);

	if (status != CAD_OK) {
		cad_rpc_call_finish(call, cad_rpc_code_of_status(status), "%s", error.text);
		return;
	}
	if (message->return_routing && frontend->aggregate) {
		rt_grpc_refused(&frontend->grpc, CAD_RPC_FAILED_PRECONDITION);
		cad_rpc_call_finish(call, CAD_RPC_FAILED_PRECONDITION,
			"return_routing is not answered here: the cluster's placement service runs with --routing-detail aggregate");
		return;
	}
	size_t text = message->prompt_case == CADRE__V1__GENERATE_REQUEST__PROMPT_TEXT ? strlen(message->text) : 0,
	       tokens = message->resume ? message->resume->n_token_ids : 0;
	text_start(call, received, &steps, text + tokens * sizeof(int32_t));
}

/* ---- the unary ones ---- */

static bool has_tokenizer(struct text_job *job)
{
	if (!job->frontend->tokenizer)
		job->status = cad_error_set(&job->error, CAD_ERR_REFUSED, "this model has no tokenizer.json");
	return job->frontend->tokenizer;
}

static void tokenize_compute(struct text_job *job)
{
	const Cadre__V1__TokenizeRequest *request = (const Cadre__V1__TokenizeRequest *)job->message;
	if (has_tokenizer(job))
		job->status = cad_tokenizer_encode(job->frontend->tokenizer, request->text, strlen(request->text),
			!request->no_special, SIZE_MAX, &job->ids, &job->error);
}

static void tokenize_answer(struct text_job *job)
{
	Cadre__V1__TokenizeResponse response = CADRE__V1__TOKENIZE_RESPONSE__INIT;
	response.ids = job->ids.ids;
	response.n_ids = job->ids.count;
	cad_rpc_call_reply(job->call, &response.base);
}

static void tokenize(struct cad_rpc_call *call, const ProtobufCMessage *received)
{
	static const struct text_steps steps = { tokenize_compute, tokenize_answer, NULL };
	text_start(call, received, &steps, strlen(((const Cadre__V1__TokenizeRequest *)received)->text));
}

static void detokenize_compute(struct text_job *job)
{
	const Cadre__V1__DetokenizeRequest *request = (const Cadre__V1__DetokenizeRequest *)job->message;
	if (has_tokenizer(job))
		job->status = cad_tokenizer_decode(job->frontend->tokenizer, request->ids, request->n_ids,
			!request->keep_special, &job->text, &job->error);
	if (job->status != CAD_OK)
		return;

	job->shown = malloc(rt_text_shown_bytes(job->text.bytes, job->text.size));
	if (job->shown)
		rt_text_show(job->text.bytes, job->text.size, job->shown);
	else
		job->status = cad_error_set(&job->error, CAD_ERR_MEMORY, "out of memory for the text");
}

static void detokenize_answer(struct text_job *job)
{
	Cadre__V1__DetokenizeResponse response = CADRE__V1__DETOKENIZE_RESPONSE__INIT;
	response.text = job->shown;
	response.text_bytes.data = (uint8_t *)job->text.bytes;
	response.text_bytes.len = job->text.size;
	cad_rpc_call_reply(job->call, &response.base);
}

static void detokenize(struct cad_rpc_call *call, const ProtobufCMessage *received)
{
	static const struct text_steps steps = { detokenize_compute, detokenize_answer, NULL };
	text_start(call, received, &steps, ((const Cadre__V1__DetokenizeRequest *)received)->n_ids * sizeof(int32_t));
}

static void get_model(struct cad_rpc_call *call, const ProtobufCMessage *received)
{
	(void)received;
	struct rt_frontend *frontend = cad_rpc_call_context(call);
	const struct cad_model_spec *spec = cad_model_spec(frontend->model);
	struct cad_model_sizes sizes = cad_model_sizes(frontend->model);
	Cadre__V1__GetModelResponse response = CADRE__V1__GET_MODEL_RESPONSE__INIT;
	response.directory = (char *)(uintptr_t)cad_model_directory(frontend->model);
	response.fingerprint = frontend->fingerprint;
	response.architecture = (char *)(uintptr_t)spec->architecture;
	response.layers = spec->layers_count;
	response.moe_layers = cad_model_spec_moe_layers(spec);
	response.experts = spec->gate.experts;
	response.experts_per_token = spec->gate.topk;
	response.hidden = spec->hidden;
	response.vocab = spec->vocab;
	response.context_max = frontend->hub.options.engine.context_max;
	response.parameters = sizes.parameters;
	response.active_parameters = sizes.active_parameters;
	response.settings_fingerprint = frontend->settings_fingerprint;
	response.n_eos_ids = spec->eos_ids_count;
	response.eos_ids = (int32_t *)(uintptr_t)spec->eos_ids;
	cad_rpc_call_reply(call, &response.base);
}

static const struct cad_rpc_method methods[] = {
	{
		.name = "Generate",
		.kind = CAD_RPC_SERVER_STREAM,
		.on = { .message = generate, .writable = rt_grpc_writable, .done = rt_grpc_done },
		.right = CAD_RIGHT_GENERATE,
	},
	{ "Tokenize", CAD_RPC_UNARY, { .message = tokenize }, CAD_RIGHT_READ },
	{ "Detokenize", CAD_RPC_UNARY, { .message = detokenize }, CAD_RIGHT_READ },
	{ "GetModel", CAD_RPC_UNARY, { .message = get_model }, CAD_RIGHT_READ },
};

/* ---- setup ---- */

static void on_stall(void *context)
{
	const struct rt_frontend *frontend = context;
	cad_counter_add(frontend->stalled, 1);
}

static void wake(void *wakeup) { cad_rpc_wakeup_send(wakeup); }

static void woken(void *hub) { rt_stream_hub_collect(hub); }

static enum cad_status streams_init(
	struct rt_frontend *frontend, const struct rt_frontend_options *options, struct cad_metrics *metrics)
{
	const struct cad_model_spec *spec = cad_model_spec(options->model);
	struct rt_stream_hub_options streams = {
		.engine = options->engine,
		.moe_layers = cad_model_spec_moe_layers(spec),
		.topk = spec->gate.topk,
		.wake = wake,
		.wake_context = &frontend->wakeup,
		.first_token_seconds = cad_metrics_histogram(metrics, "cadre_router_first_token_seconds",
			"From admission to the first token, of answers that were completed", NULL, 0,
			cad_histogram_seconds, cad_histogram_seconds_count),
		.total_seconds = cad_metrics_histogram(metrics, "cadre_router_generate_seconds",
			"From admission to the last token, of answers that were completed", NULL, 0,
			cad_histogram_seconds, cad_histogram_seconds_count),
	};
	cad_rpc_wakeup_init(&frontend->wakeup, options->reactor, woken, &frontend->hub);
	return rt_stream_hub_init(&frontend->hub, &streams);
}

static double streams_read(void *frontend) { return rt_frontend_streams(frontend); }
static double refused_read(void *none) { return (void)none, (double)cad_rpc_refused_connections(); }

static enum cad_status options_copy(struct rt_frontend *frontend, const struct rt_frontend_options *options)
{
	frontend->model = options->model;
	frontend->tokenizer = options->tokenizer;
	cad_model_fingerprint(options->model, frontend->fingerprint);
	frontend->settings_fingerprint = strdup(options->settings_fingerprint ? options->settings_fingerprint : "");
	if (!frontend->settings_fingerprint)
		return CAD_ERR_MEMORY;
	snprintf(frontend->settings, sizeof frontend->settings, "%s", options->settings ? options->settings : "");
	char policies[RT_POLICIES_BYTES];
	rt_policies_text(&options->policies, policies);
	snprintf(frontend->computes_with, sizeof frontend->computes_with, "%s/%s%s", frontend->fingerprint,
		frontend->settings_fingerprint, policies);

	struct cad_metrics *metrics = options->metrics;
	if (!metrics) {
		enum cad_status status = cad_metrics_create(&frontend->own_metrics);
		if (status != CAD_OK)
			return status;
		metrics = frontend->own_metrics;
	}

	rt_grpc_init(&frontend->grpc, &frontend->hub, frontend->computes_with, frontend->settings, &options->policies,
		options->streams_per_client, metrics);
	const struct cad_rpc_authorizer_options authorizer = {
		.callers = options->callers,
		.server = "router",
		.token_advice = "send the header 'authorization: Bearer TOKEN'",
	};
	cad_rpc_authorizer_init(&frontend->authorizer, &authorizer, metrics);
	enum cad_status status = streams_init(frontend, options, metrics);
	if (status != CAD_OK)
		return status;
	rt_trial_init(
		&frontend->trial, &frontend->hub, cad_model_spec(options->model)->vocab, options->reactor, metrics);
	cad_metrics_gauge_read(metrics, "cadre_router_streams", "Open Generate calls", NULL, 0, streams_read, frontend);
	frontend->stalled = cad_metrics_counter(metrics, "cadre_router_calls_stalled_total",
		"Calls that were ended because their clients took nothing for --stream-stall", NULL, 0);
	cad_metrics_counter_read(metrics, "cadre_router_connections_refused_total",
		"gRPC connections refused for want of file descriptors", NULL, 0, refused_read, NULL);

	return CAD_OK;
}

static void memory_free(struct rt_frontend *frontend)
{
	cad_rpc_authorizer_fini(&frontend->authorizer);
	rt_grpc_fini(&frontend->grpc);
	rt_stream_hub_fini(&frontend->hub);
	rt_trial_fini(&frontend->trial);
	free(frontend->settings_fingerprint);
	cad_metrics_destroy(frontend->own_metrics);
	free(frontend);
}

enum cad_status rt_frontend_create(
	const struct rt_frontend_options *options, struct rt_frontend **created, struct cad_error *error)
{
	struct rt_frontend *frontend = calloc(1, sizeof *frontend);
	enum cad_status status = frontend ? options_copy(frontend, options) : CAD_ERR_MEMORY;

	if (status != CAD_OK) {
		if (frontend)
			memory_free(frontend);
		return cad_error_set(error, status, "out of memory for the gRPC front end");
	}

	struct cad_rpc_server_config config = {
		.calls_max = options->calls_max,
		.out_high_bytes = OUT_HIGH_BYTES,
		.receive_bytes_max = RECEIVE_BYTES_MAX,
		.send_bytes_max = SEND_BYTES_MAX,
		.authorize = cad_rpc_authorize,
		.authorize_context = &frontend->authorizer,
		.client_ping_ms_min = CLIENT_PING_MS_MIN,
		.stall_ms = options->stall_ms,
		.on_stall = on_stall,
		.stall_context = frontend,
		.stopping = "the router is stopping; ask another router, or again later",
	};
	frontend->service = (struct cad_rpc_service){ &cadre__v1__inference__descriptor, methods,
		sizeof methods / sizeof methods[0], frontend };
	status = cad_rpc_server_create(options->reactor, &config, &frontend->server, error);
	if (status != CAD_OK)
		goto free_memory;
	cad_rpc_server_add(frontend->server, &frontend->service);
	status = cad_rpc_health_create(frontend->server, &frontend->health, error);
	if (status == CAD_OK)
		status = cad_rpc_reflection_create(frontend->server, &frontend->reflection, error);
	if (status != CAD_OK)
		goto free_memory;
	rt_frontend_set_serving(frontend, false);
	*created = frontend;
	return CAD_OK;

/* never a bad request but a broken build or no memory: a server that never started holds nothing
 * but its own */
free_memory:
	if (frontend->server)
		cad_rpc_server_drain(frontend->server, 0, NULL, NULL);
	memory_free(frontend);

	return status;
}

enum cad_status rt_frontend_listen(struct rt_frontend *frontend, const char *address, const struct cad_tls_files *tls,
	uint16_t *port, struct cad_error *error)
{
	return cad_rpc_server_listen(frontend->server, address, tls, port, error);
}

void rt_frontend_start(struct rt_frontend *frontend) { cad_rpc_server_start(frontend->server); }

void rt_frontend_set_serving(struct rt_frontend *frontend, bool serving)
{
	cad_rpc_health_set(frontend->health, "", serving);
	cad_rpc_health_set(frontend->health, cadre__v1__inference__descriptor.name, serving);
}

void rt_frontend_aggregate(struct rt_frontend *frontend, bool aggregate) { frontend->aggregate = aggregate; }

void rt_frontend_refuse(struct rt_frontend *frontend, const char *why) { rt_grpc_refuse(&frontend->grpc, why); }

enum cad_status rt_frontend_generates(struct rt_frontend *frontend, char why[CAD_NOTE_BYTES])
{
	return rt_trial_ask(&frontend->trial, why);
}

uint32_t rt_frontend_streams(const struct rt_frontend *frontend) { return atomic_load(&frontend->hub.open); }

static void server_gone(void *context)
{
	struct rt_frontend *frontend = context;
	frontend->gone = true;
	if (frontend->done)
		frontend->done(frontend->done_context);
}

void rt_frontend_drain(struct rt_frontend *frontend, unsigned grace_ms, void (*done)(void *context), void *context)
{
	frontend->done = done;
	frontend->done_context = context;
	rt_trial_stop(&frontend->trial);
	cad_rpc_health_shutdown(frontend->health);
	cad_rpc_server_drain(frontend->server, grace_ms, server_gone, frontend);
}

void rt_frontend_destroy(struct rt_frontend *frontend)
{
	if (!frontend)
		return;
	CAD_ASSERT(frontend->gone);
	rt_stream_hub_collect(&frontend->hub); /* what the engine said while it was destroyed */
	cad_rpc_health_destroy(frontend->health);
	cad_rpc_reflection_destroy(frontend->reflection);
	memory_free(frontend);
}
