/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

static void read_qwen3_moe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	spec->attention.qk_norm = CAD_QK_NORM_HEAD;
	cad_read_uniform_window(
		keys, spec, cad_keys_bool_or(keys, "use_sliding_window", false) ? cad_read_window(keys) : 0);
	cad_read_sparse_layers(keys, spec);
	cad_read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", false));
	cad_read_mixed_ffn(keys, spec);
}

static void read_qwen2_moe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	struct cad_attention_spec *attention = &spec->attention;
	attention->q_bias = attention->k_bias = attention->v_bias = cad_keys_bool_or(keys, "qkv_bias", true);
	bool slides = cad_keys_bool_or(keys, "use_sliding_window", false);
	uint32_t window = slides ? cad_read_window(keys) : 0;
	cad_set_window(spec, 2, cad_keys_u32_or(keys, "max_window_layers", 0, INT32_MAX, 28), window);
	cad_read_layer_types(keys, spec, window);
	cad_read_sparse_layers(keys, spec);
	cad_read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", false));
	cad_read_mixed_ffn(keys, spec);
	if (spec->gate.experts) {
		spec->shared.size = cad_read_ffn_size(keys, "shared_expert_intermediate_size");
		spec->shared_gate = true;
	}
}

static const struct cad_tensor_name qwen2_moe_names[] = {
	{ CAD_ROLE_SHARED_GATE, "model.layers.{l}.mlp.shared_expert.gate_proj.weight" },
	{ CAD_ROLE_SHARED_UP, "model.layers.{l}.mlp.shared_expert.up_proj.weight" },
	{ CAD_ROLE_SHARED_DOWN, "model.layers.{l}.mlp.shared_expert.down_proj.weight" },
};

static const struct cad_known_key qwen2_moe_keys[] = {
	CAD_READ("sliding_window"),
	CAD_READ("use_sliding_window"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("moe_intermediate_size"),
	CAD_READ("decoder_sparse_step"),
	CAD_READ("mlp_only_layers"),
	CAD_READ("qkv_bias"),
	CAD_READ("max_window_layers"),
	CAD_READ("shared_expert_intermediate_size"),
};

const struct cad_arch cad_arch_qwen2_moe = {
	.name = "qwen2_moe",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_qwen2_moe,
	CAD_KEYS(qwen2_moe_keys),
	CAD_NAMES(qwen2_moe_names),
	.fused = CAD_FUSED_ROWS,
};

static const struct cad_known_key qwen3_moe_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("sliding_window"),
	CAD_READ("use_sliding_window"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("moe_intermediate_size"),
	CAD_READ("decoder_sparse_step"),
	CAD_READ("mlp_only_layers"),
	CAD_NO_USE("max_window_layers", CAD_KEY_UNREAD),
};

const struct cad_arch cad_arch_qwen3_moe = {
	.name = "qwen3_moe",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_qwen3_moe,
	CAD_KEYS(qwen3_moe_keys),
	.fused = CAD_FUSED_ROWS,
};
