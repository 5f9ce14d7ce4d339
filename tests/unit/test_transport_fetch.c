/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of experts' images over every link: they come whole and once, calls go on beside them, and
 * whoever is late, silent, gone or wrong loses the connection and nothing else.
 */
#include "tests/support/exchange_cases.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { IMAGE_BYTES = 3 * CADRE_PART_BYTES_MAX + 12345, EXPERT = 5, LAYER = 2, ASKS_MAX = 12 };
/* What an expert node allows a part; on a busy machine, which polls both sides in turn, one of the
 * largest takes most of a second. */
enum { PART_MS = 5000, LATE_MS = 400 };

/* What the image has at a place. */
static uint8_t image_at(uint64_t offset) { return (uint8_t)(offset * 31 + (offset >> 11) + 7); }

/* ---- one who asks, and one who gives ---- */

struct ask {
	struct cad_buffer buffer;
	uint64_t offset;
	uint32_t bytes;
	int done;
	enum cad_status status;
	enum cadre_wire_status wire;
	bool right;
};
struct pair {
	struct exchange *x;
	struct exchange_node *giver, *asker;
	struct cad_connection *connection;
	struct ask asks[ASKS_MAX];
};

static struct cad_part *held[ASKS_MAX]; /* of the giver that holds what comes */
static size_t held_count;
static bool holds;

static void part_give(struct cad_part *part)
{
	const struct cadre_wire_fetch *fetch = cad_part_asked(part);
	uint8_t *bytes = cad_part_bytes(part);
	if (fetch->expert != EXPERT || fetch->layer != LAYER) {
		cad_part_answer(part, CADRE_WIRE_NOT_HELD, 0);
		return;
	}
	if (fetch->offset + fetch->bytes > IMAGE_BYTES) {
		cad_part_answer(part, CADRE_WIRE_BAD_CALL, 0);
		return;
	}
	for (uint32_t i = 0; i < fetch->bytes; i++)
		bytes[i] = image_at(fetch->offset + i);
	cad_part_answer(part, CADRE_WIRE_OK, IMAGE_BYTES);
}

static void on_fetch(struct cad_transport *transport, struct cad_part *part)
{
	(void)transport;
	if (!holds) {
		part_give(part);
		return;
	}
	assert_true(held_count < ASKS_MAX);
	held[held_count++] = part;
}

static void give_held(void)
{
	while (held_count > 0)
		part_give(held[--held_count]);
}

static void node_options(struct cad_transport_options *options, const char *name)
{
	exchange_options(options, name, true);
	options->fetches_max = 6;
	options->on_fetch = on_fetch;
	options->ping_interval_ms = 50;
	options->ping_timeout_ms = 100;
}

static void pair_init(struct pair *p, struct exchange *x)
{
	struct cad_transport_options options;
	memset(p, 0, sizeof *p);
	holds = false;
	held_count = 0;
	p->x = x;
	node_options(&options, "expert-1");
	p->giver = exchange_server(x, &options, "expert-1");
	if (x->form == EXCHANGE_ATTACHED) /* one thread's client: it serves nobody */
		exchange_options(&options, "expert-2", false);
	else
		node_options(&options, "expert-2");
	options.fetches_max = 6;
	p->asker = exchange_node_create(x, &options);
	p->connection = exchange_connect(p->asker, cad_transport_address(p->giver->transport));
	assert_non_null(p->connection);
	for (size_t i = 0; i < ASKS_MAX; i++)
		assert_int_equal(
			cad_buffer_create(p->asker->transport, CADRE_PART_BYTES_MAX, &p->asks[i].buffer), CAD_OK);
}

static void pair_fini(struct pair *p)
{
	for (size_t i = 0; i < ASKS_MAX; i++)
		cad_buffer_destroy(p->asker->transport, &p->asks[i].buffer);
}

static void on_done(void *context, enum cad_status status, enum cadre_wire_status wire, uint64_t image_bytes)
{
	struct ask *ask = context;
	ask->done++;
	ask->status = status;
	ask->wire = wire;
	assert_int_equal(image_bytes, status == CAD_OK && wire == CADRE_WIRE_OK ? IMAGE_BYTES : 0);
	ask->right = status == CAD_OK && wire == CADRE_WIRE_OK;
	for (uint32_t i = 0; i < ask->bytes && ask->right; i++)
		ask->right = ask->buffer.bytes[i] == image_at(ask->offset + i);
}

