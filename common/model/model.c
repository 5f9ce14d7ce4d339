/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/model.h"

#include "common/base/log.h"
#include "common/model/internal.h"
#include "common/model/nested.h"
#include "common/model/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	TOP_ROLES = CAD_ROLE_ATTENTION_NORM,
	LAYER_ROLES = CAD_ROLE_EXPERT_GATE - CAD_ROLE_ATTENTION_NORM,
	EXPERT_ROLES = CAD_ROLE_COUNT - CAD_ROLE_EXPERT_GATE,
	NAME_BYTES = CAD_NAME_BYTES,
};

static size_t slot_of(const struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert)
{
	size_t layers = model->spec.layers_count, experts = model->spec.gate.experts;
	if (!cad_role_is_layer(role))
		return role;
	CAD_ASSERT(layer < layers && role < CAD_ROLE_COUNT);
	if (!cad_role_is_expert(role))
		return TOP_ROLES + (size_t)layer * LAYER_ROLES + (size_t)(role - CAD_ROLE_ATTENTION_NORM);
	CAD_ASSERT(expert < experts);
	return TOP_ROLES + layers * LAYER_ROLES + ((size_t)layer * experts + expert) * EXPERT_ROLES +
		(size_t)(role - CAD_ROLE_EXPERT_GATE);
}

/* ---- checks ---- */

const char *cad_model_shape_text(uint32_t rank, const uint64_t *shape, char text[96])
{
	size_t at = 0;
	for (uint32_t i = 0; i < rank && i < 4; i++)
		at += (size_t)snprintf(text + at, 96 - at, "%s%llu", i ? ", " : "", (unsigned long long)shape[i]);
	snprintf(text + at, 96 - at, "%s", rank > 4 ? ", ..." : "");
	return text;
}

static bool shape_is(const struct cad_tensor *tensor, const struct cad_tensor_want *want)
{
	return tensor->rank == want->rank && memcmp(tensor->shape, want->shape, want->rank * sizeof *want->shape) == 0;
}

struct cad_shard_tensor *cad_model_find(const struct cad_model *model, const char *name)
{
	char other[NAME_BYTES];
	const struct cad_shard_tensor *found = cad_shards_find(&model->shards, name);
	if (!found && cad_tensor_other_name(model->arch, name, other, sizeof other))
		found = cad_shards_find(&model->shards, other);
	return found ? &model->shards.tensors[found - model->shards.tensors] : NULL;
}

static const struct cad_shard_tensor *find_role(const struct cad_model *model, enum cad_role role)
{
	char name[NAME_BYTES];
	return cad_tensor_name(model->arch, role, 0, 0, name, sizeof name) ? cad_model_find(model, name) : NULL;
}

static bool dtype_runs(const struct cad_tensor *tensor, enum cad_role role)
{
	switch (tensor->dtype) {
	case CAD_DTYPE_F32:
	case CAD_DTYPE_F16:
	case CAD_DTYPE_BF16:
	case CAD_DTYPE_Q8:
	case CAD_DTYPE_Q4:
	case CAD_DTYPE_MXFP4: return true;
	case CAD_DTYPE_F8_E4M3: return tensor->rank >= 2 && role != CAD_ROLE_EMBED;
	default: return false;
	}
}

static enum cad_status refuse_dtype(
	const struct cad_model *model, const struct cad_shard_tensor *found, struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_UNSUPPORTED,
		"%s: tensor '%s' has dtype %s; weights must be f32, f16 or bf16, or matrices of f8_e4m3 with scales",
		model->shards.list[found->shard].path, found->tensor.name, cad_dtype_name(found->tensor.dtype));
}

/* Checks one tensor, and notes where it is. */
static enum cad_status place_found(struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert,
	struct cad_shard_tensor *found, const struct cad_tensor_want *want, struct cad_error *error)
{
	char has[96], wants[96];
	size_t index = (size_t)(found - model->shards.tensors);
	struct cad_tensor *tensor = &found->tensor;

