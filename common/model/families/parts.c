/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

#include <math.h>
#include <string.h>

void cad_read_grouped_attention(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *attention = &spec->attention;
	attention->kind = CAD_ATTENTION_GROUPED;
	attention->heads = cad_keys_u32(keys, "num_attention_heads", 1, CAD_HEADS_MAX);
	attention->kv_heads = cad_keys_u32_or(keys, "num_key_value_heads", 1, CAD_HEADS_MAX, attention->heads);
	if (attention->heads % attention->kv_heads != 0)
		cad_keys_fail(keys, CAD_ERR_RANGE, "num_attention_heads",
			"is %u, which num_key_value_heads, %u, does not divide", attention->heads, attention->kv_heads);
	attention->head_size =
		cad_keys_u32_or(keys, "head_dim", 2, CAD_HEAD_SIZE_MAX, cad_arch_find(spec->architecture)->head_size);

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
	for (uint32_t i = 0; i < spec->ropes_count; i++)
		spec->ropes[i].size = attention->head_size;
}

void cad_read_bias(const struct cad_keys *keys, struct cad_attention_spec *attention, bool absent)
{
	bool bias = cad_keys_bool_or(keys, "attention_bias", absent);
	attention->q_bias = attention->k_bias = attention->v_bias = attention->o_bias = bias;
}

void cad_set_rotation(const struct cad_keys *keys, struct cad_rope_spec *rope, uint32_t head_size, uint32_t size)
{
	if (rope->kind == CAD_ROPE_PROPORTIONAL)
		cad_keys_fail(
			keys, CAD_ERR_UNSUPPORTED, "rope_type", "is proportional, which this architecture has not");
	if (size < 2 || size > head_size)
		cad_keys_fail(keys, CAD_ERR_RANGE, "partial_rotary_factor",
			"makes %u elements of a head rotate; it must be from 2 to %u", size, head_size);
	rope->size = size;
	rope->partial = 1;
}

void cad_set_rotated(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t size)
{
	for (uint32_t i = 0; i < spec->ropes_count; i++)
		cad_set_rotation(keys, &spec->ropes[i], spec->attention.head_size, size);
}

void cad_read_latent_attention(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *attention = &spec->attention;
	attention->kind = CAD_ATTENTION_LATENT;
	attention->heads = attention->kv_heads = cad_keys_u32(keys, "num_attention_heads", 1, CAD_HEADS_MAX);
	attention->q_rank = cad_keys_u32_or(keys, "q_lora_rank", 1, CAD_HIDDEN_MAX, 0);
	attention->kv_rank = cad_keys_u32(keys, "kv_lora_rank", 1, CAD_KV_RANK_MAX);
	attention->nope_size = cad_keys_u32(keys, "qk_nope_head_dim", 1, CAD_HEAD_SIZE_MAX);
	attention->rope_size = cad_keys_u32(keys, "qk_rope_head_dim", 2, CAD_KV_ROPE_MAX);
	attention->value_size = cad_keys_u32(keys, "v_head_dim", 1, CAD_HEAD_SIZE_MAX);
	attention->head_size = attention->nope_size + attention->rope_size;
	if (attention->head_size > CAD_HEAD_SIZE_MAX)
		cad_keys_fail(keys, CAD_ERR_RANGE, "qk_nope_head_dim",
			"and qk_rope_head_dim are together %u; at most %d are supported", attention->head_size,
			CAD_HEAD_SIZE_MAX);
	if (cad_keys_u32_or(keys, "num_key_value_heads", 1, CAD_HEADS_MAX, attention->heads) != attention->heads)
		cad_keys_fail(keys, CAD_ERR_INVALID, "num_key_value_heads",
			"is not num_attention_heads, %u, as latent attention has it", attention->heads);
	uint32_t head_dim = cad_keys_u32_or(keys, "head_dim", 2, CAD_HEAD_SIZE_MAX, attention->rope_size);
	if (head_dim != attention->rope_size && head_dim != attention->head_size)
		cad_keys_fail(keys, CAD_ERR_INVALID, "head_dim",
			"is %u, which is neither what rotates of a head, %u, nor all of it, %u", head_dim,
			attention->rope_size, attention->head_size);
	attention->down_bias = attention->o_bias = cad_keys_bool_or(keys, "attention_bias", false);
	attention->latent_epsilon = 1e-6f; /* whatever rms_norm_eps says */
	spec->rope.size = attention->rope_size;
	spec->rope.interleaved = true;
	double scale = 1 / sqrt(attention->head_size);
	if (spec->rope.kind != CAD_ROPE_DEFAULT && spec->rope.mscale_all_dim != 0 && spec->rope.factor > 1) {
		double mscale = 0.1 * spec->rope.mscale_all_dim * log(spec->rope.factor) + 1;
		scale *= mscale * mscale;
	}

	attention->scale = (float)scale;
	cad_read_uniform_window(keys, spec, 0);
}

