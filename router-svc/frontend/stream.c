/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/stream.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY_STREAMS = 256 };

struct token {
	int32_t id;
	bool is_text, is_last;
	uint8_t digest[16]; /* up to and with this token */
};

struct rt_stream {
	struct rt_stream_hub *hub;
	uint64_t id; /* the engine's */
	bool trial;

	/* written by the engine's thread */
	struct token ring[RT_STREAM_RING];
	/* [RT_STREAM_RING], up to and with each token: a stop string ends an answer in the middle
	 * of what was generated; NULL: there is none to look for */
	struct rt_usage *usages;
	_Atomic uint32_t written;
	struct rt_routing_ring routing;
	struct rt_end end;      /* with FINISHED */
	enum cad_status status; /* CAD_OK: FINISHED */
	char failure[CAD_ERROR_TEXT_BYTES];

	/* by both, see stream.h */
	_Atomic uint32_t taken;
	/* set by the engine's thread once it has asked for the pause, cleared by the reactor's
	 * before it asks for the end of it */
	atomic_bool paused;
	atomic_bool listed; /* in the hub's ready list */
	struct rt_stream *next_ready, *next_ended;

	/* the reactor's thread alone */
	const struct rt_sink *sink; /* NULL: has the end, or is gone */
	void *sink_context;
	bool full;  /* the sink */
	bool ended; /* the engine is done with the stream */
	struct rt_answer answer;
	uint32_t routing_sent; /* rows of the first copy */
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
			rt_routing_waiting_bytes(&stream->routing) < RT_STREAM_ROUTING_PAUSE_BYTES))
		return;
	const struct rt_stream_engine *engine = &stream->hub->options.engine;
	engine->pause(engine->engine, stream->id, true);

	/* after the pause: what undoes it comes later */
	atomic_store_explicit(&stream->paused, true, memory_order_release);
}

static void token_put(struct rt_stream *stream, const struct rt_event *event)
{
	uint32_t written = atomic_load_explicit(&stream->written, memory_order_relaxed);
	/* a paused sequence computes nothing */
	CAD_ASSERT(written - atomic_load_explicit(&stream->taken, memory_order_acquire) < RT_STREAM_RING);
	struct token *token = &stream->ring[written % RT_STREAM_RING];
	token->id = event->token;
	token->is_text = event->is_text;
	token->is_last = event->is_last;
	if (stream->usages)
		stream->usages[written % RT_STREAM_RING] = event->usage;
	memcpy(token->digest, event->digest, sizeof token->digest);
	atomic_store_explicit(&stream->written, written + 1, memory_order_release);
}

static void end_put(struct rt_stream *stream, const struct rt_event *event)
{
	stream->end.usage = event->usage;
	memcpy(stream->end.digest, event->digest, sizeof stream->end.digest);
	stream->end.reason = event->reason;
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
	case RT_EVENT_ROUTING: rt_routing_put(&stream->routing, event); break;
	case RT_EVENT_LOGITS: return;
	case RT_EVENT_FINISHED:
	case RT_EVENT_FAILED:
		end_put(stream, event);
		list_push(&hub->ended, &stream->next_ended, stream); /* the last touch */
		hub->options.wake(hub->options.wake_context);
		return;
	}
	pause_if_behind(stream);
	if (!atomic_exchange_explicit(&stream->listed, true, memory_order_acq_rel))
		list_push(&hub->ready, &stream->next_ready, stream);
	hub->options.wake(hub->options.wake_context);
}

/* ---- the reactor's thread: life ---- */

static void stream_free(struct rt_stream *stream)
{
	rt_routing_ring_fini(&stream->routing);
	rt_answer_fini(&stream->answer);
	free(stream->usages);
	struct rt_stream_hub *hub = stream->hub;
	free(stream);

	/* What many streams took is in pieces all over the heap, which
	 * frees nothing but its end. */
	if (--hub->alive < hub->alive_most / 8 && hub->alive_most >= MANY_STREAMS) {
		hub->alive_most = hub->alive;
		malloc_trim(0);
	}
}

/* The sink goes its own way from here; what the engine still has to say is thrown away. */
static void detach(struct rt_stream *stream)
{
	const struct rt_stream_engine *engine = &stream->hub->options.engine;
	stream->sink = NULL;
	atomic_fetch_sub(&stream->hub->open, !stream->trial);
	if (!stream->ended)
		engine->cancel(engine->engine, stream->id);
}

static void fail(struct rt_stream *stream, enum cad_status status, const char *sentence)
{
	stream->sink->fail(stream->sink_context, status, sentence);
	detach(stream);
}

static enum cad_status stream_create(struct rt_stream_hub *hub, const struct rt_request *request,
	struct rt_answer *answer, struct rt_stream **created)
{
	struct rt_stream *stream = calloc(1, sizeof *stream);
	if (!stream)
		return CAD_ERR_MEMORY;

