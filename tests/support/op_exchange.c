/* SPDX-License-Identifier: Apache-2.0 */
/* rows_pack, rows_unpack, combine_pack, combine_add, combine_finish. Their results are exact by
 * rule; the rules are written here a second time, in double and long double. */
#include "op_cases.h"

#include "kernels/exp.h"
#include "kernels/quantise.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct exchange {
	struct op_state state;
	size_t ld, n;
	float *x, *x_host;
	uint32_t *index;
	uint8_t *data; /* of a whole message */
	size_t data_bytes;
	struct cadre_wire_row *rows;
	struct cadre_wire_sum *sums;
	uint32_t *pair_expert, *poison, *host_poison;
	int64_t *device_sums, *host_sums;
	float *score, *score_host; /* [rows][kn_ld(1)] */
};

static struct exchange *exchange_setup(struct kn_queue *queue, const struct op_case *c, uint64_t *seed)
{
	struct exchange *s = op_need(sizeof *s);
	s->n = c->n;
	s->ld = kn_ld(c->n);
	s->x = op_rows(queue, c->rows, c->n, seed, c->data, 1.0f, &s->x_host);
	s->index = op_need(c->rows * sizeof *s->index);
	for (size_t r = 0; r < c->rows; r++)
		s->index[r] = (uint32_t)(c->rows - 1 - r);
	s->rows = op_need(c->rows * sizeof *s->rows);
	s->sums = op_need(c->rows * sizeof *s->sums);
	s->data = op_need(c->rows * (c->n * 8 > cadre_row_bytes_max(c->n) ? c->n * 8 : cadre_row_bytes_max(c->n)));
	s->state = (struct op_state){ .c = c, .queue = queue, .rows = c->rows };

	return s;
}

static void exchange_teardown(struct op_state *state)
{
	struct exchange *s = (struct exchange *)state;
	const struct kn_ops *ops = state->queue->ops;
	struct kn_device *device = state->queue->device;

	ops->release(device, s->x, state->rows * s->ld * 4);
	if (s->device_sums)
		ops->release(device, s->device_sums, state->rows * s->n * 8);
	if (state->device_output && state->device_output != (void *)s->device_sums)
		ops->release(device, state->device_output, state->rows * state->stride_bytes);
	ops->release(device, s->poison, state->rows * sizeof *s->poison);
	ops->release(device, s->score, state->rows * kn_ld(1) * 4);
	void *const host[] = { state->host_output, s->x_host, s->index, s->data, s->rows, s->sums, s->pair_expert,
		s->host_poison, s->host_sums, s->score_host };
	for (size_t i = 0; i < sizeof host / sizeof host[0]; i++)
		free(host[i]);
	free(s);
}

static double bits_same(bool same) { return same ? 0 : INFINITY; }

/* ---- rows_pack ---- */

/* variant is the type that is asked for; flag puts in rows that must go as f32, and a zero row. */

static void odd_rows(struct exchange *s)
{
	for (size_t r = 0; r < s->state.c->rows; r++) {
		float *x = s->x_host + r * s->ld;
		size_t at = r % s->n;
		switch (r % 9) {
		case 0: x[at] = NAN; break;
		case 1: x[at] = -INFINITY; break;
		case 2:
			memset(x, 0, s->n * sizeof *x);
			x[at] = -0.0f;
			break;
		case 3: x[at] = 1e6f; break; /* far above the rest */
		case 4: x[at] = -FLT_MAX; break;
		case 5: x[at] = 0x1.fep+127f; break; /* the largest that bf16 holds */
		case 6:
			memset(x, 0, s->n * sizeof *x);
			x[at] = 0x1p-149f;
			break;
		case 7:
			x[at] = 16384.0f;
			x[(at + 1) % s->n] = 16383.9f;
			break; /* just below and at a power of two */
		default: break;
		}
	}
}

static struct op_state *rows_pack_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct exchange *s = exchange_setup(queue, c, &seed);
	if (c->flag) {
		odd_rows(s);
		queue->ops->copy_in(queue, s->x, s->x_host, c->rows * s->ld * sizeof *s->x);
	}
	size_t bytes = kn_round_up(sizeof(struct cadre_wire_row) + cadre_row_bytes_max(c->n), 8);
	s->state.stride_bytes = s->state.compare_bytes = bytes;
	s->state.host_output = op_need(c->rows * bytes);
	return &s->state;
}

