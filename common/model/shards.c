/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/shards.h"

#include "common/base/file.h"
#include "common/model/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS_MAX = 4096 };
static const size_t INDEX_BYTES_MAX = 64 << 20;
static const char single_name[] = "model.safetensors", index_name[] = "model.safetensors.index.json";

static enum cad_status no_memory(const char *directory, struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_MEMORY, "no memory to open the model in %s", directory);
}

/* Opens one more file; `name` is relative to the directory. */
static enum cad_status add_shard(
	const char *directory, const char *name, struct cad_shards *shards, struct cad_error *error)
{
	struct cad_shard *shard = &shards->list[shards->count];
	if (asprintf(&shard->path, "%s/%s", directory, name) < 0) {
		shard->path = NULL;
		return no_memory(directory, error);
	}
	shards->count++;
	return cad_safetensors_open(shard->path, &shard->file, error);
}

/* A shard lies beside the index: a name with a path in it could reach any file of the machine. */
static bool shard_name_is_plain(const char *name)
{
	static const char tail[] = ".safetensors";
	size_t length = strlen(name), tail_length = sizeof tail - 1;
	return length > tail_length && strcmp(name + length - tail_length, tail) == 0 && !strchr(name, '/') &&
		!strchr(name, '\\') && name[0] != '.';
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The different file names of a weight map, ascending; borrowed from it. */
static enum cad_status read_shard_names(
	const char *path, const json_t *map, const char ***names, size_t *count, struct cad_error *error)
{
	size_t entries = json_object_size(map);
	if (entries == 0)
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s: weight_map is missing, empty or not an object", path);

	const char **list = calloc(entries, sizeof *list);
	if (!list)
		return no_memory(path, error);
	size_t n = 0;
	const char *tensor;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
	{
		const char *name = json_string_value(value);
		if (!name || !shard_name_is_plain(name)) {
			free(list);
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s: weight_map puts tensor '%.200s' into '%.100s', which is not the name of a .safetensors file beside it",
				path, tensor, name ? name : "");
		}
		list[n++] = name;
	}
	qsort(list, n, sizeof *list, by_text);
	size_t different = 1;
	for (size_t i = 1; i < n; i++)
		if (strcmp(list[i], list[different - 1]) != 0)
			list[different++] = list[i];
	if (different > SHARDS_MAX) {
		free(list);
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "%s names %zu files; at most %d are supported", path,
			different, SHARDS_MAX);
	}

	*names = list;
	*count = different;
	return CAD_OK;
}

/* Each tensor must be in the file that the index says: an index of another checkpoint would
 * otherwise go unseen. */
static enum cad_status check_map(const char *path, const char *directory, const json_t *map,
	const struct cad_shards *shards, struct cad_error *error)
{
	size_t directory_length = strlen(directory) + 1;
	const char *tensor;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
	{
		const struct cad_shard_tensor *found = cad_shards_find(shards, tensor);
		if (!found || strcmp(shards->list[found->shard].path + directory_length, json_string_value(value)) != 0)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"%s puts tensor '%.200s' into %s, but it is not there", path, tensor,
				json_string_value(value));
	}

	for (size_t i = 0; i < shards->tensors_count; i++)
		if (!json_object_get(map, shards->tensors[i].tensor.name))
			return cad_error_set(error, CAD_ERR_CORRUPT, "%s: tensor '%.200s' is not in %s",
				shards->list[shards->tensors[i].shard].path, shards->tensors[i].tensor.name,
				index_name);
	return CAD_OK;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(
		((const struct cad_shard_tensor *)a)->tensor.name, ((const struct cad_shard_tensor *)b)->tensor.name);
}

/* All tensors of all files in one sorted list. */
static enum cad_status list_tensors(const char *directory, struct cad_shards *shards, struct cad_error *error)
{
	size_t count = 0;
	for (size_t s = 0; s < shards->count; s++)
		count += cad_safetensors_count(shards->list[s].file);
	shards->tensors = calloc(count + 1, sizeof *shards->tensors);
	if (!shards->tensors)
		return no_memory(directory, error);

