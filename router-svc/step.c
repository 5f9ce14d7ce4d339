/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/step.h"

#include "router-svc/moe/combine.h"
#include "router-svc/moe/dispatch.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- the stages of a layer, for one micro-batch ---- */

static size_t ld_hidden(const struct rt_step *step) { return kn_ld(step->spec->hidden); }

static void norm(struct rt_step *step, const float *weight, const float *x, float *out, uint32_t rows)
{
	step->queue->ops->rmsnorm(step->queue,
		&(struct kn_rmsnorm){
			.x = x,
			.ldx = ld_hidden(step),
			.rows = rows,
			.parts = 1,
			.n = step->spec->hidden,
			.weight = weight,
			.epsilon = step->spec->norm_epsilon,
			.out = out,
			.ldo = ld_hidden(step),
		});
}

/* Every row through one ffn: a dense layer, or the shared expert. */
static void run_ffn(struct rt_step *step, const struct kn_expert *ffn, uint32_t first, uint32_t rows)
{
	const struct kn_expert *experts[1] = { ffn };
	uint32_t begin[2] = { 0, rows };
	size_t ld = ld_hidden(step);
	step->queue->ops->ffn(step->queue,
		&(struct kn_ffn){
			.experts = experts,
			.experts_count = 1,
			.begin = begin,
			.x = step->buffers.normed + first * ld,
			.ldx = ld,
			.hidden = step->spec->hidden,
			.y = step->buffers.shared + first * ld,
			.ldy = ld,
			.scratch = step->buffers.ffn_scratch,
		});
}

static void dense_ffn(struct rt_step *step, uint32_t layer, uint32_t first, uint32_t rows)
{
	size_t ld = ld_hidden(step);
	float *x = step->buffers.x + first * ld;

	norm(step, step->weights.layers[layer].ffn_norm, x, step->buffers.normed + first * ld, rows);
	run_ffn(step, &step->weights.layers[layer].ffn, first, rows);
	step->queue->ops->add(step->queue,
		&(struct kn_add){
			.x = x,
			.y = step->buffers.shared + first * ld,
			.ldx = ld,
			.ldy = ld,
			.rows = rows,
			.n = step->spec->hidden,
		});
}

/* What the capacity policy does to the rows, told to their requests. */
static void apply_capacity(
	struct rt_step *step, const struct rt_work *work, int32_t *ids, float *weights, const float *bias)
{
	const struct cad_gate_spec *gate = &step->spec->gate;
	float logits[CAD_EXPERTS_MAX];
	for (uint32_t r = 0; r < work->rows; r++) {
		uint32_t dropped = 0, spilled = 0;
		step->queue->ops->copy_out(step->queue, logits,
			step->buffers.gate_logits + (work->first + r) * kn_ld(gate->experts),
			gate->experts * sizeof *logits);
		rt_capacity_row(&step->capacity, gate, logits, bias, ids + r * gate->topk, weights + r * gate->topk,
			step->counts + (size_t)work->layer * gate->experts, &dropped, &spilled);
		struct rt_usage *usage = &work->batch->row_span[work->first + r]->sequence->usage;
		usage->dropped += dropped;
		usage->spilled += spilled;
	}
}

