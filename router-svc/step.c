/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/step.h"

#include "router-svc/model/attention.h"
#include "router-svc/moe/await.h"
#include "router-svc/moe/dispatch.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

static size_t ld_hidden(const struct rt_step *step) { return kn_ld(step->spec->hidden); }

/* Until the device has done all of it. False: it has failed. */
static bool device_done(struct rt_step *step)
{
	enum cad_status status = step->queue->ops->wait(step->queue);
	if (step->status == CAD_OK)
		step->status = status;
	return step->status == CAD_OK;
}

/* ---- the stages of a layer, for one micro-batch ---- */

/* What ffn, gate and experts read: the residual stream itself where no norm is before them. It stays
 * as it is until the sums are in. */
static const float *ffn_input(const struct rt_step *step)
{
	return step->spec->norms == CAD_NORMS_AFTER ? step->buffers.x : step->buffers.normed;
}

static void norm(struct rt_step *step, const struct rt_work *work)
{
	const float *weight = step->weights.layers[work->layer].ffn_norm;
	size_t at = work->first * ld_hidden(step);
	if (weight)
		rt_norm_rows(
			step->queue, step->spec, work->rows, weight, step->buffers.x + at, step->buffers.normed + at);
}

/* x += what ffn or experts gave, once it is whole in `shared`. */
static void add_ffn(struct rt_step *step, const struct rt_work *work)
{
	const struct rt_step_buffers *b = &step->buffers;
	size_t at = work->first * ld_hidden(step);
	rt_add_branch(step->queue, step->spec, work->rows, step->weights.layers[work->layer].ffn_after, b->shared + at,
		b->x + at);
}

/* Every row through one ffn: a dense layer's, or the shared expert. */
static void run_ffn(struct rt_step *step, const struct rt_work *work)
{
	size_t ld = ld_hidden(step);
	step->queue->ops->ffn(step->queue,
		&(struct kn_ffn){
			.experts = step->weights.layers[work->layer].ffn_list,
			.experts_count = 1,
			.begin = step->host.all_rows[work - step->works],
			.x = ffn_input(step) + work->first * ld,
			.ldx = ld,
			.rows = work->rows,
			.hidden = step->spec->hidden,
			.y = step->buffers.shared + work->first * ld,
			.ldy = ld,
			.scratch = step->buffers.ffn_scratch,
		});
}

static void attention(struct rt_step *step, const struct rt_work *work)
{
	const struct cad_attention_spec *spec = cad_attention_of(step->spec, work->layer);
	const struct rt_step_buffers *b = &step->buffers;
	const struct rt_step_inputs *in = &step->inputs;
	uint32_t rope = step->spec->layers[work->layer].rope_at;
	size_t first = work->first, at = first * ld_hidden(step), window = step->windows.of_layer[work->layer];

	struct rt_attention a = {
		.queue = step->queue,
		.spec = step->spec,
		.weights = &step->weights.layers[work->layer],
		.ones = step->weights.ones,
		.cache = step->cache,
		.layer = work->layer,
		.rows = work->rows,
		.x = b->x + at,
		.normed = (step->spec->norms == CAD_NORMS_AFTER ? b->x : b->normed) + at,
		.projected = b->shared + at,
		.rope = b->ropes[rope] + first * step->spec->ropes[rope].size,
		.positions = in->positions + first,
		.position_scale = in->scale ? in->scale + first : NULL,
		.slots = in->slots + first,
		.begin = in->begin + window * step->batch->rows + first,
		.end = in->end + first,
	};
	for (enum rt_scratch s = 0; s < RT_SCRATCH_COUNT; s++)
		if (b->attention[s])
			a.scratch[s] = b->attention[s] + first * kn_ld(rt_scratch_row(spec, s));
	rt_attend(&a);
	rt_stage_end(&step->stages, RT_STAGE_ATTENTION);
}

static void dense_ffn(struct rt_step *step, const struct rt_work *work)
{
	norm(step, work);
	run_ffn(step, work);
	add_ffn(step, work);
	rt_stage_end(&step->stages, RT_STAGE_DENSE);
}

/* Norm, gate and top-k, queued. */
static void gate_compute(struct rt_step *step, const struct rt_work *work)
{
	const struct cad_gate_spec *spec = &step->spec->gate;
	const struct rt_layer_weights *w = &step->weights.layers[work->layer];
	const struct kn_ops *ops = step->queue->ops;
	struct rt_step_buffers *b = &step->buffers;
	size_t ld = ld_hidden(step), lde = kn_ld(spec->experts);
	float *logits = b->gate_logits + work->first * lde;
	int32_t *ids = b->routing + (size_t)work->first * 2 * spec->topk;

	norm(step, work);
	ops->linear(step->queue,
		&(struct kn_linear){
			.x = ffn_input(step) + work->first * ld,
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
			.ids = ids,
			.weights = (float *)(ids + (size_t)work->rows * spec->topk),
		});
}

