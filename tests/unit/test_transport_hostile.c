/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers that speak the link's language and break the protocol, over every link: a server meets bad
 * clients, a client a bad server. Whatever comes, the connection that brought it ends, the books
 * say so, and everybody else goes on.
 */
#include "tests/support/exchange_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 4, PAYLOAD_BYTES_MAX = 1 << 16 };

/* A call that would be right. */
struct good_call {
	struct cadre_wire_call header;
	_Alignas(8) uint8_t payload[PAYLOAD_BYTES_MAX];
	size_t payload_bytes;
};

static void good_call(const struct exchange_raw *raw, struct good_call *call)
{
	call->payload_bytes =
		exchange_pattern(call->payload, sizeof call->payload, ROWS, EXCHANGE_ELEMENTS, 5, &call->header);
	call->header.header = exchange_raw_header(raw, CADRE_WIRE_CALL, call->payload_bytes);
}

static void send_call(struct exchange_raw *raw, const struct good_call *call)
{
	exchange_raw_send(raw, CADRE_WIRE_CALL, &call->header, sizeof call->header, call->payload, call->payload_bytes);
}

/* ---- what bad clients do ---- */

static void call_before_hello(struct exchange_raw *raw, struct good_call *call) { send_call(raw, call); }
static void ping_before_hello(struct exchange_raw *raw, struct good_call *call)
{
	(void)call;
	struct cadre_wire_ping ping = { .header = exchange_raw_header(raw, CADRE_WIRE_PING, 0) };
	exchange_raw_send(raw, CADRE_WIRE_PING, &ping, sizeof ping, NULL, 0);
}
static void welcome_to_server(struct exchange_raw *raw, struct good_call *call)
{
	(void)call;
	struct cadre_wire_welcome welcome = {
		.header = exchange_raw_header(raw, CADRE_WIRE_WELCOME, 0),
		.session = 1,
		.credit_calls = 1,
		.credit_bytes = 1,
		.rows_max = 1,
	};
	exchange_raw_send(raw, CADRE_WIRE_WELCOME, &welcome, sizeof welcome, NULL, 0);
}
static void proof_before_hello(struct exchange_raw *raw, struct good_call *call)
{
	(void)call;
	struct cadre_wire_proof proof = { .header = exchange_raw_header(raw, CADRE_WIRE_PROOF, 0) };
	exchange_raw_send(raw, CADRE_WIRE_PROOF, &proof, sizeof proof, NULL, 0);
}
static void endless_name(struct exchange_raw *raw, struct good_call *call)
{
	(void)call;
	struct cadre_wire_hello hello = { .header = exchange_raw_header(raw, CADRE_WIRE_HELLO, 0) };
	memset(&hello.identity, 'a', sizeof hello.identity);
	exchange_raw_send(raw, CADRE_WIRE_HELLO, &hello, sizeof hello, NULL, 0);
}
static void second_hello(struct exchange_raw *raw, struct good_call *call)
{
	(void)call;
	uint64_t session = raw->session;
	exchange_raw_hello(raw);
	raw->session = session;
}
static void other_session(struct exchange_raw *raw, struct good_call *call)
{
	call->header.header.session ^= 1;
	send_call(raw, call);
}
static void short_header(struct exchange_raw *raw, struct good_call *call)
{
	exchange_raw_send(raw, CADRE_WIRE_CALL, &call->header, 7, call->payload, call->payload_bytes);
}
static void no_header(struct exchange_raw *raw, struct good_call *call)
{
	exchange_raw_send(raw, CADRE_WIRE_CALL, NULL, 0, call->payload, call->payload_bytes);
}
static void long_header(struct exchange_raw *raw, struct good_call *call)
{
	uint8_t header[CAD_LINK_HEADER_BYTES_MAX] = { 0 };
	memcpy(header, &call->header, sizeof call->header);
	exchange_raw_send(raw, CADRE_WIRE_CALL, header, sizeof header, call->payload, call->payload_bytes);
}
static void other_kind(struct exchange_raw *raw, struct good_call *call)
{
	exchange_raw_send(
		raw, CADRE_WIRE_ANSWER, &call->header, sizeof call->header, call->payload, call->payload_bytes);
}
static void unknown_kind(struct exchange_raw *raw, struct good_call *call)
{
	exchange_raw_send(raw, 200, &call->header, sizeof call->header, call->payload, call->payload_bytes);
}
static void length_lie(struct exchange_raw *raw, struct good_call *call)
{
	call->header.header.payload_bytes += 8;
	send_call(raw, call);
}
static void no_payload(struct exchange_raw *raw, struct good_call *call)
{
	call->header.header.payload_bytes = call->payload_bytes = 0;
	send_call(raw, call);
}
static void too_large(struct exchange_raw *raw, struct good_call *call)
{
	size_t bytes = (1u << 20) + 8; /* the limit is 1 MiB */
	uint8_t *payload = calloc(1, bytes);
	assert_non_null(payload);
	call->header.header.payload_bytes = bytes;
	exchange_raw_send(raw, CADRE_WIRE_CALL, &call->header, sizeof call->header, payload, bytes);
	free(payload);
}
static void ping_with_payload(struct exchange_raw *raw, struct good_call *call)
{
	struct cadre_wire_ping ping = { .header = exchange_raw_header(raw, CADRE_WIRE_PING, 64) };
	exchange_raw_send(raw, CADRE_WIRE_PING, &ping, sizeof ping, call->payload, 64);
}
static void rows_without_end(struct exchange_raw *raw, struct good_call *call)
{
	call->header.rows = UINT32_MAX;
	send_call(raw, call);
}
static void groups_without_end(struct exchange_raw *raw, struct good_call *call)
{
	call->header.groups = UINT32_MAX;
	send_call(raw, call);
}
static void unknown_expert(struct exchange_raw *raw, struct good_call *call)
{
	struct cad_call_layout at =
		cad_wire_call_layout(ROWS, (size_t)call->header.data_bytes, call->header.groups, call->header.pairs);
	uint32_t expert = EXCHANGE_EXPERTS;
	memcpy(call->payload + at.groups + (call->header.groups - 1) * sizeof(struct cadre_wire_group), &expert,
		sizeof expert);
	send_call(raw, call);
}
static void weight_not_finite(struct exchange_raw *raw, struct good_call *call)
{
	struct cad_call_layout at =
		cad_wire_call_layout(ROWS, (size_t)call->header.data_bytes, call->header.groups, call->header.pairs);
	memcpy(call->payload + at.pairs + offsetof(struct cadre_wire_pair, weight), &(float){ INFINITY },
		sizeof(float));
	send_call(raw, call);
}
static void answer_to_server(struct exchange_raw *raw, struct good_call *call)
{
	(void)call;
	struct cadre_wire_answer answer = { .header = exchange_raw_header(raw, CADRE_WIRE_ANSWER, 0) };
	answer.header.status = CADRE_WIRE_BUSY;
	exchange_raw_send(raw, CADRE_WIRE_ANSWER, &answer, sizeof answer, NULL, 0);
}
static void pong_to_server(struct exchange_raw *raw, struct good_call *call)
{
	(void)call;
	struct cadre_wire_ping pong = { .header = exchange_raw_header(raw, CADRE_WIRE_PONG, 0) };
	exchange_raw_send(raw, CADRE_WIRE_PONG, &pong, sizeof pong, NULL, 0);
}
static void fetch_to_router(struct exchange_raw *raw, struct good_call *call)
{
	(void)call;
	struct cadre_wire_fetch fetch = { .header = exchange_raw_header(raw, CADRE_WIRE_FETCH, 0), .bytes = 1 };
	exchange_raw_send(raw, CADRE_WIRE_FETCH, &fetch, sizeof fetch, NULL, 0);
}
static void part_to_server(struct exchange_raw *raw, struct good_call *call)
{
	struct cadre_wire_part part = { .header = exchange_raw_header(raw, CADRE_WIRE_PART, 64), .image_bytes = 64 };
	exchange_raw_send(raw, CADRE_WIRE_PART, &part, sizeof part, call->payload, 64);
}
static void flood(struct exchange_raw *raw, struct good_call *call)
{
	for (int i = 0; i < 64; i++) /* the credit is 8 */
		send_call(raw, call);
}

