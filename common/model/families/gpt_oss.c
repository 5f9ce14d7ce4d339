/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

static void read_gpt_oss(const struct cad_keys *keys, struct cad_model_spec *spec)
{
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

/* Its experts are fused into [E][H][2F] and [E][F][H], which is what it still lacks here. */
static const struct cad_tensor_name gpt_oss_names[] = {
	{ CAD_ROLE_GATE, "model.layers.{l}.mlp.router.weight" },
	{ CAD_ROLE_GATE_BIAS, "model.layers.{l}.mlp.router.bias" },
};

const struct cad_arch cad_arch_gpt_oss = {
	.name = "gpt_oss",
	.runs = false,
	.rope_theta = 15e4,
	.read = read_gpt_oss,
	CAD_NAMES(gpt_oss_names),
};
