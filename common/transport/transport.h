/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The token exchange: connections between routers and expert nodes, and among expert nodes; calls
 * with deadlines, credits, heartbeats. One interface over several links (ucx.h, local.h; a
 * simulator among the tests); nothing here depends on which one.
 *
 * The protocol (hello, credits, calls, answers, heartbeats, deadlines, generations) is written
 * once (protocol.h lists its files), over a narrow interface (link.h) that each link implements.
 *
 * Threads. A transport belongs to the thread that polls it; only cad_transport_wake may be called
 * from elsewhere. Callbacks run inside cad_transport_poll, never from inside another function of
 * this interface, and may call anything here but poll and destroy.
 *
 * Memory. Everything is allocated at creation, sized by the options. A call's payload and answer
 * buffers belong to the transport from cad_call_start until its callback, which is called exactly
 * once, whatever happens, and only when nothing can touch either buffer any longer.
 *
 * Failure. A connection that fails (peer gone, heartbeat missed, protocol broken, closed) fails all
 * its calls at once, with CAD_ERR_PEER_LOST or the actual reason; the caller sends them elsewhere.
 * A deadline fails one call (CAD_ERR_DEADLINE). Nothing is retried here.
 */
#ifndef CADRE_COMMON_TRANSPORT_TRANSPORT_H
#define CADRE_COMMON_TRANSPORT_TRANSPORT_H

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/transport/buffer.h"
#include "common/transport/wire.h"

#include <stdbool.h>

struct cad_transport;
struct cad_connection;
struct cad_call;
struct cad_request;
struct cad_part;
struct cad_link;
struct cad_link_options;

enum cad_connection_state { CAD_CONNECTION_CONNECTING, CAD_CONNECTION_READY, CAD_CONNECTION_CLOSED };

struct cad_transport_options {
	struct cadre_wire_identity identity; /* of this process; compared in the hello */
	const char *secret;                  /* cluster secret, at least 16 bytes, or NULL: no HMAC */
	struct cad_wire_limits limits;       /* of calls that are accepted and answers that are expected */
	/* NULL: the system's; a link may bring its own */
	const struct cad_clock *clock;
	uint32_t connections_max, calls_max; /* calls_max: outgoing calls in flight, and requests held, each */
	uint32_t credit_calls;               /* granted to each client */
	uint64_t credit_bytes;
	/* of limits.payload_bytes_max each: calls being received at once, answers being sent; 0: as
	 * many as calls_max, costs memory only as used */
	uint32_t request_buffers, answer_buffers;
	/* Who receives for a device: so many of the request buffers are pinned by it, and come
	 * first; a call that does not arrive in place, which is a large one, is then where the
	 * device copies from. */
	struct cad_pinned_memory pinned;
	uint32_t pinned_buffers;
	/* FETCHes in flight, and parts being given, each; 0: this process does neither */
	uint32_t fetches_max;
	/* Time during which nobody polled here does not count as silence. The side that connected
	 * pings and gives up after ping_interval + ping_timeout; the other side only listens, for
	 * peer_timeout, because a router computes between its polls. An answer that is still owed
	 * this long after its call was given up also ends the connection. */
	uint32_t handshake_timeout_ms, ping_interval_ms, ping_timeout_ms, peer_timeout_ms;
	void *user;
	/* A connection became READY or CLOSED (status says why, text in words). After CLOSED the
	 * pointer is dead; all its calls are done by then. For an incoming connection that is
	 * refused, or breaks the protocol before it is READY, only CLOSED is reported. */
	void (*on_connection)(struct cad_transport *transport, struct cad_connection *connection,
		enum cad_connection_state state, enum cad_status status, const char *text);
	/* Server side: a checked call. It stays valid until cad_request_answer. Not set: this end
	 * accepts no calls. */
	void (*on_request)(struct cad_transport *transport, struct cad_request *request);
	/* Server side: somebody asks for a part of an expert's image. It stays valid until
	 * cad_part_answer. Not set: this end gives none. */
	void (*on_fetch)(struct cad_transport *transport, struct cad_part *part);
	/* The address of this transport has changed: peers need the new one. May be NULL. */
	void (*on_address)(struct cad_transport *transport, const char *address);
};

