/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol's state machine: a client and a server over the simulator, and one raw peer that is
 * the server's client or the client's server and says what the fuzzer likes, mostly after an honest
 * hello, so that the checks behind it are reached. Nothing may crash, no callback may be missing or
 * come twice, and the two honest sides must still understand each other at the end.
 */
#include "tests/support/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ELEMENTS = 4,
	ROWS_MAX = 8,
	PAYLOAD_MAX = 4096,
	SENDS_MAX = 256,
	ANSWER_BYTES = ROWS_MAX * (8 + 8 * ELEMENTS),
	HELD_MAX = 16
};

struct input {
	const uint8_t *bytes;
	size_t left;
};
static uint8_t take(struct input *in) { return in->left ? (in->left--, *in->bytes++) : 0; }

struct world {
	struct cad_sim *sim;
	struct cad_transport *server, *client;
	struct cad_link *raw;
	struct cad_link_end *raw_end;
	uint64_t raw_session, raw_request_id;
	struct cad_request *held[HELD_MAX];
	size_t held_count;
	struct cad_part *parts[HELD_MAX];
	size_t parts_count;
	struct cad_buffer part;
	bool fetching;
	uint64_t raw_fetch_id;
	struct cad_buffer payload, answer;
	bool calling, ready, understood;
	struct cad_connection *connection, *honest;
	size_t sends_count;
	struct send {
		struct cad_link_op op;
		uint8_t header[CAD_LINK_HEADER_BYTES_MAX], payload[PAYLOAD_MAX];
	} sends[SENDS_MAX];
};

/* ---- the honest sides ---- */

static void identity_for(struct cadre_wire_identity *identity, const char *node)
{
	memset(identity, 0, sizeof *identity);
	snprintf(identity->cluster, sizeof identity->cluster, "fuzz");
	snprintf(identity->node, sizeof identity->node, "%s", node);
}

static size_t call_fill(uint8_t *bytes, uint32_t rows, struct cadre_wire_call *call)
{
	*call = (struct cadre_wire_call){
		.rows = rows,
		.row_elements = ELEMENTS,
		.pairs = rows,
		.groups = 1,
		.data_bytes = rows * ELEMENTS * 4,
	};
	struct cad_call_layout at = cad_wire_call_layout(rows, (size_t)call->data_bytes, 1, rows);
	memset(bytes, 0, at.bytes);
	memcpy(bytes + at.groups, &(struct cadre_wire_group){ .pairs = rows }, sizeof(struct cadre_wire_group));

	for (uint32_t r = 0; r < rows; r++) {
		memcpy(bytes + at.rows + r * sizeof(struct cadre_wire_row),
			&(struct cadre_wire_row){
				.type = CADRE_ROW_F32,
			},
			sizeof(struct cadre_wire_row));
		memcpy(bytes + at.pairs + r * sizeof(struct cadre_wire_pair),
			&(struct cadre_wire_pair){
				.row = r,
				.weight = 1,
			},
			sizeof(struct cadre_wire_pair));
	}

	return at.bytes;
}

static size_t answer_fill(uint8_t *bytes, uint32_t rows)
{
	memset(bytes, 7, rows * (sizeof(struct cadre_wire_sum) + ELEMENTS * 2));
	for (uint32_t r = 0; r < rows; r++)
		memcpy(bytes + r * sizeof(struct cadre_wire_sum),
			&(struct cadre_wire_sum){
				.width = 2,
			},
			sizeof(struct cadre_wire_sum));
	return rows * (sizeof(struct cadre_wire_sum) + ELEMENTS * 2);
}

static void answer(struct cad_request *request)
{
	struct cad_buffer *buffer = cad_request_answer_buffer(request);
	uint32_t rows = cad_request_view(request)->call.rows;
	if (buffer)
		cad_request_answer(request,
			&(struct cadre_wire_answer){
				.data_bytes = rows * ELEMENTS * 2,
			},
			answer_fill(buffer->bytes, rows));
	else
		cad_request_answer(request, &(struct cadre_wire_answer){ .header.status = CADRE_WIRE_BUSY }, 0);
}

