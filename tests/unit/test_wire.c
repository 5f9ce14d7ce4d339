/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the exchange: what is good passes, and every single rule, broken alone, is refused
 * with a sentence of its own. */
#include "common/base/clock.h"
#include "common/transport/wire.h"
#include "tests/support/must.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ELEMENTS = 6, ROWS = 4, GROUPS = 2, PAIRS = 5 };

static const struct cad_wire_limits limits = {
	.payload_bytes_max = 1 << 20,
	.rows_max = 8,
	.row_elements = ELEMENTS,
	.layers = 4,
	.experts = 16,
};

/* A row of each type; expert 3 takes rows 0 and 2, expert 9 rows 1, 2 and 3. */
struct message {
	struct cadre_wire_call call;
	_Alignas(8) uint8_t payload[512];
	size_t payload_bytes;
	struct cad_call_layout at;
};

/* Of row 3, the last: its scale, then its elements. */
static uint8_t *q8_of(struct message *m) { return m->payload + m->at.data + (2 + 2 + 4) * ELEMENTS; }
static void put_scale(struct message *m, float scale) { memcpy(q8_of(m), &scale, sizeof scale); }

static void message_build(struct message *m)
{
	memset(m, 0, sizeof *m);
	static const uint8_t types[ROWS] = { CADRE_ROW_FIX16, CADRE_ROW_BF16, CADRE_ROW_F32, CADRE_ROW_Q8 };
	size_t data_bytes = (2 + 2 + 4 + 1) * ELEMENTS + sizeof(float);
	m->at = cad_wire_call_layout(ROWS, data_bytes, GROUPS, PAIRS);
	m->payload_bytes = m->at.bytes;
	m->call = (struct cadre_wire_call){
		.header = { .magic = CADRE_WIRE_MAGIC,
			.version = CADRE_WIRE_VERSION,
			.kind = CADRE_WIRE_CALL,
			.session = 5,
			.payload_bytes = m->payload_bytes },
		.request_id = 77,
		.data_bytes = data_bytes,
		.layer = 1,
		.rows = ROWS,
		.row_elements = ELEMENTS,
		.pairs = PAIRS,
		.groups = GROUPS,
	};
	struct cadre_wire_row *rows = (void *)(m->payload + m->at.rows);
	for (size_t r = 0; r < ROWS; r++)
		rows[r].type = types[r];
	rows[0].exponent = -12;
	put_scale(m, 0x1.abcp-9f);
	memcpy(m->payload + m->at.groups, (struct cadre_wire_group[]){ { 3, 2 }, { 9, 3 } },
		sizeof(struct cadre_wire_group) * GROUPS);
	memcpy(m->payload + m->at.pairs,
		(struct cadre_wire_pair[]){ { 0, 0.5f }, { 2, 0.25f }, { 1, -1.0f }, { 2, 0.125f }, { 3, 1.0f } },
		sizeof(struct cadre_wire_pair) * PAIRS);
}

static struct cadre_wire_row *row_of(struct message *m, size_t r)
{
	return (struct cadre_wire_row *)(m->payload + m->at.rows) + r;
}
static struct cadre_wire_group *group_of(struct message *m, size_t g)
{
	return (struct cadre_wire_group *)(m->payload + m->at.groups) + g;
}
static struct cadre_wire_pair *pair_of(struct message *m, size_t p)
{
	return (struct cadre_wire_pair *)(m->payload + m->at.pairs) + p;
}

static enum cad_status check(const struct message *m, struct cad_error *error)
{
	struct cad_call_view view;
	return cad_wire_call_check(&m->call, sizeof m->call, m->payload, m->payload_bytes, &limits, &view, error);
}

