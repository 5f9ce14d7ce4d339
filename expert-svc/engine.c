/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/engine.h"

#include "expert-svc/serve/reply.h"
#include "expert-svc/step.h"
#include "expert-svc/transfer/load.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct ex_engine {
	struct ex_engine_options options;
	const struct cad_model_spec *spec;
	struct ex_store *store;
	struct kn_queue *queue;
	struct ex_inbox inbox;
	struct ex_step step;
	struct ex_counters counters;
	struct ex_work work;
	struct ex_memory memory; /* as it was reserved */
	/* THREADED */
	struct cad_mailbox *outbox; /* jobs whose answers wait for the exchange thread */
	pthread_t thread;
	_Atomic bool stop;
};

void ex_engine_options_default(struct ex_engine_options *options)
{
	*options = (struct ex_engine_options){
		.mode = EX_ENGINE_INLINE,
		.requests_max = 256,
		.step_rows_max = 1024,
		.step_pairs_max = 8192,
		.telemetry = true,
	};
}

/* ---- answers ---- */

/* INLINE: the thread that computed is the one that answers. */
static void answer_now(void *context, struct ex_job *job)
{
	struct ex_engine *engine = context;
	ex_reply_send(job);
	ex_inbox_release(&engine->inbox, job);
}

static void answer_later(void *context, struct ex_job *job)
{
	struct ex_engine *engine = context;
	CAD_ASSERT(cad_mailbox_put(engine->outbox, job) == CAD_OK); /* it has room for every job */
}

size_t ex_engine_deliver(struct ex_engine *engine)
{
	struct ex_job *job;
	size_t delivered = 0;
	while (engine->outbox && (job = cad_mailbox_take(engine->outbox))) {
		answer_now(engine, job);
		delivered++;
	}
	return delivered;
}

static void *compute_thread(void *argument)
{
	struct ex_engine *engine = argument;
	while (!atomic_load(&engine->stop))
		if (!ex_step_run(&engine->step))
			ex_inbox_wait(&engine->inbox);
	return NULL;
}

/* ---- requests ---- */

static void refuse_busy(struct ex_engine *engine, struct cad_request *request)
{
	atomic_fetch_add_explicit(&engine->counters.busy, 1, memory_order_relaxed);
	ex_reply_refuse(request, CADRE_WIRE_BUSY);
}

void ex_engine_request(struct ex_engine *engine, struct cad_request *request)
{
	struct ex_job *job = ex_inbox_acquire(&engine->inbox);
	struct cad_buffer *buffer = job ? cad_request_answer_buffer(request) : NULL;

	if (!buffer) {
		if (job)
			ex_inbox_release(&engine->inbox, job);
		refuse_busy(engine, request);
		return;
	}

	const struct cad_call_view *view = cad_request_view(request);
	CAD_ASSERT(buffer->capacity >= cad_wire_answer_bytes_max(view->call.rows, view->call.row_elements));
	job->request = request;
	job->connection = cad_request_connection(request);
	job->call = view;
	job->payload = buffer->bytes;
	job->received_ns = cad_request_received_ns(request);
	job->deadline_ns = view->call.timeout_us > 0 ? job->received_ns + view->call.timeout_us * CAD_NS_PER_US : 0;
	if (engine->options.mode == EX_ENGINE_THREADED) {
		ex_inbox_put(&engine->inbox, job);
		return;
	}

	ex_inbox_append(&engine->inbox, job);
	while (ex_step_run(&engine->step))
		;
}

void ex_engine_on_request(struct cad_transport *transport, struct cad_request *request)
{
	ex_engine_request(cad_transport_user(transport), request);
}

void ex_engine_connection_lost(struct ex_engine *engine, const struct cad_connection *connection)
{
	for (uint32_t i = 0; i < engine->inbox.capacity; i++)
		if (engine->inbox.jobs[i].connection == connection)
			atomic_store_explicit(&engine->inbox.jobs[i].abandoned, true, memory_order_relaxed);
}

uint32_t ex_engine_requests(const struct ex_engine *engine) { return atomic_load(&engine->inbox.held); }
bool ex_engine_idle(const struct ex_engine *engine) { return ex_engine_requests(engine) == 0; }