/* Norm, gate, top-k: fills the work of this micro-batch. */
static void gate(struct rt_step *step, uint32_t layer, uint32_t moe_row, struct rt_work *work)
{
	const struct cad_gate_spec *spec = &step->spec->gate;
	const struct rt_layer_weights *w = &step->weights.layers[layer];
	struct rt_step_buffers *b = &step->buffers;
	struct rt_step_trace *trace = &step->trace;
	const struct kn_ops *ops = step->queue->ops;
	size_t ld = ld_hidden(step), lde = kn_ld(spec->experts),
	       at = ((size_t)moe_row * step->rows_max + work->first) * spec->topk;

	norm(step, w->ffn_norm, b->x + work->first * ld, b->normed + work->first * ld, work->rows);
	float *logits = b->gate_logits + work->first * lde;
	ops->linear(step->queue,
		&(struct kn_linear){
			.x = b->normed + work->first * ld,
			.ldx = ld,
			.rows = work->rows,
			.w = &w->gate,
			.bias = w->gate_bias,
			.y = logits,
			.ldy = lde,
		});
	ops->gate(step->queue,
		&(struct kn_gate){
			.spec = spec,
			.logits = logits,
			.ld = lde,
			.rows = work->rows,
			.bias = w->selection_bias,
			.ids = b->gate_ids,
			.weights = b->gate_weights,
		});
	ops->copy_out(step->queue, trace->ids + at, b->gate_ids, work->rows * spec->topk * sizeof *trace->ids);
	ops->copy_out(
		step->queue, trace->weights + at, b->gate_weights, work->rows * spec->topk * sizeof *trace->weights);
	for (uint32_t r = 0; trace->router_logits && r < work->rows; r++)
		ops->copy_out(step->queue,
			trace->router_logits + ((size_t)moe_row * step->rows_max + work->first + r) * spec->experts,
			logits + r * lde, spec->experts * sizeof(float));
	work->layer = layer;
	work->topk = spec->topk;
	work->ids = trace->ids + at;
	work->weights = trace->weights + at;
	work->nodes = trace->nodes + at;
	work->node_ids = trace->node_ids + at;
	work->slots = trace->slots + at;
	work->x = b->normed;
	work->ldx = ld;
	work->sums = b->sums;
}

/* A weight that is not finite would be refused by the node: the row's request fails here, alone,
 * and the row goes nowhere. */
static void refuse_not_finite(const struct rt_work *work, int32_t *ids, float *weights)
{
	for (uint32_t i = 0; i < work->rows * work->topk; i++) {
		if (isfinite(weights[i]))
			continue;
		rt_sequence_doom(work->batch->row_span[work->first + i / work->topk]->sequence, CAD_ERR_NOT_FINITE,
			"the gate of layer %u gave NaN or infinity: the checkpoint is damaged", work->layer);
		ids[i] = -1;
		weights[i] = 0.0f;
	}
}

static void route(struct rt_step *step, struct rt_work *work)
{
	const struct cad_gate_spec *spec = &step->spec->gate;
	struct rt_expert_counts *counts = step->counts + (size_t)work->layer * spec->experts;
	size_t at = (size_t)(work->ids - step->trace.ids);

	refuse_not_finite(work, step->trace.ids + at, step->trace.weights + at);
	if (step->capacity.policy != RT_CAPACITY_NONE)
		apply_capacity(step, work, step->trace.ids + at, step->trace.weights + at,
			step->weights.layers[work->layer].selection_bias);
	for (uint32_t i = 0; i < work->rows * spec->topk; i++)
		if (work->ids[i] >= 0)
			atomic_fetch_add_explicit(&counts[work->ids[i]].routed, 1, memory_order_relaxed);
	rt_dispatch(step->exchange, work);
}

/* Runs while the routed experts are in flight. */
static void shared_expert(struct rt_step *step, const struct rt_work *work)
{
	if (step->spec->shared.size > 0)
		run_ffn(step, &step->weights.layers[work->layer].ffn, work->first, work->rows);
}

/* The sums are in: x += (routed + shared). */
static void combine(struct rt_step *step, const struct rt_work *work)
{
	size_t ld = ld_hidden(step);
	bool shared = step->spec->shared.size > 0;
	step->queue->ops->combine_finish(step->queue,
		&(struct kn_combine_finish){
			.x = step->buffers.x + work->first * ld,
			.ldx = ld,
			.rows = work->rows,
			.n = step->spec->hidden,
			.sums = step->buffers.sums + (size_t)work->first * step->spec->hidden,
			.quantum = step->quanta[work->layer],
			.shared = shared ? step->buffers.shared + work->first * ld : NULL,
			.lds = ld,
		});
}

/* ---- around the layers ---- */

static uint64_t stage_end(struct rt_step *step, enum rt_stage stage, uint64_t since)
{
	uint64_t now = cad_clock_now_ns(step->clock);
	atomic_fetch_add_explicit(&step->stage_ns[stage], now - since, memory_order_relaxed);
	return now;
}

