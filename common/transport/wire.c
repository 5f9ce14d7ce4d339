/* SPDX-License-Identifier: Apache-2.0 */
/* Checks in the order of dependence: a count is bounded before it is multiplied, a length is
 * compared before anything behind it is read. */
#include "common/transport/wire.h"

#include <stdbool.h>
#include <string.h>

static const struct {
	const char *name;
	size_t header_bytes;
} wire_kinds[CADRE_WIRE_KIND_COUNT] = {
	[CADRE_WIRE_HELLO] = { "HELLO", sizeof(struct cadre_wire_hello) },
	[CADRE_WIRE_CHALLENGE] = { "CHALLENGE", sizeof(struct cadre_wire_challenge) },
	[CADRE_WIRE_PROOF] = { "PROOF", sizeof(struct cadre_wire_proof) },
	[CADRE_WIRE_WELCOME] = { "WELCOME", sizeof(struct cadre_wire_welcome) },
	[CADRE_WIRE_REFUSE] = { "REFUSE", sizeof(struct cadre_wire_refuse) },
	[CADRE_WIRE_CALL] = { "CALL", sizeof(struct cadre_wire_call) },
	[CADRE_WIRE_ANSWER] = { "ANSWER", sizeof(struct cadre_wire_answer) },
	[CADRE_WIRE_PING] = { "PING", sizeof(struct cadre_wire_ping) },
	[CADRE_WIRE_PONG] = { "PONG", sizeof(struct cadre_wire_ping) },
	[CADRE_WIRE_GOODBYE] = { "GOODBYE", sizeof(struct cadre_wire_goodbye) },
	[CADRE_WIRE_KNOCK] = { "KNOCK", sizeof(struct cadre_wire_knock) },
	[CADRE_WIRE_FETCH] = { "FETCH", sizeof(struct cadre_wire_fetch) },
	[CADRE_WIRE_PART] = { "PART", sizeof(struct cadre_wire_part) },
};

size_t cad_wire_header_bytes(uint8_t kind) { return kind < CADRE_WIRE_KIND_COUNT ? wire_kinds[kind].header_bytes : 0; }
const char *cad_wire_kind_name(uint8_t kind) { return cad_wire_header_bytes(kind) ? wire_kinds[kind].name : "unknown"; }

const char *cad_wire_status_text(uint8_t status)
{
	switch (status) {
	case CADRE_WIRE_OK: return "ok";
	case CADRE_WIRE_NOT_HELD: return "the node does not hold an expert of the call";
	case CADRE_WIRE_BUSY: return "the node has no room for the call now";
	case CADRE_WIRE_EXPIRED: return "the call's deadline passed before it was computed";
	case CADRE_WIRE_BAD_CALL: return "the call does not fit the node's model";
	case CADRE_WIRE_INTERNAL: return "internal error of the node";
	}
	return "unknown status";
}

#define BROKEN(...) cad_error_set(error, CAD_ERR_PROTOCOL, __VA_ARGS__)

static bool text_ends(const char *text, size_t bytes) { return memchr(text, 0, bytes) != NULL; }

static bool identity_texts_end(const struct cadre_wire_identity *identity)
{
	return text_ends(identity->cluster, sizeof identity->cluster) &&
		text_ends(identity->node, sizeof identity->node) &&
		text_ends(identity->model, sizeof identity->model) &&
		text_ends(identity->settings, sizeof identity->settings) &&
		text_ends(identity->settings_text, sizeof identity->settings_text);
}

static bool texts_end(uint8_t kind, const void *header)
{
	const uint8_t *bytes = header; /* chars have no alignment, so the fields may be looked at in place */
	if (kind == CADRE_WIRE_HELLO)
		return identity_texts_end((const void *)(bytes + offsetof(struct cadre_wire_hello, identity)));
	if (kind == CADRE_WIRE_CHALLENGE)
		return identity_texts_end((const void *)(bytes + offsetof(struct cadre_wire_challenge, identity)));
	return kind != CADRE_WIRE_REFUSE ||
		text_ends((const char *)bytes + offsetof(struct cadre_wire_refuse, text), CADRE_TEXT_BYTES);
}

static bool has_status(uint8_t kind) { return kind == CADRE_WIRE_ANSWER || kind == CADRE_WIRE_PART; }

