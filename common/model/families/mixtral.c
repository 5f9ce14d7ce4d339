/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

static void read_mixtral(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_uniform_window(keys, spec, cad_read_window(keys));
	cad_set_moe_layers(spec);
	cad_read_gate(keys, spec, true);
	spec->expert.size = cad_read_ffn_size(keys, "intermediate_size");
}

/* Mixtral has no bias; MiniMax-M2 has. */
const struct cad_tensor_name cad_mixtral_names[] = {
	{ CAD_ROLE_GATE, "model.layers.{l}.block_sparse_moe.gate.weight" },
	{ CAD_ROLE_SELECTION_BIAS, "model.layers.{l}.block_sparse_moe.e_score_correction_bias" },
	{ CAD_ROLE_EXPERT_GATE, "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight" },
	{ CAD_ROLE_EXPERT_UP, "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight" },
	{ CAD_ROLE_EXPERT_DOWN, "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight" },
};

static const struct cad_known_key mixtral_keys[] = {
	CAD_READ("sliding_window"),
};

const struct cad_arch cad_arch_mixtral = {
	.name = "mixtral",
	.runs = true,
	.rope_theta = 1e6,
	.read = read_mixtral,
	CAD_KEYS(mixtral_keys),
	CAD_NAMES(cad_mixtral_names),
	.fused = CAD_FUSED_ROWS,
	.renamed = ".block_sparse_moe.",
	.renamed_to = ".mlp.",
};