static void good_call_gives_a_view(void **state)
{
	(void)state;
	struct message m;
	struct cad_call_view view;
	struct cad_error error = { 0 };
	message_build(&m);
	must(cad_wire_call_check(&m.call, sizeof m.call, m.payload, m.payload_bytes, &limits, &view, &error), &error);
	assert_int_equal(view.call.request_id, 77);
	assert_int_equal(view.rows[0].exponent, -12);
	assert_ptr_equal(view.data, m.payload + ROWS * sizeof(struct cadre_wire_row));
	assert_int_equal(view.groups[1].expert, 9);
	assert_int_equal(view.pairs[3].row, 2);
	assert_int_equal(m.at.groups % 8, 0);
	assert_true(cad_wire_call_bytes_max(ROWS, ELEMENTS, GROUPS, PAIRS) >= m.payload_bytes);
}

/* One rule broken: which, and a word that the sentence must have. */
struct breach {
	const char *word;
	void (*apply)(struct message *m);
};

#define BREACH(name, statement) \
	static void name(struct message *m) { statement; }
BREACH(bad_magic, m->call.header.magic ^= 1)
BREACH(bad_version, m->call.header.version++)
BREACH(bad_kind, m->call.header.kind = CADRE_WIRE_KIND_COUNT)
BREACH(kind_zero, m->call.header.kind = 0)
BREACH(other_kind, m->call.header.kind = CADRE_WIRE_PING)
BREACH(bad_status, m->call.header.status = 1)
BREACH(bad_reserved, m->call.header.reserved = 1)
BREACH(payload_said_more, m->call.header.payload_bytes++)
BREACH(payload_cut, m->payload_bytes -= 8; m->call.header.payload_bytes = m->payload_bytes)
BREACH(payload_none, m->payload_bytes = 0; m->call.header.payload_bytes = 0)
BREACH(bad_layer, m->call.layer = 4)
BREACH(bad_elements, m->call.row_elements = 7)
BREACH(no_rows, m->call.rows = 0)
BREACH(many_rows, m->call.rows = 9)
BREACH(huge_rows, m->call.rows = UINT32_MAX)
BREACH(no_groups, m->call.groups = 0)
BREACH(huge_groups, m->call.groups = UINT32_MAX)
BREACH(few_pairs, m->call.pairs = 2)
BREACH(huge_pairs, m->call.pairs = UINT32_MAX)
BREACH(huge_data, m->call.data_bytes = UINT64_MAX - 8)
BREACH(more_data, m->call.data_bytes += 8)
BREACH(row_type_zero, row_of(m, 1)->type = 0)
BREACH(row_type_unknown, row_of(m, 1)->type = 5)
BREACH(row_reserved, row_of(m, 1)->zero = 1)
BREACH(row_exponent_low, row_of(m, 0)->exponent = -127)
BREACH(row_exponent_high, row_of(m, 0)->exponent = 114)
BREACH(row_exponent_needless, row_of(m, 2)->exponent = 1)
BREACH(row_types_swapped, row_of(m, 1)->type = CADRE_ROW_F32)
BREACH(expert_unknown, group_of(m, 1)->expert = 16)
BREACH(experts_equal, group_of(m, 1)->expert = 3)
BREACH(experts_descend, group_of(m, 0)->expert = 10)
BREACH(group_empty, group_of(m, 0)->pairs = 0; group_of(m, 1)->pairs = 5)
BREACH(group_short, group_of(m, 1)->pairs = 1)
BREACH(group_huge, group_of(m, 1)->pairs = UINT32_MAX)
BREACH(pair_row, pair_of(m, 1)->row = 4)
BREACH(pair_rows_equal, pair_of(m, 1)->row = 0)
BREACH(pair_rows_descend, pair_of(m, 2)->row = 2; pair_of(m, 3)->row = 1)
BREACH(weight_nan, pair_of(m, 2)->weight = NAN)
BREACH(weight_infinite, pair_of(m, 2)->weight = -INFINITY)
BREACH(row_unused, pair_of(m, 2)->row = 0)
BREACH(scale_nan, put_scale(m, -NAN))
BREACH(scale_infinite, put_scale(m, INFINITY))
BREACH(scale_negative, put_scale(m, -0x1p-9f))
BREACH(scale_minus_zero, put_scale(m, -0.0f))
BREACH(scale_large, put_scale(m, 0x1p+120f))
BREACH(scale_small, put_scale(m, 0x1.ffep-108f))
BREACH(scale_of_13_bits, put_scale(m, 0x1.001p-9f))
BREACH(value_minus_128, q8_of(m)[sizeof(float) + ELEMENTS - 1] = 0x80)

