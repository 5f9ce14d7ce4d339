/* SPDX-License-Identifier: Apache-2.0 */
/* The in-process link between threads: two servers and three clients, each polled by a thread of
 * its own, connections that come and go, wakes from elsewhere. For ThreadSanitizer above all. */
#include "tests/support/exchange.h"
#include "tests/support/must.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SERVERS = 2, CLIENTS = 3, WINDOW = 6, CALLS = 400, ROWS_MAX = 24 };

struct server {
	struct cad_local_hub *hub;
	struct cad_transport *transport;
	char name[24];
	struct cad_request *held[64];
	size_t held_count;
	_Atomic bool stop;
	pthread_t thread;
};

static void hold(struct cad_transport *transport, struct cad_request *request)
{
	struct server *server = cad_transport_user(transport);
	CAD_ASSERT(server->held_count < 64);
	server->held[server->held_count++] = request;
}

static void no_news(struct cad_transport *transport, struct cad_connection *connection, enum cad_connection_state state,
	enum cad_status status, const char *text)
{
	(void)transport, (void)connection, (void)state, (void)status, (void)text;
}

static void answer(struct cad_request *request)
{
	struct cad_buffer *buffer = cad_request_answer_buffer(request);
	CAD_ASSERT(buffer);
	const struct cad_call_view *view = cad_request_view(request);
	size_t bytes = exchange_expected(view, buffer->bytes, buffer->capacity);
	cad_request_answer(request,
		&(struct cadre_wire_answer){
			.data_bytes = bytes - view->call.rows * sizeof(struct cadre_wire_sum),
		},
		bytes);
}

static void *server_run(void *context)
{
	struct server *server = context;
	while (!atomic_load(&server->stop) || server->held_count > 0) {
		/* stopping is a wake */
		cad_transport_poll(server->transport, server->held_count > 0 ? 0 : UINT64_MAX);
		if (server->held_count > 2 || atomic_load(&server->stop) ||
			cad_transport_poll(server->transport, 0) == 0)
			while (server->held_count > 0)
				answer(server->held[--server->held_count]);
	}
	return NULL;
}

struct client {
	struct cad_transport *transport;
	struct cad_connection *connections[SERVERS];
	bool ready[SERVERS], lost[SERVERS];
	pthread_t thread;
	uint64_t seed;
	size_t right, wrong, failed;
};
struct window {
	struct client *client;
	struct cad_buffer payload, answer;
	struct cad_call_start start;
	bool busy;
};

static void client_news(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	(void)status, (void)text;
	struct client *client = cad_transport_user(transport);
	for (int i = 0; i < SERVERS; i++) {
		if (client->connections[i] != connection)
			continue;
		client->ready[i] = state == CAD_CONNECTION_READY;
		client->lost[i] = state == CAD_CONNECTION_CLOSED;
	}
}

static void call_done(void *context, struct cad_call *call, enum cad_status status, const struct cad_answer_view *view)
{
	(void)call;
	struct window *w = context;
	w->busy = false;
	if (status != CAD_OK) {
		w->client->failed++;
		return;
	}

	static _Thread_local uint8_t want[ROWS_MAX * (8 + 2 * EXCHANGE_ELEMENTS)];
	struct cad_call_layout at = cad_wire_call_layout(
		w->start.call.rows, (size_t)w->start.call.data_bytes, w->start.call.groups, w->start.call.pairs);
	struct cad_call_view sent = { .call = w->start.call, .data = w->payload.bytes + at.data };
	size_t bytes = exchange_expected(&sent, want, sizeof want);
	*(memcmp(want, view->sums, bytes) == 0 ? &w->client->right : &w->client->wrong) += 1;
}

static bool busy(const struct window *windows)
{
	for (int i = 0; i < WINDOW; i++)
		if (windows[i].busy)
			return true;
	return false;
}

static void client_connect(struct client *client, int server)
{
	char name[24];
	struct cad_error error;
	snprintf(name, sizeof name, "server-%d", server);
	client->lost[server] = client->ready[server] = false;
	CAD_ASSERT(
		cad_transport_connect(client->transport, name, NULL, &client->connections[server], &error) == CAD_OK);
}

