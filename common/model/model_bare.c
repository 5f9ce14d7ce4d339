/* SPDX-License-Identifier: Apache-2.0 */
/* A model by its config.json alone: what it would have. */
#include "common/base/file.h"
#include "common/model/internal.h"
#include "common/model/tensors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const size_t CONFIG_BYTES_MAX = 16 << 20;

/* As config.json wants it. Its data stands for bytes that are nowhere. */
struct cad_tensor cad_model_bare_tensor(const struct cad_model *model, enum cad_role role, uint32_t layer)
{
	static const char nowhere;
	if (role == CAD_ROLE_LM_HEAD && model->spec.tied_embeddings)
		role = CAD_ROLE_EMBED;
	struct cad_tensor_want want = cad_tensor_wanted(&model->spec, role, layer);
	if (!want.wanted)
		return (struct cad_tensor){ 0 };

	struct cad_tensor tensor = {
		.data = &nowhere,
		.dtype = model->spec.dtype,
		.rank = want.rank,
		.bytes = cad_dtype_bytes(model->spec.dtype),
		.name = "",
	};
	for (uint32_t d = 0; d < want.rank; d++) {
		tensor.shape[d] = want.shape[d];
		tensor.bytes *= want.shape[d];
	}
	return tensor;
}

/* Elements of the roles from `first` on, before `end`, of a layer. */
static uint64_t elements_of(const struct cad_model *model, uint32_t layer, enum cad_role first, enum cad_role end)
{
	uint64_t bytes = 0;
	for (enum cad_role role = first; role < end; role++)
		bytes += cad_model_bare_tensor(model, role, layer).bytes;
	return bytes / cad_dtype_bytes(model->spec.dtype);
}

static void compute_sizes(struct cad_model *model)
{
	struct cad_model_sizes *sizes = &model->sizes;
	const struct cad_model_spec *spec = &model->spec;
	uint64_t each = cad_dtype_bytes(spec->dtype), kept = 0, active = 0, expert = 0;
	uint64_t head = (uint64_t)spec->vocab * spec->hidden;

	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		kept += elements_of(model, layer, CAD_ROLE_ATTENTION_NORM, CAD_ROLE_EXPERT_GATE);
		if (!spec->layers[layer].moe)
			continue;
		expert = elements_of(model, layer, CAD_ROLE_EXPERT_GATE, CAD_ROLE_COUNT);
		sizes->routed_parameters += expert * spec->gate.experts;
		active += expert * spec->gate.topk;
	}

	kept += elements_of(model, 0, CAD_ROLE_EMBED, CAD_ROLE_ATTENTION_NORM) - (spec->tied_embeddings ? head : 0);
	sizes->parameters = kept + sizes->routed_parameters;
	sizes->active_parameters = kept + active;
	sizes->looked_up = spec->tied_embeddings ? 0 : head;
	sizes->expert = expert * each;
	sizes->router = kept * each;
	sizes->total = sizes->parameters * each;
}

/* The file itself, or the one in a directory. */
static enum cad_status read_config(const char *path, struct cad_model_config *config, struct cad_error *error)
{
	struct stat info;
	if (stat(path, &info) != 0 || !S_ISREG(info.st_mode))
		return cad_model_config_read(path, config, error);

	struct cad_model_config read = { .path = strdup(path) };
	enum cad_status status = read.path
		? cad_file_read(path, CONFIG_BYTES_MAX, &read.config, &read.config_bytes, error)
		: cad_error_set(error, CAD_ERR_MEMORY, "no memory to open %s", path);
	if (status == CAD_OK)
		*config = read;
	else
		cad_model_config_fini(&read);
	return status;
}

enum cad_status cad_model_open_config(const char *path, struct cad_model **model, struct cad_error *error)
{
	struct cad_model_config config = { 0 };
	struct cad_model *opened = calloc(1, sizeof *opened);
	enum cad_status status = CAD_ERR_MEMORY;

	if (opened)
		opened->directory = strdup(path);
	if (!opened || !opened->directory)
		cad_error_set(error, status, "no memory to open %s", path);
	else
		status = read_config(path, &config, error);
	if (status == CAD_OK)
		status = cad_model_spec_parse(
			config.path, config.config, config.config_bytes, NULL, 0, &opened->spec, error);
	cad_model_config_fini(&config);
	if (status != CAD_OK) {
		cad_model_close(opened);
		return status;
	}

	opened->is_bare = true;
	opened->arch = cad_arch_find(opened->spec.architecture);
	compute_sizes(opened);
	*model = opened;
	return CAD_OK;
}
