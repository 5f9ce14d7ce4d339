/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

/* Mistral Small 4: DeepSeek's attention with queries that are scaled by position, and a softmax over all
 * experts in groups. */
static void read_mistral4(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	struct cad_attention_spec *attention = &spec->attention;
	struct cad_rope_spec *rope = &spec->rope;

	cad_read_latent_attention(keys, spec);
	rope->interleaved = cad_keys_bool_or(keys, "rope_interleave", true);
	/* transformers computes how much rotates from a share of the head, and may come to one element less */
	double share = rope->partial < 1 ? rope->partial : (double)attention->rope_size / attention->head_size;
	uint32_t rotated = (uint32_t)(attention->head_size * share);
	if (rotated != attention->rope_size && rotated + 1 != attention->rope_size)
		cad_keys_fail(keys, CAD_ERR_INVALID, "partial_rotary_factor",
			"makes %u elements of a head of %u rotate, but qk_rope_head_dim is %u", rotated,
			attention->head_size, attention->rope_size);
	rope->partial = rotated < attention->rope_size ? (rotated + 0.5) / attention->rope_size : 1;
	attention->position_scaled = rope->query_factor > 0;
	if (attention->position_scaled)
		spec->position_scale = (struct cad_position_scale){
			.factor = (float)rope->query_factor,
			.positions = rope->original_positions,
		};

	cad_read_gate(keys, spec, cad_keys_bool_or(keys, "norm_topk_prob", true));
	spec->gate.renormalise_epsilon = 1e-20f;
	spec->gate.group_score = CAD_GROUP_SCORE_TOP2;
	spec->gate.dropped_zero = true;
	cad_read_groups(keys, &spec->gate);
	cad_read_deepseek_ffn(keys, spec, 0);
}

static const struct cad_known_key mistral4_keys[] = {
	CAD_LATENT_KEYS,
	CAD_DEEPSEEK_KEYS,
	CAD_READ("first_k_dense_replace"),
	CAD_READ("moe_layer_freq"),
	CAD_READ("rope_interleave"),
	CAD_READ("rope_scaling.llama_4_scaling_beta"),
	CAD_NO_USE("rope_scaling.max_position_embeddings", CAD_KEY_UNREAD),
	CAD_NO_USE("pretraining_tp", CAD_KEY_LIBRARY),
};

const struct cad_arch cad_arch_mistral4 = {
	.name = "mistral4",
	.runs = true,
	.rope_theta = 1e4,
	.read = read_mistral4,
	CAD_KEYS(mistral4_keys),
	.fused = CAD_FUSED_ROWS,
};
