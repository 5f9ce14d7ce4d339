/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every operator of Cadre, with its shapes and its declared order of summation, and the contract
 * between a device and its users. kernels/README.md says how to add either.
 *
 * Operators are reached through one C table per device (`struct kn_ops`). A *device* owns memory; a
 * *queue* orders work on it (on a CPU it is a pool of threads, on a GPU a stream).
 *
 * The contract. The CPU does everything at once, and so keeps it without effort; a GPU does not,
 * and the late device of the tests keeps to the letter of it.
 *
 * Q1 Order. What is put on a queue (copies and operators) is done in the order of the calls. The
 *    calls return at once; the work is done when `wait` returns. Two queues know nothing of each
 *    other: what one made may be used on another after a wait.
 * Q2 Threads. One thread at a time uses a queue; queues of one device may be used by different
 *    threads. What takes a device and no queue may be called by any thread, and is done on return.
 * Q3 Errors. Operators and copies cannot fail on valid arguments (shapes are the caller's promise,
 *    asserted) and allocate nothing. When the device itself fails, `wait` says so, and so does
 *    every later wait of that queue; what was computed since the previous wait is worthless.
 * M1 Device memory. Pointers are device memory unless the comment says host. The host may compute
 *    with such an address, and never reads or writes through it. It may be released, and a queue
 *    destroyed, when all that uses it has been waited for.
 * M2 Host memory that a queue reads: the source of copy_in, and whatever an operator's comment
 *    calls host and does not call out. It lives, and the host leaves it unchanged, until the next
 *    wait: nothing on the stack of a function that returns before.
 * M3 Host memory that a queue writes: the destination of copy_out, and what a comment calls host
 *    out. It lives until the next wait; what it holds means nothing before, and the host does not
 *    write to it.
 * M4 Which host memory. Any will do. From `host_alloc` a device copies fastest (a GPU: pinned
 *    memory), so what every step copies is there; a device can also write to it directly, and one
 *    operator is asked to: the logits of a large vocabulary are not worth a copy. So are the
 *    exchange's buffers for large calls on a GPU's node, from which rows_unpack copies without the
 *    host. A transport that sends from device memory needs one more kind in struct cad_buffer, and
 *    a rows_pack and a combine_pack that write there.
 * M5 Structs. An operator's argument struct is copied by the call. What it points to on the host
 *    (struct kn_matrix, kn_expert, kn_table, kn_kv, cad_gate_spec, arrays) falls under M2.
 * M6 Handles. Weights, tables and the KV cache are laid out as the device likes, behind `own`: no
 *    one else looks inside. The device is asked for their sizes as well.
 *
 * Same bits: an output row depends only on its own inputs and the weights, by an order of summation
 * that depends only on shapes, never on the number of rows, tiles or threads. The forms of the CPU
 * (ref, avx2, avxvnni, avx512, amx) give equal bits; cpu/ref/ is the definition. The compiler
 * contracts nothing: fma() is written where it is meant. Threads run with the default MXCSR (round
 * to nearest, no flush to zero).
 *
 * Symbols: T rows (tokens), H hidden, F ffn, E experts, K experts per token, P pairs (row, expert
 * slot), D head size, V vocabulary.
 *
 * Activations are f32 rows with a stride `ld` in floats: ld == kn_ld(n) for rows of n elements.
 * Elements n .. round_up(n, 64) - 1 of a row are zero: operators that make new rows write the
 * zeros, those that change rows in place leave them (they take part in the sums of the next GEMM as
 * +0); what lies beyond is never read. Rows are 64-byte aligned. kn_ld avoids strides that are a
 * multiple of 4 KiB.
 */
#ifndef CADRE_KERNELS_KERNELS_H
#define CADRE_KERNELS_KERNELS_H

#include "common/model/spec.h"
#include "common/process/options.h"
#include "common/base/status.h"
#include "proto/cadre_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	KN_PAGE_KEYS = 32,   /* keys of a KV page */
	KN_CHUNK_KEYS = 512, /* keys of an attention chunk; chunks are merged in ascending order */
	KN_THREADS_MAX = 64,
	/* of a key and of a value of latent attention, whose keys end with what rotates */
	KN_KEY_SIZE_MAX = CAD_KV_RANK_MAX + CAD_KV_ROPE_MAX,
	KN_VALUE_SIZE_MAX = CAD_KV_RANK_MAX,
};