	if (++hub->alive > hub->alive_most)
		hub->alive_most = hub->alive;
	stream->hub = hub;
	stream->answer = *answer;
	*answer = (struct rt_answer){ 0 };
	const struct rt_stream_hub_options *o = &hub->options;
	enum cad_status status = CAD_OK;
	if (stream->answer.stop.count > 0) {
		stream->usages = malloc(RT_STREAM_RING * sizeof *stream->usages);
		status = stream->usages ? CAD_OK : CAD_ERR_MEMORY;
	}
	if (status == CAD_OK && request->want_routing)
		status = rt_routing_ring_init(&stream->routing, hub->names, o->engine.rows_max, o->moe_layers, o->topk,
			RT_STREAM_ROUTING_PAUSE_BYTES);
	if (status != CAD_OK) {
		stream_free(stream);
		return status;
	}

	*created = stream;
	return CAD_OK;
}

enum cad_status rt_stream_open(struct rt_stream_hub *hub, struct rt_request *request, struct rt_answer *answer,
	const struct rt_sink *sink, void *context, struct rt_stream **out, struct cad_error *error)
{
	const struct rt_stream_engine *engine = &hub->options.engine;
	struct rt_stream *stream;
	enum cad_status status = stream_create(hub, request, answer, &stream);
	if (status != CAD_OK)
		return cad_error_set(error, status, "no memory for another stream; try again later");

	/* before submit: an event may come at once, but is looked at only by this thread */
	request->context = stream;
	stream->sink = sink;
	stream->sink_context = context;
	stream->trial = request->trial;
	status = engine->submit(engine->engine, request, &stream->id, error);
	if (status != CAD_OK) {
		stream_free(stream);
		return status;
	}

	atomic_fetch_add(&hub->open, !stream->trial);
	*out = stream;
	return CAD_OK;
}

uint64_t rt_stream_id(const struct rt_stream *stream) { return stream->id; }

/* ---- the reactor's thread: one piece ---- */

struct draft {
	struct rt_piece piece;
	int32_t ids[RT_STREAM_RING];
	uint8_t digest[16]; /* after the ids */
	struct cad_text text;
	bool last;
	struct rt_end end;
};

/* Tokens that are in the ring, up to a stop string, and without the last one until the end is
 * there. */
static enum cad_status tokens_take(
	struct rt_stream *stream, uint32_t written, struct draft *draft, struct cad_error *error)
{
	uint32_t taken = atomic_load_explicit(&stream->taken, memory_order_relaxed);
	enum cad_status status = CAD_OK;

	while (status == CAD_OK && taken != written && !draft->last) {
		uint32_t at = taken % RT_STREAM_RING;
		const struct token *token = &stream->ring[at];
		if (token->is_last && !stream->ended)
			break;
		taken++;
		memcpy(draft->digest, token->digest, sizeof draft->digest);
		draft->ids[draft->piece.ids_count++] = token->id;
		status = rt_answer_token(&stream->answer, token->id, token->is_text, &draft->text, &draft->last, error);
		if (draft->last) {
			draft->end = (struct rt_end){ .reason = RT_FINISH_STOP, .usage = stream->usages[at] };
			memcpy(draft->end.digest, token->digest, sizeof draft->end.digest);
		}
	}

	atomic_store_explicit(&stream->taken, taken, memory_order_release);
	return status;
}

/* What the engine has finished: the text that was held back, in full or up to a stop string. */
static enum cad_status end_take(struct rt_stream *stream, struct draft *draft, struct cad_error *error)
{
	bool stopped;
	enum cad_status status = rt_answer_end(&stream->answer, &draft->text, &stopped, error);
	draft->last = true;
	draft->end = stream->end;
	if (stopped)
		draft->end.reason = RT_FINISH_STOP;
	return status;
}

static void routing_take(const struct rt_stream *stream, const struct rt_routing *routing, struct rt_piece *piece)
{
	size_t rows_max = RT_STREAM_ROUTING_MESSAGE_BYTES / rt_routing_row_bytes(routing);
	uint32_t left = routing->rows - stream->routing_sent;
	piece->routing = routing;
	piece->routing_first = stream->routing_sent;
	piece->routing_rows = rows_max == 0 ? 1 : left < rows_max ? left : (uint32_t)rows_max;
}

static void routing_drop_sent(struct rt_stream *stream, const struct rt_piece *piece)
{
	if (!piece->routing)
		return;
	stream->routing_sent += piece->routing_rows;
	if (stream->routing_sent < piece->routing->rows)
		return;
	rt_routing_drop(&stream->routing);
	stream->routing_sent = 0;
}

/* Gathers what there is. Routing goes first: a token is sent no earlier than the routing that led
 * to it. */
static enum cad_status draft_fill(struct rt_stream *stream, struct draft *draft, struct cad_error *error)
{
	/* before the routing, whose copies are older than these tokens */
	uint32_t written = atomic_load_explicit(&stream->written, memory_order_acquire);
	const struct rt_routing *routing = rt_routing_first(&stream->routing);