static void on_request(struct cad_transport *transport, struct cad_request *request)
{
	struct world *w = cad_transport_user(transport);
	CAD_ASSERT(w->held_count < HELD_MAX);
	w->held[w->held_count++] = request;
}

static void on_fetch(struct cad_transport *transport, struct cad_part *part)
{
	struct world *w = cad_transport_user(transport);
	CAD_ASSERT(w->parts_count < HELD_MAX);
	w->parts[w->parts_count++] = part;
}

static void give(struct world *w, bool right)
{
	struct cad_part *part = w->parts[--w->parts_count];
	memset(cad_part_bytes(part), 7, cad_part_asked(part)->bytes);
	cad_part_answer(part, right ? CADRE_WIRE_OK : CADRE_WIRE_NOT_HELD, right ? UINT64_MAX : 0);
}

static void on_part(void *context, enum cad_status status, enum cadre_wire_status wire, uint64_t image_bytes)
{
	struct world *w = context;
	CAD_ASSERT(w->fetching && (image_bytes > 0) == (status == CAD_OK && wire == CADRE_WIRE_OK));
	w->fetching = false;
}

static void fetch_start(struct world *w, uint32_t bytes)
{
	if (w->fetching || !w->connection)
		return;
	const struct cad_fetch_start start = {
		.fetch = { .bytes = bytes, .version = CADRE_IMAGE_VERSION, .kind = CADRE_IMAGE_FLOAT },
		.buffer = &w->part,
		.deadline_ns = cad_clock_now_ns(cad_sim_clock(w->sim)) + 2 * CAD_NS_PER_MS,
		.done = on_part,
		.context = w,
	};
	w->fetching = cad_fetch_start(w->connection, &start) == CAD_OK;
}

static void on_connection(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	struct world *w = cad_transport_user(transport);
	CAD_ASSERT(state == CAD_CONNECTION_READY ? status == CAD_OK : status < 0 && text[0] != 0);
	w->ready |= connection == w->honest && state == CAD_CONNECTION_READY;
	if (connection == w->connection && state == CAD_CONNECTION_CLOSED)
		w->connection = NULL;
}

static void on_done(void *context, struct cad_call *call, enum cad_status status, const struct cad_answer_view *view)
{
	(void)call;
	struct world *w = context;
	CAD_ASSERT(w->calling);
	w->calling = false;
	w->understood = status == CAD_OK && view->answer.header.status == CADRE_WIRE_OK;
}

static void call_start(struct world *w, struct cad_connection *connection, uint32_t rows, uint64_t timeout_ns)
{
	struct cad_call *call;
	struct cad_call_start start = {
		.payload = &w->payload,
		.answer = &w->answer,
		.done = on_done,
		.context = w,
	};

	if (w->calling || !connection)
		return;

	start.payload_bytes = call_fill(w->payload.bytes, rows, &start.call);
	start.deadline_ns = timeout_ns ? cad_clock_now_ns(cad_sim_clock(w->sim)) + timeout_ns : 0;
	w->calling = cad_call_start(connection, &start, &call) == CAD_OK;
}

static struct cad_transport *transport_create(struct world *w, const char *node, bool server)
{
	struct cad_transport_options o;
	struct cad_transport *transport;

	cad_transport_options_default(&o);
	identity_for(&o.identity, node);
	o.limits = (struct cad_wire_limits){
		.payload_bytes_max = PAYLOAD_MAX - 64,
		.rows_max = ROWS_MAX,
		.row_elements = ELEMENTS,
		.layers = 2,
		.experts = 4,
	};
	o.connections_max = 4;
	o.calls_max = 8;
	o.credit_calls = 3;
	o.request_buffers = 2;
	o.answer_buffers = 2;
	o.user = w;
	o.on_connection = on_connection;
	o.on_request = server ? on_request : NULL;
	o.on_fetch = server ? on_fetch : NULL;
	o.fetches_max = 3;
	CAD_ASSERT(cad_transport_sim_create(&o, w->sim, &transport, NULL) == CAD_OK);

