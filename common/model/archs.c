/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each family of models means by its config.json. Source: transformers 5, configuration_*.py
 * and modeling_*.py of each model.
 *
 * An architecture is a row of the table at the end and a reader that fills its part of the spec;
 * nothing else in Cadre asks for a name.
 */
#include "common/model/archs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- parts that families share ---- */

static void read_grouped_attention(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *attention = &spec->attention;
	attention->kind = CAD_ATTENTION_GROUPED;
	attention->heads = cad_keys_u32(keys, "num_attention_heads", 1, CAD_HEADS_MAX);
	attention->kv_heads = cad_keys_u32_or(keys, "num_key_value_heads", 1, CAD_HEADS_MAX, attention->heads);
	if (attention->heads % attention->kv_heads != 0)
		cad_keys_fail(keys, CAD_ERR_RANGE, "num_attention_heads",
			"is %u, which num_key_value_heads, %u, does not divide", attention->heads, attention->kv_heads);
	attention->head_size = cad_keys_u32_or(keys, "head_dim", 2, CAD_HEAD_SIZE_MAX, 0);

	if (attention->head_size == 0) {
		attention->head_size = spec->hidden / attention->heads;
		if (spec->hidden % attention->heads != 0)
			cad_keys_fail(keys, CAD_ERR_RANGE, "hidden_size",
				"is %u, which num_attention_heads, %u, does not divide, and there is no head_dim",
				spec->hidden, attention->heads);
		else if (attention->head_size < 2 || attention->head_size > CAD_HEAD_SIZE_MAX)
			cad_keys_fail(keys, CAD_ERR_RANGE, "hidden_size",
				"over num_attention_heads is %u; a head must have from 2 to %d elements",
				attention->head_size, CAD_HEAD_SIZE_MAX);
	}

	attention->value_size = attention->head_size;
	attention->scale = (float)(1 / sqrt(attention->head_size));
	spec->rope.size = attention->head_size;
}

static void read_bias(const struct cad_keys *keys, struct cad_attention_spec *attention, bool absent)
{
	bool bias = cad_keys_bool_or(keys, "attention_bias", absent);
	attention->q_bias = attention->k_bias = attention->v_bias = attention->o_bias = bias;
}

static uint32_t read_expert_count(const struct cad_keys *keys)
{
	static const char *const names[] = { "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts",
		NULL };
	return cad_keys_u32(keys, cad_keys_name(keys, names), 1, CAD_EXPERTS_MAX);
}

/* The gate that most have: softmax over all experts, then the k greatest. */
static void read_gate(const struct cad_keys *keys, struct cad_model_spec *spec, bool renormalise)
{
	static const char *const topk_names[] = { "num_experts_per_tok", "experts_per_token", "moe_k", NULL };
	struct cad_gate_spec *gate = &spec->gate;
	const char *topk = cad_keys_name(keys, topk_names);

	gate->experts = read_expert_count(keys);
	gate->topk = cad_keys_u32(keys, topk, 1, CAD_TOPK_MAX);
	if (gate->topk > gate->experts)
		cad_keys_fail(
			keys, CAD_ERR_RANGE, topk, "is %u, but there are only %u experts", gate->topk, gate->experts);
	gate->score = CAD_SCORE_SOFTMAX;
	gate->groups = gate->groups_kept = 1;
	gate->renormalise = renormalise;
	gate->scale = 1;
}

static uint32_t read_ffn_size(const struct cad_keys *keys, const char *key)
{
	return cad_keys_u32(keys, key, 1, CAD_FFN_MAX);
}

static void set_moe_layers(struct cad_model_spec *spec)
{
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = true;
}

/* `sliding_window` in keys; 0 when it is null or absent. */
static uint32_t read_window(const struct cad_keys *keys)
{
	return cad_keys_u32_or(keys, "sliding_window", 1, INT32_MAX, 0);
}

static void set_window(struct cad_model_spec *spec, uint32_t layer_step, uint32_t layers_end, uint32_t window)
{
	for (uint32_t i = 0; i < spec->layers_count && i < layers_end; i += layer_step)
		spec->layers[i].window = window;
}