static void embed(struct rt_step *step, const struct rt_batch *batch)
{
	const struct kn_ops *ops = step->queue->ops;
	struct rt_step_buffers *b = &step->buffers;
	uint32_t ends[64];

	ops->copy_in(step->queue, b->ids, batch->ids, batch->rows * sizeof *batch->ids);
	ops->copy_in(step->queue, b->positions, batch->positions, batch->rows * sizeof *batch->positions);
	ops->copy_in(step->queue, b->slots, batch->slots, batch->rows * sizeof *batch->slots);
	for (uint32_t i = 0; i < batch->spans_count; i++)
		rt_kv_upload(step->cache, &batch->spans[i].sequence->kv);

	for (uint32_t r = 0; r < batch->rows; r += 64) {
		uint32_t n = batch->rows - r < 64 ? batch->rows - r : 64;
		for (uint32_t i = 0; i < n; i++)
			ends[i] = (uint32_t)batch->positions[r + i] + 1;
		ops->copy_in(step->queue, b->end + r, ends, n * sizeof *ends);
	}

	ops->rope_table(step->queue,
		&(struct kn_rope_table){
			.positions = b->positions,
			.rows = batch->rows,
			.inv_freq = step->weights.inv_freq,
			.size = step->spec->rope.size,
			.attention_factor = (float)step->spec->rope.attention_factor,
			.out = b->rope,
		});
	ops->embed(step->queue,
		&(struct kn_embed){
			.table = &step->weights.embed,
			.ids = b->ids,
			.rows = batch->rows,
			.x = b->x,
			.ldx = ld_hidden(step),
		});
}

/* Final norm and LM head for the rows that want logits, RT_HEAD_ROWS at a time. */
static void head(struct rt_step *step, const struct rt_batch *batch, const bool *wants, rt_step_logits_fn *on_logits,
	void *context)
{
	const struct kn_ops *ops = step->queue->ops;
	struct rt_step_buffers *b = &step->buffers;
	size_t ld = ld_hidden(step), ldv = kn_ld(step->spec->vocab);
	uint32_t rows[RT_HEAD_ROWS], count = 0;
	for (uint32_t r = 0; r <= batch->rows; r++) {
		if (r < batch->rows && wants[r]) {
			norm(step, step->weights.final_norm, b->x + r * ld, b->head_rows + count * ld, 1);
			rows[count++] = r;
		}
		if (count == 0 || (count < RT_HEAD_ROWS && r < batch->rows))
			continue;
		uint64_t since = cad_clock_now_ns(step->clock);
		ops->linear(step->queue,
			&(struct kn_linear){
				.x = b->head_rows,
				.ldx = ld,
				.rows = count,
				.w = &step->weights.lm_head,
				.y = b->logits,
				.ldy = ldv,
			});
		if (ops->wait(step->queue) != CAD_OK)
			return;
		since = stage_end(step, RT_STAGE_HEAD, since);
		on_logits(context, batch, rows, count, b->logits, ldv);
		stage_end(step, RT_STAGE_SAMPLE, since);
		count = 0;
	}
}

/*
 * Two micro-batches pay when the wait for the experts is worth more than reading all weights twice,
 * here and there: with many rows, where arithmetic and not memory is the limit. Whether there is a
 * wait is measured; the split never changes a bit.
 */
enum { SPLIT_ROWS_MIN = 256 };
static uint32_t choose_micro_batches(const struct rt_step *step, const struct rt_batch *batch)
{
	uint32_t count = step->micro_batches;
	if (count == 0)
		count = batch->rows >= SPLIT_ROWS_MIN && step->wait_ns > 0.5 * step->attention_ns ? 2 : 1;
	return count < batch->rows ? count : batch->rows;
}

/*
 * THE data path: tokens to logits. With m micro-batches, attention of one runs while the experts of
 * the others are in flight; a micro-batch is taken up again, one layer on, when the sums that it is
 * owed are in.
 */