static const struct {
	const char *name;
	void (*run)(struct exchange_raw *raw, struct good_call *call);
	bool handshake;
} bad_clients[] = {
#define BEFORE(name) \
	{ \
#name, name, false \
	}
#define AFTER(name) \
	{ \
#name, name, true \
	}
	BEFORE(call_before_hello),
	BEFORE(ping_before_hello),
	BEFORE(welcome_to_server),
	BEFORE(proof_before_hello),
	BEFORE(endless_name),
	BEFORE(short_header),
	BEFORE(unknown_kind),
	BEFORE(fetch_to_router),
	AFTER(second_hello),
	AFTER(other_session),
	AFTER(short_header),
	AFTER(no_header),
	AFTER(long_header),
	AFTER(other_kind),
	AFTER(unknown_kind),
	AFTER(length_lie),
	AFTER(no_payload),
	AFTER(too_large),
	AFTER(ping_with_payload),
	AFTER(rows_without_end),
	AFTER(groups_without_end),
	AFTER(unknown_expert),
	AFTER(weight_not_finite),
	AFTER(answer_to_server),
	AFTER(pong_to_server),
	AFTER(fetch_to_router),
	AFTER(part_to_server),
	AFTER(flood),
#undef BEFORE
#undef AFTER
};

struct closing {
	struct exchange_node *node;
	size_t count;
};
static bool closed_more(void *context)
{
	return ((struct closing *)context)->node->closed_count > ((struct closing *)context)->count;
}
static bool raw_lost(void *context)
{
	return ((struct exchange_raw *)context)->lost + ((struct exchange_raw *)context)->goodbyes > 0;
}

