/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

/* The first two layers, every fourth after them and the last one see all keys, and do not rotate. */
static void read_flint(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	spec->attention.qk_norm = CAD_QK_NORM_HEAD;
	spec->attention.sinks = true;
	uint32_t window = cad_keys_u32_or(keys, "sliding_window", 1, INT32_MAX, 513), last = spec->layers_count - 1;
	cad_set_window_but(spec, 4, 1, window);
	spec->layers[0].window = spec->layers[last].window = 0;
	cad_read_layer_types(keys, spec, window);
	cad_set_rotation_by_window(spec, window);
	cad_read_sparse_layers(keys, spec);
	for (uint32_t i = 0; !cad_keys_get(keys, "mlp_only_layers") && i < 2 && i <= last; i++)
		spec->layers[i].moe = false;
	cad_read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", true));
	spec->gate.score = CAD_SCORE_SIGMOID;
	cad_read_mixed_ffn(keys, spec);
	if (spec->gate.experts)
		spec->shared.size = cad_keys_u32_or(keys, "shared_expert_intermediate_size", 1, CAD_FFN_MAX, 1024);
}

static const struct cad_tensor_name flint_names[] = {
	{ CAD_ROLE_SINKS, "model.layers.{l}.self_attn.softmax_offset" },
	{ CAD_ROLE_SHARED_GATE, "model.layers.{l}.mlp.shared_expert.gate_proj.weight" },
	{ CAD_ROLE_SHARED_UP, "model.layers.{l}.mlp.shared_expert.up_proj.weight" },
	{ CAD_ROLE_SHARED_DOWN, "model.layers.{l}.mlp.shared_expert.down_proj.weight" },
};

static const struct cad_known_key flint_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("sliding_window"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("moe_intermediate_size"),
	CAD_READ("shared_expert_intermediate_size"),
	CAD_READ("decoder_sparse_step"),
	CAD_READ("mlp_only_layers"),
};

const struct cad_arch cad_arch_flint = {
	.name = "flint",
	.runs = true,
	.head_size = 128,
	.rope_theta = 1e4,
	.read = read_flint,
	CAD_KEYS(flint_keys),
	CAD_NAMES(flint_names),
	.fused = CAD_FUSED_ROWS,
};
