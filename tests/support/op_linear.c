/* SPDX-License-Identifier: Apache-2.0 */
/* linear (variant 1: divided), linear_heads (parts: the tail) and embed (flag: multiplied) */
#include "kernels/quantise.h"
#include "tests/support/op_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct linear {
	struct op_state state;
	struct kn_source source;
	struct kn_matrix w;
	size_t ldx, ldy;
	float *x, *x_host, *bias, *bias_host;
};

static struct op_state *linear_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct linear *s = op_need(sizeof *s);
	s->ldx = kn_ld(c->k);
	s->ldy = kn_ld(c->n);
	s->source = op_source(c->n, c->k, c->dtype, &seed, c->data, 1.0f);
	CAD_ASSERT(queue->ops->matrix_create(queue->device, &s->source, c->weights, &s->w) == CAD_OK);
	s->x = op_rows(queue, c->rows, c->k, &seed, c->data, 1.0f, &s->x_host);
	for (size_t r = 1; r < c->rows && c->flag; r += 3) /* such rows are all NaN, and no others */
		s->x_host[r * s->ldx + r * 7 % c->k] = r % 2 ? NAN : -INFINITY;
	if (c->flag)
		queue->ops->copy_in(queue, s->x, s->x_host, c->rows * s->ldx * 4);
	CAD_ASSERT(queue->ops->wait(queue) == CAD_OK);

	if (c->bias) { /* exactly [n]: what stands after it is none of the operator's business */
		s->bias_host = op_need(s->ldy * 4);
		op_fill(s->bias_host, c->n, &seed, c->data, 1.0f);
		for (size_t i = c->n; i < s->ldy; i++)
			s->bias_host[i] = NAN;
		s->bias = op_upload(queue, s->bias_host, s->ldy * 4);
	}

	s->state = (struct op_state){ c, queue, c->rows, s->ldy * 4, kn_round_up(c->n, 64) * 4,
		op_alloc(queue, c->rows * s->ldy * 4), NULL };
	return &s->state;
}

static void linear_run(struct op_state *state, size_t first, size_t rows)
{
	struct linear *s = (struct linear *)state;
	state->queue->ops->linear(state->queue,
		&(struct kn_linear){
			.x = s->x + first * s->ldx,
			.ldx = s->ldx,
			.rows = rows,
			.w = &s->w,
			.bias = s->bias,
			.divisor = state->c->variant == 1 ? 6 : 0,
			.clip = state->c->limit,
			.y = (float *)state->device_output + first * s->ldy,
			.ldy = s->ldy,
		});
}

/* Row r of y beside x[k] and w[n][k] in float64; the largest error over the tolerance. */
static double row_error(
	const struct linear *s, const struct op_case *c, const float *x, const struct kn_source *w, const float *y)
{
	double worst = 0, smallest = c->weights == CAD_WEIGHTS_BF16_ROWS ? 0x1p-125 : 0x1p-149,
	       relative = (double)(c->k + 1) * 0x1p-23 +
		(c->weights == CAD_WEIGHTS_BF16 && c->dtype != CAD_DTYPE_BF16 ? 0x1p-8 : 0);

	for (size_t n = 0; n < c->n; n++) {
		double exact = c->bias ? (double)s->bias_host[n] : 0, magnitude = fabs(exact);
		for (size_t k = 0; k < c->k; k++) {
			double product = (double)x[k] * (double)op_source_f32(w, n * c->k + k);
			exact += product;
			magnitude += fabs(product);
		}
		if (c->variant == 1) {
			exact /= 6;
			magnitude /= 6;
		}
		if (c->limit > 0)
			exact = fmax(fmin(exact, (double)c->limit), -(double)c->limit);
		worst = fmax(worst, fabs((double)y[n] - exact) / (relative * magnitude + (double)c->k * smallest));
		if (isnan(y[n]))
			return INFINITY;
	}
	for (size_t n = c->n; n < kn_round_up(c->n, 64); n++)
		if (y[n] != 0.0f)
			return INFINITY;
	return worst;
}

/* Each of the k steps of the chain rounds a sum that is at most the sum of magnitudes, by half an
 * ulp (2^-24) or half the smallest number; the bias is one more step; a factor 2 for good measure.
 * Weights that were rounded to bf16 are off by 2^-9 each; where rows are quantised or rounded too,
 * both are compared as that left them. Quantised ones have fewer steps; in profile bf16 each
 * product and each sum may lose what is below 2^-126. The pad of a row must be zero. */
