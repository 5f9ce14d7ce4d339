/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator: transports in one thread, on a clock that jumps from event to event. All that
 * happens is decided by the seed: delays, losses, duplicates, what overtakes what, whether a
 * payload comes with its message or stays at the sender, when a send or a receive is done.
 *
 * It is stricter than real networks where that finds mistakes: payloads that stay at the sender are
 * read as late as they may be, and receives write as late as they may, so that a buffer which is
 * used too early gives wrong bytes or a report of the address sanitizer.
 *
 * Events are a heap by (time, order of creation). Every event is for one link, whose transport gets
 * a turn afterwards, unless it is the one that is being polled and will take its turn itself. A
 * simulator allocates as it goes; it is for tests.
 */
#include "tests/support/sim.h"

#include "tests/support/sim_heap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 128, CUTS_MAX = 256 };

enum end_state { END_CONNECTING, END_OPEN, END_CLOSING, END_CLOSED };
struct cad_link_end {
	uint32_t references;
	struct sim_link *link;     /* NULL: its transport is gone */
	struct cad_link_end *peer; /* counted, until closed */
	void *owner;
	enum end_state state;
	bool lost_said;
	uint64_t last_arrival_ns;                      /* of what this end sent in order */
	struct sim_message *sends, *receives;          /* operations that are not done */
	struct cad_link_end *next;                     /* of the link */
	struct cad_link_end *all_next, **all_previous; /* of the simulator: every end that anybody still knows */
};

struct sim_message {
	uint32_t references;
	struct cad_link_end *from, *to; /* counted */
	uint8_t kind;
	uint8_t header[CAD_LINK_HEADER_BYTES_MAX];
	size_t header_bytes, payload_bytes;
	uint8_t *copy;                            /* the payload, when it travels with the message */
	const uint8_t *at_sender;                 /* else; NULL once the sender has it back */
	struct cad_link_op *send_op, *receive_op; /* NULL: none, or done */
	struct cad_buffer *receive_buffer;
	struct sim_message *next_send, *next_receive;
};

struct sim_link {
	struct cad_link base;
	struct cad_link_options options;
	struct cad_sim *sim;
	char name[NAME_BYTES];
	struct cad_link_end *ends;
	uint32_t ends_count;
	bool crashed, woken, active; /* active: something happened to it while it was polled */
	uint64_t stalled_until_ns, stalled_ns, turn_ns, timer_ns;
	struct sim_link *next;
};

struct cad_sim {
	struct cad_sim_options options;
	struct cad_clock clock;
	uint64_t now_ns, order;
	struct cad_random random;
	struct sim_heap heap;
	struct sim_link *links;
	struct cad_link_end *all;
	struct {
		struct sim_link *from, *to;
	} cuts[CUTS_MAX];
	size_t cuts_count;
	uint32_t running;
};

static uint64_t sim_now(void *context) { return ((struct cad_sim *)context)->now_ns; }

static bool chance(struct cad_sim *sim, double probability) { return cad_random_unit(&sim->random) < probability; }
static uint64_t delay(struct cad_sim *sim)
{
	return sim->options.delay_min_ns +
		cad_random_below(&sim->random, sim->options.delay_max_ns - sim->options.delay_min_ns + 1);
}

/* ---- counted things ---- */

static void end_release(struct cad_link_end *end)
{
	if (!end || --end->references > 0)
		return;
	*end->all_previous = end->all_next;
	if (end->all_next)
		end->all_next->all_previous = end->all_previous;
	struct cad_link_end *peer = end->peer;
	free(end);
	end_release(peer);
}

static struct cad_link_end *end_acquire(struct cad_link_end *end)
{
	if (end)
		end->references++;
	return end;
}

/* noinline: gcc 12 otherwise takes the loops that empty a list of messages for a use after free. */
static __attribute__((noinline)) void message_release(struct sim_message *message)
{
	if (!message || --message->references > 0)
		return;
	end_release(message->from);
	end_release(message->to);
	free(message->copy);
	free(message);
}

