/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/lacking.h"

#include <string.h>

/* Source: modeling_*.py of transformers 5.24.0. */
static const struct cad_lacking lacking[] = {
	{ "afmoe", "attention whose output a gate multiplies" },
	{ "axk2", "an indexer that chooses which keys attention sees" },
	{ "bailing_hybrid", "linear attention (Kimi delta attention)" },
	{ "beam", "attention whose output a gate multiplies" },
	{ "cohere2_moe", "attention and experts side by side, behind one LayerNorm" },
	{ "dbrx", "LayerNorm, and experts whose weights are normalised by a power" },
	{ "deepseek_v32", "an indexer that chooses which keys attention sees" },
	{ "deepseek_v4", "compressed keys, and several residual streams" },
	{ "doge", "attention under a learned mask, and experts found by product keys" },
	{ "dots3_note_text", "an indexer that chooses which keys attention sees" },
	{ "gemma4_text", "two feed-forward branches in a layer, gelu, and logits that are softcapped" },
	{ "glm5_next_text", "linear attention (Kimi delta attention)" },
	{ "glm_moe_dsa", "an indexer that chooses which keys attention sees" },
	{ "granitemoehybrid", "state-space layers (Mamba-2)" },
	{ "hy_v4", "an indexer that chooses which keys attention sees" },
	{ "inkling2_loop_text", "attention with logits of relative positions, and short convolutions" },
	{ "inkling2_text", "attention with logits of relative positions, and short convolutions" },
	{ "inkling_text", "attention with logits of relative positions, and short convolutions" },
	{ "jamba", "state-space layers (Mamba)" },
	{ "jetmoe", "attention whose heads are routed to" },
	{ "kimi_linear", "linear attention (Kimi delta attention)" },
	{ "laguna", "attention whose output a gate multiplies, and a gate whose logits are softcapped" },
	{ "lara_mini", "linear attention (a gated delta net)" },
	{ "lfm2_moe", "short convolutions" },
	{ "longcat_flash", "two attentions in a layer, and experts that return their input" },
	{ "minimax", "linear attention (lightning attention)" },
	{ "minimax_m3_vl_text", "an indexer that chooses which keys attention sees" },
	{ "mistral_large4_text", "an indexer that chooses which keys attention sees" },
	{ "muse_spark_text", "experts behind a projection to a smaller size" },
	{ "nemotron_h", "state-space layers (Mamba-2)" },
	{ "nllb-moe", "an encoder" },
	{ "phimoe", "LayerNorm with biases, and a gate that drops the logits far from the largest" },
	{ "qwen3_5_moe_text", "linear attention (a gated delta net)" },
	{ "qwen3_next", "linear attention (a gated delta net)" },
	{ "qwen4_exp_text", "linear attention (a gated delta net)" },
	{ "step3p5", "attention whose output a gate multiplies, and an activation that is clamped after it" },
	{ "switch_transformers", "an encoder" },
	{ "zaya", "convolutions in attention, and a gate that keeps a state" },
};

const struct cad_lacking *cad_lacking_all(size_t *count)
{
	*count = sizeof lacking / sizeof *lacking;
	return lacking;
}

const char *cad_lacking_of(const char *name)
{
	for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++)
		if (strcmp(lacking[i].name, name) == 0)
			return lacking[i].needs;
	return NULL;
}