const char *cad_key_of_experts(const struct cad_keys *keys)
{
	static const char *const names[] = { "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts",
		NULL };
	return cad_keys_name(keys, names);
}

const char *cad_key_of_topk(const struct cad_keys *keys)
{
	static const char *const names[] = { "num_experts_per_tok", "experts_per_token", "moe_k", "moe_topk", NULL };
	return cad_keys_name(keys, names);
}

void cad_set_gate(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t experts, const char *topk_key,
	uint32_t topk, bool renormalise)
{
	struct cad_gate_spec *gate = &spec->gate;

	gate->experts = experts;
	gate->topk = topk;
	if (topk > experts)
		cad_keys_fail(keys, CAD_ERR_RANGE, topk_key, "is %u, but there are only %u experts", topk, experts);
	gate->score = CAD_SCORE_SOFTMAX;
	gate->groups = gate->groups_kept = 1;
	gate->renormalise = renormalise;
	gate->scale = 1;
}

void cad_read_gate(const struct cad_keys *keys, struct cad_model_spec *spec, bool renormalise)
{
	const char *topk = cad_key_of_topk(keys);
	uint32_t experts = cad_keys_u32(keys, cad_key_of_experts(keys), 1, CAD_EXPERTS_MAX);

	cad_set_gate(keys, spec, experts, topk, cad_keys_u32(keys, topk, 1, CAD_TOPK_MAX), renormalise);
}

void cad_read_groups(const struct cad_keys *keys, struct cad_gate_spec *gate)
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

void cad_read_sigmoid_gate(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", true));
	spec->gate.score = CAD_SCORE_SIGMOID;
	spec->gate.selection_bias = true;
	spec->gate.renormalise_epsilon = 1e-20f;
	spec->gate.group_score = CAD_GROUP_SCORE_TOP2;
	cad_read_groups(keys, &spec->gate);
}

uint32_t cad_read_ffn_size(const struct cad_keys *keys, const char *key)
{
	return cad_keys_u32(keys, key, 1, CAD_FFN_MAX);
}

void cad_read_shared_experts(const struct cad_keys *keys, struct cad_model_spec *spec, const char *key, uint32_t absent)
{
	uint32_t shared = cad_keys_u32_or(keys, key, 0, CAD_EXPERTS_MAX, absent);
	if (spec->gate.experts)
		spec->shared.size = shared * spec->expert.size;
	if (spec->shared.size > CAD_FFN_MAX)
		cad_keys_fail(keys, CAD_ERR_RANGE, key, "is %u, which makes a shared expert of more than %d", shared,
			CAD_FFN_MAX);
}

void cad_read_mixed_ffn(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	uint32_t moe = cad_model_spec_moe_layers(spec);
	if (moe == 0)
		spec->gate = (struct cad_gate_spec){ 0 };
	else
		spec->expert.size = cad_read_ffn_size(keys, "moe_intermediate_size");
	if (moe < spec->layers_count)
		spec->dense.size = cad_read_ffn_size(keys, "intermediate_size");
}

void cad_read_first_dense(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t absent)
{
	uint32_t first = cad_keys_u32_or(keys, "first_k_dense_replace", 0, INT32_MAX, absent);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = i >= first;
}

void cad_read_scaled_ffn(
	const struct cad_keys *keys, struct cad_model_spec *spec, double scale_absent, uint32_t shared_absent)
{
	spec->gate.scale = (float)cad_keys_number_or(keys, "routed_scaling_factor", 1e-6, 1e6, scale_absent);
	cad_read_mixed_ffn(keys, spec);
	cad_read_shared_experts(keys, spec, "n_shared_experts", shared_absent);
}