static enum cad_status ask_start_for(
	struct pair *p, struct ask *ask, uint32_t expert, uint64_t offset, uint32_t bytes, uint32_t patience_ms)
{
	ask->offset = offset;
	ask->bytes = bytes;
	ask->done = 0;
	memset(ask->buffer.bytes, 0xee, bytes);
	const struct cad_fetch_start start = {
		.fetch = { .offset = offset,
			.bytes = bytes,
			.layer = LAYER,
			.expert = expert,
			.version = CADRE_IMAGE_VERSION,
			.kind = CADRE_IMAGE_FLOAT },
		.buffer = &ask->buffer,
		.deadline_ns = cad_transport_now_ns(p->asker->transport) + patience_ms * CAD_NS_PER_MS,
		.done = on_done,
		.context = ask,
	};
	return cad_fetch_start(p->connection, &start);
}

static enum cad_status ask_start(struct pair *p, struct ask *ask, uint32_t expert, uint64_t offset, uint32_t bytes)
{
	return ask_start_for(p, ask, expert, offset, bytes, PART_MS);
}

static bool is_done(void *context) { return ((struct ask *)context)->done > 0; }
static bool is_held(void *context) { return held_count >= *(size_t *)context; }

/* ---- cases ---- */

/* A whole image, two parts at a time, the last one short; with a call beside each. */
static void whole_image(struct exchange *x)
{
	struct pair p;
	struct exchange_call call;
	pair_init(&p, x);
	exchange_call_create(&call, p.asker, 4, EXCHANGE_ELEMENTS, 1);

	uint64_t asked = 0, come = 0;
	for (size_t i = 0; come < IMAGE_BYTES; i++) {
		for (struct ask *ask = p.asks; ask < p.asks + 2; ask++) {
			uint64_t left = IMAGE_BYTES - asked;
			if (ask->done == 0 && ask->bytes > 0)
				continue;
			uint32_t bytes = left < CADRE_PART_BYTES_MAX ? (uint32_t)left : CADRE_PART_BYTES_MAX;
			if (bytes == 0)
				break;
			assert_int_equal(ask_start(&p, ask, EXPERT, asked, bytes), CAD_OK);
			asked += bytes;
		}
		assert_int_equal(exchange_call_start(&call, p.connection, 0), CAD_OK);
		assert_true(exchange_run_until(x, is_done, &p.asks[i % 2]));
		assert_true(exchange_run_until(x, exchange_call_done, &call));
		assert_true(call.right && p.asks[i % 2].right);
		come += p.asks[i % 2].bytes;
	}
	exchange_call_destroy(&call);
	pair_fini(&p);
}

/* One byte, and sizes around where links send differently. */
static void sizes(struct exchange *x)
{
	static const uint32_t bytes[] = { 1, 7, 8192, (256 << 10) - 1, 256 << 10, CADRE_PART_BYTES_MAX };
	struct pair p;
	pair_init(&p, x);
	for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
		assert_int_equal(ask_start(&p, &p.asks[0], EXPERT, 1000 * i + 1, bytes[i]), CAD_OK);
		assert_true(exchange_run_until(x, is_done, &p.asks[0]));
		assert_true(p.asks[0].right);
	}
	pair_fini(&p);
}

static void statuses(struct exchange *x)
{
	struct pair p;
	pair_init(&p, x);
	assert_int_equal(ask_start(&p, &p.asks[0], EXPERT + 1, 0, 100), CAD_OK);
	assert_int_equal(ask_start(&p, &p.asks[1], EXPERT, IMAGE_BYTES, 100), CAD_OK);
	assert_true(exchange_run_until(x, is_done, &p.asks[0]) && exchange_run_until(x, is_done, &p.asks[1]));
	assert_true(p.asks[0].status == CAD_OK && p.asks[0].wire == CADRE_WIRE_NOT_HELD);
	assert_true(p.asks[1].status == CAD_OK && p.asks[1].wire == CADRE_WIRE_BAD_CALL);
	pair_fini(&p);
}

