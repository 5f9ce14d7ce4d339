/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/engine.h"

#include "common/base/log.h"
#include "common/base/plural.h"
#include "router-svc/batch/scheduler.h"
#include "router-svc/inbox.h"
#include "router-svc/step.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
	STEP_TOKENS_DEFAULT = 512,
	SEQUENCES_DEFAULT = 64,
	CALL_TIMEOUT_MS_DEFAULT = 10000,
	CALL_ROWS_MAX = 256,
	CALLS_MAX = 64,
	IDLE_MS_MAX = 200,
	LOOK_MS = 100, /* how often all nodes are looked at for what is told of their calls */
};
static const uint64_t KV_BYTES_DEFAULT = (uint64_t)1 << 30;

struct rt_engine {
	struct rt_engine_options options;
	const struct cad_model_spec *spec;
	float *quanta;
	struct rt_inbox *inbox;
	struct cad_transport *transport;
	struct rt_exchange exchange;
	struct rt_kv_cache cache;
	struct rt_scheduler scheduler;
	struct rt_batch batch;
	struct rt_step step;
	struct rt_telemetry telemetry; /* zeroed: there is none */
	bool *wants;                   /* [rows_max] */
	int32_t *chosen;               /* [spans_max]: the token that a span chose in this step, -1: none */
	void *sample_scratch;
	const struct cad_clock *clock;
	uint64_t look_at_ns; /* at all nodes, again */
	struct rt_health health;
	_Atomic bool stop;
	struct {
		_Atomic uint64_t steps, prefilled, generated, requests, finished, failed, cancelled, preempted, dropped,
			spilled, absent, epoch, advanced_ns, call_p99_ns, breakers_opened;
		_Atomic uint32_t running, waiting, paused, pages_free, connections, unreached, breakers, open_copies;
	} stats;
};

static uint64_t now_ns(const struct rt_engine *engine) { return cad_clock_now_ns(engine->clock); }

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- events ---- */

static struct rt_event event_of(const struct rt_engine *engine, struct rt_sequence *sequence, enum rt_event_kind kind)
{
	sequence->usage.total_us = (now_ns(engine) - sequence->submitted_ns) / CAD_NS_PER_US;
	struct rt_event event = {
		.kind = kind,
		.request = sequence->id,
		.context = sequence->request.context,
		.usage = sequence->usage,
	};
	memcpy(event.digest, sequence->digest, sizeof event.digest);
	return event;
}

static void emit(struct rt_engine *engine, const struct rt_event *event)
{
	engine->options.on_event(engine->options.user, event);
}

/* The last event was sent: the sequence holds nothing any longer. */
static void retire(struct rt_engine *engine, struct rt_sequence *sequence)
{
	count(&engine->stats.dropped, sequence->usage.dropped);
	count(&engine->stats.spilled, sequence->usage.spilled);
	count(&engine->stats.absent, sequence->usage.absent_slots);
	rt_scheduler_remove(&engine->scheduler, sequence);
	rt_inbox_give_back(engine->inbox, sequence);
}

static void fail(struct rt_engine *engine, struct rt_sequence *sequence)
{
	struct rt_event event = event_of(engine, sequence, RT_EVENT_FAILED);
	event.status = sequence->doomed;
	event.text = sequence->doom;
	if (!sequence->request.trial)
		count(sequence->doomed == CAD_ERR_CANCELLED ? &engine->stats.cancelled : &engine->stats.failed, 1);
	/* before the event: a handler that looks sees everything free */
	rt_scheduler_remove(&engine->scheduler, sequence);
	emit(engine, &event);
	retire(engine, sequence);
}

static void finish(struct rt_engine *engine, struct rt_sequence *sequence, enum rt_finish_reason reason)
{
	struct rt_event event = event_of(engine, sequence, RT_EVENT_FINISHED);
	event.reason = reason;
	count(&engine->stats.finished, !sequence->request.trial);
	rt_scheduler_remove(&engine->scheduler, sequence);
	emit(engine, &event);
	retire(engine, sequence);
}

