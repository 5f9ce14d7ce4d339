/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

#include <math.h>
#include <string.h>

/* Latent attention of DeepSeek-V2 and V3. */
static void read_latent_attention(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *attention = &spec->attention;
	attention->kind = CAD_ATTENTION_LATENT;
	attention->heads = attention->kv_heads = cad_keys_u32(keys, "num_attention_heads", 1, CAD_HEADS_MAX);
	attention->q_rank = cad_keys_u32_or(keys, "q_lora_rank", 1, CAD_HIDDEN_MAX, 0);
	attention->kv_rank = cad_keys_u32(keys, "kv_lora_rank", 1, CAD_HIDDEN_MAX);
	attention->nope_size = cad_keys_u32(keys, "qk_nope_head_dim", 1, CAD_HEAD_SIZE_MAX);
	attention->rope_size = cad_keys_u32(keys, "qk_rope_head_dim", 2, CAD_HEAD_SIZE_MAX);
	attention->value_size = cad_keys_u32(keys, "v_head_dim", 1, CAD_HEAD_SIZE_MAX);
	attention->head_size = attention->nope_size + attention->rope_size;
	if (attention->head_size > CAD_HEAD_SIZE_MAX)
		cad_keys_fail(keys, CAD_ERR_RANGE, "qk_nope_head_dim",
			"and qk_rope_head_dim are together %u; at most %d are supported", attention->head_size,
			CAD_HEAD_SIZE_MAX);
	if (cad_keys_bool_or(keys, "attention_bias", false))
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "attention_bias",
			"is true, which is not supported with latent attention");
	spec->rope.size = attention->rope_size;
	spec->rope.interleaved = cad_keys_bool_or(keys, "rope_interleave", true);
	double scale = 1 / sqrt(attention->head_size);
	if (spec->rope.kind != CAD_ROPE_DEFAULT && spec->rope.mscale_all_dim != 0 && spec->rope.factor > 1) {
		double mscale = 0.1 * spec->rope.mscale_all_dim * log(spec->rope.factor) + 1;
		scale *= mscale * mscale;
	}

	attention->scale = (float)scale;
	cad_read_uniform_window(keys, spec, 0);
}

static void read_deepseek_v2(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_latent_attention(keys, spec);
	cad_read_gate(keys, spec, false);
	if (cad_keys_bool_or(keys, "norm_topk_prob", false))
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "norm_topk_prob",
			"is true: DeepSeek's code and transformers disagree about what it means here");
	const char *method = cad_keys_text_or(keys, "topk_method", "greedy");
	if (strcmp(method, "group_limited_greedy") == 0)
		cad_read_groups(keys, &spec->gate);
	else if (strcmp(method, "greedy") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "topk_method",
			"is '%.32s'; supported are greedy and group_limited_greedy", method);
	if (strcmp(cad_keys_text_or(keys, "scoring_func", "softmax"), "softmax") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "scoring_func", "is not softmax");
	cad_read_deepseek_ffn(keys, spec, 0);
}

static void read_deepseek_v3(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	read_latent_attention(keys, spec);
	cad_read_sigmoid_gate(keys, spec);
	if (strcmp(cad_keys_text_or(keys, "topk_method", "noaux_tc"), "noaux_tc") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "topk_method", "is not noaux_tc");
	if (strcmp(cad_keys_text_or(keys, "scoring_func", "sigmoid"), "sigmoid") != 0)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "scoring_func", "is not sigmoid");
	cad_read_deepseek_ffn(keys, spec, 3);
}

const struct cad_arch cad_arch_deepseek_v2 = {
	.name = "deepseek_v2",
	.runs = false,
	.rope_theta = 1e4,
	.read = read_deepseek_v2,
};

const struct cad_arch cad_arch_deepseek_v3 = {
	.name = "deepseek_v3",
	.runs = false,
	.rope_theta = 1e4,
	.read = read_deepseek_v3,
};
