/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json -> cad_model_spec: what all families have in common. What one family means by a key
 * of its own is in families/.
 */
#include "common/model/config.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/model/config_rope.h"
#include "common/model/config_stored.h"
#include "common/model/known_keys.h"
#include "common/model/lacking.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t CONFIG_BYTES_MAX = 16 << 20;

static enum cad_dtype read_dtype(const struct cad_keys *keys)
{
	static const char *const names[] = { "dtype", "torch_dtype", NULL };
	static const struct {
		const char *name;
		enum cad_dtype dtype;
	} dtypes[] = { { "float32", CAD_DTYPE_F32 }, { "float16", CAD_DTYPE_F16 }, { "bfloat16", CAD_DTYPE_BF16 } };
	const char *key = cad_keys_name(keys, names);
	const char *text = cad_keys_text_or(keys, key, "float32");

	for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
		if (strcmp(text, dtypes[i].name) == 0)
			return dtypes[i].dtype;
	cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, key, "is '%.32s'; supported are float32, float16 and bfloat16", text);
	return CAD_DTYPE_F32;
}

/* Checkpoints name ids that their vocabulary does not have: placeholders such as -1, or what was
 * added to a tokenizer and never to the model. No such token can come, so nothing is lost. */
static bool is_token(const struct cad_keys *keys, const char *key, json_int_t id, const struct cad_model_spec *spec)
{
	if (id >= 0 && id < (json_int_t)spec->vocab)
		return true;
	cad_log_warn("model", "passed over a special token that the vocabulary does not have",
		CAD_S("file", keys->file), CAD_S("key", key), CAD_I("id", id), CAD_U("vocab", spec->vocab));
	return false;
}

/* A number or a list of numbers. Leaves what is there when the key is absent. */
static void read_eos(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	const json_t *value = cad_keys_get(keys, "eos_token_id");
	if (!value)
		return;

	size_t count = json_is_array(value) ? json_array_size(value) : 1;
	if (count > CAD_STOP_IDS_MAX) {
		cad_keys_fail(keys, CAD_ERR_EXHAUSTED, "eos_token_id", "lists %zu tokens; at most %d are supported",
			count, CAD_STOP_IDS_MAX);
		return;
	}

	uint32_t kept = 0;
	for (size_t i = 0; i < count; i++) {
		const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;
		if (!json_is_integer(id) && !json_is_null(id)) {
			cad_keys_fail(keys, CAD_ERR_INVALID, "eos_token_id", "must be a token, or a list of tokens");
			return;
		}
		if (json_is_integer(id) && is_token(keys, "eos_token_id", json_integer_value(id), spec))
			spec->eos_ids[kept++] = (int32_t)json_integer_value(id);
	}

	spec->eos_ids_count = kept;
}

static void read_bos(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	const json_t *value = cad_keys_get(keys, "bos_token_id");

	spec->bos_id = -1;
	if (value && !json_is_integer(value))
		cad_keys_fail(keys, CAD_ERR_INVALID, "bos_token_id", "must be a token");
	else if (value && is_token(keys, "bos_token_id", json_integer_value(value), spec))
		spec->bos_id = (int32_t)json_integer_value(value);
}

static void read_common(const struct cad_keys *keys, const struct cad_arch *arch, struct cad_model_spec *spec)
{
	static const char *const epsilon_names[] = { "rms_norm_eps", "layernorm_epsilon", NULL };
	spec->hidden = cad_keys_u32(keys, "hidden_size", 1, CAD_HIDDEN_MAX);
	spec->vocab = cad_keys_u32(keys, "vocab_size", 1, CAD_VOCAB_MAX);
	spec->layers_count = cad_keys_u32(keys, "num_hidden_layers", 1, CAD_LAYERS_MAX);
	spec->positions_max = cad_keys_u32(keys, "max_position_embeddings", 1, CAD_POSITIONS_MAX);
	spec->norm_epsilon = (float)cad_keys_number(keys, cad_keys_name(keys, epsilon_names), 1e-30, 1);
	spec->embed_scale = spec->branch_scale = 1;
	spec->tied_embeddings = cad_keys_bool_or(keys, "tie_word_embeddings", false);
	spec->dtype = read_dtype(keys);
	const char *activation = cad_keys_text_or(keys, "hidden_act", "silu");
	if (strcmp(activation, "silu") != 0)
		cad_keys_fail(
			keys, CAD_ERR_UNSUPPORTED, "hidden_act", "is '%.32s'; only silu is supported", activation);
	cad_config_read_stored(keys, arch, spec);
	read_bos(keys, spec);
	read_eos(keys, spec);
}

static const struct cad_arch *read_arch(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	char supported[256];
	const char *name = cad_keys_text_or(keys, "model_type", NULL);

	if (!name) {
		cad_keys_fail(keys, CAD_ERR_INVALID, "model_type", "is missing");
		return NULL;
	}

	const struct cad_arch *arch = cad_arch_find(name);
	const char *needs = arch ? NULL : cad_lacking_of(name);
	if (needs) {
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "model_type",
			"is '%.63s', which needs %s: this version does not have that; supported are %s", name, needs,
			cad_arch_list(supported, sizeof supported));
		return NULL;
	}
	if (!arch) {
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "model_type", "is '%.63s'; supported are %s", name,
			cad_arch_list(supported, sizeof supported));
		return NULL;
	}

	snprintf(spec->architecture, sizeof spec->architecture, "%s", name);
	return arch;
}

/*
 * Models of text and something else have the language model's settings as text_config, and a model_type
 * of their own. Of what is beside it, these count: transformers ties the matrices if either place says so,
 * and a dtype or special tokens may stand outside alone.
 */
