/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

/* A.X K1: DeepSeek-V3 with a norm of what experts and shared expert give together, and dense layers among
 * those with experts. */
static void read_axk1(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	uint32_t first = cad_keys_u32_or(keys, "first_k_dense_replace", 0, INT32_MAX, 1),
		 step = cad_keys_u32_or(keys, "moe_layer_freq", 1, CAD_LAYERS_MAX, 1);

	cad_read_latent_attention(keys, spec);
	spec->rope.interleaved = cad_keys_bool_or(keys, "rope_interleave", true);
	cad_read_sigmoid_gate(keys, spec);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = i >= first && i % step == 0;
	cad_read_mlp_layer_types(keys, spec);
	spec->norm_of_experts = true;
	cad_read_scaled_ffn(keys, spec, 2.5, 1);
	spec->further_layers = cad_keys_u32_or(keys, "num_nextn_predict_layers", 0, CAD_LAYERS_MAX, 0);
}

static const struct cad_tensor_name axk1_names[] = {
	{ CAD_ROLE_FFN_AFTER, "model.layers.{l}.post_mlp_layernorm.weight" },
};

static const struct cad_known_key axk1_keys[] = {
	CAD_LATENT_KEYS,
	CAD_DEEPSEEK_KEYS,
	CAD_READ("first_k_dense_replace"),
	CAD_READ("moe_layer_freq"),
	CAD_READ("mlp_layer_types"),
	CAD_READ("rope_interleave"),
	CAD_READ("num_nextn_predict_layers"),
	CAD_ONLY("topk_method", CAD_KEY_ALWAYS, "\"noaux_tc\""),
	CAD_ONLY("scoring_func", CAD_KEY_ALWAYS, "\"sigmoid\""),
	CAD_NO_USE("ep_size", CAD_KEY_LIBRARY),
	CAD_NO_USE("pretraining_tp", CAD_KEY_LIBRARY),
	CAD_NO_USE("aux_loss_alpha", CAD_KEY_TRAINING),
	CAD_NO_USE("seq_aux", CAD_KEY_TRAINING),
};

const struct cad_arch cad_arch_axk1 = {
	.name = "axk1",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_axk1,
	CAD_KEYS(axk1_keys),
	CAD_NAMES(axk1_names),
	.fused = CAD_FUSED_ROWS,
};