/* The gate's choice, from the device into the trace; nothing is owed to anybody when the device has
 * failed. */
static void gate_fetch(struct rt_step *step, struct rt_work *work)
{
	const struct cad_gate_spec *spec = &step->spec->gate;
	const struct kn_ops *ops = step->queue->ops;
	struct rt_step_trace *trace = &step->trace;
	size_t lde = kn_ld(spec->experts), slots = (size_t)work->rows * spec->topk,
	       row = (size_t)trace->layer_at[work->layer] * step->rows_max + work->first, at = row * spec->topk;
	int32_t *ids = step->host.routing + (size_t)work->first * 2 * spec->topk;
	float *logits = step->host.gate_logits + work->first * lde;

	ops->copy_out(step->queue, ids, step->buffers.routing + (size_t)work->first * 2 * spec->topk,
		slots * (sizeof *trace->ids + sizeof *trace->weights));
	if (trace->router_logits || step->capacity.policy != RT_CAPACITY_NONE)
		ops->copy_out(step->queue, logits, step->buffers.gate_logits + work->first * lde,
			work->rows * lde * sizeof *logits);
	if (device_done(step)) {
		memcpy(trace->ids + at, ids, slots * sizeof *trace->ids);
		memcpy(trace->weights + at, ids + slots, slots * sizeof *trace->weights);
	} else {
		memset(trace->ids + at, 0xff, slots * sizeof *trace->ids);
		memset(trace->weights + at, 0, slots * sizeof *trace->weights);
	}

	for (uint32_t r = 0; trace->router_logits && r < work->rows; r++)
		memcpy(trace->router_logits + (row + r) * spec->experts, logits + r * lde,
			spec->experts * sizeof *logits);
	work->ids = trace->ids + at;
	work->weights = trace->weights + at;
	work->nodes = trace->nodes + at;
	work->node_ids = trace->node_ids + at;
	work->slots = trace->slots + at;
	work->counts = step->counts + (size_t)work->layer * spec->experts;
}

static void gate(struct rt_step *step, struct rt_work *work)
{
	gate_compute(step, work);
	gate_fetch(step, work);
	rt_stage_end(&step->stages, RT_STAGE_GATE);
}

/* A weight that is not finite would be refused by the node: the row's request fails here, alone,
 * and the row goes nowhere. */
static void refuse_not_finite(const struct rt_work *work)
{
	for (uint32_t i = 0; i < work->rows * work->topk; i++) {
		if (isfinite(work->weights[i]))
			continue;
		rt_sequence_doom(work->batch->row_span[work->first + i / work->topk]->sequence, CAD_ERR_NOT_FINITE,
			"the gate of layer %u gave NaN or infinity: the checkpoint is damaged", work->layer);
		work->ids[i] = -1;
		work->weights[i] = 0.0f;
	}
}

/* What the capacity policy does to the rows, told to their requests. The first micro-batch of a
 * layer finds every expert empty. */
static void apply_capacity(struct rt_step *step, const struct rt_work *work)
{
	const struct cad_gate_spec *gate = &step->spec->gate;
	const float *logits = step->host.gate_logits + work->first * kn_ld(gate->experts),
		    *bias = step->weights.layers[work->layer].selection_bias;

	if (work->first == 0) {
		step->capacity.limit =
			rt_capacity_limit(step->capacity.factor, step->batch->rows, gate->topk, gate->experts);
		memset(step->capacity.used, 0, gate->experts * sizeof *step->capacity.used);
	}

	for (uint32_t r = 0; r < work->rows; r++) {
		uint32_t dropped = 0, spilled = 0;
		rt_capacity_row(&step->capacity, gate, logits + r * kn_ld(gate->experts), bias,
			work->ids + r * gate->topk, work->weights + r * gate->topk, work->counts, &dropped, &spilled);
		struct rt_usage *usage = &work->batch->row_span[work->first + r]->sequence->usage;
		usage->dropped += dropped;
		usage->spilled += spilled;
	}
}

