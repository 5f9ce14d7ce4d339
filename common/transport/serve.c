/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answering side: a call becomes a request when its credit is right, its payload is here (in
 * place, or in a pooled buffer) and every byte of it was checked. A payload for which there is no
 * buffer stays at the sender.
 *
 *   FREE -> (WAITING ->) (RECEIVING ->) QUEUED -> HELD -> ANSWERING -> FREE
 */
#include "common/transport/protocol.h"

#include <string.h>

static void request_received(struct cad_link_op *op, enum cad_status status);
static void request_sent(struct cad_link_op *op, enum cad_status status);
static void request_deliver(struct cad_transport_event *event);

void cad_requests_init(struct cad_transport *t)
{
	for (uint32_t i = t->options.calls_max; i > 0; i--) {
		struct cad_request *request = &t->requests[i - 1];
		request->receive.done = request_received;
		request->send.done = request_sent;
		request->arrived.run = request_deliver;
		request->next = t->requests_free;
		t->requests_free = request;
	}
}

/* The payload is no longer needed. `in_event`: inside the event that brought it, where the link
 * lets go by itself. */
static void request_drop_payload(struct cad_request *request, bool in_event)
{
	struct cad_transport *t = request->connection->transport;
	if (request->kept && !in_event)
		t->link->ops->release(t->link, &request->payload);
	request->kept = false;
	if (request->received) {
		cad_buffer_pool_put(t, &t->request_pool, request->received, 0);
		request->received = NULL;
		t->attention = t->attention || t->waiting;
	}
}

static void request_credit_back(struct cad_request *request)
{
	if (!request->credit_held)
		return;
	request->credit_held = false;
	request->connection->used_calls--;
	request->connection->used_bytes -= request->wire.header.payload_bytes;
}

static void request_free(struct cad_request *request, bool in_event, uint64_t rest_ns)
{
	struct cad_connection *c = request->connection;
	struct cad_transport *t = c->transport;

	request_drop_payload(request, in_event);
	request_credit_back(request);
	if (request->answer_buffer)
		cad_buffer_pool_put(t, &t->answer_pool, request->answer_buffer, rest_ns);
	request->answer_buffer = NULL;
	c->requests--;
	if (c->phase == CAD_PHASE_ENDED)
		t->attention = true;
	request->state = CAD_REQUEST_FREE;
	request->next = t->requests_free;
	t->requests_free = request;
	t->handled++; /* somebody may wait for a buffer */
}

/* ---- arriving ---- */

/* All of it is here. */
static bool request_complete(struct cad_request *request)
{
	struct cad_connection *c = request->connection;
	struct cad_error error;
	const void *payload = request->received ? request->received->bytes : request->payload.data;

	if (c->phase == CAD_PHASE_READY &&
		cad_wire_call_check(&request->wire, sizeof request->wire, payload,
			(size_t)request->wire.header.payload_bytes, &c->transport->options.limits, &request->view,
			&error) == CAD_OK) {
		request->received_ns = cad_transport_now_ns(c->transport);
		request->state = CAD_REQUEST_QUEUED;
		cad_transport_event(c->transport, &request->arrived);
		return true;
	}

	if (c->phase == CAD_PHASE_READY)
		cad_connection_break(c, "%s: %s", cad_connection_name(c), error.text);
	return false;
}

static void request_received(struct cad_link_op *op, enum cad_status status)
{
	struct cad_request *request = CAD_CONTAINER_OF(op, struct cad_request, receive);
	struct cad_connection *c = request->connection;
	if (status != CAD_OK)
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: receiving a call failed: %s", cad_connection_name(c),
			cad_status_text(status));
	if (status != CAD_OK || !request_complete(request))
		request_free(request, false, 0);
}

static void request_receive(struct cad_request *request, struct cad_buffer *buffer)
{
	struct cad_connection *c = request->connection;
	request->received = buffer;
	request->kept = false; /* `receive` has the handle now */
	request->state = CAD_REQUEST_RECEIVING;
	enum cad_status status = c->transport->link->ops->receive(c->end, &request->payload, buffer, &request->receive);
	if (status != CAD_AGAIN)
		request_received(&request->receive, status);
}