enum cad_status cad_wire_header_check(const void *header, size_t header_bytes, size_t payload_bytes,
	struct cadre_wire_header *out, struct cad_error *error)
{
	struct cadre_wire_header head;
	if (header_bytes < sizeof head)
		return BROKEN("a message of %zu header bytes: at least %zu are needed", header_bytes, sizeof head);

	memcpy(&head, header, sizeof head);
	if (head.magic != CADRE_WIRE_MAGIC)
		return BROKEN("a message with magic 0x%08x instead of 0x%08x: the peer does not speak Cadre's protocol",
			head.magic, CADRE_WIRE_MAGIC);
	if (head.version != CADRE_WIRE_VERSION)
		return BROKEN(
			"the peer speaks version %u of the protocol, this process version %u: run the same release everywhere",
			head.version, CADRE_WIRE_VERSION);
	size_t want = cad_wire_header_bytes(head.kind);
	const char *name = cad_wire_kind_name(head.kind);
	if (want == 0)
		return BROKEN("a message of unknown kind %u", head.kind);
	if (header_bytes != want)
		return BROKEN("%s: %zu header bytes instead of %zu", name, header_bytes, want);
	if (head.reserved != 0)
		return BROKEN("%s: reserved byte is %u instead of 0", name, head.reserved);
	if (head.status > (has_status(head.kind) ? CADRE_WIRE_INTERNAL : 0))
		return BROKEN("%s: unknown status %u", name, head.status);
	if (head.payload_bytes != payload_bytes)
		return BROKEN("%s: announces %llu payload bytes, but %zu arrived", name,
			(unsigned long long)head.payload_bytes, payload_bytes);
	if (payload_bytes != 0 && head.kind != CADRE_WIRE_CALL && !has_status(head.kind))
		return BROKEN("%s: %zu payload bytes, but this kind has none", name, payload_bytes);
	if (!texts_end(head.kind, header))
		return BROKEN("%s: the text does not end inside its field", name);
	*out = head;

	return CAD_OK;
}

static size_t pad8(size_t bytes) { return (bytes + 7) & ~(size_t)7; }

struct cad_call_layout cad_wire_call_layout(size_t rows, size_t data_bytes, size_t groups, size_t pairs)
{
	CAD_ASSERT(rows <= CADRE_ROWS_MAX && groups <= CADRE_GROUPS_MAX && pairs <= CADRE_PAIRS_MAX &&
		data_bytes <= SIZE_MAX / 2);
	struct cad_call_layout at = { .rows = 0 };
	at.data = at.rows + rows * sizeof(struct cadre_wire_row);
	at.groups = pad8(at.data + data_bytes);
	at.pairs = at.groups + groups * sizeof(struct cadre_wire_group);
	at.bytes = at.pairs + pairs * sizeof(struct cadre_wire_pair);
	return at;
}

size_t cad_wire_call_bytes_max(size_t rows, size_t elements, size_t groups, size_t pairs)
{
	CAD_ASSERT(rows <= CADRE_ROWS_MAX && elements <= UINT32_MAX);
	return cad_wire_call_layout(rows, rows * cadre_row_bytes_max(elements), groups, pairs).bytes;
}

size_t cad_wire_answer_bytes_max(size_t rows, size_t elements)
{
	CAD_ASSERT(rows <= CADRE_ROWS_MAX && elements <= UINT32_MAX);
	return rows * sizeof(struct cadre_wire_sum) + rows * elements * sizeof(int64_t);
}

/* The fields that CALL and ANSWER share: what the model and the limits say. */
static enum cad_status shape_check(const char *name, uint32_t layer, uint32_t rows, uint32_t row_elements,
	const struct cad_wire_limits *limits, struct cad_error *error)
{
	if (layer >= limits->layers)
		return BROKEN("%s: layer %u, the model has %u", name, layer, limits->layers);
	if (row_elements != limits->row_elements)
		return BROKEN("%s: rows of %u elements, the model's have %u", name, row_elements, limits->row_elements);
	if (rows == 0 || rows > limits->rows_max || rows > CADRE_ROWS_MAX)
		return BROKEN("%s: %u rows, 1 to %u are allowed", name, rows,
			limits->rows_max < CADRE_ROWS_MAX ? limits->rows_max : CADRE_ROWS_MAX);
	return CAD_OK;
}

static enum cad_status payload_check(const char *name, const void *payload, size_t payload_bytes,
	const struct cad_wire_limits *limits, struct cad_error *error)
{
	CAD_ASSERT(payload_bytes == 0 || (payload && (uintptr_t)payload % 8 == 0));
	if (payload_bytes > limits->payload_bytes_max)
		return BROKEN("%s: %zu payload bytes, %llu are allowed", name, payload_bytes,
			(unsigned long long)limits->payload_bytes_max);
	return CAD_OK;
}

