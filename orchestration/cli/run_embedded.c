/* SPDX-License-Identifier: Apache-2.0 */
/* A generation in this process: the embedded engine, and what the router's front end does for text. */
#include "orchestration/cli/run.h"

#include "common/base/file.h"
#include "common/tokenizer/decode.h"
#include "common/rpc/codec.h"
#include "embedded/embedded.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/run_options.h"
#include "router-svc/frontend/request.h"
#include "router-svc/frontend/routing.h"
#include "router-svc/frontend/stop_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUTING_ARENA_BYTES = 64 << 20, ROUTING_ROWS = 256, TURN_NS = 10 * 1000 * 1000 };

struct generation {
	const struct cl_run *run;
	const Cadre__V1__GenerateRequest *request;
	struct em_embedded *embedded;
	struct cad_tokenizer *tokenizer; /* NULL: the model has none */
	struct cad_decoder *decoder;
	struct rt_stop_text stop;
	const struct cad_model_spec *spec;
	uint64_t id;
	bool over;  /* the last message went out, or nobody wants more */
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

static bool ends_answer(const struct generation *generation, int32_t id)
{
	for (size_t i = 0; i < generation->request->n_stop_ids; i++)
		if (generation->request->stop_ids[i] == id)
			return true;
	for (uint32_t i = 0; !generation->request->ignore_eos && i < generation->spec->eos_ids_count; i++)
		if (generation->spec->eos_ids[i] == id)
			return true;
	return false;
}

static void emit_last(struct generation *generation, Cadre__V1__GenerateResponse *response,
	enum rt_finish_reason reason, const struct rt_event *event)
{
	Cadre__V1__Usage usage = CADRE__V1__USAGE__INIT;
	Cadre__V1__Capacity capacity = CADRE__V1__CAPACITY__INIT;
	char digest[33];

	usage.prompt_tokens = event->usage.prompt_tokens;
	usage.generated_tokens = event->usage.generated_tokens;
	usage.first_token_us = event->usage.first_token_us;
	usage.total_us = event->usage.total_us;
	usage.nodes_touched = event->usage.nodes_touched;
	usage.routed_rows = event->usage.routed_rows;
	usage.bytes_sent = event->usage.bytes_sent;
	usage.bytes_received = event->usage.bytes_received;
	capacity.policy = "none";
	for (size_t i = 0; i < sizeof event->digest; i++)
		snprintf(digest + 2 * i, 3, "%02x", event->digest[i]);
	response->digest = digest;
	response->usage = &usage;
	response->capacity = &capacity;
	response->finish_reason = reason == RT_FINISH_STOP ? CADRE__V1__FINISH_REASON__FINISH_REASON_STOP
							   : CADRE__V1__FINISH_REASON__FINISH_REASON_LENGTH;
	emit(generation, response);
	generation->over = true;
}

/* `piece` goes through the stop strings into `out`; `last` lets go what they hold. */
static enum cad_status through_stops(
	struct generation *generation, const struct cad_text *piece, bool last, struct cad_text *out, bool *found)
{
	enum cad_status status = rt_stop_text_add(&generation->stop, piece->bytes, piece->size, out, found);
	return status == CAD_OK && last && !*found ? rt_stop_text_flush(&generation->stop, out) : status;
}

static void take_token(struct generation *generation, const struct rt_event *event)
{
	Cadre__V1__GenerateResponse response = CADRE__V1__GENERATE_RESPONSE__INIT;
	struct cad_text piece = { 0 }, text = { 0 };
	int32_t id = event->token;
	bool found = false;
	enum cad_status status = CAD_OK;

	if (generation->decoder && !ends_answer(generation, id)) {
		status = cad_decoder_push(generation->decoder, id, &piece, generation->error);
		if (status == CAD_OK && through_stops(generation, &piece, false, &text, &found) != CAD_OK)
			status = cad_error_set(generation->error, CAD_ERR_MEMORY, "out of memory for the text");
	}

	response.token_ids = &id;
	response.n_token_ids = 1;
	if (text.size > 0)
		response.text = text.bytes;
	if (status != CAD_OK)
		fail(generation, status, NULL), generation->status = status;
	else if (found)
		emit_last(generation, &response, RT_FINISH_STOP, event);
	else
		emit(generation, &response);
	cad_text_fini(&piece);
	cad_text_fini(&text);
}

static void take_end(struct generation *generation, const struct rt_event *event)
{
	Cadre__V1__GenerateResponse response = CADRE__V1__GENERATE_RESPONSE__INIT;
	struct cad_text piece = { 0 }, text = { 0 };
	bool found = false;
	enum cad_status status =
		generation->decoder ? cad_decoder_finish(generation->decoder, &piece, generation->error) : CAD_OK;

	if (status == CAD_OK && through_stops(generation, &piece, true, &text, &found) != CAD_OK)
		status = cad_error_set(generation->error, CAD_ERR_MEMORY, "out of memory for the text");
	if (text.size > 0)
		response.text = text.bytes;
	if (status != CAD_OK)
		generation->status = status;
	else
		emit_last(generation, &response, found ? RT_FINISH_STOP : event->reason, event);
	cad_text_fini(&piece);
	cad_text_fini(&text);
}

static void take_routing(struct generation *generation, const struct rt_event *event)
{
	struct cad_rpc_arena arena;
	struct rt_routing *routing = event->rows > 0 ? rt_routing_copy(event) : NULL;

	if (event->rows > 0 && !routing)
		fail(generation, CAD_ERR_MEMORY, "out of memory for the routing");
	cad_rpc_arena_init(&arena, ROUTING_ARENA_BYTES);

	while (routing && routing->rows_sent < routing->rows && !generation->over) {
		Cadre__V1__GenerateResponse response = CADRE__V1__GENERATE_RESPONSE__INIT;
		if (rt_routing_write(routing, ROUTING_ROWS, &arena, &response.routing, &response.n_routing) != CAD_OK)
			fail(generation, CAD_ERR_MEMORY, "out of memory for the routing");
		else
			emit(generation, &response);
		cad_rpc_arena_reset(&arena);
	}

	free(routing);
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
	if (status == CAD_OK && generation->tokenizer &&
		cad_decoder_create(generation->tokenizer, true, &generation->decoder) != CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the decoder");
	if (status == CAD_OK &&
		rt_stop_text_init(&generation->stop, generation->request->stop, generation->request->n_stop) != CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the stop strings");

	return status;
}

static enum cad_status run_engine(struct generation *generation, struct cad_error *error)
{
	struct rt_engine *engine = em_router(generation->embedded);
	const struct rt_request_limits limits = {
		.vocab = generation->spec->vocab,
		.context_max = rt_engine_context_max(engine),
		.tokenizer = generation->tokenizer,
	};
	struct cad_ids ids = { 0 };
	struct rt_request request;
	enum cad_status status = rt_request_read(&limits, generation->request, &ids, &request, error);

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
		if (generation.tokenizer)
			cad_tokenizer_pad(generation.tokenizer, generation.spec->vocab);
		status = run_engine(&generation, error);
	}

	em_destroy(generation.embedded);
	rt_stop_text_fini(&generation.stop);
	cad_decoder_destroy(generation.decoder);
	cad_tokenizer_close(generation.tokenizer);

	return status;
}
