/*
 * The token exchange: connections between routers and expert nodes, calls with deadlines, credits,
 * heartbeats. One interface, three forms:
 * UCX (ucx/), in-process (local.c) and, for tests, a seeded simulator (tests/support/sim.h).
 *
 * The protocol (hello, credits, calls, answers, heartbeats, deadlines, generations) is written
 * once, in transport.c, over a narrow link interface (link.h) that each form implements.
 *
 * Threads. A transport belongs to the thread that polls it; only cad_transport_wake may be called
 * from elsewhere. Callbacks run inside cad_transport_poll, never from inside another function of
 * this interface, and may call anything here but poll and destroy.
 *
 * Memory. Everything is allocated at creation, sized by the options. A call's payload and answer
 * buffers belong to the transport from cad_call_start until its callback, which comes exactly once,
 * whatever happens, and only when nothing can touch either buffer any more.
 *
 * Failure. A connection that fails (peer gone, heartbeat missed, protocol broken, closed) fails all
 * its calls at once, with CAD_ERR_PEER_LOST or what it was; the caller sends them elsewhere. A
 * deadline fails one call (CAD_ERR_DEADLINE). Nothing is retried here.
 */
#ifndef CADRE_COMMON_TRANSPORT_TRANSPORT_H
#define CADRE_COMMON_TRANSPORT_TRANSPORT_H

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/transport/wire.h"

#include <stdbool.h>

struct cad_transport;
struct cad_connection;
struct cad_call;
struct cad_request;

enum cad_connection_state { CAD_CONNECTION_CONNECTING, CAD_CONNECTION_READY, CAD_CONNECTION_CLOSED };

/* A buffer that the transport can send from and receive into without a copy where the hardware can
 * (registered once). */
struct cad_buffer {
	uint8_t *bytes; /* 64-byte aligned */
	size_t capacity;
	void *registration; /* the transport's own */
};

struct cad_transport_options {
	struct cadre_wire_identity identity; /* of this process; compared in the hello */
	const char *secret;                  /* cluster secret, at least 16 bytes, or NULL: no HMAC */
	struct cad_wire_limits limits;       /* of calls that are accepted and answers that are expected */
	/* NULL: the system's; ignored by the simulator, which brings its own */
	const struct cad_clock *clock;
	uint32_t connections_max, calls_max; /* calls_max: outgoing calls in flight, and requests held, each */
	uint32_t credit_calls;               /* granted to each client */
	uint64_t credit_bytes;
	/* of limits.payload_bytes_max each: calls being received at once, answers being sent; 0: as
	 * many as calls_max, costs memory only as used */
	uint32_t request_buffers, answer_buffers;
	/* Time during which nobody polled here does not count as silence. The side that connected
	 * pings and gives up after ping_interval + ping_timeout;
	 * the other side only listens, for peer_timeout, because a router computes between its
	 * polls. An answer that is owed so long after its call was given up ends the connection
	 * too. */
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
};
/* Fills everything that has a sensible default; identity, limits and callbacks are the caller's. */
void cad_transport_options_default(struct cad_transport_options *options);

/*
 * Settings of UCX, for operators:
 *   devices     the network interfaces (or RDMA ports) that UCX may use, as in UCX_NET_DEVICES:
 *               "eth1", "mlx5_0:1". UCX listens for data on a port of its own on
 *               every one of them, whatever address cad_transport_listen was given, so name the
 *               cluster's interface and no other.
 *               Default: UCX_NET_DEVICES, else the loopback interface.
 *   transports  as in UCX_TLS. "tcp" is safe everywhere; "posix,cma,tcp" adds shared memory between
 *   processes of one host (tcp must stay: it connects);
 *               "rc,ud,tcp" is RDMA. Default: UCX_TLS, else tcp.
 *   spin_us     how long a wait polls before it sleeps: saves the 25 to 45 us of a wake-up, and is
 *               harmful unless every busy thread has a core for itself.
 *   ports       UCX_TCP_PORT_RANGE=7400-7499 in the environment bounds the data ports. They must be
 *               open both ways, at routers too: the side that was
 *               connected to connects back. It does not work through address translation.
 *   versions    the same UCX on all nodes; otherwise UCX_CM_USE_ALL_DEVICES=n on all of them.
 * UCX has no authentication and no encryption, and its own framing trusts what it reads: the
 * exchange belongs on a private network, or on WireGuard.
 */
struct cad_ucx_options {
	const char *devices, *transports;
	uint32_t spin_us;
};
/* First thing in main(): sets what UCX needs in the environment (what is set already is left
 * alone). UCX reads part of it before main, so this may start the program again, once. NULL: never
 * starts again. */
void cad_transport_ucx_environment(char **argv);
CAD_MUST_USE enum cad_status cad_transport_ucx_create(const struct cad_transport_options *options,
	const struct cad_ucx_options *ucx, struct cad_transport **transport, struct cad_error *error);

/* In-process: transports of one hub reach each other by name. Each may be polled by a thread of its
 * own; a hub outlives its transports. */