/* ---- events ---- */

static void happen(struct cad_sim *sim, uint64_t at_ns, enum happening what, struct sim_link *link,
	struct cad_link_end *end, struct sim_message *message)
{
	if (!link)
		return; /* its transport is gone */

	if (message)
		message->references++;
	struct happens happens = {
		.at_ns = at_ns,
		.order = sim->order++,
		.what = what,
		.link = link,
		.end = end_acquire(end),
		.message = message,
	};
	CAD_ASSERT(sim_heap_put(&sim->heap, happens) == CAD_OK);
}

/* ---- the network ---- */

static bool is_cut(const struct cad_sim *sim, const struct sim_link *from, const struct sim_link *to)
{
	for (size_t i = 0; i < sim->cuts_count; i++)
		if (sim->cuts[i].from == from && sim->cuts[i].to == to)
			return true;
	return false;
}

/* Whether something from one end to its peer gets through at this moment. */
static bool path_open(const struct cad_link_end *from, const struct cad_link_end *to)
{
	return from->link && to->link && !from->link->crashed && !is_cut(from->link->sim, from->link, to->link);
}

static void sends_remove(struct sim_message *message)
{
	struct sim_message **at = &message->from->sends;
	while (*at != message)
		at = &(*at)->next_send;
	*at = message->next_send;
}

static void receives_remove(struct sim_message *message)
{
	struct sim_message **at = &message->to->receives;
	while (*at != message)
		at = &(*at)->next_receive;
	*at = message->next_receive;
}

/* The sender has its memory back. */
static void send_done(struct sim_message *message, enum cad_status status)
{
	struct cad_link_op *op = message->send_op;
	if (!op)
		return;
	sends_remove(message);
	message->send_op = NULL;
	message->at_sender = NULL;
	op->done(op, status);
	message_release(message);
}

static void receive_done(struct sim_message *message, enum cad_status status)
{
	struct cad_link_op *op = message->receive_op;
	if (!op)
		return;
	receives_remove(message);
	message->receive_op = NULL;
	op->done(op, status);
	message_release(message);
}

/* The receiver does not need the sender's memory any more: tell it so,
 * unless the way back is cut. */
static void sender_told(struct sim_message *message)
{
	struct cad_sim *sim = message->from->link ? message->from->link->sim : NULL;
	if (sim && message->send_op && path_open(message->to, message->from))
		happen(sim, sim->now_ns + delay(sim), HAPPENS_SENT, message->from->link, message->from, message);
}

static struct sim_message *message_create(struct cad_link_end *end, const struct cad_link_message *what, bool travels)
{
	struct sim_message *message = calloc(1, sizeof *message);
	CAD_ASSERT(message && what->header_bytes <= sizeof message->header);
	message->references = 1;
	message->from = end_acquire(end);
	message->to = end_acquire(end->peer);
	message->kind = what->kind;
	memcpy(message->header, what->header, what->header_bytes);
	message->header_bytes = what->header_bytes;
	message->payload_bytes = what->payload_bytes;

	if (!travels) {
		message->at_sender = what->payload;
	} else if (what->payload_bytes > 0) {
		message->copy = malloc(what->payload_bytes);
		CAD_ASSERT(message->copy);
		memcpy(message->copy, what->payload, what->payload_bytes);
	}

	return message;
}

static enum cad_status sim_send(struct cad_link_end *end, const struct cad_link_message *what, struct cad_link_op *op)
{
	struct cad_sim *sim = end->link->sim;
	CAD_ASSERT(end->state < END_CLOSING);
	bool travels = what->payload_bytes == 0 || chance(sim, 0.5), lost = chance(sim, sim->options.loss),
	     done_now = travels && chance(sim, 0.5);
	struct sim_message *message = message_create(end, what, travels);
	if (!done_now) {
		message->references++;
		message->send_op = op;
		message->next_send = end->sends;
		end->sends = message;
		if (travels)
			happen(sim, sim->now_ns + delay(sim), HAPPENS_SENT, end->link, end, message);
	}

