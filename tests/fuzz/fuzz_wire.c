/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages from a stranger. The first byte chooses: the rest as a header and a payload as it lies,
 * a message of the handshake, or a good message whose shape the next bytes give, and in which the
 * rest of the input changes single bytes. Whatever passes the checks is walked to its last byte
 * under ASan.
 */
#include "common/transport/wire.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RAW = 1, ANSWER = 2, HANDSHAKE = 4, ROWS_MAX = 8, ELEMENTS_MAX = 511, EXPERTS = 12 };

static volatile uint64_t sink;

struct input {
	const uint8_t *data;
	size_t size;
};

static uint8_t take(struct input *in)
{
	if (in->size == 0)
		return 0;
	in->size--;
	return *in->data++;
}

/* Memory of exactly the message's size, so that one byte too far is seen. */
struct message {
	uint8_t *header, *payload;
	size_t header_bytes, payload_bytes;
};

static void message_init(struct message *m, size_t header_bytes, size_t payload_bytes)
{
	*m = (struct message){ calloc(1, header_bytes + !header_bytes), calloc(1, payload_bytes + !payload_bytes),
		header_bytes, payload_bytes };
	if (!m->header || !m->payload)
		abort();
}

static void message_fini(struct message *m)
{
	free(m->header);
	free(m->payload);
}

static void walk(const void *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		sink += ((const uint8_t *)bytes)[i];
}

static void call_walk(const struct cad_call_view *view, const struct message *m)
{
	const uint8_t *data = view->data;
	for (uint32_t r = 0; r < view->call.rows; r++) {
		walk(data, cadre_row_bytes(view->rows[r].type, view->call.row_elements));
		data += cadre_row_bytes(view->rows[r].type, view->call.row_elements);
	}

	const struct cadre_wire_pair *pair = view->pairs;
	for (uint32_t g = 0; g < view->call.groups; g++)
		for (uint32_t i = 0; i < view->groups[g].pairs; i++, pair++)
			if (pair->row >= view->call.rows)
				abort();
	if ((const uint8_t *)pair != m->payload + m->payload_bytes || data > (const uint8_t *)view->groups)
		abort();
}

static void answer_walk(const struct cad_answer_view *view, const struct message *m)
{
	if (!view->sums)
		return;
	const uint8_t *data = view->data;
	for (uint32_t r = 0; r < view->answer.rows; r++) {
		walk(data, (size_t)view->sums[r].width * view->answer.row_elements);
		data += (size_t)view->sums[r].width * view->answer.row_elements;
	}
	if (data != m->payload + m->payload_bytes)
		abort();
}

static struct cadre_wire_header header_of(uint8_t kind, size_t payload_bytes)
{
	return (struct cadre_wire_header){
		.magic = CADRE_WIRE_MAGIC,
		.version = CADRE_WIRE_VERSION,
		.kind = kind,
		.payload_bytes = payload_bytes,
	};
}

/* A good call: row r goes to the experts of a mask of its own, taken from the input. */
static void call_build(struct input *in, uint32_t rows, uint32_t elements, struct message *m)
{
	struct cadre_wire_row heads[ROWS_MAX] = { 0 };
	struct cadre_wire_group groups[EXPERTS];
	struct cadre_wire_pair pairs[EXPERTS * ROWS_MAX];
	uint32_t masks[ROWS_MAX], groups_count = 0, pairs_count = 0;
	size_t data_bytes = 0;

	for (uint32_t r = 0; r < rows; r++) {
		heads[r].type = (uint8_t)(CADRE_ROW_FIX16 + take(in) % 4);
		heads[r].exponent = (int16_t)(heads[r].type == CADRE_ROW_FIX16 ? take(in) % 240 - 126 : 0);
		masks[r] = (1u << take(in) % EXPERTS) | take(in);
		data_bytes += cadre_row_bytes(heads[r].type, elements);
	}

	for (uint32_t e = 0; e < EXPERTS; e++) {
		uint32_t before = pairs_count;
		for (uint32_t r = 0; r < rows; r++)
			if (masks[r] >> e & 1)
				pairs[pairs_count++] = (struct cadre_wire_pair){ r, 0.5f };
		if (pairs_count > before)
			groups[groups_count++] = (struct cadre_wire_group){ e, pairs_count - before };
	}

	struct cad_call_layout at = cad_wire_call_layout(rows, data_bytes, groups_count, pairs_count);
	message_init(m, sizeof(struct cadre_wire_call), at.bytes);
	struct cadre_wire_call call = {
		.header = header_of(CADRE_WIRE_CALL, at.bytes),
		.data_bytes = data_bytes,
		.rows = rows,
		.row_elements = elements,
		.pairs = pairs_count,
		.groups = groups_count,
	};
	memcpy(m->header, &call, sizeof call);
	memcpy(m->payload + at.rows, heads, rows * sizeof *heads);
	memcpy(m->payload + at.groups, groups, groups_count * sizeof *groups);
	memcpy(m->payload + at.pairs, pairs, pairs_count * sizeof *pairs);
}