static json_t *find_text(const struct cad_keys *keys, enum cad_status *status, struct cad_error *error)
{
	static const char *const shared[] = { "dtype", "torch_dtype", "bos_token_id", "eos_token_id",
		"quantization_config" };
	const char *name = json_string_value(cad_keys_get(keys, "model_type"));
	const json_t *text = cad_keys_get(keys, "text_config");

	if (!text || (name && cad_arch_find(name)))
		return NULL;
	if (!json_is_object(text)) {
		cad_keys_fail(keys, CAD_ERR_INVALID, "text_config", "must be an object");
		return NULL;
	}

	json_t *copy = json_copy((json_t *)text);
	bool good = copy != NULL;
	bool typed = json_object_get(copy, "dtype") || json_object_get(copy, "torch_dtype");
	for (size_t i = typed ? 2 : 0; good && i < sizeof shared / sizeof *shared; i++)
		if (cad_keys_get(keys, shared[i]) && !json_object_get(copy, shared[i]))
			good = json_object_set(copy, shared[i], json_object_get(keys->object, shared[i])) == 0;
	if (good && json_is_true(cad_keys_get(keys, "tie_word_embeddings")))
		good = json_object_set_new(copy, "tie_word_embeddings", json_true()) == 0;
	if (!good) {
		json_decref(copy);
		*status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to read %s", keys->file);
		return NULL;
	}
	return copy;
}

static enum cad_status read_model(const struct cad_keys *keys, struct cad_model_spec *spec, struct cad_error *error)
{
	const struct cad_arch *arch = read_arch(keys, spec);

	if (!arch)
		return *keys->status;

	spec->attentions_count = 1;
	read_common(keys, arch, spec);
	cad_config_read_rope(keys, arch, spec);
	if (!cad_keys_ok(keys))
		return *keys->status;
	spec->layers = calloc(spec->layers_count, sizeof *spec->layers);
	if (!spec->layers)
		return cad_error_set(
			error, CAD_ERR_MEMORY, "%s: no memory for %u layers", keys->file, spec->layers_count);
	for (uint32_t i = 0; i < spec->layers_count; i++)
		spec->layers[i].rope = true;
	arch->read(keys, spec);
	cad_config_check_rope(keys, spec);
	if (arch->runs)
		cad_known_keys_check(keys, "", arch);

	return *keys->status;
}

static enum cad_status read_config(
	const char *name, const json_t *object, struct cad_model_spec *spec, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	struct cad_keys keys = {
		.file = name,
		.prefix = "",
		.object = object,
		.status = &status,
		.error = error,
	};
	json_t *text = find_text(&keys, &status, error);

	if (text) {
		keys.object = text;
		keys.prefix = "text_config.";
		spec->nested = true;
	}
	if (status == CAD_OK)
		status = read_model(&keys, spec, error);
	json_decref(text);
	return status;
}

enum cad_status cad_model_spec_parse(const char *name, const char *config, size_t config_bytes, const char *generation,
	size_t generation_bytes, struct cad_model_spec *spec, struct cad_error *error)
{
	struct cad_model_spec read = { 0 };
	json_t *object = NULL, *generation_object = NULL;
	enum cad_status status = cad_keys_parse(name, config, config_bytes, &object, error);

	if (status != CAD_OK)
		return status;

	status = read_config(name, object, &read, error);
	if (status != CAD_OK || !generation)
		goto done;
	const char *slash = strrchr(name, '/');
	char beside[PATH_MAX];
	snprintf(beside, sizeof beside, "%.*sgeneration_config.json", slash ? (int)(slash - name + 1) : 0, name);
	status = cad_keys_parse(beside, generation, generation_bytes, &generation_object, error);

	if (status == CAD_OK)
		read_eos(
			&(struct cad_keys){
				.file = beside,
				.prefix = "",
				.object = generation_object,
				.status = &status,
				.error = error,
			},
			&read);

done:
	json_decref(generation_object);
	json_decref(object);
	if (status == CAD_OK)
		*spec = read;
	else
		cad_model_spec_fini(&read);

	return status;
}

enum cad_status cad_model_config_read(const char *directory, struct cad_model_config *config, struct cad_error *error)
{
	char *generation_path = NULL;
	struct cad_model_config read = { 0 };
	enum cad_status status;

	if (asprintf(&read.path, "%s/config.json", directory) < 0) {
		read.path = NULL;
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to open %s", directory);
		goto fini;
	}

	if (!cad_file_exists(directory)) {
		status = cad_error_set(
			error, CAD_ERR_NOT_FOUND, "%s does not exist; give the directory of a model", directory);
		goto fini;
	}

	status = cad_file_read(read.path, CONFIG_BYTES_MAX, &read.config, &read.config_bytes, error);
	if (status != CAD_OK)
		goto fini;

	if (asprintf(&generation_path, "%s/generation_config.json", directory) < 0) {
		generation_path = NULL;
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to open %s", directory);
		goto fini;
	}

	if (cad_file_exists(generation_path))
		status = cad_file_read(
			generation_path, CONFIG_BYTES_MAX, &read.generation, &read.generation_bytes, error);
	free(generation_path);
	if (status != CAD_OK)
		goto fini;
	*config = read;
	return CAD_OK;

fini:
	cad_model_config_fini(&read);
	return status;
}

void cad_model_config_fini(struct cad_model_config *config)
{
	free(config->path);
	free(config->config);
	free(config->generation);
	*config = (struct cad_model_config){ 0 };
}