	uint64_t at_ns = sim->now_ns + delay(sim);
	if (chance(sim, sim->options.reorder))
		at_ns = sim->now_ns + sim->options.delay_min_ns;
	else
		at_ns = end->last_arrival_ns = at_ns > end->last_arrival_ns ? at_ns : end->last_arrival_ns;
	if (!lost && path_open(end, end->peer)) {
		happen(sim, at_ns, HAPPENS_MESSAGE, end->peer->link, end->peer, message);
		if (travels && chance(sim, sim->options.duplicate)) {
			struct sim_message *twin = message_create(end, what, true);
			happen(sim, sim->now_ns + delay(sim), HAPPENS_MESSAGE, end->peer->link, end->peer, twin);
			message_release(twin);
		}
	}

	message_release(message);
	return done_now ? CAD_OK : CAD_AGAIN;
}

static enum cad_status sim_receive(struct cad_link_end *end, const struct cad_link_payload *payload,
	struct cad_buffer *buffer, struct cad_link_op *op)
{
	struct cad_sim *sim = end->link->sim;
	struct sim_message *message = payload->handle;

	CAD_ASSERT(payload->bytes <= buffer->capacity && !message->receive_op);

	if (message->copy && chance(sim, 0.5)) {
		memcpy(buffer->bytes, message->copy, payload->bytes);
		message_release(message);
		return CAD_OK;
	}

	message->receive_op = op; /* has the reference that the upper had */
	message->receive_buffer = buffer;
	message->next_receive = end->receives;
	end->receives = message;
	if (message->copy || path_open(message->from, end))
		happen(sim, sim->now_ns + delay(sim), HAPPENS_RECEIVED, end->link, end, message);

	return CAD_AGAIN;
}

static void sim_release(struct cad_link *base, const struct cad_link_payload *payload)
{
	(void)base;
	struct sim_message *message = payload->handle;
	sender_told(message);
	message_release(message);
}

static void sim_close(struct cad_link_end *end)
{
	struct cad_sim *sim = end->link->sim;
	CAD_ASSERT(end->state < END_CLOSING);
	end->state = END_CLOSING;
	for (struct sim_message *m = end->sends; m; m = m->next_send)
		m->at_sender = NULL; /* not to be read any more */
	happen(sim, sim->now_ns + delay(sim), HAPPENS_CLOSED, end->link, end, NULL);
	if (path_open(end, end->peer) && !chance(sim, sim->options.loss))
		happen(sim, sim->now_ns + delay(sim), HAPPENS_LOST, end->peer->link, end->peer, NULL);
}

/* ---- what happens ---- */

static void happens_accept(struct sim_link *link, struct cad_link_end *end)
{
	if (end->state != END_CONNECTING)
		return;

	void *owner = link->ends_count < link->options.connections_max
		? link->options.events->accept(link->options.upper, end)
		: NULL;
	if (owner) {
		end->owner = owner;
		end->state = END_OPEN;
		end->next = link->ends;
		link->ends = end_acquire(end);
		link->ends_count++;
		return;
	}

	end->state = END_CLOSED;
	happen(link->sim, link->sim->now_ns + delay(link->sim), HAPPENS_LOST, end->peer->link, end->peer, NULL);
}