static void route(struct rt_step *step, struct rt_work *work)
{
	refuse_not_finite(work);
	if (step->capacity.policy != RT_CAPACITY_NONE && step->status == CAD_OK)
		apply_capacity(step, work);
	for (uint32_t i = 0; i < work->rows * work->topk; i++)
		if (work->ids[i] >= 0)
			atomic_fetch_add_explicit(&work->counts[work->ids[i]].routed, 1, memory_order_relaxed);
	rt_dispatch(step->exchange, work);
	rt_stage_end(&step->stages, RT_STAGE_DISPATCH);
}

/* Runs while the routed experts are in flight. */
static void shared_expert(struct rt_step *step, const struct rt_work *work)
{
	const struct kn_matrix *score = &step->weights.layers[work->layer].shared_score;
	if (step->spec->shared.size > 0)
		run_ffn(step, work);
	if (score->n > 0)
		step->queue->ops->linear(step->queue,
			&(struct kn_linear){
				.x = ffn_input(step) + work->first * ld_hidden(step),
				.ldx = ld_hidden(step),
				.rows = work->rows,
				.w = score,
				.y = step->buffers.shared_score + work->first * kn_ld(1),
				.ldy = kn_ld(1),
			});
	rt_stage_end(&step->stages, RT_STAGE_SHARED);
}

/* When the sums are in: x += (routed + shared), or the norm of that, which is first made in `shared`. */
static void combine(struct rt_step *step, struct rt_work *work)
{
	const struct rt_layer_weights *w = &step->weights.layers[work->layer];
	size_t ld = ld_hidden(step);
	bool shared = step->spec->shared.size > 0, scored = w->shared_score.n > 0, apart = w->ffn_after != NULL;

	rt_await_sums(step->exchange, work);
	rt_stage_end(&step->stages, RT_STAGE_WAIT);
	step->queue->ops->combine_finish(step->queue,
		&(struct kn_combine_finish){
			.x = (apart ? step->buffers.shared : step->buffers.x) + work->first * ld,
			.apart = apart,
			.ldx = ld,
			.rows = work->rows,
			.n = step->spec->hidden,
			.sums = step->buffers.sums + (size_t)work->first * step->spec->hidden,
			.quantum = step->quanta[work->layer],
			.shared = shared ? step->buffers.shared + work->first * ld : NULL,
			.lds = ld,
			.scale = apart ? 1.0f : step->spec->branch_scale,
			.score = scored ? step->buffers.shared_score + work->first * kn_ld(1) : NULL,
			.ld_score = kn_ld(1),
		});
	if (apart)
		add_ffn(step, work);
	rt_stage_end(&step->stages, RT_STAGE_COMBINE);
}

/* ---- around the layers ---- */

/*
 * Two micro-batches pay when the wait for the experts is worth more than reading all weights twice,
 * here and there: with many rows, where arithmetic and not memory is the limit. Whether there is a
 * wait is measured; the split never changes a bit.
 */
enum { SPLIT_ROWS_MIN = 256, AVERAGE_STEPS = 16 };
static const double SPLIT_WAIT_MIN = 0.5; /* of the time of attention */

static uint32_t choose_micro_batches(const struct rt_step *step)
{
	uint32_t count = step->micro_batches, rows = step->batch->rows;
	if (count == 0)
		count = rows >= SPLIT_ROWS_MIN && step->wait_ns > SPLIT_WAIT_MIN * step->attention_ns ? 2 : 1;
	return count < rows ? count : rows;
}

static void average(double *ns, uint64_t *seen_ns, uint64_t now_ns, uint32_t layers)
{
	*ns += ((double)(now_ns - *seen_ns) / layers - *ns) / AVERAGE_STEPS;
	*seen_ns = now_ns;
}

/* What this step has shown about waiting, for the choice of the next ones. */
static void learn(struct rt_step *step)
{
	const _Atomic uint64_t *ns = step->stages.ns;
	average(&step->attention_ns, &step->attention_seen_ns, ns[RT_STAGE_ATTENTION], step->spec->layers_count);
	average(&step->wait_ns, &step->wait_seen_ns, ns[RT_STAGE_WAIT], step->spec->layers_count);
}

static void split(struct rt_step *step)
{
	uint32_t rows = step->batch->rows, count = choose_micro_batches(step);

	step->works_count = count;
	for (uint32_t m = 0; m < count; m++) {
		uint32_t first = (uint32_t)((uint64_t)rows * m / count),
			 after = (uint32_t)((uint64_t)rows * (m + 1) / count);
		step->works[m] = (struct rt_work){
			.batch = step->batch,
			.first = first,
			.rows = after - first,
			.topk = step->spec->gate.topk,
			.x = ffn_input(step),
			.ldx = ld_hidden(step),
			.sums = step->buffers.sums,
		};
		step->host.all_rows[m][0] = 0;
		step->host.all_rows[m][1] = after - first;
	}
}