/* `layer_types`, where it is given, says which layers slide, whatever the layers say so far. */
static void read_layer_types(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t window)
{
	const json_t *types = cad_keys_get(keys, "layer_types");
	if (!types)
		return;

	if (!json_is_array(types) || json_array_size(types) != spec->layers_count) {
		cad_keys_fail(keys, CAD_ERR_INVALID, "layer_types", "must be a list of %u texts, one for each layer",
			spec->layers_count);
		return;
	}

	for (uint32_t i = 0; i < spec->layers_count; i++) {
		const char *type = json_string_value(json_array_get(types, i));
		bool slides = type && strcmp(type, "sliding_attention") == 0;
		if (!slides && (!type || strcmp(type, "full_attention") != 0))
			cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "layer_types",
				"says '%.32s' of layer %u; supported are full_attention and sliding_attention",
				type ? type : "", i);
		if (slides && window == 0)
			cad_keys_fail(keys, CAD_ERR_INVALID, "layer_types",
				"says that layer %u slides, but no sliding_window is in force", i);
		spec->layers[i].window = slides ? window : 0;
	}
}

/* Families in which all layers slide or none does: `layer_types` must agree. */
static void read_uniform_window(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t window)
{
	set_window(spec, 1, UINT32_MAX, window);
	read_layer_types(keys, spec, window);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		if (spec->layers[i].window != window)
			cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "layer_types",
				"says that layer %u does not slide, but in this architecture every layer or none does",
				i);
}

/* Qwen: experts in every `decoder_sparse_step`-th layer but those that `mlp_only_layers` names. */
static void read_sparse_layers(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	uint32_t step = cad_keys_u32_or(keys, "decoder_sparse_step", 1, CAD_LAYERS_MAX, 1);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = (i + 1) % step == 0;
	const json_t *dense = cad_keys_get(keys, "mlp_only_layers");
	if (dense && !json_is_array(dense)) {
		cad_keys_fail(keys, CAD_ERR_INVALID, "mlp_only_layers", "must be a list of layers");
		return;
	}

	for (size_t i = 0; i < json_array_size(dense); i++) {
		const json_t *layer = json_array_get(dense, i);
		if (!json_is_integer(layer) || json_integer_value(layer) < 0 ||
			json_integer_value(layer) >= (json_int_t)spec->layers_count)
			cad_keys_fail(keys, CAD_ERR_RANGE, "mlp_only_layers",
				"contains something other than layers from 0 to %u", spec->layers_count - 1);
		else
			spec->layers[json_integer_value(layer)].moe = false;
	}
}

/* Qwen, DeepSeek: experts and dense layers have sizes of their own, and each is asked for only
 * where there are such layers. */
static void read_mixed_ffn(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	uint32_t moe = cad_model_spec_moe_layers(spec);
	if (moe == 0)
		spec->gate = (struct cad_gate_spec){ 0 };
	else
		spec->expert.size = read_ffn_size(keys, "moe_intermediate_size");
	if (moe < spec->layers_count)
		spec->dense.size = read_ffn_size(keys, "intermediate_size");
}

/* ---- families ---- */

static void read_llama(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_grouped_attention(keys, spec);
	read_bias(keys, &spec->attention, false);
	read_uniform_window(keys, spec, 0);
	spec->dense.size = read_ffn_size(keys, "intermediate_size");
	spec->dense.bias = cad_keys_bool_or(keys, "mlp_bias", false);
}

static void read_mixtral(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_grouped_attention(keys, spec);
	read_uniform_window(keys, spec, read_window(keys));
	set_moe_layers(spec);
	read_gate(keys, spec, true);
	spec->expert.size = read_ffn_size(keys, "intermediate_size");
}

static void read_olmoe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_grouped_attention(keys, spec);
	read_bias(keys, &spec->attention, false);
	spec->attention.qk_norm = CAD_QK_NORM_PROJECTION;
	spec->attention.clip_qkv = (float)cad_keys_number_or(keys, "clip_qkv", 1e-6, 1e6, 0);
	read_uniform_window(keys, spec, 0);
	set_moe_layers(spec);
	read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", false));
	spec->expert.size = read_ffn_size(keys, "intermediate_size");
}

