/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/stream.h"

#include "common/base/log.h"
#include "common/tokenizer/decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Cadre__V1__GenerateResponse Response;

enum { HUB_ARENA_BYTES = 64 << 20 };

struct token {
	int32_t id;
	/* up to and with this token, as usage: a stop string ends an answer in the middle of what
	 * was generated */
	uint8_t digest[16];
	struct rt_usage usage;
};

struct rt_stream {
	struct rt_stream_hub *hub;
	uint64_t id; /* the engine's */

	/* written by the engine's thread */
	struct token ring[RT_STREAM_RING];
	_Atomic uint32_t written;
	_Atomic(struct rt_routing *) routing_new; /* last first */
	struct token last;                        /* with FINISHED or FAILED: digest and usage */
	enum rt_finish_reason reason;
	enum cad_status status; /* CAD_OK: FINISHED */
	char failure[CAD_ERROR_TEXT_BYTES];
	atomic_bool copy_failed; /* there was no memory for routing */

	/* by both, see stream.h */
	_Atomic uint32_t taken;
	_Atomic size_t routing_bytes;
	/* set by the engine's thread once it has asked for the pause, cleared by the reactor's
	 * before it asks for the end of it */
	atomic_bool paused;
	atomic_bool listed; /* in the hub's ready list */
	struct rt_stream *next_ready, *next_ended;

	/* the reactor's thread alone */
	struct cad_rpc_call *call; /* NULL: over */
	bool full;                 /* the call's queue */
	bool ended;                /* the engine is done with the stream */
	struct rt_routing *routing, **routing_end;
	struct cad_decoder *decoder;
	struct rt_stop_text stop;
	int32_t stop_ids[RT_STOP_IDS_MAX];
	size_t stop_ids_count;
	bool ignore_eos;
	uint32_t sent_tokens;
};

/* ---- the engine's thread ---- */

static void list_push(_Atomic(struct rt_stream *) *list, struct rt_stream **next, struct rt_stream *stream)
{
	*next = atomic_load_explicit(list, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(list, next, stream, memory_order_release, memory_order_relaxed)) {
	}
}

static void pause_if_behind(struct rt_stream *stream)
{
	uint32_t waiting = atomic_load_explicit(&stream->written, memory_order_relaxed) -
		atomic_load_explicit(&stream->taken, memory_order_acquire);

	if (atomic_load_explicit(&stream->paused, memory_order_acquire) ||
		(waiting < RT_STREAM_PAUSE_AT &&
			atomic_load_explicit(&stream->routing_bytes, memory_order_relaxed) <
				RT_STREAM_ROUTING_PAUSE_BYTES))
		return;
	struct rt_frontend_engine *engine = &stream->hub->engine;
	engine->pause(engine->engine, stream->id, true);

	/* after the pause: what undoes it comes later in the engine's mailbox */
	atomic_store_explicit(&stream->paused, true, memory_order_release);
}

static void token_put(struct rt_stream *stream, const struct rt_event *event)
{
	uint32_t written = atomic_load_explicit(&stream->written, memory_order_relaxed);
	/* a paused sequence computes nothing */
	CAD_ASSERT(written - atomic_load_explicit(&stream->taken, memory_order_acquire) < RT_STREAM_RING);
	struct token *token = &stream->ring[written % RT_STREAM_RING];
	token->id = event->token;
	token->usage = event->usage;
	memcpy(token->digest, event->digest, sizeof token->digest);
	atomic_store_explicit(&stream->written, written + 1, memory_order_release);
}

static void routing_put(struct rt_stream *stream, const struct rt_event *event)
{
	if (event->rows == 0)
		return;

	struct rt_routing *copy = rt_routing_copy(event);
	if (!copy) {
		atomic_store(&stream->copy_failed, true);
		return;
	}

	atomic_fetch_add(&stream->routing_bytes, copy->bytes);
	copy->next = atomic_load_explicit(&stream->routing_new, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(
		&stream->routing_new, &copy->next, copy, memory_order_release, memory_order_relaxed)) {}
}

