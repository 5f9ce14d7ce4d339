/* SPDX-License-Identifier: Apache-2.0 */
/* A generation in this process: the embedded engine, and what the router's front end does for text. */
#include "orchestration/cli/run.h"

#include "common/base/file.h"
#include "embedded/embedded.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/run_options.h"
#include "router-svc/frontend/answer.h"
#include "router-svc/frontend/message.h"
#include "router-svc/frontend/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUTING_ARENA_BYTES = 64 << 20, ROUTING_ROWS = 256, TURN_NS = 10 * 1000 * 1000 };

struct generation {
	const struct cl_run *run;
	const Cadre__V1__GenerateRequest *request;
	struct em_embedded *embedded;
	struct cad_tokenizer *tokenizer; /* NULL: the model has none */
	struct rt_answer answer;
	struct rt_routing_names *names;
	struct rt_routing_ring routing;
	const struct cad_model_spec *spec;
	char settings[CADRE_TEXT_BYTES];
	uint64_t id;
	bool over;  /* the last message was sent, or the reader wants no more */
	bool ended; /* the engine is done with it */
	enum cad_status status;
	struct cad_error *error;
};

static void fail(struct generation *generation, enum cad_status status, const char *text)
{
	if (generation->status == CAD_OK)
		generation->status = text ? cad_error_set(generation->error, status, "%s", text) : status;
	generation->over = true;
}

static void emit(struct generation *generation, const Cadre__V1__GenerateResponse *response)
{
	if (!generation->run->on_response(generation->run->context, response))
		generation->over = true;
}

/* ---- tokens and text ---- */

/* A piece of the answer and, where it is the last, its end. */
static void emit_piece(struct generation *generation, const struct rt_piece *piece, const struct rt_end *end)
{
	static const struct rt_policies none;
	struct cad_rpc_arena arena;
	struct rt_message_end parts;
	Cadre__V1__GenerateResponse response;

	cad_rpc_arena_init(&arena, ROUTING_ARENA_BYTES);
	enum cad_status status = rt_message_piece(piece, &arena, &response, generation->error);
	if (status != CAD_OK) {
		fail(generation, status, NULL);
	} else {
		if (end)
			rt_message_end(end, &none, generation->settings, &parts, &response);
		emit(generation, &response);
		generation->over = generation->over || end;
	}
	cad_rpc_arena_reset(&arena);
}

static struct rt_end end_of(const struct rt_event *event, bool stopped)
{
	struct rt_end end = { .reason = stopped ? RT_FINISH_STOP : event->reason, .usage = event->usage };
	memcpy(end.digest, event->digest, sizeof end.digest);
	return end;
}

static void take_token(struct generation *generation, const struct rt_event *event)
{
	struct cad_text text = { 0 };
	bool stopped = false;
	enum cad_status status =
		rt_answer_token(&generation->answer, event->token, event->is_text, &text, &stopped, generation->error);
	struct rt_piece piece = {
		.ids = &event->token,
		.ids_count = 1,
		.text = text.size > 0 ? text.bytes : NULL,
		.text_size = text.size,
	};
	struct rt_end end = end_of(event, true);

	if (status != CAD_OK)
		fail(generation, status, NULL);
	else
		emit_piece(generation, &piece, stopped ? &end : NULL);
	cad_text_fini(&text);
}

static void take_end(struct generation *generation, const struct rt_event *event)
{
	struct cad_text text = { 0 };
	bool stopped = false;
	enum cad_status status = rt_answer_end(&generation->answer, &text, &stopped, generation->error);
	struct rt_piece piece = { .text = text.size > 0 ? text.bytes : NULL, .text_size = text.size };
	struct rt_end end = end_of(event, stopped);

	if (status != CAD_OK)
		fail(generation, status, NULL);
	else
		emit_piece(generation, &piece, &end);
	cad_text_fini(&text);
}

static void take_routing(struct generation *generation, const struct rt_event *event)
{
	rt_routing_put(&generation->routing, event);
	const struct rt_routing *routing = rt_routing_first(&generation->routing);
	if (!routing)
		return;

	for (uint32_t row = 0; row < routing->rows && !generation->over; row += ROUTING_ROWS) {
		uint32_t left = routing->rows - row;
		emit_piece(generation,
			&(struct rt_piece){
				.routing = routing,
				.routing_first = row,
				.routing_rows = left < ROUTING_ROWS ? left : ROUTING_ROWS,
			},
			NULL);
	}
	rt_routing_drop(&generation->routing);
}