void cad_requests_run_waiting(struct cad_transport *t)
{
	struct cad_request *request = t->waiting;
	t->waiting = NULL;
	t->waiting_tail = &t->waiting;

	while (request) {
		struct cad_request *next = request->next;
		struct cad_buffer *buffer =
			request->connection->phase == CAD_PHASE_READY ? cad_buffer_pool_get(t, &t->request_pool) : NULL;
		request->next = NULL;
		if (request->connection->phase != CAD_PHASE_READY) {
			request_free(request, false, 0);
		} else if (buffer) {
			request_receive(request, buffer);
		} else { /* still none: back into the line */
			*t->waiting_tail = request;
			t->waiting_tail = &request->next;
		}
		request = next;
	}
}

static bool busy_answer(struct cad_connection *c, const struct cadre_wire_call *call)
{
	struct cad_notice *message = cad_notice_get(c, CADRE_WIRE_ANSWER);
	if (!message) {
		cad_connection_break(c, "%s: more calls than this node can even refuse", cad_connection_name(c));
		return false;
	}

	message->message.answer = (struct cadre_wire_answer){
		.header = message->message.header,
		.request_id = call->request_id,
		.layer = call->layer,
		.rows = call->rows,
		.row_elements = call->row_elements,
	};
	message->message.header.status = CADRE_WIRE_BUSY;
	cad_notice_send(message, sizeof message->message.answer);

	return false;
}

/* Nothing that a peer sends may cost more than it was granted. */
static bool request_allowed(struct cad_connection *c, const struct cadre_wire_call *call)
{
	const struct cad_wire_limits *limits = &c->transport->options.limits;
	uint64_t bytes = call->header.payload_bytes;

	if (!c->server)
		cad_connection_break(c, "%s: a call from the side that answers", cad_connection_name(c));
	else if (bytes == 0 || bytes > limits->payload_bytes_max)
		cad_connection_break(c, "%s: a call of %llu payload bytes, 1 to %llu are allowed",
			cad_connection_name(c), (unsigned long long)bytes,
			(unsigned long long)limits->payload_bytes_max);
	else if (c->used_calls >= c->credit_calls || c->used_bytes + bytes > c->credit_bytes)
		cad_connection_break(c, "%s: more calls than the credit of %u calls and %llu bytes",
			cad_connection_name(c), c->credit_calls, (unsigned long long)c->credit_bytes);

	/* it asks on and on but does not take the answers; its link is ill, or it means no good */
	else if (c->requests >= 2 * c->credit_calls)
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: the peer does not take its %u answers",
			cad_connection_name(c), c->requests - c->used_calls);
	else
		return true;
	return false;
}

bool cad_request_arrived(
	struct cad_connection *c, const void *header, size_t header_bytes, const struct cad_link_payload *payload)
{
	struct cad_transport *t = c->transport;
	struct cadre_wire_call call;

	CAD_ASSERT(header_bytes == sizeof call);
	memcpy(&call, header, sizeof call);
	if (!request_allowed(c, &call))
		return false;
	bool in_place = payload->data && payload->keepable && (uintptr_t)payload->data % 8 == 0;
	bool can_wait = !payload->data || payload->keepable;
	struct cad_buffer *buffer = in_place || t->waiting ? NULL : cad_buffer_pool_get(t, &t->request_pool);
	struct cad_request *request = t->requests_free;
	if (!request || (!in_place && !buffer && !can_wait)) {
		if (buffer)
			cad_buffer_pool_put(t, &t->request_pool, buffer, 0);
		return busy_answer(c, &call);
	}

	t->requests_free = request->next;
	request->next = NULL;
	request->connection = c;
	request->wire = call;
	request->payload = *payload;
	request->kept = true;
	request->credit_held = true;
	c->requests++;
	c->used_calls++;
	c->used_bytes += call.header.payload_bytes;