	cad_model_packed_unfold(model, role, want->shape[1], tensor);
	if (want->rank == 1 && tensor->rank == 2 && tensor->shape[0] == 1) { /* a vector, kept as one row */
		tensor->rank = 1;
		tensor->shape[0] = tensor->shape[1];
	}
	if (!shape_is(tensor, want))
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: tensor '%s' has shape [%s], but config.json calls for [%s]",
			model->shards.list[found->shard].path, tensor->name,
			cad_model_shape_text(tensor->rank, tensor->shape, has),
			cad_model_shape_text(want->rank, want->shape, wants));
	if (!dtype_runs(tensor, role))
		return refuse_dtype(model, found, error);
	enum cad_status status = cad_model_find_scales(model, found, error);
	if (status != CAD_OK)
		return status;
	model->used[index] = CAD_USE_VALUES;
	model->slots[slot_of(model, role, layer, expert)] = (uint32_t)index;

	return CAD_OK;
}

static enum cad_status place_named(struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert,
	const char *name, const struct cad_tensor_want *want, struct cad_error *error)
{
	struct cad_shard_tensor *found = cad_model_find(model, name);
	if (found)
		return place_found(model, role, layer, expert, found, want, error);
	if (model->shards.count == 1)
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s: tensor '%s' is missing, but config.json calls for it",
			model->shards.list[0].path, name);
	return cad_error_set(error, CAD_ERR_CORRUPT,
		"%s: tensor '%s' is in none of the %zu safetensors files, but config.json calls for it",
		model->directory, name, model->shards.count);
}

static enum cad_status place(struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert,
	const struct cad_tensor_want *want, struct cad_error *error)
{
	char name[NAME_BYTES];
	if (!cad_tensor_name(model->arch, role, layer, expert, name, sizeof name))
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"%s: no tensor is known for a part that config.json calls for", model->directory);
	return place_named(model, role, layer, expert, name, want, error);
}

/* A matrix of a layer, that of experts for all of them: in one tensor with others, or each in its own.
 * Config.json does not say which; the tensors do. */
static enum cad_status place_of_layer(struct cad_model *model, enum cad_role role, uint32_t layer,
	const struct cad_tensor_want *want, struct cad_error *error)
{
	uint32_t copies = cad_role_is_expert(role) ? model->spec.gate.experts : 1;
	char name[NAME_BYTES];
	bool fuses = cad_tensor_fused_name(model->arch, role, layer, name, sizeof name);
	struct cad_shard_tensor *whole = fuses ? cad_model_find(model, name) : NULL, *blocks = NULL;
	enum cad_status status = CAD_OK;

	if (fuses && !whole)
		whole = blocks = cad_model_find_blocks(model, name);
	if (blocks)
		status = cad_model_unfold_blocks(model, blocks, error);
	struct cad_tensor_want all = cad_tensor_fused_wanted(model->arch, &model->spec, role, *want, blocks != NULL);
	for (uint32_t expert = 0; expert < copies && status == CAD_OK; expert++)
		status = whole ? place_found(model, role, layer, expert, whole, &all, error)
			       : place(model, role, layer, expert, want, error);
	return status;
}

static enum cad_status place_layer(struct cad_model *model, uint32_t layer, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	for (enum cad_role role = CAD_ROLE_ATTENTION_NORM; role < CAD_ROLE_COUNT && status == CAD_OK; role++) {
		struct cad_tensor_want want = cad_tensor_wanted(&model->spec, role, layer);
		if (want.wanted)
			status = place_of_layer(model, role, layer, &want, error);
	}
	return status;
}

/*
 * What is in no layer. Where config.json says that embedding and output matrix are tied, either of
 * them that is stored alone serves for both; where both are, each is itself, as in transformers
 * 5.24: they are equal, or config.json is wrong. (A packed model has both also where the one is kept
 * otherwise than the other.)
 */
static enum cad_status place_top(struct cad_model *model, struct cad_error *error)
{
	bool tied = model->spec.tied_embeddings, embed = find_role(model, CAD_ROLE_EMBED) != NULL,
	     head = find_role(model, CAD_ROLE_LM_HEAD) != NULL;
	enum cad_status status = CAD_OK;

