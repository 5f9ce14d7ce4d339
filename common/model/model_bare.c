/* SPDX-License-Identifier: Apache-2.0 */
/* A model by its config.json alone: what it would have. */
#include "common/base/file.h"
#include "common/model/internal.h"
#include "common/model/tensors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const size_t CONFIG_BYTES_MAX = 16 << 20;

/* Which matrices a checkpoint stores otherwise than the rest: those that are multiplied with, but neither head nor
 * gate; or those of experts. Published files hold to it. */
static bool is_stored_small(const struct cad_model_spec *spec, enum cad_role role, uint32_t rank)
{
	switch (spec->stored.kind) {
	case CAD_STORED_PLAIN: break;
	case CAD_STORED_FP8:
		return rank == 2 && cad_role_is_layer(role) && role != CAD_ROLE_GATE && role != CAD_ROLE_SHARED_SCORE;
	case CAD_STORED_MXFP4: return rank == 2 && cad_role_is_expert(role);
	}
	return false;
}

static uint64_t parts(uint64_t of, uint64_t each) { return each ? (of + each - 1) / each : 1; }

static const char nowhere; /* stands for bytes that are nowhere */

/* A scale for each block of FP8, or for each 32 values of MXFP4. */
static void store_small(const struct cad_model_spec *spec, struct cad_tensor *tensor)
{
	bool fp8 = spec->stored.kind == CAD_STORED_FP8;
	uint64_t n = tensor->shape[0], k = tensor->shape[1], rows = fp8 ? spec->stored.rows : 1,
		 columns = fp8 ? spec->stored.columns : 32;
	tensor->dtype = fp8 ? CAD_DTYPE_F8_E4M3 : CAD_DTYPE_MXFP4;
	tensor->scales = (struct cad_scales){
		.data = &nowhere,
		.dtype = fp8 ? CAD_DTYPE_F32 : CAD_DTYPE_F8_E8M0,
		.rows = rows ? rows : n,
		.columns = columns ? columns : k,
		.ld = parts(k, columns),
		.count = parts(k, columns),
		.bytes = parts(n, rows) * parts(k, columns) * (fp8 ? 4 : 1),
		.name = "",
	};
}

/* As config.json wants it. */
struct cad_tensor cad_model_bare_tensor(const struct cad_model *model, enum cad_role role, uint32_t layer)
{
	const struct cad_model_spec *spec = &model->spec;
	if (role == CAD_ROLE_LM_HEAD && spec->tied_embeddings)
		role = CAD_ROLE_EMBED;
	struct cad_tensor_want want = cad_tensor_wanted(spec, role, layer);
	if (!want.wanted)
		return (struct cad_tensor){ 0 };

	struct cad_tensor tensor = { .data = &nowhere, .dtype = spec->dtype, .rank = want.rank, .name = "" };
	uint64_t elements = 1;
	for (uint32_t d = 0; d < want.rank; d++) {
		tensor.shape[d] = want.shape[d];
		elements *= want.shape[d];
	}
	if (is_stored_small(spec, role, want.rank))
		store_small(spec, &tensor);
	tensor.bytes = elements * cad_dtype_bits(tensor.dtype) / 8;
	return tensor;
}

struct amount {
	uint64_t elements, bytes;
};

/* Of the roles from `first` on, before `end`, of a layer. */
static struct amount amount_of(const struct cad_model *model, uint32_t layer, enum cad_role first, enum cad_role end)
{
	struct amount amount = { 0 };
	for (enum cad_role role = first; role < end; role++) {
		struct cad_tensor tensor = cad_model_bare_tensor(model, role, layer);
		uint64_t elements = tensor.data != NULL;
		for (uint32_t d = 0; d < tensor.rank; d++)
			elements *= tensor.shape[d];
		amount.elements += elements;
		amount.bytes += tensor.bytes + tensor.scales.bytes;
	}
	return amount;
}

static void compute_sizes(struct cad_model *model)
{
	struct cad_model_sizes *sizes = &model->sizes;
	const struct cad_model_spec *spec = &model->spec;
	uint64_t head = (uint64_t)spec->vocab * spec->hidden, twice = spec->tied_embeddings ? head : 0, active = 0,
		 experts = 0;
	struct amount kept = amount_of(model, 0, CAD_ROLE_EMBED, CAD_ROLE_ATTENTION_NORM);

	kept.elements -= twice;
	kept.bytes -= twice * cad_dtype_bytes(spec->dtype);
	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		struct amount own = amount_of(model, layer, CAD_ROLE_ATTENTION_NORM, CAD_ROLE_EXPERT_GATE);
		kept.elements += own.elements;
		kept.bytes += own.bytes;
		if (!spec->layers[layer].moe)
			continue;
		struct amount expert = amount_of(model, layer, CAD_ROLE_EXPERT_GATE, CAD_ROLE_COUNT);
		sizes->expert = expert.bytes;
		sizes->routed_parameters += expert.elements * spec->gate.experts;
		active += expert.elements * spec->gate.topk;
		experts += expert.bytes * spec->gate.experts;
	}

	sizes->parameters = kept.elements + sizes->routed_parameters;
	sizes->active_parameters = kept.elements + active;
	sizes->looked_up = spec->tied_embeddings ? 0 : head;
	sizes->router = kept.bytes;
	sizes->total = kept.bytes + experts;
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
