/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract of the transport, one table of cases that every link has to keep: in-process with
 * two polls, in-process attached, the simulator, UCX over TCP. A case gets an empty exchange and
 * asserts; nothing depends on how long anything takes.
 */
#include "tests/support/exchange_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct pair {
	struct exchange_node *server, *client;
	struct cad_connection *connection;
};

static void pair_options(struct cad_transport_options *server, struct cad_transport_options *client)
{
	exchange_options(server, "expert-1", true);
	exchange_options(client, "router-1", false);
}

static struct pair pair_connect(
	struct exchange *x, const struct cad_transport_options *server, const struct cad_transport_options *client)
{
	struct pair p = { .server = exchange_server(x, server, "expert") };
	p.client = exchange_node_create(x, client);
	if (x->form == EXCHANGE_ATTACHED) {
		cad_transport_local_attach(p.client->transport, p.server->transport);
		p.server->paused = true; /* the client polls it */
	}
	p.connection = exchange_connect(p.client, cad_transport_address(p.server->transport));
	return p;
}

static struct pair pair_default(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	struct pair p = pair_connect(x, &server, &client);
	assert_non_null(p.connection);
	return p;
}

static bool held_enough(void *context) { return ((struct exchange_node *)context)->held_count > 0; }

/* ---- hello ---- */

static void hello(struct exchange *x)
{
	struct pair p = pair_default(x);
	assert_string_equal(cad_connection_peer(p.connection), "expert-1");
	assert_int_equal(cad_connection_rows_max(p.connection), 1024);
	assert_ptr_equal(cad_connection_user(p.connection), p.client);
	assert_int_equal(p.server->ready_count, 1);
	assert_string_equal(cad_connection_peer(p.server->last_ready), "router-1");
	assert_int_equal(cad_transport_stats(p.client->transport)->connections_opened, 1);
}

static void hello_with_secret(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	server.secret = client.secret = "sixteen bytes or more";
	assert_non_null(pair_connect(x, &server, &client).connection);
}

/* What both sides say about a connection that must not be. */
static void refused(struct exchange *x, const struct cad_transport_options *server,
	const struct cad_transport_options *client, const char *part, const char *other)
{
	struct pair p = pair_connect(x, server, client);
	assert_null(p.connection);
	assert_int_equal(p.client->closed[0].status, CAD_ERR_REFUSED);
	assert_true(exchange_run_until(x, exchange_closed_some, p.server));
	assert_int_equal(p.server->closed[0].status, CAD_ERR_REFUSED);
	assert_int_equal(p.client->ready_count + p.server->ready_count, 0);
	for (int side = 0; side < 2; side++) {
		const char *text = side ? p.server->closed[0].text : p.client->closed[0].text;
		if (!strstr(text, part) || !strstr(text, other))
			fail_msg("'%s' names not both of '%s' and '%s'", text, part, other);
	}
}

static void refuse_cluster(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	strcpy(client.identity.cluster, "berlin");
	refused(x, &server, &client, "'test'", "'berlin'");
}

static void refuse_model(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	strcpy(client.identity.model, "aaaabbbbccccdddd");
	refused(x, &server, &client, "0123456789abcdef", "aaaabbbbccccdddd");
}

static void refuse_settings(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	strcpy(client.identity.settings, "0000000000000000");
	strcpy(client.identity.settings_text, "profile=bf16 wire=bf16");
	refused(x, &server, &client, "profile=f32 wire=fix16", "profile=bf16 wire=bf16");

	/* the longest that there are: only their ends differ */
	static const char long_server[] =
		"profile=bf16-sm90 router=f32 wire=bf16 weights=bf16 kv=int8 quanta=512:5f2b90c1",
			  long_client[] =
				  "profile=bf16-sm90 router=f32 wire=bf16 weights=bf16 kv=int8 quanta=512:5f2b90c2";
	while (x->nodes_count > 0)
		exchange_node_destroy(x->nodes[x->nodes_count - 1]);
	strcpy(server.identity.settings_text, long_server);
	strcpy(client.identity.settings_text, long_client);
	refused(x, &server, &client, long_server, long_client);
}