static void every_breach_of_a_call_is_refused(void **state)
{
	(void)state;
	static const struct breach breaches[] = {
		{ "magic", bad_magic },
		{ "version", bad_version },
		{ "unknown kind 14", bad_kind },
		{ "kind 0", kind_zero },
		{ "PING: 72 header bytes", other_kind },
		{ "status", bad_status },
		{ "reserved", bad_reserved },
		{ "announces", payload_said_more },
		{ "parts take", payload_cut },
		{ "payload of 0", payload_none },
		{ "layer 4", bad_layer },
		{ "7 elements", bad_elements },
		{ "0 rows", no_rows },
		{ "9 rows", many_rows },
		{ "rows", huge_rows },
		{ "0 groups", no_groups },
		{ "groups", huge_groups },
		{ "2 pairs", few_pairs },
		{ "pairs", huge_pairs },
		{ "bytes of rows", huge_data },
		{ "parts take", more_data },
		{ "type 0", row_type_zero },
		{ "type 5", row_type_unknown },
		{ "reserved", row_reserved },
		{ "exponent -127", row_exponent_low },
		{ "exponent 114", row_exponent_high },
		{ "exponent 1", row_exponent_needless },
		{ "announced", row_types_swapped },
		{ "expert 16", expert_unknown },
		{ "ascend", experts_equal },
		{ "ascend", experts_descend },
		{ "empty", group_empty },
		{ "3 pairs", group_short },
		{ "pairs", group_huge },
		{ "row 4 of 4", pair_row },
		{ "ascend", pair_rows_equal },
		{ "ascend", pair_rows_descend },
		{ "not finite", weight_nan },
		{ "not finite", weight_infinite },
		{ "no expert", row_unused },
		{ "row 3 has a scale", scale_nan },
		{ "row 3 has a scale", scale_infinite },
		{ "row 3 has a scale", scale_negative },
		{ "row 3 has a scale", scale_minus_zero },
		{ "row 3 has a scale", scale_large },
		{ "row 3 has a scale", scale_small },
		{ "row 3 has a scale", scale_of_13_bits },
		{ "row 3 has a scale or a value", value_minus_128 },
	};
	for (size_t i = 0; i < sizeof breaches / sizeof breaches[0]; i++) {
		struct message m;
		struct cad_error error = { 0 };
		message_build(&m);
		breaches[i].apply(&m);
		if (check(&m, &error) != CAD_ERR_PROTOCOL || !strstr(error.text, breaches[i].word))
			fail_msg("breach %zu ('%s') gave '%s'", i, breaches[i].word, error.text);
	}
}

static void header_of_any_wrong_size_is_refused(void **state)
{
	(void)state;
	struct message m;
	struct cad_call_view view;
	message_build(&m);
	for (size_t bytes = 0; bytes < sizeof m.call; bytes++)
		assert_int_equal(cad_wire_call_check(&m.call, bytes, m.payload, m.payload_bytes, &limits, &view, NULL),
			CAD_ERR_PROTOCOL);
}

/* The header may lie anywhere: only the payload's alignment is promised. */
static void header_needs_no_alignment(void **state)
{
	(void)state;
	struct message m;
	struct cad_call_view view;
	uint8_t bytes[sizeof m.call + 1];
	message_build(&m);
	memcpy(bytes + 1, &m.call, sizeof m.call);
	assert_int_equal(
		cad_wire_call_check(bytes + 1, sizeof m.call, m.payload, m.payload_bytes, &limits, &view, NULL),
		CAD_OK);
}

struct reply {
	struct cadre_wire_answer answer;
	_Alignas(8) uint8_t payload[512];
	size_t payload_bytes;
};