	return transport;
}

/* ---- the raw peer ---- */

static void *raw_accept(void *upper, struct cad_link_end *end)
{
	struct world *w = upper;
	if (w->raw_end)
		return NULL;
	w->raw_end = end;
	return w;
}

static bool raw_message(
	void *owner, uint8_t kind, const void *header, size_t header_bytes, const struct cad_link_payload *payload)
{
	struct world *w = owner;
	(void)payload;
	if (kind == CADRE_WIRE_WELCOME && header_bytes == sizeof(struct cadre_wire_welcome))
		memcpy(&w->raw_session, (const uint8_t *)header + offsetof(struct cadre_wire_welcome, session),
			sizeof w->raw_session);
	if (kind == CADRE_WIRE_CALL && header_bytes == sizeof(struct cadre_wire_call))
		memcpy(&w->raw_request_id, (const uint8_t *)header + offsetof(struct cadre_wire_call, request_id),
			sizeof w->raw_request_id);
	if (kind == CADRE_WIRE_FETCH && header_bytes == sizeof(struct cadre_wire_fetch))
		memcpy(&w->raw_fetch_id, (const uint8_t *)header + offsetof(struct cadre_wire_fetch, request_id),
			sizeof w->raw_fetch_id);
	return false;
}

static void raw_lost(void *owner, enum cad_status status, const char *text) { (void)owner, (void)status, (void)text; }
static void raw_closed(void *owner)
{
	struct world *w = owner;
	w->raw_end = NULL;
	w->raw_session = 0;
}
static size_t raw_turn(void *upper, uint64_t waited_ns) { return (void)upper, (void)waited_ns, 0; }
static uint64_t raw_next(void *upper) { return (void)upper, UINT64_MAX; }
static void raw_sent(struct cad_link_op *op, enum cad_status status) { (void)op, (void)status; }

static const struct cad_link_events raw_events = {
	.accept = raw_accept,
	.message = raw_message,
	.lost = raw_lost,
	.closed = raw_closed,
	.turn = raw_turn,
	.next_ns = raw_next,
};

/* What stands behind the common header, and the payload, whose bytes it returns. */
static size_t body_fill(struct world *w, struct input *in, uint8_t kind, uint32_t rows, struct send *send)
{
	size_t payload_bytes = 0;

	if (kind == CADRE_WIRE_CALL) {
		struct cadre_wire_call call;
		payload_bytes = call_fill(send->payload, rows, &call);
		call.request_id = take(in);
		memcpy(send->header, &call, sizeof call);
	}

	if (kind == CADRE_WIRE_ANSWER) {
		payload_bytes = answer_fill(send->payload, rows);
		memcpy(send->header,
			&(struct cadre_wire_answer){
				.request_id = w->raw_request_id,
				.data_bytes = rows * ELEMENTS * 2,
				.rows = rows,
				.row_elements = ELEMENTS,
			},
			sizeof(struct cadre_wire_answer));
	}

	if (kind == CADRE_WIRE_FETCH)
		memcpy(send->header,
			&(struct cadre_wire_fetch){
				.bytes = rows,
				.version = CADRE_IMAGE_VERSION,
				.kind = CADRE_IMAGE_FLOAT,
			},
			sizeof(struct cadre_wire_fetch));

	if (kind == CADRE_WIRE_PART) {
		payload_bytes = rows;
		memcpy(send->header,
			&(struct cadre_wire_part){
				.request_id = w->raw_fetch_id,
				.image_bytes = UINT64_MAX,
			},
			sizeof(struct cadre_wire_part));
	}

	return payload_bytes;
}