static void bad_client(struct exchange *x)
{
	struct cad_transport_options server, client;
	exchange_options(&server, "expert-1", true);
	exchange_options(&client, "router-1", false);
	struct exchange_node *node = exchange_server(x, &server, "expert"), *honest = exchange_node_create(x, &client);
	const char *address = cad_transport_address(node->transport);
	struct cad_connection *connection = exchange_connect(honest, address);
	assert_non_null(connection);
	static struct exchange_raw raw;
	static struct good_call call;
	node->serve = EXCHANGE_HOLD;

	for (size_t i = 0; i < sizeof bad_clients / sizeof *bad_clients; i++) {
		struct closing before = { node, node->closed_count };
		exchange_raw_create(&raw, x);
		exchange_raw_connect(&raw, address);
		if (bad_clients[i].handshake)
			assert_true(exchange_raw_handshake(&raw));
		good_call(&raw, &call);
		bad_clients[i].run(&raw, &call);
		if (!exchange_run_until(x, closed_more, &before))
			fail_msg("'%s' was borne", bad_clients[i].name);
		if (node->closed[before.count % EXCHANGE_LOG_MAX].status != CAD_ERR_PROTOCOL)
			fail_msg("'%s' ended with '%s'", bad_clients[i].name,
				node->closed[before.count % EXCHANGE_LOG_MAX].text);
		exchange_raw_destroy(&raw);
		while (node->held_count > 0)
			exchange_answer(node->held[--node->held_count]);
	}

	assert_int_equal(
		cad_transport_stats(node->transport)->protocol_errors, sizeof bad_clients / sizeof *bad_clients);
	node->serve = EXCHANGE_ANSWER;
	struct exchange_call good;
	exchange_call_create(&good, honest, 3, EXCHANGE_ELEMENTS, 1);
	assert_int_equal(exchange_call_start(&good, connection, 0), CAD_OK);
	assert_true(exchange_run_until(x, exchange_call_done, &good));
	assert_true(good.right);
	assert_int_equal(honest->closed_count, 0);
	exchange_call_destroy(&good);
}