static double linear_error(const struct op_state *state, const void *output)
{
	const struct linear *s = (const struct linear *)state;
	const struct op_case *c = state->c;
	struct kn_source w = op_kept(&s->source, c->weights);
	float *x = op_need(c->k * sizeof *x);
	double worst = 0;

	for (size_t r = 0; r < c->rows; r++) {
		const float *y = (const float *)output + r * s->ldy;
		memcpy(x, s->x_host + r * s->ldx, c->k * sizeof *x);
		op_row_kept(x, c->k, c->weights);
		if (!(c->flag && r % 3 == 1)) {
			worst = fmax(worst, row_error(s, c, x, &w, y));
			continue;
		}
		for (size_t n = 0; n < c->n; n++)
			worst = isnan(y[n]) ? worst : INFINITY;
	}
	free((void *)w.data);
	free(x);

	return worst;
}

static void linear_teardown(struct op_state *state)
{
	struct linear *s = (struct linear *)state;
	const struct kn_ops *ops = state->queue->ops;
	struct kn_device *device = state->queue->device;

	ops->matrix_destroy(device, &s->w);
	ops->release(device, s->x, state->rows * s->ldx * 4);
	ops->release(device, state->device_output, state->rows * s->ldy * 4);
	if (s->bias)
		ops->release(device, s->bias, s->ldy * 4);
	free((void *)s->source.data);
	free(s->x_host);
	free(s->bias_host);
	free(s);
}

static double linear_flops(const struct op_case *c) { return 2.0 * (double)c->rows * (double)c->n * (double)c->k; }
static double linear_bytes(const struct op_case *c) { return op_weight_bytes(c) * (double)c->n * (double)c->k; }

const struct op_kind op_linear = { "linear", linear_setup, linear_run, linear_error, linear_teardown, linear_flops,
	linear_bytes };

struct heads {
	struct op_state state;
	struct kn_source *sources; /* [heads] */
	struct kn_matrix *w;
	size_t ldx, ldy;
	float *x, *x_host;
};

static struct op_state *heads_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct heads *s = op_need(sizeof *s);
	s->ldx = kn_ld(c->heads * (c->k + c->parts));
	s->ldy = kn_ld(c->heads * (c->n + c->parts));
	s->sources = op_need(c->heads * sizeof *s->sources);
	s->w = op_need(c->heads * sizeof *s->w);
	for (size_t h = 0; h < c->heads; h++) {
		s->sources[h] = op_source(c->n, c->k, c->dtype, &seed, c->data, 1.0f);
		CAD_ASSERT(queue->ops->matrix_create(queue->device, &s->sources[h], c->weights, &s->w[h]) == CAD_OK);
	}
	s->x = op_rows(queue, c->rows, c->heads * (c->k + c->parts), &seed, c->data, 1.0f, &s->x_host);
	if (c->flag) { /* what is not finite stays with its head */
		s->x_host[c->k] = INFINITY;
		queue->ops->copy_in(queue, s->x, s->x_host, c->rows * s->ldx * 4);
		CAD_ASSERT(queue->ops->wait(queue) == CAD_OK);
	}
	s->state = (struct op_state){ c, queue, c->rows, s->ldy * 4, kn_round_up(c->heads * (c->n + c->parts), 64) * 4,
		op_alloc(queue, c->rows * s->ldy * 4), NULL };
	return &s->state;
}

static void heads_run(struct op_state *state, size_t first, size_t rows)
{
	struct heads *s = (struct heads *)state;
	state->queue->ops->linear_heads(state->queue,
		&(struct kn_linear_heads){
			.x = s->x + first * s->ldx,
			.ldx = s->ldx,
			.rows = rows,
			.heads = state->c->heads,
			.tail = state->c->parts,
			.w = s->w,
			.y = (float *)state->device_output + first * s->ldy,
			.ldy = s->ldy,
		});
}

/* Bits as the comment says, and near float64, as linear; zeros where the row ends. */
static double heads_error(const struct op_state *state, const void *output)
{
	const struct heads *s = (const struct heads *)state;
	const struct op_case *c = state->c;
	double worst = 0;

	for (size_t r = 0; r < c->rows; r++) {
		const float *y = (const float *)output + r * s->ldy;
		for (size_t h = 0; h < c->heads; h++, y += c->n + c->parts) {
			const float *x = s->x_host + r * s->ldx + h * (c->k + c->parts);
			for (size_t n = 0; n < c->n; n++) {
				float chain = 0;
				double exact = 0, magnitude = 0;
				for (size_t k = 0; k < kn_round_up(c->k, 32); k++) {
					float w = k < c->k ? op_source_f32(&s->sources[h], n * c->k + k) : 0;
					chain = fmaf(k < c->k ? x[k] : 0, w, chain);
					exact += k < c->k ? (double)x[k] * (double)w : 0;
					magnitude += k < c->k ? fabs((double)x[k] * (double)w) : 0;
				}
				if (c->weights == CAD_WEIGHTS_AS_IS && y[n] != chain)
					return INFINITY;
				worst = fmax(worst,
					fabs((double)y[n] - exact) /
						((double)(c->k + 1) * 0x1p-23 * magnitude + (double)c->k * 0x1p-149));
			}
			if (memcmp(y + c->n, x + c->k, c->parts * sizeof *y) != 0)
				return INFINITY;
		}
		for (size_t i = c->heads * (c->n + c->parts); i % 64 != 0; i++, y++)
			if (*y != 0.0f)
				return INFINITY;
	}
	return worst;
}

