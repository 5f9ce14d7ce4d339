/*
 * CALL and ANSWER from a stranger. The first bytes of the input are the limits, then a header, then the payload. Most inputs have their
 * fixed fields and lengths put right first, so that the rules behind them are reached. Whatever passes is walked to its last byte under ASan.
 */
#include "common/wire.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void walk(const void *bytes, size_t size)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < size; i++)
		sum += ((const uint8_t *)bytes)[i];
	sink += sum;
}

static void call_walk(const struct cad_call_view *view, const uint8_t *payload, size_t payload_bytes)
{
	const uint8_t *data = view->data;
	for (uint32_t r = 0; r < view->call.rows; r++) {
		size_t bytes = cadre_row_bytes(view->rows[r].type, view->call.row_elements);
		walk(data, bytes);
		data += bytes;
	}
	const struct cadre_wire_pair *pair = view->pairs;
	for (uint32_t g = 0; g < view->call.groups; g++)
		for (uint32_t i = 0; i < view->groups[g].pairs; i++, pair++)
			if (pair->row >= view->call.rows)
				abort();
	if ((const uint8_t *)pair != payload + payload_bytes || data > (const uint8_t *)view->groups)
		abort();
}

static void answer_walk(const struct cad_answer_view *view, const uint8_t *payload, size_t payload_bytes)
{
	if (!view->sums)
		return;
	const uint8_t *data = view->data;
	for (uint32_t r = 0; r < view->answer.rows; r++) {
		walk(data, (size_t)view->sums[r].width * view->answer.row_elements);
		data += (size_t)view->sums[r].width * view->answer.row_elements;
	}
	if (data != payload + payload_bytes)
		abort();
}

/* Puts right what would stop nearly every input: magic, kind, lengths; the shape as the limits want it, and with knob 8 counts and types that fit the payload. */
static void call_repair(struct cadre_wire_call *call, uint8_t *payload, size_t payload_bytes, const struct cad_wire_limits *limits, uint8_t knob)
{
	call->row_elements = limits->row_elements;
	call->layer = 0;
	if (!(knob & 8))
		return;
	call->rows = call->rows % 5 + 1;
	call->groups = call->groups % 4 + 1;
	call->pairs = call->pairs % 9 + 1;
	size_t fixed = call->rows * sizeof(struct cadre_wire_row) + call->groups * sizeof(struct cadre_wire_group) + call->pairs * sizeof(struct cadre_wire_pair);
	uint64_t bytes = 0;
	for (size_t r = 0; r < call->rows && (r + 1) * sizeof(struct cadre_wire_row) <= payload_bytes; r++) {
		struct cadre_wire_row *row = (struct cadre_wire_row *)payload + r;
		bytes += cadre_row_bytes(row->type, call->row_elements);
	}
	call->data_bytes = knob & 16 ? bytes : payload_bytes - fixed;
}

static void answer_repair(struct cadre_wire_answer *answer, const uint8_t *payload, size_t payload_bytes, const struct cad_wire_limits *limits, uint8_t knob)
{
	answer->row_elements = limits->row_elements;
	answer->layer = 0;
	if (!(knob & 8))
		return;
	answer->rows = answer->rows % 5 + 1;
	uint64_t bytes = 0;
	for (size_t r = 0; r < answer->rows && (r + 1) * sizeof(struct cadre_wire_sum) <= payload_bytes; r++)
		bytes += (uint64_t)((const struct cadre_wire_sum *)(const void *)payload + r)->width * answer->row_elements;
	answer->data_bytes = bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t knobs[6];
	if (size < sizeof knobs)
		return 0;
	memcpy(knobs, data, sizeof knobs);
	data += sizeof knobs;
	size -= sizeof knobs;
	struct cad_wire_limits limits = { .payload_bytes_max = 1 << 16, .rows_max = knobs[0], .row_elements = knobs[1], .layers = knobs[2], .experts = knobs[3] };
	bool is_call = knobs[4] & 1;
	size_t header_bytes = knobs[4] & 2 ? size : is_call ? sizeof(struct cadre_wire_call) : sizeof(struct cadre_wire_answer);
	if (header_bytes > size)
		header_bytes = size;
	uint8_t *header = malloc(header_bytes + 1);   /* of the exact size, so that one byte too far is seen */
	size_t payload_bytes = size - header_bytes;
	uint8_t *payload = malloc(payload_bytes > 0 ? payload_bytes : 1);
	if (!header || !payload)
		abort();
	memcpy(header, data, header_bytes);
	memcpy(payload, data + header_bytes, payload_bytes);
	if (knobs[4] & 4 && header_bytes == (is_call ? sizeof(struct cadre_wire_call) : sizeof(struct cadre_wire_answer))) {
		struct cadre_wire_header head;
		if (is_call)
			call_repair((void *)header, payload, payload_bytes, &limits, knobs[4]);
		else
			answer_repair((void *)header, payload, payload_bytes, &limits, knobs[4]);
		memcpy(&head, header, sizeof head);
		head.magic = CADRE_WIRE_MAGIC;
		head.version = CADRE_WIRE_VERSION;
		head.kind = is_call ? CADRE_WIRE_CALL : CADRE_WIRE_ANSWER;
		head.status = head.reserved = 0;
		head.payload_bytes = payload_bytes;
		memcpy(header, &head, sizeof head);
	}
	struct cad_error error;
	struct cad_call_view call;
	struct cad_answer_view answer;
	if (is_call && cad_wire_call_check(header, header_bytes, payload, payload_bytes, &limits, &call, &error) == CAD_OK)
		call_walk(&call, payload, payload_bytes);
	if (!is_call && cad_wire_answer_check(header, header_bytes, payload, payload_bytes, &limits, &answer, &error) == CAD_OK)
		answer_walk(&answer, payload, payload_bytes);
	free(payload);
	free(header);
	return 0;
}