	if (routing) {
		routing_take(stream, routing, &draft->piece);
		if (draft->piece.routing_first + draft->piece.routing_rows < routing->rows ||
			rt_routing_more(&stream->routing))
			return CAD_OK; /* more routing: the tokens wait for the next piece */
	}

	enum cad_status status = tokens_take(stream, written, draft, error);
	if (status == CAD_OK && !draft->last && stream->ended && stream->status == CAD_OK &&
		atomic_load(&stream->taken) == atomic_load(&stream->written))
		status = end_take(stream, draft, error);

	return status;
}

/* CAD_OK, and nothing: there is nothing to send at the moment. */
static enum cad_status draft_send(
	struct rt_stream *stream, struct draft *draft, bool *something, struct cad_error *error)
{
	struct rt_piece *piece = &draft->piece;
	piece->ids = draft->ids;
	piece->digest = piece->ids_count > 0 && !draft->last ? draft->digest : NULL;
	piece->text = draft->text.size > 0 ? draft->text.bytes : NULL;
	piece->text_size = draft->text.size;
	*something = draft->last || piece->ids_count > 0 || piece->routing;

	if (draft->last)
		return stream->sink->end(stream->sink_context, piece, &draft->end, error);
	return *something ? stream->sink->piece(stream->sink_context, piece, error) : CAD_OK;
}

static void completed(const struct rt_stream_hub *hub, const struct rt_usage *usage)
{
	if (usage->generated_tokens == 0)
		return;
	if (hub->options.first_token_seconds)
		cad_histogram_observe(hub->options.first_token_seconds, (double)usage->first_token_us * 1e-6);
	if (hub->options.total_seconds)
		cad_histogram_observe(hub->options.total_seconds, (double)usage->total_us * 1e-6);
}

/* False when there is nothing to send at the moment. */
static bool send_one(struct rt_stream *stream)
{
	struct draft draft = { .last = false };
	struct cad_error error;
	bool something = false;
	enum cad_status status = draft_fill(stream, &draft, &error);

	if (status == CAD_OK)
		status = draft_send(stream, &draft, &something, &error);
	stream->full = status == CAD_FULL;
	if (status != CAD_OK && status != CAD_FULL) {
		bool room = status == CAD_ERR_MEMORY || status == CAD_ERR_EXHAUSTED;
		fail(stream, room ? status : CAD_ERR_INTERNAL, error.text);
	} else if (draft.last) {
		if (!stream->trial)
			completed(stream->hub, &draft.end.usage);
		detach(stream);
	}
	routing_drop_sent(stream, &draft.piece);
	cad_text_fini(&draft.text);

	return something;
}

/* ---- the reactor's thread: turning ---- */

static void resume_if_drained(struct rt_stream *stream)
{
	const struct rt_stream_engine *engine = &stream->hub->options.engine;
	uint32_t waiting = atomic_load_explicit(&stream->written, memory_order_acquire) -
		atomic_load_explicit(&stream->taken, memory_order_relaxed);
	if (stream->full || waiting > RT_STREAM_RESUME_AT ||
		rt_routing_waiting_bytes(&stream->routing) > RT_STREAM_ROUTING_RESUME_BYTES)
		return;
	if (atomic_exchange_explicit(&stream->paused, false, memory_order_acq_rel))
		engine->pause(engine->engine, stream->id, false);
}

static void throw_away(struct rt_stream *stream)
{
	atomic_store_explicit(
		&stream->taken, atomic_load_explicit(&stream->written, memory_order_acquire), memory_order_release);
	while (rt_routing_first(&stream->routing))
		rt_routing_drop(&stream->routing);
}

/* Sends what can be sent; may free the stream. */
static void advance(struct rt_stream *stream)
{
	while (stream->sink && !stream->full && send_one(stream)) {}
	bool drained = atomic_load(&stream->taken) == atomic_load(&stream->written);
	if (stream->sink && !stream->full && stream->ended && drained && stream->status != CAD_OK)
		fail(stream, stream->status, stream->failure);
	if (!stream->sink)
		throw_away(stream);
	if (stream->ended && !stream->sink)
		stream_free(stream);
	else if (!stream->ended)
		resume_if_drained(stream);
}

void rt_stream_writable(struct rt_stream *stream)
{
	stream->full = false;
	advance(stream);
}

void rt_stream_close(struct rt_stream *stream)
{
	detach(stream);
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

enum cad_status rt_stream_hub_init(struct rt_stream_hub *hub, const struct rt_stream_hub_options *options)
{
	*hub = (struct rt_stream_hub){ .options = *options };
	return rt_routing_names_create(&hub->names);
}

void rt_stream_hub_fini(struct rt_stream_hub *hub)
{
	CAD_ASSERT(hub->alive == 0);
	rt_routing_names_destroy(hub->names);
}