static void refuse_secret(struct exchange *x)
{
	static const char *const secrets[][2] = { { "sixteen bytes or more", NULL }, { NULL, "sixteen bytes or more" },
		{ "sixteen bytes or more", "sixteen bytes or mors" } };
	for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
		struct cad_transport_options server, client;
		exchange_options(&server, "expert-1", true);
		exchange_options(&client, "router-1", false);
		server.secret = secrets[i][0];
		client.secret = secrets[i][1];
		refused(x, &server, &client, "secret", "expert-1");
		while (x->nodes_count > 0)
			exchange_node_destroy(x->nodes[x->nodes_count - 1]);
	}
}

static void unreachable(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	struct exchange_node *node = exchange_node_create(x, &client), *dead = exchange_server(x, &server, "dead");
	char address[CAD_EXCHANGE_ADDRESS_BYTES];
	snprintf(address, sizeof address, "%s", cad_transport_address(dead->transport));
	exchange_node_destroy(dead);
	assert_null(exchange_connect(node, address));
	assert_true(node->closed[0].status == CAD_ERR_UNREACHABLE || node->closed[0].status == CAD_ERR_PEER_LOST);
	assert_true(strlen(node->closed[0].text) > 10);
}

static void options_are_checked(struct exchange *x)
{
	struct cad_transport_options options;
	struct cad_transport *transport = NULL;
	struct cad_error error;

	exchange_options(&options, "router-1", false);
	options.secret = "too short";
	assert_int_equal(
		cad_transport_create(&options, exchange_link_create(x), exchange_link_context(x), &transport, &error),
		CAD_ERR_INVALID);
	exchange_options(&options, "router-1", false);
	options.limits.payload_bytes_max = 0;
	assert_int_equal(
		cad_transport_create(&options, exchange_link_create(x), exchange_link_context(x), &transport, &error),
		CAD_ERR_INVALID);
	exchange_options(&options, "router-1", false);
	struct exchange_node *node = exchange_node_create(x, &options);
	assert_int_equal(cad_transport_listen(node->transport, "127.0.0.1:0", &error), CAD_ERR_INVALID);
}

static void connections_are_bounded(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	client.connections_max = 4;
	server.connections_max = 2;
	struct pair p = pair_connect(x, &server, &client);
	const char *address = cad_transport_address(p.server->transport);
	assert_non_null(p.connection);
	assert_non_null(exchange_connect(p.client, address));
	assert_null(exchange_connect(p.client, address));
	while (p.client->ready_count < 2)
		assert_non_null(exchange_connect(p.client, address));
	struct cad_connection *two[2], *more;
	for (int i = 0; i < 2; i++)
		two[i] = exchange_connect_start(p.client, address);
	struct cad_error error;
	assert_int_equal(cad_transport_connect(p.client->transport, address, NULL, &more, &error), CAD_ERR_EXHAUSTED);
	(void)two;
}

/* ---- calls ---- */

static void call_and_answer(struct exchange *x)
{
	static const uint32_t rows[] = { 1, 2, 7, 8, 9, 64, 513, 1024 };
	struct pair p = pair_default(x);

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct exchange_call call;
		exchange_call_create(&call, p.client, rows[i], EXCHANGE_ELEMENTS, 100 + i);
		for (int again = 0; again < 3; again++) {
			call.seed++;
			assert_int_equal(exchange_call_start(&call, p.connection, 0), CAD_OK);
			assert_int_equal(call.done, 0);
			assert_true(exchange_run_until(x, exchange_call_done, &call));
			assert_int_equal(call.status, CAD_OK);
			assert_true(call.right);
		}
		exchange_call_destroy(&call);
	}

	assert_int_equal(cad_transport_stats(p.client->transport)->calls, 24);
	assert_int_equal(cad_transport_stats(p.client->transport)->answers, 24);
}

