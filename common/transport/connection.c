/* SPDX-License-Identifier: Apache-2.0 */
/* The life of connections, and what the link says about them. */
#include "common/transport/protocol.h"

#include <string.h>

enum { PONGS_MAX = 4 }; /* under way to one peer; more pings than that go unanswered */
static const uint64_t REFUSING_NS_MAX = CAD_NS_PER_S;

static void ready_event(struct cad_transport_event *event)
{
	struct cad_connection *c = CAD_CONTAINER_OF(event, struct cad_connection, ready);
	struct cad_transport *t = c->transport;
	if (c->phase == CAD_PHASE_READY && t->options.on_connection)
		t->options.on_connection(t, c, CAD_CONNECTION_READY, CAD_OK, "ready");
}

static void closed_event(struct cad_transport_event *event)
{
	struct cad_connection *c = CAD_CONTAINER_OF(event, struct cad_connection, closed);
	struct cad_transport *t = c->transport;
	t->attention = true; /* now its slot may be free */
	if (t->options.on_connection)
		t->options.on_connection(t, c, CAD_CONNECTION_CLOSED, c->status, c->text);
}

static struct cad_connection *connection_get(struct cad_transport *t, bool server)
{
	uint32_t connections_max = t->options.connections_max;
	if (!server && t->connections_used >= connections_max)
		return NULL;
	for (uint32_t i = 0; i < connections_max + CAD_SURPLUS_MAX; i++) {
		struct cad_connection *c = &t->connections[i];
		if (c->phase != CAD_PHASE_FREE)
			continue;
		*c = (struct cad_connection){
			.transport = t,
			.phase = CAD_PHASE_HELLO,
			.server = server,
			.surplus = t->connections_used >= connections_max,
			.phase_awake_ns = t->awake_ns,
			.heard_awake_ns = t->awake_ns,
			.ready.run = ready_event,
			.closed.run = closed_event,
		};
		t->connections_used++;
		if (i >= t->connections_high)
			t->connections_high = i + 1;
		t->timer_ns = 0; /* now there is something to watch */
		return c;
	}
	return NULL;
}

static void connection_put(struct cad_connection *c)
{
	c->phase = CAD_PHASE_FREE;
	c->transport->connections_used--;
}

/* Not every link tells a peer that lives of a forced close. A goodbye that cannot go out at once is
 * lost with the connection: the peer's heartbeat is the net below. */
static void goodbye_send(struct cad_connection *c)
{
	struct cad_notice *goodbye = cad_notice_get(c, CADRE_WIRE_GOODBYE);
	if (goodbye)
		cad_notice_send(goodbye, sizeof goodbye->message.goodbye);
}

void cad_connections_attend(struct cad_transport *t)
{
	while (t->attention) {
		t->attention = false;
		/* before any end is closed: payloads that wait are given back while it lives */
		cad_requests_run_waiting(t);
		for (uint32_t i = 0; i < t->connections_high; i++) {
			struct cad_connection *c = &t->connections[i];
			if (c->phase == CAD_PHASE_FAILED) {
				cad_calls_fail(c);
				cad_fetches_fail(c);
				c->phase = c->end ? CAD_PHASE_CLOSING : CAD_PHASE_ENDED;
				if (c->end && !c->gone)
					goodbye_send(c);
				if (c->end)
					t->link->ops->close(c->end);
			}
			if (c->phase != CAD_PHASE_ENDED || c->calls > 0 || (!c->server && c->fetches > 0))
				continue;
			if (!c->reported) {
				c->reported = true;
				cad_transport_event(t, &c->closed);
			} else if (!c->closed.queued && c->requests == 0 && c->fetches == 0) {
				connection_put(c);
			}
		}
	}
}

void cad_connection_close(struct cad_connection *c, enum cad_status status, const char *text)
{
	cad_connection_fail(
		c, status == CAD_OK ? CAD_ERR_CANCELLED : status, "%s", text ? text : "closed by this side");
}

void *cad_connection_user(const struct cad_connection *c) { return c->user; }
const char *cad_connection_peer(const struct cad_connection *c) { return c->peer.node; }
uint64_t cad_connection_silent_ns(const struct cad_connection *c) { return c->transport->awake_ns - c->heard_awake_ns; }