static void end_put(struct rt_stream *stream, const struct rt_event *event)
{
	stream->last.usage = event->usage;
	memcpy(stream->last.digest, event->digest, sizeof stream->last.digest);
	stream->reason = event->reason;
	stream->status = event->kind == RT_EVENT_FINISHED ? CAD_OK : event->status;
	snprintf(stream->failure, sizeof stream->failure, "%s",
		event->kind == RT_EVENT_FAILED && event->text ? event->text : "");
}

void rt_stream_event(const struct rt_event *event)
{
	struct rt_stream *stream = event->context;
	struct rt_stream_hub *hub = stream->hub;

	switch (event->kind) {
	case RT_EVENT_TOKEN: token_put(stream, event); break;
	case RT_EVENT_ROUTING: routing_put(stream, event); break;
	case RT_EVENT_LOGITS: return;
	case RT_EVENT_FINISHED:
	case RT_EVENT_FAILED:
		end_put(stream, event);
		list_push(&hub->ended, &stream->next_ended, stream); /* the last touch */
		cad_rpc_wakeup_send(&hub->wakeup);
		return;
	}
	pause_if_behind(stream);
	if (!atomic_exchange_explicit(&stream->listed, true, memory_order_acq_rel))
		list_push(&hub->ready, &stream->next_ready, stream);
	cad_rpc_wakeup_send(&hub->wakeup);
}

/* ---- the reactor's thread: life ---- */

static void routing_free(struct rt_routing *routing)
{
	for (struct rt_routing *next; routing; routing = next) {
		next = routing->next;
		free(routing);
	}
}

static void stream_free(struct rt_stream *stream)
{
	routing_free(stream->routing);
	routing_free(atomic_load(&stream->routing_new));
	cad_decoder_destroy(stream->decoder);
	rt_stop_text_fini(&stream->stop);
	stream->hub->alive--;
	free(stream);
}

/* The call goes its own way from here; what the engine still has to say is thrown away. */
static void detach(struct rt_stream *stream, enum cad_rpc_code code, const struct rt_usage *usage)
{
	struct rt_stream_hub *hub = stream->hub;
	cad_rpc_call_set_state(stream->call, NULL);
	stream->call = NULL;
	atomic_fetch_sub(&hub->open, 1);
	cad_counter_add(hub->ended_by_code[code], 1);
	if (usage && usage->generated_tokens > 0) {
		cad_histogram_observe(hub->first_token_seconds, (double)usage->first_token_us * 1e-6);
		cad_histogram_observe(hub->total_seconds, (double)usage->total_us * 1e-6);
	}

	cad_log_debug("frontend", "a stream has ended", CAD_U("request", stream->id),
		CAD_S("code", cad_rpc_code_name(code)), CAD_U("tokens", stream->sent_tokens));
	if (!stream->ended)
		hub->engine.cancel(hub->engine.engine, stream->id);
}

static void fail(struct rt_stream *stream, enum cad_rpc_code code, const char *sentence)
{
	cad_rpc_call_finish(stream->call, code, "%s", sentence);
	detach(stream, code, NULL);
}

static enum cad_status stream_create(
	struct rt_stream_hub *hub, const Cadre__V1__GenerateRequest *message, struct rt_stream **created)
{
	struct rt_stream *stream = calloc(1, sizeof *stream);
	if (!stream)
		return CAD_ERR_MEMORY;

	hub->alive++;
	stream->hub = hub;
	stream->routing_end = &stream->routing;
	stream->ignore_eos = message->ignore_eos;
	stream->stop_ids_count = message->n_stop_ids;
	if (message->n_stop_ids > 0)
		memcpy(stream->stop_ids, message->stop_ids, message->n_stop_ids * sizeof *stream->stop_ids);
	enum cad_status status = rt_stop_text_init(&stream->stop, message->stop, message->n_stop);
	if (status == CAD_OK && hub->tokenizer)
		status = cad_decoder_create(hub->tokenizer, true, &stream->decoder);
	if (status != CAD_OK) {
		stream_free(stream);
		return status;
	}

	*created = stream;
	return CAD_OK;
}