static void read_qwen3_moe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_grouped_attention(keys, spec);
	read_bias(keys, &spec->attention, false);
	spec->attention.qk_norm = CAD_QK_NORM_HEAD;
	read_uniform_window(keys, spec, cad_keys_bool_or(keys, "use_sliding_window", false) ? read_window(keys) : 0);
	read_sparse_layers(keys, spec);
	read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", false));
	read_mixed_ffn(keys, spec);
}

static void read_qwen2_moe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_grouped_attention(keys, spec);
	struct cad_attention_spec *attention = &spec->attention;
	attention->q_bias = attention->k_bias = attention->v_bias = cad_keys_bool_or(keys, "qkv_bias", true);
	bool slides = cad_keys_bool_or(keys, "use_sliding_window", false);
	uint32_t window = slides ? read_window(keys) : 0;
	set_window(spec, 2, cad_keys_u32_or(keys, "max_window_layers", 0, INT32_MAX, 28), window);
	read_layer_types(keys, spec, window);
	read_sparse_layers(keys, spec);
	read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", false));
	read_mixed_ffn(keys, spec);
	if (spec->gate.experts) {
		spec->shared.size = read_ffn_size(keys, "shared_expert_intermediate_size");
		spec->shared_gate = true;
	}
}

static void read_gpt_oss(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_grouped_attention(keys, spec);
	read_bias(keys, &spec->attention, true);
	spec->attention.sinks = true;
	uint32_t window = read_window(keys);
	set_window(spec, 2, UINT32_MAX, window);
	read_layer_types(keys, spec, window);
	if (!cad_keys_get(keys, "rope_scaling") && !cad_keys_get(keys, "rope_parameters"))
		cad_keys_fail(keys, CAD_ERR_INVALID, "rope_scaling", "is missing");
	set_moe_layers(spec);
	read_gate(keys, spec, false);
	spec->gate.softmax_after_topk = true;
	spec->gate.linear_bias = true;
	spec->expert.size = read_ffn_size(keys, "intermediate_size");
	spec->expert.activation = CAD_ACTIVATION_SWIGLU_CLAMPED;
	spec->expert.limit = (float)cad_keys_number_or(keys, "swiglu_limit", 1e-3, 1e6, 7);
	spec->expert.bias = true;
	if (cad_keys_number_or(keys, "swiglu_alpha", 0, 1e3, 1.702) != 1.702)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "swiglu_alpha", "is not 1.702, which is not supported");
}

/* Latent attention of DeepSeek-V2 and V3. */
static void read_latent_attention(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *attention = &spec->attention;
	attention->kind = CAD_ATTENTION_LATENT;
	attention->heads = attention->kv_heads = cad_keys_u32(keys, "num_attention_heads", 1, CAD_HEADS_MAX);
	attention->q_rank = cad_keys_u32_or(keys, "q_lora_rank", 1, CAD_HIDDEN_MAX, 0);
	attention->kv_rank = cad_keys_u32(keys, "kv_lora_rank", 1, CAD_HIDDEN_MAX);
	attention->nope_size = cad_keys_u32(keys, "qk_nope_head_dim", 1, CAD_HEAD_SIZE_MAX);
	attention->rope_size = cad_keys_u32(keys, "qk_rope_head_dim", 2, CAD_HEAD_SIZE_MAX);
	attention->value_size = cad_keys_u32(keys, "v_head_dim", 1, CAD_HEAD_SIZE_MAX);
	attention->head_size = attention->nope_size + attention->rope_size;
	if (attention->head_size > CAD_HEAD_SIZE_MAX)
		cad_keys_fail(keys, CAD_ERR_RANGE, "qk_nope_head_dim",
			"and qk_rope_head_dim are together %u; at most %d are supported", attention->head_size,
			CAD_HEAD_SIZE_MAX);
	if (cad_keys_bool_or(keys, "attention_bias", false))
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "attention_bias",
			"is true, which is not supported with latent attention");
	spec->rope.size = attention->rope_size;
	spec->rope.interleaved = cad_keys_bool_or(keys, "rope_interleave", true);
	double scale = 1 / sqrt(attention->head_size);
	if (spec->rope.kind != CAD_ROPE_DEFAULT && spec->rope.mscale_all_dim != 0 && spec->rope.factor > 1) {
		double mscale = 0.1 * spec->rope.mscale_all_dim * log(spec->rope.factor) + 1;
		scale *= mscale * mscale;
	}

	attention->scale = (float)scale;
	read_uniform_window(keys, spec, 0);
}

