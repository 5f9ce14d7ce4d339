/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The in-process link: transports of one hub reach each other by name, each polled by a thread of
 * its own, or a client and its attached servers by one.
 *
 *   struct channel, shared by the two ends of a connection
 *     lane 0 (client to server), lane 1 (back), each:
 *       transfers[]  what was sent: header copied, payload still in the sender's memory
 *       posted       ring of transfer numbers, sender -> receiver
 *       finished     ring of transfer numbers, receiver -> sender: the payload was copied, or is
 *                    not wanted
 *
 * A payload is copied once, by the receiving thread, straight from the sender's buffer into the
 * receiver's; between a client and an attached server it is not copied at all. Who may touch it is
 * decided by one word of the transfer: POSTED -> TAKEN by the receiver, or POSTED -> REVOKED by a
 * sender that closes. So a forced close never waits for a peer that is stuck, only for one that is
 * copying (or, attached, computing).
 *
 * Rings have one writer and one reader each and as many places as there are transfers: they cannot
 * overflow. The hub's mutex guards names and connects, never a message.
 */
#include "common/transport/local.h"

#include "common/transport/link.h"
#include "common/transport/waker.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 128, ACCEPTS_MAX = 64, ATTACHED_MAX = 8 };

enum transfer_state { TRANSFER_POSTED, TRANSFER_TAKEN, TRANSFER_REVOKED };
struct transfer {
	struct channel *channel;
	uint32_t index;
	uint8_t lane, kind;
	_Atomic int state;
	struct cad_link_op *op;
	bool open; /* sender's own: not finished */
	const uint8_t *payload;
	size_t payload_bytes, header_bytes;
	_Alignas(8) uint8_t header[CAD_LINK_HEADER_BYTES_MAX];
};

struct ring {
	_Atomic uint32_t head, tail; /* written by reader, by writer */
	uint32_t *places;
};

struct lane {
	struct transfer *transfers;
	uint32_t *free; /* sender's own */
	uint32_t free_count;
	struct ring posted, finished;
};

struct channel {
	_Atomic uint32_t references;
	uint32_t places; /* a power of two */
	struct lane lanes[2];
	_Atomic bool closed[2]; /* by that side */
	struct cad_waker *wakers[2];
};

struct cad_link_end {
	struct local_link *link;
	struct channel *channel; /* NULL: unused */
	void *owner;
	uint8_t side; /* sends on lane `side` */
	bool closing, lost_said;
};

struct local_link {
	struct cad_link base;
	struct cad_link_options options;
	struct cad_local_hub *hub;
	struct cad_waker *waker;
	_Atomic bool woken; /* by cad_transport_wake, not by a message */
	struct cad_link_end *ends;
	uint32_t ends_high; /* ends beyond were never used */
	char name[NAME_BYTES];
	struct local_link *next; /* of the hub's listeners */
	_Atomic uint32_t accepts_count;
	struct channel *accepts[ACCEPTS_MAX];                    /* under the hub's mutex */
	struct local_link *attached[ATTACHED_MAX], *attached_to; /* base.attached_count of them */
};

struct cad_local_hub {
	pthread_mutex_t mutex;
	struct local_link *listeners;
};

enum cad_status cad_local_hub_create(struct cad_local_hub **out)
{
	struct cad_local_hub *hub = calloc(1, sizeof *hub);
	if (!hub)
		return CAD_ERR_MEMORY;
	pthread_mutex_init(&hub->mutex, NULL);
	*out = hub;
	return CAD_OK;
}

void cad_local_hub_destroy(struct cad_local_hub *hub)
{
	if (!hub)
		return;
	CAD_ASSERT(!hub->listeners);
	pthread_mutex_destroy(&hub->mutex);
	free(hub);
}

/* ---- rings ---- */

static void ring_put(struct ring *ring, uint32_t places, uint32_t value)
{
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	ring->places[tail & (places - 1)] = value;
	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
}