static void happens_message(struct sim_link *link, struct cad_link_end *end, struct sim_message *message)
{
	struct cad_sim *sim = link->sim;
	if (end->state == END_CONNECTING && path_open(message->from, end) && message->from->state == END_OPEN) {
		/* it overtook the connection */
		happen(sim, sim->now_ns + 1 + sim->options.delay_min_ns, HAPPENS_MESSAGE, link, end, message);
		return;
	}

	if (end->state != END_OPEN || (message->payload_bytes > 0 && !message->copy && !message->at_sender))
		return;
	struct cad_link_payload payload = {
		.bytes = message->payload_bytes,
		.data = message->copy,
		.keepable = message->copy && chance(sim, 0.5),
	};
	payload.handle = message->payload_bytes ? message : NULL;
	message->references++;
	bool kept = link->options.events->message(
		end->owner, message->kind, message->header, message->header_bytes, &payload);
	if (kept)
		return; /* the reference is the upper's, or `receive` had it */
	if (!message->copy && message->payload_bytes > 0)
		sender_told(message);
	message_release(message);
}

static void happens_received(struct sim_message *message)
{
	if (!message->receive_op)
		return;
	const uint8_t *bytes = message->copy ? message->copy : message->at_sender;
	if (bytes)
		memcpy(message->receive_buffer->bytes, bytes, message->payload_bytes);
	if (!message->copy)
		sender_told(message);
	receive_done(message, bytes ? CAD_OK : CAD_ERR_PEER_LOST);
}

static void happens_closed(struct sim_link *link, struct cad_link_end *end)
{
	while (end->sends)
		send_done(end->sends, CAD_ERR_PEER_LOST);
	while (end->receives)
		receive_done(end->receives, CAD_ERR_PEER_LOST);
	struct cad_link_end **at = &link->ends;
	while (*at != end)
		at = &(*at)->next;
	*at = end->next;
	link->ends_count--;
	end->state = END_CLOSED;
	void *owner = end->owner;
	end->link = NULL;
	end_release(end->peer);
	end->peer = NULL;
	link->options.events->closed(owner);
	end_release(end);
}

static void happens_lost(struct sim_link *link, struct cad_link_end *end)
{
	if (end->state != END_OPEN || end->lost_said)
		return;
	end->lost_said = true;
	link->options.events->lost(end->owner, CAD_ERR_PEER_LOST, "the peer closed the connection");
}

static void turn(struct sim_link *link)
{
	struct cad_sim *sim = link->sim;
	uint64_t gap = sim->now_ns - link->turn_ns;

	link->options.events->turn(link->options.upper, gap > link->stalled_ns ? gap - link->stalled_ns : 0);
	link->turn_ns = sim->now_ns;
	link->stalled_ns = 0;
	uint64_t next = link->options.events->next_ns(link->options.upper);
	if (next == UINT64_MAX)
		return;
	next = next > sim->now_ns ? next : sim->now_ns;
	if (link->timer_ns <= next && link->timer_ns >= sim->now_ns)
		return; /* it has one that is early enough */
	link->timer_ns = next;
	happen(sim, next, HAPPENS_TIMER, link, NULL, NULL);
}

static void turn_all(struct cad_sim *sim, const struct sim_link *polled)
{
	for (struct sim_link *link = sim->links; link; link = link->next)
		if (link != polled && !link->crashed && sim->now_ns >= link->stalled_until_ns)
			turn(link);
}

/* False: it is put off, or it falls on a dead link. */
static bool happens_reach(struct cad_sim *sim, struct happens *happens)
{
	struct sim_link *link = happens->link;

	/* has nothing to do with the network: also a crashed one takes itself down */
	if (happens->what == HAPPENS_CLOSED)
		return true;
	if (link->crashed)
		return false;

	if (link->stalled_until_ns > sim->now_ns) {
		happens->at_ns = link->stalled_until_ns;
		end_acquire(happens->end);
		if (happens->message)
			happens->message->references++;
		CAD_ASSERT(sim_heap_put(&sim->heap, *happens) == CAD_OK); /* with its old place in the order */
		return false;
	}

	return true;
}