static void read_groups(const struct cad_keys *keys, struct cad_gate_spec *gate)
{
	gate->groups = cad_keys_u32(keys, "n_group", 1, CAD_EXPERTS_MAX);
	gate->groups_kept = cad_keys_u32(keys, "topk_group", 1, CAD_EXPERTS_MAX);
	if (gate->experts % gate->groups != 0)
		cad_keys_fail(keys, CAD_ERR_RANGE, "n_group", "is %u, which does not divide the %u experts",
			gate->groups, gate->experts);
	else if (gate->groups_kept > gate->groups)
		cad_keys_fail(keys, CAD_ERR_RANGE, "topk_group", "is %u, but there are only %u groups",
			gate->groups_kept, gate->groups);
	else if (gate->topk > gate->groups_kept * (gate->experts / gate->groups))
		cad_keys_fail(keys, CAD_ERR_RANGE, "num_experts_per_tok",
			"is %u, but the %u groups that are kept hold only %u experts", gate->topk, gate->groups_kept,
			gate->groups_kept * (gate->experts / gate->groups));
	else if (gate->group_score == CAD_GROUP_SCORE_TOP2 && gate->experts / gate->groups < 2)
		cad_keys_fail(keys, CAD_ERR_RANGE, "n_group", "is %u, but a group needs at least two of the %u experts",
			gate->groups, gate->experts);
}

/* So many shared experts as one. */
static void read_shared_experts(
	const struct cad_keys *keys, struct cad_model_spec *spec, const char *key, uint32_t absent)
{
	uint32_t shared = cad_keys_u32_or(keys, key, 0, CAD_EXPERTS_MAX, absent);
	if (spec->gate.experts)
		spec->shared.size = shared * spec->expert.size;
	if (spec->shared.size > CAD_FFN_MAX)
		cad_keys_fail(keys, CAD_ERR_RANGE, key, "is %u, which makes a shared expert of more than %d", shared,
			CAD_FFN_MAX);
}

static void read_deepseek_ffn(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t first_moe_absent)
{
	uint32_t first = cad_keys_u32_or(keys, "first_k_dense_replace", 0, INT32_MAX, first_moe_absent);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = i >= first;
	if (cad_keys_u32_or(keys, "moe_layer_freq", 0, INT32_MAX, 1) != 1)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "moe_layer_freq", "is not 1, which is not supported");
	spec->gate.scale = (float)cad_keys_number_or(keys, "routed_scaling_factor", 1e-6, 1e6, 1);
	read_mixed_ffn(keys, spec);
	read_shared_experts(keys, spec, "n_shared_experts", 0);
}

static void read_deepseek_v2(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_latent_attention(keys, spec);
	read_gate(keys, spec, false);
	if (cad_keys_bool_or(keys, "norm_topk_prob", false))
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "norm_topk_prob",
			"is true: DeepSeek's code and transformers disagree about what it means here");
	const char *method = cad_keys_text_or(keys, "topk_method", "greedy");
	if (strcmp(method, "group_limited_greedy") == 0)
		read_groups(keys, &spec->gate);
	else if (strcmp(method, "greedy") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "topk_method",
			"is '%.32s'; supported are greedy and group_limited_greedy", method);
	if (strcmp(cad_keys_text_or(keys, "scoring_func", "softmax"), "softmax") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "scoring_func", "is not softmax");
	read_deepseek_ffn(keys, spec, 0);
}