/* Output row: head, data, zeros. */
static void rows_pack_run(struct op_state *state, size_t first, size_t rows)
{
	struct exchange *s = (struct exchange *)state;
	size_t bytes = SIZE_MAX, at = 0;

	state->queue->ops->rows_pack(state->queue,
		&(struct kn_rows_pack){
			.x = s->x,
			.ldx = s->ld,
			.n = s->n,
			.index = s->index + first,
			.rows = rows,
			.type = (enum cadre_row_type)state->c->variant,
			.heads = s->rows,
			.data = s->data,
			.data_bytes = &bytes,
		});
	CAD_ASSERT(state->queue->ops->wait(state->queue) == CAD_OK);

	for (size_t i = 0; i < rows; i++) {
		uint8_t *out = (uint8_t *)state->host_output + (first + i) * state->stride_bytes;
		size_t row_bytes = cadre_row_bytes(s->rows[i].type, s->n);
		memset(out, 0, state->stride_bytes);
		memcpy(out, &s->rows[i], sizeof s->rows[i]);
		memcpy(out + sizeof s->rows[i], s->data + at, row_bytes);
		at += row_bytes;
	}

	CAD_ASSERT(at == bytes);
}

/* The type that a row must have; 0 when its ratio is too near the limit to say by float64. */
static uint8_t row_type(const float *x, size_t n, uint8_t asked)
{
	double most = 0, squares = 0;
	for (size_t i = 0; i < n; i++) {
		if (!isfinite(x[i]))
			return CADRE_ROW_F32;
		most = fmax(most, fabs((double)x[i]));
		squares += (double)x[i] * (double)x[i];
	}
	if (asked == CADRE_ROW_Q8)
		return most / KN_RANGE_INT8 < 0x1.ffep+119 ? asked : CADRE_ROW_F32;
	if (most >= 0x1.ffp+127 || most == 0)
		return most == 0 ? asked : CADRE_ROW_F32;
	double ratio = most / sqrt(squares / (double)n), limit = (double)CADRE_ROW_RATIO_MAX;
	return fabs(ratio - limit) < 1e-3 * limit ? 0 : ratio > limit ? CADRE_ROW_F32 : asked;
}

/* A Q8 row holds what the quantiser makes of x, group by group, and quantising that once more
 * changes nothing. */
static bool q8_good(const float *x, size_t n, const uint8_t *data)
{
	float *want = op_need(n * sizeof *want);
	bool good = true;

	memcpy(want, x, n * sizeof *want);
	op_quantise(want, n, CADRE_ROW_GROUP, KN_RANGE_INT8);
	for (int time = 0; time < 2; time++, op_quantise(want, n, CADRE_ROW_GROUP, KN_RANGE_INT8))
		for (size_t i = 0; i < n; i++) {
			float scale;
			memcpy(&scale, data + i / CADRE_ROW_GROUP * sizeof scale, sizeof scale);
			int8_t q = (int8_t)data[cadre_row_groups(n) * sizeof scale + i];
			good &= (float)q * scale == want[i] && q >= -KN_RANGE_INT8;
		}
	free(want);

	return good;
}

static bool row_good(const struct exchange *s, const float *x, const uint8_t *out)
{
	struct cadre_wire_row head;
	memcpy(&head, out, sizeof head);
	const uint8_t *data = out + sizeof head;
	uint8_t type = row_type(x, s->n, (uint8_t)s->state.c->variant);
	double most = 0;
	if ((type != 0 && head.type != type) || head.zero != 0)
		return false;
	for (size_t i = 0; i < s->n; i++)
		most = fmax(most, fabs((double)x[i]));
	int exponent = -200;
	if (most > 0)
		frexp(most, &exponent);
	if (head.type == CADRE_ROW_F32)
		return head.exponent == 0 && memcmp(data, x, s->n * sizeof *x) == 0;
	if (head.type == CADRE_ROW_Q8)
		return head.exponent == 0 && q8_good(x, s->n, data);
	if (head.exponent != (head.type == CADRE_ROW_FIX16 ? exponent - 15 > -126 ? exponent - 15 : -126 : 0))
		return false;

	for (size_t i = 0; i < s->n; i++) {
		int16_t q;
		memcpy(&q, data + 2 * i, sizeof q);
		if (head.type == CADRE_ROW_FIX16) {
			if ((double)q != fmin(rint(ldexp((double)x[i], -head.exponent)), 32767))
				return false;
		} else {
			float back = 0;
			memcpy((uint8_t *)&back + 2, &q, sizeof q);
			double step = fmax(ldexp(1, ilogb(x[i] == 0 ? 1e-40 : (double)x[i]) - 7), 0x1p-133);
			if (fabs((double)back - (double)x[i]) > step / 2)
				return false;
		}
	}

	return true;
}