static inline size_t kn_round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }
static inline size_t kn_ld(size_t n) { return kn_round_up(n, 64) + 16; }

/* ---- weights ---- */

/* A tensor of a checkpoint, host memory: [n][k] row-major of dtype F32, F16 or BF16, of any
 * alignment. A vector is [n][1]. data NULL: there is no such tensor.
 * A matrix may be of F8_E4M3 or MXFP4 with scales, and its rows, and the values of a row, may have steps between
 * them (struct cad_tensor). values.h reads them all; devices' vectors and tables know the plain ones alone, and
 * of vectors those with a row_step. */
struct kn_source {
	const void *data;
	enum cad_dtype dtype;
	size_t n, k;
	size_t row_step, value_step;
	struct cad_scales scales; /* data NULL: they stand in the rows, as in images */
	bool mixed;               /* struct cad_tensor */
};

/* The tensors of one expert (or a dense ffn, or a shared expert): gate and up [F][H], down [H][F];
 * biases [F], [F], [H] or absent. Each has a type of its own, and so have those of other experts; but
 * all three matrices of an image are quantised, or none. */
struct kn_expert_source {
	struct kn_source gate, up, down, gate_bias, up_bias, down_bias;
	const struct cad_ffn_spec *spec;
};

/* Packed weights of n outputs and k inputs. `bytes` is what they take on the device. */
struct kn_matrix {
	size_t n, k;
	uint64_t bytes;
	void *own; /* the device's */
};

/* Rows that are looked up, not multiplied: the embedding, [n][k]. */
struct kn_table {
	size_t n, k;
	uint64_t bytes;
	void *own;
};

/* One expert, packed with its activation. ffn 0: none. */
struct kn_expert {
	size_t hidden, ffn;
	uint64_t bytes;
	void *own;
};

/* ---- the KV cache ---- */

/* Pages of 32 keys and values for every layer, as f32, rounded to bf16 (to nearest even), or as int8:
 * each key and each value of a head as integers q with a scale of its own (quantise.h, range 127),
 * so that what is kept of a token depends on that token alone. A page belongs to one sequence,
 * whose page table says which pages hold its keys 0 .. 31, 32 .. 63 and so on. With latent attention
 * a value is the first value_size elements of its key (of int8 with the key's scale), and not kept
 * apart. */
struct kn_kv {
	enum cad_kv type;
	size_t layers, pages, kv_heads, key_size, value_size;
	bool latent; /* value_size < key_size */
	uint64_t bytes;
	void *own;
};

/* The page table of row r's sequence begins at pages[slot[r] * ld]. */
struct kn_page_tables {
	const uint32_t *pages; /* [slots][ld] */
	size_t ld;
	const uint32_t *slot; /* [rows] */
};

/* ---- operators ---- */

/* x[r] = row ids[r] of the table, as f32, times `scale`, rounded. */
struct kn_embed {
	const struct kn_table *table;
	const int32_t *ids; /* [rows] */
	size_t rows;
	float scale; /* 1: as it is (granite: embedding_multiplier) */
	float *x;    /* [rows][ldx] */
	size_t ldx;
};