enum {
	FIX16_EXPONENT_MIN = -126,
	FIX16_EXPONENT_MAX = 128 - 15, /* of the largest finite f32 */
	Q8_SCALE_MIN = 0x0a000000,     /* 2^-107 */
	Q8_SCALE_END = 0x7b800000,     /* 2^120 */
	Q8_SCALE_NOT = 0xfff,          /* bits that are 0: a scale has 12 significant ones */
	Q8_NEVER = 0x80,               /* -128 */
};

/* As rows_pack makes them: what computes with a row as it comes may rely on it. */
static bool q8_good(const uint8_t *data, size_t elements)
{
	for (size_t g = 0; g < cadre_row_groups(elements); g++, data += sizeof(float)) {
		uint32_t scale;
		memcpy(&scale, data, sizeof scale);
		if (scale != 0 && (scale < Q8_SCALE_MIN || scale >= Q8_SCALE_END || scale & Q8_SCALE_NOT))
			return false;
	}
	return !memchr(data, Q8_NEVER, elements);
}

static enum cad_status call_rows_check(const struct cad_call_view *view, struct cad_error *error)
{
	uint64_t bytes = 0;
	for (uint32_t r = 0; r < view->call.rows; r++) {
		struct cadre_wire_row row = view->rows[r];
		if (row.type < CADRE_ROW_FIX16 || row.type > CADRE_ROW_Q8)
			return BROKEN("CALL: row %u has unknown type %u", r, row.type);
		if (row.zero != 0)
			return BROKEN("CALL: row %u has %u in a reserved byte", r, row.zero);
		if (row.type == CADRE_ROW_FIX16 ? row.exponent < FIX16_EXPONENT_MIN || row.exponent > FIX16_EXPONENT_MAX
						: row.exponent != 0)
			return BROKEN("CALL: row %u of type %u has exponent %d", r, row.type, row.exponent);
		bytes += cadre_row_bytes(row.type, view->call.row_elements);
	}

	if (bytes != view->call.data_bytes)
		return BROKEN("CALL: rows of %llu bytes, %llu were announced", (unsigned long long)bytes,
			(unsigned long long)view->call.data_bytes);

	const uint8_t *data = view->data;
	for (uint32_t r = 0; r < view->call.rows;
		data += cadre_row_bytes(view->rows[r++].type, view->call.row_elements))
		if (view->rows[r].type == CADRE_ROW_Q8 && !q8_good(data, view->call.row_elements))
			return BROKEN("CALL: row %u has a scale or a value that no quantised row has", r);
	return CAD_OK;
}

static enum cad_status call_groups_check(
	const struct cad_call_view *view, const struct cad_wire_limits *limits, struct cad_error *error)
{
	uint64_t pairs = 0;
	for (uint32_t g = 0; g < view->call.groups; g++) {
		struct cadre_wire_group group = view->groups[g];
		if (group.expert >= limits->experts)
			return BROKEN(
				"CALL: group %u is of expert %u, the model has %u", g, group.expert, limits->experts);
		if (g > 0 && group.expert <= view->groups[g - 1].expert)
			return BROKEN("CALL: group %u of expert %u follows one of expert %u; experts ascend", g,
				group.expert, view->groups[g - 1].expert);
		if (group.pairs == 0)
			return BROKEN("CALL: group %u of expert %u is empty", g, group.expert);
		pairs += group.pairs;
	}

	if (pairs != view->call.pairs)
		return BROKEN(
			"CALL: groups of %llu pairs, %u were announced", (unsigned long long)pairs, view->call.pairs);
	return CAD_OK;
}

static bool weight_finite(float weight)
{
	uint32_t bits;
	memcpy(&bits, &weight, sizeof bits);
	return (bits & 0x7f800000) != 0x7f800000;
}

static enum cad_status call_pairs_check(const struct cad_call_view *view, struct cad_error *error)
{
	uint8_t used[CADRE_ROWS_MAX / 8] = { 0 };
	uint32_t rows_used = 0;
	const struct cadre_wire_pair *pair = view->pairs;