	for (enum cad_role role = 0; role < CAD_ROLE_ATTENTION_NORM && status == CAD_OK; role++) {
		struct cad_tensor_want want = cad_tensor_wanted(&model->spec, role, 0);
		if (tied && role == CAD_ROLE_LM_HEAD)
			want.wanted = head;
		if (tied && role == CAD_ROLE_EMBED)
			want.wanted = embed || !head;
		if (want.wanted)
			status = place(model, role, 0, 0, &want, error);
	}
	if (status != CAD_OK || !tied)
		return status;

	if (!embed) {
		const struct cad_shard_tensor *only = &model->shards.tensors[model->slots[CAD_ROLE_LM_HEAD]];
		if (!dtype_runs(&only->tensor, CAD_ROLE_EMBED))
			return refuse_dtype(model, only, error);
		model->slots[CAD_ROLE_EMBED] = model->slots[CAD_ROLE_LM_HEAD];
		model->slots[CAD_ROLE_LM_HEAD] = CAD_SLOT_ABSENT;
	}
	model->has_own_head = embed && head && (!model->is_packed || cad_model_packed_has_own_head(model));
	model->spec.tied_embeddings = !model->has_own_head;
	return CAD_OK;
}

static enum cad_unread unread_kind(const struct cad_model *model, const char *name)
{
	if (cad_tensor_is_computed(name))
		return CAD_UNREAD_COMPUTED;
	return cad_tensor_is_further(&model->spec, name) ? CAD_UNREAD_FURTHER : CAD_UNREAD_OTHER;
}

/* What nothing reads is passed over, unless it belongs to what the model computes with. */
static enum cad_status check_unread(struct cad_model *model, struct cad_error *error)
{
	model->unread_kinds[CAD_UNREAD_OUTSIDE] = (struct cad_unread_tensors){
		.count = model->shards.outside.count,
		.bytes = model->shards.outside.bytes,
		.first = model->shards.outside.first,
	};
	for (size_t i = 0; i < model->shards.tensors_count; i++) {
		const struct cad_shard_tensor *tensor = &model->shards.tensors[i];
		if (model->used[i])
			continue;
		struct cad_unread_tensors *unread = &model->unread_kinds[unread_kind(model, tensor->tensor.name)];
		if (unread->count++ == 0)
			unread->first = tensor->tensor.name;
		unread->bytes += tensor->tensor.bytes;
		if (cad_tensor_is_computed(tensor->tensor.name))
			continue;
		if (cad_tensor_is_missed(&model->spec, &tensor->tensor))
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: tensor '%.200s' is not one that config.json calls for; the two may belong to different models",
				model->shards.list[tensor->shard].path, tensor->tensor.name);
		if (model->unread++ == 0)
			model->unread_first = tensor->tensor.name;
	}
	return CAD_OK;
}

static enum cad_status place_all(struct cad_model *model, struct cad_error *error)
{
	enum cad_status status = place_top(model, error);
	for (uint32_t layer = 0; layer < model->spec.layers_count && status == CAD_OK; layer++)
		status = place_layer(model, layer, error);
	return status == CAD_OK ? check_unread(model, error) : status;
}

/* ---- what is computed once ---- */

static uint64_t parameters_of(const struct cad_tensor *tensor)
{
	uint64_t count = tensor->data != NULL;
	for (uint32_t d = 0; d < tensor->rank; d++)
		count *= tensor->shape[d];
	return count;
}