/* A message of a kind as an honest peer would send it, then some of its bytes changed. */
static void raw_send(struct world *w, struct input *in, uint8_t kind, bool honest)
{
	if (!w->raw_end || w->sends_count == SENDS_MAX)
		return;

	struct send *send = &w->sends[w->sends_count++];
	size_t header_bytes = cad_wire_header_bytes(kind), payload_bytes = 0;
	header_bytes = header_bytes ? header_bytes : sizeof(struct cadre_wire_header);
	memset(send->header, 0, sizeof send->header);
	send->op.done = raw_sent;
	uint32_t rows = honest ? 1 : 1 + take(in) % ROWS_MAX;
	struct cadre_wire_header header = {
		.magic = CADRE_WIRE_MAGIC,
		.version = CADRE_WIRE_VERSION,
		.kind = kind,
		.session = kind < CADRE_WIRE_CALL ? 0 : w->raw_session,
	};
	if (kind == CADRE_WIRE_HELLO || kind == CADRE_WIRE_CHALLENGE)
		identity_for((struct cadre_wire_identity *)(void *)(send->header + sizeof header), "raw");
	if (kind == CADRE_WIRE_WELCOME) {
		w->raw_session = 9;
		memcpy(send->header,
			&(struct cadre_wire_welcome){
				.session = 9,
				.credit_bytes = PAYLOAD_MAX,
				.credit_calls = 2,
				.rows_max = ROWS_MAX,
			},
			sizeof(struct cadre_wire_welcome));
	}

	payload_bytes = body_fill(w, in, kind, rows, send);
	header.payload_bytes = payload_bytes;
	memcpy(send->header, &header, sizeof header);

	for (uint8_t changes = honest ? 0 : take(in) % 4; changes > 0; changes--) {
		size_t at = (size_t)take(in) << 8 | take(in);
		uint8_t *where = at & 1 && payload_bytes ? &send->payload[at / 2 % payload_bytes]
							 : &send->header[at / 2 % header_bytes];
		*where = take(in);
	}

	if (!honest && take(in) % 16 == 0) {
		header_bytes = take(in) * 3u % CAD_LINK_HEADER_BYTES_MAX;
		payload_bytes = (take(in) * 16u + 8u) % PAYLOAD_MAX;
	}

	struct cad_link_message message = {
		.kind = honest || take(in) % 16 ? kind : take(in),
		.header = send->header,
		.header_bytes = header_bytes,
		.payload = payload_bytes ? send->payload : NULL,
		.payload_bytes = payload_bytes,
	};
	(void)w->raw->ops->send(w->raw_end, &message, &send->op);
}

static void run(struct world *w, uint64_t ns) { cad_sim_run(w->sim, ns); }

static void raw_connect(struct world *w, struct input *in)
{
	if (w->raw_end || w->raw->ops->connect(w->raw, "server", w, &w->raw_end, NULL) != CAD_OK)
		return;
	raw_send(w, in, CADRE_WIRE_HELLO, true);
	run(w, CAD_NS_PER_MS);
	raw_send(w, in, CADRE_WIRE_PROOF, true);
	run(w, CAD_NS_PER_MS);
}

/* The client connects to the raw peer. */
static void raw_serve(struct world *w, struct input *in)
{
	if (w->raw_end || w->connection ||
		cad_transport_connect(w->client, "raw", NULL, &w->connection, NULL) != CAD_OK)
		return;
	run(w, CAD_NS_PER_MS);
	raw_send(w, in, CADRE_WIRE_CHALLENGE, true);
	run(w, CAD_NS_PER_MS);
	raw_send(w, in, CADRE_WIRE_WELCOME, true);
	run(w, CAD_NS_PER_MS);
}