/* Spans from this one on rotate alike, up to this one. */
static uint32_t run_end(const struct rt_batch *batch, uint32_t span)
{
	uint32_t rotation = batch->spans[span].sequence->rotation;
	while (span < batch->spans_count && batch->spans[span].sequence->rotation == rotation)
		span++;
	return span;
}

/* The natural logarithm of a whole number, from 1 on, by plain arithmetic, so that its bits are the same on
 * every machine: of m * 2^e, m from 0.7 to 1.4, it is e * log 2 + 2 artanh((m - 1) / (m + 1)), whose series'
 * rest is below 1e-17. */
static double log_whole(double n)
{
	int e;
	double m = frexp(n, &e);
	if (m < 0.70710678118654752) {
		m *= 2;
		e--;
	}
	double t = (m - 1) / (m + 1), z = t * t, sum = 0;
	for (int k = 21; k >= 1; k -= 2)
		sum = sum * z + 1.0 / k;
	return e * 0.69314718055994531 + 2 * t * sum;
}

/* In f32, as transformers has it; only the logarithm is taken in double. */
static float position_scale(const struct cad_position_scale *scale, int32_t position)
{
	float chunks = floorf(((float)position + (float)scale->first) / (float)scale->positions);
	return (float)log_whole((double)chunks + 1) * scale->factor + 1.0f;
}

static void fill_inputs(struct rt_step *step, const bool *wants, const struct rt_step_inputs *in)
{
	const struct rt_batch *batch = step->batch;
	uint32_t rows = batch->rows, count = 0;

	memcpy(in->ids, batch->ids, rows * sizeof *in->ids);
	memcpy(in->positions, batch->positions, rows * sizeof *in->positions);
	memcpy(in->slots, batch->slots, rows * sizeof *in->slots);
	memset(in->head_rows, 0, rows * sizeof *in->head_rows);
	for (uint32_t r = 0; r < rows; r++) {
		in->end[r] = (uint32_t)batch->positions[r] + 1;
		if (wants[r])
			in->head_rows[count++] = r;
	}

	for (uint32_t r = 0; in->scale && r < rows; r++)
		in->scale[r] = position_scale(&step->spec->position_scale, batch->positions[r]);
	for (uint32_t w = 0; w < step->windows.count; w++) {
		uint32_t keys = step->windows.keys[w], chunk = step->windows.chunk[w],
			 *begin = in->begin + (size_t)w * rows;
		for (uint32_t r = 0; r < rows; r++) {
			uint32_t position = in->end[r] - 1, in_chunk = chunk > 0 ? position / chunk * chunk : 0;
			begin[r] = keys > 0 && in->end[r] > keys ? in->end[r] - keys : 0;
			begin[r] = begin[r] > in_chunk ? begin[r] : in_chunk;
		}
	}

	step->head_rows_count = count;
	for (uint32_t span = 0, run = 0; in->inv_freq && span < batch->spans_count; run++) {
		cad_rope_inv_freq(&step->spec->rope, batch->spans[span].sequence->rotation,
			in->inv_freq + (size_t)run * step->spec->rope.size / 2);
		span = run_end(batch, span);
	}
}

/* The batch goes to the device: one block, and what is new in the page tables. */
static void upload(struct rt_step *step, const bool *wants)
{
	const struct rt_batch *batch = step->batch;
	struct rt_step_inputs in = rt_step_inputs_at(step, step->host.inputs, batch->rows);

	fill_inputs(step, wants, &in);
	step->inputs = rt_step_inputs_at(step, step->buffers.inputs, batch->rows);
	step->queue->ops->copy_in(
		step->queue, step->buffers.inputs, step->host.inputs, rt_step_inputs_bytes(step, batch->rows));
	for (uint32_t i = 0; i < batch->spans_count; i++)
		rt_kv_upload(step->cache, &batch->spans[i].sequence->kv);
}

/* Cosines and sines of rows that rotate alike. */
static void rope_table(struct rt_step *step, uint32_t at, uint32_t first, uint32_t rows, const float *inv_freq)
{
	const struct cad_rope_spec *rope = &step->spec->ropes[at];

	step->queue->ops->rope_table(step->queue,
		&(struct kn_rope_table){
			.positions = step->inputs.positions + first,
			.rows = rows,
			.inv_freq = inv_freq,
			.size = rope->size,
			.attention_factor = (float)rope->attention_factor,
			.out = step->buffers.ropes[at] + (size_t)first * rope->size,
		});
}

