/* SPDX-License-Identifier: Apache-2.0 */
/* Server: tables of methods, listening, admission, drain. The calls themselves are in call.c. */
#include "common/rpc/server.h"

#include "common/base/address.h"
#include "common/rpc/internal.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

/* Requests that wait at gRPC for a call, per method: calls arrive in bursts, and each one is
 * replaced at once. */
enum { ARMED_PER_METHOD = 4 };
/* A stall is measured in so many ticks, which do not come while the process is stopped. */
enum { STALL_TICKS = 10 };
/* For clients to take the news that the server stops. */
enum { FAREWELL_MS = 500 };
/* gRPC has one limit for headers, and ends the connection there, with every other call on it. So it
 * is set far above metadata_bytes_max, from which a call is refused for itself (call.c). Floods
 * cost what they did: gRPC 1.51 counts each frame of a header block by itself, so that no limit
 * bounds the whole (bench/header_flood.py). */
enum { CONNECTION_METADATA_BYTES_MAX = 1 << 20 };

struct cad_rpc_server {
	grpc_server *core;
	struct cad_rpc_server_config config;
	struct cad_rpc_reactor *reactor;
	const struct cad_rpc_service **services;
	size_t service_count;
	struct cad_rpc_entry **entries;
	size_t entry_count;
	bool started, draining;
	struct cad_rpc_call *live;
	unsigned live_calls;
	size_t objects; /* calls, armed ones too, and one until gRPC has shut down: the server is freed at 0 */
	struct cad_rpc_event on_shutdown, on_gone;
	uv_timer_t grace, stall;
	void (*done)(void *context);
	void *done_context;
};

const struct cad_rpc_server_config *cad_rpc_server_settings(const struct cad_rpc_server *server)
{
	return &server->config;
}
struct cad_rpc_reactor *cad_rpc_server_reactor(const struct cad_rpc_server *server) { return server->reactor; }

size_t cad_rpc_server_services(const struct cad_rpc_server *server, const struct cad_rpc_service *const **services)
{
	*services = server->services;
	return server->service_count;
}

static void object_gone(struct cad_rpc_server *server)
{
	if (--server->objects == 0)
		cad_rpc_post(server->reactor, &server->on_gone);
}

bool cad_rpc_server_admit(struct cad_rpc_server *server, struct cad_rpc_call *call)
{
	call->admitted = true;
	call->next = server->live;
	call->previous = &server->live;
	if (call->next)
		call->next->previous = &call->next;
	server->live = call;
	return ++server->live_calls <= server->config.calls_max;
}

void cad_rpc_server_call_gone(struct cad_rpc_server *server, const struct cad_rpc_call *call)
{
	if (call->admitted) {
		*call->previous = call->next;
		if (call->next)
			call->next->previous = call->previous;
		server->live_calls--;
	}
	object_gone(server);
}

/* ---- setup ---- */

static void config_fill(struct cad_rpc_server_config *config)
{
#define DEFAULT(field, value) \
	if (config->field == 0) \
	config->field = value
	DEFAULT(receive_bytes_max, 4 << 20);
	DEFAULT(send_bytes_max, 16 << 20);
	DEFAULT(metadata_bytes_max, 16 << 10);
	DEFAULT(streams_per_connection_max, 1000);
	DEFAULT(calls_max, 10000);
	DEFAULT(keepalive_time_ms, 60000);
	DEFAULT(keepalive_timeout_ms, 20000);
	DEFAULT(client_ping_ms_min, 10000);
	DEFAULT(handshake_timeout_ms, 10000);
	DEFAULT(decoded_bytes_max, 64u << 20);
	DEFAULT(out_high_bytes, 256u << 10);
	DEFAULT(out_low_bytes, config->out_high_bytes / 4);
	DEFAULT(descriptors_reserve, 5000);
	DEFAULT(stopping, "the server is stopping; ask another one, or again later");
#undef DEFAULT
}

static grpc_server *core_create(const struct cad_rpc_server_config *config)
{
	grpc_arg arguments[16] = {
		cad_rpc_integer_argument(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, config->receive_bytes_max),
		cad_rpc_integer_argument(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, config->send_bytes_max),
		cad_rpc_integer_argument(GRPC_ARG_MAX_METADATA_SIZE, CONNECTION_METADATA_BYTES_MAX),
		cad_rpc_integer_argument(GRPC_ARG_MAX_CONCURRENT_STREAMS, config->streams_per_connection_max),
		cad_rpc_integer_argument(GRPC_ARG_KEEPALIVE_TIME_MS, config->keepalive_time_ms),
		cad_rpc_integer_argument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, config->keepalive_timeout_ms),
		cad_rpc_integer_argument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
		cad_rpc_integer_argument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
		cad_rpc_integer_argument(
			GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, config->client_ping_ms_min),
		cad_rpc_integer_argument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, config->handshake_timeout_ms),
		/* a second server on the port must fail, not share it */
		cad_rpc_integer_argument(GRPC_ARG_ALLOW_REUSEPORT, 0),
		cad_rpc_integer_argument(GRPC_ARG_ENABLE_CHANNELZ, 0),
		/* gRPC inflates first and looks at the size afterwards: message.c does it with a
		 * limit. */
		cad_rpc_integer_argument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
	};
	size_t count = 13;

	if (cad_rpc_guard_argument(config->descriptors_reserve, &arguments[count]))
		count++;

	return grpc_server_create(&(grpc_channel_args){ .num_args = count, .args = arguments }, NULL);
}