static double rows_pack_error(const struct op_state *state, const void *output)
{
	const struct exchange *s = (const struct exchange *)state;
	bool good = true;
	for (size_t r = 0; r < state->rows; r++)
		good &= row_good(s, s->x_host + s->index[r] * s->ld, (const uint8_t *)output + r * state->stride_bytes);
	return bits_same(good);
}

static double exchange_flops(const struct op_case *c) { return 2.0 * (double)c->rows * (double)c->n; }
static double exchange_bytes(const struct op_case *c) { return 6.0 * (double)c->rows * (double)c->n; }

const struct op_kind op_rows_pack = { "rows_pack", rows_pack_setup, rows_pack_run, rows_pack_error, exchange_teardown,
	exchange_flops, exchange_bytes };

/* ---- rows_unpack: rows of all types ---- */

/* Elements of random bits, in a row of `type`. */
static void fill_row(const struct exchange *s, const float *x, uint8_t type, uint8_t *at)
{
	size_t groups = cadre_row_groups(s->n);

	for (size_t g = 0; g < groups && type == CADRE_ROW_Q8; g++)
		memcpy(at + g * sizeof *x, &(float){ 0x1.abcp-7f * (float)(1 + g) }, sizeof *x);
	for (size_t i = 0; i < s->n; i++) {
		uint32_t bits;
		memcpy(&bits, &x[i], sizeof bits);
		uint16_t half = (uint16_t)(bits >> (type == CADRE_ROW_FIX16 ? 3 : 16));
		if (type == CADRE_ROW_Q8)
			at[groups * sizeof *x + i] = (uint8_t)(bits >> 3);
		else if (type == CADRE_ROW_F32)
			memcpy(at + i * sizeof bits, &bits, sizeof bits);
		else
			memcpy(at + i * sizeof half, &half, sizeof half);
	}
}

/* Element i of such a row. */
static float row_value(const struct exchange *s, struct cadre_wire_row head, const uint8_t *at, size_t i)
{
	float value = 0;
	int16_t q;

	switch (head.type) {
	case CADRE_ROW_FIX16: memcpy(&q, at + i * sizeof q, sizeof q); return (float)ldexp((double)q, head.exponent);
	case CADRE_ROW_BF16: memcpy((uint8_t *)&value + 2, at + i * 2, 2); return value;
	case CADRE_ROW_F32: memcpy(&value, at + i * sizeof value, sizeof value); return value;
	default: break;
	}
	memcpy(&value, at + i / CADRE_ROW_GROUP * sizeof value, sizeof value);
	return (float)((double)(int8_t)at[cadre_row_groups(s->n) * sizeof value + i] * (double)value);
}

static struct op_state *rows_unpack_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct exchange *s = exchange_setup(queue, c, &seed);
	uint8_t *at = s->data;

	for (size_t r = 0; r < c->rows; r++) {
		s->rows[r].type = (uint8_t)(CADRE_ROW_FIX16 + r % 4);
		s->rows[r].exponent = (int16_t)(s->rows[r].type == CADRE_ROW_FIX16 ? (int)(r * 37 % 240) - 126 : 0);
		fill_row(s, s->x_host + r * s->ld, s->rows[r].type, at);
		at += cadre_row_bytes(s->rows[r].type, s->n);
	}

	s->state.stride_bytes = s->ld * 4;
	s->state.compare_bytes = kn_round_up(s->n, 64) * 4;
	s->state.device_output = op_alloc(queue, c->rows * s->ld * 4);

	return &s->state;
}

