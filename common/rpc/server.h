/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC server: services in tables, calls as small state machines, health and reflection.
 *
 * All functions run on the owner thread of the server's reactor (rpc.h has the rule); callbacks do,
 * too, and must not block. A server is created, given its services, told where to listen, started,
 * and in the end drained: it frees itself then, and says so. Nothing here blocks; most allocate.
 *
 * A call ends when the program finishes it, or when the client cancels, its deadline passes, or the
 * connection breaks. `done` comes exactly once for each call whose `start` or `message` came; after
 * that every function that takes the call is a harmless no-op, and the pointer is valid only while
 * a reference is held (cad_rpc_call_acquire).
 */
#ifndef CADRE_COMMON_RPC_SERVER_H
#define CADRE_COMMON_RPC_SERVER_H

#include "common/rpc/rpc.h"
#include "common/rpc/reactor.h"

#include <protobuf-c/protobuf-c.h>

struct cad_rpc_server;
struct cad_rpc_call;

/* ---- services ---- */

enum cad_rpc_kind { CAD_RPC_UNARY, CAD_RPC_SERVER_STREAM, CAD_RPC_CLIENT_STREAM, CAD_RPC_BIDI };

/* In this order: start (client streaming and bidi only) ; message, any number of times ; half_close
 * ; done. Absent ones (NULL) are skipped. */
struct cad_rpc_handler {
	void (*start)(struct cad_rpc_call *call); /* when absent, the first message is read at once */
	/* The message lives until the callback returns, or longer for unary and server streaming:
	 * until the call is freed. */
	void (*message)(struct cad_rpc_call *call, const ProtobufCMessage *message);
	void (*half_close)(struct cad_rpc_call *call); /* the client has sent everything */
	void (*writable)(struct cad_rpc_call *call);   /* after CAD_FULL: the out queue has fallen to the low mark */
	void (*done)(struct cad_rpc_call *call, bool cancelled);
};

struct cad_rpc_method {
	const char *name; /* as in the .proto file */
	enum cad_rpc_kind kind;
	struct cad_rpc_handler on;
	bool open; /* needs no authorisation: health probes */
};

struct cad_rpc_service {
	const ProtobufCServiceDescriptor *descriptor; /* from protoc-c: method names, request and reply types */
	const struct cad_rpc_method *methods;         /* every method of the service */
	size_t method_count;
	void *context;
};

/* ---- server ---- */

/* A zero field takes the default that stands beside it. */
struct cad_rpc_server_config {
	int receive_bytes_max;          /* one message; 4 MiB */
	int send_bytes_max;             /* one message; 16 MiB */
	int metadata_bytes_max;         /* headers of one call; 16 KiB */
	int streams_per_connection_max; /* 1000 */
	unsigned calls_max;             /* live calls of the whole server, RESOURCE_EXHAUSTED above; 10000 */
	int keepalive_time_ms;          /* an idle connection is pinged; 60 s */
	int keepalive_timeout_ms;       /* ... and closed without an answer; 20 s */
	int client_ping_ms_min;         /* a client that pings more often is cut off; 10 s */
	int handshake_timeout_ms;       /* 10 s */
	size_t decoded_bytes_max;       /* memory of one decoded message; 64 MiB */
	size_t out_high_bytes;          /* out queue of one call: CAD_FULL from here; 256 KiB */
	size_t out_low_bytes;           /* ... writable from here; a quarter of that */
	/* connections are refused this close to RLIMIT_NOFILE; 5000, at most half the limit */
	unsigned descriptors_reserve;
	/* what calls are told that a drain cuts off; kept; "the server is stopping; ..." */
	const char *stopping;
	/* Called for each call before its handler, unless the method is open. CAD_RPC_OK admits;
	 * anything else ends the call with that code and the sentence in why->text. */
	enum cad_rpc_code (*authorize)(void *context, struct cad_rpc_call *call, struct cad_error *why);
	void *authorize_context;
};

/* config may be NULL. */
CAD_MUST_USE enum cad_status cad_rpc_server_create(struct cad_rpc_reactor *reactor,
	const struct cad_rpc_server_config *config, struct cad_rpc_server **server, struct cad_error *error);
/* Before start; keeps `service` until the server is gone. A method that is missing in the table,
 * unknown to the descriptor, or added twice is a programmer's mistake. */
void cad_rpc_server_add(struct cad_rpc_server *server, const struct cad_rpc_service *service);
/* Before start, any number of times. "127.0.0.1:0" picks a free port. tls NULL: plaintext (see
 * cad_rpc_address_is_loopback). port may be NULL. */
CAD_MUST_USE enum cad_status cad_rpc_server_listen(struct cad_rpc_server *server, const char *address,
	const struct cad_rpc_tls *tls, uint16_t *port, struct cad_error *error);
void cad_rpc_server_start(struct cad_rpc_server *server);
/* No new calls; running ones may finish, and those that have not after grace_ms end with
 * UNAVAILABLE. Then the server frees itself and calls done(context) (may be NULL).
 * Also how a server that never started is destroyed. A second call is ignored. */
