/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/packed.h"

#include "kernels/image.h"
#include "kernels/source.h"

static enum cad_status check_weights(const struct cad_model *model, const char *what, enum cad_weights packed,
	enum cad_weights wanted, struct cad_error *error)
{
	bool same = packed == wanted ||
		(packed == CAD_WEIGHTS_BF16_ROWS && (wanted == CAD_WEIGHTS_BF16 || wanted == CAD_WEIGHTS_BF16_SM90));
	if (same)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_REFUSED,
		"the model in '%s' is packed with %s in %s, but they are to be used in %s: start with the numerics that it was packed for, or give --model the checkpoint",
		cad_model_directory(model), what, cad_weights_name(packed), cad_weights_name(wanted));
}

/* It is of the type that packing gives, and its rows have their length. */
static enum cad_status check_tensor(const struct cad_model *model, const struct cad_tensor *tensor, enum cad_role role,
	enum cad_weights weights, struct cad_error *error)
{
	if (!tensor->data)
		return CAD_OK;

	enum cad_dtype kept = kn_kept_dtype(tensor, role, weights);
	if (tensor->dtype != kept)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s/model.safetensors: tensor '%s' has dtype %s, but packed for %s it has %s",
			cad_model_directory(model), tensor->name, cad_dtype_name(tensor->dtype),
			cad_weights_name(weights), cad_dtype_name(kept));
	if (!kn_dtype_in_rows(kept))
		return CAD_OK;

	uint64_t row_bytes = kn_row_bytes(kept, tensor->shape[1]);
	if (tensor->bytes != tensor->shape[0] * row_bytes)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s/model.safetensors: tensor '%s' has rows of %llu bytes, but %llu values take %llu as %s",
			cad_model_directory(model), tensor->name,
			(unsigned long long)(tensor->bytes / (tensor->shape[0] ? tensor->shape[0] : 1)),
			(unsigned long long)tensor->shape[1], (unsigned long long)row_bytes, cad_dtype_name(kept));
	return CAD_OK;
}

enum cad_status kn_packed_check_experts(
	const struct cad_model *model, enum cad_weights weights, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	const struct cad_packed *packed = cad_model_packed(model);

	if (!packed || cad_model_spec_moe_layers(spec) == 0)
		return CAD_OK;

	enum cad_status status = check_weights(model, "experts", packed->experts, weights, error);
	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		uint32_t experts = spec->layers[layer].moe ? spec->gate.experts : 0;
		for (uint32_t expert = 0; expert < experts; expert++)
			for (enum cad_role role = CAD_ROLE_EXPERT_GATE; role < CAD_ROLE_COUNT; role++) {
				struct cad_tensor tensor = cad_model_tensor(model, role, layer, expert);
				if (status == CAD_OK)
					status = check_tensor(model, &tensor, role, packed->experts, error);
			}
	}
	return status;
}

enum cad_status kn_packed_check_router(const struct cad_model *model, enum cad_weights weights, struct cad_error *error)
{
	const struct cad_packed *packed = cad_model_packed(model);

	if (!packed)
		return CAD_OK;

	enum cad_status status = check_weights(
		model, "attention, head and all that routers compute with", packed->router, weights, error);
	for (uint32_t part = 0; part < cad_model_router_parts(model); part++)
		for (enum cad_role role = 0; role < CAD_ROLE_EXPERT_GATE; role++) {
			struct cad_tensor tensor = cad_model_part_tensor(model, part, role);
			if (status == CAD_OK)
				status = check_tensor(model, &tensor, role, packed->router, error);
		}
	return status;
}

enum cad_status kn_packed_verify_expert(
	const struct cad_model *model, uint32_t layer, uint32_t expert, struct cad_error *error)
{
	const struct cad_packed *packed = cad_model_packed(model);
	char checksum[33];

	if (!packed)
		return cad_model_expert_check(model, layer, expert, error);
	struct kn_expert_source source = kn_expert_source_of(model, layer, expert);
	kn_image_checksum(&source, packed->experts, checksum);
	return cad_model_expert_verify(model, layer, expert, checksum, error);
}
