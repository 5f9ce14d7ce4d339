/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

/* Biases of dense layers and shared experts alike. */
static void refuse_ffn_bias(const struct cad_keys *keys)
{
	if (cad_keys_bool_or(keys, "mlp_bias", false))
		cad_keys_fail(
			keys, CAD_ERR_UNSUPPORTED, "mlp_bias", "is true: a shared expert with biases is not supported");
}

/* A number, or a list of one for each layer, which must be all the same. */
static uint32_t read_alike(const struct cad_keys *keys, const char *key, uint32_t most, uint32_t absent)
{
	const json_t *list = cad_keys_get(keys, key);
	if (!json_is_array(list))
		return cad_keys_u32_or(keys, key, 1, most, absent);

	json_int_t value = json_integer_value(json_array_get(list, 0));
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!json_is_integer(json_array_get(list, i)) || json_integer_value(json_array_get(list, i)) != value) {
			cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, key, "differs by layer, which is not supported");
			return 1;
		}
	if (value < 1 || value > (json_int_t)most) {
		cad_keys_fail(keys, CAD_ERR_RANGE, key, "must list a number from 1 to %u for each layer", most);
		return 1;
	}
	return (uint32_t)value;
}

/* Hunyuan-A13B. Expert and shared expert are of intermediate_size; files that say a size of experts
 * and a count of shared ones mean the same by it. */
static void read_hunyuan_v1_moe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	const char *topk = cad_key_of_topk(keys);
	struct cad_attention_spec *attention = &spec->attention;

	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, attention, false);
	attention->qk_norm = CAD_QK_NORM_HEAD;
	attention->qk_norm_last = true;
	if (cad_keys_u32_or(keys, "attention_head_dim", 1, UINT16_MAX, attention->head_size) != attention->head_size)
		cad_keys_fail(keys, CAD_ERR_INVALID, "attention_head_dim",
			"is not head_dim, or hidden_size over heads, %u", attention->head_size);
	cad_read_uniform_window(keys, spec, 0);
	cad_set_moe_layers(spec);
	cad_set_gate(keys, spec, read_alike(keys, cad_key_of_experts(keys), CAD_EXPERTS_MAX, 1), topk,
		read_alike(keys, topk, CAD_TOPK_MAX, 1), true);
	spec->expert.size = spec->shared.size = cad_read_ffn_size(keys, "intermediate_size");
	if (read_alike(keys, "moe_intermediate_size", CAD_FFN_MAX, spec->expert.size) != spec->expert.size)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "moe_intermediate_size", "is not intermediate_size, %u",
			spec->expert.size);
	if (read_alike(keys, "num_shared_expert", CAD_EXPERTS_MAX, 1) != 1)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "num_shared_expert", "is not 1, which is not supported");
	refuse_ffn_bias(keys);
}

static const struct cad_tensor_name hunyuan_v1_moe_names[] = {
	{ CAD_ROLE_Q_NORM, "model.layers.{l}.self_attn.query_layernorm.weight" },
	{ CAD_ROLE_K_NORM, "model.layers.{l}.self_attn.key_layernorm.weight" },
	{ CAD_ROLE_GATE, "model.layers.{l}.mlp.gate.wg.weight" },
	{ CAD_ROLE_SHARED_GATE, "model.layers.{l}.mlp.shared_mlp.gate_proj.weight" },
	{ CAD_ROLE_SHARED_UP, "model.layers.{l}.mlp.shared_mlp.up_proj.weight" },
	{ CAD_ROLE_SHARED_DOWN, "model.layers.{l}.mlp.shared_mlp.down_proj.weight" },
};

