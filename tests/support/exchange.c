/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/exchange.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RUN_SECONDS_MAX = 20 };

void exchange_init(struct exchange *exchange, enum exchange_form form)
{
	*exchange = (struct exchange){ .form = form, .clock = &cad_clock_system };
	if (form == EXCHANGE_LOCAL || form == EXCHANGE_ATTACHED)
		assert_int_equal(cad_local_hub_create(&exchange->hub), CAD_OK);
	if (form != EXCHANGE_SIM)
		return;
	struct cad_sim_options options = {
		.seed = 1,
		.delay_min_ns = 5 * CAD_NS_PER_US,
		.delay_max_ns = 200 * CAD_NS_PER_US,
	};
	assert_int_equal(cad_sim_create(&options, &exchange->sim), CAD_OK);
	exchange->clock = cad_sim_clock(exchange->sim);
}

void exchange_fini(struct exchange *exchange)
{
	while (exchange->nodes_count > 0)
		exchange_node_destroy(exchange->nodes[exchange->nodes_count - 1]);
	cad_local_hub_destroy(exchange->hub);
	cad_sim_destroy(exchange->sim);
}

cad_link_create_fn *exchange_link_create(const struct exchange *exchange)
{
	switch (exchange->form) {
	case EXCHANGE_UCX:
	case EXCHANGE_UCX_SHM: return cad_link_ucx_create;
	case EXCHANGE_SIM: return cad_link_sim_create;
	default: return cad_link_local_create;
	}
}

void *exchange_link_context(const struct exchange *exchange)
{
	static struct cad_ucx_options tcp = { .devices = "lo", .transports = "tcp" },
				      shm = { .devices = "lo", .transports = "posix,cma,tcp" };

	tcp.devices = exchange->device ? exchange->device : "lo";
	switch (exchange->form) {
	case EXCHANGE_UCX: return &tcp;
	case EXCHANGE_UCX_SHM: return &shm;
	case EXCHANGE_SIM: return exchange->sim;
	default: return exchange->hub;
	}
}

/* ---- the honest server ---- */

size_t exchange_expected(const struct cad_call_view *view, uint8_t *bytes, size_t capacity)
{
	uint32_t rows = view->call.rows, elements = view->call.row_elements;
	size_t heads = rows * sizeof(struct cadre_wire_sum), size = heads + (size_t)rows * elements * 2;

	CAD_ASSERT(size <= capacity);

	for (uint32_t r = 0; r < rows; r++) {
		struct cadre_wire_sum sum = { .width = 2 };
		memcpy(bytes + r * sizeof sum, &sum, sizeof sum);
		const uint8_t *row = view->data + (size_t)r * elements * 4;
		uint8_t *out = bytes + heads + (size_t)r * elements * 2;
		for (uint32_t i = 0; i < elements; i++) {
			out[2 * i] = (uint8_t)(row[4 * i] ^ row[4 * i + 2]);
			out[2 * i + 1] = (uint8_t)(row[4 * i + 1] + row[4 * i + 3]);
		}
	}

	return size;
}

void exchange_answer(struct cad_request *request)
{
	struct cad_buffer *buffer = cad_request_answer_buffer(request);
	assert_non_null(buffer);
	size_t bytes = exchange_expected(cad_request_view(request), buffer->bytes, buffer->capacity);
	struct cadre_wire_answer answer = {
		.data_bytes = bytes - cad_request_view(request)->call.rows * sizeof(struct cadre_wire_sum),
		.queue_us = 3,
		.compute_us = 5,
	};
	cad_request_answer(request, &answer, bytes);
}

static void on_request(struct cad_transport *transport, struct cad_request *request)
{
	struct exchange_node *node = cad_transport_user(transport);
	node->requests_count++;
	if (node->serve == EXCHANGE_ANSWER) {
		exchange_answer(request);
		return;
	}
	assert_true(node->held_count < EXCHANGE_HELD_MAX);
	node->held[node->held_count++] = request;
}

