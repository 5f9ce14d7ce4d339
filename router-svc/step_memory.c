/* SPDX-License-Identifier: Apache-2.0 */
/* What a step needs: weights, buffers on the device and on the host, and the trace. */
#include "router-svc/step.h"

#include <stdlib.h>

/* ---- the inputs of a batch ---- */

enum { INPUT_ARRAYS = 5 }; /* those of struct rt_step_inputs with an element a row */

size_t rt_step_inputs_bytes(const struct rt_step *step, uint32_t rows)
{
	size_t words = INPUT_ARRAYS + step->windows.count;

	words += step->spec->position_scale.positions > 0;
	if (cad_rope_varies(&step->spec->rope))
		words += step->spec->rope.size / 2; /* a row may be a run */
	return rows * words * sizeof(uint32_t);
}

struct rt_step_inputs rt_step_inputs_at(const struct rt_step *step, void *block, uint32_t rows)
{
	bool varies = cad_rope_varies(&step->spec->rope), scaled = step->spec->position_scale.positions > 0;
	uint32_t *words = block, *begin = words + (INPUT_ARRAYS + scaled) * (size_t)rows;

	return (struct rt_step_inputs){
		.ids = (int32_t *)words,
		.positions = (int32_t *)words + rows,
		.slots = words + 2 * (size_t)rows,
		.end = words + 3 * (size_t)rows,
		.head_rows = words + 4 * (size_t)rows,
		.scale = scaled ? (float *)words + INPUT_ARRAYS * (size_t)rows : NULL,
		.begin = begin,
		.inv_freq = varies ? (float *)(begin + (size_t)step->windows.count * rows) : NULL,
	};
}

/* ---- memory of the device, and memory of the host that the device knows ---- */

enum { BLOCKS_MAX = 32 };

struct blocks {
	struct block {
		void **at;
		size_t bytes;
		bool host;
	} list[BLOCKS_MAX];
	size_t count;
};

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

/* `pointer` is the address of any pointer. */
static void add(struct blocks *blocks, bool host, void *pointer, size_t bytes)
{
	CAD_ASSERT(blocks->count < BLOCKS_MAX);
	blocks->list[blocks->count++] = (struct block){ pointer, bytes, host };
}

/* What attention makes of a row: as much as the layer with most has. */
static void add_scratch(
	struct blocks *blocks, const struct cad_model_spec *spec, size_t rows, struct rt_step_buffers *b)
{
	for (enum rt_scratch s = 0; s < RT_SCRATCH_COUNT; s++) {
		size_t row = 0;
		for (uint32_t i = 0; i < spec->attentions_count; i++)
			row = most(row, rt_scratch_row(&spec->attentions[i], s));
		if (row > 0)
			add(blocks, false, &b->attention[s], rows * kn_ld(row) * sizeof(float));
	}
}

/* Everything that a step needs, in one list: init takes it, fini gives it back. */
static void list_blocks(struct rt_step *step, struct blocks *blocks)
{
	const struct cad_model_spec *spec = step->spec;
	struct rt_step_buffers *b = &step->buffers;
	struct rt_step_host *h = &step->host;
	size_t rows = step->rows_max, experts = spec->gate.experts, topk = spec->gate.topk, f = sizeof(float),
	       hidden = kn_ld(spec->hidden) * f, inputs = rt_step_inputs_bytes(step, step->rows_max),
	       routing = rows * 2 * topk * sizeof *b->routing, ffn = most(spec->dense.size, spec->shared.size);

	*blocks = (struct blocks){ 0 };
	add(blocks, false, &b->inputs, inputs);
	add(blocks, true, &h->inputs, inputs);
	add(blocks, true, &h->all_rows, RT_MICRO_BATCHES_MAX * sizeof *h->all_rows);
	add(blocks, false, &b->x, rows * hidden);
	add(blocks, false, &b->normed, rows * hidden);
	add(blocks, false, &b->shared, rows * hidden);
	add_scratch(blocks, spec, rows, b);
	for (uint32_t i = 0; i < spec->ropes_count; i++)
		add(blocks, false, &b->ropes[i], rows * spec->ropes[i].size * f);
	add(blocks, false, &b->head_rows, RT_HEAD_ROWS * hidden);
	add(blocks, true, &h->logits, RT_HEAD_ROWS * kn_ld(spec->vocab) * f);
	if (experts > 0) {
		add(blocks, false, &b->sums, rows * spec->hidden * sizeof *b->sums);
		add(blocks, false, &b->gate_logits, rows * kn_ld(experts) * f);
		add(blocks, true, &h->gate_logits, rows * kn_ld(experts) * f);
		add(blocks, false, &b->routing, routing);
		add(blocks, true, &h->routing, routing);
	}
	if (spec->shared_gate)
		add(blocks, false, &b->shared_score, rows * kn_ld(1) * f);
	if (ffn > 0)
		add(blocks, false, &b->ffn_scratch,
			step->queue->ops->ffn_scratch_bytes(step->queue, rows, spec->hidden, ffn, false));
}

static bool blocks_take(struct rt_step *step, struct kn_device *device)
{
	struct blocks blocks;
	bool whole = true;

	list_blocks(step, &blocks);
	for (size_t i = 0; i < blocks.count; i++) {
		struct block *b = &blocks.list[i];
		*b->at = (b->host ? device->ops->host_alloc : device->ops->alloc)(device, b->bytes);
		whole = whole && *b->at;
	}
	return whole;
}