static void answer_build(struct input *in, uint32_t rows, uint32_t elements, struct message *m)
{
	static const uint8_t widths[] = { 0, 2, 3, 4, 8 };
	struct cadre_wire_sum heads[ROWS_MAX] = { 0 };
	size_t data_bytes = 0;

	for (uint32_t r = 0; r < rows; r++) {
		heads[r].width = widths[take(in) % sizeof widths];
		heads[r].poisoned = heads[r].width == 0;
		data_bytes += heads[r].width * elements;
	}

	message_init(m, sizeof(struct cadre_wire_answer), rows * sizeof *heads + data_bytes);
	struct cadre_wire_answer answer = {
		.header = header_of(CADRE_WIRE_ANSWER, m->payload_bytes),
		.data_bytes = data_bytes,
		.rows = rows,
		.row_elements = elements,
	};
	memcpy(m->header, &answer, sizeof answer);
	memcpy(m->payload, heads, rows * sizeof *heads);
}

static void message_change(struct input *in, struct message *m)
{
	while (in->size >= 3) {
		size_t low = take(in), at = (low | (size_t)take(in) << 8) % (m->header_bytes + m->payload_bytes);
		uint8_t *byte = at < m->header_bytes ? m->header + at : m->payload + at - m->header_bytes;
		*byte ^= take(in);
	}
}

static void check(bool is_answer, const struct message *m, const struct cad_wire_limits *limits, bool must_pass)
{
	struct cad_error error;
	struct cad_call_view call;
	struct cad_answer_view answer;
	enum cad_status status = is_answer
		? cad_wire_answer_check(
			  m->header, m->header_bytes, m->payload, m->payload_bytes, limits, &answer, &error)
		: cad_wire_call_check(m->header, m->header_bytes, m->payload, m->payload_bytes, limits, &call, &error);
	if (status == CAD_OK && is_answer)
		answer_walk(&answer, m);
	else if (status == CAD_OK)
		call_walk(&call, m);
	else if (must_pass || status != CAD_ERR_PROTOCOL)
		abort();
}

/* As a FETCH, and as a PART with any number of bytes behind it: what passes keeps to the limits. */
static void fetch_check(const struct message *m)
{
	static const struct cad_wire_limits limits = { .layers = 2, .experts = EXPERTS };
	struct cadre_wire_header head;
	struct cadre_wire_fetch fetch;
	struct cadre_wire_part part;
	struct cad_error error;

	if (cad_wire_fetch_check(m->header, m->header_bytes, &limits, &fetch, &error) == CAD_OK &&
		(fetch.bytes == 0 || fetch.bytes > CADRE_PART_BYTES_MAX || fetch.layer >= 2 || fetch.expert >= EXPERTS))
		abort();
	memcpy(&head, m->header, sizeof head);
	if (head.kind != CADRE_WIRE_PART)
		return;
	memcpy(&head.payload_bytes, m->header + sizeof head, sizeof head.payload_bytes); /* of the input */
	memcpy(m->header, &head, sizeof head);
	size_t bytes = (size_t)head.payload_bytes;
	if (cad_wire_part_check(m->header, m->header_bytes, bytes, &part, &error) == CAD_OK &&
		(bytes > CADRE_PART_BYTES_MAX || bytes > part.image_bytes))
		abort();
}

/* Any other kind: a header of the right size for its kind, with good fixed fields, and the input
 * behind them. */
static void handshake_check(struct input *in)
{
	struct message m;
	struct cadre_wire_header head = header_of((uint8_t)(1 + take(in) % (CADRE_WIRE_KIND_COUNT - 1)), 0), out;
	struct cad_error error;

	message_init(&m, cad_wire_header_bytes(head.kind), 0);
	size_t room = m.header_bytes - sizeof head, bytes = in->size < room ? in->size : room;
	memcpy(m.header, &head, sizeof head);
	memcpy(m.header + sizeof head, in->data, bytes);
	if (cad_wire_header_check(m.header, m.header_bytes, 0, &out, &error) == CAD_OK && out.kind == CADRE_WIRE_REFUSE)
		sink += strlen((const char *)m.header + sizeof head); /* it ends */
	fetch_check(&m);
	message_fini(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct message m;
	uint8_t mode = take(&in);

	if (mode & HANDSHAKE) {
		handshake_check(&in);
		return 0;
	}

	bool is_answer = mode & ANSWER;
	uint32_t rows = 1 + take(&in) % ROWS_MAX, elements = 1 + take(&in) * 2u % ELEMENTS_MAX;
	struct cad_wire_limits limits = {
		.payload_bytes_max = 1 << 16,
		.rows_max = ROWS_MAX,
		.row_elements = elements,
		.layers = 2,
		.experts = EXPERTS,
	};
	if (mode & RAW) {
		size_t fixed = is_answer ? sizeof(struct cadre_wire_answer) : sizeof(struct cadre_wire_call),
		       header_bytes = in.size < fixed ? in.size : fixed;
		message_init(&m, header_bytes, in.size - header_bytes);
		memcpy(m.header, in.data, header_bytes);
		memcpy(m.payload, in.data + header_bytes, m.payload_bytes);
		check(is_answer, &m, &limits, false);
	} else {
		if (is_answer)
			answer_build(&in, rows, elements, &m);
		else
			call_build(&in, rows, elements, &m);
		check(is_answer, &m, &limits, true);
		message_change(&in, &m);
		check(is_answer, &m, &limits, false);
	}

	message_fini(&m);
	return 0;
}
