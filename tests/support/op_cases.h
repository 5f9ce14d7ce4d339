/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of operator cases. tests/ops/test_ops.c walks the cases marked OP_TEST (every form
 * against ref bit for bit, ref against float64, a row alone against the row in a batch, 1 to 3
 * threads); bench/bench_kernels.c those marked OP_BENCH (GFLOP/s and GB/s beside the machine's
 * limits).
 *
 * To add an operator: an `op_kind` in a file op_NAME.c here, and its cases in op_cases.c. A kind
 * works through `queue->ops` alone (alloc, copy_in, ...), so that the same table serves every
 * device. Inputs come from the case's seed; the same case gives the same inputs on every device.
 */
#ifndef CADRE_TESTS_SUPPORT_OP_CASES_H
#define CADRE_TESTS_SUPPORT_OP_CASES_H

#include "kernels/kernels.h"
#include "kernels/quantise.h"

enum op_use { OP_TEST = 1, OP_BENCH = 2 };

/* Kinds of random numbers */
enum op_data {
	OP_DATA_BELL, /* mean 0, deviation 1, within 3.5 */
	OP_DATA_WIDE, /* any sign and mantissa, exponents from 2^-40 to 2^40 */
	OP_DATA_TINY, /* around the smallest normal number, with subnormals and both zeros */
	OP_DATA_ONES, /* 1 or -1 */
};

struct op_kind;

/* One case. Fields that an operator does not know are 0; an operator may add fields. */
struct op_case {
	const struct op_kind *kind;
	unsigned use;
	const char *note; /* what the case is there for; NULL: its sizes say it */
	size_t rows;      /* rows of the output (tokens; pairs for combine) */
	size_t n, k;      /* outputs, inputs; ffn: F, H; attention: value size, key size; norm: elements */
	size_t experts, topk;
	size_t heads, kv_heads, keys, window, parts;
	enum op_data data;
	enum cad_kv kv;
	enum cad_dtype dtype; /* of the checkpoint: F32 is 0, give BF16 where bf16 is meant */
	enum cad_weights weights;
	enum cad_activation activation;
	bool latent;       /* attention: values are the first n elements of keys */
	bool weighs_input; /* ffn: experts do */
	bool bias, flag;   /* flag: the operator's own variant (interleaved rope, sinks, ...) */
	float limit;       /* clip, or the limit of an activation */
	int variant;       /* the operator's own enum */
};

/*
 * What a set-up case looks like from outside: `rows` output rows at a stride, of which the first
 * compare_bytes are promised. The kind embeds it first in a struct of its own. `device_output` is
 * device memory; operators that write to the host set host_output instead.
 */
struct op_state {
	const struct op_case *c;
	struct kn_queue *queue;
	size_t rows, stride_bytes, compare_bytes;
	void *device_output;
	void *host_output;
};

struct op_kind {
	const char *name; /* the operator's field in kn_ops */
	/* Allocates and fills inputs on the queue's device. */
	struct op_state *(*setup)(struct kn_queue *queue, const struct op_case *c, uint64_t seed);
	/* Output rows first .. first + rows - 1. The whole batch is one call with (0, rows). May be
	 * called again and again. In-place operators restore their input first; bench times the
	 * whole call. */
	void (*run)(struct op_state *state, size_t first, size_t rows);
	/* The largest |output - float64| / tolerance over the rows of `output` (host copy, rows *
	 * stride_bytes); at most 1 is good. The comment at its definition says why the tolerance is
	 * what it is. NULL: exact by nature, checked elsewhere. */
	double (*error)(const struct op_state *state, const void *output);
	void (*teardown)(struct op_state *state);
	double (*flops)(const struct op_case *c);
	double (*bytes)(const struct op_case *c); /* that must come from memory once: weights, KV, tables */
};

/* A line for each operator */
extern const struct op_kind op_linear, op_linear_heads, op_embed; /* op_linear.c */
extern const struct op_kind op_ffn, op_ffn_sums;                  /* op_ffn.c */
extern const struct op_kind op_unpack;                            /* op_unpack.c */

extern const struct op_kind op_rmsnorm, op_add, op_scale_rows, op_rope_table, op_rope; /* op_rows.c */
extern const struct op_kind op_attend;                                                 /* op_attend.c */

extern const struct op_kind op_gate; /* op_gate.c */
/* op_exchange.c */
extern const struct op_kind op_rows_pack, op_rows_unpack, op_combine_pack, op_combine_add, op_combine_finish;

extern const struct op_case op_cases[];
extern const size_t op_cases_count;

/* "linear rows 3 n 65 k 129 bf16 wide bias" */
const char *op_case_text(const struct op_case *c, char text[160]);

/* ---- helpers for kinds ---- */
float op_value(uint64_t *state, enum op_data data);
void op_fill(float *out, size_t count, uint64_t *state, enum op_data data, float scale);
/* Host rows of a checkpoint tensor [n][k] of `dtype` (F32, F16, BF16), random; op_source_f32 reads
 * element i as f32. Freed with free((void *)source.data). */
struct kn_source op_source(size_t n, size_t k, enum cad_dtype dtype, uint64_t *state, enum op_data data, float scale);
/* The type of a matrix of an expert; with variant 1, experts of one call have several, with variant
 * 2 the matrices of an expert too. */
enum cad_dtype op_dtype_of(const struct op_case *c, size_t expert, size_t matrix);
float op_source_f32(const struct kn_source *source, size_t i);
/* The scale of a group by the rule of kernels/quantise.h, written once more: 12 digits by frexp and
 * ceil, not by bits. range: the largest q. */
float op_scale(const float *x, size_t n, int range);
/* What weights that rows are rounded for keep of it, as a new F32 source: integers times scales, or
 * bf16. Other weights: its values. */
struct kn_source op_kept(const struct kn_source *source, enum cad_weights weights);
/* Rows as they meet such weights: quantised, rounded to bf16, or as they are. */
void op_row_kept(float *x, size_t n, enum cad_weights weights);
/* x[i] = q * scale, a scale for each `group` values. */
void op_quantise(float *x, size_t n, size_t group, int range);
/* A group of int4 weights by its definition, in double: u and (u - z) * s of each; returns the
 * scale. */
float op_int4_group(const float *x, size_t n, uint32_t *subscales, int u[KN_GROUP], int w[KN_GROUP]);
/* Bytes of a weight as it is kept, scales included. */
double op_weight_bytes(const struct op_case *c);
/* Device memory; aborts when there is none. op_upload copies `bytes` of host memory into new device
 * memory. */
void *op_alloc(struct kn_queue *queue, size_t bytes);
void *op_upload(struct kn_queue *queue, const void *host, size_t bytes);
/* f32 rows [rows][kn_ld(n)] on the device, zero padded, random; `host` (or NULL) gets a copy to be
 * freed. */
float *op_rows(
	struct kn_queue *queue, size_t rows, size_t n, uint64_t *state, enum op_data data, float scale, float **host);
/* Host memory, 64-byte aligned and zeroed; aborts when there is none. */
void *op_need(size_t bytes);

#endif
