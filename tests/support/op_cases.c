/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/op_cases.h"

#include <stdio.h>

#define BF16 .dtype = CAD_DTYPE_BF16
#define F16 .dtype = CAD_DTYPE_F16
#define INT8 .weights = CAD_WEIGHTS_INT8
#define INT4 .weights = CAD_WEIGHTS_INT4
#define CLAMPED .activation = CAD_ACTIVATION_SWIGLU_CLAMPED, .bias = true
#define TEST OP_TEST
#define BENCH OP_BENCH
/* in each type of KV cache */
#define ATTEND(...) \
	{ &op_attend, TEST, __VA_ARGS__ }, { &op_attend, TEST, __VA_ARGS__, .kv = CAD_KV_BF16 }, \
	{ \
		&op_attend, TEST, __VA_ARGS__, .kv = CAD_KV_INT8 \
	}

#define ATTEND_BENCH(...) \
	{ &op_attend, BENCH, __VA_ARGS__, .n = 128, .k = 128 }, \
		{ &op_attend, BENCH, __VA_ARGS__, .n = 128, .k = 128, .kv = CAD_KV_BF16 }, \
	{ \
		&op_attend, BENCH, __VA_ARGS__, .n = 128, .k = 128, .kv = CAD_KV_INT8 \
	}

