/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that speak to the link itself. */
#include "tests/support/exchange.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void *on_accept(void *upper, struct cad_link_end *end)
{
	struct exchange_raw *raw = upper;
	if (raw->end)
		return NULL;
	raw->end = end;
	return raw;
}

static void serve_hello(struct exchange_raw *raw, uint8_t kind)
{
	struct cad_transport_options options;
	exchange_options(&options, "raw-server", true);
	if (kind == CADRE_WIRE_HELLO) {
		struct cadre_wire_challenge challenge = {
			.header = exchange_raw_header(raw, CADRE_WIRE_CHALLENGE, 0),
			.identity = options.identity,
		};
		exchange_raw_send(raw, CADRE_WIRE_CHALLENGE, &challenge, sizeof challenge, NULL, 0);
	} else if (kind == CADRE_WIRE_PROOF) {
		struct cadre_wire_welcome welcome = {
			.header = exchange_raw_header(raw, CADRE_WIRE_WELCOME, 0),
			.session = 42,
			.credit_bytes = 1 << 20,
			.credit_calls = 4,
			.rows_max = 64,
		};
		exchange_raw_send(raw, CADRE_WIRE_WELCOME, &welcome, sizeof welcome, NULL, 0);
		raw->session = 42;
	}
}

static bool on_message(
	void *owner, uint8_t kind, const void *header, size_t header_bytes, const struct cad_link_payload *payload)
{
	struct exchange_raw *raw = owner;
	(void)payload;
	if (kind == CADRE_WIRE_GOODBYE) {
		raw->goodbyes++;
		return false;
	}

	raw->messages++;
	raw->last_kind = kind;
	memcpy(raw->last_header, header, header_bytes);
	if (raw->serves)
		serve_hello(raw, kind);
	return false;
}

static void on_lost(void *owner, enum cad_status status, const char *text)
{
	(void)status;
	(void)text;
	((struct exchange_raw *)owner)->lost++;
}

static void on_closed(void *owner)
{
	struct exchange_raw *raw = owner;
	raw->closed++;
	raw->end = NULL;
}

static size_t on_turn(void *upper, uint64_t waited_ns)
{
	(void)upper;
	(void)waited_ns;
	return 0;
}

static uint64_t on_next(void *upper)
{
	(void)upper;
	return UINT64_MAX;
}

static const struct cad_link_events raw_events = {
	.accept = on_accept,
	.message = on_message,
	.lost = on_lost,
	.closed = on_closed,
	.turn = on_turn,
	.next_ns = on_next,
};

void exchange_raw_create(struct exchange_raw *raw, struct exchange *exchange)
{
	memset(raw, 0, sizeof *raw);
	raw->exchange = exchange;
	struct cad_link_options options = {
		.events = &raw_events,
		.upper = raw,
		.clock = exchange->clock,
		.connections_max = 4,
		.sends_max = EXCHANGE_RAW_SENDS_MAX,
	};
	struct cad_error error = { .text = "" };
	if (exchange_link_create(exchange)(&options, exchange_link_context(exchange), &raw->link, &error) != CAD_OK)
		fail_msg("%s", error.text);
	exchange->raw = raw;
}

static bool is_closed(void *context) { return ((struct exchange_raw *)context)->end == NULL; }

void exchange_raw_destroy(struct exchange_raw *raw)
{
	if (raw->end)
		raw->link->ops->close(raw->end);
	assert_true(exchange_run_until(raw->exchange, is_closed, raw));
	assert_int_equal(raw->sends_open, 0);
	raw->exchange->raw = NULL;
	raw->link->ops->destroy(raw->link);
	for (size_t i = 0; i < raw->sends_count; i++) {
		free(raw->sends[i].header);
		free(raw->sends[i].payload);
	}
}