static void *client_run(void *context)
{
	struct client *client = context;
	struct cad_random random = { client->seed };
	struct window windows[WINDOW];

	for (int i = 0; i < WINDOW; i++) {
		windows[i] = (struct window){ .client = client };
		CAD_ASSERT(cad_buffer_create(client->transport,
				   cad_wire_call_bytes_max(ROWS_MAX, EXCHANGE_ELEMENTS, EXCHANGE_EXPERTS, ROWS_MAX),
				   &windows[i].payload) == CAD_OK);
		CAD_ASSERT(cad_buffer_create(client->transport, cad_wire_answer_bytes_max(ROWS_MAX, EXCHANGE_ELEMENTS),
				   &windows[i].answer) == CAD_OK);
	}

	for (int i = 0; i < SERVERS; i++)
		client_connect(client, i);
	for (size_t started = 0; started < CALLS;) {
		int server = (int)cad_random_below(&random, SERVERS);
		struct window *w = &windows[cad_random_below(&random, WINDOW)];
		if (client->lost[server])
			client_connect(client, server);
		if (!w->busy && client->ready[server]) {
			w->start = (struct cad_call_start){
				.payload = &w->payload,
				.answer = &w->answer,
				.done = call_done,
				.context = w,
			};
			w->start.payload_bytes = exchange_pattern(w->payload.bytes, w->payload.capacity,
				1 + (uint32_t)cad_random_below(&random, ROWS_MAX), EXCHANGE_ELEMENTS,
				cad_random_next(&random), &w->start.call);
			struct cad_call *call;
			w->busy = cad_call_start(client->connections[server], &w->start, &call) == CAD_OK;
			started += w->busy;
			if (w->busy && cad_random_below(&random, 40) == 0)
				cad_call_cancel(call);
			if (w->busy && cad_random_below(&random, 60) == 0) {
				client->ready[server] = false;
				cad_connection_close(client->connections[server], CAD_OK, NULL);
			}
		}
		cad_transport_poll(client->transport,
			cad_random_below(&random, 4) ? 0 : cad_clock_now_ns(&cad_clock_system) + 100 * CAD_NS_PER_US);
	}

	while (busy(windows))
		cad_transport_poll(client->transport, cad_clock_now_ns(&cad_clock_system) + CAD_NS_PER_MS);
	for (int i = 0; i < WINDOW; i++) {
		cad_buffer_destroy(client->transport, &windows[i].payload);
		cad_buffer_destroy(client->transport, &windows[i].answer);
	}

	cad_transport_destroy(client->transport);
	return NULL;
}

static void threads(void **state)
{
	(void)state;
	struct cad_local_hub *hub;
	static struct server servers[SERVERS];
	static struct client clients[CLIENTS];
	struct cad_transport_options options;
	struct cad_error error;
	assert_int_equal(cad_local_hub_create(&hub), CAD_OK);

	for (int i = 0; i < SERVERS; i++) {
		exchange_options(&options, "expert", true);
		options.user = &servers[i];
		options.on_request = hold;
		options.on_connection = no_news;
		options.connections_max = 16;
		snprintf(servers[i].name, sizeof servers[i].name, "server-%d", i);
		must(cad_transport_local_create(&options, hub, &servers[i].transport, &error), &error);
		must(cad_transport_listen(servers[i].transport, servers[i].name, &error), &error);
		pthread_create(&servers[i].thread, NULL, server_run, &servers[i]);
	}

	for (int i = 0; i < CLIENTS; i++) {
		exchange_options(&options, "router", false);
		options.user = &clients[i];
		options.on_connection = client_news;
		clients[i].seed = (uint64_t)i + 1;
		must(cad_transport_local_create(&options, hub, &clients[i].transport, &error), &error);
		pthread_create(&clients[i].thread, NULL, client_run, &clients[i]);
	}

	size_t right = 0, failed = 0;
	for (int i = 0; i < CLIENTS; i++) {
		pthread_join(clients[i].thread, NULL);
		assert_int_equal(clients[i].wrong, 0);
		right += clients[i].right;
		failed += clients[i].failed;
	}

	assert_int_equal(right + failed, CLIENTS * CALLS);
	assert_true(right > CLIENTS * CALLS / 2);

	for (int i = 0; i < SERVERS; i++) {
		atomic_store(&servers[i].stop, true);
		cad_transport_wake(servers[i].transport);
		pthread_join(servers[i].thread, NULL);
		cad_transport_destroy(servers[i].transport); /* nobody wakes it any more */
	}

	cad_local_hub_destroy(hub);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(threads) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