void cad_rpc_server_drain(struct cad_rpc_server *server, unsigned grace_ms, void (*done)(void *context), void *context);
unsigned cad_rpc_server_live_calls(const struct cad_rpc_server *server);
/* Connections refused for want of file descriptors, in this process. Any thread. */
unsigned long cad_rpc_refused_connections(void);

/* ---- calls ---- */

void *cad_rpc_call_context(const struct cad_rpc_call *call); /* the service's context */
void *cad_rpc_call_state(const struct cad_rpc_call *call);   /* the handler's own, NULL at first */
void cad_rpc_call_set_state(struct cad_rpc_call *call, void *state);
struct cad_rpc_reactor *cad_rpc_call_reactor(const struct cad_rpc_call *call);
const char *cad_rpc_call_path(const struct cad_rpc_call *call); /* "/package.Service/Method" */
/* The address as the transport sees it ("ipv4:127.0.0.1:4711"), cut to size; proves nothing. */
void cad_rpc_call_peer(const struct cad_rpc_call *call, char *text, size_t size);
/* Who it is, as authorize has set it; "" if nobody has. */
const char *cad_rpc_call_identity(const struct cad_rpc_call *call);
void cad_rpc_call_set_identity(struct cad_rpc_call *call, const char *identity);
/* Milliseconds to the deadline, 0 when it has passed; -1: there is none. */
int64_t cad_rpc_call_time_left_ms(const struct cad_rpc_call *call);
/* A header of the request; not terminated; NULL if absent. */
const uint8_t *cad_rpc_call_metadata(const struct cad_rpc_call *call, const char *key, size_t *size);
/* Whether the request carries "authorization: Bearer TOKEN" with this token; takes the same time
 * whatever was sent. */
bool cad_rpc_call_has_bearer(const struct cad_rpc_call *call, const char *token);
/* A property of a verified client certificate, "x509_common_name" for one. False if there is none
 * or it does not fit. */
bool cad_rpc_call_peer_property(const struct cad_rpc_call *call, const char *name, char *text, size_t size);
/* Neither finished nor cancelled. */
bool cad_rpc_call_is_alive(const struct cad_rpc_call *call);
/* Bytes in the out queue: sent by the program, not yet taken by the client. */
size_t cad_rpc_call_queued_bytes(const struct cad_rpc_call *call);

void cad_rpc_call_acquire(struct cad_rpc_call *call);
void cad_rpc_call_release(struct cad_rpc_call *call);

/* Asks for one more message (client streaming and bidi). Not reading makes the client wait: that is
 * the backpressure of the other direction. */
void cad_rpc_call_read(struct cad_rpc_call *call);
/* Queues a message. CAD_FULL: accepted, but send no more until `writable`. CAD_ERR_CANCELLED: the
 * call is over, nothing was queued. */
enum cad_status cad_rpc_call_send(struct cad_rpc_call *call, const ProtobufCMessage *message);
/* Headers now, not with the first message: the client learns that it has been admitted. */
void cad_rpc_call_send_headers(struct cad_rpc_call *call);
/* Before finish. Keys in lower case, "-bin" at the end for binary values. CAD_ERR_INVALID for what
 * HTTP/2 does not allow, CAD_ERR_CANCELLED when the call is over. */
enum cad_status cad_rpc_call_add_trailer(struct cad_rpc_call *call, const char *key, const void *value, size_t size);
/* Ends the call after what is queued. The sentence is UTF-8, cut at CAD_ERROR_TEXT_BYTES; NULL:
 * none. */
void cad_rpc_call_finish(struct cad_rpc_call *call, enum cad_rpc_code code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* send, then finish with CAD_RPC_OK. */
void cad_rpc_call_reply(struct cad_rpc_call *call, const ProtobufCMessage *message);
/* Ends the call and throws away what is queued. */
void cad_rpc_call_abort(struct cad_rpc_call *call, enum cad_rpc_code code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- grpc.health.v1.Health ---- */

struct cad_rpc_health;

/* Adds the service, with "" (the whole server) NOT_SERVING until it is set. Before start. */
CAD_MUST_USE enum cad_status cad_rpc_health_create(
	struct cad_rpc_server *server, struct cad_rpc_health **health, struct cad_error *error);
void cad_rpc_health_set(struct cad_rpc_health *health, const char *service, bool serving);
/* Everything NOT_SERVING for good, and every Watch ends (they would hold up a drain): call it
 * before drain. */
void cad_rpc_health_shutdown(struct cad_rpc_health *health);
void cad_rpc_health_destroy(struct cad_rpc_health *health); /* after the server has gone */

/* ---- grpc.reflection.v1 and v1alpha ---- */

struct cad_rpc_reflection;

/* Answers with the descriptors of every .proto file of Cadre, for the services that were added:
 * call it after the last add. Also compares the method tables with the descriptors (protoc-c drops
 * the word "stream"), CAD_ERR_INTERNAL and a sentence if they differ. */
CAD_MUST_USE enum cad_status cad_rpc_reflection_create(
	struct cad_rpc_server *server, struct cad_rpc_reflection **reflection, struct cad_error *error);
void cad_rpc_reflection_destroy(struct cad_rpc_reflection *reflection); /* after the server has gone */

#endif
