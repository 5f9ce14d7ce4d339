/* SPDX-License-Identifier: Apache-2.0 */
/* Grouped expert ffn: c->rows tokens, each to c->topk of c->experts; n is F, k is H. Output rows
 * are pairs; or, of op_ffn_sums, tokens. */
#include "common/base/clock.h"
#include "kernels/quantise.h"
#include "tests/support/op_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GATE, UP, DOWN, GATE_BIAS, UP_BIAS, DOWN_BIAS, SOURCES };

struct ffn {
	struct op_state state;
	struct expert {
		struct kn_source source[SOURCES];
		struct kn_expert packed;
	} * experts;
	const struct kn_expert **pointers;
	uint32_t *begin, *part_begin;         /* [experts + 1] */
	uint32_t *row_index, *row_index_host; /* [pairs] */
	float *x, *x_host;
	size_t ldx, ldy, pairs, scratch_bytes;
	void *scratch;
	float *weight, *weight_host; /* [pairs], of experts that weigh their input; else NULL */
	struct sums {
		float *weight, *weight_host;        /* [pairs], as the part's below */
		uint32_t *row_index, *row, *expert; /* the first is the device's */
		float *part_weight;
		int64_t *sums, *sums_host;      /* [rows][k] */
		uint32_t *poison, *poison_host; /* [rows] */
	} sums;
};

/* Tokens draw topk distinct experts; pairs are sorted by expert, tokens ascending within. */
static void route(struct ffn *s, const struct op_case *c, uint64_t *seed)
{
	struct cad_random random = { *seed };
	bool *taken = op_need(c->rows * c->experts);

	for (size_t t = 0; t < c->rows; t++)
		for (size_t i = 0; i < c->topk;) {
			size_t e = cad_random_below(&random, c->experts);
			i += !taken[t * c->experts + e];
			taken[t * c->experts + e] = true;
		}
	uint32_t pairs = 0;
	for (size_t e = 0; e < c->experts; e++) {
		s->begin[e] = pairs;
		for (uint32_t t = 0; t < c->rows; t++)
			if (taken[t * c->experts + e])
				s->row_index_host[pairs++] = t;
	}

	s->begin[c->experts] = pairs;
	*seed = random.state;
	free(taken);
}

/* Scratch may hold anything: no operator reads of it what it has not written. */
static void *nans(struct kn_queue *queue, size_t bytes)
{
	uint8_t *host = op_need(bytes);
	memset(host, 0xff, bytes);
	void *scratch = op_upload(queue, host, bytes);
	free(host);
	return scratch;
}

static struct ffn *setup(struct kn_queue *queue, const struct op_case *c, bool sums, uint64_t seed)
{
	struct ffn *s = op_need(sizeof *s);
	size_t pairs = c->rows * c->topk;
	struct cad_ffn_spec spec = { (uint32_t)c->n, c->activation, c->limit, c->bias, c->weighs_input };
	float scale_in = 1.0f / sqrtf((float)c->k), scale_out = 1.0f / sqrtf((float)c->n);

	s->experts = op_need(c->experts * sizeof *s->experts);
	s->pointers = op_need(c->experts * sizeof *s->pointers);

	for (size_t e = 0; e < c->experts; e++) {
		struct expert *x = &s->experts[e];
		x->source[GATE] = op_source(c->n, c->k, op_dtype_of(c, e, GATE), &seed, c->data, scale_in);
		x->source[UP] = op_source(c->n, c->k, op_dtype_of(c, e, UP), &seed, c->data, scale_in);
		x->source[DOWN] = op_source(c->k, c->n, op_dtype_of(c, e, DOWN), &seed, c->data, scale_out);
		for (size_t i = GATE_BIAS; c->bias && i < SOURCES; i++)
			x->source[i] = op_source(
				i == DOWN_BIAS ? c->k : c->n, 1, op_dtype_of(c, e, GATE), &seed, c->data, 1.0f);
		const struct kn_expert_source source = { x->source[GATE], x->source[UP], x->source[DOWN],
			x->source[GATE_BIAS], x->source[UP_BIAS], x->source[DOWN_BIAS], &spec };
		CAD_ASSERT(queue->ops->expert_create(queue->device, &source, c->weights, &x->packed) == CAD_OK);
		CAD_ASSERT(queue->ops->expert_bytes(queue->device, &source, c->weights) == x->packed.bytes);
		s->pointers[e] = &x->packed;
	}