/* y[r] = x[r] W^T + bias, then divided by `divisor` when that is not 0, then clamped to [-clip, clip]
 * when clip > 0. Each output: acc = fma(x[k],
 * w[k], acc), k ascending over k rounded up to 32, from +0; then + bias. y is not x. Quantised
 * weights (CAD_WEIGHTS_INT8, INT4): x is quantised too, k padded with zeros to a multiple of
 * KN_GROUP (quantise.h). For each group, ascending: dot = the exact integer sum of q_x[k] * q_w[k],
 * of int4 q_w = (u - z) * s; acc = fma((float)dot, scale_x * scale_w, acc), the product of the
 * scales rounded to f32 first, from +0; then + bias.
 * Weights of profile bf16 (CAD_WEIGHTS_BF16_ROWS): x is rounded to bf16 too, to nearest even. For
 * each 32 values of k, ascending: even = the chain of fma over the even k, from +0, odd = that over
 * the odd ones; acc = acc + (even + odd), from +0; then + bias. But for the bias, subnormal
 * operands count as zeros of their sign, and results below 2^-126 after rounding become such zeros
 * (x86's DAZ and FTZ). This is the order that AMX's TDPBF16PS was seen to have, on one model of
 * processor, over millions of sums: kn_fingerprint goes through it, so another order would be
 * noticed.
 * Weights of profile bf16-sm90 (CAD_WEIGHTS_BF16_SM90): x is rounded to bf16 too, to nearest even.
 * For each 16 values of k, ascending, acc = acc + the 16 products in one step, from +0; then + bias.
 * A step: products are exact, their exponents the sums of their factors' (a product of significands
 * is not normalised: it is below 4), and subnormals have the exponent -126. Every term, acc among
 * them, is cut toward zero to a multiple of 2^(t - 25), t the largest exponent of the terms that are
 * not zero, and at least -126. The sum of what is left is cut toward zero to f32, subnormals kept; a
 * sum of nothing is +0, one that is too large infinite. NaN, infinity by zero and infinities of both
 * signs give the NaN 7fffffff. That is what mma.sync and wgmma do on an H200 (sm90.h,
 * docs/decisions/gpu-numerics.md). */
struct kn_linear {
	const float *x;
	size_t ldx, rows;
	const struct kn_matrix *w;
	const float *bias; /* [n] or NULL */
	float divisor;     /* of logits (granite: logits_scaling), of values (mimo) */
	float clip;
	float *y; /* [rows][ldy]; or host out, of host_alloc */
	size_t ldy;
};

/* For each head h of a row: y[h] = x[h] W[h]^T as kn_linear has it, and after these n elements the
 * `tail` elements of x[h] that follow its k. A head of x has k + tail elements, one of y n + tail,
 * side by side. y is not x. The weights are not quantised. This is how latent attention is absorbed
 * into queries (W the part of kv_b_proj that makes keys, turned around; the tail rotates) and out of
 * what was attended (the part that makes values): q . (W c) = (W^T q) . c. Source: DeepSeek-V2,
 * arXiv 2405.04434, section 2.1.2. */
struct kn_linear_heads {
	const float *x;
	size_t ldx, rows, heads, tail;
	const struct kn_matrix *w; /* host, [heads]: all [n][k] */
	float *y;
	size_t ldy;
};

/*
 * out[r] = x[i] * (1 / sqrt(mean(x[i]^2) + epsilon)) * weight, in that order of multiplication; i =
 * index[r], or r when index is NULL: then out may be x. Each row is `parts` parts of n elements
 * (heads of a projection), each normalised on its own with the same weight; parts == 1 for a plain
 * row.
 * Order: element i belongs to lane i % 16, a lane sums its squares by fma in ascending i, then
 * halves of 8, 4, 2, 1 lanes are added; / n.
 */
struct kn_rmsnorm {
	const float *x;
	size_t ldx;
	const uint32_t *index; /* [rows] or NULL */
	size_t rows, parts, n;
	const float *weight; /* [n] */
	float epsilon;
	/* > 0: the result is clamped to [-clip, clip] (olmoe clamps q and k after their norms) */
	float clip;
	float *out;
	size_t ldo;
};

/* cos and sin of position * inv_freq (the product rounded to f32, as transformers does), times
 * attention_factor: [rows][2][size / 2], cosines first. */
struct kn_rope_table {
	const int32_t *positions; /* [rows] */
	size_t rows;
	const float *inv_freq; /* [size / 2] */
	size_t size;
	float attention_factor;
	float *out;
};
/* Rotates the first `size` elements of each of `heads` heads of a row, in place. Pair (i, i +
 * size/2), or (2i, 2i+1) when interleaved.
 * a' = fma(a, cos, -(b * sin)), b' = fma(b, cos, a * sin), the inner product rounded first. */