static bool ring_take(struct ring *ring, uint32_t places, uint32_t *value)
{
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	if (head == atomic_load_explicit(&ring->tail, memory_order_acquire))
		return false;
	*value = ring->places[head & (places - 1)];
	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
	return true;
}

/* ---- channels ---- */

static void channel_release(struct channel *channel)
{
	if (atomic_fetch_sub_explicit(&channel->references, 1, memory_order_acq_rel) != 1)
		return;
	for (int i = 0; i < 2; i++) {
		struct lane *lane = &channel->lanes[i];
		free(lane->transfers);
		free(lane->free);
		free(lane->posted.places);
		free(lane->finished.places);
		cad_waker_release(channel->wakers[i]);
	}
	free(channel);
}

static void channel_acquire(struct channel *channel)
{
	atomic_fetch_add_explicit(&channel->references, 1, memory_order_relaxed);
}

static struct channel *channel_create(uint32_t sends_max, struct cad_waker *client, struct cad_waker *server)
{
	struct channel *channel = calloc(1, sizeof *channel);
	if (!channel)
		return NULL;

	atomic_init(&channel->references, 2);
	channel->places = 1;
	while (channel->places < sends_max)
		channel->places *= 2;
	cad_waker_acquire(channel->wakers[0] = client);
	cad_waker_acquire(channel->wakers[1] = server);

	for (uint8_t i = 0; i < 2; i++) {
		struct lane *lane = &channel->lanes[i];
		lane->transfers = calloc(channel->places, sizeof *lane->transfers);
		lane->free = calloc(channel->places, sizeof *lane->free);
		lane->posted.places = calloc(channel->places, sizeof *lane->posted.places);
		lane->finished.places = calloc(channel->places, sizeof *lane->finished.places);
		if (!lane->transfers || !lane->free || !lane->posted.places || !lane->finished.places) {
			channel_release(channel);
			channel_release(channel);
			return NULL;
		}
		for (uint32_t n = channel->places; n > 0; n--)
			lane->free[lane->free_count++] = n - 1;
	}

	return channel;
}

static void channel_close_side(struct channel *channel, uint8_t side)
{
	atomic_store_explicit(&channel->closed[side], true, memory_order_release);
	cad_waker_signal(channel->wakers[!side]);
}

/* Receiver: done with a transfer; the sender gets its memory back. Nothing of it may be touched
 * afterwards. */
static void transfer_finish(struct transfer *transfer)
{
	struct channel *channel = transfer->channel;
	uint8_t lane = transfer->lane;
	ring_put(&channel->lanes[lane].finished, channel->places, transfer->index);
	cad_waker_signal(channel->wakers[lane]);
}

static bool transfer_take(struct transfer *transfer)
{
	int posted = TRANSFER_POSTED;
	return atomic_compare_exchange_strong_explicit(
		&transfer->state, &posted, TRANSFER_TAKEN, memory_order_acq_rel, memory_order_acquire);
}

/* ---- ends ---- */

static struct cad_link_end *end_open(struct local_link *link, struct channel *channel, uint8_t side, void *owner)
{
	for (uint32_t i = 0; i < link->options.connections_max; i++) {
		struct cad_link_end *end = &link->ends[i];
		if (end->channel)
			continue;
		*end = (struct cad_link_end){ .link = link, .channel = channel, .owner = owner, .side = side };
		if (i >= link->ends_high)
			link->ends_high = i + 1;
		return end;
	}
	return NULL;
}

static enum cad_status local_send(
	struct cad_link_end *end, const struct cad_link_message *message, struct cad_link_op *op)
{
	struct channel *channel = end->channel;
	struct lane *lane = &channel->lanes[end->side];