static void run_one(struct cad_sim *sim, struct sim_link *polled)
{
	struct happens happens = sim_heap_take(&sim->heap);
	struct sim_link *link = happens.link;

	sim->now_ns = happens.at_ns > sim->now_ns ? happens.at_ns : sim->now_ns;

	if (happens.what == HAPPENS_CALL) {
		happens.fn(happens.context);
		turn_all(sim, polled);
		return;
	}

	bool stale = happens.end && (!happens.end->link || happens.end->link != link); /* closed meanwhile */
	if (!stale && happens_reach(sim, &happens)) {
		switch (happens.what) {
		case HAPPENS_ACCEPT: happens_accept(link, happens.end); break;
		case HAPPENS_MESSAGE: happens_message(link, happens.end, happens.message); break;
		case HAPPENS_SENT: send_done(happens.message, CAD_OK); break;
		case HAPPENS_RECEIVED: happens_received(happens.message); break;
		case HAPPENS_LOST: happens_lost(link, happens.end); break;
		case HAPPENS_CLOSED: happens_closed(link, happens.end); break;
		default: link->timer_ns = 0; break; /* TIMER: the turn is all */
		}
		if (link == polled)
			link->active = true;
		else if (!link->crashed)
			turn(link);
	}

	end_release(happens.end);
	message_release(happens.message);
}

/* Up to a time, or until something happens to `polled`. */
static void run_until(struct cad_sim *sim, uint64_t until_ns, struct sim_link *polled)
{
	sim->running++;
	if (polled)
		polled->active = false;
	turn_all(sim, polled);
	while (sim->heap.count > 0 && sim->heap.items[0].at_ns <= until_ns && !(polled && polled->active))
		run_one(sim, polled);
	if (!(polled && polled->active) && until_ns != UINT64_MAX && until_ns > sim->now_ns)
		sim->now_ns = until_ns;
	sim->running--;
}

/* ---- the link ---- */

static size_t sim_progress(struct cad_link *base)
{
	struct sim_link *link = (struct sim_link *)base;
	if (link->sim->running > 0 || link->crashed)
		return 0;
	run_until(link->sim, link->sim->now_ns, link);
	return link->active;
}

static bool sim_wait(struct cad_link *base, uint64_t until_ns)
{
	struct sim_link *link = (struct sim_link *)base;
	if (!link->woken)
		run_until(link->sim, until_ns, link);
	bool woken = link->woken;
	link->woken = false;
	return woken;
}

static void sim_wake(struct cad_link *base) { ((struct sim_link *)base)->woken = true; }

static struct sim_link *listener_find(const struct cad_sim *sim, const char *name)
{
	for (struct sim_link *link = sim->links; link; link = link->next)
		if (link->name[0] && strcmp(link->name, name) == 0)
			return link;
	return NULL;
}

static enum cad_status sim_listen(struct cad_link *base, const char *address, struct cad_error *error)
{
	struct sim_link *link = (struct sim_link *)base;
	if (address[0] == 0 || strlen(address) >= NAME_BYTES || link->name[0] || listener_find(link->sim, address))
		return cad_error_set(error, CAD_ERR_INVALID,
			"listening on '%s': a name that nobody has is needed, 1 to %d bytes", address, NAME_BYTES - 1);
	snprintf(link->name, sizeof link->name, "%s", address);
	return CAD_OK;
}

static const char *sim_address(const struct cad_link *base) { return ((const struct sim_link *)base)->name; }

static struct cad_link_end *end_create(struct sim_link *link, void *owner, enum end_state state)
{
	struct cad_link_end *end = calloc(1, sizeof *end);
	CAD_ASSERT(end);
	struct cad_sim *sim = link->sim;
	*end = (struct cad_link_end){
		.references = 1,
		.link = link,
		.owner = owner,
		.state = state,
		.all_next = sim->all,
		.all_previous = &sim->all,
	};
	if (sim->all)
		sim->all->all_previous = &end->all_next;
	sim->all = end;

	return end;
}

static enum cad_status sim_connect(
	struct cad_link *base, const char *address, void *owner, struct cad_link_end **out, struct cad_error *error)
{
	struct sim_link *link = (struct sim_link *)base;
	struct cad_sim *sim = link->sim;
	struct sim_link *listener = listener_find(sim, address);