static void stall_gone(uv_handle_t *handle)
{
	struct cad_rpc_server *server = handle->data;
	struct cad_rpc_reactor *reactor = server->reactor;

	void (*done)(void *context) = server->done;
	void *context = server->done_context;
	free(server);
	if (done)
		done(context);
	cad_rpc_reactor_release(reactor);
}

static void grace_gone(uv_handle_t *handle)
{
	struct cad_rpc_server *server = handle->data;
	uv_close((uv_handle_t *)&server->stall, stall_gone);
}

static void gone(struct cad_rpc_event *event, bool ok)
{
	(void)ok;
	struct cad_rpc_server *server = CAD_CONTAINER_OF(event, struct cad_rpc_server, on_gone);
	grpc_server_destroy(server->core);
	for (size_t i = 0; i < server->entry_count; i++) {
		free(server->entries[i]->path);
		free(server->entries[i]);
	}
	free(server->entries);
	free(server->services);
	uv_close((uv_handle_t *)&server->grace, grace_gone);
}

static void shut_down(struct cad_rpc_event *event, bool ok)
{
	(void)ok;
	object_gone(CAD_CONTAINER_OF(event, struct cad_rpc_server, on_shutdown));
}

enum cad_status cad_rpc_server_create(struct cad_rpc_reactor *reactor, const struct cad_rpc_server_config *config,
	struct cad_rpc_server **created, struct cad_error *error)
{
	struct cad_rpc_server *server = calloc(1, sizeof *server);
	if (!server)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a gRPC server");

	if (config)
		server->config = *config;
	config_fill(&server->config);
	server->core = core_create(&server->config);
	server->reactor = reactor;
	server->objects = 1;
	server->on_shutdown.run = shut_down;
	server->on_gone.run = gone;
	server->grace.data = server->stall.data = server;
	uv_timer_init(cad_rpc_reactor_loop(reactor), &server->grace);
	uv_timer_init(cad_rpc_reactor_loop(reactor), &server->stall);
	cad_rpc_reactor_acquire(reactor);
	grpc_server_register_completion_queue(server->core, cad_rpc_reactor_queue(reactor), NULL);
	*created = server;

	return CAD_OK;
}

static bool takes_one_message(const struct cad_rpc_method *method)
{
	return method->kind == CAD_RPC_UNARY || method->kind == CAD_RPC_SERVER_STREAM;
}

static struct cad_rpc_entry *entry_create(
	struct cad_rpc_server *server, const struct cad_rpc_service *service, const struct cad_rpc_method *method)
{
	const ProtobufCMethodDescriptor *descriptor =
		protobuf_c_service_descriptor_get_method_by_name(service->descriptor, method->name);

	CAD_ASSERT(descriptor && method->on.message && method->right != CAD_RIGHT_UNSAID);
	struct cad_rpc_entry *entry = cad_rpc_must(calloc(1, sizeof *entry));
	CAD_ASSERT(asprintf(&entry->path, "/%s/%s", service->descriptor->name, method->name) > 0);
	entry->service = service;
	entry->method = method;
	entry->request = descriptor->input;
	entry->handle = grpc_server_register_method(server->core, entry->path, NULL,
		takes_one_message(method) ? GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER : GRPC_SRM_PAYLOAD_NONE, 0);
	CAD_ASSERT(entry->handle); /* NULL: registered twice */

	return entry;
}

void cad_rpc_server_add(struct cad_rpc_server *server, const struct cad_rpc_service *service)
{
	CAD_ASSERT(!server->started && service->method_count == service->descriptor->n_methods);
	server->services =
		cad_rpc_must(realloc(server->services, (server->service_count + 1) * sizeof *server->services));
	server->services[server->service_count++] = service;
	server->entries = cad_rpc_must(
		realloc(server->entries, (server->entry_count + service->method_count) * sizeof *server->entries));
	for (size_t i = 0; i < service->method_count; i++)
		server->entries[server->entry_count++] = entry_create(server, service, &service->methods[i]);
}

