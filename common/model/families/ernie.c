/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

/* Experts in every `moe_layer_interval`-th layer of those from start to end, which is one of them; -1
 * is the last layer. */
static void read_ernie_layers(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	static const char end_key[] = "moe_layer_end_index";
	const json_t *last = cad_keys_get(keys, end_key);
	uint32_t start = cad_keys_u32_or(keys, "moe_layer_start_index", 0, INT32_MAX, 1),
		 step = cad_keys_u32_or(keys, "moe_layer_interval", 1, CAD_LAYERS_MAX, 1), end = spec->layers_count;

	if (last && !(json_is_integer(last) && json_integer_value(last) == -1))
		end = cad_keys_u32(keys, end_key, 0, INT32_MAX - 1) + 1;
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].moe = (i + 1) % step == 0 && i >= start && i < end;
}

static void read_ernie4_5_moe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	spec->tied_embeddings = cad_keys_bool_or(keys, "tie_word_embeddings", true);
	cad_read_grouped_attention(keys, spec);
	spec->rope.interleaved = true;
	cad_read_uniform_window(keys, spec, 0);
	read_ernie_layers(keys, spec);
	cad_read_gate(keys, spec, true);
	spec->gate.selection_bias = true;
	spec->gate.renormalise_least = (float)cad_keys_number_or(keys, "moe_norm_min", 0, 1, 1e-12);
	cad_read_mixed_ffn(keys, spec);
	cad_read_shared_experts(keys, spec, "moe_num_shared_experts", 2);
	if (cad_keys_bool_or(keys, "use_bias", false))
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "use_bias",
			"is true: an output matrix with a bias is not supported");
}

static const struct cad_tensor_name ernie4_5_moe_names[] = {
	{ CAD_ROLE_SELECTION_BIAS, "model.layers.{l}.mlp.moe_statics.e_score_correction_bias" },
};

static const struct cad_known_key ernie4_5_moe_keys[] = {
	CAD_READ("moe_intermediate_size"),
	CAD_READ("moe_num_shared_experts"),
	CAD_READ("moe_layer_start_index"),
	CAD_READ("moe_layer_end_index"),
	CAD_READ("moe_layer_interval"),
	CAD_READ("moe_norm_min"),
	CAD_READ("use_bias"),
	CAD_NO_USE("moe_capacity", CAD_KEY_TRAINING),
	CAD_ONLY("moe_gate", CAD_KEY_ALWAYS, "\"topk\""),
	CAD_ONLY("moe_use_aux_free", CAD_KEY_ALWAYS, "true"),
};

const struct cad_arch cad_arch_ernie4_5_moe = {
	.name = "ernie4_5_moe",
	.runs = true,
	.rope_theta = 5e5,
	.read = read_ernie4_5_moe,
	CAD_KEYS(ernie4_5_moe_keys),
	CAD_NAMES(ernie4_5_moe_names),
	.fused = CAD_FUSED_ROWS,
};
