/* Creation, poll, events and time. The protocol's other parts: connection.c, hello.c, call.c,
 * serve.c. */
#include "common/transport/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

enum {
	SECRET_BYTES_MIN = 16,
	/* of the link, before anything is judged: a stream of messages must not keep the caller
	 * here for ever */
	DRAIN_ROUNDS_MAX = 64,
	CONTROLS_PER_CONNECTION = 8,
	HEARTBEAT_STEPS = 4, /* timers run so often in the shortest of the intervals */
	DESTROY_SECONDS_MAX = 10,
};
/* between two polls: counts as polled; what is longer counts as this */
static const uint64_t PAUSE_NS_MAX = 20 * CAD_NS_PER_MS;

void cad_transport_options_default(struct cad_transport_options *options)
{
	*options = (struct cad_transport_options){
		.connections_max = 64,
		.calls_max = 256,
		.credit_calls = 16,
		.credit_bytes = 64u << 20,
		.handshake_timeout_ms = 5000,
		.ping_interval_ms = 500,
		.ping_timeout_ms = 1000,
		.peer_timeout_ms = 30000,
	};
}

/* ---- events ---- */

void transport_event(struct cad_transport *t, struct event *event)
{
	if (event->queued)
		return;
	event->queued = true;
	event->next = NULL;
	*t->events_tail = event;
	t->events_tail = &event->next;
}

static void connection_closed_event(struct cad_connection *c)
{
	struct cad_transport *t = c->transport;
	t->attention = true; /* now its slot may be free */
	if (t->options.on_connection)
		t->options.on_connection(t, c, CAD_CONNECTION_CLOSED, c->status, c->text);
}

static void connection_ready_event(struct cad_connection *c)
{
	struct cad_transport *t = c->transport;
	if (c->stage == STAGE_READY && t->options.on_connection)
		t->options.on_connection(t, c, CAD_CONNECTION_READY, CAD_OK, "ready");
}

/* What came before this call; callbacks add more, which the next turn runs. */
static void events_run(struct cad_transport *t)
{
	struct event *event = t->events;
	t->events = NULL;
	t->events_tail = &t->events;
	while (event) {
		struct event *next = event->next;
		event->queued = false;
		t->handled++;
		switch (event->type) {
		case EVENT_READY: connection_ready_event(CAD_CONTAINER_OF(event, struct cad_connection, ready)); break;
		case EVENT_CLOSED:
			connection_closed_event(CAD_CONTAINER_OF(event, struct cad_connection, closed));
			break;
		case EVENT_CALL_DONE: call_finish(CAD_CONTAINER_OF(event, struct cad_call, finished)); break;
		case EVENT_REQUEST: request_deliver(CAD_CONTAINER_OF(event, struct cad_request, arrived)); break;
		}
		event = next;
	}
}

/* ---- buffers ---- */

static void pool_destroy(struct cad_transport *t, struct buffer_pool *pool)
{
	for (uint32_t i = 0; i < pool->count; i++)
		t->link->ops->buffer_destroy(t->link, &pool->buffers[i]);
	free(pool->buffers);
	free(pool->free);
	free(pool->rests_until_ns);
}

static enum cad_status pool_create(struct cad_transport *t, uint32_t count, size_t bytes, struct buffer_pool *pool)
{
	pool->buffers = calloc(count ? count : 1, sizeof *pool->buffers);
	pool->free = calloc(count ? count : 1, sizeof *pool->free);
	pool->rests_until_ns = calloc(count ? count : 1, sizeof *pool->rests_until_ns);
	if (!pool->buffers || !pool->free || !pool->rests_until_ns)
		return CAD_ERR_MEMORY;
	for (; pool->count < count; pool->count++) {
		enum cad_status status = t->link->ops->buffer_create(t->link, bytes, &pool->buffers[pool->count]);
		if (status != CAD_OK)
			return status;
	}

	for (uint32_t i = count; i > 0; i--) /* a stack, so that few buffers are touched when few are needed */
		pool->free[pool->free_count++] = i - 1;
	return CAD_OK;
}

struct cad_buffer *pool_get(struct cad_transport *t, struct buffer_pool *pool)
{
	if (pool->free_count == 0 && pool->resting > 0) {
		uint64_t now = transport_now(t);
		for (uint32_t i = 0; i < pool->count; i++) {
			if (pool->rests_until_ns[i] == 0 || pool->rests_until_ns[i] > now)
				continue;
			pool->rests_until_ns[i] = 0;
			pool->resting--;
			pool->free[pool->free_count++] = i;
		}
	}
	return pool->free_count > 0 ? &pool->buffers[pool->free[--pool->free_count]] : NULL;
}

