/* SPDX-License-Identifier: Apache-2.0 */
/* grpc.health.v1.Health: Check and Watch. */
#include "common/rpc/health.h"

#include "common/rpc/internal.h"
#include "grpc/health/v1/health.pb-c.h"

#include <stdlib.h>
#include <string.h>

enum { SERVICE_NAME_BYTES_MAX = 256, UNREAD_BYTES_MAX = 1024 };

struct entry {
	struct entry *next;
	char *name;
	bool serving;
};

struct watcher {
	struct watcher *next, **link;
	struct cad_rpc_health *health;
	struct cad_rpc_call *call;
	char *name;
	int last; /* the status that was sent */
};

struct cad_rpc_health {
	struct entry *entries;
	struct watcher *watchers;
	bool down;
	struct cad_rpc_service service;
};

typedef Grpc__Health__V1__HealthCheckRequest HealthRequest;
typedef Grpc__Health__V1__HealthCheckResponse HealthResponse;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus ServingStatus;
#define SERVING_STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

static ServingStatus look_up(const struct cad_rpc_health *health, const char *name)
{
	for (const struct entry *entry = health->entries; entry; entry = entry->next)
		if (strcmp(entry->name, name) == 0)
			return entry->serving && !health->down ? SERVING_STATUS(SERVING) : SERVING_STATUS(NOT_SERVING);
	return SERVING_STATUS(SERVICE_UNKNOWN);
}

static void check(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	const HealthRequest *request = (const HealthRequest *)message;
	HealthResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

	response.status = look_up(cad_rpc_call_context(call), request->service);
	if (response.status == SERVING_STATUS(SERVICE_UNKNOWN))
		cad_rpc_call_finish(
			call, CAD_RPC_NOT_FOUND, "this server has no service named '%.200s'", request->service);
	else
		cad_rpc_call_reply(call, &response.base);
}

static void watcher_tell(struct watcher *watcher)
{
	HealthResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
	response.status = look_up(watcher->health, watcher->name);
	if ((int)response.status != watcher->last) {
		watcher->last = (int)response.status;
		(void)cad_rpc_call_send(watcher->call, &response.base);
	}
	if (watcher->health->down)
		cad_rpc_call_finish(watcher->call, CAD_RPC_UNAVAILABLE, "the server is shutting down");
	else if (cad_rpc_call_queued_bytes(watcher->call) > UNREAD_BYTES_MAX)
		cad_rpc_call_abort(
			watcher->call, CAD_RPC_RESOURCE_EXHAUSTED, "this Watch is not being read; watch again");
}

static void watch(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	const HealthRequest *request = (const HealthRequest *)message;
	if (strlen(request->service) > SERVICE_NAME_BYTES_MAX) {
		cad_rpc_call_finish(call, CAD_RPC_INVALID_ARGUMENT, "the name of a service may have at most %d bytes",
			SERVICE_NAME_BYTES_MAX);
		return;
	}

	struct cad_rpc_health *health = cad_rpc_call_context(call);
	struct watcher *watcher = cad_rpc_must(calloc(1, sizeof *watcher));
	*watcher = (struct watcher){
		.next = health->watchers,
		.link = &health->watchers,
		.health = health,
		.call = call,
		.last = -1,
	};
	watcher->name = cad_rpc_must(strdup(request->service));
	if (watcher->next)
		watcher->next->link = &watcher->next;
	health->watchers = watcher;
	cad_rpc_call_set_state(call, watcher);
	watcher_tell(watcher);
}

static void watch_done(struct cad_rpc_call *call, bool cancelled)
{
	(void)cancelled;
	struct watcher *watcher = cad_rpc_call_state(call);
	if (!watcher)
		return;
	*watcher->link = watcher->next;
	if (watcher->next)
		watcher->next->link = watcher->link;
	free(watcher->name);
	free(watcher);
}

/* Probes usually carry no token: both are open. */
static const struct cad_rpc_method methods[] = {
	{
		.name = "Check",
		.kind = CAD_RPC_UNARY,
		.right = CAD_RIGHT_PROBE,
		.on = { .message = check },
	},
	{
		.name = "Watch",
		.kind = CAD_RPC_SERVER_STREAM,
		.right = CAD_RIGHT_PROBE,
		.on = { .message = watch, .done = watch_done },
	},
};

enum cad_status cad_rpc_health_create(
	struct cad_rpc_server *server, struct cad_rpc_health **created, struct cad_error *error)
{
	struct cad_rpc_health *health = calloc(1, sizeof *health);
	if (!health)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the health service");
	health->service = (struct cad_rpc_service){ &grpc__health__v1__health__descriptor, methods,
		sizeof methods / sizeof methods[0], health };
	cad_rpc_server_add(server, &health->service);
	cad_rpc_health_set(health, "", false);
	*created = health;
	return CAD_OK;
}

/* No callback runs inside these loops, so the list stays as it is. */
static void watchers_tell(struct cad_rpc_health *health)
{
	for (struct watcher *watcher = health->watchers; watcher; watcher = watcher->next)
		watcher_tell(watcher);
}

void cad_rpc_health_set(struct cad_rpc_health *health, const char *service, bool serving)
{
	struct entry *entry = health->entries;
	while (entry && strcmp(entry->name, service) != 0)
		entry = entry->next;
	if (!entry) {
		entry = cad_rpc_must(malloc(sizeof *entry));
		*entry = (struct entry){ .next = health->entries, .name = cad_rpc_must(strdup(service)) };
		health->entries = entry;
	}
	entry->serving = serving;
	watchers_tell(health);
}

void cad_rpc_health_shutdown(struct cad_rpc_health *health)
{
	health->down = true;
	watchers_tell(health);
}

void cad_rpc_health_destroy(struct cad_rpc_health *health)
{
	if (!health)
		return;
	for (struct entry *entry = health->entries, *next; entry; entry = next) {
		next = entry->next;
		free(entry->name);
		free(entry);
	}
	free(health);
}

/* ---- the question ---- */

static bool on_answer(void *context, const ProtobufCMessage *message)
{
	*(bool *)context = ((const Grpc__Health__V1__HealthCheckResponse *)message)->status ==
		GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
	return true;
}

enum cad_status cad_rpc_health_ask(
	struct cad_rpc_blocking *client, int64_t timeout_ms, bool *serving, struct cad_error *error)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	const struct cad_rpc_call_options call = { .timeout_ms = timeout_ms };

	return cad_rpc_blocking_call(client, "/grpc.health.v1.Health/Check", &request.base,
		&grpc__health__v1__health_check_response__descriptor, &call, on_answer, serving, NULL, error);
}