/* ---- weights ---- */

static bool go_on(void *context, const char *node, uint64_t bytes)
{
	return (void)context, (void)node, (void)bytes, true;
}

enum cad_status ex_engine_load(
	struct ex_engine *engine, uint32_t layer, uint32_t expert, struct ex_loaded *loaded, struct cad_error *error)
{
	static const struct ex_load plain = { .node = NULL };
	const struct ex_load_run run = {
		.engine = engine,
		.layer = layer,
		.expert = expert,
		.load = &plain,
		.read = go_on,
	};
	struct ex_load_result result;
	enum cad_status status = ex_load_run(&run, &result, error);

	if (status == CAD_OK)
		*loaded = result.loaded;
	return status;
}

struct ex_store *ex_engine_store(struct ex_engine *engine) { return engine->store; }

enum cad_status ex_engine_free(struct ex_engine *engine, uint32_t layer, uint32_t expert)
{
	return ex_store_free(engine->store, layer, expert);
}
bool ex_engine_holds(const struct ex_engine *engine, uint32_t layer, uint32_t expert)
{
	return ex_store_holds(engine->store, layer, expert);
}
uint64_t ex_engine_memory_used(const struct ex_engine *engine) { return ex_store_memory_used(engine->store); }
uint32_t ex_engine_held(const struct ex_engine *engine) { return ex_store_count(engine->store); }
const struct cad_model *ex_engine_model(const struct ex_engine *engine) { return engine->options.model; }
uint64_t ex_engine_expert_bytes(const struct ex_engine *engine) { return ex_store_expert_bytes(engine->store); }

void ex_engine_wire_limits(const struct ex_engine *engine, uint32_t rows_max, struct cad_wire_limits *limits)
{
	const struct cad_gate_spec *gate = &engine->spec->gate;
	CAD_ASSERT(rows_max >= 1 && rows_max <= CADRE_ROWS_MAX);
	size_t call =
		cad_wire_call_bytes_max(rows_max, engine->spec->hidden, gate->experts, (size_t)rows_max * gate->topk);
	size_t answer = cad_wire_answer_bytes_max(rows_max, engine->spec->hidden);
	*limits = (struct cad_wire_limits){
		.payload_bytes_max = call > answer ? call : answer, /* the answers' buffers are of this size, too */
		.rows_max = rows_max,
		.row_elements = engine->spec->hidden,
		.layers = engine->spec->layers_count,
		.experts = gate->experts,
	};
}

/* ---- figures ---- */

struct ex_engine_stats ex_engine_stats(const struct ex_engine *engine)
{
	const struct ex_counters *counters = &engine->counters;
	return (struct ex_engine_stats){
		.calls = atomic_load_explicit(&counters->calls, memory_order_relaxed),
		.rows = atomic_load_explicit(&counters->rows, memory_order_relaxed),
		.pairs = atomic_load_explicit(&counters->pairs, memory_order_relaxed),
		.steps = atomic_load_explicit(&counters->steps, memory_order_relaxed),
		.not_held = atomic_load_explicit(&counters->not_held, memory_order_relaxed),
		.expired = atomic_load_explicit(&counters->expired, memory_order_relaxed),
		.bad_calls = atomic_load_explicit(&counters->bad_calls, memory_order_relaxed),
		.busy = atomic_load_explicit(&counters->busy, memory_order_relaxed),
		.poisoned_rows = atomic_load_explicit(&counters->poisoned_rows, memory_order_relaxed),
	};
}

const struct ex_work *ex_engine_work(const struct ex_engine *engine) { return &engine->work; }

static double read_counter(void *context)
{
	return (double)atomic_load_explicit((_Atomic uint64_t *)context, memory_order_relaxed);
}
static double read_memory(void *context) { return (double)ex_store_memory_used(context); }
static double read_held(void *context) { return ex_store_count(context); }
static double read_waiting(void *context)
{
	return atomic_load_explicit((_Atomic uint32_t *)context, memory_order_relaxed);
}

static double read_ns(void *context)
{
	return (double)atomic_load_explicit((_Atomic uint64_t *)context, memory_order_relaxed) * 1e-9;
}

