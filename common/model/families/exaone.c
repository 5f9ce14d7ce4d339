/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

#include <string.h>

/* Every so many layers one sees all keys. As text ("LLLG") the pattern counts only where layer_types
 * spells it out. */
static void read_pattern(const struct cad_keys *keys, struct cad_model_spec *spec, uint32_t window)
{
	static const char key[] = "sliding_window_pattern";
	bool spelt = cad_keys_get(keys, "layer_types") != NULL;
	if (spelt && json_is_string(cad_keys_get(keys, key)))
		return;
	uint32_t pattern = cad_keys_u32_or(keys, key, 0, INT32_MAX, 4);
	if (window > 0 && pattern == 0 && !spelt)
		cad_keys_fail(keys, CAD_ERR_INVALID, key, "is 0, and no layer_types says which layers slide");
	if (window > 0 && pattern > 0)
		cad_set_window_but(spec, pattern, pattern - 1, window);
}

/* Older files say it layer by layer, too. */
static void check_moe_layers(const struct cad_keys *keys, const struct cad_model_spec *spec)
{
	const json_t *list = cad_keys_get(keys, "is_moe_layer");
	for (uint32_t i = 0; list && i < spec->layers_count; i++)
		if (json_is_true(json_array_get(list, i)) != spec->layers[i].moe) {
			cad_keys_fail(keys, CAD_ERR_INVALID, "is_moe_layer",
				"says otherwise of layer %u than mlp_layer_types and first_k_dense_replace", i);
			return;
		}
}

/* K-EXAONE: layers without a window do not rotate. */
static void read_exaone_moe(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	spec->attention.qk_norm = CAD_QK_NORM_HEAD;
	uint32_t window = cad_read_window_or(keys, 4096);
	read_pattern(keys, spec, window);
	cad_read_layer_types(keys, spec, window);
	cad_set_rotation_by_window(spec, window);
	cad_read_first_dense(keys, spec, 1);
	cad_read_mlp_layer_types(keys, spec);
	check_moe_layers(keys, spec);
	cad_read_sigmoid_gate(keys, spec);
	spec->gate.scale = (float)cad_keys_number_or(keys, "routed_scaling_factor", 1e-6, 1e6, 2.5);
	cad_read_mixed_ffn(keys, spec);
	cad_read_shared_experts(keys, spec, "num_shared_experts", 1);
}

static const struct cad_tensor_name exaone_moe_names[] = {
	{ CAD_ROLE_SELECTION_BIAS, "model.layers.{l}.mlp.e_score_correction_bias" },
};

static const struct cad_known_key exaone_moe_keys[] = {
	CAD_READ("sliding_window"),
	CAD_READ("sliding_window_pattern"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("moe_intermediate_size"),
	CAD_READ("n_group"),
	CAD_READ("topk_group"),
	CAD_READ("first_k_dense_replace"),
	CAD_READ("mlp_layer_types"),
	CAD_READ("is_moe_layer"),
	CAD_READ("routed_scaling_factor"),
	CAD_READ("num_shared_experts"),
	CAD_ONLY("topk_method", CAD_KEY_ALWAYS, "\"noaux_tc\""),
	CAD_ONLY("scoring_func", CAD_KEY_ALWAYS, "\"sigmoid\""),
	CAD_NO_USE("num_nextn_predict_layers", CAD_KEY_NO_MTP),
};

const struct cad_arch cad_arch_exaone_moe = {
	.name = "exaone_moe",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_exaone_moe,
	CAD_KEYS(exaone_moe_keys),
	CAD_NAMES(exaone_moe_names),
	.fused = CAD_FUSED_ROWS,
};