/* Who asks is held back at CADRE_FETCHES_MAX; a giver whose buffers are all out says so. */
static void bounded(struct exchange *x)
{
	struct pair p;
	size_t all = CADRE_FETCHES_MAX;
	pair_init(&p, x);
	holds = true;
	for (size_t i = 0; i < all; i++)
		assert_int_equal(ask_start(&p, &p.asks[i], EXPERT, i, 10), CAD_OK);
	assert_int_equal(ask_start(&p, &p.asks[all], EXPERT, 0, 10), CAD_AGAIN);
	assert_true(exchange_run_until(x, is_held, &all));

	struct pair other = { .x = x, .asker = p.asker };
	struct cad_transport_options options;
	exchange_options(&options, "expert-3", false);
	options.fetches_max = 6;
	other.asker = exchange_node_create(x, &options);
	other.connection = exchange_connect(other.asker, cad_transport_address(p.giver->transport));
	assert_non_null(other.connection);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(
			cad_buffer_create(other.asker->transport, CADRE_PART_BYTES_MAX, &other.asks[i].buffer), CAD_OK);
		assert_int_equal(ask_start(&other, &other.asks[i], EXPERT, i, 10), CAD_OK);
	}
	assert_true(exchange_run_until(x, is_done, &other.asks[2])); /* the giver has six, four were out */
	assert_int_equal(other.asks[2].wire, CADRE_WIRE_BUSY);
	give_held();
	for (size_t i = 0; i < all; i++)
		assert_true(exchange_run_until(x, is_done, &p.asks[i]) && p.asks[i].right);
	for (size_t i = 0; i < 3; i++) {
		assert_true(exchange_run_until(x, is_done, &other.asks[i]));
		cad_buffer_destroy(other.asker->transport, &other.asks[i].buffer);
	}
	assert_int_equal(p.giver->closed_count + p.asker->closed_count, 0);
	pair_fini(&p);
}

/* A part that does not come in time ends the connection; the giver gets its part back all the
 * same. */
static void late_part(struct exchange *x)
{
	struct pair p;
	size_t one = 1;
	pair_init(&p, x);
	holds = true;
	assert_int_equal(ask_start_for(&p, &p.asks[0], EXPERT, 0, 1000, LATE_MS), CAD_OK);
	assert_true(exchange_run_until(x, is_held, &one));
	assert_true(exchange_run_until(x, is_done, &p.asks[0]));
	assert_int_equal(p.asks[0].status, CAD_ERR_DEADLINE);
	assert_true(exchange_run_until(x, exchange_closed_some, p.giver));
	assert_true(exchange_run_until(x, exchange_closed_some, p.asker));
	assert_non_null(strstr(p.asker->closed[0].text, "expert-1: a part of an expert did not come in time"));
	give_held();

	p.connection = exchange_connect(p.asker, cad_transport_address(p.giver->transport));
	assert_non_null(p.connection);
	holds = false;
	assert_int_equal(ask_start(&p, &p.asks[0], EXPERT, 0, 1000), CAD_OK);
	assert_true(exchange_run_until(x, is_done, &p.asks[0]) && p.asks[0].right);
	pair_fini(&p);
}

static void giver_goes(struct exchange *x)
{
	struct pair p;
	size_t two = 2;
	pair_init(&p, x);
	holds = true;
	assert_int_equal(ask_start(&p, &p.asks[0], EXPERT, 0, CADRE_PART_BYTES_MAX), CAD_OK);
	assert_int_equal(ask_start(&p, &p.asks[1], EXPERT, 0, 10), CAD_OK);
	assert_true(exchange_run_until(x, is_held, &two));
	give_held(); /* perhaps on its way already */
	exchange_node_destroy(p.giver);
	for (size_t i = 0; i < 2; i++) {
		assert_true(exchange_run_until(x, is_done, &p.asks[i]));
		assert_int_equal(p.asks[i].done, 1);
		assert_true(p.asks[i].right || p.asks[i].status < 0);
	}
	pair_fini(&p);
}

static void asker_goes(struct exchange *x)
{
	struct pair p;
	size_t two = 2;
	pair_init(&p, x);
	holds = true;
	assert_int_equal(ask_start(&p, &p.asks[0], EXPERT, 0, CADRE_PART_BYTES_MAX), CAD_OK);
	assert_int_equal(ask_start(&p, &p.asks[1], EXPERT, 0, 10), CAD_OK);
	assert_true(exchange_run_until(x, is_held, &two));
	part_give(held[--held_count]);
	cad_connection_close(p.connection, CAD_OK, NULL);
	assert_true(exchange_run_until(x, exchange_closed_some, p.giver));
	give_held();
	assert_int_equal(p.asks[0].done, 1);
	assert_int_equal(p.asks[1].done, 1);
	pair_fini(&p);
}