enum cad_status rt_step_run(struct rt_step *step, const struct rt_batch *batch, const bool *wants,
	rt_step_logits_fn *on_logits, void *context)
{
	const struct cad_model_spec *spec = step->spec;
	uint32_t count = choose_micro_batches(step, batch), moe_row = 0;
	uint64_t began = cad_clock_now_ns(step->clock), attention = 0, waited = 0, t = began;

	for (uint32_t m = 0; m < count; m++) {
		uint32_t first = (uint32_t)((uint64_t)batch->rows * m / count),
			 after = (uint32_t)((uint64_t)batch->rows * (m + 1) / count);
		step->works[m] = (struct rt_work){ .batch = batch, .first = first, .rows = after - first };
	}

	embed(step, batch);
	t = stage_end(step, RT_STAGE_EMBED, t);

	for (uint32_t layer = 0; layer <= spec->layers_count; layer++) {
		bool moe = layer < spec->layers_count && spec->layers[layer].moe,
		     behind = layer > 0 && spec->layers[layer - 1].moe;
		if (moe && step->capacity.policy != RT_CAPACITY_NONE) {
			step->capacity.limit = rt_capacity_limit(
				step->capacity.factor, batch->rows, spec->gate.topk, spec->gate.experts);
			memset(step->capacity.used, 0, spec->gate.experts * sizeof *step->capacity.used);
		}
		for (uint32_t m = 0; m < count; m++) {
			struct rt_work *work = &step->works[m];
			if (behind) {
				rt_combine_wait(step->exchange, work);
				uint64_t after = stage_end(step, RT_STAGE_WAIT, t);
				waited += after - t;
				combine(step, work);
				t = stage_end(step, RT_STAGE_COMBINE, after);
			}
			if (layer == spec->layers_count)
				continue;
			rt_attention(step, batch, layer, work->first, work->rows);
			uint64_t after = stage_end(step, RT_STAGE_ATTENTION, t);
			attention += after - t;
			t = after;
			if (!moe) {
				dense_ffn(step, layer, work->first, work->rows);
				t = stage_end(step, RT_STAGE_DENSE, t);
				continue;
			}
			gate(step, layer, moe_row, work);
			t = stage_end(step, RT_STAGE_GATE, t);
			route(step, work);
			t = stage_end(step, RT_STAGE_DISPATCH, t);
			shared_expert(step, work);
			t = stage_end(step, RT_STAGE_SHARED, t);
		}
		moe_row += moe;
	}

	head(step, batch, wants, on_logits, context);
	step->attention_ns += ((double)attention / spec->layers_count - step->attention_ns) / 16;
	step->wait_ns += ((double)waited / spec->layers_count - step->wait_ns) / 16;

	return step->queue->ops->wait(step->queue);
}

/* ---- memory ---- */

struct block {
	void **at;
	size_t bytes;
};

/* Everything that a step needs on the device, in one list: init takes it, fini gives it back. */
static size_t list_blocks(struct rt_step *step, struct block blocks[32])
{
	const struct cad_model_spec *spec = step->spec;
	const struct cad_attention_spec *a = &spec->attention;
	struct rt_step_buffers *b = &step->buffers;
	size_t rows = step->rows_max, experts = spec->gate.experts, topk = spec->gate.topk, f = sizeof(float),
	       hidden = kn_ld(spec->hidden) * f;
	size_t ffn = spec->dense.size > spec->shared.size ? spec->dense.size : spec->shared.size, count = 0;
#define BLOCK(pointer, size) blocks[count++] = (struct block){ (void **)&(pointer), (size) }
	BLOCK(b->x, rows * hidden);
	BLOCK(b->normed, rows * hidden);
	BLOCK(b->shared, rows * hidden);
	BLOCK(b->q, rows * kn_ld((size_t)a->heads * a->head_size) * f);
	BLOCK(b->k, rows * kn_ld((size_t)a->kv_heads * a->head_size) * f);
	BLOCK(b->v, rows * kn_ld((size_t)a->kv_heads * a->value_size) * f);
	BLOCK(b->attended, rows * kn_ld((size_t)a->heads * a->value_size) * f);
	BLOCK(b->rope, rows * spec->rope.size * f);
	BLOCK(b->logits, RT_HEAD_ROWS * kn_ld(spec->vocab) * f);
	BLOCK(b->head_rows, RT_HEAD_ROWS * hidden);
	BLOCK(b->ids, rows * sizeof *b->ids);
	BLOCK(b->positions, rows * sizeof *b->positions);
	BLOCK(b->begin, rows * sizeof *b->begin);
	BLOCK(b->end, rows * sizeof *b->end);
	BLOCK(b->slots, rows * sizeof *b->slots);
	if (experts > 0) {
		BLOCK(b->sums, rows * spec->hidden * sizeof *b->sums);
		BLOCK(b->gate_logits, rows * kn_ld(experts) * f);
		BLOCK(b->gate_ids, rows * topk * sizeof *b->gate_ids);
		BLOCK(b->gate_weights, rows * topk * f);
	}
	if (ffn > 0)
		BLOCK(b->ffn_scratch, step->queue->ops->ffn_scratch_bytes(step->queue, rows, spec->hidden, ffn));
#undef BLOCK
	return count;
}