	CAD_ASSERT(!end->closing && message->header_bytes <= CAD_LINK_HEADER_BYTES_MAX);
	if (lane->free_count == 0)
		return CAD_ERR_EXHAUSTED;
	uint32_t index = lane->free[--lane->free_count];
	struct transfer *transfer = &lane->transfers[index];
	transfer->channel = channel;
	transfer->index = index;
	transfer->lane = end->side;
	transfer->kind = message->kind;
	transfer->op = op;
	transfer->open = true;
	transfer->payload = message->payload;
	transfer->payload_bytes = message->payload_bytes;
	transfer->header_bytes = message->header_bytes;
	memcpy(transfer->header, message->header, message->header_bytes);
	atomic_store_explicit(&transfer->state, TRANSFER_POSTED, memory_order_relaxed);
	ring_put(&lane->posted, channel->places, index);
	cad_waker_signal(channel->wakers[!end->side]);

	return CAD_AGAIN;
}

static enum cad_status local_receive(struct cad_link_end *end, const struct cad_link_payload *payload,
	struct cad_buffer *buffer, struct cad_link_op *op)
{
	(void)end;
	(void)op;
	struct transfer *transfer = payload->handle;
	struct channel *channel = transfer->channel;
	bool taken = payload->data || transfer_take(transfer);
	if (taken) {
		CAD_ASSERT(payload->bytes <= buffer->capacity);
		memcpy(buffer->bytes, transfer->payload, payload->bytes);
		transfer_finish(transfer);
	}

	channel_release(channel);
	return taken ? CAD_OK : CAD_ERR_PEER_LOST;
}

static void local_release(struct cad_link *base, const struct cad_link_payload *payload)
{
	(void)base;
	struct transfer *transfer = payload->handle;
	struct channel *channel = transfer->channel;
	if (payload->data || transfer_take(transfer))
		transfer_finish(transfer);
	channel_release(channel);
}

static void local_close(struct cad_link_end *end)
{
	struct channel *channel = end->channel;
	struct lane *lane = &channel->lanes[end->side];

	CAD_ASSERT(!end->closing);
	end->closing = true;
	for (uint32_t i = 0; i < channel->places; i++) {
		int posted = TRANSFER_POSTED;
		if (lane->transfers[i].open) /* what is not taken yet never will be; its op comes in `progress` */
			atomic_compare_exchange_strong_explicit(&lane->transfers[i].state, &posted, TRANSFER_REVOKED,
				memory_order_acq_rel, memory_order_acquire);
	}

	channel_close_side(channel, end->side);
}

static size_t end_sent(struct cad_link_end *end)
{
	struct lane *lane = &end->channel->lanes[end->side];
	uint32_t index;
	size_t moved = 0;

	while (ring_take(&lane->finished, end->channel->places, &index)) {
		struct transfer *transfer = &lane->transfers[index];
		CAD_ASSERT(transfer->open);
		transfer->open = false;
		lane->free[lane->free_count++] = index;
		transfer->op->done(transfer->op, CAD_OK);
		moved++;
	}

	return moved;
}

static void end_message(struct cad_link_end *end, struct transfer *transfer)
{
	struct local_link *link = end->link;
	struct channel *channel = transfer->channel;
	struct cad_link_payload payload = { .bytes = transfer->payload_bytes };
	bool in_place = link->attached_to && payload.bytes > 0;

	if ((in_place || payload.bytes == 0) && !transfer_take(transfer))
		return; /* the peer closed */

	if (payload.bytes > 0) {
		payload.handle = transfer;
		payload.data = in_place ? transfer->payload : NULL;
		payload.keepable = in_place;
		channel_acquire(channel);
	}

	bool kept = link->options.events->message(
		end->owner, transfer->kind, transfer->header, transfer->header_bytes, &payload);
	if (payload.bytes == 0)
		transfer_finish(transfer);
	else if (!kept)
		local_release(&link->base, &payload);
}

static size_t end_received(struct cad_link_end *end)
{
	struct channel *channel = end->channel;
	struct lane *lane = &channel->lanes[!end->side];
	uint32_t index;
	size_t moved = 0;

	/* read first: what was sent before is still seen */
	bool peer_closed = atomic_load_explicit(&channel->closed[!end->side], memory_order_acquire);

	while (!end->closing && ring_take(&lane->posted, channel->places, &index)) {
		end_message(end, &lane->transfers[index]);
		moved++;
	}

	if (peer_closed && !end->lost_said && !end->closing) {
		end->lost_said = true;
		end->link->options.events->lost(end->owner, CAD_ERR_PEER_LOST, "the peer closed the connection");
		moved++;
	}

	return moved;
}