/* A giver that hangs is noticed by its silence. */
static void giver_hangs(struct exchange *x)
{
	struct pair p;
	pair_init(&p, x);
	exchange_pause(p.giver);
	assert_int_equal(ask_start(&p, &p.asks[0], EXPERT, 0, 10), CAD_OK);
	assert_true(exchange_run_until(x, is_done, &p.asks[0]));
	assert_int_equal(p.asks[0].status, CAD_ERR_PEER_LOST);
	exchange_resume(p.giver);
	pair_fini(&p);
}

/* ---- both ways ---- */

static bool both_ready(void *context)
{
	const struct pair *sides = context;
	return cad_connection_state(sides[0].connection) == CAD_CONNECTION_READY &&
		cad_connection_state(sides[1].connection) == CAD_CONNECTION_READY;
}

/* Two nodes connect to each other at the same moment, before either has heard of it: both ways
 * stand, as if one had been first, and both give. */
static void crossing(struct exchange *x)
{
	static struct pair sides[2];
	struct cad_transport_options options;
	memset(sides, 0, sizeof sides);
	holds = false;
	for (size_t i = 0; i < 2; i++) {
		node_options(&options, i ? "expert-2" : "expert-1");
		sides[i].x = x;
		sides[i].asker = exchange_server(x, &options, i ? "expert-2" : "expert-1");
	}
	for (size_t i = 0; i < 2; i++) {
		sides[i].giver = sides[!i].asker;
		exchange_announce(x, cad_transport_address(sides[i].asker->transport));
	}
	for (size_t i = 0; i < 2; i++)
		sides[i].connection =
			exchange_connect_start(sides[i].asker, cad_transport_address(sides[i].giver->transport));
	assert_true(exchange_run_until(x, both_ready, sides));

	for (size_t i = 0; i < 2; i++) {
		struct ask *ask = &sides[i].asks[0];
		assert_int_equal(
			cad_buffer_create(sides[i].asker->transport, CADRE_PART_BYTES_MAX, &ask->buffer), CAD_OK);
		assert_int_equal(ask_start(&sides[i], ask, EXPERT, 77, CADRE_PART_BYTES_MAX), CAD_OK);
		assert_true(exchange_run_until(x, is_done, ask) && ask->right);
		cad_buffer_destroy(sides[i].asker->transport, &ask->buffer);
		assert_int_equal(sides[i].asker->closed_count, 0);
		assert_int_equal(cad_transport_stats(sides[i].asker->transport)->protocol_errors, 0);
	}
}

/* ---- what bad peers do ---- */

static void part_send(struct exchange_raw *raw, struct cadre_wire_part part, size_t bytes)
{
	static uint8_t payload[CADRE_PART_BYTES_MAX + 1];
	part.header = exchange_raw_header(raw, CADRE_WIRE_PART, bytes);
	exchange_raw_send(raw, CADRE_WIRE_PART, &part, sizeof part, payload, bytes);
}
static void part_too_short(struct exchange_raw *raw, const struct cadre_wire_fetch *fetch)
{
	part_send(raw, (struct cadre_wire_part){ .request_id = fetch->request_id, .image_bytes = 9999 }, 999);
}
static void part_too_long(struct exchange_raw *raw, const struct cadre_wire_fetch *fetch)
{
	part_send(raw, (struct cadre_wire_part){ .request_id = fetch->request_id, .image_bytes = 9999 }, 1001);
}
static void part_without_end(struct exchange_raw *raw, const struct cadre_wire_fetch *fetch)
{
	part_send(raw, (struct cadre_wire_part){ .request_id = fetch->request_id, .image_bytes = UINT64_MAX },
		CADRE_PART_BYTES_MAX + 1);
}
static void part_of_no_slot(struct exchange_raw *raw, const struct cadre_wire_fetch *fetch)
{
	part_send(raw, (struct cadre_wire_part){ .request_id = fetch->request_id + 1000, .image_bytes = 9999 }, 1000);
}
static void part_of_long_ago(struct exchange_raw *raw, const struct cadre_wire_fetch *fetch)
{
	part_send(raw, (struct cadre_wire_part){ .request_id = fetch->request_id - (1ull << 32), .image_bytes = 9999 },
		1000);
}
static void part_twice(struct exchange_raw *raw, const struct cadre_wire_fetch *fetch)
{
	for (int i = 0; i < 2; i++)
		part_send(raw, (struct cadre_wire_part){ .request_id = fetch->request_id, .image_bytes = IMAGE_BYTES },
			1000);
}
static void fetch_to_client(struct exchange_raw *raw, const struct cadre_wire_fetch *fetch)
{
	struct cadre_wire_fetch back = *fetch;
	exchange_raw_send(raw, CADRE_WIRE_FETCH, &back, sizeof back, NULL, 0);
}