/* Another release says hello: it is told why not, in words. */
static void other_version(struct exchange *x)
{
	struct cad_transport_options server;
	exchange_options(&server, "expert-1", true);
	struct exchange_node *node = exchange_server(x, &server, "expert");
	static struct exchange_raw raw;
	exchange_raw_create(&raw, x);
	exchange_raw_connect(&raw, cad_transport_address(node->transport));
	struct cadre_wire_hello hello = { .header = exchange_raw_header(&raw, CADRE_WIRE_HELLO, 0) };
	hello.header.version++;
	exchange_raw_send(&raw, CADRE_WIRE_HELLO, &hello, sizeof hello, NULL, 0);
	assert_true(exchange_run_until(x, closed_more, &(struct closing){ node, 0 }));
	assert_int_equal(node->closed[0].status, CAD_ERR_REFUSED);
	assert_int_equal(raw.last_kind, CADRE_WIRE_REFUSE);
	struct cadre_wire_refuse refuse;
	memcpy(&refuse, raw.last_header, sizeof refuse);
	assert_non_null(strstr(refuse.text, "version 3"));
	exchange_raw_destroy(&raw);
}

/* Says nothing at all, or stops in the middle. */
static void silent_hello(struct exchange *x)
{
	struct cad_transport_options server;
	exchange_options(&server, "expert-1", true);
	server.handshake_timeout_ms = 30;
	struct exchange_node *node = exchange_server(x, &server, "expert");
	for (int step = 0; step < 2; step++) {
		static struct exchange_raw raw;
		exchange_raw_create(&raw, x);
		exchange_raw_connect(&raw, cad_transport_address(node->transport));
		if (step == 1)
			exchange_raw_hello(&raw);
		assert_true(exchange_run_until(x, closed_more, &(struct closing){ node, (size_t)step }));
		assert_int_equal(node->closed[step].status, CAD_ERR_UNREACHABLE);
		assert_true(exchange_run_until(x, raw_lost, &raw));
		exchange_raw_destroy(&raw);
	}
}

static bool heard(void *context) { return ((struct exchange_raw *)context)->messages >= 4; }

/* Pings without end are answered as far as there is room, and cost nothing. */
static void ping_flood(struct exchange *x)
{
	struct cad_transport_options server;
	exchange_options(&server, "expert-1", true);
	struct exchange_node *node = exchange_server(x, &server, "expert");
	static struct exchange_raw raw;
	exchange_raw_create(&raw, x);
	exchange_raw_connect(&raw, cad_transport_address(node->transport));
	assert_true(exchange_raw_handshake(&raw));

	for (int i = 0; i < 500; i++) {
		struct cadre_wire_ping ping = {
			.header = exchange_raw_header(&raw, CADRE_WIRE_PING, 0),
			.stamp = (uint64_t)i,
		};
		exchange_raw_send(&raw, CADRE_WIRE_PING, &ping, sizeof ping, NULL, 0);
	}

	assert_true(exchange_run_until(x, heard, &raw));
	assert_int_equal(raw.last_kind, CADRE_WIRE_PONG);
	assert_int_equal(node->closed_count, 0);
	exchange_raw_destroy(&raw);
}

/* ---- what bad servers do; `call` is the header of a call that waits for its answer ---- */

static struct cadre_wire_answer answer_to(
	const struct exchange_raw *raw, const struct cadre_wire_call *call, size_t payload_bytes)
{
	return (struct cadre_wire_answer){
		.header = exchange_raw_header(raw, CADRE_WIRE_ANSWER, payload_bytes),
		.request_id = call->request_id,
		.layer = call->layer,
		.rows = call->rows,
		.row_elements = call->row_elements,
		.data_bytes = payload_bytes ? payload_bytes - call->rows * sizeof(struct cadre_wire_sum) : 0,
	};
}

