/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of experts' images, from one expert node to another: the side that asks, which is the
 * client, and the side that gives.
 *
 * A fetch is simpler than a call. Nothing waits for it that could not wait longer, so a connection
 * whose part is late is given up, and with it everything that is still owed. A part crosses from a
 * buffer of the transport, so that who fills it needs nothing of this.
 */
#include "common/transport/protocol.h"

#include <string.h>

static void fetch_sent(struct cad_link_op *op, enum cad_status status);
static void fetch_received(struct cad_link_op *op, enum cad_status status);
static void fetch_finish(struct cad_transport_event *event);
static void part_sent(struct cad_link_op *op, enum cad_status status);
static void part_deliver(struct cad_transport_event *event);

void cad_fetches_init(struct cad_transport *t)
{
	for (uint32_t i = t->options.fetches_max; i > 0; i--) {
		struct cad_fetch *fetch = &t->fetches[i - 1];
		fetch->slot = i - 1;
		fetch->send.done = fetch_sent;
		fetch->receive.done = fetch_received;
		fetch->finished.run = fetch_finish;
		fetch->next_free = t->fetches_free;
		t->fetches_free = fetch;

		struct cad_part *part = &t->parts[i - 1];
		part->send.done = part_sent;
		part->arrived.run = part_deliver;
		part->next_free = t->parts_free;
		t->parts_free = part;
	}
}

/* ---- asking ---- */

static void fetch_free(struct cad_fetch *fetch)
{
	struct cad_connection *c = fetch->connection;
	struct cad_transport *t = c->transport;

	c->fetches--;
	if (c->phase == CAD_PHASE_ENDED)
		t->attention = true;
	fetch->state = CAD_FETCH_FREE;
	fetch->connection = NULL;
	fetch->next_free = t->fetches_free;
	t->fetches_free = fetch;
}

/* Decided ones become an event once nothing touches their buffers. */
static void fetch_settle(struct cad_fetch *fetch)
{
	if (fetch->state == CAD_FETCH_FINISHING && !fetch->send_busy && !fetch->receive_busy)
		cad_transport_event(fetch->connection->transport, &fetch->finished);
}

static void fetch_decide(struct cad_fetch *fetch, enum cad_status status)
{
	fetch->state = CAD_FETCH_FINISHING;
	fetch->status = status;
	fetch_settle(fetch);
}

static void fetch_sent(struct cad_link_op *op, enum cad_status status)
{
	struct cad_fetch *fetch = CAD_CONTAINER_OF(op, struct cad_fetch, send);
	struct cad_connection *c = fetch->connection;
	fetch->send_busy = false;
	if (status != CAD_OK)
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: asking for a part of an expert failed: %s",
			cad_connection_name(c), cad_status_text(status));
	fetch_settle(fetch);
}

enum cad_status cad_fetch_start(struct cad_connection *c, const struct cad_fetch_start *start)
{
	struct cad_transport *t = c->transport;
	struct cad_fetch *fetch = t->fetches_free;

	CAD_ASSERT(start->done && start->deadline_ns > 0 && start->fetch.bytes <= start->buffer->capacity);
	if (c->phase != CAD_PHASE_READY || c->server)
		return CAD_ERR_PEER_LOST;
	if (!fetch || c->fetches >= CADRE_FETCHES_MAX)
		return CAD_AGAIN;

	t->fetches_free = fetch->next_free;
	fetch->generation++;
	fetch->state = CAD_FETCH_ACTIVE;
	fetch->connection = c;
	fetch->receive_busy = false;
	fetch->buffer = start->buffer;
	fetch->deadline_ns = start->deadline_ns;
	fetch->done = start->done;
	fetch->context = start->context;
	fetch->wire = start->fetch;
	fetch->wire.header = (struct cadre_wire_header){
		.magic = CADRE_WIRE_MAGIC,
		.version = CADRE_WIRE_VERSION,
		.kind = CADRE_WIRE_FETCH,
		.session = c->session,
	};
	fetch->wire.request_id = (uint64_t)fetch->generation << 32 | fetch->slot;
	c->fetches++;

	struct cad_link_message message = {
		.kind = CADRE_WIRE_FETCH,
		.header = &fetch->wire,
		.header_bytes = sizeof fetch->wire,
	};
	enum cad_status status = t->link->ops->send(c->end, &message, &fetch->send);
	fetch->send_busy = status == CAD_AGAIN;
	if (status < 0) {
		fetch_free(fetch);
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: asking for a part of an expert failed: %s",
			cad_connection_name(c), cad_status_text(status));
		return CAD_ERR_PEER_LOST;
	}

	t->stats.bytes_sent += sizeof fetch->wire;
	if (fetch->deadline_ns < t->timer_ns)
		t->timer_ns = fetch->deadline_ns;
	return CAD_OK;
}