void pool_put(struct cad_transport *t, struct buffer_pool *pool, struct cad_buffer *buffer, uint64_t rest_ns)
{
	uint32_t index = (uint32_t)(buffer - pool->buffers);
	if (rest_ns > 0) {
		pool->rests_until_ns[index] = transport_now(t) + rest_ns;
		pool->resting++;
		return;
	}
	CAD_ASSERT(pool->free_count < pool->count);
	pool->free[pool->free_count++] = index;
}

enum cad_status cad_buffer_create(struct cad_transport *t, size_t bytes, struct cad_buffer *buffer)
{
	return t->link->ops->buffer_create(t->link, bytes ? bytes : 1, buffer);
}
void cad_buffer_destroy(struct cad_transport *t, struct cad_buffer *buffer)
{
	if (buffer->bytes)
		t->link->ops->buffer_destroy(t->link, buffer);
}

/* ---- control messages ---- */

static void control_put(struct control *control)
{
	struct cad_transport *t = control->connection->transport;
	control->connection->controls--;
	control->next = t->controls_free;
	t->controls_free = control;
}

static void control_sent(struct cad_link_op *op, enum cad_status status)
{
	(void)status; /* the link also says `lost` */
	control_put(CAD_CONTAINER_OF(op, struct control, op));
}

struct control *control_get(struct cad_connection *c, uint8_t kind)
{
	struct cad_transport *t = c->transport;
	struct control *control = t->controls_free;

	if (!control)
		return NULL;

	t->controls_free = control->next;
	memset(&control->message, 0, sizeof control->message);
	control->connection = c;
	control->op.done = control_sent;
	control->message.header = (struct cadre_wire_header){
		.magic = CADRE_WIRE_MAGIC,
		.version = CADRE_WIRE_VERSION,
		.kind = kind,
		.session = c->session,
	};
	c->controls++;

	return control;
}

void control_send(struct control *control, size_t bytes)
{
	struct cad_connection *c = control->connection;
	struct cad_link_message message = {
		.kind = control->message.header.kind,
		.header = &control->message,
		.header_bytes = bytes,
	};
	enum cad_status status =
		c->end ? c->transport->link->ops->send(c->end, &message, &control->op) : CAD_ERR_PEER_LOST;

	c->transport->stats.bytes_sent += bytes;
	if (status == CAD_AGAIN)
		return;
	control_put(control);
	if (status != CAD_OK)
		connection_fail(
			c, CAD_ERR_PEER_LOST, "%s: sending failed: %s", connection_name(c), cad_status_text(status));
}

/* ---- time ---- */

/*
 * Silence is counted on the awake clock, which runs while this transport is polled or waits in
 * poll, and stands still while its thread does other things (or the process was stopped): a message
 * may lie here unread all the while.
 */
static uint64_t transport_account(struct cad_transport *t, uint64_t waited_ns)
{
	uint64_t now = transport_now(t), gap = now - t->turn_ns, most = waited_ns + PAUSE_NS_MAX;
	t->awake_ns += gap < most ? gap : most;
	t->turn_ns = now;
	return now;
}

static void timers_run(struct cad_transport *t, uint64_t now)
{
	const struct cad_transport_options *o = &t->options;
	t->timer_ns = calls_deadlines(t, now);
	if (t->connections_used == 0)
		return;
	for (uint32_t i = 0; i < o->connections_max; i++)
		if (t->connections[i].stage != STAGE_FREE)
			connection_timers(&t->connections[i]);
	uint32_t step_ms = o->ping_interval_ms;
	if (o->ping_timeout_ms < step_ms)
		step_ms = o->ping_timeout_ms;
	if (o->handshake_timeout_ms < step_ms)
		step_ms = o->handshake_timeout_ms;
	uint64_t next = now + step_ms * CAD_NS_PER_MS / HEARTBEAT_STEPS + 1;
	if (next < t->timer_ns)
		t->timer_ns = next;
}

/* ---- poll ---- */

static size_t turn_alone(struct cad_transport *t, uint64_t waited_ns)
{
	size_t before = t->handled;
	uint64_t now = transport_account(t, waited_ns);

	/* then everything that has come is read first; else what is here is handled at once */
	bool judging = now >= t->timer_ns;

	for (int round = 0; round < DRAIN_ROUNDS_MAX && t->link->ops->progress(t->link) > 0 && (judging || !t->events);
		round++)
		;
	if (judging)
		timers_run(t, now);
	connections_attend(t);
	events_run(t);
	connections_attend(t);
	t->stats.rebuilds = t->link->rebuilds;

	return t->handled - before;
}

