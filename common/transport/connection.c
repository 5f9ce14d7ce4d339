/* The life of connections, and what the link says about them. */
#include "common/transport/protocol.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PONGS_MAX = 4 }; /* under way to one peer; more pings than that go unanswered */
static const uint64_t REFUSING_NS_MAX = CAD_NS_PER_S;

const char *connection_name(const struct cad_connection *c)
{
	return c->peer.node[0] ? c->peer.node : c->server ? "a client" : "the server";
}

static void connection_fail_text(struct cad_connection *c, enum cad_status status, const char *text)
{
	struct cad_transport *t = c->transport;
	if (c->stage == STAGE_FREE || c->stage >= STAGE_FAILED)
		return;

	if (c->stage == STAGE_READY)
		t->stats.connections_lost++;
	if (c->stage != STAGE_REFUSING) { /* that one has its reason already */
		c->status = status;
		snprintf(c->text, sizeof c->text, "%s", text);
	}

	c->stage = STAGE_FAILED;
	t->attention = true;
}

void connection_fail(struct cad_connection *c, enum cad_status status, const char *format, ...)
{
	char text[TRANSPORT_TEXT_BYTES];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	connection_fail_text(c, status, text);
}

void connection_break(struct cad_connection *c, const char *format, ...)
{
	char text[TRANSPORT_TEXT_BYTES];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (c->stage < STAGE_FAILED)
		c->transport->stats.protocol_errors++;
	connection_fail_text(c, CAD_ERR_PROTOCOL, text);
}

static struct cad_connection *connection_get(struct cad_transport *t, bool server)
{
	for (uint32_t i = 0; i < t->options.connections_max; i++) {
		struct cad_connection *c = &t->connections[i];
		if (c->stage != STAGE_FREE)
			continue;
		*c = (struct cad_connection){
			.transport = t,
			.stage = STAGE_HELLO,
			.server = server,
			.stage_awake_ns = t->awake_ns,
			.heard_awake_ns = t->awake_ns,
			.ready.type = EVENT_READY,
			.closed.type = EVENT_CLOSED,
		};
		t->connections_used++;
		t->timer_ns = 0; /* now there is something to watch */
		return c;
	}
	return NULL;
}

static void connection_put(struct cad_connection *c)
{
	c->stage = STAGE_FREE;
	c->transport->connections_used--;
}

void connections_attend(struct cad_transport *t)
{
	while (t->attention) {
		t->attention = false;
		/* before any end is closed: payloads that wait are given back while it lives */
		requests_run_waiting(t);
		for (uint32_t i = 0; i < t->options.connections_max; i++) {
			struct cad_connection *c = &t->connections[i];
			if (c->stage == STAGE_FAILED) {
				calls_fail(c);
				c->stage = c->end ? STAGE_CLOSING : STAGE_ENDED;
				if (c->end)
					t->link->ops->close(c->end);
			}
			if (c->stage != STAGE_ENDED || c->calls > 0)
				continue;
			if (!c->reported) {
				c->reported = true;
				transport_event(t, &c->closed);
			} else if (!c->closed.queued && c->requests == 0) {
				connection_put(c);
			}
		}
	}
}

void cad_connection_close(struct cad_connection *c, enum cad_status status, const char *text)
{
	connection_fail_text(c, status == CAD_OK ? CAD_ERR_CANCELLED : status, text ? text : "closed by this side");
}

void *cad_connection_user(const struct cad_connection *c) { return c->user; }
const char *cad_connection_peer(const struct cad_connection *c) { return c->peer.node; }
uint32_t cad_connection_rows_max(const struct cad_connection *c) { return c->rows_max; }
enum cad_connection_state cad_connection_state(const struct cad_connection *c)
{
	return c->stage == STAGE_READY                               ? CAD_CONNECTION_READY
		: c->stage == STAGE_HELLO || c->stage == STAGE_PROOF ? CAD_CONNECTION_CONNECTING
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
		connection_fail(c, status, "%s", why.text);
	} else if (status != CAD_OK) {
		connection_put(c);
		return cad_error_set(error, status, "%s", why.text);
	} else {
		hello_start(c);
	}

	*connection = c;
	return CAD_OK;
}

/* ---- what the link says ---- */

static void *on_accept(void *upper, struct cad_link_end *end)
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
			connection_break(c, "%s: a PONG from the side that pings", connection_name(c));
		return;
	}

	if (!c->server) {
		connection_break(c, "%s: a PING from the side that answers them", connection_name(c));
		return;
	}

	struct control *pong = c->controls < PONGS_MAX ? control_get(c, CADRE_WIRE_PONG) : NULL;
	if (!pong)
		return;
	pong->message.ping.stamp = ping.stamp;
	control_send(pong, sizeof pong->message.ping);
}