enum cad_status rt_stream_open(struct rt_stream_hub *hub, struct cad_rpc_call *call,
	const Cadre__V1__GenerateRequest *message, struct rt_request *request, struct cad_error *error)
{
	int64_t left_ms = cad_rpc_call_time_left_ms(call);
	if (left_ms >= 0)
		request->deadline_ns = cad_clock_now_ns(hub->engine.clock) + (uint64_t)left_ms * CAD_NS_PER_MS;
	struct rt_stream *stream;
	enum cad_status status = stream_create(hub, message, &stream);
	if (status != CAD_OK)
		return cad_error_set(error, status, "there is no memory for another stream: try again later");
	request->context = stream;
	stream->call = call; /* before submit: an event may come at once, but is looked at only by this thread */
	status = hub->engine.submit(hub->engine.engine, request, &stream->id, error);
	if (status != CAD_OK) {
		stream_free(stream);
		return status;
	}

	atomic_fetch_add(&hub->open, 1);
	cad_rpc_call_set_state(call, stream);
	cad_rpc_call_send_headers(call); /* the client learns that it has been admitted */

	return CAD_OK;
}

/* ---- the reactor's thread: one response ---- */

struct answer {
	Response message;
	int32_t ids[RT_STREAM_RING];
	struct cad_text text;
	bool last;
	enum rt_finish_reason reason;
	struct token end;
};

static bool contains(const int32_t *ids, size_t count, int32_t id)
{
	for (size_t i = 0; i < count; i++)
		if (ids[i] == id)
			return true;
	return false;
}

/* The id that ends an answer is returned, its text is not. */
static bool ends_answer(const struct rt_stream *stream, int32_t id)
{
	return contains(stream->stop_ids, stream->stop_ids_count, id) ||
		(!stream->ignore_eos && contains(stream->hub->eos_ids, stream->hub->eos_ids_count, id));
}

static enum cad_status text_take(
	struct rt_stream *stream, const struct token *token, struct answer *answer, struct cad_error *error)
{
	if (!stream->decoder || ends_answer(stream, token->id))
		return CAD_OK;

	struct cad_text piece = { 0 };
	bool found = false;
	enum cad_status status = cad_decoder_push(stream->decoder, token->id, &piece, error);
	if (status == CAD_OK) {
		status = rt_stop_text_add(&stream->stop, piece.bytes, piece.size, &answer->text, &found);
		if (status != CAD_OK)
			cad_error_set(error, status, "there is no memory for the text of the answer");
	}

	cad_text_fini(&piece);

	if (status == CAD_OK && found) {
		answer->last = true;
		answer->reason = RT_FINISH_STOP;
		answer->end = *token;
	}

	return status;
}

/* Tokens that are in the ring, up to a stop string. */
static enum cad_status tokens_take(
	struct rt_stream *stream, uint32_t written, struct answer *answer, struct cad_error *error)
{
	uint32_t taken = atomic_load_explicit(&stream->taken, memory_order_relaxed);
	enum cad_status status = CAD_OK;

	while (status == CAD_OK && taken != written && !answer->last) {
		const struct token *token = &stream->ring[taken++ % RT_STREAM_RING];
		answer->ids[answer->message.n_token_ids++] = token->id;
		status = text_take(stream, token, answer, error);
	}
	atomic_store_explicit(&stream->taken, taken, memory_order_release);
	return status;
}

/* What the engine has finished: the text that was held back, in full or up to a stop string. */
static enum cad_status end_take(struct rt_stream *stream, struct answer *answer, struct cad_error *error)
{
	struct cad_text piece = { 0 };
	bool found = false;
	enum cad_status status = stream->decoder ? cad_decoder_finish(stream->decoder, &piece, error) : CAD_OK;

	if (status == CAD_OK) {
		status = rt_stop_text_add(&stream->stop, piece.bytes, piece.size, &answer->text, &found);
		if (status == CAD_OK && !found)
			status = rt_stop_text_flush(&stream->stop, &answer->text);
		if (status != CAD_OK)
			cad_error_set(error, status, "there is no memory for the text of the answer");
	}

	cad_text_fini(&piece);
	answer->last = true;
	answer->reason = found ? RT_FINISH_STOP : stream->reason;
	answer->end = stream->last;

	return status;
}

