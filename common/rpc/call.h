/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call on the side of the server.
 *
 * All functions run on the owner thread of the server's reactor (rpc.h has the rule), and none
 * blocks. A call ends when the program finishes it, or when the client cancels, its deadline
 * passes, or the connection breaks. `done` (server.h) comes exactly once for each call whose
 * `start` or `message` came; after that every function that takes the call is a harmless no-op, and
 * the pointer is valid only while a reference is held (cad_rpc_call_acquire).
 */
#ifndef CADRE_COMMON_RPC_CALL_H
#define CADRE_COMMON_RPC_CALL_H

#include "common/process/caller.h"
#include "common/rpc/reactor.h"
#include "common/rpc/rpc.h"

#include <protobuf-c/protobuf-c.h>

struct cad_rpc_call;
struct cad_rpc_method;

void *cad_rpc_call_context(const struct cad_rpc_call *call); /* the service's context */
void *cad_rpc_call_state(const struct cad_rpc_call *call);   /* the handler's own, NULL at first */
void cad_rpc_call_set_state(struct cad_rpc_call *call, void *state);
struct cad_rpc_reactor *cad_rpc_call_reactor(const struct cad_rpc_call *call);
/* The address as the transport sees it ("ipv4:127.0.0.1:4711"), cut to size; proves nothing. */
void cad_rpc_call_peer(const struct cad_rpc_call *call, char *text, size_t size);
/* Milliseconds to the deadline, 0 when it has passed; -1: there is none. */
int64_t cad_rpc_call_time_left_ms(const struct cad_rpc_call *call);
/* Who calls; of a server without authorize.h, or a method for probes, nobody. */
const struct cad_caller *cad_rpc_call_caller(const struct cad_rpc_call *call);
/* The TOKEN of the request's header "authorization: Bearer TOKEN": borrowed from the call, not
 * terminated, maybe empty. CAD_ERR_NOT_FOUND: there is no such header; CAD_ERR_INVALID: it is not
 * of this form, or there are several, of which somebody on the way may have checked another. */
CAD_MUST_USE enum cad_status cad_rpc_call_bearer(const struct cad_rpc_call *call, const void **token, size_t *size);
/* The method that was called; NULL for one that this server does not have. */
const struct cad_rpc_method *cad_rpc_call_method(const struct cad_rpc_call *call);
/* A property of a verified client certificate, for example "x509_common_name". False if there is
 * none or it does not fit. */
bool cad_rpc_call_peer_property(const struct cad_rpc_call *call, const char *name, char *text, size_t size);
/* Neither finished nor cancelled. */
bool cad_rpc_call_is_alive(const struct cad_rpc_call *call);
/* The server cut it off, because its client took nothing (stall_ms in server.h). */
bool cad_rpc_call_is_cut(const struct cad_rpc_call *call);
/* Bytes in the out queue: sent by the program, not yet taken by the client. */
size_t cad_rpc_call_queued_bytes(const struct cad_rpc_call *call);

/* The last message is not needed any longer; server streaming calls keep it otherwise. */
void cad_rpc_call_forget_message(struct cad_rpc_call *call);

void cad_rpc_call_acquire(struct cad_rpc_call *call);
void cad_rpc_call_release(struct cad_rpc_call *call);

/* Asks for one more message (client streaming and bidi). Not reading makes the client wait: that is
 * the backpressure of the other direction. */
void cad_rpc_call_read(struct cad_rpc_call *call);
/* Queues a message. CAD_FULL: accepted, but send no more until `writable`. CAD_ERR_CANCELLED: the
 * call is over, nothing was queued. */
enum cad_status cad_rpc_call_send(struct cad_rpc_call *call, const ProtobufCMessage *message);
/* Sends headers now, not with the first message, so that the client learns that it has been
 * admitted. */
void cad_rpc_call_send_headers(struct cad_rpc_call *call);
/* Ends the call after what is queued. The sentence is UTF-8, cut at CAD_ERROR_TEXT_BYTES; NULL:
 * none. */
void cad_rpc_call_finish(struct cad_rpc_call *call, enum cad_rpc_code code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* send, then finish with CAD_RPC_OK. */
void cad_rpc_call_reply(struct cad_rpc_call *call, const ProtobufCMessage *message);
/* Ends the call and discards what is queued. */
void cad_rpc_call_abort(struct cad_rpc_call *call, enum cad_rpc_code code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
