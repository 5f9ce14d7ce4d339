/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol in a bad network: thousands of seeds, each a small cluster of clients and servers
 * that crash, stall, are cut off and come back, over links that lose, duplicate and overtake.
 *
 * What must hold, whatever happens: the callback of every call and fetch comes exactly once; what
 * is OK is right to the last byte; nothing touches a buffer after its callback (it is overwritten
 * there, so a late read gives wrong bytes, and a late write is looked for); without duplicates
 * nobody is accused of breaking the protocol; when the faults end, every client gets through to
 * every server again; and a seed gives the same course every time.
 *
 *   test_transport_sim [FIRST_SEED [SEEDS]]
 */
#include "tests/support/exchange.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
	SERVERS_MAX = 3,
	CLIENTS_MAX = 2,
	WINDOW = 6,
	HELD_MAX = 64,
	ROWS_MAX = 12,
	CUTS_MAX = 400,
	PART_BYTES_MAX = 9000
};
enum { SEEDS = 250 };

static uint64_t seed_first = 1, seed_count = SEEDS;

struct world;
struct server {
	struct world *world;
	struct cad_transport *transport;
	char name[16];
	bool crashed;
	struct cad_request *held[HELD_MAX];
	size_t held_count;
	struct cad_part *parts[HELD_MAX];
	size_t parts_count;
};
/* A part of an image, one at a time from each client. */
struct fetch {
	struct client *client;
	struct cad_buffer buffer;
	uint32_t bytes, seed;
	bool busy;
};
struct call {
	struct client *client;
	struct cad_buffer payload, answer;
	struct cad_call_start start;
	struct cad_call *handle;
	bool busy;
};
struct client {
	struct world *world;
	struct cad_transport *transport;
	bool crashed;
	struct cad_connection *connections[SERVERS_MAX];
	bool ready[SERVERS_MAX];
	uint32_t right[SERVERS_MAX]; /* since the faults ended */
	struct call calls[WINDOW];
	struct fetch fetch;
};
struct cut {
	struct world *world;
	struct cad_transport *from, *to;
};
struct world {
	struct cad_sim *sim;
	struct cad_random random;
	struct server servers[SERVERS_MAX];
	struct client clients[CLIENTS_MAX];
	size_t servers_count, clients_count;
	struct cad_sim_options odds;
	struct cut cuts[CUTS_MAX];
	size_t cuts_count;
	bool calm; /* the faults have ended */
	uint64_t started, done, right, failed, parts_right, course;
};