uint32_t cad_connection_rows_max(const struct cad_connection *c) { return c->rows_max; }
enum cad_connection_state cad_connection_state(const struct cad_connection *c)
{
	return c->phase == CAD_PHASE_READY                                   ? CAD_CONNECTION_READY
		: c->phase == CAD_PHASE_HELLO || c->phase == CAD_PHASE_PROOF ? CAD_CONNECTION_CONNECTING
									     : CAD_CONNECTION_CLOSED;
}

enum cad_status cad_transport_connect(struct cad_transport *t, const char *address, void *user,
	struct cad_connection **connection, struct cad_error *error)
{
	if (t->destroying)
		return cad_error_set(
			error, CAD_ERR_CANCELLED, "connecting to '%s': this transport is being closed", address);
	struct cad_connection *c = connection_get(t, false);
	if (!c)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "connecting to '%s': all %u connections are in use",
			address, t->options.connections_max);
	c->user = user;
	struct cad_error why = { .text = "" };
	enum cad_status status = t->link->ops->connect(t->link, address, c, &c->end, &why);
	if (status == CAD_ERR_UNREACHABLE) { /* as if it had been found out later */
		cad_connection_fail(c, status, "%s", why.text);
	} else if (status != CAD_OK) {
		connection_put(c);
		return cad_error_set(error, status, "%s", why.text);
	} else {
		cad_hello_start(c);
	}

	*connection = c;
	return CAD_OK;
}

/* ---- what the link says ---- */

void *cad_connection_accept(void *upper, struct cad_link_end *end)
{
	struct cad_transport *t = upper;
	struct cad_connection *c = t->destroying || !t->options.on_request ? NULL : connection_get(t, true);
	if (c)
		c->end = end;
	return c;
}

static void ping_message(struct cad_connection *c, const void *header)
{
	struct cadre_wire_ping ping;
	memcpy(&ping, header, sizeof ping);

	if (ping.header.kind == CADRE_WIRE_PONG) {
		if (c->server)
			cad_connection_break(c, "%s: a PONG from the side that pings", cad_connection_name(c));
		return;
	}

	if (!c->server) {
		cad_connection_break(c, "%s: a PING from the side that answers them", cad_connection_name(c));
		return;
	}

	struct cad_notice *pong = c->notices < PONGS_MAX ? cad_notice_get(c, CADRE_WIRE_PONG) : NULL;
	if (!pong)
		return;
	pong->message.ping.stamp = ping.stamp;
	cad_notice_send(pong, sizeof pong->message.ping);
}

static bool of_another_version(const void *header, size_t header_bytes)
{
	struct cadre_wire_header head;
	if (header_bytes < sizeof head)
		return false;
	memcpy(&head, header, sizeof head);
	return head.magic == CADRE_WIRE_MAGIC && head.version != CADRE_WIRE_VERSION;
}

