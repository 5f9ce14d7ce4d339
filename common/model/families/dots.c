/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

#include <string.h>

/* dots.llm1: Qwen3's attention, DeepSeek-V3's gate. */
static void read_dots1(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	spec->attention.qk_norm = CAD_QK_NORM_HEAD;
	uint32_t window = cad_read_window_or(keys, 4096),
		 full = cad_keys_u32_or(keys, "max_window_layers", 0, INT32_MAX, 62);
	for (uint32_t i = full; i < spec->layers_count; i++)
		spec->layers[i].window = window;
	cad_read_layer_types(keys, spec, window);
	cad_read_sigmoid_gate(keys, spec);
	spec->gate.renormalise = cad_keys_bool_or(keys, "norm_topk_prob", false);
	const char *scores = cad_keys_text_or(keys, "scoring_func", "sigmoid");
	if (strcmp(scores, "sigmoid") != 0 && strcmp(scores, "noaux_tc") != 0) /* which it is called in files */
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "scoring_func",
			"is '%.32s'; the gate of this architecture is a sigmoid", scores);
	cad_read_deepseek_ffn(keys, spec, 0);
}

static const struct cad_known_key dots1_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("sliding_window"),
	CAD_READ("max_window_layers"),
	CAD_READ("norm_topk_prob"),
	CAD_READ("moe_intermediate_size"),
	CAD_READ("n_group"),
	CAD_READ("topk_group"),
	CAD_READ("first_k_dense_replace"),
	CAD_READ("moe_layer_freq"),
	CAD_READ("routed_scaling_factor"),
	CAD_READ("n_shared_experts"),
	CAD_READ("scoring_func"),
	CAD_ONLY("topk_method", CAD_KEY_ALWAYS, "\"noaux_tc\""),
	CAD_NO_USE("ep_size", CAD_KEY_LIBRARY),
	CAD_NO_USE("pretraining_tp", CAD_KEY_LIBRARY),
	CAD_NO_USE("aux_loss_alpha", CAD_KEY_TRAINING),
	CAD_NO_USE("seq_aux", CAD_KEY_TRAINING),
};

const struct cad_arch cad_arch_dots1 = {
	.name = "dots1",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_dots1,
	CAD_KEYS(dots1_keys),
	.fused = CAD_FUSED_ROWS,
};
