/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The step: one batch of rows through the whole model. step.c holds THE data path, one function
 * that reads top to bottom; step_memory.c what it needs.
 *
 * The engine's thread owns it. All memory is allocated at init; a step allocates nothing. Host and
 * device meet three times (kernels.h has the rules): the inputs of the batch go in once, the gate's
 * choice comes out for each micro-batch of an MoE layer, logits come out for RT_HEAD_ROWS rows at a
 * time. What the device reads or writes on the host is in `struct rt_step_host`.
 */
#ifndef CADRE_ROUTER_SVC_STEP_H
#define CADRE_ROUTER_SVC_STEP_H

#include "router-svc/moe/capacity.h"
#include "router-svc/moe/exchange.h"
#include "router-svc/model/attention.h"
#include "router-svc/model/weights.h"
#include "router-svc/stages.h"

enum { RT_HEAD_ROWS = 64 };

/* What the rows of a batch are, side by side in one block so that one copy takes it all. */
struct rt_step_inputs {
	int32_t *ids, *positions; /* [rows] */
	uint32_t *slots;          /* [rows]: of the KV cache */
	uint32_t *end;            /* [rows]: of the keys that the row sees */
	uint32_t *head_rows;      /* [rows]: those whose logits are wanted come first */
	float *scale;             /* [rows]: of its queries, by position; NULL: the model has none */
	/* [windows][rows]: the first key that the row sees in a layer with that window */
	uint32_t *begin;
	/* [runs][rope size / 2], if the only rotary embedding depends on the length of a sequence: a run
	 * is of spans that follow each other and rotate alike. Else NULL */
	float *inv_freq;
};

/* Device memory, f32 unless said; ld = kn_ld(row). */
struct rt_step_buffers {
	void *inputs;  /* struct rt_step_inputs */
	float *x;      /* [T][H]: the residual stream */
	float *normed; /* [T][H]: what attention, the gate and the experts read; kept until the sums are
	                * in, because a row may have to be sent again */
	float *attention[RT_SCRATCH_COUNT]; /* [T][rt_scratch_row] of the layer that has most; NULL: none has any */
	float *ropes[CAD_ROPES_MAX];        /* of each rope: [T][size] */
	/* [T][H]: the shared expert's output, or a dense ffn's, or attention's output projection, or all
	 * that experts gave */
	float *shared;
	float *shared_score; /* [T][1]: how much of the shared expert counts, before the sigmoid */
	float *gate_logits;  /* [T][E] */
	int32_t *routing;    /* [T][2 K]; a micro-batch has its ids, then its weights */
	int64_t *sums;       /* [T][H]: exact partial sums of the experts; zero between layers */
	float *head_rows;    /* [HEAD][H] */
	void *ffn_scratch;
};

/* Host memory that the device reads or writes, from host_alloc. */
struct rt_step_host {
	void *inputs;
	int32_t *routing;        /* as above */
	float *gate_logits;      /* as above */
	float *logits;           /* [HEAD][V]: written by the LM head itself */
	uint32_t (*all_rows)[2]; /* [micro-batches]: begin and end of the ffn that every row takes */
};

/* The routing of one step, in host memory, for reports: [moe_layers][rows_max][topk], and
 * [moe_layers][rows_max][E] for logits. */
struct rt_step_trace {
	int32_t *ids;
	float *weights, *router_logits; /* router_logits: NULL until requested */
	uint16_t *nodes;
	const char **node_ids;
	uint8_t *slots;
	uint32_t *moe_layers, moe_layers_count;
	uint32_t *layer_at; /* [layers]: of an MoE layer in moe_layers */
};

/* The windows of the layers, and their chunks, each once. */
struct rt_step_windows {
	uint32_t count;
	uint32_t *keys;     /* [count]; 0: all */
	uint32_t *chunk;    /* [count]: beginning with a multiple of it; 0: anywhere */
	uint32_t *of_layer; /* [layers]: which of them */
};

struct rt_step {
	const struct cad_model_spec *spec;
	struct kn_queue *queue;
	struct rt_weights weights;
	struct rt_kv_cache *cache;
	struct rt_exchange *exchange;
	const float *quanta; /* [layers] */
	struct rt_capacity capacity;
	struct rt_expert_counts *counts; /* [layers][E] */
	struct rt_step_windows windows;
	uint32_t rows_max, micro_batches; /* 0: whichever was measured to pay */
	struct rt_step_buffers buffers;
	struct rt_step_host host;
	struct rt_step_trace trace;
	struct rt_stages stages;
	/* What decides whether splitting pays: exponential averages, nanoseconds per layer. */
	double attention_ns, wait_ns;
	uint64_t attention_seen_ns, wait_seen_ns;
	/* of the batch at hand */
	const struct rt_batch *batch;
	struct rt_step_inputs inputs; /* on the device */
	uint32_t head_rows_count;
	struct rt_work works[RT_MICRO_BATCHES_MAX];
	uint32_t works_count;
	enum cad_status status; /* the first failure of the device; the rest of the step is meaningless */
};

struct rt_step_options {
	const struct cad_model *model;
	struct kn_device *device;
	struct kn_queue *queue;
	enum cad_weights weights;
	struct rt_kv_cache *cache;
	struct rt_exchange *exchange;
	const float *quanta;
	struct rt_policies policies;
	uint32_t rows_max, micro_batches;
	const struct cad_clock *clock;
};
/* CAD_ERR_UNSUPPORTED: the device cannot compute this model's attention. */
CAD_MUST_USE enum cad_status rt_step_init(
	struct rt_step *step, const struct rt_step_options *options, struct cad_error *error);
void rt_step_fini(struct rt_step *step);
/* From now on, router logits are kept too. */
CAD_MUST_USE enum cad_status rt_step_trace_logits(struct rt_step *step);

/* Hands out the arrays of inputs for this many rows in a block of rt_step_inputs_bytes. */
struct rt_step_inputs rt_step_inputs_at(const struct rt_step *step, void *block, uint32_t rows);
size_t rt_step_inputs_bytes(const struct rt_step *step, uint32_t rows);

/* Logits of rows rows[0 .. count - 1] of the batch, host memory with stride ld, during the call. */
typedef void rt_step_logits_fn(void *context, const struct rt_batch *batch, const uint32_t *rows, uint32_t count,
	const float *logits, size_t ld);

/* Computes the batch; afterwards the KV cache holds its rows. `wants` says for each row whether its
 * logits are wanted. Not OK: the device failed, nothing of the batch can be trusted. */
CAD_MUST_USE enum cad_status rt_step_run(struct rt_step *step, const struct rt_batch *batch, const bool *wants,
	rt_step_logits_fn *on_logits, void *context);

#endif