static void step(struct world *w, struct input *in)
{
	uint8_t what = take(in);
	switch (what % 8) {
	case 0: raw_connect(w, in); break;
	case 1: raw_serve(w, in); break;
	case 2:
		if (w->parts_count > 0 && what & 8)
			give(w, what & 16);
		else if (w->held_count > 0)
			answer(w->held[--w->held_count]);
		break;
	case 6: fetch_start(w, 1 + what / 8 % ROWS_MAX); break;
	case 3: call_start(w, w->connection, 1 + what / 8 % ROWS_MAX, what & 64 ? CAD_NS_PER_MS : 0); break;
	case 4: run(w, (uint64_t)take(in) * 40 * CAD_NS_PER_US); break;
	case 5:
		if (w->raw_end && what & 64)
			w->raw->ops->close(w->raw_end);
		run(w, CAD_NS_PER_MS);
		break;
	default: raw_send(w, in, take(in) % CADRE_WIRE_KIND_COUNT, false); break;
	}
}

/* Whatever happened: the client reaches the server, and is answered. */
static void understand(struct world *w)
{
	if (w->connection)
		cad_connection_close(w->connection, CAD_OK, NULL);
	if (w->raw_end)
		w->raw->ops->close(w->raw_end);
	run(w, 10 * CAD_NS_PER_MS);
	CAD_ASSERT(!w->calling && !w->raw_end);
	CAD_ASSERT(!w->fetching);
	while (w->parts_count > 0)
		give(w, true);
	while (w->held_count > 0)
		answer(w->held[--w->held_count]);
	run(w, 1500 * CAD_NS_PER_MS); /* answer buffers that were cut off may rest */
	CAD_ASSERT(cad_transport_connect(w->client, "server", NULL, &w->honest, NULL) == CAD_OK);
	run(w, 10 * CAD_NS_PER_MS);
	CAD_ASSERT(w->ready);
	call_start(w, w->honest, 3, 0);
	run(w, 10 * CAD_NS_PER_MS);
	CAD_ASSERT(w->held_count == 1);
	answer(w->held[--w->held_count]);
	run(w, 10 * CAD_NS_PER_MS);
	CAD_ASSERT(!w->calling && w->understood);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w;
	memset(&w, 0, offsetof(struct world, sends)); /* what lies behind is filled as it is used */
	struct input in = { data, size };
	struct cad_sim_options sim = {
		.seed = take(&in),
		.delay_min_ns = 10 * CAD_NS_PER_US,
		.delay_max_ns = 100 * CAD_NS_PER_US,
	};
	CAD_ASSERT(cad_sim_create(&sim, &w.sim) == CAD_OK);
	struct cad_link_options options = {
		.events = &raw_events,
		.upper = &w,
		.clock = cad_sim_clock(w.sim),
		.connections_max = 2,
		.sends_max = SENDS_MAX,
	};
	CAD_ASSERT(cad_link_sim_create(&options, w.sim, &w.raw, NULL) == CAD_OK);
	w.server = transport_create(&w, "server", true);
	w.client = transport_create(&w, "client", false);
	CAD_ASSERT(cad_transport_listen(w.server, "server", NULL) == CAD_OK &&
		w.raw->ops->listen(w.raw, "raw", NULL) == CAD_OK);
	CAD_ASSERT(cad_buffer_create(w.client, PAYLOAD_MAX, &w.payload) == CAD_OK &&
		cad_buffer_create(w.client, ANSWER_BYTES, &w.answer) == CAD_OK &&
		cad_buffer_create(w.client, PAYLOAD_MAX, &w.part) == CAD_OK);
	while (in.left > 0 && w.sends_count < SENDS_MAX)
		step(&w, &in);
	understand(&w);
	cad_buffer_destroy(w.client, &w.payload);
	cad_buffer_destroy(w.client, &w.answer);
	cad_buffer_destroy(w.client, &w.part);
	cad_transport_destroy(w.client);
	cad_transport_destroy(w.server);
	w.raw->ops->destroy(w.raw);
	cad_sim_destroy(w.sim);

	return 0;
}