void cad_read_deepseek_ffn(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t first_moe_absent)
{
	cad_read_first_dense(keys, spec, first_moe_absent);
	if (cad_keys_u32_or(keys, "moe_layer_freq", 0, INT32_MAX, 1) != 1)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "moe_layer_freq", "is not 1, which is not supported");
	cad_read_scaled_ffn(keys, spec, 1, 0);
}

void cad_read_further_layers(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t absent)
{
	static const char *const names[] = { "num_nextn_predict_layers", "num_mtp_layers", NULL };
	spec->further_layers = cad_keys_u32_or(keys, cad_keys_name(keys, names), 0, CAD_LAYERS_MAX, absent);
}

void cad_set_moe_layers(struct cad_model_spec *spec)
{
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = true;
}

void cad_read_sparse_layers(const struct cad_keys *keys, struct cad_model_spec *spec)
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

bool cad_read_flags(const struct cad_keys *keys, const struct cad_model_spec *spec, const char *key, bool *flags)
{
	const json_t *list = cad_keys_get(keys, key);
	if (!list)
		return false;

	if (!json_is_array(list) || json_array_size(list) != spec->layers_count) {
		cad_keys_fail(keys, CAD_ERR_INVALID, key, "must be a list of %u numbers, one for each layer",
			spec->layers_count);
		return false;
	}
	for (uint32_t i = 0; i < spec->layers_count; i++) {
		const json_t *item = json_array_get(list, i);
		json_int_t value = json_is_integer(item) ? json_integer_value(item) : -1;
		if (value != 0 && value != 1)
			cad_keys_fail(keys, CAD_ERR_RANGE, key, "says of layer %u something other than 0 and 1", i);
		flags[i] = value == 1;
	}
	return true;
}

void cad_read_mlp_layer_types(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	const json_t *types = cad_keys_get(keys, "mlp_layer_types");
	if (!types)
		return;

	if (!json_is_array(types) || json_array_size(types) != spec->layers_count) {
		cad_keys_fail(keys, CAD_ERR_INVALID, "mlp_layer_types",
			"must be a list of %u texts, one for each layer", spec->layers_count);
		return;
	}
	for (uint32_t i = 0; i < spec->layers_count; i++) {
		const char *type = json_string_value(json_array_get(types, i));
		spec->layers[i].moe = type && strcmp(type, "sparse") == 0;
		if (!type || (!spec->layers[i].moe && strcmp(type, "dense") != 0))
			cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "mlp_layer_types",
				"says '%.32s' of layer %u; supported are dense and sparse", type ? type : "", i);
	}
}

uint32_t cad_read_window(const struct cad_keys *keys)
{
	return cad_keys_u32_or(keys, "sliding_window", 1, INT32_MAX, 0);
}

uint32_t cad_read_window_or(const struct cad_keys *keys, uint32_t absent)
{
	return json_is_null(json_object_get(keys->object, "sliding_window"))
		? 0
		: cad_keys_u32_or(keys, "sliding_window", 1, INT32_MAX, absent);
}

void cad_set_window_but(struct cad_model_spec *spec, uint32_t layer_step, uint32_t full, uint32_t window)
{
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].window = i % layer_step == full ? 0 : window;
}

void cad_set_rotation_by_window(struct cad_model_spec *spec, uint32_t window)
{
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].rope = window == 0 || spec->layers[i].window > 0;
}

void cad_set_window(struct cad_model_spec *spec, uint32_t layer_step, uint32_t layers_end, uint32_t window)
{
	for (uint32_t i = 0; i < spec->layers_count && i < layers_end; i += layer_step)
		spec->layers[i].window = window;
}

void cad_read_layer_types(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t window)
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
		spec->layers[i].rope_at = slides && spec->ropes_count > 1 ? 1 : 0;
	}
}

void cad_read_uniform_window(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t window)
{
	cad_set_window(spec, 1, UINT32_MAX, window);
	cad_read_layer_types(keys, spec, window);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		if (spec->layers[i].window != window)
			cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "layer_types",
				"says that layer %u does not slide, but in this architecture every layer or none does",
				i);
}
