/*
 * What the files of the protocol share: transport.c (creation, poll, time), connection.c
 * (connections), hello.c (who is who), call.c (calling) and serve.c (answering). Not to be included
 * by anything else.
 *
 * Nothing here runs the caller's callbacks but transport_events_run, from inside poll and destroy:
 * whatever happens becomes an event in one queue, in the order in which it happened.
 */
#ifndef CADRE_COMMON_TRANSPORT_PROTOCOL_H
#define CADRE_COMMON_TRANSPORT_PROTOCOL_H

#include "common/base/container.h"
#include "common/transport/link.h"

enum {
	TRANSPORT_MAC_CONTEXT_BYTES = 16,
	TRANSPORT_TEXT_BYTES = 400,
};

enum event_type { EVENT_READY, EVENT_CLOSED, EVENT_CALL_DONE, EVENT_REQUEST };
struct event {
	struct event *next;
	enum event_type type;
	bool queued;
};

/*
 * The life of a connection:
 *   client  HELLO (sent; waits for CHALLENGE) -> PROOF (sent; waits for WELCOME) -> READY
 *   server  HELLO (waits for it) -> PROOF (CHALLENGE sent; waits for PROOF) -> READY
 *   REFUSING: a REFUSE is on its way; wait for the peer to go, not long.
 *   FAILED: no more traffic; the link is told to close in the next turn. CLOSING: until the link
 *   says closed. ENDED: until its calls are done and its requests are answered; then FREE.
 */
enum stage {
	STAGE_FREE,
	STAGE_HELLO,
	STAGE_PROOF,
	STAGE_READY,
	STAGE_REFUSING,
	STAGE_FAILED,
	STAGE_CLOSING,
	STAGE_ENDED
};

struct cad_connection {
	struct cad_transport *transport;
	struct cad_link_end *end; /* NULL: the link never had it, or has it no more */
	void *user;
	enum stage stage;
	bool server;   /* the peer connected to us */
	bool reported; /* CLOSED was queued or said */
	struct event ready, closed;
	enum cad_status status; /* why it failed */
	char text[TRANSPORT_TEXT_BYTES];
	struct cadre_wire_identity peer;
	uint8_t nonce_client[CADRE_NONCE_BYTES], nonce_server[CADRE_NONCE_BYTES];
	uint64_t session;
	uint64_t stage_awake_ns; /* when HELLO or REFUSING began; all on the awake clock: see transport_account */
	uint64_t heard_awake_ns, ping_awake_ns; /* ping 0: none unanswered */
	/* client: what was granted and what is used; server: what this peer uses */
	uint32_t credit_calls, used_calls, rows_max;
	uint64_t credit_bytes, used_bytes;
	uint32_t requests; /* server: held or being answered; twice the grant at most */
	uint32_t calls;    /* client: slots in use, zombies too */
	uint32_t controls; /* on their way out */
};

enum call_state {
	CALL_FREE,
	CALL_ACTIVE,    /* sent or being sent; no answer yet */
	CALL_RECEIVING, /* the answer's payload is on its way */
	CALL_FINISHING, /* decided; waits until send and receive are done, then for its event */
	CALL_ZOMBIE,    /* the caller was told; the peer still owes the answer, and the credit */
};
struct cad_call {
	enum call_state state;
	uint32_t slot, generation;
	struct cad_connection *connection;
	struct cad_link_op send, receive;
	bool send_busy, receive_busy;
	bool owed; /* the peer has not answered yet */
	/* decided, but the link still has a buffer: `deadline_ns` is now when the connection is
	 * given up for it */
	bool grace;
	struct event finished;
	struct cadre_wire_call wire;
	struct cadre_wire_answer answer; /* header bytes as they came */
	struct cad_answer_view view;
	struct cad_buffer *buffer;
	uint64_t deadline_ns;
	enum cad_status status;
	cad_call_done_fn *done;
	void *context;
	struct cad_call *next_free;
};