	for (uint32_t g = 0; g < view->call.groups; g++) {
		for (uint32_t i = 0; i < view->groups[g].pairs; i++, pair++) {
			if (pair->row >= view->call.rows)
				return BROKEN("CALL: expert %u takes row %u of %u", view->groups[g].expert, pair->row,
					view->call.rows);
			if (i > 0 && pair->row <= pair[-1].row)
				return BROKEN("CALL: expert %u takes row %u after row %u; rows ascend",
					view->groups[g].expert, pair->row, pair[-1].row);
			if (!weight_finite(pair->weight))
				return BROKEN("CALL: the weight of row %u for expert %u is not finite", pair->row,
					view->groups[g].expert);
			uint8_t bit = (uint8_t)(1u << pair->row % 8), *byte = &used[pair->row / 8];
			rows_used += !(*byte & bit);
			*byte |= bit;
		}
	}

	if (rows_used != view->call.rows)
		return BROKEN("CALL: %u of %u rows have no expert", view->call.rows - rows_used, view->call.rows);
	return CAD_OK;
}

enum cad_status cad_wire_call_check(const void *header, size_t header_bytes, const void *payload, size_t payload_bytes,
	const struct cad_wire_limits *limits, struct cad_call_view *view, struct cad_error *error)
{
	struct cadre_wire_header head;
	enum cad_status status = cad_wire_header_check(header, header_bytes, payload_bytes, &head, error);

	if (status != CAD_OK)
		return status;
	if (head.kind != CADRE_WIRE_CALL)
		return BROKEN("%s where a CALL is expected", cad_wire_kind_name(head.kind));

	struct cad_call_view found;
	memcpy(&found.call, header, sizeof found.call);
	const struct cadre_wire_call *call = &found.call;
	if ((status = payload_check("CALL", payload, payload_bytes, limits, error)) != CAD_OK ||
		(status = shape_check("CALL", call->layer, call->rows, call->row_elements, limits, error)) != CAD_OK)
		return status;
	if (call->groups == 0 || call->groups > CADRE_GROUPS_MAX)
		return BROKEN("CALL: %u groups, 1 to %u are allowed", call->groups, CADRE_GROUPS_MAX);
	if (call->pairs < call->rows || call->pairs > CADRE_PAIRS_MAX)
		return BROKEN("CALL: %u pairs for %u rows, at least one per row and at most %u in all are allowed",
			call->pairs, call->rows, CADRE_PAIRS_MAX);
	if (call->data_bytes > payload_bytes)
		return BROKEN("CALL: %llu bytes of rows in a payload of %zu", (unsigned long long)call->data_bytes,
			payload_bytes);
	struct cad_call_layout at =
		cad_wire_call_layout(call->rows, (size_t)call->data_bytes, call->groups, call->pairs);
	if (at.bytes != payload_bytes)
		return BROKEN("CALL: the parts take %zu bytes, the payload has %zu", at.bytes, payload_bytes);
	const uint8_t *bytes = payload;
	found.rows = (const void *)(bytes + at.rows);
	found.data = bytes + at.data;
	found.groups = (const void *)(bytes + at.groups);
	found.pairs = (const void *)(bytes + at.pairs);
	if ((status = call_rows_check(&found, error)) != CAD_OK ||
		(status = call_groups_check(&found, limits, error)) != CAD_OK ||
		(status = call_pairs_check(&found, error)) != CAD_OK)
		return status;
	*view = found;

	return CAD_OK;
}

static enum cad_status answer_sums_check(
	const struct cad_answer_view *view, const struct cad_wire_limits *limits, struct cad_error *error)
{
	uint64_t bytes = 0;
	for (uint32_t r = 0; r < view->answer.rows; r++) {
		struct cadre_wire_sum sum = view->sums[r];
		bool width_valid = sum.width == 2 || sum.width == 3 || sum.width == 4 || sum.width == 8;
		if (sum.poisoned > 1 || sum.zero != 0)
			return BROKEN(
				"ANSWER: row %u has %u and %u in flag and reserved field", r, sum.poisoned, sum.zero);
		if (sum.poisoned ? sum.width != 0 : !width_valid)
			return BROKEN("ANSWER: row %u has sums of %u bytes", r, sum.width);
		if (sum.poisoned ? sum.expert >= limits->experts : sum.expert != 0)
			return BROKEN("ANSWER: row %u names expert %u", r, sum.expert);
		bytes += (uint64_t)sum.width * view->answer.row_elements;
	}

	if (bytes != view->answer.data_bytes)
		return BROKEN("ANSWER: sums of %llu bytes, %llu were announced", (unsigned long long)bytes,
			(unsigned long long)view->answer.data_bytes);
	return CAD_OK;
}