static void compute_sizes(struct cad_model *model)
{
	struct cad_model_sizes *sizes = &model->sizes;
	uint32_t experts = model->spec.gate.experts;

	for (size_t i = 0; i < model->shards.count; i++)
		sizes->files += cad_safetensors_file_bytes(model->shards.list[i].file);
	uint64_t active = 0;
	for (uint32_t layer = 0; layer < model->spec.layers_count; layer++) {
		uint64_t layer_parameters = 0;
		for (uint32_t expert = 0; model->spec.layers[layer].moe && expert < experts; expert++) {
			uint64_t bytes = 0;
			for (enum cad_role role = CAD_ROLE_EXPERT_GATE; role < CAD_ROLE_COUNT; role++) {
				struct cad_tensor tensor = cad_model_tensor(model, role, layer, expert);
				bytes += tensor.bytes + tensor.scales.bytes;
				layer_parameters += parameters_of(&tensor);
			}
			sizes->total += bytes;
			sizes->expert = bytes > sizes->expert ? bytes : sizes->expert;
		}
		sizes->routed_parameters += layer_parameters;
		active += experts ? layer_parameters / experts * model->spec.gate.topk : 0;
	}

	uint64_t all = 0;
	for (size_t i = 0; i < model->shards.tensors_count; i++)
		if (model->used[i]) {
			bool twin = model->spec.tied_embeddings && i == model->slots[CAD_ROLE_LM_HEAD];
			all += model->shards.tensors[i].tensor.bytes;
			if (!twin && model->used[i] == CAD_USE_VALUES)
				sizes->parameters += parameters_of(&model->shards.tensors[i].tensor);
		}
	sizes->router = all - sizes->total;
	sizes->total = all;
	sizes->active_parameters = sizes->parameters - sizes->routed_parameters + active;
	if (!model->spec.tied_embeddings) {
		struct cad_tensor embed = cad_model_tensor(model, CAD_ROLE_EMBED, 0, 0);
		sizes->looked_up = parameters_of(&embed);
	}
}

/* ---- opening ---- */

static enum cad_status open_config(
	struct cad_model *model, const struct cad_model_config *config, struct cad_error *error)
{
	enum cad_status status = cad_model_spec_parse(config->path, config->config, config->config_bytes,
		config->generation, config->generation_bytes, &model->spec, error);

	if (status != CAD_OK)
		return status;

	char supported[256];
	model->arch = cad_arch_find(model->spec.architecture);
	CAD_ASSERT(model->arch);
	if (!model->arch->runs)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"%s: model_type is '%s', which this version does not run yet; supported are %s", config->path,
			model->spec.architecture, cad_arch_list(supported, sizeof supported));

	return CAD_OK;
}

static enum cad_status open_weights(
	struct cad_model *model, const struct cad_model_config *config, struct cad_error *error)
{
	enum cad_status status = cad_shards_open(model->directory, &model->shards, error);
	if (status != CAD_OK)
		return status;
	cad_model_hash_config(model, config);
	if (model->spec.nested)
		status = cad_shards_take_text(model->directory, &model->shards, error);
	if (status != CAD_OK)
		return status;

	size_t layers = model->spec.layers_count;
	size_t slots = TOP_ROLES + layers * LAYER_ROLES + layers * model->spec.gate.experts * EXPERT_ROLES;
	model->slots = malloc(slots * sizeof *model->slots);
	model->used = calloc(model->shards.tensors_count + 1, sizeof *model->used);
	if (!model->slots || !model->used)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to open the model in %s", model->directory);
	memset(model->slots, 0xff, slots * sizeof *model->slots); /* all CAD_SLOT_ABSENT */
	status = cad_model_packed_open(model, error);
	if (status == CAD_OK)
		status = place_all(model, error);
	if (status == CAD_OK && model->is_packed)
		status = cad_model_packed_check(model, error);
	if (status == CAD_OK)
		compute_sizes(model);

	return status;
}

enum cad_status cad_model_open(const char *directory, struct cad_model **model, struct cad_error *error)
{
	struct cad_model *opened = calloc(1, sizeof *opened);
	struct cad_model_config config = { 0 };

	if (!opened)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to open the model in %s", directory);

	enum cad_status status;
	opened->directory = strdup(directory);
	if (!opened->directory)
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to open the model in %s", directory);
	else
		status = cad_model_config_read(directory, &config, error);
	if (status == CAD_OK)
		status = open_config(opened, &config, error);
	if (status == CAD_OK)
		status = open_weights(opened, &config, error);
	if (status == CAD_OK && !opened->is_packed)
		cad_model_hash_headers(opened, &config);
	cad_model_config_fini(&config);
	if (status == CAD_OK) {
		if (opened->unread > 0)
			cad_log_warn("model", "the files have tensors that nothing reads", CAD_S("model", directory),
				CAD_U("count", opened->unread), CAD_S("first", opened->unread_first));
		*model = opened;
	} else {
		cad_model_close(opened);
	}

	return status;
}

void cad_model_close(struct cad_model *model)
{
	if (!model)
		return;
	free(model->used);
	free(model->slots);
	cad_shards_close(&model->shards);
	cad_model_spec_fini(&model->spec);
	free(model->directory);
	free(model);
}

