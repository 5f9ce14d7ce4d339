/* SPDX-License-Identifier: Apache-2.0 */
/* rmsnorm, rope_table, rope, add and scale_rows */
#include "op_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Operators on f32 rows, with up to two more inputs; in-place ones get their input back before each
 * run. */
struct rows {
	struct op_state state;
	size_t ld, n, other_bytes;
	float *x, *x_host, *other, *other_host;
	float scale; /* of add */
	int32_t *positions, *positions_host;
	uint32_t *index, *index_host;
};

static size_t case_elements(const struct op_case *c) { return (c->parts > 0 ? c->parts : 1) * c->n; }

static struct rows *rows_setup(struct kn_queue *queue, const struct op_case *c, size_t n, uint64_t *seed)
{
	struct rows *s = op_need(sizeof *s);
	s->n = n;
	s->ld = kn_ld(n);
	s->x = op_rows(queue, c->rows, n, seed, c->data, 1.0f, &s->x_host);
	s->state = (struct op_state){ c, queue, c->rows, s->ld * 4, n * 4, op_alloc(queue, c->rows * s->ld * 4), NULL };
	return s;
}

static void rows_restore(struct rows *s, size_t first, size_t rows)
{
	s->state.queue->ops->copy_in(s->state.queue, (float *)s->state.device_output + first * s->ld,
		s->x_host + first * s->ld, rows * s->ld * 4);
}

static void rows_teardown(struct op_state *state)
{
	struct rows *s = (struct rows *)state;
	const struct kn_ops *ops = state->queue->ops;
	struct kn_device *device = state->queue->device;

	ops->release(device, s->x, state->rows * s->ld * 4);
	ops->release(device, state->device_output, state->rows * s->ld * 4);
	if (s->other)
		ops->release(device, s->other, s->other_bytes);
	if (s->positions)
		ops->release(device, s->positions, state->rows * sizeof *s->positions);
	free(s->x_host);
	free(s->other_host);
	if (s->index)
		ops->release(device, s->index, state->rows * sizeof *s->index);
	free(s->positions_host);
	free(s->index_host);
	free(s);
}

/* ---- rmsnorm; flag: in place; variant 1: rows by index, which names some twice ---- */

static struct op_state *rmsnorm_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct rows *s = rows_setup(queue, c, case_elements(c), &seed);
	s->other = op_rows(queue, 1, c->n, &seed, OP_DATA_BELL, 1.0f, &s->other_host);
	s->other_bytes = kn_ld(c->n) * 4;
	if (!c->flag)
		s->state.compare_bytes = kn_round_up(s->n, 64) * 4; /* a new row has its pad */
	if (c->variant == 1) {
		s->index_host = op_need(c->rows * sizeof *s->index_host);
		for (size_t r = 0; r < c->rows; r++)
			s->index_host[r] = (uint32_t)(r * 5 % (c->rows - 1));
		s->index = op_upload(queue, s->index_host, c->rows * sizeof *s->index);
	}
	return &s->state;
}

static void rmsnorm_run(struct op_state *state, size_t first, size_t rows)
{
	struct rows *s = (struct rows *)state;
	const struct op_case *c = state->c;
	float *out = (float *)state->device_output + first * s->ld;

	if (c->flag) /* in place */
		rows_restore(s, first, rows);
	state->queue->ops->rmsnorm(state->queue,
		&(struct kn_rmsnorm){
			.x = c->flag       ? out
				: s->index ? s->x
					   : s->x + first * s->ld,
			.ldx = s->ld,
			.index = s->index ? s->index + first : NULL,
			.rows = rows,
			.parts = s->n / c->n,
			.n = c->n,
			.weight = s->other,
			.epsilon = 1e-6f,
			.out = out,
			.ldo = s->ld,
		});
}

/* The sum of squares has n / 16 + 4 roundings and no cancellation; its root halves that; then a
 * division, a root and two products. */
static double rmsnorm_error(const struct op_state *state, const void *output)
{
	const struct rows *s = (const struct rows *)state;
	const struct op_case *c = state->c;
	double worst = 0, relative = (double)(c->n / 16 + 16) * 0x1p-24;

	for (size_t i = 0; i < c->rows * (s->n / c->n); i++) {
		size_t row = i / (s->n / c->n), part = i % (s->n / c->n) * c->n;
		const float *x = s->x_host + (s->index_host ? s->index_host[row] : row) * s->ld + part,
			    *y = (const float *)output + row * s->ld + part;
		double squares = 0;
		for (size_t k = 0; k < c->n; k++)
			squares += (double)x[k] * (double)x[k];
		double scale = 1 / sqrt(squares / (double)c->n + 1e-6);
		for (size_t k = 0; k < c->n; k++) {
			double exact = (double)x[k] * scale * (double)s->other_host[k];
			worst = fmax(worst, fabs((double)y[k] - exact) / (relative * fabs(exact) + 0x1p-140));
		}
	}

	return worst;
}