/* gRPC only says no; an attempt of our own says why. */
static const char *bind_error(const char *address)
{
	static const char *const unknown = "the address is malformed, or its host is unknown";
	struct cad_address parts;
	struct cad_error ignored;

	if (cad_address_parse(address, &parts, &ignored) != CAD_OK)
		return "it must be host:port";

	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found;
	if (getaddrinfo(parts.host, parts.port_text, &hints, &found) != 0)
		return unknown;
	int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	const char *why = NULL;
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1) != 0)
			why = strerror(errno);
		close(fd);
	}

	freeaddrinfo(found);
	return why ? why
		   : "gRPC gives no reason; if TLS is on, check that certificate and key are valid and belong together";
}

enum cad_status cad_rpc_server_listen(struct cad_rpc_server *server, const char *address,
	const struct cad_tls_files *tls, uint16_t *port, struct cad_error *error)
{
	CAD_ASSERT(!server->started);
	grpc_server_credentials *credentials;
	enum cad_status status = cad_rpc_server_credentials(tls, &credentials, error);
	if (status != CAD_OK)
		return status;
	cad_rpc_quiet = true;
	int bound = grpc_server_add_http2_port(server->core, address, credentials);
	cad_rpc_quiet = false;
	grpc_server_credentials_release(credentials); /* the server keeps a reference of its own */
	if (bound <= 0)
		return cad_error_set(
			error, CAD_ERR_IO, "cannot listen for gRPC on '%s': %s", address, bind_error(address));
	if (port)
		*port = (uint16_t)bound;

	return CAD_OK;
}

/* ---- serving ---- */

void cad_rpc_server_arm(struct cad_rpc_server *server, const struct cad_rpc_entry *entry)
{
	if (server->draining)
		return;

	struct cad_rpc_call *call = cad_rpc_call_create(server, entry);
	server->objects++;
	grpc_completion_queue *queue = cad_rpc_reactor_queue(server->reactor);
	grpc_call_error error;
	cad_rpc_event_out(&call->on_new);

	if (entry)
		error = grpc_server_request_registered_call(server->core, entry->handle, &call->core, &call->deadline,
			&call->metadata, takes_one_message(entry->method) ? &call->received : NULL, queue, queue,
			&call->on_new);
	else
		error = grpc_server_request_call(
			server->core, &call->core, &call->details, &call->metadata, queue, queue, &call->on_new);
	CAD_ASSERT(error == GRPC_CALL_OK);
}

static void stall_tick(uv_timer_t *timer)
{
	struct cad_rpc_server *server = timer->data;
	const struct cad_rpc_server_config *config = &server->config;
	char sentence[CAD_ERROR_TEXT_BYTES];

	for (struct cad_rpc_call *call = server->live; call; call = call->next) {
		if (!cad_rpc_call_stalls(call, STALL_TICKS))
			continue;
		snprintf(sentence, sizeof sentence,
			"the client took nothing for %g s while more was waiting for it, which is this server's limit: read the answer as it comes",
			config->stall_ms * 1e-3);
		cad_rpc_call_cut(call, CAD_RPC_RESOURCE_EXHAUSTED, sentence);
		if (config->on_stall)
			config->on_stall(config->stall_context);
	}
}

void cad_rpc_server_start(struct cad_rpc_server *server)
{
	CAD_ASSERT(!server->started && !server->draining);
	server->started = true;
	grpc_server_start(server->core);
	for (size_t i = 0; i < server->entry_count; i++)
		for (int armed = 0; armed < ARMED_PER_METHOD; armed++)
			cad_rpc_server_arm(server, server->entries[i]);
	cad_rpc_server_arm(server, NULL);
	if (server->config.stall_ms > 0) {
		unsigned tick_ms = (server->config.stall_ms + STALL_TICKS - 1) / STALL_TICKS;
		uv_timer_start(&server->stall, stall_tick, tick_ms, tick_ms);
	}
}

static void farewell_over(uv_timer_t *timer)
{
	struct cad_rpc_server *server = timer->data;
	grpc_server_cancel_all_calls(server->core);
}

/* Running calls are ended with the reason; a client that reads nothing is abandoned after a
 * moment. */
static void grace_over(uv_timer_t *timer)
{
	struct cad_rpc_server *server = timer->data;
	for (struct cad_rpc_call *call = server->live; call; call = call->next)
		cad_rpc_call_abort(call, CAD_RPC_UNAVAILABLE, "%s", server->config.stopping);
	uv_timer_start(timer, farewell_over, FAREWELL_MS, 0);
}

void cad_rpc_server_drain(struct cad_rpc_server *server, unsigned grace_ms, void (*done)(void *context), void *context)
{
	if (server->draining)
		return;

	server->draining = true;
	server->done = done;
	server->done_context = context;
	if (!server->started)
		grpc_server_start(server->core); /* gRPC cannot shut down what never started */
	cad_rpc_event_out(&server->on_shutdown);
	grpc_server_shutdown_and_notify(server->core, cad_rpc_reactor_queue(server->reactor), &server->on_shutdown);
	uv_update_time(cad_rpc_reactor_loop(server->reactor));
	uv_timer_start(&server->grace, grace_over, grace_ms, 0);
}