	if (in_place) {
		if (request_complete(request))
			return true;
		request_free(request, true, 0);
		return false;
	}

	if (buffer) {
		request_receive(request, buffer);
		return true;
	}

	request->state = CAD_REQUEST_WAITING;
	*t->waiting_tail = request;
	t->waiting_tail = &request->next;

	return true;
}

static void request_deliver(struct cad_transport_event *event)
{
	struct cad_request *request = CAD_CONTAINER_OF(event, struct cad_request, arrived);
	struct cad_transport *t = request->connection->transport;
	if (request->connection->phase != CAD_PHASE_READY) {
		request_free(request, false, 0);
		return;
	}
	request->state = CAD_REQUEST_HELD;
	t->options.on_request(t, request);
}

/* ---- held and answered ---- */

const struct cad_call_view *cad_request_view(const struct cad_request *request) { return &request->view; }
struct cad_connection *cad_request_connection(const struct cad_request *request) { return request->connection; }
uint64_t cad_request_received_ns(const struct cad_request *request) { return request->received_ns; }
bool cad_request_alive(const struct cad_request *request) { return request->connection->phase == CAD_PHASE_READY; }

struct cad_buffer *cad_request_answer_buffer(struct cad_request *request)
{
	struct cad_transport *t = request->connection->transport;
	if (!request->answer_buffer)
		request->answer_buffer = cad_buffer_pool_get(t, &t->answer_pool);
	return request->answer_buffer;
}

static void request_sent(struct cad_link_op *op, enum cad_status status)
{
	struct cad_request *request = CAD_CONTAINER_OF(op, struct cad_request, send);
	/* An answer that was cut off may still be read by a peer that has not noticed: it must not
	 * read another's. */
	request_free(request, false,
		status == CAD_OK ? 0 : request->connection->transport->options.ping_timeout_ms * CAD_NS_PER_MS);
}

void cad_request_answer(struct cad_request *request, const struct cadre_wire_answer *answer, size_t payload_bytes)
{
	struct cad_connection *c = request->connection;
	struct cad_transport *t = c->transport;

	CAD_ASSERT(request->state == CAD_REQUEST_HELD);
	CAD_ASSERT(payload_bytes == 0 ||
		(answer->header.status == CADRE_WIRE_OK && request->answer_buffer &&
			payload_bytes <= request->answer_buffer->capacity));
	request->state = CAD_REQUEST_ANSWERING;
	request_drop_payload(request, false);

	/* now, not when it is sent: the peer may spend it as soon as it sees the answer */
	request_credit_back(request);
	if (c->phase != CAD_PHASE_READY) {
		request_free(request, false, 0);
		return;
	}

	request->answer = (struct cadre_wire_answer){
		.header = { .magic = CADRE_WIRE_MAGIC,
			.version = CADRE_WIRE_VERSION,
			.kind = CADRE_WIRE_ANSWER,
			.status = answer->header.status,
			.session = c->session,
			.payload_bytes = payload_bytes },
		.request_id = request->wire.request_id,
		.data_bytes = answer->data_bytes,
		.layer = request->wire.layer,
		.rows = request->wire.rows,
		.row_elements = request->wire.row_elements,
		.detail = answer->detail,
		.queue_us = answer->queue_us,
		.compute_us = answer->compute_us,
	};
	struct cad_link_message message = {
		.kind = CADRE_WIRE_ANSWER,
		.header = &request->answer,
		.header_bytes = sizeof request->answer,
		.payload = payload_bytes ? request->answer_buffer->bytes : NULL,
		.payload_bytes = payload_bytes,
		.buffer = payload_bytes ? request->answer_buffer : NULL,
	};
	t->stats.answers++;
	t->stats.bytes_sent += sizeof request->answer + payload_bytes;
	enum cad_status status = t->link->ops->send(c->end, &message, &request->send);
	if (status == CAD_AGAIN)
		return;
	request_free(request, false, 0);
	if (status != CAD_OK)
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: sending an answer failed: %s", cad_connection_name(c),
			cad_status_text(status));
}