static void reply_build(struct reply *a)
{
	static const struct cadre_wire_sum sums[] = { {
							      .width = 2,
						      },
		{
			.width = 3,
		},
		{
			.width = 4,
		},
		{
			.width = 8,
		},
		{
			.poisoned = 1,
			.expert = 15,
		} };

	memset(a, 0, sizeof *a);
	a->payload_bytes = sizeof sums + (2 + 3 + 4 + 8) * ELEMENTS;
	a->answer = (struct cadre_wire_answer){
		.header = { .magic = CADRE_WIRE_MAGIC,
			.version = CADRE_WIRE_VERSION,
			.kind = CADRE_WIRE_ANSWER,
			.payload_bytes = a->payload_bytes },
		.data_bytes = (2 + 3 + 4 + 8) * ELEMENTS,
		.layer = 3,
		.rows = 5,
		.row_elements = ELEMENTS,
	};
	memcpy(a->payload, sums, sizeof sums);
}

static enum cad_status reply_check(const struct reply *a, struct cad_answer_view *view)
{
	return cad_wire_answer_check(&a->answer, sizeof a->answer, a->payload, a->payload_bytes, &limits, view, NULL);
}

static void answers(void **state)
{
	(void)state;
	struct reply a;
	struct cad_answer_view view;
	reply_build(&a);
	assert_int_equal(reply_check(&a, &view), CAD_OK);
	assert_int_equal(view.sums[4].expert, 15);
	assert_ptr_equal(view.data, a.payload + 5 * sizeof(struct cadre_wire_sum));
	assert_true(cad_wire_answer_bytes_max(5, ELEMENTS) >= a.payload_bytes);
#define REFUSED(statement) \
	do { \
		reply_build(&a); \
		struct cadre_wire_sum *sum = (void *)a.payload; \
		(void)sum; \
		statement; \
		assert_int_equal(reply_check(&a, &view), CAD_ERR_PROTOCOL); \
	} while (0)
	REFUSED(sum[0].width = 0);
	REFUSED(sum[0].width = 1);
	REFUSED(sum[3].width = 9);
	REFUSED(sum[1].width = 2);
	REFUSED(sum[0].poisoned = 1);
	REFUSED(sum[4].poisoned = 2);
	REFUSED(sum[4].expert = 16);
	REFUSED(sum[0].expert = 1);
	REFUSED(sum[0].zero = 1);
	REFUSED(a.answer.rows = 0);
	REFUSED(a.answer.rows = 4);
	REFUSED(a.answer.rows = UINT32_MAX);
	REFUSED(a.answer.layer = 4);
	REFUSED(a.answer.row_elements = 5);
	REFUSED(a.answer.data_bytes = UINT64_MAX);
	REFUSED(a.answer.data_bytes--);
	REFUSED(a.answer.header.status = CADRE_WIRE_INTERNAL + 1);
	REFUSED(a.answer.header.status = CADRE_WIRE_BUSY); /* with sums beside it */
	REFUSED(a.answer.header.kind = CADRE_WIRE_CALL);
}

static void answer_with_a_status_has_no_sums(void **state)
{
	(void)state;
	struct reply a;
	struct cad_answer_view view;
	for (uint8_t status = CADRE_WIRE_NOT_HELD; status <= CADRE_WIRE_INTERNAL; status++) {
		reply_build(&a);
		a.answer.header.status = status;
		a.answer.header.payload_bytes = a.payload_bytes = 0;
		a.answer.data_bytes = 0;
		a.answer.detail = 12;
		assert_int_equal(
			cad_wire_answer_check(&a.answer, sizeof a.answer, NULL, 0, &limits, &view, NULL), CAD_OK);
		assert_int_equal(view.answer.detail, 12);
		assert_null(view.sums);
		assert_string_not_equal(cad_wire_status_text(status), "unknown status");
	}
}