static void on_connection(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	struct exchange_node *node = cad_transport_user(transport);
	assert_int_equal(cad_connection_state(connection), state);
	if (node->awaited == connection)
		node->awaited = NULL;
	if (state == CAD_CONNECTION_READY) {
		node->ready_count++;
		node->last_ready = connection;
		return;
	}

	assert_int_equal(state, CAD_CONNECTION_CLOSED);
	assert_true(status < 0);
	struct exchange_closed *closed = &node->closed[node->closed_count++ % EXCHANGE_LOG_MAX];
	closed->connection = connection;
	closed->status = status;
	snprintf(closed->text, sizeof closed->text, "%s", text);
}

static void on_address(struct cad_transport *transport, const char *address)
{
	struct exchange_node *node = cad_transport_user(transport);
	snprintf(node->address, sizeof node->address, "%s", address);
}

void exchange_options(struct cad_transport_options *options, const char *node, bool server)
{
	cad_transport_options_default(options);
	snprintf(options->identity.cluster, sizeof options->identity.cluster, "test");
	snprintf(options->identity.node, sizeof options->identity.node, "%s", node);
	snprintf(options->identity.model, sizeof options->identity.model, "0123456789abcdef");
	snprintf(options->identity.settings, sizeof options->identity.settings, "fedcba9876543210");
	snprintf(options->identity.settings_text, sizeof options->identity.settings_text, "profile=f32 wire=fix16");
	options->limits = (struct cad_wire_limits){
		.payload_bytes_max = 1u << 20,
		.rows_max = 1024,
		.row_elements = EXCHANGE_ELEMENTS,
		.layers = EXCHANGE_LAYERS,
		.experts = EXCHANGE_EXPERTS,
	};
	options->connections_max = 8;
	options->calls_max = 64;
	options->credit_calls = 8;
	options->credit_bytes = 4u << 20;
	options->on_connection = on_connection;
	options->on_address = on_address;
	options->on_request = server ? on_request : NULL;
}

struct exchange_node *exchange_node_create(struct exchange *exchange, const struct cad_transport_options *options)
{
	assert_true(exchange->nodes_count < EXCHANGE_NODES_MAX);
	struct exchange_node *node = calloc(1, sizeof *node);
	struct cad_transport_options o = *options;
	struct cad_error error = { .text = "" };
	assert_non_null(node);
	node->exchange = exchange;
	o.user = node;
	must(cad_transport_create(
		     &o, exchange_link_create(exchange), exchange_link_context(exchange), &node->transport, &error),
		&error);
	exchange->nodes[exchange->nodes_count++] = node;

	return node;
}

void exchange_node_destroy(struct exchange_node *node)
{
	struct exchange *exchange = node->exchange;
	for (size_t i = 0; i < node->held_count; i++)
		cad_request_answer(node->held[i],
			&(struct cadre_wire_answer){
				.header.status = CADRE_WIRE_BUSY,
			},
			0);
	cad_transport_destroy(node->transport);
	size_t at = 0;
	while (exchange->nodes[at] != node)
		at++;
	memmove(&exchange->nodes[at], &exchange->nodes[at + 1],
		(exchange->nodes_count - at - 1) * sizeof *exchange->nodes);
	exchange->nodes_count--;
	free(node);
}

struct exchange_node *exchange_server(
	struct exchange *exchange, const struct cad_transport_options *options, const char *name)
{
	struct exchange_node *node = exchange_node_create(exchange, options);
	struct cad_error error = { .text = "" };
	bool sockets = exchange->form == EXCHANGE_UCX || exchange->form == EXCHANGE_UCX_SHM;
	if (cad_transport_listen(node->transport, sockets && !strchr(name, ':') ? "127.0.0.1:0" : name, &error) !=
		CAD_OK)
		fail_msg("%s", error.text);
	return node;
}

/* ---- running ---- */

static size_t poll_all(struct exchange *exchange, uint64_t wait_ns)
{
	size_t handled = 0;
	if (exchange->raw)
		exchange->raw->link->ops->progress(exchange->raw->link);
	if (exchange->form == EXCHANGE_SIM) {
		if (exchange->nodes_count > 0 && !exchange->nodes[0]->paused)
			return cad_transport_poll(
				exchange->nodes[0]->transport, cad_clock_now_ns(exchange->clock) + wait_ns);
		cad_sim_run(exchange->sim, wait_ns);
		return 0;
	}

	for (size_t i = 0; i < exchange->nodes_count; i++)
		if (!exchange->nodes[i]->paused)
			handled += cad_transport_poll(exchange->nodes[i]->transport, 0);
	if (handled == 0 && exchange->nodes_count > 0 && !exchange->nodes[0]->paused)
		handled +=
			cad_transport_poll(exchange->nodes[0]->transport, cad_clock_now_ns(exchange->clock) + wait_ns);
	return handled;
}

