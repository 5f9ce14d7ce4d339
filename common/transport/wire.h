/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of messages: from untrusted bytes to a view whose every pointer and count may be trusted.
 *
 * Pure functions over memory; nothing is allocated or copied but the fixed header. A view points
 * into the payload, which must outlive it and be 8-byte aligned. The first thing wrong decides the
 * status (CAD_ERR_PROTOCOL) and the sentence.
 */
#ifndef CADRE_COMMON_TRANSPORT_WIRE_H
#define CADRE_COMMON_TRANSPORT_WIRE_H

#include "common/base/status.h"
#include "proto/cadre_wire.h"

struct cad_wire_limits {
	uint64_t payload_bytes_max;
	/* row_elements: exactly; layer < layers; expert < experts */
	uint32_t rows_max, row_elements, layers, experts;
};

struct cad_call_view {
	struct cadre_wire_call call; /* a copy */
	const struct cadre_wire_row *rows;
	const uint8_t *data;
	const struct cadre_wire_group *groups;
	const struct cadre_wire_pair *pairs;
};
struct cad_answer_view {
	struct cadre_wire_answer answer; /* a copy */
	const struct cadre_wire_sum *sums;
	const uint8_t *data;
};

/*
 * What holds for every kind: magic, version, known kind, the header's size for that kind, reserved
 * and status zero where they must be, and payload_bytes as received (0 but for CALL, ANSWER and
 * PART). The texts of HELLO, CHALLENGE and REFUSE end inside their fields. *out gets a copy.
 */
CAD_MUST_USE enum cad_status cad_wire_header_check(const void *header, size_t header_bytes, size_t payload_bytes,
	struct cadre_wire_header *out, struct cad_error *error);
/* Bytes of the fixed header of a kind; 0 for an unknown kind. */
size_t cad_wire_header_bytes(uint8_t kind);
const char *cad_wire_kind_name(uint8_t kind); /* "CALL"; "unknown" */
/* "the node does not hold an expert of the call"; of enum cadre_wire_status */
const char *cad_wire_status_text(uint8_t status);

/* CALL: all of the above, and every rule of proto/WIRE.md: afterwards no count, index or pointer in
 * the view needs another look. The pairs of a group ascend strictly, so that each (row, expert)
 * occurs once, and every row has at least one pair. */
CAD_MUST_USE enum cad_status cad_wire_call_check(const void *header, size_t header_bytes, const void *payload,
	size_t payload_bytes, const struct cad_wire_limits *limits, struct cad_call_view *view,
	struct cad_error *error);
/* ANSWER: with a status other than CADRE_WIRE_OK there is no payload and the view has no sums; rows
 * and layer are then the caller's to compare, as they always are with the call. */
CAD_MUST_USE enum cad_status cad_wire_answer_check(const void *header, size_t header_bytes, const void *payload,
	size_t payload_bytes, const struct cad_wire_limits *limits, struct cad_answer_view *view,
	struct cad_error *error);

/* FETCH and PART: each field by itself. Whether the expert's image has those bytes, and whether a
 * part is the one that was asked for, is the caller's to compare. *out gets a copy. */
CAD_MUST_USE enum cad_status cad_wire_fetch_check(const void *header, size_t header_bytes,
	const struct cad_wire_limits *limits, struct cadre_wire_fetch *out, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_wire_part_check(const void *header, size_t header_bytes, size_t payload_bytes,
	struct cadre_wire_part *out, struct cad_error *error);

/* Where the parts of a call's payload are, if it has `data_bytes` of row data; the builder and the
 * checker use the same arithmetic. Offsets in bytes from the payload's start. */
struct cad_call_layout {
	size_t rows, data, groups, pairs, bytes;
};
struct cad_call_layout cad_wire_call_layout(size_t rows, size_t data_bytes, size_t groups, size_t pairs);
/* The most bytes that a call with this many rows (all f32) and its answer (all 64 bits wide) can
 * take. */
size_t cad_wire_call_bytes_max(size_t rows, size_t elements, size_t groups, size_t pairs);
size_t cad_wire_answer_bytes_max(size_t rows, size_t elements);

#endif