static bool trace_init(struct rt_step *step)
{
	const struct cad_model_spec *spec = step->spec;
	struct rt_step_trace *trace = &step->trace;

	trace->moe_layers = malloc(spec->layers_count * sizeof *trace->moe_layers);
	for (uint32_t layer = 0; trace->moe_layers && layer < spec->layers_count; layer++)
		if (spec->layers[layer].moe)
			trace->moe_layers[trace->moe_layers_count++] = layer;
	size_t slots = (size_t)trace->moe_layers_count * step->rows_max * spec->gate.topk + 1;
	trace->ids = malloc(slots * sizeof *trace->ids);
	trace->weights = malloc(slots * sizeof *trace->weights);
	trace->nodes = malloc(slots * sizeof *trace->nodes);
	trace->node_ids = calloc(slots, sizeof *trace->node_ids);
	trace->slots = malloc(slots);

	return trace->moe_layers && trace->ids && trace->weights && trace->nodes && trace->node_ids && trace->slots;
}

enum cad_status rt_step_trace_logits(struct rt_step *step)
{
	if (!step->trace.router_logits)
		step->trace.router_logits =
			malloc(((size_t)step->trace.moe_layers_count * step->rows_max * step->spec->gate.experts + 1) *
				sizeof(float));
	return step->trace.router_logits ? CAD_OK : CAD_ERR_MEMORY;
}

enum cad_status rt_step_init(struct rt_step *step, const struct rt_step_options *options, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(options->model);
	*step = (struct rt_step){
		.spec = spec,
		.queue = options->queue,
		.cache = options->cache,
		.exchange = options->exchange,
		.quanta = options->quanta,
		.clock = options->clock,
		.capacity = { .policy = options->capacity_policy, .factor = options->capacity_factor },
		.rows_max = options->rows_max,
		.micro_batches = options->micro_batches,
	};
	enum cad_status status =
		rt_weights_init(&step->weights, options->device, options->model, options->weights, error);
	if (status != CAD_OK)
		return status;
	struct block blocks[32];
	size_t count = list_blocks(step, blocks);
	bool whole = true;
	for (size_t i = 0; i < count; i++)
		whole = (*blocks[i].at = options->device->ops->alloc(options->device, blocks[i].bytes)) != NULL &&
			whole;
	step->counts = calloc((size_t)spec->layers_count * spec->gate.experts + 1, sizeof *step->counts);
	step->capacity.used = calloc(spec->gate.experts + 1, sizeof *step->capacity.used);
	if (whole && trace_init(step) && step->counts && step->capacity.used)
		return CAD_OK;
	rt_step_fini(step);

	return cad_error_set(error, CAD_ERR_MEMORY, "no memory for steps of %u rows: make them smaller (--step-tokens)",
		options->rows_max);
}

void rt_step_fini(struct rt_step *step)
{
	if (!step->spec)
		return;

	struct kn_device *device = step->weights.device;
	struct block blocks[32];
	size_t count = list_blocks(step, blocks);
	for (size_t i = 0; i < count; i++)
		if (*blocks[i].at)
			device->ops->release(device, *blocks[i].at, blocks[i].bytes);
	rt_weights_fini(&step->weights);
	struct rt_step_trace *trace = &step->trace;
	free(trace->moe_layers);
	free(trace->ids);
	free(trace->weights);
	free(trace->router_logits);
	free(trace->nodes);
	free((void *)trace->node_ids);
	free(trace->slots);
	free(step->counts);
	free(step->capacity.used);
	*step = (struct rt_step){ 0 };
}
