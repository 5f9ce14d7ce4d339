/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

/* Mellum 2: Qwen 3's attention, in which sliding layers rotate with a theta of their own. */
static void read_mellum(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	spec->attention.qk_norm = CAD_QK_NORM_HEAD;
	cad_read_layer_types(keys, spec, cad_keys_u32_or(keys, "sliding_window", 1, INT32_MAX, 1024));
	cad_set_moe_layers(spec);
	cad_read_mlp_layer_types(keys, spec);
	cad_read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", true));
	cad_read_mixed_ffn(keys, spec);
}

static const struct cad_known_key mellum_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("sliding_window"),
	CAD_READ("mlp_layer_types"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("moe_intermediate_size"),
	CAD_NO_USE("num_mtp_layers", CAD_KEY_NO_MTP),
	CAD_NO_USE("num_nextn_predict_layers", CAD_KEY_NO_MTP),
	CAD_NO_USE("mtp_layer_types", CAD_KEY_NO_MTP),
	CAD_NO_USE("mtp_mlp_layer_types", CAD_KEY_NO_MTP),
};

const struct cad_arch cad_arch_mellum = {
	.name = "mellum",
	.runs = true,
	.head_size = 128,
	.rope_theta = 5e5,
	.rope_sliding_theta = 1e4,
	.read = read_mellum,
	CAD_KEYS(mellum_keys),
	.fused = CAD_FUSED_ROWS,
};
