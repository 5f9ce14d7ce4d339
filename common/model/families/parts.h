/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the readers of several families have in common. Each fills its part of the spec; a value out
 * of range, or one that does not run, is refused with the key's name (keys.h), and reading goes on.
 *
 * Internal to common/model.
 */
#ifndef CADRE_COMMON_MODEL_FAMILIES_PARTS_H
#define CADRE_COMMON_MODEL_FAMILIES_PARTS_H

#include "common/model/families/families.h"

/* ---- attention ---- */

void cad_read_grouped_attention(const struct cad_keys *keys, struct cad_model_spec *spec);
/* `attention_bias`, of all four projections. */
void cad_read_bias(const struct cad_keys *keys, struct cad_attention_spec *attention, bool absent);
/* Families that rotate the first part of each head, whatever the kind: what is left is as long as a
 * head of others. One rotation, or the only one. */
void cad_set_rotation(const struct cad_keys *keys, struct cad_rope_spec *rope, uint32_t head_size, uint32_t size);
void cad_set_rotated(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t size);
/* DeepSeek-V2's and V3's, where all layers see all keys. */
void cad_read_latent_attention(const struct cad_keys *keys, struct cad_model_spec *spec);

/* ---- gate ---- */

/* The gate that most have: softmax over all experts, then the k greatest. */
void cad_read_gate(const struct cad_keys *keys, struct cad_model_spec *spec, bool renormalise);
/* What a file calls how many experts there are, and how many a token goes to. */
const char *cad_key_of_experts(const struct cad_keys *keys);
const char *cad_key_of_topk(const struct cad_keys *keys);
/* The same gate from counts that are read already; `topk_key` is what the second is called. */
void cad_set_gate(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t experts, const char *topk_key,
	uint32_t topk, bool renormalise);
/* `n_group` and `topk_group`, once experts, topk and group_score are known. */
void cad_read_groups(const struct cad_keys *keys, struct cad_gate_spec *gate);
/* The gate of DeepSeek-V3. */
void cad_read_sigmoid_gate(const struct cad_keys *keys, struct cad_model_spec *spec);

/* ---- ffn, and which layers have which ---- */

uint32_t cad_read_ffn_size(const struct cad_keys *keys, const char *key);
/* So many shared experts as one. */
void cad_read_shared_experts(
	const struct cad_keys *keys, struct cad_model_spec *spec, const char *key, uint32_t absent);
/* Qwen, DeepSeek: experts and dense layers have sizes of their own, and each is asked for only
 * where there are such layers. */
void cad_read_mixed_ffn(const struct cad_keys *keys, struct cad_model_spec *spec);
/* `first_k_dense_replace`: so many dense layers first. */
void cad_read_first_dense(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t absent);
/* Experts with a factor, shared ones, and dense layers, once it is known which layers are which. */
void cad_read_scaled_ffn(
	const struct cad_keys *keys, struct cad_model_spec *spec, double scale_absent, uint32_t shared_absent);
/* Layers that predict further tokens, which a file may have behind the others. */
void cad_read_further_layers(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t absent);
/* DeepSeek: dense layers first, then the same. */
void cad_read_deepseek_ffn(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t first_moe_absent);
/* All of them. */
void cad_set_moe_layers(struct cad_model_spec *spec);
/* Qwen: experts in every `decoder_sparse_step`-th layer but those that `mlp_only_layers` names. */
void cad_read_sparse_layers(const struct cad_keys *keys, struct cad_model_spec *spec);

/* A list of 0 and 1, one for each layer; false: there is none. flags[layers_count] */
bool cad_read_flags(const struct cad_keys *keys, const struct cad_model_spec *spec, const char *key, bool *flags);
/* `mlp_layer_types`, where it is given, says which layers have experts, whatever the layers say so far. */
void cad_read_mlp_layer_types(const struct cad_keys *keys, struct cad_model_spec *spec);

/* ---- windows ---- */

/* `sliding_window` in keys; 0 when it is null or absent. */
uint32_t cad_read_window(const struct cad_keys *keys);
/* The same where a window is meant unless it is null. */
uint32_t cad_read_window_or(const struct cad_keys *keys, uint32_t absent);
void cad_set_window(struct cad_model_spec *spec, uint32_t layer_step, uint32_t layers_end, uint32_t window);
/* In every layer but one of each so many, the `full`-th. */
void cad_set_window_but(struct cad_model_spec *spec, uint32_t layer_step, uint32_t full, uint32_t window);
/* Families in which layers that see all keys do not rotate; where no window is in force, all do. */
void cad_set_rotation_by_window(struct cad_model_spec *spec, uint32_t window);
/* `layer_types`, where it is given, says which layers slide, whatever the layers say so far. */
void cad_read_layer_types(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t window);
/* Families in which all layers slide or none does: `layer_types` must agree. */
void cad_read_uniform_window(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t window);

/* ---- rows of the table ---- */

#define CAD_LATENT_KEYS \
	CAD_READ("kv_lora_rank"), CAD_READ("q_lora_rank"), CAD_READ("qk_nope_head_dim"), CAD_READ("qk_rope_head_dim"), \
		CAD_READ("v_head_dim"), CAD_READ("attention_bias")
/* Of cad_read_groups and cad_read_deepseek_ffn. */
#define CAD_DEEPSEEK_KEYS \
	CAD_READ("n_group"), CAD_READ("topk_group"), CAD_READ("norm_topk_prob"), CAD_READ("routed_scaling_factor"), \
		CAD_READ("n_shared_experts"), CAD_READ("moe_intermediate_size")
#define CAD_KEYS(list) .keys = (list), .keys_count = sizeof(list) / sizeof *(list)
#define CAD_NAMES(list) .names = (list), .names_count = sizeof(list) / sizeof *(list)
#define CAD_FUSED_NAMES(list) .fused_names = (list), .fused_names_count = sizeof(list) / sizeof *(list)

/* Mixtral's; and MiniMax-M2's. */
extern const struct cad_tensor_name cad_mixtral_names[5];

#endif
