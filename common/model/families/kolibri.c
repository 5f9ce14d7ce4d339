/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

static void read_kolibri1(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	spec->attention.qk_norm = CAD_QK_NORM_HEAD;
	spec->norms = CAD_NORMS_AROUND;
	uint32_t window = cad_read_window_or(keys, 513);
	cad_set_window_but(spec, 5, 4, window);
	cad_read_layer_types(keys, spec, window);
	cad_set_rotation_by_window(spec, window);
	cad_set_moe_layers(spec);
	cad_read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", false));
	spec->gate.score = CAD_SCORE_SIGMOID;
	spec->gate.selection_bias = spec->gate.choice_by_logit = true;
	spec->expert.size = cad_read_ffn_size(keys, "moe_intermediate_size");
	cad_keys_u32_or(keys, "intermediate_size", 1, CAD_FFN_MAX, 1); /* of no layer, but files have it */
	spec->shared.size = cad_keys_u32_or(keys, "shared_expert_intermediate_size", 1, CAD_FFN_MAX, 512);
}

static const struct cad_tensor_name kolibri1_names[] = {
	{ CAD_ROLE_ATTENTION_AFTER, "model.layers.{l}.post_attn_norm.weight" },
	{ CAD_ROLE_FFN_AFTER, "model.layers.{l}.post_ffn_norm.weight" },
	{ CAD_ROLE_SELECTION_BIAS, "model.layers.{l}.moe.router.expert_bias" },
};

static const struct cad_known_key kolibri1_keys[] = {
	CAD_READ("sliding_window"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("moe_intermediate_size"),
	CAD_READ("shared_expert_intermediate_size"),
};

const struct cad_arch cad_arch_kolibri1 = {
	.name = "kolibri1",
	.runs = true,
	.head_size = 128,
	.rope_theta = 1e4,
	.read = read_kolibri1,
	CAD_KEYS(kolibri1_keys),
	CAD_NAMES(kolibri1_names),
	.fused = CAD_FUSED_ROWS,
};