	s->begin = op_need((c->experts + 1) * sizeof *s->begin);
	s->part_begin = op_need((c->experts + 1) * sizeof *s->begin);
	s->row_index_host = op_need(pairs * sizeof *s->row_index);
	route(s, c, &seed);
	s->row_index = op_upload(queue, s->row_index_host, pairs * sizeof *s->row_index);
	s->ldx = s->ldy = kn_ld(c->k);
	s->x = op_rows(queue, c->rows, c->k, &seed, c->data, 1.0f, &s->x_host);
	s->pairs = pairs;
	s->scratch_bytes = queue->ops->ffn_scratch_bytes(queue, pairs, c->k, c->n, sums);
	s->scratch = nans(queue, s->scratch_bytes);
	s->state = (struct op_state){ c, queue, pairs, s->ldy * 4, kn_round_up(c->k, 64) * 4,
		op_alloc(queue, pairs * s->ldy * 4), NULL };
	if (c->weighs_input) {
		s->weight_host = op_need(pairs * sizeof *s->weight_host);
		op_fill(s->weight_host, pairs, &seed, OP_DATA_BELL, 1.0f);
		s->weight = op_upload(queue, s->weight_host, pairs * sizeof *s->weight);
	}

	return s;
}

static struct op_state *ffn_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	return &setup(queue, c, false, seed)->state;
}

static uint32_t clamp(uint32_t v, size_t first, size_t rows)
{
	return v <= first ? 0 : v - first < rows ? (uint32_t)(v - first) : (uint32_t)rows;
}

static void ffn_run(struct op_state *state, size_t first, size_t rows)
{
	struct ffn *s = (struct ffn *)state;
	for (size_t e = 0; e <= state->c->experts; e++)
		s->part_begin[e] = clamp(s->begin[e], first, rows);
	state->queue->ops->ffn(state->queue,
		&(struct kn_ffn){
			.experts = s->pointers,
			.experts_count = state->c->experts,
			.begin = s->part_begin,
			.row_index = s->row_index + first,
			.x = s->x,
			.ldx = s->ldx,
			.rows = state->c->rows,
			.hidden = state->c->k,
			.y = (float *)state->device_output + first * s->ldy,
			.ldy = s->ldy,
			.weight = s->weight ? s->weight + first : NULL,
			.scratch = s->scratch,
		});
}

struct bounded {
	double value, error; /* float64, and how far f32 may be off */
};

/* sum of x[i] w[row][i] + bias, where x is off by x_error: every step of the chain rounds by half
 * an ulp of at most the sum of magnitudes; profile bf16 may lose what is below 2^-126 */
static struct bounded dot(const struct bounded *x, size_t n, const struct kn_source *w, size_t row,
	const struct kn_source *bias, double relative)
{
	double exact = bias->data ? (double)op_source_f32(bias, row) : 0, magnitude = fabs(exact), carried = 0;
	for (size_t i = 0; i < n; i++) {
		double weight = (double)op_source_f32(w, row * n + i);
		exact += x[i].value * weight;
		magnitude += fabs(x[i].value * weight);
		carried += x[i].error * fabs(weight);
	}
	return (struct bounded){ exact, carried + relative * magnitude + (double)n * 0x1p-125 };
}

/* What an expert that weighs its input makes of a dot product: one product more, before the bias. */
static struct bounded weighed(const struct ffn *s, uint32_t p, struct bounded v, const struct kn_source *bias, size_t f)
{
	if (!s->weight)
		return v;
	double weight = (double)s->weight_host[p], added = bias->data ? (double)op_source_f32(bias, f) : 0;
	v.value = weight * v.value + added;
	v.error = fabs(weight) * v.error + 0x1p-23 * (fabs(v.value) + fabs(added)) + 0x1p-140;
	return v;
}

/* g sigmoid(a g) has a slope of at most 1.1; exp, sum, division and product add some ulps to it. */
static struct bounded activate(const struct op_case *c, struct bounded g, struct bounded u)
{
	bool clamped = c->activation == CAD_ACTIVATION_SWIGLU_CLAMPED;
	double limit = (double)c->limit;

	if (clamped) {
		g.value = fmin(g.value, limit);
		u.value = fmax(fmin(u.value, limit), -limit) + 1;
	}
	double silu = g.value / (1 + exp((clamped ? -1.702 : -1.0) * g.value));
	double ulps = 0x1p-19 * fabs(silu * u.value);
	return (struct bounded){ silu * u.value, 1.1 * g.error * fabs(u.value) + fabs(silu) * u.error + ulps };
}

