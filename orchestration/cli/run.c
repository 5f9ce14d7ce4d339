/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/run.h"

#include "common/base/clock.h"
#include "common/base/plural.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/received.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GENERATE "/cadre.v1.Inference/Generate"

/* A router that hangs is noticed by its silence to pings, one that cannot be connected to at all by
 * the time that it takes. */
enum { PING_AFTER_MS = 400, PING_TIMEOUT_MS = 800, CONNECT_MS = 5000, CONNECT_ONE_OF_SEVERAL_MS = 1200 };
/* When an answer has broken off, the list of routers is gone through so many times, with a pause of
 * 0.25 s, 0.5 s, 1 s, ... between; and so many times an answer may break off. */
enum { ROUNDS_MAX = 5, PAUSE_MS = 250, RESUMES_MAX = 16 };

struct generation {
	const struct cl_run *run;
	struct cl_run_report *report;
	struct cl_received received;
	uint64_t began_ns, deadline_ns;      /* 0: none */
	uint64_t last_message_ns, broken_ns; /* broken: the last message before the answer broke off; 0: it did not */
	size_t broken_tokens;
	const char *router; /* that is being asked */
	bool late;          /* a router said so */
	/* of on_message, which ends the stream then */
	enum cad_status status;
	struct cad_error *error;
};

static uint64_t now_ns(void) { return cad_clock_now_ns(&cad_clock_system); }

/* ---- messages ---- */

/* The first message after the answer broke off. */
static void resumed(struct generation *g, uint64_t now)
{
	uint64_t gap_us = (now - g->broken_ns) / CAD_NS_PER_US;

	g->report->resumed++;
	g->broken_ns = 0;
	if (gap_us > g->report->gap_us)
		g->report->gap_us = gap_us;
	cl_line(stderr, "cadrectl: router %s continues the answer after %zu %s, %.0f ms after the last message",
		g->router, g->broken_tokens, cad_plural(g->broken_tokens, "token", "tokens"), (double)gap_us * 1e-3);
}

static bool on_message(void *context, const ProtobufCMessage *message)
{
	struct generation *g = context;
	const Cadre__V1__GenerateResponse *response = (const Cadre__V1__GenerateResponse *)message;
	uint64_t now = now_ns();

	g->status = cl_received_add(&g->received, response, g->error);
	if (g->status != CAD_OK)
		return false;
	if (g->broken_ns != 0)
		resumed(g, now);
	g->last_message_ns = now;
	g->report->total_us = (now - g->began_ns) / CAD_NS_PER_US;
	if (g->report->first_token_us == 0 && response->n_token_ids > 0)
		g->report->first_token_us = g->report->total_us;

	return g->run->on_response(g->run->context, response);
}

/* ---- one router ---- */

/* Another router may do better after these; it would say the same after others. A server's gRPC
 * cancels calls that cross the news that it shuts down. */
static bool is_worth_another(enum cad_rpc_code code)
{
	return code == CAD_RPC_UNAVAILABLE || code == CAD_RPC_CANCELLED || code == CAD_RPC_RESOURCE_EXHAUSTED ||
		code == CAD_RPC_DEADLINE_EXCEEDED;
}

/* Left of --timeout, at least 1; 0: no limit. */
static int64_t left_ms(const struct generation *g)
{
	uint64_t now = now_ns();
	if (g->deadline_ns == 0)
		return 0;
	return g->deadline_ns > now + CAD_NS_PER_MS ? (int64_t)((g->deadline_ns - now) / CAD_NS_PER_MS) : 1;
}

static bool time_is_up(const struct generation *g)
{
	return g->deadline_ns != 0 && (g->late || now_ns() >= g->deadline_ns);
}

static size_t routers_count(const char *list)
{
	size_t count = 1;
	for (const char *at = list; *at; at++)
		count += *at == ',' && at[1];
	return count;
}

/* *again: another router may do better. */
static enum cad_status ask_router(
	struct generation *g, const Cadre__V1__GenerateRequest *request, bool *again, struct cad_error *error)
{
	struct cl_client client;
	enum cad_rpc_code code;
	const struct cad_rpc_channel_config config = {
		.keepalive_time_ms = PING_AFTER_MS,
		.keepalive_timeout_ms = PING_TIMEOUT_MS,
		.connect_ms = routers_count(g->run->routers) > 1 ? CONNECT_ONE_OF_SEVERAL_MS : CONNECT_MS,
	};

	*again = false;
	enum cad_status status = cl_client_open(&client, g->router, &g->run->access, &config, error);
	if (status != CAD_OK)
		return status;
	g->status = CAD_OK;
	g->error = error;
	status = cl_client_call(&client, GENERATE, &request->base, &cadre__v1__generate_response__descriptor,
		left_ms(g), on_message, g, &code, error);
	cl_client_close(&client);

	if (g->status != CAD_OK) {
		*again = g->status == CAD_ERR_UNSUPPORTED;
		return cad_error_prefix(error, "router %s", g->router);
	}
	if (status == CAD_OK || g->received.finished)
		return CAD_OK;
	g->late = code == CAD_RPC_DEADLINE_EXCEEDED;
	*again = is_worth_another(code) && !cl_interrupted() && !time_is_up(g);
	return cad_error_prefix(error, "router %s", g->router);
}

