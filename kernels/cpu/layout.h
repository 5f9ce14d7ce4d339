/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the CPU lays out what it packs: weights in panels, experts with gate and up side by side, the
 * pages of the KV cache. What `own` of the handles of kernels.h points to. Nothing outside
 * kernels/cpu/ knows of it.
 */
#ifndef CADRE_KERNELS_CPU_LAYOUT_H
#define CADRE_KERNELS_CPU_LAYOUT_H

#include "kernels/kernels.h"
#include "kernels/quantise.h"
#include "kernels/values.h"

enum {
	KN_PANEL_COLS = 64,  /* output columns of a weight panel */
	KN_STEP_BYTES = 256, /* of a panel: 4 lines of 64 bytes */
	KN_K_UNIT = 32,      /* k is padded to a multiple of it */
};

/*
 * A packed weight matrix W[n][k] (n outputs), in panels of 64 output columns; columns past n and
 * values of k past k are zero and take part.
 *   panel = steps over k, 256 bytes each = 4 lines of 64 bytes; column c of the panel is lane c %
 *   16 of line c / 16
 *   BF16: a step holds k and k + 1, a lane is { W[k], W[k+1] }      F32: a step holds one k
 *   BF16_ROWS, BF16_SM90: as BF16, for rows that are rounded to bf16 too
 *   S8, U4: before the steps of each KN_GROUP of k stand its 64 scales (f32), a step's worth
 *     S8: a step holds 4 values of k, a lane is { q[k] .. q[k+3] }
 *     U4: a step holds 8, byte j of a lane is u[k+j] | u[k+4+j] << 4 (quantise.h); between scales
 *       and steps stand the columns' sub-scales, a lane each
 *   F8: before the steps of each KN_FP8_GROUP of k stand its 64 scales times 2^8 (f32, 256 bytes). A step
 *     is 64 bytes and holds one k, a byte of a column each
 *   MXFP4: the same for each KN_MXFP4_GROUP, whose 64 scales are a byte (E8M0) each; a step holds two k, a
 *     byte of a column has k in its low half
 * A line is a VNNI operand, 16 lines at a stride of a step are an AMX B tile.
 */
enum kn_storage {
	KN_STORAGE_BF16,
	KN_STORAGE_BF16_ROWS,
	KN_STORAGE_BF16_SM90,
	KN_STORAGE_F32,
	KN_STORAGE_S8,
	KN_STORAGE_U4,
	KN_STORAGE_F8,
	KN_STORAGE_MXFP4,
	KN_STORAGE_COUNT,
};
struct kn_panels {
	enum kn_storage storage;
	size_t n, k, k_pad; /* k_pad: k rounded up to KN_K_UNIT, of quantised ones to KN_GROUP */
	size_t panels, panel_bytes;
	uint8_t *data; /* 64-byte aligned, in huge pages */
};

/* Values of k of a step of KN_STEP_BYTES; F8 and MXFP4 have others. */
static inline size_t kn_step_values(enum kn_storage storage)
{
	static const uint8_t values[KN_STORAGE_COUNT] = { 2, 2, 2, 1, 4, 8, 0, 0 };
	return values[storage];
}
static inline bool kn_storage_quantised(enum kn_storage storage)
{
	return storage == KN_STORAGE_S8 || storage == KN_STORAGE_U4;
}
/* Of quantised panels: bytes of each group, and of those that are before its steps. */
static inline size_t kn_group_head_bytes(enum kn_storage storage)
{
	return (storage == KN_STORAGE_U4 ? 2 : 1) * KN_STEP_BYTES;
}
static inline size_t kn_group_bytes(enum kn_storage storage)
{
	return kn_group_head_bytes(storage) + KN_GROUP / kn_step_values(storage) * KN_STEP_BYTES;
}

/* Of F8 and MXFP4: a group with its scales, and where the steps of k are. Scales of f32 are kept times
 * KN_F8_SCALE, for a byte becomes the f16 that is its value divided by that. */
enum {
	KN_F8_HEAD_BYTES = KN_PANEL_COLS * sizeof(float),
	KN_F8_GROUP_BYTES = KN_F8_HEAD_BYTES + KN_FP8_GROUP * KN_PANEL_COLS,
	KN_MXFP4_GROUP_BYTES = KN_PANEL_COLS + KN_MXFP4_GROUP / 2 * KN_PANEL_COLS,
	KN_F8_SCALE = 256,
};
static inline const uint8_t *kn_f8_group(const uint8_t *panel, size_t k)
{
	return panel + k / KN_FP8_GROUP * KN_F8_GROUP_BYTES;
}
static inline const uint8_t *kn_f8_step(const uint8_t *panel, size_t k)
{
	return kn_f8_group(panel, k) + KN_F8_HEAD_BYTES + k % KN_FP8_GROUP * KN_PANEL_COLS;
}
static inline const uint8_t *kn_mxfp4_group(const uint8_t *panel, size_t k)
{
	return panel + k / KN_MXFP4_GROUP * KN_MXFP4_GROUP_BYTES;
}
/* k is even */
static inline const uint8_t *kn_mxfp4_step(const uint8_t *panel, size_t k)
{
	return kn_mxfp4_group(panel, k) + KN_PANEL_COLS + k % KN_MXFP4_GROUP / 2 * KN_PANEL_COLS;
}