/* A closed end is gone when nobody reads its memory any longer. */
static size_t end_closing(struct cad_link_end *end)
{
	struct channel *channel = end->channel;
	struct lane *lane = &channel->lanes[end->side];
	size_t moved = 0;

	for (uint32_t i = 0; i < channel->places && lane->free_count < channel->places; i++) {
		struct transfer *transfer = &lane->transfers[i];
		if (!transfer->open || atomic_load_explicit(&transfer->state, memory_order_acquire) != TRANSFER_REVOKED)
			continue;
		transfer->open = false;
		lane->free[lane->free_count++] = i;
		transfer->op->done(transfer->op, CAD_ERR_PEER_LOST);
		moved++;
	}

	if (lane->free_count < channel->places)
		return moved;
	void *owner = end->owner;
	end->channel = NULL;
	channel_release(channel);
	end->link->options.events->closed(owner);

	return moved + 1;
}

/* ---- the link ---- */

static size_t link_accept(struct local_link *link)
{
	if (atomic_load_explicit(&link->accepts_count, memory_order_acquire) == 0)
		return 0;

	struct channel *channels[ACCEPTS_MAX];
	pthread_mutex_lock(&link->hub->mutex);
	uint32_t count = atomic_load_explicit(&link->accepts_count, memory_order_relaxed);
	memcpy(channels, link->accepts, count * sizeof *channels);
	atomic_store_explicit(&link->accepts_count, 0, memory_order_release);
	pthread_mutex_unlock(&link->hub->mutex);

	for (uint32_t i = 0; i < count; i++) {
		struct cad_link_end *end = end_open(link, channels[i], 1, NULL);
		void *owner = end ? link->options.events->accept(link->options.upper, end) : NULL;
		if (owner) {
			end->owner = owner;
			continue;
		}
		if (end)
			end->channel = NULL;
		channel_close_side(channels[i], 1);
		channel_release(channels[i]);
	}

	return count;
}

static size_t local_progress(struct cad_link *base)
{
	struct local_link *link = (struct local_link *)base;
	size_t moved = link_accept(link);

	for (uint32_t i = 0; i < link->ends_high; i++) {
		struct cad_link_end *end = &link->ends[i];
		if (!end->channel)
			continue;
		moved += end_sent(end);
		moved += end_received(end);
		if (end->closing)
			moved += end_closing(end);
	}

	return moved;
}

/* Whether there may be news; and whether somebody asked for poll to return. */
static bool link_signalled(struct local_link *link, bool *woken)
{
	bool signalled = cad_waker_take(link->waker);
	*woken |= atomic_exchange_explicit(&link->woken, false, memory_order_acq_rel);
	for (uint32_t i = 0; i < link->base.attached_count; i++)
		signalled |= link_signalled(link->attached[i], woken);
	return signalled;
}

static bool local_wait(struct cad_link *base, uint64_t until_ns)
{
	struct local_link *link = (struct local_link *)base;
	bool woken = false;
	uint64_t now = cad_clock_now_ns(base->clock);

	if (link_signalled(link, &woken) || woken || until_ns <= now)
		return woken;

	int fds[1 + ATTACHED_MAX] = { link->waker->fd };
	for (uint32_t i = 0; i < link->base.attached_count; i++)
		fds[1 + i] = link->attached[i]->waker->fd;
	cad_waker_sleep(fds, 1 + link->base.attached_count, until_ns - now);
	link_signalled(link, &woken);

	return woken;
}

static void local_wake(struct cad_link *base)
{
	struct local_link *link = (struct local_link *)base;
	atomic_store_explicit(&link->woken, true, memory_order_release);
	cad_waker_signal(link->waker);
}

