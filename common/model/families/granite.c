/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

/* Granite 3 and 4 without state-space layers: factors of what flows along the residual stream. */
static void read_granitemoe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	spec->attention.scale = (float)cad_keys_number_or(keys, "attention_multiplier", 1e-6, 1e6, 1);
	cad_read_uniform_window(keys, spec, 0);
	cad_set_moe_layers(spec);
	cad_read_gate(keys, spec, false);
	spec->gate.softmax_after_topk = true;
	spec->expert.size = cad_read_ffn_size(keys, "intermediate_size");
	spec->shared.size = cad_keys_u32_or(keys, "shared_intermediate_size", 0, CAD_FFN_MAX, 0);
	spec->embed_scale = (float)cad_keys_number_or(keys, "embedding_multiplier", 1e-6, 1e6, 1);
	spec->branch_scale = (float)cad_keys_number_or(keys, "residual_multiplier", 1e-6, 1e6, 1);
	spec->logits_divisor = (float)cad_keys_number_or(keys, "logits_scaling", 1e-6, 1e6, 1);
}

static const struct cad_tensor_name granitemoe_names[] = {
	{ CAD_ROLE_GATE, "model.layers.{l}.block_sparse_moe.router.layer.weight" },
	{ CAD_ROLE_SHARED_DOWN, "model.layers.{l}.shared_mlp.output_linear.weight" },
};

static const struct cad_tensor_name granitemoe_fused_names[] = {
	{ CAD_ROLE_EXPERT_GATE, "model.layers.{l}.block_sparse_moe.input_linear.weight" },
	{ CAD_ROLE_EXPERT_DOWN, "model.layers.{l}.block_sparse_moe.output_linear.weight" },
	{ CAD_ROLE_SHARED_GATE, "model.layers.{l}.shared_mlp.input_linear.weight" },
};

static const struct cad_known_key granitemoe_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("attention_multiplier"),
	CAD_READ("embedding_multiplier"),
	CAD_READ("residual_multiplier"),
	CAD_READ("logits_scaling"),
};

const struct cad_arch cad_arch_granitemoe = {
	.name = "granitemoe",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_granitemoe,
	CAD_KEYS(granitemoe_keys),
	CAD_NAMES(granitemoe_names),
	CAD_FUSED_NAMES(granitemoe_fused_names),
};

static const struct cad_known_key granitemoeshared_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("attention_multiplier"),
	CAD_READ("embedding_multiplier"),
	CAD_READ("residual_multiplier"),
	CAD_READ("logits_scaling"),
	CAD_READ("shared_intermediate_size"),
};

const struct cad_arch cad_arch_granitemoeshared = {
	.name = "granitemoeshared",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_granitemoe,
	CAD_KEYS(granitemoeshared_keys),
	CAD_NAMES(granitemoe_names),
	CAD_FUSED_NAMES(granitemoe_fused_names),
};