static bool of_another_version(const void *header, size_t header_bytes)
{
	struct cadre_wire_header head;
	if (header_bytes < sizeof head)
		return false;
	memcpy(&head, header, sizeof head);
	return head.magic == CADRE_WIRE_MAGIC && head.version != CADRE_WIRE_VERSION;
}

static bool on_message(
	void *owner, uint8_t kind, const void *header, size_t header_bytes, const struct cad_link_payload *payload)
{
	struct cad_connection *c = owner;
	struct cad_transport *t = c->transport;
	struct cadre_wire_header head;
	struct cad_error error;

	t->stats.bytes_received += header_bytes + payload->bytes;
	if (c->stage >= STAGE_REFUSING)
		return false;
	enum cad_status status = cad_wire_header_check(header, header_bytes, payload->bytes, &head, &error);
	if (status == CAD_OK && head.kind != kind)
		status = cad_error_set(
			&error, CAD_ERR_PROTOCOL, "a %s that came as message %u", cad_wire_kind_name(head.kind), kind);
	if (status == CAD_OK && head.session != c->session)
		status = cad_error_set(&error, CAD_ERR_PROTOCOL, "%s: of another session", cad_wire_kind_name(kind));
	if (status == CAD_OK && head.kind > CADRE_WIRE_REFUSE && c->stage != STAGE_READY)
		status = cad_error_set(
			&error, CAD_ERR_PROTOCOL, "%s before the hello was done", cad_wire_kind_name(kind));
	if (status != CAD_OK) {
		if (c->server && c->stage == STAGE_HELLO && of_another_version(header, header_bytes))
			connection_refuse(c, "%s", error.text);
		else
			connection_break(c, "%s: %s", connection_name(c), error.text);
		return false;
	}

	c->heard_awake_ns = t->awake_ns;
	c->ping_awake_ns = 0;
	switch ((enum cadre_wire_kind)kind) {
	case CADRE_WIRE_PING:
	case CADRE_WIRE_PONG: ping_message(c, header); return false;
	case CADRE_WIRE_CALL: return request_arrived(c, header, header_bytes, payload);
	case CADRE_WIRE_ANSWER: return call_answer_arrived(c, header, header_bytes, payload);
	default: hello_message(c, kind, header); return false;
	}
}

static void on_lost(void *owner, enum cad_status status, const char *text)
{
	struct cad_connection *c = owner;
	connection_fail(c, status, "%s: %s", connection_name(c), text);
}

static void on_closed(void *owner)
{
	struct cad_connection *c = owner;
	CAD_ASSERT(c->stage == STAGE_CLOSING);
	c->end = NULL;
	c->stage = STAGE_ENDED;
	c->transport->attention = true;
}

const struct cad_link_events transport_link_events = {
	.accept = on_accept,
	.message = on_message,
	.lost = on_lost,
	.closed = on_closed,
	.turn = transport_turn,
	.next_ns = transport_next_ns,
};

/* ---- time ---- */

void connection_timers(struct cad_connection *c)
{
	struct cad_transport *t = c->transport;
	const struct cad_transport_options *o = &t->options;
	uint64_t silent_ns = t->awake_ns - c->heard_awake_ns;

	switch (c->stage) {
	case STAGE_HELLO:
	case STAGE_PROOF:
		if (t->awake_ns - c->stage_awake_ns > o->handshake_timeout_ms * CAD_NS_PER_MS)
			connection_fail(c, CAD_ERR_UNREACHABLE, "%s: no hello within %u ms", connection_name(c),
				o->handshake_timeout_ms);
		break;
	case STAGE_REFUSING:
		if (t->awake_ns - c->stage_awake_ns > REFUSING_NS_MAX)
			connection_fail(c, c->status, "%s", c->text);
		break;
	case STAGE_READY:
		if (c->server && silent_ns > o->peer_timeout_ms * CAD_NS_PER_MS) {
			connection_fail(c, CAD_ERR_PEER_LOST, "%s: nothing heard for %u ms", connection_name(c),
				o->peer_timeout_ms);
		} else if (!c->server && c->ping_awake_ns != 0 &&
			t->awake_ns - c->ping_awake_ns > o->ping_timeout_ms * CAD_NS_PER_MS) {
			connection_fail(c, CAD_ERR_PEER_LOST, "%s: no answer to a ping within %u ms",
				connection_name(c), o->ping_timeout_ms);
		} else if (!c->server && c->ping_awake_ns == 0 && silent_ns > o->ping_interval_ms * CAD_NS_PER_MS) {
			struct control *ping = control_get(c, CADRE_WIRE_PING);
			if (!ping)
				break;
			c->ping_awake_ns = t->awake_ns;
			ping->message.ping.stamp = transport_now(t);
			control_send(ping, sizeof ping->message.ping);
		}
		break;
	default: break;
	}
}