/* ---- transports (poll.c) ---- */

/* Fills everything that has a sensible default; identity, limits and callbacks are the caller's. */
void cad_transport_options_default(struct cad_transport_options *options);

/*
 * Creates a transport over a link: what cad_transport_ucx_create (ucx.h) and
 * cad_transport_local_create (local.h) do with their own. `context` is for `create`, which makes
 * the link (link.h).
 */
typedef enum cad_status cad_link_create_fn(
	const struct cad_link_options *options, void *context, struct cad_link **link, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_transport_create(const struct cad_transport_options *options,
	cad_link_create_fn *create, void *context, struct cad_transport **transport, struct cad_error *error);
struct cad_link *cad_transport_link(struct cad_transport *transport);

/* Closes everything, fails all calls (their callbacks run in here), and frees. Answer or drop all
 * held requests first. */
void cad_transport_destroy(struct cad_transport *transport);
void *cad_transport_user(const struct cad_transport *transport);
const struct cad_clock *cad_transport_clock(const struct cad_transport *transport);
uint64_t cad_transport_now_ns(const struct cad_transport *transport); /* by that clock */

/* address: a name, or, over UCX, the "host:port" of an interface of this machine (ucx.h). */
CAD_MUST_USE enum cad_status cad_transport_listen(
	struct cad_transport *transport, const char *address, struct cad_error *error);
/* What peers connect with, and, over UCX, what they must be announced with, clients too. Valid
 * until the next poll. */
const char *cad_transport_address(const struct cad_transport *transport);
/* Who may connect: where a link cannot ask who somebody is before it answers (UCX), it answers only
 * those. Adds to what was announced before, and remembers at least the last
 * 2 * CAD_PROCESSES_MAX. */
CAD_MUST_USE enum cad_status cad_transport_announce(
	struct cad_transport *transport, const char *const *addresses, size_t count, struct cad_error *error);

/* Runs what is ready. If nothing is, waits until something is, until wake, or until clock time
 * `until_ns` (0: does not wait). Returns how many events it handled. It also keeps deadlines and
 * heartbeats. */
size_t cad_transport_poll(struct cad_transport *transport, uint64_t until_ns);
/* The current or next poll returns soon. Any thread, until destroy begins. */
void cad_transport_wake(struct cad_transport *transport);

CAD_MUST_USE enum cad_status cad_buffer_create(
	struct cad_transport *transport, size_t bytes, struct cad_buffer *buffer);
void cad_buffer_destroy(struct cad_transport *transport, struct cad_buffer *buffer);

struct cad_transport_stats {
	uint64_t calls, answers, bytes_sent, bytes_received, connections_opened, connections_lost, protocol_errors,
		deadlines, late_answers, credit_waits, rebuilds;
};
const struct cad_transport_stats *cad_transport_stats(const struct cad_transport *transport);

/* ---- connections (connection.c) ---- */

/* Starts connecting; on_connection says how it went. `user` is the caller's. */
CAD_MUST_USE enum cad_status cad_transport_connect(struct cad_transport *transport, const char *address, void *user,
	struct cad_connection **connection, struct cad_error *error);
/* its calls fail; on_connection follows */
void cad_connection_close(struct cad_connection *connection, enum cad_status status, const char *text);
void *cad_connection_user(const struct cad_connection *connection);
enum cad_connection_state cad_connection_state(const struct cad_connection *connection);
/* the peer's node id, "" before the hello */
const char *cad_connection_peer(const struct cad_connection *connection);
/* for how long nothing was heard of the peer; time in which nobody polled here does not count */
uint64_t cad_connection_silent_ns(const struct cad_connection *connection);
uint32_t cad_connection_rows_max(const struct cad_connection *connection);

/* ---- calls (call.c) ---- */

/* One call. status OK: `view` is the checked answer inside the answer buffer, with no poisoned rows
 * hidden: the caller looks at view->sums.
 * A wire status other than CADRE_WIRE_OK comes as OK here, with view->answer.header.status set and
 * no sums. */
typedef void cad_call_done_fn(
	void *context, struct cad_call *call, enum cad_status status, const struct cad_answer_view *view);
struct cad_call_start {
	/* layer, rows, row_elements, pairs, groups, data_bytes, epoch; the transport fills the
	 * rest */
	struct cadre_wire_call call;
	const struct cad_buffer *payload; /* laid out by cad_wire_call_layout */
	size_t payload_bytes;
	struct cad_buffer *answer; /* room for cad_wire_answer_bytes_max */
	uint64_t deadline_ns;      /* clock time; 0: none */
	cad_call_done_fn *done;
	void *context;
};
/* OK: done will be called. AGAIN: no credit now; try again after the next callback. ERR_PEER_LOST:
 * the connection is not ready. */
CAD_MUST_USE enum cad_status cad_call_start(
	struct cad_connection *connection, const struct cad_call_start *start, struct cad_call **call);
/* The answer is no longer wanted: done is called with CAD_ERR_CANCELLED as soon as nothing touches
 * the buffers. */
void cad_call_cancel(struct cad_call *call);

/* ---- requests: calls on the side that answers (serve.c) ---- */

const struct cad_call_view *cad_request_view(const struct cad_request *request);
struct cad_connection *cad_request_connection(const struct cad_request *request);
uint64_t cad_request_received_ns(const struct cad_request *request);
/* false: its connection is gone; answer it all the same, which frees it */
bool cad_request_alive(const struct cad_request *request);
/* Room for the answer's payload: a pooled, registered buffer of the largest size that this request
 * can need. NULL: none free now (answer CADRE_WIRE_BUSY or wait). */
struct cad_buffer *cad_request_answer_buffer(struct cad_request *request);
/* Sends, and frees request and buffer when nothing touches them any longer. `answer`: status,
 * detail, data_bytes, queue_us, compute_us; the transport fills the rest. payload_bytes 0 unless
 * status is OK. */
void cad_request_answer(struct cad_request *request, const struct cadre_wire_answer *answer, size_t payload_bytes);

/* ---- parts of experts' images, from node to node (fetch.c) ---- */

/* One FETCH. status OK: the part is in the buffer, or `wire` says why not. The buffer belongs to
 * the transport from start to this. */
typedef void cad_fetch_done_fn(
	void *context, enum cad_status status, enum cadre_wire_status wire, uint64_t image_bytes);
struct cad_fetch_start {
	struct cadre_wire_fetch fetch; /* offset, bytes, layer, expert, version, kind; the transport fills the rest */
	struct cad_buffer *buffer;     /* room for the bytes */
	/* clock time. A part that is late loses the connection: a node that keeps one waiting is no
	 * source, and the buffer comes back. */
	uint64_t deadline_ns;
	cad_fetch_done_fn *done;
	void *context;
};
/* OK: done will be called. AGAIN: CADRE_FETCHES_MAX of this connection, or all fetches_max, are in
 * flight. ERR_PEER_LOST: the connection is not ready. */
CAD_MUST_USE enum cad_status cad_fetch_start(struct cad_connection *connection, const struct cad_fetch_start *start);

const struct cadre_wire_fetch *cad_part_asked(const struct cad_part *part);
/* CADRE_PART_BYTES_MAX for the part's bytes; any thread may write there until it is answered. */
void *cad_part_bytes(struct cad_part *part);
/* Sends, and frees when nothing touches the buffer any longer. image_bytes 0 unless status is
 * OK. */
void cad_part_answer(struct cad_part *part, enum cadre_wire_status status, uint64_t image_bytes);

#endif