static void fetches(void **state)
{
	(void)state;
	const struct cadre_wire_fetch good = {
		.header = { .magic = CADRE_WIRE_MAGIC, .version = CADRE_WIRE_VERSION, .kind = CADRE_WIRE_FETCH },
		.request_id = 9,
		.offset = UINT64_MAX,
		.bytes = CADRE_PART_BYTES_MAX,
		.layer = 3,
		.expert = 15,
		.version = 200, /* of another form: the node says that it has none such */
	};
	struct cadre_wire_fetch fetch = good, out;
	assert_int_equal(cad_wire_fetch_check(&fetch, sizeof fetch, &limits, &out, NULL), CAD_OK);
	assert_memory_equal(&out, &good, sizeof good);
	assert_int_equal(cad_wire_fetch_check(&fetch, sizeof fetch - 1, &limits, &out, NULL), CAD_ERR_PROTOCOL);
#define REFUSED_FETCH(statement) \
	do { \
		fetch = good; \
		statement; \
		assert_int_equal(cad_wire_fetch_check(&fetch, sizeof fetch, &limits, &out, NULL), CAD_ERR_PROTOCOL); \
	} while (0)
	REFUSED_FETCH(fetch.bytes = 0);
	REFUSED_FETCH(fetch.bytes = CADRE_PART_BYTES_MAX + 1);
	REFUSED_FETCH(fetch.layer = 4);
	REFUSED_FETCH(fetch.expert = 16);
	REFUSED_FETCH(fetch.zero = 1);
	REFUSED_FETCH(fetch.header.status = 1);
	REFUSED_FETCH(fetch.header.payload_bytes = 1);
	REFUSED_FETCH(fetch.header.kind = CADRE_WIRE_PART);
}

static void parts(void **state)
{
	(void)state;
	const struct cadre_wire_part good = {
		.header = { .magic = CADRE_WIRE_MAGIC,
			.version = CADRE_WIRE_VERSION,
			.kind = CADRE_WIRE_PART,
			.payload_bytes = 100 },
		.request_id = 9,
		.image_bytes = 100,
	};
	struct cadre_wire_part part = good, out;
	size_t bytes = 100;
	assert_int_equal(cad_wire_part_check(&part, sizeof part, bytes, &out, NULL), CAD_OK);
	assert_memory_equal(&out, &good, sizeof good);
	assert_int_equal(cad_wire_part_check(&part, sizeof part + 1, bytes, &out, NULL), CAD_ERR_PROTOCOL);
#define REFUSED_PART(statement) \
	do { \
		part = good; \
		bytes = 100; \
		statement; \
		assert_int_equal(cad_wire_part_check(&part, sizeof part, bytes, &out, NULL), CAD_ERR_PROTOCOL); \
	} while (0)
	REFUSED_PART(bytes = 99);
	REFUSED_PART(part.image_bytes = 99);
	REFUSED_PART(part.header.payload_bytes = bytes = 0);
	REFUSED_PART(part.image_bytes = part.header.payload_bytes = bytes = CADRE_PART_BYTES_MAX + 1);
	REFUSED_PART(part.header.status = CADRE_WIRE_INTERNAL + 1);
	REFUSED_PART(part.header.status = CADRE_WIRE_NOT_HELD); /* with bytes beside it */
	REFUSED_PART(part.header.kind = CADRE_WIRE_FETCH);

	part = good;
	part.header.status = CADRE_WIRE_NOT_HELD;
	part.header.payload_bytes = 0;
	assert_int_equal(cad_wire_part_check(&part, sizeof part, 0, &out, NULL), CAD_ERR_PROTOCOL);
	part.image_bytes = 0;
	assert_int_equal(cad_wire_part_check(&part, sizeof part, 0, &out, NULL), CAD_OK);
}