/* Where the trace of batch row `row` lies, for the event of a span's rows from `row` on. */
static void fill_routing(const struct rt_engine *engine, struct rt_event *event, uint32_t row)
{
	const struct rt_step_trace *trace = &engine->step.trace;
	const struct cad_gate_spec *gate = &engine->spec->gate;

	event->moe_layers = trace->moe_layers_count;
	event->experts = gate->experts;
	event->topk = gate->topk;
	event->layers = trace->moe_layers;
	event->layer_stride = engine->batch.rows_max;
	event->ids = trace->ids + (size_t)row * gate->topk;
	event->weights = trace->weights + (size_t)row * gate->topk;
	event->nodes = trace->node_ids + (size_t)row * gate->topk;
	event->router_logits = trace->router_logits ? trace->router_logits + (size_t)row * gate->experts : NULL;
}

/* ---- what others ask ---- */

static void take_map(struct rt_engine *engine)
{
	struct cad_map *map = rt_inbox_newest_map(engine->inbox);
	if (!map)
		return;
	rt_inbox_give_back_map(engine->inbox, rt_route_table_map(&engine->exchange.routes, map));
	atomic_store(&engine->stats.epoch, engine->exchange.routes.map->epoch);
}

static void take_wishes(struct rt_engine *engine, struct rt_sequence_list *list)
{
	for (struct rt_sequence *s = list->first; s; s = s->after) {
		struct rt_wishes wishes = rt_inbox_wishes(engine->inbox, s);
		s->paused = wishes.pause;
		if (wishes.cancel)
			rt_sequence_doom(s, CAD_ERR_CANCELLED, "cancelled after %u %s", s->usage.generated_tokens,
				cad_plural(s->usage.generated_tokens, "token", "tokens"));
	}
}

/* Between polls too, in the middle of a step: so nothing here ends a sequence; it only dooms. */
static void take_news(void *context)
{
	struct rt_engine *engine = context;
	if (!rt_inbox_news(engine->inbox))
		return;

	take_map(engine);
	for (struct rt_sequence *s = rt_inbox_submitted(engine->inbox), *next; s; s = next) {
		next = s->after;
		rt_list_add(&engine->scheduler.waiting, s);
	}
	take_wishes(engine, &engine->scheduler.running);
	take_wishes(engine, &engine->scheduler.waiting);
	take_wishes(engine, &engine->scheduler.paused);
}

static void wake(void *context)
{
	struct rt_engine *engine = context;
	cad_transport_wake(engine->transport);
}

enum cad_status rt_engine_submit(
	struct rt_engine *engine, const struct rt_request *request, uint64_t *id, struct cad_error *error)
{
	uint32_t context_max = rt_engine_context_max(engine);
	enum cad_status status = rt_sequence_check(request, context_max, engine->spec->vocab, error);
	if (status != CAD_OK)
		return status;
	if (request->want_logits && !engine->options.keep_logits)
		return cad_error_set(error, CAD_ERR_INVALID, "this engine was created without room for router logits");

	uint64_t given = request->prompt_count + request->received_count,
		 tokens_max = request->max_tokens == 0 ? context_max : given + request->max_tokens;
	status = rt_inbox_submit(engine->inbox, request,
		(uint32_t)(tokens_max < context_max ? tokens_max : context_max), now_ns(engine), id, error);
	if (status == CAD_OK)
		count(&engine->stats.requests, !request->trial);

	return status;
}

void rt_engine_cancel(struct rt_engine *engine, uint64_t id) { rt_inbox_cancel(engine->inbox, id); }

void rt_engine_pause(struct rt_engine *engine, uint64_t id, bool paused) { rt_inbox_pause(engine->inbox, id, paused); }

void rt_engine_map(struct rt_engine *engine, struct cad_map *map) { rt_inbox_map(engine->inbox, map); }

void rt_engine_stop(struct rt_engine *engine)
{
	atomic_store(&engine->stop, true);
	wake(engine);
}

/* ---- one turn ---- */