/* ---- attached servers: one thread for them and their client ---- */

static size_t local_attached_turn(struct cad_link *base, uint64_t waited_ns)
{
	struct local_link *link = (struct local_link *)base;
	size_t handled = 0;
	for (uint32_t i = base->attached_count; i > 0; i--) {
		const struct cad_link_options *server = &link->attached[i - 1]->options;
		handled += server->events->turn(server->upper, waited_ns);
	}
	return handled;
}

static uint64_t local_attached_next_ns(const struct cad_link *base)
{
	const struct local_link *link = (const struct local_link *)base;
	uint64_t next = UINT64_MAX;
	for (uint32_t i = 0; i < base->attached_count; i++) {
		const struct cad_link_options *server = &link->attached[i]->options;
		uint64_t theirs = server->events->next_ns(server->upper);
		next = theirs < next ? theirs : next;
	}
	return next;
}

static void detach(struct local_link *server)
{
	struct local_link *client = server->attached_to;
	uint32_t at = 0;
	while (client->attached[at] != server)
		at++;
	client->attached[at] = client->attached[--client->base.attached_count];
	server->attached_to = NULL;
	server->base.is_attached = false;
}

/* ---- names ---- */

static const char *local_address(const struct cad_link *base) { return ((const struct local_link *)base)->name; }

static struct local_link **listener_find(struct cad_local_hub *hub, const char *name)
{
	struct local_link **at = &hub->listeners;
	while (*at && strcmp((*at)->name, name) != 0)
		at = &(*at)->next;
	return at;
}

static enum cad_status local_listen(struct cad_link *base, const char *address, struct cad_error *error)
{
	struct local_link *link = (struct local_link *)base;
	if (link->name[0])
		return cad_error_set(error, CAD_ERR_INVALID,
			"listening on '%s': this transport listens on '%s' already", address, link->name);
	if (address[0] == 0 || strlen(address) >= NAME_BYTES)
		return cad_error_set(error, CAD_ERR_INVALID, "listening on '%s': a name of 1 to %d bytes is needed",
			address, NAME_BYTES - 1);
	pthread_mutex_lock(&link->hub->mutex);
	bool used = *listener_find(link->hub, address) != NULL;
	if (!used) {
		snprintf(link->name, sizeof link->name, "%s", address);
		link->next = link->hub->listeners;
		link->hub->listeners = link;
	}

	pthread_mutex_unlock(&link->hub->mutex);
	return used ? cad_error_set(error, CAD_ERR_INVALID,
			      "listening on '%s': another transport of this process already does", address)
		    : CAD_OK;
}

static enum cad_status local_connect(
	struct cad_link *base, const char *address, void *owner, struct cad_link_end **out, struct cad_error *error)
{
	struct local_link *link = (struct local_link *)base;
	enum cad_status status = CAD_OK;
	struct channel *channel = NULL;
	struct cad_link_end *end = NULL;

	pthread_mutex_lock(&link->hub->mutex);
	struct local_link *listener = *listener_find(link->hub, address);
	if (!listener) {
		status = cad_error_set(error, CAD_ERR_UNREACHABLE, "nothing listens on '%s'", address);
		goto unlock;
	}

	uint32_t waiting = atomic_load_explicit(&listener->accepts_count, memory_order_relaxed);
	if (waiting == ACCEPTS_MAX) {
		status = cad_error_set(error, CAD_ERR_UNREACHABLE,
			"'%s' has %u connections that it has not accepted yet", address, waiting);
		goto unlock;
	}

	uint32_t sends_max = link->options.sends_max > listener->options.sends_max ? link->options.sends_max
										   : listener->options.sends_max;
	channel = channel_create(sends_max, link->waker, listener->waker);
	end = channel ? end_open(link, channel, 0, owner) : NULL;

	if (!end) {
		status = cad_error_set(error, channel ? CAD_ERR_EXHAUSTED : CAD_ERR_MEMORY, "connecting to '%s': %s",
			address, channel ? "too many connections" : "out of memory");
		goto unlock;
	}