struct kn_rope {
	float *x;
	size_t ldx, rows, heads, head_size, size;
	bool interleaved;
	const float *table; /* from kn_rope_table */
};

/* Writes row r's key and value at position positions[r] of its sequence, rounded as the cache keeps
 * them. */
struct kn_kv_write {
	const struct kn_kv *kv;
	size_t layer, rows;
	const float *k, *v; /* [rows][ld]: heads side by side; v is not read where keys hold the values */
	size_t ldk, ldv;
	const int32_t *positions; /* [rows] */
	struct kn_page_tables tables;
};

/*
 * Row r with its `heads` queries sees the keys begin[r] .. end[r] - 1 of its sequence, begin < end.
 * Query head h uses KV head h / (heads / kv_heads). K and V are what the cache keeps, widened
 * to f32: of int8 the q, whose scales sk and sv apply to a key's score and a value's weight.
 * Chunk c holds keys 512c .. 512c + 511; only chunks and pages that meet [begin, end) are visited,
 * and only keys inside it take part.
 * In a chunk, per page in order: s[j] = (chain of fma over d of q[d] * K[d][j]) * scale; m' =
 * max(m, s); a = exp(m - m'); p[j] = exp(s[j] - m');
 * l = fma(l, a, tree(p)); out[d] = out[d] * a, then out[d] = fma(p[j], V[j][d], out[d]) over the
 * row's keys j ascending. With int8, (chain * sk[j]) * scale, and p[j] * sv[j] in the last step.
 * tree: absent keys are +0; p[2i] + p[2i+1], then halves of 8, 4, 2, 1. Chunks are merged
 * ascending, first to last:
 * m' = max(m, mc); a = exp(m - m'), b = exp(mc - m'); l = fma(l, a, lc * b); out = fma(out, a, outc
 * * b), from m = -inf, l = 0, out = 0. A sink (gpt_oss) is merged last as a chunk with mc = sink,
 * lc = 1, outc = 0. Then out = out / l. exp is kn_exp's polynomial (exp.h).
 */
struct kn_attend {
	const struct kn_kv *kv;
	size_t layer, rows, heads;
	const float *q; /* [rows][ldq] */
	size_t ldq;
	float scale;
	const uint32_t *begin, *end; /* [rows] */
	struct kn_page_tables tables;
	const float *sinks; /* [heads] or NULL */
	float *out;         /* [rows][ldo], heads side by side, value_size each */
	size_t ldo;
};

/*
 * logits[r][E] -> ids[r][K] in descending choice score (ties to the lower id) and weights[r][K].
 * Softmax: exact max, then e^(x - max) summed as in kn_rmsnorm (lanes of 16, then halves), then
 * each divided by the sum. bias: NULL or [E], added to the scores for the choice only. All per
 * cad_gate_spec:
 * score (or the logit itself, with softmax_after_topk and, for the choice alone, with
 * choice_by_logit), + bias, experts outside the kept groups
 * are not candidates (dropped_zero: count as 0), top-k, softmax over the chosen where asked, then where asked w / (the sum over
 * slots ascending + epsilon, or `least` if that is more), then * scale. Source: transformers
 * modeling_{mixtral,deepseek_v2,deepseek_v3,gpt_oss,ernie4_5_moe,kolibri1}.py.
 * NaN is below everything: ids are valid and different whatever the logits, weights may be NaN, and
 * the caller looks at them before it dispatches.
 */
struct kn_gate {
	const struct cad_gate_spec *spec; /* host */
	const float *logits;
	size_t ld, rows;
	const float *bias;
	int32_t *ids;
	float *weights;
};