static void call_to_client(struct exchange_raw *raw, const struct cadre_wire_call *call)
{
	(void)call;
	static struct good_call back;
	good_call(raw, &back);
	send_call(raw, &back);
}
static void ping_to_client(struct exchange_raw *raw, const struct cadre_wire_call *call)
{
	(void)call;
	struct cadre_wire_ping ping = { .header = exchange_raw_header(raw, CADRE_WIRE_PING, 0) };
	exchange_raw_send(raw, CADRE_WIRE_PING, &ping, sizeof ping, NULL, 0);
}
static void answer_of_no_slot(struct exchange_raw *raw, const struct cadre_wire_call *call)
{
	struct cadre_wire_answer answer = answer_to(raw, call, 0);
	answer.header.status = CADRE_WIRE_BUSY;
	answer.request_id |= 0x00ffffff;
	exchange_raw_send(raw, CADRE_WIRE_ANSWER, &answer, sizeof answer, NULL, 0);
}
static void answer_too_large(struct exchange_raw *raw, const struct cadre_wire_call *call)
{
	size_t bytes = cad_wire_answer_bytes_max(call->rows, call->row_elements) + 8;
	uint8_t *payload = calloc(1, bytes);
	assert_non_null(payload);
	struct cadre_wire_answer answer = answer_to(raw, call, bytes);
	exchange_raw_send(raw, CADRE_WIRE_ANSWER, &answer, sizeof answer, payload, bytes);
	free(payload);
}
static void answer_of_other_shape(struct exchange_raw *raw, const struct cadre_wire_call *call)
{
	uint8_t payload[sizeof(struct cadre_wire_sum) + 2 * EXCHANGE_ELEMENTS] = { 0 };
	memcpy(payload, &(struct cadre_wire_sum){ .width = 2 }, sizeof(struct cadre_wire_sum));
	struct cadre_wire_answer answer = answer_to(raw, call, sizeof payload);
	answer.rows = 1;
	answer.data_bytes = 2 * EXCHANGE_ELEMENTS;
	exchange_raw_send(raw, CADRE_WIRE_ANSWER, &answer, sizeof answer, payload, sizeof payload);
}
static void answer_of_odd_width(struct exchange_raw *raw, const struct cadre_wire_call *call)
{
	uint8_t payload[ROWS * (sizeof(struct cadre_wire_sum) + 2 * EXCHANGE_ELEMENTS)] = { 0 };
	for (size_t r = 0; r < ROWS; r++)
		memcpy(payload + r * sizeof(struct cadre_wire_sum),
			&(struct cadre_wire_sum){
				.width = r == 2 ? 5 : 2,
			},
			sizeof(struct cadre_wire_sum));
	struct cadre_wire_answer answer = answer_to(raw, call, sizeof payload);
	exchange_raw_send(raw, CADRE_WIRE_ANSWER, &answer, sizeof answer, payload, sizeof payload);
}
static void late_refusal(struct exchange_raw *raw, const struct cadre_wire_call *call)
{
	(void)call;
	struct cadre_wire_refuse refuse = {
		.header = exchange_raw_header(raw, CADRE_WIRE_REFUSE, 0),
		.text = "too late",
	};
	exchange_raw_send(raw, CADRE_WIRE_REFUSE, &refuse, sizeof refuse, NULL, 0);
}

static const struct {
	const char *name;
	void (*run)(struct exchange_raw *raw, const struct cadre_wire_call *call);
} bad_servers[] = {
#define BAD(name) \
	{ \
#name, name \
	}
	BAD(call_to_client),
	BAD(ping_to_client),
	BAD(answer_of_no_slot),
	BAD(answer_too_large),
	BAD(answer_of_other_shape),
	BAD(answer_of_odd_width),
	BAD(late_refusal),
#undef BAD
};

static bool call_heard(void *context) { return ((struct exchange_raw *)context)->last_kind == CADRE_WIRE_CALL; }