bool cad_connection_message(
	void *owner, uint8_t kind, const void *header, size_t header_bytes, const struct cad_link_payload *payload)
{
	struct cad_connection *c = owner;
	struct cad_transport *t = c->transport;
	struct cadre_wire_header head;
	struct cad_error error;

	t->stats.bytes_received += header_bytes + payload->bytes;
	if (c->phase > CAD_PHASE_REFUSING || (c->phase == CAD_PHASE_REFUSING && kind != CADRE_WIRE_GOODBYE))
		return false;
	enum cad_status status = cad_wire_header_check(header, header_bytes, payload->bytes, &head, &error);
	if (status == CAD_OK && head.kind != kind)
		status = cad_error_set(&error, CAD_ERR_PROTOCOL, "a %s that arrived as message %u",
			cad_wire_kind_name(head.kind), kind);
	if (status == CAD_OK && kind == CADRE_WIRE_GOODBYE) { /* the two may not agree on a session yet */
		c->gone = true;
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: it has closed the connection", cad_connection_name(c));
		return false;
	}
	if (status == CAD_OK && head.session != c->session)
		status = cad_error_set(&error, CAD_ERR_PROTOCOL, "%s: of another session", cad_wire_kind_name(kind));
	if (status == CAD_OK && head.kind > CADRE_WIRE_REFUSE && c->phase != CAD_PHASE_READY)
		status = cad_error_set(
			&error, CAD_ERR_PROTOCOL, "%s before the hello was done", cad_wire_kind_name(kind));
	if (status != CAD_OK) {
		if (c->server && c->phase == CAD_PHASE_HELLO && of_another_version(header, header_bytes))
			cad_connection_refuse(c, "%s", error.text);
		else
			cad_connection_break(c, "%s: %s", cad_connection_name(c), error.text);
		return false;
	}

	c->heard_awake_ns = t->awake_ns;
	c->ping_awake_ns = 0;
	switch ((enum cadre_wire_kind)kind) {
	case CADRE_WIRE_PING:
	case CADRE_WIRE_PONG: ping_message(c, header); return false;
	case CADRE_WIRE_CALL: return cad_request_arrived(c, header, header_bytes, payload);
	case CADRE_WIRE_ANSWER: return cad_call_answer_arrived(c, header, header_bytes, payload);
	case CADRE_WIRE_FETCH: cad_fetch_arrived(c, header, header_bytes); return false;
	case CADRE_WIRE_PART: return cad_part_arrived(c, header, header_bytes, payload);
	default: cad_hello_message(c, kind, header); return false;
	}
}

void cad_connection_lost(void *owner, enum cad_status status, const char *text)
{
	struct cad_connection *c = owner;
	c->gone = status != CAD_ERR_CANCELLED;
	cad_connection_fail(c, c->gone ? status : CAD_ERR_PEER_LOST, "%s: %s", cad_connection_name(c), text);
}

void cad_connection_closed(void *owner)
{
	struct cad_connection *c = owner;
	CAD_ASSERT(c->phase == CAD_PHASE_CLOSING);
	c->end = NULL;
	c->phase = CAD_PHASE_ENDED;
	c->transport->attention = true;
}

void cad_connection_again(void *owner)
{
	struct cad_connection *c = owner;
	if (c->phase == CAD_PHASE_HELLO)
		cad_hello_start(c);
}

/* ---- time ---- */

void cad_connection_timers(struct cad_connection *c)
{
	struct cad_transport *t = c->transport;
	const struct cad_transport_options *o = &t->options;
	uint64_t silent_ns = t->awake_ns - c->heard_awake_ns;

	switch (c->phase) {
	case CAD_PHASE_HELLO:
	case CAD_PHASE_PROOF:
		if (t->awake_ns - c->phase_awake_ns > o->handshake_timeout_ms * CAD_NS_PER_MS)
			cad_connection_fail(c, CAD_ERR_UNREACHABLE, "%s: no hello within %u ms", cad_connection_name(c),
				o->handshake_timeout_ms);
		break;
	case CAD_PHASE_REFUSING:
		if (t->awake_ns - c->phase_awake_ns > REFUSING_NS_MAX)
			cad_connection_fail(c, c->status, "%s", c->text);
		break;
	case CAD_PHASE_READY:
		if (c->server && silent_ns > o->peer_timeout_ms * CAD_NS_PER_MS) {
			cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: nothing heard for %u ms", cad_connection_name(c),
				o->peer_timeout_ms);
		} else if (!c->server && c->ping_awake_ns != 0 &&
			t->awake_ns - c->ping_awake_ns > o->ping_timeout_ms * CAD_NS_PER_MS) {
			cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: no answer to a ping within %u ms",
				cad_connection_name(c), o->ping_timeout_ms);
		} else if (!c->server && c->ping_awake_ns == 0 && silent_ns > o->ping_interval_ms * CAD_NS_PER_MS) {
			struct cad_notice *ping = cad_notice_get(c, CADRE_WIRE_PING);
			if (!ping)
				break;
			c->ping_awake_ns = t->awake_ns;
			ping->message.ping.stamp = cad_transport_now_ns(t);
			cad_notice_send(ping, sizeof ping->message.ping);
		}
		break;
	default: break;
	}
}