	if (!listener)
		return cad_error_set(error, CAD_ERR_UNREACHABLE, "nothing listens on '%s'", address);

	struct cad_link_end *end = end_create(link, owner, END_OPEN),
			    *peer = end_create(listener, NULL, END_CONNECTING);
	end->peer = peer; /* has the reference that end_create gave */
	peer->peer = end_acquire(end);
	end->next = link->ends;
	link->ends = end;
	link->ends_count++;
	if (path_open(end, peer) && !chance(sim, sim->options.loss))
		happen(sim, sim->now_ns + delay(sim), HAPPENS_ACCEPT, listener, peer, NULL);
	*out = end;

	return CAD_OK;
}

static enum cad_status sim_buffer_create(
	struct cad_link *base, size_t bytes, const struct cad_pinned_memory *pinned, struct cad_buffer *buffer)
{
	(void)base;
	if (pinned)
		return cad_buffer_map(bytes, pinned, buffer);
	void *memory;
	if (posix_memalign(&memory, 64, bytes) != 0)
		return CAD_ERR_MEMORY;
	*buffer = (struct cad_buffer){ .bytes = memory, .capacity = bytes };
	return CAD_OK;
}

static void sim_buffer_destroy(struct cad_link *base, struct cad_buffer *buffer)
{
	(void)base;
	if (buffer->pinned) {
		cad_buffer_unmap(buffer);
		return;
	}
	free(buffer->bytes);
	*buffer = (struct cad_buffer){ .bytes = NULL };
}

/* Events of a link that is gone must not find it. */
static void happens_forget(struct cad_sim *sim, const struct sim_link *link)
{
	struct sim_heap old = sim->heap;

	sim->heap = (struct sim_heap){ 0 };
	for (size_t i = 0; i < old.count; i++) {
		struct happens *happens = &old.items[i];
		if (happens->what == HAPPENS_CALL || happens->link != link) {
			CAD_ASSERT(sim_heap_put(&sim->heap, *happens) == CAD_OK);
			continue;
		}
		end_release(happens->end);
		message_release(happens->message);
	}

	free(old.items);
}

static void sim_link_destroy(struct cad_link *base)
{
	struct sim_link *link = (struct sim_link *)base, **at = &link->sim->links;
	CAD_ASSERT(!link->ends);
	while (*at != link)
		at = &(*at)->next;
	*at = link->next;
	happens_forget(link->sim, link);

	for (struct cad_link_end *end = link->sim->all; end; end = end->all_next) {
		if (end->link != link)
			continue;
		end->link = NULL; /* turned away, or not taken up yet: nobody else takes it down */
		if (end->state == END_CONNECTING && end->peer)
			happen(link->sim, link->sim->now_ns + delay(link->sim), HAPPENS_LOST, end->peer->link,
				end->peer, NULL);
	}

	size_t kept = 0;
	for (size_t i = 0; i < link->sim->cuts_count; i++)
		if (link->sim->cuts[i].from != link && link->sim->cuts[i].to != link)
			link->sim->cuts[kept++] = link->sim->cuts[i];
	link->sim->cuts_count = kept;
	free(link);
}

static const struct cad_link_ops sim_ops = {
	.name = "sim",
	.listen = sim_listen,
	.address = sim_address,
	.connect = sim_connect,
	.send = sim_send,
	.receive = sim_receive,
	.release = sim_release,
	.close = sim_close,
	.progress = sim_progress,
	.wait = sim_wait,
	.wake = sim_wake,
	.buffer_create = sim_buffer_create,
	.buffer_destroy = sim_buffer_destroy,
	.destroy = sim_link_destroy,
};

