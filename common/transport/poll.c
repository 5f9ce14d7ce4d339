/* SPDX-License-Identifier: Apache-2.0 */
/* Creation, poll and time; protocol.h lists the other parts. */
#include "common/transport/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

enum {
	SECRET_BYTES_MIN = 16,
	/* of the link, before anything is judged: a stream of messages must not keep the caller
	 * here without end */
	DRAIN_ROUNDS_MAX = 64,
	NOTICES_PER_CONNECTION = 8,
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
		.ping_interval_ms = 400,
		.ping_timeout_ms = 900,
		.peer_timeout_ms = 30000,
	};
}

/* ---- time ---- */

/*
 * Silence is counted on the awake clock, which runs while this transport is polled or waits in
 * poll, and stands still while its thread does other things (or the process was stopped): a message
 * may lie here unread all the while.
 */
static uint64_t account(struct cad_transport *t, uint64_t waited_ns)
{
	uint64_t now = cad_transport_now_ns(t), gap = now - t->turn_ns, most = waited_ns + PAUSE_NS_MAX;
	t->awake_ns += gap < most ? gap : most;
	t->turn_ns = now;
	return now;
}

static void timers_run(struct cad_transport *t, uint64_t now)
{
	const struct cad_transport_options *o = &t->options;
	uint64_t fetches_ns = cad_fetches_deadlines(t, now);
	t->timer_ns = cad_calls_deadlines(t, now);
	t->timer_ns = fetches_ns < t->timer_ns ? fetches_ns : t->timer_ns;
	if (t->connections_used == 0)
		return;
	for (uint32_t i = 0; i < t->connections_high; i++)
		if (t->connections[i].phase != CAD_PHASE_FREE)
			cad_connection_timers(&t->connections[i]);
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
	uint64_t now = account(t, waited_ns);

	/* then everything that has come is read first; else what is here is handled at once */
	bool judging = now >= t->timer_ns;

	for (int round = 0; round < DRAIN_ROUNDS_MAX && t->link->ops->progress(t->link) > 0 && (judging || !t->events);
		round++)
		;
	if (judging)
		timers_run(t, now);
	cad_connections_attend(t);
	cad_transport_events_run(t);
	cad_connections_attend(t);
	if (t->stats.rebuilds != t->link->rebuilds) {
		t->stats.rebuilds = t->link->rebuilds;
		if (t->options.on_address)
			t->options.on_address(t, cad_transport_address(t));
	}

	return t->handled - before;
}

/* Together with the attached ones, until none has work. */
static size_t turn(void *upper, uint64_t waited_ns)
{
	struct cad_transport *t = upper;
	size_t handled = turn_alone(t, waited_ns), moved = 1;

	if (t->link->attached_count == 0)
		return handled;

	for (int round = 0; moved > 0 && round < DRAIN_ROUNDS_MAX; round++) {
		moved = t->link->ops->attached_turn(t->link, waited_ns);
		size_t own = turn_alone(t, 0);
		handled += own;
		moved += own;
	}

	return handled;
}

static uint64_t next_ns(void *upper)
{
	struct cad_transport *t = upper;
	uint64_t own = t->events || t->attention ? 0 : t->timer_ns,
		 attached = t->link->attached_count > 0 ? t->link->ops->attached_next_ns(t->link) : UINT64_MAX;
	return own < attached ? own : attached;
}

size_t cad_transport_poll(struct cad_transport *t, uint64_t until_ns)
{
	CAD_ASSERT(!t->polling && !t->link->is_attached);
	t->polling = true;
	size_t handled = turn(t, 0);
	while (handled == 0 && until_ns > 0) {
		uint64_t now = cad_transport_now_ns(t), next = next_ns(t),
			 wait_until = next < until_ns ? next : until_ns;
		if (now >= until_ns)
			break;
		bool woken = wait_until > now && t->link->ops->wait(t->link, wait_until);
		handled = turn(t, wait_until > now ? wait_until - now : 0);
		if (woken)
			break;
	}

	t->polling = false;
	return handled;
}

void cad_transport_wake(struct cad_transport *t) { t->link->ops->wake(t->link); }

/* ---- creation ---- */