/* Ends what is doomed or late; only between steps. */
static void sweep_list(struct rt_engine *engine, struct rt_sequence_list *list, uint64_t now)
{
	for (struct rt_sequence *s = list->first, *next; s; s = next) {
		next = s->after;
		if (s->request.deadline_ns != 0 && now >= s->request.deadline_ns)
			rt_sequence_doom(s, CAD_ERR_DEADLINE, "the deadline passed after %u %s",
				s->usage.generated_tokens, cad_plural(s->usage.generated_tokens, "token", "tokens"));
		if (s->doomed != CAD_OK)
			fail(engine, s);
	}
}

static void sweep(struct rt_engine *engine)
{
	uint64_t now = now_ns(engine);
	sweep_list(engine, &engine->scheduler.running, now);
	sweep_list(engine, &engine->scheduler.waiting, now);
	sweep_list(engine, &engine->scheduler.paused, now);
}

static void doom_not_finite(struct rt_sequence *sequence, uint64_t position)
{
	rt_sequence_doom(sequence, CAD_ERR_NOT_FINITE,
		"the logits at position %llu are not finite: the checkpoint is damaged", (unsigned long long)position);
}

/* What is reported is looked at before; what is chosen from, kn_sample looks at. */
static void check_reported(struct rt_engine *engine, const struct rt_batch *batch, const uint32_t *rows,
	uint32_t rows_count, const float *logits, size_t ld)
{
	for (uint32_t i = 0; i < rows_count; i++) {
		struct rt_sequence *sequence = batch->row_span[rows[i]]->sequence;
		if (sequence->request.want_logits && !kn_logits_finite(logits + i * ld, engine->spec->vocab))
			doom_not_finite(sequence, (uint64_t)batch->positions[rows[i]]);
	}
}

/* LOGITS events for runs of consecutive rows of one sequence. */
static void report_logits(struct rt_engine *engine, const struct rt_batch *batch, const uint32_t *rows,
	uint32_t rows_count, const float *logits, size_t ld)
{
	for (uint32_t i = 0, run; i < rows_count; i += run) {
		struct rt_span *span = batch->row_span[rows[i]];
		struct rt_sequence *sequence = span->sequence;
		for (run = 1; i + run < rows_count && batch->row_span[rows[i + run]] == span &&
			rows[i + run] == rows[i] + run;
			run++)
			;
		uint32_t position = (uint32_t)batch->positions[rows[i]],
			 skip = sequence->reported > position ? sequence->reported - position : 0;
		if (!sequence->request.want_logits || sequence->doomed != CAD_OK || skip >= run)
			continue;
		struct rt_event event = event_of(engine, sequence, RT_EVENT_LOGITS);
		fill_routing(engine, &event, rows[i] + skip);
		event.first_position = position + skip;
		event.rows = run - skip;
		event.logits = logits + (i + skip) * ld;
		event.logits_stride = (uint32_t)ld;
		emit(engine, &event);
	}
}

/* Chooses the next token of each sequence whose last row is here. */
static void on_logits(void *context, const struct rt_batch *batch, const uint32_t *rows, uint32_t rows_count,
	const float *logits, size_t ld)
{
	struct rt_engine *engine = context;
	check_reported(engine, batch, rows, rows_count, logits, ld);
	report_logits(engine, batch, rows, rows_count, logits, ld);
	for (uint32_t i = 0; i < rows_count; i++) {
		struct rt_span *span = batch->row_span[rows[i]];
		struct rt_sequence *sequence = span->sequence;
		if (!span->chooses || rows[i] != span->first + span->rows - 1 || sequence->doomed != CAD_OK)
			continue;
		const float *row = logits + i * ld;
		int32_t token = kn_sample(
			&sequence->request.sampling, row, engine->spec->vocab, sequence->count, engine->sample_scratch);
		if (token < 0) {
			doom_not_finite(sequence, sequence->count - 1);
			continue;
		}
		kn_digest_add(sequence->digest, token, row, engine->spec->vocab);
		engine->chosen[span - batch->spans] = token;
	}
}