static double rows_flops(const struct op_case *c) { return 4.0 * (double)c->rows * (double)case_elements(c); }
static double rows_bytes(const struct op_case *c) { return 8.0 * (double)c->rows * (double)case_elements(c); }

const struct op_kind op_rmsnorm = { "rmsnorm", rmsnorm_setup, rmsnorm_run, rmsnorm_error, rows_teardown, rows_flops,
	rows_bytes };

/* ---- add ---- */

static struct op_state *add_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct rows *s = rows_setup(queue, c, c->n, &seed);
	s->other = op_rows(queue, c->rows, c->n, &seed, c->data, 1.0f, &s->other_host);
	s->other_bytes = c->rows * s->ld * 4;
	s->scale = c->flag ? 0.22f : 1.0f;
	return &s->state;
}

static void add_run(struct op_state *state, size_t first, size_t rows)
{
	struct rows *s = (struct rows *)state;
	rows_restore(s, first, rows);
	state->queue->ops->add(state->queue,
		&(struct kn_add){
			.x = (float *)state->device_output + first * s->ld,
			.y = s->other + first * s->ld,
			.ldx = s->ld,
			.ldy = s->ld,
			.rows = rows,
			.n = s->n,
			.scale = s->scale,
		});
}

/* two roundings */
static double add_error(const struct op_state *state, const void *output)
{
	const struct rows *s = (const struct rows *)state;
	double worst = 0;

	for (size_t r = 0; r < state->rows; r++)
		for (size_t i = 0; i < s->n; i++) {
			double x = (double)s->x_host[r * s->ld + i],
			       y = (double)s->scale * (double)s->other_host[r * s->ld + i];
			double got = (double)((const float *)output)[r * s->ld + i];
			worst = fmax(worst, fabs(got - (x + y)) / (0x1p-24 * (fabs(x) + 2 * fabs(y)) + 0x1p-148));
		}
	return worst;
}

const struct op_kind op_add = { "add", add_setup, add_run, add_error, rows_teardown, rows_flops, rows_bytes };

/* ---- scale_rows ---- */

static struct op_state *scale_rows_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct rows *s = rows_setup(queue, c, c->n, &seed);
	s->other = op_rows(queue, 1, c->rows, &seed, c->data, 1.0f, &s->other_host);
	s->other_bytes = kn_ld(c->rows) * 4;
	return &s->state;
}

static void scale_rows_run(struct op_state *state, size_t first, size_t rows)
{
	struct rows *s = (struct rows *)state;
	rows_restore(s, first, rows);
	state->queue->ops->scale_rows(state->queue,
		&(struct kn_scale_rows){
			.x = (float *)state->device_output + first * s->ld,
			.ldx = s->ld,
			.rows = rows,
			.n = s->n,
			.scale = s->other + first,
		});
}

/* One rounding. */
static double scale_rows_error(const struct op_state *state, const void *output)
{
	const struct rows *s = (const struct rows *)state;
	double worst = 0;

	for (size_t r = 0; r < state->rows; r++)
		for (size_t i = 0; i < s->n; i++) {
			double exact = (double)s->x_host[r * s->ld + i] * (double)s->other_host[r];
			double got = (double)((const float *)output)[r * s->ld + i];
			worst = fmax(worst, fabs(got - exact) / (0x1p-24 * fabs(exact) + 0x1p-149));
		}
	return worst;
}

const struct op_kind op_scale_rows = { "scale_rows", scale_rows_setup, scale_rows_run, scale_rows_error, rows_teardown,
	rows_flops, rows_bytes };

/* ---- rope: n is the head size, k the rotated part; variant 1 is interleaved ---- */

static struct op_state *rope_table_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct rows *s = rows_setup(queue, c, c->k, &seed);
	s->state.stride_bytes = s->state.compare_bytes = c->k * 4;
	s->positions_host = op_need(c->rows * sizeof *s->positions_host);
	for (size_t r = 0; r < c->rows; r++)
		s->positions_host[r] = (int32_t)(r < 4 ? r : (r * 2654435761u) % (1u << (8 + r % 23)));
	s->positions = op_upload(queue, s->positions_host, c->rows * sizeof *s->positions);
	s->other_host = op_need(c->k * sizeof *s->other_host);
	for (size_t i = 0; i < c->k / 2; i++)
		s->other_host[i] = (float)pow(10000.0, -2.0 * (double)i / (double)c->k);
	s->other_bytes = c->k * sizeof *s->other;
	s->other = op_upload(queue, s->other_host, s->other_bytes);

	return &s->state;
}