/*
 * Grouped ffn: pair p in [begin[e], begin[e+1]) goes through experts[e] and reads row row_index[p]
 * of x (row p when NULL); y[p] = down(act(gate(x)) * up(x)).
 * SILU: h = g / (1 + exp(-g)) * u. Each GEMM output by kn_linear's chain. The experts share H, F and
 * how weights are kept (enum cad_weights); those that are kept as they are may be of different types.
 * Experts that weigh their input (struct cad_ffn_spec): gate and up are multiplied by weight[p] where
 * there is one, before biases are added, and y[p] is not weighed again: 1 stands for its weight below.
 *
 * With y NULL, the exact combine's part on an expert node: q = rint(weight[p] * y[p] / quantum), the
 * exact product rounded once, is added to the sums of the row that pair p reads; quantum is a power
 * of two. A pair poisons its row where |q| >= 2^53, NaN or infinity: the row's sums are then
 * worthless. Sums of integers have no order, so a device may add as it likes.
 */
struct kn_ffn {
	const struct kn_expert *const *experts; /* host, [experts_count] */
	size_t experts_count;
	const uint32_t *begin;     /* host, [experts_count + 1] */
	const uint32_t *row_index; /* [P] or NULL */
	const float *x;            /* [rows][ldx] */
	size_t ldx, rows, hidden;
	float *y; /* [P][ldy], or NULL: sums */
	size_t ldy;
	const float *weight; /* [P]; with y, NULL, unless the experts weigh their input */
	float quantum;
	int64_t *sums;    /* [rows][hidden], whole: rows without a pair are zeros */
	uint32_t *poison; /* [rows]: the lowest pair that poisons the row; UINT32_MAX: none */
	void *scratch;    /* ffn_scratch_bytes(P', H, F, sums), P' >= P and rows */
};

/* x[r][0..n) += scale * y[r][0..n), the product rounded. */
struct kn_add {
	float *x;
	const float *y;
	size_t ldx, ldy, rows, n;
	float scale;
};

/* x[r][0..n) *= scale[r]. */
struct kn_scale_rows {
	float *x;
	size_t ldx, rows, n;
	const float *scale; /* [rows] */
};

/* Rows for the wire (proto/cadre_wire.h, rules in proto/WIRE.md): row i of the message is
 * x[index[i]].
 * A row that its type cannot hold goes as f32: decided by the row alone. That is one whose max|x|
 * over its rms is above CADRE_ROW_RATIO_MAX, or which is not finite; of Q8, one with a scale of NaN
 * (quantise.h). */
struct kn_rows_pack {
	const float *x;
	size_t ldx, n;
	const uint32_t *index; /* host, [rows] */
	size_t rows;
	enum cadre_row_type type;
	struct cadre_wire_row *heads; /* host out, [rows] */
	uint8_t *data;                /* host out, room for rows * cadre_row_bytes_max(n) bytes */
	size_t *data_bytes;           /* host out: how many were written */
};
struct kn_rows_unpack {
	const struct cadre_wire_row *heads; /* host, [rows] */
	const uint8_t *data;                /* host; checked by cad_wire_call_check */
	size_t rows, n;
	float *x;
	size_t ldx;
};

/* Sums for the wire, as kn_ffn leaves them: each row in the narrowest of 16, 24, 32, 64 bits that
 * holds it. A poisoned row has no data, and names the expert of its pair. */
struct kn_combine_pack {
	const int64_t *sums;    /* [rows][n] */
	const uint32_t *poison; /* [rows] */
	size_t rows, n;
	const uint32_t *pair_expert; /* host, [pairs] */
	size_t pairs;
	struct cadre_wire_sum *heads; /* host out, [rows] */
	uint8_t *data;                /* host out, room for rows * 8 * n bytes */
	size_t *data_bytes;           /* host out */
};
/* On the router: sums[index[i]] += row i of an answer (checked by cad_wire_answer_check, no
 * poisoned rows). */
struct kn_combine_add {
	const struct cadre_wire_sum *heads; /* host, [rows] */
	const uint8_t *data;                /* host */
	size_t rows, n;
	const uint32_t *index; /* host, [rows] */
	int64_t *sums;         /* [T][n] */
};
/* x[r] = x[r] + scale * (routed + share * shared[r]), each product and sum rounded: routed =
 * (float)sums[r] * quantum, share = sigmoid(score[r]), or 1 when score is NULL; without shared, x[r]
 * + scale * routed. `apart`: x[r] becomes what would be added to it; shared may then be x. Clears
 * sums. Source: transformers modeling_{qwen2_moe,granitemoeshared,kolibri1}.py. */
