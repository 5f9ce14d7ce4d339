/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/families/parts.h"

static void read_llama(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	cad_read_grouped_attention(keys, spec);
	cad_read_bias(keys, &spec->attention, false);
	cad_read_uniform_window(keys, spec, 0);
	spec->dense.size = cad_read_ffn_size(keys, "intermediate_size");
	spec->dense.bias = cad_keys_bool_or(keys, "mlp_bias", false);
}

static const struct cad_known_key llama_keys[] = {
	CAD_READ("attention_bias"),
	CAD_READ("mlp_bias"),
	CAD_NO_USE("pretraining_tp", CAD_KEY_LIBRARY),
};

const struct cad_arch cad_arch_llama = {
	.name = "llama",
	.dense = true,
	.runs = true,
	.rope_theta = 1e4,
	.read = read_llama,
	CAD_KEYS(llama_keys),
};