static void rope_table_run(struct op_state *state, size_t first, size_t rows)
{
	struct rows *s = (struct rows *)state;
	state->queue->ops->rope_table(state->queue,
		&(struct kn_rope_table){
			.positions = s->positions + first,
			.rows = rows,
			.inv_freq = s->other,
			.size = s->n,
			.attention_factor = state->c->limit,
			.out = (float *)state->device_output + first * s->n,
		});
}

/* Correctly rounded cosines and sines of the f32 angle, then one more rounding by the factor: half
 * an ulp each, and a hair for ties. */
static double rope_table_error(const struct op_state *state, const void *output)
{
	const struct rows *s = (const struct rows *)state;
	double worst = 0, factor = (double)state->c->limit;

	for (size_t r = 0; r < state->rows; r++)
		for (size_t i = 0; i < s->n; i++) {
			float angle = (float)s->positions_host[r] * s->other_host[i % (s->n / 2)];
			double trig = i < s->n / 2 ? cos((double)angle) : sin((double)angle),
			       got = (double)((const float *)output)[r * s->n + i];
			worst = fmax(worst,
				fabs(got - trig * factor) /
					(fabs(trig * factor) * 0x1p-24 * (factor == 1 ? 1.00001 : 2.00001) + 0x1p-148));
		}
	return worst;
}

const struct op_kind op_rope_table = { "rope_table", rope_table_setup, rope_table_run, rope_table_error, rows_teardown,
	rows_flops, rows_bytes };

static struct op_state *rope_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct rows *s = rows_setup(queue, c, c->heads * c->n, &seed);
	s->other_host = op_need(c->rows * c->k * sizeof *s->other_host);
	for (size_t r = 0; r < c->rows; r++)
		for (size_t i = 0; i < c->k / 2; i++) {
			double angle = (double)(r * 17) * pow(10000.0, -2.0 * (double)i / (double)c->k);
			s->other_host[r * c->k + i] = (float)cos(angle);
			s->other_host[r * c->k + c->k / 2 + i] = (float)sin(angle);
		}
	s->other_bytes = c->rows * c->k * sizeof *s->other;
	s->other = op_upload(queue, s->other_host, s->other_bytes);
	return &s->state;
}

static void rope_run(struct op_state *state, size_t first, size_t rows)
{
	struct rows *s = (struct rows *)state;
	const struct op_case *c = state->c;

	rows_restore(s, first, rows);
	state->queue->ops->rope(state->queue,
		&(struct kn_rope){
			.x = (float *)state->device_output + first * s->ld,
			.ldx = s->ld,
			.rows = rows,
			.heads = c->heads,
			.head_size = c->n,
			.size = c->k,
			.interleaved = c->flag,
			.table = s->other + first * c->k,
		});
}

/* Two roundings of terms that are at most |a| + |b|; what is not rotated stays. */
static double rope_error(const struct op_state *state, const void *output)
{
	const struct rows *s = (const struct rows *)state;
	const struct op_case *c = state->c;
	double worst = 0;

	for (size_t i = 0; i < c->rows * c->heads; i++) {
		size_t at = i / c->heads * s->ld + i % c->heads * c->n;
		const float *x = s->x_host + at, *y = (const float *)output + at,
			    *table = s->other_host + i / c->heads * c->k;
		for (size_t j = 0; j < c->k / 2; j++) {
			size_t first = c->flag ? 2 * j : j, second = c->flag ? 2 * j + 1 : j + c->k / 2;
			double a = (double)x[first], b = (double)x[second], cosine = (double)table[j],
			       sine = (double)table[c->k / 2 + j];
			double tolerance = 0x1p-23 * (fabs(a) + fabs(b)) + 0x1p-148;
			worst = fmax(worst, fabs((double)y[first] - (a * cosine - b * sine)) / tolerance);
			worst = fmax(worst, fabs((double)y[second] - (b * cosine + a * sine)) / tolerance);
		}
		if (memcmp(x + c->k, y + c->k, (c->n - c->k) * sizeof *x) != 0)
			return INFINITY;
	}

	return worst;
}

const struct op_kind op_rope = { "rope", rope_setup, rope_run, rope_error, rows_teardown, rows_flops, rows_bytes };