void exchange_raw_listen(struct exchange_raw *raw, const char *name)
{
	struct cad_error error = { .text = "" };
	bool sockets = raw->exchange->form == EXCHANGE_UCX || raw->exchange->form == EXCHANGE_UCX_SHM;
	raw->serves = true;
	must(raw->link->ops->listen(raw->link, sockets ? "127.0.0.1:0" : name, &error), &error);
	for (size_t i = 0; i < raw->exchange->nodes_count && raw->link->ops->announce; i++) {
		const char *address = cad_transport_address(raw->exchange->nodes[i]->transport);
		must(raw->link->ops->announce(raw->link, &address, 1, &error), &error);
	}
}

void exchange_raw_connect(struct exchange_raw *raw, const char *address)
{
	struct cad_error error = { .text = "" };
	raw->session = 0;
	raw->messages = raw->lost = 0;
	exchange_announce(raw->exchange, raw->link->ops->address(raw->link));
	must(raw->link->ops->connect(raw->link, address, raw, &raw->end, &error), &error);
}

static void send_done(struct cad_link_op *op, enum cad_status status)
{
	(void)status;
	((struct exchange_raw *)op->link_private[1])->sends_open--;
}

void exchange_raw_send(struct exchange_raw *raw, uint8_t kind, const void *header, size_t header_bytes,
	const void *payload, size_t payload_bytes)
{
	if (!raw->end)
		return;

	assert_true(raw->sends_count < EXCHANGE_RAW_SENDS_MAX);
	struct exchange_raw_send *send = &raw->sends[raw->sends_count++];
	*send = (struct exchange_raw_send){
		.op = { .done = send_done, .link_private = { NULL, raw } },
		.header = malloc(header_bytes + 1),
		.payload = malloc(payload_bytes + 1),
	};
	assert_true(send->header && send->payload);
	if (header_bytes > 0)
		memcpy(send->header, header, header_bytes);
	if (payload_bytes > 0)
		memcpy(send->payload, payload, payload_bytes);
	struct cad_link_message message = {
		.kind = kind,
		.header = send->header,
		.header_bytes = header_bytes,
		.payload = payload_bytes ? send->payload : NULL,
		.payload_bytes = payload_bytes,
	};
	raw->sends_open += raw->link->ops->send(raw->end, &message, &send->op) == CAD_AGAIN;
}

struct cadre_wire_header exchange_raw_header(const struct exchange_raw *raw, uint8_t kind, size_t payload_bytes)
{
	return (struct cadre_wire_header){
		.magic = CADRE_WIRE_MAGIC,
		.version = CADRE_WIRE_VERSION,
		.kind = kind,
		.session = raw->session,
		.payload_bytes = payload_bytes,
	};
}

void exchange_raw_hello(struct exchange_raw *raw)
{
	struct cad_transport_options options;
	exchange_options(&options, "raw-client", false);
	struct cadre_wire_hello hello = {
		.header = exchange_raw_header(raw, CADRE_WIRE_HELLO, 0),
		.identity = options.identity,
	};
	exchange_raw_send(raw, CADRE_WIRE_HELLO, &hello, sizeof hello, NULL, 0);
}

static bool heard_or_lost(void *context)
{
	struct exchange_raw *raw = context;
	return raw->messages > 0 || raw->lost > 0;
}

bool exchange_raw_handshake(struct exchange_raw *raw)
{
	exchange_raw_hello(raw);
	assert_true(exchange_run_until(raw->exchange, heard_or_lost, raw));
	if (raw->last_kind != CADRE_WIRE_CHALLENGE || raw->lost > 0)
		return false;
	raw->messages = 0;
	struct cadre_wire_proof proof = { .header = exchange_raw_header(raw, CADRE_WIRE_PROOF, 0) };
	exchange_raw_send(raw, CADRE_WIRE_PROOF, &proof, sizeof proof, NULL, 0);
	assert_true(exchange_run_until(raw->exchange, heard_or_lost, raw));
	if (raw->last_kind != CADRE_WIRE_WELCOME || raw->lost > 0)
		return false;
	struct cadre_wire_welcome welcome;
	memcpy(&welcome, raw->last_header, sizeof welcome);
	raw->session = welcome.session;
	raw->messages = 0;

	return true;
}