/* h as it goes on: quantised values are off by half a scale more, and by a whole one where the
 * error of f32 moves one over the middle. */
static void quantise_bounds(struct bounded *h, size_t n)
{
	for (size_t begin = 0; begin < n; begin += KN_GROUP) {
		size_t end = n - begin < KN_GROUP ? n : begin + KN_GROUP;
		double most = 0;
		for (size_t i = begin; i < end; i++)
			most = fmax(most, fabs(h[i].value) + h[i].error);
		for (size_t i = begin; i < end; i++)
			h[i].error += most * 1.001 / KN_RANGE_INT8 + 0x1p-100;
	}
}

/* The largest error of pair p over its tolerance; kept: the expert's matrices. */
static double pair_error(const struct ffn *s, const struct op_case *c, uint32_t p, const struct kn_source *kept,
	const struct kn_source *source, const float *y)
{
	struct bounded *x = op_need(c->k * sizeof *x), *h = op_need(c->n * sizeof *h);
	float *row = op_need(c->k * sizeof *row);
	double worst = 0, rounded = c->weights == CAD_WEIGHTS_BF16 && c->dtype != CAD_DTYPE_BF16 ? 0x1p-8 : 0;

	memcpy(row, s->x_host + s->row_index_host[p] * s->ldx, c->k * sizeof *row);
	op_row_kept(row, c->k, c->weights);
	for (size_t i = 0; i < c->k; i++)
		x[i] = (struct bounded){ (double)row[i], 0 };
	const struct kn_source none = { 0 }, *gate_bias = &source[GATE_BIAS], *up_bias = &source[UP_BIAS];
	double relative = (double)c->k * 0x1p-23 + rounded;
	for (size_t f = 0; f < c->n; f++) {
		struct bounded g = dot(x, c->k, &kept[GATE], f, s->weight ? &none : gate_bias, relative),
			       u = dot(x, c->k, &kept[UP], f, s->weight ? &none : up_bias, relative);
		h[f] = activate(c, weighed(s, p, g, gate_bias, f), weighed(s, p, u, up_bias, f));
	}
	if (cad_weights_quantised(c->weights))
		quantise_bounds(h, c->n);
	bool rows_are_rounded = c->weights == CAD_WEIGHTS_BF16_ROWS || c->weights == CAD_WEIGHTS_BF16_SM90;
	for (size_t f = 0; f < c->n && rows_are_rounded; f++)
		h[f].error += 0x1p-8 * (fabs(h[f].value) + h[f].error); /* a step of bf16, likewise */
	for (size_t i = 0; i < kn_round_up(c->k, 64); i++) {
		struct bounded exact = i < c->k
			? dot(h, c->n, &kept[DOWN], i, &source[DOWN_BIAS], (double)c->n * 0x1p-23 + rounded)
			: (struct bounded){ 0 };
		double off = fabs((double)y[i] - exact.value);
		worst = isnan(y[i]) || (i >= c->k && y[i] != 0.0f) ? INFINITY
			: off > 0                                  ? fmax(worst, off / exact.error)
								   : worst;
	}
	free(x);
	free(h);
	free(row);

	return worst;
}

/* Rounding bounds carried through float64: see dot, activate and quantise_bounds. Where rows
 * are quantised or rounded, they and the weights are compared as that left them. */
static double ffn_error(const struct op_state *state, const void *output)
{
	const struct ffn *s = (const struct ffn *)state;
	double worst = 0;

	for (size_t e = 0; e < state->c->experts; e++) {
		const struct kn_source *source = s->experts[e].source;
		struct kn_source kept[DOWN + 1];
		for (size_t i = 0; i <= DOWN; i++)
			kept[i] = op_kept(&source[i], state->c->weights);
		for (uint32_t p = s->begin[e]; p < s->begin[e + 1]; p++)
			worst = fmax(
				worst, pair_error(s, state->c, p, kept, source, (const float *)output + p * s->ldy));
		for (size_t i = 0; i <= DOWN; i++)
			free((void *)kept[i].data);
	}

	return worst;
}