static const struct cad_known_key hunyuan_v1_moe_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("mlp_bias"),
	CAD_READ("moe_topk"),
	CAD_READ("moe_intermediate_size"),
	CAD_READ("num_shared_expert"),
	CAD_READ("attention_head_dim"),
	CAD_READ("rope_scaling.alpha"),
	CAD_ONLY("use_qk_norm", CAD_KEY_ALWAYS, "true"),
	CAD_ONLY("norm_topk_prob", CAD_KEY_ALWAYS, "true"),
	CAD_ONLY("use_mixed_mlp_moe", CAD_KEY_ALWAYS, "true"),
	CAD_ONLY("use_rotary_pos_emb", CAD_KEY_ALWAYS, "true"),
	CAD_ONLY("norm_type", CAD_KEY_ALWAYS, "\"rms\""),
	CAD_ONLY("moe_layer_num_skipped", CAD_KEY_ALWAYS, "0"),
	CAD_NO_USE("cla_share_factor", CAD_KEY_UNREAD),
	CAD_NO_USE("num_media_embeds", CAD_KEY_UNREAD),
	CAD_NO_USE("capacity_factor", CAD_KEY_TRAINING),
	CAD_NO_USE("pretraining_tp", CAD_KEY_LIBRARY),
	CAD_NO_USE("class_num", CAD_KEY_LABELS),
	CAD_NO_USE("dense_list", CAD_KEY_LABELS),
	CAD_NO_USE("pool_type", CAD_KEY_LABELS),
	CAD_NO_USE("eod_token_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("pad_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("im_start_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("im_end_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("im_newline_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("mask_init_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("text_start_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("text_end_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("video_start_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("video_end_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("org_vocab_size", CAD_KEY_ORIGIN),
};

const struct cad_arch cad_arch_hunyuan_v1_moe = {
	.name = "hunyuan_v1_moe",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_hunyuan_v1_moe,
	CAD_KEYS(hunyuan_v1_moe_keys),
	CAD_NAMES(hunyuan_v1_moe_names),
	.fused = CAD_FUSED_ROWS,
};

/* Hy3. */
static void read_hy_v3(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	spec->attention.qk_norm = CAD_QK_NORM_HEAD;
	cad_read_uniform_window(keys, spec, 0);
	cad_read_first_dense(keys, spec, 1);
	cad_read_mlp_layer_types(keys, spec);
	cad_read_gate(keys, spec, true);
	spec->gate.score = CAD_SCORE_SIGMOID;
	spec->gate.selection_bias = true;
	spec->gate.renormalise_epsilon = 1e-20f;
	spec->gate.scale = (float)cad_keys_number_or(keys, "router_scaling_factor", 1e-6, 1e6, 2.826);
	cad_read_mixed_ffn(keys, spec);
	cad_read_shared_experts(keys, spec, "num_shared_experts", 1);
	refuse_ffn_bias(keys);
	spec->further_layers = cad_keys_u32_or(keys, "num_nextn_predict_layers", 0, CAD_LAYERS_MAX, 1);
}

static const struct cad_tensor_name hy_v3_names[] = {
	{ CAD_ROLE_GATE, "model.layers.{l}.mlp.router.gate.weight" },
	{ CAD_ROLE_SELECTION_BIAS, "model.layers.{l}.mlp.expert_bias" },
	{ CAD_ROLE_SHARED_GATE, "model.layers.{l}.mlp.shared_mlp.gate_proj.weight" },
	{ CAD_ROLE_SHARED_UP, "model.layers.{l}.mlp.shared_mlp.up_proj.weight" },
	{ CAD_ROLE_SHARED_DOWN, "model.layers.{l}.mlp.shared_mlp.down_proj.weight" },
};

static const struct cad_known_key hy_v3_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("mlp_bias"),
	CAD_READ("moe_intermediate_size"),
	CAD_READ("first_k_dense_replace"),
	CAD_READ("mlp_layer_types"),
	CAD_READ("router_scaling_factor"),
	CAD_READ("num_shared_experts"),
	CAD_READ("num_nextn_predict_layers"),
	CAD_ONLY("qk_norm", CAD_KEY_ALWAYS, "true"),
	CAD_ONLY("route_norm", CAD_KEY_ALWAYS, "true"),
	CAD_ONLY("moe_router_use_sigmoid", CAD_KEY_ALWAYS, "true"),
	CAD_ONLY("moe_router_enable_expert_bias", CAD_KEY_ALWAYS, "true"),
	CAD_NO_USE("enable_moe_fp32_combine", CAD_KEY_LIBRARY),
	CAD_NO_USE("enable_lm_head_fp32", CAD_KEY_LIBRARY),
	CAD_NO_USE("enable_attention_fp32_softmax", CAD_KEY_LIBRARY),
	CAD_NO_USE("expert_hidden_dim", CAD_KEY_UNREAD),
};

const struct cad_arch cad_arch_hy_v3 = {
	.name = "hy_v3",
	.runs = true,
	.head_size = 128,
	.rope_theta = 11158840,
	.read = read_hy_v3,
	CAD_KEYS(hy_v3_keys),
	CAD_NAMES(hy_v3_names),
	.fused = CAD_FUSED_ROWS,
};
