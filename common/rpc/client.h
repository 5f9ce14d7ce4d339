/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC client: channels and streams. On the wire a unary call is a stream of one message each
 * way.
 *
 * All functions run on the owner thread of the channel's reactor (rpc.h has the rule); callbacks
 * do, too, and must not block. A channel connects by itself and keeps reconnecting. `done` is
 * called exactly once for each call, last; the call is freed when it returns. Nothing here blocks
 * (blocking.h does, for command lines); most allocate.
 */
#ifndef CADRE_COMMON_RPC_CLIENT_H
#define CADRE_COMMON_RPC_CLIENT_H

#include "common/rpc/reactor.h"
#include "common/rpc/rpc.h"

#include <protobuf-c/protobuf-c.h>

struct cad_rpc_channel;
struct cad_rpc_client_call;

/* A zero field takes the default in its comment. */
struct cad_rpc_channel_config {
	int receive_bytes_max; /* one message; 16 MiB */
	/* ping the server this often while calls run; 0: never. Servers refuse shorter intervals
	 * than their client_ping_ms_min */
	int keepalive_time_ms;
	int keepalive_timeout_ms; /* 20 s */
	int connect_ms;           /* an attempt to connect takes at most so long, to each address of a name; 2 s */
	int backoff_ms_max;       /* between attempts to connect; 5 s */
	size_t decoded_bytes_max; /* memory of one decoded message; 64 MiB */
	size_t out_high_bytes;    /* out queue of one call: CAD_FULL from here, writable at a quarter; 256 KiB */
	/* the name that the server's certificate must have, if it is not the host of the target */
	const char *server_name;
	bool own_connection; /* not shared with other channels to the same target */
	bool wait_for_ready; /* calls wait while the server is unreachable instead of failing with UNAVAILABLE */
};

/* target: "host:port", or "ipv4:a:1,b:2" for several. tls NULL: plaintext. config may be NULL.
 * CAD_ERR_IO: a file of tls cannot be read. When its files have changed, and can be used, the next
 * call makes a new connection with them, as soon as no other call is running. */
CAD_MUST_USE enum cad_status cad_rpc_channel_create(struct cad_rpc_reactor *reactor, const char *target,
	const struct cad_tls_files *tls, const struct cad_rpc_channel_config *config, struct cad_rpc_channel **channel,
	struct cad_error *error);
void cad_rpc_channel_destroy(struct cad_rpc_channel *channel); /* its running calls continue */

struct cad_rpc_client_handler {
	void (*headers)(struct cad_rpc_client_call *call); /* the server has admitted the call */
	/* The message lives until the callback returns. A stream continues with
	 * cad_rpc_client_read. */
	void (*message)(struct cad_rpc_client_call *call, const ProtobufCMessage *message);
	void (*writable)(struct cad_rpc_client_call *call); /* after CAD_FULL */
	/* Never NULL. message is the server's sentence, or gRPC's own, with what may be wrong
	 * about TLS. */
	void (*done)(struct cad_rpc_client_call *call, enum cad_rpc_code code, const char *message);
};

struct cad_rpc_metadata {
	const char *key, *value;
};

struct cad_rpc_call_options {
	int64_t timeout_ms; /* 0: none */
	const struct cad_rpc_metadata *metadata;
	size_t metadata_count;
};

/* path: "/package.Service/Method". handler is kept until done; options may be NULL and are
 * borrowed. CAD_ERR_INVALID: metadata that HTTP/2 does not allow. The first message is read without
 * being asked for. A unary call and a server stream are: stream, send, close_send. */
CAD_MUST_USE enum cad_status cad_rpc_stream(struct cad_rpc_channel *channel, const char *path,
	const ProtobufCMessageDescriptor *reply, const struct cad_rpc_call_options *options,
	const struct cad_rpc_client_handler *handler, void *context, struct cad_rpc_client_call **call);

void *cad_rpc_client_context(const struct cad_rpc_client_call *call);
/* CAD_FULL: accepted, but send no more until `writable`. CAD_ERR_CANCELLED: the call is over or its
 * sending side is closed. */
enum cad_status cad_rpc_client_send(struct cad_rpc_client_call *call, const ProtobufCMessage *message);
void cad_rpc_client_close_send(struct cad_rpc_client_call *call); /* nothing more to send */
/* one more message, please; not reading makes the server wait */
void cad_rpc_client_read(struct cad_rpc_client_call *call);
void cad_rpc_client_cancel(struct cad_rpc_client_call *call); /* done follows */

#endif