void exchange_pause(struct exchange_node *node)
{
	node->paused = true;
	if (node->exchange->sim)
		cad_sim_stall(node->exchange->sim, node->transport, 2 * CAD_NS_PER_S);
}

void exchange_resume(struct exchange_node *node)
{
	if (node->exchange->sim)
		exchange_run(node->exchange, 2 * CAD_NS_PER_S);
	node->paused = false;
}

bool exchange_run_until(struct exchange *exchange, bool (*done)(void *context), void *context)
{
	uint64_t end = cad_clock_now_ns(exchange->clock) + RUN_SECONDS_MAX * CAD_NS_PER_S;
	while (!done(context)) {
		if (cad_clock_now_ns(exchange->clock) > end)
			return false;
		poll_all(exchange, CAD_NS_PER_MS / 5);
	}
	return true;
}

void exchange_run(struct exchange *exchange, uint64_t duration_ns)
{
	uint64_t end = cad_clock_now_ns(exchange->clock) + duration_ns;
	do
		poll_all(exchange, duration_ns < CAD_NS_PER_MS ? duration_ns : CAD_NS_PER_MS);
	while (cad_clock_now_ns(exchange->clock) < end);
}

static bool nothing_awaited(void *node) { return ((struct exchange_node *)node)->awaited == NULL; }

/* All nodes of this exchange learn of the client, as they would from the placement service. */
void exchange_announce(struct exchange *exchange, const char *address)
{
	struct cad_error error = { .text = "" };
	for (size_t i = 0; i < exchange->nodes_count; i++)
		must(cad_transport_announce(exchange->nodes[i]->transport, &address, 1, &error), &error);
}

struct cad_connection *exchange_connect_start(struct exchange_node *client, const char *address)
{
	struct cad_connection *connection = NULL;
	struct cad_error error = { .text = "" };
	exchange_announce(client->exchange, cad_transport_address(client->transport));
	must(cad_transport_connect(client->transport, address, client, &connection, &error), &error);
	return connection;
}

struct cad_connection *exchange_connect(struct exchange_node *client, const char *address)
{
	struct cad_connection *connection = exchange_connect_start(client, address);
	client->awaited = connection;
	assert_true(exchange_run_until(client->exchange, nothing_awaited, client));
	return cad_connection_state(connection) == CAD_CONNECTION_READY ? connection : NULL;
}

/* ---- calls ---- */

size_t exchange_pattern(
	uint8_t *bytes, size_t capacity, uint32_t rows, uint32_t elements, uint64_t seed, struct cadre_wire_call *call)
{
	struct cad_random random = { seed };
	uint32_t groups = rows < EXCHANGE_EXPERTS ? rows : EXCHANGE_EXPERTS;
	struct cad_call_layout at = cad_wire_call_layout(rows, (size_t)rows * elements * 4, groups, rows);

	CAD_ASSERT(at.bytes <= capacity);
	memset(bytes, 0, at.bytes);

	for (uint32_t r = 0; r < rows; r++)
		memcpy(bytes + at.rows + r * sizeof(struct cadre_wire_row),
			&(struct cadre_wire_row){
				.type = CADRE_ROW_F32,
			},
			sizeof(struct cadre_wire_row));
	for (size_t i = 0; i < (size_t)rows * elements; i++) {
		uint32_t word = (uint32_t)cad_random_next(&random);
		memcpy(bytes + at.data + 4 * i, &word, 4);
	}

	uint32_t row = 0, pair = 0;
	for (uint32_t g = 0; g < groups; g++) {
		uint32_t count = rows / groups + (g < rows % groups);
		memcpy(bytes + at.groups + g * sizeof(struct cadre_wire_group),
			&(struct cadre_wire_group){
				.expert = g,
				.pairs = count,
			},
			sizeof(struct cadre_wire_group));
		for (uint32_t i = 0; i < count; i++, pair++)
			memcpy(bytes + at.pairs + pair * sizeof(struct cadre_wire_pair),
				&(struct cadre_wire_pair){
					.row = row++,
					.weight = 1.0f,
				},
				sizeof(struct cadre_wire_pair));
	}

	*call = (struct cadre_wire_call){
		.layer = (uint32_t)(seed % EXCHANGE_LAYERS),
		.rows = rows,
		.row_elements = elements,
		.pairs = rows,
		.groups = groups,
		.data_bytes = (uint64_t)rows * elements * 4,
		.epoch = 7,
	};
	return at.bytes;
}