static void (*const bad_givers[])(struct exchange_raw *raw, const struct cadre_wire_fetch *fetch) = {
	part_too_short,
	part_too_long,
	part_without_end,
	part_of_no_slot,
	part_of_long_ago,
	part_twice,
	fetch_to_client,
};

static bool fetch_heard(void *context) { return ((struct exchange_raw *)context)->last_kind == CADRE_WIRE_FETCH; }
struct closing {
	struct exchange_node *node;
	size_t count;
};
static bool closed_more(void *context)
{
	return ((struct closing *)context)->node->closed_count > ((struct closing *)context)->count;
}

static void bad_giver(struct exchange *x)
{
	struct cad_transport_options options;
	struct pair p = { .x = x };
	exchange_options(&options, "expert-2", false);
	options.fetches_max = 6;
	p.asker = exchange_node_create(x, &options);
	assert_int_equal(cad_buffer_create(p.asker->transport, CADRE_PART_BYTES_MAX, &p.asks[0].buffer), CAD_OK);
	for (size_t i = 0; i < sizeof bad_givers / sizeof *bad_givers; i++) {
		static struct exchange_raw raw;
		exchange_raw_create(&raw, x);
		exchange_raw_listen(&raw, "bad");
		p.connection = exchange_connect(p.asker, raw.link->ops->address(raw.link));
		assert_non_null(p.connection);
		struct closing before = { p.asker, p.asker->closed_count };
		p.asks[0].bytes = 0;
		assert_int_equal(ask_start(&p, &p.asks[0], EXPERT, 0, 1000), CAD_OK);
		assert_true(exchange_run_until(x, fetch_heard, &raw));
		struct cadre_wire_fetch fetch;
		memcpy(&fetch, raw.last_header, sizeof fetch);
		p.asks[0].bytes = 0; /* what it holds is not looked at */
		bad_givers[i](&raw, &fetch);
		if (!exchange_run_until(x, closed_more, &before))
			fail_msg("%zu was borne", i);
		assert_int_equal(p.asker->closed[before.count].status, CAD_ERR_PROTOCOL);
		assert_int_equal(p.asks[0].done, 1);
		exchange_raw_destroy(&raw);
	}
	cad_buffer_destroy(p.asker->transport, &p.asks[0].buffer);
}

/* More at once than anybody may ask. */
static void greedy_asker(struct exchange *x)
{
	struct cad_transport_options options;
	node_options(&options, "expert-1");
	struct exchange_node *giver = exchange_server(x, &options, "expert-1");
	static struct exchange_raw raw;
	holds = true;
	held_count = 0;
	exchange_raw_create(&raw, x);
	exchange_raw_connect(&raw, cad_transport_address(giver->transport));
	assert_true(exchange_raw_handshake(&raw));
	for (int i = 0; i < 64; i++) {
		struct cadre_wire_fetch fetch = { .header = exchange_raw_header(&raw, CADRE_WIRE_FETCH, 0),
			.bytes = 1 };
		exchange_raw_send(&raw, CADRE_WIRE_FETCH, &fetch, sizeof fetch, NULL, 0);
	}
	assert_true(exchange_run_until(x, exchange_closed_some, giver));
	assert_int_equal(giver->closed[0].status, CAD_ERR_PROTOCOL);
	assert_non_null(strstr(giver->closed[0].text, "more than 4 fetches at once"));
	give_held();
	exchange_raw_destroy(&raw);
}

static const struct exchange_case cases[] = {
	EXCHANGE_CASE(whole_image, EXCHANGE_ALL),
	EXCHANGE_CASE(sizes, EXCHANGE_ALL),
	EXCHANGE_CASE(statuses, EXCHANGE_ALL),
	EXCHANGE_CASE(bounded, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(late_part, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(giver_goes, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(asker_goes, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(giver_hangs, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(crossing, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(bad_giver, EXCHANGE_NOT_ATTACHED),
	EXCHANGE_CASE(greedy_asker, EXCHANGE_NOT_ATTACHED),
};

int main(int argc, char **argv) { return exchange_cases_run("fetch", cases, sizeof cases / sizeof *cases, argc, argv); }
