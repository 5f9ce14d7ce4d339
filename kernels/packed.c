/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/packed.h"

static uint64_t allocated(size_t bytes)
{
	return bytes < KN_HUGE_PAGE_BYTES ? bytes : kn_round_up(bytes, KN_HUGE_PAGE_BYTES);
}

uint64_t kn_packed_matrix_bytes(size_t n, size_t k, enum cad_dtype dtype, enum kn_weights weights)
{
	size_t element = dtype == CAD_DTYPE_BF16 || weights == KN_WEIGHTS_BF16 ? 2 : 4;
	return allocated(kn_round_up(n, KN_PANEL_COLS) * kn_round_up(k, 32) * element);
}

static uint64_t vector_bytes(size_t n) { return kn_round_up(n, 64) * sizeof(float); }

/* Gate and up lie together, padded to whole panels of their own. */
static uint64_t ffn_bytes(const struct cad_model *model, enum cad_role up, enum cad_role down, uint32_t layer,
	uint32_t size, enum kn_weights weights)
{
	size_t hidden = cad_model_spec(model)->hidden, ffn = kn_round_up(size, 32);
	return kn_packed_matrix_bytes(2 * ffn, hidden, cad_model_tensor(model, up, layer, 0).dtype, weights) +
		kn_packed_matrix_bytes(hidden, ffn, cad_model_tensor(model, down, layer, 0).dtype, weights);
}

uint64_t kn_packed_expert_bytes(const struct cad_model *model, enum kn_weights weights)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	uint32_t layer = 0;

	while (layer < spec->layers_count && !spec->layers[layer].moe)
		layer++;
	if (spec->gate.experts == 0 || layer == spec->layers_count)
		return 0;
	uint64_t bias = spec->expert.bias
		? 2 * kn_round_up(spec->expert.size, 32) * sizeof(float) + vector_bytes(spec->hidden)
		: 0;
	return ffn_bytes(model, CAD_ROLE_EXPERT_UP, CAD_ROLE_EXPERT_DOWN, layer, spec->expert.size, weights) + bias;
}

static uint64_t tensor_bytes(const struct cad_model *model, enum cad_role role, uint32_t layer, enum kn_weights weights)
{
	struct cad_tensor tensor = cad_model_tensor(model, role, layer, 0);
	if (!tensor.data)
		return 0;
	return tensor.rank == 2 ? kn_packed_matrix_bytes(tensor.shape[0], tensor.shape[1], tensor.dtype, weights)
				: vector_bytes(tensor.shape[0]);
}

static bool is_ffn(enum cad_role role)
{
	return (role >= CAD_ROLE_FFN_GATE && role <= CAD_ROLE_FFN_DOWN) ||
		(role >= CAD_ROLE_SHARED_GATE && role <= CAD_ROLE_SHARED_DOWN);
}

uint64_t kn_packed_router_bytes(const struct cad_model *model, enum kn_weights weights)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	struct cad_tensor embed = cad_model_tensor(model, CAD_ROLE_EMBED, 0, 0);
	bool rounds = weights == KN_WEIGHTS_BF16 && embed.dtype != CAD_DTYPE_BF16;

	/* rows as they are: nothing is multiplied with them */
	uint64_t table =
		allocated((size_t)spec->vocab * spec->hidden * cad_dtype_bytes(rounds ? CAD_DTYPE_BF16 : embed.dtype));
	uint64_t bytes = table + vector_bytes(spec->rope.size / 2) +
		tensor_bytes(model, CAD_ROLE_FINAL_NORM, 0, weights) +
		tensor_bytes(model, CAD_ROLE_LM_HEAD, 0, weights);

	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		for (enum cad_role role = CAD_ROLE_ATTENTION_NORM; role < CAD_ROLE_EXPERT_GATE; role++)
			bytes += is_ffn(role) ? 0 : tensor_bytes(model, role, layer, weights);
		if (!spec->layers[layer].moe)
			bytes += ffn_bytes(model, CAD_ROLE_FFN_UP, CAD_ROLE_FFN_DOWN, layer, spec->dense.size, weights);
		else if (spec->shared.size > 0)
			bytes += ffn_bytes(
				model, CAD_ROLE_SHARED_UP, CAD_ROLE_SHARED_DOWN, layer, spec->shared.size, weights);
	}

	return bytes;
}