/* Payloads of many megabytes both ways, several at once. */
static void big_payloads(struct exchange *x)
{
	enum { ROWS = 512, ELEMENTS = 4096, CALLS = 3 };
	struct cad_transport_options server, client;

	pair_options(&server, &client);
	server.limits.row_elements = client.limits.row_elements = ELEMENTS;
	server.limits.payload_bytes_max = client.limits.payload_bytes_max = 32u << 20;
	server.credit_bytes = 128u << 20;
	struct pair p = pair_connect(x, &server, &client);
	assert_non_null(p.connection);
	struct exchange_call calls[CALLS];
	for (int i = 0; i < CALLS; i++) {
		exchange_call_create(&calls[i], p.client, ROWS, ELEMENTS, (uint64_t)i);
		assert_int_equal(exchange_call_start(&calls[i], p.connection, 0), CAD_OK);
	}

	for (int i = 0; i < CALLS; i++) {
		assert_true(exchange_run_until(x, exchange_call_done, &calls[i]));
		assert_true(calls[i].right);
		exchange_call_destroy(&calls[i]);
	}
}

static void wire_statuses(struct exchange *x)
{
	struct pair p = pair_default(x);
	p.server->serve = EXCHANGE_HOLD;
	for (uint8_t status = CADRE_WIRE_NOT_HELD; status <= CADRE_WIRE_INTERNAL; status++) {
		struct exchange_call call;
		exchange_call_create(&call, p.client, 3, EXCHANGE_ELEMENTS, status);
		assert_int_equal(exchange_call_start(&call, p.connection, 0), CAD_OK);
		assert_true(exchange_run_until(x, held_enough, p.server));
		cad_request_answer(p.server->held[--p.server->held_count],
			&(struct cadre_wire_answer){
				.header.status = status,
				.detail = 6,
			},
			0);
		assert_true(exchange_run_until(x, exchange_call_done, &call));
		assert_int_equal(call.status, CAD_OK);
		assert_int_equal(call.wire_status, status);
		exchange_call_destroy(&call);
	}
}

static void out_of_range(struct exchange *x)
{
	struct pair p = pair_default(x);
	struct exchange_call call;

	exchange_call_create(&call, p.client, 4, EXCHANGE_ELEMENTS, 1);
	call.start.call.rows = 1025;
	call.start.done = (cad_call_done_fn *)abort;
	assert_int_equal(cad_call_start(p.connection, &call.start, &call.call), CAD_ERR_RANGE);
	call.start.call.rows = 4;
	call.answer.capacity /= 2;
	assert_int_equal(cad_call_start(p.connection, &call.start, &call.call), CAD_ERR_RANGE);
	call.answer.capacity *= 2;
	exchange_call_destroy(&call);
}

struct crowd {
	struct exchange_call *calls;
	size_t count;
};
static bool all_done(void *context)
{
	struct crowd *crowd = context;
	for (size_t i = 0; i < crowd->count; i++)
		if (crowd->calls[i].done == 0)
			return false;
	return true;
}

/* The credit is spent, the rest hears AGAIN and goes as answers come. */
static void many_in_flight(struct exchange *x)
{
	enum { CALLS = 200 };
	struct pair p = pair_default(x);
	struct exchange_call *calls = calloc(CALLS, sizeof *calls);

	assert_non_null(calls);
	for (uint32_t i = 0; i < CALLS; i++)
		exchange_call_create(&calls[i], p.client, 1 + i % 40, EXCHANGE_ELEMENTS, i);
	bool again = false;
	for (size_t i = 0; i < CALLS;) {
		enum cad_status status = exchange_call_start(&calls[i], p.connection, 0);
		if (status == CAD_OK) {
			i++;
			continue;
		}
		assert_int_equal(status, CAD_AGAIN);
		again = true;
		exchange_run(x, 20 * CAD_NS_PER_US);
	}

	assert_true(again);
	assert_true(exchange_run_until(x, all_done, &(struct crowd){ calls, CALLS }));

	for (size_t i = 0; i < CALLS; i++) {
		assert_int_equal(calls[i].done, 1);
		assert_true(calls[i].right);
		exchange_call_destroy(&calls[i]);
	}

	assert_true(cad_transport_stats(p.client->transport)->credit_waits > 0);
	free(calls);
}

struct holding {
	struct exchange_node *node;
	size_t count;
};
static bool holds(void *context)
{
	return ((struct holding *)context)->node->held_count >= ((struct holding *)context)->count;
}

