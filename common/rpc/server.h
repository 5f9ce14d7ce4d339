/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC server: services in tables. Their calls are in call.h; health.h and reflection.h are
 * services that every server should have.
 *
 * All functions run on the owner thread of the server's reactor (rpc.h has the rule); callbacks do,
 * too, and must not block. A server is created, given its services and addresses, started, and
 * finally drained: it then frees itself, and says so. Nothing here blocks; most allocate.
 */
#ifndef CADRE_COMMON_RPC_SERVER_H
#define CADRE_COMMON_RPC_SERVER_H

#include "common/process/caller.h"
#include "common/rpc/call.h"
#include "common/rpc/reactor.h"
#include "common/rpc/rpc.h"

#include <protobuf-c/protobuf-c.h>

struct cad_rpc_server;

/* ---- services ---- */

enum cad_rpc_kind { CAD_RPC_UNARY, CAD_RPC_SERVER_STREAM, CAD_RPC_CLIENT_STREAM, CAD_RPC_BIDI };

/* In this order: start (client streaming and bidi only) ; message, any number of times ; half_close
 * ; done. Absent ones (NULL) are skipped. */
struct cad_rpc_handler {
	void (*start)(struct cad_rpc_call *call); /* if absent, the first message is read at once */
	/* The message lives until the callback returns, or longer for unary and server streaming:
	 * until the call is freed, or forgets it. */
	void (*message)(struct cad_rpc_call *call, const ProtobufCMessage *message);
	void (*half_close)(struct cad_rpc_call *call); /* the client has sent everything */
	void (*writable)(struct cad_rpc_call *call);   /* after CAD_FULL: the out queue has fallen to the low mark */
	void (*done)(struct cad_rpc_call *call, bool cancelled);
};

struct cad_rpc_method {
	const char *name; /* as in the .proto file */
	enum cad_rpc_kind kind;
	struct cad_rpc_handler on;
	enum cad_right right; /* what it does, and so whom it is for */
};

struct cad_rpc_service {
	const ProtobufCServiceDescriptor *descriptor; /* from protoc-c: method names, request and reply types */
	const struct cad_rpc_method *methods;         /* every method of the service */
	size_t method_count;
	void *context;
};

/* ---- server ---- */

/* A zero field takes the default in its comment. */
struct cad_rpc_server_config {
	int receive_bytes_max;          /* one message; 4 MiB */
	int send_bytes_max;             /* one message; 16 MiB */
	int metadata_bytes_max;         /* headers of one call; above, RESOURCE_EXHAUSTED; 16 KiB */
	int streams_per_connection_max; /* 1000 */
	unsigned calls_max;             /* live calls of the whole server; above, RESOURCE_EXHAUSTED; 10000 */
	int keepalive_time_ms;          /* an idle connection is pinged; 60 s */
	int keepalive_timeout_ms;       /* ... and closed without an answer; 20 s */
	int client_ping_ms_min;         /* a client that pings more often is cut off; 10 s */
	int handshake_timeout_ms;       /* 10 s */
	size_t decoded_bytes_max;       /* memory of one decoded message; 64 MiB */
	size_t out_high_bytes;          /* out queue of one call: CAD_FULL from here; 256 KiB */
	size_t out_low_bytes;           /* ... writable from here; a quarter of that */
	/* connections are refused this close to RLIMIT_NOFILE (guard.h);
	 * 5000, at most half the limit */
	unsigned descriptors_reserve;
	/* A call whose client takes nothing for so long while something waits to be
	 * sent is cut off with RESOURCE_EXHAUSTED; 0: never. Time in which the process
	 * did not run does not count. */
	unsigned stall_ms;
	void (*on_stall)(void *context); /* one was; may be NULL */
	void *stall_context;
	/* the sentence for calls that a drain cuts off; kept; "the server is stopping; ..." */
	const char *stopping;
	/* Called for each call before its handler, unless the method is CAD_RIGHT_PROBE
	 * (authorize.h). CAD_RPC_OK admits; anything else ends the call with that code and the
	 * sentence in why->text. NULL: all are. */
	enum cad_rpc_code (*authorize)(void *context, struct cad_rpc_call *call, struct cad_error *why);
	void *authorize_context;
};

/* config may be NULL. */
CAD_MUST_USE enum cad_status cad_rpc_server_create(struct cad_rpc_reactor *reactor,
	const struct cad_rpc_server_config *config, struct cad_rpc_server **server, struct cad_error *error);
/* Before start; keeps `service` until the server is gone. A method that is missing in the table,
 * has no right there, is unknown to the descriptor, or added twice is a programming error. */
void cad_rpc_server_add(struct cad_rpc_server *server, const struct cad_rpc_service *service);
/* Before start, any number of times. "127.0.0.1:0" picks a free port. tls NULL: plaintext (see
 * cad_address_is_loopback). port may be NULL. */
CAD_MUST_USE enum cad_status cad_rpc_server_listen(struct cad_rpc_server *server, const char *address,
	const struct cad_tls_files *tls, uint16_t *port, struct cad_error *error);
void cad_rpc_server_start(struct cad_rpc_server *server);
/* No new calls; running ones may finish, and those that have not after grace_ms end with
 * UNAVAILABLE. Then the server frees itself and calls done(context) (may be NULL).
 * Also how a server that never started is destroyed. A second call is ignored. */
void cad_rpc_server_drain(struct cad_rpc_server *server, unsigned grace_ms, void (*done)(void *context), void *context);

#endif