static bool contains(const int32_t *ids, size_t ids_count, int32_t id)
{
	for (size_t i = 0; i < ids_count; i++)
		if (ids[i] == id)
			return true;
	return false;
}

/* An id that ends the answer: the last token, and no part of the text. */
static bool ends_answer(const struct rt_engine *engine, const struct rt_request *request, int32_t token)
{
	return contains(request->stop_ids, request->stop_ids_count, token) ||
		(!request->ignore_eos && contains(engine->spec->eos_ids, engine->spec->eos_ids_count, token));
}

/* The rows that the span computed, without those that were reported before. */
static void report_routing(struct rt_engine *engine, const struct rt_span *span, uint32_t begin)
{
	struct rt_sequence *sequence = span->sequence;
	uint32_t skip = sequence->reported > begin ? sequence->reported - begin : 0;
	if (!sequence->request.want_routing || skip >= span->rows || engine->step.trace.moe_layers_count == 0)
		return;
	struct rt_event event = event_of(engine, sequence, RT_EVENT_ROUTING);
	fill_routing(engine, &event, span->first + skip);
	event.first_position = begin + skip;
	event.rows = span->rows - skip;
	emit(engine, &event);
}

/* The rows that the span computed for the first time: not those of a sequence that lost its pages,
 * or that another router computed before. */
static void sample_routing(struct rt_engine *engine, const struct rt_span *span, uint32_t begin)
{
	const struct rt_sequence *sequence = span->sequence;
	const struct rt_step_trace *trace = &engine->step.trace;
	uint32_t topk = engine->spec->gate.topk, skip = sequence->reported > begin ? sequence->reported - begin : 0;

	if (!engine->telemetry.records || sequence->request.trial)
		return;
	for (uint32_t row = skip; row < span->rows; row++)
		rt_telemetry_token(&engine->telemetry, sequence->id, begin + row,
			trace->ids + (size_t)(span->first + row) * topk, engine->batch.rows_max);
}

static void tell_traffic(struct rt_engine *engine)
{
	const struct rt_route_table *routes = &engine->exchange.routes;

	for (uint32_t i = 0; i < routes->peers_count; i++) {
		struct rt_peer *peer = &routes->peers[i];
		if ((peer->bytes_sent > 0 || peer->bytes_received > 0) &&
			rt_telemetry_traffic(&engine->telemetry, peer->id, peer->bytes_sent, peer->bytes_received))
			peer->bytes_sent = peer->bytes_received = 0;
	}
}

/* After the step: what the span's sequence has now. */
static void advance(struct rt_engine *engine, struct rt_span *span, int32_t token)
{
	struct rt_sequence *sequence = span->sequence;
	const struct rt_request *request = &sequence->request;
	uint32_t begin = sequence->computed;

	sequence->computed += span->rows;
	count(sequence->count > sequence->given ? &engine->stats.generated : &engine->stats.prefilled, span->rows);
	if (sequence->doomed != CAD_OK)
		return;

	atomic_store_explicit(&engine->stats.advanced_ns, now_ns(engine), memory_order_relaxed);
	report_routing(engine, span, begin);
	sample_routing(engine, span, begin);
	if (sequence->computed > sequence->reported)
		sequence->reported = sequence->computed;
	if (token < 0)
		return;
	if (sequence->count == sequence->given)
		sequence->usage.first_token_us = (now_ns(engine) - sequence->submitted_ns) / CAD_NS_PER_US;
	sequence->tokens[sequence->count++] = token;
	sequence->usage.generated_tokens++;
	bool ends = ends_answer(engine, request, token);
	struct rt_event event = event_of(engine, sequence, RT_EVENT_TOKEN);
	event.token = token;
	event.is_text = !ends;
	event.is_last = ends || sequence->count == sequence->tokens_max;
	emit(engine, &event);
	if (event.is_last)
		finish(engine, sequence, ends ? RT_FINISH_STOP : RT_FINISH_LENGTH);
}