/* The server holds all that its credit allows and answers the last first. */
static void held_and_reversed(struct exchange *x)
{
	struct pair p = pair_default(x);
	p.server->serve = EXCHANGE_HOLD;
	struct exchange_call calls[8];
	for (uint32_t i = 0; i < 8; i++) {
		exchange_call_create(&calls[i], p.client, 5 + i, EXCHANGE_ELEMENTS, i);
		assert_int_equal(exchange_call_start(&calls[i], p.connection, 0), CAD_OK);
	}

	assert_true(exchange_run_until(x, holds, &(struct holding){ p.server, 8 }));
	while (p.server->held_count > 0)
		exchange_answer(p.server->held[--p.server->held_count]);
	assert_true(exchange_run_until(x, all_done, &(struct crowd){ calls, 8 }));
	for (uint32_t i = 0; i < 8; i++) {
		assert_true(calls[i].right);
		exchange_call_destroy(&calls[i]);
	}
}

/* One buffer to receive into and one to answer from: calls wait for them at the sender, answers in
 * the server's hands. */
static void few_buffers(struct exchange *x)
{
	enum { CALLS = 6, ROWS = 700 }; /* above every size that comes in one piece */
	struct cad_transport_options server, client;

	pair_options(&server, &client);
	server.request_buffers = 2;
	server.answer_buffers = 1;
	struct pair p = pair_connect(x, &server, &client);
	p.server->serve = EXCHANGE_HOLD;
	struct exchange_call calls[CALLS];
	for (uint32_t i = 0; i < CALLS; i++) {
		exchange_call_create(&calls[i], p.client, ROWS, EXCHANGE_ELEMENTS, i);
		assert_int_equal(exchange_call_start(&calls[i], p.connection, 0), CAD_OK);
	}

	for (size_t answered = 0; answered < CALLS; answered++) {
		assert_true(exchange_run_until(x, held_enough, p.server));
		struct cad_request *request = p.server->held[--p.server->held_count];
		while (!cad_request_answer_buffer(request))
			exchange_run(x, CAD_NS_PER_MS);
		exchange_answer(request);
	}

	assert_true(exchange_run_until(x, all_done, &(struct crowd){ calls, CALLS }));
	for (uint32_t i = 0; i < CALLS; i++) {
		assert_true(calls[i].right);
		exchange_call_destroy(&calls[i]);
	}
}

static _Alignas(64) uint8_t one_buffer[4 << 20];

static void *pin(void *asked, size_t bytes)
{
	assert_in_range(bytes, 1, sizeof one_buffer);
	return (*(size_t *)asked)++ == 0 ? one_buffer : NULL;
}

static void unpin(void *asked, void *memory, size_t bytes)
{
	assert_true(memory == one_buffer && bytes > 0);
	*(size_t *)asked = 0;
}

/* Pinned buffers come first, as far as there are any; then the host's. */
static void pinned_buffers(struct exchange *x)
{
	enum { CALLS = 2, ROWS = 700 };
	bool in_place = x->form == EXCHANGE_ATTACHED;
	size_t asked = 0;
	struct cad_transport_options server, client;

	pair_options(&server, &client);
	server.request_buffers = CALLS;
	server.pinned = (struct cad_pinned_memory){ pin, unpin, &asked };
	server.pinned_buffers = CALLS;
	struct pair p = pair_connect(x, &server, &client);
	assert_int_equal(asked, 2);
	p.server->serve = EXCHANGE_HOLD;
	struct exchange_call calls[CALLS];
	for (uint32_t i = 0; i < CALLS; i++) {
		exchange_call_create(&calls[i], p.client, ROWS, EXCHANGE_ELEMENTS, i);
		assert_int_equal(exchange_call_start(&calls[i], p.connection, 0), CAD_OK);
		while (p.server->held_count <= i)
			exchange_run(x, CAD_NS_PER_MS);
		const uint8_t *data = cad_request_view(p.server->held[i])->data;
		bool is_pinned = data >= one_buffer && data < one_buffer + sizeof one_buffer;
		assert_int_equal(is_pinned, i == 0 && !in_place);
	}

	while (p.server->held_count > 0)
		exchange_answer(p.server->held[--p.server->held_count]);
	assert_true(exchange_run_until(x, all_done, &(struct crowd){ calls, CALLS }));
	for (uint32_t i = 0; i < CALLS; i++) {
		assert_true(calls[i].right);
		exchange_call_destroy(&calls[i]);
	}
	exchange_node_destroy(p.server);
	assert_int_equal(asked, 0);
}

