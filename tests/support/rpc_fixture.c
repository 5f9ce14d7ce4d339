/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/rpc_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 60000 };

static void check(enum cad_status status, const struct cad_error *error)
{
	if (status != CAD_OK) {
		fprintf(stderr, "rpc fixture: %s\n", error->text);
		abort();
	}
}

static void refuse(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	(void)message;
	cad_rpc_call_finish(call, CAD_RPC_UNIMPLEMENTED, "not here");
}

size_t rpc_all_methods(const ProtobufCServiceDescriptor *descriptor, const struct cad_rpc_method *given, size_t count,
	struct cad_rpc_method all[RPC_METHODS_MAX])
{
	CAD_ASSERT(descriptor->n_methods <= RPC_METHODS_MAX);
	for (unsigned i = 0; i < descriptor->n_methods; i++) {
		const char *name = descriptor->methods[i].name;
		all[i] = (struct cad_rpc_method){ name, CAD_RPC_UNARY, { .message = refuse }, CAD_RIGHT_READ };
		for (size_t j = 0; j < count; j++)
			if (strcmp(given[j].name, name) == 0)
				all[i] = given[j];
	}
	return descriptor->n_methods;
}

void rpc_fixture_open_loop(struct rpc_fixture *fixture)
{
	struct cad_error error;
	memset(fixture, 0, sizeof *fixture);
	CAD_ASSERT(uv_loop_init(&fixture->loop) == 0);
	check(cad_rpc_reactor_create(&fixture->loop, &fixture->reactor, &error), &error);
}

void rpc_fixture_connect(struct rpc_fixture *fixture, uint16_t port, const struct cad_tls_files *tls,
	const struct cad_rpc_channel_config *config)
{
	struct cad_error error;
	fixture->port = port;
	snprintf(fixture->target, sizeof fixture->target, "127.0.0.1:%u", port);
	check(cad_rpc_channel_create(fixture->reactor, fixture->target, tls, config, &fixture->channel, &error),
		&error);
}

void rpc_fixture_open(struct rpc_fixture *fixture, const struct cad_rpc_server_config *config)
{
	struct cad_error error;
	rpc_fixture_open_loop(fixture);
	check(cad_rpc_server_create(fixture->reactor, config, &fixture->server, &error), &error);
}

void rpc_fixture_start(struct rpc_fixture *fixture, const struct cad_tls_files *server_tls,
	const struct cad_tls_files *client_tls, const struct cad_rpc_channel_config *config)
{
	struct cad_error error;
	uint16_t port;
	check(cad_rpc_server_listen(fixture->server, "127.0.0.1:0", server_tls, &port, &error), &error);
	cad_rpc_server_start(fixture->server);
	rpc_fixture_connect(fixture, port, client_tls, config);
}

static void server_gone(void *context)
{
	struct rpc_fixture *fixture = context;
	fixture->server_gone = true;
}

void rpc_fixture_close(struct rpc_fixture *fixture)
{
	cad_rpc_channel_destroy(fixture->channel);
	if (fixture->server)
		cad_rpc_server_drain(fixture->server, 0, server_gone, fixture);
	cad_rpc_reactor_stop(fixture->reactor);
	cad_rpc_reactor_run(fixture->reactor);
	CAD_ASSERT(!fixture->server || fixture->server_gone);
	cad_rpc_reactor_destroy(fixture->reactor);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	CAD_ASSERT(uv_loop_close(&fixture->loop) == 0);
}

static void out_of_patience(uv_timer_t *timer)
{
	(void)timer;
	fprintf(stderr, "rpc fixture: waited for %d ms in vain\n", PATIENCE_MS);
	abort();
}

void rpc_run_until(struct rpc_fixture *fixture, const bool *flag)
{
	uv_timer_t *patience = malloc(sizeof *patience);
	CAD_ASSERT(patience);
	uv_timer_init(&fixture->loop, patience);
	uv_update_time(&fixture->loop);
	uv_timer_start(patience, out_of_patience, PATIENCE_MS, 0);
	cad_rpc_reactor_run_until(fixture->reactor, flag);
	uv_close((uv_handle_t *)patience, (uv_close_cb)free);
}

static void message(struct cad_rpc_client_call *call, const ProtobufCMessage *received)
{
	struct rpc_result *result = cad_rpc_client_context(call);
	result->messages++;
	result->bytes += protobuf_c_message_get_packed_size(received);
	if (result->on_message)
		result->on_message(result, received);
	if (result->messages == result->cancel_at)
		cad_rpc_client_cancel(call);
	else if (result->messages != result->read_max)
		cad_rpc_client_read(call);
}

static void done(struct cad_rpc_client_call *call, enum cad_rpc_code code, const char *text)
{
	struct rpc_result *result = cad_rpc_client_context(call);
	result->code = code;
	snprintf(result->text, sizeof result->text, "%s", text);
	result->call = NULL;
	result->done = true;
}

const struct cad_rpc_client_handler rpc_result_handler = { .message = message, .done = done };

void rpc_start(struct rpc_fixture *fixture, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply, const struct cad_rpc_call_options *options, struct rpc_result *result)
{
	CAD_ASSERT(cad_rpc_stream(fixture->channel, path, reply, options, &rpc_result_handler, result, &result->call) ==
		CAD_OK);
	(void)cad_rpc_client_send(result->call, request);
	cad_rpc_client_close_send(result->call);
}

void rpc_call(struct rpc_fixture *fixture, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply, const struct cad_rpc_call_options *options, struct rpc_result *result)
{
	rpc_start(fixture, path, request, reply, options, result);
	rpc_run_until(fixture, &result->done);
}
