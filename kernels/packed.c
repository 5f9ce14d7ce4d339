#include "kernels/packed.h"

uint64_t kn_packed_matrix_bytes(size_t n, size_t k, enum cad_dtype dtype, enum kn_weights weights)
{
	size_t element = dtype == CAD_DTYPE_BF16 || weights == KN_WEIGHTS_BF16 ? 2 : 4;
	return kn_round_up(n, KN_PANEL_COLS) * kn_round_up(k, 32) * element;
}

uint64_t kn_packed_expert_bytes(const struct cad_model *model, enum kn_weights weights)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	uint32_t layer = 0;
	while (layer < spec->layers_count && !spec->layers[layer].moe)
		layer++;
	if (spec->gate.experts == 0 || layer == spec->layers_count)
		return 0;
	size_t hidden = spec->hidden, ffn = kn_round_up(spec->expert.size, 32);
	enum cad_dtype up = cad_model_tensor(model, CAD_ROLE_EXPERT_UP, layer, 0).dtype, down = cad_model_tensor(model, CAD_ROLE_EXPERT_DOWN, layer, 0).dtype;
	uint64_t bias = spec->expert.bias ? (2 * ffn + kn_round_up(hidden, 64)) * sizeof(float) : 0;
	return kn_packed_matrix_bytes(2 * ffn, hidden, up, weights) + kn_packed_matrix_bytes(hidden, ffn, down, weights) + bias;
}
