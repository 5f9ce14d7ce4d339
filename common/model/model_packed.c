/* SPDX-License-Identifier: Apache-2.0 */
/* Models that are packed: what their file says, and whether its bytes are what was written. */
#include "common/model/internal.h"

#include <string.h>

/* A packed model has one file. */
static const struct cad_shard *file_of(const struct cad_model *model) { return &model->shards.list[0]; }

static enum cad_status recorded(
	const struct cad_model *model, const char *key, const char **hex, struct cad_error *error)
{
	return cad_packed_checksum(file_of(model)->file, file_of(model)->path, key, hex, error);
}

enum cad_status cad_model_packed_open(struct cad_model *model, struct cad_error *error)
{
	const struct cad_shard *shard = file_of(model);
	const char *config = NULL, *fingerprint = NULL;

	model->is_packed = model->shards.count == 1 && cad_packed_is(shard->file);
	if (!model->is_packed)
		return CAD_OK;

	enum cad_status status = cad_packed_read(shard->file, shard->path, &model->packed, error);
	if (status == CAD_OK)
		status = recorded(model, "config", &config, error);
	if (status == CAD_OK)
		status = recorded(model, "model", &fingerprint, error);
	if (status != CAD_OK)
		return status;
	if (strcmp(config, model->config_checksum) != 0)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s/config.json has the checksum %s, and had %s when the model was packed: change that of the checkpoint, and pack it again",
			model->directory, model->config_checksum, config);
	memcpy(model->fingerprint, fingerprint, sizeof model->fingerprint);

	return CAD_OK;
}

void cad_model_packed_unfold(const struct cad_model *model, enum cad_role role, uint64_t k, struct cad_tensor *tensor)
{
	enum cad_weights weights = cad_role_is_expert(role) ? model->packed.experts : model->packed.router;
	if (cad_role_is_always_f32(role))
		weights = CAD_WEIGHTS_AS_IS;

	if (!model->is_packed || tensor->dtype != CAD_DTYPE_U8 || tensor->rank != 2)
		return;
	if (cad_weights_quantised(weights))
		tensor->dtype = weights == CAD_WEIGHTS_INT8 ? CAD_DTYPE_Q8 : CAD_DTYPE_Q4;
	else if (weights == CAD_WEIGHTS_AS_IS && tensor->shape[1] == cad_dtype_row_bytes(CAD_DTYPE_F8_E4M3, k))
		tensor->dtype = CAD_DTYPE_F8_E4M3;
	else if (weights == CAD_WEIGHTS_AS_IS && tensor->shape[1] == cad_dtype_row_bytes(CAD_DTYPE_MXFP4, k))
		tensor->dtype = CAD_DTYPE_MXFP4;
	else
		return;
	tensor->shape[1] = k;
}

bool cad_model_packed_has_own_head(const struct cad_model *model)
{
	const char *head = cad_safetensors_note(file_of(model)->file, "head");
	return head && strcmp(head, "own") == 0;
}

enum cad_status cad_model_packed_check(const struct cad_model *model, struct cad_error *error)
{
	const struct cad_model_spec *spec = &model->spec;
	char key[CAD_PACKED_KEY_BYTES];
	const char *hex;
	enum cad_status status = CAD_OK;

	for (uint32_t part = 0; part < cad_model_router_parts(model) && status == CAD_OK; part++) {
		status = recorded(model, cad_packed_part_key(part, key), &hex, error);
		for (enum cad_role role = 0; role < CAD_ROLE_EXPERT_GATE && status == CAD_OK; role++) {
			struct cad_tensor tensor = cad_model_part_tensor(model, part, role);
			if (tensor.data)
				status = recorded(model, cad_packed_tensor_key(tensor.name, key), &hex, error);
		}
	}

	for (uint32_t layer = 0; layer < spec->layers_count && status == CAD_OK; layer++) {
		uint32_t experts = spec->layers[layer].moe ? spec->gate.experts : 0;
		for (uint32_t expert = 0; expert < experts && status == CAD_OK; expert++)
			status = recorded(model, cad_packed_expert_key(layer, expert, key), &hex, error);
	}

	return status;
}

/* ---- reading ---- */

const struct cad_packed *cad_model_packed(const struct cad_model *model)
{
	return model->is_packed ? &model->packed : NULL;
}

const char *cad_model_expert_recorded(const struct cad_model *model, uint32_t layer, uint32_t expert)
{
	char key[CAD_PACKED_KEY_BYTES];
	if (!model->is_packed)
		return NULL;
	return cad_safetensors_note(file_of(model)->file, cad_packed_expert_key(layer, expert, key));
}

enum cad_status cad_model_expert_verify(const struct cad_model *model, uint32_t layer, uint32_t expert,
	const char checksum[33], struct cad_error *error)
{
	const char *was = cad_model_expert_recorded(model, layer, expert);
	if (!was || strcmp(was, checksum) == 0)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_CORRUPT,
		"%s: the tensors of expert %u of layer %u, '%s' and on, have the checksum %s, and had %s when they were packed: the file is damaged; copy it again, or pack the checkpoint again",
		file_of(model)->path, expert, layer, cad_model_tensor(model, CAD_ROLE_EXPERT_GATE, layer, expert).name,
		checksum, was);
}

enum cad_status cad_model_router_verify(const struct cad_model *model, uint32_t part, struct cad_error *error)
{
	char key[CAD_PACKED_KEY_BYTES], checksum[33];

	for (enum cad_role role = 0; model->is_packed && role < CAD_ROLE_EXPERT_GATE; role++) {
		struct cad_tensor tensor = cad_model_part_tensor(model, part, role);
		if (!tensor.data)
			continue;
		const char *was = cad_safetensors_note(file_of(model)->file, cad_packed_tensor_key(tensor.name, key));
		cad_model_tensor_checksum(&tensor, checksum);
		if (strcmp(was, checksum) != 0)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: tensor '%s' has the checksum %s, and had %s when it was packed: the file is damaged; copy it again, or pack the checkpoint again",
				file_of(model)->path, tensor.name, checksum, was);
	}
	return CAD_OK;
}

enum cad_status cad_model_quanta_recorded(const struct cad_model *model, float *quanta, struct cad_error *error)
{
	if (!model->is_packed || !cad_weights_quantised(model->packed.experts))
		return CAD_AGAIN;
	return cad_packed_quanta(file_of(model)->file, file_of(model)->path, &model->spec, quanta, error);
}