	for (uint32_t s = 0; s < shards->count; s++)
		for (size_t i = 0; i < cad_safetensors_count(shards->list[s].file); i++)
			shards->tensors[shards->tensors_count++] = (struct cad_shard_tensor){
				.tensor = cad_safetensors_at(shards->list[s].file, i),
				.shard = s,
			};
	qsort(shards->tensors, count, sizeof *shards->tensors, by_name);

	for (size_t i = 1; i < count; i++)
		if (by_name(&shards->tensors[i - 1], &shards->tensors[i]) == 0)
			return cad_error_set(error, CAD_ERR_CORRUPT, "tensor '%.200s' is in %s and in %s",
				shards->tensors[i].tensor.name, shards->list[shards->tensors[i - 1].shard].path,
				shards->list[shards->tensors[i].shard].path);
	return CAD_OK;
}

static enum cad_status open_sharded(
	const char *directory, const char *path, struct cad_shards *shards, struct cad_error *error)
{
	char *text;
	size_t bytes;
	enum cad_status status = cad_file_read(path, INDEX_BYTES_MAX, &text, &bytes, error);

	if (status != CAD_OK)
		return status;

	json_t *index;
	status = cad_keys_parse(path, text, bytes, &index, error);
	free(text);
	if (status != CAD_OK)
		return status;
	const json_t *map = json_object_get(index, "weight_map");
	const char **names = NULL;
	size_t count = 0;
	status = read_shard_names(path, map, &names, &count, error);
	if (status != CAD_OK)
		goto release_index;
	shards->list = calloc(count, sizeof *shards->list);
	if (!shards->list)
		status = no_memory(directory, error);
	for (size_t i = 0; i < count && status == CAD_OK; i++) {
		status = add_shard(directory, names[i], shards, error);
		if (status == CAD_ERR_NOT_FOUND)
			status = cad_error_prefix(error, "%s", path);
	}

	if (status == CAD_OK)
		status = list_tensors(directory, shards, error);
	if (status == CAD_OK)
		status = check_map(path, directory, map, shards, error);
	free(names);

release_index:
	json_decref(index);
	return status;
}

static enum cad_status open_single(const char *directory, struct cad_shards *shards, struct cad_error *error)
{
	shards->list = calloc(1, sizeof *shards->list);
	if (!shards->list)
		return no_memory(directory, error);
	enum cad_status status = add_shard(directory, single_name, shards, error);
	return status == CAD_OK ? list_tensors(directory, shards, error) : status;
}

enum cad_status cad_shards_open(const char *directory, struct cad_shards *shards, struct cad_error *error)
{
	struct cad_shards opened = { 0 };
	char *single = NULL, *index = NULL;
	enum cad_status status;

	if (asprintf(&single, "%s/%s", directory, single_name) < 0 ||
		asprintf(&index, "%s/%s", directory, index_name) < 0)
		status = no_memory(directory, error);

	/* where both are there, one file goes before an index, as in transformers */
	else if (cad_file_exists(single))
		status = open_single(directory, &opened, error);
	else if (cad_file_exists(index))
		status = open_sharded(directory, index, &opened, error);
	else
		status = cad_error_set(error, CAD_ERR_NOT_FOUND,
			"%s has neither %s nor %s; other weight formats are not supported", directory, single_name,
			index_name);
	free(single);
	free(index);
	if (status == CAD_OK)
		*shards = opened;
	else
		cad_shards_close(&opened);

	return status;
}

void cad_shards_close(struct cad_shards *shards)
{
	for (size_t i = 0; i < shards->count; i++) {
		cad_safetensors_close(shards->list[i].file);
		free(shards->list[i].path);
	}
	free(shards->list);
	free(shards->tensors);
	free(shards->names);
	*shards = (struct cad_shards){ 0 };
}

const struct cad_shard_tensor *cad_shards_find(const struct cad_shards *shards, const char *name)
{
	struct cad_shard_tensor wanted = { .tensor.name = name };
	return bsearch(&wanted, shards->tensors, shards->tensors_count, sizeof wanted, by_name);
}