static void ffn_teardown(struct op_state *state)
{
	struct ffn *s = (struct ffn *)state;
	const struct kn_ops *ops = state->queue->ops;
	struct kn_device *device = state->queue->device;

	for (size_t e = 0; e < state->c->experts; e++) {
		ops->expert_destroy(device, &s->experts[e].packed);
		for (size_t i = 0; i < SOURCES; i++)
			free((void *)s->experts[e].source[i].data);
	}

	ops->release(device, s->row_index, s->pairs * sizeof *s->row_index);
	ops->release(device, s->x, state->c->rows * s->ldx * 4);
	ops->release(device, s->scratch, s->scratch_bytes);
	if (s->weight)
		ops->release(device, s->weight, s->pairs * sizeof *s->weight);
	free(s->weight_host);
	ops->release(device, state->device_output, s->pairs * s->ldy * 4);
	free(s->row_index_host);
	free(s->x_host);
	free(s->begin);
	free(s->part_begin);
	free(s->pointers);
	free(s->experts);
	free(s);
}

static double ffn_flops(const struct op_case *c)
{
	return 6.0 * (double)(c->rows * c->topk) * (double)c->n * (double)c->k;
}

/* Weights of the experts that an even routing meets: E (1 - (1 - K/E)^T) */
static double ffn_bytes(const struct op_case *c)
{
	double met = (double)c->experts * (1 - pow(1 - (double)c->topk / (double)c->experts, (double)c->rows));
	return met * 3.0 * (double)c->n * (double)c->k * op_weight_bytes(c);
}

const struct op_kind op_ffn = { "ffn", ffn_setup, ffn_run, ffn_error, ffn_teardown, ffn_flops, ffn_bytes };

/* ---- sums; flag poisons some rows ---- */

enum { QUANTUM_EXPONENT = -14 };

static float pair_weight(const struct op_case *c, uint64_t *seed, size_t p)
{
	float bell = op_value(seed, OP_DATA_BELL) * exp2f((float)(p % 5) * 9); /* all widths */
	if (!c->flag)
		return bell;
	switch (p % 11) {
	case 2: return NAN;
	case 5: return INFINITY;
	case 8: return 0x1p+40f; /* too large for some elements */
	default: return bell;
	}
}

/* Output row: sums, and the expert that poisons the row, or UINT32_MAX. */
static struct op_state *ffn_sums_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct ffn *s = setup(queue, c, true, seed);
	struct sums *u = &s->sums;

	u->weight_host = op_need(s->pairs * sizeof *u->weight);
	for (size_t p = 0; p < s->pairs; p++)
		u->weight_host[p] = s->weight ? s->weight_host[p] : pair_weight(c, &seed, p);
	u->weight = op_alloc(queue, s->pairs * sizeof *u->weight);
	u->row_index = op_alloc(queue, s->pairs * sizeof *u->row_index);
	u->sums = op_alloc(queue, c->rows * c->k * sizeof *u->sums);
	u->poison = op_alloc(queue, c->rows * sizeof *u->poison);
	u->part_weight = op_need(s->pairs * sizeof *u->part_weight);
	u->row = op_need(s->pairs * sizeof *u->row);
	u->expert = op_need(s->pairs * sizeof *u->expert);
	u->sums_host = op_need(c->rows * c->k * sizeof *u->sums);
	u->poison_host = op_need(c->rows * sizeof *u->poison);
	s->state.rows = c->rows;
	s->state.stride_bytes = s->state.compare_bytes = c->k * sizeof *u->sums + sizeof(uint64_t);
	s->state.host_output = op_need(c->rows * s->state.stride_bytes);

	return &s->state;
}

/* The pairs of tokens first .. first + rows - 1, in the same order. */
static void take_part(struct ffn *s, size_t first, size_t rows)
{
	struct sums *u = &s->sums;
	uint32_t pairs = 0;

	for (uint32_t e = 0; e < s->state.c->experts; e++) {
		s->part_begin[e] = pairs;
		for (uint32_t p = s->begin[e]; p < s->begin[e + 1]; p++) {
			if (s->row_index_host[p] < first || s->row_index_host[p] >= first + rows)
				continue;
			u->row[pairs] = s->row_index_host[p] - (uint32_t)first;
			u->part_weight[pairs] = u->weight_host[p];
			u->expert[pairs++] = e;
		}
	}
	s->part_begin[s->state.c->experts] = pairs;
}