static void rope_tables(struct rt_step *step)
{
	const struct rt_batch *batch = step->batch;
	const float *inv_freq = step->inputs.inv_freq;

	for (uint32_t at = 0; !inv_freq && at < step->spec->ropes_count; at++)
		rope_table(step, at, 0, batch->rows, step->weights.inv_freq[at]);
	for (uint32_t span = 0; inv_freq && span < batch->spans_count;) {
		uint32_t end = run_end(batch, span), first = batch->spans[span].first;
		uint32_t after = end < batch->spans_count ? batch->spans[end].first : batch->rows;
		rope_table(step, 0, first, after - first, inv_freq);
		inv_freq += step->spec->rope.size / 2;
		span = end;
	}
}

static void embed(struct rt_step *step)
{
	const struct kn_ops *ops = step->queue->ops;
	uint32_t rows = step->batch->rows;

	rope_tables(step);
	ops->embed(step->queue,
		&(struct kn_embed){
			.table = &step->weights.embed,
			.ids = step->inputs.ids,
			.rows = rows,
			.x = step->buffers.x,
			.ldx = ld_hidden(step),
			.scale = step->spec->embed_scale,
		});
	rt_stage_end(&step->stages, RT_STAGE_EMBED);
}

/* Final norm and LM head of some of the rows that want logits, to the host. */
static bool head_block(struct rt_step *step, uint32_t first, uint32_t count)
{
	const struct kn_ops *ops = step->queue->ops;
	struct rt_step_buffers *b = &step->buffers;
	size_t ld = ld_hidden(step), ldv = kn_ld(step->spec->vocab);

	ops->rmsnorm(step->queue,
		&(struct kn_rmsnorm){
			.x = b->x,
			.ldx = ld,
			.index = step->inputs.head_rows + first,
			.rows = count,
			.parts = 1,
			.n = step->spec->hidden,
			.weight = step->weights.final_norm,
			.epsilon = step->spec->norm_epsilon,
			.out = b->head_rows,
			.ldo = ld,
		});
	ops->linear(step->queue,
		&(struct kn_linear){
			.x = b->head_rows,
			.ldx = ld,
			.rows = count,
			.w = &step->weights.lm_head,
			.divisor = step->spec->logits_divisor,
			.y = step->host.logits,
			.ldy = ldv,
		});
	bool done = device_done(step);
	rt_stage_end(&step->stages, RT_STAGE_HEAD);

	return done;
}

static void head(struct rt_step *step, rt_step_logits_fn *on_logits, void *context)
{
	const struct rt_step_inputs in = rt_step_inputs_at(step, step->host.inputs, step->batch->rows);
	for (uint32_t at = 0, count; at < step->head_rows_count; at += count) {
		count = step->head_rows_count - at < RT_HEAD_ROWS ? step->head_rows_count - at : RT_HEAD_ROWS;
		if (!head_block(step, at, count))
			return;
		on_logits(context, step->batch, in.head_rows + at, count, step->host.logits, kn_ld(step->spec->vocab));
		rt_stage_end(&step->stages, RT_STAGE_SAMPLE);
	}
}

/*
 * THE data path: tokens to logits. With m micro-batches, attention of one runs while the experts of
 * the others are in flight; a micro-batch continues with the next layer when its sums have arrived.
 */
enum cad_status rt_step_run(struct rt_step *step, const struct rt_batch *batch, const bool *wants,
	rt_step_logits_fn *on_logits, void *context)
{
	const struct cad_layer_spec *layers = step->spec->layers;
	uint32_t layers_count = step->spec->layers_count;

	step->batch = batch;
	step->status = CAD_OK;
	rt_stages_begin(&step->stages);
	split(step);
	upload(step, wants);
	embed(step);

	for (uint32_t layer = 0; layer <= layers_count; layer++)
		for (uint32_t m = 0; m < step->works_count; m++) {
			struct rt_work *work = &step->works[m];
			if (layer > 0 && layers[layer - 1].moe)
				combine(step, work);
			if (layer == layers_count)
				continue;
			work->layer = layer;
			attention(step, work);
			if (layers[layer].moe) {
				gate(step, work);
				route(step, work);
				shared_expert(step, work);
			} else {
				dense_ffn(step, work);
			}
		}

	head(step, on_logits, context);
	device_done(step);
	learn(step);

	return step->status;
}
