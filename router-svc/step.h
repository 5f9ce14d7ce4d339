/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The step: one batch of rows through the whole model. step.c holds THE data path, one function
 * that reads top to bottom.
 *
 * The engine's thread owns it. All memory is taken at init; a step allocates nothing. Buffers
 * (device, f32 unless said; ld = kn_ld(row)):
 *
 *   x        [T][H]           the residual stream
 *   normed   [T][H]           what attention, the gate and the experts read; kept until the sums
 *            are in, because a row may have to be sent again
 *   q, k, v  [T][heads * D], [T][kv_heads * D], [T][kv_heads * Dv]        attended [T][heads * Dv]
 *   sums     i64 [T][H]       exact partial sums of the routed experts; zero between layers
 *   shared   [T][H]           the shared expert's output, or a dense ffn's, or attention's output
 *            projection
 *   logits   [HEAD][V]        of at most RT_HEAD_ROWS rows at a time
 */
#ifndef CADRE_ROUTER_SVC_STEP_H
#define CADRE_ROUTER_SVC_STEP_H

#include "router-svc/moe/capacity.h"
#include "router-svc/moe/exchange.h"
#include "router-svc/model/weights.h"
#include "router-svc/stages.h"

enum { RT_HEAD_ROWS = 64 };

struct rt_step_buffers {
	float *x, *normed, *q, *k, *v, *attended, *shared, *gate_logits, *rope, *logits, *head_rows;
	int64_t *sums;
	int32_t *ids, *positions, *gate_ids;
	float *gate_weights;
	uint32_t *begin, *end;
	uint32_t *slots;
	void *ffn_scratch;
};

/* What the routing of one step was, host memory, for reports: [moe_layers][rows_max][topk], and
 * [moe_layers][rows_max][E] for logits. */
struct rt_step_trace {
	int32_t *ids;
	float *weights, *router_logits; /* router_logits: NULL until somebody wants them */
	uint16_t *nodes;
	const char **node_ids;
	uint8_t *slots;
	uint32_t *moe_layers, moe_layers_count;
};

struct rt_step {
	const struct cad_model_spec *spec;
	struct kn_queue *queue;
	struct rt_weights weights;
	struct rt_kv_cache *cache;
	struct rt_exchange *exchange;
	const float *quanta; /* [layers] */
	struct rt_capacity capacity;
	struct rt_expert_counts *counts;  /* [layers][E] */
	uint32_t rows_max, micro_batches; /* 0: by what was seen to pay */
	struct rt_step_buffers buffers;
	struct rt_step_trace trace;
	struct rt_work works[RT_MICRO_BATCHES_MAX];
	const struct cad_clock *clock;
	_Atomic uint64_t stage_ns[RT_STAGE_COUNT];
	/* What decides whether splitting pays: exponential averages, nanoseconds a layer. */
	double attention_ns, wait_ns;
};

struct rt_step_options {
	const struct cad_model *model;
	struct kn_device *device;
	struct kn_queue *queue;
	enum cad_weights weights;
	struct rt_kv_cache *cache;
	struct rt_exchange *exchange;
	const float *quanta;
	enum rt_capacity_policy capacity_policy;
	float capacity_factor;
	uint32_t rows_max, micro_batches;
	const struct cad_clock *clock;
};
CAD_MUST_USE enum cad_status rt_step_init(
	struct rt_step *step, const struct rt_step_options *options, struct cad_error *error);
void rt_step_fini(struct rt_step *step);
/* From now on router logits are kept too. */
CAD_MUST_USE enum cad_status rt_step_trace_logits(struct rt_step *step);

/* Logits of rows rows[0 .. count - 1] of the batch are in step->buffers.logits (host copy at
 * `logits`, stride ld) during the call. */
typedef void rt_step_logits_fn(void *context, const struct rt_batch *batch, const uint32_t *rows, uint32_t count,
	const float *logits, size_t ld);

/* Computes the batch; afterwards the KV cache holds its rows. `wants` says for each row whether its
 * logits are wanted. */
CAD_MUST_USE enum cad_status rt_step_run(struct rt_step *step, const struct rt_batch *batch, const bool *wants,
	rt_step_logits_fn *on_logits, void *context);

/* model/attention.c: norm, q, k, v, rotation, KV cache, attention, output projection, residual, for
 * rows first .. first + rows - 1. */
void rt_attention(struct rt_step *step, const struct rt_batch *batch, uint32_t layer, uint32_t first, uint32_t rows);

#endif