/*
 * A quantised row of activations, as the integer GEMMs read it: q s8 [k_pad], then for each group a
 * scale f32, then for each group sums of its q: of all, then of each sub-group. Rows are 64-byte
 * aligned, at a stride of kn_row_q_bytes.
 */
enum { KN_ROW_SUMS = 1 + KN_SUBGROUPS };
static inline size_t kn_row_q_bytes(size_t k_pad)
{
	return kn_round_up(k_pad + k_pad / KN_GROUP * (sizeof(float) + KN_ROW_SUMS * sizeof(int32_t)), 64);
}
static inline float *kn_row_q_scales(const uint8_t *row, size_t k_pad) { return (float *)(row + k_pad); }
static inline int32_t *kn_row_q_sums(const uint8_t *row, size_t k_pad, size_t group)
{
	return (int32_t *)(row + k_pad + k_pad / KN_GROUP * sizeof(float)) + group * KN_ROW_SUMS;
}

/* Gate and up are interleaved by 16 columns (g0-15 u0-15 g16-31 u16-31 ...), F padded to 32. */
struct kn_cpu_expert {
	struct kn_panels gate_up, down;
	float *gate_up_bias, *down_bias; /* NULL: none. gate_up_bias is interleaved as the columns are */
	enum cad_activation activation;
	float limit;
	bool weighs_input;
	size_t ffn;
};

/* [n][k] row-major in the checkpoint's type, or rounded to bf16 */
struct kn_cpu_table {
	enum cad_dtype dtype;
	size_t n, k;
	void *data;
};

/* A page of a layer has a part for each KV head: K [key_size][32], then V [32][kn_kv_value_size];
 * int8 has then the scales, f32, of the 32 keys and of the 32 values. Latent attention has no V, and
 * no scales of values. A head's parts of all pages
 * stand side by side: pages that a prompt takes one after the other are then one stream for each
 * head. */
static inline size_t kn_kv_element_bytes(enum cad_kv type)
{
	return type == CAD_KV_F32 ? 4 : type == CAD_KV_BF16 ? 2 : 1;
}
/* Where a row of n keeps element i. bf16 keeps two in a lane of 4 bytes, as panels do: the elements
 * l and l + 16 of 32 are lane l, and a shift and a mask widen them to vectors in order. What is less
 * than 32 at the end stands as it is. */
static inline size_t kn_kv_place(enum cad_kv type, size_t i, size_t n)
{
	if (type != CAD_KV_BF16 || i / 32 == n / 32)
		return i;
	return i / 32 * 32 + i % 16 * 2 + i / 16 % 2;
}
/* Of a value as it is kept: a multiple of 4, so that forms need not go by single elements. What is
 * past the value stays zero. */
static inline size_t kn_kv_value_size(const struct kn_kv *kv) { return kn_round_up(kv->value_size, 4); }
static inline size_t kn_kv_kept_value_size(const struct kn_kv *kv) { return kv->latent ? 0 : kn_kv_value_size(kv); }
static inline size_t kn_kv_values_offset(enum cad_kv type, size_t key_size)
{
	return key_size * KN_PAGE_KEYS * kn_kv_element_bytes(type);
}
/* Of the keys, and behind them of the values. */
static inline float *kn_kv_scales(size_t key_size, size_t kept_value_size, const uint8_t *part)
{
	return (float *)(part + (key_size + kept_value_size) * KN_PAGE_KEYS);
}
static inline size_t kn_kv_part_bytes(const struct kn_kv *kv)
{
	return KN_PAGE_KEYS *
		((kv->key_size + kn_kv_kept_value_size(kv)) * kn_kv_element_bytes(kv->type) +
			(kv->type == CAD_KV_INT8 ? (kv->latent ? 1 : 2) * sizeof(float) : 0));
}
static inline size_t kn_kv_all_bytes(const struct kn_kv *kv)
{
	return kv->layers * kv->pages * kv->kv_heads * kn_kv_part_bytes(kv);
}
static inline uint8_t *kn_kv_part(const struct kn_kv *kv, size_t layer, size_t page, size_t kv_head)
{
	return (uint8_t *)kv->own + ((layer * kv->kv_heads + kv_head) * kv->pages + page) * kn_kv_part_bytes(kv);
}
static inline const uint32_t *kn_page_table(const struct kn_page_tables *tables, size_t row)
{
	return tables->pages + tables->slot[row] * tables->ld;
}

#endif
