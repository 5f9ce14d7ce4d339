/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

#include <math.h>
#include <string.h>

static void read_deepseek_v2(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_latent_attention(keys, spec);
	cad_read_gate(keys, spec, false);
	if (cad_keys_bool_or(keys, "norm_topk_prob", false))
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "norm_topk_prob",
			"is true: DeepSeek's code and transformers disagree about what it means here");
	const char *method = cad_keys_text_or(keys, "topk_method", "greedy");
	spec->gate.dropped_zero = true;
	if (strcmp(method, "group_limited_greedy") == 0)
		cad_read_groups(keys, &spec->gate);
	else if (strcmp(method, "greedy") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "topk_method",
			"is '%.32s'; supported are greedy and group_limited_greedy", method);
	if (strcmp(cad_keys_text_or(keys, "scoring_func", "softmax"), "softmax") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "scoring_func", "is not softmax");
	cad_read_deepseek_ffn(keys, spec, 0);
	if (cad_keys_bool_or(keys, "mlp_bias", false))
		cad_keys_fail(
			keys, CAD_ERR_UNSUPPORTED, "mlp_bias", "is true: shared experts with biases are not supported");
}

static void read_deepseek_v3(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_latent_attention(keys, spec);
	spec->rope.interleaved = cad_keys_bool_or(keys, "rope_interleave", true);
	cad_read_sigmoid_gate(keys, spec);
	if (strcmp(cad_keys_text_or(keys, "topk_method", "noaux_tc"), "noaux_tc") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "topk_method", "is not noaux_tc");
	if (strcmp(cad_keys_text_or(keys, "scoring_func", "sigmoid"), "sigmoid") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "scoring_func", "is not sigmoid");
	cad_read_deepseek_ffn(keys, spec, 3);
	cad_read_further_layers(keys, spec, 1);
}

static const struct cad_known_key deepseek_v2_keys[] = {
	CAD_LATENT_KEYS,
	CAD_DEEPSEEK_KEYS,
	CAD_READ("first_k_dense_replace"),
	CAD_READ("moe_layer_freq"),
	CAD_READ("topk_method"),
	CAD_READ("scoring_func"),
	CAD_READ("mlp_bias"),
	CAD_NO_USE("aux_loss_alpha", CAD_KEY_TRAINING),
	CAD_NO_USE("seq_aux", CAD_KEY_TRAINING),
	CAD_NO_USE("ep_size", CAD_KEY_LIBRARY),
	CAD_NO_USE("pretraining_tp", CAD_KEY_LIBRARY),
};

const struct cad_arch cad_arch_deepseek_v2 = {
	.name = "deepseek_v2",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_deepseek_v2,
	CAD_KEYS(deepseek_v2_keys),
	.fused = CAD_FUSED_ROWS,
};

static const struct cad_known_key deepseek_v3_keys[] = {
	CAD_LATENT_KEYS,
	CAD_DEEPSEEK_KEYS,
	CAD_READ("first_k_dense_replace"),
	CAD_READ("moe_layer_freq"),
	CAD_READ("topk_method"),
	CAD_READ("scoring_func"),
	CAD_READ("rope_interleave"),
	CAD_READ("num_nextn_predict_layers"),
	CAD_READ("num_mtp_layers"),
	CAD_NO_USE("aux_loss_alpha", CAD_KEY_TRAINING),
	CAD_NO_USE("seq_aux", CAD_KEY_TRAINING),
	CAD_NO_USE("ep_size", CAD_KEY_LIBRARY),
	CAD_NO_USE("pretraining_tp", CAD_KEY_LIBRARY),
};

const struct cad_arch cad_arch_deepseek_v3 = {
	.name = "deepseek_v3",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_deepseek_v3,
	CAD_KEYS(deepseek_v3_keys),
	.fused = CAD_FUSED_ROWS,
};

/* Kimi-K2 and K2.5 are of the same code. */
const struct cad_arch cad_arch_kimi_k2 = {
	.name = "kimi_k2",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_deepseek_v3,
	CAD_KEYS(deepseek_v3_keys),
	.fused = CAD_FUSED_ROWS,
};
