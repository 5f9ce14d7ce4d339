/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol over a link, shared by the files that make it up and by nothing else. A file calls
 * only what is to its left:
 *
 *   wire, link < core < hello, call, serve, fetch < connection < poll
 *   core        events, buffers, notices, how a connection fails
 *   hello       who is who
 *   call        calling: from cad_call_start to its callback
 *   serve       answering: from a message to cad_request_answer
 *   fetch       parts of experts' images: asking for them, and giving them
 *   connection  the life of connections; hands what the link delivers to the four before it
 *   poll        creation, poll, time: what transport.h calls a transport
 *
 * Only cad_transport_events_run runs the caller's callbacks, from inside poll and destroy:
 * everything that happens becomes an event in one queue, in order.
 */
#ifndef CADRE_COMMON_TRANSPORT_PROTOCOL_H
#define CADRE_COMMON_TRANSPORT_PROTOCOL_H

#include "common/base/container.h"
#include "common/transport/link.h"
#include "common/transport/transport.h"

enum {
	CAD_CONNECTION_TEXT_BYTES = 400,
	/* Clients that may connect to a full server at once, to be told that it is full. */
	CAD_SURPLUS_MAX = 4,
};

/* Embedded in its object; `run` makes the caller's callback. */
struct cad_transport_event {
	struct cad_transport_event *next;
	void (*run)(struct cad_transport_event *event);
	bool queued;
};

/*
 * The life of a connection:
 *   client  HELLO (sent; waits for CHALLENGE) -> PROOF (sent; waits for WELCOME) -> READY
 *   server  HELLO (waits for it) -> PROOF (CHALLENGE sent; waits for PROOF) -> READY
 *   REFUSING: a REFUSE is on its way; wait, not long, for the peer to close.
 *   FAILED: no more traffic; the link is told to close in the next turn. CLOSING: until the link
 *   says closed. ENDED: until its calls are done and its requests are answered; then FREE.
 */
enum cad_phase {
	CAD_PHASE_FREE,
	CAD_PHASE_HELLO,
	CAD_PHASE_PROOF,
	CAD_PHASE_READY,
	CAD_PHASE_REFUSING,
	CAD_PHASE_FAILED,
	CAD_PHASE_CLOSING,
	CAD_PHASE_ENDED
};

struct cad_connection {
	struct cad_transport *transport;
	struct cad_link_end *end; /* NULL: the link never had it, or no longer has it */
	void *user;
	enum cad_phase phase;
	bool server;   /* the peer connected to us */
	bool surplus;  /* beyond connections_max: only to be told so */
	bool gone;     /* the peer has ended it, or the link says that it is lost: no goodbye */
	bool reported; /* CLOSED was queued or reported */
	struct cad_transport_event ready, closed;
	enum cad_status status; /* why it failed */
	char text[CAD_CONNECTION_TEXT_BYTES];
	struct cadre_wire_identity peer;
	uint8_t nonce_client[CADRE_NONCE_BYTES], nonce_server[CADRE_NONCE_BYTES];
	uint64_t session;
	uint64_t phase_awake_ns; /* when HELLO or REFUSING began; all on the awake clock: see account() */
	uint64_t heard_awake_ns, ping_awake_ns; /* ping 0: none unanswered */
	/* client: what was granted and what is used; server: what this peer uses */
	uint32_t credit_calls, used_calls, rows_max;
	uint64_t credit_bytes, used_bytes;
	uint32_t requests; /* server: held or being answered; twice the grant at most */
	uint32_t calls;    /* client: slots in use, zombies too */
	uint32_t fetches;  /* client: FETCHes in flight; server: parts whose buffer is not back */
	uint32_t asked;    /* server: FETCHes that are not answered */
	uint32_t notices;  /* on their way out */
};