static void on_event(void *user, const struct rt_event *event)
{
	struct generation *generation = user;
	bool last = event->kind == RT_EVENT_FINISHED || event->kind == RT_EVENT_FAILED;

	if (!generation->over) {
		if (event->kind == RT_EVENT_TOKEN)
			take_token(generation, event);
		else if (event->kind == RT_EVENT_ROUTING)
			take_routing(generation, event);
		else if (event->kind == RT_EVENT_FINISHED)
			take_end(generation, event);
		else if (event->kind == RT_EVENT_FAILED)
			fail(generation, event->status, event->text);
	}

	generation->ended = generation->ended || last;
}

/* ---- life ---- */

static enum cad_status open_text(struct generation *generation, struct cad_error *error)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/tokenizer.json", generation->run->model);
	enum cad_status status = CAD_OK;
	if (cad_file_exists(path))
		status = cad_tokenizer_open(path, &generation->tokenizer, error);
	return status;
}

static enum cad_status open_routing(struct generation *generation, struct cad_error *error)
{
	const struct cad_model_spec *spec = generation->spec;
	enum cad_status status = rt_routing_names_create(&generation->names);
	if (status == CAD_OK)
		status = rt_routing_ring_init(&generation->routing, generation->names,
			rt_engine_rows_max(em_router(generation->embedded)), cad_model_spec_moe_layers(spec),
			spec->gate.topk, 0);
	return status == CAD_OK ? CAD_OK : cad_error_set(error, status, "out of memory for the routing");
}

static enum cad_status run_engine(struct generation *generation, struct cad_error *error)
{
	struct rt_engine *engine = em_router(generation->embedded);
	const struct rt_request_limits limits = {
		.spec = generation->spec,
		.context_max = rt_engine_context_max(engine),
		.tokenizer = generation->tokenizer,
	};
	struct cad_ids ids = { 0 };
	struct rt_request request;
	enum cad_status status = rt_request_read(&limits, generation->request, &ids, &request, error);

	if (status == CAD_OK)
		status = rt_request_answer(&limits, generation->request, &generation->answer, error);
	if (status == CAD_OK && generation->run->timeout_ns > 0)
		request.deadline_ns = cad_clock_now_ns(rt_engine_clock(engine)) + generation->run->timeout_ns;
	if (status == CAD_OK)
		status = rt_engine_submit(engine, &request, &generation->id, error);
	cad_ids_fini(&ids);
	if (status != CAD_OK)
		return status;

	for (bool cancelled = false; !generation->ended;) {
		if ((generation->over || cl_interrupted()) && !cancelled) {
			rt_engine_cancel(engine, generation->id);
			cancelled = true;
		}
		(void)rt_engine_turn(engine, cad_clock_now_ns(rt_engine_clock(engine)) + TURN_NS);
	}

	return generation->status;
}

enum cad_status cl_run_embedded(
	const struct cl_run *run, const Cadre__V1__GenerateRequest *request, struct cad_error *error)
{
	struct generation generation = { .run = run, .request = request, .error = error };
	struct em_options options = cl_engine_embedded(&run->engine);

	options.model = run->model;
	options.router.on_event = on_event;
	options.router.user = &generation;
	cl_on_interrupt(NULL, NULL);
	enum cad_status status = open_text(&generation, error);
	if (status == CAD_OK)
		status = em_create(&options, &generation.embedded, error);
	if (status == CAD_OK) {
		generation.spec = cad_model_spec(em_model(generation.embedded));
		cad_settings_text(em_settings(generation.embedded), generation.settings);
		if (generation.tokenizer)
			cad_tokenizer_pad(generation.tokenizer, generation.spec->vocab);
		status = request->return_routing ? open_routing(&generation, error) : CAD_OK;
		if (status == CAD_OK)
			status = run_engine(&generation, error);
		if (status != CAD_OK)
			em_blame(generation.embedded, error);
	}

	em_destroy(generation.embedded);
	rt_routing_ring_fini(&generation.routing);
	rt_routing_names_destroy(generation.names);
	rt_answer_fini(&generation.answer);
	cad_tokenizer_close(generation.tokenizer);

	return status;
}