struct kn_combine_finish {
	float *x;
	bool apart;
	size_t ldx, rows, n;
	int64_t *sums;
	float quantum;
	const float *shared; /* [rows][lds] or NULL */
	size_t lds;
	float scale;        /* 1: as it is (granite: residual_multiplier) */
	const float *score; /* [rows] of stride ld_score, or NULL */
	size_t ld_score;
};

/* ---- devices ---- */

struct kn_device;
struct kn_queue;

/* What a device is. */
struct kn_device_info {
	const char *name;      /* "cpu", "cuda:0": as the option has it */
	const char *isa;       /* "avx2": the form of its kernels */
	const char *chip;      /* its model, "NVIDIA H200"; "" of a CPU */
	uint64_t others_bytes; /* of its memory, that others had when it was opened; 0 of a CPU */
	uint64_t memory_bytes; /* that may still be taken; asked again each time */
	/* of memory that is the device's own; 0: it has the host's, which others need too */
	uint64_t memory_total_bytes;
	/* of its own memory: what each queue takes, and what is left to the driver */
	uint64_t queue_bytes, driver_bytes;
	uint32_t profiles;        /* what it computes: bits 1 << enum cad_profile */
	const char *without_sm90; /* why not in profile bf16-sm90; NULL: there is nothing to say */
	uint32_t head_size_max;   /* of attention */
	/* has every operator. Otherwise it has those of an expert node: memory, queues, experts, ffn,
	 * rows_unpack, combine_pack; all others are NULL in its table. */
	bool complete;
};

/* What of a step a device spends its time on. */
enum kn_stage { KN_STAGE_COPY, KN_STAGE_UNPACK, KN_STAGE_FFN, KN_STAGE_COMBINE, KN_STAGE_COUNT };
enum { KN_FAILURE_BYTES = 200 };

/* The state of a device, as its driver tells it: bytes, shares of time, Hz, W, degrees Celsius,
 * errors since the driver was loaded. NaN: not known. */
enum kn_health_value {
	KN_HEALTH_MEMORY_USED,
	KN_HEALTH_MEMORY_TOTAL,
	KN_HEALTH_BUSY,
	KN_HEALTH_MEMORY_BUSY,
	KN_HEALTH_SM_CLOCK,
	KN_HEALTH_MEMORY_CLOCK,
	KN_HEALTH_POWER,
	KN_HEALTH_TEMPERATURE,
	KN_HEALTH_ECC_CORRECTED,
	KN_HEALTH_ECC_UNCORRECTED,
	KN_HEALTH_COUNT,
};
/* Why its clocks are lower than they could be. */
enum kn_throttle {
	KN_THROTTLE_POWER,
	KN_THROTTLE_HEAT,
	KN_THROTTLE_POWER_BRAKE,
	KN_THROTTLE_HARDWARE,
	KN_THROTTLE_COUNT
};
struct kn_health {
	double values[KN_HEALTH_COUNT];
	bool throttling_known;
	uint32_t throttled; /* bits 1 << enum kn_throttle */
};

struct kn_ops {
	const char *name; /* "cpu" */
	void (*describe)(const struct kn_device *device, struct kn_device_info *info);
	void (*destroy)(struct kn_device *device);

	/* Memory, 64-byte aligned and zeroed, ready for every queue; NULL when there is no room.
	 * NULL may be released. */
	void *(*alloc)(struct kn_device *device, size_t bytes);
	void (*release)(struct kn_device *device, void *memory, size_t bytes);
	void *(*host_alloc)(struct kn_device *device, size_t bytes);
	void (*host_release)(struct kn_device *device, void *memory, size_t bytes);