enum cad_call_state {
	CAD_CALL_FREE,
	CAD_CALL_ACTIVE,    /* sent or being sent; no answer yet */
	CAD_CALL_RECEIVING, /* the answer's payload is on its way */
	CAD_CALL_FINISHING, /* decided; waits for send and receive to finish, then for its event */
	CAD_CALL_ZOMBIE,    /* reported to the caller; the peer still owes the answer, and the credit */
};
struct cad_call {
	enum cad_call_state state;
	uint32_t slot, generation;
	struct cad_connection *connection;
	struct cad_link_op send, receive;
	bool send_busy, receive_busy;
	bool owed; /* the peer has not answered yet */
	/* decided, but the link still has a buffer: `deadline_ns` is now when the connection is
	 * given up for it */
	bool grace;
	struct cad_transport_event finished;
	struct cadre_wire_call wire;
	struct cadre_wire_answer answer; /* header bytes as they arrived */
	struct cad_answer_view view;
	struct cad_buffer *buffer;
	uint64_t deadline_ns;
	enum cad_status status;
	cad_call_done_fn *done;
	void *context;
	struct cad_call *next_free;
};

enum cad_request_state {
	CAD_REQUEST_FREE,
	CAD_REQUEST_WAITING, /* the payload is still at the sender, and there is no buffer */
	CAD_REQUEST_RECEIVING,
	CAD_REQUEST_QUEUED, /* its event is in the queue */
	CAD_REQUEST_HELD,   /* with the user */
	CAD_REQUEST_ANSWERING,
};
struct cad_request {
	enum cad_request_state state;
	struct cad_connection *connection;
	struct cad_link_op receive, send;
	struct cad_transport_event arrived;
	struct cad_link_payload payload; /* kept in place, or waiting */
	bool kept;
	struct cad_buffer *received; /* from the pool */
	struct cad_buffer *answer_buffer;
	struct cadre_wire_call wire;
	struct cadre_wire_answer answer;
	struct cad_call_view view;
	uint64_t received_ns;
	bool credit_held;
	struct cad_request *next; /* free, or waiting */
};

/* FREE -> ACTIVE -> (RECEIVING ->) FINISHING -> callback -> FREE */
enum cad_fetch_state { CAD_FETCH_FREE, CAD_FETCH_ACTIVE, CAD_FETCH_RECEIVING, CAD_FETCH_FINISHING };
struct cad_fetch {
	enum cad_fetch_state state;
	uint32_t slot, generation;
	struct cad_connection *connection;
	struct cad_link_op send, receive;
	bool send_busy, receive_busy;
	struct cad_transport_event finished;
	struct cadre_wire_fetch wire;
	struct cadre_wire_part part;
	struct cad_buffer *buffer;
	uint64_t deadline_ns;
	enum cad_status status;
	cad_fetch_done_fn *done;
	void *context;
	struct cad_fetch *next_free;
};

/* FREE -> QUEUED -> HELD -> ANSWERING -> FREE */
enum cad_part_state { CAD_PART_FREE, CAD_PART_QUEUED, CAD_PART_HELD, CAD_PART_ANSWERING };
struct cad_part {
	enum cad_part_state state;
	struct cad_connection *connection;
	struct cad_link_op send;
	struct cad_transport_event arrived;
	struct cadre_wire_fetch wire;
	struct cadre_wire_part answer;
	struct cad_buffer *buffer; /* from the pool */
	struct cad_part *next_free;
};

/* A message without payload, on its way out: hellos, pings, refusals, answers that only say no. */
struct cad_notice {
	struct cad_link_op op;
	struct cad_connection *connection;
	struct cad_notice *next;
	union {
		struct cadre_wire_header header;
		struct cadre_wire_hello hello;
		struct cadre_wire_challenge challenge;
		struct cadre_wire_proof proof;
		struct cadre_wire_welcome welcome;
		struct cadre_wire_refuse refuse;
		struct cadre_wire_ping ping;
		struct cadre_wire_goodbye goodbye;
		struct cadre_wire_answer answer;
		struct cadre_wire_part part;
	} message;
};

/* Buffers of one size. A buffer whose send was cut off may still be read by the peer, so it rests
 * for a while before it is used again. */
struct cad_buffer_pool {
	struct cad_buffer *buffers;
	uint32_t *free;
	uint64_t *rests_until_ns; /* per buffer; 0: does not rest */
	uint32_t count, free_count, resting;
};