struct cad_local_hub;
CAD_MUST_USE enum cad_status cad_local_hub_create(struct cad_local_hub **hub);
void cad_local_hub_destroy(struct cad_local_hub *hub);
CAD_MUST_USE enum cad_status cad_transport_local_create(const struct cad_transport_options *options,
	struct cad_local_hub *hub, struct cad_transport **transport, struct cad_error *error);
/* The embedded form: polling `client` also polls `server`, in the same thread, until neither has
 * work. */
void cad_transport_local_attach(struct cad_transport *client, struct cad_transport *server);

/* Closes everything, fails all calls (their callbacks run in here), frees. Requests that are still
 * held must be answered or dropped before. */
void cad_transport_destroy(struct cad_transport *transport);
void *cad_transport_user(const struct cad_transport *transport);
const struct cad_clock *cad_transport_clock(const struct cad_transport *transport);

/* address: "host:port" for UCX (port 0: any), a name for the others. cad_transport_address tells
 * what to publish. */
CAD_MUST_USE enum cad_status cad_transport_listen(
	struct cad_transport *transport, const char *address, struct cad_error *error);
const char *cad_transport_address(const struct cad_transport *transport);
/* Starts connecting; on_connection says how it went. `user` is the caller's. */
CAD_MUST_USE enum cad_status cad_transport_connect(struct cad_transport *transport, const char *address, void *user,
	struct cad_connection **connection, struct cad_error *error);
/* its calls fail; on_connection follows */
void cad_connection_close(struct cad_connection *connection, enum cad_status status, const char *text);
void *cad_connection_user(const struct cad_connection *connection);
enum cad_connection_state cad_connection_state(const struct cad_connection *connection);
/* the peer's node id, "" before the hello */
const char *cad_connection_peer(const struct cad_connection *connection);
uint32_t cad_connection_rows_max(const struct cad_connection *connection);

/* Runs what is ready; with nothing ready, waits until something is, until wake, or until clock time
 * `until_ns` (0: does not wait).
 * Returns how many events it handled. Deadlines and heartbeats are kept in here. */
size_t cad_transport_poll(struct cad_transport *transport, uint64_t until_ns);
void cad_transport_wake(struct cad_transport *transport); /* any thread: the present or next poll returns soon */

CAD_MUST_USE enum cad_status cad_buffer_create(
	struct cad_transport *transport, size_t bytes, struct cad_buffer *buffer);
void cad_buffer_destroy(struct cad_transport *transport, struct cad_buffer *buffer);

/* One call. status OK: `view` is the checked answer inside the answer buffer, with no poisoned rows
 * hidden: the caller looks at view->sums.
 * A wire status other than CADRE_WIRE_OK comes as OK here, with view->answer.header.status set and
 * no sums. */
typedef void cad_call_done_fn(
	void *context, struct cad_call *call, enum cad_status status, const struct cad_answer_view *view);
struct cad_call_start {
	/* layer, rows, row_elements, pairs, groups, data_bytes, epoch; the transport fills the rest */
	struct cadre_wire_call call;
	const struct cad_buffer *payload; /* laid out by cad_wire_call_layout */
	size_t payload_bytes;
	struct cad_buffer *answer; /* room for cad_wire_answer_bytes_max */
	uint64_t deadline_ns;      /* clock time; 0: none */
	cad_call_done_fn *done;
	void *context;
};
/* OK: done will come. AGAIN: no credit now; try after the next callback. ERR_PEER_LOST: the
 * connection is not ready. */
CAD_MUST_USE enum cad_status cad_call_start(
	struct cad_connection *connection, const struct cad_call_start *start, struct cad_call **call);
/* The answer is no longer wanted: done comes with CAD_ERR_CANCELLED as soon as nothing touches the
 * buffers. */
void cad_call_cancel(struct cad_call *call);

/* Server side. */
const struct cad_call_view *cad_request_view(const struct cad_request *request);
struct cad_connection *cad_request_connection(const struct cad_request *request);
uint64_t cad_request_received_ns(const struct cad_request *request);
/* false: its connection is gone; answer it all the same, which frees it */
bool cad_request_alive(const struct cad_request *request);
/* Room for the answer's payload: a pooled, registered buffer of the largest size that this request
 * can need. NULL: none free now (answer CADRE_WIRE_BUSY or wait). */
struct cad_buffer *cad_request_answer_buffer(struct cad_request *request);
/* Sends and, when nothing touches them any more, frees request and buffer. `answer`: status,
 * detail, data_bytes, queue_us, compute_us; the transport fills the rest. payload_bytes 0 unless
 * status is OK. */
void cad_request_answer(struct cad_request *request, const struct cadre_wire_answer *answer, size_t payload_bytes);

struct cad_transport_stats {
	uint64_t calls, answers, bytes_sent, bytes_received, connections_opened, connections_lost, protocol_errors,
		deadlines, late_answers, credit_waits, rebuilds;
};
const struct cad_transport_stats *cad_transport_stats(const struct cad_transport *transport);

#endif