static void compute(struct rt_engine *engine)
{
	struct rt_batch *batch = &engine->batch;
	for (uint32_t r = 0; r < batch->rows; r++) {
		const struct rt_span *span = batch->row_span[r];
		engine->wants[r] =
			span->sequence->request.want_logits || (span->chooses && r == span->first + span->rows - 1);
	}

	for (uint32_t i = 0; i < batch->spans_count; i++)
		engine->chosen[i] = -1;
	uint64_t began = now_ns(engine);
	enum cad_status status = rt_step_run(&engine->step, batch, engine->wants, on_logits, engine);
	rt_schedule_took(&engine->scheduler, batch, now_ns(engine) - began);
	count(&engine->stats.steps, 1);

	for (uint32_t i = 0; i < batch->spans_count; i++) {
		if (status != CAD_OK)
			rt_sequence_doom(batch->spans[i].sequence, status, "the device failed in the middle of a step");
		advance(engine, &batch->spans[i], engine->chosen[i]);
	}
}

static void look_at_nodes(struct rt_engine *engine)
{
	uint64_t now = now_ns(engine);
	if (now < engine->look_at_ns)
		return;

	engine->look_at_ns = now + LOOK_MS * CAD_NS_PER_MS;
	atomic_store_explicit(
		&engine->stats.call_p99_ns, rt_route_table_p99_ns(&engine->exchange.routes), memory_order_relaxed);
	rt_health_fill(&engine->health, &engine->exchange.routes);
}

static void publish_stats(struct rt_engine *engine)
{
	look_at_nodes(engine);
	atomic_store_explicit(&engine->stats.running, engine->scheduler.running.count, memory_order_relaxed);
	atomic_store_explicit(&engine->stats.waiting, engine->scheduler.waiting.count, memory_order_relaxed);
	atomic_store_explicit(&engine->stats.paused, engine->scheduler.paused.count, memory_order_relaxed);
	atomic_store_explicit(&engine->stats.pages_free, engine->cache.free_count, memory_order_relaxed);
	atomic_store_explicit(&engine->stats.preempted, engine->scheduler.preempted, memory_order_relaxed);
	atomic_store_explicit(
		&engine->stats.connections, rt_route_table_connections(&engine->exchange.routes), memory_order_relaxed);
	const struct rt_route_table *routes = &engine->exchange.routes;
	atomic_store_explicit(&engine->stats.breakers, routes->breakers, memory_order_relaxed);
	atomic_store_explicit(&engine->stats.breakers_opened, routes->breakers_opened + routes->open_copies.opened,
		memory_order_relaxed);
	atomic_store_explicit(&engine->stats.open_copies, routes->open_copies.count, memory_order_relaxed);
	atomic_store_explicit(&engine->stats.unreached, engine->exchange.routes.unreached, memory_order_relaxed);
}

/* When the next deadline of a request is due. */
static uint64_t next_deadline(const struct rt_engine *engine)
{
	uint64_t next = UINT64_MAX;
	const struct rt_sequence_list *lists[] = { &engine->scheduler.running, &engine->scheduler.waiting,
		&engine->scheduler.paused };
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
		for (const struct rt_sequence *s = lists[i]->first; s; s = s->after)
			if (s->request.deadline_ns != 0 && s->request.deadline_ns < next)
				next = s->request.deadline_ns;
	return next;
}

bool rt_engine_turn(struct rt_engine *engine, uint64_t until_ns)
{
	take_news(engine);
	sweep(engine);
	if (engine->telemetry.records && rt_telemetry_turn(&engine->telemetry, now_ns(engine)))
		tell_traffic(engine);
	uint64_t due = rt_route_table_tick(&engine->exchange.routes);
	rt_schedule(&engine->scheduler, &engine->batch);
	bool computes = engine->batch.rows > 0;
	if (computes) {
		rt_exchange_poll(&engine->exchange, 0); /* heartbeats, even when no expert is waited for */
		compute(engine);
		sweep(engine);
	} else {
		uint64_t deadline = next_deadline(engine);
		until_ns = due < until_ns ? due : until_ns;
		rt_exchange_poll(&engine->exchange, deadline < until_ns ? deadline : until_ns);
	}

	publish_stats(engine);
	return computes;
}