/* With the servers that are attached, until nobody has work. */
size_t transport_turn(void *upper, uint64_t waited_ns)
{
	struct cad_transport *t = upper;
	size_t handled = turn_alone(t, waited_ns), moved = 1;

	if (!t->attached)
		return handled;

	for (int round = 0; moved > 0 && round < DRAIN_ROUNDS_MAX; round++) {
		moved = 0;
		for (struct cad_transport *server = t->attached; server; server = server->attached_next)
			moved += turn_alone(server, waited_ns);
		size_t own = turn_alone(t, 0);
		handled += own;
		moved += own;
	}

	return handled;
}

uint64_t transport_next_ns(void *upper)
{
	struct cad_transport *t = upper;
	uint64_t next = t->events || t->attention ? 0 : t->timer_ns;
	for (struct cad_transport *server = t->attached; server; server = server->attached_next) {
		uint64_t theirs = transport_next_ns(server);
		next = theirs < next ? theirs : next;
	}
	return next;
}

size_t cad_transport_poll(struct cad_transport *t, uint64_t until_ns)
{
	CAD_ASSERT(!t->polling && !t->attached_to);
	t->polling = true;
	size_t handled = transport_turn(t, 0);
	while (handled == 0 && until_ns > 0) {
		uint64_t now = transport_now(t), next = transport_next_ns(t),
			 wait_until = next < until_ns ? next : until_ns;
		if (now >= until_ns)
			break;
		bool woken = wait_until > now && t->link->ops->wait(t->link, wait_until);
		handled = transport_turn(t, wait_until > now ? wait_until - now : 0);
		if (woken)
			break;
	}

	t->polling = false;
	return handled;
}

void cad_transport_wake(struct cad_transport *t) { t->link->ops->wake(t->link); }

/* ---- creation ---- */

static enum cad_status options_check(const struct cad_transport_options *o, struct cad_error *error)
{
	if (o->secret && strlen(o->secret) < SECRET_BYTES_MIN)
		return cad_error_set(error, CAD_ERR_INVALID, "the cluster secret has %zu bytes, at least %d are needed",
			strlen(o->secret), SECRET_BYTES_MIN);
	if (o->connections_max == 0 || o->calls_max == 0 || o->credit_calls == 0 || o->calls_max > 1u << 20 ||
		o->connections_max > 1u << 16)
		return cad_error_set(error, CAD_ERR_INVALID,
			"a transport of %u connections, %u calls and credit for %u: each must be at least 1",
			o->connections_max, o->calls_max, o->credit_calls);
	if (o->limits.payload_bytes_max == 0 || o->limits.rows_max == 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"a transport needs limits: %llu payload bytes and %u rows were given",
			(unsigned long long)o->limits.payload_bytes_max, o->limits.rows_max);
	if (o->handshake_timeout_ms == 0 || o->ping_interval_ms == 0 || o->ping_timeout_ms == 0 ||
		o->peer_timeout_ms <= o->ping_interval_ms)
		return cad_error_set(error, CAD_ERR_INVALID,
			"handshake, ping interval and ping timeout must not be 0 ms, and peer timeout (%u ms) must be above the ping interval (%u ms)",
			o->peer_timeout_ms, o->ping_interval_ms);

	return CAD_OK;
}

/* All memory of a transport but the link's; buffers included. */
static enum cad_status transport_allocate(struct cad_transport *t)
{
	const struct cad_transport_options *o = &t->options;
	uint32_t controls = o->connections_max * CONTROLS_PER_CONNECTION + o->calls_max;

	t->connections = calloc(o->connections_max, sizeof *t->connections);
	t->calls = calloc(o->calls_max, sizeof *t->calls);
	t->requests = calloc(o->calls_max, sizeof *t->requests);
	t->controls = calloc(controls, sizeof *t->controls);
	if (!t->connections || !t->calls || !t->requests || !t->controls)
		return CAD_ERR_MEMORY;
	for (uint32_t i = 0; i < controls; i++) {
		t->controls[i].next = t->controls_free;
		t->controls_free = &t->controls[i];
	}

	calls_init(t);
	requests_init(t);
	if (!o->on_request)
		return CAD_OK; /* a client sends from and receives into its caller's buffers */
	size_t bytes = (size_t)o->limits.payload_bytes_max;
	enum cad_status status = pool_create(t, o->request_buffers, bytes, &t->request_pool);
	return status == CAD_OK ? pool_create(t, o->answer_buffers, bytes, &t->answer_pool) : status;
}