struct cad_transport {
	struct cad_transport_options options;
	char *secret;
	size_t secret_bytes;
	struct cad_link *link;
	struct cad_connection *connections;
	struct cad_call *calls, *calls_free;
	struct cad_request *requests, *requests_free, *waiting, **waiting_tail;
	struct cad_notice *notices, *notices_free;
	struct cad_fetch *fetches, *fetches_free;
	struct cad_part *parts, *parts_free;
	struct cad_buffer_pool request_pool, answer_pool, part_pool;
	struct cad_transport_event *events, **events_tail;
	/* high: one past the highest slot that was ever used; what looks at all stops there */
	uint32_t connections_used, connections_high, calls_high;
	/* a connection is FAILED or ENDED, or a buffer is free again for waiting requests */
	bool attention;
	bool destroying, polling;
	size_t handled; /* callbacks made and answers sent since the poll began */
	uint64_t turn_ns, awake_ns, timer_ns;
	struct cad_transport_stats stats;
};

/* ---- events, buffers, notices, failures (core.c) ---- */

/* Queued once, however often it is raised before it runs. */
void cad_transport_event(struct cad_transport *t, struct cad_transport_event *event);
/* Runs those that were queued before this call; the next turn runs what the callbacks add. */
void cad_transport_events_run(struct cad_transport *t);

/* The first of them, which are used first, are pinned, as far as there is such memory; the others
 * are the host's. */
enum cad_status cad_buffer_pool_create(
	struct cad_transport *t, uint32_t count, size_t bytes, uint32_t pinned, struct cad_buffer_pool *pool);
void cad_buffer_pool_destroy(struct cad_transport *t, struct cad_buffer_pool *pool); /* also one created in part */
struct cad_buffer *cad_buffer_pool_get(struct cad_transport *t, struct cad_buffer_pool *pool); /* NULL: none free */
void cad_buffer_pool_put(
	struct cad_transport *t, struct cad_buffer_pool *pool, struct cad_buffer *buffer, uint64_t rest_ns);

struct cad_notice *cad_notice_get(struct cad_connection *c, uint8_t kind); /* NULL: none free */
void cad_notice_send(struct cad_notice *notice, size_t bytes);

/* The first reason wins. */
void cad_connection_fail(struct cad_connection *c, enum cad_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* cad_connection_fail with CAD_ERR_PROTOCOL, counted. */
void cad_connection_break(struct cad_connection *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *cad_connection_name(const struct cad_connection *c); /* the peer's node id, or a placeholder */

/* ---- the hello (hello.c) ---- */

void cad_hello_start(struct cad_connection *c);
void cad_hello_message(struct cad_connection *c, uint8_t kind, const void *header);
/* Tells the peer why it is refused, and lets it go. */
void cad_connection_refuse(struct cad_connection *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- calling (call.c) ---- */

void cad_calls_init(struct cad_transport *t);
bool cad_call_answer_arrived(
	struct cad_connection *c, const void *header, size_t header_bytes, const struct cad_link_payload *payload);
void cad_calls_fail(struct cad_connection *c);                          /* all calls of a connection that failed */
uint64_t cad_calls_deadlines(struct cad_transport *t, uint64_t now_ns); /* returns the next one */

/* ---- answering (serve.c) ---- */

void cad_requests_init(struct cad_transport *t);
bool cad_request_arrived(
	struct cad_connection *c, const void *header, size_t header_bytes, const struct cad_link_payload *payload);
void cad_requests_run_waiting(struct cad_transport *t);

/* ---- parts of experts' images (fetch.c) ---- */

void cad_fetches_init(struct cad_transport *t);
void cad_fetch_arrived(struct cad_connection *c, const void *header, size_t header_bytes);
bool cad_part_arrived(
	struct cad_connection *c, const void *header, size_t header_bytes, const struct cad_link_payload *payload);
void cad_fetches_fail(struct cad_connection *c);                          /* all of a connection that failed */
uint64_t cad_fetches_deadlines(struct cad_transport *t, uint64_t now_ns); /* returns the next one */

/* ---- connections (connection.c) ---- */

/* takes failed connections to their end, one step at a time */
void cad_connections_attend(struct cad_transport *t);
void cad_connection_timers(struct cad_connection *c);
/* Events of the link: see struct cad_link_events. */
void *cad_connection_accept(void *upper, struct cad_link_end *end);
bool cad_connection_message(
	void *owner, uint8_t kind, const void *header, size_t header_bytes, const struct cad_link_payload *payload);
void cad_connection_lost(void *owner, enum cad_status status, const char *text);
void cad_connection_closed(void *owner);
void cad_connection_again(void *owner);

#endif