/* The gate of DeepSeek-V3. */
static void read_sigmoid_gate(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", true));
	spec->gate.score = CAD_SCORE_SIGMOID;
	spec->gate.selection_bias = true;
	spec->gate.renormalise_epsilon = 1e-20f;
	spec->gate.group_score = CAD_GROUP_SCORE_TOP2;
	read_groups(keys, &spec->gate);
}

static void read_deepseek_v3(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_latent_attention(keys, spec);
	read_sigmoid_gate(keys, spec);
	if (strcmp(cad_keys_text_or(keys, "topk_method", "noaux_tc"), "noaux_tc") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "topk_method", "is not noaux_tc");
	if (strcmp(cad_keys_text_or(keys, "scoring_func", "sigmoid"), "sigmoid") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "scoring_func", "is not sigmoid");
	read_deepseek_ffn(keys, spec, 3);
}

/* Families that rotate the first part of each head, whatever the kind: what is left is as long as a
 * head of others. */
static void set_rotated(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t size)
{
	struct cad_rope_spec *rope = &spec->rope;
	if (rope->kind == CAD_ROPE_PROPORTIONAL)
		cad_keys_fail(
			keys, CAD_ERR_UNSUPPORTED, "rope_type", "is proportional, which this architecture has not");
	if (size < 2 || size > spec->attention.head_size)
		cad_keys_fail(keys, CAD_ERR_RANGE, "partial_rotary_factor",
			"makes %u elements of a head rotate; it must be from 2 to %u", size, spec->attention.head_size);
	rope->size = size;
	rope->partial = 1;
}

/* GLM-4.5 to 4.7: DeepSeek-V3's gate above grouped attention. */
static void read_glm4_moe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	static const char *const further[] = { "num_nextn_predict_layers", "num_mtp_layers", NULL };
	struct cad_attention_spec *attention = &spec->attention;
	read_grouped_attention(keys, spec);
	read_bias(keys, attention, false);
	attention->o_bias = false;
	attention->qk_norm = cad_keys_bool_or(keys, "use_qk_norm", false) ? CAD_QK_NORM_HEAD : CAD_QK_NORM_NONE;
	set_rotated(keys, spec, (uint32_t)(attention->head_size * spec->rope.partial));
	read_uniform_window(keys, spec, 0);
	read_sigmoid_gate(keys, spec);
	read_deepseek_ffn(keys, spec, 1);
	spec->further_layers = cad_keys_u32_or(keys, cad_keys_name(keys, further), 0, CAD_LAYERS_MAX, 1);
}

static void read_minimax_m2(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *attention = &spec->attention;
	read_grouped_attention(keys, spec);
	attention->qk_norm = CAD_QK_NORM_PROJECTION;
	set_rotated(keys, spec,
		cad_keys_u32_or(keys, "rotary_dim", 2, CAD_HEAD_SIZE_MAX,
			(uint32_t)(attention->head_size * spec->rope.partial)));
	read_uniform_window(keys, spec, 0);
	set_moe_layers(spec);
	read_gate(keys, spec, true);
	spec->gate.score = CAD_SCORE_SIGMOID;
	spec->gate.selection_bias = true;
	spec->expert.size = read_ffn_size(keys, "intermediate_size");
	spec->further_layers = cad_keys_u32_or(keys, "num_mtp_modules", 0, CAD_LAYERS_MAX, 0);
}

/* Experts in every `moe_layer_interval`-th layer of those from start to end, which is one of them; -1
 * is the last layer. */
static void read_ernie_layers(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	static const char end_key[] = "moe_layer_end_index";
	const json_t *last = cad_keys_get(keys, end_key);
	uint32_t start = cad_keys_u32_or(keys, "moe_layer_start_index", 0, INT32_MAX, 1),
		 step = cad_keys_u32_or(keys, "moe_layer_interval", 1, CAD_LAYERS_MAX, 1), end = spec->layers_count;

	if (last && !(json_is_integer(last) && json_integer_value(last) == -1))
		end = cad_keys_u32(keys, end_key, 0, INT32_MAX - 1) + 1;
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = (i + 1) % step == 0 && i >= start && i < end;
}