/* The list is last first; the queue is first first. */
static void routing_collect(struct rt_stream *stream)
{
	struct rt_routing *taken = atomic_exchange_explicit(&stream->routing_new, NULL, memory_order_acquire),
			  *first = NULL, *last = taken;
	for (struct rt_routing *next; taken; taken = next) {
		next = taken->next;
		taken->next = first;
		first = taken;
	}
	if (first) {
		*stream->routing_end = first;
		stream->routing_end = &last->next;
	}
}

static enum cad_status routing_take(struct rt_stream *stream, struct answer *answer, struct cad_error *error)
{
	struct rt_routing *routing = stream->routing;
	if (!routing)
		return CAD_OK;
	size_t rows_max = RT_STREAM_ROUTING_MESSAGE_BYTES / rt_routing_row_bytes(routing);
	enum cad_status status = rt_routing_write(routing, rows_max ? (uint32_t)rows_max : 1, &stream->hub->arena,
		&answer->message.routing, &answer->message.n_routing);
	return status != CAD_OK ? cad_error_set(error, status, "there is no memory for the routing of the answer")
				: CAD_OK;
}

static void routing_drop_sent(struct rt_stream *stream)
{
	struct rt_routing *routing = stream->routing;
	if (!routing || routing->rows_sent < routing->rows)
		return;
	stream->routing = routing->next;
	if (!stream->routing)
		stream->routing_end = &stream->routing;
	atomic_fetch_sub(&stream->routing_bytes, routing->bytes);
	free(routing);
}

/* Gathers what there is. Routing goes first: a token is sent no earlier than the routing that led
 * to it. */
static enum cad_status answer_fill(struct rt_stream *stream, struct answer *answer, struct cad_error *error)
{
	/* before the routing, whose copies are older than these tokens */
	uint32_t written = atomic_load_explicit(&stream->written, memory_order_acquire);

	routing_collect(stream);
	if (atomic_load(&stream->copy_failed))
		return cad_error_set(error, CAD_ERR_MEMORY, "there is no memory for the routing of the answer");
	enum cad_status status = routing_take(stream, answer, error);
	if (status != CAD_OK ||
		(stream->routing && (stream->routing->next || stream->routing->rows_sent < stream->routing->rows)))
		return status; /* more routing: the tokens wait for the next message */
	status = tokens_take(stream, written, answer, error);
	if (status == CAD_OK && !answer->last && stream->ended && stream->status == CAD_OK &&
		atomic_load(&stream->taken) == atomic_load(&stream->written))
		status = end_take(stream, answer, error);

	return status;
}

static void answer_send(struct rt_stream *stream, struct answer *answer)
{
	Response *message = &answer->message;
	Cadre__V1__Usage usage = CADRE__V1__USAGE__INIT;
	Cadre__V1__Capacity capacity = CADRE__V1__CAPACITY__INIT;
	char digest[33];

	message->token_ids = answer->ids;
	if (answer->text.size > 0)
		message->text = answer->text.bytes;
	if (answer->last) {
		const struct rt_usage *from = &answer->end.usage;
		usage.prompt_tokens = from->prompt_tokens;
		usage.generated_tokens = from->generated_tokens;
		usage.first_token_us = from->first_token_us;
		usage.total_us = from->total_us;
		usage.nodes_touched = from->nodes_touched;
		usage.routed_rows = from->routed_rows;
		usage.bytes_sent = from->bytes_sent;
		usage.bytes_received = from->bytes_received;
		capacity.policy = (char *)(uintptr_t)stream->hub->capacity_policy;
		capacity.factor = stream->hub->capacity_factor;
		capacity.dropped = from->dropped;
		capacity.spilled = from->spilled;
		for (size_t i = 0; i < sizeof answer->end.digest; i++)
			snprintf(digest + 2 * i, 3, "%02x", answer->end.digest[i]);
		message->digest = digest;
		message->usage = &usage;
		message->capacity = &capacity;
		message->finish_reason = answer->reason == RT_FINISH_STOP
			? CADRE__V1__FINISH_REASON__FINISH_REASON_STOP
			: CADRE__V1__FINISH_REASON__FINISH_REASON_LENGTH;
	}

	stream->sent_tokens += (uint32_t)message->n_token_ids;

	/* full, or over: then the call's done follows */
	stream->full = cad_rpc_call_send(stream->call, &message->base) != CAD_OK;
	if (answer->last) {
		cad_rpc_call_finish(stream->call, CAD_RPC_OK, NULL);
		detach(stream, CAD_RPC_OK, &answer->end.usage);
	}
}

