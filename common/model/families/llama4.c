/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

#include <string.h>

/* Layers that do not rotate see everything, and scale their queries by position; the others see their own
 * chunk. The list says 1 of those that rotate. */
static void read_llama4_attention(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	bool rotates[CAD_LAYERS_MAX];
	const json_t *list = cad_keys_get(keys, "no_rope_layers");
	bool given = json_array_size(list) > 0 && cad_read_flags(keys, spec, "no_rope_layers", rotates);
	if (list && !json_is_array(list))
		cad_keys_fail(keys, CAD_ERR_INVALID, "no_rope_layers", "must be a list of numbers, one for each layer");
	uint32_t interval = cad_keys_u32_or(keys, "no_rope_layer_interval", 1, INT32_MAX, 4);
	uint32_t chunk = json_object_get(keys->object, "attention_chunk_size")
		? cad_keys_u32_or(keys, "attention_chunk_size", 1, INT32_MAX, 0)
		: 8192;
	struct cad_attention_spec *rotating = &spec->attentions[0], *plain = &spec->attentions[1];

	cad_read_bias(keys, rotating, false);
	*plain = *rotating;
	spec->attentions_count = 2;
	rotating->qk_norm = cad_keys_bool_or(keys, "use_qk_norm", true) ? CAD_QK_NORM_HEAD : CAD_QK_NORM_NONE;
	rotating->qk_norm_plain = rotating->qk_norm_last = rotating->qk_norm != CAD_QK_NORM_NONE;
	plain->position_scaled = cad_keys_bool_or(keys, "attn_temperature_tuning", true);
	spec->position_scale = (struct cad_position_scale){
		.factor = (float)cad_keys_number_or(keys, "attn_scale", 0, 1e3, 0.1),
		.positions = cad_keys_u32_or(keys, "floor_scale", 1, INT32_MAX, 8192),
		.first = 1,
	};
	spec->rope.interleaved = true;
	for (uint32_t i = 0; i < spec->layers_count; i++) {
		bool rope = given ? rotates[i] : (i + 1) % interval != 0;
		spec->layers[i].rope = rope;
		spec->layers[i].attention_at = !rope;
		spec->layers[i].chunk = rope ? chunk : 0;
	}
}

/* They are what the layers are by the list, or the other way round where a file says so. */
static void read_llama4_layer_types(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	const json_t *types = cad_keys_get(keys, "layer_types");
	uint32_t chunk = cad_keys_u32_or(keys, "attention_chunk_size", 1, INT32_MAX, 8192);
	if (!types)
		return;

	if (!json_is_array(types) || json_array_size(types) != spec->layers_count)
		cad_keys_fail(keys, CAD_ERR_INVALID, "layer_types", "must be a list of %u texts, one for each layer",
			spec->layers_count);
	for (uint32_t i = 0; i < spec->layers_count && cad_keys_ok(keys); i++) {
		const char *type = json_string_value(json_array_get(types, i));
		bool chunked = type && strcmp(type, "chunked_attention") == 0;
		if (!type || (!chunked && strcmp(type, "full_attention") != 0))
			cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "layer_types",
				"says '%.32s' of layer %u; supported are full_attention and chunked_attention",
				type ? type : "", i);
		spec->layers[i].chunk = chunked ? chunk : 0;
	}
}

/* Experts in the layers that `moe_layers` names or, without it, in every so many-th. */
static void read_llama4_layers(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	uint32_t step = cad_keys_u32_or(keys, "interleave_moe_layer_step", 1, CAD_LAYERS_MAX, 1);
	const json_t *list = cad_keys_get(keys, "moe_layers");
	if (list && !json_is_array(list))
		cad_keys_fail(keys, CAD_ERR_INVALID, "moe_layers", "must be a list of layers");
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = !list && (i + 1) % step == 0;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *layer = json_array_get(list, i);
		if (!json_is_integer(layer) || json_integer_value(layer) < 0 ||
			json_integer_value(layer) >= (json_int_t)spec->layers_count)
			cad_keys_fail(keys, CAD_ERR_RANGE, "moe_layers",
				"contains something other than layers from 0 to %u", spec->layers_count - 1);
		else
			spec->layers[json_integer_value(layer)].moe = true;
	}
}

static void read_llama4_text(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	read_llama4_attention(keys, spec);
	read_llama4_layer_types(keys, spec);
	read_llama4_layers(keys, spec);
	cad_read_gate(keys, spec, false);
	spec->gate.score = CAD_SCORE_SIGMOID;
	spec->gate.choice_by_logit = true;
	uint32_t moe = cad_model_spec_moe_layers(spec), expert = cad_read_ffn_size(keys, "intermediate_size");
	if (moe > 0) {
		spec->expert.size = spec->shared.size = expert;
		spec->expert.weighs_input = true;
	} else {
		spec->gate = (struct cad_gate_spec){ 0 };
	}
	uint32_t dense = cad_keys_u32_or(keys, "intermediate_size_mlp", 1, CAD_FFN_MAX, 16384);
	if (moe < spec->layers_count)
		spec->dense.size = dense;
}

static const struct cad_tensor_name llama4_text_names[] = {
	{ CAD_ROLE_FFN_GATE, "model.layers.{l}.feed_forward.gate_proj.weight" },
	{ CAD_ROLE_FFN_UP, "model.layers.{l}.feed_forward.up_proj.weight" },
	{ CAD_ROLE_FFN_DOWN, "model.layers.{l}.feed_forward.down_proj.weight" },
	{ CAD_ROLE_GATE, "model.layers.{l}.feed_forward.router.weight" },
	{ CAD_ROLE_SHARED_GATE, "model.layers.{l}.feed_forward.shared_expert.gate_proj.weight" },
	{ CAD_ROLE_SHARED_UP, "model.layers.{l}.feed_forward.shared_expert.up_proj.weight" },
	{ CAD_ROLE_SHARED_DOWN, "model.layers.{l}.feed_forward.shared_expert.down_proj.weight" },
};

static const struct cad_tensor_name llama4_text_fused_names[] = {
	{ CAD_ROLE_EXPERT_GATE, "model.layers.{l}.feed_forward.experts.gate_up_proj" },
	{ CAD_ROLE_EXPERT_DOWN, "model.layers.{l}.feed_forward.experts.down_proj" },
};

static const struct cad_known_key llama4_text_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("attention_chunk_size"),
	CAD_READ("no_rope_layers"),
	CAD_READ("no_rope_layer_interval"),
	CAD_READ("use_qk_norm"),
	CAD_READ("attn_temperature_tuning"),
	CAD_READ("attn_scale"),
	CAD_READ("floor_scale"),
	CAD_READ("interleave_moe_layer_step"),
	CAD_READ("moe_layers"),
	CAD_READ("intermediate_size_mlp"),
	CAD_NO_USE("for_llm_compressor", CAD_KEY_LIBRARY),
};

const struct cad_arch cad_arch_llama4_text = {
	.name = "llama4_text",
	.runs = true,
	.head_size = 128,
	.rope_theta = 5e5,
	.read = read_llama4_text,
	CAD_KEYS(llama4_text_keys),
	CAD_NAMES(llama4_text_names),
	.fused = CAD_FUSED_COLUMNS,
	CAD_FUSED_NAMES(llama4_text_fused_names),
};