/* ---- all of them ---- */

/* The index-th of a list that is not empty. */
static void router_at(const char *list, size_t index, char *router, size_t size)
{
	for (; index > 0; index--)
		list += strcspn(list, ",") + 1;
	snprintf(router, size, "%.*s", (int)strcspn(list, ","), list);
}

static void where_add(struct cl_run_report *report, const char *router)
{
	size_t size = strlen(report->where);
	snprintf(report->where + size, sizeof report->where - size, "%srouter %s", size ? ", then " : "", router);
}

/* False: Ctrl-C, or the time is up. */
static bool pause_ms(const struct generation *g, unsigned ms)
{
	uint64_t until = now_ns() + ms * CAD_NS_PER_MS;
	while (now_ns() < until && !cl_interrupted() && !time_is_up(g))
		(void)nanosleep(&(struct timespec){ .tv_nsec = 10 * 1000 * 1000 }, NULL);
	return now_ns() >= until;
}

/*
 * Which router is asked next. Until a token has come, each of the list is asked once. When an
 * answer breaks off after that, the list is gone through again and again, for a while: a router
 * that restarts may be back then. One that refuses for good is as bad as ROUNDS_MAX that fail.
 */
struct search {
	size_t count, next; /* of the list, to be asked */
	size_t spent;       /* since the last token */
	uint32_t breaks;    /* of the answer */
};

/* After a failure; false: that is all. */
static bool search_goes_on(struct search *search, struct generation *g, size_t tokens_before, bool again)
{
	size_t tokens = g->received.ids.count;
	bool broke = tokens > tokens_before;

	search->next++;
	if (tokens == 0)
		return again && search->next < search->count;
	if (broke) {
		search->spent = 0;
		search->breaks++;
		g->broken_ns = g->last_message_ns;
		g->broken_tokens = tokens;
		return again && search->breaks <= RESUMES_MAX;
	}
	search->spent += again ? 1 : ROUNDS_MAX;
	if (cl_interrupted() || time_is_up(g) || search->spent >= ROUNDS_MAX * search->count)
		return false;
	return search->spent % search->count != 0 ||
		pause_ms(g, (unsigned)PAUSE_MS << (search->spent / search->count - 1));
}

static void say_next(const struct generation *g, const struct search *search, const struct cad_error *error)
{
	char next[CL_WHERE_BYTES];

	router_at(g->run->routers, search->next % search->count, next, sizeof next);
	if (g->received.ids.count == 0)
		cl_line(stderr, "cadrectl: %s; trying the next", error->text);
	else
		cl_line(stderr, "cadrectl: %s; %zu %s come, asking router %s for the rest", error->text,
			g->received.ids.count, cad_plural(g->received.ids.count, "token has", "tokens have"), next);
}

static enum cad_status ask_routers(
	struct generation *g, const Cadre__V1__GenerateRequest *request, struct cad_error *error)
{
	struct search search = { .count = routers_count(g->run->routers) };
	enum cad_status status;

	for (;;) {
		char router[CL_WHERE_BYTES - 16];
		struct cl_rest rest;
		size_t tokens = g->received.ids.count;
		bool again;

		router_at(g->run->routers, search.next % search.count, router, sizeof router);
		g->router = router;
		status = cl_received_begin(&g->received, request, &rest, error);
		if (status != CAD_OK)
			return status;
		status = ask_router(g, &rest.message, &again, error);
		if (g->received.messages > 0 && g->status == CAD_OK)
			where_add(g->report, router);
		if (status == CAD_OK || !search_goes_on(&search, g, tokens, again))
			return status;
		say_next(g, &search, error);
	}
}

/* An answer that stays incomplete. */
static enum cad_status incomplete(const struct generation *g, enum cad_status status, struct cad_error *error)
{
	size_t tokens = g->received.ids.count;

	if (time_is_up(g))
		return cad_error_set(error, CAD_ERR_DEADLINE,
			"the answer is not complete after the %.3g s of --timeout: %zu %s come",
			(double)g->run->timeout_ns * 1e-9, tokens, cad_plural(tokens, "token has", "tokens have"));
	if (tokens > 0 && !cl_interrupted())
		return cad_error_set(error, status, "%s; the answer is cut off here, after %zu %s", error->text, tokens,
			cad_plural(tokens, "token", "tokens"));
	return status;
}

enum cad_status cl_run_generate(const struct cl_run *run, const Cadre__V1__GenerateRequest *request,
	struct cl_run_report *report, struct cad_error *error)
{
	*report = (struct cl_run_report){ .resumed = 0 };
	if (run->model) {
		snprintf(report->where, sizeof report->where, "model %s", run->model);
		return cl_run_embedded(run, request, error);
	}

	uint64_t began = now_ns();
	struct generation g = {
		.run = run,
		.report = report,
		.began_ns = began,
		.deadline_ns = run->timeout_ns > 0 ? began + run->timeout_ns : 0,
	};
	enum cad_status status = ask_routers(&g, request, error);
	if (status != CAD_OK)
		status = incomplete(&g, status, error);
	cl_received_fini(&g.received);

	return status;
}