static void read_ernie4_5_moe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	spec->tied_embeddings = cad_keys_bool_or(keys, "tie_word_embeddings", true);
	read_grouped_attention(keys, spec);
	spec->rope.interleaved = true;
	read_uniform_window(keys, spec, 0);
	read_ernie_layers(keys, spec);
	read_gate(keys, spec, true);
	spec->gate.selection_bias = true;
	spec->gate.renormalise_least = (float)cad_keys_number_or(keys, "moe_norm_min", 0, 1, 1e-12);
	read_mixed_ffn(keys, spec);
	read_shared_experts(keys, spec, "moe_num_shared_experts", 2);
	if (cad_keys_bool_or(keys, "use_bias", false))
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "use_bias",
			"is true: an output matrix with a bias is not supported");
}

/* Granite 3 and 4 without state-space layers: factors of what flows along the residual stream. */
static void read_granitemoe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_grouped_attention(keys, spec);
	read_bias(keys, &spec->attention, false);
	spec->attention.scale = (float)cad_keys_number_or(keys, "attention_multiplier", 1e-6, 1e6, 1);
	read_uniform_window(keys, spec, 0);
	set_moe_layers(spec);
	read_gate(keys, spec, false);
	spec->gate.softmax_after_topk = true;
	spec->expert.size = read_ffn_size(keys, "intermediate_size");
	spec->shared.size = cad_keys_u32_or(keys, "shared_intermediate_size", 0, CAD_FFN_MAX, 0);
	spec->embed_scale = (float)cad_keys_number_or(keys, "embedding_multiplier", 1e-6, 1e6, 1);
	spec->branch_scale = (float)cad_keys_number_or(keys, "residual_multiplier", 1e-6, 1e6, 1);
	spec->logits_divisor = (float)cad_keys_number_or(keys, "logits_scaling", 1e-6, 1e6, 1);
}

/* ---- names of tensors, where they differ from the common ones (tensors.c) ---- */

/* Mixtral's, which has no bias; and MiniMax-M2's. */
static const struct cad_tensor_name mixtral_names[] = {
	{ CAD_ROLE_GATE, "model.layers.{l}.block_sparse_moe.gate.weight" },
	{ CAD_ROLE_SELECTION_BIAS, "model.layers.{l}.block_sparse_moe.e_score_correction_bias" },
	{ CAD_ROLE_EXPERT_GATE, "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight" },
	{ CAD_ROLE_EXPERT_UP, "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight" },
	{ CAD_ROLE_EXPERT_DOWN, "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight" },
};

static const struct cad_tensor_name ernie4_5_moe_names[] = {
	{ CAD_ROLE_SELECTION_BIAS, "model.layers.{l}.mlp.moe_statics.e_score_correction_bias" },
};

static const struct cad_tensor_name granitemoe_names[] = {
	{ CAD_ROLE_GATE, "model.layers.{l}.block_sparse_moe.router.layer.weight" },
	{ CAD_ROLE_SHARED_DOWN, "model.layers.{l}.shared_mlp.output_linear.weight" },
};
static const struct cad_tensor_name granitemoe_fused_names[] = {
	{ CAD_ROLE_EXPERT_GATE, "model.layers.{l}.block_sparse_moe.input_linear.weight" },
	{ CAD_ROLE_EXPERT_DOWN, "model.layers.{l}.block_sparse_moe.output_linear.weight" },
	{ CAD_ROLE_SHARED_GATE, "model.layers.{l}.shared_mlp.input_linear.weight" },
};

static const struct cad_tensor_name qwen2_moe_names[] = {
	{ CAD_ROLE_SHARED_GATE, "model.layers.{l}.mlp.shared_expert.gate_proj.weight" },
	{ CAD_ROLE_SHARED_UP, "model.layers.{l}.mlp.shared_expert.up_proj.weight" },
	{ CAD_ROLE_SHARED_DOWN, "model.layers.{l}.mlp.shared_expert.down_proj.weight" },
};

