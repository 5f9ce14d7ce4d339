/* SPDX-License-Identifier: Apache-2.0 */
/* What every part of the protocol needs: the queue of events, pools of buffers, notices, and how a
 * connection fails. */
#include "common/transport/protocol.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- events ---- */

void cad_transport_event(struct cad_transport *t, struct cad_transport_event *event)
{
	if (event->queued)
		return;
	event->queued = true;
	event->next = NULL;
	*t->events_tail = event;
	t->events_tail = &event->next;
}

void cad_transport_events_run(struct cad_transport *t)
{
	struct cad_transport_event *event = t->events;
	t->events = NULL;
	t->events_tail = &t->events;
	while (event) {
		struct cad_transport_event *next = event->next;
		event->queued = false;
		t->handled++;
		event->run(event);
		event = next;
	}
}

/* ---- buffers ---- */

void cad_buffer_pool_destroy(struct cad_transport *t, struct cad_buffer_pool *pool)
{
	for (uint32_t i = 0; i < pool->count; i++)
		t->link->ops->buffer_destroy(t->link, &pool->buffers[i]);
	free(pool->buffers);
	free(pool->free);
	free(pool->rests_until_ns);
}

enum cad_status cad_buffer_pool_create(
	struct cad_transport *t, uint32_t count, size_t bytes, uint32_t pinned, struct cad_buffer_pool *pool)
{
	const struct cad_link_ops *ops = t->link->ops;

	pool->buffers = calloc(count ? count : 1, sizeof *pool->buffers);
	pool->free = calloc(count ? count : 1, sizeof *pool->free);
	pool->rests_until_ns = calloc(count ? count : 1, sizeof *pool->rests_until_ns);
	if (!pool->buffers || !pool->free || !pool->rests_until_ns)
		return CAD_ERR_MEMORY;
	for (; pool->count < count; pool->count++) {
		struct cad_buffer *buffer = &pool->buffers[pool->count];
		if (pool->count < pinned && ops->buffer_create(t->link, bytes, &t->options.pinned, buffer) == CAD_OK)
			continue;
		enum cad_status status = ops->buffer_create(t->link, bytes, NULL, buffer);
		if (status != CAD_OK)
			return status;
	}

	for (uint32_t i = count; i > 0; i--) /* a stack, so that few buffers are touched when few are needed */
		pool->free[pool->free_count++] = i - 1;
	return CAD_OK;
}

struct cad_buffer *cad_buffer_pool_get(struct cad_transport *t, struct cad_buffer_pool *pool)
{
	if (pool->free_count == 0 && pool->resting > 0) {
		uint64_t now = cad_transport_now_ns(t);
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

void cad_buffer_pool_put(
	struct cad_transport *t, struct cad_buffer_pool *pool, struct cad_buffer *buffer, uint64_t rest_ns)
{
	uint32_t index = (uint32_t)(buffer - pool->buffers);
	if (rest_ns > 0) {
		pool->rests_until_ns[index] = cad_transport_now_ns(t) + rest_ns;
		pool->resting++;
		return;
	}
	CAD_ASSERT(pool->free_count < pool->count);
	pool->free[pool->free_count++] = index;
}

/* ---- notices ---- */

static void notice_put(struct cad_notice *notice)
{
	struct cad_transport *t = notice->connection->transport;
	notice->connection->notices--;
	notice->next = t->notices_free;
	t->notices_free = notice;
}

static void notice_sent(struct cad_link_op *op, enum cad_status status)
{
	(void)status; /* the link also says `lost` */
	notice_put(CAD_CONTAINER_OF(op, struct cad_notice, op));
}

struct cad_notice *cad_notice_get(struct cad_connection *c, uint8_t kind)
{
	struct cad_transport *t = c->transport;
	struct cad_notice *notice = t->notices_free;

	if (!notice)
		return NULL;

	t->notices_free = notice->next;
	memset(&notice->message, 0, sizeof notice->message);
	notice->connection = c;
	notice->op.done = notice_sent;
	notice->message.header = (struct cadre_wire_header){
		.magic = CADRE_WIRE_MAGIC,
		.version = CADRE_WIRE_VERSION,
		.kind = kind,
		.session = c->session,
	};
	c->notices++;

	return notice;
}

void cad_notice_send(struct cad_notice *notice, size_t bytes)
{
	struct cad_connection *c = notice->connection;
	struct cad_link_message message = {
		.kind = notice->message.header.kind,
		.header = &notice->message,
		.header_bytes = bytes,
	};
	enum cad_status status =
		c->end ? c->transport->link->ops->send(c->end, &message, &notice->op) : CAD_ERR_PEER_LOST;

	c->transport->stats.bytes_sent += bytes;
	if (status == CAD_AGAIN)
		return;
	notice_put(notice);
	if (status != CAD_OK)
		cad_connection_fail(c, CAD_ERR_PEER_LOST, "%s: sending failed: %s", cad_connection_name(c),
			cad_status_text(status));
}

/* ---- how a connection fails ---- */

const char *cad_connection_name(const struct cad_connection *c)
{
	return c->peer.node[0] ? c->peer.node : c->server ? "a client" : "the server";
}

static void connection_fail_text(struct cad_connection *c, enum cad_status status, const char *text)
{
	struct cad_transport *t = c->transport;
	if (c->phase == CAD_PHASE_FREE || c->phase >= CAD_PHASE_FAILED)
		return;

	if (c->phase == CAD_PHASE_READY)
		t->stats.connections_lost++;
	if (c->phase != CAD_PHASE_REFUSING) { /* that one has its reason already */
		c->status = status;
		snprintf(c->text, sizeof c->text, "%s", text);
	}

	c->phase = CAD_PHASE_FAILED;
	t->attention = true;
}

void cad_connection_fail(struct cad_connection *c, enum cad_status status, const char *format, ...)
{
	char text[CAD_CONNECTION_TEXT_BYTES];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	connection_fail_text(c, status, text);
}

void cad_connection_break(struct cad_connection *c, const char *format, ...)
{
	char text[CAD_CONNECTION_TEXT_BYTES];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (c->phase < CAD_PHASE_FAILED)
		c->transport->stats.protocol_errors++;
	connection_fail_text(c, CAD_ERR_PROTOCOL, text);
}