enum cad_status cad_link_sim_create(
	const struct cad_link_options *options, void *context, struct cad_link **out, struct cad_error *error)
{
	struct sim_link *link = calloc(1, sizeof *link);
	if (!link)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a simulated transport");

	link->sim = context;
	link->base = (struct cad_link){ .ops = &sim_ops, .clock = &link->sim->clock };
	link->options = *options;
	link->turn_ns = link->sim->now_ns;
	link->next = link->sim->links;
	link->sim->links = link;
	*out = &link->base;

	return CAD_OK;
}

enum cad_status cad_transport_sim_create(const struct cad_transport_options *options, struct cad_sim *sim,
	struct cad_transport **transport, struct cad_error *error)
{
	return cad_transport_create(options, cad_link_sim_create, sim, transport, error);
}

/* ---- the world ---- */

enum cad_status cad_sim_create(const struct cad_sim_options *options, struct cad_sim **out)
{
	CAD_ASSERT(options->delay_max_ns >= options->delay_min_ns);
	struct cad_sim *sim = calloc(1, sizeof *sim);
	if (!sim)
		return CAD_ERR_MEMORY;
	sim->options = *options;
	sim->random.state = options->seed;
	sim->now_ns = CAD_NS_PER_S; /* 0 means "none" in many places */
	sim->clock = (struct cad_clock){ .now_ns = sim_now, .context = sim };
	*out = sim;
	return CAD_OK;
}

void cad_sim_destroy(struct cad_sim *sim)
{
	if (!sim)
		return;
	CAD_ASSERT(!sim->links);
	for (size_t i = 0; i < sim->heap.count; i++) {
		end_release(sim->heap.items[i].end);
		message_release(sim->heap.items[i].message);
	}
	free(sim->heap.items);
	free(sim);
}

void cad_sim_change(struct cad_sim *sim, const struct cad_sim_options *options)
{
	CAD_ASSERT(options->delay_max_ns >= options->delay_min_ns);
	sim->options = *options;
}

const struct cad_clock *cad_sim_clock(struct cad_sim *sim) { return &sim->clock; }
void cad_sim_run(struct cad_sim *sim, uint64_t duration_ns) { run_until(sim, sim->now_ns + duration_ns, NULL); }

enum cad_status cad_sim_at(struct cad_sim *sim, uint64_t at_ns, void (*fn)(void *context), void *context)
{
	return sim_heap_put(&sim->heap,
		(struct happens){
			.at_ns = at_ns,
			.order = sim->order++,
			.what = HAPPENS_CALL,
			.fn = fn,
			.context = context,
		});
}

static struct sim_link *link_of(struct cad_transport *transport)
{
	struct cad_link *base = cad_transport_link(transport);
	CAD_ASSERT(base->ops == &sim_ops);
	return (struct sim_link *)base;
}

void cad_sim_crash(struct cad_sim *sim, struct cad_transport *transport)
{
	(void)sim;
	link_of(transport)->crashed = true;
}

void cad_sim_stall(struct cad_sim *sim, struct cad_transport *transport, uint64_t duration_ns)
{
	struct sim_link *link = link_of(transport);
	uint64_t from = link->stalled_until_ns > sim->now_ns ? link->stalled_until_ns : sim->now_ns,
		 until = sim->now_ns + duration_ns;
	if (until <= from)
		return;
	link->stalled_until_ns = until;
	link->stalled_ns += until - from;
}

void cad_sim_cut(struct cad_sim *sim, struct cad_transport *from, struct cad_transport *to, bool cut)
{
	struct sim_link *a = link_of(from), *b = link_of(to);
	for (size_t i = 0; i < sim->cuts_count; i++) {
		if (sim->cuts[i].from != a || sim->cuts[i].to != b)
			continue;
		if (!cut)
			sim->cuts[i] = sim->cuts[--sim->cuts_count];
		return;
	}

	if (!cut)
		return;
	CAD_ASSERT(sim->cuts_count < CUTS_MAX);
	sim->cuts[sim->cuts_count].from = a;
	sim->cuts[sim->cuts_count++].to = b;
}