/* Its experts are fused into [E][H][2F] and [E][F][H], which is what it still lacks here. */
static const struct cad_tensor_name gpt_oss_names[] = {
	{ CAD_ROLE_GATE, "model.layers.{l}.mlp.router.weight" },
	{ CAD_ROLE_GATE_BIAS, "model.layers.{l}.mlp.router.bias" },
};

/* ---- the table ---- */

#define NAMES(list) .names = (list), .names_count = sizeof(list) / sizeof *(list)
#define FUSED_NAMES(list) .fused_names = (list), .fused_names_count = sizeof(list) / sizeof *(list)
static const struct cad_arch archs[] = {
	{
		.name = "mixtral",
		.runs = true,
		.rope_theta = 1e6,
		.read = read_mixtral,
		NAMES(mixtral_names),
		.fused = CAD_FUSED_ROWS,
		.renamed = ".block_sparse_moe.",
		.renamed_to = ".mlp.",
	},
	{ .name = "olmoe", .runs = true, .rope_theta = 1e4, .read = read_olmoe, .fused = CAD_FUSED_ROWS },
	{ .name = "qwen3_moe", .runs = true, .rope_theta = 1e4, .read = read_qwen3_moe, .fused = CAD_FUSED_ROWS },
	{ .name = "llama", .runs = true, .rope_theta = 1e4, .read = read_llama },
	{
		.name = "qwen2_moe",
		.runs = true,
		.rope_theta = 1e4,
		.read = read_qwen2_moe,
		NAMES(qwen2_moe_names),
		.fused = CAD_FUSED_ROWS,
	},
	{
		.name = "glm4_moe",
		.runs = true,
		.rope_theta = 1e4,
		.rope_partial = 0.5,
		.read = read_glm4_moe,
		.fused = CAD_FUSED_ROWS,
	},
	{
		.name = "minimax_m2",
		.runs = true,
		.rope_theta = 5e6,
		.read = read_minimax_m2,
		NAMES(mixtral_names),
		.fused = CAD_FUSED_ROWS,
		.renamed = ".block_sparse_moe.",
		.renamed_to = ".mlp.",
	},
	{
		.name = "ernie4_5_moe",
		.runs = true,
		.rope_theta = 5e5,
		.read = read_ernie4_5_moe,
		NAMES(ernie4_5_moe_names),
		.fused = CAD_FUSED_ROWS,
	},
	{
		.name = "granitemoe",
		.runs = true,
		.rope_theta = 1e4,
		.read = read_granitemoe,
		NAMES(granitemoe_names),
		FUSED_NAMES(granitemoe_fused_names),
	},
	{
		.name = "granitemoeshared",
		.runs = true,
		.rope_theta = 1e4,
		.read = read_granitemoe,
		NAMES(granitemoe_names),
		FUSED_NAMES(granitemoe_fused_names),
	},
	{
		.name = "deepseek_v2",
		.runs = false,
		.rope_theta = 1e4,
		.read = read_deepseek_v2,
	},
	{
		.name = "deepseek_v3",
		.runs = false,
		.rope_theta = 1e4,
		.read = read_deepseek_v3,
	},
	{
		.name = "gpt_oss",
		.runs = false,
		.rope_theta = 15e4,
		.read = read_gpt_oss,
		NAMES(gpt_oss_names),
	},
};
enum { ARCHS = sizeof archs / sizeof *archs };

const struct cad_arch *cad_arch_find(const char *name)
{
	for (size_t i = 0; i < ARCHS; i++)
		if (strcmp(archs[i].name, name) == 0)
			return &archs[i];
	return NULL;
}

const char *cad_arch_list(char *text, size_t bytes)
{
	size_t at = 0;
	text[0] = 0;
	for (size_t i = 0; i < ARCHS; i++)
		if (archs[i].runs && at < bytes)
			at += (size_t)snprintf(text + at, bytes - at, "%s%s", at ? ", " : "", archs[i].name);
	return text;
}