void exchange_call_create(
	struct exchange_call *call, struct exchange_node *node, uint32_t rows, uint32_t elements, uint64_t seed)
{
	*call = (struct exchange_call){ .node = node, .seed = seed, .elements = elements };
	size_t bytes = cad_wire_call_bytes_max(rows, elements, EXCHANGE_EXPERTS, rows);
	assert_int_equal(cad_buffer_create(node->transport, bytes, &call->payload), CAD_OK);
	assert_int_equal(
		cad_buffer_create(node->transport, cad_wire_answer_bytes_max(rows, elements), &call->answer), CAD_OK);
	call->start.payload_bytes =
		exchange_pattern(call->payload.bytes, call->payload.capacity, rows, elements, seed, &call->start.call);
	call->start.payload = &call->payload;
	call->start.answer = &call->answer;
}

void exchange_call_destroy(struct exchange_call *call)
{
	cad_buffer_destroy(call->node->transport, &call->payload);
	cad_buffer_destroy(call->node->transport, &call->answer);
}

static bool answer_right(const struct exchange_call *call, const struct cad_answer_view *view)
{
	uint32_t rows = call->start.call.rows;
	struct cad_call_layout at = cad_wire_call_layout(
		rows, (size_t)call->start.call.data_bytes, call->start.call.groups, call->start.call.pairs);
	struct cad_call_view sent = { .call = call->start.call, .data = call->payload.bytes + at.data };
	size_t capacity = cad_wire_answer_bytes_max(rows, call->elements);
	uint8_t *want = malloc(capacity);

	assert_non_null(want);
	size_t bytes = exchange_expected(&sent, want, capacity);
	bool right = (const uint8_t *)view->sums == call->answer.bytes && view->answer.header.payload_bytes == bytes &&
		memcmp(want, call->answer.bytes, bytes) == 0 && view->answer.layer == call->start.call.layer &&
		view->answer.queue_us == 3 && view->answer.compute_us == 5;
	free(want);

	return right;
}

static void on_done(void *context, struct cad_call *handle, enum cad_status status, const struct cad_answer_view *view)
{
	struct exchange_call *call = context;
	assert_ptr_equal(handle, call->call);
	call->done++;
	call->status = status;
	assert_int_equal(view != NULL, status == CAD_OK);
	call->wire_status = view ? view->answer.header.status : 0;
	call->right = view && view->answer.header.status == CADRE_WIRE_OK && answer_right(call, view);
	memset(call->payload.bytes, 0xdd, call->start.payload_bytes); /* whoever reads it now is found out */
	memset(call->answer.bytes, 0xdd, call->answer.capacity < 4096 ? call->answer.capacity : 4096);
}

enum cad_status exchange_call_start(struct exchange_call *call, struct cad_connection *connection, uint64_t timeout_ns)
{
	call->start.done = on_done;
	call->start.context = call;
	call->start.deadline_ns = timeout_ns ? cad_clock_now_ns(call->node->exchange->clock) + timeout_ns : 0;
	exchange_pattern(call->payload.bytes, call->payload.capacity, call->start.call.rows, call->elements, call->seed,
		&call->start.call);
	call->done = 0;
	return cad_call_start(connection, &call->start, &call->call);
}

bool exchange_closed_some(void *node) { return ((struct exchange_node *)node)->closed_count > 0; }
bool exchange_call_done(void *call) { return ((struct exchange_call *)call)->done > 0; }
