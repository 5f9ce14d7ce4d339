/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

static void read_minimax_m2(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *attention = &spec->attention;
	cad_read_grouped_attention(keys, spec);
	attention->qk_norm = CAD_QK_NORM_PROJECTION;
	cad_set_rotated(keys, spec,
		cad_keys_u32_or(keys, "rotary_dim", 2, CAD_HEAD_SIZE_MAX,
			(uint32_t)(attention->head_size * spec->rope.partial)));
	cad_read_uniform_window(keys, spec, 0);
	cad_set_moe_layers(spec);
	cad_read_gate(keys, spec, true);
	spec->gate.score = CAD_SCORE_SIGMOID;
	spec->gate.selection_bias = true;
	spec->expert.size = cad_read_ffn_size(keys, "intermediate_size");
	spec->further_layers = cad_keys_u32_or(keys, "num_mtp_modules", 0, CAD_LAYERS_MAX, 0);
}

static const struct cad_known_key minimax_m2_keys[] = {
	CAD_READ("rotary_dim"),
	CAD_READ("num_mtp_modules"),
	CAD_NO_USE("mtp_transformer_layers", CAD_KEY_NO_MTP),
	CAD_NO_USE("use_mtp", CAD_KEY_NO_MTP),
	CAD_NO_USE("attn_type_list", CAD_KEY_UNREAD),
	CAD_NO_USE("shared_intermediate_size", CAD_KEY_UNREAD),
	CAD_ONLY("use_qk_norm", CAD_KEY_ALWAYS, "true"),
	CAD_ONLY("qk_norm_type", CAD_KEY_ALWAYS, "\"per_layer\""),
	CAD_ONLY("use_routing_bias", CAD_KEY_ALWAYS, "true"),
	CAD_ONLY("scoring_func", CAD_KEY_ALWAYS, "\"sigmoid\""),
};

const struct cad_arch cad_arch_minimax_m2 = {
	.name = "minimax_m2",
	.runs = true,
	.head_size = 128,
	.rope_theta = 5e6,
	.read = read_minimax_m2,
	CAD_KEYS(minimax_m2_keys),
	CAD_NAMES(cad_mixtral_names),
	.fused = CAD_FUSED_ROWS,
	.renamed = ".block_sparse_moe.",
	.renamed_to = ".mlp.",
};