static size_t rows_before(const struct exchange *s, size_t row)
{
	size_t bytes = 0;
	for (size_t r = 0; r < row; r++)
		bytes += cadre_row_bytes(s->rows[r].type, s->n);
	return bytes;
}

static void rows_unpack_run(struct op_state *state, size_t first, size_t rows)
{
	struct exchange *s = (struct exchange *)state;
	state->queue->ops->rows_unpack(state->queue,
		&(struct kn_rows_unpack){
			.heads = s->rows + first,
			.data = s->data + rows_before(s, first),
			.rows = rows,
			.n = s->n,
			.x = (float *)state->device_output + first * s->ld,
			.ldx = s->ld,
		});
}

static double rows_unpack_error(const struct op_state *state, const void *output)
{
	const struct exchange *s = (const struct exchange *)state;
	const uint8_t *at = s->data;
	bool good = true;

	for (size_t r = 0; r < state->rows; r++) {
		const float *got = (const float *)output + r * s->ld;
		for (size_t i = 0; i < s->n; i++)
			good &= memcmp(&got[i], &(float){ row_value(s, s->rows[r], at, i) }, sizeof *got) == 0;
		at += cadre_row_bytes(s->rows[r].type, s->n);
		for (size_t i = s->n; i < kn_round_up(s->n, 64); i++)
			good &= got[i] == 0;
	}

	return bits_same(good);
}

const struct op_kind op_rows_unpack = { "rows_unpack", rows_unpack_setup, rows_unpack_run, rows_unpack_error,
	exchange_teardown, exchange_flops, exchange_bytes };

/* ---- combine_pack: rows of all widths; flag poisons some ---- */

enum { QUANTUM_EXPONENT = -14 };

static struct op_state *combine_pack_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	static const int bits[] = { 15, 23, 31, 62 };
	struct exchange *s = exchange_setup(queue, c, &seed);
	size_t sums_bytes = c->rows * s->n * sizeof *s->host_sums;

	s->host_sums = op_need(sums_bytes);
	s->host_poison = op_need(c->rows * sizeof *s->host_poison);
	s->pair_expert = op_need(c->rows * sizeof *s->pair_expert);
	for (size_t r = 0; r < c->rows; r++) {
		s->pair_expert[r] = (uint32_t)(1000 + r);
		s->host_poison[r] = c->flag && r % 3 == 0 ? (uint32_t)(c->rows - 1 - r) : UINT32_MAX;
		for (size_t i = 0; i < s->n; i++)
			s->host_sums[r * s->n + i] =
				(int64_t)ldexp((double)op_value(&seed, OP_DATA_BELL), bits[r % 4] - 3);
		/* the largest is at a width's end, or just past it */
		int64_t end = (int64_t)1 << bits[r % 4];
		s->host_sums[r * s->n + r % s->n] = r % 8 < 4 ? -end : end - (int64_t)(r % 16 < 8);
	}
	s->device_sums = op_upload(queue, s->host_sums, sums_bytes);
	s->poison = op_upload(queue, s->host_poison, c->rows * sizeof *s->poison);
	s->state.stride_bytes = s->state.compare_bytes = sizeof(struct cadre_wire_sum) + 8 * s->n;
	s->state.host_output = op_need(c->rows * s->state.stride_bytes);

	return &s->state;
}

/* Output row: head, data, zeros. */
static void combine_pack_run(struct op_state *state, size_t first, size_t rows)
{
	struct exchange *s = (struct exchange *)state;
	size_t bytes = SIZE_MAX, at = 0;

	state->queue->ops->combine_pack(state->queue,
		&(struct kn_combine_pack){
			.sums = s->device_sums + first * s->n,
			.poison = s->poison + first,
			.rows = rows,
			.n = s->n,
			.pair_expert = s->pair_expert,
			.pairs = state->rows,
			.heads = s->sums,
			.data = s->data,
			.data_bytes = &bytes,
		});
	CAD_ASSERT(state->queue->ops->wait(state->queue) == CAD_OK);

	for (size_t i = 0; i < rows; i++) {
		uint8_t *out = (uint8_t *)state->host_output + (first + i) * state->stride_bytes;
		memset(out, 0, state->stride_bytes);
		memcpy(out, &s->sums[i], sizeof s->sums[i]);
		memcpy(out + sizeof s->sums[i], s->data + at, s->sums[i].width * s->n);
		at += s->sums[i].width * s->n;
	}

	CAD_ASSERT(at == bytes);
}

