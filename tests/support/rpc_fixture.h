/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC server and a client of it in one thread, over a real port: what the tests of the rpc layer
 * and of the services stand on.
 * Everything runs inside rpc_run_until and rpc_fixture_close.
 */
#ifndef CADRE_TESTS_SUPPORT_RPC_FIXTURE_H
#define CADRE_TESTS_SUPPORT_RPC_FIXTURE_H

#include "common/rpc/client.h"
#include "common/rpc/server.h"

#include <uv.h>

struct rpc_fixture {
	uv_loop_t loop;
	struct cad_rpc_reactor *reactor;
	struct cad_rpc_server *server;
	struct cad_rpc_channel *channel;
	uint16_t port;
	char target[32]; /* 127.0.0.1:port */
	bool server_gone;
};

/* Every method of a service, for one that stands in for it: those given, and for the rest a unary
 * one that answers UNIMPLEMENTED. `all` has RPC_METHODS_MAX places; returns how many it took. */
enum { RPC_METHODS_MAX = 32 };
size_t rpc_all_methods(const ProtobufCServiceDescriptor *descriptor, const struct cad_rpc_method *given, size_t count,
	struct cad_rpc_method all[RPC_METHODS_MAX]);

/* Loop and reactor only, for servers that somebody else makes; then rpc_fixture_connect. */
void rpc_fixture_open_loop(struct rpc_fixture *fixture);
void rpc_fixture_connect(struct rpc_fixture *fixture, uint16_t port, const struct cad_tls_files *tls,
	const struct cad_rpc_channel_config *config);
/* Loop, reactor, and a server that has not started: add services, then rpc_fixture_start. */
void rpc_fixture_open(struct rpc_fixture *fixture, const struct cad_rpc_server_config *config);
void rpc_fixture_start(struct rpc_fixture *fixture, const struct cad_tls_files *server_tls,
	const struct cad_tls_files *client_tls, const struct cad_rpc_channel_config *config);
/* Drains the server (if the test has not), destroys the channel, and closes the loop; fails if
 * anything is left. */
void rpc_fixture_close(struct rpc_fixture *fixture);

/* What a call came to. */
struct rpc_result {
	bool done;
	enum cad_rpc_code code;
	char text[1024];
	unsigned messages;
	size_t bytes;       /* packed size of all messages */
	unsigned read_max;  /* stop reading after this many; 0: read all */
	unsigned cancel_at; /* cancel after this many; 0: never */
	struct cad_rpc_client_call *call;
	void (*on_message)(struct rpc_result *result, const ProtobufCMessage *message);
	void *user;
};
extern const struct cad_rpc_client_handler rpc_result_handler; /* context: struct rpc_result */

/* Sends one request on a stream (which serves unary methods, too) and returns at once. */
void rpc_start(struct rpc_fixture *fixture, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply, const struct cad_rpc_call_options *options, struct rpc_result *result);
/* The same, and waits for the end. */
void rpc_call(struct rpc_fixture *fixture, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply, const struct cad_rpc_call_options *options, struct rpc_result *result);
/* Runs until the flag is set; fails the test after a minute. */
void rpc_run_until(struct rpc_fixture *fixture, const bool *flag);

#endif
