/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls, from start to callback. A slot of the table is the call; its number and generation are the
 * request id, so an answer that comes after its call was given up meets another generation and is
 * dropped.
 *
 *   FREE -> ACTIVE -> (RECEIVING ->) FINISHING -> callback -> FREE
 *                                                         \-> ZOMBIE until the late answer
 *                                                         (deadline, cancel): the credit is the
 *                                                         peer's to return
 */
#include "common/transport/protocol.h"

#include <string.h>

static void call_sent(struct cad_link_op *op, enum cad_status status);
static void call_received(struct cad_link_op *op, enum cad_status status);
static void call_finish(struct cad_transport_event *event);

void cad_calls_init(struct cad_transport *t)
{
	for (uint32_t i = t->options.calls_max; i > 0; i--) {
		struct cad_call *call = &t->calls[i - 1];
		call->slot = i - 1;
		call->send.done = call_sent;
		call->receive.done = call_received;
		call->finished.run = call_finish;
		call->next_free = t->calls_free;
		t->calls_free = call;
	}
}

static void call_free(struct cad_call *call)
{
	struct cad_connection *c = call->connection;
	struct cad_transport *t = c->transport;

	c->used_calls--;
	c->used_bytes -= call->wire.header.payload_bytes;
	c->calls--;
	if (c->phase == CAD_PHASE_ENDED)
		t->attention = true;
	call->state = CAD_CALL_FREE;
	call->connection = NULL;
	call->next_free = t->calls_free;
	t->calls_free = call;
}

/* Decided calls become an event once nothing touches their buffers. */
static void call_settle(struct cad_call *call)
{
	if (call->state == CAD_CALL_FINISHING && !call->send_busy && !call->receive_busy)
		cad_transport_event(call->connection->transport, &call->finished);
}

static void call_decide(struct cad_call *call, enum cad_status status)
{
	call->state = CAD_CALL_FINISHING;
	call->status = status;
	call_settle(call);
}

static void call_sent(struct cad_link_op *op, enum cad_status status)
{
	struct cad_call *call = CAD_CONTAINER_OF(op, struct cad_call, send);
	struct cad_connection *c = call->connection;
	call->send_busy = false;
	if (status != CAD_OK)
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: sending a call failed: %s", cad_connection_name(c),
			cad_status_text(status));
	call_settle(call);
}

/* ---- starting ---- */

static enum cad_status call_check(const struct cad_connection *c, const struct cad_call_start *start)
{
	const struct cad_wire_limits *limits = &c->transport->options.limits;
	CAD_ASSERT(start->done && start->payload && start->answer && start->payload_bytes > 0 &&
		start->payload_bytes <= start->payload->capacity);
	if (start->call.rows == 0 || start->call.rows > c->rows_max ||
		start->payload_bytes > limits->payload_bytes_max || start->payload_bytes > c->credit_bytes)
		return CAD_ERR_RANGE;
	return start->answer->capacity < cad_wire_answer_bytes_max(start->call.rows, start->call.row_elements)
		? CAD_ERR_RANGE
		: CAD_OK;
}