enum cad_status cad_wire_answer_check(const void *header, size_t header_bytes, const void *payload,
	size_t payload_bytes, const struct cad_wire_limits *limits, struct cad_answer_view *view,
	struct cad_error *error)
{
	struct cadre_wire_header head;
	enum cad_status status = cad_wire_header_check(header, header_bytes, payload_bytes, &head, error);

	if (status != CAD_OK)
		return status;
	if (head.kind != CADRE_WIRE_ANSWER)
		return BROKEN("%s where an ANSWER is expected", cad_wire_kind_name(head.kind));

	struct cad_answer_view found = { .sums = NULL };
	memcpy(&found.answer, header, sizeof found.answer);
	const struct cadre_wire_answer *answer = &found.answer;
	if ((status = payload_check("ANSWER", payload, payload_bytes, limits, error)) != CAD_OK)
		return status;

	if (head.status != CADRE_WIRE_OK) {
		if (payload_bytes != 0 || answer->data_bytes != 0)
			return BROKEN("ANSWER: sums with the status '%s'", cad_wire_status_text(head.status));
		*view = found;
		return CAD_OK;
	}

	if ((status = shape_check("ANSWER", answer->layer, answer->rows, answer->row_elements, limits, error)) !=
		CAD_OK)
		return status;
	size_t heads_bytes = answer->rows * sizeof(struct cadre_wire_sum);
	if (answer->data_bytes > payload_bytes || heads_bytes + answer->data_bytes != payload_bytes)
		return BROKEN("ANSWER: %u rows and %llu bytes of sums in a payload of %zu", answer->rows,
			(unsigned long long)answer->data_bytes, payload_bytes);
	found.sums = payload;
	found.data = (const uint8_t *)payload + heads_bytes;
	if ((status = answer_sums_check(&found, limits, error)) != CAD_OK)
		return status;
	*view = found;

	return CAD_OK;
}

enum cad_status cad_wire_fetch_check(const void *header, size_t header_bytes, const struct cad_wire_limits *limits,
	struct cadre_wire_fetch *out, struct cad_error *error)
{
	struct cadre_wire_header head;
	struct cadre_wire_fetch fetch;
	enum cad_status status = cad_wire_header_check(header, header_bytes, 0, &head, error);

	if (status != CAD_OK)
		return status;
	if (head.kind != CADRE_WIRE_FETCH)
		return BROKEN("%s where a FETCH is expected", cad_wire_kind_name(head.kind));

	memcpy(&fetch, header, sizeof fetch);
	if (fetch.layer >= limits->layers || fetch.expert >= limits->experts)
		return BROKEN("FETCH: expert %u of layer %u, the model has %u in %u layers", fetch.expert, fetch.layer,
			limits->experts, limits->layers);
	if (fetch.bytes == 0 || fetch.bytes > CADRE_PART_BYTES_MAX)
		return BROKEN("FETCH: %u bytes, 1 to %u are allowed", fetch.bytes, CADRE_PART_BYTES_MAX);
	if (fetch.zero != 0)
		return BROKEN("FETCH: %u in a reserved field", fetch.zero);
	*out = fetch;

	return CAD_OK;
}

enum cad_status cad_wire_part_check(const void *header, size_t header_bytes, size_t payload_bytes,
	struct cadre_wire_part *out, struct cad_error *error)
{
	struct cadre_wire_header head;
	struct cadre_wire_part part;
	enum cad_status status = cad_wire_header_check(header, header_bytes, payload_bytes, &head, error);

	if (status != CAD_OK)
		return status;
	if (head.kind != CADRE_WIRE_PART)
		return BROKEN("%s where a PART is expected", cad_wire_kind_name(head.kind));

	memcpy(&part, header, sizeof part);
	if (head.status != CADRE_WIRE_OK && (payload_bytes != 0 || part.image_bytes != 0))
		return BROKEN("PART: bytes with the status '%s'", cad_wire_status_text(head.status));
	if (head.status == CADRE_WIRE_OK &&
		(payload_bytes == 0 || payload_bytes > CADRE_PART_BYTES_MAX || payload_bytes > part.image_bytes))
		return BROKEN("PART: %zu bytes of an image of %llu, 1 to %u are allowed", payload_bytes,
			(unsigned long long)part.image_bytes, CADRE_PART_BYTES_MAX);
	*out = part;

	return CAD_OK;
}