static void register_times(struct ex_counters *counters, struct cad_metrics *metrics)
{
	static const char *const stages[KN_STAGE_COUNT] = {
		[KN_STAGE_COPY] = "copy",
		[KN_STAGE_UNPACK] = "unpack",
		[KN_STAGE_FFN] = "ffn",
		[KN_STAGE_COMBINE] = "combine",
	};
	for (unsigned stage = 0; stage < KN_STAGE_COUNT; stage++)
		cad_metrics_counter_read(metrics, "cadre_device_seconds_total",
			"the device's own time in steps, by what it was spent on",
			&(struct cad_label){ "stage", stages[stage] }, 1, read_ns, &counters->device_ns[stage]);
}

static void metrics_register(struct ex_engine *engine, struct cad_metrics *metrics)
{
	struct ex_counters *counters = &engine->counters;
	const struct {
		const char *outcome;
		_Atomic uint64_t *counter;
	} outcomes[] = {
		{ "ok", &counters->calls },
		{ "not_held", &counters->not_held },
		{ "expired", &counters->expired },
		{ "bad_call", &counters->bad_calls },
		{ "busy", &counters->busy },
		{ "internal", &counters->internal },
	};

	for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++) {
		struct cad_label label = { "outcome", outcomes[i].outcome };
		cad_metrics_counter_read(metrics, "cadre_expert_calls_total", "calls answered, by outcome", &label, 1,
			read_counter, (void *)outcomes[i].counter);
	}

	cad_metrics_counter_read(
		metrics, "cadre_expert_rows_total", "rows computed", NULL, 0, read_counter, (void *)&counters->rows);
	cad_metrics_counter_read(metrics, "cadre_expert_pairs_total", "(row, expert) pairs computed", NULL, 0,
		read_counter, (void *)&counters->pairs);
	cad_metrics_counter_read(metrics, "cadre_expert_steps_total",
		"steps, each over the calls of one layer that had arrived", NULL, 0, read_counter,
		(void *)&counters->steps);
	cad_metrics_counter_read(metrics, "cadre_expert_poisoned_rows_total",
		"rows with NaN or infinity in an expert's output", NULL, 0, read_counter,
		(void *)&counters->poisoned_rows);
	cad_metrics_gauge_read(metrics, "cadre_expert_weights_bytes", "memory taken by packed experts", NULL, 0,
		read_memory, engine->store);
	cad_metrics_gauge_read(metrics, "cadre_expert_held", "experts held", NULL, 0, read_held, engine->store);
	cad_metrics_gauge_read(metrics, "cadre_expert_requests", "calls held, waiting or computing", NULL, 0,
		read_waiting, (void *)&engine->inbox.held);
	if (engine->queue->ops->times)
		register_times(counters, metrics);
	struct ex_step *step = &engine->step;
	step->queue_seconds = cad_metrics_histogram(metrics, "cadre_expert_queue_seconds",
		"time from a call's arrival to its answer, without computing", NULL, 0, cad_histogram_seconds,
		cad_histogram_seconds_count);
	step->compute_seconds = cad_metrics_histogram(metrics, "cadre_expert_compute_seconds",
		"compute time of the steps that a call was part of", NULL, 0, cad_histogram_seconds,
		cad_histogram_seconds_count);
	step->step_rows = cad_metrics_histogram(metrics, "cadre_expert_step_rows", "rows of a step", NULL, 0,
		(double[]){ 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096 }, 13);
}

static double read_bytes(void *context) { return (double)*(const uint64_t *)context; }

static void memory_register(const struct ex_memory *memory, struct cad_metrics *metrics)
{
	const struct {
		const char *part;
		const uint64_t *bytes;
	} parts[] = {
		{ "weights", &memory->weights_bytes },
		{ "steps", &memory->step_bytes },
		{ "queue", &memory->queue_bytes },
		{ "driver", &memory->driver_bytes },
	};

	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		cad_metrics_gauge_read(metrics, "cadre_expert_memory_planned_bytes",
			"memory of the device as it was planned at start, by what it is for",
			&(struct cad_label){ "part", parts[i].part }, 1, read_bytes, (void *)parts[i].bytes);
	cad_metrics_gauge_read(metrics, "cadre_expert_memory_device_bytes",
		"memory of the device; 0: it computes in the host's", NULL, 0, read_bytes,
		(void *)&memory->device_bytes);
	cad_metrics_gauge_read(
		metrics, "cadre_expert_slots", "experts that fit", NULL, 0, read_bytes, (void *)&memory->slots);
	cad_metrics_gauge_read(metrics, "cadre_expert_slot_bytes", "memory that an expert takes", NULL, 0, read_bytes,
		(void *)&memory->slot_bytes);
}