static void blocks_release(struct rt_step *step, struct kn_device *device)
{
	struct blocks blocks;

	list_blocks(step, &blocks);
	for (size_t i = 0; i < blocks.count; i++) {
		struct block *b = &blocks.list[i];
		(b->host ? device->ops->host_release : device->ops->release)(device, *b->at, b->bytes);
	}
}

/* ---- windows and trace ---- */

static bool windows_init(struct rt_step_windows *windows, const struct cad_model_spec *spec)
{
	windows->count = 0;
	windows->keys = malloc(spec->layers_count * sizeof *windows->keys);
	windows->chunk = malloc(spec->layers_count * sizeof *windows->chunk);
	windows->of_layer = malloc(spec->layers_count * sizeof *windows->of_layer);
	if (!windows->keys || !windows->chunk || !windows->of_layer)
		return false;

	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		uint32_t w = 0, keys = spec->layers[layer].window, chunk = spec->layers[layer].chunk;
		while (w < windows->count && (windows->keys[w] != keys || windows->chunk[w] != chunk))
			w++;
		windows->keys[w] = keys;
		windows->chunk[w] = chunk;
		windows->count += w == windows->count;
		windows->of_layer[layer] = w;
	}
	return true;
}

static bool trace_init(struct rt_step *step)
{
	const struct cad_model_spec *spec = step->spec;
	struct rt_step_trace *trace = &step->trace;

	trace->moe_layers = malloc(spec->layers_count * sizeof *trace->moe_layers);
	trace->layer_at = malloc(spec->layers_count * sizeof *trace->layer_at);
	if (!trace->moe_layers || !trace->layer_at)
		return false;
	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		trace->layer_at[layer] = trace->moe_layers_count;
		if (spec->layers[layer].moe)
			trace->moe_layers[trace->moe_layers_count++] = layer;
	}

	size_t slots = (size_t)trace->moe_layers_count * step->rows_max * spec->gate.topk + 1;
	trace->ids = malloc(slots * sizeof *trace->ids);
	trace->weights = malloc(slots * sizeof *trace->weights);
	trace->nodes = malloc(slots * sizeof *trace->nodes);
	trace->node_ids = calloc(slots, sizeof *trace->node_ids);
	trace->slots = malloc(slots);

	return trace->ids && trace->weights && trace->nodes && trace->node_ids && trace->slots;
}

enum cad_status rt_step_trace_logits(struct rt_step *step)
{
	if (!step->trace.router_logits)
		step->trace.router_logits =
			malloc(((size_t)step->trace.moe_layers_count * step->rows_max * step->spec->gate.experts + 1) *
				sizeof(float));
	return step->trace.router_logits ? CAD_OK : CAD_ERR_MEMORY;
}

/* ---- the whole ---- */

static enum cad_status check_device(
	const struct kn_device *device, const struct cad_model_spec *spec, struct cad_error *error)
{
	struct kn_device_info info;
	device->ops->describe(device, &info);
	if (!info.complete)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"device '%s' has the operators of an expert node only: a router computes on 'cpu'", info.name);
	for (uint32_t i = 0; i < spec->attentions_count; i++) {
		const struct cad_attention_spec *a = &spec->attentions[i];
		size_t size = most(a->head_size, a->value_size);
		if (size > info.head_size_max)
			return cad_error_set(error, CAD_ERR_UNSUPPORTED,
				"the model's attention heads have %zu elements, and device '%s' computes at most %u",
				size, info.name, info.head_size_max);
	}
	return CAD_OK;
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
		.stages = { .clock = options->clock },
		.capacity = { .policy = options->policies.capacity, .factor = options->policies.capacity_factor },
		.rows_max = options->rows_max,
		.micro_batches = options->micro_batches,
	};
	enum cad_status status = check_device(options->device, spec, error);
	if (status == CAD_OK)
		status = rt_weights_init(&step->weights, options->device, options->model, options->weights, error);
	if (status != CAD_OK) {
		step->spec = NULL;
		return status;
	}

	step->counts = calloc((size_t)spec->layers_count * spec->gate.experts + 1, sizeof *step->counts);
	step->capacity.used = calloc(spec->gate.experts + 1, sizeof *step->capacity.used);
	if (windows_init(&step->windows, spec) && blocks_take(step, options->device) && trace_init(step) &&
		step->counts && step->capacity.used)
		return CAD_OK;
	rt_step_fini(step);

	return cad_error_set(error, CAD_ERR_MEMORY, "no memory for steps of %u rows: make them smaller (--step-tokens)",
		options->rows_max);
}

void rt_step_fini(struct rt_step *step)
{
	if (!step->spec)
		return;

	blocks_release(step, step->weights.device);
	rt_weights_fini(&step->weights);
	struct rt_step_trace *trace = &step->trace;
	free(trace->moe_layers);
	free(trace->layer_at);
	free(trace->ids);
	free(trace->weights);
	free(trace->router_logits);
	free(trace->nodes);
	free((void *)trace->node_ids);
	free(trace->slots);
	free(step->windows.keys);
	free(step->windows.chunk);
	free(step->windows.of_layer);
	free(step->counts);
	free(step->capacity.used);
	*step = (struct rt_step){ 0 };
}
