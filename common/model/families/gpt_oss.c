/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

static void read_gpt_oss(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	static const char *const wanted[] = { "head_dim", "sliding_window" }; /* absent they are not what null is */
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
		if (!json_object_get(keys->object, wanted[i]))
			cad_keys_fail(keys, CAD_ERR_INVALID, wanted[i], "is missing");
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, true);
	spec->attention.sinks = true;
	uint32_t window = cad_read_window(keys);
	cad_set_window(spec, 2, UINT32_MAX, window);
	cad_read_layer_types(keys, spec, window);
	if (!cad_keys_get(keys, "rope_scaling") && !cad_keys_get(keys, "rope_parameters"))
		cad_keys_fail(keys, CAD_ERR_INVALID, "rope_scaling", "is missing");
	cad_set_moe_layers(spec);
	cad_read_gate(keys, spec, false);
	spec->gate.softmax_after_topk = true;
	spec->gate.linear_bias = true;
	spec->expert.size = cad_read_ffn_size(keys, "intermediate_size");
	spec->expert.activation = CAD_ACTIVATION_SWIGLU_CLAMPED;
	spec->expert.limit = (float)cad_keys_number_or(keys, "swiglu_limit", 1e-3, 1e6, 7);
	spec->expert.bias = true;
	if (cad_keys_number_or(keys, "swiglu_alpha", 0, 1e3, 1.702) != 1.702)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "swiglu_alpha", "is not 1.702, which is not supported");
}

static const struct cad_known_key gpt_oss_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("sliding_window"),
	CAD_READ("swiglu_limit"),
	CAD_READ("swiglu_alpha"),
	CAD_NO_USE("initial_context_length", CAD_KEY_UNREAD),
};

static const struct cad_tensor_name gpt_oss_names[] = {
	{ CAD_ROLE_GATE, "model.layers.{l}.mlp.router.weight" },
	{ CAD_ROLE_GATE_BIAS, "model.layers.{l}.mlp.router.bias" },
};

static const struct cad_tensor_name gpt_oss_fused_names[] = {
	{ CAD_ROLE_EXPERT_GATE_BIAS, "model.layers.{l}.mlp.experts.gate_up_proj_bias" },
	{ CAD_ROLE_EXPERT_DOWN_BIAS, "model.layers.{l}.mlp.experts.down_proj_bias" },
};

const struct cad_arch cad_arch_gpt_oss = {
	.name = "gpt_oss",
	.runs = true,
	.rope_theta = 15e4,
	.read = read_gpt_oss,
	CAD_KEYS(gpt_oss_keys),
	CAD_NAMES(gpt_oss_names),
	.fused = CAD_FUSED_IN_TURN,
	CAD_FUSED_NAMES(gpt_oss_fused_names),
};
