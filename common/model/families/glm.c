/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

/* GLM-4.5 to 4.7: DeepSeek-V3's gate above grouped attention. */
static void read_glm4_moe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *attention = &spec->attention;
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, attention, false);
	attention->o_bias = false;
	attention->qk_norm = cad_keys_bool_or(keys, "use_qk_norm", false) ? CAD_QK_NORM_HEAD : CAD_QK_NORM_NONE;
	cad_set_rotated(keys, spec, (uint32_t)(attention->head_size * spec->rope.partial));
	cad_read_uniform_window(keys, spec, 0);
	cad_read_sigmoid_gate(keys, spec);
	cad_read_deepseek_ffn(keys, spec, 1);
	cad_read_further_layers(keys, spec, 1);
}

static const struct cad_known_key glm4_moe_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("moe_intermediate_size"),
	CAD_READ("use_qk_norm"),
	CAD_READ("n_group"),
	CAD_READ("topk_group"),
	CAD_READ("first_k_dense_replace"),
	CAD_READ("moe_layer_freq"),
	CAD_READ("routed_scaling_factor"),
	CAD_READ("n_shared_experts"),
	CAD_READ("num_nextn_predict_layers"),
	CAD_READ("num_mtp_layers"),
};

const struct cad_arch cad_arch_glm4_moe = {
	.name = "glm4_moe",
	.runs = true,
	.rope_theta = 1e4,
	.rope_partial = 0.5,
	.read = read_glm4_moe,
	CAD_KEYS(glm4_moe_keys),
	.fused = CAD_FUSED_ROWS,
};

/* GLM-4.7-Flash: the same gate above DeepSeek-V3's attention. */
static void read_glm4_moe_lite(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_latent_attention(keys, spec);
	spec->rope.interleaved = cad_keys_bool_or(keys, "rope_interleave", true);
	cad_read_sigmoid_gate(keys, spec);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = i > 0;
	cad_read_mlp_layer_types(keys, spec);
	cad_read_scaled_ffn(keys, spec, 1.8, 1);
	spec->further_layers = 1;
}

static const struct cad_known_key glm4_moe_lite_keys[] = {
	CAD_LATENT_KEYS,
	CAD_DEEPSEEK_KEYS,
	CAD_READ("rope_interleave"),
	CAD_READ("mlp_layer_types"),
	CAD_ONLY("first_k_dense_replace", CAD_KEY_ALWAYS, "1"),
	CAD_ONLY("topk_method", CAD_KEY_ALWAYS, "\"noaux_tc\""),
	CAD_NO_USE("num_nextn_predict_layers", CAD_KEY_NO_MTP),
	CAD_NO_USE("pretraining_tp", CAD_KEY_LIBRARY),
};

const struct cad_arch cad_arch_glm4_moe_lite = {
	.name = "glm4_moe_lite",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_glm4_moe_lite,
	CAD_KEYS(glm4_moe_lite_keys),
	.fused = CAD_FUSED_ROWS,
};

/* Solar Open: the same experts in every layer; heads rotate whole. */
static void read_solar_open(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	spec->attention.o_bias = false;
	if (spec->rope.partial < 1)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "partial_rotary_factor",
			"is %g: heads of this architecture rotate whole", spec->rope.partial);
	cad_read_uniform_window(keys, spec, 0);
	cad_set_moe_layers(spec);
	cad_read_sigmoid_gate(keys, spec);
	spec->gate.scale = (float)cad_keys_number_or(keys, "routed_scaling_factor", 1e-6, 1e6, 1);
	spec->expert.size = cad_read_ffn_size(keys, "moe_intermediate_size");
	cad_keys_u32_or(keys, "intermediate_size", 1, CAD_FFN_MAX, 1); /* of no layer, but files have it */
	cad_read_shared_experts(keys, spec, "n_shared_experts", 1);
	spec->further_layers = cad_keys_u32_or(keys, "num_nextn_predict_layers", 0, CAD_LAYERS_MAX, 0);
}

static const struct cad_known_key solar_open_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("moe_intermediate_size"),
	CAD_READ("n_group"),
	CAD_READ("topk_group"),
	CAD_READ("routed_scaling_factor"),
	CAD_READ("n_shared_experts"),
	CAD_READ("num_nextn_predict_layers"),
	CAD_ONLY("topk_method", CAD_KEY_ALWAYS, "\"noaux_tc\""),
	CAD_ONLY("scoring_func", CAD_KEY_ALWAYS, "\"sigmoid\""),
	CAD_ONLY("first_k_dense_replace", CAD_KEY_ALWAYS, "0"),
};

const struct cad_arch cad_arch_solar_open = {
	.name = "solar_open",
	.runs = true,
	.head_size = 128,
	.rope_theta = 1e6,
	.read = read_solar_open,
	CAD_KEYS(solar_open_keys),
	.fused = CAD_FUSED_ROWS,
};