#define CHECK(world, condition) \
	do { \
		if (!(condition)) \
			fail_msg("seed %" PRIu64 " at %" PRIu64 " ns: %s", (world)->odds.seed, \
				cad_clock_now_ns(cad_sim_clock((world)->sim)), #condition); \
	} while (0)

/* The course of a world in one number. */
static void note(struct world *w, uint64_t what)
{
	w->course = (w->course ^ what ^ cad_clock_now_ns(cad_sim_clock(w->sim))) * 0x9e3779b97f4a7c15u;
}
static uint64_t below(struct world *w, uint64_t bound) { return cad_random_below(&w->random, bound); }
static void later(struct world *w, uint64_t ns, void (*fn)(void *), void *context)
{
	CHECK(w, cad_sim_at(w->sim, cad_clock_now_ns(cad_sim_clock(w->sim)) + ns, fn, context) == CAD_OK);
}

/* ---- servers ---- */

static void server_answer(struct server *s, size_t at, bool busy)
{
	struct cad_request *request = s->held[at];
	s->held[at] = s->held[--s->held_count];
	struct cad_buffer *buffer = busy ? NULL : cad_request_answer_buffer(request);
	if (!buffer) {
		cad_request_answer(request, &(struct cadre_wire_answer){ .header.status = CADRE_WIRE_BUSY }, 0);
		return;
	}

	const struct cad_call_view *view = cad_request_view(request);
	size_t bytes = exchange_expected(view, buffer->bytes, buffer->capacity);
	cad_request_answer(request,
		&(struct cadre_wire_answer){
			.data_bytes = bytes - view->call.rows * sizeof(struct cadre_wire_sum),
		},
		bytes);
}

static void server_work(void *context)
{
	struct server *s = context;
	if (!s->crashed && s->held_count > 0)
		server_answer(s, below(s->world, s->held_count), below(s->world, 20) == 0);
}

static void on_request(struct cad_transport *transport, struct cad_request *request)
{
	struct server *s = cad_transport_user(transport);
	note(s->world, cad_request_view(request)->call.request_id);
	CHECK(s->world, s->held_count < HELD_MAX);
	s->held[s->held_count++] = request;
	if (below(s->world, 3) == 0)
		server_answer(s, s->held_count - 1, false);
	else
		later(s->world, below(s->world, 4 * CAD_NS_PER_MS), server_work, s);
}

/* What an image has at a place, by the expert that is asked for. */
static uint8_t image_at(uint32_t expert, uint64_t offset) { return (uint8_t)(offset * 37 + expert * 101 + 1); }

static void part_give(struct server *s, size_t at)
{
	struct cad_part *part = s->parts[at];
	const struct cadre_wire_fetch *fetch = cad_part_asked(part);
	uint8_t *bytes = cad_part_bytes(part);
	s->parts[at] = s->parts[--s->parts_count];
	for (uint32_t i = 0; i < fetch->bytes; i++)
		bytes[i] = image_at(fetch->expert, fetch->offset + i);
	cad_part_answer(part, CADRE_WIRE_OK, UINT64_MAX);
}

static void server_gives(void *context)
{
	struct server *s = context;
	if (!s->crashed && s->parts_count > 0)
		part_give(s, below(s->world, s->parts_count));
}

static void on_fetch(struct cad_transport *transport, struct cad_part *part)
{
	struct server *s = cad_transport_user(transport);
	note(s->world, cad_part_asked(part)->request_id);
	CHECK(s->world, s->parts_count < HELD_MAX);
	s->parts[s->parts_count++] = part;
	later(s->world, below(s->world, 4 * CAD_NS_PER_MS), server_gives, s);
}

static void server_news(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	(void)connection;
	struct server *s = cad_transport_user(transport);
	note(s->world, (uint64_t)state * 1000 + (uint64_t)-status);
	if (status == CAD_ERR_PROTOCOL && s->world->odds.duplicate == 0)
		fail_msg("seed %" PRIu64 ": %s", s->world->odds.seed, text);
}

static void server_start(struct server *s)
{
	struct cad_transport_options options;
	struct cad_error error = { .text = "" };

	exchange_options(&options, s->name, true);
	options.user = s;
	options.on_connection = server_news;
	options.on_request = on_request;
	options.on_fetch = on_fetch;
	options.fetches_max = 1 + (uint32_t)below(s->world, 4);
	options.secret = "a secret of the cluster";
	options.calls_max = HELD_MAX;
	options.connections_max = 6;
	options.credit_calls = 1 + (uint32_t)below(s->world, 6);
	options.request_buffers = 1 + (uint32_t)below(s->world, 4);
	options.answer_buffers = 2 + (uint32_t)below(s->world, 4);
	options.limits.payload_bytes_max = 1 << 15;
	options.handshake_timeout_ms = 40;
	options.ping_interval_ms = 10;
	options.ping_timeout_ms = 20;
	options.peer_timeout_ms = 100;
	s->crashed = false;
	if (cad_transport_sim_create(&options, s->world->sim, &s->transport, &error) != CAD_OK ||
		cad_transport_listen(s->transport, s->name, &error) != CAD_OK)
		fail_msg("seed %" PRIu64 ": %s", s->world->odds.seed, error.text);
}

static void server_stop(struct server *s)
{
	if (!s->transport)
		return;
	s->crashed = true;
	while (s->held_count > 0)
		server_answer(s, s->held_count - 1, false);
	while (s->parts_count > 0)
		part_give(s, s->parts_count - 1);
	cad_transport_destroy(s->transport);
	s->transport = NULL;
}

/* ---- clients ---- */

static bool all_bytes(const uint8_t *bytes, size_t count, uint8_t value)
{
	for (size_t i = 0; i < count; i++)
		if (bytes[i] != value)
			return false;
	return true;
}

static void on_done(void *context, struct cad_call *handle, enum cad_status status, const struct cad_answer_view *view)
{
	struct call *call = context;
	struct world *w = call->client->world;

	CHECK(w, call->busy && handle == call->handle);
	call->busy = false;
	w->done++;
	note(w, (uint64_t)-status);

	if (status == CAD_OK && view->answer.header.status == CADRE_WIRE_OK) {
		static uint8_t want[ROWS_MAX * (8 + 2 * EXCHANGE_ELEMENTS)];
		struct cad_call_layout at = cad_wire_call_layout(call->start.call.rows,
			(size_t)call->start.call.data_bytes, call->start.call.groups, call->start.call.pairs);
		struct cad_call_view sent = { .call = call->start.call, .data = call->payload.bytes + at.data };
		size_t bytes = exchange_expected(&sent, want, sizeof want);
		CHECK(w, view->answer.header.payload_bytes == bytes && memcmp(want, call->answer.bytes, bytes) == 0);
		w->right++;
		for (size_t i = 0; i < w->servers_count; i++)
			call->client->right[i] += w->calm && call->start.call.epoch % SERVERS_MAX == i;
	} else {
		w->failed += status != CAD_OK;
	}

	memset(call->payload.bytes, 0xdd, call->payload.capacity);
	memset(call->answer.bytes, 0xee, call->answer.capacity);
}

static void client_news(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	struct client *c = cad_transport_user(transport);
	note(c->world, (uint64_t)state * 77 + (uint64_t)-status);
	if (status == CAD_ERR_PROTOCOL && c->world->odds.duplicate == 0)
		fail_msg("seed %" PRIu64 ": %s", c->world->odds.seed, text);
	for (size_t i = 0; i < c->world->servers_count; i++) {
		if (c->connections[i] != connection)
			continue;
		c->ready[i] = state == CAD_CONNECTION_READY;
		if (state == CAD_CONNECTION_CLOSED)
			c->connections[i] = NULL;
	}
}

static void client_call(struct client *c, struct call *call, size_t server)
{
	struct world *w = c->world;

	/* Nobody wrote here after the callback; the payload's first bytes say whether there was
	 * one. */
	CHECK(w, call->answer.bytes[0] != 0xee || all_bytes(call->answer.bytes, call->answer.capacity, 0xee));
	call->start = (struct cad_call_start){
		.payload = &call->payload,
		.answer = &call->answer,
		.done = on_done,
		.context = call,
	};
	call->start.payload_bytes = exchange_pattern(call->payload.bytes, call->payload.capacity,
		1 + (uint32_t)below(w, ROWS_MAX), EXCHANGE_ELEMENTS, cad_random_next(&w->random), &call->start.call);
	call->start.call.epoch = SERVERS_MAX * below(w, 1000) + server;

	/* Always one: a message that is lost without the connection noticing (no real link does
	 * that) would hold its credit for ever. */
	call->start.deadline_ns =
		cad_clock_now_ns(cad_sim_clock(w->sim)) + 1 + below(w, (below(w, 4) ? 20 : 200) * CAD_NS_PER_MS);
	enum cad_status status = cad_call_start(c->connections[server], &call->start, &call->handle);
	CHECK(w, status == CAD_OK || status == CAD_AGAIN || status == CAD_ERR_PEER_LOST);
	call->busy = status == CAD_OK;
	w->started += call->busy;
}

static void on_part(void *context, enum cad_status status, enum cadre_wire_status wire, uint64_t image_bytes)
{
	struct fetch *fetch = context;
	struct world *w = fetch->client->world;

	CHECK(w, fetch->busy);
	fetch->busy = false;
	w->done++;
	note(w, (uint64_t)-status);
	if (status == CAD_OK && wire == CADRE_WIRE_OK) {
		CHECK(w, image_bytes == UINT64_MAX);
		for (uint32_t i = 0; i < fetch->bytes; i++)
			CHECK(w,
				fetch->buffer.bytes[i] ==
					image_at(fetch->seed % EXCHANGE_EXPERTS, (uint64_t)fetch->seed * 5 + i));
		w->parts_right++;
	}
	memset(fetch->buffer.bytes, 0xee, fetch->buffer.capacity);
}

static void client_fetch(struct client *c, size_t server)
{
	struct world *w = c->world;
	struct fetch *fetch = &c->fetch;

	CHECK(w, all_bytes(fetch->buffer.bytes, fetch->buffer.capacity, 0xee)); /* nobody wrote here late */
	fetch->seed = (uint32_t)below(w, 10000);
	fetch->bytes = 1 + (uint32_t)below(w, PART_BYTES_MAX);
	const struct cad_fetch_start start = {
		.fetch = { .offset = (uint64_t)fetch->seed * 5,
			.bytes = fetch->bytes,
			.expert = fetch->seed % EXCHANGE_EXPERTS },
		.buffer = &fetch->buffer,
		.deadline_ns = cad_clock_now_ns(cad_sim_clock(w->sim)) + 1 + below(w, 100 * CAD_NS_PER_MS),
		.done = on_part,
		.context = fetch,
	};
	enum cad_status status = cad_fetch_start(c->connections[server], &start);
	CHECK(w, status == CAD_OK || status == CAD_AGAIN || status == CAD_ERR_PEER_LOST);
	fetch->busy = status == CAD_OK;
	w->started += fetch->busy;
}

static void client_tick(void *context)
{
	struct client *c = context;
	struct world *w = c->world;

	later(w, 1 + below(w, CAD_NS_PER_MS), client_tick, c);
	if (c->crashed || !c->transport)
		return;
	size_t server = below(w, w->servers_count);
	struct cad_error error;
	if (!c->connections[server] && below(w, 4) == 0) {
		c->ready[server] = false;
		enum cad_status status = cad_transport_connect(
			c->transport, w->servers[server].name, NULL, &c->connections[server], &error);
		CHECK(w, status == CAD_OK || status == CAD_ERR_EXHAUSTED);
		return;
	}

	struct call *call = &c->calls[below(w, WINDOW)];
	if (call->busy && below(w, 20) == 0)
		cad_call_cancel(call->handle);
	else if (!call->busy && c->connections[server] && c->ready[server])
		client_call(c, call, server);
	if (!w->calm && !c->fetch.busy && c->connections[server] && c->ready[server] && below(w, 4) == 0)
		client_fetch(c, server);
	if (!w->calm && c->connections[server] && below(w, 400) == 0)
		cad_connection_close(c->connections[server], CAD_OK, NULL);
}

static void client_start(struct client *c)
{
	struct cad_transport_options options;
	struct cad_error error = { .text = "" };

	exchange_options(&options, "router", false);
	options.user = c;
	options.on_connection = client_news;
	options.secret = "a secret of the cluster";
	options.limits.payload_bytes_max = 1 << 15;
	options.calls_max = 1 + (uint32_t)below(c->world, 40);
	options.fetches_max = 1;
	options.connections_max = 6;
	options.handshake_timeout_ms = 40;
	options.ping_interval_ms = 10;
	options.ping_timeout_ms = 20;
	options.peer_timeout_ms = 100;
	c->crashed = false;
	if (cad_transport_sim_create(&options, c->world->sim, &c->transport, &error) != CAD_OK)
		fail_msg("seed %" PRIu64 ": %s", c->world->odds.seed, error.text);
	c->fetch = (struct fetch){ .client = c };
	CHECK(c->world, cad_buffer_create(c->transport, PART_BYTES_MAX, &c->fetch.buffer) == CAD_OK);
	memset(c->fetch.buffer.bytes, 0xee, c->fetch.buffer.capacity);
	for (size_t i = 0; i < WINDOW; i++) {
		struct call *call = &c->calls[i];
		*call = (struct call){ .client = c };
		CHECK(c->world,
			cad_buffer_create(c->transport,
				cad_wire_call_bytes_max(ROWS_MAX, EXCHANGE_ELEMENTS, EXCHANGE_EXPERTS, ROWS_MAX),
				&call->payload) == CAD_OK);
		CHECK(c->world,
			cad_buffer_create(c->transport, cad_wire_answer_bytes_max(ROWS_MAX, EXCHANGE_ELEMENTS),
				&call->answer) == CAD_OK);
		memset(call->answer.bytes, 0xee, call->answer.capacity);
	}
}

static bool client_busy(const struct client *c)
{
	for (size_t i = 0; i < WINDOW; i++)
		if (c->calls[i].busy)
			return true;
	return c->fetch.busy;
}

/* Buffers outlive calls and die before the transport; the calls of a client that stops end with its
 * connections. */
static void client_stop(struct client *c)
{
	if (!c->transport)
		return;

	c->crashed = true; /* its ticks go on while the world runs in here */
	for (size_t i = 0; i < c->world->servers_count; i++)
		if (c->connections[i])
			cad_connection_close(c->connections[i], CAD_OK, NULL);
	while (client_busy(c))
		cad_transport_poll(c->transport, cad_clock_now_ns(cad_sim_clock(c->world->sim)) + CAD_NS_PER_MS);
	for (size_t i = 0; i < WINDOW; i++) {
		cad_buffer_destroy(c->transport, &c->calls[i].payload);
		cad_buffer_destroy(c->transport, &c->calls[i].answer);
	}
	cad_buffer_destroy(c->transport, &c->fetch.buffer);

	cad_transport_destroy(c->transport);
	c->transport = NULL;
	memset(c->connections, 0, sizeof c->connections);
}

/* ---- faults ---- */

static void server_restart(void *context)
{
	server_stop(context);
	server_start(context);
}

static void client_restart(void *context)
{
	client_stop(context);
	client_start(context);
}

static struct cad_transport *alive(struct world *w, struct cad_transport *transport)
{
	for (size_t i = 0; i < w->servers_count; i++)
		if (w->servers[i].transport == transport)
			return transport;
	for (size_t i = 0; i < w->clients_count; i++)
		if (w->clients[i].transport == transport)
			return transport;
	return NULL;
}

static void cut_heals(void *context)
{
	struct cut *cut = context;
	if (alive(cut->world, cut->from) && alive(cut->world, cut->to))
		cad_sim_cut(cut->world->sim, cut->from, cut->to, false);
}

static void fault(void *context)
{
	struct world *w = context;
	if (w->calm)
		return;

	later(w, 1 + below(w, 40 * CAD_NS_PER_MS), fault, w);
	struct server *s = &w->servers[below(w, w->servers_count)];
	struct client *c = &w->clients[below(w, w->clients_count)];
	switch (below(w, 5)) {
	case 0:
		if (s->crashed)
			break;
		s->crashed = true;
		cad_sim_crash(w->sim, s->transport);
		later(w, below(w, 60 * CAD_NS_PER_MS), server_restart, s);
		break;
	case 1:
		if (c->crashed || below(w, 3))
			break;
		c->crashed = true;
		cad_sim_crash(w->sim, c->transport);
		later(w, below(w, 60 * CAD_NS_PER_MS), client_restart, c);
		break;
	case 2: cad_sim_stall(w->sim, s->transport, below(w, 80 * CAD_NS_PER_MS)); break;
	case 3: cad_sim_stall(w->sim, c->transport, below(w, 80 * CAD_NS_PER_MS)); break;
	default: {
		struct cut *cut = &w->cuts[w->cuts_count++];
		CHECK(w, w->cuts_count < CUTS_MAX);
		bool out = below(w, 2);
		*cut = (struct cut){ w, out ? c->transport : s->transport, out ? s->transport : c->transport };
		cad_sim_cut(w->sim, cut->from, cut->to, true);
		later(w, below(w, 60 * CAD_NS_PER_MS), cut_heals, cut);
	}
	}
}

/* ---- worlds ---- */

static void world_init(struct world *w, uint64_t seed)
{
	*w = (struct world){ .random = { seed * 31 }, .course = seed };
	w->odds = (struct cad_sim_options){ .seed = seed, .delay_min_ns = CAD_NS_PER_US * (1 + below(w, 50)) };
	w->odds.delay_max_ns = w->odds.delay_min_ns + below(w, 2 * CAD_NS_PER_MS);
	w->odds.loss = below(w, 3) ? 0 : cad_random_unit(&w->random) * 0.05;
	w->odds.duplicate = below(w, 3) ? 0 : cad_random_unit(&w->random) * 0.05;
	w->odds.reorder = below(w, 3) ? 0 : cad_random_unit(&w->random) * 0.3;
	w->servers_count = 1 + below(w, SERVERS_MAX);
	w->clients_count = 1 + below(w, CLIENTS_MAX);
	assert_int_equal(cad_sim_create(&w->odds, &w->sim), CAD_OK);

	for (size_t i = 0; i < w->servers_count; i++) {
		w->servers[i].world = w;
		snprintf(w->servers[i].name, sizeof w->servers[i].name, "expert-%zu", i);
		server_start(&w->servers[i]);
	}

	for (size_t i = 0; i < w->clients_count; i++) {
		w->clients[i].world = w;
		client_start(&w->clients[i]);
		client_tick(&w->clients[i]);
	}
}

static void world_fini(struct world *w)
{
	for (size_t i = 0; i < w->clients_count; i++)
		client_stop(&w->clients[i]);
	for (size_t i = 0; i < w->servers_count; i++)
		server_stop(&w->servers[i]);
	CHECK(w, w->done == w->started);
	cad_sim_destroy(w->sim);
}

static bool all_through(const struct world *w)
{
	for (size_t i = 0; i < w->clients_count; i++)
		for (size_t s = 0; s < w->servers_count; s++)
			if (w->clients[i].right[s] < 3)
				return false;
	return true;
}

/* Returns the course. */
static uint64_t world_run(uint64_t seed, struct world *totals)
{
	struct world w;
	world_init(&w, seed);
	later(&w, CAD_NS_PER_MS, fault, &w);
	cad_sim_run(w.sim, 300 * CAD_NS_PER_MS);
	w.calm = true;
	cad_sim_change(w.sim,
		&(struct cad_sim_options){
			.delay_min_ns = w.odds.delay_min_ns,
			.delay_max_ns = w.odds.delay_max_ns,
		});
	for (int i = 0; i < 200 && !all_through(&w); i++)
		cad_sim_run(w.sim, 20 * CAD_NS_PER_MS);
	CHECK(&w, all_through(&w));
	uint64_t course = w.course;
	totals->started += w.started;
	totals->right += w.right;
	totals->failed += w.failed;
	totals->parts_right += w.parts_right;
	world_fini(&w);

	return course;
}

static void bad_networks(void **state)
{
	(void)state;
	struct world totals = { .started = 0 };
	for (uint64_t seed = seed_first; seed < seed_first + seed_count; seed++)
		world_run(seed, &totals);
	print_message("seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " calls and fetches, %" PRIu64
		      " answered right, %" PRIu64 " failed, %" PRIu64 " parts right\n",
		seed_first, seed_first + seed_count - 1, totals.started, totals.right, totals.failed,
		totals.parts_right);
	assert_true(totals.right > 0 && totals.failed > 0 && totals.parts_right > 0);
}

static void same_seed_same_course(void **state)
{
	(void)state;
	struct world totals = { .started = 0 };
	for (uint64_t seed = 9000; seed < 9010; seed++)
		assert_int_equal(world_run(seed, &totals), world_run(seed, &totals));
}

/* ---- single faults, with what must follow ---- */

struct lone {
	struct exchange x;
	struct exchange_node *server, *client;
	struct cad_connection *connection;
};
static void lone_init(struct lone *l)
{
	struct cad_transport_options server, client;
	exchange_init(&l->x, EXCHANGE_SIM);
	exchange_options(&server, "expert-1", true);
	exchange_options(&client, "router-1", false);
	l->server = exchange_server(&l->x, &server, "expert");
	l->client = exchange_node_create(&l->x, &client);
	l->connection = exchange_connect(l->client, "expert");
	assert_non_null(l->connection);
}

/* One that stalled itself for long finds its peers in good health. */
static void own_stall_is_not_silence(void **state)
{
	(void)state;
	struct lone l;
	lone_init(&l);

	for (int i = 0; i < 2; i++) {
		cad_sim_stall(l.x.sim, i ? l.client->transport : l.server->transport,
			i ? 20 * CAD_NS_PER_S : CAD_NS_PER_S / 2);
		cad_sim_run(l.x.sim, 25 * CAD_NS_PER_S);
	}

	assert_int_equal(l.client->closed_count + l.server->closed_count, 0);
	struct exchange_call call;
	exchange_call_create(&call, l.client, 3, EXCHANGE_ELEMENTS, 1);
	assert_int_equal(exchange_call_start(&call, l.connection, 0), CAD_OK);
	assert_true(exchange_run_until(&l.x, exchange_call_done, &call));
	assert_true(call.right);
	exchange_call_destroy(&call);
	exchange_fini(&l.x);
}

/* Cut in either direction, the client notices within ping interval and timeout; and the server
 * within the peer timeout. */
static void one_way_cuts(void **state)
{
	(void)state;
	for (int way = 0; way < 2; way++) {
		struct lone l;
		lone_init(&l);
		struct cad_transport *client = l.client->transport, *server = l.server->transport;
		cad_sim_cut(l.x.sim, way ? client : server, way ? server : client, true);
		uint64_t start = cad_clock_now_ns(l.x.clock);
		assert_true(exchange_run_until(&l.x, exchange_closed_some, l.client));
		assert_true(cad_clock_now_ns(l.x.clock) - start < 2 * CAD_NS_PER_S);
		assert_int_equal(l.client->closed[0].status, CAD_ERR_PEER_LOST);
		cad_sim_run(l.x.sim, 31 * CAD_NS_PER_S);
		assert_int_equal(l.server->closed_count, 1);
		exchange_fini(&l.x);
	}
}

/* The server dies with the call in its hands and its memory gone: the client has its buffers back
 * soon. */
static void crash_with_calls(void **state)
{
	(void)state;
	struct lone l;
	lone_init(&l);
	struct exchange_call calls[6];
	for (uint32_t i = 0; i < 6; i++) {
		exchange_call_create(&calls[i], l.client, 1 + 100 * i, EXCHANGE_ELEMENTS, i);
		assert_int_equal(exchange_call_start(&calls[i], l.connection, i % 2 ? 100 * CAD_NS_PER_MS : 0), CAD_OK);
	}

	cad_sim_run(l.x.sim, 20 * CAD_NS_PER_US);
	cad_sim_crash(l.x.sim, l.server->transport);
	cad_sim_run(l.x.sim, 2 * CAD_NS_PER_S);

	for (uint32_t i = 0; i < 6; i++) {
		assert_int_equal(calls[i].done, 1);
		assert_true(
			calls[i].right || calls[i].status == CAD_ERR_PEER_LOST || calls[i].status == CAD_ERR_DEADLINE);
		exchange_call_destroy(&calls[i]);
	}

	exchange_fini(&l.x);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		seed_first = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		seed_count = strtoull(argv[2], NULL, 0);
	const struct CMUnitTest tests[] = { cmocka_unit_test(own_stall_is_not_silence), cmocka_unit_test(one_way_cuts),
		cmocka_unit_test(crash_with_calls), cmocka_unit_test(same_seed_same_course),
		cmocka_unit_test(bad_networks) };
	return cmocka_run_group_tests_name("transport_sim", tests, NULL, NULL);
}