enum cad_status cad_model_check(const char *directory, struct cad_error *error)
{
	struct cad_model *model;
	enum cad_status status = cad_model_open(directory, &model, error);
	if (status == CAD_OK)
		cad_model_close(model);
	return status;
}

/* ---- reading ---- */

const struct cad_model_spec *cad_model_spec(const struct cad_model *model) { return &model->spec; }
bool cad_model_has_own_head(const struct cad_model *model) { return model->has_own_head; }
size_t cad_model_unread(const struct cad_model *model, const char **first)
{
	*first = model->unread_first;
	return model->unread;
}
struct cad_unread_tensors cad_model_unread_tensors(const struct cad_model *model, enum cad_unread kind)
{
	CAD_ASSERT(kind < CAD_UNREAD_COUNT);
	return model->unread_kinds[kind];
}
const char *cad_model_directory(const struct cad_model *model) { return model->directory; }
struct cad_model_sizes cad_model_sizes(const struct cad_model *model) { return model->sizes; }
bool cad_model_tensor_name(
	const struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert, char *name, size_t bytes)
{
	return cad_tensor_name(model->arch, role, layer, expert, name, bytes);
}

/* Whether the tensor holds others too: all experts, or gate and up of the shared one. */
static bool is_fused(const struct cad_model *model, enum cad_role role, uint32_t layer, const struct cad_tensor *tensor)
{
	bool shared = role == CAD_ROLE_SHARED_GATE || role == CAD_ROLE_SHARED_UP,
	     bias = role >= CAD_ROLE_EXPERT_GATE_BIAS;
	return tensor->rank == (bias ? 2 : 3) ||
		(shared &&
			model->slots[slot_of(model, CAD_ROLE_SHARED_GATE, layer, 0)] ==
				model->slots[slot_of(model, CAD_ROLE_SHARED_UP, layer, 0)]);
}

/* Whether the matrix beside it, up of gate and the other way round, is of another type. */
static bool is_mixed(
	const struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert, enum cad_dtype dtype)
{
	static const enum cad_role pairs[][2] = { { CAD_ROLE_FFN_GATE, CAD_ROLE_FFN_UP },
		{ CAD_ROLE_SHARED_GATE, CAD_ROLE_SHARED_UP }, { CAD_ROLE_EXPERT_GATE, CAD_ROLE_EXPERT_UP } };

	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
		for (size_t own = 0; own < 2; own++)
			if (role == pairs[i][own])
				return model->shards
					       .tensors[model->slots[slot_of(model, pairs[i][!own], layer, expert)]]
					       .tensor.dtype != dtype;
	return false;
}

struct cad_tensor cad_model_tensor(const struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert)
{
	if (model->is_bare)
		return cad_model_bare_tensor(model, role, layer);
	if (cad_model_is_twin(model, role))
		role = CAD_ROLE_EMBED;
	if (cad_role_is_expert(role) && model->spec.gate.experts == 0)
		return (struct cad_tensor){ 0 };
	uint32_t index = model->slots[slot_of(model, role, layer, expert)];
	if (index == CAD_SLOT_ABSENT)
		return (struct cad_tensor){ 0 };
	const struct cad_tensor *tensor = &model->shards.tensors[index].tensor;
	struct cad_tensor part = is_fused(model, role, layer, tensor)
		? cad_tensor_fused_part(model->arch, tensor, role, expert)
		: *tensor;
	part.mixed = cad_dtype_scaled(part.dtype) && is_mixed(model, role, layer, expert, part.dtype);
	return part;
}

static void forget(struct cad_tensor tensor)
{
	cad_file_forget(tensor.data, tensor.data ? cad_tensor_extent(&tensor) : 0);
	cad_file_forget(tensor.scales.data, tensor.scales.bytes);
}

void cad_model_forget_expert(const struct cad_model *model, uint32_t layer, uint32_t expert)
{
	for (enum cad_role role = CAD_ROLE_EXPERT_GATE; role < CAD_ROLE_COUNT; role++)
		forget(cad_model_tensor(model, role, layer, expert));
}