static uint32_t timeout_us(const struct cad_transport *t, uint64_t deadline_ns)
{
	if (deadline_ns == 0)
		return 0;
	uint64_t now_ns = cad_transport_now_ns(t),
		 us = deadline_ns > now_ns ? (deadline_ns - now_ns) / CAD_NS_PER_US : 0;
	return us == 0 ? 1 : us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

enum cad_status cad_call_start(struct cad_connection *c, const struct cad_call_start *start, struct cad_call **out)
{
	struct cad_transport *t = c->transport;
	if (c->phase != CAD_PHASE_READY || c->server)
		return CAD_ERR_PEER_LOST;

	enum cad_status status = call_check(c, start);
	if (status != CAD_OK)
		return status;
	struct cad_call *call = t->calls_free;
	if (!call || c->used_calls >= c->credit_calls || c->used_bytes + start->payload_bytes > c->credit_bytes) {
		t->stats.credit_waits++;
		return CAD_AGAIN;
	}

	t->calls_free = call->next_free;
	if (call->slot >= t->calls_high)
		t->calls_high = call->slot + 1;
	call->generation++;
	call->state = CAD_CALL_ACTIVE;
	call->connection = c;
	call->owed = true;
	call->grace = call->receive_busy = false;
	call->buffer = start->answer;
	call->deadline_ns = start->deadline_ns;
	call->done = start->done;
	call->context = start->context;
	call->wire = start->call;
	call->wire.header = (struct cadre_wire_header){
		.magic = CADRE_WIRE_MAGIC,
		.version = CADRE_WIRE_VERSION,
		.kind = CADRE_WIRE_CALL,
		.session = c->session,
		.payload_bytes = start->payload_bytes,
	};
	call->wire.request_id = (uint64_t)call->generation << 32 | call->slot;
	call->wire.timeout_us = timeout_us(t, start->deadline_ns);
	c->calls++;
	c->used_calls++;
	c->used_bytes += start->payload_bytes;
	struct cad_link_message message = {
		.kind = CADRE_WIRE_CALL,
		.header = &call->wire,
		.header_bytes = sizeof call->wire,
		.payload = start->payload->bytes,
		.payload_bytes = start->payload_bytes,
		.buffer = start->payload,
	};
	call->send_busy = true;
	status = t->link->ops->send(c->end, &message, &call->send);

	if (status < 0) {
		call_free(call);
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: sending a call failed: %s", cad_connection_name(c),
			cad_status_text(status));
		return CAD_ERR_PEER_LOST;
	}

	if (status == CAD_OK)
		call->send_busy = false;
	t->stats.calls++;
	t->stats.bytes_sent += sizeof call->wire + start->payload_bytes;
	if (call->deadline_ns != 0 && call->deadline_ns < t->timer_ns)
		t->timer_ns = call->deadline_ns;
	*out = call;

	return CAD_OK;
}

void cad_call_cancel(struct cad_call *call)
{
	if (call->state == CAD_CALL_ACTIVE || call->state == CAD_CALL_RECEIVING)
		call_decide(call, CAD_ERR_CANCELLED);
}

/* ---- the answer ---- */

static bool answer_fits(const struct cad_call *call, const struct cad_answer_view *view)
{
	const struct cadre_wire_answer *a = &view->answer;
	return a->header.status != CADRE_WIRE_OK ||
		(a->layer == call->wire.layer && a->rows == call->wire.rows &&
			a->row_elements == call->wire.row_elements);
}

static void answer_complete(struct cad_call *call)
{
	struct cad_connection *c = call->connection;
	struct cad_error error;
	enum cad_status status = cad_wire_answer_check(&call->answer, sizeof call->answer, call->buffer->bytes,
		(size_t)call->answer.header.payload_bytes, &c->transport->options.limits, &call->view, &error);

	if (status == CAD_OK && !answer_fits(call, &call->view))
		status = cad_error_set(&error, CAD_ERR_PROTOCOL, "ANSWER: its shape differs from its call's");
	if (status != CAD_OK)
		cad_connection_break(c, "%s: %s", cad_connection_name(c), error.text);
	call_decide(call, status);
}

static void call_received(struct cad_link_op *op, enum cad_status status)
{
	struct cad_call *call = CAD_CONTAINER_OF(op, struct cad_call, receive);
	struct cad_connection *c = call->connection;

	call->receive_busy = false;
	if (call->state == CAD_CALL_RECEIVING && status == CAD_OK)
		answer_complete(call);
	else if (status != CAD_OK)
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: receiving an answer failed: %s", cad_connection_name(c),
			cad_status_text(status));
	call_settle(call);
}

static bool call_receive(struct cad_call *call, const struct cad_link_payload *payload)
{
	struct cad_connection *c = call->connection;
	if (payload->bytes > call->buffer->capacity) {
		cad_connection_break(c, "%s: an answer of %zu bytes to a call whose answer takes at most %zu",
			cad_connection_name(c), payload->bytes, call->buffer->capacity);
		return false;
	}

	call->state = CAD_CALL_RECEIVING;
	call->receive_busy = true;
	enum cad_status status = c->transport->link->ops->receive(c->end, payload, call->buffer, &call->receive);
	if (status == CAD_AGAIN)
		return true;
	call_received(&call->receive, status);

	return true; /* either way `receive` had the payload */
}

bool cad_call_answer_arrived(
	struct cad_connection *c, const void *header, size_t header_bytes, const struct cad_link_payload *payload)
{
	struct cad_transport *t = c->transport;
	struct cadre_wire_answer answer;