/* ---- giving up ---- */

static void deadline(struct exchange *x)
{
	struct pair p = pair_default(x);
	p.server->serve = EXCHANGE_HOLD;
	struct exchange_call call, next;
	exchange_call_create(&call, p.client, 4, EXCHANGE_ELEMENTS, 1);
	exchange_call_create(&next, p.client, 4, EXCHANGE_ELEMENTS, 2);
	assert_int_equal(exchange_call_start(&call, p.connection, 30 * CAD_NS_PER_MS), CAD_OK);
	assert_true(exchange_run_until(x, exchange_call_done, &call));
	assert_int_equal(call.status, CAD_ERR_DEADLINE);
	assert_int_equal(cad_transport_stats(p.client->transport)->deadlines, 1);
	assert_int_equal(cad_connection_state(p.connection), CAD_CONNECTION_READY);
	assert_true(exchange_run_until(x, held_enough, p.server));
	assert_true(cad_request_view(p.server->held[0])->call.timeout_us > 0 &&
		cad_request_view(p.server->held[0])->call.timeout_us <= 30000);
	exchange_answer(p.server->held[--p.server->held_count]); /* late: dropped, and the credit is back */
	p.server->serve = EXCHANGE_ANSWER;

	for (int i = 0; i < 20; i++) {
		next.seed++;
		assert_int_equal(exchange_call_start(&next, p.connection, 0), CAD_OK);
		assert_true(exchange_run_until(x, exchange_call_done, &next));
		assert_true(next.right);
	}

	assert_int_equal(call.done, 1);
	assert_int_equal(cad_transport_stats(p.client->transport)->late_answers, 1);
	exchange_call_destroy(&call);
	exchange_call_destroy(&next);
}

/* A payload that is used in place is given back when it was answered, whatever the clock says; the
 * connection does not suffer. */
static void attached_deadline(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	client.ping_timeout_ms = 5;
	struct pair p = pair_connect(x, &server, &client);
	p.server->serve = EXCHANGE_HOLD;
	struct exchange_call late, cancelled;
	exchange_call_create(&late, p.client, 4, EXCHANGE_ELEMENTS, 1);
	exchange_call_create(&cancelled, p.client, 4, EXCHANGE_ELEMENTS, 2);
	assert_int_equal(exchange_call_start(&late, p.connection, CAD_NS_PER_MS), CAD_OK);
	assert_int_equal(exchange_call_start(&cancelled, p.connection, 0), CAD_OK);
	assert_true(exchange_run_until(x, holds, &(struct holding){ p.server, 2 }));
	cad_call_cancel(cancelled.call);
	exchange_run(x, 30 * CAD_NS_PER_MS);
	assert_int_equal(late.done + cancelled.done, 0);
	while (p.server->held_count > 0)
		exchange_answer(p.server->held[--p.server->held_count]);
	assert_true(exchange_run_until(x, exchange_call_done, &late));
	assert_true(exchange_run_until(x, exchange_call_done, &cancelled));
	assert_int_equal(late.status, CAD_ERR_DEADLINE);
	assert_int_equal(cancelled.status, CAD_ERR_CANCELLED);
	assert_int_equal(cad_connection_state(p.connection), CAD_CONNECTION_READY);
	exchange_call_destroy(&late);
	exchange_call_destroy(&cancelled);
}