static void transport_free(struct cad_transport *t)
{
	pool_destroy(t, &t->request_pool);
	pool_destroy(t, &t->answer_pool);
	if (t->link)
		t->link->ops->destroy(t->link);
	if (t->secret)
		sodium_memzero(t->secret, t->secret_bytes);
	free(t->secret);
	free(t->connections);
	free(t->calls);
	free(t->requests);
	free(t->controls);
	free(t);
}

enum cad_status cad_transport_create(const struct cad_transport_options *options, cad_link_create_fn *create,
	void *context, struct cad_transport **transport, struct cad_error *error)
{
	enum cad_status status = options_check(options, error);
	if (status != CAD_OK)
		return status;
	if (sodium_init() < 0)
		return cad_error_set(error, CAD_ERR_INTERNAL, "libsodium could not be initialised");

	struct cad_transport *t = calloc(1, sizeof *t);
	if (!t)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a transport");
	t->options = *options;
	t->events_tail = &t->events;
	t->waiting_tail = &t->waiting;
	struct cad_transport_options *o = &t->options;
	o->clock = o->clock ? o->clock : &cad_clock_system;
	o->request_buffers = o->request_buffers ? o->request_buffers : o->calls_max;
	o->answer_buffers = o->answer_buffers ? o->answer_buffers : o->calls_max;
	if (options->secret) {
		t->secret = strdup(options->secret);
		t->secret_bytes = strlen(options->secret);
	}

	o->secret = t->secret;
	struct cad_link_options link = {
		.events = &transport_link_events,
		.upper = t,
		.clock = o->clock,
		.connections_max = o->connections_max,
		.sends_max = 3 * o->calls_max + o->connections_max * CONTROLS_PER_CONNECTION,
	};
	status = options->secret && !t->secret ? CAD_ERR_MEMORY : create(&link, context, &t->link, error);
	if (status != CAD_OK)
		goto free_transport;
	o->clock = t->link->clock;
	t->turn_ns = transport_now(t);
	t->timer_ns = UINT64_MAX;

	if ((status = transport_allocate(t)) != CAD_OK) {
		cad_error_set(error, status,
			"out of memory for a transport of %u connections, %u calls and %u + %u buffers of %llu bytes: lower these numbers",
			o->connections_max, o->calls_max, o->request_buffers, o->answer_buffers,
			(unsigned long long)o->limits.payload_bytes_max);
		goto free_transport;
	}

	*transport = t;
	return CAD_OK;

free_transport:
	transport_free(t);
	return status;
}

static void detach(struct cad_transport *server)
{
	struct cad_transport **at = &server->attached_to->attached;
	while (*at != server)
		at = &(*at)->attached_next;
	*at = server->attached_next;
	cad_link_local_detach(server->attached_to->link, server->link);
	server->attached_to = NULL;
}

void cad_transport_destroy(struct cad_transport *t)
{
	if (!t)
		return;

	CAD_ASSERT(!t->polling);
	t->destroying = t->polling = true;
	for (uint32_t i = 0; i < t->options.connections_max; i++)
		connection_fail(&t->connections[i], CAD_ERR_CANCELLED, "closed by this side");
	uint64_t end = transport_now(t) + DESTROY_SECONDS_MAX * CAD_NS_PER_S;
	while (t->connections_used > 0 && transport_now(t) < end) {
		transport_turn(t, 0);
		if (t->connections_used > 0)
			t->link->ops->wait(t->link, transport_now(t) + CAD_NS_PER_MS);
	}

	CAD_ASSERT(t->connections_used == 0); /* or a request is still held */
	while (t->attached)
		detach(t->attached);
	if (t->attached_to)
		detach(t);
	transport_free(t);
}

struct cad_link *cad_transport_link(struct cad_transport *t) { return t->link; }
void *cad_transport_user(const struct cad_transport *t) { return t->options.user; }
const struct cad_clock *cad_transport_clock(const struct cad_transport *t) { return t->options.clock; }
const char *cad_transport_address(const struct cad_transport *t) { return t->link->ops->address(t->link); }

enum cad_status cad_transport_listen(struct cad_transport *t, const char *address, struct cad_error *error)
{
	if (!t->options.on_request)
		return cad_error_set(error, CAD_ERR_INVALID,
			"listening on '%s': this transport was created to call, not to be called", address);
	return t->link->ops->listen(t->link, address, error);
}

const struct cad_transport_stats *cad_transport_stats(const struct cad_transport *t) { return &t->stats; }

void cad_transport_local_attach(struct cad_transport *client, struct cad_transport *server)
{
	CAD_ASSERT(client != server && !server->attached_to && !client->attached_to && !server->attached);
	cad_link_local_attach(client->link, server->link);
	server->attached_to = client;
	server->attached_next = client->attached;
	client->attached = server;
}