	CAD_ASSERT(header_bytes == sizeof answer);
	memcpy(&answer, header, sizeof answer);
	uint32_t slot = (uint32_t)answer.request_id, generation = (uint32_t)(answer.request_id >> 32);
	if (c->server || slot >= t->options.calls_max) {
		cad_connection_break(c, "%s: an answer to call %u, which cannot exist", cad_connection_name(c), slot);
		return false;
	}

	struct cad_call *call = &t->calls[slot];
	if (call->state == CAD_CALL_FREE || call->connection != c || call->generation != generation || !call->owed) {
		t->stats.late_answers++; /* twice, or long after its connection's end */
		return false;
	}

	call->owed = false;

	if (call->state != CAD_CALL_ACTIVE) {
		t->stats.late_answers++;
		if (call->state == CAD_CALL_ZOMBIE)
			call_free(call);
		return false;
	}

	t->stats.answers++;
	call->answer = answer;
	if (payload->bytes > 0)
		return call_receive(call, payload);
	answer_complete(call);

	return false;
}

/* ---- the end ---- */

/* The caller is notified. The slot and the credit wait for the late answer, but not without end: a
 * connection whose credit drains away must be rebuilt. */
static void call_haunt(struct cad_call *call)
{
	struct cad_transport *t = call->connection->transport;
	call->state = CAD_CALL_ZOMBIE;
	call->deadline_ns = cad_transport_now_ns(t) + t->options.peer_timeout_ms * CAD_NS_PER_MS;
	t->timer_ns = call->deadline_ns < t->timer_ns ? call->deadline_ns : t->timer_ns;
}

static void call_finish(struct cad_transport_event *event)
{
	struct cad_call *call = CAD_CONTAINER_OF(event, struct cad_call, finished);
	cad_call_done_fn *done = call->done;
	void *context = call->context;
	enum cad_status status = call->status;
	struct cad_answer_view view = call->view;
	if (call->owed && call->connection->phase == CAD_PHASE_READY)
		call_haunt(call);
	else
		call_free(call); /* before the callback, so that it can start another */
	done(context, call, status, status == CAD_OK ? &view : NULL);
}

void cad_calls_fail(struct cad_connection *c)
{
	struct cad_transport *t = c->transport;
	for (uint32_t i = 0; c->calls > 0 && i < t->calls_high; i++) {
		struct cad_call *call = &t->calls[i];
		if (call->connection != c)
			continue;
		if (call->state == CAD_CALL_ZOMBIE)
			call_free(call);
		else if (call->state == CAD_CALL_ACTIVE || call->state == CAD_CALL_RECEIVING)
			call_decide(call, c->status);
	}
}

uint64_t cad_calls_deadlines(struct cad_transport *t, uint64_t now_ns)
{
	uint64_t next = UINT64_MAX;
	for (uint32_t i = 0; i < t->calls_high; i++) {
		struct cad_call *call = &t->calls[i];
		if (call->state == CAD_CALL_FREE || call->deadline_ns == 0 || call->finished.queued)
			continue;
		if (call->deadline_ns > now_ns) {
			next = call->deadline_ns < next ? call->deadline_ns : next;
			continue;
		}
		if (call->state == CAD_CALL_ZOMBIE) {
			cad_connection_fail(call->connection, CAD_ERR_PEER_LOST,
				"%s: still owes an answer %u ms after its call was given up",
				cad_connection_name(call->connection), t->options.peer_timeout_ms);
			continue;
		}
		if (call->state != CAD_CALL_FINISHING) {
			t->stats.deadlines++;
			call_decide(call, CAD_ERR_DEADLINE);
		}
		if ((!call->send_busy && !call->receive_busy) || t->link->in_place)
			continue;
		/* The link cannot give a buffer back before the peer has taken or filled it. A
		 * little patience, then the connection goes, and the buffers come back. */
		if (call->grace) {
			cad_connection_fail(call->connection, CAD_ERR_PEER_LOST,
				"%s: did not take a call within its deadline plus %u ms",
				cad_connection_name(call->connection), t->options.ping_timeout_ms);
			continue;
		}
		call->grace = true;
		call->deadline_ns = now_ns + t->options.ping_timeout_ms * CAD_NS_PER_MS;
		next = call->deadline_ns < next ? call->deadline_ns : next;
	}
	return next;
}
