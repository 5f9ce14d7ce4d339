/* SPDX-License-Identifier: Apache-2.0 */
/* A client for command lines: one call at a time, on a loop of its own. */
#include "common/rpc/blocking.h"

#include "common/rpc/internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <uv.h>

struct cad_rpc_blocking {
	uv_loop_t loop;
	uv_async_t interrupt;
	uv_timer_t pause;
	struct cad_rpc_reactor *reactor;
	struct cad_rpc_channel *channel;
	/* the running call */
	struct cad_rpc_client_call *call;
	const ProtobufCMessage *request;                /* the only one; or */
	const ProtobufCMessage *(*next)(void *context); /* NULL: all are sent */
	bool (*on_message)(void *context, const ProtobufCMessage *message);
	void *context;
	bool done, ended_early;
	enum cad_rpc_code code;
	struct cad_error *error;
};

static void message(struct cad_rpc_client_call *call, const ProtobufCMessage *received)
{
	struct cad_rpc_blocking *client = cad_rpc_client_context(call);
	if (client->on_message(client->context, received)) {
		cad_rpc_client_read(call);
	} else {
		client->ended_early = true;
		cad_rpc_client_cancel(call);
	}
}

static void done(struct cad_rpc_client_call *call, enum cad_rpc_code code, const char *text)
{
	struct cad_rpc_blocking *client = cad_rpc_client_context(call);
	client->code = client->ended_early ? CAD_RPC_OK : code;
	if (client->code != CAD_RPC_OK)
		cad_error_set(client->error, cad_rpc_status_of_code(code), "%s: %s", cad_rpc_code_name(code), text);
	client->call = NULL;
	client->done = true;
}

/* As much as there is room for. */
static void send_more(struct cad_rpc_client_call *call)
{
	struct cad_rpc_blocking *client = cad_rpc_client_context(call);
	enum cad_status status = CAD_OK;

	while (client->next && status == CAD_OK) {
		const ProtobufCMessage *request = client->next(client->context);
		if (request) {
			status = cad_rpc_client_send(call, request);
		} else {
			client->next = NULL;
			cad_rpc_client_close_send(call);
		}
	}
}

static const struct cad_rpc_client_handler handler = { .message = message, .writable = send_more, .done = done };

static void interrupted(uv_async_t *async)
{
	struct cad_rpc_blocking *client = async->data;
	if (client->call)
		cad_rpc_client_cancel(client->call);
}

static void loop_close(struct cad_rpc_blocking *client)
{
	uv_close((uv_handle_t *)&client->interrupt, NULL);
	uv_close((uv_handle_t *)&client->pause, NULL);
	uv_run(&client->loop, UV_RUN_DEFAULT);
	CAD_ASSERT(uv_loop_close(&client->loop) == 0);
	free(client);
}

enum cad_status cad_rpc_blocking_create(const char *target, const struct cad_tls_files *tls,
	const struct cad_rpc_channel_config *config, struct cad_rpc_blocking **created, struct cad_error *error)
{
	struct cad_rpc_blocking *client = calloc(1, sizeof *client);
	if (!client || uv_loop_init(&client->loop) != 0) {
		free(client);
		return cad_error_set(error, CAD_ERR_MEMORY,
			"cannot create an event loop for gRPC: out of memory or file descriptors");
	}

	CAD_ASSERT(uv_async_init(&client->loop, &client->interrupt, interrupted) == 0);
	client->interrupt.data = client;
	CAD_ASSERT(uv_timer_init(&client->loop, &client->pause) == 0);
	client->pause.data = client;
	enum cad_status status = cad_rpc_reactor_create(&client->loop, &client->reactor, error);
	if (status == CAD_OK)
		status = cad_rpc_channel_create(client->reactor, target, tls, config, &client->channel, error);
	if (status != CAD_OK) {
		cad_rpc_reactor_destroy(client->reactor);
		loop_close(client);
		return status;
	}

	*created = client;
	return CAD_OK;
}

void cad_rpc_blocking_destroy(struct cad_rpc_blocking *client)
{
	if (!client)
		return;
	cad_rpc_channel_destroy(client->channel);
	cad_rpc_reactor_destroy(client->reactor);
	loop_close(client);
}

enum cad_status cad_rpc_blocking_upload(struct cad_rpc_blocking *client, const char *path,
	const ProtobufCMessage *(*next)(void *context), const ProtobufCMessageDescriptor *reply,
	const struct cad_rpc_call_options *options, bool (*on_message)(void *context, const ProtobufCMessage *message),
	void *context, enum cad_rpc_code *code, struct cad_error *error)
{
	client->next = next;
	client->on_message = on_message;
	client->context = context;
	client->done = client->ended_early = false;
	client->error = error;

	/* On the wire a unary call is a stream of one message each way. */
	if (cad_rpc_stream(client->channel, path, reply, options, &handler, client, &client->call))
		return cad_error_set(
			error, CAD_ERR_INVALID, "a header of the call has characters that HTTP/2 does not allow");
	if (next) {
		send_more(client->call);
	} else {
		(void)cad_rpc_client_send(client->call, client->request);
		cad_rpc_client_close_send(client->call);
	}
	cad_rpc_reactor_run_until(client->reactor, &client->done);
	if (code)
		*code = client->code;

	return cad_rpc_status_of_code(client->code);
}

enum cad_status cad_rpc_blocking_call(struct cad_rpc_blocking *client, const char *path,
	const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
	const struct cad_rpc_call_options *options, bool (*on_message)(void *context, const ProtobufCMessage *message),
	void *context, enum cad_rpc_code *code, struct cad_error *error)
{
	client->request = request;
	return cad_rpc_blocking_upload(client, path, NULL, reply, options, on_message, context, code, error);
}

static void pause_over(uv_timer_t *timer)
{
	struct cad_rpc_blocking *client = timer->data;
	client->done = true;
}

void cad_rpc_blocking_pause(struct cad_rpc_blocking *client, uint64_t ms)
{
	client->done = false;
	uv_update_time(&client->loop);
	uv_timer_start(&client->pause, pause_over, ms, 0);
	cad_rpc_reactor_run_until(client->reactor, &client->done);
}

void cad_rpc_blocking_interrupt(struct cad_rpc_blocking *client) { uv_async_send(&client->interrupt); }

void cad_rpc_blocking_hush(void) { atomic_store(&cad_rpc_hushed, true); }