const struct op_case op_cases[] = {
	/* Sizes around a lane, a line, a panel, a block of k; rows around a tile, two tiles and a
	 * block of rows. */
	{ &op_linear, TEST, .rows = 0, .n = 1, .k = 1, BF16 },
	{ &op_linear, TEST, .rows = 1, .n = 1, .k = 1, BF16 },
	{ &op_linear, TEST, .rows = 3, .n = 16, .k = 32, BF16, .bias = true },
	{ &op_linear, TEST, .rows = 2, .n = 15, .k = 31, BF16, .data = OP_DATA_WIDE },
	{ &op_linear, TEST, .rows = 5, .n = 17, .k = 33, .data = OP_DATA_WIDE, .bias = true },
	{ &op_linear, TEST, .rows = 33, .n = 63, .k = 127, BF16 },
	{ &op_linear, TEST, .rows = 26, .n = 64, .k = 255, F16, .limit = 8.0f },
	{ &op_linear, TEST, .rows = 25, .n = 65, .k = 257, .bias = true, .limit = 8.0f },
	{ &op_linear, TEST, .rows = 13, .n = 129, .k = 513, BF16, .data = OP_DATA_WIDE, .bias = true },
	{ &op_linear, TEST, .rows = 12, .n = 97, .k = 256, BF16, .data = OP_DATA_TINY },
	{ &op_linear, TEST, .rows = 7, .n = 97, .k = 300, .data = OP_DATA_TINY, .bias = true },
	{ &op_linear, TEST, .rows = 11, .n = 40, .k = 70, .weights = CAD_WEIGHTS_BF16 },
	{ &op_linear, TEST, "several row blocks, several panels a job", .rows = 101, .n = 1100, .k = 40, BF16 },
	/* The same on integers; groups of k are 256, or 128. */
	{ &op_linear, TEST, .rows = 0, .n = 1, .k = 1, BF16, INT8 },
	{ &op_linear, TEST, .rows = 1, .n = 1, .k = 1, BF16, INT8 },
	{ &op_linear, TEST, .rows = 1, .n = 1, .k = 1, BF16, INT4 },
	{ &op_linear, TEST, .rows = 2, .n = 15, .k = 31, BF16, INT8, .data = OP_DATA_WIDE },
	{ &op_linear, TEST, .rows = 5, .n = 17, .k = 33, INT4, .data = OP_DATA_WIDE, .bias = true },
	{ &op_linear, TEST, .rows = 33, .n = 63, .k = 127, BF16, INT4 },
	{ &op_linear, TEST, .rows = 33, .n = 63, .k = 255, BF16, INT8, .data = OP_DATA_ONES },
	{ &op_linear, TEST, .rows = 26, .n = 64, .k = 256, F16, INT8, .limit = 8.0f },
	{ &op_linear, TEST, .rows = 25, .n = 65, .k = 257, INT8, .bias = true },
	{ &op_linear, TEST, .rows = 13, .n = 129, .k = 513, BF16, INT8, .data = OP_DATA_WIDE, .bias = true },
	{ &op_linear, TEST, .rows = 14, .n = 129, .k = 641, BF16, INT4, .data = OP_DATA_ONES },
	{ &op_linear, TEST, .rows = 12, .n = 97, .k = 300, BF16, INT8, .data = OP_DATA_TINY },
	{ &op_linear, TEST, .rows = 11, .n = 70, .k = 1300, BF16, INT4, .bias = true },
	{ &op_linear, TEST, "NaN and infinity in rows", .rows = 29, .n = 65, .k = 700, BF16, INT8, .flag = true },
	{ &op_linear, TEST, "NaN and infinity in rows", .rows = 29, .n = 65, .k = 300, BF16, INT4, .flag = true },
	{ &op_linear, TEST, "several row blocks, several panels a job", .rows = 101, .n = 1100, .k = 1100, BF16, INT8 },
	{ &op_linear, TEST, "several row blocks, several panels a job", .rows = 101, .n = 600, .k = 40, BF16, INT4 },
	{ &op_linear, TEST, "more rows than are quantised at once", .rows = 300, .n = 17, .k = 16000, BF16, INT8 },
	{ &op_embed, TEST, .rows = 1, .n = 1, .k = 1, BF16 },
	{ &op_embed, TEST, .rows = 9, .n = 11, .k = 63, .data = OP_DATA_WIDE },
	{ &op_embed, TEST, .rows = 9, .n = 11, .k = 64, F16 },
	{ &op_embed, TEST, .rows = 9, .n = 11, .k = 65, BF16, .data = OP_DATA_TINY },
	{ &op_embed, TEST, .rows = 9, .n = 11, .k = 130, .weights = CAD_WEIGHTS_BF16 },
	{ &op_ffn, TEST, .rows = 0, .n = 32, .k = 32, .experts = 2, .topk = 1, BF16 },
	{ &op_ffn, TEST, .rows = 1, .n = 1, .k = 1, .experts = 1, .topk = 1, BF16 },
	{ &op_ffn, TEST, .rows = 3, .n = 31, .k = 67, .experts = 5, .topk = 2, BF16 },
	{ &op_ffn, TEST, .rows = 40, .n = 160, .k = 96, .experts = 5, .topk = 2, BF16 },
	{ &op_ffn, TEST, .rows = 20, .n = 33, .k = 65, .experts = 7, .topk = 3 },
	{ &op_ffn, TEST, .rows = 20, .n = 129, .k = 70, .experts = 4, .topk = 2, F16, .weights = CAD_WEIGHTS_BF16 },
	{ &op_ffn, TEST, "clamped, with biases (gpt_oss)", .rows = 23, .n = 90, .k = 90, .experts = 4, .topk = 2, BF16,
		CLAMPED, .limit = 0.7f },
	{ &op_ffn, TEST, "more rows than a tile", .rows = 110, .n = 64, .k = 64, .experts = 2, .topk = 2, BF16 },
	{ &op_ffn, TEST, .rows = 0, .n = 32, .k = 32, .experts = 2, .topk = 1, BF16, INT8 },
	{ &op_ffn, TEST, .rows = 1, .n = 1, .k = 1, .experts = 1, .topk = 1, BF16, INT8 },
	{ &op_ffn, TEST, .rows = 3, .n = 31, .k = 67, .experts = 5, .topk = 2, BF16, INT4 },
	{ &op_ffn, TEST, .rows = 20, .n = 33, .k = 65, .experts = 7, .topk = 3, INT8 },
	{ &op_ffn, TEST, .rows = 13, .n = 257, .k = 300, .experts = 4, .topk = 2, BF16, INT8 },
	{ &op_ffn, TEST, .rows = 13, .n = 545, .k = 258, .experts = 4, .topk = 2, BF16, INT4 },
	{ &op_ffn, TEST, "clamped, with biases (gpt_oss)", .rows = 23, .n = 90, .k = 90, .experts = 4, .topk = 2, BF16,
		INT8, CLAMPED, .limit = 0.7f },
	{ &op_ffn, TEST, "more rows than a tile", .rows = 110, .n = 300, .k = 64, .experts = 2, .topk = 2, BF16, INT8 },
	{ &op_unpack, TEST, .n = 1, .k = 1, BF16 },
	{ &op_unpack, TEST, .n = 15, .k = 31, BF16, .bias = true },
	{ &op_unpack, TEST, .n = 16, .k = 32 },
	{ &op_unpack, TEST, .n = 17, .k = 33, F16, .bias = true, .data = OP_DATA_TINY },
	{ &op_unpack, TEST, .n = 31, .k = 63, .bias = true, .data = OP_DATA_WIDE },
	{ &op_unpack, TEST, .n = 33, .k = 65, BF16 },
	{ &op_unpack, TEST, .n = 33, .k = 127, .weights = CAD_WEIGHTS_BF16, .bias = true, .data = OP_DATA_WIDE },
	{ &op_unpack, TEST, .n = 65, .k = 129, F16, .weights = CAD_WEIGHTS_BF16, .data = OP_DATA_TINY },
	{ &op_unpack, TEST, .n = 48, .k = 257, BF16, .weights = CAD_WEIGHTS_BF16, .bias = true },
	{ &op_unpack, TEST, .n = 1, .k = 1, BF16, INT8 },
	{ &op_unpack, TEST, .n = 1, .k = 1, BF16, INT4, .bias = true },
	{ &op_unpack, TEST, .n = 33, .k = 65, INT8, .bias = true, .data = OP_DATA_WIDE },
	{ &op_unpack, TEST, .n = 31, .k = 65, F16, INT4, .data = OP_DATA_TINY },
	{ &op_unpack, TEST, .n = 48, .k = 257, BF16, INT8 },
	{ &op_unpack, TEST, .n = 65, .k = 513, BF16, INT4, .bias = true },

	{ &op_rmsnorm, TEST, .rows = 0, .n = 16 },
	{ &op_rmsnorm, TEST, .rows = 3, .n = 1 },
	{ &op_rmsnorm, TEST, .rows = 3, .n = 15, .flag = true },
	{ &op_rmsnorm, TEST, .rows = 3, .n = 17, .data = OP_DATA_TINY },
	{ &op_rmsnorm, TEST, .rows = 5, .n = 31, .parts = 3 },
	{ &op_rmsnorm, TEST, .rows = 4, .n = 64, .parts = 5, .flag = true },
	{ &op_rmsnorm, TEST, .rows = 40, .n = 2050, .flag = true },
	{ &op_rmsnorm, TEST, "by index", .rows = 9, .n = 65, .variant = 1 },
	{ &op_rmsnorm, TEST, "by index, in parts", .rows = 7, .n = 16, .parts = 4, .variant = 1 },
	{ &op_add, TEST, .rows = 3, .n = 1 },
	{ &op_add, TEST, .rows = 4, .n = 33, .data = OP_DATA_WIDE },
	{ &op_add, TEST, .rows = 4, .n = 48, .flag = true },
	{ &op_add, TEST, .rows = 30, .n = 1999, .data = OP_DATA_TINY, .flag = true },
	{ &op_rope_table, TEST, .rows = 60, .k = 2, .limit = 1.0f },
	{ &op_rope_table, TEST, .rows = 300, .k = 128, .limit = 1.0f },
	{ &op_rope_table, TEST, .rows = 33, .k = 24, .limit = 1.2079441f },
	{ &op_rope, TEST, .rows = 3, .n = 4, .k = 4, .heads = 1 },
	{ &op_rope, TEST, .rows = 3, .n = 36, .k = 18, .heads = 3 },
	{ &op_rope, TEST, .rows = 5, .n = 36, .k = 18, .heads = 3, .flag = true },
	{ &op_rope, TEST, .rows = 40, .n = 128, .k = 128, .heads = 4 },
	{ &op_rope, TEST, .rows = 4, .n = 64, .k = 64, .heads = 4, .flag = true, .data = OP_DATA_WIDE },
	ATTEND("one key", .rows = 1, .n = 16, .k = 16, .heads = 1, .kv_heads = 1, .keys = 1),
	ATTEND(.rows = 33, .n = 16, .k = 16, .heads = 2, .kv_heads = 1, .keys = 33),
	ATTEND(.rows = 5, .n = 32, .k = 32, .heads = 7, .kv_heads = 7, .keys = 31, .variant = 1),
	ATTEND(.rows = 20, .n = 24, .k = 24, .heads = 4, .kv_heads = 2, .keys = 90, .flag = true),
	ATTEND(.rows = 13, .n = 4, .k = 4, .heads = 3, .kv_heads = 1, .keys = 64),
	ATTEND("latent: unlike sizes", .rows = 9, .n = 20, .k = 44, .heads = 4, .kv_heads = 4, .keys = 70),
	ATTEND("window", .rows = 70, .n = 16, .k = 16, .heads = 4, .kv_heads = 2, .keys = 100, .window = 16),
	ATTEND("window over chunks", .rows = 40, .n = 12, .k = 12, .heads = 2, .kv_heads = 1, .keys = 1100,
		.window = 545),
	ATTEND("chunks in parallel", .rows = 1, .n = 64, .k = 64, .heads = 8, .kv_heads = 2, .keys = 1601),
	ATTEND("chunks in parallel, sinks, window", .rows = 2, .n = 28, .k = 28, .heads = 5, .kv_heads = 1,
		.keys = 1537, .window = 1100, .flag = true, .variant = 1),
	ATTEND("three sequences", .rows = 50, .n = 8, .k = 8, .heads = 3, .kv_heads = 1, .keys = 513, .variant = 2),
	ATTEND("decode", .rows = 12, .n = 128, .k = 128, .heads = 8, .kv_heads = 2, .keys = 97, .variant = 1),
	ATTEND("pages at once, for one query", .rows = 3, .n = 136, .k = 40, .heads = 2, .kv_heads = 2, .keys = 700,
		.variant = 1),
	ATTEND("pages at once, for two", .rows = 3, .n = 100, .k = 64, .heads = 4, .kv_heads = 2, .keys = 600,
		.window = 333, .variant = 1),
	ATTEND("six share", .rows = 2, .n = 72, .k = 36, .heads = 6, .kv_heads = 1, .keys = 75, .variant = 1),
	ATTEND("seven share", .rows = 2, .n = 32, .k = 32, .heads = 7, .kv_heads = 1, .keys = 75, .variant = 1),
	ATTEND("eight share", .rows = 2, .n = 64, .k = 64, .heads = 8, .kv_heads = 1, .keys = 75, .variant = 1),
	ATTEND("a block and a bit, with a window", .rows = 59, .n = 40, .k = 64, .heads = 1, .kv_heads = 1, .keys = 200,
		.window = 70),
	ATTEND("the largest head", .rows = 3, .n = 256, .k = 256, .heads = 2, .kv_heads = 2, .keys = 40),
	{ &op_gate, TEST, .rows = 3, .experts = 1, .topk = 1 },
	{ &op_gate, TEST, .rows = 5, .experts = 5, .topk = 5, .variant = 1 },
	{ &op_gate, TEST, .rows = 40, .experts = 64, .topk = 8 },
	{ &op_gate, TEST, "ties", .rows = 20, .experts = 129, .topk = 8, .variant = 1, .flag = true },
	{ &op_gate, TEST, "groups by their best", .rows = 30, .experts = 160, .topk = 6, .variant = 2 },
	{ &op_gate, TEST, "groups by their best two, bias", .rows = 30, .experts = 256, .topk = 8, .variant = 3 },
	{ &op_gate, TEST, "groups, ties", .rows = 30, .experts = 16, .topk = 3, .variant = 2, .flag = true },
	{ &op_gate, TEST, "groups of one", .rows = 9, .experts = 4, .topk = 2, .variant = 3 },
	{ &op_gate, TEST, "softmax over the chosen", .rows = 30, .experts = 33, .topk = 4, .variant = 4 },
	{ &op_gate, TEST, .rows = 9, .experts = 1024, .topk = 32, .variant = 5 },
	{ &op_rows_pack, TEST, .rows = 0, .n = 4, .variant = CADRE_ROW_FIX16 },
	{ &op_rows_pack, TEST, .rows = 3, .n = 1, .variant = CADRE_ROW_FIX16 },
	{ &op_rows_pack, TEST, .rows = 9, .n = 15, .variant = CADRE_ROW_FIX16, .data = OP_DATA_WIDE },
	{ &op_rows_pack, TEST, .rows = 9, .n = 33, .variant = CADRE_ROW_FIX16, .data = OP_DATA_TINY },
	{ &op_rows_pack, TEST, .rows = 27, .n = 2000, .variant = CADRE_ROW_FIX16, .flag = true },
	{ &op_rows_pack, TEST, .rows = 27, .n = 2000, .variant = CADRE_ROW_BF16, .flag = true },
	{ &op_rows_pack, TEST, .rows = 9, .n = 17, .variant = CADRE_ROW_BF16, .data = OP_DATA_TINY },
	{ &op_rows_pack, TEST, .rows = 18, .n = 100, .variant = CADRE_ROW_F32, .flag = true },
	{ &op_rows_unpack, TEST, .rows = 4, .n = 1 },
	{ &op_rows_unpack, TEST, .rows = 30, .n = 15 },
	{ &op_rows_unpack, TEST, .rows = 30, .n = 1030, .data = OP_DATA_WIDE },
	{ &op_combine_pack, TEST, .rows = 3, .n = 1, .topk = 1 },
	{ &op_combine_pack, TEST, .rows = 12, .n = 17, .topk = 4 },
	{ &op_combine_pack, TEST, .rows = 12, .n = 33, .topk = 3, .data = OP_DATA_TINY },
	{ &op_combine_pack, TEST, .rows = 12, .n = 31, .topk = 4, .data = OP_DATA_WIDE },
	{ &op_combine_pack, TEST, .rows = 20, .n = 1000, .topk = 8 },
	{ &op_combine_pack, TEST, "poisoned", .rows = 20, .n = 64, .topk = 2, .flag = true },
	{ &op_combine_add, TEST, .rows = 5, .n = 1 },
	{ &op_combine_add, TEST, .rows = 9, .n = 15 },
	{ &op_combine_add, TEST, .rows = 30, .n = 1001 },
	{ &op_combine_finish, TEST, .rows = 3, .n = 1 },
	{ &op_combine_finish, TEST, .rows = 9, .n = 65, .flag = true },
	{ &op_combine_finish, TEST, .rows = 30, .n = 1001, .data = OP_DATA_WIDE },

	{ &op_linear, BENCH, "decode", .rows = 1, .n = 65536, .k = 2048, BF16 },
	{ &op_linear, BENCH, "decode, small", .rows = 1, .n = 2048, .k = 2048, BF16 },
	{ &op_linear, BENCH, "decode, f32", .rows = 1, .n = 32768, .k = 2048 },
	{ &op_linear, BENCH, .rows = 4, .n = 32768, .k = 2048, BF16 },
	{ &op_linear, BENCH, .rows = 8, .n = 32768, .k = 2048, BF16 },
	{ &op_linear, BENCH, .rows = 16, .n = 32768, .k = 2048, BF16 },
	{ &op_linear, BENCH, .rows = 32, .n = 16384, .k = 2048, BF16 },
	{ &op_linear, BENCH, "prefill", .rows = 512, .n = 2048, .k = 2048, BF16 },
	{ &op_linear, BENCH, "prefill, f32", .rows = 512, .n = 2048, .k = 2048 },
	{ &op_linear, BENCH, "decode", .rows = 1, .n = 65536, .k = 2048, BF16, INT8 },
	{ &op_linear, BENCH, .rows = 4, .n = 65536, .k = 2048, BF16, INT8 },
	{ &op_linear, BENCH, .rows = 8, .n = 65536, .k = 2048, BF16, INT8 },
	{ &op_linear, BENCH, .rows = 16, .n = 65536, .k = 2048, BF16, INT8 },
	{ &op_linear, BENCH, .rows = 32, .n = 32768, .k = 2048, BF16, INT8 },
	{ &op_linear, BENCH, "prefill", .rows = 512, .n = 2048, .k = 2048, BF16, INT8 },
	{ &op_linear, BENCH, "decode", .rows = 1, .n = 65536, .k = 2048, BF16, INT4 },
	{ &op_linear, BENCH, .rows = 8, .n = 65536, .k = 2048, BF16, INT4 },
	{ &op_linear, BENCH, .rows = 32, .n = 32768, .k = 2048, BF16, INT4 },
	{ &op_linear, BENCH, "prefill", .rows = 512, .n = 2048, .k = 2048, BF16, INT4 },
	{ &op_ffn, BENCH, "OLMoE layer, decode", .rows = 1, .n = 1024, .k = 2048, .experts = 64, .topk = 8, BF16 },
	{ &op_ffn, BENCH, "OLMoE layer", .rows = 16, .n = 1024, .k = 2048, .experts = 64, .topk = 8, BF16 },
	{ &op_ffn, BENCH, "OLMoE layer, prefill", .rows = 512, .n = 1024, .k = 2048, .experts = 64, .topk = 8, BF16 },
	{ &op_ffn, BENCH, "OLMoE layer, decode", .rows = 1, .n = 1024, .k = 2048, .experts = 64, .topk = 8, BF16,
		INT8 },
	{ &op_ffn, BENCH, "OLMoE layer", .rows = 16, .n = 1024, .k = 2048, .experts = 64, .topk = 8, BF16, INT8 },
	{ &op_ffn, BENCH, "OLMoE layer, prefill", .rows = 512, .n = 1024, .k = 2048, .experts = 64, .topk = 8, BF16,
		INT8 },
	{ &op_ffn, BENCH, "OLMoE layer, decode", .rows = 1, .n = 1024, .k = 2048, .experts = 64, .topk = 8, BF16,
		INT4 },
	{ &op_ffn, BENCH, "OLMoE layer, prefill", .rows = 512, .n = 1024, .k = 2048, .experts = 64, .topk = 8, BF16,
		INT4 },
	ATTEND_BENCH("decode, one long sequence", .rows = 1, .heads = 16, .kv_heads = 16, .keys = 8192, .variant = 1),
	ATTEND_BENCH("the same, 8 heads share", .rows = 1, .heads = 32, .kv_heads = 4, .keys = 8192, .variant = 1),
	ATTEND_BENCH("decode", .rows = 16, .heads = 16, .kv_heads = 16, .keys = 2048, .variant = 1),
	ATTEND_BENCH("the same, 8 heads share", .rows = 16, .heads = 32, .kv_heads = 4, .keys = 2048, .variant = 1),
	ATTEND_BENCH("prefill", .rows = 512, .heads = 16, .kv_heads = 16, .keys = 512),
	ATTEND_BENCH("prefill of a long prompt", .rows = 512, .heads = 16, .kv_heads = 16, .keys = 2048),
	ATTEND_BENCH("the same, 8 heads share", .rows = 512, .heads = 32, .kv_heads = 4, .keys = 8192),
	{ &op_rmsnorm, BENCH, .rows = 512, .n = 2048 },
	{ &op_rmsnorm, BENCH, .rows = 512, .n = 128, .parts = 16 },
	{ &op_rope, BENCH, .rows = 512, .n = 128, .k = 128, .heads = 16 },
	{ &op_rope_table, BENCH, .rows = 512, .k = 128, .limit = 1.0f },
	{ &op_add, BENCH, .rows = 512, .n = 2048 },
	{ &op_gate, BENCH, .rows = 512, .experts = 128, .topk = 8, .variant = 1 },
	{ &op_rows_pack, BENCH, .rows = 512, .n = 2048, .variant = CADRE_ROW_FIX16 },
	{ &op_rows_unpack, BENCH, .rows = 512, .n = 2048 },
	{ &op_combine_pack, BENCH, .rows = 512, .n = 2048, .topk = 8 },
	{ &op_combine_add, BENCH, .rows = 512, .n = 2048 },
	{ &op_combine_finish, BENCH, .rows = 512, .n = 2048 },
};
const size_t op_cases_count = sizeof op_cases / sizeof op_cases[0];