static void heads_teardown(struct op_state *state)
{
	struct heads *s = (struct heads *)state;
	const struct kn_ops *ops = state->queue->ops;
	struct kn_device *device = state->queue->device;

	for (size_t h = 0; h < state->c->heads; h++) {
		ops->matrix_destroy(device, &s->w[h]);
		free((void *)s->sources[h].data);
	}
	ops->release(device, s->x, state->rows * s->ldx * 4);
	ops->release(device, state->device_output, state->rows * s->ldy * 4);
	free(s->sources);
	free(s->w);
	free(s->x_host);
	free(s);
}

static double heads_flops(const struct op_case *c) { return linear_flops(c) * (double)c->heads; }
static double heads_bytes(const struct op_case *c) { return linear_bytes(c) * (double)c->heads; }

const struct op_kind op_linear_heads = { "linear_heads", heads_setup, heads_run, heads_error, heads_teardown,
	heads_flops, heads_bytes };

struct embed {
	struct op_state state;
	struct kn_source source;
	struct kn_table table;
	int32_t *ids, *ids_host;
	size_t ld;
};

static struct op_state *embed_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct embed *s = op_need(sizeof *s);
	s->ld = kn_ld(c->k);
	s->source = op_source(c->n, c->k, c->dtype, &seed, c->data, 1.0f);
	CAD_ASSERT(queue->ops->table_create(queue->device, &s->source, c->weights, &s->table) == CAD_OK);
	s->ids_host = op_need(c->rows * sizeof *s->ids_host);
	for (size_t r = 0; r < c->rows; r++)
		s->ids_host[r] = (int32_t)(r == 0 ? c->n - 1 : (r * 7) % c->n);
	s->ids = op_upload(queue, s->ids_host, c->rows * sizeof *s->ids);
	s->state = (struct op_state){ c, queue, c->rows, s->ld * 4, kn_round_up(c->k, 64) * 4,
		op_alloc(queue, c->rows * s->ld * 4), NULL };
	return &s->state;
}

static void embed_run(struct op_state *state, size_t first, size_t rows)
{
	struct embed *s = (struct embed *)state;
	state->queue->ops->embed(state->queue,
		&(struct kn_embed){
			.table = &s->table,
			.ids = s->ids + first,
			.rows = rows,
			.scale = state->c->flag ? 12 : 1,
			.x = (float *)state->device_output + first * s->ld,
			.ldx = s->ld,
		});
}

/* Exact, but where the table was rounded to bf16: half a step of 8 bits. The pad must be zero. */
static double embed_error(const struct op_state *state, const void *output)
{
	const struct embed *s = (const struct embed *)state;
	const struct op_case *c = state->c;
	bool rounded = c->weights == CAD_WEIGHTS_BF16 && c->dtype != CAD_DTYPE_BF16;
	double worst = 0;

	for (size_t r = 0; r < c->rows; r++)
		for (size_t i = 0; i < kn_round_up(c->k, 64); i++) {
			float got = ((const float *)output)[r * s->ld + i],
			      exact = i < c->k ? op_source_f32(&s->source, (size_t)s->ids_host[r] * c->k + i) : 0.0f;
			exact *= c->flag ? 12.0f : 1.0f;
			if (!(got == exact || (rounded && fabsf(got - exact) <= fabsf(exact) * 0x1p-8f)))
				return INFINITY;
		}
	return worst;
}

static void embed_teardown(struct op_state *state)
{
	struct embed *s = (struct embed *)state;
	const struct kn_ops *ops = state->queue->ops;

	ops->table_destroy(state->queue->device, &s->table);
	ops->release(state->queue->device, s->ids, state->rows * sizeof *s->ids);
	ops->release(state->queue->device, state->device_output, state->rows * s->ld * 4);
	free((void *)s->source.data);
	free(s->ids_host);
	free(s);
}

static double no_flops(const struct op_case *c)
{
	(void)c;
	return 0;
}
static double embed_bytes(const struct op_case *c)
{
	return (double)c->rows * (double)c->k * (double)cad_dtype_bytes(c->dtype);
}

const struct op_kind op_embed = { "embed", embed_setup, embed_run, embed_error, embed_teardown, no_flops, embed_bytes };