static void fetch_received(struct cad_link_op *op, enum cad_status status)
{
	struct cad_fetch *fetch = CAD_CONTAINER_OF(op, struct cad_fetch, receive);
	struct cad_connection *c = fetch->connection;

	fetch->receive_busy = false;
	if (status != CAD_OK)
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: receiving a part of an expert failed: %s",
			cad_connection_name(c), cad_status_text(status));
	else if (fetch->state == CAD_FETCH_RECEIVING)
		fetch_decide(fetch, CAD_OK);
	fetch_settle(fetch);
}

static struct cad_fetch *fetch_of(const struct cad_connection *c, uint64_t request_id)
{
	const struct cad_transport *t = c->transport;
	uint32_t slot = (uint32_t)request_id;
	struct cad_fetch *fetch = slot < t->options.fetches_max ? &t->fetches[slot] : NULL;
	bool asked = fetch && fetch->state == CAD_FETCH_ACTIVE && fetch->connection == c &&
		fetch->generation == (uint32_t)(request_id >> 32);
	return asked ? fetch : NULL;
}

bool cad_part_arrived(
	struct cad_connection *c, const void *header, size_t header_bytes, const struct cad_link_payload *payload)
{
	struct cadre_wire_part part;
	struct cad_error error;
	enum cad_status status = cad_wire_part_check(header, header_bytes, payload->bytes, &part, &error);
	struct cad_fetch *fetch = status == CAD_OK && !c->server ? fetch_of(c, part.request_id) : NULL;

	/* what was asked for is answered once, and nothing is given up
	 * while the connection stands */
	if (status == CAD_OK && !fetch)
		status = cad_error_set(&error, CAD_ERR_PROTOCOL, "PART: nobody asked for it");
	if (status == CAD_OK && part.header.status == CADRE_WIRE_OK && payload->bytes != fetch->wire.bytes)
		status = cad_error_set(&error, CAD_ERR_PROTOCOL, "PART: %zu bytes, %u were asked for", payload->bytes,
			fetch->wire.bytes);
	if (status != CAD_OK) {
		cad_connection_break(c, "%s: %s", cad_connection_name(c), error.text);
		return false;
	}

	fetch->part = part;
	if (payload->bytes == 0) {
		fetch_decide(fetch, CAD_OK);
		return false;
	}
	fetch->state = CAD_FETCH_RECEIVING;
	fetch->receive_busy = true;
	status = c->transport->link->ops->receive(c->end, payload, fetch->buffer, &fetch->receive);
	if (status != CAD_AGAIN)
		fetch_received(&fetch->receive, status);

	return true; /* either way `receive` had the payload */
}

static void fetch_finish(struct cad_transport_event *event)
{
	struct cad_fetch *fetch = CAD_CONTAINER_OF(event, struct cad_fetch, finished);
	cad_fetch_done_fn *done = fetch->done;
	void *context = fetch->context;
	enum cad_status status = fetch->status;
	enum cadre_wire_status wire = status == CAD_OK ? fetch->part.header.status : CADRE_WIRE_OK;
	uint64_t image_bytes = status == CAD_OK ? fetch->part.image_bytes : 0;

	fetch_free(fetch); /* before the callback, so that it can start another */
	done(context, status, wire, image_bytes);
}

void cad_fetches_fail(struct cad_connection *c)
{
	struct cad_transport *t = c->transport;
	for (uint32_t i = 0; !c->server && i < t->options.fetches_max; i++)
		if (t->fetches[i].connection == c && t->fetches[i].state != CAD_FETCH_FINISHING)
			fetch_decide(&t->fetches[i], c->status);
}

uint64_t cad_fetches_deadlines(struct cad_transport *t, uint64_t now_ns)
{
	uint64_t next = UINT64_MAX;
	for (uint32_t i = 0; i < t->options.fetches_max; i++) {
		struct cad_fetch *fetch = &t->fetches[i];
		if (fetch->state == CAD_FETCH_FREE || fetch->state == CAD_FETCH_FINISHING)
			continue;
		if (fetch->deadline_ns <= now_ns)
			cad_connection_fail(fetch->connection, CAD_ERR_DEADLINE,
				"%s: a part of an expert did not come in time", cad_connection_name(fetch->connection));
		else
			next = fetch->deadline_ns < next ? fetch->deadline_ns : next;
	}
	return next;
}

/* ---- giving ---- */

static void part_free(struct cad_part *part, uint64_t rest_ns)
{
	struct cad_connection *c = part->connection;
	struct cad_transport *t = c->transport;

	cad_buffer_pool_put(t, &t->part_pool, part->buffer, rest_ns);
	c->fetches--;
	if (c->phase == CAD_PHASE_ENDED)
		t->attention = true;
	part->state = CAD_PART_FREE;
	part->next_free = t->parts_free;
	t->parts_free = part;
}