enum cad_status ex_engine_plan(const struct ex_engine *engine, const struct kn_device_info *device,
	uint64_t memory_bytes, uint32_t nodes, struct ex_memory *memory, struct cad_error *error)
{
	const struct ex_memory_ask ask = {
		.device = device,
		.memory_bytes = memory_bytes,
		.nodes = nodes,
		.step_bytes = ex_exec_bytes(&engine->step.exec),
		.expert_bytes = ex_store_expert_bytes(engine->store),
		.experts = (uint64_t)cad_model_spec_moe_layers(engine->spec) * engine->spec->gate.experts,
	};
	enum cad_status status = ex_memory_plan(&ask, memory, error);
	if (status == CAD_OK)
		ex_memory_log(memory, device->name);
	return status;
}

enum cad_status ex_engine_reserve(struct ex_engine *engine, const struct ex_memory *memory, struct cad_error *error)
{
	enum cad_status status = ex_store_reserve(engine->store, memory->weights_bytes, error);
	if (status != CAD_OK)
		return status;

	engine->memory = *memory;
	if (engine->options.metrics)
		memory_register(&engine->memory, engine->options.metrics);
	return CAD_OK;
}

/* ---- life ---- */

static const char *profiles_text(uint32_t profiles, char text[80])
{
	size_t length = 0;
	*text = '\0';
	for (uint32_t profile = 0; profiles >> profile && length < 80; profile++)
		if (profiles >> profile & 1)
			length += (size_t)snprintf(text + length, 80 - length, "%s%s", length > 0 ? ", " : "",
				cad_profile_name((enum cad_profile)profile));
	return text;
}

static enum cad_status settings_check(const struct kn_device *device, const struct cad_model_spec *spec,
	const struct cad_settings *settings, struct cad_error *error)
{
	struct kn_device_info info;
	char has[80];
	device->ops->describe(device, &info);
	const char *why = settings->profile == CAD_PROFILE_BF16_SM90 ? info.without_sm90 : NULL;
	if (!(info.profiles >> settings->profile & 1))
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"device '%s' (%s) does not compute in profile '%s', which is the cluster's%s%s; it has %s: choose such --numerics, or --device cpu here",
			info.name, info.isa, cad_profile_name(settings->profile), why ? ": " : "", why ? why : "",
			profiles_text(info.profiles, has));
	if (settings->layers != spec->layers_count)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the settings are for a model of %u layers, this one has %u", settings->layers,
			spec->layers_count);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		if (spec->layers[i].moe && settings->quanta[i] == 0)
			return cad_error_set(error, CAD_ERR_INVALID,
				"the settings have no quantum for layer %u, which is an MoE layer", i);
	return CAD_OK;
}

/* Queue, inbox, batch and activations. What was made is undone by ex_engine_destroy. */
static enum cad_status parts_create(struct ex_engine *engine, struct cad_error *error)
{
	const struct ex_engine_options *o = &engine->options;
	const struct cad_model_spec *spec = engine->spec;

	/* one row always fits */
	uint32_t pairs_max = o->step_pairs_max > spec->gate.experts ? o->step_pairs_max : spec->gate.experts;
	unsigned threads = o->threads > 0 ? o->threads : kn_threads_default();
	enum cad_status status = CAD_OK;
	char has[EX_MEMORY_TEXT_BYTES];

	if (!engine->queue)
		status = o->device->ops->queue_create(o->device, threads, &engine->queue);
	if (status != CAD_OK)
		return cad_error_set(error, status, "cannot create a compute queue of %u threads: %s", threads,
			ex_memory_free_text(o->device, has));