const char *op_case_text(const struct op_case *c, char text[160])
{
	static const char *const data[] = { "", " wide", " tiny", " ones" },
				 *const kv[] = { "", " kv bf16", " kv int8" },
				 *const weights[] = { "", " to bf16", " to int8", " to int4" };
	const struct {
		const char *name;
		size_t value;
	} sizes[] = {
		{ "rows", c->rows },
		{ "n", c->n },
		{ "k", c->k },
		{ "experts", c->experts },
		{ "topk", c->topk },
		{ "heads", c->heads },
		{ "kv_heads", c->kv_heads },
		{ "keys", c->keys },
		{ "window", c->window },
		{ "parts", c->parts },
		{ "variant", (size_t)c->variant },
	};
	int at = snprintf(text, 160, "%s", c->kind->name);

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && at < 160; i++)
		if (sizes[i].value > 0 || i == 0)
			at += snprintf(text + at, (size_t)(160 - at), " %s %zu", sizes[i].name, sizes[i].value);
	if (at < 160)
		snprintf(text + at, (size_t)(160 - at), " %s%s%s%s%s%s%s", cad_dtype_name(c->dtype),
			weights[c->weights], kv[c->kv], data[c->data], c->bias ? " bias" : "",
			c->limit > 0 ? " limit" : "", c->flag ? " flag" : "");
	return text;
}