void rt_engine_run(struct rt_engine *engine)
{
	while (!atomic_load(&engine->stop))
		rt_engine_turn(engine, now_ns(engine) + IDLE_MS_MAX * CAD_NS_PER_MS);
}

/* ---- life ---- */

static void on_address(struct cad_transport *transport, const char *address)
{
	const struct rt_engine_options *o = &((struct rt_engine *)cad_transport_user(transport))->options;
	if (o->on_exchange_address)
		o->on_exchange_address(o->transport_context, address);
}

static void on_connection(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	struct rt_engine *engine = cad_transport_user(transport);
	struct rt_peer *peer = cad_connection_user(connection);
	if (peer)
		rt_route_table_connection(&engine->exchange.routes, peer, state, status, text);
}

static uint32_t or_default(uint32_t value, uint32_t fallback) { return value > 0 ? value : fallback; }

static enum cad_status create_exchange(struct rt_engine *engine, struct cad_error *error)
{
	struct rt_engine_options *o = &engine->options;
	const struct cad_gate_spec *gate = &engine->spec->gate;
	uint32_t rows_max = o->step_tokens_max < CALL_ROWS_MAX ? o->step_tokens_max : CALL_ROWS_MAX;
	uint64_t payload_max =
		cad_wire_call_bytes_max(rows_max, engine->spec->hidden, gate->experts, (size_t)rows_max * gate->topk);
	uint64_t answer_max = cad_wire_answer_bytes_max(rows_max, engine->spec->hidden);
	struct cad_transport_options transport = o->transport;

	transport.limits = (struct cad_wire_limits){
		.payload_bytes_max = payload_max > answer_max ? payload_max : answer_max,
		.rows_max = rows_max,
		.row_elements = engine->spec->hidden,
		.layers = engine->spec->layers_count,
		.experts = gate->experts,
	};
	transport.connections_max = CAD_ROUTER_CONNECTIONS_MAX;
	transport.calls_max = CALLS_MAX;
	transport.user = engine;
	transport.on_connection = on_connection;
	transport.on_request = NULL;
	transport.on_address = on_address;
	enum cad_status status = o->transport_create(o->transport_context, &transport, &engine->transport, error);
	if (status != CAD_OK)
		return status;
	engine->clock = cad_transport_clock(engine->transport);
	on_address(engine->transport, cad_transport_address(engine->transport));
	struct rt_exchange_options exchange = {
		.transport = engine->transport,
		.queue = o->queue,
		.spec = engine->spec,
		.wire = o->wire,
		.rows_max = rows_max,
		.shipments_max = gate->experts > 0 ? CALLS_MAX : 1,
		.call_timeout_ms = o->call_timeout_ms,
		.hedge_max = o->hedge_max,
		.breaker_p99_ns = o->breaker_p99_ns,
		.absent = o->policies.absent,
		.idle = take_news,
		.idle_context = engine,
	};
	status = rt_exchange_init(&engine->exchange, &exchange, error);
	engine->exchange.routes.on_reach = o->on_reach;
	engine->exchange.routes.on_reach_context = o->user;
	return status;
}