enum request_state {
	REQUEST_FREE,
	REQUEST_WAITING, /* the payload is still at the sender, and there is no buffer */
	REQUEST_RECEIVING,
	REQUEST_QUEUED, /* its event is in the queue */
	REQUEST_HELD,   /* with the user */
	REQUEST_ANSWERING,
};
struct cad_request {
	enum request_state state;
	struct cad_connection *connection;
	struct cad_link_op receive, send;
	struct event arrived;
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

/* A message without payload on its way out. */
struct control {
	struct cad_link_op op;
	struct cad_connection *connection;
	struct control *next;
	union {
		struct cadre_wire_header header;
		struct cadre_wire_hello hello;
		struct cadre_wire_challenge challenge;
		struct cadre_wire_proof proof;
		struct cadre_wire_welcome welcome;
		struct cadre_wire_refuse refuse;
		struct cadre_wire_ping ping;
		struct cadre_wire_answer answer;
	} message;
};

/* Buffers of one size. A buffer whose send was cut off may still be read by the peer, so it rests
 * for a while before it is used again. */
struct buffer_pool {
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
	struct cad_transport *attached; /* servers that are polled with this one, linked by attached_next */
	struct cad_transport *attached_next, *attached_to;
	struct cad_connection *connections;
	struct cad_call *calls, *calls_free;
	struct cad_request *requests, *requests_free, *waiting, **waiting_tail;
	struct control *controls, *controls_free;
	struct buffer_pool request_pool, answer_pool;
	struct event *events, **events_tail;
	uint32_t connections_used;
	/* a connection is FAILED or ENDED, or a buffer came back to requests that wait */
	bool attention;
	bool destroying, polling;
	size_t handled; /* callbacks made and answers gone since the poll began */
	uint64_t turn_ns, awake_ns, timer_ns;
	struct cad_transport_stats stats;
};

static inline uint64_t transport_now(const struct cad_transport *t) { return cad_clock_now_ns(t->options.clock); }

/* transport.c */
void transport_event(struct cad_transport *t, struct event *event);
size_t transport_turn(void *upper, uint64_t waited_ns);
uint64_t transport_next_ns(void *upper);
struct control *control_get(struct cad_connection *c, uint8_t kind); /* NULL: none free */
void control_send(struct control *control, size_t bytes);
struct cad_buffer *pool_get(struct cad_transport *t, struct buffer_pool *pool);
void pool_put(struct cad_transport *t, struct buffer_pool *pool, struct cad_buffer *buffer, uint64_t rest_ns);

/* connection.c */
extern const struct cad_link_events transport_link_events;
/* The first reason wins. `text` may be NULL. */
void connection_fail(struct cad_connection *c, enum cad_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* connection_fail with CAD_ERR_PROTOCOL, counted. */
void connection_break(struct cad_connection *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *connection_name(const struct cad_connection *c); /* the peer's node id, or a word in its place */
/* takes connections that failed to their end, a step at a time */
void connections_attend(struct cad_transport *t);
void connection_timers(struct cad_connection *c);

/* hello.c */
void hello_start(struct cad_connection *c);
/* Tells the peer why not, and lets it go. */
void connection_refuse(struct cad_connection *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void hello_message(struct cad_connection *c, uint8_t kind, const void *header);

/* call.c */
void calls_init(struct cad_transport *t);
bool call_answer_arrived(
	struct cad_connection *c, const void *header, size_t header_bytes, const struct cad_link_payload *payload);
void calls_fail(struct cad_connection *c);                          /* all calls of a connection that failed */
void call_finish(struct cad_call *call);                            /* the event: makes the callback */
uint64_t calls_deadlines(struct cad_transport *t, uint64_t now_ns); /* returns the next one */

/* serve.c */
void requests_init(struct cad_transport *t);
bool request_arrived(
	struct cad_connection *c, const void *header, size_t header_bytes, const struct cad_link_payload *payload);
void request_deliver(struct cad_request *request); /* the event */
void requests_run_waiting(struct cad_transport *t);

#endif