	if (ex_work_init(&engine->work, spec->layers_count, spec->gate.experts) != CAD_OK ||
		ex_inbox_init(&engine->inbox, o->requests_max) != CAD_OK ||
		ex_batch_init(&engine->step.batch, o->device, o->step_rows_max, pairs_max, o->requests_max,
			spec->gate.experts, CADRE_ROWS_MAX) != CAD_OK ||
		ex_exec_init(&engine->step.exec, engine->queue, o->step_rows_max, pairs_max, spec->hidden,
			spec->expert.size) != CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY,
			"no memory for steps of %u rows and %u pairs: %s; lower --step-rows and --step-pairs, or end what else uses it",
			o->step_rows_max, pairs_max, ex_memory_free_text(o->device, has));
	return CAD_OK;
}

static enum cad_status thread_start(struct ex_engine *engine, struct cad_error *error)
{
	enum cad_status status = cad_mailbox_create(
		engine->options.requests_max, engine->options.wake, engine->options.wake_context, &engine->outbox);

	if (status != CAD_OK)
		return cad_error_set(error, status, "no memory for the answers' mailbox");

	if (pthread_create(&engine->thread, NULL, compute_thread, engine) != 0) {
		cad_mailbox_destroy(engine->outbox);
		engine->outbox = NULL;
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "cannot start a thread for computing: see ulimit -u");
	}

	return CAD_OK;
}

enum cad_status ex_engine_create(
	const struct ex_engine_options *options, struct ex_engine **engine, struct cad_error *error)
{
	CAD_ASSERT(options->model && options->device && options->settings && options->requests_max >= 1 &&
		options->step_rows_max >= 1);
	CAD_ASSERT(!options->queue || options->mode == EX_ENGINE_INLINE);
	struct ex_engine *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the expert engine");
	made->options = *options;
	made->spec = cad_model_spec(options->model);
	made->queue = options->queue;
	enum cad_status status = settings_check(options->device, made->spec, options->settings, error);
	if (status == CAD_OK)
		status = ex_store_create(
			&(struct ex_store_options){
				.model = options->model,
				.device = options->device,
				.weights = cad_settings_expert_weights(options->settings),
				.memory_bytes = options->memory_bytes,
			},
			&made->store, error);
	if (status == CAD_OK)
		status = parts_create(made, error);
	if (status != CAD_OK)
		goto destroy_made;
	struct ex_step *step = &made->step;
	step->inbox = &made->inbox;
	step->store = made->store;
	step->spec = made->spec;
	step->quanta = options->settings->quanta;
	step->clock = options->clock ? options->clock : &cad_clock_system;
	step->counters = &made->counters;
	step->work = options->telemetry ? &made->work : NULL;
	step->answer = options->mode == EX_ENGINE_THREADED ? answer_later : answer_now;
	step->context = made;
	step->device_failed = options->device_failed;
	step->device_failed_context = options->device_failed_context;
	if (options->metrics)
		metrics_register(made, options->metrics);
	if (options->mode == EX_ENGINE_THREADED) {
		status = thread_start(made, error);
		if (status != CAD_OK)
			goto destroy_made;
	}

	*engine = made;
	return CAD_OK;

destroy_made:
	ex_engine_destroy(made);
	return status;
}

void ex_engine_stop(struct ex_engine *engine)
{
	if (!engine->outbox)
		return;

	atomic_store(&engine->stop, true);
	ex_inbox_wake(&engine->inbox);
	pthread_join(engine->thread, NULL);
	cad_mailbox_destroy(engine->outbox);
	engine->outbox = NULL;
}

void ex_engine_destroy(struct ex_engine *engine)
{
	if (!engine)
		return;

	ex_engine_stop(engine);

	if (engine->inbox.jobs) {
		CAD_ASSERT(ex_engine_idle(engine));
		ex_inbox_fini(&engine->inbox);
	}

	ex_exec_fini(&engine->step.exec);
	ex_batch_fini(&engine->step.batch);
	if (engine->queue && !engine->options.queue)
		engine->queue->ops->queue_destroy(engine->queue);
	ex_store_destroy(engine->store);
	ex_work_fini(&engine->work);
	free(engine);
}