static enum cad_status create_step(struct rt_engine *engine, struct cad_error *error)
{
	const struct rt_engine_options *o = &engine->options;
	struct rt_step_options step = {
		.model = o->model,
		.device = o->device,
		.queue = o->queue,
		.weights = o->weights,
		.cache = &engine->cache,
		.exchange = &engine->exchange,
		.quanta = engine->quanta,
		.policies = o->policies,
		.rows_max = o->step_tokens_max,
		.micro_batches = o->micro_batches < RT_MICRO_BATCHES_MAX ? o->micro_batches : RT_MICRO_BATCHES_MAX,
		.clock = engine->clock,
	};
	enum cad_status status = rt_step_init(&engine->step, &step, error);
	if (status == CAD_OK && o->keep_logits && rt_step_trace_logits(&engine->step) != CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to keep router logits");
	uint32_t layers = engine->step.trace.moe_layers_count;
	if (status == CAD_OK && o->telemetry && layers > 0 &&
		rt_telemetry_init(&engine->telemetry, layers, engine->spec->gate.topk) != CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to sample routing");

	return status;
}

static void take_options(struct rt_engine *engine, const struct rt_engine_options *options)
{
	struct rt_engine_options *o = &engine->options;
	*o = *options;
	o->step_tokens_max = or_default(o->step_tokens_max, STEP_TOKENS_DEFAULT);
	o->chunk_tokens_max = or_default(o->chunk_tokens_max, o->step_tokens_max);
	o->sequences_max = or_default(o->sequences_max, SEQUENCES_DEFAULT);
	o->call_timeout_ms = or_default(o->call_timeout_ms, CALL_TIMEOUT_MS_DEFAULT);
	o->kv_bytes = o->kv_bytes > 0 ? o->kv_bytes : KV_BYTES_DEFAULT;
	engine->spec = cad_model_spec(o->model);
	o->context_max = or_default(o->context_max, engine->spec->context_max);
	engine->scheduler = (struct rt_scheduler){
		.cache = &engine->cache,
		.rope = &engine->spec->rope, /* the only one, if it varies */
		.running_max = o->sequences_max,
		.chunk_max = o->chunk_tokens_max,
		.pace.stretch = o->step_stretch,
	};
}

/* What is the engine's own, of the sizes in its options. */
static enum cad_status allocate(struct rt_engine *engine)
{
	const struct rt_engine_options *o = &engine->options;
	uint32_t layers = engine->spec->layers_count;

	engine->quanta = malloc(layers * sizeof *engine->quanta);
	engine->wants = malloc(o->step_tokens_max * sizeof *engine->wants);
	engine->chosen = malloc(o->sequences_max * sizeof *engine->chosen);
	engine->sample_scratch = malloc(kn_sample_scratch_bytes(engine->spec->vocab));
	if (!engine->quanta || !engine->wants || !engine->chosen || !engine->sample_scratch)
		return CAD_ERR_MEMORY;

	memcpy(engine->quanta, o->quanta, layers * sizeof *engine->quanta);
	enum cad_status status = rt_batch_init(&engine->batch, o->step_tokens_max, o->sequences_max);
	return status == CAD_OK ? rt_inbox_create(o->sequences_max + o->queue_max, wake, engine, &engine->inbox)
				: status;
}

enum cad_status rt_engine_create(
	const struct rt_engine_options *options, struct rt_engine **out, struct cad_error *error)
{
	struct rt_engine *engine = calloc(1, sizeof *engine);
	if (!engine)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the engine");

	rt_health_init(&engine->health);
	take_options(engine, options);
	const struct rt_engine_options *o = &engine->options;
	enum cad_status status = allocate(engine);
	if (status != CAD_OK)
		cad_error_set(error, status, "no memory for the engine");
	if (status == CAD_OK)
		status = create_exchange(engine, error);
	if (status == CAD_OK)
		status = rt_kv_cache_init(&engine->cache, o->device, o->queue, engine->spec, o->kv, o->kv_bytes,
			o->sequences_max, o->context_max, error);
	if (status == CAD_OK)
		status = create_step(engine, error);

	if (status != CAD_OK) {
		rt_engine_destroy(engine);
		return status;
	}

	publish_stats(engine);
	*out = engine;
	return CAD_OK;
}

static void fail_all(struct rt_engine *engine, struct rt_sequence_list *list)
{
	for (struct rt_sequence *s; (s = list->first) != NULL;) {
		rt_sequence_doom(s, CAD_ERR_CANCELLED, "the router is stopping");
		fail(engine, s);
	}
}

void rt_engine_destroy(struct rt_engine *engine)
{
	if (!engine)
		return;

	if (engine->inbox)
		take_news(engine);
	fail_all(engine, &engine->scheduler.running);
	fail_all(engine, &engine->scheduler.waiting);
	fail_all(engine, &engine->scheduler.paused);

	rt_exchange_fini(&engine->exchange);
	rt_inbox_destroy(engine->inbox);
	rt_step_fini(&engine->step);
	rt_telemetry_fini(&engine->telemetry);
	rt_kv_cache_fini(&engine->cache);
	rt_batch_fini(&engine->batch);
	free(engine->quanta);
	free(engine->wants);
	free(engine->chosen);
	free(engine->sample_scratch);
	free(engine);
}

/* ---- what others may ask ---- */

uint32_t rt_engine_context_max(const struct rt_engine *engine)
{
	uint64_t held = (uint64_t)engine->cache.pages * KN_PAGE_KEYS;
	return held < engine->options.context_max ? (uint32_t)held : engine->options.context_max;
}

uint32_t rt_engine_rows_max(const struct rt_engine *engine)
{
	const struct rt_engine_options *o = &engine->options;
	return o->chunk_tokens_max < o->step_tokens_max ? o->chunk_tokens_max : o->step_tokens_max;
}

const char *rt_engine_weights_checksum(const struct rt_engine *engine) { return engine->step.weights.checksum; }

const struct cad_clock *rt_engine_clock(const struct rt_engine *engine) { return engine->clock; }

bool rt_engine_ready(const struct rt_engine *engine)
{
	return engine->spec->gate.experts == 0 || atomic_load(&engine->exchange.routes.ready);
}

uint64_t rt_engine_advanced_ns(const struct rt_engine *engine)
{
	return atomic_load_explicit(&engine->stats.advanced_ns, memory_order_relaxed);
}

void rt_engine_missing(const struct rt_engine *engine, char text[CAD_NOTE_BYTES])
{
	cad_note_get(&engine->exchange.routes.missing, text);
}

struct rt_telemetry *rt_engine_telemetry(struct rt_engine *engine)
{
	return engine->telemetry.records ? &engine->telemetry : NULL;
}

const struct rt_health_view *rt_engine_health(struct rt_engine *engine) { return rt_health_look(&engine->health); }

const struct rt_reach_view *rt_engine_reach(struct rt_engine *engine)
{
	return rt_reach_look(engine->exchange.routes.reach);
}

const struct rt_expert_counts *rt_engine_expert_counts(const struct rt_engine *engine) { return engine->step.counts; }

void rt_engine_stats(const struct rt_engine *engine, struct rt_engine_stats *stats)
{
	const struct rt_exchange_stats *x = &engine->exchange.stats;
	*stats = (struct rt_engine_stats){
		.steps = engine->stats.steps,
		.tokens_prefilled = engine->stats.prefilled,
		.tokens_generated = engine->stats.generated,
		.requests = engine->stats.requests,
		.finished = engine->stats.finished,
		.failed = engine->stats.failed,
		.cancelled = engine->stats.cancelled,
		.preempted = engine->stats.preempted,
		.calls = x->calls,
		.calls_retried = x->retried,
		.calls_late = x->late,
		.calls_hedged = x->hedged,
		.hedges_won = x->hedges_won,
		.hedges_refused = x->hedges_refused,
		.hedge_calls = x->hedge_calls,
		.probes = x->probes,
		.rows_diverted = x->rows_diverted,
		.breakers_opened = engine->stats.breakers_opened,
		.breakers = engine->stats.breakers,
		.open_copies = engine->stats.open_copies,
		.bytes_sent = x->bytes_sent,
		.bytes_received = x->bytes_received,
		.nodes_touched = x->nodes_touched,
		.routed_rows = x->routed_rows,
		.dropped = engine->stats.dropped,
		.spilled = engine->stats.spilled,
		.absent = engine->stats.absent,
		.running = engine->stats.running,
		.waiting = engine->stats.waiting,
		.paused = engine->stats.paused,
		.kv_pages = engine->cache.pages,
		.kv_pages_free = engine->stats.pages_free,
		.connections = engine->stats.connections,
		.unreached = engine->stats.unreached,
		.epoch = engine->stats.epoch,
		.call_p99_ns = engine->stats.call_p99_ns,
	};
	for (int i = 0; i < RT_STAGE_COUNT; i++)
		stats->stage_ns[i] = engine->step.stages.ns[i];
}