static void cancel(struct exchange *x)
{
	struct pair p = pair_default(x);
	p.server->serve = EXCHANGE_HOLD;
	struct exchange_call calls[8];
	for (uint32_t i = 0; i < 8; i++) {
		exchange_call_create(&calls[i], p.client, 4, EXCHANGE_ELEMENTS, i);
		assert_int_equal(exchange_call_start(&calls[i], p.connection, 0), CAD_OK);
		cad_call_cancel(calls[i].call);
		assert_int_equal(calls[i].done, 0); /* never from inside */
	}

	assert_true(exchange_run_until(x, all_done, &(struct crowd){ calls, 8 }));
	assert_true(exchange_run_until(x, holds, &(struct holding){ p.server, 8 }));
	for (uint32_t i = 0; i < 8; i++) {
		assert_int_equal(calls[i].done, 1);
		assert_int_equal(calls[i].status, CAD_ERR_CANCELLED);
	}

	/* the credit is the server's to return */
	assert_int_equal(exchange_call_start(&calls[0], p.connection, 0), CAD_AGAIN);
	p.server->serve = EXCHANGE_ANSWER;
	while (p.server->held_count > 0)
		exchange_answer(p.server->held[--p.server->held_count]);
	while (exchange_call_start(&calls[0], p.connection, 0) == CAD_AGAIN)
		exchange_run(x, CAD_NS_PER_MS);
	assert_true(exchange_run_until(x, exchange_call_done, &calls[0]));
	assert_true(calls[0].right);
	for (uint32_t i = 0; i < 8; i++)
		exchange_call_destroy(&calls[i]);
}

/* Small and large calls are under way when the server goes: every callback comes, once, with the
 * reason. */
static void server_goes(struct exchange *x)
{
	struct pair p = pair_default(x);
	p.server->serve = EXCHANGE_HOLD;
	struct exchange_call calls[6];
	for (uint32_t i = 0; i < 6; i++) {
		exchange_call_create(&calls[i], p.client, i % 2 ? 700 : 3, EXCHANGE_ELEMENTS, i);
		assert_int_equal(exchange_call_start(&calls[i], p.connection, 0), CAD_OK);
	}

	assert_true(exchange_run_until(x, held_enough, p.server));
	exchange_node_destroy(p.server);
	assert_true(exchange_run_until(x, exchange_closed_some, p.client));

	for (uint32_t i = 0; i < 6; i++) {
		assert_int_equal(calls[i].done, 1);
		/* what it still said in going */
		assert_true(calls[i].status < 0 || calls[i].wire_status == CADRE_WIRE_BUSY);
		assert_true(calls[i].status == CAD_OK || calls[i].status == p.client->closed[0].status);
		exchange_call_destroy(&calls[i]);
	}

	assert_int_equal(p.client->closed_count, 1);
}

static bool request_dead(void *context) { return !cad_request_alive(*(struct cad_request **)context); }

/* The client goes while the server computes: the request stays valid, is known to be dead, and its
 * answer frees it. */
static void client_goes(struct exchange *x)
{
	struct pair p = pair_default(x);
	p.server->serve = EXCHANGE_HOLD;
	struct exchange_call call;
	exchange_call_create(&call, p.client, 20, EXCHANGE_ELEMENTS, 1);
	assert_int_equal(exchange_call_start(&call, p.connection, 0), CAD_OK);
	assert_true(exchange_run_until(x, held_enough, p.server));
	assert_true(cad_request_alive(p.server->held[0]));
	cad_connection_close(p.connection, CAD_ERR_CANCELLED, "enough");
	assert_int_equal(call.done, 0);
	assert_true(exchange_run_until(x, exchange_call_done, &call));
	assert_int_equal(call.status, CAD_ERR_CANCELLED);
	assert_true(exchange_run_until(x, request_dead, &p.server->held[0]));
	assert_int_equal(cad_request_view(p.server->held[0])->call.rows, 20);
	exchange_answer(p.server->held[--p.server->held_count]);
	assert_true(exchange_run_until(x, exchange_closed_some, p.server));
	exchange_call_destroy(&call);
}