/* Little-endian two's complement of 2, 3, 4 or 8 bytes, the slow way. */
static int64_t sum_read(const uint8_t *data, size_t width)
{
	uint64_t value = data[width - 1] >= 128 ? UINT64_MAX : 0;
	for (size_t i = width; i-- > 0;)
		value = value << 8 | data[i];
	return (int64_t)value;
}

static bool fits(int64_t value, size_t width)
{
	return width == 8 || (value >= -((int64_t)1 << (8 * width - 1)) && value < (int64_t)1 << (8 * width - 1));
}

static double combine_pack_error(const struct op_state *state, const void *output)
{
	const struct exchange *s = (const struct exchange *)state;
	static const size_t widths[] = { 2, 3, 4, 8 };
	bool good = true;

	for (size_t r = 0; r < state->rows; r++) {
		struct cadre_wire_sum head;
		const uint8_t *data = (const uint8_t *)output + r * state->stride_bytes + sizeof head;
		memcpy(&head, data - sizeof head, sizeof head);
		if (s->host_poison[r] != UINT32_MAX) {
			good &= head.poisoned == 1 && head.width == 0 &&
				head.expert == s->pair_expert[s->host_poison[r]];
			continue;
		}
		size_t width = 0;
		for (size_t i = 0; i < s->n; i++) {
			int64_t sum = s->host_sums[r * s->n + i];
			while (!fits(sum, widths[width]))
				width++;
			good &= sum == sum_read(data + i * head.width, head.width);
		}
		good &= !head.poisoned && head.width == widths[width] && head.expert == 0;
	}

	return bits_same(good);
}

const struct op_kind op_combine_pack = { "combine_pack", combine_pack_setup, combine_pack_run, combine_pack_error,
	exchange_teardown, exchange_flops, exchange_bytes };

/* ---- combine_add, combine_finish ---- */

static struct op_state *combine_add_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	static const uint8_t widths[] = { 2, 3, 4, 8 };
	struct exchange *s = exchange_setup(queue, c, &seed);
	size_t at = 0;

	s->host_sums = op_need(c->rows * s->n * sizeof *s->host_sums);

	for (size_t r = 0; r < c->rows; r++) {
		s->sums[r].width = widths[r % 4];
		for (size_t i = 0; i < s->n * s->sums[r].width; i++, at++)
			s->data[at] = (uint8_t)(i % s->sums[r].width == 7   ? 0
					: op_value(&seed, OP_DATA_WIDE) > 0 ? 255 * (i & 1)
									    : r + i);
		for (size_t i = 0; i < s->n; i++)
			s->host_sums[r * s->n + i] = (int64_t)((double)op_value(&seed, OP_DATA_BELL) * 1e12);
	}

	s->device_sums = op_alloc(queue, c->rows * s->n * sizeof *s->device_sums);
	s->state.device_output = s->device_sums;
	s->state.stride_bytes = s->state.compare_bytes = s->n * 8;

	return &s->state;
}

static size_t sums_before(const struct exchange *s, size_t row)
{
	size_t bytes = 0;
	for (size_t r = 0; r < row; r++)
		bytes += s->sums[r].width * s->n;
	return bytes;
}

/* Answer row i goes to output row i here: index is ascending, so that part of the rows is part of
 * the output. */
static void combine_add_run(struct op_state *state, size_t first, size_t rows)
{
	struct exchange *s = (struct exchange *)state;
	const struct kn_ops *ops = state->queue->ops;

	for (size_t r = 0; r < rows; r++)
		s->index[r] = (uint32_t)(first + r);
	ops->copy_in(state->queue, s->device_sums + first * s->n, s->host_sums + first * s->n,
		rows * s->n * sizeof *s->device_sums);
	ops->combine_add(state->queue,
		&(struct kn_combine_add){
			.heads = s->sums + first,
			.data = s->data + sums_before(s, first),
			.rows = rows,
			.n = s->n,
			.index = s->index,
			.sums = s->device_sums,
		});
}

