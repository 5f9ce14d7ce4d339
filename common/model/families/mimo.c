/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

#include <math.h>

/* Sliding layers have heads of their own, as `swa_NAME` says or, where it says nothing, twice the
 * keys and values. */
static void read_sliding_attention(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *sliding = &spec->attentions[1];

	*sliding = spec->attentions[0];
	spec->attentions_count = 2;
	sliding->sinks = cad_keys_bool_or(keys, "add_swa_attention_sink_bias", true);
	sliding->heads = cad_keys_u32_or(keys, "swa_num_attention_heads", 1, CAD_HEADS_MAX, sliding->heads);
	sliding->kv_heads = cad_keys_u32_or(keys, "swa_num_key_value_heads", 1, CAD_HEADS_MAX, 2 * sliding->kv_heads);
	sliding->head_size = cad_keys_u32_or(keys, "swa_head_dim", 2, CAD_HEAD_SIZE_MAX, sliding->head_size);
	sliding->value_size = cad_keys_u32_or(keys, "swa_v_head_dim", 1, CAD_HEAD_SIZE_MAX, sliding->value_size);
	sliding->scale = (float)(1 / sqrt(sliding->head_size));
	if (sliding->heads % sliding->kv_heads != 0)
		cad_keys_fail(keys, CAD_ERR_RANGE, "num_key_value_heads",
			"makes %u key heads of sliding layers, which do not divide their %u heads", sliding->kv_heads,
			sliding->heads);
}

/* Which layers slide: one in six does not, and the first. Published files call the window without the
 * token itself sliding_window_size, and have 0 and 1 for each layer. */
static void read_mimo_layers(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	bool flags[CAD_LAYERS_MAX];
	uint32_t window = cad_keys_u32_or(keys, "sliding_window", 1, INT32_MAX, 129);
	if (cad_keys_get(keys, "sliding_window_size"))
		window = cad_keys_u32(keys, "sliding_window_size", 1, INT32_MAX - 1) + 1;

	bool given = cad_read_flags(keys, spec, "hybrid_layer_pattern", flags);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].window = (given ? flags[i] : i != 0 && (i + 1) % 6 != 0) ? window : 0;
	cad_read_layer_types(keys, spec, window);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].attention_at = spec->layers[i].rope_at = spec->layers[i].window > 0;

	given = cad_read_flags(keys, spec, "moe_layer_freq", flags);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = given ? flags[i] : i > 0;
	cad_read_mlp_layer_types(keys, spec);
}

static void read_mimo_v2_flash(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *attention = &spec->attention;
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, attention, false);
	attention->o_bias = false;
	attention->sinks = cad_keys_bool_or(keys, "add_full_attention_sink_bias", false);
	attention->value_size = cad_keys_u32_or(keys, "v_head_dim", 1, CAD_HEAD_SIZE_MAX, 128);
	attention->value_divisor =
		cad_keys_get(keys, "attention_value_scale") || !json_object_get(keys->object, "attention_value_scale")
		? (float)(1 / cad_keys_number_or(keys, "attention_value_scale", 1e-6, 1e6, 0.707))
		: 0;
	read_sliding_attention(keys, spec);
	for (uint32_t i = 0; i < spec->ropes_count; i++) {
		uint32_t head_size = spec->attentions[i].head_size;
		cad_set_rotation(keys, &spec->ropes[i], head_size, (uint32_t)(head_size * spec->ropes[i].partial));
	}
	read_mimo_layers(keys, spec);
	cad_read_sigmoid_gate(keys, spec);
	spec->gate.scale = (float)cad_keys_number_or(keys, "routed_scaling_factor", 1e-6, 1e6, 1);
	cad_read_mixed_ffn(keys, spec);
}

static const struct cad_tensor_name mimo_v2_flash_names[] = {
	{ CAD_ROLE_SINKS, "model.layers.{l}.self_attn.attention_sink_bias" },
};

static const struct cad_known_key mimo_v2_flash_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("v_head_dim"),
	CAD_READ("attention_value_scale"),
	CAD_READ("sliding_window"),
	CAD_READ("sliding_window_size"),
	CAD_READ("hybrid_layer_pattern"),
	CAD_READ("swa_num_attention_heads"),
	CAD_READ("swa_num_key_value_heads"),
	CAD_READ("swa_head_dim"),
	CAD_READ("swa_v_head_dim"),
	CAD_READ("swa_rope_theta"),
	CAD_READ("add_swa_attention_sink_bias"),
	CAD_READ("add_full_attention_sink_bias"),
	CAD_READ("layernorm_epsilon"),
	CAD_READ("mlp_layer_types"),
	CAD_READ("moe_layer_freq"),
	CAD_READ("n_group"),
	CAD_READ("topk_group"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("routed_scaling_factor"),
	CAD_READ("moe_intermediate_size"),
	CAD_NO_USE("attention_chunk_size", CAD_KEY_UNREAD),
	CAD_ONLY("scoring_func", CAD_KEY_ALWAYS, "\"sigmoid\""),
	CAD_ONLY("topk_method", CAD_KEY_ALWAYS, "\"noaux_tc\""),
};

const struct cad_arch cad_arch_mimo_v2_flash = {
	.name = "mimo_v2_flash",
	.runs = true,
	.head_size = 192,
	.rope_theta = 5e6,
	.rope_sliding_theta = 1e4,
	.rope_sliding_key = "swa_rope_theta",
	.rope_partial = 0.334,
	.read = read_mimo_v2_flash,
	CAD_KEYS(mimo_v2_flash_keys),
	CAD_NAMES(mimo_v2_flash_names),
	.fused = CAD_FUSED_ROWS,
	.renamed = ".self_attn.attention_sink_bias",
	.renamed_to = ".self_attn.sinks",
};