static void destroy_fails_calls(struct exchange *x)
{
	struct pair p = pair_default(x);
	p.server->serve = EXCHANGE_HOLD;
	struct cad_transport_options options;
	exchange_options(&options, "router-2", false);
	struct exchange_node *other = exchange_node_create(x, &options);
	struct cad_connection *connection = exchange_connect(other, cad_transport_address(p.server->transport));
	assert_non_null(connection);
	struct exchange_call call;
	exchange_call_create(&call, other, 20, EXCHANGE_ELEMENTS, 1);
	assert_int_equal(exchange_call_start(&call, connection, 0), CAD_OK);

	/* The buffers belong to the transport's link, so this test frees them in the callback's
	 * stead before it goes: close first, then destroy. */
	cad_connection_close(connection, CAD_ERR_CANCELLED, "going");
	assert_true(exchange_run_until(x, exchange_call_done, &call));
	exchange_call_destroy(&call);
	exchange_node_destroy(other);
	exchange_call_create(&call, p.client, 1, EXCHANGE_ELEMENTS, 1);
	assert_int_equal(exchange_call_start(&call, p.connection, 0), CAD_OK);
	cad_connection_close(p.connection, CAD_OK, NULL);
	assert_int_equal(exchange_call_start(&call, p.connection, 0), CAD_ERR_PEER_LOST);
	assert_true(exchange_run_until(x, exchange_call_done, &call));
	assert_int_equal(call.status, CAD_ERR_CANCELLED);
	exchange_call_destroy(&call);
}

/* ---- coming back ---- */

static void reconnect(struct exchange *x)
{
	struct pair p = pair_default(x);
	const char *address = cad_transport_address(p.server->transport);
	for (uint32_t i = 0; i < 20; i++) { /* more often than there are connections */
		struct exchange_call call;
		exchange_call_create(&call, p.client, 3, EXCHANGE_ELEMENTS, i);
		assert_int_equal(exchange_call_start(&call, p.connection, 0), CAD_OK);
		assert_true(exchange_run_until(x, exchange_call_done, &call));
		assert_true(call.right);
		exchange_call_destroy(&call);
		cad_connection_close(p.connection, CAD_OK, NULL);
		/* the server may not have seen the others go */
		do
			p.connection = exchange_connect(p.client, address);
		while (!p.connection);
	}
}

static void listener_restarts(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	char name[CAD_ADDRESS_BYTES] = "expert"; /* over UCX the second has the port of the first */
	struct exchange_node *node = exchange_node_create(x, &client);
	for (uint32_t i = 0; i < 3; i++) {
		size_t closed = node->closed_count;
		struct exchange_node *listener = exchange_server(x, &server, name);
		struct cad_connection *connection = exchange_connect(node, cad_transport_address(listener->transport));
		cad_exchange_address_host(cad_transport_address(listener->transport), name);
		assert_non_null(connection);
		struct exchange_call call;
		exchange_call_create(&call, node, 3, EXCHANGE_ELEMENTS, i);
		assert_int_equal(exchange_call_start(&call, connection, 0), CAD_OK);
		assert_true(exchange_run_until(x, exchange_call_done, &call));
		assert_true(call.right);
		exchange_call_destroy(&call);
		exchange_node_destroy(listener);
		while (node->closed_count == closed)
			exchange_run(x, CAD_NS_PER_MS);
	}
}

/* ---- silence ---- */

static void quick_heartbeat(struct cad_transport_options *options)
{
	options->ping_interval_ms = 20;
	options->ping_timeout_ms = 40;
	options->handshake_timeout_ms = 60;
}

/* A server that hangs is given up by its client, calls and all. */
static void hung_server(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	quick_heartbeat(&client);
	client.handshake_timeout_ms = 5000;
	struct pair p = pair_connect(x, &server, &client);
	assert_non_null(p.connection);
	exchange_run(x, 200 * CAD_NS_PER_MS); /* pings are answered */
	assert_int_equal(cad_connection_state(p.connection), CAD_CONNECTION_READY);
	exchange_pause(p.server);
	struct exchange_call call;
	exchange_call_create(&call, p.client, 700, EXCHANGE_ELEMENTS, 1);
	assert_int_equal(exchange_call_start(&call, p.connection, 0), CAD_OK);
	assert_true(exchange_run_until(x, exchange_closed_some, p.client));
	assert_int_equal(call.done, 1);
	assert_int_equal(call.status, CAD_ERR_PEER_LOST);
	assert_non_null(strstr(p.client->closed[0].text, "ping"));
	exchange_call_destroy(&call);
	exchange_resume(p.server);
	assert_true(exchange_run_until(x, exchange_closed_some, p.server));
}

/* A client that goes silent is forgotten by the server after the peer timeout. */
static void silent_client(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	server.ping_interval_ms = 20;
	server.peer_timeout_ms = 60;
	struct pair p = pair_connect(x, &server, &client);
	assert_non_null(p.connection);
	exchange_pause(p.client);
	assert_true(exchange_run_until(x, exchange_closed_some, p.server));
	assert_int_equal(p.server->closed[0].status, CAD_ERR_PEER_LOST);
}