static double combine_add_error(const struct op_state *state, const void *output)
{
	const struct exchange *s = (const struct exchange *)state;
	bool good = true;
	size_t at = 0;

	for (size_t r = 0; r < state->rows; r++)
		for (size_t i = 0; i < s->n; i++, at += s->sums[r].width)
			good &= ((const int64_t *)output)[r * s->n + i] ==
				s->host_sums[r * s->n + i] + sum_read(s->data + at, s->sums[r].width);
	return bits_same(good);
}

const struct op_kind op_combine_add = { "combine_add", combine_add_setup, combine_add_run, combine_add_error,
	exchange_teardown, exchange_flops, exchange_bytes };

/* flag: with shared rows, which have the values of x, and are x where it is apart; variant 1: scaled by sigmoids of scores, 2: apart;
 * limit: the factor of what is added, 0 means 1 */
static struct op_state *combine_finish_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct exchange *s = exchange_setup(queue, c, &seed);
	s->host_sums = op_need(c->rows * s->n * sizeof *s->host_sums);
	for (size_t i = 0; i < c->rows * s->n; i++)
		s->host_sums[i] = (int64_t)((double)op_value(&seed, OP_DATA_BELL) * exp2((double)(i % 60)));
	s->device_sums = op_alloc(queue, c->rows * s->n * sizeof *s->device_sums);
	if (c->variant == 1)
		s->score = op_rows(queue, c->rows, 1, &seed, OP_DATA_BELL, 3.0f, &s->score_host);
	s->state.stride_bytes = s->ld * 4;
	s->state.compare_bytes = s->n * 4;
	s->state.device_output = op_alloc(queue, c->rows * s->ld * 4);
	return &s->state;
}

static void combine_finish_run(struct op_state *state, size_t first, size_t rows)
{
	struct exchange *s = (struct exchange *)state;
	const struct kn_ops *ops = state->queue->ops;
	float *x = (float *)state->device_output + first * s->ld;

	ops->copy_in(state->queue, x, s->x_host + first * s->ld, rows * s->ld * 4);
	ops->copy_in(state->queue, s->device_sums + first * s->n, s->host_sums + first * s->n, rows * s->n * 8);
	ops->combine_finish(state->queue,
		&(struct kn_combine_finish){
			.x = x,
			.apart = state->c->variant == 2,
			.ldx = s->ld,
			.rows = rows,
			.n = s->n,
			.sums = s->device_sums + first * s->n,
			.quantum = ldexpf(1, QUANTUM_EXPONENT),
			.shared = !state->c->flag        ? NULL
				: state->c->variant == 2 ? x
							 : s->x + first * s->ld,
			.lds = s->ld,
			.score = s->score ? s->score + first * kn_ld(1) : NULL,
			.ld_score = kn_ld(1),
			.scale = state->c->limit > 0 ? state->c->limit : 1,
		});
	size_t bytes = rows * s->n * sizeof *s->device_sums;
	int64_t *sums = op_need(bytes);
	ops->copy_out(state->queue, sums, s->device_sums + first * s->n, bytes);
	CAD_ASSERT(ops->wait(state->queue) == CAD_OK);
	for (size_t i = 0; i < rows * s->n; i++)
		CAD_ASSERT(sums[i] == 0);
	free(sums);
}

static double combine_finish_error(const struct op_state *state, const void *output)
{
	const struct exchange *s = (const struct exchange *)state;
	bool good = true;

	for (size_t r = 0; r < state->rows; r++)
		for (size_t i = 0; i < s->n; i++) {
			float x = s->x_host[r * s->ld + i],
			      routed = (float)ldexp((double)(float)s->host_sums[r * s->n + i], QUANTUM_EXPONENT);
			float share = s->score ? kn_sigmoid_1(s->score_host[r * kn_ld(1)]) : 1.0f;
			float scale = state->c->limit > 0 ? state->c->limit : 1,
			      added = scale * (state->c->flag ? routed + share * x : routed),
			      want = state->c->variant == 2 ? added : x + added;
			good &= memcmp(&want, (const float *)output + r * s->ld + i, sizeof want) == 0;
		}
	return bits_same(good);
}

const struct op_kind op_combine_finish = { "combine_finish", combine_finish_setup, combine_finish_run,
	combine_finish_error, exchange_teardown, exchange_flops, exchange_bytes };
