/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

static void read_olmoe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	spec->attention.qk_norm = CAD_QK_NORM_PROJECTION;
	spec->attention.clip_qkv = (float)cad_keys_number_or(keys, "clip_qkv", 1e-6, 1e6, 0);
	cad_read_uniform_window(keys, spec, 0);
	cad_set_moe_layers(spec);
	cad_read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", false));
	spec->expert.size = cad_read_ffn_size(keys, "intermediate_size");
}

static const struct cad_known_key olmoe_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("clip_qkv"),
};

const struct cad_arch cad_arch_olmoe = {
	.name = "olmoe",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_olmoe,
	CAD_KEYS(olmoe_keys),
	.fused = CAD_FUSED_ROWS,
};

/* FlexOlmo: OLMo 2's order of norms. */
static void read_flex_olmo(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	spec->attention.qk_norm = CAD_QK_NORM_PROJECTION;
	spec->norms = CAD_NORMS_AFTER;
	cad_read_uniform_window(keys, spec, 0);
	cad_set_moe_layers(spec);
	cad_read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", false));
	spec->expert.size = cad_read_ffn_size(keys, "intermediate_size");
}

static const struct cad_tensor_name flex_olmo_names[] = {
	{ CAD_ROLE_ATTENTION_AFTER, "model.layers.{l}.post_attention_layernorm.weight" },
	{ CAD_ROLE_FFN_AFTER, "model.layers.{l}.post_feedforward_layernorm.weight" },
};

static const struct cad_known_key flex_olmo_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("norm_topk_prob"),
};

const struct cad_arch cad_arch_flex_olmo = {
	.name = "flex_olmo",
	.runs = true,
	.rope_theta = 5e5,
	.read = read_flex_olmo,
	CAD_KEYS(flex_olmo_keys),
	CAD_NAMES(flex_olmo_names),
	.fused = CAD_FUSED_ROWS,
};