	listener->accepts[waiting] = channel;
	atomic_store_explicit(&listener->accepts_count, waiting + 1, memory_order_release);
	cad_waker_signal(listener->waker);
	*out = end;

unlock:
	pthread_mutex_unlock(&link->hub->mutex);
	if (status != CAD_OK && channel) {
		channel_release(channel);
		channel_release(channel);
	}

	return status;
}

/* ---- creation ---- */

static enum cad_status local_buffer_create(
	struct cad_link *base, size_t bytes, const struct cad_pinned_memory *pinned, struct cad_buffer *buffer)
{
	(void)base;
	return cad_buffer_map(bytes, pinned, buffer);
}

static void local_buffer_destroy(struct cad_link *base, struct cad_buffer *buffer)
{
	(void)base;
	cad_buffer_unmap(buffer);
}

static void local_destroy(struct cad_link *base)
{
	struct local_link *link = (struct local_link *)base;
	while (base->attached_count > 0)
		detach(link->attached[base->attached_count - 1]);
	if (link->attached_to)
		detach(link);
	pthread_mutex_lock(&link->hub->mutex);
	if (link->name[0]) {
		struct local_link **at = listener_find(link->hub, link->name);
		*at = link->next;
	}

	for (uint32_t i = 0; i < atomic_load_explicit(&link->accepts_count, memory_order_relaxed); i++) {
		channel_close_side(link->accepts[i], 1);
		channel_release(link->accepts[i]);
	}

	pthread_mutex_unlock(&link->hub->mutex);
	cad_waker_release(link->waker);
	free(link->ends);
	free(link);
}

static const struct cad_link_ops local_ops = {
	.name = "local",
	.listen = local_listen,
	.address = local_address,
	.connect = local_connect,
	.send = local_send,
	.receive = local_receive,
	.release = local_release,
	.close = local_close,
	.progress = local_progress,
	.wait = local_wait,
	.wake = local_wake,
	.attached_turn = local_attached_turn,
	.attached_next_ns = local_attached_next_ns,
	.buffer_create = local_buffer_create,
	.buffer_destroy = local_buffer_destroy,
	.destroy = local_destroy,
};

enum cad_status cad_link_local_create(
	const struct cad_link_options *options, void *context, struct cad_link **out, struct cad_error *error)
{
	struct local_link *link = calloc(1, sizeof *link);
	if (!link)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a local transport");

	link->base = (struct cad_link){ .ops = &local_ops, .clock = options->clock };
	link->options = *options;
	link->hub = context;
	link->ends = calloc(options->connections_max, sizeof *link->ends);
	enum cad_status status = link->ends ? cad_waker_create(&link->waker) : CAD_ERR_MEMORY;
	if (status != CAD_OK) {
		free(link->ends);
		free(link);
		return cad_error_set(
			error, status, "no memory or no file descriptor for a local transport: see ulimit -n");
	}

	*out = &link->base;
	return CAD_OK;
}

enum cad_status cad_transport_local_create(const struct cad_transport_options *options, struct cad_local_hub *hub,
	struct cad_transport **transport, struct cad_error *error)
{
	return cad_transport_create(options, cad_link_local_create, hub, transport, error);
}

void cad_transport_local_attach(struct cad_transport *client_transport, struct cad_transport *server_transport)
{
	struct cad_link *client_base = cad_transport_link(client_transport),
			*server_base = cad_transport_link(server_transport);
	struct local_link *client = (struct local_link *)client_base, *server = (struct local_link *)server_base;

	CAD_ASSERT(client != server && client_base->ops == &local_ops && server_base->ops == &local_ops);
	CAD_ASSERT(!client->attached_to && !server->attached_to && server_base->attached_count == 0 &&
		client_base->attached_count < ATTACHED_MAX);
	client->attached[client_base->attached_count++] = server;
	client_base->in_place = true;
	server->attached_to = client;
	server_base->is_attached = true;
}