	enum cad_status (*queue_create)(struct kn_device *device, unsigned threads, struct kn_queue **queue);
	void (*queue_destroy)(struct kn_queue *queue);
	void (*copy_in)(struct kn_queue *queue, void *device_memory, const void *host, size_t bytes);
	void (*copy_out)(struct kn_queue *queue, void *host, const void *device_memory, size_t bytes);
	enum cad_status (*wait)(struct kn_queue *queue);
	/* Whether the device has failed, for good: what it said, and in what. Any thread. NULL: it
	 * does not fail alone. */
	bool (*failed)(const struct kn_device *device, char text[KN_FAILURE_BYTES]);
	/* False and a sentence: nothing is known, and nothing will be. One thread at a time; may take
	 * long. A device that is lost or damaged by this has failed. NULL: it has no such state. */
	bool (*health)(struct kn_device *device, struct kn_health *health, char why[KN_FAILURE_BYTES]);
	/* Adds the device's own time, in seconds, of what the queue did since the last call and was
	 * waited for; never waits itself. NULL: it has no clock of its own. */
	void (*times)(struct kn_queue *queue, double seconds[KN_STAGE_COUNT]);

	/* What the create functions will take: of sources as they get them, whose data may be NULL, and
	 * of weights of a profile that the device has. */
	uint64_t (*matrix_bytes)(
		const struct kn_device *device, const struct kn_source *source, enum cad_weights weights);
	uint64_t (*table_bytes)(
		const struct kn_device *device, const struct kn_source *source, enum cad_weights weights);
	uint64_t (*expert_bytes)(
		const struct kn_device *device, const struct kn_expert_source *source, enum cad_weights weights);
	uint64_t (*vector_bytes)(const struct kn_device *device, size_t n);
	uint64_t (*kv_bytes)(const struct kn_device *device, const struct kn_kv *kv);

	/* Packing, straight from a checkpoint's mapping: the sources may go afterwards.
	 * CAD_ERR_MEMORY: there is no room; CAD_ERR_INTERNAL: the device has failed. The destroy
	 * functions take zeroed structs too. */
	enum cad_status (*matrix_create)(struct kn_device *device, const struct kn_source *source,
		enum cad_weights weights, struct kn_matrix *matrix);
	void (*matrix_destroy)(struct kn_device *device, struct kn_matrix *matrix);
	enum cad_status (*table_create)(struct kn_device *device, const struct kn_source *source,
		enum cad_weights weights, struct kn_table *table);
	void (*table_destroy)(struct kn_device *device, struct kn_table *table);
	/* Takes memory for `count` experts of at most `bytes` each (expert_bytes), once: from then on,
	 * creating and destroying such experts takes none and gives none back, which would hold up
	 * queues on a GPU, and there are never more of them. CAD_ERR_MEMORY: that much is not there;
	 * CAD_ERR_INTERNAL: the device has failed; none is taken. A device with the host's memory does
	 * nothing. */
	enum cad_status (*expert_reserve)(struct kn_device *device, uint64_t bytes, size_t count);
	enum cad_status (*expert_create)(struct kn_device *device, const struct kn_expert_source *source,
		enum cad_weights weights, struct kn_expert *expert);
	void (*expert_destroy)(struct kn_device *device, struct kn_expert *expert);
	/* Bytes begin .. begin + count - 1 of the packed expert's image (image.h), into host
	 * memory: what was packed comes back to the bit. `image` is kn_image_of what it was packed
	 * from. */
	CAD_MUST_USE enum cad_status (*expert_unpack)(struct kn_device *device, const struct kn_expert *expert,
		const struct kn_expert_source *image, uint64_t begin, size_t count, void *out);
	/* Device memory: a vector as f32 [n], padded with zeros to a multiple of 64. */
	enum cad_status (*vector_create)(struct kn_device *device, const struct kn_source *source, float **vector);
	void (*vector_destroy)(struct kn_device *device, float *vector, size_t n);
	/* The sizes are filled in; the rest is set here. Keys and values are zero. */
	enum cad_status (*kv_create)(struct kn_device *device, struct kn_kv *kv);
	void (*kv_destroy)(struct kn_device *device, struct kn_kv *kv);