/* A server that never says a word in the hello. */
static void handshake_times_out(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	quick_heartbeat(&client);
	struct exchange_node *listener = exchange_server(x, &server, "expert"),
			     *node = exchange_node_create(x, &client);
	exchange_pause(listener);
	assert_null(exchange_connect(node, cad_transport_address(listener->transport)));
	assert_true(node->closed[0].status == CAD_ERR_UNREACHABLE || node->closed[0].status == CAD_ERR_PEER_LOST);
	exchange_resume(listener);
}

/* The client does not poll for many ping timeouts; what came meanwhile is read before anything is
 * judged. */
static void pause_is_not_silence(struct exchange *x)
{
	struct cad_transport_options server, client;
	pair_options(&server, &client);
	client.ping_interval_ms = 100;
	client.ping_timeout_ms = 100;
	server.peer_timeout_ms = 60000;
	struct pair p = pair_connect(x, &server, &client);
	assert_non_null(p.connection);

	for (int i = 0; i < 2; i++) {
		struct exchange_call call;
		exchange_call_create(&call, p.client, 3, EXCHANGE_ELEMENTS, 1);
		assert_int_equal(exchange_call_start(&call, p.connection, 0), CAD_OK);
		exchange_pause(p.client);
		exchange_run(x, 500 * CAD_NS_PER_MS);
		exchange_resume(p.client);
		assert_true(exchange_run_until(x, exchange_call_done, &call));
		assert_true(call.right);
		exchange_call_destroy(&call);
	}

	assert_int_equal(p.client->closed_count, 0);
}

static void wake(struct exchange *x)
{
	struct pair p = pair_default(x);
	cad_transport_wake(p.client->transport);
	cad_transport_poll(p.client->transport, UINT64_MAX); /* returns, or the test's time runs out */
}

static const struct exchange_case cases[] = {
	EXCHANGE_CASE(hello, EXCHANGE_ALL),
	EXCHANGE_CASE(hello_with_secret, EXCHANGE_ALL),
	EXCHANGE_CASE(refuse_cluster, EXCHANGE_ALL),
	EXCHANGE_CASE(refuse_model, EXCHANGE_ALL),
	EXCHANGE_CASE(refuse_settings, EXCHANGE_ALL),
	EXCHANGE_CASE(refuse_secret, EXCHANGE_ALL),
	EXCHANGE_CASE(unreachable, EXCHANGE_ALL),
	EXCHANGE_CASE(options_are_checked, EXCHANGE_ALL),
	EXCHANGE_CASE(connections_are_bounded, EXCHANGE_ALL),
	EXCHANGE_CASE(call_and_answer, EXCHANGE_ALL),
	EXCHANGE_CASE(big_payloads, EXCHANGE_ALL),
	EXCHANGE_CASE(wire_statuses, EXCHANGE_ALL),
	EXCHANGE_CASE(out_of_range, EXCHANGE_ALL),
	EXCHANGE_CASE(many_in_flight, EXCHANGE_ALL),
	EXCHANGE_CASE(held_and_reversed, EXCHANGE_ALL),
	EXCHANGE_CASE(few_buffers, EXCHANGE_ALL),
	EXCHANGE_CASE(pinned_buffers, EXCHANGE_ALL),
	EXCHANGE_CASE(deadline, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(attached_deadline, EXCHANGE_ATTACHED_ONLY),
	EXCHANGE_CASE(cancel, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(server_goes, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(client_goes, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(destroy_fails_calls, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(reconnect, EXCHANGE_ALL),
	EXCHANGE_CASE(listener_restarts, EXCHANGE_ALL),
	EXCHANGE_CASE(hung_server, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(silent_client, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(handshake_times_out, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(pause_is_not_silence, EXCHANGE_NEITHER),
	EXCHANGE_CASE(wake, EXCHANGE_NOT_SIM),
};

int main(int argc, char **argv)
{
	return exchange_cases_run("transport", cases, sizeof cases / sizeof *cases, argc, argv);
}