static void bad_server(struct exchange *x)
{
	struct cad_transport_options options;
	exchange_options(&options, "router-1", false);
	struct exchange_node *client = exchange_node_create(x, &options);
	for (size_t i = 0; i < sizeof bad_servers / sizeof *bad_servers; i++) {
		static struct exchange_raw raw;
		exchange_raw_create(&raw, x);
		exchange_raw_listen(&raw, "bad");
		struct cad_connection *connection = exchange_connect(client, raw.link->ops->address(raw.link));
		assert_non_null(connection);
		struct exchange_call call;
		struct closing before = { client, client->closed_count };
		exchange_call_create(&call, client, ROWS, EXCHANGE_ELEMENTS, i);
		assert_int_equal(exchange_call_start(&call, connection, 0), CAD_OK);
		assert_true(exchange_run_until(x, call_heard, &raw));
		struct cadre_wire_call header;
		memcpy(&header, raw.last_header, sizeof header);
		bad_servers[i].run(&raw, &header);
		if (!exchange_run_until(x, closed_more, &before))
			fail_msg("'%s' was borne", bad_servers[i].name);
		assert_int_equal(client->closed[before.count].status, CAD_ERR_PROTOCOL);
		assert_int_equal(call.done, 1);
		assert_int_equal(call.status, CAD_ERR_PROTOCOL);
		exchange_call_destroy(&call);
		exchange_raw_destroy(&raw);
	}
}

/* The same answer twice, and one to a call of long ago: dropped, and nothing else. */
static void stale_answers(struct exchange *x)
{
	struct cad_transport_options options;
	exchange_options(&options, "router-1", false);
	struct exchange_node *client = exchange_node_create(x, &options);
	static struct exchange_raw raw;
	exchange_raw_create(&raw, x);
	exchange_raw_listen(&raw, "bad");
	struct cad_connection *connection = exchange_connect(client, raw.link->ops->address(raw.link));
	assert_non_null(connection);
	struct exchange_call call;
	exchange_call_create(&call, client, ROWS, EXCHANGE_ELEMENTS, 3);

	for (int i = 0; i < 3; i++) {
		raw.last_kind = 0;
		assert_int_equal(exchange_call_start(&call, connection, 0), CAD_OK);
		assert_true(exchange_run_until(x, call_heard, &raw));
		struct cadre_wire_call header;
		memcpy(&header, raw.last_header, sizeof header);
		struct cadre_wire_answer answer = answer_to(&raw, &header, 0);
		answer.header.status = CADRE_WIRE_NOT_HELD;
		answer.request_id -= (uint64_t)1 << 32; /* another generation */
		exchange_raw_send(&raw, CADRE_WIRE_ANSWER, &answer, sizeof answer, NULL, 0);
		answer.request_id = header.request_id;
		exchange_raw_send(&raw, CADRE_WIRE_ANSWER, &answer, sizeof answer, NULL, 0);
		exchange_raw_send(&raw, CADRE_WIRE_ANSWER, &answer, sizeof answer, NULL, 0);
		assert_true(exchange_run_until(x, exchange_call_done, &call));
		assert_int_equal(call.wire_status, CADRE_WIRE_NOT_HELD);
	}

	exchange_run(x, 5 * CAD_NS_PER_MS);
	assert_int_equal(client->closed_count, 0);
	assert_int_equal(cad_transport_stats(client->transport)->late_answers, 6);
	exchange_call_destroy(&call);
	exchange_raw_destroy(&raw);
}

/* ---- all of it, over every link ---- */

static const struct exchange_case cases[] = {
	EXCHANGE_CASE(bad_client, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(other_version, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(silent_hello, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(ping_flood, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(bad_server, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(stale_answers, EXCHANGE_NOT_ATTACHED),
};

int main(int argc, char **argv)
{
	return exchange_cases_run("transport_hostile", cases, sizeof cases / sizeof *cases, argc, argv);
}