static const struct cad_link_events link_events = {
	.accept = cad_connection_accept,
	.message = cad_connection_message,
	.lost = cad_connection_lost,
	.closed = cad_connection_closed,
	.again = cad_connection_again,
	.turn = turn,
	.next_ns = next_ns,
};

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
	uint32_t connections = o->connections_max + CAD_SURPLUS_MAX,
		 notices = connections * NOTICES_PER_CONNECTION + o->calls_max;

	t->connections = calloc(connections, sizeof *t->connections);
	t->calls = calloc(o->calls_max, sizeof *t->calls);
	t->requests = calloc(o->calls_max, sizeof *t->requests);
	t->notices = calloc(notices, sizeof *t->notices);
	t->fetches = calloc(o->fetches_max + 1u, sizeof *t->fetches);
	t->parts = calloc(o->fetches_max + 1u, sizeof *t->parts);
	if (!t->connections || !t->calls || !t->requests || !t->notices || !t->fetches || !t->parts)
		return CAD_ERR_MEMORY;
	for (uint32_t i = 0; i < notices; i++) {
		t->notices[i].next = t->notices_free;
		t->notices_free = &t->notices[i];
	}

	cad_calls_init(t);
	cad_requests_init(t);
	cad_fetches_init(t);
	if (!o->on_request)
		return CAD_OK; /* a client sends from and receives into its caller's buffers */
	size_t bytes = (size_t)o->limits.payload_bytes_max;
	enum cad_status status =
		cad_buffer_pool_create(t, o->request_buffers, bytes, o->pinned_buffers, &t->request_pool);
	if (status == CAD_OK)
		status = cad_buffer_pool_create(t, o->answer_buffers, bytes, 0, &t->answer_pool);
	if (status == CAD_OK && o->on_fetch)
		status = cad_buffer_pool_create(t, o->fetches_max, CADRE_PART_BYTES_MAX, 0, &t->part_pool);
	return status;
}

static void transport_free(struct cad_transport *t)
{
	cad_buffer_pool_destroy(t, &t->request_pool);
	cad_buffer_pool_destroy(t, &t->answer_pool);
	cad_buffer_pool_destroy(t, &t->part_pool);
	if (t->link)
		t->link->ops->destroy(t->link);
	if (t->secret)
		sodium_memzero(t->secret, t->secret_bytes);
	free(t->secret);
	free(t->connections);
	free(t->calls);
	free(t->requests);
	free(t->notices);
	free(t->fetches);
	free(t->parts);
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
		.events = &link_events,
		.upper = t,
		.clock = o->clock,
		.connections_max = o->connections_max + CAD_SURPLUS_MAX,
		.sends_max = 3 * o->calls_max + 2 * o->fetches_max +
			(o->connections_max + CAD_SURPLUS_MAX) * NOTICES_PER_CONNECTION,
	};
	status = options->secret && !t->secret ? CAD_ERR_MEMORY : create(&link, context, &t->link, error);
	if (status != CAD_OK)
		goto free_transport;
	o->clock = t->link->clock;
	t->turn_ns = cad_transport_now_ns(t);
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

void cad_transport_destroy(struct cad_transport *t)
{
	if (!t)
		return;

	CAD_ASSERT(!t->polling);
	t->destroying = t->polling = true;
	for (uint32_t i = 0; i < t->connections_high; i++)
		cad_connection_fail(&t->connections[i], CAD_ERR_CANCELLED, "closed by this side");
	uint64_t end = cad_transport_now_ns(t) + DESTROY_SECONDS_MAX * CAD_NS_PER_S;
	while (t->connections_used > 0 && cad_transport_now_ns(t) < end) {
		turn(t, 0);
		if (t->connections_used > 0)
			t->link->ops->wait(t->link, cad_transport_now_ns(t) + CAD_NS_PER_MS);
	}

	CAD_ASSERT(t->connections_used == 0); /* or a request is still held */
	transport_free(t);
}

struct cad_link *cad_transport_link(struct cad_transport *t) { return t->link; }
void *cad_transport_user(const struct cad_transport *t) { return t->options.user; }
const struct cad_clock *cad_transport_clock(const struct cad_transport *t) { return t->options.clock; }
uint64_t cad_transport_now_ns(const struct cad_transport *t) { return cad_clock_now_ns(t->options.clock); }
const char *cad_transport_address(const struct cad_transport *t) { return t->link->ops->address(t->link); }

enum cad_status cad_transport_listen(struct cad_transport *t, const char *address, struct cad_error *error)
{
	if (!t->options.on_request)
		return cad_error_set(error, CAD_ERR_INVALID,
			"listening on '%s': this transport was created only for outgoing calls", address);
	return t->link->ops->listen(t->link, address, error);
}

enum cad_status cad_transport_announce(
	struct cad_transport *t, const char *const *addresses, size_t count, struct cad_error *error)
{
	return t->link->ops->announce ? t->link->ops->announce(t->link, addresses, count, error) : CAD_OK;
}

const struct cad_transport_stats *cad_transport_stats(const struct cad_transport *t) { return &t->stats; }

enum cad_status cad_buffer_create(struct cad_transport *t, size_t bytes, struct cad_buffer *buffer)
{
	return t->link->ops->buffer_create(t->link, bytes ? bytes : 1, NULL, buffer);
}
void cad_buffer_destroy(struct cad_transport *t, struct cad_buffer *buffer)
{
	if (buffer->bytes)
		t->link->ops->buffer_destroy(t->link, buffer);
}