static void handshake_headers(void **state)
{
	(void)state;
	struct cadre_wire_header out;
	struct cadre_wire_hello hello = {
		.header = { .magic = CADRE_WIRE_MAGIC, .version = CADRE_WIRE_VERSION, .kind = CADRE_WIRE_HELLO },
	};
	assert_int_equal(cad_wire_header_check(&hello, sizeof hello, 0, &out, NULL), CAD_OK);
	assert_int_equal(out.kind, CADRE_WIRE_HELLO);
	memset(hello.identity.node, 'x', sizeof hello.identity.node);
	assert_int_equal(cad_wire_header_check(&hello, sizeof hello, 0, &out, NULL), CAD_ERR_PROTOCOL);
	struct cadre_wire_refuse refuse = {
		.header = { .magic = CADRE_WIRE_MAGIC, .version = CADRE_WIRE_VERSION, .kind = CADRE_WIRE_REFUSE },
	};
	assert_int_equal(cad_wire_header_check(&refuse, sizeof refuse, 0, &out, NULL), CAD_OK);
	memset(refuse.text, 'x', sizeof refuse.text);
	assert_int_equal(cad_wire_header_check(&refuse, sizeof refuse, 0, &out, NULL), CAD_ERR_PROTOCOL);
	struct cadre_wire_ping ping = { .header = { .magic = CADRE_WIRE_MAGIC,
						.version = CADRE_WIRE_VERSION,
						.kind = CADRE_WIRE_PONG,
						.payload_bytes = 8 } };
	assert_int_equal(cad_wire_header_check(&ping, sizeof ping, 8, &out, NULL), CAD_ERR_PROTOCOL);
	ping.header.payload_bytes = 0;
	assert_int_equal(cad_wire_header_check(&ping, sizeof ping, 0, &out, NULL), CAD_OK);
	assert_string_equal(cad_wire_kind_name(CADRE_WIRE_WELCOME), "WELCOME");
	assert_string_equal(cad_wire_kind_name(0), "unknown");
	assert_int_equal(cad_wire_header_bytes(200), 0);
}

/* Any bytes flipped in a good message: either it is refused, or everything that the view says can
 * be walked. */
static void flipped_bits_never_make_a_view_that_lies(void **state)
{
	(void)state;
	struct cad_random random = { 20240611 };
	for (int round = 0; round < 20000; round++) {
		struct message m;
		struct cad_call_view view;
		message_build(&m);
		for (uint64_t i = cad_random_below(&random, 3) + 1; i > 0; i--) {
			uint64_t at = cad_random_below(&random, sizeof m.call + m.payload_bytes);
			uint8_t *byte = at < sizeof m.call ? (uint8_t *)&m.call + at : m.payload + at - sizeof m.call;
			*byte = (uint8_t)(*byte ^ 1u << cad_random_below(&random, 8));
		}
		if (cad_wire_call_check(&m.call, sizeof m.call, m.payload, m.payload_bytes, &limits, &view, NULL) !=
			CAD_OK)
			continue;
		size_t pairs = 0, bytes = 0;
		for (uint32_t g = 0; g < view.call.groups; g++)
			pairs += view.groups[g].pairs;
		for (uint32_t r = 0; r < view.call.rows; r++)
			bytes += cadre_row_bytes(view.rows[r].type, view.call.row_elements);
		assert_int_equal(pairs, view.call.pairs);
		assert_int_equal(bytes, view.call.data_bytes);
		assert_true(view.data + bytes <= (const uint8_t *)view.groups);
		assert_ptr_equal(view.pairs + pairs, m.payload + m.payload_bytes);
		for (size_t p = 0; p < pairs; p++)
			assert_true(view.pairs[p].row < view.call.rows && isfinite(view.pairs[p].weight));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_call_gives_a_view),
		cmocka_unit_test(every_breach_of_a_call_is_refused),
		cmocka_unit_test(header_of_any_wrong_size_is_refused),
		cmocka_unit_test(header_needs_no_alignment),
		cmocka_unit_test(answers),
		cmocka_unit_test(answer_with_a_status_has_no_sums),
		cmocka_unit_test(fetches),
		cmocka_unit_test(parts),
		cmocka_unit_test(handshake_headers),
		cmocka_unit_test(flipped_bits_never_make_a_view_that_lies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