static void ffn_sums_run(struct op_state *state, size_t first, size_t rows)
{
	struct ffn *s = (struct ffn *)state;
	struct sums *u = &s->sums;
	const struct kn_ops *ops = state->queue->ops;
	size_t k = state->c->k;

	take_part(s, first, rows);
	ops->copy_in(state->queue, u->row_index, u->row, s->part_begin[state->c->experts] * sizeof *u->row);
	ops->copy_in(state->queue, u->weight, u->part_weight, s->part_begin[state->c->experts] * sizeof *u->weight);
	ops->ffn(state->queue,
		&(struct kn_ffn){
			.experts = s->pointers,
			.experts_count = state->c->experts,
			.begin = s->part_begin,
			.row_index = u->row_index,
			.x = s->x + first * s->ldx,
			.ldx = s->ldx,
			.rows = rows,
			.hidden = k,
			.weight = u->weight,
			.quantum = ldexpf(1, QUANTUM_EXPONENT),
			.sums = u->sums + first * k,
			.poison = u->poison + first,
			.scratch = s->scratch,
		});
	ops->copy_out(state->queue, u->sums_host, u->sums + first * k, rows * k * sizeof *u->sums);
	ops->copy_out(state->queue, u->poison_host, u->poison + first, rows * sizeof *u->poison);
	CAD_ASSERT(ops->wait(state->queue) == CAD_OK);

	for (size_t i = 0; i < rows; i++) {
		uint8_t *out = (uint8_t *)state->host_output + (first + i) * state->stride_bytes;
		uint32_t pair = u->poison_host[i];
		memset(out, 0, state->stride_bytes);
		memcpy(out + k * sizeof *u->sums, pair == UINT32_MAX ? &pair : &u->expert[pair], sizeof pair);
		if (pair == UINT32_MAX)
			memcpy(out, u->sums_host + i * k, k * sizeof *u->sums);
	}
}

/* Adds a pair's element to its row; what has no integer names the expert, unless a lower one did. */
static void add_exactly(long double weighted, int64_t *sum, uint32_t *poison, uint32_t expert)
{
	long double q = rintl(weighted * exp2l(-QUANTUM_EXPONENT));
	if (fabsl(q) < 0x1p53L)
		*sum += (int64_t)q;
	else
		*poison = expert < *poison ? expert : *poison;
}

/* Exact, once y is given, which op_ffn looks at. */
static double ffn_sums_error(const struct op_state *state, const void *output)
{
	struct ffn *s = (struct ffn *)(uintptr_t)state;
	size_t k = state->c->k, y_bytes = s->pairs * s->ldy * sizeof(float);
	float *y = op_need(y_bytes);
	int64_t *sums = op_need(state->rows * k * sizeof *sums);
	uint32_t *poison = op_need(state->rows * sizeof *poison);
	bool good = true;

	ffn_run(&s->state, 0, s->pairs);
	state->queue->ops->copy_out(state->queue, y, state->device_output, y_bytes);
	CAD_ASSERT(state->queue->ops->wait(state->queue) == CAD_OK);
	memset(poison, 0xff, state->rows * sizeof *poison);
	for (uint32_t e = 0; e < state->c->experts; e++)
		for (uint32_t p = s->begin[e]; p < s->begin[e + 1]; p++)
			for (size_t i = 0; i < k; i++)
				add_exactly((s->weight ? 1 : (long double)s->sums.weight_host[p]) *
						(long double)y[p * s->ldy + i],
					&sums[s->row_index_host[p] * k + i], &poison[s->row_index_host[p]], e);
	for (size_t r = 0; r < state->rows; r++) {
		const uint8_t *row = (const uint8_t *)output + r * state->stride_bytes;
		good &= memcmp(row + k * sizeof *sums, &poison[r], sizeof *poison) == 0;
		good &= poison[r] != UINT32_MAX || memcmp(row, sums + r * k, k * sizeof *sums) == 0;
	}
	free(y);
	free(sums);
	free(poison);

	return good ? 0 : INFINITY;
}

static void ffn_sums_teardown(struct op_state *state)
{
	struct ffn *s = (struct ffn *)state;
	struct sums *u = &s->sums;
	const struct kn_ops *ops = state->queue->ops;
	struct kn_device *device = state->queue->device;
	void *const host[] = { state->host_output, u->weight_host, u->part_weight, u->row, u->expert, u->sums_host,
		u->poison_host };

	ops->release(device, u->weight, s->pairs * sizeof *u->weight);
	ops->release(device, u->row_index, s->pairs * sizeof *u->row_index);
	ops->release(device, u->sums, state->rows * state->c->k * sizeof *u->sums);
	ops->release(device, u->poison, state->rows * sizeof *u->poison);
	for (size_t i = 0; i < sizeof host / sizeof host[0]; i++)
		free(host[i]);
	ffn_teardown(state);
}

const struct op_kind op_ffn_sums = { "ffn_sums", ffn_sums_setup, ffn_sums_run, ffn_sums_error, ffn_sums_teardown,
	ffn_flops, ffn_bytes };