/* False when there is nothing to send at the moment. */
static bool send_one(struct rt_stream *stream)
{
	struct answer answer = { .message = CADRE__V1__GENERATE_RESPONSE__INIT };
	struct cad_error error;
	enum cad_status status = answer_fill(stream, &answer, &error);
	bool something = answer.last || answer.message.n_token_ids > 0 || answer.message.n_routing > 0;

	if (status != CAD_OK)
		fail(stream,
			status == CAD_ERR_MEMORY || status == CAD_ERR_EXHAUSTED ? CAD_RPC_RESOURCE_EXHAUSTED
										: CAD_RPC_INTERNAL,
			error.text);
	else if (something)
		answer_send(stream, &answer);
	routing_drop_sent(stream);
	cad_text_fini(&answer.text);
	cad_rpc_arena_reset(&stream->hub->arena);

	return something;
}

/* ---- the reactor's thread: turning ---- */

static void resume_if_drained(struct rt_stream *stream)
{
	uint32_t waiting = atomic_load_explicit(&stream->written, memory_order_acquire) -
		atomic_load_explicit(&stream->taken, memory_order_relaxed);
	if (stream->full || waiting > RT_STREAM_RESUME_AT ||
		atomic_load(&stream->routing_bytes) > RT_STREAM_ROUTING_RESUME_BYTES)
		return;
	if (atomic_exchange_explicit(&stream->paused, false, memory_order_acq_rel))
		stream->hub->engine.pause(stream->hub->engine.engine, stream->id, false);
}

/* Sends what can be sent; may free the stream. */
static void advance(struct rt_stream *stream)
{
	while (stream->call && !stream->full && send_one(stream)) {}
	bool drained = atomic_load(&stream->taken) == atomic_load(&stream->written);
	if (stream->call && !stream->full && stream->ended && drained && stream->status != CAD_OK)
		/* A request that nobody here has cancelled was cancelled because the engine stops. */
		fail(stream,
			stream->status == CAD_ERR_CANCELLED ? CAD_RPC_UNAVAILABLE
							    : cad_rpc_code_of_status(stream->status),
			stream->failure);
	if (!stream->call)
		atomic_store_explicit(&stream->taken, atomic_load_explicit(&stream->written, memory_order_acquire),
			memory_order_release);
	if (stream->ended && !stream->call)
		stream_free(stream);
	else if (!stream->ended)
		resume_if_drained(stream);
}

void rt_stream_writable(struct rt_stream *stream)
{
	stream->full = false;
	advance(stream);
}

void rt_stream_call_done(struct rt_stream *stream, enum cad_rpc_code code)
{
	detach(stream, code, NULL);
	advance(stream);
}

void rt_stream_hub_collect(struct rt_stream_hub *hub)
{
	/* first, see stream.h */
	struct rt_stream *ended = atomic_exchange_explicit(&hub->ended, NULL, memory_order_acquire);
	struct rt_stream *ready = atomic_exchange_explicit(&hub->ready, NULL, memory_order_acquire);

	for (struct rt_stream *stream = ready; stream; stream = ready) {
		ready = stream->next_ready;
		/* before looking: what comes now lists it again */
		atomic_exchange_explicit(&stream->listed, false, memory_order_acq_rel);
		advance(stream);
	}

	for (struct rt_stream *stream = ended; stream; stream = ended) {
		ended = stream->next_ended;
		stream->ended = true;
		advance(stream);
	}
}

static void woken(void *hub) { rt_stream_hub_collect(hub); }

void rt_stream_hub_init(struct rt_stream_hub *hub, struct cad_rpc_reactor *reactor)
{
	cad_rpc_wakeup_init(&hub->wakeup, reactor, woken, hub);
	cad_rpc_arena_init(&hub->arena, HUB_ARENA_BYTES);
}

void rt_stream_hub_fini(struct rt_stream_hub *hub)
{
	CAD_ASSERT(hub->alive == 0);
	cad_rpc_arena_reset(&hub->arena);
}