	void (*embed)(struct kn_queue *queue, const struct kn_embed *a);
	void (*linear)(struct kn_queue *queue, const struct kn_linear *a);
	void (*linear_heads)(struct kn_queue *queue, const struct kn_linear_heads *a);
	void (*rmsnorm)(struct kn_queue *queue, const struct kn_rmsnorm *a);
	void (*rope_table)(struct kn_queue *queue, const struct kn_rope_table *a);
	void (*rope)(struct kn_queue *queue, const struct kn_rope *a);
	void (*kv_write)(struct kn_queue *queue, const struct kn_kv_write *a);
	void (*attend)(struct kn_queue *queue, const struct kn_attend *a);
	void (*gate)(struct kn_queue *queue, const struct kn_gate *a);
	/* sums: for calls without y too */
	size_t (*ffn_scratch_bytes)(struct kn_queue *queue, size_t pairs, size_t hidden, size_t ffn, bool sums);
	void (*ffn)(struct kn_queue *queue, const struct kn_ffn *a);
	void (*add)(struct kn_queue *queue, const struct kn_add *a);
	void (*scale_rows)(struct kn_queue *queue, const struct kn_scale_rows *a);
	void (*rows_pack)(struct kn_queue *queue, const struct kn_rows_pack *a);
	void (*rows_unpack)(struct kn_queue *queue, const struct kn_rows_unpack *a);
	void (*combine_pack)(struct kn_queue *queue, const struct kn_combine_pack *a);
	void (*combine_add)(struct kn_queue *queue, const struct kn_combine_add *a);
	void (*combine_finish)(struct kn_queue *queue, const struct kn_combine_finish *a);
};

struct cad_workers;
struct kn_device {
	const struct kn_ops *ops;
	/* Who helps with packing (common/base/workers.h), borrowed. NULL: whoever calls a create
	 * function packs alone. Set while nobody packs. */
	struct cad_workers *workers;
};
struct kn_queue {
	const struct kn_ops *ops;
	struct kn_device *device;
};

/* ---- opening a device (device.c) ---- */

/* EMU: a GPU that the CPU plays, for tests (cuda/emu/). */
enum kn_device_kind { KN_DEVICE_CPU, KN_DEVICE_EMU, KN_DEVICE_CUDA };
/* The form of the CPU's kernels; AUTO is the fastest that this machine runs. */
enum kn_isa { KN_ISA_AUTO, KN_ISA_REF, KN_ISA_AVX2, KN_ISA_AVXVNNI, KN_ISA_AVX512, KN_ISA_AMX };

/* Zeroed is the CPU with its fastest form. */
struct kn_device_options {
	enum kn_device_kind kind;
	enum kn_isa isa; /* of the CPU */
	unsigned index;  /* which GPU, as CUDA counts those that it shows this process */
};

/* CAD_ERR_UNSUPPORTED and a sentence when this machine lacks the form, or its GPU cannot be used;
 * CAD_ERR_NOT_FOUND when it has none, or this build no library for it; CAD_ERR_MEMORY when that of
 * the device, or of the machine, is taken. */
CAD_MUST_USE enum cad_status kn_device_open(
	const struct kn_device_options *options, struct kn_device **device, struct cad_error *error);

/* "cpu", "cuda", "cuda:1", "emu": kind and index. CAD_ERR_INVALID and a sentence about `option`. */
CAD_MUST_USE enum cad_status kn_device_parse(
	const char *option, const char *text, struct kn_device_options *options, struct cad_error *error);
/* Something went wrong, as `error` says: if the device has failed, it says that instead, and why. */
void kn_device_blame(const struct kn_device *device, struct cad_error *error);
CAD_MUST_USE enum cad_status kn_isa_parse(const char *name, enum kn_isa *isa);
extern const struct cad_choice kn_device_forms[], kn_isa_choices[]; /* for option tables */

/* ---- what every device shares (threads.c, fingerprint.c) ---- */

/* Threads that make sense here: cad_cores, at most KN_THREADS_MAX. */
unsigned kn_threads_default(void);

/* XXH3-128 over a fixed probe through the expert operators, with weights of several types or, when
 * `weights` says so, of another profile than f32: two nodes with equal values may be replicas. 32
 * hex digits. */
CAD_MUST_USE enum cad_status kn_fingerprint(
	struct kn_queue *queue, enum cad_weights weights, char hex[33], struct cad_error *error);

#endif
