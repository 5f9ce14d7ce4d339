/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

static void read_aria_text(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	cad_read_uniform_window(keys, spec, 0);
	cad_set_moe_layers(spec);
	cad_read_gate(keys, spec, false);
	spec->gate.softmax_after_topk = true;
	spec->expert.size = cad_read_ffn_size(keys, "intermediate_size");
	cad_read_shared_experts(keys, spec, "moe_num_shared_experts", 2);
	if (cad_keys_bool_or(keys, "mlp_bias", false))
		cad_keys_fail(
			keys, CAD_ERR_UNSUPPORTED, "mlp_bias", "is true: shared experts with biases are not supported");
}

static const struct cad_known_key aria_text_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("mlp_bias"),
	CAD_READ("moe_topk"),
	CAD_READ("moe_num_shared_experts"),
	CAD_NO_USE("pretraining_tp", CAD_KEY_LIBRARY),
	CAD_NO_USE("moe_z_loss_coeff", CAD_KEY_TRAINING),
	CAD_NO_USE("moe_aux_loss_coeff", CAD_KEY_TRAINING),
};

static const struct cad_tensor_name aria_text_names[] = {
	{ CAD_ROLE_GATE, "model.layers.{l}.mlp.router.weight" },
};

static const struct cad_tensor_name aria_text_fused_names[] = {
	{ CAD_ROLE_EXPERT_GATE, "model.layers.{l}.mlp.experts.fc1.weight" },
	{ CAD_ROLE_EXPERT_DOWN, "model.layers.{l}.mlp.experts.fc2.weight" },
};

const struct cad_arch cad_arch_aria_text = {
	.name = "aria_text",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_aria_text,
	CAD_KEYS(aria_text_keys),
	CAD_NAMES(aria_text_names),
	.fused = CAD_FUSED_COLUMNS,
	CAD_FUSED_NAMES(aria_text_fused_names),
};