static void busy_part(struct cad_connection *c, const struct cadre_wire_fetch *fetch)
{
	struct cad_notice *message = cad_notice_get(c, CADRE_WIRE_PART);
	if (!message) {
		cad_connection_break(c, "%s: more fetches than this node can even refuse", cad_connection_name(c));
		return;
	}
	message->message.header.status = CADRE_WIRE_BUSY;
	message->message.part.request_id = fetch->request_id;
	cad_notice_send(message, sizeof message->message.part);
}

void cad_fetch_arrived(struct cad_connection *c, const void *header, size_t header_bytes)
{
	struct cad_transport *t = c->transport;
	struct cadre_wire_fetch fetch;
	struct cad_error error;
	enum cad_status status = cad_wire_fetch_check(header, header_bytes, &t->options.limits, &fetch, &error);

	if (status == CAD_OK && (!c->server || !t->options.on_fetch))
		status = cad_error_set(&error, CAD_ERR_PROTOCOL, "a FETCH to a side that gives no experts away");
	if (status == CAD_OK && c->asked >= CADRE_FETCHES_MAX)
		status = cad_error_set(&error, CAD_ERR_PROTOCOL, "more than %u fetches at once", CADRE_FETCHES_MAX);
	if (status != CAD_OK) {
		cad_connection_break(c, "%s: %s", cad_connection_name(c), error.text);
		return;
	}

	struct cad_part *part = t->parts_free;
	struct cad_buffer *buffer = part ? cad_buffer_pool_get(t, &t->part_pool) : NULL;
	if (!buffer) {
		busy_part(c, &fetch);
		return;
	}
	t->parts_free = part->next_free;
	part->state = CAD_PART_QUEUED;
	part->connection = c;
	part->wire = fetch;
	part->buffer = buffer;
	c->fetches++;
	c->asked++;
	cad_transport_event(t, &part->arrived);
}

static void part_deliver(struct cad_transport_event *event)
{
	struct cad_part *part = CAD_CONTAINER_OF(event, struct cad_part, arrived);
	struct cad_transport *t = part->connection->transport;
	if (part->connection->phase != CAD_PHASE_READY) {
		part_free(part, 0);
		return;
	}
	part->state = CAD_PART_HELD;
	t->options.on_fetch(t, part);
}

const struct cadre_wire_fetch *cad_part_asked(const struct cad_part *part) { return &part->wire; }
void *cad_part_bytes(struct cad_part *part) { return part->buffer->bytes; }

/* One that was cut off may still be read by a peer that has not noticed: it must not read
 * another's. */
static void part_sent(struct cad_link_op *op, enum cad_status status)
{
	struct cad_part *part = CAD_CONTAINER_OF(op, struct cad_part, send);
	uint64_t rest_ns = part->connection->transport->options.ping_timeout_ms * CAD_NS_PER_MS;
	part_free(part, status == CAD_OK ? 0 : rest_ns);
}

void cad_part_answer(struct cad_part *part, enum cadre_wire_status wire, uint64_t image_bytes)
{
	struct cad_connection *c = part->connection;
	struct cad_transport *t = c->transport;
	bool given = wire == CADRE_WIRE_OK;
	size_t bytes = given ? part->wire.bytes : 0;

	CAD_ASSERT(part->state == CAD_PART_HELD && (given || image_bytes == 0));
	part->state = CAD_PART_ANSWERING;
	c->asked--; /* now, not when it is sent: the peer may ask again as soon as it sees the part */
	if (c->phase != CAD_PHASE_READY) {
		part_free(part, 0);
		return;
	}

	part->answer = (struct cadre_wire_part){
		.header = { .magic = CADRE_WIRE_MAGIC,
			.version = CADRE_WIRE_VERSION,
			.kind = CADRE_WIRE_PART,
			.status = (uint8_t)wire,
			.session = c->session,
			.payload_bytes = bytes },
		.request_id = part->wire.request_id,
		.image_bytes = image_bytes,
	};
	struct cad_link_message message = {
		.kind = CADRE_WIRE_PART,
		.header = &part->answer,
		.header_bytes = sizeof part->answer,
		.payload = given ? part->buffer->bytes : NULL,
		.payload_bytes = bytes,
		.buffer = given ? part->buffer : NULL,
	};
	t->stats.bytes_sent += sizeof part->answer + bytes;
	enum cad_status status = t->link->ops->send(c->end, &message, &part->send);
	if (status == CAD_AGAIN)
		return;
	part_free(part, 0);
	if (status != CAD_OK)
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: sending a part of an expert failed: %s",
			cad_connection_name(c), cad_status_text(status));
}
