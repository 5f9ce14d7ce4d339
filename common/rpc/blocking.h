/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC client for command lines: one blocking call at a time, on a loop, a reactor and a channel
 * of its own.
 *
 * Belongs to the thread that calls it, and blocks. Only cad_rpc_blocking_interrupt may come from
 * elsewhere.
 */
#ifndef CADRE_COMMON_RPC_BLOCKING_H
#define CADRE_COMMON_RPC_BLOCKING_H

#include "common/rpc/client.h"

struct cad_rpc_blocking;

CAD_MUST_USE enum cad_status cad_rpc_blocking_create(const char *target, const struct cad_tls_files *tls,
	const struct cad_rpc_channel_config *config, struct cad_rpc_blocking **client, struct cad_error *error);
void cad_rpc_blocking_destroy(struct cad_rpc_blocking *client);

/* Sends request and waits. For each message of the answer (one for a unary call) on_message is
 * called; false ends the call early, which is not an error. A failure is a status and the server's
 * sentence with its code ("INVALID_ARGUMENT: ..."); code, if not NULL, gets the code in every
 * case. */
CAD_MUST_USE enum cad_status cad_rpc_blocking_call(struct cad_rpc_blocking *client, const char *path,
	const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
	const struct cad_rpc_call_options *options, bool (*on_message)(void *context, const ProtobufCMessage *message),
	void *context, enum cad_rpc_code *code, struct cad_error *error);
/* The same with a stream of requests: `next` gives one after another, borrowed until it is called
 * again, and NULL at the end. */
CAD_MUST_USE enum cad_status cad_rpc_blocking_upload(struct cad_rpc_blocking *client, const char *path,
	const ProtobufCMessage *(*next)(void *context), const ProtobufCMessageDescriptor *reply,
	const struct cad_rpc_call_options *options, bool (*on_message)(void *context, const ProtobufCMessage *message),
	void *context, enum cad_rpc_code *code, struct cad_error *error);
/* Waits between two calls. The channel goes on connecting meanwhile, which it does not in a sleep:
 * nobody else looks at its sockets. */
void cad_rpc_blocking_pause(struct cad_rpc_blocking *client, uint64_t ms);
/* Makes a running cad_rpc_blocking_call end with CANCELLED. From a signal handler or any thread. */
void cad_rpc_blocking_interrupt(struct cad_rpc_blocking *client);
/* From now on gRPC's own words about connections are logged at debug level only: for programs that
 * show the sentences of their calls, which say the same. Any thread. */
void cad_rpc_blocking_hush(void);

#endif
